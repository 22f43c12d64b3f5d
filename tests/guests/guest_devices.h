/* The least well-behaved use of each device, to see that it is alive; guest_devices.c. */
#ifndef BALLAST_GUEST_DEVICES_H
#define BALLAST_GUEST_DEVICES_H

#include "tests/guests/guest_virtio.h"

struct device_use {
    const char *name;
    uint32_t device_id;
    unsigned queue; /* one that the device takes chains from without being asked */
    /* With a fresh queue: do one request and check its result. */
    bool (*works)(struct queue *queue);
};

#define DEVICE_USES 4
extern const struct device_use device_uses[DEVICE_USES];

/* Begin anew and do one request; breaks a promise if the device is not there or does not answer. */
void device_must_work(const struct device_use *use);

#endif
