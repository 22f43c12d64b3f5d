/*
 * The guest's page-table walk (privileged manual 4.3.2, 4.4, 4.5): reads the
 * guest's tables through the pmap, writes nothing. Setting A and D is left to
 * the caller, which knows first whether the access can be carried out at all.
 */
#ifndef BALLAST_WALK_H
#define BALLAST_WALK_H

#include "shadow-pt/pmap_impl.h"

/* PTE bits, privileged manual figure 4.18 */
#define PTE_V         UINT64_C(0x01)
#define PTE_R         UINT64_C(0x02)
#define PTE_W         UINT64_C(0x04)
#define PTE_X         UINT64_C(0x08)
#define PTE_U         UINT64_C(0x10)
#define PTE_G         UINT64_C(0x20)
#define PTE_A         UINT64_C(0x40)
#define PTE_D         UINT64_C(0x80)
#define PTE_PPN_SHIFT 10
#define PTE_PPN_MASK  ((UINT64_C(1) << 44) - 1)
/* N, PBMT and bits 60-54: reserved without Svnapot and Svpbmt, and a fault when set (4.4.1). */
#define PTE_RESERVED UINT64_C(0xffc0000000000000)
/* Reserved in a PTE that points to the next level (4.3.1). */
#define PTE_LEAF_ONLY (PTE_D | PTE_A | PTE_U)

/* Who accesses, how, and what sstatus allows. */
struct walk_access {
    enum shadow_access access;
    bool user;     /* U mode */
    bool sum, mxr; /* sstatus bits; SUM counts in S mode only */
    bool touches;  /* the tables read count as touched (pmap.h): not in a check */
};

struct walk_leaf {
    uint64_t pa_page;           /* guest physical page number (pa >> 12) of the 4 KiB page at va */
    uint64_t pte;               /* the leaf, as read; 0 in Bare mode */
    _Atomic uint64_t *pte_host; /* where it was read, NULL in Bare mode */
    ppn_t table_ppn;    /* page that holds the leaf; with SHADOW_NEED_RESIDENT the page wanted */
    unsigned level;     /* 0: a 4 KiB leaf */
    bool global;        /* G in the leaf or in a PTE above it */
    uint32_t path_hash; /* of all PTEs read, without A and D: the same PTEs, the same number.
                           A hostile guest can make two paths collide; that fools nothing but
                           the check of its own shadow. */
};

/* PTE bits that this access must find set, or set: A, and D for a store. */
static inline uint64_t walk_touch_bits(enum shadow_access access)
{
    return access == SHADOW_STORE ? PTE_A | PTE_D : PTE_A;
}

/*
 * walk_guest: translate va under satp. SHADOW_OK: *leaf is filled, and its PTE
 * permits the access. SHADOW_NEED_RESIDENT: leaf->table_ppn, a page of the
 * guest's tables, has no frame. SHADOW_PAGE_FAULT, SHADOW_ACCESS_FAULT as the
 * manual says. A walk reads at most four PTEs, whatever the tables hold.
 */
enum shadow_result walk_guest(const struct pmap *pmap, uint64_t satp, uint64_t va,
                              const struct walk_access *how, struct walk_leaf *leaf);

#endif
