/*
 * The first and the lowest instructions of a bare-metal guest: the header of a
 * Linux Image, so that any loader takes it; a stack; traps; and accesses that may
 * fault.
 */
    .section .text.start, "ax"
    .global _start
_start:
    j       begin                   /* code0 */
    .balign 4
    nop                             /* code1 */
    .balign 8
    .dword  0x200000                /* text_offset */
    .dword  _guest_end - _start     /* image_size, bss included */
    .dword  0                       /* flags: little-endian */
    .word   2, 0                    /* header version, reserved */
    .dword  0
    .ascii  "RISCV\0\0\0"
    .ascii  "RSC\x05"
    .word   0

begin:
    la      sp, stack_top
    la      t0, trap
    csrw    stvec, t0
    call    guest_main
    call    guest_end

/* An access that was allowed to fault goes on where trap_resume says; any other trap is the end. */
    .balign 4
trap:
    la      t0, trap_resume
    ld      t0, 0(t0)
    beqz    t0, unexpected
    csrw    sepc, t0
    li      t0, 1 << 8              /* back to S mode: an access may not change privilege */
    csrs    sstatus, t0
    sret
unexpected:
    la      sp, stack_top
    csrr    a0, scause
    csrr    a1, sepc
    csrr    a2, stval
    call    guest_unexpected_trap

/* uint64_t guest_load(unsigned size, uintptr_t at): the cause of the fault, or NO_FAULT. */
    .macro  MAY_FAULT name, instruction
    .global \name
\name:
    la      t1, trap_resume
    la      t2, 1f
    sd      t2, 0(t1)
    \instruction
    li      a0, -1
    j       2f
    .balign 4
1:  csrr    a0, scause
2:  la      t1, trap_resume
    sd      zero, 0(t1)
    ret
    .endm

    .text
    MAY_FAULT guest_load8,   "lb t3, 0(a0)"
    MAY_FAULT guest_load16,  "lh t3, 0(a0)"
    MAY_FAULT guest_load32,  "lw t3, 0(a0)"
    MAY_FAULT guest_load64,  "ld t3, 0(a0)"
    MAY_FAULT guest_store8,  "sb a1, 0(a0)"
    MAY_FAULT guest_store16, "sh a1, 0(a0)"
    MAY_FAULT guest_store32, "sw a1, 0(a0)"
    MAY_FAULT guest_store64, "sd a1, 0(a0)"
    MAY_FAULT guest_swap64,  "amoswap.d t3, a1, (a0)"
    MAY_FAULT guest_reserve64, "lr.d t3, (a0)"

/* uint64_t guest_jump(uintptr_t to): as above; what is there must fault. */
    .global guest_jump
guest_jump:
    addi    sp, sp, -16
    sd      ra, 0(sp)
    la      t1, trap_resume
    la      t2, 1f
    sd      t2, 0(t1)
    jalr    a0
    .balign 4
1:  csrr    a0, scause
    la      t1, trap_resume
    sd      zero, 0(t1)
    ld      ra, 0(sp)
    addi    sp, sp, 16
    ret

    .bss
    .balign 16
trap_resume:
    .skip   16
stack:
    .skip   65536
stack_top:
