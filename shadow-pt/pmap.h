/*
 * The pmap: a VM's table from ppn to machine frame and page state (paper,
 * section 2; design: "A page's states").
 *
 * One 64-bit word a page, in memory shared with the supervisor, which reads it
 * as a hint only. The worker is the single writer: the holder of its memory
 * lock. Words are written with release and read with acquire order, so that the
 * supervisor never sees half a transition.
 *
 *     63    60 59   56 55                28 27                 0
 *    +--------+-------+--------------------+--------------------+
 *    | state  | order |        slot        |        mpn         |
 *    +--------+-------+--------------------+--------------------+
 *
 *   absent      no frame, no content: reads as zero, filled on first touch
 *   private     mpn, mapped by this page only
 *   shared      mpn, copy-on-write, counted by the supervisor
 *   ballooned   no frame: the guest promised not to touch it
 *   paging-out  mpn and slot: content is being written; a store cancels it
 *   paged       slot of the VM's swap file, no frame
 *   paging-in   mpn and slot: content is being read
 *
 * Every transition is one row of pmap_transitions[] and is counted there;
 * a change that has no row aborts the worker, because it is our own bug.
 */
#ifndef BALLAST_PMAP_H
#define BALLAST_PMAP_H

#include "shadow-pt/addr.h"

#include <stdatomic.h>
#include <stdbool.h>

enum page_state {
    PAGE_ABSENT = 0,
    PAGE_PRIVATE,
    PAGE_SHARED,
    PAGE_BALLOONED,
    PAGE_PAGING_OUT,
    PAGE_PAGED,
    PAGE_PAGING_IN,
    PAGE_STATES
};

/* Why a page changes state. Each has one row (or one row a starting state) in the table. */
enum page_event {
    PAGE_EV_FILL,       /* absent -> private: first touch, fresh zero frame */
    PAGE_EV_BALLOON,    /* private/shared/absent/paged -> ballooned */
    PAGE_EV_POP,        /* ballooned -> private: the guest touched a page it had given away */
    PAGE_EV_DEFLATE,    /* ballooned -> absent: the guest took it back by the protocol */
    PAGE_EV_REPORT,     /* private/shared/paged -> absent: free page reporting, discard */
    PAGE_EV_OUT_START,  /* private -> paging-out */
    PAGE_EV_OUT_CANCEL, /* paging-out -> private: stored to, or the write failed */
    PAGE_EV_OUT_DONE,   /* paging-out -> paged */
    PAGE_EV_IN_START,   /* paged -> paging-in */
    PAGE_EV_IN_DONE,    /* paging-in -> private */
    PAGE_EV_IN_FAIL,    /* paging-in -> paged: the read failed, content is still in the slot */
    PAGE_EV_SHARE,      /* private -> shared */
    PAGE_EV_MAP_SHARED, /* absent -> shared */
    PAGE_EV_COW_BREAK,  /* shared -> private (a copy, or in place at count 1) */
    PAGE_EVENTS
};

/* Counts the pmap keeps true at every transition; lives in the shared region. */
struct pmap_counts {
    _Atomic uint64_t pages_in[PAGE_STATES];    /* pages in each state now */
    _Atomic uint64_t transitions[PAGE_EVENTS]; /* times each event happened */
    _Atomic uint64_t touched_pages;            /* of the sample, see pmap_watch */
    _Atomic uint64_t all_touched_pages;        /* of all watched pages */
};

struct pmap;

/*
 * pmap_new: a pmap over words (ram_pages of them, zeroed = all absent) and
 * counts, both owned by the caller (shared region). machine is the base of the
 * mapping of machine memory, machine_pages its length. NULL if out of memory.
 */
struct pmap *pmap_new(_Atomic uint64_t *words, struct pmap_counts *counts, uint32_t ram_pages,
                      uint8_t *machine, uint32_t machine_pages);
void pmap_free(struct pmap *pmap);

uint32_t pmap_pages(const struct pmap *pmap);

/* Decoding of one word; usable by the supervisor on words it does not trust. */
static inline enum page_state pmap_word_state(uint64_t word)
{
    return (enum page_state)(word >> 60);
}
static inline uint32_t pmap_word_slot(uint64_t word)
{
    return (uint32_t)(word >> 28) & (MAX_VM_PAGES - 1);
}
static inline mpn_t pmap_word_mpn(uint64_t word)
{
    return (mpn_t)(word & (MAX_VM_PAGES - 1));
}

uint64_t pmap_word(const struct pmap *pmap, ppn_t ppn);
enum page_state pmap_state(const struct pmap *pmap, ppn_t ppn);

/* Host address of the frame behind ppn, or NULL when its state has no frame that may be read
 * (readable: private, shared, paging-out). */
uint8_t *pmap_host(const struct pmap *pmap, ppn_t ppn);

/*
 * pmap_move: carry out event on ppn. mpn and slot are the new numbers where the
 * event brings one (FILL, POP, IN_START, SHARE, MAP_SHARED, COW_BREAK: mpn;
 * OUT_START: slot) and ignored otherwise. Returns the word as it was before, so
 * that the caller can release what the page gave up.
 *
 * Mappings first: an event that takes the frame away, or makes it read-only,
 * must find no (writable) mapping left in any shadow table; the caller has
 * dropped them at a safe point (shadow_drop_ppn, shadow_protect_ppn). Checked:
 * a violation aborts.
 */
uint64_t pmap_move(struct pmap *pmap, ppn_t ppn, enum page_event event, mpn_t mpn, uint32_t slot);

/*
 * Written-since bits, one a page, private to the worker: set when the page may
 * have got new content since the bit was cleared. That is: a store permission is
 * put into a shadow entry, the walk sets an A or D bit in it, it becomes private
 * with content of its own (fill, pop, swap-in, copy), or a device writes to it
 * (pmap_mark_written). A bit too many costs a page hashed in vain; there is never
 * one too few. Memory lock held.
 */
void pmap_mark_written(struct pmap *pmap, ppn_t ppn);
bool pmap_is_written(const struct pmap *pmap, ppn_t ppn);

/*
 * Watched pages, for sampling (paper, section 5.3). pmap_watch marks a page whose
 * mappings, and decoded code, the caller has dropped; the first access to it
 * after that takes the mark away and is counted. An access is: an entry made for
 * it in a shadow table, a page table read in a walk, or what the caller says by
 * pmap_touch (a device). Nothing is missed, because without an entry no access
 * avoids the slow path. Memory lock held; pmap_watch at a stop.
 *
 * A watched page is in the sample or beside it. Both are counted by the same
 * bit at the same access, so with every page watched the second count is the
 * truth that the sample estimates.
 */
void pmap_watch(struct pmap *pmap, ppn_t ppn, bool in_sample);
bool pmap_is_sampled(const struct pmap *pmap, ppn_t ppn); /* whether touched since or not */
void pmap_touch(const struct pmap *pmap, ppn_t ppn);

struct pmap_touched {
    uint64_t sample_pages; /* touched ones of the sample */
    uint64_t all_pages;    /* of all watched pages, the sample's too */
};
/* Watch no page any more: how many were touched. */
struct pmap_touched pmap_watch_end(struct pmap *pmap);

const char *page_state_name(enum page_state state);
const char *page_event_name(enum page_event event);

#endif
