/*
 * References and frames. Three records say who shares what, and every change of
 * one is made here together with the others:
 *
 *   share_refs      one entry a reference, by (VM, page) and by frame
 *   share_table     shared frames by content, with a count
 *   machine_memory  the frame table, with the same count
 *
 * A reference is counted before the worker is asked to map anything, so that
 * whatever a worker says in between finds it here, or finds nothing and is
 * refused. While a PROTECT is under way the reference exists and the frame is
 * still private: the page may still be given up as a private one.
 */
#include "daemon/sharing/sharing_private.h"

#include <stdio.h>

bool record_has(const struct vm *vm, ppn_t ppn, mpn_t mpn)
{
    struct share_ref ref;
    return share_refs_find(sharing_of(vm)->refs, vm->number, ppn, &ref) && ref.frame == mpn;
}

static void count_reference(struct vm *vm, mpn_t mpn, int change)
{
    struct sharing *sharing = sharing_of(vm);
    if (mpn == sharing->zero) {
        sharing->zero_references += (uint64_t)change;
        vm->sharing->zero_references += (uint64_t)change;
    } else {
        sharing->references += (uint64_t)change;
        vm->sharing->references += (uint64_t)change;
        if (change > 0)
            charges_added(vm, mpn);
        else
            charges_dropped(vm, mpn);
    }
}

bool record_add(struct vm *vm, ppn_t ppn, mpn_t mpn, enum share_how how)
{
    struct sharing *sharing = sharing_of(vm);
    struct share_ref ref = {.since_ns = clock_monotonic_ns(),
                            .owner = vm->number,
                            .page = ppn,
                            .frame = mpn,
                            .how = how};
    if (share_refs_add(sharing->refs, &ref) < 0)
        return false;
    if (machine_memory_is_shared(sharing->machine, mpn)) {
        if (share_ref(sharing->table, mpn) < 0) {
            share_refs_remove(sharing->refs, vm->number, ppn, mpn);
            return false;
        }
        machine_memory_ref(sharing->machine, mpn);
    } else if (mpn != sharing->zero) {
        return true; /* to be protected: still private */
    }
    count_reference(vm, mpn, 1);
    return true;
}

bool record_drop(struct vm *vm, ppn_t ppn, mpn_t mpn)
{
    struct sharing *sharing = sharing_of(vm);
    uint32_t left;
    if (share_refs_remove(sharing->refs, vm->number, ppn, mpn) < 0)
        return false;
    if (machine_memory_is_shared(sharing->machine, mpn)) {
        /* Not in the table while its last sharer is asked to take it back. */
        if (share_kind(sharing->table, mpn) == SHARE_SHARED)
            share_unref(sharing->table, mpn, &left);
        machine_memory_unref(sharing->machine, mpn);
    } else if (mpn != sharing->zero) {
        return true;
    }
    count_reference(vm, mpn, -1);
    return true;
}

bool record_share(struct vm *vm, mpn_t mpn, uint64_t hash)
{
    struct sharing *sharing = sharing_of(vm);
    if (!machine_memory_make_shared(sharing->machine, vm->number, mpn))
        return false;
    share_make_shared(sharing->table, mpn, hash);
    vm->held_pages--;
    count_reference(vm, mpn, 1);
    return true;
}

bool record_unshare(struct vm *vm, ppn_t ppn, mpn_t mpn)
{
    struct sharing *sharing = sharing_of(vm);
    if (!record_has(vm, ppn, mpn) ||
        !machine_memory_make_private(sharing->machine, vm->number, mpn))
        return false;
    share_refs_remove(sharing->refs, vm->number, ppn, mpn);
    vm->held_pages++;
    count_reference(vm, mpn, -1);
    return true;
}

struct first_sharer {
    const struct sharing *sharing;
    struct vm *vm;
    ppn_t ppn;
};

static bool visit_sharer(void *ctx, const struct share_ref *ref)
{
    struct first_sharer *first = ctx;
    struct vm *vm = first->sharing->supervisor->by_number[ref->owner];
    if (!vm || vm->sharing->unsharing)
        return true;
    first->vm = vm;
    first->ppn = ref->page;
    return false;
}

struct vm *record_sharer(const struct sharing *sharing, mpn_t mpn, ppn_t *ppn)
{
    struct first_sharer first = {.sharing = sharing};
    share_refs_of_frame(sharing->refs, mpn, visit_sharer, &first);
    if (ppn)
        *ppn = first.ppn;
    return first.vm;
}

/* ---- what a worker gives up ---- */

static bool visit_any(void *ctx, const struct share_ref *ref)
{
    *(struct share_ref *)ctx = *ref;
    return false;
}

