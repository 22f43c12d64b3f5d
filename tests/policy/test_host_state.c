/* The four free-memory states: every path, both directions, and no flapping (paper, 6.3). */
#include "daemon/policy/host_state.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MACHINE 100000u /* so that 1000 pages are 1 % */

static struct state_thresholds standard(void)
{
    struct state_thresholds thresholds;
    state_thresholds_default(&thresholds);
    return thresholds;
}

static void every_path_of_the_states(void **unused)
{
    (void)unused;
    static const struct {
        enum host_state from;
        uint64_t free_pages;
        enum host_state to;
    } cases[] = {
        /* down, at the threshold of the lower state and not before */
        {HOST_HIGH, 100000, HOST_HIGH},
        {HOST_HIGH, 6000, HOST_HIGH},
        {HOST_HIGH, 4000, HOST_HIGH},
        {HOST_HIGH, 3999, HOST_SOFT},
        {HOST_SOFT, 2000, HOST_SOFT},
        {HOST_SOFT, 1999, HOST_HARD},
        {HOST_HARD, 1000, HOST_HARD},
        {HOST_HARD, 999, HOST_LOW},
        {HOST_LOW, 0, HOST_LOW},
        /* down through several at once */
        {HOST_HIGH, 1999, HOST_HARD},
        {HOST_HIGH, 999, HOST_LOW},
        {HOST_SOFT, 0, HOST_LOW},
        /* up, only beyond the higher state's threshold and its margin of a quarter */
        {HOST_LOW, 2000, HOST_LOW},
        {HOST_LOW, 2500, HOST_LOW},
        {HOST_LOW, 2501, HOST_HARD},
        {HOST_HARD, 4000, HOST_HARD},
        {HOST_HARD, 5000, HOST_HARD},
        {HOST_HARD, 5001, HOST_SOFT},
        {HOST_SOFT, 6000, HOST_SOFT},
        {HOST_SOFT, 7500, HOST_SOFT},
        {HOST_SOFT, 7501, HOST_HIGH},
        /* up through several at once */
        {HOST_LOW, 5001, HOST_SOFT},
        {HOST_LOW, 7501, HOST_HIGH},
        {HOST_HARD, 100000, HOST_HIGH},
    };
    struct state_thresholds thresholds = standard();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum host_state to =
            host_state_next(cases[i].from, cases[i].free_pages, MACHINE, &thresholds);
        if (to != cases[i].to)
            fail_msg("from %s with %llu pages free: %s, not %s", host_state_name(cases[i].from),
                     (unsigned long long)cases[i].free_pages, host_state_name(to),
                     host_state_name(cases[i].to));
    }
}

static unsigned changes_over_a_wobble(uint64_t centre, uint64_t width, double hysteresis)
{
    struct state_thresholds thresholds = standard();
    thresholds.hysteresis = hysteresis;
    /* Without a gap a state would be left upwards where it was entered. */
    if (hysteresis == 0)
        thresholds.high = thresholds.soft + 1e-6;
    enum host_state state = HOST_HIGH;
    unsigned changes = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t free_pages = i % 2 ? centre + width : centre - width;
        enum host_state next = host_state_next(state, free_pages, MACHINE, &thresholds);
        changes += next != state;
        state = next;
    }
    return changes;
}

static void free_memory_that_wobbles_changes_the_state_once(void **unused)
{
    (void)unused;
    assert_int_equal(changes_over_a_wobble(4000, 500, 0.25), 1);
    assert_int_equal(changes_over_a_wobble(2000, 300, 0.25), 1);
    assert_int_equal(changes_over_a_wobble(1000, 300, 0.25), 1);
    /* the same sequence does flap where the edges lie together */
    assert_true(changes_over_a_wobble(4000, 500, 0) > 900);
}

static void edges_say_where_the_states_change(void **unused)
{
    (void)unused;
    struct state_thresholds thresholds = standard();
    static const enum host_state order[] = {HOST_HIGH, HOST_SOFT, HOST_HARD, HOST_LOW};
    for (size_t i = 0; i + 1 < 4; i++) {
        uint64_t fall = host_state_fall_pages(order[i + 1], MACHINE, &thresholds);
        uint64_t rise = host_state_rise_pages(order[i], MACHINE, &thresholds);
        assert_int_equal(host_state_next(order[i], fall, MACHINE, &thresholds), order[i]);
        assert_int_equal(host_state_next(order[i], fall - 1, MACHINE, &thresholds), order[i + 1]);
        assert_int_equal(host_state_next(order[i + 1], rise, MACHINE, &thresholds), order[i + 1]);
        assert_int_equal(host_state_next(order[i + 1], rise + 1, MACHINE, &thresholds), order[i]);
    }
    assert_int_equal(host_state_fall_pages(HOST_HIGH, MACHINE, &thresholds), 0);
    assert_int_equal(host_state_rise_pages(HOST_LOW, MACHINE, &thresholds), 0);
}

