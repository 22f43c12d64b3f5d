/* The balloon device (virtio 1.2, 5.5): page states after what a driver says, lies included. */
#include "balloon-driver/balloon_wire.h"
#include "tests/dev/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM_PAGES   256
#define WRITE       VIRTQ_DESC_WRITE
#define F_STATS     (UINT64_C(1) << BALLOON_F_STATS_VQ)
#define F_REPORTING (UINT64_C(1) << BALLOON_F_PAGE_REPORTING)
#define F_OOM       (UINT64_C(1) << BALLOON_F_DEFLATE_ON_OOM)
#define F_TELL_HOST (UINT64_C(1) << BALLOON_F_MUST_TELL_HOST)

static int set_up(void **state)
{
    static struct rig rig;
    const struct virtio_balloon_options options = {.deflate_on_oom = true,
                                                   .free_page_reporting = true};
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, virtio_balloon_new(&rig.env, &options, NULL));
    *state = &rig;
    return rig_start(&rig, F_STATS | F_REPORTING | F_OOM | F_TELL_HOST, 4) ? 0 : -1;
}

static int tear_down(void **state)
{
    rig_close(*state);
    return 0;
}

static uint64_t pages_in(struct rig *rig, enum page_state state)
{
    return gmem_stats(rig->gmem)->pages.pages_in[state];
}

/* Offer count page numbers to a queue; returns whether the buffer came back. */
static bool tell(struct rig *rig, unsigned queue, const balloon_page_number *numbers,
                 unsigned count)
{
    uint32_t bytes = count * (uint32_t)sizeof numbers[0];
    uint64_t pa = rig_alloc(rig, bytes, 4);
    gmem_write(rig->gmem, pa, numbers, bytes);
    rig_offer(rig, queue, {pa, bytes, 0});
    return rig_used(rig, queue, NULL, NULL);
}

static balloon_page_number number_of(uint64_t pa)
{
    return (balloon_page_number)(pa >> BALLOON_PAGE_SHIFT);
}

static void driver_comes_and_goes(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(gmem_stats(rig->gmem)->balloon_driver, 1);
    assert_int_equal(rig_events(rig, WORKER_BALLOON_DRIVER, 1), 1);
    rig_write(rig, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(gmem_stats(rig->gmem)->balloon_driver, 0);
    assert_int_equal(rig_events(rig, WORKER_BALLOON_DRIVER, 0), 1);
}

static void inflated_pages_are_given_up_and_deflated_ones_come_back(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 3 * PAGE_BYTES, PAGE_BYTES);
    rig_fill(rig, pa, 0x55, PAGE_BYTES);
    const balloon_page_number numbers[] = {number_of(pa), number_of(pa) + 1, number_of(pa) + 2};
    assert_true(tell(rig, BALLOON_QUEUE_INFLATE, numbers, 3));
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rig_page_state(rig, pa + i * PAGE_BYTES), PAGE_BALLOONED);
    assert_true(tell(rig, BALLOON_QUEUE_DEFLATE, numbers, 3));
    assert_int_equal(pages_in(rig, PAGE_BALLOONED), 0);
    assert_int_equal(*(uint8_t *)rig_host(rig, pa), 0);
}

static void target_and_actual_are_passed_on(void **state)
{
    struct rig *rig = *state;
    virtio_balloon_set(rig->device, 100);
    assert_int_equal(rig_take_interrupt(rig), VIRTIO_INTERRUPT_CONFIG);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG), 100);
    assert_int_equal(gmem_stats(rig->gmem)->balloon_target_pages, 100);
    rig_write(rig, VIRTIO_MMIO_CONFIG + 4, 42);
    assert_int_equal(gmem_stats(rig->gmem)->balloon_actual_pages, 42);
    virtio_balloon_set(rig->device, UINT64_MAX); /* never more than there is */
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG), RAM_PAGES);
}

static void options_are_features(void **state)
{
    static struct rig rig;
    const struct virtio_balloon_options none = {0};
    (void)state;
    rig_open(&rig, 16);
    rig_attach(&rig, virtio_balloon_new(&rig.env, &none, NULL));
    assert_true(rig_negotiate(&rig, F_STATS | F_TELL_HOST));
    assert_false(rig_negotiate(&rig, F_OOM));
    assert_false(rig_negotiate(&rig, F_REPORTING));
    rig_close(&rig);
}

/* ---- Lies ---- */

