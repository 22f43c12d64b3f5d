/*
 * What a worker says. One table, message to handler. A worker may have been
 * taken over by its guest, so nothing it writes is believed:
 *   - counters of the rings are compared with our own; a ring that does not fit
 *     them is corrupt, and its VM is killed, since no later message of it can be
 *     told from noise;
 *   - a message is copied before it is looked at (ring_take);
 *   - a frame it names must be its own by the frame table, or shared by the page it
 *     names by the records of sharing; otherwise the message is refused, counted
 *     and told, and nothing else happens.
 */
#include "daemon/sharing/sharing.h"
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void refuse(struct vm *vm, const char *what, uint64_t number)
{
    vm->refused_messages++;
    event_tell(vm->supervisor, vm, EVENT_REFUSED, "%s %" PRIu64, what, number);
}

/* ---- handlers ---- */

static void on_released(struct vm *vm, const struct ring_message *message)
{
    enum release_why why = (enum release_why)message->value;
    for (unsigned i = 0; i < message->count; i++) {
        switch (
            sharing_released(vm, message->pairs[i].ppn, message->pairs[i].mpn, why, message->pc)) {
        case RELEASE_REFUSED:
            refuse(vm, "release of a frame or reference it does not hold, mpn",
                   message->pairs[i].mpn);
            continue;
        case RELEASE_OF_OWN:
            vm->released_total_pages++;
            break;
        case RELEASE_OF_REFERENCE:
            break;
        }
        /* Shared away: offered and shared instead, or found just now. Either way a frame came. */
        if ((why == RELEASE_PAGED_OUT || why == RELEASE_SHARED_AWAY) && vm->page_out_asked_pages) {
            vm->page_out_asked_pages--;
            vm->page_out_vain = false;
        }
    }
}

static void on_done(struct vm *vm, const struct ring_message *message)
{
    request_answered(vm, message->request, message->value);
}

static void on_want(struct vm *vm, const struct ring_message *message)
{
    grants_want(vm, message->value);
}

static void on_event(struct vm *vm, const struct ring_message *message)
{
    struct supervisor *supervisor = vm->supervisor;
    char words[200];
    copy_words(words, sizeof words, vm->region->text, sizeof vm->region->text);
    switch ((enum worker_event)message->value) {
    case WORKER_READY:
        vm_ready(vm);
        break;
    case WORKER_BALLOON_DRIVER:
        event_tell(supervisor, vm, EVENT_BALLOON_DRIVER, "the guest's balloon driver %s",
                   message->value2 ? "is up" : "went away");
        policy_soon(supervisor, TRIGGER_ABILITY);
        break;
    case WORKER_BALLOON_POPPED:
        event_tell(supervisor, vm, EVENT_BALLOON_POPPED, "the guest touched ballooned page %u",
                   message->value2);
        break;
    case WORKER_SWAP_ERROR:
        vm->swap_failing = true;
        vm->swap_retry_ns = clock_monotonic_ns() + SWAP_RETRY_NS;
        event_tell(supervisor, vm, EVENT_SWAP_ERROR, "swap file: error %u: %s", message->value2,
                   words);
        policy_soon(supervisor, TRIGGER_ABILITY);
        break;
    case WORKER_SWAP_OK:
        vm->swap_failing = false;
        event_tell(supervisor, vm, EVENT_SWAP_OK, "swap file works again");
        policy_soon(supervisor, TRIGGER_ABILITY);
        break;
    case WORKER_GUEST_FAULT:
        event_tell(supervisor, vm, EVENT_GUEST_FAULT, "%s", words);
        break;
    case WORKER_POWEROFF:
    case WORKER_REBOOT:
        break; /* its exit status says the same, and cannot be missed */
    case WORKER_REFUSED:
        event_tell(supervisor, vm, EVENT_WORKER_SAYS, "refused our message: %s", words);
        break;
    case WORKER_EVENTS:
        break;
    }
}

