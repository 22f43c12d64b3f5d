#include "tests/policy/recompute.h"

/* What its shares buy, in whole pages. */
static uint64_t bought(const struct policy_vm *vm, const struct policy_reason *why)
{
    double paid = (double)vm->shares * why->level, active = why->active_pages;
    if (paid > active)
        paid = active + (paid - active) * (1 - why->idle_tax_percent / 100.0);
    return (uint64_t)paid;
}

uint64_t recomputed_pages(const struct policy_vm *vm, const struct policy_reason *why)
{
    uint64_t order = vm->manual_target_pages, pages;
    switch ((enum policy_rule)why->rule) {
    case RULE_MANUAL:
        return order < vm->min_pages   ? vm->min_pages
               : order > vm->max_pages ? vm->max_pages
                                       : order;
    case RULE_MANUAL_CUT:
        pages = bought(vm, why);
        return pages < vm->min_pages ? vm->min_pages : pages < order ? pages : order;
    case RULE_MIN:
        return vm->min_pages;
    case RULE_MAX:
    case RULE_STATIC:
        return vm->max_pages;
    case RULE_DEMAND:
        return why->demand_pages;
    case RULE_SHARES:
    case RULE_RHO:
    case RULE_TAX:
        return bought(vm, why);
    case RULE_SURPLUS:
        return (uint64_t)(why->base_pages + (double)vm->shares * why->level);
    default:
        return UINT64_MAX;
    }
}
