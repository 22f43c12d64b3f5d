// Translation by Sv39 and what both Sv39 and Sv48 share. Sections are the privileged manual's
// (20211203).
#include "guest_test.h"
    .text

#define VA  0x10000000
#define VA2 0x10001000
#define READ_WRITE (V | R | W | A | D)
#define PUT_CODE(pa, function) /* eight bytes: a0, t0, t1 */ \
    li a0, pa; la t0, function; ld t1, (t0); sd t1, (a0)

TEST("4.3.2: loads and stores go to the page that the leaf names")
    MAP(VA, PTE(PAGE_PA(1), READ_WRITE), 0)
    MAP(VA2, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA
    li a1, 0x1234
    sd a1, 8(a0)
    li a0, PAGE_PA(1)
    ld a2, 8(a0)
    CHECK(a2, 0x1234)
    li a0, VA2
    ld a2, 8(a0)
    CHECK(a2, 0)
    PASS

TEST("4.3.2 step 3: V = 0, and W without R, are page faults of the access's own kind")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE & ~V), 0)
    MAP(VA2, PTE(PAGE_PA(0), V | W | A | D), 0)
    MAP(0x10002000, PTE(PAGE_PA(0), V | W | X | A | D), 0)
    PAGING(SATP_SV39)
    li a0, VA
    TRAPS(13, VA, ld a1, (a0))
    TRAPS(15, VA, sd a1, (a0))
    TRAPS(15, VA, amoadd.w a1, a1, (a0))
    TRAPS(13, VA, lr.w a1, (a0))
    TRAPS(15, VA, sc.w a1, a1, (a0))
    li a0, VA2
    TRAPS(13, VA2, ld a1, (a0))
    TRAPS(15, VA2, sd a1, (a0))
    li a0, 0x10002000
    TRAPS(13, 0x10002000, lbu a1, (a0))
    la s1, 1f
    li t0, VA
    jr t0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    CHECK(s3, VA)
    CHECK(s4, VA)
    PASS

TEST("4.3.2 steps 5, 6: R, W and X say what a page is for")
    MAP(VA, PTE(PAGE_PA(0), V | R | A | D), 0)
    MAP(VA2, PTE(PAGE_PA(0), V | X | A | D), 0)
    PAGING(SATP_SV39)
    li a0, VA
    ld a1, (a0)
    TRAPS(15, VA, sd a1, (a0))
    la s1, 1f
    jr a0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    li a0, VA2
    TRAPS(13, VA2, ld a1, (a0))
    li t0, SSTATUS_MXR
    csrs sstatus, t0
    ld a1, (a0)
    csrc sstatus, t0
    TRAPS(13, VA2, ld a1, (a0))
    TRAPS(15, VA2, sd a1, (a0))
    PASS

TEST("4.3.2 step 7, 4.3.1: A is set by any access, D by a store, and not by a load")
    MAP(VA, PTE(PAGE_PA(0), V | R | W), 0)
    PAGING(SATP_SV39)
    call leaf_of_va
    ld t1, (s6)
    CHECK(t1, PTE(PAGE_PA(0), V | R | W))
    li a0, VA
    ld a1, (a0)
    ld t1, (s6)
    CHECK(t1, PTE(PAGE_PA(0), V | R | W | A))
    sd a1, (a0)
    ld t1, (s6)
    CHECK(t1, PTE(PAGE_PA(0), V | R | W | A | D))
    PASS

TEST("4.3.1: D is exact: a store that faults does not set it")
    MAP(VA, PTE(PAGE_PA(0), V | R), 0)
    PAGING(SATP_SV39)
    li a0, VA
    TRAPS(15, VA, sd a1, (a0))
    call leaf_of_va
    ld t1, (s6)
    andi t1, t1, D
    CHECK(t1, 0)
    PASS

