/* linear_float_rows - the rows of kernels.def that avx2 and avx512 share */
#include "kernels/block32.h"
#include "kernels/simd/linear_float.h"

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
static void widen_bf16(float *out, const char *pairs, int64_t n)
{
    for (int64_t k = 0; k < n; k += 2) {
        v16 pair = v16_load((const float *)(pairs + k * 32));
        v16_store(out + k * LANES, v16_pair_even(pair));
        if (k + 1 < n)
            v16_store(out + (k + 1) * LANES, v16_pair_odd(pair));
    }
}

static void widen_q8_0(float *out, const char *panel, int64_t b0, int64_t n_block)
{
    for (int64_t b = b0; b < b0 + n_block; b++) {
        const char *quants = block32_quants(DT_Q8_0, panel, b);
        v16 d = v16_load_half((const uint16_t *)block32_scales(DT_Q8_0, panel, b));
        for (int k = 0; k < BLOCK; k++, out += LANES)
            v16_store(out, v16_mul(d, v16_load_bits(quants + k / 4 * 64, k % 4 * 8, 255, 128)));
    }
}

INLINE void widen_q4(float *out, const enum dtype t, const char *panel, int64_t b0, int64_t n_block)
{
    for (int64_t b = b0; b < b0 + n_block; b++) {
        const char *quants = block32_quants(t, panel, b);
        const uint16_t *scale = (const uint16_t *)block32_scales(t, panel, b);
        v16 d = v16_load_half(scale), m = t == DT_Q4_1 ? v16_load_half(scale + LANES) : v16_zero();
        for (int k = 0; k < BLOCK; k++, out += LANES) {
            int shift = k % 4 * 8 + k % 8 / 4 * 4;
            v16 q = v16_mul(d, v16_load_bits(quants + k / 8 * 64, shift, 15, t == DT_Q4_1 ? 0 : 8));
            v16_store(out, t == DT_Q4_1 ? v16_add(q, m) : q);
        }
    }
}

static void widen_span(float *out, const struct weight *w, int64_t panel, int64_t k0, int64_t n)
{
    const char *base = panel_at(w, panel);
    switch (w->type) {
    case DT_BF16:
        widen_bf16(out, base + k0 * 32, n);
        return;
    case DT_Q8_0:
        widen_q8_0(out, base, k0 / BLOCK, n / BLOCK);
        return;
    case DT_Q4_0:
        widen_q4(out, DT_Q4_0, base, k0 / BLOCK, n / BLOCK);
        return;
    case DT_Q4_1:
        widen_q4(out, DT_Q4_1, base, k0 / BLOCK, n / BLOCK);
        return;
    default: /* seldom met under --exact: a lane at a time */
        for (int j = 0; j < LANES; j++)
            panel_widen_lane(out + j, LANES, w, panel, j, k0, k0 + n);
    }
}

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
