#include "tests/mem/fake_supervisor.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_S 20

__attribute__((format(printf, 2, 3))) static void violate(struct fake_supervisor *s,
                                                          const char *format, ...)
{
    va_list ap;

    if (s->violations++)
        return;
    va_start(ap, format);
    vsnprintf(s->violation, sizeof(s->violation), format, ap);
    va_end(ap);
}

static void kick(struct fake_supervisor *s)
{
    eventfd_write(s->kick_fd, 1);
}

/* Mutex held from here to the thread's loop. */
static bool grant(struct fake_supervisor *s, uint32_t pages)
{
    struct ring *ring = vm_region_to_worker(s->region);
    struct ring_message message = {.type = RING_GRANT};
    bool sent = false;

    for (mpn_t mpn = 0; mpn < s->host.machine_pages && pages > 0 && ring_room(ring) > 1; mpn++) {
        if (s->granted[mpn])
            continue;
        s->granted[mpn] = true;
        s->free_pages--;
        pages--;
        message.numbers[message.count++] = mpn;
        if (message.count == RING_BATCH || pages == 0 || s->free_pages == 0) {
            assert_int_equal(ring_put(ring, &message), RING_OK);
            message.count = 0;
            sent = true;
        }
    }
    if (message.count > 0)
        assert_int_equal(ring_put(ring, &message), RING_OK);
    if (sent || message.count > 0)
        kick(s);
    return sent;
}

static void free_frame(struct fake_supervisor *s, mpn_t mpn)
{
    memset(s->machine + (uint64_t)mpn * PAGE_BYTES, JUNK, PAGE_BYTES);
    s->granted[mpn] = false;
    s->free_pages++;
}

static void on_released(struct fake_supervisor *s, const struct ring_message *message)
{
    for (unsigned i = 0; i < message->count; i++) {
        ppn_t ppn = message->pairs[i].ppn;
        mpn_t mpn = message->pairs[i].mpn;

        if (mpn >= s->host.machine_pages || !s->granted[mpn]) {
            violate(s, "RELEASED frame %u (%s), which is not granted", mpn,
                    release_why_name((unsigned)message->value));
            continue;
        }
        if ((message->value == RELEASE_UNUSED) != (ppn == NO_PPN))
            violate(s, "RELEASED %s with ppn %u", release_why_name((unsigned)message->value), ppn);
        s->released[message->value]++;
        if (s->refs[mpn] > 0 && --s->refs[mpn] > 0)
            continue;
        if (mpn == s->asked)
            s->asked_gone = true;
        else
            free_frame(s, mpn);
    }
}

static void on_message(struct fake_supervisor *s, const struct ring_message *message)
{
    if (!ring_message_valid(message, false)) {
        violate(s, "malformed message of type %u", message->type);
        return;
    }
    switch (message->type) {
    case RING_RELEASED:
        on_released(s, message);
        break;
    case RING_WANT:
        s->wants++;
        s->want_pages = (uint32_t)message->value;
        s->want_blocked = message->flags & RING_BLOCKED;
        break;
    case RING_OFFER:
        if (s->offer_count < sizeof(s->offers) / sizeof(s->offers[0]))
            s->offers[s->offer_count++] = *message;
        break;
    case RING_DONE:
        if (message->request == 0 || message->request >= s->next_request) {
            violate(s, "DONE for request %u, which was never sent", message->request);
            break;
        }
        s->done_value[message->request] = message->value;
        if (++s->done_times[message->request] > 1)
            violate(s, "request %u was answered twice", message->request);
        if (message->request == s->reclaim_request)
            s->reclaiming = false;
        break;
    default:
        s->events[message->value]++;
        s->event_value2[message->value] = message->value2;
    }
}

static uint32_t post_message(struct fake_supervisor *s, struct ring_message message)
{
    assert_true(s->next_request < MAX_DONES);
    message.request = s->next_request;
    if (ring_put(vm_region_to_worker(s->region), &message) != RING_OK)
        return 0;
    kick(s);
    return s->next_request++;
}

