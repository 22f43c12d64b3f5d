/*
 * The memory lock under several harts: nobody is inside guest code during a
 * stop, what a stopper changes is seen whole, waits give the lock up, and
 * nothing deadlocks. Run under ThreadSanitizer too: the table that harts read
 * and stoppers write has no other protection.
 */
#include "tests/mem/fake_hart.h"
#include "vmm-core/memlock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HARTS    3
#define STOPPERS 2
#define CHANGES  400
#define ENTRIES  16

struct bench {
    struct memlock *lock;
    _Atomic uint32_t attention[HARTS];
    uint64_t table[ENTRIES]; /* all equal, but for the middle of a change */
    uint64_t locked_work;    /* changed under the mutex alone */
    _Atomic unsigned torn, inside_during_stop, finished;
    _Atomic bool in_stop;
};

struct actor {
    struct bench *bench;
    pthread_t thread;
    int number;
};

/* Only while inside or while holding the lock. */
static void read_table(struct bench *b)
{
    for (unsigned i = 1; i < ENTRIES; i++)
        if (b->table[i] != b->table[0])
            atomic_fetch_add(&b->torn, 1);
}

static void change_table(struct bench *b, int caller)
{
    memlock_stop(b->lock, caller);
    atomic_store(&b->in_stop, true);
    for (unsigned i = 0; i < ENTRIES; i++)
        b->table[i]++;
    atomic_store(&b->in_stop, false);
}

static void *run_hart(void *arg)
{
    struct actor *a = arg;
    struct bench *b = a->bench;

    memlock_enter(b->lock, a->number);
    for (unsigned turn = 0; atomic_load(&b->finished) < STOPPERS; turn++) {
        if (atomic_load(&b->attention[a->number]) & ATTENTION_STOP) {
            memlock_leave(b->lock, a->number);
            assert_int_equal(memlock_self(b->lock), MEMLOCK_NOT_A_HART);
            memlock_enter(b->lock, a->number);
        }
        if (memlock_self(b->lock) != a->number || atomic_load(&b->in_stop))
            atomic_fetch_add(&b->inside_during_stop, 1);
        read_table(b);
        if (turn % 64 == 0) { /* a slow path */
            memlock_lock(b->lock, a->number);
            b->locked_work++;
            if (turn % 256 == 0)
                change_table(b, a->number);
            if (turn % 320 == 0) {
                bool was_inside = memlock_park(b->lock, a->number);
                memlock_unpark(b->lock, a->number, was_inside);
            }
            if (turn % 192 == 0)
                memlock_wait(b->lock, a->number, 1);
            read_table(b);
            memlock_unlock(b->lock, a->number);
        }
    }
    memlock_leave(b->lock, a->number);
    return NULL;
}

static void *run_stopper(void *arg)
{
    struct actor *a = arg;
    struct bench *b = a->bench;

    for (unsigned i = 0; i < CHANGES; i++) {
        memlock_lock(b->lock, MEMLOCK_NOT_A_HART);
        b->locked_work++;
        change_table(b, MEMLOCK_NOT_A_HART);
        change_table(b, MEMLOCK_NOT_A_HART); /* a second stop under the same hold */
        memlock_wake_all(b->lock);
        memlock_unlock(b->lock, MEMLOCK_NOT_A_HART);
    }
    atomic_fetch_add(&b->finished, 1);
    return NULL;
}

static void nobody_is_inside_during_a_stop(void **state)
{
    struct bench b = {.lock = memlock_new()};
    struct actor actors[HARTS + STOPPERS];
    (void)state;

    for (int i = 0; i < HARTS + STOPPERS; i++) {
        actors[i].bench = &b;
        actors[i].number = i;
        if (i < HARTS)
            memlock_add_hart(b.lock, i, &b.attention[i]);
    }
    for (int i = 0; i < HARTS + STOPPERS; i++)
        pthread_create(&actors[i].thread, NULL, i < HARTS ? run_hart : run_stopper, &actors[i]);
    for (int i = 0; i < HARTS + STOPPERS; i++)
        pthread_join(actors[i].thread, NULL);
    assert_int_equal(b.torn, 0);
    assert_int_equal(b.inside_during_stop, 0);
    assert_true(b.table[0] >= 2 * STOPPERS * CHANGES);
    assert_true(b.locked_work >= STOPPERS * CHANGES);
    memlock_free(b.lock);
}

static void *wake_later(void *arg)
{
    struct bench *b = arg;

    memlock_lock(b->lock, MEMLOCK_NOT_A_HART);
    b->locked_work = 1;
    memlock_wake_all(b->lock);
    memlock_unlock(b->lock, MEMLOCK_NOT_A_HART);
    return NULL;
}

static void a_wait_gives_the_lock_up(void **state)
{
    struct bench b = {.lock = memlock_new()};
    pthread_t waker;
    (void)state;

    memlock_add_hart(b.lock, 0, &b.attention[0]);
    memlock_enter(b.lock, 0);
    memlock_lock(b.lock, 0);
    assert_false(memlock_wait(b.lock, 0, 1)); /* time-out */
    assert_int_equal(memlock_self(b.lock), 0);
    pthread_create(&waker, NULL, wake_later, &b);
    while (b.locked_work == 0)
        memlock_wait(b.lock, 0, -1);
    memlock_unlock(b.lock, 0);
    memlock_leave(b.lock, 0);
    pthread_join(waker, NULL);
    memlock_free(b.lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_inside_during_a_stop),
        cmocka_unit_test(a_wait_gives_the_lock_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