static void impossible_pages_need_a_reset(void **state)
{
    struct rig *rig = *state;
    const uint32_t first = number_of(RAM_BASE_PA);
    const balloon_page_number cases[] = {
        0, 1, first - 1, first + RAM_PAGES, UINT32_MAX, first + (1u << 28),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (unsigned queue = 0; queue < 2; queue++) {
            rig->next_free_pa = RAM_BASE_PA;
            rig_fill(rig, RAM_BASE_PA, 0, 16 * PAGE_BYTES);
            rig_start(rig, 0, 2);
            assert_false(tell(rig, queue, &cases[i], 1));
            assert_true(rig_needs_reset(rig));
        }
    }
}

static void a_page_named_twice_needs_a_reset(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
    const balloon_page_number twice[] = {number_of(pa), number_of(pa)};
    assert_false(tell(rig, BALLOON_QUEUE_INFLATE, twice, 2));
    assert_true(rig_needs_reset(rig));
    /* The driver is taken for gone: its balloon is empty. */
    assert_int_equal(pages_in(rig, PAGE_BALLOONED), 0);
    assert_int_equal(gmem_stats(rig->gmem)->balloon_driver, 0);
    rig_start(rig, 0, 2);
    assert_true(tell(rig, BALLOON_QUEUE_INFLATE, twice, 1));
}

static void deflating_a_page_outside_the_balloon_does_nothing(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
    rig_fill(rig, pa, 0x55, PAGE_BYTES);
    const balloon_page_number number = number_of(pa);
    assert_true(tell(rig, BALLOON_QUEUE_DEFLATE, &number, 1));
    assert_false(rig_needs_reset(rig));
    assert_int_equal(*(uint8_t *)rig_host(rig, pa), 0x55);
}

static void odd_buffers_need_a_reset(void **state)
{
    struct rig *rig = *state;
    const struct piece cases[] = {
        {0, 3, 0},
        {0, 4, WRITE},
        {0, 4 * (BALLOON_MAX_BATCH + 1), 0},
        {0, 5, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct piece piece = cases[i];
        rig->next_free_pa = RAM_BASE_PA;
        rig_fill(rig, RAM_BASE_PA, 0, 16 * PAGE_BYTES);
        rig_start(rig, 0, 2);
        piece.pa = rig_alloc(rig, piece.len, 4);
        rig_offer_pieces(rig, BALLOON_QUEUE_INFLATE, &piece, 1);
        if (!rig_needs_reset(rig))
            fail_msg("case %zu", i);
    }
}

/* A driver gives away the pages of its own queue: they read as zero from then on, and the device
 * goes on with that, or asks for a reset. */
static void ballooned_queue_pages_do_no_harm(void **state)
{
    struct rig *rig = *state;
    struct rig_queue *queue = &rig->queues[BALLOON_QUEUE_INFLATE];
    const balloon_page_number numbers[] = {number_of(queue->desc_pa), number_of(queue->avail_pa)};
    unsigned count = numbers[0] == numbers[1] ? 1 : 2;
    tell(rig, BALLOON_QUEUE_INFLATE, numbers, count);
    for (int i = 0; i < 20; i++)
        rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, BALLOON_QUEUE_INFLATE);
    rig->next_free_pa += PAGE_BYTES;
    assert_true(rig_start(rig, 0, 2));
    assert_false(rig_needs_reset(rig));
}

