/*
 * Why a round of the policy was made. The paper (section 6.3) names a changed
 * setting of the host or of a VM, a VM added or gone, free memory that crossed a
 * threshold, and the period, which carries changes of idle memory. Ours beside
 * those: an active estimate that moved far is not left to the period; reclaim that
 * goes on is looked at again soon; and what can be done to a VM may change.
 *
 * Several may come together before one round is made; that round is told under the
 * first of this list.
 */
#ifndef BALLAST_POLICY_TRIGGER_H
#define BALLAST_POLICY_TRIGGER_H

#include <stdint.h>

enum policy_trigger {
    TRIGGER_VM_ADDED = 0, /* or started, or going on after a pause */
    TRIGGER_VM_GONE,
    TRIGGER_VM_SETTING,   /* shares, min, max, idle tax, manual target of one */
    TRIGGER_HOST_SETTING, /* policy, period, tax, thresholds, charge, sampling, ... */
    TRIGGER_STATE,        /* free memory crossed a threshold, down or up */
    TRIGGER_STARVED,      /* a VM waits for frames and gets none */
    TRIGGER_ABILITY,      /* a balloon driver or a swap file began or ceased to work */
    TRIGGER_ACTIVE,       /* a VM's active estimate moved by active_trigger_percent or more */
    TRIGGER_CHECKED,      /* a check of the invariants is over, during which nothing was decided */
    TRIGGER_RECLAIM,      /* the round before asked for another one soon */
    TRIGGER_PERIOD,
    POLICY_TRIGGERS
};

/* "vm-added", ...; "none" beyond. */
const char *policy_trigger_name(enum policy_trigger trigger);

#endif
