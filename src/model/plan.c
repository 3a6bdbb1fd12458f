/* plan - slots become values, values get lifetimes, lifetimes get places */
#include "model/plan.h"

#include "base/mem.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* What the gradient of each operation reads again (bits of inputs; the output), and whether it may work in place. */
static const struct op_row {
    uint8_t reads_in;
    bool reads_out, in_place;
} op_rows[OP_COUNT] = {
    [OP_NORM] = {1, .in_place = true},
    [OP_NORM_HEAD] = {1, .in_place = true},
    [OP_LINEAR] = {1},
    [OP_ROPE] = {0, .in_place = true},
    [OP_ATTEND] = {1 | 2 | 4},
    [OP_FN] = {1, .in_place = true},
    [OP_GLU] = {1 | 2, .in_place = true},
    [OP_ADD] = {0, .in_place = true},
    [OP_ROUTE] = {0, .reads_out = true},
    [OP_COMBINE] = {1 | 2},
    [OP_GATE] = {1 | 2, .in_place = true},
    [OP_TANH] = {1, .in_place = true}, /* of models that are not trained */
};

struct builder {
    struct plan *p;
    const struct plan_want *want;
    size_t cap_step, cap_value, cap_param;
    int *params;           /* [(n_layer + 1) * W_COUNT * 2]: index of a role's first parameter, or -1 */
    int slots[SLOT_COUNT]; /* the value each slot holds now */
};

static int *param_at(const struct builder *b, int layer, enum role role, bool bias)
{
    int l = role_rows[role].global ? b->want->arch->config.n_layer : layer;
    return &b->params[((size_t)l * W_COUNT + role) * 2 + bias];
}

/* ---- parameters ---- */
static enum status shape_error(const struct builder *b, const struct tensor *t, enum role role, const int64_t *want,
                               const enum dim *dims, int n, struct error *err)
{
    char found[96], expected[96] = "", keys[160] = "";
    tensor_shape_text(found, sizeof found, t);
    for (int i = 0; i < n; i++) {
        size_t at = strlen(expected), key = strlen(keys);
        snprintf(expected + at, sizeof expected - at, "%s%lld", i ? ", " : "", (long long)want[i]);
        snprintf(keys + key, sizeof keys - key, "%s%s", i ? ", " : "", arch_dim_text(dims[i]));
    }
    return fail(
        err, ST_CORRUPT,
        "%s: tensor %.*s has shape %s, expected [%s] (%s, as the configuration says for %s); the weights and the "
        "configuration do not belong together",
        b->want->arch->config.family, STR_ARG(t->name), found, expected, keys, role_rows[role].gguf);
}

/* The shape a role's tensor must have where it lies, given how the naming stores it. */
static enum status check_shape(const struct builder *b, const struct tensor *t, const struct name_row *row,
                               const struct param *q, struct error *err)
{
    const struct role_row *r = &role_rows[q->role];
    int64_t want[3];
    enum dim dims[3];
    int n = 0, parts = row->n_part ? row->n_part : 1;
    if (row->flags & NAME_STACKED) {
        dims[n] = DIM_EXPERT;
        want[n++] = b->want->arch->config.n_expert;
    }
    bool turned = row->flags & NAME_TRANSPOSED && !q->bias;
    if (turned) {
        dims[n] = r->in;
        want[n++] = q->n_in;
    }
    dims[n] = r->out;
    want[n++] = q->n_out * parts;
    if (!turned && r->in != DIM_1 && !q->bias) {
        dims[n] = r->in;
        want[n++] = q->n_in;
    }
    bool same = t->n_dim == n;
    for (int i = 0; same && i < n; i++)
        same = t->shape[i] == want[i];
    /* A single row may be stored as a vector: Qwen2-MoE's shared gate in GGUF. */
    bool flat = q->n_out == 1 && n == 2 && t->n_dim == 1 && t->shape[0] == q->n_in;
    if (!same && !flat)
        return shape_error(b, t, q->role, want, dims, n, err);
    if (!dtype_is_float(t->type) && !dtype_is_block(t->type))
        return fail(err, ST_UNSUPPORTED, "%s: tensor %.*s has type %s, which cannot be a weight",
                    b->want->arch->config.family, STR_ARG(t->name), dtype_row(t->type)->name);
    if (t->shape[t->n_dim - 1] % dtype_row(t->type)->block || (turned && dtype_is_block(t->type)))
        return fail(err, ST_CORRUPT, "%s: tensor %.*s has rows of %lld, no multiple of a %s block",
                    b->want->arch->config.family, STR_ARG(t->name), (long long)t->shape[t->n_dim - 1],
                    dtype_row(t->type)->name);
    return ST_OK;
}

