/* The guest's clock over host monotonic time; vmm-core/clock.h says what it promises. */
#include "vmm-core/clock.h"

#include <time.h>

#define NS_PER_SECOND UINT64_C(1000000000)

static uint64_t read_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t clock_host_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_thread_ns(void)
{
    return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void clock_start(struct vm_clock *clock)
{
    atomic_store(&clock->origin_ns, clock_host_ns());
    atomic_store(&clock->stopped_ns, 0);
}

uint64_t clock_ticks(const struct vm_clock *clock)
{
    uint64_t stopped_ns = atomic_load_explicit(&clock->stopped_ns, memory_order_acquire);
    uint64_t now_ns = stopped_ns ? stopped_ns : clock_host_ns();
    return (now_ns - atomic_load_explicit(&clock->origin_ns, memory_order_acquire)) / NS_PER_TICK;
}

uint64_t clock_host_deadline_ns(const struct vm_clock *clock, uint64_t tick)
{
    uint64_t origin_ns = atomic_load_explicit(&clock->origin_ns, memory_order_acquire);
    if (tick > (INT64_MAX - origin_ns) / NS_PER_TICK)
        return CLOCK_NO_DEADLINE;
    return origin_ns + tick * NS_PER_TICK;
}

void clock_stop(struct vm_clock *clock)
{
    if (!atomic_load(&clock->stopped_ns))
        atomic_store_explicit(&clock->stopped_ns, clock_host_ns(), memory_order_release);
}

void clock_go(struct vm_clock *clock)
{
    uint64_t stopped_ns = atomic_load(&clock->stopped_ns);
    if (!stopped_ns)
        return;
    /* Origin first: a reader in between sees stopped_ns - a later origin, at worst a short step
     * back, which the machine excludes by moving the clock only while every hart is parked. */
    atomic_fetch_add(&clock->origin_ns, clock_host_ns() - stopped_ns);
    atomic_store_explicit(&clock->stopped_ns, 0, memory_order_release);
}
