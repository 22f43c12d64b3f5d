/*
 * The two rings between supervisor and one worker, and the messages on them.
 *
 * A ring is a fixed-size single-producer single-consumer queue in memory that
 * both processes map. head counts messages taken, tail messages put, both
 * without wrap-around; each has one writer and its own cache line. The producer
 * writes a slot, then tail with release; the consumer reads tail with acquire,
 * copies the slot out, then writes head with release. Neither end trusts the
 * other's counter: a distance over RING_SLOTS is reported as corrupt, and a
 * message is copied before it is validated.
 *
 * Waking is the caller's: after ring_put, write the peer's eventfd.
 *
 * No deadlock: the supervisor never waits for room (ring_put says full, and it
 * keeps grants on its free list and coalesces targets). The supervisor has at
 * most RING_REQUESTS requests outstanding a VM, and a worker keeps that many
 * slots of its outgoing ring free for their answers (ring_room).
 */
#ifndef BALLAST_RING_H
#define BALLAST_RING_H

#include "shadow-pt/addr.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>

#define RING_SLOTS    1024u
#define RING_REQUESTS 64u
#define RING_BATCH    12u /* page numbers in one message */
#define RING_PAIRS    6u  /* (ppn, mpn) pairs in one message */
#define RING_THREES   4u  /* (ppn, mpn, target) in one message */

/*
 * Message types. "count" says how many numbers or pairs are valid; a receiver
 * refuses a count beyond the array. "request" is chosen by the supervisor and
 * comes back in DONE; 0 for messages that are not requests.
 */
enum ring_type {
    RING_NONE = 0,

    /* supervisor to worker */
    RING_GRANT = 1,    /* numbers: mpns the VM may use from now on */
    RING_RETURN = 2,   /* value: give back up to this many unused frames (RELEASED why=unused) */
    RING_TARGET = 3,   /* value: target in pages; the worker sets the balloon towards it */
    RING_PAGE_OUT = 4, /* request, value: page random private victims out until this many frames
                          have been released; DONE when reached or impossible */
    RING_PAUSE = 5,    /* request: stop the harts and devices at a safe point; DONE when quiet and
                          every message caused by earlier work has been sent */
    RING_RESUME = 6,   /* request */
    RING_CHECK = 7,    /* request, only while paused: verify pmap and shadow tables; DONE value =
                          violations, text in the shared region */
    RING_QUIT = 8,     /* stop and exit */
    /* Content-based sharing. Requests over several pages; DONE value holds a ring_item of four
     * bits for each, the first in the lowest bits. */
    RING_PROTECT = 9,  /* request, pairs (ppn, mpn): make private pages shared and read-only, in
                          place */
    RING_SHARE = 10,   /* request, numbers in threes (ppn, mpn, target): write-protect, compare in
                          full; equal: the page maps target and mpn is RELEASED before DONE */
    RING_MAP = 11,     /* request, pairs (ppn, mpn): absent pages map a frame already counted */
    RING_UNSHARE = 12, /* request, pairs (ppn, mpn): shared pages become private, with
                          RING_IN_PLACE as they are (the reference was the only one), else by
                          copy, and RELEASED (unshared) */
    RING_WRITTEN = 13, /* request, value: first ppn, a multiple of 64, value2: pages, at most
                          RING_WRITTEN_PAGES: copy "written since last collected" to the collected
                          bits, clear it, and write-protect, so that it is set again by a store.
                          With RING_COLD not for pages that were written before the last WRITTEN
                          too: they stay as they are, and are in the hot bits instead */
    RING_PAGE_THESE = 14, /* pairs (ppn, mpn): pages that were OFFERed and match nothing: page them
                             out, if they still are what the pair says */
    RING_SAMPLE = 15, /* request, value: pages: end the period of sampling and begin the next with
                         as many random pages (0: none), and with RING_COUNT_ALL watch all others
                         too; DONE value: of the ended period, touched pages of the sample in the
                         low 32 bits; if all were watched, all touched pages in the high ones */

