/* Paired runs: what a request answers in company, bit for bit against what it answers alone. A trained model with its
 * tokenizer; random requests (sampling, stop strings, choices, echoes, shared beginnings, salts), random engines (rows
 * a step, blocks, threads, speculation, time between tokens), and neighbours that are cancelled at any time.
 *
 * INGOT_PAIRS=100000 compares that many (minutes); the suite's number is small. INGOT_PAIRS_SEED: other ones. */
#include "test.h"

#include "base/rng.h"
#include "engine/engine.h"

#include <time.h>

#define MODEL SHARED("data/models/stories260K/stories260K.gguf")
enum { WAVE = 24, CTX = 256, BASES = 4, WAVES_AN_ENGINE = 5 };

static struct error err;

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err);
}

struct job {
    struct request r;
    int32_t prompt[CTX];
    struct logit_bias bias[2];
    struct buf told, text; /* every event's numbers; all text */
    struct finish_event end;
    char stop_text[16];
    bool doomed; /* cancelled at some time */
    int done;    /* atomic */
};

/* ---- what a request tells ---- */

static void on_token(void *ctx, const struct token_event *e)
{
    struct job *j = ctx;
    int32_t head[] = {e->id, e->is_prompt, e->n_top};
    bool first = e->is_prompt && j->told.len == 0; /* its log-probability is NaN */
    buf_append_str(&j->text, e->text);
    if (e->id < 0) /* text that was held back: part of the text alone, as where a piece ends is no answer's content */
        return;
    buf_append(&j->told, head, sizeof head);
    if (j->r.sampling.n_logprobs >= 0 && !first)
        buf_append(&j->told, &e->logprob, sizeof e->logprob);
    for (int i = 0; i < e->n_top; i++) {
        buf_append(&j->told, &e->top[i].id, sizeof e->top[i].id);
        buf_append(&j->told, &e->top[i].logit, sizeof e->top[i].logit);
    }
}

static void on_finish(void *ctx, const struct finish_event *e)
{
    struct job *j = ctx;
    j->end = *e;
    snprintf(j->stop_text, sizeof j->stop_text, "%.*s", (int)e->stop_text.len,
             e->stop_text.ptr ? e->stop_text.ptr : "");
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
}

static bool begins(const struct buf *whole, const struct buf *part)
{
    return part->len <= whole->len && (!part->len || !memcmp(whole->ptr, part->ptr, part->len));
}

/* One that was cancelled in time told a beginning. */
static bool jobs_equal(const struct job *alone, const struct job *got)
{
    if (alone->told.failed || alone->text.failed || got->told.failed || got->text.failed)
        return false;
    if (!begins(&alone->told, &got->told) || !begins(&alone->text, &got->text))
        return false;
    if (got->end.finish == FINISH_CANCELED)
        return got->doomed;
    return got->told.len == alone->told.len && got->text.len == alone->text.len &&
           got->end.finish == alone->end.finish && got->end.n_output == alone->end.n_output &&
           !strcmp(got->stop_text, alone->stop_text) &&
           !memcmp(&got->end.logprob, &alone->end.logprob, sizeof got->end.logprob);
}

/* ---- random requests ---- */

static void random_prompt(struct job *j, int32_t bases[BASES][CTX], int n_vocab, struct rng *r)
{
    int longest = rng_below(r, 4) ? 40 : CTX - 60;
    j->r.n_prompt = 1 + (int)rng_below(r, (uint64_t)longest);
    int common = rng_below(r, 3) ? (int)rng_below(r, (uint64_t)j->r.n_prompt + 1) : 0;
    const int32_t *base = bases[rng_below(r, BASES)];
    for (int i = 0; i < j->r.n_prompt; i++)
        j->prompt[i] = i < common ? base[i] : 3 + (int32_t)rng_below(r, (uint64_t)n_vocab - 3);
}

