/*
 * The pmap's state machine: every allowed transition with its numbers and
 * counts, every other pair refused, and the mappings that must be gone first.
 * The rows here are written from the comments of pmap.h, apart from pmap.c's
 * own table. What aborts is tried in a forked child.
 */
#include "tests/shadow/guest_tables.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NEW_MPN  9u
#define NEW_SLOT 77u
#define PPN      5u

struct row {
    enum page_state from;
    enum page_event event;
    enum page_state to;
    bool new_mpn, old_mpn, new_slot, old_slot; /* what the new word holds */
};

static const struct row rows[] = {
    {PAGE_ABSENT, PAGE_EV_FILL, PAGE_PRIVATE, true, false, false, false},
    {PAGE_PRIVATE, PAGE_EV_BALLOON, PAGE_BALLOONED, false, false, false, false},
    {PAGE_SHARED, PAGE_EV_BALLOON, PAGE_BALLOONED, false, false, false, false},
    {PAGE_ABSENT, PAGE_EV_BALLOON, PAGE_BALLOONED, false, false, false, false},
    {PAGE_PAGED, PAGE_EV_BALLOON, PAGE_BALLOONED, false, false, false, false},
    {PAGE_BALLOONED, PAGE_EV_POP, PAGE_PRIVATE, true, false, false, false},
    {PAGE_BALLOONED, PAGE_EV_DEFLATE, PAGE_ABSENT, false, false, false, false},
    {PAGE_PRIVATE, PAGE_EV_REPORT, PAGE_ABSENT, false, false, false, false},
    {PAGE_SHARED, PAGE_EV_REPORT, PAGE_ABSENT, false, false, false, false},
    {PAGE_PAGED, PAGE_EV_REPORT, PAGE_ABSENT, false, false, false, false},
    {PAGE_PRIVATE, PAGE_EV_OUT_START, PAGE_PAGING_OUT, false, true, true, false},
    {PAGE_PAGING_OUT, PAGE_EV_OUT_CANCEL, PAGE_PRIVATE, false, true, false, false},
    {PAGE_PAGING_OUT, PAGE_EV_OUT_DONE, PAGE_PAGED, false, false, false, true},
    {PAGE_PAGED, PAGE_EV_IN_START, PAGE_PAGING_IN, true, false, false, true},
    {PAGE_PAGING_IN, PAGE_EV_IN_DONE, PAGE_PRIVATE, false, true, false, false},
    {PAGE_PAGING_IN, PAGE_EV_IN_FAIL, PAGE_PAGED, false, false, false, true},
    {PAGE_PRIVATE, PAGE_EV_SHARE, PAGE_SHARED, true, false, false, false},
    {PAGE_ABSENT, PAGE_EV_MAP_SHARED, PAGE_SHARED, true, false, false, false},
    {PAGE_SHARED, PAGE_EV_COW_BREAK, PAGE_PRIVATE, true, false, false, false},
};
#define ROWS (sizeof rows / sizeof *rows)

static struct test_guest guest;

static int open_guest(void **state)
{
    (void)state;
    test_guest_open(&guest, 64, 32, 3);
    return 0;
}

static int close_guest(void **state)
{
    (void)state;
    test_guest_check_fenced(&guest);
    test_guest_close(&guest);
    return 0;
}

/* Bring PPN, absent, into state with mpn 3 and slot 44 where the state has them. */
static void reach(enum page_state state)
{
    static const enum page_event path[PAGE_STATES][5] = {
        [PAGE_PRIVATE] = {PAGE_EV_FILL, PAGE_EVENTS},
        [PAGE_SHARED] = {PAGE_EV_MAP_SHARED, PAGE_EVENTS},
        [PAGE_BALLOONED] = {PAGE_EV_BALLOON, PAGE_EVENTS},
        [PAGE_PAGING_OUT] = {PAGE_EV_FILL, PAGE_EV_OUT_START, PAGE_EVENTS},
        [PAGE_PAGED] = {PAGE_EV_FILL, PAGE_EV_OUT_START, PAGE_EV_OUT_DONE, PAGE_EVENTS},
        [PAGE_PAGING_IN] = {PAGE_EV_FILL, PAGE_EV_OUT_START, PAGE_EV_OUT_DONE, PAGE_EV_IN_START,
                            PAGE_EVENTS},
    };
    if (state == PAGE_ABSENT)
        return;
    for (unsigned i = 0; i < 5 && path[state][i] != PAGE_EVENTS; i++)
        pmap_move(guest.pmap, PPN, path[state][i], 3, 44);
    assert_int_equal(pmap_state(guest.pmap, PPN), state);
}