static uint32_t post(struct fake_supervisor *s, enum ring_type type, uint64_t value)
{
    return post_message(s, (struct ring_message){.type = (uint16_t)type, .value = value});
}

static void serve_wants(struct fake_supervisor *s)
{
    if (!s->grants || s->want_pages == 0)
        return;
    if (s->free_pages > 0) {
        uint32_t pages = s->want_pages < s->free_pages ? s->want_pages : s->free_pages;
        s->want_pages -= pages;
        s->want_blocked = false;
        grant(s, pages);
    } else if (s->want_blocked && s->reclaims && !s->reclaiming) {
        s->reclaiming = true;
        s->reclaim_request = post(s, RING_PAGE_OUT, 16);
        if (s->reclaim_request == 0)
            s->reclaiming = false;
    }
}

static void drain(struct fake_supervisor *s)
{
    struct ring_message message;
    enum ring_result result;

    while ((result = ring_take(vm_region_to_supervisor(s->region), &message)) == RING_OK)
        on_message(s, &message);
    if (result == RING_CORRUPT)
        violate(s, "the worker's ring is corrupt");
}

static void *supervise(void *arg)
{
    struct fake_supervisor *s = arg;

    pthread_mutex_lock(&s->mutex);
    while (!s->stopping) {
        struct pollfd fd = {.fd = s->notify_fd, .events = POLLIN};
        eventfd_t count;

        if (!s->deaf) {
            drain(s);
            serve_wants(s);
        }
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->mutex);
        if (poll(&fd, 1, 20) > 0)
            eventfd_read(s->notify_fd, &count);
        pthread_mutex_lock(&s->mutex);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* The machine's part. */
void fake_gate(struct fake_supervisor *s)
{
    pthread_mutex_lock(&s->gate_mutex);
    s->at_gate++;
    pthread_cond_broadcast(&s->gate_changed);
    while (s->gate_closed)
        pthread_cond_wait(&s->gate_changed, &s->gate_mutex);
    s->at_gate--;
    pthread_mutex_unlock(&s->gate_mutex);
}

void fake_gate_leave(struct fake_supervisor *s)
{
    pthread_mutex_lock(&s->gate_mutex);
    s->at_gate++;
    pthread_cond_broadcast(&s->gate_changed);
    pthread_mutex_unlock(&s->gate_mutex);
}

static void park(void *ctx)
{
    fake_gate(ctx);
}

static void set_paused(void *ctx, bool paused)
{
    struct fake_supervisor *s = ctx;

    pthread_mutex_lock(&s->gate_mutex);
    s->pause_calls++;
    s->gate_closed = paused;
    pthread_cond_broadcast(&s->gate_changed);
    while (paused && s->at_gate < s->host.actors)
        pthread_cond_wait(&s->gate_changed, &s->gate_mutex);
    pthread_mutex_unlock(&s->gate_mutex);
}

static void set_balloon(void *ctx, uint64_t balloon_pages)
{
    struct fake_supervisor *s = ctx;

    pthread_mutex_lock(&s->gate_mutex);
    s->balloon_pages = balloon_pages;
    s->balloon_calls++;
    pthread_cond_broadcast(&s->gate_changed);
    pthread_mutex_unlock(&s->gate_mutex);
}

static void quit(void *ctx)
{
    struct fake_supervisor *s = ctx;

    pthread_mutex_lock(&s->gate_mutex);
    s->quit_calls++;
    s->gate_closed = false;
    pthread_cond_broadcast(&s->gate_changed);
    pthread_mutex_unlock(&s->gate_mutex);
}

static void start_worker(struct fake_supervisor *s)
{
    struct gmem_config config = {
        .region = s->region,
        .machine = s->machine,
        .kick_fd = s->kick_fd,
        .notify_fd = s->notify_fd,
        .swap_fd = s->host.no_swap ? -1 : s->swap_fd,
        .swap_slots = s->host.swap_slots,
        .random_seed = s->host.seed,
        .ctx = s,
        .set_balloon = set_balloon,
        .set_paused = set_paused,
        .quit = quit,
        .park = park,
    };
    struct err err = {0};

    memset(s->region, 0, vm_region_bytes(s->host.ram_pages));
    vm_region_init(s->region, s->host.ram_pages, s->host.machine_pages);
    s->gmem = gmem_new(&config, &err);
    if (!s->gmem || gmem_start(s->gmem, &err) < 0)
        fail_msg("%s", err.text);
}

struct fake_host fake_host_of(uint32_t ram_pages, uint32_t machine_pages, uint64_t seed)
{
    return (struct fake_host){.ram_pages = ram_pages,
                              .machine_pages = machine_pages,
                              .swap_slots = ram_pages,
                              .swap_fd = -1,
                              .seed = seed};
}

struct fake_supervisor *fake_supervisor_new(const struct fake_host *host)
{
    struct fake_supervisor *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    s->host = *host;
    s->region = mmap(NULL, vm_region_bytes(host->ram_pages), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    s->machine = mmap(NULL, (size_t)host->machine_pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(s->region != MAP_FAILED && s->machine != MAP_FAILED);
    memset(s->machine, JUNK, (size_t)host->machine_pages * PAGE_BYTES);
    s->kick_fd = eventfd(0, 0);
    s->notify_fd = eventfd(0, 0);
    s->swap_fd = host->swap_fd;
    if (host->swap_fd < 0 && !host->no_swap) {
        s->swap_fd = memfd_create("swap", MFD_CLOEXEC);
        assert_return_code(ftruncate(s->swap_fd, (off_t)host->swap_slots * PAGE_BYTES), errno);
    }
    s->granted = calloc(host->machine_pages, sizeof(*s->granted));
    s->refs = calloc(host->machine_pages, sizeof(*s->refs));
    s->free_pages = host->machine_pages;
    s->asked = NO_MPN;
    s->grants = s->reclaims = true;
    s->next_request = 1;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->changed, NULL);
    pthread_mutex_init(&s->gate_mutex, NULL);
    pthread_cond_init(&s->gate_changed, NULL);
    start_worker(s);
    assert_int_equal(pthread_create(&s->thread, NULL, supervise, s), 0);
    return s;
}

void fake_supervisor_free(struct fake_supervisor *s)
{
    gmem_free(s->gmem);
    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    pthread_mutex_unlock(&s->mutex);
    eventfd_write(s->notify_fd, 1);
    pthread_join(s->thread, NULL);
    if (s->violations)
        fail_msg("%u violations of the books, first: %s", s->violations, s->violation);
    close(s->kick_fd);
    close(s->notify_fd);
    if (s->swap_fd >= 0 && s->host.swap_fd < 0)
        close(s->swap_fd);
    munmap(s->machine, (size_t)s->host.machine_pages * PAGE_BYTES);
    munmap(s->region, vm_region_bytes(s->host.ram_pages));
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->gate_changed);
    pthread_mutex_destroy(&s->gate_mutex);
    free(s->granted);
    free(s->refs);
    free(s);
}

void fake_supervisor_restart(struct fake_supervisor *s)
{
    gmem_free(s->gmem);
    pthread_mutex_lock(&s->mutex);
    drain(s);
    for (mpn_t mpn = 0; mpn < s->host.machine_pages; mpn++)
        if (s->granted[mpn]) {
            memset(s->machine + (uint64_t)mpn * PAGE_BYTES, JUNK, PAGE_BYTES);
            s->granted[mpn] = false;
            s->refs[mpn] = 0;
            s->free_pages++;
        }
    assert_int_equal(s->free_pages, s->host.machine_pages);
    s->want_pages = 0;
    s->want_blocked = s->reclaiming = false;
    start_worker(s);
    pthread_mutex_unlock(&s->mutex);
}

void fake_send(struct fake_supervisor *s, const struct ring_message *message)
{
    pthread_mutex_lock(&s->mutex);
    while (ring_put(vm_region_to_worker(s->region), message) != RING_OK) {
        pthread_mutex_unlock(&s->mutex);
        usleep(1000);
        pthread_mutex_lock(&s->mutex);
    }
    kick(s);
    pthread_mutex_unlock(&s->mutex);
}

void fake_send_value(struct fake_supervisor *s, enum ring_type type, uint64_t value)
{
    struct ring_message message = {.type = (uint16_t)type, .value = value};

    fake_send(s, &message);
}

/* Wait with the mutex held; fails the test when patience ends. */
static void await(struct fake_supervisor *s, const char *what)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    if (pthread_cond_timedwait(&s->changed, &s->mutex, &until) == ETIMEDOUT) {
        pthread_mutex_unlock(&s->mutex);
        fail_msg("waited %d s for %s", PATIENCE_S, what);
    }
}

