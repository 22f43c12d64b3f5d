/*
 * The hart's own structures, shared by the files of this folder and by nobody
 * else.
 *
 * How it runs: guest code is decoded once into BLOCKS of 16-byte OPS, keyed by
 * guest physical address (blocks.c). Each op holds the address of its handler;
 * a handler does its work and tail-calls the next op's (ops.c), so that there is
 * no dispatch loop. Handlers pass the hot state in argument registers:
 *
 *   op      the op being executed
 *   h       the hart; x[] comes first, so that a register is one indexed access
 *   pc      virtual address of the block's start; an op's own pc is
 *           pc + 2 * op->pcoff, so that nothing is written per instruction
 *   budget  instructions left in this slice; subtracted once a block, when it
 *           is left
 *   table   the shadow table of the current address space
 *   block   the block, for what an exit needs (count, map of starts)
 *
 * A handler that cannot go on saves pc and budget in the hart and returns: that
 * unwinds to hart_run, which looks at attention, interrupts and exits.
 *
 * A block is entered at its top and left at its end, at a taken branch in its
 * middle, or by a trap. It lies in one page, but for a block of one 4-byte
 * instruction that straddles two.
 */
#ifndef BALLAST_HART_CORE_H
#define BALLAST_HART_CORE_H

#include "vmm-core/hart.h"
#include "vmm-core/hart/insn.h"

#include <assert.h>

#pragma GCC visibility push(hidden)

struct op;
struct block;

#define OP_ARGS                                                                                    \
    const struct op *op, struct hart *h, uint64_t pc, int64_t budget, struct shadow_entry *table,  \
        const struct block *block
#define OP_PASS op, h, pc, budget, table, block

typedef void op_handler(OP_ARGS);

struct op {
    op_handler *run;
    union {
        struct {
            uint8_t rd; /* branches: instructions retired when it is taken */
            uint8_t rs1;
            uint8_t rs2;   /* jumps that link: offset of the next instruction, in halfwords */
            uint8_t pcoff; /* of the op's last instruction, from the block's start, in halfwords */
            int32_t imm;
        };
        uint64_t operands;
    };
};
static_assert(sizeof(struct op) == 16, "an op is one quarter of a cache line");

/* A branch or chained jump is followed by this in the place of an op. */
struct chain {
    const struct block *next; /* NULL: not known yet */
    uint64_t unused;
};
static_assert(sizeof(struct chain) == sizeof(struct op), "a chain fills an op's place");

#define BLOCK_HALFWORDS 128u /* longest block; fits pcoff and the map of starts */
#define BLOCK_OPS       (2 * BLOCK_HALFWORDS + 8) /* worst case: all c.beqz */

struct block {
    uint64_t pa;         /* of its first instruction */
    uint64_t starts[2];  /* bit i: an instruction starts i halfwords in */
    uint32_t next_hash;  /* index of the next block of the hash bucket; 0 ends */
    uint32_t next_page;  /* next block of the page */
    uint32_t next_page2; /* straddling blocks: next on the second page's list */
    uint16_t insns;
    uint8_t straddles;
    uint8_t dead; /* dropped; its room comes back at the next flush */
    ppn_t ppn2;   /* straddling blocks: the second page */
    uint32_t unused;
    struct op ops[];
};
static_assert(sizeof(struct block) == 48, "a block header fills three ops' places");

/* Where a virtual pc's block is, in the current address space and mode: see hart->jump_key. */
#define JUMP_ENTRIES 4096u
struct jump_entry {
    uint64_t key; /* pc ^ jump_key */
    const struct block *block;
};

/* Which guest physical page a virtual page of code is; same key. Found by a walk that a fetch
 * was allowed to make; valid until a fence, as any TLB. */
#define CODE_TLB_ENTRIES 256u
struct code_tlb_entry {
    uint64_t key;
    ppn_t ppn;
};

/* May code be found at pc at all? Sv48 and Bare reach no further; asked of every pc before it is
 * compared with a key. */
static inline bool pc_is_canonical(uint64_t pc)
{
    return (uint64_t)((int64_t)(pc << 16) >> 16) == pc;
}

#define SPACE_KEYS 16u
struct space_key {
    uint64_t satp;
    uint16_t epoch; /* 0: unused */
};

#define X_SINK 32 /* writes to x0 go here */

struct hart {
    uint64_t x[33]; /* x[0] stays 0 */
    uint64_t f[32]; /* NaN-boxed */

    uint64_t user_bit; /* SHADOW_USER in U mode, else 0; mirrors the view's */
    /*
     * Everything cached by virtual pc is tagged with pc ^ jump_key. Bit 0 is set
     * in U mode (a pc is even); the top 16 bits are an epoch, which names the
     * address space and changes with every fence that matters and every drop of
     * code. A canonical pc's own top 16 bits are copies of bit 47, so that no two
     * (pc, epoch) pairs make the same key. Any other pc is looked up nowhere
     * (pc_is_canonical): it would find what another epoch left behind.
     */
    uint64_t jump_key;

