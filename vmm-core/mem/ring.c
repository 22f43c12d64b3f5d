/*
 * Ring ends. The memory order of the two counters is the whole protocol:
 *
 *   producer: head acquire -> slot may be overwritten; slot; tail release
 *   consumer: tail acquire -> slot may be read; copy; head release
 *
 * Each end reads its own counter relaxed, since it alone writes it. The peer
 * may be hostile and write both: indices are masked, so that the worst a wrong
 * counter does is a refused ring or a message that makes no sense, and every
 * message is copied before anybody looks at it.
 */
#include "vmm-core/ring.h"

#include <stddef.h>

static_assert((RING_SLOTS & (RING_SLOTS - 1)) == 0, "slot index is a mask");
static_assert(RING_REQUESTS < RING_SLOTS / 2, "answers leave room for everything else");

enum ring_result ring_put(struct ring *ring, const struct ring_message *message)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    uint64_t used = tail - head;

    if (used > RING_SLOTS)
        return RING_CORRUPT;
    if (used == RING_SLOTS)
        return RING_FULL;
    ring->slots[tail & (RING_SLOTS - 1)] = *message;
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return RING_OK;
}

enum ring_result ring_take(struct ring *ring, struct ring_message *message)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    uint64_t used = tail - head;

    if (used > RING_SLOTS)
        return RING_CORRUPT;
    if (used == 0)
        return RING_EMPTY;
    *message = ring->slots[head & (RING_SLOTS - 1)];
    /* The copy is made here and not again later, when a hostile peer may have changed the slot. */
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return RING_OK;
}

uint32_t ring_room(const struct ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    uint64_t used = tail - head;

    return used > RING_SLOTS ? 0 : (uint32_t)(RING_SLOTS - used);
}

/* What a message of each type may carry; a type without a row does not exist. */
struct message_form {
    bool known, to_worker;
    uint8_t count_min, count_max;
    uint64_t value_limit; /* value must be below it; 0: any */
};

static const struct message_form message_forms[] = {
    [RING_GRANT] = {true, true, 1, RING_BATCH, 0},
    [RING_RETURN] = {true, true, 0, 0, 0},
    [RING_TARGET] = {true, true, 0, 0, 0},
    [RING_PAGE_OUT] = {true, true, 0, 0, 0},
    [RING_PAUSE] = {true, true, 0, 0, 0},
    [RING_RESUME] = {true, true, 0, 0, 0},
    [RING_CHECK] = {true, true, 0, 0, 0},
    [RING_QUIT] = {true, true, 0, 0, 0},
    [RING_PROTECT] = {true, true, 1, RING_PAIRS, 0},
    [RING_SHARE] = {true, true, 3, 3 * RING_THREES, 0},
    [RING_MAP] = {true, true, 1, RING_PAIRS, 0},
    [RING_UNSHARE] = {true, true, 1, RING_PAIRS, 0},
    [RING_WRITTEN] = {true, true, 0, 0, 0},
    [RING_PAGE_THESE] = {true, true, 1, RING_PAIRS, 0},
    [RING_SAMPLE] = {true, true, 0, 0, 0},
    [RING_RELEASED] = {true, false, 1, RING_PAIRS, RELEASE_WHYS},
    [RING_DONE] = {true, false, 0, 0, 0},
    [RING_WANT] = {true, false, 0, 0, 0},
    [RING_EVENT] = {true, false, 0, 0, WORKER_EVENTS},
    [RING_OFFER] = {true, false, 1, RING_PAIRS, 0},
};

bool ring_message_valid(const struct ring_message *message, bool to_worker)
{
    const struct message_form *form;

    if (message->type >= sizeof(message_forms) / sizeof(message_forms[0]))
        return false;
    form = &message_forms[message->type];
    return form->known && form->to_worker == to_worker && message->order == 0 &&
           message->count >= form->count_min && message->count <= form->count_max &&
           (message->type != RING_SHARE || message->count % 3 == 0) &&
           (form->value_limit == 0 || message->value < form->value_limit);
}

const char *release_why_name(unsigned why)
{
    static const char *const names[RELEASE_WHYS] = {
        [RELEASE_UNUSED] = "unused",      [RELEASE_BALLOONED] = "ballooned",
        [RELEASE_REPORTED] = "reported",  [RELEASE_PAGED_OUT] = "paged-out",
        [RELEASE_SHARED_AWAY] = "shared", [RELEASE_COW_BREAK] = "cow-break",
        [RELEASE_UNSHARED] = "unshared",
    };
    return why < RELEASE_WHYS ? names[why] : "unknown";
}

const char *worker_event_name(unsigned event)
{
    static const char *const names[WORKER_EVENTS] = {
        [WORKER_READY] = "ready",
        [WORKER_BALLOON_DRIVER] = "balloon-driver",
        [WORKER_BALLOON_POPPED] = "balloon-popped",
        [WORKER_SWAP_ERROR] = "swap-error",
        [WORKER_SWAP_OK] = "swap-ok",
        [WORKER_GUEST_FAULT] = "guest-fault",
        [WORKER_POWEROFF] = "poweroff",
        [WORKER_REBOOT] = "reboot",
        [WORKER_REFUSED] = "refused",
    };
    return event < WORKER_EVENTS && names[event] ? names[event] : "unknown";
}
