/*
 * Decoding of 32-bit instructions: one small table a major opcode, indexed by
 * funct3 (and funct7 where it counts). An entry of 0 is OP_illegal.
 */
#include "vmm-core/hart/insn.h"

// clang-format off
static const uint8_t load_kinds[8] = { OP_lb, OP_lh, OP_lw, OP_ld, OP_lbu, OP_lhu, OP_lwu, 0 };
static const uint8_t store_kinds[8] = { OP_sb, OP_sh, OP_sw, OP_sd };
static const uint8_t branch_kinds[8] = { OP_beq, OP_bne, 0, 0, OP_blt, OP_bge, OP_bltu, OP_bgeu };
static const uint8_t imm_kinds[8] = { OP_addi, 0, OP_slti, OP_sltiu, OP_xori, 0, OP_ori, OP_andi };
static const uint8_t reg_kinds[8] = { OP_add, OP_sll, OP_slt, OP_sltu, OP_xor, OP_srl, OP_or, OP_and };
static const uint8_t mul_kinds[8] = { OP_mul, OP_mulh, OP_mulhsu, OP_mulhu,
                                      OP_div, OP_divu, OP_rem, OP_remu };
static const uint8_t reg_w_kinds[8] = { OP_addw, OP_sllw, 0, 0, 0, OP_srlw, 0, 0 };
static const uint8_t mul_w_kinds[8] = { OP_mulw, 0, 0, 0, OP_divw, OP_divuw, OP_remw, OP_remuw };
/* Indexed by funct5. */
static const uint8_t amo_w_kinds[32] = {
    [0x02] = OP_lr_w, [0x03] = OP_sc_w, [0x01] = OP_amoswap_w, [0x00] = OP_amoadd_w,
    [0x04] = OP_amoxor_w, [0x0c] = OP_amoand_w, [0x08] = OP_amoor_w, [0x10] = OP_amomin_w,
    [0x14] = OP_amomax_w, [0x18] = OP_amominu_w, [0x1c] = OP_amomaxu_w,
};

// clang-format on

