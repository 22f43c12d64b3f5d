/*
 * What meets a page whose frame the kernel is reading, on its way to the swap
 * file. The write is held up for as long as a test likes.
 */
#include "tests/mem/fake_hart.h"
#include "tests/mem/fake_supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include <cmocka.h>

#define PAGE 3u

/* ---- the gate in the swap file's way ---- */

static pthread_mutex_t gate_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool gate_closed, write_waits;

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int count, off_t at);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t at);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t at);

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int count, off_t at)
{
    pthread_mutex_lock(&gate_mutex);
    write_waits = true;
    pthread_cond_broadcast(&gate_changed);
    while (gate_closed)
        pthread_cond_wait(&gate_changed, &gate_mutex);
    write_waits = false;
    pthread_mutex_unlock(&gate_mutex);
    return __real_pwritev64(fd, iov, count, at);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    return __wrap_pwritev64(fd, iov, count, at);
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void open_gate(void)
{
    pthread_mutex_lock(&gate_mutex);
    gate_closed = false;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate_mutex);
}

/* A VM with one private page, which is being written out. *request is the PAGE_OUT. */
static struct fake_supervisor *in_flight(uint32_t *request)
{
    struct fake_host host = fake_host_of(64, 256, 3);
    struct fake_supervisor *s = fake_supervisor_new(&host);

    write_page(s, PAGE, 1);
    gate_closed = true;
    *request = fake_post(s, RING_PAGE_OUT, 1);
    pthread_mutex_lock(&gate_mutex);
    while (!write_waits)
        pthread_cond_wait(&gate_changed, &gate_mutex);
    pthread_mutex_unlock(&gate_mutex);
    assert_int_equal(state_of(s, PAGE), PAGE_PAGING_OUT);
    return s;
}

static void a_device_that_writes_keeps_the_page(void **state)
{
    uint32_t request;
    struct fake_supervisor *s = in_flight(&request);
    mpn_t mpn = mpn_of(s, PAGE);
    uint8_t *page = gmem_pin(s->gmem, page_pa(PAGE), PAGE_BYTES, true);
    (void)state;

    assert_non_null(page);
    assert_int_equal(state_of(s, PAGE), PAGE_PRIVATE);
    fill_pattern(page, 2);
    open_gate();
    assert_int_equal(fake_await(s, request), 0); /* and there is no other victim */
    assert_int_equal(state_of(s, PAGE), PAGE_PRIVATE);
    assert_int_equal(mpn_of(s, PAGE), mpn);
    gmem_unpin(s->gmem, page_pa(PAGE), true);
    assert_true(page_holds(s, PAGE, 2));
    fake_verify(s);
    fake_supervisor_free(s);
}

/* The write under way is of the content before: the page goes by another one. */
static void a_store_makes_the_write_void(void **state)
{
    uint32_t request;
    struct fake_supervisor *s = in_flight(&request);
    (void)state;

    write_page(s, PAGE, 2);
    assert_int_equal(state_of(s, PAGE), PAGE_PRIVATE);
    open_gate();
    assert_int_equal(fake_await(s, request), 1);
    assert_int_equal(state_of(s, PAGE), PAGE_PAGED);
    assert_true(page_holds(s, PAGE, 2));
    fake_verify(s);
    fake_supervisor_free(s);
}

static void a_reader_leaves_it_to_go_and_a_device_that_reads_does_not(void **state)
{
    (void)state;
    for (int pinned = 0; pinned < 2; pinned++) {
        uint32_t request;
        struct fake_supervisor *s = in_flight(&request);

        assert_true(page_holds(s, PAGE, 1));
        assert_int_equal(state_of(s, PAGE), PAGE_PAGING_OUT);
        if (pinned)
            assert_non_null(gmem_pin(s->gmem, page_pa(PAGE), 8, false));
        open_gate();
        assert_int_equal(fake_await(s, request), pinned ? 0 : 1);
        assert_int_equal(state_of(s, PAGE), pinned ? PAGE_PRIVATE : PAGE_PAGED);
        if (pinned)
            gmem_unpin(s->gmem, page_pa(PAGE), false);
        assert_true(page_holds(s, PAGE, 1));
        fake_verify(s);
        fake_supervisor_free(s);
    }
}