uint32_t fake_post(struct fake_supervisor *s, enum ring_type type, uint64_t value)
{
    uint32_t request;

    pthread_mutex_lock(&s->mutex);
    while ((request = post(s, type, value)) == 0)
        await(s, "room in the ring");
    pthread_mutex_unlock(&s->mutex);
    return request;
}

uint64_t fake_await(struct fake_supervisor *s, uint32_t request)
{
    uint64_t value;
    time_t start = time(NULL);

    pthread_mutex_lock(&s->mutex);
    while (s->done_times[request] == 0) {
        await(s, "DONE");
        if (time(NULL) - start > PATIENCE_S) {
            pthread_mutex_unlock(&s->mutex);
            fail_msg("no DONE for request %u", request);
        }
    }
    value = s->done_value[request];
    pthread_mutex_unlock(&s->mutex);
    return value;
}

uint64_t fake_request(struct fake_supervisor *s, enum ring_type type, uint64_t value)
{
    return fake_await(s, fake_post(s, type, value));
}

uint64_t fake_request_message(struct fake_supervisor *s, struct ring_message message)
{
    uint32_t request;

    pthread_mutex_lock(&s->mutex);
    while ((request = post_message(s, message)) == 0)
        await(s, "room in the ring");
    pthread_mutex_unlock(&s->mutex);
    return fake_await(s, request);
}

