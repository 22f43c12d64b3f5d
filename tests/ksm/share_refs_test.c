/* References to shared frames, and the scanner's pace. */
#include "ksm/scan_pace.h"
#include "ksm/share_refs.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OWNERS 5u
#define PAGES  400u
#define FRAMES 60u

struct tally {
    uint32_t count, wrong;
    uint32_t frame, owner;
};

static bool tally_frame(void *ctx, const struct share_ref *ref)
{
    struct tally *tally = ctx;
    tally->count++;
    tally->wrong += ref->frame != tally->frame;
    return true;
}

static bool tally_owner(void *ctx, const struct share_ref *ref)
{
    struct tally *tally = ctx;
    tally->count++;
    tally->wrong += ref->owner != tally->owner;
    return true;
}

/* A frame has been shared since its first reference, whoever is left; after a gap it begins anew.
 */
static void a_frame_remembers_when_and_how_it_began(void **state)
{
    (void)state;
    struct share_refs *refs = share_refs_new(4);
    struct share_ref ref = {.owner = 1, .frame = 2}, found;
    for (uint32_t page = 0; page < 5; page++) {
        ref.page = page;
        ref.since_ns = 100 + page;
        ref.how = page ? SHARE_HOW_PAGING : SHARE_HOW_HINT;
        assert_int_equal(share_refs_add(refs, &ref), 0);
        if (page >= 2) /* two at a time */
            assert_int_equal(share_refs_remove(refs, 1, page - 2, 2), 0);
        assert_true(share_refs_find(refs, 1, page, &found));
        assert_int_equal(found.since_ns, 100 + page);
        assert_int_equal(found.how, ref.how);
        assert_int_equal(found.frame_since_ns, 100);
        assert_int_equal(found.frame_how, SHARE_HOW_HINT);
    }
    assert_int_equal(share_refs_remove(refs, 1, 3, 2), 0);
    assert_int_equal(share_refs_remove(refs, 1, 4, 2), 0);
    ref.since_ns = 500;
    assert_int_equal(share_refs_add(refs, &ref), 0);
    assert_true(share_refs_find(refs, 1, 4, &found));
    assert_int_equal(found.frame_since_ns, 500);
    assert_int_equal(found.frame_how, SHARE_HOW_PAGING);
    assert_int_equal(share_refs_check(refs), 0);
    share_refs_free(refs);
}

static void random_use_agrees_with_a_plain_array(void **state)
{
    (void)state;
    static uint32_t frame_of[OWNERS][PAGES]; /* frame + 1; 0: none */
    memset(frame_of, 0, sizeof frame_of);
    struct share_refs *refs = share_refs_new(FRAMES);
    uint32_t random = 99, total = 0;
    for (int step = 0; step < 60000; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t owner = (random >> 10) % OWNERS, page = (random >> 13) % PAGES;
        uint32_t frame = (random >> 22) % FRAMES;
        struct share_ref ref = {
            .since_ns = (uint64_t)step, .owner = owner, .page = page, .frame = frame};
        if (random >> 31) {
            int expected = frame_of[owner][page] ? -1 : 0;
            assert_int_equal(share_refs_add(refs, &ref), expected);
            if (expected == 0) {
                frame_of[owner][page] = frame + 1;
                total++;
            }
        } else {
            uint32_t held = frame_of[owner][page];
            uint32_t named = step % 7 == 0 ? frame : held ? held - 1 : frame;
            int expected = held == named + 1 ? 0 : -1;
            assert_int_equal(share_refs_remove(refs, owner, page, named), expected);
            if (expected == 0) {
                frame_of[owner][page] = 0;
                total--;
            }
        }
        struct share_ref found;
        bool has = share_refs_find(refs, owner, page, &found);
        assert_int_equal(has, frame_of[owner][page] != 0);
        if (has)
            assert_int_equal(found.frame, frame_of[owner][page] - 1);
        if (step % 500)
            continue;
        assert_int_equal(share_refs_check(refs), 0);
        assert_int_equal(share_refs_total(refs), total);
        for (uint32_t f = 0; f < FRAMES; f++) {
            uint32_t count = 0;
            for (uint32_t o = 0; o < OWNERS; o++)
                for (uint32_t p = 0; p < PAGES; p++)
                    count += frame_of[o][p] == f + 1;
            struct tally tally = {.frame = f};
            share_refs_of_frame(refs, f, tally_frame, &tally);
            assert_int_equal(tally.count, count);
            assert_int_equal(tally.wrong, 0);
            assert_int_equal(share_refs_count(refs, f), count);
        }
        struct tally tally = {.owner = 2};
        share_refs_of_owner(refs, 2, tally_owner, &tally);
        assert_int_equal(tally.wrong, 0);
    }
    share_refs_free(refs);
}

