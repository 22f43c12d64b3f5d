/* A recorded round of policy as policy_decide takes it. */
#ifndef BALLAST_CTL_RECORD_ROUND_H
#define BALLAST_CTL_RECORD_ROUND_H

#include "daemon/policy/policy.h"

#include <jansson.h>

/* Strings belong to the JSON that was read. Arrays have count members each. */
struct recorded_round {
    uint64_t time_ns;
    const char *policy;
    enum host_state state_before, state;
    struct policy_host host;
    struct policy_settings settings;
    size_t count;
    const char **names;
    struct policy_vm *vms;
    struct policy_target *targets; /* as they were decided then */
    struct policy_state *previous; /* as the policy remembered it before */
};

/* Of a line of kind "round". A setting that is absent (an older daemon's) is as by default;
 * anything else that is missing, or no number of its kind, is refused. -1 with err; then nothing is
 * held. */
int recorded_round_read(const json_t *value, struct recorded_round *round, struct err *err);
void recorded_round_free(struct recorded_round *round);

#endif
