// What guest_test.h declares: start, the trap handler, and the page table writer.
#include "guest_test.h"

// The host enters a test at its own label; this is only where RAM starts.
    .section .text.start
    j fail

    .section .text
// Every test begins here. Registers are cleared by the host.
    .globl reset
reset:
    la t0, trap_entry
    csrw stvec, t0
    ret

    .globl fail
fail:
    li a7, HOST_FAIL
    ecall

// Keeps what a test wants to look at, and goes on at s1 in S mode.
    .balign 4
    .globl trap_entry
trap_entry:
    csrr s2, scause
    csrr s3, stval
    csrr s4, sepc
    csrr s5, sstatus
    jr s1

// map_page(a0 va, a1 pte, a2 level). levels_minus_one is the root's level. Uses t0-t4.
    .globl map_page
map_page:
    la t0, root
    lw t1, root_level
1:  // t0: table of level t1; t2 = &table[vpn[t1]]
    slli t2, t1, 3
    add t2, t2, t1          // 9 * level
    addi t2, t2, 12
    srl t2, a0, t2
    andi t2, t2, 511
    slli t2, t2, 3
    add t2, t2, t0
    beq t1, a2, 3f
    ld t3, (t2)
    bnez t3, 2f
    la t4, next_table       // a fresh table
    ld t0, (t4)
    li t3, 4096
    add t3, t3, t0
    sd t3, (t4)
    srli t3, t0, 12
    slli t3, t3, 10
    ori t3, t3, V
    sd t3, (t2)
2:  srli t0, t3, 10
    slli t0, t0, 12
    addi t1, t1, -1
    j 1b
3:  sd a1, (t2)
    ret

// Map RAM's first gigabyte onto itself for S mode, global.
    .globl page_own_text
page_own_text:
    mv s11, ra
    MAP(0x80000000, PTE(0x80000000, TEXT_FLAGS | G), 2)
    mv ra, s11
    ret

    .section .data
    .balign 8
    .globl root_level
root_level: .dword 2        // Sv39; Sv48 tests write 3
next_table: .dword tables

    .section .bss
    .balign 4096
    .globl root
root:   .space 4096
tables: .space 16 * 4096

    .section .pages, "aw", @nobits
    .globl pages
pages:  .space 16 * 4096    // pages for tests to map: PAGE_PA
