/* linear_kquant - forward products of Q2_K ... Q6_K and IQ4_XS panels with int8 activations; included once for each set
 *
 * A tile is R rows x 1 panel, as in linear_int8.h; a block's 32 k come as eight registers of 4 k for each output. Sums
 * are exact integers, so each set takes its cheapest way to the integers of docs/numerics.md section 1:
 *   VNNI      dpbusd, then a 32-bit multiplication for each scale; for many rows of 2 bits the scales are multiplied
 *             into the bytes of the weights, once for all (3 x 15 fits)
 *   without   maddubs chained in int16 as long as it cannot overflow (in a lane 16 products of 4 bits, 8 of 2, 3 and
 *             5 bits, 4 of 6 bits), then madd with the scales as int16; IQ4_XS is signed: |w| meets sign(x, w)
 * The zero points and the minima meet the activations' sums of 16 k, a pair of int16. With VNNI on Zen 4 the multiplier
 * is what bounds many rows: dpbusd, mulld, madd, mul and fma share one a cycle, all else is hidden. So of the int8 peak
 * at most 8/14 is reached by Q4_K and Q5_K, 8/13 by Q2_K, 8/12 by Q3_K and Q6_K, 8/11 by IQ4_XS.
 */
#include "kernels/kquant.h"
#include "kernels/x86/int8_lanes.h"

enum { WORDS = 8 };

/* Bytes by which prefetching runs ahead in the panels, into the second-level cache, line by line with what is read. One
 * row of 4096 from memory, one thread of a Zen 4 EPYC, 2026-11, read 31 GB/s: Q4_K 32 GB/s, Q5_K 35, Q6_K 27; into the
 * first level 31, 29, 23; all lines of a superblock at once 24 for Q4_K, because loads then wait behind them. */
enum { AHEAD = 8192 };
INLINE void prefetch(const uint8_t *p, const int bytes)
{
    UNROLL for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + AHEAD + i, _MM_HINT_T1);
}

#ifdef __AVX512VNNI__
enum { TILE_R = 16 };
#elif defined __AVX512F__
enum { TILE_R = 8 };
#else
enum { TILE_R = 4 };
#endif
enum { VECTOR = sizeof(vi), PARTS = 64 / VECTOR, PART_LANES = LANES / PARTS };

INLINE vi set_byte(int x)
{
    return V(set1_epi8)((char)x);
}
/* Bits moved up (n > 0) or down, those of other bytes masked away, put into `low`. */
INLINE vi with_bits(vi low, vi plane, int n, int mask)
{
    vi moved = n > 0 ? V(slli_epi16)(plane, (unsigned)n) : n < 0 ? V(srli_epi16)(plane, (unsigned)-n) : plane;
    return vi_or(low, vi_and(moved, set_byte(mask)));
}

/* ---- a superblock's scales as bytes ---- */
struct scales {
    uint8_t scale[16 * LANES], min[16 * LANES]; /* [8][16], or with halves [8][16][2] */
};

INLINE void scales_unpack(const enum dtype t, struct scales *s, const uint8_t *in)
{
    const vi zero = V(set1_epi32)(0);
    for (int i = 0; i < 64; i += VECTOR) {
        if (t == DT_Q4_K || t == DT_Q5_K) {
            vi a = vi_load(in + i), b = vi_load(in + 64 + i), c = vi_load(in + 128 + i);
            vi_store(s->scale + i, vi_and(a, set_byte(63)));
            vi_store(s->min + i, vi_and(b, set_byte(63)));
            vi_store(s->scale + 64 + i, with_bits(vi_and(c, set_byte(15)), a, -2, 0x30));
            vi_store(s->min + 64 + i, with_bits(with_bits(zero, c, -4, 0x0f), b, -2, 0x30));
        }
        if (t == DT_Q3_K) {
            vi a = vi_load(in + i), b = vi_load(in + 64 + i), c = vi_load(in + 128 + i), low = set_byte(15);
            vi out[4] = {with_bits(vi_and(a, low), c, 4, 0x30), with_bits(vi_and(b, low), c, 2, 0x30),
                         with_bits(with_bits(zero, a, -4, 0x0f), c, 0, 0x30),
                         with_bits(with_bits(zero, b, -4, 0x0f), c, -2, 0x30)};
            UNROLL for (int j = 0; j < 4; j++) vi_store(s->scale + 64 * j + i, V(sub_epi8)(out[j], set_byte(32)));
        }
        if (t == DT_IQ4_XS && i < 64 / 2) { /* two blocks to 32 bytes */
            __m256i high = _mm256_loadu_si256((const __m256i *)(in + 64)), low = _mm256_set1_epi8(15);
            UNROLL for (int j = 0; j < 4; j++)
            {
                __m256i four = _mm256_loadu_si256((const __m256i *)(in + j % 2 * 32));
                four = _mm256_and_si256(_mm256_srli_epi16(four, j / 2 * 4), low);
                __m256i two = _mm256_and_si256(_mm256_srli_epi16(high, 2 * j), _mm256_set1_epi8(3));
                four = _mm256_or_si256(four, _mm256_slli_epi16(two, 4));
                _mm256_storeu_si256((__m256i *)(s->scale + 32 * j), _mm256_sub_epi8(four, _mm256_set1_epi8(32)));
            }
        }
        for (int j = 0; j < 256 && t == DT_Q2_K; j += 64) {
            vi a = vi_load(in + i + j);
            vi_store(s->scale + i + j, vi_and(a, set_byte(15)));
            vi_store(s->min + i + j, with_bits(zero, a, -4, 0x0f));
        }
    }
}

