/* linear_int8_tile - R rows x G groups of outputs against blocks of 32 k: weights of 4, 5 or 8 bits, int8 activations
 *
 * A block's weights come as eight vectors of (outputs x 4 k), each row brings eight words of four activations. Integer
 * sums are exact, so every set gives the bits of ref; the f32 steps are written in its order. How products are added
 * is the only difference between sets:
 *   VNNI      dpbusd on unsigned weights; the sum starts at the zero point times minus the activations' sum
 *   without   4 and 5 bits: maddubs chained in int16 (8 x 2 x 15 x 127 and 4 x 2 x 31 x 127 are below 32768)
 *             8 bits: unsigned weights would saturate maddubs, so |w| meets sign(x, w); 2 x 128 x 127 < 32768
 */
#include "kernels/block32.h"
#include "kernels/x86/int8_lanes.h"

enum { WORDS = 8, G_MAX = 2 };
#ifdef __AVX512F__
enum { R_FEW = 8, R_MANY = 4, G_MANY = 2 };
#else
enum { R_FEW = 4, R_MANY = 4, G_MANY = 1 };
#endif
enum { PANEL_GROUPS = LANES / VEC };

/* How a type is stored in its panel (block32.h). */
struct format {
    enum dtype type;
    int bits; /* of the weights once unpacked, unsigned; 8 bits without VNNI: signed */
    int zero; /* what stands for zero among them */
    enum { Q_BYTES, Q_NIBBLES, Q_FIFTH, Q_TABLE } quants; /* nibbles; and a plane of fifth bits; or and a table */
    const int8_t *table;
};
/* Where a group of a panel's outputs begins within a line of quants, of scales. */
enum { GROUP_QUANTS = 64 / PANEL_GROUPS };
#define GROUP_SCALES(f) ((f).type == DT_MXFP4 ? VEC : 2 * VEC)

/* A block's weights for one group; quants: at the group's first output. */
INLINE void block_load(const struct format f, vi w[WORDS], const char *quants)
{
    if (f.quants == Q_BYTES) {
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = vi_load(quants + i * 64);
#ifndef __AVX512VNNI__
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = vi_xor(w[i], V(set1_epi32)((int)0x80808080));
#endif
        return;
    }
    const vi low = V(set1_epi32)(0x0f0f0f0f);
    UNROLL for (int i = 0; i < WORDS / 2; i++)
    {
        vi both = vi_load(quants + i * 64);
        w[2 * i] = vi_and(both, low);
        w[2 * i + 1] = vi_and(V(srli_epi16)(both, 4), low);
    }
    if (f.quants == Q_FIFTH) {
        const vi fifth = V(set1_epi32)(0x10101010);
        vi plane = vi_load(quants + WORDS / 2 * 64);
        UNROLL for (int i = 0; i < WORDS; i++)
        {
            vi bit = i <= 4 ? V(slli_epi16)(plane, 4 - i) : V(srli_epi16)(plane, i - 4);
            w[i] = vi_or(w[i], vi_and(bit, fifth));
        }
    }
    if (f.quants == Q_TABLE) {
        const vi table = vi_table(f.table);
        UNROLL for (int i = 0; i < WORDS; i++) w[i] = V(shuffle_epi8)(table, w[i]);
    }
}

INLINE vf scale_load(const struct format f, const char *scales)
{
    if (f.type != DT_MXFP4)
        return vf_half(scales);
    /* 2^(e-128); the two smallest are subnormal, which compute threads take as zero */
    vi e = V(sub_epi32)(V(slli_epi32)(vi_widen8(scales), 23), V(set1_epi32)(0x00800000));
    return vf_castsi(V(max_epi32)(e, V(set1_epi32)(0)));
}

/* sum += the exact integer sum of 32 products of unpacked weights, for G groups and one row. */
INLINE void block_dot(const int bits, const int G, vi sum[G_MAX], vi w[G_MAX][WORDS], const int8_t *q)
{
#ifdef __AVX512VNNI__
    (void)bits;
    UNROLL for (int i = 0; i < WORDS; i++)
    {
        vi x = vi_word(q + 4 * i);
        UNROLL for (int g = 0; g < G; g++) sum[g] = V(dpbusd_epi32)(sum[g], w[g][i], x);
    }
#else
    const int chain = bits == 4 ? 8 : bits == 5 ? 4 : 1;
    UNROLL for (int i = 0; i < WORDS; i += chain)
    {
        vi pairs[G_MAX];
        UNROLL for (int j = i; j < i + chain; j++)
        {
            vi x = vi_word(q + 4 * j);
            UNROLL for (int g = 0; g < G; g++)
            {
                vi product = bits == 8 ? V(maddubs_epi16)(V(abs_epi8)(w[g][j]), vi_signed(x, w[g][j]))
                                       : V(maddubs_epi16)(w[g][j], x);
                pairs[g] = j == i ? product : V(add_epi16)(pairs[g], product);
            }
        }
        UNROLL for (int g = 0; g < G; g++) sum[g] = V(add_epi32)(sum[g], V(madd_epi16)(pairs[g], V(set1_epi16)(1)));
    }
#endif
}

