/*
 * The policy loop: rows of statistics -> the pure policy -> targets -> messages.
 * A round that an external policy is asked about lies open until it is answered or
 * its deadline passes (policy_external.h), or free memory falls on; every round is
 * decided once, by its answer or by the built-in policy. It runs
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
#include <stdio.h>
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
        guest_pages(vm, STAT_AVAILABLE_MEMORY, &row.guest_available_pages)) {
        row.valid |= POLICY_HAS_GUEST;
        uint64_t absent = vm_stat(vm, &stats->balloon_stats_absent_pages, vm->memory_pages);
        if (absent > row.guest_free_pages)
            row.guest_untouched_pages = absent - row.guest_free_pages;
    }
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

/* ---- a round ---- */

static void schedule(struct supervisor *supervisor, uint64_t due_ns)
{
    supervisor->policy_due_ns = due_ns;
    if (!supervisor->policy_source)
        return;
    sd_event_source_set_time(supervisor->policy_source, due_ns / 1000);
    sd_event_source_set_enabled(supervisor->policy_source, SD_EVENT_ONESHOT);
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

/* Rows of all who take part. */
static size_t make_rows(struct supervisor *supervisor, struct vm **subject)
{
    size_t count = 0;
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (!takes_part(vm))
            continue;
        subject[count] = vm;
        supervisor->policy_rows[count++] = make_row(vm);
        sampling_note_round(vm);
    }
    return count;
}

static struct policy_host host_now(const struct supervisor *supervisor, uint64_t now_ns)
{
    struct machine_counts counts = machine_memory_counts(supervisor->machine);
    struct policy_host host = {
        .machine_pages = machine_memory_pages(supervisor->machine),
        .free_pages = counts.free_pages,
        .elapsed_ns = supervisor->policy_time_ns ? now_ns - supervisor->policy_time_ns : 0,
        .shared_pages = counts.shared_pages,
    };
    const struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (takes_part(vm))
            host.shared_charge_pages += sharing_charged_pages(vm);
    }
    return host;
}

static const struct policy *built_in(const struct supervisor *supervisor)
{
    const struct policy *fallback = external_fallback(supervisor->external);
    return fallback ? fallback : supervisor->policy;
}

static bool is_given(const struct policy_vm *row)
{
    return !(row->valid & POLICY_HAS_MANUAL_TARGET);
}

/* What the given targets of a round's rows may add up to: all that orders of the operator leave,
 * and never less than the mins. */
static uint64_t room_pages(const struct supervisor *supervisor, size_t count,
                           const struct policy_outcome *outcome)
{
    uint64_t room = outcome->available_pages, mins = 0;
    for (size_t i = 0; i < count; i++) {
        const struct policy_vm *row = &supervisor->policy_rows[i];
        const struct policy_target *target = &supervisor->policy_targets[i];
        if (target->why == POLICY_ROW_REFUSED)
            continue;
        if (is_given(row))
            mins += row->min_pages;
        else
            room -= target->target_pages < room ? target->target_pages : room;
    }
    return room > mins ? room : mins;
}

/* Work the round out with policy, into next_state and policy_targets; nothing is changed yet. */
static int work_out(struct supervisor *supervisor, const struct policy *policy,
                    const struct policy_host *host, size_t count, struct policy_outcome *outcome,
                    struct err *err)
{
    return policy_decide(policy, &supervisor->settings, supervisor->state, host,
                         supervisor->policy_rows, count, supervisor->next_state,
                         supervisor->policy_targets, outcome, err);
}

/* ---- asking an external policy ---- */

