/* attend_back_ref - the definition of the bits of attention's gradient (docs/numerics.md section 8) */
#include "kernels/ref/attend_ref.h"

/* The forward of one query over rows instead of pages: the same pages of 64 and segments of 256. */
static void forward(struct softmax *all, const real *q, const real *k, const real *v, int64_t stride, int d, int first,
                    int pos, const struct attend_attr *attr)
{
    *all = (struct softmax){.empty = true};
    for (int segment = first / KV_SEGMENT; segment <= pos / KV_SEGMENT; segment++) {
        struct softmax part = {.empty = true};
        for (int key = segment * KV_SEGMENT; key < (segment + 1) * KV_SEGMENT; key += KV_BLOCK) {
            int t0 = first > key ? first - key : 0, t1 = pos + 1 - key < KV_BLOCK ? pos + 1 - key : KV_BLOCK;
            if (t0 < t1)
                softmax_page(&part, q, k + key * stride, v + key * stride, stride, t0, t1, d, attr);
        }
        softmax_merge(all, &part, d);
    }
}

/* One query: dq written, dk and dv of the keys it saw added to. */
static void backward_query(real *dq, real *dk, real *dv, const real *dout, const real *q, const real *k, const real *v,
                           int64_t stride, int d, int pos, const struct attend_attr *attr)
{
    struct softmax all;
    real out[ATTEND_D_MAX];
    int first = attend_first_key(attr, pos);
    forward(&all, q, k, v, stride, d, first, pos, attr);
    for (int i = 0; i < d; i++) {
        out[i] = all.acc[i] / all.sum;
        dq[i] = 0;
    }
    real mean = dot_lanes(dout, out, d), inverse = 1 / all.sum;
    for (int64_t key = first; key <= pos; key++) {
        real s = score_of(q, k + key * stride, d, attr);
        real p = real_exp(s - all.max) * inverse;
        real ds = p * (dot_lanes(dout, v + key * stride, d) - mean);
        if (attr->soft_cap > 0)
            ds = ds * FMA(-(s / attr->soft_cap), s / attr->soft_cap, 1);
        ds = ds * attr->scale;
        for (int i = 0; i < d; i++) {
            dq[i] = FMA(ds, k[key * stride + i], dq[i]);
            dk[key * stride + i] = FMA(ds, q[i], dk[key * stride + i]);
            dv[key * stride + i] = FMA(p, dout[i], dv[key * stride + i]);
        }
    }
}

void attend_back__ref(const struct attend_back_job *job, const struct attend_span *span, int kv_head)
{
    int d = job->l->d_head, n_head = job->attr->n_head, group = n_head / job->l->n_kv_head;
    int64_t stride = (int64_t)job->l->n_kv_head * d, at_kv = span->row0 * stride + (int64_t)kv_head * d;
    for (int row = 0; row < span->n_row; row++)
        for (int i = 0; i < d; i++)
            job->dk[at_kv + row * stride + i] = job->dv[at_kv + row * stride + i] = 0;
    for (int row = 0; row < span->n_row; row++)
        for (int g = 0; g < group; g++) {
            int64_t at = ((int64_t)(span->row0 + row) * n_head + kv_head * group + g) * d;
            backward_query(job->dq + at, job->dk + at_kv, job->dv + at_kv, job->dout + at, job->q + at, job->k + at_kv,
                           job->v + at_kv, stride, d, row, job->attr);
        }
}
