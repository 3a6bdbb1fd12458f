/* bench_sched - how many tokens a second do many streams get, and how long do they wait while a long prompt arrives?
 *
 *   bench_sched MODEL|CONFIG.json [type [streams [context [prompt]]]]     default: q4_0, 32 streams, 500 tokens, 1000
 *
 * CONFIG.json: random weights of that type. The clock is the wall's, around whole steps: scheduling, the model,
 * sampling, text is none. The streams' own prompts are not computed (their KV blocks hold zeros); decoding runs as
 * always. Then one long prompt comes, and every step until its first token counts as one that a stream has to wait for.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/engine_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 24, STREAMS_MAX = 256, STEPS_MAX = 4096 };

struct bench {
    struct core core;
    struct model_run *run;
    bool skip; /* the streams' prompts */
    struct request requests[STREAMS_MAX + 1];
    int32_t *prompts;
    int streams, context, prompt, n_output;
    double ms[STEPS_MAX];
};

static void forward(void *ctx, const struct model_batch *m, real *logits)
{
    struct bench *b = ctx;
    if (!b->skip)
        model_forward(b->run, m, logits);
    else
        memset(logits, 0, (size_t)m->n_logit * (size_t)b->core.x.n_vocab * sizeof *logits);
}

static void copy_block(void *ctx, int32_t to, int32_t from)
{
    model_run_copy_block(((struct bench *)ctx)->run, to, from);
}

static void on_token(void *ctx, const struct token_event *e)
{
    (void)e;
    ((struct bench *)ctx)->n_output++;
}

static void on_end(void *ctx, struct seq *s, const struct finish_event *end)
{
    (void)ctx;
    (void)end;
    seq_free(s);
}

static enum status add(struct bench *b, int i, int n_prompt, struct error *err)
{
    struct request *r = &b->requests[i];
    struct seq *s;
    int32_t *ids = b->prompts + (size_t)i * (size_t)b->prompt;
    for (int k = 0; k < n_prompt; k++)
        ids[k] = (int32_t)(((int64_t)i * 7919 + (int64_t)k * 104729) % b->core.x.n_vocab);
    *r = (struct request){.prompt = ids, .n_prompt = n_prompt, .ctx = b, .on_token = on_token};
    sampling_defaults(&r->sampling);
    r->sampling.temperature = 0.8f; /* llama.cpp's defaults */
    r->sampling.top_k = 40;
    r->sampling.top_p = 0.95f;
    r->sampling.min_p = 0.05f;
    r->sampling.ignore_eos = true;
    r->sampling.has_seed = true;
    TRY(seq_create(&s, r, &b->core.x, err));
    s->order = (uint64_t)i;
    sched_add(&b->core.sched, s);
    return ST_OK;
}

