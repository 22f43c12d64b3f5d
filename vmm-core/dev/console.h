/*
 * A console: where the bytes of a UART or virtio console go to and come from.
 *
 * Output goes to out_fd (a log or a terminal) and to the client of the
 * listening socket, if there is one; input comes from in_fd or from that client.
 * Both directions have a bounded buffer in between and lose nothing: a device
 * that finds no room is told when there is some again, and input waits in the
 * descriptor while the guest does not take it. Only a client that does not read
 * for a buffer's length is cut off, since a client must not be able to stop a
 * guest.
 *
 * Threads: console_write and console_read from any thread; the two callbacks run
 * on the device thread, without the console's lock.
 */
#ifndef BALLAST_CONSOLE_H
#define BALLAST_CONSOLE_H

#include "vmm-core/dev/device.h"

#include <stddef.h>

#define CONSOLE_OUTPUT_BYTES 65536u
#define CONSOLE_INPUT_BYTES  4096u

struct console;

struct console_config {
    int in_fd, out_fd, listen_fd; /* each may be -1; owned by the caller */
    void *device;
    void (*input_ready)(void *device); /* console_read has something (again) */
    void (*output_room)(void *device); /* console_write has room again after it had not */
};

/* Watches the descriptors on thread (before it starts). NULL with *err filled on failure. */
struct console *console_new(struct device_thread *thread, const struct console_config *config,
                            struct err *err);
/* After the device thread has stopped: writes what is left (without waiting for long), frees. */
void console_free(struct console *console);

/* Take up to len bytes for output; returns how many were taken (fewer: no room now). Never waits.
 */
size_t console_write(struct console *console, const void *bytes, size_t len);
/* Give up to len bytes of input; 0 when there is none. Never waits. */
size_t console_read(struct console *console, void *bytes, size_t len);
/* Bytes console_read would give now. */
size_t console_readable(struct console *console);

#endif
