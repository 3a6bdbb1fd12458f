/* load - from a checkpoint's tensors to packed weights: every shape was checked when the plan was made */
#include "model/private.h"

#include "base/rng.h"

#include <math.h>

static enum status model_alloc(struct model **out, const struct model_options *options, struct error *err)
{
    struct model *m = mem_alloc_zero(1, sizeof *m);
    *out = m;
    if (!m)
        return fail_nomem(err, "model");
    m->options = *options;
    arena_init(&m->arch.arena, 0);
    arena_init(&m->names, 0);
    return ST_OK;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    plan_free(&m->plan);
    if (m->cached.size)
        file_unmap(&m->cached);
    arch_free(&m->arch);
    arena_free(&m->names);
    mem_free(m->params);
    mem_free(m);
}

const struct model_config *model_config(const struct model *m)
{
    return &m->arch.config;
}

/* ---- memory ---- */
static size_t param_bytes(const struct param *p)
{
    return param_is_vector(p) ? (size_t)p->count * sizeof(real) : p->weight.bytes;
}

enum { LINE = 64 };

bool model_block_bytes(size_t *out, const struct model *m)
{
    *out = 0;
    for (int i = 0; i < m->plan.n_param; i++)
        if (!size_add(out, *out, (param_bytes(&m->plan.params[i]) + LINE - 1) / LINE * LINE))
            return false;
    return true;
}

static void param_use(struct param *p, const void *memory)
{
    if (param_is_vector(p)) {
        p->vector = (real *)(uintptr_t)memory;
    } else {
        p->weight.panels = (void *)(uintptr_t)memory;
        p->weight.panel_bytes = p->weight.bytes / (size_t)((p->n_out + 15) / 16);
    }
}

void model_block_use(struct model *m, const void *block)
{
    const char *at = block;
    m->weight_bytes = 0;
    for (int i = 0; i < m->plan.n_param; i++) {
        struct param *p = &m->plan.params[i];
        size_t bytes = param_bytes(p);
        param_use(p, at);
        at += (bytes + LINE - 1) / LINE * LINE;
        m->weight_bytes += bytes;
    }
}

/* In one block, in the order in which a step reads them: small matrices share huge pages with their neighbours. On
 * pages of 4 KB one thread of a Zen 4 EPYC reads a matrix of 0.8 MB at 12 GB/s instead of 30 (2026-11). */
static enum status model_alloc_params(struct model *m, struct error *err)
{
    struct plan *plan = &m->plan;
    size_t total;
    if (!model_block_bytes(&total, m))
        return fail_nomem(err, "model");
    plan->block = mem_alloc_aligned(total);
    if (!plan->block)
        return fail(err, ST_NOMEM, "model: out of memory for %.1f MB of weights", (double)total / (1 << 20));
    model_block_use(m, plan->block);
    for (int i = 0; plan->train && i < plan->n_param; i++) {
        struct param *p = &plan->params[i];
        if (!(p->grad = mem_alloc_aligned((size_t)p->count * sizeof(real))))
            return fail_nomem(err, "model: gradients");
    }
    return ST_OK;
}

static void set_kv(struct model *m)
{
    bool keeps = m->arch.config.task == TASK_GENERATE; /* what is not kept need not be small */
    enum kv_type type = m->options.train || !keeps ? KV_F32 : m->options.kv;
    m->kv = (struct kv_layout){type, m->arch.config.n_kv_head, m->arch.config.d_head};
}

/* ---- packing ---- */
static bool rows_rotate(const struct param *p)
{
    return p->role == W_Q || p->role == W_K;
}

int32_t param_stored_row(const struct arch *a, const struct name_row *row, const struct param *p, bool pairs, int32_t i)
{
    int32_t d = a->config.d_head, half = a->rope[0].n_half, at = i % d;
    if (pairs && rows_rotate(p) && at < 2 * half)
        i = i / d * d + 2 * (at % half) + at / half;
    if (row->flags & NAME_HEADS)
        return (i / d * row->n_part + row->part) * d + i % d;
    return row->n_part ? row->part * (int32_t)p->n_out + i : i;
}

enum status param_row_map(int32_t **out, const struct arch *a, const struct name_row *row, const struct param *p,
                          struct error *err)
{
    bool plain = !row->n_part && !(a->pairs && rows_rotate(p));
    *out = NULL;
    if (plain)
        return ST_OK;
    *out = mem_alloc((size_t)p->n_out * sizeof **out);
    if (!*out)
        return fail_nomem(err, "model");
    for (int32_t i = 0; i < p->n_out; i++)
        (*out)[i] = param_stored_row(a, row, p, a->pairs, i);
    return ST_OK;
}

