/*
 * The life-cycle thread: does, in their order, what the supervisor asks of the
 * VM as a whole and what may wait for harts and devices: balloon targets,
 * pause, resume, check, quit. The pager posts, this thread serves; balloon
 * targets coalesce to the newest.
 *
 * While a pause is wanted (`pausing`), threads that wait inside gmem are parked
 * with the machine and count as quiet, so a pause does not wait for frames.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <errno.h>
#include <string.h>

int lifecycle_init(struct gmem *gmem, struct err *err)
{
    int error = pthread_mutex_init(&gmem->life.mutex, NULL);

    if (error == 0)
        error = pthread_cond_init(&gmem->life.posted, NULL);
    return error ? err_set(err, error, "life-cycle thread") : 0;
}

void lifecycle_destroy(struct gmem *gmem)
{
    pthread_cond_destroy(&gmem->life.posted);
    pthread_mutex_destroy(&gmem->life.mutex);
}

void lifecycle_post(struct gmem *gmem, const struct ring_message *message)
{
    struct lifecycle *life = &gmem->life;
    bool refused = false;

    pthread_mutex_lock(&life->mutex);
    if (message->type == RING_TARGET) {
        life->target_posted = true;
        life->target_pages = message->value;
    } else if (life->queue_count < LIFE_QUEUE) {
        life->queue[life->queue_count++] = *message;
    } else {
        refused = true;
    }
    pthread_cond_signal(&life->posted);
    pthread_mutex_unlock(&life->mutex);
    if (refused)
        outbox_event(gmem, WORKER_REFUSED, message->request, "more requests than are allowed");
}

void lifecycle_stop(struct gmem *gmem)
{
    pthread_mutex_lock(&gmem->life.mutex);
    gmem->life.stopping = true;
    pthread_cond_signal(&gmem->life.posted);
    pthread_mutex_unlock(&gmem->life.mutex);
}

/* The next thing to do into *message. False: stopping. */
static bool next(struct lifecycle *life, struct ring_message *message)
{
    bool found = false;

    pthread_mutex_lock(&life->mutex);
    while (!life->stopping && !life->target_posted && life->queue_count == 0)
        pthread_cond_wait(&life->posted, &life->mutex);
    if (!life->stopping) {
        found = true;
        if (life->target_posted) {
            *message = (struct ring_message){.type = RING_TARGET, .value = life->target_pages};
            life->target_posted = false;
        } else {
            *message = life->queue[0];
            life->queue_count--;
            memmove(life->queue, life->queue + 1, life->queue_count * sizeof(life->queue[0]));
        }
    }
    pthread_mutex_unlock(&life->mutex);
    return found;
}

static void lock(struct gmem *gmem)
{
    memlock_lock(gmem->lock, MEMLOCK_NOT_A_HART);
}

static void unlock(struct gmem *gmem)
{
    memlock_unlock(gmem->lock, MEMLOCK_NOT_A_HART);
}

static void answer(struct gmem *gmem, const struct ring_message *message, uint64_t value)
{
    lock(gmem);
    outbox_answer(gmem, message->request, value);
    unlock(gmem);
}

static void set_target(struct gmem *gmem, const struct ring_message *message)
{
    uint64_t target_pages = message->value < gmem->ram_pages ? message->value : gmem->ram_pages;
    uint64_t balloon_pages = gmem->ram_pages - target_pages;

    atomic_store_explicit(&gmem->stats->balloon_target_pages, balloon_pages, memory_order_relaxed);
    if (gmem->config.set_balloon)
        gmem->config.set_balloon(gmem->config.ctx, balloon_pages);
}

static void set_pausing(struct gmem *gmem, bool pausing)
{
    lock(gmem);
    gmem->pausing = pausing;
    memlock_wake_all(gmem->lock);
    unlock(gmem);
}

static void pause_vm(struct gmem *gmem, const struct ring_message *message)
{
    if (!gmem->life.paused) {
        set_pausing(gmem, true);
        if (gmem->config.set_paused)
            gmem->config.set_paused(gmem->config.ctx, true);
        gmem->life.paused = true;
        atomic_store_explicit(&gmem->stats->paused, 1, memory_order_relaxed);
    }
    /* The answer follows every release by the outbox's own order. */
    answer(gmem, message, 0);
}

static void resume_vm(struct gmem *gmem, const struct ring_message *message)
{
    if (gmem->life.paused) {
        gmem->life.paused = false;
        atomic_store_explicit(&gmem->stats->paused, 0, memory_order_relaxed);
        set_pausing(gmem, false);
        if (gmem->config.set_paused)
            gmem->config.set_paused(gmem->config.ctx, false);
    }
    answer(gmem, message, 0);
}

static void check(struct gmem *gmem, const struct ring_message *message)
{
    uint64_t violations;

    lock(gmem);
    memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
    violations = mem_check(gmem, gmem->region->text, sizeof(gmem->region->text));
    outbox_answer(gmem, message->request, violations);
    unlock(gmem);
}

static void quit(struct gmem *gmem, const struct ring_message *message)
{
    (void)message;
    if (gmem->config.quit)
        gmem->config.quit(gmem->config.ctx);
}

void *lifecycle_main(void *arg)
{
    static void (*const table[])(struct gmem *, const struct ring_message *) = {
        [RING_TARGET] = set_target, [RING_PAUSE] = pause_vm, [RING_RESUME] = resume_vm,
        [RING_CHECK] = check,       [RING_QUIT] = quit,
    };
    struct gmem *gmem = arg;
    struct ring_message message;

    while (next(&gmem->life, &message))
        table[message.type](gmem, &message);
    return NULL;
}
