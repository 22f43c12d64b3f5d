/*
 * Content-based sharing against the kernel's ksmd: the same pages, on the same
 * machine, in one run, by turns. Ours is the daemon's own engine with a worker
 * process; ksmd works over mergeable memory of a child process (ksmd.h: when it is
 * used at all, and how its settings are put back). Without it only our figures are
 * printed.
 *
 * Pages, mixed: a tenth zeroes, a fifth pairs, a fifth copies of twenty, half of a
 * kind of their own, in random order. Different: each of its own.
 *
 * Cost is processor time of everybody who works for sharing. Ours: this process,
 * which is the supervisor, and the worker's threads but its guest's. ksmd's: its
 * thread. Each figure is the median of the rounds; "spread" has the least and the
 * most.
 *
 *   steady  pages covered a second of processor time once all is shared. ksmd's
 *           count includes the pages that its smart scan skips
 *   first   pages of the first pass a second of it. Both share from the second pass
 *           on: ksmd takes checksums, ours leaves hints. A figure for mixed pages, and
 *           one for different pages, where neither has anything to share
 *   95 %    time until 95 % of what can be saved is. Ours has a budget; ksmd is held
 *           to the share of a core that ours then used, and what it is off that, since
 *           the machine had other work, is reckoned out of its time
 *
 * usage: sharing_bench [--rounds N] [--pages N] [--budget PERCENT] [--without-ksmd]
 */
#include "daemon/supervisor.h"
#include "daemon/supervisor_private.h"
#include "tests/bench/ksmd.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST_ROUNDS      15
#define MIB              (UINT64_C(1) << 20)
#define PAGES_A_MIB      (MIB / PAGE_BYTES)
#define LIMIT_NS         (UINT64_C(120) * 1000000000)
#define STEADY_CPU_NS    UINT64_C(1000000000)
#define KSMD_BATCH       2048u
#define KSMD_QUIET_SCANS 20u /* without any more saved: its smart scan has settled too */

static unsigned rounds = 3;
static uint32_t pages = 131072;
static double budget_percent = 20;
static bool without_ksmd;

static int contents_fd;
static uint64_t savings_pages; /* that there are */

struct round {
    double steady, first, first_different; /* pages a second of processor time */
    double seconds_to_most;
    double cpu_share, cpu_seconds; /* used until then */
};

static char folder[64]; /* of the host that runs */
static volatile sig_atomic_t interrupted;

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (folder[0] && system(command) != 0)
        fprintf(stderr, "sharing_bench: %s failed\n", command);
    folder[0] = 0;
}

static _Noreturn void fail(const char *what, const char *why)
{
    fprintf(stderr, "sharing_bench: %s: %s\n", what, why);
    remove_folder();
    exit(1); /* the guard does the rest for ksmd */
}

static void on_interrupt(int number)
{
    interrupted = number;
}

/* Every loop asks: has it taken too long, or is it not wanted any more? */
static void within(uint64_t began_ns, const char *what)
{
    if (interrupted)
        fail(what, "interrupted");
    if (clock_monotonic_ns() > began_ns + LIMIT_NS)
        fail(what, "no end");
}

/* ---- contents ---- */

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* What the page at place i before shuffling is made of; 0: zeroes. */
static uint64_t kind_of(uint32_t i, bool mixed)
{
    if (!mixed)
        return UINT64_C(0x300000000) + i;
    if (i < pages / 10)
        return 0;
    if (i < pages / 10 * 3)
        return 1 + i / 2;
    if (i < pages / 10 * 5)
        return UINT64_C(0x100000000) + i / 20;
    return UINT64_C(0x200000000) + i;
}

