#include "daemon/policy_external.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_MS UINT64_C(1000000)
#define US_PER_MS UINT64_C(1000)

/* ---- states ---- */

enum state { NONE, ATTACHED, ASKED, ANSWERED, FAILED, DETACHED, STATES };
enum move { ATTACH, ASK, RIGHT, BAD, OVERTAKE, SECOND, DETACH, MOVES };

static const char *const state_names[STATES] = {
    [NONE] = "none",         [ATTACHED] = "attached", [ASKED] = "asked",
    [ANSWERED] = "answered", [FAILED] = "failed",     [DETACHED] = "detached",
};

/* What is not here (0, since nothing leads back to none) can not happen. */
static const enum state moves[STATES][MOVES] = {
    [NONE] = {[ATTACH] = ATTACHED},
    [ATTACHED] = {[ASK] = ASKED, [DETACH] = DETACHED},
    [ASKED] = {[RIGHT] = ANSWERED, [BAD] = FAILED, [OVERTAKE] = ATTACHED, [DETACH] = DETACHED},
    [ANSWERED] = {[ASK] = ASKED, [SECOND] = FAILED, [OVERTAKE] = ATTACHED, [DETACH] = DETACHED},
    [FAILED] = {[ASK] = ASKED, [DETACH] = DETACHED},
    [DETACHED] = {[ATTACH] = ATTACHED},
};

struct external_policy {
    sd_event *event;
    struct external_host host;
    struct external_peer peer; /* name is ours */
    char name[EXTERNAL_NAME_BYTES];
    enum state state;
    sd_event_source *deadline;

    /* the last question */
    uint64_t round, asked_ns;
    uint32_t deadline_ms;
    struct answer_vm *vms;
    size_t count, capacity;
    uint64_t available_pages;

    uint32_t bad_in_a_row;
    uint64_t asked, kept, late, wrong, overtaken, refused;
    uint64_t answer_ns, longest_answer_ns;
    char last_fault[200];
};

static bool can_move(const struct external_policy *external, enum move move)
{
    return moves[external->state][move] != NONE;
}

static void move(struct external_policy *external, enum move how)
{
    if (!can_move(external, how)) {
        fprintf(stderr, "external policy: no move %d from state %s\n", how,
                state_names[external->state]);
        abort();
    }
    external->state = moves[external->state][how];
    if (external->state != ASKED && external->deadline)
        sd_event_source_set_enabled(external->deadline, SD_EVENT_OFF);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 * NS_PER_MS + (uint64_t)now.tv_nsec;
}

static void tell(struct external_policy *external, enum external_event event, const char *format,
                 ...) __attribute__((format(printf, 3, 4)));
static void tell(struct external_policy *external, enum external_event event, const char *format,
                 ...)
{
    char text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    external->host.tell(external->host.ctx, event, text);
}

/* ---- bad rounds ---- */

static void decide_without(struct external_policy *external)
{
    external->host.decide(external->host.ctx, NULL, 0, NULL);
}

/* The round has been counted, and moved to failed: say so, decide, and see whether that was one
 * too many. decides: this is for us to do. */
static void complain(struct external_policy *external, bool decides, const char *why)
{
    external->bad_in_a_row++;
    snprintf(external->last_fault, sizeof external->last_fault, "round %" PRIu64 ": %s",
             external->round, why);
    tell(external, EXTERNAL_TELL_BAD,
         "external:%s, round %" PRIu64 ": %s; the built-in policy decides (%u of %u bad rounds)",
         external->name, external->round, why, external->bad_in_a_row, external->peer.bad_limit);
    bool too_many = external->bad_in_a_row >= external->peer.bad_limit;
    struct external_peer peer = external->peer;
    if (too_many)
        move(external, DETACH);
    if (decides)
        decide_without(external);
    if (!too_many)
        return;
    char reason[300];
    snprintf(reason, sizeof reason, "%u bad rounds in a row, the last: %s", external->bad_in_a_row,
             external->last_fault);
    tell(external, EXTERNAL_TELL_DETACHED, "external:%s is detached: %s", external->name, reason);
    peer.detached(peer.ctx, reason);
}

static int deadline_has_passed(sd_event_source *source, uint64_t time_us, void *ctx)
{
    (void)source, (void)time_us;
    struct external_policy *external = ctx;
    char why[80];
    if (external->state != ASKED)
        return 0;
    external->late++;
    move(external, BAD);
    snprintf(why, sizeof why, "late, no answer within %u ms", external->deadline_ms);
    complain(external, true, why);
    return 0;
}

/* ---- life ---- */

