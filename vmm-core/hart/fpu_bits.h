/*
 * IEEE 754 bit patterns as RISC-V sees them (unprivileged manual 11.2, 11.3,
 * 12.2): single values live NaN-boxed in 64-bit registers; every NaN that an
 * operation produces is the canonical one.
 */
#ifndef BALLAST_HART_FPU_BITS_H
#define BALLAST_HART_FPU_BITS_H

#include <stdbool.h>
#include <stdint.h>

#define NAN_BOX     UINT64_C(0xffffffff00000000)
#define S_CANONICAL UINT32_C(0x7fc00000)
#define D_CANONICAL UINT64_C(0x7ff8000000000000)
#define S_SIGN      UINT32_C(0x80000000)
#define D_SIGN      UINT64_C(0x8000000000000000)
#define S_INF       UINT32_C(0x7f800000)
#define D_INF       UINT64_C(0x7ff0000000000000)
#define S_QUIET     UINT32_C(0x00400000)
#define D_QUIET     UINT64_C(0x0008000000000000)

static inline uint32_t unbox(uint64_t f)
{
    return f >= NAN_BOX ? (uint32_t)f : S_CANONICAL;
}
static inline uint64_t box(uint32_t s)
{
    return NAN_BOX | s;
}

static inline bool s_is_nan(uint32_t a)
{
    return (a & ~S_SIGN) > S_INF;
}
static inline bool d_is_nan(uint64_t a)
{
    return (a & ~D_SIGN) > D_INF;
}
static inline bool s_is_signalling(uint32_t a)
{
    return s_is_nan(a) && !(a & S_QUIET);
}
static inline bool d_is_signalling(uint64_t a)
{
    return d_is_nan(a) && !(a & D_QUIET);
}

static inline float s_from_bits(uint32_t a)
{
    union {
        uint32_t u;
        float f;
    } v = {a};
    return v.f;
}
static inline double d_from_bits(uint64_t a)
{
    union {
        uint64_t u;
        double d;
    } v = {a};
    return v.d;
}
static inline uint32_t s_bits(float a)
{
    union {
        float f;
        uint32_t u;
    } v = {a};
    return v.u;
}
static inline uint64_t d_bits(double a)
{
    union {
        double d;
        uint64_t u;
    } v = {a};
    return v.u;
}

/* The same, with any NaN made canonical. */
static inline uint32_t s_result(float a)
{
    uint32_t bits = s_bits(a);
    return s_is_nan(bits) ? S_CANONICAL : bits;
}
static inline uint64_t d_result(double a)
{
    uint64_t bits = d_bits(a);
    return d_is_nan(bits) ? D_CANONICAL : bits;
}

enum rounding { RM_RNE = 0, RM_RTZ = 1, RM_RDN = 2, RM_RUP = 3, RM_RMM = 4 };

#endif
