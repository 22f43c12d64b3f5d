/*
 * A worker with real guest memory (gmem) whose pages have contents of a known
 * multiplicity, for tests of sharing. Command line:
 *
 *   pages=N      pages that are filled, from page 0 on
 *   content=X    same       all equal
 *                zero       all zeroes
 *                different  each its own, by seed
 *                one-off    equal but for the first
 *                last-byte  equal but for the last byte of the first
 *                mod:G      page number modulo G
 *                file:PATH  the page of that number of a file
 *   seed=N       of "different"
 *   write=N      on SIGUSR1 the first N pages get contents of their own
 *   twins        ... two pages each
 *   rewrite=N    the first N pages are written all the time, each with what it holds
 *   busy         verify and write at random all the time, few contents
 *   few=G        how many contents "busy" writes (8)
 *
 * Wrong content ends it with status 11, the guest's failure.
 */
#include "tests/daemon/worker_memory.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct worker_parts parts;
static struct gmem *gmem;
static uint64_t *expected; /* a page: the number its content is made of */
static volatile sig_atomic_t asked;

#define LAST_BYTE UINT64_C(1) << 63 /* in a content's number: its last byte is another one */

static void on_signal(int signal)
{
    (void)signal;
    asked = 1;
}

static const char *option(const char *name)
{
    const char *at = parts.config.append ? strstr(parts.config.append, name) : NULL;
    return at ? at + strlen(name) : NULL;
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = option(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* 0 is the page of zeroes. */
static void make_content(uint64_t content, uint64_t page[PAGE_BYTES / 8])
{
    uint64_t made = content & ~(LAST_BYTE);
    for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
        page[i] = made * (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    if (content & LAST_BYTE)
        ((uint8_t *)page)[PAGE_BYTES - 1] ^= 1;
}

static uint64_t *pin(ppn_t ppn, bool write)
{
    uint64_t *page = gmem_pin(gmem, RAM_BASE_PA + (uint64_t)ppn * PAGE_BYTES, PAGE_BYTES, write);
    if (!page)
        _exit(WORKER_EXIT_ERROR);
    return page;
}

static void unpin(ppn_t ppn, bool written)
{
    gmem_unpin(gmem, RAM_BASE_PA + (uint64_t)ppn * PAGE_BYTES, written);
}

static void write_page(ppn_t ppn, uint64_t content)
{
    uint64_t *page = pin(ppn, true);
    make_content(content, page);
    expected[ppn] = content;
    unpin(ppn, true);
}

static void verify_page(ppn_t ppn)
{
    uint64_t content[PAGE_BYTES / 8];
    make_content(expected[ppn], content);
    const uint64_t *page = pin(ppn, false);
    if (memcmp(page, content, PAGE_BYTES) != 0) {
        fprintf(stderr, "page %u does not hold content %llx\n", ppn,
                (unsigned long long)expected[ppn]);
        _exit(WORKER_EXIT_FAILED);
    }
    unpin(ppn, false);
}

static uint64_t content_of(ppn_t ppn, const char *kind, uint64_t seed)
{
    if (!strncmp(kind, "zero", 4))
        return 0;
    if (!strncmp(kind, "different", 9))
        return 1000 + seed * UINT64_C(0x100000000) + ppn;
    if (!strncmp(kind, "one-off", 7))
        return ppn == 0 ? 8 : 7;
    if (!strncmp(kind, "last-byte", 9))
        return ppn == 0 ? (LAST_BYTE) | 7 : 7;
    if (!strncmp(kind, "mod:", 4))
        return 100 + ppn % strtoull(kind + 4, NULL, 10);
    return 7;
}

static void fill_from_file(const char *named, uint32_t count)
{
    char path[256];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(named, " "), named);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (ppn_t ppn = 0; fd >= 0 && ppn < count; ppn++) {
        uint64_t *page = pin(ppn, true);
        if (pread(fd, page, PAGE_BYTES, (off_t)ppn * PAGE_BYTES) != (ssize_t)PAGE_BYTES)
            _exit(WORKER_EXIT_ERROR);
        unpin(ppn, true);
    }
    if (fd < 0)
        _exit(WORKER_EXIT_ERROR);
    close(fd);
}

static void work(uint32_t count, uint32_t to_write)
{
    bool busy = option("busy") != NULL;
    bool twins = option("twins") != NULL;
    uint64_t few = number("few=", 8), rewrite = number("rewrite=", 0);
    for (uint64_t steps = 1;; steps++) {
        worker_memory_gate();
        if (asked) {
            asked = 0;
            for (ppn_t ppn = 0; ppn < to_write; ppn++)
                write_page(ppn, UINT64_C(0x1000000) + (twins ? ppn / 2 : ppn));
        }
        for (ppn_t ppn = 0; ppn < rewrite; ppn++)
            write_page(ppn, expected[ppn]);
        if (busy && count) {
            ppn_t ppn = (ppn_t)(worker_random() % count);
            verify_page(ppn);
            if (worker_random() % 8 == 0)
                write_page(ppn, worker_random() % few);
        }
        atomic_store(&gmem_stats(gmem)->instructions, steps);
        if (!busy || steps % 8 == 0)
            nanosleep(&(struct timespec){.tv_nsec = busy ? 20000 : 1000000}, NULL);
    }
}

int main(void)
{
    worker_parts_open(&parts);
    signal(SIGUSR1, on_signal);
    expected = calloc(parts.region->ram_pages, sizeof *expected);
    if (!expected)
        return WORKER_EXIT_ERROR;
    worker_memory_open(&gmem, &parts, NULL);
    const char *kind = option("content=");
    uint32_t count = (uint32_t)number("pages=", 0);
    if (kind && !strncmp(kind, "file:", 5)) {
        fill_from_file(kind + 5, count);
        kind = NULL;
    }
    for (ppn_t ppn = 0; kind && ppn < count; ppn++)
        write_page(ppn, content_of(ppn, kind, number("seed=", 0)));
    gmem_event(gmem, WORKER_READY, 0, "");
    work(count, (uint32_t)number("write=", 0));
}
