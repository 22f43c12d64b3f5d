/*
 * The host: its birth and end, its settings, its row, and completions. A
 * completion is queued and called from the next turn of the event loop, so that
 * no caller is ever called back in the middle of its own call.
 */
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/size_text.h"

#define MIN_MACHINE_BYTES (UINT64_C(16) << 20)
#define MAX_MACHINE_BYTES (UINT64_C(1) << 40)
#define MIN_PERIOD_MS     100u
#define MAX_PERIOD_MS     600000u
#define EMERGENCY_DIVISOR 512u /* of machine memory kept for VMs below their min */
#define EMERGENCY_MIN     16u

uint64_t clock_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void supervisor_config_default(struct supervisor_config *config)
{
    *config = (struct supervisor_config){
        .machine_bytes = UINT64_C(1) << 30,
        .run_dir = "/run/ballast",
        .policy = "proportional",
        .period_ms = 2000,
        .overhead_bytes = UINT64_C(16) << 20,
        .sharing = {.enabled = true,
                    .min_pages_per_second = 50,
                    .max_pages_per_second = 100000,
                    .cpu_percent = 2,
                    .pass_ms = 2000,
                    .settled_only = true},
    };
    policy_settings_default(&config->settings);
    sampling_settings_default(&config->sampling);
    watch_settings_default(&config->watch);
}

void vm_settings_default(struct vm_settings *settings)
{
    /* A guest that gives too much gets it back before it kills its own processes. */
    *settings = (struct vm_settings){.deflate_on_oom = true,
                                     .idle_tax_percent = IDLE_TAX_OF_HOST,
                                     .uart = {-1, -1},
                                     .virtcon = {-1, -1}};
}

/* ---- completions ---- */

static int on_completions(sd_event_source *source, void *ctx)
{
    (void)source;
    struct supervisor *supervisor = ctx;
    struct completion_list now = STAILQ_HEAD_INITIALIZER(now);
    STAILQ_CONCAT(&now, &supervisor->completions);
    struct completion *completion;
    while ((completion = STAILQ_FIRST(&now))) {
        STAILQ_REMOVE_HEAD(&now, entry);
        completion->waiter.done(completion->waiter.ctx, completion->result, &completion->err);
        free(completion);
    }
    if (!STAILQ_EMPTY(&supervisor->completions))
        sd_event_source_set_enabled(supervisor->completion_source, SD_EVENT_ONESHOT);
    return 0;
}

void complete(struct supervisor *supervisor, struct waiter *waiter, const struct err *err)
{
    struct waiter called = *waiter;
    *waiter = (struct waiter){0};
    if (!called.done)
        return;
    struct completion *completion = calloc(1, sizeof *completion);
    if (!completion) { /* better at the wrong moment than never */
        called.done(called.ctx, err ? -1 : 0, err ? err : &(struct err){0});
        return;
    }
    completion->waiter = called;
    completion->result = err ? -1 : 0;
    if (err)
        completion->err = *err;
    STAILQ_INSERT_TAIL(&supervisor->completions, completion, entry);
    sd_event_source_set_enabled(supervisor->completion_source, SD_EVENT_ONESHOT);
}

/* ---- birth ---- */

static int check_config(const struct supervisor_config *config, struct err *err)
{
    char text[32];
    if (config->machine_bytes < MIN_MACHINE_BYTES || config->machine_bytes > MAX_MACHINE_BYTES)
        return err_set(err, 0, "machine memory of %s; it must be 16 MiB to 1 TiB",
                       size_format(config->machine_bytes, text));
    if (config->machine_bytes % PAGE_BYTES)
        return err_set(err, 0, "machine memory of %llu bytes is not a multiple of 4096",
                       (unsigned long long)config->machine_bytes);
    if (config->period_ms < MIN_PERIOD_MS || config->period_ms > MAX_PERIOD_MS)
        return err_set(err, 0, "policy period of %u ms; it must be %u to %u", config->period_ms,
                       MIN_PERIOD_MS, MAX_PERIOD_MS);
    if (config->overhead_bytes > config->machine_bytes)
        return err_set(err, 0, "overhead of %s a VM is more than the machine has",
                       size_format(config->overhead_bytes, text));
    return 0;
}

