// Loops for the hart's micro-benchmark (tests/bench/hart_bench.c). Each is a test that runs for
// ever; the host stops it after a number of instructions. Paged ones run under Sv39.
#include "guest_test.h"
    .text

#define VA 0x10000000
#define READ_WRITE (V | R | W | A | D)

TEST("alu: independent adds, shifts and logic")
    li s2, 1
1:  add a0, a0, s2
    xor a1, a1, s2
    slli a2, s2, 3
    addi a3, a3, 5
    srli a4, a3, 2
    or a5, a4, s2
    sub a6, a6, s2
    and a7, a3, a4
    addiw t0, t0, 1
    bnez s2, 1b

TEST("chain: each instruction needs the one before")
    li a0, 1
1:  addi a0, a0, 3
    xori a0, a0, 5
    slli a1, a0, 1
    add a0, a0, a1
    srli a1, a0, 7
    xor a0, a0, a1
    j 1b

TEST("memory: copy 4 KiB by 8 bytes")
    la s2, pages
    la s3, pages + 4096
1:  mv a0, s2
    mv a1, s3
    mv a2, s3
2:  ld a3, (a0)
    ld a4, 8(a0)
    sd a3, (a1)
    sd a4, 8(a1)
    addi a0, a0, 16
    addi a1, a1, 16
    bltu a0, a2, 2b
    j 1b

TEST("call: a leaf function that saves four registers")
    la sp, pages + 4096
1:  call leaf
    j 1b

TEST("branch: data-dependent branches over a pseudo-random sequence")
    li a0, 12345
    li a1, 6364136223846793005
1:  mul a0, a0, a1
    addi a0, a0, 1442
    srli a2, a0, 60
    andi a3, a2, 1
    beqz a3, 2f
    addi a4, a4, 1
2:  andi a3, a2, 2
    beqz a3, 3f
    addi a5, a5, 1
3:  andi a3, a2, 4
    beqz a3, 4f
    addi a6, a6, 1
4:  j 1b

TEST("float: dot product of doubles")
    li t0, SSTATUS_FS
    csrs sstatus, t0
    la s2, pages
1:  mv a0, s2
    addi a1, s2, 2047
2:  fld fa0, (a0)
    fld fa1, 8(a0)
    fmadd.d fa2, fa0, fa1, fa2
    addi a0, a0, 16
    bltu a0, a1, 2b
    j 1b

TEST("conflict: two pages of one slot of the shadow table, in turn")
    MAP(VA, PTE(PAGE_PA(0), READ_WRITE), 0)
    MAP(VA + 0x1000000, PTE(PAGE_PA(1), READ_WRITE), 0)
    PAGING(SATP_SV39)
    li a0, VA
    li a1, VA + 0x1000000
1:  ld a2, (a0)
    ld a3, (a1)
    j 1b

TEST("atomics: amoadd, and a lock by lr and sc")
    la a0, pages
    li a1, 1
1:  amoadd.w a2, a1, (a0)
    addi a5, a0, 8
2:  lr.w a3, (a5)
    sc.w a4, a1, (a5)
    bnez a4, 2b
    j 1b

TEST("trap: ecall from U mode and back by sret")
    la t0, 2f
    csrw stvec, t0
    la t0, 3f
    csrw sepc, t0
    csrw sstatus, zero
    sret
    .balign 4
2:  csrr t0, sepc
    addi t0, t0, 4
    csrw sepc, t0
    sret
3:  ecall
    j 3b

    .balign 64
leaf:
    addi sp, sp, -32
    sd ra, 24(sp)
    sd s0, 16(sp)
    sd s1, 8(sp)
    sd s2, 0(sp)
    mv s0, a0
    addi a0, s0, 1
    ld ra, 24(sp)
    ld s0, 16(sp)
    ld s1, 8(sp)
    ld s2, 0(sp)
    addi sp, sp, 32
    ret
