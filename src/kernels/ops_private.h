/* ops_private - jobs and function types of the operations that are not linear products (included by kernels_private.h)
 *
 * Most operations are a range_fn: rows, columns or elements i0 .. i1-1 of one job; the door (rows.c, attend.c, loss.c,
 * optimizer.c) cuts the range into items for the pool, so that no reduction is ever split.
 */
#ifndef KERNELS_OPS_PRIVATE_H
#define KERNELS_OPS_PRIVATE_H

#include "kernels/kernels.h"

typedef void range_fn(const void *job, int64_t i0, int64_t i1);
/* fn over 0 .. n-1, per_item at a time. */
void range_run(struct pool *pool, range_fn *fn, const void *job, int64_t n, int64_t per_item);

/* ---- norms: rows ---- */
struct norm_job {
    real *out;
    const real *x, *weight, *bias;
    real eps;
    int64_t n;
};
typedef range_fn norm_rms_fn, norm_layer_fn;
enum { NORM_BACK_ROWS = 128 };
struct norm_back_job {
    real *dx, *dw, *db;
    const real *dy, *x, *weight;
    real eps;
    int64_t n, n_row;     /* n_row at most NORM_BACK_ROWS */
    real *mean, *inverse; /* of the rows: written by dx, read by dw */
};
typedef range_fn norm_rms_dx_fn, norm_layer_dx_fn; /* rows */
typedef range_fn norm_dw_fn;                       /* columns */

/* ---- rope: rows ---- */
struct rope_job {
    real *x;
    const real *cs;
    enum rope_style style;
    int64_t n_head, d_head, n_half;
    int sign;
};
typedef range_fn rope_turn_fn;

/* ---- element by element ---- */
struct map_job {
    real *out, *out2;
    const real *a, *b, *c;
    int fn; /* enum act_fn */
};
typedef range_fn map_fn_fn;       /* out = fn(a) */
typedef range_fn map_fn_back_fn;  /* out = a fn'(b) */
typedef range_fn map_glu_fn;      /* out = fn(a) b */
typedef range_fn map_glu_back_fn; /* a = dy, b = gate, c = up; out = dgate, out2 = dup */
typedef range_fn map_add_fn;      /* out = a + b */
/* The functions of fn_body.h themselves, fn a FUNCTION_: no door, but what tests compare over all arguments. EXP_DOWN:
 * e^x again, of x <= 88 or NaN. */
enum { FUNCTION_EXP, FUNCTION_LOG, FUNCTION_TANH, FUNCTION_ERF, FUNCTION_EXP_DOWN, FUNCTION_COUNT };
typedef range_fn map_function_fn;

/* ---- attention ----
 *
 * A page holds, head by head, 64 keys and 64 values of one KV head; docs/numerics.md section 3 says what they mean.
 *   K   4 panels of 16 keys: [d_head rounded up to 16][16 keys], so that a dot product's 16 sums are 16 registers with
 *       keys in lanes; kv_key_index
 *   V   [64 keys][d_head rounded up to 16]
 *   int8 also has f32 scales, one for 32 dimensions of one key: K [n_block][64], V [n_block][64]
 */
enum { KV_PANELS = KV_BLOCK / 16, KV_INT8_BLOCK = 32 };
static inline int kv_value_stride(int d_head)
{
    return (d_head + 15) / 16 * 16;
}
static inline int kv_blocks(int d_head)
{
    return (d_head + KV_INT8_BLOCK - 1) / KV_INT8_BLOCK;
}
static inline size_t kv_element_bytes(enum kv_type t)
{
    return t == KV_F32 ? sizeof(real) : t == KV_F16 ? sizeof(uint16_t) : 1;
}
static inline size_t kv_head_bytes(const struct kv_layout *l)
{
    size_t scales = l->type == KV_INT8 ? 2 * (size_t)kv_blocks(l->d_head) * KV_BLOCK * sizeof(float) : 0;
    return 2 * (size_t)KV_BLOCK * (size_t)kv_value_stride(l->d_head) * kv_element_bytes(l->type) + scales;
}
struct kv_head { /* one head of one page */
    void *k, *v;
    float *k_scale, *v_scale; /* int8 only */
};
static inline struct kv_head kv_head_at(const void *layer, const struct kv_layout *l, int32_t page, int head)
{
    char *at = (char *)layer + ((size_t)page * (size_t)l->n_kv_head + (size_t)head) * kv_head_bytes(l);
    struct kv_head h = {.k = at};
    size_t half = (size_t)KV_BLOCK * (size_t)kv_value_stride(l->d_head) * kv_element_bytes(l->type);
    h.v = at + half;
    h.k_scale = (float *)(at + 2 * half);
    h.v_scale = h.k_scale + (size_t)kv_blocks(l->d_head) * KV_BLOCK;
    return h;
}
/* Of K's element i of a token in its page: panels of 16 keys, the dimensions of each in the order in which the 16
 * partial sums of a score are taken and added up (simd/attend_steps.h), so that a page is read from front to back. */