static void (*const handlers[])(struct vm *vm, const struct ring_message *message) = {
    [RING_RELEASED] = on_released, [RING_DONE] = on_done,          [RING_WANT] = on_want,
    [RING_EVENT] = on_event,       [RING_OFFER] = sharing_offered,
};

static bool has_handler(unsigned type)
{
    return type < sizeof handlers / sizeof handlers[0] && handlers[type];
}

/* ---- the rings' ends ---- */

static void ring_is_corrupt(struct vm *vm, const char *which)
{
    char why[80];
    snprintf(why, sizeof why, "the worker has corrupted its %s ring", which);
    vm_kill(vm, EVENT_RING_CORRUPT, why);
}

/* Take one message; false when there is none or the ring cannot be believed any more. */
static bool take(struct vm *vm, struct ring_message *message)
{
    struct ring *ring = vm->to_supervisor;
    if (atomic_load_explicit(&ring->head, memory_order_relaxed) != vm->take_count) {
        ring_is_corrupt(vm, "outgoing");
        return false;
    }
    switch (ring_take(ring, message)) {
    case RING_OK:
        vm->take_count++;
        return true;
    case RING_EMPTY:
    case RING_FULL:
        return false;
    case RING_CORRUPT:
        break;
    }
    ring_is_corrupt(vm, "outgoing");
    return false;
}

void messages_drain(struct vm *vm, uint32_t limit)
{
    struct ring_message message;
    uint32_t taken = 0;
    while (taken < limit && vm->to_supervisor && take(vm, &message)) {
        taken++;
        if (ring_message_valid(&message, false) && has_handler(message.type))
            handlers[message.type](vm, &message);
        else
            refuse(vm, "a message without meaning, type", message.type);
    }
    sharing_answered(vm);
    /* Others have their turn first; the eventfd brings us back. */
    if (taken == limit && vm->notify_fd >= 0 && eventfd_write(vm->notify_fd, 1) < 0)
        service_soon(vm->supervisor);
}

int messages_on_notify(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)source;
    (void)events;
    struct vm *vm = ctx;
    struct supervisor *supervisor = vm->supervisor;
    eventfd_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
    messages_drain(vm, MESSAGES_A_WAKE);
    vm_send_page_out(vm);
    requests_send(vm);
    message_kick(vm);
    grants_serve_all(supervisor);
    policy_look(supervisor);
    return 0;
}

enum ring_result message_put(struct vm *vm, const struct ring_message *message)
{
    struct ring *ring = vm->to_worker;
    if (!ring || vm->life == LIFE_ENDING)
        return RING_FULL;
    enum ring_result result = RING_CORRUPT;
    /* Our own counter as we left it, and the worker's not beyond it: ring_put alone, which knows
     * only their distance, would take a head from the future for one just behind the tail. */
    if (atomic_load_explicit(&ring->tail, memory_order_relaxed) == vm->put_count &&
        atomic_load_explicit(&ring->head, memory_order_relaxed) <= vm->put_count)
        result = ring_put(ring, message);
    if (result == RING_OK) {
        /* What stood in this slot has been taken: count it before it is written over. */
        if (vm->put_count - vm->grant_head == RING_SLOTS)
            see_grants_taken(vm);
        vm->grant_in_slot[vm->put_count % RING_SLOTS] =
            message->type == RING_GRANT ? message->count : 0;
        vm->put_count++;
        vm->unkicked = true;
    } else if (result == RING_CORRUPT) {
        ring_is_corrupt(vm, "incoming");
    }
    return result;
}

void message_kick(struct vm *vm)
{
    if (!vm->unkicked || vm->kick_fd < 0)
        return;
    vm->unkicked = false;
    /* A full counter means that the worker has been woken and has not looked yet. */
    if (eventfd_write(vm->kick_fd, 1) < 0 && errno != EAGAIN)
        event_tell(vm->supervisor, vm, EVENT_WORKER_SAYS, "cannot wake the worker: errno %d",
                   errno);
}
