/*
 * The cache of decoded blocks, seen from outside: more code than it holds, code
 * dropped by the machine, attention, budgets.
 */
#include "tests/hart/flat_guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ECALL     UINT32_C(0x00000073)
#define C_ADDI_T0 UINT16_C(0x0285) /* c.addi t0, 1 */
#define J_SELF    UINT32_C(0x0000006f)
#define JR_T0     UINT32_C(0x00028067)
#define T0        5
#define A0        10
#define LI_A0(n)  (UINT32_C(0x00000513) | (uint32_t)(n) << 20)

static void start(struct flat_guest *guest, uint64_t pc)
{
    struct hart_state state = {.pc = pc, .priv = SHADOW_S, .stimecmp = UINT64_MAX};
    hart_set_state(guest->hart, &state);
}

static void put(struct flat_guest *guest, uint64_t pa, uint32_t word)
{
    memcpy(flat_guest_at(guest, pa), &word, sizeof word);
}

static void more_code_than_the_cache_holds_runs_right(void **state)
{
    (void)state;
    /* given 8 MiB of one instruction after the other */
    const uint32_t pages = 2048, count = (pages * PAGE_BYTES - 4) / 2;
    struct flat_guest *guest = flat_guest_new(pages, false);
    struct hart_counts counts;
    uint16_t *code = flat_guest_at(guest, RAM_BASE_PA);
    for (uint32_t i = 0; i < count; i++)
        code[i] = C_ADDI_T0;
    put(guest, RAM_BASE_PA + (uint64_t)count * 2, ECALL);
    for (unsigned round = 1; round <= 2; round++) {
        /* when it all runs */
        start(guest, RAM_BASE_PA);
        assert_int_equal(hart_run(guest->hart, UINT64_MAX), HART_EXIT_SBI);
        /* then every instruction has run once, though the cache was emptied on the way */
        assert_int_equal(hart_get_x(guest->hart, T0), count);
        hart_read_counts(guest->hart, &counts);
        assert_int_equal(counts.instructions, (uint64_t)round * (count + 1));
    }
    assert_true(counts.block_cache_flushes > 1);
    flat_guest_free(guest);
}

static void code_the_machine_drops_is_decoded_anew(void **state)
{
    (void)state;
    struct flat_guest *guest = flat_guest_new(16, false);
    put(guest, RAM_BASE_PA, LI_A0(1));
    put(guest, RAM_BASE_PA + 4, ECALL);
    start(guest, RAM_BASE_PA);
    assert_int_equal(hart_run(guest->hart, 1000), HART_EXIT_SBI);
    assert_int_equal(hart_get_x(guest->hart, A0), 1);
    assert_true(shadow_is_code(guest->pmap, 0));

    put(guest, RAM_BASE_PA, LI_A0(2)); /* as a device would write it */
    hart_drop_code(guest->hart, 0);
    assert_false(shadow_is_code(guest->pmap, 0));

    start(guest, RAM_BASE_PA);
    assert_int_equal(hart_run(guest->hart, 1000), HART_EXIT_SBI);
    assert_int_equal(hart_get_x(guest->hart, A0), 2);
    flat_guest_free(guest);
}

/* Blocks are found by pc and an epoch in one word, which only canonical pcs leave unambiguous. */
static void a_pc_that_is_not_canonical_never_finds_a_block(void **state)
{
    (void)state;
    const uint64_t target = RAM_BASE_PA + PAGE_BYTES, jump = RAM_BASE_PA + 2 * PAGE_BYTES;
    struct flat_guest *guest = flat_guest_new(16, false);
    struct hart_state now;
    put(guest, RAM_BASE_PA, ECALL); /* the trap handler */
    put(guest, target, LI_A0(1));
    put(guest, target + 4, ECALL);
    put(guest, jump, JR_T0);
    for (unsigned fences = 0; fences < 8; fences++) {
        for (uint64_t bits = 1; bits <= 0x1ff; bits++) {
            for (int by_jump = 0; by_jump < 2; by_jump++) {
                /* given a block found in another epoch */
                start(guest, target);
                assert_int_equal(hart_run(guest->hart, 1000), HART_EXIT_SBI);
                hart_fence(guest->hart, false, 0, 0, false, 0);
                /* when a pc is that block's but for its upper bits */
                uint64_t wild = target ^ bits << 48;
                struct hart_state next = {.pc = by_jump ? jump : wild,
                                          .priv = SHADOW_S,
                                          .stvec = RAM_BASE_PA,
                                          .stimecmp = UINT64_MAX};
                next.x[T0] = wild;
                hart_set_state(guest->hart, &next);
                assert_int_equal(hart_run(guest->hart, 1000), HART_EXIT_SBI);
                /* then nothing is fetched there */
                hart_get_state(guest->hart, &now);
                assert_int_equal(now.x[A0], 0);
                assert_int_equal(now.scause, CAUSE_FETCH_ACCESS);
                assert_int_equal(now.sepc, wild);
            }
        }
    }
    flat_guest_free(guest);
}

static void attention_is_served_in_an_endless_loop(void **state)
{
    (void)state;
    struct flat_guest *guest = flat_guest_new(16, false);
    put(guest, RAM_BASE_PA, J_SELF);
    start(guest, RAM_BASE_PA);
    assert_int_equal(hart_run(guest->hart, 100000), HART_EXIT_BUDGET);
    atomic_fetch_or(hart_attention(guest->hart), ATTENTION_STOP | ATTENTION_EXIT);
    assert_int_equal(hart_run(guest->hart, UINT64_MAX), HART_EXIT_ATTENTION);
    assert_int_equal(guest->safe_points, 1);
    assert_int_equal(atomic_load(hart_attention(guest->hart)), 0);
    flat_guest_free(guest);
}

static void a_budget_of_one_is_exact(void **state)
{
    (void)state;
    struct flat_guest *guest = flat_guest_new(16, false);
    struct hart_state now;
    struct hart_counts counts;
    for (unsigned i = 0; i < 8; i++)
        put(guest, RAM_BASE_PA + 4 * i, C_ADDI_T0 | (uint32_t)C_ADDI_T0 << 16);
    start(guest, RAM_BASE_PA);
    for (unsigned i = 1; i <= 16; i++) {
        assert_int_equal(hart_run(guest->hart, 1), HART_EXIT_BUDGET);
        hart_get_state(guest->hart, &now);
        hart_read_counts(guest->hart, &counts);
        assert_int_equal(now.pc, RAM_BASE_PA + 2 * i);
        assert_int_equal(now.x[T0], i);
        assert_int_equal(counts.instructions, i);
    }
    flat_guest_free(guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_code_than_the_cache_holds_runs_right),
        cmocka_unit_test(code_the_machine_drops_is_decoded_anew),
        cmocka_unit_test(a_pc_that_is_not_canonical_never_finds_a_block),
        cmocka_unit_test(attention_is_served_in_an_endless_loop),
        cmocka_unit_test(a_budget_of_one_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
