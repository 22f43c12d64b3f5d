/* The driver core; balloon_core.h says how it behaves, the table below when. */
#include "balloon-driver/balloon_core.h"

/* ---- States ---- */

enum event {
    EV_START,  /* the device is ready */
    EV_BELOW,  /* the balloon is smaller than its target */
    EV_ABOVE,  /* larger */
    EV_MET,    /* as large */
    EV_NOPAGE, /* the guest had no page to spare */
    EV_RESTED, /* the slow ticks are over */
    EV_HOST,   /* the host refused or did not answer */
    EV_STOP,   /* the driver is being unloaded */
    EVENTS
};

/* clang-format off */
static const uint8_t transitions[BALLOON_STATES][EVENTS] = {
#define ROW(start, below, above, met, nopage, rested, host, stop)                                  \
    {BALLOON_##start,  BALLOON_##below,  BALLOON_##above, BALLOON_##met,                           \
     BALLOON_##nopage, BALLOON_##rested, BALLOON_##host,  BALLOON_##stop}
    /*                        START BELOW      ABOVE      MET      NOPAGE   RESTED     HOST     STOP */
    [BALLOON_STOPPED]   = ROW(IDLE, STOPPED,   STOPPED,   STOPPED, STOPPED, STOPPED,   STOPPED, STOPPED),
    [BALLOON_IDLE]      = ROW(IDLE, INFLATING, DEFLATING, IDLE,    SLOW,    IDLE,      FAILED,  STOPPED),
    [BALLOON_INFLATING] = ROW(IDLE, INFLATING, DEFLATING, IDLE,    SLOW,    INFLATING, FAILED,  STOPPED),
    [BALLOON_SLOW]      = ROW(IDLE, SLOW,      DEFLATING, IDLE,    SLOW,    INFLATING, FAILED,  STOPPED),
    [BALLOON_DEFLATING] = ROW(IDLE, INFLATING, DEFLATING, IDLE,    SLOW,    DEFLATING, FAILED,  STOPPED),
    [BALLOON_FAILED]    = ROW(IDLE, FAILED,    FAILED,    FAILED,  FAILED,  FAILED,    FAILED,  STOPPED),
#undef ROW
};
/* clang-format on */

static void move(struct balloon *balloon, enum event event)
{
    balloon->state = (enum balloon_state)transitions[balloon->state][event];
}

static bool running(const struct balloon *balloon)
{
    return balloon->state != BALLOON_STOPPED && balloon->state != BALLOON_FAILED;
}

const char *balloon_state_name(enum balloon_state state)
{
    static const char *const names[BALLOON_STATES] = {
        [BALLOON_STOPPED] = "stopped",     [BALLOON_IDLE] = "idle",
        [BALLOON_INFLATING] = "inflating", [BALLOON_SLOW] = "slow",
        [BALLOON_DEFLATING] = "deflating", [BALLOON_FAILED] = "failed",
    };
    return (unsigned)state < BALLOON_STATES ? names[state] : "?";
}

/* ---- Notes: which pages are in the balloon, a stack on sheets of memory ---- */

#define NOTES_ON_SHEET                                                                             \
    ((BALLOON_NOTE_BYTES - offsetof(struct balloon_notes, numbers)) / sizeof(balloon_page_number))

struct balloon_notes {
    struct balloon_notes *earlier;
    uint32_t count;
    balloon_page_number numbers[];
};

/* Room for one more note? Taken before the page itself, so that noting cannot fail. */
static bool notes_have_room(struct balloon *balloon)
{
    const struct balloon_platform *platform = &balloon->platform;
    if (balloon->notes && balloon->notes->count < NOTES_ON_SHEET)
        return true;
    struct balloon_notes *sheet = platform->take_notes(platform->ctx);
    if (!sheet)
        return false;
    sheet->earlier = balloon->notes;
    sheet->count = 0;
    balloon->notes = sheet;
    return true;
}

static void drop_empty_sheets(struct balloon *balloon)
{
    const struct balloon_platform *platform = &balloon->platform;
    while (balloon->notes && balloon->notes->count == 0) {
        struct balloon_notes *sheet = balloon->notes;
        balloon->notes = sheet->earlier;
        platform->free_notes(platform->ctx, sheet);
    }
}

static void note(struct balloon *balloon, balloon_page_number number)
{
    balloon->notes->numbers[balloon->notes->count++] = number;
    balloon->held_pages++;
}

/* The page noted last; held_pages > 0. */
static balloon_page_number unnote(struct balloon *balloon)
{
    drop_empty_sheets(balloon);
    balloon->held_pages--;
    return balloon->notes->numbers[--balloon->notes->count];
}

/* The `count` pages noted last, the last one first, without taking them off; held_pages >= count.
 */
static void copy_latest(const struct balloon *balloon, balloon_page_number *numbers, uint32_t count)
{
    uint32_t copied = 0;
    for (const struct balloon_notes *sheet = balloon->notes; sheet; sheet = sheet->earlier)
        for (uint32_t left = sheet->count; left > 0 && copied < count;)
            numbers[copied++] = sheet->numbers[--left];
}

/* ---- Rates ---- */

static uint32_t at_least(uint32_t value, uint32_t least)
{
    return value < least ? least : value;
}

static uint32_t at_most(uint32_t value, uint32_t most)
{
    return value > most ? most : value;
}

static void guest_had_no_page(struct balloon *balloon)
{
    balloon->take_failures++;
    balloon->take_rate_pages = at_least(balloon->take_rate_pages / 2, BALLOON_TAKE_MIN_PAGES);
    balloon->slow_ticks_left = BALLOON_SLOW_TICKS;
    move(balloon, EV_NOPAGE);
}

static void host_failed(struct balloon *balloon)
{
    balloon->host_failures++;
    balloon->give_rate_pages = at_least(balloon->give_rate_pages / 2, BALLOON_GIVE_MIN_PAGES);
    move(balloon, EV_HOST);
}

/* ---- Taking and giving ---- */

/* Up to `pages` pages (one batch) from the guest to the host. Returns how many went. */
static uint32_t take_batch(struct balloon *balloon, uint32_t pages)
{
    const struct balloon_platform *platform = &balloon->platform;
    uint32_t count = 0, first = balloon->held_pages;
    bool enough = true;
    pages = at_most(pages, BALLOON_BATCH_PAGES);
    while (count < pages && enough) {
        enough =
            notes_have_room(balloon) && platform->take_page(platform->ctx, &balloon->batch[count]);
        if (enough)
            note(balloon, balloon->batch[count++]);
    }
    if (count > 0 && !platform->inflate(platform->ctx, balloon->batch, count)) {
        while (balloon->held_pages > first)
            platform->free_page(platform->ctx, unnote(balloon));
        count = 0;
        host_failed(balloon);
    } else if (!enough) {
        guest_had_no_page(balloon);
    }
    drop_empty_sheets(balloon);
    balloon->taken_pages += count;
    return count;
}

/* Up to `pages` pages (one batch) back to the guest, the one taken last first. The host is told
 * before the guest may use them. Returns how many came back. */
static uint32_t give_batch(struct balloon *balloon, uint32_t pages)
{
    const struct balloon_platform *platform = &balloon->platform;
    uint32_t count = at_most(at_most(pages, BALLOON_BATCH_PAGES), balloon->held_pages);
    copy_latest(balloon, balloon->batch, count);
    if (count > 0 && !platform->deflate(platform->ctx, balloon->batch, count)) {
        host_failed(balloon);
        return 0;
    }
    for (uint32_t i = 0; i < count; i++)
        platform->free_page(platform->ctx, unnote(balloon));
    drop_empty_sheets(balloon);
    balloon->given_pages += count;
    return count;
}

static void below_target(struct balloon *balloon)
{
    uint32_t rate = balloon->take_rate_pages, taken = 0;
    if (balloon->state == BALLOON_SLOW) {
        if (balloon->slow_ticks_left == 0) {
            move(balloon, EV_RESTED);
        } else {
            balloon->slow_ticks_left--;
            rate = BALLOON_TAKE_MIN_PAGES;
        }
    }
    uint32_t wanted = at_most(balloon->target_pages - balloon->held_pages, rate);
    while (taken < wanted) {
        uint32_t part = at_most(wanted - taken, BALLOON_BATCH_PAGES);
        uint32_t came = take_batch(balloon, part);
        if (came < part)
            return;
        taken += came;
    }
    if (balloon->state == BALLOON_INFLATING && wanted == rate)
        balloon->take_rate_pages = at_most(rate + BALLOON_TAKE_STEP_PAGES, BALLOON_TAKE_MAX_PAGES);
}

static void above_target(struct balloon *balloon)
{
    uint32_t rate = balloon->give_rate_pages, given = 0;
    uint32_t wanted = at_most(balloon->held_pages - balloon->target_pages, rate);
    while (given < wanted && balloon->state == BALLOON_DEFLATING)
        given += give_batch(balloon, wanted - given);
    if (given == rate)
        balloon->give_rate_pages = at_most(rate + BALLOON_GIVE_STEP_PAGES, BALLOON_GIVE_MAX_PAGES);
}

static enum event relation(const struct balloon *balloon)
{
    if (balloon->held_pages == balloon->target_pages)
        return EV_MET;
    return balloon->held_pages < balloon->target_pages ? EV_BELOW : EV_ABOVE;
}

void balloon_tick(struct balloon *balloon)
{
    const struct balloon_platform *platform = &balloon->platform;
    if (!running(balloon))
        return;
    if (!platform->read_target(platform->ctx, &balloon->target_pages)) {
        host_failed(balloon);
        return;
    }
    move(balloon, relation(balloon));
    if (balloon->state == BALLOON_IDLE)
        return;
    if (balloon->state == BALLOON_DEFLATING)
        above_target(balloon);
    else
        below_target(balloon);
    if (!running(balloon))
        return;
    if (relation(balloon) == EV_MET)
        move(balloon, EV_MET);
    platform->write_actual(platform->ctx, balloon->held_pages);
}

/* ---- Coming and going ---- */

void balloon_init(struct balloon *balloon, const struct balloon_platform *platform)
{
    *balloon = (struct balloon){.platform = *platform, .state = BALLOON_STOPPED};
    balloon->take_rate_pages = BALLOON_TAKE_MAX_PAGES;
    balloon->give_rate_pages = BALLOON_GIVE_MAX_PAGES;
}

static void free_untold(struct balloon *balloon)
{
    while (balloon->held_pages > 0)
        balloon->platform.free_page(balloon->platform.ctx, unnote(balloon));
    drop_empty_sheets(balloon);
}

void balloon_start(struct balloon *balloon)
{
    free_untold(balloon);
    balloon->take_rate_pages = BALLOON_TAKE_MAX_PAGES;
    balloon->give_rate_pages = BALLOON_GIVE_MAX_PAGES;
    balloon->slow_ticks_left = 0;
    move(balloon, EV_START);
    balloon->platform.write_actual(balloon->platform.ctx, 0);
}

uint32_t balloon_relieve(struct balloon *balloon, uint32_t pages)
{
    uint32_t given = 0;
    if (!running(balloon))
        return 0;
    pages = at_most(pages, balloon->held_pages);
    while (given < pages && running(balloon))
        given += give_batch(balloon, pages - given);
    if (!running(balloon))
        return given;
    if (given > 0)
        guest_had_no_page(balloon);
    balloon->platform.write_actual(balloon->platform.ctx, balloon->held_pages);
    return given;
}

void balloon_stop(struct balloon *balloon)
{
    while (balloon->held_pages > 0 && running(balloon))
        give_batch(balloon, balloon->held_pages);
    if (running(balloon))
        balloon->platform.write_actual(balloon->platform.ctx, 0);
    free_untold(balloon);
    move(balloon, EV_STOP);
}
