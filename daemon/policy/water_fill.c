/*
 * What a vessel holds is a rising line of at most four straight pieces over the
 * level: floor, growing, growing at 1 - tax, ceiling. The common level is found by
 * closing in on it: the sum is taken at one or two bends, the stretch in which it
 * meets the amount stays, and every vessel that is straight in that stretch is added
 * to one line and done with.
 *
 * While many vessels are left, the two bends are chosen by a sample of them, just
 * below and just above where the sample meets its part of the amount. The stretch
 * between them holds few bends, so most vessels are looked at once or twice. A
 * sample that misleads costs another turn. With few left one bend of some vessel
 * is tried at a time, as in quickselect. Expected time linear in count.
 */
#include "daemon/policy/water_fill.h"

#include <math.h>
#include <stdlib.h>

#define SAMPLE_VESSELS 256u  /* looked at to choose two bends */
#define SAMPLE_FROM    2048u /* vessels left: with fewer, choosing costs more than it saves */
#define SAMPLE_MARGIN  24u   /* bends of the sample on either side of where it meets the amount */

enum piece { AT_FLOOR, ACTIVE, TAXED, FULL };

/* Levels at which a vessel's line bends. */
struct bends {
    double leaves_floor, taxed, full;
};

/* Pages before clamping, at paid = shares * level. */
static double unbounded(const struct water_vessel *v, double level)
{
    double paid = v->shares * level, active = v->active_pages;
    if (paid > active)
        paid = active + (paid - active) * (1 - v->idle_tax);
    return v->base_pages + paid;
}

static double bounded(const struct water_vessel *v, double level)
{
    double pages = unbounded(v, level), floor = v->floor_pages, ceiling = v->ceiling_pages;
    return pages <= floor ? floor : pages >= ceiling ? ceiling : pages;
}

/* The level at which a vessel with shares holds pages. */
static double level_of(const struct water_vessel *v, uint32_t pages)
{
    double paid = (double)pages - v->base_pages, active = v->active_pages;
    if (paid > active)
        paid = active + (paid - active) / (1 - v->idle_tax);
    return paid > 0 ? paid / v->shares : 0;
}

/* Fill everyone to a level. Returns the sum. */
static uint64_t fill_all(struct water_vessel *vessels, size_t count, double level)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        struct water_vessel *v = &vessels[i];
        v->level_pages = v->shares ? (uint32_t)bounded(v, level) : v->floor_pages;
        sum += v->level_pages;
    }
    return sum;
}

/* A line sum = at_zero + slope * level. */
struct line {
    double at_zero, slope;
};

static struct bends bends_of(const struct water_vessel *v)
{
    double full = level_of(v, v->ceiling_pages), floor = level_of(v, v->floor_pages);
    return (struct bends){
        .leaves_floor = floor < full ? floor : full,
        .taxed = (double)v->active_pages / v->shares,
        .full = full,
    };
}

/* Which piece a vessel is on just above (or just below) a level. */
static enum piece piece_at(const struct bends *b, double level, bool just_above)
{
    if (just_above ? level < b->leaves_floor : level <= b->leaves_floor)
        return AT_FLOOR;
    if (just_above ? level >= b->full : level > b->full)
        return FULL;
    return (just_above ? level < b->taxed : level <= b->taxed) ? ACTIVE : TAXED;
}

static void add_piece(struct line *line, const struct water_vessel *v, enum piece piece)
{
    switch (piece) {
    case AT_FLOOR:
        line->at_zero += v->floor_pages;
        break;
    case ACTIVE:
        line->at_zero += v->base_pages;
        line->slope += v->shares;
        break;
    case TAXED:
        line->at_zero += v->base_pages + v->active_pages * v->idle_tax;
        line->slope += v->shares * (1 - v->idle_tax);
        break;
    case FULL:
        line->at_zero += v->ceiling_pages;
        break;
    }
}

/* The stretch of levels that is left, and what of the vessels is. Their places stand in the
 * level_pages of the first ones, which are written at the end only. */
struct search {
    struct water_vessel *vessels;
    size_t left;
    struct line line; /* of the vessels that are done with */
    double below, above, amount;
    uint64_t random;
};

static const struct water_vessel *vessel_left(const struct search *search, size_t i)
{
    return &search->vessels[search->vessels[i].level_pages];
}

/* Bends of the vessel inside the stretch, into list. */
static unsigned bends_inside(const struct search *search, const struct bends *b, double *list)
{
    const double bends[] = {b->taxed, b->leaves_floor, b->full};
    unsigned count = 0;
    for (int i = 0; i < 3; i++)
        if (bends[i] > search->below && bends[i] < search->above)
            list[count++] = bends[i];
    return count;
}

