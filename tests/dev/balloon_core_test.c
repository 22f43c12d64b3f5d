/*
 * The balloon driver's core against a guest of a few bitmaps: a page is the
 * guest's (free or used), or in the balloon, and the host's record of the balloon
 * must agree with the core's after every call.
 */
#include "balloon-driver/balloon_core.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGES 40000u

static struct guest {
    struct balloon balloon;
    uint32_t target_pages, actual_pages;
    bool taken[PAGES];                 /* by the driver, from the guest */
    bool told[PAGES];                  /* the host knows: in the balloon */
    uint32_t free_pages;               /* the guest can spare that many */
    uint32_t next;                     /* where the guest looks for a page */
    uint32_t sheets;                   /* of notes in use */
    balloon_page_number freed_last[8]; /* the last pages given back, newest first */
    bool host_refuses, host_silent, no_notes;
} guest;

static bool take_page(void *ctx, balloon_page_number *number)
{
    struct guest *g = ctx;
    if (g->free_pages == 0)
        return false;
    while (g->taken[g->next])
        g->next = (g->next + 1) % PAGES;
    g->taken[g->next] = true;
    g->free_pages--;
    *number = g->next;
    return true;
}

static void free_page(void *ctx, balloon_page_number number)
{
    struct guest *g = ctx;
    assert_true(number < PAGES && g->taken[number]);
    if (!g->host_silent)
        assert_false(g->told[number]); /* the host was told first */
    g->taken[number] = g->told[number] = false;
    g->free_pages++;
    memmove(g->freed_last + 1, g->freed_last, sizeof g->freed_last - sizeof g->freed_last[0]);
    g->freed_last[0] = number;
}

static bool tell(struct guest *g, const balloon_page_number *numbers, unsigned count, bool in)
{
    assert_in_range(count, 1, BALLOON_BATCH_PAGES);
    if (g->host_refuses)
        return false;
    for (unsigned i = 0; i < count; i++) {
        assert_true(g->taken[numbers[i]]);
        assert_int_equal(g->told[numbers[i]], !in); /* no page twice */
        g->told[numbers[i]] = in;
    }
    return true;
}

static bool inflate(void *ctx, const balloon_page_number *numbers, unsigned count)
{
    return tell(ctx, numbers, count, true);
}

static bool deflate(void *ctx, const balloon_page_number *numbers, unsigned count)
{
    return tell(ctx, numbers, count, false);
}

static bool read_target(void *ctx, uint32_t *pages)
{
    struct guest *g = ctx;
    *pages = g->target_pages;
    return !g->host_silent;
}

static void write_actual(void *ctx, uint32_t pages)
{
    ((struct guest *)ctx)->actual_pages = pages;
}

static void *take_notes(void *ctx)
{
    struct guest *g = ctx;
    if (g->no_notes)
        return NULL;
    g->sheets++;
    return malloc(BALLOON_NOTE_BYTES);
}

static void free_notes(void *ctx, void *notes)
{
    ((struct guest *)ctx)->sheets--;
    free(notes);
}

static uint32_t told_pages(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PAGES; i++)
        count += guest.told[i];
    return count;
}

static int set_up(void **state)
{
    const struct balloon_platform platform = {
        &guest,      take_page,    free_page,  inflate,    deflate,
        read_target, write_actual, take_notes, free_notes,
    };
    (void)state;
    memset(&guest, 0, sizeof guest);
    guest.free_pages = PAGES;
    balloon_init(&guest.balloon, &platform);
    balloon_start(&guest.balloon);
    return 0;
}

/* Whatever a test did, unloading the driver leaves nothing behind. */
static int tear_down(void **state)
{
    (void)state;
    guest.host_refuses = guest.host_silent = false;
    if (guest.balloon.state == BALLOON_FAILED) { /* as a device reset does */
        memset(guest.told, 0, sizeof guest.told);
        balloon_start(&guest.balloon);
    }
    balloon_stop(&guest.balloon);
    assert_int_equal(guest.balloon.held_pages, 0);
    assert_int_equal(guest.sheets, 0);
    assert_int_equal(told_pages(), 0);
    for (uint32_t i = 0; i < PAGES; i++)
        assert_false(guest.taken[i]);
    return 0;
}

