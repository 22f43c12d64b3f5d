/*
 * One match, from a page's hash to a shared frame (paper, section 4.3, Figure 3;
 * design, "Sharing").
 *
 *   hash --- of zeroes ----------------------------> SHARE with the zero frame
 *     |----- of a shared frame --------------------> SHARE with it
 *     |----- of a hint, and its page still hashes
 *     |      so ---> PROTECT the hint's page
 *     |                | done: hash it again
 *     |                |   the same ---------------> it is shared; SHARE with it
 *     |                |   another ----------------> UNSHARE it in place, a new hint
 *     |                | stale, busy: the hint is forgotten
 *     |----- of a hint that is being protected ----> wait for that
 *     '----- of nothing ---------------------------> leave a hint
 *
 *   Content that is new since the last pass leaves a hint too, but nothing is shared
 *   for it yet (engine_match_new): it is looked at again in the next pass. A page that
 *   was just written is likely to be written again, and a copy costs the guest more
 *   than a frame is worth for a moment.
 *
 *   SHARE done: one frame saved. It differs: a false match; its hash is marked as
 *   seen, so that it is not tried again before it is written. Stale or busy: looked
 *   at again in the next pass. A target that is left with one sharer goes back to
 *   it (UNSHARE in place).
 *
 * What an answer means is the table outcomes[]. Pages are hashed where they lie,
 * unprotected, through a read-only view: a hash is only ever a reason to ask. What
 * is shared is what the worker has compared in full.
 */
#include "daemon/sharing/sharing_private.h"

#include <string.h>

#define CHAIN_LIMIT 64u /* entries looked at for one page, stale ones taken out meanwhile */

static const uint8_t *frame_bytes(const struct sharing *sharing, mpn_t mpn)
{
    return sharing->view + (size_t)mpn * PAGE_BYTES;
}

uint64_t engine_hash(const struct sharing *sharing, mpn_t mpn, uint64_t salt)
{
    uint64_t hash = share_hash(frame_bytes(sharing, mpn), sharing->seed, salt);
#ifdef SHARE_HASH_BITS /* tests: nearly everything collides */
    hash &= (UINT64_C(1) << SHARE_HASH_BITS) - 1;
#endif
    return hash;
}

void engine_hash_again(struct vm *vm, ppn_t ppn)
{
    if (vm->sharing->again && ppn < vm->memory_pages)
        vm->sharing->again[ppn / 64] |= UINT64_C(1) << (ppn % 64);
}

/* The pmap says that ppn is private in mpn. A hint: the worker looks again. */
static bool pmap_says(const struct vm *vm, ppn_t ppn, mpn_t mpn)
{
    uint64_t word = atomic_load_explicit(&vm_region_pmap(vm->region)[ppn], memory_order_acquire);
    return pmap_word_state(word) == PAGE_PRIVATE && pmap_word_mpn(word) == mpn;
}

mpn_t engine_own_frame(const struct vm *vm, ppn_t ppn)
{
    const struct machine_memory *machine = vm->supervisor->machine;
    uint64_t word = atomic_load_explicit(&vm_region_pmap(vm->region)[ppn], memory_order_acquire);
    mpn_t mpn = pmap_word_mpn(word);
    if (pmap_word_state(word) != PAGE_PRIVATE ||
        !machine_memory_is_private(machine, vm->number, mpn) ||
        machine_memory_is_held(machine, mpn))
        return NO_MPN;
    return mpn;
}

static void wait_for_hint(struct vm *vm, ppn_t ppn, bool offered)
{
    struct sharing *sharing = sharing_of(vm);
    if (sharing->waiting_count == WAITING_PAGES) {
        engine_hash_again(vm, ppn);
        return;
    }
    uint32_t at = (sharing->waiting_first + sharing->waiting_count++) % WAITING_PAGES;
    sharing->waiting[at] = (struct waiting_page){vm->id, vm->number, offered, ppn};
    sharing->counts.waited_pages++;
}

static struct vm *find_vm(const struct sharing *sharing, uint16_t number, uint32_t id)
{
    struct vm *vm = sharing->supervisor->by_number[number];
    return vm && vm->id == id && vm->region && vm->sharing->enabled && !vm->sharing->unsharing
               ? vm
               : NULL;
}

