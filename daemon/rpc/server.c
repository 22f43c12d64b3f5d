/* The listening socket, and who comes in with what rights. */
#include "daemon/rpc/rpc.h"

#include "daemon/rpc/client.h"

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
    int fd, spare_fd; /* spare: given up for a moment to turn a caller away when none is left */
    dev_t device;     /* of the socket's file, so that only our own is removed */
    ino_t inode;
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

/* A socket file that nobody listens behind is left over from a daemon that died. */
static int remove_stale(const struct sockaddr_un *address, struct err *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : err_set(err, errno, "%s", address->sun_path);
    if (!S_ISSOCK(status.st_mode))
        return err_set(err, EEXIST, "control socket %s is another kind of file", address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, errno, "control socket");
    int result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    int why = errno;
    close(fd);
    if (result == 0 || why == EAGAIN)
        return err_set(err, EADDRINUSE, "another daemon serves %s", address->sun_path);
    if (why != ECONNREFUSED)
        return err_set(err, why, "control socket %s", address->sun_path);
    if (unlink(address->sun_path) < 0)
        return err_set(err, errno, "remove stale socket %s", address->sun_path);
    return 0;
}

static int bind_socket(struct rpc_server *server, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    if (strlen(server->path) >= sizeof address.sun_path)
        return err_set(err, 0, "control socket path %s is longer than %zu bytes", server->path,
                       sizeof address.sun_path - 1);
    strcpy(address.sun_path, server->path);
    if (remove_stale(&address, err) < 0)
        return -1;
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->fd < 0)
        return err_set(err, errno, "control socket");
    if (bind(server->fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return err_set(err, errno, "bind control socket %s", server->path);
    if (lstat(server->path, &status) == 0) {
        server->device = status.st_dev;
        server->inode = status.st_ino;
    }
    /* Rights before listen: until then nobody can connect. */
    if (server->group && chown(server->path, (uid_t)-1, server->gid) < 0)
        return err_set(err, errno, "give control socket %s to group %s", server->path,
                       server->group);
    if (chmod(server->path, server->config.socket_mode) < 0)
        return err_set(err, errno, "set mode of control socket %s", server->path);
    if (listen(server->fd, 64) < 0)
        return err_set(err, errno, "listen on control socket %s", server->path);
    return 0;
}

static int find_group(struct rpc_server *server, struct err *err)
{
    if (!server->group)
        return 0;
    struct group *group = getgrnam(server->group);
    if (!group)
        return err_set(err, 0, "no group '%s' on this host", server->group);
    server->gid = group->gr_gid;
    return 0;
}

static int open_server(struct rpc_server *server, struct err *err)
{
    server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (find_group(server, err) < 0 || bind_socket(server, err) < 0)
        return -1;
    int result = sd_event_add_io(server->hub.event, &server->io, server->fd, EPOLLIN,
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
    server->fd = server->spare_fd = -1;
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
    struct stat status;
    if (!server)
        return;
    while (server->clients)
        rpc_client_close(server->clients);
    rpc_hub_close(&server->hub);
    sd_event_source_disable_unref(server->io);
    if (server->fd >= 0)
        close(server->fd);
    if (server->spare_fd >= 0)
        close(server->spare_fd);
    if (server->inode && lstat(server->path, &status) == 0 && status.st_ino == server->inode &&
        status.st_dev == server->device)
        unlink(server->path);
    free(server->path);
    free(server->group);
    free(server);
}
