// Translation by Sv48. Sections are the privileged manual's (20211203).
#include "guest_test.h"
    .text

#define VA 0x10000000
#define HIGH 0x7f8010000000        /* the last but a few of the lower half */
#define NEGATIVE -0x800000000000   /* the first of the upper half */
#define READ_WRITE (V | R | W | A | D)

// Sv48 tests walk one level more.
#define LEVELS_4 la t0, root_level; li t1, 3; sw t1, (t0)

TEST("4.5: four levels; addresses of both halves translate")
    LEVELS_4
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    MAP(HIGH, PTE(PAGE_PA(1), READ_WRITE), 0)
    MAP(NEGATIVE, PTE(PAGE_PA(2), READ_WRITE), 0)
    PAGING(SATP_SV48)
    li a1, 1
    li a0, VA
    sd a1, (a0)
    li a1, 2
    li a0, HIGH
    sd a1, (a0)
    li a1, 3
    li a0, NEGATIVE
    sd a1, (a0)
    li a0, PAGE_PA(0)
    ld a1, (a0)
    CHECK(a1, 1)
    li a0, PAGE_PA(1)
    ld a1, (a0)
    CHECK(a1, 2)
    li a0, PAGE_PA(2)
    ld a1, (a0)
    CHECK(a1, 3)
    PASS

TEST("4.5.1: bits 63 to 48 of an address must equal bit 47")
    LEVELS_4
    PAGING(SATP_SV48)
    li a0, 0x800000000000
    TRAPS(13, 0x800000000000, ld a1, (a0))
    li a0, 0x1000080000000
    TRAPS(13, 0x1000080000000, ld a1, (a0))
    TRAPS(15, 0x1000080000000, sd a1, (a0))
    la s1, 1f
    jr a0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    CHECK(s4, 0x1000080000000)
    PASS

TEST("4.5: 2 MiB and 1 GiB pages; 512 GiB pages must be aligned")
    LEVELS_4
    MAP(0x40000000, PTE(0x80000000, READ_WRITE), 1)
    MAP(0x140000000, PTE(0x80000000, READ_WRITE), 2)
    MAP(0x8000000000, PTE(0x80000000, READ_WRITE), 3)
    PAGING(SATP_SV48)
    li a0, 0x40000000 + 0x121238
    li a1, 99
    sd a1, (a0)
    li a0, 0x140000000 + 0x121238
    ld a2, (a0)
    CHECK(a2, 99)
    li a0, 0x8000000000
    TRAPS(13, 0x8000000000, ld a1, (a0))
    PASS

TEST("4.5: a 512 GiB page at physical 0 reaches RAM")
    LEVELS_4
    MAP(0x8000000000, PTE(0, READ_WRITE), 3)
    PAGING(SATP_SV48)
    li a0, 0x8080120010
    li a1, 99
    sd a1, (a0)
    li a0, 0x80120010
    ld a2, (a0)
    CHECK(a2, 99)
    PASS

TEST("4.5, 4.3.1: SUM and U hold as in Sv39, and A and D are set")
    LEVELS_4
    MAP(VA, PTE(PAGE_PA(0), V | R | W | U), 0)
    PAGING(SATP_SV48)
    li a0, VA
    TRAPS(13, VA, ld a1, (a0))
    li t0, SSTATUS_SUM
    csrs sstatus, t0
    sd a0, (a0)
    li a1, 0x80103000           // root, then levels 2, 1, 0 in the order they were made
    ld a1, (a1)
    CHECK(a1, PTE(PAGE_PA(0), V | R | W | U | A | D))
    PASS
