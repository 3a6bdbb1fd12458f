/* norm - the norms, forward and backward: one source for AVX2 and AVX-512 (docs/numerics.md section 2) */
#include "kernels/simd/lanes_fn.h"

INLINE float mean_of(const float *x, int64_t n)
{
    vf sum = v16_zero();
    for (int64_t i = 0; i < n; i += 16)
        sum = keep_until(i, n, vf_add(sum, load_until(x, i, n)), sum);
    return v16_sum(sum) / (float)n;
}

INLINE float inverse_rms(const float *x, float mean, float eps, int64_t n)
{
    vf sum = v16_zero(), m = vf_set(mean);
    for (int64_t i = 0; i < n; i += 16) {
        vf d = vf_sub(load_until(x, i, n), m);
        sum = keep_until(i, n, vf_fma(d, d, sum), sum);
    }
    return 1 / sqrtf(v16_sum(sum) / (float)n + eps);
}

void ISA(norm_rms)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const float *x = job->x + r * n;
        float *out = job->out + r * n;
        vf inverse = vf_set(inverse_rms(x, 0, job->eps, n));
        for (int64_t i = 0; i < n; i += 16)
            store_until(out, i, n, vf_mul(vf_mul(load_until(x, i, n), inverse), load_until(job->weight, i, n)));
    }
}

void ISA(norm_layer)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const float *x = job->x + r * n;
        float *out = job->out + r * n, mean = mean_of(x, n);
        vf m = vf_set(mean), inverse = vf_set(inverse_rms(x, mean, job->eps, n));
        for (int64_t i = 0; i < n; i += 16) {
            vf y = vf_mul(vf_sub(load_until(x, i, n), m), inverse);
            vf w = job->weight ? load_until(job->weight, i, n) : vf_set(1);
            y = job->bias ? vf_fma(y, w, load_until(job->bias, i, n)) : vf_mul(y, w);
            store_until(out, i, n, y);
        }
    }
}

void ISA(norm_rms_dx)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_back_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const float *x = job->x + r * n, *dy = job->dy + r * n;
        float inverse_one = inverse_rms(x, 0, job->eps, n);
        vf inverse = vf_set(inverse_one), sum = v16_zero();
        for (int64_t i = 0; i < n; i += 16) {
            vf g = vf_mul(load_until(dy, i, n), load_until(job->weight, i, n));
            sum = keep_until(i, n, vf_fma(g, vf_mul(load_until(x, i, n), inverse), sum), sum);
        }
        vf mean_gy = vf_set(v16_sum(sum) / (float)n);
        for (int64_t i = 0; i < n; i += 16) {
            vf g = vf_mul(load_until(dy, i, n), load_until(job->weight, i, n));
            vf y = vf_mul(load_until(x, i, n), inverse);
            store_until(job->dx + r * n, i, n, vf_mul(inverse, vf_fma(vf_negate(y), mean_gy, g)));
        }
        job->mean[r] = 0;
        job->inverse[r] = inverse_one;
    }
}

void ISA(norm_layer_dx)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_back_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const float *x = job->x + r * n, *dy = job->dy + r * n, *w = job->weight;
        float mean_one = mean_of(x, n), inverse_one = inverse_rms(x, mean_one, job->eps, n);
        vf mean = vf_set(mean_one), inverse = vf_set(inverse_one), sum = v16_zero(), sum_y = v16_zero();
        for (int64_t i = 0; i < n; i += 16) {
            vf g = load_until(dy, i, n), y = vf_mul(vf_sub(load_until(x, i, n), mean), inverse);
            g = w ? vf_mul(g, load_until(w, i, n)) : g;
            sum = keep_until(i, n, vf_add(sum, g), sum);
            sum_y = keep_until(i, n, vf_fma(g, y, sum_y), sum_y);
        }
        vf mean_g = vf_set(v16_sum(sum) / (float)n), mean_gy = vf_set(v16_sum(sum_y) / (float)n);
        for (int64_t i = 0; i < n; i += 16) {
            vf g = load_until(dy, i, n), y = vf_mul(vf_sub(load_until(x, i, n), mean), inverse);
            g = w ? vf_mul(g, load_until(w, i, n)) : g;
            vf dx = vf_mul(inverse, vf_sub(vf_fma(vf_negate(y), mean_gy, g), mean_g));
            store_until(job->dx + r * n, i, n, dx);
        }
        job->mean[r] = mean_one;
        job->inverse[r] = inverse_one;
    }
}

void ISA(norm_dw)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct norm_back_job *job = ctx;
    for (int64_t i = i0; i < i1; i += 16) {
        vf dw = job->dw ? load_until(job->dw, i, i1) : v16_zero(),
           db = job->db ? load_until(job->db, i, i1) : v16_zero();
        for (int64_t r = 0; r < job->n_row; r++) {
            vf dy = load_until(job->dy + r * job->n, i, i1);
            vf x = vf_sub(load_until(job->x + r * job->n, i, i1), vf_set(job->mean[r]));
            dw = vf_fma(dy, vf_mul(x, vf_set(job->inverse[r])), dw);
            db = vf_add(db, dy);
        }
        if (job->dw)
            store_until(job->dw, i, i1, dw);
        if (job->db)
            store_until(job->db, i, i1, db);
    }
}
