/* attend_back - attention's gradient: one source for AVX2 and AVX-512 (docs/numerics.md section 8)
 *
 * A batch of queries walks the pages twice: forward for the maximum, the sum and the output of each query, then again
 * for the probabilities and their gradients, which are woven into dq (keys ascending), dk and dv (queries ascending).
 */
#include "kernels/simd/attend_steps.h"

/* One page of rows as both products want them: panels of 16 keys, and rows padded to `stride`. */
struct page_rows {
    float k_panel[KV_BLOCK * ATTEND_D_MAX], v_panel[KV_BLOCK * ATTEND_D_MAX];
    float k[KV_BLOCK * ATTEND_D_MAX], v[KV_BLOCK * ATTEND_D_MAX];
    float dk[KV_BLOCK * ATTEND_D_MAX], dv[KV_BLOCK * ATTEND_D_MAX];
};
struct back {
    struct batch b;
    struct page_rows page;
    const float *dout_at[BATCH];
    float inverse[BATCH], mean[BATCH];
    float q[BATCH * ATTEND_D_MAX], dout[BATCH * ATTEND_D_MAX], dq[BATCH * ATTEND_D_MAX];
    float dp[BATCH * KV_BLOCK]; /* becomes ds */
};
/* Where one KV head's rows of a sequence lie. */
struct head_rows {
    const float *k, *v;
    float *dk, *dv;
    int64_t stride; /* from row to row */
    int n_row;
};

INLINE void copy_row(float *out, const float *in, int d, int stride)
{
    for (int i = 0; i < stride; i += 16)
        v16_store(out + i, i < d ? load_until(in, i, d) : v16_zero());
}

/* Rows become panels; absent rows of the last panel are zero, and never looked at. */
static void fill_panels(float *panel, const float *rows, int d, int stride, int n)
{
    for (int t = 0; t < KV_BLOCK; t++)
        for (int i = 0; i < d; i++)
            panel[kv_key_index(d, t, i)] = t < n ? rows[t * stride + i] : 0;
}

static void read_page(struct page_rows *p, const struct head_rows *rows, int key, int d, int stride)
{
    int n = smaller(KV_BLOCK, rows->n_row - key);
    for (int t = 0; t < n; t++) {
        copy_row(p->k + t * stride, rows->k + (key + t) * rows->stride, d, stride);
        copy_row(p->v + t * stride, rows->v + (key + t) * rows->stride, d, stride);
    }
    fill_panels(p->k_panel, p->k, d, stride, n);
}

static void forward(struct back *x, const struct head_rows *rows)
{
    struct batch *b = &x->b;
    int first = b->first[0], last = b->pos[b->n - 1];
    batch_begin(b);
    for (int segment = first / KV_SEGMENT; segment <= last / KV_SEGMENT; segment++) {
        int end = smaller((segment + 1) * KV_SEGMENT, last + 1);
        for (int key = larger(segment * KV_SEGMENT, first / KV_BLOCK * KV_BLOCK); key < end; key += KV_BLOCK) {
            read_page(&x->page, rows, key, b->d, b->stride);
            batch_page(b, KV_F32, plain(x->page.k_panel), plain(x->page.v), key, nothing_ahead);
        }
        batch_merge(b);
    }
    for (int u = 0; u < b->n; u++) {
        vf sum = v16_zero();
        for (int i = 0; i < b->d; i += 16) {
            vf out = vf_div(v16_load(b->all + u * b->stride + i), vf_set(b->all_sum[u]));
            sum = keep_until(i, b->d, vf_fma(v16_load(x->dout + u * b->stride + i), out, sum), sum);
        }
        x->mean[u] = v16_sum(sum);
        x->inverse[u] = 1 / b->all_sum[u];
    }
}

/* Query u's scores become probabilities, and dp becomes ds. */
INLINE void slope_query(struct back *x, int u, int t0, int t1)
{
    const struct attend_attr *attr = x->b.attr;
    float *score = x->b.score + u * KV_BLOCK, *dp = x->dp + u * KV_BLOCK;
    for (int p = t0 / 16; p * 16 < t1; p++) {
        vf s = scaled_score(score, p, attr);
        vf e = vf_mul(vf_exp(vf_sub(s, vf_set(x->b.all_max[u]))), vf_set(x->inverse[u]));
        vf ds = vf_mul(e, vf_sub(v16_load(dp + 16 * p), vf_set(x->mean[u])));
        if (attr->soft_cap > 0) {
            vf part = vf_div(s, vf_set(attr->soft_cap));
            ds = vf_mul(ds, vf_fma(vf_negate(part), part, vf_set(1)));
        }
        v16_store(score + 16 * p, e);
        v16_store(dp + 16 * p, vf_mul(ds, vf_set(attr->scale)));
    }
}

/* The queries that see key t: positions rise with u, so they are neighbours. */
INLINE void seen_by(const struct batch *b, int key, int *u0, int *u1)
{
    int from = 0, to = b->n;
    while (from < to && b->pos[from] < key)
        from++;
    while (to > from && b->first[to - 1] > key)
        to--;
    *u0 = from;
    *u1 = to;
}

