/*
 * Watchers over rows and a clock of the test's own: each raises at its threshold
 * and not below, tells once, again at most each repeat_ms, and when it is over; rows
 * of random numbers raise and end, and never more often than promised.
 */
#include "daemon/watch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NS_PER_MS UINT64_C(1000000)
#define MIB_PAGES 256u
#define MEMORY    (256u * MIB_PAGES)
#define MIN       (64u * MIB_PAGES)

static struct watch_settings settings;
static struct watch_vm vm;
static struct watch_host host;
static struct watch_row row;
static struct watch_host_row host_row;
static struct watch_note notes[WATCHERS], last[WATCHERS];
static unsigned told[WATCHERS][3]; /* by news */
static uint64_t now_ns;

/* A VM in good order, seen for the first time. */
static int begin(void **state)
{
    (void)state;
    watch_settings_default(&settings);
    memset(&vm, 0, sizeof vm);
    memset(&host, 0, sizeof host);
    memset(told, 0, sizeof told);
    memset(last, 0, sizeof last);
    now_ns = 1000 * NS_PER_MS;
    row = (struct watch_row){
        .running = true,
        .memory_pages = MEMORY,
        .min_pages = MIN,
        .target_pages = 128 * MIB_PAGES,
        .allocated_pages = 128 * MIB_PAGES,
        .held_pages = 128 * MIB_PAGES,
        .balloon_ask_pages = 64 * MIB_PAGES,
        .balloon_driver = true,
        .balloon_pages = 64 * MIB_PAGES,
        .balloon_actual_pages = 64 * MIB_PAGES,
        .counted_pages = MEMORY,
        .counted_frames = 128 * MIB_PAGES,
        .active_pages = 100 * MIB_PAGES,
        .guest_total_bytes = UINT64_C(240) << 20,
        .guest_free_bytes = UINT64_C(10) << 20,
        .guest_available_bytes = UINT64_C(20) << 20,
    };
    host_row = (struct watch_host_row){
        .state = HOST_HIGH,
        .machine_pages = 1000000,
        .free_pages = 500000,
        .granted_pages = 400000,
        .shared_pages = 100000,
        .held_pages = 400000,
    };
    return 0;
}

static void look_once(void)
{
    unsigned count = watch_look(&vm, &settings, now_ns, &row, notes);
    for (unsigned i = 0; i < count; i++) {
        told[notes[i].watcher][notes[i].news]++;
        last[notes[i].watcher] = notes[i];
    }
    count = watch_look_at_host(&host, &settings, now_ns, &host_row, notes);
    for (unsigned i = 0; i < count; i++) {
        told[notes[i].watcher][notes[i].news]++;
        last[notes[i].watcher] = notes[i];
    }
    now_ns += 1000 * NS_PER_MS;
}

/* Looks each second. */
static void look(unsigned seconds)
{
    while (seconds-- > 0)
        look_once();
}

static unsigned raised(enum watcher watcher)
{
    return told[watcher][WATCH_NEWS_RAISED];
}

static unsigned all_told(void)
{
    unsigned all = 0;
    for (int w = 0; w < WATCHERS; w++)
        for (int news = 0; news < 3; news++)
            all += told[w][news];
    return all;
}

static void turn(uint64_t pages)
{
    row.target_pages = pages;
    watch_target(&vm, &settings, now_ns, pages, MEMORY);
}

static void nothing_is_told_of_a_vm_in_good_order(void **state)
{
    (void)state;
    look(600);
    assert_int_equal(all_told(), 0);
}

/* ---- each watcher, at its threshold and just below ---- */

#define SWING (MEMORY / 20) /* 5 % */

