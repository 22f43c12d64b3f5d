/*
 * Decoding: instruction bits against kind and operands (unprivileged manual 24
 * and 16). The differential fuzzer covers what instructions do; here stands what
 * is easily wrong: immediates, reserved encodings, hints.
 */
#include "vmm-core/hart/insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

struct decode_case {
    uint32_t bits;
    uint8_t kind, rd, rs1, rs2;
    int32_t imm;
    const char *text;
};

/* rd, rs1, rs2 and imm are compared where the kind has them; 0 elsewhere in the table. */
// clang-format off
static const struct decode_case wide_cases[] = {
    { 0x80000537, OP_lui, 10, 0, 0, INT32_MIN, "lui a0, 0x80000" },
    { 0xfffff517, OP_auipc, 10, 0, 0, -4096, "auipc a0, 0xfffff" },
    { 0x800000ef, OP_jal, 1, 0, 0, -0x100000, "jal ra, -1 MiB" },
    { 0x7ffff06f, OP_jal, 0, 0, 0, 0xffffe, "j 1 MiB - 2" },
    { 0x80b50063, OP_beq, 0, 10, 11, -4096, "beq a0, a1, -4096" },
    { 0x7eb57fe3, OP_bgeu, 0, 10, 11, 4094, "bgeu a0, a1, 4094" },
    { 0x80053503, OP_ld, 10, 10, 0, -2048, "ld a0, -2048(a0)" },
    { 0x7eb53fa3, OP_sd, 0, 10, 11, 2047, "sd a1, 2047(a0)" },
    { 0x80b53023, OP_sd, 0, 10, 11, -2048, "sd a1, -2048(a0)" },
    { 0x03f51513, OP_slli, 10, 10, 0, 63, "slli a0, a0, 63" },
    { 0x43f55513, OP_srai, 10, 10, 0, 63, "srai a0, a0, 63" },
    { 0x41f5551b, OP_sraiw, 10, 10, 0, 31, "sraiw a0, a0, 31" },
    { 0x0ff0000f, OP_fence, 0, 0, 0, 0xff, "fence" },
    { 0x1015252f, OP_illegal, 0, 0, 0, 0x1015252f, "lr.w with rs2 not 0" },
    { 0x1005252f, OP_lr_w, 10, 10, 0, 0, "lr.w a0, (a0)" },
    { 0x18b5352f, OP_sc_d, 10, 10, 11, 0, "sc.d a0, a1, (a0)" },
    { 0xe0b5352f, OP_amomaxu_d, 10, 10, 11, 0, "amomaxu.d a0, a1, (a0)" },
    { 0x10200073, OP_sret, 0, 0, 0, 0x10200073, "sret" },
    { 0x12b50073, OP_sfence_vma, 0, 10, 11, 0x12b50073, "sfence.vma a0, a1" },
    { 0x30200073, OP_illegal, 0, 0, 0, 0x30200073, "mret" },
    { 0x0000705b, OP_illegal, 0, 0, 0, 0x705b, "custom-2" },
    { 0x0205151b, OP_illegal, 0, 0, 0, 0x0205151b, "slliw with a shift of 32" },
    { 0x40b51533, OP_illegal, 0, 0, 0, 0x40b51533, "sll with funct7 0x20" },
    { 0x02b55553, OP_illegal, 0, 0, 0, 0x02b55553, "fadd.d with rounding mode 5" },
    { 0x00b57553, OP_fp, 10, 10, 11, 0x00b57553, "fadd.s fa0, fa0, fa1" },
    { 0x04b57553, OP_illegal, 0, 0, 0, 0x04b57553, "fadd.h" },
    { 0x06b57553, OP_illegal, 0, 0, 0, 0x06b57553, "fadd.q" },
    { 0x20051553, OP_fp, 10, 10, 0, 0x20051553, "fsgnjn.s fa0, fa0, ft0" },
    { 0x20053553, OP_illegal, 0, 0, 0, 0x20053553, "fsgnj with funct3 3" },
};

