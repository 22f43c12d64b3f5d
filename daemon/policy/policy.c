/*
 * One round of policy: judge the rows, find the state, ask the policy for
 * targets, plan the reclaim. What the next state remembers is written in place;
 * it is touched only when nothing can fail any more.
 */
#include "daemon/policy/policy.h"

#include "daemon/policy/policies.h"
#include "daemon/policy/reclaim.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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

/*
 * Memory of one round. Arrays over believed rows, in the order of ids; those with
 * "2" are twice as long: where some VMs have manual targets, the others stand
 * behind them side by side.
 */
struct policy_work {
    size_t room;                    /* rows there is memory for */
    uint32_t *order;                /* places of the rows by id, if they do not stand so */
    const struct policy_vm **vms;   /* 2 */
    struct policy_memory **memory;  /* 2 */
    struct policy_target **targets; /* 2 */
    uint64_t *target_pages;         /* 2 */
    struct water_vessel *vessels;
    struct reclaim_victim *victims;
};

#define HUGE_BYTES (UINT64_C(2) << 20)

/* An array over rows. A large one asks for huge pages, since rounds walk over it from end to end;
 * without them it is only slower. */
static void *rows_new(size_t rows, size_t row_bytes)
{
    size_t bytes = rows * row_bytes;
    if (bytes < 4 * HUGE_BYTES)
        return malloc(bytes);
    bytes = (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    void *array = aligned_alloc(HUGE_BYTES, bytes);
    if (array)
        madvise(array, bytes, MADV_HUGEPAGE);
    return array;
}

static void work_free(struct policy_work *work)
{
    if (!work)
        return;
    free(work->order);
    free(work->vms);
    free(work->memory);
    free(work->targets);
    free(work->target_pages);
    free(work->vessels);
    free(work->victims);
    free(work);
}

static struct policy_work *work_new(size_t room)
{
    struct policy_work *work = calloc(1, sizeof *work);
    if (!work)
        return NULL;
    *work = (struct policy_work){
        .room = room,
        .order = rows_new(room, sizeof *work->order),
        .vms = rows_new(2 * room, sizeof *work->vms),
        .memory = rows_new(2 * room, sizeof *work->memory),
        .targets = rows_new(2 * room, sizeof *work->targets),
        .target_pages = rows_new(2 * room, sizeof *work->target_pages),
        .vessels = rows_new(room, sizeof *work->vessels),
        .victims = rows_new(room, sizeof *work->victims),
    };
    if (work->order && work->vms && work->memory && work->targets && work->target_pages &&
        work->vessels && work->victims)
        return work;
    work_free(work);
    return NULL;
}

/* Memory for a round over count rows, which becomes that state. */
static int make_room(struct policy_state *state, size_t count, struct err *err)
{
    size_t room = count ? count : 1;
    if (!state->work || state->work->room < room) {
        struct policy_work *work = work_new(room);
        if (!work)
            return err_set(err, ENOMEM, "policy round over %zu VMs", count);
        work_free(state->work);
        state->work = work;
    }
    if (!state->vms || state->room < room) {
        struct policy_memory *vms = rows_new(room, sizeof *vms);
        if (!vms)
            return err_set(err, ENOMEM, "policy round over %zu VMs", count);
        free(state->vms);
        state->vms = vms;
        state->count = 0;
        state->room = room;
    }
    return 0;
}

void policy_state_free(struct policy_state *state)
{
    if (!state)
        return;
    free(state->vms);
    work_free(state->work);
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

/* ---- rows ---- */

static bool is_manual(const struct policy_vm *vm)
{
    return vm->valid & POLICY_HAS_MANUAL_TARGET;
}

/* Places of the rows in the order of their ids; NULL: they stand so, as a caller that keeps a list
 * hands them over. Ids and places are packed into one word to be sorted. */
static int by_key(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static const uint32_t *order_rows(struct policy_work *work, const struct policy_vm *vms,
                                  size_t count)
{
    size_t i = 1;
    while (i < count && vms[i - 1].id <= vms[i].id)
        i++;
    if (i >= count)
        return NULL;
    uint64_t *keys = work->target_pages; /* not in use yet */
    for (i = 0; i < count; i++)
        keys[i] = (uint64_t)vms[i].id << 32 | i;
    qsort(keys, count, sizeof *keys, by_key);
    for (i = 0; i < count; i++)
        work->order[i] = (uint32_t)keys[i];
    return work->order;
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

/* A refused VM stays as it is. Returns the memory it is taken to hold. */
static uint64_t leave_alone(const struct policy_vm *vm, const struct policy_memory *memory,
                            const struct policy_host *host, struct policy_target *target)
{
    uint64_t held = vm->allocated_pages;
    if (held > host->machine_pages + host->shared_charge_pages)
        held = memory->target_pages;
    *target = (struct policy_target){
        .id = vm->id,
        .why = POLICY_ROW_REFUSED,
        .target_pages = memory->target_pages ? memory->target_pages : held,
        .balloon_pages = memory->balloon_pages,
        .balloon_stalled = memory->stalled,
        .limit_pages = memory->limit_pages ? memory->limit_pages : UINT64_MAX,
        .reason.rule = RULE_ROW_REFUSED,
    };
    return held;
}

struct believed {
    size_t count, manual; /* rows, and those of them with a manual target */
    uint32_t refused;
    uint64_t refused_pages; /* that their VMs are taken to hold */
};

/* Bring the rows into order, fetch what is remembered of each VM, and refuse the impossible. */
static struct believed judge_rows(struct policy_work *work, const struct policy_state *previous,
                                  const struct policy_host *host, const struct policy_vm *vms,
                                  size_t count, struct policy_memory *next_vms,
                                  struct policy_target *targets)
{
    const uint32_t *order = order_rows(work, vms, count);
    struct believed believed = {0};
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = order ? order[i] : i;
        const struct policy_vm *vm = &vms[at];
        struct policy_memory *memory = &next_vms[i];
        bool twice = (i > 0 && vms[order ? order[i - 1] : i - 1].id == vm->id) ||
                     (i + 1 < count && vms[order ? order[i + 1] : i + 1].id == vm->id);
        while (known < previous->count && previous->vms[known].id < vm->id)
            known++;
        if (known < previous->count && previous->vms[known].id == vm->id)
            *memory = previous->vms[known];
        else
            *memory = (struct policy_memory){.id = vm->id};
        if (twice || !row_is_possible(vm, host)) {
            believed.refused++;
            believed.refused_pages += leave_alone(vm, memory, host, &targets[at]);
            continue;
        }
        believed.manual += is_manual(vm);
        work->vms[believed.count] = vm;
        work->memory[believed.count] = memory;
        work->targets[believed.count++] = &targets[at];
    }
    return believed;
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
static uint64_t place_manual(struct policy_work *work, size_t count, bool may_oversubscribe,
                             uint64_t available_pages)
{
    uint64_t mins = 0, given = 0;
    double level = INFINITY;
    for (size_t i = 0; i < count; i++) {
        const struct policy_vm *vm = work->vms[i];
        bool manual = is_manual(vm);
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
static void place_others(struct policy_work *work, const struct believed *believed,
                         const struct policy *policy, const struct policy_settings *settings,
                         const struct policy_host *host, uint64_t available_pages)
{
    size_t count = believed->count, first = believed->manual ? count : 0, others = 0;
    for (size_t i = 0; first && i < count; i++)
        if (!is_manual(work->vms[i])) {
            work->vms[first + others] = work->vms[i];
            work->targets[first + others] = work->targets[i];
            work->memory[first + others++] = work->memory[i];
        }
    struct policy_round round = {
        .settings = settings,
        .host = host,
        .available_pages = available_pages,
        .count = first ? others : count,
        .vms = work->vms + first,
        .memory = work->memory + first,
        .targets = work->targets + first,
        .vessels = work->vessels,
    };
    for (size_t i = 0; !policy->gives_reasons && i < round.count; i++)
        round.targets[i]->reason = (struct policy_reason){0};
    policy->decide(&round, work->target_pages + first);
    for (size_t i = 0, other = first; first && i < count; i++)
        if (!is_manual(work->vms[i]))
            work->target_pages[i] = work->target_pages[other++];
}

/* Take a target within min .. max and begin the answer with it. */
static void settle_target(struct policy_work *work, size_t i)
{
    const struct policy_vm *vm = work->vms[i];
    struct policy_target *target = work->targets[i];
    uint64_t pages = clamp(work->target_pages[i], vm->min_pages, vm->max_pages);
    struct policy_reason reason = target->reason;
    if (pages != work->target_pages[i])
        reason.rule = pages == vm->min_pages ? RULE_MIN : RULE_MAX;
    *target = (struct policy_target){.id = vm->id, .target_pages = pages, .reason = reason};
    work->memory[i]->target_pages = pages;
}

/* Settle the targets and plan the reclaim, in one walk over the VMs where that can be. Returns the
 * sum of the targets. */
static uint64_t plan_round(struct policy_work *work, struct reclaim_round *round)
{
    bool ahead = reclaim_looks_ahead(round);
    uint64_t sum = 0;
    for (size_t i = 0; ahead && i < round->count; i++)
        settle_target(work, i);
    reclaim_begin(round);
    for (size_t i = 0; i < round->count; i++) {
        if (!ahead)
            settle_target(work, i);
        reclaim_vm(round, i);
        sum += work->targets[i]->target_pages;
    }
    reclaim_end(round);
    return sum;
}

/* In charged pages, as the targets are. */
static uint64_t available_pages(const struct policy_host *host,
                                const struct policy_settings *settings)
{
    uint64_t pages = policy_available_pages(host->machine_pages, settings);
    pages += host->shared_charge_pages;
    return pages > host->shared_pages ? pages - host->shared_pages : 0;
}

#define MOST_CHARGED_PAGES (UINT64_C(1) << 48) /* more than any machine's VMs have: no overflow */

/* How soon to decide again while reclaim is going on; the balloon drivers' news arrive in between.
 */
static uint64_t again_within_ns(enum host_state state, const struct policy_settings *settings)
{
    uint64_t ms = state == HOST_SOFT ? settings->soft_round_ms : settings->hard_round_ms;
    return state == HOST_HIGH ? 0 : ms * UINT64_C(1000000);
}

static int check_host(const struct policy_host *host, struct err *err)
{
    if (host->machine_pages == 0 || host->free_pages > host->machine_pages)
        return err_set(err, 0, "impossible host: %llu of %llu machine pages free",
                       (unsigned long long)host->free_pages,
                       (unsigned long long)host->machine_pages);
    if (host->shared_pages > host->machine_pages || host->shared_charge_pages > MOST_CHARGED_PAGES)
        return err_set(
            err, 0, "impossible host: %llu of %llu machine pages shared, charged as %llu",
            (unsigned long long)host->shared_pages, (unsigned long long)host->machine_pages,
            (unsigned long long)host->shared_charge_pages);
    return 0;
}

int policy_decide(const struct policy *policy, const struct policy_settings *settings,
                  const struct policy_state *previous, const struct policy_host *host,
                  const struct policy_vm *vms, size_t count, struct policy_state *next,
                  struct policy_target *targets, struct policy_outcome *outcome, struct err *err)
{
    if (policy_settings_check(settings, err) < 0 || check_host(host, err) < 0)
        return -1;
    if (count > UINT32_MAX)
        return err_set(err, 0, "%zu VMs in a round", count);
    if (make_room(next, count, err) < 0)
        return -1;
    /* Nothing fails from here on. */
    struct policy_work *work = next->work;
    struct believed believed = judge_rows(work, previous, host, vms, count, next->vms, targets);
    struct policy_outcome result = {
        .rows_refused = believed.refused,
        .host = host_state_next(previous->host, host->free_pages, host->machine_pages,
                                &settings->thresholds),
        .available_pages = available_pages(host, settings),
    };
    result.available_pages -= believed.refused_pages < result.available_pages
                                  ? believed.refused_pages
                                  : result.available_pages;
    result.again_within_ns = again_within_ns(result.host, settings);

    uint64_t left = result.available_pages;
    if (believed.manual)
        left = place_manual(work, believed.count, policy->may_oversubscribe, left);
    place_others(work, &believed, policy, settings, host, left);
    struct reclaim_round round = {
        .policy = policy,
        .settings = settings,
        .host = host,
        .state = result.host,
        .aim_free_pages = policy_aim_pages(HOST_HIGH, host->machine_pages, settings),
        .leave_hard_pages = policy_aim_pages(HOST_SOFT, host->machine_pages, settings),
        .count = believed.count,
        .vms = work->vms,
        .memory = work->memory,
        .targets = work->targets,
        .victims = work->victims,
    };
    result.target_pages = plan_round(work, &round);
    next->host = result.host;
    next->count = (uint32_t)count;
    *outcome = result;
    return 0;
}
