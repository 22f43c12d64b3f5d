/*
 * Policy `proportional`: memory by shares, between min and what a VM could use.
 * It is min-funding revocation with an idle memory tax of 0 (paper, section
 * 5.1, with k = 1): whoever pays least, S / P, gives first, until all pay the
 * same or stand at a bound.
 *
 * A VM's demand is what it has touched, balloon and paged-out pages included
 * (memory that was taken from it is still wanted), and room to grow: a fixed
 * part of its memory, or twice what it grew in the last round if that is more.
 * First everybody's demand is filled, then what is left is handed out up to
 * max, so that idle room moves to those who can use it and a lone VM may have
 * everything.
 *
 * A demand rises at once and falls slowly (demand_decay_ns), so that a VM that
 * frees and takes memory in turns does not make its neighbours' balloons swing.
 */
#include "daemon/policy/policies.h"

enum own { OWN_DEMAND_PAGES, OWN_TOUCHED_PAGES, OWN_KNOWN };

static uint64_t touched_pages(const struct policy_vm *vm)
{
    uint64_t touched = vm->max_pages; /* unknown: it may have used everything */
    if (vm->valid & POLICY_HAS_ABSENT)
        touched = vm->memory_pages - vm->absent_pages;
    return touched > vm->allocated_pages ? touched : vm->allocated_pages;
}

static uint64_t demand_pages(const struct policy_round *round, size_t i)
{
    const struct policy_vm *vm = round->vms[i];
    double *own = round->memory[i]->own;
    double touched = (double)touched_pages(vm);
    double room = (double)vm->memory_pages * round->settings->growth_room_percent / 100;
    double demand;
    if (own[OWN_KNOWN] != 0) {
        double grown = touched - own[OWN_TOUCHED_PAGES];
        room = 2 * grown > room ? 2 * grown : room;
    }
    demand = touched + room;
    if (own[OWN_KNOWN] != 0 && demand < own[OWN_DEMAND_PAGES]) {
        double part = 1;
        if (round->host->elapsed_ns < round->settings->demand_decay_ns)
            part = (double)round->host->elapsed_ns / (double)round->settings->demand_decay_ns;
        demand = own[OWN_DEMAND_PAGES] - (own[OWN_DEMAND_PAGES] - demand) * part;
    }
    if (demand > (double)vm->max_pages)
        demand = (double)vm->max_pages;
    if (demand < (double)vm->min_pages)
        demand = (double)vm->min_pages;
    own[OWN_DEMAND_PAGES] = demand;
    own[OWN_TOUCHED_PAGES] = touched;
    own[OWN_KNOWN] = 1;
    return (uint64_t)demand;
}

static void decide(const struct policy_round *round, uint64_t *target_pages)
{
    struct water_vessel *vessels = round->vessels;
    uint64_t used = 0;
    for (size_t i = 0; i < round->count; i++) {
        const struct policy_vm *vm = round->vms[i];
        uint64_t demand = demand_pages(round, i);
        vessels[i] = (struct water_vessel){
            .shares = vm->shares,
            .floor_pages = vm->min_pages,
            .ceiling_pages = demand,
        };
    }
    water_fill(vessels, round->count, round->available_pages);
    for (size_t i = 0; i < round->count; i++) {
        uint64_t level = vessels[i].level_pages;
        used += level;
        vessels[i].base_pages = vessels[i].floor_pages = level;
        vessels[i].ceiling_pages = round->vms[i]->max_pages;
    }
    if (used < round->available_pages)
        water_fill(vessels, round->count, round->available_pages);
    for (size_t i = 0; i < round->count; i++)
        target_pages[i] = vessels[i].level_pages;
}

const struct policy policy_proportional = {
    .name = "proportional",
    .summary = "memory by shares between min and demand, idle or not (idle memory tax 0)",
    .decide = decide,
};
