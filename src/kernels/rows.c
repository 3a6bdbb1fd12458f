/* rows - doors of norms, rope and the element by element operations: they cut rows or elements into items */
#include "kernels/kernels_private.h"

struct range_split {
    range_fn *fn;
    const void *job;
    int64_t n, per_item;
};

static void range_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct range_split *s = ctx;
    int64_t i0 = item * s->per_item, i1 = i0 + s->per_item;
    s->fn(s->job, i0, i1 < s->n ? i1 : s->n);
}

void range_run(struct pool *pool, range_fn *fn, const void *job, int64_t n, int64_t per_item)
{
    struct range_split s = {fn, job, n, per_item > 1 ? per_item : 1};
    if (n > 0)
        pool_run(pool, range_item, &s, (int)((n + s.per_item - 1) / s.per_item));
}

/* Elements an item works on: about 10 us, far above the cost of claiming it. */
enum { ITEM_ELEMENTS = 16384 };

static int64_t rows_per_item(int64_t n)
{
    return n > 0 ? ITEM_ELEMENTS / n : ITEM_ELEMENTS;
}

/* ---- norms ---- */
void norm_rms_forward(real *out, const real *x, const real *weight, real eps, int64_t n_row, int64_t n,
                      struct pool *pool)
{
    struct norm_job job = {.out = out, .x = x, .weight = weight, .eps = eps, .n = n};
    range_run(pool, kernels.norm_rms, &job, n_row, rows_per_item(n));
}

void norm_layer_forward(real *out, const real *x, const real *weight, const real *bias, real eps, int64_t n_row,
                        int64_t n, struct pool *pool)
{
    struct norm_job job = {.out = out, .x = x, .weight = weight, .bias = bias, .eps = eps, .n = n};
    range_run(pool, kernels.norm_layer, &job, n_row, rows_per_item(n));
}

struct norm_act {
    struct norm_job norm;
    range_fn *fn;
    const struct act *act;
};

static void norm_act_rows(const void *ctx, int64_t row0, int64_t row1)
{
    const struct norm_act *job = ctx;
    job->fn(&job->norm, row0, row1);
    for (int64_t r = row0; r < row1; r++)
        act_fill(job->act, job->norm.out + r * job->norm.n, r, 0, job->norm.n);
}

void norm_act_forward(struct act *a, enum act_type type, void *storage, bool layer, real *out, const real *x,
                      const real *weight, const real *bias, real eps, int64_t n_row, int64_t n, struct pool *pool)
{
    act_begin(a, type, storage, out, n_row, n);
    struct norm_act job = {{.out = out, .x = x, .weight = weight, .bias = bias, .eps = eps, .n = n},
                           layer ? kernels.norm_layer : kernels.norm_rms,
                           a};
    range_run(pool, norm_act_rows, &job, n_row, rows_per_item(n));
}

/* Blocks of rows: first dx by rows, then dw by columns from the rows' mean and inverse, so that dw adds rows ascending
 * whatever the pool does. */
static void norm_backward(const struct norm_back_job *whole, range_fn *dx, int64_t n_row, struct pool *pool)
{
    real mean[NORM_BACK_ROWS], inverse[NORM_BACK_ROWS];
    for (int64_t row = 0; row < n_row; row += NORM_BACK_ROWS) {
        int64_t rows = n_row - row < NORM_BACK_ROWS ? n_row - row : NORM_BACK_ROWS;
        struct norm_back_job job = *whole;
        job.n_row = rows;
        job.mean = mean;
        job.inverse = inverse;
        job.dx = whole->dx + row * job.n;
        job.dy = whole->dy + row * job.n;
        job.x = whole->x + row * job.n;
        range_run(pool, dx, &job, rows, rows_per_item(job.n));
        if (job.dw || job.db)
            range_run(pool, kernels.norm_dw, &job, job.n, (ITEM_ELEMENTS / rows + 15) / 16 * 16);
    }
}

