/*
 * A supervisor that is wrong, deaf or out of frames: impossible messages are
 * refused by event and change nothing, a ring that is full makes nobody lose a
 * frame, and a VM that waits for frames can be paused, checked and ended.
 */
#include "tests/mem/fake_supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

static struct fake_supervisor *host_of(uint32_t ram_pages, uint32_t machine_pages, unsigned actors)
{
    struct fake_host host = fake_host_of(ram_pages, machine_pages, 5);
    host.actors = actors;
    return fake_supervisor_new(&host);
}

static void set_deaf(struct fake_supervisor *s, bool deaf)
{
    pthread_mutex_lock(&s->mutex);
    s->deaf = deaf;
    pthread_mutex_unlock(&s->mutex);
    eventfd_write(s->notify_fd, 1);
}

static void malformed_messages_are_refused(void **state)
{
    static const struct ring_message cases[] = {
        {.type = RING_NONE},
        {.type = RING_RELEASED, .count = 1},
        {.type = RING_DONE, .request = 1},
        {.type = UINT16_MAX, .count = 255, .order = 255},
        {.type = RING_GRANT, .count = 0},
        {.type = RING_GRANT, .count = RING_BATCH + 1},
        {.type = RING_GRANT, .count = 1, .order = 9},
        {.type = RING_PAUSE, .count = 1},
    };
    struct fake_supervisor *s = host_of(8, 64, 0);
    (void)state;

    write_page(s, 1, 1);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fake_send(s, &cases[i]);
        fake_await_event(s, WORKER_REFUSED, i + 1);
    }
    assert_true(page_holds(s, 1, 1));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void impossible_grants_are_refused(void **state)
{
    struct fake_supervisor *s = host_of(8, 600, 0);
    struct ring_message message = {.type = RING_GRANT, .count = 2};
    mpn_t held;
    (void)state;

    write_page(s, 1, 1);
    fake_verify(s);
    fake_set_grants(s, false);
    held = pmap_word_mpn(pmap_word(gmem_pmap(s->gmem), 1));
    message.numbers[0] = 600;
    message.numbers[1] = NO_MPN;
    fake_send(s, &message);
    fake_await_event(s, WORKER_REFUSED, 1);
    message.numbers[0] = message.numbers[1] = held;
    fake_send(s, &message);
    fake_await_event(s, WORKER_REFUSED, 2);
    message.numbers[0] = message.numbers[1] = atomic_load(&s->region->pool[0]);
    fake_send(s, &message);
    fake_await_event(s, WORKER_REFUSED, 3);
    assert_true(page_holds(s, 1, 1));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_grant_beyond_the_pool_comes_back(void **state)
{
    struct fake_supervisor *s = host_of(8, 800, 0);
    (void)state;

    fake_set_grants(s, false);
    fake_grant(s, 600);
    fake_await_released(s, RELEASE_UNUSED, 600 - GRANT_POOL_SLOTS);
    fake_await_event(s, WORKER_REFUSED, 1);
    assert_int_equal(atomic_load(&s->region->stats.pool_pages), GRANT_POOL_SLOTS);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_corrupt_ring_ends_the_vm(void **state)
{
    struct fake_supervisor *s = host_of(8, 64, 0);
    (void)state;

    write_page(s, 1, 1);
    atomic_fetch_add(&vm_region_to_worker(s->region)->tail, 5 * RING_SLOTS);
    eventfd_write(s->kick_fd, 1);
    fake_await_event(s, WORKER_REFUSED, 1);
    pthread_mutex_lock(&s->gate_mutex);
    while (s->quit_calls == 0)
        pthread_cond_wait(&s->gate_changed, &s->gate_mutex);
    pthread_mutex_unlock(&s->gate_mutex);
    assert_int_equal(s->quit_calls, 1);
    fake_supervisor_free(s);
}

struct ballooner {
    struct fake_supervisor *s;
    ppn_t pages;
    _Atomic ppn_t done;
};

static void *balloon_all(void *arg)
{
    struct ballooner *b = arg;

    for (ppn_t ppn = 0; ppn < b->pages; ppn++) {
        gmem_balloon(b->s->gmem, ppn);
        atomic_store(&b->done, ppn + 1);
    }
    return NULL;
}

/* Events and releases fill the ring to a supervisor that does not look. */
static void a_full_ring_holds_back_but_loses_nothing(void **state)
{
    enum { PAGES = 8000 };
    struct fake_supervisor *s = host_of(PAGES, PAGES + 512, 0);
    struct ballooner b = {.s = s, .pages = PAGES};
    struct ring *outgoing = vm_region_to_supervisor(s->region);
    pthread_t thread;
    uint32_t check;
    (void)state;

    for (ppn_t ppn = 0; ppn < PAGES; ppn++)
        write_page(s, ppn, ppn);
    set_deaf(s, true);
    pthread_create(&thread, NULL, balloon_all, &b);
    while (ring_room(outgoing) > RING_REQUESTS)
        usleep(1000);
    /* The incoming ring is still drained, and requests leave room for their answers. */
    fake_send_value(s, RING_TARGET, 100);
    check = fake_post(s, RING_CHECK, 0);
    fake_send_value(s, RING_RETURN, 10);
    while (ring_room(vm_region_to_worker(s->region)) < RING_SLOTS)
        usleep(1000);
    usleep(20000);
    assert_int_equal(ring_room(outgoing), RING_REQUESTS);
    assert_true(atomic_load(&b.done) < PAGES);
    set_deaf(s, false);
    assert_int_equal(fake_await(s, check), 0);
    pthread_join(thread, NULL);
    fake_await_released(s, RELEASE_BALLOONED, PAGES);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void *touch_pages(void *arg)
{
    struct fake_supervisor *s = arg;
    uint8_t byte = 1;

    for (ppn_t ppn = 0; ppn < 8; ppn++)
        if (!gmem_write(s->gmem, page_pa(ppn), &byte, 1))
            return (void *)1;
    fake_gate_leave(s);
    return NULL;
}

static void a_vm_without_frames_asks_and_waits(void **state)
{
    struct fake_supervisor *s = host_of(8, 64, 1);
    pthread_t toucher;
    void *failed;
    (void)state;

    fake_set_grants(s, false);
    pthread_create(&toucher, NULL, touch_pages, s);
    fake_await_blocked(s);
    fake_verify(s); /* pausing does not wait for frames, neither does the check */
    fake_request(s, RING_PAUSE, 0);
    fake_grant(s, 4);
    usleep(10000);
    assert_int_equal(atomic_load(&s->region->stats.pages.pages_in[PAGE_PRIVATE]), 0);
    fake_request(s, RING_RESUME, 0);
    while (atomic_load(&s->region->stats.pages.pages_in[PAGE_PRIVATE]) < 4)
        usleep(1000);
    fake_set_grants(s, true);
    eventfd_write(s->notify_fd, 1);
    pthread_join(toucher, &failed);
    assert_null(failed);
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_vm_without_frames_can_be_ended(void **state)
{
    struct fake_supervisor *s = host_of(8, 64, 1);
    pthread_t toucher;
    void *failed;
    (void)state;

    fake_set_grants(s, false);
    pthread_create(&toucher, NULL, touch_pages, s);
    fake_await_blocked(s);
    gmem_end_waits(s->gmem);
    pthread_join(toucher, &failed);
    assert_non_null(failed);
    assert_null(gmem_pin(s->gmem, page_pa(0), 1, false));
    assert_false(gmem_balloon(s->gmem, 0));
    fake_supervisor_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_messages_are_refused),
        cmocka_unit_test(impossible_grants_are_refused),
        cmocka_unit_test(a_grant_beyond_the_pool_comes_back),
        cmocka_unit_test(a_corrupt_ring_ends_the_vm),
        cmocka_unit_test(a_full_ring_holds_back_but_loses_nothing),
        cmocka_unit_test(a_vm_without_frames_asks_and_waits),
        cmocka_unit_test(a_vm_without_frames_can_be_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
