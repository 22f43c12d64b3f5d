/*
 * Sharing through the real engine, with workers that have real guest memory and
 * pages of known multiplicity: counters are exact, and what sharing promises holds
 * when guests write, when domains change and when VMs end.
 */
#include "daemon/sharing/sharing_private.h"
#include "tests/daemon/sharing_host.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGES 600u

static void counters_are_exact_for_known_multiplicities(void **state)
{
    (void)state;
    static const struct {
        const char *content;
        uint64_t frames, references, zeroes, saved;
    } cases[] = {
        {"same", 1, PAGES, 0, PAGES - 1},
        {"zero", 0, 0, PAGES, PAGES},
        {"different", 0, 0, 0, 0},
        {"one-off", 1, PAGES - 1, 0, PAGES - 2},
        {"last-byte", 1, PAGES - 1, 0, PAGES - 2},
        {"mod:300", 300, PAGES, 0, PAGES - 300},
        {"mod:7", 7, PAGES, 0, PAGES - 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host host;
        char append[80];
        sharing_host_start(&host, 32);
        snprintf(append, sizeof append, "pages=%u content=%s", PAGES, cases[i].content);
        sharing_vm(&host, "a", NULL, append);
        sharing_scan(&host, 4);
        struct sharing_stats stats = sharing_stats_of(&host);
        struct vm_row row = sharing_row(&host, "a");
        assert_int_equal(stats.shared_frames, cases[i].frames);
        assert_int_equal(stats.references, cases[i].references);
        assert_int_equal(stats.zero_references, cases[i].zeroes);
        assert_int_equal(stats.saved_pages, cases[i].saved);
        assert_int_equal(row.shared_pages, cases[i].references + cases[i].zeroes);
        assert_int_equal(row.shared_saved_pages, cases[i].saved);
        assert_int_equal(row.private_pages, PAGES - cases[i].references - cases[i].zeroes);
        assert_int_equal(row.allocated_pages, row.private_pages + row.pool_pages + cases[i].frames);
        assert_int_equal(stats.counts.false_matches, 0);
        assert_int_equal(stats.pending_frames, 0);
        assert_int_equal(row.refused_messages, 0);
        host_check(&host);
        host_stop(&host);
    }
}

static void pages_not_written_are_not_hashed_again(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 32);
    sharing_vm(&host, "a", NULL, "pages=600 content=different write=5");
    sharing_scan(&host, 3);
    uint64_t hashed = sharing_stats_of(&host).counts.hashed_pages;
    uint64_t covered = sharing_stats_of(&host).counts.covered_pages;
    sharing_scan(&host, 3);
    assert_int_equal(sharing_stats_of(&host).counts.hashed_pages, hashed);
    assert_true(sharing_stats_of(&host).counts.covered_pages - covered >= 3 * 4096);
    worker_signal(supervisor_find_vm(host.supervisor, "a"), SIGUSR1);
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).counts.hashed_pages >= hashed + 5);
    sharing_scan(&host, 3);
    /* Twice, if the bits were collected while the worker was about to write. */
    uint64_t again = sharing_stats_of(&host).counts.hashed_pages;
    assert_in_range(again, hashed + 5, hashed + 2 * 5);
    sharing_scan(&host, 3);
    assert_int_equal(sharing_stats_of(&host).counts.hashed_pages, again);
    host_stop(&host);
}

/* The default: what is new since the last pass is looked at again, and shared if it still stands.
 */
static void what_is_new_is_shared_a_pass_later(void **state)
{
    (void)state;
    for (int settled_only = 0; settled_only <= 1; settled_only++) {
        struct host host;
        sharing_host_start(&host, 32);
        struct sharing_settings settings = sharing_stats_of(&host).settings;
        settings.settled_only = settled_only;
        assert_int_equal(supervisor_set_sharing(host.supervisor, &settings, NULL), 0);
        sharing_vm(&host, "a", NULL, "pages=200 content=mod:100");
        sharing_vm(&host, "b", NULL, "pages=100 content=zero");
        host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).saved_pages == 200);
        struct sharing_counts counts = sharing_stats_of(&host).counts;
        /* Twice, if the bits were collected while the worker was about to write. */
        if (settled_only)
            assert_in_range(counts.unsettled_pages, 200, 2 * 200);
        else
            assert_int_equal(counts.unsettled_pages, 0);
        host_check(&host);
        host_stop(&host);
    }
}

