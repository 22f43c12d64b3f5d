/*
 * Policy `static`: every VM may have its max; a target is what the operator
 * sets, and stays. Balloons follow those orders; nothing is paged out until the
 * host is hard or low, and then just enough to leave that state (reclaim.c).
 * The baseline that every other policy is compared with.
 */
#include "daemon/policy/policies.h"

static void decide(const struct policy_round *round, uint64_t *target_pages)
{
    for (size_t i = 0; i < round->count; i++) {
        target_pages[i] = round->vms[i]->max_pages;
        round->targets[i]->reason.rule = RULE_STATIC;
    }
}

const struct policy policy_static = {
    .name = "static",
    .summary = "targets stay as set, max by default; pages out only when the host is hard or low",
    .may_oversubscribe = true,
    .pages_only_when_hard = true,
    .decide = decide,
};