static enum ring_item ask_item(struct fake_supervisor *s, struct ring_message message)
{
    uint32_t request;

    while ((request = post_message(s, message)) == 0)
        await(s, "room in the ring");
    pthread_mutex_unlock(&s->mutex);
    enum ring_item item = RING_ITEM(fake_await(s, request), 0);
    pthread_mutex_lock(&s->mutex);
    return item;
}

/* The reference is counted before the question, and taken back if the answer is no; the page may
 * release it in between. */
enum ring_item fake_protect(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn)
{
    enum ring_item item = RING_ITEM_STALE;

    pthread_mutex_lock(&s->mutex);
    if (s->granted[mpn] && s->refs[mpn] == 0) {
        s->refs[mpn] = 1;
        s->asked = mpn;
        item = ask_item(
            s, (struct ring_message){.type = RING_PROTECT, .count = 1, .pairs = {{ppn, mpn}}});
        if (s->asked_gone)
            free_frame(s, mpn);
        else if (item != RING_ITEM_DONE)
            s->refs[mpn] = 0;
        s->asked = NO_MPN;
        s->asked_gone = false;
    }
    pthread_mutex_unlock(&s->mutex);
    return item;
}

static enum ring_item join(struct fake_supervisor *s, struct ring_message message, mpn_t target)
{
    enum ring_item item = RING_ITEM_STALE;

    pthread_mutex_lock(&s->mutex);
    if (s->refs[target] > 0) {
        s->refs[target]++;
        item = ask_item(s, message);
        if (item != RING_ITEM_DONE && --s->refs[target] == 0)
            free_frame(s, target);
    }
    pthread_mutex_unlock(&s->mutex);
    return item;
}

