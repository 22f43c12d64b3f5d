/* One round of policy at a time: what is done about targets, by the state of the host. */
#include "tests/policy/round.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* ---- what each state allows ---- */

static void each_state_reclaims_in_its_own_way(void **unused)
{
    (void)unused;
    static const struct {
        enum host_state state;
        uint32_t a_can;
        uint64_t a_mib, b_mib;
        bool balloon, page, block;
    } cases[] = {
        {HOST_HIGH, POLICY_CAN_BALLOON, 200, 100, false, false, false},
        {HOST_HIGH, 0, 200, 100, false, false, false},
        {HOST_SOFT, POLICY_CAN_BALLOON, 200, 108, true, false, false},
        {HOST_SOFT, 0, 200, 108, false, true, false},
        {HOST_HARD, POLICY_CAN_BALLOON, 200, 115, true, true, false},
        {HOST_HARD, 0, 200, 115, false, true, false},
        {HOST_LOW, POLICY_CAN_BALLOON, 200, 119, true, true, true},
        {HOST_LOW, 0, 200, 119, false, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host_under_test host;
        host_open_two(&host, cases[i].a_mib, cases[i].b_mib);
        host.vms[0].can = cases[i].a_can | POLICY_CAN_PAGE_OUT | POLICY_CAN_BLOCK;
        host_round(&host, 0);
        const struct policy_target *a = &host.targets[0], *b = &host.targets[1];
        print_message("case %zu\n", i);
        assert_int_equal(host.outcome.host, cases[i].state);
        assert_int_equal(whole_mib(a->target_pages), 147);
        if (cases[i].a_can)
            assert_int_equal(whole_mib(a->balloon_pages), cases[i].balloon ? 109 : 0);
        assert_int_equal(a->page_out_pages > 0, cases[i].page);
        assert_int_equal(a->blocked, cases[i].block);
        assert_int_equal(b->balloon_pages, 0);
        assert_int_equal(b->page_out_pages, 0);
        assert_false(b->blocked);
        assert_int_equal(host.outcome.again_within_ns > 0, cases[i].state != HOST_HIGH);
        host_close(&host);
    }
}

static void paging_stops_at_what_is_missing(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 115); /* 5 MiB free: hard; a balloon is at work */
    host_round(&host, 0);
    uint64_t leave_hard = policy_aim_pages(HOST_SOFT, host.host.machine_pages, &host.settings);
    assert_int_equal(host.targets[0].page_out_pages, leave_hard - 5 * MIB_PAGES);
    /* what was asked for and has not come yet is not asked for again */
    host.vms[0].page_out_pending_pages = host.targets[0].page_out_pages;
    host_round(&host, 100);
    assert_int_equal(host.targets[0].page_out_pages, 0);
    /* without a driver paging must do it all: up to the aim */
    host.vms[0].page_out_pending_pages = 0;
    host.vms[0].can &= ~(uint32_t)POLICY_CAN_BALLOON;
    host_round(&host, 100);
    assert_in_range(host.targets[0].page_out_pages,
                    host.host.machine_pages - host.outcome.available_pages - 5 * MIB_PAGES,
                    host.host.machine_pages - host.outcome.available_pages - 5 * MIB_PAGES + 8);
    host_close(&host);
}

static void one_round_asks_one_vm_for_a_bounded_amount(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 115);
    host.vms[0].can = POLICY_CAN_PAGE_OUT;
    host.settings.page_out_limit_pages = 1000;
    host.vms[0].page_out_pending_pages = 300;
    host_round(&host, 0);
    assert_int_equal(host.targets[0].page_out_pages, 700);
    host_close(&host);
}

static void nothing_is_asked_of_who_can_not(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 119);
    host.vms[0].can = 0; /* no driver, no swap, no back end that blocks */
    host_round(&host, 0);
    assert_int_equal(host.outcome.host, HOST_LOW);
    assert_int_equal(host.targets[0].page_out_pages, 0);
    assert_false(host.targets[0].blocked);
    /* and B, who is entitled to all it has, does not pay for it */
    assert_int_equal(host.targets[1].page_out_pages, 0);
    host_close(&host);
}

