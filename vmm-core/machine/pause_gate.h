/*
 * The pause gate: where the machine's threads stop when the VM is paused or ends.
 *
 * Every thread that works for the guest (harts, device thread) is a member, and
 * passes the gate between two pieces of work. While a pause is wanted it waits
 * there and counts as quiet; pause_gate_pause returns when all are. A thread that
 * waits inside gmem passes the gate from there (gmem_config.park), so that a VM
 * without frames can be paused too.
 */
#ifndef BALLAST_PAUSE_GATE_H
#define BALLAST_PAUSE_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct pause_gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    _Atomic bool pause_wanted; /* written under the lock; read without it as a hint to look */
    _Atomic bool ended;        /* nobody waits here any more */
    unsigned members, quiet;
};

void pause_gate_init(struct pause_gate *gate);
void pause_gate_destroy(struct pause_gate *gate);

/* A thread joins before it starts, and leaves when it is done. */
void pause_gate_join(struct pause_gate *gate);
void pause_gate_leave(struct pause_gate *gate);

/* Member threads: wait while a pause is wanted. False: the machine has ended. */
bool pause_gate_pass(struct pause_gate *gate);

/* pause_gate_want: members stop at their next pass; the caller then makes sure that they come
 * there. pause_gate_wait_quiet: returns when all have (or the machine has ended). */
void pause_gate_want(struct pause_gate *gate);
void pause_gate_wait_quiet(struct pause_gate *gate);
void pause_gate_resume(struct pause_gate *gate);

/* Let everybody out, for good. */
void pause_gate_end(struct pause_gate *gate);

#endif