static inline size_t kv_key_index(int d_head, int token, int i)
{
    static const uint8_t rank[4] = {0, 2, 1, 3};
    int stride = kv_value_stride(d_head), at = rank[i % 4] * (stride / 4) + i / 16 * 4 + rank[i / 4 % 4];
    return ((size_t)(token / 16) * (size_t)stride + (size_t)at) * 16 + (size_t)(token % 16);
}

struct kv_job {
    void *layer;
    const struct kv_layout *l;
    const real *k, *v;
    const struct attend_span *spans;
    int n_span;
};
/* Batch rows row0 .. row1-1 (those in no span are left out). */
typedef range_fn kv_store_fn;

struct attend_job {
    real *out;
    const real *q;
    const void *layer;
    const struct kv_layout *l;
    const struct attend_attr *attr;
};
/* Rows row0 .. row1-1 of the span (0 is its first) for the query heads of one KV head. */
typedef void attend_fn(const struct attend_job *job, const struct attend_span *span, int row0, int row1, int kv_head);

/* One segment of a few rows by itself, so that threads can share one row's keys. A part is what one query knows of one
 * segment: max, sum (0: no key seen), then acc [d_head rounded up to 16]; parts stand [row][query head][segment]. */
struct attend_parts {
    struct attend_job job;
    real *parts;
    int n_segment; /* room for each query */
};
static inline real *attend_part_at(const struct attend_parts *p, int64_t row, int head, int segment)
{
    int64_t at = (row * p->job.attr->n_head + head) * p->n_segment + segment;
    return p->parts + at * (2 + kv_value_stride(p->job.l->d_head));
}
typedef void attend_part_fn(const struct attend_parts *p, const struct attend_span *span, int row, int kv_head,
                            int segment);
/* The parts of queries i0 .. i1-1 (row * n_head + head) joined into out: those from the first key's segment to the
 * position's. */
struct attend_merge_job {
    struct attend_parts p;
    const int32_t *positions;
};
typedef range_fn attend_merge_fn;

struct attend_back_job {
    real *dq, *dk, *dv;
    const real *dout, *q, *k, *v;
    const struct kv_layout *l;
    const struct attend_attr *attr;
};
/* One whole sequence, one KV head. */
typedef void attend_back_fn(const struct attend_back_job *job, const struct attend_span *span, int kv_head);

static inline int attend_first_key(const struct attend_attr *attr, int pos)
{
    return attr->window > 0 && pos >= attr->window ? pos - attr->window + 1 : 0;
}
/* A query sees the keys attend_first_key .. attend_last_key; row 0 is the span's first. */
static inline int attend_last_key(const struct attend_attr *attr, const struct attend_span *span, int row)
{
    return span->pos0 + (attr->both_ways ? span->n_row - 1 : row);
}
/* The first span that ends after batch row `row`; n_span when none. */
int span_find(const struct attend_span *spans, int n_span, int64_t row);

/* ---- loss: rows ---- */
enum { LSE_CHUNK = 4096 };
struct loss_job {
    real *lse, *loss, *dx;
    const real *x;
    const int32_t *targets;
    real scale, divisor; /* divisor, of lse_rows: every x is divided by it first; 0 = not */
    int64_t n;
};
typedef range_fn lse_rows_fn, loss_rows_fn;

/* ---- optimizer ---- */
struct adamw_job {
    real *param, *m, *v;
    const real *grad;
    real grad_scale, keep1, keep2, beta2, step_size, v_scale, eps, decay; /* docs/numerics.md section 8 */
};
typedef range_fn adamw_range_fn;
enum { SQUARES_CHUNK = 16384 };
struct squares_job {
    const real *x;
    int64_t count;
    double *sums; /* [chunk] */
};
typedef range_fn squares_chunks_fn;

/* ---- selection ---- */
/* The first i in i0 .. n-1 with x[i] > limit (NaN never is); n when none. */
typedef int64_t find_above_fn(const float *x, int64_t i0, int64_t n, float limit);
/* The maximum of every ROW_BLOCK of x[n], unless some are NaN; false when some |x| is above ROW_FINITE or NaN. */
typedef bool row_maxima_fn(float *maxima, const float *x, int64_t n);
#define ROW_FINITE 3.0e38f
/* All of i0 .. i1-1 with low <= x[i] < high, ascending; out has room for all. Returns how many. */
typedef int64_t collect_from_fn(struct candidate *out, const float *x, int64_t i0, int64_t i1, float low, float high);
/* The sum of e^(x / divisor - zero) over the same, each as a multiple of 2^-52: while it stays below 2, in any order.
 */
typedef double mass_between_fn(const float *x, int64_t i0, int64_t i1, const struct row_mass *m);

#endif
