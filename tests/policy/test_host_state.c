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
        {{NAN, 4, 2, 1, 0.25}, "finite"},
        {{6, 4, 2, 1, INFINITY}, "finite"},
        {{4, 6, 2, 1, 0.25}, "fall from high to low"},
        {{6, 4, 4, 1, 0.25}, "fall from high to low"},
        {{6, 4, 2, -1, 0.25}, "fall from high to low"},
        {{6, 4, 2, 1, -0.1}, "hysteresis"},
        {{6, 4, 2, 1, 1.5}, "hysteresis"},
        {{45, 4, 2, 1, 0.25}, "half of the machine"},
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
        cmocka_unit_test(a_machine_of_a_few_pages_has_states_too),
        cmocka_unit_test(impossible_thresholds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
