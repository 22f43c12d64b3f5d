/*
 * One round of policy: judge the rows, find the state, ask the policy for
 * targets, plan the reclaim. Everything is worked out in memory of the round's
 * own; the next state is touched only when nothing can fail any more.
 */
#include "daemon/policy/policy.h"

#include "daemon/policy/policies.h"
#include "daemon/policy/reclaim.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* POLICY_LIST is POLICY(NAME) for every name in the list of meson.build. */
#define POLICY(name) extern const struct policy policy_##name;
POLICY_LIST
#undef POLICY
#define POLICY(name) &policy_##name,
static const struct policy *const policy_table[] = {POLICY_LIST};
#define POLICIES (sizeof policy_table / sizeof policy_table[0])

const struct policy *policy_at(size_t index)
{
    return index < POLICIES ? policy_table[index] : NULL;
}

const struct policy *policy_find(const char *name)
{
    for (size_t i = 0; i < POLICIES; i++)
        if (strcmp(policy_table[i]->name, name) == 0)
            return policy_table[i];
    return NULL;
}

const char *policy_name(const struct policy *policy)
{
    return policy->name;
}

const char *policy_summary(const struct policy *policy)
{
    return policy->summary;
}

struct policy_state *policy_state_new(void)
{
    return calloc(1, sizeof(struct policy_state));
}

void policy_state_free(struct policy_state *state)
{
    if (!state)
        return;
    free(state->vms);
    free(state);
}

const char *policy_rule_name(enum policy_rule rule)
{
    static const char *const names[POLICY_RULES] = {
        [RULE_POLICY] = "policy",     [RULE_ROW_REFUSED] = "row-refused",
        [RULE_MANUAL] = "manual",     [RULE_MANUAL_CUT] = "manual-cut",
        [RULE_MIN] = "min",           [RULE_MAX] = "max",
        [RULE_DEMAND] = "demand",     [RULE_SHARES] = "shares",
        [RULE_RHO] = "rho",           [RULE_TAX] = "tax",
        [RULE_SURPLUS] = "surplus",   [RULE_STATIC] = "static",
        [RULE_EXTERNAL] = "external",
    };
    return (unsigned)rule < POLICY_RULES ? names[rule] : "unknown";
}

#define MOST_CHARGED_PAGES (UINT64_C(1) << 48) /* more than any machine's VMs have: no overflow */

/* ---- one round's own memory ---- */

/* A row on its way through the round. */
struct entry {
    const struct policy_vm *vm;
    struct policy_target *target;
    struct policy_memory memory; /* as it will be in the next state */
    bool refused;
};

struct work {
    size_t count;
    struct entry *entries; /* sorted by id */
    /* Parallel arrays over believed rows, in the order of entries. Those with "2" are twice as
     * long: behind the rows stand those of VMs without a manual target, side by side. */
    const struct policy_vm **vms;   /* 2 */
    struct policy_memory **memory;  /* 2 */
    uint64_t *target_pages;         /* 2 */
    struct policy_target **targets; /* 2 */
    struct water_vessel *vessels;
    struct policy_memory *next_vms;
};

static void work_free(struct work *work)
{
    free(work->entries);
    free(work->vms);
    free(work->memory);
    free(work->targets);
    free(work->vessels);
    free(work->target_pages);
    free(work->next_vms);
}

static int work_new(struct work *work, size_t count, struct err *err)
{
    size_t slots = count ? count : 1;
    *work = (struct work){
        .count = count,
        .entries = calloc(slots, sizeof *work->entries),
        .vms = calloc(2 * slots, sizeof(void *)),
        .memory = calloc(2 * slots, sizeof(void *)),
        .targets = calloc(2 * slots, sizeof(void *)),
        .vessels = calloc(slots, sizeof *work->vessels),
        .target_pages = calloc(2 * slots, sizeof *work->target_pages),
        .next_vms = calloc(slots, sizeof *work->next_vms),
    };
    if (work->entries && work->vms && work->memory && work->targets && work->vessels &&
        work->target_pages && work->next_vms)
        return 0;
    work_free(work);
    return err_set(err, ENOMEM, "policy round over %zu VMs", count);
}

/* ---- rows ---- */

static int by_id(const void *a, const void *b)
{
    uint32_t left = ((const struct entry *)a)->vm->id, right = ((const struct entry *)b)->vm->id;
    return (left > right) - (left < right);
}

