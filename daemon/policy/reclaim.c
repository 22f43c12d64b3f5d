#include "daemon/policy/reclaim.h"

#include <math.h>

/* The table of reclaim.h. */
static const struct action {
    bool grow, page_for_balloon, page_anyone, withhold, shrink;
} actions[HOST_STATES] = {
    [HOST_HIGH] = {.shrink = true},
    [HOST_SOFT] = {.grow = true, .page_for_balloon = true},
    [HOST_HARD] = {.grow = true, .page_for_balloon = true, .page_anyone = true},
    [HOST_LOW] = {.grow = true, .page_for_balloon = true, .page_anyone = true, .withhold = true},
};

/* Balloon movements below 1/256 of the memory are not worth a message, nor a judgement. */
#define SMALL_PART        256
#define SMALL_LEAST_PAGES 64

/* No more than 1/16 of its memory is believed to be out of a guest's own reach: a Debian guest of
 * 256 MiB has some 7 MiB there. */
#define UNTOUCHED_PART 16

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t small_pages(const struct policy_vm *vm)
{
    uint64_t part = vm->memory_pages / SMALL_PART;
    return part > SMALL_LEAST_PAGES ? part : SMALL_LEAST_PAGES;
}

static bool is_manual(const struct policy_vm *vm)
{
    return vm->valid & POLICY_HAS_MANUAL_TARGET;
}

static uint64_t excess_pages(const struct policy_vm *vm, const struct policy_target *target)
{
    return less(vm->allocated_pages, target->target_pages);
}

/* What the balloon can have by the guest's own word: what it has given, and what it can spare
 * beside. Asked for more, the driver would push the guest into killing its processes; the host
 * pages that. */
static uint64_t spare_pages(const struct policy_vm *vm)
{
    if (!(vm->valid & POLICY_HAS_GUEST) || !(vm->valid & POLICY_HAS_BALLOON))
        return UINT64_MAX;
    return vm->balloon_pages + least(vm->guest_available_pages, vm->memory_pages);
}

static uint64_t ceiling_pages(const struct reclaim_round *round, const struct policy_vm *vm)
{
    double part = is_manual(vm) ? 100 : round->settings->balloon_ceiling_percent;
    return least((uint64_t)((double)vm->memory_pages * part / 100), spare_pages(vm));
}

/* Memory that was never touched and that the guest does not count as free either: what its kernel
 * set aside and does not use. It costs no frame and will hardly ever; were it taken for the guest's
 * to use, the guest would stay that much below its target for good. A guest that lies about it
 * keeps that much more than others until the host is short of memory; then it is asked for what it
 * touched of it. */
static uint64_t untouched_pages(const struct policy_vm *vm)
{
    if (!(vm->valid & POLICY_HAS_GUEST) || is_manual(vm))
        return 0;
    return least(vm->guest_untouched_pages, vm->memory_pages / UNTOUCHED_PART);
}

/* What the balloon should have for the target to hold: all memory beyond it that costs no frame
 * already: paged out (or about to be), saved by sharing, untouched. Else paging and balloon would
 * both take the same excess. */
static uint64_t wanted_balloon(const struct reclaim_round *round, size_t i)
{
    const struct policy_vm *vm = round->vms[i];
    uint64_t out = vm->page_out_pending_pages + untouched_pages(vm);
    if (vm->valid & POLICY_HAS_PAGED)
        out += vm->paged_pages;
    if (vm->valid & POLICY_HAS_SAVED)
        out += vm->saved_pages; /* they cost no frame */
    uint64_t wanted = less(less(vm->memory_pages, round->targets[i]->target_pages), out);
    return least(wanted, ceiling_pages(round, vm));
}

/* How much all balloons together may shrink now, as the part of what they would: 0 .. 1. */
static double shrinking_part(const struct reclaim_round *round)
{
    uint64_t keep =
        host_state_rise_pages(HOST_HARD, round->host->machine_pages, &round->settings->thresholds);
    uint64_t room = less(round->host->free_pages, keep), wish = 0;
    for (size_t i = 0; i < round->count; i++)
        if ((round->vms[i]->can & POLICY_CAN_BALLOON) && !is_manual(round->vms[i]))
            wish += less(round->memory[i]->balloon_pages, wanted_balloon(round, i));
    return wish <= room ? 1 : (double)room / (double)wish;
}

static void plan_balloon(const struct reclaim_round *round, size_t i, double shrinking)
{
    const struct policy_vm *vm = round->vms[i];
    struct policy_memory *memory = round->memory[i];
    struct policy_target *target = round->targets[i];
    const struct action *action = &actions[round->state];
    uint64_t asked = memory->balloon_pages, wanted = wanted_balloon(round, i);

    if (is_manual(vm)) {
        asked = wanted;
    } else if (!(vm->can & POLICY_CAN_BALLOON)) {
        asked = least(asked, wanted); /* what a driver that comes back may go on with */
    } else if (wanted > asked) {
        if (action->grow && excess_pages(vm, target) > 0)
            asked = wanted;
    } else if (action->shrink && (asked - wanted >= small_pages(vm) || wanted == 0)) {
        asked -= (uint64_t)ceil((double)(asked - wanted) * shrinking);
    }
    if (vm->can & POLICY_CAN_BALLOON)
        asked = least(asked, spare_pages(vm)); /* it may need what it could spare when asked */
    memory->balloon_pages = target->balloon_pages = asked;
}

