/* The lists from ppn to its mappings, and what is done through them: see reverse_map.h. */
#include "shadow-pt/reverse_map.h"
#include "shadow-pt/shadow_impl.h"

void reverse_map_add(struct pmap *pmap, slot_t slot)
{
    struct shadow_link *link = slot_link(pmap, slot);
    slot_ref_t *first = &pmap->first_mapping[link->ppn];
    link->previous = 0;
    link->next = *first;
    if (link->next)
        slot_link(pmap, link->next - 1)->previous = slot + 1;
    *first = slot + 1;
}

void reverse_map_remove(struct pmap *pmap, slot_t slot)
{
    struct shadow_link *link = slot_link(pmap, slot);
    if (link->next)
        slot_link(pmap, link->next - 1)->previous = link->previous;
    if (link->previous)
        slot_link(pmap, link->previous - 1)->next = link->next;
    else
        pmap->first_mapping[link->ppn] = link->next;
}

bool reverse_map_any_writable(const struct pmap *pmap, ppn_t ppn)
{
    for (slot_ref_t ref = pmap->first_mapping[ppn]; ref; ref = slot_link(pmap, ref - 1)->next)
        if (slot_entry(pmap, ref - 1)->store_tag != SHADOW_INVALID)
            return true;
    return false;
}

bool shadow_ppn_mapped(const struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "shadow_ppn_mapped");
    return reverse_map_any(pmap, ppn);
}

void shadow_drop_ppn(struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "shadow_drop_ppn");
    slot_ref_t ref;
    while ((ref = pmap->first_mapping[ppn]) != 0) {
        struct shadow *shadow = slot_shadow(pmap, ref - 1);
        shadow->counts.reverse_visits++;
        shadow->counts.drops_by_ppn++;
        slot_clear(shadow, slot_space(ref - 1), slot_index(ref - 1));
    }
}

void shadow_protect_ppn(struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "shadow_protect_ppn");
    slot_ref_t next;
    for (slot_ref_t ref = pmap->first_mapping[ppn]; ref; ref = next) {
        struct shadow *shadow = slot_shadow(pmap, ref - 1);
        struct shadow_entry *e = slot_entry(pmap, ref - 1);
        next = slot_link(pmap, ref - 1)->next;
        shadow->counts.reverse_visits++;
        if (e->store_tag == SHADOW_INVALID)
            continue;
        shadow->counts.drops_by_ppn++;
        e->store_tag = SHADOW_INVALID;
        /* W without R is reserved (privileged manual 4.3.1), so a load or fetch tag remains and
         * the entry stays valid. */
    }
}

void shadow_code_added(struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "shadow_code_added");
    if (pmap_code_bit(pmap, ppn))
        return; /* its mappings have had no store permission since the mark was set */
    pmap->code_bits[ppn / 64] |= UINT64_C(1) << (ppn % 64);
    shadow_protect_ppn(pmap, ppn);
}

void shadow_code_dropped(struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "shadow_code_dropped");
    pmap->code_bits[ppn / 64] &= ~(UINT64_C(1) << (ppn % 64));
}

bool shadow_is_code(const struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "shadow_is_code");
    return pmap_code_bit(pmap, ppn);
}

uint64_t shadow_written(const struct pmap *pmap, ppn_t first)
{
    pmap_check_ppn(pmap, first, "shadow_written");
    return pmap->written_bits[first / 64];
}

uint64_t shadow_collect_written(struct pmap *pmap, ppn_t first, uint64_t keep)
{
    pmap_check_ppn(pmap, first, "shadow_collect_written");
    uint64_t *word = &pmap->written_bits[first / 64];
    if (pmap->ram_pages - first < 64)
        keep &= (UINT64_C(1) << (pmap->ram_pages - first)) - 1;
    uint64_t collected = *word | keep;
    for (uint64_t left = *word & ~keep; left; left &= left - 1)
        shadow_protect_ppn(pmap, first + (ppn_t)__builtin_ctzll(left));
    *word = keep;
    return collected;
}
