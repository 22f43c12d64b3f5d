/*
 * gmem's life: making it over a region, starting and stopping its threads, and
 * the few steps every other file of this folder uses.
 */
#include "vmm-core/mem/gmem_internal.h"

#include "vmm-core/hart.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define STOP_FLUSH_TRIES 1000 /* of ROOM_RETRY_MS: how long the last messages wait for room */

void mem_broken(const char *format, ...)
{
    va_list ap;

    fputs("ballast-worker: guest memory: broken invariant: ", stderr);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
    abort();
}

uint64_t mem_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint8_t *mem_frame(struct gmem *gmem, mpn_t mpn)
{
    return gmem->config.machine + ((uint64_t)mpn << PAGE_SHIFT);
}

void mem_wake_pager(struct gmem *gmem)
{
    if (gmem->pager_woken)
        return;
    gmem->pager_woken = true;
    if (eventfd_write(gmem->wake_fd, 1) < 0)
        mem_broken("cannot wake the pager (errno %d)", errno);
}

bool mem_wait(struct gmem *gmem, int caller, int timeout_ms)
{
    if (gmem->stopping)
        return false;
    if (gmem->pausing && gmem->config.park) {
        bool was_inside = memlock_park(gmem->lock, caller);
        gmem->config.park(gmem->config.ctx);
        memlock_unpark(gmem->lock, caller, was_inside);
    } else {
        memlock_wait(gmem->lock, caller, timeout_ms);
    }
    return !gmem->stopping;
}

void mem_drop_code(struct gmem *gmem, ppn_t ppn)
{
    if (!shadow_is_code(gmem->pmap, ppn))
        return;
    for (int hart = 0; hart < MEMLOCK_MAX_HARTS; hart++)
        if (gmem->harts[hart])
            hart_drop_code(gmem->harts[hart], ppn);
    if (shadow_is_code(gmem->pmap, ppn))
        shadow_code_dropped(gmem->pmap, ppn);
}

static int check_config(const struct gmem_config *config, struct err *err)
{
    const struct vm_region *region = config->region;

    if (region->magic != VM_REGION_MAGIC || region->layout_version != VM_REGION_LAYOUT)
        return err_set(err, 0, "shared region: not a VM region of layout %d", VM_REGION_LAYOUT);
    if (region->ram_pages == 0 || region->ram_pages > MAX_VM_PAGES || region->machine_pages == 0 ||
        region->machine_pages > MAX_VM_PAGES ||
        region->region_bytes != vm_region_bytes(region->ram_pages))
        return err_set(err, 0, "shared region: impossible sizes (ram %u pages, machine %u pages)",
                       region->ram_pages, region->machine_pages);
    if (config->swap_slots > MAX_VM_PAGES)
        return err_set(err, 0, "swap file of %u pages is too large", config->swap_slots);
    return 0;
}

static int allocate(struct gmem *gmem, struct err *err)
{
    const struct gmem_config *config = &gmem->config;

    gmem->lock = memlock_new();
    gmem->pmap = pmap_new(vm_region_pmap(gmem->region), &gmem->stats->pages, gmem->ram_pages,
                          config->machine, gmem->machine_pages);
    gmem->held = calloc((gmem->machine_pages + 7) / 8, 1);
    gmem->pins = calloc(gmem->ram_pages, sizeof(*gmem->pins));
    gmem->warm = calloc((gmem->ram_pages + 63) / 64, sizeof(*gmem->warm));
    if (config->swap_fd >= 0 && config->swap_slots > 0)
        gmem->slots = swap_slots_new(config->swap_slots);
    if (!gmem->lock || !gmem->pmap || !gmem->held || !gmem->pins || !gmem->warm ||
        (config->swap_fd >= 0 && config->swap_slots > 0 && !gmem->slots))
        return err_set(err, ENOMEM, "guest memory of %u pages", gmem->ram_pages);
    gmem->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (gmem->wake_fd < 0)
        return err_set(err, errno, "eventfd for the pager");
    gmem->status_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (gmem->status_fd < 0)
        return err_set(err, errno, "/proc/self/status");
    return lifecycle_init(gmem, err);
}

