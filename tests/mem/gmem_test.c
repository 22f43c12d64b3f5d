/*
 * Guest memory, one promise a test: residency and grants, page-out and swap-in,
 * pins, balloon verbs, pause and check.
 */
#include "tests/mem/fake_hart.h"
#include "tests/mem/fake_supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct fake_supervisor *host_of(uint32_t ram_pages, uint32_t machine_pages)
{
    struct fake_host host = fake_host_of(ram_pages, machine_pages, 7);
    return fake_supervisor_new(&host);
}

static uint64_t stat_of(_Atomic uint64_t *field)
{
    return atomic_load(field);
}

static void fresh_pages_read_as_zero(void **state)
{
    struct fake_supervisor *s = host_of(64, 64);
    (void)state;

    for (ppn_t ppn = 0; ppn < 64; ppn++)
        assert_true(page_holds(s, ppn, 0)); /* the frames held junk */
    fake_verify(s);
    fake_supervisor_free(s);
}

static void frames_come_lowest_first(void **state)
{
    struct fake_supervisor *s = host_of(64, 256);
    (void)state;

    for (ppn_t ppn = 0; ppn < 64; ppn++) {
        write_page(s, ppn, ppn + 1);
        assert_int_equal(pmap_word_mpn(pmap_word(gmem_pmap(s->gmem), ppn)), ppn);
    }
    fake_supervisor_free(s);
}

static void more_memory_than_frames_still_holds_its_content(void **state)
{
    struct fake_supervisor *s = host_of(256, 64);
    (void)state;

    for (ppn_t ppn = 0; ppn < 256; ppn++)
        write_page(s, ppn, ppn + 1);
    for (ppn_t ppn = 0; ppn < 256; ppn++)
        assert_true(page_holds(s, ppn, ppn + 1));
    assert_true(stat_of(&s->region->stats.swap_out_pages) >= 192);
    assert_true(stat_of(&s->region->stats.swap_in_pages) > 0);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void page_out_releases_what_was_asked(void **state)
{
    struct fake_supervisor *s = host_of(128, 256);
    (void)state;

    for (ppn_t ppn = 0; ppn < 128; ppn++)
        write_page(s, ppn, ppn + 1);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 50), 50);
    assert_int_equal(fake_released(s, RELEASE_PAGED_OUT), 50);
    assert_int_equal(stat_of(&s->region->stats.pages.pages_in[PAGE_PAGED]), 50);
    assert_int_equal(stat_of(&s->region->stats.swap_slots_used), 50);
    fake_verify(s);
    /* More than there is: everything goes, and the answer says how much that was. */
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 1000), 78);
    for (ppn_t ppn = 0; ppn < 128; ppn++)
        assert_true(page_holds(s, ppn, ppn + 1));
    assert_int_equal(stat_of(&s->region->stats.swap_slots_used), 0);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void without_swap_page_out_is_impossible(void **state)
{
    struct fake_host host = {.ram_pages = 16, .machine_pages = 64, .no_swap = true};
    struct fake_supervisor *s = fake_supervisor_new(&host);
    (void)state;

    write_page(s, 3, 9);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 1), 0);
    assert_true(page_holds(s, 3, 9));
    fake_supervisor_free(s);
}

