#include "daemon/metrics/metrics.h"

#include "daemon/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PAGE_BYTES      4096u
#define TAG(number)     offsetof(struct vm_row, balloon_stats[number])
#define HOST(member)    offsetof(struct host_row, member)
#define VM(member)      offsetof(struct vm_row, member)
#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

enum metric_type { GAUGE, COUNTER };

enum metric_value {
    COUNT,      /* uint64_t, as it is */
    COUNT32,    /* uint32_t, as it is */
    PAGES,      /* uint64_t, in bytes */
    SECONDS,    /* uint64_t of nanoseconds */
    FLAG,       /* bool: 1 or 0 */
    REAL,       /* double */
    IF_REPORTED /* uint64_t, as it is; absent beyond INT64_MAX */
};

struct metric {
    const char *name; /* without _total, which counters get */
    enum metric_type type;
    enum metric_value value;
    size_t offset;  /* in the row */
    uint32_t needs; /* bits of a VM row's valid */
    const char *help;
};

/* clang-format off */
static const struct metric host_metrics[] = {
    {"ballast_host_machine_bytes", GAUGE, PAGES, HOST(machine_pages), 0, "Machine memory."},
    {"ballast_host_free_bytes", GAUGE, PAGES, HOST(free_pages), 0, "Machine memory held by no VM."},
    {"ballast_host_granted_bytes", GAUGE, PAGES, HOST(granted_pages), 0, "Machine memory held by one VM each."},
    {"ballast_host_shared_bytes", GAUGE, PAGES, HOST(shared_pages), 0, "Machine memory held by several VMs or pages."},
    {"ballast_host_shared_references_bytes", GAUGE, PAGES, HOST(shared_references), 0, "Guest memory that maps shared machine memory."},
    {"ballast_host_zero_bytes", GAUGE, PAGES, HOST(zero_references), 0, "Guest memory of zeroes, which needs no machine memory."},
    {"ballast_host_saved_bytes", GAUGE, PAGES, HOST(saved_pages), 0, "Machine memory saved by sharing."},
    {"ballast_host_emergency_bytes", GAUGE, PAGES, HOST(emergency_pages), 0, "Free memory kept for VMs below their min."},
    {"ballast_host_reserved_bytes", GAUGE, PAGES, HOST(reserved_pages), 0, "Promised in admission: min and overhead of all VMs."},
    {"ballast_host_configured_bytes", GAUGE, PAGES, HOST(configured_pages), 0, "Configured memory of all VMs."},
    {"ballast_host_overcommit_ratio", GAUGE, REAL, HOST(overcommit_ratio), 0, "Configured memory of all VMs over machine memory."},
    {"ballast_host_overcommit_1m_ratio", GAUGE, REAL, HOST(overcommit_1m), 0, "Overcommit ratio less 1, average over 1 minute."},
    {"ballast_host_overcommit_5m_ratio", GAUGE, REAL, HOST(overcommit_5m), 0, "Overcommit ratio less 1, average over 5 minutes."},
    {"ballast_host_overcommit_15m_ratio", GAUGE, REAL, HOST(overcommit_15m), 0, "Overcommit ratio less 1, average over 15 minutes."},
    {"ballast_host_swap_reserved_bytes", GAUGE, COUNT, HOST(swap_reserved_bytes), 0, "Disk reserved for pages of VMs."},
    {"ballast_host_overhead_bytes", GAUGE, COUNT, HOST(overhead_bytes), 0, "Host memory of all VMs beside the guests' own."},
    {"ballast_host_vms", GAUGE, COUNT32, HOST(vms), 0, "VMs that are not stopped."},
    {"ballast_host_idle_tax_percent", GAUGE, COUNT32, HOST(settings.idle_tax_percent), 0, "Idle memory tax."},
    {"ballast_host_policy_runs", COUNTER, COUNT, HOST(policy_runs), 0, "Rounds of the policy."},
    {"ballast_host_external_rounds", COUNTER, COUNT, HOST(external.asked), 0, "Rounds that an external policy was asked about, since it attached."},
    {"ballast_host_external_kept", COUNTER, COUNT, HOST(external.kept), 0, "Rounds that it decided."},
    {"ballast_host_external_late", COUNTER, COUNT, HOST(external.late), 0, "Rounds that it did not answer in time."},
    {"ballast_host_external_wrong", COUNTER, COUNT, HOST(external.wrong), 0, "Rounds that it answered wrong."},
    {"ballast_host_external_overtaken", COUNTER, COUNT, HOST(external.overtaken), 0, "Rounds that were decided before it answered, or that its answer did not fit any more."},
    {"ballast_host_decisions", COUNTER, COUNT, HOST(decisions), 0, "Changes of VMs' targets."},
    {"ballast_host_state_changes", COUNTER, COUNT, HOST(state_changes), 0, "Changes of the state of free memory."},
    {"ballast_host_events_suppressed", COUNTER, COUNT, HOST(events_suppressed), 0, "Events left out to keep to the limit."},
};

