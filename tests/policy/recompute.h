/*
 * A target worked out again from nothing but its row and its reason, by the rules
 * as daemon/rpc/PROTOCOL.md prints them and without the policies' own code.
 */
#ifndef BALLAST_TEST_RECOMPUTE_H
#define BALLAST_TEST_RECOMPUTE_H

#include "daemon/policy/policy.h"

/* UINT64_MAX: the rule explains nothing. */
uint64_t recomputed_pages(const struct policy_vm *vm, const struct policy_reason *why);

#endif
