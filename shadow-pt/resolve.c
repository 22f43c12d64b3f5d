/*
 * The slow path of a guest access: walk, set A and D, fill an entry.
 *
 * What is asked in which order matters. A page fault comes before any question
 * about residency, so that a guest cannot make us fetch pages it may not touch.
 * D must be exact (privileged manual 4.3.1), so the PTE is written last, when
 * nothing can keep the access from happening. Each SHADOW_NEED_* answer is
 * about one page; the caller provides it and calls again, and the walk starts
 * from the root, because the memory lock may have been given up in between.
 */
#include "shadow-pt/reverse_map.h"
#include "shadow-pt/shadow_impl.h"
#include "shadow-pt/walk.h"

/* Can the page be stored to now? SHADOW_OK, or what is wanted first. */
static enum shadow_result storable(const struct pmap *pmap, ppn_t ppn)
{
    if (pmap_word_state(pmap_word_fast(pmap, ppn)) != PAGE_PRIVATE)
        return SHADOW_NEED_WRITABLE;
    if (pmap_code_bit(pmap, ppn))
        return SHADOW_CODE_PAGE;
    return SHADOW_OK;
}

/*
 * Set the bits this access must leave in the leaf (step 7). SHADOW_OK: they are
 * set. The exchange fails if another hart changed the PTE since the walk read
 * it; then *changed, and the walk is to be done again.
 */
static enum shadow_result set_touch_bits(struct pmap *pmap, struct walk_leaf *leaf, uint64_t bits,
                                         bool *changed)
{
    enum shadow_result can = storable(pmap, leaf->table_ppn);
    if (can != SHADOW_OK)
        return can;
    uint64_t seen = leaf->pte;
    *changed = !atomic_compare_exchange_strong(leaf->pte_host, &seen, seen | bits);
    leaf->pte |= bits;
    pmap_set_written(pmap, leaf->table_ppn);
    return SHADOW_OK;
}

static void space_count_level(struct space *space, uint64_t va, unsigned level, int change)
{
    if (level == 1)
        space->superpage[region_hash(va)] = (uint16_t)(space->superpage[region_hash(va)] + change);
    else if (level > 1)
        space->large += (uint32_t)change;
}

void slot_clear(struct shadow *shadow, unsigned space_number, unsigned index)
{
    struct space *space = &shadow->spaces[space_number];
    struct shadow_entry *e = &shadow->entries[space_number][index];
    struct shadow_link *link = &shadow->links[space_number][index];
    unsigned level = link->flags & LINK_LEVEL;
    if (level)
        space_count_level(space, entry_va(e), level, -1);
    reverse_map_remove(shadow->pmap, slot_of(shadow, space_number, index));
    e->load_tag = e->store_tag = e->fetch_tag = SHADOW_INVALID;
    space->used[index / 64] &= ~(UINT64_C(1) << (index % 64));
    shadow->counts.mappings_live--;
}

/*
 * Make, or widen, the entry of the current space for the page at va. A load or
 * fetch gets store permission along with its own if that tells nothing new, that
 * is, if the page counts as written already; else the first store asks for it.
 */
static void fill(struct shadow *shadow, uint64_t va, ppn_t ppn, uint64_t word,
                 const struct walk_leaf *leaf, enum shadow_access access)
{
    bool bare = satp_mode(shadow->satp) == SATP_MODE_BARE;
    /* Bare mode has no U bit: the page is for whoever asks (4.1.11). */
    uint64_t user = bare ? shadow->view.user_bit : leaf->pte & PTE_U ? SHADOW_USER : 0;
    uint64_t pte = bare ? PTE_R | PTE_W | PTE_X | PTE_D : leaf->pte;
    uint64_t tag = (va & PAGE_MASK) | user;
    bool writable = (pte & (PTE_W | PTE_D)) == (PTE_W | PTE_D) &&
                    pmap_word_state(word) == PAGE_PRIVATE && !pmap_code_bit(shadow->pmap, ppn) &&
                    (access == SHADOW_STORE || pmap_is_written(shadow->pmap, ppn));

    unsigned number = shadow->current;
    unsigned index = (unsigned)(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1);
    struct space *space = &shadow->spaces[number];
    struct shadow_entry *e = &shadow->entries[number][index];
    struct shadow_link *link = &shadow->links[number][index];
    uint32_t flags = leaf->level | (leaf->global ? LINK_GLOBAL : 0) | (leaf->path_hash & LINK_PATH);

    shadow->counts.fills++;
    pmap_note_touch(shadow->pmap, ppn);
    bool same = slot_used(space, index) && link->ppn == ppn && entry_va(e) == (va & PAGE_MASK) &&
                link->flags == flags;
    if (!same) {
        if (slot_used(space, index))
            slot_clear(shadow, number, index);
        link->ppn = ppn;
        link->flags = flags;
        space->used[index / 64] |= UINT64_C(1) << (index % 64);
        if (leaf->level)
            space_count_level(space, va, leaf->level, 1);
        reverse_map_add(shadow->pmap, slot_of(shadow, number, index));
        shadow->counts.mappings_live++;
    }
    e->host_minus_va = (uint64_t)(uintptr_t)pmap_word_host(shadow->pmap, word) - (va & PAGE_MASK);
    e->load_tag = pte & PTE_R ? tag : SHADOW_INVALID;
    e->fetch_tag = pte & PTE_X ? tag : SHADOW_INVALID;
    e->store_tag = writable ? tag : SHADOW_INVALID;
    if (access == SHADOW_STORE)
        pmap_set_written(shadow->pmap, ppn);
}

