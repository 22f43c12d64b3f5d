/*
 * The reverse map: for each ppn the entries, of all harts and spaces, that map
 * it. A list threads through the entries' own links (struct shadow_link), so it
 * costs no memory beside the head and no allocation ever; write-protecting or
 * dropping a page costs its mappings, not the tables. Writer: the holder of the
 * memory lock. The public verbs (shadow_drop_ppn and so on) are in shadow.h.
 */
#ifndef BALLAST_REVERSE_MAP_H
#define BALLAST_REVERSE_MAP_H

#include "shadow-pt/pmap_impl.h"

/* Put slot, whose link names its ppn, on that ppn's list. */
void reverse_map_add(struct pmap *pmap, uint32_t slot);

/* Take slot off the list of the ppn its link names. */
void reverse_map_remove(struct pmap *pmap, uint32_t slot);

static inline bool reverse_map_any(const struct pmap *pmap, ppn_t ppn)
{
    return pmap->first_mapping[ppn] != 0;
}

/* Does any mapping of ppn let stores through? */
bool reverse_map_any_writable(const struct pmap *pmap, ppn_t ppn);

#endif
