#include "daemon/watch.h"

#include "daemon/size_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define NS_PER_MS  UINT64_C(1000000)
/* Less is no difference: pages move while they are counted. */
#define SMALL_PART        256u /* of memory */
#define SMALL_LEAST_PAGES 64u
/* Frames may be on their way between host and worker. */
#define IN_FLIGHT_PAGES 1024u
/* Swap that was not read for so long is not being read. */
#define SWAPPING_NS (5000 * NS_PER_MS)

const char *watch_name(enum watcher watcher)
{
    static const char *const names[WATCHERS] = {
        [WATCH_FLAPPING] = "flapping",         [WATCH_BALLOON_STALLED] = "balloon-stalled",
        [WATCH_BALLOON_LIES] = "balloon-lies", [WATCH_STARVED] = "starved",
        [WATCH_STATE_LASTS] = "state-lasts",   [WATCH_INVARIANT] = "invariant",
    };
    return (unsigned)watcher < WATCHERS ? names[watcher] : "unknown";
}

/* ---- settings ---- */

void watch_settings_default(struct watch_settings *settings)
{
    *settings = (struct watch_settings){
        .period_ms = 1000,
        .repeat_ms = 60000,
        .clear_ms = 5000,
        .flap_turns = 6,
        .flap_window_ms = 60000,
        .flap_percent = 5,
        .stall_ms = 30000,
        .lie_percent = 5,
        .lie_ms = 10000,
        .starved_ms = 30000,
        .state_ms = 60000,
    };
}

int watch_settings_check(const struct watch_settings *s, struct err *err)
{
    if (s->period_ms && (s->period_ms < 10 || s->period_ms > 3600000))
        return err_set(err, 0, "watchers look each %u ms; it must be 10 to 3600000, or 0",
                       s->period_ms);
    if (s->flap_turns < 2 || s->flap_turns > WATCH_MOST_TURNS)
        return err_set(err, 0, "flapping from %u turns on; it must be 2 to %u", s->flap_turns,
                       WATCH_MOST_TURNS);
    if (!(s->flap_percent >= 0 && s->flap_percent <= 100) ||
        !(s->lie_percent >= 0 && s->lie_percent <= 100))
        return err_set(err, 0, "flap or lie percent is outside 0 .. 100");
    return 0;
}

/* ---- small numbers ---- */

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a + b < a ? UINT64_MAX : a + b;
}

static uint64_t part_of(uint64_t pages, double percent)
{
    double part = (double)pages * percent / 100;
    return part >= 0x1p63 ? UINT64_MAX / 2 : (uint64_t)part;
}

static uint64_t small_pages(const struct watch_row *row)
{
    return most(row->memory_pages / SMALL_PART, SMALL_LEAST_PAGES);
}

static const char *size(uint64_t pages, char text[32])
{
    if (pages > UINT64_MAX / PAGE_BYTES)
        return "2^64 B"; /* or so: a lie */
    return size_format(pages * PAGE_BYTES, text);
}

/* ---- one alert ---- */

/* Seen at this look, and in what words. */
struct finding {
    bool seen;
    char text[WATCH_TEXT_BYTES - 80];
};

__attribute__((format(printf, 2, 3))) static void find(struct finding *finding, const char *format,
                                                       ...)
{
    va_list arguments;
    finding->seen = true;
    va_start(arguments, format);
    vsnprintf(finding->text, sizeof finding->text, format, arguments);
    va_end(arguments);
}

static void write_note(struct watch_note *note, enum watcher watcher, enum watch_news news,
                       const struct watch_alert *alert, const struct finding *finding,
                       uint64_t now_ns)
{
    uint64_t lasted_s = (now_ns - alert->since_ns) / (1000 * NS_PER_MS);
    note->watcher = watcher;
    note->news = news;
    switch (news) {
    case WATCH_NEWS_RAISED:
        snprintf(note->text, sizeof note->text, "raised: %s", finding->text);
        break;
    case WATCH_NEWS_STILL:
        snprintf(note->text, sizeof note->text,
                 "still: %s (for %" PRIu64 " s, seen %" PRIu64 " times)", finding->text, lasted_s,
                 alert->sightings);
        break;
    case WATCH_NEWS_OVER:
        snprintf(note->text, sizeof note->text, "over: after %" PRIu64 " s, seen %" PRIu64 " times",
                 lasted_s, alert->sightings);
        break;
    }
}

