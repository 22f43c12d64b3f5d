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
#define NEXT                                                                                       \
    do {                                                                                           \
        op += 1;                                                                                   \
        return op->run(OP_PASS);                                                                   \
    } while (0)

#define RD          h->x[op->rd]
#define RS1         h->x[op->rs1]
#define RS2         h->x[op->rs2]
#define IMM         ((uint64_t)(int64_t)op->imm)
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
    if (LIKELY(entry->key == (pc ^ h->jump_key) && pc_is_canonical(pc) && budget > 0)) {
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

/* --- steps ---
 *
 * A step is what one op does, as statements that end with `op` at the following
 * one: STEP_name. A handler is a step and a dispatch; a handler of a sequence of
 * ops (op_sequences.h) is several steps and one dispatch. A step that cannot go
 * on returns, with `op` still at its op.
 */

#define DISPATCH return op->run(OP_PASS)

/* --- jumps within blocks' reach --- */

INLINE void step_jal_near(OP_ARGS)
{
    RD = pc + 2 * (uint64_t)op->rs2;
    return follow(OP_PASS, block->insns);
}

INLINE void step_jal(OP_ARGS)
{
    RD = pc + 2 * (uint64_t)op->rs2;
    budget -= block->insns;
    pc += IMM;
    return jump(OP_PASS);
}

INLINE void step_jalr(OP_ARGS)
{
    uint64_t target = (RS1 + IMM) & ~UINT64_C(1);
    RD = pc + 2 * (uint64_t)op->rs2;
    budget -= block->insns;
    pc = target;
    return jump(OP_PASS);
}

// clang-format off
#define STEP_goto_next return follow(OP_PASS, block->insns)
#define STEP_j_near    return follow(OP_PASS, block->insns)
#define STEP_jal_near  return step_jal_near(OP_PASS)
#define STEP_jal       return step_jal(OP_PASS)
#define STEP_jalr      return step_jalr(OP_PASS)

/* A conditional branch: rd holds the number of instructions up to and with it. */
#define STEP_BRANCH(condition)                                                                 \
    if (condition)                                                                             \
        return follow(OP_PASS, op->rd);                                                        \
    op += 2
#define STEP_beq  STEP_BRANCH(RS1 == RS2)
#define STEP_bne  STEP_BRANCH(RS1 != RS2)
#define STEP_blt  STEP_BRANCH((int64_t)RS1 < (int64_t)RS2)
#define STEP_bge  STEP_BRANCH((int64_t)RS1 >= (int64_t)RS2)
#define STEP_bltu STEP_BRANCH(RS1 < RS2)
#define STEP_bgeu STEP_BRANCH(RS1 >= RS2)

/* --- integer arithmetic --- */

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

#define STEP_ALU(value)                                                                        \
    RD = (value);                                                                              \
    op += 1
#define STEP_li     STEP_ALU(IMM)
#define STEP_lui    STEP_ALU(IMM)
#define STEP_mv     STEP_ALU(RS1)
#define STEP_auipc  STEP_ALU(pc + IMM) /* imm counts from the block's start */
#define STEP_addi   STEP_ALU(RS1 + IMM)
#define STEP_slti   STEP_ALU((int64_t)RS1 < (int64_t)IMM)
#define STEP_sltiu  STEP_ALU(RS1 < IMM)
#define STEP_xori   STEP_ALU(RS1 ^ IMM)
#define STEP_ori    STEP_ALU(RS1 | IMM)
#define STEP_andi   STEP_ALU(RS1 & IMM)
#define STEP_slli   STEP_ALU(RS1 << (op->imm & 63))
#define STEP_srli   STEP_ALU(RS1 >> (op->imm & 63))
#define STEP_srai   STEP_ALU((uint64_t)((int64_t)RS1 >> (op->imm & 63)))
#define STEP_addiw  STEP_ALU(SX32(RS1 + IMM))
#define STEP_slliw  STEP_ALU(SX32((uint32_t)RS1 << (op->imm & 31)))
#define STEP_srliw  STEP_ALU(SX32((uint32_t)RS1 >> (op->imm & 31)))
#define STEP_sraiw  STEP_ALU(SX32((int32_t)RS1 >> (op->imm & 31)))
#define STEP_add    STEP_ALU(RS1 + RS2)
#define STEP_sub    STEP_ALU(RS1 - RS2)
#define STEP_sll    STEP_ALU(RS1 << (RS2 & 63))
#define STEP_slt    STEP_ALU((int64_t)RS1 < (int64_t)RS2)
#define STEP_sltu   STEP_ALU(RS1 < RS2)
#define STEP_xor    STEP_ALU(RS1 ^ RS2)
#define STEP_srl    STEP_ALU(RS1 >> (RS2 & 63))
#define STEP_sra    STEP_ALU((uint64_t)((int64_t)RS1 >> (RS2 & 63)))
#define STEP_or     STEP_ALU(RS1 | RS2)
#define STEP_and    STEP_ALU(RS1 & RS2)
#define STEP_addw   STEP_ALU(SX32(RS1 + RS2))
#define STEP_subw   STEP_ALU(SX32(RS1 - RS2))
#define STEP_sllw   STEP_ALU(SX32((uint32_t)RS1 << (RS2 & 31)))
#define STEP_srlw   STEP_ALU(SX32((uint32_t)RS1 >> (RS2 & 31)))
#define STEP_sraw   STEP_ALU(SX32((int32_t)RS1 >> (RS2 & 31)))
#define STEP_mul    STEP_ALU(RS1 * RS2)
#define STEP_mulh   STEP_ALU((uint64_t)(((__int128)(int64_t)RS1 * (int64_t)RS2) >> 64))
#define STEP_mulhsu STEP_ALU(mulh_mixed((int64_t)RS1, RS2))
#define STEP_mulhu  STEP_ALU((uint64_t)(((unsigned __int128)RS1 * RS2) >> 64))
#define STEP_div    STEP_ALU(div_signed((int64_t)RS1, (int64_t)RS2))
#define STEP_divu   STEP_ALU(RS2 ? RS1 / RS2 : UINT64_MAX)
#define STEP_rem    STEP_ALU(rem_signed((int64_t)RS1, (int64_t)RS2))
#define STEP_remu   STEP_ALU(RS2 ? RS1 % RS2 : RS1)
#define STEP_mulw   STEP_ALU(SX32(RS1 * RS2))
#define STEP_divw   STEP_ALU(div_word((int32_t)RS1, (int32_t)RS2))
#define STEP_divuw  STEP_ALU((uint32_t)RS2 ? SX32((uint32_t)RS1 / (uint32_t)RS2) : UINT64_MAX)
#define STEP_remw   STEP_ALU(rem_word((int32_t)RS1, (int32_t)RS2))
#define STEP_remuw  STEP_ALU((uint32_t)RS2 ? SX32((uint32_t)RS1 % (uint32_t)RS2) : SX32(RS1))
/* Made of two instructions by the block builder. */
#define STEP_shift_pair STEP_ALU(RS1 << (op->imm & 63) >> (op->imm >> 8 & 63)) /* slli, srli */
#define STEP_shift_add  STEP_ALU((RS1 << (op->imm & 63)) + RS2)                /* slli, add */

/* --- loads and stores --- */

/* As shadow_load_ptr and shadow_store_ptr, from what the handlers have at hand. */
INLINE const struct shadow_entry *entry_of(const struct shadow_entry *table, uint64_t va)
{
    return &table[(va >> PAGE_SHIFT) & (SHADOW_ENTRIES - 1)];
}
INLINE uint64_t tag_of(const struct hart *h, uint64_t va, unsigned size)
{
    return (va & (PAGE_MASK | (size - 1))) | h->user_bit;
}

/* type: what the memory holds; its conversion to uint64_t extends as the instruction does. */
#define STEP_LOAD(name, type, destination, prefix)                                             \
    do {                                                                                       \
        uint64_t va = RS1 + IMM;                                                               \
        const struct shadow_entry *entry = entry_of(table, va);                                \
        if (UNLIKELY(tag_of(h, va, sizeof(type)) != entry->load_tag))                          \
            return name##_slow(OP_PASS);                                                       \
        destination = prefix(uint64_t) * (const type *)(va + entry->host_minus_va);            \
        op += 1;                                                                               \
    } while (0)
#define LOAD_SLOW(name, type, destination, prefix)                                             \
    COLD void name##_slow(OP_ARGS)                                                             \
    {                                                                                          \
        struct loaded loaded = hart_load_slow(h, RS1 + IMM, sizeof(type));                     \
        if (!loaded.ok)                                                                        \
            return raise_trap(OP_PASS);                                                        \
        destination = prefix(uint64_t)(type)loaded.value;                                      \
        NEXT;                                                                                  \
    }
#define NAN_BOX UINT64_C(0xffffffff00000000)
LOAD_SLOW(lb, int8_t, RD, )
#define STEP_lb STEP_LOAD(lb, int8_t, RD, )
LOAD_SLOW(lh, int16_t, RD, )
#define STEP_lh STEP_LOAD(lh, int16_t, RD, )
LOAD_SLOW(lw, int32_t, RD, )
#define STEP_lw STEP_LOAD(lw, int32_t, RD, )
LOAD_SLOW(ld, uint64_t, RD, )
#define STEP_ld STEP_LOAD(ld, uint64_t, RD, )
LOAD_SLOW(lbu, uint8_t, RD, )
#define STEP_lbu STEP_LOAD(lbu, uint8_t, RD, )
LOAD_SLOW(lhu, uint16_t, RD, )
#define STEP_lhu STEP_LOAD(lhu, uint16_t, RD, )
LOAD_SLOW(lwu, uint32_t, RD, )
#define STEP_lwu STEP_LOAD(lwu, uint32_t, RD, )
LOAD_SLOW(flw, uint32_t, h->f[op->rd], NAN_BOX |)
#define STEP_flw STEP_LOAD(flw, uint32_t, h->f[op->rd], NAN_BOX |)
LOAD_SLOW(fld, uint64_t, h->f[op->rd], )
#define STEP_fld STEP_LOAD(fld, uint64_t, h->f[op->rd], )

#define STEP_STORE(name, type, source)                                                         \
    do {                                                                                       \
        uint64_t va = RS1 + IMM;                                                               \
        const struct shadow_entry *entry = entry_of(table, va);                                \
        if (UNLIKELY(tag_of(h, va, sizeof(type)) != entry->store_tag))                         \
            return name##_slow(OP_PASS);                                                       \
        *(type *)(va + entry->host_minus_va) = (type)(source);                                 \
        op += 1;                                                                               \
    } while (0)
#define STORE_SLOW(name, type, source)                                                         \
    COLD void name##_slow(OP_ARGS)                                                             \
    {                                                                                          \
        h->pc = pc + 2 * (uint64_t)op->pcoff; /* for hart_access_pc */                         \
        if (!hart_store_slow(h, RS1 + IMM, sizeof(type), source))                              \
            return raise_trap(OP_PASS);                                                        \
        NEXT;                                                                                  \
    }
STORE_SLOW(sb, uint8_t, RS2)
#define STEP_sb STEP_STORE(sb, uint8_t, RS2)
STORE_SLOW(sh, uint16_t, RS2)
#define STEP_sh STEP_STORE(sh, uint16_t, RS2)
STORE_SLOW(sw, uint32_t, RS2)
#define STEP_sw STEP_STORE(sw, uint32_t, RS2)
STORE_SLOW(sd, uint64_t, RS2)
#define STEP_sd STEP_STORE(sd, uint64_t, RS2)
STORE_SLOW(fsw, uint32_t, h->f[op->rs2])
#define STEP_fsw STEP_STORE(fsw, uint32_t, h->f[op->rs2])
STORE_SLOW(fsd, uint64_t, h->f[op->rs2])
#define STEP_fsd STEP_STORE(fsd, uint64_t, h->f[op->rs2])

/* --- the plain handlers --- */

#define PLAIN(name)                                                                            \
    HANDLER(name)                                                                              \
    {                                                                                          \
        STEP_##name;                                                                           \
        DISPATCH;                                                                              \
    }
PLAIN(goto_next) PLAIN(j_near) PLAIN(jal_near) PLAIN(jal) PLAIN(jalr)
PLAIN(beq) PLAIN(bne) PLAIN(blt) PLAIN(bge) PLAIN(bltu) PLAIN(bgeu)
PLAIN(li) PLAIN(lui) PLAIN(mv) PLAIN(auipc) PLAIN(addi) PLAIN(slti) PLAIN(sltiu)
PLAIN(xori) PLAIN(ori) PLAIN(andi) PLAIN(slli) PLAIN(srli) PLAIN(srai) PLAIN(addiw)
PLAIN(slliw) PLAIN(srliw) PLAIN(sraiw) PLAIN(add) PLAIN(sub) PLAIN(sll) PLAIN(slt)
PLAIN(sltu) PLAIN(xor) PLAIN(srl) PLAIN(sra) PLAIN(or) PLAIN(and) PLAIN(addw) PLAIN(subw)
PLAIN(sllw) PLAIN(srlw) PLAIN(sraw) PLAIN(mul) PLAIN(mulh) PLAIN(mulhsu) PLAIN(mulhu)
PLAIN(div) PLAIN(divu) PLAIN(rem) PLAIN(remu) PLAIN(mulw) PLAIN(divw) PLAIN(divuw)
PLAIN(remw) PLAIN(remuw) PLAIN(shift_pair) PLAIN(shift_add) PLAIN(lb) PLAIN(lh) PLAIN(lw)
PLAIN(ld) PLAIN(lbu) PLAIN(lhu) PLAIN(lwu) PLAIN(flw) PLAIN(fld) PLAIN(sb) PLAIN(sh)
PLAIN(sw) PLAIN(sd) PLAIN(fsw) PLAIN(fsd)

/*
 * Runs of ld or of sd from one base register, as functions save and restore
 * registers: one look-up for all. The builder has seen that the offsets differ by
 * multiples of 8 and lie between the first op's and the last op's, and that no
 * load but the last writes the base. If the run leaves the page, or the look-up
 * misses, the ops are done one by one.
 */
#define RUN_BEGIN(count, which_tag)                                                            \
    uint64_t base = RS1, va = base + IMM;                                                      \
    uint64_t last_va = base + (uint64_t)(int64_t)op[count - 1].imm;                            \
    const struct shadow_entry *entry = entry_of(table, va);                                    \
    if (UNLIKELY(tag_of(h, va, 8) != entry->which_tag || ((va ^ last_va) & PAGE_MASK)))
#define RUN_PLACE(i)  (*(uint64_t *)(base + (uint64_t)(int64_t)op[i].imm + entry->host_minus_va))
#define RUN_LOAD(i)   h->x[op[i].rd] = RUN_PLACE(i)
#define RUN_STORE(i)  RUN_PLACE(i) = h->x[op[i].rs2]
#define LOAD_RUN(count, ...)                                                                   \
    HANDLER(ld_##count)                                                                        \
    {                                                                                          \
        RUN_BEGIN(count, load_tag)                                                             \
            return op_ld(OP_PASS);                                                             \
        __VA_ARGS__;                                                                           \
        op += count;                                                                           \
        DISPATCH;                                                                              \
    }
#define STORE_RUN(count, ...)                                                                  \
    HANDLER(sd_##count)                                                                        \
    {                                                                                          \
        RUN_BEGIN(count, store_tag)                                                            \
            return op_sd(OP_PASS);                                                             \
        __VA_ARGS__;                                                                           \
        op += count;                                                                           \
        DISPATCH;                                                                              \
    }
LOAD_RUN(2, RUN_LOAD(0), RUN_LOAD(1))
LOAD_RUN(3, RUN_LOAD(0), RUN_LOAD(1), RUN_LOAD(2))
LOAD_RUN(4, RUN_LOAD(0), RUN_LOAD(1), RUN_LOAD(2), RUN_LOAD(3))
STORE_RUN(2, RUN_STORE(0), RUN_STORE(1))
STORE_RUN(3, RUN_STORE(0), RUN_STORE(1), RUN_STORE(2))
STORE_RUN(4, RUN_STORE(0), RUN_STORE(1), RUN_STORE(2), RUN_STORE(3))

/* --- sequences of ops with one handler: op_sequences.h --- */

#define SEQ2(a, b)                                                                             \
    static void seq_##a##_##b(OP_ARGS)                                                         \
    {                                                                                          \
        STEP_##a;                                                                              \
        STEP_##b;                                                                              \
        DISPATCH;                                                                              \
    }
#define SEQ3(a, b, c)                                                                          \
    static void seq_##a##_##b##_##c(OP_ARGS)                                                   \
    {                                                                                          \
        STEP_##a;                                                                              \
        STEP_##b;                                                                              \
        STEP_##c;                                                                              \
        DISPATCH;                                                                              \
    }
#define SEQ4(a, b, c, d)                                                                       \
    static void seq_##a##_##b##_##c##_##d(OP_ARGS)                                             \
    {                                                                                          \
        STEP_##a;                                                                              \
        STEP_##b;                                                                              \
        STEP_##c;                                                                              \
        STEP_##d;                                                                              \
        DISPATCH;                                                                              \
    }
#include "vmm-core/hart/op_sequences.h"
#undef SEQ2
#undef SEQ3
#undef SEQ4

const struct op_sequence op_sequences[] = {
#define SEQ2(a, b)       { seq_##a##_##b, 2, { OP_##a, OP_##b } },
#define SEQ3(a, b, c)    { seq_##a##_##b##_##c, 3, { OP_##a, OP_##b, OP_##c } },
#define SEQ4(a, b, c, d) { seq_##a##_##b##_##c##_##d, 4, { OP_##a, OP_##b, OP_##c, OP_##d } },
#include "vmm-core/hart/op_sequences.h"
};
const unsigned op_sequence_count = sizeof op_sequences / sizeof op_sequences[0];

// clang-format on

/* --- atomics (unprivileged manual 8): all are sequentially consistent, whatever aq and rl say */

INLINE void *atomic_ptr(OP_ARGS, unsigned size)
{
    uint64_t va = RS1;
    const struct shadow_entry *entry = entry_of(table, va);
    if (LIKELY(tag_of(h, va, size) == entry->store_tag))
        return (void *)(va + entry->host_minus_va);
    (void)budget, (void)block;
    h->pc = pc + 2 * (uint64_t)op->pcoff; /* for hart_access_pc */
    return hart_atomic_host(h, va, size, true);
}

/* One host instruction or compare-and-swap loop; `old` is the value before. */
#define AMO(name, type, operation)                                                                 \
    HANDLER(name)                                                                                  \
    {                                                                                              \
        type *at = atomic_ptr(OP_PASS, sizeof(type));                                              \
        if (UNLIKELY(!at))                                                                         \
            return raise_trap(OP_PASS);                                                            \
        type operand = (type)RS2, old;                                                             \
        operation;                                                                                 \
        RD = (uint64_t)(int64_t)old;                                                               \
        NEXT;                                                                                      \
    }
#define FETCH(builtin) old = __atomic_##builtin(at, operand, __ATOMIC_SEQ_CST)
#define PICK(condition)                                                                            \
    do                                                                                             \
        old = *(volatile __typeof__(old) *)at;                                                     \
    while (!__sync_bool_compare_and_swap(at, old, (condition) ? old : operand))
// clang-format off
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
// clang-format on

#define LOAD_RESERVED(name, type)                                                                  \
    HANDLER(name)                                                                                  \
    {                                                                                              \
        const struct shadow_entry *entry = entry_of(table, RS1);                                   \
        type *at = (type *)(RS1 + entry->host_minus_va);                                           \
        if (UNLIKELY(tag_of(h, RS1, sizeof(type)) != entry->load_tag))                             \
            at = hart_atomic_host(h, RS1, sizeof(type), false);                                    \
        if (UNLIKELY(!at))                                                                         \
            return raise_trap(OP_PASS);                                                            \
        type value = __atomic_load_n(at, __ATOMIC_SEQ_CST);                                        \
        h->reserved_va = RS1;                                                                      \
        h->reserved_host = at;                                                                     \
        h->reserved_value = (uint64_t)(int64_t)value;                                              \
        RD = (uint64_t)(int64_t)value;                                                             \
        NEXT;                                                                                      \
    }
LOAD_RESERVED(lr_w, int32_t)
LOAD_RESERVED(lr_d, int64_t)

/* Succeeds if the same place is reserved and still holds what LR read. */
#define STORE_CONDITIONAL(name, type)                                                              \
    HANDLER(name)                                                                                  \
    {                                                                                              \
        type *at = atomic_ptr(OP_PASS, sizeof(type));                                              \
        if (UNLIKELY(!at))                                                                         \
            return raise_trap(OP_PASS);                                                            \
        RD = !(at == h->reserved_host && RS1 == h->reserved_va &&                                  \
               __sync_bool_compare_and_swap(at, (type)h->reserved_value, (type)RS2));              \
        h->reserved_host = NULL;                                                                   \
        NEXT;                                                                                      \
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
    uint64_t retired = h->retire_limit - (uint64_t)budget + block_insns_before(block, op->pcoff);
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
    csr_look_at_timer(h);
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
    blocks_fence(h, va_given, RS1, asid_given, (uint16_t)RS2);
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
