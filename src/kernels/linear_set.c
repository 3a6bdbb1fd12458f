/* linear_set - products that share their activations in one job, with what follows each part of them
 *
 * The panels of all products stand in one line, product after product; an item is a piece of that line times some rows.
 * Where something follows, the products' outputs never leave the thread's cache: an item is done slice by slice, and
 * only the result is written; or not even that, when its one reader is a product for which it is prepared here. (Read
 * back from the other thread and prepared apart, that product took 15 % longer: 32 rows, Q4_0, AMD EPYC, 2026-11.)
 */
#include "kernels/kernels_private.h"

enum { PIECE_MAX = 96, PIECE_BYTES = 64 << 10, SLICE_REALS = ITEM_ROWS_INT8 * ITEM_PANELS_INT8 * LANES };

struct set_split {
    const struct linear_set *set;
    const struct act *x;
    linear_fn *fn[LINEAR_SET_MAX];
    int64_t end[LINEAR_SET_MAX]; /* of each product's panels in the line */
    int64_t piece[PIECE_MAX + 1];
    int n_piece;
    int64_t item_panels, line, item_rows;
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct slice {
    real *out[2]; /* of the products, [rows][width] */
    int64_t row0, row1, n0, width;
};

/* The activation or the sum over the outputs of a slice, row by row. */
static void follow(const struct linear_set *set, const struct slice *c)
{
    int64_t n = set->parts[0].w->n_out, count = smaller(c->n0 + c->width, n) - c->n0;
    for (int64_t row = c->row0; row < c->row1; row++) {
        int64_t from = (row - c->row0) * c->width, to = row * n + c->n0;
        real *first = c->out[0] + from, *out = set->result ? set->result + to : first;
        if (set->then == SET_SUM) {
            struct map_job sum = {.out = out, .a = set->add + to, .b = first};
            kernels.map_add(&sum, 0, count);
            continue;
        }
        struct map_job glu = {.out = out, .a = first, .b = c->out[1] + from, .fn = set->fn};
        kernels.map_glu(&glu, 0, count);
        if (set->act)
            act_fill(set->act, out, row, c->n0, c->n0 + count);
    }
}

static void slice(const struct set_split *s, int64_t row0, int64_t row1, int64_t v0, int64_t v1)
{
    _Alignas(64) real out[2][SLICE_REALS];
    struct slice c = {{out[0], out[1]}, row0, row1, v0 * LANES, (v1 - v0) * LANES};
    for (int i = 0; i < s->set->n; i++) {
        const struct linear_part *p = &s->set->parts[i];
        uintptr_t origin = (uintptr_t)out[i] - (uintptr_t)(row0 * c.width + c.n0) * sizeof(real); /* of the whole */
        struct linear_job job = {(real *)origin, s->x, p->w, p->bias, c.width};
        s->fn[i](&job, row0, row1, v0, v1);
    }
    follow(s->set, &c);
}

/* Panels v0 .. v1-1 of the line; of a pair for GLU, of both products. */
static void panels(const struct set_split *s, int64_t row0, int64_t row1, int64_t v0, int64_t v1)
{
    const struct linear_set *set = s->set;
    int64_t most = SLICE_REALS / LANES / (row1 - row0) / 4 * 4;
    for (; set->then != SET_APART && v0 < v1; v0 += most)
        slice(s, row0, row1, v0, smaller(v0 + most, v1));
    for (int i = 0; i < set->n && v0 < v1; i++) {
        const struct linear_part *p = &set->parts[i];
        int64_t begin = i ? s->end[i - 1] : 0, to = smaller(v1, s->end[i]);
        if (v0 < to) {
            struct linear_job job = {p->out, s->x, p->w, p->bias, p->w->n_out};
            s->fn[i](&job, row0, row1, v0 - begin, to - begin);
            v0 = to;
        }
    }
}

static void few_rows_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct set_split *s = ctx;
    panels(s, 0, s->x->n_row, s->piece[item], s->piece[item + 1]);
}

static void many_rows_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct set_split *s = ctx;
    int64_t n = (s->line + s->item_panels - 1) / s->item_panels;
    int64_t row0 = item / n * s->item_rows, v0 = item % n * s->item_panels;
    panels(s, row0, smaller(row0 + s->item_rows, s->x->n_row), v0, smaller(v0 + s->item_panels, s->line));
}

/* Large pieces first, for long streams and few claims; small ones last, so that all threads end together. */
static void cut(struct set_split *s, int n_thread, int64_t least)
{
    int64_t at = 0;
    while (at < s->line && s->n_piece < PIECE_MAX) {
        int64_t size = (s->line - at) / (2 * (int64_t)n_thread) / 4 * 4;
        size = n_thread == 1 || s->n_piece == PIECE_MAX - 1 ? s->line - at : size < least ? least : size;
        s->piece[s->n_piece++] = at;
        at = smaller(at + size, s->line);
    }
    s->piece[s->n_piece] = s->line;
}

void linear_forward_set(const struct linear_set *set, const struct act *x, struct pool *pool)
{
    struct set_split s = {.set = set, .x = x};
    bool together = set->then != SET_APART;
    int64_t few = INT64_MAX;
    assert(set->n > 0 && set->n <= LINEAR_SET_MAX && (!together || set->n == (set->then == SET_GLU ? 2 : 1)));
    for (int i = 0; i < set->n; i++) {
        const struct weight *w = set->parts[i].w;
        assert(x->n_in == w->n_in && x->type == weight_act(w));
        assert(!together || w->n_out == set->parts[0].w->n_out);
        s.fn[i] = linear_kernel(w);
        few = smaller(few, weight_few_rows(w));
        s.line = together ? panel_count(w->n_out) : s.line + panel_count(w->n_out);
        s.end[i] = s.line;
    }
    const struct weight *first = set->parts[0].w;
    if (x->n_row <= few) {
        int64_t least = PIECE_BYTES / (int64_t)panel_bytes(first->type, first->n_in) / 4 * 4;
        cut(&s, pool_threads(pool), least > 4 ? least : 4);
        pool_run(pool, few_rows_item, &s, s.n_piece);
        return;
    }
    int64_t share = s.line / (2 * pool_threads(pool));
    share = set->act ? share / 2 * 2 : share; /* whole blocks of the next product's activations */
    int64_t least = set->act ? 2 : 1;
    s.item_panels = smaller(x->type == ACT_INT8 ? ITEM_PANELS_INT8 : ITEM_PANELS, share > least ? share : least);
    s.item_rows = x->type == ACT_INT8 ? ITEM_ROWS_INT8 : ITEM_ROWS;
    int64_t n_row_item = (x->n_row + s.item_rows - 1) / s.item_rows;
    pool_run(pool, many_rows_item, &s, (int)(n_row_item * ((s.line + s.item_panels - 1) / s.item_panels)));
}
