/*
 * Sampling (paper, section 5.3): how many of some random pages does the guest
 * touch in a period of its time? All its "physical" pages take part, whatever
 * their state, as in ESX: one that is ballooned or paged out counts as not
 * touched until the guest comes back to it.
 *
 * The pages of a period lose their mappings and their decoded code, at a stop,
 * and are watched from then on (pmap_watch). A device that has a page pinned
 * while the period begins is using it: it counts at once. When a period ends is
 * the supervisor's business; the next one begins with the same message. With as
 * many pages as the VM has, the count is no estimate but the truth; with
 * RING_COUNT_ALL that truth is counted beside the sample, in the same period, by
 * the same accesses. It costs what a flush of all mappings costs, once a period.
 */
#include "vmm-core/mem/gmem_internal.h"

static void watch(struct gmem *gmem, ppn_t ppn, bool in_sample)
{
    shadow_drop_ppn(gmem->pmap, ppn);
    mem_drop_code(gmem, ppn); /* decoded code runs without a mapping */
    pmap_watch(gmem->pmap, ppn, in_sample);
}

/* Floyd's choice of distinct numbers: every set is equally likely, and each takes one draw. */
static void choose(struct gmem *gmem, uint32_t pages)
{
    for (uint32_t last = gmem->ram_pages - pages; last < gmem->ram_pages; last++) {
        ppn_t drawn = (ppn_t)((mem_random(gmem) >> 32) * (last + UINT64_C(1)) >> 32);

        watch(gmem, pmap_is_sampled(gmem->pmap, drawn) ? last : drawn, true);
    }
}

static void touch_pinned(struct gmem *gmem)
{
    for (ppn_t ppn = 0; gmem->pins_live > 0 && ppn < gmem->ram_pages; ppn++)
        if (mem_pins(gmem, ppn) > 0)
            pmap_touch(gmem->pmap, ppn);
}

void sample_pages(struct gmem *gmem, const struct ring_message *message)
{
    struct pmap_touched touched = pmap_watch_end(gmem->pmap);
    uint64_t answer = touched.sample_pages;
    uint32_t pages = message->value < gmem->ram_pages ? (uint32_t)message->value : gmem->ram_pages;

    if (gmem->counts_all)
        answer |= touched.all_pages << 32;
    gmem->counts_all = pages > 0 && (message->flags & RING_COUNT_ALL);
    if (pages > 0) {
        memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
        choose(gmem, pages);
        for (ppn_t ppn = 0; gmem->counts_all && ppn < gmem->ram_pages; ppn++)
            watch(gmem, ppn, false);
        touch_pinned(gmem);
    }
    atomic_store_explicit(&gmem->stats->sample_pages, pages, memory_order_relaxed);
    atomic_fetch_add_explicit(&gmem->stats->sample_periods, 1, memory_order_relaxed);
    outbox_answer(gmem, message->request, answer);
}
