/*
 * What is done with a decision (decision.h): it goes into its VM's ring, the
 * oldest making room, and to those who listen. The record is not made, and costs
 * nothing, for a target that stays as it is.
 */
#include "daemon/supervisor_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct supervisor_decision_listener {
    struct supervisor_decision_listener *next;
    supervisor_decision_fn *fn; /* NULL: dropped while a decision was being told */
    void *ctx;
};

static void sweep(struct supervisor *supervisor)
{
    struct supervisor_decision_listener **link = &supervisor->decision_listeners, *one;
    if (supervisor->telling_decision)
        return;
    while ((one = *link)) {
        if (one->fn) {
            link = &one->next;
            continue;
        }
        *link = one->next;
        free(one);
    }
}

static void tell(struct supervisor *supervisor, struct vm *vm, const struct decision *decision)
{
    supervisor->telling_decision = true;
    for (struct supervisor_decision_listener *one = supervisor->decision_listeners; one;
         one = one->next)
        if (one->fn)
            one->fn(one->ctx, vm->settings.name, decision);
    supervisor->telling_decision = false;
    sweep(supervisor);
}

void decision_note(struct vm *vm, const struct policy_vm *row, const struct policy_target *target,
                   const struct decision_round *round)
{
    struct vm_decisions *kept = &vm->decisions;
    if (target->target_pages == vm->target_pages)
        return;
    vm->supervisor->decisions++;
    watch_decision(vm, target->target_pages);
    if (!kept->ring)
        kept->ring = vm_arena_alloc(vm->arena, DECISIONS_KEPT * sizeof *kept->ring);
    if (!kept->ring)
        return; /* no memory: the change is made all the same, and nobody can say why */
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct decision *decision = &kept->ring[kept->total++ % DECISIONS_KEPT];
    *decision = (struct decision){
        .time_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec,
        .trigger = round->trigger,
        .host_state = round->outcome->host,
        .previous_target_pages = vm->target_pages,
        .target_pages = target->target_pages,
        .host = *round->host,
        .available_pages = round->outcome->available_pages,
        .reserved_pages = round->reserved_pages,
        .row = *row,
        .reason = target->reason,
    };
    snprintf(decision->policy, sizeof decision->policy, "%s", round->policy);
    tell(vm->supervisor, vm, decision);
}

unsigned supervisor_decisions(struct supervisor *supervisor, const struct vm *vm,
                              const struct decision **rows, unsigned max)
{
    (void)supervisor;
    const struct vm_decisions *kept = &vm->decisions;
    uint64_t have = kept->total < DECISIONS_KEPT ? kept->total : DECISIONS_KEPT;
    unsigned count = 0;
    for (; kept->ring && count < have && count < max; count++)
        rows[count] = &kept->ring[(kept->total - 1 - count) % DECISIONS_KEPT];
    return count;
}

struct supervisor_decision_listener *
supervisor_listen_decisions(struct supervisor *supervisor, supervisor_decision_fn *fn, void *ctx)
{
    struct supervisor_decision_listener *one = calloc(1, sizeof *one);
    if (!one)
        return NULL;
    *one = (struct supervisor_decision_listener){supervisor->decision_listeners, fn, ctx};
    supervisor->decision_listeners = one;
    return one;
}

void supervisor_unlisten_decisions(struct supervisor *supervisor,
                                   struct supervisor_decision_listener *listener)
{
    if (!listener)
        return;
    listener->fn = NULL;
    sweep(supervisor);
}

void decisions_free(struct supervisor *supervisor)
{
    for (struct supervisor_decision_listener *one = supervisor->decision_listeners; one;
         one = one->next)
        one->fn = NULL;
    sweep(supervisor);
}
