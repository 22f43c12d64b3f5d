#include "daemon/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#define ESCAPE_KEY   1 /* Ctrl-a */
#define INPUT_BYTES  256
#define OUTPUT_BYTES 16384
#define LINE_BYTES   160
#define BACKSPACE    8
#define DELETE       127
#define PROMPT       "(ballast) "

struct terminal {
    struct terminal_calls calls;
    int to_guest, from_guest;
    sd_event_source *input_source, *room_source, *output_source;
    bool escaped; /* the last key was the escape key */
    bool monitor; /* keys go to the monitor, not to the guest */
    char line[LINE_BYTES];
    size_t line_bytes;
    char pending[2 * INPUT_BYTES]; /* for the guest, not yet taken by its pipe */
    size_t pending_bytes;
};

/* The one thing that must outlive every crash; written once before raw mode is entered. */
static struct termios saved_mode;
static volatile sig_atomic_t mode_is_saved;

/* async-signal-safe */
static void restore_mode(void)
{
    if (mode_is_saved) {
        mode_is_saved = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &saved_mode);
    }
}

static void on_fatal_signal(int signal)
{
    restore_mode();
    raise(signal); /* SA_RESETHAND: the default action now */
}

static int raw_mode(struct err *err)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    if (!isatty(STDIN_FILENO))
        return 0;
    if (tcgetattr(STDIN_FILENO, &saved_mode) < 0)
        return err_set(err, errno, "terminal mode");
    mode_is_saved = 1;
    atexit(restore_mode);
    struct sigaction action = {.sa_handler = on_fatal_signal, .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &action, NULL);
    struct termios raw = saved_mode;
    cfmakeraw(&raw);
    raw.c_oflag = saved_mode.c_oflag; /* our own messages keep their newlines */
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
        return err_set(err, errno, "terminal raw mode");
    return 0;
}

static char last_written = '\n'; /* to the user, the last of it */

static void write_all(const char *text, size_t bytes)
{
    if (bytes)
        last_written = text[bytes - 1];
    while (bytes) {
        ssize_t done = write(STDOUT_FILENO, text, bytes);
        if (done < 0 && errno == EAGAIN) { /* somebody made our output non-blocking */
            usleep(1000);
            continue;
        }
        if (done < 0 && errno != EINTR)
            return; /* nobody reads us; the guest goes on */
        if (done > 0) {
            text += done;
            bytes -= (size_t)done;
        }
    }
}

void terminal_say(struct terminal *terminal, const char *text)
{
    (void)terminal;
    write_all(text, strlen(text));
}

void terminal_prompt(struct terminal *terminal)
{
    if (terminal->monitor)
        terminal_say(terminal, PROMPT);
}

/* ---- guest to user ---- */

/* Copy what there is; false at the end of it. */
static bool copy_output(struct terminal *terminal)
{
    char text[OUTPUT_BYTES];
    ssize_t bytes = read(terminal->from_guest, text, sizeof text);
    if (bytes > 0)
        write_all(text, (size_t)bytes);
    return bytes > 0 || (bytes < 0 && errno == EINTR);
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)fd;
    if (!copy_output(ctx) && (events & (EPOLLHUP | EPOLLERR)))
        sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

/* ---- user to guest ---- */

static void flush_pending(struct terminal *terminal)
{
    while (terminal->pending_bytes) {
        ssize_t done = write(terminal->to_guest, terminal->pending, terminal->pending_bytes);
        if (done <= 0) {
            if (done < 0 && errno == EINTR)
                continue;
            if (done < 0 && errno != EAGAIN)
                terminal->pending_bytes = 0; /* the worker is gone */
            break;
        }
        terminal->pending_bytes -= (size_t)done;
        memmove(terminal->pending, terminal->pending + done, terminal->pending_bytes);
    }
    /* Either wait for room, or for more keys; never both, so that pending stays bounded. */
    bool full = terminal->pending_bytes > 0;
    sd_event_source_set_enabled(terminal->room_source, full ? SD_EVENT_ON : SD_EVENT_OFF);
    if (terminal->input_source)
        sd_event_source_set_enabled(terminal->input_source, full ? SD_EVENT_OFF : SD_EVENT_ON);
}

static void to_guest(struct terminal *terminal, char key)
{
    if (terminal->pending_bytes < sizeof terminal->pending)
        terminal->pending[terminal->pending_bytes++] = key;
}

static void to_monitor(struct terminal *terminal, char key)
{
    if (key == '\r' || key == '\n') {
        terminal_say(terminal, "\r\n");
        terminal->line[terminal->line_bytes] = 0;
        terminal->line_bytes = 0;
        terminal->calls.command(terminal->calls.ctx, terminal->line);
    } else if (key == BACKSPACE || key == DELETE) {
        if (terminal->line_bytes) {
            terminal->line_bytes--;
            terminal_say(terminal, "\b \b");
        }
    } else if (key >= ' ' && terminal->line_bytes + 1 < LINE_BYTES) {
        terminal->line[terminal->line_bytes++] = key;
        write_all(&key, 1);
    }
}

