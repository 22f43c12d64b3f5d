/*
 * A VM's life. States and what moves them are one table; the worker's end is
 * one function (vm_on_exit), whatever caused it: power-off, crash, SIGKILL or
 * our own QUIT. Death goes in this order, and nothing is freed earlier:
 *   1. the pidfd says that the process, and with it all its I/O, has ended;
 *   2. its unread messages are drained;
 *   3. its outstanding requests are answered as stale;
 *   4. its references to shared frames are dropped and its own frames freed, by the
 *      supervisor's records alone;
 *   5. region, sockets and swap go; the record stays until it is destroyed or
 *      its name is used again, so that everyone can see how it ended.
 */
#include "daemon/size_text.h"
#include "daemon/supervisor_private.h"
#include "daemon/worker_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REBOOT_WINDOW_NS UINT64_C(10000000000)
#define REBOOTS_A_WINDOW 8u /* a guest that resets more often is stopped */

/* ---- life ---- */

static const struct {
    enum vm_life from;
    enum life_event event;
    enum vm_life to;
} transitions[] = {
    {LIFE_NEW, LIFE_EV_SPAWN, LIFE_STARTING},
    {LIFE_STARTING, LIFE_EV_READY, LIFE_RUNNING},
    {LIFE_PAUSED, LIFE_EV_READY, LIFE_PAUSED}, /* loaded while it was being paused */
    {LIFE_STARTING, LIFE_EV_PAUSED, LIFE_PAUSED},
    {LIFE_RUNNING, LIFE_EV_PAUSED, LIFE_PAUSED},
    {LIFE_PAUSED, LIFE_EV_RESUMED, LIFE_RUNNING},
    {LIFE_PAUSED, LIFE_EV_RESUMED_LOADING, LIFE_STARTING},
    {LIFE_STARTING, LIFE_EV_QUIT, LIFE_ENDING},
    {LIFE_RUNNING, LIFE_EV_QUIT, LIFE_ENDING},
    {LIFE_PAUSED, LIFE_EV_QUIT, LIFE_ENDING},
    {LIFE_STARTING, LIFE_EV_EXIT, LIFE_STOPPED},
    {LIFE_RUNNING, LIFE_EV_EXIT, LIFE_STOPPED},
    {LIFE_PAUSED, LIFE_EV_EXIT, LIFE_STOPPED},
    {LIFE_ENDING, LIFE_EV_EXIT, LIFE_STOPPED},
    {LIFE_STOPPED, LIFE_EV_SPAWN, LIFE_STARTING}, /* a guest's reset */
};

bool vm_move(struct vm *vm, enum life_event event)
{
    for (size_t i = 0; i < sizeof transitions / sizeof transitions[0]; i++) {
        if (transitions[i].from == vm->life && transitions[i].event == event) {
            vm->life = transitions[i].to;
            return true;
        }
    }
    return false;
}

const char *vm_state_name(const struct vm *vm)
{
    static const char *const names[LIFE_STATES] = {
        [LIFE_NEW] = "paused",    [LIFE_STARTING] = "starting", [LIFE_RUNNING] = "running",
        [LIFE_PAUSED] = "paused", [LIFE_ENDING] = "stopping",   [LIFE_STOPPED] = "stopped",
    };
    return names[vm->life];
}

const char *vm_name(const struct vm *vm)
{
    return vm->settings.name;
}

bool vm_has_worker(const struct vm *vm)
{
    return vm->region != NULL && vm->pid_fd >= 0;
}

/* ---- birth ---- */

static void copy_string(struct vm *vm, const char **field, bool *failed)
{
    if (*field) {
        *field = vm_arena_strdup(vm->arena, *field);
        *failed |= !*field;
    }
}

/* Our own copies of a terminal's descriptors: a guest's reset needs them again. */
static void copy_console(struct vm_console_settings *console, bool *failed)
{
    int *fds[] = {&console->in_fd, &console->out_fd};
    for (size_t i = 0; i < 2; i++) {
        if (*fds[i] < 0)
            continue;
        *fds[i] = fcntl(*fds[i], F_DUPFD_CLOEXEC, 0);
        *failed |= *fds[i] < 0;
    }
}

