/*
 * One-line rounds for policy tests: a host, VMs with sensible rows, and
 * policy_decide with its two states swapped.
 */
#ifndef BALLAST_TEST_ROUND_H
#define BALLAST_TEST_ROUND_H

#include "daemon/policy/policy.h"

#define MIB_PAGES      256u
#define ROUND_MOST_VMS 64
#define NS_PER_MS      UINT64_C(1000000)

struct host_under_test {
    const struct policy *policy;
    struct policy_settings settings;
    struct policy_host host;
    struct policy_state *state, *spare;
    struct policy_vm vms[ROUND_MOST_VMS];
    struct policy_target targets[ROUND_MOST_VMS];
    struct policy_outcome outcome;
    size_t count;
};

/* A host of machine_mib under the named policy, with default settings and no VMs. */
void host_open(struct host_under_test *host, const char *policy, uint64_t machine_mib);

/* Under proportional, 320 MiB for two VMs that have touched all of their 256: each is due 147 MiB,
 * and who holds more is over his target. */
void host_open_two(struct host_under_test *host, uint64_t a_mib, uint64_t b_mib);

void host_close(struct host_under_test *host);

/* Add a VM that holds allocated_mib of memory_mib, has a balloon driver, swap, no balloon and
 * nothing paged out; min is half of memory, shares are 10 a MiB. */
struct policy_vm *host_add(struct host_under_test *host, uint64_t memory_mib,
                           uint64_t allocated_mib);

/* Free memory becomes what the VMs do not hold; then one round, elapsed_ms after the last. */
void host_round(struct host_under_test *host, uint64_t elapsed_ms);

/* The same, with free memory as given. */
void host_round_with_free(struct host_under_test *host, uint64_t elapsed_ms, uint64_t free_pages);

/* To the nearest. */
uint64_t whole_mib(uint64_t pages);

#endif
