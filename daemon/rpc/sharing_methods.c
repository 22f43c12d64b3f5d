/* Methods about content-based sharing: what it saves and costs, and where a frame comes from. */
#include "daemon/rpc/methods.h"

#include "daemon/supervisor.h"

#include <stdlib.h>

#define MOST_ROWS 4096u

/* The VM a call names; NULL after an answer. */
static struct vm *named_vm(struct rpc_call *call, const char *name)
{
    struct vm *vm = supervisor_find_vm(rpc_call_supervisor(call), name);
    struct err err;
    if (!vm) {
        err_set(&err, 0, "there is no VM of that name");
        rpc_fail_refused(call, name, &err);
    }
    return vm;
}

static json_t *count(uint64_t number)
{
    return json_integer((json_int_t)number);
}

void sharing_stats(struct rpc_call *call, struct rpc_params *params)
{
    struct sharing_stats stats;
    if (!params_end(params, call))
        return;
    supervisor_sharing_stats(rpc_call_supervisor(call), &stats);
    json_t *result = json_pack("{s:b, s:f}", "sharing", stats.settings.enabled, "pages_per_second",
                               stats.pages_per_second);
    const struct {
        const char *name;
        uint64_t value;
    } members[] = {
        {"scan_min_pages_per_second", stats.settings.min_pages_per_second},
        {"scan_max_pages_per_second", stats.settings.max_pages_per_second},
        {"scan_vm_pages_per_second", stats.settings.vm_pages_per_second},
        {"scan_pass_ms", stats.settings.pass_ms},
        {"shared_frames", stats.shared_frames},
        {"shared_references", stats.references},
        {"zero_references", stats.zero_references},
        {"saved_pages", stats.saved_pages},
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
        {"protects", stats.counts.protects},
        {"shares", stats.counts.shares},
        {"unshares", stats.counts.unshares},
        {"copies", stats.counts.copies},
        {"table_bytes", stats.table_bytes},
        {"reference_bytes", stats.reference_bytes},
        {"bitmap_bytes", stats.bitmap_bytes},
        {"breaks_bytes", stats.breaks_bytes},
    };
    json_object_set_new(result, "scan_cpu_percent", json_real(stats.settings.cpu_percent));
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        json_object_set_new(result, members[i].name, count(members[i].value));
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
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "a", rows[i].a, "b", rows[i].b,
                                              "frames", count(rows[i].frames)));
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
    if (frame.vm)
        json_object_set_new(result, "vm", json_string(frame.vm));
    rpc_reply(call, result);
}

void sharing_page(struct rpc_call *call, struct rpc_params *params)
{
    struct sharing_reference reference;
    uint64_t ppn = 0, mpn;
    const char *name = param_text(params, "vm", REQUIRED);
    param_count(params, "ppn", REQUIRED, 0, UINT32_MAX, &ppn);
    if (!params_end(params, call))
        return;
    struct vm *vm = named_vm(call, name);
    if (!vm)
        return;
    if (supervisor_sharing_page(rpc_call_supervisor(call), vm, ppn, &mpn, &reference) < 0) {
        rpc_reply(call, json_pack("{s:b}", "shared", 0));
        return;
    }
    json_t *result = reference_json(&reference);
    json_object_set_new(result, "shared", json_true());
    json_object_set_new(result, "mpn", count(mpn));
    rpc_reply(call, result);
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
        json_array_append_new(list, json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:s}", "time_ns",
                                              count(rows[i].time_ns), "age_ns",
                                              count(rows[i].age_ns), "vm", rows[i].vm, "ppn",
                                              count(rows[i].ppn), "mpn", count(rows[i].mpn), "pc",
                                              count(rows[i].pc), "how", rows[i].how));
    free(rows);
    rpc_reply(call, json_pack("{s:o}", "breaks", list));
}
