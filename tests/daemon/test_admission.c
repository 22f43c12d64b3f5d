/*
 * What may exist on a host: admission by memory and swap, settings that cannot
 * be, settings changed later. A refusal names the numbers and leaves nothing.
 */
#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define READY_MS 20000

static struct vm_settings settings_of(const char *name, uint64_t memory, uint64_t min)
{
    struct vm_settings settings;
    vm_settings_default(&settings);
    settings.name = name;
    settings.memory_bytes = memory;
    settings.min_bytes = min;
    settings.kernel = "/dev/null";
    settings.append = "honest";
    return settings;
}

static void min_and_overhead_must_fit(void **state)
{
    (void)state;
    /* 64 MiB of machine: 58.9 MiB can be promised; overhead is 1 MiB a VM. */
    static const struct {
        unsigned memory_mib, min_mib[4], admitted;
    } cases[] = {
        {32, {16, 16, 16, 16}, 3}, {32, {28, 28, 28, 28}, 2}, {32, {32, 24, 32, 32}, 2},
        {64, {57, 57, 57, 57}, 1}, {64, {58, 58, 58, 58}, 0}, {64, {60, 58, 57, 0}, 1},
        {16, {8, 8, 8, 8}, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct host host;
        struct err err = {0};
        unsigned admitted = 0;
        host_start(&host, 64, "lying_worker");
        for (int n = 0; n < 4; n++) {
            char name[8];
            snprintf(name, sizeof name, "vm%d", n);
            struct vm_settings settings =
                settings_of(name, cases[i].memory_mib * TEST_MIB, cases[i].min_mib[n] * TEST_MIB);
            if (!cases[i].min_mib[n])
                continue;
            if (supervisor_create_vm(host.supervisor, &settings, &err)) {
                admitted++;
                continue;
            }
            assert_non_null(strstr(err.text, "refused: it needs"));
            assert_non_null(strstr(err.text, "min "));
            assert_non_null(strstr(err.text, "overhead 1 MiB"));
            assert_non_null(strstr(err.text, "machine 64 MiB"));
            assert_null(supervisor_find_vm(host.supervisor, name));
        }
        assert_int_equal(admitted, cases[i].admitted);
        host_stop(&host);
    }
}

static void settings_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "lying_worker");
    static const struct {
        const char *name;
        uint64_t memory, min;
        const char *kernel, *says;
    } cases[] = {
        {"", 16 * TEST_MIB, 0, "/k", "VM name"},
        {"../etc", 16 * TEST_MIB, 0, "/k", "VM name"},
        {".hidden", 16 * TEST_MIB, 0, "/k", "VM name"},
        {"a b", 16 * TEST_MIB, 0, "/k", "VM name"},
        {"a-name-that-is-much-longer-than-the-sixty-three-letters-that-fit-it", 16 * TEST_MIB, 0,
         "/k", "VM name"},
        {"v", 8 * TEST_MIB, 0, "/k", "16 MiB to 1 TiB"},
        {"v", 2 * 1024 * 1024 * TEST_MIB, 0, "/k", "16 MiB to 1 TiB"},
        {"v", 17 * TEST_MIB, 0, "/k", "multiple of 2 MiB"},
        {"v", 16 * TEST_MIB, 4097, "/k", "multiple of 4096"},
        {"v", 16 * TEST_MIB, 18 * TEST_MIB, "/k", "above its memory"},
        {"v", 16 * TEST_MIB, 0, NULL, "no kernel"},
        {"v", 16 * TEST_MIB, 0, "/nowhere/Image", "VM v: kernel /nowhere/Image: No such file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vm_settings settings = settings_of(cases[i].name, cases[i].memory, cases[i].min);
        settings.kernel = cases[i].kernel;
        host_vm_refused(&host, &settings, &err);
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
    }
    struct vm_settings settings = settings_of("v", 16 * TEST_MIB, 0);
    settings.disks[0] = (struct vm_disk_settings){.path = "/nowhere/disk"};
    settings.disk_count = 1;
    host_vm_refused(&host, &settings, &err);
    assert_non_null(strstr(err.text, "disk /nowhere/disk: No such file"));
    settings.initrd = "/nowhere/initrd";
    host_vm_refused(&host, &settings, &err);
    assert_non_null(strstr(err.text, "initrd /nowhere/initrd: No such file"));
    host_stop(&host);
}

