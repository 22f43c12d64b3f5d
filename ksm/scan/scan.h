/*
 * One scan: every page of every source is hashed (XXH3, published seed) and put
 * into the sharing table, one shared entry for every (content, source); the
 * entry's reference count is how often the source holds that content. Zero pages
 * are counted beside the table.
 *
 * Two threads or more read and hash in groups of 512 pages; the table has one
 * lock, held for a group at a time.
 *
 * The table's key is made of that hash and a secret of the run, so that a hash list
 * cannot be written that makes its chains long.
 *
 * Contents are told apart by 64 bits of hash and never compared in full, because
 * the other page may be on another host: among n different contents, some two are
 * taken for equal with a probability of about n^2 / 2^65 (0.2 % for 1 TiB).
 */
#ifndef BALLAST_SCAN_H
#define BALLAST_SCAN_H

#include "ksm/scan/source.h"

#include <stdatomic.h>
#include <stddef.h>

#define SCAN_MAX_SOURCES 1024u
#define SCAN_MAX_PAGES                                                                             \
    (UINT64_C(0xfffffffe)) /* in one scan, not counting what is known to be zero */

struct scan_options {
    unsigned jobs;           /* threads */
    unsigned compress_every; /* lz4 one distinct page in this many, chosen by hash; 0: none */
    const char *hashes_dir;  /* write NAME.hashes for every source here (forces one job), or NULL */
    scan_warn warn;
    /* Called now and then by the main thread with pages done, or NULL. */
    void (*progress)(uint64_t done_pages, uint64_t all_pages);
};

struct scan_source_counts {
    uint64_t pages;            /* read */
    uint64_t unreadable_pages; /* went away, or the read failed: left out of all else */
    uint64_t zero_pages;
    uint64_t distinct_pages;   /* different contents other than zero */
    uint64_t self_saved_pages; /* further copies inside this source */
    uint64_t
        self_shared_pages; /* pages, not zero, whose content this source holds more than once */
    uint64_t cross_shared_pages;   /* pages, not zero, whose content another source holds too */
    uint64_t cross_distinct_pages; /* different contents, not zero, another source holds too */
};

struct scan_result {
    uint32_t source_count;
    struct scan_source_counts *sources;
    uint64_t *pair_pages; /* [i * source_count + j], i != j: different contents in both i and j */
    uint64_t pages, zero_pages, distinct_pages;
    uint64_t self_saved_pages;  /* copies inside one source */
    uint64_t cross_saved_pages; /* what sharing between sources saves on top */
    uint64_t shared_pages;      /* whose content, zero included, exists more than once */
    uint64_t large_groups, large_saved_groups; /* whole aligned 2 MiB groups; equal to another */
    uint64_t compress_sample_pages, compress_sample_bytes;
    uint64_t table_bytes; /* of the sharing tables */
    double seconds, cpu_seconds;
};

/* scan_run: 0, or -1 with one line in error: no memory, or more than SCAN_MAX_PAGES. What of a
 * source cannot be read is counted as unreadable. Free the result with scan_result_free. */
int scan_run(struct page_source *sources, uint32_t source_count, const struct scan_options *options,
             struct scan_result *result, char *error, size_t error_bytes);
void scan_result_free(struct scan_result *result);

/* Pages that sharing would give back: all but one of every content; every zero page. */
static inline uint64_t scan_reclaimable_pages(const struct scan_result *r)
{
    return r->zero_pages + r->self_saved_pages + r->cross_saved_pages;
}

/* Reports (scan_report.c). scan_report_plot runs gnuplot; the name's ending (.png, .svg) decides.
 */
void scan_report_table(FILE *to, const struct page_source *sources, const struct scan_result *r);
int scan_report_json(FILE *to, const struct page_source *sources, const struct scan_result *r);
int scan_report_plot(const char *path, const struct page_source *sources,
                     const struct scan_result *r, char *error, size_t error_bytes);

#endif
