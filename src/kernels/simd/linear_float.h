/* linear_float - forward products of f32, f16, bf16 and dequantized panels; included once for each instruction set
 *
 * A tile is R rows x P panels of accumulators in registers: one line of weights from each panel meets one broadcast
 * activation from each row. Up to DIRECT rows stream whole panels past the rows where they lie (decoding); more rows
 * go in tiles of TILE_R, a span of k at a time copied to the stack at a fixed stride, so that rows a power of two
 * apart do not fall into one set of the first-level cache. Between spans the sums wait in `out`: the order in k stays.
 * No prefetch: four panels are four streams, which the processor follows by itself (f16, one row, one thread of a Zen 4
 * EPYC, 2026-11: 27.6 GB/s, with prefetch 23.3).
 */
#include "kernels/simd/lanes.h"

#ifdef __AVX512F__
enum { TILE_R = 12, DIRECT = 8 };
#define TILE_P(r) ((r) <= 4 ? 4 : 2)
#else
enum { TILE_R = 6, DIRECT = 6 };
#define TILE_P(r) ((r) == 1 ? 4 : (r) <= 3 ? 2 : 1)
#endif
enum { P_MAX = 4, SPAN = 256, X_STRIDE = SPAN * 4 + 64 };

enum kind { KIND_F32, KIND_F16, KIND_BF16 };
#define W_BYTES(kind) ((kind) == KIND_F32 ? 64 : 32) /* of one k in a panel */
#define X_BYTES(kind) ((kind) == KIND_BF16 ? 2 : 4)  /* of one k in a row */

struct tile {
    const char *w; /* the first panel, at the first k of the span */
    size_t w_stride;
    const char *x; /* the first row, likewise */
    size_t x_stride;
    int64_t k_count;
    float *out;
    int64_t stride, n_valid; /* outputs left from the first panel's first on */
    const float *bias;       /* at the first panel, or NULL */
    bool first, last;        /* span of k */
};

INLINE v16 set_word(const char *p)
{
    float f;
    memcpy(&f, p, 4);
    return v16_set(f);
}

/* One line (64 bytes) of weights from each panel: one k of f32, two of f16, a pair of bf16. */
INLINE void tile_line(const enum kind kind, const int R, const int P, v16 acc[TILE_R][P_MAX], const char *w,
                      size_t w_stride, const char *x, size_t x_stride, const int halves)
{
    v16 a[P_MAX];
    if (kind == KIND_BF16) {
        UNROLL for (int p = 0; p < P; p++) a[p] = v16_load((const float *)(w + (size_t)p * w_stride));
#ifdef __AVX512BF16__
        UNROLL for (int r = 0; r < R; r++)
        {
            v16 pair = set_word(x + (size_t)r * x_stride);
            UNROLL for (int p = 0; p < P; p++) acc[r][p] = _mm512_dpbf16_ps(acc[r][p], (__m512bh)a[p], (__m512bh)pair);
        }
#else
        UNROLL for (int r = 0; r < R; r++) /* odd for all rows, then even: fewer registers at once */
        {
            v16 odd = v16_pair_odd(set_word(x + (size_t)r * x_stride));
            UNROLL for (int p = 0; p < P; p++) acc[r][p] = v16_fma(v16_pair_odd(a[p]), odd, acc[r][p]);
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            v16 even = v16_pair_even(set_word(x + (size_t)r * x_stride));
            UNROLL for (int p = 0; p < P; p++) acc[r][p] = v16_fma(v16_pair_even(a[p]), even, acc[r][p]);
        }
#endif
        return;
    }
    UNROLL for (int h = 0; h < halves; h++)
    {
        UNROLL for (int p = 0; p < P; p++)
        {
            const char *line = w + (size_t)p * w_stride + h * 32;
            a[p] = kind == KIND_F32 ? v16_load((const float *)line) : v16_load_half((const uint16_t *)line);
        }
        UNROLL for (int r = 0; r < R; r++)
        {
            v16 b = set_word(x + (size_t)r * x_stride + h * 4);
            UNROLL for (int p = 0; p < P; p++) acc[r][p] = v16_fma(a[p], b, acc[r][p]);
        }
    }
}