static const struct metric vm_metrics[] = {
    {"ballast_vm_memory_bytes", GAUGE, PAGES, VM(memory_pages), 0, "Configured memory."},
    {"ballast_vm_min_bytes", GAUGE, PAGES, VM(min_pages), 0, "Never reclaimed below this."},
    {"ballast_vm_max_bytes", GAUGE, PAGES, VM(max_pages), 0, "Never given more than this."},
    {"ballast_vm_shares", GAUGE, COUNT32, VM(shares), 0, "Weight beside the other VMs."},
    {"ballast_vm_target_bytes", GAUGE, PAGES, VM(target_pages), 0, "Machine memory it may hold, as last decided."},
    {"ballast_vm_allocated_bytes", GAUGE, PAGES, VM(allocated_pages), 0, "Machine memory it holds and its part of the shared."},
    {"ballast_vm_held_bytes", GAUGE, PAGES, VM(held_pages), 0, "Machine memory of its own."},
    {"ballast_vm_shared_charge_bytes", GAUGE, PAGES, VM(shared_charge_pages), 0, "What it is charged for shared machine memory."},
    {"ballast_vm_active_bytes", GAUGE, PAGES, VM(active_pages), VM_ROW_ACTIVE, "Memory in use, estimated by sampling."},
    {"ballast_vm_blocked", GAUGE, FLAG, VM(blocked), 0, "1 while it gets no memory: state low, above its target."},
    {"ballast_vm_balloon_driver", GAUGE, FLAG, VM(balloon_driver), 0, "1 if its guest has a balloon driver."},
    {"ballast_vm_balloon_target_bytes", GAUGE, PAGES, VM(balloon_target_pages), VM_ROW_BALLOON, "What the balloon driver was asked for."},
    {"ballast_vm_balloon_actual_bytes", GAUGE, PAGES, VM(balloon_actual_pages), VM_ROW_BALLOON, "What the balloon driver says it has."},
    {"ballast_vm_balloon_max_bytes", GAUGE, PAGES, VM(balloon_max_pages), VM_ROW_BALLOON, "The most the policy may ask its balloon for."},
    {"ballast_vm_balloon_bytes", GAUGE, PAGES, VM(balloon_pages), VM_ROW_WORKER, "Given up by the balloon."},
    {"ballast_vm_private_bytes", GAUGE, PAGES, VM(private_pages), VM_ROW_WORKER, "Guest memory with machine memory of its own."},
    {"ballast_vm_shared_bytes", GAUGE, PAGES, VM(shared_pages), VM_ROW_WORKER, "Guest memory that shares machine memory."},
    {"ballast_vm_zero_bytes", GAUGE, PAGES, VM(zero_pages), VM_ROW_WORKER, "Guest memory of zeroes, which needs no machine memory."},
    {"ballast_vm_shared_saved_bytes", GAUGE, PAGES, VM(shared_saved_pages), VM_ROW_WORKER, "Machine memory saved by sharing."},
    {"ballast_vm_paged_bytes", GAUGE, PAGES, VM(paged_pages), VM_ROW_WORKER, "Guest memory paged out by the host."},
    {"ballast_vm_absent_bytes", GAUGE, PAGES, VM(absent_pages), VM_ROW_WORKER, "Guest memory never touched."},
    {"ballast_vm_pool_bytes", GAUGE, PAGES, VM(pool_pages), VM_ROW_WORKER, "Machine memory it holds and does not use yet."},
    {"ballast_vm_wanted_bytes", GAUGE, PAGES, VM(wanted_pages), VM_ROW_WORKER, "Machine memory asked for and not yet granted."},
    {"ballast_vm_swap_reserved_bytes", GAUGE, PAGES, VM(swap_reserved_pages), 0, "Size of its swap file."},
    {"ballast_vm_swap_used_bytes", GAUGE, PAGES, VM(swap_slots_used), VM_ROW_WORKER, "Slots of its swap file in use."},
    {"ballast_vm_page_out_pending_bytes", GAUGE, PAGES, VM(page_out_pending_pages), 0, "Guest memory the host is to page out beyond what it has."},
    {"ballast_vm_swap_in_bytes", COUNTER, PAGES, VM(swap_in_pages), VM_ROW_WORKER, "Paged in by the host."},
    {"ballast_vm_swap_out_bytes", COUNTER, PAGES, VM(swap_out_pages), VM_ROW_WORKER, "Paged out by the host."},
    {"ballast_vm_swap_errors", COUNTER, COUNT, VM(swap_errors), VM_ROW_WORKER, "Failed reads and writes of its swap file."},
    {"ballast_vm_cow_breaks", COUNTER, COUNT, VM(cow_breaks), VM_ROW_WORKER, "Shared pages it wrote to."},
    {"ballast_vm_granted_bytes", COUNTER, PAGES, VM(granted_total_pages), 0, "Machine memory given to it."},
    {"ballast_vm_released_bytes", COUNTER, PAGES, VM(released_total_pages), 0, "Machine memory taken back from it."},
    {"ballast_vm_instructions", COUNTER, COUNT, VM(instructions), VM_ROW_WORKER, "Guest instructions."},
    {"ballast_vm_vcpu_run_seconds", COUNTER, SECONDS, VM(vcpu_run_ns), VM_ROW_WORKER, "Processor time of its vCPU."},
    {"ballast_vm_vcpu_wait_seconds", COUNTER, SECONDS, VM(vcpu_wait_ns), VM_ROW_WORKER, "Time blocked for memory."},
    {"ballast_vm_vcpu_idle_seconds", COUNTER, SECONDS, VM(vcpu_idle_ns), VM_ROW_WORKER, "Time its processor waited for work."},
    {"ballast_vm_traps", COUNTER, COUNT, VM(traps), VM_ROW_WORKER, "Traps of its processor."},
    {"ballast_vm_sbi_calls", COUNTER, COUNT, VM(sbi_calls), VM_ROW_WORKER, "Calls of its firmware."},
    {"ballast_vm_mmio_accesses", COUNTER, COUNT, VM(mmio_accesses), VM_ROW_WORKER, "Accesses to its devices."},
    {"ballast_vm_shadow_fills", COUNTER, COUNT, VM(shadow_fills), VM_ROW_WORKER, "Shadow page table entries made."},
    {"ballast_vm_shadow_drops", COUNTER, COUNT, VM(shadow_drops), VM_ROW_WORKER, "Shadow page table entries dropped."},
    {"ballast_vm_disk_read_bytes", COUNTER, COUNT, VM(disk_read_bytes), VM_ROW_WORKER, "Read from its disks."},
    {"ballast_vm_disk_write_bytes", COUNTER, COUNT, VM(disk_write_bytes), VM_ROW_WORKER, "Written to its disks."},
    {"ballast_vm_refused_messages", COUNTER, COUNT, VM(refused_messages), VM_ROW_WORKER, "Messages of its worker that were not believed."},
    {"ballast_vm_age_seconds", GAUGE, SECONDS, VM(age_ns), VM_ROW_WORKER, "Time since it was created."},
    {"ballast_vm_overhead_bytes", GAUGE, COUNT, VM(overhead.total_bytes), VM_ROW_WORKER, "Host memory beside the guest's own."},
    {"ballast_vm_overhead_charged_bytes", GAUGE, COUNT, VM(overhead.charged_bytes), VM_ROW_WORKER, "Overhead as charged in admission."},
    {"ballast_vm_guest_swap_in_bytes", COUNTER, IF_REPORTED, TAG(0), VM_ROW_WORKER, "Read from the guest's own swap, as it says."},
    {"ballast_vm_guest_swap_out_bytes", COUNTER, IF_REPORTED, TAG(1), VM_ROW_WORKER, "Written to the guest's own swap, as it says."},
    {"ballast_vm_guest_major_faults", COUNTER, IF_REPORTED, TAG(2), VM_ROW_WORKER, "Major faults in the guest, as it says."},
    {"ballast_vm_guest_minor_faults", COUNTER, IF_REPORTED, TAG(3), VM_ROW_WORKER, "Minor faults in the guest, as it says."},
    {"ballast_vm_guest_free_bytes", GAUGE, IF_REPORTED, TAG(4), VM_ROW_WORKER, "Free in the guest, as it says."},
    {"ballast_vm_guest_memory_bytes", GAUGE, IF_REPORTED, TAG(5), VM_ROW_WORKER, "Memory of the guest, as it says."},
    {"ballast_vm_guest_available_bytes", GAUGE, IF_REPORTED, TAG(6), VM_ROW_WORKER, "Available in the guest without swapping, as it says."},
    {"ballast_vm_guest_caches_bytes", GAUGE, IF_REPORTED, TAG(7), VM_ROW_WORKER, "Disk caches of the guest, as it says."},
    {"ballast_vm_guest_oom_kills", COUNTER, IF_REPORTED, TAG(10), VM_ROW_WORKER, "Processes the guest killed for lack of memory, as it says."},
};
/* clang-format on */

