/*
 * See share_table.h for the layout. A hint keeps only the low half of its hash,
 * so chains are chosen by the low bits, which every kind has.
 */
#include "ksm/share_table.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* The same function for the vector instructions of the processor at hand, where the library has it:
 * more than twice as fast. */
#ifdef HAVE_XXH3_DISPATCH
#include <xxh_x86dispatch.h>
#define SHARE_XXH3 XXH3_64bits_withSeed_dispatch
#else
#define SHARE_XXH3 XXH3_64bits_withSeed
#endif

/* refs holds counts up to REFS_MAX - 1; REFS_MAX says "look in the overflow table". */
#define REFS_MAX UINT16_MAX

struct share_entry {
    union {
        uint64_t hash; /* shared */
        struct {
            uint32_t hash_low;
            uint32_t page;
        } hint; /* hint, pending */
    };
    uint32_t next; /* link on the chain */
    uint16_t refs;
    uint16_t kind;
};
static_assert(sizeof(struct share_entry) == 16, "the paper's 16 bytes a frame");

/* Frames with REFS_MAX references or more, sorted by frame. There are at most
 * pages / 65535 of them, so that a sorted array is small and its look-up short. */
struct overflow {
    uint32_t frame;
    uint32_t refs;
};

/* A link is the complement of a frame, so that 0 is "none" and a new table is all zeroes: memory
 * that is not touched costs nothing. */
struct share_table {
    struct share_entry *entries;
    uint32_t *heads; /* links */
    uint32_t frames;
    uint32_t head_mask;
    struct overflow *overflow;
    uint32_t overflow_used, overflow_room;
    uint32_t frames_of[SHARE_KINDS];
    uint64_t references;
};

struct share_table *share_table_new(uint32_t frames)
{
    struct share_table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    uint32_t heads = 1;
    while (heads <= frames / 2)
        heads *= 2;
    t->frames = frames;
    t->head_mask = heads - 1;
    t->entries = calloc(frames ? frames : 1, sizeof *t->entries);
    t->heads = calloc(heads, sizeof *t->heads);
    if (!t->entries || !t->heads) {
        share_table_free(t);
        return NULL;
    }
    t->frames_of[SHARE_FREE] = frames;
    return t;
}

void share_table_free(struct share_table *t)
{
    if (!t)
        return;
    free(t->entries);
    free(t->heads);
    free(t->overflow);
    free(t);
}

uint64_t share_hash(const void *page, uint64_t seed, uint64_t salt)
{
    /* The salt goes through a multiplication first, so that salts 1, 2, 3 and a
     * seed that an attacker can guess differences of do not cancel out. */
    return SHARE_XXH3(page, SHARE_PAGE_BYTES, seed ^ salt * UINT64_C(0x9e3779b97f4a7c15));
}

static uint32_t hash_low_of(const struct share_entry *e)
{
    return e->kind == SHARE_SHARED ? (uint32_t)e->hash : e->hint.hash_low;
}

static bool entry_matches(const struct share_entry *e, uint64_t hash)
{
    return e->kind == SHARE_SHARED ? e->hash == hash : e->hint.hash_low == (uint32_t)hash;
}

uint32_t share_find(const struct share_table *t, uint64_t hash, uint32_t after)
{
    uint32_t frame =
        ~(after == SHARE_NONE ? t->heads[(uint32_t)hash & t->head_mask] : t->entries[after].next);
    while (frame != SHARE_NONE && !entry_matches(&t->entries[frame], hash))
        frame = ~t->entries[frame].next;
    return frame;
}

void share_prefetch(const struct share_table *t, uint64_t hash)
{
    __builtin_prefetch(&t->heads[(uint32_t)hash & t->head_mask]);
}

uint32_t share_prefetch_entry(const struct share_table *t, uint64_t hash)
{
    uint32_t frame = ~t->heads[(uint32_t)hash & t->head_mask];
    if (frame != SHARE_NONE)
        __builtin_prefetch(&t->entries[frame]);
    return frame;
}

