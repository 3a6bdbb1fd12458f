/* linear_float_rows - the rows of kernels.def that avx2 and avx512 share */
#include "kernels/simd/linear_float.h"
#include "kernels/simd/widen.h"

static __attribute__((noinline)) void tile_f32(const struct tile *t, int R, int P)
{
    tile_switch(t, KIND_F32, R, P);
}

void ISA(linear_f32)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_float(job, KIND_F32, tile_f32, row0, row1, panel0, panel1);
}

static __attribute__((noinline)) void tile_f16(const struct tile *t, int R, int P)
{
    tile_switch(t, KIND_F16, R, P);
}

void ISA(linear_f16)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_float(job, KIND_F16, tile_f16, row0, row1, panel0, panel1);
}

static __attribute__((noinline)) void tile_bf16(const struct tile *t, int R, int P)
{
    tile_switch(t, KIND_BF16, R, P);
}

void ISA(linear_bf16)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_float(job, KIND_BF16, tile_bf16, row0, row1, panel0, panel1);
}

/* ---- exact: panels dequantized to f32, a span of k at a time ---- */
void ISA(linear_exact)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    int64_t n_in = job->w->n_in;
    struct operands o = operands(job, KIND_F32);
    _Alignas(64) char x[TILE_R * X_STRIDE];
    _Alignas(64) float w[2][SPAN * LANES];
    for (int64_t p = panel0, P; p < panel1; p += P) {
        P = panel1 - p < 2 || TILE_P(TILE_R) == 1 ? 1 : 2;
        for (int64_t k0 = 0; k0 < n_in; k0 += SPAN) {
            int64_t k_count = n_in - k0 < SPAN ? n_in - k0 : SPAN;
            for (int i = 0; i < P; i++)
                widen_span(w[i], job->w, p + i, k0, k_count);
            for (int64_t row = row0; row < row1; row += TILE_R) {
                int R = row1 - row < TILE_R ? (int)(row1 - row) : TILE_R;
                for (int r = 0; r < R; r++)
                    memcpy(x + r * X_STRIDE, o.x + (size_t)(row + r) * o.x_stride + k0 * 4, (size_t)k_count * 4);
                struct tile t = tile_at(job, row, p);
                t.w = (const char *)w;
                t.w_stride = sizeof w[0];
                t.x = x;
                t.x_stride = X_STRIDE;
                t.k_count = k_count;
                t.first = k0 == 0;
                t.last = k0 + k_count == n_in;
                tile_f32(&t, R, (int)P);
            }
        }
    }
}
