/*
 * The block builder: reads instructions one after the other and appends the ops
 * that do their work.
 *
 * A block goes on past a conditional branch that is not taken, up to
 * MAX_SIDE_EXITS of them, and ends at a jump, at an instruction that may change
 * how the following ones are found or decoded, at the end of its page, or when
 * it is full. Instructions that do nothing make no op; they still count, in the
 * map of starts.
 */
#include "vmm-core/hart/core.h"

#include <string.h>

#define MAX_SIDE_EXITS 8

struct builder {
    struct hart *h;
    struct block *block;
    unsigned ops;   /* used so far */
    unsigned pcoff; /* of the instruction at hand, in halfwords */
    unsigned end;   /* of the one after it */
    unsigned side_exits;
    bool fp_checked, fp_dirtied;
    bool ended;
    struct insn before; /* the previous instruction; kind 0 if its op cannot be folded into */
    struct op_places places;
};

static struct op *append(struct builder *b, enum op_kind kind)
{
    b->places.at[b->places.count] = (uint16_t)b->ops;
    b->places.kinds[b->places.count++] = (uint8_t)kind;
    struct op *op = &b->block->ops[b->ops++];
    op->run = op_handlers[kind];
    op->operands = 0;
    op->pcoff = (uint8_t)b->pcoff;
    return op;
}

static void append_chain(struct builder *b)
{
    struct chain *chain = (struct chain *)&b->block->ops[b->ops++];
    chain->next = NULL;
    chain->unused = 0;
}

static uint8_t sink(uint8_t rd)
{
    return rd ? rd : X_SINK;
}

/* The plain form: all operands as decoded. */
static struct op *append_plain(struct builder *b, enum op_kind kind, const struct insn *insn)
{
    struct op *op = append(b, kind);
    op->rd = sink(insn->rd);
    op->rs1 = insn->rs1;
    op->rs2 = insn->rs2;
    op->imm = insn->imm;
    return op;
}

static void append_li(struct builder *b, uint8_t rd, int32_t value)
{
    struct op *op = append(b, OP_li);
    op->rd = rd;
    op->imm = value;
}

static void append_mv(struct builder *b, uint8_t rd, uint8_t rs1)
{
    struct op *op = append(b, OP_mv);
    op->rd = rd;
    op->rs1 = rs1;
}

/* Offset, from the block's start, of what lies `imm` from the instruction at hand. */
static int32_t from_start(const struct builder *b, int32_t imm)
{
    return (int32_t)(2 * b->pcoff) + imm;
}

static bool same_page(const struct builder *b, int32_t offset)
{
    return ((b->block->pa + (uint64_t)(int64_t)offset) ^ b->block->pa) < PAGE_BYTES;
}

static void append_branch(struct builder *b, const struct insn *insn)
{
    struct op *op = append(b, insn->kind);
    op->rd = (uint8_t)b->block->insns;
    op->rs1 = insn->rs1;
    op->rs2 = insn->rs2;
    op->imm = from_start(b, insn->imm);
    append_chain(b);
    b->side_exits++;
}

static void append_jump(struct builder *b, const struct insn *insn)
{
    int32_t offset = from_start(b, insn->imm);
    bool near = same_page(b, offset);
    struct op *op = append(b, !near ? OP_jal : insn->rd ? OP_jal_near : OP_j_near);
    op->rd = sink(insn->rd);
    op->rs2 = (uint8_t)b->end;
    op->imm = offset;
    if (near)
        append_chain(b);
    b->ended = true;
}

/* sstatus.FS is looked at once a block, not once an instruction: nothing inside a block changes
 * it. Marking Dirty too early is allowed (privileged manual 3.1.6.6). */
static void append_fp_check(struct builder *b, const struct insn *insn, bool writes)
{
    if (writes && !b->fp_dirtied) {
        append(b, OP_fp_dirty)->imm = (int32_t)insn->bits;
        b->fp_dirtied = b->fp_checked = true;
    } else if (!b->fp_checked) {
        append(b, OP_fp_check)->imm = (int32_t)insn->bits;
        b->fp_checked = true;
    }
}

