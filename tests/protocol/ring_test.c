/*
 * Rings and the shared region: order, full and empty, counters and messages
 * that a hostile peer wrote, the layout of the region.
 */
#include "vmm-core/vm_region.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct ring *ring;

static int make_ring(void **state)
{
    (void)state;
    ring = aligned_alloc(64, sizeof(*ring));
    memset(ring, 0, sizeof(*ring));
    return 0;
}

static int free_ring(void **state)
{
    (void)state;
    free(ring);
    return 0;
}

static void messages_come_out_in_order(void **state)
{
    struct ring_message message = {.type = RING_TARGET}, got;
    (void)state;

    for (uint64_t round = 0; round < 5 * RING_SLOTS; round++) {
        message.value = round;
        message.pc = ~round;
        assert_int_equal(ring_put(ring, &message), RING_OK);
        message.value = round + 1000000;
        assert_int_equal(ring_put(ring, &message), RING_OK);
        assert_int_equal(ring_take(ring, &got), RING_OK);
        assert_int_equal(got.value, round);
        assert_int_equal(got.pc, ~round);
        assert_int_equal(ring_take(ring, &got), RING_OK);
        assert_int_equal(got.value, round + 1000000);
        assert_int_equal(ring_take(ring, &got), RING_EMPTY);
    }
}

static void a_full_ring_says_so_and_keeps_what_it_has(void **state)
{
    struct ring_message message = {.type = RING_TARGET}, got;
    (void)state;

    for (message.value = 0; message.value < RING_SLOTS; message.value++) {
        assert_int_equal(ring_room(ring), RING_SLOTS - message.value);
        assert_int_equal(ring_put(ring, &message), RING_OK);
    }
    assert_int_equal(ring_room(ring), 0);
    assert_int_equal(ring_put(ring, &message), RING_FULL);
    for (uint64_t value = 0; value < RING_SLOTS; value++) {
        assert_int_equal(ring_take(ring, &got), RING_OK);
        assert_int_equal(got.value, value);
    }
    assert_int_equal(ring_take(ring, &got), RING_EMPTY);
}

static void counters_survive_wrap_around(void **state)
{
    struct ring_message message = {.type = RING_TARGET, .value = 5}, got;
    (void)state;

    atomic_store(&ring->head, UINT64_MAX - 1);
    atomic_store(&ring->tail, UINT64_MAX - 1);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(ring_put(ring, &message), RING_OK);
        assert_int_equal(ring_room(ring), RING_SLOTS - 1);
        assert_int_equal(ring_take(ring, &got), RING_OK);
        assert_int_equal(got.value, 5);
    }
}

/* Distances no honest peer can make are refused by both ends, without effect. */
static void impossible_counters_are_refused(void **state)
{
    static const struct {
        uint64_t head, tail;
    } cases[] = {{0, RING_SLOTS + 1}, {1, 0},
                 {0, UINT64_MAX},     {UINT64_MAX, RING_SLOTS},
                 {UINT64_MAX / 2, 0}, {0, UINT64_C(1) << 32}};
    struct ring_message message = {.type = RING_TARGET}, got;
    (void)state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        atomic_store(&ring->head, cases[i].head);
        atomic_store(&ring->tail, cases[i].tail);
        assert_int_equal(ring_put(ring, &message), RING_CORRUPT);
        assert_int_equal(ring_take(ring, &got), RING_CORRUPT);
        assert_int_equal(ring_room(ring), 0);
        assert_int_equal(atomic_load(&ring->head), cases[i].head);
        assert_int_equal(atomic_load(&ring->tail), cases[i].tail);
    }
}