static void write_contents(bool mixed)
{
    uint64_t page[PAGE_BYTES / 8], previous = 0;
    uint64_t *kinds = malloc(pages * sizeof *kinds);
    if (!contents_fd)
        contents_fd = memfd_create("pages", MFD_CLOEXEC);
    if (!kinds || contents_fd < 0)
        fail("pages", strerror(errno));
    savings_pages = 0;
    for (uint32_t i = 0; i < pages; i++) {
        kinds[i] = kind_of(i, mixed);
        savings_pages += kinds[i] == 0 || (i > 0 && kinds[i] == previous);
        previous = kinds[i];
    }
    for (uint32_t i = pages - 1; i > 0; i--) {
        uint32_t j = (uint32_t)(mix(i) % (i + 1));
        uint64_t kind = kinds[i];
        kinds[i] = kinds[j];
        kinds[j] = kind;
    }
    for (uint32_t i = 0; i < pages; i++) {
        for (unsigned word = 0; word < PAGE_BYTES / 8; word++)
            page[word] = kinds[i] ? mix(kinds[i] * 512 + word) : 0;
        if (pwrite(contents_fd, page, sizeof page, (off_t)i * PAGE_BYTES) != (ssize_t)sizeof page)
            fail("pages", strerror(errno));
    }
    free(kinds);
}

/* ---- ours ---- */

struct ours {
    sd_event *event;
    struct supervisor *supervisor;
    struct vm *vm;
    uint64_t began_ns;
};

/* At most a millisecond of the supervisor's loop. */
static void run(struct ours *ours)
{
    within(ours->began_ns, "ours");
    sd_event_run(ours->event, 1000);
}

static struct sharing_stats stats_of(const struct ours *ours)
{
    struct sharing_stats stats;
    supervisor_sharing_stats(ours->supervisor, &stats);
    return stats;
}

static uint64_t passes_of(const struct ours *ours)
{
    struct sharing_vm_counts counts;
    supervisor_sharing_vm_counts(ours->supervisor, ours->vm, &counts);
    return counts.passes;
}

/* This process and the worker, less the worker's first thread, which stands for the guest. */
static uint64_t ours_cpu_ns(const struct ours *ours)
{
    struct timespec now;
    char path[64];
    int pid = ours->vm->pid;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    uint64_t total_ns = (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    for (struct dirent *entry; tasks && (entry = readdir(tasks));)
        if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != pid)
            total_ns += thread_cpu_ns(pid, atoi(entry->d_name));
    if (tasks)
        closedir(tasks);
    return total_ns;
}

static void set_sharing(struct ours *ours, bool enabled, double cpu_percent, uint32_t pass_ms)
{
    struct err err;
    struct sharing_settings settings = stats_of(ours).settings;
    settings.enabled = enabled;
    settings.cpu_percent = cpu_percent;
    settings.pass_ms = pass_ms;
    settings.min_pages_per_second = settings.max_pages_per_second = 100000000;
    if (supervisor_set_sharing(ours->supervisor, &settings, &err) < 0)
        fail("settings", err.text);
}

/* A host with one VM whose memory holds the pages; nothing is shared yet. */
static void ours_start(struct ours *ours)
{
    struct err err;
    char path[4096], append[128];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    *ours = (struct ours){.began_ns = clock_monotonic_ns()};
    strcpy(folder, "/tmp/ballast-bench-XXXXXX");
    if (length <= 0 || !mkdtemp(folder) || sd_event_new(&ours->event) < 0)
        fail("start", strerror(errno));
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, "../daemon/sharing_worker");

    struct supervisor_config config;
    supervisor_config_default(&config);
    config.machine_bytes = (pages / PAGES_A_MIB + 64) * MIB;
    config.run_dir = folder;
    config.worker_path = path;
    config.overhead_bytes = MIB;
    config.policy = "static";
    config.sharing.enabled = false;
    ours->supervisor = supervisor_new(&config, ours->event, &err);
    if (!ours->supervisor)
        fail("supervisor", err.text);

    struct vm_settings settings;
    vm_settings_default(&settings);
    snprintf(append, sizeof append, "pages=%u content=file:/proc/%d/fd/%d", pages, getpid(),
             contents_fd);
    settings.name = "bench";
    settings.memory_bytes = settings.min_bytes = pages / PAGES_A_MIB * MIB;
    settings.kernel = "/dev/null";
    settings.append = append;
    ours->vm = supervisor_create_vm(ours->supervisor, &settings, &err);
    if (!ours->vm)
        fail("VM", err.text);
    while (ours->vm->life != LIFE_RUNNING)
        run(ours);
}