static void targets_that_turn_often_flap(void **state)
{
    (void)state;
    static const struct {
        unsigned turns, seconds_apart;
        uint64_t swing;
        bool flaps;
    } cases[] = {
        {6, 1, SWING, true},      {5, 1, SWING, false},  {60, 1, SWING - 1, false},
        {6, 12, SWING, true},     {6, 13, SWING, false}, /* 5 gaps of 13 s are 65 s */
        {40, 1, 2 * SWING, true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        begin(NULL);
        uint64_t low = 100 * MIB_PAGES;
        turn(low);
        turn(low + cases[c].swing); /* the first swing has a direction, and is no turn */
        for (unsigned i = 0; i < cases[c].turns; i++) {
            turn(i % 2 ? low + cases[c].swing : low);
            look(cases[c].seconds_apart);
        }
        assert_int_equal(raised(WATCH_FLAPPING), cases[c].flaps);
    }
    assert_non_null(strstr(last[WATCH_FLAPPING].text, "raised: its target turned 6 times in 60 s"));
    look(100);
    assert_int_equal(told[WATCH_FLAPPING][WATCH_NEWS_OVER], 1);
}

static void a_target_that_only_rises_does_not_flap(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        turn(MIN + i * SWING);
        look(1);
    }
    assert_int_equal(raised(WATCH_FLAPPING), 0);
}

static void a_balloon_that_does_not_grow_stalls(void **state)
{
    (void)state;
    row.target_pages = 96 * MIB_PAGES;
    row.balloon_ask_pages = 160 * MIB_PAGES;
    look(30); /* the first look takes its size, the second sees that it did not grow */
    assert_int_equal(raised(WATCH_BALLOON_STALLED), 0);
    look(2);
    assert_int_equal(raised(WATCH_BALLOON_STALLED), 1);
    assert_string_equal(last[WATCH_BALLOON_STALLED].text,
                        "raised: its balloon was asked for 160 MiB and stays at 64 MiB; it holds "
                        "128 MiB, its target is 96 MiB");
    for (int i = 0; i < 12; i++) { /* now it grows, 8 MiB a look */
        row.balloon_pages = row.balloon_actual_pages += 8 * MIB_PAGES;
        row.allocated_pages = row.held_pages = row.counted_frames -= 2 * MIB_PAGES;
        look(1);
    }
    assert_int_equal(told[WATCH_BALLOON_STALLED][WATCH_NEWS_OVER], 1);
}

static void a_balloon_is_not_stalled_unless_it_should_grow(void **state)
{
    (void)state;
    static const struct {
        uint64_t ask, target, growth; /* a look */
        bool driver;
    } cases[] = {
        {64 * MIB_PAGES + 256, 96 * MIB_PAGES, 0, true}, /* 1/256 of memory is nothing */
        {160 * MIB_PAGES, 128 * MIB_PAGES, 0, true},     /* nobody waits for it */
        {160 * MIB_PAGES, 96 * MIB_PAGES, 0, false},     /* there is none */
        {160 * MIB_PAGES, 96 * MIB_PAGES, 100, true},    /* slow is not stalled */
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        begin(NULL);
        row.balloon_ask_pages = cases[c].ask;
        row.target_pages = cases[c].target;
        row.balloon_driver = cases[c].driver;
        for (int i = 0; i < 200; i++) {
            row.balloon_pages = row.balloon_actual_pages += cases[c].growth;
            look(1);
        }
        assert_int_equal(raised(WATCH_BALLOON_STALLED), 0);
    }
}