static void minimum_free_memory_slides(void **unused)
{
    (void)unused;
    static const struct {
        double machine_mib, min_free_mib;
        const char *why;
    } cases[] = {
        {1024, 61.44, "6 % of the first 4 GiB"},
        {4096, 245.76, "all of that"},
        {12288, 245.76 + 327.68, "and 4 % of the next 8"},
        {28672, 245.76 + 327.68 + 327.68, "and 2 % of the next 16"},
        {130607, 1920.47, "esxtop's minfree of 1920 on a host with that much"},
        {1048576, 901.12 + 10199.04, "and 1 % of the rest"},
    };
    struct state_thresholds thresholds = standard();
    thresholds.sliding = true;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t machine = (uint64_t)(cases[i].machine_mib * 256);
        double expected = cases[i].min_free_mib * 256;
        double parts[HOST_STATES] = {100, 64, 32, 16};
        if (fabs((double)host_state_min_free_pages(machine) - expected) > 3)
            fail_msg("%s: %llu pages, not %g", cases[i].why,
                     (unsigned long long)host_state_min_free_pages(machine), expected);
        for (enum host_state state = HOST_HIGH; state < HOST_STATES; state++)
            assert_true(fabs((double)host_state_threshold_pages(state, machine, &thresholds) -
                             expected * parts[state] / 100) <= 3);
    }
    assert_int_equal(host_state_min_free_pages(0), 0);
    /* not sliding, the thresholds are the percentages */
    thresholds.sliding = false;
    assert_int_equal(host_state_threshold_pages(HOST_SOFT, 1000000, &thresholds), 40000);
}

/* Every path down and up, on machines of every bracket, by the edges that the thresholds say. */
static void sliding_states_have_the_same_paths(void **unused)
{
    (void)unused;
    struct state_thresholds thresholds = standard();
    thresholds.sliding = true;
    for (uint64_t gib = 1; gib <= 1024; gib *= 4) {
        uint64_t machine = gib << 18;
        for (enum host_state from = HOST_HIGH; from < HOST_STATES; from++)
            for (enum host_state to = HOST_HIGH; to < HOST_STATES; to++) {
                if (from == to)
                    continue;
                bool rises = to < from;
                uint64_t edge = rises ? host_state_rise_pages(to, machine, &thresholds)
                                      : host_state_fall_pages(to, machine, &thresholds);
                double threshold = (double)host_state_threshold_pages(to, machine, &thresholds);
                assert_true(fabs((double)edge - threshold * (rises ? 1.25 : 1)) <= 2);
                uint64_t beyond = rises ? edge + 1 : edge - 1;
                assert_int_equal(host_state_next(from, beyond, machine, &thresholds), to);
                assert_int_not_equal(host_state_next(from, edge, machine, &thresholds), to);
            }
    }
}

static void a_machine_of_a_few_pages_has_states_too(void **unused)
{
    (void)unused;
    struct state_thresholds thresholds = standard();
    for (uint64_t machine = 1; machine < 300; machine++)
        for (int from = HOST_HIGH; from < HOST_STATES; from++)
            for (uint64_t free_pages = 0; free_pages <= machine; free_pages++) {
                enum host_state once =
                    host_state_next((enum host_state)from, free_pages, machine, &thresholds);
                /* a second look at the same free memory changes nothing */
                assert_int_equal(host_state_next(once, free_pages, machine, &thresholds), once);
            }
}

static void impossible_thresholds_are_refused(void **unused)
{
    (void)unused;
    static const struct {
        struct state_thresholds thresholds;
        const char *says;
    } cases[] = {
        {{NAN, 4, 2, 1, 0.25, false, 64, 32, 16}, "finite"},
        {{6, 4, 2, 1, INFINITY, false, 64, 32, 16}, "finite"},
        {{4, 6, 2, 1, 0.25, false, 64, 32, 16}, "fall from high to low"},
        {{6, 4, 4, 1, 0.25, false, 64, 32, 16}, "fall from high to low"},
        {{6, 4, 2, -1, 0.25, false, 64, 32, 16}, "fall from high to low"},
        {{6, 4, 2, 1, -0.1, false, 64, 32, 16}, "hysteresis"},
        {{6, 4, 2, 1, 1.5, false, 64, 32, 16}, "hysteresis"},
        {{45, 4, 2, 1, 0.25, false, 64, 32, 16}, "half of the machine"},
        {{6, 4, 2, 1, 0.25, true, 100, 32, 16}, "minimum free memory"},
        {{6, 4, 2, 1, 0.25, true, 64, 64, 16}, "minimum free memory"},
        {{6, 4, 2, 1, 0.25, true, 64, 32, -1}, "minimum free memory"},
        {{6, 4, 2, 1, 0.25, true, 64, NAN, 16}, "finite"},
        {{6, 4, 2, 1, 0.25, false, 64, 32, 40}, "minimum free memory"}, /* though not in use */
    };
    struct err err;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(state_thresholds_check(&cases[i].thresholds, &err), -1);
        assert_non_null(strstr(err.text, cases[i].says));
    }
    struct state_thresholds thresholds = standard();
    assert_int_equal(state_thresholds_check(&thresholds, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_path_of_the_states),
        cmocka_unit_test(free_memory_that_wobbles_changes_the_state_once),
        cmocka_unit_test(edges_say_where_the_states_change),
        cmocka_unit_test(minimum_free_memory_slides),
        cmocka_unit_test(sliding_states_have_the_same_paths),
        cmocka_unit_test(a_machine_of_a_few_pages_has_states_too),
        cmocka_unit_test(impossible_thresholds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
