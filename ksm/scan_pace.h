/*
 * How fast to look for pages to share: a pure function from what the last period
 * found and cost to the pages of the next one.
 *
 * Paper, section 4.3: background scanning at a fixed rate a VM and a host-wide
 * limit. Ours adapts between a floor and that limit: a period in which at least
 * one page in found_per_pages was new sharing doubles the rate, one without any
 * halves it, and a period that cost more than its CPU budget is scaled back to
 * it. So a fresh host is covered quickly and a settled one is nearly free.
 */
#ifndef BALLAST_SCAN_PACE_H
#define BALLAST_SCAN_PACE_H

#include <stdint.h>

struct scan_pace_settings {
    double min_pages_per_second;
    double max_pages_per_second;
    double cpu_share;       /* most CPU time a second of time: 0.02 is 2 % of a core */
    double found_per_pages; /* one found in this many visited pages counts as "finding" */
};

struct scan_pace {
    double pages_per_second; /* start with settings->max_pages_per_second */
    double carry_pages;      /* part of a page left over from the last period */
};

struct scan_period {
    uint64_t elapsed_ns; /* since the last call */
    uint64_t cpu_ns;     /* spent on scanning in it */
    uint64_t visited_pages;
    uint64_t found_pages; /* newly shared, or may be in the next pass */
};

/* Default settings: 50 to 100,000 pages/s, 2 % of a core, one in 500. */
extern const struct scan_pace_settings scan_pace_defaults;

/* scan_pace_next: update *pace by what the period told and return the pages to visit in the next
 * period, which is expected to last next_ns. Nonsense (NaN, negative settings) gives 0 pages. */
uint64_t scan_pace_next(struct scan_pace *pace, const struct scan_pace_settings *settings,
                        const struct scan_period *period, uint64_t next_ns);

#endif
