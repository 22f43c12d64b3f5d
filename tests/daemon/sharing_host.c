#include "tests/daemon/sharing_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

void sharing_host_start(struct host *host, unsigned machine_mib)
{
    struct err err;
    host_start(host, machine_mib, "sharing_worker");
    struct sharing_settings settings = host->config.sharing;
    settings.cpu_percent = 100;
    settings.max_pages_per_second = settings.min_pages_per_second = 1000000;
    settings.pass_ms = 20;
    settings.settled_only = false;
    if (supervisor_set_sharing(host->supervisor, &settings, &err) < 0)
        fail_msg("%s", err.text);
}

struct vm *sharing_vm(struct host *host, const char *name, const char *domain, const char *append)
{
    struct err err;
    struct vm *vm = host_vm(host, name, 16, 4, append);
    if (domain && supervisor_set_sharing_domain(host->supervisor, vm, domain, &err) < 0)
        fail_msg("%s", err.text);
    return vm;
}

struct vm_row sharing_row(struct host *host, const char *name)
{
    struct vm_row row;
    supervisor_vm_row(host->supervisor, supervisor_find_vm(host->supervisor, name), &row);
    return row;
}

struct sharing_stats sharing_stats_of(struct host *host)
{
    struct sharing_stats stats;
    supervisor_sharing_stats(host->supervisor, &stats);
    return stats;
}

static uint64_t passes_of(struct host *host, const char *name)
{
    struct sharing_vm_counts counts;
    supervisor_sharing_vm_counts(host->supervisor, supervisor_find_vm(host->supervisor, name),
                                 &counts);
    return counts.passes;
}

void sharing_scan(struct host *host, uint64_t passes)
{
    uint64_t until[MAX_VMS + 1] = {0};
    struct vm *vm;
    TAILQ_FOREACH(vm, &host->supervisor->vms, entry)
    {
        host_until(host, SHARING_WAIT_MS, vm->life == LIFE_RUNNING);
        until[vm->number] = passes_of(host, vm->settings.name) + passes;
    }
    TAILQ_FOREACH(vm, &host->supervisor->vms, entry)
    host_until(host, SHARING_WAIT_MS, passes_of(host, vm->settings.name) >= until[vm->number]);
    host_until(host, SHARING_WAIT_MS, sharing_is_quiet(host->supervisor));
}
