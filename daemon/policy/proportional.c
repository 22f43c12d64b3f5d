/*
 * Policy `proportional`: memory by shares, between min and what a VM could use,
 * idle or not. It is min-funding revocation with an idle memory tax of 0 (paper,
 * section 5.1, with k = 1): whoever pays least, S / P, gives first, until all pay
 * the same or stand at a bound. See demand.h for who wants what.
 */
#include "daemon/policy/demand.h"

static void decide(const struct policy_round *round, uint64_t *target_pages)
{
    for (size_t i = 0; i < round->count; i++)
        round->vessels[i] = demand_vessel(round, i);
    demand_fill(round, target_pages);
}

const struct policy policy_proportional = {
    .name = "proportional",
    .summary = "memory by shares between min and demand, idle or not (idle memory tax 0)",
    .gives_reasons = true,
    .decide = decide,
};
