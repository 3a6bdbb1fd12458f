/* test_bits - a model's logits have the same bits however the work is cut: chunks, batches, threads, trainer or server
 *
 * Each comparison is also made against a model with one number of one norm a little larger: it must then differ.
 */
#include "model/support.h"

#include "base/pool.h"
#include "model/private.h"

enum { N = 150, N_VOCAB = 257 };
static int32_t ids[N];

#define SIZES                                                                                                          \
    "\"vocab_size\":257,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                         \
    "\"num_key_value_heads\":2,\"intermediate_size\":96,\"max_position_embeddings\":512,\"initializer_range\":0.2"
static const char *const dense = "{\"model_type\":\"qwen3\",\"head_dim\":16," SIZES "}";
static const char *const moe = "{\"model_type\":\"qwen2_moe\",\"num_experts\":6,\"num_experts_per_tok\":2,"
                               "\"moe_intermediate_size\":64,\"shared_expert_intermediate_size\":32," SIZES "}";

static struct model *make(const char *config, enum dtype type, struct model_options options)
{
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct model *m;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&m, doc, type, 5, &options, &err));
    arena_free(&arena);
    return m;
}

/* A 64th more: a unit in the last place would vanish where activations or keys are rounded. */
static void mutate(struct model *m)
{
    for (int i = m->plan.n_param - 1; i >= 0; i--)
        if (m->plan.params[i].vector) {
            m->plan.params[i].vector[3] += (real)(1.0 / 64);
            return;
        }
}

static real *logits_of(struct model *m, int chunk, struct pool *pool)
{
    struct bench_model b;
    real *out = malloc(sizeof(real) * N * N_VOCAB);
    bench_open(&b, m, N);
    struct model_run *own = b.run;
    struct error err;
    OK(model_run_create(&b.run, m, N, N, b.kv, b.n_block, pool, &err));
    model_run_free(own);
    bench_logits(&b, out, ids, N, chunk);
    bench_close(&b);
    return out;
}

static void check_same(const char *what, const real *a, const real *b)
{
    if (memcmp(a, b, sizeof(real) * N * N_VOCAB))
        fail_msg("%s: other bits", what);
}

static void check_cuts(const char *what, const char *config, enum dtype type, struct model_options options)
{
    struct error err;
    struct pool *pool;
    char text[128];
    OK(pool_create(&pool, 2, &err));
    real *whole = logits_of(make(config, type, options), N, NULL);
    static const int chunks[] = {1, 2, 17, 64, 149};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (int threads = 1; threads <= 2; threads++) {
            real *cut = logits_of(make(config, type, options), chunks[i], threads == 2 ? pool : NULL);
            snprintf(text, sizeof text, "%s, chunks of %d, %d threads", what, chunks[i], threads);
            check_same(text, whole, cut);
            free(cut);
        }
    struct model *mutant = make(config, type, options);
    mutate(mutant);
    real *other = logits_of(mutant, 17, pool);
    assert_memory_not_equal(whole, other, sizeof(real) * N * N_VOCAB);
    free(other);
    free(whole);
    pool_destroy(pool);
}

static void test_chunks_and_threads(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_1};
    char text[64];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        snprintf(text, sizeof text, "dense %s", dtype_row(types[i])->name);
        check_cuts(text, dense, types[i], (struct model_options){.kv = KV_F16});
    }
    check_cuts("dense q8_0 exact", dense, DT_Q8_0, (struct model_options){.exact = true});
    check_cuts("dense int8 cache", dense, DT_Q8_0, (struct model_options){.kv = KV_INT8});
    check_cuts("mixture f32", moe, DT_F32, (struct model_options){0});
    check_cuts("mixture q8_0", moe, DT_Q8_0, (struct model_options){.kv = KV_F16});
}

/* Two sequences in one batch, at different places of their contexts, and only some logits: as each alone. */
static void test_mixed_batches(void **state)
{
    (void)state;
    const char *const configs[] = {dense, moe};
    for (int c = 0; c < 2; c++) {
        struct error err;
        struct model *m = make(configs[c], DT_Q8_0, (struct model_options){.kv = KV_F16});
        real *alone = logits_of(make(configs[c], DT_Q8_0, (struct model_options){.kv = KV_F16}), N, NULL);
        struct model_run *r;
        real got[2 * N_VOCAB];
        void *kv = mem_alloc_aligned(8 * model_kv_block_bytes(m));
        OK(model_run_create(&r, m, N, N, kv, 8, NULL, &err));
        static const int32_t first[3] = {4, 0, 7}, second[3] = {1, 6, 2};
        struct attend_span start = {0, 70, 0, first};
        struct model_batch warm = {.n_row = 70, .ids = ids, .spans = &start, .n_span = 1, .logit_rows = ids};
        model_forward(r, &warm, NULL); /* n_logit = 0: a chunk of a prompt wants none */
        int32_t both[50];
        memcpy(both, ids + 70, sizeof(int32_t)); /* decode row 70 of the first; rows 0 .. 48 of the second */
        memcpy(both + 1, ids, 49 * sizeof(int32_t));
        struct attend_span spans[2] = {{0, 1, 70, first}, {1, 49, 0, second}};
        static const int32_t wanted[2] = {0, 49};
        struct model_batch mixed = {
            .n_row = 50, .ids = both, .spans = spans, .n_span = 2, .logit_rows = wanted, .n_logit = 2};
        model_forward(r, &mixed, got);
        assert_memory_equal(got, alone + 70 * N_VOCAB, N_VOCAB * sizeof(real));
        assert_memory_equal(got + N_VOCAB, alone + 48 * N_VOCAB, N_VOCAB * sizeof(real));
        assert_memory_not_equal(got, alone + 69 * N_VOCAB, N_VOCAB * sizeof(real));
        model_run_free(r);
        model_free(m);
        mem_free(kv);
        free(alone);
    }
}

/* The trainer's forward keeps what gradients read, the server's recycles: the same bits. */
static void test_trainer_equals_server(void **state)
{
    (void)state;
    const char *const configs[] = {dense, moe};
    for (int c = 0; c < 2; c++) {
        real *server = logits_of(make(configs[c], DT_F32, (struct model_options){0}), 64, NULL);
        real *trainer = logits_of(make(configs[c], DT_F32, (struct model_options){.train = true}), N, NULL);
        real *kept = logits_of(make(configs[c], DT_F32, (struct model_options){.keep = true}), N, NULL);
        check_same("trainer", server, trainer);
        check_same("kept", server, kept);
        free(server);
        free(trainer);
        free(kept);
    }
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    for (int i = 0; i < N; i++)
        ids[i] = (i * 89 + 31) % N_VOCAB;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_and_threads),
        cmocka_unit_test(test_mixed_batches),
        cmocka_unit_test(test_trainer_equals_server),
    };
    return RUN(tests);
}
