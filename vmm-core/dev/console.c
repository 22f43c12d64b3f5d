/*
 * Consoles over descriptors; console.h says what is promised.
 *
 * Three byte queues: input (descriptors to guest), output (guest to out_fd) and
 * client output (guest to socket client). Threads of the guest only touch the
 * queues, under the lock, and ring the doorbell; every read, write and accept
 * happens on the device thread, outside the lock, on a piece of a queue that
 * only it can move: it alone takes from the output queues and adds to input.
 *
 * What is watched follows from the queues: a descriptor is watched for input
 * while there is room, for output while there is something to write, and not at
 * all when neither holds, since epoll reports a hang-up whatever it is asked.
 */
#include "vmm-core/dev/console.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define WRITE_BYTES    1024u /* a write that a ready terminal or pipe takes without blocking */
#define LAST_WRITES_MS 200   /* how long console_free waits for a slow reader */

struct byte_queue {
    uint8_t *bytes;
    uint32_t size;       /* power of two */
    uint32_t head, tail; /* taken, added; free running */
};

struct watched_fd {
    int fd;            /* -1: none */
    uint32_t events;   /* watched for; 0: not watched */
    bool always_ready; /* a regular file or the like: epoll refuses it */
};

struct console {
    struct device_thread *thread;
    struct console_config config;
    struct doorbell doorbell;
    pthread_mutex_t lock; /* the three queues, writer_waits, input_was_full */
    struct byte_queue input, output, client_output;
    bool writer_waits; /* console_write refused bytes since output_room was last called */
    bool input_was_full;
    /* device thread only: */
    struct watched_fd in, out, listener, client;
};

/* ---- Byte queues ---- */

static uint32_t queue_used(const struct byte_queue *queue)
{
    return queue->tail - queue->head;
}

