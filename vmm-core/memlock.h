/*
 * The memory lock of a worker, and safe points.
 *
 * One mutex makes the writer of pmap, shadow tables, grant pool and ring ends
 * single. Removing or weakening a mapping also needs every other hart at a safe
 * point, because a store whose look-up is already done does not notice a
 * cleared entry. So there are two strengths:
 *
 *   memlock_lock   the mutex alone: may ADD mappings and move pages that have none
 *   memlock_stop   called with the mutex held: returns when every hart but the
 *                  caller's is outside guest code; they stay outside until
 *                  memlock_unlock. May REMOVE mappings.
 *
 * A hart is inside guest code between memlock_enter and memlock_leave. It polls
 * its attention word at block boundaries; MEMLOCK asks for the safe point
 * through attention bit ATTENTION_STOP. A hart that waits for anything (WFI,
 * frames, the lock itself) is outside.
 *
 * memlock_wait is a condition wait: gives the mutex up, sleeps until
 * memlock_wake_all or timeout, takes it again. A stop taken before is over.
 */
#ifndef BALLAST_MEMLOCK_H
#define BALLAST_MEMLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MEMLOCK_MAX_HARTS  8
#define MEMLOCK_NOT_A_HART (-1)

struct memlock;

struct memlock *memlock_new(void);
void memlock_free(struct memlock *lock);

/* Register hart number hart (0..7) and the attention word it polls. */
void memlock_add_hart(struct memlock *lock, int hart, _Atomic uint32_t *attention);

/* Hart thread only. enter waits while a stop is in force. */
void memlock_enter(struct memlock *lock, int hart);
void memlock_leave(struct memlock *lock, int hart);

/* caller is the calling hart's number (it may be inside guest code: it is in the slow path of
 * an access, which is a safe point of its own), or MEMLOCK_NOT_A_HART. */
void memlock_lock(struct memlock *lock, int caller);
void memlock_stop(struct memlock *lock, int caller);
void memlock_unlock(struct memlock *lock, int caller);

/* Both with the mutex held. timeout_ms < 0: no timeout. Returns false on timeout. */
bool memlock_wait(struct memlock *lock, int caller, int timeout_ms);
void memlock_wake_all(struct memlock *lock);

/* Around work that takes long and needs no lock (swap I/O), mutex held before and after: park gives
 * the mutex up and leaves guest code, and says whether the caller was inside; unpark undoes that.
 */
bool memlock_park(struct memlock *lock, int caller);
void memlock_unpark(struct memlock *lock, int caller, bool was_inside);

/* The hart as which the calling thread is inside guest code, or MEMLOCK_NOT_A_HART: for code that
 * is called by hart and device threads alike (a device register, a pin). */
int memlock_self(const struct memlock *lock);

#endif