static void a_message_is_valid_only_in_its_form_and_direction(void **state)
{
    static const struct {
        struct ring_message message;
        bool to_worker, valid;
    } cases[] = {
        {{.type = RING_GRANT, .count = 1}, true, true},
        {{.type = RING_GRANT, .count = RING_BATCH}, true, true},
        {{.type = RING_GRANT, .count = 0}, true, false},
        {{.type = RING_GRANT, .count = RING_BATCH + 1}, true, false},
        {{.type = RING_GRANT, .count = 255}, true, false},
        {{.type = RING_GRANT, .count = 1, .order = 1}, true, false},
        {{.type = RING_GRANT, .count = 1}, false, false},
        {{.type = RING_RETURN, .value = UINT64_MAX}, true, true},
        {{.type = RING_TARGET}, true, true},
        {{.type = RING_PAGE_OUT, .value = UINT64_MAX}, true, true},
        {{.type = RING_PAGE_OUT, .count = 1}, true, false},
        {{.type = RING_PAUSE}, true, true},
        {{.type = RING_RESUME}, true, true},
        {{.type = RING_CHECK}, true, true},
        {{.type = RING_QUIT}, true, true},
        {{.type = RING_QUIT}, false, false},
        {{.type = RING_NONE}, true, false},
        {{.type = RING_NONE}, false, false},
        {{.type = RING_QUIT + 1}, true, false},
        {{.type = RING_RELEASED, .count = 1}, false, true},
        {{.type = RING_RELEASED, .count = RING_PAIRS}, false, true},
        {{.type = RING_RELEASED, .count = RING_PAIRS + 1}, false, false},
        {{.type = RING_RELEASED, .count = 0}, false, false},
        {{.type = RING_RELEASED, .count = 1, .value = RELEASE_WHYS}, false, false},
        {{.type = RING_RELEASED, .count = 1}, true, false},
        {{.type = RING_DONE, .value = UINT64_MAX}, false, true},
        {{.type = RING_DONE}, true, false},
        {{.type = RING_WANT, .flags = RING_BLOCKED}, false, true},
        {{.type = RING_EVENT, .value = WORKER_READY}, false, true},
        {{.type = RING_EVENT, .value = WORKER_EVENTS}, false, false},
        {{.type = RING_EVENT + 1}, false, false},
        {{.type = UINT16_MAX}, true, false},
        {{.type = UINT16_MAX}, false, false},
    };
    (void)state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (ring_message_valid(&cases[i].message, cases[i].to_worker) != cases[i].valid)
            fail_msg("case %u", i);
}

static void every_number_has_a_name(void **state)
{
    (void)state;

    for (unsigned why = 0; why < RELEASE_WHYS; why++)
        assert_string_not_equal(release_why_name(why), "unknown");
    for (unsigned event = 1; event < WORKER_EVENTS; event++)
        assert_string_not_equal(worker_event_name(event), "unknown");
    assert_string_equal(release_why_name(RELEASE_WHYS), "unknown");
    assert_string_equal(worker_event_name(0), "unknown");
    assert_string_equal(worker_event_name(UINT32_MAX), "unknown");
}

static void the_region_s_parts_lie_apart(void **state)
{
    static const uint32_t ram_pages[] = {1, 511, 512, 513, 65536};
    (void)state;

    for (unsigned i = 0; i < sizeof(ram_pages) / sizeof(ram_pages[0]); i++) {
        uint64_t bytes = vm_region_bytes(ram_pages[i]);
        struct vm_region *region = aligned_alloc(PAGE_BYTES, bytes);
        char *start = (char *)region, *in, *out, *pmap;

        memset(region, 0, bytes);
        vm_region_init(region, ram_pages[i], 1000);
        in = (char *)vm_region_to_worker(region);
        out = (char *)vm_region_to_supervisor(region);
        pmap = (char *)vm_region_pmap(region);
        assert_true(in >= start + sizeof(*region));
        assert_true(out >= in + sizeof(struct ring));
        assert_true(pmap >= out + sizeof(struct ring));
        assert_true(pmap + (uint64_t)ram_pages[i] * 8 <= start + bytes);
        assert_int_equal((in - start) % PAGE_BYTES, 0);
        assert_int_equal((out - start) % PAGE_BYTES, 0);
        assert_int_equal((pmap - start) % PAGE_BYTES, 0);
        assert_int_equal(region->region_bytes, bytes);
        assert_int_equal(region->to_worker_offset, in - start);
        assert_int_equal(region->to_supervisor_offset, out - start);
        assert_int_equal(region->pmap_offset, pmap - start);
        free(region);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(messages_come_out_in_order, make_ring, free_ring),
        cmocka_unit_test_setup_teardown(a_full_ring_says_so_and_keeps_what_it_has, make_ring,
                                        free_ring),
        cmocka_unit_test_setup_teardown(counters_survive_wrap_around, make_ring, free_ring),
        cmocka_unit_test_setup_teardown(impossible_counters_are_refused, make_ring, free_ring),
        cmocka_unit_test(a_message_is_valid_only_in_its_form_and_direction),
        cmocka_unit_test(every_number_has_a_name),
        cmocka_unit_test(the_region_s_parts_lie_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
