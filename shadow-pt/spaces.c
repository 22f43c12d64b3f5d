/*
 * The cache of address spaces of one hart: which satp value owns which table,
 * how a new one finds room, and what the guest's fences take out.
 *
 * A space is found by its whole satp value (mode, ASID, root), so two roots
 * under one ASID never meet; fences go by ASID and so reach both. When all
 * spaces are taken the one unused for longest is emptied, at the cost of its
 * valid entries: one bit each tells which those are.
 */
#include "shadow-pt/reverse_map.h"
#include "shadow-pt/shadow_impl.h"

#include <stdlib.h>

static void space_empty(struct shadow *shadow, unsigned number, bool keep_global)
{
    for (unsigned w = 0; w < USED_WORDS; w++)
        for (uint64_t bits = shadow->spaces[number].used[w]; bits; bits &= bits - 1) {
            unsigned index = w * 64 + (unsigned)__builtin_ctzll(bits);
            if (!(keep_global && (shadow->links[number][index].flags & LINK_GLOBAL)))
                slot_clear(shadow, number, index);
        }
}

static void space_select(struct shadow *shadow, unsigned number)
{
    struct space *space = &shadow->spaces[number];
    if (!space->ready) {
        for (unsigned i = 0; i < SHADOW_ENTRIES; i++)
            shadow->entries[number][i] =
                (struct shadow_entry){SHADOW_INVALID, SHADOW_INVALID, SHADOW_INVALID, 0};
        space->ready = true;
    }
    shadow->current = number;
    shadow->view.table = shadow->entries[number];
    space->last_used = ++shadow->now;
}

static unsigned space_find(const struct shadow *shadow, uint64_t key)
{
    for (unsigned i = 0; i < SPACES; i++)
        if (shadow->keys[i] == key)
            return i;
    return SPACE_NONE;
}

static unsigned space_oldest(const struct shadow *shadow)
{
    unsigned oldest = 0;
    for (unsigned i = 1; i < SPACES; i++)
        if (shadow->spaces[i].last_used < shadow->spaces[oldest].last_used)
            oldest = i;
    return oldest;
}

struct shadow *shadow_new(struct pmap *pmap)
{
    unsigned number = 0;
    while (number < SHADOW_MAX_HARTS && pmap->shadows[number])
        number++;
    if (number == SHADOW_MAX_HARTS)
        return NULL;
    struct shadow *shadow = calloc(1, sizeof *shadow);
    if (!shadow)
        return NULL;
    shadow->pmap = pmap;
    shadow->number = number;
    /* Not touched before a space is used: an idle guest pays for few of them. */
    shadow->entries = aligned_alloc(PAGE_BYTES, SPACES * sizeof *shadow->entries);
    shadow->links = aligned_alloc(PAGE_BYTES, SPACES * sizeof *shadow->links);
    if (!shadow->entries || !shadow->links) {
        free(shadow->entries);
        free(shadow->links);
        free(shadow);
        return NULL;
    }
    for (unsigned i = 0; i < SPACES; i++)
        shadow->keys[i] = KEY_FREE;
    pmap->shadows[number] = shadow;
    shadow_set_satp(shadow, 0);
    return shadow;
}

void shadow_free(struct shadow *shadow)
{
    if (!shadow)
        return;
    for (unsigned i = 0; i < SPACES; i++)
        space_empty(shadow, i, false);
    shadow->pmap->shadows[shadow->number] = NULL;
    free(shadow->entries);
    free(shadow->links);
    free(shadow);
}

void shadow_set_satp(struct shadow *shadow, uint64_t satp)
{
    uint64_t key = satp_mode(satp) == SATP_MODE_BARE ? 0 : satp;
    unsigned number = space_find(shadow, key);
    if (number == SPACE_NONE) {
        number = space_oldest(shadow);
        if (shadow->keys[number] != KEY_FREE) {
            space_empty(shadow, number, false);
            shadow->counts.space_recycles++;
        }
        shadow->keys[number] = key;
    }
    shadow->satp = key;
    space_select(shadow, number);
}

/* Does the leaf an entry came from, of that level, hold va too? */
static bool same_leaf(uint64_t entry_page_va, unsigned level, uint64_t va)
{
    return (entry_page_va ^ va) >> (PAGE_SHIFT + 9 * level) == 0;
}

/*
 * Drop what the leaf PTE of va stands behind. Only one slot can hold va's own
 * entry, but if the leaf is or was a superpage its other pieces go with it; the
 * region counts tell, nearly always at once, that there are none.
 */
static void space_fence_va(struct shadow *shadow, unsigned number, uint64_t va, bool keep_global)
{
    struct space *space = &shadow->spaces[number];
    bool pieces = space->large || space->superpage[region_hash(va)];
    unsigned home = (unsigned)(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1);
    unsigned first = pieces ? 0 : home / 64;
    unsigned last = pieces ? USED_WORDS - 1 : home / 64;
    for (unsigned w = first; w <= last; w++) {
        uint64_t bits = space->used[w];
        if (!pieces)
            bits &= UINT64_C(1) << (home % 64);
        for (; bits; bits &= bits - 1) {
            unsigned index = w * 64 + (unsigned)__builtin_ctzll(bits);
            uint32_t flags = shadow->links[number][index].flags;
            if (same_leaf(entry_va(&shadow->entries[number][index]), flags & LINK_LEVEL, va) &&
                !(keep_global && (flags & LINK_GLOBAL)))
                slot_clear(shadow, number, index);
        }
    }
}

void shadow_fence(struct shadow *shadow, bool va_given, uint64_t va, bool asid_given, uint16_t asid)
{
    shadow->counts.fences++;
    for (unsigned i = 0; i < SPACES; i++) {
        uint64_t key = shadow->keys[i];
        /* Bare spaces come from no table of the guest's. */
        if (key == KEY_FREE || satp_mode(key) == SATP_MODE_BARE)
            continue;
        if (asid_given && satp_asid(key) != asid)
            continue;
        /* With an ASID, global mappings may stay (4.2.1). */
        if (va_given)
            space_fence_va(shadow, i, va, asid_given);
        else
            space_empty(shadow, i, asid_given);
    }
}

void shadow_drop_all(struct pmap *pmap)
{
    for (unsigned h = 0; h < SHADOW_MAX_HARTS; h++)
        for (unsigned i = 0; pmap->shadows[h] && i < SPACES; i++)
            space_empty(pmap->shadows[h], i, false);
}

void shadow_read_counts(const struct shadow *shadow, struct shadow_counts *counts)
{
    *counts = shadow->counts;
}