static enum shadow_result resolve_by_walk(struct shadow *shadow, uint64_t va,
                                          const struct walk_access *how, struct shadow_reply *reply)
{
    struct pmap *pmap = shadow->pmap;
    uint64_t touch = walk_touch_bits(how->access);
    struct walk_leaf leaf;
    bool changed;
    do {
        changed = false;
        shadow->counts.walks++;
        enum shadow_result walked = walk_guest(pmap, shadow->satp, va, how, &leaf);
        if (__builtin_expect(walked != SHADOW_OK, 0)) {
            reply->ppn = leaf.table_ppn;
            return walked;
        }
        reply->pa = leaf.pa_page << PAGE_SHIFT | (va & ~PAGE_MASK);
        reply->ppn = pmap_ppn_of(pmap, leaf.pa_page);
        if (reply->ppn != NO_PPN) {
            enum shadow_result can =
                how->access == SHADOW_STORE ? storable(pmap, reply->ppn)
                : page_state_readable(pmap_word_state(pmap_word_fast(pmap, reply->ppn)))
                    ? SHADOW_OK
                    : SHADOW_NEED_RESIDENT;
            if (can != SHADOW_OK)
                return can;
        }
        if (leaf.pte_host && (leaf.pte & touch) != touch) {
            enum shadow_result set = set_touch_bits(pmap, &leaf, touch, &changed);
            if (set != SHADOW_OK) {
                reply->ppn = leaf.table_ppn;
                return set;
            }
        }
    } while (__builtin_expect(changed, 0));

    if (reply->ppn == NO_PPN)
        return SHADOW_MMIO;
    uint64_t word = pmap_word_fast(pmap, reply->ppn);
    fill(shadow, va, reply->ppn, word, &leaf, how->access);
    reply->host = pmap_word_host(pmap, word) + (va & ~PAGE_MASK);
    reply->level = leaf.level;
    return SHADOW_OK;
}

enum shadow_result shadow_resolve(struct shadow *shadow, uint64_t va, enum shadow_access access,
                                  bool sum, bool mxr, struct shadow_reply *reply)
{
    unsigned index = (unsigned)(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1);
    const struct shadow_entry *e = &shadow->view.table[index];
    uint64_t tag = access == SHADOW_LOAD    ? e->load_tag
                   : access == SHADOW_STORE ? e->store_tag
                                            : e->fetch_tag;
    uint64_t page = va & PAGE_MASK;
    uint64_t user_bit = shadow->view.user_bit;
    /* The entry is there after all: a misaligned access, or S mode at a user page under SUM
     * (copy_from_user), which the in-line look-up never hits. */
    if (tag == (page | user_bit) ||
        (sum && access != SHADOW_FETCH && tag == (page | SHADOW_USER))) {
        reply->ppn = shadow->links[shadow->current][index].ppn;
        reply->level = shadow->links[shadow->current][index].flags & LINK_LEVEL;
        reply->pa = RAM_BASE_PA + ((uint64_t)reply->ppn << PAGE_SHIFT) + (va & ~PAGE_MASK);
        reply->host = (uint8_t *)(uintptr_t)(va + e->host_minus_va);
        return SHADOW_OK;
    }
    struct walk_access how = {
        .access = access, .user = user_bit == SHADOW_USER, .sum = sum, .mxr = mxr, .touches = true};
    return resolve_by_walk(shadow, va, &how, reply);
}
