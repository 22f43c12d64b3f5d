/*
 * Sampling against known access patterns: what a hart, a page of code, a device
 * or a swap-in touches is counted once, nothing else is; with all pages the
 * count is exact, with n of them it stays inside what chance allows. Both can be
 * counted at once, and then the second is judged by the first.
 */
#include "tests/mem/fake_hart.h"
#include "tests/mem/fake_supervisor.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define RAM_PAGES (SHADOW_ENTRIES * 3 / 2) /* mappings push one another out */

struct guest {
    struct fake_supervisor *s;
    struct hart hart;
    struct shadow *shadow;
};

static struct guest *guest_new(uint32_t ram_pages, uint32_t machine_pages)
{
    struct fake_host host = fake_host_of(ram_pages, machine_pages, 11);
    struct guest *g = calloc(1, sizeof *g);
    assert_non_null(g);
    g->s = fake_supervisor_new(&host);
    g->hart.pmap = gmem_pmap(g->s->gmem);
    gmem_add_hart(g->s->gmem, &g->hart, 0);
    g->shadow = shadow_new(g->hart.pmap);
    assert_non_null(g->shadow);
    return g;
}

static void guest_free(struct guest *g)
{
    fake_verify(g->s);
    shadow_free(g->shadow);
    fake_supervisor_free(g->s);
    free(g);
}

/* One access of the hart's: the in-line look-up, else the slow path. */
static void hart_access(struct guest *g, ppn_t ppn, bool store)
{
    struct memlock *lock = gmem_lock(g->s->gmem);
    uint64_t va = page_pa(ppn);
    struct shadow_reply reply;
    enum shadow_result result = SHADOW_OK;

    memlock_enter(lock, 0);
    if (!(store ? shadow_store_ptr(shadow_view(g->shadow), va, 8)
                : shadow_load_ptr(shadow_view(g->shadow), va, 8))) {
        memlock_lock(lock, 0);
        do {
            result = shadow_resolve(g->shadow, va, store ? SHADOW_STORE : SHADOW_LOAD, false, false,
                                    &reply);
            if (result == SHADOW_NEED_RESIDENT || result == SHADOW_NEED_WRITABLE)
                assert_true(gmem_make_usable(g->s->gmem, 0, reply.ppn, store));
        } while (result == SHADOW_NEED_RESIDENT || result == SHADOW_NEED_WRITABLE);
        memlock_unlock(lock, 0);
    }
    memlock_leave(lock, 0);
    assert_int_equal(result, SHADOW_OK);
}

/* End the period and begin one of so many pages: those touched in the ended one. */
static uint64_t sample(struct guest *g, uint64_t pages)
{
    return fake_request(g->s, RING_SAMPLE, pages);
}

static uint64_t touched_so_far(struct guest *g)
{
    return atomic_load(&g->s->region->stats.pages.touched_pages);
}

static void all_pages_give_the_truth(void **state)
{
    struct guest *g = guest_new(RAM_PAGES, RAM_PAGES + 64);
    (void)state;

    assert_int_equal(sample(g, RAM_PAGES), 0);
    for (unsigned turn = 0; turn < 3; turn++)
        for (ppn_t ppn = 0; ppn < RAM_PAGES; ppn += 4)
            hart_access(g, ppn, turn == 1);
    assert_int_equal(touched_so_far(g), RAM_PAGES / 4);
    assert_int_equal(sample(g, RAM_PAGES), RAM_PAGES / 4);

    /* Mapped before, not touched in this period. */
    assert_int_equal(touched_so_far(g), 0);
    hart_access(g, 4, false);
    hart_access(g, 4, true);
    hart_access(g, 5, true);
    assert_int_equal(sample(g, RAM_PAGES), 2);
    assert_int_equal(sample(g, RAM_PAGES), 0);
    guest_free(g);
}

static void pages_of_a_sample_are_distinct(void **state)
{
    static const uint32_t sizes[] = {1, 2, 63, 100, RAM_PAGES / 2, RAM_PAGES - 1, RAM_PAGES};
    struct guest *g = guest_new(RAM_PAGES, RAM_PAGES + 64);
    (void)state;

    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        sample(g, sizes[i]);
        assert_int_equal(atomic_load(&g->s->region->stats.sample_pages), sizes[i]);
        for (ppn_t ppn = 0; ppn < RAM_PAGES; ppn++)
            hart_access(g, ppn, ppn % 2);
        assert_int_equal(touched_so_far(g), sizes[i]);
    }
    assert_int_equal(atomic_load(&g->s->region->stats.sample_periods),
                     sizeof sizes / sizeof sizes[0]);
    guest_free(g);
}

