/* The sharing table: the paper's worked example, its states, and exact counts. */
#include "ksm/permutation.h"
#include "ksm/share_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Paper, Figure 3: VM 2's PPN 0x2868 at MPN 0x1096 hashes to ...2bd806af; a hint
 * exists for VM 3's PPN 0x43f8 at MPN 0x123b; a shared frame ...07d8 at MPN
 * 0x8f44 has 4 references. Afterwards both VMs map 0x123b. */
static void paper_figure_3(void **state)
{
    (void)state;
    const uint64_t hash = 0x2bd806af, other = 0x07d8;
    struct share_table *t = share_table_new(0x9000);
    assert_int_equal(share_make_shared(t, 0x8f44, other), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(share_ref(t, 0x8f44), 0);
    assert_int_equal(share_add_hint(t, 0x123b, hash, 0x43f8), 0);

    /* when VM 2's page comes by, its hash finds the hint and nothing else */
    uint32_t hit = share_find(t, hash, SHARE_NONE);
    assert_int_equal(hit, 0x123b);
    assert_int_equal(share_find(t, hash, hit), SHARE_NONE);
    assert_int_equal(share_kind(t, hit), SHARE_HINT);
    assert_int_equal(share_hint_page(t, hit), 0x43f8);

    /* then VM 3 protects it, it hashes to the same value, and VM 2 maps it too */
    assert_int_equal(share_hit_hint(t, hit), 0);
    assert_int_equal(share_make_shared(t, hit, hash), 0);
    assert_int_equal(share_ref(t, hit), 0);
    assert_int_equal(share_refs(t, 0x123b), 2);
    assert_int_equal(share_kind(t, 0x1096), SHARE_FREE);
    assert_int_equal(share_refs(t, 0x8f44), 4);

    struct share_counts counts;
    share_read_counts(t, &counts);
    assert_int_equal(counts.frames_of[SHARE_SHARED], 2);
    assert_int_equal(counts.frames_of[SHARE_HINT], 0);
    assert_int_equal(counts.references, 6);
    assert_int_equal(share_check(t), 0);
    share_table_free(t);
}

/* Every transition from every state: allowed exactly where the header says so. */
static void transitions_keep_to_their_table(void **state)
{
    (void)state;
    enum { ADD, HIT, KEEP, MAKE, REF, UNREF, FORGET, VERBS };
    static const int allowed[SHARE_KINDS][VERBS] = {
        [SHARE_FREE] = {[ADD] = 1, [MAKE] = 1},
        [SHARE_HINT] = {[HIT] = 1, [FORGET] = 1},
        [SHARE_PENDING] = {[KEEP] = 1, [MAKE] = 1, [FORGET] = 1},
        [SHARE_SHARED] = {[REF] = 1, [UNREF] = 1},
    };
    for (int from = 0; from < SHARE_KINDS; from++) {
        for (int verb = 0; verb < VERBS; verb++) {
            struct share_table *t = share_table_new(8);
            if (from == SHARE_HINT || from == SHARE_PENDING)
                share_add_hint(t, 3, 77, 9);
            if (from == SHARE_PENDING)
                share_hit_hint(t, 3);
            if (from == SHARE_SHARED)
                share_make_shared(t, 3, 77);
            assert_int_equal(share_kind(t, 3), from);
            uint32_t left;
            int result = verb == ADD     ? share_add_hint(t, 3, 77, 9)
                         : verb == HIT   ? share_hit_hint(t, 3)
                         : verb == KEEP  ? share_keep_hint(t, 3)
                         : verb == MAKE  ? share_make_shared(t, 3, 77)
                         : verb == REF   ? share_ref(t, 3)
                         : verb == UNREF ? share_unref(t, 3, &left)
                                         : share_forget(t, 3);
            assert_int_equal(result, allowed[from][verb] ? 0 : -1);
            if (result < 0)
                assert_int_equal(share_kind(t, 3), from);
            assert_int_equal(share_check(t), 0);
            share_table_free(t);
        }
    }
}

static void frames_outside_the_table_are_refused(void **state)
{
    (void)state;
    struct share_table *t = share_table_new(4);
    assert_int_equal(share_add_hint(t, 4, 1, 1), -1);
    assert_int_equal(share_make_shared(t, SHARE_NONE, 1), -1);
    assert_int_equal(share_ref(t, 1000), -1);
    assert_int_equal(share_kind(t, 1000), SHARE_FREE);
    share_table_free(t);
}

static void counts_beyond_the_field_are_exact(void **state)
{
    (void)state;
    struct share_table *t = share_table_new(16);
    const uint32_t sharers = 200000;
    for (uint32_t frame = 5; frame <= 7; frame++) {
        assert_int_equal(share_make_shared(t, frame, frame), 0);
        for (uint32_t n = 1; n < sharers; n++)
            assert_int_equal(share_ref(t, frame), 0);
        assert_int_equal(share_refs(t, frame), sharers);
    }
    assert_int_equal(share_check(t), 0);
    for (uint32_t n = sharers; n-- > 0;) {
        uint32_t left = SHARE_NONE;
        assert_int_equal(share_unref(t, 6, &left), 0);
        assert_int_equal(left, n);
        if (n == 65535 || n == 65534 || n == 1)
            assert_int_equal(share_refs(t, 6), n);
    }
    assert_int_equal(share_kind(t, 6), SHARE_FREE);
    assert_int_equal(share_refs(t, 5), sharers);
    assert_int_equal(share_refs(t, 7), sharers);
    assert_int_equal(share_check(t), 0);
    share_table_free(t);
}

static void many_references_at_once_are_as_many_one_by_one(void **state)
{
    (void)state;
    static const uint32_t steps[] = {0, 1, 65532, 1, 1, 65535, 0, 4000000000u};
    struct share_table *t = share_table_new(4);
    struct share_counts counts;
    uint32_t expected = 1, left;
    assert_int_equal(share_ref_many(t, 2, 1), -1);
    assert_int_equal(share_make_shared(t, 2, 5), 0);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_int_equal(share_ref_many(t, 2, steps[i]), 0);
        expected += steps[i];
        assert_int_equal(share_refs(t, 2), expected);
        assert_int_equal(share_check(t), 0);
    }
    assert_int_equal(share_ref_many(t, 2, UINT32_MAX - expected + 1), -1);
    assert_int_equal(share_ref_many(t, 2, UINT32_MAX - expected), 0);
    assert_int_equal(share_ref(t, 2), -1);
    share_read_counts(t, &counts);
    assert_int_equal(counts.references, UINT32_MAX);
    assert_int_equal(share_unref(t, 2, &left), 0);
    assert_int_equal(left, UINT32_MAX - 1);
    share_table_free(t);
}

