/*
 * What holds for every host: random machines, VMs and histories, thousands of
 * them, against the promises of policy.h. A failure names its seed.
 */
#include "tests/policy/round.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t random_state;

static uint64_t random_below(uint64_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return below ? (random_state >> 33) % below : 0;
}

/* A believable VM; what it holds is added up in *held. */
static void random_vm(struct host_under_test *host, uint64_t free_pages, uint64_t *held)
{
    struct policy_vm *vm = host_add(host, 64, 0);
    vm->memory_pages = 16 + random_below(1u << (8 + random_below(14)));
    vm->max_pages = 1 + random_below(vm->memory_pages);
    /* One draw a statement: the order of draws must not be the compiler's. */
    vm->min_pages = random_below(vm->max_pages);
    vm->min_pages /= 1 + random_below(16);
    vm->shares = (uint32_t)(1 + random_below(1u << random_below(24)));
    uint64_t left = vm->memory_pages;
    vm->allocated_pages = random_below((free_pages < left ? free_pages : left) + 1);
    left -= vm->allocated_pages;
    vm->balloon_pages = random_below(left + 1), left -= vm->balloon_pages;
    vm->paged_pages = random_below(left + 1), left -= vm->paged_pages;
    vm->absent_pages = left;
    vm->valid = (uint32_t)random_below(8);
    if (random_below(2)) {
        vm->valid |= POLICY_HAS_ACTIVE | (random_below(2) ? POLICY_HAS_IDLE_TAX : 0);
        vm->active_fraction = (double)random_below(101) / 100;
        vm->idle_tax_percent = (uint32_t)random_below(100);
    }
    vm->can = (uint32_t)random_below(8);
    vm->page_out_pending_pages = random_below(4) ? 0 : random_below(vm->allocated_pages + 1);
    if (random_below(6) == 0) {
        vm->valid |= POLICY_HAS_MANUAL_TARGET;
        vm->manual_target_pages = random_below(vm->memory_pages * 2);
    }
    *held += vm->allocated_pages;
}

static void random_host(struct host_under_test *host, const char *policy, uint64_t seed)
{
    random_state = seed * 2654435761u + 1;
    host_open(host, policy, 1);
    host->host.machine_pages = 100 + random_below(1u << (10 + random_below(14)));
    size_t count = random_below(24);
    uint64_t held = 0;
    for (size_t i = 0; i < count; i++)
        random_vm(host, host->host.machine_pages - held, &held);
    host->host.free_pages = host->host.machine_pages - held;
}

static bool fits_mins(const struct host_under_test *host)
{
    uint64_t mins = 0;
    for (size_t i = 0; i < host->count; i++)
        mins += host->vms[i].min_pages;
    return mins <= host->outcome.available_pages;
}

static void check_promises(const struct host_under_test *host, uint64_t seed)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < host->count; i++) {
        const struct policy_vm *vm = &host->vms[i];
        const struct policy_target *target = &host->targets[i];
        sum += target->target_pages;
        bool fine =
            target->id == vm->id && target->why == POLICY_AS_PLANNED &&
            target->target_pages >= vm->min_pages && target->target_pages <= vm->max_pages &&
            target->balloon_pages <= vm->memory_pages && target->limit_pages >= vm->min_pages &&
            (target->limit_pages >= vm->max_pages || (vm->can & POLICY_CAN_PAGE_OUT)) &&
            /* what can not be done is not asked for */
            (target->page_out_pages == 0 || (vm->can & POLICY_CAN_PAGE_OUT)) &&
            (!target->blocked || (vm->can & POLICY_CAN_BLOCK)) &&
            /* nor more than there is, nor below min, nor too much at once */
            (target->page_out_pages == 0 ||
             target->page_out_pages + vm->page_out_pending_pages + vm->min_pages <=
                 vm->allocated_pages) &&
            target->page_out_pages <= host->settings.page_out_limit_pages &&
            /* only who is above his target is kept from frames, and only in low */
            (!target->blocked ||
             (host->outcome.host == HOST_LOW && vm->allocated_pages > target->target_pages));
        if (!fine)
            fail_msg("seed %llu: VM %zu: target %llu of %llu..%llu, balloon %llu, page out %llu",
                     (unsigned long long)seed, i, (unsigned long long)target->target_pages,
                     (unsigned long long)vm->min_pages, (unsigned long long)vm->max_pages,
                     (unsigned long long)target->balloon_pages,
                     (unsigned long long)target->page_out_pages);
    }
    if (sum != host->outcome.target_pages)
        fail_msg("seed %llu: targets add up to %llu, not %llu", (unsigned long long)seed,
                 (unsigned long long)sum, (unsigned long long)host->outcome.target_pages);
    if (host->policy != policy_find("static") && fits_mins(host) &&
        sum > host->outcome.available_pages)
        fail_msg("seed %llu: targets %llu exceed %llu", (unsigned long long)seed,
                 (unsigned long long)sum, (unsigned long long)host->outcome.available_pages);
}