/* One tick; the host's and the core's records agree. Returns the pages moved. */
static int32_t tick(void)
{
    uint32_t before = guest.balloon.held_pages;
    balloon_tick(&guest.balloon);
    assert_int_equal(told_pages(), guest.balloon.held_pages);
    return (int32_t)(guest.balloon.held_pages - before);
}

static void balloon_reaches_its_target_and_rests(void **state)
{
    (void)state;
    guest.target_pages = 5000;
    assert_int_equal(tick(), BALLOON_TAKE_MAX_PAGES);
    assert_int_equal(guest.balloon.state, BALLOON_INFLATING);
    assert_int_equal(guest.actual_pages, BALLOON_TAKE_MAX_PAGES);
    tick();
    assert_int_equal(tick(), 5000 - 2 * BALLOON_TAKE_MAX_PAGES);
    assert_int_equal(guest.balloon.state, BALLOON_IDLE);
    assert_int_equal(tick(), 0);
    assert_int_equal(guest.actual_pages, 5000);
}

static void balloon_gives_back_fast(void **state)
{
    (void)state;
    guest.target_pages = 20000;
    for (int i = 0; i < 20; i++)
        tick();
    guest.target_pages = 100;
    assert_int_equal(tick(), -(int32_t)BALLOON_GIVE_MAX_PAGES);
    assert_int_equal(guest.balloon.state, BALLOON_DEFLATING);
    assert_int_equal(tick(), -(20000 - 100 - (int32_t)BALLOON_GIVE_MAX_PAGES));
    assert_int_equal(guest.balloon.state, BALLOON_IDLE);
}

static void the_page_taken_last_is_given_back_first(void **state)
{
    (void)state;
    guest.target_pages = 1000;
    tick(); /* pages 0..999 in order */
    guest.target_pages = 996;
    tick();
    const balloon_page_number newest_first[] = {996, 997, 998, 999};
    assert_memory_equal(guest.freed_last, newest_first, sizeof newest_first);
}

static void a_guest_without_pages_is_left_alone_for_a_while(void **state)
{
    (void)state;
    guest.free_pages = 700;
    guest.target_pages = 20000;
    assert_int_equal(tick(), 700); /* what there was has gone to the host */
    assert_int_equal(guest.balloon.state, BALLOON_SLOW);
    assert_int_equal(guest.balloon.take_rate_pages, BALLOON_TAKE_MAX_PAGES / 2);
    guest.free_pages = PAGES - 700;
    for (unsigned i = 0; i < BALLOON_SLOW_TICKS; i++)
        assert_int_equal(tick(), BALLOON_TAKE_MIN_PAGES);
    assert_int_equal(tick(), BALLOON_TAKE_MAX_PAGES / 2);
    assert_int_equal(guest.balloon.state, BALLOON_INFLATING);
    /* and then faster, step by step */
    assert_int_equal(tick(), BALLOON_TAKE_MAX_PAGES / 2 + BALLOON_TAKE_STEP_PAGES);
    assert_int_equal(tick(), BALLOON_TAKE_MAX_PAGES / 2 + 2 * BALLOON_TAKE_STEP_PAGES);
}

static void the_rate_stays_between_its_bounds(void **state)
{
    (void)state;
    guest.target_pages = PAGES;
    guest.free_pages = 0;
    for (int i = 0; i < 50; i++) {
        assert_int_equal(tick(), 0);
        assert_int_equal(guest.balloon.state, BALLOON_SLOW);
    }
    assert_int_equal(guest.balloon.take_rate_pages, BALLOON_TAKE_MIN_PAGES);
    guest.target_pages = 0;
    for (int i = 0; i < 400; i++) {
        guest.free_pages = PAGES;
        guest.target_pages = guest.balloon.held_pages < 20000 ? PAGES : 0;
        tick();
        assert_in_range(guest.balloon.take_rate_pages, BALLOON_TAKE_MIN_PAGES,
                        BALLOON_TAKE_MAX_PAGES);
        assert_in_range(guest.balloon.give_rate_pages, BALLOON_GIVE_MIN_PAGES,
                        BALLOON_GIVE_MAX_PAGES);
    }
}

static void a_target_that_turns_round_is_followed(void **state)
{
    (void)state;
    guest.target_pages = 3000;
    tick();
    guest.target_pages = 1000;
    assert_int_equal(tick(), 1000 - (int32_t)BALLOON_TAKE_MAX_PAGES);
    guest.target_pages = 1500;
    assert_int_equal(tick(), 500);
    assert_int_equal(guest.balloon.state, BALLOON_IDLE);
}

