/* The small parts a machine stands on: bus, clock, pause gate, device thread. */
#include "vmm-core/clock.h"
#include "vmm-core/machine/device_thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- Bus ---- */

static bool load_ones(void *device, uint64_t offset, unsigned size, uint64_t *value)
{
    (void)device;
    (void)size;
    *value = UINT64_MAX;
    return offset != 8; /* a register that cannot be read */
}

static bool store_noted(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    (void)size;
    *(uint64_t *)device = value;
    return true;
}

static void a_bus_finds_devices_and_refuses_what_none_takes(void **state)
{
    (void)state;
    struct bus bus = {0};
    uint64_t stored = 0, value = 0;
    struct bus_range range = {.name = "a",
                              .base_pa = 0x1000,
                              .bytes = 0x10,
                              .device = &stored,
                              .load = load_ones,
                              .store = store_noted};
    assert_int_equal(bus_add(&bus, &range, NULL), 0);
    assert_true(bus_load(&bus, 0x1000, 1, &value));
    assert_int_equal(value, 0xff); /* no more than was asked for */
    assert_true(bus_load(&bus, 0x100c, 4, &value));
    assert_int_equal(value, 0xffffffff);
    assert_true(bus_store(&bus, 0x1000, 2, 0x123456789));
    assert_int_equal(stored, 0x6789);
    assert_false(bus_load(&bus, 0xfff, 1, &value));
    assert_false(bus_load(&bus, 0x1010, 1, &value));
    assert_false(bus_load(&bus, 0x100c, 8, &value)); /* crosses the end */
    assert_false(bus_load(&bus, 0x1008, 8, &value)); /* refused by the device */
    assert_false(bus_store(&bus, UINT64_MAX, 1, 0));
}

static void a_bus_takes_no_overlapping_or_impossible_ranges(void **state)
{
    (void)state;
    static const struct {
        uint64_t base_pa, bytes;
        bool fits;
    } ranges[] = {{0x1000, 0x1000, true}, {0x1fff, 1, false}, {0x0fff, 2, false},
                  {0x0, 0x10000, false},  {0x2000, 0, false}, {UINT64_MAX, 2, false},
                  {0x2000, 0x1000, true}, {0x0, 0x1000, true}};
    struct bus bus = {0};
    struct err err;
    for (unsigned i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        struct bus_range range = {
            .name = "x", .base_pa = ranges[i].base_pa, .bytes = ranges[i].bytes};
        assert_int_equal(bus_add(&bus, &range, &err), ranges[i].fits ? 0 : -1);
    }
    for (uint64_t base = 0x10000; bus.count < BUS_MAX_RANGES; base += 16)
        bus_add(&bus, &(struct bus_range){.name = "x", .base_pa = base, .bytes = 16}, NULL);
    assert_int_equal(
        bus_add(&bus, &(struct bus_range){.name = "x", .base_pa = 0x90000, .bytes = 16}, &err), -1);
    assert_non_null(strstr(err.text, "no room"));
}

/* ---- Clock ---- */

static void guest_time_advances_stops_and_never_goes_back(void **state)
{
    (void)state;
    struct vm_clock clock;
    clock_start(&clock);
    assert_true(clock_ticks(&clock) < TIMEBASE_HZ);
    uint64_t first = clock_ticks(&clock);
    usleep(20000);
    uint64_t second = clock_ticks(&clock);
    assert_true(second - first >= TIMEBASE_HZ / 50);
    for (int round = 0; round < 3; round++) {
        clock_stop(&clock);
        clock_stop(&clock);
        uint64_t stopped = clock_ticks(&clock);
        assert_true(stopped >= second);
        usleep(20000);
        assert_int_equal(clock_ticks(&clock), stopped);
        clock_go(&clock);
        clock_go(&clock);
        second = clock_ticks(&clock);
        assert_true(second >= stopped);
    }
}

static void deadlines_are_host_times_and_far_ones_are_none(void **state)
{
    (void)state;
    struct vm_clock clock;
    clock_start(&clock);
    uint64_t tick = clock_ticks(&clock) + TIMEBASE_HZ;
    uint64_t ahead_ns = clock_host_deadline_ns(&clock, tick) - clock_host_ns();
    assert_in_range(ahead_ns, 1, 1000000000);
    assert_true(clock_host_deadline_ns(&clock, UINT64_MAX) == CLOCK_NO_DEADLINE);
    assert_true(clock_host_deadline_ns(&clock, UINT64_MAX / NS_PER_TICK) == CLOCK_NO_DEADLINE);
    /* After a pause the same tick comes later. */
    uint64_t before_ns = clock_host_deadline_ns(&clock, tick);
    clock_stop(&clock);
    usleep(20000);
    clock_go(&clock);
    assert_true(clock_host_deadline_ns(&clock, tick) >= before_ns + 20000000);
}

