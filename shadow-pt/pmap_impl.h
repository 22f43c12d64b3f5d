/*
 * What the files of this folder share about the pmap, and nobody else sees.
 *
 * Beside the words (shared with the supervisor) a pmap keeps, private to the
 * worker: the head of each page's reverse-map list, one bit a page that says
 * "holds decoded code", one that says "written since last collected", one that says
 * "watched and not touched yet", one that says "in the sample", and the shadows of all
 * harts. Writer of everything here: the holder of the memory lock.
 */
#ifndef BALLAST_PMAP_IMPL_H
#define BALLAST_PMAP_IMPL_H

#include "shadow-pt/shadow.h"

struct pmap {
    _Atomic uint64_t *words; /* caller's */
    struct pmap_counts *counts;
    uint8_t *machine;
    uint32_t machine_pages;
    uint32_t ram_pages;
    uint32_t *first_mapping; /* per ppn: slot_ref of the first mapping, 0 = not mapped */
    uint64_t *code_bits;     /* per ppn: holds decoded code */
    uint64_t *written_bits;  /* per ppn: see pmap_mark_written */
    uint64_t *watched_bits;  /* per ppn: see pmap_watch */
    uint64_t *sampled_bits;  /* per ppn: in the sample; stays when touched */
    struct shadow *shadows[SHADOW_MAX_HARTS];
};

/* Our own invariant is broken: say which, naming values, and abort the worker. */
_Noreturn void pmap_broken(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void pmap_check_ppn(const struct pmap *pmap, ppn_t ppn, const char *who)
{
    if (__builtin_expect(ppn >= pmap->ram_pages, 0))
        pmap_broken("%s: ppn %#x is outside RAM of %#x pages", who, ppn, pmap->ram_pages);
}

static inline uint64_t pmap_word_fast(const struct pmap *pmap, ppn_t ppn)
{
    return atomic_load_explicit(&pmap->words[ppn], memory_order_acquire);
}

/* May a page in this state be read through its frame? */
static inline bool page_state_readable(enum page_state state)
{
    return state == PAGE_PRIVATE || state == PAGE_SHARED || state == PAGE_PAGING_OUT;
}

/* Host address of the frame a word names; its state has been checked. */
static inline uint8_t *pmap_word_host(const struct pmap *pmap, uint64_t word)
{
    return pmap->machine + ((uint64_t)pmap_word_mpn(word) << PAGE_SHIFT);
}

static inline bool pmap_code_bit(const struct pmap *pmap, ppn_t ppn)
{
    return pmap->code_bits[ppn / 64] >> (ppn % 64) & 1;
}

static inline void pmap_set_written(struct pmap *pmap, ppn_t ppn)
{
    pmap->written_bits[ppn / 64] |= UINT64_C(1) << (ppn % 64);
}

static inline void pmap_note_touch(const struct pmap *pmap, ppn_t ppn)
{
    uint64_t *word = &pmap->watched_bits[ppn / 64], bit = UINT64_C(1) << (ppn % 64);
    if (__builtin_expect((*word & bit) != 0, 0)) {
        *word &= ~bit;
        atomic_fetch_add_explicit(&pmap->counts->all_touched_pages, 1, memory_order_relaxed);
        if (pmap->sampled_bits[ppn / 64] & bit)
            atomic_fetch_add_explicit(&pmap->counts->touched_pages, 1, memory_order_relaxed);
    }
}

/* The ppn of a guest physical page number (pa >> 12), or NO_PPN when it is not RAM. */
static inline ppn_t pmap_ppn_of(const struct pmap *pmap, uint64_t pa_page)
{
    uint64_t ppn = pa_page - (RAM_BASE_PA >> PAGE_SHIFT);
    return ppn < pmap->ram_pages ? (ppn_t)ppn : NO_PPN;
}

#endif
