/*
 * A worker that speaks the rings well until it has frames, and then lies as its
 * VM's command line says; see lies[]. After the lie it goes on as an honest one,
 * so that a test can see that the supervisor did.
 */
#include "tests/daemon/worker_parts.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAMES 64u /* held before the lie */

static struct worker_parts parts;
static bool mute, lied, silent_about_resume;
static uint64_t check_answer;

static uint32_t pool_pages(void)
{
    return (uint32_t)atomic_load(&parts.region->stats.pool_pages);
}

static mpn_t pool_pop(void)
{
    uint32_t last = pool_pages() - 1;
    atomic_store(&parts.region->stats.pool_pages, last);
    return atomic_load(&parts.region->pool[last]);
}

static void tell(enum worker_event event, uint32_t value2)
{
    struct ring_message message = {.type = RING_EVENT, .value = event, .value2 = value2};
    worker_send(&parts, &message);
}

static void raw(uint16_t type, uint8_t count, uint8_t order, uint64_t value, uint32_t request)
{
    struct ring_message message = {
        .type = type, .count = count, .order = order, .value = value, .request = request};
    worker_send(&parts, &message);
}

/* ---- the lies ---- */

static void release_everything_else(void)
{
    for (mpn_t mpn = 0; mpn < parts.region->machine_pages; mpn++) {
        bool mine = false;
        for (uint32_t i = 0; i < pool_pages(); i++)
            mine |= atomic_load(&parts.region->pool[i]) == mpn;
        if (!mine)
            worker_release(&parts, mpn, RELEASE_UNUSED);
    }
}

static void release_beyond(void)
{
    worker_release(&parts, parts.region->machine_pages, RELEASE_BALLOONED);
    worker_release(&parts, NO_MPN, RELEASE_BALLOONED);
}

static void release_twice(void)
{
    mpn_t mpn = pool_pop();
    worker_release(&parts, mpn, RELEASE_UNUSED);
    worker_release(&parts, mpn, RELEASE_PAGED_OUT);
}

static void release_shared(void)
{
    mpn_t mpn = atomic_load(&parts.region->pool[0]);
    worker_release(&parts, mpn, RELEASE_COW_BREAK);
    worker_release(&parts, mpn, RELEASE_SHARED_AWAY);
    worker_release(&parts, mpn, RELEASE_WHYS);
}

static void senseless(void)
{
    raw(77, 0, 0, 0, 0);
    raw(0xffff, 255, 0, 0, 0);
    raw(RING_GRANT, 1, 0, 0, 0);
    raw(RING_RELEASED, 200, 0, 0, 0);
    raw(RING_RELEASED, 1, 9, 0, 0);
    raw(RING_EVENT, 0, 0, WORKER_EVENTS, 0);
    raw(RING_EVENT, 0, 0, UINT64_MAX, 0);
}

static void offer_unasked(void)
{
    for (uint16_t type = RING_RELEASED; type < RING_RELEASED + 16; type++)
        raw(type, 1, 0, RELEASE_WHYS - 1, 0);
}

static void answer_unasked(void)
{
    raw(RING_DONE, 0, 0, 0, 0);
    raw(RING_DONE, 0, 0, 0, 12345678);
    raw(RING_DONE, 0, 0, 0, UINT32_MAX);
}

static void want_the_world(void)
{
    raw(RING_WANT, 0, 0, UINT64_MAX, 0);
}

static void lie_in_statistics(void)
{
    struct vm_stats *stats = &parts.region->stats;
    for (int state = 0; state < PAGE_STATES; state++)
        atomic_store(&stats->pages.pages_in[state], UINT64_MAX);
    atomic_store(&stats->balloon_driver, 7);
    atomic_store(&stats->balloon_target_pages, UINT64_MAX);
    atomic_store(&stats->balloon_stats[4], UINT64_MAX - 1);
    atomic_store(&stats->swap_slots_used, UINT64_MAX);
}

static void speak_noise(void)
{
    memset(parts.region->text, 0xff, sizeof parts.region->text);
    tell(WORKER_GUEST_FAULT, 0);
}

static void chatter(void)
{
    for (int i = 0; i < 3000; i++)
        tell(WORKER_BALLOON_POPPED, (uint32_t)i);
}

