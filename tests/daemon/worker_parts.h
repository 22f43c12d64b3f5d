/*
 * What test workers have in common with ballast-worker: the descriptors of
 * worker_fds.h mapped, the configuration read. They end with _exit.
 */
#ifndef BALLAST_TESTS_WORKER_PARTS_H
#define BALLAST_TESTS_WORKER_PARTS_H

#include "daemon/vm_config.h"
#include "daemon/worker_fds.h"
#include "vmm-core/vm_region.h"

struct worker_parts {
    struct vm_config config;
    struct vm_region *region;
    uint8_t *machine;
    struct ring *incoming, *outgoing;
    _Atomic uint64_t *pmap;
};

/* Map and read everything; ends the process with a message when something is missing. */
void worker_parts_open(struct worker_parts *parts);

/* Raw ends of the rings, with the eventfds. take waits. */
void worker_send(struct worker_parts *parts, const struct ring_message *message);
void worker_take(struct worker_parts *parts, struct ring_message *message);
void worker_release(struct worker_parts *parts, mpn_t mpn, enum release_why why);

#endif
