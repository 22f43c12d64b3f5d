/* Frame table and allocator: who holds what, runs, double releases, the count of invariant 1. */
#include "daemon/machine_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGES 2050u /* four whole chunks and a little */

static struct machine_memory *new_memory(uint32_t pages)
{
    struct err err;
    struct machine_memory *memory = machine_memory_new(pages, &err);
    if (!memory)
        fail_msg("%s", err.text);
    return memory;
}

static void counts_are(const struct machine_memory *memory, uint32_t free_pages,
                       uint32_t private_pages)
{
    struct machine_counts kept = machine_memory_counts(memory), counted;
    assert_true(machine_memory_recount(memory, &counted));
    assert_memory_equal(&kept, &counted, sizeof kept);
    assert_int_equal(kept.free_pages, free_pages);
    assert_int_equal(kept.private_pages, private_pages);
    assert_int_equal(kept.shared_pages, 0);
}

static void a_new_machine_is_all_free_and_sealed(void **state)
{
    (void)state;
    struct machine_memory *memory = new_memory(PAGES);
    counts_are(memory, PAGES, 0);
    assert_int_not_equal(ftruncate(machine_memory_fd(memory), 0), 0);
    assert_int_not_equal(ftruncate(machine_memory_fd(memory), (PAGES + 2) * 4096), 0);
    machine_memory_free(memory);
}

static void frames_come_in_ascending_runs(void **state)
{
    (void)state;
    struct machine_memory *memory = new_memory(PAGES);
    mpn_t first, near = NO_MPN;
    for (int i = 0; i < 40; i++) {
        assert_int_equal(machine_memory_take(memory, 1, near, 12, &first), 12);
        if (near != NO_MPN)
            assert_int_equal(first, near);
        near = first + 12;
    }
    counts_are(memory, PAGES - 480, 480);
    machine_memory_free(memory);
}

static void vms_that_grow_at_once_keep_apart(void **state)
{
    (void)state;
    struct machine_memory *memory = new_memory(PAGES);
    mpn_t near[3] = {NO_MPN, NO_MPN, NO_MPN}, first;
    unsigned breaks = 0;
    for (int i = 0; i < 120; i++) {
        uint16_t vm = (uint16_t)(i % 3);
        uint32_t run = machine_memory_take(memory, vm + 1, near[vm], 12, &first);
        assert_true(run > 0);
        breaks += near[vm] != NO_MPN && first != near[vm];
        near[vm] = first + run;
    }
    assert_true(breaks <= 6);
    machine_memory_free(memory);
}

static void every_frame_can_be_had_and_no_more(void **state)
{
    (void)state;
    struct machine_memory *memory = new_memory(PAGES);
    mpn_t first, near = 700;
    uint32_t taken = 0, run;
    while ((run = machine_memory_take(memory, 7, near, 12, &first))) {
        for (uint32_t i = 0; i < run; i++)
            assert_true(machine_memory_is_private(memory, 7, first + i));
        near = first + run;
        taken += run;
    }
    assert_int_equal(taken, PAGES);
    counts_are(memory, 0, PAGES);
    assert_int_equal(machine_memory_give_back_all(memory, 7), PAGES);
    counts_are(memory, PAGES, 0);
    machine_memory_free(memory);
}

static void only_the_owner_gives_back_and_only_once(void **state)
{
    (void)state;
    struct machine_memory *memory = new_memory(PAGES);
    mpn_t first;
    machine_memory_take(memory, 1, NO_MPN, 4, &first);
    static const mpn_t nonsense[] = {PAGES, PAGES + 1, NO_MPN, 1u << 31};
    for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++)
        assert_false(machine_memory_give_back(memory, 1, nonsense[i]));
    assert_false(machine_memory_give_back(memory, 2, first));
    assert_false(machine_memory_give_back(memory, OWNER_NONE, first + 100));
    assert_false(machine_memory_give_back(memory, OWNER_SHARED, first));
    assert_true(machine_memory_give_back(memory, 1, first));
    assert_false(machine_memory_give_back(memory, 1, first));
    counts_are(memory, PAGES - 3, 3);
    machine_memory_free(memory);
}

static void counts_stay_true_under_random_use(void **state)
{
    (void)state;
    struct machine_memory *memory = new_memory(PAGES);
    uint16_t owner[PAGES] = {0};
    mpn_t near[5] = {NO_MPN, NO_MPN, NO_MPN, NO_MPN, NO_MPN};
    uint32_t free_pages = PAGES;
    srandom(1);
    for (int step = 0; step < 20000; step++) {
        uint16_t vm = (uint16_t)(1 + random() % 4);
        mpn_t mpn = (mpn_t)(random() % (PAGES + 10)), first;
        if (random() % 3 == 0) {
            uint32_t run =
                machine_memory_take(memory, vm, near[vm], (uint32_t)(random() % 16), &first);
            for (uint32_t i = 0; i < run; i++) {
                assert_int_equal(owner[first + i], 0);
                owner[first + i] = vm;
            }
            free_pages -= run;
            near[vm] = run ? first + run : NO_MPN;
        } else if (random() % 2000 == 0) {
            free_pages += machine_memory_give_back_all(memory, vm);
            for (mpn_t i = 0; i < PAGES; i++)
                owner[i] = owner[i] == vm ? 0 : owner[i];
        } else {
            bool held = mpn < PAGES && owner[mpn] == vm;
            assert_int_equal(machine_memory_give_back(memory, vm, mpn), held);
            if (held) {
                owner[mpn] = 0;
                free_pages++;
            }
        }
        assert_int_equal(machine_memory_counts(memory).free_pages, free_pages);
    }
    counts_are(memory, free_pages, PAGES - free_pages);
    machine_memory_free(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_machine_is_all_free_and_sealed),
        cmocka_unit_test(frames_come_in_ascending_runs),
        cmocka_unit_test(vms_that_grow_at_once_keep_apart),
        cmocka_unit_test(every_frame_can_be_had_and_no_more),
        cmocka_unit_test(only_the_owner_gives_back_and_only_once),
        cmocka_unit_test(counts_stay_true_under_random_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
