/*
 * What every virtio device is made of, and the MMIO transport they all sit on
 * (virtio 1.2, sections 2, 3.1 and 4.2; modern interface only).
 *
 * A device is one file: a table of operations (struct virtio_ops), a constructor
 * in virtio_devices.h, and a structure that begins with struct virtio_device.
 * The transport does everything the devices have in common: feature
 * negotiation, queue set-up, configuration space, status, interrupts, reset.
 *
 * Threads. Registers are accessed by harts, under `lock`, which is never held
 * across anything that waits. All operations of a device run on the device
 * thread, one at a time, from one function (virtio_serve), which turns what the
 * registers say into calls: stop, start, queue. So a device needs no lock for
 * its own state, but for what virtio_config_write and virtio_kick hand over.
 *
 * Reset. When a driver writes status 0, or takes a queue back, it may use the
 * memory again at once. If the device thread is at work for this device just
 * then, the hart waits for it to finish the chain it is at; it counts as outside
 * guest code meanwhile (virtio_env.leave_guest), so that the device thread may
 * itself need every hart at a safe point.
 *
 * A driver's error (a bad chain, an impossible queue) sets DEVICE_NEEDS_RESET and
 * stops the device until the driver resets it (2.1.2). It never does more; the
 * supervisor is told why, at most once a second a device.
 */
#ifndef BALLAST_VIRTIO_H
#define BALLAST_VIRTIO_H

#include "vmm-core/dev/device.h"
#include "vmm-core/dev/virtq.h"

#include <pthread.h>

#define VIRTIO_MAX_QUEUES   8u
#define VIRTIO_CONFIG_BYTES 64u

/* What a device needs of its machine. */
struct virtio_env {
    struct gmem *gmem;
    struct device_thread *thread;
    /* leave_guest and enter_guest are called on a hart's thread around a wait for the device
     * thread; pause_point now and then during it (the device thread may be kept by a pause, which
     * then needs this thread to be quiet too), and on the device thread where it holds nothing
     * that a pause cares for: it returns when the machine is not paused. Each may be NULL. */
    void *ctx;
    void (*leave_guest)(void *ctx);
    void (*pause_point)(void *ctx);
    void (*enter_guest)(void *ctx);
};

struct virtio_device;

/* All called on the device thread, but for free. NULL: nothing to do. */
struct virtio_ops {
    const char *name;
    uint32_t device_id; /* VIRTIO_ID_* */
    unsigned queue_count;
    uint32_t queue_size; /* of every queue, at most VIRTQ_MAX_SIZE */
    /* The driver is ready (DRIVER_OK); device->features are what it accepted. */
    void (*start)(struct virtio_device *device);
    /* Queue `index` may have chains, or virtio_kick was called for it. Take chains until empty,
     * or virtio_stopping. Only between start and stop, and only when the queue is ready. */
    void (*queue)(struct virtio_device *device, unsigned index);
    /* The driver wrote to the writable part of configuration space. */
    void (*config_written)(struct virtio_device *device);
    /* The driver is gone (reset), or at fault: forget every chain. Follows every start. */
    void (*stop)(struct virtio_device *device);
    /* The device thread has stopped: free the structure itself. */
    void (*free)(struct virtio_device *device);
};

struct virtio_queue_registers {
    uint32_t size;
    bool ready;
    bool changed; /* the device thread has not seen this set-up yet */
    uint64_t desc_pa, avail_pa, used_pa;
};

struct virtio_device {
    const struct virtio_ops *ops;
    struct virtio_env env;
    struct irq_line irq;
    struct doorbell doorbell;