static enum status check_words(const struct builder *b, const struct tensor *t, const struct param *q,
                               struct error *err)
{
    const struct words *w = &b->want->arch->sentence.words;
    char shape[96];
    if (t->n_dim != 2 || t->shape[1] != q->n_in || !(dtype_is_float(t->type) || dtype_is_block(t->type)) ||
        t->shape[1] % dtype_row(t->type)->block || w->yes < 0 || w->yes >= t->shape[0] || w->no < -1 ||
        w->no >= t->shape[0])
        return fail(err, ST_CORRUPT, "%s: tensor %.*s has shape %s; its rows %d and %d, of %lld, were to score",
                    b->want->arch->config.family, STR_ARG(t->name), tensor_shape_text(shape, sizeof shape, t), w->yes,
                    w->no, (long long)q->n_in);
    return ST_OK;
}

static void param_types(const struct builder *b, struct param *q)
{
    bool matrix = role_rows[q->role].in != DIM_1 && !q->bias;
    if (!matrix) {
        q->count = q->n_out;
        return;
    }
    struct weight *w = &q->weight;
    *w = (struct weight){.type = b->want->train ? DT_F32 : weight_type(q->src), .n_out = q->n_out, .n_in = q->n_in};
    w->exact = b->want->exact || q->role == W_ROUTER || q->role == W_SHARED_ROUTER; /* docs/numerics.md section 5 */
    w->bytes = weight_bytes(w->type, w->n_out, w->n_in);
    q->count = w->type == DT_F32 ? (int64_t)(w->bytes / sizeof(real)) : 0;
}

/* Whether the family's own naming demands or allows a bias here. */
static unsigned bias_flags(const struct arch *a, enum role role)
{
    if (arch_makes_score(a, role))
        return 0;
    for (const struct name_row *n = arch_names(a, role, true); n->role; n++)
        if (n->role == role)
            return n->flags & (NAME_BIAS | NAME_BIAS_MAYBE);
    return 0;
}

static bool bias_wanted(const struct arch *a, enum role role)
{
    unsigned flags = bias_flags(a, role);
    if (role >= W_DENSE && role < W_DENSE + DENSE_MAX)
        return a->sentence.dense[role - W_DENSE].bias;
    bool attention = role == W_Q || role == W_K || role == W_V || role == W_O;
    bool mlp = role == W_GATE || role == W_UP || role == W_DOWN;
    return flags & NAME_BIAS || (flags & NAME_BIAS_MAYBE && ((attention && a->need_bias) || (mlp && a->need_mlp_bias)));
}

static enum status missing(const struct builder *b, const struct name_row *row, const struct param *q,
                           struct error *err)
{
    char text[128] = "?";
    if (row)
        name_format(text, sizeof text, row, q->layer, q->expert, q->bias);
    return fail(err, ST_CORRUPT, "%s: tensor %s is missing; the model needs it for %s%s", b->want->arch->config.family,
                text, role_rows[q->role].gguf, q->bias ? " (bias)" : "");
}

/* One matrix or vector: found in the checkpoint and checked, or just wanted. */
static enum status param_add(struct builder *b, struct param q, struct error *err)
{
    const struct arch *a = b->want->arch;
    if (b->want->ck) {
        const struct name_row *row = NULL;
        const struct tensor *t = param_tensor(&row, a, b->want->ck, &q);
        if (!t && q.bias && !bias_wanted(a, q.role))
            return ST_OK;
        if (!t)
            return missing(b, row, &q, err);
        bool words = arch_makes_score(a, q.role);
        TRY(words ? check_words(b, t, &q, err) : check_shape(b, t, row, &q, err));
        q.src = words ? DT_F32 : t->type;
    } else {
        bool vector = q.bias || role_rows[q.role].in == DIM_1;
        int block = dtype_row(b->want->type)->block;
        q.src = vector || q.role == W_ROUTER || q.n_in % block ? DT_F32 : b->want->type;
    }
    param_types(b, &q);
    if (!MEM_GROW(b->p->params, b->cap_param, (size_t)b->p->n_param))
        return fail_nomem(err, "plan");
    if (q.expert == 0)
        *param_at(b, q.layer, q.role, q.bias) = b->p->n_param;
    b->p->params[b->p->n_param++] = q;
    return ST_OK;
}

