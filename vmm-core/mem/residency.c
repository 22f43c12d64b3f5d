/*
 * A page's way into memory: fill on first touch, balloon pop, swap-in, and the
 * copy on write of a shared page. One loop looks at the page's state and takes
 * one step towards "usable"; every step that had to wait comes back to the top
 * and looks again, because anything may have happened meanwhile.
 */
#include "vmm-core/hart.h"
#include "vmm-core/mem/gmem_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum step {
    STEP_USABLE,
    STEP_AGAIN,  /* something changed, or may have: look again */
    STEP_STOPPED /* the VM ends */
};

typedef enum step (*step_fn)(struct gmem *gmem, int caller, ppn_t ppn, bool writable);

static enum step wait_for_frame(struct gmem *gmem, int caller)
{
    return pool_wait(gmem, caller) ? STEP_AGAIN : STEP_STOPPED;
}

static enum step usable(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    (void)gmem, (void)caller, (void)ppn, (void)writable;
    return STEP_USABLE;
}

/* Frames come with what their last owner left in them. */
static enum step take_zeroed(struct gmem *gmem, int caller, ppn_t ppn, enum page_event event)
{
    mpn_t mpn;

    if (!pool_take(gmem, &mpn))
        return wait_for_frame(gmem, caller);
    memset(mem_frame(gmem, mpn), 0, PAGE_BYTES);
    pmap_move(gmem->pmap, ppn, event, mpn, 0);
    return STEP_USABLE;
}

static enum step fill(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    (void)writable;
    return take_zeroed(gmem, caller, ppn, PAGE_EV_FILL);
}

static enum step pop(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    enum step step = take_zeroed(gmem, caller, ppn, PAGE_EV_POP);
    uint64_t now_ns = mem_now_ns();
    char text[96];

    (void)writable;
    if (step == STEP_USABLE && now_ns - gmem->pop_event_ns >= POP_EVENT_PERIOD_NS) {
        gmem->pop_event_ns = now_ns;
        snprintf(text, sizeof(text), "the guest touched ballooned page %u: it gets a fresh one",
                 ppn);
        outbox_event(gmem, WORKER_BALLOON_POPPED, ppn, text);
    }
    return step;
}

void cow_break(struct gmem *gmem, int caller, ppn_t ppn, mpn_t mpn, enum release_why why)
{
    uint64_t pc = caller != MEMLOCK_NOT_A_HART && gmem->harts[caller]
                      ? hart_access_pc(gmem->harts[caller])
                      : 0;
    uint64_t old;

    /* Read mappings go too: no hart may go on reading the old frame once the copy is stored to. */
    memlock_stop(gmem->lock, caller);
    shadow_drop_ppn(gmem->pmap, ppn);
    memcpy(mem_frame(gmem, mpn), pmap_host(gmem->pmap, ppn), PAGE_BYTES);
    old = pmap_move(gmem->pmap, ppn, PAGE_EV_COW_BREAK, mpn, 0);
    /* A device that reads the page goes on reading the old frame; it must not become another's. */
    if (mem_pins(gmem, ppn) > 0)
        gmem->late[gmem->late_count++] = (struct late_release){ppn, pmap_word_mpn(old), why, pc};
    else
        outbox_release_at(gmem, ppn, pmap_word_mpn(old), why, pc);
}

static enum step copy_on_write(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    mpn_t mpn;

    if (!writable)
        return STEP_USABLE;
    if (outbox_room(gmem) <= OUTBOX_PAGER_ROOM)
        return outbox_wait_room(gmem, caller, 1) ? STEP_AGAIN : STEP_STOPPED;
    if (!pool_take(gmem, &mpn))
        return wait_for_frame(gmem, caller);
    cow_break(gmem, caller, ppn, mpn, RELEASE_COW_BREAK);
    return STEP_USABLE;
}

static enum step cancel_out(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    (void)caller;
    if (writable)
        pageout_cancel(gmem, ppn);
    return STEP_USABLE;
}

