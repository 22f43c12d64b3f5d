#include "daemon/rpc/rows.h"

/* ---- what a row consists of ---- */

/* Bits of the host's row, as valid of a VM's. */
enum { HOST_EXTERNAL = 1u << 0, HOST_FALLBACK = 1u << 1, HOST_FAULT = 1u << 2 };

enum field_kind {
    FIELD_COUNT,   /* uint64_t */
    FIELD_COUNT32, /* uint32_t */
    FIELD_PID,     /* int; absent when 0 */
    FIELD_FLAG,    /* bool */
    FIELD_REAL,    /* double */
    FIELD_TEXT,    /* const char * */
    FIELD_WORDS,   /* char[], ended by a NUL */
    FIELD_OBJECT,  /* a struct, by its own table */
    FIELD_GUEST,   /* uint64_t[16] by virtio tag */
};

struct field {
    const char *name;
    size_t name_length;
    enum field_kind kind;
    size_t offset;               /* in the row's struct */
    uint32_t needs;              /* bits of the row's valid: absent unless all are set */
    const struct field *members; /* of an object; the last has no name */
};

/* clang-format off */
#define NAMED(kind, row, name, member, needs, members)                                             \
    {name, sizeof name - 1, kind, offsetof(struct row, member), needs, members}
#define END {NULL, 0, FIELD_COUNT, 0, 0, NULL}

#define COUNT(member) NAMED(FIELD_COUNT, vm_overhead, #member, member, 0, NULL)
static const struct field overhead_fields[] = {
    COUNT(daemon_arena_bytes),
    COUNT(worker_private_bytes),
    COUNT(page_table_bytes),
    COUNT(region_bytes),
    COUNT(total_bytes),
    COUNT(charged_bytes),
    END,
};
#undef COUNT

#define REAL(member) NAMED(FIELD_REAL, state_thresholds, #member, member, 0, NULL)
static const struct field threshold_fields[] = {
    REAL(high), REAL(soft), REAL(hard), REAL(low), REAL(hysteresis),
    NAMED(FIELD_FLAG, state_thresholds, "sliding", sliding, 0, NULL),
    REAL(sliding_soft), REAL(sliding_hard), REAL(sliding_low), END,
};
#undef REAL

#define PAGES(name, state)                                                                         \
    {name, sizeof name - 1, FIELD_COUNT, (state) * sizeof(uint64_t), 0, NULL}
static const struct field threshold_pages_fields[] = {
    PAGES("high", HOST_HIGH), PAGES("soft", HOST_SOFT), PAGES("hard", HOST_HARD),
    PAGES("low", HOST_LOW), END,
};
#undef PAGES

/* The table of policy/settings.c; the tax stands in the row itself. */
#define REAL(member) NAMED(FIELD_REAL, policy_settings, #member, member, 0, NULL)
#define COUNT(member) NAMED(FIELD_COUNT32, policy_settings, #member, member, 0, NULL)
static const struct field settings_fields[] = {
    REAL(slack_percent),
    REAL(growth_room_percent),
    COUNT(demand_decay_ms),
    REAL(balloon_ceiling_percent),
    COUNT(stall_ms),
    COUNT(page_out_limit_pages),
    COUNT(soft_round_ms),
    COUNT(hard_round_ms),
    REAL(active_trigger_percent),
    END,
};
#undef REAL
#undef COUNT

#define EXTERNAL(kind, member) NAMED(kind, external_row, #member, member, 0, NULL)
static const struct field external_fields[] = {
    EXTERNAL(FIELD_TEXT, name),
    EXTERNAL(FIELD_TEXT, state),
    NAMED(FIELD_TEXT, external_row, "fallback", fallback, HOST_FALLBACK, NULL),
    EXTERNAL(FIELD_COUNT32, deadline_ms),
    EXTERNAL(FIELD_COUNT32, bad_limit),
    EXTERNAL(FIELD_COUNT32, bad_in_a_row),
    EXTERNAL(FIELD_COUNT, round),
    EXTERNAL(FIELD_COUNT, asked),
    EXTERNAL(FIELD_COUNT, kept),
    EXTERNAL(FIELD_COUNT, late),
    EXTERNAL(FIELD_COUNT, wrong),
    EXTERNAL(FIELD_COUNT, overtaken),
    EXTERNAL(FIELD_COUNT, refused),
    EXTERNAL(FIELD_COUNT, answer_ns),
    EXTERNAL(FIELD_COUNT, longest_answer_ns),
    NAMED(FIELD_WORDS, external_row, "last_fault", last_fault, HOST_FAULT, NULL),
    END,
};
#undef EXTERNAL

