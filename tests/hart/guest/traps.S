// Traps, CSRs, interrupts and counters. Sections are the privileged manual's (20211203) unless
// another is named.
#include "guest_test.h"
    .text

TEST("4.1.8: an illegal instruction traps with its bits in stval")
    TRAPS(2, 0xffffffff, .word 0xffffffff)
    PASS

TEST("unprivileged 16.5: the all-zero halfword is illegal")
    la s1, 1f
    .hword 0
    FAIL
    .balign 4
1:  CHECK(s2, 2)
    CHECK(s3, 0)
    PASS

TEST("4.1.8: ebreak traps as a breakpoint")
    TRAPS_AT(3, 96b, ebreak)
    PASS

TEST("4.1.8: ecall from U mode; SPP shows the mode before, SPIE the enable before")
    li t0, SSTATUS_SPIE         // sret makes it SIE
    csrs sstatus, t0
    USER(user_ecall)
    EXPECT_TRAP(8)
    li t0, SSTATUS_SPP | SSTATUS_SIE | SSTATUS_SPIE
    and t0, s5, t0
    CHECK(t0, SSTATUS_SPIE)
    la t0, user_ecall
    CHECK_SAME(s4, t0)
    PASS

TEST("4.1.1: a trap from S mode sets SPP, clears SIE and keeps it in SPIE")
    csrci sstatus, 2
    TRAPS(2, 0xffffffff, .word 0xffffffff)
    li t0, SSTATUS_SPP | SSTATUS_SIE | SSTATUS_SPIE
    and t0, s5, t0
    CHECK(t0, SSTATUS_SPP)
    PASS

TEST("4.1.1: sret restores SIE from SPIE, sets SPIE, and leaves SPP at U")
    li t0, SSTATUS_SPP
    csrs sstatus, t0
    csrci sstatus, 2
    li t0, SSTATUS_SPIE
    csrs sstatus, t0
    la t0, 1f
    csrw sepc, t0
    sret
    FAIL
    .balign 4
1:  csrr t0, sstatus
    li t1, SSTATUS_SPP | SSTATUS_SIE | SSTATUS_SPIE
    and t0, t0, t1
    CHECK(t0, SSTATUS_SIE | SSTATUS_SPIE)
    PASS

TEST("4.1.1: sstatus has UXL 64, and no field that does not exist here sticks")
    li t0, -1
    csrw sstatus, t0
    csrr t0, sstatus
    CHECK(t0, 0x80000002000c6122)
    csrw sstatus, zero
    csrr t0, sstatus
    CHECK(t0, 0x200000000)
    PASS

TEST("3.1.6.6: with FS off every floating-point instruction is illegal")
    li t0, SSTATUS_FS
    csrc sstatus, t0
    TRAPS(2, 0x02b57553, fadd.d fa0, fa0, fa1)
    TRAPS(2, 0x00053507, fld fa0, 0(a0))
    TRAPS(2, 0x00a53027, fsd fa0, 0(a0))
    TRAPS(2, 0xe2050553, fmv.x.d a0, fa0)
    TRAPS(2, 0x003022f3, csrr t0, fcsr)
    TRAPS(2, 0x00201073, fsrm x0, x0)
    PASS

TEST("3.1.6.6: writing a floating-point register or fcsr makes FS dirty and sets SD")
    li t0, SSTATUS_FS
    csrc sstatus, t0
    li t1, 1 << 13
    csrs sstatus, t1
    fmv.d.x fa0, zero
    csrr t0, sstatus
    CHECK(t0, 0x8000000200006000)
    li t0, SSTATUS_FS
    csrc sstatus, t0
    csrs sstatus, t1
    csrwi fflags, 1
    csrr t0, sstatus
    CHECK(t0, 0x8000000200006000)
    PASS

TEST("3.1.6.6: reading floating-point registers leaves FS clean")
    li t0, SSTATUS_FS
    csrc sstatus, t0
    li t1, 2 << 13
    csrs sstatus, t1
    fmv.x.d a0, fa0
    la a0, pages
    fsd fa0, (a0)
    fsw fa1, (a0)
    csrr t0, sstatus
    CHECK(t0, 0x200004000)
    PASS

