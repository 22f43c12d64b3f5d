/*
 * The reason beside a target is enough to work the target out again: random
 * rounds under every policy, each target recomputed from nothing but its row and
 * its reason (recompute.h).
 */
#include "tests/policy/recompute.h"
#include "tests/policy/round.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static struct host_under_test host;

static unsigned long seen[POLICY_RULES];

static void assert_recomputable(void)
{
    for (size_t i = 0; i < host.count; i++) {
        const struct policy_target *target = &host.targets[i];
        const struct policy_reason *why = &target->reason;
        uint64_t expected = recomputed_pages(&host.vms[i], why);
        if (target->target_pages != expected)
            fail_msg("VM %u: target %llu, but rule %s gives %llu", target->id,
                     (unsigned long long)target->target_pages, policy_rule_name(why->rule),
                     (unsigned long long)expected);
        seen[why->rule]++;
    }
}

static uint64_t some(uint64_t most)
{
    return most ? (uint64_t)rand() % (most + 1) : 0;
}

static void random_vm(void)
{
    uint64_t mib = 16 + some(512), held = some(mib);
    struct policy_vm *vm = host_add(&host, mib, held);
    vm->shares = (uint32_t)(1 + some(10000));
    vm->max_pages = some(3) ? vm->memory_pages : 1 + some(vm->memory_pages - 1);
    vm->min_pages = some(vm->max_pages / 2);
    if (some(2)) {
        vm->valid |= POLICY_HAS_ACTIVE;
        vm->active_fraction = (double)some(1000) / 1000;
    }
    if (some(7) == 0) {
        vm->valid |= POLICY_HAS_MANUAL_TARGET;
        vm->manual_target_pages = some(vm->memory_pages);
    }
    if (some(5) == 0) {
        vm->valid |= POLICY_HAS_IDLE_TAX;
        vm->idle_tax_percent = (uint32_t)some(99);
    }
}

static void any_target_can_be_worked_out_again(void **state)
{
    (void)state;
    static const char *const names[] = {"esx", "proportional", "static"};
    for (unsigned seed = 1; seed <= 600; seed++) {
        srand(seed);
        host_open(&host, names[seed % 3], 64 + some(8192));
        host.settings.idle_tax_percent = (uint32_t)(some(4) ? 75 : some(99));
        for (uint64_t vms = 1 + some(20); vms > 0; vms--)
            random_vm();
        for (unsigned round = 0; round < 4; round++) {
            for (size_t i = 0; i < host.count; i++) {
                host.vms[i].active_fraction = (double)some(1000) / 1000;
                host.vms[i].absent_pages = some(host.vms[i].absent_pages);
            }
            bool possible = true; /* else the round refuses rows, which explain nothing */
            for (size_t i = 0; i < host.count; i++)
                possible &= host.vms[i].allocated_pages <= host.host.machine_pages;
            if (!possible)
                break;
            host_round_with_free(&host, 2000, some(host.host.machine_pages));
            assert_recomputable();
        }
        host_close(&host);
    }
    for (unsigned rule = 0; rule < POLICY_RULES; rule++)
        if (rule != RULE_POLICY && rule != RULE_ROW_REFUSED && rule != RULE_EXTERNAL && !seen[rule])
            fail_msg("no round was decided by rule %s", policy_rule_name(rule));
}

/* Two VMs as in Figure 7: the idle one pays for idle memory, the busy one for active memory only,
 * and both pay the same price. */
static void the_tax_is_explained_by_one_price(void **state)
{
    (void)state;
    host_open(&host, "esx", 336);
    for (int i = 0; i < 2; i++) {
        struct policy_vm *vm = host_add(&host, 256, 150);
        vm->min_pages = 0;
        vm->absent_pages = 0;
        vm->valid |= POLICY_HAS_ACTIVE;
    }
    host.vms[0].active_fraction = 0.05;
    host.vms[1].active_fraction = 0.99;
    host_round(&host, 0);
    assert_recomputable();
    const struct policy_reason *idle = &host.targets[0].reason, *busy = &host.targets[1].reason;
    assert_int_equal(idle->rule, RULE_TAX);
    assert_int_equal(busy->rule, RULE_RHO);
    assert_int_equal(idle->idle_tax_percent, 75);
    assert_true(idle->level == busy->level);
    /* rho = S / (P (f + k (1 - f))) of both, in the paper's words. */
    for (int i = 0; i < 2; i++) {
        double pages = (double)host.targets[i].target_pages, k = 4;
        double f = fmin(1, host.targets[i].reason.active_pages / pages);
        double rho = host.vms[i].shares / (pages * (f + k * (1 - f)));
        assert_true(fabs(rho * idle->level - 1) < 1e-3);
    }
    host_close(&host);
}

static void a_row_beyond_belief_says_so(void **state)
{
    (void)state;
    host_open(&host, "esx", 512);
    host_add(&host, 128, 64);
    host_add(&host, 128, 64)->min_pages = 1 << 30;
    host_round(&host, 0);
    assert_int_equal(host.targets[1].reason.rule, RULE_ROW_REFUSED);
    assert_int_equal(host.targets[0].reason.rule, RULE_MAX);
    host_close(&host);
}

static void every_rule_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (unsigned a = 0; a < POLICY_RULES; a++)
        for (unsigned b = 0; b < a; b++)
            assert_string_not_equal(policy_rule_name(a), policy_rule_name(b));
    assert_string_equal(policy_rule_name(POLICY_RULES), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_target_can_be_worked_out_again),
        cmocka_unit_test(the_tax_is_explained_by_one_price),
        cmocka_unit_test(a_row_beyond_belief_says_so),
        cmocka_unit_test(every_rule_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
