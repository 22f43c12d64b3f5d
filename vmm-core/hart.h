/*
 * One RISC-V hart: rv64gc, S and U mode, Sv39 and Sv48, Sstc; the interpreter
 * over decoded blocks is its engine.
 *
 * The hart owns its registers, its shadow tables' look-ups and its cache of
 * decoded blocks (keyed by guest physical pc). Everything else it needs it asks
 * of struct hart_env, a table of calls that the machine fills in: a test can run
 * a hart over flat memory with a few lines.
 *
 * Follows: RISC-V Unprivileged ISA 20191213 (I M A F D C Zicsr Zifencei
 * Zicntr), Privileged Architecture 20211203 (S and U, Sv39, Sv48, Svade not
 * claimed: A and D are set by the walk), Sstc 1.0.0.
 *
 * Threads: all fields belong to the hart's thread, but for `attention` and
 * `pending`, which others may set (release) and then kick.
 */
#ifndef BALLAST_HART_H
#define BALLAST_HART_H

#include "shadow-pt/shadow.h"

#include <stddef.h>

/* Bits of attention: why the hart should leave its block loop soon. */
#define ATTENTION_INTERRUPT 1u /* `pending` or the timer changed: look at interrupts */
#define ATTENTION_STOP      2u /* somebody wants a safe point: memlock_leave, then enter */
#define ATTENTION_EXIT      4u /* return HART_EXIT_ATTENTION to the caller (pause, quit) */

/* Bits of pending and of sip/sie (privileged manual 4.1.3). */
#define IRQ_S_SOFT     (1u << 1)
#define IRQ_S_TIMER    (1u << 5)
#define IRQ_S_EXTERNAL (1u << 9)

/* scause values (privileged manual table 4.2) */
enum hart_cause {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_ECALL_U = 8,
    CAUSE_ECALL_S = 9,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15,
};

enum hart_exit {
    HART_EXIT_SBI,       /* ecall from S mode at pc; the caller serves it and adds 4 to pc */
    HART_EXIT_WFI,       /* wfi retired and nothing is pending; pc is after it */
    HART_EXIT_ATTENTION, /* ATTENTION_EXIT was set */
    HART_EXIT_BUDGET,    /* max_instructions retired */
    HART_EXIT_STOPPED,   /* env said the machine is going away (make_usable or mmio failed) */
};

struct hart;

struct hart_env {
    void *ctx;
    /* Memory lock around shadow_resolve and code marks. NULL members: no lock needed. */
    void (*lock)(void *ctx);
    void (*unlock)(void *ctx);
    /* With the lock held: make ppn resident (and private and writable). May give the lock up,
     * leave guest mode and sleep. False: the machine is going away. */
    bool (*make_usable)(void *ctx, ppn_t ppn, bool writable);
    /* Without the lock. A device access of size 1, 2, 4 or 8, naturally aligned, at guest
     * physical pa. False: nothing is there (access fault). */
    bool (*mmio_load)(void *ctx, uint64_t pa, unsigned size, uint64_t *value);
    bool (*mmio_store)(void *ctx, uint64_t pa, unsigned size, uint64_t value);
    /* Safe point: called at a block boundary when ATTENTION_STOP is set. */
    void (*safe_point)(void *ctx);
    /* The time CSR, in ticks of timebase (10 MHz). The only clock a guest can see. */
    uint64_t (*time)(void *ctx);
    /* stimecmp was written: arm the timer for that many ticks. When due, the machine sets
     * ATTENTION_INTERRUPT. */
    void (*timer_arm)(void *ctx, uint64_t deadline_ticks);
};

struct hart_counts {
    uint64_t instructions; /* retired, = minstret */
    uint64_t traps, interrupts, mmio_accesses;
    uint64_t blocks_decoded, blocks_dropped, block_cache_flushes;
};

/* Architectural state, for the SBI, tests, gdb and state dumps. */
struct hart_state {
    uint64_t x[32]; /* x[0] is 0 */
    uint64_t f[32]; /* NaN-boxed */
    uint64_t pc;
    uint32_t fcsr;
    enum shadow_priv priv;
    uint64_t sstatus, sie, stvec, sscratch, sepc, scause, stval, satp;
    uint64_t stimecmp, scounteren, senvcfg;
};

/* hart_new: a hart over pmap with its own shadow tables. env is copied. NULL if out of memory. */
struct hart *hart_new(struct pmap *pmap, const struct hart_env *env, int hart_id);
void hart_free(struct hart *hart);

/*
 * Run until something named by enum hart_exit happens, or about max_instructions have retired
 * (exactly, at the cost of speed, when max_instructions is 1). Hart's thread. Bits of attention
 * are cleared as they are served. The env's calls run with the guest's rounding mode in the
 * host's floating-point unit; state is to be read and set between runs only.
 */
enum hart_exit hart_run(struct hart *hart, uint64_t max_instructions);

/* Does satp accept Sv48? It does unless told otherwise; before the first run. */
void hart_offer_sv48(struct hart *hart, bool offered);

/* The words other threads may set: attention, and pending interrupt lines (IRQ_S_* bits). */
_Atomic uint32_t *hart_attention(struct hart *hart);
void hart_set_pending(struct hart *hart, uint32_t bits);   /* any thread; sets attention too */
void hart_clear_pending(struct hart *hart, uint32_t bits); /* any thread */

/* Is an interrupt that is enabled in sie pending now (also with sstatus.SIE clear)? WFI wakes. */
bool hart_interrupt_ready(struct hart *hart);

void hart_get_state(const struct hart *hart, struct hart_state *state);
void hart_set_state(struct hart *hart, const struct hart_state *state);
uint64_t hart_get_x(const struct hart *hart, unsigned index);
void hart_set_x(struct hart *hart, unsigned index, uint64_t value);
void hart_advance_pc(struct hart *hart, unsigned bytes);
/* The pc of the instruction whose access is being made usable: inside make_usable, on the hart's
 * own thread. */
uint64_t hart_access_pc(const struct hart *hart);
struct shadow *hart_shadow(struct hart *hart);

/* sfence.vma asked for from outside (SBI remote fences): the pages of va..va+bytes, or all of them.
 * Lock held and the hart at a safe point, or between runs on its own thread. */
void hart_fence(struct hart *hart, bool va_given, uint64_t va, uint64_t bytes, bool asid_given,
                uint16_t asid);

/* Decoded code of ppn is no longer true (device write, page content lost). Lock held and the hart
 * at a safe point, or on the hart's own thread. Also clears the pmap's code mark. */
void hart_drop_code(struct hart *hart, ppn_t ppn);

void hart_read_counts(const struct hart *hart, struct hart_counts *counts);

#endif
