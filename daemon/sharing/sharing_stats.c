/*
 * What sharing can be asked: counters, pairs, provenance. How to read them:
 *
 *   references     pages of VMs that map a shared frame
 *   shared frames  frames that they map together
 *   saved          references - shared frames + pages that map the zero frame, less
 *                  those counted already whose worker has not said yet that they
 *                  share. Frames, not bytes, and gross: what it costs stands beside it
 *                  (cpu_ns, breaks, table and reference bytes)
 *   of one VM      its references less its charge (charges.c) plus its zero pages;
 *                  under the charge "equal" these add up to the host's, but for rounding
 *   of a pair      its part of what each frame both map saves (supervisor.h)
 *   breaks         references that ended with a store; each cost the guest a fault
 *                  and a copy
 *
 * COUNTERS.md says it to those who read the numbers, with examples that are executed.
 */
#include "daemon/sharing/sharing_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *how_name(enum share_how how)
{
    static const char *const names[SHARE_HOWS] = {
        [SHARE_HOW_HINT] = "hint",     [SHARE_HOW_SHARED] = "shared", [SHARE_HOW_ZERO] = "zero",
        [SHARE_HOW_PAGING] = "paging", [SHARE_HOW_CLONE] = "clone",
    };
    return how < SHARE_HOWS ? names[how] : "unknown";
}

static uint64_t shared_frames(const struct sharing *sharing)
{
    return machine_memory_counts(sharing->machine).shared_pages;
}

uint64_t sharing_references(const struct vm *vm)
{
    return vm->sharing->references + vm->sharing->zero_references;
}

bool sharing_has_reference(const struct vm *vm, ppn_t ppn, mpn_t mpn)
{
    return record_has(vm, ppn, mpn);
}

/* Between a RELEASED and its DONE a page may be in none of these numbers: not below 0. */
static uint64_t saved(uint64_t references, uint64_t zero_references, uint64_t frames,
                      uint64_t asked_pages)
{
    uint64_t mapped = references + zero_references, needed = frames + asked_pages;
    return mapped > needed ? mapped - needed : 0;
}

static uint64_t saved_pages(const struct sharing *sharing)
{
    return saved(sharing->references, sharing->zero_references, shared_frames(sharing),
                 sharing->asked_pages);
}

void sharing_fill_row(const struct vm *vm, struct vm_row *row)
{
    const struct vm_sharing *own = vm->sharing;
    row->shared_charge_pages = sharing_charged_pages(vm);
    row->shared_references = own->references;
    row->zero_pages = own->zero_references;
    row->shared_saved_pages =
        saved(own->references, own->zero_references, row->shared_charge_pages, own->asked_pages);
    row->cow_breaks = own->counts.cow_breaks;
    row->false_matches = own->counts.false_matches;
    if (own->domain[0])
        row->valid |= VM_ROW_DOMAIN;
    memcpy(row->sharing_domain, own->domain, sizeof row->sharing_domain);
    row->sharing = own->enabled;
}

void sharing_fill_host_row(const struct supervisor *supervisor, struct host_row *row)
{
    const struct sharing *sharing = supervisor->sharing;
    struct share_counts counts;
    share_read_counts(sharing->table, &counts);
    row->shared_references = sharing->references;
    row->zero_references = sharing->zero_references;
    row->saved_pages = saved_pages(sharing);
    row->hint_frames = counts.frames_of[SHARE_HINT];
    row->sharing = sharing->settings.enabled;
    row->shared_charge = shared_charge_name(sharing->settings.charge);
}

void supervisor_sharing_stats(struct supervisor *supervisor, struct sharing_stats *stats)
{
    const struct sharing *sharing = supervisor->sharing;
    struct share_counts counts;
    share_read_counts(sharing->table, &counts);
    *stats = (struct sharing_stats){
        .settings = sharing->settings,
        .counts = sharing->counts,
        .shared_frames = shared_frames(sharing),
        .references = sharing->references,
        .zero_references = sharing->zero_references,
        .saved_pages = saved_pages(sharing),
        .hint_frames = counts.frames_of[SHARE_HINT],
        .asked_pages = sharing->asked_pages,
        .pending_frames = counts.frames_of[SHARE_PENDING],
        .waiting_pages = sharing->waiting_count,
        .table_bytes = counts.table_bytes,
        .reference_bytes = share_refs_bytes(sharing->refs),
        .breaks_bytes =
            BREAKS_KEPT * sizeof *sharing->breaks + PAIRS * sizeof *sharing->pair_breaks,
        .pages_per_second = sharing->pace.pages_per_second,
        .breaks = sharing->break_count,
    };
    const struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm->sharing->to_hash)
            stats->bitmap_bytes += (uint64_t)2 * vm->sharing->words * sizeof *vm->sharing->to_hash;
    }
    stats->net_saved_bytes = (int64_t)(stats->saved_pages * PAGE_BYTES) -
                             (int64_t)(stats->table_bytes + stats->reference_bytes +
                                       stats->bitmap_bytes + stats->breaks_bytes);
}

