/*
 * ballastctl console: this terminal on a VM's console.
 *
 * The console is a Unix socket of its own beside the control socket, served by
 * the VM's worker to one client at a time; bytes go through as they are. A
 * terminal is put into raw mode, so that Control-C reaches the guest; Control-]
 * comes back. Without a terminal the end of the input ends the command, once the
 * console has been silent for a second, so that an answer can be read.
 */
#include "daemon/ballastctl/options.h"

#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE_KEY 0x1d /* Control-] */
#define SILENCE_MS 1000

enum { OPT_HVC0 = 1, OPT_RUN_DIR };
static const struct option options[] = {
    {"hvc0", no_argument, NULL, OPT_HVC0},
    {"run-dir", required_argument, NULL, OPT_RUN_DIR},
    {0},
};

static int connect_console(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

/* Carry bytes both ways until the console ends, the escape key, or silence after the input. */
static int carry(int fd, bool terminal)
{
    char bytes[4096];
    int silence_ms = -1; /* for ever, while there may be input */
    struct pollfd ends[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    for (;;) {
        int ready = poll(ends, 2, silence_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0)
            return ctl_fail(CTL_REFUSED, "wait for the console: %s", strerror(errno));
        if (ready == 0)
            return CTL_OK;
        if (ends[1].revents) {
            ssize_t got = read(fd, bytes, sizeof bytes);
            if (got <= 0)
                return got < 0 && errno != ECONNRESET
                           ? ctl_fail(CTL_NO_DAEMON, "console: %s", strerror(errno))
                           : CTL_OK;
            if (!write_all(STDOUT_FILENO, bytes, (size_t)got))
                return ctl_fail(CTL_REFUSED, "write standard output: %s", strerror(errno));
        }
        if (ends[0].revents) {
            ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
            if (got <= 0) {
                ends[0].fd = -1;
                ends[0].revents = 0;
                silence_ms = SILENCE_MS;
                continue;
            }
            char *escape = terminal ? memchr(bytes, ESCAPE_KEY, (size_t)got) : NULL;
            size_t length = escape ? (size_t)(escape - bytes) : (size_t)got;
            if (!write_all(fd, bytes, length))
                return ctl_fail(CTL_NO_DAEMON, "console: %s", strerror(errno));
            if (escape)
                return CTL_OK;
        }
    }
}

/* The VM's folder lies beside the control socket, unless the daemon was told otherwise. */
static char *console_path(const struct ctl *ctl, const char *run_dir, const char *vm, bool hvc0)
{
    char *path = NULL, *socket_path = strdup(ctl->socket_path);
    if (socket_path &&
        asprintf(&path, "%s/vms/%s/%s.sock", run_dir ? run_dir : dirname(socket_path), vm,
                 hvc0 ? "hvc0" : "serial") < 0)
        path = NULL;
    free(socket_path);
    return path;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    const char *run_dir = NULL;
    bool hvc0 = false;
    int option, status;
    while ((option = options_next(argc, argv, options, NULL)) > 0) {
        if (option == OPT_HVC0)
            hvc0 = true;
        else
            run_dir = optarg;
    }
    if (option == 0)
        return CTL_USAGE;
    if ((status = options_end(argc, argv, 1, 1)) != CTL_OK)
        return status;
    if (strchr(argv[optind], '/'))
        return ctl_usage("console", "'%s' is not a VM's name", argv[optind]);
    char *path = console_path(ctl, run_dir, argv[optind], hvc0);
    int fd = path ? connect_console(path) : -1;
    if (fd < 0) {
        status = ctl_fail(CTL_NO_DAEMON, "console of VM %s at %s: %s", argv[optind],
                          path ? path : "?", strerror(errno));
        free(path);
        return status;
    }
    free(path);
    struct termios before, raw;
    bool terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &before) == 0;
    if (terminal) {
        fprintf(stderr, "ballastctl: console of %s; Control-] leaves\n", argv[optind]);
        raw = before;
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    status = carry(fd, terminal);
    if (terminal)
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
    close(fd);
    return status;
}

const struct command command_console = {
    .name = "console",
    .arguments = "VM [--hvc0] [--run-dir DIR]",
    .summary = "this terminal on a virtual machine's serial console",
    .details = "  --hvc0         its virtio console instead\n"
               "  --run-dir DIR  where the daemon keeps its files; default: the folder of its\n"
               "                 socket\n"
               "\n"
               "Control-] leaves. One client at a time. Without a terminal the command ends\n"
               "with its input, after a second without output.\n",
    .run = run,
};
