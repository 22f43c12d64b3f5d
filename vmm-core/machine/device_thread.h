/*
 * The machine's side of the device thread: its life, and pausing. What devices
 * may do with it (watches, doorbells) is in vmm-core/dev/device.h.
 */
#ifndef BALLAST_DEVICE_THREAD_H
#define BALLAST_DEVICE_THREAD_H

#include "vmm-core/dev/device.h"
#include "vmm-core/machine/pause_gate.h"

/* Makes the loop; nothing runs before device_thread_start. The thread is a member of gate and parks
 * there between two events. NULL with *err filled on failure. */
struct device_thread *device_thread_new(struct pause_gate *gate, struct err *err);
int device_thread_start(struct device_thread *thread, struct err *err);
/* Stop and join (harmless when never started). What an event may be waiting for must have been
 * told to give up before: the gate has ended, gmem is stopped. */
void device_thread_stop(struct device_thread *thread);
void device_thread_free(struct device_thread *thread);

/* Make the loop pass its gate soon; any thread. */
void device_thread_wake(struct device_thread *thread);

#endif
