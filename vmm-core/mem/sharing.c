/*
 * The worker's part of content-based sharing (paper, section 4; design:
 * "Sharing"). The supervisor finds pages that look equal; here it is made sure
 * that they are, and kept so.
 *
 * Why no store can slip between the compare and the change of mapping: both
 * happen under the memory lock with every hart at a safe point, on a page that
 * no device has pinned and that the pager is not writing out; the target is a
 * shared frame, which nobody stores to.
 *
 * A frame that PROTECT makes shared stays where it is, but is no longer this
 * VM's own: the supervisor counts its references from before the message was
 * sent, and this VM "releases" it like any other sharer by a copy-on-write
 * break. So it leaves `held`; UNSHARE in place brings it back.
 *
 * The pager takes these messages and never waits: what would need a frame or
 * room that is not there is answered "busy".
 */
#include "vmm-core/mem/gmem_internal.h"

#include <stddef.h>
#include <string.h>

/* Is the page private, in this frame, and at rest? */
static enum ring_item own_page(const struct gmem *gmem, ppn_t ppn, mpn_t mpn)
{
    uint64_t word;

    if (ppn >= gmem->ram_pages)
        return RING_ITEM_STALE;
    word = pmap_word(gmem->pmap, ppn);
    if (pmap_word_state(word) != PAGE_PRIVATE || pmap_word_mpn(word) != mpn)
        return RING_ITEM_STALE;
    /* A cancelled page-out may still be in the kernel's hands. */
    if (mem_pins(gmem, ppn) > 0 || pageout_in_flight(gmem, ppn))
        return RING_ITEM_BUSY;
    return RING_ITEM_DONE;
}

static enum ring_item protect(struct gmem *gmem, const uint32_t *numbers)
{
    ppn_t ppn = numbers[0];
    mpn_t mpn = numbers[1];
    enum ring_item item = own_page(gmem, ppn, mpn);

    if (item != RING_ITEM_DONE)
        return item;
    memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
    shadow_protect_ppn(gmem->pmap, ppn);
    pmap_move(gmem->pmap, ppn, PAGE_EV_SHARE, mpn, 0);
    frame_set_held(gmem, mpn, false);
    return RING_ITEM_DONE;
}

static enum ring_item share(struct gmem *gmem, const uint32_t *numbers)
{
    ppn_t ppn = numbers[0];
    mpn_t mpn = numbers[1], target = numbers[2];
    enum ring_item item = own_page(gmem, ppn, mpn);

    if (item != RING_ITEM_DONE)
        return item;
    if (target >= gmem->machine_pages || target == mpn)
        return RING_ITEM_STALE;
    if (outbox_room(gmem) == 0)
        return RING_ITEM_BUSY;
    memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
    if (memcmp(mem_frame(gmem, mpn), mem_frame(gmem, target), PAGE_BYTES) != 0)
        return RING_ITEM_DIFFERS;
    shadow_drop_ppn(gmem->pmap, ppn);
    pmap_move(gmem->pmap, ppn, PAGE_EV_SHARE, target, 0);
    outbox_release(gmem, ppn, mpn, RELEASE_SHARED_AWAY);
    return RING_ITEM_DONE;
}

static enum ring_item map(struct gmem *gmem, const uint32_t *numbers)
{
    ppn_t ppn = numbers[0];
    mpn_t mpn = numbers[1];

    if (ppn >= gmem->ram_pages || mpn >= gmem->machine_pages ||
        pmap_state(gmem->pmap, ppn) != PAGE_ABSENT)
        return RING_ITEM_STALE;
    if (mem_pins(gmem, ppn) > 0)
        return RING_ITEM_BUSY;
    pmap_move(gmem->pmap, ppn, PAGE_EV_MAP_SHARED, mpn, 0);
    return RING_ITEM_DONE;
}

/* Is the page shared, in this frame? */
static bool shares_frame(const struct gmem *gmem, ppn_t ppn, mpn_t mpn)
{
    uint64_t word;

    if (ppn >= gmem->ram_pages)
        return false;
    word = pmap_word(gmem->pmap, ppn);
    return pmap_word_state(word) == PAGE_SHARED && pmap_word_mpn(word) == mpn;
}