/* fmv.x.w, fmv.x.d and fclass leave the floating-point state as it was. */
static bool fp_only_reads(uint32_t raw)
{
    return (raw & 0x7f) == 0x53 && raw >> 27 == 0x1c;
}

static void append_fp(struct builder *b, const struct insn *insn)
{
    append_fp_check(b, insn, !fp_only_reads(insn->raw));
    append_plain(b, OP_fp, insn);
}

static void append_fp_memory(struct builder *b, const struct insn *insn)
{
    append_fp_check(b, insn, insn->kind == OP_flw || insn->kind == OP_fld);
    struct op *op = append_plain(b, insn->kind, insn);
    op->rd = insn->rd; /* f0 is a register as any other */
}

/* Instructions without any effect when rd is x0. */
static bool only_writes_rd(unsigned kind)
{
    return kind == OP_lui || kind == OP_auipc || (kind >= OP_addi && kind <= OP_sraw) ||
           (kind >= OP_mul && kind <= OP_remuw);
}

/* Take the last op back: what follows writes the same register from the same sources. */
static void take_back(struct builder *b)
{
    b->ops--;
    b->places.count--;
}

/*
 * Two instructions as one op, where the second overwrites the result of the
 * first: lui or auipc with addi, a shift pair, a scaled index. And a jump through
 * a register that auipc has just set is a direct jump. Neither instruction of
 * such a pair can trap, so that no one sees the state in between.
 */
static bool fold(struct builder *b, const struct insn *insn)
{
    const struct insn *before = &b->before;
    struct op *last = b->ops ? &b->block->ops[b->ops - 1] : NULL;
    bool uses = insn->rs1 == before->rd || (insn->kind == OP_add && insn->rs2 == before->rd);
    if (before->kind == OP_illegal || before->rd == 0 || !uses)
        return false;
    if (insn->kind == OP_jalr && before->kind == OP_auipc) {
        int64_t offset = ((int64_t)last->imm + insn->imm - (int64_t)(2 * b->pcoff)) & ~1;
        struct insn jump = *insn;
        jump.imm = (int32_t)offset;
        if (jump.imm != offset || offset > INT32_MAX - (int32_t)(2 * BLOCK_HALFWORDS))
            return false;
        append_jump(b, &jump);
        return true;
    }
    if (insn->rd != before->rd)
        return false;
    switch (insn->kind) {
    case OP_addi:
    case OP_addiw: {
        int64_t sum = (int64_t)last->imm + insn->imm;
        if (insn->kind == OP_addiw)
            sum = (int32_t)sum;
        if (sum != (int32_t)sum ||
            !(before->kind == OP_lui || (before->kind == OP_auipc && insn->kind == OP_addi)))
            return false;
        last->imm = (int32_t)sum;
        return true;
    }
    case OP_srli: {
        if (before->kind != OP_slli)
            return false;
        take_back(b);
        struct op *op = append_plain(b, OP_shift_pair, before);
        op->imm = before->imm | insn->imm << 8;
        return true;
    }
    case OP_add: {
        if (before->kind != OP_slli || insn->rs1 == insn->rs2)
            return false;
        take_back(b);
        struct op *op = append_plain(b, OP_shift_add, before);
        op->rs2 = insn->rs1 == before->rd ? insn->rs2 : insn->rs1;
        return true;
    }
    default:
        return false;
    }
}

