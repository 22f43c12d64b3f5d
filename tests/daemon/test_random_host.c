/*
 * Every invariant after every step of a random schedule: VMs with real guest
 * memory touch, balloon, report and page on a host that cannot hold them all,
 * while they are created, killed, destroyed, paused, resumed and given other
 * settings. Guests know what every page must hold and end with status 11 when it
 * does not: no page is lost and none is seen by another.
 *
 * BALLAST_TEST_SEED and BALLAST_TEST_STEPS choose another or a longer schedule.
 */
#include "tests/daemon/host_steps.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VMS           4
#define MACHINE_MIB   56 /* of 4 x 24 that the VMs would like */
#define VM_MIB        24
#define VM_MIN_MIB    8
#define DEFAULT_STEPS 60

static const char *const names[VMS] = {"a", "b", "c", "d"};

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 0) : otherwise;
}

static struct vm *pick(struct host *host)
{
    return supervisor_find_vm(host->supervisor, names[host_random_below(VMS)]);
}

static void create_missing(struct host *host)
{
    static const char *const appends[] = {"touch=6000 balloon",     "touch=6000",
                                          "touch=3000 balloon",     "touch=1000",
                                          "touch=6000 few balloon", "touch=3000 few"};
    for (int i = 0; i < VMS; i++) {
        struct vm *vm = supervisor_find_vm(host->supervisor, names[i]);
        if (!vm || vm->life == LIFE_STOPPED)
            host_vm(host, names[i], VM_MIB, VM_MIN_MIB, appends[host_random_below(6)]);
    }
}

static void the_invariants_hold_after_every_step(void **state)
{
    (void)state;
    struct host host;
    host_steps_begin(from_environment("BALLAST_TEST_SEED", 20020212), VM_MIB, VM_MIN_MIB);
    uint64_t count = from_environment("BALLAST_TEST_STEPS", DEFAULT_STEPS);
    uint64_t released = 0, swapped = 0;
    host_start(&host, MACHINE_MIB, "touching_worker");
    host_share_eagerly(&host);
    for (uint64_t i = 0; i < count; i++) {
        create_missing(&host);
        struct vm *vm = pick(&host);
        if (vm)
            host_step(&host, vm, true);
        host_run_ms(&host, host_random_below(12));
        host_nobody_saw_a_wrong_page(&host);
        host_check(&host);
        TAILQ_FOREACH(vm, &host.supervisor->vms, entry)
        {
            struct vm_row row;
            supervisor_vm_row(host.supervisor, vm, &row);
            released += row.balloon_pages;
            swapped += row.paged_pages;
            assert_int_equal(row.refused_messages, 0);
        }
    }
    /* The schedule must have been worth the name. */
    struct sharing_stats sharing;
    supervisor_sharing_stats(host.supervisor, &sharing);
    assert_true(released + swapped + sharing.counts.cow_breaks > 0);
    assert_true(sharing.counts.shared_total > 100);
    host_stop(&host);
}

static uint64_t steps_of(struct host *host, const char *name)
{
    struct vm_row row;
    supervisor_vm_row(host->supervisor, supervisor_find_vm(host->supervisor, name), &row);
    return row.instructions;
}

static void a_killed_workers_frames_come_back_while_another_runs(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, MACHINE_MIB, "touching_worker");
    host_vm(&host, "other", VM_MIB, VM_MIN_MIB, "touch=5000 balloon");
    uint64_t before = 0;
    for (int round = 0; round < 12; round++) {
        struct vm *vm = host_vm(&host, "victim", VM_MIB, VM_MIN_MIB, "touch=6000");
        host_run_ms(&host, (unsigned)(round * 7 % 40));
        worker_signal(vm, SIGKILL);
        host_until(&host, 20000, host_state_is(&host, "victim", "stopped"));
        struct vm_row row;
        supervisor_vm_row(host.supervisor, supervisor_find_vm(host.supervisor, "victim"), &row);
        assert_int_equal(row.allocated_pages, 0);
        assert_non_null(strstr(row.exit_text, "signal 9"));
        host_check(&host);
        host_until(&host, 20000, steps_of(&host, "other") > before);
        before = steps_of(&host, "other");
    }
    host_nobody_saw_a_wrong_page(&host);
    host_stop(&host);
}

static void a_host_whose_guests_all_want_more_goes_on(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, MACHINE_MIB, "touching_worker");
    for (int i = 0; i < VMS; i++)
        host_vm(&host, names[i], VM_MIB, VM_MIN_MIB, "touch=6144");
    host_run_ms(&host, 1200);
    for (int i = 0; i < VMS; i++) {
        assert_true(host_state_is(&host, names[i], "running"));
        uint64_t before = steps_of(&host, names[i]);
        host_until(&host, 20000, steps_of(&host, names[i]) > before);
    }
    host_nobody_saw_a_wrong_page(&host);
    host_check(&host);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_invariants_hold_after_every_step),
        cmocka_unit_test(a_killed_workers_frames_come_back_while_another_runs),
        cmocka_unit_test(a_host_whose_guests_all_want_more_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