TEST("unprivileged 11.2: a dynamic rounding mode of 5 or above is illegal in use, not in frm")
    li t0, 1 << 13
    csrs sstatus, t0
    fsrmi 5
    frrm t0
    CHECK(t0, 5)
    TRAPS(2, 0x02b57553, fadd.d fa0, fa0, fa1)
    fadd.d fa0, fa0, fa1, rtz
    fmv.x.d a0, fa0
    fsrmi 0
    fadd.d fa0, fa0, fa1
    PASS

TEST("2.1: machine-mode CSRs, mret and unknown CSRs are illegal in S mode")
    TRAPS(2, 0x300022f3, csrr t0, mstatus)
    TRAPS(2, 0x34002573, csrr a0, mscratch)
    TRAPS(2, 0xf1402573, csrr a0, mhartid)
    TRAPS(2, 0x30200073, mret)
    TRAPS(2, 0x5c002573, csrr a0, 0x5c0)
    TRAPS(2, 0xc0302573, csrr a0, hpmcounter3)
    PASS

TEST("2.1: supervisor CSRs and instructions are illegal in U mode")
    USER(user_sstatus)
    EXPECT_TRAP(2)
    CHECK(s3, 0x100022f3)
    USER(user_sret)
    EXPECT_TRAP(2)
    USER(user_sfence)
    EXPECT_TRAP(2)
    USER(user_satp)
    EXPECT_TRAP(2)
    PASS

TEST("3.3.3: wfi is illegal in U mode")
    USER(user_wfi)
    EXPECT_TRAP(2)
    CHECK(s3, 0x10500073)
    PASS

TEST("2.1: writing a read-only CSR is illegal; reading it by csrrs with x0 is not")
    TRAPS(2, 0xc0029073, csrw cycle, t0)
    TRAPS(2, 0xc020e073, csrsi instret, 1)
    csrrs t0, cycle, x0
    csrrsi t0, time, 0
    PASS

TEST("unprivileged 9.1: csrrw, csrrs, csrrc and their immediate forms")
    li t0, 0xf0
    csrw sscratch, t0
    li t1, 0x3c
    csrrs t2, sscratch, t1
    CHECK(t2, 0xf0)
    csrrc t2, sscratch, t1
    CHECK(t2, 0xfc)
    csrrw t1, sscratch, t1
    CHECK(t1, 0xc0)
    csrrwi t2, sscratch, 31
    CHECK(t2, 0x3c)
    csrrsi t2, sscratch, 0
    csrrci t2, sscratch, 1
    CHECK(t2, 31)
    csrr t2, sscratch
    CHECK(t2, 30)
    PASS

TEST("4.1.5, 10.1 unprivileged: scounteren opens cycle, time and instret to U mode one by one")
    csrwi scounteren, 2
    USER(user_rdtime)
    EXPECT_TRAP(8)
    USER(user_rdcycle)
    EXPECT_TRAP(2)
    USER(user_rdinstret)
    EXPECT_TRAP(2)
    csrwi scounteren, 5
    USER(user_rdcycle)
    EXPECT_TRAP(8)
    USER(user_rdinstret)
    EXPECT_TRAP(8)
    USER(user_rdtime)
    EXPECT_TRAP(2)
    li t0, -1
    csrw scounteren, t0
    csrr t0, scounteren
    CHECK(t0, 7)
    PASS

TEST("unprivileged 10.1: instret counts every instruction, those without effect included")
    .option push
    .option norvc
    rdinstret t0
    nop
    addi x0, t1, 3
    lui t3, 5
    addi t3, t3, 1
    beq x0, x0, 1f
    nop
1:  rdinstret t1
    .option pop
    sub t1, t1, t0
    CHECK(t1, 6)
    PASS

