/*
 * ballastd: the supervisor as a service. Configuration, event loop, control
 * socket, the notices systemd wants, and an orderly end: SIGTERM and its like ask
 * every worker to quit, remove swap files and exit 0.
 */
#include "daemon/daemon_config.h"
#include "daemon/end_signals.h"
#include "daemon/metrics/metrics.h"
#include "daemon/rpc/rpc.h"
#include "daemon/size_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

struct daemon {
    struct daemon_config config;
    const char *config_path;
    bool check_only, quiet;
    sd_event *event;
    struct supervisor *supervisor;
    struct rpc_server *server;
    struct metrics_server *metrics; /* NULL: not asked for */
};

static void print_usage(void)
{
    fputs("usage: ballastd [--config FILE] [options]\n"
          "\n"
          "  --config FILE      read an INI file first; options override it\n"
          "  --check-config     read the configuration, say whether it is good, and end\n"
          "  --quiet            do not write events to standard error\n"
          "  --version, --help\n"
          "\n"
          "Keys of the file, by section, and options of the same meaning (default):\n",
          stdout);
    daemon_config_describe(stdout);
}

/* 1: go on; 0: done; -1: refused, said in err. */
static int read_option(struct daemon *daemon, const char *option, const char *value, bool *took,
                       struct err *err)
{
    const char *name = option + 2;
    *took = false;
    if (strncmp(option, "--", 2) != 0)
        return err_set(err, 0, "'%.60s' is not an option; see --help", option);
    if (!strcmp(name, "help")) {
        print_usage();
        return 0;
    }
    if (!strcmp(name, "version")) {
        puts("ballastd " BALLAST_VERSION);
        return 0;
    }
    if (!strcmp(name, "check-config")) {
        daemon->check_only = true;
        return 1;
    }
    if (!strcmp(name, "quiet")) {
        daemon->quiet = true;
        return 1;
    }
    *took = true;
    if (!strcmp(name, "config"))
        return 1; /* read already */
    int result = daemon_config_option(&daemon->config, name, value, err);
    return result ? result : err_set(err, 0, "unknown option '%.60s'; see --help", option);
}

static int read_options(struct daemon *daemon, int argc, char **argv, struct err *err)
{
    /* The file first, wherever it is named, so that options override it. */
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--config") != 0)
            continue;
        if (i + 1 == argc)
            return err_set(err, 0, "--config needs a value");
        daemon->config_path = argv[i + 1];
        if (daemon_config_read(&daemon->config, daemon->config_path, err) < 0)
            return -1;
    }
    for (int i = 1; i < argc; i++) {
        bool took;
        int result = read_option(daemon, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &took, err);
        if (result <= 0)
            return result;
        i += took;
    }
    return daemon_config_finish(&daemon->config, err) < 0 ? -1 : 1;
}

static void on_event(void *ctx, const struct supervisor_event *event)
{
    struct daemon *daemon = ctx;
    if (!daemon->quiet)
        fprintf(stderr, "%s%s%s: %s\n", event->vm ? event->vm : "", event->vm ? ": " : "",
                event->kind, event->text);
}

static void on_quit_done(void *ctx, int result, const struct err *err)
{
    (void)result;
    (void)err;
    sd_event_exit(((struct daemon *)ctx)->event, 0);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *how, void *ctx)
{
    (void)source;
    struct daemon *daemon = ctx;
    if (supervisor_quit(daemon->supervisor, on_quit_done, daemon, NULL) < 0)
        return 0; /* asked before */
    fprintf(stderr, "ballastd: signal %u, ending\n", how->ssi_signo);
    sd_notify(0, "STOPPING=1");
    return 0;
}

/* A VM takes about ten descriptors; 256 of them do not fit the usual soft limit of 1024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int start_metrics(struct daemon *daemon, struct err *err)
{
    const struct metrics_config metrics = {
        .socket_path = daemon->config.metrics_socket,
        .group = daemon->config.socket_group,
        .tcp_port = daemon->config.metrics_port,
    };
    if (!metrics.socket_path && !metrics.tcp_port)
        return 0;
    daemon->metrics = metrics_server_new(&metrics, daemon->event, daemon->supervisor, err);
    return daemon->metrics ? 0 : -1;
}

static int start(struct daemon *daemon, struct err *err)
{
    raise_descriptor_limit();
    int result = sd_event_default(&daemon->event);
    if (result < 0)
        return err_set(err, -result, "event loop");
    if ((result = end_signals_watch(daemon->event, on_signal, daemon)) < 0)
        return err_set(err, -result, "signals");
    daemon->supervisor = supervisor_new(&daemon->config.host, daemon->event, err);
    if (!daemon->supervisor)
        return -1;
    if (!supervisor_listen(daemon->supervisor, on_event, daemon))
        return err_set(err, 0, "no memory for events");
    struct rpc_config rpc;
    rpc_config_default(&rpc);
    rpc.socket_path = daemon->config.socket;
    rpc.group = daemon->config.socket_group;
    daemon->server = rpc_server_new(&rpc, daemon->event, daemon->supervisor, err);
    if (!daemon->server)
        return -1;
    if (start_metrics(daemon, err) < 0)
        return -1;
    /* Served under systemd with WatchdogSec: the loop itself answers. */
    sd_event_set_watchdog(daemon->event, 1);
    return 0;
}

/* Legal, since frames cost nothing until a guest touches them, but seldom meant. */
static void warn_of_size(const struct daemon *daemon)
{
    uint64_t here_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    char memory[32], here[32];
    if (daemon->config.host.machine_bytes > here_bytes)
        fprintf(stderr, "ballastd: warning: machine memory of %s is more than this computer's %s\n",
                size_format(daemon->config.host.machine_bytes, memory),
                size_format(here_bytes, here));
}

static int run(struct daemon *daemon, struct err *err)
{
    if (start(daemon, err) < 0)
        return -1;
    warn_of_size(daemon);
    char memory[32];
    fprintf(stderr, "ballastd: machine of %s, control socket %s\n",
            size_format(daemon->config.host.machine_bytes, memory), daemon->config.socket);
    sd_notifyf(0, "READY=1\nSTATUS=machine of %s", memory);
    int result = sd_event_loop(daemon->event);
    return result < 0 ? err_set(err, -result, "event loop") : 0;
}

int main(int argc, char **argv)
{
    static struct daemon daemon;
    struct err err = {0};
    daemon_config_default(&daemon.config);
    int result = read_options(&daemon, argc, argv, &err);
    if (result > 0 && daemon.check_only) {
        printf("%s is good\n", daemon.config_path ? daemon.config_path : "the configuration");
        result = 0;
    } else if (result > 0) {
        result = run(&daemon, &err);
    }
    rpc_server_free(daemon.server);
    metrics_server_free(daemon.metrics);
    supervisor_free(daemon.supervisor);
    sd_event_unref(daemon.event);
    daemon_config_free(&daemon.config);
    if (result < 0)
        fprintf(stderr, "ballastd: %s\n", err.text);
    return result < 0 ? 1 : 0;
}
