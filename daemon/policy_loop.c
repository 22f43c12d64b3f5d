/*
 * The policy loop: rows of statistics -> the pure policy -> targets -> messages.
 * It runs
 *   - every period_ms, or sooner when the policy asks for it (reclaim goes on);
 *   - when free memory crosses a threshold of the host's state, either way, so
 *     that growth between two periods cannot run the host out;
 *   - for every other reason of policy_trigger.h,
 * but never more often than every POLICY_MIN_GAP_US; reasons that come together
 * make one round.
 *
 * Rows hold what the supervisor knows itself (frames held, min, max) and what
 * workers count (balloon, paged), bounded, since a lying worker must not make the
 * policy refuse more than its own row.
 */
#include "daemon/supervisor_private.h"

#include <inttypes.h>
#include <string.h>

#define STAT_FREE_MEMORY      4u /* virtio 1.2, 5.5.6.4 */
#define STAT_AVAILABLE_MEMORY 6u
#define KEEP_POOL_PAGES       32u /* of a pool when the host is short */

static uint64_t stat_pages(const struct vm *vm, enum page_state state)
{
    return vm_stat(vm, &vm->region->stats.pages.pages_in[state], vm->memory_pages);
}

/* A balloon statistic in pages; false when the guest does not report it. */
static bool guest_pages(const struct vm *vm, unsigned tag, uint64_t *pages)
{
    uint64_t bytes = vm_stat(vm, &vm->region->stats.balloon_stats[tag], UINT64_MAX);
    *pages = bytes / PAGE_BYTES < vm->memory_pages ? bytes / PAGE_BYTES : vm->memory_pages;
    return bytes != UINT64_MAX;
}

static struct policy_vm make_row(const struct vm *vm)
{
    const struct vm_stats *stats = &vm->region->stats;
    bool driver = atomic_load_explicit(&stats->balloon_driver, memory_order_relaxed) != 0;
    struct policy_vm row = {
        .id = vm->id,
        .valid = POLICY_HAS_BALLOON | POLICY_HAS_PAGED | POLICY_HAS_ABSENT,
        .can = POLICY_CAN_BLOCK,
        .shares = vm->shares,
        .memory_pages = vm->memory_pages,
        .min_pages = vm->min_pages,
        .max_pages = vm->max_pages,
        .allocated_pages = vm_allocated_pages(vm),
        .page_out_pending_pages = vm->page_out_owed_pages + vm->page_out_asked_pages,
        .balloon_pages = stat_pages(vm, PAGE_BALLOONED),
        .paged_pages = stat_pages(vm, PAGE_PAGED),
        .absent_pages = stat_pages(vm, PAGE_ABSENT),
    };
    if (driver && vm->life == LIFE_RUNNING)
        row.can |= POLICY_CAN_BALLOON;
    /* A worker tries only when asked: one that failed is asked again now and then. */
    if (vm->swap_slots && (!vm->swap_failing || clock_monotonic_ns() >= vm->swap_retry_ns))
        row.can |= POLICY_CAN_PAGE_OUT;
    if (vm->has_manual_target) {
        row.valid |= POLICY_HAS_MANUAL_TARGET;
        row.manual_target_pages = vm->manual_target_pages;
    }
    if (driver && guest_pages(vm, STAT_FREE_MEMORY, &row.guest_free_pages) &&
        guest_pages(vm, STAT_AVAILABLE_MEMORY, &row.guest_available_pages))
        row.valid |= POLICY_HAS_GUEST;
    if (sampling_fraction(vm, &row.active_fraction))
        row.valid |= POLICY_HAS_ACTIVE;
    struct vm_row shared;
    sharing_fill_row(vm, &shared);
    row.valid |= POLICY_HAS_SAVED;
    row.saved_pages =
        shared.shared_saved_pages < vm->memory_pages ? shared.shared_saved_pages : vm->memory_pages;
    if (vm->idle_tax_percent != IDLE_TAX_OF_HOST) {
        row.valid |= POLICY_HAS_IDLE_TAX;
        row.idle_tax_percent = (uint32_t)vm->idle_tax_percent;
    }
    return row;
}

static bool takes_part(const struct vm *vm)
{
    return vm_has_worker(vm) && vm->life != LIFE_ENDING;
}

static void apply(struct vm *vm, const struct policy_vm *row, const struct policy_target *target,
                  enum host_state state)
{
    vm->target_pages = target->target_pages;
    vm->blocked = target->blocked;
    vm->limit_pages = target->limit_pages;
    if (row->can & POLICY_CAN_BALLOON) {
        vm->balloon_ask_pages =
            target->balloon_pages < vm->memory_pages ? target->balloon_pages : vm->memory_pages;
        vm->target_due = true;
    }
    /* Owed from earlier rounds counts only as far as it is still too much. */
    uint64_t allocated = vm_allocated_pages(vm);
    uint64_t excess = allocated > vm->target_pages ? allocated - vm->target_pages : 0;
    if (vm->page_out_owed_pages > excess)
        vm->page_out_owed_pages = excess;
    if (row->can & POLICY_CAN_PAGE_OUT)
        vm->page_out_owed_pages += target->page_out_pages;
    vm_send_target(vm);
    vm_send_page_out(vm);
    if (state >= HOST_HARD && excess)
        vm_ask_return(vm, KEEP_POOL_PAGES);
    else if (state == HOST_SOFT)
        vm_ask_return(vm, GRANT_SCARCE_PAGES);
    message_kick(vm);
}

static void tell_state(struct supervisor *supervisor, enum host_state before)
{
    struct machine_counts counts = machine_memory_counts(supervisor->machine);
    uint64_t machine = machine_memory_pages(supervisor->machine);
    supervisor->state_changes++;
    event_tell(supervisor, NULL, EVENT_HOST_STATE, "%s -> %s, %u of %" PRIu64 " pages are free",
               host_state_name(before), host_state_name(supervisor->host_state), counts.free_pages,
               machine);
}

