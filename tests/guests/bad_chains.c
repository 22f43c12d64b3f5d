/*
 * A driver that hands every device chains no driver may make: loops, pointers
 * outside RAM, nothing, too much, over the queue itself. The device asks for a
 * reset (virtio 1.2, 2.1.2), and after the reset it works.
 */
#include "tests/guests/guest_devices.h"

#define WRITE    VIRTQ_DESC_WRITE
#define NEXT     VIRTQ_DESC_NEXT
#define INDIRECT VIRTQ_DESC_INDIRECT

static uint64_t good_pa; /* a page to point at */

static void one(struct queue *queue, uint64_t pa, uint32_t len, uint16_t flags, uint16_t next)
{
    queue_set_desc(queue, 0, pa, len, flags, next);
    queue_publish(queue, 0);
}

static void loop_of_one(struct queue *queue)
{
    one(queue, good_pa, 16, WRITE | NEXT, 0);
}
static void readable_loop(struct queue *queue)
{
    one(queue, good_pa, 16, NEXT, 0);
}
static void loop_of_two(struct queue *queue)
{
    queue_set_desc(queue, 1, good_pa, 16, WRITE | NEXT, 0);
    one(queue, good_pa, 16, WRITE | NEXT, 1);
}
static void head_outside_table(struct queue *queue)
{
    queue_publish(queue, 0x8000);
}
static void next_outside_table(struct queue *queue)
{
    one(queue, good_pa, 16, WRITE | NEXT, QUEUE_SIZE);
}
static void behind_ram(struct queue *queue)
{
    one(queue, GUEST_RAM_END, 16, WRITE, 0);
}
static void across_the_end_of_ram(struct queue *queue)
{
    one(queue, GUEST_RAM_END - 8, 16, 0, 0);
}
static void at_address_0(struct queue *queue)
{
    one(queue, 0, 16, WRITE, 0);
}
static void at_a_device(struct queue *queue)
{
    one(queue, queue->driver->base, 256, WRITE, 0);
}
static void around_the_address_space(struct queue *queue)
{
    one(queue, ~0ul - 7, 0xffffffff, WRITE, 0);
}
static void of_4_gib(struct queue *queue)
{
    one(queue, good_pa, 0xffffffff, WRITE, 0);
}
static void of_nothing(struct queue *queue)
{
    one(queue, good_pa, 0, WRITE, 0);
}
static void readable_behind_writable(struct queue *queue)
{
    queue_set_desc(queue, 1, good_pa, 16, 0, 0);
    one(queue, good_pa, 16, WRITE | NEXT, 1);
}
static void over_the_descriptors(struct queue *queue)
{
    one(queue, (uintptr_t)queue->desc, 16, WRITE, 0);
}
static void over_the_used_ring(struct queue *queue)
{
    one(queue, (uintptr_t)queue->used, 64, WRITE, 0);
}
static void available_index_leaps(struct queue *queue)
{
    queue->avail[1] = 0x7fff;
    one(queue, good_pa, 16, WRITE, 0);
}
static void indirect_within_indirect(struct queue *queue)
{
    volatile struct virtq_desc *table = (void *)good_pa;
    *table = (struct virtq_desc){good_pa, 16, INDIRECT, 0};
    one(queue, good_pa, 16, INDIRECT, 0);
}
static void indirect_of_ragged_length(struct queue *queue)
{
    one(queue, good_pa, 24, INDIRECT, 0);
}
static void indirect_outside_ram(struct queue *queue)
{
    one(queue, GUEST_RAM_END, 32, INDIRECT, 0);
}
static void indirect_too_long(struct queue *queue)
{
    one(queue, good_pa, 16 * 4096, INDIRECT, 0);
}

static const struct {
    const char *name;
    void (*offer)(struct queue *queue);
} chains[] = {
/* clang-format off */
#define BAD(name) {#name, name}
    /* clang-format on */
    BAD(loop_of_one),
    BAD(readable_loop),
    BAD(loop_of_two),
    BAD(head_outside_table),
    BAD(next_outside_table),
    BAD(behind_ram),
    BAD(across_the_end_of_ram),
    BAD(at_address_0),
    BAD(at_a_device),
    BAD(around_the_address_space),
    BAD(of_4_gib),
    BAD(of_nothing),
    BAD(readable_behind_writable),
    BAD(over_the_descriptors),
    BAD(over_the_used_ring),
    BAD(available_index_leaps),
    BAD(indirect_within_indirect),
    BAD(indirect_of_ragged_length),
    BAD(indirect_outside_ram),
    BAD(indirect_too_long),
};

static void offer_all(const struct device_use *use)
{
    for (unsigned i = 0; i < sizeof chains / sizeof chains[0]; i++) {
        struct driver driver;
        struct queue queue;
        if (!driver_find(&driver, use->device_id))
            return;
        driver_begin(&driver, 1ul << VIRTIO_F_INDIRECT_DESC);
        queue_begin(&queue, &driver, use->queue);
        driver_ready(&driver);
        chains[i].offer(&queue);
        if (!guest_promise(driver_wait_needs_reset(&driver, 5000), "the device asks for a reset")) {
            guest_print(use->name);
            guest_print(": ");
            guest_print(chains[i].name);
            guest_print("\n");
        }
        guest_promise(queue.used[1] == 0, "a bad chain is not used");
        driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
        queue_end(&queue);
    }
    device_must_work(use);
}

/* Legal, if of no use: two chains that share descriptors, the same head twice, segments of one
 * chain over each other. The device does what it is told. */
static void chains_may_overlap(void)
{
    struct driver driver;
    struct queue queue;
    if (!guest_promise(driver_find(&driver, VIRTIO_ID_ENTROPY), "there is an entropy device"))
        return;
    driver_begin(&driver, 0);
    queue_begin(&queue, &driver, 0);
    driver_ready(&driver);
    queue_set_desc(&queue, 0, good_pa, 32, WRITE | NEXT, 1);
    queue_set_desc(&queue, 1, good_pa + 16, 32, WRITE, 0);
    queue_publish(&queue, 0);
    queue_publish(&queue, 1);
    queue_publish(&queue, 0);
    for (unsigned i = 0; i < 3; i++)
        guest_promise(queue_wait(&queue, 5000, NULL), "overlapping chains are used");
    guest_promise(!driver_needs_reset(&driver), "overlapping chains are no error");
    driver_write(&driver, VIRTIO_MMIO_STATUS, 0);
    queue_end(&queue);
}

void guest_main(void)
{
    good_pa = (uintptr_t)guest_page();
    for (unsigned i = 0; i < DEVICE_USES; i++)
        offer_all(&device_uses[i]);
    chains_may_overlap();
}
