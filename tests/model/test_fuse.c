/* test_fuse - steps done together give the bits of steps done one after the other, in every family
 *
 * One model has its steps fused, its twin (which keeps all values) runs them one by one. Each comparison is also made
 * with one operation broken on the fused side alone, and must then find other bits.
 */
#include "model/support.h"

#include "base/pool.h"
#include "kernels/kernels_private.h"
#include "model/private.h"

#define SIZES                                                                                                          \
    "\"vocab_size\":131,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                         \
    "\"intermediate_size\":96,\"max_position_embeddings\":512,\"initializer_range\":0.2"
static const char *const configs[] = {
    "{\"model_type\":\"llama\",\"num_key_value_heads\":2,\"attention_bias\":true," SIZES "}",
    "{\"model_type\":\"qwen2\",\"num_key_value_heads\":1," SIZES "}",
    "{\"model_type\":\"qwen3\",\"num_key_value_heads\":2,\"head_dim\":16," SIZES "}",
    "{\"model_type\":\"mistral\",\"num_key_value_heads\":2,\"sliding_window\":40," SIZES "}",
    "{\"model_type\":\"gpt_neox\",\"rotary_pct\":0.5," SIZES "}",
    "{\"model_type\":\"gpt2\",\"vocab_size\":131,\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"n_positions\":512,"
    "\"initializer_range\":0.2}",
    "{\"model_type\":\"qwen2_moe\",\"num_key_value_heads\":2,\"num_experts\":6,\"num_experts_per_tok\":2,"
    "\"moe_intermediate_size\":64,\"shared_expert_intermediate_size\":32," SIZES "}",
};
static const enum dtype types[] = {DT_F32, DT_BF16, DT_Q8_0, DT_Q4_0};
enum { N_VOCAB = 131, N = 200 };

static struct model *make(const char *config, enum dtype type, bool keep)
{
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct model *m;
    struct model_options options = {.keep = keep, .kv = KV_F16};
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&m, doc, type, 5, &options, &err));
    arena_free(&arena);
    return m;
}

/* A prompt in chunks of unlike sizes, then rows one by one: out [N, N_VOCAB]. */
static void run(float *out, struct bench_model *b, struct pool *pool)
{
    static const int chunks[] = {150, 3, 16, 25};
    b->run->pool = pool;
    for (int at = 0, c = 0, n; at < N; at += n, c++) {
        int32_t ids[N];
        n = c < 4 ? chunks[c] : 1;
        for (int i = 0; i < n; i++)
            ids[i] = (at + i) * 37 % N_VOCAB;
        struct attend_span span = {0, n, at, b->blocks};
        struct model_batch batch = {.n_row = n, .ids = ids, .spans = &span, .n_span = 1, .n_logit = n};
        model_forward(b->run, &batch, out + at * N_VOCAB);
    }
}

static unsigned kinds_of(const struct model *m)
{
    unsigned kinds = 0;
    int n = 0;
    for (int i = 0; i < m->plan.n_step; i++) {
        kinds |= 1u << m->plan.steps[i].fuse;
        n += m->plan.steps[i].n_fused;
    }
    assert_int_equal(n, m->plan.n_step); /* every step is done once */
    return kinds;
}

/* ---- operations broken ---- */
static void broken_add(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++)
        job->out[i] = (job->a[i] + job->b[i]) * 1.01f;
}
static void broken_glu(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    map_glu__ref(ctx, i0, i1);
    for (int64_t i = i0; i < i1; i++)
        job->out[i] *= 1.01f;
}
static void broken_rope(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rope_job *job = ctx;
    rope_turn__ref(ctx, row0, row1);
    for (int64_t i = row0 * job->n_head * job->d_head; i < row1 * job->n_head * job->d_head; i++)
        job->x[i] *= 1.01f;
}

static void mend(void)
{
    struct error err;
    OK(kernels_init(NULL, &err));
}

static unsigned check(const char *config, enum dtype type, struct pool *pool)
{
    static float together[N * N_VOCAB], alone[N * N_VOCAB];
    struct bench_model fused, plain;
    bench_open(&fused, make(config, type, false), 150);
    bench_open(&plain, make(config, type, true), 150);
    unsigned kinds = kinds_of(fused.model);
    assert_int_equal(kinds_of(plain.model), 1u << FUSE_NONE);
    run(alone, &plain, NULL);
    run(together, &fused, NULL);
    assert_memory_equal(together, alone, sizeof alone);
    run(together, &fused, pool);
    assert_memory_equal(together, alone, sizeof alone);
    const struct {
        enum fuse kind;
        void (*put)(const void *, int64_t, int64_t);
        void (**slot)(const void *, int64_t, int64_t);
    } broken[] = {{FUSE_ADD, broken_add, (void (**)(const void *, int64_t, int64_t)) & kernels.map_add},
                  {FUSE_GLU, broken_glu, (void (**)(const void *, int64_t, int64_t)) & kernels.map_glu},
                  {FUSE_ROPE, broken_rope, (void (**)(const void *, int64_t, int64_t)) & kernels.rope_turn}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        if (kinds >> broken[i].kind & 1) {
            *broken[i].slot = broken[i].put;
            run(together, &fused, NULL);
            mend();
            assert_memory_not_equal(together, alone, sizeof alone);
        }
    bench_close(&fused);
    bench_close(&plain);
    return kinds;
}

static void test_fused_steps_give_the_same_bits(void **state)
{
    (void)state;
    struct error err;
    struct pool *pool;
    unsigned kinds = 0;
    OK(pool_create(&pool, 3, &err));
    mend();
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++)
            kinds |= check(configs[c], types[t], pool);
    pool_destroy(pool);
    assert_int_equal(kinds, (1u << FUSE_COUNT) - 1); /* every pattern occurs somewhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fused_steps_give_the_same_bits)};
    return RUN(tests);
}
