/*
 * The signals that ask a program with an event loop to end: SIGTERM, SIGINT,
 * SIGHUP and SIGQUIT. SIGPIPE is ignored: a peer that has gone is an error of its
 * write.
 */
#ifndef BALLAST_END_SIGNALS_H
#define BALLAST_END_SIGNALS_H

#include <systemd/sd-event.h>

/* Block them in this thread, before others start, and hand each to handler in the loop. 0, or a
 * negative errno. */
int end_signals_watch(sd_event *event, sd_event_signal_handler_t handler, void *ctx);

#endif
