/*
 * Whatever takes a mapping away waits for the hart that may be using it. A hart
 * whose look-up is done stays inside guest code for a while after it has been
 * asked for a safe point; meanwhile nothing of its page may change, and what it
 * stores last must count. One row a verb.
 */
#include "tests/mem/fake_hart.h"
#include "tests/mem/fake_supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define PAGE      1u   /* the hart's */
#define OTHER     2u   /* of the same content */
#define LINGER_MS 10   /* inside after being asked */
#define ASKED_MS  2000 /* a verb that does not ask within this never will */
#define CONTENT   7u

struct scene {
    struct fake_supervisor *s;
    struct hart hart;
    struct shadow *shadow;
    enum shadow_access access;
    _Atomic bool inside, verb_done;
    bool asked, changed, overtaken;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static uint8_t *look_up(struct scene *scene)
{
    struct gmem *gmem = scene->s->gmem;
    struct shadow_reply reply = {0};
    enum shadow_result result;

    memlock_lock(gmem_lock(gmem), 0);
    while ((result = shadow_resolve(scene->shadow, page_pa(PAGE), scene->access, false, false,
                                    &reply)) == SHADOW_NEED_RESIDENT ||
           result == SHADOW_NEED_WRITABLE)
        gmem_make_usable(gmem, 0, reply.ppn, result == SHADOW_NEED_WRITABLE);
    memlock_unlock(gmem_lock(gmem), 0);
    return result == SHADOW_OK ? reply.host : NULL;
}

static void *linger(void *arg)
{
    struct scene *scene = arg;
    struct gmem *gmem = scene->s->gmem;
    uint8_t *host;
    uint64_t word;

    memlock_enter(gmem_lock(gmem), 0);
    host = look_up(scene);
    word = pmap_word(gmem_pmap(gmem), PAGE);
    atomic_store(&scene->inside, true);
    for (int ms = 0; ms < ASKED_MS && !scene->asked && !atomic_load(&scene->verb_done); ms++) {
        scene->asked = atomic_load(&scene->hart.attention) & ATTENTION_STOP;
        if (!scene->asked)
            sleep_ms(1);
    }
    sleep_ms(LINGER_MS);
    scene->overtaken = atomic_load(&scene->verb_done);
    scene->changed = pmap_word(gmem_pmap(gmem), PAGE) != word;
    if (host && scene->access == SHADOW_STORE && !scene->changed && !scene->overtaken)
        host[0] ^= 0xff;
    memlock_leave(gmem_lock(gmem), 0);
    return NULL;
}

/* ---- the verbs; each runs while the hart is inside ---- */

static bool content_kept(struct scene *scene)
{
    uint8_t expected[PAGE_BYTES], page[PAGE_BYTES];

    fill_pattern(expected, CONTENT);
    if (scene->access == SHADOW_STORE)
        expected[0] ^= 0xff;
    return gmem_read(scene->s->gmem, page_pa(PAGE), page, sizeof(page)) &&
           memcmp(page, expected, sizeof(page)) == 0;
}

static bool balloon(struct scene *scene)
{
    return gmem_balloon(scene->s->gmem, PAGE) && page_holds(scene->s, PAGE, 0);
}

static bool report(struct scene *scene)
{
    return gmem_report_free(scene->s->gmem, PAGE, 1) && page_holds(scene->s, PAGE, 0);
}

static bool page_out(struct scene *scene)
{
    fake_request(scene->s, RING_PAGE_OUT, 2);
    return content_kept(scene);
}

static bool protect(struct scene *scene)
{
    return fake_protect(scene->s, PAGE, mpn_of(scene->s, PAGE)) == RING_ITEM_DONE &&
           content_kept(scene);
}

/* The hart's last store makes the pages differ: no store may slip between compare and remap. */
static bool share(struct scene *scene)
{
    mpn_t own = mpn_of(scene->s, PAGE), target = mpn_of(scene->s, OTHER);

    return fake_share(scene->s, PAGE, own, target) == RING_ITEM_DIFFERS && content_kept(scene);
}

static bool unshare_page(struct scene *scene)
{
    return fake_unshare(scene->s, PAGE, mpn_of(scene->s, PAGE), false) == RING_ITEM_DONE &&
           content_kept(scene);
}

static bool break_by_device(struct scene *scene)
{
    uint8_t byte = 1;

    return gmem_write(scene->s->gmem, page_pa(PAGE) + 1, &byte, 1) &&
           state_of(scene->s, PAGE) == PAGE_PRIVATE;
}

static bool write_to_code(struct scene *scene)
{
    uint8_t byte = 1;

    return gmem_write(scene->s->gmem, page_pa(PAGE) + 1, &byte, 1) && scene->hart.code_dropped == 1;
}

static bool unpin_code(struct scene *scene)
{
    if (!gmem_pin(scene->s->gmem, page_pa(PAGE), 8, true))
        return false;
    gmem_unpin(scene->s->gmem, page_pa(PAGE), true);
    return scene->hart.code_dropped == 1;
}

static bool collect_written(struct scene *scene)
{
    struct ring_message message = {.type = RING_WRITTEN, .value2 = 64};

    pthread_mutex_lock(&scene->s->mutex);
    message.request = scene->s->next_request++;
    pthread_mutex_unlock(&scene->s->mutex);
    fake_send(scene->s, &message);
    return fake_await(scene->s, message.request) > 0 && content_kept(scene);
}

static const struct verb {
    const char *name;
    enum shadow_access access;
    bool shared, code, other_shared;
    bool (*run)(struct scene *scene);
} verbs[] = {
    {.name = "balloon", .access = SHADOW_STORE, .run = balloon},
    {.name = "report", .access = SHADOW_STORE, .run = report},
    {.name = "page out", .access = SHADOW_STORE, .run = page_out},
    {.name = "protect", .access = SHADOW_STORE, .run = protect},
    {.name = "share", .access = SHADOW_STORE, .other_shared = true, .run = share},
    {.name = "unshare", .access = SHADOW_LOAD, .shared = true, .run = unshare_page},
    {.name = "break", .access = SHADOW_LOAD, .shared = true, .run = break_by_device},
    {.name = "code written", .access = SHADOW_LOAD, .code = true, .run = write_to_code},
    {.name = "code unpinned", .access = SHADOW_LOAD, .code = true, .run = unpin_code},
    {.name = "written", .access = SHADOW_STORE, .run = collect_written},
};

static void prepare(struct scene *scene, const struct verb *verb)
{
    struct fake_host host = fake_host_of(64, 256, 3);

    scene->s = fake_supervisor_new(&host);
    scene->hart.pmap = gmem_pmap(scene->s->gmem);
    scene->shadow = shadow_new(scene->hart.pmap);
    scene->access = verb->access;
    assert_non_null(scene->shadow);
    gmem_add_hart(scene->s->gmem, &scene->hart, 0);
    write_page(scene->s, PAGE, CONTENT);
    write_page(scene->s, OTHER, CONTENT);
    if (verb->shared)
        assert_int_equal(fake_protect(scene->s, PAGE, mpn_of(scene->s, PAGE)), RING_ITEM_DONE);
    if (verb->other_shared)
        assert_int_equal(fake_protect(scene->s, OTHER, mpn_of(scene->s, OTHER)), RING_ITEM_DONE);
    if (verb->code)
        shadow_code_added(scene->hart.pmap, PAGE);
}

static void nothing_changes_under_a_hart_that_is_inside(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        struct scene scene = {0};
        pthread_t thread;
        bool right;

        prepare(&scene, &verbs[i]);
        assert_int_equal(pthread_create(&thread, NULL, linger, &scene), 0);
        while (!atomic_load(&scene.inside))
            sleep_ms(1);
        right = verbs[i].run(&scene);
        atomic_store(&scene.verb_done, true);
        pthread_join(thread, NULL);
        if (!scene.asked || scene.overtaken || scene.changed || !right)
            fail_msg("%s: hart %s, %s, page %s, result %s", verbs[i].name,
                     scene.asked ? "asked" : "not asked",
                     scene.overtaken ? "not waited for" : "waited for",
                     scene.changed ? "changed under it" : "left", right ? "right" : "wrong");
        fake_verify(scene.s);
        shadow_free(scene.shadow);
        fake_supervisor_free(scene.s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_changes_under_a_hart_that_is_inside),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
