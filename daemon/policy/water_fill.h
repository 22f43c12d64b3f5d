/*
 * Water-filling: divide an amount in proportion to shares between bounds.
 *
 * Every party i gets clamp(base + shares * level, floor, ceiling) at one common
 * level, the highest at which the sum does not exceed the amount. That is where
 * min-funding revocation with tax 0 comes to rest (paper, section 5.1): what is
 * above its floor and below its ceiling has the same pages a share.
 */
#ifndef BALLAST_WATER_FILL_H
#define BALLAST_WATER_FILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Half a cache line, since a round walks over all of them several times: 2^32 pages are 16 TiB. */
struct water_vessel {
    uint32_t shares;
    uint32_t base_pages, floor_pages, ceiling_pages; /* base <= floor <= ceiling */
    uint32_t level_pages;                            /* the answer */
    uint32_t active_pages;                           /* not taxed */
    double idle_tax;                                 /* 0 .. 0.99, on the rest; 0: as without */
};

/*
 * Fill count vessels with amount_pages. If the floors alone exceed the amount
 * everyone gets the floor (and the sum exceeds it: only admission can prevent
 * that); otherwise the sum does not exceed it, and falls short by less than a
 * page a vessel, or because every vessel with shares is full. Returns the level:
 * 0 where the floors took it all, infinity where all are full.
 */
double water_fill(struct water_vessel *vessels, size_t count, uint64_t amount_pages);

#endif
