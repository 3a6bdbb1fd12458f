/* attend_ref - the steps of attention that forward and backward share in the reference (docs/numerics.md section 3) */
#ifndef KERNELS_REF_ATTEND_REF_H
#define KERNELS_REF_ATTEND_REF_H

#include "kernels/ref/lanes_ref.h"

static inline real dot_lanes(const real *a, const real *b, int n)
{
    real lane[LANES] = {0};
    for (int i = 0; i < n; i++)
        lane[i % LANES] = FMA(a[i], b[i], lane[i % LANES]);
    return lanes_sum(lane);
}

static inline real score_of(const real *q, const real *k, int d, const struct attend_attr *attr)
{
    real s = dot_lanes(q, k, d) * attr->scale;
    return attr->soft_cap > 0 ? attr->soft_cap * real_tanh(s / attr->soft_cap) : s;
}

/* What one query knows of the keys seen so far: max score, sum of e^(s - max), sum of e^(s - max) v. */
struct softmax {
    bool empty;
    real max, sum, acc[ATTEND_D_MAX];
};

/* Keys t0 .. t1-1 of one page; k, v point at key 0 of the page, `stride` reals from key to key. */
static inline void softmax_page(struct softmax *x, const real *q, const real *k, const real *v, int64_t stride, int t0,
                                int t1, int d, const struct attend_attr *attr)
{
    real score[KV_BLOCK], lane[LANES] = {0};
    real max = x->empty ? -INFINITY : x->max;
    for (int t = t0; t < t1; t++) {
        score[t] = score_of(q, k + t * stride, d, attr);
        max = score[t] > max ? score[t] : max;
    }
    real keep = x->empty ? 0 : real_exp(x->max - max);
    for (int t = t0; t < t1; t++) {
        score[t] = real_exp(score[t] - max);
        lane[t % LANES] += score[t];
    }
    real sum = lanes_sum(lane);
    x->sum = x->empty ? sum : FMA(x->sum, keep, sum);
    for (int i = 0; i < d; i++) {
        real acc = x->empty ? 0 : x->acc[i] * keep;
        for (int t = t0; t < t1; t++)
            acc = FMA(score[t], v[t * stride + i], acc);
        x->acc[i] = acc;
    }
    x->max = max;
    x->empty = false;
}

/* Segment b behind all before it. */
static inline void softmax_merge(struct softmax *a, const struct softmax *b, int d)
{
    if (a->empty) {
        *a = *b;
        return;
    }
    real max = a->max > b->max ? a->max : b->max;
    real keep_a = real_exp(a->max - max), keep_b = real_exp(b->max - max);
    a->sum = FMA(b->sum, keep_b, a->sum * keep_a);
    for (int i = 0; i < d; i++)
        a->acc[i] = FMA(b->acc[i], keep_b, a->acc[i] * keep_a);
    a->max = max;
}

#endif
