/* attend_ref - the definition of the KV page's rounding and of attention's bits (docs/numerics.md section 3) */
#include "kernels/ref/attend_ref.h"

/* ---- writing pages ---- */

/* One key or value of an int8 page: blocks of 32 dimensions, as activations are quantized (section 1). */
static void store_int8(int8_t *q, float *scale, const real *x, int d)
{
    for (int b = 0; b * KV_INT8_BLOCK < d; b++) {
        int i0 = b * KV_INT8_BLOCK, i1 = i0 + KV_INT8_BLOCK < d ? i0 + KV_INT8_BLOCK : d;
        float amax = 0, sum = 0;
        for (int i = i0; i < i1; i++) {
            amax = fabsf((float)x[i]) > amax ? fabsf((float)x[i]) : amax;
            sum += (float)x[i] - (float)x[i]; /* NaN when any is NaN or Inf */
        }
        bool zero = sum != 0 || amax < ACT_AMAX_MIN; /* sum is 0 or NaN */
        float inverse = zero ? 0 : 127.0f / amax;
        scale[b * KV_BLOCK] = sum != 0 ? NAN : zero ? 0 : amax / 127.0f;
        for (int i = i0; i < i1; i++)
            q[i] = zero ? 0 : (int8_t)rintf((float)x[i] * inverse);
    }
}

static void store_key(const struct kv_head *h, const struct kv_layout *l, int t, const real *k)
{
    int d = l->d_head;
    int8_t q[ATTEND_D_MAX];
    if (l->type == KV_INT8)
        store_int8(q, h->k_scale + t, k, d);
    for (int i = 0; i < d; i++) {
        size_t at = kv_key_index(d, t, i);
        if (l->type == KV_INT8)
            ((int8_t *)h->k)[at] = q[i];
        else if (l->type == KV_F32)
            ((real *)h->k)[at] = k[i];
        else
            ((uint16_t *)h->k)[at] = f32_to_f16((float)k[i]);
    }
}

static void store_value(const struct kv_head *h, const struct kv_layout *l, int t, const real *v)
{
    int d = l->d_head;
    size_t at = (size_t)t * (size_t)kv_value_stride(d);
    if (l->type == KV_INT8) {
        store_int8((int8_t *)h->v + at, h->v_scale + t, v, d);
        return;
    }
    for (int i = 0; i < d; i++, at++) {
        if (l->type == KV_F32)
            ((real *)h->v)[at] = v[i];
        else
            ((uint16_t *)h->v)[at] = f32_to_f16((float)v[i]);
    }
}

void kv_store__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct kv_job *job = ctx;
    const struct kv_layout *l = job->l;
    for (int64_t row = row0; row < row1; row++) {
        int at = span_find(job->spans, job->n_span, row);
        if (at == job->n_span || row < job->spans[at].row0)
            continue;
        const struct attend_span *span = &job->spans[at];
        int pos = span->pos0 + (int)(row - span->row0);
        for (int head = 0; head < l->n_kv_head; head++) {
            struct kv_head h = kv_head_at(job->layer, l, span->blocks[pos / KV_BLOCK], head);
            int64_t in = (row * l->n_kv_head + head) * l->d_head;
            store_key(&h, l, pos % KV_BLOCK, job->k + in);
            store_value(&h, l, pos % KV_BLOCK, job->v + in);
        }
    }
}

/* ---- reading pages ---- */
struct page_rows {
    real k[KV_BLOCK * ATTEND_D_MAX], v[KV_BLOCK * ATTEND_D_MAX];
};

static real widen(const void *data, size_t at, const struct kv_layout *l, float scale)
{
    switch (l->type) {
    case KV_F32:
        return ((const real *)data)[at];
    case KV_F16:
        return f16_to_f32(((const uint16_t *)data)[at]);
    case KV_INT8:
        return (float)((const int8_t *)data)[at] * scale;
    }
    return 0;
}

