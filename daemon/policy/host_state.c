#include "daemon/policy/host_state.h"

#include <math.h>
#include <stddef.h>

/*
 * Every transition there is. Falling compares with the threshold itself, rising
 * with the threshold and its margin; since each threshold's two edges are apart,
 * no two rows can send the host back and forth at one value.
 */
static const struct transition {
    enum host_state from, to; /* compared with the threshold of to */
    bool rises;
} transitions[] = {
    {HOST_HIGH, HOST_SOFT, false}, {HOST_SOFT, HOST_HARD, false}, {HOST_HARD, HOST_LOW, false},
    {HOST_LOW, HOST_HARD, true},   {HOST_HARD, HOST_SOFT, true},  {HOST_SOFT, HOST_HIGH, true},
};
#define TRANSITIONS (sizeof transitions / sizeof transitions[0])

/* Frames are 4 KiB: 2^18 of them are a GiB. The last step has no end. */
static const struct {
    uint64_t up_to_pages;
    double percent;
} min_free_steps[] = {
    {UINT64_C(4) << 18, 6},
    {UINT64_C(12) << 18, 4},
    {UINT64_C(28) << 18, 2},
    {UINT64_MAX, 1},
};

static double min_free(uint64_t machine_pages)
{
    double pages = 0;
    uint64_t below = 0;
    for (size_t i = 0; below < machine_pages; i++) {
        uint64_t end = min_free_steps[i].up_to_pages;
        if (end > machine_pages)
            end = machine_pages;
        pages += (double)(end - below) * min_free_steps[i].percent / 100;
        below = end;
    }
    return pages;
}

uint64_t host_state_min_free_pages(uint64_t machine_pages)
{
    return (uint64_t)ceil(min_free(machine_pages));
}

static double threshold(enum host_state state, uint64_t machine_pages,
                        const struct state_thresholds *t)
{
    const double fixed[HOST_STATES] = {t->high, t->soft, t->hard, t->low};
    const double parts[HOST_STATES] = {100, t->sliding_soft, t->sliding_hard, t->sliding_low};
    return t->sliding ? min_free(machine_pages) * parts[state] / 100
                      : (double)machine_pages * fixed[state] / 100;
}

uint64_t host_state_threshold_pages(enum host_state state, uint64_t machine_pages,
                                    const struct state_thresholds *thresholds)
{
    return (uint64_t)ceil(threshold(state, machine_pages, thresholds));
}

static uint64_t edge_pages(const struct transition *transition, uint64_t machine_pages,
                           const struct state_thresholds *thresholds)
{
    double pages = threshold(transition->to, machine_pages, thresholds);
    return (uint64_t)ceil(transition->rises ? pages * (1 + thresholds->hysteresis) : pages);
}

static bool fires(const struct transition *transition, uint64_t free_pages, uint64_t machine_pages,
                  const struct state_thresholds *thresholds)
{
    uint64_t edge = edge_pages(transition, machine_pages, thresholds);
    return transition->rises ? free_pages > edge : free_pages < edge;
}

void state_thresholds_default(struct state_thresholds *thresholds)
{
    *thresholds = (struct state_thresholds){.high = 6,
                                            .soft = 4,
                                            .hard = 2,
                                            .low = 1,
                                            .hysteresis = 0.25,
                                            .sliding_soft = 64,
                                            .sliding_hard = 32,
                                            .sliding_low = 16};
}

int state_thresholds_check(const struct state_thresholds *t, struct err *err)
{
    if (!isfinite(t->high) || !isfinite(t->soft) || !isfinite(t->hard) || !isfinite(t->low) ||
        !isfinite(t->hysteresis) || !isfinite(t->sliding_soft) || !isfinite(t->sliding_hard) ||
        !isfinite(t->sliding_low))
        return err_set(err, 0, "a free-memory threshold is not a finite number");
    if (t->low < 0 || !(t->high > t->soft && t->soft > t->hard && t->hard > t->low))
        return err_set(err, 0,
                       "free-memory thresholds must fall from high to low, "
                       "but are %g, %g, %g and %g %%",
                       t->high, t->soft, t->hard, t->low);
    if (t->sliding_low < 0 || !(t->sliding_soft < 100 && t->sliding_soft > t->sliding_hard &&
                                t->sliding_hard > t->sliding_low))
        return err_set(err, 0,
                       "parts of the minimum free memory must fall from 100 %% through soft and "
                       "hard to low, but are %g, %g and %g %%",
                       t->sliding_soft, t->sliding_hard, t->sliding_low);
    if (t->hysteresis < 0 || t->hysteresis > 1)
        return err_set(err, 0, "hysteresis %g is outside 0 .. 1", t->hysteresis);
    if (t->high * (1 + t->hysteresis) > 50)
        return err_set(err, 0, "high threshold %g %% with its margin is above half of the machine",
                       t->high);
    return 0;
}

enum host_state host_state_next(enum host_state previous, uint64_t free_pages,
                                uint64_t machine_pages, const struct state_thresholds *thresholds)
{
    enum host_state state = previous;
    for (size_t i = 0; i < TRANSITIONS; i++) /* in table order one pass follows a whole slide */
        if (transitions[i].from == state &&
            fires(&transitions[i], free_pages, machine_pages, thresholds))
            state = transitions[i].to;
    return state;
}

static uint64_t edge_into(enum host_state state, bool rises, uint64_t machine_pages,
                          const struct state_thresholds *thresholds)
{
    for (size_t i = 0; i < TRANSITIONS; i++)
        if (transitions[i].to == state && transitions[i].rises == rises)
            return edge_pages(&transitions[i], machine_pages, thresholds);
    return 0;
}

uint64_t host_state_fall_pages(enum host_state state, uint64_t machine_pages,
                               const struct state_thresholds *thresholds)
{
    return edge_into(state, false, machine_pages, thresholds);
}

uint64_t host_state_rise_pages(enum host_state state, uint64_t machine_pages,
                               const struct state_thresholds *thresholds)
{
    return edge_into(state, true, machine_pages, thresholds);
}

const char *host_state_name(enum host_state state)
{
    static const char *const names[HOST_STATES] = {"high", "soft", "hard", "low"};
    return (unsigned)state < HOST_STATES ? names[state] : "unknown";
}