/* The table of watch.h. lasts_ms is how long it must be seen before it is told. Returns 1 with a
 * note, or 0. */
static unsigned move(struct watch_alert *alert, const struct watch_settings *settings,
                     enum watcher watcher, uint64_t lasts_ms, uint64_t now_ns,
                     const struct finding *finding, struct watch_note *note)
{
    uint64_t repeat_ns = settings->repeat_ms * NS_PER_MS;
    if (finding->seen) {
        alert->sightings++;
        if (alert->phase == WATCH_QUIET) {
            alert->phase = WATCH_SUSPECT;
            alert->since_ns = now_ns;
            alert->sightings = 1;
        } else if (alert->phase == WATCH_FADING) {
            alert->phase = WATCH_RAISED;
        }
        if (alert->phase == WATCH_SUSPECT) {
            bool soon = alert->raised_ns && now_ns - alert->raised_ns < repeat_ns;
            if (soon || now_ns - alert->since_ns < lasts_ms * NS_PER_MS)
                return 0;
            alert->phase = WATCH_RAISED;
            alert->raised_ns = alert->told_ns = now_ns;
            write_note(note, watcher, WATCH_NEWS_RAISED, alert, finding, now_ns);
            return 1;
        }
        if (now_ns - alert->told_ns < repeat_ns)
            return 0;
        alert->told_ns = now_ns;
        write_note(note, watcher, WATCH_NEWS_STILL, alert, finding, now_ns);
        return 1;
    }
    if (alert->phase == WATCH_SUSPECT)
        alert->phase = WATCH_QUIET;
    if (alert->phase == WATCH_RAISED) {
        alert->phase = WATCH_FADING;
        alert->gone_ns = now_ns;
    }
    if (alert->phase != WATCH_FADING || now_ns - alert->gone_ns < settings->clear_ms * NS_PER_MS)
        return 0;
    alert->phase = WATCH_QUIET;
    write_note(note, watcher, WATCH_NEWS_OVER, alert, finding, now_ns);
    return 1;
}

bool watch_is_raised(const struct watch_alert *alert)
{
    return alert->phase == WATCH_RAISED || alert->phase == WATCH_FADING;
}

/* ---- targets that flap ---- */

void watch_target(struct watch_vm *vm, const struct watch_settings *settings, uint64_t now_ns,
                  uint64_t target_pages, uint64_t memory_pages)
{
    uint64_t swing = most(part_of(memory_pages, settings->flap_percent), 1);
    bool up = target_pages > vm->extreme_pages;
    if (!vm->seen_before) {
        vm->seen_before = true;
        vm->extreme_pages = target_pages;
        return;
    }
    if (vm->direction && up == (vm->direction > 0)) {
        vm->extreme_pages = target_pages; /* on in the same direction */
        return;
    }
    if (apart(target_pages, vm->extreme_pages) < swing)
        return;
    if (vm->direction)
        vm->turns_ns[vm->turns++ % WATCH_MOST_TURNS] = now_ns;
    vm->direction = up ? 1 : -1;
    vm->extreme_pages = target_pages;
}

static void look_for_flapping(const struct watch_vm *vm, const struct watch_settings *settings,
                              uint64_t now_ns, const struct watch_row *row, struct finding *finding)
{
    uint64_t window_ns = settings->flap_window_ms * NS_PER_MS, recent = 0;
    char target[32];
    uint64_t kept = vm->turns < WATCH_MOST_TURNS ? vm->turns : WATCH_MOST_TURNS;
    while (recent < kept &&
           now_ns - vm->turns_ns[(vm->turns - 1 - recent) % WATCH_MOST_TURNS] <= window_ns)
        recent++;
    if (recent >= settings->flap_turns)
        find(finding,
             "its target turned %" PRIu64 " times in %u s, by %.3g %% of its memory or "
             "more; now %s",
             recent, settings->flap_window_ms / 1000, settings->flap_percent,
             size(row->target_pages, target));
}

