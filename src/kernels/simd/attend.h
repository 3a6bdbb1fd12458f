/* attend - paged attention and the writing of pages: one source for AVX2 and AVX-512 (docs/numerics.md section 3) */
#include "kernels/simd/attend_steps.h"

/* ---- writing pages ---- */
/* A key's column of its panel: 16 elements apart, in kv_key_index's order. */
INLINE void store_key(const struct kv_head *h, enum kv_type type, int d, int t, const float *k)
{
    for (int i = 0; i < d; i += 16) {
        uint16_t half[16];
        if (type == KV_F16)
            v16_store_half(half, load_until(k, i, d));
        UNROLL for (int j = 0; j < 16; j++)
        {
            size_t at = kv_key_index(d, t, i + j);
            if (i + j < d && type == KV_F16)
                ((uint16_t *)h->k)[at] = half[j];
            else if (i + j < d)
                ((float *)h->k)[at] = k[i + j];
        }
    }
}
INLINE void store_value(const struct kv_head *h, enum kv_type type, int d, int t, const float *v)
{
    size_t at = (size_t)t * (size_t)kv_value_stride(d);
    if (type == KV_F32) {
        memcpy((float *)h->v + at, v, (size_t)d * sizeof *v);
        return;
    }
    for (int i = 0; i < d; i += 16) {
        uint16_t half[16];
        v16_store_half(half, load_until(v, i, d));
        memcpy((uint16_t *)h->v + at + i, half, (size_t)smaller(16, d - i) * sizeof *half);
    }
}

void ISA(kv_store)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct kv_job *job = ctx;
    const struct kv_layout *l = job->l;
    if (l->type == KV_INT8) {
        kv_store__ref(ctx, row0, row1);
        return;
    }
    for (int64_t row = row0; row < row1; row++) {
        int i = span_find(job->spans, job->n_span, row);
        if (i == job->n_span || row < job->spans[i].row0)
            continue;
        const struct attend_span *span = &job->spans[i];
        int pos = span->pos0 + (int)(row - span->row0);
        for (int head = 0; head < l->n_kv_head; head++) {
            struct kv_head h = kv_head_at(job->layer, l, span->blocks[pos / KV_BLOCK], head);
            int64_t in = (row * l->n_kv_head + head) * l->d_head;
            store_key(&h, l->type, l->d_head, pos % KV_BLOCK, job->k + in);
            store_value(&h, l->type, l->d_head, pos % KV_BLOCK, job->v + in);
        }
    }
}

/* ---- widening pages, when enough queries share the work ---- */
struct wide {
    float k[KV_BLOCK * ATTEND_D_MAX], v[KV_BLOCK * ATTEND_D_MAX];
};

/* Keys t0 .. t1-1, whole panels of keys. */
INLINE void widen(struct wide *w, enum kv_type type, struct kv_rows k, struct kv_rows v, int d, int t0, int t1)
{
    int stride = kv_value_stride(d);
    for (int p = t0 / 16; p * 16 < t1; p++) {
        struct kv_rows panel = {NULL, type == KV_INT8 ? k.scale + p * 16 : NULL};
        for (int i = 0; i < d; i++) {
            size_t at = kv_key_index(d, p * 16, i);
            v16_store(w->k + at, kv_load(type, k.at, at, panel_scale(type, panel, i)));
        }
    }
    for (int t = t0; t < t1; t++)
        for (int i = 0; i < stride; i += 16) {
            size_t at = (size_t)(t * stride + i);
            v16_store(w->v + at, kv_load(type, v.at, at, value_scale(type, v, t, i)));
        }
}

/* ---- attention ---- */

/* Pages are read as they are by up to this many queries, widened into `wide` for more. */
enum { DIRECT_QUERIES = 8 };

INLINE void page_of(struct batch *b, struct wide *wide, const struct kv_head *h, enum kv_type type, int key,
                    struct ahead ahead)
{
    struct kv_rows k = {h->k, h->k_scale}, v = {h->v, h->v_scale};
    if (type == KV_F32 || b->n <= DIRECT_QUERIES) {
        batch_page(b, type, k, v, key, ahead);
        return;
    }
    widen(wide, type, k, v, b->d, range_first(b, 0, key), range_end(b, b->n - 1, key));
    batch_page(b, KV_F32, plain(wide->k), plain(wide->v), key, ahead);
}

static void page(struct batch *b, struct wide *wide, const struct kv_head *h, enum kv_type type, int key,
                 struct ahead ahead)
{
    switch (type) {
    case KV_F32:
        page_of(b, wide, h, KV_F32, key, ahead);
        break;
    case KV_F16:
        page_of(b, wide, h, KV_F16, key, ahead);
        break;
    case KV_INT8:
        page_of(b, wide, h, KV_INT8, key, ahead);
        break;
    }
}

