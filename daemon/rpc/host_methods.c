/* Methods about the host as a whole. */
#include "daemon/rpc/methods.h"
#include "daemon/rpc/rows.h"

#include "daemon/metrics/metrics.h"
#include "daemon/policy/policy.h"
#include "daemon/sharing/sharing.h"
#include "daemon/supervisor.h"

#include <math.h>
#include <string.h>

void host_version(struct rpc_call *call, struct rpc_params *params)
{
    if (!params_end(params, call))
        return;
    rpc_reply(call, json_pack("{s:s, s:s, s:i}", "server", "ballastd", "version", BALLAST_VERSION,
                              "protocol", RPC_PROTOCOL));
}

void host_stats(struct rpc_call *call, struct rpc_params *params)
{
    if (!params_end(params, call))
        return;
    rpc_reply(call, host_row_json(rpc_call_supervisor(call)));
}

void host_metrics(struct rpc_call *call, struct rpc_params *params)
{
    struct json_text text = {0};
    bool open = false;
    param_flag(params, "openmetrics", OPTIONAL, &open);
    if (!params_end(params, call))
        return;
    enum metrics_format format = open ? METRICS_OPENMETRICS : METRICS_PROMETHEUS;
    metrics_write(&text, rpc_call_supervisor(call), format);
    rpc_reply(call, text.failed
                        ? NULL
                        : json_pack("{s:s, s:s%}", "content_type", metrics_content_type(format),
                                    "text", text.bytes, text.length));
    json_text_free(&text);
}

void host_policies(struct rpc_call *call, struct rpc_params *params)
{
    if (!params_end(params, call))
        return;
    json_t *list = json_array();
    const struct policy *policy;
    for (size_t i = 0; (policy = policy_at(i)); i++)
        json_array_append_new(list, json_pack("{s:s, s:s}", "name", policy_name(policy), "summary",
                                              policy_summary(policy)));
    rpc_reply(call, json_pack("{s:o}", "policies", list));
}

/* Thresholds of the call over those in force: absent members stay. */
static bool read_thresholds(struct rpc_params *params, struct state_thresholds *thresholds)
{
    struct rpc_params *inner = param_object(params, "thresholds", OPTIONAL);
    if (!inner)
        return false;
    param_number(inner, "high", OPTIONAL, &thresholds->high);
    param_number(inner, "soft", OPTIONAL, &thresholds->soft);
    param_number(inner, "hard", OPTIONAL, &thresholds->hard);
    param_number(inner, "low", OPTIONAL, &thresholds->low);
    param_number(inner, "hysteresis", OPTIONAL, &thresholds->hysteresis);
    param_flag(inner, "sliding", OPTIONAL, &thresholds->sliding);
    param_number(inner, "sliding_soft", OPTIONAL, &thresholds->sliding_soft);
    param_number(inner, "sliding_hard", OPTIONAL, &thresholds->sliding_hard);
    param_number(inner, "sliding_low", OPTIONAL, &thresholds->sliding_low);
    params_leave(inner);
    return true;
}

/* The same for the policy's other numbers. */
static bool read_settings(struct rpc_params *params, struct policy_settings *settings)
{
    const struct policy_setting *setting;
    bool any = false;
    for (size_t i = 0; (setting = policy_setting_at(i)); i++) {
        struct err err;
        double value;
        if (!param_number(params, setting->name, OPTIONAL, &value))
            continue;
        any = true;
        if (policy_setting_put(settings, setting, value, &err) < 0)
            params_mistake(params, setting->name, "%s", err.text);
    }
    return any;
}

/* The same for sampling. */
static bool read_sampling(struct rpc_params *params, struct sampling_settings *sampling)
{
    uint64_t pages = sampling->pages, period_ms = sampling->period_ms;
    bool any = param_count(params, "sample_pages", OPTIONAL, 0, 1048576, &pages);
    any |= param_count(params, "sample_period_ms", OPTIONAL, 100, 3600000, &period_ms);
    any |= param_number(params, "sample_slow_gain", OPTIONAL, &sampling->slow_gain);
    any |= param_number(params, "sample_fast_gain", OPTIONAL, &sampling->fast_gain);
    any |= param_flag(params, "count_touched", OPTIONAL, &sampling->count_touched);
    if (!(sampling->slow_gain > 0 && sampling->slow_gain <= 1))
        params_mistake(params, "sample_slow_gain", "must be above 0, at most 1");
    if (!(sampling->fast_gain > 0 && sampling->fast_gain <= 1))
        params_mistake(params, "sample_fast_gain", "must be above 0, at most 1");
    sampling->pages = (uint32_t)pages;
    sampling->period_ms = (uint32_t)period_ms;
    return any;
}

