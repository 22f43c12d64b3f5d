/* One round of policy at a time: targets, what the host's state allows, and rows beyond belief. */
#include "tests/policy/round.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint64_t mib(uint64_t pages)
{
    return (pages + MIB_PAGES / 2) / MIB_PAGES;
}

/* ---- registration ---- */

static void policies_are_found_by_name(void **unused)
{
    (void)unused;
    size_t count = 0;
    for (const struct policy *policy; (policy = policy_at(count)); count++) {
        assert_ptr_equal(policy_find(policy_name(policy)), policy);
        assert_true(strlen(policy_summary(policy)) > 10);
    }
    assert_true(count >= 2);
    assert_non_null(policy_find("static"));
    assert_non_null(policy_find("proportional"));
    assert_null(policy_find("none"));
}

/* ---- proportional: amounts ---- */

static void equal_shares_and_no_tax_give_equal_memory(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    host_add(&host, 256, 160);
    host_add(&host, 256, 150)->absent_pages = 0; /* the rest is in its balloon, say */
    host.vms[0].absent_pages = 0;
    host_round(&host, 0);
    assert_int_equal(host.targets[0].target_pages, host.targets[1].target_pages);
    assert_in_range(host.targets[0].target_pages * 2, host.outcome.available_pages - 2,
                    host.outcome.available_pages);
    host_close(&host);
}

static void idle_room_goes_to_who_can_use_it(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    host_add(&host, 256, 250)->min_pages = 64 * MIB_PAGES;
    host_add(&host, 256, 40)->min_pages = 32 * MIB_PAGES;
    host_round(&host, 0);
    /* B: 40 touched and an eighth of 256 to grow; A: all the rest. */
    assert_int_equal(mib(host.targets[1].target_pages), 72);
    assert_in_range(host.targets[0].target_pages + host.targets[1].target_pages,
                    host.outcome.available_pages - 2, host.outcome.available_pages);
    host_close(&host);
}

/* What is charged beyond the frames there are may be handed out too, and what is not charged may
 * not: with every VM at its target the frames suffice. */
static void targets_are_corrected_for_what_sharing_is_charged(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t shared_mib, charged_mib;
        int64_t more_mib;
    } cases[] = {{0, 0, 0}, {40, 40, 0}, {40, 100, 60}, {40, 0, -40}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host_under_test host;
        host_open(&host, "proportional", 512);
        uint64_t before = policy_available_pages(host.host.machine_pages, &host.settings);
        for (int vm = 0; vm < 3; vm++) {
            host_add(&host, 512, 400)->absent_pages = 0;
            host.vms[vm].min_pages = 0;
        }
        host.host.shared_pages = cases[i].shared_mib * MIB_PAGES;
        host.host.shared_charge_pages = cases[i].charged_mib * MIB_PAGES;
        host_round_with_free(&host, 0, 100 * MIB_PAGES);
        assert_int_equal(host.outcome.rows_refused, 0);
        assert_int_equal((int64_t)host.outcome.available_pages,
                         (int64_t)before + cases[i].more_mib * MIB_PAGES);
        assert_in_range(host.outcome.target_pages, host.outcome.available_pages - 3,
                        host.outcome.available_pages);
        host_close(&host);
    }
}

static void a_lone_vm_may_have_everything(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    host_add(&host, 256, 10);
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[0].target_pages), 256);
    host_close(&host);
}

static void memory_that_was_taken_is_still_wanted(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    struct policy_vm *ballooned = host_add(&host, 256, 100), *paged = host_add(&host, 256, 100);
    ballooned->absent_pages = 0, ballooned->balloon_pages = 156 * MIB_PAGES;
    paged->absent_pages = 0, paged->paged_pages = 156 * MIB_PAGES;
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[0].target_pages), 147);
    assert_int_equal(mib(host.targets[1].target_pages), 147);
    host_close(&host);
}

