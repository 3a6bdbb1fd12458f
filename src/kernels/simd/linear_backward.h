/* linear_backward - the transposed products on f32 panels; included once for AVX2 and once for AVX-512
 *
 * dx: a tile is rows x columns of accumulators, each the sixteen lanes of one dx; panels are walked in order, the tree
 * comes last. A span of panels is copied first (the columns lie a panel apart, often a power of two), the lanes wait
 * on the stack between spans.
 * dw: a tile is panels x columns, lanes are outputs; tokens are walked in order and the sums wait in dw itself.
 */
#include "kernels/simd/lanes.h"

/* ---- dx ---- */
/* AVX2 takes the sixteen lanes as two halves one after the other: twice the tile fits into its registers. */
#if defined __AVX512F__ || defined __aarch64__
#ifdef __AVX512F__
enum { DX_R = 6, DX_K = 4, DX_HALVES = 1 };
#else
enum { DX_R = 3, DX_K = 2, DX_HALVES = 1 };
#endif
typedef v16 dx_vec;
INLINE dx_vec dx_load(const float *p)
{
    return v16_load(p);
}
INLINE dx_vec dx_load_n(const float *p, int n)
{
    return v16_load_n(p, n);
}
INLINE void dx_store(float *p, dx_vec a)
{
    v16_store(p, a);
}
INLINE dx_vec dx_fma(dx_vec a, dx_vec b, dx_vec c)
{
    return v16_fma(a, b, c);
}
#else
enum { DX_R = 3, DX_K = 4, DX_HALVES = 2 };
typedef __m256 dx_vec;
INLINE dx_vec dx_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE dx_vec dx_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, v16_first(n));
}
INLINE void dx_store(float *p, dx_vec a)
{
    _mm256_storeu_ps(p, a);
}
INLINE dx_vec dx_fma(dx_vec a, dx_vec b, dx_vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}
#endif
/* An item's columns and rows; panels of a span: its dy and weights fit into the first two levels of cache. */
enum { DX_COLUMNS = 16, DX_ROWS = 96, DX_SPAN = 48 };

struct dx_span {
    float (*lanes)[DX_COLUMNS][LANES];   /* [row][column][lane] */
    const float (*w)[DX_COLUMNS][LANES]; /* [panel][column][lane] */
    const float *dy;
    int64_t n_out; /* from row to row of dy */
    int n_panel, n_tail;
    bool first;
};

INLINE void dx_tile(const struct dx_span *s, const int R, int row, int k0, int half)
{
    dx_vec acc[DX_R][DX_K];
    const float *dy = s->dy + row * s->n_out + half, *w = s->w[0][k0] + half;
    float *lanes = s->lanes[row][k0] + half;
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int k = 0; k < DX_K; k++) acc[r][k] =
        s->first ? (dx_vec){0} : dx_load(lanes + (r * DX_COLUMNS + k) * LANES);
    for (int p = 0; p < s->n_panel; p++, dy += LANES, w += DX_COLUMNS * LANES) {
        dx_vec y[DX_R];
        UNROLL for (int r = 0; r < R; r++) y[r] = dx_load(dy + r * s->n_out);
        UNROLL for (int k = 0; k < DX_K; k++)
        {
            dx_vec a = dx_load(w + k * LANES);
            UNROLL for (int r = 0; r < R; r++) acc[r][k] = dx_fma(y[r], a, acc[r][k]);
        }
    }
    if (s->n_tail > half) /* outputs of the last panel, when it is not full */
        UNROLL for (int k = 0; k < DX_K; k++) UNROLL for (int r = 0; r < R; r++) acc[r][k] =
            dx_fma(dx_load_n(dy + r * s->n_out, s->n_tail - half), dx_load(w + k * LANES), acc[r][k]);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int k = 0; k < DX_K; k++)
        dx_store(lanes + (r * DX_COLUMNS + k) * LANES, acc[r][k]);
}

