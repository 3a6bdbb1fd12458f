/* quantize - rows gathered from panels in the file's order, a slab at a time, then quantized over the pool */
#include "tensor/quantize.h"

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

/* One matrix (of one expert), a slab of rows at a time. */
static enum status quantize_matrix(struct quantized *q, const struct gather *whole, const float *importance, char *out,
                                   struct quantize_sums *sums, struct error *err)
{
    enum { SLAB = 4 << 20 }; /* numbers */
    const struct tensor_source *s = whole->s;
    struct gather g = *whole;
    int64_t n_in = q->n_in, slab = SLAB / n_in + 1;
    size_t row_bytes = (size_t)(n_in / dtype_row(s->type)->block * dtype_row(s->type)->bytes);
    slab = slab < q->n_out ? slab : q->n_out;
    bool narrow = sizeof(real) != sizeof(float);
    g.out = mem_alloc((size_t)(slab * n_in) * sizeof *g.out);
    g.wide = narrow ? mem_alloc((size_t)(pool_threads(s->how->pool) * n_in) * sizeof *g.wide) : NULL;
    enum status st = g.out && (g.wide || !narrow) ? ST_OK : fail_nomem(err, "quantize");
    for (g.row0 = 0; g.row0 < q->n_out && st == ST_OK; g.row0 += slab) {
        int64_t n = q->n_out - g.row0 < slab ? q->n_out - g.row0 : slab;
        pool_run(s->how->pool, gather_row, &g, (int)n);
        struct quantize_job job = {.type = s->type,
                                   .n_row = n,
                                   .n = n_in,
                                   .in = g.out,
                                   .importance = importance,
                                   .out = out + (size_t)g.row0 * row_bytes};
        st = quantize_rows(&job, sums, s->how->pool, err);
        if (st != ST_OK && g.row0)
            st = fail_context(err, "rows from %lld on", (long long)g.row0);
    }
    mem_free(g.out);
    mem_free(g.wide);
    return st;
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

enum status quantize_tensor(void *ctx, void *out, struct error *err)
{
    const struct tensor_source *s = ctx;
    const struct param *p = &s->m->plan.params[s->first[0]];
    struct quantized q = {.name = s->name,
                          .from = p->src,
                          .type = s->type,
                          .wanted = s->wanted,
                          .n_out = p->n_out * s->n_part,
                          .n_in = p->n_in,
                          .n_expert = s->n_expert};
    struct quantize_sums sums = {0};
    size_t matrix = (size_t)(q.n_out * (q.n_in / dtype_row(q.type)->block) * dtype_row(q.type)->bytes);
    struct gather g = {.s = s};
    int32_t *from;
    TRY(stored_order(&from, s, err));
    g.from = from;
    enum status st = ST_OK;
    for (g.expert = 0; g.expert < s->n_expert && st == ST_OK; g.expert++) {
        const float *importance = NULL;
        if (s->how->imatrix)
            st = imatrix_find(&importance, s->how->imatrix, q.name, q.n_in, s->n_expert, g.expert, err);
        q.importance |= importance != NULL;
        if (st == ST_OK)
            st = hold_parts(s, g.expert, err);
        if (st != ST_OK)
            break;
        st = quantize_matrix(&q, &g, importance, (char *)out + (size_t)g.expert * matrix, &sums, err);
        release_parts(s, g.expert);
    }
    mem_free(from);
    if (st != ST_OK)
        return fail_context(err, "tensor %.*s", STR_ARG(q.name));
    q.bytes = (uint64_t)matrix * (uint64_t)s->n_expert;
    q.rms = sqrt(sums.error / (double)(q.n_out * q.n_in * q.n_expert));
    q.relative = sums.energy > 0 ? sqrt(sums.error / sums.energy) : 0;
    return s->how->done ? s->how->done(s->how->ctx, &q, err) : ST_OK;
}
