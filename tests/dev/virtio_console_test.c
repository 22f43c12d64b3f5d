/* The console device (virtio 1.2, 5.3) over pipes. */
#include "tests/dev/virtio_rig.h"
#include "vmm-core/dev/console.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define INPUT  CONSOLE_QUEUE_INPUT
#define OUTPUT CONSOLE_QUEUE_OUTPUT
#define WRITE  VIRTQ_DESC_WRITE

static int to_guest[2], from_guest[2]; /* pipes: [0] is read, [1] written */

static int set_up(void **state)
{
    static struct rig rig;
    if (pipe2(to_guest, O_CLOEXEC) < 0 || pipe2(from_guest, O_CLOEXEC | O_NONBLOCK) < 0)
        return -1;
    rig_open(&rig, 256);
    rig_attach(&rig, virtio_console_new(&rig.env, to_guest[0], from_guest[1], -1, NULL));
    *state = &rig;
    return rig_start(&rig, 0, 2) ? 0 : -1;
}

static int tear_down(void **state)
{
    rig_close(*state);
    for (int i = 0; i < 2; i++) {
        close(to_guest[i]);
        close(from_guest[i]);
    }
    return 0;
}

static void output_reaches_the_descriptor(void **state)
{
    struct rig *rig = *state;
    char text[32] = "";
    uint64_t pa = rig_alloc(rig, 16, 1);
    memcpy(rig_host(rig, pa), "hello, world", 12);
    rig_offer(rig, OUTPUT, {pa, 5, 0}, {pa + 5, 7, 0});
    assert_true(rig_used(rig, OUTPUT, NULL, NULL));
    rig_poll(rig, 0);
    assert_int_equal(read(from_guest[0], text, sizeof text), 12);
    assert_string_equal(text, "hello, world");
}

static void input_waits_for_a_buffer(void **state)
{
    struct rig *rig = *state;
    uint32_t len;
    assert_int_equal(write(to_guest[1], "abc", 3), 3);
    rig_poll(rig, 100);
    uint64_t pa = rig_alloc(rig, 16, 1);
    rig_offer(rig, INPUT, {pa, 2, WRITE});
    rig_offer(rig, INPUT, {pa + 2, 8, WRITE});
    assert_true(rig_used(rig, INPUT, NULL, &len));
    assert_int_equal(len, 2);
    assert_true(rig_used(rig, INPUT, NULL, &len));
    assert_int_equal(len, 1);
    assert_memory_equal(rig_host(rig, pa), "abc", 3);
}

static void a_buffer_waits_for_input(void **state)
{
    struct rig *rig = *state;
    uint32_t len;
    uint64_t pa = rig_alloc(rig, 16, 1);
    rig_offer(rig, INPUT, {pa, 16, WRITE});
    assert_false(rig_used(rig, INPUT, NULL, NULL));
    assert_int_equal(write(to_guest[1], "xyz", 3), 3);
    rig_poll(rig, 100);
    assert_true(rig_used(rig, INPUT, NULL, &len));
    assert_int_equal(len, 3);
    assert_memory_equal(rig_host(rig, pa), "xyz", 3);
}

/* More output than console and pipe hold: the chain stays with the device until there is room, and
 * no byte is lost. */
static void output_without_room_is_held_back(void **state)
{
    struct rig *rig = *state;
    const uint32_t bytes = 64 * PAGE_BYTES;
    static uint8_t got[64 * PAGE_BYTES];
    uint64_t pa = rig_alloc(rig, bytes, PAGE_BYTES);
    for (uint32_t i = 0; i < bytes; i += 2)
        *(uint16_t *)rig_host(rig, pa + i) = (uint16_t)(i / 2);
    rig_offer(rig, OUTPUT, {pa, bytes, 0});
    assert_false(rig_used(rig, OUTPUT, NULL, NULL));
    size_t total = 0;
    for (int round = 0; round < 10000 && total < bytes; round++) {
        ssize_t part = read(from_guest[0], got + total, sizeof got - total);
        if (part > 0)
            total += (size_t)part;
        rig_poll(rig, 0);
    }
    assert_int_equal(total, bytes);
    assert_true(rig_used(rig, OUTPUT, NULL, NULL));
    for (uint32_t i = 0; i < bytes; i += 2)
        assert_int_equal(*(uint16_t *)(got + i), (uint16_t)(i / 2));
}

/* Nobody reads: the driver gets its buffers back all the same, and once there is room again what it
 * writes arrives. */
static void output_that_nobody_takes_is_dropped_in_the_end(void **state)
{
    struct rig *rig = *state;
    const uint32_t bytes = 64 * PAGE_BYTES;
    static uint8_t got[64 * PAGE_BYTES];
    uint64_t pa = rig_alloc(rig, bytes, PAGE_BYTES);
    rig_offer(rig, OUTPUT, {pa, bytes, 0});
    rig_poll(rig, 0); /* until the pipe is full */
    assert_false(rig_used(rig, OUTPUT, NULL, NULL));
    rig_poll(rig, 1500);
    assert_true(rig_used(rig, OUTPUT, NULL, NULL));
    rig_offer(rig, OUTPUT, {pa, bytes, 0}); /* and no second wait */
    assert_true(rig_used(rig, OUTPUT, NULL, NULL));
    while (read(from_guest[0], got, sizeof got) > 0)
        rig_poll(rig, 0);
    rig_fill(rig, pa, 'x', 3);
    rig_offer(rig, OUTPUT, {pa, 3, 0});
    assert_true(rig_used(rig, OUTPUT, NULL, NULL));
    rig_poll(rig, 0);
    assert_int_equal(read(from_guest[0], got, sizeof got), 3);
    assert_memory_equal(got, "xxx", 3);
}

static void reset_forgets_output_held_back(void **state)
{
    struct rig *rig = *state;
    const uint32_t bytes = 64 * PAGE_BYTES;
    rig_offer(rig, OUTPUT, {rig_alloc(rig, bytes, PAGE_BYTES), bytes, 0});
    assert_false(rig_used(rig, OUTPUT, NULL, NULL));
    rig_start(rig, 0, 2);
    rig_poll(rig, 0);
    assert_false(rig_used(rig, OUTPUT, NULL, NULL));
    assert_false(rig_needs_reset(rig));
}

static void buffers_of_the_wrong_direction_need_a_reset(void **state)
{
    struct rig *rig = *state;
    uint64_t pa = rig_alloc(rig, 16, 1);
    rig_offer(rig, OUTPUT, {pa, 16, WRITE});
    assert_true(rig_needs_reset(rig));
    rig_start(rig, 0, 2);
    assert_int_equal(write(to_guest[1], "abc", 3), 3);
    rig_poll(rig, 100);
    rig_offer(rig, INPUT, {pa, 16, 0});
    assert_true(rig_needs_reset(rig));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(output_reaches_the_descriptor),
        CASE(input_waits_for_a_buffer),
        CASE(a_buffer_waits_for_input),
        CASE(output_without_room_is_held_back),
        CASE(output_that_nobody_takes_is_dropped_in_the_end),
        CASE(reset_forgets_output_held_back),
        CASE(buffers_of_the_wrong_direction_need_a_reset),
    };
    return cmocka_run_group_tests_name("virtio console", tests, NULL, NULL);
}