static void random_use_never_breaks_a_chain(void **state)
{
    (void)state;
    const uint32_t frames = 500;
    struct share_table *t = share_table_new(frames);
    uint32_t random = 12345, left;
    for (int step = 0; step < 40000; step++) {
        random = random * 1664525 + 1013904223;
        uint32_t frame = (random >> 8) % frames;
        uint64_t hash = (random >> 4) % 64; /* few hashes: long chains */
        switch (random >> 29) {
        case 0:
        case 1:
            share_add_hint(t, frame, hash, step);
            break;
        case 2:
            share_hit_hint(t, frame);
            break;
        case 3:
            share_make_shared(t, frame, hash);
            break;
        case 4:
            share_ref(t, frame);
            break;
        case 5:
        case 6:
            share_unref(t, frame, &left);
            break;
        default:
            share_forget(t, frame);
            break;
        }
        if (step % 50 == 0)
            assert_int_equal(share_check(t), 0);
    }
    share_table_free(t);
}

static void memory_stays_under_the_bar(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1000, 65535, 65536, 65537, 1000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct share_table *t = share_table_new(sizes[i]);
        struct share_counts counts;
        share_read_counts(t, &counts);
        assert_true(counts.table_bytes <= (uint64_t)sizes[i] * SHARE_PAGE_BYTES * 6 / 1000);
        share_table_free(t);
    }
}

static void salts_and_seeds_separate_equal_pages(void **state)
{
    (void)state;
    static const unsigned char page[SHARE_PAGE_BYTES] = {1};
    assert_int_equal(share_hash(page, 7, 1), share_hash(page, 7, 1));
    assert_int_not_equal(share_hash(page, 7, 1), share_hash(page, 7, 2));
    assert_int_not_equal(share_hash(page, 7, 1), share_hash(page, 8, 1));
}

static void a_pass_visits_every_page_once(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 3, 5, 64, 1000, 65536, 70001};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        uint32_t count = counts[i];
        unsigned char *seen = calloc(count, 1);
        for (uint32_t index = 0; index < count; index++) {
            uint32_t page = permutation_at(index, count, 42);
            assert_true(page < count);
            assert_int_equal(seen[page]++, 0);
        }
        free(seen);
    }
    /* and another key gives another order */
    unsigned same = 0;
    for (uint32_t index = 0; index < 1000; index++)
        same += permutation_at(index, 1000, 1) == permutation_at(index, 1000, 2);
    assert_true(same < 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paper_figure_3),
        cmocka_unit_test(transitions_keep_to_their_table),
        cmocka_unit_test(frames_outside_the_table_are_refused),
        cmocka_unit_test(counts_beyond_the_field_are_exact),
        cmocka_unit_test(many_references_at_once_are_as_many_one_by_one),
        cmocka_unit_test(random_use_never_breaks_a_chain),
        cmocka_unit_test(memory_stays_under_the_bar),
        cmocka_unit_test(salts_and_seeds_separate_equal_pages),
        cmocka_unit_test(a_pass_visits_every_page_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
