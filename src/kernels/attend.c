/* attend - doors of the paged KV cache and of attention: items are tiles of rows of one KV head */
#include "kernels/kernels_private.h"

size_t kv_page_bytes(const struct kv_layout *l)
{
    return kv_head_bytes(l) * (size_t)l->n_kv_head;
}

/* Spans stand in ascending rows, so the one holding a row is found by halving. */
int span_find(const struct attend_span *spans, int n_span, int64_t row)
{
    int low = 0, high = n_span;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (spans[middle].row0 + spans[middle].n_row > row)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static int64_t row_end(const struct attend_span *spans, int n_span)
{
    return n_span > 0 ? (int64_t)spans[n_span - 1].row0 + spans[n_span - 1].n_row : 0;
}

static void check_shapes(const struct kv_layout *l, const struct attend_attr *attr, const struct attend_span *spans,
                         int n_span)
{
    assert(l->d_head > 0 && l->d_head <= ATTEND_D_MAX && l->n_kv_head > 0);
    assert(!attr || (attr->n_head > 0 && attr->n_head % l->n_kv_head == 0));
    assert(!attr || !attr->both_ways || attr->window == 0);
    for (int i = 1; i < n_span; i++)
        assert(spans[i].row0 >= spans[i - 1].row0 + spans[i - 1].n_row);
}

void kv_write(void *layer, const struct kv_layout *l, const real *k, const real *v, const struct attend_span *spans,
              int n_span, struct pool *pool)
{
    check_shapes(l, NULL, spans, n_span);
    struct kv_job job = {layer, l, k, v, spans, n_span};
    range_run(pool, kernels.kv_store, &job, row_end(spans, n_span), 8192 / (l->n_kv_head * l->d_head));
}

struct rope_kv_job {
    struct rope_job q, k;
    struct kv_job kv;
};

static void rope_kv_rows(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rope_kv_job *job = ctx;
    kernels.rope_turn(&job->q, row0, row1);
    kernels.rope_turn(&job->k, row0, row1);
    kernels.kv_store(&job->kv, row0, row1);
}

void rope_kv_write(void *layer, const struct kv_layout *l, const struct rope_kv *x, const struct attend_span *spans,
                   int n_span, struct pool *pool)
{
    check_shapes(l, NULL, spans, n_span);
    struct rope_kv_job job = {{x->q, x->cs, ROPE_HALF, x->n_head, l->d_head, x->n_half, +1},
                              {x->k, x->cs, ROPE_HALF, l->n_kv_head, l->d_head, x->n_half, +1},
                              {layer, l, x->k, x->v, spans, n_span}};
    range_run(pool, rope_kv_rows, &job, row_end(spans, n_span), 8192 / (x->n_head * l->d_head));
}

struct attend_split {
    struct attend_job job;
    const struct attend_span *spans;
    int n_span, tile;
    int64_t n_row;
};

/* Later rows see more keys: they are taken first, so that no thread starts a long item last. */
static void attend_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct attend_split *s = ctx;
    int n_kv = s->job.l->n_kv_head, kv_head = item % n_kv;
    int64_t n_tile = (s->n_row + s->tile - 1) / s->tile, row0 = (n_tile - 1 - item / n_kv) * s->tile;
    int64_t row1 = row0 + s->tile < s->n_row ? row0 + s->tile : s->n_row;
    for (int i = span_find(s->spans, s->n_span, row0); i < s->n_span && s->spans[i].row0 < row1; i++) {
        const struct attend_span *span = &s->spans[i];
        int first = row0 > span->row0 ? (int)(row0 - span->row0) : 0;
        int last = row1 < span->row0 + span->n_row ? (int)(row1 - span->row0) : span->n_row;
        kernels.attend(&s->job, span, first, last, kv_head);
    }
}

/* Tiles of up to 16 rows share what is read of a page; fewer when there would be too few items for the threads. */
static int attend_tile(int64_t n_row, int n_kv_head, const struct pool *pool)
{
    int64_t tile = n_row * n_kv_head / (4 * (int64_t)pool_threads(pool));
    return tile > 16 ? 16 : tile < 1 ? 1 : (int)tile;
}

void attend_forward(real *out, const real *q, const void *layer, const struct kv_layout *l,
                    const struct attend_attr *attr, const struct attend_span *spans, int n_span, struct pool *pool)
{
    check_shapes(l, attr, spans, n_span);
    struct attend_split s = {{out, q, layer, l, attr}, spans, n_span, 1, row_end(spans, n_span)};
    s.tile = attend_tile(s.n_row, l->n_kv_head, pool);
    if (s.n_row > 0)
        pool_run(pool, attend_item, &s, (int)((s.n_row + s.tile - 1) / s.tile) * l->n_kv_head);
}

