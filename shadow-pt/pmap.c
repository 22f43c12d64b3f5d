/*
 * The pmap's words, and the one place where a page changes state.
 *
 * pmap_transitions[state][event] is the whole state machine of a page (design,
 * "A page's states"): where the event leads, which numbers it brings or leaves
 * in the word, and which shadow mappings may still exist when it happens. A
 * pair without a row, a number out of range or a mapping left over is a bug of
 * the worker, never of the guest, and aborts with the values.
 */
#include "shadow-pt/pmap.h"
#include "shadow-pt/pmap_impl.h"
#include "shadow-pt/reverse_map.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the new word's mpn and slot come from. */
enum number_from { NUMBER_NONE, NUMBER_KEPT, NUMBER_BROUGHT };

/* Which mappings of the page may be left in shadow tables. */
enum mappings_left {
    MAPPINGS_NONE,      /* the frame goes, or there was none */
    MAPPINGS_READ_ONLY, /* the frame stays, but may not be stored to */
    MAPPINGS_ANY,
};

struct pmap_transition {
    bool allowed;
    enum page_state to;
    enum number_from mpn, slot;
    enum mappings_left left; /* where a new mpn is brought and differs: MAPPINGS_NONE */
};

#define ROW(to_, mpn_, slot_, left_)                                                               \
    {                                                                                              \
        .allowed = true, .to = PAGE_##to_, .mpn = NUMBER_##mpn_, .slot = NUMBER_##slot_,           \
        .left = MAPPINGS_##left_                                                                   \
    }

/* clang-format off */
static const struct pmap_transition pmap_transitions[PAGE_STATES][PAGE_EVENTS] = {
    [PAGE_ABSENT] = {
        [PAGE_EV_FILL]       = ROW(PRIVATE,    BROUGHT, NONE,    NONE),
        [PAGE_EV_MAP_SHARED] = ROW(SHARED,     BROUGHT, NONE,    NONE),
        [PAGE_EV_BALLOON]    = ROW(BALLOONED,  NONE,    NONE,    NONE),
    },
    [PAGE_PRIVATE] = {
        [PAGE_EV_BALLOON]    = ROW(BALLOONED,  NONE,    NONE,    NONE),
        [PAGE_EV_REPORT]     = ROW(ABSENT,     NONE,    NONE,    NONE),
        [PAGE_EV_OUT_START]  = ROW(PAGING_OUT, KEPT,    BROUGHT, READ_ONLY),
        [PAGE_EV_SHARE]      = ROW(SHARED,     BROUGHT, NONE,    READ_ONLY),
    },
    [PAGE_SHARED] = {
        [PAGE_EV_BALLOON]    = ROW(BALLOONED,  NONE,    NONE,    NONE),
        [PAGE_EV_REPORT]     = ROW(ABSENT,     NONE,    NONE,    NONE),
        [PAGE_EV_COW_BREAK]  = ROW(PRIVATE,    BROUGHT, NONE,    READ_ONLY),
    },
    [PAGE_BALLOONED] = {
        [PAGE_EV_POP]        = ROW(PRIVATE,    BROUGHT, NONE,    NONE),
        [PAGE_EV_DEFLATE]    = ROW(ABSENT,     NONE,    NONE,    NONE),
    },
    [PAGE_PAGING_OUT] = {
        [PAGE_EV_OUT_CANCEL] = ROW(PRIVATE,    KEPT,    NONE,    READ_ONLY),
        [PAGE_EV_OUT_DONE]   = ROW(PAGED,      NONE,    KEPT,    NONE),
    },
    [PAGE_PAGED] = {
        [PAGE_EV_BALLOON]    = ROW(BALLOONED,  NONE,    NONE,    NONE),
        [PAGE_EV_REPORT]     = ROW(ABSENT,     NONE,    NONE,    NONE),
        [PAGE_EV_IN_START]   = ROW(PAGING_IN,  BROUGHT, KEPT,    NONE),
    },
    [PAGE_PAGING_IN] = {
        [PAGE_EV_IN_DONE]    = ROW(PRIVATE,    KEPT,    NONE,    NONE),
        [PAGE_EV_IN_FAIL]    = ROW(PAGED,      NONE,    KEPT,    NONE),
    },
};
/* clang-format on */

static const char *const state_names[PAGE_STATES] = {
    [PAGE_ABSENT] = "absent",       [PAGE_PRIVATE] = "private",       [PAGE_SHARED] = "shared",
    [PAGE_BALLOONED] = "ballooned", [PAGE_PAGING_OUT] = "paging-out", [PAGE_PAGED] = "paged",
    [PAGE_PAGING_IN] = "paging-in",
};

