/* lanes - sixteen f32 in registers, the same source for AVX-512 (one register), AVX2 (two) and NEON (four)
 *
 * A file named x_avx2.c, x_avx512.c or x_neon.c includes this and the body it shares; ISA(name) is name__avx2 ...
 */
#ifndef KERNELS_SIMD_LANES_H
#define KERNELS_SIMD_LANES_H

#ifdef __aarch64__
#include "kernels/arm/lanes_neon.h"
#else
#include <immintrin.h>

#include "kernels/kernels_private.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

#ifdef __AVX512F__
#ifndef ISA
#define ISA(name) name##__avx512
#endif

typedef __m512 v16;
INLINE v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE v16 v16_set(float x)
{
    return _mm512_set1_ps(x);
}
INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void v16_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}
INLINE v16 v16_load_half(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE void v16_store_half(uint16_t *p, v16 a) /* nearest even whatever MXCSR says */
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
INLINE v16 v16_load_int8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
INLINE v16 v16_sqrt(v16 a)
{
    return _mm512_sqrt_ps(a);
}
INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
} /* a > b ? a : b */
/* The first n lanes (0 .. 16), the others zero; and stored, the others left alone. */
INLINE v16 v16_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
INLINE void v16_store_n(float *p, v16 a, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a);
}

/* Sixteen little-endian words to ((word >> shift) & mask) - zero, exact. */
INLINE v16 v16_load_bits(const void *p, int shift, int mask, int zero)
{
    __m512i word = _mm512_srli_epi32(_mm512_loadu_si512(p), (unsigned)shift);
    word = _mm512_sub_epi32(_mm512_and_si512(word, _mm512_set1_epi32(mask)), _mm512_set1_epi32(zero));
    return _mm512_cvtepi32_ps(word);
}
/* Sixteen pairs of bf16: the second, and the first of each. */
INLINE v16 v16_pair_odd(v16 pair)
{
    return _mm512_and_ps(pair, _mm512_castsi512_ps(_mm512_set1_epi32((int)0xffff0000)));
}
INLINE v16 v16_pair_even(v16 pair)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pair), 16));
}
/* Sixteen pairs taken apart: p[0], p[2] ... and p[1], p[3] ... */
INLINE void v16_load_pairs(const float *p, v16 *even, v16 *odd)
{
    const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}

/* Halves, for the tree of docs/numerics.md section 2 (+8, +4, +2, +1). */
INLINE __m256 v16_low(v16 a)
{
    return _mm512_castps512_ps256(a);
}
INLINE __m256 v16_high(v16 a)
{
    return _mm512_extractf32x8_ps(a, 1);
}
#else
#define ISA(name)       name##__avx2

