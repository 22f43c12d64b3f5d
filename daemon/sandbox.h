/*
 * The worker's sandbox: what a guest that has taken its worker over could still
 * ask of the kernel.
 */
#ifndef BALLAST_SANDBOX_H
#define BALLAST_SANDBOX_H

#include "vmm-core/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Die with the parent process. -1 with *err when it is gone already, as told by standard error,
 * which is a pipe that only it reads. */
int sandbox_follow_parent(struct err *err);

/*
 * Close the door: resource limits (no core, no new descriptors to speak of,
 * private_bytes of writable private memory), no new privileges, and a seccomp
 * filter for all threads, those to come included. Everything that needs a path
 * must have been opened. Allowed afterwards: I/O on open descriptors, memory
 * without PROT_EXEC, threads, time. Opening anything fails with EACCES; any
 * other call ends the process (SIGSYS).
 */
int sandbox_close(uint64_t private_bytes, struct err *err);

/* False in builds with a sanitizer, whose run-time makes calls of its own: then sandbox_close sets
 * the limits only. */
bool sandbox_filters(void);

#endif
