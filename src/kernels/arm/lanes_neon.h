/* lanes_neon - sixteen f32 (and sixteen i32) in four NEON registers: what lanes.h is on 64-bit ARM
 *
 * Only operations whose bits equal those of the scalar definition: fused multiply-add, division, square root, integer
 * dots. bf16 instructions of ARM round differently and are not used (docs/numerics.md section 1).
 */
#ifndef KERNELS_ARM_LANES_NEON_H
#define KERNELS_ARM_LANES_NEON_H

#include <arm_neon.h>

#include "kernels/kernels_private.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
#ifndef ISA
#define ISA(name) name##__neon
#endif

typedef struct {
    float32x4_t q[4];
} v16;
#define V16_EACH(expr) ((v16){{(expr(0)), (expr(1)), (expr(2)), (expr(3))}})

INLINE v16 v16_set(float x)
{
    float32x4_t v = vdupq_n_f32(x);
    return (v16){{v, v, v, v}};
}
INLINE v16 v16_zero(void)
{
    return v16_set(0);
}
INLINE v16 v16_load(const float *p)
{
    return (v16){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}
INLINE void v16_store(float *p, v16 a)
{
    UNROLL for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.q[i]);
}
INLINE v16 v16_load_half(const uint16_t *p)
{
#define HALF(i) vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * (i))))
    return V16_EACH(HALF);
#undef HALF
}
INLINE void v16_store_half(uint16_t *p, v16 a) /* nearest even */
{
    UNROLL for (int i = 0; i < 4; i++) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.q[i])));
}
INLINE v16 v16_load_int8(const int8_t *p)
{
    int8x16_t v = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_s8(vget_high_s8(v));
    return (v16){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
                  vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}
#define V16_2(name, op)                                                                                                \
    INLINE v16 name(v16 a, v16 b)                                                                                      \
    {                                                                                                                  \
        return (v16){{op(a.q[0], b.q[0]), op(a.q[1], b.q[1]), op(a.q[2], b.q[2]), op(a.q[3], b.q[3])}};                \
    }
V16_2(v16_add, vaddq_f32)
V16_2(v16_sub, vsubq_f32)
V16_2(v16_mul, vmulq_f32)
V16_2(v16_div, vdivq_f32)
INLINE float32x4_t max4(float32x4_t a, float32x4_t b) /* a > b ? a : b, as everywhere; vmaxq treats NaN otherwise */
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
V16_2(v16_max, max4)
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){{vfmaq_f32(c.q[0], a.q[0], b.q[0]), vfmaq_f32(c.q[1], a.q[1], b.q[1]),
                  vfmaq_f32(c.q[2], a.q[2], b.q[2]), vfmaq_f32(c.q[3], a.q[3], b.q[3])}};
}
INLINE v16 v16_sqrt(v16 a)
{
    return (v16){{vsqrtq_f32(a.q[0]), vsqrtq_f32(a.q[1]), vsqrtq_f32(a.q[2]), vsqrtq_f32(a.q[3])}};
}
/* The first n lanes (n <= 0: none), the others zero; and stored, the others left alone. */
INLINE v16 v16_load_n(const float *p, int n)
{
    float lane[LANES] = {0};
    if (n > 0)
        memcpy(lane, p, (size_t)n * sizeof *lane);
    return v16_load(lane);
}
INLINE void v16_store_n(float *p, v16 a, int n)
{
    float lane[LANES];
    v16_store(lane, a);
    if (n > 0)
        memcpy(p, lane, (size_t)n * sizeof *lane);
}
/* Sixteen little-endian words to ((word >> shift) & mask) - zero, exact. */
INLINE v16 v16_load_bits(const void *p, int shift, int mask, int zero)
{
    const uint32_t *word = p;
    v16 out;
    UNROLL for (int i = 0; i < 4; i++)
    {
        uint32x4_t bits =
            vandq_u32(vshlq_u32(vld1q_u32(word + 4 * i), vdupq_n_s32(-shift)), vdupq_n_u32((uint32_t)mask));
        out.q[i] = vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(bits), vdupq_n_s32(zero)));
    }
    return out;
}
/* Sixteen pairs of bf16: the second, and the first of each. */
INLINE v16 v16_pair_odd(v16 pair)
{
    UNROLL for (int i = 0; i < 4; i++) pair.q[i] =
        vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pair.q[i]), vdupq_n_u32(0xffff0000)));
    return pair;
}
INLINE v16 v16_pair_even(v16 pair)
{
    UNROLL for (int i = 0; i < 4; i++) pair.q[i] =
        vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pair.q[i]), 16));
    return pair;
}
/* Sixteen pairs taken apart: p[0], p[2] ... and p[1], p[3] ... */
INLINE void v16_load_pairs(const float *p, v16 *even, v16 *odd)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        float32x4x2_t both = vld2q_f32(p + 8 * i);
        even->q[i] = both.val[0];
        odd->q[i] = both.val[1];
    }
}
INLINE float v16_first_lane(v16 a)
{
    return vgetq_lane_f32(a.q[0], 0);
}
/* The tree of docs/numerics.md section 2: +8, +4, +2, +1. */
INLINE float v16_sum(v16 a)
{
    float32x4_t four = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
/* The same tree with a > b ? a : b, lower lane first. */
INLINE float v16_max_lane(v16 a)
{
    float32x4_t four = max4(max4(a.q[0], a.q[2]), max4(a.q[1], a.q[3]));
    float lane[4];
    vst1q_f32(lane, four);
    float x = lane[0] > lane[2] ? lane[0] : lane[2], y = lane[1] > lane[3] ? lane[1] : lane[3];
    return x > y ? x : y;
}

/* ---- masks and exponents, for fn_body.h ---- */
typedef struct {
    uint32x4_t q[4]; /* all bits of a lane or none */
} vm;
#define VM_2(name, op)                                                                                                 \
    INLINE vm name(v16 a, v16 b)                                                                                       \
    {                                                                                                                  \
        return (vm){{op(a.q[0], b.q[0]), op(a.q[1], b.q[1]), op(a.q[2], b.q[2]), op(a.q[3], b.q[3])}};                 \
    }
VM_2(vf_lt, vcltq_f32)
VM_2(vf_ge, vcgeq_f32)
VM_2(vf_eq, vceqq_f32)
#define VF_1(name, op)                                                                                                 \
    INLINE v16 name(v16 a)                                                                                             \
    {                                                                                                                  \
        return (v16){{op(a.q[0]), op(a.q[1]), op(a.q[2]), op(a.q[3])}};                                                \
    }
VF_1(vf_rint, vrndnq_f32)
VF_1(vf_abs, vabsq_f32)
VF_1(vf_negate, vnegq_f32)
INLINE v16 vf_copysign(v16 a, v16 s)
{
    UNROLL for (int i = 0; i < 4; i++) a.q[i] = vbslq_f32(vdupq_n_u32(0x80000000), s.q[i], a.q[i]);
    return a;
}
INLINE v16 vf_pick(vm m, v16 yes, v16 no)
{
    UNROLL for (int i = 0; i < 4; i++) no.q[i] = vbslq_f32(m.q[i], yes.q[i], no.q[i]);
    return no;
}
INLINE unsigned vm_bits(vm m)
{
    static const uint32_t weight[4] = {1, 2, 4, 8};
    unsigned bits = 0;
    UNROLL for (int i = 0; i < 4; i++) bits |= vaddvq_u32(vandq_u32(m.q[i], vld1q_u32(weight))) << 4 * i;
    return bits;
}
INLINE vm vm_first(int n) /* lanes below n; n <= 0: none */
{
    static const int32_t lane[4] = {0, 1, 2, 3};
    vm m;
    UNROLL for (int i = 0; i < 4; i++) m.q[i] = vcltq_s32(vld1q_s32(lane), vdupq_n_s32(n - 4 * i));
    return m;
}
INLINE v16 vf_shift_exponent(v16 x, v16 n)
{
    UNROLL for (int i = 0; i < 4; i++) x.q[i] =
        vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x.q[i]), vshlq_n_s32(vcvtnq_s32_f32(n.q[i]), 23)));
    return x;
}
INLINE v16 vf_split_exponent(v16 x, v16 *m)
{
    v16 exponent;
    UNROLL for (int i = 0; i < 4; i++)
    {
        int32x4_t bits = vreinterpretq_s32_f32(x.q[i]);
        int32x4_t e = vshrq_n_s32(vsubq_s32(bits, vdupq_n_s32(0x3f3504f3)), 23);
        m->q[i] = vreinterpretq_f32_s32(vsubq_s32(bits, vshlq_n_s32(e, 23)));
        exponent.q[i] = vcvtq_f32_s32(e);
    }
    return exponent;
}

