/* Every method, by topic; each is described in PROTOCOL.md. Private to daemon/rpc. */
#ifndef BALLAST_RPC_METHODS_H
#define BALLAST_RPC_METHODS_H

#include "daemon/rpc/session.h"

struct vm;

/* The VM that the member "vm" of a call names; NULL: the call has been answered. For the last
 * reader of a method: it ends the params. */
struct vm *rpc_named_vm(struct rpc_call *call, struct rpc_params *params);

/* Answer with a new subscription's number, or with an error if there is none. */
void rpc_reply_subscription(struct rpc_call *call, const struct rpc_subscription *subscription);

/* host_methods.c */
rpc_method_fn host_version, host_stats, host_metrics, host_policies, host_set, host_check;

/* policy_methods.c */
rpc_method_fn policy_attach, policy_targets, policy_detach;

/* vm_methods.c */
rpc_method_fn vm_list, vm_stats, vm_pause, vm_resume, vm_destroy, vm_set, vm_set_target;
/* The VM that param vm names, or NULL with the call answered; the last reader, instead of
 * params_end. */
struct vm *rpc_named_vm(struct rpc_call *call, struct rpc_params *params);

/* vm_create.c */
rpc_method_fn vm_create;

/* sharing_methods.c */
rpc_method_fn sharing_stats, sharing_pairs, sharing_frame, sharing_page, sharing_breaks;

/* decision_methods.c */
rpc_method_fn decisions_explain, decisions_subscribe;

/* stream_methods.c */
rpc_method_fn stats_subscribe, events_subscribe, rounds_subscribe, unsubscribe;

#endif
