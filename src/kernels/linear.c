/* linear - the products of weights and rows, split over the pool by panels and rows, never inside a sum */
#include "kernels/kernels_private.h"

/* How an item is cut. Few rows: enough bytes of weights to hide the claim, few enough that a late thread costs little,
 * four panels at least because kernels stream four at once. Many rows: tiles of 12 and of 16 rows both divide 96; int8
 * kernels unpack weights once an item. */
enum { ITEM_BYTES = 96 << 10 };

static int64_t at_least_1(int64_t n)
{
    return n > 1 ? n : 1;
}
static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- activations ---- */
enum act_type weight_act(const struct weight *w)
{
    return w->exact ? ACT_REAL : panel_type(w->type)->act;
}

size_t act_bytes(enum act_type type, int64_t n_row, int64_t n_in)
{
    if (type == ACT_REAL)
        return 0;
    size_t n = (size_t)n_row;
    if (type == ACT_BF16)
        return act_row_bytes(n_in) * n;
    return n * ((size_t)n_in + (size_t)(n_in / BLOCK) * (sizeof(float) + sizeof(int32_t) + 2 * sizeof(int16_t)));
}

void act_fill(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    if (a->type != ACT_REAL)
        (a->type == ACT_BF16 ? kernels.act_bf16 : kernels.act_int8)(a, x, row, k0, k1);
}

enum { ACT_ITEM_ROWS = 8 };

static void act_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct act *a = ctx;
    int64_t row0 = (int64_t)item * ACT_ITEM_ROWS, row1 = smaller(row0 + ACT_ITEM_ROWS, a->n_row);
    for (int64_t r = row0; r < row1; r++)
        act_fill(a, a->x + r * a->n_in, r, 0, a->n_in);
}

void act_begin(struct act *a, enum act_type type, void *storage, const real *x, int64_t n_row, int64_t n_in)
{
    assert(type != ACT_INT8 || n_in % BLOCK == 0);
    *a = (struct act){.type = type, .n_row = n_row, .n_in = n_in, .x = x, .storage = storage};
}

void act_prepare(struct act *a, enum act_type type, void *storage, const real *x, int64_t n_row, int64_t n_in,
                 struct pool *pool)
{
    act_begin(a, type, storage, x, n_row, n_in);
    if (type == ACT_REAL)
        return;
    pool_run(pool, act_item, a, (int)((n_row + ACT_ITEM_ROWS - 1) / ACT_ITEM_ROWS));
}

/* ---- forward ---- */
struct forward_split {
    struct linear_job job;
    linear_fn *fn;
    int64_t n_panel, item_panels, n_panel_item, item_rows;
};

static void forward_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct forward_split *s = ctx;
    int64_t row0 = item / s->n_panel_item * s->item_rows, panel0 = item % s->n_panel_item * s->item_panels;
    s->fn(&s->job, row0, smaller(row0 + s->item_rows, s->job.x->n_row), panel0,
          smaller(panel0 + s->item_panels, s->n_panel));
}

linear_fn *linear_kernel(const struct weight *w)
{
    const struct panel_type *t = panel_type(w->type);
    return w->exact && t->act != ACT_REAL ? kernels.linear_exact : *t->forward; /* f32 and f16 are exact already */
}

int64_t weight_few_rows(const struct weight *w)
{
    return w->exact ? FEW_ROWS_EXACT : panel_type(w->type)->few_rows;
}