#ifdef __AVX512F__
/* Sixteen trees at once: each step adds halves of two vectors, so the order in which k enters is undone by `order`. */
INLINE v16 sums_of(const float lanes[DX_COLUMNS][LANES])
{
    static const int order[16] = {0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15};
    v16 v[16];
    UNROLL for (int i = 0; i < 16; i++) v[i] = v16_load(lanes[order[i]]);
    UNROLL for (int i = 0; i < 8; i++) v[i] =
        v16_add(_mm512_shuffle_f32x4(v[i], v[i + 8], 0x44), _mm512_shuffle_f32x4(v[i], v[i + 8], 0xee));
    UNROLL for (int i = 0; i < 4; i++) v[i] =
        v16_add(_mm512_shuffle_f32x4(v[i], v[i + 4], 0x88), _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd));
    UNROLL for (int i = 0; i < 2; i++) v[i] =
        v16_add(_mm512_shuffle_ps(v[i], v[i + 2], 0x44), _mm512_shuffle_ps(v[i], v[i + 2], 0xee));
    return v16_add(_mm512_shuffle_ps(v[0], v[1], 0x88), _mm512_shuffle_ps(v[0], v[1], 0xdd));
}
#else
INLINE v16 sums_of(const float lanes[DX_COLUMNS][LANES])
{
    float sum[DX_COLUMNS];
    for (int k = 0; k < DX_COLUMNS; k++)
        sum[k] = v16_sum(v16_load(lanes[k]));
    return v16_load(sum);
}
#endif

/* All tiles of a span: the rows' dy stays near while the columns pass. */
static void dx_tiles(const struct dx_span *s, int n_row)
{
    for (int row = 0; row < n_row; row += DX_R)
        for (int half = 0; half < DX_HALVES * 8; half += 8)
            for (int k = 0; k < DX_COLUMNS; k += DX_K)
                switch (n_row - row) {
                case 1:
                    dx_tile(s, 1, row, k, half);
                    break;
                case 2:
                    dx_tile(s, 2, row, k, half);
                    break;
#if defined __AVX512F__
                case 3:
                    dx_tile(s, 3, row, k, half);
                    break;
                case 4:
                    dx_tile(s, 4, row, k, half);
                    break;
                case 5:
                    dx_tile(s, 5, row, k, half);
                    break;
#endif
                default:
                    dx_tile(s, DX_R, row, k, half);
                    break;
                }
}

static void dx_block(const struct linear_input_job *job, int64_t row0, int n_row, int64_t k0, int n_k)
{
    _Alignas(64) float lanes[DX_ROWS][DX_COLUMNS][LANES], w[DX_SPAN][DX_COLUMNS][LANES];
    int64_t n_in = job->w->n_in, n_out = job->w->n_out, n_panel = panel_count(n_out);
    int64_t n_span = (n_panel + DX_SPAN - 1) / DX_SPAN;
    struct dx_span s = {.lanes = lanes, .w = (const float(*)[DX_COLUMNS][LANES])w, .n_out = n_out};
    if (n_k < DX_COLUMNS)
        memset(w, 0, sizeof w);
    for (int64_t i = 0; i < n_span; i++) { /* spans of about the same length */
        int64_t p0 = n_panel * i / n_span, p1 = n_panel * (i + 1) / n_span;
        for (int64_t p = p0; p < p1; p++)
            memcpy(w[p - p0], (const float *)panel_at(job->w, p) + k0 * LANES, (size_t)n_k * sizeof w[0][0]);
        s.n_tail = p1 == n_panel ? (int)(n_out % LANES) : 0;
        s.n_panel = (int)(p1 - p0) - (s.n_tail != 0);
        s.dy = job->dy + row0 * n_out + p0 * LANES;
        s.first = i == 0;
        dx_tiles(&s, n_row);
    }
    for (int r = 0; r < n_row; r++) {
        float *dx = job->dx + (row0 + r) * n_in + k0;
        v16 sum = sums_of(lanes[r]);
        v16_store_n(dx, job->accumulate ? v16_add(v16_load_n(dx, n_k), sum) : sum, n_k);
    }
}

void ISA(linear_input)(const struct linear_input_job *job, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    for (int64_t r = row0; r < row1; r += DX_ROWS)
        for (int64_t k = k0; k < k1; k += DX_COLUMNS)
            dx_block(job, r, row1 - r < DX_ROWS ? (int)(row1 - r) : DX_ROWS, k,
                     k1 - k < DX_COLUMNS ? (int)(k1 - k) : DX_COLUMNS);
}

