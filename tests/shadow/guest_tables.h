/*
 * A guest of a few lines for the tests of shadow-pt: RAM over a small machine
 * memory, all private or as the test wants, and calls that lay out guest page
 * tables as a guest kernel would. Tables are allocated from page TABLES_PPN up.
 */
#ifndef BALLAST_TESTS_GUEST_TABLES_H
#define BALLAST_TESTS_GUEST_TABLES_H

#include "shadow-pt/shadow.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* Works in a cmocka test and in a fuzz target: says what was wrong and aborts. */
#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define G_V   UINT64_C(0x01)
#define G_R   UINT64_C(0x02)
#define G_W   UINT64_C(0x04)
#define G_X   UINT64_C(0x08)
#define G_U   UINT64_C(0x10)
#define G_G   UINT64_C(0x20)
#define G_A   UINT64_C(0x40)
#define G_D   UINT64_C(0x80)
#define G_RWX (G_R | G_W | G_X)
#define G_AD  (G_A | G_D)

struct test_guest {
    struct pmap *pmap;
    struct shadow *shadow;
    _Atomic uint64_t *words;
    struct pmap_counts counts;
    uint8_t *machine;
    uint32_t ram_pages, machine_pages;
    mpn_t *free_frames; /* a stack */
    uint32_t free_count;
    uint8_t *swap;    /* content of paged pages, slot = ppn */
    ppn_t next_table; /* next page of RAM to use for a guest page table */
    unsigned levels;  /* 3: Sv39, 4: Sv48 */
    ppn_t root;
};

#define TABLES_PPN 8u

/* A guest of ram_pages, no page resident, with one shadow and an empty root table. */
void test_guest_open(struct test_guest *g, uint32_t ram_pages, uint32_t machine_pages,
                     unsigned levels);
void test_guest_close(struct test_guest *g);

/* Do what a hart does with NEED_RESIDENT, NEED_WRITABLE. */
void test_guest_make_resident(struct test_guest *g, ppn_t ppn);
void test_guest_make_writable(struct test_guest *g, ppn_t ppn);

/* Take ppn's frame away by event (BALLOON, REPORT, or OUT_DONE for paging it out whole); its
 * mappings are dropped first. Does nothing in a state that has no such transition. */
void test_guest_take_away(struct test_guest *g, ppn_t ppn, enum page_event event);

/* Make ppn shared, by a copy in another frame (count 1), as SHARE would. Resident private only. */
void test_guest_share(struct test_guest *g, ppn_t ppn);

/* A fresh zeroed page for a guest table. */
ppn_t test_guest_new_table(struct test_guest *g);

/* The PTE at level for va under root; makes the tables above it. */
uint64_t *test_guest_pte(struct test_guest *g, ppn_t root, uint64_t va, unsigned level);

/* A PTE's value that names the page of RAM ppn. */
uint64_t test_guest_leaf(ppn_t ppn, uint64_t flags);

/* Map va to ppn by a leaf at level (0: 4 KiB). */
void test_guest_map(struct test_guest *g, uint64_t va, ppn_t ppn, unsigned level, uint64_t flags);

uint64_t test_guest_satp(const struct test_guest *g, ppn_t root, uint16_t asid);

/* shadow_resolve, serving every NEED_* and CODE_PAGE answer as a worker does. */
enum shadow_result test_guest_access(struct test_guest *g, struct shadow *shadow, uint64_t va,
                                     enum shadow_access access, bool sum, bool mxr,
                                     struct shadow_reply *reply);

/* Abort if shadow_check (shadow_check_fenced) finds anything. */
void test_guest_check(struct test_guest *g);
void test_guest_check_fenced(struct test_guest *g);

#endif
