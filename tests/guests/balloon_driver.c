/*
 * The bundled guest with a balloon: balloon-driver/balloon_core.c over real
 * virtio queues. It follows whatever target the host sets, reports statistics and
 * free pages, and watches that no page it still uses changes. It ends when the
 * host has had BALLOON_GUEST_PAGES or more and has given all of them back.
 */
#include "tests/guests/guest_balloon.h"

#define TICK_MS       10u /* faster than the second of a real guest: this is a test */
#define ANSWER_MS     10000u
#define LIFE_MS       60000u
#define WATCHED_PAGES 256u
#define REPORT_PAGES  8u

static struct guest_balloon balloon = {.answer_ms = ANSWER_MS};
static struct queue stats_queue, report_queue;
static struct balloon_stat stats[3];
static uint64_t *watched[WATCHED_PAGES];
static uint32_t most_held_pages;
static unsigned stats_asked_for;

/* ---- Platform ---- */

static bool take_page(void *ctx, balloon_page_number *number)
{
    uint64_t *page = guest_page();
    (void)ctx;
    if (!page)
        return false;
    page[0] = page[511] = 0xdeadbeef; /* it has a frame that the host gets */
    *number = (balloon_page_number)((uintptr_t)page >> BALLOON_PAGE_SHIFT);
    return true;
}

static void free_page(void *ctx, balloon_page_number number)
{
    volatile uint64_t *page = (void *)((uintptr_t)number << BALLOON_PAGE_SHIFT);
    (void)ctx;
    guest_promise(page[0] == 0 && page[511] == 0, "a page out of the balloon is a fresh one");
    guest_free_page((void *)page);
}

static void *take_notes(void *ctx)
{
    (void)ctx;
    return guest_page();
}

static void free_notes(void *ctx, void *notes)
{
    (void)ctx;
    guest_free_page(notes);
}

/* ---- Beside the balloon ---- */

static void offer_stats(void)
{
    stats[0] = (struct balloon_stat){BALLOON_STAT_TOTAL_BYTES, GUEST_RAM_BYTES};
    stats[1] = (struct balloon_stat){BALLOON_STAT_FREE_BYTES, balloon.core.held_pages * 4096ul};
    stats[2] = (struct balloon_stat){0x7000, 1}; /* a tag of the future */
    queue_offer(&stats_queue, &(struct buffer){stats, sizeof stats, 0}, 1);
}

/* Free pages are reported by their addresses alone (virtio 1.2, 5.5.6.6). */
static void report_free_pages(void)
{
    uint64_t *pages[REPORT_PAGES];
    struct buffer buffers[REPORT_PAGES];
    for (unsigned i = 0; i < REPORT_PAGES; i++) {
        pages[i] = guest_page();
        pages[i][7] = 0x1111;
        buffers[i] = (struct buffer){pages[i], 4096, VIRTQ_DESC_WRITE};
    }
    guest_promise(queue_do(&report_queue, buffers, REPORT_PAGES, NULL), "a report is answered");
    for (unsigned i = 0; i < REPORT_PAGES; i++) {
        guest_promise(*(volatile uint64_t *)&pages[i][7] == 0, "a reported page lost its content");
        guest_free_page(pages[i]);
    }
}

static void begin(void)
{
    static const struct balloon_platform own = {
        .take_page = take_page,
        .free_page = free_page,
        .take_notes = take_notes,
        .free_notes = free_notes,
    };
    guest_promise(guest_balloon_begin(&balloon, &own,
                                      1ul << BALLOON_F_STATS_VQ | 1ul << BALLOON_F_PAGE_REPORTING),
                  "the features are accepted");
    queue_begin(&stats_queue, &balloon.driver, BALLOON_QUEUE_STATS);
    queue_begin(&report_queue, &balloon.driver, 4);
    driver_ready(&balloon.driver);
    balloon_start(&balloon.core);
    offer_stats();
    report_free_pages();
}

static void serve_tick(void)
{
    uint64_t next = guest_time() + TICK_MS * TICKS_PER_MS;
    balloon_tick(&balloon.core);
    if (balloon.core.held_pages > most_held_pages)
        most_held_pages = balloon.core.held_pages;
    if (queue_wait(&stats_queue, 0, NULL)) {
        stats_asked_for++;
        offer_stats();
    }
    while (guest_time() < next)
        ;
}

void guest_main(void)
{
    uint64_t end = guest_time() + LIFE_MS * TICKS_PER_MS;
    if (!guest_promise(driver_find(&balloon.driver, VIRTIO_ID_BALLOON), "there is a balloon"))
        return;
    for (unsigned i = 0; i < WATCHED_PAGES; i++) {
        watched[i] = guest_page();
        watched[i][3] = i * 0x9e3779b97f4a7c15ul;
    }
    begin();
    while (balloon.core.state != BALLOON_FAILED &&
           (most_held_pages < BALLOON_GUEST_PAGES || balloon.core.held_pages > 0)) {
        serve_tick();
        if (!guest_promise(guest_time() < end, "the host sets its targets in time"))
            break;
    }
    guest_promise(balloon.core.state == BALLOON_IDLE, "the balloon rests at its target");
    guest_promise(balloon.core.taken_pages == balloon.core.given_pages, "every page came back");
    guest_promise(stats_asked_for > 0, "the host asks for statistics");
    for (unsigned i = 0; i < WATCHED_PAGES; i++)
        guest_promise(watched[i][3] == i * 0x9e3779b97f4a7c15ul,
                      "pages in use keep their contents");
    balloon_stop(&balloon.core);
    driver_write(&balloon.driver, VIRTIO_MMIO_STATUS, 0);
}