static void numbers_that_contradict_each_other_are_lies(void **state)
{
    (void)state;
    enum { ACTUAL, PAGES, FRAMES, TOTAL, FREE, AVAILABLE, WAYS };
    static const struct {
        int way;
        uint64_t value;
        const char *says; /* NULL: believed */
    } cases[] = {
        /* 5 % of 256 MiB are 3276 pages */
        {ACTUAL, 64 * MIB_PAGES + 3276, NULL},
        {ACTUAL, 64 * MIB_PAGES + 3277, "driver says that the balloon has 76.8 MiB, and 64 MiB"},
        {ACTUAL, 64 * MIB_PAGES - 3277, "driver says"},
        {ACTUAL, UINT64_MAX, "has 2^64 B"},
        {PAGES, MEMORY + 3276, NULL},
        {PAGES, MEMORY + 3277, "counts 268.8 MiB in all states"},
        {PAGES, MEMORY - 3277, "in all states"},
        {PAGES, UINT64_MAX, "in all states"},
        {FRAMES, 128 * MIB_PAGES + 3276, NULL},
        {FRAMES, 128 * MIB_PAGES + 3277, "in frames, and was granted 128 MiB"},
        {FRAMES, 0, "counts 0 B in frames"},
        {TOTAL, UINT64_C(256) << 20, NULL},
        {TOTAL, (UINT64_C(256) << 20) + 4096, "says that it has 256.0 MiB"},
        {FREE, UINT64_C(240) << 20, NULL},
        {FREE, (UINT64_C(240) << 20) + 4096, "are free"},
        {FREE, WATCH_UNKNOWN, NULL},
        {AVAILABLE, (UINT64_C(240) << 20) + 4096, "are available"},
        {AVAILABLE, WATCH_UNKNOWN, NULL},
    };
    uint64_t *const fields[WAYS] = {
        [ACTUAL] = &row.balloon_actual_pages, [PAGES] = &row.counted_pages,
        [FRAMES] = &row.counted_frames,       [TOTAL] = &row.guest_total_bytes,
        [FREE] = &row.guest_free_bytes,       [AVAILABLE] = &row.guest_available_bytes,
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        begin(NULL);
        *fields[cases[c].way] = cases[c].value;
        look(10);
        assert_int_equal(raised(WATCH_BALLOON_LIES), 0);
        look(1);
        assert_int_equal(raised(WATCH_BALLOON_LIES), cases[c].says != NULL);
        if (cases[c].says && !strstr(last[WATCH_BALLOON_LIES].text, cases[c].says))
            fail_msg("case %zu says '%s'", c, last[WATCH_BALLOON_LIES].text);
    }
}

static void a_vm_that_swaps_at_its_min_starves(void **state)
{
    (void)state;
    static const struct {
        uint64_t allocated, target, active, swap_in; /* the last: a second */
        bool starves;
    } cases[] = {
        {MIN, MIN, MIN + 257, 1, true},
        {MIN + 256, MIN, MIN + 257, 1, true}, /* 1/256 of memory is nothing */
        {MIN, MIN, MIN + 256, 1, false},      /* it needs no more than its min */
        {MIN, MIN, WATCH_UNKNOWN, 1, false},
        {MIN, MIN + 257, MIN * 2, 1, false}, /* it may have more */
        {MIN + 257, MIN, MIN * 2, 1, false}, /* it has more */
        {MIN, MIN, MIN * 2, 0, false},       /* it does without */
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        begin(NULL);
        row.allocated_pages = cases[c].allocated;
        row.target_pages = cases[c].target;
        row.active_pages = cases[c].active;
        for (int i = 0; i < 40; i++) {
            row.swap_in_pages += cases[c].swap_in;
            look(1);
            if (i < 30)
                assert_int_equal(raised(WATCH_STARVED), 0);
        }
        assert_int_equal(raised(WATCH_STARVED), cases[c].starves);
        if (c == 0)
            assert_string_equal(last[WATCH_STARVED].text,
                                "raised: at its min of 64 MiB, with 65.0 MiB in use, it has read "
                                "30 pages back from swap");
    }
}

static void swap_read_now_and_then_counts(void **state)
{
    (void)state;
    row.allocated_pages = row.target_pages = MIN;
    row.active_pages = 2 * MIN;
    for (int i = 0; i < 10; i++) { /* each 5 s */
        row.swap_in_pages += 10;
        look(5);
    }
    assert_int_equal(raised(WATCH_STARVED), 1);
    look(12);
    assert_int_equal(told[WATCH_STARVED][WATCH_NEWS_OVER], 1);
}

static void a_state_that_lasts_is_told(void **state)
{
    (void)state;
    static const enum host_state states[] = {HOST_HARD, HOST_LOW};
    for (int s = 0; s < 2; s++) {
        begin(NULL);
        host_row.state = states[s];
        look(60);
        assert_int_equal(all_told(), 0);
        look(1);
        assert_int_equal(raised(WATCH_STATE_LASTS), 1);
        host_row.state = s ? HOST_HARD : HOST_LOW; /* short all the same */
        look(30);
        host_row.state = HOST_SOFT;
        look(7);
        assert_int_equal(told[WATCH_STATE_LASTS][WATCH_NEWS_OVER], 1);
    }
    begin(NULL);
    host_row.state = HOST_SOFT;
    look(600);
    assert_int_equal(all_told(), 0);
}