static void a_stalled_balloon_is_helped_by_paging_in_soft(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    for (int second = 1; second <= 4; second++) {
        host_round(&host, 1000);
        assert_int_equal(host.outcome.host, HOST_SOFT);
        assert_int_equal(host.targets[0].page_out_pages, 0);
    }
    host_round(&host, 1000);
    assert_true(host.targets[0].balloon_stalled);
    assert_true(host.targets[0].page_out_pages > 0);
    /* it stays stalled over a quiet time, and paging helps at once when memory is short again */
    host.vms[0].allocated_pages = 140 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HIGH);
    host.vms[0].allocated_pages = 200 * MIB_PAGES;
    host_round(&host, 1000);
    assert_true(host.targets[0].page_out_pages > 0);
    /* progress ends it */
    host.vms[0].balloon_pages = 20 * MIB_PAGES;
    host_round(&host, 1000);
    assert_false(host.targets[0].balloon_stalled);
    assert_int_equal(host.targets[0].page_out_pages, 0);
    host_close(&host);
}

static void a_slow_balloon_is_not_a_stalled_one(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 108);
    for (int second = 0; second < 20; second++) {
        host_round(&host, 1000);
        assert_false(host.targets[0].balloon_stalled);
        host.vms[0].balloon_pages += 2 * MIB_PAGES; /* the neighbour takes it all at once */
    }
    host_close(&host);
}

static void beyond_its_ceiling_a_balloon_is_helped_too(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 108);
    host.settings.balloon_ceiling_percent = 25;
    host_round(&host, 0);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 64);
    assert_int_equal(host.targets[0].page_out_pages, 0);
    host.vms[0].balloon_pages = 64 * MIB_PAGES;
    host_round(&host, 1000);
    assert_true(host.targets[0].page_out_pages > 0);
    host_close(&host);
}

/* A (200 of 256 MiB) is to give 53 MiB: by balloon what its guest says it can spare, else by
 * paging. */
static void a_guest_is_not_asked_for_more_than_it_can_spare(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t balloon, available, asked; /* MiB */
        bool paged;
        const char *why;
    } cases[] = {
        {0, 200, 109, false, "it can spare more than is wanted"},
        {0, 40, 40, false, "the balloon begins with what can be spared"},
        {30, 10, 40, false, "what it has given counts beside"},
        {40, 0, 40, true, "nothing left to spare: the host pages"},
        {0, 0, 0, true, "nothing to spare at all"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host_under_test host;
        host_open_two(&host, 200, 108);
        host.vms[0].valid |= POLICY_HAS_GUEST;
        host.vms[0].balloon_pages = cases[i].balloon * MIB_PAGES;
        host.vms[0].guest_available_pages = cases[i].available * MIB_PAGES;
        host_round(&host, 0);
        if (whole_mib(host.targets[0].balloon_pages) != cases[i].asked ||
            (host.targets[0].page_out_pages > 0) != cases[i].paged)
            fail_msg("%s: asked for %llu MiB, paged %llu pages", cases[i].why,
                     (unsigned long long)whole_mib(host.targets[0].balloon_pages),
                     (unsigned long long)host.targets[0].page_out_pages);
        /* it needs all of it itself now: not pressed on, nor made to shrink */
        host.vms[0].guest_available_pages = 0;
        host_round(&host, 1000);
        assert_int_equal(host.targets[0].balloon_pages, host.vms[0].balloon_pages);
        assert_true(host.targets[0].page_out_pages > 0);
        host_close(&host);
    }
}

/* What a guest's kernel has set aside and never touches costs no frame, and is not free to the
 * guest: the balloon does not take as much again from what it uses. */
static void untouched_memory_that_is_not_free_needs_no_balloon(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t untouched, asked; /* MiB */
        bool knows_guest, manual;
    } cases[] = {
        {8, 101, true, false},  {0, 109, true, false}, {200, 93, true, false}, /* a lie */
        {8, 109, false, false}, {8, 109, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host_under_test host;
        host_open_two(&host, 200, 108);
        struct policy_vm *a = &host.vms[0];
        a->guest_untouched_pages = cases[i].untouched * MIB_PAGES;
        a->guest_available_pages = a->memory_pages;
        a->valid |= cases[i].knows_guest ? POLICY_HAS_GUEST : 0;
        if (cases[i].manual) {
            a->valid |= POLICY_HAS_MANUAL_TARGET;
            a->manual_target_pages = 147 * MIB_PAGES;
        }
        host_round(&host, 0);
        print_message("case %zu\n", i);
        assert_int_equal(whole_mib(host.targets[0].balloon_pages), cases[i].asked);
        host_close(&host);
    }
}

