/*
 * The seat of an external policy and the judgement of its answers, without
 * sockets and VMs: the program and the host are functions that remember.
 */
#include "daemon/policy_external.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))
#define PAGE            4096

/* ---- answers ---- */

/* Two VMs, a of 10 to 100 pages and b of 20 to 50, and 120 pages for both. */
static void two_vms(struct answer_vm vms[2])
{
    vms[0] = (struct answer_vm){.name = "a", .id = 1, .min_pages = 10, .max_pages = 100};
    vms[1] = (struct answer_vm){.name = "b", .id = 2, .min_pages = 20, .max_pages = 50};
}

static int judge(const char *text, struct answer_vm vms[2], struct err *err)
{
    json_t *targets = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
    assert_non_null(targets);
    two_vms(vms);
    int result = policy_answer_read(targets, vms, 2, 120, err);
    json_decref(targets);
    return result;
}

static void a_right_answer_is_taken_to_the_page(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t a, b;
    } cases[] = {
        {"{\"a\": 40960, \"b\": 81920}", 10, 20},
        {"{\"b\": 204800, \"a\": 286720}", 70, 50}, /* the sum is just what there is */
        {"{\"a\": 45055, \"b\": 81921}", 10, 20},   /* a part of a page is none */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct answer_vm vms[2];
        struct err err;
        assert_int_equal(judge(cases[i].text, vms, &err), 0);
        assert_int_equal(vms[0].target_pages, cases[i].a);
        assert_int_equal(vms[1].target_pages, cases[i].b);
    }
    struct err err;
    json_t *nothing = json_object();
    assert_int_equal(policy_answer_read(nothing, NULL, 0, 0, &err), 0);
    json_decref(nothing);
}

static void a_wrong_answer_is_refused_with_its_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[]", "not an object"},
        {"null", "not an object"},
        {"7", "not an object"},
        {"{}", "no target for VM a"},
        {"{\"a\": 40960}", "no target for VM b"},
        {"{\"a\": 40960, \"b\": 81920, \"c\": 0}", "'c', which is no VM"},
        {"{\"a\": 40960, \"b\": 81920, \"\": 0}", "'', which is no VM"},
        {"{\"a\": 40960, \"b\": 81920, \"\\u001b[2J\\n\": 0}", "'?[2J?', which is no VM"},
        {"{\"A\": 40960, \"b\": 81920}", "no target for VM a"},
        {"{\"a\": 40960.0, \"b\": 81920}", "VM a is 40960, not a whole number"},
        {"{\"a\": 1e300, \"b\": 81920}", "VM a is 1e+300, not a whole number"},
        {"{\"a\": \"NaN\", \"b\": 81920}", "VM a is text"},
        {"{\"a\": null, \"b\": 81920}", "VM a is null"},
        {"{\"a\": true, \"b\": 81920}", "VM a is true or false"},
        {"{\"a\": [40960], \"b\": 81920}", "VM a is an array"},
        {"{\"a\": {}, \"b\": 81920}", "VM a is an object"},
        {"{\"a\": -1, \"b\": 81920}", "VM a is -1 bytes, below its min of 40960"},
        {"{\"a\": -9223372036854775808, \"b\": 81920}", "below its min"},
        {"{\"a\": 40959, \"b\": 81920}", "VM a is 40959 bytes, below its min of 40960"},
        {"{\"a\": 409601, \"b\": 81920}", "VM a is 409601 bytes, above its max of 409600"},
        {"{\"a\": 9223372036854775807, \"b\": 81920}", "above its max"},
        {"{\"a\": 290816, \"b\": 204800}", "add up to 495616 bytes, more than the 491520"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct answer_vm vms[2];
        struct err err = {0};
        assert_int_equal(judge(cases[i].text, vms, &err), -1);
        if (!strstr(err.text, cases[i].says))
            fail_msg("%s: said '%s'", cases[i].text, err.text);
    }
    struct answer_vm vms[2];
    struct err err;
    two_vms(vms);
    assert_int_equal(policy_answer_read(NULL, vms, 2, 120, &err), -1);
    assert_non_null(strstr(err.text, "missing"));
}

