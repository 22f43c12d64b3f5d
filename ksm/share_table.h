/*
 * The sharing table (paper, section 4): which frames are known by content.
 *
 * One entry of 16 bytes for every frame of the memory it covers, the entry's
 * index being the frame's number, and an array of chain heads:
 *
 *   hint     a frame seen once, not write-protected. Keeps 32 bits of its hash
 *            and the page number it was seen at (the owner is the caller's to
 *            know). May be out of date at any time.
 *   pending  a hint whose owner is being asked to protect it, so that it can be
 *            hashed again; takes part in no other request.
 *   shared   a copy-on-write frame: 64-bit hash and count of references. Counts
 *            over 65534 continue in an overflow table.
 *
 *         0                      8          12      14      16
 *   hint  | hash low 32 | page   |   next    |   0   | kind  |
 *  shared |        hash          |   next    | refs  | kind  |
 *
 * A frame is in the table at most once, on the chain of its hash's low bits. The
 * table knows pages as bytes with a number; it never looks at one by itself, so
 * that the same table serves a running host and memory images. Not locked: one
 * owner.
 *
 * Memory: 16 bytes a frame and 4 bytes a chain head, with as many heads as the
 * largest power of two not over the number of frames: at most 20/4096 = 0.49 %
 * of the memory covered.
 */
#ifndef BALLAST_SHARE_TABLE_H
#define BALLAST_SHARE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define SHARE_PAGE_BYTES 4096u
#define SHARE_NONE       UINT32_MAX /* no frame */

enum share_kind { SHARE_FREE = 0, SHARE_HINT, SHARE_PENDING, SHARE_SHARED, SHARE_KINDS };

struct share_table;

/* A table for frames 0..frames-1 (at most 2^32 - 2). NULL: out of memory. */
struct share_table *share_table_new(uint32_t frames);
void share_table_free(struct share_table *table);

/*
 * share_hash: XXH3 64-bit of one page under the host's secret seed and a sharing
 * domain's salt. Pages of different domains get unrelated hashes, so they do not
 * meet; the caller still checks the domain before it shares.
 */
uint64_t share_hash(const void *page, uint64_t seed, uint64_t salt);

/*
 * share_find: the first frame after `after` (SHARE_NONE: from the start) on the
 * chain of hash that may hold that content: a shared frame with this hash or a
 * hint or pending frame with the same low 32 bits. SHARE_NONE when there is no
 * (other) one. Cost: the chain, about one entry.
 */
uint32_t share_find(const struct share_table *table, uint64_t hash, uint32_t after);

/* Fetch what share_find(hash) will read first into the cache, and then what it will read next, the
 * frame returned (or SHARE_NONE); each worth it a few look-ups ahead. */
void share_prefetch(const struct share_table *table, uint64_t hash);
uint32_t share_prefetch_entry(const struct share_table *table, uint64_t hash);

/*
 * Transitions. Each returns 0, or -1 without effect when the frame is not in the
 * state named first, or (share_overflow) memory for a large count is short.
 */
int share_add_hint(struct share_table *table, uint32_t frame, uint64_t hash,
                   uint32_t page);                              /* free -> hint */
int share_hit_hint(struct share_table *table, uint32_t frame);  /* hint -> pending */
int share_keep_hint(struct share_table *table, uint32_t frame); /* pending -> hint */
int share_make_shared(struct share_table *table, uint32_t frame, uint64_t hash); /* pending or free
                                                                     -> shared, one reference */
int share_ref(struct share_table *table, uint32_t frame);                     /* shared: one more */
int share_ref_many(struct share_table *table, uint32_t frame, uint32_t more); /* so many at once */
/* shared: one less. *left: references left; at 0 the frame is free (out of the table). */
int share_unref(struct share_table *table, uint32_t frame, uint32_t *left);
int share_forget(struct share_table *table, uint32_t frame); /* hint or pending -> free */

enum share_kind share_kind(const struct share_table *table, uint32_t frame);
uint32_t share_refs(const struct share_table *table, uint32_t frame); /* 0 unless shared */
uint32_t share_hint_page(const struct share_table *table,
                         uint32_t frame); /* of a hint or pending */
uint64_t share_shared_hash(const struct share_table *table, uint32_t frame);

struct share_counts {
    uint32_t frames_of[SHARE_KINDS]; /* frames in each state now */
    uint64_t references;             /* of all shared frames */
    uint64_t table_bytes;            /* entries, heads and overflow */
};
void share_read_counts(const struct share_table *table, struct share_counts *counts);

/* share_check: every chain is sound and every count true. Number of violations. */
uint32_t share_check(const struct share_table *table);

#endif
