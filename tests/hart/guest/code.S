// Code that changes, and code that lies awkwardly. Sections are the unprivileged manual's
// (20191213) unless another is named.
#include "guest_test.h"
    .text

#define RX (V | R | X | A | D)
#define RWX (V | R | W | X | A | D)
#define VA 0x10000000

TEST("3: code written is seen after fence.i")
    la s6, patched
    jalr s6
    CHECK(a0, 1)
    la t0, two
    lw t1, (t0)
    sw t1, (s6)
    fence.i
    jalr s6
    CHECK(a0, 2)
    PASS

TEST("3: a loop that patches itself each time round")
    li s7, 0
    li s8, 100
    la s6, counted
1:  lw t1, (s6)
    li t2, 1 << 20
    add t1, t1, t2              // addi a0, a0, n: n + 1
    sw t1, (s6)
    fence.i
    li a0, 0
    jalr s6
    addi s7, s7, 1
    bne a0, s7, 2f
    bne s7, s8, 1b
    PASS
2:  FAIL

TEST("3: a store to the block that is executing is seen by the next fence.i")
    la a1, 1f
    la t0, two
    lw t1, (t0)
    sw t1, (a1)
    fence.i
    .option push
    .option norvc
1:  li a0, 1
    .option pop
    CHECK(a0, 2)
    PASS

TEST("3: a store through another mapping of the page counts as well")
    MAP(VA, PTE(0x80000000, V | R | W | A | D), 1)
    PAGING(SATP_SV39)
    la s6, patched
    jalr s6
    CHECK(a0, 1)
    li t0, VA - 0x80000000
    add t0, t0, s6
    la t1, two
    lw t1, (t1)
    sw t1, (t0)
    fence.i
    jalr s6
    CHECK(a0, 2)
    PASS

TEST("3: data beside code in one page: stores leave the code right")
    la s6, patched
    la s7, beside
    li s8, 50
1:  jalr s6
    CHECK(a0, 1)
    sd s8, (s7)
    ld a1, (s7)
    CHECK_SAME(a1, s8)
    addi s8, s8, -1
    bnez s8, 1b
    PASS

TEST("16.1: a 4-byte instruction over two pages")
    li a0, PAGE_PA(1) - 2
    la t0, two_ret
    lhu t1, 0(t0)
    sh t1, 0(a0)
    lhu t1, 2(t0)
    sh t1, 2(a0)
    lhu t1, 4(t0)
    sh t1, 4(a0)
    fence.i
    li s6, PAGE_PA(1) - 2
    jalr s6
    CHECK(a0, 2)
    li a0, PAGE_PA(1)           // its second half alone: immediate 2 becomes 3
    li t1, 0x0030
    sh t1, (a0)
    fence.i
    jalr s6
    CHECK(a0, 3)
    PASS

TEST("privileged 4.1.9: a fetch fault on the second half names that half; sepc the instruction")
    MAP(VA, PTE(PAGE_PA(0), RX), 0)
    li a0, PAGE_PA(1) - 2
    la t0, two_ret
    lhu t1, 0(t0)
    sh t1, 0(a0)
    PAGING(SATP_SV39)
    la s1, 1f
    li t0, VA + 0xffe
    jr t0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    CHECK(s3, VA + 0x1000)
    CHECK(s4, VA + 0xffe)
    PASS

TEST("privileged 4.2.1: the second page of a straddling instruction may differ by address space")
    // page 0 at VA and at VA + 0x4000; page 1 behind the first, page 2 behind the second
    MAP(VA, PTE(PAGE_PA(0), RX), 0)
    MAP(VA + 0x1000, PTE(PAGE_PA(1), RX), 0)
    MAP(VA + 0x4000, PTE(PAGE_PA(0), RX), 0)
    MAP(VA + 0x5000, PTE(PAGE_PA(2), RX), 0)
    li a0, PAGE_PA(1) - 2
    la t0, two_ret
    lhu t1, 0(t0)
    sh t1, 0(a0)
    lhu t1, 2(t0)
    li a1, PAGE_PA(1)
    sh t1, 0(a1)
    li t1, 0x0030               // li a0, 3
    li a2, PAGE_PA(2)
    sh t1, 0(a2)
    lhu t1, 4(t0)
    sh t1, 2(a1)
    sh t1, 2(a2)
    fence.i
    PAGING(SATP_SV39)
    li s6, VA + 0xffe
    li s7, VA + 0x4ffe
    jalr s6
    CHECK(a0, 2)
    jalr s7
    CHECK(a0, 3)
    jalr s6
    CHECK(a0, 2)
    jalr s7
    CHECK(a0, 3)
    PASS

TEST("privileged 4.3.1: code runs on into the next page; a fault there has sepc there")
    MAP(VA, PTE(PAGE_PA(0), RX), 0)
    li a0, PAGE_PA(1) - 8
    li t1, 0x00010001           // c.nop, c.nop
    sw t1, 0(a0)
    sw t1, 4(a0)
    PAGING(SATP_SV39)
    la s1, 1f
    li t0, VA + 0xff8
    jr t0
    FAIL
    .balign 4
1:  CHECK(s2, 12)
    CHECK(s3, VA + 0x1000)
    CHECK(s4, VA + 0x1000)
    PASS

TEST("2.5: jalr clears bit 0 of its target, and may link over its own base")
    .option push
    .option norvc
    la t0, 1f
    addi t0, t0, 1
    jalr t0, 0(t0)
2:  FAIL
1:  la t1, 2b
    .option pop
    CHECK_SAME(t0, t1)
    PASS

TEST("privileged 4.3.1: a page is executed by U mode and S mode by its U bit, cached or not")
    MAP(VA, PTE(PAGE_PA(0), RX | U), 0)
    li a0, PAGE_PA(0)
    li t1, 0x73                 // ecall
    sw t1, (a0)
    fence.i
    PAGING(SATP_SV39)
    li t0, VA
    csrw sepc, t0
    li t0, SSTATUS_SPP
    csrc sstatus, t0
    la s1, 1f
    sret
    .balign 4
1:  CHECK(s2, 8)
    la s1, 2f
    li t0, VA
    jr t0
    FAIL
    .balign 4
2:  CHECK(s2, 12)
    PASS

    .option push
    .option norvc
    .balign 4096
patched:
    li a0, 1
    ret
counted:
    addi a0, a0, 0
    ret
two:
two_ret:
    li a0, 2
    .option rvc
    c.jr ra
    .option pop
    .balign 8
beside: .dword 0
