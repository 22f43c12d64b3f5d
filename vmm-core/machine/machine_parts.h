/*
 * A machine's parts, shared by the files of this folder:
 *   machine.c          building, loading, freeing
 *   machine_devices.c  what is on the bus
 *   machine_run.c      threads, pausing, ending
 *   dump.c             its state, for people
 *   firmware.c         what the SBI does to this machine
 *
 * Threads: hart threads (today one, the caller of machine_run), the device
 * thread, and gmem's own. A field without a note is written while the machine is
 * built and only read afterwards.
 */
#ifndef BALLAST_MACHINE_PARTS_H
#define BALLAST_MACHINE_PARTS_H

#include "vmm-core/clock.h"
#include "vmm-core/dev/finisher.h"
#include "vmm-core/dev/plic.h"
#include "vmm-core/dev/uart.h"
#include "vmm-core/dev/virtio_devices.h"
#include "vmm-core/hart.h"
#include "vmm-core/machine.h"
#include "vmm-core/machine/device_thread.h"
#include "vmm-core/machine/loader.h"
#include "vmm-core/machine/memory_map.h"
#include "vmm-core/machine/pause_gate.h"

#define MACHINE_HARTS 1u /* everything below is ready for more */

struct machine_hart {
    struct machine *machine;
    struct hart *hart;
    int id;
    int timer_fd;                    /* due: the device thread tells the hart */
    _Atomic uint64_t deadline_ticks; /* writer: the hart; CLOCK_NO_DEADLINE: none */
    pthread_mutex_t wake_lock;
    pthread_cond_t woken; /* something a sleeping hart looks at has changed */
    bool suspend_wanted;  /* hart's thread: the SBI call asks to sleep as WFI does */
    _Atomic bool dump_wanted;
    uint64_t thread_ns_seen; /* hart's thread: for vcpu_run_ns */
};

struct machine {
    char *name, *append;
    struct machine_config config; /* its strings other than the above are not kept */
    struct gmem *gmem;
    struct memlock *lock;
    struct vm_clock clock;
    struct pause_gate gate;
    struct device_thread *devices;

    struct bus bus;
    struct plic plic;
    struct finisher finisher;
    struct uart *uart;
    struct virtio_device *virtio[VIRTIO_SLOTS]; /* NULL: empty slot */
    struct virtio_device *balloon;              /* one of them, or NULL */

    struct machine_hart harts[MACHINE_HARTS];
    unsigned hart_count; /* made so far */

    struct kernel_image kernel;
    struct initrd_image initrd;
    struct load_plan plan;

    int dump_fd; /* signalfd of SIGUSR1, or -1 */

    bool gmem_started;
    _Atomic int end;            /* enum machine_end, or MACHINE_RUNS; written once */
    _Atomic uint32_t fail_code; /* MACHINE_FAILED: what the guest said */
};

#define MACHINE_RUNS (-1)

/* machine_devices.c: make every device and put it on the bus. -1 with *err. */
int machine_add_devices(struct machine *machine, const struct machine_config *config,
                        struct err *err);
void machine_free_devices(struct machine *machine); /* after the device thread has stopped */
uint32_t machine_virtio_slots(const struct machine *machine);

/* machine_run.c: harts and their threads. */
int machine_hart_init(struct machine *machine, struct err *err); /* the next one */
void machine_hart_destroy(struct machine_hart *hart);
void machine_hart_interrupt(void *machine, unsigned hart, bool level); /* an irq_line's set */
void machine_hart_arm(struct machine_hart *hart, uint64_t deadline_ticks);
void machine_hart_wake(struct machine_hart *hart);
/* The first to say how the machine ends decides; any thread. */
void machine_set_end(struct machine *machine, enum machine_end end);
void machine_call_harts(struct machine *machine);    /* make every hart leave guest code soon */
void machine_set_paused(void *machine, bool paused); /* gmem_config.set_paused */
void machine_park(void *machine);                    /* gmem_config.park */

/* dump.c: a hart's registers to standard error; on its own thread. */
void machine_dump_hart(struct machine_hart *hart);

/* firmware.c: serve the SBI call a hart has stopped at; the hart is outside guest code. */
void firmware_serve(struct machine_hart *hart);

#endif