/* ---- few rows: items are segments ---- */
struct parts_split {
    struct attend_merge_job job;
    const struct attend_span *spans;
    int n_span, n_row;
    int start[ATTEND_SPLIT_ROWS + 1]; /* a row's first item, in segments */
    int first[ATTEND_SPLIT_ROWS];     /* a row's first segment */
    int32_t positions[ATTEND_SPLIT_ROWS];
};

size_t attend_scratch_bytes(const struct kv_layout *l, int n_head, int n_ctx)
{
    size_t part = (2 + (size_t)kv_value_stride(l->d_head)) * sizeof(real);
    return part * (size_t)n_head * ((size_t)n_ctx / KV_SEGMENT + 1) * ATTEND_SPLIT_ROWS;
}

static void part_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct parts_split *s = ctx;
    int n_kv = s->job.p.job.l->n_kv_head, at = item / n_kv, row = 0;
    while (at >= s->start[row + 1])
        row++;
    const struct attend_span *span = &s->spans[span_find(s->spans, s->n_span, row)];
    kernels.attend_part(&s->job.p, span, row - span->row0, item % n_kv, s->first[row] + at - s->start[row]);
}

/* false when a row stands in no span, or the parts do not fit: then the whole way is taken. */
static bool parts_plan(struct parts_split *s, size_t scratch_bytes)
{
    int most = 0;
    for (int row = 0; row < s->n_row; row++) {
        int i = span_find(s->spans, s->n_span, row);
        if (i == s->n_span || s->spans[i].row0 > row)
            return false;
        int pos = attend_last_key(s->job.p.job.attr, &s->spans[i], row - s->spans[i].row0), n = pos / KV_SEGMENT + 1;
        s->positions[row] = pos;
        s->first[row] = attend_first_key(s->job.p.job.attr, pos) / KV_SEGMENT;
        s->start[row + 1] = s->start[row] + n - s->first[row];
        most = n > most ? n : most;
    }
    s->job.p.n_segment = most;
    return scratch_bytes >= (size_t)((char *)attend_part_at(&s->job.p, s->n_row, 0, 0) - (char *)s->job.p.parts);
}

void attend_forward_split(real *out, const real *q, const void *layer, const struct kv_layout *l,
                          const struct attend_attr *attr, const struct attend_span *spans, int n_span, void *scratch,
                          size_t scratch_bytes, struct pool *pool)
{
    check_shapes(l, attr, spans, n_span);
    struct parts_split s = {.job.p = {{out, q, layer, l, attr}, scratch, 0},
                            .spans = spans,
                            .n_span = n_span,
                            .n_row = (int)row_end(spans, n_span)};
    bool few = scratch && s.n_row > 0 && s.n_row <= ATTEND_SPLIT_ROWS &&
               s.n_row * l->n_kv_head < 2 * pool_threads(pool) && pool_threads(pool) > 1;
    if (!few || !parts_plan(&s, scratch_bytes) || s.start[s.n_row] < 2 * s.n_row) {
        attend_forward(out, q, layer, l, attr, spans, n_span, pool);
        return;
    }
    s.job.positions = s.positions;
    pool_run(pool, part_item, &s, s.start[s.n_row] * l->n_kv_head);
    range_run(pool, kernels.attend_merge, &s.job, (int64_t)s.n_row * attr->n_head, 4);
}

struct attend_back_split {
    struct attend_back_job job;
    const struct attend_span *spans;
};

static void attend_back_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct attend_back_split *s = ctx;
    kernels.attend_back(&s->job, &s->spans[item / s->job.l->n_kv_head], item % s->job.l->n_kv_head);
}

void attend_backward(real *dq, real *dk, real *dv, const real *dout, const real *q, const real *k, const real *v,
                     const struct kv_layout *l, const struct attend_attr *attr, const struct attend_span *spans,
                     int n_span, struct pool *pool)
{
    check_shapes(l, attr, spans, n_span);
    for (int i = 0; i < n_span; i++)
        assert(spans[i].pos0 == 0);
    struct attend_back_split s = {{dq, dk, dv, dout, q, k, v, l, attr}, spans};
    pool_run(pool, attend_back_item, &s, n_span * l->n_kv_head);
}
