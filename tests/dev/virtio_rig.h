/*
 * A tiny machine for virtio devices, and a driver for it, all on one thread.
 *
 * Guest memory is flat (ppn n is frame n of an array) under a real pmap, so that
 * gmem's verbs change page states as they do in a worker; every pin is counted.
 * Doorbells are answered at once, in the caller's thread, and watched descriptors
 * are served by rig_poll. So a test reads: offer this chain, look at what came back.
 *
 * The rig stands in for vmm-core/mem and the device thread: a program that links
 * it must not start the real ones.
 */
#ifndef BALLAST_TESTS_VIRTIO_RIG_H
#define BALLAST_TESTS_VIRTIO_RIG_H

#include "vmm-core/dev/virtio_devices.h"

#define RIG_QUEUE_SIZE 16u /* what rig_start sets up; a test may choose another */

struct rig_queue {
    uint32_t size;
    uint64_t desc_pa, avail_pa, used_pa;
    uint16_t next_desc, avail_idx, seen_used;
};

struct rig {
    struct gmem *gmem;
    struct virtio_env env;
    struct virtio_device *device;
    struct bus bus;
    bool irq_level;
    unsigned irq_rises;
    uint64_t next_free_pa; /* bump allocator of guest memory */
    struct rig_queue queues[VIRTIO_MAX_QUEUES];
};

#define RIG_DEVICE_PA UINT64_C(0x10001000)

/* A rig with ram_pages of RAM; then attach one device made with rig->env. */
void rig_open(struct rig *rig, uint32_t ram_pages);
void rig_attach(struct rig *rig, struct virtio_device *device);
/* Frees everything; fails the test if a page is still pinned. */
void rig_close(struct rig *rig);

/* ---- Guest memory ---- */
uint64_t rig_alloc(struct rig *rig, size_t bytes, size_t align); /* zeroed; returns pa */
void *rig_host(struct rig *rig, uint64_t pa);                    /* up to the end of its page */
void rig_fill(struct rig *rig, uint64_t pa, uint8_t byte, size_t len);
enum page_state rig_page_state(struct rig *rig, uint64_t pa);
void rig_refuse_pins(struct rig *rig, bool refuse); /* as a machine does that is stopping */
unsigned rig_events(struct rig *rig, enum worker_event event, uint32_t value2);

/* ---- Registers ---- */
uint32_t rig_read(struct rig *rig, uint64_t offset);
void rig_write(struct rig *rig, uint64_t offset, uint32_t value);
bool rig_needs_reset(struct rig *rig);
/* Take and acknowledge interrupts: what the status register said. */
uint32_t rig_take_interrupt(struct rig *rig);

/* ---- Driver ---- */
/* Reset, accept `features` (VERSION_1 is added), set up `queues` queues, DRIVER_OK. Returns whether
 * the device accepted the features. */
bool rig_start(struct rig *rig, uint64_t features, unsigned queues);
bool rig_negotiate(struct rig *rig, uint64_t features);
void rig_set_up_queue(struct rig *rig, unsigned index, uint32_t size);
void rig_driver_ok(struct rig *rig);

struct piece {
    uint64_t pa;
    uint32_t len;
    uint16_t flags; /* VIRTQ_DESC_WRITE, ... */
};
/* Put a chain of pieces in fresh descriptors, make it available and notify; returns its head. */
uint16_t rig_offer_pieces(struct rig *rig, unsigned queue, const struct piece *pieces,
                          unsigned count);
/* rig_offer(&rig, 0, {pa, len, 0}, {pa, len, VIRTQ_DESC_WRITE}) */
#define rig_offer(rig, queue, ...)                                                                 \
    rig_offer_pieces(rig, queue, (const struct piece[]){__VA_ARGS__},                              \
                     sizeof((const struct piece[]){__VA_ARGS__}) / sizeof(struct piece))

/* Lower level, for chains that are wrong: write one descriptor, make a head available. */
void rig_set_desc(struct rig *rig, unsigned queue, uint16_t index, struct virtq_desc desc);
void rig_publish(struct rig *rig, unsigned queue, uint16_t head);

/* The next used element; false: none. */
bool rig_used(struct rig *rig, unsigned queue, uint32_t *head, uint32_t *len);

/* Serve watched descriptors that are ready, waiting up to timeout_ms for the first. */
void rig_poll(struct rig *rig, int timeout_ms);

#endif
