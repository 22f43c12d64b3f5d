#include "daemon/rpc/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define UNREAD_OUTPUT_BYTES ((size_t)64 << 10) /* above, no more requests are read */
#define KEPT_OUTPUT_BYTES   ((size_t)64 << 10) /* a larger buffer is given back once empty */

static size_t unsent(const struct rpc_client *client)
{
    return client->output_end - client->output_start;
}

static bool may_read(const struct rpc_client *client)
{
    return unsent(client) < UNREAD_OUTPUT_BYTES && client->session.calls < RPC_MOST_CALLS;
}

static void set_interest(struct rpc_client *client)
{
    uint32_t events = 0;
    if (may_read(client) && !client->input_ended)
        events |= EPOLLIN;
    if (unsent(client) > 0 || client->broken)
        events |= EPOLLOUT;
    sd_event_source_set_io_events(client->io, events);
}

/* ---- output ---- */

static bool make_room(struct rpc_client *client, size_t bytes)
{
    if (client->output_start > 0) {
        memmove(client->output, client->output + client->output_start, unsent(client));
        client->output_end -= client->output_start;
        client->output_start = 0;
    }
    size_t capacity = client->output_capacity ? client->output_capacity : 4096;
    while (capacity - client->output_end < bytes)
        capacity *= 2;
    if (capacity == client->output_capacity)
        return true;
    char *output = realloc(client->output, capacity);
    if (!output)
        return false;
    client->output = output;
    client->output_capacity = capacity;
    return true;
}

static bool queue_line(struct rpc_session *session, const struct iovec *pieces, int count,
                       bool must)
{
    struct rpc_client *client = (struct rpc_client *)session;
    size_t bytes = 1;
    for (int i = 0; i < count; i++)
        bytes += pieces[i].iov_len;
    if (!session->open || client->broken)
        return false;
    if (!must && unsent(client) > 0 && unsent(client) + bytes > client->output_bytes_max)
        return false;
    if (client->output_capacity - client->output_end < bytes && !make_room(client, bytes)) {
        if (must) /* an answer is never lost in silence: better no connection than half a one */
            client->broken = true;
        set_interest(client);
        return false;
    }
    for (int i = 0; i < count; i++) {
        memcpy(client->output + client->output_end, pieces[i].iov_base, pieces[i].iov_len);
        client->output_end += pieces[i].iov_len;
    }
    client->output[client->output_end++] = '\n';
    set_interest(client);
    return true;
}

