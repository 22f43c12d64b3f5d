/*
 * A page's way out to the swap file. The pager works on one cluster at a time:
 *
 *   pick     random private pages without a pin (paper, section 5: random
 *            victims avoid the worst case of any guest's own policy), and a
 *            contiguous run of slots
 *   offer    if the request says so: the victims are named to the supervisor,
 *            which shares those it knows the content of (paper, section 4.3) and
 *            names the others in PAGE_THESE; what is not answered is paged out
 *   protect  at a stop: no writable mapping; state paging-out. From now on a
 *            store, a pin for writing or a balloon cancels the page
 *   write    without the lock; guest and devices may read the pages
 *   settle   at a stop: pages still paging-out and not pinned lose their
 *            mappings and their frames; the others keep them, and their slots
 *            become free
 *
 * Only the pager starts and settles, so a page that is found paging-out when
 * the write has ended has been so all the time, and the slot holds its content.
 * Of a write that fails half way, pages written in full settle as written.
 */
#include "vmm-core/mem/gmem_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define RANDOM_TRIES 64 /* random picks for one victim before the search becomes linear */

/* splitmix64 (Steele, Lea, Flood 2014): one addition and a mix a number, any seed will do. */
uint64_t mem_random(struct gmem *gmem)
{
    uint64_t z = gmem->random_state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static ppn_t random_page(struct gmem *gmem)
{
    return (ppn_t)((mem_random(gmem) >> 32) * gmem->ram_pages >> 32);
}

static bool is_victim(const struct gmem *gmem, ppn_t ppn, const ppn_t *chosen, unsigned count)
{
    if (pmap_state(gmem->pmap, ppn) != PAGE_PRIVATE || mem_pins(gmem, ppn) > 0)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (chosen[i] == ppn)
            return false;
    return true;
}

/* Up to wanted random victims, distinct. Fewer only when there are no more. */
static unsigned pick_victims(struct gmem *gmem, ppn_t *victims, unsigned wanted)
{
    unsigned count = 0;

    while (count < wanted) {
        ppn_t ppn = random_page(gmem);
        uint32_t looked = 0;

        for (int tries = 0; tries < RANDOM_TRIES && !is_victim(gmem, ppn, victims, count); tries++)
            ppn = random_page(gmem);
        while (!is_victim(gmem, ppn, victims, count)) {
            if (++looked == gmem->ram_pages)
                return count;
            ppn = ppn + 1 == gmem->ram_pages ? 0 : ppn + 1;
        }
        victims[count++] = ppn;
    }
    return count;
}

bool pageout_in_flight(const struct gmem *gmem, ppn_t ppn)
{
    for (unsigned i = 0; i < gmem->pageout.cluster_pages; i++)
        if (gmem->pageout.cluster[i] == ppn)
            return true;
    return false;
}

void pageout_cancel(struct gmem *gmem, ppn_t ppn)
{
    /* The slot stays taken until the write has ended; settle gives it back. */
    pmap_move(gmem->pmap, ppn, PAGE_EV_OUT_CANCEL, NO_MPN, 0);
}

static void publish_slots(struct gmem *gmem)
{
    atomic_store_explicit(&gmem->stats->swap_slots_used, swap_slots_used_count(gmem->slots),
                          memory_order_relaxed);
}

static void free_slot(struct gmem *gmem, uint32_t slot)
{
    if (!swap_slots_give(gmem->slots, slot))
        mem_broken("slot %u of the cluster being written was free", slot);
}

/* ---- offering ---- */

static bool is_as_offered(const struct gmem *gmem, const struct offer *offer)
{
    uint64_t word = pmap_word(gmem->pmap, offer->ppn);

    return pmap_word_state(word) == PAGE_PRIVATE && pmap_word_mpn(word) == offer->mpn;
}

/* Name the next victims to the supervisor. Offers that cannot be sent need no answer. */
static void offer_victims(struct gmem *gmem, unsigned wanted)
{
    struct pageout *out = &gmem->pageout;
    ppn_t victims[OUT_CLUSTER_PAGES];
    bool sent;

    out->offer_count = pick_victims(gmem, victims, wanted);
    for (unsigned i = 0; i < out->offer_count; i++)
        out->offers[i] =
            (struct offer){victims[i], pmap_word_mpn(pmap_word(gmem->pmap, victims[i])), false};
    sent = outbox_offer(gmem, out->offers, out->offer_count);
    out->offer_until_ns = sent ? mem_now_ns() + OFFER_WAIT_NS : 0;
}

/* Milliseconds until the offers are settled at the latest; 0: they are. */
static int offers_wait_ms(const struct gmem *gmem)
{
    const struct pageout *out = &gmem->pageout;
    uint64_t now_ns = mem_now_ns();

    if (now_ns >= out->offer_until_ns)
        return 0;
    for (unsigned i = 0; i < out->offer_count; i++)
        if (!out->offers[i].page_it && is_as_offered(gmem, &out->offers[i]))
            return (int)((out->offer_until_ns - now_ns) / 1000000u) + 1;
    return 0;
}

/* Settled offers: those still private become the cluster's victims. Returns their number, and in
 * *shared how many were shared instead. */
static unsigned take_offers(struct gmem *gmem, ppn_t *victims, unsigned *shared)
{
    struct pageout *out = &gmem->pageout;
    unsigned count = 0;

    *shared = 0;
    for (unsigned i = 0; i < out->offer_count; i++) {
        const struct offer *offer = &out->offers[i];

        if (is_as_offered(gmem, offer) && mem_pins(gmem, offer->ppn) == 0)
            victims[count++] = offer->ppn;
        else
            *shared += pmap_state(gmem->pmap, offer->ppn) == PAGE_SHARED;
    }
    out->offer_count = 0;
    return count;
}

void pageout_these(struct gmem *gmem, const struct ring_message *message)
{
    struct pageout *out = &gmem->pageout;

    for (unsigned i = 0; i < message->count; i++)
        for (unsigned j = 0; j < out->offer_count; j++)
            if (out->offers[j].ppn == message->pairs[i].ppn &&
                out->offers[j].mpn == message->pairs[i].mpn)
                out->offers[j].page_it = true;
}

/* ---- writing ---- */

/* Protect the count victims in out->cluster. Pages in the cluster, 0 when no slot is left. */
static unsigned start_cluster(struct gmem *gmem, unsigned count, uint32_t *first_slot,
                              struct iovec *frames)
{
    struct pageout *out = &gmem->pageout;
    unsigned slots = count ? swap_slots_take(gmem->slots, count, first_slot) : 0;

    if (slots == 0)
        return 0;
    memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
    for (unsigned i = 0; i < slots; i++) {
        ppn_t ppn = out->cluster[i];
        uint64_t before;

        shadow_protect_ppn(gmem->pmap, ppn);
        before = pmap_move(gmem->pmap, ppn, PAGE_EV_OUT_START, NO_MPN, *first_slot + i);
        frames[i].iov_base = mem_frame(gmem, pmap_word_mpn(before));
        frames[i].iov_len = PAGE_BYTES;
    }
    out->cluster_pages = slots;
    publish_slots(gmem);
    return slots;
}

/* Write frames one after another from first_slot. Lock not held. Returns the pages that are in the
 * file in full; *errnum says why if that is not all. */
static unsigned write_cluster(struct gmem *gmem, uint32_t first_slot, struct iovec *frames,
                              unsigned count, int *errnum)
{
    off_t from = (off_t)first_slot << PAGE_SHIFT;
    size_t done = 0, all = (size_t)count * PAGE_BYTES;

    *errnum = 0;
    while (done < all) {
        unsigned page = (unsigned)(done / PAGE_BYTES);
        size_t within = done % PAGE_BYTES;
        struct iovec whole = frames[page];
        ssize_t put;

        /* After a short write, go on in the middle of a page. */
        frames[page].iov_base = (uint8_t *)whole.iov_base + within;
        frames[page].iov_len -= within;
        put = pwritev(gmem->config.swap_fd, frames + page, (int)(count - page), from + (off_t)done);
        frames[page] = whole;
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            *errnum = put < 0 ? errno : EIO;
            break;
        }
        done += (size_t)put;
    }
    return (unsigned)(done / PAGE_BYTES);
}