static void on_done(void *ctx, int result, const struct err *err)
{
    (void)err;
    *(int *)ctx = result;
}

static void ours_end(struct ours *ours)
{
    int result = 1;
    struct err err;
    if (supervisor_quit(ours->supervisor, on_done, &result, &err) < 0)
        fail("quit", err.text);
    while (result > 0)
        run(ours);
    supervisor_free(ours->supervisor);
    sd_event_unref(ours->event);
    remove_folder();
}

/* Pages a second of processor time in the first pass of a host that has just started. */
static double first_pass(struct ours *ours)
{
    uint64_t begin_ns = ours_cpu_ns(ours);
    set_sharing(ours, true, 100, 0);
    while (passes_of(ours) < 1 || !sharing_is_quiet(ours->supervisor))
        run(ours);
    return pages / ((double)(ours_cpu_ns(ours) - begin_ns) / 1e9);
}

static void ours_rates(struct round *round, struct sharing_stats *stats)
{
    struct ours ours;
    ours_start(&ours);
    round->first = first_pass(&ours);
    while (stats_of(&ours).saved_pages < savings_pages)
        run(&ours);
    for (uint64_t until = passes_of(&ours) + 3; passes_of(&ours) < until;)
        run(&ours);

    uint64_t spent_ns = 0, begin_ns = ours_cpu_ns(&ours);
    uint64_t begin_pages = stats_of(&ours).counts.covered_pages;
    while (spent_ns < STEADY_CPU_NS) {
        run(&ours);
        spent_ns = ours_cpu_ns(&ours) - begin_ns;
    }
    *stats = stats_of(&ours);
    round->steady = (double)(stats->counts.covered_pages - begin_pages) / ((double)spent_ns / 1e9);
    ours_end(&ours);
}

static void ours_different(struct round *round)
{
    struct ours ours;
    ours_start(&ours);
    round->first_different = first_pass(&ours);
    ours_end(&ours);
}

static void ours_to_most(struct round *round)
{
    struct ours ours;
    ours_start(&ours);
    uint64_t begin_cpu_ns = ours_cpu_ns(&ours), begin_ns = clock_monotonic_ns();
    set_sharing(&ours, true, budget_percent, 2000);
    while (stats_of(&ours).saved_pages < savings_pages * 95 / 100)
        run(&ours);
    round->seconds_to_most = (double)(clock_monotonic_ns() - begin_ns) / 1e9;
    round->cpu_seconds = (double)(ours_cpu_ns(&ours) - begin_cpu_ns) / 1e9;
    round->cpu_share = round->cpu_seconds / round->seconds_to_most;
    ours_end(&ours);
}

/* ---- ksmd ---- */

static void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000L}, NULL);
}

static int ksmd_start(void)
{
    int child = ksmd_child(contents_fd, pages);
    if (child < 0)
        fail("mergeable memory", strerror(errno));
    return child;
}

static double rate(struct ksmd_reading from, struct ksmd_reading to)
{
    return (double)(to.covered_pages - from.covered_pages) /
           ((double)(to.cpu_ns - from.cpu_ns) / 1e9);
}

static double ksmd_first_pass(uint64_t begin_ns)
{
    struct ksmd_reading begin = ksmd_read(), now = begin;
    ksmd_run(KSMD_BATCH, 0);
    while (now.full_scans == begin.full_scans) {
        sleep_ms(1);
        now = ksmd_read();
        within(begin_ns, "ksmd");
    }
    return rate(begin, now);
}

