/*
 * Machine memory: one memfd of fixed size, the frame table beside it, and the
 * allocator of frames.
 *
 * The frame table is the supervisor's own record and the only truth about who
 * holds what: 8 bytes a frame, indexed by mpn. The supervisor is its one writer.
 * The memory itself it maps for reading only, and only for sharing, which must
 * hash pages: it cannot change a guest's byte.
 *
 *   free     references 0, owner OWNER_NONE,    on the free map
 *   private  references 1, owner a VM's number
 *   shared   references n, owner OWNER_SHARED   (content-based sharing)
 *   leaving  references 0, owner OWNER_LEAVING: given up, but a request that is
 *            not answered yet names it, so that it must not be anybody else's
 *
 * One more frame lies behind the last: the zero frame, of zeroes for ever, which
 * any number of pages may map read-only. It has no row here and is in no count.
 *
 * A request holds the frames that it names (machine_memory_hold) until it is
 * answered or its worker is dead.
 *
 * The free map is a bit a frame in chunks of 512 (2 MiB), with a count a chunk.
 * A VM is served from where its last grant ended, then from the rest of that
 * chunk, then from a chunk that is wholly free, and only then from any other;
 * so several VMs that grow at once still get long ascending runs each, which is
 * what large mappings and large pages want. A buddy allocator was not taken:
 * frames come back one by one and in random order, and merging them costs more
 * than finding the next set bit.
 *
 * Invariant 1 of the design: free + private + shared = frames of the machine
 * (and those leaving, of which there are none at a quiet moment).
 */
#ifndef BALLAST_MACHINE_MEMORY_H
#define BALLAST_MACHINE_MEMORY_H

#include "shadow-pt/addr.h"
#include "vmm-core/err.h"

#include <stdbool.h>

#define OWNER_NONE    0u
#define OWNER_LEAVING 0xfffeu
#define OWNER_SHARED  0xffffu /* VM numbers lie between the first and these two */

struct frame {
    uint32_t references; /* pmap entries that name it (counted before they do), or 1 in a pool */
    uint16_t owner;
    uint8_t node;  /* NUMA node; 0 today */
    uint8_t order; /* page order; 0 today */
};

struct machine_memory;

struct machine_counts {
    uint32_t free_pages, private_pages, shared_pages, leaving_pages;
};

/* pages frames of zeroes and the zero frame, sealed against growing and shrinking. NULL with err.
 */
struct machine_memory *machine_memory_new(uint32_t pages, struct err *err);
void machine_memory_free(struct machine_memory *memory);

int machine_memory_fd(const struct machine_memory *memory);
uint32_t machine_memory_pages(const struct machine_memory *memory);
/* The zero frame. */
mpn_t machine_memory_zero_frame(const struct machine_memory *memory);

/* Map all of it, the zero frame included, for reading. NULL with err. Kept until the end. */
const uint8_t *machine_memory_view(struct machine_memory *memory, struct err *err);

/* Kept with every change; O(1). */
struct machine_counts machine_memory_counts(const struct machine_memory *memory);
/* The same, counted anew from frame table and free map; false if a frame is in both or neither. */
bool machine_memory_recount(const struct machine_memory *memory, struct machine_counts *counts);

/*
 * Hand owner a run of at most max_pages contiguous ascending frames, the first
 * in *first; near is the frame wished for (one past its last grant, or NO_MPN).
 * Returns its length, 0 when nothing is free.
 */
uint32_t machine_memory_take(struct machine_memory *memory, uint16_t owner, mpn_t near,
                             uint32_t max_pages, mpn_t *first);

/* Is mpn a frame of the machine, private to owner? Any number is allowed. */
bool machine_memory_is_private(const struct machine_memory *memory, uint16_t owner, mpn_t mpn);

/* Free a frame private to owner (held by a request: leaving first). False, and nothing happens, if
 * it is not that. */
bool machine_memory_give_back(struct machine_memory *memory, uint16_t owner, mpn_t mpn);

/* Free everything private to owner; returns how many frames. O(frames of the machine). */
uint32_t machine_memory_give_back_all(struct machine_memory *memory, uint16_t owner);

/* A request names this frame: whoever gives it up, it is not free before as many unholds. At most
 * 65535 at once: false, and nothing happens, beyond that. */
bool machine_memory_hold(struct machine_memory *memory, mpn_t mpn);
void machine_memory_unhold(struct machine_memory *memory, mpn_t mpn);
bool machine_memory_is_held(const struct machine_memory *memory, mpn_t mpn);

/* private to owner -> shared with one reference; shared with one reference -> private to owner.
 * False, and nothing happens, if it is not that. */
bool machine_memory_make_shared(struct machine_memory *memory, uint16_t owner, mpn_t mpn);
bool machine_memory_make_private(struct machine_memory *memory, uint16_t owner, mpn_t mpn);
bool machine_memory_is_shared(const struct machine_memory *memory, mpn_t mpn);
/* One reference more or less to a shared frame; with the last one it is free (or leaving). */
void machine_memory_ref(struct machine_memory *memory, mpn_t mpn);
void machine_memory_unref(struct machine_memory *memory, mpn_t mpn);

/* Fetch a frame's row into the cache. */
void machine_memory_prefetch(const struct machine_memory *memory, mpn_t mpn);
const struct frame *machine_memory_frame(const struct machine_memory *memory, mpn_t mpn);

#endif