static enum status role_add(struct builder *b, int layer, enum role role, struct error *err)
{
    const struct arch *a = b->want->arch;
    const struct role_row *r = &role_rows[role];
    struct param q = {.role = (uint8_t)role, .layer = layer};
    q.n_out = arch_dim(a, r->out);
    q.n_in = r->in == DIM_1 ? 1 : arch_dim(a, r->in);
    for (q.expert = 0; q.expert < (r->expert ? a->config.n_expert : 1); q.expert++)
        TRY(param_add(b, q, err));
    q.expert = 0;
    q.bias = true;
    q.n_in = 1;
    unsigned flags = bias_flags(a, role);
    return flags && (b->want->ck || bias_wanted(a, role)) ? param_add(b, q, err) : ST_OK;
}

static enum status params_add(struct builder *b, struct error *err)
{
    const struct arch *a = b->want->arch;
    size_t n = ((size_t)a->config.n_layer + 1) * W_COUNT * 2;
    b->params = mem_alloc(n * sizeof *b->params);
    if (!b->params)
        return fail_nomem(err, "plan");
    for (size_t i = 0; i < n; i++)
        b->params[i] = -1;
    for (int role = 1; role < W_COUNT; role++)
        if (role_rows[role].global && arch_has(a, role))
            TRY(role_add(b, -1, role, err));
    for (int l = 0; l < a->config.n_layer; l++)
        for (int role = 1; role < W_COUNT; role++)
            if (!role_rows[role].global && arch_layer_has(a, role, l))
                TRY(role_add(b, l, role, err));
    if (a->config.tied)
        *param_at(b, -1, W_HEAD, false) = *param_at(b, -1, W_EMBED, false);
    return ST_OK;
}

/* ---- steps ---- */
static bool row_drops(const struct builder *b, const struct row *r, int layer)
{
    if (r->op == OP_ROPE)
        return b->want->arch->rope[0].n_half == 0;
    return r->role != W_NONE && *param_at(b, layer, r->role, false) < 0;
}

static int64_t out_width(const struct builder *b, const struct row *r, const struct step *s)
{
    const struct model_config *c = &b->want->arch->config;
    switch (r->op) {
    case OP_EMBED:
        return c->n_embd;
    case OP_LINEAR:
        return b->p->params[s->param].n_out;
    case OP_ROUTE:
        return c->n_expert_used + c->n_expert;
    case OP_POOL:
        return arch_dim(b->want->arch, DIM_POOLED);
    default:
        return b->p->values[s->in[0]].width;
    }
}

static uint8_t out_space(const struct builder *b, const struct step *s)
{
    switch (s->op) {
    case OP_EMBED:
    case OP_COMBINE:
        return ROWS_TOKEN;
    case OP_SELECT:
    case OP_POOL:
        return ROWS_LOGIT;
    case OP_DISPATCH:
        return ROWS_EXPERT;
    default:
        return b->p->values[s->in[0]].space;
    }
}

static enum status value_add(struct builder *b, const struct row *r, struct step *s, struct error *err)
{
    struct plan *p = b->p;
    if (!MEM_GROW(p->values, b->cap_value, (size_t)p->n_value))
        return fail_nomem(err, "plan");
    s->out = p->n_value;
    p->values[p->n_value++] = (struct value){.name = r->role ? role_rows[r->role].gguf : r->name,
                                             .layer = s->layer,
                                             .width = out_width(b, r, s),
                                             .space = out_space(b, s),
                                             .external = r->out == LOGITS,
                                             .born = p->n_step,
                                             .last = p->n_step};
    b->slots[r->out] = s->out;
    return ST_OK;
}

static bool a_pools(const struct builder *b)
{
    return b->want->arch->config.task != TASK_GENERATE;
}