    /* worker to supervisor */
    RING_RELEASED = 32, /* pairs (ppn, mpn), value = enum release_why, pc: frames given up */
    RING_DONE = 33,     /* request, value = result or count */
    RING_WANT = 34,     /* value: frames wanted now; flags & RING_BLOCKED: a vCPU is waiting */
    RING_OFFER = 36,    /* pairs (ppn, mpn): about to be paged out for a PAGE_OUT that said
                           RING_OFFER_FIRST. Answered by a SHARE of the page, or by PAGE_THESE */
    RING_EVENT = 35,    /* value = enum worker_event, value2: detail; text in the shared region */
};

enum release_why {
    RELEASE_UNUSED = 0, /* from the grant pool; ppn is NO_PPN */
    RELEASE_BALLOONED,
    RELEASE_REPORTED, /* free page reporting or discard */
    RELEASE_PAGED_OUT,
    RELEASE_SHARED_AWAY,
    RELEASE_COW_BREAK, /* drop one reference of a shared frame: the page was stored to */
    RELEASE_UNSHARED,  /* the same, because UNSHARE said so */
    RELEASE_WHYS
};

enum worker_event {
    WORKER_READY = 1,      /* guest loaded, hart about to run */
    WORKER_BALLOON_DRIVER, /* value2: 1 the guest's balloon driver is up, 0 it went away */
    WORKER_BALLOON_POPPED, /* value2: ppn */
    WORKER_SWAP_ERROR,     /* value2: errno; the VM waits, paging is retried */
    WORKER_SWAP_OK,        /* paging works again */
    WORKER_GUEST_FAULT,    /* guest did something no machine can do; text says what */
    WORKER_POWEROFF,       /* guest powered off; the worker is about to exit 0 */
    WORKER_REBOOT,         /* guest asked for a reset */
    WORKER_REFUSED,        /* a message to the worker made no sense; text says which */
    WORKER_EVENTS
};

/* flags */
#define RING_BLOCKED  1u /* of WANT: a vCPU is waiting */
#define RING_IN_PLACE 2u /* of UNSHARE */
#define RING_OFFER_FIRST                                                                           \
    4u                    /* of PAGE_OUT: victims are OFFERed for sharing before they are written */
#define RING_COUNT_ALL 8u /* of SAMPLE */
#define RING_COLD      16u /* of WRITTEN */

#define RING_WRITTEN_PAGES 4096u

/* What became of one page of a PROTECT, SHARE, MAP or UNSHARE. */
enum ring_item {
    RING_ITEM_NONE = 0,
    RING_ITEM_DONE,    /* protected, equal and shared, mapped, private again */
    RING_ITEM_DIFFERS, /* SHARE: the contents are not equal; the page is as it was */
    RING_ITEM_STALE,   /* the page is not, or no longer, what the message says */
    RING_ITEM_BUSY,    /* pinned by a device, or no frame or room at the moment */
};
#define RING_ITEM(value, index) ((enum ring_item)((value) >> (4 * (index)) & 15))

struct ring_message {
    uint16_t type; /* enum ring_type */
    uint8_t count; /* valid numbers or pairs */
    uint8_t order; /* page order of every number; 0 today */
    uint32_t request;
    uint32_t flags;
    uint32_t value2;
    uint64_t value;
    union {
        uint32_t numbers[RING_BATCH];
        struct {
            ppn_t ppn;
            mpn_t mpn;
        } pairs[RING_PAIRS];
    };
    uint64_t pc; /* guest pc where it matters, else 0 */
};
static_assert(sizeof(struct ring_message) == 80, "ring message layout is fixed");

struct ring {
    _Alignas(64) _Atomic uint64_t tail; /* written by the producer only */
    _Alignas(64) _Atomic uint64_t head; /* written by the consumer only */
    _Alignas(64) struct ring_message slots[RING_SLOTS];
};

enum ring_result { RING_OK = 0, RING_EMPTY, RING_FULL, RING_CORRUPT };

/* Producer: append *message. RING_FULL without effect when there is no room. */
enum ring_result ring_put(struct ring *ring, const struct ring_message *message);

/* Consumer: take the oldest message into *message. */
enum ring_result ring_take(struct ring *ring, struct ring_message *message);

/* Producer: free slots as seen now (0 when corrupt). */
uint32_t ring_room(const struct ring *ring);

/* Is the message well formed: known type for its direction, count within its array, order 0? */
bool ring_message_valid(const struct ring_message *message, bool to_worker);

const char *release_why_name(unsigned why);
const char *worker_event_name(unsigned event);

#endif
