/*
 * GET /metrics over HTTP, with libmicrohttpd on our own event loop: its epoll
 * descriptor is watched, and a timer wakes it for connections that are slow. Each
 * socket has a daemon of its own; connections are few, short and bounded.
 */
#include "daemon/metrics/metrics.h"

#include "daemon/rpc/unix_listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_CONNECTIONS     16u
#define CONNECTION_TIMEOUT_S 10u
#define TCP_BACKLOG          16

struct http {
    struct supervisor *supervisor;
    struct MHD_Daemon *daemon; /* owns its listening descriptor once started */
    sd_event_source *io, *timer;
};

struct metrics_server {
    sd_event *event;
    struct unix_listener listener;
    struct http by_socket, by_tcp;
};

/* ---- answers ---- */

static enum MHD_Result answer_text(struct MHD_Connection *connection, unsigned status,
                                   const char *content_type, void *bytes, size_t length,
                                   enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(length, bytes, mode);
    if (!response) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(bytes);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result say(struct MHD_Connection *connection, unsigned status, const char *text)
{
    return answer_text(connection, status, "text/plain; charset=utf-8", (char *)text, strlen(text),
                       MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **request)
{
    static int seen;
    struct http *http = ctx;
    struct json_text text = {0};
    (void)version, (void)upload;
    if (!*request) { /* headers only: the answer waits for the end of the request */
        *request = &seen;
        return MHD_YES;
    }
    if (*upload_bytes > 0) {
        *upload_bytes = 0; /* read and forgotten */
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
    if (strcmp(url, "/metrics") != 0)
        return say(connection, MHD_HTTP_NOT_FOUND, "statistics are at /metrics\n");
    enum metrics_format format = metrics_choose_format(
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT));
    metrics_write(&text, http->supervisor, format);
    if (text.failed) {
        json_text_free(&text);
        return say(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "out of memory\n");
    }
    return answer_text(connection, MHD_HTTP_OK, metrics_content_type(format), text.bytes,
                       text.length, MHD_RESPMEM_MUST_FREE);
}

/* ---- the event loop ---- */

/* Let it do what it can, and ask when it wants to be called without anything happening. */
static void run(struct http *http)
{
    MHD_UNSIGNED_LONG_LONG wait_ms;
    uint64_t now_us = 0;
    MHD_run(http->daemon);
    if (MHD_get_timeout(http->daemon, &wait_ms) != MHD_YES) {
        sd_event_source_set_enabled(http->timer, SD_EVENT_OFF);
        return;
    }
    sd_event_now(sd_event_source_get_event(http->timer), CLOCK_MONOTONIC, &now_us);
    sd_event_source_set_time(http->timer, now_us + wait_ms * 1000);
    sd_event_source_set_enabled(http->timer, SD_EVENT_ONESHOT);
}

static int io_is_ready(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)source, (void)fd, (void)events;
    run(ctx);
    return 0;
}

static int time_is_up(sd_event_source *source, uint64_t due_us, void *ctx)
{
    (void)source, (void)due_us;
    run(ctx);
    return 0;
}

/* Serve what listens on fd, which is taken over when this succeeds. */
static int start(struct http *http, sd_event *event, int fd, struct err *err)
{
    http->daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, answer, http, MHD_OPTION_LISTEN_SOCKET, fd,
                         MHD_OPTION_CONNECTION_LIMIT, MOST_CONNECTIONS,
                         MHD_OPTION_CONNECTION_TIMEOUT, CONNECTION_TIMEOUT_S, MHD_OPTION_END);
    if (!http->daemon)
        return err_set(err, errno, "HTTP server for metrics");
    const union MHD_DaemonInfo *poll_info =
        MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    int result = sd_event_add_time(event, &http->timer, CLOCK_MONOTONIC, 0, 0, time_is_up, http);
    if (result >= 0)
        result = sd_event_source_set_enabled(http->timer, SD_EVENT_OFF);
    if (result >= 0)
        result = sd_event_add_io(event, &http->io, poll_info->epoll_fd, EPOLLIN, io_is_ready, http);
    return result < 0 ? err_set(err, -result, "watch HTTP server for metrics") : 0;
}

static void stop(struct http *http)
{
    sd_event_source_disable_unref(http->io);
    sd_event_source_disable_unref(http->timer);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    *http = (struct http){0};
}

/* ---- sockets ---- */

static int start_by_socket(struct metrics_server *server, const struct metrics_config *config,
                           struct err *err)
{
    if (!config->socket_path)
        return 0;
    if (unix_listener_open(&server->listener, "metrics socket", config->socket_path, config->group,
                           0660, err) < 0)
        return -1;
    int fd = fcntl(server->listener.fd, F_DUPFD_CLOEXEC, 3); /* ours stays with its file */
    if (fd < 0)
        return err_set(err, errno, "metrics socket");
    if (start(&server->by_socket, server->event, fd, err) == 0)
        return 0;
    if (!server->by_socket.daemon)
        close(fd);
    return -1;
}

static int start_by_tcp(struct metrics_server *server, const struct metrics_config *config,
                        struct err *err)
{
    const int yes = 1;
    if (!config->tcp_port)
        return 0;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)config->tcp_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, errno, "metrics port");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(fd, TCP_BACKLOG) < 0)
        err_set(err, errno, "metrics port %u of 127.0.0.1", config->tcp_port);
    else if (start(&server->by_tcp, server->event, fd, err) == 0)
        return 0;
    if (!server->by_tcp.daemon)
        close(fd);
    return -1;
}

struct metrics_server *metrics_server_new(const struct metrics_config *config, sd_event *event,
                                          struct supervisor *supervisor, struct err *err)
{
    struct metrics_server *server = calloc(1, sizeof *server);
    if (!server) {
        err_set(err, ENOMEM, "HTTP server for metrics");
        return NULL;
    }
    server->event = event;
    server->listener.fd = -1;
    server->by_socket.supervisor = server->by_tcp.supervisor = supervisor;
    if (start_by_socket(server, config, err) == 0 && start_by_tcp(server, config, err) == 0)
        return server;
    metrics_server_free(server);
    return NULL;
}

void metrics_server_free(struct metrics_server *server)
{
    if (!server)
        return;
    stop(&server->by_socket);
    stop(&server->by_tcp);
    unix_listener_close(&server->listener);
    free(server);
}