static int copy_config(struct supervisor *supervisor, const struct supervisor_config *config,
                       struct err *err)
{
    supervisor->config = *config;
    supervisor->config.run_dir = config->run_dir ? strdup(config->run_dir) : NULL;
    supervisor->config.swap_dir = config->swap_dir ? strdup(config->swap_dir) : NULL;
    supervisor->config.worker_path = supervisor->config.policy = NULL;
    if ((config->run_dir && !supervisor->config.run_dir) ||
        (config->swap_dir && !supervisor->config.swap_dir))
        return err_set(err, ENOMEM, "host");
    supervisor->worker_path = worker_find(config->worker_path, err);
    return supervisor->worker_path ? 0 : -1;
}

/* Two daemons in one folder would remove each other's files. */
static int lock_run_dir(struct supervisor *supervisor, struct err *err)
{
    char path[300];
    if (!supervisor->config.run_dir)
        return 0;
    if (make_folder(supervisor->config.run_dir, err) < 0 ||
        (supervisor->config.swap_dir && make_folder(supervisor->config.swap_dir, err) < 0))
        return -1;
    /* Better now than at every VM's birth. */
    const char *swap_dir = supervisor->config.swap_dir;
    if (swap_dir && access(swap_dir, W_OK | X_OK) < 0)
        return err_set(err, errno, "swap folder %s", swap_dir);
    if (snprintf(path, sizeof path, "%s/lock", supervisor->config.run_dir) >= (int)sizeof path)
        return err_set(err, ENAMETOOLONG, "%s", supervisor->config.run_dir);
    supervisor->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (supervisor->lock_fd < 0)
        return err_set(err, errno, "%s", path);
    if (flock(supervisor->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, errno == EWOULDBLOCK ? 0 : errno,
                       "another Ballast host uses the folder %s", supervisor->config.run_dir);
    files_sweep(supervisor->config.run_dir, supervisor->config.swap_dir);
    return 0;
}

static int start_policy(struct supervisor *supervisor, const struct supervisor_config *config,
                        struct err *err)
{
    supervisor->settings = config->settings;
    if (policy_settings_check(&supervisor->settings, err) < 0 ||
        sampling_settings_check(&config->sampling, err) < 0 ||
        watch_settings_check(&config->watch, err) < 0)
        return -1;
    supervisor->policy = policy_find(config->policy);
    if (!supervisor->policy)
        return err_set(err, 0, "no policy is called '%.60s'", config->policy);
    supervisor->state = policy_state_new();
    supervisor->next_state = policy_state_new();
    supervisor->policy_rows = calloc(MAX_VMS, sizeof *supervisor->policy_rows);
    supervisor->policy_targets = calloc(MAX_VMS, sizeof *supervisor->policy_targets);
    if (!supervisor->state || !supervisor->next_state || !supervisor->policy_rows ||
        !supervisor->policy_targets)
        return err_set(err, ENOMEM, "policy");
    if (sampling_start(supervisor, err) < 0 || watch_start(supervisor, err) < 0)
        return -1;
    return policy_loop_start(supervisor, err);
}

static int start_host(struct supervisor *supervisor, const struct supervisor_config *config,
                      struct err *err)
{
    if (check_config(config, err) < 0 || copy_config(supervisor, config, err) < 0 ||
        lock_run_dir(supervisor, err) < 0)
        return -1;
    uint32_t pages = (uint32_t)(config->machine_bytes / PAGE_BYTES);
    if (pages == MAX_VM_PAGES) /* the zero frame's number must fit a pmap word too */
        pages--;
    supervisor->machine = machine_memory_new(pages, err);
    if (!supervisor->machine)
        return -1;
    supervisor->emergency_pages =
        pages / EMERGENCY_DIVISOR > EMERGENCY_MIN ? pages / EMERGENCY_DIVISOR : EMERGENCY_MIN;
    int result = sd_event_add_defer(supervisor->event, &supervisor->completion_source,
                                    on_completions, supervisor);
    if (result < 0)
        return err_set(err, -result, "event loop");
    sd_event_source_set_enabled(supervisor->completion_source, SD_EVENT_OFF);
    supervisor->sharing = sharing_new(supervisor, &config->sharing, err);
    if (!supervisor->sharing)
        return -1;
    return start_policy(supervisor, config, err);
}

struct supervisor *supervisor_new(const struct supervisor_config *config, sd_event *event,
                                  struct err *err)
{
    struct supervisor *supervisor = calloc(1, sizeof *supervisor);
    if (!supervisor) {
        err_set(err, ENOMEM, "host");
        return NULL;
    }
    supervisor->event = sd_event_ref(event);
    supervisor->lock_fd = -1;
    TAILQ_INIT(&supervisor->vms);
    TAILQ_INIT(&supervisor->listeners);
    STAILQ_INIT(&supervisor->completions);
    if (start_host(supervisor, config, err) < 0) {
        supervisor_free(supervisor);
        return NULL;
    }
    return supervisor;
}

/* ---- end ---- */

void supervisor_vm_gone(struct supervisor *supervisor)
{
    if (!supervisor->quitting)
        return;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm_has_worker(vm))
            return;
    }
    complete(supervisor, &supervisor->quit_waiter, NULL);
}