typedef struct {
    __m256 lo, hi;
} v16;
INLINE v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
INLINE v16 v16_set(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
INLINE void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
INLINE v16 v16_load_half(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
INLINE void v16_store_half(uint16_t *p, v16 a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
INLINE v16 v16_load_int8(const int8_t *p)
{
    __m128i q = _mm_loadu_si128((const __m128i *)p);
    return (v16){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                 _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}
#define V16_2(op, a, b) ((v16){op((a).lo, (b).lo), op((a).hi, (b).hi)})
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
INLINE v16 v16_add(v16 a, v16 b)
{
    return V16_2(_mm256_add_ps, a, b);
}
INLINE v16 v16_sub(v16 a, v16 b)
{
    return V16_2(_mm256_sub_ps, a, b);
}
INLINE v16 v16_mul(v16 a, v16 b)
{
    return V16_2(_mm256_mul_ps, a, b);
}
INLINE v16 v16_div(v16 a, v16 b)
{
    return V16_2(_mm256_div_ps, a, b);
}
INLINE v16 v16_sqrt(v16 a)
{
    return (v16){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}
INLINE v16 v16_max(v16 a, v16 b)
{
    return V16_2(_mm256_max_ps, a, b);
}
INLINE __m256i v16_first(int n) /* all bits in lanes below n */
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE v16 v16_load_n(const float *p, int n)
{
    return (v16){_mm256_maskload_ps(p, v16_first(n)), _mm256_maskload_ps(p + 8, v16_first(n - 8))};
}
INLINE void v16_store_n(float *p, v16 a, int n)
{
    _mm256_maskstore_ps(p, v16_first(n), a.lo);
    _mm256_maskstore_ps(p + 8, v16_first(n - 8), a.hi);
}
INLINE __m256 half_bits(__m256i word, int shift, int mask, int zero)
{
    word = _mm256_and_si256(_mm256_srli_epi32(word, shift), _mm256_set1_epi32(mask));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(word, _mm256_set1_epi32(zero)));
}
INLINE v16 v16_load_bits(const void *p, int shift, int mask, int zero)
{
    const __m256i *word = p;
    return (v16){half_bits(_mm256_loadu_si256(word), shift, mask, zero),
                 half_bits(_mm256_loadu_si256(word + 1), shift, mask, zero)};
}
INLINE v16 v16_pair_odd(v16 pair)
{
    __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000));
    return (v16){_mm256_and_ps(pair.lo, mask), _mm256_and_ps(pair.hi, mask)};
}
INLINE v16 v16_pair_even(v16 pair)
{
    return (v16){_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pair.lo), 16)),
                 _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pair.hi), 16))};
}
INLINE __m256 in_order8(__m256 a) /* what shuffle_ps of two registers left: 0 1 4 5 2 3 6 7 by pairs */
{
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(a), 0xd8));
}
INLINE void v16_load_pairs(const float *p, v16 *even, v16 *odd)
{
    __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8), c = _mm256_loadu_ps(p + 16), d = _mm256_loadu_ps(p + 24);
    *even = (v16){in_order8(_mm256_shuffle_ps(a, b, 0x88)), in_order8(_mm256_shuffle_ps(c, d, 0x88))};
    *odd = (v16){in_order8(_mm256_shuffle_ps(a, b, 0xdd)), in_order8(_mm256_shuffle_ps(c, d, 0xdd))};
}
INLINE __m256 v16_low(v16 a)
{
    return a.lo;
}
INLINE __m256 v16_high(v16 a)
{
    return a.hi;
}
#endif

/* The tree of docs/numerics.md section 2: +8, +4, +2, +1. */
INLINE float v16_sum(v16 a)
{
    __m256 eight = _mm256_add_ps(v16_low(a), v16_high(a));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
/* The same tree with a > b ? a : b, lower lane first. */
INLINE float v16_max_lane(v16 a)
{
    __m256 eight = _mm256_max_ps(v16_low(a), v16_high(a));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

INLINE float v16_first_lane(v16 a)
{
    return _mm_cvtss_f32(_mm256_castps256_ps128(v16_low(a)));
}

/* ---- sixteen doubles, for sums of squares ---- */
typedef struct {
    __m256d q[4];
} v16d;
INLINE v16d v16d_zero(void)
{
    __m256d z = _mm256_setzero_pd();
    return (v16d){{z, z, z, z}};
}
INLINE v16d v16d_add_squares(v16d sum, const float *x)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        __m256d d = _mm256_cvtps_pd(_mm_loadu_ps(x + 4 * i));
        sum.q[i] = _mm256_fmadd_pd(d, d, sum.q[i]);
    }
    return sum;
}
/* Each as a multiple of 2^-52 (mass_of). */
INLINE v16d v16d_add_masses(v16d sum, v16 x)
{
    const __m256d one = _mm256_set1_pd(1);
    const __m128 q[4] = {_mm256_castps256_ps128(v16_low(x)), _mm256_extractf128_ps(v16_low(x), 1),
                         _mm256_castps256_ps128(v16_high(x)), _mm256_extractf128_ps(v16_high(x), 1)};
    UNROLL for (int i = 0; i < 4; i++) sum.q[i] =
        _mm256_add_pd(sum.q[i], _mm256_sub_pd(_mm256_add_pd(_mm256_cvtps_pd(q[i]), one), one));
    return sum;
}
INLINE double v16d_sum(v16d a)
{
    __m256d four = _mm256_add_pd(_mm256_add_pd(a.q[0], a.q[2]), _mm256_add_pd(a.q[1], a.q[3]));
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}
#endif /* x86 */

#endif