/* Alerts that are raised now, by watcher. */
#define RAISED(name, watcher)                                                                      \
    {name, sizeof name - 1, FIELD_COUNT, (watcher) * sizeof(uint64_t), 0, NULL}
static const struct field watch_fields[] = {
    RAISED("flapping", WATCH_FLAPPING),
    RAISED("balloon_stalled", WATCH_BALLOON_STALLED),
    RAISED("balloon_lies", WATCH_BALLOON_LIES),
    RAISED("starved", WATCH_STARVED),
    RAISED("state_lasts", WATCH_STATE_LASTS),
    RAISED("invariant", WATCH_INVARIANT),
    END,
};
#undef RAISED

#define HOST(kind, member) NAMED(kind, host_row, #member, member, 0, NULL)
static const struct field host_fields[] = {
    HOST(FIELD_COUNT, time_ns), /* first: a stream's row has it elsewhere */
    HOST(FIELD_TEXT, state),
    HOST(FIELD_TEXT, policy),
    HOST(FIELD_TEXT, policy_active),
    NAMED(FIELD_OBJECT, host_row, "external", external, HOST_EXTERNAL, external_fields),
    HOST(FIELD_COUNT32, vms),
    HOST(FIELD_COUNT, machine_pages),
    HOST(FIELD_COUNT, free_pages),
    HOST(FIELD_COUNT, granted_pages),
    HOST(FIELD_COUNT, shared_pages),
    HOST(FIELD_FLAG, sharing),
    HOST(FIELD_TEXT, shared_charge),
    HOST(FIELD_COUNT, shared_references),
    HOST(FIELD_COUNT, zero_references),
    HOST(FIELD_COUNT, saved_pages),
    HOST(FIELD_COUNT, hint_frames),
    HOST(FIELD_COUNT, emergency_pages),
    HOST(FIELD_COUNT, reserved_pages),
    HOST(FIELD_COUNT, configured_pages),
    HOST(FIELD_REAL, overcommit_ratio),
    HOST(FIELD_REAL, overcommit_1m),
    HOST(FIELD_REAL, overcommit_5m),
    HOST(FIELD_REAL, overcommit_15m),
    HOST(FIELD_COUNT, swap_reserved_bytes),
    HOST(FIELD_COUNT, overhead_bytes),
    HOST(FIELD_COUNT32, period_ms),
    NAMED(FIELD_COUNT32, host_row, "idle_tax_percent", settings.idle_tax_percent, 0, NULL),
    NAMED(FIELD_COUNT32, host_row, "sample_pages", sampling.pages, 0, NULL),
    NAMED(FIELD_COUNT32, host_row, "sample_period_ms", sampling.period_ms, 0, NULL),
    NAMED(FIELD_REAL, host_row, "sample_slow_gain", sampling.slow_gain, 0, NULL),
    NAMED(FIELD_REAL, host_row, "sample_fast_gain", sampling.fast_gain, 0, NULL),
    NAMED(FIELD_FLAG, host_row, "count_touched", sampling.count_touched, 0, NULL),
    NAMED(FIELD_OBJECT, host_row, "thresholds", settings.thresholds, 0, threshold_fields),
    NAMED(FIELD_OBJECT, host_row, "threshold_pages", threshold_pages, 0, threshold_pages_fields),
    NAMED(FIELD_OBJECT, host_row, "policy_settings", settings, 0, settings_fields),
    HOST(FIELD_TEXT, policy_trigger),
    HOST(FIELD_COUNT, policy_runs),
    HOST(FIELD_COUNT, decisions),
    NAMED(FIELD_OBJECT, host_row, "watch", watch_raised, 0, watch_fields),
    HOST(FIELD_COUNT, state_changes),
    HOST(FIELD_COUNT, events_suppressed),
    END,
};
#undef HOST