static uint64_t passes_of(struct host *host, const char *name)
{
    struct sharing_vm_counts counts;
    supervisor_sharing_vm_counts(host->supervisor, supervisor_find_vm(host->supervisor, name),
                                 &counts);
    return counts.passes;
}

/* Whoever writes what others hold, again and again, is left alone. */
static void pages_written_all_the_time_are_not_shared(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 32);
    struct sharing_settings settings = sharing_stats_of(&host).settings;
    settings.settled_only = true;
    settings.pass_ms = 500; /* beside a millisecond from store to store */
    assert_int_equal(supervisor_set_sharing(host.supervisor, &settings, NULL), 0);
    sharing_vm(&host, "a", NULL, "pages=200 content=mod:100 rewrite=20");
    host_until(&host, SHARING_WAIT_MS, passes_of(&host, "a") >= 6);
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).saved_pages == 80);
    assert_true(sharing_stats_of(&host).counts.unsettled_pages > 80);
    /* Once after the first pass, which the second follows at once; and if it did not get to run for
     * a whole pass. */
    assert_true(sharing_row(&host, "a").cow_breaks <= 3 * 20);
    host_check(&host);
    host_stop(&host);
}

/* With all settings as shipped, a guest that fills its memory is soon seen. */
static void what_a_guest_writes_later_is_found_in_seconds(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, 256, "sharing_worker");
    struct sharing_settings settings = host.config.sharing;
    settings.enabled = true;
    assert_int_equal(supervisor_set_sharing(host.supervisor, &settings, NULL), 0);
    host_vm(&host, "a", 128, 4, "pages=100 content=different write=8000 twins");
    host_until(&host, SHARING_WAIT_MS, passes_of(&host, "a") >= 3);
    worker_signal(supervisor_find_vm(host.supervisor, "a"), SIGUSR1);
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).saved_pages == 4000);
    host_check(&host);
    host_stop(&host);
}

static void strangers_do_not_share_and_a_domain_does(void **state)
{
    (void)state;
    struct host host;
    struct sharing_pair pairs[8];
    sharing_host_start(&host, 64);
    sharing_vm(&host, "a", NULL, "pages=300 content=mod:300");
    sharing_vm(&host, "b", NULL, "pages=300 content=mod:300");
    sharing_scan(&host, 4);
    assert_int_equal(sharing_stats_of(&host).shared_frames, 0);
    host_check(&host);

    assert_int_equal(supervisor_set_sharing_domain(
                         host.supervisor, supervisor_find_vm(host.supervisor, "a"), "us", NULL),
                     0);
    assert_int_equal(supervisor_set_sharing_domain(
                         host.supervisor, supervisor_find_vm(host.supervisor, "b"), "us", NULL),
                     0);
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).shared_frames == 300);
    sharing_scan(&host, 2);
    assert_int_equal(sharing_stats_of(&host).references, 600);
    assert_int_equal(sharing_row(&host, "a").shared_charge_pages, 150);
    assert_int_equal(supervisor_sharing_pairs(host.supervisor, pairs, 8), 1);
    assert_string_equal(pairs[0].a, "a");
    assert_string_equal(pairs[0].b, "b");
    assert_int_equal(pairs[0].frames, 300);
    host_check(&host);

    /* one leaves: nothing is common any more */
    assert_int_equal(supervisor_set_sharing_domain(
                         host.supervisor, supervisor_find_vm(host.supervisor, "a"), NULL, NULL),
                     0);
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "a").shared_references == 0);
    sharing_scan(&host, 3);
    assert_int_equal(sharing_row(&host, "a").private_pages, 300);
    assert_int_equal(supervisor_sharing_pairs(host.supervisor, pairs, 8), 0);
    host_check(&host);
    host_stop(&host);
}

static void charge(struct host *host, enum shared_charge charge)
{
    struct err err;
    struct sharing_settings settings = sharing_stats_of(host).settings;
    settings.charge = charge;
    if (supervisor_set_sharing(host->supervisor, &settings, &err) < 0)
        fail_msg("%s", err.text);
}

