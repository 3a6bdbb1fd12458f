/* pooling - the rows of a sequence become one: docs/numerics.md section 2
 *
 * Plain loops: a model does this once, and its products take a thousand times as long.
 */
#include "kernels/ops_private.h"

#include <math.h>
#include <string.h>

struct pooling_job {
    real *out;
    const real *x;
    const struct attend_span *spans;
    int64_t n;
    unsigned ways;
};

static void add_up(real *out, const real *x, int32_t n_row, int64_t n, enum pooling way)
{
    double rows = n_row, weight = way == POOL_MEAN_SQRT ? sqrt(rows) : way == POOL_MEAN ? rows : rows * (rows + 1) / 2;
    real scale = (real)(1 / weight);
    memcpy(out, x, (size_t)n * sizeof *out);
    for (int32_t r = 1; r < n_row; r++) {
        const real *row = x + r * n;
        real w = way == POOL_WEIGHTED ? (real)(r + 1) : 1;
        for (int64_t k = 0; k < n; k++)
            out[k] += w * row[k];
    }
    for (int64_t k = 0; k < n; k++)
        out[k] *= scale;
}

static void largest(real *out, const real *x, int32_t n_row, int64_t n)
{
    memcpy(out, x, (size_t)n * sizeof *out);
    for (int32_t r = 1; r < n_row; r++) {
        const real *row = x + r * n;
        for (int64_t k = 0; k < n; k++)
            out[k] = row[k] > out[k] || row[k] != row[k] ? row[k] : out[k];
    }
}

static void pool_spans(const void *ctx, int64_t i0, int64_t i1)
{
    const struct pooling_job *job = ctx;
    real *out = job->out + i0 * job->n * pooling_count(job->ways);
    for (int64_t i = i0; i < i1; i++) {
        const real *x = job->x + job->spans[i].row0 * job->n;
        int32_t n_row = job->spans[i].n_row;
        for (unsigned left = job->ways; left; left >>= POOL_BITS, out += job->n) {
            enum pooling way = pooling_first(left);
            if (way == POOL_MAX)
                largest(out, x, n_row, job->n);
            else if (way == POOL_FIRST || way == POOL_LAST)
                memcpy(out, x + (way == POOL_LAST ? (n_row - 1) * job->n : 0), (size_t)job->n * sizeof *out);
            else
                add_up(out, x, n_row, job->n, way);
        }
    }
}

void rows_pool(real *out, const real *x, unsigned ways, const struct attend_span *spans, int n_span, int64_t n,
               struct pool *pool)
{
    struct pooling_job job = {out, x, spans, n, ways};
    range_run(pool, pool_spans, &job, n_span, 1);
}
