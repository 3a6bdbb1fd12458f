/* attend_steps - what attention's forward and backward share: a batch of queries against one page of keys and values
 *
 *   batch_page    scores > softmax of the page > acc = acc keep + sum p v        (docs/numerics.md section 3)
 *   batch_merge   the finished segment joins those before it
 *
 * Keys lie 16 in a vector, [d][16 keys], so a score's 16 partial sums are 16 registers and their tree is plain
 * addition: no sum ever crosses lanes. Values lie with d in the vector. Vectors run over the padding of a row (up to
 * `stride`): what it holds never reaches a lane that is stored.
 */
#include "kernels/x86/lanes_fn.h"

enum {
    BATCH = 32, /* queries that share one reading of a page */
#ifdef __AVX512F__
    DOT_QUERIES = 4,
    WEAVE_ROWS = 4,
    WEAVE_VECTORS = 4,
#else
    DOT_QUERIES = 1,
    WEAVE_ROWS = 2,
    WEAVE_VECTORS = 2,
#endif
};

struct batch {
    int n, d, stride; /* queries; dimensions; the same rounded up to 16: of a row of acc */
    const struct attend_attr *attr;
    const float *q[BATCH];
    int first[BATCH], pos[BATCH]; /* the keys a query sees: first .. pos */
    /* the segment in work, and all segments before it; no key seen yet: empty */
    bool part_empty[BATCH], all_empty[BATCH];
    float part_max[BATCH], part_sum[BATCH], all_max[BATCH], all_sum[BATCH], keep[BATCH];
    float score[BATCH * KV_BLOCK];
    float part[BATCH * ATTEND_D_MAX], all[BATCH * ATTEND_D_MAX];
};

INLINE int larger(int a, int b)
{
    return a > b ? a : b;
}
INLINE int smaller(int a, int b)
{
    return a < b ? a : b;
}
/* The keys t0 .. t1-1 of the page at position `key` that query u sees; none when t0 >= t1. */
INLINE int range_first(const struct batch *b, int u, int key)
{
    return larger(b->first[u] - key, 0);
}
INLINE int range_end(const struct batch *b, int u, int key)
{
    return smaller(b->pos[u] + 1 - key, KV_BLOCK);
}

INLINE vf kv_load(enum kv_type type, const void *p, size_t at)
{
    return type == KV_F16 ? v16_load_half((const uint16_t *)p + at) : v16_load((const float *)p + at);
}

/* ---- scores: n queries with one panel of 16 keys ---- */

/* Partial sums r, r+8, r+4, r+12 of each query's tree, added up as the tree does. */
INLINE void dot_quarter(int n, enum kv_type type, vf out[], const void *panel, const float *const q[], int d, int r)
{
    vf sum[DOT_QUERIES][4];
    UNROLL for (int u = 0; u < n; u++) UNROLL for (int j = 0; j < 4; j++) sum[u][j] = v16_zero();
    int i = r;
    for (; i + 12 < d; i += 16)
        UNROLL for (int j = 0; j < 4; j++)
        {
            int at = i + (j & 1) * 8 + (j >> 1) * 4; /* +0, +8, +4, +12 */
            vf k = kv_load(type, panel, (size_t)at * 16);
            UNROLL for (int u = 0; u < n; u++) sum[u][j] = vf_fma(vf_set(q[u][at]), k, sum[u][j]);
        }
    for (int j = 0; j < 4; j++) {
        int at = i + (j & 1) * 8 + (j >> 1) * 4;
        if (at < d) {
            vf k = kv_load(type, panel, (size_t)at * 16);
            UNROLL for (int u = 0; u < n; u++) sum[u][j] = vf_fma(vf_set(q[u][at]), k, sum[u][j]);
        }
    }
    UNROLL for (int u = 0; u < n; u++) out[u] = vf_add(vf_add(sum[u][0], sum[u][1]), vf_add(sum[u][2], sum[u][3]));
}

INLINE void dot_panel(int n, enum kv_type type, float *score, const void *panel, const float *const q[], int d)
{
    vf s0[DOT_QUERIES], s1[DOT_QUERIES], s2[DOT_QUERIES], s3[DOT_QUERIES];
    dot_quarter(n, type, s0, panel, q, d, 0);
    dot_quarter(n, type, s2, panel, q, d, 2);
    dot_quarter(n, type, s1, panel, q, d, 1);
    dot_quarter(n, type, s3, panel, q, d, 3);
    UNROLL for (int u = 0; u < n; u++)
        v16_store(score + u * KV_BLOCK, vf_add(vf_add(s0[u], s2[u]), vf_add(s1[u], s3[u])));
}

