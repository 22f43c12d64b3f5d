/*
 * The shadow tables as the files of this folder see them.
 *
 *   struct shadow (a hart)
 *     view                      what the in-line look-up reads
 *     spaces[SPACES]            key (satp), age, used[] bits, counts
 *     entries[SPACES][4096]     hot: tags and host address, 32 bytes each
 *     links[SPACES][4096]       cold: ppn, neighbours on the ppn's list, flags
 *
 * A slot is a place for one entry: hart, space and index in one number. A
 * slot_ref is slot + 1, so that zeroed memory means "none". A slot is valid
 * exactly when its used bit is set; an invalid one holds SHADOW_INVALID in all
 * its tags and is on no list. Entries of superpages are cut into 4 KiB entries,
 * but remember their level, because one fence at any address of a superpage
 * must drop them all (privileged manual 4.2.1).
 */
#ifndef BALLAST_SHADOW_IMPL_H
#define BALLAST_SHADOW_IMPL_H

#include "shadow-pt/pmap_impl.h"

#define SPACES_LOG2   3 /* few and large measures better than many and small, in equal memory */
#define SPACES        (1u << SPACES_LOG2)
#define USED_WORDS    (SHADOW_ENTRIES / 64)
#define REGION_COUNTS 256u /* hashed counts of entries of superpages by 2 MiB region */
#define KEY_FREE      UINT64_MAX
#define SPACE_NONE    SPACES

#define SATP_MODE_BARE 0u
#define SATP_MODE_SV39 8u
#define SATP_MODE_SV48 9u

static inline unsigned satp_mode(uint64_t satp)
{
    return (unsigned)(satp >> 60);
}
static inline uint16_t satp_asid(uint64_t satp)
{
    return (uint16_t)(satp >> 44);
}
static inline uint64_t satp_root_page(uint64_t satp)
{
    return satp & ((UINT64_C(1) << 44) - 1);
}

typedef uint32_t slot_t;
typedef uint32_t slot_ref_t; /* slot + 1; 0 = none */

#define LINK_LEVEL  0x07u /* level of the leaf: 0 is 4 KiB, 1 is 2 MiB, 2 is 1 GiB, 3 is 512 GiB */
#define LINK_GLOBAL 0x08u
/* Hash of the PTEs walked: shadow_check knows by it whether the guest has changed its tables since.
 */
#define LINK_PATH 0xfffffff0u

struct shadow_link {
    ppn_t ppn;
    slot_ref_t next, previous; /* previous 0: first of ppn's list */
    uint32_t flags;
};

struct space {
    uint64_t last_used;                /* age, in satp writes */
    uint64_t used[USED_WORDS];         /* one bit a slot: valid */
    uint32_t large;                    /* valid entries of leaves of 1 GiB and more */
    uint16_t superpage[REGION_COUNTS]; /* valid entries of 2 MiB leaves, by region_hash */
    bool ready;                        /* its entries have been set to SHADOW_INVALID once */
};

struct shadow {
    struct shadow_view view; /* first: shadow_view() */
    struct pmap *pmap;
    unsigned number;       /* index in pmap->shadows */
    unsigned current;      /* space in force */
    uint64_t satp;         /* in force; the key of the current space */
    uint64_t now;          /* satp writes so far: the clock of ages */
    uint64_t keys[SPACES]; /* satp of each space, KEY_FREE = unused; apart, for a quick search */
    struct space spaces[SPACES];
    struct shadow_counts counts;
    struct shadow_entry (*entries)[SHADOW_ENTRIES];
    struct shadow_link (*links)[SHADOW_ENTRIES];
};

static inline slot_t slot_of(const struct shadow *shadow, unsigned space, unsigned index)
{
    return ((slot_t)shadow->number << SPACES_LOG2 | space) << SHADOW_ENTRIES_LOG2 | index;
}
static inline unsigned slot_index(slot_t slot)
{
    return slot & (SHADOW_ENTRIES - 1);
}
static inline unsigned slot_space(slot_t slot)
{
    return slot >> SHADOW_ENTRIES_LOG2 & (SPACES - 1);
}
static inline struct shadow *slot_shadow(const struct pmap *pmap, slot_t slot)
{
    return pmap->shadows[slot >> (SHADOW_ENTRIES_LOG2 + SPACES_LOG2)];
}
static inline struct shadow_entry *slot_entry(const struct pmap *pmap, slot_t slot)
{
    return &slot_shadow(pmap, slot)->entries[slot_space(slot)][slot_index(slot)];
}
static inline struct shadow_link *slot_link(const struct pmap *pmap, slot_t slot)
{
    return &slot_shadow(pmap, slot)->links[slot_space(slot)][slot_index(slot)];
}

static inline bool slot_used(const struct space *space, unsigned index)
{
    return space->used[index / 64] >> (index % 64) & 1;
}

/* The virtual page an entry is for: every valid entry has at least one tag that says so. */
static inline uint64_t entry_va(const struct shadow_entry *e)
{
    uint64_t tag = e->load_tag != SHADOW_INVALID    ? e->load_tag
                   : e->fetch_tag != SHADOW_INVALID ? e->fetch_tag
                                                    : e->store_tag;
    return tag & PAGE_MASK;
}

/* Kernels map themselves by superpages in the upper half and fence pages of the lower one: the two
 * halves do not meet. */
static inline unsigned region_hash(uint64_t va)
{
    uint64_t region = va >> 21;
    unsigned half = (unsigned)(va >> 63) * (REGION_COUNTS / 2);
    return half + (unsigned)(region ^ region >> 7 ^ region >> 14) % (REGION_COUNTS / 2);
}

/* spaces.c: take the entry out of its slot and off its list. The slot is valid. */
void slot_clear(struct shadow *shadow, unsigned space, unsigned index);

#endif
