/* backward - the walk up the same steps: every operation's gradient, added where a value has several readers */
#include "model/private.h"

#include <assert.h>
#include <stdio.h>

/* ---- the public list of parameters ---- */
static void param_name(char *text, size_t size, const struct arch *a, const struct param *p)
{
    for (const struct name_row *n = a->family->names; n->role; n++) {
        if (n->role != p->role)
            continue;
        name_format(text, size, n, p->layer, p->expert, p->bias);
        if (n->n_part) { /* a part of a fused tensor has no name of its own */
            size_t at = strlen(text);
            snprintf(text + at, size - at, "[%s]", role_rows[p->role].gguf);
        }
        return;
    }
    snprintf(text, size, "%s", role_rows[p->role].gguf);
}

enum status model_publish_params(struct model *m, struct error *err)
{
    const struct plan *plan = &m->plan;
    if (!plan->train)
        return ST_OK;
    m->params = mem_alloc_zero((size_t)plan->n_param, sizeof *m->params);
    if (!m->params)
        return fail_nomem(err, "model");
    for (int i = 0; i < plan->n_param; i++) {
        struct param *p = &plan->params[i];
        bool matrix = p->vector == NULL;
        char text[192];
        param_name(text, sizeof text, &m->arch, p);
        char *name = arena_copy(&m->names, str_of(text));
        if (!name)
            return fail_nomem(err, "model");
        m->params[i] = (struct model_param){.name = name,
                                            .weight = matrix ? &p->weight : NULL,
                                            .data = matrix ? p->weight.panels : p->vector,
                                            .grad = p->grad,
                                            .count = p->count,
                                            .n_out = matrix ? p->n_out : 1,
                                            .n_in = matrix ? p->n_in : p->n_out,
                                            .decay = matrix};
    }
    return ST_OK;
}

int model_params(const struct model *m, const struct model_param **out)
{
    *out = m->params;
    return m->params ? m->plan.n_param : 0;
}

struct zero_job {
    const struct plan *plan;
};
static void zero_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct param *p = &((const struct zero_job *)ctx)->plan->params[item];
    memset(p->grad, 0, (size_t)p->count * sizeof *p->grad);
}

void model_grads_zero(struct model *m, struct pool *pool)
{
    struct zero_job job = {&m->plan};
    pool_run(pool, zero_item, &job, m->plan.n_param);
}

/* ---- gradients of values ---- */
static const real *grad_in(const struct model_run *r, int value) /* dL/dvalue, complete when its writer is reached */
{
    return r->values[value].external ? r->dlogits : r->block + r->values[value].grad_at;
}

/* Where input k's gradient is written: its place when it is the first, else the scratch that grad_done adds. */
static real *grad_out(const struct model_run *r, const struct step *s, int k)
{
    return s->first[k] ? r->block + r->values[s->in[k]].grad_at : r->scratch;
}
static void grad_done(const struct model_run *r, const struct step *s, int k)
{
    real *g = r->block + r->values[s->in[k]].grad_at;
    if (!s->first[k])
        add_forward(g, g, r->scratch, value_count(r, s->in[k]), r->pool);
}
/* The gradient passes unchanged. */
static void grad_pass(const struct model_run *r, const struct step *s, int k, const real *dy)
{
    real *g = r->block + r->values[s->in[k]].grad_at;
    int64_t count = value_count(r, s->in[k]);
    if (s->first[k])
        memcpy(g, dy, (size_t)count * sizeof *g);
    else
        add_forward(g, g, dy, count, r->pool);
}

static real *param_grad(const struct model_run *r, int index)
{
    return index < 0 ? NULL : r->m->plan.params[index].grad;
}
static const real *param_vector(const struct model_run *r, int index)
{
    return index < 0 ? NULL : r->m->plan.params[index].vector;
}

/* ---- one function an operation ---- */
static void back_linear_rows(struct model_run *r, const struct step *s, int expert, int64_t row, int64_t n,
                             const real *dy)
{
    const struct param *p = &r->m->plan.params[s->param + expert];
    const real *x = value_data(r, s->in[0]) + row * p->n_in;
    real *dx = r->block + r->values[s->in[0]].grad_at + row * p->n_in;
    dy += row * p->n_out;
    linear_backward_weight(p->grad, dy, x, n, p->n_out, p->n_in, r->pool);
    linear_backward_input(dx, dy, &p->weight, n, !s->first[0], r->pool);
}

static void back_linear(struct model_run *r, const struct step *s, const real *dy)
{
    if (r->values[s->in[0]].space == ROWS_EXPERT) {
        const int32_t *start = r->routes[s->route].start;
        for (int e = 0; e < s->n_param; e++)
            if (start[e + 1] > start[e])
                back_linear_rows(r, s, e, start[e], start[e + 1] - start[e], dy);
        return;
    }
    back_linear_rows(r, s, 0, 0, value_rows(r, s->in[0]), dy);
    if (s->bias >= 0)
        linear_backward_bias(param_grad(r, s->bias), dy, value_rows(r, s->out), r->values[s->out].width, r->pool);
}

static void back_norm(struct model_run *r, const struct step *s, const real *dy)
{
    const struct arch *a = &r->m->arch;
    int64_t n = r->m->plan.params[s->param].n_out, rows = value_count(r, s->out) / n;
    real *dx = grad_out(r, s, 0), *dw = param_grad(r, s->param), eps = (real)a->config.norm_eps;
    const real *x = value_data(r, s->in[0]), *w = param_vector(r, s->param);
    if (a->family->layer_norm)
        norm_layer_backward(dx, dw, param_grad(r, s->bias), dy, x, w, eps, rows, n, r->pool);
    else
        norm_rms_backward(dx, dw, dy, x, w, eps, rows, n, r->pool);
    grad_done(r, s, 0);
}

