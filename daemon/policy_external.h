/*
 * The seat of an external policy: one program, attached by its connection, that
 * is asked for targets round by round.
 *
 *   state      means                             is left by
 *   none       nobody ever attached              attach
 *   attached   no question is open               ask, detach
 *   asked      a question is open                answer, deadline, overtake, detach
 *   answered   the last answer was right         ask, a second answer, detach
 *   failed     the last round was late or wrong  ask, detach
 *   detached   somebody was attached             attach
 *
 * (the table is in policy_external.c). What holds always:
 *
 *   - at most one program is attached and at most one question is open;
 *   - every question that was sent ends in exactly one call of decide: with the
 *     answer if it is right, without as soon as that is not so (wrong, late, gone);
 *     or in an overtake, whose caller decides. So no round is lost;
 *   - a round number is used once; an answer counts only for the open one, and only
 *     from the program that was asked;
 *   - a second answer makes its round a bad one: which of the two was meant is
 *     unknown, so decide is called once more, without;
 *   - so many bad rounds in a row as bad_limit says, and it is detached;
 *   - nothing here waits: the deadline is a timer of the event loop.
 *
 * It knows neither sockets nor VMs: who asks and who decides is given in two
 * structures of functions, so tests drive it without either.
 */
#ifndef BALLAST_POLICY_EXTERNAL_H
#define BALLAST_POLICY_EXTERNAL_H

#include "daemon/policy/policy.h"
#include "daemon/policy_answer.h"

#include <jansson.h>
#include <systemd/sd-event.h>

#define EXTERNAL_NAME_BYTES      64 /* letters, digits, '.', '_', '-', and the final NUL */
#define EXTERNAL_DEADLINE_MS_MAX 60000u
#define EXTERNAL_BAD_LIMIT       8u /* by default */
#define EXTERNAL_BAD_LIMIT_MAX   1000u

/* ---- the question ---- */

struct question_vm {
    const char *name;
    const struct policy_vm *row;
    uint64_t target_pages; /* as last decided */
};

struct policy_question {
    uint64_t round;       /* given by external_ask */
    uint32_t deadline_ms; /* until the round goes on anyway; at most what was attached with */
    const char *trigger;  /* of the round: policy_trigger.h */
    const struct policy_settings *settings;
    const struct policy_host *host;
    enum host_state state;
    uint64_t available_pages; /* what the targets may add up to */
    size_t count;
    const struct question_vm *vms; /* those with a manual target are not among them */
};

/* ---- the two sides ---- */

/* The program. */
struct external_peer {
    const char *name;
    uint32_t deadline_ms;          /* 1 .. EXTERNAL_DEADLINE_MS_MAX */
    uint32_t bad_limit;            /* 1 .. EXTERNAL_BAD_LIMIT_MAX */
    const struct policy *fallback; /* decides where it does not; NULL: the host's */
    /* Send the question. false: it can not be sent now. */
    bool (*ask)(void *ctx, const struct policy_question *question);
    /* It has been detached, and why; not called when it detached itself. */
    void (*detached)(void *ctx, const char *reason);
    void *ctx; /* also who it is: answers carry it */
};

enum external_event { EXTERNAL_TELL_ATTACHED, EXTERNAL_TELL_DETACHED, EXTERNAL_TELL_BAD };

/* The host. */
struct external_host {
    /* Decide the round that was asked about. answer: the VMs of the question with their targets,
     * or NULL: without. -1 with err when the answer does not fit the host as it is by now: then
     * it has been decided without. */
    int (*decide)(void *ctx, const struct answer_vm *answer, size_t count, struct err *err);
    void (*tell)(void *ctx, enum external_event event, const char *text);
    void (*attached)(void *ctx); /* please ask soon */
    void *ctx;
};

/* ---- the seat ---- */

struct external_policy;

/* host is copied. NULL with err: no memory. */
struct external_policy *external_new(sd_event *event, const struct external_host *host,
                                     struct err *err);
/* Decides nothing and tells nobody any more. */
void external_free(struct external_policy *external);

/* -1 with err: a bad name or number, or somebody is attached already. peer is copied. */
int external_attach(struct external_policy *external, const struct external_peer *peer,
                    struct err *err);
/* Whoever is attached leaves (by is its ctx) or is sent away, and told so; an open question is
 * decided without. -1 with err: nobody is attached. */
int external_detach(struct external_policy *external, const void *by, const char *reason,
                    struct err *err);

bool external_is_attached(const struct external_policy *external);
bool external_is_asked(const struct external_policy *external); /* a question is open */
/* Whoever is attached is ctx. */
bool external_is_peer(const struct external_policy *external, const void *ctx);
const char *external_name(const struct external_policy *external); /* of the last attached */
/* NULL: the host's, or nobody is attached. */
const struct policy *external_fallback(const struct external_policy *external);

/* Open a round: number it and send it. true: decide will be called. false: decide it yourself
 * now; nobody is attached, or it could not be sent, which counts as a bad round. */
bool external_ask(struct external_policy *external, struct policy_question *question);

/* The open question is not needed any more: the caller decides. No fault of the program. */
void external_overtake(struct external_policy *external);

/* An answer from ctx. 0: it was right and has been taken. -1 with err: why not. */
int external_answer(struct external_policy *external, const void *ctx, uint64_t round,
                    const json_t *targets, struct err *err);
/* ctx said something that is no answer at all; ends the open question if it is asked. */
void external_garbled(struct external_policy *external, const void *ctx, const char *what);

/* ---- statistics, of the one attached or the last that was ---- */

struct external_row {
    const char *name, *state;
    const char *fallback; /* NULL: the host's */
    uint32_t deadline_ms, bad_limit, bad_in_a_row;
    uint64_t round;       /* the last number given */
    uint64_t asked;       /* = kept + late + wrong + overtaken, but for one open */
    uint64_t kept;        /* answered right, in time, once */
    uint64_t late, wrong; /* bad rounds */
    uint64_t overtaken;   /* decided before an answer came, or it fitted no more */
    uint64_t refused;     /* answers that were to no open question */
    uint64_t answer_ns;   /* from the last question to its answer */
    uint64_t longest_answer_ns;
    char last_fault[200]; /* "": none */
};
/* false: nobody was ever attached. */
bool external_row(const struct external_policy *external, struct external_row *row);

#endif