#define ALWAYS(kind, member) NAMED(kind, vm_row, #member, member, 0, NULL)
#define BALLOON(member) NAMED(FIELD_COUNT, vm_row, #member, member, VM_ROW_BALLOON, NULL)
#define WORKER(member) NAMED(FIELD_COUNT, vm_row, #member, member, VM_ROW_WORKER, NULL)
#define ACTIVE(member) NAMED(FIELD_COUNT, vm_row, #member, member, VM_ROW_ACTIVE, NULL)
static const struct field vm_fields[] = {
    ALWAYS(FIELD_TEXT, name),
    ALWAYS(FIELD_TEXT, state),
    ALWAYS(FIELD_COUNT, memory_pages),
    ALWAYS(FIELD_COUNT, min_pages),
    ALWAYS(FIELD_COUNT, max_pages),
    ALWAYS(FIELD_COUNT32, shares),
    NAMED(FIELD_COUNT32, vm_row, "idle_tax_percent", idle_tax_percent, VM_ROW_IDLE_TAX, NULL),
    ALWAYS(FIELD_COUNT, target_pages),
    NAMED(FIELD_COUNT, vm_row, "manual_target_pages", manual_target_pages, VM_ROW_MANUAL_TARGET,
          NULL),
    ALWAYS(FIELD_COUNT, allocated_pages),
    ALWAYS(FIELD_COUNT, held_pages),
    ALWAYS(FIELD_COUNT, shared_charge_pages),
    ALWAYS(FIELD_COUNT, shared_references),
    ALWAYS(FIELD_COUNT, zero_pages),
    ALWAYS(FIELD_COUNT, shared_saved_pages),
    ALWAYS(FIELD_COUNT, cow_breaks),
    ALWAYS(FIELD_COUNT, false_matches),
    ALWAYS(FIELD_FLAG, sharing),
    NAMED(FIELD_WORDS, vm_row, "sharing_domain", sharing_domain, VM_ROW_DOMAIN, NULL),
    ALWAYS(FIELD_FLAG, blocked),
    ALWAYS(FIELD_FLAG, balloon_driver),
    BALLOON(balloon_target_pages),
    BALLOON(balloon_actual_pages),
    BALLOON(balloon_max_pages),
    ALWAYS(FIELD_COUNT, swap_reserved_pages),
    ALWAYS(FIELD_COUNT, page_out_pending_pages),
    ALWAYS(FIELD_COUNT, granted_total_pages),
    ALWAYS(FIELD_COUNT, released_total_pages),
    WORKER(balloon_pages),
    WORKER(private_pages),
    WORKER(shared_pages),
    WORKER(paged_pages),
    WORKER(absent_pages),
    WORKER(paging_pages),
    WORKER(pool_pages),
    WORKER(wanted_pages),
    WORKER(swap_in_pages),
    WORKER(swap_out_pages),
    WORKER(swap_errors),
    WORKER(swap_slots_used),
    WORKER(instructions),
    WORKER(vcpu_run_ns),
    WORKER(vcpu_wait_ns),
    WORKER(vcpu_idle_ns),
    ACTIVE(active_pages),
    ACTIVE(active_slow_pages),
    ACTIVE(active_fast_pages),
    ACTIVE(active_next_pages),
    WORKER(sample_pages),
    WORKER(sample_touched_pages),
    WORKER(sample_periods),
    WORKER(last_sample_pages),
    WORKER(last_sample_touched_pages),
    NAMED(FIELD_COUNT, vm_row, "touched_pages", touched_pages, VM_ROW_TOUCHED, NULL),
    WORKER(traps),
    WORKER(sbi_calls),
    WORKER(mmio_accesses),
    WORKER(shadow_fills),
    WORKER(shadow_drops),
    WORKER(disk_read_bytes),
    WORKER(disk_write_bytes),
    WORKER(refused_messages),
    WORKER(age_ns),
    NAMED(FIELD_PID, vm_row, "pid", pid, VM_ROW_WORKER, NULL),
    NAMED(FIELD_OBJECT, vm_row, "overhead", overhead, VM_ROW_WORKER, overhead_fields),
    NAMED(FIELD_GUEST, vm_row, "guest", balloon_stats, VM_ROW_WORKER, NULL),
    NAMED(FIELD_WORDS, vm_row, "alerts", alerts, VM_ROW_ALERTS, NULL),
    NAMED(FIELD_WORDS, vm_row, "exit", exit_text, VM_ROW_EXIT, NULL),
    NAMED(FIELD_FLAG, vm_row, "exit_clean", exit_clean, VM_ROW_EXIT, NULL),
    END,
};
#undef ACTIVE
#undef WORKER
#undef BALLOON
#undef ALWAYS
#undef NAMED
#undef END
/* clang-format on */

/* ---- writing one ---- */

static void put(struct json_text *text, char c)
{
    json_text_raw(text, &c, 1);
}