/* What sharing saves costs no frame: the balloon does not take it from the guest as well. */
static void saved_pages_need_no_balloon(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 109);
    host.vms[0].valid |= POLICY_HAS_SAVED;
    host.vms[0].saved_pages = 40 * MIB_PAGES;
    host.vms[0].allocated_pages = 107 * MIB_PAGES;
    host.vms[0].balloon_pages = 109 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HIGH);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 69);
    host_close(&host);
}

static void who_was_paged_out_is_held_at_his_target(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 147, 109);
    struct policy_vm *a = &host.vms[0];
    a->can = POLICY_CAN_PAGE_OUT;
    host_round(&host, 0); /* at his target, and nobody is short: no limit */
    assert_int_equal(host.targets[0].limit_pages, a->max_pages);
    a->allocated_pages = 200 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_SOFT);
    assert_int_equal(host.targets[0].limit_pages, host.targets[0].target_pages);
    /* kept in high, raised with the target, and gone with it at max */
    a->allocated_pages = 147 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HIGH);
    assert_int_equal(whole_mib(host.targets[0].limit_pages), 147);
    a->shares *= 2;
    host.vms[1].min_pages = 0;
    host_round(&host, 1000);
    assert_int_equal(whole_mib(host.targets[0].limit_pages), 196);
    host.count = 1;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].limit_pages, a->max_pages);
    host_close(&host);

    /* a driver that comes back takes over */
    host_open_two(&host, 200, 109);
    host.vms[0].can = POLICY_CAN_PAGE_OUT;
    host_round(&host, 0);
    assert_int_equal(whole_mib(host.targets[0].limit_pages), 147);
    host.vms[0].can |= POLICY_CAN_BALLOON;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].limit_pages, host.vms[0].max_pages);
    host_close(&host);
}

static void in_high_balloons_shrink_no_faster_than_memory_allows(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 109);
    /* plenty: back to nothing at once */
    host.vms[0].allocated_pages = 147 * MIB_PAGES, host.vms[0].balloon_pages = 109 * MIB_PAGES;
    host.vms[1].allocated_pages = 10 * MIB_PAGES;
    host.count = 1;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].balloon_pages, 0);
    host_close(&host);

    /* A may have more, but B still holds it: no more than leaves the host clear of hard */
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    host.vms[0].shares *= 3;
    host.vms[1].min_pages = 32 * MIB_PAGES;
    host.vms[0].allocated_pages = 147 * MIB_PAGES, host.vms[0].balloon_pages = 109 * MIB_PAGES;
    host.vms[1].allocated_pages = 147 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HIGH);
    assert_int_equal(whole_mib(host.targets[0].target_pages), 221);
    assert_in_range(whole_mib(host.targets[0].balloon_pages), 90,
                    92); /* 26 MiB free, 8 of them kept */
    host.vms[1].allocated_pages += 8 * MIB_PAGES;
    host_round(&host, 1000);
    assert_in_range(whole_mib(host.targets[0].balloon_pages), 80, 82);
    host_close(&host);
}

static void in_soft_no_balloon_shrinks(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    host.vms[0].shares *= 3;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_SOFT);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 109);
    host_close(&host);
}

/* ---- manual targets ---- */