void engine_wake(struct sharing *sharing, uint32_t pages)
{
    uint32_t count = sharing->waiting_count < pages ? sharing->waiting_count : pages;
    for (uint32_t i = 0; i < count; i++) {
        struct waiting_page page = sharing->waiting[sharing->waiting_first];
        struct vm *vm = find_vm(sharing, page.vm_number, page.vm_id);
        sharing->waiting_first = (sharing->waiting_first + 1) % WAITING_PAGES;
        sharing->waiting_count--;
        if (!vm)
            continue;
        if (!batches_room(vm)) {
            wait_for_hint(vm, page.ppn, page.offered);
            return;
        }
        mpn_t mpn = engine_own_frame(vm, page.ppn);
        if (mpn == NO_MPN) {
            engine_hash_again(vm, page.ppn);
            continue;
        }
        sharing->offering = page.offered;
        engine_match(vm, page.ppn, mpn, engine_hash(sharing, mpn, vm->sharing->salt));
        sharing->offering = false;
    }
}

/* ---- asking ---- */

/* Ask vm to share ppn (in mpn) with target, its reference counted first. */
static void ask_share(struct vm *vm, ppn_t ppn, mpn_t mpn, mpn_t target, uint64_t hash,
                      enum share_how how)
{
    struct sharing *sharing = sharing_of(vm);
    struct share_item item = {.ppn = ppn, .mpn = mpn, .target = target, .hash = hash, .how = how};
    share_forget(sharing->table, mpn);
    if (!batches_room(vm)) {
        wait_for_hint(vm, ppn, how == SHARE_HOW_PAGING);
        return;
    }
    if (!record_add(vm, ppn, target, how)) { /* its last reference is still being released */
        engine_hash_again(vm, ppn);
        return;
    }
    sharing->counts.shares++;
    if (!batch_add(vm, OP_SHARE, &item)) {
        record_drop(vm, ppn, target);
        engine_hash_again(vm, ppn);
    }
}

/* Ask the owner of a hint to protect its page; (vm, ppn, mpn) waits for that. */
static void ask_protect(struct vm *owner, ppn_t owner_ppn, mpn_t hint, uint64_t hash, struct vm *vm,
                        ppn_t ppn, mpn_t mpn)
{
    struct sharing *sharing = sharing_of(vm);
    struct share_item item = {.ppn = owner_ppn,
                              .mpn = hint,
                              .target = NO_MPN,
                              .hash = hash,
                              .how = SHARE_HOW_HINT,
                              .candidate_vm = vm->number,
                              .candidate_id = vm->id,
                              .candidate_ppn = ppn,
                              .candidate_mpn = mpn,
                              .candidate_how =
                                  sharing->offering ? SHARE_HOW_PAGING : SHARE_HOW_HINT};
    if (!batches_room(owner) || !record_add(owner, owner_ppn, hint, SHARE_HOW_HINT)) {
        wait_for_hint(vm, ppn, sharing->offering);
        return;
    }
    share_hit_hint(sharing->table, hint);
    sharing->counts.protects++;
    if (!batch_add(owner, OP_PROTECT, &item)) {
        record_drop(owner, owner_ppn, hint);
        share_keep_hint(sharing->table, hint);
        engine_hash_again(vm, ppn);
    }
}

void engine_unshare_last(struct sharing *sharing, mpn_t mpn)
{
    ppn_t ppn;
    uint32_t left;
    if (!machine_memory_is_shared(sharing->machine, mpn) ||
        machine_memory_frame(sharing->machine, mpn)->references != 1 ||
        machine_memory_is_held(sharing->machine, mpn) ||
        share_kind(sharing->table, mpn) != SHARE_SHARED)
        return;
    struct vm *vm = record_sharer(sharing, mpn, &ppn);
    struct share_item item = {.ppn = ppn, .mpn = mpn, .target = NO_MPN};
    if (!vm || !batches_room(vm))
        return;
    item.hash = share_shared_hash(sharing->table, mpn);
    /* Out of the table: nobody may choose it as a target any more. */
    share_unref(sharing->table, mpn, &left);
    sharing->counts.unshares++;
    if (!batch_add(vm, OP_UNSHARE, &item))
        share_make_shared(sharing->table, mpn, item.hash);
}

/* ---- a page's hash is known ---- */

enum met { MET_NOTHING, MET_SETTLED, MET_STALE };