    uint64_t pc;           /* valid when no handler is running */
    int64_t budget;        /* the same */
    uint64_t retire_limit; /* instructions retired = retire_limit - budget */
    bool leave;            /* an op changed what the block loop assumes: go back to hart_run */

    /* A trap asked for by a function that answered "no": see hart_raise. */
    uint8_t trap_cause;
    bool stopping;  /* env said the machine goes away: no trap, exit */
    uint32_t waits; /* times the env was asked to make a page usable: what was resolved before may
                       be gone since */
    uint64_t trap_value;

    enum hart_exit exit;
    bool exit_wanted; /* an op wants hart_run to return `exit` */

    enum shadow_priv priv;
    uint64_t sstatus; /* without SD, UXL */
    uint64_t sie, stvec, sscratch, sepc, scause, stval, satp, stimecmp, scounteren, senvcfg;
    bool timer_due; /* stimecmp has passed, as last looked at */
    bool sv48;

    /* Floating point: the flags a program sees are fflags | those in MXCSR. */
    uint32_t fflags;
    uint32_t frm;   /* as written, 0..7 */
    uint32_t mxcsr; /* the guest's, while hart_run is not running */
    uint32_t host_mxcsr;

    /* LR/SC: what LR named and where that was (NULL: nothing reserved), and the value it loaded.
     * SC must name the same address, find it at the same place and with the same value. Frames
     * change only while the hart waits: at a safe point or for a page, where the reservation is
     * given up, or for the memory lock, after which the place tells; the address keeps a frame
     * that has gone to another page meanwhile from being taken for the one reserved. */
    void *reserved_host;
    uint64_t reserved_va, reserved_value;

    _Atomic uint32_t attention, pending;

    struct shadow *shadow;
    struct shadow_view *view;
    struct pmap *pmap;
    struct hart_env env;
    int hart_id;
    struct hart_counts counts;

    /* The cache of decoded blocks: blocks.c. */
    struct op *arena; /* arena_ops long; blocks lie at multiples of an op; index 0 is not used */
    uint32_t arena_used;
    uint32_t flush_generation;
    uint32_t *hash;       /* buckets: index of the first block */
    uint32_t *page_first; /* by ppn: index of the first block on the page */
    uint32_t ram_pages;
    uint16_t last_epoch;
    struct space_key spaces[SPACE_KEYS];
    uint64_t code_vpns[1024]; /* bits, by hash of vpn: code was found through this vpn */
    uint64_t code_regions[64]; /* the same by 2 MiB, for code found through a leaf of that size */
    bool code_in_large_leaf;   /* code was found through a leaf of 1 GiB or more */
    struct code_tlb_entry code_tlb[CODE_TLB_ENTRIES];
    struct jump_entry jumps[JUMP_ENTRIES];
};

/* --- memory.c: the slow path of loads, stores and atomics --- */

struct loaded {
    uint64_t value; /* zero-extended */
    bool ok;        /* false: trap_cause and trap_value are set */
};
/* Any alignment, any target. size 1, 2, 4, 8. */
struct loaded hart_load_slow(struct hart *h, uint64_t va, unsigned size);
bool hart_store_slow(struct hart *h, uint64_t va, unsigned size, uint64_t value);
/* Host address of naturally aligned memory for an atomic; NULL: trap set. store: needs write
 * permission (else read). */
void *hart_atomic_host(struct hart *h, uint64_t va, unsigned size, bool store);

/* Host address of the instruction bytes at va, to the end of the page; NULL: trap set. Lock held.
 */
uint8_t *hart_fetch_host(struct hart *h, uint64_t va, ppn_t *ppn);

static inline void hart_lock(struct hart *h)
{
    if (h->env.lock)
        h->env.lock(h->env.ctx);
}
static inline void hart_unlock(struct hart *h)
{
    if (h->env.unlock)
        h->env.unlock(h->env.ctx);
}

/* --- blocks.c --- */

bool blocks_new(struct hart *h);
void blocks_free(struct hart *h);
/* Drop every block. Never while a handler runs below (its block would go away), but from
 * blocks_find, whose callers expect it. */
void blocks_flush(struct hart *h);
/* The block at pc in the present space and mode; NULL: trap_cause and trap_value are set, or
 * stopping. May flush: no block pointer of the caller's stays valid if flush_generation moved. */
const struct block *blocks_find(struct hart *h, uint64_t pc);
/* A block of the one instruction at pc, not kept. */
const struct block *blocks_single(struct hart *h, uint64_t pc);
void blocks_drop_page(struct hart *h, ppn_t ppn);
/* A fetch at va was translated by a leaf of that level: fences of the leaf concern what follows. */
void blocks_note_code(struct hart *h, uint64_t va, unsigned level);
/* The guest's sfence.vma, operands as there; a fence of everything; satp changed. */
void blocks_fence(struct hart *h, bool va_given, uint64_t va, bool asid_given, uint16_t asid);
void blocks_fence_all(struct hart *h);
void blocks_set_space(struct hart *h);

