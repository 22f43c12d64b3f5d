/*
 * Compressed instructions (unprivileged manual, chapter 16): each stands for
 * one 32-bit instruction, and this file says which. One function a quadrant,
 * in the order of table 16.5 to 16.7. Hints expand to instructions that write
 * x0; reserved encodings give 0, which is itself illegal.
 */
#include "vmm-core/hart/insn.h"

/* Bits hi..lo of c, moved to start at bit `to`. */
static uint32_t field(uint16_t c, unsigned hi, unsigned lo, unsigned to)
{
    return (((uint32_t)c >> lo) & ((1u << (hi - lo + 1)) - 1)) << to;
}

static uint32_t sign_extend(uint32_t value, unsigned bits)
{
    uint32_t sign = 1u << (bits - 1);
    return (value ^ sign) - sign;
}

/* The formats of 32-bit instructions. */
static uint32_t r_type(uint32_t op, uint32_t f3, uint32_t f7, uint32_t rd, uint32_t rs1,
                       uint32_t rs2)
{
    return f7 << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op;
}
static uint32_t i_type(uint32_t op, uint32_t f3, uint32_t rd, uint32_t rs1, uint32_t imm)
{
    return imm << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op;
}
static uint32_t s_type(uint32_t op, uint32_t f3, uint32_t rs1, uint32_t rs2, uint32_t imm)
{
    return (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (imm & 0x1f) << 7 | op;
}
static uint32_t b_type(uint32_t f3, uint32_t rs1, uint32_t rs2, uint32_t imm)
{
    return (imm >> 12 & 1) << 31 | (imm >> 5 & 0x3f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 |
           (imm >> 1 & 0xf) << 8 | (imm >> 11 & 1) << 7 | 0x63;
}
static uint32_t j_type(uint32_t rd, uint32_t imm)
{
    return (imm >> 20 & 1) << 31 | (imm >> 1 & 0x3ff) << 21 | (imm >> 11 & 1) << 20 |
           (imm >> 12 & 0xff) << 12 | rd << 7 | 0x6f;
}

enum {
    LOAD = 0x03,
    LOAD_FP = 0x07,
    OP_IMM = 0x13,
    OP_IMM_32 = 0x1b,
    STORE = 0x23,
    STORE_FP = 0x27,
    OP_REG = 0x33,
    LUI = 0x37,
    OP_REG_32 = 0x3b,
    JALR = 0x67
};

// clang-format off
static uint32_t quadrant_0(uint16_t c)
{
    uint32_t rd = 8 + field(c, 4, 2, 0), rs1 = 8 + field(c, 9, 7, 0);
    uint32_t offset_w = field(c, 12, 10, 3) | field(c, 6, 6, 2) | field(c, 5, 5, 6);
    uint32_t offset_d = field(c, 12, 10, 3) | field(c, 6, 5, 6);
    uint32_t addi4spn = field(c, 12, 11, 4) | field(c, 10, 7, 6) | field(c, 6, 6, 2) |
                        field(c, 5, 5, 3);
    switch (c >> 13) {
    case 0: return addi4spn ? i_type(OP_IMM, 0, rd, 2, addi4spn) : 0; /* c.addi4spn */
    case 1: return i_type(LOAD_FP, 3, rd, rs1, offset_d);             /* c.fld */
    case 2: return i_type(LOAD, 2, rd, rs1, offset_w);                /* c.lw */
    case 3: return i_type(LOAD, 3, rd, rs1, offset_d);                /* c.ld */
    case 5: return s_type(STORE_FP, 3, rs1, rd, offset_d);            /* c.fsd */
    case 6: return s_type(STORE, 2, rs1, rd, offset_w);               /* c.sw */
    case 7: return s_type(STORE, 3, rs1, rd, offset_d);               /* c.sd */
    default: return 0;
    }
}

static uint32_t arithmetic(uint16_t c)
{
    uint32_t rd = 8 + field(c, 9, 7, 0), rs2 = 8 + field(c, 4, 2, 0);
    uint32_t shamt = field(c, 12, 12, 5) | field(c, 6, 2, 0);
    switch (field(c, 11, 10, 0)) {
    case 0: return i_type(OP_IMM, 5, rd, rd, shamt);                   /* c.srli */
    case 1: return i_type(OP_IMM, 5, rd, rd, shamt | 0x400);           /* c.srai */
    case 2: return i_type(OP_IMM, 7, rd, rd, sign_extend(shamt, 6));   /* c.andi */
    default: break;
    }
    switch (field(c, 12, 12, 2) | field(c, 6, 5, 0)) {
    case 0: return r_type(OP_REG, 0, 0x20, rd, rd, rs2);    /* c.sub */
    case 1: return r_type(OP_REG, 4, 0, rd, rd, rs2);       /* c.xor */
    case 2: return r_type(OP_REG, 6, 0, rd, rd, rs2);       /* c.or */
    case 3: return r_type(OP_REG, 7, 0, rd, rd, rs2);       /* c.and */
    case 4: return r_type(OP_REG_32, 0, 0x20, rd, rd, rs2); /* c.subw */
    case 5: return r_type(OP_REG_32, 0, 0, rd, rd, rs2);    /* c.addw */
    default: return 0;
    }
}

static uint32_t quadrant_1(uint16_t c)
{
    uint32_t rd = field(c, 11, 7, 0), rs1 = 8 + field(c, 9, 7, 0);
    uint32_t imm = sign_extend(field(c, 12, 12, 5) | field(c, 6, 2, 0), 6);
    uint32_t addi16sp = sign_extend(field(c, 12, 12, 9) | field(c, 6, 6, 4) | field(c, 5, 5, 6) |
                                    field(c, 4, 3, 7) | field(c, 2, 2, 5), 10);
    uint32_t jump = sign_extend(field(c, 12, 12, 11) | field(c, 11, 11, 4) | field(c, 10, 9, 8) |
                                field(c, 8, 8, 10) | field(c, 7, 7, 6) | field(c, 6, 6, 7) |
                                field(c, 5, 3, 1) | field(c, 2, 2, 5), 12);
    uint32_t branch = sign_extend(field(c, 12, 12, 8) | field(c, 11, 10, 3) | field(c, 6, 5, 6) |
                                  field(c, 4, 3, 1) | field(c, 2, 2, 5), 9);
    switch (c >> 13) {
    case 0: return i_type(OP_IMM, 0, rd, rd, imm);                 /* c.addi, c.nop */
    case 1: return rd ? i_type(OP_IMM_32, 0, rd, rd, imm) : 0;     /* c.addiw */
    case 2: return i_type(OP_IMM, 0, rd, 0, imm);                  /* c.li */
    case 3:
        if (!imm)
            return 0;
        return rd == 2 ? i_type(OP_IMM, 0, 2, 2, addi16sp)         /* c.addi16sp */
                       : (imm & 0xfffff) << 12 | rd << 7 | LUI;    /* c.lui */
    case 4: return arithmetic(c);
    case 5: return j_type(0, jump);                                /* c.j */
    case 6: return b_type(0, rs1, 0, branch);                      /* c.beqz */
    default: return b_type(1, rs1, 0, branch);                     /* c.bnez */
    }
}

static uint32_t quadrant_2(uint16_t c)
{
    uint32_t rd = field(c, 11, 7, 0), rs2 = field(c, 6, 2, 0);
    uint32_t shamt = field(c, 12, 12, 5) | field(c, 6, 2, 0);
    uint32_t lwsp = field(c, 12, 12, 5) | field(c, 6, 4, 2) | field(c, 3, 2, 6);
    uint32_t ldsp = field(c, 12, 12, 5) | field(c, 6, 5, 3) | field(c, 4, 2, 6);
    uint32_t swsp = field(c, 12, 9, 2) | field(c, 8, 7, 6);
    uint32_t sdsp = field(c, 12, 10, 3) | field(c, 9, 7, 6);
    switch (c >> 13) {
    case 0: return i_type(OP_IMM, 1, rd, rd, shamt);          /* c.slli */
    case 1: return i_type(LOAD_FP, 3, rd, 2, ldsp);           /* c.fldsp */
    case 2: return rd ? i_type(LOAD, 2, rd, 2, lwsp) : 0;     /* c.lwsp */
    case 3: return rd ? i_type(LOAD, 3, rd, 2, ldsp) : 0;     /* c.ldsp */
    case 4:
        if (!(c & 0x1000)) {
            if (rs2)
                return r_type(OP_REG, 0, 0, rd, 0, rs2);      /* c.mv */
            return rd ? i_type(JALR, 0, 0, rd, 0) : 0;        /* c.jr */
        }
        if (rs2)
            return r_type(OP_REG, 0, 0, rd, rd, rs2);         /* c.add */
        return rd ? i_type(JALR, 0, 1, rd, 0) : 0x00100073;   /* c.jalr, c.ebreak */
    case 5: return s_type(STORE_FP, 3, 2, rs2, sdsp);         /* c.fsdsp */
    case 6: return s_type(STORE, 2, 2, rs2, swsp);            /* c.swsp */
    default: return s_type(STORE, 3, 2, rs2, sdsp);           /* c.sdsp */
    }
}

// clang-format on
uint32_t insn_expand(uint16_t c)
{
    switch (c & 3) {
    case 0:
        return quadrant_0(c);
    case 1:
        return quadrant_1(c);
    case 2:
        return quadrant_2(c);
    default:
        return 0;
    }
}
