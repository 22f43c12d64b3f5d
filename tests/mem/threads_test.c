/*
 * Guest memory with all its threads at work: harts that load and store through
 * their own shadow tables without a lock, a device thread that copies, pins,
 * balloons and reports, a supervisor that takes frames away because there are
 * too few, samples, and pauses with a full check in between. Every word a hart
 * stored must come back. Run under ThreadSanitizer too.
 *
 *     mem_threads_test [checks]
 */
#include "tests/mem/fake_hart.h"
#include "tests/mem/fake_supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HARTS         2
#define HART_PAGES    96 /* harts keep words here, one a hart; the device has word DEVICE_WORD */
#define DEVICE_PAGES  64 /* after those: copied, ballooned, reported */
#define RAM_PAGES     (HART_PAGES + DEVICE_PAGES)
#define MACHINE_PAGES 100
#define DEVICE_WORD   7

/* A store to a page that is being written to swap cancels it, and the copy in the file is thrown
 * away: the kernel may read the page while the guest writes. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:write_cluster\n";
}

struct scene {
    struct fake_supervisor *s;
    struct hart harts[HARTS];
    _Atomic bool finish;
    _Atomic unsigned lost_words, lost_pages;
    _Atomic uint64_t hart_turns, device_turns;
};

struct hart_actor {
    struct scene *scene;
    pthread_t thread;
    int number;
    struct shadow *shadow;
    uint64_t random;
    uint64_t words[HART_PAGES]; /* last stored */
};

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % below;
}

/* The slow path as a hart has it. NULL: the VM ends. */
static uint64_t *resolve(struct hart_actor *a, uint64_t va, enum shadow_access access)
{
    struct gmem *gmem = a->scene->s->gmem;
    struct shadow_reply reply = {0};
    bool going_on = true, done = false;

    memlock_lock(gmem_lock(gmem), a->number);
    while (going_on && !done) {
        switch (shadow_resolve(a->shadow, va, access, false, false, &reply)) {
        case SHADOW_OK:
            done = true;
            break;
        case SHADOW_NEED_RESIDENT:
            going_on = gmem_make_usable(gmem, a->number, reply.ppn, false);
            break;
        case SHADOW_NEED_WRITABLE:
            going_on = gmem_make_usable(gmem, a->number, reply.ppn, true);
            break;
        case SHADOW_CODE_PAGE:
            memlock_stop(gmem_lock(gmem), a->number);
            hart_drop_code(&a->scene->harts[a->number], reply.ppn);
            break;
        default:
            going_on = false;
        }
    }
    memlock_unlock(gmem_lock(gmem), a->number);
    return done ? (uint64_t *)reply.host : NULL;
}

static void store(struct hart_actor *a, ppn_t ppn)
{
    uint64_t va = page_pa(ppn) + (uint64_t)a->number * 8;
    uint64_t *word = shadow_store_ptr(shadow_view(a->shadow), va, 8);

    if (!word)
        word = resolve(a, va, SHADOW_STORE);
    if (word)
        *word = ++a->words[ppn];
}

static void load(struct hart_actor *a, ppn_t ppn)
{
    uint64_t va = page_pa(ppn) + (uint64_t)a->number * 8;
    uint64_t *word = shadow_load_ptr(shadow_view(a->shadow), va, 8);

    if (!word)
        word = resolve(a, va, SHADOW_LOAD);
    if (word && *word != a->words[ppn])
        atomic_fetch_add(&a->scene->lost_words, 1);
}

static void decode(struct hart_actor *a, ppn_t ppn)
{
    struct gmem *gmem = a->scene->s->gmem;

    memlock_lock(gmem_lock(gmem), a->number);
    if (gmem_make_usable(gmem, a->number, ppn, false)) {
        /* Other harts may have it writable: taking that away is a stop's work. */
        memlock_stop(gmem_lock(gmem), a->number);
        shadow_code_added(gmem_pmap(gmem), ppn);
    }
    memlock_unlock(gmem_lock(gmem), a->number);
}

static void touch_any(struct hart_actor *a, ppn_t ppn)
{
    struct gmem *gmem = a->scene->s->gmem;

    memlock_lock(gmem_lock(gmem), a->number);
    gmem_make_usable(gmem, a->number, ppn, true);
    memlock_unlock(gmem_lock(gmem), a->number);
}

static void *run_hart(void *arg)
{
    struct hart_actor *a = arg;
    struct memlock *lock = gmem_lock(a->scene->s->gmem);

    memlock_enter(lock, a->number);
    for (uint64_t turn = 0; !atomic_load(&a->scene->finish); turn++) {
        ppn_t ppn = (ppn_t)draw(&a->random, HART_PAGES);

        if (atomic_load(&a->scene->harts[a->number].attention) & ATTENTION_STOP || turn % 32 == 0) {
            memlock_leave(lock, a->number);
            if (turn % 32 == 0)
                fake_gate(a->scene->s);
            memlock_enter(lock, a->number);
        }
        if (turn % 2)
            store(a, ppn);
        else
            load(a, ppn);
        if (turn % 128 == 0)
            decode(a, ppn);
        if (turn % 64 == 0)
            touch_any(a, HART_PAGES + (ppn_t)draw(&a->random, DEVICE_PAGES));
        atomic_fetch_add(&a->scene->hart_turns, 1);
    }
    memlock_leave(lock, a->number);
    fake_gate_leave(a->scene->s);
    return NULL;
}

