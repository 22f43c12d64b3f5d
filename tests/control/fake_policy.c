/* Of the fake supervisor: an external policy that is asked when told to, and decisions. */
#include "tests/control/fake_supervisor_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- an external policy ---- */

/* One question, about every VM without a manual target. */
static int ask_external(sd_event_source *source, void *ctx)
{
    (void)source;
    struct supervisor *supervisor = ctx;
    struct policy_settings settings;
    struct policy_vm rows[MAX_VMS] = {0};
    struct question_vm asked[MAX_VMS];
    uint64_t machine_pages = supervisor->config.machine_bytes / PAGE;
    const struct policy_host host = {.machine_pages = machine_pages, .free_pages = machine_pages};
    policy_settings_default(&settings);
    struct policy_question question = {
        .deadline_ms = UINT32_MAX, /* what it attached with, so that no test is short of time */
        .trigger = "host-setting",
        .settings = &settings,
        .host = &host,
        .available_pages = machine_pages / 100 * 92,
        .vms = asked,
    };
    for (struct vm *vm = supervisor->vms; vm && question.count < MAX_VMS; vm = vm->next) {
        struct policy_vm *row = &rows[question.count];
        if (vm->manual)
            continue;
        *row = (struct policy_vm){
            .id = (uint32_t)question.count,
            .valid = POLICY_HAS_BALLOON | POLICY_HAS_PAGED | POLICY_HAS_ABSENT | POLICY_HAS_ACTIVE,
            .can = POLICY_CAN_BALLOON | POLICY_CAN_PAGE_OUT | POLICY_CAN_BLOCK,
            .shares = vm->shares,
            .memory_pages = vm->memory_pages,
            .min_pages = vm->min_pages,
            .max_pages = vm->max_pages,
            .allocated_pages = vm->memory_pages / 2,
            .absent_pages = vm->memory_pages / 2,
            .active_fraction = 0.25,
        };
        asked[question.count++] = (struct question_vm){vm->name, row, vm->max_pages};
    }
    if (question.count && !external_is_asked(supervisor->external))
        external_ask(supervisor->external, &question);
    return 0;
}

void fake_ask_soon(void *ctx)
{
    sd_event_source_set_enabled(((struct supervisor *)ctx)->round, SD_EVENT_ONESHOT);
}

static int decide_round(void *ctx, const struct answer_vm *answer, size_t count, struct err *err)
{
    (void)err;
    struct supervisor *supervisor = ctx;
    supervisor->decided_by_external = answer != NULL;
    for (struct vm *vm = supervisor->vms; vm; vm = vm->next) {
        vm->given_pages = 0;
        for (size_t i = 0; answer && i < count; i++)
            if (strcmp(answer[i].name, vm->name) == 0)
                vm->given_pages = answer[i].target_pages;
    }
    return 0;
}

static void tell_external(void *ctx, enum external_event event, const char *text)
{
    static const char *const kinds[] = {"policy-attached", "policy-detached", "policy-bad"};
    fake_event(ctx, NULL, kinds[event], text);
}

struct external_policy *supervisor_external(struct supervisor *supervisor)
{
    return supervisor->external;
}

int fake_external_start(struct supervisor *supervisor, struct err *err)
{
    const struct external_host host = {decide_round, tell_external, fake_ask_soon, supervisor};
    supervisor->external = external_new(supervisor->event, &host, err);
    if (!supervisor->external ||
        sd_event_add_defer(supervisor->event, &supervisor->round, ask_external, supervisor) < 0)
        return -1;
    return sd_event_source_set_enabled(supervisor->round, SD_EVENT_OFF);
}

/* ---- decisions ---- */

void fake_decide(struct supervisor *supervisor, struct vm *vm, uint64_t previous_pages,
                 uint64_t target_pages, enum policy_rule rule)
{
    uint64_t machine_pages = supervisor->config.machine_bytes / PAGE;
    struct decision *decision = &vm->decided[vm->decisions++ % FAKE_DECISIONS];
    *decision = (struct decision){
        .time_ns = UINT64_C(1700000000000000000),
        .trigger = TRIGGER_VM_SETTING,
        .previous_target_pages = previous_pages,
        .target_pages = target_pages,
        .host = {machine_pages, machine_pages / 2, 1000000000},
        .available_pages = machine_pages / 100 * 92,
        .reserved_pages = vm->min_pages + 4096,
        .row = {.shares = vm->shares,
                .valid = vm->manual ? POLICY_HAS_MANUAL_TARGET : 0,
                .memory_pages = vm->memory_pages,
                .min_pages = vm->min_pages,
                .max_pages = vm->max_pages,
                .allocated_pages = vm->memory_pages / 2,
                .manual_target_pages = vm->manual_pages},
        .reason = {.rule = rule, .active_pages = (uint32_t)vm->memory_pages},
    };
    snprintf(decision->policy, sizeof decision->policy, "%s", supervisor->config.policy);
    for (struct supervisor_decision_listener *one = supervisor->decision_listeners; one;
         one = one->next)
        one->fn(one->ctx, vm->name, decision);
}

unsigned supervisor_decisions(struct supervisor *supervisor, const struct vm *vm,
                              const struct decision **rows, unsigned max)
{
    (void)supervisor;
    unsigned count = 0;
    for (; count < vm->decisions && count < max && count < FAKE_DECISIONS; count++)
        rows[count] = &vm->decided[(vm->decisions - 1 - count) % FAKE_DECISIONS];
    return count;
}

struct supervisor_decision_listener *
supervisor_listen_decisions(struct supervisor *supervisor, supervisor_decision_fn *fn, void *ctx)
{
    struct supervisor_decision_listener *listener = calloc(1, sizeof *listener);
    if (listener) {
        *listener = (struct supervisor_decision_listener){supervisor->decision_listeners, fn, ctx};
        supervisor->decision_listeners = listener;
    }
    return listener;
}

void supervisor_unlisten_decisions(struct supervisor *supervisor,
                                   struct supervisor_decision_listener *listener)
{
    struct supervisor_decision_listener **link = &supervisor->decision_listeners;
    while (*link != listener)
        link = &(*link)->next;
    *link = listener->next;
    free(listener);
}
