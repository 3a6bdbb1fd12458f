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
