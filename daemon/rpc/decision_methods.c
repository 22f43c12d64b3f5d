/* Decisions on the control socket: what a record looks like, and asking for a VM's last ones. Their
 * stream is in streams.c. */
#include "daemon/rpc/methods.h"
#include "daemon/rpc/rows.h"

#include "daemon/supervisor.h"

#include <math.h>

#define PAGE_BYTES 4096u

static json_t *pages(uint64_t count)
{
    return json_integer((json_int_t)count);
}

/* Numbers that JSON cannot hold are left out: they mean nothing then. */
static void put_real(json_t *object, const char *name, double value)
{
    if (isfinite(value))
        json_object_set_new(object, name, json_real(value));
}

static void put_if(json_t *object, bool valid, const char *name, uint64_t count)
{
    if (valid)
        json_object_set_new(object, name, pages(count));
}

/* What the decision was made from. */
static json_t *inputs_json(const struct decision *decision)
{
    const struct policy_vm *row = &decision->row;
    const struct policy_reason *reason = &decision->reason;
    uint32_t valid = row->valid;
    json_t *inputs = json_pack(
        "{s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:i}", "host_state",
        host_state_name(decision->host_state), "machine_pages", pages(decision->host.machine_pages),
        "free_pages", pages(decision->host.free_pages), "available_pages",
        pages(decision->available_pages), "reserved_pages", pages(decision->reserved_pages),
        "shares", (json_int_t)row->shares, "memory_pages", pages(row->memory_pages), "min_pages",
        pages(row->min_pages), "max_pages", pages(row->max_pages), "allocated_pages",
        pages(row->allocated_pages), "active_pages", pages(reason->active_pages),
        "idle_tax_percent", (int)reason->idle_tax_percent);
    if (!inputs)
        return NULL;
    put_real(inputs, "f", decision_active_part(decision));
    put_real(inputs, "k", decision_idle_factor(decision));
    put_real(inputs, "rho", decision_rho_held(decision));
    if (isfinite(reason->level) && reason->level > 0)
        put_real(inputs, "pages_per_share", reason->level);
    if (decision_has_price(decision))
        put_real(inputs, "common_rho", 1 / reason->level);
    if (valid & POLICY_HAS_ACTIVE)
        put_real(inputs, "active_fraction", row->active_fraction);
    put_if(inputs, reason->demand_pages, "demand_pages", reason->demand_pages);
    put_if(inputs, reason->base_pages, "base_pages", reason->base_pages);
    put_if(inputs, valid & POLICY_HAS_MANUAL_TARGET, "manual_target_pages",
           row->manual_target_pages);
    put_if(inputs, valid & POLICY_HAS_BALLOON, "balloon_pages", row->balloon_pages);
    put_if(inputs, valid & POLICY_HAS_PAGED, "paged_pages", row->paged_pages);
    put_if(inputs, valid & POLICY_HAS_ABSENT, "absent_pages", row->absent_pages);
    put_if(inputs, valid & POLICY_HAS_SAVED, "saved_pages", row->saved_pages);
    put_if(inputs, valid & POLICY_HAS_GUEST, "guest_available_pages", row->guest_available_pages);
    return inputs;
}

json_t *decision_json(const char *vm, const struct decision *decision)
{
    char text[DECISION_TEXT_BYTES];
    return json_pack("{s:I, s:s, s:o, s:s, s:I, s:I, s:s, s:o, s:o}", "time_ns",
                     (json_int_t)decision->time_ns, "vm", vm, "policy", rpc_text(decision->policy),
                     "trigger", policy_trigger_name(decision->trigger), "previous_target",
                     (json_int_t)decision->previous_target_pages * PAGE_BYTES, "target",
                     (json_int_t)decision->target_pages * PAGE_BYTES, "rule",
                     policy_rule_name(decision->reason.rule), "inputs", inputs_json(decision),
                     "text", rpc_text(decision_text(decision, text)));
}

void decisions_explain(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    const struct decision *rows[DECISIONS_KEPT];
    uint64_t limit = DECISIONS_KEPT;
    param_count(params, "limit", OPTIONAL, 1, DECISIONS_KEPT, &limit);
    struct vm *vm = rpc_named_vm(call, params);
    if (!vm)
        return;
    unsigned count = supervisor_decisions(supervisor, vm, rows, (unsigned)limit);
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(list, decision_json(vm_name(vm), rows[i]));
    rpc_reply(call, json_pack("{s:s, s:o}", "vm", vm_name(vm), "decisions", list));
}

void decisions_subscribe(struct rpc_call *call, struct rpc_params *params)
{
    if (params_end(params, call))
        rpc_reply_subscription(call, rpc_subscribe_decisions(rpc_call_session(call)));
}