/* A hint of this content: is its page still what it was? */
static enum met meet_hint(struct vm *vm, ppn_t ppn, mpn_t mpn, uint64_t hash, mpn_t hint)
{
    struct sharing *sharing = sharing_of(vm);
    uint16_t number = machine_memory_frame(sharing->machine, hint)->owner;
    struct vm *owner = number <= MAX_VMS ? sharing->supervisor->by_number[number] : NULL;
    ppn_t owner_ppn = share_hint_page(sharing->table, hint);
    if (!owner || !owner->region || owner_ppn >= owner->memory_pages ||
        !machine_memory_is_private(sharing->machine, owner->number, hint) ||
        !pmap_says(owner, owner_ppn, hint)) {
        share_forget(sharing->table, hint);
        sharing->counts.stale_hints++;
        return MET_STALE;
    }
    if (!domain_may_share(vm, owner) || machine_memory_is_held(sharing->machine, hint))
        return MET_NOTHING;
    /* Cheaper than protecting a page in vain. */
    uint64_t now = engine_hash(sharing, hint, owner->sharing->salt);
    if (now != hash) {
        share_forget(sharing->table, hint);
        share_add_hint(sharing->table, hint, now, owner_ppn);
        sharing->counts.stale_hints++;
        return (uint32_t)now == (uint32_t)hash ? MET_NOTHING : MET_STALE;
    }
    ask_protect(owner, owner_ppn, hint, hash, vm, ppn, mpn);
    return MET_SETTLED;
}

static bool may_join(const struct vm *vm, mpn_t target)
{
    const struct vm *sharer = record_sharer(sharing_of(vm), target, NULL);
    return sharer && domain_may_share(vm, sharer);
}

/* An entry of the table with this hash. */
static enum met meet(struct vm *vm, ppn_t ppn, mpn_t mpn, uint64_t hash, mpn_t entry)
{
    struct sharing *sharing = sharing_of(vm);
    if (entry == mpn)
        return MET_NOTHING;
    switch (share_kind(sharing->table, entry)) {
    case SHARE_SHARED:
        if (!may_join(vm, entry))
            return MET_NOTHING;
        ask_share(vm, ppn, mpn, entry, hash,
                  sharing->offering ? SHARE_HOW_PAGING : SHARE_HOW_SHARED);
        return MET_SETTLED;
    case SHARE_PENDING:
        wait_for_hint(vm, ppn, sharing->offering);
        return MET_SETTLED;
    case SHARE_HINT:
        return meet_hint(vm, ppn, mpn, hash, entry);
    default:
        return MET_NOTHING;
    }
}

/* Cheap for pages that are not: the first word is in the cache, as the page was just hashed. */
static bool is_zeroes(const struct sharing *sharing, mpn_t mpn)
{
    const uint8_t *bytes = frame_bytes(sharing, mpn);
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, PAGE_BYTES - 1) == 0;
}

bool engine_match(struct vm *vm, ppn_t ppn, mpn_t mpn, uint64_t hash)
{
    struct sharing *sharing = sharing_of(vm);
    if (is_zeroes(sharing, mpn)) {
        ask_share(vm, ppn, mpn, sharing->zero, hash, SHARE_HOW_ZERO);
        return true;
    }
    mpn_t entry = SHARE_NONE;
    for (unsigned i = 0; i < CHAIN_LIMIT; i++) {
        entry = share_find(sharing->table, hash, entry);
        if (entry == SHARE_NONE)
            break;
        enum met met = meet(vm, ppn, mpn, hash, entry);
        if (met == MET_SETTLED)
            return true;
        if (met == MET_STALE)
            entry = SHARE_NONE; /* its link is gone: from the start */
    }
    share_forget(sharing->table, mpn);
    share_add_hint(sharing->table, mpn, hash, ppn);
    return false;
}

void engine_match_new(struct vm *vm, ppn_t ppn, mpn_t mpn, uint64_t hash)
{
    struct sharing *sharing = sharing_of(vm);
    share_forget(sharing->table, mpn);
    if (!is_zeroes(sharing, mpn) && share_find(sharing->table, hash, SHARE_NONE) == SHARE_NONE) {
        share_add_hint(sharing->table, mpn, hash, ppn);
        return;
    }
    sharing->counts.unsettled_pages++;
    sharing->period.found_pages++; /* the next pass should not be long in coming */
    engine_hash_again(vm, ppn);
}

/* ---- answers ---- */

/* PROTECT done: nobody stores to the page any more, so that its hash is its content's. */
static void protected_page(struct vm *vm, const struct share_item *item)
{
    struct sharing *sharing = sharing_of(vm);
    struct vm *candidate = find_vm(sharing, item->candidate_vm, item->candidate_id);
    if (!record_has(vm, item->ppn, item->mpn)) {
        /* given up since: the frame is nobody's */
        if (candidate)
            engine_hash_again(candidate, item->candidate_ppn);
        return;
    }
    uint64_t hash = engine_hash(sharing, item->mpn, vm->sharing->salt);
    record_share(vm, item->mpn, hash);
    bool still = candidate && candidate->region && batches_room(candidate) &&
                 engine_own_frame(candidate, item->candidate_ppn) == item->candidate_mpn;
    if (still && hash == item->hash && domain_may_share(vm, candidate)) {
        ask_share(candidate, item->candidate_ppn, item->candidate_mpn, item->mpn, hash,
                  item->candidate_how);
    } else if (candidate) {
        engine_hash_again(candidate, item->candidate_ppn);
    }
    engine_unshare_last(sharing, item->mpn);
}