/* ---- the seat ---- */

#define PATIENT_MS 60000 /* a deadline that no test waits for */

struct rig {
    sd_event *event;
    struct external_policy *external;
    /* the program */
    bool deaf; /* nothing can be sent to it */
    unsigned questions, sent_away;
    uint64_t last_round;
    uint32_t last_deadline_ms;
    char why_sent_away[300];
    /* the host */
    bool unfit; /* answers do not fit it any more */
    unsigned decided_by_answer, decided_without, came;
    unsigned told[EXTERNAL_TELL_BAD + 1];
    char said[400];
    uint64_t a_pages, b_pages;
    struct policy_settings settings;
    struct err err; /* what the last answer was told */
};

static bool on_ask(void *ctx, const struct policy_question *question)
{
    struct rig *rig = ctx;
    if (rig->deaf)
        return false;
    rig->questions++;
    rig->last_round = question->round;
    rig->last_deadline_ms = question->deadline_ms;
    return true;
}

static void on_detached(void *ctx, const char *reason)
{
    struct rig *rig = ctx;
    rig->sent_away++;
    snprintf(rig->why_sent_away, sizeof rig->why_sent_away, "%s", reason);
}

static int on_decide(void *ctx, const struct answer_vm *answer, size_t count, struct err *err)
{
    struct rig *rig = ctx;
    assert_false(external_is_asked(rig->external));
    if (!answer || rig->unfit) {
        rig->decided_without++;
        return err_set(err, 0, "things changed");
    }
    assert_int_equal(count, 2);
    rig->decided_by_answer++;
    rig->a_pages = answer[0].target_pages;
    rig->b_pages = answer[1].target_pages;
    return 0;
}

static void on_tell(void *ctx, enum external_event event, const char *text)
{
    struct rig *rig = ctx;
    rig->told[event]++;
    snprintf(rig->said, sizeof rig->said, "%s", text);
}

static void on_attached(void *ctx)
{
    ((struct rig *)ctx)->came++;
}

static int open_seat(void **state)
{
    static struct rig the_rig;
    struct rig *rig = *state = &the_rig;
    struct external_host host = {on_decide, on_tell, on_attached, rig};
    *rig = (struct rig){0};
    policy_settings_default(&rig->settings);
    assert_true(sd_event_new(&rig->event) >= 0);
    rig->external = external_new(rig->event, &host, &rig->err);
    assert_non_null(rig->external);
    return 0;
}

static int close_seat(void **state)
{
    struct rig *rig = *state;
    external_free(rig->external);
    sd_event_unref(rig->event);
    return 0;
}

static struct external_peer peer_of(struct rig *rig)
{
    return (struct external_peer){.name = "test",
                                  .deadline_ms = PATIENT_MS,
                                  .bad_limit = 3,
                                  .ask = on_ask,
                                  .detached = on_detached,
                                  .ctx = rig};
}

static void attach(struct rig *rig, uint32_t deadline_ms)
{
    struct external_peer peer = peer_of(rig);
    peer.deadline_ms = deadline_ms;
    assert_int_equal(external_attach(rig->external, &peer, &rig->err), 0);
}

static int open_attached(void **state)
{
    open_seat(state);
    attach(*state, PATIENT_MS);
    return 0;
}

static bool ask_for(struct rig *rig, uint32_t deadline_ms)
{
    static const struct policy_vm rows[2] = {{.id = 1, .min_pages = 10, .max_pages = 100},
                                             {.id = 2, .min_pages = 20, .max_pages = 50}};
    static const struct policy_host host = {.machine_pages = 200, .free_pages = 100};
    const struct question_vm vms[2] = {{"a", &rows[0], 0}, {"b", &rows[1], 0}};
    struct policy_question question = {.deadline_ms = deadline_ms,
                                       .trigger = "period",
                                       .settings = &rig->settings,
                                       .host = &host,
                                       .available_pages = 120,
                                       .count = 2,
                                       .vms = vms};
    return external_ask(rig->external, &question);
}

static void ask(struct rig *rig)
{
    assert_true(ask_for(rig, PATIENT_MS));
}

