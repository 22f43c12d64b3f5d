/* ballastctl events: what happens on the host, a line each. */
#include "daemon/ballastctl/options.h"

#include <stdio.h>

enum { OPT_COUNT = 1 };
static const struct option options[] = {
    {"count", required_argument, NULL, OPT_COUNT},
    {0},
};

static const char *text_of(const json_t *event, const char *member)
{
    const char *text = json_string_value(json_object_get(event, member));
    return text ? text : "-";
}

static void print_event(const json_t *event)
{
    char moment[CTL_MOMENT_BYTES];
    uint64_t time_ns = (uint64_t)json_integer_value(json_object_get(event, "time_ns"));
    if (json_object_get(event, "lost"))
        printf("(%" JSON_INTEGER_FORMAT " events lost)\n",
               json_integer_value(json_object_get(event, "lost")));
    printf("%s  %-16s  %-16s  %s\n", ctl_moment(time_ns, moment), text_of(event, "vm"),
           text_of(event, "kind"), text_of(event, "text"));
    fflush(stdout);
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    uint64_t count = UINT64_MAX;
    int option, status;
    json_t *result;
    while ((option = options_next(argc, argv, options, NULL)) > 0)
        if (ctl_parse_count("events", "--count", optarg, 1, UINT64_MAX - 1, &count) != CTL_OK)
            return CTL_USAGE;
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 0, 0)) != CTL_OK)
        return status;
    if ((status = ctl_call(ctl, "events.subscribe", NULL, &result)) != CTL_OK)
        return status;
    json_decref(result);
    for (uint64_t i = 0; i < count; i++) {
        if ((status = ctl_next(ctl, "event", &result)) != CTL_OK)
            return status;
        if (ctl->json)
            ctl_print_json(result, true);
        else
            print_event(result);
        json_decref(result);
    }
    return CTL_OK;
}

const struct command command_events = {
    .name = "events",
    .arguments = "[--count N]",
    .summary = "follow events: time, VM, kind, text",
    .details = "  --count N  end after N events; default: never\n"
               "\n"
               "With --json one object a line.\n",
    .run = run,
};