TEST("4.3.1: S mode reaches user pages only under SUM, and never executes them")
    MAP(VA, PTE(PAGE_PA(0), V | R | W | X | U | A | D), 0)
    PAGING(SATP_SV39)
    li a0, VA
    TRAPS(13, VA, ld a1, (a0))
    TRAPS(15, VA, sd a1, (a0))
    li t0, SSTATUS_SUM
    csrs sstatus, t0
    li a1, 77
    sd a1, (a0)
    ld a2, (a0)
    CHECK(a2, 77)
    amoadd.d a2, a1, (a0)
    CHECK(a2, 77)
    lr.d a2, (a0)
    CHECK(a2, 154)
    la s1, 1f
    jr a0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    li t0, SSTATUS_SUM
    csrc sstatus, t0
    TRAPS(13, VA, ld a1, (a0))
    PASS

TEST("4.3.1: U mode reaches user pages only; supervisor pages fault, warm or cold")
    MAP(VA, PTE(PAGE_PA(0), V | R | X | U | A | D), 0)
    MAP(VA2, PTE(PAGE_PA(1), READ_WRITE), 0)
    li a0, PAGE_PA(0)
    la a1, user_code
    ld a2, (a1)
    sd a2, (a0)
    ld a2, 8(a1)
    sd a2, 8(a0)
    fence.i
    PAGING(SATP_SV39)
    li a0, VA2
    ld a1, (a0)             // now cached for S mode
    la s1, 1f
    li t0, VA
    csrw sepc, t0
    li t0, SSTATUS_SPP
    csrc sstatus, t0
    sret                    // user_code: ld a1, (a0)
    .balign 4
1:  CHECK(s2, 13)
    CHECK(s3, VA2)
    CHECK(s4, VA)
    la s1, 2f
    li t0, 0x80000000       // a supervisor page
    csrw sepc, t0
    li t0, SSTATUS_SPP
    csrc sstatus, t0
    sret
    .balign 4
2:  CHECK(s2, 12)
    CHECK(s4, 0x80000000)
    PASS

TEST("4.3.2 step 6: a superpage whose low PPN bits are not zero is a page fault")
    MAP(0x40000000, PTE(0x80121000, READ_WRITE), 1)
    MAP(0x3fc0000000, PTE(0x80200000, READ_WRITE), 2)
    PAGING(SATP_SV39)
    li a0, 0x40000000
    TRAPS(13, 0x40000000, ld a1, (a0))
    TRAPS(15, 0x40000000, sd a1, (a0))
    li a0, 0x3fc0000000
    TRAPS(13, 0x3fc0000000, ld a1, (a0))
    PASS

TEST("4.4: 2 MiB and 1 GiB pages translate every address in them")
    MAP(0x40000000, PTE(0x80000000, READ_WRITE), 1)
    MAP(0x3f40000000, PTE(0x80000000, READ_WRITE), 2)
    PAGING(SATP_SV39)
    li a0, 0x40000000 + 0x123008
    li a1, 0x55
    sd a1, (a0)
    li a0, 0x3f40000000 + 0x123008
    ld a2, (a0)
    CHECK(a2, 0x55)
    li a0, 0x80123008
    ld a2, (a0)
    CHECK(a2, 0x55)
    PASS

TEST("4.3.2 step 4: a non-leaf at the last level is a page fault")
    MAP(VA, PTE(PAGE_PA(0), V), 0)
    PAGING(SATP_SV39)
    li a0, VA
    TRAPS(13, VA, ld a1, (a0))
    PASS

TEST("4.4.1: reserved bits of a pte fault: 60 to 54, and N and PBMT without Svnapot and Svpbmt")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE) | (1 << 54), 0)
    MAP(VA2, PTE(PAGE_PA(0), READ_WRITE) | (1 << 63), 0)
    MAP(0x10002000, PTE(PAGE_PA(0), READ_WRITE) | (1 << 61), 0)
    PAGING(SATP_SV39)
    li a0, VA
    TRAPS(13, VA, ld a1, (a0))
    li a0, VA2
    TRAPS(13, VA2, ld a1, (a0))
    li a0, 0x10002000
    TRAPS(13, 0x10002000, ld a1, (a0))
    PASS

