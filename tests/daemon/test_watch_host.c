/*
 * Watchers in a running host: workers and guests that lie, stall, starve and fill
 * their disk are told by name, with numbers, once, and when it is over. Times are
 * short here; test_watch.c has the thresholds.
 */
#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SOON_MS 40000

/* Has an event of that kind about that VM ("": the host) begun with these words? */
static bool said(const struct host *host, const char *vm, const char *kind, const char *begins)
{
    unsigned kept = host->event_count < HOST_EVENTS ? host->event_count : HOST_EVENTS;
    for (unsigned i = 0; i < kept; i++)
        if (!strcmp(host->events[i].vm, vm) && !strcmp(host->events[i].kind, kind) &&
            !strncmp(host->events[i].text, begins, strlen(begins)))
            return true;
    return false;
}

/* A host whose watchers look each 20 ms, find at once and repeat each second. */
static void start(struct host *host, unsigned machine_mib, const char *worker)
{
    host_start(host, machine_mib, worker);
    struct watch_settings *watch = &host->supervisor->config.watch;
    watch_stop(host->supervisor);
    watch->period_ms = 20;
    watch->repeat_ms = 1000;
    watch->clear_ms = 200;
    watch->stall_ms = watch->lie_ms = watch->starved_ms = watch->state_ms = 400;
    struct err err;
    assert_int_equal(watch_start(host->supervisor, &err), 0);
}

static uint64_t raised(struct host *host, enum watcher watcher)
{
    struct host_row row;
    supervisor_host_row(host->supervisor, &row);
    return row.watch_raised[watcher];
}

static void order(struct host *host, const char *name, uint64_t pages)
{
    struct err err;
    struct vm *vm = supervisor_find_vm(host->supervisor, name);
    if (supervisor_set_target(host->supervisor, vm, pages * PAGE_BYTES, &err) < 0)
        fail_msg("%s", err.text);
    host_until(host, SOON_MS, vm->target_pages == pages);
}

static void a_worker_that_lies_in_statistics(void **state)
{
    (void)state;
    struct host host;
    start(&host, 64, "lying_worker");
    host_vm(&host, "good", 16, 8, "honest");
    host_vm(&host, "bad", 16, 8, "statistics");
    host_until(&host, SOON_MS, said(&host, "bad", "watch-balloon-lies", "raised: its "));
    assert_int_equal(raised(&host, WATCH_BALLOON_LIES), 1);
    host_until(&host, SOON_MS, said(&host, "bad", "watch-balloon-lies", "still: its "));
    assert_int_equal(host_events(&host, "good", "watch-balloon-lies"), 0);
    host_destroy(&host, "bad");
    assert_true(said(&host, "bad", "watch-balloon-lies", "over: the VM is gone"));
    assert_int_equal(raised(&host, WATCH_BALLOON_LIES), 0);
    struct host_row row;
    supervisor_host_row(host.supervisor, &row);
    assert_int_equal(row.watch_raises[WATCH_BALLOON_LIES], 1);
    host_stop(&host);
}

static void a_worker_that_is_not_believed(void **state)
{
    (void)state;
    struct host host;
    start(&host, 64, "lying_worker");
    host_vm(&host, "good", 16, 8, "honest");
    host_vm(&host, "bad", 16, 8, "release-everything-else");
    host_until(&host, SOON_MS, said(&host, "bad", "watch-invariant", "raised: "));
    assert_true(host_event_says(&host, "watch-invariant", "messages of its worker were refused"));
    host_until(&host, SOON_MS, said(&host, "bad", "watch-invariant", "over: "));
    assert_int_equal(host_events(&host, "good", "watch-invariant"), 0);
    host_stop(&host);
}

static void a_check_that_finds_something(void **state)
{
    (void)state;
    struct host host;
    struct check_result result;
    start(&host, 64, "lying_worker");
    host_vm(&host, "bad", 16, 8, "hide-a-violation");
    host_until(&host, SOON_MS, host_events(&host, "bad", "swap-ok"));
    host_check_result(&host, &result);
    assert_false(result.ok);
    host_until(&host, SOON_MS, said(&host, "", "watch-invariant", "raised: the last check found "));
    host_destroy(&host, "bad");
    host_check(&host);
    host_until(&host, SOON_MS, said(&host, "", "watch-invariant", "over: "));
    host_stop(&host);
}

