#include "daemon/policy/demand.h"

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
        double part = 1, decay_ns = round->settings->demand_decay_ms * 1e6;
        if ((double)round->host->elapsed_ns < decay_ns)
            part = (double)round->host->elapsed_ns / decay_ns;
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

struct water_vessel demand_vessel(const struct policy_round *round, size_t i)
{
    return (struct water_vessel){
        .shares = round->vms[i]->shares,
        .floor_pages = (uint32_t)round->vms[i]->min_pages,
        .ceiling_pages = (uint32_t)demand_pages(round, i),
    };
}

/* Why a vessel filled to level holds what it holds. */
static struct policy_reason reason_of(const struct policy_vm *vm, const struct water_vessel *vessel,
                                      double level)
{
    struct policy_reason reason = {
        .idle_tax_percent = (uint8_t)(vessel->idle_tax * 100 + 0.5),
        .active_pages = vessel->idle_tax > 0 ? vessel->active_pages : (uint32_t)vm->memory_pages,
        .demand_pages = vessel->ceiling_pages,
        .level = level,
    };
    if (vessel->level_pages == vm->max_pages)
        reason.rule = RULE_MAX;
    else if (vessel->level_pages == vessel->ceiling_pages)
        reason.rule = RULE_DEMAND;
    else if (vessel->level_pages == vessel->floor_pages)
        reason.rule = RULE_MIN;
    else if (vessel->idle_tax <= 0)
        reason.rule = RULE_SHARES;
    else
        reason.rule = vessel->level_pages > vessel->active_pages ? RULE_TAX : RULE_RHO;
    return reason;
}

/* What the demands leave goes beyond them, up to max. */
static void hand_out_rest(const struct policy_round *round, uint64_t *target_pages)
{
    struct water_vessel *vessels = round->vessels;
    for (size_t i = 0; i < round->count; i++) {
        uint32_t level = vessels[i].level_pages;
        vessels[i] = (struct water_vessel){
            .shares = vessels[i].shares,
            .base_pages = level,
            .floor_pages = level,
            .ceiling_pages = (uint32_t)round->vms[i]->max_pages,
        };
    }
    double price = water_fill(vessels, round->count, round->available_pages);
    for (size_t i = 0; i < round->count; i++) {
        struct policy_reason *reason = &round->targets[i]->reason;
        target_pages[i] = vessels[i].level_pages;
        if (target_pages[i] == vessels[i].base_pages)
            continue;
        reason->rule = target_pages[i] == round->vms[i]->max_pages ? RULE_MAX : RULE_SURPLUS;
        reason->base_pages = vessels[i].base_pages;
        reason->level = price;
    }
}

void demand_fill(const struct policy_round *round, uint64_t *target_pages)
{
    const struct water_vessel *vessels = round->vessels;
    bool content = true; /* every demand is filled: what rounding left over is not handed out */
    double price = water_fill(round->vessels, round->count, round->available_pages);
    for (size_t i = 0; i < round->count; i++) {
        target_pages[i] = vessels[i].level_pages;
        round->targets[i]->reason = reason_of(round->vms[i], &vessels[i], price);
        content &= !vessels[i].shares || vessels[i].level_pages == vessels[i].ceiling_pages;
    }
    if (content)
        hand_out_rest(round, target_pages);
}