/* Does f abort, with every word of expected in what it says? */
static void expect_abort(void (*f)(void), const char *expected)
{
    int out[2];
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(out[1], STDERR_FILENO);
        f();
        _exit(0);
    }
    close(out[1]);
    char said[2048];
    size_t length = 0;
    ssize_t n;
    while (length < sizeof said - 1 &&
           (n = read(out[0], said + length, sizeof said - 1 - length)) > 0)
        length += (size_t)n;
    said[length] = '\0';
    close(out[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("no abort; it said: %s", said);
    if (!strstr(said, expected))
        fail_msg("\"%s\" is not in: %s", expected, said);
}

static void allowed_transitions_move_numbers_and_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < ROWS; i++) {
        const struct row *r = &rows[i];
        open_guest(NULL);
        reach(r->from);
        uint64_t from = guest.counts.pages_in[r->from], to = guest.counts.pages_in[r->to];
        uint64_t times = guest.counts.transitions[r->event];
        uint64_t word = pmap_word(guest.pmap, PPN);
        assert_true(pmap_move(guest.pmap, PPN, r->event, NEW_MPN, NEW_SLOT) == word);
        uint64_t now = pmap_word(guest.pmap, PPN);
        assert_int_equal(pmap_word_state(now), r->to);
        assert_int_equal(pmap_word_mpn(now), r->new_mpn   ? NEW_MPN
                                             : r->old_mpn ? pmap_word_mpn(word)
                                                          : 0);
        assert_int_equal(pmap_word_slot(now), r->new_slot   ? NEW_SLOT
                                              : r->old_slot ? pmap_word_slot(word)
                                                            : 0);
        assert_int_equal(guest.counts.pages_in[r->from], from - 1);
        assert_int_equal(guest.counts.pages_in[r->to], to + 1);
        assert_int_equal(guest.counts.transitions[r->event], times + 1);
        assert_int_equal(now >> 56 & 15, 0); /* order */
        close_guest(NULL);
    }
}

static enum page_state forbidden_state;
static enum page_event forbidden_event;

static void move_forbidden(void)
{
    pmap_move(guest.pmap, PPN, forbidden_event, NEW_MPN, NEW_SLOT);
}

static void every_other_pair_aborts_naming_state_and_event(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (int s = 0; s < PAGE_STATES; s++) {
        open_guest(NULL);
        reach((enum page_state)s);
        for (int e = 0; e < PAGE_EVENTS; e++) {
            bool allowed = false;
            for (size_t i = 0; i < ROWS; i++)
                allowed |= (int)rows[i].from == s && (int)rows[i].event == e;
            if (allowed)
                continue;
            forbidden_state = (enum page_state)s;
            forbidden_event = (enum page_event)e;
            char expected[128];
            snprintf(expected, sizeof expected, "%s of ppn 0x5 in state %s",
                     page_event_name(forbidden_event), page_state_name(forbidden_state));
            expect_abort(move_forbidden, expected);
            refused++;
        }
        close_guest(NULL);
    }
    assert_int_equal(refused, PAGE_STATES * PAGE_EVENTS - ROWS);
}

static void fill_with_mpn_out_of_range(void)
{
    pmap_move(guest.pmap, PPN, PAGE_EV_FILL, guest.machine_pages, 0);
}
static void page_out_to_slot_out_of_range(void)
{
    pmap_move(guest.pmap, PPN, PAGE_EV_FILL, 3, 0);
    pmap_move(guest.pmap, PPN, PAGE_EV_OUT_START, 0, MAX_VM_PAGES);
}
static void move_ppn_out_of_range(void)
{
    pmap_move(guest.pmap, guest.ram_pages, PAGE_EV_FILL, 3, 0);
}
static void free_with_a_shadow_left(void)
{
    pmap_free(guest.pmap);
}

static void numbers_out_of_range_abort(void **state)
{
    (void)state;
    expect_abort(fill_with_mpn_out_of_range, "mpn 0x20");
    expect_abort(page_out_to_slot_out_of_range, "slot 0x10000000");
    expect_abort(move_ppn_out_of_range, "ppn 0x40");
    expect_abort(free_with_a_shadow_left, "shadow 0");
}

/* ---- mappings first ---- */

static void map_ppn(bool writable)
{
    struct shadow_reply reply;
    test_guest_map(&guest, 0x1000, PPN, 0, G_V | G_R | G_W | G_A | (writable ? G_D : 0));
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 0));
    enum shadow_access access = writable ? SHADOW_STORE : SHADOW_LOAD;
    assert_int_equal(test_guest_access(&guest, guest.shadow, 0x1000, access, false, false, &reply),
                     SHADOW_OK);
}