/* What a row brings to a block beside q and scale, computed once for all panels: what its sum starts at, or for types
 * with minima the sum of its activations. */
union start {
    int32_t zero;
    float sum;
};
#if defined __AVX512F__ && !defined __AVX512VNNI__
enum { CHUNK = 8 }; /* with the signs */
#else
enum { CHUNK = 16 };
#endif
enum { CHUNK_PANELS = (G_MANY + LANES / VEC - 1) / (LANES / VEC), NEXT_LINES = 2 };
enum extra { NONE, MINS, ZEROS }; /* beside scales */
/* G_MANY groups unpacked for many rows: they and the rows of a tile stay in the first-level cache. */
struct chunk {
    _Alignas(64) char w[G_MANY][CHUNK][WORDS][VEC * 4];
#ifndef __AVX512VNNI__
    _Alignas(64) char sign[G_MANY][CHUNK][WORDS][VEC * 4]; /* 8 bits: w holds sizes, this what vi_flip wants */
    _Alignas(64) int32_t flipped[G_MANY][CHUNK][VEC];      /* what their sums start at */
#endif
    _Alignas(64) float d[G_MANY][CHUNK][VEC], m[G_MANY][CHUNK][VEC]; /* m: minima, or zeros as int32 */
};

struct int8_tile {
    const char *panel; /* few rows: this one; unpacking: the first of a chunk */
    size_t panel_bytes;
    const struct chunk *chunk; /* many rows */
    const union start *start;  /* at the first row, rows as in a */
    struct act_int8 a;         /* at the first row and block */
    int64_t n_block;
    float *out;             /* the first row and output */
    int64_t n_out, n_valid; /* outputs from there on */
    const float *bias;      /* at the first output, or NULL */
    bool first, last;       /* blocks */
    float *sums;            /* many rows: [R][G_MANY][VEC], where they wait between chunks */
    const char *next;       /* many rows: weights to prefetch, NEXT_LINES from each of the panels of a chunk */
};

/* Rows from `row` of the tile on. */
INLINE void tile_end(const struct int8_tile *t, int row, const int R, const int G, vf acc[R_FEW][G_MAX])
{
    float *out = t->out + row * t->n_out;
    UNROLL for (int g = 0; g < G; g++)
    {
        int64_t n = t->n_valid - g * VEC;
        vf bias = t->bias ? vf_load_n(t->bias + g * VEC, n) : V(setzero_ps)();
        UNROLL for (int r = 0; r < R; r++)
            vf_store_n(out + r * t->n_out + g * VEC, t->bias ? V(add_ps)(acc[r][g], bias) : acc[r][g], n);
    }
}

/* One row's f32 step of a block. */
INLINE void row_step(const bool has_min, const int G, vf acc[G_MAX], vi sum[G_MAX], vf d[G_MAX], vf m[G_MAX],
                     float scale, float x_sum)
{
    const vf s = V(set1_ps)(scale);
    UNROLL for (int g = 0; g < G; g++)
    {
        acc[g] = V(fmadd_ps)(V(cvtepi32_ps)(sum[g]), V(mul_ps)(d[g], s), acc[g]);
        if (has_min)
            acc[g] = V(fmadd_ps)(V(mul_ps)(m[g], s), V(set1_ps)(x_sum), acc[g]);
    }
}

/* Each output's own zero times minus the activations' sum, which fits 16 bits: 32 * 127. */
INLINE vi zero_sum(vi zero, int32_t minus)
{
    return V(madd_epi16)(zero, V(set1_epi32)(minus));
}

