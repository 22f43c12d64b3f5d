/*
 * The device thread: one epoll loop over watched descriptors and doorbells.
 *
 * Watches live in a small array; epoll's user word is the index and the
 * generation of the slot, so that an event already fetched for a descriptor that
 * was unwatched meanwhile is dropped. Doorbells are a second array, scanned when
 * the wake eventfd fires: a ring sets the doorbell's flag and only the first ring
 * writes the eventfd. Pausing parks the loop between two events.
 */
#include "vmm-core/machine/device_thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MAX_WATCHES   64
#define MAX_DOORBELLS 64
#define EVENTS_A_WAIT 16
#define WAKE_TOKEN    UINT64_MAX

struct watch {
    int fd; /* -1: the slot is free */
    uint32_t generation;
    device_event event;
    void *device;
};

struct device_thread {
    int epoll_fd, wake_fd;
    struct watch watches[MAX_WATCHES]; /* writer: before start the builder, then the thread */
    struct doorbell *doorbells[MAX_DOORBELLS];
    unsigned doorbell_count;

    struct pause_gate *gate;
    _Atomic bool stop_wanted;
    bool started;
    pthread_t thread;
};

static void wake(struct device_thread *thread)
{
    uint64_t one = 1;
    /* It can fail only by a full counter, and then the loop wakes anyway. */
    ssize_t written = write(thread->wake_fd, &one, sizeof one);
    (void)written;
}

struct device_thread *device_thread_new(struct pause_gate *gate, struct err *err)
{
    struct device_thread *thread = calloc(1, sizeof *thread);
    if (!thread) {
        err_set(err, ENOMEM, "device thread");
        return NULL;
    }
    for (unsigned i = 0; i < MAX_WATCHES; i++)
        thread->watches[i].fd = -1;
    thread->gate = gate;
    thread->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    thread->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event wake_event = {.events = EPOLLIN, .data.u64 = WAKE_TOKEN};
    if (thread->epoll_fd < 0 || thread->wake_fd < 0 ||
        epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, thread->wake_fd, &wake_event)) {
        err_set(err, errno, "device thread: epoll");
        device_thread_free(thread);
        return NULL;
    }
    return thread;
}

void device_thread_free(struct device_thread *thread)
{
    if (!thread)
        return;
    if (thread->epoll_fd >= 0)
        close(thread->epoll_fd);
    if (thread->wake_fd >= 0)
        close(thread->wake_fd);
    free(thread);
}

/* ---- Watches ---- */

static struct watch *watch_of_fd(struct device_thread *thread, int fd)
{
    for (unsigned i = 0; i < MAX_WATCHES; i++)
        if (thread->watches[i].fd == fd)
            return &thread->watches[i];
    return NULL;
}

static struct epoll_event epoll_event_of(struct device_thread *thread, const struct watch *watch,
                                         uint32_t events)
{
    uint64_t index = (uint64_t)(watch - thread->watches);
    return (struct epoll_event){.events = events,
                                .data.u64 = (uint64_t)watch->generation << 32 | index};
}

int device_thread_watch(struct device_thread *thread, int fd, uint32_t events, device_event event,
                        void *device, struct err *err)
{
    struct watch *watch = watch_of_fd(thread, -1);
    if (!watch)
        return err_set(err, 0, "device thread: more than %d descriptors", MAX_WATCHES);
    struct epoll_event wanted = epoll_event_of(thread, watch, events);
    if (epoll_ctl(thread->epoll_fd, EPOLL_CTL_ADD, fd, &wanted))
        return err_set(err, errno, "device thread: watch descriptor %d", fd);
    watch->fd = fd;
    watch->event = event;
    watch->device = device;
    return 0;
}

void device_thread_rewatch(struct device_thread *thread, int fd, uint32_t events)
{
    struct watch *watch = watch_of_fd(thread, fd);
    if (!watch)
        return;
    struct epoll_event wanted = epoll_event_of(thread, watch, events);
    epoll_ctl(thread->epoll_fd, EPOLL_CTL_MOD, fd, &wanted);
}

void device_thread_unwatch(struct device_thread *thread, int fd)
{
    struct watch *watch = watch_of_fd(thread, fd);
    if (!watch)
        return;
    epoll_ctl(thread->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    watch->fd = -1;
    watch->generation++;
}

/* ---- Doorbells ---- */

int doorbell_init(struct doorbell *doorbell, struct device_thread *thread,
                  void (*answer)(void *device), void *device, struct err *err)
{
    if (thread->doorbell_count == MAX_DOORBELLS)
        return err_set(err, 0, "device thread: more than %d doorbells", MAX_DOORBELLS);
    doorbell->thread = thread;
    doorbell->answer = answer;
    doorbell->device = device;
    atomic_init(&doorbell->rung, 0);
    thread->doorbells[thread->doorbell_count++] = doorbell;
    return 0;
}

void doorbell_ring(struct doorbell *doorbell)
{
    if (!atomic_exchange_explicit(&doorbell->rung, 1, memory_order_acq_rel))
        wake(doorbell->thread);
}

/* ---- The loop ---- */

/* Wait while the machine is paused. False: the thread is to stop. */
static bool go_on(struct device_thread *thread)
{
    return pause_gate_pass(thread->gate) && !atomic_load(&thread->stop_wanted);
}

static void answer_doorbells(struct device_thread *thread)
{
    uint64_t rings;
    ssize_t taken = read(thread->wake_fd, &rings, sizeof rings);
    (void)taken; /* the flags say which doorbells were rung, not this count */
    for (unsigned i = 0; i < thread->doorbell_count; i++) {
        struct doorbell *doorbell = thread->doorbells[i];
        if (!atomic_load_explicit(&doorbell->rung, memory_order_relaxed))
            continue;
        if (!go_on(thread))
            return;
        atomic_exchange_explicit(&doorbell->rung, 0, memory_order_acq_rel);
        doorbell->answer(doorbell->device);
    }
}

static void dispatch(struct device_thread *thread, const struct epoll_event *event)
{
    if (event->data.u64 == WAKE_TOKEN) {
        answer_doorbells(thread);
        return;
    }
    struct watch *watch = &thread->watches[event->data.u64 & 0xffffffff];
    if (watch->fd >= 0 && watch->generation == event->data.u64 >> 32)
        watch->event(watch->device, event->events);
}

static void *device_thread_main(void *argument)
{
    struct device_thread *thread = argument;
    struct epoll_event events[EVENTS_A_WAIT];
    prctl(PR_SET_NAME, "devices");
    while (go_on(thread)) {
        int count = epoll_wait(thread->epoll_fd, events, EVENTS_A_WAIT, -1);
        for (int i = 0; i < count && go_on(thread); i++)
            dispatch(thread, &events[i]);
    }
    pause_gate_leave(thread->gate);
    return NULL;
}

int device_thread_start(struct device_thread *thread, struct err *err)
{
    pause_gate_join(thread->gate);
    int failed = pthread_create(&thread->thread, NULL, device_thread_main, thread);
    if (failed) {
        pause_gate_leave(thread->gate);
        return err_set(err, failed, "start the device thread");
    }
    thread->started = true;
    return 0;
}

void device_thread_wake(struct device_thread *thread)
{
    wake(thread);
}

void device_thread_stop(struct device_thread *thread)
{
    if (!thread->started)
        return;
    atomic_store(&thread->stop_wanted, true);
    wake(thread);
    pthread_join(thread->thread, NULL);
    thread->started = false;
}