enum ring_item fake_share(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn, mpn_t target)
{
    return join(
        s, (struct ring_message){.type = RING_SHARE, .count = 3, .numbers = {ppn, mpn, target}},
        target);
}

enum ring_item fake_map(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn)
{
    return join(s, (struct ring_message){.type = RING_MAP, .count = 1, .pairs = {{ppn, mpn}}}, mpn);
}

enum ring_item fake_unshare(struct fake_supervisor *s, ppn_t ppn, mpn_t mpn, bool in_place)
{
    enum ring_item item;

    pthread_mutex_lock(&s->mutex);
    item = ask_item(s, (struct ring_message){.type = RING_UNSHARE,
                                             .count = 1,
                                             .flags = in_place ? RING_IN_PLACE : 0,
                                             .pairs = {{ppn, mpn}}});
    if (in_place && item == RING_ITEM_DONE)
        s->refs[mpn] = 0;
    pthread_mutex_unlock(&s->mutex);
    return item;
}

uint32_t fake_refs(struct fake_supervisor *s, mpn_t mpn)
{
    uint32_t refs;

    pthread_mutex_lock(&s->mutex);
    refs = s->refs[mpn];
    pthread_mutex_unlock(&s->mutex);
    return refs;
}

mpn_t mpn_of(struct fake_supervisor *s, ppn_t ppn)
{
    return pmap_word_mpn(pmap_word(gmem_pmap(s->gmem), ppn));
}

void fake_await_blocked(struct fake_supervisor *s)
{
    pthread_mutex_lock(&s->mutex);
    while (!s->want_blocked)
        pthread_cond_wait(&s->changed, &s->mutex);
    assert_true(s->want_pages > 0);
    pthread_mutex_unlock(&s->mutex);
}

void fake_await_event(struct fake_supervisor *s, enum worker_event event, unsigned count)
{
    time_t start = time(NULL);

    pthread_mutex_lock(&s->mutex);
    while (s->events[event] < count) {
        await(s, worker_event_name(event));
        if (time(NULL) - start > PATIENCE_S) {
            pthread_mutex_unlock(&s->mutex);
            fail_msg("no event %s", worker_event_name(event));
        }
    }
    pthread_mutex_unlock(&s->mutex);
}

uint64_t fake_released(struct fake_supervisor *s, enum release_why why)
{
    uint64_t released;

    pthread_mutex_lock(&s->mutex);
    released = s->released[why];
    pthread_mutex_unlock(&s->mutex);
    return released;
}

void fake_await_released(struct fake_supervisor *s, enum release_why why, uint64_t count)
{
    time_t start = time(NULL);

    pthread_mutex_lock(&s->mutex);
    while (s->released[why] < count) {
        await(s, release_why_name(why));
        if (time(NULL) - start > PATIENCE_S) {
            pthread_mutex_unlock(&s->mutex);
            fail_msg("%s: %llu frames, want %llu", release_why_name(why),
                     (unsigned long long)s->released[why], (unsigned long long)count);
        }
    }
    pthread_mutex_unlock(&s->mutex);
}

void fake_grant(struct fake_supervisor *s, uint32_t pages)
{
    pthread_mutex_lock(&s->mutex);
    grant(s, pages);
    pthread_mutex_unlock(&s->mutex);
}

void fake_set_grants(struct fake_supervisor *s, bool grants)
{
    pthread_mutex_lock(&s->mutex);
    s->grants = grants;
    pthread_mutex_unlock(&s->mutex);
}