static enum status load_vector(struct param *p, const struct tensor *t, const int32_t *row_of, struct error *err)
{
    size_t n = (size_t)tensor_count(t);
    float *wide = mem_alloc(n * sizeof *wide);
    if (!wide)
        return fail_nomem(err, "model");
    dtype_to_f32(wide, t->type, t->data, n);
    for (int64_t i = 0; i < p->n_out; i++)
        p->vector[i] = wide[row_of ? row_of[i] : i];
    mem_free(wide);
    return ST_OK;
}

/* A tensor stored [n_in, all]: column row_of[i] becomes row i. */
static enum status load_transposed(struct param *p, const struct tensor *t, const int32_t *row_of, struct pool *pool,
                                   struct error *err)
{
    size_t element = (size_t)dtype_row(t->type)->bytes, bytes;
    size_t n_in = (size_t)p->n_in, n_out = (size_t)p->n_out, all = (size_t)t->shape[1];
    char *rows = size_mul(&bytes, n_in * n_out, element) ? mem_alloc(bytes) : NULL;
    if (!rows)
        return fail_nomem(err, "model");
    for (size_t i = 0; i < n_out; i++) {
        const char *column = (const char *)t->data + (size_t)(row_of ? row_of[i] : (int32_t)i) * element;
        for (size_t k = 0; k < n_in; k++)
            memcpy(rows + (i * n_in + k) * element, column + k * all * element, element);
    }
    weight_pack(&p->weight, rows, t->type, NULL, pool);
    mem_free(rows);
    return ST_OK;
}

/* The row of one word less that of the other, each widened, rounded once. */
static enum status load_words(struct param *p, const struct tensor *t, const struct words *w, struct pool *pool,
                              struct error *err)
{
    size_t n = (size_t)p->n_in, row_bytes = t->bytes / (size_t)t->shape[0];
    float *rows = mem_alloc_zero(2 * n, sizeof *rows);
    if (!rows)
        return fail_nomem(err, "model");
    dtype_to_f32(rows, t->type, (const char *)t->data + (size_t)w->yes * row_bytes, n);
    if (w->no >= 0)
        dtype_to_f32(rows + n, t->type, (const char *)t->data + (size_t)w->no * row_bytes, n);
    for (size_t k = 0; k < n; k++)
        rows[k] -= rows[n + k];
    weight_pack(&p->weight, rows, DT_F32, NULL, pool);
    mem_free(rows);
    return ST_OK;
}

static enum status load_param(const struct model *m, struct param *p, const struct checkpoint *ck, struct error *err)
{
    const struct name_row *row;
    const struct tensor *t = param_tensor(&row, &m->arch, ck, p);
    int32_t *row_of;
    TRY(param_row_map(&row_of, &m->arch, row, p, err));
    enum status st = ST_OK;
    size_t bytes = row->flags & NAME_STACKED ? t->bytes / (size_t)m->arch.config.n_expert : t->bytes;
    const char *data = (const char *)t->data + (row->flags & NAME_STACKED ? bytes * (size_t)p->expert : 0);
    if (arch_makes_score(&m->arch, p->role))
        st = load_words(p, t, &m->arch.sentence.words, m->options.pool, err);
    else if (param_is_vector(p))
        st = load_vector(p, t, row_of, err);
    else if (row->flags & NAME_TRANSPOSED)
        st = load_transposed(p, t, row_of, m->options.pool, err);
    else
        weight_pack(&p->weight, data, t->type, row_of, m->options.pool);
    if (m->stream)
        checkpoint_forget(ck, data, bytes);
    mem_free(row_of);
    return st;
}

enum status param_hold(const struct model *m, struct param *p, struct error *err)
{
    if (!m->stream)
        return ST_OK;
    void *memory = mem_alloc_aligned(param_bytes(p));
    if (!memory)
        return fail(err, ST_NOMEM, "model: out of memory for %.1f MB of weights", (double)param_bytes(p) / (1 << 20));
    param_use(p, memory);
    enum status st = load_param(m, p, m->stream, err);
    if (st == ST_OK) /* nobody asks again later */
        st = checkpoint_check(m->stream, err);
    if (st != ST_OK)
        param_release(m, p);
    return st;
}

void param_release(const struct model *m, struct param *p)
{
    if (!m->stream)
        return;
    mem_free(param_is_vector(p) ? (void *)p->vector : (void *)p->weight.panels);
    p->vector = NULL;
    p->weight.panels = NULL;
}

static enum status pack_params(struct model *m, const struct checkpoint *ck, struct error *err)
{
    TRY(model_alloc_params(m, err));
    for (int i = 0; i < m->plan.n_param; i++) {
        TRY(load_param(m, &m->plan.params[i], ck, err));
        if (m->options.progress)
            m->options.progress(m->options.ctx, "load", (double)(i + 1) / m->plan.n_param);
    }
    return ST_OK;
}

