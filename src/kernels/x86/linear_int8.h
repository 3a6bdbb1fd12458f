/* linear_int8 - forward products of Q8_0, Q4_0 and Q4_1 panels with int8 activations; included once for each set
 *
 * A tile is R rows x 1 panel: the 32 k of a block come as eight registers of 16 outputs x 4 k, each row brings eight
 * words of four activations. Integer sums are exact, so every set gives the bits of ref; the f32 steps are written in
 * its order. How 4 products are added is the only difference between sets:
 *   VNNI      dpbusd on unsigned weights; the sum starts at the zero point times minus the activations' sum
 *   without   4 bits: maddubs chained in int16 (8 x 2 x 15 x 127 < 32768), one madd a block
 *             8 bits: unsigned weights would saturate maddubs, so |w| meets sign(x, w); 2 x 128 x 127 < 32768
 */
#include "kernels/x86/lanes.h"

enum { WORDS = 8 };

/* Bytes by which prefetching runs ahead of the panel's blocks (scales lie before the quants, so 0 is still ahead of the
 * later blocks). One row from memory, one thread of a Zen 4 EPYC, GB/s at 0, 2048, 8192, 2026-11: Q8_0 31, 21, 23;
 * Q4_0 32, 28, 34; Q4_1 19, 21, 29; without any prefetch Q8_0 17, Q4_0 12. */
#define AHEAD(t) ((t) == DT_Q8_0 ? 0 : 8192)

