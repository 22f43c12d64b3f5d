/*
 * The virtio devices of a machine, one constructor each. A constructor returns
 * NULL with *err filled on failure; virtio_attach puts what it made on the bus,
 * virtio_device_free ends it after the device thread has stopped.
 */
#ifndef BALLAST_VIRTIO_DEVICES_H
#define BALLAST_VIRTIO_DEVICES_H

#include "vmm-core/dev/virtio.h"

/* Console (5.3) of one port: descriptors as in struct console_config (console.h); -1: none. */
struct virtio_device *virtio_console_new(const struct virtio_env *env, int in_fd, int out_fd,
                                         int listen_fd, struct err *err);

/* Block device (5.2) over a raw image file or a block device. A writable image is locked against
 * other machines. Its id (GET_ID) is the file's name. */
struct virtio_device *virtio_block_new(const struct virtio_env *env, const char *path,
                                       bool read_only, struct err *err);

/* Entropy (5.4) from the host's getrandom. */
struct virtio_device *virtio_rng_new(const struct virtio_env *env, struct err *err);

/* Balloon (5.5). */
struct virtio_balloon_options {
    bool deflate_on_oom;
    bool free_page_reporting;
};
struct virtio_device *virtio_balloon_new(const struct virtio_env *env,
                                         const struct virtio_balloon_options *options,
                                         struct err *err);
/* Any thread: ask the driver to hold `pages` pages (at most those of the machine). */
void virtio_balloon_set(struct virtio_device *balloon, uint64_t pages);

#endif
