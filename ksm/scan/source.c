/* What all sources share, and the raw image. */
#include "ksm/scan/source.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int source_add_extent(struct page_source *source, const struct extent *extent)
{
    if (extent->pages == 0)
        return 0;
    if (source->extent_count == source->extent_room) {
        uint32_t room = source->extent_room ? source->extent_room * 2 : 16;
        struct extent *larger = realloc(source->extents, room * sizeof *larger);
        if (!larger)
            return -1;
        source->extents = larger;
        source->extent_room = room;
    }
    source->extents[source->extent_count++] = *extent;
    source->pages += extent->pages;
    source->counted_pages += extent->zero ? 0 : extent->pages;
    return 0;
}

void source_clean_name(char *name)
{
    for (unsigned char *c = (unsigned char *)name; *c; c++) {
        if (*c < ' ' || *c == 0x7f)
            *c = '?';
        else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0) /* the same beyond ASCII */
            c[0] = c[1] = '?';
    }
}

void source_close(struct page_source *source)
{
    if (source->hash_list)
        fclose(source->hash_list);
    else if (source->fd >= 0)
        close(source->fd);
    free(source->extents);
    free(source->name);
    *source = (struct page_source){.fd = -1};
}

uint32_t source_read(const struct page_source *source, const struct extent *extent, uint64_t first,
                     uint32_t pages, uint8_t *to)
{
    size_t want = (size_t)pages * SCAN_PAGE_BYTES, have = 0;
    while (have < want) {
        ssize_t got = pread(source->fd, to + have, want - have,
                            (off_t)(extent->offset + first * SCAN_PAGE_BYTES + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    memset(to + have, 0, want - have);
    return (uint32_t)((have + SCAN_PAGE_BYTES - 1) / SCAN_PAGE_BYTES);
}

/* A raw image: data and holes as the file system knows them. */
static int open_raw(struct page_source *source, uint64_t file_bytes, char *error,
                    size_t error_bytes)
{
    uint64_t at = 0, pages_end = (file_bytes + SCAN_PAGE_BYTES - 1) / SCAN_PAGE_BYTES;
    source->tail_bytes = file_bytes % SCAN_PAGE_BYTES;
    while (at < pages_end) {
        off_t data = lseek(source->fd, (off_t)(at * SCAN_PAGE_BYTES), SEEK_DATA);
        uint64_t data_page = data >= 0          ? (uint64_t)data / SCAN_PAGE_BYTES
                             : (errno == ENXIO) ? pages_end
                                                : at; /* no SEEK_DATA here: all is data */
        off_t hole = data < 0 ? -1 : lseek(source->fd, data, SEEK_HOLE);
        uint64_t hole_page =
            hole < 0 ? pages_end : ((uint64_t)hole + SCAN_PAGE_BYTES - 1) / SCAN_PAGE_BYTES;
        if (hole_page <= data_page && data_page < pages_end)
            hole_page = data_page + 1;
        struct extent run[2] = {
            {.address = at * SCAN_PAGE_BYTES, .pages = data_page - at, .zero = true},
            {.address = data_page * SCAN_PAGE_BYTES,
             .pages = data_page < pages_end ? hole_page - data_page : 0,
             .offset = data_page * SCAN_PAGE_BYTES},
        };
        if (source_add_extent(source, &run[0]) < 0 || source_add_extent(source, &run[1]) < 0) {
            snprintf(error, error_bytes, "%s: out of memory", source->name);
            return -1;
        }
        at = data_page < pages_end ? hole_page : pages_end;
    }
    return 0;
}

int source_open_file(struct page_source *source, const char *path, scan_warn warn, char *error,
                     size_t error_bytes)
{
    *source = (struct page_source){.fd = -1, .name = strdup(path)};
    source->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (!source->name || source->fd < 0 || fstat(source->fd, &st) < 0) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        source_close(source);
        return -1;
    }
    uint64_t file_bytes = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode)) {
        off_t end = lseek(source->fd, 0, SEEK_END);
        file_bytes = end > 0 ? (uint64_t)end : 0;
    } else if (!S_ISREG(st.st_mode)) {
        snprintf(error, error_bytes, "%s: neither a file nor a block device", path);
        source_close(source);
        return -1;
    }

    char start[16] = {0};
    ssize_t got = pread(source->fd, start, sizeof start, 0);
    int result;
    if (got < 0) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        result = -1;
    } else if (memcmp(start, ELFMAG, SELFMAG) == 0) {
        result = source_open_core(source, warn, error, error_bytes);
    } else if (memcmp(start, "# ballast-hashes", 16) == 0) {
        result = source_open_hash_list(source, error, error_bytes);
    } else {
        result = open_raw(source, file_bytes, error, error_bytes);
        if (result == 0 && source->tail_bytes) {
            char text[512];
            snprintf(text, sizeof text, "%s: last page has only %u bytes, the rest counts as zero",
                     path, (unsigned)source->tail_bytes);
            warn(text);
        }
    }
    if (result < 0)
        source_close(source);
    else
        source_clean_name(source->name);
    return result;
}