static void random_sampling(struct job *j, int n_vocab, struct rng *r)
{
    struct sampling *s = &j->r.sampling;
    sampling_defaults(s);
    s->temperature = rng_below(r, 3) ? 0.1f + (float)rng_below(r, 15) / 10 : 0;
    s->top_k = rng_below(r, 2) ? (int)rng_below(r, 50) : 0;
    s->top_p = rng_below(r, 2) ? 0.9f : 1;
    s->min_p = rng_below(r, 4) ? 0 : 0.05f;
    s->typical_p = rng_below(r, 5) ? 1 : 0.8f;
    s->repetition_penalty = rng_below(r, 4) ? 1 : 1.2f;
    s->presence_penalty = rng_below(r, 5) ? 0 : 0.5f;
    s->frequency_penalty = rng_below(r, 5) ? 0 : 0.3f;
    s->seed = rng_u64(r);
    s->has_seed = true;
    s->max_tokens = 1 + (int)rng_below(r, rng_below(r, 5) ? 24 : 140);
    s->min_tokens = rng_below(r, 6) ? 0 : (int)rng_below(r, 8);
    s->ignore_eos = rng_below(r, 3) == 0;
    s->n_logprobs = (int)rng_below(r, 5) - 1;
    if (rng_below(r, 5) == 0) {
        for (int i = 0; i < 2; i++)
            j->bias[i] =
                (struct logit_bias){3 + (int32_t)rng_below(r, (uint64_t)n_vocab - 3), (float)rng_below(r, 9) - 4};
        s->logit_bias = j->bias;
        s->n_logit_bias = j->bias[0].id != j->bias[1].id ? 2 : 1;
    }
}

static void random_job(struct job *j, int32_t bases[BASES][CTX], int n_vocab, struct rng *r)
{
    static const char *const stops[] = {" the", "e", ". ", "on", "a little", "\n"};
    *j = (struct job){.r = {.prompt = j->prompt, .ctx = j, .on_token = on_token, .on_finish = on_finish}};
    random_prompt(j, bases, n_vocab, r);
    random_sampling(j, n_vocab, r);
    for (int n = rng_below(r, 3) ? 0 : 1 + (int)rng_below(r, 3); j->r.n_stop < n; j->r.n_stop++)
        j->r.stops[j->r.n_stop] = str_of(stops[rng_below(r, sizeof stops / sizeof *stops)]);
    j->r.priority = rng_below(r, 4) ? 0 : (int)rng_below(r, 3) - 1;
    j->r.cache_salt = rng_below(r, 4) ? (struct str){NULL, 0} : STR("salt");
    j->r.echo_logprobs = rng_below(r, 12) == 0;
    j->doomed = rng_below(r, 8) == 0;
}

/* Another of the same request's choices: the prompt is shared. */
static void random_choice(struct job *j, const struct job *of)
{
    struct request *r = &j->r;
    *j = *of;
    j->told = j->text = (struct buf){0};
    r->prompt = j->prompt;
    r->ctx = j;
    if (r->sampling.n_logit_bias)
        r->sampling.logit_bias = j->bias;
    r->choice++;
}

/* ---- engines ---- */

struct world {
    struct pool *pool;
    struct bundle *bundle;
    struct engine *alone, *company;
    struct job *got, *want; /* [WAVE] */
    int32_t bases[BASES][CTX];
    uint64_t compared, cancelled, hits, accepted, preempted;
    struct rng r;
};

static void open_bundle(struct world *w, struct bundle **out, enum kv_type kv)
{
    OK(bundle_open(out, MODEL, &(struct model_options){.n_ctx = CTX, .kv = kv, .pool = w->pool}, &err));
}

static void open_engines(struct world *w)
{
    static const enum kv_type kvs[] = {KV_F32, KV_F16, KV_INT8};
    enum kv_type kv = kvs[rng_below(&w->r, 3)];
    struct engine_options alone = {.n_thread = 1, .max_sequences = 1, .prefill_chunk = CTX, .no_prefix_cache = true};
    struct engine_options o = {.n_thread = 1 + (int)rng_below(&w->r, 3),
                               .max_sequences = 2 + (int)rng_below(&w->r, WAVE),
                               .prefill_chunk = 4 + (int)rng_below(&w->r, 120),
                               .no_prefix_cache = rng_below(&w->r, 5) == 0,
                               .draft_tokens = rng_below(&w->r, 3) ? 4 : 0,
                               .itl_ms = rng_below(&w->r, 2) ? 0 : 0.2};
    open_bundle(w, &w->bundle, kv);
    uint64_t block = model_kv_block_bytes(w->bundle->model);
    alone.kv_bytes = block * (CTX / KV_BLOCK);
    o.kv_bytes = block * (CTX / KV_BLOCK + rng_below(&w->r, 3) * 6); /* as few as one sequence may need */
    if (o.draft_tokens && rng_below(&w->r, 3) == 0)
        open_bundle(w, &o.draft, kv);
    OK(engine_create(&w->alone, w->bundle, &alone, &err));
    OK(engine_create(&w->company, w->bundle, &o, &err));
}

