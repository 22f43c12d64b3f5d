/*
 * What the guest-level tests share: bare-metal assembly for one hart in S mode,
 * linked at the start of RAM and run by hart_guest_test.c over flat memory.
 *
 * A test is   TEST("section: what the manual promises")  ...  PASS
 * and starts from reset: S mode, Bare, interrupts off, stvec at trap_entry.
 *
 *   CHECK(reg, value)               fail unless reg equals value
 *   TRAPS(cause, tval, insn)        insn must trap with that cause and stval, with
 *                                   sepc at insn; goes on behind it in S mode
 *   EXPECT_TRAP(cause)              a trap must just have been taken (see s2 to s5)
 *   USER(label), back in S mode at s1 after any trap
 *   MAP(va, pte, level)             put a pte into the tables at `root`; level 0 is
 *                                   a 4 KiB page; makes the tables on the way
 *   PTE(pa, flags)                  a pte's value
 *
 * Registers: s1 is where trap_entry goes on; it leaves scause, stval, sepc and
 * sstatus in s2, s3, s4, s5. t5, t6 belong to the macros.
 */
#define HOST_PASS   0 /* a7 of an ecall to the test program on the host */
#define HOST_FAIL   1 /* a0: line */
#define HOST_TIME   2 /* the clock becomes a0 */
#define HOST_RAISE  3 /* interrupt lines a0 become pending */
#define HOST_LOWER  4
#define HOST_DEADLINE 5 /* a0 = what the timer was armed with */

#define V 1
#define R 2
#define W 4
#define X 8
#define U 16
#define G 32
#define A 64
#define D 128
#define PTE(pa, flags) ((((pa) >> 12) << 10) | (flags))

#define PAGE_PA(n) (0x80120000 + ((n) << 12)) /* pages for tests to use, as `pages` */

#define SATP_SV39 (8 << 60)
#define SATP_SV48 (9 << 60)
#define SSTATUS_SIE (1 << 1)
#define SSTATUS_SPIE (1 << 5)
#define SSTATUS_SPP (1 << 8)
#define SSTATUS_FS (3 << 13)
#define SSTATUS_SUM (1 << 18)
#define SSTATUS_MXR (1 << 19)
#define STIMECMP 0x14d

#define TEXT_FLAGS (V | R | W | X | A | D)

#define TEST(title) \
    .pushsection .rodata; 88: .asciz title; .popsection; \
    .pushsection .tests, "a"; .quad 99f, 88b; .popsection; \
    .balign 4; 99: call reset

#define PASS li a7, HOST_PASS; ecall

#define FAIL li a0, __LINE__; j fail

#define CHECK(reg, value) li t6, value; li t5, __LINE__; beq reg, t6, 98f; mv a0, t5; mv a1, reg; j fail; 98:

#define CHECK_SAME(reg, other) li t5, __LINE__; beq reg, other, 98f; mv a0, t5; mv a1, reg; j fail; 98:

#define TRAPS(cause, tval, ...) \
    la s1, 97f; li s2, -1; .option push; .option norvc; 96: __VA_ARGS__; .option pop; FAIL; \
    .balign 4; 97: CHECK(s2, cause); CHECK(s3, tval); la t4, 96b; CHECK_SAME(s4, t4)

#define EXPECT_TRAP(cause) CHECK(s2, cause)

/* The same where stval is a symbol's address. */
#define TRAPS_AT(cause, symbol, ...) \
    la s1, 97f; li s2, -1; .option push; .option norvc; 96: __VA_ARGS__; .option pop; FAIL; \
    .balign 4; 97: CHECK(s2, cause); la t4, symbol; CHECK_SAME(s3, t4); la t4, 96b; CHECK_SAME(s4, t4)

#define USER(label) la s1, 97f; la t6, label; csrw sepc, t6; li t6, SSTATUS_SPP; csrc sstatus, t6; sret; .balign 4; 97:

#define MAP(va, pte, level) li a0, va; li a1, pte; li a2, level; call map_page

#define PAGING(mode) call page_own_text; la t0, root; srli t0, t0, 12; li t1, mode; or t0, t0, t1; csrw satp, t0; sfence.vma
