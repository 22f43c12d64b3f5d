#include "tests/daemon/worker_parts.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
    fprintf(stderr, "test worker: %s\n", what);
    _exit(WORKER_EXIT_ERROR);
}

static void *map_all(int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        die("a descriptor is missing");
    void *map = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        die("mmap");
    return map;
}

void worker_parts_open(struct worker_parts *parts)
{
    static char text[VM_CONFIG_MAX_BYTES];
    size_t used = 0;
    ssize_t got;
    struct err err;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while ((got = read(WORKER_FD_CONFIG, text + used, sizeof text - used)) > 0)
        used += (size_t)got;
    if (vm_config_parse(text, used, &parts->config, &err) < 0)
        die(err.text);
    parts->region = map_all(WORKER_FD_REGION);
    parts->machine = map_all(WORKER_FD_MACHINE);
    parts->incoming = vm_region_to_worker(parts->region);
    parts->outgoing = vm_region_to_supervisor(parts->region);
    parts->pmap = vm_region_pmap(parts->region);
}

void worker_send(struct worker_parts *parts, const struct ring_message *message)
{
    while (ring_put(parts->outgoing, message) == RING_FULL)
        usleep(1000);
    eventfd_write(WORKER_FD_NOTIFY, 1);
}

void worker_take(struct worker_parts *parts, struct ring_message *message)
{
    while (ring_take(parts->incoming, message) != RING_OK) {
        struct pollfd kick = {.fd = WORKER_FD_KICK, .events = POLLIN};
        eventfd_t count;
        poll(&kick, 1, 100);
        eventfd_read(WORKER_FD_KICK, &count);
    }
}

void worker_release(struct worker_parts *parts, mpn_t mpn, enum release_why why)
{
    struct ring_message message = {.type = RING_RELEASED, .count = 1, .value = why};
    message.pairs[0].ppn = NO_PPN;
    message.pairs[0].mpn = mpn;
    worker_send(parts, &message);
}