static void set_kind(struct share_table *t, struct share_entry *e, enum share_kind kind)
{
    t->frames_of[e->kind]--;
    t->frames_of[kind]++;
    e->kind = (uint16_t)kind;
}

static bool in_state(const struct share_table *t, uint32_t frame, enum share_kind kind)
{
    return frame < t->frames && t->entries[frame].kind == kind;
}

static void link_entry(struct share_table *t, uint32_t frame, uint32_t hash_low)
{
    uint32_t *head = &t->heads[hash_low & t->head_mask];
    t->entries[frame].next = *head;
    *head = ~frame;
}

static void unlink_entry(struct share_table *t, uint32_t frame)
{
    uint32_t *link = &t->heads[hash_low_of(&t->entries[frame]) & t->head_mask];
    while (*link != ~frame)
        link = &t->entries[~*link].next;
    *link = t->entries[frame].next;
}

int share_add_hint(struct share_table *t, uint32_t frame, uint64_t hash, uint32_t page)
{
    if (!in_state(t, frame, SHARE_FREE))
        return -1;
    struct share_entry *e = &t->entries[frame];
    e->hint.hash_low = (uint32_t)hash;
    e->hint.page = page;
    e->refs = 0;
    set_kind(t, e, SHARE_HINT);
    link_entry(t, frame, (uint32_t)hash);
    return 0;
}

int share_hit_hint(struct share_table *t, uint32_t frame)
{
    if (!in_state(t, frame, SHARE_HINT))
        return -1;
    set_kind(t, &t->entries[frame], SHARE_PENDING);
    return 0;
}

int share_keep_hint(struct share_table *t, uint32_t frame)
{
    if (!in_state(t, frame, SHARE_PENDING))
        return -1;
    set_kind(t, &t->entries[frame], SHARE_HINT);
    return 0;
}

int share_make_shared(struct share_table *t, uint32_t frame, uint64_t hash)
{
    bool pending = in_state(t, frame, SHARE_PENDING);
    if (!pending && !in_state(t, frame, SHARE_FREE))
        return -1;
    if (pending)
        unlink_entry(t, frame);
    struct share_entry *e = &t->entries[frame];
    set_kind(t, e, SHARE_SHARED);
    e->hash = hash;
    e->refs = 1;
    t->references++;
    link_entry(t, frame, (uint32_t)hash);
    return 0;
}

