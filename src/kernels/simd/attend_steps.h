/* attend_steps - what attention's forward and backward share: a batch of queries against one page of keys and values
 *
 *   batch_page    scores > softmax of the page > acc = acc keep + sum p v        (docs/numerics.md section 3)
 *   batch_merge   the finished segment joins those before it
 *
 * Keys lie 16 in a vector, [d][16 keys], so a score's 16 partial sums are 16 registers and their tree is plain
 * addition: no sum ever crosses lanes. Values lie with d in the vector. Vectors run over the padding of a row (up to
 * `stride`): what it holds never reaches a lane that is stored.
 */
#include "kernels/simd/lanes_fn.h"

enum {
    BATCH = 32, /* queries that share one reading of a page */
#ifdef __AVX512F__
    DOT_QUERIES = 7, /* 28 sums, one vector of keys */
    WEAVE_ROWS = 7,
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
    float part_max[BATCH], part_sum[BATCH], all_max[BATCH], all_sum[BATCH], keep[BATCH], page_max[BATCH];
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

/* The keys or the values of a page; scale of int8: [block of 32 dimensions][key]. */
struct kv_rows {
    const void *at;
    const float *scale;
};
INLINE struct kv_rows plain(const float *at)
{
    return (struct kv_rows){at, NULL};
}
/* Sixteen elements, of int8 with their scales. */
INLINE vf kv_load(enum kv_type type, const void *p, size_t at, vf scale)
{
    if (type == KV_INT8)
        return vf_mul(v16_load_int8((const int8_t *)p + at), scale);
    return type == KV_F16 ? v16_load_half((const uint16_t *)p + at) : v16_load((const float *)p + at);
}
INLINE size_t kv_size(enum kv_type type) /* kv_element_bytes, known when compiled */
{
    return type == KV_INT8 ? 1 : type == KV_F16 ? 2 : 4;
}

/* ---- scores: n queries with one panel of 16 keys ---- */

/* What is read next, asked for while sums are computed: rows of a page are read in an order that the processor's own
 * prefetching does not follow. One thread of a Zen 4 EPYC, 4,096 keys of f16 from memory, 2 KV heads of 64 with 7
 * queries each: 192 us, without 320; 8 heads with one query: 458 us, without 677 (2026-11). */
struct ahead {
    const char *at;
    int dot_lines, weave_lines; /* to take with each quarter of a panel of keys; with each value */
};
static const struct ahead nothing_ahead = {NULL, 0, 0};
INLINE void ahead_step(struct ahead *a, int lines)
{
    for (int i = 0; i < lines; i++, a->at += 64)
        __builtin_prefetch(a->at, 0, 2);
}

/* Of the 16 keys of a panel in dimension i; of value t in dimensions i .. i+15. */
INLINE vf panel_scale(enum kv_type type, struct kv_rows panel, int i)
{
    return type == KV_INT8 ? v16_load(panel.scale + i / KV_INT8_BLOCK * KV_BLOCK) : v16_zero();
}

INLINE vf value_scale(enum kv_type type, struct kv_rows v, int t, int i)
{
    return type == KV_INT8 ? vf_set(v.scale[i / KV_INT8_BLOCK * KV_BLOCK + t]) : v16_zero();
}

/* Partial sums r, r+8, r+4, r+12 of each query's tree, added up as the tree does; panel: from dimension r on. */
INLINE void dot_quarter(int n, enum kv_type type, vf out[], struct kv_rows panel, const float *const q[], int d, int r)
{
    vf sum[DOT_QUERIES][4];
    UNROLL for (int u = 0; u < n; u++) UNROLL for (int j = 0; j < 4; j++) sum[u][j] = v16_zero();
    const char *from = (const char *)panel.at + kv_key_index(d, 0, r) * kv_size(type);
    int i = r;
    for (; i + 12 < d; i += 16, from += 64 * kv_size(type)) {
        const vf scale = panel_scale(type, panel, i);
        UNROLL for (int j = 0; j < 4; j++)
        {
            int at = i + (j & 1) * 8 + (j >> 1) * 4; /* +0, +8, +4, +12 */
            vf k = kv_load(type, from, (size_t)j * 16, scale);
            UNROLL for (int u = 0; u < n; u++) sum[u][j] = vf_fma(vf_set(q[u][at]), k, sum[u][j]);
        }
    }
    for (int j = 0; j < 4; j++) {
        int at = i + (j & 1) * 8 + (j >> 1) * 4;
        if (at < d) {
            vf k = kv_load(type, from, (size_t)j * 16, panel_scale(type, panel, at));
            UNROLL for (int u = 0; u < n; u++) sum[u][j] = vf_fma(vf_set(q[u][at]), k, sum[u][j]);
        }
    }
    UNROLL for (int u = 0; u < n; u++) out[u] = vf_add(vf_add(sum[u][0], sum[u][1]), vf_add(sum[u][2], sum[u][3]));
}

INLINE void dot_panel(int n, enum kv_type type, float *score, struct kv_rows panel, const float *const q[], int d,
                      struct ahead *ahead)
{
    vf s0[DOT_QUERIES], s1[DOT_QUERIES], s2[DOT_QUERIES], s3[DOT_QUERIES];
    ahead_step(ahead, ahead->dot_lines);
    dot_quarter(n, type, s0, panel, q, d, 0);
    ahead_step(ahead, ahead->dot_lines);
    dot_quarter(n, type, s2, panel, q, d, 2);
    ahead_step(ahead, ahead->dot_lines);
    dot_quarter(n, type, s1, panel, q, d, 1);
    ahead_step(ahead, ahead->dot_lines);
    dot_quarter(n, type, s3, panel, q, d, 3);
    UNROLL for (int u = 0; u < n; u++)
        v16_store(score + u * KV_BLOCK, vf_add(vf_add(s0[u], s2[u]), vf_add(s1[u], s3[u])));
}

INLINE void dot_queries(int n, enum kv_type type, float *score, struct kv_rows k, const float *const q[], int d, int t0,
                        int t1, struct ahead *ahead)
{
    for (int p = t0 / 16; p * 16 < t1; p++) {
        struct kv_rows panel = {(const char *)k.at + kv_key_index(d, p * 16, 0) * kv_size(type),
                                type == KV_INT8 ? k.scale + p * 16 : NULL};
        dot_panel(n, type, score + 16 * p, panel, q, d, ahead);
    }
}

#define DOT_CASE(n)                                                                                                    \
    case n:                                                                                                            \
        dot_queries(n, type, score, k, q + u, d, t0, t1, ahead);                                                       \
        break;

/* score[u][t] for every query and the page's keys t0 .. t1-1 (whole panels of 16 are computed). */
INLINE void dot_page(enum kv_type type, float *score, struct kv_rows k, const float *const q[], int n, int d, int t0,
                     int t1, struct ahead *ahead)
{
    for (int u = 0, now; u < n; u += now, score += now * KV_BLOCK, ahead->dot_lines = 0) {
        int tiles = (n - u + DOT_QUERIES - 1) / DOT_QUERIES;
        now = (n - u + tiles - 1) / tiles;
        switch (now) {
            DOT_CASE(1)
#ifdef __AVX512F__
            DOT_CASE(2)
            DOT_CASE(3)
            DOT_CASE(4)
            DOT_CASE(5)
            DOT_CASE(6)
            DOT_CASE(7)
#endif
        }
    }
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
    struct kv_rows rows;
    const float *w;
    ptrdiff_t wa, wb;
    int stride; /* of acc and rows */
    struct ahead ahead;
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
    struct ahead ahead = x->ahead;
    for (int b = b0; b < b1; b++) {
        vf row[WEAVE_VECTORS];
        ahead_step(&ahead, at == 0 ? ahead.weave_lines : 0);
        UNROLL for (int j = 0; j < vectors; j++)
        {
            const int i = at + 16 * j;
            row[j] =
                kv_load(type, x->rows.at, (size_t)b * (size_t)x->stride + (size_t)i, value_scale(type, x->rows, b, i));
        }
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
    const int vectors = n > 4 ? WEAVE_VECTORS / 2 : WEAVE_VECTORS; /* sums fit the registers */
    int at = 0;
    for (; at + 16 * vectors <= x->stride; at += 16 * vectors)
        weave_block(n, vectors, type, x, b0, b1, at);
    for (; at < x->stride; at += 16)
        weave_block(n, 1, type, x, b0, b1, at);
}

#define WEAVE_CASE(n)                                                                                                  \
    case n:                                                                                                            \
        weave_rows(n, type, x, b0, b1);                                                                                \
        break;

/* n: 1 .. WEAVE_ROWS */
INLINE void weave(int n, enum kv_type type, const struct weave *x, int b0, int b1)
{
    switch (n) {
        WEAVE_CASE(1)
        WEAVE_CASE(2)
#ifdef __AVX512F__
        WEAVE_CASE(3)
        WEAVE_CASE(4)
        WEAVE_CASE(5)
        WEAVE_CASE(6)
        WEAVE_CASE(7)
#endif
    }
}

/* ---- one page ---- */

/* Scales query u's scores and finds their maximum; what the query does not see becomes -inf. */
INLINE float scale_query(struct batch *b, int u, int t0, int t1)
{
    float *score = b->score + u * KV_BLOCK;
    const vf low = vf_set(-INFINITY);
    vf top = low;
    if (t0 == 0 && t1 == KV_BLOCK) {
        UNROLL for (int p = 0; p < KV_PANELS; p++)
        {
            vf s = scaled_score(score, p, b->attr);
            v16_store(score + 16 * p, s);
            top = v16_max(s, top);
        }
        return v16_max_lane(top);
    }
    for (int p = t0 / 16; p * 16 < t1; p++) {
        vf s = only_keys(scaled_score(score, p, b->attr), p, t0, t1, low);
        v16_store(score + 16 * p, s);
        top = v16_max(s, top);
    }
    return v16_max_lane(top);
}

/* Turns query u's scores into e^(s - page_max) and adds them up. */
INLINE float exp_query(struct batch *b, int u, int t0, int t1)
{
    float *score = b->score + u * KV_BLOCK;
    vf sum = v16_zero(), max = vf_set(b->page_max[u]);
    for (int p = t0 / 16; p * 16 < t1; p++) {
        vf e = vf_exp_down(vf_sub(v16_load(score + 16 * p), max));
        v16_store(score + 16 * p, e);
        sum = vf_add(sum, e);
    }
    return v16_sum(sum);
}

/* Turns all scores into e^(s - max), and every query's running max, sum and keep into those with this page. In sweeps
 * over the queries, so that their chains of dependent steps overlap. */
INLINE void softmax_page(struct batch *b, int key)
{
    for (int u = 0; u < b->n; u++) {
        int t0 = range_first(b, u, key), t1 = range_end(b, u, key);
        float max = t0 < t1 ? scale_query(b, u, t0, t1) : b->part_max[u];
        b->page_max[u] = b->part_empty[u] || max > b->part_max[u] ? max : b->part_max[u];
    }
    for (int u = 0; u < b->n; u += 16) {
        vf old = v16_load(b->part_max + u), max = v16_load(b->page_max + u);
        v16_store(b->keep + u, vf_pick(vf_eq(max, old), vf_set(1), vf_exp(vf_sub(old, max)))); /* e^0 is exactly 1 */
    }
    for (int u = 0; u < b->n; u++) {
        int t0 = range_first(b, u, key), t1 = range_end(b, u, key);
        if (t0 >= t1)
            continue;
        float sum = exp_query(b, u, t0, t1);
        if (b->part_empty[u]) {
            memset(b->part + u * b->stride, 0, (size_t)b->stride * sizeof *b->part);
            b->keep[u] = 1;
        }
        b->part_sum[u] = b->part_empty[u] ? sum : fmaf(b->part_sum[u], b->keep[u], sum);
        b->part_max[u] = b->page_max[u];
        b->part_empty[u] = false;
    }
}

/* k: panels of the page at position `key`; v: rows of `stride`. Both of `type`. */
INLINE void batch_page(struct batch *b, enum kv_type type, struct kv_rows k, struct kv_rows v, int key,
                       struct ahead ahead)
{
    int t0 = range_first(b, 0, key), t1 = range_end(b, b->n - 1, key);
    dot_page(type, b->score, k, b->q, b->n, b->d, t0, t1, &ahead);
    softmax_page(b, key);
    for (int u = 0, n; u < b->n; u += n) { /* neighbours that see the same keys share the reading of values */
        t0 = range_first(b, u, key), t1 = range_end(b, u, key);
        for (n = 1; n < WEAVE_ROWS && u + n < b->n; n++)
            if (range_first(b, u + n, key) != t0 || range_end(b, u + n, key) != t1)
                break;
        if (t0 >= t1)
            continue;
        struct weave x = {
            b->part + u * b->stride, b->keep + u, v, b->score + u * KV_BLOCK, KV_BLOCK, 1, b->stride, ahead};
        ahead.weave_lines = 0;
        weave(n, type, &x, t0, t1);
    }
}

/* ---- segments ---- */
INLINE void batch_begin(struct batch *b)
{
    for (int u = 0; u < b->n; u++)
        b->all_empty[u] = b->part_empty[u] = true;
    memset(b->part_max, 0, sizeof b->part_max); /* read before they are written, by whole vectors */
    memset(b->page_max, 0, sizeof b->page_max);
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