static void end_vm(struct vm *vm)
{
    if (vm->pid_fd >= 0) {
        worker_signal(vm, SIGKILL);
        waitid(P_PIDFD, (id_t)vm->pid_fd, &(siginfo_t){0}, WEXITED);
    }
    requests_stale(vm);
    worker_clear(vm);
    swap_release(vm);
    vm_free(vm);
}

void supervisor_free(struct supervisor *supervisor)
{
    if (!supervisor)
        return;
    supervisor->quitting = true;
    check_drop(supervisor);
    struct vm *vm;
    while ((vm = TAILQ_FIRST(&supervisor->vms)))
        end_vm(vm);
    sharing_free(supervisor->sharing);
    policy_loop_stop(supervisor);
    sampling_stop(supervisor);
    watch_stop(supervisor);
    sd_event_source_disable_unref(supervisor->completion_source);
    struct completion *completion;
    while ((completion = STAILQ_FIRST(&supervisor->completions))) {
        STAILQ_REMOVE_HEAD(&supervisor->completions, entry);
        free(completion);
    }
    struct supervisor_listener *listener;
    while ((listener = TAILQ_FIRST(&supervisor->listeners))) {
        TAILQ_REMOVE(&supervisor->listeners, listener, entry);
        free(listener);
    }
    decisions_free(supervisor);
    policy_state_free(supervisor->state);
    policy_state_free(supervisor->next_state);
    free(supervisor->policy_rows);
    free(supervisor->policy_targets);
    machine_memory_free(supervisor->machine);
    if (supervisor->lock_fd >= 0)
        close(supervisor->lock_fd);
    free(supervisor->worker_path);
    free((char *)supervisor->config.run_dir);
    free((char *)supervisor->config.swap_dir);
    sd_event_unref(supervisor->event);
    free(supervisor);
}

/* ---- the host's row ---- */

