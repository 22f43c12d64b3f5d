/*
 * The worker's part of content-based sharing: protect, compare, share, map,
 * unshare, the copy-on-write break, and what counts as written.
 */
#include "tests/mem/fake_supervisor.h"

#include "shadow-pt/shadow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct fake_supervisor *host_of(uint32_t ram_pages, uint32_t machine_pages)
{
    struct fake_host host = fake_host_of(ram_pages, machine_pages, 7);
    return fake_supervisor_new(&host);
}

/* The paper's Figure 3, worker's side: two pages of one content end up in one frame. */
static void equal_pages_end_up_in_one_frame(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    mpn_t target;
    (void)state;

    write_page(s, 1, 42);
    write_page(s, 2, 42);
    target = mpn_of(s, 1);
    assert_int_equal(fake_protect(s, 1, target), RING_ITEM_DONE);
    assert_int_equal(fake_share(s, 2, mpn_of(s, 2), target), RING_ITEM_DONE);
    assert_int_equal(mpn_of(s, 2), target);
    assert_int_equal(fake_released(s, RELEASE_SHARED_AWAY), 1);
    assert_int_equal(fake_refs(s, target), 2);
    assert_true(page_holds(s, 1, 42) && page_holds(s, 2, 42));
    fake_verify(s);

    /* a store to one leaves the other */
    write_page(s, 2, 43);
    fake_await_released(s, RELEASE_COW_BREAK, 1);
    assert_int_equal(fake_refs(s, target), 1);
    assert_true(page_holds(s, 1, 42) && page_holds(s, 2, 43));
    write_page(s, 1, 44);
    fake_await_released(s, RELEASE_COW_BREAK, 2);
    assert_true(page_holds(s, 1, 44) && page_holds(s, 2, 43));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_byte_of_difference_keeps_pages_apart(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    uint8_t last = 0x77;
    (void)state;

    write_page(s, 1, 42);
    write_page(s, 2, 42);
    assert_true(gmem_write(s->gmem, page_pa(2) + PAGE_BYTES - 1, &last, 1));
    mpn_t target = mpn_of(s, 1), own = mpn_of(s, 2);
    assert_int_equal(fake_protect(s, 1, target), RING_ITEM_DONE);
    assert_int_equal(fake_share(s, 2, own, target), RING_ITEM_DIFFERS);
    assert_int_equal(state_of(s, 2), PAGE_PRIVATE);
    assert_int_equal(mpn_of(s, 2), own);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void what_is_no_longer_so_is_stale(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    write_page(s, 1, 1);
    write_page(s, 2, 2);
    mpn_t one = mpn_of(s, 1), two = mpn_of(s, 2);
    assert_int_equal(fake_protect(s, 1, two), RING_ITEM_STALE);
    assert_int_equal(fake_protect(s, 3, one), RING_ITEM_STALE);       /* absent */
    assert_int_equal(fake_protect(s, 64, one), RING_ITEM_STALE);      /* beyond RAM */
    assert_int_equal(fake_unshare(s, 1, one, true), RING_ITEM_STALE); /* not shared */
    assert_int_equal(fake_protect(s, 1, one), RING_ITEM_DONE);
    assert_int_equal(fake_share(s, 1, one, one), RING_ITEM_STALE); /* with itself */
    assert_int_equal(fake_map(s, 2, one), RING_ITEM_STALE);        /* not absent */
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 1), 1);        /* takes page 2 */
    assert_int_equal(fake_share(s, 2, two, one), RING_ITEM_STALE);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void pinned_pages_are_busy(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    write_page(s, 1, 1);
    write_page(s, 2, 1);
    assert_non_null(gmem_pin(s->gmem, page_pa(1), 8, true));
    assert_int_equal(fake_protect(s, 1, mpn_of(s, 1)), RING_ITEM_BUSY);
    gmem_unpin(s->gmem, page_pa(1), true);
    assert_int_equal(fake_protect(s, 1, mpn_of(s, 1)), RING_ITEM_DONE);
    assert_non_null(gmem_pin(s->gmem, page_pa(2), 8, false));
    assert_int_equal(fake_share(s, 2, mpn_of(s, 2), mpn_of(s, 1)), RING_ITEM_BUSY);
    gmem_unpin(s->gmem, page_pa(2), false);
    /* a device that reads a shared page would go on reading what is no longer the guest's */
    assert_non_null(gmem_pin(s->gmem, page_pa(1), 8, false));
    assert_int_equal(fake_unshare(s, 1, mpn_of(s, 1), false), RING_ITEM_BUSY);
    gmem_unpin(s->gmem, page_pa(1), false);
    assert_int_equal(fake_unshare(s, 1, mpn_of(s, 1), false), RING_ITEM_DONE);
    fake_verify(s);
    fake_supervisor_free(s);
}

/* A device reads a shared page; the guest breaks the sharing meanwhile. The old frame, whose last
 * reference this was, must not be anybody else's before the device has finished. */
static void a_frame_that_a_device_reads_is_kept_until_the_unpin(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    uint8_t expected[PAGE_BYTES], *pinned;
    (void)state;

    write_page(s, 1, 5);
    assert_int_equal(fake_protect(s, 1, mpn_of(s, 1)), RING_ITEM_DONE);
    pinned = gmem_pin(s->gmem, page_pa(1), PAGE_BYTES, false);
    write_page(s, 1, 6);
    fake_request(s, RING_PAGE_OUT, 0); /* answered after every release before it */
    assert_int_equal(fake_released(s, RELEASE_COW_BREAK), 0);
    fill_pattern(expected, 5);
    assert_memory_equal(pinned, expected, PAGE_BYTES);
    gmem_unpin(s->gmem, page_pa(1), false);
    fake_await_released(s, RELEASE_COW_BREAK, 1);
    assert_true(page_holds(s, 1, 6));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_sole_reference_becomes_private_in_place(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    write_page(s, 1, 5);
    mpn_t mpn = mpn_of(s, 1);
    assert_int_equal(fake_protect(s, 1, mpn), RING_ITEM_DONE);
    assert_int_equal(fake_unshare(s, 1, mpn, true), RING_ITEM_DONE);
    assert_int_equal(mpn_of(s, 1), mpn);
    assert_int_equal(state_of(s, 1), PAGE_PRIVATE);
    write_page(s, 1, 6);
    assert_int_equal(fake_released(s, RELEASE_COW_BREAK), 0);
    fake_verify(s);

    /* and by copy, whoever else maps the frame */
    assert_int_equal(fake_protect(s, 1, mpn), RING_ITEM_DONE);
    assert_int_equal(fake_unshare(s, 1, mpn, false), RING_ITEM_DONE);
    fake_await_released(s, RELEASE_UNSHARED, 1);
    assert_int_equal(fake_released(s, RELEASE_COW_BREAK), 0);
    assert_int_not_equal(mpn_of(s, 1), mpn);
    assert_true(page_holds(s, 1, 6));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void an_absent_page_maps_what_is_shared(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    write_page(s, 1, 5);
    mpn_t mpn = mpn_of(s, 1);
    assert_int_equal(fake_protect(s, 1, mpn), RING_ITEM_DONE);
    assert_int_equal(fake_map(s, 9, mpn), RING_ITEM_DONE);
    assert_true(page_holds(s, 9, 5));
    assert_int_equal(fake_refs(s, mpn), 2);
    assert_true(gmem_balloon(s->gmem, 9));
    fake_await_released(s, RELEASE_BALLOONED, 1);
    assert_int_equal(fake_refs(s, mpn), 1);
    fake_verify(s);
    fake_supervisor_free(s);
}

/* Which of the first 64 pages were written since the last call? */
static uint64_t written_by(struct fake_supervisor *s, uint32_t flags)
{
    struct ring_message message = {.type = RING_WRITTEN, .flags = flags, .value = 0, .value2 = 64};
    uint32_t request;

    pthread_mutex_lock(&s->mutex);
    request = message.request = s->next_request++;
    pthread_mutex_unlock(&s->mutex);
    fake_send(s, &message);
    uint64_t count = fake_await(s, request);
    uint64_t bits = atomic_load(vm_region_collected(s->region, s->host.ram_pages));
    assert_int_equal(count, __builtin_popcountll(bits));
    return bits;
}

static uint64_t written(struct fake_supervisor *s)
{
    return written_by(s, 0);
}

static void
pages_written_all_the_time_are_left_alone_when_only_cold_ones_are_asked_for(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    write_page(s, 1, 1);
    write_page(s, 2, 1);
    assert_int_equal(written_by(s, RING_COLD), 1u << 1 | 1u << 2); /* new: cold so far */
    write_page(s, 1, 2);
    write_page(s, 3, 1);
    assert_int_equal(written_by(s, RING_COLD), 1u << 3);
    assert_int_equal(atomic_load(vm_region_hot(s->region, s->host.ram_pages)), 1u << 1);
    write_page(s, 2, 2); /* not written in between: cold again */
    assert_int_equal(written_by(s, RING_COLD), 1u << 2);
    assert_int_equal(written(s), 1u << 1); /* nothing is forgotten */
    assert_int_equal(atomic_load(vm_region_hot(s->region, s->host.ram_pages)), 0);
    assert_int_equal(written(s), 0);
    fake_supervisor_free(s);
}

static void what_gets_new_content_counts_as_written_once(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    uint8_t page[PAGE_BYTES];
    (void)state;

    assert_int_equal(written(s), 0);
    write_page(s, 1, 1);
    assert_true(gmem_read(s->gmem, page_pa(2), page, 1)); /* first touch: a zero page */
    assert_int_equal(written(s), 1u << 1 | 1u << 2);
    assert_true(gmem_read(s->gmem, page_pa(1), page, 1));
    assert_int_equal(written(s), 0);

    /* a device is writing: written now, and again after */
    assert_non_null(gmem_pin(s->gmem, page_pa(2), 8, true));
    assert_int_equal(written(s), 1u << 2);
    assert_int_equal(written(s), 1u << 2);
    gmem_unpin(s->gmem, page_pa(2), true);
    assert_int_equal(written(s), 1u << 2);
    assert_int_equal(written(s), 0);

    /* pages that are there already count by the write alone, with and without a pin */
    write_page(s, 1, 1);
    assert_non_null(gmem_pin(s->gmem, page_pa(2), 8, true));
    gmem_unpin(s->gmem, page_pa(2), true);
    assert_int_equal(written(s), 1u << 1 | 1u << 2);

    /* out and in again: the frame is another one */
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 2), 2);
    assert_true(page_holds(s, 1, 1));
    assert_int_equal(written(s), 1u << 1);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void impossible_ranges_collect_nothing(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    struct ring_message bad[] = {
        {.type = RING_WRITTEN, .value = 1, .value2 = 64},
        {.type = RING_WRITTEN, .value = UINT64_MAX & ~UINT64_C(63), .value2 = 64},
        {.type = RING_WRITTEN, .value = 0, .value2 = RING_WRITTEN_PAGES + 1},
    };
    (void)state;

    write_page(s, 1, 1);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        pthread_mutex_lock(&s->mutex);
        uint32_t request = bad[i].request = s->next_request++;
        pthread_mutex_unlock(&s->mutex);
        fake_send(s, &bad[i]);
        assert_int_equal(fake_await(s, request), 0);
    }
    assert_int_equal(written(s), 1u << 1);
    fake_supervisor_free(s);
}

static uint32_t page_out_offering(struct fake_supervisor *s, uint64_t pages)
{
    struct ring_message message = {
        .type = RING_PAGE_OUT, .flags = RING_OFFER_FIRST, .value = pages};

    pthread_mutex_lock(&s->mutex);
    message.request = s->next_request++;
    pthread_mutex_unlock(&s->mutex);
    fake_send(s, &message);
    return message.request;
}

static struct ring_message first_offer(struct fake_supervisor *s)
{
    struct ring_message offer = {0};

    for (int tries = 0; tries < 5000 && offer.count == 0; tries++) {
        pthread_mutex_lock(&s->mutex);
        if (s->offer_count > 0)
            offer = s->offers[0];
        pthread_mutex_unlock(&s->mutex);
        usleep(1000);
    }
    assert_int_not_equal(offer.count, 0);
    return offer;
}

static void a_victim_that_can_be_shared_is_not_written(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    for (ppn_t ppn = 0; ppn < 3; ppn++)
        write_page(s, ppn, 42);
    mpn_t target = mpn_of(s, 0);
    assert_int_equal(fake_protect(s, 0, target), RING_ITEM_DONE);

    uint32_t request = page_out_offering(s, 2);
    struct ring_message offer = first_offer(s);
    assert_int_equal(offer.count, 2); /* pages 1 and 2, in some order: 0 is not private */
    assert_int_equal(fake_share(s, offer.pairs[0].ppn, offer.pairs[0].mpn, target), RING_ITEM_DONE);
    struct ring_message page_it = {
        .type = RING_PAGE_THESE, .count = 1, .pairs = {{offer.pairs[1].ppn, offer.pairs[1].mpn}}};
    fake_send(s, &page_it);
    assert_int_equal(fake_await(s, request), 2);
    assert_int_equal(fake_released(s, RELEASE_SHARED_AWAY), 1);
    assert_int_equal(fake_released(s, RELEASE_PAGED_OUT), 1);
    assert_int_equal(state_of(s, offer.pairs[0].ppn), PAGE_SHARED);
    assert_int_equal(state_of(s, offer.pairs[1].ppn), PAGE_PAGED);
    for (ppn_t ppn = 0; ppn < 3; ppn++)
        assert_true(page_holds(s, ppn, 42));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void an_offer_without_an_answer_is_paged_out(void **state)
{
    struct fake_supervisor *s = host_of(128, 256);
    struct ring_message stray = {.type = RING_PAGE_THESE, .count = 1, .pairs = {{7777, 1}}};
    (void)state;

    for (ppn_t ppn = 0; ppn < 128; ppn++)
        write_page(s, ppn, ppn + 1);
    fake_send(s, &stray); /* names a page that was not offered: no effect */
    assert_int_equal(fake_await(s, page_out_offering(s, 40)), 40);
    assert_int_equal(fake_released(s, RELEASE_PAGED_OUT), 40);
    for (ppn_t ppn = 0; ppn < 128; ppn++)
        assert_true(page_holds(s, ppn, ppn + 1));
    fake_verify(s);
    fake_supervisor_free(s);
}

/* A store between offer and answer only makes the page another one; it is paged out with the new
 * content. */
static void an_offered_page_may_be_stored_to(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    (void)state;

    write_page(s, 1, 42);
    uint32_t request = page_out_offering(s, 1);
    struct ring_message offer = first_offer(s);
    write_page(s, 1, 43);
    struct ring_message page_it = {
        .type = RING_PAGE_THESE, .count = 1, .pairs = {{offer.pairs[0].ppn, offer.pairs[0].mpn}}};
    fake_send(s, &page_it);
    assert_int_equal(fake_await(s, request), 1);
    assert_true(page_holds(s, 1, 43));
    fake_verify(s);
    fake_supervisor_free(s);
}

/* Two writers store to pages that are being protected, shared, unshared, ballooned and paged out
 * all the time; what they wrote last is what they read. */
#define STORM_PAGES 48u

struct writer {
    struct fake_supervisor *s;
    unsigned which;
    _Atomic bool stop;
    uint64_t seeds[STORM_PAGES]; /* by page, of those that are this writer's */
    unsigned wrong;
};

static void *write_and_read(void *argument)
{
    struct writer *w = argument;
    unsigned random = w->which + 1;

    while (!atomic_load(&w->stop)) {
        fake_gate(w->s);
        random = random * 1103515245 + 12345;
        ppn_t ppn = 2 * ((random >> 8) % (STORM_PAGES / 2)) + w->which;
        usleep(20); /* leave pages equal for long enough to be found */
        if (random >> 28) {
            if (!page_holds(w->s, ppn, w->seeds[ppn]))
                w->wrong++;
        } else {
            w->seeds[ppn] = 1 + (random >> 16) % 3; /* few contents: many equal pages */
            write_page(w->s, ppn, w->seeds[ppn]);
        }
    }
    fake_gate_leave(w->s);
    return NULL;
}

static void stores_at_any_moment_are_never_lost(void **state)
{
    struct fake_host host = fake_host_of(STORM_PAGES, STORM_PAGES + 16, 7);
    host.actors = 2;
    struct fake_supervisor *s = fake_supervisor_new(&host);
    struct writer writers[2] = {{.s = s, .which = 0}, {.s = s, .which = 1}};
    pthread_t threads[2];
    unsigned random = 99, shared = 0;
    (void)state;

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_and_read, &writers[i]), 0);
    time_t end = time(NULL) + 20;
    for (unsigned step = 0; (step < 4000 || shared < 200) && time(NULL) < end; step++) {
        const _Atomic uint64_t *words = vm_region_pmap(s->region);
        random = random * 1103515245 + 12345;
        ppn_t a = (random >> 8) % STORM_PAGES, b = (random >> 16) % STORM_PAGES;
        uint64_t word_a = atomic_load(&words[a]), word_b = atomic_load(&words[b]);

        if (pmap_word_state(word_a) == PAGE_PRIVATE) {
            fake_protect(s, a, pmap_word_mpn(word_a));
        } else if (pmap_word_state(word_a) == PAGE_SHARED &&
                   pmap_word_state(word_b) == PAGE_PRIVATE &&
                   fake_refs(s, pmap_word_mpn(word_a)) > 0) {
            shared +=
                fake_share(s, b, pmap_word_mpn(word_b), pmap_word_mpn(word_a)) == RING_ITEM_DONE;
        }
        if (step % 16 == 0)
            fake_await(s, step % 256 ? fake_post(s, RING_PAGE_OUT, 2) : page_out_offering(s, 2));
        if (step % 400 == 0)
            fake_verify(s);
    }
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&writers[i].stop, true);
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].wrong, 0);
    }
    if (shared < 200)
        fail_msg("only %u pages were shared: this tests nothing", shared);
    fake_verify(s);
    fake_supervisor_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_pages_end_up_in_one_frame),
        cmocka_unit_test(a_byte_of_difference_keeps_pages_apart),
        cmocka_unit_test(what_is_no_longer_so_is_stale),
        cmocka_unit_test(pinned_pages_are_busy),
        cmocka_unit_test(a_frame_that_a_device_reads_is_kept_until_the_unpin),
        cmocka_unit_test(a_sole_reference_becomes_private_in_place),
        cmocka_unit_test(an_absent_page_maps_what_is_shared),
        cmocka_unit_test(
            pages_written_all_the_time_are_left_alone_when_only_cold_ones_are_asked_for),
        cmocka_unit_test(what_gets_new_content_counts_as_written_once),
        cmocka_unit_test(impossible_ranges_collect_nothing),
        cmocka_unit_test(a_victim_that_can_be_shared_is_not_written),
        cmocka_unit_test(an_offer_without_an_answer_is_paged_out),
        cmocka_unit_test(an_offered_page_may_be_stored_to),
        cmocka_unit_test(stores_at_any_moment_are_never_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
