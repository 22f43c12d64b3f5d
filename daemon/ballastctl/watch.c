/* ballastctl watch: rows of the host and all VMs, one JSON object a line. */
#include "daemon/ballastctl/options.h"

enum { OPT_INTERVAL = 1, OPT_COUNT };
static const struct option options[] = {
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"count", required_argument, NULL, OPT_COUNT},
    {0},
};

static int run(struct ctl *ctl, int argc, char **argv)
{
    uint64_t interval_ms = 1000, count = UINT64_MAX;
    int option, status = CTL_OK;
    json_t *result;
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0) {
        if (option == OPT_INTERVAL)
            status = ctl_parse_count("watch", "--interval", optarg, 10, 3600000, &interval_ms);
        else
            status = ctl_parse_count("watch", "--count", optarg, 1, UINT64_MAX - 1, &count);
    }
    if (status != CTL_OK || option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 0, 0)) != CTL_OK)
        return status;
    status = ctl_call(ctl, "stats.subscribe",
                      json_pack("{s:I}", "interval_ms", (json_int_t)interval_ms), &result);
    if (status != CTL_OK)
        return status;
    json_decref(result);
    for (uint64_t i = 0; i < count; i++) {
        if ((status = ctl_next(ctl, "stats.rows", &result)) != CTL_OK)
            return status;
        ctl_print_json(result, true);
        json_decref(result);
    }
    return CTL_OK;
}

const struct command command_watch = {
    .name = "watch",
    .arguments = "[--interval MS] [--count N]",
    .summary = "follow statistics: one JSON object a line",
    .details = "  --interval MS  between two rows, 10 to 3600000; default 1000\n"
               "  --count N      end after N rows; default: never\n"
               "\n"
               "A row has time_ns, host, vms, and lost if rows were dropped because this\n"
               "program was not read fast enough.\n",
    .run = run,
};
