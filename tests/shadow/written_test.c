/*
 * "Written since last collected": there is never a bit too few. Whoever gets a
 * page's new content past the collector would have it shared by its old hash.
 */
#include "shadow-pt/shadow_impl.h"
#include "tests/shadow/guest_tables.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define VA   UINT64_C(0x10000)
#define DATA 600u
#define BIT  (UINT64_C(1) << (DATA % 64))

static struct test_guest guest;

static int open_guest(void **state)
{
    (void)state;
    test_guest_open(&guest, 1024, 200, 3);
    test_guest_map(&guest, VA, DATA, 0, G_V | G_R | G_W);
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));
    return 0;
}

static int close_guest(void **state)
{
    (void)state;
    test_guest_check(&guest);
    test_guest_close(&guest);
    return 0;
}

static void access_page(enum shadow_access access)
{
    struct shadow_reply reply;
    assert_int_equal(test_guest_access(&guest, guest.shadow, VA, access, false, false, &reply),
                     SHADOW_OK);
}

static uint64_t collect(uint64_t keep)
{
    return shadow_collect_written(guest.pmap, DATA / 64 * 64, keep);
}

static bool may_store(void)
{
    return shadow_store_ptr(shadow_view(guest.shadow), VA, 8) != NULL;
}

static void a_store_after_the_collector_is_seen_again(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        access_page(SHADOW_STORE);
        assert_true(may_store());
        assert_true(collect(0) & BIT);
        /* it could store no longer without coming by, and nothing has been written since */
        assert_false(may_store());
        assert_int_equal(collect(0) & BIT, 0);
    }
}

static void a_load_after_the_collector_gives_no_right_to_store(void **state)
{
    (void)state;
    access_page(SHADOW_STORE);
    collect(0);
    shadow_fence(guest.shadow, false, 0, false, 0); /* the entry is made anew */
    access_page(SHADOW_LOAD);
    assert_false(may_store());
    assert_int_equal(collect(0) & BIT, 0);
    access_page(SHADOW_STORE);
    assert_true(collect(0) & BIT);
}

static void a_page_that_a_device_writes_stays_marked(void **state)
{
    (void)state;
    access_page(SHADOW_STORE);
    collect(0);
    assert_true(collect(BIT) & BIT);
    assert_true(collect(BIT) & BIT);
    assert_true(collect(0) & BIT);
    assert_int_equal(collect(0) & BIT, 0);
}

static void a_page_table_counts_as_written_when_the_walk_sets_its_bits(void **state)
{
    (void)state;
    uint64_t *pte = test_guest_pte(&guest, guest.root, VA, 0);
    ppn_t table = NO_PPN;
    for (ppn_t ppn = 0; ppn < guest.ram_pages; ppn++) {
        uint8_t *host = pmap_host(guest.pmap, ppn);
        if (host && (uint8_t *)pte >= host && (uint8_t *)pte < host + PAGE_BYTES)
            table = ppn;
    }
    assert_int_not_equal(table, NO_PPN);
    for (ppn_t first = 0; first < guest.ram_pages; first += 64)
        shadow_collect_written(guest.pmap, first, 0);
    assert_false(pmap_is_written(guest.pmap, table));
    access_page(SHADOW_LOAD); /* sets A */
    assert_true(*pte & G_A);
    assert_true(pmap_is_written(guest.pmap, table));
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_guest, close_guest)
    const struct CMUnitTest tests[] = {
        CASE(a_store_after_the_collector_is_seen_again),
        CASE(a_load_after_the_collector_gives_no_right_to_store),
        CASE(a_page_that_a_device_writes_stays_marked),
        CASE(a_page_table_counts_as_written_when_the_walk_sets_its_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