/* The scales of a block as the sums below want them. */
struct factors {
    vi first, last; /* scales. VNNI: int32, of the block or of its halves; without: twice the same int16 */
    vi offset; /* pairs of int16 that meet the negated sums of 16: the minima; without VNNI also zero times scale */
};

INLINE vi both_from_low(vi a) /* int16 pairs (low, low) of int32 with a small positive or any low half */
{
    return vi_or(V(slli_epi32)(a, 16), vi_and(a, V(set1_epi32)(0xffff)));
}

/* Whether the scales are multiplied into the weights: eight multiplications instead of two a row. */
#ifdef __AVX512VNNI__
#define SCALED(t, R) ((t) == DT_Q2_K && (R) > 4)
#else
#define SCALED(t, R) false
#endif

INLINE struct factors factors_load(const enum dtype t, const struct scales *s, const uint8_t *in, int b, int part)
{
    struct factors f = {0};
    if (t == DT_IQ4_XS) {
        f.first = vi_widen8_signed(s->scale + b * LANES + part * PART_LANES);
#ifndef __AVX512VNNI__
        f.first = both_from_low(f.first);
#endif
        return f;
    }
    if (!kq_has_halves(t)) {
        f.first = vi_widen8(s->scale + b * LANES + part * PART_LANES);
        vi min = vi_widen8(s->min + b * LANES + part * PART_LANES);
        f.offset = vi_or(min, V(slli_epi32)(min, 16));
#ifndef __AVX512VNNI__
        f.first = vi_or(f.first, V(slli_epi32)(f.first, 16));
#endif
        return f;
    }
    const int at = (b * LANES + part * PART_LANES) * 2;
    vi pair = vi_pairs8((t == DT_Q6_K ? in : s->scale) + at);
#ifdef __AVX512VNNI__
    f.first = V(srai_epi32)(V(slli_epi32)(pair, 16), 16);
    f.last = V(srai_epi32)(pair, 16);
#else
    f.first = both_from_low(pair);
    f.last = both_from_low(V(srli_epi32)(pair, 16));
#endif
    f.offset = kq_has_min(t) ? vi_pairs8(s->min + at) : V(slli_epi16)(pair, t == DT_Q6_K ? 5 : 2);
    return f;
}

/* ---- a block's weights: unsigned bytes; those of IQ4_XS without VNNI signed ---- */
INLINE vi iq4_table(void)
{
    vi table = vi_table(iq4_values);
#ifdef __AVX512VNNI__
    table = vi_xor(table, set_byte(0x80));
#endif
    return table;
}
INLINE void block_load(const enum dtype t, vi w[WORDS], const uint8_t *block)
{
    const vi zero = V(set1_epi32)(0);
    const uint8_t *high = block + kq_low_bytes(t);
    if (kq_low_bits(t) == 4)
        UNROLL for (int i = 0; i < WORDS / 2; i++)
        {
            vi both = vi_load(block + i * 64);
            w[2 * i] = vi_and(both, set_byte(15));
            w[2 * i + 1] = with_bits(zero, both, -4, 15);
        }
    else
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = with_bits(zero, vi_load(block + i / 4 * 64), i % 4 * -2, 3);
    if (t == DT_IQ4_XS)
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = V(shuffle_epi8)(iq4_table(), w[i]);
    if (kq_high_bits(t) == 2)
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = with_bits(w[i], vi_load(high + i / 4 * 64), 4 - i % 4 * 2, 0x30);
    if (kq_high_bits(t) == 1)
        UNROLL for (int i = 0; i < WORDS; i++) w[i] =
            with_bits(w[i], vi_load(high), kq_low_bits(t) - i, 1 << kq_low_bits(t));
}

