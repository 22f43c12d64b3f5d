#include "tests/daemon/host_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void on_event(void *ctx, const struct supervisor_event *event)
{
    struct host *host = ctx;
    unsigned at = host->event_count++ % HOST_EVENTS;
    snprintf(host->events[at].vm, sizeof host->events[at].vm, "%s", event->vm ? event->vm : "");
    snprintf(host->events[at].kind, sizeof host->events[at].kind, "%s", event->kind);
    snprintf(host->events[at].text, sizeof host->events[at].text, "%s", event->text);
}

void host_start(struct host *host, unsigned machine_mib, const char *worker)
{
    struct err err;
    memset(host, 0, sizeof *host);
    strcpy(host->folder, "/tmp/ballast-test-XXXXXX");
    assert_non_null(mkdtemp(host->folder));
    char path[4096];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 64);
    assert_true(length > 0);
    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, worker);
    if (access(path, X_OK) < 0)
        snprintf(path, sizeof path, "%s", worker);
    supervisor_config_default(&host->config);
    host->config.machine_bytes = machine_mib * TEST_MIB;
    host->config.run_dir = host->folder;
    host->config.worker_path = path;
    host->config.period_ms = 100;
    host->config.overhead_bytes = 1 * TEST_MIB;
    host->config.random_seed = 1;
    assert_true(sd_event_new(&host->event) >= 0);
    host->supervisor = supervisor_new(&host->config, host->event, &err);
    if (!host->supervisor)
        fail_msg("%s", err.text);
    assert_non_null(supervisor_listen(host->supervisor, on_event, host));
}

static void on_done(void *ctx, int result, const struct err *err)
{
    (void)err;
    *(int *)ctx = result;
}

/* Run until a completion has come; fails with the test's words otherwise. */
static void await(struct host *host, const int *result, const char *what)
{
    uint64_t deadline_ns = clock_monotonic_ns() + UINT64_C(20000000000);
    while (*result > 0 && clock_monotonic_ns() < deadline_ns)
        sd_event_run(host->event, 10000);
    if (*result != 0) {
        host_print_events(host);
        fail_msg("%s: %s", what, *result > 0 ? "no answer" : "refused");
    }
}

void host_stop(struct host *host)
{
    int result = 1;
    assert_int_equal(supervisor_quit(host->supervisor, on_done, &result, NULL), 0);
    await(host, &result, "quit");
    struct machine_counts counts;
    assert_true(machine_memory_recount(host->supervisor->machine, &counts));
    assert_int_equal(counts.free_pages, machine_memory_pages(host->supervisor->machine));
    supervisor_free(host->supervisor);
    sd_event_unref(host->event);
    char command[200];
    snprintf(command, sizeof command, "test -z \"$(find %s -name '*swap*' -o -name '*.sock')\"",
             host->folder);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "rm -rf %s", host->folder);
    assert_int_equal(system(command), 0);
}

struct vm *host_vm(struct host *host, const char *name, unsigned memory_mib, unsigned min_mib,
                   const char *append)
{
    struct err err;
    struct vm_settings settings;
    vm_settings_default(&settings);
    settings.name = name;
    settings.memory_bytes = memory_mib * TEST_MIB;
    settings.min_bytes = min_mib * TEST_MIB;
    settings.kernel = "/dev/null";
    settings.append = append;
    struct vm *vm = supervisor_create_vm(host->supervisor, &settings, &err);
    if (!vm)
        fail_msg("%s", err.text);
    return vm;
}

void host_vm_refused(struct host *host, const struct vm_settings *settings, struct err *err)
{
    err->text[0] = 0;
    assert_null(supervisor_create_vm(host->supervisor, settings, err));
    assert_true(err->text[0] != 0);
    assert_int_equal(machine_memory_counts(host->supervisor->machine).free_pages,
                     machine_memory_pages(host->supervisor->machine));
}

void host_run_ms(struct host *host, unsigned ms)
{
    uint64_t end_ns = clock_monotonic_ns() + ms * UINT64_C(1000000);
    uint64_t now_ns;
    while ((now_ns = clock_monotonic_ns()) < end_ns)
        sd_event_run(host->event, (end_ns - now_ns) / 1000 + 1);
}

bool host_state_is(struct host *host, const char *name, const char *state)
{
    struct vm *vm = supervisor_find_vm(host->supervisor, name);
    return vm && !strcmp(vm_state_name(vm), state);
}

unsigned host_events(const struct host *host, const char *vm, const char *kind)
{
    unsigned found = 0;
    for (unsigned i = 0; i < HOST_EVENTS && i < host->event_count; i++)
        found += !strcmp(host->events[i].vm, vm) && !strcmp(host->events[i].kind, kind);
    return found;
}

bool host_event_says(const struct host *host, const char *kind, const char *part)
{
    for (unsigned i = 0; i < HOST_EVENTS && i < host->event_count; i++)
        if (!strcmp(host->events[i].kind, kind) && strstr(host->events[i].text, part))
            return true;
    return false;
}

void host_print_events(const struct host *host)
{
    for (unsigned i = 0; i < HOST_EVENTS && i < host->event_count; i++)
        fprintf(stderr, "  event %s: %s: %s\n", host->events[i].vm, host->events[i].kind,
                host->events[i].text);
}

struct check_wait {
    struct check_result *result;
    int done;
};

static void on_checked(void *ctx, const struct check_result *result)
{
    struct check_wait *wait = ctx;
    *wait->result = *result;
    wait->done = 0;
}

void host_check_result(struct host *host, struct check_result *result)
{
    struct err err;
    struct check_wait wait = {result, 1};
    if (supervisor_check(host->supervisor, on_checked, &wait, &err) < 0)
        fail_msg("%s", err.text);
    await(host, &wait.done, "check");
}

void host_check(struct host *host)
{
    struct check_result result;
    host_check_result(host, &result);
    if (result.ok)
        return;
    host_print_events(host);
    for (unsigned i = 0; i < result.described; i++)
        fprintf(stderr, "  invariant %d, VM %s: %s\n", result.violation[i].invariant,
                result.violation[i].vm, result.violation[i].text);
    fail_msg("%llu violations", (unsigned long long)result.violations);
}

typedef int vm_call(struct supervisor *supervisor, struct vm *vm, supervisor_done_fn *done,
                    void *ctx, struct err *err);

static void call(struct host *host, const char *name, vm_call *function, const char *what)
{
    struct err err;
    struct vm *vm = supervisor_find_vm(host->supervisor, name);
    assert_non_null(vm);
    int result = 1;
    if (function(host->supervisor, vm, on_done, &result, &err) < 0)
        fail_msg("%s: %s", what, err.text);
    await(host, &result, what);
}

void host_pause(struct host *host, const char *vm)
{
    call(host, vm, supervisor_pause_vm, "pause");
}

void host_resume(struct host *host, const char *vm)
{
    call(host, vm, supervisor_resume_vm, "resume");
}

void host_destroy(struct host *host, const char *vm)
{
    call(host, vm, supervisor_destroy_vm, "destroy");
}