static void a_name_is_taken_while_its_vm_lives(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 16, 8, "honest");
    struct vm_settings settings = settings_of("v", 16 * TEST_MIB, 0);
    assert_null(supervisor_create_vm(host.supervisor, &settings, &err));
    assert_non_null(strstr(err.text, "exists"));
    host_destroy(&host, "v");
    host_vm(&host, "v", 16, 8, "honest");
    host_until(&host, READY_MS, host_state_is(&host, "v", "running"));
    host_stop(&host);
}

static void swap_that_the_disk_cannot_hold_is_refused(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "lying_worker");
    /* No disk has half a tebibyte less a little for a test: max - min is what is asked for. */
    struct vm_settings settings = settings_of("big", UINT64_C(1) << 40, 16 * TEST_MIB);
    host_vm_refused(&host, &settings, &err);
    assert_non_null(strstr(err.text, "swap file"));
    assert_non_null(strstr(err.text, "is free on that disk"));
    assert_null(supervisor_find_vm(host.supervisor, "big"));
    host_stop(&host);
}

static void swap_is_reserved_in_full_and_goes_with_the_vm(void **state)
{
    (void)state;
    struct host host;
    char path[200];
    struct stat status;
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 16, 4, "honest");
    snprintf(path, sizeof path, "%s/vms/v/swap", host.folder);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 12 * TEST_MIB);
    assert_true(status.st_blocks * 512 >= status.st_size);
    assert_int_equal(status.st_mode & 0777, 0600);
    host_destroy(&host, "v");
    assert_int_not_equal(stat(path, &status), 0);
    host_stop(&host);
}

static void a_vm_without_room_to_page_has_no_swap_file(void **state)
{
    (void)state;
    struct host host;
    char path[200];
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 16, 16, "honest");
    snprintf(path, sizeof path, "%s/vms/v/swap", host.folder);
    assert_int_not_equal(access(path, F_OK), 0);
    host_until(&host, READY_MS, host_state_is(&host, "v", "running"));
    host_stop(&host);
}

static void min_and_max_change_within_what_was_reserved(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "lying_worker");
    struct vm *a = host_vm(&host, "a", 32, 16, "honest");
    struct vm *b = host_vm(&host, "b", 32, 16, "honest");
    struct supervisor *supervisor = host.supervisor;
    uint64_t as_is = ~UINT64_C(0);
    assert_int_equal(supervisor_set_min_max(supervisor, a, 24 * TEST_MIB, as_is, &err), 0);
    /* 24 + 1 + 32 + 1 promised and 58.9 there: one more MiB does not fit. */
    assert_int_equal(supervisor_set_min_max(supervisor, b, 32 * TEST_MIB, as_is, &err), 0);
    assert_int_equal(supervisor_set_min_max(supervisor, a, 26 * TEST_MIB, as_is, &err), -1);
    assert_non_null(strstr(err.text, "refused"));
    assert_int_equal(supervisor_set_min_max(supervisor, a, 8 * TEST_MIB, as_is, &err), -1);
    assert_non_null(strstr(err.text, "swap file"));
    assert_int_equal(supervisor_set_min_max(supervisor, a, 20 * TEST_MIB, 18 * TEST_MIB, &err), -1);
    assert_int_equal(supervisor_set_min_max(supervisor, a, as_is, 33 * TEST_MIB, &err), -1);
    assert_int_equal(supervisor_set_min_max(supervisor, a, 16 * TEST_MIB, 16 * TEST_MIB, &err), 0);
    assert_int_equal(supervisor_set_shares(supervisor, a, 0, &err), -1);
    assert_int_equal(supervisor_set_shares(supervisor, a, 77, &err), 0);
    assert_int_equal(supervisor_set_target(supervisor, a, 33 * TEST_MIB, &err), -1);
    assert_int_equal(supervisor_set_target(supervisor, a, 15 * TEST_MIB, &err), -1);
    assert_non_null(strstr(err.text, "below its min of 16 MiB"));
    assert_int_equal(supervisor_set_target(supervisor, a, 16 * TEST_MIB, &err), 0);
    host_stop(&host);
}

