/*
 * Split virtqueues (virtio 1.2, 2.7): what a chain may look like, and that one
 * which may not only makes the device ask for a reset. Seen through the entropy
 * device, which writes to every byte of a good chain up to 4 KiB.
 */
#include "tests/dev/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define RAM_PAGES  64
#define NEXT       VIRTQ_DESC_NEXT
#define WRITE      VIRTQ_DESC_WRITE
#define INDIRECT   VIRTQ_DESC_INDIRECT
#define F_INDIRECT (UINT64_C(1) << VIRTIO_F_INDIRECT_DESC)
#define F_EVENT    (UINT64_C(1) << VIRTIO_F_EVENT_IDX)

static int set_up(void **state)
{
    static struct rig rig;
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, virtio_rng_new(&rig.env, NULL));
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_close(*state);
    return 0;
}

static void chain_of_one_is_used(void **state)
{
    struct rig *rig = *state;
    uint32_t head, len;
    rig_start(rig, 0, 1);
    uint16_t offered = rig_offer(rig, 0, {rig_alloc(rig, 100, 1), 100, WRITE});
    assert_true(rig_used(rig, 0, &head, &len));
    assert_int_equal(head, offered);
    assert_int_equal(len, 100);
    assert_false(rig_used(rig, 0, NULL, NULL));
}

static void segments_of_a_chain_are_filled_in_order(void **state)
{
    struct rig *rig = *state;
    static const uint8_t zeroes[64];
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 3 * PAGE_BYTES, PAGE_BYTES);
    /* The first crosses a page boundary. */
    rig_offer(rig, 0, {pa + PAGE_BYTES - 32, 64, WRITE}, {pa, 64, WRITE});
    uint32_t len;
    assert_true(rig_used(rig, 0, NULL, &len));
    assert_int_equal(len, 128);
    assert_memory_not_equal(rig_host(rig, pa), zeroes, 64);
    assert_memory_not_equal(rig_host(rig, pa + PAGE_BYTES - 32), zeroes, 32);
    assert_memory_not_equal(rig_host(rig, pa + PAGE_BYTES), zeroes, 32);
    assert_memory_equal(rig_host(rig, pa + PAGE_BYTES + 32), zeroes, 64);
}

static void indices_wrap_around(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 16, 16);
    for (unsigned i = 0; i < 0x10000 + 3 * RIG_QUEUE_SIZE; i++) {
        rig_offer(rig, 0, {pa, 1, WRITE});
        if (!rig_used(rig, 0, NULL, NULL))
            fail_msg("chain %u was not used", i);
    }
}

static void indirect_table_is_followed(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, F_INDIRECT, 1);
    uint64_t pa = rig_alloc(rig, 64, 16), table_pa = rig_alloc(rig, 64, 16);
    struct virtq_desc table[] = {{pa, 16, WRITE | NEXT, 2}, {0}, {pa + 16, 16, WRITE, 0}};
    gmem_write(rig->gmem, table_pa, table, sizeof table);
    rig_offer(rig, 0, {table_pa, sizeof table, INDIRECT});
    uint32_t len;
    assert_true(rig_used(rig, 0, NULL, &len));
    assert_int_equal(len, 32);
}

static void overlapping_segments_are_legal(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 64, 16);
    rig_offer(rig, 0, {pa, 64, WRITE}, {pa + 16, 32, WRITE});
    assert_true(rig_used(rig, 0, NULL, NULL));
    assert_false(rig_needs_reset(rig));
}

/* ---- Chains no driver may make ---- */

static const uint64_t end_pa = RAM_BASE_PA + RAM_PAGES * PAGE_BYTES;

