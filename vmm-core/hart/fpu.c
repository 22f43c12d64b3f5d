/*
 * F and D (unprivileged manual chapters 11 and 12) on the host's SSE unit.
 *
 * Where the state is: while hart_run runs, MXCSR holds the guest's rounding mode
 * (frm; nearest if frm is RMM or reserved) and collects its flags; what is found
 * without the host's unit is collected in h->fflags. fflags as a program reads
 * it is both together. An instruction that names another rounding mode than
 * frm's switches MXCSR for itself.
 *
 * Comparisons, min and max, sign injection, classification and conversions to
 * integers are done on the bits.
 */
#include "vmm-core/hart/core.h"
#include "vmm-core/hart/fpu_bits.h"
#include "vmm-core/hart/fpu_host.h"
#include "vmm-core/hart/fpu_rmm.h"

#define RM_DYNAMIC 7u

/* Round control of MXCSR by frm. */
static const uint32_t round_control[8] = {0x0000, 0x6000, 0x2000, 0x4000, 0, 0, 0, 0};

/* --- the state --- */

static uint32_t flags_of_mxcsr(uint32_t mxcsr)
{
    return (mxcsr & MXCSR_IE ? FFLAG_NV : 0) | (mxcsr & MXCSR_ZE ? FFLAG_DZ : 0) |
           (mxcsr & MXCSR_OE ? FFLAG_OF : 0) | (mxcsr & MXCSR_UE ? FFLAG_UF : 0) |
           (mxcsr & MXCSR_PE ? FFLAG_NX : 0);
}

void fpu_enter(struct hart *h)
{
    h->host_mxcsr = host_mxcsr();
    host_set_mxcsr(h->mxcsr);
}

void fpu_leave(struct hart *h)
{
    h->mxcsr = host_mxcsr();
    host_set_mxcsr(h->host_mxcsr);
}

uint32_t fpu_fflags(struct hart *h)
{
    return h->fflags | flags_of_mxcsr(host_mxcsr());
}

uint32_t fpu_fflags_at_rest(const struct hart *h)
{
    return h->fflags | flags_of_mxcsr(h->mxcsr);
}

void fpu_set_fflags(struct hart *h, uint32_t fflags)
{
    h->fflags = fflags & 31;
    host_set_mxcsr(host_mxcsr() & ~MXCSR_FLAGS);
}

void fpu_set_frm(struct hart *h, uint32_t frm)
{
    h->frm = frm & 7;
    host_set_mxcsr((host_mxcsr() & ~MXCSR_RC) | round_control[h->frm]);
}

void fpu_restore(struct hart *h, uint32_t fcsr)
{
    h->fflags = fcsr & 31;
    h->frm = fcsr >> 5 & 7;
    h->mxcsr = MXCSR_MASKS | round_control[h->frm];
}

static bool has_fma(void)
{
    static int known; /* 0: not asked yet, 1: no, 2: yes; threads may ask twice, to no harm */
    if (!known)
        known = __builtin_cpu_supports("fma") ? 2 : 1;
    return known == 2;
}

/* --- arithmetic --- */

// clang-format off
enum { F_ADD = 0x00, F_SUB = 0x01, F_MUL = 0x02, F_DIV = 0x03, F_SQRT = 0x0b, F_SGNJ = 0x04,
       F_MINMAX = 0x05, F_CVT_F = 0x08, F_CMP = 0x14, F_CVT_TO_INT = 0x18, F_CVT_FROM_INT = 0x1a,
       F_MV_X = 0x1c, F_MV_F = 0x1e };
// clang-format on

static uint64_t arithmetic_d(unsigned f5, uint64_t a_bits, uint64_t b_bits)
{
    double a = d_from_bits(a_bits), b = d_from_bits(b_bits);
    switch (f5) {
    case F_ADD:
        return d_result(host_add_d(a, b));
    case F_SUB:
        return d_result(host_sub_d(a, b));
    case F_MUL:
        return d_result(host_mul_d(a, b));
    case F_DIV:
        return d_result(host_div_d(a, b));
    default:
        return d_result(host_sqrt_d(a));
    }
}

static uint32_t arithmetic_s(unsigned f5, uint32_t a_bits, uint32_t b_bits)
{
    float a = s_from_bits(a_bits), b = s_from_bits(b_bits);
    switch (f5) {
    case F_ADD:
        return s_result(host_add_s(a, b));
    case F_SUB:
        return s_result(host_sub_s(a, b));
    case F_MUL:
        return s_result(host_mul_s(a, b));
    case F_DIV:
        return s_result(host_div_s(a, b));
    default:
        return s_result(host_sqrt_s(a));
    }
}

