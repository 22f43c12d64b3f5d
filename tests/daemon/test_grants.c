/*
 * Frames to VMs and back: who gets them when they are few, what a VM at its max
 * does, what a full swap disk means. The workers have real guest memory.
 */
#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define SOON_MS    30000
#define PAGES(mib) ((mib)*256u)

static struct vm_row row_of(struct host *host, const char *name)
{
    struct vm_row row;
    struct vm *vm = supervisor_find_vm(host->supervisor, name);
    assert_non_null(vm);
    supervisor_vm_row(host->supervisor, vm, &row);
    if (!strcmp(row.state, "stopped")) {
        host_print_events(host);
        fail_msg("%s: %s", name, row.exit_text);
    }
    return row;
}

static uint64_t allocated(struct host *host, const char *name)
{
    return row_of(host, name).allocated_pages;
}

static void a_vm_alone_gets_what_it_touches(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, 64, "touching_worker");
    host_vm(&host, "v", 32, 16, "touch=4096");
    host_until(&host, SOON_MS, allocated(&host, "v") >= 4000);
    struct vm_row row = row_of(&host, "v");
    assert_true(row.allocated_pages <= 4096 + GRANT_POOL_SLOTS);
    assert_int_equal(row.paged_pages, 0);
    assert_false(row.blocked);
    host_check(&host);
    host_stop(&host);
}

static void a_max_is_kept_by_paging_out_itself(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "touching_worker");
    struct vm *vm = host_vm(&host, "v", 32, 8, "touch=6144");
    assert_int_equal(supervisor_set_min_max(host.supervisor, vm, ~UINT64_C(0), 12 * TEST_MIB, &err),
                     0);
    host_until(&host, SOON_MS, row_of(&host, "v").swap_in_pages > 200);
    for (int i = 0; i < 20; i++) {
        assert_true(allocated(&host, "v") <= PAGES(12));
        host_run_ms(&host, 5);
    }
    assert_true(row_of(&host, "v").swap_out_pages > 200);
    host_check(&host);
    host_stop(&host);
}

static void a_manual_target_is_reached_by_the_balloon(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "touching_worker");
    struct vm *vm = host_vm(&host, "v", 32, 8, "touch=3000 balloon");
    host_until(&host, SOON_MS, allocated(&host, "v") > 2500);
    assert_int_equal(supervisor_set_target(host.supervisor, vm, 24 * TEST_MIB, &err), 0);
    host_until(&host, SOON_MS, row_of(&host, "v").balloon_pages > PAGES(7));
    assert_int_equal(row_of(&host, "v").manual_target_pages, PAGES(24));
    assert_true(row_of(&host, "v").valid & VM_ROW_MANUAL_TARGET);
    assert_int_equal(supervisor_clear_target(host.supervisor, vm, &err), 0);
    host_until(&host, SOON_MS, row_of(&host, "v").balloon_pages < PAGES(1));
    host_check(&host);
    host_stop(&host);
}

static void a_manual_target_is_reached_by_paging_without_a_balloon(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "touching_worker");
    struct vm *vm = host_vm(&host, "v", 32, 8, "touch=6000");
    host_until(&host, SOON_MS, allocated(&host, "v") > 5500);
    assert_int_equal(supervisor_set_target(host.supervisor, vm, 16 * TEST_MIB, &err), 0);
    host_until(&host, SOON_MS, allocated(&host, "v") <= PAGES(17));
    assert_true(row_of(&host, "v").paged_pages > 0);
    host_check(&host);
    host_stop(&host);
}

static void a_vm_below_its_min_is_served_on_a_full_host(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, 48, "touching_worker");
    host_vm(&host, "hog", 44, 8, "touch=11000");
    host_until(&host, SOON_MS, allocated(&host, "hog") > PAGES(38));
    host_vm(&host, "late", 16, 12, "touch=2800");
    host_until(&host, SOON_MS, allocated(&host, "late") > 2700);
    assert_true(row_of(&host, "late").paged_pages < 300);
    /* Min comes from the emergency reserve at once, maybe before the next round of the policy. */
    host_until(&host, SOON_MS, host.supervisor->state_changes > 0);
    host_until(&host, SOON_MS, row_of(&host, "hog").paged_pages > 0);
    host_check(&host);
    host_stop(&host);
}