static enum ring_item unshare_in_place(struct gmem *gmem, const uint32_t *numbers)
{
    ppn_t ppn = numbers[0];
    mpn_t mpn = numbers[1];

    if (!shares_frame(gmem, ppn, mpn))
        return RING_ITEM_STALE;
    frame_set_held(gmem, mpn, true);
    pmap_move(gmem->pmap, ppn, PAGE_EV_COW_BREAK, mpn, 0);
    return RING_ITEM_DONE;
}

static enum ring_item unshare_by_copy(struct gmem *gmem, const uint32_t *numbers)
{
    ppn_t ppn = numbers[0];
    mpn_t mpn = numbers[1], copy;

    if (!shares_frame(gmem, ppn, mpn))
        return RING_ITEM_STALE;
    /* A device reads through its pin from the old frame: the copy would not reach it. */
    if (mem_pins(gmem, ppn) > 0 || outbox_room(gmem) == 0 || !pool_take(gmem, &copy))
        return RING_ITEM_BUSY;
    cow_break(gmem, MEMLOCK_NOT_A_HART, ppn, copy, RELEASE_UNSHARED);
    return RING_ITEM_DONE;
}

typedef enum ring_item (*item_fn)(struct gmem *gmem, const uint32_t *numbers);

/* Do each item of a message, width numbers at a time, and answer with all results. */
static void each_item(struct gmem *gmem, const struct ring_message *message, unsigned items,
                      unsigned width, item_fn item)
{
    uint64_t results = 0;

    for (unsigned i = 0; i < items; i++)
        results |= (uint64_t)item(gmem, &message->numbers[i * width]) << (4 * i);
    outbox_answer(gmem, message->request, results);
}

/* A pair stands in the message as two numbers, ppn first. */
static_assert(offsetof(struct ring_message, pairs) == offsetof(struct ring_message, numbers),
              "pairs and numbers are one array");

void sharing_protect(struct gmem *gmem, const struct ring_message *message)
{
    each_item(gmem, message, message->count, 2, protect);
}

void sharing_share(struct gmem *gmem, const struct ring_message *message)
{
    each_item(gmem, message, message->count / 3, 3, share);
}

void sharing_map(struct gmem *gmem, const struct ring_message *message)
{
    each_item(gmem, message, message->count, 2, map);
}

void sharing_unshare(struct gmem *gmem, const struct ring_message *message)
{
    each_item(gmem, message, message->count, 2,
              message->flags & RING_IN_PLACE ? unshare_in_place : unshare_by_copy);
}

/* Pages of 64 from first on that a device may be writing to. */
static uint64_t pinned_bits(const struct gmem *gmem, ppn_t first)
{
    uint64_t bits = 0;

    if (gmem->pins_live == 0)
        return 0;
    for (ppn_t i = 0; i < 64 && first + i < gmem->ram_pages; i++)
        bits |= (uint64_t)(mem_pins(gmem, first + i) > 0) << i;
    return bits;
}

/* A page that is written all the time is not worth protecting each time: its next store would cost
 * a fault, for a hash that is old at once. */
void sharing_written(struct gmem *gmem, const struct ring_message *message)
{
    _Atomic uint64_t *collected = vm_region_collected(gmem->region, gmem->ram_pages);
    _Atomic uint64_t *hot_bits = vm_region_hot(gmem->region, gmem->ram_pages);
    uint64_t first = message->value, count = message->value2, written = 0;

    if (first % 64 == 0 && first < gmem->ram_pages && count <= RING_WRITTEN_PAGES) {
        memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
        for (uint64_t at = first; at < first + count && at < gmem->ram_pages; at += 64) {
            uint64_t pinned = pinned_bits(gmem, (ppn_t)at), *warm = &gmem->warm[at / 64];
            uint64_t hot = 0, bits;
            if (message->flags & RING_COLD)
                hot = *warm & shadow_written(gmem->pmap, (ppn_t)at) & ~pinned;
            bits = shadow_collect_written(gmem->pmap, (ppn_t)at, pinned | hot) & ~hot;
            *warm = bits | hot;
            atomic_store_explicit(&collected[at / 64], bits, memory_order_relaxed);
            atomic_store_explicit(&hot_bits[at / 64], hot, memory_order_relaxed);
            written += (unsigned)__builtin_popcountll(bits);
        }
    }
    outbox_answer(gmem, message->request, written);
}
