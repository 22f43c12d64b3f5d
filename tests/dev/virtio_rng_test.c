/* The entropy device (virtio 1.2, 5.4). */
#include "tests/dev/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void buffers_are_filled_with_random_bytes(void **state)
{
    static struct rig rig;
    (void)state;
    rig_open(&rig, 16);
    rig_attach(&rig, virtio_rng_new(&rig.env, NULL));
    assert_true(rig_start(&rig, 0, 1));
    uint64_t a_pa = rig_alloc(&rig, 32, 1), b_pa = rig_alloc(&rig, 32, 1);
    rig_offer(&rig, 0, {a_pa, 32, VIRTQ_DESC_WRITE});
    rig_offer(&rig, 0, {b_pa, 32, VIRTQ_DESC_WRITE});
    uint32_t len;
    assert_true(rig_used(&rig, 0, NULL, &len));
    assert_int_equal(len, 32);
    assert_true(rig_used(&rig, 0, NULL, &len));
    assert_memory_not_equal(rig_host(&rig, a_pa), rig_host(&rig, b_pa), 32);
    rig_close(&rig);
}

static void a_huge_buffer_is_filled_in_part(void **state)
{
    static struct rig rig;
    (void)state;
    rig_open(&rig, 64);
    rig_attach(&rig, virtio_rng_new(&rig.env, NULL));
    rig_start(&rig, 0, 1);
    rig_offer(&rig, 0, {rig_alloc(&rig, 100000, 1), 100000, VIRTQ_DESC_WRITE});
    uint32_t len;
    assert_true(rig_used(&rig, 0, NULL, &len));
    assert_in_range(len, 1, 4096);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_are_filled_with_random_bytes),
        cmocka_unit_test(a_huge_buffer_is_filled_in_part),
    };
    return cmocka_run_group_tests_name("virtio entropy", tests, NULL, NULL);
}
