/*
 * Hash lists of other hosts: whatever the bytes, opening ends in an error that names the file and
 * the line, or in a list whose every page is counted once, in memory bounded by its lines; and a
 * list written from what was read says the same again.
 */
#include "ksm/scan/hash_list.h"
#include "ksm/scan/scan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void no_warning(const char *text)
{
    (void)text;
    abort(); /* a list that was good when it was opened has not changed */
}

static const struct scan_options options = {.jobs = 1, .warn = no_warning};

static int open_list(struct page_source *source, int fd, char *path, char *error,
                     size_t error_bytes)
{
    sprintf(path, "/proc/self/fd/%d", fd);
    return source_open_file(source, path, no_warning, error, error_bytes);
}

/* The same runs, as this program writes them. */
static int rewrite(struct page_source *source)
{
    int fd = memfd_create("list again", MFD_CLOEXEC);
    FILE *list = fd >= 0 ? fdopen(dup(fd), "w") : NULL;
    struct hash_list_run run = {0};
    unsigned long line = 1;
    uint64_t expected_address = 0;
    char error[256];
    int more;
    if (!list || hash_list_begin(list, source->name) < 0 ||
        fseek(source->hash_list, source->list_body, SEEK_SET) < 0)
        abort();
    while ((more = hash_list_next(source->hash_list, &run, &line, error, sizeof error)) > 0) {
        if (hash_list_write(list, &run, run.address != expected_address) < 0)
            abort();
        run.address += run.pages * SCAN_PAGE_BYTES;
        expected_address = run.address;
    }
    if (more < 0 || fclose(list) != 0)
        abort();
    return fd;
}

static void check(const struct scan_result *r, const struct page_source *sources)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < r->source_count; i++) {
        const struct scan_source_counts *c = &r->sources[i];
        if (c->pages != sources[i].pages || c->unreadable_pages != 0 ||
            c->pages - c->zero_pages != sources[i].counted_pages ||
            c->pages != c->zero_pages + c->distinct_pages + c->self_saved_pages)
            abort();
        pages += c->pages;
    }
    if (r->pages != pages || r->pages != r->distinct_pages + scan_reclaimable_pages(r) ||
        r->large_saved_groups > r->large_groups || r->large_groups > pages / SCAN_GROUP_PAGES)
        abort();
}

static void scan_twice(struct page_source *first)
{
    struct page_source sources[2] = {*first};
    struct scan_result r;
    char path[64], error[4608];
    int fd = rewrite(first);
    if (open_list(&sources[1], fd, path, error, sizeof error) < 0 ||
        strcmp(sources[0].name, sources[1].name) != 0)
        abort();
    if (scan_run(sources, 2, &options, &r, error, sizeof error) < 0) {
        if (first->counted_pages < SCAN_MAX_PAGES / 2)
            abort();
    } else {
        check(&r, sources);
        if (memcmp(&r.sources[0], &r.sources[1], sizeof r.sources[0]) != 0 ||
            r.pair_pages[1] != r.distinct_pages || r.pair_pages[2] != r.distinct_pages)
            abort();
        scan_result_free(&r);
    }
    source_close(&sources[1]);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char path[64], error[4608] = "";
    struct page_source source;
    int fd = memfd_create("list", MFD_CLOEXEC);
    if (fd < 0)
        abort();
    if (size == 0 || bytes[0] != '#') /* mostly what comes after the first line */
        if (write(fd, HASH_LIST_FIRST_LINE "\n", sizeof HASH_LIST_FIRST_LINE) < 0)
            abort();
    if (write(fd, bytes, size) != (ssize_t)size)
        abort();
    if (size >= 16 && bytes[0] == '#' && memcmp(bytes, "# ballast-hashes", 16) != 0) {
        close(fd); /* a raw image */
        return 0;
    }
    if (size > 0 && size < 16 && bytes[0] == '#') {
        close(fd);
        return 0;
    }
    if (open_list(&source, fd, path, error, sizeof error) < 0) {
        if (strncmp(error, path, strlen(path)) != 0 || error[strlen(path)] != ':')
            abort();
    } else {
        for (const char *c = source.name; *c; c++)
            if ((unsigned char)*c < ' ' || *c == 0x7f)
                abort();
        scan_twice(&source);
        source_close(&source);
    }
    close(fd);
    return 0;
}