/* Even a page that has been taken back by a store: the kernel still reads its frame. */
static void a_report_is_ignored(void **state)
{
    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        uint32_t request;
        struct fake_supervisor *s = in_flight(&request);

        if (stored)
            write_page(s, PAGE, 2);
        assert_true(gmem_report_free(s->gmem, PAGE, 1));
        assert_int_equal(state_of(s, PAGE), stored ? PAGE_PRIVATE : PAGE_PAGING_OUT);
        assert_int_equal(fake_released(s, RELEASE_REPORTED), 0);
        open_gate();
        fake_await(s, request);
        assert_true(page_holds(s, PAGE, stored ? 2 : 1));
        fake_verify(s);
        fake_supervisor_free(s);
    }
}

struct ballooner {
    struct fake_supervisor *s;
    _Atomic bool done;
    bool taken;
};

static void *put_into_balloon(void *arg)
{
    struct ballooner *ballooner = arg;

    ballooner->taken = gmem_balloon(ballooner->s->gmem, PAGE);
    atomic_store(&ballooner->done, true);
    return NULL;
}

static void the_balloon_waits_for_the_end_of_the_write(void **state)
{
    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        uint32_t request;
        struct ballooner ballooner = {.s = in_flight(&request)};
        pthread_t thread;

        if (stored)
            write_page(ballooner.s, PAGE, 2);
        assert_int_equal(pthread_create(&thread, NULL, put_into_balloon, &ballooner), 0);
        sleep_ms(20);
        assert_false(atomic_load(&ballooner.done));
        assert_int_equal(fake_released(ballooner.s, RELEASE_BALLOONED), 0);
        open_gate();
        pthread_join(thread, NULL);
        assert_true(ballooner.taken);
        assert_int_equal(state_of(ballooner.s, PAGE), PAGE_BALLOONED);
        fake_await(ballooner.s, request);
        fake_verify(ballooner.s);
        fake_supervisor_free(ballooner.s);
    }
}

struct reader {
    struct fake_supervisor *s;
    struct hart hart;
    struct shadow *shadow;
    _Atomic bool inside;
    bool asked, changed;
};

/* A hart that reads the page when the write ends, and goes on for a while. */
static void *read_on(void *arg)
{
    struct reader *reader = arg;
    struct gmem *gmem = reader->s->gmem;
    struct shadow_reply reply = {0};
    enum shadow_result result;
    uint8_t before[PAGE_BYTES];

    memlock_enter(gmem_lock(gmem), 0);
    memlock_lock(gmem_lock(gmem), 0);
    result = shadow_resolve(reader->shadow, page_pa(PAGE), SHADOW_LOAD, false, false, &reply);
    memlock_unlock(gmem_lock(gmem), 0);
    if (result == SHADOW_OK) {
        memcpy(before, reply.host, PAGE_BYTES);
        atomic_store(&reader->inside, true);
        for (int ms = 0; ms < 1000 && !reader->asked; ms++) {
            reader->asked = atomic_load(&reader->hart.attention) & ATTENTION_STOP;
            if (!reader->asked)
                sleep_ms(1);
        }
        sleep_ms(10);
        /* A frame that was released is full of junk. */
        reader->changed = memcmp(before, reply.host, PAGE_BYTES) != 0 ||
                          pmap_state(gmem_pmap(gmem), PAGE) != PAGE_PAGING_OUT;
    }
    memlock_leave(gmem_lock(gmem), 0);
    return NULL;
}

static void the_frame_goes_when_no_hart_reads_it_any_more(void **state)
{
    uint32_t request;
    struct reader reader = {.s = in_flight(&request)};
    pthread_t thread;
    (void)state;

    reader.hart.pmap = gmem_pmap(reader.s->gmem);
    reader.shadow = shadow_new(reader.hart.pmap);
    gmem_add_hart(reader.s->gmem, &reader.hart, 0);
    assert_int_equal(pthread_create(&thread, NULL, read_on, &reader), 0);
    while (!atomic_load(&reader.inside))
        sleep_ms(1);
    open_gate();
    assert_int_equal(fake_await(reader.s, request), 1);
    pthread_join(thread, NULL);
    assert_true(reader.asked);
    assert_false(reader.changed);
    assert_true(page_holds(reader.s, PAGE, 1));
    fake_verify(reader.s);
    shadow_free(reader.shadow);
    fake_supervisor_free(reader.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_writes_keeps_the_page),
        cmocka_unit_test(a_store_makes_the_write_void),
        cmocka_unit_test(a_reader_leaves_it_to_go_and_a_device_that_reads_does_not),
        cmocka_unit_test(a_report_is_ignored),
        cmocka_unit_test(the_balloon_waits_for_the_end_of_the_write),
        cmocka_unit_test(the_frame_goes_when_no_hart_reads_it_any_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