/* Ask for targets; false: decide now. */
static bool ask_external(struct supervisor *supervisor, const struct policy_host *host,
                         struct vm *const *subject, size_t count)
{
    struct question_vm asked[MAX_VMS];
    struct policy_outcome outcome;
    struct err err;
    uint64_t next_ns = supervisor->config.period_ms * UINT64_C(1000000);
    if (!external_is_attached(supervisor->external))
        return false;
    for (size_t i = 0; i < count; i++) { /* to learn the state and the room */
        supervisor->policy_rows[i].valid |= POLICY_HAS_GIVEN_TARGET;
        supervisor->policy_rows[i].given_target_pages = supervisor->policy_rows[i].min_pages;
    }
    int result = work_out(supervisor, &policy_external, host, count, &outcome, &err);
    struct policy_question question = {
        .trigger = policy_trigger_name(supervisor->trigger),
        .settings = &supervisor->settings,
        .host = host,
        .vms = asked,
    };
    for (size_t i = 0; i < count; i++) {
        struct policy_vm *row = &supervisor->policy_rows[i];
        row->valid &= ~(uint32_t)POLICY_HAS_GIVEN_TARGET;
        if (result < 0 || !is_given(row) || supervisor->policy_targets[i].why == POLICY_ROW_REFUSED)
            continue;
        asked[question.count++] = (struct question_vm){
            .name = subject[i]->settings.name,
            .row = row,
            .target_pages = subject[i]->target_pages,
        };
    }
    if (question.count == 0) /* nothing to decide, or nothing that can be decided */
        return false;
    question.state = supervisor->asked_state = outcome.host;
    question.available_pages = room_pages(supervisor, count, &outcome);
    /* It may take until the next round is due, no longer: none is lost or put off. */
    if (outcome.again_within_ns && outcome.again_within_ns < next_ns)
        next_ns = outcome.again_within_ns;
    question.deadline_ms = (uint32_t)(next_ns / 1000000);
    return external_ask(supervisor->external, &question);
}