/*
 * Has the balloon stopped on its way? The pmap's count of ballooned pages
 * decides, not what the guest says; without it, how much memory is not held.
 * Time counts only while the host needs memory (or an operator ordered it).
 */
static void watch_balloon(const struct reclaim_round *round, size_t i)
{
    const struct policy_vm *vm = round->vms[i];
    struct policy_memory *memory = round->memory[i];
    struct policy_target *target = round->targets[i];
    uint64_t size = (vm->valid & POLICY_HAS_BALLOON) ? vm->balloon_pages
                                                     : less(vm->memory_pages, vm->allocated_pages);
    uint64_t missing = less(memory->balloon_pages, size);
    uint64_t step = missing / 16 > SMALL_LEAST_PAGES ? missing / 16 : SMALL_LEAST_PAGES;
    bool needed = actions[round->state].grow || is_manual(vm);

    if (size < memory->progress_pages)
        memory->progress_pages = size; /* it shrank: from here on, growing counts again */
    if (!(vm->can & POLICY_CAN_BALLOON) || missing < small_pages(vm) ||
        size >= memory->progress_pages + step) {
        memory->stalled = false;
        memory->no_progress_ns = 0;
        memory->progress_pages = size;
    } else if (excess_pages(vm, target) == 0) {
        memory->no_progress_ns =
            0; /* no one waits for it; once stalled it stays so till it moves */
    } else if (needed) {
        memory->no_progress_ns += round->host->elapsed_ns;
        if (memory->no_progress_ns >= round->settings->stall_ms * UINT64_C(1000000))
            memory->stalled = true;
    }
    target->balloon_stalled = memory->stalled;
}

/* Must paging do what a balloon should? */
static bool balloon_can_not(const struct reclaim_round *round, size_t i)
{
    const struct policy_vm *vm = round->vms[i];
    if (!(vm->can & POLICY_CAN_BALLOON) || round->memory[i]->stalled)
        return true;
    uint64_t ceiling = ceiling_pages(round, vm);
    return (vm->valid & POLICY_HAS_BALLOON) && vm->balloon_pages + small_pages(vm) >= ceiling &&
           wanted_balloon(round, i) == ceiling;
}

/* Where no balloon can, and paging was called for: hold the VM at its target. */
static void plan_limit(const struct reclaim_round *round, size_t i, bool can_not)
{
    const struct policy_vm *vm = round->vms[i];
    const struct action *action = &actions[round->state];
    struct policy_memory *memory = round->memory[i];
    struct policy_target *target = round->targets[i];
    bool calls = round->policy->pages_only_when_hard ? action->page_anyone
                                                     : action->page_for_balloon || is_manual(vm);

    if (!(vm->can & POLICY_CAN_PAGE_OUT) || !can_not)
        memory->limit_pages = 0;
    else if (calls && excess_pages(vm, target) > 0)
        memory->limit_pages = target->target_pages;
    else if (memory->limit_pages && action->shrink && memory->limit_pages < target->target_pages)
        memory->limit_pages = target->target_pages;
    if (memory->limit_pages && memory->limit_pages < vm->min_pages)
        memory->limit_pages = vm->min_pages; /* raised since */
    if (memory->limit_pages >= vm->max_pages)
        memory->limit_pages = 0;
    target->limit_pages = memory->limit_pages ? memory->limit_pages : vm->max_pages;
}

/* Which group of victims is a VM in? PAGED_ANYONE, beside these, are all who can be paged out. */
enum paged { PAGED_BY_ORDER, PAGED_FOR_BALLOON, PAGED_BESIDE_BALLOON, NOT_PAGED };
_Static_assert(NOT_PAGED == RECLAIM_GROUPS, "a sum for each group");

/* Is anything paged out in this state, and under this policy? */
static bool may_page(const struct reclaim_round *round)
{
    return !round->policy->pages_only_when_hard || actions[round->state].page_anyone;
}

/* The VM's group, and with how many pages it is in it: those above its target that were not asked
 * for before. */