/* ---- text ---- */

static void put(struct json_text *text, const char *string)
{
    json_text_raw(text, string, strlen(string));
}

/* A family's unit is the end of its name (OpenMetrics 1.0.0, "Unit"). */
static void put_unit(struct json_text *text, const char *family)
{
    static const char *const units[] = {"bytes", "seconds", "ratio", "percent"};
    const char *last = strrchr(family, '_');
    for (size_t i = 0; last && i < COUNT_OF(units); i++)
        if (strcmp(last + 1, units[i]) == 0) {
            put(text, "# UNIT ");
            put(text, family);
            put(text, " ");
            put(text, units[i]);
            put(text, "\n");
        }
}

static void begin_family(struct json_text *text, const char *name, enum metric_type type,
                         const char *help, enum metrics_format format)
{
    /* In OpenMetrics a counter's family has no _total; in the older format its samples' name. */
    const char *total = type == COUNTER && format == METRICS_PROMETHEUS ? "_total" : "";
    put(text, "# HELP ");
    put(text, name);
    put(text, total);
    put(text, " ");
    put(text, help);
    put(text, "\n# TYPE ");
    put(text, name);
    put(text, total);
    put(text, type == COUNTER ? " counter\n" : " gauge\n");
    if (format == METRICS_OPENMETRICS)
        put_unit(text, name);
}

