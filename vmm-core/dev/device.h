/*
 * What a device of the machine is made of: a range of guest physical addresses
 * with two functions and an opaque pointer (struct bus_range), an interrupt line
 * (struct irq_line), and a place on the device thread for whatever takes time
 * (struct doorbell, device_thread_watch).
 *
 * Threads. load and store of a range run on a hart's thread, without the memory
 * lock, and must return soon: they never touch guest memory and never do I/O;
 * work is left to a doorbell. A doorbell's answer and a watch's event run on the
 * device thread, one at a time, never while the machine is paused; they may pin
 * guest memory and so may wait. A device guards what both threads touch with a
 * lock of its own, which it never holds while it waits for guest memory.
 */
#ifndef BALLAST_DEVICE_H
#define BALLAST_DEVICE_H

#include "vmm-core/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- The bus: ranges of guest physical addresses outside RAM ---- */

#define BUS_MAX_RANGES 32

struct bus_range {
    const char *name;
    uint64_t base_pa, bytes;
    void *device;
    /* A naturally aligned access of size 1, 2, 4 or 8 bytes that lies in the range. False: the
     * device refuses this access, and the guest gets an access fault. */
    bool (*load)(void *device, uint64_t offset, unsigned size, uint64_t *value);
    bool (*store)(void *device, uint64_t offset, unsigned size, uint64_t value);
};

/* Written while the machine is built, read only afterwards. All zero is an empty bus. */
struct bus {
    unsigned count;
    struct bus_range ranges[BUS_MAX_RANGES];
};

/* Add a copy of *range. -1: the table is full, or the range is empty or overlaps another. */
int bus_add(struct bus *bus, const struct bus_range *range, struct err *err);

/* One access by a hart. False: no device there, the access crosses the end of a range, or the
 * device refuses it (access fault). A load's value comes back zero-extended from size bytes. */
bool bus_load(const struct bus *bus, uint64_t pa, unsigned size, uint64_t *value);
bool bus_store(const struct bus *bus, uint64_t pa, unsigned size, uint64_t value);

/* ---- Interrupt lines: level triggered, into the interrupt controller ---- */

struct irq_line {
    void (*set)(void *controller, unsigned source, bool level);
    void *controller;
    unsigned source;
};

/* Raise or lower the line; any thread; setting a level twice is harmless. A line whose set is NULL
 * leads nowhere (tests). */
static inline void irq_line_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->controller, line->source, level);
}

/* ---- The device thread: one loop over file descriptors and doorbells ---- */

struct device_thread; /* its life: vmm-core/machine/device_thread.h */

/*
 * Watch fd for epoll events (EPOLLIN, EPOLLOUT, ...; level triggered). One watch a descriptor.
 * The caller keeps the descriptor and must unwatch before closing it. Before start, or on the
 * device thread. -1: out of memory, or a descriptor epoll refuses (a regular file: always ready).
 */
typedef void (*device_event)(void *device, uint32_t events);
int device_thread_watch(struct device_thread *thread, int fd, uint32_t events, device_event event,
                        void *device, struct err *err);
void device_thread_rewatch(struct device_thread *thread, int fd, uint32_t events);
void device_thread_unwatch(struct device_thread *thread, int fd);

/*
 * A doorbell: "there is work", from any thread to the device thread. Rings coalesce: one answer
 * follows the last ring, and sees everything written before that ring. Cost of a ring: an atomic
 * exchange, and a write to an eventfd when it was not rung already.
 */
struct doorbell {
    struct device_thread *thread;
    void (*answer)(void *device);
    void *device;
    _Atomic uint32_t rung;
};

/* Enter the doorbell in the thread's table (before start; the doorbell must outlive the thread).
 * -1: the table is full. */
int doorbell_init(struct doorbell *doorbell, struct device_thread *thread,
                  void (*answer)(void *device), void *device, struct err *err);
void doorbell_ring(struct doorbell *doorbell);

#endif
