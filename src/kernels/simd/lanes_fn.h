/* lanes_fn - what fn_body.h asks of a lane type, for v16 of lanes.h; and the loops over whole and broken vectors */
#ifndef KERNELS_SIMD_LANES_FN_H
#define KERNELS_SIMD_LANES_FN_H

#include "kernels/simd/lanes.h"

typedef v16 vf;
#define vf_set v16_set
#define vf_add v16_add
#define vf_sub v16_sub
#define vf_mul v16_mul
#define vf_div v16_div
#define vf_fma v16_fma

#if defined __aarch64__ /* vm and the rest stand in lanes_neon.h */
#elif defined __AVX512F__
typedef __mmask16 vm;
INLINE vf vf_rint(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}
INLINE vf vf_copysign(vf a, vf s)
{
    const __m512 sign = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, s));
}
INLINE vf vf_negate(vf a)
{
    return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f));
}
INLINE vm vf_lt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
INLINE vm vf_ge(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
INLINE vm vf_eq(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
INLINE vf vf_pick(vm m, vf yes, vf no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}
INLINE unsigned vm_bits(vm m)
{
    return m;
}
INLINE vm vm_first(int n) /* lanes below n; n <= 0: none */
{
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}
INLINE vf vf_shift_exponent(vf x, vf n)
{
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23)));
}
INLINE vf vf_split_exponent(vf x, vf *m)
{
    __m512i bits = _mm512_castps_si512(x);
    __m512i e = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(0x3f3504f3)), 23);
    *m = _mm512_castsi512_ps(_mm512_sub_epi32(bits, _mm512_slli_epi32(e, 23)));
    return _mm512_cvtepi32_ps(e);
}
#else
typedef v16 vm; /* all bits of a lane or none */
INLINE vf vf_rint(vf a)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    return (vf){_mm256_round_ps(a.lo, NEAREST), _mm256_round_ps(a.hi, NEAREST)};
}
INLINE vf vf_abs(vf a)
{
    return V16_2(_mm256_andnot_ps, v16_set(-0.0f), a);
}
INLINE vf vf_copysign(vf a, vf s)
{
    vf sign = V16_2(_mm256_and_ps, v16_set(-0.0f), s);
    return V16_2(_mm256_or_ps, vf_abs(a), sign);
}
INLINE vf vf_negate(vf a)
{
    return V16_2(_mm256_xor_ps, a, v16_set(-0.0f));
}
INLINE vm vf_lt(vf a, vf b)
{
    return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
INLINE vm vf_ge(vf a, vf b)
{
    return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_GE_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GE_OQ)};
}
INLINE vm vf_eq(vf a, vf b)
{
    return (vm){_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
}
INLINE vf vf_pick(vm m, vf yes, vf no)
{
    return (vf){_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}
INLINE unsigned vm_bits(vm m)
{
    return (unsigned)_mm256_movemask_ps(m.lo) | (unsigned)_mm256_movemask_ps(m.hi) << 8;
}
INLINE vm vm_first(int n)
{
    return (vm){_mm256_castsi256_ps(v16_first(n)), _mm256_castsi256_ps(v16_first(n - 8))};
}
INLINE __m256 shift_exponent8(__m256 x, __m256 n)
{
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}
INLINE vf vf_shift_exponent(vf x, vf n)
{
    return V16_2(shift_exponent8, x, n);
}
INLINE __m256i exponent8(__m256 x)
{
    return _mm256_srai_epi32(_mm256_sub_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(0x3f3504f3)), 23);
}
INLINE __m256 mantissa8(__m256 x, __m256i e)
{
    return _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(e, 23)));
}
INLINE vf vf_split_exponent(vf x, vf *m)
{
    __m256i lo = exponent8(x.lo), hi = exponent8(x.hi);
    *m = (vf){mantissa8(x.lo, lo), mantissa8(x.hi, hi)};
    return (vf){_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)};
}
#endif

#include "kernels/fn_body.h"

/* The same bits as vf_exp for x <= 88 and NaN, with 6 of 22 operations less: whatever an x that is too small comes to
 * (vectors have no traps) is replaced, and NaN goes through. Above 88.7 it is anything. */
INLINE vf vf_exp_down(vf x)
{
    return vf_pick(vf_lt(x, vf_set(EXP_LOW)), vf_set(0.0f), vf_exp_inner(x));
}

/* One number through the vector function: the same bits as the scalar one. */
INLINE float exp_one(float x)
{
    return v16_first_lane(vf_exp(vf_set(x)));
}

/* The vector at p[i .. i+15], of which only those below `end` exist. */
INLINE vf load_until(const float *p, int64_t i, int64_t end)
{
    return end - i >= 16 ? v16_load(p + i) : v16_load_n(p + i, (int)(end - i));
}
INLINE void store_until(float *p, int64_t i, int64_t end, vf a)
{
    if (end - i >= 16)
        v16_store(p + i, a);
    else
        v16_store_n(p + i, a, (int)(end - i));
}
/* Lanes that exist take `next`, the others keep `sum`: an absent element adds nothing, not even +0 to -0. */
INLINE vf keep_until(int64_t i, int64_t end, vf next, vf sum)
{
    return end - i >= 16 ? next : vf_pick(vm_first((int)(end - i)), next, sum);
}

#endif