/* A whole panel straight from memory past R rows. One and two rows need no prefetch: the panel is one stream, and
 * requests of our own only fill the queue of misses. More rows compute so long that the stream stalls without them, and
 * unpacking five bits fills the processor's window. GB/s with n_in 4864 on one thread of a Zen 4 EPYC that reads 30,
 * 2026-11; bytes ahead, for 1, 2, 4, 8 rows:
 *   Q8_0  none 31, 27, 23, 14   2048 27, 23, 20, 17   8192 25, 24, 21, 15
 *   Q4_0  none 32, 21, 14,  7   2048 23, 20, 17, 11   8192 26, 23, 17, 11
 *   Q5_0  none 20, 19, 16,  8    512 25, 21, 16,  9   8192 19, 19, 17, 12 */
INLINE int prefetch_ahead(const struct format f, const int R)
{
    if (f.quants == Q_BYTES)
        return R > 4 ? 2048 : 0;
    return R > 2 ? 8192 : f.bits == 5 ? 512 : 0;
}

INLINE void tile_few(const struct int8_tile *t, const struct format f, const int R)
{
    const bool has_min = block32_has_min(f.type), has_zeros = block32_has_zeros(f.type);
    struct act_int8 a = t->a;
    vf acc[R_FEW][G_MAX];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < PANEL_GROUPS; g++) acc[r][g] = V(setzero_ps)();
    for (int64_t b = 0; b < t->n_block; b++) {
        vf d[G_MAX], m[G_MAX];
        vi w[G_MAX][WORDS], zero[G_MAX];
        const char *quants = block32_quants(f.type, t->panel, b), *scales = block32_scales(f.type, t->panel, b);
        if (prefetch_ahead(f, R))
            UNROLL for (int i = 0; i < block32_quant_bytes(f.type); i += 64)
                _mm_prefetch(quants + prefetch_ahead(f, R) + i, _MM_HINT_T0);
        UNROLL for (int g = 0; g < PANEL_GROUPS; g++)
        {
            block_load(f, w[g], quants + g * GROUP_QUANTS);
            d[g] = scale_load(f, scales + g * GROUP_SCALES(f));
            m[g] = has_min ? vf_half(scales + 2 * LANES + g * GROUP_SCALES(f)) : V(setzero_ps)();
            zero[g] = has_zeros ? vi_widen16(scales + 2 * LANES + g * GROUP_SCALES(f)) : V(set1_epi32)(0);
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            vi sum[G_MAX];
            UNROLL for (int g = 0; g < PANEL_GROUPS; g++) sum[g] =
                has_zeros ? zero_sum(zero[g], a.minus[r]) : V(set1_epi32)(f.zero * a.minus[r]);
            block_dot(f.bits, PANEL_GROUPS, sum, w, a.q + r * BLOCK);
            row_step(has_min, PANEL_GROUPS, acc[r], sum, d, m, a.scale[r], has_min ? (float)-a.minus[r] : 0);
        }
        a.q += a.rows * BLOCK;
        a.scale += a.rows;
        a.minus += a.rows;
    }
    tile_end(t, 0, R, PANEL_GROUPS, acc);
}

#ifndef __AVX512VNNI__
/* Sizes times activations with the weights' signs: on AVX2 one instruction. On AVX-512 negative weights meet ~x, that
 * is -x - 1, so the sum comes out short by their sizes: `flipped`. */
INLINE void chunk_dot_signed(vi sum[G_MAX], const struct chunk *c, int64_t b, vi w[G_MAX][WORDS], const int8_t *q)
{
    UNROLL for (int g = 0; g < G_MANY; g++) sum[g] = vi_load(c->flipped[g][b]);
    UNROLL for (int i = 0; i < WORDS; i++)
    {
        vi x = vi_word(q + 4 * i);
        UNROLL for (int g = 0; g < G_MANY; g++)
        {
            vi pairs = V(maddubs_epi16)(w[g][i], vi_flip(x, vi_load(c->sign[g][b][i])));
            sum[g] = V(add_epi32)(sum[g], V(madd_epi16)(pairs, V(set1_epi16)(1)));
        }
    }
}

INLINE void chunk_put_signed(struct chunk *c, int g, int64_t b, const vi w[WORDS])
{
    vi flipped = V(set1_epi32)(0);
    UNROLL for (int i = 0; i < WORDS; i++)
    {
        vi size = V(abs_epi8)(w[i]), sign = vi_sign(w[i]);
        vi_store(c->w[g][b][i], size);
        vi_store(c->sign[g][b][i], sign);
        if (VEC == 16)
            flipped = V(sub_epi32)(flipped, V(madd_epi16)(V(maddubs_epi16)(size, sign), V(set1_epi16)(1)));
    }
    vi_store(c->flipped[g][b], flipped);
}
#endif

