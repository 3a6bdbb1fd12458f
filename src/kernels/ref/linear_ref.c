/* linear_ref - the definition of the forward products' bits (docs/numerics.md section 1): outputs in lanes, k in order
 */
#include "kernels/block32.h"

static void store_lanes(const struct linear_job *job, int64_t row, int64_t panel, const real acc[LANES])
{
    int64_t n0 = panel * LANES, n_out = job->w->n_out;
    for (int64_t n = n0; n < n0 + LANES && n < n_out; n++)
        job->out[row * job->stride + n] = job->bias ? acc[n - n0] + job->bias[n] : acc[n - n0];
}

void linear_f32__ref(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    int64_t n_in = job->w->n_in;
    for (int64_t p = panel0; p < panel1; p++) {
        const real *w = panel_at(job->w, p);
        for (int64_t r = row0; r < row1; r++) {
            const real *x = job->x->x + r * n_in;
            real acc[LANES] = {0};
            for (int64_t k = 0; k < n_in; k++)
                for (int j = 0; j < LANES; j++)
                    acc[j] = FMA(w[k * LANES + j], x[k], acc[j]);
            store_lanes(job, r, p, acc);
        }
    }
}

/* Any panel, a span of k widened at a time. */
void linear_exact__ref(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    enum { SPAN = 256 };
    int64_t n_in = job->w->n_in;
    for (int64_t p = panel0; p < panel1; p++)
        for (int64_t r = row0; r < row1; r++) {
            const real *x = job->x->x + r * n_in;
            real acc[LANES] = {0}, w[SPAN * LANES];
            for (int64_t k0 = 0; k0 < n_in; k0 += SPAN) {
                int64_t n = n_in - k0 < SPAN ? n_in - k0 : SPAN;
                for (int j = 0; j < LANES; j++)
                    panel_widen_lane(w + j, LANES, job->w, p, j, k0, k0 + n);
                for (int64_t k = 0; k < n; k++)
                    for (int j = 0; j < LANES; j++)
                        acc[j] = FMA(w[k * LANES + j], x[k0 + k], acc[j]);
            }
            store_lanes(job, r, p, acc);
        }
}

/* f16 widens exactly, so its products are those of f32. */
void linear_f16__ref(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_exact__ref(job, row0, row1, panel0, panel1);
}

void linear_bf16__ref(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    int64_t n_pair = (job->w->n_in + 1) / 2;
    size_t stride = act_row_bytes(job->w->n_in);
    for (int64_t p = panel0; p < panel1; p++) {
        const uint16_t *w = panel_at(job->w, p);
        for (int64_t r = row0; r < row1; r++) {
            const uint16_t *x = (const uint16_t *)((const char *)job->x->storage + (size_t)r * stride);
            real acc[LANES] = {0};
            for (int64_t i = 0; i < n_pair; i++)
                for (int j = 0; j < LANES; j++) {
                    const uint16_t *pair = w + (i * LANES + j) * 2;
                    acc[j] = FMA(bf16_to_f32(pair[1]), bf16_to_f32(x[2 * i + 1]), acc[j]);
                    acc[j] = FMA(bf16_to_f32(pair[0]), bf16_to_f32(x[2 * i]), acc[j]);
                }
            store_lanes(job, r, p, acc);
        }
    }
}

/* ---- quantized: integers inside a block of 32, one fused step a block, for types with minima two ---- */
static inline void block32_product(const struct linear_job *job, enum dtype t, int64_t row, int64_t panel)
{
    const struct act_int8 a = act_int8_row(job->x, row);
    const char *base = panel_at(job->w, panel);
    real acc[LANES] = {0};
    for (int64_t b = 0; b < job->w->n_in / BLOCK; b++) {
        const int8_t *q = a.q + b * a.rows * BLOCK;
        float s = a.scale[b * a.rows];
        for (int j = 0; j < LANES; j++) {
            int32_t sum = 0;
            for (int k = 0; k < BLOCK; k++)
                sum += block32_level(t, base, b, j, k) * q[k];
            float ds = block32_scale(t, base, b, j) * s;
            acc[j] = FMA((real)sum, ds, acc[j]);
            if (block32_has_min(t)) {
                float sx = s * (float)-a.minus[b * a.rows];
                acc[j] = FMA(block32_min(t, base, b, j), sx, acc[j]);
            }
        }
    }
    store_lanes(job, row, panel, acc);
}

#define BLOCK32(TYPE, name)                                                                                            \
    void linear_##name##__ref(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0,                \
                              int64_t panel1)                                                                          \
    {                                                                                                                  \
        for (int64_t p = panel0; p < panel1; p++)                                                                      \
            for (int64_t r = row0; r < row1; r++)                                                                      \
                block32_product(job, DT_##TYPE, r, p);                                                                 \
    }
BLOCK32(Q8_0, q8_0)
BLOCK32(Q4_0, q4_0)
BLOCK32(Q4_1, q4_1)
BLOCK32(Q5_0, q5_0)
BLOCK32(Q5_1, q5_1)
BLOCK32(IQ4_NL, iq4_nl)
BLOCK32(MXFP4, mxfp4)
BLOCK32(Q4_Z, q4_z)