/* Each makes one bad chain; queue 0 is set up, good_pa is a page of RAM. */
static void loop_of_one(struct rig *rig, uint64_t good_pa)
{
    rig_set_desc(rig, 0, 0, (struct virtq_desc){good_pa, 16, WRITE | NEXT, 0});
    rig_publish(rig, 0, 0);
}
static void loop_of_two(struct rig *rig, uint64_t good_pa)
{
    rig_set_desc(rig, 0, 0, (struct virtq_desc){good_pa, 16, WRITE | NEXT, 1});
    rig_set_desc(rig, 0, 1, (struct virtq_desc){good_pa, 16, WRITE | NEXT, 0});
    rig_publish(rig, 0, 0);
}
static void head_outside_table(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_publish(rig, 0, RIG_QUEUE_SIZE);
}
static void next_outside_table(struct rig *rig, uint64_t good_pa)
{
    rig_set_desc(rig, 0, 0, (struct virtq_desc){good_pa, 16, WRITE | NEXT, 0xffff});
    rig_publish(rig, 0, 0);
}
static void outside_ram(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {0x1000, 16, WRITE});
}
static void at_a_device(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {RIG_DEVICE_PA, 16, WRITE});
}
static void past_end_of_ram(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {end_pa - 8, 16, WRITE});
}
static void address_wraps(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {UINT64_C(0xfffffffffffffff8), 0xffffffff, WRITE});
}
static void of_no_bytes(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 0, WRITE});
}
static void far_too_long(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 0xffffffff, WRITE});
}
static void readable_behind_writable(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 16, WRITE}, {good_pa, 16, 0});
}
static void over_descriptor_table(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {rig->queues[0].desc_pa, 16, WRITE});
}
static void over_available_ring(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {rig->queues[0].avail_pa, 2, WRITE});
}
static void over_used_ring(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {rig->queues[0].used_pa + 4, 2, WRITE});
}
static void available_index_leaps(struct rig *rig, uint64_t good_pa)
{
    rig->queues[0].avail_idx = 0x4000;
    rig_offer(rig, 0, {good_pa, 16, WRITE});
}
static void wrong_direction(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 16, 0});
}
static void indirect_of_indirect(struct rig *rig, uint64_t good_pa)
{
    struct virtq_desc table[] = {{good_pa, 16, INDIRECT, 0}};
    gmem_write(rig->gmem, good_pa, table, sizeof table);
    rig_offer(rig, 0, {good_pa, 16, INDIRECT});
}
static void indirect_with_next(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 16, INDIRECT}, {good_pa, 16, WRITE});
}
static void indirect_of_odd_length(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 17, INDIRECT});
}
static void indirect_longer_than_queue(struct rig *rig, uint64_t good_pa)
{
    rig_offer(rig, 0, {good_pa, 16 * (RIG_QUEUE_SIZE + 1), INDIRECT});
}
static void indirect_outside_ram(struct rig *rig, uint64_t good_pa)
{
    (void)good_pa;
    rig_offer(rig, 0, {end_pa - 16, 32, INDIRECT});
}
static void indirect_that_loops(struct rig *rig, uint64_t good_pa)
{
    struct virtq_desc table[] = {{good_pa + 512, 16, WRITE | NEXT, 0}};
    gmem_write(rig->gmem, good_pa, table, sizeof table);
    rig_offer(rig, 0, {good_pa, 16, INDIRECT});
}

static void bad_chains_need_a_reset_and_no_more(void **state)
{
    struct rig *rig = *state;
    static const struct {
        const char *name;
        void (*make)(struct rig *rig, uint64_t good_pa);
    } cases[] = {
#define BAD(name) {#name, name}
        BAD(loop_of_one),
        BAD(loop_of_two),
        BAD(head_outside_table),
        BAD(next_outside_table),
        BAD(outside_ram),
        BAD(at_a_device),
        BAD(past_end_of_ram),
        BAD(address_wraps),
        BAD(of_no_bytes),
        BAD(far_too_long),
        BAD(readable_behind_writable),
        BAD(over_descriptor_table),
        BAD(over_available_ring),
        BAD(over_used_ring),
        BAD(available_index_leaps),
        BAD(wrong_direction),
        BAD(indirect_of_indirect),
        BAD(indirect_with_next),
        BAD(indirect_of_odd_length),
        BAD(indirect_longer_than_queue),
        BAD(indirect_outside_ram),
        BAD(indirect_that_loops),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        rig->next_free_pa = RAM_BASE_PA;
        rig_fill(rig, RAM_BASE_PA, 0, 4 * PAGE_BYTES);
        rig_start(rig, F_INDIRECT, 1);
        uint64_t good_pa = rig_alloc(rig, PAGE_BYTES, PAGE_BYTES);
        cases[i].make(rig, good_pa);
        if (!rig_needs_reset(rig))
            fail_msg("%s: no reset asked for", cases[i].name);
        if (rig_take_interrupt(rig) != VIRTIO_INTERRUPT_CONFIG)
            fail_msg("%s: the driver was not told", cases[i].name);
        if (rig_used(rig, 0, NULL, NULL))
            fail_msg("%s: used", cases[i].name);
        /* A good chain finds no ear before the reset. */
        rig_offer(rig, 0, {good_pa, 16, WRITE});
        if (rig_used(rig, 0, NULL, NULL))
            fail_msg("%s: the device went on", cases[i].name);
    }
    rig->next_free_pa = RAM_BASE_PA;
    rig_fill(rig, RAM_BASE_PA, 0, 4 * PAGE_BYTES);
    rig_start(rig, 0, 1);
    rig_offer(rig, 0, {rig_alloc(rig, 16, 16), 16, WRITE});
    assert_true(rig_used(rig, 0, NULL, NULL));
    /* The supervisor has heard of it, but a driver cannot make it hear of nothing else. */
    assert_in_range(rig_events(rig, WORKER_GUEST_FAULT, 0), 1, 3);
}

