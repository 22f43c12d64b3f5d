/*
 * The reverse map: dropping or write-protecting a page costs its mappings, in
 * whatever space of whatever hart they are; and the marks of pages that hold
 * decoded code.
 */
#include "tests/shadow/guest_tables.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define DATA_PPN 600u
#define HARTS    SHADOW_MAX_HARTS
/* in other slots of the tables than the mappings of DATA_PPN from 0x40000000 up */
#define OTHERS_VA UINT64_C(0x80200000)

static struct test_guest guest;
static struct shadow *harts[HARTS];

static int open_guest(void **state)
{
    (void)state;
    test_guest_open(&guest, 1024, 1024, 3);
    harts[0] = guest.shadow;
    for (unsigned h = 1; h < HARTS; h++) {
        harts[h] = shadow_new(guest.pmap);
        assert_non_null(harts[h]);
    }
    return 0;
}

static int close_guest(void **state)
{
    (void)state;
    test_guest_check_fenced(&guest);
    for (unsigned h = 1; h < HARTS; h++)
        shadow_free(harts[h]);
    test_guest_close(&guest);
    return 0;
}

static uint64_t visits(void)
{
    uint64_t sum = 0;
    for (unsigned h = 0; h < HARTS; h++) {
        struct shadow_counts counts;
        shadow_read_counts(harts[h], &counts);
        sum += counts.reverse_visits;
    }
    return sum;
}

static uint64_t live(void)
{
    uint64_t sum = 0;
    for (unsigned h = 0; h < HARTS; h++) {
        struct shadow_counts counts;
        shadow_read_counts(harts[h], &counts);
        sum += counts.mappings_live;
    }
    return sum;
}

static void store(struct shadow *hart, uint64_t va)
{
    struct shadow_reply reply;
    assert_int_equal(test_guest_access(&guest, hart, va, SHADOW_STORE, false, false, &reply),
                     SHADOW_OK);
}

/* mappings of DATA_PPN at different addresses, ASIDs and harts; and other_pages pages beside. */
static void fill_tables(unsigned mappings, unsigned other_pages)
{
    for (unsigned h = 0; h < HARTS; h++)
        shadow_set_satp(harts[h], test_guest_satp(&guest, guest.root, 0));
    for (unsigned i = 0; i < mappings; i++) {
        uint64_t va = UINT64_C(0x40000000) + i * 2 * PAGE_BYTES;
        test_guest_map(&guest, va, DATA_PPN, 0, G_V | G_R | G_W);
        struct shadow *hart = harts[i % HARTS];
        shadow_set_satp(hart, test_guest_satp(&guest, guest.root, (uint16_t)(i % 3)));
        store(hart, va);
    }
    for (unsigned i = 0; i < other_pages; i++) {
        uint64_t va = OTHERS_VA + i * PAGE_BYTES;
        test_guest_map(&guest, va, DATA_PPN + 1 + i, 0, G_V | G_R | G_W);
        store(harts[0], va);
    }
}

static void dropping_a_page_costs_its_mappings(void **state)
{
    (void)state;
    static const struct {
        unsigned mappings, others;
    } cases[] = {{0, 0}, {0, 300}, {1, 0}, {1, 300}, {2, 300}, {40, 0}, {40, 300}, {200, 300}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_guest(NULL);
        fill_tables(cases[i].mappings, cases[i].others);
        uint64_t visits_before = visits(), live_before = live();
        assert_int_equal(shadow_ppn_mapped(guest.pmap, DATA_PPN), cases[i].mappings > 0);
        shadow_drop_ppn(guest.pmap, DATA_PPN);
        assert_int_equal(visits() - visits_before, cases[i].mappings);
        assert_int_equal(live_before - live(), cases[i].mappings);
        assert_false(shadow_ppn_mapped(guest.pmap, DATA_PPN));
        shadow_drop_ppn(guest.pmap, DATA_PPN);
        assert_int_equal(visits() - visits_before, cases[i].mappings);
        close_guest(NULL);
    }
}

static void protecting_a_page_keeps_its_loads(void **state)
{
    (void)state;
    fill_tables(24, 100);
    uint64_t before = visits(), live_before = live();
    shadow_protect_ppn(guest.pmap, DATA_PPN);
    assert_int_equal(visits() - before, 24);
    assert_int_equal(live(), live_before);
    for (unsigned i = 21; i < 24; i++) { /* the spaces in force */
        const struct shadow_view *view = shadow_view(harts[i % HARTS]);
        uint64_t va = UINT64_C(0x40000000) + i * 2 * PAGE_BYTES;
        assert_non_null(shadow_load_ptr(view, va, 8));
        assert_null(shadow_store_ptr(view, va, 8));
    }
    const struct shadow_view *view = shadow_view(harts[0]);
    assert_non_null(shadow_store_ptr(view, OTHERS_VA, 8));
}

static void dropping_everything_leaves_nothing(void **state)
{
    (void)state;
    fill_tables(24, 100);
    shadow_drop_all(guest.pmap);
    assert_int_equal(live(), 0);
    for (ppn_t ppn = 0; ppn < 1024; ppn++)
        assert_false(shadow_ppn_mapped(guest.pmap, ppn));
}

