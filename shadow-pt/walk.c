/* The guest's page-table walk: see walk.h. Step numbers are those of privileged manual 4.3.2. */
#include "shadow-pt/walk.h"
#include "shadow-pt/shadow_impl.h"

#define PA_BITS 56 /* 44 bits of page number, 4.4.1 */

/* Does the leaf permit the access? Steps 5 (U, SUM, MXR) and the R, W, X bits. */
static bool leaf_permits(uint64_t pte, const struct walk_access *how)
{
    if (how->user) {
        if (!(pte & PTE_U))
            return false;
    } else if (pte & PTE_U) {
        if (how->access == SHADOW_FETCH || !how->sum)
            return false;
    }
    switch (how->access) {
    case SHADOW_FETCH:
        return pte & PTE_X;
    case SHADOW_STORE:
        return pte & PTE_W;
    default:
        return (pte & PTE_R) || (how->mxr && (pte & PTE_X));
    }
}

/* Read one PTE: step 2. */
static enum shadow_result read_pte(const struct pmap *pmap, uint64_t table_page, unsigned index,
                                   const struct walk_access *how, struct walk_leaf *leaf)
{
    ppn_t ppn = pmap_ppn_of(pmap, table_page);
    if (ppn == NO_PPN)
        return SHADOW_ACCESS_FAULT;
    leaf->table_ppn = ppn;
    uint64_t word = pmap_word_fast(pmap, ppn);
    if (__builtin_expect(!page_state_readable(pmap_word_state(word)), 0))
        return SHADOW_NEED_RESIDENT;
    if (how->touches)
        pmap_note_touch(pmap, ppn);
    leaf->pte_host = (_Atomic uint64_t *)(void *)pmap_word_host(pmap, word) + index;
    leaf->pte = atomic_load_explicit(leaf->pte_host, memory_order_relaxed);
    return SHADOW_OK;
}

enum shadow_result walk_guest(const struct pmap *pmap, uint64_t satp, uint64_t va,
                              const struct walk_access *how, struct walk_leaf *leaf)
{
    if (satp_mode(satp) == SATP_MODE_BARE) {
        *leaf = (struct walk_leaf){.pa_page = va >> PAGE_SHIFT};
        return va >> PA_BITS ? SHADOW_ACCESS_FAULT : SHADOW_OK;
    }
    unsigned levels = satp_mode(satp) == SATP_MODE_SV48 ? 4 : 3;
    unsigned unused_bits = 64 - (PAGE_SHIFT + 9 * levels);
    if ((uint64_t)((int64_t)(va << unused_bits) >> unused_bits) != va)
        return SHADOW_PAGE_FAULT; /* not canonical: 4.4.1, 4.5.1 */

    uint64_t table_page = satp_root_page(satp);
    uint64_t path = 0;
    uint64_t hash = 0;
    for (unsigned level = levels; level-- > 0;) {
        unsigned index = (unsigned)(va >> (PAGE_SHIFT + 9 * level)) & 511;
        enum shadow_result got = read_pte(pmap, table_page, index, how, leaf);
        if (got != SHADOW_OK)
            return got;
        uint64_t pte = leaf->pte;
        /* Step 3: not valid, W without R, or reserved bits. */
        if (!(pte & PTE_V) || (pte & (PTE_R | PTE_W)) == PTE_W || (pte & PTE_RESERVED))
            return SHADOW_PAGE_FAULT;
        path |= pte;
        hash = (hash ^ (pte & ~(PTE_A | PTE_D))) * UINT64_C(0x9e3779b97f4a7c15);
        uint64_t page = pte >> PTE_PPN_SHIFT & PTE_PPN_MASK;
        if (!(pte & (PTE_R | PTE_X))) { /* step 4: the next level */
            if (pte & PTE_LEAF_ONLY)
                return SHADOW_PAGE_FAULT;
            table_page = page;
            continue;
        }
        leaf->path_hash = (uint32_t)(hash >> 32);
        if (!leaf_permits(pte, how))
            return SHADOW_PAGE_FAULT;
        uint64_t below = (UINT64_C(1) << (9 * level)) - 1;
        if (page & below)
            return SHADOW_PAGE_FAULT; /* step 6: misaligned superpage */
        leaf->pa_page = page | (va >> PAGE_SHIFT & below);
        leaf->level = level;
        leaf->global = path & PTE_G;
        return SHADOW_OK;
    }
    return SHADOW_PAGE_FAULT; /* step 4: a pointer at the last level */
}
