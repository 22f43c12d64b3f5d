/*
 * The soak of sharing: real guests (tests/guests/random_stores.c) in real workers
 * store at random to pages that the host shares as fast as it can find them, while
 * balloon, host paging, reporting of free pages, sampling of active memory and the
 * disk work on the same pages, and while VMs are paused, killed, made anew and moved
 * from domain to domain. Guests compare every byte; the invariants are checked
 * about once a second. Nothing a worker ends by is taken as normal but what was done
 * to it: a guest that saw a wrong byte, a crash, a sanitizer's report end the soak.
 *
 *   soak [-t SECONDS] [-n VMS] [-s SEED] [-m MACHINE_MIB] WORKER GUEST_IMAGE
 *
 * tests/soak runs it for minutes under the sanitizers, the test suite for seconds.
 */
#include "tests/daemon/host_steps.h"

#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VM_MIB       32u /* what the guest is made for */
#define VM_MIN_MIB   8u
#define MOST_VMS     16u
#define DISK_BYTES   (16l << 20)
#define SECTOR_BYTES 512u
#define CHECK_NS     UINT64_C(1000000000)
#define TELL_NS      UINT64_C(30000000000)
#define LEAST_EVENTS 100u /* of each kind, or the soak was none */

static struct {
    unsigned seconds, vms, machine_mib;
    uint64_t seed;
    const char *worker, *image;
} options = {.seconds = 15, .vms = 4, .machine_mib = 96, .seed = 20020213};

static struct {
    uint64_t checks, created, refused, ballooned, swapped, sampled;
} seen;

/* Sectors 0 .. 255 as the guest expects them; the rest is its own to write. */
static void make_disk(const struct host *host, unsigned number, char *path, size_t path_bytes)
{
    uint8_t sector[SECTOR_BYTES];
    snprintf(path, path_bytes, "%s/disk-%u.img", host->folder, number);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    for (unsigned n = 0; n < 256; n++) {
        memset(sector, (int)n, sizeof sector);
        assert_int_equal(pwrite(fd, sector, sizeof sector, (off_t)n * SECTOR_BYTES), sizeof sector);
    }
    close(fd);
}

static void create(struct host *host, unsigned number)
{
    char name[16], disk[128];
    struct vm_settings settings;
    struct err err;
    snprintf(name, sizeof name, "vm%u", number);
    make_disk(host, number, disk, sizeof disk);
    vm_settings_default(&settings);
    settings.name = name;
    settings.memory_bytes = VM_MIB * TEST_MIB;
    settings.min_bytes = VM_MIN_MIB * TEST_MIB;
    settings.kernel = options.image;
    settings.disks[0].path = disk;
    settings.disk_count = 1;
    settings.sharing_domain = "all";
    settings.free_page_reporting = true;
    /* A sanitizer's workers are large: admission may have no room for all. */
    if (supervisor_create_vm(host->supervisor, &settings, &err))
        seen.created++;
    else
        seen.refused++;
}

static struct vm *find(struct host *host, unsigned number)
{
    char name[16];
    snprintf(name, sizeof name, "vm%u", number);
    return supervisor_find_vm(host->supervisor, name);
}

static void print_serial_log(const struct host *host, const struct vm *vm)
{
    char path[200], line[200];
    snprintf(path, sizeof path, "%s/vms/%s/serial.log", host->folder, vm_name(vm));
    FILE *log = fopen(path, "r");
    while (log && fgets(line, sizeof line, log))
        fprintf(stderr, "%s: %s", vm_name(vm), line);
    if (log)
        fclose(log);
}

/* What has stopped was killed by us; then it begins anew. */
static void replace_stopped(struct host *host)
{
    for (unsigned i = 0; i < options.vms; i++) {
        struct vm *vm = find(host, i);
        if (vm && vm->life != LIFE_STOPPED)
            continue;
        if (vm && !strstr(vm->exit_text, "signal 9")) {
            host_print_events(host);
            print_serial_log(host, vm);
            fail_msg("%s has stopped: %s", vm_name(vm), vm->exit_text);
        }
        create(host, i);
    }
    assert_non_null(supervisor_first_vm(host->supervisor));
}

