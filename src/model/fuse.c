/* fuse - which steps are done together, and doing them
 *
 * A pass over the steps finds patterns by what they read and write, whatever family they come from. Fused steps give
 * the bits of single ones: they are the same kernels on the same rows, only claimed and ordered otherwise.
 */
#include "model/private.h"

/* ---- the pass ---- */
static bool is_product(const struct plan *p, int i)
{
    const struct step *s = &p->steps[i];
    return i < p->n_step && s->op == OP_LINEAR && s->n_param == 1 && p->values[s->out].space != ROWS_EXPERT;
}

static enum act_type act_of(const struct plan *p, int i)
{
    return weight_act(&p->params[p->steps[i].param].weight);
}

/* Products from i on that read one value, prepared in one way. */
static int products(const struct plan *p, int i)
{
    int n = 0;
    while (n < LINEAR_SET_MAX && is_product(p, i + n) && p->steps[i + n].in[0] == p->steps[i].in[0] &&
           act_of(p, i + n) == act_of(p, i))
        n++;
    return n;
}

static bool is_pair(const struct plan *p, const struct step *s)
{
    return s[0].in[0] == s[1].in[0] && p->values[s[0].out].width == p->values[s[1].out].width && s[2].op == OP_GLU &&
           s[2].in[0] == s[0].out && s[2].in[1] == s[1].out;
}

static bool is_rotation(const struct step *s)
{
    return s[0].op == OP_ROPE && s[1].op == OP_ROPE && s[2].op == OP_ATTEND && s[2].in[0] == s[0].out &&
           s[2].in[1] == s[1].out && s[0].attr->rope == s[1].attr->rope;
}

static bool is_residual(const struct step *s)
{
    return s[1].op == OP_ADD && (s[1].in[0] == s[0].out) != (s[1].in[1] == s[0].out);
}

static enum fuse pattern(const struct plan *p, int i, int *n)
{
    const struct step *s = &p->steps[i];
    int left = p->n_step - i, same = products(p, i);
    *n = 1;
    if (s->op == OP_NORM && is_product(p, i + 1) && s[1].in[0] == s->out && act_of(p, i + 1) != ACT_REAL)
        return FUSE_NORM;
    *n = 3;
    if (left >= 3 && is_rotation(s))
        return FUSE_ROPE;
    if (left >= 3 && same == 2 && is_pair(p, s))
        return FUSE_GLU;
    *n = same > 1 ? same : 2;
    if (same > 1)
        return FUSE_SET;
    if (same == 1 && left >= 2 && is_residual(s))
        return FUSE_ADD;
    *n = 1;
    return FUSE_NONE;
}

void plan_fuse(struct plan *p)
{
    for (int i = 0, n; i < p->n_step; i += n) {
        p->steps[i].fuse = pattern(p, i, &n);
        for (int j = 0; j < n; j++)
            p->steps[i + j].n_fused = j ? 0 : n;
    }
}

/* ---- doing them ---- */
static void do_norm(struct model_run *r, const struct step *s)
{
    const struct arch *a = &r->m->arch;
    enum act_type type = act_of(&r->m->plan, (int)(s + 1 - r->m->plan.steps));
    norm_act_forward(&r->act, type, r->act_storage, a->family->layer_norm, value_data(r, s->out),
                     value_data(r, s->in[0]), vector_of(r, s->param), vector_of(r, s->bias), (real)a->config.norm_eps,
                     value_rows(r, s->out), r->values[s->out].width, r->pool);
    r->act_value = s->out;
}

/* Whether step s is the only one to read a value, and a product: then the value can be prepared as it is made. */
static bool begin_next(struct model_run *r, const struct step *s, int value, struct act *next)
{
    const struct plan *p = &r->m->plan;
    int i = (int)(s - p->steps);
    if (!is_product(p, i) || s->in[0] != value || act_of(p, i) == ACT_REAL ||
        p->values[value].last >= i + (s->n_fused ? s->n_fused : 1))
        return false;
    act_begin(next, act_of(p, i), r->act_spare, value_data(r, value), value_rows(r, value),
              r->m->plan.params[s->param].n_in);
    return true;
}

static void do_set(struct model_run *r, const struct step *s)
{
    struct linear_set set = {.n = s->fuse == FUSE_SET ? s->n_fused : s->fuse == FUSE_GLU ? 2 : 1};
    for (int i = 0; i < set.n; i++)
        set.parts[i] = (struct linear_part){value_data(r, s[i].out), &r->m->plan.params[s[i].param].weight,
                                            vector_of(r, s[i].bias)};
    struct act next = {.type = ACT_REAL};
    if (s->fuse == FUSE_GLU) {
        set.then = SET_GLU;
        set.fn = (int)r->m->arch.act;
        set.act = begin_next(r, &s[3], s[2].out, &next) ? &next : NULL;
        set.result = set.act && !r->n_lora ? NULL : value_data(r, s[2].out);
    } else if (s->fuse == FUSE_ADD) {
        set.then = SET_SUM;
        set.result = value_data(r, s[1].out);
        set.add = value_data(r, s[1].in[s[1].in[0] == s->out]);
    }
    run_prepare(r, s->in[0], set.parts[0].w);
    linear_forward_set(&set, &r->act, r->pool);
    if (set.act) {
        void *spare = r->act_storage;
        r->act_storage = r->act_spare;
        r->act_spare = spare;
        r->act = next;
        r->act_value = s[2].out;
    }
}

/* The rows to be turned, where their turned version lies. */
static real *turned(struct model_run *r, const struct step *s)
{
    real *out = value_data(r, s->out);
    const real *x = value_data(r, s->in[0]);
    if (out != x)
        memcpy(out, x, (size_t)value_count(r, s->out) * sizeof *out);
    return out;
}

static void do_rope(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    const struct model_config *c = &r->m->arch.config;
    struct rope_kv x = {.cs = r->angles[s->attr->rope], .n_head = c->n_head};
    x.n_half = r->m->arch.rope[s->attr->rope].n_half;
    x.q = turned(r, &s[0]);
    x.k = turned(r, &s[1]);
    x.v = value_data(r, s[2].in[2]);
    rope_kv_write(run_layer(r, &s[2]), &r->m->kv, &x, b->spans, b->n_span, r->pool);
    run_attend(r, &s[2], b);
}

void step_fused(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    if (s->fuse == FUSE_NORM)
        do_norm(r, s);
    else if (s->fuse == FUSE_ROPE)
        do_rope(r, s, b);
    else
        do_set(r, s);
}
