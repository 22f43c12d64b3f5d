/*
 * An engine whose hashes have four bits (SHARE_HASH_BITS): nearly every page
 * meets pages of other content. The compare catches each of them, they are counted
 * as false matches, and no guest ever sees another's bytes.
 */
#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void start(struct host *host)
{
    struct err err;
    host_start(host, 64, "sharing_worker");
    struct sharing_settings settings = host->config.sharing;
    settings.cpu_percent = 100;
    settings.max_pages_per_second = settings.min_pages_per_second = 1000000;
    settings.pass_ms = 20;
    if (supervisor_set_sharing(host->supervisor, &settings, &err) < 0)
        fail_msg("%s", err.text);
}

static struct sharing_stats stats_of(struct host *host)
{
    struct sharing_stats stats;
    supervisor_sharing_stats(host->supervisor, &stats);
    return stats;
}

static void different_pages_are_never_shared(void **state)
{
    (void)state;
    struct host host;
    struct sharing_vm_counts counts;
    start(&host);
    struct vm *vm = host_vm(&host, "a", 16, 4, "pages=300 content=different");
    host_until(&host, 20000, stats_of(&host).counts.false_matches >= 200);
    do {
        sd_event_run(host.event, 2000);
        supervisor_sharing_vm_counts(host.supervisor, vm, &counts);
    } while (counts.passes < 10);
    host_until(&host, 20000, stats_of(&host).references == 0);
    assert_int_equal(stats_of(&host).counts.shared_total, 0);
    host_check(&host);
    host_stop(&host);
}

static void guests_see_only_what_they_wrote(void **state)
{
    (void)state;
    struct host host;
    start(&host);
    host_vm(&host, "a", 16, 4, "pages=300 content=mod:40 busy few=20");
    host_vm(&host, "b", 16, 4, "pages=300 content=mod:40 busy few=20");
    host_until(&host, 20000, stats_of(&host).counts.false_matches >= 500);
    for (int i = 0; i < 10; i++) {
        host_run_ms(&host, 30);
        assert_true(host_state_is(&host, "a", "running"));
        assert_true(host_state_is(&host, "b", "running"));
        host_check(&host);
    }
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(different_pages_are_never_shared),
        cmocka_unit_test(guests_see_only_what_they_wrote),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