void norm_rms_backward(real *dx, real *dw, const real *dy, const real *x, const real *weight, real eps, int64_t n_row,
                       int64_t n, struct pool *pool)
{
    struct norm_back_job job = {.dx = dx, .dw = dw, .dy = dy, .x = x, .weight = weight, .eps = eps, .n = n};
    norm_backward(&job, kernels.norm_rms_dx, n_row, pool);
}

void norm_layer_backward(real *dx, real *dw, real *db, const real *dy, const real *x, const real *weight, real eps,
                         int64_t n_row, int64_t n, struct pool *pool)
{
    struct norm_back_job job = {.dx = dx, .dw = dw, .db = db, .dy = dy, .x = x, .weight = weight, .eps = eps, .n = n};
    norm_backward(&job, kernels.norm_layer_dx, n_row, pool);
}

/* ---- rotary positions ---- */
struct angles_job {
    real *cs;
    const real *inv_freq;
    real scale;
    const int32_t *pos;
    int64_t n_half;
};

static void angles_rows(const void *ctx, int64_t row0, int64_t row1)
{
    const struct angles_job *job = ctx;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t i = 0; i < job->n_half; i++) {
            real angle = (real)job->pos[r] * job->inv_freq[i], *cs = job->cs + (r * job->n_half + i) * 2;
            cs[0] = (real)fn_cos((double)angle) * job->scale;
            cs[1] = (real)fn_sin((double)angle) * job->scale;
        }
}

void rope_angles(real *cs, const real *inv_freq, real scale, const int32_t *pos, int64_t n_row, int64_t n_half,
                 struct pool *pool)
{
    struct angles_job job = {cs, inv_freq, scale, pos, n_half};
    range_run(pool, angles_rows, &job, n_row, n_half > 0 ? 512 / n_half : 512);
}

void rope_apply(real *x, const real *cs, enum rope_style style, int64_t n_row, int64_t n_head, int64_t d_head,
                int64_t n_half, int sign, struct pool *pool)
{
    struct rope_job job = {x, cs, style, n_head, d_head, n_half, sign};
    range_run(pool, kernels.rope_turn, &job, n_row, rows_per_item(n_head * d_head));
}

/* ---- activations ---- */
void fn_forward(real *out, const real *x, enum act_fn fn, int64_t count, struct pool *pool)
{
    struct map_job job = {.out = out, .a = x, .fn = fn};
    range_run(pool, kernels.map_fn, &job, count, ITEM_ELEMENTS);
}

void exp_forward(real *out, const real *x, int64_t count)
{
    struct map_job job = {.out = out, .a = x, .fn = FUNCTION_EXP};
    kernels.map_function(&job, 0, count);
}

void tanh_forward(real *out, const real *x, int64_t count, struct pool *pool)
{
    struct map_job job = {.out = out, .a = x, .fn = FUNCTION_TANH};
    range_run(pool, kernels.map_function, &job, count, ITEM_ELEMENTS);
}

void fn_backward(real *dx, const real *dy, const real *x, enum act_fn fn, int64_t count, struct pool *pool)
{
    struct map_job job = {.out = dx, .a = dy, .b = x, .fn = fn};
    range_run(pool, kernels.map_fn_back, &job, count, ITEM_ELEMENTS);
}

void glu_forward(real *out, const real *gate, const real *up, enum act_fn fn, int64_t count, struct pool *pool)
{
    struct map_job job = {.out = out, .a = gate, .b = up, .fn = fn};
    range_run(pool, kernels.map_glu, &job, count, ITEM_ELEMENTS);
}

void glu_backward(real *dgate, real *dup, const real *dy, const real *gate, const real *up, enum act_fn fn,
                  int64_t count, struct pool *pool)
{
    struct map_job job = {.out = dgate, .out2 = dup, .a = dy, .b = gate, .c = up, .fn = fn};
    range_run(pool, kernels.map_glu_back, &job, count, ITEM_ELEMENTS);
}

/* ---- element by element ---- */
void add_forward(real *out, const real *a, const real *b, int64_t count, struct pool *pool)
{
    struct map_job job = {.out = out, .a = a, .b = b};
    range_run(pool, kernels.map_add, &job, count, ITEM_ELEMENTS);
}