static void a_full_swap_disk_is_told_and_loses_no_page(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, 48, "touching_worker");
    /* Together they want 60 MiB of 48: somebody must be paged, and at first nobody can be. */
    host_vm(&host, "a", 32, 8, "touch=7600 full-disk");
    host_vm(&host, "b", 32, 8, "touch=7600 full-disk");
    host_until(&host, SOON_MS,
               host_events(&host, "a", "swap-error") + host_events(&host, "b", "swap-error") > 0);
    /* The disk has room again: paging goes on, and the guests find what they wrote. */
    host_until(&host, SOON_MS,
               row_of(&host, "a").swap_in_pages > 100 && row_of(&host, "b").swap_in_pages > 100);
    assert_true(host_events(&host, "a", "swap-ok") + host_events(&host, "b", "swap-ok") > 0);
    host_check(&host);
    host_stop(&host);
}

static void on_checked(void *ctx, const struct check_result *result)
{
    *(int *)ctx = result->ok ? 0 : -1;
}

static void no_page_out_begins_while_a_check_waits_for_rest(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    int checked = 1;
    host_start(&host, 64, "touching_worker");
    struct vm *vm = host_vm(&host, "v", 32, 8, "touch=4096");
    host_until(&host, SOON_MS, allocated(&host, "v") >= 4000);
    assert_int_equal(supervisor_check(host.supervisor, on_checked, &checked, &err), 0);
    vm->page_out_owed_pages = 100;
    vm_send_page_out(vm);
    assert_false(vm->page_out_outstanding);
    assert_int_equal(vm->page_out_owed_pages, 100);
    host_until(&host, SOON_MS, checked <= 0);
    assert_int_equal(checked, 0);
    assert_int_equal(supervisor_set_target(host.supervisor, vm, 12 * TEST_MIB, &err), 0);
    host_until(&host, SOON_MS, row_of(&host, "v").swap_out_pages > 0);
    host_check(&host);
    host_stop(&host);
}

/* No worker can bring this about; our own records would have to be wrong. */
static void an_impossible_row_is_told_and_its_vm_left_alone(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "touching_worker");
    assert_int_equal(supervisor_set_period(host.supervisor, 100, &err), 0);
    struct vm *vm = host_vm(&host, "v", 32, 8, "touch=4000");
    host_vm(&host, "w", 16, 8, "touch=1000");
    host_until(&host, SOON_MS, allocated(&host, "v") > 3500 && allocated(&host, "w") > 800);
    uint64_t target_pages = row_of(&host, "v").target_pages, min_pages = vm->min_pages;
    vm->min_pages = vm->max_pages + 1;
    host_until(&host, SOON_MS, host_events(&host, "v", "policy-error") > 0);
    vm->min_pages = min_pages;
    assert_true(host_event_says(&host, "policy-error", "impossible"));
    assert_int_equal(host_events(&host, "w", "policy-error"), 0);
    assert_int_equal(row_of(&host, "v").target_pages, target_pages);
    assert_true(row_of(&host, "w").target_pages >= PAGES(8));
    uint64_t rounds = host.supervisor->policy_runs;
    host_until(&host, SOON_MS, host.supervisor->policy_runs > rounds + 1);
    assert_int_equal(row_of(&host, "v").paged_pages, 0);
    host_check(&host);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_impossible_row_is_told_and_its_vm_left_alone),
        cmocka_unit_test(a_vm_alone_gets_what_it_touches),
        cmocka_unit_test(a_max_is_kept_by_paging_out_itself),
        cmocka_unit_test(a_manual_target_is_reached_by_the_balloon),
        cmocka_unit_test(a_manual_target_is_reached_by_paging_without_a_balloon),
        cmocka_unit_test(a_vm_below_its_min_is_served_on_a_full_host),
        cmocka_unit_test(a_full_swap_disk_is_told_and_loses_no_page),
        cmocka_unit_test(no_page_out_begins_while_a_check_waits_for_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
