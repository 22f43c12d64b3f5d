/*
 * Policy: who may hold how much memory. A pure function
 *
 *     (its previous state, host, one row a VM) -> (its next state, one target a VM)
 *
 * with no clock (the time that passed is an input), no I/O and no globals, so
 * that it is tested on tables, replayed on recorded traces and compared with
 * others on the same input. One round, policy_decide, is
 *
 *   1. judge the rows: an impossible one is refused and its VM left as it is;
 *   2. host_state_next: high, soft, hard or low                   (host_state.h)
 *   3. the policy's own function: a target for every VM           (one file each)
 *   4. reclaim_plan: what the state allows to be done about it    (reclaim.h)
 *
 * so a policy decides amounts only; balloon before paging, stalled balloons,
 * blocking and growing back are the same for all and written once. Beside every
 * target stands its reason: the rule that set it, and those numbers of the round
 * that the row does not hold, so that a reader can work the target out again.
 *
 * A new policy is one file, NAME.c with struct policy policy_NAME, and its NAME in
 * the list of meson.build.
 */
#ifndef BALLAST_POLICY_H
#define BALLAST_POLICY_H

#include "daemon/policy/host_state.h"

#include <stdbool.h>
#include <stddef.h>

/* ---- what goes in ---- */

/* All tunables; policy_settings_default gives the values in brackets. Those that are plain numbers
 * have the same names in the configuration file and in host.set; they are listed in settings.c. */
struct policy_settings {
    struct state_thresholds thresholds;
    double slack_percent;       /* targets leave this much of the machine free above the upper
                                   edge of high's hysteresis [0.5] */
    double growth_room_percent; /* room to grow a VM is given beyond what it has touched, in
                                   percent of its memory [12.5] */
    uint32_t demand_decay_ms;   /* a demand that fell is believed after about this long [30000] */
    uint32_t stall_ms;          /* a balloon without progress for this long is stalled [5000] */
    double balloon_ceiling_percent; /* of a VM's memory that its balloon may take [65] */
    uint32_t page_out_limit_pages;  /* asked of one VM in one round [16384] */
    uint32_t soft_round_ms;         /* from round to round while reclaim goes on, in soft [250] */
    uint32_t hard_round_ms;         /* the same in hard and low [100] */
    uint32_t idle_tax_percent;      /* 0 .. 99, for policies that tax [75] */
    /* For the caller: an active estimate that moved by so much of its VM's memory since the last
       round is worth another; 0: none is. [10: two standard errors of 100 sampled pages] */
    double active_trigger_percent;
};
void policy_settings_default(struct policy_settings *settings);
int policy_settings_check(const struct policy_settings *settings, struct err *err);

/* One plain number among them. */
struct policy_setting {
    const char *name;
    bool whole; /* a uint32_t; else a double */
    size_t offset;
    double least, most;
    const char *meaning; /* one line for people, with the default */
};
/* In order; NULL after the last. */
const struct policy_setting *policy_setting_at(size_t index);
double policy_setting_get(const struct policy_settings *settings,
                          const struct policy_setting *setting);
/* -1 with err, which does not name it, and no change: not finite, out of bounds, not whole. */
int policy_setting_put(struct policy_settings *settings, const struct policy_setting *setting,
                       double value, struct err *err);

struct policy_host {
    uint64_t machine_pages;
    uint64_t free_pages; /* on the free list now */
    uint64_t elapsed_ns; /* since the previous round; 0 in the first */
    /* Frames that several pages share, and what all rows' allocated_pages count for them. The
       targets may add up to as much more as is counted beyond the frames, or less. */
    uint64_t shared_pages, shared_charge_pages;
};

