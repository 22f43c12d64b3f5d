#include "tests/policy/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

void host_open(struct host_under_test *host, const char *policy, uint64_t machine_mib)
{
    memset(host, 0, sizeof *host);
    host->policy = policy_find(policy);
    assert_non_null(host->policy);
    policy_settings_default(&host->settings);
    host->host.machine_pages = machine_mib * MIB_PAGES;
    host->state = policy_state_new();
    host->spare = policy_state_new();
    assert_non_null(host->state);
    assert_non_null(host->spare);
}

void host_open_two(struct host_under_test *host, uint64_t a_mib, uint64_t b_mib)
{
    host_open(host, "proportional", 320);
    host_add(host, 256, a_mib)->absent_pages = 0;
    host_add(host, 256, b_mib)->absent_pages = 0;
}

void host_close(struct host_under_test *host)
{
    policy_state_free(host->state);
    policy_state_free(host->spare);
}

struct policy_vm *host_add(struct host_under_test *host, uint64_t memory_mib,
                           uint64_t allocated_mib)
{
    assert_true(host->count < ROUND_MOST_VMS);
    struct policy_vm *vm = &host->vms[host->count];
    *vm = (struct policy_vm){
        .id = 100 + (uint32_t)host->count,
        .valid = POLICY_HAS_BALLOON | POLICY_HAS_ABSENT | POLICY_HAS_PAGED,
        .can = POLICY_CAN_BALLOON | POLICY_CAN_PAGE_OUT | POLICY_CAN_BLOCK,
        .shares = (uint32_t)(10 * memory_mib),
        .memory_pages = memory_mib * MIB_PAGES,
        .min_pages = memory_mib * MIB_PAGES / 2,
        .max_pages = memory_mib * MIB_PAGES,
        .allocated_pages = allocated_mib * MIB_PAGES,
        .absent_pages = (memory_mib - allocated_mib) * MIB_PAGES,
    };
    host->count++;
    return vm;
}

void host_round(struct host_under_test *host, uint64_t elapsed_ms)
{
    uint64_t held = 0;
    for (size_t i = 0; i < host->count; i++)
        held += host->vms[i].allocated_pages;
    assert_true(held <= host->host.machine_pages);
    host_round_with_free(host, elapsed_ms, host->host.machine_pages - held);
}

void host_round_with_free(struct host_under_test *host, uint64_t elapsed_ms, uint64_t free_pages)
{
    struct err err;
    host->host.free_pages = free_pages;
    host->host.elapsed_ns = elapsed_ms * NS_PER_MS;
    if (policy_decide(host->policy, &host->settings, host->state, &host->host, host->vms,
                      host->count, host->spare, host->targets, &host->outcome, &err) < 0)
        fail_msg("%s", err.text);
    struct policy_state *last = host->state;
    host->state = host->spare;
    host->spare = last;
}

uint64_t whole_mib(uint64_t pages)
{
    return (pages + MIB_PAGES / 2) / MIB_PAGES;
}
