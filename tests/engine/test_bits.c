/* Real arithmetic: the same ids and log-probabilities, bit for bit, whatever the companions, the chunk, the threads of
 * the pool, preemption, and what the cache has of the prompt. Small random models: a dense one, one with sliding
 * window, one with experts; each weight type. */
#include "test.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_private.h"

static struct error err;

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err);
}

static const char *const configs[] = {
    "{\"model_type\":\"llama\",\"vocab_size\":257,\"hidden_size\":96,\"num_hidden_layers\":2,\"num_attention_heads\":5,"
    "\"num_key_value_heads\":1,\"head_dim\":32,\"intermediate_size\":160,\"max_position_embeddings\":512,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":true,\"initializer_range\":0.3}",
    "{\"model_type\":\"mistral\",\"vocab_size\":300,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":"
    "4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":96,\"max_position_embeddings\":512,\"sliding_window\":48,"
    "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":false,\"initializer_range\":0.3}",
    "{\"model_type\":\"mixtral\",\"vocab_size\":257,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":"
    "4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":96,\"max_position_embeddings\":512,\"num_local_experts\":4,"
    "\"num_experts_per_tok\":2,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"tie_word_embeddings\":false,"
    "\"initializer_range\":0.3}",
};

enum { REQUESTS = 8, EVENTS = 420, CTX = 512 };

struct job {
    struct request r;
    int32_t prompt[CTX];
    int n;
    struct {
        int32_t id;
        float logprob, top[3];
    } events[EVENTS];
    enum finish finish;
};

struct crowd {
    struct job jobs[REQUESTS];
    int left; /* atomic */
};

static struct crowd *crowd_now; /* whose requests run: one at a time */

static void on_token(void *ctx, const struct token_event *e)
{
    struct job *j = ctx;
    assert_true(j->n < EVENTS);
    j->events[j->n].id = e->id;
    j->events[j->n].logprob = e->is_prompt && j->n == 0 ? 0 : e->logprob;
    for (int i = 0; i < e->n_top && i < 3; i++)
        j->events[j->n].top[i] = e->top[i].logit;
    j->n++;
}

static void on_finish(void *ctx, const struct finish_event *e)
{
    struct job *j = ctx;
    double sum = 0; /* of the answer's own */
    for (int i = j->r.echo_logprobs ? j->r.n_prompt : 0; i < j->n; i++)
        sum += (double)j->events[i].logprob;
    assert_true(sum == e->logprob && e->n_output == j->r.sampling.max_tokens);
    j->finish = e->finish;
    __atomic_sub_fetch(&crowd_now->left, 1, __ATOMIC_ACQ_REL);
}

static void crowd_init(struct crowd *c, int n_vocab)
{
    struct rng r;
    rng_init(&r, 99);
    memset(c, 0, sizeof *c);
    for (int i = 0; i < REQUESTS; i++) {
        struct job *j = &c->jobs[i];
        j->r = (struct request){.prompt = j->prompt, .ctx = j, .on_token = on_token, .on_finish = on_finish};
        j->r.n_prompt = i == 0 ? 300 : 1 + (int)rng_below(&r, 90); /* over one segment of 256 too */
        for (int k = 0; k < j->r.n_prompt; k++)
            j->prompt[k] = (int32_t)rng_below(&r, (uint64_t)n_vocab);
        if (i % 2) /* begins as others do, and ends within a block of theirs */
            memcpy(j->prompt, c->jobs[0].prompt, (size_t)j->r.n_prompt * 3 / 4 * sizeof *j->prompt);
        sampling_defaults(&j->r.sampling);
        j->r.sampling.temperature = i % 2 ? 0 : 0.8f;
        j->r.sampling.top_p = i % 4 ? 1 : 0.9f;
        j->r.sampling.seed = (uint64_t)i;
        j->r.sampling.has_seed = true;
        j->r.sampling.max_tokens = 20 + i;
        j->r.sampling.ignore_eos = true;
        j->r.sampling.n_logprobs = 3;
        j->r.echo_logprobs = i == 2;
    }
}

struct shape {
    int sequences, chunk, blocks, threads;
    bool no_cache;
};
enum mutation { HONEST, ONE_ULP_WITH_COMPANIONS, FORGETS_COPIES };

struct mutant {
    struct model_run *run;
    enum mutation mutation;
    int n_vocab;
};

static void mutant_copy(void *ctx, int32_t to, int32_t from)
{
    struct mutant *m = ctx;
    if (m->mutation != FORGETS_COPIES)
        model_run_copy_block(m->run, to, from);
}

static void mutant_forward(void *ctx, const struct model_batch *b, real *logits)
{
    struct mutant *m = ctx;
    model_forward(m->run, b, logits);
    if (m->mutation == ONE_ULP_WITH_COMPANIONS && b->n_span > 1)
        for (int i = 0; i < b->n_logit; i++)
            for (int k = 0; k < m->n_vocab; k++)
                logits[(size_t)i * (size_t)m->n_vocab + (size_t)k] *= (real)1.0000002;
}

