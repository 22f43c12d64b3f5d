/* The rig's bus and driver; its memory and thread are in flat_gmem.c. */
#include "tests/dev/virtio_rig.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void set_irq(void *opaque, unsigned source, bool level)
{
    struct rig *rig = opaque;
    (void)source;
    rig->irq_rises += level && !rig->irq_level;
    rig->irq_level = level;
}

void rig_attach(struct rig *rig, struct virtio_device *device)
{
    struct err err = {0};
    struct irq_line irq = {.set = set_irq, .controller = rig, .source = 1};
    assert(device);
    rig->device = device;
    int added = virtio_attach(device, &rig->bus, RIG_DEVICE_PA, &irq, &err);
    assert(added == 0);
    (void)added;
}

uint64_t rig_alloc(struct rig *rig, size_t bytes, size_t align)
{
    uint64_t pa = (rig->next_free_pa + align - 1) / align * align;
    rig->next_free_pa = pa + bytes;
    assert(gmem_is_ram(rig->gmem, pa, bytes));
    return pa;
}

void *rig_host(struct rig *rig, uint64_t pa)
{
    uint64_t in_page = pa % PAGE_BYTES;
    uint8_t *host = gmem_pin(rig->gmem, pa - in_page, 1, true);
    assert(host);
    gmem_unpin(rig->gmem, pa - in_page, true);
    return host + in_page;
}

void rig_fill(struct rig *rig, uint64_t pa, uint8_t byte, size_t len)
{
    for (size_t i = 0; i < len; i++)
        gmem_write(rig->gmem, pa + i, &byte, 1);
}

uint32_t rig_read(struct rig *rig, uint64_t offset)
{
    uint64_t value = 0;
    bool there = bus_load(&rig->bus, RIG_DEVICE_PA + offset, 4, &value);
    assert(there);
    (void)there;
    return (uint32_t)value;
}

void rig_write(struct rig *rig, uint64_t offset, uint32_t value)
{
    bool there = bus_store(&rig->bus, RIG_DEVICE_PA + offset, 4, value);
    assert(there);
    (void)there;
}

bool rig_needs_reset(struct rig *rig)
{
    return rig_read(rig, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET;
}

uint32_t rig_take_interrupt(struct rig *rig)
{
    uint32_t status = rig_read(rig, VIRTIO_MMIO_INTERRUPT_STATUS);
    rig_write(rig, VIRTIO_MMIO_INTERRUPT_ACK, status);
    return status;
}

bool rig_negotiate(struct rig *rig, uint64_t features)
{
    features |= UINT64_C(1) << VIRTIO_F_VERSION_1;
    rig_write(rig, VIRTIO_MMIO_STATUS, 0);
    rig_write(rig, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE);
    rig_write(rig, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    for (uint32_t sel = 0; sel < 2; sel++) {
        rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES_SEL, sel);
        rig_write(rig, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> (32 * sel)));
    }
    rig_write(rig, VIRTIO_MMIO_STATUS,
              VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK);
    return rig_read(rig, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_FEATURES_OK;
}

static void write64(struct rig *rig, uint64_t offset, uint64_t value)
{
    rig_write(rig, offset, (uint32_t)value);
    rig_write(rig, offset + 4, (uint32_t)(value >> 32));
}

void rig_set_up_queue(struct rig *rig, unsigned index, uint32_t size)
{
    struct rig_queue *queue = &rig->queues[index];
    *queue = (struct rig_queue){
        .size = size,
        .desc_pa = rig_alloc(rig, VIRTQ_DESC_BYTES(size), 4096),
        .avail_pa = rig_alloc(rig, VIRTQ_AVAIL_BYTES(size), 2),
        .used_pa = rig_alloc(rig, VIRTQ_USED_BYTES(size), 4),
    };
    rig_write(rig, VIRTIO_MMIO_QUEUE_SEL, index);
    rig_write(rig, VIRTIO_MMIO_QUEUE_SIZE, size);
    write64(rig, VIRTIO_MMIO_QUEUE_DESC_LOW, queue->desc_pa);
    write64(rig, VIRTIO_MMIO_QUEUE_DRIVER_LOW, queue->avail_pa);
    write64(rig, VIRTIO_MMIO_QUEUE_DEVICE_LOW, queue->used_pa);
    rig_write(rig, VIRTIO_MMIO_QUEUE_READY, 1);
}

void rig_driver_ok(struct rig *rig)
{
    rig_write(rig, VIRTIO_MMIO_STATUS, rig_read(rig, VIRTIO_MMIO_STATUS) | VIRTIO_STATUS_DRIVER_OK);
}

bool rig_start(struct rig *rig, uint64_t features, unsigned queues)
{
    bool accepted = rig_negotiate(rig, features);
    for (unsigned i = 0; i < queues; i++)
        rig_set_up_queue(rig, i, RIG_QUEUE_SIZE);
    rig_driver_ok(rig);
    return accepted;
}

/* Indices are what driver and device meet over (2.7.8.2, 2.7.14). */
static void put16(struct rig *rig, uint64_t pa, uint16_t value)
{
    _Atomic uint16_t *word = gmem_pin(rig->gmem, pa, sizeof *word, true);
    assert(word);
    atomic_store_explicit(word, value, memory_order_release);
    gmem_unpin(rig->gmem, pa, true);
}

static uint16_t get16(struct rig *rig, uint64_t pa)
{
    _Atomic uint16_t *word = gmem_pin(rig->gmem, pa, sizeof *word, false);
    assert(word);
    uint16_t value = atomic_load_explicit(word, memory_order_acquire);
    gmem_unpin(rig->gmem, pa, false);
    return value;
}

void rig_set_desc(struct rig *rig, unsigned queue, uint16_t index, struct virtq_desc desc)
{
    gmem_write(rig->gmem, rig->queues[queue].desc_pa + 16u * index, &desc, sizeof desc);
}

void rig_publish(struct rig *rig, unsigned index, uint16_t head)
{
    struct rig_queue *queue = &rig->queues[index];
    put16(rig, queue->avail_pa + 4 + 2u * (queue->avail_idx % queue->size), head);
    put16(rig, queue->avail_pa + 2, ++queue->avail_idx);
    rig_write(rig, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

uint16_t rig_offer_pieces(struct rig *rig, unsigned index, const struct piece *pieces,
                          unsigned count)
{
    struct rig_queue *queue = &rig->queues[index];
    uint16_t head = queue->next_desc % queue->size;
    for (unsigned i = 0; i < count; i++) {
        uint16_t here = queue->next_desc++ % queue->size;
        rig_set_desc(rig, index, here,
                     (struct virtq_desc){
                         .pa = pieces[i].pa,
                         .len = pieces[i].len,
                         .flags = pieces[i].flags | (i + 1 < count ? VIRTQ_DESC_NEXT : 0),
                         .next = queue->next_desc % queue->size,
                     });
    }
    rig_publish(rig, index, head);
    return head;
}

bool rig_used(struct rig *rig, unsigned index, uint32_t *head, uint32_t *len)
{
    struct rig_queue *queue = &rig->queues[index];
    struct virtq_used_elem elem;
    if (get16(rig, queue->used_pa + 2) == queue->seen_used)
        return false;
    gmem_read(rig->gmem, queue->used_pa + 4 + 8u * (queue->seen_used % queue->size), &elem,
              sizeof elem);
    queue->seen_used++;
    if (head)
        *head = elem.id;
    if (len)
        *len = elem.len;
    return true;
}
