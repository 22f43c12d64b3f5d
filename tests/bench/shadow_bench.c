/*
 * Micro-benchmarks of shadow-pt: what a shadow fault, a fence and a drop by ppn
 * cost. Bars are those of DESIGN and of shadow.h. Each figure is the best of
 * several rounds, so that a busy host does not show.
 */
#include "shadow-pt/shadow.h"
#include "tests/shadow/guest_tables.h"

#include <time.h>

#define RAM_PAGES 16384u
#define DATA_PPN  512u
#define PAGES     8192u /* twice a table's reach: every access walks */
#define ROUNDS    15u

static struct test_guest guest;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void report(const char *name, double value_ns, double bar_ns)
{
    printf("{\"name\": \"shadow %s\", \"value\": %.1f, \"unit\": \"ns\", \"bar\": %.0f}\n", name,
           value_ns, bar_ns);
}

static uint64_t va_of(unsigned i)
{
    return UINT64_C(0x10000000) + (uint64_t)i * PAGE_BYTES;
}

static void resolve(uint64_t va, enum shadow_access access, bool sum)
{
    struct shadow_reply reply;
    if (shadow_resolve(guest.shadow, va, access, sum, false, &reply) != SHADOW_OK) {
        fprintf(stderr, "shadow_bench: va %#llx does not resolve\n", (unsigned long long)va);
        exit(1);
    }
}

/* Runs body(count) ROUNDS times, after prepare() each time; best time of one, in ns. */
static double best(void (*prepare)(void), void (*body)(unsigned count), unsigned count)
{
    double least = 1e18;
    for (unsigned round = 0; round < ROUNDS; round++) {
        if (prepare)
            prepare();
        uint64_t start = now_ns();
        body(count);
        double each = (double)(now_ns() - start) / count;
        if (each < least)
            least = each;
    }
    return least;
}

static void walk_pages(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        resolve(va_of(i), SHADOW_STORE, false);
}

/* in an order that defeats prefetching */
static void walk_scattered(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        resolve(va_of(i * 2654435761u % PAGES), SHADOW_LOAD, false);
}

static void sum_pages(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        resolve(va_of(i % 512) + 8, SHADOW_LOAD, true);
}

static uint64_t looked_up;

static void look_up(unsigned count)
{
    const struct shadow_view *view = shadow_view(guest.shadow);
    for (unsigned i = 0; i < count; i++)
        looked_up += (uintptr_t)shadow_load_ptr(view, va_of(i % 512), 8);
}

static void fill_table(void)
{
    for (unsigned i = 0; i < SHADOW_ENTRIES; i++)
        resolve(va_of(i), SHADOW_LOAD, false);
}

static void drop_pages(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        shadow_drop_ppn(guest.pmap, DATA_PPN + i);
}

static void fence_pages(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        shadow_fence(guest.shadow, true, va_of(i), true, 1);
}

static void fence_pages_in_all_spaces(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        shadow_fence(guest.shadow, true, va_of(i), false, 0);
}

static void fence_asid(unsigned count)
{
    (void)count; /* entries in the table */
    shadow_fence(guest.shadow, false, 0, true, 1);
}

static void switch_spaces(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, (uint16_t)(i & 3)));
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));
}

static void switch_to_fresh_spaces(unsigned count)
{
    static uint16_t asid = 100;
    for (unsigned i = 0; i < count; i++) {
        shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, asid));
        asid = asid == 0xffff ? 100 : (uint16_t)(asid + 1);
    }
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));
}

int main(void)
{
    test_guest_open(&guest, RAM_PAGES, RAM_PAGES, 3);
    for (unsigned i = 0; i < PAGES; i++) {
        test_guest_map(&guest, va_of(i), DATA_PPN + i, 0, G_V | G_R | G_W);
        test_guest_make_resident(&guest, DATA_PPN + i);
    }
    shadow_set_satp(guest.shadow, test_guest_satp(&guest, guest.root, 1));

    report("look-up in line, hit", best(fill_table, look_up, 100000), 3);
    report("resolve by walk, pages in order", best(NULL, walk_pages, PAGES), 100);
    report("resolve by walk, scattered pages", best(NULL, walk_scattered, 20000), 150);
    report("drop by ppn, one mapping", best(fill_table, drop_pages, SHADOW_ENTRIES), 50);
    report("fence of one page, ASID given", best(fill_table, fence_pages, SHADOW_ENTRIES), 60);
    report("fence of one page, all ASIDs",
           best(fill_table, fence_pages_in_all_spaces, SHADOW_ENTRIES), 150);
    report("fence of an ASID, each entry", best(fill_table, fence_asid, SHADOW_ENTRIES), 20);
    report("satp write, known space", best(NULL, switch_spaces, 10000), 30);
    report("satp write, empty space recycled", best(NULL, switch_to_fresh_spaces, 10000), 100);

    for (unsigned i = 0; i < 512; i++)
        *test_guest_pte(&guest, guest.root, va_of(i), 0) |= G_U;
    shadow_fence(guest.shadow, false, 0, false, 0);
    for (unsigned i = 0; i < 512; i++)
        resolve(va_of(i), SHADOW_LOAD, true);
    report("resolve under SUM, entry there", best(NULL, sum_pages, 100000), 15);

    test_guest_close(&guest);
    return looked_up == 0;
}