/* Put an answer into the rows and work it out. -1 with err when it does not fit them any more. */
static int work_out_answer(struct supervisor *supervisor, const struct policy_host *host,
                           struct vm *const *subject, size_t count, const struct answer_vm *answer,
                           size_t answer_count, struct policy_outcome *outcome, struct err *err)
{
    uint64_t sum_pages = 0;
    for (size_t i = 0, at = 0; i < count; i++) { /* both in order of creation */
        struct policy_vm *row = &supervisor->policy_rows[i];
        while (at < answer_count && answer[at].id < row->id)
            at++;
        if (!is_given(row) || at == answer_count || answer[at].id != row->id)
            continue;
        if (answer[at].target_pages < row->min_pages || answer[at].target_pages > row->max_pages)
            return err_set(err, 0, "min or max of VM %s changed", subject[i]->settings.name);
        row->valid |= POLICY_HAS_GIVEN_TARGET;
        row->given_target_pages = answer[at].target_pages;
        sum_pages += answer[at].target_pages;
    }
    if (work_out(supervisor, &policy_external, host, count, outcome, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (is_given(&supervisor->policy_rows[i]) &&
            !(supervisor->policy_rows[i].valid & POLICY_HAS_GIVEN_TARGET) &&
            supervisor->policy_targets[i].why != POLICY_ROW_REFUSED)
            return err_set(err, 0, "VM %s was not asked about", subject[i]->settings.name);
    if (sum_pages > room_pages(supervisor, count, outcome))
        return err_set(err, 0, "there is less memory to give by now");
    return 0;
}

/* ---- deciding ---- */

static void tell_state(struct supervisor *supervisor, enum host_state before)
{
    struct machine_counts counts = machine_memory_counts(supervisor->machine);
    uint64_t machine = machine_memory_pages(supervisor->machine);
    supervisor->state_changes++;
    event_tell(supervisor, NULL, EVENT_HOST_STATE, "%s -> %s, %u of %" PRIu64 " pages are free",
               host_state_name(before), host_state_name(supervisor->host_state), counts.free_pages,
               machine);
}

void supervisor_listen_rounds(struct supervisor *supervisor, supervisor_round_fn *fn, void *ctx)
{
    supervisor->round_fn = fn;
    supervisor->round_ctx = ctx;
}

static void tell_round(struct supervisor *supervisor, const struct policy_host *host,
                       struct vm *const *subject, size_t count,
                       const struct policy_outcome *outcome)
{
    const char *names[MAX_VMS];
    if (!supervisor->round_fn)
        return;
    for (size_t i = 0; i < count; i++)
        names[i] = subject[i]->settings.name;
    struct supervisor_round round = {
        .time_ns = supervisor->policy_time_ns,
        .policy = supervisor->decided_by,
        .trigger = policy_trigger_name(supervisor->trigger),
        .settings = &supervisor->settings,
        .host = host,
        .previous = supervisor->state,
        .outcome = outcome,
        .count = count,
        .names = names,
        .vms = supervisor->policy_rows,
        .targets = supervisor->policy_targets,
    };
    supervisor->round_fn(supervisor->round_ctx, &round);
}

/* What was worked out takes effect. */
static void carry_out(struct supervisor *supervisor, const struct policy_host *host,
                      struct vm *const *subject, size_t count, const struct policy_outcome *outcome)
{
    tell_round(supervisor, host, subject, count, outcome);
    struct policy_state *used = supervisor->state;
    supervisor->state = supervisor->next_state;
    supervisor->next_state = used;

    enum host_state before = supervisor->host_state;
    supervisor->host_state = outcome->host;
    if (before != outcome->host)
        tell_state(supervisor, before);
    const struct decision_round round = {
        .policy = supervisor->decided_by,
        .trigger = supervisor->trigger,
        .host = host,
        .outcome = outcome,
        .reserved_pages = admission_reserved_pages(supervisor, NULL),
    };
    for (size_t i = 0; i < count; i++) {
        if (supervisor->policy_targets[i].why == POLICY_ROW_REFUSED)
            event_tell(supervisor, subject[i], EVENT_POLICY_ERROR,
                       "its statistics are impossible; its target stays %" PRIu64 " pages",
                       supervisor->policy_targets[i].target_pages);
        decision_note(subject[i], &supervisor->policy_rows[i], &supervisor->policy_targets[i],
                      &round);
        apply(subject[i], &supervisor->policy_rows[i], &supervisor->policy_targets[i],
              outcome->host);
    }
    grants_serve_all(supervisor);
}

/* The round is over: when is the next? An external policy's time counts as part of the round. */
static void close_round(struct supervisor *supervisor, uint64_t again_within_ns)
{
    uint64_t earliest_ns = clock_monotonic_ns() + POLICY_MIN_GAP_US * 1000;
    uint64_t period_ns = supervisor->config.period_ms * UINT64_C(1000000);
    bool again = again_within_ns && again_within_ns < period_ns;
    uint64_t due_ns = supervisor->policy_began_ns + (again ? again_within_ns : period_ns);
    supervisor->timer_trigger = again ? TRIGGER_RECLAIM : TRIGGER_PERIOD;
    if (supervisor->triggers || due_ns < earliest_ns) /* there is reason for another already */
        due_ns = earliest_ns;
    schedule(supervisor, due_ns);
    /* What the round itself freed or granted may have crossed a threshold again. */
    policy_look(supervisor);
}

/* Decide the round that has begun: by the answer if it fits, else by the built-in policy. */
static int decide(struct supervisor *supervisor, const struct answer_vm *answer,
                  size_t answer_count, struct err *err)
{
    struct vm *subject[MAX_VMS];
    struct policy_outcome outcome;
    struct err failed;
    uint64_t now_ns = clock_monotonic_ns();
    struct policy_host host = host_now(supervisor, now_ns);
    size_t count = make_rows(supervisor, subject);
    int fits = -1;
    if (answer)
        fits =
            work_out_answer(supervisor, &host, subject, count, answer, answer_count, &outcome, err);
    supervisor->policy_time_ns = now_ns;
    supervisor->policy_runs++;
    overcommit_look(supervisor);
    const struct policy *policy = fits == 0 ? &policy_external : built_in(supervisor);
    if (fits < 0 && work_out(supervisor, policy, &host, count, &outcome, &failed) < 0) {
        event_tell(supervisor, NULL, EVENT_POLICY_ERROR, "%s", failed.text);
        close_round(supervisor, 0);
        return fits;
    }
    snprintf(supervisor->decided_by, sizeof supervisor->decided_by, "%s%s%s", policy_name(policy),
             fits == 0 ? ":" : "", fits == 0 ? external_name(supervisor->external) : "");
    carry_out(supervisor, &host, subject, count, &outcome);
    close_round(supervisor, outcome.again_within_ns);
    return fits;
}

/* A check wants quiet; it calls policy_soon when done. */
static bool wait_for_check(struct supervisor *supervisor)
{
    if (supervisor->grants_held)
        schedule(supervisor, clock_monotonic_ns() + CHECK_GRACE_US * 1000);
    return supervisor->grants_held;
}

static int decide_asked(void *ctx, const struct answer_vm *answer, size_t count, struct err *err)
{
    struct supervisor *supervisor = ctx;
    if (wait_for_check(supervisor))
        return err_set(err, 0, "a check of the invariants is under way");
    return decide(supervisor, answer, count, err);
}

static void tell_external(void *ctx, enum external_event event, const char *text)
{
    static const enum event_kind kinds[] = {
        [EXTERNAL_TELL_ATTACHED] = EVENT_POLICY_ATTACHED,
        [EXTERNAL_TELL_DETACHED] = EVENT_POLICY_DETACHED,
        [EXTERNAL_TELL_BAD] = EVENT_POLICY_BAD,
    };
    event_tell(ctx, NULL, kinds[event], "%s", text);
}

static void external_came(void *ctx)
{
    policy_soon(ctx, TRIGGER_HOST_SETTING);
}

static int on_policy_timer(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)source;
    (void)time_us;
    struct supervisor *supervisor = ctx;
    struct vm *subject[MAX_VMS];
    bool overtakes = external_is_asked(supervisor->external); /* free memory fell meanwhile */
    if (overtakes)
        external_overtake(supervisor->external);
    if (wait_for_check(supervisor))
        return 0;
    if (overtakes) /* the same round, for another reason */
        supervisor->rounds_by[supervisor->trigger]--;
    else
        supervisor->policy_began_ns = clock_monotonic_ns();
    note_trigger(supervisor);
    for (struct vm *vm = TAILQ_FIRST(&supervisor->vms); vm; vm = TAILQ_NEXT(vm, entry)) {
        if (!takes_part(vm))
            continue;
        console_logs_bound(vm);
        sampling_look(vm);
    }
    struct policy_host host = host_now(supervisor, supervisor->policy_began_ns);
    size_t count = make_rows(supervisor, subject);
    supervisor->policy_due_ns = UINT64_MAX; /* none is, until this one is decided */
    if (overtakes || !ask_external(supervisor, &host, subject, count))
        decide(supervisor, NULL, 0, NULL);
    return 0;
}

int policy_loop_start(struct supervisor *supervisor, struct err *err)
{
    const struct external_host host = {decide_asked, tell_external, external_came, supervisor};
    supervisor->external = external_new(supervisor->event, &host, err);
    if (!supervisor->external)
        return -1;
    supervisor->timer_trigger = TRIGGER_PERIOD;
    supervisor->trigger = POLICY_TRIGGERS; /* no round yet */
    uint64_t due_us = clock_monotonic_ns() / 1000 + supervisor->config.period_ms * UINT64_C(1000);
    supervisor->policy_due_ns = due_us * 1000;
    int result = sd_event_add_time(supervisor->event, &supervisor->policy_source, CLOCK_MONOTONIC,
                                   due_us, 1000, on_policy_timer, supervisor);
    return result < 0 ? err_set(err, -result, "policy timer") : 0;
}

void policy_loop_stop(struct supervisor *supervisor)
{
    external_free(supervisor->external);
    supervisor->external = NULL;
    supervisor->policy_source = sd_event_source_disable_unref(supervisor->policy_source);
    supervisor->service_source = sd_event_source_disable_unref(supervisor->service_source);
}

void policy_soon(struct supervisor *supervisor, enum policy_trigger trigger)
{
    supervisor->triggers |= 1u << trigger;
    if (external_is_asked(supervisor->external))
        return; /* this round goes by what was; another follows it */
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
    bool asked = external_is_asked(supervisor->external);
    if (next == supervisor->host_state || (asked && next <= supervisor->asked_state))
        return;
    policy_soon(supervisor, TRIGGER_STATE);
    if (asked) /* it falls on: no waiting for an answer */
        schedule(supervisor, supervisor->policy_time_ns + POLICY_MIN_GAP_US * 1000);
}