static void corrupt_tail(void)
{
    atomic_store(&parts.outgoing->tail, UINT64_MAX / 2);
    raw(RING_NONE, 0, 0, 0, 0);
}

static void corrupt_head(void)
{
    atomic_fetch_add(&parts.outgoing->head, 3);
    tell(WORKER_BALLOON_POPPED, 0);
}

static void corrupt_incoming_tail(void)
{
    atomic_fetch_add(&parts.incoming->tail, 7);
    raw(RING_WANT, 0, 0, 300, 0);
}

static void corrupt_incoming_head(void)
{
    atomic_fetch_add(&parts.incoming->head, 500);
    raw(RING_WANT, 0, 0, 300, 0);
}

static void break_layout(void)
{
    parts.region->magic = 1;
    parts.region->ram_pages = UINT32_MAX;
    parts.region->to_worker_offset = UINT64_MAX;
    parts.region->to_supervisor_offset = UINT64_MAX - 7;
    parts.region->pmap_offset = UINT64_MAX;
    parts.region->region_bytes = UINT64_MAX;
}

static void claim_frames(void)
{
    /* Two pages in one frame, one in a frame that is not ours, one in no known state. */
    mpn_t mpn = atomic_load(&parts.region->pool[0]);
    uint64_t private_word = (uint64_t)PAGE_PRIVATE << 60;
    atomic_store(&parts.pmap[0], private_word | mpn);
    atomic_store(&parts.pmap[1], private_word | mpn);
    atomic_store(&parts.pmap[2], private_word | (parts.region->machine_pages - 1));
    atomic_store(&parts.pmap[3], UINT64_MAX);
    atomic_store(&parts.pmap[4], (uint64_t)PAGE_PAGED << 60 | (uint64_t)(MAX_VM_PAGES - 1) << 28);
}

/* One wrong pmap word, counted as the counts say, and an answer that makes up for it in 64 bits. */
static void hide_a_violation(void)
{
    atomic_store(&parts.pmap[4], (uint64_t)PAGE_PAGED << 60 | (uint64_t)(MAX_VM_PAGES - 1) << 28);
    atomic_fetch_sub(&parts.region->stats.pages.pages_in[PAGE_ABSENT], 1);
    atomic_store(&parts.region->stats.pages.pages_in[PAGE_PAGED], 1);
    check_answer = UINT64_MAX;
}

static void have_a_balloon_driver(void)
{
    tell(WORKER_BALLOON_DRIVER, 1);
}

static void never_say_resumed(void)
{
    silent_about_resume = true;
}

static void be_mute(void)
{
    mute = true;
}

static void crash(void)
{
    raise(SIGKILL);
}

static void exit_poweroff(void)
{
    _exit(WORKER_EXIT_POWEROFF);
}

static void exit_reboot(void)
{
    _exit(WORKER_EXIT_REBOOT);
}

static void exit_failed(void)
{
    _exit(WORKER_EXIT_FAILED);
}

