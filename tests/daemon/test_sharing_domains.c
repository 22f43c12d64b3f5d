/*
 * Domains that change at run time, with guests that write all the while: what no longer may share
 * is unshared, nobody is left in a frame with a stranger, and counts stay exact; and a frame with
 * more sharers than its count field holds.
 */
#include "tests/daemon/sharing_host.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"a", "b", "c"};
#define VMS 3u

static void move(struct host *host, const char *name, const char *domain)
{
    struct err err;
    if (supervisor_set_sharing_domain(host->supervisor, supervisor_find_vm(host->supervisor, name),
                                      domain, &err) < 0)
        fail_msg("%s", err.text);
}

/* Whom a VM may share with, as text: those of its domain, or itself. */
static const char *circle(struct host *host, const char *name)
{
    struct vm *vm = supervisor_find_vm(host->supervisor, name);
    static struct vm_row row;
    supervisor_vm_row(host->supervisor, vm, &row);
    return row.valid & VM_ROW_DOMAIN ? row.sharing_domain : vm->settings.name;
}

/* Frames whose sharers are not all of one domain. */
static unsigned mixed_frames(struct host *host)
{
    struct sharing_reference rows[64];
    struct sharing_frame frame;
    unsigned mixed = 0;
    for (uint64_t mpn = 0; mpn < machine_memory_pages(host->supervisor->machine); mpn++) {
        char first[VM_NAME_BYTES] = "";
        int found = supervisor_sharing_frame(host->supervisor, mpn, &frame, rows, 64);
        bool strangers = false;
        for (int i = 0; i < found; i++) {
            const char *own = circle(host, rows[i].vm);
            if (!first[0])
                snprintf(first, sizeof first, "%s", own);
            strangers |= strcmp(first, own) != 0;
        }
        mixed += strangers;
    }
    return mixed;
}

static void nobody_stays_with_strangers(void **state)
{
    (void)state;
    /* who moves, and where to (NULL: alone) */
    static const struct {
        const char *name, *domain;
    } moves[] = {{"a", "x"}, {"b", "x"}, {"c", "x"}, {"a", "y"}, {"c", NULL},
                 {"b", "y"}, {"a", "x"}, {"c", "x"}, {"b", NULL}};
    struct host host;
    sharing_host_start(&host, 64);
    for (unsigned i = 0; i < VMS; i++)
        sharing_vm(&host, names[i], NULL, "pages=300 content=mod:40 busy few=20");
    sharing_scan(&host, 2);
    for (size_t i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        move(&host, moves[i].name, moves[i].domain);
        host_until(&host, SHARING_WAIT_MS, mixed_frames(&host) == 0);
        sharing_scan(&host, 2);
        assert_int_equal(mixed_frames(&host), 0);
        for (unsigned vm = 0; vm < VMS; vm++) /* a guest that saw a wrong byte has ended */
            assert_true(host_state_is(&host, names[vm], "running"));
        host_check(&host);
    }
    assert_true(sharing_stats_of(&host).counts.copies > 0);
    assert_true(sharing_stats_of(&host).references > 0);
    host_stop(&host);
}

/* Between two of them all is shared; a third of another domain with the same pages shares nothing
 * with them, and what is undone is no copy-on-write break. */
static void what_is_undone_is_no_break(void **state)
{
    (void)state;
    struct host host;
    struct sharing_pair pairs[4];
    struct sharing_vm_counts counts;
    sharing_host_start(&host, 64);
    sharing_vm(&host, "a", "x", "pages=300 content=mod:300");
    sharing_vm(&host, "b", "x", "pages=300 content=mod:300");
    sharing_vm(&host, "c", "y", "pages=300 content=mod:300");
    host_until(&host, SHARING_WAIT_MS, sharing_stats_of(&host).references == 600);
    sharing_scan(&host, 2);
    move(&host, "a", "y");
    host_until(&host, SHARING_WAIT_MS,
               sharing_row(&host, "c").shared_references == 300 &&
                   sharing_row(&host, "a").shared_references == 300 &&
                   /* its frames stay, for others to join, and save nothing */
                   sharing_row(&host, "b").shared_references == 300);
    host_until(&host, SHARING_WAIT_MS, sharing_is_quiet(host.supervisor));
    sharing_scan(&host, 1);
    assert_int_equal(sharing_stats_of(&host).saved_pages, 300);
    assert_int_equal(supervisor_sharing_pairs(host.supervisor, pairs, 4), 1);
    assert_string_equal(pairs[0].a, "a");
    assert_string_equal(pairs[0].b, "c");
    assert_int_equal(pairs[0].frames, 300);
    assert_true(pairs[0].saved_pages == 300);
    assert_int_equal(sharing_stats_of(&host).counts.cow_breaks, 0);
    assert_int_equal(sharing_stats_of(&host).breaks, 0);
    supervisor_sharing_vm_counts(host.supervisor, supervisor_find_vm(host.supervisor, "a"),
                                 &counts);
    assert_true(counts.dropped >= 300);
    host_check(&host);
    host_stop(&host);
}

static void more_sharers_than_the_count_field_holds(void **state)
{
    (void)state;
    const unsigned pages = 66000, stores = 600;
    struct host host;
    char append[80];
    sharing_host_start(&host, 288);
    snprintf(append, sizeof append, "pages=%u content=same write=%u", pages, stores);
    struct vm *vm = host_vm(&host, "a", 264, 4, append);
    host_until(&host, 4 * SHARING_WAIT_MS, sharing_stats_of(&host).references == pages);
    sharing_scan(&host, 1);
    struct sharing_stats stats = sharing_stats_of(&host);
    assert_int_equal(stats.shared_frames, 1);
    assert_int_equal(stats.saved_pages, pages - 1);
    assert_int_equal(sharing_row(&host, "a").shared_pages, pages);
    host_check(&host);
    worker_signal(vm, SIGUSR1); /* and back below what the field holds */
    host_until(&host, SHARING_WAIT_MS, sharing_row(&host, "a").cow_breaks == stores);
    stats = sharing_stats_of(&host);
    assert_int_equal(stats.references, pages - stores);
    assert_int_equal(stats.saved_pages, pages - stores - 1);
    host_check(&host);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_stays_with_strangers),
        cmocka_unit_test(what_is_undone_is_no_break),
        cmocka_unit_test(more_sharers_than_the_count_field_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