/* The write has ended with the first `written` pages in the file. Returns the frames released. */
static unsigned settle_cluster(struct gmem *gmem, uint32_t first_slot, unsigned written)
{
    struct pageout *out = &gmem->pageout;
    unsigned released = 0;

    memlock_stop(gmem->lock, MEMLOCK_NOT_A_HART);
    for (unsigned i = 0; i < out->cluster_pages; i++) {
        ppn_t ppn = out->cluster[i];
        bool still_going = pmap_state(gmem->pmap, ppn) == PAGE_PAGING_OUT;

        if (still_going && i < written && mem_pins(gmem, ppn) == 0) {
            uint64_t before;

            shadow_drop_ppn(gmem->pmap, ppn);
            before = pmap_move(gmem->pmap, ppn, PAGE_EV_OUT_DONE, NO_MPN, 0);
            outbox_release(gmem, ppn, pmap_word_mpn(before), RELEASE_PAGED_OUT);
            released++;
            continue;
        }
        if (still_going)
            pageout_cancel(gmem, ppn);
        free_slot(gmem, first_slot + i);
    }
    out->cluster_pages = 0;
    publish_slots(gmem);
    atomic_fetch_add_explicit(&gmem->stats->swap_out_pages, released, memory_order_relaxed);
    memlock_wake_all(gmem->lock);
    return released;
}

