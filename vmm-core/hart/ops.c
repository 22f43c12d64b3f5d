/*
 * The interpreter: one handler a kind of op (op_list.h), each ending in a tail
 * call of the next op's handler.
 *
 * Read core.h first. Rules that keep handlers fast:
 *   - no handler takes the address of a local, so that every `return f(...)` is
 *     a jump and the stack does not grow (this file is always optimised, see
 *     meson.build);
 *   - whatever is not the common case is another function, marked COLD and
 *     tail-called with the same arguments, so that a handler saves no register;
 *   - nothing is written but the result.
 *
 * Arithmetic follows unprivileged manual chapters 2, 5 (RV64I) and 7 (M).
 */
#include "vmm-core/hart/core.h"

#define LIKELY(x)   __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define COLD        static __attribute__((noinline, cold))
#define INLINE      static inline __attribute__((always_inline))

#define HANDLER(name) static void op_##name(OP_ARGS)
#define NEXT          do { op += 1; return op->run(OP_PASS); } while (0)

#define RD  h->x[op->rd]
#define RS1 h->x[op->rs1]
#define RS2 h->x[op->rs2]
#define IMM ((uint64_t)(int64_t)op->imm)
#define SX32(value) ((uint64_t)(int64_t)(int32_t)(value)) /* sign-extended word */

/* --- leaving the chain of handlers --- */

/* Go back to hart_run; pc is the next instruction's. */
INLINE void leave(OP_ARGS)
{
    (void)op, (void)table, (void)block;
    h->pc = pc;
    h->budget = budget;
}

/* The trap in h->trap_cause happened at op: the instructions before it have retired. */
COLD void raise_trap(OP_ARGS)
{
    (void)table;
    h->pc = pc + 2 * (uint64_t)op->pcoff;
    h->budget = budget - block_insns_before(block, op->pcoff);
    if (!h->stopping)
        trap_enter(h, h->pc, h->trap_cause, h->trap_value);
}

/* The instruction at op traps with its own bits (kept in imm) as the value. */
COLD void raise_illegal(OP_ARGS)
{
    h->trap_cause = CAUSE_ILLEGAL;
    h->trap_value = (uint32_t)op->imm;
    return raise_trap(OP_PASS);
}

/* --- going to another block; pc is the target --- */

COLD void jump_miss(OP_ARGS)
{
    if (budget <= 0)
        return leave(OP_PASS);
    block = blocks_find(h, pc);
    if (!block) {
        h->pc = pc;
        h->budget = budget;
        if (!h->stopping)
            trap_enter(h, pc, h->trap_cause, h->trap_value);
        return;
    }
    op = block->ops;
    return op->run(OP_PASS);
}

INLINE void jump(OP_ARGS)
{
    const struct jump_entry *entry = &h->jumps[pc >> 1 & (JUMP_ENTRIES - 1)];
    if (LIKELY(entry->key == (pc ^ h->jump_key) && budget > 0)) {
        block = entry->block;
        op = block->ops;
        return op->run(OP_PASS);
    }
    return jump_miss(OP_PASS);
}

/* Follow a chain not made yet; op still is the jump. Make it if the target shares the page. */
COLD void chain_miss(OP_ARGS)
{
    if (budget <= 0)
        return leave(OP_PASS);
    uint32_t generation = h->flush_generation;
    const struct block *next = blocks_find(h, pc);
    if (!next)
        return jump_miss(OP_PASS); /* fails again, and raises */
    if (generation == h->flush_generation && !next->straddles && !block->dead &&
        next->pa == block->pa + IMM && (next->pa ^ block->pa) < PAGE_BYTES)
        ((struct chain *)(op + 1))->next = next;
    block = next;
    op = next->ops;
    return op->run(OP_PASS);
}

/* Take the jump at op after `retired` instructions of this block. */
INLINE void follow(OP_ARGS, unsigned retired)
{
    const struct block *next = ((const struct chain *)(op + 1))->next;
    budget -= retired;
    pc += IMM;
    if (LIKELY(next != NULL && budget > 0)) {
        block = next;
        op = next->ops;
        return op->run(OP_PASS);
    }
    return chain_miss(OP_PASS);
}

HANDLER(goto_next)
{
    return follow(OP_PASS, block->insns);
}