static void close_engines(struct world *w)
{
    struct engine_stats s;
    engine_stats(w->company, &s);
    w->hits += s.prefix_hits;
    w->accepted += s.accepted;
    w->preempted += s.preemptions;
    assert_int_equal(s.blocks_free, s.blocks_total);
    engine_destroy(w->company);
    engine_destroy(w->alone);
    bundle_close(w->bundle);
}

static void run_company(struct world *w)
{
    for (int i = 0; i < WAVE; i++)
        OK(engine_submit(w->company, &w->got[i].r, &err));
    for (int i = 0; i < WAVE; i++) { /* a wave takes some tens of milliseconds */
        if (!w->got[i].doomed)
            continue;
        nanosleep(&(struct timespec){.tv_nsec = (long)rng_below(&w->r, 4000000)}, NULL);
        engine_cancel(w->company, w->got[i].r.id);
    }
    for (int i = 0; i < WAVE; i++)
        for (int k = 0; !__atomic_load_n(&w->got[i].done, __ATOMIC_ACQUIRE); k++) {
            assert_true(k < 300000);
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        }
}

/* Runs a wave of requests in company, each alone, and compares. Returns how many differ; other_seed: as they must. */
static int run_wave(struct world *w, bool other_seed)
{
    int differ = 0, n_vocab = model_config(w->bundle->model)->n_vocab;
    for (int i = 0; i < WAVE; i++) {
        if (i && rng_below(&w->r, 5) == 0)
            random_choice(&w->got[i], &w->got[i - 1]);
        else
            random_job(&w->got[i], w->bases, n_vocab, &w->r);
        random_choice(&w->want[i], &w->got[i]);
        w->want[i].r.choice = w->got[i].r.choice;
        w->want[i].r.sampling.seed += other_seed;
    }
    run_company(w);
    for (int i = 0; i < WAVE; i++) {
        struct job *got = &w->got[i], *want = &w->want[i];
        struct finish_event end;
        OK(engine_generate(w->alone, &want->r, &end, &err));
        differ += !jobs_equal(want, got);
        w->cancelled += got->end.finish == FINISH_CANCELED;
        w->compared += got->end.finish != FINISH_CANCELED;
        buf_free(&got->told);
        buf_free(&got->text);
        buf_free(&want->told);
        buf_free(&want->text);
    }
    return differ;
}

static void test_pairs(void **state)
{
    (void)state;
    NEED(MODEL);
    const char *many = getenv("INGOT_PAIRS"), *seed = getenv("INGOT_PAIRS_SEED");
#ifdef INGOT_SANITIZED
    uint64_t n = many ? strtoull(many, NULL, 10) : 100;
#else
    uint64_t n = many ? strtoull(many, NULL, 10) : 1000;
#endif
    static struct world w;
    w.got = calloc(WAVE, sizeof *w.got);
    w.want = calloc(WAVE, sizeof *w.want);
    rng_init(&w.r, seed ? strtoull(seed, NULL, 10) : 1);
    OK(pool_create(&w.pool, 1, &err));
    for (int b = 0; b < BASES; b++)
        for (int i = 0; i < CTX; i++)
            w.bases[b][i] = 3 + (int32_t)rng_below(&w.r, 500);
    for (int wave = 0; w.compared < n; wave++) {
        if (wave % WAVES_AN_ENGINE == 0) {
            if (wave)
                close_engines(&w);
            open_engines(&w);
        }
        int differ = run_wave(&w, false);
        if (differ)
            fail_msg("wave %d: %d of %d requests answered otherwise than alone", wave, differ, WAVE);
    }
    assert_true(run_wave(&w, true) > 0); /* the comparison can fail */
    close_engines(&w);
    print_message(
        "%llu pairs equal, %llu neighbours cancelled; %llu prompt tokens from the cache, %llu proposed tokens "
        "taken, %llu preemptions\n",
        (unsigned long long)w.compared, (unsigned long long)w.cancelled, (unsigned long long)w.hits,
        (unsigned long long)w.accepted, (unsigned long long)w.preempted);
    assert_true(w.cancelled > n / 100 && w.hits > n);
    if (n >= 10000) /* how many follows from what steps took */
        assert_true(w.accepted > n / 20 && w.preempted > n / 1000);
    pool_destroy(w.pool);
    free(w.got);
    free(w.want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pairs)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
