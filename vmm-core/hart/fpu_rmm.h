/* Round to nearest, ties to max magnitude: the rounding mode that hosts lack. See fpu_rmm.c. */
#ifndef BALLAST_HART_FPU_RMM_H
#define BALLAST_HART_FPU_RMM_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

enum rmm_operation { RMM_ADD, RMM_SUB, RMM_MUL, RMM_DIV };

/*
 * Each computes on double values (singles are widened by the caller, which is
 * exact) and rounds once to the width asked for: the result is a double's bits,
 * or a single's in the low half. *fflags collects what the operation raises.
 */
uint64_t rmm_binary(enum rmm_operation operation, double a, double b, bool is_double,
                    uint32_t *fflags);
uint64_t rmm_fma(double a, double b, double c, bool is_double, uint32_t *fflags);
uint64_t rmm_from_double(double a, bool is_double, uint32_t *fflags);
/* magnitude with a sign, from an integer of any width */
uint64_t rmm_from_integer(uint64_t magnitude, bool negative, bool is_double, uint32_t *fflags);

#pragma GCC visibility pop

#endif
