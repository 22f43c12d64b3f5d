/*
 * Running: the hart's loop, sleeping in WFI, interrupts and the timer, pausing,
 * ending.
 *
 * A hart leaves guest code for one of the reasons of enum hart_exit; everything
 * that is done about them happens outside (memlock_leave), so that a pause or a
 * change of mappings never waits for it. Whoever wants a hart's attention
 * changes what the hart looks at, sets a bit of its attention word, then wakes
 * it: in that order, so that a hart about to sleep sees the change.
 */
#include "vmm-core/machine/machine_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Statistics are brought up to date at least this often: some 50 ms of a busy guest. */
#define SLICE_INSTRUCTIONS UINT64_C(10000000)
#define NS_PER_SECOND      UINT64_C(1000000000)

static struct timespec timespec_of_ns(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SECOND),
                             .tv_nsec = (long)(ns % NS_PER_SECOND)};
}

/* ---- Waking a hart ---- */

void machine_hart_wake(struct machine_hart *hart)
{
    pthread_mutex_lock(&hart->wake_lock);
    pthread_cond_signal(&hart->woken);
    pthread_mutex_unlock(&hart->wake_lock);
}

static void demand_attention(struct machine_hart *hart, uint32_t bits)
{
    atomic_fetch_or(hart_attention(hart->hart), bits);
    machine_hart_wake(hart);
}

void machine_hart_interrupt(void *context, unsigned hart_id, bool level)
{
    struct machine_hart *hart = &((struct machine *)context)->harts[hart_id];
    if (!level) {
        hart_clear_pending(hart->hart, IRQ_S_EXTERNAL);
        return;
    }
    hart_set_pending(hart->hart, IRQ_S_EXTERNAL);
    machine_hart_wake(hart);
}

/* ---- The timer ---- */

void machine_hart_arm(struct machine_hart *hart, uint64_t deadline_ticks)
{
    atomic_store(&hart->deadline_ticks, deadline_ticks);
    uint64_t host_ns = clock_host_deadline_ns(&hart->machine->clock, deadline_ticks);
    struct itimerspec due = {0}; /* all zero disarms */
    if (host_ns != CLOCK_NO_DEADLINE)
        due.it_value = timespec_of_ns(host_ns ? host_ns : 1);
    timerfd_settime(hart->timer_fd, TFD_TIMER_ABSTIME, &due, NULL);
}

static void timer_event(void *device, uint32_t events)
{
    struct machine_hart *hart = device;
    uint64_t expirations;
    (void)events;
    if (read(hart->timer_fd, &expirations, sizeof expirations) > 0)
        demand_attention(hart, ATTENTION_INTERRUPT);
}

/* ---- What the hart asks of the machine ---- */

static void env_lock(void *context)
{
    struct machine_hart *hart = context;
    memlock_lock(hart->machine->lock, hart->id);
}

static void env_unlock(void *context)
{
    struct machine_hart *hart = context;
    memlock_unlock(hart->machine->lock, hart->id);
}

static bool env_make_usable(void *context, ppn_t ppn, bool writable)
{
    struct machine_hart *hart = context;
    return gmem_make_usable(hart->machine->gmem, hart->id, ppn, writable);
}

static bool env_mmio_load(void *context, uint64_t pa, unsigned size, uint64_t *value)
{
    return bus_load(&((struct machine_hart *)context)->machine->bus, pa, size, value);
}

static bool env_mmio_store(void *context, uint64_t pa, unsigned size, uint64_t value)
{
    return bus_store(&((struct machine_hart *)context)->machine->bus, pa, size, value);
}

static void env_safe_point(void *context)
{
    struct machine_hart *hart = context;
    memlock_leave(hart->machine->lock, hart->id);
    memlock_enter(hart->machine->lock, hart->id);
}

static uint64_t env_time(void *context)
{
    return clock_ticks(&((struct machine_hart *)context)->machine->clock);
}

static void env_timer_arm(void *context, uint64_t deadline_ticks)
{
    machine_hart_arm(context, deadline_ticks);
}