/* Read a slot into a frame, lock not held. 0 or errno. */
static int read_slot(struct gmem *gmem, mpn_t mpn, uint32_t slot)
{
    uint8_t *frame = mem_frame(gmem, mpn);
    off_t from = (off_t)slot << PAGE_SHIFT;

    for (size_t have = 0; have < PAGE_BYTES;) {
        ssize_t got =
            pread(gmem->config.swap_fd, frame + have, PAGE_BYTES - have, from + (off_t)have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? errno : EIO; /* the file ends before the slot: truncated under us */
        have += (size_t)got;
    }
    return 0;
}

static enum step swap_in(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    uint32_t slot = pmap_word_slot(pmap_word(gmem->pmap, ppn));
    int pause_ms = swap_pause_left_ms(&gmem->read_trouble);
    bool was_inside;
    int errnum;
    mpn_t mpn;

    (void)writable;
    if (pause_ms > 0)
        return mem_wait(gmem, caller, pause_ms) ? STEP_AGAIN : STEP_STOPPED;
    if (!pool_take(gmem, &mpn))
        return wait_for_frame(gmem, caller);
    pmap_move(gmem->pmap, ppn, PAGE_EV_IN_START, mpn, slot);
    was_inside = memlock_park(gmem->lock, caller);
    errnum = read_slot(gmem, mpn, slot);
    memlock_unpark(gmem->lock, caller, was_inside);

    if (errnum) {
        pmap_move(gmem->pmap, ppn, PAGE_EV_IN_FAIL, NO_MPN, slot);
        pool_put(gmem, mpn);
        swap_failed(gmem, &gmem->read_trouble, errnum);
    } else {
        pmap_move(gmem->pmap, ppn, PAGE_EV_IN_DONE, mpn, slot);
        if (!swap_slots_give(gmem->slots, slot))
            mem_broken("page %u came from slot %u, which was free", ppn, slot);
        atomic_fetch_add_explicit(&gmem->stats->swap_in_pages, 1, memory_order_relaxed);
        atomic_store_explicit(&gmem->stats->swap_slots_used, swap_slots_used_count(gmem->slots),
                              memory_order_relaxed);
        swap_worked(gmem, &gmem->read_trouble);
    }
    memlock_wake_all(gmem->lock);
    return STEP_AGAIN;
}

static enum step wait_for_reader(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    (void)ppn, (void)writable;
    return mem_wait(gmem, caller, -1) ? STEP_AGAIN : STEP_STOPPED;
}

static const step_fn steps[PAGE_STATES] = {
    [PAGE_ABSENT] = fill,
    [PAGE_PRIVATE] = usable,
    [PAGE_SHARED] = copy_on_write,
    [PAGE_BALLOONED] = pop,
    [PAGE_PAGING_OUT] = cancel_out,
    [PAGE_PAGED] = swap_in,
    [PAGE_PAGING_IN] = wait_for_reader,
};

bool gmem_make_usable(struct gmem *gmem, int caller, ppn_t ppn, bool writable)
{
    uint64_t since_ns;
    bool waited = false;
    enum step step;

    if (ppn >= gmem->ram_pages)
        mem_broken("page %u is beyond guest memory of %u pages", ppn, gmem->ram_pages);
    if (gmem->stopping)
        return false;
    pmap_touch(gmem->pmap, ppn); /* for a device there is no entry to be made that says so */
    if (pmap_state(gmem->pmap, ppn) == PAGE_PRIVATE)
        return true;
    since_ns = mem_now_ns();
    do {
        step = steps[pmap_state(gmem->pmap, ppn)](gmem, caller, ppn, writable);
        waited |= step == STEP_AGAIN;
    } while (step == STEP_AGAIN);
    if (waited && caller != MEMLOCK_NOT_A_HART)
        atomic_fetch_add_explicit(&gmem->stats->vcpu_wait_ns, mem_now_ns() - since_ns,
                                  memory_order_relaxed);
    return step == STEP_USABLE;
}