static int answer_as(struct rig *rig, const void *who, uint64_t round, const char *text)
{
    json_t *targets = json_loads(text, 0, NULL);
    int result = external_answer(rig->external, who, round, targets, &rig->err);
    json_decref(targets);
    return result;
}

#define RIGHT "{\"a\": 40960, \"b\": 81920}"
#define WRONG "{\"a\": 40960}"

static int answer(struct rig *rig, uint64_t round, const char *text)
{
    return answer_as(rig, rig, round, text);
}

/* Even a right answer is refused, and why. */
static void must_refuse(struct rig *rig, uint64_t round, int errnum)
{
    assert_int_equal(answer(rig, round, RIGHT), -1);
    assert_int_equal(rig->err.errnum, errnum);
}

static struct external_row row_of(struct rig *rig)
{
    struct external_row row;
    assert_true(external_row(rig->external, &row));
    /* Every round that was asked about is accounted for, once. */
    assert_int_equal(row.asked, row.kept + row.late + row.wrong + row.overtaken +
                                    external_is_asked(rig->external));
    return row;
}

static void a_right_answer_decides_its_round(void **state)
{
    struct rig *rig = *state;
    struct external_row row;
    assert_false(external_row(rig->external, &row));
    assert_false(ask_for(rig, 1000)); /* nobody is there */
    attach(rig, 500);
    assert_int_equal(rig->came, 1);
    assert_string_equal(row_of(rig).state, "attached");
    assert_true(ask_for(rig, 1000));
    assert_int_equal(rig->last_deadline_ms, 500);
    assert_string_equal(row_of(rig).state, "asked");
    assert_int_equal(answer(rig, rig->last_round, RIGHT), 0);
    assert_string_equal(row_of(rig).state, "answered");
    assert_int_equal(rig->decided_by_answer, 1);
    assert_int_equal(rig->decided_without, 0);
    assert_int_equal(rig->a_pages, 10);
    assert_int_equal(rig->b_pages, 20);
    assert_true(ask_for(rig, 100));
    assert_int_equal(rig->last_deadline_ms, 100); /* the round's own, if that is shorter */
    assert_int_equal(rig->last_round, 2);
}

static void a_wrong_answer_ends_the_round_at_once(void **state)
{
    struct rig *rig = *state;
    ask(rig);
    assert_int_equal(answer(rig, 1, WRONG), -1);
    assert_string_equal(rig->err.text, "no target for VM b");
    assert_int_equal(rig->decided_without, 1);
    assert_int_equal(rig->told[EXTERNAL_TELL_BAD], 1);
    assert_non_null(strstr(rig->said, "external:test, round 1: no target for VM b"));
    assert_string_equal(row_of(rig).state, "failed");
    /* The right one comes too late now. */
    must_refuse(rig, 1, ESTALE);
    assert_int_equal(rig->decided_by_answer, 0);
    assert_int_equal(rig->decided_without, 1);
}

static void garbage_ends_the_round_at_once(void **state)
{
    struct rig *rig = *state;
    external_garbled(rig->external, rig, "nobody is there");
    attach(rig, PATIENT_MS);
    external_garbled(rig->external, rig, "no question is open");
    assert_int_equal(rig->told[EXTERNAL_TELL_BAD], 0);
    ask(rig);
    external_garbled(rig->external, "somebody else", "not JSON");
    assert_int_equal(rig->decided_without, 0);
    external_garbled(rig->external, rig, "not JSON: \033[31m");
    assert_int_equal(rig->decided_without, 1);
    assert_non_null(strstr(row_of(rig).last_fault, "garbage: not JSON: ?[31m"));
}

static void the_deadline_ends_the_round(void **state)
{
    struct rig *rig = *state;
    attach(rig, 20);
    ask(rig);
    while (rig->decided_without == 0)
        sd_event_run(rig->event, 1000000);
    assert_int_equal(row_of(rig).late, 1);
    assert_non_null(strstr(rig->said, "late, no answer within 20 ms"));
    must_refuse(rig, 1, ESTALE);
    /* A late answer is not the next round's. */
    ask(rig);
    assert_int_equal(answer(rig, 1, RIGHT), -1);
    assert_true(external_is_asked(rig->external));
    assert_int_equal(answer(rig, 2, RIGHT), 0);
    assert_int_equal(row_of(rig).refused, 2);
}

