/*
 * What the files of this folder share: struct gmem, and the calls between them.
 * Not for anybody outside vmm-core/mem.
 *
 * Unless a comment says otherwise, every field is guarded by the memory lock
 * and every function is called with it held. `caller` is a hart number or
 * MEMLOCK_NOT_A_HART, as in memlock.h.
 */
#ifndef BALLAST_GMEM_INTERNAL_H
#define BALLAST_GMEM_INTERNAL_H

#include "shadow-pt/shadow.h"
#include "vmm-core/gmem.h"
#include "vmm-core/mem/swap_slots.h"

#include <pthread.h>

#define POOL_LOW_PAGES      64u  /* below this, ask for more before anybody waits */
#define POOL_HIGH_PAGES     256u /* ask up to this; twice it fits the pool, see pool.c */
#define OUT_CLUSTER_PAGES   32u  /* pages of one write to the swap file */
#define OUTBOX_RELEASES     512u
#define OUTBOX_PAGER_ROOM   128u /* of those, kept for the pager, which cannot wait for room */
#define REPORT_CHUNK_PAGES  64u  /* pages reported free under one hold of the lock */
#define OFFER_WAIT_NS       UINT64_C(50000000)
#define LIFE_QUEUE          (RING_REQUESTS + 2)
#define SWAP_PAUSE_MIN_MS   50
#define SWAP_PAUSE_MAX_MS   2000
#define WANT_REPEAT_MS      50 /* a thread that waits for frames asks again after this */
#define ROOM_RETRY_MS       1  /* the supervisor does not say when it has made room */
#define OVERHEAD_PERIOD_NS  UINT64_C(1000000000)
#define POP_EVENT_PERIOD_NS UINT64_C(100000000)

struct release {
    ppn_t ppn;
    mpn_t mpn;
    enum release_why why;
    uint64_t pc; /* of the hart whose store broke the sharing; 0: no hart's doing */
};

struct pending_event {
    bool pending;
    uint32_t value2;
    char text[256];
};

struct answer {
    uint32_t request;
    uint64_t value;
};

/* A frame that a page gave up by a copy-on-write break while a device was reading it through a pin:
 * it is released when the last pin goes. */
struct late_release {
    ppn_t ppn;
    mpn_t mpn;
    enum release_why why;
    uint64_t pc;
};

/* What waits to leave for the supervisor; see outbox.c. */
struct outbox {
    struct release releases[OUTBOX_RELEASES]; /* ring buffer from release_first */
    unsigned release_first, release_count;
    bool unnotified; /* a message has been put, and the supervisor not been woken for it */
    struct pending_event events[WORKER_EVENTS];
    bool want_pending;
    uint32_t want_pages, want_flags;
    struct answer answers[RING_REQUESTS];
    unsigned answer_count;
};

/* One direction of swap I/O that may be in an episode of failures. */
struct swap_trouble {
    const char *what; /* "writing" or "reading" */
    bool failing;
    int pause_ms;
    uint64_t retry_at_ns;
};

struct out_request {
    uint32_t request;
    bool offer_first;
    uint64_t wanted_pages, released_pages;
};

/* A victim that the supervisor may want to share instead. */
struct offer {
    ppn_t ppn;
    mpn_t mpn;
    bool page_it; /* PAGE_THESE has named it */
};

/* The pager's paging-out work; see pageout.c. */
struct pageout {
    struct out_request requests[RING_REQUESTS];
    unsigned request_count;
    ppn_t cluster[OUT_CLUSTER_PAGES]; /* pages whose frames the kernel is reading */
    unsigned cluster_pages;
    struct offer offers[OUT_CLUSTER_PAGES]; /* victims of the next cluster, while it is offered */
    unsigned offer_count;
    uint64_t offer_until_ns; /* an offer without an answer is paged out then */
};

/* Work for the life-cycle thread; has a mutex of its own, taken after the memory lock. */
struct lifecycle {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t posted;
    struct ring_message queue[LIFE_QUEUE];
    unsigned queue_count;
    bool target_posted;
    uint64_t target_pages;
    bool stopping;
    bool paused; /* the thread's own */
};

struct gmem {
    struct gmem_config config;
    struct vm_region *region;
    struct ring *incoming, *outgoing;
    struct vm_stats *stats;
    struct pmap *pmap;
    struct memlock *lock;
    struct hart *harts[MEMLOCK_MAX_HARTS];
    uint32_t ram_pages, machine_pages;

    uint32_t pool_pages;   /* frames in region->pool */
    uint32_t want_open;    /* frames asked for and not granted yet */
    bool want_blocked;     /* the newest WANT said BLOCKED and nothing was granted since */
    bool want_since_grant; /* a WANT was sent and nothing was granted since */
    uint64_t want_sent_ns;
    uint32_t frame_waiters; /* threads that wait for a frame now */
    uint8_t *held;          /* bit a frame: granted and not released */

    uint16_t *pins; /* a page */
    uint64_t *warm; /* bit a page: written before the last WRITTEN; the pager's */
    uint32_t pins_live;
    struct late_release late[GMEM_MAX_PINS]; /* at most one a pinned page */
    uint32_t late_count;

