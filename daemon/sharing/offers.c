/*
 * Share before page-out (paper, section 4.3: "a page about to be paged out is
 * first tried for sharing"). A worker names the victims of its next cluster; those
 * of known content are shared on the way that a scanned page takes, the others go
 * back in PAGE_THESE. A page that gets neither answer in time (its hint was being
 * protected, and came to nothing) is paged out by the worker all the same.
 */
#include "daemon/sharing/sharing_private.h"

bool sharing_wants_offers(const struct vm *vm)
{
    const struct sharing *sharing = sharing_of(vm);
    return scanner_may_work(sharing) && vm->sharing->enabled && !vm->sharing->unsharing &&
           vm->sharing->to_hash;
}

void sharing_offered(struct vm *vm, const struct ring_message *message)
{
    struct sharing *sharing = sharing_of(vm);
    uint64_t begin_ns = sharing_cpu_ns();
    struct ring_message page_these = {.type = RING_PAGE_THESE};
    bool wanted = sharing_wants_offers(vm);
    sharing->offering = true;
    for (unsigned i = 0; i < message->count; i++) {
        ppn_t ppn = message->pairs[i].ppn;
        mpn_t mpn = message->pairs[i].mpn;
        bool ours = wanted && ppn < vm->memory_pages && batches_room(vm) &&
                    engine_own_frame(vm, ppn) == mpn;
        sharing->counts.offered_pages++;
        if (!ours || !engine_match(vm, ppn, mpn, engine_hash(sharing, mpn, vm->sharing->salt)))
            page_these.pairs[page_these.count++] = message->pairs[i];
    }
    sharing->offering = false;
    batches_send_all(sharing);
    /* No room: the worker does not wait for ever. */
    if (page_these.count > 0)
        message_put(vm, &page_these);
    message_kick(vm);
    sharing_spent(vm, begin_ns);
}