static void a_demand_rises_at_once_and_falls_slowly(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    host_add(&host, 256, 160)->absent_pages = 0;
    struct policy_vm *b = host_add(&host, 256, 100);
    b->min_pages = 32 * MIB_PAGES;
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[1].target_pages), 132);
    b->allocated_pages = 20 * MIB_PAGES, b->absent_pages = 236 * MIB_PAGES;
    host_round(&host, 1000);
    assert_in_range(mib(host.targets[1].target_pages), 128, 131);
    for (int second = 0; second < 120; second++)
        host_round(&host, 1000);
    assert_in_range(mib(host.targets[1].target_pages), 52, 54);
    b->allocated_pages = 100 * MIB_PAGES, b->absent_pages = 156 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(mib(host.targets[1].target_pages), 147); /* grew by 80: room for twice that */
    host_close(&host);
}

static void min_is_kept_even_where_mins_do_not_fit(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 256);
    for (int i = 0; i < 3; i++)
        host_add(&host, 256, 60)->min_pages = 100 * MIB_PAGES;
    host_round(&host, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mib(host.targets[i].target_pages), 100);
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
        assert_int_equal(mib(host.targets[0].target_pages), 160);
        assert_int_equal(mib(host.targets[0].balloon_pages), 96);
        assert_int_equal(host.targets[0].page_out_pages, 0);
        vm->manual_target_pages = 1 * MIB_PAGES; /* clamped to min, past the balloon's ceiling */
        vm->min_pages = 16 * MIB_PAGES;
        host_round(&host, 1000);
        assert_int_equal(mib(host.targets[0].target_pages), 16);
        assert_int_equal(mib(host.targets[0].balloon_pages), 240);
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
        assert_int_equal(mib(host.targets[0].page_out_pages), cases[i].paged_mib);
        host_close(&host);
    }
}

static void orders_that_do_not_fit_are_cut_but_not_by_static(void **unused)
{
    (void)unused;
    static const struct {
        const char *policy;
        uint64_t target_mib;
    } cases[] = {{"proportional", 88}, {"static", 250}};
    for (int i = 0; i < 2; i++) {
        struct host_under_test host;
        host_open(&host, cases[i].policy, 320);
        for (int vm = 0; vm < 3; vm++) {
            host_add(&host, 256, 80)->min_pages = 30 * MIB_PAGES;
            host.vms[vm].manual_target_pages = 250 * MIB_PAGES;
            if (vm < 2)
                host.vms[vm].valid |= POLICY_HAS_MANUAL_TARGET;
        }
        host.vms[2].min_pages = 118 * MIB_PAGES;
        host_round(&host, 0);
        assert_int_equal(mib(host.targets[0].target_pages), cases[i].target_mib);
        assert_int_equal(mib(host.targets[1].target_pages), cases[i].target_mib);
        host_close(&host);
    }
}

/* ---- what each state allows ---- */

