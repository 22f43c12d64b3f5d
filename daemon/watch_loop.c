/*
 * The watchers' look at the running host, each watch.period_ms: rows from the
 * supervisor's records and, unbounded, from what workers and guests say (watch.h
 * decides what is a lie); notes become events.
 */
#include "daemon/supervisor_private.h"

#include <stdio.h>

static const enum event_kind event_of[WATCHERS] = {
    [WATCH_FLAPPING] = EVENT_WATCH_FLAPPING,
    [WATCH_BALLOON_STALLED] = EVENT_WATCH_BALLOON_STALLED,
    [WATCH_BALLOON_LIES] = EVENT_WATCH_BALLOON_LIES,
    [WATCH_STARVED] = EVENT_WATCH_STARVED,
    [WATCH_STATE_LASTS] = EVENT_WATCH_STATE_LASTS,
    [WATCH_INVARIANT] = EVENT_WATCH_INVARIANT,
};

static uint64_t read_count(const _Atomic uint64_t *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

/* Frames are behind pages in these states, and in the pool. */
static bool has_frame(enum page_state state)
{
    return state == PAGE_PRIVATE || state == PAGE_PAGING_OUT || state == PAGE_PAGING_IN;
}

static struct watch_row row_of(const struct vm *vm)
{
    struct watch_row row = {
        .running = vm->life == LIFE_RUNNING && vm_has_worker(vm),
        .memory_pages = vm->memory_pages,
        .min_pages = vm->min_pages,
        .target_pages = vm->target_pages,
        .allocated_pages = vm_allocated_pages(vm),
        .held_pages = vm->held_pages > vm->grants_in_ring_pages
                          ? vm->held_pages - vm->grants_in_ring_pages
                          : 0,
        .balloon_ask_pages = vm->balloon_ask_pages,
        .refused_messages = vm->refused_messages,
        .active_pages = WATCH_UNKNOWN,
    };
    if (!row.running)
        return row;
    const struct vm_stats *stats = &vm->region->stats;
    double active;
    for (int state = 0; state < PAGE_STATES; state++) {
        uint64_t pages = read_count(&stats->pages.pages_in[state]);
        row.counted_pages = sum(row.counted_pages, pages);
        if (has_frame((enum page_state)state))
            row.counted_frames = sum(row.counted_frames, pages);
    }
    row.counted_frames = sum(row.counted_frames, read_count(&stats->pool_pages));
    row.balloon_driver = atomic_load_explicit(&stats->balloon_driver, memory_order_relaxed) != 0;
    row.balloon_pages = read_count(&stats->pages.pages_in[PAGE_BALLOONED]);
    row.balloon_actual_pages = read_count(&stats->balloon_actual_pages);
    row.swap_in_pages = read_count(&stats->swap_in_pages);
    if (sampling_fraction(vm, &active))
        row.active_pages = (uint64_t)(active * (double)vm->memory_pages);
    row.guest_free_bytes = row.guest_total_bytes = row.guest_available_bytes = WATCH_UNKNOWN;
    if (row.balloon_driver) { /* tags of virtio 1.2, 5.5.6.4 */
        row.guest_free_bytes = read_count(&stats->balloon_stats[4]);
        row.guest_total_bytes = read_count(&stats->balloon_stats[5]);
        row.guest_available_bytes = read_count(&stats->balloon_stats[6]);
    }
    return row;
}

static void tell(struct supervisor *supervisor, struct vm *vm, const struct watch_note *notes,
                 unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (notes[i].news == WATCH_NEWS_RAISED)
            supervisor->watch_raises[notes[i].watcher]++;
        event_tell(supervisor, vm, event_of[notes[i].watcher], "%s", notes[i].text);
    }
}

static void look(struct supervisor *supervisor)
{
    const struct watch_settings *settings = &supervisor->config.watch;
    uint64_t now_ns = clock_monotonic_ns();
    struct watch_note notes[WATCHERS];
    struct machine_counts counts = machine_memory_counts(supervisor->machine);
    struct watch_host_row host = {
        .state = supervisor->host_state,
        .machine_pages = machine_memory_pages(supervisor->machine),
        .free_pages = counts.free_pages,
        .granted_pages = counts.private_pages,
        .shared_pages = (uint64_t)counts.shared_pages + counts.leaving_pages,
        .check_violations = supervisor->check_violations,
    };
    struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        struct watch_row row = row_of(vm);
        host.held_pages += vm->held_pages;
        tell(supervisor, vm, notes, watch_look(&vm->watch, settings, now_ns, &row, notes));
    }
    tell(supervisor, NULL, notes,
         watch_look_at_host(&supervisor->watch, settings, now_ns, &host, notes));
}

static int on_watch(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)time_us;
    struct supervisor *supervisor = ctx;
    if (!supervisor->grants_held) /* a check stands for more than a look can see */
        look(supervisor);
    sd_event_source_set_time_relative(source, supervisor->config.watch.period_ms * UINT64_C(1000));
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

int watch_start(struct supervisor *supervisor, struct err *err)
{
    if (supervisor->config.watch.period_ms == 0)
        return 0;
    int result = sd_event_add_time_relative(
        supervisor->event, &supervisor->watch_source, CLOCK_MONOTONIC,
        supervisor->config.watch.period_ms * UINT64_C(1000), 1000, on_watch, supervisor);
    return result < 0 ? err_set(err, -result, "watchers' timer") : 0;
}

void watch_stop(struct supervisor *supervisor)
{
    supervisor->watch_source = sd_event_source_disable_unref(supervisor->watch_source);
}

void watch_decision(struct vm *vm, uint64_t target_pages)
{
    const struct watch_settings *settings = &vm->supervisor->config.watch;
    uint64_t now_ns = clock_monotonic_ns();
    if (!vm->watch.seen_before) /* what the first change leads away from */
        watch_target(&vm->watch, settings, now_ns, vm->target_pages, vm->memory_pages);
    watch_target(&vm->watch, settings, now_ns, target_pages, vm->memory_pages);
}

void watch_vm_gone(struct vm *vm)
{
    for (int w = 0; w < WATCHERS; w++)
        if (watch_is_raised(&vm->watch.alerts[w]))
            event_tell(vm->supervisor, vm, event_of[w], "over: the VM is gone");
}

void watch_fill_vm_row(const struct vm *vm, struct vm_row *row)
{
    size_t used = 0;
    for (int w = 0; w < WATCHERS; w++)
        if (watch_is_raised(&vm->watch.alerts[w])) {
            row->valid |= VM_ROW_ALERTS;
            used += (size_t)snprintf(row->alerts + used, sizeof row->alerts - used, "%s%s",
                                     used ? " " : "", watch_name((enum watcher)w));
        }
}

_Static_assert(sizeof "flapping balloon-stalled balloon-lies starved state-lasts invariant" <=
                   sizeof((struct vm_row *)0)->alerts,
               "all alerts at once fit a row");

void watch_fill_row(const struct supervisor *supervisor, struct host_row *row)
{
    const struct vm *vm;
    for (int w = 0; w < WATCHERS; w++) {
        row->watch_raises[w] = supervisor->watch_raises[w];
        row->watch_raised[w] = watch_is_raised(&supervisor->watch.alerts[w]);
        TAILQ_FOREACH(vm, &supervisor->vms, entry)
        row->watch_raised[w] += watch_is_raised(&vm->watch.alerts[w]);
    }
}
