/*
 * The control socket over the fake supervisor: rpc-test-server SOCKET
 * [OUTPUT-BYTES [LINE-BYTES [CLIENTS [GROUP [METRICS-SOCKET PORT]]]]]. Prints "ready" when it
 * listens; ends at the end of its standard input.
 */
#include "daemon/metrics/metrics.h"
#include "daemon/rpc/rpc.h"
#include "tests/control/fake_supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

static int input_ended(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)fd, (void)events, (void)ctx;
    return sd_event_exit(sd_event_source_get_event(source), 0);
}

int main(int argc, char **argv)
{
    struct rpc_config config;
    struct supervisor_config host;
    struct err err;
    sd_event *event;
    rpc_config_default(&config);
    supervisor_config_default(&host);
    if (argc < 2 || sd_event_default(&event) < 0)
        return 2;
    config.socket_path = argv[1];
    config.socket_mode = 0666;
    config.output_bytes_max = argc > 2 ? strtoull(argv[2], NULL, 0) : config.output_bytes_max;
    config.line_bytes_max = argc > 3 ? strtoull(argv[3], NULL, 0) : config.line_bytes_max;
    config.max_clients = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 0) : config.max_clients;
    config.group = argc > 5 && argv[5][0] ? argv[5] : NULL;
    struct supervisor *supervisor = supervisor_new(&host, event, &err);
    struct rpc_server *server =
        supervisor ? rpc_server_new(&config, event, supervisor, &err) : NULL;
    struct metrics_config metrics_config = {0};
    if (argc > 7) {
        metrics_config.socket_path = argv[6];
        metrics_config.tcp_port = (uint32_t)strtoul(argv[7], NULL, 0);
    }
    struct metrics_server *metrics =
        server ? metrics_server_new(&metrics_config, event, supervisor, &err) : NULL;
    if (!metrics) {
        fprintf(stderr, "rpc-test-server: %s\n", err.text);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    sd_event_add_io(event, NULL, 0, EPOLLIN | EPOLLHUP, input_ended, NULL);
    int status = sd_event_loop(event);
    metrics_server_free(metrics);
    rpc_server_free(server);
    supervisor_free(supervisor);
    sd_event_unref(event);
    return status;
}