/* n of N pages without replacement: the spread is at most the binomial's. Four standard deviations
 * for one period, and for the mean of all periods: a seed is fixed, so this passes or fails always.
 */
static void a_sample_is_within_the_binomial_bound(void **state)
{
    enum { PERIODS = 60, N = 100 };
    static const double fractions[] = {0.02, 0.1, 0.25, 0.5, 0.9};
    struct guest *g = guest_new(RAM_PAGES, RAM_PAGES + 64);
    (void)state;

    for (unsigned i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
        uint32_t active = (uint32_t)(fractions[i] * RAM_PAGES);
        double f = (double)active / RAM_PAGES, deviation = sqrt(N * f * (1 - f)), sum = 0;

        sample(g, N);
        for (unsigned period = 0; period < PERIODS; period++) {
            for (ppn_t k = 0; k < active; k++) /* one run of pages, somewhere else each time */
                hart_access(g, (k + period * 37) % RAM_PAGES, false);
            double touched = (double)sample(g, N);
            assert_true(fabs(touched - N * f) <= 4 * deviation);
            sum += touched;
        }
        assert_true(fabs(sum / PERIODS - N * f) <= 4 * deviation / sqrt(PERIODS));
    }
    guest_free(g);
}

/* The same, and all touched pages are counted beside. */
static struct pmap_touched sample_and_count(struct guest *g, uint64_t pages)
{
    uint64_t answer = fake_request_message(
        g->s, (struct ring_message){.type = RING_SAMPLE, .value = pages, .flags = RING_COUNT_ALL});
    return (struct pmap_touched){.sample_pages = (uint32_t)answer, .all_pages = answer >> 32};
}

/* A working set unknown to the counters, of another size and place each period: the count of all is
 * that size, and the sample estimates it. */
static void the_truth_is_counted_beside_the_sample(void **state)
{
    enum { PERIODS = 60, N = 100 };
    struct guest *g = guest_new(RAM_PAGES, RAM_PAGES + 64);
    uint64_t random = 12345;
    double squares = 0;
    (void)state;

    sample_and_count(g, N);
    for (unsigned period = 0; period < PERIODS; period++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        ppn_t first = (ppn_t)(random >> 40) % RAM_PAGES;
        uint32_t active = RAM_PAGES / 50 + (uint32_t)(random >> 33) % (RAM_PAGES * 24 / 25);
        for (ppn_t k = 0; k < active; k++)
            hart_access(g, (first + k) % RAM_PAGES, k % 3 == 0);
        write_page(g->s, first, 1); /* by a device, too: still one page */

        struct pmap_touched touched = sample_and_count(g, N);
        assert_int_equal(touched.all_pages, active);
        double f = (double)active / RAM_PAGES, deviation = sqrt(N * f * (1 - f));
        double off = (double)touched.sample_pages - N * f;
        assert_true(fabs(off) <= 4 * deviation + 1);
        squares += off * off / (deviation * deviation);
    }
    /* Their spread is what it should be, neither more nor (a sample that knows) much less. */
    assert_true(squares / PERIODS > 0.5 && squares / PERIODS < 1.6);
    guest_free(g);
}

static void counting_ends_with_its_period(void **state)
{
    struct guest *g = guest_new(64, 128);
    (void)state;

    sample_and_count(g, 8);
    for (ppn_t ppn = 0; ppn < 64; ppn++)
        hart_access(g, ppn, true);
    assert_int_equal(atomic_load(&g->s->region->stats.sample_pages), 8);
    assert_int_equal(touched_so_far(g), 8);
    assert_int_equal(sample(g, 8), UINT64_C(64) << 32 | 8);
    for (ppn_t ppn = 0; ppn < 64; ppn++)
        hart_access(g, ppn, true);
    assert_int_equal(sample(g, 8), 8);

    /* Without a sample there is no period to count in. */
    assert_int_equal(sample_and_count(g, 0).all_pages, 0);
    hart_access(g, 1, true);
    assert_int_equal(sample_and_count(g, 64).all_pages, 0);
    hart_access(g, 1, true);
    struct pmap_touched touched = sample_and_count(g, 0);
    assert_int_equal(touched.all_pages, 1);
    assert_int_equal(touched.sample_pages, 1);
    guest_free(g);
}