static bool row_is_possible(const struct policy_vm *vm, const struct policy_host *host)
{
    if (vm->memory_pages == 0 || vm->min_pages > vm->max_pages ||
        vm->max_pages > vm->memory_pages || vm->memory_pages > UINT32_MAX)
        return false;
    if (vm->allocated_pages > host->machine_pages + host->shared_charge_pages ||
        vm->page_out_pending_pages > host->machine_pages)
        return false;
    if ((vm->valid & POLICY_HAS_BALLOON) && vm->balloon_pages > vm->memory_pages)
        return false;
    if ((vm->valid & POLICY_HAS_ABSENT) && vm->absent_pages > vm->memory_pages)
        return false;
    if ((vm->valid & POLICY_HAS_PAGED) && vm->paged_pages > vm->memory_pages)
        return false;
    if ((vm->valid & POLICY_HAS_ACTIVE) &&
        !(vm->active_fraction >= 0 && vm->active_fraction <= 1)) /* NaN fails too */
        return false;
    if ((vm->valid & POLICY_HAS_IDLE_TAX) && vm->idle_tax_percent > 99)
        return false;
    return true;
}

/* Sort the rows, refuse the impossible ones, and fetch what is remembered of each VM. Returns the
 * number of rows refused. */
static uint32_t judge_rows(struct work *work, const struct policy_state *previous,
                           const struct policy_host *host, const struct policy_vm *vms,
                           struct policy_target *targets)
{
    uint32_t refused = 0;
    size_t known = 0;
    bool sorted = true; /* as a caller that keeps a list hands them over */
    for (size_t i = 0; i < work->count; i++) {
        work->entries[i] = (struct entry){.vm = &vms[i], .target = &targets[i]};
        sorted = sorted && (i == 0 || vms[i - 1].id <= vms[i].id);
    }
    if (!sorted)
        qsort(work->entries, work->count, sizeof *work->entries, by_id);
    for (size_t i = 0; i < work->count; i++) {
        struct entry *entry = &work->entries[i];
        uint32_t id = entry->vm->id;
        bool twice = (i > 0 && work->entries[i - 1].vm->id == id) ||
                     (i + 1 < work->count && work->entries[i + 1].vm->id == id);
        while (known < previous->count && previous->vms[known].id < id)
            known++;
        if (known < previous->count && previous->vms[known].id == id)
            entry->memory = previous->vms[known];
        entry->memory.id = id;
        entry->refused = twice || !row_is_possible(entry->vm, host);
        refused += entry->refused;
    }
    return refused;
}

