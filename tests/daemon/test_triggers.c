/*
 * Every reason for a round of the policy: each is given alone, on a host whose
 * period is ten minutes, and makes a round that is told under its name.
 */
#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SOON_MS 30000

/* A host whose rounds have settled: none is under way, none is due before the period. */
static void start(struct host *host, const char *worker, const char *append)
{
    struct err err;
    host_start(host, 64, worker);
    assert_int_equal(supervisor_set_period(host->supervisor, 600000, &err), 0);
    host_vm(host, "v", 16, 8, append);
    host_until(host, SOON_MS, host_state_is(host, "v", "running"));
    host_until(host, SOON_MS, host->supervisor->rounds_by[TRIGGER_VM_ADDED] > 0);
    host_until(host, SOON_MS, host->supervisor->triggers == 0);
}

static struct vm *find(struct host *host)
{
    return supervisor_find_vm(host->supervisor, "v");
}

static void shares(struct host *host)
{
    struct err err;
    assert_int_equal(supervisor_set_shares(host->supervisor, find(host), 7, &err), 0);
}

static void min(struct host *host)
{
    struct err err;
    assert_int_equal(
        supervisor_set_min_max(host->supervisor, find(host), 9 * TEST_MIB, ~UINT64_C(0), &err), 0);
}

static void max(struct host *host)
{
    struct err err;
    assert_int_equal(
        supervisor_set_min_max(host->supervisor, find(host), ~UINT64_C(0), 12 * TEST_MIB, &err), 0);
}

static void own_tax(struct host *host)
{
    struct err err;
    assert_int_equal(supervisor_set_vm_idle_tax(host->supervisor, find(host), 5, &err), 0);
}

static void target(struct host *host)
{
    struct err err;
    assert_int_equal(supervisor_set_target(host->supervisor, find(host), 12 * TEST_MIB, &err), 0);
}

static void no_target(struct host *host)
{
    struct err err;
    assert_int_equal(supervisor_clear_target(host->supervisor, find(host), &err), 0);
}

static void tax(struct host *host)
{
    struct err err;
    struct policy_settings s = host->supervisor->settings;
    s.idle_tax_percent = 30;
    assert_int_equal(supervisor_set_settings(host->supervisor, &s, &err), 0);
}

static void policy(struct host *host)
{
    struct err err;
    assert_int_equal(supervisor_set_policy(host->supervisor, "esx", &err), 0);
}

static void thresholds(struct host *host)
{
    struct err err;
    struct policy_settings s = host->supervisor->settings;
    s.thresholds.high = 7;
    assert_int_equal(supervisor_set_settings(host->supervisor, &s, &err), 0);
}

static void sampling(struct host *host)
{
    struct err err;
    struct sampling_settings s = host->supervisor->config.sampling;
    s.pages = 50;
    assert_int_equal(supervisor_set_sampling(host->supervisor, &s, &err), 0);
}

static void added(struct host *host)
{
    host_vm(host, "w", 16, 8, "honest");
}

static void gone(struct host *host)
{
    host_destroy(host, "w");
}

static void killed(struct host *host)
{
    worker_signal(supervisor_find_vm(host->supervisor, "w"), SIGKILL);
}

static void what_an_operator_does_makes_a_round(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        void (*act)(struct host *host);
        enum policy_trigger trigger;
    } cases[] = {
        {"shares", shares, TRIGGER_VM_SETTING},
        {"min", min, TRIGGER_VM_SETTING},
        {"max", max, TRIGGER_VM_SETTING},
        {"a VM's tax", own_tax, TRIGGER_VM_SETTING},
        {"a target", target, TRIGGER_VM_SETTING},
        {"no target", no_target, TRIGGER_VM_SETTING},
        {"the host's tax", tax, TRIGGER_HOST_SETTING},
        {"the policy", policy, TRIGGER_HOST_SETTING},
        {"thresholds", thresholds, TRIGGER_HOST_SETTING},
        {"sampling", sampling, TRIGGER_HOST_SETTING},
        {"a VM more", added, TRIGGER_VM_ADDED},
        {"a VM less", gone, TRIGGER_VM_GONE},
        {"a VM again", added, TRIGGER_VM_ADDED},
        {"a VM that died", killed, TRIGGER_VM_GONE},
    };
    struct host host;
    struct host_row row;
    start(&host, "lying_worker", "honest");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t before = host.supervisor->rounds_by[cases[i].trigger];
        print_message("%s\n", cases[i].what);
        cases[i].act(&host);
        host_until(&host, SOON_MS, host.supervisor->rounds_by[cases[i].trigger] > before);
        supervisor_host_row(host.supervisor, &row);
        assert_string_equal(row.policy_trigger, policy_trigger_name(cases[i].trigger));
        host_until(&host, SOON_MS, host.supervisor->triggers == 0);
    }
    host_stop(&host);
}