static void pinned_pages_stay(void **state)
{
    struct fake_supervisor *s = host_of(8, 64);
    uint64_t *words[8];
    (void)state;

    for (ppn_t ppn = 0; ppn < 8; ppn++) {
        words[ppn] = gmem_pin(s->gmem, page_pa(ppn) + 8, 16, ppn % 2);
        assert_non_null(words[ppn]);
    }
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 8), 0);
    assert_false(gmem_balloon(s->gmem, 3));
    assert_true(gmem_report_free(s->gmem, 0, 8));
    for (ppn_t ppn = 0; ppn < 8; ppn++)
        assert_int_equal(state_of(s, ppn), PAGE_PRIVATE);
    *words[1] = 77;
    fake_verify(s);
    for (ppn_t ppn = 0; ppn < 8; ppn++)
        gmem_unpin(s->gmem, page_pa(ppn) + 8, ppn % 2);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 8), 8);
    assert_true(gmem_read(s->gmem, page_pa(1) + 8, words, 8));
    assert_true((uintptr_t)words[0] == 77);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void pins_are_bounded_and_checked(void **state)
{
    struct fake_supervisor *s = host_of(16, 64);
    uint64_t end = page_pa(16);
    (void)state;

    const struct {
        uint64_t pa;
        size_t len;
    } bad[] = {{0, 8},          {RAM_BASE_PA - 1, 1}, {RAM_BASE_PA - 8, 16},  {end, 1},
               {end - 4, 8},    {page_pa(2), 0},      {page_pa(2) + 4095, 2}, {page_pa(2), 4097},
               {UINT64_MAX, 1}, {UINT64_MAX - 3, 8},  {page_pa(1), SIZE_MAX}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_null(gmem_pin(s->gmem, bad[i].pa, bad[i].len, true));
    for (unsigned i = 0; i < GMEM_MAX_PINS; i++)
        assert_non_null(gmem_pin(s->gmem, page_pa(5), 1, false));
    assert_null(gmem_pin(s->gmem, page_pa(6), 1, false));
    for (unsigned i = 0; i < GMEM_MAX_PINS; i++)
        gmem_unpin(s->gmem, page_pa(5), false);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void copies_cross_pages_and_stop_at_the_end(void **state)
{
    struct fake_supervisor *s = host_of(4, 64);
    uint8_t out[3 * PAGE_BYTES], in[3 * PAGE_BYTES];
    (void)state;

    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 31 + i / 251);
    assert_true(gmem_write(s->gmem, page_pa(0) + 77, out, sizeof(out)));
    assert_true(gmem_read(s->gmem, page_pa(0) + 77, in, sizeof(in)));
    assert_memory_equal(in, out, sizeof(out));
    assert_false(gmem_write(s->gmem, page_pa(2), out, sizeof(out)));
    assert_false(gmem_read(s->gmem, page_pa(4), in, 1));
    assert_false(gmem_read(s->gmem, RAM_BASE_PA - 1, in, 2));
    assert_true(gmem_read(s->gmem, page_pa(4), in, 0));
    assert_true(gmem_is_ram(s->gmem, page_pa(0), 4 * PAGE_BYTES));
    assert_false(gmem_is_ram(s->gmem, page_pa(0), 4 * PAGE_BYTES + 1));
    assert_false(gmem_is_ram(s->gmem, page_pa(1), SIZE_MAX));
    fake_supervisor_free(s);
}

static void balloon_takes_frames_and_deflate_gives_zero_pages(void **state)
{
    struct fake_supervisor *s = host_of(32, 64);
    (void)state;

    for (ppn_t ppn = 0; ppn < 16; ppn++)
        write_page(s, ppn, ppn + 1);
    fake_request(s, RING_PAGE_OUT, 8); /* some are paged, 16..31 are absent */
    for (ppn_t ppn = 0; ppn < 32; ppn++)
        assert_true(gmem_balloon(s->gmem, ppn));
    assert_false(gmem_balloon(s->gmem, 5));
    assert_false(gmem_balloon(s->gmem, 32));
    assert_false(gmem_balloon(s->gmem, NO_PPN));
    fake_await_released(s, RELEASE_BALLOONED, 8);
    assert_int_equal(stat_of(&s->region->stats.pages.pages_in[PAGE_BALLOONED]), 32);
    assert_int_equal(stat_of(&s->region->stats.swap_slots_used), 0);
    fake_verify(s);
    for (ppn_t ppn = 0; ppn < 32; ppn++)
        assert_true(gmem_deflate(s->gmem, ppn));
    assert_false(gmem_deflate(s->gmem, 5));
    assert_false(gmem_deflate(s->gmem, 32));
    for (ppn_t ppn = 0; ppn < 32; ppn++)
        assert_true(page_holds(s, ppn, 0));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_touched_ballooned_page_pops(void **state)
{
    struct fake_supervisor *s = host_of(8, 64);
    (void)state;

    write_page(s, 2, 5);
    assert_true(gmem_balloon(s->gmem, 2));
    assert_true(page_holds(s, 2, 0));
    assert_int_equal(state_of(s, 2), PAGE_PRIVATE);
    fake_await_event(s, WORKER_BALLOON_POPPED, 1);
    assert_int_equal(s->event_value2[WORKER_BALLOON_POPPED], 2);
    assert_false(gmem_deflate(s->gmem, 2));
    assert_true(gmem_balloon(s->gmem, 2));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void reported_pages_are_dropped_and_never_made_resident(void **state)
{
    struct fake_supervisor *s = host_of(256, 512);
    (void)state;

    for (ppn_t ppn = 0; ppn < 100; ppn++)
        write_page(s, ppn, ppn + 1);
    fake_request(s, RING_PAGE_OUT, 40);
    assert_true(gmem_balloon(s->gmem, 200));
    assert_true(gmem_report_free(s->gmem, 10, 246));
    assert_false(gmem_report_free(s->gmem, 10, 247));
    assert_false(gmem_report_free(s->gmem, 256, 0));
    assert_false(gmem_report_free(s->gmem, 1, UINT32_MAX));
    for (ppn_t ppn = 10; ppn < 256; ppn++)
        assert_int_equal(state_of(s, ppn), ppn == 200 ? PAGE_BALLOONED : PAGE_ABSENT);
    for (ppn_t ppn = 0; ppn < 10; ppn++)
        assert_true(page_holds(s, ppn, ppn + 1));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_device_write_or_lost_content_drops_decoded_code(void **state)
{
    struct fake_supervisor *s = host_of(8, 64);
    struct hart hart = {.pmap = gmem_pmap(s->gmem)};
    struct pmap *pmap = gmem_pmap(s->gmem);
    (void)state;

    gmem_add_hart(s->gmem, &hart, 0);
    for (ppn_t ppn = 0; ppn < 5; ppn++) {
        write_page(s, ppn, 1);
        shadow_code_added(pmap, ppn);
    }
    assert_int_equal(hart.code_dropped, 0);
    write_page(s, 0, 2);
    assert_false(shadow_is_code(pmap, 0));
    assert_non_null(gmem_pin(s->gmem, page_pa(1), 4, true));
    gmem_unpin(s->gmem, page_pa(1), true);
    assert_false(shadow_is_code(pmap, 1));
    assert_true(gmem_balloon(s->gmem, 2));
    assert_false(shadow_is_code(pmap, 2));
    assert_int_equal(hart.code_dropped, 3);
    /* Paging is not a change of content, and reading is none either. */
    fake_request(s, RING_PAGE_OUT, 8);
    assert_true(shadow_is_code(pmap, 3));
    assert_true(page_holds(s, 3, 1));
    assert_non_null(gmem_pin(s->gmem, page_pa(3), 4, false));
    gmem_unpin(s->gmem, page_pa(3), false);
    assert_true(shadow_is_code(pmap, 3));
    assert_true(gmem_report_free(s->gmem, 3, 2)); /* one resident, one paged */
    assert_false(shadow_is_code(pmap, 3));
    assert_false(shadow_is_code(pmap, 4));
    assert_int_equal(hart.code_dropped, 5);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_shared_page_is_copied_before_it_is_written(void **state)
{
    struct fake_supervisor *s = host_of(8, 300);
    struct pmap *pmap = gmem_pmap(s->gmem);
    mpn_t frame;
    (void)state;

    write_page(s, 1, 4);
    memlock_lock(gmem_lock(s->gmem), MEMLOCK_NOT_A_HART);
    frame = pmap_word_mpn(pmap_word(pmap, 1));
    pmap_move(pmap, 1, PAGE_EV_SHARE, frame, 0);
    memlock_unlock(gmem_lock(s->gmem), MEMLOCK_NOT_A_HART);
    assert_true(page_holds(s, 1, 4));
    assert_int_equal(state_of(s, 1), PAGE_SHARED);
    assert_non_null(gmem_pin(s->gmem, page_pa(1), 8, true));
    assert_int_equal(state_of(s, 1), PAGE_PRIVATE);
    assert_int_not_equal(pmap_word_mpn(pmap_word(pmap, 1)), frame);
    gmem_unpin(s->gmem, page_pa(1), false);
    fake_await_released(s, RELEASE_COW_BREAK, 1);
    assert_true(page_holds(s, 1, 4));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void unused_frames_can_be_called_back(void **state)
{
    struct fake_supervisor *s = host_of(64, 512);
    uint64_t pool;
    (void)state;

    write_page(s, 0, 1);
    fake_verify(s);
    pool = stat_of(&s->region->stats.pool_pages);
    assert_true(pool > 20);
    fake_send_value(s, RING_RETURN, 20);
    fake_await_released(s, RELEASE_UNUSED, 20);
    fake_send_value(s, RING_RETURN, UINT64_MAX);
    fake_await_released(s, RELEASE_UNUSED, pool);
    assert_int_equal(stat_of(&s->region->stats.pool_pages), 0);
    fake_verify(s);
    write_page(s, 1, 1);
    fake_supervisor_free(s);
}

static void targets_become_balloon_sizes(void **state)
{
    struct fake_supervisor *s = host_of(64, 64);
    static const struct {
        uint64_t target_pages, balloon_pages;
    } cases[] = {{64, 0}, {48, 16}, {0, 64}, {65, 0}, {UINT64_MAX, 0}, {1, 63}};
    (void)state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fake_send_value(s, RING_TARGET, cases[i].target_pages);
        pthread_mutex_lock(&s->gate_mutex);
        while (s->balloon_calls < i + 1)
            pthread_cond_wait(&s->gate_changed, &s->gate_mutex);
        assert_int_equal(s->balloon_pages, cases[i].balloon_pages);
        pthread_mutex_unlock(&s->gate_mutex);
    }
    fake_supervisor_free(s);
}

static void every_request_is_answered_once(void **state)
{
    struct fake_supervisor *s = host_of(64, 128);
    static const enum ring_type types[] = {RING_PAGE_OUT, RING_PAUSE,  RING_CHECK,  RING_PAUSE,
                                           RING_PAGE_OUT, RING_RESUME, RING_RESUME, RING_CHECK};
    uint32_t requests[RING_REQUESTS];
    (void)state;

    for (ppn_t ppn = 0; ppn < 64; ppn++)
        write_page(s, ppn, 1);
    for (unsigned i = 0; i < RING_REQUESTS; i++)
        requests[i] = fake_post(s, types[i % 8], i);
    for (unsigned i = 0; i < RING_REQUESTS; i++)
        fake_await(s, requests[i]);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void quit_is_passed_on(void **state)
{
    struct fake_supervisor *s = host_of(8, 8);
    (void)state;

    fake_send_value(s, RING_QUIT, 0);
    pthread_mutex_lock(&s->gate_mutex);
    while (s->quit_calls == 0)
        pthread_cond_wait(&s->gate_changed, &s->gate_mutex);
    pthread_mutex_unlock(&s->gate_mutex);
    fake_supervisor_free(s);
}

static void overhead_is_reported(void **state)
{
    struct fake_supervisor *s = host_of(8, 8);
    (void)state;

    while (stat_of(&s->region->stats.overhead_page_table_bytes) == 0)
        usleep(1000);
    assert_true(stat_of(&s->region->stats.overhead_private_bytes) > 0);
    assert_int_equal(stat_of(&s->region->stats.overhead_region_bytes), vm_region_bytes(8));
    fake_supervisor_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_pages_read_as_zero),
        cmocka_unit_test(frames_come_lowest_first),
        cmocka_unit_test(more_memory_than_frames_still_holds_its_content),
        cmocka_unit_test(page_out_releases_what_was_asked),
        cmocka_unit_test(without_swap_page_out_is_impossible),
        cmocka_unit_test(pinned_pages_stay),
        cmocka_unit_test(pins_are_bounded_and_checked),
        cmocka_unit_test(copies_cross_pages_and_stop_at_the_end),
        cmocka_unit_test(balloon_takes_frames_and_deflate_gives_zero_pages),
        cmocka_unit_test(a_touched_ballooned_page_pops),
        cmocka_unit_test(reported_pages_are_dropped_and_never_made_resident),
        cmocka_unit_test(a_device_write_or_lost_content_drops_decoded_code),
        cmocka_unit_test(a_shared_page_is_copied_before_it_is_written),
        cmocka_unit_test(unused_frames_can_be_called_back),
        cmocka_unit_test(targets_become_balloon_sizes),
        cmocka_unit_test(every_request_is_answered_once),
        cmocka_unit_test(quit_is_passed_on),
        cmocka_unit_test(overhead_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
