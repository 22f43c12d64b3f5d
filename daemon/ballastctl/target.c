/* ballastctl target: order a target for a VM, or give it back to the policy. */
#include "daemon/ballastctl/options.h"

#include <string.h>

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *target;
    uint64_t bytes;
    int status = options_none(argc, argv, 2, 2);
    if (status != CTL_OK)
        return status;
    if (strcmp(argv[optind + 1], "auto") == 0) {
        target = json_null();
    } else {
        if ((status = ctl_parse_size("target", "SIZE", argv[optind + 1], &bytes)) != CTL_OK)
            return status;
        target = json_integer((json_int_t)bytes);
    }
    return ctl_do(ctl, "vm.set_target",
                  json_pack("{s:s, s:o}", "vm", argv[optind], "target", target));
}

const struct command command_target = {
    .name = "target",
    .arguments = "VM SIZE|auto",
    .summary = "order how much memory a virtual machine may hold",
    .details = "The order overrides the policy, between min and max, until it is taken back with\n"
               "auto. The balloon works towards it; what the balloon can not is paged out.\n",
    .run = run,
};
