/*
 * What test workers with real guest memory (vmm-core's gmem) have in common: the
 * memory over the mapped parts, a gate at which their one guest thread waits
 * while the VM is paused or has no frames, and a source of chance.
 */
#ifndef BALLAST_TESTS_WORKER_MEMORY_H
#define BALLAST_TESTS_WORKER_MEMORY_H

#include "tests/daemon/worker_parts.h"
#include "vmm-core/gmem.h"

/* Guest memory that answers the supervisor from here on, set_balloon (NULL: no driver) being called
 * with the target; *gmem is there before its first call. Ends the process with a message when it is
 * impossible. Once a process. */
void worker_memory_open(struct gmem **gmem, const struct worker_parts *parts,
                        void (*set_balloon)(void *ctx, uint64_t target_pages));

/* For the guest thread between two steps: returns when the VM is not paused. */
void worker_memory_gate(void);

/* Any number; from worker_memory_open on they follow from the VM's seed. The guest thread's. */
uint64_t worker_random(void);

#endif