static void close_console(const struct vm_console_settings *console)
{
    if (console->in_fd >= 0)
        close(console->in_fd);
    if (console->out_fd >= 0)
        close(console->out_fd);
}

static struct vm *vm_new(struct supervisor *supervisor, const struct vm_settings *settings,
                         struct err *err)
{
    uint16_t number = 1;
    while (number <= MAX_VMS && supervisor->by_number[number])
        number++;
    if (number > MAX_VMS) {
        err_set(err, 0, "VM %s: the host has %d VMs, its limit", settings->name, MAX_VMS);
        return NULL;
    }
    unsigned arena;
    if (vm_arena_new(&arena, err) < 0)
        return NULL;
    struct vm *vm = vm_arena_alloc(arena, sizeof *vm);
    bool failed = !vm;
    if (vm) {
        vm->supervisor = supervisor;
        vm->arena = arena;
        vm->settings = *settings;
        copy_string(vm, &vm->settings.name, &failed);
        copy_string(vm, &vm->settings.kernel, &failed);
        copy_string(vm, &vm->settings.initrd, &failed);
        copy_string(vm, &vm->settings.append, &failed);
        copy_string(vm, &vm->settings.sharing_domain, &failed);
        for (unsigned i = 0; i < settings->disk_count; i++)
            copy_string(vm, &vm->settings.disks[i].path, &failed);
    }
    if (vm && settings->terminal) {
        copy_console(&vm->settings.uart, &failed);
        copy_console(&vm->settings.virtcon, &failed);
    }
    if (failed) {
        if (vm && settings->terminal) {
            close_console(&vm->settings.uart);
            close_console(&vm->settings.virtcon);
        }
        vm_arena_free(arena);
        err_set(err, ENOMEM, "VM %s", settings->name);
        return NULL;
    }
    vm->number = number;
    vm->id = ++supervisor->next_id;
    vm->life = LIFE_NEW;
    vm->pid_fd = vm->region_fd = vm->kick_fd = vm->notify_fd = -1;
    vm->swap_fd = vm->stderr_fd = -1;
    vm->log_fd[0] = vm->log_fd[1] = -1;
    vm->created_ns = clock_monotonic_ns();
    vm->memory_pages = settings->memory_bytes / PAGE_BYTES;
    vm->max_pages = vm->target_pages = vm->memory_pages;
    vm->min_pages =
        (settings->min_bytes ? settings->min_bytes : settings->memory_bytes / 2) / PAGE_BYTES;
    vm->shares = settings->shares ? settings->shares
                                  : (uint32_t)(settings->memory_bytes / (1024 * 1024) * 10);
    vm->idle_tax_percent = settings->idle_tax_percent;
    vm->swap_slots = (uint32_t)(vm->max_pages - vm->min_pages);
    vm->overhead.charged_bytes = supervisor->config.overhead_bytes;
    vm_frames_reset(vm);
    if (sharing_vm_new(vm, err) < 0) {
        if (settings->terminal) {
            close_console(&vm->settings.uart);
            close_console(&vm->settings.virtcon);
        }
        vm_arena_free(arena);
        return NULL;
    }
    supervisor->by_number[number] = vm;
    TAILQ_INSERT_TAIL(&supervisor->vms, vm, entry);
    return vm;
}

void vm_free(struct vm *vm)
{
    struct supervisor *supervisor = vm->supervisor;
    watch_vm_gone(vm);
    TAILQ_REMOVE(&supervisor->vms, vm, entry);
    supervisor->by_number[vm->number] = NULL;
    sharing_vm_free(vm);
    if (vm->settings.terminal) {
        close_console(&vm->settings.uart);
        close_console(&vm->settings.virtcon);
    }
    vm_arena_free(vm->arena); /* and with it vm */
}

static int vm_start(struct vm *vm, struct err *err)
{
    if (worker_start(vm, err) < 0)
        return -1;
    vm_move(vm, LIFE_EV_SPAWN);
    sharing_vm_start(vm);
    vm->exit_text[0] = 0;
    policy_soon(vm->supervisor, TRIGGER_VM_ADDED);
    return 0;
}

