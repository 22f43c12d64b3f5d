#include "tests/control/fake_supervisor_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void supervisor_config_default(struct supervisor_config *config)
{
    *config = (struct supervisor_config){
        .machine_bytes = UINT64_C(1) << 30,
        .run_dir = "/run/ballast",
        .policy = "proportional",
        .period_ms = 2000,
        .overhead_bytes = 16u << 20,
    };
    policy_settings_default(&config->settings);
    config->sampling = (struct sampling_settings){100, 30000, 0.25, 0.75, false};
}

/* ---- life ---- */

struct supervisor *supervisor_new(const struct supervisor_config *config, sd_event *event,
                                  struct err *err)
{
    struct supervisor *supervisor = calloc(1, sizeof *supervisor);
    if (!supervisor) {
        err_set(err, ENOMEM, "supervisor");
        return NULL;
    }
    supervisor->config = *config;
    supervisor->event = event;
    if (fake_external_start(supervisor, err) < 0)
        abort();
    return supervisor;
}

void supervisor_free(struct supervisor *supervisor)
{
    external_free(supervisor->external);
    sd_event_source_disable_unref(supervisor->round);
    while (supervisor->vms) {
        struct vm *vm = supervisor->vms;
        supervisor->vms = vm->next;
        free(vm);
    }
    free(supervisor);
}

/* ---- completions ---- */

struct later {
    struct supervisor *supervisor;
    supervisor_done_fn *done;
    supervisor_check_fn *checked;
    void *ctx;
    int result;
    struct err err;
};

static int now_it_is_later(sd_event_source *source, void *ctx)
{
    struct later *later = ctx;
    struct check_result clean = {
        .ok = true, .pages_checked = 65536, .frames_checked = 262144, .vms_checked = 1};
    if (later->done) {
        later->done(later->ctx, later->result, &later->err);
    } else {
        later->supervisor->checking = false;
        later->checked(later->ctx, &clean);
    }
    sd_event_source_unref(source);
    free(later);
    return 0;
}

static struct later *call_later(struct supervisor *supervisor)
{
    struct later *later = calloc(1, sizeof *later);
    sd_event_source *source;
    if (!later || sd_event_add_defer(supervisor->event, &source, now_it_is_later, later) < 0)
        abort();
    later->supervisor = supervisor;
    return later;
}

static int done_later(struct supervisor *supervisor, supervisor_done_fn *done, void *ctx)
{
    struct later *later = call_later(supervisor);
    later->done = done;
    later->ctx = ctx;
    return 0;
}

int supervisor_quit(struct supervisor *supervisor, supervisor_done_fn *done, void *ctx,
                    struct err *err)
{
    (void)err;
    return done_later(supervisor, done, ctx);
}

int supervisor_check(struct supervisor *supervisor, supervisor_check_fn *done, void *ctx,
                     struct err *err)
{
    if (supervisor->checking)
        return err_set(err, EBUSY, "a check is already running");
    struct later *later = call_later(supervisor);
    supervisor->checking = true;
    later->checked = done;
    later->ctx = ctx;
    return 0;
}

/* ---- host ---- */

