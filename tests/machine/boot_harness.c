/*
 * One machine in one process, without worker, daemon or sandbox: for debugging a
 * guest under gdb, and for booting one before anything else works.
 *
 *   boot_harness [-m MIB] [-c MACHINE_MIB] -k KERNEL [-i INITRD] [-a APPEND] [-d DISK]...
 *                [-t SECONDS] [-e TEXT]
 *
 * The UART is standard input and output. -t: the guest is ended after that time.
 * -e: success is that TEXT has appeared in the output (then the guest is ended)
 * instead of a power-off. Exit status 0 on success. -s prints statistics. SIGUSR1 shows what the
 * machine is doing.
 */
#include "tests/machine/tiny_supervisor.h"
#include "vmm-core/clock.h"
#include "vmm-core/machine.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct options {
    struct machine_config machine;
    uint64_t machine_bytes;
    unsigned seconds;
    const char *expect;
    bool stats;
};

struct watcher {
    struct machine *machine;
    const struct options *options;
    int console_fd; /* the other end of the UART's output */
    _Atomic bool found, done;
};

/* Copy the UART's output to ours, look for the text, and keep the time. */
static void *watch(void *argument)
{
    struct watcher *watcher = argument;
    uint64_t end_ns = clock_host_ns() + watcher->options->seconds * UINT64_C(1000000000);
    const char *expect = watcher->options->expect;
    char tail[8192] = "";
    size_t used = 0;
    while (!watcher->done) {
        struct pollfd console = {.fd = watcher->console_fd, .events = POLLIN};
        char bytes[2048];
        if (poll(&console, 1, 20) == 1) {
            ssize_t got = read(watcher->console_fd, bytes, sizeof bytes);
            if (got <= 0)
                break;
            (void)!write(STDOUT_FILENO, bytes, (size_t)got);
            if (used + (size_t)got >= sizeof tail) {
                memmove(tail, tail + used - 2048, 2048);
                used = 2048;
            }
            memcpy(tail + used, bytes, (size_t)got);
            used += (size_t)got;
            tail[used] = 0;
            if (expect && !watcher->found && memmem(tail, used, expect, strlen(expect))) {
                watcher->found = true;
                machine_quit(watcher->machine);
            }
        }
        if (watcher->options->seconds && clock_host_ns() > end_ns) {
            machine_quit(watcher->machine);
            end_ns = UINT64_MAX;
        }
    }
    return NULL;
}

static void print_stats(const struct vm_stats *stats, double seconds)
{
    fprintf(stderr,
            "%.2f s, %.1f M instructions, %.1f M/s running, traps %llu, sbi %llu, mmio %llu, "
            "fills %llu, drops %llu, blocks %llu, dropped %llu, private pages %llu, pool %llu\n",
            seconds, (double)stats->instructions / 1e6,
            (double)stats->instructions * 1e3 / (double)(stats->vcpu_run_ns + 1),
            (unsigned long long)stats->traps, (unsigned long long)stats->sbi_calls,
            (unsigned long long)stats->mmio_accesses, (unsigned long long)stats->shadow_fills,
            (unsigned long long)stats->shadow_drops, (unsigned long long)stats->blocks_decoded,
            (unsigned long long)stats->blocks_dropped,
            (unsigned long long)stats->pages.pages_in[PAGE_PRIVATE],
            (unsigned long long)stats->pool_pages);
}

static int run(struct options *options)
{
    struct tiny_supervisor supervisor;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) {
        perror("socketpair");
        return 1;
    }
    tiny_supervisor_start(&supervisor, options->machine.ram_bytes, options->machine_bytes);
    options->machine.uart =
        (struct machine_console){.in_fd = STDIN_FILENO, .out_fd = ends[0], .listen_fd = -1};
    struct gmem_config memory = tiny_supervisor_gmem(&supervisor);
    struct err err = {0};
    struct machine *machine = machine_new(&options->machine, &memory, &err);
    if (!machine || machine_dump_on_signal(machine, &err) || machine_load(machine, &err)) {
        fprintf(stderr, "boot_harness: %s\n", err.text);
        return 1;
    }
    struct watcher watcher = {.machine = machine, .options = options, .console_fd = ends[1]};
    pthread_t thread;
    pthread_create(&thread, NULL, watch, &watcher);
    uint64_t start_ns = clock_host_ns();
    enum machine_end end = machine_run(machine);
    double seconds = (double)(clock_host_ns() - start_ns) / 1e9;
    if (options->stats)
        print_stats(&supervisor.region->stats, seconds);
    watcher.done = true;
    machine_free(machine);
    pthread_join(thread, NULL);
    tiny_supervisor_stop(&supervisor);
    close(ends[0]);
    close(ends[1]);
    fprintf(stderr, "[end %d after %.2f s]\n", end, seconds);
    return options->expect ? !watcher.found : end != MACHINE_POWEROFF;
}

int main(int argc, char **argv)
{
    struct options options = {
        .machine = {.name = "harness",
                    .ram_bytes = UINT64_C(256) << 20,
                    .have_balloon = true,
                    .have_rng = true,
                    .append = "console=ttyS0 earlycon=sbi"},
        .machine_bytes = UINT64_C(512) << 20,
    };
    sigset_t dump_signal; /* for the machine's descriptor, in every thread */
    sigemptyset(&dump_signal);
    sigaddset(&dump_signal, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &dump_signal, NULL);
    int option;
    while ((option = getopt(argc, argv, "m:c:k:i:a:d:t:e:s")) != -1) {
        switch (option) {
        case 'm':
            options.machine.ram_bytes = strtoull(optarg, NULL, 10) << 20;
            break;
        case 'c':
            options.machine_bytes = strtoull(optarg, NULL, 10) << 20;
            break;
        case 'k':
            options.machine.kernel = optarg;
            break;
        case 'i':
            options.machine.initrd = optarg;
            break;
        case 'a':
            options.machine.append = optarg;
            break;
        case 'd':
            if (options.machine.disk_count < MACHINE_MAX_DISKS)
                options.machine.disks[options.machine.disk_count++].path = optarg;
            break;
        case 't':
            options.seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'e':
            options.expect = optarg;
            break;
        case 's':
            options.stats = true;
            break;
        default:
            return 2;
        }
    }
    return run(&options);
}
