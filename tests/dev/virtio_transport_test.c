/*
 * The MMIO transport (virtio 1.2, 2.1, 3.1, 4.2.2), seen through the entropy
 * device, which has the least of its own, and through the balloon's
 * configuration space.
 */
#include "balloon-driver/balloon_wire.h"
#include "tests/dev/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define RAM_PAGES 64
#define EVENT_IDX (UINT64_C(1) << VIRTIO_F_EVENT_IDX)

static int set_up(void **state)
{
    static struct rig rig;
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, virtio_rng_new(&rig.env, NULL));
    *state = &rig;
    return 0;
}

static int set_up_balloon(void **state)
{
    static struct rig rig;
    const struct virtio_balloon_options options = {0};
    rig_open(&rig, RAM_PAGES);
    rig_attach(&rig, virtio_balloon_new(&rig.env, &options, NULL));
    *state = &rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_close(*state);
    return 0;
}

static void device_identifies_itself(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_MAGIC), VIRTIO_MMIO_MAGIC_VALUE);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_VERSION), 2);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_DEVICE_ID), VIRTIO_ID_ENTROPY);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_VENDOR_ID), VIRTIO_VENDOR);
}

static void no_shared_memory_region_reads_as_all_ones(void **state)
{
    assert_int_equal(rig_read(*state, VIRTIO_MMIO_SHM_LEN_LOW), ~0u);
    assert_int_equal(rig_read(*state, VIRTIO_MMIO_SHM_BASE_HIGH), ~0u);
}

static void features_offered_are_accepted(void **state)
{
    struct rig *rig = *state;
    assert_true(rig_negotiate(rig, EVENT_IDX));
}

static void features_not_offered_are_refused(void **state)
{
    struct rig *rig = *state;
    assert_false(rig_negotiate(rig, UINT64_C(1) << 5));
    assert_false(rig_negotiate(rig, UINT64_C(1) << 60));
    rig_driver_ok(rig); /* pays no attention to the refusal */
    assert_false(rig_read(rig, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_DRIVER_OK);
}

static void legacy_driver_is_refused(void **state)
{
    struct rig *rig = *state;
    rig_write(rig, VIRTIO_MMIO_STATUS, 0);
    rig_write(rig, VIRTIO_MMIO_STATUS,
              VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_STATUS),
                     VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
}

static void features_are_fixed_once_accepted(void **state)
{
    struct rig *rig = *state;
    assert_true(rig_start(rig, 0, 1));
    rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES, ~0u);
    rig_driver_ok(rig);
    uint64_t pa = rig_alloc(rig, 16, 16);
    rig_offer(rig, 0, {pa, 16, VIRTQ_DESC_WRITE});
    assert_true(rig_used(rig, 0, NULL, NULL));
    assert_false(rig_needs_reset(rig));
}

static void reset_clears_everything(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 16, 16);
    rig_offer(rig, 0, {pa, 16, VIRTQ_DESC_WRITE});
    assert_true(rig->irq_level);
    rig_write(rig, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_STATUS), 0);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_false(rig->irq_level);
    rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, 0);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
}

static void device_works_again_after_reset(void **state)
{
    struct rig *rig = *state;
    for (int round = 0; round < 3; round++) {
        rig_start(rig, 0, 1);
        uint64_t pa = rig_alloc(rig, 16, 16);
        rig_offer(rig, 0, {pa, 16, VIRTQ_DESC_WRITE});
        assert_true(rig_used(rig, 0, NULL, NULL));
    }
}

static void nothing_is_taken_before_driver_ok(void **state)
{
    struct rig *rig = *state;
    rig_negotiate(rig, 0);
    rig_set_up_queue(rig, 0, RIG_QUEUE_SIZE);
    uint64_t pa = rig_alloc(rig, 16, 16);
    rig_offer(rig, 0, {pa, 16, VIRTQ_DESC_WRITE});
    assert_false(rig_used(rig, 0, NULL, NULL));
    rig_driver_ok(rig); /* what was offered before is seen now, without a new notification */
    assert_true(rig_used(rig, 0, NULL, NULL));
}