static const struct decode_case compressed_cases[] = {
    { 0x0000, OP_illegal, 0, 0, 0, 0, "all zero" },
    { 0x0001, OP_addi, 0, 0, 0, 0, "c.nop" },
    { 0x1ffc, OP_addi, 15, 2, 0, 1020, "c.addi4spn a5, 1020" },
    { 0x7ffc, OP_ld, 15, 15, 0, 248, "c.ld a5, 248(a5)" },
    { 0x5ffc, OP_lw, 15, 15, 0, 124, "c.lw a5, 124(a5)" },
    { 0xdffc, OP_sw, 0, 15, 15, 124, "c.sw a5, 124(a5)" },
    { 0x9ffc, OP_illegal, 0, 0, 0, 0x9ffc, "quadrant 0, funct3 4" },
    { 0x3ffc, OP_fld, 15, 15, 0, 248, "c.fld fa5, 248(a5)" },
    { 0x157d, OP_addi, 10, 10, 0, -1, "c.addi a0, -1" },
    { 0x2001, OP_illegal, 0, 0, 0, 0x2001, "c.addiw with rd x0" },
    { 0x357d, OP_addiw, 10, 10, 0, -1, "c.addiw a0, -1" },
    { 0x7101, OP_addi, 2, 2, 0, -512, "c.addi16sp -512" },
    { 0x617d, OP_addi, 2, 2, 0, 496, "c.addi16sp 496" },
    { 0x6101, OP_illegal, 0, 0, 0, 0x6101, "c.addi16sp 0" },
    { 0x7501, OP_lui, 10, 0, 0, -131072, "c.lui a0, -32" },
    { 0x6501, OP_illegal, 0, 0, 0, 0x6501, "c.lui with 0" },
    { 0x957d, OP_srai, 10, 10, 0, 63, "c.srai a0, 63" },
    { 0x997d, OP_andi, 10, 10, 0, -1, "c.andi a0, -1" },
    { 0x8d0d, OP_sub, 10, 10, 11, 0, "c.sub a0, a1" },
    { 0x9d2d, OP_addw, 10, 10, 11, 0, "c.addw a0, a1" },
    { 0x9d4d, OP_illegal, 0, 0, 0, 0x9d4d, "c.mul's place" },
    { 0xb001, OP_jal, 0, 0, 0, -2048, "c.j -2048" },
    { 0xaffd, OP_jal, 0, 0, 0, 2046, "c.j 2046" },
    { 0xd101, OP_beq, 0, 10, 0, -256, "c.beqz a0, -256" },
    { 0xed7d, OP_bne, 0, 10, 0, 254, "c.bnez a0, 254" },
    { 0x8002, OP_illegal, 0, 0, 0, 0x8002, "c.jr x0" },
    { 0x8082, OP_jalr, 0, 1, 0, 0, "ret" },
    { 0x9502, OP_jalr, 1, 10, 0, 0, "c.jalr a0" },
    { 0x9002, OP_ebreak, 0, 0, 0, 0x100073, "c.ebreak" },
    { 0x852e, OP_add, 10, 0, 11, 0, "c.mv a0, a1" },
    { 0x800a, OP_add, 0, 0, 2, 0, "c.mv x0, sp: a hint" },
    { 0x4002, OP_illegal, 0, 0, 0, 0x4002, "c.lwsp with rd x0" },
    { 0x557e, OP_lw, 10, 2, 0, 252, "c.lwsp a0, 252" },
    { 0x757e, OP_ld, 10, 2, 0, 504, "c.ldsp a0, 504" },
    { 0xffaa, OP_sd, 0, 2, 10, 504, "c.sdsp a0, 504" },
    { 0xdfaa, OP_sw, 0, 2, 10, 252, "c.swsp a0, 252" },
};

// clang-format on

static void check(const struct decode_case *c)
{
    struct insn insn = insn_decode(c->bits);
    bool has_rd = insn.kind != OP_illegal && !(insn.kind >= OP_beq && insn.kind <= OP_bgeu) &&
                  !(insn.kind >= OP_sb && insn.kind <= OP_sd);
    bool has_imm = !(insn.kind >= OP_add && insn.kind <= OP_sraw) &&
                   !(insn.kind >= OP_lr_w && insn.kind <= OP_amomaxu_d);
    if (insn.kind != c->kind || (has_rd && insn.rd != c->rd) || (c->rs1 && insn.rs1 != c->rs1) ||
        (c->rs2 && insn.rs2 != c->rs2) || (has_imm && insn.imm != c->imm))
        fail_msg("%s: kind %u rd %u rs1 %u rs2 %u imm %d", c->text, insn.kind, insn.rd, insn.rs1,
                 insn.rs2, insn.imm);
}

static void wide_instructions_decode_as_the_manual_lists_them(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof wide_cases / sizeof wide_cases[0]; i++) {
        check(&wide_cases[i]);
        assert_int_equal(insn_decode(wide_cases[i].bits).bytes, 4);
    }
}

static void compressed_instructions_decode_as_what_they_stand_for(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof compressed_cases / sizeof compressed_cases[0]; i++) {
        check(&compressed_cases[i]);
        assert_int_equal(insn_decode(compressed_cases[i].bits).bytes, 2);
    }
}

/* Every halfword either expands to something legal or is illegal itself; none expands to bits
 * that decode as illegal by accident of an operand. */
static void every_expansion_is_legal(void **state)
{
    (void)state;
    for (uint32_t half = 0; half <= UINT16_MAX; half++) {
        uint32_t wide = insn_is_wide((uint16_t)half) ? 0 : insn_expand((uint16_t)half);
        if (wide && insn_decode(wide).kind == OP_illegal)
            fail_msg("%#x expands to %#x, which is illegal", half, wide);
        if (wide)
            assert_int_equal(wide & 3, 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_instructions_decode_as_the_manual_lists_them),
        cmocka_unit_test(compressed_instructions_decode_as_what_they_stand_for),
        cmocka_unit_test(every_expansion_is_legal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