static void device_accesses_count(void **state)
{
    struct guest *g = guest_new(64, 128);
    uint8_t byte = 1;
    (void)state;

    sample(g, 64);
    write_page(g->s, 1, 1);
    assert_true(gmem_read(g->s->gmem, page_pa(2), &byte, 1));
    assert_non_null(gmem_pin(g->s->gmem, page_pa(3), 8, true));
    assert_int_equal(sample(g, 64), 3);

    /* a transfer that began before the period goes on in it */
    assert_int_equal(touched_so_far(g), 1);
    gmem_unpin(g->s->gmem, page_pa(3), true);
    assert_int_equal(sample(g, 64), 1);
    assert_int_equal(sample(g, 64), 0);
    guest_free(g);
}

static void pages_without_a_frame_count_when_the_guest_comes_back(void **state)
{
    struct guest *g = guest_new(64, 128);
    (void)state;

    for (ppn_t ppn = 0; ppn < 8; ppn++)
        write_page(g->s, ppn, ppn + 1);
    assert_true(gmem_balloon(g->s->gmem, 0));
    sample(g, 64);
    /* Giving pages away is not using them; nor is paging, ours or the pager's. */
    assert_true(gmem_balloon(g->s->gmem, 1));
    assert_true(gmem_deflate(g->s->gmem, 0));
    assert_int_equal(fake_request(g->s, RING_PAGE_OUT, 6), 6);
    assert_int_equal(touched_so_far(g), 0);
    hart_access(g, 1, false); /* pops */
    hart_access(g, 2, false); /* swapped in */
    assert_int_equal(sample(g, 64), 2);
    guest_free(g);
}

static void a_page_that_was_shared_counts_once(void **state)
{
    struct guest *g = guest_new(64, 128);
    (void)state;

    write_page(g->s, 1, 5);
    assert_int_equal(fake_protect(g->s, 1, mpn_of(g->s, 1)), RING_ITEM_DONE);
    sample(g, 64);
    hart_access(g, 1, false);
    hart_access(g, 1, true);
    assert_int_equal(sample(g, 64), 1);
    guest_free(g);
}

/* Decoded code runs without any look-up, so it has to go. */
static void code_is_decoded_again_to_be_counted(void **state)
{
    struct guest *g = guest_new(64, 128);
    (void)state;

    hart_access(g, 9, false);
    memlock_lock(gmem_lock(g->s->gmem), MEMLOCK_NOT_A_HART);
    shadow_code_added(gmem_pmap(g->s->gmem), 9);
    memlock_unlock(gmem_lock(g->s->gmem), MEMLOCK_NOT_A_HART);
    sample(g, 64);
    assert_int_equal(g->hart.code_dropped, 1);
    assert_int_equal(g->hart.last_dropped, 9);
    guest_free(g);
}

static void looking_is_not_touching(void **state)
{
    struct guest *g = guest_new(64, 128);
    (void)state;

    hart_access(g, 1, true);
    hart_access(g, 2, true);
    sample(g, 64);
    fake_verify(g->s); /* walks the guest's tables for every entry */
    assert_int_equal(touched_so_far(g), 0);
    hart_access(g, 1, true);
    fake_verify(g->s);
    assert_int_equal(sample(g, 64), 1);
    guest_free(g);
}

static void any_number_of_pages_may_be_asked_for(void **state)
{
    struct guest *g = guest_new(64, 128);
    (void)state;

    assert_int_equal(sample(g, UINT64_MAX), 0);
    assert_int_equal(atomic_load(&g->s->region->stats.sample_pages), 64);
    hart_access(g, 63, true);
    assert_int_equal(sample(g, 0), 1);
    hart_access(g, 5, true);
    assert_int_equal(sample(g, 0), 0);
    guest_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_pages_give_the_truth),
        cmocka_unit_test(pages_of_a_sample_are_distinct),
        cmocka_unit_test(a_sample_is_within_the_binomial_bound),
        cmocka_unit_test(the_truth_is_counted_beside_the_sample),
        cmocka_unit_test(counting_ends_with_its_period),
        cmocka_unit_test(device_accesses_count),
        cmocka_unit_test(pages_without_a_frame_count_when_the_guest_comes_back),
        cmocka_unit_test(a_page_that_was_shared_counts_once),
        cmocka_unit_test(code_is_decoded_again_to_be_counted),
        cmocka_unit_test(looking_is_not_touching),
        cmocka_unit_test(any_number_of_pages_may_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