void supervisor_host_row(struct supervisor *supervisor, struct host_row *row)
{
    struct machine_counts counts = machine_memory_counts(supervisor->machine);
    *row = (struct host_row){
        .time_ns = clock_monotonic_ns(),
        .machine_pages = machine_memory_pages(supervisor->machine),
        .free_pages = counts.free_pages,
        .granted_pages = counts.private_pages,
        .shared_pages = counts.shared_pages,
        .emergency_pages = supervisor->emergency_pages,
        .reserved_pages = admission_reserved_pages(supervisor, NULL),
        .state = host_state_name(supervisor->host_state),
        .policy = policy_name(supervisor->policy),
        .policy_active =
            supervisor->decided_by[0] ? supervisor->decided_by : policy_name(supervisor->policy),
        .period_ms = supervisor->config.period_ms,
        .settings = supervisor->settings,
        .sampling = supervisor->config.sampling,
        .policy_trigger = policy_trigger_name(supervisor->trigger),
        .policy_runs = supervisor->policy_runs,
        .decisions = supervisor->decisions,
        .state_changes = supervisor->state_changes,
        .events_suppressed = supervisor->events_suppressed,
    };
    for (enum host_state state = HOST_HIGH; state < HOST_STATES; state++)
        row->threshold_pages[state] =
            host_state_threshold_pages(state, row->machine_pages, &supervisor->settings.thresholds);
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!vm_is_charged(vm))
            continue;
        overhead_measure(vm);
        row->vms++;
        row->configured_pages += vm->memory_pages;
        row->overhead_bytes += vm->overhead.total_bytes;
        if (vm->swap_fd >= 0)
            row->swap_reserved_bytes += (uint64_t)vm->swap_slots * PAGE_BYTES;
    }
    row->has_external = external_row(supervisor->external, &row->external);
    sharing_fill_host_row(supervisor, row);
    watch_fill_row(supervisor, row);
    row->overcommit_ratio = (double)row->configured_pages / (double)row->machine_pages;
    overcommit_look(supervisor);
    row->overcommit_1m = supervisor->overcommit[0];
    row->overcommit_5m = supervisor->overcommit[1];
    row->overcommit_15m = supervisor->overcommit[2];
}

/* ---- settings ---- */

int supervisor_set_policy(struct supervisor *supervisor, const char *name, struct err *err)
{
    const struct policy *policy = policy_find(name);
    if (!policy)
        return err_set(err, 0, "no policy is called '%.60s'", name);
    supervisor->policy = policy;
    event_tell(supervisor, NULL, EVENT_SETTING, "policy %s", policy_name(policy));
    policy_soon(supervisor, TRIGGER_HOST_SETTING);
    return 0;
}

struct external_policy *supervisor_external(struct supervisor *supervisor)
{
    return supervisor->external;
}

int supervisor_set_period(struct supervisor *supervisor, uint32_t period_ms, struct err *err)
{
    if (period_ms < MIN_PERIOD_MS || period_ms > MAX_PERIOD_MS)
        return err_set(err, 0, "policy period of %u ms; it must be %u to %u", period_ms,
                       MIN_PERIOD_MS, MAX_PERIOD_MS);
    supervisor->config.period_ms = period_ms;
    event_tell(supervisor, NULL, EVENT_SETTING, "policy period %u ms", period_ms);
    policy_soon(supervisor, TRIGGER_HOST_SETTING);
    return 0;
}

int supervisor_set_settings(struct supervisor *supervisor, const struct policy_settings *settings,
                            struct err *err)
{
    if (policy_settings_check(settings, err) < 0 ||
        admission_check_settings(supervisor, settings, err) < 0)
        return -1;
    supervisor->settings = *settings;
    event_tell(supervisor, NULL, EVENT_SETTING, "settings of the policy changed");
    policy_soon(supervisor, TRIGGER_HOST_SETTING);
    return 0;
}

int supervisor_set_shares(struct supervisor *supervisor, struct vm *vm, uint32_t shares,
                          struct err *err)
{
    if (shares < 1 || shares > SHARES_MAX)
        return err_set(err, 0, "VM %s: %u shares; it must be 1 to %u", vm->settings.name, shares,
                       SHARES_MAX);
    vm->shares = shares;
    event_tell(supervisor, vm, EVENT_SETTING, "%u shares", shares);
    policy_soon(supervisor, TRIGGER_VM_SETTING);
    return 0;
}

