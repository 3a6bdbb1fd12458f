/* linear_int8_tile - R rows x G groups of outputs against blocks of 32 k: weights of 2 to 8 bits, int8 activations
 *
 * A block's weights come as eight vectors of (outputs x 4 k), each row brings eight words of four activations. Integer
 * sums are exact, so every set gives the bits of ref; the f32 steps are written in its order. How products are added
 * is the only difference between sets:
 *   VNNI      dpbusd on unsigned weights; the sum starts at the zero point times minus the activations' sum; whole-
 *             numbered scales of 16 k are 32-bit multiplications
 *   without   maddubs chained in int16 as long as it cannot overflow (in a lane 16 products of 4 bits, 8 of 2, 3 and
 *             5 bits, 4 of 6 bits), then madd with ones, or with those scales as int16
 *             8 bits: unsigned weights would saturate maddubs, so |w| meets sign(x, w); 2 x 128 x 127 < 32768
 *
 * With VNNI on Zen 4 the multiplier bounds many rows: dpbusd, mulld, mul and fma share one 512-bit slot a cycle, all
 * else is hidden. So of the int8 peak 8/10 can be reached, with minima 8/11, with two scales 8/12, with two minima
 * 8/13.
 */
#include "kernels/x86/int8_lanes.h"

enum { WORDS = 8, G_MAX = 2 };
#ifdef __AVX512F__
enum { R_FEW = 8, R_MANY = 4, G_MANY = 2 };
#else
enum { R_FEW = 4, R_MANY = 4, G_MANY = 1 };
#endif
enum { PANEL_GROUPS = LANES / VEC };

/* What a block has beside the weights and one scale for each output. */
enum extra {
    NONE,
    MINS,        /* an f32 minimum of 32 k */
    ZEROS,       /* a zero point of its own for each output */
    HALF_SCALES, /* whole-numbered scales of 16 k */
    HALF_MINS    /* whole-numbered minima of 16 k */
};
enum { EXTRAS = 3 };
struct side {
    vf d;
    vi x[EXTRAS];
    /* MINS         f32, as they are to be added
     * ZEROS        int32
     * HALF_SCALES  of both halves: with VNNI int32; without twice the same int16, and the zero point times both
     * HALF_MINS    a pair of int16; their scale, f32 */
};

/* What a row brings to a block beside q and scale: what its sum starts at; for
 * MINS its scale times the sum of its activations; or the word of the negated
 * sums of both halves. */
union start {
    int32_t zero, halves;
    float sum;
};
#ifdef __AVX512VNNI__
#define START_PARTS(extra) ((extra) == HALF_SCALES ? 2 : 1)
#else
#define START_PARTS(extra) 1
#endif

/* zero: of the weights as they come, 1 for ZEROS */
INLINE void start_put(union start *out, const enum extra extra, const int zero, const struct act_int8 *a, int64_t i)
{
    switch (extra) {
    case MINS:
        out[0].sum = a->scale[i] * (float)-a->minus[i];
        return;
    case HALF_SCALES:
#ifdef __AVX512VNNI__
        out[0].zero = zero * a->halves[2 * i];
        out[1].zero = zero * a->halves[2 * i + 1];
        return;
#endif
    case HALF_MINS:
        memcpy(&out->halves, &a->halves[2 * i], sizeof out->halves);
        return;
    default:
        out[0].zero = zero * a->minus[i];
    }
}

/* ---- the integers of a block for G groups and one row ---- */
#ifdef __AVX512VNNI__
INLINE void dot_words(const int bits, const int G, vi *sum, vi (*w)[WORDS], const int8_t *q, const int from,
                      const int to)
{
    (void)bits;
    UNROLL for (int i = from; i < to; i++)
    {
        vi x = vi_word(q + 4 * i);
        UNROLL for (int g = 0; g < G; g++) sum[g] = V(dpbusd_epi32)(sum[g], w[g][i], x);
    }
}
INLINE void block_dot(const int bits, const int G, vi *sum, vi (*w)[WORDS], const int8_t *q)
{
    dot_words(bits, G, sum, w, q, 0, WORDS);
}
INLINE void halves_dot(const int bits, const int G, vi *sum, vi (*w)[WORDS], const struct side *side,
                       const union start *start, const int8_t *q)
{
    vi last[G_MAX];
    UNROLL for (int g = 0; g < G; g++) sum[g] = V(set1_epi32)(start[0].zero), last[g] = V(set1_epi32)(start[1].zero);
    dot_words(bits, G, sum, w, q, 0, WORDS / 2);
    dot_words(bits, G, last, w, q, WORDS / 2, WORDS);
    UNROLL for (int g = 0; g < G; g++) sum[g] =
        V(add_epi32)(V(mullo_epi32)(sum[g], side[g].x[0]), V(mullo_epi32)(last[g], side[g].x[1]));
}
#else
/* `chain` words of two products a lane before each madd; without `side` it
 * meets ones. */
