/* ballastctl policy: who decides, the policies there are, and how an external one keeps its
 * deadlines. */
#include "daemon/ballastctl/options.h"

#include <stdio.h>
#include <string.h>

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static json_int_t count_of(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static double ms_of(const json_t *object, const char *name)
{
    return (double)count_of(object, name) / 1e6;
}

static void print_external(const json_t *external, const char *host_policy)
{
    const char *fallback = text_of(external, "fallback"), *fault = text_of(external, "last_fault");
    printf("\nexternal:%s, %s\n", text_of(external, "name"), text_of(external, "state"));
    printf("  deadline    %" JSON_INTEGER_FORMAT " ms, or until the next round is due\n",
           count_of(external, "deadline_ms"));
    printf("  fallback    %s\n", *fallback ? fallback : host_policy);
    printf("  rounds      %" JSON_INTEGER_FORMAT " asked: %" JSON_INTEGER_FORMAT
           " kept, %" JSON_INTEGER_FORMAT " late, %" JSON_INTEGER_FORMAT
           " wrong, %" JSON_INTEGER_FORMAT " overtaken\n",
           count_of(external, "asked"), count_of(external, "kept"), count_of(external, "late"),
           count_of(external, "wrong"), count_of(external, "overtaken"));
    printf("  bad rounds  %" JSON_INTEGER_FORMAT " in a row; detached after %" JSON_INTEGER_FORMAT
           "\n",
           count_of(external, "bad_in_a_row"), count_of(external, "bad_limit"));
    printf("  answers     last after %.1f ms, longest %.1f ms, refused %" JSON_INTEGER_FORMAT "\n",
           ms_of(external, "answer_ns"), ms_of(external, "longest_answer_ns"),
           count_of(external, "refused"));
    if (*fault)
        printf("  last fault  %s\n", fault);
}

static int print_policies(struct ctl *ctl, const json_t *host)
{
    json_t *answer, *policy;
    size_t index;
    int status = ctl_call(ctl, "host.policies", NULL, &answer);
    if (status != CTL_OK)
        return status;
    printf("\n");
    json_array_foreach(json_object_get(answer, "policies"), index, policy)
    {
        bool is_set = strcmp(text_of(policy, "name"), text_of(host, "policy")) == 0;
        printf("%c %-13s %s\n", is_set ? '*' : ' ', text_of(policy, "name"),
               text_of(policy, "summary"));
    }
    json_decref(answer);
    return CTL_OK;
}

static int show(struct ctl *ctl)
{
    json_t *host;
    int status = ctl_call(ctl, "host.stats", NULL, &host);
    if (status != CTL_OK)
        return status;
    const json_t *external = json_object_get(host, "external");
    if (ctl->json) {
        json_t *part = json_pack("{s:O, s:O, s:O*}", "policy", json_object_get(host, "policy"),
                                 "policy_active", json_object_get(host, "policy_active"),
                                 "external", external);
        ctl_print_json(part, false);
        json_decref(part);
    } else {
        printf("policy        %s\ndecided last  %s\n", text_of(host, "policy"),
               text_of(host, "policy_active"));
        if (external)
            print_external(external, text_of(host, "policy"));
        status = print_policies(ctl, host);
    }
    json_decref(host);
    return status;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"detach", no_argument, NULL, 1}, {0}};
    bool detach = false;
    int option;
    while ((option = options_next(argc, argv, options, NULL)) > 0)
        detach = true;
    int status = option < 0 ? options_end(argc, argv, 0, 0) : CTL_USAGE;
    if (status != CTL_OK || !detach)
        return status != CTL_OK ? status : show(ctl);
    json_t *result;
    status = ctl_call(ctl, "policy.detach", NULL, &result);
    if (status == CTL_OK)
        json_decref(result);
    return status;
}

const struct command command_policy = {
    .name = "policy",
    .arguments = "[--detach]",
    .summary = "show who decides: the policy, and an external one",
    .details = "  --detach  send an external policy away; the built-in one decides\n"
               "\n"
               "The policy is set by ballastctl host-set --policy. A round that an external\n"
               "policy answers late or wrong the built-in policy decides; one is overtaken\n"
               "when things changed before the answer came.\n",
    .run = run,
};