/* What brought this round about: the first reason that was given, else the timer. */
static void note_trigger(struct supervisor *supervisor)
{
    enum policy_trigger trigger = supervisor->timer_trigger;
    if (supervisor->triggers)
        trigger = (enum policy_trigger)__builtin_ctz(supervisor->triggers);
    supervisor->triggers = 0;
    supervisor->trigger = trigger;
    supervisor->rounds_by[trigger]++;
}

/* One round. Returns in how long the next one is due. */
static uint64_t run_policy(struct supervisor *supervisor)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t period_ns = supervisor->config.period_ms * UINT64_C(1000000);
    struct policy_host host = {
        .machine_pages = machine_memory_pages(supervisor->machine),
        .free_pages = machine_memory_counts(supervisor->machine).free_pages,
        .elapsed_ns = supervisor->policy_time_ns ? now_ns - supervisor->policy_time_ns : 0,
    };
    supervisor->policy_time_ns = now_ns;
    supervisor->policy_runs++;
    note_trigger(supervisor);
    supervisor->timer_trigger = TRIGGER_PERIOD;

    struct vm *subject[MAX_VMS];
    size_t count = 0;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!takes_part(vm))
            continue;
        console_logs_bound(vm);
        sampling_look(vm);
        subject[count] = vm;
        supervisor->policy_rows[count++] = make_row(vm);
        sampling_note_round(vm);
    }
    struct policy_outcome outcome;
    struct err err;
    if (policy_decide(supervisor->policy, &supervisor->settings, supervisor->state, &host,
                      supervisor->policy_rows, count, supervisor->next_state,
                      supervisor->policy_targets, &outcome, &err) < 0) {
        event_tell(supervisor, NULL, EVENT_POLICY_ERROR, "%s", err.text);
        return period_ns;
    }
    struct policy_state *used = supervisor->state;
    supervisor->state = supervisor->next_state;
    supervisor->next_state = used;

    enum host_state before = supervisor->host_state;
    supervisor->host_state = outcome.host;
    if (before != outcome.host)
        tell_state(supervisor, before);
    const struct decision_round round = {
        .policy = policy_name(supervisor->policy),
        .trigger = supervisor->trigger,
        .host = &host,
        .outcome = &outcome,
        .reserved_pages = admission_reserved_pages(supervisor, NULL),
    };
    for (size_t i = 0; i < count; i++) {
        decision_note(subject[i], &supervisor->policy_rows[i], &supervisor->policy_targets[i],
                      &round);
        apply(subject[i], &supervisor->policy_rows[i], &supervisor->policy_targets[i],
              outcome.host);
    }
    grants_serve_all(supervisor);
    uint64_t again_ns = outcome.again_within_ns;
    if (again_ns == 0 || again_ns >= period_ns)
        return period_ns;
    supervisor->timer_trigger = TRIGGER_RECLAIM;
    return again_ns;
}

static void schedule(struct supervisor *supervisor, uint64_t due_ns)
{
    supervisor->policy_due_ns = due_ns;
    if (!supervisor->policy_source)
        return;
    sd_event_source_set_time(supervisor->policy_source, due_ns / 1000);
    sd_event_source_set_enabled(supervisor->policy_source, SD_EVENT_ONESHOT);
}

static int on_policy_timer(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)source;
    (void)time_us;
    struct supervisor *supervisor = ctx;
    if (supervisor->grants_held) { /* a check wants quiet; it calls policy_soon when done */
        schedule(supervisor, clock_monotonic_ns() + CHECK_GRACE_US * 1000);
        return 0;
    }
    uint64_t next_ns = run_policy(supervisor);
    if (next_ns < POLICY_MIN_GAP_US * 1000)
        next_ns = POLICY_MIN_GAP_US * 1000;
    schedule(supervisor, clock_monotonic_ns() + next_ns);
    /* What the round itself freed or granted may have crossed a threshold again. */
    policy_look(supervisor);
    return 0;
}

int policy_loop_start(struct supervisor *supervisor, struct err *err)
{
    uint64_t due_us = clock_monotonic_ns() / 1000 + supervisor->config.period_ms * UINT64_C(1000);
    supervisor->policy_due_ns = due_us * 1000;
    supervisor->timer_trigger = TRIGGER_PERIOD;
    supervisor->trigger = POLICY_TRIGGERS; /* no round yet */
    int result = sd_event_add_time(supervisor->event, &supervisor->policy_source, CLOCK_MONOTONIC,
                                   due_us, 1000, on_policy_timer, supervisor);
    return result < 0 ? err_set(err, -result, "policy timer") : 0;
}

void policy_loop_stop(struct supervisor *supervisor)
{
    supervisor->policy_source = sd_event_source_disable_unref(supervisor->policy_source);
    supervisor->service_source = sd_event_source_disable_unref(supervisor->service_source);
}

void policy_soon(struct supervisor *supervisor, enum policy_trigger trigger)
{
    supervisor->triggers |= 1u << trigger;
    uint64_t earliest_ns = supervisor->policy_time_ns + POLICY_MIN_GAP_US * 1000;
    if (earliest_ns < supervisor->policy_due_ns)
        schedule(supervisor, earliest_ns);
}

void policy_look(struct supervisor *supervisor)
{
    uint64_t free_pages = machine_memory_counts(supervisor->machine).free_pages;
    enum host_state next = host_state_next(supervisor->host_state, free_pages,
                                           machine_memory_pages(supervisor->machine),
                                           &supervisor->settings.thresholds);
    if (next != supervisor->host_state)
        policy_soon(supervisor, TRIGGER_STATE);
}