static void not_protected(struct vm *vm, const struct share_item *item)
{
    struct sharing *sharing = sharing_of(vm);
    struct vm *candidate = find_vm(sharing, item->candidate_vm, item->candidate_id);
    if (record_drop(vm, item->ppn, item->mpn))
        share_forget(sharing->table, item->mpn);
    engine_hash_again(vm, item->ppn);
    if (candidate)
        engine_hash_again(candidate, item->candidate_ppn);
}

static void shared_page(struct vm *vm, const struct share_item *item)
{
    (void)item;
    struct sharing *sharing = sharing_of(vm);
    sharing->counts.shared_total++;
    sharing->period.found_pages++;
    vm->sharing->counts.shared_total++;
}

static void take_back(struct vm *vm, const struct share_item *item)
{
    struct sharing *sharing = sharing_of(vm);
    record_drop(vm, item->ppn, item->target);
    if (item->target != sharing->zero)
        engine_unshare_last(sharing, item->target);
}

static void differs(struct vm *vm, const struct share_item *item)
{
    sharing_of(vm)->counts.false_matches++;
    vm->sharing->counts.false_matches++;
    take_back(vm, item);
}

static void not_shared(struct vm *vm, const struct share_item *item)
{
    take_back(vm, item);
    engine_hash_again(vm, item->ppn);
}

/* UNSHARE in place done: the page is the VM's own, and known by its content. */
static void own_again(struct vm *vm, const struct share_item *item)
{
    struct sharing *sharing = sharing_of(vm);
    if (!record_unshare(vm, item->ppn, item->mpn))
        return;
    vm->sharing->counts.dropped++;
    if (!vm->sharing->enabled || vm->sharing->unsharing)
        return;
    /* It was not in the table meanwhile: an equal page may have become a hint itself. */
    if (share_find(sharing->table, item->hash, SHARE_NONE) == SHARE_NONE)
        share_add_hint(sharing->table, item->mpn, item->hash, item->ppn);
    else
        engine_hash_again(vm, item->ppn);
}

/* It was broken, and its release is still to come: shared until then. */
static void shared_still(struct vm *vm, const struct share_item *item)
{
    struct sharing *sharing = sharing_of(vm);
    if (record_has(vm, item->ppn, item->mpn))
        share_make_shared(sharing->table, item->mpn, item->hash);
}

/* UNSHARE by copy: the release, which came first, has said it all. */
static void copied(struct vm *vm, const struct share_item *item)
{
    (void)item;
    if (vm->sharing->undoing)
        vm->sharing->undoing--;
}

static void (*const outcomes[OPS][RING_ITEM_BUSY + 1])(struct vm *, const struct share_item *) = {
    [OP_PROTECT] = {[RING_ITEM_DONE] = protected_page,
                    [RING_ITEM_DIFFERS] = not_protected,
                    [RING_ITEM_STALE] = not_protected,
                    [RING_ITEM_BUSY] = not_protected},
    [OP_SHARE] = {[RING_ITEM_DONE] = shared_page,
                  [RING_ITEM_DIFFERS] = differs,
                  [RING_ITEM_STALE] = not_shared,
                  [RING_ITEM_BUSY] = not_shared},
    [OP_UNSHARE] = {[RING_ITEM_DONE] = own_again,
                    [RING_ITEM_DIFFERS] = shared_still,
                    [RING_ITEM_STALE] = shared_still,
                    [RING_ITEM_BUSY] = shared_still},
    [OP_COPY] = {[RING_ITEM_DONE] = copied,
                 [RING_ITEM_DIFFERS] = copied,
                 [RING_ITEM_STALE] = copied,
                 [RING_ITEM_BUSY] = copied},
};

void engine_answer(struct vm *vm, enum share_op op, const struct share_item *item,
                   enum ring_item result)
{
    vm->sharing->counts.stale_answers += result == RING_ITEM_STALE;
    vm->sharing->counts.busy_answers += result == RING_ITEM_BUSY;
    outcomes[op][result](vm, item);
}
