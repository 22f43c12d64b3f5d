/*
 * The user's terminal as a guest's console, for ballast-vmm. Standard input is
 * put into raw mode, read here, searched for the escape key, and passed to the
 * guest through a pipe; the guest's output comes back through another. Both go
 * through us and not straight to the worker, since the mode of a terminal and
 * the flags of our standard streams belong to us and to our caller's shell.
 *
 * Keys as people know them from QEMU: Ctrl-a x ends, Ctrl-a c switches between
 * console and monitor, Ctrl-a h helps, Ctrl-a Ctrl-a sends Ctrl-a.
 *
 * The terminal's old mode comes back on every way out of the program that a
 * program can see: exit, fatal signals, aborts.
 */
#ifndef BALLAST_TERMINAL_H
#define BALLAST_TERMINAL_H

#include "vmm-core/err.h"

#include <systemd/sd-event.h>

struct terminal;

struct terminal_calls {
    void *ctx;
    void (*quit)(void *ctx);                      /* Ctrl-a x */
    void (*command)(void *ctx, const char *line); /* a line typed at the monitor's prompt */
};

/* Take over standard input and output. *guest_in and *guest_out are the guest's ends: read by it,
 * written by it; close them once the worker has them. NULL with err. */
struct terminal *terminal_new(sd_event *event, const struct terminal_calls *calls, int *guest_in,
                              int *guest_out, struct err *err);

/* Write text to the user, in the monitor's voice: newlines become what a raw terminal needs. */
void terminal_say(struct terminal *terminal, const char *text);
void terminal_prompt(struct terminal *terminal);

/* Write out what the guest has still said, restore the terminal, free. */
void terminal_free(struct terminal *terminal);

#endif
