/*
 * What waits to leave for the supervisor. Whoever holds the memory lock may put
 * things in and flush; the pager flushes on every turn, so nothing stays longer
 * than one turn of it while the ring has room.
 *
 * A message of releases has one reason and one pc.
 *
 * Order. Releases leave first and in their order; an answer leaves only when no
 * release is waiting, so that DONE comes after everything its request caused.
 * Wishes and events may be overtaken: of each kind only the newest counts.
 *
 * Room. RING_REQUESTS slots of the ring are for answers alone. When the outbox
 * itself is nearly full, threads that may wait do (outbox_wait_room); the last
 * OUTBOX_PAGER_ROOM places are the pager's, which looks before it starts a
 * cluster and so never has to wait.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

unsigned outbox_room(const struct gmem *gmem)
{
    return OUTBOX_RELEASES - gmem->outbox.release_count;
}

/* Put one message if slots slots stay free after it. */
static bool put(struct gmem *gmem, const struct ring_message *message, unsigned slots)
{
    return ring_room(gmem->outgoing) > slots && ring_put(gmem->outgoing, message) == RING_OK;
}

static struct release *release_at(struct outbox *outbox, unsigned index)
{
    return &outbox->releases[(outbox->release_first + index) % OUTBOX_RELEASES];
}

/* Send releases in messages; with full_only, only messages that are full. */
static bool flush_releases(struct gmem *gmem, bool full_only)
{
    struct outbox *outbox = &gmem->outbox;
    bool sent = false;

    while (outbox->release_count > 0) {
        struct ring_message message = {.type = RING_RELEASED};
        enum release_why why = release_at(outbox, 0)->why;
        uint64_t pc = release_at(outbox, 0)->pc;

        while (message.count < RING_PAIRS && message.count < outbox->release_count &&
               release_at(outbox, message.count)->why == why &&
               release_at(outbox, message.count)->pc == pc) {
            message.pairs[message.count].ppn = release_at(outbox, message.count)->ppn;
            message.pairs[message.count].mpn = release_at(outbox, message.count)->mpn;
            message.count++;
        }
        if (full_only && message.count < RING_PAIRS)
            break;
        message.value = why;
        message.pc = pc;
        if (!put(gmem, &message, RING_REQUESTS))
            break;
        outbox->release_first = (outbox->release_first + message.count) % OUTBOX_RELEASES;
        outbox->release_count -= message.count;
        sent = true;
    }
    return sent;
}

static bool flush_events(struct gmem *gmem)
{
    bool sent = false;

    for (unsigned event = 1; event < WORKER_EVENTS; event++) {
        struct pending_event *pending = &gmem->outbox.events[event];
        struct ring_message message = {
            .type = RING_EVENT, .value = event, .value2 = pending->value2};

        if (!pending->pending || ring_room(gmem->outgoing) <= RING_REQUESTS)
            continue;
        snprintf(gmem->region->text, sizeof(gmem->region->text), "%s", pending->text);
        if (!put(gmem, &message, RING_REQUESTS))
            continue;
        pending->pending = false;
        sent = true;
    }
    return sent;
}

static bool flush_want(struct gmem *gmem)
{
    struct outbox *outbox = &gmem->outbox;
    struct ring_message message = {
        .type = RING_WANT, .value = outbox->want_pages, .flags = outbox->want_flags};

    if (!outbox->want_pending || !put(gmem, &message, RING_REQUESTS))
        return false;
    outbox->want_pending = false;
    return true;
}

static bool flush_answers(struct gmem *gmem)
{
    struct outbox *outbox = &gmem->outbox;
    unsigned sent = 0;

    while (sent < outbox->answer_count && outbox->release_count == 0) {
        struct ring_message message = {.type = RING_DONE,
                                       .request = outbox->answers[sent].request,
                                       .value = outbox->answers[sent].value};
        if (!put(gmem, &message, 0))
            break;
        sent++;
    }
    outbox->answer_count -= sent;
    memmove(outbox->answers, outbox->answers + sent, outbox->answer_count * sizeof(struct answer));
    return sent > 0;
}