static void a_manual_target_is_followed_in_every_state(void **unused)
{
    (void)unused;
    static const char *const policies[] = {"static", "proportional"};
    for (int i = 0; i < 2; i++) {
        struct host_under_test host;
        host_open(&host, policies[i], 1024);
        struct policy_vm *vm = host_add(&host, 256, 250);
        vm->valid |= POLICY_HAS_MANUAL_TARGET;
        vm->manual_target_pages = 160 * MIB_PAGES;
        host_round(&host, 0);
        assert_int_equal(host.outcome.host, HOST_HIGH);
        assert_int_equal(whole_mib(host.targets[0].target_pages), 160);
        assert_int_equal(whole_mib(host.targets[0].balloon_pages), 96);
        assert_int_equal(host.targets[0].page_out_pages, 0);
        vm->manual_target_pages = 1 * MIB_PAGES; /* clamped to min, past the balloon's ceiling */
        vm->min_pages = 16 * MIB_PAGES;
        host_round(&host, 1000);
        assert_int_equal(whole_mib(host.targets[0].target_pages), 16);
        assert_int_equal(whole_mib(host.targets[0].balloon_pages), 240);
        vm->valid &= ~(uint32_t)POLICY_HAS_MANUAL_TARGET;
        host_round(&host, 1000);
        assert_int_equal(host.targets[0].balloon_pages, 0);
        host_close(&host);
    }
}

static void what_an_ordered_balloon_can_not_is_paged_but_not_by_static(void **unused)
{
    (void)unused;
    static const struct {
        const char *policy;
        uint64_t paged_mib;
    } cases[] = {{"proportional", 64}, {"static", 0}};
    for (int i = 0; i < 2; i++) {
        struct host_under_test host;
        host_open(&host, cases[i].policy, 1024);
        struct policy_vm *vm = host_add(&host, 256, 250);
        vm->can = POLICY_CAN_PAGE_OUT;
        vm->valid |= POLICY_HAS_MANUAL_TARGET;
        vm->manual_target_pages = 160 * MIB_PAGES;
        host_round(&host, 0);
        assert_int_equal(whole_mib(host.targets[0].page_out_pages), cases[i].paged_mib);
        host_close(&host);
    }
}

/* ---- static ---- */

static void static_does_nothing_until_the_host_is_hard(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "static", 320);
    host_add(&host, 256, 200);
    host_add(&host, 256, 108)->can = POLICY_CAN_PAGE_OUT;
    host_round(&host, 0);
    assert_int_equal(host.outcome.host, HOST_SOFT);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(whole_mib(host.targets[i].target_pages), 256);
        assert_int_equal(host.targets[i].balloon_pages, 0);
        assert_int_equal(host.targets[i].page_out_pages, 0);
    }
    /* hard: from everyone above his min, until soft is left behind, in proportion */
    host.vms[0].min_pages = 50 * MIB_PAGES;
    host.vms[1].min_pages = 100 * MIB_PAGES;
    host.vms[1].allocated_pages = 115 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HARD);
    uint64_t leave_hard = policy_aim_pages(HOST_SOFT, host.host.machine_pages, &host.settings);
    assert_in_range(host.targets[0].page_out_pages + host.targets[1].page_out_pages,
                    leave_hard - 5 * MIB_PAGES, leave_hard - 5 * MIB_PAGES + 8);
    assert_int_equal(whole_mib(host.targets[0].page_out_pages), 11);
    assert_int_equal(whole_mib(host.targets[1].page_out_pages), 1);
    host_close(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_state_reclaims_in_its_own_way),
        cmocka_unit_test(paging_stops_at_what_is_missing),
        cmocka_unit_test(one_round_asks_one_vm_for_a_bounded_amount),
        cmocka_unit_test(nothing_is_asked_of_who_can_not),
        cmocka_unit_test(a_stalled_balloon_is_helped_by_paging_in_soft),
        cmocka_unit_test(a_slow_balloon_is_not_a_stalled_one),
        cmocka_unit_test(beyond_its_ceiling_a_balloon_is_helped_too),
        cmocka_unit_test(a_guest_is_not_asked_for_more_than_it_can_spare),
        cmocka_unit_test(untouched_memory_that_is_not_free_needs_no_balloon),
        cmocka_unit_test(saved_pages_need_no_balloon),
        cmocka_unit_test(who_was_paged_out_is_held_at_his_target),
        cmocka_unit_test(in_high_balloons_shrink_no_faster_than_memory_allows),
        cmocka_unit_test(in_soft_no_balloon_shrinks),
        cmocka_unit_test(a_manual_target_is_followed_in_every_state),
        cmocka_unit_test(what_an_ordered_balloon_can_not_is_paged_but_not_by_static),
        cmocka_unit_test(static_does_nothing_until_the_host_is_hard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