/* ---- Device thread and pause gate ---- */

struct bench {
    struct pause_gate gate;
    struct device_thread *thread;
    struct doorbell doorbell, other;
    _Atomic unsigned answers, other_answers, events;
    int fd;
};

static void count_answer(void *bench)
{
    ((struct bench *)bench)->answers++;
}

static void count_other(void *bench)
{
    ((struct bench *)bench)->other_answers++;
}

static void take_event(void *device, uint32_t events)
{
    struct bench *b = device;
    eventfd_t count;
    assert_true(events & EPOLLIN);
    eventfd_read(b->fd, &count);
    b->events++;
    device_thread_unwatch(b->thread, b->fd); /* from within its own event */
}

static void start(struct bench *b)
{
    memset(b, 0, sizeof *b);
    pause_gate_init(&b->gate);
    b->thread = device_thread_new(&b->gate, NULL);
    assert_non_null(b->thread);
    assert_int_equal(doorbell_init(&b->doorbell, b->thread, count_answer, b, NULL), 0);
    assert_int_equal(doorbell_init(&b->other, b->thread, count_other, b, NULL), 0);
    b->fd = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(device_thread_watch(b->thread, b->fd, EPOLLIN, take_event, b, NULL), 0);
    assert_int_equal(device_thread_start(b->thread, NULL), 0);
}

static void stop(struct bench *b)
{
    pause_gate_end(&b->gate);
    device_thread_stop(b->thread);
    device_thread_free(b->thread);
    pause_gate_destroy(&b->gate);
    close(b->fd);
}

static void eventually(const _Atomic unsigned *count, unsigned wanted)
{
    for (int ms = 0; ms < 5000 && *count < wanted; ms++)
        usleep(1000);
    assert_int_equal(*count, wanted);
}

static void a_rung_doorbell_is_answered(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    for (unsigned i = 1; i <= 100; i++) {
        doorbell_ring(&b.doorbell);
        eventually(&b.answers, i);
    }
    assert_int_equal(b.other_answers, 0);
    stop(&b);
}

static void nothing_runs_while_paused_and_rings_are_answered_after(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    pause_gate_want(&b.gate);
    device_thread_wake(b.thread);
    pause_gate_wait_quiet(&b.gate);
    for (int i = 0; i < 10; i++)
        doorbell_ring(&b.doorbell);
    doorbell_ring(&b.other);
    eventfd_write(b.fd, 1);
    usleep(20000);
    assert_int_equal(b.answers + b.other_answers + b.events, 0);
    pause_gate_resume(&b.gate);
    eventually(&b.answers, 1); /* ten rings are one */
    eventually(&b.other_answers, 1);
    eventually(&b.events, 1);
    stop(&b);
}

static void an_unwatched_descriptor_is_left_alone(void **state)
{
    (void)state;
    struct bench b;
    start(&b);
    eventfd_write(b.fd, 1);
    eventually(&b.events, 1);
    eventfd_write(b.fd, 1); /* it was unwatched by its first event */
    doorbell_ring(&b.doorbell);
    eventually(&b.answers, 1);
    usleep(5000);
    assert_int_equal(b.events, 1);
    stop(&b);
}

static void what_epoll_cannot_watch_is_refused(void **state)
{
    (void)state;
    struct bench b;
    struct err err;
    char path[] = "/tmp/ballast-parts-test.XXXXXX";
    int file = mkstemp(path);
    unlink(path);
    start(&b);
    pause_gate_want(&b.gate); /* watches are the thread's own while it runs */
    device_thread_wake(b.thread);
    pause_gate_wait_quiet(&b.gate);
    assert_int_equal(device_thread_watch(b.thread, file, EPOLLIN, take_event, &b, &err), -1);
    int fds[64], watched = 0;
    for (int i = 0; i < 64; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC);
        watched += !device_thread_watch(b.thread, fds[i], EPOLLIN, take_event, &b, &err);
    }
    assert_int_equal(watched, 63); /* the table is bounded; one was there */
    for (int i = 0; i < watched; i++)
        device_thread_unwatch(b.thread, fds[i]);
    pause_gate_resume(&b.gate);
    stop(&b);
    for (int i = 0; i < 64; i++)
        close(fds[i]);
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bus_finds_devices_and_refuses_what_none_takes),
        cmocka_unit_test(a_bus_takes_no_overlapping_or_impossible_ranges),
        cmocka_unit_test(guest_time_advances_stops_and_never_goes_back),
        cmocka_unit_test(deadlines_are_host_times_and_far_ones_are_none),
        cmocka_unit_test(a_rung_doorbell_is_answered),
        cmocka_unit_test(nothing_runs_while_paused_and_rings_are_answered_after),
        cmocka_unit_test(an_unwatched_descriptor_is_left_alone),
        cmocka_unit_test(what_epoll_cannot_watch_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
