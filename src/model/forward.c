/* forward - a run's memory, and the walk down the steps */
#include "model/private.h"

#include "base/clock.h"

#include <assert.h>
#include <stdio.h>

const char *const model_kv_names[] = {[KV_F32] = "f32", [KV_F16] = "f16", [KV_INT8] = "int8"};

enum kv_type model_kv_type(const struct model *m)
{
    return m->kv.type;
}

size_t model_kv_block_bytes(const struct model *m)
{
    return kv_page_bytes(&m->kv) * (size_t)m->plan.n_kv;
}

/* ---- a run's memory ---- */
static enum status alloc_block(struct model_run *r, struct error *err)
{
    const struct plan *p = &r->m->plan;
    int64_t used = r->m->arch.config.n_expert_used;
    struct plan_rows rows = {{r->max_rows, r->max_rows * used, r->max_logits}};
    size_t reals, scratch = 0;
    r->values = mem_alloc((size_t)p->n_value * sizeof *r->values);
    if (!r->values)
        return fail_nomem(err, "run");
    memcpy(r->values, p->values, (size_t)p->n_value * sizeof *r->values);
    if (!plan_place(&reals, r->values, p, &rows))
        return fail_nomem(err, "run");
    r->block = mem_alloc_aligned(reals * sizeof(real));
    for (int i = 0; p->train && i < p->n_value; i++) {
        size_t n = (size_t)(rows.n[p->values[i].space] * p->values[i].width);
        scratch = n > scratch && !p->values[i].external ? n : scratch;
    }
    r->scratch = p->train ? mem_alloc_aligned(scratch * sizeof(real)) : NULL;
    return r->block && (r->scratch || !p->train) ? ST_OK : fail_nomem(err, "run");
}

/* Enough for the activations of any linear step, split by expert or not. */
static size_t act_storage_bytes(const struct model_run *r)
{
    const struct plan *p = &r->m->plan;
    size_t most = 0;
    for (int i = 0; i < p->n_step; i++) {
        const struct step *s = &p->steps[i];
        if (s->op != OP_LINEAR)
            continue;
        const struct value *in = &p->values[s->in[0]];
        int64_t rows = in->space == ROWS_LOGIT ? r->max_logits : r->max_rows;
        if (in->space == ROWS_EXPERT)
            rows *= r->m->arch.config.n_expert_used;
        for (int e = 0; e < s->n_param; e++) {
            const struct weight *w = &p->params[s->param + e].weight;
            size_t n = act_bytes(weight_act(w), rows, w->n_in);
            if (in->space == ROWS_EXPERT) /* each expert's part is rounded up to rows and lines */
                n += (size_t)s->n_param * (act_bytes(weight_act(w), 1, w->n_in) + 64);
            most = n > most ? n : most;
        }
    }
    return most;
}

static enum status alloc_tables(struct model_run *r, struct error *err)
{
    const struct arch *a = &r->m->arch;
    r->positions = mem_alloc_zero((size_t)r->max_rows, sizeof *r->positions);
    r->selected = mem_alloc_zero((size_t)r->max_logits, sizeof *r->selected);
    r->types = mem_alloc_zero((size_t)r->max_rows, sizeof *r->types);
    r->act_storage = mem_alloc_aligned(act_storage_bytes(r));
    r->act_spare = mem_alloc_aligned(r->m->plan.train ? 0 : act_storage_bytes(r));
    if (r->pool && !r->m->plan.train)
        r->attend_scratch_bytes =
            attend_scratch_bytes(&r->m->kv, a->config.n_head, a->config.n_ctx < 65536 ? a->config.n_ctx : 65536);
    r->attend_scratch = mem_alloc(r->attend_scratch_bytes);
    if (!r->positions || !r->selected || !r->types || !r->act_storage || !r->act_spare || !r->attend_scratch)
        return fail_nomem(err, "run");
    for (int t = 0; t < ROPE_TABLES; t++) {
        size_t n = (size_t)a->rope[t].n_half;
        r->inv_freq[t] = mem_alloc_zero(n, sizeof(real));
        r->angles[t] = mem_alloc_zero((size_t)r->max_rows * n * 2, sizeof(real));
        if (!r->inv_freq[t] || !r->angles[t])
            return fail_nomem(err, "run");
        for (size_t i = 0; i < n; i++)
            r->inv_freq[t][i] = a->rope[t].inv_freq[i];
    }
    return ST_OK;
}