INLINE void tile_store(const struct tile *t, const int R, const int P, v16 acc[TILE_R][P_MAX])
{
    UNROLL for (int p = 0; p < P; p++)
    {
        int n = t->n_valid - p * LANES >= LANES ? LANES : (int)(t->n_valid - p * LANES);
        v16 bias = t->bias && t->last ? v16_load_n(t->bias + p * LANES, n) : v16_zero();
        UNROLL for (int r = 0; r < R; r++)
        {
            float *out = t->out + r * t->stride + p * LANES;
            v16 sum = t->bias && t->last ? v16_add(acc[r][p], bias) : acc[r][p];
            if (n == LANES)
                v16_store(out, sum);
            else
                v16_store_n(out, sum, n);
        }
    }
}

INLINE void tile_run(const struct tile *t, const enum kind kind, const int R, const int P, const size_t x_stride)
{
    v16 acc[TILE_R][P_MAX];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int p = 0; p < P; p++)
    {
        int64_t n = t->n_valid - p * LANES;
        const float *out = t->out + r * t->stride + p * LANES;
        acc[r][p] = t->first ? v16_zero() : n >= LANES ? v16_load(out) : v16_load_n(out, (int)n);
    }
    const int per_line = 64 / W_BYTES(kind);
    const char *w = t->w, *x = t->x, *end = w + t->k_count / per_line * 64;
    for (; w < end; w += 64, x += per_line * X_BYTES(kind)) {
        tile_line(kind, R, P, acc, w, t->w_stride, x, x_stride, kind == KIND_F16 ? 2 : 1);
    }
    if (t->k_count % per_line) /* the last k of f16, or a bf16 pair whose second is zero */
        tile_line(kind, R, P, acc, w, t->w_stride, x, x_stride, 1);
    tile_store(t, R, P, acc);
}

/* Few rows lie anywhere; more than DIRECT are copies at the fixed stride, which needs fewer address registers. */
#define TILE_CASE(kind, r, p)                                                                                          \
    case (r)*8 + (p):                                                                                                  \
        tile_run(t, kind, r, p, (r) > DIRECT ? X_STRIDE : t->x_stride);                                                \
        return;

INLINE void tile_switch(const struct tile *t, const enum kind kind, int R, int P)
{
    switch (R * 8 + P) {
        TILE_CASE(kind, 1, 1)
        TILE_CASE(kind, 1, 2)
        TILE_CASE(kind, 1, 4)
        TILE_CASE(kind, 2, 1)
        TILE_CASE(kind, 2, 2)
        TILE_CASE(kind, 3, 1)
        TILE_CASE(kind, 3, 2)
        TILE_CASE(kind, 4, 1)
        TILE_CASE(kind, 5, 1)
        TILE_CASE(kind, 6, 1)
#ifdef __AVX512F__
        TILE_CASE(kind, 2, 4)
        TILE_CASE(kind, 3, 4)
        TILE_CASE(kind, 4, 2)
        TILE_CASE(kind, 4, 4)
        TILE_CASE(kind, 5, 2)
        TILE_CASE(kind, 6, 2)
        TILE_CASE(kind, 7, 1)
        TILE_CASE(kind, 7, 2)
        TILE_CASE(kind, 8, 1)
        TILE_CASE(kind, 8, 2)
        TILE_CASE(kind, 9, 1)
        TILE_CASE(kind, 9, 2)
        TILE_CASE(kind, 10, 1)
        TILE_CASE(kind, 10, 2)
        TILE_CASE(kind, 11, 1)
        TILE_CASE(kind, 11, 2)
        TILE_CASE(kind, 12, 1)
        TILE_CASE(kind, 12, 2)
#endif
    }
}

