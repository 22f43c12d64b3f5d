/*
 * The machine of one VM: a hart, guest memory, SBI, interrupt controller,
 * timer, UART, virtio-mmio devices, device tree and guest loader, put together
 * from a configuration. One per worker process.
 *
 * Guest physical map (after QEMU's virt machine, which the stock kernel knows):
 *   0x00100000  syscon/test finisher (power-off, reboot)
 *   0x0c000000  PLIC (4 MiB window)
 *   0x10000000  16550A UART, PLIC source 10
 *   0x10001000  virtio-mmio slot 0..15, 4 KiB apart, PLIC sources 1..8 and 11..18
 *   0x80000000  RAM
 */
#ifndef BALLAST_MACHINE_H
#define BALLAST_MACHINE_H

#include "vmm-core/err.h"
#include "vmm-core/gmem.h"

#define MACHINE_MAX_DISKS 8

struct machine_disk {
    const char *path;
    bool read_only;
};

/* Where a console's bytes go: in_fd < 0 means no input; out_fd < 0 discards.
 * listen_fd >= 0: a listening Unix socket; one client at a time gets output and gives input,
 * and out_fd (a log) gets a copy of the output. */
struct machine_console {
    int in_fd, out_fd, listen_fd;
};

struct machine_config {
    const char *name;
    uint64_t ram_bytes;          /* multiple of 2 MiB, 16 MiB .. 1 TiB */
    const char *kernel, *initrd; /* paths; initrd may be NULL */
    const char *append;          /* kernel command line */
    struct machine_disk disks[MACHINE_MAX_DISKS];
    unsigned disk_count;
    struct machine_console uart;    /* ttyS0 */
    struct machine_console virtcon; /* hvc0; present if have_virtcon */
    bool have_virtcon;
    bool have_balloon, have_rng;
    bool deflate_on_oom, free_page_reporting;
    bool sv48; /* offer Sv48 beside Sv39 */
};

enum machine_end {
    MACHINE_POWEROFF, /* guest asked to be powered off */
    MACHINE_REBOOT,   /* guest asked for a reset */
    MACHINE_FAILED,   /* guest reported failure (SBI system reset reason, test finisher) */
    MACHINE_QUIT,     /* supervisor said so */
};

struct machine;

/* machine_new: build the machine over gmem's parts; opens kernel, initrd and disks, so that
 * nothing needs a path afterwards. gmem_config's ctx and callbacks are filled in here. */
struct machine *machine_new(const struct machine_config *config, struct gmem_config *gmem_config,
                            struct err *err);
/* machine_dump_on_signal: from now on SIGUSR1 to the process writes what memory, interrupts and
 * harts are doing to standard error. Before machine_load; blocks the signal in the calling thread.
 */
int machine_dump_on_signal(struct machine *machine, struct err *err);
/* machine_load: put kernel, initrd and device tree into guest memory (waits for grants). */
int machine_load(struct machine *machine, struct err *err);
/* machine_run: start the threads, run until the guest ends or machine_quit. Calling thread
 * becomes the hart's. */
enum machine_end machine_run(struct machine *machine);
void machine_quit(struct machine *machine); /* any thread */
void machine_free(struct machine *machine);

#endif