static void append_insn(struct builder *b, const struct insn *insn)
{
    if (insn->rd == 0 && only_writes_rd(insn->kind))
        return;
    if (fold(b, insn))
        return;
    switch (insn->kind) {
    case OP_lui:
        append_li(b, insn->rd, insn->imm);
        break;
    case OP_auipc: {
        struct op *op = append_plain(b, OP_auipc, insn);
        op->imm = from_start(b, insn->imm);
        break;
    }
    case OP_addi:
        if (!insn->rs1)
            append_li(b, insn->rd, insn->imm);
        else if (!insn->imm)
            append_mv(b, insn->rd, insn->rs1);
        else
            append_plain(b, OP_addi, insn);
        break;
    case OP_add:
        if (!insn->rs1 || !insn->rs2)
            append_mv(b, insn->rd, insn->rs1 | insn->rs2);
        else
            append_plain(b, OP_add, insn);
        break;
    case OP_beq:
    case OP_bne:
    case OP_blt:
    case OP_bge:
    case OP_bltu:
    case OP_bgeu:
        append_branch(b, insn);
        if (insn->imm < 0 || b->side_exits >= MAX_SIDE_EXITS)
            b->ended = true; /* a loop's end is seldom fallen through */
        if (b->ended) {
            append(b, OP_goto_next)->imm = (int32_t)(2 * b->end);
            append_chain(b);
        }
        break;
    case OP_jal:
        append_jump(b, insn);
        break;
    case OP_jalr:
        append_plain(b, OP_jalr, insn)->rs2 = (uint8_t)b->end;
        b->ended = true;
        break;
    case OP_fence:
        /* Only store-to-load order needs a host fence (x86-64's order is TSO); pred and succ
         * are IORW in bits 7..4 and 3..0, device bits counted as memory. */
        if ((insn->imm & 0x50) && (insn->imm & 0x0a) && (insn->imm & 0xf00) == 0)
            append(b, OP_fence);
        break;
    case OP_csr:
        append_plain(b, OP_csr, insn)->rs2 = (uint8_t)b->end;
        append(b, OP_goto_next)->imm = (int32_t)(2 * b->end);
        append_chain(b);
        b->ended = true;
        break;
    case OP_illegal:
    case OP_ecall:
    case OP_ebreak:
    case OP_sret:
    case OP_wfi:
    case OP_sfence_vma:
    case OP_fence_i: {
        struct op *op = append_plain(b, insn->kind, insn);
        op->rd = (uint8_t)b->end; /* none of these has a destination */
        b->ended = true;
        break;
    }
    case OP_flw:
    case OP_fld:
    case OP_fsw:
    case OP_fsd:
        append_fp_memory(b, insn);
        break;
    case OP_fp:
        append_fp(b, insn);
        break;
    default:
        append_plain(b, insn->kind, insn);
        break;
    }
}

/* The instruction bits at byte offset `at`; false if they are not wholly in the page. */
static bool read_bits(const struct block_source *source, unsigned at, uint32_t *bits)
{
    uint16_t low, high;
    if (at + 2 > source->room)
        return false;
    memcpy(&low, source->bytes + at, 2);
    *bits = low;
    if (!insn_is_wide(low))
        return true;
    if (at + 4 > source->room) {
        *bits = source->straddling;
        return at == 0 && source->room == 2;
    }
    memcpy(&high, source->bytes + at + 2, 2);
    *bits |= (uint32_t)high << 16;
    return true;
}

unsigned block_build(struct hart *h, struct block *block, const struct block_source *source)
{
    struct builder b; /* places is large: set what is read */
    b.h = h;
    b.block = block;
    b.ops = b.pcoff = b.end = b.side_exits = 0;
    b.fp_checked = b.fp_dirtied = b.ended = false;
    b.before = (struct insn){.kind = OP_illegal};
    b.places.count = 0;
    unsigned end = 0;
    uint32_t bits;
    block->insns = 0;
    block->starts[0] = block->starts[1] = 0;
    while (!b.ended && end + 2 <= BLOCK_HALFWORDS && block->insns < source->max_insns &&
           read_bits(source, 2 * end, &bits)) {
        struct insn insn = insn_decode(bits);
        b.pcoff = end;
        b.end = end = end + insn.bytes / 2;
        block->starts[b.pcoff / 64] |= UINT64_C(1) << (b.pcoff % 64);
        block->insns++;
        unsigned ops_before = b.ops;
        append_insn(&b, &insn);
        b.before = insn;
        if (b.ops != ops_before + 1) /* folded, or no op: do not fold into it again */
            b.before.kind = OP_illegal;
    }
    if (!b.ended) {
        append(&b, OP_goto_next)->imm = (int32_t)(2 * end);
        append_chain(&b);
    }
    fuse_ops(block->ops, &b.places);
    return b.ops;
}
