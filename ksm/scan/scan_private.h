/* What the files of one scan share: scan.c reads, hashes and counts pages, scan_lists.c hash lists.
 */
#ifndef BALLAST_SCAN_PRIVATE_H
#define BALLAST_SCAN_PRIVATE_H

#include "ksm/scan/hash_list.h"
#include "ksm/scan/scan.h"
#include "ksm/share_table.h"

#include <pthread.h>

struct hashed_page {
    uint64_t low, high;
    uint64_t key;             /* of the content in the table */
    int32_t compressed_bytes; /* -1: not in the sample */
    bool zero, readable;
};

struct scan {
    struct page_source *sources;
    uint32_t source_count;
    const struct scan_options *options;
    struct scan_result *result;
    struct share_table *pages, *groups;
    uint64_t secret;       /* in every key: who writes a hash list cannot make chains long */
    uint32_t *first_frame; /* of every source; [source_count] is the end */
    uint32_t next_group;
    pthread_mutex_t table_lock;

    pthread_mutex_t unit_lock; /* the cursor: */
    uint32_t at_source, at_extent, at_frame;
    uint64_t at_page;

    _Atomic uint64_t done_pages;
    FILE *list; /* hash list being written */
    uint32_t list_source;
    struct hash_list_run list_run;
    uint64_t list_address; /* where the next page is expected */
    bool list_failed;
};

/* scan.c. The content's key in the table; that of a group of 512 pages by the low words of their
 * hashes; that of a group of equal pages. */
uint64_t scan_key(const struct scan *s, uint64_t low, uint64_t high);
uint64_t scan_group_key(const struct scan *s, const uint64_t *low);
uint64_t scan_equal_group_key(const struct scan *s, uint64_t page_low);
/* With the table lock held, or alone: so many pages of source of one content (frame is their entry
 * if they need one; -1: not in the sample of compression); so many equal groups. */
void scan_count_pages(struct scan *s, uint32_t source, uint32_t frame, uint64_t key,
                      uint32_t copies, int32_t compressed_bytes);
void scan_count_groups(struct scan *s, uint64_t key, uint64_t groups);

/* scan_lists.c. Pages of one content from address on go into the list that is being written (one
 * job only, so they come in order); its end; a source that is a list. */
void scan_list_pages(struct scan *s, uint32_t source, uint64_t address, uint64_t pages,
                     const struct hashed_page *page);
void scan_list_close(struct scan *s);
void scan_hash_list(struct scan *s, uint32_t source);

#endif
