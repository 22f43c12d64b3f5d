/*
 * What a machine is doing, for people: on SIGUSR1, the device thread writes what
 * it knows of memory and interrupts, then each hart, at its next exit from guest
 * code, the registers that tell most. A hart that waits for frames stays silent, and the first
 * lines say so.
 */
#include "vmm-core/machine/machine_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define NS_PER_MS 1000000u

/* One line, in one write: the supervisor passes a worker's lines on as events, eight at a time and
 * up to 159 characters of each. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (len < 0)
        return;
    size_t used = (size_t)len < sizeof line - 1 ? (size_t)len : sizeof line - 2;
    line[used++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, used);
    (void)written; /* nobody to tell */
}

static void dump_memory(struct machine *machine)
{
    const struct vm_stats *stats = gmem_stats(machine->gmem);
    char pages[200] = "";
    say("machine %s: %s, vcpu ran %" PRIu64 " ms, waited %" PRIu64 " ms for memory", machine->name,
        atomic_load(&machine->gate.pause_wanted) ? "paused" : "running",
        stats->vcpu_run_ns / NS_PER_MS, stats->vcpu_wait_ns / NS_PER_MS);
    for (unsigned state = 0; state < PAGE_STATES; state++) {
        size_t used = strlen(pages);
        snprintf(pages + used, sizeof pages - used, " %s %" PRIu64,
                 page_state_name((enum page_state)state), stats->pages.pages_in[state]);
    }
    say("pages:%s pool %" PRIu64, pages, stats->pool_pages);
    pthread_mutex_lock(&machine->plic.lock);
    say("plic: level %08x pending %08x in service %08x enabled %08x threshold %u",
        machine->plic.level, machine->plic.pending, machine->plic.in_service,
        machine->plic.context[0].enabled, machine->plic.context[0].threshold);
    pthread_mutex_unlock(&machine->plic.lock);
}

void machine_dump_hart(struct machine_hart *hart)
{
    enum { RA = 1, SP, GP, TP, S0 = 8, A0 = 10 };
    struct hart_state state;
    hart_get_state(hart->hart, &state);
    const uint64_t *x = state.x, *a = state.x + A0;
    say("hart %d: pc %" PRIx64 " in %c mode, satp %" PRIx64 ", time %" PRIu64 ", stimecmp %" PRIu64,
        hart->id, state.pc, state.priv == SHADOW_S ? 'S' : 'U', state.satp,
        clock_ticks(&hart->machine->clock), state.stimecmp);
    say("last trap: scause %" PRIx64 " sepc %" PRIx64 " stval %" PRIx64 "; sstatus %" PRIx64
        " sie %" PRIx64 ", interrupt %s",
        state.scause, state.sepc, state.stval, state.sstatus, state.sie,
        hart_interrupt_ready(hart->hart) ? "ready" : "not ready");
    say("ra %" PRIx64 " sp %" PRIx64 " gp %" PRIx64 " tp %" PRIx64 " s0 %" PRIx64 " a7 %" PRIx64,
        x[RA], x[SP], x[GP], x[TP], x[S0], a[7]);
    say("a0 %" PRIx64 " a1 %" PRIx64 " a2 %" PRIx64 " a3 %" PRIx64 " a4 %" PRIx64 " a5 %" PRIx64
        " a6 %" PRIx64,
        a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
}

static void dump_event(void *device, uint32_t events)
{
    struct machine *machine = device;
    struct signalfd_siginfo signal;
    (void)events;
    if (read(machine->dump_fd, &signal, sizeof signal) != sizeof signal)
        return;
    dump_memory(machine);
    for (unsigned i = 0; i < machine->hart_count; i++)
        atomic_store(&machine->harts[i].dump_wanted, true);
    machine_call_harts(machine);
}

int machine_dump_on_signal(struct machine *machine, struct err *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    /* Threads made from here on inherit the mask; the signal only arrives at the descriptor. */
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    machine->dump_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (machine->dump_fd < 0)
        return err_set(err, errno, "signal descriptor");
    return device_thread_watch(machine->devices, machine->dump_fd, EPOLLIN, dump_event, machine,
                               err);
}
