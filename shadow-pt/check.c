/*
 * The invariants of shadow.h, verified from scratch: every list of the reverse
 * map is followed and every entry of every space is compared with the pmap and
 * with a fresh walk. Costs the tables and RAM's lists; for quiet moments only.
 */
#include "shadow-pt/shadow_impl.h"
#include "shadow-pt/walk.h"

#include <stdarg.h>
#include <stdio.h>

struct findings {
    struct pmap *pmap;
    char *text;
    unsigned text_bytes;
    bool fenced;
    uint64_t violations;
};

static void __attribute__((format(printf, 2, 3))) found(struct findings *f, const char *format, ...)
{
    if (f->violations++ || !f->text_bytes)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(f->text, f->text_bytes, format, args);
    va_end(args);
}

#define LL(x) ((unsigned long long)(x))

/* The entry against the guest's tables as they are now. */
static void check_walk(struct findings *f, const struct shadow *s, unsigned space,
                       const struct shadow_entry *e, const struct shadow_link *link)
{
    uint64_t va = entry_va(e);
    uint64_t key = s->keys[space];
    bool user = (e->load_tag | e->fetch_tag | e->store_tag) & SHADOW_USER;
    const struct {
        enum shadow_access access;
        uint64_t tag;
        uint64_t bits;
    } cases[] = {{SHADOW_LOAD, e->load_tag, PTE_A},
                 {SHADOW_STORE, e->store_tag, PTE_A | PTE_D},
                 {SHADOW_FETCH, e->fetch_tag, PTE_A}};
    for (unsigned i = 0; i < 3; i++) {
        if (cases[i].tag == SHADOW_INVALID)
            continue;
        struct walk_access how = {.access = cases[i].access, .user = user};
        struct walk_leaf leaf = {0};
        enum shadow_result got = walk_guest(f->pmap, key, va, &how, &leaf);
        if (got == SHADOW_NEED_RESIDENT)
            continue; /* a table of the guest's is paged out: nothing to compare with */
        bool agrees = got == SHADOW_OK && pmap_ppn_of(f->pmap, leaf.pa_page) == link->ppn;
        bool same_path = ((leaf.path_hash ^ link->flags) & LINK_PATH) == 0;
        bool touched =
            got == SHADOW_OK && (!leaf.pte_host || (leaf.pte & cases[i].bits) == cases[i].bits);
        /* Until it fences, the guest may have changed the tables under an entry. */
        if (agrees ? touched || !f->fenced : !same_path && !f->fenced)
            continue;
        found(f, "hart %u satp %#llx va %#llx access %d maps ppn %#x, the guest's tables do not",
              s->number, LL(key), LL(va), (int)cases[i].access, link->ppn);
    }
}

static void check_entry(struct findings *f, const struct shadow *s, unsigned space, unsigned index)
{
    const struct shadow_entry *e = &s->entries[space][index];
    const struct shadow_link *link = &s->links[space][index];
    uint64_t tags[] = {e->load_tag, e->store_tag, e->fetch_tag};
    uint64_t va = entry_va(e);
    uint64_t tag = SHADOW_INVALID;
    for (unsigned i = 0; i < 3; i++) {
        if (tags[i] == SHADOW_INVALID)
            continue;
        if (tag != SHADOW_INVALID && tags[i] != tag)
            found(f, "hart %u space %u index %u: tags %#llx and %#llx differ", s->number, space,
                  index, LL(tag), LL(tags[i]));
        tag = tags[i];
    }
    if (e->load_tag == SHADOW_INVALID && e->fetch_tag == SHADOW_INVALID)
        found(f, "hart %u space %u index %u is valid without load or fetch tag", s->number, space,
              index);
    if ((va >> PAGE_SHIFT & (SHADOW_ENTRIES - 1)) != index)
        found(f, "hart %u space %u index %u holds va %#llx", s->number, space, index, LL(va));
    if (link->ppn >= f->pmap->ram_pages) {
        found(f, "hart %u space %u va %#llx maps ppn %#x outside RAM", s->number, space, LL(va),
              link->ppn);
        return;
    }
    uint64_t word = pmap_word(f->pmap, link->ppn);
    enum page_state state = pmap_word_state(word);
    if (!page_state_readable(state))
        found(f, "va %#llx maps ppn %#x, which is %s", LL(va), link->ppn, page_state_name(state));
    else if (e->host_minus_va + va != (uint64_t)(uintptr_t)pmap_word_host(f->pmap, word))
        found(f, "va %#llx of ppn %#x leads to host %#llx, not to mpn %#x", LL(va), link->ppn,
              LL(e->host_minus_va + va), pmap_word_mpn(word));
    if (e->store_tag != SHADOW_INVALID && state != PAGE_PRIVATE)
        found(f, "va %#llx lets stores through to ppn %#x, which is %s", LL(va), link->ppn,
              page_state_name(state));
    if (e->store_tag != SHADOW_INVALID && pmap_code_bit(f->pmap, link->ppn))
        found(f, "va %#llx lets stores through to ppn %#x, which holds decoded code", LL(va),
              link->ppn);
    if (e->store_tag != SHADOW_INVALID && !pmap_is_written(f->pmap, link->ppn))
        found(f, "va %#llx lets stores through to ppn %#x, which does not count as written", LL(va),
              link->ppn);
    check_walk(f, s, space, e, link);
}