INLINE void dot_words(const int bits, const int G, vi *sum, vi (*w)[WORDS], const struct side *side, const int half,
                      const int8_t *q, const int from, const int to)
{
    const int chain = bits == 4 ? 8 : bits <= 5 ? 4 : bits == 6 ? 2 : 1;
    UNROLL for (int i = from; i < to; i += chain)
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
        UNROLL for (int g = 0; g < G; g++) sum[g] =
            V(add_epi32)(sum[g], V(madd_epi16)(pairs[g], side ? side[g].x[half] : V(set1_epi16)(1)));
    }
}
INLINE void block_dot(const int bits, const int G, vi *sum, vi (*w)[WORDS], const int8_t *q)
{
    dot_words(bits, G, sum, w, NULL, 0, q, 0, WORDS);
}
INLINE void halves_dot(const int bits, const int G, vi *sum, vi (*w)[WORDS], const struct side *side,
                       const union start *start, const int8_t *q)
{
    UNROLL for (int g = 0; g < G; g++) sum[g] = V(madd_epi16)(side[g].x[2], V(set1_epi32)(start->halves));
    dot_words(bits, G, sum, w, side, 0, q, 0, WORDS / 2);
    dot_words(bits, G, sum, w, side, 1, q, WORDS / 2, WORDS);
}
#endif

/* What the sum of a block starts at. A zero of each output's own: times minus
 * the activations' sum, which fits 16 bits: 32 * 127. */
INLINE vi sum_start(const enum extra extra, const struct side *side, const union start *start)
{
    if (extra == ZEROS)
        return V(madd_epi16)(side->x[0], V(set1_epi32)(start->zero));
    return V(set1_epi32)(extra == NONE ? start->zero : 0);
}

/* One row's f32 steps of a block. */
INLINE void row_step(const enum extra extra, const int G, vf *acc, vi *sum, const struct side *side, float scale,
                     const union start *start)
{
    const vf s = V(set1_ps)(scale);
    UNROLL for (int g = 0; g < G; g++)
    {
        acc[g] = V(fmadd_ps)(V(cvtepi32_ps)(sum[g]), V(mul_ps)(side[g].d, s), acc[g]);
        if (extra == MINS)
            acc[g] = V(fmadd_ps)(vf_castsi(side[g].x[0]), V(set1_ps)(start->sum), acc[g]);
        if (extra == HALF_MINS) {
            vi minus = V(madd_epi16)(side[g].x[0], V(set1_epi32)(start->halves));
            acc[g] = V(fmadd_ps)(V(mul_ps)(vf_castsi(side[g].x[1]), s), V(cvtepi32_ps)(minus), acc[g]);
        }
    }
}

/* ---- chunks: G_MANY groups unpacked for many rows: they and the rows of a
 * tile stay in the first-level cache ---- */
enum { CHUNK = 8 }; /* 16 are no faster (Zen 4, 2026-11) */
enum { CHUNK_PANELS = (G_MANY + LANES / VEC - 1) / (LANES / VEC) };
struct chunk {
    _Alignas(64) char w[G_MANY][CHUNK][WORDS][VEC * 4];
#ifndef __AVX512VNNI__
    _Alignas(64) char sign[G_MANY][CHUNK][WORDS][VEC * 4]; /* 8 bits: w holds sizes, this what vi_flip
                                                              wants */
    _Alignas(64) int32_t flipped[G_MANY][CHUNK][VEC];      /* what their sums start at */
#endif
    _Alignas(64) float d[G_MANY][CHUNK][VEC];
    _Alignas(64) int32_t x[EXTRAS][G_MANY][CHUNK][VEC]; /* as in struct side */
};

struct int8_tile {
    const char *panel; /* few rows: this one; unpacking: the first of a chunk */
    size_t panel_bytes;
    const struct chunk *chunk; /* many rows */
    const union start *start;  /* at the first row, rows as in a */
    struct act_int8 a;         /* at the first row and block */
    int64_t n_block;
    float *out;              /* the first row and output */
    int64_t stride, n_valid; /* outputs from there on */
    const float *bias;       /* at the first output, or NULL */
    bool first, last;        /* blocks */
    float *sums;             /* many rows: [R][G_MANY][VEC], where they wait between chunks */
    /* many rows: weights to prefetch, so many lines of each of a chunk's panels with every block */
    const char *next, *next_end;
    int next_lines;
};

