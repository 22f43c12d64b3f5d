#include "ksm/share_refs.h"

#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

struct record {
    uint64_t since_ns, frame_since_ns;
    uint32_t owner, page, frame;
    uint32_t chain_next; /* hash chain; the free list uses it too */
    uint32_t frame_next, frame_previous;
    uint8_t how, frame_how;
    bool used; /* else on the free list */
};

struct share_refs {
    struct record *records;
    uint32_t room, free_head;
    uint32_t *chains;
    uint32_t chain_mask;
    uint32_t *frame_heads; /* record + 1, 0: none; so untouched frames cost no memory */
    uint32_t frames;
    uint32_t total;
};

struct share_refs *share_refs_new(uint32_t frames)
{
    struct share_refs *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->free_head = NONE;
    r->frames = frames;
    r->chain_mask = 1023;
    r->chains = malloc((r->chain_mask + 1) * sizeof *r->chains);
    r->frame_heads = calloc(frames ? frames : 1, sizeof *r->frame_heads);
    if (!r->chains || !r->frame_heads) {
        share_refs_free(r);
        return NULL;
    }
    memset(r->chains, 0xff, (r->chain_mask + 1) * sizeof *r->chains);
    return r;
}

void share_refs_free(struct share_refs *r)
{
    if (!r)
        return;
    free(r->records);
    free(r->chains);
    free(r->frame_heads);
    free(r);
}

/* Chains of the 16 pages of a block lie in one line of the cache: they come together. */
static uint32_t *chain_of(const struct share_refs *r, uint32_t owner, uint32_t page)
{
    uint64_t x = ((uint64_t)owner << 32 | page >> 4) * UINT64_C(0x9e3779b97f4a7c15);
    return &r->chains[((uint32_t)(x >> 32) << 4 | (page & 15)) & r->chain_mask];
}

static uint32_t find_record(const struct share_refs *r, uint32_t owner, uint32_t page)
{
    uint32_t at = *chain_of(r, owner, page);
    while (at != NONE && (r->records[at].owner != owner || r->records[at].page != page))
        at = r->records[at].chain_next;
    return at;
}

/* Twice as many records on the free list. */
static int grow_records(struct share_refs *r)
{
    uint32_t room = r->room ? r->room * 2 : 256;
    if (room <= r->room)
        return -1;
    struct record *larger = realloc(r->records, room * sizeof *larger);
    if (!larger)
        return -1;
    for (uint32_t i = room; i-- > r->room;) {
        larger[i].used = false;
        larger[i].chain_next = r->free_head;
        r->free_head = i;
    }
    r->records = larger;
    r->room = room;
    return 0;
}

/* Failing to grow only makes chains longer. */
static void grow_chains(struct share_refs *r)
{
    uint32_t mask = r->chain_mask * 2 + 1;
    uint32_t *chains = malloc(((size_t)mask + 1) * sizeof *chains);
    if (!chains)
        return;
    memset(chains, 0xff, ((size_t)mask + 1) * sizeof *chains);
    free(r->chains);
    r->chains = chains;
    r->chain_mask = mask;
    for (uint32_t i = 0; i < r->room; i++) {
        if (!r->records[i].used)
            continue;
        uint32_t *chain = chain_of(r, r->records[i].owner, r->records[i].page);
        r->records[i].chain_next = *chain;
        *chain = i;
    }
}

int share_refs_add(struct share_refs *r, const struct share_ref *ref)
{
    if (ref->frame >= r->frames || find_record(r, ref->owner, ref->page) != NONE)
        return -1;
    if (r->free_head == NONE && grow_records(r) < 0)
        return -1;
    if (r->total > r->chain_mask)
        grow_chains(r);

    uint32_t at = r->free_head;
    struct record *record = &r->records[at];
    r->free_head = record->chain_next;
    uint32_t *chain = chain_of(r, ref->owner, ref->page);
    uint32_t *head = &r->frame_heads[ref->frame];
    const struct record *other = *head ? &r->records[*head - 1] : NULL;
    *record = (struct record){
        .since_ns = ref->since_ns,
        .frame_since_ns = other ? other->frame_since_ns : ref->since_ns,
        .owner = ref->owner,
        .page = ref->page,
        .frame = ref->frame,
        .chain_next = *chain,
        .frame_next = *head - 1,
        .frame_previous = NONE,
        .how = (uint8_t)ref->how,
        .frame_how = other ? other->frame_how : (uint8_t)ref->how,
        .used = true,
    };
    if (*head != 0)
        r->records[*head - 1].frame_previous = at;
    *chain = at;
    *head = at + 1;
    r->total++;
    return 0;
}