/* Which optional members of a row mean something. */
enum policy_vm_valid {
    POLICY_HAS_BALLOON = 1u << 0,       /* balloon_pages */
    POLICY_HAS_PAGED = 1u << 1,         /* paged_pages */
    POLICY_HAS_ABSENT = 1u << 2,        /* absent_pages */
    POLICY_HAS_MANUAL_TARGET = 1u << 3, /* manual_target_pages: an order of the operator */
    POLICY_HAS_ACTIVE = 1u << 4,        /* active_fraction, by sampling */
    POLICY_HAS_GUEST = 1u << 5,         /* guest_free_pages and the other two */
    POLICY_HAS_IDLE_TAX = 1u << 6,      /* idle_tax_percent: this VM's own, not the host's */
    POLICY_HAS_SAVED = 1u << 7,         /* saved_pages */
    POLICY_HAS_GIVEN_TARGET = 1u << 8,  /* given_target_pages, for policy external */
};

/* What can be done to this VM now. Policy never asks for what is absent. */
enum policy_vm_can {
    POLICY_CAN_BALLOON = 1u << 0,  /* a driver is up and the VM runs */
    POLICY_CAN_PAGE_OUT = 1u << 1, /* swap is there and works */
    POLICY_CAN_BLOCK = 1u << 2,    /* grants can be withheld */
};

struct policy_vm {
    uint32_t id;    /* chosen by the caller; unique, and the same in every round of the VM's life */
    uint32_t valid; /* enum policy_vm_valid */
    uint32_t can;   /* enum policy_vm_can */
    uint32_t shares;
    uint64_t memory_pages, min_pages, max_pages; /* 0 <= min <= max <= memory, memory > 0 */
    uint64_t allocated_pages; /* frames held, the grant pool included, by the caller's records */
    uint64_t page_out_pending_pages; /* asked for earlier and not yet released */
    uint64_t balloon_pages, paged_pages, absent_pages;
    uint64_t saved_pages; /* it has, and that are not in allocated_pages: shared with others */
    uint64_t manual_target_pages;
    uint64_t given_target_pages; /* min .. max: what an external policy answered */
    uint64_t guest_free_pages, guest_available_pages;
    uint64_t guest_untouched_pages; /* absent, and not free to the guest either, when it said so */
    double active_fraction;         /* 0 .. 1 of memory_pages */
    uint32_t idle_tax_percent;      /* 0 .. 99 */
};

/* ---- what comes out ---- */

enum policy_why {
    POLICY_AS_PLANNED = 0,
    POLICY_ROW_REFUSED, /* the row was impossible: the target repeats what is, nothing is asked */
};

/*
 * The rule that set a target, and how to work it out again from the row and the
 * reason. "paid" is shares * level; what it buys is paid up to active_pages, and
 * active_pages + (paid - active_pages) * (1 - idle tax) beyond, in whole pages.
 */
enum policy_rule {
    RULE_POLICY = 0,  /* the policy's own, and it says no more */
    RULE_ROW_REFUSED, /* impossible row: as it was */
    RULE_MANUAL,      /* an order of the operator, within min .. max */
    RULE_MANUAL_CUT,  /* the orders do not fit: paid buys that much, min at least */
    RULE_MIN,         /* paid buys no more than min, which it keeps all the same */
    RULE_MAX,         /* max: there is enough */
    RULE_DEMAND,      /* demand_pages, all it could use: there is enough */
    RULE_SHARES,      /* what paid buys where idle memory costs no more: equal pages a share */
    RULE_RHO,         /* what paid buys at the common price rho = 1 / level; all of it is active */
    RULE_TAX,         /* the same, and part of it is idle, at k = 1 / (1 - tax) times the price */
    RULE_SURPLUS,     /* every demand is met: base_pages and paid, its part of what is left */
    RULE_STATIC,      /* policy static: max, until the operator orders something else */
    RULE_EXTERNAL,    /* a program outside decided */
    POLICY_RULES
};
/* "rho", "tax", ...: names that never change. */
const char *policy_rule_name(enum policy_rule rule);

struct policy_reason {
    uint8_t rule;             /* enum policy_rule */
    uint8_t idle_tax_percent; /* that counted for this VM; 0: none */
    uint32_t active_pages;    /* not taxed */
    uint32_t demand_pages;    /* within min .. max; 0: the policy looked at no demand */
    uint32_t base_pages;      /* of RULE_SURPLUS: the demand, met before */
    double level;             /* pages a share pays for, idle ones counted k times; not finite:
                                 no price, since there is enough for all */
};