void pageout_request(struct gmem *gmem, const struct ring_message *message)
{
    struct pageout *out = &gmem->pageout;

    if (out->request_count == RING_REQUESTS) {
        outbox_event(gmem, WORKER_REFUSED, message->request,
                     "more PAGE_OUT requests than are allowed");
        return;
    }
    out->requests[out->request_count++] = (struct out_request){
        .request = message->request,
        .offer_first = message->flags & RING_OFFER_FIRST,
        .wanted_pages = message->value,
    };
}

static void answer_first(struct gmem *gmem)
{
    struct pageout *out = &gmem->pageout;

    outbox_answer(gmem, out->requests[0].request, out->requests[0].released_pages);
    out->request_count--;
    memmove(out->requests, out->requests + 1, out->request_count * sizeof(out->requests[0]));
}

void pageout_answer_all(struct gmem *gmem)
{
    while (gmem->pageout.request_count > 0)
        answer_first(gmem);
    gmem->pageout.offer_count = 0;
}

int pageout_turn(struct gmem *gmem)
{
    struct out_request *request = &gmem->pageout.requests[0];
    struct iovec frames[OUT_CLUSTER_PAGES];
    unsigned wanted, count, written, shared = 0;
    uint32_t first_slot;
    int errnum, pause_ms;

    if (gmem->pageout.request_count == 0)
        return -1;
    if (!gmem->slots || request->released_pages >= request->wanted_pages) {
        answer_first(gmem);
        return 0;
    }
    pause_ms = swap_pause_left_ms(&gmem->write_trouble);
    if (pause_ms > 0)
        return pause_ms;
    if (outbox_room(gmem) < 2 * OUT_CLUSTER_PAGES)
        return ROOM_RETRY_MS;

    wanted = OUT_CLUSTER_PAGES;
    if (request->wanted_pages - request->released_pages < wanted)
        wanted = (unsigned)(request->wanted_pages - request->released_pages);
    if (request->offer_first && gmem->pageout.offer_count == 0)
        offer_victims(gmem, wanted);
    if (gmem->pageout.offer_count > 0) {
        int wait_ms = offers_wait_ms(gmem);

        if (wait_ms > 0)
            return wait_ms;
        count = take_offers(gmem, gmem->pageout.cluster, &shared);
        request->released_pages += shared;
        if (count == 0)
            return 0; /* all were shared or are busy: look for others */
    } else {
        count = pick_victims(gmem, gmem->pageout.cluster, wanted);
    }
    count = start_cluster(gmem, count, &first_slot, frames);
    if (count == 0) {
        answer_first(gmem);
        return 0;
    }
    memlock_unlock(gmem->lock, MEMLOCK_NOT_A_HART);
    written = write_cluster(gmem, first_slot, frames, count, &errnum);
    memlock_lock(gmem->lock, MEMLOCK_NOT_A_HART);

    request->released_pages += settle_cluster(gmem, first_slot, written);
    if (errnum) {
        swap_failed(gmem, &gmem->write_trouble, errnum);
        answer_first(gmem);
    } else {
        swap_worked(gmem, &gmem->write_trouble);
    }
    return 0;
}
