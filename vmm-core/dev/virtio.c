/*
 * The common part of virtio devices that runs on the device thread; see virtio.h
 * for who holds what. virtio_serve looks at the registers under the lock, decides
 * on one step, does it without the lock, and looks again, until there is nothing
 * left to do.
 */
#include "vmm-core/dev/virtio.h"

#include "vmm-core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_SECOND  1000000000
#define PAUSE_POINT_NS 2000000 /* how often a hart that waits for a device looks for a pause */

enum step { STEP_NONE, STEP_FAULT, STEP_STOP, STEP_START, STEP_CONFIG, STEP_QUEUE };

/* Lock held: copy the set-up of a queue that the driver (re)made, or forget one it took back. */
static void refresh_queue(struct virtio_device *device, unsigned index)
{
    struct virtio_queue_registers *registers = &device->queue_registers[index];
    if (!registers->changed)
        return;
    registers->changed = false;
    device->queue_live[index] = registers->ready;
    virtq_stop(&device->queues[index]);
    if (registers->ready)
        /* Checked when the driver set QueueReady. */
        virtq_start(&device->queues[index], device->env.gmem, device->driver_features,
                    device->ops->queue_size, registers->size, registers->desc_pa,
                    registers->avail_pa, registers->used_pa);
}

/* Lock held: what to do next. Order matters: a driver may have reset the device and set it up
 * again before we look. */
static enum step next_step(struct virtio_device *device, unsigned *index)
{
    bool wanted =
        (device->status & VIRTIO_STATUS_DRIVER_OK) && !(device->status & VIRTIO_STATUS_NEEDS_RESET);
    if (device->fault)
        return STEP_FAULT;
    if (device->running && (device->reset_wanted || !wanted))
        return STEP_STOP;
    device->reset_wanted = false;
    atomic_store_explicit(&device->stopping, false, memory_order_release);
    if (!wanted)
        return STEP_NONE;
    if (!device->running) {
        device->features = device->driver_features;
        device->kicked = ~0u; /* buffers may have been offered before DRIVER_OK */
        return STEP_START;
    }
    if (device->config_changed) {
        device->config_changed = false;
        return STEP_CONFIG;
    }
    for (unsigned i = 0; i < device->ops->queue_count; i++) {
        refresh_queue(device, i);
        if (!(device->kicked >> i & 1))
            continue;
        device->kicked &= ~(1u << i);
        if (device->queue_live[i]) {
            *index = i;
            return STEP_QUEUE;
        }
    }
    return STEP_NONE;
}

static void report_fault(struct virtio_device *device, const char *why)
{
    char text[160];
    uint64_t now_ns = clock_host_ns();
    if (device->fault_ns && now_ns - device->fault_ns < NS_PER_SECOND)
        return;
    device->fault_ns = now_ns;
    snprintf(text, sizeof text, "driver of virtio %s (interrupt %u): %s; the device needs a reset",
             device->ops->name, device->irq.source, why);
    gmem_event(device->env.gmem, WORKER_GUEST_FAULT, 0, text);
}

static void take_step(struct virtio_device *device, enum step step, unsigned index,
                      const char *fault)
{
    const struct virtio_ops *ops = device->ops;
    switch (step) {
    case STEP_FAULT:
        report_fault(device, fault);
        break;
    case STEP_STOP:
        if (ops->stop)
            ops->stop(device);
        device->running = false;
        for (unsigned i = 0; i < ops->queue_count; i++) {
            device->queue_live[i] = false;
            virtq_stop(&device->queues[i]);
        }
        break;
    case STEP_START:
        device->running = true;
        if (ops->start)
            ops->start(device);
        break;
    case STEP_CONFIG:
        if (ops->config_written)
            ops->config_written(device);
        break;
    case STEP_QUEUE:
        ops->queue(device, index);
        break;
    case STEP_NONE:
        break;
    }
}

/* The doorbell's answer. */
static void virtio_serve(void *opaque)
{
    struct virtio_device *device = opaque;
    unsigned index = 0;
    pthread_mutex_lock(&device->lock);
    for (enum step step; (step = next_step(device, &index)) != STEP_NONE;) {
        const char *fault = device->fault;
        device->fault = NULL;
        device->busy = true;
        pthread_mutex_unlock(&device->lock);
        take_step(device, step, index, fault);
        pthread_mutex_lock(&device->lock);
        device->busy = false;
        pthread_cond_broadcast(&device->idle);
    }
    pthread_mutex_unlock(&device->lock);
}

