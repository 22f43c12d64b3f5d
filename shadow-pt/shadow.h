/*
 * Shadow page tables, software binding: a cache of (guest page table x pmap)
 * from guest virtual page to host address, with permissions and an in-line
 * look-up, plus the reverse map from ppn to the entries that map it.
 *
 * One struct shadow per hart. It holds a small number of address spaces
 * ("spaces"), a cache keyed by (satp mode, ASID, root), so that a satp write
 * flushes nothing; each space is a direct-mapped table of entries. U and S mode
 * use the same table: an entry for a page with the guest's U bit carries
 * SHADOW_USER in its tags, and the look-up compares with the view's own bit, so
 * U mode can never hit a supervisor page and S mode reaches user pages (SUM)
 * by the slow path.
 *
 * Who may write: entries are added, and dropped by the guest's own satp writes
 * and fences, by the hart itself under the memory lock (the reverse map is one
 * for all harts); they are removed by the lock's holder while the hart is at a
 * safe point. The hart reads its own without a lock.
 *
 * Invariants (shadow_check tells):
 *   - every entry equals guest walk x pmap (where the guest has changed its
 *     tables and not fenced, the walk of then: the manual allows it, 4.2.1);
 *   - no entry maps a page whose state has no readable frame;
 *   - an entry is writable only if the guest's D bit is set, the page is
 *     private and marked as written (pmap.h), and the page holds no decoded code;
 *   - every valid entry is on exactly one reverse-map list, that of its ppn.
 *
 * Follows: RISC-V Privileged Architecture 20211203, sections 4.3 (Sv32
 * algorithm, 4.3.2), 4.4 (Sv39), 4.5 (Sv48); paper section 2.
 */
#ifndef BALLAST_SHADOW_H
#define BALLAST_SHADOW_H

#include "shadow-pt/pmap.h"

enum shadow_access { SHADOW_FETCH, SHADOW_LOAD, SHADOW_STORE };
enum shadow_priv { SHADOW_U = 0, SHADOW_S = 1 };

#define SHADOW_MAX_HARTS    8
#define SHADOW_ENTRIES_LOG2 12 /* 16 MiB of reach: a third of the fills that 10 bits need */
#define SHADOW_ENTRIES      (1u << SHADOW_ENTRIES_LOG2)
#define SHADOW_USER         UINT64_C(0x800) /* tag bit: page has the guest's U bit */
#define SHADOW_INVALID      UINT64_C(0x400) /* tag that no look-up can equal */

/*
 * tag = (va & PAGE_MASK) | SHADOW_USER?  A look-up computes
 * (va & (PAGE_MASK | (size - 1))) | view_bit, so that a misaligned access never
 * hits and takes the slow path.
 */
struct shadow_entry {
    uint64_t load_tag, store_tag, fetch_tag;
    uint64_t host_minus_va; /* host address = va + this, modulo 2^64 */
};

struct shadow; /* opaque but for the hot view */

/* The part the look-up needs; struct shadow begins with it. */
struct shadow_view {
    struct shadow_entry *table; /* of the current space */
    uint64_t user_bit;          /* SHADOW_USER in U mode, 0 in S mode */
};

enum shadow_result {
    SHADOW_OK,            /* *host is valid for this access to the end of the page */
    SHADOW_PAGE_FAULT,    /* guest page fault for this access type */
    SHADOW_ACCESS_FAULT,  /* the walk or the access left every known address */
    SHADOW_MMIO,          /* translated, but pa is not RAM: a device access */
    SHADOW_NEED_RESIDENT, /* make ppn resident, then call again */
    SHADOW_NEED_WRITABLE, /* make ppn resident and private, then call again */
    SHADOW_CODE_PAGE,     /* a store to a page with decoded code: drop that code
                             (shadow_code_dropped), then call again */
};

struct shadow_reply {
    uint8_t *host;  /* SHADOW_OK */
    uint64_t pa;    /* SHADOW_OK, SHADOW_MMIO: guest physical address of va */
    ppn_t ppn;      /* SHADOW_OK, NEED_*, CODE_PAGE: page of RAM concerned */
    unsigned level; /* SHADOW_OK: of the leaf; 0 is a 4 KiB page, 1 is 2 MiB, ... */
};

/*
 * shadow_new: shadow tables of one hart over pmap. Registers itself with the
 * pmap's reverse map (SHADOW_MAX_HARTS at most). NULL if out of memory. At most
 * 2 MiB; starts in Bare mode and S mode. shadow_free comes before pmap_free.
 */
struct shadow *shadow_new(struct pmap *pmap);
void shadow_free(struct shadow *shadow);

static inline struct shadow_view *shadow_view(struct shadow *shadow)
{
    return (struct shadow_view *)shadow;
}

/*
 * In-line look-up of a naturally aligned load (store) of size bytes: the host
 * address or NULL for the slow path. Cost on a hit: 2 loads, and, or, compare,
 * add; no call. Misaligned accesses always miss.
 */
static inline void *shadow_load_ptr(const struct shadow_view *view, uint64_t va, unsigned size)
{
    const struct shadow_entry *e = &view->table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
    if (__builtin_expect(((va & (PAGE_MASK | (size - 1))) | view->user_bit) == e->load_tag, 1))
        return (void *)(va + e->host_minus_va);
    return 0;
}
static inline void *shadow_store_ptr(const struct shadow_view *view, uint64_t va, unsigned size)
{
    const struct shadow_entry *e = &view->table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
    if (__builtin_expect(((va & (PAGE_MASK | (size - 1))) | view->user_bit) == e->store_tag, 1))
        return (void *)(va + e->host_minus_va);
    return 0;
}

