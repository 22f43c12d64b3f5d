/*
 * The registers of the MMIO transport (virtio 1.2, 4.2.2), as two tables: what a
 * read gives and what a write does. All on a hart's thread, under the device's
 * lock.
 *
 * A driver accesses them with 32-bit aligned reads and writes (4.2.2.2);
 * configuration space, behind them, with any width. Anything else, and any
 * register that does not exist, reads as zero and ignores writes.
 */
#include "vmm-core/dev/virtio.h"

#include <string.h>

static struct virtio_queue_registers *selected_queue(struct virtio_device *device)
{
    if (device->queue_sel >= device->ops->queue_count)
        return NULL;
    return &device->queue_registers[device->queue_sel];
}

static uint32_t half(uint64_t value, uint32_t which)
{
    return which < 2 ? (uint32_t)(value >> (32 * which)) : 0;
}

static uint32_t read_register(struct virtio_device *device, uint64_t offset)
{
    const struct virtio_queue_registers *queue = selected_queue(device);
    switch (offset) {
    case VIRTIO_MMIO_MAGIC:
        return VIRTIO_MMIO_MAGIC_VALUE;
    case VIRTIO_MMIO_VERSION:
        return VIRTIO_MMIO_VERSION_VALUE;
    case VIRTIO_MMIO_DEVICE_ID:
        return device->ops->device_id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VIRTIO_VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return half(device->offered_features, device->device_features_sel);
    case VIRTIO_MMIO_QUEUE_SIZE_MAX:
        return queue ? device->ops->queue_size : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue ? queue->ready : 0;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return device->interrupt_status;
    case VIRTIO_MMIO_STATUS:
        return device->status;
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return device->config_generation;
    }
    /* No shared memory regions: length and base read as all ones (4.2.2). */
    if (offset >= VIRTIO_MMIO_SHM_LEN_LOW && offset <= VIRTIO_MMIO_SHM_BASE_HIGH)
        return ~0u;
    return 0;
}

/* Device status 0: everything as at power-on (2.1.2, 2.4). What the device itself holds is
 * forgotten by the device thread, before anything that a new driver causes. */
static void reset(struct virtio_device *device)
{
    device->status = 0;
    device->interrupt_status = 0;
    device->device_features_sel = device->driver_features_sel = device->queue_sel = 0;
    device->driver_features = 0;
    memset(device->queue_registers, 0, sizeof device->queue_registers);
    device->kicked = 0;
    device->config_changed = false;
    device->reset_wanted = true;
    virtio_update_irq(device);
    virtio_wait_idle(device);
}

/* Bits a driver may set; it clears none but by reset (2.1.1). FEATURES_OK stays clear when the
 * driver accepted what was not offered, or is not a modern one (3.1.1, 6.1). */
static void write_status(struct virtio_device *device, uint32_t value)
{
    const uint64_t version_1 = UINT64_C(1) << VIRTIO_F_VERSION_1;
    if (value == 0) {
        reset(device);
        return;
    }
    value &= VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK |
             VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FAILED;
    if ((device->driver_features & ~device->offered_features) ||
        !(device->driver_features & version_1))
        value &= ~VIRTIO_STATUS_FEATURES_OK;
    if (!((device->status | value) & VIRTIO_STATUS_FEATURES_OK))
        value &= ~VIRTIO_STATUS_DRIVER_OK;
    device->status |= value;
}

static void write_queue_ready(struct virtio_device *device, struct virtio_queue_registers *queue,
                              uint32_t value)
{
    if (value == 1 && !queue->ready && (device->status & VIRTIO_STATUS_FEATURES_OK)) {
        struct virtq trial = {0};
        const char *fault =
            virtq_start(&trial, device->env.gmem, device->driver_features, device->ops->queue_size,
                        queue->size, queue->desc_pa, queue->avail_pa, queue->used_pa);
        if (fault) {
            virtio_set_needs_reset(device, fault);
            return;
        }
        queue->ready = queue->changed = true;
    } else if (value == 0 && queue->ready) {
        queue->ready = false;
        queue->changed = true;
        virtio_wait_idle(device);
    }
}

static void set_half(uint64_t *value, unsigned which, uint32_t part)
{
    *value = (*value & ~(UINT64_C(0xffffffff) << (32 * which))) | (uint64_t)part << (32 * which);
}

/* Registers of the selected queue; but for QueueReady they are fixed while it is ready. */
static void write_queue_register(struct virtio_device *device, uint64_t offset, uint32_t value)
{
    struct virtio_queue_registers *queue = selected_queue(device);
    if (!queue)
        return;
    if (offset == VIRTIO_MMIO_QUEUE_READY) {
        write_queue_ready(device, queue, value);
        return;
    }
    if (queue->ready)
        return;
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_SIZE:
        queue->size = value;
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_half(&queue->desc_pa, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_DRIVER_LOW:
    case VIRTIO_MMIO_QUEUE_DRIVER_HIGH:
        set_half(&queue->avail_pa, offset == VIRTIO_MMIO_QUEUE_DRIVER_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_DEVICE_LOW:
    case VIRTIO_MMIO_QUEUE_DEVICE_HIGH:
        set_half(&queue->used_pa, offset == VIRTIO_MMIO_QUEUE_DEVICE_HIGH, value);
        break;
    }
}

/* Returns whether the device thread has something to do. */
static bool write_register(struct virtio_device *device, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        device->device_features_sel = value;
        return false;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        device->driver_features_sel = value;
        return false;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        /* Features are fixed once accepted (3.1.1). */
        if (!(device->status & VIRTIO_STATUS_FEATURES_OK) && device->driver_features_sel < 2)
            set_half(&device->driver_features, device->driver_features_sel, value);
        return false;
    case VIRTIO_MMIO_QUEUE_SEL:
        device->queue_sel = value;
        return false;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        if (value >= device->ops->queue_count)
            return false;
        device->kicked |= 1u << value;
        return true;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        device->interrupt_status &= ~value;
        virtio_update_irq(device);
        return false;
    case VIRTIO_MMIO_STATUS:
        write_status(device, value);
        return true;
    default:
        write_queue_register(device, offset, value);
        return offset == VIRTIO_MMIO_QUEUE_READY;
    }
}

bool virtio_mmio_load(void *opaque, uint64_t offset, unsigned size, uint64_t *value)
{
    struct virtio_device *device = opaque;
    *value = 0;
    pthread_mutex_lock(&device->lock);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        uint64_t at = offset - VIRTIO_MMIO_CONFIG;
        for (unsigned i = 0; i < size && at + i < device->config_bytes; i++)
            *value |= (uint64_t)device->config[at + i] << (8 * i);
    } else if (size == 4 && offset % 4 == 0) {
        *value = read_register(device, offset);
    }
    pthread_mutex_unlock(&device->lock);
    return true;
}

bool virtio_mmio_store(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_device *device = opaque;
    bool ring = false;
    pthread_mutex_lock(&device->lock);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        uint64_t at = offset - VIRTIO_MMIO_CONFIG;
        for (unsigned i = 0; i < size; i++)
            if (at + i >= device->config_writable_from && at + i < device->config_writable_to) {
                device->config[at + i] = (uint8_t)(value >> (8 * i));
                ring = device->config_changed = true;
            }
    } else if (size == 4 && offset % 4 == 0) {
        ring = write_register(device, offset, (uint32_t)value);
    }
    pthread_mutex_unlock(&device->lock);
    if (ring)
        doorbell_ring(&device->doorbell);
    return true;
}
