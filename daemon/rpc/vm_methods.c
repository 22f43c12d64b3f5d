/* Methods about one virtual machine; creating one is in vm_create.c. */
#include "daemon/rpc/methods.h"
#include "daemon/rpc/rows.h"

#include "daemon/supervisor.h"
#include "shadow-pt/addr.h"

struct vm *rpc_named_vm(struct rpc_call *call, struct rpc_params *params)
{
    const char *name = param_text(params, "vm", REQUIRED);
    if (!params_end(params, call))
        return NULL;
    struct vm *vm = supervisor_find_vm(rpc_call_supervisor(call), name);
    if (!vm)
        rpc_fail(call, RPC_NO_SUCH_VM, json_pack("{s:s}", "vm", name), "no VM '%.64s'", name);
    return vm;
}

void vm_list(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    if (!params_end(params, call))
        return;
    json_t *list = json_array();
    for (struct vm *vm = supervisor_first_vm(supervisor); vm;
         vm = supervisor_next_vm(supervisor, vm))
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "name", vm_name(vm), "state", vm_state_name(vm)));
    rpc_reply(call, json_pack("{s:o}", "vms", list));
}

void vm_stats(struct rpc_call *call, struct rpc_params *params)
{
    struct vm *vm = rpc_named_vm(call, params);
    if (vm)
        rpc_reply(call, vm_row_json(rpc_call_supervisor(call), vm));
}

/* ---- life ---- */

static void life_changed(void *ctx, int result, const struct err *err)
{
    struct rpc_call *call = ctx;
    if (result < 0)
        rpc_fail_refused(call, NULL, err);
    else
        rpc_reply(call, json_object());
}

typedef int change_life(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                        void *ctx, struct err *err);

static void change(struct rpc_call *call, struct rpc_params *params, change_life *change_it)
{
    struct err err;
    struct vm *vm = rpc_named_vm(call, params);
    if (vm && change_it(rpc_call_supervisor(call), vm, life_changed, call, &err) < 0)
        rpc_fail_refused(call, vm_name(vm), &err);
}

void vm_pause(struct rpc_call *call, struct rpc_params *params)
{
    change(call, params, supervisor_pause_vm);
}

void vm_resume(struct rpc_call *call, struct rpc_params *params)
{
    change(call, params, supervisor_resume_vm);
}

void vm_destroy(struct rpc_call *call, struct rpc_params *params)
{
    change(call, params, supervisor_destroy_vm);
}

/* ---- settings ---- */

/* All of them, or none: shares and taxes in range are never refused, a domain may be, and min and
 * max are then what they were. */
void vm_set(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    struct err err;
    uint64_t shares = 0, tax_percent = 0, min_bytes = UINT64_MAX, max_bytes = UINT64_MAX;
    bool has_shares = param_count(params, "shares", OPTIONAL, 1, SHARES_MAX, &shares);
    bool has_min = param_size(params, "min", OPTIONAL, &min_bytes);
    bool has_max = param_size(params, "max", OPTIONAL, &max_bytes);
    bool host_tax = param_is_null(params, "idle_tax_percent");
    bool has_tax =
        host_tax || param_count(params, "idle_tax_percent", OPTIONAL, 0, 99, &tax_percent);
    bool alone = param_is_null(params, "sharing_domain"), sharing = true;
    const char *domain = alone ? NULL : param_text(params, "sharing_domain", OPTIONAL);
    bool has_sharing = param_flag(params, "sharing", OPTIONAL, &sharing);
    struct vm *vm = rpc_named_vm(call, params);
    if (!vm)
        return;
    struct vm_row before;
    struct err unused;
    supervisor_vm_row(supervisor, vm, &before);
    if ((has_min || has_max) &&
        supervisor_set_min_max(supervisor, vm, min_bytes, max_bytes, &err) < 0) {
        rpc_fail_refused(call, vm_name(vm), &err);
        return;
    }
    if ((alone || domain) && supervisor_set_sharing_domain(supervisor, vm, domain, &err) < 0) {
        if (has_min || has_max)
            supervisor_set_min_max(supervisor, vm, before.min_pages * PAGE_BYTES,
                                   before.max_pages * PAGE_BYTES, &unused);
        rpc_fail_refused(call, vm_name(vm), &err);
        return;
    }
    if ((has_shares && supervisor_set_shares(supervisor, vm, (uint32_t)shares, &err) < 0) ||
        (has_tax &&
         supervisor_set_vm_idle_tax(supervisor, vm, host_tax ? IDLE_TAX_OF_HOST : (int)tax_percent,
                                    &err) < 0) ||
        (has_sharing && supervisor_set_vm_sharing(supervisor, vm, sharing, &err) < 0)) {
        rpc_fail_refused(call, vm_name(vm), &err);
        return;
    }
    rpc_reply(call, vm_row_json(supervisor, vm));
}

void vm_set_target(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    struct err err;
    uint64_t target_bytes = 0;
    bool clear = param_is_null(params, "target");
    if (!clear)
        param_size(params, "target", REQUIRED, &target_bytes);
    struct vm *vm = rpc_named_vm(call, params);
    if (!vm)
        return;
    int result = clear ? supervisor_clear_target(supervisor, vm, &err)
                       : supervisor_set_target(supervisor, vm, target_bytes, &err);
    if (result < 0)
        rpc_fail_refused(call, vm_name(vm), &err);
    else
        rpc_reply(call, vm_row_json(supervisor, vm));
}