TEST("4.3.1: D, A and U set in a non-leaf pte are reserved and fault")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    MAP(0x10200000, PTE(0x80101000, V | A), 1)
    MAP(0x10400000, PTE(0x80101000, V | D), 1)
    MAP(0x10600000, PTE(0x80101000, V | U), 1)
    PAGING(SATP_SV39)
    li a0, 0x10200000
    TRAPS(13, 0x10200000, ld a1, (a0))
    li a0, 0x10400000
    TRAPS(13, 0x10400000, ld a1, (a0))
    li a0, 0x10600000
    TRAPS(13, 0x10600000, ld a1, (a0))
    PASS

TEST("4.4.1: bits 63 to 39 of an address must equal bit 38")
    PAGING(SATP_SV39)
    li a0, 0x4000000000
    TRAPS(13, 0x4000000000, ld a1, (a0))
    TRAPS(15, 0x4000000000, sd a1, (a0))
    li a0, 0x8000000080000000   // the identity mapping but for the top bits
    TRAPS(13, 0x8000000080000000, ld a1, (a0))
    la s1, 1f
    jr a0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    CHECK(s3, 0x8000000080000000)
    CHECK(s4, 0x8000000080000000)
    PASS

TEST("4.3.2 step 2: a table outside memory is an access fault of the access's kind")
    MAP(0x40000000, PTE(0x1000, V), 2)
    PAGING(SATP_SV39)
    li a0, 0x40000000
    TRAPS(5, 0x40000000, ld a1, (a0))
    TRAPS(7, 0x40000000, sd a1, (a0))
    PASS

TEST("4.2.1: sfence.vma makes a changed leaf seen; other pages stay usable")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA
    li a1, 5
    sd a1, (a0)
    call leaf_of_va
    li t1, PTE(PAGE_PA(1), READ_WRITE)
    sd t1, (s6)
    sfence.vma a0
    ld a1, (a0)
    CHECK(a1, 0)
    sd zero, (s6)
    sfence.vma
    TRAPS(13, VA, ld a1, (a0))
    li t1, PTE(PAGE_PA(0), READ_WRITE)
    sd t1, (s6)
    sfence.vma x0, x0
    ld a1, (a0)
    CHECK(a1, 5)
    PASS

TEST("4.2.1: sfence.vma by ASID spares other ASIDs and global pages, but not its own")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39 | (1 << 44))
    li a0, VA
    ld a1, (a0)
    call leaf_of_va
    li t1, PTE(PAGE_PA(1), READ_WRITE)
    sd t1, (s6)
    li t0, 9
    li a1, PAGE_PA(1)
    sd t0, (a1)
    li t0, 1
    sfence.vma x0, t0
    ld a1, (a0)
    CHECK(a1, 9)
    PASS

TEST("4.2.1: code is translated anew after sfence.vma")
    MAP(VA, PTE(PAGE_PA(0), V | R | X | A | D), 0)
    PUT_CODE(PAGE_PA(0), return_1)
    PUT_CODE(PAGE_PA(1), return_2)
    fence.i
    PAGING(SATP_SV39)
    li s7, VA
    jalr s7
    CHECK(a0, 1)
    jalr s7
    CHECK(a0, 1)
    call leaf_of_va
    li t1, PTE(PAGE_PA(1), V | R | X | A | D)
    sd t1, (s6)
    sfence.vma s7
    jalr s7
    CHECK(a0, 2)
    PASS

