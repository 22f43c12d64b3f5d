/*
 * Statistics for Prometheus and everything that reads its format: the text
 * itself, and a small HTTP server for it. Names and meanings are in METRICS.md
 * beside this file and never change; they follow Prometheus' conventions (base
 * units, _total for counts), while the control socket keeps pages and ns.
 */
#ifndef BALLAST_METRICS_H
#define BALLAST_METRICS_H

#include "daemon/rpc/json_text.h"
#include "vmm-core/err.h"

#include <stdint.h>
#include <systemd/sd-event.h>

struct supervisor;

enum metrics_format {
    METRICS_PROMETHEUS,  /* text format 0.0.4 */
    METRICS_OPENMETRICS, /* 1.0.0 */
};

/* What to say in Content-Type. */
const char *metrics_content_type(enum metrics_format format);

/* The format that an HTTP Accept header prefers; NULL: none was sent. */
enum metrics_format metrics_choose_format(const char *accept);

/* Everything known now, appended; a statistic that means nothing now is absent, and so are HELP and
 * TYPE of a metric without any. Without memory the text is failed. */
void metrics_write(struct json_text *text, struct supervisor *supervisor,
                   enum metrics_format format);

struct metrics_config {
    const char *socket_path; /* a Unix socket of mode 0660; NULL: none */
    const char *group;       /* whose the socket is; NULL: ours */
    uint32_t tcp_port;       /* on 127.0.0.1, readable by everyone on this host; 0: none */
};

struct metrics_server;

/* Serve GET /metrics. On the thread of the event loop; nothing waits for a reader. NULL with err.
 */
struct metrics_server *metrics_server_new(const struct metrics_config *config, sd_event *event,
                                          struct supervisor *supervisor, struct err *err);
/* Before supervisor_free. */
void metrics_server_free(struct metrics_server *server);

#endif