static const char *const event_names[PAGE_EVENTS] = {
    [PAGE_EV_FILL] = "fill",
    [PAGE_EV_BALLOON] = "balloon",
    [PAGE_EV_POP] = "pop",
    [PAGE_EV_DEFLATE] = "deflate",
    [PAGE_EV_REPORT] = "report",
    [PAGE_EV_OUT_START] = "out-start",
    [PAGE_EV_OUT_CANCEL] = "out-cancel",
    [PAGE_EV_OUT_DONE] = "out-done",
    [PAGE_EV_IN_START] = "in-start",
    [PAGE_EV_IN_DONE] = "in-done",
    [PAGE_EV_IN_FAIL] = "in-fail",
    [PAGE_EV_SHARE] = "share",
    [PAGE_EV_MAP_SHARED] = "map-shared",
    [PAGE_EV_COW_BREAK] = "cow-break",
};

const char *page_state_name(enum page_state state)
{
    return (unsigned)state < PAGE_STATES ? state_names[state] : "unknown state";
}

const char *page_event_name(enum page_event event)
{
    return (unsigned)event < PAGE_EVENTS ? event_names[event] : "unknown event";
}

_Noreturn void pmap_broken(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("broken invariant: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

struct pmap *pmap_new(_Atomic uint64_t *words, struct pmap_counts *counts, uint32_t ram_pages,
                      uint8_t *machine, uint32_t machine_pages)
{
    if (ram_pages == 0 || ram_pages > MAX_VM_PAGES || machine_pages > MAX_VM_PAGES)
        return NULL;
    struct pmap *pmap = calloc(1, sizeof *pmap);
    if (!pmap)
        return NULL;
    *pmap = (struct pmap){.words = words,
                          .counts = counts,
                          .machine_pages = machine_pages,
                          .ram_pages = ram_pages,
                          .first_mapping = calloc(ram_pages, sizeof *pmap->first_mapping),
                          .code_bits = calloc(ram_pages / 64 + 1, sizeof *pmap->code_bits),
                          .written_bits = calloc(ram_pages / 64 + 1, sizeof *pmap->written_bits),
                          .watched_bits = calloc(ram_pages / 64 + 1, sizeof *pmap->watched_bits),
                          .sampled_bits = calloc(ram_pages / 64 + 1, sizeof *pmap->sampled_bits)};
    pmap->machine = machine;
    if (!pmap->first_mapping || !pmap->code_bits || !pmap->written_bits || !pmap->watched_bits ||
        !pmap->sampled_bits) {
        pmap_free(pmap);
        return NULL;
    }
    atomic_store_explicit(&counts->pages_in[PAGE_ABSENT], ram_pages, memory_order_relaxed);
    return pmap;
}

void pmap_free(struct pmap *pmap)
{
    if (!pmap)
        return;
    for (unsigned i = 0; i < SHADOW_MAX_HARTS; i++)
        if (pmap->shadows[i])
            pmap_broken("pmap freed while shadow %u is registered", i);
    free(pmap->first_mapping);
    free(pmap->code_bits);
    free(pmap->written_bits);
    free(pmap->watched_bits);
    free(pmap->sampled_bits);
    free(pmap);
}

void pmap_mark_written(struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "pmap_mark_written");
    pmap_set_written(pmap, ppn);
}

bool pmap_is_written(const struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "pmap_is_written");
    return pmap->written_bits[ppn / 64] >> (ppn % 64) & 1;
}

/* ---- sampling ---- */

void pmap_watch(struct pmap *pmap, ppn_t ppn, bool in_sample)
{
    pmap_check_ppn(pmap, ppn, "pmap_watch");
    if (reverse_map_any(pmap, ppn))
        pmap_broken("pmap_watch: ppn %#x is still mapped", ppn);
    pmap->watched_bits[ppn / 64] |= UINT64_C(1) << (ppn % 64);
    if (in_sample)
        pmap->sampled_bits[ppn / 64] |= UINT64_C(1) << (ppn % 64);
}

bool pmap_is_sampled(const struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "pmap_is_sampled");
    return pmap->sampled_bits[ppn / 64] >> (ppn % 64) & 1;
}

void pmap_touch(const struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "pmap_touch");
    pmap_note_touch(pmap, ppn);
}

struct pmap_touched pmap_watch_end(struct pmap *pmap)
{
    size_t bytes = (pmap->ram_pages / 64 + 1) * sizeof *pmap->watched_bits;
    struct pmap_counts *counts = pmap->counts;

