/*
 * The grant pool: frames the supervisor has given this VM that no page uses
 * yet. It lives in the shared region, so that the supervisor can count it, as a
 * binary heap with the lowest frame first: pages touched one after another get
 * frames one after another.
 *
 * Asking. A WANT is an absolute wish and replaces the one before. The worker
 * asks when the pool falls below POOL_LOW_PAGES and nothing asked for is still
 * open; once a grant, when the pool falls below half of that while something
 * is (a supervisor short of frames gives less than was asked, and does not see
 * them used); and, BLOCKED, when a thread finds the pool empty. A blocked
 * thread repeats its wish only while the incoming ring is empty: then every
 * earlier grant is in the pool already, so at most one grant of
 * POOL_HIGH_PAGES can cross the repetition, and twice that fits the pool.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <stdio.h>

static_assert(2 * POOL_HIGH_PAGES <= GRANT_POOL_SLOTS, "a crossing grant must fit the pool");

static uint32_t pool_at(const struct gmem *gmem, uint32_t index)
{
    return atomic_load_explicit(&gmem->region->pool[index], memory_order_relaxed);
}

static void pool_set(struct gmem *gmem, uint32_t index, mpn_t mpn)
{
    atomic_store_explicit(&gmem->region->pool[index], mpn, memory_order_relaxed);
}

static void pool_resize(struct gmem *gmem, uint32_t pages)
{
    gmem->pool_pages = pages;
    atomic_store_explicit(&gmem->stats->pool_pages, pages, memory_order_relaxed);
}

bool frame_is_held(const struct gmem *gmem, mpn_t mpn)
{
    return mpn < gmem->machine_pages && (gmem->held[mpn / 8] >> (mpn % 8) & 1);
}

void frame_set_held(struct gmem *gmem, mpn_t mpn, bool held)
{
    uint8_t bit = (uint8_t)(1u << (mpn % 8));

    if (held)
        gmem->held[mpn / 8] |= bit;
    else
        gmem->held[mpn / 8] &= (uint8_t)~bit;
}

void pool_put(struct gmem *gmem, mpn_t mpn)
{
    uint32_t at = gmem->pool_pages;

    if (at == GRANT_POOL_SLOTS) {
        outbox_release(gmem, NO_PPN, mpn, RELEASE_UNUSED);
        return;
    }
    pool_resize(gmem, at + 1);
    while (at > 0 && pool_at(gmem, (at - 1) / 2) > mpn) {
        pool_set(gmem, at, pool_at(gmem, (at - 1) / 2));
        at = (at - 1) / 2;
    }
    pool_set(gmem, at, mpn);
}

static mpn_t pool_pop(struct gmem *gmem)
{
    mpn_t lowest = pool_at(gmem, 0), last = pool_at(gmem, gmem->pool_pages - 1);
    uint32_t pages = gmem->pool_pages - 1, at = 0;

    pool_resize(gmem, pages);
    for (uint32_t child = 1; child < pages; child = 2 * at + 1) {
        if (child + 1 < pages && pool_at(gmem, child + 1) < pool_at(gmem, child))
            child++;
        if (pool_at(gmem, child) >= last)
            break;
        pool_set(gmem, at, pool_at(gmem, child));
        at = child;
    }
    if (pages > 0)
        pool_set(gmem, at, last);
    return lowest;
}

static void ask(struct gmem *gmem, bool blocked)
{
    gmem->want_open = POOL_HIGH_PAGES - gmem->pool_pages;
    gmem->want_blocked = blocked;
    gmem->want_since_grant = true;
    gmem->want_sent_ns = mem_now_ns();
    outbox_want(gmem, gmem->want_open, blocked);
}

bool pool_take(struct gmem *gmem, mpn_t *mpn)
{
    if (gmem->pool_pages == 0)
        return false;
    *mpn = pool_pop(gmem);
    if (gmem->pool_pages < POOL_LOW_PAGES && gmem->want_open == 0)
        ask(gmem, false);
    else if (gmem->pool_pages < POOL_LOW_PAGES / 2 && !gmem->want_since_grant)
        ask(gmem, false);
    return true;
}

static bool incoming_empty(const struct gmem *gmem)
{
    return atomic_load(&gmem->incoming->tail) == atomic_load(&gmem->incoming->head);
}

bool pool_wait(struct gmem *gmem, int caller)
{
    bool due = mem_now_ns() - gmem->want_sent_ns >= WANT_REPEAT_MS * UINT64_C(1000000);
    bool running;

    if ((due || !gmem->want_blocked) && incoming_empty(gmem))
        ask(gmem, true);
    gmem->frame_waiters++;
    running = mem_wait(gmem, caller, WANT_REPEAT_MS);
    gmem->frame_waiters--;
    return running;
}

static void refuse(struct gmem *gmem, mpn_t mpn, const char *why)
{
    char text[128];

    snprintf(text, sizeof(text), "GRANT of frame %u: %s", mpn, why);
    outbox_event(gmem, WORKER_REFUSED, mpn, text);
}

void pool_grant(struct gmem *gmem, const struct ring_message *message)
{
    gmem->want_blocked = gmem->want_since_grant = false;
    for (unsigned i = 0; i < message->count; i++) {
        mpn_t mpn = message->numbers[i];

        gmem->want_open -= gmem->want_open > 0;
        if (mpn >= gmem->machine_pages) {
            refuse(gmem, mpn, "beyond the end of machine memory");
        } else if (frame_is_held(gmem, mpn)) {
            refuse(gmem, mpn, "this VM holds it already");
        } else if (gmem->pool_pages == GRANT_POOL_SLOTS) {
            refuse(gmem, mpn, "more than the pool takes; released as unused");
            /* Without room the frame is in the supervisor's books only, until the VM's end. */
            if (outbox_room(gmem) > OUT_CLUSTER_PAGES)
                outbox_release(gmem, NO_PPN, mpn, RELEASE_UNUSED);
        } else {
            frame_set_held(gmem, mpn, true);
            pool_put(gmem, mpn);
        }
    }
    if (gmem->frame_waiters)
        memlock_wake_all(gmem->lock);
}

void pool_return(struct gmem *gmem, uint64_t pages)
{
    while (pages-- > 0 && gmem->pool_pages > 0 && outbox_room(gmem) > OUT_CLUSTER_PAGES)
        outbox_release(gmem, NO_PPN, pool_pop(gmem), RELEASE_UNUSED);
}