/* Two VMs on a machine of 320 MiB; A is over its target, B is under its own. */
static void two_vms(struct host_under_test *host, uint64_t a_mib, uint64_t b_mib)
{
    host_open(host, "proportional", 320);
    host_add(host, 256, a_mib)->absent_pages = 0;
    host_add(host, 256, b_mib)->absent_pages = 0;
}

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
        two_vms(&host, cases[i].a_mib, cases[i].b_mib);
        host.vms[0].can = cases[i].a_can | POLICY_CAN_PAGE_OUT | POLICY_CAN_BLOCK;
        host_round(&host, 0);
        const struct policy_target *a = &host.targets[0], *b = &host.targets[1];
        print_message("case %zu\n", i);
        assert_int_equal(host.outcome.host, cases[i].state);
        assert_int_equal(mib(a->target_pages), 147);
        if (cases[i].a_can)
            assert_int_equal(mib(a->balloon_pages), cases[i].balloon ? 109 : 0);
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
    two_vms(&host, 200, 115); /* 5 MiB free: hard; a balloon is at work */
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
    two_vms(&host, 200, 115);
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
    two_vms(&host, 200, 119);
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
    two_vms(&host, 200, 108);
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
    two_vms(&host, 200, 108);
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
    two_vms(&host, 200, 108);
    host.settings.balloon_ceiling_percent = 25;
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[0].balloon_pages), 64);
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
        two_vms(&host, 200, 108);
        host.vms[0].valid |= POLICY_HAS_GUEST;
        host.vms[0].balloon_pages = cases[i].balloon * MIB_PAGES;
        host.vms[0].guest_available_pages = cases[i].available * MIB_PAGES;
        host_round(&host, 0);
        if (mib(host.targets[0].balloon_pages) != cases[i].asked ||
            (host.targets[0].page_out_pages > 0) != cases[i].paged)
            fail_msg("%s: asked for %llu MiB, paged %llu pages", cases[i].why,
                     (unsigned long long)mib(host.targets[0].balloon_pages),
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
        uint64_t absent, free, asked; /* MiB */
        bool knows_guest, manual;
    } cases[] = {
        {10, 2, 101, true, false},  {10, 10, 109, true, false}, {10, 200, 109, true, false},
        {10, 0, 109, false, false}, {10, 2, 109, true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host_under_test host;
        two_vms(&host, 200, 108);
        struct policy_vm *a = &host.vms[0];
        a->absent_pages = cases[i].absent * MIB_PAGES;
        a->guest_free_pages = cases[i].free * MIB_PAGES;
        a->guest_available_pages = a->memory_pages;
        a->valid |= cases[i].knows_guest ? POLICY_HAS_GUEST : 0;
        if (cases[i].manual) {
            a->valid |= POLICY_HAS_MANUAL_TARGET;
            a->manual_target_pages = 147 * MIB_PAGES;
        }
        host_round(&host, 0);
        print_message("case %zu\n", i);
        assert_int_equal(mib(host.targets[0].balloon_pages), cases[i].asked);
        host_close(&host);
    }
}

/* What sharing saves costs no frame: the balloon does not take it from the guest as well. */
static void saved_pages_need_no_balloon(void **unused)
{
    (void)unused;
    struct host_under_test host;
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[0].balloon_pages), 109);
    host.vms[0].valid |= POLICY_HAS_SAVED;
    host.vms[0].saved_pages = 40 * MIB_PAGES;
    host.vms[0].allocated_pages = 107 * MIB_PAGES;
    host.vms[0].balloon_pages = 109 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HIGH);
    assert_int_equal(mib(host.targets[0].balloon_pages), 69);
    host_close(&host);
}

static void who_was_paged_out_is_held_at_his_target(void **unused)
{
    (void)unused;
    struct host_under_test host;
    two_vms(&host, 147, 109);
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
    assert_int_equal(mib(host.targets[0].limit_pages), 147);
    a->shares *= 2;
    host.vms[1].min_pages = 0;
    host_round(&host, 1000);
    assert_int_equal(mib(host.targets[0].limit_pages), 196);
    host.count = 1;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].limit_pages, a->max_pages);
    host_close(&host);

    /* a driver that comes back takes over */
    two_vms(&host, 200, 109);
    host.vms[0].can = POLICY_CAN_PAGE_OUT;
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[0].limit_pages), 147);
    host.vms[0].can |= POLICY_CAN_BALLOON;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].limit_pages, host.vms[0].max_pages);
    host_close(&host);
}

static void in_high_balloons_shrink_no_faster_than_memory_allows(void **unused)
{
    (void)unused;
    struct host_under_test host;
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    assert_int_equal(mib(host.targets[0].balloon_pages), 109);
    /* plenty: back to nothing at once */
    host.vms[0].allocated_pages = 147 * MIB_PAGES, host.vms[0].balloon_pages = 109 * MIB_PAGES;
    host.vms[1].allocated_pages = 10 * MIB_PAGES;
    host.count = 1;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].balloon_pages, 0);
    host_close(&host);

    /* A may have more, but B still holds it: no more than leaves the host clear of hard */
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    host.vms[0].shares *= 3;
    host.vms[1].min_pages = 32 * MIB_PAGES;
    host.vms[0].allocated_pages = 147 * MIB_PAGES, host.vms[0].balloon_pages = 109 * MIB_PAGES;
    host.vms[1].allocated_pages = 147 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_HIGH);
    assert_int_equal(mib(host.targets[0].target_pages), 221);
    assert_in_range(mib(host.targets[0].balloon_pages), 90, 92); /* 26 MiB free, 8 of them kept */
    host.vms[1].allocated_pages += 8 * MIB_PAGES;
    host_round(&host, 1000);
    assert_in_range(mib(host.targets[0].balloon_pages), 80, 82);
    host_close(&host);
}