static void balloon_mapped(void)
{
    pmap_move(guest.pmap, PPN, PAGE_EV_BALLOON, 0, 0);
}
static void report_mapped(void)
{
    pmap_move(guest.pmap, PPN, PAGE_EV_REPORT, 0, 0);
}
static void out_start_mapped(void)
{
    pmap_move(guest.pmap, PPN, PAGE_EV_OUT_START, 0, 1);
}
static void out_done_mapped(void)
{
    shadow_protect_ppn(guest.pmap, PPN);
    pmap_move(guest.pmap, PPN, PAGE_EV_OUT_START, 0, 1);
    pmap_move(guest.pmap, PPN, PAGE_EV_OUT_DONE, 0, 0);
}
static void share_writable(void)
{
    pmap_move(guest.pmap, PPN, PAGE_EV_SHARE, pmap_word_mpn(pmap_word(guest.pmap, PPN)), 0);
}
static void share_elsewhere_mapped(void)
{
    shadow_protect_ppn(guest.pmap, PPN);
    pmap_move(guest.pmap, PPN, PAGE_EV_SHARE, NEW_MPN, 0);
}
static void break_by_copy_mapped(void)
{
    shadow_protect_ppn(guest.pmap, PPN);
    pmap_move(guest.pmap, PPN, PAGE_EV_SHARE, pmap_word_mpn(pmap_word(guest.pmap, PPN)), 0);
    pmap_move(guest.pmap, PPN, PAGE_EV_COW_BREAK, NEW_MPN, 0);
}

static void a_frame_leaves_only_unmapped(void **state)
{
    (void)state;
    test_guest_make_resident(&guest, PPN);
    map_ppn(true);
    expect_abort(balloon_mapped, "balloon of ppn 0x5 (private) while a shadow table maps it");
    expect_abort(report_mapped, "report of ppn 0x5");
    expect_abort(out_start_mapped,
                 "out-start of ppn 0x5 (private) while a shadow table lets stores");
    expect_abort(out_done_mapped, "out-done of ppn 0x5");
    expect_abort(share_writable, "share of ppn 0x5");
    expect_abort(share_elsewhere_mapped, "share of ppn 0x5 (private) while a shadow table maps it");
    expect_abort(break_by_copy_mapped, "cow-break of ppn 0x5");
}

static void readers_may_stay_where_the_frame_stays(void **state)
{
    (void)state;
    test_guest_make_resident(&guest, PPN);
    map_ppn(true);
    shadow_protect_ppn(guest.pmap, PPN);
    mpn_t mpn = pmap_word_mpn(pmap_word(guest.pmap, PPN));
    pmap_move(guest.pmap, PPN, PAGE_EV_SHARE, mpn, 0);
    test_guest_check_fenced(&guest);
    pmap_move(guest.pmap, PPN, PAGE_EV_COW_BREAK, mpn, 0); /* in place, at count 1 */
    pmap_move(guest.pmap, PPN, PAGE_EV_OUT_START, 0, 1);
    assert_non_null(shadow_load_ptr(shadow_view(guest.shadow), 0x1000, 8));
    assert_null(shadow_store_ptr(shadow_view(guest.shadow), 0x1000, 8));
}

static void only_states_with_content_in_a_frame_have_a_host_address(void **state)
{
    (void)state;
    for (int s = 0; s < PAGE_STATES; s++) {
        open_guest(NULL);
        reach((enum page_state)s);
        bool readable = s == PAGE_PRIVATE || s == PAGE_SHARED || s == PAGE_PAGING_OUT;
        assert_ptr_equal(pmap_host(guest.pmap, PPN),
                         readable ? guest.machine + 3 * PAGE_BYTES : NULL);
        close_guest(NULL);
    }
}

static void names_are_known_and_bounded(void **state)
{
    (void)state;
    for (int s = 0; s < PAGE_STATES; s++)
        assert_string_not_equal(page_state_name((enum page_state)s), "unknown state");
    for (int e = 0; e < PAGE_EVENTS; e++)
        assert_string_not_equal(page_event_name((enum page_event)e), "unknown event");
    assert_string_equal(page_state_name((enum page_state)15), "unknown state");
    assert_string_equal(page_event_name((enum page_event)99), "unknown event");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allowed_transitions_move_numbers_and_counts),
        cmocka_unit_test(every_other_pair_aborts_naming_state_and_event),
        cmocka_unit_test_setup_teardown(numbers_out_of_range_abort, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(a_frame_leaves_only_unmapped, open_guest, close_guest),
        cmocka_unit_test_setup_teardown(readers_may_stay_where_the_frame_stays, open_guest,
                                        close_guest),
        cmocka_unit_test(only_states_with_content_in_a_frame_have_a_host_address),
        cmocka_unit_test(names_are_known_and_bounded),
    };
    return cmocka_run_group_tests_name("pmap", tests, NULL, NULL);
}