static void a_host_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "lying_worker");
    struct supervisor_config config;
    /* The same folder twice. */
    config = host.config;
    config.worker_path = host.supervisor->worker_path;
    assert_null(supervisor_new(&config, host.event, &err));
    assert_non_null(strstr(err.text, "another Ballast host"));
    static const struct {
        uint64_t machine;
        const char *policy;
        uint32_t period_ms;
        double low;
        const char *worker, *says;
    } cases[] = {
        {15 * TEST_MIB, "static", 1000, 1, NULL, "16 MiB to 1 TiB"},
        {64 * TEST_MIB + 1, "static", 1000, 1, NULL, "multiple of 4096"},
        {64 * TEST_MIB, "magic", 1000, 1, NULL, "no policy is called 'magic'"},
        {64 * TEST_MIB, "static", 1, 1, NULL, "period"},
        {64 * TEST_MIB, "static", 1000, 50, NULL, "low"},
        {64 * TEST_MIB, "static", 1000, 1, "/nowhere/worker", "/nowhere/worker"},
    };
    char folder[100];
    snprintf(folder, sizeof folder, "%s/second", host.folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        supervisor_config_default(&config);
        config.run_dir = folder;
        config.machine_bytes = cases[i].machine;
        config.policy = cases[i].policy;
        config.period_ms = cases[i].period_ms;
        config.settings.thresholds.low = cases[i].low;
        config.worker_path = cases[i].worker ? cases[i].worker : host.supervisor->worker_path;
        err.text[0] = 0;
        assert_null(supervisor_new(&config, host.event, &err));
        if (!strstr(err.text, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.text, cases[i].says);
    }
    supervisor_config_default(&config);
    config.run_dir = folder;
    config.swap_dir = "/dev/null";
    config.machine_bytes = 64 * TEST_MIB;
    config.worker_path = host.supervisor->worker_path;
    assert_null(supervisor_new(&config, host.event, &err));
    assert_non_null(strstr(err.text, "/dev/null: Not a directory"));
    host_stop(&host);
}

/* What has been promised stays promised: settings that would leave less to hand out are refused. */
static void settings_that_break_a_promise_are_refused(void **state)
{
    (void)state;
    struct host host;
    struct host_row row;
    struct err err;
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 48, 46, "honest");
    supervisor_host_row(host.supervisor, &row);
    struct policy_settings settings = row.settings;
    settings.thresholds.high = 39;
    assert_int_equal(supervisor_set_settings(host.supervisor, &settings, &err), -1);
    assert_non_null(strstr(err.text, "are promised to VMs"));
    settings = row.settings;
    settings.slack_percent = 25;
    assert_int_equal(supervisor_set_settings(host.supervisor, &settings, &err), -1);
    /* milder ones are not, nor, after the VM, the same */
    settings.slack_percent = 0;
    assert_int_equal(supervisor_set_settings(host.supervisor, &settings, &err), 0);
    host_destroy(&host, "v");
    settings.thresholds.high = 39;
    assert_int_equal(supervisor_set_settings(host.supervisor, &settings, &err), 0);
    supervisor_host_row(host.supervisor, &row);
    assert_true(row.settings.thresholds.high == 39);
    assert_int_equal(row.threshold_pages[HOST_HIGH], (16384 * 39 + 99) / 100);
    host_stop(&host);
}

static void a_vm_can_be_made_first_and_started_later(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    host_start(&host, 64, "lying_worker");
    struct vm_settings settings = settings_of("later", 32 * TEST_MIB, 16 * TEST_MIB);
    settings.no_start = true;
    assert_non_null(supervisor_create_vm(host.supervisor, &settings, &err));
    assert_true(host_state_is(&host, "later", "paused"));
    struct host_row row;
    supervisor_host_row(host.supervisor, &row);
    assert_int_equal(row.vms, 1);
    assert_int_equal(row.reserved_pages, 17 * 256); /* it is promised what it needs */
    host_check(&host);
    host_resume(&host, "later");
    host_until(&host, READY_MS, host_state_is(&host, "later", "running"));
    host_pause(&host, "later");
    assert_true(host_state_is(&host, "later", "paused"));
    host_check(&host);
    assert_true(host_state_is(&host, "later", "paused"));
    host_resume(&host, "later");
    assert_true(host_state_is(&host, "later", "running"));
    host_stop(&host);
}