static void a_hart_that_goes_takes_its_mappings_along(void **state)
{
    (void)state;
    fill_tables(24, 0);
    shadow_free(harts[3]);
    harts[3] = shadow_new(guest.pmap); /* and its place can be taken again */
    assert_non_null(harts[3]);
    uint64_t before = visits();
    shadow_drop_ppn(guest.pmap, DATA_PPN);
    assert_int_equal(visits() - before, 21);
}

static void harts_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    assert_null(shadow_new(guest.pmap));
}

static void a_code_page_sends_stores_to_the_slow_path(void **state)
{
    (void)state;
    fill_tables(8, 0);
    shadow_code_added(guest.pmap, DATA_PPN);
    assert_true(shadow_is_code(guest.pmap, DATA_PPN));
    assert_false(shadow_is_code(guest.pmap, DATA_PPN + 1));
    for (unsigned i = 0; i < 8; i++) {
        uint64_t va = UINT64_C(0x40000000) + i * 2 * PAGE_BYTES;
        struct shadow_reply reply;
        assert_null(shadow_store_ptr(shadow_view(harts[i]), va, 8));
        assert_non_null(shadow_load_ptr(shadow_view(harts[i]), va, 8));
        assert_int_equal(shadow_resolve(harts[i], va, SHADOW_STORE, false, false, &reply),
                         SHADOW_CODE_PAGE);
        assert_int_equal(reply.ppn, DATA_PPN);
    }
    /* one mark, however often it is set */
    uint64_t before = visits();
    shadow_code_added(guest.pmap, DATA_PPN);
    assert_int_equal(visits(), before);
    shadow_code_dropped(guest.pmap, DATA_PPN);
    store(harts[0], UINT64_C(0x40000000));
    assert_non_null(shadow_store_ptr(shadow_view(harts[0]), UINT64_C(0x40000000), 8));
    shadow_code_added(guest.pmap, DATA_PPN);
    assert_null(shadow_store_ptr(shadow_view(harts[0]), UINT64_C(0x40000000), 8));
}

static void a_code_mark_survives_a_change_of_frame(void **state)
{
    (void)state;
    fill_tables(1, 0);
    shadow_code_added(guest.pmap, DATA_PPN);
    test_guest_take_away(&guest, DATA_PPN, PAGE_EV_OUT_DONE);
    assert_true(shadow_is_code(guest.pmap, DATA_PPN));
    test_guest_make_resident(&guest, DATA_PPN);
    struct shadow_reply reply;
    assert_int_equal(
        shadow_resolve(harts[0], UINT64_C(0x40000000), SHADOW_STORE, false, false, &reply),
        SHADOW_CODE_PAGE);
}

/* For sampling: an access touches its page, and the tables a walk reads on the way; once each. */
static void a_watched_page_is_touched_once(void **state)
{
    (void)state;
    uint64_t va = UINT64_C(0x40000000);
    test_guest_map(&guest, va, DATA_PPN, 0, G_V | G_RWX | G_AD);
    ppn_t leaf_table = guest.next_table - 1;
    for (unsigned h = 0; h < 2; h++)
        shadow_set_satp(harts[h], test_guest_satp(&guest, guest.root, 0));
    store(harts[0], va);
    assert_int_equal(pmap_watch_end(guest.pmap).sample_pages, 0);

    shadow_drop_ppn(guest.pmap, DATA_PPN);
    pmap_watch(guest.pmap, DATA_PPN, true);
    pmap_watch(guest.pmap, DATA_PPN + 1, true);
    pmap_watch(guest.pmap, guest.root, true);
    pmap_watch(guest.pmap, leaf_table, false);
    test_guest_check(&guest); /* walks, but is not the guest */
    assert_int_equal(atomic_load(&guest.counts.touched_pages), 0);
    store(harts[0], va);
    store(harts[1], va);
    assert_int_equal(atomic_load(&guest.counts.touched_pages), 2);
    assert_int_equal(atomic_load(&guest.counts.all_touched_pages), 3);
    assert_true(pmap_is_sampled(guest.pmap, DATA_PPN)); /* touched or not */
    assert_false(pmap_is_sampled(guest.pmap, leaf_table));
    struct pmap_touched touched = pmap_watch_end(guest.pmap);
    assert_int_equal(touched.sample_pages, 2);
    assert_int_equal(touched.all_pages, 3);
    assert_false(pmap_is_sampled(guest.pmap, DATA_PPN));
    store(harts[1], va); /* no longer watched */
    assert_int_equal(atomic_load(&guest.counts.all_touched_pages), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_guest, close_guest)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dropping_a_page_costs_its_mappings),
        TEST(protecting_a_page_keeps_its_loads),
        TEST(dropping_everything_leaves_nothing),
        TEST(a_hart_that_goes_takes_its_mappings_along),
        TEST(harts_beyond_the_limit_are_refused),
        TEST(a_code_page_sends_stores_to_the_slow_path),
        TEST(a_code_mark_survives_a_change_of_frame),
        TEST(a_watched_page_is_touched_once),
    };
    return cmocka_run_group_tests_name("reverse map", tests, NULL, NULL);
}