static struct share_ref as_ref(const struct record *record)
{
    return (struct share_ref){.since_ns = record->since_ns,
                              .owner = record->owner,
                              .page = record->page,
                              .frame = record->frame,
                              .how = (enum share_how)record->how,
                              .frame_since_ns = record->frame_since_ns,
                              .frame_how = (enum share_how)record->frame_how};
}

void share_refs_prefetch(const struct share_refs *r, uint32_t frame)
{
    __builtin_prefetch(&r->frame_heads[frame]);
}

bool share_refs_find(const struct share_refs *r, uint32_t owner, uint32_t page,
                     struct share_ref *ref)
{
    uint32_t at = find_record(r, owner, page);
    if (at != NONE && ref)
        *ref = as_ref(&r->records[at]);
    return at != NONE;
}

int share_refs_remove(struct share_refs *r, uint32_t owner, uint32_t page, uint32_t frame)
{
    uint32_t at = find_record(r, owner, page);
    if (at == NONE || r->records[at].frame != frame)
        return -1;
    struct record *record = &r->records[at];
    uint32_t *link = chain_of(r, owner, page);
    while (*link != at)
        link = &r->records[*link].chain_next;
    *link = record->chain_next;

    if (record->frame_previous == NONE)
        r->frame_heads[frame] = record->frame_next + 1;
    else
        r->records[record->frame_previous].frame_next = record->frame_next;
    if (record->frame_next != NONE)
        r->records[record->frame_next].frame_previous = record->frame_previous;

    record->used = false;
    record->chain_next = r->free_head;
    r->free_head = at;
    r->total--;
    return 0;
}

uint32_t share_refs_count(const struct share_refs *r, uint32_t frame)
{
    uint32_t count = 0;
    if (frame < r->frames)
        for (uint32_t at = r->frame_heads[frame] - 1; at != NONE; at = r->records[at].frame_next)
            count++;
    return count;
}

void share_refs_of_frame(const struct share_refs *r, uint32_t frame, share_refs_visit visit,
                         void *ctx)
{
    if (frame >= r->frames)
        return;
    for (uint32_t at = r->frame_heads[frame] - 1; at != NONE; at = r->records[at].frame_next) {
        struct share_ref ref = as_ref(&r->records[at]);
        if (!visit(ctx, &ref))
            return;
    }
}

void share_refs_of_owner(const struct share_refs *r, uint32_t owner, share_refs_visit visit,
                         void *ctx)
{
    for (uint32_t at = 0; at < r->room; at++) {
        if (!r->records[at].used || r->records[at].owner != owner)
            continue;
        struct share_ref ref = as_ref(&r->records[at]);
        if (!visit(ctx, &ref))
            return;
    }
}

uint64_t share_refs_bytes(const struct share_refs *r)
{
    return (uint64_t)r->room * sizeof *r->records +
           ((uint64_t)r->chain_mask + 1) * sizeof *r->chains +
           (uint64_t)r->frames * sizeof *r->frame_heads;
}

uint64_t share_refs_total(const struct share_refs *r)
{
    return r->total;
}

uint32_t share_refs_check(const struct share_refs *r)
{
    uint32_t violations = 0, used = 0, chained = 0, listed = 0;
    for (uint32_t at = 0; at < r->room; at++)
        used += r->records[at].used;
    for (uint32_t chain = 0; chain <= r->chain_mask; chain++) {
        for (uint32_t at = r->chains[chain]; at != NONE; at = r->records[at].chain_next) {
            if (at >= r->room || ++chained > used)
                return violations + 1; /* a wild link or a loop */
            const struct record *record = &r->records[at];
            violations += chain_of(r, record->owner, record->page) != &r->chains[chain];
        }
    }
    for (uint32_t frame = 0; frame < r->frames; frame++) {
        uint32_t previous = NONE;
        for (uint32_t at = r->frame_heads[frame] - 1; at != NONE; at = r->records[at].frame_next) {
            if (at >= r->room || ++listed > used)
                return violations + 1;
            violations += r->records[at].frame != frame;
            violations += r->records[at].frame_previous != previous;
            previous = at;
        }
    }
    return violations + (chained != used) + (listed != used) + (used != r->total);
}
