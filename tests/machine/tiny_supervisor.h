/*
 * The other end of one machine's rings in the same process: grants every frame
 * that is wanted while there are any, takes back what is released, prints
 * events. For tests of the machine that are not about memory.
 */
#ifndef BALLAST_TINY_SUPERVISOR_H
#define BALLAST_TINY_SUPERVISOR_H

#include "vmm-core/gmem.h"

#include <pthread.h>

struct tiny_supervisor {
    struct vm_region *region;
    uint8_t *machine;
    uint32_t machine_pages;
    int kick_fd, notify_fd;
    bool stingy; /* grant nothing */
    bool quiet;  /* do not print events */

    pthread_t thread;
    _Atomic bool stopping;
    uint32_t *free_frames; /* stack, lowest on top; the thread's own */
    uint32_t free_count;
    uint64_t unmet_pages; /* wanted and not granted yet */
    _Atomic unsigned events[WORKER_EVENTS];
    _Atomic uint32_t next_request;
    _Atomic uint64_t done_value[RING_REQUESTS];
    _Atomic bool done[RING_REQUESTS];
};

/* Aborts the program when the host has not what it needs. */
void tiny_supervisor_start(struct tiny_supervisor *s, uint64_t ram_bytes, uint64_t machine_bytes);
void tiny_supervisor_stop(struct tiny_supervisor *s);
/* What a machine over it is given. */
struct gmem_config tiny_supervisor_gmem(const struct tiny_supervisor *s);
/* Send a request and wait for its DONE value, at most timeout_ms; false: none came. */
bool tiny_supervisor_request(struct tiny_supervisor *s, enum ring_type type, uint64_t value,
                             int timeout_ms, uint64_t *done_value);
void tiny_supervisor_send(struct tiny_supervisor *s, enum ring_type type, uint64_t value);

#endif
