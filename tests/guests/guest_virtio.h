/*
 * A virtio-mmio driver for bare-metal guests: enough to use every device, and
 * open enough to misuse it. Queues are polled.
 */
#ifndef BALLAST_GUEST_VIRTIO_H
#define BALLAST_GUEST_VIRTIO_H

#include "tests/guests/guest.h"
#include "vmm-core/dev/virtio_wire.h"

#define SLOT_0_PA    0x10001000ul
#define SLOTS        16u
#define QUEUE_SIZE   16u
#define QUEUE_PIECES 8u

struct driver {
    uintptr_t base; /* registers */
    uint32_t device_id;
};

struct queue {
    struct driver *driver;
    unsigned index;
    uint32_t size;
    volatile struct virtq_desc *desc;
    volatile uint16_t *avail; /* flags, idx, ring[] */
    volatile uint16_t *used;  /* flags, idx, then elements */
    uint16_t next_desc, seen_used;
};

struct buffer { /* one descriptor's worth */
    const volatile void *at;
    uint32_t len;
    uint16_t flags; /* VIRTQ_DESC_WRITE: for the device to write */
};

static inline uint32_t driver_read(const struct driver *driver, uintptr_t offset)
{
    return *(volatile uint32_t *)(driver->base + offset);
}
static inline void driver_write(const struct driver *driver, uintptr_t offset, uint32_t value)
{
    *(volatile uint32_t *)(driver->base + offset) = value;
}

/* The first device of this kind. False: there is none. */
bool driver_find(struct driver *driver, uint32_t device_id);
/* Reset and negotiate: features (VERSION_1 is added). False: refused. */
bool driver_begin(struct driver *driver, uint64_t features);
void driver_ready(struct driver *driver); /* DRIVER_OK */
bool driver_needs_reset(const struct driver *driver);
/* Wait up to ms for the device to ask for a reset. */
bool driver_wait_needs_reset(const struct driver *driver, unsigned ms);

/* Tell the device about a queue. */
void queue_registers(struct driver *driver, unsigned index, uint32_t size, uint64_t desc_pa,
                     uint64_t avail_pa, uint64_t used_pa);
/* A queue of QUEUE_SIZE on pages of its own (three, cleared). */
void queue_begin(struct queue *queue, struct driver *driver, unsigned index);
/* The pages go back to the guest; the device must have been reset. */
void queue_end(struct queue *queue);

/* Put a chain of buffers in the queue and notify. */
void queue_offer(struct queue *queue, const struct buffer *buffers, unsigned count);
void queue_set_desc(struct queue *queue, unsigned index, uint64_t pa, uint32_t len, uint16_t flags,
                    uint16_t next);
void queue_publish(struct queue *queue, uint16_t head);
void queue_notify(struct queue *queue);
/* Wait up to ms for the next used element; false: none came. */
bool queue_wait(struct queue *queue, unsigned ms, uint32_t *len);
/* Offer and wait a second. */
bool queue_do(struct queue *queue, const struct buffer *buffers, unsigned count, uint32_t *len);

#endif
