/* A model of the library: bundle, pool and engine, counted by the handles that need them. */
#include "sdk/sdk.h"

#include "base/log.h"
#include "base/mem.h"

/* ---- once a process: what the rooms keep that never changes afterwards ---- */
static struct {
    pthread_once_t once;
    enum status status;
    struct error error;
} start = {.once = PTHREAD_ONCE_INIT};

static void start_once(void)
{
    log_set_level(LOG_OFF); /* a library does not print */
#if defined __x86_64__
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        start.status = fail(&start.error, ST_UNSUPPORTED, "this processor lacks AVX2 and FMA, which Ingot needs");
        return;
    }
#endif
    start.status = kernels_init(NULL, &start.error);
}

/* ---- opening ---- */
static enum status read_options(struct model_options *model, struct engine_options *engine, int *threads,
                                const ingot_model_options *given, struct error *err)
{
    ingot_model_options o = {0};
    if (!SIZED_READ(o, given))
        return fail(err, ST_INVALID, "options: made for a newer library, or their size is not set (INGOT_INIT)");
    if (o.threads < 0 || o.threads > 1024 || o.context < 0 || o.streams < 0 || o.streams > 65536 || o.streams_max < 0)
        return fail(err, ST_INVALID, "options: threads 0 to 1024, context and streams not below 0");
    if (o.kv < INGOT_KV_DEFAULT || o.kv > INGOT_KV_INT8)
        return fail(err, ST_INVALID, "options: kv %d, expected INGOT_KV_F32, INGOT_KV_F16 or INGOT_KV_INT8", o.kv);
    unsigned pooling = o.pooling ? pooling_parse(str_of(o.pooling)) : 0;
    if (o.pooling && !pooling)
        return fail(
            err, ST_INVALID,
            "options: pooling \"%.40s\", expected mean, cls, last, max, sqrt or weighted, or several joined by +",
            o.pooling);
    *threads = o.threads ? o.threads : cpu_count();
    *model = (struct model_options){.n_ctx = o.context,
                                    .exact = o.exact != 0,
                                    .kv = o.kv      ? (enum kv_type)(o.kv - INGOT_KV_F32)
                                          : o.exact ? KV_F32
                                                    : KV_F16,
                                    .any_task = true,
                                    .pooling = pooling,
                                    .cache = o.cache,
                                    .progress = o.progress,
                                    .ctx = o.ctx};
    int running = o.streams ? o.streams : 64;
    if (o.streams_max && o.streams_max < running)
        running = o.streams_max;
    int waiting = !o.streams_max ? 0 : o.streams_max > running ? o.streams_max - running : -1;
    *engine = (struct engine_options){.kv_bytes = o.kv_bytes, .max_sequences = running, .queue_max = waiting};
    return ST_OK;
}

static enum status open_parts(struct ingot_model *m, const char *path, const ingot_model_options *given,
                              struct error *err)
{
    struct model_options model;
    struct engine_options engine;
    int threads = 0;
    TRY(read_options(&model, &engine, &threads, given, err));
    TRY(pool_create(&m->pool, threads, err));
    model.pool = engine.pool = m->pool;
    TRY(bundle_open(&m->bundle, path, &model, err));
    return engine_create(&m->engine, m->bundle, &engine, err);
}

int ingot_model_open(ingot_model **out, const char *path, const ingot_model_options *options, ingot_error *error)
{
    struct error err;
    *out = NULL;
    pthread_once(&start.once, start_once);
    if (start.status != ST_OK)
        return sdk_fail(error, &start.error);
    struct ingot_model *m = mem_alloc_zero(1, sizeof *m);
    if (!m)
        return sdk_refuse(error, ST_NOMEM, "out of memory for a model");
    m->users = 1;
    pthread_mutex_init(&m->lock, NULL);
    if (open_parts(m, path, options, &err) != ST_OK) {
        model_drop(m);
        return sdk_fail(error, &err);
    }
    *out = m;
    return INGOT_OK;
}

void model_hold(struct ingot_model *m)
{
    __atomic_add_fetch(&m->users, 1, __ATOMIC_RELAXED);
}

void model_drop(struct ingot_model *m)
{
    if (__atomic_sub_fetch(&m->users, 1, __ATOMIC_ACQ_REL))
        return;
    engine_destroy(m->engine);
    adapters_drop(m);
    pthread_mutex_destroy(&m->lock);
    bundle_close(m->bundle);
    pool_destroy(m->pool);
    mem_free(m);
}

void ingot_model_close(ingot_model *model)
{
    if (model)
        model_drop(model);
}

/* ---- questions ---- */
int ingot_model_describe(const ingot_model *model, ingot_model_info *info, ingot_error *error)
{
    const struct bundle *b = model->bundle;
    const struct model_config *c = model_config(b->model);
    struct engine_stats s;
    if (!info || info->size < sizeof info->size)
        return sdk_refuse(error, ST_INVALID, "info: its size is not set (INGOT_INIT)");
    engine_stats(model->engine, &s);
    const ingot_model_info all = {.name = b->id,
                                  .family = c->family,
                                  .context = s.n_ctx,
                                  .n_vocab = c->n_vocab,
                                  .n_embd = c->n_embd,
                                  .n_layer = c->n_layer,
                                  .bos = b->tokenizer ? tokenizer_bos(b->tokenizer) : c->bos,
                                  .eos = c->n_eos ? c->eos[0] : -1,
                                  .has_tokenizer = b->tokenizer != NULL,
                                  .has_template = b->template != NULL,
                                  .n_param = c->n_param,
                                  .task = (int32_t)c->task,
                                  .n_out = c->task == TASK_GENERATE ? 0 : c->n_out};
    sized_write(info, &all, sizeof all);
    return INGOT_OK;
}

int ingot_model_fingerprint(const ingot_model *model, char text[65], ingot_error *error)
{
    return ingot_adapter_fingerprint(model, NULL, text, error); /* of none */
}
