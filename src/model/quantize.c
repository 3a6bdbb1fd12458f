/* quantize - rows gathered from panels in the file's order, a slab at a time, then quantized over the pool */
#include <math.h>

#include "model/private.h"

int model_matrix_count(const struct model *m)
{
    int n = 0;
    for (int i = 0; i < m->plan.n_param; i++)
        n += !param_is_vector(&m->plan.params[i]);
    return n;
}

struct gather {
    const struct tensor_source *s;
    int expert;
    const int32_t *from; /* [all]: part * n_out + row that is stored there */
    int64_t row0;
    float *out; /* [rows, n_in] */
    real *wide; /* [threads, n_in], where a real is no float */
};

static void gather_row(void *ctx, int item, int thread)
{
    const struct gather *g = ctx;
    const struct param *first = &g->s->m->plan.params[g->s->first[0]];
    int32_t from = g->from[g->row0 + item];
    const struct param *p = &g->s->m->plan.params[g->s->first[from / first->n_out] + g->expert];
    float *out = g->out + (int64_t)item * p->n_in;
    real *wide = g->wide ? g->wide + thread * p->n_in : (real *)(void *)out;
    weight_get_row(wide, &p->weight, from % first->n_out);
    for (int64_t k = 0; g->wide && k < p->n_in; k++)
        out[k] = (float)wide[k];
}

static enum status stored_order(int32_t **out, const struct tensor_source *s, struct error *err)
{
    const struct param *first = &s->m->plan.params[s->first[0]];
    int32_t n_out = (int32_t)first->n_out;
    *out = mem_alloc((size_t)n_out * (size_t)s->n_part * sizeof **out);
    if (!*out)
        return fail_nomem(err, "quantize");
    for (int part = 0; part < s->n_part; part++)
        for (int32_t i = 0; i < n_out; i++) {
            const struct param *p = &s->m->plan.params[s->first[part]];
            (*out)[param_stored_row(&s->m->arch, &s->row[part], p, s->pairs, i)] = part * n_out + i;
        }
    return ST_OK;
}

/* All parts of one expert's matrix. */
static enum status hold_parts(const struct tensor_source *s, int expert, struct error *err)
{
    for (int part = 0; part < s->n_part; part++) {
        enum status st = param_hold(s->m, &s->m->plan.params[s->first[part] + expert], err);
        if (st == ST_OK)
            continue;
        while (part--)
            param_release(s->m, &s->m->plan.params[s->first[part] + expert]);
        return st;
    }
    return ST_OK;
}

static void release_parts(const struct tensor_source *s, int expert)
{
    for (int part = 0; part < s->n_part; part++)
        param_release(s->m, &s->m->plan.params[s->first[part] + expert]);
}

static enum status walk(struct gather *g, int64_t all, int64_t slab, rows_fn each, void *ctx, struct error *err)
{
    enum status st = ST_OK;
    for (g->row0 = 0; g->row0 < all && st == ST_OK; g->row0 += slab) {
        int64_t n = all - g->row0 < slab ? all - g->row0 : slab;
        pool_run(g->s->how->pool, gather_row, g, (int)n);
        st = each(ctx, g->out, g->row0, n, err);
        if (st != ST_OK && g->row0)
            st = fail_context(err, "rows from %lld on", (long long)g->row0);
    }
    return st;
}

enum status source_rows(const struct tensor_source *s, int expert, rows_fn each, void *ctx, struct error *err)
{
    enum { SLAB = 4 << 20, STEP = 16 }; /* numbers; rows */
    const struct param *p = &s->m->plan.params[s->first[0]];
    int64_t all = p->n_out * s->n_part, n_in = p->n_in, slab = (SLAB / n_in / STEP + 1) * STEP;
    bool narrow = sizeof(real) != sizeof(float);
    slab = slab < all ? slab : all;
    int32_t *from;
    TRY(stored_order(&from, s, err));
    struct gather g = {.s = s, .expert = expert, .from = from};
    g.out = mem_alloc((size_t)(slab * n_in) * sizeof *g.out);
    g.wide = narrow ? mem_alloc((size_t)(pool_threads(s->how->pool) * n_in) * sizeof *g.wide) : NULL;
    enum status st = g.out && (g.wide || !narrow) ? hold_parts(s, expert, err) : fail_nomem(err, "quantize");
    if (st == ST_OK) {
        st = walk(&g, all, slab, each, ctx, err);
        release_parts(s, expert);
    }
    mem_free(from);
    mem_free(g.out);
    mem_free(g.wide);
    return st;
}

/* ---- a tensor of a block type, or of plain numbers ---- */
struct blocks {
    struct quantize_job job;
    size_t row_bytes;
    char *out;
    struct quantize_sums sums;
    struct pool *pool;
};

static enum status put_rows(void *ctx, const float *rows, int64_t row0, int64_t n, struct error *err)
{
    struct blocks *b = ctx;
    b->job.in = rows;
    b->job.n_row = n;
    b->job.out = b->out + (size_t)row0 * b->row_bytes;
    return quantize_rows(&b->job, &b->sums, b->pool, err);
}

enum status quantize_report(struct quantized *q, const struct quantize_sums *sums, const struct model_quantize *how,
                            struct error *err)
{
    q->rms = sqrt(sums->error / (double)(q->n_out * q->n_in * q->n_expert));
    q->relative = sums->energy > 0 ? sqrt(sums->error / sums->energy) : 0;
    return how->done ? how->done(how->ctx, q, err) : ST_OK;
}

enum status quantize_tensor(void *ctx, void *out, struct error *err)
{
    const struct tensor_source *s = ctx;
    const struct param *p = &s->m->plan.params[s->first[0]];
    const struct dtype_row *d = dtype_row(s->type);
    struct quantized q = {.name = s->name,
                          .from = p->src,
                          .type = s->type,
                          .wanted = s->wanted,
                          .n_out = p->n_out * s->n_part,
                          .n_in = p->n_in,
                          .n_expert = s->n_expert};
    struct blocks b = {.job = {.type = s->type, .n = q.n_in},
                       .row_bytes = (size_t)(q.n_in / d->block * d->bytes),
                       .pool = s->how->pool};
    size_t matrix = (size_t)q.n_out * b.row_bytes;
    enum status st = ST_OK;
    for (int e = 0; e < s->n_expert && st == ST_OK; e++) {
        b.job.importance = NULL;
        b.out = (char *)out + (size_t)e * matrix;
        if (s->how->imatrix)
            st = imatrix_find(&b.job.importance, s->how->imatrix, q.name, q.n_in, s->n_expert, e, err);
        q.importance |= b.job.importance != NULL;
        if (st == ST_OK)
            st = source_rows(s, e, put_rows, &b, err);
    }
    if (st != ST_OK)
        return fail_context(err, "tensor %.*s", STR_ARG(q.name));
    q.bytes = (uint64_t)matrix * (uint64_t)s->n_expert;
    return quantize_report(&q, &b.sums, s->how, err);
}
