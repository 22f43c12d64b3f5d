/* The tests' small guest: see guest_tables.h. */
#include "tests/shadow/guest_tables.h"

#include <string.h>

void test_guest_open(struct test_guest *g, uint32_t ram_pages, uint32_t machine_pages,
                     unsigned levels)
{
    memset(g, 0, sizeof *g);
    g->ram_pages = ram_pages;
    g->machine_pages = machine_pages;
    g->levels = levels;
    g->words = calloc(ram_pages, sizeof *g->words);
    g->machine = aligned_alloc(PAGE_BYTES, (size_t)machine_pages * PAGE_BYTES);
    g->free_frames = calloc(machine_pages, sizeof *g->free_frames);
    g->swap = calloc(ram_pages, PAGE_BYTES);
    REQUIRE(g->words && g->machine && g->free_frames && g->swap, "out of memory");
    for (mpn_t mpn = machine_pages; mpn-- > 0;)
        g->free_frames[g->free_count++] = mpn;
    g->pmap = pmap_new(g->words, &g->counts, ram_pages, g->machine, machine_pages);
    REQUIRE(g->pmap, "pmap_new");
    g->shadow = shadow_new(g->pmap);
    REQUIRE(g->shadow, "shadow_new");
    g->next_table = TABLES_PPN;
    g->root = test_guest_new_table(g);
}

void test_guest_close(struct test_guest *g)
{
    shadow_free(g->shadow);
    pmap_free(g->pmap);
    free(g->words);
    free(g->machine);
    free(g->free_frames);
    free(g->swap);
}

static uint8_t *frame_host(const struct test_guest *g, mpn_t mpn)
{
    return g->machine + (size_t)mpn * PAGE_BYTES;
}

static mpn_t take_frame(struct test_guest *g)
{
    REQUIRE(g->free_count > 0, "the test needs more frames than %u", g->machine_pages);
    mpn_t mpn = g->free_frames[--g->free_count];
    memset(frame_host(g, mpn), 0, PAGE_BYTES);
    return mpn;
}

/* Freed frames are filled with junk, so that a mapping left over shows. */
static void give_frame(struct test_guest *g, mpn_t mpn)
{
    memset(frame_host(g, mpn), 0xa5, PAGE_BYTES);
    g->free_frames[g->free_count++] = mpn;
}

void test_guest_make_resident(struct test_guest *g, ppn_t ppn)
{
    mpn_t mpn;
    switch (pmap_state(g->pmap, ppn)) {
    case PAGE_ABSENT:
        pmap_move(g->pmap, ppn, PAGE_EV_FILL, take_frame(g), 0);
        break;
    case PAGE_BALLOONED:
        pmap_move(g->pmap, ppn, PAGE_EV_POP, take_frame(g), 0);
        break;
    case PAGE_PAGED:
        mpn = take_frame(g);
        memcpy(frame_host(g, mpn), g->swap + (size_t)ppn * PAGE_BYTES, PAGE_BYTES);
        pmap_move(g->pmap, ppn, PAGE_EV_IN_START, mpn, 0);
        pmap_move(g->pmap, ppn, PAGE_EV_IN_DONE, 0, 0);
        break;
    default:
        break;
    }
}

void test_guest_make_writable(struct test_guest *g, ppn_t ppn)
{
    test_guest_make_resident(g, ppn);
    if (pmap_state(g->pmap, ppn) == PAGE_PAGING_OUT)
        pmap_move(g->pmap, ppn, PAGE_EV_OUT_CANCEL, 0, 0);
    if (pmap_state(g->pmap, ppn) == PAGE_SHARED) {
        mpn_t copy = take_frame(g);
        memcpy(frame_host(g, copy), pmap_host(g->pmap, ppn), PAGE_BYTES);
        shadow_drop_ppn(g->pmap, ppn);
        uint64_t before = pmap_move(g->pmap, ppn, PAGE_EV_COW_BREAK, copy, 0);
        give_frame(g, pmap_word_mpn(before));
    }
}