HANDLER(j_near)
{
    return follow(OP_PASS, block->insns);
}

HANDLER(jal_near)
{
    RD = pc + 2 * (uint64_t)op->rs2;
    return follow(OP_PASS, block->insns);
}

HANDLER(jal)
{
    RD = pc + 2 * (uint64_t)op->rs2;
    budget -= block->insns;
    pc += IMM;
    return jump(OP_PASS);
}

HANDLER(jalr)
{
    uint64_t target = (RS1 + IMM) & ~UINT64_C(1);
    RD = pc + 2 * (uint64_t)op->rs2;
    budget -= block->insns;
    pc = target;
    return jump(OP_PASS);
}

/* A conditional branch: rd holds the number of instructions up to and with it. */
#define BRANCH(name, condition)                                                                \
    HANDLER(name)                                                                              \
    {                                                                                          \
        if (condition)                                                                         \
            return follow(OP_PASS, op->rd);                                                    \
        op += 2;                                                                               \
        return op->run(OP_PASS);                                                               \
    }
BRANCH(beq, RS1 == RS2)
BRANCH(bne, RS1 != RS2)
BRANCH(blt, (int64_t)RS1 < (int64_t)RS2)
BRANCH(bge, (int64_t)RS1 >= (int64_t)RS2)
BRANCH(bltu, RS1 < RS2)
BRANCH(bgeu, RS1 >= RS2)

/* --- integer arithmetic --- */

#define ALU(name, value)                                                                       \
    HANDLER(name)                                                                              \
    {                                                                                          \
        RD = (value);                                                                          \
        NEXT;                                                                                  \
    }
ALU(li, IMM)
ALU(lui, IMM)
ALU(mv, RS1)
ALU(auipc, pc + IMM) /* imm counts from the block's start */
ALU(addi, RS1 + IMM)
ALU(slti, (int64_t)RS1 < (int64_t)IMM)
ALU(sltiu, RS1 < IMM)
ALU(xori, RS1 ^ IMM)
ALU(ori, RS1 | IMM)
ALU(andi, RS1 & IMM)
ALU(slli, RS1 << (op->imm & 63))
ALU(srli, RS1 >> (op->imm & 63))
ALU(srai, (uint64_t)((int64_t)RS1 >> (op->imm & 63)))
ALU(addiw, SX32(RS1 + IMM))
ALU(slliw, SX32((uint32_t)RS1 << (op->imm & 31)))
ALU(srliw, SX32((uint32_t)RS1 >> (op->imm & 31)))
ALU(sraiw, SX32((int32_t)RS1 >> (op->imm & 31)))
ALU(add, RS1 + RS2)
ALU(sub, RS1 - RS2)
ALU(sll, RS1 << (RS2 & 63))
ALU(slt, (int64_t)RS1 < (int64_t)RS2)
ALU(sltu, RS1 < RS2)
ALU(xor, RS1 ^ RS2)
ALU(srl, RS1 >> (RS2 & 63))
ALU(sra, (uint64_t)((int64_t)RS1 >> (RS2 & 63)))
ALU(or, RS1 | RS2)
ALU(and, RS1 & RS2)
ALU(addw, SX32(RS1 + RS2))
ALU(subw, SX32(RS1 - RS2))
ALU(sllw, SX32((uint32_t)RS1 << (RS2 & 31)))
ALU(srlw, SX32((uint32_t)RS1 >> (RS2 & 31)))
ALU(sraw, SX32((int32_t)RS1 >> (RS2 & 31)))

