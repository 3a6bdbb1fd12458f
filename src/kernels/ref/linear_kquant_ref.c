/* linear_kquant_ref - the definition of the products of Q2_K ... Q6_K and IQ4_XS panels (docs/numerics.md section 1):
 * per 32 of k an exact integer in which the scales of its parts are multiplied, one fused step, and one more for the
 * minima */
#include "kernels/kquant.h"

/* The integers of a block: weights times activations, and minima times the activations' negated sums. */
struct sums {
    int32_t product, minus;
};
static struct sums block_sums(enum dtype t, const uint8_t *super, int lane, int b, const int8_t *q)
{
    const uint8_t *block = super + kq_blocks_at(t) + b * kq_block_bytes(t);
    int half = kq_has_halves(t) ? BLOCK / 2 : BLOCK;
    struct sums sums = {0, 0};
    for (int k0 = 0; k0 < BLOCK; k0 += half) {
        const struct kq_scale s = kq_scale(t, super + kq_scales_at(t), lane, b, k0 / half);
        int32_t product = 0, sum = 0;
        for (int k = k0; k < k0 + half; k++) {
            product += kq_value(t, block, lane, k) * q[k];
            sum += q[k];
        }
        sums.product += s.scale * product;
        sums.minus -= s.min * sum;
    }
    return sums;
}

static void kquant_row(const struct linear_job *job, enum dtype t, int64_t row, int64_t panel)
{
    const struct act_int8 a = act_int8_row(job->x, row);
    int64_t n_in = job->w->n_in, n0 = panel * LANES, n_out = job->w->n_out;
    const uint8_t *base = panel_at(job->w, panel);
    real acc[LANES] = {0};
    for (int64_t b = 0; b < n_in / BLOCK; b++) {
        const uint8_t *super = base + b / SUPER_BLOCKS * kq_super_bytes(t);
        const uint16_t *d = (const uint16_t *)super;
        float s = a.scale[b * a.rows];
        for (int j = 0; j < LANES; j++) {
            const struct sums sums = block_sums(t, super, j, (int)(b % SUPER_BLOCKS), a.q + b * a.rows * BLOCK);
            float ds = f16_to_f32(d[j]) * s;
            acc[j] = FMA((real)sums.product, ds, acc[j]);
            if (kq_has_min(t)) {
                float ms = f16_to_f32(d[LANES + j]) * s;
                acc[j] = FMA(ms, (real)sums.minus, acc[j]);
            }
        }
    }
    for (int64_t n = n0; n < n0 + LANES && n < n_out; n++)
        job->out[row * n_out + n] = job->bias ? acc[n - n0] + job->bias[n] : acc[n - n0];
}

static void kquant(const struct linear_job *job, enum dtype t, int64_t row0, int64_t row1, int64_t panel0,
                   int64_t panel1)
{
    for (int64_t p = panel0; p < panel1; p++)
        for (int64_t r = row0; r < row1; r++)
            kquant_row(job, t, r, p);
}

#define REF(name, type)                                                                                                \
    void linear_##name##__ref(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0,                \
                              int64_t panel1)                                                                          \
    {                                                                                                                  \
        kquant(job, type, row0, row1, panel0, panel1);                                                                 \
    }
REF(q2_k, DT_Q2_K)
REF(q3_k, DT_Q3_K)
REF(q4_k, DT_Q4_K)
REF(q5_k, DT_Q5_K)
REF(q6_k, DT_Q6_K)
REF(iq4_xs, DT_IQ4_XS)
