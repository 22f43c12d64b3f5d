/*
 * The control socket's reader of requests: framing, JSON-RPC and the parameters
 * of every method, over a supervisor without workers. The first byte says in how
 * many pieces the rest arrives. Promises: it ends, every answer is one line of
 * JSON, and nothing is left behind.
 */
#include "daemon/rpc/line_reader.h"
#include "daemon/rpc/session.h"
#include "tests/control/fake_supervisor.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static bool check_answer(struct rpc_session *session, const struct iovec *pieces, int count,
                         bool must)
{
    (void)session, (void)must;
    static char line[1 << 16];
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        if (pieces[i].iov_len > sizeof line - length)
            return false;
        memcpy(line + length, pieces[i].iov_base, pieces[i].iov_len);
        length += pieces[i].iov_len;
    }
    json_t *answer = json_loadb(line, length, 0, NULL);
    if (!answer || memchr(line, '\n', length))
        abort();
    json_decref(answer);
    return true;
}

static void note_answer(struct rpc_session *session)
{
    (void)session;
}

static void note_release(struct rpc_session *session)
{
    session->open = false;
}

static void take_piece(struct rpc_session *session, struct line_reader *lines, const uint8_t *bytes,
                       size_t size)
{
    const char *line;
    size_t length, room_bytes;
    while (size > 0) {
        char *room = line_reader_room(lines, &room_bytes);
        if (!room)
            abort();
        size_t part = size < room_bytes ? size : room_bytes;
        memcpy(room, bytes, part);
        line_reader_took(lines, part);
        bytes += part;
        size -= part;
        enum line_result result;
        while ((result = line_reader_next(lines, &line, &length)) != LINE_NONE)
            if (result == LINE_READY)
                rpc_take_line(session, line, length);
            else
                rpc_refuse_line(session, RPC_INVALID_REQUEST, "too long");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct supervisor_config config;
    struct err err;
    struct line_reader lines;
    struct rpc_hub hub = {.methods = rpc_methods};
    struct rpc_session session = {
        .hub = &hub,
        .open = true,
        .may_change = true,
        .holders = 1,
        .send = check_answer,
        .answered = note_answer,
        .release = note_release,
    };
    if (size < 1 || sd_event_new(&hub.event) < 0)
        return 0;
    supervisor_config_default(&config);
    hub.supervisor = supervisor_new(&config, hub.event, &err);
    if (!hub.supervisor)
        abort();
    line_reader_init(&lines, 300);
    size_t piece = 1 + bytes[0];
    for (size_t at = 1; at < size; at += piece)
        take_piece(&session, &lines, bytes + at, size - at < piece ? size - at : piece);
    if (size > 1)
        take_piece(&session, &lines, (const uint8_t *)"\n", 1);
    rpc_unsubscribe_all(&session);
    while (session.calls > 0) /* answers that come later */
        if (sd_event_run(hub.event, 0) <= 0)
            abort();
    rpc_hub_close(&hub);
    if (session.subscriptions || session.holders != 1)
        abort();
    line_reader_free(&lines);
    supervisor_free(hub.supervisor);
    sd_event_unref(hub.event);
    return 0;
}