/* Instructions of the block that come before the one at pcoff. */
static inline unsigned block_insns_before(const struct block *block, unsigned pcoff)
{
    if (pcoff < 64)
        return (unsigned)__builtin_popcountll(block->starts[0] & ((UINT64_C(1) << pcoff) - 1));
    return (unsigned)__builtin_popcountll(block->starts[0]) +
           (unsigned)__builtin_popcountll(block->starts[1] & ((UINT64_C(1) << (pcoff - 64)) - 1));
}

/* --- build.c: decoded instructions to ops --- */

struct block_source {
    const uint8_t *bytes; /* the instruction at pc */
    uint32_t room;        /* bytes left in its page */
    uint32_t straddling;  /* the instruction, if room is 2 and it has 4 bytes */
    unsigned max_insns;
};
/* Fill *block (BLOCK_OPS ops of room) but for its links; returns the number of ops used. */
unsigned block_build(struct hart *h, struct block *block, const struct block_source *source);

/* --- ops.c --- */

extern op_handler *const op_handlers[OP_KINDS];

/* A sequence of kinds that one handler does at one go. */
#define SEQUENCE_MAX 4
struct op_sequence {
    op_handler *run;
    uint8_t length;
    uint8_t kinds[SEQUENCE_MAX];
};
extern const struct op_sequence op_sequences[];
extern const unsigned op_sequence_count;

/* --- fuse.c: fewer dispatches --- */

/* The ops of a block under construction, by their places in it; chains are no ops. */
struct op_places {
    unsigned count;
    uint8_t kinds[BLOCK_OPS];
    uint16_t at[BLOCK_OPS];
};
/* Give ops that stand together handlers that do several of them. */
void fuse_ops(struct op *ops, const struct op_places *places);

/* --- trap.c --- */

/* Enter the trap handler of S mode. pc: sepc. */
void trap_enter(struct hart *h, uint64_t pc, uint64_t scause, uint64_t stval);
/* Take an interrupt that is pending, enabled and not masked, if any; h->pc is current. */
bool trap_take_interrupt(struct hart *h);
/* Would trap_take_interrupt do something, as far as is known without asking the clock? */
bool trap_interrupt_due(const struct hart *h);
uint64_t trap_sip(struct hart *h); /* sip as a program reads it */
void trap_set_priv(struct hart *h, enum shadow_priv priv);
bool trap_sret(struct hart *h); /* sets h->pc; false: illegal here */

/* --- csr.c --- */

/* Execute a Zicsr instruction. retired: instructions before this one. False: illegal. */
bool csr_execute(struct hart *h, uint32_t raw, uint64_t retired);
void csr_write_satp(struct hart *h, uint64_t value);
void csr_look_at_timer(struct hart *h);

#define SSTATUS_SIE  (UINT64_C(1) << 1)
#define SSTATUS_SPIE (UINT64_C(1) << 5)
#define SSTATUS_SPP  (UINT64_C(1) << 8)
#define SSTATUS_FS   (UINT64_C(3) << 13)
#define SSTATUS_SUM  (UINT64_C(1) << 18)
#define SSTATUS_MXR  (UINT64_C(1) << 19)
#define SSTATUS_UXL  (UINT64_C(2) << 32) /* read-only: 64 bits */
#define SSTATUS_SD   (UINT64_C(1) << 63)
#define SSTATUS_WRITABLE                                                                           \
    (SSTATUS_SIE | SSTATUS_SPIE | SSTATUS_SPP | SSTATUS_FS | SSTATUS_SUM | SSTATUS_MXR)
#define SIE_WRITABLE (IRQ_S_SOFT | IRQ_S_TIMER | IRQ_S_EXTERNAL)

/* --- fpu.c --- */

#define FFLAG_NX 1u
#define FFLAG_UF 2u
#define FFLAG_OF 4u
#define FFLAG_DZ 8u
#define FFLAG_NV 16u

/* Execute an F or D instruction other than loads and stores. FS is not looked at. False: illegal
 * (rounding mode). */
bool fpu_execute(struct hart *h, uint32_t raw);
uint32_t fpu_fflags(struct hart *h);
uint32_t fpu_fflags_at_rest(const struct hart *h); /* while hart_run does not run */
void fpu_restore(struct hart *h, uint32_t fcsr);   /* the same */
void fpu_set_fflags(struct hart *h, uint32_t fflags);
void fpu_set_frm(struct hart *h, uint32_t frm);
void fpu_enter(struct hart *h); /* the guest's MXCSR in, the host's saved */
void fpu_leave(struct hart *h);

#pragma GCC visibility pop

#endif
