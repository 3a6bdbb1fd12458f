/* linear_kquant_ref - the definition of the products of Q2_K ... Q6_K and IQ4_XS panels (docs/numerics.md section 1):
 * per 32 of k an exact integer and one fused step, and one more for each minimum */
#include "kernels/kquant.h"

/* A lane's block and what it meets. */
struct at {
    enum dtype type;
    const uint8_t *super;
    int lane, b;
    const int8_t *q;
    float s;
};

static float half_of(const struct at *at, int i) /* d, or 1: dmin */
{
    return f16_to_f32(((const uint16_t *)at->super)[i * LANES + at->lane]);
}

/* Of n k without scales: weights times activations, and the sum of these activations. */
struct sums {
    int32_t product, x;
};
static struct sums sums_of(const struct at *at, int k0, int n)
{
    const uint8_t *block = at->super + kq_blocks_at(at->type) + at->b * kq_block_bytes(at->type);
    struct sums sums = {0, 0};
    for (int k = k0; k < k0 + n; k++) {
        sums.product += kq_value(at->type, block, at->lane, k) * at->q[k];
        sums.x += at->q[k];
    }
    return sums;
}

static struct kq_scale scale_of(const struct at *at, int h)
{
    return kq_scale(at->type, at->super + kq_scales_at(at->type), at->lane, at->b, h);
}

/* One scale for 32 k: it joins d, in f32. */
static real whole_step(const struct at *at, real acc)
{
    const struct sums sums = sums_of(at, 0, BLOCK);
    const struct kq_scale scale = scale_of(at, 0);
    float d = half_of(at, 0) * (float)scale.scale, ds = d * at->s;
    acc = FMA((real)sums.product, ds, acc);
    if (!kq_has_min(at->type))
        return acc;
    float m = half_of(at, 1) * (float)scale.min, sx = at->s * (float)sums.x;
    return FMA(-m, sx, acc);
}

/* One for 16: whole numbers in the sum. */
static real halves_step(const struct at *at, real acc)
{
    int32_t product = 0, minus = 0;
    for (int h = 0; h < 2; h++) {
        const struct sums sums = sums_of(at, h * BLOCK / 2, BLOCK / 2);
        const struct kq_scale scale = scale_of(at, h);
        product += scale.scale * sums.product;
        minus -= scale.min * sums.x;
    }
    float ds = half_of(at, 0) * at->s;
    acc = FMA((real)product, ds, acc);
    if (!kq_has_min(at->type))
        return acc;
    float ms = half_of(at, 1) * at->s;
    return FMA(ms, (real)minus, acc);
}

static void kquant_row(const struct linear_job *job, enum dtype t, int64_t row, int64_t panel)
{
    const struct act_int8 a = act_int8_row(job->x, row);
    int64_t n_in = job->w->n_in, n0 = panel * LANES, n_out = job->w->n_out;
    const uint8_t *base = panel_at(job->w, panel);
    real acc[LANES] = {0};
    for (int64_t b = 0; b < n_in / BLOCK; b++) {
        struct at at = {.type = t,
                        .super = base + b / SUPER_BLOCKS * kq_super_bytes(t),
                        .b = (int)(b % SUPER_BLOCKS),
                        .q = a.q + b * a.rows * BLOCK,
                        .s = a.scale[b * a.rows]};
        for (at.lane = 0; at.lane < LANES; at.lane++)
            acc[at.lane] = kq_has_halves(t) ? halves_step(&at, acc[at.lane]) : whole_step(&at, acc[at.lane]);
    }
    for (int64_t n = n0; n < n0 + LANES && n < n_out; n++)
        job->out[row * job->stride + n] = job->bias ? acc[n - n0] + job->bias[n] : acc[n - n0];
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
