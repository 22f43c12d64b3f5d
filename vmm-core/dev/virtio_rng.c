/*
 * The entropy device (virtio 1.2, 5.4): fills what the driver offers with the
 * host's random bytes, at most REQUEST_BYTES a request (the device may give fewer
 * than asked for), so that a large buffer cannot keep the device thread.
 */
#include "vmm-core/dev/virtio_devices.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define REQUEST_BYTES 4096u
#define QUEUE_SIZE    64u

struct virtio_rng {
    struct virtio_device device;
    struct virtq_chain chain;
    uint8_t bytes[REQUEST_BYTES];
};

static void rng_queue(struct virtio_device *device, unsigned index)
{
    struct virtio_rng *rng = (struct virtio_rng *)device;
    struct virtq_chain *chain = &rng->chain;
    while (!virtio_stopping(device) && virtio_take(device, index, chain)) {
        size_t len = chain->writable_bytes < REQUEST_BYTES ? chain->writable_bytes : REQUEST_BYTES;
        if (len == 0 || chain->readable) {
            virtio_driver_error(device, "entropy buffer is not one to be written");
            return;
        }
        ssize_t given = getrandom(rng->bytes, len, 0);
        if (given < 0 || !virtq_write(&device->queues[index], chain, 0, rng->bytes, (size_t)given))
            given = 0;
        virtio_give(device, index, chain, (uint32_t)given);
    }
}

static void rng_free(struct virtio_device *device)
{
    free(device);
}

static const struct virtio_ops rng_ops = {
    .name = "rng",
    .device_id = VIRTIO_ID_ENTROPY,
    .queue_count = 1,
    .queue_size = QUEUE_SIZE,
    .queue = rng_queue,
    .free = rng_free,
};

struct virtio_device *virtio_rng_new(const struct virtio_env *env, struct err *err)
{
    struct virtio_rng *rng = calloc(1, sizeof *rng);
    if (!rng) {
        err_set(err, ENOMEM, "entropy device");
        return NULL;
    }
    if (virtio_device_init(&rng->device, &rng_ops, env, 0, err) < 0) {
        free(rng);
        return NULL;
    }
    return &rng->device;
}