/* A frame of the VM's own. What was known of its content goes with it. */
static enum sharing_release release_own(struct vm *vm, ppn_t ppn, mpn_t mpn, enum release_why why)
{
    struct sharing *sharing = sharing_of(vm);
    struct share_ref ref;
    bool referenced = share_refs_find(sharing->refs, vm->number, ppn, &ref);
    /* Both are answers: shared away by a SHARE, broken after a PROTECT that is under way. */
    if (why == RELEASE_SHARED_AWAY &&
        (!referenced || ref.frame == mpn || !machine_memory_is_held(sharing->machine, mpn)))
        return RELEASE_REFUSED;
    if ((why == RELEASE_COW_BREAK || why == RELEASE_UNSHARED) && (!referenced || ref.frame != mpn))
        return RELEASE_REFUSED;
    struct share_ref pending = {.frame = NO_MPN};
    share_refs_of_frame(sharing->refs, mpn, visit_any, &pending);
    if (pending.frame == mpn)
        share_refs_remove(sharing->refs, pending.owner, pending.page, mpn);
    share_forget(sharing->table, mpn);
    machine_memory_give_back(sharing->machine, vm->number, mpn);
    vm->held_pages--;
    return RELEASE_OF_OWN;
}

enum sharing_release sharing_released(struct vm *vm, ppn_t ppn, mpn_t mpn, enum release_why why,
                                      uint64_t pc)
{
    struct sharing *sharing = sharing_of(vm);
    if (machine_memory_is_private(sharing->machine, vm->number, mpn))
        return release_own(vm, ppn, mpn, why);
    struct share_ref ref;
    if (!share_refs_find(sharing->refs, vm->number, ppn, &ref) || ref.frame != mpn)
        return RELEASE_REFUSED;
    /* Only a private page is paged out; this one may be, by an UNSHARE not answered yet. */
    bool unsharing = mpn != sharing->zero && share_kind(sharing->table, mpn) != SHARE_SHARED;
    if (why != RELEASE_COW_BREAK && why != RELEASE_UNSHARED && why != RELEASE_BALLOONED &&
        why != RELEASE_REPORTED && !(why == RELEASE_PAGED_OUT && unsharing))
        return RELEASE_REFUSED;
    if (why == RELEASE_COW_BREAK) {
        vm->sharing->counts.cow_breaks++;
        sharing->counts.cow_breaks++;
        break_note(vm, &ref, pc);
    } else {
        vm->sharing->counts.dropped++;
    }
    record_drop(vm, ppn, mpn);
    return RELEASE_OF_REFERENCE;
}

/* ---- the end of a VM ---- */

#define DROPPED_AT_ONCE 512

struct gathering {
    unsigned count;
    struct share_ref refs[DROPPED_AT_ONCE];
};

static bool gather(void *ctx, const struct share_ref *ref)
{
    struct gathering *gathering = ctx;
    gathering->refs[gathering->count++] = *ref;
    return gathering->count < DROPPED_AT_ONCE;
}

void sharing_vm_gone(struct vm *vm)
{
    struct sharing *sharing = sharing_of(vm);
    struct gathering gathering;
    batches_drop(vm);
    do {
        gathering.count = 0;
        share_refs_of_owner(sharing->refs, vm->number, gather, &gathering);
        for (unsigned i = 0; i < gathering.count; i++) {
            record_drop(vm, gathering.refs[i].page, gathering.refs[i].frame);
            vm->sharing->counts.dropped++;
        }
    } while (gathering.count);
    for (mpn_t mpn = 0; mpn < machine_memory_pages(sharing->machine); mpn++)
        if (machine_memory_is_private(sharing->machine, vm->number, mpn))
            share_forget(sharing->table, mpn);
    sharing_vm_start(vm);
}

/* ---- the check ---- */

uint64_t sharing_check(const struct supervisor *supervisor, char *text, size_t bytes)
{
    const struct sharing *sharing = supervisor->sharing;
    struct machine_counts counts = machine_memory_counts(sharing->machine);
    uint64_t violations = 0, references = 0;
    text[0] = 0;
    for (mpn_t mpn = 0; mpn < machine_memory_pages(sharing->machine); mpn++) {
        bool shared = machine_memory_is_shared(sharing->machine, mpn);
        uint32_t counted = machine_memory_frame(sharing->machine, mpn)->references;
        uint32_t in_table = share_refs(sharing->table, mpn);
        uint32_t recorded = shared ? share_refs_count(sharing->refs, mpn) : 0;
        references += shared ? counted : 0;
        if (shared ? counted != in_table || counted != recorded : in_table != 0) {
            if (!violations++)
                snprintf(text, bytes,
                         "frame %u: %u references in the frame table, %u in the sharing table, "
                         "%u recorded",
                         mpn, shared ? counted : 0, in_table, recorded);
        }
    }
    if (references != sharing->references ||
        references + sharing->zero_references != share_refs_total(sharing->refs)) {
        if (!violations++)
            snprintf(text, bytes,
                     "%llu references of frames, %llu kept, %llu with zeroes, %llu in all",
                     (unsigned long long)references, (unsigned long long)sharing->references,
                     (unsigned long long)sharing->zero_references,
                     (unsigned long long)share_refs_total(sharing->refs));
    }
    if (counts.leaving_pages && !violations++)
        snprintf(text, bytes, "%u frames are named by a request, and none is open",
                 counts.leaving_pages);
    uint64_t wrong_sums = charges_check(supervisor);
    if (wrong_sums && !violations)
        snprintf(text, bytes, "charges for shared frames do not add up to the frames");
    violations += wrong_sums;
    uint32_t broken = share_check(sharing->table) + share_refs_check(sharing->refs);
    if (broken && !violations)
        snprintf(text, bytes, "%u broken chains or counts in the sharing table", broken);
    return violations + broken;
}
