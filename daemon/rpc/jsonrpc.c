/*
 * JSON-RPC 2.0 (jsonrpc.org/specification): a line is one call or a batch of
 * them; every call with an id gets one answer, a batch one array of answers.
 *
 * Calls end when their method says so, which may be later and in another order
 * than they came. A batch holds its session; a call belongs to its batch; a
 * single call is a batch of one without brackets.
 */
#include "daemon/rpc/session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rpc_batch {
    struct rpc_session *session;
    bool bracketed;
    unsigned unfinished; /* calls, and one while calls are still being started */
    json_t *answers;     /* array */
};

struct rpc_call {
    struct rpc_batch *batch;
    json_t *id; /* NULL: a notification, never answered */
    const struct rpc_method *method;
};

void rpc_session_unhold(struct rpc_session *session)
{
    if (--session->holders == 0)
        session->release(session);
}

/* ---- answers ---- */

json_t *rpc_text(const char *text)
{
    json_t *string = json_string(text);
    char *copy = string ? NULL : strdup(text);
    for (char *c = copy; c && *c; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    if (copy)
        string = json_string(copy);
    free(copy);
    return string;
}

static void send_json(struct rpc_session *session, const json_t *answer)
{
    char *text = json_dumps(answer, JSON_COMPACT);
    if (!text)
        return;
    struct iovec piece = {.iov_base = text, .iov_len = strlen(text)};
    if (session->open)
        session->send(session, &piece, 1, true);
    free(text);
}

static json_t *error_answer(json_t *id, int code, const char *message, json_t *details)
{
    json_t *answer = json_pack("{s:s, s:{s:i, s:o}, s:O?}", "jsonrpc", "2.0", "error", "code", code,
                               "message", rpc_text(message), "id", id);
    if (answer && details)
        json_object_set(json_object_get(answer, "error"), "data", details);
    return answer;
}

void rpc_refuse_line(struct rpc_session *session, int code, const char *message)
{
    json_t *answer = error_answer(NULL, code, message, NULL);
    send_json(session, answer);
    json_decref(answer);
    rpc_policy_garbled(session, message);
}

/* One less to wait for; the last sends what there is. */
static void batch_finish_one(struct rpc_batch *batch)
{
    struct rpc_session *session = batch->session;
    if (--batch->unfinished > 0)
        return;
    if (batch->bracketed && json_array_size(batch->answers) > 0)
        send_json(session, batch->answers);
    else if (!batch->bracketed && json_array_size(batch->answers) > 0)
        send_json(session, json_array_get(batch->answers, 0));
    json_decref(batch->answers);
    free(batch);
    rpc_session_unhold(session);
}

/* Takes over answer. */
static void end_call(struct rpc_call *call, json_t *answer)
{
    struct rpc_session *session = call->batch->session;
    if (call->id && answer)
        json_array_append(call->batch->answers, answer);
    json_decref(answer);
    json_decref(call->id);
    session->calls--;
    struct rpc_batch *batch = call->batch;
    free(call);
    session->holders++; /* the batch may have been the last to hold it */
    batch_finish_one(batch);
    if (session->open)
        session->answered(session);
    rpc_session_unhold(session);
}

struct rpc_session *rpc_call_session(const struct rpc_call *call)
{
    return call->batch->session;
}

struct supervisor *rpc_call_supervisor(const struct rpc_call *call)
{
    return call->batch->session->hub->supervisor;
}

void rpc_reply(struct rpc_call *call, json_t *result)
{
    if (!result) {
        rpc_fail(call, RPC_INTERNAL, NULL, "out of memory");
        return;
    }
    json_t *answer = NULL;
    if (call->id)
        answer = json_pack("{s:s, s:o, s:O}", "jsonrpc", "2.0", "result", result, "id", call->id);
    else
        json_decref(result);
    end_call(call, answer);
}

void rpc_fail(struct rpc_call *call, int code, json_t *details, const char *format, ...)
{
    char message[768];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    if (call->method && details)
        json_object_set_new(details, "method", json_string(call->method->name));
    json_t *answer = call->id ? error_answer(call->id, code, message, details) : NULL;
    json_decref(details);
    end_call(call, answer);
}

void rpc_fail_refused(struct rpc_call *call, const char *vm, const struct err *err)
{
    json_t *details = json_object();
    if (vm)
        json_object_set_new(details, "vm", json_string(vm));
    if (err->errnum) {
        const char *name = strerrorname_np(err->errnum);
        json_object_set_new(details, "errno", json_integer(err->errnum));
        if (name)
            json_object_set_new(details, "errno_name", json_string(name));
    }
    rpc_fail(call, RPC_REFUSED, details, "%s", err->text);
}

/* ---- calls ---- */

static const struct rpc_method *find_method(const struct rpc_hub *hub, const char *name)
{
    for (const struct rpc_method *method = hub->methods; method->name; method++)
        if (strcmp(method->name, name) == 0)
            return method;
    return NULL;
}

static void refuse_change(struct rpc_call *call)
{
    const struct rpc_session *session = call->batch->session;
    const char *group = session->hub->group;
    rpc_fail(call, RPC_NOT_PERMITTED, json_pack("{s:I}", "uid", (json_int_t)session->uid),
             "%s changes things: only root, the daemon's own user%s%s may", call->method->name,
             group ? " and members of group " : "", group ? group : "");
}

static void carry_out(struct rpc_call *call, const char *name, json_t *params_object)
{
    struct rpc_session *session = call->batch->session;
    call->method = find_method(session->hub, name);
    if (!call->method) {
        rpc_fail(call, RPC_NO_METHOD, NULL, "no method '%.64s'", name);
        return;
    }
    if (call->method->changes && !session->may_change) {
        refuse_change(call);
        return;
    }
    if (params_object && !json_is_object(params_object)) {
        rpc_fail(call, RPC_BAD_PARAMS, json_object(),
                 "params of %s are named: an object, not an array", call->method->name);
        return;
    }
    struct rpc_params *params = params_new(params_object);
    if (!params) {
        rpc_reply(call, NULL);
        return;
    }
    call->method->carry_out(call, params);
    params_free(params);
}

static void start_call(struct rpc_batch *batch, json_t *request)
{
    struct rpc_call *call = calloc(1, sizeof *call);
    if (!call)
        return;
    call->batch = batch;
    batch->unfinished++;
    batch->session->calls++;

    json_t *id = json_object_get(request, "id");
    json_t *method = json_object_get(request, "method");
    json_t *params = json_object_get(request, "params");
    const char *version = json_string_value(json_object_get(request, "jsonrpc"));
    bool id_valid = !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
    bool valid = json_is_object(request) && version && strcmp(version, "2.0") == 0 &&
                 json_is_string(method) && id_valid &&
                 (!params || json_is_object(params) || json_is_array(params));
    if (!valid) { /* answered even without an id: it is no notification either */
        call->id = id && id_valid ? json_incref(id) : json_null();
        rpc_fail(call, RPC_INVALID_REQUEST, NULL,
                 "not a JSON-RPC 2.0 request (jsonrpc \"2.0\", method, params, id)");
        rpc_policy_garbled(batch->session, "not a JSON-RPC 2.0 request");
        return;
    }
    call->id = json_incref(id);
    carry_out(call, json_string_value(method), params);
}

void rpc_take_line(struct rpc_session *session, const char *line, size_t length)
{
    json_error_t error;
    json_t *root = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!root) {
        char message[sizeof error.text + 64];
        snprintf(message, sizeof message, "not JSON: %s, at byte %d", error.text, error.position);
        rpc_refuse_line(session, RPC_PARSE_ERROR, message);
        return;
    }
    bool bracketed = json_is_array(root);
    size_t count = bracketed ? json_array_size(root) : 1;
    struct rpc_batch *batch = NULL;
    if (count == 0 || count > RPC_MOST_BATCHED)
        rpc_refuse_line(session, RPC_INVALID_REQUEST,
                        count ? "more calls than one batch may hold (256)" : "an empty batch");
    else
        batch = calloc(1, sizeof *batch);
    if (batch) {
        *batch = (struct rpc_batch){
            .session = session, .bracketed = bracketed, .unfinished = 1, .answers = json_array()};
        session->holders++;
        for (size_t i = 0; i < count; i++)
            start_call(batch, bracketed ? json_array_get(root, i) : root);
        batch_finish_one(batch);
    }
    json_decref(root);
}
