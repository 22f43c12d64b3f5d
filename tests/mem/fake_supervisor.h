/*
 * The other end of a worker's rings, for tests: a supervisor of one VM that
 * keeps its own books (which frame is free, which is granted) and holds the
 * worker to them. Its thread drains the ring, grants what is wanted while frames
 * last, and asks for a page-out when the VM is blocked and none are left.
 *
 * Frames that come back are filled with junk at once, so that a worker that
 * still uses one is found out.
 *
 * The fake also stands for the machine: actor threads of a test pass a gate at
 * the top of their loops, and gmem parks them there while the VM is paused.
 */
#ifndef BALLAST_FAKE_SUPERVISOR_H
#define BALLAST_FAKE_SUPERVISOR_H

#include "vmm-core/gmem.h"

#include <pthread.h>

#define JUNK      0xdb
#define MAX_DONES (1u << 17) /* requests a test can make */

struct fake_host {
    uint32_t ram_pages, machine_pages, swap_slots;
    int swap_fd; /* -1: an unlinked file in memory */
    bool no_swap;
    uint64_t seed;
    unsigned actors; /* threads that pass the gate */
};

struct fake_supervisor {
    struct fake_host host;
    struct vm_region *region;
    uint8_t *machine;
    struct gmem *gmem;
    int kick_fd, notify_fd, swap_fd;

    pthread_t thread;
    pthread_mutex_t mutex; /* everything below */
    pthread_cond_t changed;
    bool stopping;
    bool *granted;   /* a frame */
    uint32_t *refs;  /* of a granted frame: references, if it is shared */
    mpn_t asked;     /* frame of the PROTECT under way: not reused before its DONE */
    bool asked_gone; /* and it has been released */
    uint32_t free_pages;
    bool grants, reclaims; /* answer WANT; answer a blocked WANT with PAGE_OUT when out of frames */
    bool deaf;             /* leave the outgoing ring alone */
    uint32_t want_pages;
    bool want_blocked, reclaiming;
    uint32_t next_request, reclaim_request;
    uint64_t done_value[MAX_DONES];
    unsigned done_times[MAX_DONES]; /* by request number */
    unsigned events[WORKER_EVENTS];
    uint32_t event_value2[WORKER_EVENTS];
    uint64_t released[RELEASE_WHYS];
    uint64_t wants;
    struct ring_message offers[16]; /* the first OFFERs that came */
    unsigned offer_count;
    unsigned violations;
    char violation[256];

    pthread_mutex_t gate_mutex;
    pthread_cond_t gate_changed;
    bool gate_closed;
    unsigned at_gate;
    uint64_t balloon_pages;
    unsigned balloon_calls, pause_calls, quit_calls;
};

/* A VM whose swap file holds all of it, in memory, and no actors. */
struct fake_host fake_host_of(uint32_t ram_pages, uint32_t machine_pages, uint64_t seed);

/* Books, rings and memory; frames all free; gmem made and started. */
struct fake_supervisor *fake_supervisor_new(const struct fake_host *host);
void fake_supervisor_free(struct fake_supervisor *s);

/* The worker dies (its gmem is torn down, unread messages drained, every frame freed by the books)
 * and a new one starts over a fresh region. */
void fake_supervisor_restart(struct fake_supervisor *s);

/* Send a message as it is; waits for room. */
void fake_send(struct fake_supervisor *s, const struct ring_message *message);
void fake_send_value(struct fake_supervisor *s, enum ring_type type, uint64_t value);

/* Send a request / and wait for its DONE, which must come exactly once: its value. */
uint32_t fake_post(struct fake_supervisor *s, enum ring_type type, uint64_t value);
uint64_t fake_await(struct fake_supervisor *s, uint32_t request);
uint64_t fake_request(struct fake_supervisor *s, enum ring_type type, uint64_t value);
uint64_t fake_request_message(struct fake_supervisor *s, struct ring_message message);

/* Sharing, as a supervisor that counts references does it: one page, and what became of it. */
enum ring_item fake_protect(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn);
enum ring_item fake_share(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn, mpn_t target);
enum ring_item fake_map(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn);
enum ring_item fake_unshare(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn, bool in_place);
uint32_t fake_refs(struct fake_supervisor *s, mpn_t mpn);
mpn_t mpn_of(struct fake_supervisor *s, ppn_t ppn);

/* Wait until a thread of the VM is blocked for frames. */
void fake_await_blocked(struct fake_supervisor *s);

/* Wait until count events of the kind have come. */
void fake_await_event(struct fake_supervisor *s, enum worker_event event, unsigned count);
uint64_t fake_released(struct fake_supervisor *s, enum release_why why);
void fake_await_released(struct fake_supervisor *s, enum release_why why, uint64_t count);

/* Grant frames by hand. */
void fake_grant(struct fake_supervisor *s, uint32_t pages);
void fake_set_grants(struct fake_supervisor *s, bool grants);

/* Pause, CHECK, compare the pmap and the pool with the books, resume. Fails the test if anything is
 * wrong, here or so far. */
void fake_verify(struct fake_supervisor *s);

/* Actors: once a loop, when nothing of gmem is held. */
void fake_gate(struct fake_supervisor *s);
/* An actor ends: pauses wait for it no longer. */
void fake_gate_leave(struct fake_supervisor *s);

/* Guest physical address of a page, and one-line accesses. */
uint64_t page_pa(ppn_t ppn);
void write_page(struct fake_supervisor *s, ppn_t ppn, uint64_t seed);
bool page_holds(struct fake_supervisor *s, ppn_t ppn, uint64_t seed); /* seed 0: all zero */
enum page_state state_of(struct fake_supervisor *s, ppn_t ppn);
void fill_pattern(uint8_t *page, uint64_t seed);

#endif
