/* Methods about content-based sharing: what it saves and costs, and where a frame comes from. */
#include "daemon/rpc/methods.h"

#include "daemon/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MOST_ROWS 4096u

/* Of the clock that since_ns and the times of breaks are on: a client need not share it. */
static json_t *now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return json_integer((json_int_t)now.tv_sec * 1000000000 + now.tv_nsec);
}

static json_t *count(uint64_t number)
{
    return json_integer((json_int_t)number);
}

struct member {
    const char *name;
    uint64_t value;
};

static void set_members(json_t *object, const struct member *members, size_t number)
{
    for (size_t i = 0; i < number; i++)
        json_object_set_new(object, members[i].name, count(members[i].value));
}

/* What sharing does for one VM, and what it costs it. */
static json_t *vm_json(struct supervisor *supervisor, struct vm *vm)
{
    struct sharing_vm_counts counts;
    struct vm_row row;
    supervisor_vm_row(supervisor, vm, &row);
    supervisor_sharing_vm_counts(supervisor, vm, &counts);
    const struct member members[] = {
        {"shared_references", row.shared_references},
        {"zero_references", row.zero_pages},
        {"shared_charge_pages", row.shared_charge_pages},
        {"shared_saved_pages", row.shared_saved_pages},
        {"cpu_ns", counts.cpu_ns},
        {"passes", counts.passes},
        {"hashed_pages", counts.hashed_pages},
        {"covered_pages", counts.covered_pages},
        {"shared_total", counts.shared_total},
        {"false_matches", counts.false_matches},
        {"cow_breaks", counts.cow_breaks},
        {"dropped", counts.dropped},
        {"stale_answers", counts.stale_answers},
        {"busy_answers", counts.busy_answers},
    };
    json_t *result = json_pack("{s:s, s:b}", "vm", vm_name(vm), "sharing", row.sharing);
    if (row.valid & VM_ROW_DOMAIN)
        json_object_set_new(result, "sharing_domain", json_string(row.sharing_domain));
    set_members(result, members, sizeof members / sizeof members[0]);
    return result;
}

void sharing_stats(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    struct sharing_stats stats;
    if (!params_end(params, call))
        return;
    supervisor_sharing_stats(supervisor, &stats);
    json_t *result =
        json_pack("{s:b, s:b, s:f, s:f}", "sharing", stats.settings.enabled, "scan_settled_only",
                  stats.settings.settled_only, "pages_per_second", stats.pages_per_second,
                  "scan_cpu_percent", stats.settings.cpu_percent);
    const struct member members[] = {
        {"scan_min_pages_per_second", stats.settings.min_pages_per_second},
        {"scan_max_pages_per_second", stats.settings.max_pages_per_second},
        {"scan_vm_pages_per_second", stats.settings.vm_pages_per_second},
        {"scan_pass_ms", stats.settings.pass_ms},
        {"shared_frames", stats.shared_frames},
        {"shared_references", stats.references},
        {"zero_references", stats.zero_references},
        {"saved_pages", stats.saved_pages},
        {"asked_pages", stats.asked_pages},
        {"hint_frames", stats.hint_frames},
        {"pending_frames", stats.pending_frames},
        {"waiting_pages", stats.waiting_pages},
        {"cpu_ns", stats.counts.cpu_ns},
        {"slices", stats.counts.slices},
        {"hashed_pages", stats.counts.hashed_pages},
        {"covered_pages", stats.counts.covered_pages},
        {"shared_total", stats.counts.shared_total},
        {"false_matches", stats.counts.false_matches},
        {"cow_breaks", stats.counts.cow_breaks},
        {"stale_hints", stats.counts.stale_hints},
        {"offered_pages", stats.counts.offered_pages},
        {"waited_pages", stats.counts.waited_pages},
        {"unsettled_pages", stats.counts.unsettled_pages},
        {"protects", stats.counts.protects},
        {"shares", stats.counts.shares},
        {"unshares", stats.counts.unshares},
        {"copies", stats.counts.copies},
        {"table_bytes", stats.table_bytes},
        {"reference_bytes", stats.reference_bytes},
        {"bitmap_bytes", stats.bitmap_bytes},
        {"breaks_bytes", stats.breaks_bytes},
    };
    set_members(result, members, sizeof members / sizeof members[0]);
    json_object_set_new(result, "net_saved_bytes", json_integer(stats.net_saved_bytes));
    json_t *vms = json_array();
    for (struct vm *vm = supervisor_first_vm(supervisor); vm;
         vm = supervisor_next_vm(supervisor, vm))
        json_array_append_new(vms, vm_json(supervisor, vm));
    json_object_set_new(result, "vms", vms);
    rpc_reply(call, result);
}