void linear_forward(real *out, const struct act *x, const struct weight *w, const real *bias, struct pool *pool)
{
    assert(x->n_in == w->n_in && x->type == weight_act(w));
    struct forward_split s = {
        .job = {out, x, w, bias, w->n_out}, .fn = linear_kernel(w), .n_panel = panel_count(w->n_out)};
    int64_t wanted = x->type == ACT_INT8 ? ITEM_PANELS_INT8 : ITEM_PANELS;
    if (x->n_row <= weight_few_rows(w)) {
        wanted = ITEM_BYTES / (int64_t)panel_bytes(w->type, w->n_in) / 4 * 4;
        wanted = wanted < 4 ? 4 : wanted;
    }
    s.item_panels = smaller(wanted, at_least_1(s.n_panel / (2 * pool_threads(pool))));
    s.n_panel_item = (s.n_panel + s.item_panels - 1) / s.item_panels;
    s.item_rows = x->type == ACT_INT8 ? ITEM_ROWS_INT8 : ITEM_ROWS;
    int64_t n_row_item = (x->n_row + s.item_rows - 1) / s.item_rows;
    pool_run(pool, forward_item, &s, (int)(n_row_item * s.n_panel_item));
}

/* ---- backward ---- */
struct input_split {
    struct linear_input_job job;
    int64_t n_k_item;
};
enum { INPUT_ITEM_ROWS = 96, INPUT_ITEM_K = 16, WEIGHT_ITEM_PANELS = 16, WEIGHT_ITEM_K = 96 };

static void input_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct input_split *s = ctx;
    int64_t row0 = item / s->n_k_item * INPUT_ITEM_ROWS, k0 = item % s->n_k_item * INPUT_ITEM_K;
    kernels.linear_input(&s->job, row0, smaller(row0 + INPUT_ITEM_ROWS, s->job.n_row), k0,
                         smaller(k0 + INPUT_ITEM_K, s->job.w->n_in));
}

void linear_backward_input(real *dx, const real *dy, const struct weight *w, int64_t n_row, bool accumulate,
                           struct pool *pool)
{
    assert(w->type == DT_F32);
    struct input_split s = {.job = {dx, dy, w, n_row, accumulate},
                            .n_k_item = (w->n_in + INPUT_ITEM_K - 1) / INPUT_ITEM_K};
    int64_t n_row_item = (n_row + INPUT_ITEM_ROWS - 1) / INPUT_ITEM_ROWS;
    pool_run(pool, input_item, &s, (int)(n_row_item * s.n_k_item));
}

struct weight_split {
    struct linear_weight_job job;
    int64_t n_panel, n_k_item;
};

static void weight_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct weight_split *s = ctx;
    int64_t panel0 = item / s->n_k_item * WEIGHT_ITEM_PANELS, k0 = item % s->n_k_item * WEIGHT_ITEM_K;
    kernels.linear_weight(&s->job, panel0, smaller(panel0 + WEIGHT_ITEM_PANELS, s->n_panel), k0,
                          smaller(k0 + WEIGHT_ITEM_K, s->job.n_in));
}

void linear_backward_weight(real *dw_panels, const real *dy, const real *x, int64_t n_row, int64_t n_out, int64_t n_in,
                            struct pool *pool)
{
    struct weight_split s = {.job = {dw_panels, dy, x, n_row, n_out, n_in},
                             .n_panel = panel_count(n_out),
                             .n_k_item = (n_in + WEIGHT_ITEM_K - 1) / WEIGHT_ITEM_K};
    int64_t n_panel_item = (s.n_panel + WEIGHT_ITEM_PANELS - 1) / WEIGHT_ITEM_PANELS;
    pool_run(pool, weight_item, &s, (int)(n_panel_item * s.n_k_item));
}

struct bias_job {
    real *db;
    const real *dy;
    int64_t n_row, n_out;
    int n_item;
};

static void bias_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct bias_job *job = ctx;
    int64_t n0 = job->n_out * item / job->n_item, n1 = job->n_out * (item + 1) / job->n_item;
    for (int64_t r = 0; r < job->n_row; r++) /* tokens ascending */
        for (int64_t n = n0; n < n1; n++)
            job->db[n] += job->dy[r * job->n_out + n];
}

void linear_backward_bias(real *db, const real *dy, int64_t n_row, int64_t n_out, struct pool *pool)
{
    struct bias_job job = {db, dy, n_row, n_out, 4 * pool_threads(pool)};
    pool_run(pool, bias_item, &job, job.n_item);
}
