/*
 * What a machine is doing, for people: on SIGUSR1, the device thread writes what
 * it knows of memory and interrupts, then each hart, at its next exit from guest
 * code, its registers. A hart that waits for frames stays silent, and the first
 * lines say so.
 */
#include "vmm-core/machine/machine_parts.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void dump_memory(struct machine *machine)
{
    const struct vm_stats *stats = gmem_stats(machine->gmem);
    fprintf(stderr, "machine %s: %s, pool %llu pages, vcpu ran %llu ms, waited %llu ms\n",
            machine->name, atomic_load(&machine->gate.pause_wanted) ? "paused" : "running",
            (unsigned long long)stats->pool_pages,
            (unsigned long long)(stats->vcpu_run_ns / 1000000),
            (unsigned long long)(stats->vcpu_wait_ns / 1000000));
    fprintf(stderr, "pages:");
    for (unsigned state = 0; state < PAGE_STATES; state++)
        fprintf(stderr, " %s %llu", page_state_name((enum page_state)state),
                (unsigned long long)stats->pages.pages_in[state]);
    pthread_mutex_lock(&machine->plic.lock);
    fprintf(stderr, "\nplic: level %08x pending %08x in service %08x enabled %08x threshold %u\n",
            machine->plic.level, machine->plic.pending, machine->plic.in_service,
            machine->plic.context[0].enabled, machine->plic.context[0].threshold);
    pthread_mutex_unlock(&machine->plic.lock);
}

void machine_dump_hart(struct machine_hart *hart)
{
    static const char *const names[32] = {"zero", "ra", "sp",  "gp",  "tp", "t0", "t1", "t2",
                                          "s0",   "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
                                          "a6",   "a7", "s2",  "s3",  "s4", "s5", "s6", "s7",
                                          "s8",   "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
    struct hart_state state;
    hart_get_state(hart->hart, &state);
    fprintf(stderr, "hart %d: pc %016llx in %c mode, satp %016llx, time %llu, stimecmp %llu\n",
            hart->id, (unsigned long long)state.pc, state.priv == SHADOW_S ? 'S' : 'U',
            (unsigned long long)state.satp, (unsigned long long)clock_ticks(&hart->machine->clock),
            (unsigned long long)state.stimecmp);
    fprintf(stderr,
            "sstatus %llx sie %llx interrupt ready %d; last trap: scause %llx sepc %llx "
            "stval %llx\n",
            (unsigned long long)state.sstatus, (unsigned long long)state.sie,
            hart_interrupt_ready(hart->hart), (unsigned long long)state.scause,
            (unsigned long long)state.sepc, (unsigned long long)state.stval);
    for (unsigned i = 1; i < 32; i++)
        fprintf(stderr, "%4s %016llx%s", names[i], (unsigned long long)state.x[i],
                i % 4 == 3 ? "\n" : " ");
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
