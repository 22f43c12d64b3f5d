#include "daemon/policy/active.h"

#include <math.h>

const struct active_settings active_settings_default = {
    .sample_pages = 100,
    .period_ns = UINT64_C(30000000000),
    .slow_gain = 0.25,
    .fast_gain = 0.75,
};

static double moved(double average, double gain, uint32_t touched, uint32_t sampled)
{
    double fraction = touched < sampled ? (double)touched / sampled : 1;
    return average + gain * (fraction - average);
}

void active_period_over(struct active_estimate *estimate, const struct active_settings *settings,
                        uint32_t touched, uint32_t sampled)
{
    if (sampled == 0)
        return;
    /* The first period is all there is to know; starting from 0 would call a busy VM idle. */
    estimate->slow =
        moved(estimate->slow, estimate->known ? settings->slow_gain : 1, touched, sampled);
    estimate->fast =
        moved(estimate->fast, estimate->known ? settings->fast_gain : 1, touched, sampled);
    estimate->known = true;
}

double active_next(const struct active_estimate *estimate, const struct active_settings *settings,
                   uint32_t touched, uint32_t sampled)
{
    return sampled ? moved(estimate->fast, settings->fast_gain, touched, sampled) : estimate->fast;
}

double active_fraction(const struct active_estimate *estimate,
                       const struct active_settings *settings, uint32_t touched, uint32_t sampled)
{
    return fmax(fmax(estimate->slow, estimate->fast),
                active_next(estimate, settings, touched, sampled));
}