struct external_policy *external_new(sd_event *event, const struct external_host *host,
                                     struct err *err)
{
    struct external_policy *external = calloc(1, sizeof *external);
    if (!external) {
        err_set(err, ENOMEM, "external policy");
        return NULL;
    }
    external->event = sd_event_ref(event);
    external->host = *host;
    int result = sd_event_add_time(event, &external->deadline, CLOCK_MONOTONIC, 0, US_PER_MS,
                                   deadline_has_passed, external);
    if (result >= 0)
        result = sd_event_source_set_enabled(external->deadline, SD_EVENT_OFF);
    /* An answer that has come before the deadline is read before it strikes, however late the loop
     * comes round to both. */
    if (result >= 0)
        result = sd_event_source_set_priority(external->deadline, SD_EVENT_PRIORITY_NORMAL + 10);
    if (result < 0) {
        err_set(err, -result, "deadline of external policies");
        external_free(external);
        return NULL;
    }
    return external;
}

void external_free(struct external_policy *external)
{
    if (!external)
        return;
    sd_event_source_disable_unref(external->deadline);
    sd_event_unref(external->event);
    free(external->vms);
    free(external);
}

static bool name_is_fine(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    size_t length = strlen(name);
    return length > 0 && length < EXTERNAL_NAME_BYTES && strspn(name, letters) == length;
}

int external_attach(struct external_policy *external, const struct external_peer *peer,
                    struct err *err)
{
    if (!can_move(external, ATTACH))
        return err_set(err, EBUSY, "external policy %s is attached, and there is one at a time",
                       external->name);
    if (!name_is_fine(peer->name))
        return err_set(err, EINVAL, "a policy's name is 1 to %u letters, digits, '.', '_', '-'",
                       EXTERNAL_NAME_BYTES - 1);
    if (peer->deadline_ms < 1 || peer->deadline_ms > EXTERNAL_DEADLINE_MS_MAX)
        return err_set(err, ERANGE, "a deadline of %u ms; it must be 1 to %u", peer->deadline_ms,
                       EXTERNAL_DEADLINE_MS_MAX);
    if (peer->bad_limit < 1 || peer->bad_limit > EXTERNAL_BAD_LIMIT_MAX)
        return err_set(err, ERANGE, "detach after %u bad rounds; it must be 1 to %u",
                       peer->bad_limit, EXTERNAL_BAD_LIMIT_MAX);
    external->peer = *peer;
    snprintf(external->name, sizeof external->name, "%s", peer->name);
    external->peer.name = external->name;
    external->bad_in_a_row = 0;
    external->asked = external->kept = external->late = external->wrong = 0;
    external->overtaken = external->refused = 0;
    external->answer_ns = external->longest_answer_ns = 0;
    external->last_fault[0] = 0;
    move(external, ATTACH);
    tell(external, EXTERNAL_TELL_ATTACHED, "external:%s is attached, deadline %u ms",
         external->name, peer->deadline_ms);
    external->host.attached(external->host.ctx);
    return 0;
}

int external_detach(struct external_policy *external, const void *by, const char *reason,
                    struct err *err)
{
    if (!external_is_attached(external))
        return err_set(err, 0, "no external policy is attached");
    bool open = external->state == ASKED;
    external->late += open;
    move(external, DETACH);
    tell(external, EXTERNAL_TELL_DETACHED, "external:%s is detached: %s%s", external->name, reason,
         open ? "; the built-in policy decides the round that it was asked about" : "");
    if (open)
        decide_without(external);
    if (by != external->peer.ctx)
        external->peer.detached(external->peer.ctx, reason);
    return 0;
}

/* ---- questions ---- */

static bool keep_question(struct external_policy *external, const struct policy_question *question)
{
    if (question->count > external->capacity) {
        struct answer_vm *vms = reallocarray(external->vms, question->count, sizeof *external->vms);
        if (!vms)
            return false;
        external->vms = vms;
        external->capacity = question->count;
    }
    for (size_t i = 0; i < question->count; i++) {
        const struct question_vm *vm = &question->vms[i];
        external->vms[i] = (struct answer_vm){
            .id = vm->row->id,
            .min_pages = vm->row->min_pages,
            .max_pages = vm->row->max_pages,
        };
        snprintf(external->vms[i].name, sizeof external->vms[i].name, "%s", vm->name);
    }
    external->count = question->count;
    external->available_pages = question->available_pages;
    external->deadline_ms = question->deadline_ms;
    return true;
}