static bool all_decode(const struct bench *b)
{
    for (const struct seq *s = b->core.sched.running.first; s; s = s->next)
        if (s->n_ids - s->n_done > 1)
            return false;
    return b->core.sched.running.count == b->streams;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Steps until `n` ran or the sequence of request `until` has its first token; returns how many. */
static int run_steps(struct bench *b, int n, const struct seq *until)
{
    int i = 0;
    for (; i < n && (!until || until->first_ns == 0); i++) {
        uint64_t begin = clock_ns();
        core_step(&b->core);
        b->ms[i] = (double)(clock_ns() - begin) * 1e-6;
    }
    return i;
}

static double report(struct bench *b, const char *what, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += b->ms[i];
    double rate = (double)b->streams * n / sum * 1e3;
    qsort(b->ms, (size_t)n, sizeof *b->ms, by_size);
    double median = b->ms[n / 2], p99 = b->ms[(int)(0.99 * (n - 1) + 0.5)];
    printf("%-28s %4d steps  %7.1f tok/s  median %6.1f ms  p99 %6.1f ms  most %6.1f ms\n", what, n, rate, median, p99,
           b->ms[n - 1]);
    fflush(stdout);
    return what[0] == 'w' ? p99 : median;
}

static enum status make_random(struct model **out, const char *path, const char *type,
                               const struct model_options *options, struct error *err)
{
    struct buf text = {0};
    struct arena arena;
    const struct json *config;
    int dtype = dtype_find(str_of(type));
    arena_init(&arena, 0);
    enum status st =
        dtype < 0 ? fail(err, ST_INVALID, "%s is no type", type) : file_read_all(&text, path, 1 << 20, err);
    if (st == ST_OK)
        st = json_parse(&config, &arena, buf_str(&text), 0, err);
    if (st == ST_OK)
        st = model_random(out, config, (enum dtype)dtype, 1, options, err);
    arena_free(&arena);
    buf_free(&text);
    return st;
}

static enum status make_model(struct model **out, const char *path, const char *type, struct pool *pool,
                              struct error *err)
{
    struct model_options options = {.n_ctx = 4096, .kv = KV_F16, .pool = pool, .cache = getenv("INGOT_CACHE")};
    size_t n = strlen(path);
    struct checkpoint *ck;
    if (n > 5 && !strcmp(path + n - 5, ".json"))
        return make_random(out, path, type, &options, err);
    TRY(checkpoint_open(&ck, path, err));
    enum status st = model_load(out, ck, &options, err);
    checkpoint_close(ck);
    return st;
}

static enum status measure(struct bench *b, const char *path, const char *type, struct error *err)
{
    struct engine_options o = {.max_sequences = b->streams + 1};
    struct model *model;
    struct pool *pool;
    void *base;
    TRY(pool_create(&pool, cpu_count(), err));
    TRY(make_model(&model, path, type, pool, err));
    int per_stream = kv_blocks_for(b->context + 2 * STEPS_MAX / 16), n_block = b->streams * per_stream + 64;
    void *kv = alloc_untouched((size_t)n_block * model_kv_block_bytes(model), &base);
    if (!kv)
        return fail_nomem(err, "KV cache");
    memset(kv, 0, (size_t)n_block * model_kv_block_bytes(model));
    struct executor x = {.ctx = b, .forward = forward, .copy_block = copy_block, .pool = pool, .n_block = n_block};
    x.n_vocab = model_config(model)->n_vocab;
    x.head_rows = executor_head_rows(model);
    x.n_ctx = model_config(model)->n_ctx;
    TRY(core_init(&b->core, &x, &o, err));
    TRY(model_run_create(&b->run, model, sched_rows_max(&b->core.sched), sched_logits_max(&b->core.sched), kv, n_block,
                         pool, err));
    b->core.ctx = b;
    b->core.on_end = on_end;
    for (int i = 0; i < b->streams; i++)
        TRY(add(b, i, b->context, err));
    b->skip = true;
    while (!all_decode(b))
        core_step(&b->core);
    b->core.sched.cost = (struct cost_model){.head_rows = x.head_rows}; /* nothing was computed */
    b->skip = false;
    run_steps(b, 3, NULL);
    int n = run_steps(b, STEPS, NULL);
    double median = report(b, "decoding alone", n);
    TRY(add(b, b->streams, b->prompt, err));
    const struct seq *arrived = b->core.sched.waiting.first;
    n = run_steps(b, STEPS_MAX, arrived);
    double p99 = report(b, "while a long prompt is read", n);
    printf("p99 while %d tokens are read: %.2f times the median without\n", b->prompt, p99 / median);
    return ST_OK;
}

int main(int argc, char **argv)
{
    static struct bench b;
    struct error err;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_sched MODEL|CONFIG.json [type [streams [context [prompt]]]]\n");
        return 2;
    }
    b.streams = argc > 3 ? atoi(argv[3]) : 32;
    b.context = argc > 4 ? atoi(argv[4]) : 500;
    b.prompt = argc > 5 ? atoi(argv[5]) : 1000;
    if (b.streams < 1 || b.streams > STREAMS_MAX || b.context < 1 || b.prompt < b.context || b.prompt > 4000) {
        fprintf(stderr, "bench_sched: 1 to %d streams; a prompt of at most 4000, not shorter than the context\n",
                STREAMS_MAX);
        return 2;
    }
    b.prompts = mem_alloc_zero((size_t)(b.streams + 1) * (size_t)b.prompt, sizeof *b.prompts);
    if (!b.prompts || kernels_init(NULL, &err) != ST_OK || measure(&b, argv[1], argc > 2 ? argv[2] : "q4_0", &err)) {
        fprintf(stderr, "bench_sched: %s\n", b.prompts ? err.text : "out of memory");
        return 1;
    }
    return 0; /* the process ends with everything it holds */
}