static void in_soft_no_balloon_shrinks(void **unused)
{
    (void)unused;
    struct host_under_test host;
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    host.vms[0].shares *= 3;
    host_round(&host, 1000);
    assert_int_equal(host.outcome.host, HOST_SOFT);
    assert_int_equal(mib(host.targets[0].balloon_pages), 109);
    host_close(&host);
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
        assert_int_equal(mib(host.targets[i].target_pages), 256);
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
    assert_int_equal(mib(host.targets[0].page_out_pages), 11);
    assert_int_equal(mib(host.targets[1].page_out_pages), 1);
    host_close(&host);
}

/* ---- bad input ---- */

static void impossible_rows_are_refused_one_by_one(void **unused)
{
    (void)unused;
    struct policy_vm rows[10];
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    for (int i = 0; i < 10; i++) {
        host.count = 0;
        rows[i] = *host_add(&host, 64, 40);
        rows[i].id = 500 + (uint32_t)i;
    }
    rows[0].min_pages = rows[0].max_pages + 1;
    rows[1].max_pages = rows[1].memory_pages + 1;
    rows[2].memory_pages = rows[2].max_pages = rows[2].min_pages = 0;
    rows[3].allocated_pages = UINT64_MAX;
    rows[4].balloon_pages = rows[4].memory_pages + 1;
    rows[5].absent_pages = UINT64_MAX;
    rows[6].paged_pages = rows[6].memory_pages + 1;
    rows[7].valid |= POLICY_HAS_ACTIVE, rows[7].active_fraction = (double)NAN;
    rows[8].page_out_pending_pages = UINT64_MAX;
    rows[9].memory_pages = rows[9].max_pages = UINT64_MAX;
    for (int i = 0; i < 10; i++) {
        host.count = 0;
        host_add(&host, 256, 180)->absent_pages = 0;
        host_add(&host, 128, 80);
        host.vms[host.count++] = rows[i];
        host_round_with_free(&host, 1000, 20 * MIB_PAGES);
        assert_int_equal(host.outcome.rows_refused, 1);
        assert_int_equal(host.targets[2].why, POLICY_ROW_REFUSED);
        assert_int_equal(host.targets[2].page_out_pages, 0);
        assert_false(host.targets[2].blocked);
        assert_int_equal(host.targets[0].why, POLICY_AS_PLANNED);
        assert_in_range(mib(host.targets[0].target_pages), 128, 256);
        assert_true(host.targets[0].target_pages + host.targets[1].target_pages <=
                    host.outcome.available_pages);
    }
    host_close(&host);
}

static void a_vm_named_twice_is_left_alone(void **unused)
{
    (void)unused;
    struct host_under_test host;
    host_open(&host, "proportional", 320);
    host_add(&host, 256, 180);
    host_add(&host, 64, 20);
    host_add(&host, 64, 20)->id = host.vms[0].id;
    for (int i = 0; i < 3; i++) {
        host_round(&host, 1000);
        assert_int_equal(host.outcome.rows_refused, 2);
        assert_int_equal(host.targets[0].why, POLICY_ROW_REFUSED);
        assert_int_equal(host.targets[1].why, POLICY_AS_PLANNED);
        assert_int_equal(host.targets[2].why, POLICY_ROW_REFUSED);
    }
    host_close(&host);
}

