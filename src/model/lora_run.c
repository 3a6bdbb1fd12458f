/* lora_run - a batch's rows meet their adapters: out += B (A x), after the base product and before anything else
 *
 * 1. Every row's numbers are made of its own x alone: A and B are panels of f32, whose products do not depend on how
 *    many rows they meet. So rows are gathered by adapter, in parts that fit the scratch, as is most convenient.
 * 2. Steps are done together (fuse.c) where that keeps the sums in this order: where an adapter would stand between a
 *    product and what follows, they are done one by one, which gives every row the same bits.
 */
#include "model/lora_private.h"

enum { SCRATCH_REALS = 1 << 20 };

/* The widest a row's x, u and v can be together: the head's, mostly. */
static size_t row_reals(const struct model *m)
{
    int64_t most = 0;
    for (int i = 0; i < m->plan.n_param; i++) {
        const struct param *p = &m->plan.params[i];
        most = p->n_in + p->n_out > most ? p->n_in + p->n_out : most;
    }
    return (size_t)most + LORA_RANK_MAX;
}

enum status lora_run_alloc(struct model_run *r, struct error *err)
{
    if (r->m->plan.train)
        return ST_OK;
    size_t row = row_reals(r->m);
    r->lora_reals = row > SCRATCH_REALS ? row : SCRATCH_REALS;
    r->lora_scratch = mem_alloc(r->lora_reals * sizeof(real)); /* not touched before an adapter comes */
    r->row_loras = mem_alloc_zero((size_t)r->max_rows, sizeof *r->row_loras);
    r->loras = mem_alloc_zero((size_t)r->max_rows, sizeof *r->loras);
    r->lora_rows = mem_alloc_zero((size_t)r->max_rows, sizeof *r->lora_rows);
    return r->lora_scratch && r->row_loras && r->loras && r->lora_rows ? ST_OK : fail_nomem(err, "run");
}

void lora_run_free(struct model_run *r)
{
    mem_free(r->lora_scratch);
    mem_free(r->row_loras);
    mem_free(r->loras);
    mem_free(r->lora_rows);
}

void lora_run_begin(struct model_run *r, const struct model_batch *b)
{
    r->n_lora = 0;
    for (int s = 0; b->loras && s < b->n_span; s++) {
        const struct lora *l = b->loras[s];
        int i = 0;
        while (i < r->n_lora && r->loras[i] != l)
            i++;
        if (l && i == r->n_lora)
            r->loras[r->n_lora++] = l;
    }
    for (int s = 0; r->n_lora && s < b->n_span; s++)
        for (int i = 0; i < b->spans[s].n_row; i++)
            r->row_loras[b->spans[s].row0 + i] = b->loras[s];
}

static const struct lora_pair *pair_of(const struct lora *l, const struct model *m, const struct step *s)
{
    if (s->op != OP_LINEAR || s->n_param != 1)
        return NULL; /* several: experts, which have none */
    const struct lora_pair *p = m->plan.params[s->param].role == W_EMBED ? &l->head : &l->pairs[s->param];
    return p->a.panels ? p : NULL;
}

bool lora_meets(const struct model_run *r, const struct step *s)
{
    for (int i = 0; i < r->n_lora; i++)
        if (pair_of(r->loras[i], r->m, s))
            return true;
    return false;
}

/* n of the adapter's rows, as listed in rows. */
static void add_part(struct model_run *r, const struct step *s, const struct lora_pair *p, const int32_t *rows,
                     int64_t n)
{
    int64_t n_in = p->a.n_in, n_out = p->b.n_out, rank = p->a.n_out;
    real *x = r->lora_scratch, *u = x + n * n_in, *v = u + n * rank, *out = value_data(r, s->out);
    struct act act;
    rows_gather(x, value_data(r, s->in[0]), rows, n, n_in, r->pool);
    act_prepare(&act, ACT_REAL, NULL, x, n, n_in, r->pool);
    linear_forward(u, &act, &p->a, NULL, r->pool);
    act_prepare(&act, ACT_REAL, NULL, u, n, rank, r->pool);
    linear_forward(v, &act, &p->b, NULL, r->pool);
    for (int64_t i = 0; i < n; i++)
        add_forward(out + rows[i] * n_out, out + rows[i] * n_out, v + i * n_out, n_out, NULL);
}

void lora_add(struct model_run *r, const struct step *s)
{
    for (int i = 0; i < r->n_lora; i++) {
        const struct lora_pair *p = pair_of(r->loras[i], r->m, s);
        int64_t n = 0, part;
        if (!p)
            continue;
        bool selected = r->values[s->in[0]].space == ROWS_LOGIT;
        for (int64_t k = 0; k < value_rows(r, s->in[0]); k++)
            if (r->row_loras[selected ? r->selected[k] : k] == r->loras[i])
                r->lora_rows[n++] = (int32_t)k;
        int64_t most = (int64_t)r->lora_reals / (p->a.n_in + p->a.n_out + p->b.n_out);
        for (int64_t at = 0; at < n; at += part) {
            part = n - at < most ? n - at : most;
            add_part(r, s, p, r->lora_rows + at, part);
        }
    }
}