INLINE void dot_queries(int n, enum kv_type type, float *score, const void *k, const float *const q[], int d, int t0,
                        int t1)
{
    for (int p = t0 / 16; p * 16 < t1; p++) {
        const char *panel = (const char *)k + (size_t)p * 16 * (size_t)d * (type == KV_F16 ? 2 : 4);
        dot_panel(n, type, score + 16 * p, panel, q, d);
    }
}

/* score[u][t] for every query and the page's keys t0 .. t1-1 (whole panels of 16 are computed). */
INLINE void dot_page(enum kv_type type, float *score, const void *k, const float *const q[], int n, int d, int t0,
                     int t1)
{
    int u = 0;
#if defined __AVX512F__
    for (; u + 4 <= n; u += 4)
        dot_queries(4, type, score + u * KV_BLOCK, k, q + u, d, t0, t1);
    if (n - u == 3)
        dot_queries(3, type, score + u * KV_BLOCK, k, q + u, d, t0, t1);
    else if (n - u == 2)
        dot_queries(2, type, score + u * KV_BLOCK, k, q + u, d, t0, t1);
    else if (n - u == 1)
        dot_queries(1, type, score + u * KV_BLOCK, k, q + u, d, t0, t1);
#else
    for (; u < n; u++)
        dot_queries(1, type, score + u * KV_BLOCK, k, q + u, d, t0, t1);
#endif
}

/* Panel p's scores, scaled and capped. */
INLINE vf scaled_score(const float *score, int p, const struct attend_attr *attr)
{
    vf s = vf_mul(v16_load(score + 16 * p), vf_set(attr->scale));
    if (attr->soft_cap > 0)
        s = vf_mul(vf_set(attr->soft_cap), vf_tanh(vf_div(s, vf_set(attr->soft_cap))));
    return s;
}
/* Keys outside t0 .. t1-1 become `other`. */
INLINE vf only_keys(vf s, int p, int t0, int t1, vf other)
{
    return vf_pick(vm_first(t0 - 16 * p), other, vf_pick(vm_first(t1 - 16 * p), s, other));
}

/* ---- weave: row a of n: acc[a] = acc[a] keep[a] + sum over b0 .. b1-1, ascending, of w[a wa + b wb] row[b] ---- */
struct weave {
    float *acc;
    const float *keep; /* or NULL: 1 */
    const void *rows;
    const float *w;
    ptrdiff_t wa, wb;
    int stride; /* of acc and rows */
};
INLINE void weave_block(int n, int vectors, enum kv_type type, const struct weave *x, int b0, int b1, int at)
{
    vf sum[WEAVE_ROWS][WEAVE_VECTORS];
    UNROLL for (int a = 0; a < n; a++) UNROLL for (int j = 0; j < vectors; j++)
    {
        sum[a][j] = v16_load(x->acc + a * x->stride + at + 16 * j);
        if (x->keep)
            sum[a][j] = vf_mul(sum[a][j], vf_set(x->keep[a]));
    }
    for (int b = b0; b < b1; b++) {
        vf row[WEAVE_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) row[j] =
            kv_load(type, x->rows, (size_t)b * (size_t)x->stride + (size_t)(at + 16 * j));
        UNROLL for (int a = 0; a < n; a++)
        {
            vf w = vf_set(x->w[a * x->wa + b * x->wb]);
            UNROLL for (int j = 0; j < vectors; j++) sum[a][j] = vf_fma(w, row[j], sum[a][j]);
        }
    }
    UNROLL for (int a = 0; a < n; a++) UNROLL for (int j = 0; j < vectors; j++)
        v16_store(x->acc + a * x->stride + at + 16 * j, sum[a][j]);
}
INLINE void weave_rows(int n, enum kv_type type, const struct weave *x, int b0, int b1)
{
    int at = 0;
    for (; at + 16 * WEAVE_VECTORS <= x->stride; at += 16 * WEAVE_VECTORS)
        weave_block(n, WEAVE_VECTORS, type, x, b0, b1, at);
    for (; at < x->stride; at += 16)
        weave_block(n, 1, type, x, b0, b1, at);
}
/* n: 1 .. WEAVE_ROWS */
INLINE void weave(int n, enum kv_type type, const struct weave *x, int b0, int b1)
{
    if (n == 1)
        weave_rows(1, type, x, b0, b1);
    else if (n == 2)
        weave_rows(2, type, x, b0, b1);
#ifdef __AVX512F__
    else if (n == 3)
        weave_rows(3, type, x, b0, b1);
    else
        weave_rows(4, type, x, b0, b1);
#endif
}

