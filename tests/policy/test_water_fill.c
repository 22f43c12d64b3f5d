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
        struct water_vessel vessels[3]; /* shares, base, floor, ceiling, expected level */
    } cases[] = {
        /* equal shares, equal memory (paper 5.1 with tax 0; Figure 7's starting point) */
        {358, {{10, 0, 0, 256, 179}, {10, 0, 0, 256, 179}}},
        /* in proportion to shares */
        {300, {{10, 0, 0, 1000, 100}, {20, 0, 0, 1000, 200}}},
        /* a floor takes from the others */
        {300, {{10, 0, 200, 1000, 200}, {10, 0, 0, 1000, 50}, {10, 0, 0, 1000, 50}}},
        /* a ceiling leaves to the others, in turn */
        {300, {{10, 0, 0, 20, 20}, {10, 0, 0, 100, 100}, {10, 0, 0, 1000, 180}}},
        /* everyone full: the rest stays */
        {1000, {{1, 0, 0, 10, 10}, {7, 0, 5, 20, 20}}},
        /* floors alone are too much: floors */
        {100, {{1, 0, 60, 100, 60}, {9, 0, 70, 100, 70}}},
        /* no shares: the floor, whatever is left */
        {100, {{0, 0, 30, 100, 30}, {5, 0, 0, 100, 70}}},
        /* a base is given beforehand; the rise above it goes by shares */
        {160, {{10, 50, 50, 256, 80}, {10, 50, 50, 256, 80}}},
        {0, {{10, 0, 0, 256, 0}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct water_vessel vessels[3];
        size_t count = 0;
        while (count < 3 && cases[i].vessels[count].ceiling_pages)
            vessels[count] = cases[i].vessels[count], count++;
        water_fill(vessels, count, cases[i].amount);
        for (size_t j = 0; j < count; j++)
            if (vessels[j].level_pages != cases[i].vessels[j].level_pages)
                fail_msg("case %zu vessel %zu: %llu, not %llu", i, j,
                         (unsigned long long)vessels[j].level_pages,
                         (unsigned long long)cases[i].vessels[j].level_pages);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table),
        cmocka_unit_test(extreme_shares_keep_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
