/*
 * What a policy's own file needs. Private to daemon/policy; everyone else includes
 * policy.h.
 */
#ifndef BALLAST_POLICIES_H
#define BALLAST_POLICIES_H

#include "daemon/policy/policy.h"
#include "daemon/policy/water_fill.h"

/* One round as a policy sees it: rows that were believed, none with a manual target. */
struct policy_round {
    const struct policy_settings *settings;
    const struct policy_host *host;
    uint64_t available_pages; /* what the targets may add up to */
    size_t count;
    const struct policy_vm *const *vms;
    struct policy_memory *const *memory;  /* of each VM; only own[] is the policy's to change */
    struct policy_target *const *targets; /* of each VM; only reason is the policy's to change */
    struct water_vessel *vessels;         /* scratch: count of them */
};

struct policy {
    const char *name, *summary;
    /* Targets stay as the operator set them, even where they add up to more than there is. */
    bool may_oversubscribe;
    /* Nothing is paged out before the state is hard, not even for want of a balloon. */
    bool pages_only_when_hard;
    /* decide writes every VM's reason whole. Without this they are all zero before. */
    bool gives_reasons;
    /* Write the target of every VM of the round, and its reason: all zero is the policy's own. The
     * target is clamped to min .. max afterwards, and the reason is that bound where it moved. */
    void (*decide)(const struct policy_round *round, uint64_t *target_pages);
};

#endif