/* Division never traps: table 7.1 gives the results for zero and overflow. */
INLINE uint64_t div_signed(int64_t a, int64_t b)
{
    return b == 0 ? UINT64_MAX : b == -1 ? -(uint64_t)a : (uint64_t)(a / b);
}
INLINE uint64_t rem_signed(int64_t a, int64_t b)
{
    return b == 0 ? (uint64_t)a : b == -1 ? 0 : (uint64_t)(a % b);
}
INLINE uint64_t div_word(int32_t a, int32_t b)
{
    return b == 0 ? UINT64_MAX : b == -1 ? SX32(-(uint32_t)a) : SX32(a / b);
}
INLINE uint64_t rem_word(int32_t a, int32_t b)
{
    return b == 0 ? SX32(a) : b == -1 ? 0 : SX32(a % b);
}
INLINE uint64_t mulh_mixed(int64_t a, uint64_t b)
{
    return (uint64_t)((unsigned __int128)((__int128)a * (__int128)(unsigned __int128)b) >> 64);
}
ALU(mul, RS1 * RS2)
ALU(mulh, (uint64_t)(((__int128)(int64_t)RS1 * (int64_t)RS2) >> 64))
ALU(mulhsu, mulh_mixed((int64_t)RS1, RS2))
ALU(mulhu, (uint64_t)(((unsigned __int128)RS1 * RS2) >> 64))
ALU(div, div_signed((int64_t)RS1, (int64_t)RS2))
ALU(divu, RS2 ? RS1 / RS2 : UINT64_MAX)
ALU(rem, rem_signed((int64_t)RS1, (int64_t)RS2))
ALU(remu, RS2 ? RS1 % RS2 : RS1)
ALU(mulw, SX32(RS1 * RS2))
ALU(divw, div_word((int32_t)RS1, (int32_t)RS2))
ALU(divuw, (uint32_t)RS2 ? SX32((uint32_t)RS1 / (uint32_t)RS2) : UINT64_MAX)
ALU(remw, rem_word((int32_t)RS1, (int32_t)RS2))
ALU(remuw, (uint32_t)RS2 ? SX32((uint32_t)RS1 % (uint32_t)RS2) : SX32(RS1))

/* --- loads and stores --- */

/* As shadow_load_ptr and shadow_store_ptr, from what the handlers have at hand. */
INLINE void *load_ptr(const struct hart *h, const struct shadow_entry *table, uint64_t va,
                      unsigned size)
{
    const struct shadow_entry *e = &table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
    if (LIKELY(((va & (PAGE_MASK | (size - 1))) | h->user_bit) == e->load_tag))
        return (void *)(va + e->host_minus_va);
    return NULL;
}
INLINE void *store_ptr(const struct hart *h, const struct shadow_entry *table, uint64_t va,
                       unsigned size)
{
    const struct shadow_entry *e = &table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
    if (LIKELY(((va & (PAGE_MASK | (size - 1))) | h->user_bit) == e->store_tag))
        return (void *)(va + e->host_minus_va);
    return NULL;
}

/* type: what the memory holds; its conversion to uint64_t extends as the instruction does. */
#define LOAD(name, type, destination, prefix)                                                  \
    COLD void name##_slow(OP_ARGS)                                                             \
    {                                                                                          \
        struct loaded loaded = hart_load_slow(h, RS1 + IMM, sizeof(type));                     \
        if (!loaded.ok)                                                                        \
            return raise_trap(OP_PASS);                                                        \
        destination = prefix(uint64_t)(type)loaded.value;                                      \
        NEXT;                                                                                  \
    }                                                                                          \
    HANDLER(name)                                                                              \
    {                                                                                          \
        const type *from = load_ptr(h, table, RS1 + IMM, sizeof(type));                        \
        if (UNLIKELY(!from))                                                                   \
            return name##_slow(OP_PASS);                                                       \
        destination = prefix(uint64_t)*from;                                                   \
        NEXT;                                                                                  \
    }
#define NAN_BOX UINT64_C(0xffffffff00000000)
LOAD(lb, int8_t, RD, )
LOAD(lh, int16_t, RD, )
LOAD(lw, int32_t, RD, )
LOAD(ld, uint64_t, RD, )
LOAD(lbu, uint8_t, RD, )
LOAD(lhu, uint16_t, RD, )
LOAD(lwu, uint32_t, RD, )
LOAD(flw, uint32_t, h->f[op->rd], NAN_BOX |)
LOAD(fld, uint64_t, h->f[op->rd], )

#define STORE(name, type, source)                                                              \
    COLD void name##_slow(OP_ARGS)                                                             \
    {                                                                                          \
        if (!hart_store_slow(h, RS1 + IMM, sizeof(type), source))                              \
            return raise_trap(OP_PASS);                                                        \
        NEXT;                                                                                  \
    }                                                                                          \
    HANDLER(name)                                                                              \
    {                                                                                          \
        type *to = store_ptr(h, table, RS1 + IMM, sizeof(type));                               \
        if (UNLIKELY(!to))                                                                     \
            return name##_slow(OP_PASS);                                                       \
        *to = (type)(source);                                                                  \
        NEXT;                                                                                  \
    }
