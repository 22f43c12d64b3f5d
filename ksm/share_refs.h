/*
 * References to shared frames, with provenance: which page of which owner maps
 * which frame, since when, and how that was found. The supervisor's own record,
 * against which every message of a worker is checked.
 *
 * One record a reference, found by (owner, page) through a hash table, and linked
 * with the other references of its frame, so that "who shares this frame?" costs
 * the sharers and not the table. Memory: 48 bytes a record, 4 a hash slot (at
 * most two slots a record), 4 a frame; reported apart from the sharing table.
 * Since when and how a frame as a whole has been shared outlives the reference it
 * began with: each record keeps it. Not locked: one owner.
 */
#ifndef BALLAST_SHARE_REFS_H
#define BALLAST_SHARE_REFS_H

#include <stdbool.h>
#include <stdint.h>

enum share_how {
    SHARE_HOW_HINT = 0, /* two private pages met: this one was the hint, or matched it */
    SHARE_HOW_SHARED,   /* a private page met a shared frame */
    SHARE_HOW_ZERO,     /* a page of zeroes was given the zero frame */
    SHARE_HOW_PAGING,   /* found when it was about to be paged out */
    SHARE_HOW_CLONE,    /* mapped shared from the start */
    SHARE_HOWS
};

struct share_ref {
    uint64_t since_ns;
    uint32_t owner, page, frame;
    enum share_how how;
    /* Filled in by the functions below: the first of the references that have followed one another
     * on this frame without a gap. */
    uint64_t frame_since_ns;
    enum share_how frame_how;
};

struct share_refs;

/* Records for frames 0..frames-1. NULL: out of memory. */
struct share_refs *share_refs_new(uint32_t frames);
void share_refs_free(struct share_refs *refs);

/* Add a reference (its frame_ members are ignored). -1 without effect: (owner, page) has one
 * already, frame out of range, or no memory. */
int share_refs_add(struct share_refs *refs, const struct share_ref *ref);

/* The reference of (owner, page) into *ref (may be NULL); false: there is none. */
bool share_refs_find(const struct share_refs *refs, uint32_t owner, uint32_t page,
                     struct share_ref *ref);

/* Remove the reference of (owner, page), which must be to frame; -1 without effect otherwise. */
int share_refs_remove(struct share_refs *refs, uint32_t owner, uint32_t page, uint32_t frame);

/* Fetch into the cache what an addition to that frame reads first. */
void share_refs_prefetch(const struct share_refs *refs, uint32_t frame);

/* References of a frame now. */
uint32_t share_refs_count(const struct share_refs *refs, uint32_t frame);

/* Visit the references of one frame (or of all frames of one owner) until visit returns false.
 * visit may not change refs. */
typedef bool (*share_refs_visit)(void *ctx, const struct share_ref *ref);
void share_refs_of_frame(const struct share_refs *refs, uint32_t frame, share_refs_visit visit,
                         void *ctx);
void share_refs_of_owner(const struct share_refs *refs, uint32_t owner, share_refs_visit visit,
                         void *ctx);

uint64_t share_refs_bytes(const struct share_refs *refs);
uint64_t share_refs_total(const struct share_refs *refs);

/* Number of violations: every record on its hash chain and frame list exactly once. */
uint32_t share_refs_check(const struct share_refs *refs);

#endif