static void no_round_breaks_a_promise(void **unused)
{
    (void)unused;
    size_t policies = 0; /* all there are: a new one is in the list with its registration */
    while (policy_at(policies))
        policies++;
    for (uint64_t seed = 1; seed <= 4000; seed++) {
        struct host_under_test host;
        random_host(&host, policy_name(policy_at(seed % policies)), seed);
        for (int round = 0; round < 4; round++) {
            host_round_with_free(&host, random_below(20000), host.host.free_pages);
            check_promises(&host, seed);
        }
        host_close(&host);
    }
}

/* More shares for one VM never mean less memory for it, nor more for anyone else (a page of
 * rounding aside). */
static void memory_is_monotone_in_shares(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 6000; seed++) {
        struct host_under_test host;
        struct policy_target before[ROUND_MOST_VMS];
        random_host(&host, seed % 2 ? "proportional" : "esx", seed);
        if (host.count == 0) {
            host_close(&host);
            continue;
        }
        for (size_t i = 0; i < host.count; i++)
            host.vms[i].valid &= ~(uint32_t)POLICY_HAS_MANUAL_TARGET;
        host_round_with_free(&host, 0, host.host.free_pages);
        memcpy(before, host.targets, sizeof before);
        size_t chosen = random_below(host.count);
        host.vms[chosen].shares = host.vms[chosen].shares * 2 + (uint32_t)random_below(1000);
        host_round_with_free(&host, 0, host.host.free_pages);
        for (size_t i = 0; i < host.count; i++) {
            uint64_t was = before[i].target_pages, is = host.targets[i].target_pages;
            if (i == chosen ? is + 1 < was : is > was + 1)
                fail_msg("seed %llu: VM %zu (%s) went from %llu to %llu pages",
                         (unsigned long long)seed, i, i == chosen ? "richer" : "other",
                         (unsigned long long)was, (unsigned long long)is);
        }
        host_close(&host);
    }
}

/* A higher tax never gives more to a VM with nothing active, whoever else pays it; nor does a VM's
 * own tax give more to it, nor less to the others (a page of rounding aside). */
static void memory_is_monotone_in_the_tax(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 6000; seed++) {
        struct host_under_test host;
        struct policy_target before[ROUND_MOST_VMS];
        bool own = seed % 2;
        random_host(&host, "esx", seed);
        if (host.count == 0) {
            host_close(&host);
            continue;
        }
        size_t chosen = random_below(host.count);
        for (size_t i = 0; i < host.count; i++) {
            struct policy_vm *vm = &host.vms[i];
            vm->valid &= ~(uint32_t)(POLICY_HAS_MANUAL_TARGET | POLICY_HAS_IDLE_TAX);
        }
        if (!own) {
            host.vms[chosen].valid |= POLICY_HAS_ACTIVE;
            host.vms[chosen].active_fraction = 0;
        }
        uint32_t tax = (uint32_t)random_below(99),
                 more = tax + 1 + (uint32_t)random_below(99 - tax);
        host.settings.idle_tax_percent = tax;
        host_round_with_free(&host, 0, host.host.free_pages);
        memcpy(before, host.targets, sizeof before);
        if (own) {
            host.vms[chosen].valid |= POLICY_HAS_IDLE_TAX;
            host.vms[chosen].idle_tax_percent = more;
        } else {
            host.settings.idle_tax_percent = more;
        }
        host_round_with_free(&host, 0, host.host.free_pages);
        for (size_t i = 0; i < host.count; i++) {
            uint64_t was = before[i].target_pages, is = host.targets[i].target_pages;
            if (i == chosen ? is > was + 1 : own && is + 1 < was)
                fail_msg("seed %llu: tax %u to %u, VM %zu (%s) went from %llu to %llu pages",
                         (unsigned long long)seed, tax, more, i, i == chosen ? "taxed" : "other",
                         (unsigned long long)was, (unsigned long long)is);
        }
        host_close(&host);
    }
}

