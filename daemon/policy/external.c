/*
 * Policy `external`: the targets come with the rows, from a program on the
 * control socket (daemon/policy_external.h), and are taken as they are. Whoever
 * asks for it has judged them; a VM without one keeps its max. Not in
 * policy_table[]: nobody can set it, a program attaches.
 */
#include "daemon/policy/policies.h"

static void decide(const struct policy_round *round, uint64_t *target_pages)
{
    for (size_t i = 0; i < round->count; i++) {
        const struct policy_vm *vm = round->vms[i];
        target_pages[i] =
            vm->valid & POLICY_HAS_GIVEN_TARGET ? vm->given_target_pages : vm->max_pages;
        round->targets[i]->reason.rule = RULE_EXTERNAL;
    }
}

const struct policy policy_external = {
    .name = "external",
    .summary = "targets from a program on the control socket",
    .decide = decide,
};
