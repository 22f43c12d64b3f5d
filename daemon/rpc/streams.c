/*
 * Subscriptions: rows of statistics at an interval; events, decisions and rounds
 * of the policy as they come.
 *
 * Intervals are aligned on the clock, so that everyone who wants ten rows a
 * second wants them at the same moments; the rows are made once and sent to all
 * who are due within a tenth of the interval. Who has no room for a row loses
 * it; the next one that fits says how many were lost.
 */
#include "daemon/rpc/rounds.h"
#include "daemon/rpc/rows.h"
#include "daemon/rpc/session.h"

#include "daemon/supervisor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_SUBSCRIPTIONS 16 /* a session */
#define US_PER_MS          1000u

enum stream { STREAM_ROWS, STREAM_EVENTS, STREAM_DECISIONS, STREAM_ROUNDS };

struct rpc_subscription {
    struct rpc_subscription *next;
    struct rpc_session *session;
    uint64_t number;
    enum stream stream;
    uint64_t interval_ms; /* of rows */
    sd_event_source *timer;
    uint64_t lost; /* rows, events or decisions since the last that was sent */
};

/* ---- sending ---- */

/* {"jsonrpc":..,"method":METHOD,"params":{"subscription":n,["lost":n,] REST: rest begins after the
 * opening brace of an object and brings the closing one. */
static void send_to(struct rpc_subscription *subscription, const char *method, const char *rest,
                    size_t rest_bytes)
{
    char head[160], lost[48] = "";
    if (subscription->lost)
        snprintf(lost, sizeof lost, "\"lost\":%" PRIu64 ",", subscription->lost);
    int length = snprintf(head, sizeof head,
                          "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":"
                          "{\"subscription\":%" PRIu64 ",%s",
                          method, subscription->number, lost);
    struct iovec pieces[] = {
        {.iov_base = head, .iov_len = (size_t)length},
        {.iov_base = (char *)rest, .iov_len = rest_bytes},
        {.iov_base = "}", .iov_len = 1},
    };
    if (subscription->session->send(subscription->session, pieces, 3, false))
        subscription->lost = 0;
    else
        subscription->lost++;
}

/* ---- rows ---- */

/* The rows of now, or those made for someone else less than age_ns ago. NULL: no memory. */
static const struct json_text *rows_of_now(struct rpc_hub *hub, uint64_t age_ns)
{
    uint64_t now_us = 0;
    sd_event_now(hub->event, CLOCK_MONOTONIC, &now_us);
    if (hub->rows.length == 0 || now_us * 1000 >= hub->rows_time_ns + age_ns) {
        json_text_begin(&hub->rows);
        rows_write(&hub->rows, hub->supervisor);
        hub->rows_time_ns = now_us * 1000;
    }
    return hub->rows.failed ? NULL : &hub->rows;
}

static int rows_are_due(sd_event_source *timer, uint64_t due_us, void *ctx)
{
    struct rpc_subscription *subscription = ctx;
    struct rpc_hub *hub = subscription->session->hub;
    uint64_t now_us = due_us, interval_us = subscription->interval_ms * US_PER_MS;
    sd_event_now(hub->event, CLOCK_MONOTONIC, &now_us);
    const struct json_text *rows = rows_of_now(hub, interval_us * 1000 / 10);
    if (rows)
        send_to(subscription, "stats.rows", rows->bytes + 1, rows->length - 1);
    else
        subscription->lost++;
    uint64_t next_us = (now_us / interval_us + 1) * interval_us;
    if (next_us - now_us < interval_us / 10) /* the same rows again would be no news */
        next_us += interval_us;
    sd_event_source_set_time(timer, next_us);
    return 0;
}

/* ---- events, decisions, rounds ---- */

/* To all who follow a stream: an object without its opening brace; NULL, for lack of memory, is
 * lost to them. */
static void send_to_all(struct rpc_hub *hub, enum stream stream, const char *method,
                        const char *rest, size_t rest_bytes)
{
    for (struct rpc_subscription *one = hub->subscriptions, *next; one; one = next) {
        next = one->next;
        if (one->stream != stream)
            continue;
        if (rest)
            send_to(one, method, rest, rest_bytes);
        else
            one->lost++;
    }
}

/* The same; takes over the object. */
static void send_object_to_all(struct rpc_hub *hub, enum stream stream, const char *method,
                               json_t *object)
{
    char *rest = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    send_to_all(hub, stream, method, rest ? rest + 1 : NULL, rest ? strlen(rest + 1) : 0);
    free(rest);
}

static bool anyone_follows(const struct rpc_hub *hub, enum stream stream)
{
    const struct rpc_subscription *one = hub->subscriptions;
    while (one && one->stream != stream)
        one = one->next;
    return one != NULL;
}

static void decided(void *ctx, const char *vm, const struct decision *decision)
{
    struct rpc_hub *hub = ctx;
    if (anyone_follows(hub, STREAM_DECISIONS))
        send_object_to_all(hub, STREAM_DECISIONS, "decision", decision_json(vm, decision));
}

