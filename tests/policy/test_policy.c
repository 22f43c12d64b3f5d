/* One round of policy at a time: targets, and rows beyond belief. What is done about targets:
 * test_reclaim.c. */
#include "tests/policy/round.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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
    assert_int_equal(whole_mib(host.targets[1].target_pages), 72);
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
    assert_int_equal(whole_mib(host.targets[0].target_pages), 256);
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
    assert_int_equal(whole_mib(host.targets[0].target_pages), 147);
    assert_int_equal(whole_mib(host.targets[1].target_pages), 147);
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
    assert_int_equal(whole_mib(host.targets[1].target_pages), 132);
    b->allocated_pages = 20 * MIB_PAGES, b->absent_pages = 236 * MIB_PAGES;
    host_round(&host, 1000);
    assert_in_range(whole_mib(host.targets[1].target_pages), 128, 131);
    for (int second = 0; second < 120; second++)
        host_round(&host, 1000);
    assert_in_range(whole_mib(host.targets[1].target_pages), 52, 54);
    b->allocated_pages = 100 * MIB_PAGES, b->absent_pages = 156 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(whole_mib(host.targets[1].target_pages),
                     147); /* grew by 80: room for twice that */
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
        assert_int_equal(whole_mib(host.targets[i].target_pages), 100);
    host_close(&host);
}

/* ---- manual targets ---- */

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
        assert_int_equal(whole_mib(host.targets[0].target_pages), cases[i].target_mib);
        assert_int_equal(whole_mib(host.targets[1].target_pages), cases[i].target_mib);
        host_close(&host);
    }
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
        assert_in_range(whole_mib(host.targets[0].target_pages), 128, 256);
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
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    uint64_t target_pages = host.targets[0].target_pages;
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 109);
    host.vms[0].min_pages = UINT64_MAX;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].target_pages, target_pages);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 109);
    host.vms[0].min_pages = 128 * MIB_PAGES;
    host_round(&host, 1000);
    assert_int_equal(host.targets[0].why, POLICY_AS_PLANNED);
    assert_int_equal(whole_mib(host.targets[0].balloon_pages), 109);
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
    host_open_two(&host, 200, 108);
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
    host_open_two(&host, 200, 108);
    host_round(&host, 0);
    struct policy_vm a = host.vms[0], b = host.vms[1];
    host.vms[0] = b, host.vms[1] = a; /* turned round: memory follows the id */
    host_round(&host, 1000);
    assert_int_equal(host.targets[1].id, a.id);
    assert_int_equal(whole_mib(host.targets[1].balloon_pages), 109);
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
        cmocka_unit_test(orders_that_do_not_fit_are_cut_but_not_by_static),
        cmocka_unit_test(impossible_rows_are_refused_one_by_one),
        cmocka_unit_test(a_vm_named_twice_is_left_alone),
        cmocka_unit_test(a_refused_row_keeps_what_the_vm_had),
        cmocka_unit_test(impossible_hosts_and_settings_change_nothing),
        cmocka_unit_test(vms_come_and_go_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