static void attend_segment(struct batch *b, struct wide *wide, const struct attend_job *job,
                           const struct attend_span *span, int kv_head, int segment)
{
    int first = b->first[0], last = b->pos[b->n - 1], end = smaller((segment + 1) * KV_SEGMENT, last + 1);
    for (int key = larger(segment * KV_SEGMENT, first / KV_BLOCK * KV_BLOCK); key < end; key += KV_BLOCK) {
        struct kv_head h = kv_head_at(job->layer, job->l, span->blocks[key / KV_BLOCK], kv_head);
        struct ahead ahead = nothing_ahead;
        if (key + KV_BLOCK <= last) { /* half of the next page with the keys, half with the values of this one */
            int lines = (int)(kv_head_bytes(job->l) / 64);
            ahead = (struct ahead){kv_head_at(job->layer, job->l, span->blocks[key / KV_BLOCK + 1], kv_head).k,
                                   lines / (2 * 4 * KV_PANELS), lines / (2 * KV_BLOCK)};
        }
        page(b, wide, &h, job->l->type, key, ahead);
    }
}

/* Queries u0 .. of those that rows row0 .. have under one KV head; at[] is where each stands in q and out. */
static void take_queries(struct batch *b, int64_t at[BATCH], const struct attend_job *job,
                         const struct attend_span *span, int row0, int kv_head, int u0)
{
    int d = job->l->d_head, n_head = job->attr->n_head, group = n_head / job->l->n_kv_head;
    b->d = d;
    b->stride = kv_value_stride(d);
    b->attr = job->attr;
    for (int u = 0; u < b->n; u++) {
        int row = row0 + (u0 + u) / group;
        at[u] = ((int64_t)(span->row0 + row) * n_head + kv_head * group + (u0 + u) % group) * d;
        b->q[u] = job->q + at[u];
        b->pos[u] = attend_last_key(job->attr, span, row);
        b->first[u] = attend_first_key(job->attr, b->pos[u]);
    }
    batch_begin(b);
}

static void store_quotient(float *out, const float *acc, float sum, int d)
{
    for (int i = 0; i < d; i += 16)
        store_until(out, i, d, vf_div(v16_load(acc + i), vf_set(sum)));
}

void ISA(attend)(const struct attend_job *job, const struct attend_span *span, int row0, int row1, int kv_head)
{
    struct batch b; /* not initialised as a whole: it is large */
    struct wide wide;
    int count = (row1 - row0) * (job->attr->n_head / job->l->n_kv_head);
    for (int u0 = 0; u0 < count; u0 += BATCH) {
        int64_t at[BATCH];
        b.n = smaller(BATCH, count - u0);
        take_queries(&b, at, job, span, row0, kv_head, u0);
        for (int segment = b.first[0] / KV_SEGMENT; segment <= b.pos[b.n - 1] / KV_SEGMENT; segment++) {
            attend_segment(&b, &wide, job, span, kv_head, segment);
            batch_merge(&b);
        }
        for (int u = 0; u < b.n; u++)
            store_quotient(job->out + at[u], b.all + u * b.stride, b.all_sum[u], b.d);
    }
}

void ISA(attend_part)(const struct attend_parts *p, const struct attend_span *span, int row, int kv_head, int segment)
{
    struct batch b;
    struct wide wide;
    int group = p->job.attr->n_head / p->job.l->n_kv_head;
    for (int u0 = 0; u0 < group; u0 += BATCH) {
        int64_t at[BATCH];
        b.n = smaller(BATCH, group - u0);
        take_queries(&b, at, &p->job, span, row, kv_head, u0);
        attend_segment(&b, &wide, &p->job, span, kv_head, segment);
        for (int u = 0; u < b.n; u++) {
            float *out = attend_part_at(p, span->row0 + row, kv_head * group + u0 + u, segment);
            out[0] = b.part_empty[u] ? 0 : b.part_max[u];
            out[1] = b.part_empty[u] ? 0 : b.part_sum[u];
            if (!b.part_empty[u])
                memcpy(out + 2, b.part + u * b.stride, (size_t)b.stride * sizeof *out);
        }
    }
}

void ISA(attend_merge)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct attend_merge_job *job = ctx;
    int d = job->p.job.l->d_head, n_head = job->p.job.attr->n_head;
    struct batch b;
    b.n = 1;
    b.d = d;
    b.stride = kv_value_stride(d);
    for (int64_t i = i0; i < i1; i++) {
        int pos = job->positions[i / n_head];
        batch_begin(&b);
        for (int s = attend_first_key(job->p.job.attr, pos) / KV_SEGMENT; s <= pos / KV_SEGMENT; s++) {
            const float *in = attend_part_at(&job->p, i / n_head, (int)(i % n_head), s);
            b.part_empty[0] = in[1] == 0;
            b.part_max[0] = in[0];
            b.part_sum[0] = in[1];
            memcpy(b.part, in + 2, (size_t)b.stride * sizeof *in);
            batch_merge(&b);
        }
        store_quotient(job->p.job.out + i * d, b.all, b.all_sum[0], d);
    }
}