static void out_of_memory_gives_back_at_once_and_slows_down(void **state)
{
    (void)state;
    guest.target_pages = 4000;
    tick();
    tick();
    assert_int_equal(balloon_relieve(&guest.balloon, 256), 256);
    assert_int_equal(guest.balloon.held_pages, 4000 - 256);
    assert_int_equal(guest.actual_pages, 4000 - 256);
    assert_int_equal(guest.balloon.state, BALLOON_SLOW);
    assert_int_equal(balloon_relieve(&guest.balloon, UINT32_MAX), 4000 - 256);
    assert_int_equal(balloon_relieve(&guest.balloon, 1), 0);
    guest.target_pages = 0;
    tick();
    assert_int_equal(guest.balloon.state, BALLOON_IDLE);
}

static void a_host_that_refuses_stops_the_balloon_until_restart(void **state)
{
    (void)state;
    guest.target_pages = 3000;
    tick();
    guest.host_refuses = true;
    assert_int_equal(tick(), 0);
    assert_int_equal(guest.balloon.state, BALLOON_FAILED);
    assert_int_equal(tick(), 0);
    guest.host_refuses = false;
    assert_int_equal(tick(), 0); /* not by itself */
    /* The glue resets the device, which forgets the balloon. */
    memset(guest.told, 0, sizeof guest.told);
    balloon_start(&guest.balloon);
    assert_int_equal(guest.balloon.held_pages, 0);
    assert_int_equal(guest.free_pages, PAGES);
    assert_int_equal(tick(), BALLOON_TAKE_MAX_PAGES);
}

static void pages_stay_noted_when_the_host_refuses_to_deflate(void **state)
{
    (void)state;
    guest.target_pages = 3000;
    tick();
    tick();
    guest.target_pages = 1;
    guest.host_refuses = true;
    assert_int_equal(tick(), 0);
    assert_int_equal(guest.balloon.state, BALLOON_FAILED);
    assert_int_equal(guest.balloon.held_pages, 3000);
}

static void no_memory_for_notes_is_as_no_page(void **state)
{
    (void)state;
    guest.no_notes = true;
    guest.target_pages = 3000;
    assert_int_equal(tick(), 0);
    assert_int_equal(guest.balloon.state, BALLOON_SLOW);
    guest.no_notes = false;
    assert_int_equal(tick(), BALLOON_TAKE_MIN_PAGES);
}

static void nothing_moves_before_start_and_after_stop(void **state)
{
    (void)state;
    balloon_stop(&guest.balloon);
    guest.target_pages = 3000;
    assert_int_equal(tick(), 0);
    assert_int_equal(balloon_relieve(&guest.balloon, 5), 0);
    assert_int_equal(guest.balloon.state, BALLOON_STOPPED);
}

static void random_days_keep_the_records_equal(void **state)
{
    uint64_t seed = 1;
    (void)state;
    for (int i = 0; i < 3000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t draw = (uint32_t)(seed >> 33);
        switch (draw % 8) {
        case 0:
            guest.target_pages = (draw >> 3) % PAGES;
            break;
        case 1: /* the guest uses memory, or frees it */
            guest.free_pages = (draw >> 3) % (PAGES - guest.balloon.held_pages + 1);
            break;
        case 2:
            balloon_relieve(&guest.balloon, (draw >> 3) % 600);
            break;
        default:
            tick();
        }
        assert_int_equal(guest.actual_pages, guest.balloon.held_pages);
        assert_true(guest.sheets <= guest.balloon.held_pages / 1000 + 1);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(balloon_reaches_its_target_and_rests),
        CASE(balloon_gives_back_fast),
        CASE(the_page_taken_last_is_given_back_first),
        CASE(a_guest_without_pages_is_left_alone_for_a_while),
        CASE(the_rate_stays_between_its_bounds),
        CASE(a_target_that_turns_round_is_followed),
        CASE(out_of_memory_gives_back_at_once_and_slows_down),
        CASE(a_host_that_refuses_stops_the_balloon_until_restart),
        CASE(pages_stay_noted_when_the_host_refuses_to_deflate),
        CASE(no_memory_for_notes_is_as_no_page),
        CASE(nothing_moves_before_start_and_after_stop),
        CASE(random_days_keep_the_records_equal),
    };
    return cmocka_run_group_tests_name("balloon driver core", tests, NULL, NULL);
}