static void broken_invariants_are_told_at_once(void **state)
{
    (void)state;
    row.refused_messages = 3;
    look(1);
    assert_string_equal(last[WATCH_INVARIANT].text,
                        "raised: 3 messages of its worker were refused (3 in all)");
    look(7);
    assert_string_equal(last[WATCH_INVARIANT].text, "over: after 6 s, seen 1 times");

    row.refused_messages = 5; /* too soon to be told again: kept, not lost */
    look(40);
    assert_int_equal(raised(WATCH_INVARIANT), 1);
    row.refused_messages = 9;
    look(13);
    assert_int_equal(raised(WATCH_INVARIANT), 2);
    assert_string_equal(last[WATCH_INVARIANT].text,
                        "raised: 6 messages of its worker were refused (9 in all)");

    static const struct {
        int64_t free, held;
        uint64_t violations;
        const char *says;
    } cases[] = {
        {1, 0, 0, "500001 frames free"},
        {-1, 0, 0, "499999 frames free"},
        {0, 1, 0, "the VMs' records hold 400001 frames"},
        {0, -1, 0, "hold 399999"},
        {0, 0, 2, "the last check found 2 violations"},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        begin(NULL);
        host_row.free_pages += (uint64_t)cases[c].free;
        host_row.held_pages += (uint64_t)cases[c].held;
        host_row.check_violations = cases[c].violations;
        look(1);
        assert_int_equal(raised(WATCH_INVARIANT), 1);
        assert_non_null(strstr(last[WATCH_INVARIANT].text, cases[c].says));
    }
}

/* ---- how often ---- */

static void an_alert_that_stays_is_told_once_a_minute(void **state)
{
    (void)state;
    row.balloon_actual_pages = 0;
    look(11 + 59);
    assert_int_equal(all_told(), 1);
    look(1);
    assert_int_equal(told[WATCH_BALLOON_LIES][WATCH_NEWS_STILL], 1);
    assert_non_null(strstr(last[WATCH_BALLOON_LIES].text, "still: its driver says"));
    assert_non_null(strstr(last[WATCH_BALLOON_LIES].text, "(for 70 s, seen 71 times)"));
    look(600);
    assert_int_equal(told[WATCH_BALLOON_LIES][WATCH_NEWS_STILL], 11);
    assert_int_equal(raised(WATCH_BALLOON_LIES), 1);
    row.balloon_actual_pages = row.balloon_pages;
    look(5);
    assert_int_equal(told[WATCH_BALLOON_LIES][WATCH_NEWS_OVER], 0);
    look(1);
    assert_int_equal(told[WATCH_BALLOON_LIES][WATCH_NEWS_OVER], 1);
}

static void an_alert_that_flickers_stays(void **state)
{
    (void)state;
    settings.lie_ms = 0;
    for (int i = 0; i < 100; i++) {
        row.balloon_actual_pages = i % 5 ? row.balloon_pages : 0;
        look(1);
    }
    assert_int_equal(raised(WATCH_BALLOON_LIES), 1);
    assert_int_equal(told[WATCH_BALLOON_LIES][WATCH_NEWS_OVER], 0);
}

static void one_that_comes_and_goes_is_told_once_a_minute(void **state)
{
    (void)state;
    settings.lie_ms = 0;
    for (int i = 0; i < 600; i++) { /* 10 s so, 10 s so */
        row.balloon_actual_pages = i / 10 % 2 ? row.balloon_pages : 0;
        look(1);
    }
    assert_in_range(raised(WATCH_BALLOON_LIES), 8, 10);
    assert_in_range(told[WATCH_BALLOON_LIES][WATCH_NEWS_OVER], 8, 10);
}

static void a_vm_that_does_not_run_is_not_judged(void **state)
{
    (void)state;
    row.balloon_actual_pages = 0;
    look(11);
    assert_int_equal(raised(WATCH_BALLOON_LIES), 1);
    row.running = false;
    look(6);
    assert_int_equal(told[WATCH_BALLOON_LIES][WATCH_NEWS_OVER], 1);
}

/* ---- anything ---- */

