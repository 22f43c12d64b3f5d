/*
 * Watchers: what goes wrong slowly, or quietly, on a host. Pure: rows and a time
 * go in, notes for events come out (watch_loop.c feeds and tells them).
 *
 *   flapping         a VM's target turned back and forth too often
 *   balloon-stalled  a balloon was asked for more, its VM is above its target, and it does not grow
 *   balloon-lies     a guest's or a worker's numbers contradict each other, or what was granted
 *   starved          a VM stands at its min, uses more, and reads it back from swap all the time
 *   state-lasts      the host is short of memory (hard or low) and stays so
 *   invariant        a worker said what was refused; the host's frames do not add up
 *
 * Each watcher of each VM, and of the host, is one alert, a small state machine:
 *
 *             seen                                  not seen
 *   quiet     suspect                               -
 *   suspect   raised, once it has lasted long       quiet
 *             enough and repeat_ms have passed
 *             since it was raised last: told
 *   raised    told again each repeat_ms             fading
 *   fading    raised                                quiet after clear_ms: told
 *
 * so that a condition that flickers is told once, and nobody, guest or worker, can
 * make more than four events in repeat_ms of one kind. Rows may be lies: any
 * number is legal in them.
 */
#ifndef BALLAST_WATCH_H
#define BALLAST_WATCH_H

#include "daemon/policy/host_state.h"

#include <stdbool.h>
#include <stddef.h>

enum watcher {
    WATCH_FLAPPING,
    WATCH_BALLOON_STALLED,
    WATCH_BALLOON_LIES,
    WATCH_STARVED,
    WATCH_STATE_LASTS,
    WATCH_INVARIANT,
    WATCHERS
};
/* "flapping", ...: never change. The event's kind is "watch-" and this. */
const char *watch_name(enum watcher watcher);

#define WATCH_MOST_TURNS 32u

/* [default] */
struct watch_settings {
    uint32_t period_ms;      /* between two looks; 0: do not watch [1000] */
    uint32_t repeat_ms;      /* an alert that stays is told again this often [60000] */
    uint32_t clear_ms;       /* and is over when it was not seen for so long [5000] */
    uint32_t flap_turns;     /* 2 .. WATCH_MOST_TURNS in flap_window_ms are flapping [6] */
    uint32_t flap_window_ms; /* [60000] */
    double flap_percent;     /* of a VM's memory: smaller swings of a target are none [5] */
    uint32_t stall_ms;       /* a balloon that does not grow for so long has stalled [30000] */
    double lie_percent;      /* of a VM's memory by which two numbers may differ [5] */
    uint32_t lie_ms;         /* for so long, since they are not read at one moment [10000] */
    uint32_t starved_ms;     /* [30000] */
    uint32_t state_ms;       /* in hard or low for so long [60000] */
};
void watch_settings_default(struct watch_settings *settings);
int watch_settings_check(const struct watch_settings *settings, struct err *err);

/* ---- what goes in ---- */

#define WATCH_UNKNOWN UINT64_MAX /* of guest_*_bytes and active_pages */

/* One VM at one moment. Those of the second half are as its worker and its guest say. */
struct watch_row {
    bool running; /* neither starting, paused nor stopped: else nothing of the rest counts */
    uint64_t memory_pages, min_pages, target_pages, allocated_pages;
    uint64_t held_pages;        /* frames of its own, by the supervisor's records */
    uint64_t balloon_ask_pages; /* what the balloon was told to have */
    uint64_t refused_messages;  /* so far */
    bool balloon_driver;
    uint64_t balloon_pages;        /* in state ballooned, by the pmap's counts */
    uint64_t balloon_actual_pages; /* what the driver says it has */
    uint64_t counted_pages;        /* sum of the counts of all states */
    uint64_t counted_frames; /* those states that have a frame of the VM's own, and the pool */
    uint64_t active_pages, swap_in_pages;
    uint64_t guest_total_bytes, guest_free_bytes, guest_available_bytes;
};

struct watch_host_row {
    enum host_state state;
    uint64_t machine_pages, free_pages, granted_pages, shared_pages;
    uint64_t held_pages;       /* sum over all VMs */
    uint64_t check_violations; /* found by the last full check */
};

/* ---- what is remembered; all zero at first ---- */

enum watch_phase { WATCH_QUIET, WATCH_SUSPECT, WATCH_RAISED, WATCH_FADING, WATCH_PHASES };

struct watch_alert {
    enum watch_phase phase;
    uint64_t since_ns;  /* suspected */
    uint64_t gone_ns;   /* fading */
    uint64_t raised_ns; /* told as raised the last time; 0: never */
    uint64_t told_ns;
    uint64_t sightings; /* since told */
};

struct watch_vm {
    struct watch_alert alerts[WATCHERS];
    /* flapping */
    int direction; /* of the target's last swing: -1, 0 none yet, 1 */
    uint64_t extreme_pages;
    uint64_t turns_ns[WATCH_MOST_TURNS]; /* a ring */
    uint64_t turns;
    /* balloon-stalled */
    uint64_t grown_pages; /* size when it last grew */
    /* starved */
    uint64_t swap_in_pages, swap_in_ns; /* so far; when it last rose */
    uint64_t starved_from_pages;        /* swap_in_pages when it was suspected */
    uint64_t refused_messages;
    bool seen_before;
};

struct watch_host {
    struct watch_alert alerts[WATCHERS];
};

/* ---- what comes out ---- */

enum watch_news { WATCH_NEWS_RAISED, WATCH_NEWS_STILL, WATCH_NEWS_OVER };

#define WATCH_TEXT_BYTES 240
struct watch_note {
    enum watcher watcher;
    enum watch_news news;
    char text[WATCH_TEXT_BYTES]; /* begins with "raised: ", "still: " or "over: " */
};

/* The VM's target is this now. Call at every change, between looks. */
void watch_target(struct watch_vm *vm, const struct watch_settings *settings, uint64_t now_ns,
                  uint64_t target_pages, uint64_t memory_pages);

/* Look at a VM, or at the host. now_ns never goes back. Notes are written in the order of the
 * watchers; returns how many. */
unsigned watch_look(struct watch_vm *vm, const struct watch_settings *settings, uint64_t now_ns,
                    const struct watch_row *row, struct watch_note notes[WATCHERS]);
unsigned watch_look_at_host(struct watch_host *host, const struct watch_settings *settings,
                            uint64_t now_ns, const struct watch_host_row *row,
                            struct watch_note notes[WATCHERS]);

/* Has it been told as raised, and not as over? */
bool watch_is_raised(const struct watch_alert *alert);

#endif
