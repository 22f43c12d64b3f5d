/* ballastctl version: this program's, and the daemon's if one answers. */
#include "daemon/ballastctl/options.h"

#include <stdio.h>

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    int status = options_none(argc, argv, 0, 0);
    if (status != CTL_OK)
        return status;
    if (!ctl->json) {
        printf("ballastctl %s\n", BALLAST_VERSION);
        fflush(stdout);
    }
    if ((status = ctl_call(ctl, "host.version", NULL, &result)) != CTL_OK)
        return status;
    if (ctl->json) {
        json_object_set_new(result, "ballastctl", json_string(BALLAST_VERSION));
        ctl_print_json(result, false);
    } else {
        printf("%s %s, protocol %" JSON_INTEGER_FORMAT "\n",
               json_string_value(json_object_get(result, "server")),
               json_string_value(json_object_get(result, "version")),
               json_integer_value(json_object_get(result, "protocol")));
    }
    json_decref(result);
    return CTL_OK;
}

const struct command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "versions of this program and of the daemon",
    .run = run,
};
