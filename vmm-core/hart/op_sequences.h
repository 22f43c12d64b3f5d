/*
 * Sequences of ops that have one handler: what Debian's kernel, its C library
 * and busybox execute most (boot, shell loop, sha256sum, fork and exec), found by
 * merging the most frequent neighbours over and over. A sequence's ops may have
 * any operands.
 *
 * The first op's handler is replaced by the sequence's; the other ops stay as
 * they are, so that an op that traps or takes its slow path is just that op, and
 * execution goes on at the plain op behind it.
 *
 * Users define SEQ2, SEQ3 and SEQ4.
 */
// clang-format off
SEQ2(mv, mv) SEQ2(ld, ld) SEQ2(add, add) SEQ2(lbu, addi) SEQ2(slli, add) SEQ2(srliw, or)
SEQ2(slli, srli) SEQ2(srli, mul) SEQ2(ld, add) SEQ3(slliw, srliw, or) SEQ2(addi, bne)
SEQ2(xor, xor) SEQ2(addi, jalr) SEQ2(lbu, beq) SEQ4(slli, add, ld, add) SEQ2(sd, add)
SEQ2(addw, addw) SEQ3(sd, add, bne) SEQ3(slli, add, sltu) SEQ2(addiw, shift_pair)
SEQ2(add, bgeu) SEQ2(srli, add) SEQ3(mul, slli, srli) SEQ4(addiw, shift_pair, srli, mul)
SEQ4(srli, mul, add, bgeu) SEQ2(lbu, bne) SEQ4(add, sd, add, bne) SEQ3(mul, add, add)
SEQ2(li, beq) SEQ3(lbu, addi, add) SEQ2(sd, addi) SEQ2(and, and) SEQ2(slli, or) SEQ2(ld, sd)
SEQ2(andi, bne) SEQ2(ld, sub) SEQ2(addiw, addi) SEQ2(lw, slliw) SEQ3(srliw, or, xor)
SEQ2(ld, addi) SEQ4(mv, mv, mv, mv) SEQ2(sb, bne) SEQ2(slliw, or) SEQ3(slli, srli, add)
SEQ3(add, add, sub) SEQ3(ld, sub, sltu) SEQ2(auipc, jal) SEQ2(mv, j_near)
SEQ4(slliw, srliw, or, xor) SEQ2(addi, sd) SEQ3(and, and, xor) SEQ2(bne, goto_next)
SEQ3(auipc, ld, ld) SEQ2(beq, goto_next) SEQ2(and, sltu) SEQ4(add, add, sub, sltiu)
SEQ3(and, sltu, or) SEQ2(li, li) SEQ2(add, mv) SEQ2(add, sltu) SEQ2(lbu, lbu)
SEQ4(lbu, addi, bne, goto_next) SEQ3(lbu, lbu, addi) SEQ2(beq, sltu) SEQ3(addi, addw, addw)
SEQ4(sd, addi, addi, bne) SEQ4(subw, slli, srli, add) SEQ3(lbu, lbu, beq) SEQ2(addi, addi)
SEQ4(srliw, or, xor, srliw) SEQ3(add, mv, bltu) SEQ4(ld, ld, addiw, addi) SEQ2(mul, mulhu)
SEQ4(mul, mulhu, add, sltu) SEQ4(add, add, beq, sltu) SEQ2(andi, beq) SEQ3(lbu, andi, bne)
SEQ3(lbu, beq, addi) SEQ2(sd, li) SEQ2(mv, beq) SEQ2(li, add) SEQ3(sh, addi, bne)
SEQ4(addi, sh, addi, bne) SEQ2(srli, srli) SEQ2(li, bne) SEQ2(mv, jal) SEQ3(ld, add, sltu)
SEQ3(mv, mv, jal) SEQ2(addi, addw) SEQ3(mv, mv, bne) SEQ3(addw, addw, addw) SEQ2(mv, li)
SEQ4(lbu, beq, addi, j_near) SEQ2(ld, xor) SEQ2(addi, bltu) SEQ4(xori, and, and, xor)
SEQ3(addw, lw, slliw) SEQ3(addi, addw, lwu) SEQ3(ld, addi, jalr) SEQ2(li, j_near)
SEQ2(addiw, andi) SEQ3(ld, ld, sub) SEQ2(auipc, ld) SEQ2(blt, slli) SEQ2(addiw, bgeu)
SEQ3(mv, mv, mv) SEQ2(addiw, j_near) SEQ3(srliw, slliw, or) SEQ3(sd, bne, goto_next)
SEQ2(sd, ld) SEQ2(xor, addw) SEQ2(and, or) SEQ3(sub, beq, sltu) SEQ2(bgeu, goto_next)
SEQ3(sw, bne, goto_next) SEQ2(xori, and) SEQ4(lbu, beq, mv, j_near) SEQ2(ld, beq)
SEQ2(lw, xor) SEQ3(li, bne, goto_next) SEQ4(lbu, lbu, beq, goto_next) SEQ3(lw, lw, slliw)
SEQ4(lw, xor, lw, slliw) SEQ3(add, ld, ld) SEQ2(add, beq) SEQ2(ld, lw) SEQ3(beq, addi, addi)
SEQ2(srli, slli) SEQ3(ld, ld, xor) SEQ2(addiw, bltu) SEQ2(ld, or) SEQ2(mv, bge) SEQ2(or, or)
SEQ4(lbu, addi, beq, goto_next) SEQ4(addi, sd, bne, goto_next) SEQ3(lbu, addi, beq)
SEQ2(and, add) SEQ3(lbu, lbu, lhu) SEQ2(ld, li) SEQ2(ld, mv)
    // clang-format on