TEST("4.2.1: code is translated anew after sfence.vma with its ASID, with an address and without")
    MAP(VA, PTE(PAGE_PA(0), V | R | X | A | D), 0)
    PUT_CODE(PAGE_PA(0), return_1)
    PUT_CODE(PAGE_PA(1), return_2)
    fence.i
    PAGING(SATP_SV39 | (7 << 44))
    li s7, VA
    li s8, 7
    jalr s7
    CHECK(a0, 1)
    call leaf_of_va
    li t1, PTE(PAGE_PA(1), V | R | X | A | D)
    sd t1, (s6)
    sfence.vma s7, s8
    jalr s7
    CHECK(a0, 2)
    li t1, PTE(PAGE_PA(0), V | R | X | A | D)
    sd t1, (s6)
    sfence.vma x0, s8
    jalr s7
    CHECK(a0, 1)
    PASS

TEST("4.2.1: a fence at any address of a superpage is one for all code in it")
    MAP(0x40000000, PTE(0x80000000, V | R | X | A | D), 1)
    PUT_CODE(PAGE_PA(0), return_1)
    PUT_CODE(PAGE_PA(0) + 0x200000, return_2)
    fence.i
    PAGING(SATP_SV39)
    li s7, 0x40000000 + PAGE_PA(0) - 0x80000000
    jalr s7
    CHECK(a0, 1)
    MAP(0x40000000, PTE(0x80200000, V | R | X | A | D), 1)
    li t0, 0x40000000
    sfence.vma t0
    jalr s7
    CHECK(a0, 2)
    MAP(0x40000000, PTE(0x80000000, V | R | X | A | D), 1)
    li t0, 0x401ff000
    sfence.vma t0, x0
    jalr s7
    CHECK(a0, 1)
    PASS

TEST("4.1.11: address spaces with different ASIDs and roots keep their own code and data")
    MAP(VA, PTE(PAGE_PA(0), V | R | W | X | A | D), 0)
    PUT_CODE(PAGE_PA(0), return_1)
    PUT_CODE(PAGE_PA(1), return_2)
    PAGING(SATP_SV39 | (1 << 44))
    csrr s8, satp
    li s7, VA
    jalr s7
    CHECK(a0, 1)
    // a second root: page 4, with tables in pages 5 and 6
    li t0, PAGE_PA(4)
    li t1, PTE(0x80000000, TEXT_FLAGS | G)
    sd t1, 2 * 8(t0)
    li t1, PTE(PAGE_PA(5), V)
    sd t1, (t0)
    li t0, PAGE_PA(5)
    li t1, PTE(PAGE_PA(6), V)
    sd t1, 128 * 8(t0)
    li t0, PAGE_PA(6)
    li t1, PTE(PAGE_PA(1), V | R | W | X | A | D)
    sd t1, (t0)
    li t0, SATP_SV39 | (2 << 44) | (PAGE_PA(4) >> 12)
    csrw satp, t0
    jalr s7
    CHECK(a0, 2)
    lw t1, (s7)
    csrw satp, s8
    jalr s7
    CHECK(a0, 1)
    lw t2, (s7)
    beq t1, t2, 1f
    csrw satp, zero
    PASS
1:  FAIL