static bool is_busy(const struct vm *vm)
{
    return strncmp(vm->name, "busy", 4) == 0;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void supervisor_host_row(struct supervisor *supervisor, struct host_row *row)
{
    uint64_t machine_pages = supervisor->config.machine_bytes / PAGE, configured = 0;
    uint32_t vms = 0;
    bool busy = false;
    for (struct vm *vm = supervisor->vms; vm; vm = vm->next, vms++) {
        configured += vm->memory_pages;
        busy |= is_busy(vm);
    }
    *row = (struct host_row){
        .time_ns = busy ? now_ms() * 1000000 : 1234567890,
        .machine_pages = machine_pages,
        .free_pages = machine_pages,
        .configured_pages = configured,
        .overcommit_ratio = (double)configured / (double)machine_pages,
        .overcommit_1m = configured > machine_pages
                             ? (double)(configured - machine_pages) / (double)machine_pages
                             : 0,
        .overcommit_5m = 0.5,
        .overcommit_15m = 0.25,
        .state = "high",
        .shared_charge = shared_charge_name(fake_sharing_settings.charge),
        .policy = supervisor->config.policy,
        .policy_trigger = "period",
        .period_ms = supervisor->config.period_ms,
        .settings = supervisor->config.settings,
        .sampling = supervisor->config.sampling,
        .vms = vms,
    };
    for (enum host_state state = HOST_HIGH; state < HOST_STATES; state++)
        row->threshold_pages[state] = host_state_threshold_pages(
            state, machine_pages, &supervisor->config.settings.thresholds);
    static char active[16 + EXTERNAL_NAME_BYTES];
    row->has_external = external_row(supervisor->external, &row->external);
    snprintf(active, sizeof active, "external:%s", external_name(supervisor->external));
    row->policy_active = supervisor->decided_by_external ? active : row->policy;
}

int supervisor_set_policy(struct supervisor *supervisor, const char *name, struct err *err)
{
    (void)err;
    supervisor->config.policy = strcmp(name, "static") == 0 ? "static" : "proportional";
    return 0;
}

int supervisor_set_period(struct supervisor *supervisor, uint32_t period_ms, struct err *err)
{
    (void)err;
    supervisor->config.period_ms = period_ms;
    fake_ask_soon(supervisor);
    return 0;
}

int supervisor_set_settings(struct supervisor *supervisor, const struct policy_settings *settings,
                            struct err *err)
{
    (void)err;
    supervisor->config.settings = *settings;
    return 0;
}

int supervisor_set_sampling(struct supervisor *supervisor, const struct sampling_settings *settings,
                            struct err *err)
{
    (void)err;
    supervisor->config.sampling = *settings;
    return 0;
}

void supervisor_listen_rounds(struct supervisor *supervisor, supervisor_round_fn *fn, void *ctx)
{
    (void)supervisor, (void)fn, (void)ctx; /* it has no policy, and so no rounds */
}

/* ---- VMs ---- */

void vm_settings_default(struct vm_settings *settings)
{
    *settings =
        (struct vm_settings){.memory_bytes = 256u << 20, .idle_tax_percent = IDLE_TAX_OF_HOST};
}

struct vm *supervisor_create_vm(struct supervisor *supervisor, const struct vm_settings *settings,
                                struct err *err)
{
    struct vm **last = &supervisor->vms;
    if (strcmp(settings->name, "crowd") == 0) {
        err_set(err, ENOMEM, "VM crowd: min and overhead of all VMs exceed machine memory");
        return NULL;
    }
    for (; *last; last = &(*last)->next)
        if (strcmp((*last)->name, settings->name) == 0) {
            err_set(err, EEXIST, "VM %s", settings->name);
            return NULL;
        }
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm) {
        err_set(err, ENOMEM, "VM %s", settings->name);
        return NULL;
    }
    snprintf(vm->name, sizeof vm->name, "%s", settings->name);
    vm->state = settings->no_start ? "paused" : "running";
    vm->memory_pages = vm->max_pages = settings->memory_bytes / PAGE;
    vm->min_pages = settings->min_bytes ? settings->min_bytes / PAGE : vm->max_pages / 2;
    vm->shares =
        settings->shares ? settings->shares : (uint32_t)(settings->memory_bytes >> 20) * 10;
    vm->idle_tax_percent = settings->idle_tax_percent;
    *last = vm;
    fake_event(supervisor, vm->name, "vm-created", "created");
    return vm;
}

struct vm *supervisor_find_vm(struct supervisor *supervisor, const char *name)
{
    struct vm *vm = supervisor->vms;
    while (vm && strcmp(vm->name, name) != 0)
        vm = vm->next;
    return vm;
}

struct vm *supervisor_first_vm(struct supervisor *supervisor)
{
    return supervisor->vms;
}

struct vm *supervisor_next_vm(struct supervisor *supervisor, struct vm *vm)
{
    (void)supervisor;
    return vm->next;
}

const char *vm_name(const struct vm *vm)
{
    return vm->name;
}

const char *vm_state_name(const struct vm *vm)
{
    return vm->state;
}

int supervisor_pause_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                        void *ctx, struct err *err)
{
    (void)err;
    struct later *later = call_later(supervisor);
    later->done = done;
    later->ctx = ctx;
    if (strcmp(vm->name, "stubborn") == 0)
        later->result = err_set(&later->err, ETIMEDOUT, "VM stubborn does not stop");
    else
        vm->state = "paused";
    return 0;
}

int supervisor_resume_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                         void *ctx, struct err *err)
{
    (void)err;
    vm->state = "running";
    return done_later(supervisor, done, ctx);
}

int supervisor_destroy_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                          void *ctx, struct err *err)
{
    (void)err;
    struct vm **link = &supervisor->vms;
    while (*link != vm)
        link = &(*link)->next;
    *link = vm->next;
    fake_event(supervisor, vm->name, "vm-destroyed", "destroyed");
    free(vm);
    return done_later(supervisor, done, ctx);
}

int supervisor_set_shares(struct supervisor *supervisor, struct vm *vm, uint32_t shares,
                          struct err *err)
{
    (void)supervisor, (void)err;
    vm->shares = shares;
    return 0;
}

int supervisor_set_vm_idle_tax(struct supervisor *supervisor, struct vm *vm, int percent,
                               struct err *err)
{
    (void)supervisor, (void)err;
    vm->idle_tax_percent = percent;
    return 0;
}

int supervisor_set_min_max(struct supervisor *supervisor, struct vm *vm, uint64_t min_bytes,
                           uint64_t max_bytes, struct err *err)
{
    (void)supervisor;
    uint64_t min = min_bytes == UINT64_MAX ? vm->min_pages : min_bytes / PAGE;
    uint64_t max = max_bytes == UINT64_MAX ? vm->max_pages : max_bytes / PAGE;
    if (min > max || max > vm->memory_pages)
        return err_set(err, ERANGE, "VM %s: min <= max <= memory must hold", vm->name);
    vm->min_pages = min;
    vm->max_pages = max;
    return 0;
}

