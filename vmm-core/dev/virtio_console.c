/*
 * The console device (virtio 1.2, 5.3), one port. Where bytes go to and come from
 * is console.h's business; here they pass between its two bounded buffers and the
 * two queues.
 *
 * Output that finds no room keeps its chain, and the driver, which may spin until
 * it comes back, waits with it. A terminal that has been stopped must not hold the guest for
 * ever: after STALL_S seconds without room, output is dropped until there is
 * room again. Input waits in the console until the driver offers a buffer.
 */
#include "vmm-core/dev/console.h"
#include "vmm-core/dev/virtio_devices.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define QUEUE_SIZE 64u
#define STALL_S    1

struct virtio_console {
    struct virtio_device device;
    struct console *console;
    int stall_fd;         /* timer: no room for STALL_S */
    bool output_held;     /* `output` is not written in full */
    bool stalled;         /* there was no room, the timer runs or has expired */
    bool dropping;        /* it has expired */
    uint64_t output_done; /* bytes of it that are */
    struct virtq_chain output, input;
};

static void set_stalled(struct virtio_console *port, bool stalled)
{
    const struct itimerspec when = {.it_value.tv_sec = stalled ? STALL_S : 0};
    if (port->stalled == stalled)
        return;
    port->stalled = stalled;
    port->dropping = false;
    timerfd_settime(port->stall_fd, 0, &when, NULL);
}

/* Pass on what is left of the chain in hand. False: no room now, output_room or the timer will call
 * again. */
static bool pass_output(struct virtio_console *port)
{
    struct virtq *queue = &port->device.queues[CONSOLE_QUEUE_OUTPUT];
    uint8_t bytes[512];
    while (port->output_done < port->output.readable_bytes) {
        if (virtio_stopping(&port->device))
            return false;
        uint64_t left = port->output.readable_bytes - port->output_done;
        size_t len = left < sizeof bytes ? left : sizeof bytes;
        if (!virtq_read(queue, &port->output, port->output_done, bytes, len))
            return false;
        size_t taken = console_write(port->console, bytes, len);
        port->output_done += taken;
        if (taken == len)
            continue;
        set_stalled(port, true);
        if (!port->dropping)
            return false;
        port->output_done = port->output.readable_bytes;
    }
    return true;
}

static void output_queue(struct virtio_console *port)
{
    struct virtio_device *device = &port->device;
    while (!virtio_stopping(device)) {
        if (!port->output_held) {
            if (!virtio_take(device, CONSOLE_QUEUE_OUTPUT, &port->output))
                return;
            if (port->output.writable) {
                virtio_driver_error(device, "console output buffer is not one to be read");
                return;
            }
            port->output_held = true;
            port->output_done = 0;
        }
        if (!pass_output(port))
            return;
        port->output_held = false;
        virtio_give(device, CONSOLE_QUEUE_OUTPUT, &port->output, 0);
    }
}

static void input_queue(struct virtio_console *port)
{
    struct virtio_device *device = &port->device;
    uint8_t bytes[512];
    while (!virtio_stopping(device) && console_readable(port->console) > 0 &&
           virtio_take(device, CONSOLE_QUEUE_INPUT, &port->input)) {
        if (port->input.readable) {
            virtio_driver_error(device, "console input buffer is not one to be written");
            return;
        }
        size_t room =
            port->input.writable_bytes < sizeof bytes ? port->input.writable_bytes : sizeof bytes;
        size_t len = console_read(port->console, bytes, room);
        if (!virtq_write(&device->queues[CONSOLE_QUEUE_INPUT], &port->input, 0, bytes, len))
            len = 0;
        virtio_give(device, CONSOLE_QUEUE_INPUT, &port->input, (uint32_t)len);
    }
}

static void console_queue(struct virtio_device *device, unsigned index)
{
    struct virtio_console *port = (struct virtio_console *)device;
    if (index == CONSOLE_QUEUE_OUTPUT)
        output_queue(port);
    else
        input_queue(port);
}

static void console_stop(struct virtio_device *device)
{
    struct virtio_console *port = (struct virtio_console *)device;
    port->output_held = false;
    set_stalled(port, false);
}

static void input_ready(void *opaque)
{
    virtio_kick(opaque, CONSOLE_QUEUE_INPUT);
}

static void output_room(void *opaque)
{
    set_stalled(opaque, false);
    virtio_kick(opaque, CONSOLE_QUEUE_OUTPUT);
}

static void stall_timer(void *opaque, uint32_t events)
{
    struct virtio_console *port = opaque;
    uint64_t expirations;
    (void)events;
    if (read(port->stall_fd, &expirations, sizeof expirations) != sizeof expirations)
        return;
    port->dropping = port->stalled;
    virtio_kick(&port->device, CONSOLE_QUEUE_OUTPUT);
}

static void console_device_free(struct virtio_device *device)
{
    struct virtio_console *port = (struct virtio_console *)device;
    if (port->console)
        console_free(port->console);
    if (port->stall_fd >= 0)
        close(port->stall_fd);
    free(port);
}

static const struct virtio_ops console_ops = {
    .name = "console",
    .device_id = VIRTIO_ID_CONSOLE,
    .queue_count = 2,
    .queue_size = QUEUE_SIZE,
    .queue = console_queue,
    .stop = console_stop,
    .free = console_device_free,
};

struct virtio_device *virtio_console_new(const struct virtio_env *env, int in_fd, int out_fd,
                                         int listen_fd, struct err *err)
{
    struct virtio_console *port = calloc(1, sizeof *port);
    if (!port) {
        err_set(err, ENOMEM, "virtio console");
        return NULL;
    }
    const struct console_config config = {
        .in_fd = in_fd,
        .out_fd = out_fd,
        .listen_fd = listen_fd,
        .device = port,
        .input_ready = input_ready,
        .output_room = output_room,
    };
    port->stall_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (port->stall_fd < 0) {
        err_set(err, errno, "virtio console: timer");
        goto fail;
    }
    if (virtio_device_init(&port->device, &console_ops, env, 0, err) < 0 ||
        device_thread_watch(env->thread, port->stall_fd, EPOLLIN, stall_timer, port, err) < 0)
        goto fail;
    port->console = console_new(env->thread, &config, err);
    if (!port->console)
        goto fail;
    const struct virtio_console_config space = {.max_ports = 1};
    virtio_config_init(&port->device, &space, sizeof space, 0, 0);
    return &port->device;
fail:
    console_device_free(&port->device);
    return NULL;
}
