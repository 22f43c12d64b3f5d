#include "tests/machine/tiny_supervisor.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

static void put(struct tiny_supervisor *s, const struct ring_message *message)
{
    while (ring_put(vm_region_to_worker(s->region), message) == RING_FULL)
        usleep(100);
    eventfd_write(s->kick_fd, 1);
}

static void grant(struct tiny_supervisor *s)
{
    while (s->unmet_pages && s->free_count) {
        struct ring_message message = {.type = RING_GRANT};
        while (message.count < RING_BATCH && s->unmet_pages && s->free_count) {
            message.numbers[message.count++] = s->free_frames[--s->free_count];
            s->unmet_pages--;
        }
        put(s, &message);
    }
}

static void on_message(struct tiny_supervisor *s, const struct ring_message *message)
{
    switch (message->type) {
    case RING_WANT:
        s->unmet_pages = message->value;
        break;
    case RING_RELEASED:
        for (unsigned i = 0; i < message->count; i++)
            s->free_frames[s->free_count++] = message->pairs[i].mpn;
        break;
    case RING_DONE:
        s->done_value[message->request % RING_REQUESTS] = message->value;
        s->done[message->request % RING_REQUESTS] = true;
        break;
    case RING_EVENT:
        s->events[message->value]++;
        if (!s->quiet)
            fprintf(stderr, "[%s: %.200s]\n", worker_event_name((unsigned)message->value),
                    s->region->text);
        break;
    default:
        break;
    }
}

static void *supervise(void *argument)
{
    struct tiny_supervisor *s = argument;
    while (!s->stopping) {
        struct pollfd notify = {.fd = s->notify_fd, .events = POLLIN};
        poll(&notify, 1, 50);
        eventfd_t count;
        if (notify.revents & POLLIN)
            eventfd_read(s->notify_fd, &count);
        struct ring_message message;
        while (ring_take(vm_region_to_supervisor(s->region), &message) == RING_OK)
            if (ring_message_valid(&message, false))
                on_message(s, &message);
        if (!s->stingy)
            grant(s);
    }
    return NULL;
}

void tiny_supervisor_start(struct tiny_supervisor *s, uint64_t ram_bytes, uint64_t machine_bytes)
{
    memset(s, 0, sizeof *s);
    uint32_t ram_pages = (uint32_t)(ram_bytes / PAGE_BYTES);
    s->machine_pages = (uint32_t)(machine_bytes / PAGE_BYTES);
    s->region = mmap(NULL, vm_region_bytes(ram_pages), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    s->machine = mmap(NULL, machine_bytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    must(s->region != MAP_FAILED && s->machine != MAP_FAILED, "mmap");
    vm_region_init(s->region, ram_pages, s->machine_pages);
    s->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->free_frames = malloc(s->machine_pages * sizeof *s->free_frames);
    must(s->kick_fd >= 0 && s->notify_fd >= 0 && s->free_frames, "supervisor");
    for (uint32_t mpn = s->machine_pages; mpn > 0; mpn--)
        s->free_frames[s->free_count++] = mpn - 1;
    s->next_request = 1;
    must(pthread_create(&s->thread, NULL, supervise, s) == 0, "thread");
}

void tiny_supervisor_stop(struct tiny_supervisor *s)
{
    s->stopping = true;
    eventfd_write(s->notify_fd, 1);
    pthread_join(s->thread, NULL);
    munmap(s->machine, (uint64_t)s->machine_pages * PAGE_BYTES);
    munmap(s->region, vm_region_bytes(s->region->ram_pages));
    close(s->kick_fd);
    close(s->notify_fd);
    free(s->free_frames);
}

struct gmem_config tiny_supervisor_gmem(const struct tiny_supervisor *s)
{
    return (struct gmem_config){
        .region = s->region,
        .machine = s->machine,
        .kick_fd = s->kick_fd,
        .notify_fd = s->notify_fd,
        .swap_fd = -1,
        .random_seed = 1,
    };
}

void tiny_supervisor_send(struct tiny_supervisor *s, enum ring_type type, uint64_t value)
{
    put(s, &(struct ring_message){.type = (uint16_t)type, .value = value});
}

bool tiny_supervisor_request(struct tiny_supervisor *s, enum ring_type type, uint64_t value,
                             int timeout_ms, uint64_t *done_value)
{
    uint32_t request = s->next_request++;
    s->done[request % RING_REQUESTS] = false;
    put(s, &(struct ring_message){.type = (uint16_t)type, .request = request, .value = value});
    for (int waited_ms = 0; waited_ms < timeout_ms; waited_ms++) {
        if (s->done[request % RING_REQUESTS]) {
            *done_value = s->done_value[request % RING_REQUESTS];
            return true;
        }
        usleep(1000);
    }
    return false;
}