static int answers(sd_event_source *source, void *ctx)
{
    (void)source;
    answer(ctx, 1, RIGHT);
    return 0;
}

static void an_answer_that_is_there_at_the_deadline_is_in_time(void **state)
{
    struct rig *rig = *state;
    attach(rig, 1);
    ask(rig);
    /* The loop comes round late, and finds both: an event of ordinary priority goes first. */
    struct timespec nap = {.tv_nsec = 20000000};
    nanosleep(&nap, NULL);
    sd_event_source *input;
    assert_true(sd_event_add_defer(rig->event, &input, answers, rig) >= 0);
    sd_event_run(rig->event, 0);
    sd_event_run(rig->event, 0);
    assert_int_equal(row_of(rig).kept, 1);
    assert_int_equal(row_of(rig).late, 0);
    sd_event_source_unref(input);
}

static void a_second_answer_spoils_its_round(void **state)
{
    struct rig *rig = *state;
    ask(rig);
    assert_int_equal(answer(rig, 1, RIGHT), 0);
    must_refuse(rig, 1, EALREADY);
    assert_int_equal(rig->decided_without, 1);
    assert_int_equal(row_of(rig).kept, 0);
    assert_int_equal(row_of(rig).wrong, 1);
    /* A third is only refused: one decision more a round is all it can cause. */
    assert_int_equal(answer(rig, 1, RIGHT), -1);
    assert_int_equal(rig->decided_without, 1);
    assert_int_equal(row_of(rig).bad_in_a_row, 1);
}

static void a_program_that_always_answers_twice_is_detached(void **state)
{
    struct rig *rig = *state;
    for (uint64_t round = 1; round <= 3; round++) {
        ask(rig);
        answer(rig, round, RIGHT);
        answer(rig, round, RIGHT);
    }
    assert_int_equal(rig->sent_away, 1);
}

static void a_round_that_is_not_asked_about_has_no_answer(void **state)
{
    struct rig *rig = *state;
    assert_int_equal(answer(rig, 0, RIGHT), -1);
    must_refuse(rig, 1, ESRCH);
    ask(rig);
    assert_int_equal(answer(rig, UINT64_MAX, RIGHT), -1);
    assert_int_equal(answer_as(rig, "somebody else", 1, RIGHT), -1);
    assert_int_equal(rig->err.errnum, EPERM);
    assert_true(external_is_asked(rig->external));
    assert_int_equal(rig->decided_by_answer + rig->decided_without, 0);
}

static void there_is_one_at_a_time(void **state)
{
    struct rig *rig = *state;
    static struct rig other; /* still attached when the seat closes */
    struct external_peer peer = peer_of(&other);
    assert_int_equal(external_attach(rig->external, &peer, &rig->err), -1);
    assert_int_equal(rig->err.errnum, EBUSY);
    ask(rig);
    assert_int_equal(external_detach(rig->external, rig, "it asked to", &rig->err), 0);
    assert_int_equal(rig->decided_without, 1); /* the round is not lost */
    assert_int_equal(rig->sent_away, 0);
    assert_string_equal(row_of(rig).state, "detached");
    assert_int_equal(external_detach(rig->external, rig, "again", &rig->err), -1);
    assert_int_equal(answer(rig, 1, RIGHT), -1);
    assert_int_equal(external_attach(rig->external, &peer, &rig->err), 0);
    ask(rig);
    assert_int_equal(other.last_round, 2); /* numbers are never used twice */
    assert_int_equal(answer_as(rig, rig, 2, RIGHT), -1);
    assert_int_equal(answer_as(rig, &other, 2, RIGHT), 0);
}