/* ---- the integers of a block for one row ---- */
#ifdef __AVX512VNNI__
INLINE vi dot(vi sum, const vi *w, const int8_t *q)
{
    UNROLL for (int i = 0; i < WORDS / 2; i++) sum = _mm512_dpbusd_epi32(sum, w[i], vi_word(q + 4 * i));
    return sum;
}
/* Two chains also where one scale serves both: half the latency. */
INLINE vi block_sum(const enum dtype t, const bool scaled, const vi w[WORDS], const struct factors *f, const int8_t *q,
                    vi halves)
{
    const int zero_bits = t == DT_IQ4_XS ? 7 : t == DT_Q6_K ? 5 : 2; /* of the zero point */
    vi first = V(set1_epi32)(0), last = first;
    if (kq_zero(t) || t == DT_IQ4_XS) {
        first = V(srai_epi32)(V(slli_epi32)(halves, 16), 16 - zero_bits);
        last = V(slli_epi32)(V(srai_epi32)(halves, 16), zero_bits);
    }
    first = dot(first, w, q), last = dot(last, w + WORDS / 2, q + BLOCK / 2);
    if (scaled)
        return V(add_epi32)(first, last);
    if (!kq_has_halves(t))
        return V(mullo_epi32)(V(add_epi32)(first, last), f->first);
    return V(add_epi32)(V(mullo_epi32)(first, f->first), V(mullo_epi32)(last, f->last));
}
#else
/* `chain` products in an int16 before each madd. */
INLINE vi vi_pairs(const bool is_signed, vi w, vi x)
{
    return is_signed ? V(maddubs_epi16)(V(abs_epi8)(w), vi_signed(x, w)) : V(maddubs_epi16)(w, x);
}
INLINE vi dot(const bool is_signed, const vi *w, vi scale, const int8_t *q, const int words, const int chain)
{
    vi sum = V(set1_epi32)(0);
    UNROLL for (int i = 0; i < words; i += chain)
    {
        vi pairs = vi_pairs(is_signed, w[i], vi_word(q + 4 * i));
        UNROLL for (int j = i + 1; j < i + chain; j++) pairs =
            V(add_epi16)(pairs, vi_pairs(is_signed, w[j], vi_word(q + 4 * j)));
        vi product = V(madd_epi16)(pairs, scale);
        sum = i ? V(add_epi32)(sum, product) : product;
    }
    return sum;
}
INLINE vi block_sum(const enum dtype t, const bool scaled, const vi w[WORDS], const struct factors *f, const int8_t *q,
                    vi halves)
{
    (void)scaled;
    const int chain = t == DT_IQ4_XS ? 1 : t == DT_Q6_K ? 2 : t == DT_Q4_K ? 8 : 4; /* words of two products a lane */
    const bool is_signed = t == DT_IQ4_XS;
    if (!kq_has_halves(t))
        return dot(is_signed, w, f->first, q, WORDS, chain);
    vi sum = V(add_epi32)(dot(is_signed, w, f->first, q, WORDS / 2, chain),
                          dot(is_signed, w + WORDS / 2, f->last, q + BLOCK / 2, WORDS / 2, chain));
    return kq_zero(t) ? V(add_epi32)(sum, V(madd_epi16)(f->offset, halves)) : sum;
}
#endif

/* ---- tiles ---- */
struct kq_tile {
    const uint8_t *panel;
    struct act_int8 a; /* at the first row */
    int64_t n_super;
    float *out;
    const float *bias; /* at the panel, or NULL */
    int64_t n_out;
    int n_valid; /* outputs in this panel */
};