struct gmem *gmem_new(const struct gmem_config *config, struct err *err)
{
    struct gmem *gmem;

    if (check_config(config, err) < 0)
        return NULL;
    gmem = calloc(1, sizeof(*gmem));
    if (!gmem) {
        err_set(err, ENOMEM, "guest memory");
        return NULL;
    }
    gmem->config = *config;
    gmem->region = config->region;
    gmem->incoming = vm_region_to_worker(config->region);
    gmem->outgoing = vm_region_to_supervisor(config->region);
    gmem->stats = &config->region->stats;
    gmem->ram_pages = config->region->ram_pages;
    gmem->machine_pages = config->region->machine_pages;
    gmem->random_state = config->random_seed;
    gmem->write_trouble.what = "writing";
    gmem->read_trouble.what = "reading";
    gmem->wake_fd = gmem->status_fd = -1;
    atomic_store_explicit(&gmem->stats->overhead_region_bytes, config->region->region_bytes,
                          memory_order_relaxed);
    if (allocate(gmem, err) < 0) {
        gmem_free(gmem);
        return NULL;
    }
    return gmem;
}

int gmem_start(struct gmem *gmem, struct err *err)
{
    sigset_t all, before;
    int error;

    /* Signals are the main thread's; SIGXFSZ blocked turns a file size limit into EFBIG. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&gmem->life.thread, NULL, lifecycle_main, gmem);
    if (error == 0) {
        error = pthread_create(&gmem->pager, NULL, pager_main, gmem);
        if (error) {
            lifecycle_stop(gmem);
            pthread_join(gmem->life.thread, NULL);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return err_set(err, error, "start the pager");
    gmem->started = true;
    return 0;
}

void gmem_end_waits(struct gmem *gmem)
{
    int caller = memlock_self(gmem->lock);

    memlock_lock(gmem->lock, caller);
    gmem->stopping = true;
    memlock_wake_all(gmem->lock);
    mem_wake_pager(gmem);
    memlock_unlock(gmem->lock, caller);
}

void gmem_stop(struct gmem *gmem)
{
    int caller = memlock_self(gmem->lock);

    if (!gmem->started)
        return;
    gmem_end_waits(gmem);
    lifecycle_stop(gmem);
    pthread_join(gmem->life.thread, NULL);
    pthread_join(gmem->pager, NULL);
    gmem->started = false;

    memlock_lock(gmem->lock, caller);
    for (int tries = 0; tries < STOP_FLUSH_TRIES && !outbox_flush(gmem); tries++)
        memlock_wait(gmem->lock, caller, ROOM_RETRY_MS);
    memlock_unlock(gmem->lock, caller);
}

void gmem_free(struct gmem *gmem)
{
    if (!gmem)
        return;
    gmem_stop(gmem);
    lifecycle_destroy(gmem);
    if (gmem->status_fd >= 0)
        close(gmem->status_fd);
    if (gmem->wake_fd >= 0)
        close(gmem->wake_fd);
    swap_slots_free(gmem->slots);
    free(gmem->pins);
    free(gmem->warm);
    free(gmem->held);
    pmap_free(gmem->pmap);
    memlock_free(gmem->lock);
    free(gmem);
}

struct pmap *gmem_pmap(struct gmem *gmem)
{
    return gmem->pmap;
}

struct memlock *gmem_lock(struct gmem *gmem)
{
    return gmem->lock;
}

struct vm_stats *gmem_stats(struct gmem *gmem)
{
    return gmem->stats;
}

void gmem_add_hart(struct gmem *gmem, struct hart *hart, int hart_id)
{
    memlock_add_hart(gmem->lock, hart_id, hart_attention(hart));
    memlock_lock(gmem->lock, MEMLOCK_NOT_A_HART);
    gmem->harts[hart_id] = hart;
    memlock_unlock(gmem->lock, MEMLOCK_NOT_A_HART);
}

void gmem_event(struct gmem *gmem, enum worker_event event, uint32_t value2, const char *text)
{
    int caller = memlock_self(gmem->lock);

    memlock_lock(gmem->lock, caller);
    outbox_event(gmem, event, value2, text);
    memlock_unlock(gmem->lock, caller);
}
