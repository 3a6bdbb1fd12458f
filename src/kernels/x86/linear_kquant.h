/* linear_kquant - forward products of Q2_K ... Q6_K and IQ4_XS panels with int8 activations; included once for each set
 *
 * Where 32 k have one scale (Q4_K, Q5_K, IQ4_XS) it is multiplied into the superblock's, and a block is one of
 * linear_int8_tile.h with a scale of f32. Where 16 k have one, scales are whole numbers inside a block's sum. For many
 * rows those of 2 and of 3 bits are multiplied into the bytes of the weights, once for all: 0 .. 3 * 15, and with VNNI
 * -124 .. 128 on a zero of 124.
 */
#include "kernels/kquant.h"
#include "kernels/x86/linear_int8_items.h"

/* Bytes by which prefetching runs ahead in the panels, into the second-level cache, line by line with what is read;
 * all lines of a superblock at once make loads wait behind them. One row of a type that is quick to unpack needs none:
 * the panel is one stream, and requests of our own only fill the queue of misses. GB/s with n_in 1024 from memory on
 * a Zen 4 EPYC, without and with, medians in turns, 2026-11:
 *   one thread (reads 30)    Q4_K 30, 23   Q5_K 27, 25   IQ4_XS 33, 26   Q6_K 22, 22   two rows of Q4_K 29, 26
 *   two threads (read 36)    Q4_K 33, 32   Q5_K 32, 32   IQ4_XS 35, 34   Q6_K 26, 31   four rows of Q4_K 28, 30 */
enum { AHEAD = 8192 };
INLINE void prefetch(const enum dtype t, const int R, const uint8_t *p, const int bytes)
{
    if (R > 1 || kq_has_halves(t) || PANEL_GROUPS > 1) /* AVX2 gains nothing without */
        UNROLL for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + AHEAD + i, _MM_HINT_T1);
}

/* Of the weights of a chunk: bits, unsigned (IQ4_XS without VNNI: signed), and their zero. */
struct format {
    enum dtype type;
    int bits, zero;
};
#ifdef __AVX512VNNI__
#define SCALED(t) ((t) == DT_Q2_K || (t) == DT_Q3_K)
enum { ZERO_IQ4 = 128 };
#else
#define SCALED(t) ((t) == DT_Q2_K)
enum { ZERO_IQ4 = 0 };
#endif
INLINE enum extra format_extra(const struct format f)
{
    if (f.type == DT_Q2_K)
        return HALF_MINS;
    return kq_has_min(f.type) ? MINS : kq_has_halves(f.type) && !SCALED(f.type) ? HALF_SCALES : NONE;
}

