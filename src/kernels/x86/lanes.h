/* lanes - sixteen f32 in registers, the same source for AVX-512 (one register) and AVX2 (two)
 *
 * A file named x_avx2.c or x_avx512.c includes this and the body it shares; ISA(name) is name__avx2 or name__avx512.
 */
#ifndef KERNELS_X86_LANES_H
#define KERNELS_X86_LANES_H

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

#endif