/* Widen for the RMM path. A signalling NaN raises NV here and stays a NaN. */
static double widen(struct hart *h, uint64_t f, bool is_double)
{
    uint64_t bits = is_double ? f : 0;
    if (!is_double) {
        uint32_t s = unbox(f);
        if (s_is_signalling(s))
            h->fflags |= FFLAG_NV;
        bits = s_is_nan(s) ? D_CANONICAL : d_bits((double)s_from_bits(s));
    }
    return d_from_bits(bits);
}

/* Inf * 0 is invalid even if the addend is a quiet NaN (11.6), which the host leaves open. */
static bool inf_times_zero(uint64_t a, uint64_t b, uint64_t infinity)
{
    return (a == infinity && b == 0) || (a == 0 && b == infinity);
}

static void fused(struct hart *h, uint32_t raw, unsigned rm)
{
    bool is_double = raw >> 25 & 1;
    unsigned form = raw >> 2 & 3; /* madd, msub, nmsub, nmadd */
    uint64_t negate_product = form >= 2, negate_addend = form == 1 || form == 3;
    uint64_t *rd = &h->f[raw >> 7 & 31];
    uint64_t fa = h->f[raw >> 15 & 31], fb = h->f[raw >> 20 & 31], fc = h->f[raw >> 27];
    if (rm == RM_RMM) {
        double a = widen(h, fa, is_double), b = widen(h, fb, is_double);
        double c = widen(h, fc, is_double);
        a = negate_product ? d_from_bits(d_bits(a) ^ D_SIGN) : a;
        c = negate_addend ? d_from_bits(d_bits(c) ^ D_SIGN) : c;
        uint64_t result = rmm_fma(a, b, c, is_double, &h->fflags);
        *rd = is_double ? result : box((uint32_t)result);
    } else if (is_double) {
        if (inf_times_zero(fa & ~D_SIGN, fb & ~D_SIGN, D_INF))
            h->fflags |= FFLAG_NV;
        *rd = d_result(host_fma_d(has_fma(), d_from_bits(fa ^ negate_product << 63),
                                  d_from_bits(fb), d_from_bits(fc ^ negate_addend << 63)));
    } else {
        uint32_t a = unbox(fa), b = unbox(fb), c = unbox(fc);
        if (inf_times_zero(a & ~S_SIGN, b & ~S_SIGN, S_INF))
            h->fflags |= FFLAG_NV;
        *rd = box(
            s_result(host_fma_s(has_fma(), s_from_bits(a ^ (uint32_t)negate_product << 31),
                                s_from_bits(b), s_from_bits(c ^ (uint32_t)negate_addend << 31))));
    }
}

static void arithmetic(struct hart *h, uint32_t raw, unsigned rm)
{
    bool is_double = raw >> 25 & 1;
    unsigned f5 = raw >> 27;
    uint64_t *rd = &h->f[raw >> 7 & 31];
    uint64_t a = h->f[raw >> 15 & 31], b = h->f[raw >> 20 & 31];
    /* A square root is never halfway between two numbers, so that RMM is nearest there. */
    if (rm == RM_RMM && f5 != F_SQRT) {
        uint64_t result = rmm_binary((enum rmm_operation)f5, widen(h, a, is_double),
                                     widen(h, b, is_double), is_double, &h->fflags);
        *rd = is_double ? result : box((uint32_t)result);
    } else if (is_double) {
        *rd = arithmetic_d(f5, a, b);
    } else {
        *rd = box(arithmetic_s(f5, unbox(a), unbox(b)));
    }
}

/* --- conversions --- */

static void convert_format(struct hart *h, uint32_t raw, unsigned rm)
{
    bool to_double = raw >> 25 & 1;
    uint64_t *rd = &h->f[raw >> 7 & 31], a = h->f[raw >> 15 & 31];
    if (to_double)
        *rd = d_result(host_s_to_d(s_from_bits(unbox(a))));
    else if (rm == RM_RMM)
        *rd = box((uint32_t)rmm_from_double(d_from_bits(a), false, &h->fflags));
    else
        *rd = box(s_result(host_d_to_s(d_from_bits(a))));
}

static void convert_from_integer(struct hart *h, uint32_t raw, unsigned rm)
{
    bool to_double = raw >> 25 & 1;
    unsigned kind = raw >> 20 & 3; /* w, wu, l, lu */
    uint64_t *rd = &h->f[raw >> 7 & 31], x = h->x[raw >> 15 & 31];
    if (kind == 0)
        x = (uint64_t)(int64_t)(int32_t)x;
    else if (kind == 1)
        x = (uint32_t)x;
    bool negative = !(kind & 1) && (int64_t)x < 0;
    if (rm == RM_RMM) {
        uint64_t result = rmm_from_integer(negative ? -x : x, negative, to_double, &h->fflags);
        *rd = to_double ? result : box((uint32_t)result);
        return;
    }
    bool halved = kind == 3 && (int64_t)x < 0;
    if (halved)
        x = x >> 1 | (x & 1); /* the lost bit still decides the rounding; doubling is exact */
    if (to_double) {
        double d = host_i64_to_d((int64_t)x);
        *rd = d_bits(halved ? d * 2 : d);
    } else {
        float s = host_i64_to_s((int64_t)x);
        *rd = box(s_bits(halved ? s * 2 : s));
    }
}