static uint32_t queue_room(const struct byte_queue *queue)
{
    return queue->size - queue_used(queue);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t queue_add(struct byte_queue *queue, const uint8_t *bytes, size_t len)
{
    uint32_t count = len < queue_room(queue) ? (uint32_t)len : queue_room(queue);
    for (uint32_t done = 0; done < count;) {
        uint32_t at = queue->tail & (queue->size - 1);
        uint32_t piece = min_u32(count - done, queue->size - at);
        memcpy(queue->bytes + at, bytes + done, piece);
        queue->tail += piece;
        done += piece;
    }
    return count;
}

/* The oldest bytes that lie in one piece. */
static uint32_t queue_peek(const struct byte_queue *queue, const uint8_t **bytes)
{
    uint32_t at = queue->head & (queue->size - 1);
    *bytes = queue->bytes + at;
    return min_u32(queue_used(queue), queue->size - at);
}

static uint32_t queue_take(struct byte_queue *queue, uint8_t *bytes, size_t len)
{
    uint32_t count = len < queue_used(queue) ? (uint32_t)len : queue_used(queue);
    for (uint32_t done = 0; done < count;) {
        const uint8_t *piece;
        uint32_t piece_len = min_u32(queue_peek(queue, &piece), count - done);
        memcpy(bytes + done, piece, piece_len);
        queue->head += piece_len;
        done += piece_len;
    }
    return count;
}

/* ---- The guest's side ---- */

size_t console_write(struct console *console, const void *bytes, size_t len)
{
    pthread_mutex_lock(&console->lock);
    uint32_t taken = queue_add(&console->output, bytes, len);
    if (taken < len)
        console->writer_waits = true;
    pthread_mutex_unlock(&console->lock);
    doorbell_ring(&console->doorbell);
    return taken;
}

size_t console_read(struct console *console, void *bytes, size_t len)
{
    pthread_mutex_lock(&console->lock);
    uint32_t taken = queue_take(&console->input, bytes, len);
    bool resume = taken && console->input_was_full;
    if (resume)
        console->input_was_full = false;
    pthread_mutex_unlock(&console->lock);
    if (resume)
        doorbell_ring(&console->doorbell);
    return taken;
}

size_t console_readable(struct console *console)
{
    pthread_mutex_lock(&console->lock);
    uint32_t used = queue_used(&console->input);
    pthread_mutex_unlock(&console->lock);
    return used;
}

/* ---- The device thread's side ---- */

static void in_event(void *device, uint32_t events);
static void out_event(void *device, uint32_t events);
static void listener_event(void *device, uint32_t events);
static void client_event(void *device, uint32_t events);

static void watch_for(struct console *console, struct watched_fd *watched, uint32_t events,
                      device_event event)
{
    if (watched->fd < 0 || watched->always_ready || events == watched->events)
        return;
    if (!events) {
        device_thread_unwatch(console->thread, watched->fd);
    } else if (watched->events) {
        device_thread_rewatch(console->thread, watched->fd, events);
    } else {
        struct err err = {0};
        if (device_thread_watch(console->thread, watched->fd, events, event, console, &err)) {
            watched->always_ready = err.errnum == EPERM;
            return;
        }
    }
    watched->events = events;
}

static void drop_client(struct console *console)
{
    watch_for(console, &console->client, 0, client_event);
    close(console->client.fd);
    console->client = (struct watched_fd){.fd = -1};
    pthread_mutex_lock(&console->lock);
    console->client_output.head = console->client_output.tail;
    pthread_mutex_unlock(&console->lock);
}

/* Look at the queues and watch what they call for. */
static void watch_by_queues(struct console *console)
{
    pthread_mutex_lock(&console->lock);
    uint32_t want_input = queue_room(&console->input) ? EPOLLIN : 0;
    uint32_t want_output = queue_used(&console->output) ? EPOLLOUT : 0;
    uint32_t want_client = queue_used(&console->client_output) ? EPOLLOUT : 0;
    if (!want_input)
        console->input_was_full = true;
    pthread_mutex_unlock(&console->lock);
    watch_for(console, &console->in, want_input, in_event);
    watch_for(console, &console->out, want_output, out_event);
    watch_for(console, &console->client, want_input | want_client, client_event);
    watch_for(console, &console->listener, console->client.fd < 0 ? EPOLLIN : 0, listener_event);
}

/* Read once from fd into the input queue. 0: end of file or error; 1: go on. */
static int read_input(struct console *console, int fd)
{
    uint8_t bytes[CONSOLE_INPUT_BYTES];
    pthread_mutex_lock(&console->lock);
    uint32_t room = queue_room(&console->input);
    pthread_mutex_unlock(&console->lock);
    if (!room)
        return 1;
    ssize_t got = read(fd, bytes, room);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0)
        return 0;
    pthread_mutex_lock(&console->lock);
    queue_add(&console->input, bytes, (size_t)got);
    pthread_mutex_unlock(&console->lock);
    if (console->config.input_ready)
        console->config.input_ready(console->config.device);
    return 1;
}

/* Copy a piece of output to the client's queue and drop it from the output queue. */
static void output_done(struct console *console, const uint8_t *piece, uint32_t len)
{
    bool too_slow = false, tell_room;
    pthread_mutex_lock(&console->lock);
    if (console->client.fd >= 0)
        too_slow = queue_add(&console->client_output, piece, len) < len;
    console->output.head += len;
    tell_room = console->writer_waits;
    console->writer_waits = false;
    pthread_mutex_unlock(&console->lock);
    if (too_slow)
        drop_client(console);
    if (tell_room && console->config.output_room)
        console->config.output_room(console->config.device);
}

static uint32_t output_piece(struct console *console, struct byte_queue *queue,
                             const uint8_t **piece)
{
    pthread_mutex_lock(&console->lock);
    uint32_t len = queue_peek(queue, piece);
    pthread_mutex_unlock(&console->lock);
    return len;
}

/* Write one piece to out_fd. False: it takes no more now. A descriptor that fails is given up:
 * the guest goes on, its output is discarded. */
static bool write_output(struct console *console)
{
    const uint8_t *piece;
    uint32_t len = output_piece(console, &console->output, &piece);
    if (!len)
        return false;
    ssize_t done = len;
    if (console->out.fd >= 0) {
        len = console->out.always_ready ? len : min_u32(len, WRITE_BYTES);
        done = write(console->out.fd, piece, len);
        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (done <= 0) {
            watch_for(console, &console->out, 0, out_event);
            close(console->out.fd);
            console->out = (struct watched_fd){.fd = -1};
            done = len;
        }
    }
    output_done(console, piece, (uint32_t)done);
    return true;
}

