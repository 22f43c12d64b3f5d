/*
 * An external policy at its connection: attach, rows out, targets in, detach.
 * What holds between them is daemon/policy_external.h; here are only its words.
 */
#include "daemon/rpc/json_text.h"
#include "daemon/rpc/methods.h"

#include "daemon/policy_external.h"
#include "daemon/supervisor.h"

#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 200 /* by default */

/* ---- rows ---- */

enum member_kind { MEMBER_COUNT, MEMBER_COUNT32, MEMBER_REAL };

static const struct member {
    const char *name;
    enum member_kind kind;
    size_t offset;  /* in struct policy_vm */
    uint32_t needs; /* bits of its valid: absent unless they are set */
} members[] = {
    {"shares", MEMBER_COUNT32, offsetof(struct policy_vm, shares), 0},
    {"memory_pages", MEMBER_COUNT, offsetof(struct policy_vm, memory_pages), 0},
    {"min_pages", MEMBER_COUNT, offsetof(struct policy_vm, min_pages), 0},
    {"max_pages", MEMBER_COUNT, offsetof(struct policy_vm, max_pages), 0},
    {"allocated_pages", MEMBER_COUNT, offsetof(struct policy_vm, allocated_pages), 0},
    {"page_out_pending_pages", MEMBER_COUNT, offsetof(struct policy_vm, page_out_pending_pages), 0},
    {"balloon_pages", MEMBER_COUNT, offsetof(struct policy_vm, balloon_pages), POLICY_HAS_BALLOON},
    {"paged_pages", MEMBER_COUNT, offsetof(struct policy_vm, paged_pages), POLICY_HAS_PAGED},
    {"absent_pages", MEMBER_COUNT, offsetof(struct policy_vm, absent_pages), POLICY_HAS_ABSENT},
    {"saved_pages", MEMBER_COUNT, offsetof(struct policy_vm, saved_pages), POLICY_HAS_SAVED},
    {"active_fraction", MEMBER_REAL, offsetof(struct policy_vm, active_fraction),
     POLICY_HAS_ACTIVE},
    {"idle_tax_percent", MEMBER_COUNT32, offsetof(struct policy_vm, idle_tax_percent),
     POLICY_HAS_IDLE_TAX},
    {"guest_free_pages", MEMBER_COUNT, offsetof(struct policy_vm, guest_free_pages),
     POLICY_HAS_GUEST},
    {"guest_available_pages", MEMBER_COUNT, offsetof(struct policy_vm, guest_available_pages),
     POLICY_HAS_GUEST},
};

static void put(struct json_text *text, const char *plain)
{
    json_text_raw(text, plain, strlen(plain));
}

static void put_name(struct json_text *text, const char *name)
{
    put(text, ",\"");
    put(text, name);
    put(text, "\":");
}

static void put_count(struct json_text *text, const char *name, uint64_t value)
{
    put_name(text, name);
    json_text_count(text, value);
}

static void put_abilities(struct json_text *text, uint32_t can)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } abilities[] = {{POLICY_CAN_BALLOON, "\"balloon\""},
                     {POLICY_CAN_PAGE_OUT, "\"page_out\""},
                     {POLICY_CAN_BLOCK, "\"block\""}};
    bool first = true;
    put_name(text, "can");
    put(text, "[");
    for (size_t i = 0; i < sizeof abilities / sizeof *abilities; i++) {
        if (!(can & abilities[i].bit))
            continue;
        put(text, first ? "" : ",");
        put(text, abilities[i].name);
        first = false;
    }
    put(text, "]");
}

static void put_row(struct json_text *text, const struct question_vm *vm)
{
    put(text, "{\"vm\":");
    json_text_string(text, vm->name);
    put_count(text, "target_pages", vm->target_pages);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const struct member *member = &members[i];
        const void *at = (const char *)vm->row + member->offset;
        if ((vm->row->valid & member->needs) != member->needs)
            continue;
        put_name(text, member->name);
        if (member->kind == MEMBER_COUNT)
            json_text_count(text, *(const uint64_t *)at);
        else if (member->kind == MEMBER_COUNT32)
            json_text_count(text, *(const uint32_t *)at);
        else
            json_text_real(text, *(const double *)at);
    }
    put_abilities(text, vm->row->can);
    put(text, "}");
}

static void put_question(struct json_text *text, const struct policy_question *question)
{
    put(text, "{\"jsonrpc\":\"2.0\",\"method\":\"policy.rows\",\"params\":{\"round\":");
    json_text_count(text, question->round);
    put_count(text, "deadline_ms", question->deadline_ms);
    put_name(text, "reason");
    json_text_string(text, question->reason);
    put(text, ",\"host\":{\"state\":");
    json_text_string(text, host_state_name(question->state));
    put_count(text, "machine_pages", question->host->machine_pages);
    put_count(text, "free_pages", question->host->free_pages);
    put_count(text, "available_pages", question->available_pages);
    put_count(text, "elapsed_ns", question->host->elapsed_ns);
    put_count(text, "idle_tax_percent", question->settings->idle_tax_percent);
    put(text, "},\"vms\":[");
    for (size_t i = 0; i < question->count; i++) {
        put(text, i ? "," : "");
        put_row(text, &question->vms[i]);
    }
    put(text, "]}}");
}

static bool send_question(void *ctx, const struct policy_question *question)
{
    struct rpc_session *session = ctx;
    struct json_text text = {0};
    put_question(&text, question);
    struct iovec piece = {.iov_base = text.bytes, .iov_len = text.length};
    bool sent = !text.failed && session->open && session->send(session, &piece, 1, false);
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