/* Limits of fcvt's integer results (table 11.4): of magnitude, when positive and when negative. */
static const uint64_t positive_limits[4] = {INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
static const uint64_t negative_limits[4] = {UINT64_C(1) << 31, 0, UINT64_C(1) << 63, 0};

static bool rounds_up(unsigned rm, bool negative, bool odd, uint64_t rest, uint64_t half)
{
    switch (rm) {
    case RM_RNE:
        return rest > half || (rest == half && odd);
    case RM_RDN:
        return negative && rest;
    case RM_RUP:
        return !negative && rest;
    case RM_RMM:
        return rest >= half;
    default:
        return false;
    }
}

/* Double bits to integer. Out of range and NaN: the nearest limit, and NV alone. */
static uint64_t to_integer(struct hart *h, uint64_t a, unsigned kind, unsigned rm)
{
    bool negative = a >> 63 && !d_is_nan(a);
    uint64_t limit = negative ? negative_limits[kind] : positive_limits[kind];
    unsigned exponent = a >> 52 & 0x7ff;
    uint64_t sig = (a & (D_QUIET * 2 - 1)) | (exponent ? UINT64_C(1) << 52 : 0);
    uint64_t magnitude = limit, rest = 0;
    bool fits = exponent < 1023 + 64; /* below 2^64 */
    if (fits && exponent >= 1075) {
        magnitude = sig << (exponent - 1075);
    } else if (fits) {
        unsigned drop = 1075 - exponent;
        if (drop > 54) { /* below one half: as a quarter */
            sig = sig != 0;
            drop = 2;
        }
        magnitude = sig >> drop;
        rest = sig & ((UINT64_C(1) << drop) - 1);
        magnitude += rounds_up(rm, negative, magnitude & 1, rest, UINT64_C(1) << (drop - 1));
    }
    if (!fits || magnitude > limit) {
        h->fflags |= FFLAG_NV;
        magnitude = limit;
    } else if (rest) {
        h->fflags |= FFLAG_NX;
    }
    uint64_t value = negative ? -magnitude : magnitude;
    return kind < 2 ? (uint64_t)(int64_t)(int32_t)value : value;
}

static uint64_t widen_bits(uint32_t s)
{
    return s_is_nan(s) ? D_CANONICAL : d_bits((double)s_from_bits(s));
}

static uint64_t convert_to_integer(struct hart *h, uint32_t raw, unsigned rm)
{
    uint64_t a = h->f[raw >> 15 & 31];
    bool is_double = raw >> 25 & 1;
    return to_integer(h, is_double ? a : widen_bits(unbox(a)), raw >> 20 & 3, rm);
}

/* --- operations on bits --- */

static bool d_less(uint64_t a, uint64_t b, bool or_equal)
{
    bool sign_a = a >> 63, sign_b = b >> 63;
    if (!((a | b) & ~D_SIGN))
        return or_equal; /* both zero, of any sign */
    if (sign_a != sign_b)
        return sign_a;
    if (a == b)
        return or_equal;
    return (a < b) != sign_a;
}

/* A single's order is that of its widened bits. */
static void operands_as_double(struct hart *h, uint32_t raw, uint64_t *a, uint64_t *b,
                               bool *any_signalling)
{
    *a = h->f[raw >> 15 & 31];
    *b = h->f[raw >> 20 & 31];
    if (raw >> 25 & 1) {
        *any_signalling = d_is_signalling(*a) || d_is_signalling(*b);
        return;
    }
    *any_signalling = s_is_signalling(unbox(*a)) || s_is_signalling(unbox(*b));
    *a = widen_bits(unbox(*a));
    *b = widen_bits(unbox(*b));
}

/* 11.8: feq is quiet; flt and fle signal on any NaN. */
static uint64_t compare(struct hart *h, uint32_t raw)
{
    unsigned f3 = raw >> 12 & 7; /* fle, flt, feq */
    uint64_t a, b;
    bool any_signalling;
    operands_as_double(h, raw, &a, &b, &any_signalling);
    if (d_is_nan(a) || d_is_nan(b)) {
        if (any_signalling || f3 != 2)
            h->fflags |= FFLAG_NV;
        return 0;
    }
    if (f3 == 2)
        return a == b || !((a | b) & ~D_SIGN);
    return d_less(a, b, f3 == 0);
}

/* 11.6: a NaN loses against a number; -0 is less than +0. */
static void min_max(struct hart *h, uint32_t raw)
{
    bool is_double = raw >> 25 & 1, max = raw >> 12 & 1;
    uint64_t *rd = &h->f[raw >> 7 & 31];
    uint64_t fa = h->f[raw >> 15 & 31], fb = h->f[raw >> 20 & 31], a, b;
    bool any_signalling, take_a;
    operands_as_double(h, raw, &a, &b, &any_signalling);
    if (any_signalling)
        h->fflags |= FFLAG_NV;
    if (d_is_nan(a) && d_is_nan(b)) {
        *rd = is_double ? D_CANONICAL : box(S_CANONICAL);
        return;
    }
    if (d_is_nan(a) || d_is_nan(b))
        take_a = d_is_nan(b);
    else if (!((a | b) & ~D_SIGN))
        take_a = (a >> 63) != max;
    else
        take_a = d_less(a, b, false) != max;
    *rd = take_a ? fa : fb;
}

static void sign_inject(struct hart *h, uint32_t raw)
{
    bool is_double = raw >> 25 & 1;
    unsigned f3 = raw >> 12 & 7;
    uint64_t *rd = &h->f[raw >> 7 & 31];
    uint64_t a = h->f[raw >> 15 & 31], b = h->f[raw >> 20 & 31];
    uint64_t sign = is_double ? D_SIGN : S_SIGN;
    if (!is_double) {
        a = unbox(a);
        b = unbox(b);
    }
    uint64_t injected = f3 == 0 ? b : f3 == 1 ? ~b : a ^ b;
    uint64_t result = (a & ~sign) | (injected & sign);
    *rd = is_double ? result : box((uint32_t)result);
}

/* 11.9, table 11.5. Fraction and exponent are those of the operand's own format. */
static uint64_t classify(uint64_t f, bool is_double)
{
    uint64_t a = is_double ? f : unbox(f), sign = is_double ? D_SIGN : S_SIGN;
    uint64_t infinity = is_double ? D_INF : S_INF;
    uint64_t quiet = is_double ? D_QUIET : S_QUIET, magnitude = a & ~sign;
    bool negative = a & sign;
    if (magnitude > infinity)
        return magnitude & quiet ? 1 << 9 : 1 << 8;
    unsigned distance = magnitude == infinity ? 3 : magnitude >= 2 * quiet ? 2 : magnitude ? 1 : 0;
    return UINT64_C(1) << (negative ? 3 - distance : 4 + distance);
}

/* --- dispatch --- */

static void set_x(struct hart *h, uint32_t raw, uint64_t value)
{
    unsigned rd = raw >> 7 & 31;
    h->x[rd ? rd : X_SINK] = value;
}

static void execute_rounded(struct hart *h, uint32_t raw, unsigned rm)
{
    if ((raw & 0x7f) != 0x53) {
        fused(h, raw, rm);
        return;
    }
    switch (raw >> 27) {
    case F_CVT_F:
        convert_format(h, raw, rm);
        break;
    case F_CVT_FROM_INT:
        convert_from_integer(h, raw, rm);
        break;
    case F_CVT_TO_INT:
        set_x(h, raw, convert_to_integer(h, raw, rm));
        break;
    default:
        arithmetic(h, raw, rm);
        break;
    }
}

bool fpu_execute(struct hart *h, uint32_t raw)
{
    uint64_t a = h->f[raw >> 15 & 31];
    bool is_double = raw >> 25 & 1;
    if ((raw & 0x7f) == 0x53) {
        switch (raw >> 27) {
        case F_SGNJ:
            sign_inject(h, raw);
            return true;
        case F_MINMAX:
            min_max(h, raw);
            return true;
        case F_CMP:
            set_x(h, raw, compare(h, raw));
            return true;
        case F_MV_X:
            if (raw >> 12 & 1)
                set_x(h, raw, classify(a, is_double));
            else
                set_x(h, raw, is_double ? a : (uint64_t)(int64_t)(int32_t)a);
            return true;
        case F_MV_F: {
            uint64_t x = h->x[raw >> 15 & 31];
            h->f[raw >> 7 & 31] = is_double ? x : box((uint32_t)x);
            return true;
        }
        default:
            break;
        }
    }
    unsigned rm = raw >> 12 & 7;
    if (rm == RM_DYNAMIC)
        rm = h->frm;
    if (rm > RM_RMM)
        return false;
    if (round_control[rm] == round_control[h->frm]) {
        execute_rounded(h, raw, rm);
    } else {
        host_set_mxcsr((host_mxcsr() & ~MXCSR_RC) | round_control[rm]);
        execute_rounded(h, raw, rm);
        host_set_mxcsr((host_mxcsr() & ~MXCSR_RC) | round_control[h->frm]);
    }
    return true;
}