static void a_refused_row_keeps_what_the_vm_had(void **unused)
{
    (void)unused;
    struct host_under_test host;
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    uint64_t target_pages = host.targets[0].target_pages;
    assert_int_equal(mib(host.targets[0].balloon_pages), 109);
    host.vms[0].min_pages = UINT64_MAX;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].target_pages, target_pages);
    assert_int_equal(mib(host.targets[0].balloon_pages), 109);
    host.vms[0].min_pages = 128 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].why, POLICY_AS_PLANNED);
    assert_int_equal(mib(host.targets[0].balloon_pages), 109);
    host_close(&host);
}

static void impossible_hosts_and_settings_change_nothing(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t machine_pages, free_pages;
        double slack, ceiling, room;
        uint64_t limit;
        const char *says;
    } cases[] = {
        {0, 0, 0.5, 65, 10, 1, "impossible host"},  {100, 101, 0.5, 65, 10, 1, "impossible host"},
        {100, 10, (double)NAN, 65, 10, 1, "slack"}, {100, 10, 0.5, 101, 10, 1, "ceiling"},
        {100, 10, 0.5, 65, -1, 1, "room"},          {100, 10, 0.5, 65, 10, 0, "limit"},
    };
    struct host_under_test host;
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct policy_settings settings = host.settings;
        struct policy_host row = {.machine_pages = cases[i].machine_pages,
                                  .free_pages = cases[i].free_pages};
        struct err err;
        settings.slack_percent = cases[i].slack;
        settings.balloon_ceiling_percent = cases[i].ceiling;
        settings.growth_room_percent = cases[i].room;
        settings.page_out_limit_pages = cases[i].limit;
        host.spare->host = HOST_LOW;
        assert_int_equal(policy_decide(host.policy, &settings, host.state, &row, host.vms,
                                       host.count, host.spare, host.targets, &host.outcome, &err),
                         -1);
        assert_non_null(strstr(err.text, cases[i].says));
        assert_int_equal(host.spare->host, HOST_LOW);
    }
    host_close(&host);
}

static void vms_come_and_go_in_any_order(void **unused)
{
    (void)unused;
    struct host_under_test host;
    two_vms(&host, 200, 108);
    host_round(&host, 0);
    struct policy_vm a = host.vms[0], b = host.vms[1];
    host.vms[0] = b, host.vms[1] = a; /* turned round: memory follows the id */
    host_round(&host, 1000);
    assert_int_equal(host.targets[1].id, a.id);
    assert_int_equal(mib(host.targets[1].balloon_pages), 109);
    host.count = 0;
    host_round(&host, 1000);
    assert_int_equal(host.state->count, 0);
    host.vms[0] = a, host.count = 1;
    host_round(&host, 1000); /* back as a stranger */
    assert_int_equal(host.targets[0].balloon_pages, 0);
    host_close(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_are_found_by_name),
        cmocka_unit_test(equal_shares_and_no_tax_give_equal_memory),
        cmocka_unit_test(idle_room_goes_to_who_can_use_it),
        cmocka_unit_test(targets_are_corrected_for_what_sharing_is_charged),
        cmocka_unit_test(a_lone_vm_may_have_everything),
        cmocka_unit_test(memory_that_was_taken_is_still_wanted),
        cmocka_unit_test(a_demand_rises_at_once_and_falls_slowly),
        cmocka_unit_test(min_is_kept_even_where_mins_do_not_fit),
        cmocka_unit_test(a_manual_target_is_followed_in_every_state),
        cmocka_unit_test(what_an_ordered_balloon_can_not_is_paged_but_not_by_static),
        cmocka_unit_test(orders_that_do_not_fit_are_cut_but_not_by_static),
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
        cmocka_unit_test(static_does_nothing_until_the_host_is_hard),
        cmocka_unit_test(impossible_rows_are_refused_one_by_one),
        cmocka_unit_test(a_vm_named_twice_is_left_alone),
        cmocka_unit_test(a_refused_row_keeps_what_the_vm_had),
        cmocka_unit_test(impossible_hosts_and_settings_change_nothing),
        cmocka_unit_test(vms_come_and_go_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
