/* ballastctl host: the host's row. */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/table.h"

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    int status = options_none(argc, argv, 0, 0);
    if (status == CTL_OK)
        status = ctl_call(ctl, "host.stats", NULL, &result);
    if (status != CTL_OK)
        return status;
    if (ctl->json)
        ctl_print_json(result, false);
    else
        table_print_object(result, 0);
    json_decref(result);
    return CTL_OK;
}

const struct command command_host = {
    .name = "host",
    .arguments = "",
    .summary = "show the host: memory, state, policy, settings",
    .run = run,
};
