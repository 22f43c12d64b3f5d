/*
 * One case of the differential fuzzer, and its outcome, as both sides see them:
 * the hart's side (hart_fuzz.c) and the program that runs under qemu-riscv64
 * (qemu_side.c). Little-endian, fixed size, no padding.
 */
#ifndef BALLAST_TESTS_FUZZ_CASE_H
#define BALLAST_TESTS_FUZZ_CASE_H

#include <stdint.h>

#define FUZZ_CODE_VA      UINT64_C(0x80100000)
#define FUZZ_CODE_PITCH   2048u /* case i lies in [1024 + i * pitch, + pitch) of the code area */
#define FUZZ_CODE_BYTES   1024u
#define FUZZ_DATA_VA      UINT64_C(0x80400000) /* two pages */
#define FUZZ_WINDOW_BYTES 512u                 /* half on each side of the page boundary */
#define FUZZ_WINDOW_VA    (FUZZ_DATA_VA + 4096 - FUZZ_WINDOW_BYTES / 2)
#define FUZZ_BATCH        1000u

struct fuzz_case {
    uint64_t x[32]; /* x[0] is not used */
    uint64_t f[32];
    uint64_t fcsr;
    uint64_t code_va;
    uint8_t code[FUZZ_CODE_BYTES]; /* ends in ebreak */
    uint8_t window[FUZZ_WINDOW_BYTES];
};

struct fuzz_outcome {
    uint64_t x[32];
    uint64_t f[32];
    uint64_t fcsr;
    uint64_t pc;
    uint64_t signal; /* as Linux: 4 illegal, 5 breakpoint, 11 fault */
    uint8_t window[FUZZ_WINDOW_BYTES];
};

#endif