static void queue_taken_back_is_not_touched(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 0);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
    uint64_t pa = rig_alloc(rig, 16, 16);
    rig_offer(rig, 0, {pa, 16, VIRTQ_DESC_WRITE});
    assert_false(rig_used(rig, 0, NULL, NULL));
    assert_false(rig_needs_reset(rig));
}

static void interrupt_is_a_level_until_acknowledged(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint64_t pa = rig_alloc(rig, 16, 16);
    rig_offer(rig, 0, {pa, 16, VIRTQ_DESC_WRITE});
    assert_true(rig->irq_level);
    rig_write(rig, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_CONFIG); /* not that one */
    assert_true(rig->irq_level);
    assert_int_equal(rig_take_interrupt(rig), VIRTIO_INTERRUPT_USED);
    assert_false(rig->irq_level);
}

/* Each set-up a driver could write, and whether the device takes it. */
static void impossible_queues_need_a_reset(void **state)
{
    struct rig *rig = *state;
    const uint64_t end_pa = RAM_BASE_PA + RAM_PAGES * PAGE_BYTES;
    const uint64_t base = RAM_BASE_PA;
    const struct {
        uint64_t desc_pa, avail_pa, used_pa;
        uint32_t size;
        bool taken;
    } cases[] = {
        {base, base + 0x1000, base + 0x2000, 16, true},
        {base, base + 0x1000, base + 0x2000, 64, true},
        {base, base + 0x1000, base + 0x2000, 0, false},
        {base, base + 0x1000, base + 0x2000, 3, false},
        {base, base + 0x1000, base + 0x2000, 128, false}, /* above QueueSizeMax */
        {base, base + 0x1000, base + 0x2000, 0x80000000, false},
        {base + 8, base + 0x1000, base + 0x2000, 16, false}, /* misaligned */
        {base, base + 0x1001, base + 0x2000, 16, false},
        {base, base + 0x1000, base + 0x2002, 16, false},
        {0, base + 0x1000, base + 0x2000, 16, false}, /* outside RAM */
        {base, end_pa, base + 0x2000, 16, false},
        {end_pa - 16, base + 0x1000, base + 0x2000, 16, false},   /* only begins in RAM */
        {~UINT64_C(15), base + 0x1000, base + 0x2000, 16, false}, /* wraps */
        {base, base + 0x1000, ~UINT64_C(3), 16, false},
        {base, base, base + 0x2000, 16, false}, /* areas overlap */
        {base, base + 0x1000, base + 0x1020, 16, false},
        {base, base + 0x1000, base + 0x80, 16, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(rig_negotiate(rig, 0));
        rig_write(rig, VIRTIO_MMIO_QUEUE_SIZE, cases[i].size);
        rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)cases[i].desc_pa);
        rig_write(rig, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(cases[i].desc_pa >> 32));
        rig_write(rig, VIRTIO_MMIO_QUEUE_DRIVER_LOW, (uint32_t)cases[i].avail_pa);
        rig_write(rig, VIRTIO_MMIO_QUEUE_DRIVER_HIGH, (uint32_t)(cases[i].avail_pa >> 32));
        rig_write(rig, VIRTIO_MMIO_QUEUE_DEVICE_LOW, (uint32_t)cases[i].used_pa);
        rig_write(rig, VIRTIO_MMIO_QUEUE_DEVICE_HIGH, (uint32_t)(cases[i].used_pa >> 32));
        rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
        if (rig_needs_reset(rig) == cases[i].taken ||
            rig_read(rig, VIRTIO_MMIO_QUEUE_READY) != cases[i].taken)
            fail_msg("case %zu", i);
    }
}

static void queues_that_do_not_exist_are_ignored(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    for (uint32_t sel = 1; sel != 0; sel <<= 1) {
        rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, sel);
        assert_int_equal(rig_read(rig, VIRTIO_MMIO_QUEUE_SIZE_MAX), 0);
        rig_write(rig, VIRTIO_MMIO_QUEUE_SIZE, 16);
        rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
        assert_int_equal(rig_read(rig, VIRTIO_MMIO_QUEUE_READY), 0);
        rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, sel);
    }
    assert_false(rig_needs_reset(rig));
}

