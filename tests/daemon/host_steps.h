/*
 * Things that can happen to the VMs of a host under test, drawn at random: killed,
 * destroyed, paused, resumed, other targets, bounds, shares and policies, another
 * sharing domain. One schedule a process; its seed repeats it.
 */
#ifndef BALLAST_TESTS_HOST_STEPS_H
#define BALLAST_TESTS_HOST_STEPS_H

#include "tests/daemon/host_fixture.h"

/* Steps from now on: VMs of this size, in MiB, with settings between min and it. */
void host_steps_begin(uint64_t seed, unsigned vm_mib, unsigned vm_min_mib);
unsigned host_random_below(unsigned limit);

/* One random step on one VM. endings: also steps that end its worker. */
void host_step(struct host *host, struct vm *vm, bool endings);

/* The scanner in a hurry: every pass finds what the guests have just written. */
void host_share_eagerly(struct host *host);

/* Fails the test if a guest has reported a failure: it saw a wrong page. */
void host_nobody_saw_a_wrong_page(struct host *host);

#endif