struct policy_target {
    uint32_t id;
    uint8_t why;             /* enum policy_why */
    bool blocked;            /* grant it no frame until a later round says otherwise; its vCPU runs
                                on until it needs one, so that its balloon driver can still work */
    bool balloon_stalled;    /* its balloon was asked and makes no progress */
    uint64_t target_pages;   /* frames it may hold */
    uint64_t balloon_pages;  /* size the balloon is asked to have: tell the worker
                                memory_pages - balloon_pages. Only if it CAN_BALLOON. */
    uint64_t page_out_pages; /* ask for this many now, beside what is pending */
    uint64_t limit_pages;    /* holding this many, it gets a frame only for one it pages out itself;
                                max, or more, where nothing limits it */
    struct policy_reason reason; /* of target_pages */
};

/* What a policy and the reclaim plan remember of one VM. New VMs begin with zeroes. */
struct policy_memory {
    uint32_t id;
    bool stalled;
    uint64_t target_pages;   /* as last decided */
    uint64_t balloon_pages;  /* as last asked */
    uint64_t progress_pages; /* size of the balloon when it last made progress */
    uint64_t no_progress_ns; /* time since then during which the host needed memory */
    uint64_t limit_pages;    /* as last decided; 0: none below max */
    double own[8];           /* the policy's own */
};

/* State between rounds. Owned by the caller, who keeps two and swaps them. policy_decide replaces
 * the rows of next by as many as there were VMs. Each state keeps its memory, that of its rows and
 * that in which its round was worked out, so that a round costs no fresh pages. */
struct policy_work;
struct policy_state {
    enum host_state host;
    uint32_t count;
    struct policy_memory *vms; /* sorted by id */
    size_t room;               /* rows that vms has memory for, as policy_decide allocated them */
    struct policy_work *work;  /* policy.c's own */
};
struct policy_state *policy_state_new(void); /* no VMs, HOST_HIGH; NULL: no memory */
void policy_state_free(struct policy_state *state);

/* Of the whole round. */
struct policy_outcome {
    enum host_state host;     /* also in next->host */
    uint64_t available_pages; /* what the targets were allowed to add up to */
    uint64_t target_pages;    /* what they do add up to */
    uint32_t rows_refused;
    uint64_t again_within_ns; /* please decide again that soon (reclaim is going on); 0: no hurry */
};

/* ---- policies ---- */

struct policy;

/* Find by name; NULL if unknown. */
const struct policy *policy_find(const char *name);
const char *policy_name(const struct policy *policy);
const char *policy_summary(const struct policy *policy); /* one line for people */
/* In order of registration; NULL after the last. */
const struct policy *policy_at(size_t index);
/* Takes the rows' given_target_pages; not registered, so that only the daemon can use it. */
extern const struct policy policy_external; /* external.c */

/*
 * One round. targets has count members and answers vms row by row, in the same
 * order. previous and next are different; previous is not changed; next takes
 * its place after success. Rows may be in any order, and VMs may come and go
 * between rounds. Rows beyond belief (min > max, max > memory, no memory, more
 * allocated than the machine has, an id twice, NaN) are refused one by one.
 * -1 with err, and nothing changed, for an impossible host or settings, or
 * without memory. Cost: n log n.
 */
int policy_decide(const struct policy *policy, const struct policy_settings *settings,
                  const struct policy_state *previous, const struct policy_host *host,
                  const struct policy_vm *vms, size_t count, struct policy_state *next,
                  struct policy_target *targets, struct policy_outcome *outcome, struct err *err);

/* Machine pages the targets may add up to: what is left when free memory stands at the upper edge
 * of high's hysteresis plus the slack. Admission should keep the sum of mins below it. */
uint64_t policy_available_pages(uint64_t machine_pages, const struct policy_settings *settings);

/* Free pages that reclaim works towards so that the host rises into state and does not just touch
 * its edge: the upper edge of the state's hysteresis and the slack. */
uint64_t policy_aim_pages(enum host_state state, uint64_t machine_pages,
                          const struct policy_settings *settings);

#endif
