/*
 * A decision: one change of one VM's target, with everything it was made from,
 * so that a reader can work it out again: the row and the reason of the policy
 * (policy/policy.h), the host as it was, who decided, and what set the round off.
 *
 * The supervisor keeps the last DECISIONS_KEPT of each VM in a ring of its own
 * memory and tells listeners of every one (decisions.c). Words and prices are
 * worked out from a record when somebody asks, here.
 */
#ifndef BALLAST_DECISION_H
#define BALLAST_DECISION_H

#include "daemon/policy/policy.h"
#include "daemon/policy_trigger.h"

#define DECISIONS_KEPT        64u /* a VM */
#define DECISION_POLICY_BYTES 80
#define DECISION_TEXT_BYTES   400

struct decision {
    uint64_t time_ns;                   /* CLOCK_REALTIME */
    char policy[DECISION_POLICY_BYTES]; /* its name; "external:NAME" for a program outside */
    enum policy_trigger trigger;        /* of the round */
    enum host_state host_state;
    uint64_t previous_target_pages, target_pages;
    struct policy_host host;
    uint64_t available_pages; /* what all targets together might come to */
    uint64_t reserved_pages;  /* admission: min and overhead of all VMs */
    struct policy_vm row;
    struct policy_reason reason;
};

/* k = 1 / (1 - tax): how many times an idle page's price is that of an active one. */
double decision_idle_factor(const struct decision *decision);

/* The fraction f of what the VM holds that is active: 0 .. 1. */
double decision_active_part(const struct decision *decision);

/* rho = S / (P (f + k (1 - f))) that the VM pays for the P pages it holds (paper, section 5.3).
 * Infinite if it holds nothing. */
double decision_rho_held(const struct decision *decision);

/* Did the rule divide memory at a common price, 1 / reason.level? */
bool decision_has_price(const struct decision *decision);

/* One sentence with the numbers. Returns text. */
const char *decision_text(const struct decision *decision, char text[DECISION_TEXT_BYTES]);

#endif