/* A refused VM stays as it is. Returns the memory it is taken to hold. */
static uint64_t leave_alone(const struct entry *entry, const struct policy_host *host)
{
    uint64_t held = entry->vm->allocated_pages;
    if (held > host->machine_pages + host->shared_charge_pages)
        held = entry->memory.target_pages;
    *entry->target = (struct policy_target){
        .id = entry->vm->id,
        .why = POLICY_ROW_REFUSED,
        .target_pages = entry->memory.target_pages ? entry->memory.target_pages : held,
        .balloon_pages = entry->memory.balloon_pages,
        .balloon_stalled = entry->memory.stalled,
        .limit_pages = entry->memory.limit_pages ? entry->memory.limit_pages : UINT64_MAX,
        .reason.rule = RULE_ROW_REFUSED,
    };
    return held;
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* ---- targets ---- */

/*
 * Orders of the operator come first, but not at the cost of anyone's min: where
 * they do not fit, they are cut by shares. Returns what is left for the others.
 */
static uint64_t place_manual(struct work *work, size_t count, bool may_oversubscribe,
                             uint64_t available_pages)
{
    uint64_t mins = 0, given = 0;
    double level = INFINITY;
    for (size_t i = 0; i < count; i++) {
        const struct policy_vm *vm = work->vms[i];
        bool manual = vm->valid & POLICY_HAS_MANUAL_TARGET;
        uint64_t order = clamp(vm->manual_target_pages, vm->min_pages, vm->max_pages);
        mins += manual ? 0 : vm->min_pages;
        work->vessels[i] = (struct water_vessel){
            .shares = manual ? vm->shares : 0,
            .floor_pages = manual ? vm->min_pages : 0,
            .ceiling_pages = manual ? order : 0,
            .level_pages = manual ? order : 0,
        };
    }
    if (!may_oversubscribe)
        level =
            water_fill(work->vessels, count, available_pages > mins ? available_pages - mins : 0);
    for (size_t i = 0; i < count; i++) {
        const struct water_vessel *vessel = &work->vessels[i];
        bool cut = vessel->level_pages < vessel->ceiling_pages;
        work->targets[i]->reason =
            (struct policy_reason){.rule = cut ? RULE_MANUAL_CUT : RULE_MANUAL,
                                   .active_pages = (uint32_t)work->vms[i]->memory_pages,
                                   .level = level};
        given += work->target_pages[i] = vessel->level_pages;
    }
    return available_pages > given ? available_pages - given : 0;
}

/* The policy's own part: every VM without a manual target. */
static void place_others(struct work *work, size_t count, const struct policy *policy,
                         const struct policy_settings *settings, const struct policy_host *host,
                         uint64_t available_pages)
{
    const struct policy_vm **vms = work->vms + count;
    struct policy_memory **memory = work->memory + count;
    struct policy_target **targets = work->targets + count;
    uint64_t *answers = work->target_pages + count;
    size_t others = 0;
    for (size_t i = 0; i < count; i++)
        if (!(work->vms[i]->valid & POLICY_HAS_MANUAL_TARGET)) {
            vms[others] = work->vms[i];
            targets[others] = work->targets[i];
            targets[others]->reason = (struct policy_reason){0};
            memory[others++] = work->memory[i];
        }
    struct policy_round round = {
        .settings = settings,
        .host = host,
        .available_pages = available_pages,
        .count = others,
        .vms = vms,
        .memory = memory,
        .targets = targets,
        .vessels = work->vessels,
    };
    policy->decide(&round, answers);
    for (size_t i = 0, other = 0; i < count; i++)
        if (!(work->vms[i]->valid & POLICY_HAS_MANUAL_TARGET))
            work->target_pages[i] = answers[other++];
}

/* In charged pages, as the targets are. */
static uint64_t available_pages(const struct policy_host *host,
                                const struct policy_settings *settings)
{
    uint64_t pages = policy_available_pages(host->machine_pages, settings);
    pages += host->shared_charge_pages;
    return pages > host->shared_pages ? pages - host->shared_pages : 0;
}

/* How soon to decide again while reclaim is going on; the balloon drivers' news arrive in between.
 */
static uint64_t again_within_ns(enum host_state state, const struct policy_settings *settings)
{
    uint64_t ms = state == HOST_SOFT ? settings->soft_round_ms : settings->hard_round_ms;
    return state == HOST_HIGH ? 0 : ms * UINT64_C(1000000);
}

int policy_decide(const struct policy *policy, const struct policy_settings *settings,
                  const struct policy_state *previous, const struct policy_host *host,
                  const struct policy_vm *vms, size_t count, struct policy_state *next,
                  struct policy_target *targets, struct policy_outcome *outcome, struct err *err)
{
    struct work work;
    if (policy_settings_check(settings, err) < 0)
        return -1;
    if (host->machine_pages == 0 || host->free_pages > host->machine_pages)
        return err_set(err, 0, "impossible host: %llu of %llu machine pages free",
                       (unsigned long long)host->free_pages,
                       (unsigned long long)host->machine_pages);
    if (host->shared_pages > host->machine_pages || host->shared_charge_pages > MOST_CHARGED_PAGES)
        return err_set(
            err, 0, "impossible host: %llu of %llu machine pages shared, charged as %llu",
            (unsigned long long)host->shared_pages, (unsigned long long)host->machine_pages,
            (unsigned long long)host->shared_charge_pages);
    if (work_new(&work, count, err) < 0)
        return -1;

    struct policy_outcome result = {
        .rows_refused = judge_rows(&work, previous, host, vms, targets),
        .host = host_state_next(previous->host, host->free_pages, host->machine_pages,
                                &settings->thresholds),
        .available_pages = available_pages(host, settings),
    };
    size_t believed = 0;
    for (size_t i = 0; i < count; i++) {
        struct entry *entry = &work.entries[i];
        if (entry->refused) {
            uint64_t held = leave_alone(entry, host);
            result.available_pages -= held < result.available_pages ? held : result.available_pages;
            continue;
        }
        work.vms[believed] = entry->vm;
        work.memory[believed] = &entry->memory;
        work.targets[believed++] = entry->target;
    }

    uint64_t left =
        place_manual(&work, believed, policy->may_oversubscribe, result.available_pages);
    place_others(&work, believed, policy, settings, host, left);
    for (size_t i = 0; i < believed; i++) {
        const struct policy_vm *vm = work.vms[i];
        uint64_t pages = clamp(work.target_pages[i], vm->min_pages, vm->max_pages);
        struct policy_reason reason = work.targets[i]->reason;
        if (pages != work.target_pages[i])
            reason.rule = pages == vm->min_pages ? RULE_MIN : RULE_MAX;
        *work.targets[i] =
            (struct policy_target){.id = vm->id, .target_pages = pages, .reason = reason};
        work.memory[i]->target_pages = pages;
        result.target_pages += pages;
    }
    struct reclaim_round round = {
        .policy = policy,
        .settings = settings,
        .host = host,
        .state = result.host,
        .aim_free_pages = policy_aim_pages(HOST_HIGH, host->machine_pages, settings),
        .leave_hard_pages = policy_aim_pages(HOST_SOFT, host->machine_pages, settings),
        .count = believed,
        .vms = work.vms,
        .memory = work.memory,
        .targets = work.targets,
    };
    reclaim_plan(&round);
    result.again_within_ns = again_within_ns(result.host, settings);

    for (size_t i = 0; i < count; i++)
        work.next_vms[i] = work.entries[i].memory;
    free(next->vms);
    *next = (struct policy_state){
        .host = result.host,
        .count = (uint32_t)count,
        .vms = work.next_vms,
    };
    work.next_vms = NULL;
    work_free(&work);
    *outcome = result;
    return 0;
}