STORE(sb, uint8_t, RS2)
STORE(sh, uint16_t, RS2)
STORE(sw, uint32_t, RS2)
STORE(sd, uint64_t, RS2)
STORE(fsw, uint32_t, h->f[op->rs2])
STORE(fsd, uint64_t, h->f[op->rs2])

/* --- atomics (unprivileged manual 8): all are sequentially consistent, whatever aq and rl say */

INLINE void *atomic_ptr(struct hart *h, struct shadow_entry *table, uint64_t va, unsigned size)
{
    void *host = store_ptr(h, table, va, size);
    return LIKELY(host) ? host : hart_atomic_host(h, va, size, true);
}

/* One host instruction or compare-and-swap loop; `old` is the value before. */
#define AMO(name, type, operation)                                                             \
    HANDLER(name)                                                                              \
    {                                                                                          \
        type *at = atomic_ptr(h, table, RS1, sizeof(type));                                    \
        if (UNLIKELY(!at))                                                                     \
            return raise_trap(OP_PASS);                                                        \
        type operand = (type)RS2, old;                                                         \
        operation;                                                                             \
        RD = (uint64_t)(int64_t)old;                                                           \
        NEXT;                                                                                  \
    }
#define FETCH(builtin) old = __atomic_##builtin(at, operand, __ATOMIC_SEQ_CST)
#define PICK(condition)                                                                        \
    do                                                                                         \
        old = *(volatile __typeof__(old) *)at;                                                 \
    while (!__sync_bool_compare_and_swap(at, old, (condition) ? old : operand))
AMO(amoswap_w, int32_t, FETCH(exchange_n))
AMO(amoadd_w, int32_t, FETCH(fetch_add))
AMO(amoxor_w, int32_t, FETCH(fetch_xor))
AMO(amoand_w, int32_t, FETCH(fetch_and))
AMO(amoor_w, int32_t, FETCH(fetch_or))
AMO(amomin_w, int32_t, PICK(old < operand))
AMO(amomax_w, int32_t, PICK(old > operand))
AMO(amominu_w, int32_t, PICK((uint32_t)old < (uint32_t)operand))
AMO(amomaxu_w, int32_t, PICK((uint32_t)old > (uint32_t)operand))
AMO(amoswap_d, int64_t, FETCH(exchange_n))
AMO(amoadd_d, int64_t, FETCH(fetch_add))
AMO(amoxor_d, int64_t, FETCH(fetch_xor))
AMO(amoand_d, int64_t, FETCH(fetch_and))
AMO(amoor_d, int64_t, FETCH(fetch_or))
AMO(amomin_d, int64_t, PICK(old < operand))
AMO(amomax_d, int64_t, PICK(old > operand))
AMO(amominu_d, int64_t, PICK((uint64_t)old < (uint64_t)operand))
AMO(amomaxu_d, int64_t, PICK((uint64_t)old > (uint64_t)operand))

#define LOAD_RESERVED(name, type)                                                              \
    HANDLER(name)                                                                              \
    {                                                                                          \
        type *at = load_ptr(h, table, RS1, sizeof(type));                                      \
        if (UNLIKELY(!at))                                                                     \
            at = hart_atomic_host(h, RS1, sizeof(type), false);                                \
        if (UNLIKELY(!at))                                                                     \
            return raise_trap(OP_PASS);                                                        \
        type value = __atomic_load_n(at, __ATOMIC_SEQ_CST);                                    \
        h->reserved_host = at;                                                                 \
        h->reserved_value = (uint64_t)(int64_t)value;                                          \
        RD = (uint64_t)(int64_t)value;                                                         \
        NEXT;                                                                                  \
    }
LOAD_RESERVED(lr_w, int32_t)
LOAD_RESERVED(lr_d, int64_t)

