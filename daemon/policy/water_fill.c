/*
 * What a vessel holds is a rising line of at most four straight pieces over the
 * level: floor, growing, growing at 1 - tax, ceiling. The common level is found
 * like the k-th element in quickselect: a bend of some vessel is tried, the half
 * in which the sum meets the amount stays, and every vessel that is straight in
 * that half is added to one line and done with. Expected time linear in count.
 */
#include "daemon/policy/water_fill.h"

#include <math.h>

enum piece { AT_FLOOR, ACTIVE, TAXED, FULL };

/* Pages before clamping, at paid = shares * level. */
static double unbounded(const struct water_vessel *v, double level)
{
    double paid = (double)v->shares * level, active = (double)v->active_pages;
    if (paid > active)
        paid = active + (paid - active) * (1 - v->idle_tax);
    return (double)v->base_pages + paid;
}

/* The level at which a vessel with shares holds pages. */
static double level_of(const struct water_vessel *v, uint64_t pages)
{
    double paid = (double)pages - (double)v->base_pages, active = (double)v->active_pages;
    if (paid > active)
        paid = active + (paid - active) / (1 - v->idle_tax);
    return paid > 0 ? paid / (double)v->shares : 0;
}

static uint64_t fill_one(const struct water_vessel *v, double level)
{
    double pages = v->shares ? unbounded(v, level) : 0;
    if (pages >= (double)v->ceiling_pages)
        return v->ceiling_pages;
    if (pages <= (double)v->floor_pages)
        return v->floor_pages;
    return (uint64_t)pages;
}

/* Fill everyone to a level. Returns the sum. */
static uint64_t fill_all(struct water_vessel *vessels, size_t count, double level)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += vessels[i].level_pages = fill_one(&vessels[i], level);
    return sum;
}

/* A line sum = at_zero + slope * level. */
struct line {
    double at_zero, slope;
};

/* Which piece a vessel is on just above (or just below) a level. */
static enum piece piece_at(const struct water_vessel *v, double level, bool just_above)
{
    const struct water_bends *b = &v->bends;
    if (just_above ? level < b->leaves_floor : level <= b->leaves_floor)
        return AT_FLOOR;
    if (just_above ? level >= b->full : level > b->full)
        return FULL;
    return (just_above ? level < b->taxed : level <= b->taxed) ? ACTIVE : TAXED;
}

static void add_piece(struct line *line, const struct water_vessel *v, enum piece piece)
{
    double keep = 1 - v->idle_tax;
    switch (piece) {
    case AT_FLOOR:
        line->at_zero += (double)v->floor_pages;
        break;
    case ACTIVE:
        line->at_zero += (double)v->base_pages;
        line->slope += (double)v->shares;
        break;
    case TAXED:
        line->at_zero += (double)v->base_pages + (double)v->active_pages * v->idle_tax;
        line->slope += (double)v->shares * keep;
        break;
    case FULL:
        line->at_zero += (double)v->ceiling_pages;
        break;
    }
}

static void find_bends(struct water_vessel *v)
{
    double full = level_of(v, v->ceiling_pages), floor = level_of(v, v->floor_pages);
    v->bends = (struct water_bends){
        .leaves_floor = fmin(floor, full),
        .taxed = (double)v->active_pages / (double)v->shares,
        .full = full,
    };
}

/* A bend of the vessel inside (below, above); there is one, since it is not straight there. */
static double bend_between(const struct water_vessel *v, double below, double above)
{
    const double bends[] = {v->bends.taxed, v->bends.leaves_floor, v->bends.full};
    for (int i = 0; i < 3; i++)
        if (bends[i] > below && bends[i] < above)
            return bends[i];
    return below;
}

/* Move the vessels that are straight between the levels from the list into the line. Returns how
 * many are left. */
static size_t sort_out(struct water_vessel *vessels, size_t left, double below, double above,
                       struct line *line)
{
    size_t kept = 0;
    for (size_t i = 0; i < left; i++) {
        size_t at = vessels[i].place;
        const struct water_vessel *v = &vessels[at];
        enum piece low = piece_at(v, below, true), high = piece_at(v, above, false);
        if (low == high || bend_between(v, below, above) == below)
            add_piece(line, v, low);
        else
            vessels[kept++].place = at;
    }
    return kept;
}

/* The level at which the unrounded sum is the amount; everyone full is more than that. */
static double common_level(struct water_vessel *vessels, size_t count, double amount)
{
    struct line line = {0};
    double below = 0, above = INFINITY;
    size_t left = 0;
    uint64_t random = 1;
    for (size_t i = 0; i < count; i++) {
        if (vessels[i].shares == 0) {
            line.at_zero += (double)vessels[i].floor_pages;
            continue;
        }
        find_bends(&vessels[i]);
        vessels[left++].place = i;
    }
    while ((left = sort_out(vessels, left, below, above, &line)) > 0) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407u;
        const struct water_vessel *chosen = &vessels[vessels[(random >> 33) % left].place];
        double middle = bend_between(chosen, below, above);
        double sum = line.at_zero + line.slope * middle;
        for (size_t i = 0; i < left; i++) {
            const struct water_vessel *v = &vessels[vessels[i].place];
            sum +=
                fmax(fmin(unbounded(v, middle), (double)v->ceiling_pages), (double)v->floor_pages);
        }
        if (sum <= amount)
            below = middle;
        else
            above = middle;
    }
    if (line.slope <= 0)
        return below;
    return fmin(fmax((amount - line.at_zero) / line.slope, below), above);
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