static uint64_t odd_number(uint64_t edge)
{
    uint64_t any = (uint64_t)rand() << 33 ^ (uint64_t)rand() << 11 ^ (uint64_t)rand();
    switch (rand() % 4) {
    case 0:
        return edge;
    case 1:
        return edge + (uint64_t)(rand() % 3) - 1;
    case 2:
        return rand() % 2 ? 0 : UINT64_MAX - (uint64_t)(rand() % 3);
    default:
        return any;
    }
}

static void rows_of_any_numbers_do_no_harm(void **state)
{
    (void)state;
    static const unsigned most_in_a_minute = 4;
    for (unsigned seed = 1; seed <= 200; seed++) {
        srand(seed);
        begin(NULL);
        settings.lie_ms = (uint32_t)(rand() % 3 * 1000);
        settings.starved_ms = settings.stall_ms = settings.state_ms = 0;
        settings.flap_turns = 2 + (uint32_t)rand() % (WATCH_MOST_TURNS - 1);
        unsigned before[WATCHERS] = {0};
        for (int i = 0; i < 240; i++) {
            uint64_t *numbers = (uint64_t *)(void *)&row.memory_pages;
            size_t count = (sizeof row - offsetof(struct watch_row, memory_pages)) / 8;
            bool driver = rand() % 4;
            for (size_t n = 0; n < count; n++)
                numbers[n] = odd_number(rand() % 2 ? MEMORY : MIN);
            row.balloon_driver = driver;
            row.running = rand() % 16;
            watch_target(&vm, &settings, now_ns, odd_number(MIN), odd_number(MEMORY));
            host_row = (struct watch_host_row){
                .state = (enum host_state)(rand() % HOST_STATES),
                .machine_pages = odd_number(MEMORY),
                .free_pages = odd_number(MIN),
                .granted_pages = odd_number(MIN),
                .held_pages = odd_number(MIN),
            };
            look_once();
            if (i % 60 != 59)
                continue;
            for (int w = 0; w < WATCHERS; w++) {
                unsigned now = told[w][0] + told[w][1] + told[w][2];
                /* The host and the VM both have an alert about invariants. */
                assert_true(now - before[w] <= most_in_a_minute * (w == WATCH_INVARIANT ? 2 : 1));
                before[w] = now;
            }
        }
        for (int w = 0; w < WATCHERS; w++)
            assert_true(told[w][WATCH_NEWS_OVER] <= raised((enum watcher)w));
    }
}

static void settings_are_judged(void **state)
{
    (void)state;
    struct err err;
    assert_int_equal(watch_settings_check(&settings, &err), 0);
    settings.flap_turns = 1;
    assert_int_equal(watch_settings_check(&settings, &err), -1);
    settings.flap_turns = WATCH_MOST_TURNS + 1;
    assert_int_equal(watch_settings_check(&settings, &err), -1);
    watch_settings_default(&settings);
    settings.period_ms = 9;
    assert_int_equal(watch_settings_check(&settings, &err), -1);
    settings.period_ms = 0;
    assert_int_equal(watch_settings_check(&settings, &err), 0);
    settings.lie_percent = 100.5;
    assert_int_equal(watch_settings_check(&settings, &err), -1);
}

#define WATCH_TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WATCH_TEST(nothing_is_told_of_a_vm_in_good_order),
        WATCH_TEST(targets_that_turn_often_flap),
        WATCH_TEST(a_target_that_only_rises_does_not_flap),
        WATCH_TEST(a_balloon_that_does_not_grow_stalls),
        WATCH_TEST(a_balloon_is_not_stalled_unless_it_should_grow),
        WATCH_TEST(numbers_that_contradict_each_other_are_lies),
        WATCH_TEST(a_vm_that_swaps_at_its_min_starves),
        WATCH_TEST(swap_read_now_and_then_counts),
        WATCH_TEST(a_state_that_lasts_is_told),
        WATCH_TEST(broken_invariants_are_told_at_once),
        WATCH_TEST(an_alert_that_stays_is_told_once_a_minute),
        WATCH_TEST(an_alert_that_flickers_stays),
        WATCH_TEST(one_that_comes_and_goes_is_told_once_a_minute),
        WATCH_TEST(a_vm_that_does_not_run_is_not_judged),
        WATCH_TEST(rows_of_any_numbers_do_no_harm),
        WATCH_TEST(settings_are_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
