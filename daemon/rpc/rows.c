#include "daemon/rpc/rows.h"

#include "daemon/rpc/session.h"

#include <string.h>

static void put_count(json_t *row, const char *name, uint64_t value)
{
    json_object_set_new(row, name, json_integer((json_int_t)value));
}

static json_t *thresholds_json(const struct state_thresholds *t)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "high", t->high, "soft", t->soft, "hard", t->hard,
                     "low", t->low, "hysteresis", t->hysteresis);
}

json_t *host_row_json(struct supervisor *supervisor)
{
    struct host_row host;
    json_t *row = json_object();
    supervisor_host_row(supervisor, &host);
    put_count(row, "time_ns", host.time_ns);
    json_object_set_new(row, "state", json_string(host.state));
    json_object_set_new(row, "policy", json_string(host.policy));
    put_count(row, "vms", host.vms);
    put_count(row, "machine_pages", host.machine_pages);
    put_count(row, "free_pages", host.free_pages);
    put_count(row, "granted_pages", host.granted_pages);
    put_count(row, "shared_pages", host.shared_pages);
    put_count(row, "emergency_pages", host.emergency_pages);
    put_count(row, "reserved_pages", host.reserved_pages);
    put_count(row, "configured_pages", host.configured_pages);
    json_object_set_new(row, "overcommit_ratio", json_real(host.overcommit_ratio));
    put_count(row, "swap_reserved_bytes", host.swap_reserved_bytes);
    put_count(row, "overhead_bytes", host.overhead_bytes);
    put_count(row, "period_ms", host.period_ms);
    put_count(row, "idle_tax_percent", host.idle_tax_percent);
    json_object_set_new(row, "thresholds", thresholds_json(&host.thresholds));
    put_count(row, "policy_runs", host.policy_runs);
    put_count(row, "state_changes", host.state_changes);
    put_count(row, "events_suppressed", host.events_suppressed);
    return row;
}

static json_t *overhead_json(const struct vm_overhead *overhead)
{
    json_t *object = json_object();
    put_count(object, "daemon_arena_bytes", overhead->daemon_arena_bytes);
    put_count(object, "worker_private_bytes", overhead->worker_private_bytes);
    put_count(object, "page_table_bytes", overhead->page_table_bytes);
    put_count(object, "region_bytes", overhead->region_bytes);
    put_count(object, "total_bytes", overhead->total_bytes);
    put_count(object, "charged_bytes", overhead->charged_bytes);
    return object;
}

/* What the guest's balloon driver reports; members it did not report are absent. */
static json_t *guest_json(const struct vm_row *vm)
{
    json_t *object = json_object();
    for (unsigned tag = 0; tag < sizeof vm->balloon_stats / sizeof vm->balloon_stats[0]; tag++) {
        const char *name = balloon_stat_name(tag);
        if (name && vm->balloon_stats[tag] <= INT64_MAX)
            put_count(object, name, vm->balloon_stats[tag]);
    }
    return object;
}

/* Members a worker counts: absent when there is none. */
static const struct {
    const char *name;
    size_t offset; /* of a uint64_t in struct vm_row */
} worker_counts[] = {
#define COUNT(member)                                                                              \
    {                                                                                              \
#member, offsetof(struct vm_row, member)                                                   \
    }
    COUNT(balloon_pages),    COUNT(private_pages),
    COUNT(shared_pages),     COUNT(paged_pages),
    COUNT(absent_pages),     COUNT(paging_pages),
    COUNT(pool_pages),       COUNT(wanted_pages),
    COUNT(swap_in_pages),    COUNT(swap_out_pages),
    COUNT(swap_errors),      COUNT(swap_slots_used),
    COUNT(instructions),     COUNT(vcpu_run_ns),
    COUNT(vcpu_wait_ns),     COUNT(traps),
    COUNT(sbi_calls),        COUNT(mmio_accesses),
    COUNT(shadow_fills),     COUNT(shadow_drops),
    COUNT(disk_read_bytes),  COUNT(disk_write_bytes),
    COUNT(refused_messages),
#undef COUNT
};

static void put_worker_counts(json_t *row, const struct vm_row *vm)
{
    for (size_t i = 0; i < sizeof worker_counts / sizeof worker_counts[0]; i++) {
        uint64_t value;
        memcpy(&value, (const char *)vm + worker_counts[i].offset, sizeof value);
        put_count(row, worker_counts[i].name, value);
    }
    put_count(row, "age_ns", vm->age_ns);
    if (vm->pid > 0)
        put_count(row, "pid", (uint64_t)vm->pid);
    json_object_set_new(row, "overhead", overhead_json(&vm->overhead));
    json_object_set_new(row, "guest", guest_json(vm));
}

json_t *vm_row_json(struct supervisor *supervisor, struct vm *vm)
{
    struct vm_row values;
    json_t *row = json_object();
    supervisor_vm_row(supervisor, vm, &values);
    json_object_set_new(row, "name", json_string(values.name));
    json_object_set_new(row, "state", json_string(values.state));
    put_count(row, "memory_pages", values.memory_pages);
    put_count(row, "min_pages", values.min_pages);
    put_count(row, "max_pages", values.max_pages);
    put_count(row, "shares", values.shares);
    put_count(row, "target_pages", values.target_pages);
    if (values.valid & VM_ROW_MANUAL_TARGET)
        put_count(row, "manual_target_pages", values.manual_target_pages);
    put_count(row, "allocated_pages", values.allocated_pages);
    json_object_set_new(row, "blocked", json_boolean(values.blocked));
    json_object_set_new(row, "balloon_driver", json_boolean(values.balloon_driver));
    if (values.valid & VM_ROW_BALLOON) {
        put_count(row, "balloon_target_pages", values.balloon_target_pages);
        put_count(row, "balloon_actual_pages", values.balloon_actual_pages);
    }
    put_count(row, "swap_reserved_pages", values.swap_reserved_pages);
    put_count(row, "granted_total_pages", values.granted_total_pages);
    put_count(row, "released_total_pages", values.released_total_pages);
    if (values.valid & VM_ROW_WORKER)
        put_worker_counts(row, &values);
    if (values.valid & VM_ROW_EXIT) {
        json_object_set_new(row, "exit", rpc_text(values.exit_text));
        json_object_set_new(row, "exit_clean", json_boolean(values.exit_clean));
    }
    return row;
}