static void page_read(struct page_rows *rows, const struct kv_head *h, const struct kv_layout *l, int t0, int t1)
{
    int d = l->d_head;
    for (int t = t0; t < t1; t++)
        for (int i = 0; i < d; i++) {
            int s = i / KV_INT8_BLOCK * KV_BLOCK + t;
            bool scaled = l->type == KV_INT8;
            rows->k[t * d + i] = widen(h->k, kv_key_index(d, t, i), l, scaled ? h->k_scale[s] : 0);
            rows->v[t * d + i] =
                widen(h->v, (size_t)t * (size_t)kv_value_stride(d) + (size_t)i, l, scaled ? h->v_scale[s] : 0);
        }
}

/* ---- attention of one query: pos is the last key it sees ---- */
static void attend_segment(struct softmax *part, const real *q, const struct attend_job *job,
                           const struct attend_span *span, int kv_head, int pos, int segment)
{
    int d = job->l->d_head, first = attend_first_key(job->attr, pos);
    struct page_rows rows;
    *part = (struct softmax){.empty = true};
    for (int key = segment * KV_SEGMENT; key < (segment + 1) * KV_SEGMENT; key += KV_BLOCK) {
        int t0 = first > key ? first - key : 0, t1 = pos + 1 - key < KV_BLOCK ? pos + 1 - key : KV_BLOCK;
        if (t0 >= t1)
            continue;
        struct kv_head h = kv_head_at(job->layer, job->l, span->blocks[key / KV_BLOCK], kv_head);
        page_read(&rows, &h, job->l, t0, t1);
        softmax_page(part, q, rows.k, rows.v, d, t0, t1, d, job->attr);
    }
}

static void attend_query(real *out, const real *q, const struct attend_job *job, const struct attend_span *span,
                         int kv_head, int pos)
{
    int d = job->l->d_head, first = attend_first_key(job->attr, pos);
    struct softmax all = {.empty = true}, part;
    for (int segment = first / KV_SEGMENT; segment <= pos / KV_SEGMENT; segment++) {
        attend_segment(&part, q, job, span, kv_head, pos, segment);
        softmax_merge(&all, &part, d);
    }
    for (int i = 0; i < d; i++)
        out[i] = all.acc[i] / all.sum;
}

void attend__ref(const struct attend_job *job, const struct attend_span *span, int row0, int row1, int kv_head)
{
    int n_head = job->attr->n_head, group = n_head / job->l->n_kv_head;
    for (int row = row0; row < row1; row++)
        for (int g = 0; g < group; g++) {
            int64_t at = ((int64_t)(span->row0 + row) * n_head + kv_head * group + g) * job->l->d_head;
            attend_query(job->out + at, job->q + at, job, span, kv_head, attend_last_key(job->attr, span, row));
        }
}

void attend_part__ref(const struct attend_parts *p, const struct attend_span *span, int row, int kv_head, int segment)
{
    int d = p->job.l->d_head, n_head = p->job.attr->n_head, group = n_head / p->job.l->n_kv_head;
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        struct softmax part;
        int64_t at = (int64_t)(span->row0 + row) * n_head + head;
        attend_segment(&part, p->job.q + at * d, &p->job, span, kv_head, attend_last_key(p->job.attr, span, row),
                       segment);
        real *out = attend_part_at(p, span->row0 + row, head, segment);
        out[0] = part.empty ? 0 : part.max;
        out[1] = part.empty ? 0 : part.sum;
        for (int i = 0; i < d && !part.empty; i++)
            out[2 + i] = part.acc[i];
    }
}

void attend_merge__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct attend_merge_job *job = ctx;
    int d = job->p.job.l->d_head, n_head = job->p.job.attr->n_head;
    for (int64_t i = i0; i < i1; i++) {
        int pos = job->positions[i / n_head];
        struct softmax all = {.empty = true}, part;
        for (int s = attend_first_key(job->p.job.attr, pos) / KV_SEGMENT; s <= pos / KV_SEGMENT; s++) {
            const real *in = attend_part_at(&job->p, i / n_head, (int)(i % n_head), s);
            part = (struct softmax){.max = in[0], .sum = in[1]};
            memcpy(part.acc, in + 2, (size_t)d * sizeof *in);
            softmax_merge(&all, &part, d);
        }
        for (int k = 0; k < d; k++)
            job->p.job.out[i * d + k] = all.acc[k] / all.sum;
    }
}