/* Runs all requests at once in an engine of this shape. Returns how many tokens of prompts came from the cache. */
static uint64_t run_crowd(struct crowd *c, struct model *model, const struct shape *s, enum mutation mutation)
{
    int n_vocab = model_config(model)->n_vocab;
    struct engine_options o = {
        .max_sequences = s->sequences, .prefill_chunk = s->chunk, .no_prefix_cache = s->no_cache};
    struct mutant m = {.mutation = mutation, .n_vocab = n_vocab};
    struct pool *pool;
    struct engine *e;
    void *kv = mem_alloc_aligned((size_t)s->blocks * model_kv_block_bytes(model));
    OK(pool_create(&pool, s->threads, &err));
    OK(model_run_create(&m.run, model, s->sequences + s->chunk, s->sequences + ECHO_ROWS + DRAFT_ROWS, kv, s->blocks,
                        pool, &err));
    struct executor x = {.ctx = &m,
                         .forward = mutant_forward,
                         .n_vocab = n_vocab,
                         .n_ctx = CTX,
                         .n_block = s->blocks,
                         .pool = pool,
                         .copy_block = mutant_copy};
    OK(engine_create_on(&e, &x, &o, &err));
    crowd_init(c, n_vocab);
    crowd_now = c;
    c->left = REQUESTS;
    for (int i = 0; i < REQUESTS; i++)
        OK(engine_submit(e, &c->jobs[i].r, &err));
    engine_drain(e);
    assert_int_equal(__atomic_load_n(&c->left, __ATOMIC_ACQUIRE), 0);
    struct engine_stats stats;
    engine_stats(e, &stats);
    engine_destroy(e);
    model_run_free(m.run);
    pool_destroy(pool);
    mem_free(kv);
    return stats.prefix_hits;
}

static bool crowds_equal(const struct crowd *a, const struct crowd *b)
{
    for (int i = 0; i < REQUESTS; i++) {
        const struct job *p = &a->jobs[i], *q = &b->jobs[i];
        if (p->finish != FINISH_LENGTH || q->finish != FINISH_LENGTH || p->n != q->n ||
            memcmp(p->events, q->events, (size_t)p->n * sizeof *p->events))
            return false;
    }
    return true;
}

static struct model *make_model(const char *config, enum dtype type, enum kv_type kv)
{
    struct arena a;
    const struct json *json;
    struct model *model;
    struct model_options options = {.n_ctx = CTX, .kv = kv};
    arena_init(&a, 0);
    OK(json_parse(&json, &a, str_of(config), 0, &err));
    OK(model_random(&model, json, type, 7, &options, &err));
    arena_free(&a);
    return model;
}

static void test_bits_do_not_depend_on_the_shape(void **state)
{
    (void)state;
    static const struct shape shapes[] = {{8, 16, 64, 1, false}, {8, 256, 64, 2, true},
                                          {3, 7, 64, 2, false},  {8, 64, 9, 1, false} /* blocks run out: preemption */,
                                          {2, 33, 64, 3, false}, {8, 64, 9, 1, true}};
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_1};
    static const struct shape alone = {1, 512, 64, 1, true};
    struct crowd *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    uint64_t compared = 0, hits = 0;
#ifdef INGOT_SANITIZED
    enum { TYPE_STEP = 3 }; /* instrumented kernels are slow: F32 and Q8_0 */
#else
    enum { TYPE_STEP = 1 };
#endif
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t += TYPE_STEP) {
            struct model *model = make_model(configs[c], types[t], t % 3 == 0 ? KV_F32 : t % 3 == 1 ? KV_F16 : KV_INT8);
            run_crowd(want, model, &alone, HONEST);
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++, compared++) {
                hits += run_crowd(got, model, &shapes[s], HONEST);
                if (!crowds_equal(want, got))
                    fail_msg("config %zu, type %s, shape %zu: other bits than alone", c, dtype_row(types[t])->name, s);
            }
            model_free(model);
        }
    print_message("%d shapes of %d requests compared bit for bit on %s; %d tokens came from the cache\n", (int)compared,
                  REQUESTS, kernels_isa(), (int)hits);
    assert_true(hits > 100 * compared / 2);
    free(want);
    free(got);
}

static void test_bits_mutation_is_noticed(void **state)
{
    (void)state;
    static const struct shape alone = {1, 512, 64, 1, true}, together = {8, 16, 64, 1, false};
    struct crowd *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    struct model *model = make_model(configs[0], DT_F32, KV_F32);
    run_crowd(want, model, &alone, HONEST);
    run_crowd(got, model, &together, HONEST);
    assert_true(crowds_equal(want, got));
    run_crowd(got, model, &together, ONE_ULP_WITH_COMPANIONS);
    assert_false(crowds_equal(want, got));
    run_crowd(got, model, &together, FORGETS_COPIES);
    assert_false(crowds_equal(want, got));
    model_free(model);
    free(want);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_do_not_depend_on_the_shape),
        cmocka_unit_test(test_bits_mutation_is_noticed),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
