/*
 * The swap file full, failing, short, read-only or gone: pages stay or come
 * back, one event an episode says so, and the VM goes on when the file does.
 * The failures are real ones: a file size limit, /dev/full, wrong descriptors.
 */
#include "tests/mem/fake_supervisor.h"
#include "vmm-core/mem/swap_slots.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM_PAGES 64

static struct fake_supervisor *host_with_swap(int swap_fd)
{
    struct fake_host host = {.ram_pages = RAM_PAGES,
                             .machine_pages = 512,
                             .swap_slots = RAM_PAGES,
                             .swap_fd = swap_fd,
                             .seed = 11};
    struct fake_supervisor *s = fake_supervisor_new(&host);

    for (ppn_t ppn = 0; ppn < RAM_PAGES; ppn++)
        write_page(s, ppn, ppn + 1);
    return s;
}

static void all_pages_hold(struct fake_supervisor *s)
{
    for (ppn_t ppn = 0; ppn < RAM_PAGES; ppn++)
        assert_true(page_holds(s, ppn, ppn + 1));
    fake_verify(s);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;

    assert_return_code(getrlimit(RLIMIT_FSIZE, &limit), errno);
    limit.rlim_cur = bytes;
    assert_return_code(setrlimit(RLIMIT_FSIZE, &limit), errno);
}

/* A write stops in the middle of a cluster, in the middle of a page. */
static void a_file_that_may_not_grow_keeps_what_it_took(void **state)
{
    int fd = memfd_create("swap", MFD_CLOEXEC);
    struct fake_supervisor *s = host_with_swap(fd);
    (void)state;

    limit_file_size(10 * PAGE_BYTES + PAGE_BYTES / 2);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 32), 10);
    fake_await_event(s, WORKER_SWAP_ERROR, 1);
    assert_int_equal(s->event_value2[WORKER_SWAP_ERROR], EFBIG);
    fake_verify(s);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 32), 0);
    assert_int_equal(s->events[WORKER_SWAP_ERROR], 1);
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 32), 32);
    fake_await_event(s, WORKER_SWAP_OK, 1);
    all_pages_hold(s);
    fake_supervisor_free(s);
    close(fd);
}

static void a_file_that_takes_nothing_costs_nothing(void **state)
{
    int sockets[2];
    (void)state;

    assert_return_code(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), errno);
    const struct {
        int fd, errnum;
    } cases[] = {{open("/dev/full", O_RDWR), ENOSPC},
                 {open("/dev/zero", O_RDONLY), EBADF},
                 {sockets[0], ESPIPE}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fake_supervisor *s = host_with_swap(cases[i].fd);

        assert_true(cases[i].fd >= 0);
        assert_int_equal(fake_request(s, RING_PAGE_OUT, 32), 0);
        fake_await_event(s, WORKER_SWAP_ERROR, 1);
        assert_int_equal(s->event_value2[WORKER_SWAP_ERROR], cases[i].errnum);
        assert_int_equal(atomic_load(&s->region->stats.swap_slots_used), 0);
        assert_true(atomic_load(&s->region->stats.swap_errors) > 0);
        all_pages_hold(s);
        fake_supervisor_free(s);
        close(cases[i].fd);
    }
    close(sockets[1]);
}

/* Did every page hold what it should? False also when the VM ended meanwhile. */
static void *read_everything(void *arg)
{
    static bool ok;
    struct fake_supervisor *s = arg;
    uint8_t page[PAGE_BYTES], expected[PAGE_BYTES];

    ok = true;
    for (ppn_t ppn = 0; ppn < RAM_PAGES && ok; ppn++) {
        fill_pattern(expected, ppn + 1);
        ok = gmem_read(s->gmem, page_pa(ppn), page, PAGE_BYTES) &&
             memcmp(page, expected, PAGE_BYTES) == 0;
    }
    return &ok;
}