/* The VM is paused and has said all it had to say: pmap and pool against the books. */
static void compare_books(struct fake_supervisor *s)
{
    const _Atomic uint64_t *words = vm_region_pmap(s->region);
    uint32_t pool_pages = (uint32_t)atomic_load(&s->region->stats.pool_pages);
    uint32_t granted = s->host.machine_pages - s->free_pages, used = 0;
    bool *seen = calloc(s->host.machine_pages, sizeof(*seen));
    uint32_t *found = calloc(s->host.machine_pages, sizeof(*found)); /* references */

    for (uint32_t i = 0; i < pool_pages; i++) {
        mpn_t mpn = atomic_load(&s->region->pool[i]);
        if (!s->granted[mpn] || seen[mpn])
            violate(s, "pool frame %u is %s", mpn, seen[mpn] ? "used twice" : "not granted");
        seen[mpn] = true;
        used++;
    }
    for (ppn_t ppn = 0; ppn < s->host.ram_pages; ppn++) {
        uint64_t word = atomic_load(&words[ppn]);
        enum page_state state = pmap_word_state(word);
        mpn_t mpn = pmap_word_mpn(word);

        if (state == PAGE_SHARED) {
            if (!s->granted[mpn] || s->refs[mpn] == 0)
                violate(s, "frame %u of shared page %u has no references", mpn, ppn);
            used += found[mpn]++ == 0;
            seen[mpn] = true;
        }
        if (state != PAGE_PRIVATE && state != PAGE_PAGING_OUT && state != PAGE_PAGING_IN)
            continue;
        if (!s->granted[mpn] || seen[mpn])
            violate(s, "frame %u of page %u is %s", mpn, ppn,
                    seen[mpn] ? "used twice" : "not granted");
        seen[mpn] = true;
        used++;
    }
    if (used != granted)
        violate(s, "%u frames are granted, the worker has %u", granted, used);
    for (mpn_t mpn = 0; mpn < s->host.machine_pages; mpn++)
        if (found[mpn] != s->refs[mpn])
            violate(s, "frame %u has %u references, %u are counted", mpn, found[mpn], s->refs[mpn]);
    free(found);
    free(seen);
}

void fake_verify(struct fake_supervisor *s)
{
    bool grants, reclaims;
    uint64_t violations;
    char text[256];

    pthread_mutex_lock(&s->mutex);
    grants = s->grants;
    reclaims = s->reclaims;
    s->grants = s->reclaims = false;
    pthread_mutex_unlock(&s->mutex);
    fake_request(s, RING_PAUSE, 0);
    violations = fake_request(s, RING_CHECK, 0);
    snprintf(text, sizeof(text), "%s", s->region->text);
    pthread_mutex_lock(&s->mutex);
    compare_books(s);
    s->grants = grants;
    s->reclaims = reclaims;
    pthread_mutex_unlock(&s->mutex);
    fake_request(s, RING_RESUME, 0);
    if (violations)
        fail_msg("CHECK: %llu violations, first: %s", (unsigned long long)violations, text);
    if (s->violations)
        fail_msg("%u violations of the books, first: %s", s->violations, s->violation);
}

uint64_t page_pa(ppn_t ppn)
{
    return RAM_BASE_PA + (uint64_t)ppn * PAGE_BYTES;
}

void fill_pattern(uint8_t *page, uint64_t seed)
{
    uint64_t words[PAGE_BYTES / sizeof(uint64_t)];

    for (unsigned i = 0; i < PAGE_BYTES / sizeof(uint64_t); i++)
        words[i] = seed ? seed * UINT64_C(0x9e3779b97f4a7c15) + i : 0;
    memcpy(page, words, PAGE_BYTES);
}

void write_page(struct fake_supervisor *s, ppn_t ppn, uint64_t seed)
{
    uint8_t page[PAGE_BYTES];

    fill_pattern(page, seed);
    assert_true(gmem_write(s->gmem, page_pa(ppn), page, PAGE_BYTES));
}

bool page_holds(struct fake_supervisor *s, ppn_t ppn, uint64_t seed)
{
    uint8_t page[PAGE_BYTES], expected[PAGE_BYTES];

    fill_pattern(expected, seed);
    assert_true(gmem_read(s->gmem, page_pa(ppn), page, PAGE_BYTES));
    return memcmp(page, expected, PAGE_BYTES) == 0;
}

enum page_state state_of(struct fake_supervisor *s, ppn_t ppn)
{
    return pmap_state(gmem_pmap(s->gmem), ppn);
}
