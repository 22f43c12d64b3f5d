/*
 * The four free-memory states of the host (paper, section 6.3).
 *
 * A threshold is the share of machine memory that is free. Falling below the
 * threshold of a lower state enters that state; a state is left upwards only
 * when free memory exceeds the threshold of the next higher one by a margin:
 *
 *      free    0 %       1 %       2 %       4 %       6 %     7.5 %
 *              |---------|---------|---------|---------|---------|-----
 *      down to |   low   |  hard   |  soft   |        high
 *      up to   |        low        |    hard   |    soft   |  high
 *                                 2.5 %       5 %         7.5 %
 *
 * Between a way down and the way back lies the hysteresis, so that free memory
 * that wobbles around one value changes the state at most once. The paper does
 * not print its margin; ours is 25 % of the threshold by default (so 6 % is left
 * behind at 7.5 %), and a setting.
 *
 * Fixed percentages keep tens of GiB free on a large machine, so later ESX slides
 * them: `sliding` takes as threshold of high the minimum free memory of ESX 5,
 *
 *      6 % of the first 4 GiB, 4 % of the next 8, 2 % of the next 16, 1 % of the rest
 *
 * and for soft, hard and low 64, 32 and 16 percent of that (F. Denneman,
 * "Mem.MinFreePct sliding scale function", frankdenneman.nl, 2011; D. Epping,
 * "MinFreePct 6% or should it be less?", yellow-bricks.com, 2011). Falling, rising
 * and hysteresis are the same.
 *
 * What each state allows is said in reclaim.h.
 */
#ifndef BALLAST_HOST_STATE_H
#define BALLAST_HOST_STATE_H

#include "vmm-core/err.h"

#include <stdbool.h>
#include <stdint.h>

enum host_state { HOST_HIGH = 0, HOST_SOFT, HOST_HARD, HOST_LOW, HOST_STATES };

struct state_thresholds {
    /* In percent of machine memory; high > soft > hard > low >= 0. */
    double high, soft, hard, low; /* default 6, 4, 2, 1 */
    double hysteresis; /* a state is left upwards above threshold * (1 + this), default 0.25 */
    bool sliding;      /* minimum free memory and parts of it instead, default false */
    /* In percent of the minimum free memory; 100 > soft > hard > low >= 0; default 64, 32, 16 */
    double sliding_soft, sliding_hard, sliding_low;
};

void state_thresholds_default(struct state_thresholds *thresholds);

/* 0, or -1 with err: not finite, out of order, high with its margin above 50 %, hysteresis
 * outside 0 .. 1. Both kinds are checked, whichever is in use. */
int state_thresholds_check(const struct state_thresholds *thresholds, struct err *err);

/* The state that follows previous when free_pages of machine_pages are free. May pass several
 * states at once, in either direction. */
enum host_state host_state_next(enum host_state previous, uint64_t free_pages,
                                uint64_t machine_pages, const struct state_thresholds *thresholds);

/* What ESX 5 keeps free on a machine of that size: the table above. */
uint64_t host_state_min_free_pages(uint64_t machine_pages);

/* The threshold of a state itself, in pages, without any margin. */
uint64_t host_state_threshold_pages(enum host_state state, uint64_t machine_pages,
                                    const struct state_thresholds *thresholds);

/* Free pages below which the host falls from a higher state into state (HOST_SOFT .. HOST_LOW;
 * 0 for HOST_HIGH): to watch between two rounds. */
uint64_t host_state_fall_pages(enum host_state state, uint64_t machine_pages,
                               const struct state_thresholds *thresholds);

/* Free pages above which the host rises from a lower state into state (HOST_HIGH .. HOST_HARD;
 * 0 for HOST_LOW). */
uint64_t host_state_rise_pages(enum host_state state, uint64_t machine_pages,
                               const struct state_thresholds *thresholds);

const char *host_state_name(enum host_state state); /* "high", "soft", "hard", "low" */

#endif
