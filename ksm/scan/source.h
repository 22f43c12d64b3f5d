/*
 * Where pages come from when they are not ours: a source is a name and a list of
 * extents, runs of pages that one pread can fetch. A raw image, an ELF core and
 * a live process differ only in how their extents are found; one file each.
 *
 * A hash list is a source without extents: its pages come as hashes
 * (hash_list.h).
 */
#ifndef BALLAST_SCAN_SOURCE_H
#define BALLAST_SCAN_SOURCE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define SCAN_PAGE_BYTES  4096u
#define SCAN_GROUP_PAGES 512u /* pages in a 2 MiB page */

struct extent {
    uint64_t address; /* where the run lies in its address space, for 2 MiB alignment */
    uint64_t pages;
    uint64_t offset; /* of the first byte for pread; unused for zero runs */
    bool zero;       /* a hole: pages known to be zero without reading */
};

struct page_source {
    char *name;
    int fd; /* -1: hash list */
    struct extent *extents;
    uint32_t extent_count, extent_room;
    uint64_t pages;         /* sum over extents, or hashes in the list */
    uint64_t counted_pages; /* those of them that are not known to be zero */
    uint64_t tail_bytes;    /* bytes of a last page that the file does not fill; read as zero */
    FILE *hash_list;
    uint64_t list_runs; /* of the list: lines with hashes */
    long list_body;     /* where its second line begins */
    bool ends_early;    /* a live process may go away while it is read */
};

/* One line that went wrong but does not stop the scan; text without newline. */
typedef void (*scan_warn)(const char *text);

/*
 * Openers. Each fills *source and returns 0; or returns -1 with one line in
 * error (error_bytes long). A source that is partly readable warns and opens.
 *
 * source_open_file: a raw image, an ELF core (64-bit little-endian ET_CORE) or a
 * hash list, told apart by their first bytes.
 * source_open_process: the private and shared-memory mappings of a process of at
 * least min_mapping_bytes each, present pages only.
 */
int source_open_file(struct page_source *source, const char *path, scan_warn warn, char *error,
                     size_t error_bytes);
int source_open_process(struct page_source *source, pid_t pid, uint64_t min_mapping_bytes,
                        scan_warn warn, char *error, size_t error_bytes);
int source_open_core(struct page_source *source, scan_warn warn, char *error, size_t error_bytes);
int source_open_hash_list(struct page_source *source, char *error, size_t error_bytes);
void source_close(struct page_source *source);

/* A name goes to terminals and into lists: control characters in it, which another host may have
 * chosen, become '?'. */
void source_clean_name(char *name);

/* For openers: append a run; -1 out of memory. */
int source_add_extent(struct page_source *source, const struct extent *extent);

/*
 * source_read: pages of one extent, from page first of it. Missing bytes (a tail,
 * a file that shrank, a process that ended) read as zero. Returns how many of the
 * pages could be read.
 */
uint32_t source_read(const struct page_source *source, const struct extent *extent, uint64_t first,
                     uint32_t pages, uint8_t *to);

#endif