static void on_escaped(struct terminal *terminal, char key)
{
    switch (key) {
    case 'x':
        terminal->calls.quit(terminal->calls.ctx);
        break;
    case 'c':
        terminal->monitor = !terminal->monitor;
        terminal->line_bytes = 0;
        terminal_say(terminal, "\r\n");
        terminal_prompt(terminal);
        break;
    case 'h':
    case '?':
        terminal_say(terminal, "\r\n"
                               "Ctrl-a h       this help\r\n"
                               "Ctrl-a x       end ballast-vmm\r\n"
                               "Ctrl-a c       switch between console and monitor\r\n"
                               "Ctrl-a Ctrl-a  send Ctrl-a\r\n");
        break;
    case ESCAPE_KEY:
        to_guest(terminal, key);
        break;
    default:
        break;
    }
}

static void on_key(struct terminal *terminal, char key)
{
    if (terminal->escaped) {
        terminal->escaped = false;
        on_escaped(terminal, key);
    } else if (key == ESCAPE_KEY) {
        terminal->escaped = true;
    } else if (terminal->monitor) {
        to_monitor(terminal, key);
    } else {
        to_guest(terminal, key);
    }
}

static void read_keys(struct terminal *terminal)
{
    char keys[INPUT_BYTES];
    ssize_t bytes = read(STDIN_FILENO, keys, sizeof keys);
    if (bytes < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (bytes <= 0) { /* end of input; the guest goes on without */
        terminal->input_source = sd_event_source_disable_unref(terminal->input_source);
        return;
    }
    for (ssize_t i = 0; i < bytes; i++)
        on_key(terminal, keys[i]);
    flush_pending(terminal);
}

static int on_input(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)source;
    (void)fd;
    (void)events;
    read_keys(ctx);
    return 0;
}

/* Standard input is a file: it is always ready. */
static int on_file_input(sd_event_source *source, void *ctx)
{
    (void)source;
    read_keys(ctx);
    return 0;
}

static int on_room(sd_event_source *source, int fd, uint32_t events, void *ctx)
{
    (void)source;
    (void)fd;
    (void)events;
    flush_pending(ctx);
    return 0;
}

/* ---- birth and end ---- */

static int add_sources(struct terminal *terminal, sd_event *event, struct err *err)
{
    int result = sd_event_add_io(event, &terminal->output_source, terminal->from_guest, EPOLLIN,
                                 on_output, terminal);
    if (result >= 0)
        result = sd_event_add_io(event, &terminal->room_source, terminal->to_guest, EPOLLOUT,
                                 on_room, terminal);
    if (result < 0)
        return err_set(err, -result, "terminal");
    sd_event_source_set_enabled(terminal->room_source, SD_EVENT_OFF);
    result =
        sd_event_add_io(event, &terminal->input_source, STDIN_FILENO, EPOLLIN, on_input, terminal);
    if (result == -EPERM) {
        result = sd_event_add_defer(event, &terminal->input_source, on_file_input, terminal);
        if (result >= 0)
            sd_event_source_set_enabled(terminal->input_source, SD_EVENT_ON);
    }
    if (result == -EBADF) /* started without standard input */
        result = 0;
    return result < 0 ? err_set(err, -result, "standard input") : 0;
}

struct terminal *terminal_new(sd_event *event, const struct terminal_calls *calls, int *guest_in,
                              int *guest_out, struct err *err)
{
    struct terminal *terminal = calloc(1, sizeof *terminal);
    int keys[2] = {-1, -1}, words[2] = {-1, -1};
    if (!terminal || pipe2(keys, O_CLOEXEC) < 0 || pipe2(words, O_CLOEXEC) < 0) {
        err_set(err, errno, "terminal");
        if (keys[0] >= 0) {
            close(keys[0]);
            close(keys[1]);
        }
        free(terminal);
        return NULL;
    }
    terminal->calls = *calls;
    terminal->to_guest = keys[1];
    terminal->from_guest = words[0];
    fcntl(terminal->to_guest, F_SETFL, O_NONBLOCK);
    fcntl(terminal->from_guest, F_SETFL, O_NONBLOCK);
    if (add_sources(terminal, event, err) < 0 || raw_mode(err) < 0) {
        close(keys[0]);
        close(words[1]);
        terminal_free(terminal);
        return NULL;
    }
    *guest_in = keys[0];
    *guest_out = words[1];
    return terminal;
}

void terminal_free(struct terminal *terminal)
{
    if (!terminal)
        return;
    while (copy_output(terminal))
        ;
    if (isatty(STDOUT_FILENO) && last_written != '\n') /* what comes next begins a line */
        write_all("\n", 1);
    restore_mode();
    sd_event_source_disable_unref(terminal->input_source);
    sd_event_source_disable_unref(terminal->room_source);
    sd_event_source_disable_unref(terminal->output_source);
    close(terminal->to_guest);
    close(terminal->from_guest);
    free(terminal);
}
