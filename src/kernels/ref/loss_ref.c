/* loss_ref - the definition of log-sum-exp's, the loss's and the optimizer's bits (docs/numerics.md sections 4 and 8)
 */
#include "kernels/ref/lanes_ref.h"

/* One chunk: its maximum, and the sum of e^(x - max). */
static real chunk_sum(real *max, const real *x, real divisor, int64_t n)
{
    real m = -INFINITY, lane[LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        real v = divisor > 0 ? x[i] / divisor : x[i];
        m = v > m ? v : m;
    }
    for (int64_t i = 0; i < n; i++)
        lane[i % LANES] += real_exp((divisor > 0 ? x[i] / divisor : x[i]) - m);
    *max = m;
    return lanes_sum(lane);
}

static bool all_minus_infinity(const real *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] != -INFINITY)
            return false;
    return true;
}

void lse_rows__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct loss_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        real max = -INFINITY, sum = 0;
        bool empty = true;
        for (int64_t i = 0; i < job->n; i += LSE_CHUNK) {
            const real *x = job->x + r * job->n + i;
            int64_t n = job->n - i < LSE_CHUNK ? job->n - i : LSE_CHUNK;
            if (all_minus_infinity(x, n)) /* masked: adds nothing, and must not become NaN */
                continue;
            real m, l = chunk_sum(&m, x, job->divisor, n), top = max > m ? max : m;
            sum = FMA(l, real_exp(m - top), empty ? 0 : sum * real_exp(max - top));
            max = top;
            empty = false;
        }
        job->lse[r] = max + real_log(sum);
    }
}

void loss_rows__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct loss_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        const real *x = job->x + r * job->n;
        real lse, *dx = job->dx ? job->dx + r * job->n : NULL;
        int32_t target = job->targets[r];
        if (target < 0) {
            job->loss[r] = 0;
            for (int64_t i = 0; dx && i < job->n; i++)
                dx[i] = 0;
            continue;
        }
        struct loss_job row = {.lse = &lse, .x = x, .n = job->n};
        lse_rows__ref(&row, 0, 1);
        job->loss[r] = lse - x[target];
        for (int64_t i = 0; dx && i < job->n; i++) {
            real p = real_exp(x[i] - lse);
            dx[i] = (i == target ? p - 1 : p) * job->scale;
        }
    }
}

void adamw_range__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct adamw_job *job = ctx;
    for (int64_t i = i0; i < i1; i++) {
        real g = job->grad[i] * job->grad_scale;
        real m = FMA(job->keep1, g - job->m[i], job->m[i]);
        real v = FMA(job->keep2 * g, g, job->beta2 * job->v[i]);
        job->m[i] = m;
        job->v[i] = v;
        job->param[i] = FMA(-job->step_size, m / FMA(SQRT(v), job->v_scale, job->eps), job->param[i] * job->decay);
    }
}

void squares_chunks__ref(const void *ctx, int64_t chunk0, int64_t chunk1)
{
    const struct squares_job *job = ctx;
    for (int64_t c = chunk0; c < chunk1; c++) {
        double lane[LANES] = {0};
        int64_t end = (c + 1) * SQUARES_CHUNK < job->count ? (c + 1) * SQUARES_CHUNK : job->count;
        for (int64_t i = c * SQUARES_CHUNK; i < end; i++)
            lane[i % LANES] = fma((double)job->x[i], (double)job->x[i], lane[i % LANES]);
        for (int step = LANES / 2; step > 0; step /= 2)
            for (int j = 0; j < step; j++)
                lane[j] += lane[j + step];
        job->sums[c] = lane[0];
    }
}

int64_t find_above__ref(const float *x, int64_t i0, int64_t n, float limit)
{
    int64_t i = i0;
    while (i < n && !(x[i] > limit))
        i++;
    return i;
}

bool row_maxima__ref(float *maxima, const float *x, int64_t n)
{
    bool finite = true;
    for (int64_t i = 0; i < n; i++) {
        float *m = &maxima[i / ROW_BLOCK];
        *m = i % ROW_BLOCK == 0 || x[i] > *m ? x[i] : *m;
        finite &= fabsf(x[i]) <= ROW_FINITE;
    }
    return finite;
}

int64_t collect_from__ref(struct candidate *out, const float *x, int64_t i0, int64_t i1, float low, float high)
{
    int64_t n = 0;
    for (int64_t i = i0; i < i1; i++)
        if (x[i] >= low && x[i] < high)
            out[n++] = (struct candidate){(int32_t)i, x[i]};
    return n;
}

double mass_between__ref(const float *x, int64_t i0, int64_t i1, const struct row_mass *m)
{
    double sum = 0;
    for (int64_t i = i0; i < i1; i++)
        if (x[i] >= m->low && x[i] < m->high)
            sum += mass_of(real_exp((real)x[i] / m->divisor - m->zero));
    return sum;
}
