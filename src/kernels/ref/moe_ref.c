/* moe_ref - routing of a mixture of experts: small rows, one scalar definition for all (docs/numerics.md section 5) */
#include "kernels/ref/lanes_ref.h"

struct route_job {
    int32_t *experts;
    real *weights, *probs;
    const real *logits, *dweights;
    real *dlogits;
    const int32_t *chosen;
    const struct moe_attr *attr;
};

static void softmax_row(real *p, const real *x, int n)
{
    real max = -INFINITY, lane[LANES] = {0};
    for (int i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++) {
        p[i] = real_exp(x[i] - max);
        lane[i % LANES] += p[i];
    }
    real sum = lanes_sum(lane);
    for (int i = 0; i < n; i++)
        p[i] = p[i] / sum;
}

/* Does expert a come before b: larger probability, then lower id; NaN last. */
static bool is_before(const real *p, int a, int b)
{
    if (p[a] != p[a] || p[b] != p[b])
        return (p[a] == p[a]) != (p[b] == p[b]) ? p[a] == p[a] : a < b;
    return p[a] > p[b] || (p[a] == p[b] && a < b);
}

/* Expert e is used when fewer than n_used come before it; walking e upward gives ascending ids. */
static void route_rows(const void *ctx, int64_t row0, int64_t row1)
{
    const struct route_job *job = ctx;
    int n = job->attr->n_expert, used = job->attr->n_used;
    for (int64_t r = row0; r < row1; r++) {
        real *p = job->probs + r * n, *w = job->weights + r * used, sum = 0;
        int32_t *experts = job->experts + r * used;
        int count = 0;
        softmax_row(p, job->logits + r * n, n);
        for (int e = 0; e < n && count < used; e++) {
            int before = 0;
            for (int o = 0; o < n && before < used; o++)
                before += o != e && is_before(p, o, e);
            if (before < used) {
                experts[count] = e;
                sum += p[e];
                w[count++] = p[e];
            }
        }
        for (int i = 0; i < used; i++)
            w[i] = (job->attr->normalize ? w[i] / sum : w[i]) * job->attr->scale;
    }
}

void moe_route(int32_t *experts, real *weights, real *probs, const real *logits, const struct moe_attr *attr,
               int64_t n_row, struct pool *pool)
{
    assert(attr->n_used > 0 && attr->n_used <= attr->n_expert);
    struct route_job job = {.experts = experts, .weights = weights, .probs = probs, .logits = logits, .attr = attr};
    range_run(pool, route_rows, &job, n_row, 16);
}

/* dp of the used ones, through the normalization when there is one; then the softmax's gradient p (dp - sum p dp). */
static void route_back_rows(const void *ctx, int64_t row0, int64_t row1)
{
    const struct route_job *job = ctx;
    int n = job->attr->n_expert, used = job->attr->n_used;
    for (int64_t r = row0; r < row1; r++) {
        const real *p = job->probs + r * n, *dw = job->dweights + r * used;
        const int32_t *chosen = job->chosen + r * used;
        real *dx = job->dlogits + r * n, sum = 0, dot = 0, mean = 0;
        for (int i = 0; i < used; i++) {
            sum += p[chosen[i]];
            dot = FMA(p[chosen[i]], dw[i] * job->attr->scale, dot);
        }
        for (int e = 0; e < n; e++)
            dx[e] = 0;
        for (int i = 0; i < used; i++) {
            real d = dw[i] * job->attr->scale;
            dx[chosen[i]] = job->attr->normalize ? (d - dot / sum) / sum : d;
        }
        for (int i = 0; i < used; i++)
            mean = FMA(p[chosen[i]], dx[chosen[i]], mean);
        for (int e = 0; e < n; e++)
            dx[e] = p[e] * (dx[e] - mean);
    }
}

void moe_route_backward(real *dlogits, const real *dweights, const int32_t *experts, const real *probs,
                        const struct moe_attr *attr, int64_t n_row, struct pool *pool)
{
    struct route_job job = {
        .dlogits = dlogits, .dweights = dweights, .chosen = experts, .probs = (real *)probs, .attr = attr};
    range_run(pool, route_back_rows, &job, n_row, 16);
}
