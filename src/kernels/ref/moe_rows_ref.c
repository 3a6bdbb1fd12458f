/* moe_rows_ref - rows to their experts and back, and the gate of a shared expert: one scalar definition for all sets
 *
 * Numbers  a token's experts are added ascending by fused multiply-adds, the first by a plain product
 */
#include "kernels/ref/lanes_ref.h"

struct rows_job {
    real *out, *out2;
    const real *x, *dy, *weights;
    const int32_t *index;
    int n_used;
    int64_t n;
};

static int64_t rows_per_item(int64_t n)
{
    enum { ITEM_ELEMENTS = 16384 };
    return ITEM_ELEMENTS / (n + 1) + 1;
}

static void gather(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rows_job *job = ctx;
    for (int64_t r = row0; r < row1; r++)
        memcpy(job->out + r * job->n, job->x + job->index[r] * job->n, (size_t)job->n * sizeof(real));
}

static void scatter(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rows_job *job = ctx;
    for (int64_t r = row0; r < row1; r++)
        memcpy(job->out + job->index[r] * job->n, job->x + r * job->n, (size_t)job->n * sizeof(real));
}

void rows_gather(real *out, const real *x, const int32_t *index, int64_t n_row, int64_t n, struct pool *pool)
{
    struct rows_job job = {.out = out, .x = x, .index = index, .n = n};
    range_run(pool, gather, &job, n_row, rows_per_item(n));
}

void rows_scatter(real *out, const real *x, const int32_t *index, int64_t n_row, int64_t n, struct pool *pool)
{
    struct rows_job job = {.out = out, .x = x, .index = index, .n = n};
    range_run(pool, scatter, &job, n_row, rows_per_item(n));
}

static void combine(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rows_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        real *out = job->out + r * job->n;
        for (int j = 0; j < job->n_used; j++) {
            const real *x = job->x + job->index[r * job->n_used + j] * job->n;
            real w = job->weights ? job->weights[r * job->n_used + j] : 1;
            for (int64_t i = 0; i < job->n; i++)
                out[i] = j ? FMA(w, x[i], out[i]) : w * x[i];
        }
    }
}

void moe_combine(real *out, const real *x, const real *weights, const int32_t *place, int n_used, int64_t n_row,
                 int64_t n, struct pool *pool)
{
    struct rows_job job = {.out = out, .x = x, .weights = weights, .index = place, .n_used = n_used, .n = n};
    range_run(pool, combine, &job, n_row, rows_per_item(n * n_used));
}

static real dot(const real *a, const real *b, int64_t n)
{
    real lane[LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % LANES] = FMA(a[i], b[i], lane[i % LANES]);
    return lanes_sum(lane);
}

static void combine_back(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rows_job *job = ctx;
    for (int64_t i = row0 * job->n_used; i < row1 * job->n_used; i++) {
        const real *dy = job->dy + i / job->n_used * job->n;
        real *dx = job->out + job->index[i] * job->n, w = job->weights[i];
        for (int64_t k = 0; k < job->n; k++)
            dx[k] = w * dy[k];
        job->out2[i] = dot(dy, job->x + job->index[i] * job->n, job->n);
    }
}

void moe_combine_backward(real *dx, real *dweights, const real *dy, const real *x, const real *weights,
                          const int32_t *place, int n_used, int64_t n_row, int64_t n, struct pool *pool)
{
    struct rows_job job = {
        .out = dx, .out2 = dweights, .dy = dy, .x = x, .weights = weights, .index = place, .n_used = n_used, .n = n};
    range_run(pool, combine_back, &job, n_row, rows_per_item(n * n_used));
}

static real sigmoid(real x)
{
    return 1 / (1 + real_exp(-x));
}

static void gate_rows(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rows_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        real s = sigmoid(job->weights[r]);
        for (int64_t i = 0; i < job->n; i++)
            job->out[r * job->n + i] = job->x[r * job->n + i] * s;
    }
}

void gate_forward(real *out, const real *x, const real *gate, int64_t n_row, int64_t n, struct pool *pool)
{
    struct rows_job job = {.out = out, .x = x, .weights = gate, .n = n};
    range_run(pool, gate_rows, &job, n_row, rows_per_item(n));
}

static void gate_back(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rows_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        real s = sigmoid(job->weights[r]);
        const real *dy = job->dy + r * job->n;
        job->out2[r] = dot(dy, job->x + r * job->n, job->n) * s * (1 - s);
        for (int64_t i = 0; i < job->n; i++)
            job->out[r * job->n + i] = dy[i] * s;
    }
}

void gate_backward(real *dx, real *dgate, const real *dy, const real *x, const real *gate, int64_t n_row, int64_t n,
                   struct pool *pool)
{
    struct rows_job job = {.out = dx, .out2 = dgate, .dy = dy, .x = x, .weights = gate, .n = n};
    range_run(pool, gate_back, &job, n_row, rows_per_item(n));
}