/*
 * The same for S mode with sstatus.SUM set, after the look-ups above have missed:
 * hits pages with the guest's U bit, as copy_from_user does. No lock needed.
 */
static inline void *shadow_sum_load_ptr(const struct shadow_view *view, uint64_t va, unsigned size)
{
    const struct shadow_entry *e = &view->table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
    if (((va & (PAGE_MASK | (size - 1))) | SHADOW_USER) == e->load_tag)
        return (void *)(va + e->host_minus_va);
    return 0;
}
static inline void *shadow_sum_store_ptr(const struct shadow_view *view, uint64_t va, unsigned size)
{
    const struct shadow_entry *e = &view->table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
    if (((va & (PAGE_MASK | (size - 1))) | SHADOW_USER) == e->store_tag)
        return (void *)(va + e->host_minus_va);
    return 0;
}

/* Mode of the hart changed (trap, sret, and MPRV does not exist here). */
static inline void shadow_set_priv(struct shadow *shadow, enum shadow_priv priv)
{
    shadow_view(shadow)->user_bit = priv == SHADOW_U ? SHADOW_USER : 0;
}

/*
 * shadow_set_satp: the hart wrote satp, already checked to name a supported
 * mode (Bare 0, Sv39 8, Sv48 9). Selects or recycles a space. Flushes nothing
 * but a recycled space. Memory lock held, hart's own thread.
 */
void shadow_set_satp(struct shadow *shadow, uint64_t satp);

/*
 * sfence.vma (privileged manual 4.2.1). va_given / asid_given say whether rs1 /
 * rs2 was not x0. Drops entries of the hart's own spaces only. Memory lock held,
 * hart's own thread.
 */
void shadow_fence(struct shadow *shadow, bool va_given, uint64_t va, bool asid_given,
                  uint16_t asid);

/*
 * shadow_resolve: the slow path. Finds or makes the entry for an access at va
 * that lies within one page, walking the guest's tables, setting A and D bits
 * (lazily: D on first store). sum and mxr are sstatus bits. size is 1..8 and is
 * used only to bound the access. Memory lock held. See enum shadow_result.
 * Cost: one walk, about 100 ns; no allocation.
 */
enum shadow_result shadow_resolve(struct shadow *shadow, uint64_t va, enum shadow_access access,
                                  bool sum, bool mxr, struct shadow_reply *reply);

/*
 * By ppn, at the cost of the page's mappings (reverse map), in every hart's
 * shadow registered with pmap. Memory lock held and all harts at a safe point.
 */
void shadow_drop_ppn(struct pmap *pmap, ppn_t ppn);    /* remove every mapping */
void shadow_protect_ppn(struct pmap *pmap, ppn_t ppn); /* remove store permission */
bool shadow_ppn_mapped(const struct pmap *pmap, ppn_t ppn);

/*
 * The 64 pages from first (a multiple of 64) on: returns the bits of those
 * written since last collected, lowest first, and write-protects and clears
 * them. Pages in keep (they are being written by a device) are returned and stay
 * marked. Cost: the pages returned. Same conditions.
 */
uint64_t shadow_collect_written(struct pmap *pmap, ppn_t first, uint64_t keep);
/* The same bits, left as they are. */
uint64_t shadow_written(const struct pmap *pmap, ppn_t first);

/* Drop everything, everywhere (tests, restore). Same conditions. */
void shadow_drop_all(struct pmap *pmap);

/*
 * Decoded code. shadow_code_added marks ppn as holding decoded code and removes
 * store permission from its mappings, so that the next store answers
 * SHADOW_CODE_PAGE; shadow_code_dropped clears the mark.
 */
void shadow_code_added(struct pmap *pmap, ppn_t ppn);
void shadow_code_dropped(struct pmap *pmap, ppn_t ppn);
bool shadow_is_code(const struct pmap *pmap, ppn_t ppn);

/*
 * shadow_check: verify the invariants above at a quiet moment (memory lock held,
 * harts at a safe point) by walking again for every entry. Returns 0 when all
 * hold; otherwise the number of violations, with the first described in text.
 */
uint64_t shadow_check(struct pmap *pmap, char *text, unsigned text_bytes);

/* The same, for a guest known to have fenced after every change of its tables: an entry that the
 * tables no longer give is a violation too. */
uint64_t shadow_check_fenced(struct pmap *pmap, char *text, unsigned text_bytes);

/* Counters since start, for statistics and benchmarks. */
struct shadow_counts {
    uint64_t fills;          /* entries made or given more permission */
    uint64_t walks;          /* guest page-table walks, Bare included */
    uint64_t fences;         /* shadow_fence calls */
    uint64_t space_recycles; /* spaces emptied for another satp value */
    uint64_t drops_by_ppn;   /* entries removed or weakened through the reverse map */
    uint64_t reverse_visits; /* entries looked at through the reverse map */
    uint64_t mappings_live;  /* entries now */
};
void shadow_read_counts(const struct shadow *shadow, struct shadow_counts *counts);

#endif
