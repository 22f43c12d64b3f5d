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

int source_open_process(struct page_source *source, pid_t pid, uint64_t min_mapping_bytes,
                        scan_warn warn, char *error, size_t error_bytes)
{
    (void)warn;
    char path[64], line[4096];
    *source = (struct page_source){.fd = -1, .ends_early = true};
    snprintf(path, sizeof path, "pid:%d", (int)pid);
    source->name = strdup(path);
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    source->fd = open(path, O_RDONLY | O_CLOEXEC);
    int open_errno = errno;
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)pid);
    int pagemap = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    if (!source->name || source->fd < 0 || pagemap < 0 || !maps) {
        int why = source->fd < 0 ? open_errno : errno;
        snprintf(error, error_bytes, "pid:%d: %s", (int)pid,
                 why == ENOENT ? "no such process" : strerror(why));
        goto fail;
    }
    while (fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        char permissions[5] = "", name[2048] = "";
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %2047[^\n]", &start, &end,
                   permissions, name) < 3)
            continue;
        if (end - start < min_mapping_bytes || !is_memory_mapping(permissions, name))
            continue;
        if (add_mapping(source, pagemap, start, end) < 0) {
            snprintf(error, error_bytes, "pid:%d: out of memory", (int)pid);
            goto fail;
        }
    }
    fclose(maps);
    close(pagemap);
    if (source->pages == 0) {
        snprintf(error, error_bytes, "pid:%d: no memory mapping of that size", (int)pid);
        source_close(source);
        return -1;
    }
    return 0;

fail:
    if (maps)
        fclose(maps);
    if (pagemap >= 0)
        close(pagemap);
    source_close(source);
    return -1;
}
