/*
 * The device's end of one split virtqueue (virtio 1.2, section 2.7), with
 * indirect descriptors and event indices.
 *
 * Everything in the queue is written by a guest that may be hostile, and may
 * change while we look. So every index and descriptor is read once, copied,
 * checked, and only the copy is used. A chain that reaches a device has at most
 * `size` segments, all of them within RAM and not empty, the readable ones before the
 * writable ones, none that the device would write lying over the queue itself.
 * What is not such a chain makes the queue broken, and the device asks
 * for a reset (2.1.2 DEVICE_NEEDS_RESET). Two segments of one chain may overlap:
 * a program may read a disk twice into one buffer, and no device relies on it
 * being otherwise.
 *
 * Guest memory is reached through gmem's pins, one short access each, so no lock
 * is held and a queue page may be paged out, or given away, in between.
 *
 * Threads: the device thread only.
 */
#ifndef BALLAST_VIRTQ_H
#define BALLAST_VIRTQ_H

#include "vmm-core/dev/virtio_wire.h"
#include "vmm-core/gmem.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#define VIRTQ_MAX_SIZE 256u /* most descriptors of a queue, and most segments of a chain */

struct virtq {
    struct gmem *gmem;
    uint32_t size;
    uint64_t desc_pa, avail_pa, used_pa;
    bool indirect, event_idx; /* negotiated */
    uint16_t next_avail;      /* available entries taken so far */
    uint16_t next_used;       /* used entries given so far */
    uint16_t signalled;       /* next_used when the driver was last asked about */
    uint32_t setup;           /* counts set-ups, so that a chain of an earlier one is known */
    const char *broken;       /* why no chain can be taken any more, or NULL */
};

struct virtq_segment {
    uint64_t pa;
    uint32_t len;
};

struct virtq_chain {
    uint16_t head;
    uint32_t setup;              /* of the queue it came from */
    unsigned readable, writable; /* segments the device reads, then those it writes */
    uint64_t readable_bytes, writable_bytes;
    struct virtq_segment segments[VIRTQ_MAX_SIZE];
};

/* Begin with a queue as the driver set it up. Returns NULL, or why it cannot be: size not a power
 * of two up to max_size, an area not in RAM, not aligned, or over another (2.7.2). */
const char *virtq_start(struct virtq *queue, struct gmem *gmem, uint64_t features,
                        uint32_t max_size, uint32_t size, uint64_t desc_pa, uint64_t avail_pa,
                        uint64_t used_pa);

enum virtq_result {
    VIRTQ_EMPTY, /* no chain is available; the driver will notify when there is one */
    VIRTQ_TAKEN,
    VIRTQ_BROKEN, /* queue->broken says why */
};

/* Take the next available chain. */
enum virtq_result virtq_take(struct virtq *queue, struct virtq_chain *chain);

/* Give a chain back as used; written_bytes counts from the start of its writable part. A chain
 * of an earlier set-up of the queue is ignored. False: the queue is broken. */
bool virtq_give(struct virtq *queue, const struct virtq_chain *chain, uint32_t written_bytes);

/* The driver took the queue back: no chain can be taken, and none in hand be given. */
void virtq_stop(struct virtq *queue);

/* Does the driver want an interrupt for what was given since the last call (2.7.7)? */
bool virtq_wants_interrupt(struct virtq *queue);

/*
 * The bytes of a chain (virtq_chain.c). Offsets count from the start of its
 * readable or its writable part. False: past the end of that part, or the memory cannot be
 * reached (the machine is stopping).
 */
bool virtq_read(struct virtq *queue, const struct virtq_chain *chain, uint64_t offset, void *to,
                size_t len);
bool virtq_write(struct virtq *queue, const struct virtq_chain *chain, uint64_t offset,
                 const void *from, size_t len);

/*
 * A window: guest pages pinned for I/O that the kernel does straight to or from
 * them. iov describes `bytes` bytes. A window is small, so that a device never holds much of a
 * small guest's memory.
 */
#define VIRTQ_WINDOW_PAGES 64u

struct virtq_window {
    unsigned count;
    size_t bytes;
    bool writable;
    struct iovec iov[VIRTQ_WINDOW_PAGES];
    uint64_t pa[VIRTQ_WINDOW_PAGES];
};

/* Pin up to max_bytes of the chain from offset; fewer if the window is full or the part ends.
 * False: nothing there, or the memory cannot be reached; nothing is pinned then. */
bool virtq_window_pin(struct virtq_window *window, struct virtq *queue,
                      const struct virtq_chain *chain, bool writable, uint64_t offset,
                      uint64_t max_bytes);
void virtq_window_unpin(struct virtq_window *window, struct virtq *queue);

#endif
