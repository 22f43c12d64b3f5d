/*
 * A worker with real guest memory (vmm-core's gmem: pool, pager, swap, pins,
 * balloon verbs) and, instead of a machine, one thread that uses it at random
 * and remembers what every page must hold. Wrong content ends it with status 11.
 *
 * Command line: "touch=PAGES" is the working set; "balloon" plays a driver that
 * follows its target, "balloon-stuck" one that gives nothing, "balloon-boasts" one
 * that gives nothing and says that it did; "few" writes few different contents, so that many pages
 * are equal; "full-disk" lets every write to the swap file find the disk full until some seconds
 * have passed.
 */
#include "tests/daemon/worker_memory.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BALLOON_BATCH 32
#define FULL_DISK_S   2
#define WORK_PAUSE_NS 20000 /* between two steps: the host has two cores */
#define STEP_NS       20000 /* what the supervisor is told that a step takes */

static struct worker_parts parts;
static struct gmem *gmem;
static uint64_t *expected;            /* a page: the stamp it begins with, 0 = zeroes */
static uint8_t *ballooned, *reported; /* a reported page may have lost its content, or not */
static uint32_t pages, working_pages, balloon_pages;
static _Atomic uint64_t balloon_target_pages;
static bool few, stuck, boasts;

static uint64_t address(ppn_t ppn)
{
    return RAM_BASE_PA + (uint64_t)ppn * PAGE_BYTES;
}

/* ---- what the guest does ---- */

static void set_balloon(void *ctx, uint64_t target_pages)
{
    (void)ctx;
    atomic_store(&balloon_target_pages, target_pages);
    atomic_store(&gmem_stats(gmem)->balloon_target_pages, target_pages);
}

static void wrong(ppn_t ppn, uint64_t found)
{
    char text[120];
    snprintf(text, sizeof text, "page %u holds %llx, not %llx", ppn, (unsigned long long)found,
             (unsigned long long)expected[ppn]);
    fprintf(stderr, "%s\n", text);
    _exit(WORKER_EXIT_FAILED);
}

static void touch(ppn_t ppn, bool write)
{
    uint64_t *page = gmem_pin(gmem, address(ppn), PAGE_BYTES, write);
    if (!page)
        _exit(WORKER_EXIT_ERROR);
    if (ballooned[ppn]) { /* popped: a fresh page */
        ballooned[ppn] = 0;
        balloon_pages--;
        expected[ppn] = 0;
    }
    if (reported[ppn] && page[0] == 0)
        expected[ppn] = 0;
    reported[ppn] = 0;
    if (page[0] != expected[ppn] || page[PAGE_BYTES / 8 - 1] != expected[ppn])
        wrong(ppn, page[0] != expected[ppn] ? page[0] : page[PAGE_BYTES / 8 - 1]);
    if (write)
        expected[ppn] = page[0] = page[PAGE_BYTES / 8 - 1] =
            few ? 1 + worker_random() % 3 : worker_random() | 1;
    gmem_unpin(gmem, address(ppn), write);
}

static void follow_balloon(void)
{
    uint64_t target = atomic_load(&balloon_target_pages);
    if (boasts)
        atomic_store(&gmem_stats(gmem)->balloon_actual_pages, target);
    if (boasts || stuck)
        return;
    for (int i = 0; i < BALLOON_BATCH && balloon_pages != target; i++) {
        ppn_t ppn = (ppn_t)(worker_random() % pages);
        if (balloon_pages < target && !ballooned[ppn] && gmem_balloon(gmem, ppn)) {
            ballooned[ppn] = 1;
            balloon_pages++;
            expected[ppn] = 0;
            reported[ppn] = 0;
        } else if (balloon_pages > target && ballooned[ppn] && gmem_deflate(gmem, ppn)) {
            ballooned[ppn] = 0;
            balloon_pages--;
        }
    }
    atomic_store(&gmem_stats(gmem)->balloon_actual_pages, balloon_pages);
}

static void report_some(void)
{
    ppn_t ppn = (ppn_t)(worker_random() % pages);
    uint32_t count = (uint32_t)(worker_random() % 8) + 1;
    if (ppn + count > pages)
        count = pages - ppn;
    for (uint32_t i = 0; i < count; i++)
        if (ballooned[ppn + i])
            return;
    if (gmem_report_free(gmem, ppn, count))
        memset(&reported[ppn], 1, count);
}

/* /dev/full takes the place of the swap file for a while; a thread, since the guest will wait. */
static void *fill_disk(void *ctx)
{
    (void)ctx;
    int swap_fd = dup(WORKER_FD_SWAP);
    dup2(open("/dev/full", O_RDWR), WORKER_FD_SWAP);
    nanosleep(&(struct timespec){.tv_sec = FULL_DISK_S}, NULL);
    dup2(swap_fd, WORKER_FD_SWAP);
    return NULL;
}

static void step(bool balloon)
{
    uint64_t choice = worker_random() % 64;
    ppn_t ppn = (ppn_t)(worker_random() % working_pages);
    if (choice == 0)
        report_some();
    else if (balloon && choice < 4)
        follow_balloon();
    else if (!ballooned[ppn] || choice == 5)
        touch(ppn, choice & 1);
}

int main(void)
{
    worker_parts_open(&parts);
    pages = parts.region->ram_pages;
    const char *append = parts.config.append ? parts.config.append : "";
    const char *touch_pages = strstr(append, "touch=");
    bool balloon = strstr(append, "balloon") != NULL;
    few = strstr(append, "few") != NULL;
    stuck = strstr(append, "balloon-stuck") != NULL;
    boasts = strstr(append, "balloon-boasts") != NULL;
    working_pages = touch_pages ? (uint32_t)atoi(touch_pages + 6) : pages;
    expected = calloc(pages, sizeof *expected);
    ballooned = calloc(pages, 1);
    reported = calloc(pages, 1);
    worker_memory_open(&gmem, &parts, set_balloon);
    atomic_store(&gmem_stats(gmem)->balloon_driver, balloon);
    gmem_event(gmem, WORKER_READY, 0, "");
    pthread_t disk;
    if (strstr(append, "full-disk") && pthread_create(&disk, NULL, fill_disk, NULL) != 0)
        return WORKER_EXIT_ERROR;
    for (uint64_t steps = 0;; steps++) {
        worker_memory_gate();
        step(balloon);
        atomic_store(&gmem_stats(gmem)->instructions, steps);
        atomic_store(&gmem_stats(gmem)->vcpu_run_ns, steps * STEP_NS);
        if (steps % 8 == 0)
            nanosleep(&(struct timespec){.tv_nsec = WORK_PAUSE_NS}, NULL);
    }
}
