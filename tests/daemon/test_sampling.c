/*
 * Active memory of VMs whose working sets are known: with all pages sampled the
 * estimate is the truth, with some of them it is within what chance allows; the
 * policy hears of it; a worker that lies about it moves nobody else's numbers.
 */
#include "tests/daemon/host_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SOON_MS   30000
#define VM_MIB    16
#define VM_PAGES  (VM_MIB * 256u)
#define SET_PAGES 256u /* working set: a sixteenth */
#define ALL_PAGES 1048576u
/* Of the touching worker's time, which counts its steps: the working set some 20 times over. */
#define PERIOD_MS 100u

static struct vm_row row_of(struct host *host, const char *name)
{
    struct vm_row row;
    supervisor_vm_row(host->supervisor, supervisor_find_vm(host->supervisor, name), &row);
    return row;
}

static void set_sampling(struct host *host, uint32_t pages, double slow_gain, double fast_gain)
{
    struct sampling_settings settings = {pages, PERIOD_MS, slow_gain, fast_gain, false};
    struct err err;
    assert_int_equal(supervisor_set_sampling(host->supervisor, &settings, &err), 0);
}

static void start(struct host *host, uint32_t pages)
{
    host_start(host, 64, "touching_worker");
    set_sampling(host, pages, 0.25, 0.75);
    host_vm(host, "v", VM_MIB, 8, "touch=256");
}

static void a_sample_of_all_pages_is_the_truth(void **state)
{
    (void)state;
    struct host host;
    start(&host, ALL_PAGES);
    assert_false(row_of(&host, "v").valid & VM_ROW_ACTIVE);
    host_until(&host, SOON_MS, row_of(&host, "v").sample_periods >= 3);
    struct vm_row row = row_of(&host, "v");
    assert_true(row.valid & VM_ROW_ACTIVE);
    assert_true(row.sample_touched_pages <= SET_PAGES);
    assert_in_range(row.active_pages, SET_PAGES - 4, SET_PAGES);
    assert_in_range(row.active_slow_pages, SET_PAGES - 4, SET_PAGES);
    assert_in_range(row.active_fast_pages, SET_PAGES - 4, SET_PAGES);
    assert_true(row.active_pages >= row.active_next_pages);
    host_check(&host);
    host_stop(&host);
}

static void a_sample_of_some_is_near_it(void **state)
{
    (void)state;
    struct host host;
    struct vm_row row;
    uint64_t periods = 0;
    double sum = 0, n = 256, f = (double)SET_PAGES / VM_PAGES;
    start(&host, (uint32_t)n);
    set_sampling(&host, (uint32_t)n, 0.25, 1); /* fast is the last period's own fraction */
    for (unsigned i = 0; i < 8; i++) {
        host_until(&host, SOON_MS, (row = row_of(&host, "v")).sample_periods > periods);
        periods = row.sample_periods;
        assert_true(row.sample_pages == (uint64_t)n || row.sample_pages == 0);
        assert_true(fabs((double)row.active_fast_pages / VM_PAGES - f) <=
                    4 * sqrt(f * (1 - f) / n));
        sum += (double)row.active_fast_pages / VM_PAGES;
    }
    assert_true(fabs(sum / 8 - f) <= 4 * sqrt(f * (1 - f) / n / 8));
    host_stop(&host);
}

static void the_truth_stands_beside_the_estimate(void **state)
{
    (void)state;
    struct host host;
    struct vm_row row;
    struct err err;
    start(&host, 256);
    host_until(&host, SOON_MS, row_of(&host, "v").sample_periods >= 1);
    assert_false(row_of(&host, "v").valid & VM_ROW_TOUCHED);
    struct sampling_settings settings = {256, PERIOD_MS, 0.25, 1, true};
    assert_int_equal(supervisor_set_sampling(host.supervisor, &settings, &err), 0);
    host_until(&host, SOON_MS, row_of(&host, "v").valid & VM_ROW_TOUCHED);
    uint64_t periods = row_of(&host, "v").sample_periods;
    double f = (double)SET_PAGES / VM_PAGES, n = 256;
    for (unsigned i = 0; i < 4; i++) {
        host_until(&host, SOON_MS, (row = row_of(&host, "v")).sample_periods > periods);
        periods = row.sample_periods;
        assert_in_range(row.touched_pages, SET_PAGES - 4, SET_PAGES);
        assert_int_equal(row.last_sample_pages, 256);
        assert_true(fabs((double)row.last_sample_touched_pages - n * f) <=
                    4 * sqrt(n * f * (1 - f)));
    }
    settings.count_touched = false;
    assert_int_equal(supervisor_set_sampling(host.supervisor, &settings, &err), 0);
    host_until(&host, SOON_MS, !(row_of(&host, "v").valid & VM_ROW_TOUCHED));
    host_check(&host);
    host_stop(&host);
}

