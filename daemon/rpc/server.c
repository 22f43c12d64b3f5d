/* The listening socket, and who comes in with what rights. */
#include "daemon/rpc/rpc.h"

#include "daemon/rpc/client.h"
#include "daemon/rpc/unix_listener.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct rpc_server {
    struct rpc_config config; /* strings are the two below */
    char *path, *group;
    gid_t gid; /* of group */
    struct rpc_hub hub;
    struct unix_listener listener;
    int spare_fd; /* given up for a moment to turn a caller away when none is left */
    sd_event_source *io;
    struct rpc_client *clients;
    unsigned client_count;
};

void rpc_config_default(struct rpc_config *config)
{
    *config = (struct rpc_config){
        .socket_path = "/run/ballast/ballastd.sock",
        .socket_mode = 0660,
        .max_clients = 64,
        .line_bytes_max = (size_t)1 << 20,
        .output_bytes_max = (size_t)4 << 20,
    };
}

/* ---- rights ---- */

/* Is the peer a member of the group, by its primary or another one? As the kernel knew it when the
 * peer connected. */
static bool is_member(int fd, const struct ucred *peer, gid_t group)
{
    socklen_t bytes = 0;
    if (peer->gid == group)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &bytes) == 0 || errno != ERANGE)
        return false;
    gid_t *groups = malloc(bytes);
    bool member = false;
    if (groups && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) == 0)
        for (size_t i = 0; i < bytes / sizeof *groups; i++)
            member |= groups[i] == group;
    free(groups);
    return member;
}

static bool may_change(const struct rpc_server *server, int fd, const struct ucred *peer)
{
    return peer->uid == 0 || peer->uid == geteuid() ||
           (server->group && is_member(fd, peer, server->gid));
}

/* ---- callers ---- */

static void turn_away(int fd, const char *why)
{
    static const char format[] = "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":%d,\"message\":\"%s\"},"
                                 "\"id\":null}\n";
    dprintf(fd, format, RPC_TOO_MANY, why);
    close(fd);
}

static void welcome(struct rpc_server *server, int fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    struct err err;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0) {
        close(fd);
        return;
    }
    if (server->client_count >= server->config.max_clients) {
        turn_away(fd, "too many connections");
        return;
    }
    struct rpc_session session = {
        .hub = &server->hub,
        .may_change = may_change(server, fd, &peer),
        .uid = peer.uid,
    };
    if (!rpc_client_new(fd, &session, server->config.line_bytes_max,
                        server->config.output_bytes_max, &server->clients, &server->client_count,
                        &err))
        fprintf(stderr, "ballastd: control socket: %s\n", err.text);
}

static int caller_is_here(sd_event_source *source, int listen_fd, uint32_t events, void *ctx)
{
    (void)source, (void)events;
    struct rpc_server *server = ctx;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        welcome(server, fd);
    } else if (errno == EMFILE || errno == ENFILE) {
        /* Left in the queue the caller would wake us again and again. */
        close(server->spare_fd);
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0)
            turn_away(fd, "the daemon has no file descriptor left");
        server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    return 0;
}

/* ---- life ---- */

static int open_server(struct rpc_server *server, struct err *err)
{
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (server->group && unix_group_find(server->group, &server->gid, err) < 0)
        return -1;
    if (unix_listener_open(&server->listener, "control socket", server->path, server->group,
                           server->config.socket_mode, err) < 0)
        return -1;
    int result = sd_event_add_io(server->hub.event, &server->io, server->listener.fd, EPOLLIN,
                                 caller_is_here, server);
    return result < 0 ? err_set(err, -result, "watch control socket") : 0;
}

struct rpc_server *rpc_server_new(const struct rpc_config *config, sd_event *event,
                                  struct supervisor *supervisor, struct err *err)
{
    struct rpc_server *server = calloc(1, sizeof *server);
    if (!server) {
        err_set(err, ENOMEM, "control socket");
        return NULL;
    }
    server->config = *config;
    server->spare_fd = server->listener.fd = -1;
    server->path = strdup(config->socket_path);
    server->group = config->group ? strdup(config->group) : NULL;
    server->hub = (struct rpc_hub){
        .event = event,
        .supervisor = supervisor,
        .methods = rpc_methods,
        .group = server->group,
    };
    if (!server->path || (config->group && !server->group)) {
        err_set(err, ENOMEM, "control socket");
    } else if (open_server(server, err) == 0) {
        return server;
    }
    rpc_server_free(server);
    return NULL;
}

void rpc_server_free(struct rpc_server *server)
{
    if (!server)
        return;
    while (server->clients)
        rpc_client_close(server->clients);
    rpc_hub_close(&server->hub);
    sd_event_source_disable_unref(server->io);
    if (server->spare_fd >= 0)
        close(server->spare_fd);
    unix_listener_close(&server->listener);
    free(server->path);
    free(server->group);
    free(server);
}
