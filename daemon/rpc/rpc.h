/*
 * The control socket: a JSON-RPC 2.0 server on a Unix stream socket, one object
 * a line. PROTOCOL.md is its contract with clients; this is the whole of its
 * contract with the daemon.
 *
 * Everything runs on the thread of the event loop given at birth. Nothing here
 * waits for a client: what one can not take is kept up to a bound, then rows of
 * streams are dropped and counted, and its requests are left unread.
 *
 * Who may change things: the peer's credentials as the kernel gives them. Root,
 * the daemon's own user and members of config.group may; everyone else who can
 * open the socket may read.
 */
#ifndef BALLAST_RPC_H
#define BALLAST_RPC_H

#include "vmm-core/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

struct rpc_server;
struct supervisor;

struct rpc_config {
    const char *socket_path; /* its folder must exist; a socket nobody serves is replaced */
    const char *group;       /* whose members may change things, and the socket's group; NULL:
                                none */
    mode_t socket_mode;      /* permission bits of the socket */
    unsigned max_clients;    /* further ones are told so and let go */
    size_t line_bytes_max;   /* of a request; a longer one is skipped with an error */
    size_t output_bytes_max; /* unread output kept a client before rows are dropped */
};

/* /run/ballast/ballastd.sock, no group, 0660, 64 clients, 1 MiB, 4 MiB. */
void rpc_config_default(struct rpc_config *config);

/* Listen. config is copied. NULL with err: unknown group, path taken or too long, no permission. */
struct rpc_server *rpc_server_new(const struct rpc_config *config, sd_event *event,
                                  struct supervisor *supervisor, struct err *err);

/* Close every connection and remove the socket. Before supervisor_free. */
void rpc_server_free(struct rpc_server *server);

#endif
