/* ballastctl set: shares, min and max of a VM. */
#include "daemon/ballastctl/options.h"

enum { OPT_SHARES = 1, OPT_MIN, OPT_MAX };
static const struct option options[] = {
    {"shares", required_argument, NULL, OPT_SHARES},
    {"min", required_argument, NULL, OPT_MIN},
    {"max", required_argument, NULL, OPT_MAX},
    {0},
};

static int take_option(json_t *params, int option)
{
    static const char *const names[] = {NULL, "shares", "min", "max"};
    uint64_t value;
    int status = option == OPT_SHARES
                     ? ctl_parse_count("set", "--shares", optarg, 1, UINT32_MAX, &value)
                     : ctl_parse_size("set", option == OPT_MIN ? "--min" : "--max", optarg, &value);
    if (status == CTL_OK)
        json_object_set_new(params, names[option], json_integer((json_int_t)value));
    return status;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *params = json_object(), *result;
    int option, status = CTL_OK;
    while (status == CTL_OK && (option = options_next(argc, argv, options, NULL)) > 0)
        status = take_option(params, option);
    if (status == CTL_OK && option == 0)
        status = CTL_USAGE;
    if (status == CTL_OK)
        status = options_end(argc, argv, 1, 1);
    if (status == CTL_OK && json_object_size(params) == 0)
        status = ctl_usage("set", "set what? --shares, --min or --max");
    if (status != CTL_OK) {
        json_decref(params);
        return status;
    }
    json_object_set_new(params, "vm", json_string(argv[optind]));
    if ((status = ctl_call(ctl, "vm.set", params, &result)) != CTL_OK)
        return status;
    if (ctl->json)
        ctl_print_json(result, false);
    json_decref(result);
    return CTL_OK;
}

const struct command command_set = {
    .name = "set",
    .arguments = "VM [--shares N] [--min SIZE] [--max SIZE]",
    .summary = "change what a virtual machine is entitled to",
    .details = "  --shares N   its weight beside the others\n"
               "  --min SIZE   memory it is never reclaimed below; the host must be able to keep\n"
               "               the min of all\n"
               "  --max SIZE   memory it never gets more than; at most its configured memory\n",
    .run = run,
};