static void the_policy_is_told_once_it_is_known(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    start(&host, ALL_PAGES);
    struct vm *vm = supervisor_find_vm(host.supervisor, "v");
    host_until(&host, SOON_MS, host.supervisor->policy_runs > 0);
    assert_false(host.supervisor->policy_rows[0].valid & (POLICY_HAS_ACTIVE | POLICY_HAS_IDLE_TAX));
    assert_int_equal(supervisor_set_vm_idle_tax(host.supervisor, vm, 90, &err), 0);
    host_until(&host, SOON_MS, row_of(&host, "v").sample_periods > 0);
    uint64_t runs = host.supervisor->policy_runs;
    host_until(&host, SOON_MS, host.supervisor->policy_runs > runs);
    assert_true(host.supervisor->policy_rows[0].valid & POLICY_HAS_ACTIVE);
    assert_true(fabs(host.supervisor->policy_rows[0].active_fraction - 0.0625) < 0.001);
    assert_true(host.supervisor->policy_rows[0].valid & POLICY_HAS_IDLE_TAX);
    assert_int_equal(host.supervisor->policy_rows[0].idle_tax_percent, 90);
    assert_int_equal(row_of(&host, "v").idle_tax_percent, 90);
    assert_int_equal(supervisor_set_vm_idle_tax(host.supervisor, vm, IDLE_TAX_OF_HOST, &err), 0);
    assert_false(row_of(&host, "v").valid & VM_ROW_IDLE_TAX);
    host_stop(&host);
}

static void periods_are_the_vms_own_time(void **state)
{
    (void)state;
    struct host host;
    start(&host, 100);
    host_until(&host, SOON_MS, row_of(&host, "v").sample_periods > 0);
    host_pause(&host, "v");
    uint64_t periods = row_of(&host, "v").sample_periods;
    host_run_ms(&host, 600);
    assert_in_range(row_of(&host, "v").sample_periods, periods,
                    periods + 1); /* one was under way */
    host_resume(&host, "v");
    host_until(&host, SOON_MS, row_of(&host, "v").sample_periods > periods + 1);
    host_stop(&host);
}

static void switched_off_it_forgets(void **state)
{
    (void)state;
    struct host host;
    start(&host, 100);
    host_until(&host, SOON_MS, row_of(&host, "v").valid & VM_ROW_ACTIVE);
    set_sampling(&host, 0, 0.25, 0.75);
    host_until(&host, SOON_MS, !(row_of(&host, "v").valid & VM_ROW_ACTIVE));
    uint64_t periods = row_of(&host, "v").sample_periods;
    host_run_ms(&host, 300);
    assert_int_equal(row_of(&host, "v").sample_periods, periods);
    set_sampling(&host, 100, 0.25, 0.75);
    host_until(&host, SOON_MS, row_of(&host, "v").valid & VM_ROW_ACTIVE);
    host_destroy(&host, "v");
    host_stop(&host);
}

static void impossible_settings_are_refused(void **state)
{
    (void)state;
    static const struct sampling_settings bad[] = {
        {ALL_PAGES + 1, 30000, 0.25, 0.75, false},
        {100, 99, 0.25, 0.75, false},
        {100, 3600001, 0.25, 0.75, false},
        {100, 30000, 0, 0.75, false},
        {100, 30000, 0.25, 1.01, false},
        {100, 30000, -1, 0.75, false},
        {100, 30000, NAN, 0.75, false},
        {100, 30000, 0.25, INFINITY, false},
    };
    struct host host;
    struct host_row row;
    struct err err;
    start(&host, 100);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(supervisor_set_sampling(host.supervisor, &bad[i], &err), -1);
    assert_int_equal(supervisor_set_vm_idle_tax(
                         host.supervisor, supervisor_find_vm(host.supervisor, "v"), 100, &err),
                     -1);
    supervisor_host_row(host.supervisor, &row);
    assert_int_equal(row.sampling.pages, 100);
    assert_int_equal(row.sampling.period_ms, PERIOD_MS);
    host_stop(&host);
}

/* It says that more pages were touched than were asked for, and that its time flies, then stands.
 */
static void a_liar_is_all_active_at_most(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, 64, "lying_worker");
    set_sampling(&host, 100, 0.25, 0.75);
    host_vm(&host, "liar", VM_MIB, 8, "");
    host_until(&host, SOON_MS, row_of(&host, "liar").sample_pages == 100);
    struct vm_stats *stats = &supervisor_find_vm(host.supervisor, "liar")->region->stats;
    atomic_store(&stats->pages.touched_pages, UINT64_MAX);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t periods = row_of(&host, "liar").sample_periods;
        atomic_store(&stats->vcpu_run_ns, i % 2 ? 1 : UINT64_MAX / 2); /* it goes back, too */
        host_until(&host, SOON_MS, row_of(&host, "liar").sample_periods > periods);
        assert_int_equal(row_of(&host, "liar").active_pages, VM_PAGES);
        assert_in_range(row_of(&host, "liar").sample_touched_pages, 0, 100);
    }
    assert_true(host_state_is(&host, "liar", "running"));
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_of_all_pages_is_the_truth),
        cmocka_unit_test(a_sample_of_some_is_near_it),
        cmocka_unit_test(the_truth_stands_beside_the_estimate),
        cmocka_unit_test(the_policy_is_told_once_it_is_known),
        cmocka_unit_test(periods_are_the_vms_own_time),
        cmocka_unit_test(switched_off_it_forgets),
        cmocka_unit_test(impossible_settings_are_refused),
        cmocka_unit_test(a_liar_is_all_active_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