static void too_many_bad_rounds_in_a_row_detach(void **state)
{
    struct rig *rig = *state;
    uint64_t round = 0;
    for (unsigned bad = 0; bad < 2; bad++) {
        ask(rig);
        answer(rig, ++round, WRONG);
    }
    ask(rig);
    assert_int_equal(answer(rig, ++round, RIGHT), 0); /* one good round starts anew */
    for (unsigned bad = 0; bad < 3; bad++) {
        assert_int_equal(rig->sent_away, 0);
        ask(rig);
        answer(rig, ++round, WRONG);
    }
    assert_int_equal(rig->sent_away, 1);
    assert_non_null(
        strstr(rig->why_sent_away, "3 bad rounds in a row, the last: round 6: no targ"));
    assert_int_equal(rig->told[EXTERNAL_TELL_DETACHED], 1);
    assert_int_equal(rig->decided_without, 5);
    assert_false(external_is_attached(rig->external));
    assert_false(ask_for(rig, PATIENT_MS));
}

static void a_program_that_can_not_be_asked_does_not_hold_up_the_round(void **state)
{
    struct rig *rig = *state;
    rig->deaf = true;
    for (unsigned i = 0; i < 3; i++)
        assert_false(ask_for(rig, PATIENT_MS)); /* the caller decides */
    assert_int_equal(rig->decided_without, 0);
    assert_int_equal(row_of(rig).late, 3);
    assert_int_equal(rig->sent_away, 1);
}

static void a_round_that_is_overtaken_is_nobodys_fault(void **state)
{
    struct rig *rig = *state;
    ask(rig);
    external_overtake(rig->external);
    must_refuse(rig, 1, ESTALE);
    ask(rig);
    rig->unfit = true;
    assert_int_equal(answer(rig, 2, RIGHT), -1);
    assert_non_null(strstr(rig->err.text, "round 2 was overtaken: things changed"));
    assert_int_equal(answer(rig, 2, RIGHT), -1);
    assert_int_equal(rig->decided_without, 1);
    assert_int_equal(row_of(rig).overtaken, 2);
    assert_int_equal(row_of(rig).bad_in_a_row, 0);
    assert_int_equal(rig->told[EXTERNAL_TELL_BAD], 0);
}

static void bad_attachments_are_refused(void **state)
{
    struct rig *rig = *state;
    static const char *const names[] = {"", "a b", "a\n", "\xc3\xa4",
                                        ("0123456789012345678901234567890123456789"
                                         "012345678901234567890123")};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct external_peer peer = peer_of(rig);
        peer.name = names[i];
        assert_int_equal(external_attach(rig->external, &peer, &rig->err), -1);
    }
    struct external_peer peer = peer_of(rig);
    peer.deadline_ms = 0;
    assert_int_equal(external_attach(rig->external, &peer, &rig->err), -1);
    peer.deadline_ms = EXTERNAL_DEADLINE_MS_MAX + 1;
    assert_int_equal(external_attach(rig->external, &peer, &rig->err), -1);
    peer = peer_of(rig);
    peer.bad_limit = 0;
    assert_int_equal(external_attach(rig->external, &peer, &rig->err), -1);
    assert_false(external_is_attached(rig->external));
}

#define VACANT(test)   cmocka_unit_test_setup_teardown(test, open_seat, close_seat)
#define ATTACHED(test) cmocka_unit_test_setup_teardown(test, open_attached, close_seat)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_answer_is_taken_to_the_page),
        cmocka_unit_test(a_wrong_answer_is_refused_with_its_reason),
        VACANT(a_right_answer_decides_its_round),
        ATTACHED(a_wrong_answer_ends_the_round_at_once),
        VACANT(garbage_ends_the_round_at_once),
        VACANT(the_deadline_ends_the_round),
        VACANT(an_answer_that_is_there_at_the_deadline_is_in_time),
        ATTACHED(a_second_answer_spoils_its_round),
        ATTACHED(a_program_that_always_answers_twice_is_detached),
        ATTACHED(a_round_that_is_not_asked_about_has_no_answer),
        ATTACHED(there_is_one_at_a_time),
        ATTACHED(too_many_bad_rounds_in_a_row_detach),
        ATTACHED(a_program_that_can_not_be_asked_does_not_hold_up_the_round),
        ATTACHED(a_round_that_is_overtaken_is_nobodys_fault),
        VACANT(bad_attachments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
