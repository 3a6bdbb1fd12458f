/* test_write - what is written is read back with the same bits */
#include "model/support.h"

static char folder[128];

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

/* Written in f32, read again: the same logits bit for bit. */
static void check_round(struct model *model)
{
    struct error err;
    struct bench_model before, after;
    real *x, *y;
    size_t bytes, bytes_after;
    make_folder();
    OK(model_write_hf(model, folder, DT_F32, &err));
    bench_open(&before, model, N);
    bench_load(&after, folder, N);
    assert_string_equal(model_config(model)->family, model_config(after.model)->family);
    assert_int_equal(model_config(model)->n_param, model_config(after.model)->n_param);
    logits_of(&x, &bytes, &before);
    logits_of(&y, &bytes_after, &after);
    assert_int_equal(bytes, bytes_after);
    assert_memory_equal(x, y, bytes);
    free(x);
    free(y);
    bench_close(&before);
    bench_close(&after);
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
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        check_round(random_model(configs[i], i % 2));
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_models_come_back),
        cmocka_unit_test(test_every_family_comes_back),
    };
    return RUN(tests);
}