struct vm *supervisor_create_vm(struct supervisor *supervisor, const struct vm_settings *settings,
                                struct err *err)
{
    if (supervisor->quitting) {
        err_set(err, 0, "the host is shutting down");
        return NULL;
    }
    if (admission_check_sizes(supervisor, settings, err) < 0 ||
        admission_check_files(settings, err) < 0)
        return NULL;
    struct vm *old = supervisor_find_vm(supervisor, settings->name);
    if (old && old->life != LIFE_STOPPED) {
        err_set(err, 0, "VM %s exists and is %s", settings->name, vm_state_name(old));
        return NULL;
    }
    uint64_t min_bytes = settings->min_bytes ? settings->min_bytes : settings->memory_bytes / 2;
    if (admission_check_memory(supervisor, settings->name, min_bytes / PAGE_BYTES,
                               supervisor->config.overhead_bytes, NULL, err) < 0)
        return NULL;
    struct vm *vm = vm_new(supervisor, settings, err);
    if (!vm)
        return NULL;
    if ((!settings->terminal && vm_folder_make(vm, err) < 0) || swap_reserve(vm, err) < 0 ||
        (!settings->no_start && vm_start(vm, err) < 0)) {
        swap_release(vm);
        vm_free(vm);
        return NULL;
    }
    if (old)
        vm_free(old);
    char memory[32], min[32];
    event_tell(supervisor, vm, EVENT_VM_CREATED, "memory %s, min %s, %u shares",
               size_format(vm->memory_pages * PAGE_BYTES, memory),
               size_format(vm->min_pages * PAGE_BYTES, min), vm->shares);
    return vm;
}

struct vm *supervisor_find_vm(struct supervisor *supervisor, const char *name)
{
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!strcmp(vm->settings.name, name))
            return vm;
    }
    return NULL;
}

struct vm *supervisor_first_vm(struct supervisor *supervisor)
{
    return TAILQ_FIRST(&supervisor->vms);
}

struct vm *supervisor_next_vm(struct supervisor *supervisor, struct vm *vm)
{
    (void)supervisor;
    return TAILQ_NEXT(vm, entry);
}

void vm_ready(struct vm *vm)
{
    if (vm->loaded || !vm_move(vm, LIFE_EV_READY))
        return;
    vm->loaded = true;
    event_tell(vm->supervisor, vm, EVENT_VM_RUNNING, "the guest is loaded");
    check_vm_settled(vm->supervisor);
}

/* ---- pause and resume ---- */

static void on_pause_answer(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx)
{
    (void)value;
    (void)ctx;
    struct err err;
    vm->life_pending = false;
    if (fate == ANSWER_STALE || !vm_move(vm, LIFE_EV_PAUSED)) {
        err_set(&err, 0, "VM %s ended before it was paused", vm->settings.name);
        complete(vm->supervisor, &vm->life_waiter, &err);
    } else {
        event_tell(vm->supervisor, vm, EVENT_VM_PAUSED, "paused");
        complete(vm->supervisor, &vm->life_waiter, NULL);
    }
    check_vm_settled(vm->supervisor);
}

static void on_resume_answer(struct vm *vm, enum answer_fate fate, uint64_t value, void *ctx)
{
    (void)value;
    (void)ctx;
    struct err err;
    vm->life_pending = false;
    if (fate == ANSWER_STALE ||
        !vm_move(vm, vm->loaded ? LIFE_EV_RESUMED : LIFE_EV_RESUMED_LOADING)) {
        err_set(&err, 0, "VM %s ended before it was resumed", vm->settings.name);
        complete(vm->supervisor, &vm->life_waiter, &err);
    } else {
        event_tell(vm->supervisor, vm, EVENT_VM_RESUMED, "resumed");
        complete(vm->supervisor, &vm->life_waiter, NULL);
        policy_soon(vm->supervisor, TRIGGER_VM_ADDED);
    }
    check_vm_settled(vm->supervisor);
}

/* Ask for a pause or resume, unless something else is under way with this VM. */
static int change_life(struct vm *vm, enum ring_type type, request_answer_fn *answer,
                       supervisor_done_fn *done, void *ctx, struct err *err)
{
    if (vm->life_pending)
        return err_set(err, EBUSY, "VM %s is being paused or resumed", vm->settings.name);
    if (vm->supervisor->grants_held)
        return err_set(err, EBUSY, "VM %s is being checked", vm->settings.name);
    if (request_new(vm, type, 0, answer, NULL, err) < 0)
        return -1;
    vm->life_pending = true;
    vm->life_waiter = (struct waiter){done, ctx};
    message_kick(vm);
    return 0;
}