int machine_hart_init(struct machine *machine, struct err *err)
{
    int id = (int)machine->hart_count;
    struct machine_hart *hart = &machine->harts[id];
    *hart = (struct machine_hart){.machine = machine, .id = id, .timer_fd = -1};
    atomic_init(&hart->deadline_ticks, CLOCK_NO_DEADLINE);
    pthread_mutex_init(&hart->wake_lock, NULL);
    pthread_cond_init(&hart->woken, NULL);
    machine->hart_count++; /* from here on machine_hart_destroy cleans up */

    struct hart_env env = {
        .ctx = hart,
        .lock = env_lock,
        .unlock = env_unlock,
        .make_usable = env_make_usable,
        .mmio_load = env_mmio_load,
        .mmio_store = env_mmio_store,
        .safe_point = env_safe_point,
        .time = env_time,
        .timer_arm = env_timer_arm,
    };
    hart->hart = hart_new(gmem_pmap(machine->gmem), &env, id);
    if (!hart->hart)
        return err_set(err, ENOMEM, "hart %d", id);
    hart_offer_sv48(hart->hart, machine->config.sv48);
    gmem_add_hart(machine->gmem, hart->hart, id);
    hart->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (hart->timer_fd < 0)
        return err_set(err, errno, "timer of hart %d", id);
    return device_thread_watch(machine->devices, hart->timer_fd, EPOLLIN, timer_event, hart, err);
}

void machine_hart_destroy(struct machine_hart *hart)
{
    if (hart->timer_fd >= 0) {
        device_thread_unwatch(hart->machine->devices, hart->timer_fd);
        close(hart->timer_fd);
    }
    hart_free(hart->hart);
    pthread_cond_destroy(&hart->woken);
    pthread_mutex_destroy(&hart->wake_lock);
}

/* ---- The hart's loop ---- */

static void add_stat(_Atomic uint64_t *stat, uint64_t amount)
{
    atomic_fetch_add_explicit(stat, amount, memory_order_relaxed);
}

/* Sleep until an interrupt is pending, the timer is due, or the gate wants this thread. */
static void sleep_in_wfi(struct machine_hart *hart)
{
    struct machine *machine = hart->machine;
    uint64_t since_ns = clock_host_ns();
    uint64_t deadline_ns = clock_host_deadline_ns(&machine->clock, hart->deadline_ticks);
    pthread_mutex_lock(&hart->wake_lock);
    while (!hart_interrupt_ready(hart->hart) && !atomic_load(&machine->gate.pause_wanted) &&
           !atomic_load(&machine->gate.ended) && !atomic_load(&hart->dump_wanted)) {
        if (deadline_ns == CLOCK_NO_DEADLINE) {
            pthread_cond_wait(&hart->woken, &hart->wake_lock);
            continue;
        }
        struct timespec deadline = timespec_of_ns(deadline_ns);
        if (pthread_cond_clockwait(&hart->woken, &hart->wake_lock, CLOCK_MONOTONIC, &deadline))
            deadline_ns = CLOCK_NO_DEADLINE; /* passed; ready above, unless sie masks the timer */
    }
    pthread_mutex_unlock(&hart->wake_lock);
    atomic_fetch_or(hart_attention(hart->hart), ATTENTION_INTERRUPT); /* look at the timer */
    add_stat(&gmem_stats(machine->gmem)->vcpu_idle_ns, clock_host_ns() - since_ns);
}

static void set_stat(_Atomic uint64_t *stat, uint64_t value)
{
    atomic_store_explicit(stat, value, memory_order_relaxed);
}

static void update_stats(struct machine_hart *hart)
{
    struct vm_stats *stats = gmem_stats(hart->machine->gmem);
    struct hart_counts counts;
    struct shadow_counts shadow;
    hart_read_counts(hart->hart, &counts);
    shadow_read_counts(hart_shadow(hart->hart), &shadow);
    set_stat(&stats->instructions, counts.instructions);
    set_stat(&stats->traps, counts.traps + counts.interrupts);
    set_stat(&stats->mmio_accesses, counts.mmio_accesses);
    set_stat(&stats->blocks_decoded, counts.blocks_decoded);
    set_stat(&stats->blocks_dropped, counts.blocks_dropped);
    set_stat(&stats->shadow_fills, shadow.fills);
    set_stat(&stats->shadow_drops, shadow.drops_by_ppn);

    /* Processor time of this thread: no wait is in it, and nothing that other programs took. */
    uint64_t now_ns = clock_thread_ns();
    add_stat(&stats->vcpu_run_ns, now_ns - hart->thread_ns_seen);
    hart->thread_ns_seen = now_ns;
}

