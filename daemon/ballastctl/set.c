/* ballastctl set: shares, min, max and tax of a VM, and with whom it shares pages. */
#include "daemon/ballastctl/options.h"

#include <string.h>

enum { OPT_SHARES = 1, OPT_MIN, OPT_MAX, OPT_TAX, OPT_DOMAIN, OPT_SHARING };
static const struct option options[] = {
    {"shares", required_argument, NULL, OPT_SHARES},
    {"min", required_argument, NULL, OPT_MIN},
    {"max", required_argument, NULL, OPT_MAX},
    {"idle-tax", required_argument, NULL, OPT_TAX},
    {"sharing-domain", required_argument, NULL, OPT_DOMAIN},
    {"sharing", required_argument, NULL, OPT_SHARING},
    {0},
};

static int take_option(json_t *params, int option)
{
    static const char *const names[] = {NULL, "shares", "min", "max", "idle_tax_percent"};
    uint64_t value;
    int status;
    if (option == OPT_TAX && strcmp(optarg, "host") == 0) {
        json_object_set_new(params, "idle_tax_percent", json_null());
        return CTL_OK;
    }
    if (option == OPT_DOMAIN) {
        bool alone = strcmp(optarg, "none") == 0;
        json_object_set_new(params, "sharing_domain", alone ? json_null() : json_string(optarg));
        return CTL_OK;
    }
    if (option == OPT_SHARING) {
        bool on;
        if ((status = ctl_parse_switch("set", "--sharing", optarg, &on)) == CTL_OK)
            json_object_set_new(params, "sharing", json_boolean(on));
        return status;
    }
    if (option == OPT_SHARES)
        status = ctl_parse_count("set", "--shares", optarg, 1, UINT32_MAX, &value);
    else if (option == OPT_TAX)
        status = ctl_parse_count("set", "--idle-tax", optarg, 0, 99, &value);
    else
        status = ctl_parse_size("set", option == OPT_MIN ? "--min" : "--max", optarg, &value);
    if (status == CTL_OK)
        json_object_set_new(params, names[option], json_integer((json_int_t)value));
    return status;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *params;
    int status = options_params(argc, argv, options, take_option, 1,
                                "set what? --shares, --min, --max, --idle-tax, "
                                "--sharing-domain or --sharing",
                                &params);
    if (status != CTL_OK)
        return status;
    json_object_set_new(params, "vm", json_string(argv[optind]));
    return ctl_do(ctl, "vm.set", params);
}

const struct command command_set = {
    .name = "set",
    .arguments = "VM OPTION...",
    .summary = "change what a virtual machine is entitled to, and with whom it shares",
    .details = "  --shares N             its weight beside the others\n"
               "  --min SIZE             memory it is never reclaimed below; the host must be\n"
               "                         able to keep the min of all\n"
               "  --max SIZE             memory it never gets more than; at most its configured\n"
               "                         memory\n"
               "  --idle-tax PERCENT     an idle memory tax of its own, 0 to 99; host: the host's\n"
               "  --sharing-domain NAME  share pages with the other VMs of that domain; none:\n"
               "                         inside the VM alone. What no longer may share is\n"
               "                         unshared in the background\n"
               "  --sharing on|off       off: share none of its pages, not even those of zeroes\n",
    .run = run,
};