int supervisor_pause_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                        void *ctx, struct err *err)
{
    switch (vm->life) {
    case LIFE_NEW:
        complete(supervisor, &(struct waiter){done, ctx}, NULL);
        return 0;
    case LIFE_PAUSED:
        if (!vm->life_pending) {
            complete(supervisor, &(struct waiter){done, ctx}, NULL);
            return 0;
        }
        return change_life(vm, RING_PAUSE, on_pause_answer, done, ctx, err);
    case LIFE_STARTING:
    case LIFE_RUNNING:
        return change_life(vm, RING_PAUSE, on_pause_answer, done, ctx, err);
    default:
        return err_set(err, 0, "VM %s is %s", vm->settings.name, vm_state_name(vm));
    }
}

int supervisor_resume_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                         void *ctx, struct err *err)
{
    switch (vm->life) {
    case LIFE_NEW:
        if (supervisor->quitting)
            return err_set(err, 0, "the host is shutting down");
        if (vm_start(vm, err) < 0)
            return -1;
        complete(supervisor, &(struct waiter){done, ctx}, NULL);
        return 0;
    case LIFE_STARTING:
    case LIFE_RUNNING:
        if (!vm->life_pending) {
            complete(supervisor, &(struct waiter){done, ctx}, NULL);
            return 0;
        }
        return change_life(vm, RING_RESUME, on_resume_answer, done, ctx, err);
    case LIFE_PAUSED:
        return change_life(vm, RING_RESUME, on_resume_answer, done, ctx, err);
    default:
        return err_set(err, 0, "VM %s is %s", vm->settings.name, vm_state_name(vm));
    }
}

/* ---- end ---- */

static int on_quit_deadline(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)source;
    (void)time_us;
    worker_signal(ctx, SIGKILL);
    return 0;
}

/* Tell the worker to end; kill it if it has not within the grace. */
static void vm_quit(struct vm *vm)
{
    if (!vm_has_worker(vm) || vm->life == LIFE_ENDING)
        return;
    struct ring_message message = {.type = RING_QUIT};
    bool asked = message_put(vm, &message) == RING_OK;
    message_kick(vm);
    vm_move(vm, LIFE_EV_QUIT);
    int result =
        sd_event_add_time_relative(vm->supervisor->event, &vm->deadline_source, CLOCK_MONOTONIC,
                                   QUIT_GRACE_US, 0, on_quit_deadline, vm);
    if (!asked || result < 0)
        worker_signal(vm, SIGKILL);
}

void vm_kill(struct vm *vm, enum event_kind kind, const char *why)
{
    if (vm->life == LIFE_ENDING || !vm_has_worker(vm))
        return;
    vm_move(vm, LIFE_EV_QUIT);
    snprintf(vm->last_words, sizeof vm->last_words, "%s", why);
    event_tell(vm->supervisor, vm, kind, "%s; the VM is killed", why);
    worker_signal(vm, SIGKILL);
}

int supervisor_destroy_vm(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                          void *ctx, struct err *err)
{
    if (vm->destroying)
        return err_set(err, EBUSY, "VM %s is being destroyed", vm->settings.name);
    vm->destroying = true;
    vm->destroy_waiter = (struct waiter){done, ctx};
    if (vm_has_worker(vm)) {
        vm_quit(vm);
        return 0;
    }
    complete(supervisor, &vm->destroy_waiter, NULL);
    swap_release(vm);
    event_tell(supervisor, vm, EVENT_VM_DESTROYED, "destroyed");
    vm_free(vm);
    policy_soon(supervisor, TRIGGER_VM_GONE);
    supervisor_vm_gone(supervisor);
    return 0;
}