int supervisor_set_vm_idle_tax(struct supervisor *supervisor, struct vm *vm, int percent,
                               struct err *err)
{
    if (percent != IDLE_TAX_OF_HOST && (percent < 0 || percent > 99))
        return err_set(err, 0, "VM %s: idle memory tax of %d %%; it must be 0 to 99",
                       vm->settings.name, percent);
    vm->idle_tax_percent = percent;
    if (percent == IDLE_TAX_OF_HOST)
        event_tell(supervisor, vm, EVENT_SETTING, "idle memory tax of the host");
    else
        event_tell(supervisor, vm, EVENT_SETTING, "idle memory tax %d %%", percent);
    policy_soon(supervisor, TRIGGER_VM_SETTING);
    return 0;
}

int supervisor_set_min_max(struct supervisor *supervisor, struct vm *vm, uint64_t min_bytes,
                           uint64_t max_bytes, struct err *err)
{
    const char *name = vm->settings.name;
    uint64_t min_pages = min_bytes == ~UINT64_C(0) ? vm->min_pages : min_bytes / PAGE_BYTES;
    uint64_t max_pages = max_bytes == ~UINT64_C(0) ? vm->max_pages : max_bytes / PAGE_BYTES;
    char a[32], b[32];
    if (min_pages > max_pages || max_pages > vm->memory_pages || max_pages == 0)
        return err_set(err, 0, "VM %s: min %s and max %s; it must be min <= max <= memory", name,
                       size_format(min_pages * PAGE_BYTES, a),
                       size_format(max_pages * PAGE_BYTES, b));
    if (vm->memory_pages - min_pages > vm->swap_slots)
        return err_set(err, 0, "VM %s: min cannot go below %s, since its swap file has %s", name,
                       size_format((vm->memory_pages - vm->swap_slots) * PAGE_BYTES, a),
                       size_format((uint64_t)vm->swap_slots * PAGE_BYTES, b));
    if (vm_is_charged(vm) && min_pages > vm->min_pages &&
        admission_check_memory(supervisor, name, min_pages, vm->overhead.charged_bytes, vm, err) <
            0)
        return -1;
    vm->min_pages = min_pages;
    vm->max_pages = max_pages;
    event_tell(supervisor, vm, EVENT_SETTING, "min %s, max %s",
               size_format(min_pages * PAGE_BYTES, a), size_format(max_pages * PAGE_BYTES, b));
    policy_soon(supervisor, TRIGGER_VM_SETTING);
    return 0;
}

int supervisor_set_target(struct supervisor *supervisor, struct vm *vm, uint64_t target_bytes,
                          struct err *err)
{
    char text[32], min[32];
    if (target_bytes / PAGE_BYTES > vm->memory_pages)
        return err_set(err, 0, "VM %s: target of %s is above its memory", vm->settings.name,
                       size_format(target_bytes, text));
    if (target_bytes / PAGE_BYTES < vm->min_pages)
        return err_set(err, 0, "VM %s: target of %s is below its min of %s", vm->settings.name,
                       size_format(target_bytes, text),
                       size_format(vm->min_pages * PAGE_BYTES, min));
    vm->has_manual_target = true;
    vm->manual_target_pages = target_bytes / PAGE_BYTES;
    event_tell(supervisor, vm, EVENT_SETTING, "manual target %s", size_format(target_bytes, text));
    policy_soon(supervisor, TRIGGER_VM_SETTING);
    return 0;
}

int supervisor_clear_target(struct supervisor *supervisor, struct vm *vm, struct err *err)
{
    (void)err;
    vm->has_manual_target = false;
    event_tell(supervisor, vm, EVENT_SETTING, "no manual target");
    policy_soon(supervisor, TRIGGER_VM_SETTING);
    return 0;
}