/* Equal VMs with equal shares and no tax: equal memory, whatever part of it is idle. */
static void equal_shares_give_equal_memory(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct host_under_test host;
        random_host(&host, seed % 2 ? "proportional" : "esx", seed);
        host.settings.idle_tax_percent = 0;
        for (size_t i = 1; i < host.count; i++) {
            struct policy_vm vm = host.vms[0];
            vm.id = host.vms[i].id;
            vm.active_fraction = host.vms[i].active_fraction;
            vm.valid &= ~(uint32_t)(POLICY_HAS_MANUAL_TARGET | POLICY_HAS_IDLE_TAX);
            host.vms[i] = vm;
        }
        if (host.count > 0)
            host.vms[0].valid &= ~(uint32_t)(POLICY_HAS_MANUAL_TARGET | POLICY_HAS_IDLE_TAX);
        host_round_with_free(&host, 0, host.host.free_pages);
        for (size_t i = 1; i < host.count; i++)
            if (host.targets[i].target_pages != host.targets[0].target_pages)
                fail_msg("seed %llu: VM %zu of %zu equal ones has %llu pages, the first %llu",
                         (unsigned long long)seed, i, host.count,
                         (unsigned long long)host.targets[i].target_pages,
                         (unsigned long long)host.targets[0].target_pages);
        host_close(&host);
    }
}

/* VMs that come and go from round to round, in another order each time, and rows that stand still
 * while the host's free memory moves: every round keeps every promise. */
static void no_coming_and_going_breaks_a_promise(void **unused)
{
    (void)unused;
    static const char *const policies[] = {"proportional", "static", "esx"};
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        struct host_under_test host;
        random_host(&host, policies[seed % 3], seed);
        struct policy_vm all[ROUND_MOST_VMS];
        size_t many = host.count;
        memcpy(all, host.vms, sizeof all);
        for (int round = 0; round < 8; round++) {
            host.count = 0;
            for (size_t i = 0; i < many; i++)
                if (random_below(4) > 0)
                    host.vms[host.count++] = all[i];
            for (size_t i = host.count; i > 1; i--) {
                size_t other = random_below(i);
                struct policy_vm vm = host.vms[i - 1];
                host.vms[i - 1] = host.vms[other];
                host.vms[other] = vm;
            }
            host_round_with_free(&host, random_below(20000),
                                 random_below(host.host.machine_pages + 1));
            check_promises(&host, seed);
            assert_int_equal(host.state->count, host.count);
        }
        host_close(&host);
    }
}

/* The same input gives the same output, whatever the order of the rows. */
static void a_round_is_a_function_of_its_input(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        struct host_under_test one, other;
        random_host(&one, seed % 2 ? "esx" : "proportional", seed);
        random_host(&other, seed % 2 ? "esx" : "proportional", seed);
        for (size_t i = 0; i < one.count / 2; i++) {
            struct policy_vm vm = other.vms[i];
            other.vms[i] = other.vms[other.count - 1 - i];
            other.vms[other.count - 1 - i] = vm;
        }
        for (int round = 0; round < 3; round++) {
            host_round_with_free(&one, 1000, one.host.free_pages);
            host_round_with_free(&other, 1000, other.host.free_pages);
            for (size_t i = 0; i < one.count; i++)
                if (memcmp(&one.targets[i], &other.targets[one.count - 1 - i],
                           sizeof one.targets[i]) != 0)
                    fail_msg("seed %llu: VM %zu is answered by its place", (unsigned long long)seed,
                             i);
        }
        host_close(&one);
        host_close(&other);
    }
}

/* Rows of random bits: nothing but refusals, and never more than there is for the others. */
static void garbage_is_refused_and_hurts_no_one(void **unused)
{
    (void)unused;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct host_under_test host;
        random_host(&host, seed % 2 ? "esx" : "proportional", seed);
        size_t believable = host.count;
        for (int i = 0; i < 8; i++) {
            struct policy_vm *vm = host_add(&host, 64, 0);
            for (size_t byte = 0; byte < sizeof *vm; byte++)
                ((unsigned char *)vm)[byte] = (unsigned char)random_below(256);
            vm->id = 5000 + (uint32_t)i;
            vm->allocated_pages |= UINT64_C(1) << 60;
        }
        for (int round = 0; round < 3; round++) {
            host_round_with_free(&host, 1000, host.host.free_pages);
            assert_int_equal(host.outcome.rows_refused, 8);
            host.count = believable;
            check_promises(&host, seed);
            host.count += 8;
        }
        host_close(&host);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_round_breaks_a_promise),
        cmocka_unit_test(memory_is_monotone_in_shares),
        cmocka_unit_test(memory_is_monotone_in_the_tax),
        cmocka_unit_test(equal_shares_give_equal_memory),
        cmocka_unit_test(no_coming_and_going_breaks_a_promise),
        cmocka_unit_test(a_round_is_a_function_of_its_input),
        cmocka_unit_test(garbage_is_refused_and_hurts_no_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
