/*
 * The slow path of an access over two pages, on a machine short of frames: to
 * make one page resident may cost the other one its frame, and may wait long
 * enough for anything else to happen.
 */
#include "vmm-core/hart.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGES    4u
#define FRAMES   8u
#define ECALL    UINT32_C(0x00000073)
#define SD_A1_A0 UINT32_C(0x00b53023) /* sd a1, 0(a0) */
#define LD_A1_A0 UINT32_C(0x00053583) /* ld a1, 0(a0) */
#define A0       10
#define A1       11
#define FIRST    2u /* the two pages of the access */
#define SECOND   3u

/* What make_usable does each time it is asked. */
struct turn {
    ppn_t ppn;   /* the page that must be asked for */
    ppn_t loser; /* loses its frame first, or NO_PPN */
    mpn_t mpn;
};

struct scarce {
    struct pmap *pmap;
    _Atomic uint64_t words[PAGES];
    struct pmap_counts counts;
    uint8_t *machine;
    struct hart *hart;
    uint8_t swap[PAGES][PAGE_BYTES];
    const struct turn *turns;
    unsigned turn;
};

static void page_out(struct scarce *scarce, ppn_t ppn)
{
    memcpy(scarce->swap[ppn], pmap_host(scarce->pmap, ppn), PAGE_BYTES);
    shadow_drop_ppn(scarce->pmap, ppn);
    pmap_move(scarce->pmap, ppn, PAGE_EV_OUT_START, NO_MPN, ppn);
    pmap_move(scarce->pmap, ppn, PAGE_EV_OUT_DONE, NO_MPN, 0);
}

static void page_in(struct scarce *scarce, ppn_t ppn, mpn_t mpn)
{
    if (pmap_state(scarce->pmap, ppn) == PAGE_ABSENT) {
        pmap_move(scarce->pmap, ppn, PAGE_EV_FILL, mpn, 0);
        return;
    }
    pmap_move(scarce->pmap, ppn, PAGE_EV_IN_START, mpn, 0);
    pmap_move(scarce->pmap, ppn, PAGE_EV_IN_DONE, mpn, 0);
    memcpy(pmap_host(scarce->pmap, ppn), scarce->swap[ppn], PAGE_BYTES);
}

static bool make_usable(void *ctx, ppn_t ppn, bool writable)
{
    struct scarce *scarce = ctx;
    const struct turn *turn = &scarce->turns[scarce->turn++];
    (void)writable;
    assert_int_equal(ppn, turn->ppn);
    if (turn->loser != NO_PPN) {
        mpn_t lost = pmap_word_mpn(pmap_word(scarce->pmap, turn->loser));
        page_out(scarce, turn->loser);
        /* The frame is another VM's from now on. */
        memset(scarce->machine + (uint64_t)lost * PAGE_BYTES, 0xee, PAGE_BYTES);
    }
    page_in(scarce, ppn, turn->mpn);
    return true;
}

static struct scarce *scarce_new(const struct turn *turns, uint32_t instruction)
{
    struct scarce *scarce = calloc(1, sizeof *scarce);
    assert_non_null(scarce);
    scarce->machine = aligned_alloc(PAGE_BYTES, FRAMES * PAGE_BYTES);
    assert_non_null(scarce->machine);
    memset(scarce->machine, 0, FRAMES * PAGE_BYTES);
    scarce->pmap = pmap_new(scarce->words, &scarce->counts, PAGES, scarce->machine, FRAMES);
    scarce->turns = turns;
    struct hart_env env = {.ctx = scarce, .make_usable = make_usable};
    scarce->hart = hart_new(scarce->pmap, &env, 0);
    assert_non_null(scarce->hart);
    pmap_move(scarce->pmap, 0, PAGE_EV_FILL, 0, 0);
    const uint32_t code[] = {instruction, ECALL};
    memcpy(scarce->machine, code, sizeof code);
    return scarce;
}

static void scarce_free(struct scarce *scarce)
{
    hart_free(scarce->hart);
    pmap_free(scarce->pmap);
    free(scarce->machine);
    free(scarce);
}

/* Run the access of 8 bytes, 4 on each page. Returns a1. */
static uint64_t run(struct scarce *scarce, uint64_t value)
{
    struct hart_state state = {.pc = RAM_BASE_PA, .priv = SHADOW_S, .stimecmp = UINT64_MAX};
    state.x[A0] = RAM_BASE_PA + SECOND * PAGE_BYTES - 4;
    state.x[A1] = value;
    hart_set_state(scarce->hart, &state);
    assert_int_equal(hart_run(scarce->hart, 1000), HART_EXIT_SBI);
    return hart_get_x(scarce->hart, A1);
}

/* The first page goes while the second comes, and the second while the first comes back, into the
 * frame it had before. */
static const struct turn both_taken_in_turn[] = {
    {FIRST, NO_PPN, 4},
    {SECOND, FIRST, 5},
    {FIRST, SECOND, 4},
    {SECOND, NO_PPN, 6},
};

static void a_store_over_two_pages_never_reaches_a_frame_given_away(void **state)
{
    (void)state;
    struct scarce *scarce = scarce_new(both_taken_in_turn, SD_A1_A0);
    run(scarce, UINT64_C(0x1122334455667788));
    uint32_t low, high, foreign;
    memcpy(&foreign, scarce->machine + 5 * PAGE_BYTES, sizeof foreign);
    assert_int_equal(foreign, 0xeeeeeeee);
    assert_int_equal(scarce->turn, 4);
    memcpy(&low, pmap_host(scarce->pmap, FIRST) + PAGE_BYTES - 4, sizeof low);
    memcpy(&high, pmap_host(scarce->pmap, SECOND), sizeof high);
    assert_int_equal(low, 0x55667788);
    assert_int_equal(high, 0x11223344);
    scarce_free(scarce);
}

static void a_load_over_two_pages_never_reads_a_frame_given_away(void **state)
{
    (void)state;
    struct scarce *scarce = scarce_new(both_taken_in_turn, LD_A1_A0);
    assert_int_equal(run(scarce, 1), 0);
    assert_int_equal(scarce->turn, 4);
    scarce_free(scarce);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_over_two_pages_never_reaches_a_frame_given_away),
        cmocka_unit_test(a_load_over_two_pages_never_reads_a_frame_given_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