/* A chunk of k past R rows, `row` and on of a tile of the activations; between chunks the sums wait. */
INLINE void tile_many(const struct int8_tile *t, const int bits, const enum extra extra, int row, const int R)
{
    const int G = G_MANY;
    const struct chunk *c = t->chunk;
    const union start *start = t->start + row;
    const int8_t *q = t->a.q + row * BLOCK;
    const float *scale = t->a.scale + row;
    const int64_t rows = t->a.rows;
    float *sums = t->sums + row * G_MANY * VEC;
    vf acc[R_FEW][G_MAX];
    UNROLL for (int i = 0; i < CHUNK_PANELS * NEXT_LINES; i++)
    {
        _mm_prefetch(t->next + (size_t)(i / NEXT_LINES) * t->panel_bytes +
                         (row / R_MANY * NEXT_LINES + i % NEXT_LINES) * 64,
                     _MM_HINT_T1);
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < G_MANY; g++)
    {
        acc[r][g] = t->first ? V(setzero_ps)() : V(loadu_ps)(sums + (r * G_MANY + g) * VEC);
    }
    for (int64_t b = 0; b < t->n_block; b++) {
        vf d[G_MAX], m[G_MAX];
        vi w[G_MAX][WORDS], zero[G_MAX];
        UNROLL for (int g = 0; g < G; g++)
        {
            UNROLL for (int i = 0; i < WORDS; i++) w[g][i] = vi_load(c->w[g][b][i]);
            d[g] = V(load_ps)(c->d[g][b]);
            m[g] = extra == MINS ? V(load_ps)(c->m[g][b]) : V(setzero_ps)();
            zero[g] = extra == ZEROS ? vi_load(c->m[g][b]) : V(set1_epi32)(0);
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            vi sum[G_MAX];
#ifndef __AVX512VNNI__
            if (bits == 8) {
                chunk_dot_signed(sum, c, b, w, q + r * BLOCK);
                row_step(false, G, acc[r], sum, d, m, scale[r], 0);
                continue;
            }
#endif
            UNROLL for (int g = 0; g < G; g++) sum[g] =
                extra == ZEROS ? zero_sum(zero[g], start[r].zero) : V(set1_epi32)(extra == MINS ? 0 : start[r].zero);
            block_dot(bits, G, sum, w, q + r * BLOCK);
            row_step(extra == MINS, G, acc[r], sum, d, m, scale[r], start[r].sum);
        }
        UNROLL for (int i = 0; i < R * BLOCK; i += 64) _mm_prefetch(q + R * BLOCK + i, _MM_HINT_T0); /* next rows */
        q += rows * BLOCK;
        scale += rows;
        start += rows;
    }
    if (t->last) {
        tile_end(t, row, R, G_MANY, acc);
        return;
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < G_MANY; g++)
    {
        V(storeu_ps)(sums + (r * G_MANY + g) * VEC, acc[r][g]);
    }
}

/* n blocks of G_MANY groups, the first of them group `group` of the first panel. */
INLINE void chunk_unpack(const struct format f, struct chunk *c, const struct int8_tile *t, int group, int64_t block,
                         int64_t n)
{
    for (int g = 0; g < G_MANY; g++) {
        const int in_panel = (group + g) % PANEL_GROUPS;
        const char *panel = t->panel + (size_t)((group + g) / PANEL_GROUPS) * t->panel_bytes;
        if (t->n_valid <= g * VEC) /* beyond the last panel: what the chunk holds is never stored */
            return;
        for (int64_t b = 0; b < n; b++) {
            const char *scales = block32_scales(f.type, panel, block + b) + in_panel * GROUP_SCALES(f);
            vi w[WORDS];
            block_load(f, w, block32_quants(f.type, panel, block + b) + in_panel * GROUP_QUANTS);
#ifndef __AVX512VNNI__
            if (f.bits == 8)
                chunk_put_signed(c, g, b, w);
            else
#endif
                UNROLL for (int i = 0; i < WORDS; i++) vi_store(c->w[g][b][i], w[i]);
            V(store_ps)(c->d[g][b], scale_load(f, scales));
            if (block32_has_min(f.type))
                V(store_ps)(c->m[g][b], vf_half(scales + 2 * LANES));
            if (block32_has_zeros(f.type))
                vi_store(c->m[g][b], vi_widen16(scales + 2 * LANES));
        }
    }
}
