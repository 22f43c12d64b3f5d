/*
 * ballast-scan: how much would content-based sharing save in memory that is not
 * ours? Raw images, ELF cores, live processes, directories of files, hash lists
 * of other hosts.
 */
#include "ksm/scan/scan.h"

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "Usage: ballast-scan [OPTION]... SOURCE...\n"
    "Say how much memory content-based page sharing would save.\n"
    "\n"
    "SOURCE is a raw memory image, an ELF core (virsh dump --memory-only, gcore), a hash\n"
    "list, a directory of such files, or pid:PID for a live process.\n"
    "\n"
    "  -j, --jobs=N            threads (default: processors)\n"
    "      --json              print JSON instead of the table\n"
    "      --plot=FILE         draw FILE (.png or .svg) with gnuplot\n"
    "      --compress=N        try lz4 on one in N different pages (default 64; 1 all, 0 none)\n"
    "      --write-hashes=DIR  write a hash list of every source to DIR/NAME.hashes\n"
    "      --min-mapping=MIB   of a process, take mappings of at least MIB (default 16)\n"
    "      --progress          show a progress bar (default: if standard error is a terminal)\n"
    "      --no-progress\n"
    "  -h, --help\n"
    "\n"
    "Exit status: 0 all sources read, 1 some could not be (the rest is reported), 2 none, or\n"
    "a usage error.\n";

struct arguments {
    struct page_source *sources;
    uint32_t count;
    uint64_t counted_pages;
    uint64_t min_mapping_bytes;
    bool some_failed;
};

static void warn_line(const char *text)
{
    char line[4608];
    snprintf(line, sizeof line, "%s", text);
    source_clean_name(line); /* names of files are in it */
    fprintf(stderr, "ballast-scan: %s\n", line);
}

static void show_progress(uint64_t done, uint64_t all)
{
    const int width = 40;
    int filled = all ? (int)(done * (uint64_t)width / all) : width;
    fprintf(stderr, "\r[%.*s%*s] %3d %%", filled, "########################################",
            width - filled, "", all ? (int)(done * 100 / all) : 100);
}

/* Makes room for one more source; NULL when there are too many. */
static struct page_source *new_source(struct arguments *a)
{
    if (a->count == SCAN_MAX_SOURCES) {
        fprintf(stderr, "ballast-scan: more than %u sources\n", SCAN_MAX_SOURCES);
        a->some_failed = true;
        return NULL;
    }
    return &a->sources[a->count];
}

/* A source that opened: part of the scan, unless it says that it is larger than any. */
static void accept_source(struct arguments *a, struct page_source *source)
{
    char text[4608];
    if (source->counted_pages >= SCAN_MAX_PAGES - a->counted_pages ||
        source->list_runs >= SCAN_MAX_PAGES) {
        snprintf(text, sizeof text, "%s: left out: more than 16 TiB of pages in one scan",
                 source->name);
        warn_line(text);
        source_close(source);
        a->some_failed = true;
        return;
    }
    a->counted_pages += source->counted_pages;
    a->count++;
}

static void add_file(struct arguments *a, const char *path)
{
    char error[4352];
    struct page_source *source = new_source(a);
    if (!source)
        return;
    if (source_open_file(source, path, warn_line, error, sizeof error) < 0) {
        warn_line(error);
        a->some_failed = true;
    } else {
        accept_source(a, source);
    }
}

static int not_hidden(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void add_directory(struct arguments *a, const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, not_hidden, alphasort);
    if (count < 0) {
        char text[4608];
        snprintf(text, sizeof text, "%s: %s", path, strerror(errno));
        warn_line(text);
        a->some_failed = true;
        return;
    }
    for (int i = 0; i < count; i++) {
        char file[4096];
        struct stat st;
        snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
        if (stat(file, &st) == 0 && S_ISREG(st.st_mode))
            add_file(a, file);
        free(entries[i]);
    }
    free(entries);
}

static void add_process(struct arguments *a, const char *digits)
{
    char error[512], *end;
    long pid = strtol(digits, &end, 10);
    struct page_source *source = new_source(a);
    if (!source)
        return;
    if (end == digits || *end || pid <= 0 || pid > INT32_MAX) {
        fprintf(stderr, "ballast-scan: pid:%s: not a process id\n", digits);
        a->some_failed = true;
    } else if (source_open_process(source, (pid_t)pid, a->min_mapping_bytes, warn_line, error,
                                   sizeof error) < 0) {
        warn_line(error);
        a->some_failed = true;
    } else {
        accept_source(a, source);
    }
}