void test_guest_take_away(struct test_guest *g, ppn_t ppn, enum page_event event)
{
    enum page_state state = pmap_state(g->pmap, ppn);
    if (event == PAGE_EV_OUT_DONE) {
        if (state == PAGE_PRIVATE) {
            shadow_protect_ppn(g->pmap, ppn);
            pmap_move(g->pmap, ppn, PAGE_EV_OUT_START, 0, ppn);
            state = PAGE_PAGING_OUT;
        }
        if (state != PAGE_PAGING_OUT)
            return;
        memcpy(g->swap + (size_t)ppn * PAGE_BYTES, pmap_host(g->pmap, ppn), PAGE_BYTES);
    } else if (state != PAGE_PRIVATE && state != PAGE_SHARED) {
        return;
    }
    shadow_drop_ppn(g->pmap, ppn);
    give_frame(g, pmap_word_mpn(pmap_move(g->pmap, ppn, event, 0, 0)));
}

void test_guest_share(struct test_guest *g, ppn_t ppn)
{
    mpn_t copy = take_frame(g);
    memcpy(frame_host(g, copy), pmap_host(g->pmap, ppn), PAGE_BYTES);
    shadow_drop_ppn(g->pmap, ppn);
    give_frame(g, pmap_word_mpn(pmap_move(g->pmap, ppn, PAGE_EV_SHARE, copy, 0)));
}

ppn_t test_guest_new_table(struct test_guest *g)
{
    REQUIRE(g->next_table < g->ram_pages, "the test needs more RAM for its tables");
    test_guest_make_writable(g, g->next_table);
    return g->next_table++;
}

uint64_t *test_guest_pte(struct test_guest *g, ppn_t root, uint64_t va, unsigned level)
{
    ppn_t table = root;
    for (unsigned l = g->levels - 1;; l--) {
        uint64_t *pte = (uint64_t *)(void *)pmap_host(g->pmap, table) + (va >> (12 + 9 * l) & 511);
        if (l == level)
            return pte;
        if (!(*pte & G_V))
            *pte = test_guest_leaf(test_guest_new_table(g), G_V);
        table = (ppn_t)((*pte >> 10) - (RAM_BASE_PA >> PAGE_SHIFT));
    }
}

uint64_t test_guest_leaf(ppn_t ppn, uint64_t flags)
{
    return ((RAM_BASE_PA >> PAGE_SHIFT) + ppn) << 10 | flags;
}

void test_guest_map(struct test_guest *g, uint64_t va, ppn_t ppn, unsigned level, uint64_t flags)
{
    *test_guest_pte(g, g->root, va, level) = test_guest_leaf(ppn, flags);
}

uint64_t test_guest_satp(const struct test_guest *g, ppn_t root, uint16_t asid)
{
    return (uint64_t)(g->levels == 3 ? 8 : 9) << 60 | (uint64_t)asid << 44 |
           ((RAM_BASE_PA >> PAGE_SHIFT) + root);
}

enum shadow_result test_guest_access(struct test_guest *g, struct shadow *shadow, uint64_t va,
                                     enum shadow_access access, bool sum, bool mxr,
                                     struct shadow_reply *reply)
{
    for (int tries = 0;; tries++) {
        REQUIRE(tries < 20, "va %#llx: no answer brings the access nearer", (unsigned long long)va);
        enum shadow_result result = shadow_resolve(shadow, va, access, sum, mxr, reply);
        if (result == SHADOW_NEED_RESIDENT)
            test_guest_make_resident(g, reply->ppn);
        else if (result == SHADOW_NEED_WRITABLE)
            test_guest_make_writable(g, reply->ppn);
        else if (result == SHADOW_CODE_PAGE)
            shadow_code_dropped(g->pmap, reply->ppn);
        else
            return result;
    }
}

void test_guest_check(struct test_guest *g)
{
    char text[256];
    if (shadow_check(g->pmap, text, sizeof text))
        REQUIRE(false, "%s", text);
}

void test_guest_check_fenced(struct test_guest *g)
{
    char text[256];
    if (shadow_check_fenced(g->pmap, text, sizeof text))
        REQUIRE(false, "%s", text);
}