/* What a page given away holds from now on, or what it held if it was not taken. */
static void give_away(struct scene *scene, uint64_t *random, uint64_t *content)
{
    struct gmem *gmem = scene->s->gmem;
    ppn_t ppn = HART_PAGES + (ppn_t)draw(random, DEVICE_PAGES);

    switch (draw(random, 3)) {
    case 0:
        if (gmem_balloon(gmem, ppn))
            content[ppn] = 0;
        break;
    case 1:
        gmem_deflate(gmem, ppn);
        break;
    default:
        if (!gmem_report_free(gmem, ppn, 1))
            atomic_fetch_add(&scene->lost_pages, 1);
        write_page(scene->s, ppn, content[ppn]); /* gone, or kept: either is allowed */
    }
}

/* A page pinned for reading keeps its frame while the pager tries to write it out; sometimes. */
static void read_through_long_pin(struct scene *scene, uint64_t *random,
                                  const uint64_t *device_words)
{
    static uint64_t *word;
    static ppn_t ppn;

    if (!word) {
        ppn = (ppn_t)draw(random, HART_PAGES);
        word = gmem_pin(scene->s->gmem, page_pa(ppn) + DEVICE_WORD * 8, 8, false);
        return;
    }
    if (*word != device_words[ppn])
        atomic_fetch_add(&scene->lost_words, 1);
    if (draw(random, 8) == 0) {
        gmem_unpin(scene->s->gmem, page_pa(ppn) + DEVICE_WORD * 8, false);
        word = NULL;
    }
}

static void use_pin(struct scene *scene, uint64_t *random, uint64_t *device_words)
{
    ppn_t ppn = (ppn_t)draw(random, HART_PAGES);
    uint64_t pa = page_pa(ppn) + DEVICE_WORD * 8;
    bool write = draw(random, 2);
    uint64_t *word = gmem_pin(scene->s->gmem, pa, 8, write);

    if (!word)
        return;
    if (*word != device_words[ppn])
        atomic_fetch_add(&scene->lost_words, 1);
    if (write)
        *word = ++device_words[ppn];
    gmem_unpin(scene->s->gmem, pa, write);
}

static void *run_device(void *arg)
{
    struct scene *scene = arg;
    uint64_t random = 99, content[RAM_PAGES] = {0}, device_words[HART_PAGES] = {0}, stamp = 0;

    while (!atomic_load(&scene->finish)) {
        ppn_t ppn = HART_PAGES + (ppn_t)draw(&random, DEVICE_PAGES);

        fake_gate(scene->s);
        write_page(scene->s, ppn, content[ppn] = ++stamp);
        ppn = HART_PAGES + (ppn_t)draw(&random, DEVICE_PAGES);
        if (!page_holds(scene->s, ppn, content[ppn]))
            atomic_fetch_add(&scene->lost_pages, 1);
        give_away(scene, &random, content);
        use_pin(scene, &random, device_words);
        read_through_long_pin(scene, &random, device_words);
        atomic_fetch_add(&scene->device_turns, 1);
    }
    fake_gate_leave(scene->s);
    return NULL;
}

static unsigned long checks = 30;

static void nothing_is_lost_between_threads(void **state)
{
    struct fake_host host = fake_host_of(RAM_PAGES, MACHINE_PAGES, 3);
    host.actors = HARTS + 1;
    struct scene scene = {.s = fake_supervisor_new(&host)};
    struct gmem *gmem = scene.s->gmem;
    struct hart_actor *harts = calloc(HARTS, sizeof(*harts));
    pthread_t device;
    uint64_t touched = 0;
    (void)state;

    for (int i = 0; i < HARTS; i++) {
        scene.harts[i].pmap = gmem_pmap(gmem);
        gmem_add_hart(gmem, &scene.harts[i], i);
        harts[i].scene = &scene;
        harts[i].number = i;
        harts[i].random = (uint64_t)i + 1;
        harts[i].shadow = shadow_new(gmem_pmap(gmem));
        assert_non_null(harts[i].shadow);
    }
    for (int i = 0; i < HARTS; i++)
        pthread_create(&harts[i].thread, NULL, run_hart, &harts[i]);
    pthread_create(&device, NULL, run_device, &scene);
    for (unsigned long i = 0; i < checks; i++) {
        usleep(5000);
        touched += fake_request(scene.s, RING_SAMPLE, RAM_PAGES / 2);
        usleep(5000);
        fake_verify(scene.s);
    }
    atomic_store(&scene.finish, true);
    for (int i = 0; i < HARTS; i++)
        pthread_join(harts[i].thread, NULL);
    pthread_join(device, NULL);
    print_message("%lu hart turns, %lu device turns, %lu pages out\n",
                  (unsigned long)scene.hart_turns, (unsigned long)scene.device_turns,
                  (unsigned long)atomic_load(&scene.s->region->stats.swap_out_pages));
    assert_int_equal(scene.lost_words, 0);
    assert_int_equal(scene.lost_pages, 0);
    if (checks > 1)
        assert_in_range(touched, 1, checks * RAM_PAGES / 2);
    gmem_stop(scene.s->gmem); /* the pager may be paging out still */
    for (int i = 0; i < HARTS; i++)
        shadow_free(harts[i].shadow);
    free(harts);
    fake_supervisor_free(scene.s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_lost_between_threads)};

    if (argc > 1)
        checks = strtoul(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