static void a_balloon_that_gives_nothing(void **state)
{
    (void)state;
    struct host host;
    start(&host, 64, "touching_worker");
    host_vm(&host, "stuck", 32, 8, "touch=4000 balloon-stuck");
    host_vm(&host, "boasts", 16, 8, "touch=1000 balloon-boasts");
    struct vm *stuck = supervisor_find_vm(host.supervisor, "stuck");
    host_until(&host, SOON_MS, vm_allocated_pages(stuck) > 3900);
    stuck->swap_failing = true; /* nor can it be paged */
    stuck->swap_retry_ns = UINT64_MAX;
    order(&host, "stuck", 8 * 256);
    host_until(&host, SOON_MS, said(&host, "stuck", "watch-balloon-stalled", "raised: "));
    assert_true(host_event_says(&host, "watch-balloon-stalled", " and stays at 0 B; it holds "));
    order(&host, "boasts", 8 * 256);
    host_until(&host, SOON_MS, said(&host, "boasts", "watch-balloon-lies", "raised: "));
    assert_true(host_event_says(&host, "watch-balloon-lies", " and 0 B are ballooned"));
    assert_int_equal(host_events(&host, "stuck", "watch-balloon-lies"), 0);
    order(&host, "stuck", 32 * 256);
    host_until(&host, SOON_MS, said(&host, "stuck", "watch-balloon-stalled", "over: "));
    host_stop(&host);
}

static void a_vm_that_starves_at_its_min(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    start(&host, 64, "touching_worker");
    struct sampling_settings sampling = host.config.sampling;
    sampling.pages = 8192;
    sampling.period_ms = 100;
    assert_int_equal(supervisor_set_sampling(host.supervisor, &sampling, &err), 0);
    host_vm(&host, "poor", 32, 8, "touch=5000");
    host_vm(&host, "rich", 16, 8, "touch=3000");
    struct vm *poor = supervisor_find_vm(host.supervisor, "poor");
    host_until(&host, SOON_MS, vm_allocated_pages(poor) > 4900);
    order(&host, "poor", 8 * 256);
    host_until(&host, SOON_MS, said(&host, "poor", "watch-starved", "raised: at its min of 8 MiB"));
    assert_int_equal(host_events(&host, "rich", "watch-starved"), 0);
    order(&host, "poor", 32 * 256);
    host_until(&host, SOON_MS, said(&host, "poor", "watch-starved", "over: "));
    host_stop(&host);
}

static void a_target_that_flaps(void **state)
{
    (void)state;
    struct host host;
    start(&host, 64, "lying_worker");
    host.supervisor->config.watch.flap_turns = 4;
    host_vm(&host, "v", 32, 8, "honest");
    host_until(&host, SOON_MS, host_state_is(&host, "v", "running"));
    for (int i = 0; i < 6 && !said(&host, "v", "watch-flapping", "raised: "); i++) {
        order(&host, "v", 3000);
        order(&host, "v", 6000);
    }
    host_until(&host, SOON_MS, said(&host, "v", "watch-flapping", "raised: its target turned "));
    host_stop(&host);
}

static void a_host_that_stays_short(void **state)
{
    (void)state;
    struct host host;
    start(&host, 48, "touching_worker");
    host_vm(&host, "a", 32, 8, "touch=7600 full-disk");
    host_vm(&host, "b", 32, 8, "touch=7600 full-disk");
    host_until(&host, SOON_MS,
               said(&host, "", "watch-state-lasts", "raised: the host is in state "));
    host_until(&host, SOON_MS, said(&host, "", "watch-state-lasts", "over: "));
    host_stop(&host);
}

static void nobody_is_told_of_when_all_is_well(void **state)
{
    (void)state;
    struct host host;
    start(&host, 64, "touching_worker");
    host_vm(&host, "a", 16, 8, "touch=3000 balloon");
    host_vm(&host, "b", 16, 8, "touch=3000");
    host_run_ms(&host, 1500);
    for (unsigned i = 0; i < host.event_count && i < HOST_EVENTS; i++)
        assert_true(strncmp(host.events[i].kind, "watch-", 6) != 0);
    host_check(&host);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_that_lies_in_statistics),
        cmocka_unit_test(a_worker_that_is_not_believed),
        cmocka_unit_test(a_check_that_finds_something),
        cmocka_unit_test(a_balloon_that_gives_nothing),
        cmocka_unit_test(a_vm_that_starves_at_its_min),
        cmocka_unit_test(a_target_that_flaps),
        cmocka_unit_test(a_host_that_stays_short),
        cmocka_unit_test(nobody_is_told_of_when_all_is_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
