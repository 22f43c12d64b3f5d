/*
 * How much of its memory a VM is using: statistical sampling (paper, section
 * 5.3). In every period of a VM's execution time n random pages lose their
 * mappings, and t of them are touched again: f = t / n. Three averages follow f,
 *
 *   slow   a moving average that changes slowly,
 *   fast   one that changes fast,
 *   next   fast with the period that is not over yet added to it,
 *
 * and the estimate is the largest of the three: a VM that begins to use memory is
 * believed at once, one that stops, slowly. The paper prints n = 100, 30 s; the
 * gains are ours, fitted to its Figure 6.
 */
#ifndef BALLAST_ACTIVE_H
#define BALLAST_ACTIVE_H

#include <stdbool.h>
#include <stdint.h>

struct active_settings {
    uint32_t sample_pages;       /* n [100] */
    uint64_t period_ns;          /* of the VM's execution time [30 s] */
    double slow_gain, fast_gain; /* 0 .. 1, weight of the newest period [0.25, 0.75] */
};
extern const struct active_settings active_settings_default;

struct active_estimate {
    bool known;        /* at least one period is over */
    double slow, fast; /* fractions of memory, 0 .. 1 */
};

/* A period is over: touched of sampled pages were. sampled 0 changes nothing. */
void active_period_over(struct active_estimate *estimate, const struct active_settings *settings,
                        uint32_t touched, uint32_t sampled);

/* fast with the counts of the unfinished period added; fast itself when nothing is sampled. */
double active_next(const struct active_estimate *estimate, const struct active_settings *settings,
                   uint32_t touched, uint32_t sampled);

/* The largest of slow, fast and next: the f of policy esx. */
double active_fraction(const struct active_estimate *estimate,
                       const struct active_settings *settings, uint32_t touched, uint32_t sampled);

#endif
