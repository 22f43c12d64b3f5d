/*
 * The middle of the control socket, between connections (client.c) and methods:
 * what a session is, how a call is answered, how parameters are read, and what
 * subscriptions there are. Private to daemon/rpc.
 *
 *   client.c     bytes of one connection, with its bounds
 *   jsonrpc.c    lines to calls and calls to answers, batches included
 *   params.c     named parameters, each mistake with its name
 *   methods.c    the table of methods; one function each in *_methods.c
 *   streams.c    subscriptions and what they send
 */
#ifndef BALLAST_RPC_SESSION_H
#define BALLAST_RPC_SESSION_H

#include "daemon/rpc/json_text.h"
#include "vmm-core/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <systemd/sd-event.h>

struct supervisor;
struct supervisor_listener;
struct supervisor_decision_listener;
struct rpc_subscription;
struct rpc_method;

#define RPC_PROTOCOL     1
#define RPC_MOST_BATCHED 256 /* calls in one batch */
#define RPC_MOST_CALLS   32  /* unanswered calls of a session before it is left unread */

/* What all sessions share. */
struct rpc_hub {
    sd_event *event;
    struct supervisor *supervisor;
    const struct rpc_method *methods; /* ends with a NULL name */
    const char *group;                /* who may change things, for messages; NULL: none */
    struct rpc_subscription *subscriptions;
    struct supervisor_listener *listener;                   /* while anyone follows events */
    struct supervisor_decision_listener *decision_listener; /* or decisions */
    uint64_t last_subscription;
    struct json_text rows; /* last rows sent, for others that are due now */
    uint64_t rows_time_ns;
};
void rpc_hub_close(struct rpc_hub *hub); /* drop what streams hold */

/* One peer. Lives on, deaf, while calls of it are still being carried out. */
struct rpc_session {
    struct rpc_hub *hub;
    bool may_change;
    uint32_t uid;
    bool open;        /* false: the connection is gone */
    unsigned calls;   /* being carried out */
    unsigned holders; /* the connection, and each batch of calls */
    unsigned subscriptions;
    /* Queue one line, given in pieces and without its newline. must: it is an answer and never
     * dropped. Otherwise false when there is no room. */
    bool (*send)(struct rpc_session *session, const struct iovec *pieces, int count, bool must);
    void (*answered)(struct rpc_session *session); /* a call is done: reading may go on */
    void (*release)(struct rpc_session *session);  /* no holders any more */
};
void rpc_session_unhold(struct rpc_session *session);

/* One line from a peer: carries out the call or batch in it. Answers go to session->send, now or
 * later. The session may be closed, but not freed, meanwhile. */
void rpc_take_line(struct rpc_session *session, const char *line, size_t length);

/* Answers with an error that belongs to no call (id null). */
void rpc_refuse_line(struct rpc_session *session, int code, const char *message);

/* The greeting, as PROTOCOL.md says. */
void rpc_greet(struct rpc_session *session);

/* Text as JSON, whatever bytes are in it: those of text that is not UTF-8 (a file's name, a
 * worker's last words) become '?' where they are not ASCII. */
json_t *rpc_text(const char *text);

/* ---- calls ---- */

enum rpc_code {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_NO_METHOD = -32601,
    RPC_BAD_PARAMS = -32602,
    RPC_INTERNAL = -32603,
    RPC_NOT_PERMITTED = -32001,
    RPC_NO_SUCH_VM = -32002,
    RPC_REFUSED = -32003, /* understood, and the host says no: the message says why */
    RPC_TOO_MANY = -32004,
};

struct rpc_call;
struct rpc_params;
typedef void rpc_method_fn(struct rpc_call *call, struct rpc_params *params);

struct rpc_method {
    const char *name;
    bool changes; /* only for those who may */
    rpc_method_fn *carry_out;
};
extern const struct rpc_method rpc_methods[];

struct rpc_session *rpc_call_session(const struct rpc_call *call);
struct supervisor *rpc_call_supervisor(const struct rpc_call *call);

/* Exactly one of these ends every call, at once or later; the call is gone then. Both take over
 * the JSON they are given (result NULL: out of memory; details may be NULL). */
void rpc_reply(struct rpc_call *call, json_t *result);
void rpc_fail(struct rpc_call *call, int code, json_t *details, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The supervisor said no: RPC_REFUSED with err's text, errno and the VM (NULL: none). */
void rpc_fail_refused(struct rpc_call *call, const char *vm, const struct err *err);

/* ---- parameters ----
 * Each reader takes one member by name. The first mistake is kept; readers after it do nothing;
 * params_end, called after the last reader, finds members nobody read, and answers the call with
 * the mistake if there was one. So a method reads everything, then asks once. */

enum param_need { OPTIONAL, REQUIRED };

/* NULL (or false) when absent or mistaken. */
const char *param_text(struct rpc_params *params, const char *name, enum param_need need);
bool param_size(struct rpc_params *params, const char *name, enum param_need need,
                uint64_t *bytes); /* a number of bytes, or text such as "256MiB" */
bool param_count(struct rpc_params *params, const char *name, enum param_need need, uint64_t least,
                 uint64_t most, uint64_t *value);
bool param_number(struct rpc_params *params, const char *name, enum param_need need, double *value);
bool param_flag(struct rpc_params *params, const char *name, enum param_need need, bool *value);
bool param_is_null(struct rpc_params *params, const char *name); /* there, and null: taken */
json_t *param_array(struct rpc_params *params, const char *name, enum param_need need, size_t most);
/* Members of an object inside: name is used in messages ("disks[0]"). End it with params_leave. */
struct rpc_params *params_enter(struct rpc_params *params, const char *name, json_t *object);
void params_leave(struct rpc_params *inner);
/* The object member name, entered; NULL when absent or mistaken. */
struct rpc_params *param_object(struct rpc_params *params, const char *name, enum param_need need);
/* As it is, whatever it is; NULL when absent. */
json_t *param_value(struct rpc_params *params, const char *name);
/* A mistake only the method can see. */
void params_mistake(struct rpc_params *params, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Was anything wrong with what has been read, or is there more than that? */
bool params_are_mistaken(struct rpc_params *params);
/* true: go on. false: the call has been answered. */
bool params_end(struct rpc_params *params, struct rpc_call *call);

/* For jsonrpc.c: reader over params (an object, or NULL for none); free after the method returned.
 * NULL: no memory. */
struct rpc_params *params_new(json_t *object);
void params_free(struct rpc_params *params);

/* ---- external policies: policy_methods.c ---- */

/* The session ended its side: if it is the one attached, that is over. */
void rpc_policy_gone(struct rpc_session *session, const char *why);
/* It sent what is no call: if it is the one asked, that was its answer. */
void rpc_policy_garbled(struct rpc_session *session, const char *what);

/* ---- streams ---- */

/* NULL: no memory, or too many. Answers nothing by itself. */
struct rpc_subscription *rpc_subscribe_stats(struct rpc_session *session, uint64_t interval_ms);
struct rpc_subscription *rpc_subscribe_events(struct rpc_session *session);
struct rpc_subscription *rpc_subscribe_decisions(struct rpc_session *session);
struct rpc_subscription *rpc_subscribe_rounds(struct rpc_session *session);
uint64_t rpc_subscription_number(const struct rpc_subscription *subscription);
/* false: the session has no such subscription. */
bool rpc_unsubscribe(struct rpc_session *session, uint64_t number);
void rpc_unsubscribe_all(struct rpc_session *session);

#endif
