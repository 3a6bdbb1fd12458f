/* linear_backward - the transposed products on f32 panels; included once for AVX2 and once for AVX-512
 *
 * dx: a tile is rows x columns of accumulators, each the sixteen lanes of one dx; panels are walked in order, the tree
 * comes last. A span of panels is copied first (the columns lie a panel apart, often a power of two), the lanes wait
 * on the stack between spans.
 * dw: a tile is panels x columns, lanes are outputs; tokens are walked in order and the sums wait in dw itself.
 */
#include "kernels/x86/lanes.h"

/* ---- dx ---- */
#ifdef __AVX512F__
enum { DX_R = 3, DX_K = 8 };
#else
enum { DX_R = 3, DX_K = 2 };
#endif
enum { DX_COLUMNS = 16, DX_ROWS = 48, DX_SPAN = 64 }; /* of an item; panels of a span */

INLINE void dx_tile(const int R, float (*lanes)[DX_COLUMNS][LANES], const float (*w)[DX_COLUMNS][LANES],
                    const float *dy, int64_t n_out, int n_panel, int n_tail, const bool first)
{
    v16 acc[DX_R][DX_K];
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int k = 0; k < DX_K; k++) acc[r][k] =
        first ? v16_zero() : v16_load(lanes[r][k]);
    for (int p = 0; p < n_panel; p++) {
        v16 y[DX_R];
        UNROLL for (int r = 0; r < R; r++) y[r] = v16_load(dy + r * n_out + p * LANES);
        UNROLL for (int k = 0; k < DX_K; k++)
        {
            v16 a = v16_load(w[p][k]);
            UNROLL for (int r = 0; r < R; r++) acc[r][k] = v16_fma(y[r], a, acc[r][k]);
        }
    }
    if (n_tail) /* outputs of the last panel, when it is not full */
        UNROLL for (int k = 0; k < DX_K; k++) UNROLL for (int r = 0; r < R; r++) acc[r][k] =
            v16_fma(v16_load_n(dy + r * n_out + n_panel * LANES, n_tail), v16_load(w[n_panel][k]), acc[r][k]);
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int k = 0; k < DX_K; k++) v16_store(lanes[r][k], acc[r][k]);
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

/* One span of panels for all rows of an item. */
static void dx_span(float (*lanes)[DX_COLUMNS][LANES], float (*w)[DX_COLUMNS][LANES], const float *dy, int64_t n_out,
                    int n_panel, int n_tail, int n_row, bool first)
{
    for (int r = 0; r < n_row; r += DX_R)
        for (int k = 0; k < DX_COLUMNS; k += DX_K) {
            float(*at)[DX_COLUMNS][LANES] = (float(*)[DX_COLUMNS][LANES])lanes[r][k];
            const float(*from)[DX_COLUMNS][LANES] = (const float(*)[DX_COLUMNS][LANES])w[0][k];
            const float *y = dy + r * n_out;
            switch ((n_row - r < DX_R ? n_row - r : DX_R) * 2 + first) {
            case 2:
                dx_tile(1, at, from, y, n_out, n_panel, n_tail, false);
                break;
            case 3:
                dx_tile(1, at, from, y, n_out, n_panel, n_tail, true);
                break;
            case 4:
                dx_tile(2, at, from, y, n_out, n_panel, n_tail, false);
                break;
            case 5:
                dx_tile(2, at, from, y, n_out, n_panel, n_tail, true);
                break;
            case 6:
                dx_tile(3, at, from, y, n_out, n_panel, n_tail, false);
                break;
            default:
                dx_tile(3, at, from, y, n_out, n_panel, n_tail, true);
                break;
            }
        }
}

static void dx_block(const struct linear_input_job *job, int64_t row0, int n_row, int64_t k0, int n_k)
{
    _Alignas(64) float lanes[DX_ROWS][DX_COLUMNS][LANES], w[DX_SPAN][DX_COLUMNS][LANES];
    int64_t n_in = job->w->n_in, n_out = job->w->n_out, n_panel = panel_count(n_out);
    if (n_k < DX_COLUMNS)
        memset(w, 0, sizeof w);
    for (int64_t p0 = 0; p0 < n_panel; p0 += DX_SPAN) {
        int n = n_panel - p0 < DX_SPAN ? (int)(n_panel - p0) : DX_SPAN;
        for (int p = 0; p < n; p++)
            memcpy(w[p], (const float *)panel_at(job->w, p0 + p) + k0 * LANES, (size_t)n_k * sizeof w[0][0]);
        int tail = p0 + n == n_panel ? (int)(n_out % LANES) : 0;
        dx_span(lanes, w, job->dy + row0 * n_out + p0 * LANES, n_out, n - (tail != 0), tail, n_row, p0 == 0);
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
