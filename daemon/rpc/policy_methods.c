/*
 * An external policy at its connection: attach, rows out, targets in, detach.
 * What holds between them is daemon/policy_external.h; here are only its words.
 */
#include "daemon/rpc/methods.h"
#include "daemon/rpc/rounds.h"

#include "daemon/policy_external.h"
#include "daemon/supervisor.h"

#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 200 /* by default */

/* ---- questions ---- */

static bool send_question(void *ctx, const struct policy_question *question)
{
    struct rpc_session *session = ctx;
    struct json_text text = {0};
    static const char head[] = "{\"jsonrpc\":\"2.0\",\"method\":\"policy.rows\",\"params\":";
    question_write(&text, question);
    struct iovec pieces[] = {
        {.iov_base = (char *)head, .iov_len = sizeof head - 1},
        {.iov_base = text.bytes, .iov_len = text.length},
        {.iov_base = "}", .iov_len = 1},
    };
    bool sent = !text.failed && session->open && session->send(session, pieces, 3, false);
    json_text_free(&text);
    return sent;
}

/* ---- coming and going ---- */

static void was_detached(void *ctx, const char *reason)
{
    struct rpc_session *session = ctx;
    json_t *notice = json_pack("{s:s, s:s, s:{s:o}}", "jsonrpc", "2.0", "method", "policy.detached",
                               "params", "reason", rpc_text(reason));
    char *text = notice ? json_dumps(notice, JSON_COMPACT) : NULL;
    json_decref(notice);
    if (text && session->open) {
        struct iovec piece = {.iov_base = text, .iov_len = strlen(text)};
        session->send(session, &piece, 1, false);
    }
    free(text);
}

void rpc_policy_gone(struct rpc_session *session, const char *why)
{
    struct external_policy *external = supervisor_external(session->hub->supervisor);
    if (external_is_peer(external, session))
        external_detach(external, session, why, NULL);
}

void rpc_policy_garbled(struct rpc_session *session, const char *what)
{
    external_garbled(supervisor_external(session->hub->supervisor), session, what);
}

void policy_attach(struct rpc_call *call, struct rpc_params *params)
{
    struct supervisor *supervisor = rpc_call_supervisor(call);
    uint64_t deadline_ms = DEADLINE_MS, bad_limit = EXTERNAL_BAD_LIMIT;
    struct err err;
    const char *name = param_text(params, "name", REQUIRED);
    param_count(params, "deadline_ms", OPTIONAL, 1, EXTERNAL_DEADLINE_MS_MAX, &deadline_ms);
    param_count(params, "bad_limit", OPTIONAL, 1, EXTERNAL_BAD_LIMIT_MAX, &bad_limit);
    const char *fallback = param_text(params, "fallback", OPTIONAL);
    if (fallback && !policy_find(fallback))
        params_mistake(params, "fallback", "'%.40s' is not a policy here", fallback);
    if (!params_end(params, call))
        return;
    const struct external_peer peer = {
        .name = name,
        .deadline_ms = (uint32_t)deadline_ms,
        .bad_limit = (uint32_t)bad_limit,
        .fallback = fallback ? policy_find(fallback) : NULL,
        .ask = send_question,
        .detached = was_detached,
        .ctx = rpc_call_session(call),
    };
    if (!rpc_call_session(call)->open) /* asked by one who left at once */
        rpc_fail(call, RPC_REFUSED, NULL, "the connection is closed");
    else if (external_attach(supervisor_external(supervisor), &peer, &err) < 0)
        rpc_fail_refused(call, NULL, &err);
    else
        rpc_reply(call, json_pack("{s:o, s:I, s:I}", "policy", json_sprintf("external:%s", name),
                                  "deadline_ms", (json_int_t)deadline_ms, "bad_limit",
                                  (json_int_t)bad_limit));
}

void policy_targets(struct rpc_call *call, struct rpc_params *params)
{
    struct rpc_session *session = rpc_call_session(call);
    uint64_t round = 0;
    struct err err;
    param_count(params, "round", REQUIRED, 0, INT64_MAX, &round);
    json_t *targets = param_value(params, "targets"); /* judged with the question at hand */
    if (params_are_mistaken(params))
        rpc_policy_garbled(session, "policy.targets with wrong parameters");
    if (!params_end(params, call))
        return;
    struct external_policy *external = supervisor_external(rpc_call_supervisor(call));
    if (external_answer(external, session, round, targets, &err) < 0)
        rpc_fail_refused(call, NULL, &err);
    else
        rpc_reply(call, json_pack("{s:b}", "accepted", 1));
}

void policy_detach(struct rpc_call *call, struct rpc_params *params)
{
    struct external_policy *external = supervisor_external(rpc_call_supervisor(call));
    struct err err;
    if (!params_end(params, call))
        return;
    const struct rpc_session *by = rpc_call_session(call);
    bool itself = external_is_peer(external, by);
    if (external_detach(external, by, itself ? "it asked to be" : "somebody else asked", &err) < 0)
        rpc_fail_refused(call, NULL, &err);
    else
        rpc_reply(call, json_object());
}
