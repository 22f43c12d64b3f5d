/*
 * Every kind of decoded op, in one list. The first part is the instruction set:
 * what insn_decode can answer. The second part is what only the block builder
 * makes: specialised forms, fused pairs, and the ends of blocks.
 *
 * Users define OP(name), include this file, and undefine nothing: it undefines
 * OP itself.
 */

// clang-format off
/* RV64I. illegal comes first: it is kind 0. */
OP(illegal)
OP(lui) OP(auipc) OP(jal) OP(jalr)
OP(beq) OP(bne) OP(blt) OP(bge) OP(bltu) OP(bgeu)
OP(lb) OP(lh) OP(lw) OP(ld) OP(lbu) OP(lhu) OP(lwu)
OP(sb) OP(sh) OP(sw) OP(sd)
OP(addi) OP(slti) OP(sltiu) OP(xori) OP(ori) OP(andi) OP(slli) OP(srli) OP(srai)
OP(addiw) OP(slliw) OP(srliw) OP(sraiw)
OP(add) OP(sub) OP(sll) OP(slt) OP(sltu) OP(xor) OP(srl) OP(sra) OP(or) OP(and)
OP(addw) OP(subw) OP(sllw) OP(srlw) OP(sraw)
OP(fence) OP(fence_i) OP(ecall) OP(ebreak)
/* M */
OP(mul) OP(mulh) OP(mulhsu) OP(mulhu) OP(div) OP(divu) OP(rem) OP(remu)
OP(mulw) OP(divw) OP(divuw) OP(remw) OP(remuw)
/* A */
OP(lr_w) OP(sc_w) OP(amoswap_w) OP(amoadd_w) OP(amoxor_w) OP(amoand_w) OP(amoor_w)
OP(amomin_w) OP(amomax_w) OP(amominu_w) OP(amomaxu_w)
OP(lr_d) OP(sc_d) OP(amoswap_d) OP(amoadd_d) OP(amoxor_d) OP(amoand_d) OP(amoor_d)
OP(amomin_d) OP(amomax_d) OP(amominu_d) OP(amomaxu_d)
/* F and D: loads and stores; everything else is fp, told apart by its raw word */
OP(flw) OP(fld) OP(fsw) OP(fsd) OP(fp)
/* Zicsr and the supervisor's instructions */
OP(csr) OP(sret) OP(wfi) OP(sfence_vma)

/* Made by the block builder only. */
OP(end_of_insns) /* not an op: the first of the second part */
OP(goto_next)    /* end of a block that falls through */
OP(li) OP(mv)
OP(jal_near)     /* a direct jump inside its page: chained */
OP(j_near)       /* the same without a link */
OP(shift_pair)   /* slli, srli of the same register */
OP(shift_add)    /* slli, add of the same register */
OP(ld_2) OP(ld_3) OP(ld_4) OP(sd_2) OP(sd_3) OP(sd_4) /* runs from one base */
OP(fp_check)     /* sstatus.FS must not be Off */
OP(fp_dirty)     /* the same, and FS becomes Dirty */

// clang-format on
#undef OP