int virtio_device_init(struct virtio_device *device, const struct virtio_ops *ops,
                       const struct virtio_env *env, uint64_t features, struct err *err)
{
    device->ops = ops;
    device->env = *env;
    device->offered_features = features | UINT64_C(1) << VIRTIO_F_VERSION_1 |
                               UINT64_C(1) << VIRTIO_F_INDIRECT_DESC |
                               UINT64_C(1) << VIRTIO_F_EVENT_IDX;
    pthread_mutex_init(&device->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&device->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (doorbell_init(&device->doorbell, env->thread, virtio_serve, device, err) < 0)
        return err_prefix(err, "virtio %s", ops->name);
    return 0;
}

int virtio_attach(struct virtio_device *device, struct bus *bus, uint64_t base_pa,
                  const struct irq_line *irq, struct err *err)
{
    device->irq = *irq;
    struct bus_range range = {
        .name = device->ops->name,
        .base_pa = base_pa,
        .bytes = VIRTIO_MMIO_WINDOW_BYTES,
        .device = device,
        .load = virtio_mmio_load,
        .store = virtio_mmio_store,
    };
    return bus_add(bus, &range, err);
}

void virtio_device_free(struct virtio_device *device)
{
    if (!device)
        return;
    pthread_cond_destroy(&device->idle);
    pthread_mutex_destroy(&device->lock);
    device->ops->free(device);
}

void virtio_update_irq(struct virtio_device *device)
{
    irq_line_set(&device->irq, device->interrupt_status != 0);
}

/* Lock held; given up for a call that may wait. */
static void call_unlocked(struct virtio_device *device, void (*call)(void *ctx))
{
    if (!call)
        return;
    pthread_mutex_unlock(&device->lock);
    call(device->env.ctx);
    pthread_mutex_lock(&device->lock);
}

void virtio_wait_idle(struct virtio_device *device)
{
    if (!device->busy)
        return;
    atomic_store_explicit(&device->stopping, true, memory_order_release);
    call_unlocked(device, device->env.leave_guest);
    while (device->busy) {
        struct timespec look;
        clock_gettime(CLOCK_MONOTONIC, &look);
        look.tv_nsec += PAUSE_POINT_NS;
        look.tv_sec += look.tv_nsec / NS_PER_SECOND;
        look.tv_nsec %= NS_PER_SECOND;
        if (pthread_cond_timedwait(&device->idle, &device->lock, &look) != 0)
            call_unlocked(device, device->env.pause_point);
    }
    call_unlocked(device, device->env.enter_guest);
}

void virtio_set_needs_reset(struct virtio_device *device, const char *why)
{
    if (device->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    device->fault = why;
    device->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (device->status & VIRTIO_STATUS_DRIVER_OK) {
        device->interrupt_status |= VIRTIO_INTERRUPT_CONFIG;
        virtio_update_irq(device);
    }
}

void virtio_config_init(struct virtio_device *device, const void *config, uint32_t bytes,
                        uint32_t writable_from, uint32_t writable_to)
{
    memcpy(device->config, config, bytes);
    device->config_bytes = bytes;
    device->config_writable_from = writable_from;
    device->config_writable_to = writable_to;
}

void virtio_config_write(struct virtio_device *device, uint32_t offset, const void *from,
                         uint32_t len)
{
    pthread_mutex_lock(&device->lock);
    if (memcmp(device->config + offset, from, len) != 0) {
        memcpy(device->config + offset, from, len);
        device->config_generation++;
        if (device->status & VIRTIO_STATUS_DRIVER_OK) {
            device->interrupt_status |= VIRTIO_INTERRUPT_CONFIG;
            virtio_update_irq(device);
        }
    }
    pthread_mutex_unlock(&device->lock);
}

void virtio_config_read(struct virtio_device *device, uint32_t offset, void *to, uint32_t len)
{
    pthread_mutex_lock(&device->lock);
    memcpy(to, device->config + offset, len);
    pthread_mutex_unlock(&device->lock);
}

void virtio_kick(struct virtio_device *device, unsigned index)
{
    pthread_mutex_lock(&device->lock);
    device->kicked |= 1u << index;
    pthread_mutex_unlock(&device->lock);
    doorbell_ring(&device->doorbell);
}

bool virtio_take(struct virtio_device *device, unsigned index, struct virtq_chain *chain)
{
    virtio_pause_point(device);
    enum virtq_result result = virtq_take(&device->queues[index], chain);
    if (result == VIRTQ_BROKEN)
        virtio_driver_error(device, device->queues[index].broken);
    return result == VIRTQ_TAKEN;
}

void virtio_give(struct virtio_device *device, unsigned index, const struct virtq_chain *chain,
                 uint32_t written_bytes)
{
    struct virtq *queue = &device->queues[index];
    if (!virtq_give(queue, chain, written_bytes)) {
        virtio_driver_error(device, queue->broken);
        return;
    }
    if (!virtq_wants_interrupt(queue))
        return;
    pthread_mutex_lock(&device->lock);
    /* A driver that has reset the device meanwhile hears nothing more of its old queues. */
    if (!device->reset_wanted) {
        device->interrupt_status |= VIRTIO_INTERRUPT_USED;
        virtio_update_irq(device);
    }
    pthread_mutex_unlock(&device->lock);
}

void virtio_driver_error(struct virtio_device *device, const char *why)
{
    for (unsigned i = 0; i < device->ops->queue_count; i++)
        if (!device->queues[i].broken)
            device->queues[i].broken = why;
    pthread_mutex_lock(&device->lock);
    if (!device->reset_wanted)
        virtio_set_needs_reset(device, why);
    pthread_mutex_unlock(&device->lock);
}
