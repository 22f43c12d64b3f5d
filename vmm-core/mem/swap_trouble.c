/*
 * Episodes of failing swap I/O. The first failure starts one: an event says so,
 * once. While it lasts, tries are spaced by pauses that double from
 * SWAP_PAUSE_MIN_MS to SWAP_PAUSE_MAX_MS. The first success ends it, with an
 * event. Reading and writing have an episode each: a full disk can still be
 * read.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <stdio.h>
#include <string.h>

void swap_failed(struct gmem *gmem, struct swap_trouble *trouble, int errnum)
{
    char text[160];

    atomic_fetch_add_explicit(&gmem->stats->swap_errors, 1, memory_order_relaxed);
    if (!trouble->failing) {
        trouble->failing = true;
        trouble->pause_ms = SWAP_PAUSE_MIN_MS;
        snprintf(text, sizeof(text), "%s the swap file: %s; trying again, nothing is lost",
                 trouble->what, strerror(errnum));
        outbox_event(gmem, WORKER_SWAP_ERROR, (uint32_t)errnum, text);
    } else if (trouble->pause_ms < SWAP_PAUSE_MAX_MS) {
        trouble->pause_ms *= 2;
        if (trouble->pause_ms > SWAP_PAUSE_MAX_MS)
            trouble->pause_ms = SWAP_PAUSE_MAX_MS;
    }
    trouble->retry_at_ns = mem_now_ns() + (uint64_t)trouble->pause_ms * 1000000u;
}

void swap_worked(struct gmem *gmem, struct swap_trouble *trouble)
{
    char text[96];

    if (!trouble->failing)
        return;
    trouble->failing = false;
    snprintf(text, sizeof(text), "%s the swap file works again", trouble->what);
    outbox_event(gmem, WORKER_SWAP_OK, 0, text);
}

int swap_pause_left_ms(const struct swap_trouble *trouble)
{
    uint64_t now_ns;

    if (!trouble->failing)
        return 0;
    now_ns = mem_now_ns();
    return now_ns >= trouble->retry_at_ns ? 0
                                          : (int)((trouble->retry_at_ns - now_ns) / 1000000u) + 1;
}
