/* Policy esx: the price, the idle memory tax, the paper's closed form; and the active-memory
 * estimate it lives on. */
#include "tests/policy/round.h"

#include "daemon/policy/active.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* A host on which targets may add up to available_pages exactly. */
static void open_with_available(struct host_under_test *host, uint64_t available_pages)
{
    host_open(host, "esx", 64);
    host->host.machine_pages = available_pages;
    while (policy_available_pages(host->host.machine_pages, &host->settings) < available_pages)
        host->host.machine_pages++;
}

static struct policy_vm *add_active(struct host_under_test *host, uint64_t memory_mib,
                                    double active_mib)
{
    struct policy_vm *vm = host_add(host, memory_mib, 0);
    vm->min_pages = 0;
    vm->absent_pages = 0;
    vm->valid |= POLICY_HAS_ACTIVE | POLICY_HAS_ABSENT;
    vm->active_fraction = active_mib / (double)memory_mib;
    return vm;
}

static double mib(uint64_t pages)
{
    return (double)pages / MIB_PAGES;
}

static void equal_shares_and_no_tax_give_equal_memory(void **unused)
{
    (void)unused;
    struct host_under_test host;
    open_with_available(&host, 358 * MIB_PAGES);
    host.settings.idle_tax_percent = 0;
    add_active(&host, 256, 1);
    add_active(&host, 256, 250);
    host_round_with_free(&host, 0, host.host.machine_pages);
    assert_int_equal(host.targets[0].target_pages, 179 * MIB_PAGES);
    assert_int_equal(host.targets[1].target_pages, 179 * MIB_PAGES);
    host_close(&host);
}

/* Paper, Figure 7 (digitised) and its closed form: a1 + 4 (P1 - a1) = a2 + 4 (P2 - a2). */
static void figure_7_within_a_page(void **unused)
{
    (void)unused;
    const double active1 = 9.6, active2 = 200.7, both = 344.5;
    struct host_under_test host;
    open_with_available(&host, (uint64_t)(both * MIB_PAGES));
    add_active(&host, 256, active1);
    add_active(&host, 256, active2);
    host_round_with_free(&host, 0, host.host.machine_pages);
    double difference = 3 * (active2 - active1) / 4; /* P2 - P1 */
    double expected1 = (both - difference) / 2, expected2 = (both + difference) / 2;
    assert_true(fabs(mib(host.targets[0].target_pages) - expected1) <= 1.0 / MIB_PAGES);
    assert_true(fabs(mib(host.targets[1].target_pages) - expected2) <= 1.0 / MIB_PAGES);
    assert_true(fabs(expected1 - 100.6) < 0.05 && fabs(expected2 - 243.9) < 0.05);
    host_close(&host);
}

/* Whoever is strictly between its bounds pays the same price as the others. */
static void prices_are_equal_between_the_bounds(void **unused)
{
    (void)unused;
    srand(7);
    for (int trial = 0; trial < 500; trial++) {
        struct host_under_test host;
        double price = 0, price_slack = 0;
        open_with_available(&host, (uint64_t)(200 + rand() % 2000) * MIB_PAGES);
        host.settings.idle_tax_percent = (uint32_t)(rand() % 100);
        for (int i = 0; i < 8; i++) {
            struct policy_vm *vm = add_active(&host, 512, rand() % 512);
            vm->shares = (uint32_t)(1 + rand() % 10000);
            vm->min_pages = (uint64_t)(rand() % 20) * MIB_PAGES;
            if (rand() % 3 == 0) {
                vm->valid |= POLICY_HAS_IDLE_TAX;
                vm->idle_tax_percent = (uint32_t)(rand() % 100);
            }
        }
        host_round_with_free(&host, 0, host.host.machine_pages);
        for (size_t i = 0; i < host.count; i++) {
            const struct policy_vm *vm = &host.vms[i];
            double pages = (double)host.targets[i].target_pages;
            if (host.targets[i].target_pages <= vm->min_pages ||
                host.targets[i].target_pages >= vm->max_pages || pages < 1000)
                continue;
            double active = fmin(vm->active_fraction * (double)vm->memory_pages, pages);
            uint32_t tax = vm->valid & POLICY_HAS_IDLE_TAX ? vm->idle_tax_percent
                                                           : host.settings.idle_tax_percent;
            double k = 1 / (1 - tax / 100.0);
            double rho = vm->shares / (active + k * (pages - active));
            /* a page of rounding weighs up to k pages in the price */
            double slack = 1e-9 + k / (active + k * (pages - active));
            if (price == 0) {
                price = rho;
                price_slack = slack;
            } else if (fabs(rho / price - 1) > slack + price_slack) {
                fail_msg("trial %d VM %zu: price %g beside %g", trial, i, rho, price);
            }
        }
        host_close(&host);
    }
}