/* Packs every parameter, or finds the panels of an earlier start. */
static enum status load_params(struct model *m, const struct checkpoint *ck, struct error *err)
{
    struct cache cache;
    if (m->options.stream) {
        m->stream = ck;
        return ST_OK;
    }
    cache_begin(&cache, m, ck);
    m->packed = !cache.hit;
    enum status st = cache.hit ? ST_OK : pack_params(m, ck, err);
    if (st == ST_OK)
        st = checkpoint_check(ck, err);
    if (st == ST_OK)
        cache_save(&cache, m, ck);
    cache_end(&cache);
    return st;
}

/* The type most numbers have, and how many there are in truth (biases included). */
static void count_types(struct model *m)
{
    int64_t by_type[DT_COUNT] = {0};
    struct model_config *c = &m->arch.config;
    c->n_param = 0;
    for (int i = 0; i < m->plan.n_param; i++) {
        const struct param *p = &m->plan.params[i];
        c->n_param += p->n_out * p->n_in;
        by_type[p->src] += p->n_out * p->n_in;
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (by_type[t] > by_type[c->type])
            c->type = (enum dtype)t;
}

static enum status check_task(const struct model *m, struct error *err)
{
    if (!m->options.any_task && m->arch.config.task != TASK_GENERATE)
        return fail(err, ST_UNSUPPORTED,
                    "this model (%s) gives %s and generates no text: use `ingot embed` or `ingot serve`",
                    m->arch.config.family, m->arch.config.task == TASK_EMBED ? "embeddings" : "scores");
    if (m->options.train && m->arch.config.task != TASK_GENERATE)
        return fail(err, ST_UNSUPPORTED,
                    "%s: training is offered for models that generate, not for encoders, embedding "
                    "models and classifiers",
                    m->arch.config.family);
    return ST_OK;
}

static enum status model_build(struct model *m, const struct checkpoint *ck, enum dtype type, struct error *err)
{
    struct plan_want want = {.arch = &m->arch,
                             .ck = ck,
                             .type = type,
                             .train = m->options.train,
                             .keep = m->options.keep,
                             .exact = m->options.exact};
    TRY(check_task(m, err));
    TRY(plan_build(&m->plan, &want, err));
    set_kv(m);
    count_types(m);
    return ST_OK;
}

enum status model_load(struct model **out, const struct checkpoint *ck, const struct model_options *options,
                       struct error *err)
{
    struct model *m;
    *out = NULL;
    enum status st = model_alloc(&m, options, err);
    if (st == ST_OK)
        st = arch_from_checkpoint(&m->arch, ck, options, err);
    if (st == ST_OK)
        st = model_build(m, ck, DT_F32, err);
    if (st == ST_OK)
        st = load_params(m, ck, err);
    if (st == ST_OK)
        st = model_publish_params(m, err);
    if (checkpoint_check(ck, err) != ST_OK) /* whatever else was found wrong is its doing */
        st = ST_IO;
    if (st != ST_OK) {
        model_free(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

/* ---- the plan's numbers ---- */
static uint64_t run_bytes(const struct model *m, int max_rows)
{
    struct plan_rows rows = {{max_rows, (int64_t)max_rows * m->arch.config.n_expert_used, max_rows}};
    struct value *values = mem_alloc((size_t)m->plan.n_value * sizeof *values);
    size_t reals = 0;
    if (values)
        memcpy(values, m->plan.values, (size_t)m->plan.n_value * sizeof *values);
    bool placed = values && plan_place(&reals, values, &m->plan, &rows);
    mem_free(values);
    return placed ? (uint64_t)reals * sizeof(real) : 0;
}

void model_plan_of(struct model_plan *out, const struct model *m, int max_rows)
{
    const struct model_config *c = &m->arch.config;
    *out = (struct model_plan){
        .kv_bytes_per_token = model_kv_block_bytes(m) / KV_BLOCK, .run_bytes = run_bytes(m, max_rows), .config = *c};
    for (int i = 0; i < m->plan.n_param; i++) {
        const struct param *p = &m->plan.params[i];
        out->weight_bytes += param_is_vector(p) ? (uint64_t)p->count * sizeof(real) : p->weight.bytes;
        bool met = !param_is_vector(p) && p->role != W_POSITION && (p->role != W_EMBED || c->tied);
        bool expert = role_rows[p->role].expert; /* a token meets n_expert_used of n_expert */
        bool head = p->role == W_HEAD || p->role == W_EMBED;
        if (!met || (expert && p->expert >= c->n_expert_used))
            continue;
        *(head ? &out->head_flops : &out->body_flops) += 2 * (uint64_t)(p->n_out * p->n_in);
        out->step_bytes += p->weight.bytes;
    }
}

enum status model_plan(struct model_plan *out, const struct checkpoint *ck, const struct model_options *options,
                       int max_rows, struct error *err)
{
    struct model *m;
    *out = (struct model_plan){0};
    enum status st = model_alloc(&m, options, err);
    if (st == ST_OK) {
        m->options.any_task = true; /* a plan runs nothing */
        st = arch_from_checkpoint(&m->arch, ck, options, err);
    }
    if (st == ST_OK)
        st = model_build(m, ck, DT_F32, err);
    if (st == ST_OK)
        model_plan_of(out, m, max_rows);
    model_free(m);
    return st;
}

/* ---- random weights ---- */
struct random_fill {
    struct param *p;
    float scale;
    uint64_t seed;
    enum dtype src;
    size_t row_bytes;
    char *rows;
};

/* One stream a row: what a row holds does not depend on which thread draws it. */
static void random_row(void *ctx, int item, int thread)
{
    (void)thread;
    const struct random_fill *f = ctx;
    enum { CHUNK = 256 }; /* a multiple of every block */
    float wide[CHUNK];
    struct rng rng;
    rng_init(&rng, f->seed + (uint64_t)item);
    char *out = f->rows + (size_t)item * f->row_bytes;
    const struct dtype_row *d = dtype_row(f->src);
    for (int64_t k = 0; k < f->p->n_in; k += CHUNK) {
        int64_t n = f->p->n_in - k < CHUNK ? f->p->n_in - k : CHUNK;
        for (int64_t i = 0; i < n; i++)
            wide[i] = rng_normal(&rng) * f->scale;
        enum status st = dtype_from_f32(out + k / d->block * d->bytes, f->src, wide, (size_t)n, NULL);
        (void)st; /* the type was checked by model_random */
    }
}

static enum status random_matrix(struct model *m, struct param *p, uint64_t seed, float scale, struct error *err)
{
    enum { ROWS = 4096 }; /* a multiple of 16: panels are filled a slab at a time */
    struct random_fill f = {.p = p, .scale = scale, .src = p->src};
    const struct dtype_row *d = dtype_row(p->src);
    f.row_bytes = (size_t)(p->n_in / d->block * d->bytes);
    f.rows = mem_alloc((size_t)(p->n_out < ROWS ? p->n_out : ROWS) * f.row_bytes);
    if (!f.rows)
        return fail_nomem(err, "model");
    for (int64_t row = 0; row < p->n_out; row += ROWS) {
        int64_t n = p->n_out - row < ROWS ? p->n_out - row : ROWS;
        f.seed = seed + (uint64_t)row;
        pool_run(m->options.pool, random_row, &f, (int)n);
        struct weight slab = p->weight;
        slab.n_out = n;
        slab.bytes = weight_bytes(slab.type, n, p->n_in);
        slab.panels = (char *)p->weight.panels + weight_bytes(slab.type, row, p->n_in);
        weight_pack(&slab, f.rows, p->src, NULL, m->options.pool);
        p->weight.panel_bytes = slab.panel_bytes;
    }
    mem_free(f.rows);
    return ST_OK;
}

static enum status random_params(struct model *m, uint64_t seed, struct error *err)
{
    for (int i = 0; i < m->plan.n_param; i++) {
        struct param *p = &m->plan.params[i];
        if (param_is_vector(p)) {
            for (int64_t k = 0; k < p->count; k++)
                p->vector[k] = p->bias ? 0 : 1;
            continue;
        }
        double scale = m->arch.init_range;
        bool residual = p->role == W_O || p->role == W_DOWN;
        if (residual && strcmp(m->arch.family->name, "gpt2") == 0)
            scale /= sqrt(2.0 * m->arch.config.n_layer); /* as transformers starts GPT-2 */
        uint64_t stream = seed * 0x9e3779b97f4a7c15u + ((uint64_t)i << 32);
        TRY(random_matrix(m, p, stream, (float)scale, err));
        if (m->options.progress)
            m->options.progress(m->options.ctx, "random", (double)(i + 1) / m->plan.n_param);
    }
    return ST_OK;
}

enum status model_random(struct model **out, const struct json *config, enum dtype type, uint64_t seed,
                         const struct model_options *options, struct error *err)
{
    *out = NULL;
    if (!dtype_is_float(type) && weight_type(type) != type)
        return fail(err, ST_UNSUPPORTED, "model: random weights of type %s are not offered", dtype_row(type)->name);
    struct model *m;
    enum status st = model_alloc(&m, options, err);
    if (st == ST_OK)
        st = arch_from_json(&m->arch, config, options, err);
    if (st == ST_OK)
        st = model_build(m, NULL, type, err);
    if (st == ST_OK)
        st = model_alloc_params(m, err);
    if (st == ST_OK)
        st = random_params(m, seed, err);
    if (st == ST_OK)
        st = model_publish_params(m, err);
    if (st != ST_OK) {
        model_free(m);
        return st;
    }
    *out = m;
    return ST_OK;
}
