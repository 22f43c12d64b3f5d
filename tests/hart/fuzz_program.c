/*
 * Random programs over all of rv64gc that neither loop for ever nor touch memory
 * outside their window.
 *
 * Registers with a part to play, which no generated instruction writes:
 *   x2, x8, x9   point into the window, anywhere (misaligned accesses, page
 *                crossings); compressed loads and stores use the same
 *   x10, x11     point at 16-byte aligned places of the window, for atomics
 *   x12          counter of the loop being generated
 *   x13          holds the target of an indirect jump just before it
 * All others hold random and special values. Jumps and branches go forward,
 * except the back edge of a counted loop.
 */
#include "tests/hart/fuzz_program.h"

#include "vmm-core/hart/insn.h"

#include <stdbool.h>
#include <string.h>

struct program {
    uint64_t random;
    struct fuzz_case *c;
    unsigned at; /* bytes of code so far */
    bool in_loop;
};

#define BODY_BYTES (FUZZ_CODE_BYTES - 128) /* a construct begun before this fits */

static uint64_t next_random(struct program *p)
{
    /* splitmix64 */
    uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t below(struct program *p, uint32_t limit)
{
    return (uint32_t)(next_random(p) >> 33) % limit;
}

static void emit32(struct program *p, uint32_t word)
{
    memcpy(p->c->code + p->at, &word, 4);
    p->at += 4;
}

static void emit16(struct program *p, uint16_t half)
{
    memcpy(p->c->code + p->at, &half, 2);
    p->at += 2;
}

/* --- registers and values --- */

static bool is_reserved(unsigned x)
{
    return x == 2 || (x >= 8 && x <= 13);
}

static uint32_t any_rd(struct program *p)
{
    uint32_t rd;
    do
        rd = below(p, 32);
    while (is_reserved(rd));
    return rd;
}

static uint32_t window_base(struct program *p)
{
    static const uint8_t bases[] = {2, 8, 9};
    return bases[below(p, 3)];
}

static uint64_t integer_value(struct program *p)
{
    static const uint64_t special[] = {
        0,
        1,
        2,
        UINT64_MAX,
        INT64_MAX,
        (uint64_t)INT64_MIN,
        INT32_MAX,
        (uint64_t)INT32_MIN,
        UINT32_MAX,
        0x80000000,
        0x7ff,
        0x800,
        63,
        64,
        31,
        32,
        (uint64_t)INT64_MIN + 1,
    };
    uint64_t r = next_random(p);
    switch (below(p, 4)) {
    case 0:
        return special[below(p, sizeof special / sizeof special[0])];
    case 1:
        return (uint64_t)(int64_t)(int32_t)r;
    case 2:
        return r >> below(p, 64);
    default:
        return r;
    }
}

static uint64_t double_value(struct program *p)
{
    static const uint64_t special[] = {
        0,
        0x8000000000000000,
        0x3ff0000000000000,
        0xbff0000000000000, /* +-0, +-1 */
        0x7ff0000000000000,
        0xfff0000000000000, /* infinities */
        0x7ff8000000000000,
        0xfff8000000000001,
        0x7ff0000000000001, /* NaNs, one signalling */
        1,
        0x8000000000000001,
        0x000fffffffffffff,
        0x0010000000000000, /* around the least normal */
        0x7fefffffffffffff,
        0x41dfffffffc00000,
        0x41e0000000000000, /* largest; around 2^31 */
        0xc1e0000000000000,
        0xc1e0000000100000,
        0x43e0000000000000,
        0x43f0000000000000,
        0x3fe0000000000000,
        0x3ff8000000000000,
        0x4004000000000000, /* halves: ties */
        0x3810000000000000,
        0x380fffffffffffff,
        0x47efffffe0000000,
        0x47effffff0000000,
        0x36a0000000000000,
        0x3690000000000000,
        0x3ca0000000000000,
    };
    uint64_t r = next_random(p);
    switch (below(p, 6)) {
    case 0:
    case 1:
        return special[below(p, sizeof special / sizeof special[0])];
    case 2: /* exponents near each other, few fraction bits: exact sums, ties, cancellation */
        return (r & UINT64_C(0x800f000000000000)) | (uint64_t)(1000 + below(p, 48)) << 52 |
               (r & 7) << below(p, 48);
    case 3: /* near the ends of the exponent's range */
        return (r & UINT64_C(0x800fffffffffffff)) |
               (uint64_t)(below(p, 2) ? below(p, 60) : 2046 - below(p, 60)) << 52;
    default:
        return r;
    }
}

static uint64_t single_value(struct program *p)
{
    static const uint32_t special[] = {
        0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
        0x7fc00000, 0xffc00001, 0x7f800001, 1,          0x80000001, 0x007fffff,
        0x00800000, 0x7f7fffff, 0x4effffff, 0x4f000000, 0xcf000000, 0x5f000000,
        0x5f800000, 0x3f000000, 0x3fc00000, 0x40200000, 0x33800000,
    };
    uint32_t r = (uint32_t)next_random(p);
    switch (below(p, 6)) {
    case 0:
    case 1:
        r = special[below(p, sizeof special / sizeof special[0])];
        break;
    case 2:
        r = (r & 0x80780000) | (110 + below(p, 32)) << 23 | (r & 7) << below(p, 20);
        break;
    case 3:
        r = (r & 0x807fffff) | (below(p, 2) ? below(p, 30) : 254 - below(p, 30)) << 23;
        break;
    default:
        break;
    }
    uint64_t box = below(p, 16) ? UINT64_C(0xffffffff00000000) : next_random(p) << 32;
    return box | r;
}

/* --- instruction formats --- */

static uint32_t r_type(uint32_t op, uint32_t f3, uint32_t f7, uint32_t rd, uint32_t rs1,
                       uint32_t rs2)
{
    return f7 << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op;
}
static uint32_t i_type(uint32_t op, uint32_t f3, uint32_t rd, uint32_t rs1, uint32_t imm)
{
    return (imm & 0xfff) << 20 | rs1 << 15 | f3 << 12 | rd << 7 | op;
}
static uint32_t s_type(uint32_t op, uint32_t f3, uint32_t rs1, uint32_t rs2, uint32_t imm)
{
    return (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 | (imm & 31) << 7 | op;
}
static uint32_t b_type(uint32_t f3, uint32_t rs1, uint32_t rs2, uint32_t imm)
{
    return (imm >> 12 & 1) << 31 | (imm >> 5 & 63) << 25 | rs2 << 20 | rs1 << 15 | f3 << 12 |
           (imm >> 1 & 15) << 8 | (imm >> 11 & 1) << 7 | 0x63;
}
static uint32_t j_type(uint32_t rd, uint32_t imm)
{
    return (imm >> 20 & 1) << 31 | (imm >> 1 & 0x3ff) << 21 | (imm >> 11 & 1) << 20 |
           (imm >> 12 & 0xff) << 12 | rd << 7 | 0x6f;
}

/* --- one generator a group of instructions --- */

static void integer_imm(struct program *p)
{
    static const uint8_t f3s[] = {0, 2, 3, 4, 6, 7};
    uint32_t rd = any_rd(p), rs1 = below(p, 32);
    switch (below(p, 5)) {
    case 0:
        emit32(p, i_type(0x13, 1, rd, rs1, below(p, 64)));
        break;
    case 1:
        emit32(p, i_type(0x13, 5, rd, rs1, below(p, 64) | below(p, 2) << 10));
        break;
    case 2:
        if (below(p, 3))
            emit32(p, i_type(0x1b, 0, rd, rs1, below(p, 4096)));
        else if (below(p, 2))
            emit32(p, i_type(0x1b, 1, rd, rs1, below(p, 32)));
        else
            emit32(p, i_type(0x1b, 5, rd, rs1, below(p, 32) | below(p, 2) << 10));
        break;
    default:
        emit32(p, i_type(0x13, f3s[below(p, 6)], rd, rs1, below(p, 4096)));
        break;
    }
}

static void integer_reg(struct program *p)
{
    static const uint8_t word_f3s[] = {0, 1, 5}, mul_word_f3s[] = {0, 4, 5, 6, 7};
    uint32_t rd = any_rd(p), rs1 = below(p, 32), rs2 = below(p, 32);
    bool word = below(p, 3) == 0;
    uint32_t op = word ? 0x3b : 0x33, f3;
    if (below(p, 3) == 0) {
        f3 = word ? mul_word_f3s[below(p, 5)] : below(p, 8);
        emit32(p, r_type(op, f3, 1, rd, rs1, rs2));
        return;
    }
    f3 = word ? word_f3s[below(p, 3)] : below(p, 8);
    uint32_t f7 = (f3 == 0 || f3 == 5) && below(p, 2) ? 0x20 : 0;
    emit32(p, r_type(op, f3, f7, rd, rs1, rs2));
}

static void upper_imm(struct program *p)
{
    emit32(p, (uint32_t)next_random(p) << 12 | any_rd(p) << 7 | (below(p, 2) ? 0x37 : 0x17));
}

/* Common pairs of compilers, which the block builder may fuse. */
static void pair(struct program *p)
{
    uint32_t rd = any_rd(p), rs1 = below(p, 32), rs2 = below(p, 32),
             rd2 = below(p, 2) ? rd : any_rd(p);
    uint32_t shamt = below(p, 64);
    switch (below(p, 8)) {
    case 0: /* lui, addi(w) */
        emit32(p, (uint32_t)next_random(p) << 12 | rd << 7 | 0x37);
        emit32(p, i_type(below(p, 2) ? 0x1b : 0x13, 0, rd2, rd, below(p, 4096)));
        break;
    case 1: /* auipc, addi */
        emit32(p, below(p, 1 << 20) << 12 | rd << 7 | 0x17);
        emit32(p, i_type(0x13, 0, rd2, rd, below(p, 4096)));
        break;
    case 2: /* slli, srli or srai */
        emit32(p, i_type(0x13, 1, rd, rs1, shamt));
        emit32(p, i_type(0x13, 5, rd2, rd, below(p, 64) | below(p, 2) << 10));
        break;
    case 3: /* slli, add */
        emit32(p, i_type(0x13, 1, rd, rs1, below(p, 5)));
        emit32(p,
               below(p, 2) ? r_type(0x33, 0, 0, rd2, rd, rs2) : r_type(0x33, 0, 0, rd2, rs2, rd));
        break;
    case 4: /* addi of a base, then a load through it; rd ends up as the value or the address */
        emit32(p, i_type(0x13, 0, rd ? rd : 1, window_base(p), below(p, 64) - 32));
        emit32(p, i_type(0x03, 3, rd2, rd ? rd : 1, below(p, 64) - 32));
        break;
    case 5: /* two loads, two stores from one base */
    {
        uint32_t base = window_base(p), offset = below(p, 120);
        bool store = below(p, 2);
        for (unsigned i = 0; i < 2 + below(p, 3); i++)
            emit32(p, store ? s_type(0x23, 3, base, below(p, 32), offset + 8 * i)
                            : i_type(0x03, 3, any_rd(p), base, offset + 8 * i));
        break;
    }
    case 6: /* compare, branch over one instruction */
        emit32(p, below(p, 2) ? r_type(0x33, 2 + below(p, 2), 0, rd, rs1, rs2)
                              : i_type(0x13, 7, rd, rs1, below(p, 4096)));
        emit32(p, b_type(below(p, 2), rd, 0, 8));
        emit32(p, i_type(0x13, 0, rd2, rs2, below(p, 4096)));
        break;
    default: /* slli, srli by 32; then add */
        emit32(p, i_type(0x13, 1, rd, rs1, 32));
        emit32(p, i_type(0x13, 5, rd, rd, below(p, 2) ? 32 : 28 + below(p, 4)));
        emit32(p, r_type(0x33, 0, 0, rd2, rs2, rd));
        break;
    }
}

static void memory(struct program *p)
{
    uint32_t offset = below(p, 200) - 100;
    if (below(p, 2))
        offset &= ~7u;
    switch (below(p, 4)) {
    case 0:
        emit32(p, s_type(0x23, below(p, 4), window_base(p), below(p, 32), offset));
        break;
    case 1:
        emit32(p, s_type(0x27, 2 + below(p, 2), window_base(p), below(p, 32), offset));
        break;
    case 2:
        emit32(p, i_type(0x07, 2 + below(p, 2), below(p, 32), window_base(p), offset));
        break;
    default:
        emit32(p, i_type(0x03, below(p, 7), any_rd(p), window_base(p), offset));
        break;
    }
}

static void atomic(struct program *p)
{
    static const uint8_t f5s[] = {0, 1, 4, 8, 0xc, 0x10, 0x14, 0x18, 0x1c};
    uint32_t f3 = 2 + below(p, 2), base = 10 + below(p, 2), aq_rl = below(p, 4);
    if (below(p, 3)) {
        emit32(p, r_type(0x2f, f3, (uint32_t)f5s[below(p, 9)] << 2 | aq_rl, any_rd(p), base,
                         below(p, 32)));
        return;
    }
    emit32(p, r_type(0x2f, f3, 2u << 2 | aq_rl, any_rd(p), base, 0)); /* lr */
    switch (below(p, 4)) {
    case 0:
        integer_imm(p);
        break;
    case 1:
        emit32(p, s_type(0x23, f3, base, below(p, 32), 0));
        break; /* store to the same place */
    default:
        break;
    }
    if (below(p, 8) == 0)
        base = 10 + below(p, 2);
    emit32(p, r_type(0x2f, f3, 3u << 2 | aq_rl, any_rd(p), base, below(p, 32))); /* sc */
}

static uint32_t rounding(struct program *p)
{
    return below(p, 3) ? 7 : below(p, 5);
}

// clang-format off
static void floating(struct program *p)
{
    uint32_t fmt = below(p, 2), rd = below(p, 32), rs1 = below(p, 32), rs2 = below(p, 32);
    switch (below(p, 12)) {
    case 0: case 1: case 2:
        emit32(p, r_type(0x53, rounding(p), below(p, 4) << 2 | fmt, rd, rs1, rs2));
        break;
    case 3: emit32(p, r_type(0x53, rounding(p), 0x2c | fmt, rd, rs1, 0)); break; /* fsqrt */
    case 4: emit32(p, r_type(0x53, below(p, 3), 0x10 | fmt, rd, rs1, rs2)); break; /* fsgnj */
    case 5: emit32(p, r_type(0x53, below(p, 2), 0x14 | fmt, rd, rs1, rs2)); break; /* fmin fmax */
    case 6: emit32(p, r_type(0x53, rounding(p), 0x20 | fmt, rd, rs1, fmt ^ 1)); break;
    case 7: emit32(p, r_type(0x53, below(p, 3), 0x50 | fmt, any_rd(p), rs1, rs2)); break;
    case 8: emit32(p, r_type(0x53, rounding(p), 0x60 | fmt, any_rd(p), rs1, below(p, 4))); break;
    case 9: emit32(p, r_type(0x53, rounding(p), 0x68 | fmt, rd, rs1, below(p, 4))); break;
    case 10:
        if (below(p, 2))
            emit32(p, r_type(0x53, below(p, 2), 0x70 | fmt, any_rd(p), rs1, 0)); /* fmv.x fclass */
        else
            emit32(p, r_type(0x53, 0, 0x78 | fmt, rd, rs1, 0)); /* fmv from x */
        break;
    default:
        emit32(p, r_type(0x43 + 4 * below(p, 4), rounding(p), below(p, 32) << 2 | fmt, rd, rs1, rs2));
        break;
    }
}

// clang-format on

/* fcsr, frm and fflags by every Zicsr form. */
static void float_csr(struct program *p)
{
    uint32_t number = 1 + below(p, 3), f3 = 1 + below(p, 3) + 4 * below(p, 2);
    uint32_t rs1 = f3 & 4 ? below(p, 32) : below(p, 2) ? 0 : below(p, 32);
    if (f3 & 4 && number == 2)
        rs1 %= 5;
    if (!(f3 & 4) && rs1 && number != 1)
        number = 1; /* random register contents would mostly name reserved rounding modes */
    if (f3 & 4 && number == 3)
        number = 1;
    emit32(p, i_type(0x73, f3, any_rd(p), rs1, number));
}

/* A random compressed instruction that keeps to the rules above. */
static void compressed(struct program *p)
{
    for (;;) {
        uint16_t half = (uint16_t)next_random(p);
        if (insn_is_wide(half) || !insn_expand(half))
            continue;
        struct insn insn = insn_decode(half);
        bool is_load = (insn.kind >= OP_lb && insn.kind <= OP_lwu);
        bool is_store = (insn.kind >= OP_sb && insn.kind <= OP_sd);
        bool is_float = insn.kind >= OP_flw && insn.kind <= OP_fsd;
        if (insn.kind == OP_illegal || insn.kind == OP_ebreak || insn.kind == OP_jal ||
            insn.kind == OP_jalr || (insn.kind >= OP_beq && insn.kind <= OP_bgeu))
            continue;
        if (is_load || is_store || is_float) {
            bool base_good = insn.rs1 == 2 || insn.rs1 == 8 || insn.rs1 == 9;
            if (!base_good || insn.imm > 120)
                continue;
        }
        if (!is_store && !is_float && is_reserved(insn.rd))
            continue;
        emit16(p, half);
        return;
    }
}

static void plain(struct program *p);

static void branch(struct program *p)
{
    static const uint8_t f3s[] = {0, 1, 4, 5, 6, 7};
    unsigned from = p->at, count = below(p, 6);
    uint32_t f3 = f3s[below(p, 6)], rs1 = below(p, 32), rs2 = below(p, 4) ? below(p, 32) : rs1;
    bool short_form = below(p, 3) == 0;
    if (short_form)
        emit16(p, 0);
    else
        emit32(p, 0);
    for (unsigned i = 0; i < count; i++)
        plain(p);
    uint32_t offset = p->at - from;
    if (short_form) { /* c.beqz, c.bnez on x8..x15 */
        uint16_t half =
            (uint16_t)((below(p, 2) ? 0xc001 : 0xe001) | below(p, 8) << 7 |
                       (offset >> 8 & 1) << 12 | (offset >> 3 & 3) << 10 | (offset >> 6 & 3) << 5 |
                       (offset >> 1 & 3) << 3 | (offset >> 5 & 1) << 2);
        memcpy(p->c->code + from, &half, 2);
    } else {
        uint32_t word = b_type(f3, rs1, rs2, offset);
        memcpy(p->c->code + from, &word, 4);
    }
}

static void jump(struct program *p)
{
    unsigned from = p->at, count = below(p, 4);
    bool indirect = below(p, 2);
    uint32_t rd = any_rd(p);
    if (indirect) {
        emit32(p, 13 << 7 | 0x17); /* auipc x13, 0 */
        emit32(p, 0);
    } else {
        emit32(p, 0);
    }
    for (unsigned i = 0; i < count; i++)
        plain(p);
    uint32_t offset = p->at - from;
    uint32_t word = indirect ? i_type(0x67, 0, rd, 13, offset) : j_type(rd, offset);
    memcpy(p->c->code + from + (indirect ? 4 : 0), &word, 4);
}

static void loop(struct program *p)
{
    unsigned times = 1 + below(p, 5), count = 1 + below(p, 8);
    emit32(p, i_type(0x13, 0, 12, 0, times));
    unsigned top = p->at;
    p->in_loop = true;
    for (unsigned i = 0; i < count; i++)
        plain(p);
    p->in_loop = false;
    emit32(p, i_type(0x13, 0, 12, 12, (uint32_t)-1));
    emit32(p, b_type(1, 12, 0, top - p->at));
}

/* Random bits that decode to nothing, or to something harmless. Mostly ends the case. */
static void wild(struct program *p)
{
    uint32_t word = (uint32_t)next_random(p);
    struct insn insn = insn_decode(word);
    bool harmless = insn.kind == OP_illegal || (insn.kind >= OP_addi && insn.kind <= OP_sraw) ||
                    (insn.kind >= OP_mul && insn.kind <= OP_remuw);
    if (!harmless || (insn.kind != OP_illegal && is_reserved(insn.rd)))
        return;
    if ((word & 0x707f) == 0x000f || (word & 0x707f) == 0x600f || (word & 0x707f) == 0x200f)
        return; /* fences and cache-block operations that the other side may know */
    if (insn.bytes == 2)
        emit16(p, (uint16_t)word);
    else
        emit32(p, word);
}

/* Anything that neither jumps nor loops. */
static void plain(struct program *p)
{
    switch (below(p, 24)) {
    case 0:
    case 1:
    case 2:
        integer_imm(p);
        break;
    case 3:
    case 4:
    case 5:
        integer_reg(p);
        break;
    case 6:
        upper_imm(p);
        break;
    case 7:
    case 8:
        memory(p);
        break;
    case 9:
        atomic(p);
        break;
    case 10:
        float_csr(p);
        break;
    case 11:
    case 12:
    case 13:
    case 14:
        floating(p);
        break;
    case 15:
    case 16:
        pair(p);
        break;
    case 17:
        emit32(p, below(p, 2) ? 0x0ff0000f : 0x0330000f);
        break; /* fence */
    default:
        compressed(p);
        break;
    }
}

void fuzz_make_case(struct fuzz_case *c, uint64_t seed, unsigned index)
{
    struct program p = {.random = seed * 0x100000001b3 + index, .c = c};
    memset(c, 0, sizeof *c);
    for (unsigned i = 1; i < 32; i++)
        c->x[i] = integer_value(&p);
    for (unsigned i = 0; i < 32; i++)
        c->f[i] = below(&p, 2) ? double_value(&p) : single_value(&p);
    uint64_t middle = FUZZ_WINDOW_VA + FUZZ_WINDOW_BYTES / 2;
    c->x[2] = middle - 8 - below(&p, 120);
    c->x[8] = middle - 8 + below(&p, 16);
    c->x[9] = middle + (below(&p, 8) << 3) - 64;
    c->x[10] = middle - 128 + 16 * below(&p, 16);
    c->x[11] = below(&p, 2) ? c->x[10] : c->x[10] + 16;
    c->fcsr = next_random(&p) & 31;
    c->fcsr |= (below(&p, 20) ? below(&p, 5) : below(&p, 8)) << 5;
    for (unsigned i = 0; i < FUZZ_WINDOW_BYTES; i += 8) {
        uint64_t value = below(&p, 2) ? double_value(&p) : integer_value(&p);
        memcpy(c->window + i, &value, 8);
    }
    unsigned length = below(&p, 8) ? 40 + below(&p, 200) : below(&p, BODY_BYTES);
    while (p.at < length) {
        switch (below(&p, 20)) {
        case 0:
            branch(&p);
            break;
        case 1:
            jump(&p);
            break;
        case 2:
            loop(&p);
            break;
        case 3:
            if (below(&p, 20) == 0)
                wild(&p);
            break;
        default:
            plain(&p);
            break;
        }
    }
    emit32(&p, 0x00100073); /* ebreak */
    uint64_t room = FUZZ_CODE_PITCH - FUZZ_CODE_BYTES;
    c->code_va =
        FUZZ_CODE_VA + 1024 + (uint64_t)index * FUZZ_CODE_PITCH + (below(&p, (uint32_t)room) & ~1u);
}
