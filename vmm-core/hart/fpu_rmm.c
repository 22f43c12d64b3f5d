/*
 * Round to nearest, ties to max magnitude (RMM), which the host's unit does not
 * have.
 *
 * Way: do the operation in binary128 with rounding towards zero (the compiler's
 * run-time library does it in integers and honours MXCSR), and if that was
 * inexact set the lowest bit: "round to odd". 113 bits are more than twice 53
 * plus 2, so rounding that value once more, by hand and ties away, equals
 * rounding the exact result (Boldo and Melquiond, "Emulation of FMA and
 * correctly rounded sums: proved algorithms using rounding to odd", 2008). The
 * product of two doubles is exact in binary128, so a fused multiply-add is one
 * inexact operation too. Nothing here overflows or underflows binary128.
 *
 * Slow, and of no matter: only programs that ask for this mode come here.
 */
#include "vmm-core/hart/fpu_rmm.h"

#include "vmm-core/hart/core.h"
#include "vmm-core/hart/fpu_bits.h"
#include "vmm-core/hart/fpu_host.h"

#define QUAD_FRACTION_BITS 112
#define QUAD_BIAS          16383
#define QUAD_EXP_MAX       0x7fff

typedef unsigned __int128 u128;

/* Keep the compiler from moving arithmetic on q across changes of MXCSR. */
#define PIN(q) __asm__ volatile("" : "+m"(q))

static uint32_t begin_toward_zero(void)
{
    uint32_t saved = host_mxcsr();
    host_set_mxcsr(MXCSR_MASKS | MXCSR_RC); /* no flags, towards zero */
    return saved;
}

static uint32_t end_toward_zero(uint32_t saved)
{
    uint32_t raised = host_mxcsr() & MXCSR_FLAGS;
    host_set_mxcsr(saved);
    return raised;
}

/* sig / 2^drop, to nearest, ties away; *inexact tells whether bits were lost. */
static u128 shift_round(u128 sig, int drop, bool *inexact)
{
    *inexact = drop > 0;
    if (drop <= 0)
        return sig << -drop;
    if (drop > QUAD_FRACTION_BITS + 1)
        return 0; /* less than half */
    u128 rest = sig & (((u128)1 << drop) - 1);
    *inexact = rest != 0;
    return (sig >> drop) + (rest >> (drop - 1) & 1);
}

/* Round q to a double or a single. Its lowest bit stands for all that lies below it. */
static uint64_t round_quad(__float128 q, bool is_double, uint32_t *fflags)
{
    union {
        __float128 f;
        u128 u;
    } bits = {q};
    int fraction_bits = is_double ? 52 : 23, bias = is_double ? 1023 : 127;
    uint64_t sign = (uint64_t)(bits.u >> 127) << (is_double ? 63 : 31);
    uint64_t infinity = is_double ? D_INF : S_INF;
    u128 fraction = bits.u & (((u128)1 << QUAD_FRACTION_BITS) - 1);
    int exponent = (int)(bits.u >> QUAD_FRACTION_BITS & QUAD_EXP_MAX);

    if (exponent == QUAD_EXP_MAX)
        return fraction ? (is_double ? D_CANONICAL : S_CANONICAL) : sign | infinity;
    if (exponent == 0)
        return sign; /* only zero: see above */
    exponent -= QUAD_BIAS;

    u128 sig = (u128)1 << QUAD_FRACTION_BITS | fraction;
    int least = 1 - bias; /* of normal numbers */
    int drop = QUAD_FRACTION_BITS - fraction_bits;
    bool inexact, ignored;
    uint64_t result;
    if (exponent >= least) {
        uint64_t kept = (uint64_t)shift_round(sig, drop, &inexact);
        /* kept has the hidden bit; a carry out of it steps the exponent, as it should */
        result = ((uint64_t)(exponent + bias - 1) << fraction_bits) + kept;
        if (exponent > bias || result >= infinity) {
            *fflags |= FFLAG_OF | FFLAG_NX;
            return sign | infinity;
        }
    } else {
        result = (uint64_t)shift_round(sig, drop + least - exponent, &inexact);
        /* Tiny is judged after rounding as if the exponent were unbounded (11.2). */
        bool reaches_normal =
            exponent == least - 1 && shift_round(sig, drop, &ignored) >> (fraction_bits + 1);
        if (inexact && !reaches_normal)
            *fflags |= FFLAG_UF;
    }
    if (inexact)
        *fflags |= FFLAG_NX;
    return sign | result;
}

/* The value q of an operation that raised these MXCSR flags, rounded. */
static uint64_t finish(__float128 q, uint32_t raised, bool is_double, uint32_t *fflags)
{
    union {
        __float128 f;
        u128 u;
    } bits = {q};
    if (raised & MXCSR_IE)
        *fflags |= FFLAG_NV;
    if (raised & MXCSR_ZE)
        *fflags |= FFLAG_DZ;
    if ((raised & MXCSR_PE) && (bits.u >> QUAD_FRACTION_BITS & QUAD_EXP_MAX) != QUAD_EXP_MAX)
        bits.u |= 1; /* to odd */
    return round_quad(bits.f, is_double, fflags);
}

uint64_t rmm_binary(enum rmm_operation operation, double a, double b, bool is_double,
                    uint32_t *fflags)
{
    uint32_t saved = begin_toward_zero();
    PIN(a);
    PIN(b);
    __float128 qa = a, qb = b, q = 0;
    switch (operation) {
    case RMM_ADD:
        q = qa + qb;
        break;
    case RMM_SUB:
        q = qa - qb;
        break;
    case RMM_MUL:
        q = qa * qb;
        break;
    case RMM_DIV:
        q = qa / qb;
        break;
    }
    PIN(q);
    return finish(q, end_toward_zero(saved), is_double, fflags);
}

uint64_t rmm_fma(double a, double b, double c, bool is_double, uint32_t *fflags)
{
    uint32_t saved = begin_toward_zero();
    PIN(a);
    PIN(b);
    PIN(c);
    __float128 product = (__float128)a * (__float128)b;
    PIN(product);
    __float128 q = product + (__float128)c;
    PIN(q);
    return finish(q, end_toward_zero(saved), is_double, fflags);
}

uint64_t rmm_from_double(double a, bool is_double, uint32_t *fflags)
{
    uint32_t saved = begin_toward_zero();
    PIN(a);
    __float128 q = a;
    PIN(q);
    return finish(q, end_toward_zero(saved), is_double, fflags);
}

uint64_t rmm_from_integer(uint64_t magnitude, bool negative, bool is_double, uint32_t *fflags)
{
    __float128 q = (__float128)magnitude; /* exact */
    return round_quad(negative ? -q : q, is_double, fflags);
}
