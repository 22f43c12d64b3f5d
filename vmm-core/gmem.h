/*
 * Guest memory of one VM, inside its worker: residency, the grant pool, host
 * paging, pins, and the worker's end of the rings.
 *
 * Harts (through make_usable) and the device thread (through pins) come here,
 * and gmem has two threads of its own. The pager alone drains the incoming ring
 * and writes to swap, and never waits for frames, for room or for a callback;
 * so whoever waits for frames is always served ("nobody waits in a circle").
 * The life-cycle thread does what may wait for harts and devices: balloon
 * targets, pause, resume, check, quit. Whoever touches a paged page reads it in.
 *
 * States of a page and who may move it: shadow-pt/pmap.h. Everything here
 * happens under the memory lock, which is given up while waiting or doing I/O.
 *
 * Swap: one file a VM, one slot a page, clustered writes of random victims among
 * private unpinned pages (paper 5: "randomised victims"). A slot is freed when
 * its page is back in memory. A failed write cancels (no page is lost), is
 * reported (WORKER_SWAP_ERROR) and retried with growing pauses. Swap is only as
 * good as the file: what the host's kernel took and fails to put on the disk
 * later, it reports to nobody.
 */
#ifndef BALLAST_GMEM_H
#define BALLAST_GMEM_H

#include "vmm-core/err.h"
#include "vmm-core/memlock.h"
#include "vmm-core/vm_region.h"

#include <stddef.h>

struct hart;
struct gmem;

struct gmem_config {
    struct vm_region *region;
    uint8_t *machine;     /* mapping of machine memory, region->machine_pages long */
    int kick_fd;          /* eventfd: supervisor -> worker "to_worker has messages" */
    int notify_fd;        /* eventfd: worker -> supervisor */
    int swap_fd;          /* swap file, or -1: no host paging */
    uint32_t swap_slots;  /* its size in pages */
    uint64_t random_seed; /* victims */
    /* Called by gmem's life-cycle thread (not by the pager, so they may wait for threads that wait
     * for frames), without the lock held. */
    void *ctx;
    void (*set_balloon)(void *ctx, uint64_t balloon_pages); /* TARGET turned into a balloon size */
    void (*set_paused)(void *ctx,
                       bool paused); /* returns when harts and devices are quiet / freed */
    void (*quit)(void *ctx);
    /* Called by a hart or device thread that waits inside gmem (for frames, for swap) while
     * set_paused(true) is in force, lock not held: count this thread as quiet, and return when it
     * is freed. A VM without frames can so be paused. NULL: such a thread delays the pause. */
    void (*park)(void *ctx);
};

/* gmem_new: checks the region's header and opens what it needs from /proc, so that nothing needs a
 * path afterwards. The config is copied. */
struct gmem *gmem_new(const struct gmem_config *config, struct err *err);
/* Start the pager and life-cycle threads; before the first access that may wait for frames. */
int gmem_start(struct gmem *gmem, struct err *err);
/* Wake everyone who waits inside gmem, now and from now on: their calls answer false or NULL. Any
 * thread, callbacks included; gmem_stop must follow, and nothing may be sent after this. */
void gmem_end_waits(struct gmem *gmem);
/* Wake everyone who waits (their calls answer false or NULL), send what is left, join the threads.
 * Not from a callback. */
void gmem_stop(struct gmem *gmem);
void gmem_free(struct gmem *gmem);

struct pmap *gmem_pmap(struct gmem *gmem);
struct memlock *gmem_lock(struct gmem *gmem);
void gmem_add_hart(struct gmem *gmem, struct hart *hart, int hart_id);

/* Lock held. See hart_env.make_usable. caller: hart number or MEMLOCK_NOT_A_HART. Waits for
 * frames (WANT) and swap-in; pops the balloon for a ballooned page. False: stopping. */
bool gmem_make_usable(struct gmem *gmem, int caller, ppn_t ppn, bool writable);

/*
 * Device access to guest physical memory, lock not held. A pin makes one page
 * resident (and writable) and keeps it so until unpinned; pinned pages are
 * never victims, never ballooned under the device. At most GMEM_MAX_PINS at once.
 * gmem_pin: pa..pa+len must lie in one page of RAM. NULL: not RAM, or stopping.
 */
#define GMEM_MAX_PINS 1024
void *gmem_pin(struct gmem *gmem, uint64_t pa, size_t len, bool write);
void gmem_unpin(struct gmem *gmem, uint64_t pa, bool written);

/* Copies through pins, any length, any alignment. False: some byte was outside RAM (nothing
 * before it is undone), or stopping. */
bool gmem_read(struct gmem *gmem, uint64_t pa, void *to, size_t len);
bool gmem_write(struct gmem *gmem, uint64_t pa, const void *from, size_t len);

/* The balloon device's verbs, lock not held. False: ppn out of range, or already / not ballooned
 * (then nothing happened and the device reports a driver error), or pinned. */
bool gmem_balloon(struct gmem *gmem, ppn_t ppn);
bool gmem_deflate(struct gmem *gmem, ppn_t ppn);
/* Free page reporting: pages ppn..ppn+count-1 may lose their content. Never makes one resident. */
bool gmem_report_free(struct gmem *gmem, ppn_t ppn, uint32_t count);

/* Guest "physical" address helpers. */
bool gmem_is_ram(const struct gmem *gmem, uint64_t pa, size_t len);

/* Send an EVENT with text; never blocks for long: text is truncated, the ring keeps room. */
void gmem_event(struct gmem *gmem, enum worker_event event, uint32_t value2, const char *text);

struct vm_stats *gmem_stats(struct gmem *gmem);

#endif
