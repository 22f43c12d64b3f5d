#include "ksm/scan_pace.h"

#include <math.h>

const struct scan_pace_settings scan_pace_defaults = {
    .min_pages_per_second = 50,
    .max_pages_per_second = 100000,
    .cpu_share = 0.02,
    .found_per_pages = 500,
};

uint64_t scan_pace_next(struct scan_pace *pace, const struct scan_pace_settings *settings,
                        const struct scan_period *period, uint64_t next_ns)
{
    double rate = pace->pages_per_second;
    double most = settings->max_pages_per_second, least = settings->min_pages_per_second;
    if (!(most >= 0) || !(least >= 0) || !(settings->cpu_share >= 0))
        return 0;
    if (!(rate >= 0))
        rate = least;

    if (period->visited_pages) {
        double found = (double)period->found_pages;
        if (found * settings->found_per_pages >= (double)period->visited_pages)
            rate *= 2;
        else if (period->found_pages == 0)
            rate /= 2;
    }
    rate = fmin(fmax(rate, least), most);

    /* The budget has the last word: it holds below the floor too. */
    if (period->visited_pages && period->cpu_ns) {
        double cpu_ns_a_page = (double)period->cpu_ns / (double)period->visited_pages;
        rate = fmin(rate, settings->cpu_share * 1e9 / cpu_ns_a_page);
    }
    pace->pages_per_second = rate;

    double pages = rate * (double)next_ns / 1e9 + pace->carry_pages;
    double whole = floor(fmin(pages, 1e9));
    pace->carry_pages = fmin(pages - whole, 1);
    return (uint64_t)whole;
}
