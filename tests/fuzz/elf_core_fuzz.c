/*
 * ELF cores: whatever the bytes, opening ends in an error that names the file, or in runs of pages
 * that lie inside the file and are all counted. The file goes on after the bytes, so that headers
 * alone can be cores that hold memory.
 */
#include "ksm/scan/scan.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BODY_BYTES (64 * SCAN_PAGE_BYTES)

static void take_warning(const char *text)
{
    if (!strstr(text, "/proc/self/fd/"))
        abort();
}

static void check_extents(const struct page_source *source, uint64_t file_bytes)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < source->extent_count; i++) {
        const struct extent *run = &source->extents[i];
        if (run->pages == 0 || run->pages > file_bytes / SCAN_PAGE_BYTES ||
            run->offset > file_bytes - run->pages * SCAN_PAGE_BYTES)
            abort();
        pages += run->pages;
    }
    if (pages != source->pages || pages > file_bytes / SCAN_PAGE_BYTES)
        abort();
}

static void scan_it(struct page_source *source)
{
    static const struct scan_options options = {
        .jobs = 1, .compress_every = 1, .warn = take_warning};
    struct scan_result r;
    char error[4608];
    if (scan_run(source, 1, &options, &r, error, sizeof error) < 0)
        abort();
    if (r.pages != source->pages || r.sources[0].unreadable_pages != 0 ||
        r.pages != r.distinct_pages + scan_reclaimable_pages(&r) ||
        r.large_groups > r.pages / SCAN_GROUP_PAGES)
        abort();
    scan_result_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char path[64], error[4608] = "";
    struct page_source source;
    uint64_t file_bytes = size + BODY_BYTES;
    int fd = memfd_create("core", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size ||
        pwrite(fd, ELFMAG, SELFMAG, 0) != SELFMAG)
        abort();
    /* Some pages differ. */
    if (ftruncate(fd, (off_t)file_bytes) < 0 || pwrite(fd, "1", 1, SCAN_PAGE_BYTES * 3) != 1 ||
        pwrite(fd, "2", 1, SCAN_PAGE_BYTES * 7) != 1)
        abort();
    sprintf(path, "/proc/self/fd/%d", fd);
    if (source_open_file(&source, path, take_warning, error, sizeof error) < 0) {
        if (strncmp(error, path, strlen(path)) != 0 || error[strlen(path)] != ':')
            abort();
    } else {
        check_extents(&source, file_bytes);
        scan_it(&source);
        source_close(&source);
    }
    close(fd);
    return 0;
}
