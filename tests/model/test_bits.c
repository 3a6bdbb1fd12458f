/* test_bits - a model's logits have the same bits however the work is cut: chunks, batches, threads, trainer or server
 *
 * The context is over two attention segments of 256 keys, and chunks end inside of one.
 *
 * Each comparison is also made while one operation breaks one rule of docs/numerics.md on one side of it: a sum in
 * another order, a product and a sum rounded apart, a segment of another length. It must then find other bits. The
 * broken operations are the reference rows compiled again, with the rule looked up when they run; where no rule is
 * broken they must be faithful.
 */
#include "model/support.h"

#include "base/pool.h"
#include "kernels/kernels_private.h"
#include "model/private.h"

enum rule { FAITHFUL, UNFUSED, REORDERED, LONG_SEGMENTS };
static enum rule broken;

static real sum_in_order(const real lane[LANES])
{
    real sum = lane[0];
    for (int j = 1; j < LANES; j++)
        sum += lane[j];
    return sum;
}
#undef FMA
#define FMA(a, b, c)    (broken == UNFUSED ? (a) * (b) + (c) : fmaf(a, b, c))
#define lanes_sum(lane) (broken == REORDERED ? sum_in_order(lane) : (lanes_sum)(lane))
#define KV_SEGMENT      (broken == LONG_SEGMENTS ? 512 : 256)
#include "kernels/mutant_rows.h"

static void linear_f32__mutant(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    int64_t n_in = job->w->n_in, n_out = job->w->n_out;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t n = panel0 * LANES; n < panel1 * LANES && n < n_out; n++) {
            const real *w = (const real *)panel_at(job->w, n / LANES) + n % LANES, *x = job->x->x + r * n_in;
            real sum = 0;
            for (int64_t i = 0; i < n_in; i++) {
                int64_t k = broken == REORDERED ? n_in - 1 - i : i;
                sum = FMA(w[k * LANES], x[k], sum);
            }
            job->out[r * job->stride + n] = job->bias ? sum + job->bias[n] : sum;
        }
}

#define PUT(op)                                                                                                        \
    static void put_##op(void)                                                                                         \
    {                                                                                                                  \
        kernels.op = op##__mutant;                                                                                     \
    }
PUT(norm_rms)
PUT(rope_turn)
PUT(attend)
PUT(linear_f32)

static const struct mutation {
    const char *what;
    void (*put)(void); /* into the table */
    enum rule rule;
} mutations[] = {
    {"norm, another order", put_norm_rms, REORDERED},      {"norm, unfused", put_norm_rms, UNFUSED},
    {"rotation, unfused", put_rope_turn, UNFUSED},         {"attention, another order", put_attend, REORDERED},
    {"attention, unfused", put_attend, UNFUSED},           {"attention, longer segments", put_attend, LONG_SEGMENTS},
    {"product, another order", put_linear_f32, REORDERED}, {"product, unfused", put_linear_f32, UNFUSED},
};
/* inside of segments: chunks of 7 and 250; at their borders too: 64. ThreadSanitizer looks for races, not for bits. */
#ifdef __SANITIZE_THREAD__
static const int chunks[] = {1, 250};
enum { MUTATIONS = 0, FEWEST_THREADS = 2 };
#else
static const int chunks[] = {1, 7, 64, 250, 599};
enum { MUTATIONS = sizeof mutations / sizeof *mutations, FEWEST_THREADS = 1 };
#endif

static void put_mutation(const struct mutation *m, bool breaks)
{
    m->put();
    broken = breaks ? m->rule : FAITHFUL;
}

static void mend(void)
{
    struct error err;
    broken = FAITHFUL;
    OK(kernels_init(NULL, &err));
}

enum { N = 600, N_VOCAB = 257 };
static int32_t ids[N];

#define SIZES                                                                                                          \
    "\"vocab_size\":257,\"hidden_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                         \
    "\"num_key_value_heads\":2,\"intermediate_size\":96,\"max_position_embeddings\":1024,\"initializer_range\":0.2"
static const char *const dense = "{\"model_type\":\"qwen3\",\"head_dim\":16," SIZES "}";
static const char *const moe = "{\"model_type\":\"qwen2_moe\",\"num_experts\":6,\"num_experts_per_tok\":2,"
                               "\"moe_intermediate_size\":64,\"shared_expert_intermediate_size\":32," SIZES "}";

static const char *const window = "{\"model_type\":\"mistral\",\"sliding_window\":300," SIZES "}";

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

static bool is_same(const real *a, const real *b)
{
    return memcmp(a, b, sizeof(real) * N * N_VOCAB) == 0;
}

static void check_same(const char *what, const real *a, const real *b)
{
    if (!is_same(a, b))
        fail_msg("%s: other bits", what);
}