static void reset_empties_the_balloon(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
    const balloon_page_number number = number_of(pa);
    assert_true(tell(rig, BALLOON_QUEUE_INFLATE, &number, 1));
    rig_write(rig, VIRTIO_MMIO_CONFIG + 4, 1);
    rig_write(rig, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(rig_page_state(rig, pa), PAGE_ABSENT);
    assert_int_equal(gmem_stats(rig->gmem)->balloon_actual_pages, 0);
}

/* ---- Statistics ---- */

static void offer_stats(struct rig *rig, const struct balloon_stat *stats, unsigned count)
{
    uint32_t bytes = count * (uint32_t)sizeof stats[0];
    uint64_t pa = rig_alloc(rig, bytes, 8);
    gmem_write(rig->gmem, pa, stats, bytes);
    rig_offer(rig, BALLOON_QUEUE_STATS, {pa, bytes, 0});
}

static void statistics_are_kept_by_tag(void **state)
{
    struct rig *rig = *state;
    struct vm_stats *stats = gmem_stats(rig->gmem);
    const struct balloon_stat sent[] = {
        {BALLOON_STAT_FREE_BYTES, 12345},
        {BALLOON_STAT_AVAILABLE_BYTES, 999},
        {15, 15},
        {16, 16},
        {0xffff, 77}, /* tags of newer drivers */
    };
    assert_true(stats->balloon_stats[BALLOON_STAT_FREE_BYTES] == UINT64_MAX);
    offer_stats(rig, sent, 5);
    assert_int_equal(stats->balloon_stats[BALLOON_STAT_FREE_BYTES], 12345);
    assert_int_equal(stats->balloon_stats[BALLOON_STAT_AVAILABLE_BYTES], 999);
    assert_int_equal(stats->balloon_stats[15], 15);
    assert_true(stats->balloon_stats[BALLOON_STAT_SWAP_IN] == UINT64_MAX);
    assert_false(rig_needs_reset(rig));
    rig_write(rig, VIRTIO_MMIO_STATUS, 0);
    assert_true(stats->balloon_stats[BALLOON_STAT_FREE_BYTES] == UINT64_MAX);
}

static void statistics_are_asked_for_about_once_a_second(void **state)
{
    struct rig *rig = *state;
    const struct balloon_stat sent = {BALLOON_STAT_FREE_BYTES, 1};
    offer_stats(rig, &sent, 1);
    assert_false(rig_used(rig, BALLOON_QUEUE_STATS, NULL, NULL)); /* held */
    rig_poll(rig, 1500);
    assert_true(rig_used(rig, BALLOON_QUEUE_STATS, NULL, NULL));
}

static void long_and_ragged_statistics_are_read_as_far_as_they_make_sense(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 20 * PAGE_BYTES, 8);
    rig_offer(rig, BALLOON_QUEUE_STATS, {pa, 20 * PAGE_BYTES - 3, 0});
    assert_int_equal(gmem_stats(rig->gmem)->balloon_stats[0], 0);
    assert_false(rig_needs_reset(rig));
}

/* ---- Free page reporting ---- */

static void reported_pages_lose_their_frames_and_are_not_made_resident(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 8 * PAGE_BYTES, PAGE_BYTES);
    rig_host(rig, pa); /* the first page has a frame, the others have none */
    uint64_t absent = pages_in(rig, PAGE_ABSENT);
    rig_offer(rig, 3, {pa, 4 * PAGE_BYTES, WRITE}, {pa + 4 * PAGE_BYTES, 4 * PAGE_BYTES, WRITE});
    assert_true(rig_used(rig, 3, NULL, NULL));
    assert_int_equal(pages_in(rig, PAGE_ABSENT), absent + 1);
}

/* Queue 2, 3 or 4, whichever the driver counts as the one for reporting. */
static void reporting_queue_is_found_wherever_the_driver_puts_it(void **state)
{
    struct rig *rig = *state;
    for (unsigned queue = 2; queue <= 4; queue++) {
        rig->next_free_pa = RAM_BASE_PA;
        rig_fill(rig, RAM_BASE_PA, 0, 16 * PAGE_BYTES);
        rig_start(rig, F_REPORTING | (queue == 2 ? 0 : F_STATS), queue + 1);
        uint64_t pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
        rig_host(rig, pa);
        rig_offer(rig, queue, {pa, PAGE_BYTES, WRITE});
        assert_true(rig_used(rig, queue, NULL, NULL));
        assert_int_equal(rig_page_state(rig, pa), PAGE_ABSENT);
    }
}

static void reports_of_parts_of_pages_need_a_reset(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 2 * PAGE_BYTES, PAGE_BYTES);
    rig_host(rig, pa);
    rig_offer(rig, 3, {pa + 1, PAGE_BYTES, WRITE});
    assert_true(rig_needs_reset(rig));
    assert_int_equal(rig_page_state(rig, pa), PAGE_PRIVATE);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(driver_comes_and_goes),
        CASE(inflated_pages_are_given_up_and_deflated_ones_come_back),
        CASE(target_and_actual_are_passed_on),
        cmocka_unit_test(options_are_features),
        CASE(impossible_pages_need_a_reset),
        CASE(a_page_named_twice_needs_a_reset),
        CASE(deflating_a_page_outside_the_balloon_does_nothing),
        CASE(odd_buffers_need_a_reset),
        CASE(ballooned_queue_pages_do_no_harm),
        CASE(reset_empties_the_balloon),
        CASE(statistics_are_kept_by_tag),
        CASE(statistics_are_asked_for_about_once_a_second),
        CASE(long_and_ragged_statistics_are_read_as_far_as_they_make_sense),
        CASE(reported_pages_lose_their_frames_and_are_not_made_resident),
        CASE(reporting_queue_is_found_wherever_the_driver_puts_it),
        CASE(reports_of_parts_of_pages_need_a_reset),
    };
    return cmocka_run_group_tests_name("virtio balloon", tests, NULL, NULL);
}