/* One block of int32 a mixture: experts, place, from, start. */
static enum status alloc_routes(struct model_run *r, struct error *err)
{
    const struct model_config *c = &r->m->arch.config;
    size_t n = (size_t)r->max_rows * (size_t)c->n_expert_used, n_expert = (size_t)c->n_expert;
    if (r->m->plan.n_route == 0)
        return ST_OK;
    r->routes = mem_alloc_zero((size_t)r->m->plan.n_route, sizeof *r->routes);
    r->expert_acts = mem_alloc_zero(n_expert, sizeof *r->expert_acts);
    if (!r->routes || !r->expert_acts)
        return fail_nomem(err, "run");
    for (int i = 0; i < r->m->plan.n_route; i++) {
        int32_t *at = mem_alloc_zero(3 * n + n_expert + 1, sizeof *at);
        if (!at)
            return fail_nomem(err, "run");
        r->routes[i] = (struct routing){at, at + n, at + 2 * n, at + 3 * n};
    }
    return ST_OK;
}

enum status model_run_create(struct model_run **out, const struct model *m, int max_rows, int max_logits, void *kv,
                             int n_block, struct pool *pool, struct error *err)
{
    struct model_run *r = mem_alloc_zero(1, sizeof *r);
    *out = NULL;
    if (!r)
        return fail_nomem(err, "run");
    assert(max_rows > 0 && max_logits > 0 && !m->stream);
    r->m = m;
    r->pool = pool;
    r->kv = kv;
    r->n_block = n_block;
    r->kv_layer_bytes = (size_t)n_block * kv_page_bytes(&m->kv);
    r->max_rows = max_rows;
    r->max_logits = max_logits;
    enum status st = alloc_block(r, err);
    if (st == ST_OK)
        st = alloc_tables(r, err);
    if (st == ST_OK)
        st = alloc_routes(r, err);
    if (st == ST_OK)
        st = lora_run_alloc(r, err);
    if (st != ST_OK) {
        model_run_free(r);
        return st;
    }
    *out = r;
    return ST_OK;
}

/* A block's page of one layer after the other. */
static char *block_page(const struct model_run *r, int layer, int32_t block)
{
    return r->kv + (size_t)layer * r->kv_layer_bytes + (size_t)block * kv_page_bytes(&r->m->kv);
}

void model_run_copy_block(struct model_run *r, int32_t to, int32_t from)
{
    for (int i = 0; i < r->m->plan.n_kv; i++)
        memcpy(block_page(r, i, to), block_page(r, i, from), kv_page_bytes(&r->m->kv));
}

void model_run_save_block(const struct model_run *r, void *to, int32_t from)
{
    size_t page = kv_page_bytes(&r->m->kv);
    for (int i = 0; i < r->m->plan.n_kv; i++)
        memcpy((char *)to + (size_t)i * page, block_page(r, i, from), page);
}

void model_run_load_block(struct model_run *r, int32_t to, const void *from)
{
    size_t page = kv_page_bytes(&r->m->kv);
    for (int i = 0; i < r->m->plan.n_kv; i++)
        memcpy(block_page(r, i, to), (const char *)from + (size_t)i * page, page);
}

void model_run_free(struct model_run *r)
{
    if (!r)
        return;
    for (int i = 0; r->routes && i < r->m->plan.n_route; i++)
        mem_free(r->routes[i].experts);
    for (int t = 0; t < ROPE_TABLES; t++) {
        mem_free(r->inv_freq[t]);
        mem_free(r->angles[t]);
    }
    lora_run_free(r);
    mem_free(r->routes);
    mem_free(r->expert_acts);
    mem_free(r->values);
    mem_free(r->block);
    mem_free(r->scratch);
    mem_free(r->positions);
    mem_free(r->selected);
    mem_free(r->types);
    mem_free(r->act_storage);
    mem_free(r->act_spare);
    mem_free(r->attend_scratch);
    mem_free(r);
}