static void ksmd_different(struct round *round)
{
    int child = ksmd_start();
    round->first_different = ksmd_first_pass(clock_monotonic_ns());
    ksmd_end_child(child);
}

static void ksmd_rates(struct round *round)
{
    int child = ksmd_start();
    uint64_t begin_ns = clock_monotonic_ns();
    round->first = ksmd_first_pass(begin_ns);
    struct ksmd_reading begin, now = ksmd_read();
    uint64_t most_pages = 0, most_scans = now.full_scans;
    while (now.full_scans < most_scans + KSMD_QUIET_SCANS) {
        sleep_ms(5);
        now = ksmd_read();
        if (now.saved_pages > most_pages) {
            most_pages = now.saved_pages;
            most_scans = now.full_scans;
        }
        within(begin_ns, "ksmd");
    }
    begin = now;
    while (now.cpu_ns - begin.cpu_ns < STEADY_CPU_NS) {
        sleep_ms(5);
        now = ksmd_read();
        within(begin_ns, "ksmd");
    }
    round->steady = rate(begin, now);
    ksmd_end_child(child);
}

/* Hold it to a share of a core: batches as large as it is behind. */
static void ksmd_to_most(struct round *round, double cpu_share)
{
    int child = ksmd_start();
    struct ksmd_reading begin = ksmd_read(), now = begin;
    uint64_t begin_ns = clock_monotonic_ns(), elapsed_ns = 0;
    double pages_a_ns = round->first / 1e9;
    ksmd_run(1, 10);
    while (now.saved_pages < savings_pages * 95 / 100) {
        sleep_ms(5);
        now = ksmd_read();
        elapsed_ns = clock_monotonic_ns() - begin_ns;
        uint64_t used_ns = now.cpu_ns - begin.cpu_ns;
        if (used_ns && now.covered_pages > begin.covered_pages)
            pages_a_ns = (double)(now.covered_pages - begin.covered_pages) / (double)used_ns;
        double behind_ns = (double)elapsed_ns * cpu_share - (double)used_ns;
        double batch = behind_ns > 0 ? behind_ns * pages_a_ns : 0;
        ksmd_set_batch(batch < 1 ? 1 : batch > 65536 ? 65536 : (uint32_t)batch);
        within(begin_ns, "ksmd");
    }
    round->cpu_seconds = (double)(now.cpu_ns - begin.cpu_ns) / 1e9;
    round->cpu_share = round->cpu_seconds / ((double)elapsed_ns / 1e9);
    round->seconds_to_most = round->cpu_seconds / cpu_share;
    ksmd_end_child(child);
}

