/*
 * From instruction bits to a kind and its operands; no state, no memory.
 *
 * Follows: RISC-V Unprivileged ISA 20191213, chapters 2, 5, 7, 8, 11, 12, 16
 * and the listings of chapter 24. A compressed instruction is first expanded to
 * the 32-bit instruction that the manual says it stands for.
 */
#ifndef BALLAST_HART_INSN_H
#define BALLAST_HART_INSN_H

#include <stdbool.h>
#include <stdint.h>

enum op_kind {
#define OP(name) OP_##name,
#include "vmm-core/hart/op_list.h"
    OP_KINDS
};

struct insn {
    uint8_t kind; /* enum op_kind, below OP_end_of_insns */
    uint8_t rd, rs1, rs2;
    uint8_t bytes; /* 2 or 4 */
    int32_t imm;   /* immediate; shift amount; for csr, fp and illegal the bits themselves */
    uint32_t raw;  /* 32-bit form, after expansion */
    uint32_t bits; /* as they stand in memory: 16 or 32 of them */
};

/*
 * insn_decode: decode the instruction whose first halfword is the low half of
 * bits (the high half is ignored if the instruction is compressed). An encoding
 * outside rv64gc gives OP_illegal, with imm the bits as they were.
 */
struct insn insn_decode(uint32_t bits);

/* Is the instruction that starts with this halfword 4 bytes long (and not 2)? Encodings meant for
 * longer instructions are taken as 4 bytes and decode as illegal. */
static inline bool insn_is_wide(uint16_t first)
{
    return (first & 3) == 3;
}

/* The 32-bit instruction that compressed instruction c stands for, or 0 if it is reserved. */
uint32_t insn_expand(uint16_t c);

#endif