/* ---- balloons ---- */

static void look_for_stall(struct watch_vm *vm, const struct watch_row *row,
                           struct finding *finding)
{
    char asked[32], has[32], target[32], held[32];
    uint64_t missing = less(row->balloon_ask_pages, row->balloon_pages);
    uint64_t step = most(missing / 16, SMALL_LEAST_PAGES);
    bool wanted = row->balloon_driver && missing > small_pages(row) &&
                  row->allocated_pages > sum(row->target_pages, small_pages(row));
    if (!wanted || row->balloon_pages < vm->grown_pages)
        vm->grown_pages = row->balloon_pages;
    if (!wanted)
        return;
    if (row->balloon_pages >= sum(vm->grown_pages, step)) {
        vm->grown_pages = row->balloon_pages; /* it works */
        return;
    }
    find(finding, "its balloon was asked for %s and stays at %s; it holds %s, its target is %s",
         size(row->balloon_ask_pages, asked), size(row->balloon_pages, has),
         size(row->allocated_pages, held), size(row->target_pages, target));
}

static void look_for_lies(const struct watch_settings *settings, const struct watch_row *row,
                          struct finding *finding)
{
    char a[32], b[32];
    uint64_t allowed = most(part_of(row->memory_pages, settings->lie_percent), small_pages(row));
    uint64_t memory_bytes = row->memory_pages * PAGE_BYTES, total = row->guest_total_bytes;
    if (row->balloon_driver && apart(row->balloon_actual_pages, row->balloon_pages) > allowed)
        find(finding, "its driver says that the balloon has %s, and %s are ballooned",
             size(row->balloon_actual_pages, a), size(row->balloon_pages, b));
    else if (apart(row->counted_pages, row->memory_pages) > allowed)
        find(finding, "its worker counts %s in all states of pages, and its memory is %s",
             size(row->counted_pages, a), size(row->memory_pages, b));
    else if (apart(row->counted_frames, row->held_pages) > most(allowed, IN_FLIGHT_PAGES))
        find(finding, "its worker counts %s in frames, and was granted %s",
             size(row->counted_frames, a), size(row->held_pages, b));
    else if (total != WATCH_UNKNOWN && total > memory_bytes)
        find(finding, "its guest says that it has %s, and its memory is %s",
             size(total / PAGE_BYTES, a), size(row->memory_pages, b));
    else if (row->guest_free_bytes != WATCH_UNKNOWN && total != WATCH_UNKNOWN &&
             row->guest_free_bytes > total)
        find(finding, "its guest says that %s of %s are free",
             size(row->guest_free_bytes / PAGE_BYTES, a), size(total / PAGE_BYTES, b));
    else if (row->guest_available_bytes != WATCH_UNKNOWN && total != WATCH_UNKNOWN &&
             row->guest_available_bytes > total)
        find(finding, "its guest says that %s of %s are available",
             size(row->guest_available_bytes / PAGE_BYTES, a), size(total / PAGE_BYTES, b));
}

/* ---- starved ---- */

static void look_for_starvation(struct watch_vm *vm, uint64_t now_ns, const struct watch_row *row,
                                struct finding *finding)
{
    const struct watch_alert *alert = &vm->alerts[WATCH_STARVED];
    char min[32], active[32];
    if (row->swap_in_pages > vm->swap_in_pages)
        vm->swap_in_ns = now_ns;
    vm->swap_in_pages = row->swap_in_pages; /* a worker that starts again counts from 0 */
    if (alert->phase == WATCH_QUIET)
        vm->starved_from_pages = row->swap_in_pages;
    uint64_t at_min = sum(row->min_pages, small_pages(row));
    if (row->active_pages == WATCH_UNKNOWN || row->active_pages <= at_min ||
        row->target_pages > at_min || row->allocated_pages > at_min || !vm->swap_in_ns ||
        now_ns - vm->swap_in_ns > SWAPPING_NS)
        return;
    find(finding, "at its min of %s, with %s in use, it has read %" PRIu64 " pages back from swap",
         size(row->min_pages, min), size(row->active_pages, active),
         less(row->swap_in_pages, vm->starved_from_pages));
}

