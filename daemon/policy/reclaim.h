/*
 * What is done about targets, by the state of the host (paper, section 6.3):
 *
 *   state   balloons   pages out          pages out   withholds   balloons
 *           grow       where no balloon   anyone      frames      shrink
 *                      can do it
 *   high    no         no                 no          no          yes
 *   soft    yes        yes                no          no          no
 *   hard    yes        yes                yes         no          no
 *   low     yes        yes                yes         yes         no
 *
 * All of it concerns VMs above their target only. A balloon that grows is asked
 * for everything beyond the target at once (memory - target, less what is paged
 * out, saved by sharing, or untouched and not free to the guest either), because a guest also fills
 * its balloon with pages it never touched. In high nothing new is
 * reclaimed, and balloons shrink towards their targets, together by no more
 * than leaves free memory clear of the hard state, so that whoever is above his
 * target can be asked for it before the host runs dry.
 *
 * A balloon "can not" when there is no driver, when it was asked and made no
 * progress for stall_ms while the host needed memory, or beyond its ceiling.
 * What it can not, paging does: up to all that is missing to the aim. Where a
 * balloon is at work, hard and low page out only what is missing to leave hard;
 * the balloon does the rest. If VMs above target do not have that much, the rest
 * is taken from everyone above min, in proportion to what he has above it.
 *
 * A VM that was paged out for want of a balloon is held at its target from then
 * on: beyond it, it gets a frame only for one that it pages out itself. This is to
 * it what a balloon that stays inflated is to others: kept in high, and raised
 * there with the target. Without it, a VM that needs more than its target would
 * take back within milliseconds what was paged out, and the host's state would
 * swing as fast.
 *
 * A manual target is an order: its balloon follows in every state, and what the
 * balloon can not is paged out in every state, unless the policy says hard only.
 */
#ifndef BALLAST_RECLAIM_H
#define BALLAST_RECLAIM_H

#include "daemon/policy/policies.h"

/* A VM that may be paged out, as reclaim_vm found it. */
struct reclaim_victim {
    uint32_t pages;   /* above its target, beyond what was asked before */
    uint32_t pending; /* what was asked before */
    uint8_t group;
};
#define RECLAIM_GROUPS 3

/* Sums over the VMs of a round. */
struct reclaim_sums {
    uint64_t pending_pages;                /* asked to be paged out before */
    uint64_t excess_pages;                 /* above targets, beyond that */
    uint64_t victim_pages[RECLAIM_GROUPS]; /* of each group */
};

struct reclaim_round {
    const struct policy *policy;
    const struct policy_settings *settings;
    const struct policy_host *host;
    enum host_state state;
    uint64_t aim_free_pages;   /* what free memory should come back to */
    uint64_t leave_hard_pages; /* what brings it out of hard, with the same slack */
    size_t count;
    const struct policy_vm *const *vms;
    struct policy_memory *const *memory;  /* as of the previous round; balloon fields change here */
    struct policy_target *const *targets; /* target_pages is given; the rest is written */
    struct reclaim_victim *victims;       /* scratch: count of them */
    /* reclaim's own, from begin to end */
    double shrinking;
    struct reclaim_sums sums;
};

/* Fill in what is to be done: begin, every VM in turn, end. A VM's target_pages must be given
 * before its turn; all of them before reclaim_begin, where reclaim_looks_ahead says so. */
bool reclaim_looks_ahead(const struct reclaim_round *round);
void reclaim_begin(struct reclaim_round *round);
void reclaim_vm(struct reclaim_round *round, size_t i);
void reclaim_end(const struct reclaim_round *round);

#endif
