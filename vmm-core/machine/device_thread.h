/*
 * The machine's side of the device thread: its life, and pausing. What devices
 * may do with it (watches, doorbells) is in vmm-core/dev/device.h.
 */
#ifndef BALLAST_DEVICE_THREAD_H
#define BALLAST_DEVICE_THREAD_H

#include "vmm-core/dev/device.h"

/* Makes the loop; nothing runs before device_thread_start. NULL with *err filled on failure. */
struct device_thread *device_thread_new(struct err *err);
int device_thread_start(struct device_thread *thread, struct err *err);
/* Stop and join (harmless when never started). What an event may be waiting for must have been
 * told to give up before (gmem_stop). */
void device_thread_stop(struct device_thread *thread);
void device_thread_free(struct device_thread *thread);

/* Ask the loop to park between two events, or to go on; returns at once, any thread. */
void device_thread_want_pause(struct device_thread *thread, bool paused);
/* Is it parked now (or not running)? While a pause is wanted, yes stays yes. */
bool device_thread_parked(struct device_thread *thread);

#endif