void supervisor_sharing_vm_counts(struct supervisor *supervisor, struct vm *vm,
                                  struct sharing_vm_counts *counts)
{
    (void)supervisor;
    *counts = vm->sharing->counts;
}

/* ---- pairs ---- */

#define BREAK_LOOKS 64u /* other references of its frame that a break looks at for pairs */

struct pair {
    uint64_t frames;
    double saved_pages;
};

struct pairing {
    const struct sharing *sharing;
    struct pair *pairs;          /* by two VM numbers */
    uint16_t sharers[MAX_VMS];   /* of the frame at hand */
    uint32_t pages[MAX_VMS + 1]; /* of each VM that map it */
    unsigned count;
    uint32_t references; /* of that frame */
};

static bool see_sharer(void *ctx, const struct share_ref *ref)
{
    struct pairing *pairing = ctx;
    if (!pairing->pages[ref->owner]++)
        pairing->sharers[pairing->count++] = (uint16_t)ref->owner;
    pairing->references++;
    return true;
}

static unsigned pair_index(unsigned a, unsigned b)
{
    return (a < b ? a : b) * (MAX_VMS + 1) + (a < b ? b : a);
}

/* One more frame for a pair, which has so many pairs of pages among all those of the frame. */
static void count_pair(struct pairing *pairing, unsigned a, unsigned b, double page_pairs)
{
    struct pair *pair = &pairing->pairs[pair_index(a, b)];
    pair->frames++;
    pair->saved_pages += 2 * page_pairs / pairing->references;
}

static void count_frame(struct pairing *pairing, mpn_t mpn)
{
    pairing->count = pairing->references = 0;
    share_refs_of_frame(pairing->sharing->refs, mpn, see_sharer, pairing);
    for (unsigned i = 0; i < pairing->count; i++) {
        unsigned a = pairing->sharers[i];
        double pages = pairing->pages[a];
        if (pages > 1)
            count_pair(pairing, a, a, pages * (pages - 1) / 2);
        for (unsigned j = 0; j < i; j++) {
            unsigned b = pairing->sharers[j];
            count_pair(pairing, a, b, pages * pairing->pages[b]);
        }
    }
    for (unsigned i = 0; i < pairing->count; i++)
        pairing->pages[pairing->sharers[i]] = 0;
}

int supervisor_sharing_pairs(struct supervisor *supervisor, struct sharing_pair *rows, unsigned max)
{
    struct pairing *pairing = calloc(1, sizeof *pairing);
    struct pair *pairs = calloc(PAIRS, sizeof *pairs);
    int found = -1;
    if (pairing && pairs) {
        const struct sharing *sharing = supervisor->sharing;
        pairing->sharing = sharing;
        pairing->pairs = pairs;
        for (mpn_t mpn = 0; mpn < machine_memory_pages(supervisor->machine); mpn++)
            if (machine_memory_is_shared(supervisor->machine, mpn))
                count_frame(pairing, mpn);
        found = 0;
        for (unsigned a = 1; a <= MAX_VMS; a++) {
            for (unsigned b = a; b <= MAX_VMS; b++) {
                const struct pair *pair = &pairs[pair_index(a, b)];
                uint32_t breaks = sharing->pair_breaks[pair_index(a, b)];
                if (!pair->frames && !breaks)
                    continue;
                if ((unsigned)found < max)
                    rows[found] = (struct sharing_pair){supervisor->by_number[a]->settings.name,
                                                        supervisor->by_number[b]->settings.name,
                                                        pair->frames, pair->saved_pages, breaks};
                found++;
            }
        }
    }
    free(pairing);
    free(pairs);
    return found;
}

struct breaking {
    const struct share_ref *broken;
    unsigned count, looked_at;
    uint16_t sharers[BREAK_LOOKS];
};

static bool see_other(void *ctx, const struct share_ref *ref)
{
    struct breaking *breaking = ctx;
    unsigned i = 0;
    if (ref->owner == breaking->broken->owner && ref->page == breaking->broken->page)
        return true;
    while (i < breaking->count && breaking->sharers[i] != ref->owner)
        i++;
    if (i == breaking->count)
        breaking->sharers[breaking->count++] = (uint16_t)ref->owner;
    return ++breaking->looked_at < BREAK_LOOKS;
}