/* The broken rule on one side alone; then, as a check of the check, the same rows with nothing broken. */
static void check_mutations_are_noticed(const char *what, const real *whole, const char *config, int chunk,
                                        struct model_options options, struct pool *pool)
{
    for (int i = 0; i < MUTATIONS; i++)
        for (int breaks = 0; breaks < 2; breaks++) {
            put_mutation(&mutations[i], breaks);
            real *cut = logits_of(make(config, DT_F32, options), chunk, pool);
            mend();
            if (is_same(whole, cut) == breaks)
                fail_msg("%s: %s: %s", what, mutations[i].what, breaks ? "not noticed" : "is not faithful");
            free(cut);
        }
}

static void check_cuts(const char *what, const char *config, enum dtype type, struct model_options options)
{
    struct error err;
    struct pool *pool;
    char text[128];
    OK(pool_create(&pool, 2, &err));
    real *whole = logits_of(make(config, type, options), N, NULL);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (int threads = FEWEST_THREADS; threads <= 2; threads++) {
            real *cut = logits_of(make(config, type, options), chunks[i], threads == 2 ? pool : NULL);
            snprintf(text, sizeof text, "%s, chunks of %d, %d threads", what, chunks[i], threads);
            check_same(text, whole, cut);
            free(cut);
        }
    if (type == DT_F32)
        check_mutations_are_noticed(what, whole, config, 250, options, pool);
    free(whole);
    pool_destroy(pool);
}

static void test_chunks_and_threads(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16, DT_Q8_0, DT_Q4_0, DT_Q4_1, DT_Q5_0, DT_Q5_1};
    char text[64];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        snprintf(text, sizeof text, "dense %s", dtype_row(types[i])->name);
        check_cuts(text, dense, types[i], (struct model_options){.kv = KV_F16});
    }
    check_cuts("dense q8_0 exact", dense, DT_Q8_0, (struct model_options){.exact = true});
    check_cuts("dense int8 cache", dense, DT_Q8_0, (struct model_options){.kv = KV_INT8});
    check_cuts("window f32", window, DT_F32, (struct model_options){0});
    check_cuts("mixture f32", moe, DT_F32, (struct model_options){0});
    check_cuts("mixture q8_0", moe, DT_Q8_0, (struct model_options){.kv = KV_F16});
}

enum { FIRST = 310, SECOND = 290 }; /* both over one segment */

/* Two sequences in one batch, at different places of their contexts, and only some logits: as each alone? */
static bool mixed_is_same(const char *config, const real *alone, const struct mutation *mutation)
{
    struct error err;
    struct model *m = make(config, DT_F32, (struct model_options){.kv = KV_F16});
    struct model_run *r;
    real got[2 * N_VOCAB];
    void *kv = mem_alloc_aligned(12 * model_kv_block_bytes(m));
    OK(model_run_create(&r, m, N, N, kv, 12, NULL, &err));
    static const int32_t first[5] = {4, 0, 7, 11, 3}, second[5] = {1, 6, 2, 9, 10};
    struct attend_span start = {0, FIRST, 0, first};
    struct model_batch warm = {.n_row = FIRST, .ids = ids, .spans = &start, .n_span = 1, .logit_rows = ids};
    model_forward(r, &warm, NULL); /* n_logit = 0: a chunk of a prompt wants none */
    int32_t both[1 + SECOND];
    both[0] = ids[FIRST]; /* the next row of the first; rows 0 .. of the second */
    memcpy(both + 1, ids, SECOND * sizeof *ids);
    struct attend_span spans[2] = {{0, 1, FIRST, first}, {1, SECOND, 0, second}};
    static const int32_t wanted[2] = {0, SECOND};
    struct model_batch mixed = {
        .n_row = 1 + SECOND, .ids = both, .spans = spans, .n_span = 2, .logit_rows = wanted, .n_logit = 2};
    if (mutation)
        put_mutation(mutation, true);
    model_forward(r, &mixed, got);
    mend();
    model_run_free(r);
    model_free(m);
    mem_free(kv);
    bool one = memcmp(got, alone + FIRST * N_VOCAB, N_VOCAB * sizeof(real)) == 0;
    bool two = memcmp(got + N_VOCAB, alone + (SECOND - 1) * N_VOCAB, N_VOCAB * sizeof(real)) == 0;
    return one && two;
}

static void test_mixed_batches(void **state)
{
    (void)state;
    const char *const configs[] = {dense, moe};
    for (int c = 0; c < 2; c++) {
        real *alone = logits_of(make(configs[c], DT_F32, (struct model_options){.kv = KV_F16}), N, NULL);
        assert_true(mixed_is_same(configs[c], alone, NULL));
        for (int i = 0; i < MUTATIONS; i++)
            if (mixed_is_same(configs[c], alone, &mutations[i]))
                fail_msg("%s: not noticed", mutations[i].what);
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
        check_mutations_are_noticed("trainer", server, configs[c], N, (struct model_options){.train = true}, NULL);
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