/* Send what the peer takes. false: the connection is of no use any more. */
static bool send_output(struct rpc_client *client)
{
    while (unsent(client) > 0) {
        ssize_t sent = send(client->fd, client->output + client->output_start, unsent(client),
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        client->output_start += (size_t)sent;
    }
    client->output_start = client->output_end = 0;
    if (client->output_capacity > KEPT_OUTPUT_BYTES) {
        free(client->output);
        client->output = NULL;
        client->output_capacity = 0;
    }
    return true;
}

/* ---- input ---- */

/* Carry out lines that are here, as far as the bounds allow. true: all of them. */
static bool take_lines(struct rpc_client *client)
{
    const char *line;
    size_t length;
    while (may_read(client)) {
        switch (line_reader_next(&client->lines, &line, &length)) {
        case LINE_NONE:
            return true;
        case LINE_TOO_LONG: {
            char message[80];
            snprintf(message, sizeof message, "a line of more than %zu bytes was skipped",
                     client->lines.max_bytes);
            rpc_refuse_line(&client->session, RPC_INVALID_REQUEST, message);
            break;
        }
        case LINE_READY:
            while (length > 0 && (line[length - 1] == '\r' || line[length - 1] == ' '))
                length--;
            if (length > 0)
                rpc_take_line(&client->session, line, length);
            break;
        }
    }
    return false;
}

/* One read, and what it brought. false: reading failed. */
static bool read_input(struct rpc_client *client)
{
    size_t room_bytes;
    if (!take_lines(client) || client->input_ended)
        return true;
    char *room = line_reader_room(&client->lines, &room_bytes);
    if (!room)
        return false;
    ssize_t got = recv(client->fd, room, room_bytes, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (got == 0) {
        client->input_ended = true;
        rpc_policy_gone(&client->session, "its connection ended");
        if (line_reader_has_rest(&client->lines))
            rpc_refuse_line(&client->session, RPC_PARSE_ERROR,
                            "the last line has no end: it was not carried out");
        return true;
    }
    line_reader_took(&client->lines, (size_t)got);
    take_lines(client);
    return true;
}

/* Is there nothing left to be said to a peer that has ended its input? */
static bool is_finished(const struct rpc_client *client)
{
    return client->input_ended && unsent(client) == 0 && client->session.calls == 0 &&
           client->session.subscriptions == 0;
}

static int io_is_ready(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)source, (void)fd;
    struct rpc_client *client = ctx;
    bool gone = events & (EPOLLHUP | EPOLLERR);
    if (gone) /* nobody reads answers any more; what was asked before is still done */
        client->output_start = client->output_end = 0;
    bool fine = !client->broken;
    if (fine && (events & EPOLLOUT))
        fine = send_output(client);
    if (fine)
        fine = read_input(client);
    if (!fine || client->broken || is_finished(client) ||
        (gone && (client->input_ended || !may_read(client))))
        rpc_client_close(client);
    else
        set_interest(client);
    return 0;
}

static int lines_are_waiting(sd_event_source *source, void *ctx)
{
    (void)source;
    struct rpc_client *client = ctx;
    take_lines(client);
    if (is_finished(client))
        rpc_client_close(client);
    else
        set_interest(client);
    return 0;
}

/* ---- life ---- */

static void call_is_answered(struct rpc_session *session)
{
    struct rpc_client *client = (struct rpc_client *)session;
    sd_event_source_set_enabled(client->wake, SD_EVENT_ONESHOT);
}

static void free_client(struct rpc_session *session)
{
    free(session);
}

static void unlink_client(struct rpc_client *client)
{
    if (client->previous)
        client->previous->next = client->next;
    else
        *client->list = client->next;
    if (client->next)
        client->next->previous = client->previous;
    --*client->list_length;
}

void rpc_client_close(struct rpc_client *client)
{
    client->session.open = false;
    rpc_policy_gone(&client->session, "its connection ended");
    rpc_unsubscribe_all(&client->session);
    unlink_client(client);
    sd_event_source_disable_unref(client->io);
    sd_event_source_disable_unref(client->wake);
    close(client->fd);
    line_reader_free(&client->lines);
    free(client->output);
    rpc_session_unhold(&client->session);
}

struct rpc_client *rpc_client_new(int fd, const struct rpc_session *session, size_t line_bytes_max,
                                  size_t output_bytes_max, struct rpc_client **list,
                                  unsigned *list_length, struct err *err)
{
    struct rpc_client *client = calloc(1, sizeof *client);
    if (!client) {
        close(fd);
        err_set(err, ENOMEM, "a connection");
        return NULL;
    }
    client->session = *session;
    client->session.open = true;
    client->session.holders = 1;
    client->session.send = queue_line;
    client->session.answered = call_is_answered;
    client->session.release = free_client;
    client->fd = fd;
    client->output_bytes_max = output_bytes_max;
    line_reader_init(&client->lines, line_bytes_max);
    client->list = list;
    client->list_length = list_length;
    client->next = *list;
    if (client->next)
        client->next->previous = client;
    *list = client;
    ++*list_length;

    int result =
        sd_event_add_io(session->hub->event, &client->io, fd, EPOLLIN, io_is_ready, client);
    if (result >= 0)
        result = sd_event_add_defer(session->hub->event, &client->wake, lines_are_waiting, client);
    if (result >= 0)
        result = sd_event_source_set_enabled(client->wake, SD_EVENT_OFF);
    if (result < 0) {
        rpc_client_close(client);
        err_set(err, -result, "watch a connection");
        return NULL;
    }
    rpc_greet(&client->session);
    return client;
}