/* Compiled once a kind: the variants are large. */
typedef void tile_fn(const struct tile *t, int R, int P);

static int panels_at_once(int rows, int64_t left)
{
    int p = TILE_P(rows);
    while (p > left)
        p /= 2;
    return p;
}

struct operands {
    const char *x; /* row 0 */
    size_t x_stride;
};

static struct operands operands(const struct linear_job *job, enum kind kind)
{
    if (kind == KIND_BF16)
        return (struct operands){job->x->storage, act_row_bytes(job->x->n_in)};
    return (struct operands){(const char *)job->x->x, (size_t)job->x->n_in * sizeof(float)};
}

/* Where a tile writes, common to all ways. */
static struct tile tile_at(const struct linear_job *job, int64_t row, int64_t panel)
{
    int64_t n0 = panel * LANES, n_out = job->w->n_out;
    return (struct tile){.out = job->out + row * job->stride + n0,
                         .stride = job->stride,
                         .n_valid = n_out - n0,
                         .bias = job->bias ? job->bias + n0 : NULL};
}

/* k rounded up to whole pairs where weights and activations are padded by a zero. */
static int64_t k_padded(enum kind kind, int64_t k)
{
    return kind == KIND_BF16 ? (k + 1) / 2 * 2 : k;
}

static void few_rows(const struct linear_job *job, enum kind kind, tile_fn *tile, int64_t row, int R, int64_t panel0,
                     int64_t panel1)
{
    struct operands o = operands(job, kind);
    for (int64_t p = panel0; p < panel1;) {
        int P = panels_at_once(R, panel1 - p);
        struct tile t = tile_at(job, row, p);
        t.w = panel_at(job->w, p);
        t.w_stride = job->w->panel_bytes;
        t.x = o.x + (size_t)row * o.x_stride;
        t.x_stride = o.x_stride;
        t.k_count = k_padded(kind, job->w->n_in);
        t.first = t.last = true;
        tile(&t, R, P);
        p += P;
    }
}

static void many_rows(const struct linear_job *job, enum kind kind, tile_fn *tile, int64_t row0, int64_t row1,
                      int64_t panel0, int64_t panel1)
{
    struct operands o = operands(job, kind);
    int64_t n_in = k_padded(kind, job->w->n_in);
    _Alignas(64) char x[TILE_R * X_STRIDE];
    for (int64_t row = row0; row < row1; row += TILE_R) {
        int R = row1 - row < TILE_R ? (int)(row1 - row) : TILE_R;
        for (int64_t k0 = 0; k0 < n_in; k0 += SPAN) {
            int64_t k_count = n_in - k0 < SPAN ? n_in - k0 : SPAN;
            for (int r = 0; r < R; r++)
                memcpy(x + r * X_STRIDE, o.x + (size_t)(row + r) * o.x_stride + k0 * X_BYTES(kind),
                       (size_t)k_count * X_BYTES(kind));
            for (int64_t p = panel0; p < panel1;) {
                int P = panels_at_once(R, panel1 - p);
                struct tile t = tile_at(job, row, p);
                t.w = (const char *)panel_at(job->w, p) + k0 * W_BYTES(kind);
                t.w_stride = job->w->panel_bytes;
                t.x = x;
                t.x_stride = X_STRIDE;
                t.k_count = k_count;
                t.first = k0 == 0;
                t.last = k0 + k_count == n_in;
                tile(&t, R, P);
                p += P;
            }
        }
    }
}

static void linear_float(const struct linear_job *job, enum kind kind, tile_fn *tile, int64_t row0, int64_t row1,
                         int64_t panel0, int64_t panel1)
{
    if (row1 - row0 <= DIRECT)
        few_rows(job, kind, tile, row0, (int)(row1 - row0), panel0, panel1);
    else
        many_rows(job, kind, tile, row0, row1, panel0, panel1);
}
