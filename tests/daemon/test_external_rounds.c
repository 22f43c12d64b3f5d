/*
 * Rounds of the real policy loop that an external policy is asked about, with
 * workers that use memory at random. The program is a function of the test.
 */
#include "tests/daemon/host_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SOON_MS   30000
#define PERIOD_MS 600000u /* no round comes by itself, none is ever late */
#define MIB_BYTES INT64_C(1048576)

/* An external policy that says what the test wants, when the test wants. */
struct program {
    struct host host;
    unsigned questions, detached;
    uint64_t round, available_pages;
    uint32_t deadline_ms;
    char trigger[16];
    size_t count;
    struct {
        char name[VM_NAME_BYTES];
        struct policy_vm row;
        uint64_t target_pages;
    } vms[8];
};

static bool on_ask(void *ctx, const struct policy_question *question)
{
    struct program *program = ctx;
    program->questions++;
    program->round = question->round;
    program->deadline_ms = question->deadline_ms;
    program->available_pages = question->available_pages;
    snprintf(program->trigger, sizeof program->trigger, "%s", question->trigger);
    program->count = question->count;
    for (size_t i = 0; i < question->count; i++) {
        snprintf(program->vms[i].name, VM_NAME_BYTES, "%s", question->vms[i].name);
        program->vms[i].row = *question->vms[i].row;
        program->vms[i].target_pages = question->vms[i].target_pages;
    }
    return true;
}

static void on_detached(void *ctx, const char *reason)
{
    (void)reason;
    ((struct program *)ctx)->detached++;
}

static struct supervisor *supervisor_of(struct program *program)
{
    return program->host.supervisor;
}

static struct host_row host_row_of(struct program *program)
{
    struct host_row row;
    supervisor_host_row(supervisor_of(program), &row);
    return row;
}

static uint64_t target_of(struct program *program, const char *name)
{
    struct vm_row row;
    supervisor_vm_row(supervisor_of(program), supervisor_find_vm(supervisor_of(program), name),
                      &row);
    return row.target_pages;
}

/* The two targets of a and b in MiB; b < 0: a alone. */
static int answer(struct program *program, int64_t a_mib, int64_t b_mib, struct err *err)
{
    json_t *targets = json_pack("{s:I}", "a", (json_int_t)(a_mib * MIB_BYTES));
    if (b_mib >= 0)
        json_object_set_new(targets, "b", json_integer(b_mib * MIB_BYTES));
    int result = external_answer(supervisor_external(supervisor_of(program)), program,
                                 program->round, targets, err);
    json_decref(targets);
    return result;
}

static bool is_asked(struct program *program)
{
    return external_is_asked(supervisor_external(supervisor_of(program)));
}

/* A host of 64 MiB with VMs a and b of 32 MiB, min 8, that use 6 MiB each: it stays in state high,
 * where nothing but the period and what the test does makes rounds. */
static void open_program(struct program *program, uint32_t deadline_ms, const char *fallback)
{
    struct err err;
    *program = (struct program){0};
    host_start(&program->host, 64, "touching_worker");
    assert_int_equal(supervisor_set_period(supervisor_of(program), PERIOD_MS, &err), 0);
    host_vm(&program->host, "a", 32, 8, "touch=1536");
    host_vm(&program->host, "b", 32, 8, "touch=1536");
    host_until(&program->host, SOON_MS,
               host_state_is(&program->host, "a", "running") &&
                   host_state_is(&program->host, "b", "running"));
    struct external_peer peer = {.name = "test",
                                 .deadline_ms = deadline_ms,
                                 .bad_limit = 4,
                                 .fallback = fallback ? policy_find(fallback) : NULL,
                                 .ask = on_ask,
                                 .detached = on_detached,
                                 .ctx = program};
    assert_int_equal(external_attach(supervisor_external(supervisor_of(program)), &peer, &err), 0);
}

static void close_program(struct program *program)
{
    host_check(&program->host);
    host_stop(&program->host);
}

/* A round, now; wait for its question about two VMs. */
static void wait_for_question(struct program *program)
{
    unsigned before = program->questions;
    policy_soon(supervisor_of(program), TRIGGER_ABILITY);
    host_until(&program->host, SOON_MS,
               program->questions > before && program->count == 2 && is_asked(program));
}

#define DEADLINE_MS EXTERNAL_DEADLINE_MS_MAX

