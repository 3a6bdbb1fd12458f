/* real - models made by the model and engine rooms */
#include "hosting/hosting.h"

#include "base/mem.h"

/* What the engine would take by itself could be everything: with several models, a quarter of the budget at most. */
static uint64_t kv_bytes(const struct hosting_model *m, const struct model_plan *plan)
{
    if (m->engine.kv_bytes)
        return m->engine.kv_bytes;
    uint64_t contexts = 4 * plan->kv_bytes_per_token * (uint64_t)plan->config.n_ctx, quarter = memory_available() / 4;
    return quarter && quarter < contexts ? quarter : contexts;
}

static enum status plan(struct model_plan *out, const struct hosting_model *m, struct error *err)
{
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, m->path, err));
    enum status st = model_plan(out, ck, &m->model, 512, err);
    checkpoint_close(ck);
    return st;
}

static enum status real_measure(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *err)
{
    struct model_plan p;
    (void)ctx;
    TRY(plan(&p, m, err));
    *bytes = p.weight_bytes + p.run_bytes + kv_bytes(m, &p);
    return ST_OK;
}

static void real_close(void *ctx, struct hosted_parts *parts)
{
    (void)ctx;
    engine_destroy(parts->engine);
    bundle_close(parts->bundle);
    pool_destroy(parts->pool);
    *parts = (struct hosted_parts){0};
}

static enum status open_parts(struct hosted_parts *out, const struct hosting_model *m, struct error *err)
{
    struct model_options model = m->model;
    struct engine_options engine = m->engine;
    struct model_plan p;
    TRY(pool_create(&out->pool, m->n_thread > 0 ? m->n_thread : cpu_count(), err));
    model.pool = engine.pool = out->pool;
    TRY(bundle_open(&out->bundle, m->path, &model, err));
    model_plan_of(&p, out->bundle->model, 512);
    engine.kv_bytes = kv_bytes(m, &p);
    out->bytes = p.weight_bytes + p.run_bytes + engine.kv_bytes;
    TRY(engine_create(&out->engine, out->bundle, &engine, err));
    bundle_fingerprint_begin(out->bundle);
    return ST_OK;
}

static enum status real_open(void *ctx, struct hosted_parts *out, const struct hosting_model *m, struct error *err)
{
    *out = (struct hosted_parts){0};
    enum status st = open_parts(out, m, err);
    if (st != ST_OK)
        real_close(ctx, out);
    return st;
}

static enum status real_open_lora(void *ctx, struct lora **out, const struct hosted_parts *base, const char *path,
                                  struct error *err)
{
    (void)ctx;
    return lora_open(out, base->bundle->model, path, NULL, err);
}

static void real_close_lora(void *ctx, struct lora *l)
{
    (void)ctx;
    lora_drop(l);
}

static void real_hold_lora(void *ctx, struct lora *l)
{
    (void)ctx;
    lora_hold(l);
}

static const char *real_lora_digest(void *ctx, const struct lora *l)
{
    (void)ctx;
    return lora_digest(l);
}

const struct hosting_maker hosting_real = {.measure = real_measure,
                                           .open = real_open,
                                           .close = real_close,
                                           .open_lora = real_open_lora,
                                           .hold_lora = real_hold_lora,
                                           .close_lora = real_close_lora,
                                           .lora_digest = real_lora_digest};