static enum hart_exit run_slice(struct machine_hart *hart)
{
    struct machine *machine = hart->machine;
    memlock_enter(machine->lock, hart->id);
    enum hart_exit why = hart_run(hart->hart, SLICE_INSTRUCTIONS);
    /* Before leaving: from then on others may drop this hart's mappings and blocks, and count it. */
    update_stats(hart);
    memlock_leave(machine->lock, hart->id);
    return why;
}

/* Until the machine ends. The exit bit is cleared before the gate is looked at: whoever sets it
 * has changed the gate before. */
static void hart_loop(struct machine_hart *hart)
{
    struct machine *machine = hart->machine;
    hart->thread_ns_seen = clock_thread_ns();
    for (;;) {
        atomic_fetch_and(hart_attention(hart->hart), ~ATTENTION_EXIT);
        if (!pause_gate_pass(&machine->gate))
            return;
        if (atomic_exchange(&hart->dump_wanted, false))
            machine_dump_hart(hart);
        switch (run_slice(hart)) {
        case HART_EXIT_SBI:
            add_stat(&gmem_stats(machine->gmem)->sbi_calls, 1);
            firmware_serve(hart);
            if (hart->suspend_wanted)
                sleep_in_wfi(hart);
            hart->suspend_wanted = false;
            break;
        case HART_EXIT_WFI:
            sleep_in_wfi(hart);
            break;
        case HART_EXIT_STOPPED:
            machine_set_end(machine, MACHINE_QUIT);
            return;
        case HART_EXIT_ATTENTION:
        case HART_EXIT_BUDGET:
            break;
        }
    }
}

/* ---- Ending and pausing ---- */

void machine_call_harts(struct machine *machine)
{
    for (unsigned i = 0; i < machine->hart_count; i++)
        if (machine->harts[i].hart)
            demand_attention(&machine->harts[i], ATTENTION_EXIT);
}

void machine_set_end(struct machine *machine, enum machine_end end)
{
    int runs = MACHINE_RUNS;
    if (!atomic_compare_exchange_strong(&machine->end, &runs, (int)end))
        return;
    pause_gate_end(&machine->gate);
    machine_call_harts(machine);
}

void machine_quit(struct machine *machine)
{
    machine_set_end(machine, MACHINE_QUIT);
    gmem_end_waits(machine->gmem);
}

void machine_park(void *context)
{
    pause_gate_pass(&((struct machine *)context)->gate);
}

void machine_set_paused(void *context, bool paused)
{
    struct machine *machine = context;
    if (paused) {
        pause_gate_want(&machine->gate);
        machine_call_harts(machine);
        device_thread_wake(machine->devices);
        pause_gate_wait_quiet(&machine->gate);
        clock_stop(&machine->clock);
        return;
    }
    clock_go(&machine->clock);
    for (unsigned i = 0; i < machine->hart_count; i++) /* the same ticks are later in host time */
        machine_hart_arm(&machine->harts[i], machine->harts[i].deadline_ticks);
    pause_gate_resume(&machine->gate);
}

static void tell_supervisor(struct machine *machine, enum machine_end end)
{
    char text[160];
    uint32_t code = atomic_load(&machine->fail_code);
    switch (end) {
    case MACHINE_POWEROFF:
        gmem_event(machine->gmem, WORKER_POWEROFF, 0, "the guest has powered off");
        break;
    case MACHINE_REBOOT:
        gmem_event(machine->gmem, WORKER_REBOOT, 0, "the guest asks for a reset");
        break;
    case MACHINE_FAILED:
        snprintf(text, sizeof text, "the guest reports failure %u", code);
        gmem_event(machine->gmem, WORKER_GUEST_FAULT, code, text);
        break;
    case MACHINE_QUIT:
        break;
    }
}

enum machine_end machine_run(struct machine *machine)
{
    struct err err;
    if (device_thread_start(machine->devices, &err)) {
        gmem_event(machine->gmem, WORKER_GUEST_FAULT, 0, err.text);
        return MACHINE_FAILED;
    }
    if (atomic_load(&machine->end) == MACHINE_RUNS)
        gmem_event(machine->gmem, WORKER_READY, 0, "the guest is loaded");
    hart_loop(&machine->harts[0]);
    enum machine_end end = (enum machine_end)atomic_load(&machine->end);
    tell_supervisor(machine, end);
    gmem_stop(machine->gmem);
    machine->gmem_started = false;
    device_thread_stop(machine->devices);
    return end;
}