/* ---- dw ---- */
#ifdef __AVX512F__
enum { DW_P = 2, DW_K = 12 };
#else
enum { DW_P = 1, DW_K = 6 };
#endif
enum { DW_COLUMNS = 96, DW_TOKENS = 128 }; /* of an item; of a span */

/* dw of P panels, n_k columns; dy [n][P][16] and x [n][DW_K] copied, zero beyond the edges. */
INLINE void dw_tile(const int P, float *dw, int64_t n_in, int n_k, const float *dy, const float *x, int n)
{
    v16 acc[DW_P][DW_K];
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int k = 0; k < DW_K; k++) acc[p][k] =
        k < n_k ? v16_load(dw + (p * n_in + k) * LANES) : v16_zero();
    for (int t = 0; t < n; t++, dy += P * LANES, x += DW_K) {
        v16 y[DW_P];
        UNROLL for (int p = 0; p < P; p++) y[p] = v16_load(dy + p * LANES);
        UNROLL for (int k = 0; k < DW_K; k++)
        {
            v16 b = v16_set(x[k]);
            UNROLL for (int p = 0; p < P; p++) acc[p][k] = v16_fma(y[p], b, acc[p][k]);
        }
    }
    UNROLL for (int p = 0; p < P; p++) UNROLL for (int k = 0; k < DW_K; k++) if (k < n_k)
        v16_store(dw + (p * n_in + k) * LANES, acc[p][k]);
}

static void copy_x(float (*x)[DW_TOKENS][DW_K], const struct linear_weight_job *job, int64_t t0, int n, int64_t k0,
                   int64_t k1)
{
    for (int64_t k = k0; k < k1; k += DW_K, x++) {
        int n_k = k1 - k < DW_K ? (int)(k1 - k) : DW_K;
        for (int t = 0; t < n; t++)
            for (int j = 0; j < DW_K; j++)
                x[0][t][j] = j < n_k ? job->x[(t0 + t) * job->n_in + k + j] : 0;
    }
}

static void copy_dy(float *out, const struct linear_weight_job *job, int64_t t0, int n, int64_t panel, int P)
{
    for (int t = 0; t < n; t++)
        for (int p = 0; p < P; p++) {
            int64_t at = (panel + p) * LANES, left = job->n_out - at;
            v16_store(out, v16_load_n(job->dy + (t0 + t) * job->n_out + at, left < LANES ? (int)left : LANES));
            out += LANES;
        }
}

static void dw_block(const struct linear_weight_job *job, int64_t panel0, int64_t panel1, int64_t k0, int64_t k1)
{
    _Alignas(64) float x[DW_COLUMNS / DW_K][DW_TOKENS][DW_K], dy[DW_TOKENS * DW_P * LANES];
    for (int64_t t0 = 0; t0 < job->n_row; t0 += DW_TOKENS) {
        int n = job->n_row - t0 < DW_TOKENS ? (int)(job->n_row - t0) : DW_TOKENS;
        copy_x(x, job, t0, n, k0, k1);
        for (int64_t panel = panel0; panel < panel1; panel += DW_P) {
            int P = panel1 - panel < DW_P ? 1 : DW_P;
            copy_dy(dy, job, t0, n, panel, P);
            for (int64_t k = k0; k < k1; k += DW_K) {
                float *dw = job->dw + (panel * job->n_in + k) * LANES;
                int n_k = k1 - k < DW_K ? (int)(k1 - k) : DW_K;
                const float *columns = x[(k - k0) / DW_K][0];
                if (P == DW_P)
                    dw_tile(DW_P, dw, job->n_in, n_k, dy, columns, n);
                else
                    dw_tile(1, dw, job->n_in, n_k, dy, columns, n);
            }
        }
    }
}

void ISA(linear_weight)(const struct linear_weight_job *job, int64_t panel0, int64_t panel1, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k += DW_COLUMNS)
        dw_block(job, panel0, panel1, k, k1 - k < DW_COLUMNS ? k1 : k + DW_COLUMNS);
}