static void a_vm_without_a_measurement_is_not_taxed(void **unused)
{
    (void)unused;
    struct host_under_test host;
    open_with_available(&host, 300 * MIB_PAGES);
    add_active(&host, 256, 100)->valid &= ~(uint32_t)POLICY_HAS_ACTIVE;
    add_active(&host, 256, 256);
    host_round_with_free(&host, 0, host.host.machine_pages);
    assert_int_equal(host.targets[0].target_pages, host.targets[1].target_pages);
    host_close(&host);
}

static void idle_memory_falls_as_the_tax_rises(void **unused)
{
    (void)unused;
    uint64_t before = UINT64_MAX;
    for (uint32_t tax = 0; tax <= 99; tax += 3) {
        struct host_under_test host;
        open_with_available(&host, 300 * MIB_PAGES);
        host.settings.idle_tax_percent = tax;
        add_active(&host, 256, 10);
        add_active(&host, 256, 240);
        host_round_with_free(&host, 0, host.host.machine_pages);
        assert_true(host.targets[0].target_pages <= before);
        before = host.targets[0].target_pages;
        host_close(&host);
    }
    assert_true(before < 60 * MIB_PAGES);
}

static void garbage_taxes_are_refused(void **unused)
{
    (void)unused;
    struct host_under_test host;
    open_with_available(&host, 300 * MIB_PAGES);
    add_active(&host, 256, 10);
    struct policy_vm *vm = add_active(&host, 256, 10);
    vm->valid |= POLICY_HAS_IDLE_TAX;
    vm->idle_tax_percent = 100;
    add_active(&host, 256, 10)->active_fraction = NAN;
    add_active(&host, 256, 10)->active_fraction = -0.1;
    host_round_with_free(&host, 0, host.host.machine_pages);
    assert_int_equal(host.outcome.rows_refused, 3);
    host_close(&host);
}

/* ---- the estimate ---- */

static const struct active_settings *const settings = &active_settings_default;

static void a_busy_vm_is_believed_at_once(void **unused)
{
    (void)unused;
    struct active_estimate estimate = {0};
    active_period_over(&estimate, settings, 10, 100);
    assert_true(fabs(active_fraction(&estimate, settings, 0, 0) - 0.1) < 1e-12);
    /* half of the next period, all of it touched */
    assert_true(fabs(active_fraction(&estimate, settings, 50, 50) - (0.1 + 0.75 * 0.9)) < 1e-12);
    active_period_over(&estimate, settings, 100, 100);
    assert_true(active_fraction(&estimate, settings, 0, 0) > 0.77);
}

static void an_idle_vm_is_believed_slowly(void **unused)
{
    (void)unused;
    struct active_estimate estimate = {0};
    active_period_over(&estimate, settings, 100, 100);
    double expected = 1;
    for (int period = 0; period < 10; period++) {
        active_period_over(&estimate, settings, 0, 100);
        expected *= 1 - settings->slow_gain;
        assert_true(fabs(active_fraction(&estimate, settings, 0, 0) - expected) < 1e-12);
    }
}

static void empty_and_impossible_counts_do_no_harm(void **unused)
{
    (void)unused;
    struct active_estimate estimate = {0};
    active_period_over(&estimate, settings, 5, 0);
    assert_false(estimate.known);
    active_period_over(&estimate, settings, 500, 100); /* more touched than sampled */
    assert_true(active_fraction(&estimate, settings, 0, 0) == 1);
    assert_true(active_fraction(&estimate, settings, 7, 0) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_shares_and_no_tax_give_equal_memory),
        cmocka_unit_test(figure_7_within_a_page),
        cmocka_unit_test(prices_are_equal_between_the_bounds),
        cmocka_unit_test(a_vm_without_a_measurement_is_not_taxed),
        cmocka_unit_test(idle_memory_falls_as_the_tax_rises),
        cmocka_unit_test(garbage_taxes_are_refused),
        cmocka_unit_test(a_busy_vm_is_believed_at_once),
        cmocka_unit_test(an_idle_vm_is_believed_slowly),
        cmocka_unit_test(empty_and_impossible_counts_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