/* ---- a VM ---- */

static void look_for_refusals(struct watch_vm *vm, const struct watch_row *row,
                              struct finding *finding)
{
    if (row->refused_messages > vm->refused_messages)
        find(finding, "%" PRIu64 " messages of its worker were refused (%" PRIu64 " in all)",
             row->refused_messages - vm->refused_messages, row->refused_messages);
}

unsigned watch_look(struct watch_vm *vm, const struct watch_settings *settings, uint64_t now_ns,
                    const struct watch_row *row, struct watch_note notes[WATCHERS])
{
    const uint64_t lasts_ms[WATCHERS] = {
        [WATCH_BALLOON_STALLED] = settings->stall_ms,
        [WATCH_BALLOON_LIES] = settings->lie_ms,
        [WATCH_STARVED] = settings->starved_ms,
    };
    struct finding findings[WATCHERS] = {0};
    unsigned count = 0;
    if (row->running) {
        look_for_flapping(vm, settings, now_ns, row, &findings[WATCH_FLAPPING]);
        look_for_stall(vm, row, &findings[WATCH_BALLOON_STALLED]);
        look_for_lies(settings, row, &findings[WATCH_BALLOON_LIES]);
        look_for_starvation(vm, now_ns, row, &findings[WATCH_STARVED]);
    }
    look_for_refusals(vm, row, &findings[WATCH_INVARIANT]);
    for (unsigned w = 0; w < WATCHERS; w++) {
        unsigned told = move(&vm->alerts[w], settings, (enum watcher)w, lasts_ms[w], now_ns,
                             &findings[w], &notes[count]);
        /* Refusals that are not told yet are counted with those to come. */
        if (w == WATCH_INVARIANT && (told || !findings[w].seen))
            vm->refused_messages = row->refused_messages;
        count += told;
    }
    return count;
}

/* ---- the host ---- */

static void look_at_frames(const struct watch_host_row *row, struct finding *finding)
{
    uint64_t all = sum(sum(row->free_pages, row->granted_pages), row->shared_pages);
    if (all != row->machine_pages)
        find(finding,
             "%" PRIu64 " frames free, %" PRIu64 " granted and %" PRIu64 " shared are not the "
             "%" PRIu64 " of the machine",
             row->free_pages, row->granted_pages, row->shared_pages, row->machine_pages);
    else if (row->held_pages != row->granted_pages)
        find(finding, "the VMs' records hold %" PRIu64 " frames, and %" PRIu64 " are granted",
             row->held_pages, row->granted_pages);
    else if (row->check_violations)
        find(finding, "the last check found %" PRIu64 " violations", row->check_violations);
}

unsigned watch_look_at_host(struct watch_host *host, const struct watch_settings *settings,
                            uint64_t now_ns, const struct watch_host_row *row,
                            struct watch_note notes[WATCHERS])
{
    struct finding state = {0}, frames = {0};
    char free_text[32], machine[32];
    unsigned count = 0;
    if (row->state >= HOST_HARD)
        find(&state, "the host is in state %s, with %s of %s free", host_state_name(row->state),
             size(row->free_pages, free_text), size(row->machine_pages, machine));
    look_at_frames(row, &frames);
    count += move(&host->alerts[WATCH_STATE_LASTS], settings, WATCH_STATE_LASTS, settings->state_ms,
                  now_ns, &state, &notes[count]);
    count += move(&host->alerts[WATCH_INVARIANT], settings, WATCH_INVARIANT, 0, now_ns, &frames,
                  &notes[count]);
    return count;
}
