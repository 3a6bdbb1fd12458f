/* int8_lanes - integer vectors of the set's own width: what products with int8 activations are made of
 *
 * A panel's 16 outputs are one vector of AVX-512, two groups of 8 on AVX2. V(op) is the intrinsic of that width, VI(op)
 * the one on whole registers.
 */
#ifndef KERNELS_X86_INT8_LANES_H
#define KERNELS_X86_INT8_LANES_H

#include "kernels/simd/lanes.h"

#ifdef __AVX512F__
enum { VEC = 16 };
typedef __m512i vi;
typedef __m512 vf;
#define V(op)  _mm512_##op
#define VI(op) _mm512_##op##_si512
INLINE vi vi_table(const int8_t table[16]) /* for V(shuffle_epi8), which looks up in each 16 bytes */
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
}
INLINE vi vi_widen8(const void *p) /* unsigned bytes to int32 */
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(p));
}
INLINE vi vi_widen8_signed(const void *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(p));
}
INLINE vi vi_pairs8(const void *p) /* signed bytes to int16 */
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(p));
}
INLINE vi vi_widen16(const void *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
}
INLINE vf vf_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
INLINE vi vi_signed(vi x, vi w) /* x with w's sign; w == 0 does not matter: |w| multiplies it */
{
    return _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
}
/* vi_flip(x, vi_sign(w)) is x, for negative w ~x; on AVX2 -x and 0 for w == 0. */
INLINE vi vi_sign(vi w)
{
    return _mm512_movm_epi8(_mm512_movepi8_mask(w));
}
INLINE vi vi_flip(vi x, vi sign)
{
    return _mm512_xor_si512(x, sign);
}
INLINE vf vf_castsi(vi a)
{
    return _mm512_castsi512_ps(a);
}
INLINE vi vi_castps(vf a)
{
    return _mm512_castps_si512(a);
}
INLINE __mmask16 vf_first(int64_t n)
{
    return (__mmask16)(n >= VEC ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}
INLINE vf vf_load_n(const float *p, int64_t n) /* any n: none below 1, all from VEC on */
{
    return _mm512_maskz_loadu_ps(vf_first(n), p);
}
INLINE void vf_store_n(float *p, vf a, int64_t n)
{
    _mm512_mask_storeu_ps(p, vf_first(n), a);
}
#else
enum { VEC = 8 };
typedef __m256i vi;
typedef __m256 vf;
#define V(op)  _mm256_##op
#define VI(op) _mm256_##op##_si256
INLINE vi vi_table(const int8_t table[16])
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}
INLINE vi vi_widen8(const void *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p));
}
INLINE vi vi_widen8_signed(const void *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(p));
}
INLINE vi vi_pairs8(const void *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(p));
}
INLINE vi vi_widen16(const void *p)
{
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
}
INLINE vf vf_half(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
INLINE vi vi_signed(vi x, vi w)
{
    return _mm256_sign_epi8(x, w);
}
INLINE vi vi_sign(vi w)
{
    return w;
}
INLINE vi vi_flip(vi x, vi sign)
{
    return _mm256_sign_epi8(x, sign);
}
INLINE vf vf_castsi(vi a)
{
    return _mm256_castsi256_ps(a);
}
INLINE vi vi_castps(vf a)
{
    return _mm256_castps_si256(a);
}
INLINE vi vf_first(int64_t n)
{
    return v16_first(n >= VEC ? VEC : n <= 0 ? 0 : (int)n);
}
INLINE vf vf_load_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, vf_first(n));
}
INLINE void vf_store_n(float *p, vf a, int64_t n)
{
    _mm256_maskstore_ps(p, vf_first(n), a);
}
#endif

INLINE vi vi_load(const void *p)
{
    return VI(loadu)(p);
}
INLINE void vi_store(void *p, vi a)
{
    VI(storeu)(p, a);
}
INLINE vi vi_and(vi a, vi b)
{
    return VI(and)(a, b);
}
INLINE vi vi_or(vi a, vi b)
{
    return VI(or)(a, b);
}
INLINE vi vi_xor(vi a, vi b)
{
    return VI(xor)(a, b);
}
INLINE vi vi_word(const void *p) /* four bytes, broadcast */
{
    int32_t word;
    memcpy(&word, p, 4);
    return V(set1_epi32)(word);
}

#endif
