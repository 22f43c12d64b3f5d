#include "tests/guests/guest_virtio.h"

bool driver_find(struct driver *driver, uint32_t device_id)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        driver->base = SLOT_0_PA + slot * VIRTIO_MMIO_WINDOW_BYTES;
        driver->device_id = device_id;
        /* An empty slot has no registers at all. */
        if (guest_load32(driver->base) == NO_FAULT &&
            driver_read(driver, VIRTIO_MMIO_MAGIC) == VIRTIO_MMIO_MAGIC_VALUE &&
            driver_read(driver, VIRTIO_MMIO_DEVICE_ID) == device_id)
            return true;
    }
    return false;
}

bool driver_begin(struct driver *driver, uint64_t features)
{
    uint32_t status = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
    features |= 1ul << VIRTIO_F_VERSION_1;
    driver_write(driver, VIRTIO_MMIO_STATUS, 0);
    driver_write(driver, VIRTIO_MMIO_STATUS, status);
    for (uint32_t sel = 0; sel < 2; sel++) {
        driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES_SEL, sel);
        driver_write(driver, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> (32 * sel)));
    }
    driver_write(driver, VIRTIO_MMIO_STATUS, status | VIRTIO_STATUS_FEATURES_OK);
    return driver_read(driver, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_FEATURES_OK;
}

void driver_ready(struct driver *driver)
{
    driver_write(driver, VIRTIO_MMIO_STATUS,
                 driver_read(driver, VIRTIO_MMIO_STATUS) | VIRTIO_STATUS_DRIVER_OK);
}

bool driver_needs_reset(const struct driver *driver)
{
    return driver_read(driver, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

bool driver_wait_needs_reset(const struct driver *driver, unsigned ms)
{
    uint64_t end = guest_time() + ms * TICKS_PER_MS;
    while (!driver_needs_reset(driver))
        if (guest_time() > end)
            return false;
    return true;
}

static void write64(struct driver *driver, uintptr_t offset, uint64_t value)
{
    driver_write(driver, offset, (uint32_t)value);
    driver_write(driver, offset + 4, (uint32_t)(value >> 32));
}

void queue_registers(struct driver *driver, unsigned index, uint32_t size, uint64_t desc_pa,
                     uint64_t avail_pa, uint64_t used_pa)
{
    driver_write(driver, VIRTIO_MMIO_QUEUE_SEL, index);
    driver_write(driver, VIRTIO_MMIO_QUEUE_SIZE, size);
    write64(driver, VIRTIO_MMIO_QUEUE_DESC_LOW, desc_pa);
    write64(driver, VIRTIO_MMIO_QUEUE_DRIVER_LOW, avail_pa);
    write64(driver, VIRTIO_MMIO_QUEUE_DEVICE_LOW, used_pa);
    driver_write(driver, VIRTIO_MMIO_QUEUE_READY, 1);
}

void queue_begin(struct queue *queue, struct driver *driver, unsigned index)
{
    *queue = (struct queue){.driver = driver, .index = index, .size = QUEUE_SIZE};
    queue->desc = memset(guest_page(), 0, 4096);
    queue->avail = memset(guest_page(), 0, 4096);
    queue->used = memset(guest_page(), 0, 4096);
    queue_registers(driver, index, QUEUE_SIZE, (uintptr_t)queue->desc, (uintptr_t)queue->avail,
                    (uintptr_t)queue->used);
}

void queue_end(struct queue *queue)
{
    guest_free_page((void *)(uintptr_t)queue->desc);
    guest_free_page((void *)(uintptr_t)queue->avail);
    guest_free_page((void *)(uintptr_t)queue->used);
}

void queue_set_desc(struct queue *queue, unsigned index, uint64_t pa, uint32_t len, uint16_t flags,
                    uint16_t next)
{
    queue->desc[index].pa = pa;
    queue->desc[index].len = len;
    queue->desc[index].flags = flags;
    queue->desc[index].next = next;
}

void queue_notify(struct queue *queue)
{
    driver_write(queue->driver, VIRTIO_MMIO_QUEUE_NOTIFY, queue->index);
}

void queue_publish(struct queue *queue, uint16_t head)
{
    queue->avail[2 + queue->avail[1] % queue->size] = head;
    __asm__ volatile("fence rw, rw" ::: "memory");
    queue->avail[1]++;
    __asm__ volatile("fence rw, rw" ::: "memory");
    queue_notify(queue);
}

void queue_offer(struct queue *queue, const struct buffer *buffers, unsigned count)
{
    uint16_t head = queue->next_desc % queue->size;
    for (unsigned i = 0; i < count; i++) {
        uint16_t here = queue->next_desc++ % queue->size;
        queue_set_desc(queue, here, (uintptr_t)buffers[i].at, buffers[i].len,
                       buffers[i].flags | (i + 1 < count ? VIRTQ_DESC_NEXT : 0),
                       queue->next_desc % queue->size);
    }
    queue_publish(queue, head);
}

bool queue_wait(struct queue *queue, unsigned ms, uint32_t *len)
{
    uint64_t end = guest_time() + ms * TICKS_PER_MS;
    while (queue->used[1] == queue->seen_used)
        if (guest_time() > end)
            return false;
    __asm__ volatile("fence rw, rw" ::: "memory");
    const volatile struct virtq_used_elem *elements = (const volatile void *)(queue->used + 2);
    if (len)
        *len = elements[queue->seen_used % queue->size].len;
    queue->seen_used++;
    return true;
}

bool queue_do(struct queue *queue, const struct buffer *buffers, unsigned count, uint32_t *len)
{
    queue_offer(queue, buffers, count);
    return queue_wait(queue, 5000, len);
}
