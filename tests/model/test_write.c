/* test_write - what is written is read back with the same bits */
#include "model/support.h"

static char folder[128];
static int n_written;

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/ingot-model-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[160];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

enum { N = 40 };
static void logits_of(real **out, size_t *bytes, struct bench_model *b)
{
    int32_t ids[N];
    int n_vocab = model_config(b->model)->n_vocab;
    for (int i = 0; i < N; i++)
        ids[i] = (i * 37 + 11) % n_vocab;
    *bytes = sizeof(real) * N * (size_t)n_vocab;
    *out = malloc(*bytes);
    bench_logits(b, *out, ids, N, N);
}

/* Written in f32, read again: the same logits bit for bit. GGUF where it has words for the model. */
static void check_container(struct model *model, const char *gguf, bool may_refuse)
{
    struct error err;
    struct bench_model before, after;
    real *x, *y;
    size_t bytes, bytes_after;
    enum status st =
        gguf ? model_write_gguf(model, gguf, DT_F32, NULL, &err) : model_write_hf(model, folder, DT_F32, &err);
    if (st == ST_UNSUPPORTED && may_refuse)
        return;
    OK(st);
    n_written++;
    bench_open(&before, model, N);
    bench_load(&after, gguf ? gguf : folder, N);
    assert_string_equal(model_config(model)->family, model_config(after.model)->family);
    assert_string_equal(model_config(model)->rope_scaling, model_config(after.model)->rope_scaling);
    assert_int_equal(model_config(model)->n_param, model_config(after.model)->n_param);
    logits_of(&x, &bytes, &before);
    logits_of(&y, &bytes_after, &after);
    assert_int_equal(bytes, bytes_after);
    assert_memory_equal(x, y, bytes);
    free(x);
    free(y);
    before.model = NULL; /* the caller's */
    bench_close(&before);
    bench_close(&after);
}

static void check_round(struct model *model)
{
    char gguf[160];
    make_folder();
    check_container(model, NULL, false);
    check_container(model, path_join(gguf, sizeof gguf, folder, "model.gguf"), true);
    model_free(model);
    remove_folder();
}

static struct model *random_model(const char *config, bool train)
{
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct model *model;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&model, doc, DT_F32, 3, &(struct model_options){.exact = true, .train = train}, &err));
    arena_free(&arena);
    return model;
}

static void test_real_models_come_back(void **state)
{
    (void)state;
    static const char *const models[] = {
        SHARED("data/models/stories260K/stories260K.gguf"), SHARED("data/models/stories260K/stories260K.bin"),
        SHARED("data/models/tinystories-656k"), SHARED("data/models/slm4096-pt/ckpt.pt"),
        SHARED("data/models/char-gpt-shakespeare")};
    NEED(models[0]);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct error err;
        struct checkpoint *ck;
        struct model *model;
        OK(checkpoint_open(&ck, models[i], &err));
        OK(model_load(&model, ck, &(struct model_options){.exact = true}, &err));
        checkpoint_close(ck);
        check_round(model);
    }
}

#define SIZES                                                                                                          \
    "\"vocab_size\":257,\"hidden_size\":40,\"num_hidden_layers\":2,\"num_attention_heads\":5,"                         \
    "\"intermediate_size\":172,\"max_position_embeddings\":128,\"initializer_range\":0.2,"

static void test_every_family_comes_back(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "{\"model_type\":\"llama\"," SIZES "\"num_key_value_heads\":1,\"attention_bias\":true,\"mlp_bias\":true,"
        "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":32}}",
        "{\"model_type\":\"mistral\"," SIZES "\"num_key_value_heads\":5,\"sliding_window\":7}",
        "{\"model_type\":\"qwen2\"," SIZES "\"num_key_value_heads\":1,\"tie_word_embeddings\":true,"
        "\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":1}",
        "{\"model_type\":\"qwen3\"," SIZES "\"num_key_value_heads\":1,\"head_dim\":12}",
        "{\"model_type\":\"gpt2\",\"vocab_size\":257,\"n_embd\":40,\"n_layer\":2,\"n_head\":5,\"n_positions\":128,"
        "\"initializer_range\":0.2}",
        "{\"model_type\":\"gpt_neox\"," SIZES "\"rotary_pct\":0.5}",
        "{\"model_type\":\"gpt_neox\"," SIZES "\"rotary_pct\":1,\"use_parallel_residual\":false}",
        "{\"model_type\":\"mixtral\"," SIZES "\"num_key_value_heads\":1,\"num_local_experts\":4}",
        "{\"model_type\":\"qwen2_moe\"," SIZES "\"num_key_value_heads\":1,\"num_experts\":5,\"num_experts_per_tok\":2,"
        "\"moe_intermediate_size\":36,\"shared_expert_intermediate_size\":20,\"mlp_only_layers\":[0]}",
        "{\"model_type\":\"qwen3_moe\"," SIZES "\"num_key_value_heads\":1,\"num_experts\":5,\"num_experts_per_tok\":2,"
        "\"moe_intermediate_size\":36,\"norm_topk_prob\":true}",
    };
    n_written = 0;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        check_round(random_model(configs[i], i % 2));
    /* 10 folders; GGUF lacks words for a window (mistral, qwen2 here) and dense layers between sparse ones */
    assert_int_equal(n_written, 10 + 7);
}

/* A tokenizer goes into the file: from tokenizer.json, and from one GGUF to the next. */
static void test_tokenizer_goes_along(void **state)
{
    (void)state;
    const char *source = SHARED("data/tokenizers/hf/gpt2.tokenizer.json");
    NEED(source);
    struct error err;
    char first[160], second[160];
    make_folder();
    path_join(first, sizeof first, folder, "first.gguf");
    path_join(second, sizeof second, folder, "second.gguf");
    char json[160];
    assert_int_equal(symlink(source, path_join(json, sizeof json, folder, "tokenizer.json")), 0);
    struct model *m = random_model("{\"model_type\":\"gpt2\",\"vocab_size\":50257,\"n_embd\":32,\"n_layer\":1,"
                                   "\"n_head\":2,\"n_positions\":64}",
                                   false);
    OK(model_write_gguf(m, first, DT_Q8_0, folder, &err));
    OK(model_write_gguf(m, second, DT_F16, first, &err));
    struct tokenizer *want, *got[2];
    OK(tokenizer_open(&want, json, &err));
    OK(tokenizer_open(&got[0], first, &err));
    OK(tokenizer_open(&got[1], second, &err));
    static const char *const texts[] = {"Hello, world! 123 it's   fine\n\n", "<|endoftext|>naïve 東京", ""};
    for (int i = 0; i < 6; i++) {
        struct ids a = {0}, b = {0};
        OK(tokenizer_encode(want, &a, str_of(texts[i % 3]), TOKENIZE_SPECIAL, &err));
        OK(tokenizer_encode(got[i / 3], &b, str_of(texts[i % 3]), TOKENIZE_SPECIAL, &err));
        assert_int_equal(a.count, b.count);
        assert_memory_equal(a.count ? a.ids : (int32_t *)&a, b.count ? b.ids : (int32_t *)&a, a.count * sizeof *a.ids);
        ids_free(&a);
        ids_free(&b);
    }
    tokenizer_close(want);
    tokenizer_close(got[0]);
    tokenizer_close(got[1]);
    model_free(m);
    remove_folder();
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_models_come_back),
        cmocka_unit_test(test_every_family_comes_back),
        cmocka_unit_test(test_tokenizer_goes_along),
    };
    return RUN(tests);
}
