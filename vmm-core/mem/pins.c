/*
 * Device access to guest memory. A pin is a count on a page, taken before the
 * page is made usable, so that it cannot be chosen as a victim on the way; what
 * a pinned page refuses is decided where it would be done (pageout.c,
 * balloon.c). Short copies need no pin: they are done under the lock.
 *
 * A device write makes decoded code of the page wrong. It is dropped when the
 * write has ended, at a stop; the guest may not count on anything before the
 * device says that the transfer is done, and fence.i does the rest.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <string.h>

bool gmem_is_ram(const struct gmem *gmem, uint64_t pa, size_t len)
{
    uint64_t ram_bytes = (uint64_t)gmem->ram_pages << PAGE_SHIFT;

    return pa >= RAM_BASE_PA && pa - RAM_BASE_PA <= ram_bytes &&
           len <= ram_bytes - (pa - RAM_BASE_PA);
}

static ppn_t page_of(uint64_t pa)
{
    return (ppn_t)((pa - RAM_BASE_PA) >> PAGE_SHIFT);
}

static void drop_code_written(struct gmem *gmem, int caller, ppn_t ppn)
{
    if (!shadow_is_code(gmem->pmap, ppn))
        return;
    memlock_stop(gmem->lock, caller);
    mem_drop_code(gmem, ppn);
}

void *gmem_pin(struct gmem *gmem, uint64_t pa, size_t len, bool write)
{
    uint64_t in_page = pa & (PAGE_BYTES - 1);
    int caller = memlock_self(gmem->lock);
    uint8_t *host = NULL;
    ppn_t ppn;

    if (!gmem_is_ram(gmem, pa, len) || len > PAGE_BYTES - in_page || len == 0)
        return NULL;
    ppn = page_of(pa);
    memlock_lock(gmem->lock, caller);
    if (gmem->pins_live < GMEM_MAX_PINS) {
        gmem->pins_live++;
        gmem->pins[ppn]++;
        if (gmem_make_usable(gmem, caller, ppn, write)) {
            host = pmap_host(gmem->pmap, ppn) + in_page;
        } else {
            gmem->pins[ppn]--;
            gmem->pins_live--;
        }
    }
    memlock_unlock(gmem->lock, caller);
    return host;
}

/* The last pin of the page is gone: so may the frame it lost while it was pinned. */
static void release_late(struct gmem *gmem, int caller, ppn_t ppn)
{
    for (uint32_t i = 0; i < gmem->late_count; i++) {
        struct late_release late = gmem->late[i];

        if (late.ppn != ppn)
            continue;
        gmem->late[i] = gmem->late[--gmem->late_count];
        if (outbox_wait_room(gmem, caller, 1)) /* else the VM ends, and all frames with it */
            outbox_release_at(gmem, ppn, late.mpn, late.why, late.pc);
        return;
    }
}

void gmem_unpin(struct gmem *gmem, uint64_t pa, bool written)
{
    int caller = memlock_self(gmem->lock);
    ppn_t ppn = page_of(pa);

    memlock_lock(gmem->lock, caller);
    if (!gmem_is_ram(gmem, pa, 1) || gmem->pins[ppn] == 0)
        mem_broken("unpin of %#llx, which is not pinned", (unsigned long long)pa);
    if (written) {
        pmap_mark_written(gmem->pmap, ppn);
        drop_code_written(gmem, caller, ppn);
    }
    gmem->pins[ppn]--;
    gmem->pins_live--;
    if (gmem->pins[ppn] == 0 && gmem->late_count > 0)
        release_late(gmem, caller, ppn);
    memlock_unlock(gmem->lock, caller);
}

/* One page's share of a copy. False: stopping. */
static bool copy_in_page(struct gmem *gmem, uint64_t pa, void *bytes, size_t len, bool to_guest)
{
    int caller = memlock_self(gmem->lock);
    ppn_t ppn = page_of(pa);
    bool ok;

    memlock_lock(gmem->lock, caller);
    ok = gmem_make_usable(gmem, caller, ppn, to_guest);
    if (ok) {
        uint8_t *host = pmap_host(gmem->pmap, ppn) + (pa & (PAGE_BYTES - 1));

        if (to_guest) {
            memcpy(host, bytes, len);
            pmap_mark_written(gmem->pmap, ppn);
            drop_code_written(gmem, caller, ppn);
        } else {
            memcpy(bytes, host, len);
        }
    }
    memlock_unlock(gmem->lock, caller);
    return ok;
}

static bool copy(struct gmem *gmem, uint64_t pa, uint8_t *bytes, size_t len, bool to_guest)
{
    while (len > 0) {
        size_t part = PAGE_BYTES - (pa & (PAGE_BYTES - 1));

        if (part > len)
            part = len;
        if (!gmem_is_ram(gmem, pa, part) || !copy_in_page(gmem, pa, bytes, part, to_guest))
            return false;
        pa += part;
        bytes += part;
        len -= part;
    }
    return true;
}

bool gmem_read(struct gmem *gmem, uint64_t pa, void *to, size_t len)
{
    return copy(gmem, pa, to, len, false);
}

bool gmem_write(struct gmem *gmem, uint64_t pa, const void *from, size_t len)
{
    return copy(gmem, pa, (uint8_t *)(uintptr_t)from, len, true);
}
