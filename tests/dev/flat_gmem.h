/* The insides of the flat guest memory and of the threadless device thread (virtio_rig.h). */
#ifndef BALLAST_TESTS_FLAT_GMEM_H
#define BALLAST_TESTS_FLAT_GMEM_H

#include "vmm-core/dev/device.h"
#include "vmm-core/gmem.h"

#define FLAT_WATCHES 8

struct gmem {
    uint32_t ram_pages;
    size_t ram_bytes;
    uint8_t *machine;
    _Atomic uint64_t *words;
    struct vm_stats stats;
    struct pmap *pmap;
    uint32_t *pins;
    unsigned pins_live;
    bool refuse_pins; /* as a machine does that is stopping */
    unsigned events[WORKER_EVENTS][2];
};

struct gmem *flat_gmem_new(uint32_t ram_pages);
void flat_gmem_free(struct gmem *gmem);

struct flat_watch {
    int fd;
    uint32_t events;
    device_event event;
    void *device;
};

struct device_thread {
    unsigned count;
    struct flat_watch watches[FLAT_WATCHES];
};

/* Serve what is ready; false: nothing was within the time. */
bool flat_thread_poll(struct device_thread *thread, int timeout_ms);

#endif