bool external_ask(struct external_policy *external, struct policy_question *question)
{
    if (!can_move(external, ASK))
        return false;
    if (question->deadline_ms > external->peer.deadline_ms)
        question->deadline_ms = external->peer.deadline_ms;
    if (external->state == ANSWERED)
        external->bad_in_a_row = 0; /* and was not answered again */
    question->round = ++external->round;
    external->asked++;
    external->asked_ns = now_ns();
    move(external, ASK);
    bool sent = keep_question(external, question);
    if (sent) {
        sd_event_source_set_time(external->deadline,
                                 external->asked_ns / 1000 + question->deadline_ms * US_PER_MS);
        sd_event_source_set_enabled(external->deadline, SD_EVENT_ONESHOT);
        sent = external->peer.ask(external->peer.ctx, question);
    }
    if (!sent) {
        external->late++;
        move(external, BAD);
        complain(external, false, "late, it does not read what it is sent");
    }
    return sent;
}

void external_overtake(struct external_policy *external)
{
    external->overtaken++;
    move(external, OVERTAKE);
}

/* ---- answers ---- */

/* The text says it all; the number is for programs. Returns -1. */
static int refused(struct err *err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int refused(struct err *err, int errnum, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    err->errnum = errnum;
    return -1;
}

/* An answer to no open question: why? A second one makes its round a bad one. */
static int refuse(struct external_policy *external, uint64_t round, struct err *err)
{
    external->refused++;
    if (round > external->round || external->state == NONE)
        return refused(err, ESRCH, "round %" PRIu64 " has not been asked yet", round);
    if (round == external->round && can_move(external, SECOND)) {
        external->kept--;
        external->wrong++;
        move(external, SECOND);
        complain(external, true, "answered twice");
        return refused(err, EALREADY, "round %" PRIu64 " has been answered already", round);
    }
    return refused(err, ESTALE, "round %" PRIu64 " is over", round);
}

static int take_answer(struct external_policy *external, struct err *err)
{
    external->answer_ns = now_ns() - external->asked_ns;
    if (external->answer_ns > external->longest_answer_ns)
        external->longest_answer_ns = external->answer_ns;
    struct err unfit;
    move(external, RIGHT);
    if (external->host.decide(external->host.ctx, external->vms, external->count, &unfit) < 0) {
        external->overtaken++;
        move(external, OVERTAKE);
        return refused(err, ESTALE, "round %" PRIu64 " was overtaken: %s", external->round,
                       unfit.text);
    }
    external->kept++;
    return 0;
}

int external_answer(struct external_policy *external, const void *ctx, uint64_t round,
                    const json_t *targets, struct err *err)
{
    if (!external_is_peer(external, ctx))
        return refused(err, EPERM, "only the connection of an attached policy may answer");
    if (external->state != ASKED || round != external->round)
        return refuse(external, round, err);
    if (policy_answer_read(targets, external->vms, external->count, external->available_pages,
                           err) == 0)
        return take_answer(external, err);
    external->wrong++;
    move(external, BAD);
    complain(external, true, err->text);
    return -1;
}

void external_garbled(struct external_policy *external, const void *ctx, const char *what)
{
    if (!external_is_peer(external, ctx) || external->state != ASKED)
        return;
    char why[160];
    size_t length = (size_t)snprintf(why, sizeof why, "no answer but garbage: %s", what);
    for (size_t i = 0; i < length && i + 1 < sizeof why; i++)
        if (why[i] < ' ' || why[i] > '~')
            why[i] = '?';
    external->wrong++;
    move(external, BAD);
    complain(external, true, why);
}

/* ---- looking ---- */

bool external_is_attached(const struct external_policy *external)
{
    return can_move(external, DETACH);
}

bool external_is_asked(const struct external_policy *external)
{
    return external->state == ASKED;
}

bool external_is_peer(const struct external_policy *external, const void *ctx)
{
    return external_is_attached(external) && external->peer.ctx == ctx;
}

const char *external_name(const struct external_policy *external)
{
    return external->name;
}

const struct policy *external_fallback(const struct external_policy *external)
{
    return external_is_attached(external) ? external->peer.fallback : NULL;
}

bool external_row(const struct external_policy *external, struct external_row *row)
{
    const struct policy *fallback = external->peer.fallback;
    *row = (struct external_row){
        .name = external->name,
        .state = state_names[external->state],
        .fallback = fallback ? policy_name(fallback) : NULL,
        .deadline_ms = external->peer.deadline_ms,
        .bad_limit = external->peer.bad_limit,
        .bad_in_a_row = external->bad_in_a_row,
        .round = external->round,
        .asked = external->asked,
        .kept = external->kept,
        .late = external->late,
        .wrong = external->wrong,
        .overtaken = external->overtaken,
        .refused = external->refused,
        .answer_ns = external->answer_ns,
        .longest_answer_ns = external->longest_answer_ns,
    };
    memcpy(row->last_fault, external->last_fault, sizeof row->last_fault);
    return external->state != NONE;
}