static void a_file_that_cannot_be_read_makes_the_guest_wait(void **state)
{
    int fd = memfd_create("swap", MFD_CLOEXEC), good = dup(fd), bad = open("/dev/null", O_WRONLY);
    struct fake_supervisor *s = host_with_swap(fd);
    pthread_t reader;
    void *ok;
    (void)state;

    assert_int_equal(fake_request(s, RING_PAGE_OUT, 40), 40);
    assert_return_code(dup2(bad, fd), errno);
    assert_int_equal(pthread_create(&reader, NULL, read_everything, s), 0);
    fake_await_event(s, WORKER_SWAP_ERROR, 1);
    fake_verify(s); /* also while the guest waits for the disk */
    usleep(200000);
    assert_int_equal(s->events[WORKER_SWAP_ERROR], 1);
    assert_return_code(dup2(good, fd), errno);
    pthread_join(reader, &ok);
    assert_true(*(bool *)ok);
    fake_await_event(s, WORKER_SWAP_OK, 1);
    all_pages_hold(s);
    fake_supervisor_free(s);
    close(fd);
    close(good);
    close(bad);
}

static void a_truncated_file_is_an_error_not_zeros(void **state)
{
    int fd = memfd_create("swap", MFD_CLOEXEC);
    struct fake_supervisor *s = host_with_swap(fd);
    pthread_t reader;
    void *ok;
    (void)state;

    assert_int_equal(fake_request(s, RING_PAGE_OUT, 40), 40);
    assert_return_code(ftruncate(fd, 0), errno);
    assert_int_equal(pthread_create(&reader, NULL, read_everything, s), 0);
    fake_await_event(s, WORKER_SWAP_ERROR, 1);
    assert_int_equal(s->event_value2[WORKER_SWAP_ERROR], EIO);
    assert_int_equal(atomic_load(&s->region->stats.pages.pages_in[PAGE_PAGED]), 40);
    /* Nothing will bring these pages back; the VM waits until it is ended. */
    gmem_stop(s->gmem);
    pthread_join(reader, &ok);
    assert_false(*(bool *)ok);
    fake_supervisor_free(s);
    close(fd);
}

static void more_pages_than_slots_leaves_the_rest_in_memory(void **state)
{
    struct fake_host host = {
        .ram_pages = 64, .machine_pages = 512, .swap_slots = 20, .swap_fd = -1};
    struct fake_supervisor *s = fake_supervisor_new(&host);
    (void)state;

    for (ppn_t ppn = 0; ppn < RAM_PAGES; ppn++)
        write_page(s, ppn, ppn + 1);
    assert_int_equal(fake_request(s, RING_PAGE_OUT, 64), 20);
    all_pages_hold(s);
    fake_supervisor_free(s);
}

static void slots_come_in_runs_and_are_given_once(void **state)
{
    struct swap_slots *slots = swap_slots_new(200);
    uint32_t first;
    (void)state;

    assert_int_equal(swap_slots_take(slots, 32, &first), 32);
    assert_int_equal(first, 0);
    assert_int_equal(swap_slots_take(slots, 160, &first), 160);
    assert_int_equal(first, 32);
    assert_int_equal(swap_slots_take(slots, 32, &first), 8);
    assert_int_equal(first, 192);
    assert_int_equal(swap_slots_take(slots, 1, &first), 0);
    assert_int_equal(swap_slots_used_count(slots), 200);
    for (uint32_t slot = 0; slot < 200; slot += 3)
        assert_true(swap_slots_give(slots, slot));
    assert_false(swap_slots_give(slots, 3));
    assert_false(swap_slots_give(slots, 200));
    for (uint32_t slot = 61; slot < 70; slot++)
        swap_slots_give(slots, slot);
    assert_int_equal(swap_slots_take(slots, 16, &first), 10); /* the longest there is: 60..69 */
    assert_int_equal(first, 60);
    swap_slots_free(slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_may_not_grow_keeps_what_it_took),
        cmocka_unit_test(a_file_that_takes_nothing_costs_nothing),
        cmocka_unit_test(a_file_that_cannot_be_read_makes_the_guest_wait),
        cmocka_unit_test(a_truncated_file_is_an_error_not_zeros),
        cmocka_unit_test(more_pages_than_slots_leaves_the_rest_in_memory),
        cmocka_unit_test(slots_come_in_runs_and_are_given_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