/* ---- a batch ---- */

/* The rows whose logits are wanted; or one for each sequence, the first of those that it is made of. */
static void select_rows(struct model_run *r, const struct model_batch *b)
{
    const struct model_config *c = &r->m->arch.config;
    bool pools = c->task != TASK_GENERATE;
    r->n[ROWS_LOGIT] = pools ? b->n_span : b->logit_rows ? b->n_logit : b->n_row;
    assert(r->n[ROWS_LOGIT] <= r->max_logits);
    for (int i = 0; pools && i < b->n_span; i++) {
        assert(b->spans[i].pos0 == 0 && b->spans[i].n_row > 0);
        r->selected[i] = b->spans[i].row0;
    }
    for (int i = 0; !pools && i < r->n[ROWS_LOGIT]; i++)
        r->selected[i] = b->logit_rows ? b->logit_rows[i] : i;
}

/* Positions, angles, row counts. */
static void run_begin(struct model_run *r, const struct model_batch *b)
{
    const struct arch *a = &r->m->arch;
    assert(b->n_row <= r->max_rows);
    r->n[ROWS_TOKEN] = b->n_row;
    r->n[ROWS_EXPERT] = (int64_t)b->n_row * a->config.n_expert_used;
    select_rows(r, b);
    lora_run_begin(r, b);
    for (int s = 0; s < b->n_span; s++)
        for (int i = 0; i < b->spans[s].n_row; i++)
            r->positions[b->spans[s].row0 + i] = a->position0 + b->spans[s].pos0 + i;
    for (int i = 0; i < b->n_row; i++)
        r->types[i] = b->types ? b->types[i] : 0;
    for (int t = 0; t < ROPE_TABLES; t++)
        if (a->rope[t].n_half)
            rope_angles(r->angles[t], r->inv_freq[t], a->rope[t].scale, r->positions, b->n_row, a->rope[t].n_half,
                        r->pool);
    r->act_value = -1;
}

/* ---- linear: activations are prepared once for all products that read the same value ---- */
static void linear_experts(struct model_run *r, const struct step *s)
{
    const struct routing *route = &r->routes[s->route];
    const struct param *p = param_of(r, s->param);
    const real *x = value_data(r, s->in[0]);
    real *out = value_data(r, s->out);
    int64_t n_in = p->n_in, n_out = p->n_out;
    char *storage = r->act_storage;
    bool prepared = r->act_value == s->in[0];
    for (int e = 0; e < s->n_param; e++) {
        int64_t row = route->start[e], n = route->start[e + 1] - row;
        if (n == 0)
            continue;
        enum act_type type = weight_act(&p[e].weight);
        if (!prepared) {
            act_prepare(&r->expert_acts[e], type, storage, x + row * n_in, n, n_in, r->pool);
            storage += (act_bytes(type, n, n_in) + 63) / 64 * 64;
        }
        linear_forward(out + row * n_out, &r->expert_acts[e], &p[e].weight, NULL, r->pool);
    }
    r->act_value = s->in[0];
}

void run_prepare(struct model_run *r, int value, const struct weight *w)
{
    enum act_type type = weight_act(w);
    if (r->act_value != value || r->act.type != type)
        act_prepare(&r->act, type, r->act_storage, value_data(r, value), value_rows(r, value), w->n_in, r->pool);
    r->act_value = value;
}

static void do_linear(struct model_run *r, const struct step *s)
{
    if (r->values[s->in[0]].space == ROWS_EXPERT) {
        linear_experts(r, s);
        return;
    }
    const struct weight *w = &param_of(r, s->param)->weight;
    run_prepare(r, s->in[0], w);
    linear_forward(value_data(r, s->out), &r->act, w, vector_of(r, s->bias), r->pool);
}