static void count_and_check(struct host *host)
{
    host_check(host);
    seen.checks++;
    for (struct vm *vm = supervisor_first_vm(host->supervisor); vm;
         vm = supervisor_next_vm(host->supervisor, vm)) {
        struct vm_row row;
        supervisor_vm_row(host->supervisor, vm, &row);
        seen.ballooned += row.balloon_pages;
        seen.swapped += row.paged_pages;
        seen.sampled += row.active_pages;
        assert_int_equal(row.refused_messages, 0);
    }
}

static void tell(struct host *host, uint64_t began_ns)
{
    struct sharing_stats sharing;
    supervisor_sharing_stats(host->supervisor, &sharing);
    printf("soak: %" PRIu64 " s, %" PRIu64 " VMs begun, %" PRIu64 " refused, %" PRIu64
           " checks; now %" PRIu64 " shared frames, %" PRIu64 " references, %" PRIu64
           " saved pages; in all %" PRIu64 " shared, %" PRIu64 " broken, %" PRIu64
           " offered; seen at checks: %" PRIu64 " ballooned, %" PRIu64 " paged\n",
           (clock_monotonic_ns() - began_ns) / UINT64_C(1000000000), seen.created, seen.refused,
           seen.checks, sharing.shared_frames, sharing.references, sharing.saved_pages,
           sharing.counts.shared_total, sharing.counts.cow_breaks, sharing.counts.offered_pages,
           seen.ballooned, seen.swapped);
    fflush(stdout);
}

static void was_worth_the_name(struct host *host)
{
    struct sharing_stats sharing;
    supervisor_sharing_stats(host->supervisor, &sharing);
    assert_true(sharing.counts.shared_total >= LEAST_EVENTS);
    assert_true(sharing.counts.cow_breaks >= LEAST_EVENTS);
    assert_true(seen.ballooned + seen.swapped >= LEAST_EVENTS);
}

static void no_byte_changes_under_guests_that_share(void **state)
{
    (void)state;
    struct host host;
    host_steps_begin(options.seed, VM_MIB, VM_MIN_MIB);
    host_start(&host, options.machine_mib, options.worker);
    host_share_eagerly(&host);
    struct sampling_settings sampling = host.config.sampling;
    sampling.pages = 500;
    sampling.period_ms = 200;
    assert_int_equal(supervisor_set_sampling(host.supervisor, &sampling, NULL), 0);

    uint64_t began_ns = clock_monotonic_ns(), checked_ns = began_ns, told_ns = began_ns;
    uint64_t end_ns = began_ns + options.seconds * UINT64_C(1000000000), now_ns;
    while ((now_ns = clock_monotonic_ns()) < end_ns) {
        replace_stopped(&host);
        struct vm *vm = find(&host, host_random_below(options.vms));
        /* An ending loses the pages it has made: seldom. */
        if (vm)
            host_step(&host, vm, host_random_below(8) == 0);
        host_run_ms(&host, host_random_below(20));
        if (now_ns - checked_ns > CHECK_NS) {
            checked_ns = now_ns;
            count_and_check(&host);
        }
        if (now_ns - told_ns > TELL_NS) {
            told_ns = now_ns;
            tell(&host, began_ns);
        }
    }
    replace_stopped(&host);
    count_and_check(&host);
    tell(&host, began_ns);
    was_worth_the_name(&host);
    host_stop(&host);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_byte_changes_under_guests_that_share),
    };
    int option;
    while ((option = getopt(argc, argv, "t:n:s:m:")) != -1) {
        unsigned long number = optarg ? strtoul(optarg, NULL, 10) : 0;
        if (option == 't')
            options.seconds = (unsigned)number;
        else if (option == 'n' && number > 0 && number <= MOST_VMS)
            options.vms = (unsigned)number;
        else if (option == 's')
            options.seed = number;
        else if (option == 'm')
            options.machine_mib = (unsigned)number;
        else
            optind = argc;
    }
    if (optind + 2 != argc) {
        fprintf(stderr, "usage: soak [-t SECONDS] [-n VMS] [-s SEED] [-m MACHINE_MIB] WORKER "
                        "GUEST_IMAGE\n");
        return 2;
    }
    options.worker = argv[optind];
    options.image = argv[optind + 1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