/* One part (all 16 outputs, or 8) of a superblock, whose first block is b0. */
INLINE void kq_super(const enum dtype t, const int R, vf acc[TILE_R], const struct act_int8 *a, int64_t b0,
                     const uint8_t *super, const struct scales *s, const int part)
{
    const uint16_t *head = (const uint16_t *)super + part * PART_LANES;
    const uint8_t *block = super + kq_blocks_at(t) + part * VECTOR;
    vf d = vf_half(head), dmin = kq_has_min(t) ? vf_half(head + LANES) : V(setzero_ps)();
    for (int b = 0; b < SUPER_BLOCKS; b++, block += kq_block_bytes(t)) {
        const int64_t at = (b0 + b) * a->rows;
        vi w[WORDS];
        if (part == 0)
            prefetch(block, kq_block_bytes(t));
        block_load(t, w, block);
        struct factors f = factors_load(t, s, super + kq_scales_at(t), b, part);
        if (SCALED(t, R)) { /* no carry leaves a byte */
            UNROLL for (int i = 0; i < WORDS; i++) w[i] = V(mullo_epi32)(w[i], i < WORDS / 2 ? f.first : f.last);
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            vf scale = V(set1_ps)(a->scale[at + r]);
            vi halves = vi_word(a->halves + 2 * (at + r));
            vi sum = block_sum(t, SCALED(t, R), w, &f, a->q + (at + r) * BLOCK, halves);
            acc[r] = V(fmadd_ps)(V(cvtepi32_ps)(sum), V(mul_ps)(d, scale), acc[r]);
            if (kq_has_min(t))
                acc[r] = V(fmadd_ps)(V(mul_ps)(dmin, scale), V(cvtepi32_ps)(V(madd_epi16)(f.offset, halves)), acc[r]);
        }
    }
}

INLINE void kq_tile(const struct kq_tile *tile, const enum dtype t, const int R)
{
    const uint8_t *super = tile->panel;
    vf acc[PARTS][TILE_R];
    UNROLL for (int p = 0; p < PARTS; p++) UNROLL for (int r = 0; r < R; r++) acc[p][r] = V(setzero_ps)();
    for (int64_t i = 0; i < tile->n_super; i++, super += kq_super_bytes(t)) {
        struct scales s;
        prefetch(super, kq_blocks_at(t));
        scales_unpack(t, &s, super + kq_scales_at(t));
        UNROLL for (int p = 0; p < PARTS; p++) kq_super(t, R, acc[p], &tile->a, i * SUPER_BLOCKS, super, &s, p);
    }
    v16 bias = tile->bias ? v16_load_n(tile->bias, tile->n_valid) : v16_zero();
    UNROLL for (int r = 0; r < R; r++)
    {
#ifdef __AVX512F__
        v16 sum = acc[0][r];
#else
        v16 sum = {acc[0][r], acc[1][r]};
#endif
        v16_store_n(tile->out + r * tile->n_out, tile->bias ? v16_add(sum, bias) : sum, tile->n_valid);
    }
}

#define TILE_CASE(t, r)                                                                                                \
    case r:                                                                                                            \
        kq_tile(tile, t, r);                                                                                           \
        return;

INLINE void kq_switch(const struct kq_tile *tile, const enum dtype t, int R)
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

typedef void kq_fn(const struct kq_tile *tile, int R);

static void linear_kquant(const struct linear_job *job, kq_fn *fn, int64_t row0, int64_t row1, int64_t panel0,
                          int64_t panel1)
{
    int64_t n_out = job->w->n_out;
    struct kq_tile t = {.n_super = job->w->n_in / SUPER, .n_out = n_out};
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

#define KQUANT(name, type)                                                                                             \
    static void tile_##name(const struct kq_tile *t, int R)                                                            \
    {                                                                                                                  \
        kq_switch(t, type, R);                                                                                         \
    }                                                                                                                  \
    void ISA(linear_##name)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)  \
    {                                                                                                                  \
        linear_kquant(job, tile_##name, row0, row1, panel0, panel1);                                                   \
    }
KQUANT(q2_k, DT_Q2_K)
KQUANT(q3_k, DT_Q3_K)
KQUANT(q4_k, DT_Q4_K)
KQUANT(q5_k, DT_Q5_K)
KQUANT(q6_k, DT_Q6_K)
KQUANT(iq4_xs, DT_IQ4_XS)