TEST("4.3.2: satp Bare turns translation off at once")
    MAP(VA2, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA2
    ld a1, (a0)
    csrw satp, zero
    TRAPS(5, VA2, ld a1, (a0))
    PASS

TEST("unprivileged 2.6: a store over two pages changes nothing if the second faults")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA + 0xffc
    li a1, -1
    TRAPS(15, VA2, sd a1, (a0))
    lwu a2, (a0)
    CHECK(a2, 0)
    TRAPS(13, VA2, ld a1, (a0))
    PASS

TEST("unprivileged 2.6: a misaligned access over two pages reaches both")
    MAP(VA, PTE(PAGE_PA(2), READ_WRITE), 0)
    MAP(VA2, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA + 0xffd
    li a1, 0x1122334455667788
    sd a1, (a0)
    ld a2, (a0)
    CHECK_SAME(a1, a2)
    li a0, PAGE_PA(0)
    lbu a2, (a0)
    CHECK(a2, 0x55)
    li a0, PAGE_PA(2) + 0xfff
    lbu a2, (a0)
    CHECK(a2, 0x66)
    PASS

TEST("unprivileged 1.6: in a run of stores the one that faults is precise, those before are done")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA + 0xff0
    li a1, 0x77
    la s1, 2f
    .option push
    .option norvc
    sd a1, 0(a0)
    sd a1, 8(a0)
1:  sd a1, 16(a0)
    sd a1, 24(a0)
    .option pop
    FAIL
    .balign 4
2:  CHECK(s2, 15)
    CHECK(s3, VA2)
    la t4, 1b
    CHECK_SAME(s4, t4)
    ld a2, 0(a0)
    CHECK(a2, 0x77)
    ld a2, 8(a0)
    CHECK(a2, 0x77)
    PASS

TEST("unprivileged 1.6: in a run of loads the one that faults is precise, those before are done")
    MAP(VA2, PTE(PAGE_PA(0), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA2
    li a1, 0x77
    sd a1, 8(a0)
    li a1, 1
    li a2, 2
    li a3, 3
    la s1, 2f
    .option push
    .option norvc
    ld a1, 8(a0)
    ld a2, 0(a0)
1:  ld a3, -8(a0)
    ld a4, -16(a0)
    .option pop
    FAIL
    .balign 4
2:  CHECK(s2, 13)
    CHECK(s3, VA2 - 8)
    la t4, 1b
    CHECK_SAME(s4, t4)
    CHECK(a1, 0x77)
    CHECK(a2, 0)
    CHECK(a3, 3)
    PASS

TEST("unprivileged 1.6: a misaligned run, a run whose load overwrites the base")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    MAP(VA2, PTE(PAGE_PA(1), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA + 0xfec
    li a1, 0x0102030405060708
    li a2, 0x1112131415161718
    li a3, 0x2122232425262728
    sd a1, 0(a0)
    sd a2, 8(a0)
    sd a3, 16(a0)
    ld a4, 0(a0)
    ld a5, 8(a0)
    ld a0, 16(a0)
    CHECK_SAME(a4, a1)
    CHECK_SAME(a5, a2)
    CHECK_SAME(a0, a3)
    li a0, VA
    sd a0, 0(a0)
    li a1, VA2
    sd a1, 8(a0)
    li a2, 5
    sd a2, 8(a1)
    ld a3, 0(a0)
    ld a0, 8(a0)                // the base of the next
    ld a2, 8(a0)
    CHECK(a2, 5)
    PASS

TEST("unprivileged 1.6: a fault in the middle of common pairs leaves the first one done")
    PAGING(SATP_SV39)
    li a0, VA
    li a1, 0
    la s1, 2f
    .option push
    .option norvc
    add a1, a0, a0              // add, ld
1:  ld a2, (a0)
    FAIL
    .balign 4
2:  CHECK(s2, 13)
    CHECK(a1, 2 * VA)
    la t4, 1b
    CHECK_SAME(s4, t4)
    la s1, 4f
    addi a1, a0, 1              // addi, sd
3:  sd a2, (a0)
    FAIL
    .balign 4
4:  CHECK(s2, 15)
    CHECK(a1, VA + 1)
    la t4, 3b
    CHECK_SAME(s4, t4)
    .option pop
    PASS

TEST("4.3.1: a load then a store to a page with D clear in one block sets D in time")
    MAP(VA, PTE(PAGE_PA(0), V | R | W), 0)
    PAGING(SATP_SV39)
    call leaf_of_va
    li a0, VA
    ld a1, (a0)
    sd a1, 8(a0)
    ld t1, (s6)
    andi t1, t1, A | D
    CHECK(t1, A | D)
    PASS

// s6 = address of the leaf pte of VA: the first table made is level 1, the second level 0.
leaf_of_va:
    li s6, 0x80102000
    ret

    .balign 8
user_code:
    .option push
    .option norvc
    ld a1, (a0)
    ecall
    nop
    nop
    .balign 8
return_1:
    li a0, 1
    ret
    .balign 8
return_2:
    li a0, 2
    ret
    .option pop