/* Are the 64 entries from e all without a tag? The common case, so in one sweep. */
static bool all_invalid(const struct shadow_entry *e)
{
    uint64_t differ = 0;
    for (unsigned i = 0; i < 64; i++)
        differ |= (e[i].load_tag ^ SHADOW_INVALID) | (e[i].store_tag ^ SHADOW_INVALID) |
                  (e[i].fetch_tag ^ SHADOW_INVALID);
    return differ == 0;
}

/* One space: its entries, and the counts it keeps of them. Returns the number of valid entries. */
static uint64_t check_space(struct findings *f, const struct shadow *s, unsigned number)
{
    const struct space *space = &s->spaces[number];
    uint64_t valid = 0;
    uint32_t large = 0;
    uint16_t superpage[REGION_COUNTS] = {0};
    for (unsigned i = 0; space->ready && i < SHADOW_ENTRIES; i++) {
        if (i % 64 == 0 && space->used[i / 64] == 0 && all_invalid(&s->entries[number][i])) {
            i += 63;
            continue;
        }
        const struct shadow_entry *e = &s->entries[number][i];
        bool tagged = e->load_tag != SHADOW_INVALID || e->store_tag != SHADOW_INVALID ||
                      e->fetch_tag != SHADOW_INVALID;
        if (tagged != slot_used(space, i))
            found(f, "hart %u space %u index %u: tags and used bit disagree", s->number, number, i);
        if (!tagged || !slot_used(space, i))
            continue;
        valid++;
        unsigned level = s->links[number][i].flags & LINK_LEVEL;
        if (level == 1)
            superpage[region_hash(entry_va(e))]++;
        large += level > 1;
        check_entry(f, s, number, i);
    }
    if (large != space->large)
        found(f, "hart %u space %u counts %u large entries, has %u", s->number, number,
              space->large, large);
    for (unsigned i = 0; i < REGION_COUNTS; i++)
        if (superpage[i] != space->superpage[i])
            found(f, "hart %u space %u counts %u superpage entries in region class %u, has %u",
                  s->number, number, space->superpage[i], i, superpage[i]);
    return valid;
}

/* Every list: members valid, of that ppn, back-links right. Returns the number of members. */
static uint64_t check_lists(struct findings *f)
{
    const struct pmap *pmap = f->pmap;
    uint64_t members = 0;
    uint64_t limit = (uint64_t)SHADOW_MAX_HARTS * SPACES * SHADOW_ENTRIES;
    for (ppn_t ppn = 0; ppn < pmap->ram_pages; ppn++) {
        slot_ref_t previous = 0;
        for (slot_ref_t ref = pmap->first_mapping[ppn]; ref; ref = slot_link(pmap, ref - 1)->next) {
            if (ref > limit || !slot_shadow(pmap, ref - 1)) {
                found(f, "list of ppn %#x names slot %#x, which does not exist", ppn, ref - 1);
                break;
            }
            const struct shadow_link *link = slot_link(pmap, ref - 1);
            const struct shadow *s = slot_shadow(pmap, ref - 1);
            if (!slot_used(&s->spaces[slot_space(ref - 1)], slot_index(ref - 1)))
                found(f, "list of ppn %#x has slot %#x, which is not valid", ppn, ref - 1);
            if (link->ppn != ppn)
                found(f, "list of ppn %#x has an entry of ppn %#x", ppn, link->ppn);
            if (link->previous != previous)
                found(f, "list of ppn %#x: back-link of slot %#x is wrong", ppn, ref - 1);
            previous = ref;
            if (++members > limit) {
                found(f, "list of ppn %#x loops", ppn);
                return members;
            }
        }
    }
    return members;
}

static uint64_t check(struct pmap *pmap, bool fenced, char *text, unsigned text_bytes)
{
    struct findings f = {.pmap = pmap, .text = text, .text_bytes = text_bytes, .fenced = fenced};
    if (text_bytes)
        text[0] = '\0';
    uint64_t valid = 0;
    for (unsigned h = 0; h < SHADOW_MAX_HARTS; h++) {
        const struct shadow *s = pmap->shadows[h];
        uint64_t of_hart = 0;
        if (!s)
            continue;
        for (unsigned i = 0; i < SPACES; i++)
            of_hart += check_space(&f, s, i);
        if (of_hart != s->counts.mappings_live)
            found(&f, "hart %u counts %llu mappings, has %llu", h, LL(s->counts.mappings_live),
                  LL(of_hart));
        valid += of_hart;
    }
    uint64_t members = check_lists(&f);
    if (members != valid)
        found(&f, "%llu entries are valid, %llu are on lists", LL(valid), LL(members));
    return f.violations;
}

uint64_t shadow_check(struct pmap *pmap, char *text, unsigned text_bytes)
{
    return check(pmap, false, text, text_bytes);
}

uint64_t shadow_check_fenced(struct pmap *pmap, char *text, unsigned text_bytes)
{
    return check(pmap, true, text, text_bytes);
}