/* ---- one page ---- */

/* Turns query u's scores into e^(s - max), and its running max, sum and keep into those with this page. */
INLINE void softmax_query(struct batch *b, int u, int t0, int t1)
{
    float *score = b->score + u * KV_BLOCK, old = b->part_max[u];
    vf low = vf_set(-INFINITY), top = low, sum = v16_zero();
    for (int p = t0 / 16; p * 16 < t1; p++) {
        vf s = only_keys(scaled_score(score, p, b->attr), p, t0, t1, low);
        v16_store(score + 16 * p, s);
        top = v16_max(s, top);
    }
    float max = v16_max_lane(top);
    if (!b->part_empty[u])
        max = max > old ? max : old;
    for (int p = t0 / 16; p * 16 < t1; p++) {
        vf e = vf_exp(vf_sub(v16_load(score + 16 * p), vf_set(max)));
        v16_store(score + 16 * p, e);
        sum = vf_add(sum, e);
    }
    float page_sum = v16_sum(sum);
    if (b->part_empty[u]) {
        memset(b->part + u * b->stride, 0, (size_t)b->stride * sizeof *b->part);
        b->keep[u] = 1;
        b->part_sum[u] = page_sum;
    } else {
        b->keep[u] = max == old ? 1 : exp_one(old - max); /* e^0 is exactly 1 */
        b->part_sum[u] = fmaf(b->part_sum[u], b->keep[u], page_sum);
    }
    b->part_max[u] = max;
    b->part_empty[u] = false;
}

/* k: panels of the page at position `key`; v: rows of `stride`. Both of `type`. */
INLINE void batch_page(struct batch *b, enum kv_type type, const void *k, const void *v, int key)
{
    int t0 = range_first(b, 0, key), t1 = range_end(b, b->n - 1, key);
    dot_page(type, b->score, k, b->q, b->n, b->d, t0, t1);
    for (int u = 0; u < b->n; u++)
        if (range_first(b, u, key) < range_end(b, u, key))
            softmax_query(b, u, range_first(b, u, key), range_end(b, u, key));
    for (int u = 0, n; u < b->n; u += n) { /* neighbours that see the same keys share the reading of values */
        t0 = range_first(b, u, key), t1 = range_end(b, u, key);
        for (n = 1; n < WEAVE_ROWS && u + n < b->n; n++)
            if (range_first(b, u + n, key) != t0 || range_end(b, u + n, key) != t1)
                break;
        if (t0 >= t1)
            continue;
        struct weave x = {b->part + u * b->stride, b->keep + u, v, b->score + u * KV_BLOCK, KV_BLOCK, 1, b->stride};
        weave(n, type, &x, t0, t1);
    }
}

/* ---- segments ---- */
INLINE void batch_begin(struct batch *b)
{
    for (int u = 0; u < b->n; u++)
        b->all_empty[u] = b->part_empty[u] = true;
}

INLINE void batch_merge(struct batch *b)
{
    for (int u = 0; u < b->n; u++) {
        float *all = b->all + u * b->stride, *part = b->part + u * b->stride;
        if (b->part_empty[u])
            continue;
        if (b->all_empty[u]) {
            memcpy(all, part, (size_t)b->stride * sizeof *all);
            b->all_max[u] = b->part_max[u];
            b->all_sum[u] = b->part_sum[u];
        } else {
            float max = b->all_max[u] > b->part_max[u] ? b->all_max[u] : b->part_max[u];
            float keep_all = exp_one(b->all_max[u] - max), keep_part = exp_one(b->part_max[u] - max);
            b->all_sum[u] = fmaf(b->part_sum[u], keep_part, b->all_sum[u] * keep_all);
            for (int i = 0; i < b->stride; i += 16) {
                vf a = vf_mul(v16_load(all + i), vf_set(keep_all));
                v16_store(all + i, vf_fma(v16_load(part + i), vf_set(keep_part), a));
            }
            b->all_max[u] = max;
        }
        b->all_empty[u] = false;
        b->part_empty[u] = true;
    }
}
