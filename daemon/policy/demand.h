/*
 * What a VM could use, and memory divided by it; shared by the policies that
 * look at demand.
 *
 * A VM's demand is what it has touched, balloon and paged-out pages included
 * (memory that was taken from it is still wanted), and room to grow: a fixed
 * part of its memory, or twice what it grew in the last round if that is more.
 * First everybody's demand is filled, then what is left is handed out up to
 * max, so that idle room moves to those who can use it and a lone VM may have
 * everything.
 *
 * A demand rises at once and falls slowly (demand_decay_ms), so that a VM that
 * frees and takes memory in turns does not make its neighbours' balloons swing.
 */
#ifndef BALLAST_DEMAND_H
#define BALLAST_DEMAND_H

#include "daemon/policy/policies.h"

/* A vessel (water_fill.h) between min and demand for VM i of the round. Remembers the demand in
 * the VM's own[]; call once a round and VM. */
struct water_vessel demand_vessel(const struct policy_round *round, size_t i);

/* Fill round->vessels, as made by demand_vessel, in the two steps above. */
void demand_fill(const struct policy_round *round, uint64_t *target_pages);

#endif