/* Settings of sharing in the call over those in force. */
static bool read_sharing(struct rpc_params *params, struct sharing_settings *settings)
{
    uint64_t least, most, vm, pass;
    double percent;
    bool found = param_flag(params, "sharing", OPTIONAL, &settings->enabled);
    found |= param_flag(params, "scan_settled_only", OPTIONAL, &settings->settled_only);
    if (param_count(params, "scan_min_pages_per_second", OPTIONAL, 0, 100000000, &least)) {
        settings->min_pages_per_second = (uint32_t)least;
        found = true;
    }
    if (param_count(params, "scan_max_pages_per_second", OPTIONAL, 1, 100000000, &most)) {
        settings->max_pages_per_second = (uint32_t)most;
        found = true;
    }
    if (param_count(params, "scan_vm_pages_per_second", OPTIONAL, 0, 100000000, &vm)) {
        settings->vm_pages_per_second = (uint32_t)vm;
        found = true;
    }
    if (param_count(params, "scan_pass_ms", OPTIONAL, 0, 3600000, &pass)) {
        settings->pass_ms = (uint32_t)pass;
        found = true;
    }
    if (param_number(params, "scan_cpu_percent", OPTIONAL, &percent)) {
        settings->cpu_percent = percent;
        found = true;
    }
    const char *charge = param_text(params, "shared_charge", OPTIONAL);
    if (charge && !shared_charge_find(charge, &settings->charge))
        params_mistake(params, "shared_charge", "must be equal, full or none");
    return found || charge;
}

void host_set(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    struct host_row row;
    struct err err;
    uint64_t period_ms;
    supervisor_host_row(supervisor, &row);

    const char *policy = param_text(params, "policy", OPTIONAL);
    bool has_period = param_count(params, "period_ms", OPTIONAL, 100, 600000, &period_ms);
    bool has_settings = read_settings(params, &row.settings);
    bool has_thresholds = read_thresholds(params, &row.settings.thresholds);
    bool has_sampling = read_sampling(params, &row.sampling);
    struct sharing_stats sharing;
    supervisor_sharing_stats(supervisor, &sharing);
    bool has_sharing = read_sharing(params, &sharing.settings);
    if (has_sharing && sharing_settings_check(&sharing.settings, &err) < 0)
        params_mistake(params, "sharing", "%s", err.text);
    /* Find every mistake before the first change, so that a call changes all or nothing. */
    if (policy && !policy_find(policy))
        params_mistake(params, "policy", "'%.40s' is not a policy here", policy);
    if (has_thresholds && state_thresholds_check(&row.settings.thresholds, &err) < 0)
        params_mistake(params, "thresholds", "%s", err.text);
    if (!params_end(params, call))
        return;
    /* First what may be refused for more than its own value. */
    if (((has_settings || has_thresholds) &&
         supervisor_set_settings(supervisor, &row.settings, &err) < 0) ||
        (policy && supervisor_set_policy(supervisor, policy, &err) < 0) ||
        (has_period && supervisor_set_period(supervisor, (uint32_t)period_ms, &err) < 0) ||
        (has_sampling && supervisor_set_sampling(supervisor, &row.sampling, &err) < 0) ||
        (has_sharing && supervisor_set_sharing(supervisor, &sharing.settings, &err) < 0)) {
        rpc_fail_refused(call, NULL, &err);
        return;
    }
    rpc_reply(call, host_row_json(supervisor));
}

static void checked(void *ctx, const struct check_result *result)
{
    struct rpc_call *call = ctx;
    json_t *violations = json_array();
    for (unsigned i = 0; i < result->described && i < CHECK_MAX_VIOLATIONS; i++) {
        const struct check_violation *found = &result->violation[i];
        json_t *one =
            json_pack("{s:i, s:o}", "invariant", found->invariant, "text", rpc_text(found->text));
        if (one && found->vm[0])
            json_object_set_new(one, "vm", json_string(found->vm));
        json_array_append_new(violations, one);
    }
    rpc_reply(call, json_pack("{s:b, s:o, s:{s:I, s:I, s:I, s:I}}", "ok", result->ok, "violations",
                              violations, "counts", "violations", (json_int_t)result->violations,
                              "pages_checked", (json_int_t)result->pages_checked, "frames_checked",
                              (json_int_t)result->frames_checked, "vms_checked",
                              (json_int_t)result->vms_checked));
}

void host_check(struct rpc_call *call, struct rpc_params *params)
{
    struct err err;
    if (!params_end(params, call))
        return;
    if (supervisor_check(rpc_call_supervisor(call), checked, call, &err) < 0)
        rpc_fail_refused(call, NULL, &err);
}