TEST("unprivileged 10.1: instret does not count an instruction that traps")
    la s1, 1f
    rdinstret s6
    .word 0xffffffff
    .balign 4
1:  rdinstret s7            // in between: rdinstret, 4 csrr and jr of trap_entry
    sub s7, s7, s6
    CHECK(s7, 6)
    PASS

TEST("unprivileged 10.1: time reads the platform's clock")
    li a0, 123456789
    li a7, HOST_TIME
    ecall
    rdtime t0
    CHECK(t0, 123456789)
    PASS

TEST("Sstc 2.1: the timer interrupt is pending while time >= stimecmp, and taken when enabled")
    li a0, 1000
    li a7, HOST_TIME
    ecall
    li t0, 2000
    csrw STIMECMP, t0
    csrr t0, sip
    CHECK(t0, 0)
    li a7, HOST_DEADLINE
    ecall
    CHECK(a0, 2000)
    li a0, 2000
    li a7, HOST_TIME
    ecall
    csrr t0, sip
    CHECK(t0, 0x20)
    la s1, 1f
    li t0, 0x20
    csrw sie, t0
    csrsi sstatus, 2
    nop
    FAIL
    .balign 4
1:  li t0, 0x8000000000000005
    CHECK_SAME(s2, t0)
    CHECK(s3, 0)
    li t0, -1
    csrw STIMECMP, t0
    csrr t0, sip
    CHECK(t0, 0)
    PASS

TEST("4.1.3: STIP and SEIP cannot be written through sip; SSIP can")
    li t0, -1
    csrw sip, t0
    csrr t0, sip
    CHECK(t0, 2)
    csrci sip, 2
    csrr t0, sip
    CHECK(t0, 0)
    li t0, -1
    csrw sie, t0
    csrr t0, sie
    CHECK(t0, 0x222)
    PASS

TEST("4.1.3: external before software before timer")
    li a0, 0x200
    li a7, HOST_RAISE
    ecall
    csrsi sip, 2
    csrw STIMECMP, zero
    li t0, 0x222
    csrw sie, t0
    la s1, 1f
    csrsi sstatus, 2
    FAIL
    .balign 4
1:  li t0, 0x8000000000000009
    CHECK_SAME(s2, t0)
    li a0, 0x200
    li a7, HOST_LOWER
    ecall
    la s1, 2f
    csrsi sstatus, 2
    FAIL
    .balign 4
2:  li t0, 0x8000000000000001
    CHECK_SAME(s2, t0)
    csrci sip, 2
    la s1, 3f
    csrsi sstatus, 2
    FAIL
    .balign 4
3:  li t0, 0x8000000000000005
    CHECK_SAME(s2, t0)
    PASS

TEST("4.1.3: in U mode interrupts are taken whatever SIE says, and only if enabled in sie")
    csrci sstatus, 2
    csrsi sip, 2
    USER(user_ecall)
    EXPECT_TRAP(8)
    csrwi sie, 2
    USER(user_ecall)
    li t0, 0x8000000000000001
    CHECK_SAME(s2, t0)
    la t0, user_ecall
    CHECK_SAME(s4, t0)
    PASS

TEST("4.1.2: vectored mode sends interrupts, not exceptions, to base + 4 * cause")
    la t0, vectors
    ori t0, t0, 1
    csrw stvec, t0
    la s1, 1f
    .word 0xffffffff
    FAIL
    .balign 4
1:  CHECK(s6, 0)
    la s1, 2f
    csrwi sie, 2
    csrsi sip, 2
    csrsi sstatus, 2
    FAIL
    .balign 4
2:  CHECK(s6, 1)
    PASS

TEST("4.1.2: the mode of stvec is 0 or 1")
    li t0, 0x80001003
    csrw stvec, t0
    csrr t0, stvec
    CHECK(t0, 0x80001001)
    PASS

TEST("4.1.7: bit 0 of sepc is always zero")
    li t0, -1
    csrw sepc, t0
    csrr t0, sepc
    CHECK(t0, -2)
    PASS

