/* ballastctl check: the invariants of every page and frame. */
#include "daemon/ballastctl/options.h"

#include <stdio.h>

static json_int_t count_of(const json_t *result, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(result, "counts"), name));
}

static void print_result(const json_t *result)
{
    size_t index;
    json_t *violation;
    printf("%s: %" JSON_INTEGER_FORMAT " VMs, %" JSON_INTEGER_FORMAT " pages and "
           "%" JSON_INTEGER_FORMAT " frames checked, %" JSON_INTEGER_FORMAT " violations\n",
           json_is_true(json_object_get(result, "ok")) ? "ok" : "VIOLATED",
           count_of(result, "vms_checked"), count_of(result, "pages_checked"),
           count_of(result, "frames_checked"), count_of(result, "violations"));
    json_array_foreach(json_object_get(result, "violations"), index, violation)
    {
        const char *vm = json_string_value(json_object_get(violation, "vm"));
        printf("  invariant %" JSON_INTEGER_FORMAT ", %s%s: %s\n",
               json_integer_value(json_object_get(violation, "invariant")), vm ? "VM " : "",
               vm ? vm : "host", json_string_value(json_object_get(violation, "text")));
    }
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    int status = options_none(argc, argv, 0, 0);
    if (status == CTL_OK)
        status = ctl_call(ctl, "host.check", NULL, &result);
    if (status != CTL_OK)
        return status;
    if (ctl->json)
        ctl_print_json(result, false);
    else
        print_result(result);
    bool ok = json_is_true(json_object_get(result, "ok"));
    json_decref(result);
    return ok ? CTL_OK : CTL_CHECK_FAILED;
}

const struct command command_check = {
    .name = "check",
    .arguments = "",
    .summary = "check the invariants of all memory; VMs pause meanwhile",
    .details = "1  frames free, granted and shared add up to the machine\n"
               "2  a private frame has one pmap entry, a shared one as many as it counts\n"
               "3  no writable mapping of a shared frame exists\n"
               "4  a ballooned or paged page has no frame and no mapping\n"
               "5  every shadow mapping equals guest walk x pmap\n"
               "\n"
               "Exit status 4 if one is violated.\n",
    .run = run,
};