static void happened(void *ctx, const struct supervisor_event *event)
{
    struct rpc_hub *hub = ctx;
    json_t *object = json_pack("{s:I, s:s*, s:s, s:o}", "time_ns", (json_int_t)event->time_ns, "vm",
                               event->vm, "kind", event->kind, "text", rpc_text(event->text));
    send_object_to_all(hub, STREAM_EVENTS, "event", object);
}

static void round_is_over(void *ctx, const struct supervisor_round *round)
{
    struct json_text text = {0};
    round_write(&text, round);
    send_to_all(ctx, STREAM_ROUNDS, "policy.round", text.failed ? NULL : text.bytes + 1,
                text.failed ? 0 : text.length - 1);
    json_text_free(&text);
}

/* ---- subscriptions ---- */

static struct rpc_subscription *add_subscription(struct rpc_session *session, enum stream stream)
{
    struct rpc_hub *hub = session->hub;
    struct rpc_subscription *subscription = NULL;
    if (session->open && session->subscriptions < MOST_SUBSCRIPTIONS)
        subscription = calloc(1, sizeof *subscription);
    if (!subscription)
        return NULL;
    subscription->session = session;
    subscription->stream = stream;
    subscription->number = ++hub->last_subscription;
    subscription->next = hub->subscriptions;
    hub->subscriptions = subscription;
    session->subscriptions++;
    return subscription;
}

static void drop(struct rpc_hub *hub, struct rpc_subscription *subscription)
{
    struct rpc_subscription **link = &hub->subscriptions;
    while (*link != subscription)
        link = &(*link)->next;
    *link = subscription->next;
    subscription->session->subscriptions--;
    sd_event_source_disable_unref(subscription->timer);
    free(subscription);
    if (!anyone_follows(hub, STREAM_ROUNDS)) /* writing a round costs; not for nobody */
        supervisor_listen_rounds(hub->supervisor, NULL, NULL);
    if (!hub->subscriptions) /* rows of a thousand VMs are not kept for nobody */
        json_text_free(&hub->rows);
}

struct rpc_subscription *rpc_subscribe_stats(struct rpc_session *session, uint64_t interval_ms)
{
    struct rpc_subscription *subscription = add_subscription(session, STREAM_ROWS);
    if (!subscription)
        return NULL;
    subscription->interval_ms = interval_ms;
    /* The first rows at once, after the answer. */
    if (sd_event_add_time(session->hub->event, &subscription->timer, CLOCK_MONOTONIC, 0, US_PER_MS,
                          rows_are_due, subscription) < 0 ||
        sd_event_source_set_enabled(subscription->timer, SD_EVENT_ON) < 0) {
        drop(session->hub, subscription);
        return NULL;
    }
    return subscription;
}

struct rpc_subscription *rpc_subscribe_events(struct rpc_session *session)
{
    struct rpc_hub *hub = session->hub;
    if (!hub->listener)
        hub->listener = supervisor_listen(hub->supervisor, happened, hub);
    return hub->listener ? add_subscription(session, STREAM_EVENTS) : NULL;
}

struct rpc_subscription *rpc_subscribe_decisions(struct rpc_session *session)
{
    struct rpc_hub *hub = session->hub;
    if (!hub->decision_listener)
        hub->decision_listener = supervisor_listen_decisions(hub->supervisor, decided, hub);
    return hub->decision_listener ? add_subscription(session, STREAM_DECISIONS) : NULL;
}

struct rpc_subscription *rpc_subscribe_rounds(struct rpc_session *session)
{
    struct rpc_subscription *subscription = add_subscription(session, STREAM_ROUNDS);
    if (subscription)
        supervisor_listen_rounds(session->hub->supervisor, round_is_over, session->hub);
    return subscription;
}

uint64_t rpc_subscription_number(const struct rpc_subscription *subscription)
{
    return subscription->number;
}

bool rpc_unsubscribe(struct rpc_session *session, uint64_t number)
{
    struct rpc_subscription *one = session->hub->subscriptions;
    while (one && (one->session != session || one->number != number))
        one = one->next;
    if (one)
        drop(session->hub, one);
    return one != NULL;
}

void rpc_unsubscribe_all(struct rpc_session *session)
{
    for (struct rpc_subscription *one = session->hub->subscriptions, *next; one; one = next) {
        next = one->next;
        if (one->session == session)
            drop(session->hub, one);
    }
}

void rpc_hub_close(struct rpc_hub *hub)
{
    while (hub->subscriptions)
        drop(hub, hub->subscriptions);
    if (hub->listener)
        supervisor_unlisten(hub->supervisor, hub->listener);
    if (hub->decision_listener)
        supervisor_unlisten_decisions(hub->supervisor, hub->decision_listener);
    hub->listener = NULL;
    hub->decision_listener = NULL;
    json_text_free(&hub->rows);
}
