/* The interrupt controller: what a driver may rely on (PLIC specification 1.0.0). */
#include "vmm-core/dev/plic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BASE         UINT64_C(0x0c000000)
#define PENDING      0x1000
#define ENABLE(c)    (0x2000 + 0x80 * (c))
#define THRESHOLD(c) (0x200000 + 0x1000 * (c))
#define CLAIM(c)     (THRESHOLD(c) + 4)

struct bench {
    struct plic plic;
    struct bus bus;
    bool raised[2];
};

static void note_output(void *controller, unsigned context, bool level)
{
    ((struct bench *)controller)->raised[context] = level;
}

static uint32_t get(struct bench *b, uint64_t offset)
{
    uint64_t value;
    assert_true(bus_load(&b->bus, BASE + offset, 4, &value));
    return (uint32_t)value;
}

static void set(struct bench *b, uint64_t offset, uint32_t value)
{
    assert_true(bus_store(&b->bus, BASE + offset, 4, value));
}

static void line(struct bench *b, unsigned source, bool level)
{
    struct irq_line wire = plic_line(&b->plic, source);
    irq_line_set(&wire, level);
}

/* Two contexts; every source has priority 1 and is enabled in context 0. */
static int setup(void **state)
{
    static struct bench bench;
    bench = (struct bench){0};
    struct irq_line outputs[2] = {{note_output, &bench, 0}, {note_output, &bench, 1}};
    plic_init(&bench.plic, outputs, 2);
    struct bus_range range = plic_range(&bench.plic, BASE);
    bus_add(&bench.bus, &range, NULL);
    for (unsigned source = 1; source <= PLIC_SOURCES; source++)
        set(&bench, source * 4, 1);
    set(&bench, ENABLE(0), 0xffffffff);
    *state = &bench;
    return 0;
}

static int teardown(void **state)
{
    plic_destroy(&((struct bench *)*state)->plic);
    return 0;
}

static void a_line_interrupts_until_it_falls(void **state)
{
    struct bench *b = *state;
    line(b, 10, true);
    assert_true(b->raised[0]);
    assert_false(b->raised[1]); /* not enabled there */
    assert_int_equal(get(b, PENDING), 1u << 10);
    line(b, 10, false);
    assert_false(b->raised[0]);
    assert_int_equal(get(b, CLAIM(0)), 0);
}

static void a_claimed_source_is_silent_until_completed(void **state)
{
    struct bench *b = *state;
    line(b, 10, true);
    assert_int_equal(get(b, CLAIM(0)), 10);
    assert_false(b->raised[0]);
    assert_int_equal(get(b, PENDING), 0);
    assert_int_equal(get(b, CLAIM(0)), 0);
    set(b, CLAIM(0), 10);
    assert_true(b->raised[0]); /* the line is still high */
    assert_int_equal(get(b, CLAIM(0)), 10);
    line(b, 10, false);
    set(b, CLAIM(0), 10);
    assert_false(b->raised[0]);
}

static void the_highest_priority_is_claimed_first_and_lower_numbers_among_equals(void **state)
{
    struct bench *b = *state;
    set(b, 7 * 4, 3);
    line(b, 5, true);
    line(b, 4, true);
    line(b, 7, true);
    assert_int_equal(get(b, CLAIM(0)), 7);
    assert_int_equal(get(b, CLAIM(0)), 4);
    assert_int_equal(get(b, CLAIM(0)), 5);
}

static void sources_at_or_below_the_threshold_do_not_interrupt(void **state)
{
    struct bench *b = *state;
    set(b, THRESHOLD(0), 2);
    set(b, 3 * 4, 2);
    line(b, 3, true);
    assert_false(b->raised[0]);
    set(b, THRESHOLD(0), 1);
    assert_true(b->raised[0]);
    set(b, 3 * 4, 0); /* priority 0: never */
    set(b, THRESHOLD(0), 0);
    assert_false(b->raised[0]);
}

static void contexts_enable_for_themselves(void **state)
{
    struct bench *b = *state;
    set(b, ENABLE(1), 1u << 8);
    line(b, 8, true);
    assert_true(b->raised[0] && b->raised[1]);
    assert_int_equal(get(b, CLAIM(1)), 8);
    assert_false(b->raised[0]);
    set(b, ENABLE(0), 0);
    set(b, CLAIM(0), 8); /* not enabled there: ignored */
    assert_false(b->raised[1]);
    set(b, CLAIM(1), 8);
    assert_true(b->raised[1]);
}

static void impossible_accesses_do_nothing(void **state)
{
    struct bench *b = *state;
    uint64_t value;
    set(b, CLAIM(0), 0);
    set(b, CLAIM(0), 32);
    set(b, CLAIM(0), 0xffffffff);
    set(b, 0, 7); /* source 0 does not exist */
    assert_int_equal(get(b, 0), 0);
    assert_int_equal(get(b, ENABLE(0)), 0xfffffffe);
    set(b, 4, 0xffffffff);
    assert_int_equal(get(b, 4), PLIC_PRIORITY_MAX);
    assert_int_equal(get(b, CLAIM(2)), 0); /* no third context */
    assert_int_equal(get(b, PLIC_WINDOW_BYTES - 4), 0);
    assert_false(bus_load(&b->bus, BASE, 1, &value));
    assert_false(bus_load(&b->bus, BASE + 0x200000, 8, &value));
    assert_false(bus_store(&b->bus, BASE + PENDING, 2, 0));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_line_interrupts_until_it_falls),
        T(a_claimed_source_is_silent_until_completed),
        T(the_highest_priority_is_claimed_first_and_lower_numbers_among_equals),
        T(sources_at_or_below_the_threshold_do_not_interrupt),
        T(contexts_enable_for_themselves),
        T(impossible_accesses_do_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
