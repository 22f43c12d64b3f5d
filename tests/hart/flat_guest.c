/* See flat_guest.h. */
#include "tests/hart/flat_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static bool make_usable(void *ctx, ppn_t ppn, bool writable)
{
    struct flat_guest *guest = ctx;
    (void)writable;
    if (pmap_state(guest->pmap, ppn) == PAGE_ABSENT)
        pmap_move(guest->pmap, ppn, PAGE_EV_FILL, ppn, 0);
    return true;
}

static bool mmio_load(void *ctx, uint64_t pa, unsigned size, uint64_t *value)
{
    struct flat_guest *guest = ctx;
    (void)size;
    if (pa - FLAT_DEVICE_PA >= 8)
        return false;
    *value = guest->device >> 8 * (pa & 7);
    return true;
}

static bool mmio_store(void *ctx, uint64_t pa, unsigned size, uint64_t value)
{
    struct flat_guest *guest = ctx;
    (void)size;
    if (pa - FLAT_DEVICE_PA >= 8)
        return false;
    guest->device = value;
    return true;
}

static void safe_point(void *ctx)
{
    struct flat_guest *guest = ctx;
    guest->safe_points++;
}

static uint64_t guest_time(void *ctx)
{
    struct flat_guest *guest = ctx;
    return guest->time;
}

static void timer_arm(void *ctx, uint64_t deadline_ticks)
{
    struct flat_guest *guest = ctx;
    guest->timer_deadline = deadline_ticks;
}

struct flat_guest *flat_guest_new(uint32_t pages, bool lazy)
{
    struct flat_guest *guest = calloc(1, sizeof *guest);
    if (!guest)
        return NULL;
    guest->pages = pages;
    guest->words = calloc(pages, sizeof *guest->words);
    guest->ram = mmap(NULL, (size_t)pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    guest->pmap = pmap_new(guest->words, &guest->counts, pages, guest->ram, pages);
    struct hart_env env = {
        .ctx = guest,
        .make_usable = make_usable,
        .mmio_load = mmio_load,
        .mmio_store = mmio_store,
        .safe_point = safe_point,
        .time = guest_time,
        .timer_arm = timer_arm,
    };
    guest->hart = guest->pmap ? hart_new(guest->pmap, &env, 0) : NULL;
    if (!guest->words || guest->ram == MAP_FAILED || !guest->hart) {
        fprintf(stderr, "flat guest of %u pages: out of memory\n", pages);
        abort();
    }
    for (ppn_t ppn = 0; ppn < pages && !lazy; ppn++)
        make_usable(guest, ppn, true);
    return guest;
}

void flat_guest_free(struct flat_guest *guest)
{
    hart_free(guest->hart);
    pmap_free(guest->pmap);
    munmap(guest->ram, (size_t)guest->pages * PAGE_BYTES);
    free(guest->words);
    free(guest);
}

void *flat_guest_at(struct flat_guest *guest, uint64_t pa)
{
    return guest->ram + (pa - RAM_BASE_PA);
}