static void add_source(struct arguments *a, const char *name)
{
    struct stat st;
    if (strncmp(name, "pid:", 4) == 0)
        add_process(a, name + 4);
    else if (stat(name, &st) == 0 && S_ISDIR(st.st_mode))
        add_directory(a, name);
    else
        add_file(a, name);
}

static unsigned long number(const char *option, const char *text, unsigned long most)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end || errno || value > most || text[0] == '-') {
        fprintf(stderr, "ballast-scan: --%s: '%s' is not a number from 0 to %lu\n", option, text,
                most);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    enum { JSON = 256, PLOT, COMPRESS, WRITE_HASHES, MIN_MAPPING, PROGRESS, NO_PROGRESS };
    static const struct option options[] = {
        {"jobs", required_argument, NULL, 'j'},
        {"json", no_argument, NULL, JSON},
        {"plot", required_argument, NULL, PLOT},
        {"compress", required_argument, NULL, COMPRESS},
        {"write-hashes", required_argument, NULL, WRITE_HASHES},
        {"min-mapping", required_argument, NULL, MIN_MAPPING},
        {"progress", no_argument, NULL, PROGRESS},
        {"no-progress", no_argument, NULL, NO_PROGRESS},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct scan_options scan = {.compress_every = 64, .warn = warn_line};
    struct arguments a = {.min_mapping_bytes = UINT64_C(16) << 20};
    bool json = false, progress = isatty(STDERR_FILENO);
    const char *plot = NULL;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    scan.jobs = processors > 0 ? (unsigned)processors : 1;

    for (int option; (option = getopt_long(argc, argv, "j:h", options, NULL)) != -1;) {
        switch (option) {
        case 'j':
            scan.jobs = (unsigned)number("jobs", optarg, 64);
            break;
        case JSON:
            json = true;
            break;
        case PLOT:
            plot = optarg;
            break;
        case COMPRESS:
            scan.compress_every = (unsigned)number("compress", optarg, 1u << 30);
            break;
        case WRITE_HASHES:
            scan.hashes_dir = optarg;
            break;
        case MIN_MAPPING:
            a.min_mapping_bytes = (uint64_t)number("min-mapping", optarg, 1ul << 40) << 20;
            break;
        case PROGRESS:
            progress = true;
            break;
        case NO_PROGRESS:
            progress = false;
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs("Try 'ballast-scan --help'.\n", stderr);
            return 2;
        }
    }
    if (optind == argc) {
        fputs("ballast-scan: no source given\nTry 'ballast-scan --help'.\n", stderr);
        return 2;
    }
    if (scan.jobs == 0)
        scan.jobs = 1;
    scan.progress = progress ? show_progress : NULL;
    signal(SIGPIPE, SIG_IGN); /* gnuplot may be missing: that is an error, not our end */

    a.sources = calloc(SCAN_MAX_SOURCES, sizeof *a.sources);
    if (!a.sources) {
        warn_line("out of memory");
        return 2;
    }
    for (int i = optind; i < argc; i++)
        add_source(&a, argv[i]);

    struct scan_result result;
    char error[4352];
    int status = a.some_failed ? 1 : 0;
    if (a.count == 0) {
        status = 2;
    } else if (scan_run(a.sources, a.count, &scan, &result, error, sizeof error) < 0) {
        warn_line(error);
        status = 2;
    } else {
        if (progress)
            fputs("\r\033[K", stderr);
        for (uint32_t i = 0; i < a.count; i++) {
            if (result.sources[i].unreadable_pages == 0)
                continue;
            fprintf(stderr, "ballast-scan: %s: %llu pages could not be read%s\n", a.sources[i].name,
                    (unsigned long long)result.sources[i].unreadable_pages,
                    a.sources[i].ends_early ? " (the process may have ended)" : "");
            status = 1;
        }
        if (json)
            scan_report_json(stdout, a.sources, &result);
        else
            scan_report_table(stdout, a.sources, &result);
        if (plot && scan_report_plot(plot, a.sources, &result, error, sizeof error) < 0) {
            warn_line(error);
            status = 1;
        }
        scan_result_free(&result);
    }
    if (fflush(stdout) != 0) {
        fprintf(stderr, "ballast-scan: standard output: %s\n", strerror(errno));
        status = 2;
    }
    for (uint32_t i = 0; i < a.count; i++)
        source_close(&a.sources[i]);
    free(a.sources);
    return status;
}
