/*
 * The host's SSE unit as the guest's floating-point unit. Its results, flags and
 * its notion of underflow (after rounding) are those of RISC-V, but for NaN
 * payloads, min and max, conversions to integers, and round-to-nearest-
 * ties-to-max-magnitude, which it does not have.
 *
 * Operations are volatile assembly, so that the compiler neither folds them nor
 * moves them across changes and readings of MXCSR.
 */
#ifndef BALLAST_HART_FPU_HOST_H
#define BALLAST_HART_FPU_HOST_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#ifndef __x86_64__
#error "the hart's floating point is written for x86-64 hosts"
#endif

#define MXCSR_IE    0x01u
#define MXCSR_ZE    0x04u
#define MXCSR_OE    0x08u
#define MXCSR_UE    0x10u
#define MXCSR_PE    0x20u
#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u
#define MXCSR_RC    0x6000u

static inline uint32_t host_mxcsr(void)
{
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}
static inline void host_set_mxcsr(uint32_t value)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(value));
}

#define HOST_BINARY(name, type, instruction)                                                       \
    static inline type name(type a, type b)                                                        \
    {                                                                                              \
        __asm__ volatile(instruction " %1, %0" : "+x"(a) : "x"(b));                                \
        return a;                                                                                  \
    }
HOST_BINARY(host_add_s, float, "addss")
HOST_BINARY(host_sub_s, float, "subss")
HOST_BINARY(host_mul_s, float, "mulss")
HOST_BINARY(host_div_s, float, "divss")
HOST_BINARY(host_add_d, double, "addsd")
HOST_BINARY(host_sub_d, double, "subsd")
HOST_BINARY(host_mul_d, double, "mulsd")
HOST_BINARY(host_div_d, double, "divsd")

#define HOST_UNARY(name, to, from, instruction, constraint)                                        \
    static inline to name(from a)                                                                  \
    {                                                                                              \
        to result = 0;                                                                             \
        __asm__ volatile(instruction " %1, %0" : "+x"(result) : constraint(a));                    \
        return result;                                                                             \
    }
HOST_UNARY(host_sqrt_s, float, float, "sqrtss", "x")
HOST_UNARY(host_sqrt_d, double, double, "sqrtsd", "x")
HOST_UNARY(host_d_to_s, float, double, "cvtsd2ss", "x")
HOST_UNARY(host_s_to_d, double, float, "cvtss2sd", "x")
HOST_UNARY(host_i64_to_s, float, int64_t, "cvtsi2ssq", "r")
HOST_UNARY(host_i64_to_d, double, int64_t, "cvtsi2sdq", "r")

/* a * b + c, rounded once. Hosts without FMA instructions use the C library's. */
static inline double host_fma_d(bool has_fma, double a, double b, double c)
{
    if (has_fma) {
        __asm__ volatile("vfmadd213sd %2, %1, %0" : "+x"(a) : "x"(b), "x"(c));
        return a;
    }
    __asm__ volatile("" : "+m"(a), "+m"(b), "+m"(c));
    double result = fma(a, b, c);
    __asm__ volatile("" : "+m"(result));
    return result;
}
static inline float host_fma_s(bool has_fma, float a, float b, float c)
{
    if (has_fma) {
        __asm__ volatile("vfmadd213ss %2, %1, %0" : "+x"(a) : "x"(b), "x"(c));
        return a;
    }
    __asm__ volatile("" : "+m"(a), "+m"(b), "+m"(c));
    float result = fmaf(a, b, c);
    __asm__ volatile("" : "+m"(result));
    return result;
}

#endif
