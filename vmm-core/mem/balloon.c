/*
 * What the guest gives away: balloon, deflate, free page reporting. When one of
 * these returns, the pages' mappings are gone and their frames are on their way
 * out, so the device may mark the guest's buffer as used.
 *
 * A page that another thread is reading in is waited for; one that the pager is
 * writing out is cancelled and waited for, so that no frame leaves while the
 * kernel still reads it. A report may be ignored page by page, and is for pages
 * that are pinned or on the move.
 */
#include "vmm-core/mem/gmem_internal.h"

/* Does the page keep something that needs every hart stopped to be taken away? */
static bool needs_stop(const struct gmem *gmem, ppn_t ppn)
{
    enum page_state state = pmap_state(gmem->pmap, ppn);

    return state == PAGE_PRIVATE || state == PAGE_SHARED || shadow_is_code(gmem->pmap, ppn);
}

/* Harts stopped if needs_stop. Carry out BALLOON or REPORT on a page at rest. */
static void give_up(struct gmem *gmem, ppn_t ppn, enum page_event event, enum release_why why)
{
    enum page_state state = pmap_state(gmem->pmap, ppn);
    uint64_t before;

    mem_drop_code(gmem, ppn);
    if (state == PAGE_PRIVATE || state == PAGE_SHARED)
        shadow_drop_ppn(gmem->pmap, ppn);
    before = pmap_move(gmem->pmap, ppn, event, NO_MPN, 0);
    if (state == PAGE_PRIVATE || state == PAGE_SHARED) {
        outbox_release(gmem, ppn, pmap_word_mpn(before), why);
    } else if (state == PAGE_PAGED) {
        if (!swap_slots_give(gmem->slots, pmap_word_slot(before)))
            mem_broken("page %u was in slot %u, which is free", ppn, pmap_word_slot(before));
        atomic_store_explicit(&gmem->stats->swap_slots_used, swap_slots_used_count(gmem->slots),
                              memory_order_relaxed);
    }
}

/* Wait until no swap I/O concerns the page and a release fits. False: stopping. */
static bool settle_page(struct gmem *gmem, int caller, ppn_t ppn)
{
    for (;;) {
        if (gmem->stopping)
            return false;
        if (pmap_state(gmem->pmap, ppn) == PAGE_PAGING_OUT)
            pageout_cancel(gmem, ppn);
        if (pmap_state(gmem->pmap, ppn) == PAGE_PAGING_IN || pageout_in_flight(gmem, ppn)) {
            if (!mem_wait(gmem, caller, -1))
                return false;
        } else if (outbox_room(gmem) < 1 + OUTBOX_PAGER_ROOM) {
            if (!outbox_wait_room(gmem, caller, 1))
                return false;
        } else {
            return true;
        }
    }
}

bool gmem_balloon(struct gmem *gmem, ppn_t ppn)
{
    int caller = memlock_self(gmem->lock);
    bool taken = false;

    if (ppn >= gmem->ram_pages)
        return false;
    memlock_lock(gmem->lock, caller);
    if (mem_pins(gmem, ppn) == 0 && settle_page(gmem, caller, ppn) && mem_pins(gmem, ppn) == 0 &&
        pmap_state(gmem->pmap, ppn) != PAGE_BALLOONED) {
        if (needs_stop(gmem, ppn))
            memlock_stop(gmem->lock, caller);
        give_up(gmem, ppn, PAGE_EV_BALLOON, RELEASE_BALLOONED);
        taken = true;
    }
    memlock_unlock(gmem->lock, caller);
    return taken;
}

bool gmem_deflate(struct gmem *gmem, ppn_t ppn)
{
    int caller = memlock_self(gmem->lock);
    bool given = false;

    if (ppn >= gmem->ram_pages)
        return false;
    memlock_lock(gmem->lock, caller);
    if (pmap_state(gmem->pmap, ppn) == PAGE_BALLOONED) {
        pmap_move(gmem->pmap, ppn, PAGE_EV_DEFLATE, NO_MPN, 0);
        given = true;
    }
    memlock_unlock(gmem->lock, caller);
    return given;
}

/* May the page be discarded now, without waiting for anything? */
static bool reportable(const struct gmem *gmem, ppn_t ppn)
{
    enum page_state state = pmap_state(gmem->pmap, ppn);

    return (state == PAGE_PRIVATE || state == PAGE_SHARED || state == PAGE_PAGED) &&
           mem_pins(gmem, ppn) == 0 && !pageout_in_flight(gmem, ppn);
}

/* Up to REPORT_CHUNK_PAGES pages under one stop. Lock held, room for their releases. */
static void report_chunk(struct gmem *gmem, int caller, ppn_t ppn, uint32_t count)
{
    bool stopped = false;

    for (ppn_t end = ppn + count; ppn < end; ppn++) {
        if (!reportable(gmem, ppn))
            continue;
        if (!stopped && needs_stop(gmem, ppn)) {
            memlock_stop(gmem->lock, caller);
            stopped = true;
        }
        give_up(gmem, ppn, PAGE_EV_REPORT, RELEASE_REPORTED);
    }
}

bool gmem_report_free(struct gmem *gmem, ppn_t ppn, uint32_t count)
{
    int caller = memlock_self(gmem->lock);
    bool ok = true;

    if (ppn >= gmem->ram_pages || count > gmem->ram_pages - ppn)
        return false;
    memlock_lock(gmem->lock, caller);
    while (count > 0 && ok) {
        uint32_t chunk = count < REPORT_CHUNK_PAGES ? count : REPORT_CHUNK_PAGES;

        ok = outbox_wait_room(gmem, caller, chunk);
        if (ok)
            report_chunk(gmem, caller, ppn, chunk);
        ppn += chunk;
        count -= chunk;
        /* Let harts go on between chunks. */
        memlock_unlock(gmem->lock, caller);
        memlock_lock(gmem->lock, caller);
    }
    memlock_unlock(gmem->lock, caller);
    return ok;
}