    struct swap_slots *slots; /* NULL: no swap file */
    struct swap_trouble write_trouble, read_trouble;
    uint64_t random_state;
    bool counts_all; /* in the period of sampling that runs; see sample.c */
    struct pageout pageout;
    struct outbox outbox;
    uint64_t pop_event_ns; /* when the last one was sent */
    bool incoming_corrupt;

    bool stopping, pausing;
    bool pager_woken; /* wake_fd has been written since the pager last looked */
    bool taking;      /* the pager takes messages: what they lead to leaves when it has them all */
    int wake_fd;      /* eventfd: this worker's threads -> pager */
    int status_fd;    /* /proc/self/status */
    bool started;
    pthread_t pager;
    struct lifecycle life;
};

/* gmem.c */
_Noreturn void mem_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t mem_now_ns(void);
uint8_t *mem_frame(struct gmem *gmem, mpn_t mpn);
void mem_wake_pager(struct gmem *gmem);
/* Wait for a change, at most timeout_ms (< 0: no limit), parked while the VM is being paused. The
 * caller looks again at everything afterwards. False: stopping. */
bool mem_wait(struct gmem *gmem, int caller, int timeout_ms);
/* All harts stopped: forget decoded code of a page whose content changes or goes. */
void mem_drop_code(struct gmem *gmem, ppn_t ppn);
static inline unsigned mem_pins(const struct gmem *gmem, ppn_t ppn)
{
    return gmem->pins[ppn];
}

/* pool.c */
bool pool_take(struct gmem *gmem,
               mpn_t *mpn);                  /* lowest frame; false: none. Asks for more in time */
void pool_put(struct gmem *gmem, mpn_t mpn); /* a frame taken and not used after all */
bool pool_wait(struct gmem *gmem, int caller); /* until there may be a frame. False: stopping */
void pool_grant(struct gmem *gmem, const struct ring_message *message);
void pool_return(struct gmem *gmem, uint64_t pages);
bool frame_is_held(const struct gmem *gmem, mpn_t mpn);
/* A frame this VM was granted becomes one that the supervisor counts references of, or back. */
void frame_set_held(struct gmem *gmem, mpn_t mpn, bool held);

/* residency.c. Give a shared page a copy of its own in frame mpn, taken from the pool; why says
 * what the old one is released as. There is room for a release. */
void cow_break(struct gmem *gmem, int caller, ppn_t ppn, mpn_t mpn, enum release_why why);

/* outbox.c. outbox_release: the frame is held no longer. */
void outbox_release(struct gmem *gmem, ppn_t ppn, mpn_t mpn, enum release_why why);
void outbox_release_at(struct gmem *gmem, ppn_t ppn, mpn_t mpn, enum release_why why, uint64_t pc);
unsigned outbox_room(const struct gmem *gmem); /* releases that still fit */
bool outbox_wait_room(struct gmem *gmem, int caller, unsigned releases); /* false: stopping */
void outbox_event(struct gmem *gmem, enum worker_event event, uint32_t value2, const char *text);
void outbox_want(struct gmem *gmem, uint32_t pages, bool blocked);
void outbox_answer(struct gmem *gmem, uint32_t request, uint64_t value);
/* Offer pages for sharing, at once. False: no room, nothing was sent. */
bool outbox_offer(struct gmem *gmem, const struct offer *offers, unsigned count);
bool outbox_flush(struct gmem *gmem); /* send what fits; true: nothing is left */

/* pageout.c */
void pageout_request(struct gmem *gmem, const struct ring_message *message);
void pageout_these(struct gmem *gmem, const struct ring_message *message);
void pageout_answer_all(struct gmem *gmem);
int pageout_turn(struct gmem *gmem);    /* one cluster; ms until it wants another turn, -1: none */
uint64_t mem_random(struct gmem *gmem); /* 64 bits of the seed given in the configuration */
bool pageout_in_flight(const struct gmem *gmem, ppn_t ppn);
void pageout_cancel(struct gmem *gmem, ppn_t ppn); /* of a page in state paging-out */

/* sharing.c: the messages of content-based sharing, taken by the pager */
void sharing_protect(struct gmem *gmem, const struct ring_message *message);
void sharing_share(struct gmem *gmem, const struct ring_message *message);
void sharing_map(struct gmem *gmem, const struct ring_message *message);
void sharing_unshare(struct gmem *gmem, const struct ring_message *message);
void sharing_written(struct gmem *gmem, const struct ring_message *message);

/* sample.c: message SAMPLE */
void sample_pages(struct gmem *gmem, const struct ring_message *message);

/* swap_trouble.c */
void swap_failed(struct gmem *gmem, struct swap_trouble *trouble, int errnum);
void swap_worked(struct gmem *gmem, struct swap_trouble *trouble);
int swap_pause_left_ms(const struct swap_trouble *trouble);

/* pager.c, lifecycle.c: the threads. Lock not held. */
void *pager_main(void *gmem);
void *lifecycle_main(void *gmem);
int lifecycle_init(struct gmem *gmem, struct err *err);
void lifecycle_post(struct gmem *gmem, const struct ring_message *message); /* lock may be held */
void lifecycle_stop(struct gmem *gmem);
void lifecycle_destroy(struct gmem *gmem);

/* check.c. All harts stopped. Violations; the first in words. */
uint64_t mem_check(struct gmem *gmem, char *text, size_t text_bytes);

/* overhead.c. Pager's thread, lock not held. */
void overhead_refresh(struct gmem *gmem);

#endif