static void notify(struct gmem *gmem)
{
    if (eventfd_write(gmem->config.notify_fd, 1) < 0 && errno != EAGAIN)
        mem_broken("cannot notify the supervisor (errno %d)", errno);
}

bool outbox_offer(struct gmem *gmem, const struct offer *offers, unsigned count)
{
    unsigned messages = (count + RING_PAIRS - 1) / RING_PAIRS;

    if (ring_room(gmem->outgoing) <= RING_REQUESTS + messages)
        return false;
    for (unsigned at = 0; at < count; at += RING_PAIRS) {
        struct ring_message message = {.type = RING_OFFER};

        for (; message.count < RING_PAIRS && at + message.count < count; message.count++) {
            message.pairs[message.count].ppn = offers[at + message.count].ppn;
            message.pairs[message.count].mpn = offers[at + message.count].mpn;
        }
        put(gmem, &message, RING_REQUESTS);
    }
    notify(gmem);
    return true;
}

bool outbox_flush(struct gmem *gmem)
{
    struct outbox *outbox = &gmem->outbox;
    bool had_room = outbox_room(gmem) > OUTBOX_PAGER_ROOM;
    bool sent = flush_releases(gmem, false) || outbox->unnotified;

    outbox->unnotified = false;
    if (sent && !had_room)
        memlock_wake_all(gmem->lock);
    sent |= flush_events(gmem);
    sent |= flush_want(gmem);
    sent |= flush_answers(gmem);
    if (sent)
        notify(gmem);
    for (unsigned event = 1; event < WORKER_EVENTS; event++)
        if (outbox->events[event].pending)
            return false;
    return outbox->release_count == 0 && outbox->answer_count == 0 && !outbox->want_pending;
}

void outbox_release(struct gmem *gmem, ppn_t ppn, mpn_t mpn, enum release_why why)
{
    outbox_release_at(gmem, ppn, mpn, why, 0);
}

void outbox_release_at(struct gmem *gmem, ppn_t ppn, mpn_t mpn, enum release_why why, uint64_t pc)
{
    struct outbox *outbox = &gmem->outbox;

    if (outbox->release_count == OUTBOX_RELEASES)
        mem_broken("outbox full: release of ppn %u, frame %u (%s)", ppn, mpn,
                   release_why_name(why));
    frame_set_held(gmem, mpn, false);
    *release_at(outbox, outbox->release_count) = (struct release){ppn, mpn, why, pc};
    outbox->release_count++;
    if (outbox->release_count >= RING_PAIRS && flush_releases(gmem, true)) {
        if (gmem->taking)
            outbox->unnotified = true;
        else
            notify(gmem);
    }
    if (outbox->release_count > 0)
        mem_wake_pager(gmem);
}

bool outbox_wait_room(struct gmem *gmem, int caller, unsigned releases)
{
    while (outbox_room(gmem) < releases + OUTBOX_PAGER_ROOM)
        if (!mem_wait(gmem, caller, ROOM_RETRY_MS))
            return false;
    return !gmem->stopping;
}

void outbox_event(struct gmem *gmem, enum worker_event event, uint32_t value2, const char *text)
{
    struct pending_event *pending = &gmem->outbox.events[event];

    pending->pending = true;
    pending->value2 = value2;
    snprintf(pending->text, sizeof(pending->text), "%s", text ? text : "");
    mem_wake_pager(gmem);
}

void outbox_want(struct gmem *gmem, uint32_t pages, bool blocked)
{
    struct outbox *outbox = &gmem->outbox;

    outbox->want_pending = true;
    outbox->want_pages = pages;
    outbox->want_flags = blocked ? RING_BLOCKED : 0;
    if (flush_want(gmem))
        notify(gmem);
    else
        mem_wake_pager(gmem);
}

void outbox_answer(struct gmem *gmem, uint32_t request, uint64_t value)
{
    struct outbox *outbox = &gmem->outbox;

    if (outbox->answer_count == RING_REQUESTS) {
        outbox_event(gmem, WORKER_REFUSED, request, "more requests at once than are allowed");
        return;
    }
    outbox->answers[outbox->answer_count++] = (struct answer){request, value};
    mem_wake_pager(gmem);
}
