/* Rows of statistics as JSON objects; the names are those of PROTOCOL.md and never change. */
#ifndef BALLAST_RPC_ROWS_H
#define BALLAST_RPC_ROWS_H

#include "daemon/supervisor.h"

#include <jansson.h>

/* NULL: no memory. A member that means nothing now is absent. */
json_t *host_row_json(struct supervisor *supervisor);
json_t *vm_row_json(struct supervisor *supervisor, struct vm *vm);

#endif
