/*
 * The control socket: one connection whose peer sends the input, in pieces, and
 * reads or does not read. Whatever it sends, every line that comes back is a
 * JSON-RPC 2.0 object (or a batch of answers), nothing is left of the connection
 * once it is closed, and the daemon goes on. The methods are the real ones, over
 * the supervisor of tests/control that has no workers.
 *
 * The first byte chooses: bit 0 a peer that may change things, bit 1 one that
 * never reads, bit 2 one that goes away without ending its input, bits 3-7 the
 * size of the pieces.
 */
#include "daemon/rpc/client.h"
#include "tests/control/fake_supervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define LINE_BYTES_MAX   600
#define OUTPUT_BYTES_MAX 20000
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "json_rpc: %s\n", #condition);                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct peer {
    int fd;
    char *said; /* by the daemon, lines not yet checked */
    size_t said_bytes;
};

static void check_object(const json_t *object)
{
    REQUIRE(json_is_object(object));
    const char *version = json_string_value(json_object_get(object, "jsonrpc"));
    REQUIRE(version && strcmp(version, "2.0") == 0);
    bool method = json_object_get(object, "method"), result = json_object_get(object, "result"),
         error = json_object_get(object, "error"), id = json_object_get(object, "id");
    REQUIRE(method + result + error == 1);
    REQUIRE(method != id); /* notifications have none, answers always */
    if (error) {
        const json_t *inner = json_object_get(object, "error");
        REQUIRE(json_is_integer(json_object_get(inner, "code")));
        REQUIRE(json_is_string(json_object_get(inner, "message")));
    }
}

static void check_line(const char *line, size_t length)
{
    json_error_t error;
    json_t *root = json_loadb(line, length, 0, &error);
    REQUIRE(root);
    if (json_is_array(root)) {
        REQUIRE(json_array_size(root) > 0);
        for (size_t i = 0; i < json_array_size(root); i++)
            check_object(json_array_get(root, i));
    } else {
        check_object(root);
    }
    json_decref(root);
}

static void read_answers(struct peer *peer)
{
    char bytes[16384];
    ssize_t got;
    while ((got = recv(peer->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        peer->said = realloc(peer->said, peer->said_bytes + (size_t)got);
        REQUIRE(peer->said);
        memcpy(peer->said + peer->said_bytes, bytes, (size_t)got);
        peer->said_bytes += (size_t)got;
    }
    char *newline;
    while (peer->said_bytes && (newline = memchr(peer->said, '\n', peer->said_bytes))) {
        size_t length = (size_t)(newline - peer->said);
        check_line(peer->said, length);
        peer->said_bytes -= length + 1;
        memmove(peer->said, newline + 1, peer->said_bytes);
    }
}

/* Let the daemon do what there is to do now; timers of the future are left. */
static void let_run(sd_event *event)
{
    for (int turns = 0; turns < 200; turns++) {
        int result = sd_event_run(event, 0);
        REQUIRE(result >= 0);
        if (result == 0)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t how = *bytes++;
    size--;
    size_t piece = 1 + (size_t)(how >> 3) * 16;
    bool reads = !(how & 2), ends_input = !(how & 4);

    struct err err;
    sd_event *event;
    struct supervisor_config config;
    supervisor_config_default(&config);
    REQUIRE(sd_event_new(&event) >= 0);
    struct supervisor *supervisor = supervisor_new(&config, event, &err);
    int ends[2];
    REQUIRE(supervisor && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    struct rpc_hub hub = {.event = event, .supervisor = supervisor, .methods = rpc_methods};
    struct rpc_session session = {.hub = &hub, .may_change = how & 1, .uid = 1000};
    struct rpc_client *clients = NULL;
    unsigned client_count = 0;
    struct peer peer = {.fd = ends[0]};
    REQUIRE(rpc_client_new(ends[1], &session, LINE_BYTES_MAX, OUTPUT_BYTES_MAX, &clients,
                           &client_count, &err));

    while (size > 0 && client_count > 0) {
        size_t count = size < piece ? size : piece;
        ssize_t sent = send(peer.fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            break; /* a peer that does not read may find no room */
        bytes += sent;
        size -= (size_t)sent;
        let_run(event);
        if (reads)
            read_answers(&peer);
    }
    fake_event(supervisor, NULL, "host-state", "high");
    if (ends_input && client_count > 0) {
        shutdown(peer.fd, SHUT_WR);
        for (int turns = 0; turns < 50 && client_count > 0; turns++) {
            let_run(event);
            read_answers(&peer);
        }
    }
    close(peer.fd);
    let_run(event);
    free(peer.said);
    if (clients) /* with subscriptions that have nothing to say it is not noticed at once */
        rpc_client_close(clients);
    let_run(event);
    REQUIRE(client_count == 0 && !clients && !hub.subscriptions);
    rpc_hub_close(&hub);
    supervisor_free(supervisor);
    sd_event_unref(event);
    return 0;
}