static void back_rope(struct model_run *r, const struct step *s, const real *dy)
{
    const struct arch *a = &r->m->arch;
    int t = s->attr->rope, d = a->config.d_head;
    real *dx = grad_out(r, s, 0);
    memcpy(dx, dy, (size_t)value_count(r, s->in[0]) * sizeof *dx);
    rope_apply(dx, r->angles[t], ROPE_HALF, value_rows(r, s->in[0]), r->values[s->in[0]].width / d, d,
               a->rope[t].n_half, -1, r->pool);
    grad_done(r, s, 0);
}

/* Q, K and V have one reader each, so that their gradients are always the first. */
static void back_attend(struct model_run *r, const struct step *s, const struct model_batch *b, const real *dy)
{
    struct attend_attr attr = {.n_head = r->m->arch.config.n_head,
                               .scale = s->attr->scale,
                               .window = s->attr->window,
                               .soft_cap = s->attr->soft_cap};
    real *g[3];
    for (int k = 0; k < 3; k++)
        g[k] = r->block + r->values[s->in[k]].grad_at;
    attend_backward(g[0], g[1], g[2], dy, value_data(r, s->in[0]), value_data(r, s->in[1]), value_data(r, s->in[2]),
                    &r->m->kv, &attr, b->spans, b->n_span, r->pool);
}

/* Gate and up have one reader each. */
static void back_glu(struct model_run *r, const struct step *s, const real *dy)
{
    glu_backward(grad_out(r, s, 0), r->block + r->values[s->in[1]].grad_at, dy, value_data(r, s->in[0]),
                 value_data(r, s->in[1]), r->m->arch.act, value_count(r, s->out), r->pool);
}

static void back_select(struct model_run *r, const struct step *s, const real *dy)
{
    real *dx = grad_out(r, s, 0);
    memset(dx, 0, (size_t)value_count(r, s->in[0]) * sizeof *dx);
    rows_scatter(dx, dy, r->selected, value_rows(r, s->out), r->values[s->out].width, r->pool);
    grad_done(r, s, 0);
}

static void back_route(struct model_run *r, const struct step *s, const real *dy)
{
    struct moe_attr attr = model_moe_attr(r->m);
    moe_route_backward(grad_out(r, s, 0), dy, r->routes[s->route].experts, route_probs(r, s->out), &attr,
                       value_rows(r, s->out), r->pool);
    grad_done(r, s, 0);
}

/* A token's gradient is the sum over the rows it was copied to. */
static void back_dispatch(struct model_run *r, const struct step *s, const real *dy)
{
    moe_combine(grad_out(r, s, 0), dy, NULL, r->routes[s->route].place, r->m->arch.config.n_expert_used,
                value_rows(r, s->in[0]), r->values[s->out].width, r->pool);
    grad_done(r, s, 0);
}

static void back_combine(struct model_run *r, const struct step *s, const real *dy)
{
    moe_combine_backward(grad_out(r, s, 0), r->block + r->values[s->in[1]].grad_at, dy, value_data(r, s->in[0]),
                         value_data(r, s->in[1]), r->routes[s->route].place, r->m->arch.config.n_expert_used,
                         value_rows(r, s->out), r->values[s->out].width, r->pool);
}

static void back_gate(struct model_run *r, const struct step *s, const real *dy)
{
    gate_backward(grad_out(r, s, 0), r->block + r->values[s->in[1]].grad_at, dy, value_data(r, s->in[0]),
                  value_data(r, s->in[1]), value_rows(r, s->out), r->values[s->out].width, r->pool);
}

static void step_backward(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    const real *dy = grad_in(r, s->out);
    int64_t rows = value_rows(r, s->out), n = r->values[s->out].width;
    const struct param *p = s->param < 0 ? NULL : &r->m->plan.params[s->param];
    switch (s->op) {
    case OP_EMBED:
        assert(p);
        embed_backward(p->grad, dy, b->ids, rows, p->n_out, n, r->pool);
        break;
    case OP_POSITION:
        assert(p);
        embed_backward(p->grad, dy, r->positions, rows, p->n_out, n, r->pool);
        grad_pass(r, s, 0, dy);
        break;
    case OP_NORM:
    case OP_NORM_HEAD:
        back_norm(r, s, dy);
        break;
    case OP_LINEAR:
        back_linear(r, s, dy);
        break;
    case OP_ROPE:
        back_rope(r, s, dy);
        break;
    case OP_ATTEND:
        back_attend(r, s, b, dy);
        break;
    case OP_FN:
        fn_backward(grad_out(r, s, 0), dy, value_data(r, s->in[0]), r->m->arch.act, rows * n, r->pool);
        grad_done(r, s, 0);
        break;
    case OP_GLU:
        back_glu(r, s, dy);
        break;
    case OP_ADD:
        grad_pass(r, s, 0, dy);
        grad_pass(r, s, 1, dy);
        break;
    case OP_SELECT:
        back_select(r, s, dy);
        break;
    case OP_ROUTE:
        back_route(r, s, dy);
        break;
    case OP_DISPATCH:
        back_dispatch(r, s, dy);
        break;
    case OP_COMBINE:
        back_combine(r, s, dy);
        break;
    case OP_GATE:
        back_gate(r, s, dy);
        break;
    case OP_TYPE: /* of models that are not trained */
    case OP_POOL:
    case OP_TANH:
    case OP_END:
    case OP_COUNT:
        break;
    }
}

void model_backward(struct model_run *r, const struct model_batch *b, const real *dlogits)
{
    r->dlogits = dlogits;
    for (int i = r->m->plan.n_step - 1; i >= 0; i--)
        step_backward(r, &r->m->plan.steps[i], b);
}
