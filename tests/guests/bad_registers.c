/*
 * A driver that misuses the registers: impossible queues, accesses of the wrong
 * width, features out of thin air, and then a long run of random writes to every
 * device at once. Afterwards every device works.
 */
#include "tests/guests/guest_devices.h"

static void impossible_queues(const struct device_use *use)
{
    static const uint64_t areas[][3] = {
        {0, 0, 0},
        {GUEST_RAM_END, GUEST_RAM_END, GUEST_RAM_END},
        {~0ul, ~0ul, ~0ul},
        {~0ul & ~15ul, ~0ul & ~1ul, ~0ul & ~3ul},
        {GUEST_RAM_END - 16, GUEST_RAM_PA, GUEST_RAM_PA + 4096},
        {GUEST_RAM_PA, GUEST_RAM_PA, GUEST_RAM_PA},
    };
    static const uint32_t sizes[] = {0, 3, 1u << 15, 1u << 16, 1u << 31, ~0u, 512};
    struct driver driver;
    if (!driver_find(&driver, use->device_id))
        return;
    for (unsigned i = 0; i < sizeof areas / sizeof areas[0]; i++) {
        driver_begin(&driver, 0);
        queue_registers(&driver, use->queue, 16, areas[i][0], areas[i][1], areas[i][2]);
        guest_promise(driver_needs_reset(&driver), "a queue outside RAM is refused");
        guest_promise(!driver_read(&driver, VIRTIO_MMIO_QUEUE_READY), "and is not ready");
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        driver_begin(&driver, 0);
        queue_registers(&driver, use->queue, sizes[i], GUEST_FREE_END - (2ul << 20),
                        GUEST_FREE_END - (1ul << 20), GUEST_FREE_END - (1ul << 19));
        guest_promise(driver_needs_reset(&driver), "a queue of impossible size is refused");
    }
    driver_begin(&driver, 0);
    queue_registers(&driver, 77, 16, GUEST_RAM_PA, GUEST_RAM_PA + 4096, GUEST_RAM_PA + 8192);
    driver_write(&driver, VIRTIO_MMIO_QUEUE_NOTIFY, 77);
    guest_promise(!driver_needs_reset(&driver), "a queue that does not exist is no error");
    driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
}

static void features_out_of_thin_air(const struct device_use *use)
{
    struct driver driver;
    if (!driver_find(&driver, use->device_id))
        return;
    guest_promise(!driver_begin(&driver, 1ul << 63), "unknown features are refused");
    guest_promise(!driver_begin(&driver, 1ul << 23), "unknown features are refused");
    driver_ready(&driver);
    guest_promise(!(driver_read(&driver, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_DRIVER_OK),
                  "a driver that was refused is not started");
}

/* Every offset, every width. Nothing is promised but that the machine stays. */
static void odd_widths(const struct device_use *use)
{
    struct driver driver;
    if (!driver_find(&driver, use->device_id))
        return;
    for (uintptr_t offset = 0; offset < VIRTIO_MMIO_WINDOW_BYTES; offset++) {
        uintptr_t pa = driver.base + offset;
        guest_load8(pa);
        guest_store8(pa, guest_random());
        guest_load16(pa);
        guest_store16(pa, guest_random());
        guest_load64(pa);
        guest_store64(pa, guest_random());
        if (offset % 8 == 0) {
            guest_swap64(pa, guest_random());
            guest_reserve64(pa);
        }
        if (offset % 64 == 0)
            guest_jump(pa); /* devices hold no code */
    }
    driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
}

/* Below the guest's image there are 2 MiB of nothing: queues lie there, with descriptors, page
 * numbers and rings made of random numbers, so that devices find something to chew on. */
#define SCRATCH       GUEST_RAM_PA
#define SCRATCH_PAGES 16u

static void fill_scratch(void)
{
    volatile struct virtq_desc *desc = (void *)SCRATCH;
    for (unsigned i = 0; i < SCRATCH_PAGES * 4096 / sizeof *desc; i++) {
        uint64_t random = guest_random();
        desc[i].pa = SCRATCH + (random & 0xffff);
        desc[i].len = random >> 62 ? (random >> 16) % 512 + 1 : (uint32_t)(random >> 16);
        desc[i].flags = (random >> 32) % 4;
        desc[i].next = (random >> 40) % 17;
    }
}

static void begin_on_scratch(void)
{
    struct driver driver = {.base = SLOT_0_PA + guest_random() % DEVICE_USES * 4096};
    driver_begin(&driver, guest_random() % 2 ? 1ul << VIRTIO_F_EVENT_IDX : 0);
    for (unsigned index = 0; index < 3; index++) {
        volatile uint16_t *avail = (void *)(SCRATCH + 4096 * (3 * index + 1));
        avail[1] = guest_random() % 17;
        for (unsigned i = 0; i < 16; i++)
            avail[2 + i] = guest_random() % 16;
        queue_registers(&driver, index, 16, SCRATCH + 4096 * (3 * index),
                        SCRATCH + 4096 * (3 * index + 1), SCRATCH + 4096 * (3 * index + 2));
    }
    driver_ready(&driver);
}

static void random_writes(void)
{
    static const uint32_t likely[] = {0, 1, 2, 4, 8, 15, 16, 0x80000000, 0x80001000, 128, ~0u};
    for (unsigned i = 0; i < 200000; i++) {
        uint64_t random = guest_random();
        uintptr_t pa = SLOT_0_PA + (random % DEVICE_USES) * VIRTIO_MMIO_WINDOW_BYTES;
        if (i % 64 == 0) {
            fill_scratch();
            begin_on_scratch();
        }
        /* Mostly registers that exist. */
        pa += (random >> 8) % 8 ? (random >> 16) % 0x42 * 4 : (random >> 16) % 0xff8 & ~7ul;
        uint32_t value =
            (random >> 40) % 4 ? likely[(random >> 48) % 11] : (uint32_t)guest_random();
        guest_store32(pa, value);
        if (random >> 62 == 0)
            guest_load32(pa);
    }
}

void guest_main(void)
{
    for (unsigned i = 0; i < DEVICE_USES; i++) {
        impossible_queues(&device_uses[i]);
        features_out_of_thin_air(&device_uses[i]);
        odd_widths(&device_uses[i]);
        device_must_work(&device_uses[i]);
    }
    random_writes();
    for (unsigned i = 0; i < DEVICE_USES; i++)
        device_must_work(&device_uses[i]);
}
