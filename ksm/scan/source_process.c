/*
 * A live process: its private anonymous and shared-memory mappings, read through
 * /proc/PID/mem; /proc/PID/pagemap says which pages exist (present or swapped),
 * so that memory never touched is not counted. Documentation/admin-guide/mm/
 * pagemap.rst: bit 63 present, bit 62 swapped.
 */
#include "ksm/scan/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGEMAP_EXISTS (UINT64_C(3) << 62)

/* Guest memory of QEMU and others: anonymous, memfd, /dev/shm or hugetlbfs, writable. */
static bool is_memory_mapping(const char *permissions, const char *path)
{
    if (permissions[0] != 'r' || permissions[1] != 'w')
        return false;
    return path[0] == '\0' || strcmp(path, "[heap]") == 0 || strncmp(path, "[anon", 5) == 0 ||
           strncmp(path, "/memfd:", 7) == 0 || strncmp(path, "/dev/shm/", 9) == 0 ||
           strncmp(path, "/dev/zero", 9) == 0 || strstr(path, "hugepages") != NULL;
}

static int add_mapping(struct page_source *source, int pagemap, uint64_t start, uint64_t end)
{
    uint64_t words[512];
    struct extent run = {.address = start, .offset = start};
    for (uint64_t at = start; at < end;) {
        uint64_t pages = (end - at) / SCAN_PAGE_BYTES;
        if (pages > 512)
            pages = 512;
        ssize_t got = pread(pagemap, words, pages * sizeof *words,
                            (off_t)(at / SCAN_PAGE_BYTES * sizeof *words));
        if (got <= 0)
            break;
        pages = (uint64_t)got / sizeof *words;
        if (pages == 0)
            break;
        for (uint64_t i = 0; i < pages; i++, at += SCAN_PAGE_BYTES) {
            if (words[i] & PAGEMAP_EXISTS) {
                if (run.pages == 0)
                    run.address = run.offset = at;
                run.pages++;
            } else if (run.pages) {
                if (source_add_extent(source, &run) < 0)
                    return -1;
                run.pages = 0;
            }
        }
    }
    return run.pages ? source_add_extent(source, &run) : 0;
}

/* The files of one process. Opened below one folder, so that they are of one process even if its
 * number is another's meanwhile. */
struct process_files {
    int pagemap;
    FILE *maps;
};

/* 0 or errno. source->fd becomes its memory. */
static int open_files(struct page_source *source, pid_t pid, struct process_files *files)
{
    char path[64];
    int error = 0, folder, maps;
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return errno;
    if ((source->fd = openat(folder, "mem", O_RDONLY | O_CLOEXEC)) < 0 ||
        (files->pagemap = openat(folder, "pagemap", O_RDONLY | O_CLOEXEC)) < 0 ||
        (maps = openat(folder, "maps", O_RDONLY | O_CLOEXEC)) < 0) {
        error = errno;
    } else if (!(files->maps = fdopen(maps, "r"))) {
        error = errno;
        close(maps);
    }
    close(folder);
    return error;
}

static void close_files(struct process_files *files)
{
    if (files->maps)
        fclose(files->maps);
    if (files->pagemap >= 0)
        close(files->pagemap);
}

/* -1: out of memory. */
static int add_mappings(struct page_source *source, const struct process_files *files,
                        uint64_t min_mapping_bytes)
{
    char *line = NULL;
    size_t room = 0;
    int result = 0;
    while (result == 0 && getline(&line, &room, files->maps) > 0) {
        uint64_t start, end;
        char permissions[5] = "", name[2048] = "";
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %2047[^\n]", &start, &end,
                   permissions, name) < 3)
            continue;
        if (end > start && end - start >= min_mapping_bytes && is_memory_mapping(permissions, name))
            result = add_mapping(source, files->pagemap, start, end);
    }
    free(line);
    return result;
}

int source_open_process(struct page_source *source, pid_t pid, uint64_t min_mapping_bytes,
                        scan_warn warn, char *error, size_t error_bytes)
{
    (void)warn;
    struct process_files files = {.pagemap = -1};
    char name[32];
    *source = (struct page_source){.fd = -1, .ends_early = true};
    snprintf(name, sizeof name, "pid:%d", (int)pid);
    source->name = strdup(name);
    int why = source->name ? open_files(source, pid, &files) : ENOMEM;
    if (why == 0 && add_mappings(source, &files, min_mapping_bytes) < 0)
        why = ENOMEM;
    close_files(&files);
    if (why == 0 && source->pages > 0)
        return 0;
    if (why == ENOENT || why == ESRCH)
        snprintf(error, error_bytes, "%s: no such process", name);
    else if (why)
        snprintf(error, error_bytes, "%s: %s", name, strerror(why));
    else
        snprintf(error, error_bytes, "%s: no memory mapping of that size", name);
    source_close(source);
    return -1;
}
