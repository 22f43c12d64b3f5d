/*
 * Admission: may this VM exist? (paper, section 6.2)
 *
 *     sum over VMs of (min + overhead)  <=  what the policy may hand out
 *     max - min of every VM             is reserved on disk (vm_files.c)
 *
 * What the policy may hand out is machine memory less what it keeps free above
 * the state high, so that every VM can be at its min and the host still be at
 * rest. Overhead, memory a VM costs beside its guest's, is charged at the larger
 * of the configured estimate and what has been measured, by source: the VM's
 * arena in the daemon, the worker's anonymous memory and page tables as the
 * kernel counts them, and the shared region. Overhead lives beside machine
 * memory, not in it; charging it here keeps the promise that a machine of so
 * many bytes is paid for in full.
 */
#include "daemon/size_text.h"
#include "daemon/supervisor_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIN_VM_BYTES  (UINT64_C(16) << 20)
#define MAX_VM_BYTES  (UINT64_C(1) << 40)
#define VM_UNIT_BYTES (UINT64_C(2) << 20)

static bool name_is_good(const char *name)
{
    size_t length = name ? strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789._-")
                         : 0;
    return length > 0 && length < VM_NAME_BYTES && !name[length] && name[0] != '.' &&
           name[0] != '-';
}

int admission_check_sizes(const struct supervisor *supervisor, const struct vm_settings *settings,
                          struct err *err)
{
    char a[32], b[32];
    if (!name_is_good(settings->name))
        return err_set(err, 0,
                       "VM name '%.80s': up to %d letters, digits, '.', '_', '-', the first a "
                       "letter or digit",
                       settings->name ? settings->name : "", VM_NAME_BYTES - 1);
    const char *name = settings->name;
    if (settings->memory_bytes < MIN_VM_BYTES || settings->memory_bytes > MAX_VM_BYTES)
        return err_set(err, 0, "VM %s: memory of %s; it must be 16 MiB to 1 TiB", name,
                       size_format(settings->memory_bytes, a));
    if (settings->memory_bytes % VM_UNIT_BYTES)
        return err_set(err, 0, "VM %s: memory of %llu bytes is not a multiple of 2 MiB", name,
                       (unsigned long long)settings->memory_bytes);
    if (settings->min_bytes % PAGE_BYTES)
        return err_set(err, 0, "VM %s: min of %llu bytes is not a multiple of 4096", name,
                       (unsigned long long)settings->min_bytes);
    if (settings->min_bytes > settings->memory_bytes)
        return err_set(err, 0, "VM %s: min of %s is above its memory of %s", name,
                       size_format(settings->min_bytes, a), size_format(settings->memory_bytes, b));
    if (settings->shares > SHARES_MAX)
        return err_set(err, 0, "VM %s: %u shares; at most %u", name, settings->shares, SHARES_MAX);
    if (settings->idle_tax_percent < IDLE_TAX_OF_HOST || settings->idle_tax_percent > 99)
        return err_set(err, 0, "VM %s: idle memory tax of %d %%; it must be 0 to 99", name,
                       settings->idle_tax_percent);
    if (!supervisor->config.run_dir &&
        (!settings->terminal || settings->min_bytes != settings->memory_bytes))
        return err_set(err, 0, "VM %s: a host without a folder has no room for logs and swap",
                       name);
    if (!settings->kernel || !settings->kernel[0])
        return err_set(err, 0, "VM %s: no kernel given", name);
    if (settings->disk_count > VM_MAX_DISKS)
        return err_set(err, 0, "VM %s: %u disks; at most %d", name, settings->disk_count,
                       VM_MAX_DISKS);
    for (unsigned i = 0; i < settings->disk_count; i++)
        if (!settings->disks[i].path || !settings->disks[i].path[0])
            return err_set(err, 0, "VM %s: disk %u has no path", name, i);
    return 0;
}

/* The worker opens them, as the same user; asked here so that the asker hears of a wrong path. */
int admission_check_files(const struct vm_settings *settings, struct err *err)
{
    if (access(settings->kernel, R_OK) < 0)
        return err_set(err, errno, "VM %s: kernel %s", settings->name, settings->kernel);
    if (settings->initrd && settings->initrd[0] && access(settings->initrd, R_OK) < 0)
        return err_set(err, errno, "VM %s: initrd %s", settings->name, settings->initrd);
    for (unsigned i = 0; i < settings->disk_count; i++) {
        const struct vm_disk_settings *disk = &settings->disks[i];
        if (access(disk->path, disk->read_only ? R_OK : R_OK | W_OK) < 0)
            return err_set(err, errno, "VM %s: disk %s", settings->name, disk->path);
    }
    return 0;
}