static void count_pair_breaks(struct sharing *sharing, const struct share_ref *ref)
{
    struct breaking breaking = {.broken = ref};
    if (ref->frame == sharing->zero) /* which is nobody's in common */
        return;
    share_refs_of_frame(sharing->refs, ref->frame, see_other, &breaking);
    for (unsigned i = 0; i < breaking.count; i++)
        sharing->pair_breaks[pair_index(ref->owner, breaking.sharers[i])]++;
}

void pairs_forget(struct sharing *sharing, uint16_t number)
{
    for (unsigned other = 0; other <= MAX_VMS; other++)
        sharing->pair_breaks[pair_index(number, other)] = 0;
}

/* ---- provenance ---- */

struct listing {
    const struct supervisor *supervisor;
    struct sharing_reference *rows;
    unsigned max, count;
};

static struct sharing_reference as_reference(const struct supervisor *supervisor,
                                             const struct share_ref *ref)
{
    const struct vm *vm = supervisor->by_number[ref->owner];
    return (struct sharing_reference){vm ? vm->settings.name : "", ref->page, ref->since_ns,
                                      how_name(ref->how)};
}

static bool list_reference(void *ctx, const struct share_ref *ref)
{
    struct listing *listing = ctx;
    if (listing->count == listing->max)
        return false;
    listing->rows[listing->count++] = as_reference(listing->supervisor, ref);
    return true;
}

static bool first_reference(void *ctx, const struct share_ref *ref)
{
    *(struct share_ref *)ctx = *ref;
    return false;
}

int supervisor_sharing_frame(struct supervisor *supervisor, uint64_t mpn,
                             struct sharing_frame *frame, struct sharing_reference *rows,
                             unsigned max)
{
    const struct sharing *sharing = supervisor->sharing;
    struct listing listing = {supervisor, rows, max, 0};
    if (mpn > sharing->zero)
        return -1;
    *frame = (struct sharing_frame){.mpn = mpn, .kind = "zero"};
    if (mpn == sharing->zero) {
        frame->references = sharing->zero_references;
    } else {
        const struct frame *record = machine_memory_frame(sharing->machine, (mpn_t)mpn);
        frame->kind = record->owner == OWNER_NONE      ? "free"
                      : record->owner == OWNER_SHARED  ? "shared"
                      : record->owner == OWNER_LEAVING ? "leaving"
                                                       : "private";
        frame->references = record->owner == OWNER_SHARED ? record->references : 0;
        if (record->owner <= MAX_VMS && supervisor->by_number[record->owner])
            frame->vm = supervisor->by_number[record->owner]->settings.name;
        frame->hint = share_kind(sharing->table, (mpn_t)mpn) == SHARE_HINT;
    }
    share_refs_of_frame(sharing->refs, (mpn_t)mpn, list_reference, &listing);
    struct share_ref first = {.owner = 0};
    share_refs_of_frame(sharing->refs, (mpn_t)mpn, first_reference, &first);
    if (frame->references && first.owner) { /* not while its first one is still being made */
        frame->since_ns = first.frame_since_ns;
        frame->how = how_name(first.frame_how);
    }
    return (int)listing.count;
}

int supervisor_sharing_page(struct supervisor *supervisor, struct vm *vm, uint64_t ppn,
                            uint64_t *mpn, struct sharing_reference *reference)
{
    struct share_ref ref;
    if (ppn >= vm->memory_pages ||
        !share_refs_find(supervisor->sharing->refs, vm->number, (uint32_t)ppn, &ref))
        return -1;
    *mpn = ref.frame;
    *reference = as_reference(supervisor, &ref);
    return 0;
}

void break_note(struct vm *vm, const struct share_ref *ref, uint64_t pc)
{
    struct sharing *sharing = sharing_of(vm);
    uint64_t now_ns = clock_monotonic_ns();
    count_pair_breaks(sharing, ref);
    struct sharing_break *noted = &sharing->breaks[sharing->break_count++ % BREAKS_KEPT];
    *noted = (struct sharing_break){.time_ns = now_ns,
                                    .age_ns = now_ns - ref->since_ns,
                                    .ppn = ref->page,
                                    .mpn = ref->frame,
                                    .pc = pc,
                                    .how = how_name(ref->how)};
    snprintf(noted->vm, sizeof noted->vm, "%s", vm->settings.name);
}

unsigned supervisor_sharing_breaks(struct supervisor *supervisor, struct sharing_break *rows,
                                   unsigned max)
{
    const struct sharing *sharing = supervisor->sharing;
    uint64_t kept = sharing->break_count < BREAKS_KEPT ? sharing->break_count : BREAKS_KEPT;
    unsigned count = kept < max ? (unsigned)kept : max;
    for (unsigned i = 0; i < count; i++)
        rows[i] = sharing->breaks[(sharing->break_count - 1 - i) % BREAKS_KEPT];
    return count;
}