static void the_number_of_vms_has_a_limit(void **state)
{
    (void)state;
    struct host host;
    struct err err;
    char name[16];
    host_start(&host, 8192, "lying_worker");
    for (int i = 0; i < MAX_VMS; i++) {
        snprintf(name, sizeof name, "vm%d", i);
        struct vm_settings settings = settings_of(name, 16 * TEST_MIB, 16 * TEST_MIB);
        settings.no_start = i >= 40; /* that many processes are enough for a test */
        if (!supervisor_create_vm(host.supervisor, &settings, &err))
            fail_msg("%s", err.text);
    }
    struct vm_settings settings = settings_of("one-more", 16 * TEST_MIB, 16 * TEST_MIB);
    assert_null(supervisor_create_vm(host.supervisor, &settings, &err));
    assert_non_null(strstr(err.text, "its limit"));
    host_until(&host, READY_MS, host_state_is(&host, "vm39", "running"));
    host_check(&host);
    host_destroy(&host, "vm7");
    assert_non_null(supervisor_create_vm(host.supervisor, &settings, &err));
    host_check(&host);
    host_stop(&host);
}

static void a_console_log_is_bounded(void **state)
{
    (void)state;
    struct host host;
    char path[200];
    struct stat status;
    host_start(&host, 64, "lying_worker");
    host_vm(&host, "v", 16, 8, "honest");
    snprintf(path, sizeof path, "%s/vms/v/serial.log", host.folder);
    assert_int_equal(truncate(path, 17 * TEST_MIB), 0);
    host_until(&host, READY_MS, stat(path, &status) == 0 && status.st_size == 0);
    assert_int_equal(host_events(&host, "v", "console-log"), 1);
    host_stop(&host);
}

static void overhead_is_told_by_source(void **state)
{
    (void)state;
    struct host host;
    host_start(&host, 64, "lying_worker");
    struct vm *vm = host_vm(&host, "v", 16, 8, "honest");
    host_until(&host, READY_MS, host_state_is(&host, "v", "running"));
    host_run_ms(&host, 1100); /* measured anew once a second */
    struct vm_row row;
    supervisor_vm_row(host.supervisor, vm, &row);
    assert_true(row.overhead.daemon_arena_bytes > 4096);
    assert_true(row.overhead.worker_private_bytes > 0);
    assert_true(row.overhead.page_table_bytes > 0);
    assert_true(row.overhead.region_bytes >= 16 * 256 * 8);
    assert_int_equal(row.overhead.total_bytes,
                     row.overhead.daemon_arena_bytes + row.overhead.worker_private_bytes +
                         row.overhead.page_table_bytes + row.overhead.region_bytes);
    assert_true(row.overhead.charged_bytes >= row.overhead.total_bytes);
    assert_true(row.overhead.charged_bytes >= 1 * TEST_MIB);
    host_stop(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(min_and_overhead_must_fit),
        cmocka_unit_test(settings_that_cannot_be_are_refused),
        cmocka_unit_test(a_name_is_taken_while_its_vm_lives),
        cmocka_unit_test(swap_that_the_disk_cannot_hold_is_refused),
        cmocka_unit_test(swap_is_reserved_in_full_and_goes_with_the_vm),
        cmocka_unit_test(a_vm_without_room_to_page_has_no_swap_file),
        cmocka_unit_test(min_and_max_change_within_what_was_reserved),
        cmocka_unit_test(a_host_that_cannot_be_is_refused),
        cmocka_unit_test(settings_that_break_a_promise_are_refused),
        cmocka_unit_test(a_vm_can_be_made_first_and_started_later),
        cmocka_unit_test(the_number_of_vms_has_a_limit),
        cmocka_unit_test(a_console_log_is_bounded),
        cmocka_unit_test(overhead_is_told_by_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