TEST("3.3.3: wfi goes on when an enabled interrupt is pending, also with SIE clear")
    csrci sstatus, 2
    csrwi sie, 2
    csrsi sip, 2
    wfi
    PASS

TEST("3.3.3: wfi waits for the timer")
    li a0, 100
    li a7, HOST_TIME
    ecall
    li t0, 0x20
    csrw sie, t0
    li t0, 500
    csrw STIMECMP, t0
    wfi
    rdtime t0
    li t1, 500
    bgeu t0, t1, 1f
    FAIL
1:  PASS

TEST("4.1.11: satp refuses modes that do not exist and keeps its value")
    li t0, (10 << 60) | 5
    csrw satp, t0
    csrr t0, satp
    CHECK(t0, 0)
    li t0, (1 << 60) | 5
    csrw satp, t0
    csrr t0, satp
    CHECK(t0, 0)
    PASS

TEST("4.1.10: senvcfg keeps FIOM only")
    li t0, -1
    csrw senvcfg, t0
    csrr t0, senvcfg
    CHECK(t0, 1)
    PASS

TEST("unprivileged 8.2, 8.4: a misaligned atomic traps")
    la a0, pages + 2
    TRAPS_AT(6, pages + 2, amoadd.w a1, a1, (a0))
    TRAPS_AT(4, pages + 2, lr.w a1, (a0))
    TRAPS_AT(6, pages + 2, sc.w a1, a1, (a0))
    la a0, pages + 4
    TRAPS_AT(6, pages + 4, amoadd.d a1, a1, (a0))
    PASS

TEST("unprivileged 8.2: sc succeeds once after lr, and fails at another address")
    la a0, pages
    la a1, pages + 8
    li a2, 7
    lr.d t0, (a0)
    sc.d t1, a2, (a0)
    CHECK(t1, 0)
    sc.d t1, a2, (a0)
    CHECK(t1, 1)
    lr.d t0, (a0)
    CHECK(t0, 7)
    sc.d t1, a2, (a1)
    CHECK(t1, 1)
    sc.d t1, a2, (a0)
    CHECK(t1, 1)
    PASS

TEST("3.6.3: a device has no atomics, and no misaligned accesses")
    li a0, 0x10000000
    TRAPS(7, 0x10000000, amoadd.w a1, a1, (a0))
    TRAPS(5, 0x10000000, lr.w a1, (a0))
    TRAPS(5, 0x10000001, lw a1, 1(a0))
    TRAPS(7, 0x10000001, sw a1, 1(a0))
    li a1, 0x1122334455667788
    sd a1, (a0)
    ld a2, (a0)
    CHECK_SAME(a1, a2)
    lbu a2, 7(a0)
    CHECK(a2, 0x11)
    lb a2, 0(a0)
    CHECK(a2, -0x78)
    lh a2, 2(a0)
    CHECK(a2, 0x5566)
    PASS

TEST("4.1.8: accesses outside memory and devices are access faults")
    li a0, 0x1000
    TRAPS(5, 0x1000, ld a1, (a0))
    TRAPS(7, 0x1000, sd a1, (a0))
    li a0, -4096
    TRAPS(5, -4096, ld a1, (a0))
    la s1, 1f
    li t0, 0x1000
    jr t0
    FAIL
    .balign 4
1:  CHECK(s2, 1)
    CHECK(s3, 0x1000)
    CHECK(s4, 0x1000)
    PASS

    .balign 4
user_ecall:     ecall
user_sstatus:   csrr t0, sstatus
                ecall
user_satp:      csrw satp, zero
                ecall
user_sret:      sret
                ecall
user_sfence:    sfence.vma
                ecall
user_wfi:       wfi
                ecall
user_rdcycle:   rdcycle t0
                ecall
user_rdtime:    rdtime t0
                ecall
user_rdinstret: rdinstret t0
                ecall

    .balign 256
    .option norvc
vectors:
    j 1f
    j 2f
1:  li s6, 0
    jr s1
2:  li s6, 1
    jr s1
