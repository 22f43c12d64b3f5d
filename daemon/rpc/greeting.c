/* The greeting: who serves, and what it can do. */
#include "daemon/rpc/session.h"

#include <stdlib.h>
#include <string.h>

void rpc_greet(struct rpc_session *session)
{
    json_t *hello =
        json_pack("{s:s, s:s, s:{s:s, s:s, s:i, s:[s,s,s,s,s,s,s], s:b}}", "jsonrpc", "2.0",
                  "method", "hello", "params", "server", "ballastd", "version", BALLAST_VERSION,
                  "protocol", RPC_PROTOCOL, "capabilities", "balloon", "page_out", "block", "check",
                  "subscribe", "batch", "external_policy", "may_change", session->may_change);
    char *text = hello ? json_dumps(hello, JSON_COMPACT) : NULL;
    json_decref(hello);
    if (!text)
        return;
    struct iovec piece = {.iov_base = text, .iov_len = strlen(text)};
    session->send(session, &piece, 1, true);
    free(text);
}