static void exit_error(void)
{
    static const char words[] = "ballast-worker: cannot open /nowhere\n";
    if (write(2, words, sizeof words - 1) < 0)
        _exit(2);
    _exit(WORKER_EXIT_ERROR);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* A number that is often small, often at an edge, sometimes anything. */
static uint64_t odd_number(uint64_t *state, uint64_t edge)
{
    uint64_t any = next_random(state);
    switch (any >> 60 & 3) {
    case 0:
        return any & 7;
    case 1:
        return edge - 2 + (any & 3);
    case 2:
        return edge ? (any >> 8) % edge : 0;
    default:
        return any;
    }
}

/* Messages of random fields, most of them nearly right, over statistics and pmap words that change
 * at random: a worker that its guest has taken over. */
static void say_anything(uint64_t seed)
{
    static const uint16_t types[] = {RING_RELEASED, RING_RELEASED, RING_RELEASED, RING_RELEASED,
                                     RING_DONE,     RING_DONE,     RING_WANT,     RING_EVENT};
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15);
    uint32_t machine_pages = parts.region->machine_pages, ram_pages = parts.region->ram_pages;
    uint64_t *stats = (uint64_t *)(void *)&parts.region->stats;
    for (int i = 0; i < 5000; i++) {
        uint64_t any = next_random(&state);
        struct ring_message message = {.type = types[any & 7],
                                       .count = (uint8_t)((any >> 8) % (RING_PAIRS + 1)),
                                       .request = (uint32_t)odd_number(&state, RING_REQUESTS),
                                       .value2 = (uint32_t)odd_number(&state, ram_pages)};
        if ((any >> 16) % 16 == 0)
            message.type = (uint16_t)(any >> 20);
        if ((any >> 36) % 16 == 0)
            message.count = (uint8_t)(any >> 40);
        if ((any >> 48) % 64 == 0)
            message.order = (uint8_t)(any >> 56);
        bool event = message.type == RING_EVENT;
        message.value = odd_number(&state, event ? WORKER_EVENTS : RELEASE_WHYS);
        if (event && message.value == WORKER_SWAP_OK)
            continue; /* says to the test that the lie is over */
        for (unsigned pair = 0; pair < RING_PAIRS; pair++) {
            message.pairs[pair].ppn = (ppn_t)odd_number(&state, ram_pages);
            message.pairs[pair].mpn = (mpn_t)odd_number(&state, machine_pages);
        }
        worker_send(&parts, &message);
        atomic_store(&parts.pmap[next_random(&state) % ram_pages], next_random(&state));
        stats[next_random(&state) % (sizeof parts.region->stats / 8)] =
            odd_number(&state, ram_pages);
        parts.region->text[any % sizeof parts.region->text] = (char)(any >> 8);
    }
}

static void say_anything_1(void)
{
    say_anything(1);
}

static void say_anything_2(void)
{
    say_anything(2);
}

static void say_anything_3(void)
{
    say_anything(3);
}

/* ---- lies about sharing ---- */

static enum { LIE_NONE, DIE_AT_PROTECT, DIE_AT_SHARE, RELEASE_REFERENCE } sharing_lie;

/* Half the frames become pages of one content, so that it is asked to share them. */
static void have_equal_pages(void)
{
    for (ppn_t ppn = 0; ppn < FRAMES / 2; ppn++) {
        mpn_t mpn = pool_pop();
        memset(parts.machine + (size_t)mpn * PAGE_BYTES, 0x55, PAGE_BYTES);
        atomic_store(&parts.pmap[ppn], (uint64_t)PAGE_PRIVATE << 60 | mpn);
    }
}

static void die_at_protect(void)
{
    have_equal_pages();
    sharing_lie = DIE_AT_PROTECT;
}

static void die_at_share(void)
{
    have_equal_pages();
    sharing_lie = DIE_AT_SHARE;
}

static void release_reference(void)
{
    have_equal_pages();
    sharing_lie = RELEASE_REFERENCE;
}

static void release_pair(ppn_t ppn, mpn_t mpn, enum release_why why)
{
    struct ring_message message = {.type = RING_RELEASED, .count = 1, .value = why};
    message.pairs[0].ppn = ppn;
    message.pairs[0].mpn = mpn;
    worker_send(&parts, &message);
}

static void on_sharing(const struct ring_message *message)
{
    if ((message->type == RING_PROTECT && sharing_lie == DIE_AT_PROTECT) ||
        (message->type == RING_SHARE && sharing_lie == DIE_AT_SHARE))
        raise(SIGKILL);
    if (message->type == RING_WRITTEN)
        for (uint64_t i = 0; i < message->value2 / 64; i++)
            atomic_store(&vm_region_collected(parts.region,
                                              parts.region->ram_pages)[message->value / 64 + i],
                         ~UINT64_C(0));
    if (message->type == RING_PROTECT && sharing_lie != LIE_NONE) {
        ppn_t ppn = message->pairs[0].ppn;
        mpn_t mpn = message->pairs[0].mpn;
        raw(RING_DONE, 0, 0, UINT64_C(0x111111), message->request + RING_REQUESTS); /* not asked */
        raw(RING_DONE, 0, 0, UINT64_C(0x111111), message->request);
        raw(RING_DONE, 0, 0, UINT64_C(0x111111), message->request); /* twice */
        if (sharing_lie == RELEASE_REFERENCE) {
            release_pair(ppn + FRAMES, mpn, RELEASE_COW_BREAK); /* not of that page */
            release_pair(ppn, mpn, RELEASE_UNUSED);             /* not an end of a reference */
            release_pair(ppn, mpn, RELEASE_COW_BREAK);          /* true */
            release_pair(ppn, mpn, RELEASE_COW_BREAK);          /* twice */
            atomic_store(&parts.pmap[ppn], 0);
            sharing_lie = LIE_NONE;
            tell(WORKER_SWAP_ERROR, 0);
        }
        return;
    }
    raw(RING_DONE, 0, 0, 0, message->request);
}