static enum status row_add(struct builder *b, const struct row *r, int layer, struct error *err)
{
    struct plan *p = b->p;
    if (row_drops(b, r, layer)) {
        b->slots[r->out] = b->slots[r->in[0]];
        return ST_OK;
    }
    struct step s = {.op = r->op, .layer = layer, .param = -1, .bias = -1, .kv = -1, .route = -1, .n_fused = 1};
    for (int i = 0; i < 4; i++) {
        s.in[i] = r->in[i] ? b->slots[r->in[i]] : -1;
        assert(!r->in[i] || s.in[i] >= 0); /* a table reads a slot nobody wrote */
    }
    if (r->role) {
        s.param = *param_at(b, layer, r->role, false);
        s.n_param = role_rows[r->role].expert ? b->want->arch->config.n_expert : 1;
        s.bias = *param_at(b, layer, r->role, true);
    }
    if (layer >= 0)
        s.attr = &b->want->arch->attrs[layer][r->attr];
    if (r->op == OP_ATTEND)
        s.kv = a_pools(b) ? 0 : p->n_kv++;
    p->n_kv = a_pools(b) ? 1 : p->n_kv; /* whole sequences: nothing is kept, so that all layers share the pages */
    p->n_route += r->op == OP_ROUTE;
    s.route = p->n_route - 1;
    TRY(value_add(b, r, &s, err));
    if (!MEM_GROW(p->steps, b->cap_step, (size_t)p->n_step))
        return fail_nomem(err, "plan");
    p->steps[p->n_step++] = s;
    return ST_OK;
}

static enum status rows_add(struct builder *b, const struct row *rows, int layer, struct error *err)
{
    for (; rows->op != OP_END; rows++)
        TRY(row_add(b, rows, layer, err));
    return ST_OK;
}

static enum status steps_add(struct builder *b, struct error *err)
{
    const struct arch *a = b->want->arch;
    for (int i = 0; i < SLOT_COUNT; i++)
        b->slots[i] = -1;
    TRY(rows_add(b, arch_rows(a, -1, false), -1, err));
    for (int l = 0; l < a->config.n_layer; l++) {
        TRY(rows_add(b, arch_rows(a, l, false), l, err));
        TRY(rows_add(b, arch_rows(a, l, true), l, err));
    }
    return rows_add(b, arch_rows(a, a->config.n_layer, false), -1, err);
}

/* ---- lifetimes ---- */
static void read_at(struct value *v, int time)
{
    v->last = v->last > time ? v->last : time;
}

/* Steps that are done together read until the last of them and write from the first on. Rotation copies before it
 * begins, so that it is as if done one after the other. */
static void lifetimes_together(struct plan *p)
{
    for (int i = 0; i < p->n_step; i++) {
        int end = i + p->steps[i].n_fused - 1;
        for (int j = i; j <= end && p->steps[i].fuse != FUSE_ROPE; j++) {
            for (int k = 0; k < 4; k++)
                if (p->steps[j].in[k] >= 0 && p->values[p->steps[j].in[k]].born < i)
                    read_at(&p->values[p->steps[j].in[k]], end);
            p->values[p->steps[j].out].born = i;
        }
    }
}

static void lifetimes(struct plan *p)
{
    int n = p->n_step;
    lifetimes_together(p);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4; k++)
            if (p->steps[i].in[k] >= 0)
                read_at(&p->values[p->steps[i].in[k]], i);
    for (int i = n - 1; p->train && i >= 0; i--) {
        struct step *s = &p->steps[i];
        const struct op_row *o = &op_rows[s->op];
        int time = 2 * n - 1 - i;
        p->values[s->out].grad_last = time;
        if (o->reads_out)
            read_at(&p->values[s->out], time);
        for (int k = 0; k < 4; k++) {
            if (s->in[k] < 0)
                continue;
            struct value *v = &p->values[s->in[k]];
            if (o->reads_in >> k & 1)
                read_at(v, time);
            s->first[k] = v->grad_born == 0;
            if (s->first[k])
                v->grad_born = time;
        }
    }
    for (int i = 0; p->keep && i < p->n_value; i++)
        p->values[i].last = 2 * n;
}

enum status plan_build(struct plan *p, const struct plan_want *want, struct error *err)
{
    *p = (struct plan){.train = want->train, .keep = want->keep};
    struct builder b = {.p = p, .want = want};
    enum status st = params_add(&b, err);
    if (st == ST_OK)
        st = steps_add(&b, err);
    if (st == ST_OK && !p->train && !p->keep)
        plan_fuse(p);
    if (st == ST_OK)
        lifetimes(p);
    mem_free(b.params);
    return st;
}

void plan_free(struct plan *p)
{
    for (int i = 0; i < p->n_param; i++)
        mem_free(p->params[i].grad);
    mem_free(p->block);
    mem_free(p->steps);
    mem_free(p->values);
    mem_free(p->params);
    *p = (struct plan){0};
}

/* ---- places: buffers by size, each at the lowest offset free during its life ---- */
struct buffer {
    size_t size, at;
    int born, last;
};