static void write_client(struct console *console)
{
    const uint8_t *piece;
    uint32_t len = output_piece(console, &console->client_output, &piece);
    if (!len)
        return;
    ssize_t done = send(console->client.fd, piece, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (done <= 0) {
        drop_client(console);
        return;
    }
    pthread_mutex_lock(&console->lock);
    console->client_output.head += (uint32_t)done;
    pthread_mutex_unlock(&console->lock);
}

static void in_event(void *device, uint32_t events)
{
    struct console *console = device;
    (void)events;
    if (!read_input(console, console->in.fd)) {
        watch_for(console, &console->in, 0, in_event);
        console->in.fd = -1; /* the caller's to close */
    }
    watch_by_queues(console);
}

static void out_event(void *device, uint32_t events)
{
    struct console *console = device;
    (void)events;
    write_output(console);
    if (console->client.fd >= 0)
        write_client(console);
    watch_by_queues(console);
}

static void listener_event(void *device, uint32_t events)
{
    struct console *console = device;
    (void)events;
    int fd = accept4(console->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        console->client = (struct watched_fd){.fd = fd};
    watch_by_queues(console);
}

static void client_event(void *device, uint32_t events)
{
    struct console *console = device;
    if (events & EPOLLOUT)
        write_client(console);
    if (console->client.fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR) &&
        !read_input(console, console->client.fd))
        drop_client(console);
    watch_by_queues(console);
}

/* The guest wrote, or took input that had filled the queue. */
static void console_answer(void *device)
{
    struct console *console = device;
    watch_by_queues(console); /* finds out what is always ready */
    while (console->out.fd < 0 || console->out.always_ready)
        if (!write_output(console))
            break;
    if (console->client.fd >= 0)
        write_client(console);
    if (console->in.fd >= 0 && console->in.always_ready && !read_input(console, console->in.fd))
        console->in.fd = -1;
    watch_by_queues(console);
}

/* ---- Life ---- */

static int queue_new(struct byte_queue *queue, uint32_t size)
{
    queue->size = size;
    queue->bytes = malloc(size);
    return queue->bytes ? 0 : -1;
}

struct console *console_new(struct device_thread *thread, const struct console_config *config,
                            struct err *err)
{
    struct console *console = calloc(1, sizeof *console);
    if (!console) {
        err_set(err, ENOMEM, "console");
        return NULL;
    }
    console->thread = thread;
    console->config = *config;
    pthread_mutex_init(&console->lock, NULL);
    console->in.fd = config->in_fd;
    console->listener.fd = config->listen_fd;
    console->client.fd = -1;
    /* A descriptor of our own: input and output may be the same one, and each has its watch. */
    console->out.fd = config->out_fd < 0 ? -1 : dup(config->out_fd);
    if (queue_new(&console->input, CONSOLE_INPUT_BYTES) ||
        queue_new(&console->output, CONSOLE_OUTPUT_BYTES) ||
        queue_new(&console->client_output, CONSOLE_OUTPUT_BYTES) ||
        (config->out_fd >= 0 && console->out.fd < 0)) {
        err_set(err, errno, "console");
        console_free(console);
        return NULL;
    }
    if (doorbell_init(&console->doorbell, thread, console_answer, console, err)) {
        console_free(console);
        return NULL;
    }
    watch_by_queues(console);
    if (console->in.always_ready)
        doorbell_ring(&console->doorbell);
    return console;
}

void console_free(struct console *console)
{
    if (!console)
        return;
    int waits_left = LAST_WRITES_MS;
    const uint8_t *piece;
    while (console->out.fd >= 0 && console->output.bytes &&
           output_piece(console, &console->output, &piece)) {
        struct pollfd room = {.fd = console->out.fd, .events = POLLOUT};
        if (poll(&room, 1, 1) == 1)
            write_output(console);
        else if (--waits_left <= 0)
            break;
    }
    if (console->client.fd >= 0) {
        write_client(console);
        if (console->client.fd >= 0)
            drop_client(console);
    }
    watch_for(console, &console->in, 0, in_event);
    watch_for(console, &console->out, 0, out_event);
    watch_for(console, &console->listener, 0, listener_event);
    if (console->out.fd >= 0)
        close(console->out.fd);
    free(console->input.bytes);
    free(console->output.bytes);
    free(console->client_output.bytes);
    pthread_mutex_destroy(&console->lock);
    free(console);
}