bool vm_is_charged(const struct vm *vm)
{
    return vm->life != LIFE_STOPPED;
}

static uint64_t pages_of(uint64_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
}

uint64_t admission_reserved_pages(const struct supervisor *supervisor, const struct vm *except)
{
    uint64_t pages = 0;
    const struct vm *vm;
    TAILQ_FOREACH(vm, &supervisor->vms, entry)
    {
        if (vm != except && vm_is_charged(vm))
            pages += vm->min_pages + pages_of(vm->overhead.charged_bytes);
    }
    return pages;
}

int admission_check_memory(const struct supervisor *supervisor, const char *name,
                           uint64_t min_pages, uint64_t overhead_bytes, const struct vm *except,
                           struct err *err)
{
    uint64_t machine = machine_memory_pages(supervisor->machine);
    uint64_t capacity = policy_available_pages(machine, &supervisor->settings);
    uint64_t reserved = admission_reserved_pages(supervisor, except);
    uint64_t needed = min_pages + pages_of(overhead_bytes);
    if (reserved <= capacity && needed <= capacity - reserved)
        return 0;
    uint64_t unreserved = reserved < capacity ? capacity - reserved : 0;
    char text[6][32];
    return err_set(
        err, 0,
        "VM %s is refused: it needs %s (min %s + overhead %s), and %s are unreserved "
        "(machine %s, of which %s can be promised and others hold %s)",
        name, size_format(needed * PAGE_BYTES, text[0]),
        size_format(min_pages * PAGE_BYTES, text[1]), size_format(overhead_bytes, text[2]),
        size_format(unreserved * PAGE_BYTES, text[3]), size_format(machine * PAGE_BYTES, text[4]),
        size_format(capacity * PAGE_BYTES, text[5]),
        size_format(reserved * PAGE_BYTES, (char[32]){0}));
}

/* A promise cannot be taken back; settings that were too much before may be made milder. */
int admission_check_settings(const struct supervisor *supervisor,
                             const struct policy_settings *settings, struct err *err)
{
    uint64_t machine = machine_memory_pages(supervisor->machine);
    uint64_t capacity = policy_available_pages(machine, settings);
    uint64_t reserved = admission_reserved_pages(supervisor, NULL);
    char text[2][32];
    if (reserved <= capacity || capacity >= policy_available_pages(machine, &supervisor->settings))
        return 0;
    return err_set(err, 0,
                   "these settings leave %s to hand out, and %s are promised to VMs (their min and "
                   "overhead)",
                   size_format(capacity * PAGE_BYTES, text[0]),
                   size_format(reserved * PAGE_BYTES, text[1]));
}

/* ---- overhead ---- */

/* "Name:   123 kB" of /proc/PID/status, in bytes. */
static uint64_t status_bytes(const char *status, const char *field)
{
    const char *line = strstr(status, field);
    return line ? strtoull(line + strlen(field), NULL, 10) * 1024 : 0;
}

void overhead_measure(struct vm *vm)
{
    uint64_t now_ns = clock_monotonic_ns();
    struct vm_overhead *overhead = &vm->overhead;
    if (vm->overhead_time_ns && now_ns - vm->overhead_time_ns < OVERHEAD_AGE_NS)
        return;
    vm->overhead_time_ns = now_ns;
    overhead->daemon_arena_bytes = vm_arena_bytes(vm->arena);
    overhead->worker_private_bytes = overhead->page_table_bytes = overhead->region_bytes = 0;
    if (vm_has_worker(vm)) {
        char path[40], status[4096];
        snprintf(path, sizeof path, "/proc/%d/status", (int)vm->pid);
        FILE *file = fopen(path, "re");
        if (file) {
            size_t bytes = fread(status, 1, sizeof status - 1, file);
            status[bytes] = 0;
            fclose(file);
            overhead->worker_private_bytes = status_bytes(status, "\nRssAnon:");
            overhead->page_table_bytes = status_bytes(status, "\nVmPTE:");
        }
        overhead->region_bytes = vm->region_bytes;
    }
    overhead->total_bytes = overhead->daemon_arena_bytes + overhead->worker_private_bytes +
                            overhead->page_table_bytes + overhead->region_bytes;
    uint64_t estimate = vm->supervisor->config.overhead_bytes;
    overhead->charged_bytes = overhead->total_bytes > estimate ? overhead->total_bytes : estimate;
}