/* Nobody is charged for what strangers share, however much that is. */
static void each_vm_is_charged_for_its_own_frames(void **state)
{
    (void)state;
    struct host host;
    struct host_row row;
    sharing_host_start(&host, 96);
    sharing_vm(&host, "a", NULL, "pages=600 content=mod:300");
    sharing_vm(&host, "b", NULL, "pages=600 content=mod:7"); /* 85 or 86 pages a frame */
    sharing_vm(&host, "c", "us", "pages=600 content=mod:100");
    sharing_vm(&host, "d", "us", "pages=200 content=mod:100");
    sharing_scan(&host, 5);
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).shared_frames == 300 + 7 + 100);
    assert_int_equal(sharing_row(&host, "a").shared_charge_pages, 300);
    assert_int_equal(sharing_row(&host, "b").shared_charge_pages, 7);
    assert_int_equal(sharing_row(&host, "c").shared_charge_pages, 75);
    assert_int_equal(sharing_row(&host, "d").shared_charge_pages, 25);
    host_check(&host);

    /* the two others, in rows and in what the policy may hand out */
    static const struct {
        enum shared_charge charge;
        const char *name;
        uint64_t a_pages, d_pages;
    } cases[] = {{SHARED_CHARGE_FULL, "full", 600, 200},
                 {SHARED_CHARGE_NONE, "none", 0, 0},
                 {SHARED_CHARGE_EQUAL, "equal", 300, 25}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t rounds = host.supervisor->rounds_by[TRIGGER_HOST_SETTING];
        charge(&host, cases[i].charge);
        struct vm_row a = sharing_row(&host, "a"), d = sharing_row(&host, "d");
        assert_int_equal(a.shared_charge_pages, cases[i].a_pages);
        assert_int_equal(a.allocated_pages, a.held_pages + cases[i].a_pages);
        assert_int_equal(a.shared_saved_pages, 600 - cases[i].a_pages);
        assert_int_equal(d.allocated_pages, d.held_pages + cases[i].d_pages);
        supervisor_host_row(host.supervisor, &row);
        assert_string_equal(row.shared_charge, cases[i].name);
        host_until(&host, SHARING_WAIT_MS,
                   host.supervisor->rounds_by[TRIGGER_HOST_SETTING] > rounds);
        assert_int_equal(host.supervisor->policy_rows[0].allocated_pages,
                         sharing_row(&host, "a").allocated_pages);
        host_check(&host);
    }

    /* one that goes leaves its part to the others */
    host_destroy(&host, "d");
    assert_int_equal(sharing_row(&host, "c").shared_charge_pages, 100);
    host_check(&host);
    host_stop(&host);
}

static void a_vm_that_may_not_share_gives_up_zero_pages_too(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 32);
    struct vm *vm = sharing_vm(&host, "a", NULL, "pages=200 content=zero");
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).zero_references == 200);
    assert_int_equal(supervisor_set_vm_sharing(host.supervisor, vm, false, NULL), 0);
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).zero_references == 0);
    host_check(&host);
    assert_int_equal(sharing_row(&host, "a").private_pages, 200);
    host_stop(&host);
}

static void a_store_breaks_and_is_remembered(void **state)
{
    (void)state;
    struct host host;
    struct sharing_break breaks[8];
    struct sharing_reference reference, references[4];
    struct sharing_frame frame;
    uint64_t mpn;
    sharing_host_start(&host, 32);
    struct vm *vm = sharing_vm(&host, "a", NULL, "pages=50 content=same write=3");
    /* counted, and done: references are counted before a page is asked to share */
    host_until(&host, SHARING_WAIT_MS,
               sharing_stats_of(&host).references == 50 &&
                   sharing_row(&host, "a").shared_pages == 50);
    assert_int_equal(supervisor_sharing_page(host.supervisor, vm, 2, &mpn, &reference), 0);
    assert_string_equal(reference.vm, "a");
    assert_int_equal(supervisor_sharing_frame(host.supervisor, mpn, &frame, references, 4), 4);
    assert_string_equal(frame.kind, "shared");
    assert_int_equal(frame.references, 50);

    worker_signal(vm, SIGUSR1);
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "a").cow_breaks == 3);
    assert_int_equal(sharing_stats_of(&host).references, 47);
    assert_int_equal(supervisor_sharing_breaks(host.supervisor, breaks, 8), 3);
    assert_string_equal(breaks[0].vm, "a");
    assert_int_equal(breaks[0].mpn, mpn);
    assert_int_equal(breaks[0].ppn, 2); /* the newest first */
    assert_int_equal(breaks[2].ppn, 0);
    assert_int_equal(supervisor_sharing_page(host.supervisor, vm, 2, &mpn, &reference), -1);
    host_check(&host);
    host_stop(&host);
}

