/*
 * balloon-driver/balloon_core.c over real virtio queues: the device's half of its
 * platform. Which pages go and what becomes of those that come back is the guest's
 * own, as are its notes.
 */
#ifndef BALLAST_GUEST_BALLOON_H
#define BALLAST_GUEST_BALLOON_H

#include "balloon-driver/balloon_core.h"
#include "tests/guests/guest_virtio.h"

struct guest_balloon {
    struct balloon core;
    struct driver driver;
    struct queue inflate, deflate;
    unsigned answer_ms; /* how long the host may take for an answer; for the guest to set */
};

/* A driver that was found begins: an empty balloon, features negotiated (MUST_TELL_HOST is added),
 * its two queues there. own has take_page, free_page, take_notes and free_notes; the rest of it is
 * not read. Other queues, driver_ready and balloon_start are left to the guest. False: refused. */
bool guest_balloon_begin(struct guest_balloon *balloon, const struct balloon_platform *own,
                         uint64_t features);

#endif
