/*
 * Runs the guest-level tests of one image (tests/hart/guest/NAME.S): each test
 * named in the image's table starts on a fresh hart over fresh memory, once with
 * every page resident and once with pages filled on first touch, and ends by an
 * ecall that says how it went.
 *
 *   hart_guest_test IMAGE
 */
#include "tests/hart/flat_guest.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RAM_PAGES 1024u
#define MAX_TESTS 200u
#define MAX_INSNS 1000000u

/* As in guest/guest_test.h. */
enum host_call { HOST_PASS, HOST_FAIL, HOST_TIME, HOST_RAISE, HOST_LOWER, HOST_DEADLINE };

struct table_entry {
    uint64_t start_pa, name_pa; /* 0 ends the table */
};

static uint8_t image[RAM_PAGES * PAGE_BYTES];
static size_t image_bytes;

struct guest_test {
    uint64_t start_pa;
    bool lazy;
};

/* Serve one ecall. False: the test is over; *failed says how. */
static bool serve(struct flat_guest *guest, bool *failed)
{
    struct hart *hart = guest->hart;
    uint64_t a0 = hart_get_x(hart, 10);
    *failed = false;
    switch (hart_get_x(hart, 17)) {
    case HOST_PASS:
        return false;
    case HOST_TIME:
        guest->time = a0;
        atomic_fetch_or(hart_attention(hart), ATTENTION_INTERRUPT);
        break;
    case HOST_RAISE:
        hart_set_pending(hart, (uint32_t)a0);
        break;
    case HOST_LOWER:
        hart_clear_pending(hart, (uint32_t)a0);
        break;
    case HOST_DEADLINE:
        hart_set_x(hart, 10, guest->timer_deadline);
        break;
    default:
        print_error("failed at line %" PRIu64 ": found %#" PRIx64 ", expected %#" PRIx64 "\n", a0,
                    hart_get_x(hart, 11), hart_get_x(hart, 31));
        *failed = true;
        return false;
    }
    hart_advance_pc(hart, 4);
    return true;
}

/* wfi: time jumps to the deadline, if there is one. */
static bool pass_time(struct flat_guest *guest)
{
    if (guest->timer_deadline == UINT64_MAX)
        return false;
    guest->time = guest->timer_deadline;
    atomic_fetch_or(hart_attention(guest->hart), ATTENTION_INTERRUPT);
    return true;
}

static void copy_image(struct flat_guest *guest)
{
    for (size_t at = 0; at < image_bytes; at += PAGE_BYTES) {
        ppn_t ppn = (ppn_t)(at / PAGE_BYTES);
        if (pmap_state(guest->pmap, ppn) == PAGE_ABSENT)
            pmap_move(guest->pmap, ppn, PAGE_EV_FILL, ppn, 0);
    }
    memcpy(guest->ram, image, image_bytes);
}

static void run_one(void **state)
{
    const struct guest_test *test = *state;
    struct flat_guest *guest = flat_guest_new(RAM_PAGES, test->lazy);
    struct hart_state reset = {.pc = test->start_pa, .priv = SHADOW_S, .stimecmp = UINT64_MAX};
    char text[200];
    bool failed = false, going = true;
    copy_image(guest);
    hart_set_state(guest->hart, &reset);
    while (going) {
        enum hart_exit why = hart_run(guest->hart, MAX_INSNS);
        if (why == HART_EXIT_SBI)
            going = serve(guest, &failed);
        else if (why != HART_EXIT_WFI || !pass_time(guest)) {
            hart_get_state(guest->hart, &reset);
            print_error("the hart stopped with %d at pc %#" PRIx64 ", scause %#" PRIx64
                        ", stval %#" PRIx64 "\n",
                        why, reset.pc, reset.scause, reset.stval);
            failed = true;
            going = false;
        }
    }
    uint64_t violations = shadow_check(guest->pmap, text, sizeof text);
    if (violations)
        print_error("shadow_check: %" PRIu64 " violations, first: %s\n", violations, text);
    flat_guest_free(guest);
    assert_false(failed);
    assert_int_equal(violations, 0);
}

int main(int argc, char **argv)
{
    static struct CMUnitTest tests[2 * MAX_TESTS];
    static struct guest_test contexts[2 * MAX_TESTS];
    unsigned count = 0;
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!file || !(image_bytes = fread(image, 1, sizeof image, file))) {
        fprintf(stderr, "usage: %s IMAGE (%s cannot be read)\n", argv[0],
                argc > 1 ? argv[1] : "it");
        return 2;
    }
    fclose(file);
    for (const struct table_entry *t = (const void *)image; t->start_pa && count < 2 * MAX_TESTS;
         t++) {
        for (unsigned lazy = 0; lazy < 2; lazy++, count++) {
            contexts[count] = (struct guest_test){.start_pa = t->start_pa, .lazy = lazy};
            tests[count] = (struct CMUnitTest){
                .name = (const char *)image + (t->name_pa - RAM_BASE_PA),
                .test_func = run_one,
                .initial_state = &contexts[count],
            };
        }
    }
    return _cmocka_run_group_tests("guest", tests, count, NULL, NULL);
}
