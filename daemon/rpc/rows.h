/*
 * Rows of statistics as JSON; the names are those of PROTOCOL.md and never
 * change. Each stands once, in a table of rows.c, together with where its value
 * is and when it means something: a member that means nothing now is absent.
 */
#ifndef BALLAST_RPC_ROWS_H
#define BALLAST_RPC_ROWS_H

#include "daemon/rpc/json_text.h"
#include "daemon/supervisor.h"

#include <jansson.h>

/* NULL: no memory. */
json_t *host_row_json(struct supervisor *supervisor);
json_t *vm_row_json(struct supervisor *supervisor, struct vm *vm);

/* A decision as it is told and explained: PROTOCOL.md, decisions. */
json_t *decision_json(const char *vm, const struct decision *decision);

/* The whole of a stream's row: {"time_ns":..,"host":{..},"vms":[..]}; host is without its own
 * time_ns. */
void rows_write(struct json_text *text, struct supervisor *supervisor);

#endif
