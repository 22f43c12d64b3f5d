/*
 * The pager: the one thread that drains the incoming ring and writes to the
 * swap file. It waits for the memory lock, for safe points and for its own
 * write, and for nothing else; what may take longer (a callback into the
 * machine) it hands to the life-cycle thread. So whoever waits for frames or
 * for room is always served.
 *
 * One turn: take every message, write at most one cluster, flush the outbox.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>

typedef void (*message_fn)(struct gmem *gmem, const struct ring_message *message);

static void on_return(struct gmem *gmem, const struct ring_message *message)
{
    pool_return(gmem, message->value);
}

static void on_pause(struct gmem *gmem, const struct ring_message *message)
{
    /* Earlier work ends before the pause does; later PAGE_OUTs are served while paused. */
    pageout_answer_all(gmem);
    lifecycle_post(gmem, message);
}

static const message_fn message_table[] = {
    [RING_GRANT] = pool_grant,        [RING_RETURN] = on_return,
    [RING_TARGET] = lifecycle_post,   [RING_PAGE_OUT] = pageout_request,
    [RING_PAUSE] = on_pause,          [RING_RESUME] = lifecycle_post,
    [RING_CHECK] = lifecycle_post,    [RING_QUIT] = lifecycle_post,
    [RING_PROTECT] = sharing_protect, [RING_SHARE] = sharing_share,
    [RING_MAP] = sharing_map,         [RING_UNSHARE] = sharing_unshare,
    [RING_WRITTEN] = sharing_written, [RING_PAGE_THESE] = pageout_these,
    [RING_SAMPLE] = sample_pages,
};

static void refuse(struct gmem *gmem, const struct ring_message *message)
{
    char text[96];

    snprintf(text, sizeof(text), "message of type %u, count %u, order %u", message->type,
             message->count, message->order);
    outbox_event(gmem, WORKER_REFUSED, message->type, text);
}

/* Counters no supervisor writes: nothing on this ring can be believed any more. */
static void give_up_ring(struct gmem *gmem)
{
    static const struct ring_message quit = {.type = RING_QUIT};

    gmem->incoming_corrupt = true;
    outbox_event(gmem, WORKER_REFUSED, 0, "the ring to the worker is corrupt; the VM ends");
    lifecycle_post(gmem, &quit);
}

static void take_messages(struct gmem *gmem)
{
    struct ring_message message;

    /* At most one ring's worth a turn, so that a busy supervisor cannot starve the rest of it. */
    for (unsigned taken = 0; taken < RING_SLOTS && !gmem->incoming_corrupt; taken++) {
        enum ring_result result = ring_take(gmem->incoming, &message);

        if (result == RING_EMPTY)
            return;
        if (result == RING_CORRUPT)
            give_up_ring(gmem);
        else if (!ring_message_valid(&message, true))
            refuse(gmem, &message);
        else
            message_table[message.type](gmem, &message);
    }
}

static int sooner_ms(int a_ms, int b_ms)
{
    if (a_ms < 0)
        return b_ms;
    return b_ms < 0 || a_ms < b_ms ? a_ms : b_ms;
}

/* One turn. Returns ms until the next one is due without a wake-up, -1: never. */
static int turn(struct gmem *gmem)
{
    int wait_ms;

    memlock_lock(gmem->lock, MEMLOCK_NOT_A_HART);
    gmem->pager_woken = gmem->taking = true;
    take_messages(gmem);
    gmem->pager_woken = gmem->taking = false;
    wait_ms = gmem->stopping ? 0 : pageout_turn(gmem);
    if (!outbox_flush(gmem))
        wait_ms = sooner_ms(wait_ms, ROOM_RETRY_MS);
    memlock_unlock(gmem->lock, MEMLOCK_NOT_A_HART);
    return wait_ms;
}

static void clear_wakeup(struct pollfd *fd)
{
    eventfd_t count;

    if (fd->revents & POLLIN)
        (void)eventfd_read(fd->fd, &count);
}

static bool is_stopping(struct gmem *gmem)
{
    bool stopping;

    memlock_lock(gmem->lock, MEMLOCK_NOT_A_HART);
    stopping = gmem->stopping;
    memlock_unlock(gmem->lock, MEMLOCK_NOT_A_HART);
    return stopping;
}

void *pager_main(void *arg)
{
    struct gmem *gmem = arg;
    uint64_t overhead_due_ns = 0;

    while (!is_stopping(gmem)) {
        struct pollfd fds[] = {{.fd = gmem->config.kick_fd, .events = POLLIN},
                               {.fd = gmem->wake_fd, .events = POLLIN}};
        uint64_t now_ns;
        int wait_ms = turn(gmem);

        now_ns = mem_now_ns();
        if (now_ns >= overhead_due_ns) {
            overhead_refresh(gmem);
            overhead_due_ns = now_ns + OVERHEAD_PERIOD_NS;
        }
        wait_ms = sooner_ms(wait_ms, (int)((overhead_due_ns - now_ns) / 1000000u) + 1);
        /* The eventfds are emptied before the rings are looked at: no message is overlooked. */
        if (poll(fds, 2, wait_ms) < 0 && errno != EINTR)
            mem_broken("pager cannot wait for messages (errno %d)", errno);
        clear_wakeup(&fds[0]);
        clear_wakeup(&fds[1]);
    }
    return NULL;
}