static void a_vm_that_ends_leaves_frames_to_the_others(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 64);
    sharing_vm(&host, "a", "us", "pages=400 content=mod:100 busy few=3");
    struct vm *b = sharing_vm(&host, "b", "us", "pages=400 content=mod:100");
    sharing_vm(&host, "c", "us", "pages=400 content=mod:100");
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "b").shared_references == 400);
    worker_signal(b, SIGKILL);
    host_until(&host, SHARING_WAIT_MS, host_state_is(&host, "b", "stopped"));
    assert_int_equal(sharing_row(&host, "b").shared_references, 0);
    host_check(&host);
    host_destroy(&host, "a");
    host_check(&host);
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "c").shared_references == 400);
    assert_int_equal(sharing_stats_of(&host).shared_frames, 100);
    host_check(&host);
    host_stop(&host);
}

static void scanning_can_be_switched_off_and_what_is_shared_stays(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 64);
    sharing_vm(&host, "a", NULL, "pages=100 content=same");
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).references == 100);
    struct sharing_settings settings = sharing_stats_of(&host).settings;
    settings.enabled = false;
    assert_int_equal(supervisor_set_sharing(host.supervisor, &settings, NULL), 0);
    host_until(&host, SHARING_WAIT_MS, sharing_is_quiet(host.supervisor));
    uint64_t hashed = sharing_stats_of(&host).counts.hashed_pages;
    sharing_vm(&host, "b", NULL, "pages=100 content=same");
    host_run_ms(&host, 150);
    assert_int_equal(sharing_stats_of(&host).references, 100);
    assert_int_equal(sharing_stats_of(&host).counts.hashed_pages, hashed);
    settings.cpu_percent = 0;
    struct err err;
    assert_int_equal(supervisor_set_sharing(host.supervisor, &settings, &err), -1);
    host_check(&host);
    host_stop(&host);
}

static void on_checked(void *ctx, const struct check_result *result)
{
    *(int *)ctx = result->ok ? 0 : -1;
}

/* What is gathered when a VM ends, or by a release, waits for the scanner to be sent. */
static void a_check_does_not_wait_for_what_nobody_sends(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    struct sharing_reference reference;
    uint64_t mpn;
    int checked = 1;
    sharing_host_start(&host, 64);
    struct vm *a = sharing_vm(&host, "a", "all", "pages=1 content=same");
    sharing_vm(&host, "b", "all", "pages=1 content=same");
    host_until(&host, SHARING_WAIT_MS,
               sharing_stats_of(&host).references == 2 && sharing_is_quiet(host.supervisor));
    assert_int_equal(supervisor_sharing_page(host.supervisor, a, 0, &mpn, &reference), 0);
    host_destroy(&host, "b");
    host_until(&host, SHARING_WAIT_MS, sharing_is_quiet(host.supervisor));
    assert_int_equal(sharing_stats_of(&host).references, 1);
    /* The check has begun; only then is something gathered. */
    assert_int_equal(supervisor_check(host.supervisor, on_checked, &checked, &err), 0);
    engine_unshare_last(host.supervisor->sharing, (mpn_t)mpn);
    assert_false(sharing_is_quiet(host.supervisor));
    host_until(&host, 2 * SHARING_WAIT_MS, checked <= 0);
    assert_int_equal(checked, 0);
    assert_int_equal(sharing_stats_of(&host).references, 0);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_are_exact_for_known_multiplicities),
        cmocka_unit_test(pages_not_written_are_not_hashed_again),
        cmocka_unit_test(what_is_new_is_shared_a_pass_later),
        cmocka_unit_test(pages_written_all_the_time_are_not_shared),
        cmocka_unit_test(what_a_guest_writes_later_is_found_in_seconds),
        cmocka_unit_test(strangers_do_not_share_and_a_domain_does),
        cmocka_unit_test(each_vm_is_charged_for_its_own_frames),
        cmocka_unit_test(a_vm_that_may_not_share_gives_up_zero_pages_too),
        cmocka_unit_test(a_store_breaks_and_is_remembered),
        cmocka_unit_test(a_vm_that_ends_leaves_frames_to_the_others),
        cmocka_unit_test(scanning_can_be_switched_off_and_what_is_shared_stays),
        cmocka_unit_test(a_check_does_not_wait_for_what_nobody_sends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