static void targets_of_an_answer_take_effect(void **state)
{
    (void)state;
    struct program program;
    struct err err;
    open_program(&program, DEADLINE_MS, NULL);
    wait_for_question(&program);
    assert_string_equal(program.vms[0].name, "a");
    assert_int_equal(program.vms[0].row.memory_pages, 32 * 256);
    assert_int_equal(program.vms[0].row.min_pages, 8 * 256);
    assert_false(program.vms[0].row.valid & POLICY_HAS_GIVEN_TARGET);
    assert_true(program.available_pages > 55 * 256 && program.available_pages < 61 * 256);
    assert_int_equal(program.deadline_ms, DEADLINE_MS);
    uint64_t runs = host_row_of(&program).policy_runs;
    assert_int_equal(answer(&program, 12, 30, &err), 0);
    assert_int_equal(target_of(&program, "a"), 12 * 256);
    assert_int_equal(target_of(&program, "b"), 30 * 256);
    struct host_row row = host_row_of(&program);
    assert_int_equal(row.policy_runs, runs + 1);
    assert_string_equal(row.policy_active, "external:test");
    assert_string_equal(row.policy, "proportional");
    wait_for_question(&program);
    assert_int_equal(program.vms[0].target_pages, 12 * 256); /* as last decided */
    assert_string_equal(program.trigger, "ability");
    /* It may take until the next round is due and no longer. */
    assert_int_equal(answer(&program, 12, 30, &err), 0);
    assert_int_equal(supervisor_set_period(supervisor_of(&program), 500, &err), 0);
    host_until(&program.host, SOON_MS, program.deadline_ms == 500);
    close_program(&program);
}

static void the_built_in_policy_takes_over_in_the_same_round(void **state)
{
    (void)state;
    struct program program;
    struct err err;
    open_program(&program, DEADLINE_MS, "static");
    wait_for_question(&program);
    assert_int_equal(answer(&program, 12, 14, &err), 0);
    static const struct {
        int64_t a_mib, b_mib;
        const char *says;
    } wrongs[] = {
        {12, -1, "no target for VM b"}, {7, 14, "below its min"}, {33, 8, "above its max"}};
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        wait_for_question(&program);
        uint64_t runs = host_row_of(&program).policy_runs;
        assert_int_equal(answer(&program, wrongs[i].a_mib, wrongs[i].b_mib, &err), -1);
        assert_non_null(strstr(err.text, wrongs[i].says));
        struct host_row row = host_row_of(&program);
        assert_int_equal(row.policy_runs, runs + 1); /* at once: no turn of the loop between */
        assert_string_equal(row.policy_active, "static");
        assert_int_equal(target_of(&program, "a"), 32 * 256);
        assert_true(host_event_says(&program.host, "policy-bad", wrongs[i].says));
    }
    /* The fourth in a row is one too many. */
    wait_for_question(&program);
    assert_int_equal(answer(&program, 32, 32, &err), -1);
    assert_non_null(strstr(err.text, "add up to"));
    assert_int_equal(program.detached, 1);
    assert_true(host_event_says(&program.host, "policy-detached", "4 bad rounds in a row"));
    unsigned questions = program.questions;
    uint64_t runs = host_row_of(&program).policy_runs;
    policy_soon(supervisor_of(&program), TRIGGER_ABILITY);
    host_until(&program.host, SOON_MS, host_row_of(&program).policy_runs > runs);
    assert_int_equal(program.questions, questions);
    assert_string_equal(host_row_of(&program).policy_active, "proportional");
    close_program(&program);
}

static void a_silent_program_costs_no_round(void **state)
{
    (void)state;
    struct program program;
    open_program(&program, 20, NULL);
    for (unsigned round = 1; round <= 3; round++) {
        wait_for_question(&program);
        uint64_t runs = host_row_of(&program).policy_runs;
        host_until(&program.host, SOON_MS, host_row_of(&program).policy_runs == runs + 1);
    }
    struct host_row row = host_row_of(&program);
    assert_in_range(row.external.late, 3, 4); /* and maybe the first, about one VM */
    assert_string_equal(row.policy_active, "proportional");
    assert_true(host_event_says(&program.host, "policy-bad", "late, no answer within 20 ms"));
    close_program(&program);
}

static void a_program_that_leaves_in_a_round_leaves_it_to_the_built_in_policy(void **state)
{
    (void)state;
    struct program program;
    struct err err;
    open_program(&program, DEADLINE_MS, NULL);
    wait_for_question(&program);
    uint64_t runs = host_row_of(&program).policy_runs;
    assert_int_equal(
        external_detach(supervisor_external(supervisor_of(&program)), &program, "it died", &err),
        0);
    assert_int_equal(host_row_of(&program).policy_runs, runs + 1);
    assert_string_equal(host_row_of(&program).external.state, "detached");
    close_program(&program);
}

