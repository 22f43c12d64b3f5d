/*
 * Random work on one VM with too few frames: touch, balloon, deflate, report,
 * pins, page-out, targets, calls for frames, worker death and restart. A model
 * beside it knows what every page must hold; after every step the invariants
 * are checked and the pmap is compared with the supervisor's books.
 *
 *     mem_random_test [steps [seed]]
 */
#include "tests/mem/fake_hart.h"
#include "tests/mem/fake_supervisor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RAM_PAGES     192
#define MACHINE_PAGES 96
#define PIN_PLACES    8

struct model {
    struct fake_supervisor *s;
    uint64_t random;
    uint64_t content[RAM_PAGES]; /* seed of the page's pattern; 0: zero */
    bool ballooned[RAM_PAGES];
    unsigned pins[RAM_PAGES];
    ppn_t pinned[PIN_PLACES];
    uint8_t *pin_host[PIN_PLACES];
    uint64_t stamp;
};

static unsigned long step_limit = 1500, seed = 1;

static uint64_t draw(struct model *m, uint64_t below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random % below;
}

static ppn_t draw_page(struct model *m)
{
    return (ppn_t)draw(m, RAM_PAGES);
}

/* A device or a hart touches the page: content survives, a ballooned page pops. */
static void model_touched(struct model *m, ppn_t ppn)
{
    if (m->ballooned[ppn]) {
        m->ballooned[ppn] = false;
        m->content[ppn] = 0;
    }
}

static void write_one(struct model *m)
{
    ppn_t ppn = draw_page(m);

    model_touched(m, ppn);
    m->content[ppn] = ++m->stamp;
    write_page(m->s, ppn, m->content[ppn]);
}

static void read_one(struct model *m)
{
    ppn_t ppn = draw_page(m);

    model_touched(m, ppn);
    if (!page_holds(m->s, ppn, m->content[ppn]))
        fail_msg("page %u lost its content", ppn);
}

static void balloon_one(struct model *m)
{
    ppn_t ppn = draw_page(m);
    bool may = !m->ballooned[ppn] && m->pins[ppn] == 0;

    assert_int_equal(gmem_balloon(m->s->gmem, ppn), may);
    if (may) {
        m->ballooned[ppn] = true;
        m->content[ppn] = 0;
    }
}

static void deflate_one(struct model *m)
{
    ppn_t ppn = draw_page(m);

    assert_int_equal(gmem_deflate(m->s->gmem, ppn), m->ballooned[ppn]);
    m->ballooned[ppn] = false;
}

/* A reported page is gone, or was skipped and still holds what it held. */
static void report_some(struct model *m)
{
    ppn_t ppn = draw_page(m);
    uint32_t count = (uint32_t)draw(m, 24);

    if (count > RAM_PAGES - ppn) {
        assert_false(gmem_report_free(m->s->gmem, ppn, count));
        return;
    }
    assert_true(gmem_report_free(m->s->gmem, ppn, count));
    for (ppn_t end = ppn + count; ppn < end; ppn++)
        if (!m->ballooned[ppn] && m->pins[ppn] == 0) {
            if (!page_holds(m->s, ppn, 0) && !page_holds(m->s, ppn, m->content[ppn]))
                fail_msg("page %u holds neither zero nor what it held", ppn);
            write_page(m->s, ppn, m->content[ppn] = ++m->stamp);
        }
}

static void pin_or_unpin(struct model *m)
{
    unsigned place = (unsigned)draw(m, PIN_PLACES);
    bool write = draw(m, 2);

    if (m->pin_host[place]) {
        ppn_t ppn = m->pinned[place];
        uint8_t page[PAGE_BYTES];

        fill_pattern(page, m->content[ppn]);
        assert_memory_equal(m->pin_host[place], page, PAGE_BYTES); /* the frame never moved */
        if (write)
            fill_pattern(m->pin_host[place], m->content[ppn] = ++m->stamp);
        gmem_unpin(m->s->gmem, page_pa(ppn), write);
        m->pins[ppn]--;
        m->pin_host[place] = NULL;
    } else {
        ppn_t ppn = draw_page(m);

        model_touched(m, ppn);
        m->pin_host[place] = gmem_pin(m->s->gmem, page_pa(ppn), PAGE_BYTES, true);
        assert_non_null(m->pin_host[place]);
        m->pinned[place] = ppn;
        m->pins[ppn]++;
    }
}

static void page_out_and_wait(struct model *m)
{
    fake_request(m->s, RING_PAGE_OUT, draw(m, 40));
}

static void page_out_meanwhile(struct model *m)
{
    uint32_t request = fake_post(m->s, RING_PAGE_OUT, 1 + draw(m, 64));

    for (unsigned i = 0; i < 20; i++)
        draw(m, 2) ? write_one(m) : read_one(m);
    balloon_one(m);
    fake_await(m->s, request);
}

static void call_frames_back(struct model *m)
{
    fake_send_value(m->s, RING_RETURN, draw(m, 64));
}

static void set_target(struct model *m)
{
    fake_send_value(m->s, RING_TARGET, draw(m, RAM_PAGES * 2));
}

static void die_and_restart(struct model *m)
{
    if (draw(m, 8) != 0)
        return;
    fake_post(m->s, RING_PAGE_OUT, 32); /* dies in the middle of work */
    fake_supervisor_restart(m->s);
    memset(m->content, 0, sizeof(m->content));
    memset(m->ballooned, 0, sizeof(m->ballooned));
    memset(m->pins, 0, sizeof(m->pins));
    memset(m->pin_host, 0, sizeof(m->pin_host));
}

static void check_every_page(struct model *m)
{
    for (ppn_t ppn = 0; ppn < RAM_PAGES; ppn++)
        if (!m->ballooned[ppn] && !page_holds(m->s, ppn, m->content[ppn]))
            fail_msg("page %u lost its content", ppn);
}

static void any_mix_keeps_content_and_invariants(void **state)
{
    static const struct {
        void (*step)(struct model *m);
        unsigned weight;
    } steps[] = {{write_one, 30},        {read_one, 30},          {balloon_one, 20},
                 {deflate_one, 20},      {report_some, 6},        {pin_or_unpin, 20},
                 {page_out_and_wait, 6}, {page_out_meanwhile, 8}, {call_frames_back, 4},
                 {set_target, 2},        {die_and_restart, 4},    {check_every_page, 1}};
    struct fake_host host = fake_host_of(RAM_PAGES, MACHINE_PAGES, seed);
    struct model m = {.s = fake_supervisor_new(&host), .random = seed * 2654435761u + 1};
    unsigned total = 0;
    (void)state;

    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        total += steps[i].weight;
    for (unsigned long done = 0; done < step_limit; done++) {
        unsigned pick = (unsigned)draw(&m, total), i = 0;

        while (pick >= steps[i].weight)
            pick -= steps[i++].weight;
        steps[i].step(&m);
        fake_verify(m.s);
    }
    check_every_page(&m);
    printf("%lu steps, %lu pages out, %lu in\n", step_limit,
           (unsigned long)atomic_load(&m.s->region->stats.swap_out_pages),
           (unsigned long)atomic_load(&m.s->region->stats.swap_in_pages));
    fake_supervisor_free(m.s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_mix_keeps_content_and_invariants)};

    if (argc > 1)
        step_limit = strtoul(argv[1], NULL, 10);
    if (argc > 2)
        seed = strtoul(argv[2], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