/* One group's sums of R rows from `row` of the tile on, `stride` vectors apart. */
INLINE void group_end(const struct int8_tile *t, int row, const int R, int g, const vf *acc, const int stride)
{
    float *out = t->out + row * t->stride + g * VEC;
    int64_t n = t->n_valid - g * VEC;
    vf bias = t->bias ? vf_load_n(t->bias + g * VEC, n) : V(setzero_ps)();
    UNROLL for (int r = 0; r < R; r++)
    {
        const vf sum = acc[r * stride];
        vf_store_n(out + r * t->stride, t->bias ? V(add_ps)(sum, bias) : sum, n);
    }
}
INLINE void tile_end(const struct int8_tile *t, int row, const int R, const int G, vf acc[R_FEW][G_MAX])
{
    UNROLL for (int g = 0; g < G; g++) group_end(t, row, R, g, &acc[0][g], G_MAX);
}

INLINE void chunk_put_side(struct chunk *c, int g, int64_t b, const enum extra extra, const struct side *side)
{
    const int n = extra == NONE ? 0 : extra == HALF_SCALES ? EXTRAS : extra == HALF_MINS ? 2 : 1;
    V(store_ps)(c->d[g][b], side->d);
    for (int i = 0; i < n; i++)
        vi_store(c->x[i][g][b], side->x[i]);
}

#ifndef __AVX512VNNI__
/* Sizes times activations with the weights' signs: on AVX2 one instruction. On
 * AVX-512 negative weights meet ~x, that is -x - 1, so the sum comes out short
 * by their sizes: `flipped`. */
INLINE void chunk_dot_signed(vi *sum, const struct chunk *c, int64_t b, vi (*w)[WORDS], const int8_t *q)
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
#endif

/* Unpacked weights into the chunk. */
INLINE void chunk_put(struct chunk *c, int g, int64_t b, const int bits, const vi w[WORDS])
{
#ifndef __AVX512VNNI__
    vi flipped = V(set1_epi32)(0);
    UNROLL for (int i = 0; i < WORDS && bits == 8; i++)
    {
        vi size = V(abs_epi8)(w[i]), sign = vi_sign(w[i]);
        vi_store(c->w[g][b][i], size);
        vi_store(c->sign[g][b][i], sign);
        if (VEC == 16)
            flipped = V(sub_epi32)(flipped, V(madd_epi16)(V(maddubs_epi16)(size, sign), V(set1_epi16)(1)));
    }
    if (bits == 8) {
        vi_store(c->flipped[g][b], flipped);
        return;
    }
#endif
    (void)bits;
    UNROLL for (int i = 0; i < WORDS; i++) vi_store(c->w[g][b][i], w[i]);
}

/* A chunk of k past R rows, `row` and on of a tile of the activations; between
 * chunks the sums wait. */
INLINE void tile_many(const struct int8_tile *t, const int bits, const enum extra extra, int row, const int R)
{
    const int G = G_MANY, parts = START_PARTS(extra);
    const struct chunk *c = t->chunk;
    const union start *start = t->start + row * parts;
    const int8_t *q = t->a.q + row * BLOCK;
    const float *scale = t->a.scale + row;
    const int64_t rows = t->a.rows;
    float *sums = t->sums + row * G_MANY * VEC;
    vf acc[R_FEW][G_MAX];
    const char *next = t->next + row / R_MANY * t->n_block * t->next_lines * 64;
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int g = 0; g < G_MANY; g++)
    {
        acc[r][g] = t->first ? V(setzero_ps)() : V(loadu_ps)(sums + (r * G_MANY + g) * VEC);
    }
    for (int64_t b = 0; b < t->n_block; b++) {
        struct side side[G_MAX];
        vi w[G_MAX][WORDS];
        UNROLL for (int g = 0; g < G; g++)
        {
            UNROLL for (int i = 0; i < WORDS; i++) w[g][i] = vi_load(c->w[g][b][i]);
            side[g].d = V(load_ps)(c->d[g][b]);
            UNROLL for (int i = 0; i < EXTRAS; i++) side[g].x[i] = vi_load(c->x[i][g][b]); /* what is not used folds */
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            vi sum[G_MAX];
            if (extra == HALF_SCALES)
                halves_dot(bits, G, sum, w, side, start + r * parts, q + r * BLOCK);
#ifndef __AVX512VNNI__
            else if (bits == 8)
                chunk_dot_signed(sum, c, b, w, q + r * BLOCK);
#endif
            else {
                UNROLL for (int g = 0; g < G; g++) sum[g] = sum_start(extra, &side[g], start + r * parts);
                block_dot(bits, G, sum, w, q + r * BLOCK);
            }
            row_step(extra, G, acc[r], sum, side, scale[r], start + r * parts);
        }
        UNROLL for (int i = 0; i < R * BLOCK; i += 64) _mm_prefetch(q + R * BLOCK + i, _MM_HINT_T0); /* next rows */
        for (int i = 0; i < t->next_lines && next < t->next_end; i++, next += 64)
            UNROLL for (int p = 0; p < CHUNK_PANELS; p++) _mm_prefetch(next + (size_t)p * t->panel_bytes, _MM_HINT_T1);
        q += rows * BLOCK;
        scale += rows;
        start += rows * parts;
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