/* How it ended, for people. Returns true when the guest asked to be started again. */
static bool describe_exit(struct vm *vm, const siginfo_t *how)
{
    vm->exit_clean = false;
    if (how->si_code != CLD_EXITED) {
        snprintf(vm->exit_text, sizeof vm->exit_text, "worker killed by signal %d (%s)%s%s",
                 how->si_status, strsignal(how->si_status), vm->last_words[0] ? ": " : "",
                 vm->last_words);
        return false;
    }
    switch (how->si_status) {
    case WORKER_EXIT_POWEROFF:
        vm->exit_clean = true;
        snprintf(vm->exit_text, sizeof vm->exit_text, "the guest powered off");
        return false;
    case WORKER_EXIT_REBOOT: /* an end only if it may not start again, which is not what it wants */
        snprintf(vm->exit_text, sizeof vm->exit_text, "the guest asked for a reset");
        return true;
    case WORKER_EXIT_FAILED:
        snprintf(vm->exit_text, sizeof vm->exit_text, "the guest reported a failure");
        return false;
    case WORKER_EXIT_QUIT:
        vm->exit_clean = true;
        snprintf(vm->exit_text, sizeof vm->exit_text, "ended by the supervisor");
        return false;
    default:
        if (vm->last_words[0]) /* what it said is better than what we could say */
            memcpy(vm->exit_text, vm->last_words, sizeof vm->exit_text);
        else
            snprintf(vm->exit_text, sizeof vm->exit_text, "worker failed with status %d",
                     how->si_status);
        return false;
    }
}

static bool may_reset(struct vm *vm)
{
    if (vm->destroying || vm->supervisor->quitting || vm->supervisor->config.no_reboot)
        return false;
    uint64_t now_ns = clock_monotonic_ns();
    if (now_ns - vm->reboot_window_ns > REBOOT_WINDOW_NS) {
        vm->reboot_window_ns = now_ns;
        vm->reboots = 0;
    }
    if (vm->reboots++ < REBOOTS_A_WINDOW)
        return true;
    vm->exit_clean = false;
    snprintf(vm->exit_text, sizeof vm->exit_text, "the guest resets again and again");
    return false;
}

static void free_frames(struct vm *vm)
{
    sharing_vm_gone(vm);
    uint64_t freed = machine_memory_give_back_all(vm->supervisor->machine, vm->number);
    vm->released_total_pages += freed;
    vm->held_pages = 0;
    vm_frames_reset(vm);
}

int vm_on_exit(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)source;
    (void)events;
    struct vm *vm = ctx;
    struct supervisor *supervisor = vm->supervisor;
    siginfo_t how = {0};
    if (waitid(P_PIDFD, (id_t)fd, &how, WEXITED | WNOHANG) < 0 || how.si_pid == 0)
        return 0;

    messages_drain(vm, RING_SLOTS);
    bool reset = describe_exit(vm, &how);
    vm_move(vm, LIFE_EV_EXIT);
    requests_stale(vm);
    free_frames(vm);
    worker_clear(vm);

    struct err err;
    bool again = reset && may_reset(vm);
    if (again && vm_start(vm, &err) < 0) {
        again = false;
        vm->exit_clean = false;
        snprintf(vm->exit_text, sizeof vm->exit_text, "reset failed: %.140s", err.text);
    }
    if (again) {
        event_tell(supervisor, vm, EVENT_VM_REBOOT, "the guest asked for a reset");
    } else {
        swap_release(vm);
        event_tell(supervisor, vm, EVENT_VM_STOPPED, "%s", vm->exit_text);
        if (vm->destroying) {
            event_tell(supervisor, vm, EVENT_VM_DESTROYED, "destroyed");
            complete(supervisor, &vm->destroy_waiter, NULL);
            vm_free(vm);
        }
    }
    check_vm_settled(supervisor);
    grants_serve_all(supervisor);
    policy_soon(supervisor, TRIGGER_VM_GONE);
    supervisor_vm_gone(supervisor);
    return 0;
}

/* ---- quitting the host ---- */

int supervisor_quit(struct supervisor *supervisor, supervisor_done_fn *done, void *ctx,
                    struct err *err)
{
    if (supervisor->quitting)
        return err_set(err, EBUSY, "the host is shutting down already");
    supervisor->quitting = true;
    supervisor->quit_waiter = (struct waiter){done, ctx};
    check_abandon(supervisor);
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    vm_quit(vm);
    supervisor_vm_gone(supervisor);
    return 0;
}