/* ---- the other operations ---- */
static void do_embed(struct model_run *r, const struct step *s, const int32_t *ids)
{
    embed_forward(value_data(r, s->out), &param_of(r, s->param)->weight, ids, value_rows(r, s->out), r->pool);
}

static void do_learned(struct model_run *r, const struct step *s, const int32_t *index)
{
    real *out = value_data(r, s->out);
    embed_forward(out, &param_of(r, s->param)->weight, index, value_rows(r, s->out), r->pool);
    add_forward(out, value_data(r, s->in[0]), out, value_count(r, s->out), r->pool);
}

static void do_norm(struct model_run *r, const struct step *s)
{
    const struct arch *a = &r->m->arch;
    int64_t n = param_of(r, s->param)->n_out, rows = value_count(r, s->out) / n; /* rows of d_head, or of n_embd */
    real *out = value_data(r, s->out), eps = (real)a->config.norm_eps;
    const real *x = value_data(r, s->in[0]), *w = vector_of(r, s->param);
    if (a->family->layer_norm)
        norm_layer_forward(out, x, w, vector_of(r, s->bias), eps, rows, n, r->pool);
    else
        norm_rms_forward(out, x, w, eps, rows, n, r->pool);
}

static void do_rope(struct model_run *r, const struct step *s)
{
    const struct arch *a = &r->m->arch;
    int t = s->attr->rope, d = a->config.d_head;
    real *out = value_data(r, s->out);
    const real *x = value_data(r, s->in[0]);
    if (out != x)
        memcpy(out, x, (size_t)value_count(r, s->out) * sizeof *out);
    rope_apply(out, r->angles[t], ROPE_HALF, value_rows(r, s->out), r->values[s->out].width / d, d, a->rope[t].n_half,
               +1, r->pool);
}

void *run_layer(const struct model_run *r, const struct step *s)
{
    return r->kv + (size_t)s->kv * r->kv_layer_bytes;
}

void run_attend(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    struct attend_attr attr = {r->m->arch.config.n_head, s->attr->scale, s->attr->window, s->attr->soft_cap,
                               s->attr->both_ways};
    attend_forward_split(value_data(r, s->out), value_data(r, s->in[0]), run_layer(r, s), &r->m->kv, &attr, b->spans,
                         b->n_span, r->attend_scratch, r->attend_scratch_bytes, r->pool);
}

static void do_attend(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    kv_write(run_layer(r, s), &r->m->kv, value_data(r, s->in[1]), value_data(r, s->in[2]), b->spans, b->n_span,
             r->pool);
    run_attend(r, s, b);
}

/* Counts, then places: within an expert, rows stay in the order of tokens. */
static void route_place(struct routing *t, int64_t n_row, int n_used, int n_expert)
{
    memset(t->start, 0, (size_t)(n_expert + 1) * sizeof *t->start);
    for (int64_t i = 0; i < n_row * n_used; i++)
        t->start[t->experts[i] + 1]++;
    for (int e = 0; e < n_expert; e++)
        t->start[e + 1] += t->start[e];
    for (int64_t i = 0; i < n_row * n_used; i++) {
        int32_t place = t->start[t->experts[i]]++;
        t->place[i] = place;
        t->from[place] = (int32_t)(i / n_used);
    }
    for (int e = n_expert; e > 0; e--) /* start[e] has moved to the end of e */
        t->start[e] = t->start[e - 1];
    t->start[0] = 0;
}

struct moe_attr model_moe_attr(const struct model *m)
{
    const struct model_config *c = &m->arch.config;
    return (struct moe_attr){c->n_expert, c->n_expert_used, m->arch.norm_top_k, 1};
}

static void do_route(struct model_run *r, const struct step *s)
{
    struct moe_attr attr = model_moe_attr(r->m);
    struct routing *t = &r->routes[s->route];
    int64_t rows = value_rows(r, s->out);
    moe_route(t->experts, value_data(r, s->out), route_probs(r, s->out), value_data(r, s->in[0]), &attr, rows, r->pool);
    route_place(t, rows, attr.n_used, attr.n_expert);
}