static void weave_keys(struct back *x, int key, int t0, int t1)
{
    const struct batch *b = &x->b;
    for (int t = t0, n; t < t1; t += n) {
        int u0, u1, v0, v1;
        seen_by(b, key + t, &u0, &u1);
        for (n = 1; n < WEAVE_ROWS && t + n < t1; n++) {
            seen_by(b, key + t + n, &v0, &v1);
            if (v0 != u0 || v1 != u1)
                break;
        }
        struct weave dk = {
            x->page.dk + t * b->stride, NULL, plain(x->q), x->dp + t, 1, KV_BLOCK, b->stride, nothing_ahead};
        struct weave dv = {
            x->page.dv + t * b->stride, NULL, plain(x->dout), b->score + t, 1, KV_BLOCK, b->stride, nothing_ahead};
        weave(n, KV_F32, &dk, u0, u1);
        weave(n, KV_F32, &dv, u0, u1);
    }
}

static void backward_page(struct back *x, const struct head_rows *rows, int key)
{
    struct batch *b = &x->b;
    struct page_rows *p = &x->page;
    int t0 = range_first(b, 0, key), t1 = range_end(b, b->n - 1, key);
    read_page(p, rows, key, b->d, b->stride);
    fill_panels(p->v_panel, p->v, b->d, b->stride, smaller(KV_BLOCK, rows->n_row - key));
    for (int t = t0; t < t1; t++) {
        copy_row(p->dk + t * b->stride, rows->dk + (key + t) * rows->stride, b->d, b->stride);
        copy_row(p->dv + t * b->stride, rows->dv + (key + t) * rows->stride, b->d, b->stride);
    }
    struct ahead ahead = nothing_ahead;
    dot_page(KV_F32, b->score, plain(p->k_panel), b->q, b->n, b->d, t0, t1, &ahead);
    dot_page(KV_F32, x->dp, plain(p->v_panel), x->dout_at, b->n, b->d, t0, t1, &ahead);
    for (int u = 0; u < b->n; u++) {
        int from = range_first(b, u, key), to = range_end(b, u, key);
        if (from >= to)
            continue;
        slope_query(x, u, from, to);
        struct weave dq = {x->dq + u * b->stride, NULL, plain(p->k), x->dp + u * KV_BLOCK, KV_BLOCK, 1, b->stride,
                           nothing_ahead};
        weave(1, KV_F32, &dq, from, to);
    }
    weave_keys(x, key, t0, t1);
    for (int t = t0; t < t1; t++)
        for (int i = 0; i < b->d; i += 16) {
            store_until(rows->dk + (key + t) * rows->stride, i, b->d, v16_load(p->dk + t * b->stride + i));
            store_until(rows->dv + (key + t) * rows->stride, i, b->d, v16_load(p->dv + t * b->stride + i));
        }
}

void ISA(attend_back)(const struct attend_back_job *job, const struct attend_span *span, int kv_head)
{
    int d = job->l->d_head, n_head = job->attr->n_head, n_kv = job->l->n_kv_head, group = n_head / n_kv;
    int64_t at_kv = ((int64_t)span->row0 * n_kv + kv_head) * d;
    struct head_rows rows = {job->k + at_kv,  job->v + at_kv,    job->dk + at_kv,
                             job->dv + at_kv, (int64_t)n_kv * d, span->n_row};
    struct back x; /* not initialised as a whole: it is large */
    struct batch *b = &x.b;
    b->d = d;
    b->stride = kv_value_stride(d);
    b->attr = job->attr;
    for (int row = 0; row < span->n_row; row++) {
        memset(rows.dk + row * rows.stride, 0, (size_t)d * sizeof(float));
        memset(rows.dv + row * rows.stride, 0, (size_t)d * sizeof(float));
    }
    for (int u0 = 0, count = span->n_row * group; u0 < count; u0 += BATCH) {
        int64_t at[BATCH];
        b->n = smaller(BATCH, count - u0);
        for (int u = 0; u < b->n; u++) {
            int row = (u0 + u) / group;
            at[u] = ((int64_t)(span->row0 + row) * n_head + kv_head * group + (u0 + u) % group) * d;
            copy_row(x.q + u * b->stride, job->q + at[u], d, b->stride);
            copy_row(x.dout + u * b->stride, job->dout + at[u], d, b->stride);
            b->q[u] = x.q + u * b->stride;
            x.dout_at[u] = x.dout + u * b->stride;
            b->pos[u] = row;
            b->first[u] = attend_first_key(job->attr, row);
        }
        memset(x.dq, 0, (size_t)(b->n * b->stride) * sizeof(float));
        forward(&x, &rows);
        for (int key = b->first[0] / KV_BLOCK * KV_BLOCK; key <= b->pos[b->n - 1]; key += KV_BLOCK)
            backward_page(&x, &rows, key);
        for (int u = 0; u < b->n; u++)
            for (int i = 0; i < d; i += 16)
                store_until(job->dq + at[u], i, d, v16_load(x.dq + u * b->stride + i));
    }
}
