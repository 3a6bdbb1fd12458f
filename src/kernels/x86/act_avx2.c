/* act on AVX2: rounding activations to bf16 and to int8 blocks, in the bits of act_ref */
#include "kernels/act_rows.h"
#include "kernels/simd/lanes.h"

void act_bf16__avx2(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    act_bf16_some(a, x, row, k0, k1);
}

INLINE uint32_t max_lane(__m256i v)
{
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xb1)));
}

/* The negated sums of two times eight, as the two int16 of a word: each is at most 16 * 127. */
INLINE uint32_t minus_halves(__m256i first, __m256i last)
{
    __m256i pairs = _mm256_hadd_epi32(first, last);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    __m128i two = _mm_sub_epi32(_mm_setzero_si128(), _mm_hadd_epi32(four, four));
    return (uint32_t)_mm_cvtsi128_si32(_mm_packs_epi32(two, two));
}

INLINE float quantize_block(int8_t *q, int32_t *minus, int16_t *halves, const float *x)
{
    __m256 v[4];
    __m256i magnitude = _mm256_set1_epi32(0x7fffffff), top = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++)
    {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    }
    uint32_t bits = max_lane(top);
    float amax;
    memcpy(&amax, &bits, 4);
    bool finite = bits < 0x7f800000u;
    if (!finite || amax < ACT_AMAX_MIN) {
        _mm256_storeu_si256((__m256i *)q, _mm256_setzero_si256());
        *minus = halves[0] = halves[1] = 0;
        return finite ? 0.0f : NAN;
    }
    __m256 inverse = _mm256_set1_ps(127.0f / amax);
    __m256i n[4];
    UNROLL for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse)); /* nearest even */
    uint32_t sums = minus_halves(_mm256_add_epi32(n[0], n[1]), _mm256_add_epi32(n[2], n[3]));
    memcpy(halves, &sums, sizeof sums);
    *minus = (int16_t)sums + (int16_t)(sums >> 16);
    /* Packing works inside 128-bit halves; the permutation puts the eight groups of four back in order. */
    __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
    packed = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)q, packed);
    return amax / 127.0f;
}

void act_int8__avx2(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    act_int8_some(a, x, row, k0, k1, quantize_block);
}