static void references_to_frames_outside_are_refused(void **state)
{
    (void)state;
    struct share_refs *refs = share_refs_new(4);
    struct share_ref ref = {.frame = 4};
    assert_int_equal(share_refs_add(refs, &ref), -1);
    assert_int_equal(share_refs_remove(refs, 0, 0, 4), -1);
    assert_int_equal(share_refs_count(refs, 4), 0);
    share_refs_free(refs);
}

#define SECOND UINT64_C(1000000000)

static void the_pace_rises_while_it_finds_and_falls_while_it_does_not(void **state)
{
    (void)state;
    struct scan_pace_settings settings = scan_pace_defaults;
    struct scan_pace pace = {.pages_per_second = 1000};
    struct scan_period finding = {SECOND, 1, 1000, 10}, few = {SECOND, 1, 1000, 1},
                       idle = {SECOND, 1, 1000, 0};
    assert_int_equal(scan_pace_next(&pace, &settings, &finding, SECOND), 2000);
    assert_int_equal(scan_pace_next(&pace, &settings, &few, SECOND), 2000);
    assert_int_equal(scan_pace_next(&pace, &settings, &idle, SECOND), 1000);
    for (int i = 0; i < 30; i++)
        scan_pace_next(&pace, &settings, &idle, SECOND);
    assert_int_equal(scan_pace_next(&pace, &settings, &idle, SECOND), 50);
    for (int i = 0; i < 30; i++)
        scan_pace_next(&pace, &settings, &finding, SECOND);
    assert_int_equal(scan_pace_next(&pace, &settings, &finding, SECOND), 100000);
}

static void the_pace_never_passes_its_cpu_budget(void **state)
{
    (void)state;
    struct scan_pace_settings settings = scan_pace_defaults;
    struct scan_pace pace = {.pages_per_second = settings.max_pages_per_second};
    const double cpu_ns_a_page = 5000;
    uint64_t pages = 1000;
    for (int i = 0; i < 50; i++) {
        struct scan_period period = {SECOND, (uint64_t)((double)pages * cpu_ns_a_page), pages,
                                     pages};
        pages = scan_pace_next(&pace, &settings, &period, SECOND);
        assert_true((double)pages * cpu_ns_a_page <= settings.cpu_share * 1e9 + cpu_ns_a_page);
    }
    assert_true((double)pages * cpu_ns_a_page > settings.cpu_share * 0.9e9);
}

static void short_periods_carry_parts_of_pages_over(void **state)
{
    (void)state;
    struct scan_pace_settings settings = scan_pace_defaults;
    struct scan_pace pace = {.pages_per_second = 50};
    struct scan_period nothing = {SECOND / 1000, 0, 0, 0};
    uint64_t pages = 0;
    for (int i = 0; i < 1000; i++)
        pages += scan_pace_next(&pace, &settings, &nothing, SECOND / 1000);
    assert_in_range(pages, 49, 50);
}

static void nonsense_settings_scan_nothing(void **state)
{
    (void)state;
    struct scan_pace_settings settings = scan_pace_defaults;
    struct scan_pace pace = {.pages_per_second = 50};
    struct scan_period period = {SECOND, 1, 1, 1};
    settings.max_pages_per_second = NAN;
    assert_int_equal(scan_pace_next(&pace, &settings, &period, SECOND), 0);
    settings = scan_pace_defaults;
    settings.cpu_share = -1;
    assert_int_equal(scan_pace_next(&pace, &settings, &period, SECOND), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_remembers_when_and_how_it_began),
        cmocka_unit_test(random_use_agrees_with_a_plain_array),
        cmocka_unit_test(references_to_frames_outside_are_refused),
        cmocka_unit_test(the_pace_rises_while_it_finds_and_falls_while_it_does_not),
        cmocka_unit_test(the_pace_never_passes_its_cpu_budget),
        cmocka_unit_test(short_periods_carry_parts_of_pages_over),
        cmocka_unit_test(nonsense_settings_scan_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
