/*
 * Runs one bare-metal guest on a machine in this process, with every virtio
 * device, and tells its verdict.
 *
 *   guest_run [-t SECONDS] [-b] IMAGE
 *
 * Exit status 0: the guest powered off with success, in time, and the invariants
 * of guest memory hold (RING_CHECK). -b: play the host's part for balloon_driver.c:
 * move the target down, up, down and back, and look at the page states.
 */
#include "tests/guests/guest_layout.h"
#include "tests/machine/tiny_supervisor.h"
#include "vmm-core/clock.h"
#include "vmm-core/machine.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MACHINE_BYTES (GUEST_RAM_BYTES + (8ul << 20))
#define RAM_PAGES     (GUEST_RAM_BYTES / PAGE_BYTES)
#define WAIT_MS       20000

struct host {
    struct tiny_supervisor supervisor;
    struct machine *machine;
    unsigned seconds;
    bool play_balloon;
    unsigned failures;
    _Atomic bool ended;
};

static void promise(struct host *host, bool kept, const char *what)
{
    if (kept)
        return;
    host->failures++;
    fprintf(stderr, "guest_run: BROKEN: %s\n", what);
}

static int make_disk(char *path, size_t path_bytes)
{
    uint8_t sector[512];
    int fd = memfd_create("disk", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    for (unsigned n = 0; n < GUEST_DISK_SECTORS; n++) {
        memset(sector, (int)(n % 256), sizeof sector);
        if (write(fd, sector, sizeof sector) != sizeof sector)
            return -1;
    }
    snprintf(path, path_bytes, "/proc/self/fd/%d", fd);
    return fd;
}

/* ---- The host's part for the balloon guest ---- */

static uint64_t ballooned_pages(const struct host *host)
{
    return host->supervisor.region->stats.pages.pages_in[PAGE_BALLOONED];
}

static bool reaches(const struct host *host, uint64_t pages)
{
    for (int waited_ms = 0; waited_ms < WAIT_MS && !host->ended; waited_ms++) {
        if (ballooned_pages(host) == pages)
            return true;
        usleep(1000);
    }
    return ballooned_pages(host) == pages;
}

static void play_balloon(struct host *host)
{
    static const uint64_t sizes[] = {3000, 1000, BALLOON_GUEST_PAGES, 500};
    const struct vm_stats *stats = &host->supervisor.region->stats;
    for (int waited_ms = 0; waited_ms < WAIT_MS && !stats->balloon_driver; waited_ms++)
        usleep(1000);
    promise(host, stats->balloon_driver == 1, "the guest's balloon driver comes up");
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        tiny_supervisor_send(&host->supervisor, RING_TARGET, RAM_PAGES - sizes[i]);
        promise(host, reaches(host, sizes[i]), "the balloon reaches its target");
    }
    promise(host, stats->balloon_stats[5] == GUEST_RAM_BYTES, "statistics arrive");
    usleep(1200000); /* they are asked for every second, and say how much the balloon holds */
    promise(host, stats->balloon_stats[4] == 500 * PAGE_BYTES, "statistics are renewed");
    promise(host, stats->balloon_actual_pages == 500, "the driver says what it holds");
    tiny_supervisor_send(&host->supervisor, RING_TARGET, RAM_PAGES);
}

/* False: no answer came, in time or because the guest has ended. */
static bool request(struct host *host, enum ring_type type, uint64_t *value)
{
    for (int waited_ms = 0; waited_ms < WAIT_MS && !host->ended; waited_ms += 500)
        if (tiny_supervisor_request(&host->supervisor, type, 0, 500, value))
            return true;
    promise(host, host->ended, "the machine answers requests");
    return false;
}

static void check_invariants(struct host *host)
{
    uint64_t value, violations;
    if (!request(host, RING_PAUSE, &value))
        return;
    if (request(host, RING_CHECK, &violations) && violations) {
        promise(host, false, "the invariants of guest memory hold");
        fprintf(stderr, "guest_run: %.400s\n", host->supervisor.region->text);
    }
    request(host, RING_RESUME, &value);
}

/* Beside the running machine: the host's part, checks now and then, and the time limit. */
static void *accompany(void *argument)
{
    struct host *host = argument;
    uint64_t end_ns = clock_host_ns() + host->seconds * UINT64_C(1000000000);
    if (host->play_balloon)
        play_balloon(host);
    while (!host->ended) {
        usleep(20000);
        if (clock_host_ns() < end_ns)
            continue;
        promise(host, false, "the guest ends in time");
        machine_quit(host->machine);
        break;
    }
    return NULL;
}

static void *check_now_and_then(void *argument)
{
    struct host *host = argument;
    while (!host->ended) {
        usleep(10000);
        check_invariants(host);
    }
    return NULL;
}

static int run(struct host *host, const char *image)
{
    char disk_path[64];
    struct err err = {0};
    int disk_fd = make_disk(disk_path, sizeof disk_path);
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC); /* takes whatever random chains print */
    struct machine_config config = {
        .name = "guest",
        .ram_bytes = GUEST_RAM_BYTES,
        .kernel = image,
        .disks = {{.path = disk_path}},
        .disk_count = 1,
        .uart = {.in_fd = -1, .out_fd = STDOUT_FILENO, .listen_fd = -1},
        .virtcon = {.in_fd = -1, .out_fd = null_fd, .listen_fd = -1},
        .have_virtcon = true,
        .have_balloon = true,
        .have_rng = true,
        .deflate_on_oom = true,
        .free_page_reporting = true,
    };
    tiny_supervisor_start(&host->supervisor, config.ram_bytes, MACHINE_BYTES);
    host->supervisor.quiet = true;
    struct gmem_config memory = tiny_supervisor_gmem(&host->supervisor);
    host->machine = disk_fd < 0 ? NULL : machine_new(&config, &memory, &err);
    if (!host->machine || machine_load(host->machine, &err) < 0) {
        fprintf(stderr, "guest_run: %s\n", err.text);
        return 1;
    }
    pthread_t companion, checker;
    if (pthread_create(&companion, NULL, accompany, host) ||
        pthread_create(&checker, NULL, check_now_and_then, host))
        return 1;
    enum machine_end end = machine_run(host->machine);
    host->ended = true;
    pthread_join(companion, NULL);
    pthread_join(checker, NULL);
    machine_free(host->machine);
    tiny_supervisor_stop(&host->supervisor);
    close(disk_fd);
    close(null_fd);
    promise(host, end == MACHINE_POWEROFF, "the guest ends with success");
    return host->failures > 0;
}

int main(int argc, char **argv)
{
    static struct host host = {.seconds = 60};
    int option;
    while ((option = getopt(argc, argv, "t:b")) != -1) {
        if (option == 't')
            host.seconds = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'b')
            host.play_balloon = true;
        else
            return 2;
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: guest_run [-t SECONDS] [-b] IMAGE\n");
        return 2;
    }
    return run(&host, argv[optind]);
}
