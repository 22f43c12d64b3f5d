/* ballastctl call: any method, as it is in PROTOCOL.md. */
#include "daemon/ballastctl/options.h"

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_error_t error;
    json_t *params = NULL, *result;
    int status = options_none(argc, argv, 1, 2);
    if (status != CTL_OK)
        return status;
    const char *text = optind + 1 < argc ? argv[optind + 1] : NULL;
    if (text && !(params = json_loads(text, JSON_REJECT_DUPLICATES, &error)))
        return ctl_usage("call", "the params are not JSON: %s", error.text);
    if ((status = ctl_call(ctl, argv[optind], params, &result)) != CTL_OK)
        return status;
    ctl_print_json(result, false);
    json_decref(result);
    return CTL_OK;
}

const struct command command_call = {
    .name = "call",
    .arguments = "METHOD [JSON]",
    .summary = "call a method by name and print its result as JSON",
    .details = "Methods and their params are in daemon/rpc/PROTOCOL.md.\n",
    .run = run,
};
