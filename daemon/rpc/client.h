/*
 * One connection: bytes to lines, answers to bytes, and the bounds between.
 *
 * Writing is always left to the event loop, so that nothing that sends can find
 * the connection closed under it. Reading stops while answers wait to be read or
 * too many calls are under way, and goes on by itself.
 */
#ifndef BALLAST_RPC_CLIENT_H
#define BALLAST_RPC_CLIENT_H

#include "daemon/rpc/line_reader.h"
#include "daemon/rpc/session.h"

struct rpc_client {
    struct rpc_session session; /* first: session->send and friends come back here */
    struct rpc_client *next, *previous;
    struct rpc_client **list; /* the server's head */
    unsigned *list_length;
    int fd;
    sd_event_source *io, *wake; /* wake: lines are waiting that were read before */
    struct line_reader lines;
    char *output;
    size_t output_start, output_end, output_capacity, output_bytes_max;
    bool input_ended, broken;
};

/*
 * Take over fd (also when failing) and greet. session: hub, may_change and uid
 * are given. The client puts itself in *list and counts itself there until it
 * is closed. NULL with err.
 */
struct rpc_client *rpc_client_new(int fd, const struct rpc_session *session, size_t line_bytes_max,
                                  size_t output_bytes_max, struct rpc_client **list,
                                  unsigned *list_length, struct err *err);

/* Close the connection now. Calls under way go on, unanswered. */
void rpc_client_close(struct rpc_client *client);

#endif