static int by_size(const void *x, const void *y)
{
    const struct buffer *a = *(struct buffer *const *)x, *b = *(struct buffer *const *)y;
    if (a->size != b->size)
        return a->size < b->size ? 1 : -1;
    return a->born != b->born ? (a->born > b->born) - (a->born < b->born) : (a > b) - (a < b);
}

static bool buffer_size(size_t *out, int64_t width, int64_t rows)
{
    enum { ALIGN = 16 }; /* reals: a cache line of floats */
    size_t n;
    if (!size_mul(&n, (size_t)width, (size_t)rows) || !size_add(&n, n, ALIGN - 1))
        return false;
    *out = n & ~(size_t)(ALIGN - 1);
    return true;
}

/* placed[] is in the order of placing; O(n^2), n a few thousand. */
static bool place_one(struct buffer **placed, int n, struct buffer *b, size_t *total)
{
    size_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < n; i++) {
            const struct buffer *o = placed[i];
            bool alive = o->born <= b->last && b->born <= o->last;
            if (alive && at < o->at + o->size && o->at < at + b->size) {
                at = o->at + o->size;
                moved = true;
            }
        }
    }
    b->at = at;
    size_t end;
    if (!size_add(&end, at, b->size) || end > SIZE_MAX / sizeof(real) / 2)
        return false;
    *total = *total > end ? *total : end;
    return true;
}

/* The input whose buffer step s may take over: it dies here and has the output's size; -1 when none. */
static int reused_input(const struct plan *p, const struct step *s, int time)
{
    int tries = s->op == OP_ADD || s->op == OP_GLU ? 2 : 1;
    for (int k = 0; k < tries && op_rows[s->op].in_place; k++) {
        const struct value *in = &p->values[s->in[k]], *out = &p->values[s->out];
        if (in->last == time && in->width == out->width && in->space == out->space && !out->external)
            return s->in[k];
    }
    return -1;
}

static int value_buffers(struct plan *p, struct buffer *buffers, struct buffer **of, const struct plan_rows *rows)
{
    int n = 0;
    for (int i = 0; i < p->n_step; i++) {
        const struct step *s = &p->steps[i];
        const struct value *v = &p->values[s->out];
        of[s->out] = NULL;
        if (v->external)
            continue;
        int from = reused_input(p, s, i);
        if (from >= 0) {
            of[s->out] = of[from];
            of[s->out]->last = v->last;
            continue;
        }
        struct buffer *b = of[s->out] = &buffers[n++];
        *b = (struct buffer){.born = v->born, .last = v->last};
        if (!buffer_size(&b->size, v->width, rows->n[v->space]))
            return -1;
    }
    return n;
}

static int grad_buffers(struct plan *p, struct buffer *buffers, int n, struct buffer **of, const struct plan_rows *rows)
{
    for (int i = 0; p->train && i < p->n_value; i++) {
        const struct value *v = &p->values[i];
        if (v->external)
            continue;
        struct buffer *b = of[p->n_value + i] = &buffers[n++];
        *b = (struct buffer){.born = v->grad_born, .last = v->grad_last};
        if (!buffer_size(&b->size, v->width, rows->n[v->space]))
            return -1;
    }
    return n;
}

bool plan_place(size_t *reals, struct value *values, const struct plan *plan, const struct plan_rows *rows)
{
    struct plan p = *plan;
    p.values = values;
    size_t most = 2 * (size_t)p.n_value;
    struct buffer *buffers = mem_alloc_zero(most, sizeof *buffers);
    struct buffer **of = mem_alloc_zero(2 * most, sizeof *of), **order = of + most;
    bool done = false;
    *reals = 0;
    if (!buffers || !of)
        goto out;
    int n = value_buffers(&p, buffers, of, rows);
    n = n < 0 ? n : grad_buffers(&p, buffers, n, of, rows);
    if (n < 0)
        goto out;
    for (int i = 0; i < n; i++)
        order[i] = &buffers[i];
    qsort(order, (size_t)n, sizeof *order, by_size);
    for (int i = 0; i < n; i++)
        if (!place_one(order, i, order[i], reals))
            goto out;
    for (int i = 0; i < p.n_value; i++) {
        values[i].at = of[i] ? of[i]->at : 0;
        values[i].grad_at = of[p.n_value + i] ? of[p.n_value + i]->at : 0;
    }
    done = true;
out:
    mem_free(buffers);
    mem_free(of);
    return done;
}