/* ---- sixteen doubles, for sums of squares ---- */
typedef struct {
    float64x2_t q[8];
} v16d;
INLINE v16d v16d_zero(void)
{
    v16d z;
    UNROLL for (int i = 0; i < 8; i++) z.q[i] = vdupq_n_f64(0);
    return z;
}
INLINE v16d v16d_add_squares(v16d sum, const float *x)
{
    UNROLL for (int i = 0; i < 8; i++)
    {
        float64x2_t d = vcvt_f64_f32(vld1_f32(x + 2 * i));
        sum.q[i] = vfmaq_f64(sum.q[i], d, d);
    }
    return sum;
}
INLINE v16d v16d_add_masses(v16d sum, v16 x) /* each as a multiple of 2^-52 (mass_of) */
{
    const float64x2_t one = vdupq_n_f64(1);
    float each[16];
    v16_store(each, x);
    UNROLL for (int i = 0; i < 8; i++) sum.q[i] =
        vaddq_f64(sum.q[i], vsubq_f64(vaddq_f64(vcvt_f64_f32(vld1_f32(each + 2 * i)), one), one));
    return sum;
}
INLINE double v16d_sum(v16d a)
{
    float64x2_t lo = vaddq_f64(vaddq_f64(a.q[0], a.q[4]), vaddq_f64(a.q[2], a.q[6]));
    float64x2_t hi = vaddq_f64(vaddq_f64(a.q[1], a.q[5]), vaddq_f64(a.q[3], a.q[7]));
    float64x2_t two = vaddq_f64(lo, hi);
    return vgetq_lane_f64(two, 0) + vgetq_lane_f64(two, 1);
}

#endif