static void a_vm_that_disappears_in_a_round_takes_no_answer_along(void **state)
{
    (void)state;
    struct program program;
    struct err err;
    open_program(&program, DEADLINE_MS, NULL);
    wait_for_question(&program);
    host_destroy(&program.host, "a");
    /* Its going makes the next round due; that waits for this one. */
    assert_int_equal(answer(&program, 12, 30, &err), 0);
    assert_int_equal(target_of(&program, "b"), 30 * 256);
    host_until(&program.host, SOON_MS, program.count == 1 && is_asked(&program));
    assert_string_equal(program.vms[0].name, "b");
    close_program(&program);
}

static void an_answer_that_things_have_overtaken_is_not_used(void **state)
{
    (void)state;
    struct program program;
    struct err err;
    open_program(&program, DEADLINE_MS, NULL);
    struct vm *a = supervisor_find_vm(supervisor_of(&program), "a");

    wait_for_question(&program);
    assert_int_equal(
        supervisor_set_min_max(supervisor_of(&program), a, 14 * MIB_BYTES, 32 * MIB_BYTES, &err),
        0);
    assert_int_equal(answer(&program, 12, 30, &err), -1);
    assert_non_null(strstr(err.text, "overtaken: min or max of VM a changed"));
    assert_string_equal(host_row_of(&program).policy_active, "proportional");

    /* A manual target in the round: an order goes first, the rest of the answer counts. */
    wait_for_question(&program);
    assert_int_equal(supervisor_set_target(supervisor_of(&program), a, 20 * MIB_BYTES, &err), 0);
    assert_int_equal(answer(&program, 16, 20, &err), 0);
    assert_int_equal(target_of(&program, "a"), 20 * 256);
    assert_int_equal(target_of(&program, "b"), 20 * 256);
    host_until(&program.host, SOON_MS, program.count == 1 && is_asked(&program));
    assert_string_equal(program.vms[0].name, "b");
    assert_true(program.available_pages < 41 * 256); /* without the order's 20 MiB */

    /* And taken back in the round: now there is a VM that was not asked about. */
    assert_int_equal(supervisor_clear_target(supervisor_of(&program), a, &err), 0);
    json_t *alone = json_pack("{s:I}", "b", (json_int_t)(20 * MIB_BYTES));
    assert_int_equal(external_answer(supervisor_external(supervisor_of(&program)), &program,
                                     program.round, alone, &err),
                     -1);
    json_decref(alone);
    assert_non_null(strstr(err.text, "VM a was not asked about"));
    assert_int_equal(host_row_of(&program).external.wrong, 0);
    assert_int_equal(host_row_of(&program).external.overtaken, 2);
    close_program(&program);
}

static void memory_that_runs_out_does_not_wait_for_an_answer(void **state)
{
    (void)state;
    struct program program;
    open_program(&program, DEADLINE_MS, NULL);
    wait_for_question(&program);
    host_vm(&program.host, "greedy", 64, 8, "touch=16384");
    /* Nobody answers, and the deadline is a minute away. */
    host_until(&program.host, SOON_MS, host_row_of(&program).external.overtaken >= 1);
    assert_true(host_row_of(&program).policy_runs > 0);
    assert_string_equal(host_row_of(&program).policy_active, "proportional");
    assert_int_equal(host_row_of(&program).external.late, 0);
    close_program(&program);
}

static void a_check_and_a_round_do_not_disturb_each_other(void **state)
{
    (void)state;
    struct program program;
    struct err err;
    open_program(&program, DEADLINE_MS, NULL);
    for (unsigned i = 0; i < 3; i++) {
        wait_for_question(&program);
        supervisor_of(&program)->grants_held = true; /* as a check does */
        uint64_t runs = host_row_of(&program).policy_runs;
        assert_int_equal(answer(&program, 12, 30, &err), -1);
        assert_non_null(strstr(err.text, "overtaken: a check"));
        assert_int_equal(host_row_of(&program).policy_runs, runs);
        supervisor_of(&program)->grants_held = false;
        policy_soon(supervisor_of(&program), TRIGGER_ABILITY);
        host_until(&program.host, SOON_MS, is_asked(&program)); /* asked anew */
        assert_int_equal(answer(&program, 12, 30, &err), 0);
        host_check(&program.host);
    }
    close_program(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_of_an_answer_take_effect),
        cmocka_unit_test(the_built_in_policy_takes_over_in_the_same_round),
        cmocka_unit_test(a_silent_program_costs_no_round),
        cmocka_unit_test(a_program_that_leaves_in_a_round_leaves_it_to_the_built_in_policy),
        cmocka_unit_test(a_vm_that_disappears_in_a_round_takes_no_answer_along),
        cmocka_unit_test(an_answer_that_things_have_overtaken_is_not_used),
        cmocka_unit_test(memory_that_runs_out_does_not_wait_for_an_answer),
        cmocka_unit_test(a_check_and_a_round_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
