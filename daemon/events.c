/*
 * Events: what happened, for people and programs that follow. Every kind has a
 * name that never changes. Kinds that a guest or a worker can cause at will are
 * limited a VM to a burst and then one a second; what was left out is counted
 * and said with the next one.
 */
#include "daemon/supervisor_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BURST       8u
#define REFILL_NS   UINT64_C(1000000000)
#define NS_A_SECOND UINT64_C(1000000000)

static const struct {
    const char *name;
    bool limited;
} kinds[EVENT_KINDS] = {
    [EVENT_VM_CREATED] = {"vm-created", false},
    [EVENT_VM_RUNNING] = {"vm-running", false},
    [EVENT_VM_PAUSED] = {"vm-paused", false},
    [EVENT_VM_RESUMED] = {"vm-resumed", false},
    [EVENT_VM_STOPPED] = {"vm-stopped", false},
    [EVENT_VM_REBOOT] = {"vm-reboot", true},
    [EVENT_VM_DESTROYED] = {"vm-destroyed", false},
    [EVENT_BALLOON_DRIVER] = {"balloon-driver", true},
    [EVENT_BALLOON_POPPED] = {"balloon-popped", true},
    [EVENT_SWAP_ERROR] = {"swap-error", true},
    [EVENT_SWAP_OK] = {"swap-ok", true},
    [EVENT_GUEST_FAULT] = {"guest-fault", true},
    [EVENT_WORKER_SAYS] = {"worker-says", true},
    [EVENT_CONSOLE_LOG] = {"console-log", true},
    [EVENT_REFUSED] = {"refused", true},
    [EVENT_RING_CORRUPT] = {"ring-corrupt", false},
    [EVENT_HOST_STATE] = {"host-state", true},
    [EVENT_POLICY_ERROR] = {"policy-error", true},
    [EVENT_POLICY_ATTACHED] = {"policy-attached", false},
    [EVENT_POLICY_DETACHED] = {"policy-detached", false},
    [EVENT_POLICY_BAD] = {"policy-bad", true},
    [EVENT_SETTING] = {"setting", false},
    [EVENT_CHECK] = {"check", false},
    /* limited by watch.c */
    [EVENT_WATCH_FLAPPING] = {"watch-flapping", false},
    [EVENT_WATCH_BALLOON_STALLED] = {"watch-balloon-stalled", false},
    [EVENT_WATCH_BALLOON_LIES] = {"watch-balloon-lies", false},
    [EVENT_WATCH_STARVED] = {"watch-starved", false},
    [EVENT_WATCH_STATE_LASTS] = {"watch-state-lasts", false},
    [EVENT_WATCH_INVARIANT] = {"watch-invariant", false},
};

/* May this event be told now? */
static bool bucket_take(struct event_bucket *bucket, uint64_t now_ns)
{
    uint64_t refills = bucket->refilled_ns ? (now_ns - bucket->refilled_ns) / REFILL_NS : BURST;
    if (refills) {
        bucket->tokens = refills >= BURST || bucket->tokens + refills > BURST
                             ? BURST
                             : bucket->tokens + (uint32_t)refills;
        bucket->refilled_ns = now_ns;
    }
    if (!bucket->tokens) {
        bucket->suppressed++;
        return false;
    }
    bucket->tokens--;
    return true;
}

static void sweep_listeners(struct supervisor *supervisor)
{
    if (supervisor->telling || !supervisor->listeners_dropped)
        return;
    supervisor->listeners_dropped = false;
    struct supervisor_listener *listener = TAILQ_FIRST(&supervisor->listeners);
    while (listener) {
        struct supervisor_listener *next = TAILQ_NEXT(listener, entry);
        if (!listener->fn) {
            TAILQ_REMOVE(&supervisor->listeners, listener, entry);
            free(listener);
        }
        listener = next;
    }
}

void event_tell(struct supervisor *supervisor, struct vm *vm, enum event_kind kind,
                const char *format, ...)
{
    struct event_bucket *bucket = vm ? &vm->buckets[kind] : &supervisor->buckets[kind];
    if (kinds[kind].limited && !bucket_take(bucket, clock_monotonic_ns())) {
        supervisor->events_suppressed++;
        return;
    }
    char text[700];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (bucket->suppressed) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, " (%u more like this left out before)",
                 bucket->suppressed);
        bucket->suppressed = 0;
    }

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct supervisor_event event = {
        .time_ns = (uint64_t)now.tv_sec * NS_A_SECOND + (uint64_t)now.tv_nsec,
        .vm = vm ? vm->settings.name : NULL,
        .kind = kinds[kind].name,
        .text = text,
    };
    supervisor->telling++;
    struct supervisor_listener *listener;
    TAILQ_FOREACH(listener, &supervisor->listeners, entry)
    {
        if (listener->fn)
            listener->fn(listener->ctx, &event);
    }
    supervisor->telling--;
    sweep_listeners(supervisor);
}

struct supervisor_listener *supervisor_listen(struct supervisor *supervisor,
                                              supervisor_event_fn *fn, void *ctx)
{
    struct supervisor_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return NULL;
    listener->fn = fn;
    listener->ctx = ctx;
    TAILQ_INSERT_TAIL(&supervisor->listeners, listener, entry);
    return listener;
}

void supervisor_unlisten(struct supervisor *supervisor, struct supervisor_listener *listener)
{
    if (!listener)
        return;
    listener->fn = NULL;
    supervisor->listeners_dropped = true;
    sweep_listeners(supervisor);
}

void copy_words(char *to, size_t bytes, const char *from, size_t from_bytes)
{
    size_t used = 0;
    while (used + 1 < bytes && used < from_bytes && from[used]) {
        char c = from[used];
        to[used++] = c >= ' ' && c <= '~' ? c : '?';
    }
    to[used] = 0;
}
