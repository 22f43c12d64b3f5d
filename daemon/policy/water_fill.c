#include "daemon/policy/water_fill.h"

/* Halving 1100 times would separate any two doubles; the loop ends when they are neighbours, after
 * about 60. */
#define MOST_HALVINGS 1100

static uint64_t fill_one(const struct water_vessel *vessel, double level)
{
    double pages = (double)vessel->base_pages + (double)vessel->shares * level;
    if (pages >= (double)vessel->ceiling_pages)
        return vessel->ceiling_pages;
    if (pages <= (double)vessel->floor_pages)
        return vessel->floor_pages;
    return (uint64_t)pages;
}

static uint64_t fill_all(const struct water_vessel *vessels, size_t count, double level)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += fill_one(&vessels[i], level);
    return sum;
}

void water_fill(struct water_vessel *vessels, size_t count, uint64_t amount_pages)
{
    double below = 0, above = 0; /* levels: the sum at below fits; at above everyone is full */
    for (size_t i = 0; i < count; i++) {
        if (vessels[i].shares == 0)
            continue;
        double full = (double)vessels[i].ceiling_pages / (double)vessels[i].shares;
        above = full > above ? full : above;
    }
    if (fill_all(vessels, count, above) <= amount_pages) {
        below = above;
    } else if (fill_all(vessels, count, 0) > amount_pages) {
        for (size_t i = 0; i < count; i++)
            vessels[i].level_pages = vessels[i].floor_pages;
        return;
    }
    for (int i = 0; i < MOST_HALVINGS; i++) {
        double middle = below + (above - below) / 2;
        if (middle <= below || middle >= above)
            break;
        if (fill_all(vessels, count, middle) <= amount_pages)
            below = middle;
        else
            above = middle;
    }
    for (size_t i = 0; i < count; i++)
        vessels[i].level_pages = fill_one(&vessels[i], below);
}