/* ---- figures ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct figure {
    double least, median, most;
};

static struct figure over_rounds(const struct round *row, size_t member)
{
    double values[MOST_ROUNDS];
    for (unsigned i = 0; i < rounds; i++)
        values[i] = *(const double *)((const char *)&row[i] + member);
    qsort(values, rounds, sizeof *values, compare_doubles);
    return (struct figure){values[0], values[rounds / 2], values[rounds - 1]};
}
#define OVER_ROUNDS(row, member) over_rounds(row, offsetof(struct round, member))

static void print_against(const char *name, const char *unit, struct figure ours,
                          const struct figure *peer, double bar)
{
    printf("{\"name\": \"sharing %s\", \"value\": %.4g, \"unit\": \"%s\", \"spread\": "
           "[%.4g, %.4g], ",
           name, ours.median, unit, ours.least, ours.most);
    if (peer)
        printf("\"peer\": \"ksmd\", \"peer_value\": %.4g, \"peer_spread\": [%.4g, %.4g], "
               "\"ratio\": %.3f, ",
               peer->median, peer->least, peer->most, ours.median / peer->median);
    else
        printf("\"peer\": null, \"peer_value\": null, \"ratio\": null, ");
    if (bar > 0)
        printf("\"bar\": %g}\n", bar);
    else
        printf("\"bar\": null}\n");
    fflush(stdout);
}

static void print_speed(const struct round *ours, const struct round *ksmd)
{
    static const struct {
        const char *name, *unit;
        size_t member;
        double bar;
    } lines[] = {
        {"steady state", "pages/CPU-s", offsetof(struct round, steady), 3},
        {"first pass, different pages", "pages/CPU-s", offsetof(struct round, first_different), 1},
        {"first pass, mixed pages", "pages/CPU-s", offsetof(struct round, first), 1},
        {"time to 95 % of savings", "s", offsetof(struct round, seconds_to_most), 0.5},
        {"processor time to 95 % of savings", "s", offsetof(struct round, cpu_seconds), 0},
        {"share of a core used until then", "cores", offsetof(struct round, cpu_share), 0},
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        struct figure peer = over_rounds(ksmd ? ksmd : ours, lines[i].member);
        print_against(lines[i].name, lines[i].unit, over_rounds(ours, lines[i].member),
                      ksmd ? &peer : NULL, lines[i].bar);
    }
}

static void print_memory(const struct sharing_stats *stats)
{
    double machine_bytes = (double)(pages / PAGES_A_MIB + 64) * MIB;
    const struct {
        const char *name;
        uint64_t bytes;
        double bar;
    } lines[] = {{"table memory", stats->table_bytes, 0.6},
                 {"memory of references with provenance", stats->reference_bytes, 0},
                 {"memory of breaks remembered", stats->breaks_bytes, 0},
                 {"memory of bits for pages to hash", stats->bitmap_bytes, 0}};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        double percent = 100.0 * (double)lines[i].bytes / machine_bytes;
        print_against(lines[i].name, "% of memory scanned",
                      (struct figure){percent, percent, percent}, NULL, lines[i].bar);
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {{"rounds", required_argument, NULL, 'r'},
                                            {"pages", required_argument, NULL, 'p'},
                                            {"budget", required_argument, NULL, 'b'},
                                            {"without-ksmd", no_argument, NULL, 'w'},
                                            {0}};
    for (int key; (key = getopt_long(argc, argv, "", options, NULL)) >= 0;) {
        if (key == 'r')
            rounds = (unsigned)strtoul(optarg, NULL, 10);
        else if (key == 'p')
            pages = (uint32_t)(strtoul(optarg, NULL, 10) / 512 * 512);
        else if (key == 'b')
            budget_percent = strtod(optarg, NULL);
        else if (key == 'w')
            without_ksmd = true;
        else
            exit(2);
    }
    if (rounds < 1 || rounds > MOST_ROUNDS || pages < 4096 || pages > 1u << 24 ||
        !(budget_percent > 0 && budget_percent <= 100))
        fail("options", "rounds 1 to 15, pages 4096 to 16777216, budget up to 100");
}

int main(int argc, char **argv)
{
    struct round ours[MOST_ROUNDS] = {0}, ksmd[MOST_ROUNDS] = {0};
    struct sharing_stats stats = {0};
    char why[256];
    read_options(argc, argv);
    bool peer = !without_ksmd && ksmd_usable(why, sizeof why);
    if (!peer && !without_ksmd)
        fprintf(stderr, "sharing_bench: without ksmd: %s\n", why);
    else if (ksmd_guard() < 0)
        fail("guard of ksmd's settings", strerror(errno));
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    write_contents(true);
    for (unsigned i = 0; i < rounds; i++) {
        ours_rates(&ours[i], &stats);
        ours_to_most(&ours[i]);
        if (peer) {
            ksmd_rates(&ksmd[i]);
            ksmd_to_most(&ksmd[i], ours[i].cpu_share);
        }
    }
    write_contents(false);
    for (unsigned i = 0; i < rounds; i++) {
        ours_different(&ours[i]);
        if (peer)
            ksmd_different(&ksmd[i]);
    }
    print_speed(ours, peer ? ksmd : NULL);
    print_memory(&stats);
    if (peer && !ksmd_unguard())
        fail("ksmd", "its settings could not be put back");
    return 0;
}