    memset(pmap->watched_bits, 0, bytes);
    memset(pmap->sampled_bits, 0, bytes);
    return (struct pmap_touched){
        .sample_pages = atomic_exchange_explicit(&counts->touched_pages, 0, memory_order_relaxed),
        .all_pages = atomic_exchange_explicit(&counts->all_touched_pages, 0, memory_order_relaxed),
    };
}

uint32_t pmap_pages(const struct pmap *pmap)
{
    return pmap->ram_pages;
}

uint64_t pmap_word(const struct pmap *pmap, ppn_t ppn)
{
    pmap_check_ppn(pmap, ppn, "pmap_word");
    return pmap_word_fast(pmap, ppn);
}

enum page_state pmap_state(const struct pmap *pmap, ppn_t ppn)
{
    return pmap_word_state(pmap_word(pmap, ppn));
}

uint8_t *pmap_host(const struct pmap *pmap, ppn_t ppn)
{
    uint64_t word = pmap_word(pmap, ppn);
    return page_state_readable(pmap_word_state(word)) ? pmap_word_host(pmap, word) : NULL;
}

/* One writer, so a load and a store do; readers see each count true by itself. */
static void count_add(_Atomic uint64_t *count, uint64_t delta)
{
    uint64_t now = atomic_load_explicit(count, memory_order_relaxed);
    atomic_store_explicit(count, now + delta, memory_order_relaxed);
}

static void check_mappings(const struct pmap *pmap, ppn_t ppn, enum page_event event,
                           enum mappings_left left)
{
    if (left == MAPPINGS_NONE && reverse_map_any(pmap, ppn))
        pmap_broken("%s of ppn %#x (%s) while a shadow table maps it", page_event_name(event), ppn,
                    page_state_name(pmap_state(pmap, ppn)));
    if (left == MAPPINGS_READ_ONLY && reverse_map_any_writable(pmap, ppn))
        pmap_broken("%s of ppn %#x (%s) while a shadow table lets stores through",
                    page_event_name(event), ppn, page_state_name(pmap_state(pmap, ppn)));
}

uint64_t pmap_move(struct pmap *pmap, ppn_t ppn, enum page_event event, mpn_t mpn, uint32_t slot)
{
    pmap_check_ppn(pmap, ppn, "pmap_move");
    uint64_t before = pmap_word_fast(pmap, ppn);
    enum page_state from = pmap_word_state(before);
    if ((unsigned)event >= PAGE_EVENTS || (unsigned)from >= PAGE_STATES)
        pmap_broken("event %u on ppn %#x with word %#llx: no such event or state", (unsigned)event,
                    ppn, (unsigned long long)before);
    const struct pmap_transition *row = &pmap_transitions[from][event];
    if (!row->allowed)
        pmap_broken("%s of ppn %#x in state %s: no such transition (word %#llx)",
                    page_event_name(event), ppn, page_state_name(from), (unsigned long long)before);
    if (row->mpn == NUMBER_BROUGHT && mpn >= pmap->machine_pages)
        pmap_broken("%s of ppn %#x brings mpn %#x, machine memory has %#x pages",
                    page_event_name(event), ppn, mpn, pmap->machine_pages);
    if (row->slot == NUMBER_BROUGHT && slot >= MAX_VM_PAGES)
        pmap_broken("%s of ppn %#x brings slot %#x, beyond %#x", page_event_name(event), ppn, slot,
                    MAX_VM_PAGES);

    enum mappings_left left = row->left;
    if (row->mpn == NUMBER_BROUGHT && mpn != pmap_word_mpn(before))
        left = MAPPINGS_NONE;
    check_mappings(pmap, ppn, event, left);

    uint64_t new_mpn = row->mpn == NUMBER_BROUGHT ? mpn
                       : row->mpn == NUMBER_KEPT  ? pmap_word_mpn(before)
                                                  : 0;
    uint64_t new_slot = row->slot == NUMBER_BROUGHT ? slot
                        : row->slot == NUMBER_KEPT  ? pmap_word_slot(before)
                                                    : 0;
    atomic_store_explicit(&pmap->words[ppn], (uint64_t)row->to << 60 | new_slot << 28 | new_mpn,
                          memory_order_release);
    if (row->to == PAGE_PRIVATE && event != PAGE_EV_OUT_CANCEL)
        pmap_set_written(pmap, ppn);
    count_add(&pmap->counts->pages_in[from], (uint64_t)-1);
    count_add(&pmap->counts->pages_in[row->to], 1);
    count_add(&pmap->counts->transitions[event], 1);
    return before;
}