/* Index of frame in the overflow table, or where it would be put. */
static uint32_t overflow_place(const struct share_table *t, uint32_t frame)
{
    uint32_t low = 0, high = t->overflow_used;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (t->overflow[middle].frame < frame)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int overflow_add(struct share_table *t, uint32_t frame, uint32_t refs)
{
    if (t->overflow_used == t->overflow_room) {
        uint32_t room = t->overflow_room ? t->overflow_room * 2 : 16;
        struct overflow *larger = realloc(t->overflow, room * sizeof *larger);
        if (!larger)
            return -1;
        t->overflow = larger;
        t->overflow_room = room;
    }
    uint32_t at = overflow_place(t, frame);
    memmove(&t->overflow[at + 1], &t->overflow[at], (t->overflow_used - at) * sizeof *t->overflow);
    t->overflow[at] = (struct overflow){frame, refs};
    t->overflow_used++;
    return 0;
}

static void overflow_remove(struct share_table *t, uint32_t at)
{
    t->overflow_used--;
    memmove(&t->overflow[at], &t->overflow[at + 1], (t->overflow_used - at) * sizeof *t->overflow);
}

int share_ref_many(struct share_table *t, uint32_t frame, uint32_t more)
{
    if (!in_state(t, frame, SHARE_SHARED))
        return -1;
    struct share_entry *e = &t->entries[frame];
    if (e->refs == REFS_MAX) {
        struct overflow *o = &t->overflow[overflow_place(t, frame)];
        if (o->refs > UINT32_MAX - more)
            return -1;
        o->refs += more;
    } else if (more >= (uint32_t)(REFS_MAX - e->refs)) {
        if (more > UINT32_MAX - e->refs || overflow_add(t, frame, e->refs + more) < 0)
            return -1;
        e->refs = REFS_MAX;
    } else {
        e->refs = (uint16_t)(e->refs + more);
    }
    t->references += more;
    return 0;
}

int share_ref(struct share_table *t, uint32_t frame)
{
    return share_ref_many(t, frame, 1);
}

int share_unref(struct share_table *t, uint32_t frame, uint32_t *left)
{
    if (!in_state(t, frame, SHARE_SHARED))
        return -1;
    struct share_entry *e = &t->entries[frame];
    t->references--;
    if (e->refs == REFS_MAX) {
        uint32_t at = overflow_place(t, frame);
        *left = --t->overflow[at].refs;
        if (*left < REFS_MAX) {
            e->refs = (uint16_t)*left;
            overflow_remove(t, at);
        }
        return 0;
    }
    *left = --e->refs;
    if (*left == 0) {
        unlink_entry(t, frame);
        set_kind(t, e, SHARE_FREE);
    }
    return 0;
}

int share_forget(struct share_table *t, uint32_t frame)
{
    if (!in_state(t, frame, SHARE_HINT) && !in_state(t, frame, SHARE_PENDING))
        return -1;
    unlink_entry(t, frame);
    set_kind(t, &t->entries[frame], SHARE_FREE);
    return 0;
}

enum share_kind share_kind(const struct share_table *t, uint32_t frame)
{
    return frame < t->frames ? (enum share_kind)t->entries[frame].kind : SHARE_FREE;
}

uint32_t share_refs(const struct share_table *t, uint32_t frame)
{
    if (!in_state(t, frame, SHARE_SHARED))
        return 0;
    uint16_t refs = t->entries[frame].refs;
    return refs == REFS_MAX ? t->overflow[overflow_place(t, frame)].refs : refs;
}

uint32_t share_hint_page(const struct share_table *t, uint32_t frame)
{
    return t->entries[frame].hint.page;
}

uint64_t share_shared_hash(const struct share_table *t, uint32_t frame)
{
    return t->entries[frame].hash;
}

void share_read_counts(const struct share_table *t, struct share_counts *counts)
{
    memcpy(counts->frames_of, t->frames_of, sizeof counts->frames_of);
    counts->references = t->references;
    counts->table_bytes = (uint64_t)t->frames * sizeof *t->entries +
                          ((uint64_t)t->head_mask + 1) * sizeof *t->heads +
                          (uint64_t)t->overflow_room * sizeof *t->overflow;
}

uint32_t share_check(const struct share_table *t)
{
    uint32_t violations = 0, linked = 0;
    uint64_t references = 0;
    uint32_t frames_of[SHARE_KINDS] = {0};

    for (uint32_t head = 0; head <= t->head_mask; head++) {
        for (uint32_t frame = ~t->heads[head]; frame != SHARE_NONE;
             frame = ~t->entries[frame].next) {
            if (frame >= t->frames || ++linked > t->frames)
                return violations + 1; /* a wild link or a loop: no use going on */
            const struct share_entry *e = &t->entries[frame];
            violations += e->kind == SHARE_FREE;
            violations += (hash_low_of(e) & t->head_mask) != head;
        }
    }
    for (uint32_t frame = 0; frame < t->frames; frame++) {
        frames_of[t->entries[frame].kind]++;
        uint32_t refs = share_refs(t, frame);
        references += refs;
        violations += t->entries[frame].kind == SHARE_SHARED && refs == 0;
    }
    violations += linked != t->frames - frames_of[SHARE_FREE];
    violations += references != t->references;
    violations += memcmp(frames_of, t->frames_of, sizeof frames_of) != 0;
    return violations;
}
