/*
 * What streams of statistics cost: rows of 1,000 VMs ten times a second to four
 * readers, under 20 % of a core, and a fifth subscriber that does not read at all.
 * The server is the real one, on a thread of its own whose CPU time is the
 * figure; the rows are as long as those of VMs that have worked for days.
 */
#include "daemon/rpc/rpc.h"
#include "tests/control/fake_supervisor.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define VMS         1000
#define READERS     4
#define WARM_UP_S   1
#define MEASURED_S  5
#define READ_BYTES  ((size_t)1 << 20)
#define SOCKET_NAME "ctl.sock"

static uint64_t now_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ---- the server ---- */

struct server {
    const char *socket_path;
    int stop_fd;  /* written to end it */
    int ready_fd; /* it writes when it listens, or has failed */
    bool failed;
};

static int told_to_stop(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)fd, (void)events, (void)ctx;
    return sd_event_exit(sd_event_source_get_event(source), 0);
}

static void *serve(void *ctx)
{
    struct server *server = ctx;
    struct supervisor_config host;
    struct rpc_config config;
    struct err err = {0};
    sd_event *event = NULL;
    supervisor_config_default(&host);
    rpc_config_default(&config);
    config.socket_path = server->socket_path;
    if (sd_event_new(&event) < 0)
        exit(2);
    struct supervisor *supervisor = supervisor_new(&host, event, &err);
    for (int i = 0; supervisor && i < VMS; i++) {
        char name[VM_NAME_BYTES];
        struct vm_settings settings;
        vm_settings_default(&settings);
        snprintf(name, sizeof name, "busy-%04d", i);
        settings.name = name;
        settings.memory_bytes = UINT64_C(4) << 30;
        supervisor_create_vm(supervisor, &settings, &err);
    }
    struct rpc_server *rpc = supervisor ? rpc_server_new(&config, event, supervisor, &err) : NULL;
    server->failed = !rpc;
    sd_event_add_io(event, NULL, server->stop_fd, EPOLLIN, told_to_stop, NULL);
    eventfd_write(server->ready_fd, 1);
    if (rpc)
        sd_event_loop(event);
    else
        fprintf(stderr, "stream_bench: %s\n", err.text);
    rpc_server_free(rpc);
    if (supervisor)
        supervisor_free(supervisor);
    sd_event_unref(event);
    return NULL;
}

/* ---- readers ---- */

struct reader {
    pthread_t thread;
    int fd;
    _Atomic uint64_t rows, bytes;
    bool lost; /* a row said that others were lost */
};

static int subscribe(const char *socket_path)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stats.subscribe\","
                                  "\"params\":{\"interval_ms\":100}}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1) {
        fprintf(stderr, "stream_bench: subscribe: %s\n", strerror(errno));
        exit(1);
    }
    return fd;
}

/* Count lines until the connection is shut down. "lost" stands before any row of a line. */
static void *read_rows(void *ctx)
{
    struct reader *reader = ctx;
    char *bytes = malloc(READ_BYTES);
    ssize_t got;
    while (bytes && (got = recv(reader->fd, bytes, READ_BYTES, 0)) > 0) {
        for (char *at = bytes; (at = memchr(at, '\n', (size_t)(bytes + got - at))); at++)
            reader->rows++;
        reader->bytes += (uint64_t)got;
        reader->lost |= memmem(bytes, (size_t)got, "\"lost\":", 7) != NULL;
    }
    free(bytes);
    return NULL;
}

/* ---- the figures ---- */

static void measure(pthread_t server, struct reader readers[READERS])
{
    clockid_t server_clock;
    uint64_t rows = 0, bytes = 0;
    bool lost = false;
    pthread_getcpuclockid(server, &server_clock);
    sleep(WARM_UP_S);
    for (int i = 0; i < READERS; i++)
        readers[i].rows = readers[i].bytes = 0;
    uint64_t cpu_ns = now_ns(server_clock), wall_ns = now_ns(CLOCK_MONOTONIC);
    sleep(MEASURED_S);
    cpu_ns = now_ns(server_clock) - cpu_ns;
    wall_ns = now_ns(CLOCK_MONOTONIC) - wall_ns;
    for (int i = 0; i < READERS; i++) {
        rows += readers[i].rows;
        bytes += readers[i].bytes;
        lost |= readers[i].lost;
    }
    double seconds = (double)wall_ns / 1e9;
    printf("{\"name\": \"statistics of %d VMs, 10 Hz, %d readers and one that does not read\", "
           "\"value\": %.1f, \"unit\": \"%% of a core\", \"peer\": null, \"peer_value\": null, "
           "\"ratio\": null, \"bar\": 20}\n",
           VMS, READERS, 100.0 * (double)cpu_ns / (double)wall_ns);
    printf(
        "{\"name\": \"rows a second and reader, %.2f MB each%s\", \"value\": %.1f, "
        "\"unit\": \"Hz\", \"peer\": null, \"peer_value\": null, \"ratio\": null, \"bar\": 10}\n",
        rows ? (double)bytes / (double)rows / 1e6 : 0.0, lost ? ", SOME LOST" : "",
        (double)rows / READERS / seconds);
}

/* The reader that did not read wakes up: the first row that says so tells how many it lost. */
static void wake_up(int fd)
{
    const struct timeval patience = {.tv_sec = 5};
    char *line = NULL;
    size_t capacity = 0;
    unsigned long lost = 0;
    FILE *file = fdopen(fd, "r");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    while (file && !lost && getline(&line, &capacity, file) > 0) {
        const char *told = strstr(line, "\"lost\":");
        lost = told ? strtoul(told + 7, NULL, 10) : 0;
    }
    printf("{\"name\": \"rows that the one that did not read is told it lost\", \"value\": %lu, "
           "\"unit\": \"rows\", \"peer\": null, \"peer_value\": null, \"ratio\": null, "
           "\"bar\": null}\n",
           lost);
    free(line);
    if (file)
        fclose(file);
}

int main(void)
{
    char folder[] = "/tmp/ballast-stream-XXXXXX", path[64];
    struct server server = {.stop_fd = eventfd(0, EFD_CLOEXEC),
                            .ready_fd = eventfd(0, EFD_CLOEXEC)};
    struct reader readers[READERS] = {0};
    pthread_t thread;
    eventfd_t ready;
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/" SOCKET_NAME, folder);
    server.socket_path = path;
    if (pthread_create(&thread, NULL, serve, &server) != 0)
        return 1;
    eventfd_read(server.ready_fd, &ready);
    if (!server.failed) {
        int deaf_fd = subscribe(path);
        for (int i = 0; i < READERS; i++) {
            readers[i].fd = subscribe(path);
            pthread_create(&readers[i].thread, NULL, read_rows, &readers[i]);
        }
        measure(thread, readers);
        for (int i = 0; i < READERS; i++) {
            shutdown(readers[i].fd, SHUT_RDWR);
            pthread_join(readers[i].thread, NULL);
            close(readers[i].fd);
        }
        wake_up(deaf_fd);
        eventfd_write(server.stop_fd, 1);
    }
    pthread_join(thread, NULL);
    rmdir(folder);
    return server.failed;
}
