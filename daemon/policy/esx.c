/*
 * Policy `esx`: min-funding revocation with the idle memory tax (paper, sections
 * 5.2 and 5.3). A VM pays
 *
 *     rho = S / (P (f + k (1 - f))),   k = 1 / (1 - tax)
 *
 * for its P pages, of which the fraction f is active; memory goes from the VM
 * that pays least to the others until all pay the same or stand at a bound. The
 * rule is solved rather than walked: water_fill.h finds the common price.
 *
 * The fraction f is measured by sampling over all of a VM's memory (active.h), so
 * it stands for f * memory active pages whatever the VM holds now. Without a
 * measurement all memory counts as active: nobody is taxed on a guess. The tax is
 * the host's unless the VM has one of its own.
 */
#include "daemon/policy/demand.h"

static void decide(const struct policy_round *round, uint64_t *target_pages)
{
    for (size_t i = 0; i < round->count; i++) {
        const struct policy_vm *vm = round->vms[i];
        double percent = vm->valid & POLICY_HAS_IDLE_TAX ? vm->idle_tax_percent
                                                         : round->settings->idle_tax_percent;
        round->vessels[i] = demand_vessel(round, i);
        if (!(vm->valid & POLICY_HAS_ACTIVE))
            continue;
        round->vessels[i].idle_tax = percent / 100;
        round->vessels[i].active_pages =
            (uint32_t)(vm->active_fraction * (double)vm->memory_pages + 0.5);
    }
    demand_fill(round, target_pages);
}

const struct policy policy_esx = {
    .name = "esx",
    .summary = "memory by shares, idle memory taxed (min-funding revocation, as ESX Server)",
    .gives_reasons = true,
    .decide = decide,
};