/* Succeeds if the same place is reserved and still holds what LR read. */
#define STORE_CONDITIONAL(name, type)                                                          \
    HANDLER(name)                                                                              \
    {                                                                                          \
        type *at = atomic_ptr(h, table, RS1, sizeof(type));                                    \
        if (UNLIKELY(!at))                                                                     \
            return raise_trap(OP_PASS);                                                        \
        RD = !(at == h->reserved_host &&                                                       \
               __sync_bool_compare_and_swap(at, (type)h->reserved_value, (type)RS2));          \
        h->reserved_host = NULL;                                                               \
        NEXT;                                                                                  \
    }
STORE_CONDITIONAL(sc_w, int32_t)
STORE_CONDITIONAL(sc_d, int64_t)

HANDLER(fence)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    NEXT;
}

/* --- floating point --- */

HANDLER(fp_check)
{
    if (UNLIKELY(!(h->sstatus & SSTATUS_FS)))
        return raise_illegal(OP_PASS);
    NEXT;
}

HANDLER(fp_dirty)
{
    if (UNLIKELY(!(h->sstatus & SSTATUS_FS)))
        return raise_illegal(OP_PASS);
    h->sstatus |= SSTATUS_FS;
    NEXT;
}

HANDLER(fp)
{
    if (!fpu_execute(h, (uint32_t)op->imm))
        return raise_illegal(OP_PASS);
    NEXT;
}

/* --- instructions of the system; each ends its block --- */

HANDLER(csr)
{
    uint64_t retired =
        h->retire_limit - (uint64_t)budget + block_insns_before(block, op->pcoff);
    if (!csr_execute(h, (uint32_t)op->imm, retired))
        return raise_illegal(OP_PASS);
    if (UNLIKELY(h->leave)) {
        budget -= block->insns;
        pc += 2 * (uint64_t)op->rs2;
        return leave(OP_PASS);
    }
    NEXT; /* goto_next */
}

HANDLER(illegal)
{
    return raise_illegal(OP_PASS);
}

HANDLER(ecall)
{
    if (h->priv == SHADOW_U) {
        h->trap_cause = CAUSE_ECALL_U;
        h->trap_value = 0;
        return raise_trap(OP_PASS);
    }
    h->exit_wanted = true;
    h->exit = HART_EXIT_SBI;
    budget -= block->insns; /* the call counts as retired; pc stays at it */
    pc += 2 * (uint64_t)op->pcoff;
    return leave(OP_PASS);
}

HANDLER(ebreak)
{
    h->trap_cause = CAUSE_BREAKPOINT;
    h->trap_value = pc + 2 * (uint64_t)op->pcoff;
    return raise_trap(OP_PASS);
}

HANDLER(sret)
{
    if (!trap_sret(h))
        return raise_illegal(OP_PASS);
    budget -= block->insns;
    pc = h->pc;
    if (UNLIKELY(trap_interrupt_due(h)))
        return leave(OP_PASS);
    return jump(OP_PASS);
}

HANDLER(wfi)
{
    if (h->priv == SHADOW_U)
        return raise_illegal(OP_PASS);
    budget -= block->insns;
    pc += 2 * (uint64_t)op->rd;
    if (!hart_interrupt_ready(h)) {
        h->exit_wanted = true;
        h->exit = HART_EXIT_WFI;
    }
    return leave(OP_PASS);
}

/* Privileged manual 4.2.1. */
HANDLER(sfence_vma)
{
    if (h->priv == SHADOW_U)
        return raise_illegal(OP_PASS);
    bool va_given = op->rs1, asid_given = op->rs2;
    hart_lock(h);
    shadow_fence(h->shadow, va_given, RS1, asid_given, (uint16_t)RS2);
    hart_unlock(h);
    if (va_given)
        blocks_fence_va(h, RS1);
    else
        blocks_fence_all(h);
    budget -= block->insns;
    pc += 2 * (uint64_t)op->rd;
    return jump(OP_PASS);
}

/* Stores drop the code they overwrite as they happen; what is left to do is to look the next
 * block up afresh, which a jump does. */
HANDLER(fence_i)
{
    budget -= block->insns;
    pc += 2 * (uint64_t)op->rd;
    return jump(OP_PASS);
}

/* Kinds below end_of_insns that the builder replaces by others never run. */
#define op_end_of_insns op_illegal

op_handler *const op_handlers[OP_KINDS] = {
#define OP(name) [OP_##name] = op_##name,
#include "vmm-core/hart/op_list.h"
};