    pthread_mutex_t lock; /* guards what follows, up to the next comment */
    pthread_cond_t idle;  /* busy became false */
    bool busy;            /* the device thread is inside an operation */
    uint32_t status, interrupt_status, config_generation;
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint64_t offered_features, driver_features;
    struct virtio_queue_registers queue_registers[VIRTIO_MAX_QUEUES];
    uint8_t config[VIRTIO_CONFIG_BYTES];
    uint32_t config_bytes;                             /* constant */
    uint32_t config_writable_from, config_writable_to; /* constant */
    uint32_t kicked;                                   /* bit a queue: something to do */
    bool reset_wanted;                                 /* the driver reset the device */
    bool config_changed;                               /* the driver wrote configuration space */
    const char *fault; /* the driver's error that the supervisor has not heard of yet, or NULL */
    _Atomic bool stopping; /* stop soon: somebody waits. Written under the lock, read anywhere */

    /* The device thread's own. */
    bool running;      /* between start and stop */
    uint64_t fault_ns; /* when the supervisor was last told of an error */
    uint64_t features; /* negotiated */
    struct virtq queues[VIRTIO_MAX_QUEUES];
    bool queue_live[VIRTIO_MAX_QUEUES];
};

/* ---- For a device ---- */

/* Constructors' first call. features are those beside the ones all devices have. */
int virtio_device_init(struct virtio_device *device, const struct virtio_ops *ops,
                       const struct virtio_env *env, uint64_t features, struct err *err);

/* Before the machine runs: contents of configuration space, and the range a driver may write. */
void virtio_config_init(struct virtio_device *device, const void *config, uint32_t bytes,
                        uint32_t writable_from, uint32_t writable_to);

/* Any thread: change len bytes of configuration space at offset and tell the driver, if they
 * differ from what was there. */
void virtio_config_write(struct virtio_device *device, uint32_t offset, const void *from,
                         uint32_t len);
void virtio_config_read(struct virtio_device *device, uint32_t offset, void *to, uint32_t len);

/* Any thread: have ops->queue(index) called. */
void virtio_kick(struct virtio_device *device, unsigned index);

static inline bool virtio_has_feature(const struct virtio_device *device, unsigned bit)
{
    return device->features >> bit & 1;
}

/* Device thread: should a loop over chains end early, because a hart waits for the device? */
static inline bool virtio_stopping(struct virtio_device *device)
{
    return atomic_load_explicit(&device->stopping, memory_order_acquire);
}

/* Device thread, with no page pinned: let a pause in. Work whose length the driver decides comes by
 * here again and again, so that a pause waits for a piece of it only. */
static inline void virtio_pause_point(struct virtio_device *device)
{
    if (device->env.pause_point)
        device->env.pause_point(device->env.ctx);
}

/* Device thread: take the next chain of a queue; false: none. A broken queue is dealt with. A pause
 * point. */
bool virtio_take(struct virtio_device *device, unsigned index, struct virtq_chain *chain);
/* Give it back, and interrupt the driver if it wants that. */
void virtio_give(struct virtio_device *device, unsigned index, const struct virtq_chain *chain,
                 uint32_t written_bytes);
/* The driver did what no driver may: the device needs a reset. No chain is taken before that. */
void virtio_driver_error(struct virtio_device *device, const char *why);

/* ---- For the machine ---- */

/* Put the device on the bus at base_pa with its interrupt line. */
int virtio_attach(struct virtio_device *device, struct bus *bus, uint64_t base_pa,
                  const struct irq_line *irq, struct err *err);

/* After the device thread has stopped. NULL is harmless. */
void virtio_device_free(struct virtio_device *device);

/* ---- Between virtio.c and virtio_mmio.c ---- */

bool virtio_mmio_load(void *device, uint64_t offset, unsigned size, uint64_t *value);
bool virtio_mmio_store(void *device, uint64_t offset, unsigned size, uint64_t value);
/* Lock held: raise or lower the line after interrupt_status changed. */
void virtio_update_irq(struct virtio_device *device);
/* Lock held, on a hart's thread: until the device thread is at no operation of this device. */
void virtio_wait_idle(struct virtio_device *device);
/* Lock held: status |= NEEDS_RESET, and tell the driver. */
void virtio_set_needs_reset(struct virtio_device *device, const char *why);

#endif
