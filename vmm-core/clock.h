/*
 * The one clock a guest can feel: ticks of the 10 MHz timebase since the VM
 * started, as the time CSR shows them. Everything that depends on host time
 * (the time CSR, stimecmp, WFI sleeps) asks here, so that a clock that counts
 * retired instructions can take its place.
 *
 * Guest time stands still while the VM is paused and never goes back: a guest
 * resumed after an hour sees no soft lockup, no expired time-out and no jump. It
 * has no real-time clock, so nothing it knows becomes wrong.
 *
 * Threads: ticks and the conversions from any thread; stop and go by whoever
 * pauses the machine.
 */
#ifndef BALLAST_CLOCK_H
#define BALLAST_CLOCK_H

#include <stdatomic.h>
#include <stdint.h>

#define TIMEBASE_HZ       UINT64_C(10000000)
#define NS_PER_TICK       (UINT64_C(1000000000) / TIMEBASE_HZ)
#define CLOCK_NO_DEADLINE UINT64_MAX

struct vm_clock {
    _Atomic uint64_t origin_ns;  /* host time of tick 0, moved on by every pause */
    _Atomic uint64_t stopped_ns; /* host time at which the clock stopped; 0: it runs */
};

/* Host monotonic time: for statistics, never for what a guest sees. */
uint64_t clock_host_ns(void);

/* Processor time of the calling thread, for statistics too: it stands still while others have the
 * processor. */
uint64_t clock_thread_ns(void);

/* Start at tick 0, running. */
void clock_start(struct vm_clock *clock);
/* Guest time now. */
uint64_t clock_ticks(const struct vm_clock *clock);
/* Host monotonic time (CLOCK_MONOTONIC, ns) at which guest time reaches tick, if the clock is not
 * stopped before; CLOCK_NO_DEADLINE when that is beyond every host timer (over 292 years). */
uint64_t clock_host_deadline_ns(const struct vm_clock *clock, uint64_t tick);
/* Stop and go; each is harmless when it already is so. */
void clock_stop(struct vm_clock *clock);
void clock_go(struct vm_clock *clock);

#endif
