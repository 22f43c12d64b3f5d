/* Rounds of the policy as JSON, by the tables of policy/round_fields.h. */
#ifndef BALLAST_RPC_ROUNDS_H
#define BALLAST_RPC_ROUNDS_H

#include "daemon/rpc/json_text.h"
#include "daemon/supervisor.h"

/* What an external policy is asked: {"round":..,"deadline_ms":..,..,"vms":[..]}, with rows as in
 * a round. */
void question_write(struct json_text *text, const struct policy_question *question);

/* The whole round: {"time_ns":..,"policy":..,..,"vms":[..]}, as PROTOCOL.md says. */
void round_write(struct json_text *text, const struct supervisor_round *round);

#endif