static void a_period_that_is_over_makes_a_round(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    start(&host, "lying_worker", "honest");
    assert_int_equal(host.supervisor->rounds_by[TRIGGER_PERIOD], 0);
    assert_int_equal(supervisor_set_period(host.supervisor, 100, &err), 0);
    host_until(&host, SOON_MS, host.supervisor->rounds_by[TRIGGER_PERIOD] > 1);
    host_stop(&host);
}

/* Down by guests that grow, up by one that goes. */
static void a_crossed_threshold_makes_a_round(void **state)
{
    (void)state;
    struct host host;
    start(&host, "touching_worker", "touch=4000");
    host_vm(&host, "hog", 64, 8, "touch=15000");
    host_until(&host, SOON_MS, host.supervisor->host_state > HOST_HIGH);
    assert_true(host.supervisor->rounds_by[TRIGGER_STATE] > 0);
    host_destroy(&host, "hog");
    host_until(&host, SOON_MS, host.supervisor->host_state == HOST_HIGH);
    assert_int_equal(host.supervisor->rounds_by[TRIGGER_PERIOD], 0);
    host_stop(&host);
}

/* A host that stays short of memory: its thresholds are put above what a paused guest leaves free,
 * and policy static does nothing about that in soft. */
static void a_round_that_asks_for_another_gets_it(void **state)
{
    (void)state;
    struct host host;
    struct host_row row;
    struct err err;
    start(&host, "touching_worker", "touch=16");
    assert_int_equal(supervisor_set_policy(host.supervisor, "static", &err), 0);
    host_vm(&host, "hog", 56, 8, "touch=14000");
    do {
        host_run_ms(&host, 5);
        supervisor_host_row(host.supervisor, &row);
    } while (row.free_pages > row.machine_pages / 4);
    host_pause(&host, "hog");
    supervisor_host_row(host.supervisor, &row);
    double free_percent = 100 * (double)row.free_pages / (double)row.machine_pages;
    struct policy_settings above = row.settings;
    above.thresholds.high = free_percent + 6;
    above.thresholds.soft = free_percent + 3;
    uint64_t before = host.supervisor->rounds_by[TRIGGER_RECLAIM];
    assert_int_equal(supervisor_set_settings(host.supervisor, &above, &err), 0);
    host_until(&host, SOON_MS, host.supervisor->rounds_by[TRIGGER_RECLAIM] > before + 2);
    assert_int_equal(host.supervisor->host_state, HOST_SOFT);
    assert_int_equal(host.supervisor->rounds_by[TRIGGER_PERIOD], 0);
    host_stop(&host);
}

static void an_active_estimate_that_moves_makes_a_round(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    struct sampling_settings eager = {4096, 100, 0.25, 0.75, false};
    start(&host, "touching_worker", "touch=256");
    assert_int_equal(supervisor_set_sampling(host.supervisor, &eager, &err), 0);
    /* all of its memory counted as active, and a sixteenth of it is */
    host_until(&host, SOON_MS, host.supervisor->rounds_by[TRIGGER_ACTIVE] > 0);
    /* near enough the same from then on: nothing to decide anew */
    host_until(&host, SOON_MS, find(&host)->sampling.round_fraction < 0.1);
    uint64_t rounds = host.supervisor->rounds_by[TRIGGER_ACTIVE];
    uint64_t periods = find(&host)->sampling.periods;
    host_until(&host, SOON_MS, find(&host)->sampling.periods > periods + 2);
    assert_int_equal(host.supervisor->rounds_by[TRIGGER_ACTIVE], rounds);
    assert_int_equal(host.supervisor->rounds_by[TRIGGER_PERIOD], 0);
    host_stop(&host);
}

static void a_balloon_driver_that_comes_makes_a_round(void **state)
{
    (void)state;
    struct host host;
    start(&host, "lying_worker", "balloon-driver");
    host_until(&host, SOON_MS, host_events(&host, "v", "balloon-driver") > 0);
    host_until(&host, SOON_MS, host.supervisor->rounds_by[TRIGGER_ABILITY] > 0);
    host_stop(&host);
}

static void a_check_that_ends_makes_a_round(void **state)
{
    (void)state;
    struct host host;
    start(&host, "touching_worker", "touch=256");
    uint64_t before = host.supervisor->rounds_by[TRIGGER_CHECKED];
    host_check(&host);
    host_until(&host, SOON_MS, host.supervisor->rounds_by[TRIGGER_CHECKED] > before);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_operator_does_makes_a_round),
        cmocka_unit_test(a_period_that_is_over_makes_a_round),
        cmocka_unit_test(a_crossed_threshold_makes_a_round),
        cmocka_unit_test(a_round_that_asks_for_another_gets_it),
        cmocka_unit_test(an_active_estimate_that_moves_makes_a_round),
        cmocka_unit_test(a_balloon_driver_that_comes_makes_a_round),
        cmocka_unit_test(a_check_that_ends_makes_a_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
