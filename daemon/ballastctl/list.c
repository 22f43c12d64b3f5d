/* ballastctl list: names and states. */
#include "daemon/ballastctl/options.h"
#include "daemon/ballastctl/table.h"

static const struct column columns[] = {
    {"NAME", "name", COLUMN_TEXT},
    {"STATE", "state", COLUMN_TEXT},
};

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    int status = options_none(argc, argv, 0, 0);
    if (status == CTL_OK)
        status = ctl_call(ctl, "vm.list", NULL, &result);
    if (status != CTL_OK)
        return status;
    if (ctl->json)
        ctl_print_json(result, false);
    else
        table_print(columns, sizeof columns / sizeof columns[0], json_object_get(result, "vms"));
    json_decref(result);
    return CTL_OK;
}

const struct command command_list = {
    .name = "list",
    .arguments = "",
    .summary = "list virtual machines and their states",
    .run = run,
};