static int32_t imm_i(uint32_t w)
{
    return (int32_t)w >> 20;
}
static int32_t imm_s(uint32_t w)
{
    return ((int32_t)w >> 25) * 32 + (int32_t)(w >> 7 & 31);
}
static int32_t imm_b(uint32_t w)
{
    return ((int32_t)w >> 31) * 4096 +
           (int32_t)((w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1);
}
static int32_t imm_j(uint32_t w)
{
    return ((int32_t)w >> 31) * (1 << 20) +
           (int32_t)((w >> 12 & 255) << 12 | (w >> 20 & 1) << 11 | (w >> 21 & 1023) << 1);
}

static uint8_t decode_shift(uint32_t w, bool word)
{
    uint32_t high = w >> (word ? 25 : 26); /* above the shift amount */
    uint32_t arithmetic = word ? 0x20 : 0x10;
    if ((w >> 12 & 7) == 1)
        return high ? OP_illegal : word ? OP_slliw : OP_slli;
    if (high == 0)
        return word ? OP_srliw : OP_srli;
    if (high == arithmetic)
        return word ? OP_sraiw : OP_srai;
    return OP_illegal;
}

static uint8_t decode_reg(uint32_t w, bool word)
{
    unsigned f3 = w >> 12 & 7, f7 = w >> 25;
    if (f7 == 0)
        return word ? reg_w_kinds[f3] : reg_kinds[f3];
    if (f7 == 1)
        return word ? mul_w_kinds[f3] : mul_kinds[f3];
    if (f7 == 0x20 && f3 == 0)
        return word ? OP_subw : OP_sub;
    if (f7 == 0x20 && f3 == 5)
        return word ? OP_sraw : OP_sra;
    return OP_illegal;
}

static uint8_t decode_amo(uint32_t w)
{
    unsigned f3 = w >> 12 & 7;
    uint8_t kind = amo_w_kinds[w >> 27];
    if (!kind || (kind == OP_lr_w && (w >> 20 & 31)) || (f3 != 2 && f3 != 3))
        return OP_illegal;
    return f3 == 2 ? kind : (uint8_t)(kind + (OP_lr_d - OP_lr_w));
}

static uint8_t decode_system(uint32_t w)
{
    unsigned f3 = w >> 12 & 7;
    if (f3 == 4)
        return OP_illegal;
    if (f3)
        return OP_csr;
    if ((w >> 25) == 0x09 && !(w >> 7 & 31))
        return OP_sfence_vma;
    switch (w) {
    case 0x00000073:
        return OP_ecall;
    case 0x00100073:
        return OP_ebreak;
    case 0x10200073:
        return OP_sret;
    case 0x10500073:
        return OP_wfi;
    default:
        return OP_illegal;
    }
}

// clang-format off
/* OP-FP (0x53): is this word one of F's or D's? A rounding mode of 5 or 6 is reserved. */
static bool fp_is_known(uint32_t w)
{
    unsigned f7 = w >> 25, rs2 = w >> 20 & 31, rm = w >> 12 & 7;
    bool rm_good = rm != 5 && rm != 6;
    if ((f7 & 3) > 1) /* neither single nor double */
        return false;
    switch (f7 >> 2) {
    case 0x00: case 0x01: case 0x02: case 0x03: return rm_good;          /* fadd fsub fmul fdiv */
    case 0x0b: return rm_good && rs2 == 0;                               /* fsqrt */
    case 0x04: return rm <= 2;                                           /* fsgnj fsgnjn fsgnjx */
    case 0x05: return rm <= 1;                                           /* fmin fmax */
    case 0x08: return rm_good && rs2 == ((f7 & 3) ^ 1);                  /* fcvt.s.d fcvt.d.s */
    case 0x14: return rm <= 2;                                           /* fle flt feq */
    case 0x18: case 0x1a: return rm_good && rs2 <= 3;                    /* fcvt to, from integer */
    case 0x1c: return rs2 == 0 && rm <= 1;                               /* fmv.x fclass */
    case 0x1e: return rs2 == 0 && rm == 0;                               /* fmv from x */
    default: return false;
    }
}

// clang-format on
static bool fma_is_known(uint32_t w)
{
    unsigned rm = w >> 12 & 7;
    return (w >> 25 & 3) <= 1 && rm != 5 && rm != 6;
}

// clang-format off
static void decode_wide(uint32_t w, struct insn *insn)
{
    unsigned f3 = w >> 12 & 7;
    insn->rd = w >> 7 & 31;
    insn->rs1 = w >> 15 & 31;
    insn->rs2 = w >> 20 & 31;
    insn->imm = imm_i(w);
    switch (w & 0x7f) {
    case 0x03: insn->kind = load_kinds[f3]; break;
    case 0x07: insn->kind = f3 == 2 ? OP_flw : f3 == 3 ? OP_fld : OP_illegal; break;
    case 0x0f: insn->kind = f3 == 0 ? OP_fence : f3 == 1 ? OP_fence_i : OP_illegal; break;
    case 0x13:
        insn->kind = imm_kinds[f3];
        if (f3 == 1 || f3 == 5) {
            insn->kind = decode_shift(w, false);
            insn->imm = w >> 20 & 63;
        }
        break;
    case 0x17: insn->kind = OP_auipc; insn->imm = (int32_t)(w & 0xfffff000); break;
    case 0x1b:
        insn->kind = OP_addiw;
        if (f3) {
            insn->kind = f3 == 1 || f3 == 5 ? decode_shift(w, true) : OP_illegal;
            insn->imm = w >> 20 & 31;
        }
        break;
    case 0x23: insn->kind = store_kinds[f3]; insn->imm = imm_s(w); break;
    case 0x27:
        insn->kind = f3 == 2 ? OP_fsw : f3 == 3 ? OP_fsd : OP_illegal;
        insn->imm = imm_s(w);
        break;
    case 0x2f: insn->kind = decode_amo(w); break;
    case 0x33: insn->kind = decode_reg(w, false); break;
    case 0x37: insn->kind = OP_lui; insn->imm = (int32_t)(w & 0xfffff000); break;
    case 0x3b: insn->kind = decode_reg(w, true); break;
    case 0x43: case 0x47: case 0x4b: case 0x4f:
        insn->kind = fma_is_known(w) ? OP_fp : OP_illegal;
        insn->imm = (int32_t)w;
        break;
    case 0x53:
        insn->kind = fp_is_known(w) ? OP_fp : OP_illegal;
        insn->imm = (int32_t)w;
        break;
    case 0x63: insn->kind = branch_kinds[f3]; insn->imm = imm_b(w); break;
    case 0x67: insn->kind = f3 == 0 ? OP_jalr : OP_illegal; break;
    case 0x6f: insn->kind = OP_jal; insn->imm = imm_j(w); break;
    case 0x73: insn->kind = decode_system(w); insn->imm = (int32_t)w; break;
    default: insn->kind = OP_illegal; break;
    }
}

// clang-format on
struct insn insn_decode(uint32_t bits)
{
    struct insn insn = {.kind = OP_illegal};
    bool wide = insn_is_wide((uint16_t)bits);
    insn.bytes = wide ? 4 : 2;
    insn.bits = wide ? bits : bits & 0xffff;
    insn.raw = wide ? bits : insn_expand((uint16_t)bits);
    if (insn.raw)
        decode_wide(insn.raw, &insn);
    if (insn.kind == OP_illegal)
        insn.imm = (int32_t)insn.bits;
    return insn;
}