static void step_forward(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    real *out = value_data(r, s->out);
    const real *x = s->in[0] < 0 ? NULL : value_data(r, s->in[0]), *y = s->in[1] < 0 ? NULL : value_data(r, s->in[1]);
    int64_t rows = value_rows(r, s->out), n = r->values[s->out].width, count = rows * n;
    const struct routing *route = s->route >= 0 ? &r->routes[s->route] : NULL;
    switch (s->op) {
    case OP_EMBED:
        do_embed(r, s, b->ids);
        break;
    case OP_POSITION:
        do_learned(r, s, r->positions);
        break;
    case OP_TYPE:
        do_learned(r, s, r->types);
        break;
    case OP_NORM:
    case OP_NORM_HEAD:
        do_norm(r, s);
        break;
    case OP_LINEAR:
        do_linear(r, s);
        break;
    case OP_ROPE:
        do_rope(r, s);
        break;
    case OP_ATTEND:
        do_attend(r, s, b);
        break;
    case OP_FN:
        fn_forward(out, x, r->m->arch.act, count, r->pool);
        break;
    case OP_GLU:
        glu_forward(out, x, y, r->m->arch.act, count, r->pool);
        break;
    case OP_ADD:
        add_forward(out, x, y, count, r->pool);
        break;
    case OP_SELECT:
        rows_gather(out, x, r->selected, rows, n, r->pool);
        break;
    case OP_ROUTE:
        do_route(r, s);
        break;
    case OP_DISPATCH:
        assert(route);
        rows_gather(out, x, route->from, rows, n, r->pool);
        break;
    case OP_COMBINE:
        assert(route);
        moe_combine(out, x, y, route->place, r->m->arch.config.n_expert_used, rows, n, r->pool);
        break;
    case OP_GATE:
        gate_forward(out, x, y, rows, n, r->pool);
        break;
    case OP_POOL:
        rows_pool(out, x, r->m->arch.config.pooling, b->spans, b->n_span, r->values[s->in[0]].width, r->pool);
        break;
    case OP_TANH:
        tanh_forward(out, x, count, r->pool);
        break;
    case OP_END:
    case OP_COUNT:
        break;
    }
}

/* Steps done together, unless an adapter stands between them. */
static void steps_forward(struct model_run *r, const struct step *s, const struct model_batch *b)
{
    int n = s->fuse ? s->n_fused : 1;
    bool apart = false;
    for (int i = 0; r->n_lora && i < n; i++)
        apart |= (s->fuse == FUSE_GLU || s->fuse == FUSE_ADD) && lora_meets(r, &s[i]);
    if (s->fuse && !apart)
        step_fused(r, s, b);
    for (int i = 0; i < n; i++) {
        if (!s->fuse || apart)
            step_forward(r, &s[i], b);
        if (r->n_lora)
            lora_add(r, &s[i]);
    }
}

void model_forward(struct model_run *r, const struct model_batch *b, real *logits)
{
    uint64_t start = r->profile ? clock_ns() : 0;
    run_begin(r, b);
    r->logits = logits;
    if (r->profile)
        profile_step(r, NULL, start);
    for (int i = 0; i < r->m->plan.n_step; i += r->m->plan.steps[i].n_fused) {
        const struct step *s = &r->m->plan.steps[i];
        start = r->profile ? clock_ns() : 0;
        steps_forward(r, s, b);
        if (r->profile)
            profile_step(r, s, start);
    }
}

const real *model_run_value(const struct model_run *r, const char *name, int64_t *n_row, int64_t *n)
{
    char text[96];
    for (int i = 0; i < r->m->plan.n_value; i++) {
        const struct value *v = &r->values[i];
        if (v->layer >= 0)
            snprintf(text, sizeof text, "blk.%d.%s", v->layer, v->name);
        else
            snprintf(text, sizeof text, "%s", v->name);
        if (strcmp(text, name) != 0)
            continue;
        *n_row = value_rows(r, i);
        *n = v->width;
        return r->m->plan.keep || v->external ? value_data(r, i) : NULL;
    }
    return NULL;
}
