/* The client's end of the control socket (daemon/rpc/PROTOCOL.md), blocking. */
#ifndef BALLAST_CTL_CONNECTION_H
#define BALLAST_CTL_CONNECTION_H

#include "vmm-core/err.h"

#include <jansson.h>

struct connection;

/* Connect and read the greeting. NULL with err: nobody there, no permission, another protocol. */
struct connection *connection_open(const char *socket_path, struct err *err);
void connection_close(struct connection *connection);

/* The greeting's params. */
const json_t *connection_greeting(const struct connection *connection);

enum call_result {
    CALL_ANSWERED, /* *result */
    CALL_REFUSED,  /* err says what the daemon said */
    CALL_BROKEN,   /* err says what happened to the connection */
};

/* One call; params are taken over (NULL: none). Notifications that arrive meanwhile are kept. */
enum call_result connection_call(struct connection *connection, const char *method, json_t *params,
                                 json_t **result, struct err *err);

/* The next notification, whole; waits for it. NULL with err when the connection ended. */
json_t *connection_next(struct connection *connection, struct err *err);

/* For programs that wait for other things too: what to poll for input, and the next notification
 * if a whole one is here. -1 with err when the connection ended, 0 with *message NULL when there is
 * none yet, else 0 with *message. */
int connection_fd(const struct connection *connection);
int connection_poll(struct connection *connection, json_t **message, struct err *err);

#endif
