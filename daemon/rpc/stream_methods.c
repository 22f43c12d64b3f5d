/* Methods that begin and end streams; what flows is in streams.c. */
#include "daemon/rpc/methods.h"

void rpc_reply_subscription(struct rpc_call *call, const struct rpc_subscription *subscription)
{
    if (!subscription)
        rpc_fail(call, RPC_TOO_MANY, NULL, "no more subscriptions on this connection");
    else
        rpc_reply(call, json_pack("{s:I}", "subscription",
                                  (json_int_t)rpc_subscription_number(subscription)));
}

void stats_subscribe(struct rpc_call *call, struct rpc_params *params)
{
    uint64_t interval_ms = 1000;
    param_count(params, "interval_ms", OPTIONAL, 10, 3600000, &interval_ms);
    if (params_end(params, call))
        rpc_reply_subscription(call, rpc_subscribe_stats(rpc_call_session(call), interval_ms));
}

void events_subscribe(struct rpc_call *call, struct rpc_params *params)
{
    if (params_end(params, call))
        rpc_reply_subscription(call, rpc_subscribe_events(rpc_call_session(call)));
}

void rounds_subscribe(struct rpc_call *call, struct rpc_params *params)
{
    if (params_end(params, call))
        rpc_reply_subscription(call, rpc_subscribe_rounds(rpc_call_session(call)));
}

void unsubscribe(struct rpc_call *call, struct rpc_params *params)
{
    uint64_t number = 0;
    param_count(params, "subscription", REQUIRED, 1, INT64_MAX, &number);
    if (!params_end(params, call))
        return;
    if (rpc_unsubscribe(rpc_call_session(call), number))
        rpc_reply(call, json_object());
    else
        rpc_fail(call, RPC_BAD_PARAMS, json_pack("{s:s}", "param", "subscription"),
                 "this connection has no subscription %llu", (unsigned long long)number);
}