static void nothing(void) {}

static const struct {
    const char *name;
    void (*tell)(void);
} lies[] = {
    {"honest", nothing},
    {"release-everything-else", release_everything_else},
    {"release-beyond", release_beyond},
    {"release-twice", release_twice},
    {"release-shared", release_shared},
    {"senseless", senseless},
    {"offer-unasked", offer_unasked},
    {"answer-unasked", answer_unasked},
    {"want-the-world", want_the_world},
    {"statistics", lie_in_statistics},
    {"noise", speak_noise},
    {"chatter", chatter},
    {"corrupt-tail", corrupt_tail},
    {"corrupt-head", corrupt_head},
    {"corrupt-incoming-tail", corrupt_incoming_tail},
    {"corrupt-incoming-head", corrupt_incoming_head},
    {"break-layout", break_layout},
    {"claim-frames", claim_frames},
    {"say-anything-1", say_anything_1},
    {"say-anything-2", say_anything_2},
    {"say-anything-3", say_anything_3},
    {"hide-a-violation", hide_a_violation},
    {"balloon-driver", have_a_balloon_driver},
    {"never-say-resumed", never_say_resumed},
    {"die-at-protect", die_at_protect},
    {"die-at-share", die_at_share},
    {"release-reference", release_reference},
    {"mute", be_mute},
    {"crash", crash},
    {"exit-poweroff", exit_poweroff},
    {"exit-reboot", exit_reboot},
    {"exit-failed", exit_failed},
    {"exit-error", exit_error},
};

static void lie(void)
{
    lied = true;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++)
        if (!strcmp(parts.config.append, lies[i].name))
            lies[i].tell();
    /* Tells the test that it is over; harmless for the supervisor. */
    tell(WORKER_SWAP_OK, 0);
}

static void on_message(const struct ring_message *message)
{
    switch (message->type) {
    case RING_GRANT:
        for (unsigned i = 0; i < message->count; i++) {
            uint32_t at = pool_pages();
            if (at >= GRANT_POOL_SLOTS)
                break; /* after lies about it */
            atomic_store(&parts.region->pool[at], message->numbers[i]);
            atomic_store(&parts.region->stats.pool_pages, at + 1);
        }
        if (!lied && pool_pages() >= FRAMES)
            lie();
        break;
    case RING_RETURN:
        for (uint64_t i = 0; i < message->value && pool_pages(); i++)
            worker_release(&parts, pool_pop(), RELEASE_UNUSED);
        break;
    case RING_CHECK:
        raw(RING_DONE, 0, 0, check_answer, message->request);
        break;
    case RING_RESUME:
        if (silent_about_resume)
            break;
        raw(RING_DONE, 0, 0, 0, message->request);
        break;
    case RING_SAMPLE:
        raw(RING_DONE, 0, 0, UINT64_MAX, message->request);
        break;
    case RING_PAUSE:
    case RING_PAGE_OUT:
        raw(RING_DONE, 0, 0, 0, message->request);
        break;
    case RING_PROTECT:
    case RING_SHARE:
    case RING_UNSHARE:
    case RING_WRITTEN:
        on_sharing(message);
        break;
    case RING_QUIT:
        _exit(WORKER_EXIT_QUIT);
    default:
        break;
    }
}

int main(void)
{
    worker_parts_open(&parts);
    atomic_store(&parts.region->stats.pages.pages_in[PAGE_ABSENT], parts.region->ram_pages);
    tell(WORKER_READY, 0);
    raw(RING_WANT, 0, 0, FRAMES, 0);
    for (;;) {
        struct ring_message message;
        worker_take(&parts, &message);
        if (!mute)
            on_message(&message);
    }
}