/* What the guest's balloon driver reports; members it did not report are absent. */
static void write_guest(struct json_text *text, const uint64_t stats[16])
{
    bool first = true;
    put(text, '{');
    for (unsigned tag = 0; tag < 16; tag++) {
        const char *name = balloon_stat_name(tag);
        if (!name || stats[tag] > INT64_MAX)
            continue;
        if (!first)
            put(text, ',');
        first = false;
        json_text_string(text, name);
        put(text, ':');
        json_text_count(text, stats[tag]);
    }
    put(text, '}');
}

static void write_object(struct json_text *text, const struct field *fields, const void *object,
                         uint32_t valid);

static void write_value(struct json_text *text, const struct field *field, const char *at,
                        uint32_t valid)
{
    switch (field->kind) {
    case FIELD_COUNT:
        json_text_count(text, *(const uint64_t *)(const void *)at);
        break;
    case FIELD_COUNT32:
        json_text_count(text, *(const uint32_t *)(const void *)at);
        break;
    case FIELD_PID:
        json_text_count(text, *(const uint32_t *)(const void *)at); /* positive: see write_object */
        break;
    case FIELD_FLAG:
        if (*(const bool *)at)
            json_text_raw(text, "true", 4);
        else
            json_text_raw(text, "false", 5);
        break;
    case FIELD_REAL:
        json_text_real(text, *(const double *)(const void *)at);
        break;
    case FIELD_TEXT:
        json_text_string(text, *(const char *const *)(const void *)at);
        break;
    case FIELD_WORDS:
        json_text_string(text, at);
        break;
    case FIELD_OBJECT:
        write_object(text, field->members, at, valid);
        break;
    case FIELD_GUEST:
        write_guest(text, (const uint64_t *)(const void *)at);
        break;
    }
}

static void write_object(struct json_text *text, const struct field *fields, const void *object,
                         uint32_t valid)
{
    bool first = true;
    put(text, '{');
    for (const struct field *field = fields; field->name; field++) {
        const char *at = (const char *)object + field->offset;
        if ((field->needs & valid) != field->needs)
            continue;
        if (field->kind == FIELD_PID && *(const int *)(const void *)at <= 0)
            continue;
        json_text_raw(text, first ? "\"" : ",\"", first ? 1 : 2);
        first = false;
        json_text_raw(text, field->name, field->name_length);
        json_text_raw(text, "\":", 2);
        write_value(text, field, at, valid);
    }
    put(text, '}');
}

static uint32_t host_valid(const struct host_row *host)
{
    return (host->has_external ? HOST_EXTERNAL : 0u) |
           (host->external.fallback ? HOST_FALLBACK : 0u) |
           (host->external.last_fault[0] ? HOST_FAULT : 0u);
}

static void write_vm(struct json_text *text, struct supervisor *supervisor, struct vm *vm)
{
    struct vm_row row;
    supervisor_vm_row(supervisor, vm, &row);
    write_object(text, vm_fields, &row, row.valid);
}

void rows_write(struct json_text *text, struct supervisor *supervisor)
{
    struct host_row host;
    supervisor_host_row(supervisor, &host);
    json_text_raw(text, "{\"time_ns\":", 11);
    json_text_count(text, host.time_ns);
    json_text_raw(text, ",\"host\":", 8);
    write_object(text, host_fields + 1, &host, host_valid(&host));
    json_text_raw(text, ",\"vms\":[", 8);
    for (struct vm *vm = supervisor_first_vm(supervisor), *next; vm; vm = next) {
        next = supervisor_next_vm(supervisor, vm);
        write_vm(text, supervisor, vm);
        if (next)
            put(text, ',');
    }
    json_text_raw(text, "]}", 2);
}

/* ---- as values, for answers ---- */

static json_t *take_json(struct json_text *text)
{
    json_t *row = text->failed ? NULL : json_loadb(text->bytes, text->length, 0, NULL);
    json_text_free(text);
    return row;
}

json_t *host_row_json(struct supervisor *supervisor)
{
    struct json_text text = {0};
    struct host_row host;
    supervisor_host_row(supervisor, &host);
    write_object(&text, host_fields, &host, host_valid(&host));
    return take_json(&text);
}

json_t *vm_row_json(struct supervisor *supervisor, struct vm *vm)
{
    struct json_text text = {0};
    write_vm(&text, supervisor, vm);
    return take_json(&text);
}