#ifdef __AVX512F__
typedef __m512i v16i;
#ifdef __AVX512VNNI__
enum { TILE_R = 16 };
#else
enum { TILE_R = 8 };
#endif
INLINE v16i v16i_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
INLINE v16i v16i_set(int x)
{
    return _mm512_set1_epi32(x);
}
INLINE v16i v16i_add(v16i a, v16i b)
{
    return _mm512_add_epi32(a, b);
}
INLINE v16i v16i_and(v16i a, v16i b)
{
    return _mm512_and_si512(a, b);
}
INLINE v16i v16i_xor(v16i a, v16i b)
{
    return _mm512_xor_si512(a, b);
}
INLINE v16i v16i_right4(v16i a)
{
    return _mm512_srli_epi16(a, 4);
}
INLINE v16i v16i_left(v16i a, int n)
{
    return _mm512_slli_epi32(a, (unsigned)n);
}
INLINE v16 v16i_float(v16i a)
{
    return _mm512_cvtepi32_ps(a);
}
#ifndef __AVX512VNNI__
INLINE v16i v16i_add16(v16i a, v16i b)
{
    return _mm512_add_epi16(a, b);
}
INLINE v16i v16i_pairs(v16i u8, v16i s8)
{
    return _mm512_maddubs_epi16(u8, s8);
}
INLINE v16i v16i_fours(v16i s16)
{
    return _mm512_madd_epi16(s16, _mm512_set1_epi16(1));
}
/* |w| times x with w's sign */
INLINE v16i v16i_pairs_signed(v16i w, v16i x)
{
    return _mm512_maddubs_epi16(_mm512_abs_epi8(w),
                                _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x));
}
#endif
#else
typedef struct {
    __m256i lo, hi;
} v16i;
enum { TILE_R = 4 };
#define V16I_2(op, a, b) ((v16i){op((a).lo, (b).lo), op((a).hi, (b).hi)})
#define V16I_1(op, a, n) ((v16i){op((a).lo, n), op((a).hi, n)})
INLINE v16i v16i_load(const void *p)
{
    return (v16i){_mm256_loadu_si256(p), _mm256_loadu_si256((const __m256i *)p + 1)};
}
INLINE v16i v16i_set(int x)
{
    return (v16i){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}
INLINE v16i v16i_add(v16i a, v16i b)
{
    return V16I_2(_mm256_add_epi32, a, b);
}
INLINE v16i v16i_and(v16i a, v16i b)
{
    return V16I_2(_mm256_and_si256, a, b);
}
INLINE v16i v16i_xor(v16i a, v16i b)
{
    return V16I_2(_mm256_xor_si256, a, b);
}
INLINE v16i v16i_right4(v16i a)
{
    return V16I_1(_mm256_srli_epi16, a, 4);
}
INLINE v16i v16i_left(v16i a, int n)
{
    return V16I_1(_mm256_slli_epi32, a, n);
}
INLINE v16 v16i_float(v16i a)
{
    return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
INLINE v16i v16i_add16(v16i a, v16i b)
{
    return V16I_2(_mm256_add_epi16, a, b);
}
INLINE v16i v16i_pairs(v16i u8, v16i s8)
{
    return V16I_2(_mm256_maddubs_epi16, u8, s8);
}
INLINE v16i v16i_fours(v16i s16)
{
    return V16I_1(_mm256_madd_epi16, s16, _mm256_set1_epi16(1));
}
INLINE v16i v16i_pairs_signed(v16i w, v16i x)
{
    return (v16i){_mm256_maddubs_epi16(_mm256_abs_epi8(w.lo), _mm256_sign_epi8(x.lo, w.lo)),
                  _mm256_maddubs_epi16(_mm256_abs_epi8(w.hi), _mm256_sign_epi8(x.hi, w.hi))};
}
#endif

/* A block's weights: unsigned bytes, or for 8 bits without VNNI signed ones. */
INLINE void block_load(const enum dtype t, v16i w[WORDS], const char *quants)
{
    if (t == DT_Q8_0) {
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = v16i_load(quants + i * 64);
#ifndef __AVX512VNNI__
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = v16i_xor(w[i], v16i_set((int)0x80808080));
#endif
        return;
    }
    v16i low = v16i_set(0x0f0f0f0f);
    UNROLL for (int i = 0; i < WORDS / 2; i++)
    {
        v16i both = v16i_load(quants + i * 64);
        w[2 * i] = v16i_and(both, low);
        w[2 * i + 1] = v16i_and(v16i_right4(both), low);
    }
}

INLINE v16i set_word(const int8_t *p)
{
    int32_t word;
    memcpy(&word, p, 4);
    return v16i_set(word);
}

/* The exact integer sum of 32 products for 16 outputs; minus: the negated sum of the activations. */
INLINE v16i block_dot(const enum dtype t, const v16i w[WORDS], const int8_t *q, int32_t minus)
{
#ifdef __AVX512VNNI__
    v16i sum = t == DT_Q4_1 ? v16i_set(0) : v16i_left(v16i_set(minus), t == DT_Q8_0 ? 7 : 3);
    UNROLL for (int i = 0; i < WORDS; i++) sum = _mm512_dpbusd_epi32(sum, w[i], set_word(q + 4 * i));
    return sum;
#else
    if (t == DT_Q8_0) {
        v16i sum = v16i_fours(v16i_pairs_signed(w[0], set_word(q)));
        UNROLL for (int i = 1; i < WORDS; i++) sum =
            v16i_add(sum, v16i_fours(v16i_pairs_signed(w[i], set_word(q + 4 * i))));
        return sum;
    }
    v16i chain = v16i_pairs(w[0], set_word(q));
    UNROLL for (int i = 1; i < WORDS; i++) chain = v16i_add16(chain, v16i_pairs(w[i], set_word(q + 4 * i)));
    v16i sum = v16i_fours(chain);
    return t == DT_Q4_1 ? sum : v16i_add(sum, v16i_left(v16i_set(minus), 3));
#endif
}

struct int8_tile {
    const struct linear_job *job;
    const char *panel;
    struct act_int8 a; /* at the first row */
    int64_t n_block;
    float *out;
    const float *bias; /* at the panel, or NULL */
    int64_t n_out;
    int n_valid; /* outputs in this panel */
};

INLINE void int8_tile(const struct int8_tile *tile, const enum dtype t, const int R)
{
    const int quant_bytes = t == DT_Q8_0 ? 512 : 256, halves = t == DT_Q4_1 ? 2 : 1;
    const int block_bytes = quant_bytes + halves * LANES * 2;
    const char *quants = tile->panel + panel_scale_bytes(t, tile->n_block * BLOCK), *ahead = tile->panel + AHEAD(t);
    const uint16_t *scales = (const uint16_t *)tile->panel;
    const int8_t *q = tile->a.q;
    const float *scale = tile->a.scale;
    const int32_t *minus = tile->a.minus;
    v16 acc[TILE_R];
    UNROLL for (int r = 0; r < R; r++) acc[r] = v16_zero();
    for (int64_t b = 0; b < tile->n_block; b++) {
        UNROLL for (int i = 0; i < block_bytes; i += 64) _mm_prefetch(ahead + i, _MM_HINT_T0);
        v16i w[WORDS];
        block_load(t, w, quants);
        v16 d = v16_load_half(scales), m = t == DT_Q4_1 ? v16_load_half(scales + LANES) : v16_zero();
        UNROLL for (int r = 0; r < R; r++)
        {
            v16 sum = v16i_float(block_dot(t, w, q + r * BLOCK, minus[r])), s = v16_set(scale[r]);
            acc[r] = v16_fma(sum, v16_mul(d, s), acc[r]);
            if (t == DT_Q4_1)
                acc[r] = v16_fma(v16_mul(m, s), v16_set((float)-minus[r]), acc[r]);
        }
        ahead += block_bytes;
        quants += quant_bytes;
        scales += halves * LANES;
        q += tile->a.rows * BLOCK;
        scale += tile->a.rows;
        minus += tile->a.rows;
    }
    v16 bias = tile->bias ? v16_load_n(tile->bias, tile->n_valid) : v16_zero();
    UNROLL for (int r = 0; r < R; r++)
        v16_store_n(tile->out + r * tile->n_out, tile->bias ? v16_add(acc[r], bias) : acc[r], tile->n_valid);
}

#define TILE_CASE(t, r)                                                                                                \
    case r:                                                                                                            \
        int8_tile(tile, t, r);                                                                                         \
        return;

INLINE void int8_switch(const struct int8_tile *tile, const enum dtype t, int R)
{
    switch (R) {
        TILE_CASE(t, 1)
        TILE_CASE(t, 2)
        TILE_CASE(t, 3)
        TILE_CASE(t, 4)
#ifdef __AVX512F__
        TILE_CASE(t, 5)
        TILE_CASE(t, 6)
        TILE_CASE(t, 7)
        TILE_CASE(t, 8)
#endif
#ifdef __AVX512VNNI__
        TILE_CASE(t, 9)
        TILE_CASE(t, 10)
        TILE_CASE(t, 11)
        TILE_CASE(t, 12)
        TILE_CASE(t, 13)
        TILE_CASE(t, 14)
        TILE_CASE(t, 15)
        TILE_CASE(t, 16)
#endif
    }
}

typedef void int8_fn(const struct int8_tile *tile, int R);

static void linear_int8(const struct linear_job *job, int8_fn *fn, int64_t row0, int64_t row1, int64_t panel0,
                        int64_t panel1)
{
    int64_t n_out = job->w->n_out;
    struct int8_tile t = {.job = job, .n_block = job->w->n_in / BLOCK, .n_out = n_out};
    for (int64_t p = panel0; p < panel1; p++) {
        int64_t n0 = p * LANES;
        t.panel = panel_at(job->w, p);
        t.bias = job->bias ? job->bias + n0 : NULL;
        t.n_valid = n_out - n0 < LANES ? (int)(n_out - n0) : LANES;
        for (int64_t row = row0, next; row < row1; row = next) {
            next = (row / TILE_R + 1) * TILE_R; /* never across a tile of the activations */
            next = next < row1 ? next : row1;
            t.a = act_int8_row(job->x, row);
            t.out = job->out + row * n_out + n0;
            fn(&t, (int)(next - row));
        }
    }
}

static void tile_q8_0(const struct int8_tile *t, int R)
{
    int8_switch(t, DT_Q8_0, R);
}
static void tile_q4_0(const struct int8_tile *t, int R)
{
    int8_switch(t, DT_Q4_0, R);
}
static void tile_q4_1(const struct int8_tile *t, int R)
{
    int8_switch(t, DT_Q4_1, R);
}

void ISA(linear_q8_0)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_int8(job, tile_q8_0, row0, row1, panel0, panel1);
}

void ISA(linear_q4_0)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_int8(job, tile_q4_0, row0, row1, panel0, panel1);
}

void ISA(linear_q4_1)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_int8(job, tile_q4_1, row0, row1, panel0, panel1);
}