/* Guest memory that cannot be had any more: the machine is stopping. */
static void stopping_machine_is_no_trouble(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    rig_refuse_pins(rig, true);
    rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    rig_refuse_pins(rig, false);
    rig_start(rig, 0, 1);
    assert_false(rig_needs_reset(rig));
}

static void indirect_needs_its_feature(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 64, 16);
    struct virtq_desc table[] = {{pa + 16, 16, WRITE, 0}};
    gmem_write(rig->gmem, pa, table, sizeof table);
    rig_offer(rig, 0, {pa, 16, INDIRECT});
    assert_true(rig_needs_reset(rig));
}

/* ---- Interrupts and notifications (2.7.7, 2.7.10) ---- */

static void driver_may_suppress_interrupts(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 16, 16);
    uint16_t flags = VIRTQ_AVAIL_NO_INTERRUPT;
    gmem_write(rig->gmem, rig->queues[0].avail_pa, &flags, 2);
    rig_offer(rig, 0, {pa, 16, WRITE});
    assert_false(rig->irq_level);
    flags = 0;
    gmem_write(rig->gmem, rig->queues[0].avail_pa, &flags, 2);
    rig_offer(rig, 0, {pa, 16, WRITE});
    assert_true(rig->irq_level);
}

static void used_event_chooses_the_interrupt(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, F_EVENT, 1);
    uint64_t pa = rig_alloc(rig, 16, 16);
    uint16_t after = 2; /* interrupt when used entry 2, the third, is there */
    gmem_write(rig->gmem, rig->queues[0].avail_pa + 4 + 2 * RIG_QUEUE_SIZE, &after, 2);
    for (int i = 0; i < 4; i++) {
        rig_offer(rig, 0, {pa, 16, WRITE});
        assert_int_equal(rig_take_interrupt(rig), i == 2 ? VIRTIO_INTERRUPT_USED : 0);
    }
}

static void device_asks_to_be_notified_of_the_next_chain(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, F_EVENT, 1);
    uint64_t pa = rig_alloc(rig, 16, 16);
    for (uint16_t i = 1; i < 20; i++) {
        uint16_t avail_event;
        rig_offer(rig, 0, {pa, 16, WRITE});
        gmem_read(rig->gmem, rig->queues[0].used_pa + 4 + 8 * RIG_QUEUE_SIZE, &avail_event, 2);
        assert_int_equal(avail_event, i);
    }
}

/* A driver takes its queue back and makes a new one of the same memory: what a device still holds
 * of the old one is not written into the new one. */
static void a_chain_of_an_earlier_set_up_is_not_given(void **state)
{
    struct rig *rig = *state;
    static struct virtq_chain chain;
    struct virtq queue = {0};
    uint16_t used_idx;
    rig_start(rig, 0, 1);
    uint64_t desc_pa = rig_alloc(rig, VIRTQ_DESC_BYTES(8), 16);
    uint64_t avail_pa = rig_alloc(rig, VIRTQ_AVAIL_BYTES(8), 2);
    uint64_t used_pa = rig_alloc(rig, VIRTQ_USED_BYTES(8), 4);
    const struct virtq_desc desc = {rig_alloc(rig, 16, 16), 16, WRITE, 0};
    const uint16_t available[] = {0, 1, 0};
    gmem_write(rig->gmem, desc_pa, &desc, sizeof desc);
    gmem_write(rig->gmem, avail_pa, available, sizeof available);
    for (int again = 0; again < 2; again++) {
        assert_null(virtq_start(&queue, rig->gmem, 0, 8, 8, desc_pa, avail_pa, used_pa));
        if (!again)
            assert_int_equal(virtq_take(&queue, &chain), VIRTQ_TAKEN);
    }
    assert_true(virtq_give(&queue, &chain, 16));
    gmem_read(rig->gmem, used_pa + 2, &used_idx, sizeof used_idx);
    assert_int_equal(used_idx, 0);
    assert_int_equal(virtq_take(&queue, &chain), VIRTQ_TAKEN);
    assert_true(virtq_give(&queue, &chain, 16));
    gmem_read(rig->gmem, used_pa + 2, &used_idx, sizeof used_idx);
    assert_int_equal(used_idx, 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(chain_of_one_is_used),
        CASE(segments_of_a_chain_are_filled_in_order),
        CASE(indices_wrap_around),
        CASE(indirect_table_is_followed),
        CASE(overlapping_segments_are_legal),
        CASE(bad_chains_need_a_reset_and_no_more),
        CASE(stopping_machine_is_no_trouble),
        CASE(indirect_needs_its_feature),
        CASE(driver_may_suppress_interrupts),
        CASE(used_event_chooses_the_interrupt),
        CASE(device_asks_to_be_notified_of_the_next_chain),
        CASE(a_chain_of_an_earlier_set_up_is_not_given),
    };
    return cmocka_run_group_tests_name("virtqueues", tests, NULL, NULL);
}