static void odd_accesses_read_zero_and_write_nothing(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 1);
    uint32_t status = rig_read(rig, VIRTIO_MMIO_STATUS);
    for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            uint64_t value = 1;
            if (size == 4 || offset % size)
                continue;
            assert_true(bus_load(&rig->bus, RIG_DEVICE_PA + offset, size, &value));
            assert_int_equal(value, 0);
            assert_true(bus_store(&rig->bus, RIG_DEVICE_PA + offset, size, 0));
        }
    }
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_STATUS), status);
}

/* ---- Configuration space (2.5, 4.2.2.2), with the balloon's ---- */

static void config_reads_at_any_width(void **state)
{
    struct rig *rig = *state;
    uint64_t value;
    virtio_balloon_set(rig->device, 0x21);
    assert_true(bus_load(&rig->bus, RIG_DEVICE_PA + VIRTIO_MMIO_CONFIG, 1, &value));
    assert_int_equal(value, 0x21);
    assert_true(bus_load(&rig->bus, RIG_DEVICE_PA + VIRTIO_MMIO_CONFIG, 8, &value));
    assert_int_equal(value, 0x21);
    assert_true(bus_load(&rig->bus, RIG_DEVICE_PA + VIRTIO_MMIO_CONFIG + 0x800, 8, &value));
    assert_int_equal(value, 0);
}

static void only_writable_config_bytes_change(void **state)
{
    struct rig *rig = *state;
    rig_start(rig, 0, 2);
    virtio_balloon_set(rig->device, 7);
    assert_true(bus_store(&rig->bus, RIG_DEVICE_PA + VIRTIO_MMIO_CONFIG, 8, ~UINT64_C(0)));
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG), 7);
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG + 4), ~0u);
    assert_true(bus_store(&rig->bus, RIG_DEVICE_PA + VIRTIO_MMIO_CONFIG + 5, 1, 0));
    assert_int_equal(rig_read(rig, VIRTIO_MMIO_CONFIG + 4), 0xffff00ff);
    assert_true(bus_store(&rig->bus, RIG_DEVICE_PA + 0xff8, 8, ~UINT64_C(0)));
}

static void config_change_interrupts_and_counts(void **state)
{
    struct rig *rig = *state;
    virtio_balloon_set(rig->device, 1); /* nobody listens yet */
    assert_false(rig->irq_level);
    rig_start(rig, 0, 2);
    uint32_t generation = rig_read(rig, VIRTIO_MMIO_CONFIG_GENERATION);
    virtio_balloon_set(rig->device, 2);
    assert_int_not_equal(rig_read(rig, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    assert_int_equal(rig_take_interrupt(rig), VIRTIO_INTERRUPT_CONFIG);
    virtio_balloon_set(rig->device, 2); /* no change, no interrupt */
    assert_false(rig->irq_level);
}

#define CASE(name)         cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define BALLOON_CASE(name) cmocka_unit_test_setup_teardown(name, set_up_balloon, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(device_identifies_itself),
        CASE(no_shared_memory_region_reads_as_all_ones),
        CASE(features_offered_are_accepted),
        CASE(features_not_offered_are_refused),
        CASE(legacy_driver_is_refused),
        CASE(features_are_fixed_once_accepted),
        CASE(reset_clears_everything),
        CASE(device_works_again_after_reset),
        CASE(nothing_is_taken_before_driver_ok),
        CASE(queue_taken_back_is_not_touched),
        CASE(interrupt_is_a_level_until_acknowledged),
        CASE(impossible_queues_need_a_reset),
        CASE(queues_that_do_not_exist_are_ignored),
        CASE(odd_accesses_read_zero_and_write_nothing),
        BALLOON_CASE(config_reads_at_any_width),
        BALLOON_CASE(only_writable_config_bytes_change),
        BALLOON_CASE(config_change_interrupts_and_counts),
    };
    return cmocka_run_group_tests_name("virtio transport", tests, NULL, NULL);
}