/* Move the vessels that are straight in the stretch from the list into the line. */
static void sort_out(struct search *search)
{
    size_t kept = 0;
    for (size_t i = 0; i < search->left; i++) {
        uint32_t place = search->vessels[i].level_pages;
        const struct water_vessel *v = &search->vessels[place];
        struct bends bends = bends_of(v);
        enum piece low = piece_at(&bends, search->below, true);
        enum piece high = piece_at(&bends, search->above, false);
        double list[3];
        if (low == high || bends_inside(search, &bends, list) == 0)
            add_piece(&search->line, v, low);
        else
            search->vessels[kept++].level_pages = place;
    }
    search->left = kept;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

/* Choose low <= high inside the stretch, both bends of vessels that are left. */
static void choose_one(struct search *search, double *low, double *high)
{
    double list[3];
    search->random = search->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    struct bends bends = bends_of(vessel_left(search, (search->random >> 33) % search->left));
    bends_inside(search, &bends, list);
    *low = *high = list[0];
}

/* false: none of the sample bends there. */
static bool choose_two(struct search *search, double *low, double *high)
{
    const struct water_vessel *sample[SAMPLE_VESSELS];
    double bends[3 * SAMPLE_VESSELS];
    size_t count = 0;
    for (size_t i = 0; i < SAMPLE_VESSELS; i++) {
        search->random = search->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        sample[i] = vessel_left(search, (search->random >> 33) % search->left);
        struct bends its = bends_of(sample[i]);
        count += bends_inside(search, &its, &bends[count]);
    }
    if (count == 0)
        return false;
    qsort(bends, count, sizeof *bends, by_value);
    /* Of the sorted bends, the first at which the sample holds more than its part. */
    double weight = (double)search->left / SAMPLE_VESSELS;
    size_t first = 0, last = count;
    while (first < last) {
        size_t middle = (first + last) / 2;
        double sum = 0;
        for (size_t i = 0; i < SAMPLE_VESSELS; i++)
            sum += bounded(sample[i], bends[middle]);
        sum = search->line.at_zero + search->line.slope * bends[middle] + weight * sum;
        if (sum <= search->amount)
            first = middle + 1;
        else
            last = middle;
    }
    *low = bends[first > SAMPLE_MARGIN ? first - SAMPLE_MARGIN : 0];
    *high = bends[first + SAMPLE_MARGIN < count ? first + SAMPLE_MARGIN : count - 1];
    return true;
}

/* Take the sum at both levels and keep the stretch in which it meets the amount. */
static void close_in(struct search *search, double low, double high)
{
    double at_low = search->line.at_zero + search->line.slope * low;
    double at_high = search->line.at_zero + search->line.slope * high;
    for (size_t i = 0; i < search->left; i++) {
        const struct water_vessel *v = vessel_left(search, i);
        at_low += bounded(v, low);
        at_high += bounded(v, high);
    }
    if (at_low > search->amount) {
        search->above = low;
    } else if (at_high <= search->amount) {
        search->below = high;
    } else {
        search->below = low;
        search->above = high;
    }
}

/* The level at which the unrounded sum is the amount; everyone full is more than that. */
static double common_level(struct water_vessel *vessels, size_t count, double amount)
{
    struct search search = {.vessels = vessels, .above = INFINITY, .amount = amount, .random = 1};
    for (size_t i = 0; i < count; i++) {
        if (vessels[i].shares == 0)
            search.line.at_zero += vessels[i].floor_pages;
        else
            vessels[search.left++].level_pages = (uint32_t)i;
    }
    /* At first the stretch is all levels: few vessels are straight, and none is looked for. */
    double low, high;
    if (search.left >= SAMPLE_FROM && choose_two(&search, &low, &high))
        close_in(&search, low, high);
    for (sort_out(&search); search.left > 0; sort_out(&search)) {
        if (search.left < SAMPLE_FROM || !choose_two(&search, &low, &high))
            choose_one(&search, &low, &high);
        close_in(&search, low, high);
    }
    if (search.line.slope <= 0)
        return search.below;
    double level = (amount - search.line.at_zero) / search.line.slope;
    return fmin(fmax(level, search.below), search.above);
}

double water_fill(struct water_vessel *vessels, size_t count, uint64_t amount_pages)
{
    uint64_t floors = 0, ceilings = 0;
    for (size_t i = 0; i < count; i++) {
        floors += vessels[i].floor_pages;
        ceilings += vessels[i].shares ? vessels[i].ceiling_pages : vessels[i].floor_pages;
    }
    if (floors >= amount_pages || ceilings <= amount_pages) {
        bool full = ceilings <= amount_pages;
        for (size_t i = 0; i < count; i++)
            vessels[i].level_pages =
                full && vessels[i].shares ? vessels[i].ceiling_pages : vessels[i].floor_pages;
        return full ? INFINITY : 0;
    }
    /* Rounding may put the level a hair below the pages it stands for: a hair more, if it fits. */
    double level = common_level(vessels, count, (double)amount_pages) * (1 + 1e-12);
    while (fill_all(vessels, count, level) > amount_pages)
        level *= 1 - 1e-12;
    return level;
}
