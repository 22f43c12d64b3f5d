/*
 * The memory lock: one mutex, and for each hart a word that says whether it is
 * inside guest code.
 *
 *   - A hart's word is written by its own thread only. It becomes true only
 *     with the mutex held, so while somebody holds the mutex harts only leave.
 *   - A stop is therefore: hold the mutex, ask every hart that is inside for
 *     its attention, wait until it has left. It ends with the mutex.
 *   - Waiting for a hart to leave must not give the mutex up (the caller is in
 *     the middle of a change), so it has a mutex and condition of its own,
 *     `left`, which nobody holds while taking the other one.
 *   - A hart that finds the mutex taken leaves while it waits for it: it is in
 *     the slow path of an access, before its look-up.
 *
 * The order that matters: leave stores inside = false, then reads stop_waiting;
 * stop stores stop_waiting = true, then reads inside. Both sequentially
 * consistent, so at least one sees the other and no wake-up is lost.
 */
#include "vmm-core/memlock.h"

#include "vmm-core/hart.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct hart_place {
    _Atomic uint32_t *attention; /* NULL: no such hart */
    _Atomic bool inside;         /* writer: the hart's thread */
};

struct memlock {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* memlock_wait, with mutex */
    pthread_mutex_t left_mutex;
    pthread_cond_t left; /* a hart has left while stop_waiting */
    _Atomic bool stop_waiting;
    struct hart_place harts[MEMLOCK_MAX_HARTS];
};

/* The hart this thread is inside as. A thread is a hart of one worker only. */
static _Thread_local const struct memlock *self_lock;
static _Thread_local int self_hart;

struct memlock *memlock_new(void)
{
    struct memlock *lock = calloc(1, sizeof(*lock));
    pthread_condattr_t attr;

    if (!lock)
        return NULL;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&lock->mutex, NULL);
    pthread_cond_init(&lock->changed, &attr);
    pthread_mutex_init(&lock->left_mutex, NULL);
    pthread_cond_init(&lock->left, &attr);
    pthread_condattr_destroy(&attr);
    return lock;
}

void memlock_free(struct memlock *lock)
{
    if (!lock)
        return;
    pthread_cond_destroy(&lock->left);
    pthread_mutex_destroy(&lock->left_mutex);
    pthread_cond_destroy(&lock->changed);
    pthread_mutex_destroy(&lock->mutex);
    free(lock);
}

void memlock_add_hart(struct memlock *lock, int hart, _Atomic uint32_t *attention)
{
    pthread_mutex_lock(&lock->mutex);
    lock->harts[hart].attention = attention;
    pthread_mutex_unlock(&lock->mutex);
}

static bool is_inside(struct memlock *lock, int hart)
{
    return hart >= 0 && atomic_load(&lock->harts[hart].inside);
}

/* Mutex held, or the caller is the hart's thread and only leaves. */
static void set_outside(struct memlock *lock, int hart)
{
    self_lock = NULL;
    atomic_store(&lock->harts[hart].inside, false);
    if (atomic_load(&lock->stop_waiting)) {
        pthread_mutex_lock(&lock->left_mutex);
        pthread_cond_signal(&lock->left);
        pthread_mutex_unlock(&lock->left_mutex);
    }
}

/* Mutex held: no stop is in force or wanted by anybody else, so the request is answered. */
static void set_inside(struct memlock *lock, int hart)
{
    atomic_fetch_and(lock->harts[hart].attention, ~ATTENTION_STOP);
    atomic_store(&lock->harts[hart].inside, true);
    self_lock = lock;
    self_hart = hart;
}

void memlock_enter(struct memlock *lock, int hart)
{
    pthread_mutex_lock(&lock->mutex);
    set_inside(lock, hart);
    pthread_mutex_unlock(&lock->mutex);
}

void memlock_leave(struct memlock *lock, int hart)
{
    set_outside(lock, hart);
}

void memlock_lock(struct memlock *lock, int caller)
{
    if (pthread_mutex_trylock(&lock->mutex) == 0)
        return;
    if (!is_inside(lock, caller)) {
        pthread_mutex_lock(&lock->mutex);
        return;
    }
    set_outside(lock, caller);
    pthread_mutex_lock(&lock->mutex);
    set_inside(lock, caller);
}

void memlock_stop(struct memlock *lock, int caller)
{
    bool waiting = false;

    for (int hart = 0; hart < MEMLOCK_MAX_HARTS; hart++) {
        if (hart == caller || !is_inside(lock, hart))
            continue;
        if (!waiting) {
            waiting = true;
            atomic_store(&lock->stop_waiting, true);
        }
        atomic_fetch_or(lock->harts[hart].attention, ATTENTION_STOP);
    }
    if (!waiting)
        return;
    pthread_mutex_lock(&lock->left_mutex);
    for (int hart = 0; hart < MEMLOCK_MAX_HARTS; hart++)
        while (hart != caller && is_inside(lock, hart))
            pthread_cond_wait(&lock->left, &lock->left_mutex);
    pthread_mutex_unlock(&lock->left_mutex);
    atomic_store(&lock->stop_waiting, false);
}

void memlock_unlock(struct memlock *lock, int caller)
{
    (void)caller;
    pthread_mutex_unlock(&lock->mutex);
}

bool memlock_wait(struct memlock *lock, int caller, int timeout_ms)
{
    bool was_inside = is_inside(lock, caller);
    int result = 0;

    if (was_inside)
        set_outside(lock, caller);
    if (timeout_ms < 0) {
        pthread_cond_wait(&lock->changed, &lock->mutex);
    } else {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += timeout_ms / 1000;
        until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        result = pthread_cond_timedwait(&lock->changed, &lock->mutex, &until);
    }
    if (was_inside)
        set_inside(lock, caller);
    return result != ETIMEDOUT;
}

void memlock_wake_all(struct memlock *lock)
{
    pthread_cond_broadcast(&lock->changed);
}

bool memlock_park(struct memlock *lock, int caller)
{
    bool was_inside = is_inside(lock, caller);

    if (was_inside)
        set_outside(lock, caller);
    pthread_mutex_unlock(&lock->mutex);
    return was_inside;
}

void memlock_unpark(struct memlock *lock, int caller, bool was_inside)
{
    pthread_mutex_lock(&lock->mutex);
    if (was_inside)
        set_inside(lock, caller);
}

int memlock_self(const struct memlock *lock)
{
    return self_lock == lock ? self_hart : MEMLOCK_NOT_A_HART;
}