enum { GROUP_BYTES = sizeof(vi) };

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
    for (int i = 0; i < 64; i += GROUP_BYTES) {
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

/* ---- what a block has beside its weights, for one group of its outputs ---- */
INLINE vi both_from_low(vi a) /* int16 pairs (low, low) of int32 */
{
    return vi_or(V(slli_epi32)(a, 16), vi_and(a, V(set1_epi32)(0xffff)));
}

/* Whole-numbered scales of both halves, of a type that has them. */
INLINE void half_scales(const enum dtype t, vi x[EXTRAS], const struct scales *s, const uint8_t *in, int at)
{
    vi pair = vi_pairs8((t == DT_Q6_K ? in : s->scale) + 2 * at);
#ifdef __AVX512VNNI__
    x[0] = V(srai_epi32)(V(slli_epi32)(pair, 16), 16);
    x[1] = V(srai_epi32)(pair, 16);
#else
    x[0] = both_from_low(pair);
    x[1] = both_from_low(V(srli_epi32)(pair, 16));
#endif
    x[2] = V(slli_epi16)(pair, t == DT_Q6_K ? 5 : 2); /* times the zero; that of Q2_K meets none */
}

INLINE vi minus_product(vf dmin, vi min)
{
    return vi_castps(V(xor_ps)(V(mul_ps)(dmin, V(cvtepi32_ps)(min)), V(set1_ps)(-0.0f)));
}

/* For the f32 steps; types with HALF_SCALES bring their d alone. */
INLINE struct side side_load(const enum dtype t, const struct scales *s, const uint8_t *super, int b, int group)
{
    const uint16_t *head = (const uint16_t *)super + group * VEC;
    const int at = b * LANES + group * VEC;
    struct side side = {.d = vf_half(head)};
    vf dmin = kq_has_min(t) ? vf_half(head + LANES) : side.d;
    if (t == DT_Q2_K) {
        side.x[0] = vi_pairs8(s->min + 2 * at);
        side.x[1] = vi_castps(dmin);
    }
    if (!kq_has_halves(t)) {
        vi scale = t == DT_IQ4_XS ? vi_widen8_signed(s->scale + at) : vi_widen8(s->scale + at);
        side.d = V(mul_ps)(side.d, V(cvtepi32_ps)(scale));
        if (kq_has_min(t))
            side.x[0] = minus_product(dmin, vi_widen8(s->min + at));
    }
    return side;
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

/* Scales of a half into the bytes of its weights: whole numbers modulo 256, so only the result has to fit. */
INLINE void scale_bytes(const enum dtype t, const int zero, vi w[WORDS / 2], vi scale)
{
    const vi low = V(set1_epi16)(0xff),
             each = V(mullo_epi32)(vi_and(scale, V(set1_epi32)(0xff)), V(set1_epi32)(0x01010101));
    scale = both_from_low(scale);
    const vi begin = V(sub_epi8)(set_byte(zero), V(slli_epi16)(vi_and(each, set_byte(0x3f)), 2));
    UNROLL for (int i = 0; i < WORDS / 2; i++)
    {
        vi even = vi_and(V(mullo_epi16)(w[i], scale), low);
        w[i] = vi_or(even, V(slli_epi16)(V(mullo_epi16)(V(srli_epi16)(w[i], 8), scale), 8));
        if (t == DT_Q3_K) /* (level - 4) * scale */
            w[i] = V(add_epi8)(w[i], begin);
    }
}

/* ---- few rows: whole panels from memory ---- */
INLINE int few_bits(const enum dtype t) /* as the tiles know them: how long sums may be chained */
{
    return t == DT_IQ4_XS ? 8 : kq_low_bits(t) + kq_high_bits(t);
}

/* One group of a superblock; a: at its first block. */
INLINE void few_super(const struct format f, const int R, vf acc[R_FEW][G_MAX], struct act_int8 a, const uint8_t *super,
                      const struct scales *s, const int group)
{
    const enum dtype t = f.type;
    const enum extra extra = t == DT_Q3_K ? HALF_SCALES : format_extra(f);
    const uint8_t *block = super + kq_blocks_at(t) + group * GROUP_BYTES;
    for (int b = 0; b < SUPER_BLOCKS; b++, block += kq_block_bytes(t)) {
        vi w[1][WORDS];
        if (group == 0)
            prefetch(t, R, block, kq_block_bytes(t));
        block_load(t, w[0], block);
        const struct side side = side_load(t, s, super, b, group);
        struct side scales;
        if (kq_has_halves(t))
            half_scales(t, scales.x, s, super + kq_scales_at(t), b * LANES + group * VEC);
        UNROLL for (int r = 0; r < R; r++)
        {
            static const union start no_zero[2];
            union start start[2];
            vi sum = V(set1_epi32)(0);
            start_put(start, extra, kq_has_halves(t) ? kq_zero(t) : f.zero, &a, r);
            if (kq_has_halves(t)) {
                halves_dot(few_bits(t), 1, &sum, w, &scales, t == DT_Q2_K ? no_zero : start, a.q + r * BLOCK);
            } else {
                sum = sum_start(extra, &side, start);
                block_dot(few_bits(t), 1, &sum, w, a.q + r * BLOCK);
            }
            row_step(extra, 1, &acc[r][group], &sum, &side, a.scale[r], start);
        }
        a = act_int8_at(a, 1);
    }
}

INLINE void tile_few(const struct int8_tile *t, const struct format f, const int R)
{
    const uint8_t *super = (const uint8_t *)t->panel;
    struct act_int8 a = t->a;
    vf acc[R_FEW][G_MAX];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < PANEL_GROUPS; g++) acc[r][g] = V(setzero_ps)();
    for (int64_t b = 0; b < t->n_block; b += SUPER_BLOCKS, super += kq_super_bytes(f.type)) {
        struct scales s;
        prefetch(f.type, R, super, kq_blocks_at(f.type));
        scales_unpack(f.type, &s, super + kq_scales_at(f.type));
        UNROLL for (int g = 0; g < PANEL_GROUPS; g++) few_super(f, R, acc, a, super, &s, g);
        a = act_int8_at(a, SUPER_BLOCKS);
    }
    tile_end(t, 0, R, PANEL_GROUPS, acc);
}

/* ---- many rows ---- */
INLINE void unpack_super(const struct format f, struct chunk *c, int g, int64_t at, const uint8_t *super, int group)
{
    const enum dtype t = f.type;
    struct scales s;
    scales_unpack(t, &s, super + kq_scales_at(t));
    for (int b = 0; b < SUPER_BLOCKS; b++) {
        struct side side = side_load(t, &s, super, b, group);
        vi w[WORDS], x[EXTRAS];
        block_load(t, w, super + kq_blocks_at(t) + b * kq_block_bytes(t) + group * GROUP_BYTES);
        if (kq_has_halves(t))
            half_scales(t, SCALED(t) ? x : side.x, &s, super + kq_scales_at(t), b * LANES + group * VEC);
        if (SCALED(t)) {
            scale_bytes(t, f.zero, w, x[0]);
            scale_bytes(t, f.zero, w + WORDS / 2, x[1]);
        }
        chunk_put(c, g, at + b, f.bits, w);
        chunk_put_side(c, g, at + b, format_extra(f), &side);
    }
}

/* n blocks of G_MANY groups, whole superblocks; the first group is number `group` of the first panel. */
INLINE void chunk_unpack(const struct format f, struct chunk *c, const struct int8_tile *t, int group, int64_t block,
                         int64_t n)
{
    for (int g = 0; g < G_MANY; g++) {
        const char *panel = t->panel + (size_t)((group + g) / PANEL_GROUPS) * t->panel_bytes;
        const uint8_t *super = (const uint8_t *)panel + block / SUPER_BLOCKS * kq_super_bytes(f.type);
        if (t->n_valid <= g * VEC) /* beyond the last panel: what the chunk holds is never stored */
            return;
        for (int64_t b = 0; b < n; b += SUPER_BLOCKS, super += kq_super_bytes(f.type))
            unpack_super(f, c, g, b, super, (group + g) % PANEL_GROUPS);
    }
}

/* ---- types ---- */
#ifdef __AVX512VNNI__
MANY(8, 8, NONE)
MANY(8m, 8, MINS)
MANY(8h, 8, HALF_SCALES)
MANY(8n, 8, HALF_MINS)
#define many_3  many_8
#define many_4m many_8m
#define many_5m many_8m
#define many_6h many_8h
#define many_6n many_8n
#else
MANY(8, 8, NONE)
MANY(4m, 4, MINS)
MANY(5m, 5, MINS)
MANY(6h, 6, HALF_SCALES)
MANY(6n, 6, HALF_MINS)
#define many_3 many_6h
#endif
FORMAT(q2_k, 6n, SUPER_BLOCKS, DT_Q2_K, 6, 0)
FORMAT(q3_k, 3, SUPER_BLOCKS, DT_Q3_K, 6, 124)
FORMAT(q4_k, 4m, SUPER_BLOCKS, DT_Q4_K, 4, 0)
FORMAT(q5_k, 5m, SUPER_BLOCKS, DT_Q5_K, 5, 0)
FORMAT(q6_k, 6h, SUPER_BLOCKS, DT_Q6_K, 6, 32)
FORMAT(iq4_xs, 8, SUPER_BLOCKS, DT_IQ4_XS, 8, ZERO_IQ4)