int supervisor_set_target(struct supervisor *supervisor, struct vm *vm, uint64_t target_bytes,
                          struct err *err)
{
    (void)err;
    uint64_t previous = vm->manual ? vm->manual_pages : vm->max_pages;
    vm->manual = true;
    vm->manual_pages = target_bytes / PAGE;
    fake_decide(supervisor, vm, previous, vm->manual_pages, RULE_MANUAL);
    return 0;
}

int supervisor_clear_target(struct supervisor *supervisor, struct vm *vm, struct err *err)
{
    (void)err;
    vm->manual = false;
    fake_decide(supervisor, vm, vm->manual_pages, vm->max_pages, RULE_MAX);
    return 0;
}

/* Numbers as long as those of a VM that has worked for days, and 1000 pages a second paged in,
 * 2000 out. */
static void fill_busy_row(struct vm_row *row)
{
    uint64_t ms = now_ms(), quarter = row->memory_pages / 4;
    row->allocated_pages = 3 * quarter;
    row->private_pages = 2 * quarter;
    row->shared_pages = quarter / 2;
    row->pool_pages = quarter / 2;
    row->balloon_target_pages = quarter / 2;
    row->balloon_pages = row->balloon_actual_pages = quarter / 4;
    row->paged_pages = row->swap_slots_used = quarter / 8;
    row->absent_pages = row->memory_pages - row->private_pages - row->shared_pages -
                        row->balloon_pages - row->paged_pages;
    row->swap_reserved_pages = row->max_pages - row->min_pages;
    row->swap_in_pages = ms;
    row->swap_out_pages = 2 * ms;
    row->granted_total_pages = 5 * ms;
    row->released_total_pages = 5 * ms - row->allocated_pages;
    row->instructions = UINT64_C(1000000) * ms;
    row->vcpu_run_ns = row->age_ns = UINT64_C(1000000) * ms;
    row->vcpu_wait_ns = UINT64_C(12345) * ms;
    row->traps = row->sbi_calls = row->mmio_accesses = 10 * ms;
    row->shadow_fills = row->shadow_drops = 100 * ms;
    row->disk_read_bytes = row->disk_write_bytes = 4096 * ms;
    row->overhead = (struct vm_overhead){1 << 16, 9 << 20, 1 << 18, 5 << 20, 15 << 20, 16 << 20};
    for (unsigned tag = 0; tag < 16; tag++)
        row->balloon_stats[tag] = tag < 4 ? 1000 * ms : (uint64_t)(tag + 20) << 20;
}

void supervisor_vm_row(struct supervisor *supervisor, struct vm *vm, struct vm_row *row)
{
    *row = (struct vm_row){
        .name = vm->name,
        .state = vm->state,
        .valid = VM_ROW_WORKER | VM_ROW_BALLOON | VM_ROW_ACTIVE | VM_ROW_TOUCHED |
                 (vm->manual ? VM_ROW_MANUAL_TARGET : 0u) |
                 (vm->idle_tax_percent < 0 ? 0u : VM_ROW_IDLE_TAX),
        .idle_tax_percent = (uint32_t)vm->idle_tax_percent,
        .pid = 4711,
        .memory_pages = vm->memory_pages,
        .min_pages = vm->min_pages,
        .max_pages = vm->max_pages,
        .shares = vm->shares,
        .target_pages = vm->manual        ? vm->manual_pages
                        : vm->given_pages ? vm->given_pages
                                          : vm->max_pages,
        .manual_target_pages = vm->manual_pages,
        .absent_pages = vm->memory_pages,
        .balloon_driver = true,
    };
    row->sharing = true;
    if (fake_has_twins(supervisor) && strncmp(vm->name, "twin-", 5) == 0) {
        row->valid |= VM_ROW_DOMAIN;
        strcpy(row->sharing_domain, "twins");
        row->shared_references = row->shared_pages = row->shared_saved_pages = 1;
    }
    for (unsigned tag = 0; tag < 16; tag++)
        row->balloon_stats[tag] = tag == 4 ? 100u << 20 : tag == 5 ? 240u << 20 : UINT64_MAX;
    if (is_busy(vm))
        fill_busy_row(row);
}

/* ---- events ---- */

struct supervisor_listener *supervisor_listen(struct supervisor *supervisor,
                                              supervisor_event_fn *fn, void *ctx)
{
    struct supervisor_listener *listener = calloc(1, sizeof *listener);
    if (listener) {
        *listener = (struct supervisor_listener){supervisor->listeners, fn, ctx};
        supervisor->listeners = listener;
    }
    return listener;
}

void supervisor_unlisten(struct supervisor *supervisor, struct supervisor_listener *listener)
{
    struct supervisor_listener **link = &supervisor->listeners;
    while (*link != listener)
        link = &(*link)->next;
    *link = listener->next;
    free(listener);
}

void fake_event(struct supervisor *supervisor, const char *vm, const char *kind, const char *text)
{
    struct supervisor_event event = {
        .time_ns = UINT64_C(1700000000000000000), .vm = vm, .kind = kind, .text = text};
    for (struct supervisor_listener *one = supervisor->listeners; one; one = one->next)
        one->fn(one->ctx, &event);
}