/* A sample's name and labels, up to its value. Names of VMs, states and policies are plain letters
 * (supervisor.h): nothing in them needs to be escaped. */
static void begin_sample(struct json_text *text, const char *name, enum metric_type type,
                         const char *label, const char *label_value, const char *vm)
{
    put(text, name);
    if (type == COUNTER)
        put(text, "_total");
    if (vm || label)
        put(text, "{");
    if (vm) {
        put(text, "vm=\"");
        put(text, vm);
        put(text, label ? "\"," : "\"");
    }
    if (label) {
        put(text, label);
        put(text, "=\"");
        put(text, label_value);
        put(text, "\"");
    }
    put(text, vm || label ? "} " : " ");
}

/* A nested row's member, whatever its alignment in memory. */
static uint64_t read_uint64(const void *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void put_real(struct json_text *text, double value)
{
    char digits[40];
    snprintf(digits, sizeof digits, "%.9g", value);
    put(text, digits);
}

static void put_seconds(struct json_text *text, uint64_t ns)
{
    char fraction[16];
    json_text_count(text, ns / 1000000000);
    snprintf(fraction, sizeof fraction, ".%09u", (unsigned)(ns % 1000000000));
    put(text, fraction);
}

static void put_value(struct json_text *text, enum metric_value value, const char *at)
{
    switch (value) {
    case COUNT:
    case IF_REPORTED:
        json_text_count(text, read_uint64(at));
        break;
    case COUNT32: {
        uint32_t count;
        memcpy(&count, at, sizeof count);
        json_text_count(text, count);
        break;
    }
    case PAGES: {
        uint64_t pages = read_uint64(at); /* a worker may count what it likes */
        json_text_count(text, pages > INT64_MAX / PAGE_BYTES ? INT64_MAX : pages * PAGE_BYTES);
        break;
    }
    case SECONDS:
        put_seconds(text, read_uint64(at));
        break;
    case FLAG:
        put(text, *(const bool *)at ? "1" : "0");
        break;
    case REAL: {
        double real;
        memcpy(&real, at, sizeof real);
        put_real(text, real);
        break;
    }
    }
    put(text, "\n");
}

/* ---- the host ---- */

static const char *const states[] = {"high", "soft", "hard", "low"};

static void write_host(struct json_text *text, const struct host_row *host,
                       enum metrics_format format)
{
    for (size_t i = 0; i < COUNT_OF(host_metrics); i++) {
        const struct metric *metric = &host_metrics[i];
        begin_family(text, metric->name, metric->type, metric->help, format);
        begin_sample(text, metric->name, metric->type, NULL, NULL, NULL);
        put_value(text, metric->value, (const char *)host + metric->offset);
    }
    begin_family(text, "ballast_host_state", GAUGE, "1 for the state that free memory is in.",
                 format);
    for (size_t i = 0; i < COUNT_OF(states); i++) {
        begin_sample(text, "ballast_host_state", GAUGE, "state", states[i], NULL);
        put(text, strcmp(states[i], host->state) == 0 ? "1\n" : "0\n");
    }
    begin_family(text, "ballast_host_threshold_ratio", GAUGE,
                 "Free memory over machine memory below which a state is left downwards.", format);
    for (size_t i = 0; i < COUNT_OF(states); i++) {
        begin_sample(text, "ballast_host_threshold_ratio", GAUGE, "state", states[i], NULL);
        put_real(text, (double)host->threshold_pages[i] / (double)host->machine_pages);
        put(text, "\n");
    }
    begin_family(text, "ballast_host_watch_raised", GAUGE,
                 "Alerts of a watcher that are raised now, of the host and all VMs.", format);
    for (int w = 0; w < WATCHERS; w++) {
        begin_sample(text, "ballast_host_watch_raised", GAUGE, "watcher",
                     watch_name((enum watcher)w), NULL);
        json_text_count(text, host->watch_raised[w]);
        put(text, "\n");
    }
    begin_family(text, "ballast_host_watch_raises", COUNTER, "Alerts that a watcher raised.",
                 format);
    for (int w = 0; w < WATCHERS; w++) {
        begin_sample(text, "ballast_host_watch_raises", COUNTER, "watcher",
                     watch_name((enum watcher)w), NULL);
        json_text_count(text, host->watch_raises[w]);
        put(text, "\n");
    }
    begin_family(text, "ballast_host_policy", GAUGE, "1 for the policy in force.", format);
    begin_sample(text, "ballast_host_policy", GAUGE, "policy", host->policy, NULL);
    put(text, "1\n");
}

/* ---- VMs ---- */

static void write_vm_metric(struct json_text *text, const struct metric *metric,
                            const struct vm_row *rows, size_t count, enum metrics_format format)
{
    bool begun = false;
    for (size_t i = 0; i < count; i++) {
        const char *at = (const char *)&rows[i] + metric->offset;
        if ((rows[i].valid & metric->needs) != metric->needs)
            continue;
        if (metric->value == IF_REPORTED && read_uint64(at) > INT64_MAX)
            continue;
        if (!begun)
            begin_family(text, metric->name, metric->type, metric->help, format);
        begun = true;
        begin_sample(text, metric->name, metric->type, NULL, NULL, rows[i].name);
        put_value(text, metric->value, at);
    }
}

static void write_vm_states(struct json_text *text, const struct vm_row *rows, size_t count,
                            enum metrics_format format)
{
    static const char *const lives[] = {"starting", "running", "paused", "stopped"};
    if (count > 0)
        begin_family(text, "ballast_vm_state", GAUGE, "1 for the state that the VM is in.", format);
    for (size_t i = 0; i < count; i++)
        for (size_t life = 0; life < COUNT_OF(lives); life++) {
            begin_sample(text, "ballast_vm_state", GAUGE, "state", lives[life], rows[i].name);
            put(text, strcmp(lives[life], rows[i].state) == 0 ? "1\n" : "0\n");
        }
}

void metrics_write(struct json_text *text, struct supervisor *supervisor,
                   enum metrics_format format)
{
    struct host_row host;
    size_t count = 0, filled = 0;
    for (struct vm *vm = supervisor_first_vm(supervisor); vm;
         vm = supervisor_next_vm(supervisor, vm))
        count++;
    struct vm_row *rows = calloc(count + 1, sizeof *rows);
    if (!rows) {
        text->failed = true;
        return;
    }
    for (struct vm *vm = supervisor_first_vm(supervisor); vm;
         vm = supervisor_next_vm(supervisor, vm))
        supervisor_vm_row(supervisor, vm, &rows[filled++]);
    supervisor_host_row(supervisor, &host);
    write_host(text, &host, format);
    write_vm_states(text, rows, count, format);
    for (size_t i = 0; i < COUNT_OF(vm_metrics); i++)
        write_vm_metric(text, &vm_metrics[i], rows, count, format);
    if (format == METRICS_OPENMETRICS)
        put(text, "# EOF\n");
    free(rows);
}

/* ---- formats ---- */

const char *metrics_content_type(enum metrics_format format)
{
    return format == METRICS_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}

/* How much an Accept header wants a media type (RFC 9110, 12.5.1): 0 .. 1; -1: not named. */
static double wanted(const char *accept, const char *type)
{
    for (const char *range = accept; *range; range += range[0] == ',') {
        range += strspn(range, " \t");
        size_t bytes = strcspn(range, ","), name_bytes = strcspn(range, ",; \t");
        if (name_bytes == strlen(type) && strncasecmp(range, type, name_bytes) == 0) {
            const char *end = range + bytes;
            for (const char *c = range + name_bytes; c + 3 < end; c++)
                if ((c[0] == ';' || c[0] == ' ') && strncasecmp(c + 1, "q=", 2) == 0)
                    return strtod(c + 3, NULL);
            return 1;
        }
        range += bytes;
    }
    return -1;
}

enum metrics_format metrics_choose_format(const char *accept)
{
    if (!accept)
        return METRICS_PROMETHEUS;
    double open = wanted(accept, "application/openmetrics-text");
    return open > 0 && open >= wanted(accept, "text/plain") ? METRICS_OPENMETRICS
                                                            : METRICS_PROMETHEUS;
}
