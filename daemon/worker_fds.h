/*
 * How a worker is started: the descriptors it finds open, by number, and
 * nothing else is open in it. The configuration arrives as one JSON object on
 * WORKER_FD_CONFIG, which ends at end of file; it says which of the optional
 * descriptors are there (an absent key is false, 0 or none):
 *
 *   {"name":s, "ram_bytes":n, "kernel":s, "initrd":s, "append":s,
 *    "disks":[{"path":s, "read_only":b}], "sv48":b, "deflate_on_oom":b,
 *    "free_page_reporting":b, "swap_slots":n, "random_seed":n,
 *    "uart":{"in":b, "out":b, "listen":b}, "virtcon":{"in":b, "out":b, "listen":b}}
 *
 * No "virtcon": the machine has none. Balloon and entropy device are always there.
 * argv is {"ballast-worker", VM name}. Standard input and output are /dev/null;
 * standard error is the supervisor's, for the one line of a worker that fails.
 * The worker's folder is the supervisor's; it dies with it (PR_SET_PDEATHSIG).
 */
#ifndef BALLAST_WORKER_FDS_H
#define BALLAST_WORKER_FDS_H

enum worker_fd {
    WORKER_FD_CONFIG = 3,  /* pipe: JSON */
    WORKER_FD_REGION = 4,  /* memfd: struct vm_region */
    WORKER_FD_MACHINE = 5, /* memfd: machine memory */
    WORKER_FD_KICK = 6,    /* eventfd: supervisor to worker */
    WORKER_FD_NOTIFY = 7,  /* eventfd: worker to supervisor */
    WORKER_FD_SWAP = 8,    /* swap file, when swap_slots > 0 */
    WORKER_FD_UART_IN = 9, /* each console: input, output (log), listening socket */
    WORKER_FD_UART_OUT = 10,
    WORKER_FD_UART_LISTEN = 11,
    WORKER_FD_VIRTCON_IN = 12,
    WORKER_FD_VIRTCON_OUT = 13,
    WORKER_FD_VIRTCON_LISTEN = 14,
    WORKER_FDS_END = 15
};

/* Exit statuses. */
enum worker_exit {
    WORKER_EXIT_POWEROFF = 0,
    WORKER_EXIT_ERROR = 1,
    WORKER_EXIT_REBOOT = 10,
    WORKER_EXIT_FAILED = 11,
    WORKER_EXIT_QUIT = 12,
};

#endif
