/* Water-filling, the arithmetic under policy `proportional`. */
#include "daemon/policy/water_fill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void the_table(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t amount;
        struct {
            uint32_t shares, base, floor, ceiling, level, active;
            double tax;
        } vessels[3];
    } cases[] = {
        /* equal shares, equal memory (paper 5.1 with tax 0; Figure 7's starting point) */
        {358, {{10, 0, 0, 256, 179, 0, 0}, {10, 0, 0, 256, 179, 0, 0}}},
        /* in proportion to shares */
        {300, {{10, 0, 0, 1000, 100, 0, 0}, {20, 0, 0, 1000, 200, 0, 0}}},
        /* a floor takes from the others */
        {300,
         {{10, 0, 200, 1000, 200, 0, 0}, {10, 0, 0, 1000, 50, 0, 0}, {10, 0, 0, 1000, 50, 0, 0}}},
        /* a ceiling leaves to the others, in turn */
        {300, {{10, 0, 0, 20, 20, 0, 0}, {10, 0, 0, 100, 100, 0, 0}, {10, 0, 0, 1000, 180, 0, 0}}},
        /* everyone full: the rest stays */
        {1000, {{1, 0, 0, 10, 10, 0, 0}, {7, 0, 5, 20, 20, 0, 0}}},
        /* floors alone are too much: floors */
        {100, {{1, 0, 60, 100, 60, 0, 0}, {9, 0, 70, 100, 70, 0, 0}}},
        /* no shares: the floor, whatever is left */
        {100, {{0, 0, 30, 100, 30, 0, 0}, {5, 0, 0, 100, 70, 0, 0}}},
        /* active memory is not taxed: 50 + (S level - 50) / 4 against S level (tax 75 %) */
        {250, {{10, 0, 0, 1000, 80, 50, 0.75}, {10, 0, 0, 1000, 170, 1000, 0.75}}},
        /* a base is given beforehand; the rise above it goes by shares */
        {160, {{10, 50, 50, 256, 80, 0, 0}, {10, 50, 50, 256, 80, 0, 0}}},
        {0, {{10, 0, 0, 256, 0, 0, 0}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct water_vessel vessels[3];
        size_t count = 0;
        for (; count < 3 && cases[i].vessels[count].ceiling; count++)
            vessels[count] = (struct water_vessel){
                .shares = cases[i].vessels[count].shares,
                .base_pages = cases[i].vessels[count].base,
                .floor_pages = cases[i].vessels[count].floor,
                .ceiling_pages = cases[i].vessels[count].ceiling,
                .active_pages = cases[i].vessels[count].active,
                .idle_tax = cases[i].vessels[count].tax,
            };
        water_fill(vessels, count, cases[i].amount);
        for (size_t j = 0; j < count; j++)
            if (vessels[j].level_pages != cases[i].vessels[j].level)
                fail_msg("case %zu vessel %zu: %llu, not %llu", i, j,
                         (unsigned long long)vessels[j].level_pages,
                         (unsigned long long)cases[i].vessels[j].level);
    }
    water_fill(NULL, 0, 100); /* nobody there */
}

static void extreme_shares_keep_the_sum(void **unused)
{
    (void)unused;
    struct water_vessel vessels[] = {
        {.shares = 1, .ceiling_pages = 1u << 28},
        {.shares = UINT32_MAX, .ceiling_pages = 1u << 28},
        {.shares = 1000, .floor_pages = 7, .ceiling_pages = 1u << 20},
    };
    for (uint64_t amount = 7; amount < (UINT64_C(1) << 30); amount = amount * 3 + 1) {
        uint64_t sum = 0;
        water_fill(vessels, 3, amount);
        for (int i = 0; i < 3; i++)
            sum += vessels[i].level_pages;
        assert_true(sum <= amount);
        if (amount < (1u << 28))
            assert_true(sum + 3 >= amount);
    }
}

/* Pages of a vessel at a level, unrounded. */
static double pages_at(const struct water_vessel *v, double level)
{
    double paid = (double)v->shares * level, active = (double)v->active_pages;
    if (paid > active)
        paid = active + (paid - active) * (1 - v->idle_tax);
    double pages = v->shares ? (double)v->base_pages + paid : 0;
    pages = pages > (double)v->ceiling_pages ? (double)v->ceiling_pages : pages;
    return pages < (double)v->floor_pages ? (double)v->floor_pages : pages;
}

/* The level found is the highest that fits, as far as doubles tell: a search by halving that knows
 * nothing of bends agrees. */
static void agree_with_halving(struct water_vessel *vessels, size_t count, uint64_t amount,
                               const char *what, int trial)
{
    uint64_t sum = 0, ceilings = 0;
    double low = 0, high = 1e9;
    water_fill(vessels, count, amount);
    for (size_t i = 0; i < count; i++) {
        const struct water_vessel *v = &vessels[i];
        if (v->level_pages < v->floor_pages || v->level_pages > v->ceiling_pages)
            fail_msg("%s %d vessel %zu: %u of %u to %u", what, trial, i, v->level_pages,
                     v->floor_pages, v->ceiling_pages);
        sum += v->level_pages;
        ceilings += v->shares ? v->ceiling_pages : v->floor_pages;
    }
    if (sum > amount || (sum + count < amount && sum != ceilings))
        fail_msg("%s %d: %llu pages of %llu", what, trial, (unsigned long long)sum,
                 (unsigned long long)amount);
    for (int halving = 0; halving < 100; halving++) {
        double middle = (low + high) / 2;
        double total = 0;
        for (size_t i = 0; i < count; i++)
            total += pages_at(&vessels[i], middle);
        *(total <= (double)amount ? &low : &high) = middle;
    }
    for (size_t i = 0; i < count && low > 0; i++) {
        double pages = pages_at(&vessels[i], low), is = (double)vessels[i].level_pages;
        if ((is > pages + 1.001 || is < pages - 1.001))
            fail_msg("%s %d vessel %zu: %g, by halving %g", what, trial, i, is, pages);
    }
}

static struct water_vessel random_vessel(void)
{
    uint32_t ceiling = (uint32_t)(rand() % 5000);
    struct water_vessel vessel = {
        .shares = (uint32_t)(rand() % 4 ? rand() % 1000 : 0),
        .floor_pages = ceiling ? (uint32_t)rand() % ceiling / (uint32_t)(1 + rand() % 9) : 0,
        .ceiling_pages = ceiling,
        .active_pages = (uint32_t)(rand() % 6000),
        .idle_tax = rand() % 2 ? 0 : (rand() % 100) / 100.0,
    };
    if (rand() % 3 == 0)
        vessel.base_pages = vessel.floor_pages;
    return vessel;
}

/* An amount between what the floors take and what all can hold. */
static uint64_t random_amount(const struct water_vessel *vessels, size_t count)
{
    uint64_t floors = 0, ceilings = 0;
    for (size_t i = 0; i < count; i++) {
        floors += vessels[i].floor_pages;
        ceilings += vessels[i].shares ? vessels[i].ceiling_pages : vessels[i].floor_pages;
    }
    double part = rand() / (double)RAND_MAX;
    return floors + (uint64_t)(part * (double)(ceilings - floors));
}

static void random_vessels_agree_with_halving(void **unused)
{
    (void)unused;
    srand(5);
    for (int trial = 0; trial < 3000; trial++) {
        struct water_vessel vessels[20];
        size_t count = (size_t)(1 + rand() % 20);
        for (size_t i = 0; i < count; i++)
            vessels[i] = random_vessel();
        agree_with_halving(vessels, count, random_amount(vessels, count), "trial", trial);
    }
}

/* So many that two bends are chosen by a sample, and crowds in which a sample misleads. */
static void crowds_agree_with_halving(void **unused)
{
    (void)unused;
    enum { MOST = 9000 };
    static const char *const kinds[] = {"any",      "all the same", "one giant",  "two kinds",
                                        "no bends", "in order",     "few shares", "all bend low"};
    struct water_vessel *vessels = malloc(MOST * sizeof *vessels);
    assert_non_null(vessels);
    srand(6);
    for (int trial = 0; trial < 80; trial++) {
        int kind = trial % 8;
        size_t count = 2000 + (size_t)(rand() % (MOST - 2000));
        struct water_vessel same = random_vessel(), other = random_vessel();
        same.shares = other.shares = 1 + (uint32_t)rand() % 1000;
        for (size_t i = 0; i < count; i++) {
            struct water_vessel *v = &vessels[i];
            *v = kind == 1 || kind == 4 ? same : kind == 3 && i % 7 ? other : random_vessel();
            if (kind == 4)
                v->floor_pages = v->base_pages = v->ceiling_pages;
            if (kind == 5)
                v->ceiling_pages += (uint32_t)(10 * i);
            if (kind == 6)
                v->shares = i % 500 == 0;
            if (kind == 7)
                v->shares = v->shares ? v->shares * 4000000 : 0;
        }
        if (kind == 2)
            vessels[count / 2] =
                (struct water_vessel){.shares = 4000000000u, .ceiling_pages = 4000000000u};
        agree_with_halving(vessels, count, random_amount(vessels, count), kinds[kind], trial);
    }
    free(vessels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(extreme_shares_keep_the_sum),
        cmocka_unit_test(random_vessels_agree_with_halving),
        cmocka_unit_test(crowds_agree_with_halving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