void sharing_pairs(struct rpc_call *call, struct rpc_params *params)
{
    struct err err;
    if (!params_end(params, call))
        return;
    struct sharing_pair *rows = calloc(MOST_ROWS, sizeof *rows);
    int found = rows ? supervisor_sharing_pairs(rpc_call_supervisor(call), rows, MOST_ROWS) : -1;
    if (found < 0) {
        err_set(&err, 0, "no memory");
        rpc_fail_refused(call, NULL, &err);
        free(rows);
        return;
    }
    json_t *list = json_array();
    for (int i = 0; i < found && i < (int)MOST_ROWS; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:o, s:f, s:o}", "a", rows[i].a, "b", rows[i].b,
                                        "frames", count(rows[i].frames), "saved_pages",
                                        rows[i].saved_pages, "breaks", count(rows[i].breaks)));
    free(rows);
    rpc_reply(call, json_pack("{s:o, s:i}", "pairs", list, "found", found));
}

static json_t *reference_json(const struct sharing_reference *reference)
{
    return json_pack("{s:s, s:o, s:o, s:s}", "vm", reference->vm, "ppn", count(reference->ppn),
                     "since_ns", count(reference->since_ns), "how", reference->how);
}

void sharing_frame(struct rpc_call *call, struct rpc_params *params)
{
    struct sharing_reference rows[64];
    struct sharing_frame frame;
    struct err err;
    uint64_t mpn = 0;
    param_count(params, "mpn", REQUIRED, 0, UINT32_MAX, &mpn);
    if (!params_end(params, call))
        return;
    int found = supervisor_sharing_frame(rpc_call_supervisor(call), mpn, &frame, rows, 64);
    if (found < 0) {
        err_set(&err, 0, "the machine has no frame %llu", (unsigned long long)mpn);
        rpc_fail_refused(call, NULL, &err);
        return;
    }
    json_t *list = json_array();
    for (int i = 0; i < found; i++)
        json_array_append_new(list, reference_json(&rows[i]));
    json_t *result =
        json_pack("{s:o, s:s, s:b, s:o, s:o}", "mpn", count(mpn), "kind", frame.kind, "hint",
                  frame.hint, "references", count(frame.references), "sharers", list);
    json_object_set_new(result, "time_ns", now());
    if (frame.how) {
        json_object_set_new(result, "since_ns", count(frame.since_ns));
        json_object_set_new(result, "how", json_string(frame.how));
    }
    if (frame.vm)
        json_object_set_new(result, "vm", json_string(frame.vm));
    rpc_reply(call, result);
}

void sharing_page(struct rpc_call *call, struct rpc_params *params)
{
    struct sharing_reference reference;
    uint64_t ppn = 0, mpn;
    param_count(params, "ppn", REQUIRED, 0, UINT32_MAX, &ppn);
    struct vm *vm = rpc_named_vm(call, params);
    if (!vm)
        return;
    if (supervisor_sharing_page(rpc_call_supervisor(call), vm, ppn, &mpn, &reference) < 0) {
        rpc_reply(call, json_pack("{s:b}", "shared", 0));
        return;
    }
    json_t *result = reference_json(&reference);
    json_object_set_new(result, "shared", json_true());
    json_object_set_new(result, "time_ns", now());
    json_object_set_new(result, "mpn", count(mpn));
    rpc_reply(call, result);
}

/* Guest addresses use all 64 bits, which a JSON number does not carry everywhere. */
static json_t *break_json(const struct sharing_break *noted)
{
    char pc[24];
    json_t *result = json_pack("{s:o, s:o, s:s, s:o, s:o, s:s}", "time_ns", count(noted->time_ns),
                               "age_ns", count(noted->age_ns), "vm", noted->vm, "ppn",
                               count(noted->ppn), "mpn", count(noted->mpn), "how", noted->how);
    if (noted->pc) {
        snprintf(pc, sizeof pc, "0x%llx", (unsigned long long)noted->pc);
        json_object_set_new(result, "pc", json_string(pc));
    }
    return result;
}

void sharing_breaks(struct rpc_call *call, struct rpc_params *params)
{
    uint64_t limit = 100;
    struct err err;
    param_count(params, "limit", OPTIONAL, 1, MOST_ROWS, &limit);
    if (!params_end(params, call))
        return;
    struct sharing_break *rows = calloc(limit, sizeof *rows);
    if (!rows) {
        err_set(&err, 0, "no memory");
        rpc_fail_refused(call, NULL, &err);
        return;
    }
    unsigned found = supervisor_sharing_breaks(rpc_call_supervisor(call), rows, (unsigned)limit);
    json_t *list = json_array();
    for (unsigned i = 0; i < found; i++)
        json_array_append_new(list, break_json(&rows[i]));
    free(rows);
    rpc_reply(call, json_pack("{s:o, s:o}", "time_ns", now(), "breaks", list));
}