static struct reclaim_victim victim_of(const struct reclaim_round *round, size_t i, bool can_not)
{
    const struct policy_vm *vm = round->vms[i];
    const struct action *action = &actions[round->state];
    uint64_t pages = less(excess_pages(vm, round->targets[i]), vm->page_out_pending_pages);
    struct reclaim_victim none = {.group = NOT_PAGED};
    /* What is cut off here is far beyond the limit of a round. */
    struct reclaim_victim victim = {
        .pages = (uint32_t)least(pages, UINT32_MAX),
        .pending = (uint32_t)least(vm->page_out_pending_pages, UINT32_MAX),
    };
    if (!(vm->can & POLICY_CAN_PAGE_OUT) || victim.pages == 0)
        return none;
    if (can_not && is_manual(vm))
        victim.group = PAGED_BY_ORDER;
    else if (can_not)
        victim.group = action->page_for_balloon ? PAGED_FOR_BALLOON : NOT_PAGED;
    else
        victim.group = action->page_anyone ? PAGED_BESIDE_BALLOON : NOT_PAGED;
    return victim.group == NOT_PAGED ? none : victim;
}

/* Ask a VM for its part of what is needed. Returns what was asked for. */
static uint64_t ask_page_out(const struct reclaim_round *round, size_t i, uint64_t has_pages,
                             uint64_t pending_pages, double part)
{
    struct policy_target *target = round->targets[i];
    uint64_t limit =
        less(round->settings->page_out_limit_pages, pending_pages + target->page_out_pages);
    uint64_t ask = least(least((uint64_t)ceil((double)has_pages * part), has_pages), limit);
    target->page_out_pages += ask;
    return ask;
}

/* Ask a group, which has all_pages, for need_pages in proportion to what each has. Returns what was
 * asked for. */
static uint64_t page_out_group(const struct reclaim_round *round, enum paged group,
                               uint64_t all_pages, uint64_t need_pages)
{
    uint64_t asked = 0;
    if (all_pages == 0 || need_pages == 0)
        return 0;
    double part = need_pages < all_pages ? (double)need_pages / (double)all_pages : 1;
    for (size_t i = 0; i < round->count; i++)
        if (round->victims[i].group == group)
            asked +=
                ask_page_out(round, i, round->victims[i].pages, round->victims[i].pending, part);
    return asked;
}

static uint64_t above_min_pages(const struct reclaim_round *round, size_t i)
{
    const struct policy_vm *vm = round->vms[i];
    if (!(vm->can & POLICY_CAN_PAGE_OUT))
        return 0;
    return less(vm->allocated_pages,
                vm->page_out_pending_pages + round->targets[i]->page_out_pages + vm->min_pages);
}

/* The same from everyone above min, beside what was asked of him above. */
static void page_out_anyone(const struct reclaim_round *round, uint64_t need_pages)
{
    uint64_t all = 0;
    for (size_t i = 0; need_pages > 0 && i < round->count; i++)
        all += above_min_pages(round, i);
    if (all == 0)
        return;
    double part = need_pages < all ? (double)need_pages / (double)all : 1;
    for (size_t i = 0; i < round->count; i++)
        ask_page_out(round, i, above_min_pages(round, i), round->vms[i]->page_out_pending_pages,
                     part);
}

void reclaim_end(const struct reclaim_round *round)
{
    const struct reclaim_sums *sums = &round->sums;
    uint64_t leave_hard = round->leave_hard_pages;
    uint64_t coming = round->host->free_pages + sums->pending_pages;
    uint64_t anyone = less(less(leave_hard, coming), sums->excess_pages);
    if (!may_page(round))
        return;
    coming += page_out_group(round, PAGED_BY_ORDER, sums->victim_pages[PAGED_BY_ORDER], UINT64_MAX);
    coming += page_out_group(round, PAGED_FOR_BALLOON, sums->victim_pages[PAGED_FOR_BALLOON],
                             less(round->aim_free_pages, coming));
    page_out_group(round, PAGED_BESIDE_BALLOON, sums->victim_pages[PAGED_BESIDE_BALLOON],
                   less(leave_hard, coming));
    if (actions[round->state].page_anyone)
        page_out_anyone(round, anyone);
}

bool reclaim_looks_ahead(const struct reclaim_round *round)
{
    return actions[round->state].shrink;
}

void reclaim_begin(struct reclaim_round *round)
{
    round->sums = (struct reclaim_sums){0};
    round->shrinking = reclaim_looks_ahead(round) ? shrinking_part(round) : 0;
}

void reclaim_vm(struct reclaim_round *round, size_t i)
{
    const struct policy_vm *vm = round->vms[i];
    struct policy_target *target = round->targets[i];
    struct reclaim_sums *sums = &round->sums;
    uint64_t excess = excess_pages(vm, target);
    watch_balloon(round, i);
    plan_balloon(round, i, round->shrinking);
    bool can_not = balloon_can_not(round, i);
    plan_limit(round, i, can_not);
    target->page_out_pages = 0;
    target->blocked = actions[round->state].withhold && (vm->can & POLICY_CAN_BLOCK) && excess > 0;
    struct reclaim_victim victim = victim_of(round, i, can_not);
    round->victims[i] = victim;
    if (victim.group != NOT_PAGED)
        sums->victim_pages[victim.group] += victim.pages;
    sums->pending_pages += vm->page_out_pending_pages;
    sums->excess_pages += less(excess, vm->page_out_pending_pages);
}
