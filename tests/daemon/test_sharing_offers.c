/*
 * Share before page-out (paper, section 4.3): a page about to be paged out whose content is known
 * is shared instead, and what is known of nothing is written. The scanner is on and hardly moves,
 * so that what is shared here was offered.
 *
 * A worker waits a moment for the answer to an offer and then pages out; on a busy machine it may
 * come too late. So these tests wait until enough pages were shared, however many were written.
 */
#include "tests/daemon/sharing_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAGES  3000u
#define ENOUGH 100u

static void slow_down(struct host *host)
{
    struct err err;
    struct sharing_settings settings = sharing_stats_of(host).settings;
    settings.min_pages_per_second = 0;
    settings.max_pages_per_second = 1;
    if (supervisor_set_sharing(host->supervisor, &settings, &err) < 0)
        fail_msg("%s", err.text);
}

/* References of a VM's pages that were found so. */
static unsigned found(struct host *host, struct vm *vm, const char *how)
{
    struct sharing_reference reference;
    uint64_t mpn;
    unsigned count = 0;
    for (uint64_t ppn = 0; ppn < PAGES; ppn++)
        if (supervisor_sharing_page(host->supervisor, vm, ppn, &mpn, &reference) == 0)
            count += !strcmp(reference.how, how);
    return count;
}

static struct vm *filled_vm(struct host *host, const char *name, const char *domain,
                            const char *append)
{
    struct vm *vm = sharing_vm(host, name, domain, append);
    host_until(host, SHARING_WAIT_MS, host_state_is(host, name, "running"));
    return vm;
}

/* Order less and less memory for it, until enough became of its pages. */
static void squeeze(struct host *host, struct vm *vm, const char *how)
{
    struct err err;
    for (unsigned mib = 10; mib >= 4 && found(host, vm, how) < ENOUGH; mib--) {
        if (supervisor_set_target(host->supervisor, vm, mib * TEST_MIB, &err) < 0)
            fail_msg("%s", err.text);
        host_until(host, SHARING_WAIT_MS,
                   found(host, vm, how) >= ENOUGH ||
                       sharing_row(host, vm->settings.name).allocated_pages <= mib * 256);
    }
    host_until(host, SHARING_WAIT_MS, sharing_is_quiet(host->supervisor));
}

static void check_and_stop(struct host *host)
{
    host_check(host);
    host_stop(host);
}

static void a_page_of_known_content_is_shared_instead_of_written(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 64);
    sharing_vm(&host, "known", "us", "pages=100 content=same");
    sharing_scan(&host, 4);
    assert_int_equal(sharing_stats_of(&host).references, 100);
    slow_down(&host);
    struct vm *vm = filled_vm(&host, "a", "us", "pages=3000 content=same");
    squeeze(&host, vm, "paging");
    assert_true(found(&host, vm, "paging") >= ENOUGH);
    struct sharing_stats stats = sharing_stats_of(&host);
    assert_true(stats.counts.offered_pages >= ENOUGH);
    assert_int_equal(stats.shared_frames, 1); /* one content */
    assert_int_equal(sharing_row(&host, "a").refused_messages, 0);
    check_and_stop(&host);
}

static void offered_pages_of_one_content_find_each_other(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 64);
    slow_down(&host);
    struct vm *vm = filled_vm(&host, "a", NULL, "pages=3000 content=same");
    squeeze(&host, vm, "paging");
    assert_true(found(&host, vm, "paging") >= ENOUGH);
    /* who was known by content when the other was offered */
    assert_true(found(&host, vm, "hint") >= 1);
    check_and_stop(&host);
}

static void an_offered_page_of_zeroes_needs_neither_frame_nor_disk(void **state)
{
    (void)state;
    struct host host;
    sharing_host_start(&host, 64);
    slow_down(&host);
    struct vm *vm = filled_vm(&host, "a", NULL, "pages=3000 content=zero");
    squeeze(&host, vm, "zero");
    assert_true(found(&host, vm, "zero") >= ENOUGH);
    assert_int_equal(sharing_row(&host, "a").shared_references, 0);
    check_and_stop(&host);
}

static void what_nobody_else_holds_is_written(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    sharing_host_start(&host, 64);
    slow_down(&host);
    struct vm *vm = filled_vm(&host, "a", NULL, "pages=3000 content=different");
    assert_int_equal(supervisor_set_target(host.supervisor, vm, 8 * TEST_MIB, &err), 0);
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "a").paged_pages >= PAGES - 2048);
    assert_int_equal(sharing_stats_of(&host).references, 0);
    assert_true(sharing_stats_of(&host).counts.offered_pages >= PAGES - 2048);
    check_and_stop(&host);
}

/* The same content in another domain is not met, and who may not share is not asked to offer. */
static void an_offer_keeps_to_its_domain(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    sharing_host_start(&host, 64);
    sharing_vm(&host, "known", "us", "pages=2000 content=mod:2000");
    sharing_scan(&host, 3); /* hints of each */
    slow_down(&host);
    struct vm *stranger = filled_vm(&host, "a", NULL, "pages=2000 content=mod:2000");
    struct vm *refuser = filled_vm(&host, "b", "us", "pages=2000 content=mod:2000");
    assert_int_equal(supervisor_set_vm_sharing(host.supervisor, refuser, false, &err), 0);
    host_until(&host, SHARING_WAIT_MS, sharing_is_quiet(host.supervisor));
    uint64_t offered = sharing_stats_of(&host).counts.offered_pages;
    assert_int_equal(supervisor_set_target(host.supervisor, refuser, 4 * TEST_MIB, &err), 0);
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "b").paged_pages >= 400);
    assert_int_equal(sharing_stats_of(&host).counts.offered_pages, offered);
    assert_int_equal(supervisor_set_target(host.supervisor, stranger, 4 * TEST_MIB, &err), 0);
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "a").paged_pages >= 400);
    assert_true(sharing_stats_of(&host).counts.offered_pages > offered);
    assert_int_equal(sharing_stats_of(&host).references, 0);
    check_and_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_of_known_content_is_shared_instead_of_written),
        cmocka_unit_test(offered_pages_of_one_content_find_each_other),
        cmocka_unit_test(an_offered_page_of_zeroes_needs_neither_frame_nor_disk),
        cmocka_unit_test(what_nobody_else_holds_is_written),
        cmocka_unit_test(an_offer_keeps_to_its_domain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
