/* norm_ref - the definition of the norms' bits (docs/numerics.md section 2) */
#include "kernels/kernels_private.h"

static real sum_of_squares(const real *x, real mean, int64_t n)
{
    real lane[LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % LANES] = FMA(x[i] - mean, x[i] - mean, lane[i % LANES]);
    return lanes_sum(lane);
}
static real inverse_rms(const real *x, real mean, real eps, int64_t n)
{
    return 1 / SQRT(sum_of_squares(x, mean, n) / (real)n + eps);
}
static real mean_of(const real *x, int64_t n)
{
    real lane[LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % LANES] += x[i];
    return lanes_sum(lane) / (real)n;
}

void norm_rms__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const real *x = job->x + r * n;
        real *out = job->out + r * n, inverse = inverse_rms(x, 0, job->eps, n);
        for (int64_t i = 0; i < n; i++)
            out[i] = (x[i] * inverse) * job->weight[i];
    }
}

void norm_layer__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const real *x = job->x + r * n;
        real *out = job->out + r * n, mean = mean_of(x, n), inverse = inverse_rms(x, mean, job->eps, n);
        for (int64_t i = 0; i < n; i++) {
            real y = (x[i] - mean) * inverse;
            real w = job->weight ? job->weight[i] : 1;
            out[i] = job->bias ? FMA(y, w, job->bias[i]) : y * w;
        }
    }
}

/* With y = x inverse and g = dy w: dx = inverse (g - y mean(g y)) */
void norm_rms_dx__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_back_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const real *x = job->x + r * n, *dy = job->dy + r * n;
        real *dx = job->dx + r * n, inverse = inverse_rms(x, 0, job->eps, n), lane[LANES] = {0};
        for (int64_t i = 0; i < n; i++)
            lane[i % LANES] = FMA(dy[i] * job->weight[i], x[i] * inverse, lane[i % LANES]);
        real mean_gy = lanes_sum(lane) / (real)n;
        for (int64_t i = 0; i < n; i++)
            dx[i] = inverse * FMA(-(x[i] * inverse), mean_gy, dy[i] * job->weight[i]);
        job->mean[r] = 0;
        job->inverse[r] = inverse;
    }
}

/* With y = (x - mean) inverse and g = dy w: dx = inverse (g - y mean(g y) - mean(g)) */
void norm_layer_dx__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_back_job *job = ctx;
    int64_t n = job->n;
    for (int64_t r = row0; r < row1; r++) {
        const real *x = job->x + r * n, *dy = job->dy + r * n, *w = job->weight;
        real mean = mean_of(x, n), inverse = inverse_rms(x, mean, job->eps, n);
        real *dx = job->dx + r * n, lane[LANES] = {0}, lane_y[LANES] = {0};
        for (int64_t i = 0; i < n; i++) {
            real g = w ? dy[i] * w[i] : dy[i];
            lane[i % LANES] += g;
            lane_y[i % LANES] = FMA(g, (x[i] - mean) * inverse, lane_y[i % LANES]);
        }
        real mean_g = lanes_sum(lane) / (real)n, mean_gy = lanes_sum(lane_y) / (real)n;
        for (int64_t i = 0; i < n; i++) {
            real g = w ? dy[i] * w[i] : dy[i];
            dx[i] = inverse * (FMA(-((x[i] - mean) * inverse), mean_gy, g) - mean_g);
        }
        job->mean[r] = mean;
        job->inverse[r] = inverse;
    }
}

/* dw += dy y, db += dy over the job's rows ascending, columns i0 .. i1-1 */
void norm_dw__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct norm_back_job *job = ctx;
    for (int64_t r = 0; r < job->n_row; r++) {
        const real *x = job->x + r * job->n, *dy = job->dy + r * job->n;
        real mean = job->mean[r], inverse = job->inverse[r];
        if (job->dw)
            for (int64_t i = i0; i < i1; i++)
                job->dw[i] = FMA(dy[i], (x[i] - mean) * inverse, job->dw[i]);
        if (job->db)
            for (int64_t i = i0; i < i1; i++)
                job->db[i] += dy[i];
    }
}
