/*
 * A round of policy in words: which member of which structure of policy.h goes
 * under which name. The daemon writes rounds by these tables (rpc/rounds.c,
 * rounds.subscribe), ballastctl reads recorded ones by them and decides them
 * again, so what one of them knows the other knows too. The names are those of
 * PROTOCOL.md and never change.
 *
 * A member that is optional (a validity bit, or "no limit") is absent when it
 * means nothing. A new member of policy.h is one line in round_fields.c, which
 * does not compile without it.
 */
#ifndef BALLAST_ROUND_FIELDS_H
#define BALLAST_ROUND_FIELDS_H

#include "daemon/policy/policy.h"

enum round_kind {
    ROUND_COUNT,   /* uint64_t */
    ROUND_COUNT32, /* uint32_t */
    ROUND_REAL,    /* double */
    ROUND_FLAG,    /* bool */
    ROUND_BYTE,    /* uint8_t, a small number */
    ROUND_BIT,     /* a bit of a uint32_t: true or false */
    ROUND_LIMIT,   /* uint64_t; UINT64_MAX: no limit, and absent */
};

struct round_field {
    const char *name;
    enum round_kind kind;
    size_t offset;
    uint32_t bit; /* ROUND_BIT: which. Else of policy_vm's valid: absent unless set; 0: always */
};

/* Each ends with a NULL name. */
/* Of struct state_thresholds; the other settings are those of policy_setting_at. */
extern const struct round_field round_thresholds_fields[];
extern const struct round_field round_host_fields[];    /* of struct policy_host */
extern const struct round_field round_vm_fields[];      /* of struct policy_vm */
extern const struct round_field round_memory_fields[];  /* of struct policy_memory */
extern const struct round_field round_target_fields[];  /* of struct policy_target */
extern const struct round_field round_outcome_fields[]; /* of struct policy_outcome */

#endif
