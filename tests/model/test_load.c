/* test_load - configurations and weights that do not belong together are refused by name; failures leak nothing */
#include "model/support.h"

#include "base/fault.h"
#include "model/private.h"

static char folder[128];

static const char *const llama =
    "{\"model_type\":\"llama\",\"vocab_size\":257,\"hidden_size\":20,\"num_hidden_layers\":2,\"num_attention_heads\":5,"
    "\"num_key_value_heads\":1,\"intermediate_size\":12,\"max_position_embeddings\":64}";
static const char *const moe =
    "{\"model_type\":\"qwen2_moe\",\"vocab_size\":17,\"hidden_size\":20,\"num_hidden_layers\":2,\"num_attention_"
    "heads\":5,"
    "\"num_key_value_heads\":1,\"intermediate_size\":12,\"max_position_embeddings\":64,\"num_experts\":3,"
    "\"num_experts_per_tok\":2,\"moe_intermediate_size\":6,\"shared_expert_intermediate_size\":10}";

static void write_folder(const char *config)
{
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct model *model;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&model, doc, DT_F32, 3, &(struct model_options){0}, &err));
    OK(model_write_hf(model, folder, DT_F32, &err));
    model_free(model);
    arena_free(&arena);
}

static enum status load(struct error *err)
{
    struct checkpoint *ck;
    struct model *m;
    TRY(checkpoint_open(&ck, folder, err));
    enum status st = model_load(&m, ck, &(struct model_options){0}, err);
    checkpoint_close(ck);
    if (st == ST_OK)
        model_free(m);
    return st;
}

/* The written config.json with one text replaced must fail with a sentence that holds both words. */
static void check_refused(const char *from, const char *to, enum status expected, const char *word, const char *word2)
{
    struct error err;
    struct buf text = {0}, changed = {0};
    char path[160];
    path_join(path, sizeof path, folder, "config.json");
    OK(file_read_all(&text, path, 1 << 20, &err));
    size_t at = str_find(buf_str(&text), str_of(from), 0);
    if (at == SIZE_MAX)
        fail_msg("config.json has no %s:\n%s", from, text.ptr);
    buf_append(&changed, text.ptr, at);
    buf_append_str(&changed, str_of(to));
    buf_append_str(&changed, str_from(buf_str(&text), at + strlen(from)));
    OK(file_write_all(path, buf_str(&changed), &err));
    FAILS(expected, load(&err));
    if (!strstr(err.text, word) || !strstr(err.text, word2))
        fail_msg("%s -> %s: \"%s\" does not say \"%s\" and \"%s\"", from, to, err.text, word, word2);
    OK(file_write_all(path, buf_str(&text), &err));
    buf_free(&text);
    buf_free(&changed);
}

static void test_wrong_shapes_are_named(void **state)
{
    (void)state;
    write_folder(llama);
    check_refused("\"num_attention_heads\": 5", "\"num_attention_heads\": 4", ST_CORRUPT, "q_proj.weight",
                  "num_attention_heads * head_dim");
    check_refused("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 5", ST_CORRUPT, "k_proj.weight",
                  "[4, 20], expected [20, 20]");
    check_refused("\"vocab_size\": 257", "\"vocab_size\": 256", ST_CORRUPT, "embed_tokens", "vocab_size");
    check_refused("\"intermediate_size\": 12", "\"intermediate_size\": 16", ST_CORRUPT, "gate_proj",
                  "intermediate_size");
    check_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", ST_CORRUPT, "model.layers.2.", "missing");
    check_refused("\"attention_bias\": false", "\"attention_bias\": true", ST_CORRUPT, "q_proj.bias", "missing");
    write_folder(moe);
    check_refused("\"num_experts\": 3", "\"num_experts\": 4", ST_CORRUPT, "mlp.gate.weight", "num_experts");
    check_refused("\"moe_intermediate_size\": 6", "\"moe_intermediate_size\": 8", ST_CORRUPT, "experts.0.",
                  "moe_intermediate_size");
}

static void test_impossible_configurations_are_named(void **state)
{
    (void)state;
    write_folder(llama);
    check_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5", ST_CORRUPT, "num_hidden_layers", "integer");
    check_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": -1", ST_CORRUPT, "num_hidden_layers", "-1");
    check_refused("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99999999", ST_CORRUPT, "num_hidden_layers",
                  "1024");
    check_refused("\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", ST_CORRUPT, "multiple",
                  "num_key_value_heads (3)");
    check_refused("\"head_dim\": 4", "\"head_dim\": 512", ST_UNSUPPORTED, "head_dim", "256");
    check_refused("\"hidden_act\": \"silu\"", "\"hidden_act\": \"mish\"", ST_UNSUPPORTED, "mish", "silu");
    check_refused("\"model_type\": \"llama\"", "\"model_type\": \"mamba\"", ST_UNSUPPORTED, "mamba", "qwen3_moe");
    check_refused("\"rope_theta\": 10000.0", "\"rope_theta\": 0.5", ST_CORRUPT, "rope_theta", "0.5");
    check_refused("\"rope_theta\": 10000.0", "\"rope_scaling\": {\"rope_type\": \"wave\", \"factor\": 2}",
                  ST_UNSUPPORTED, "wave", "yarn");
    check_refused("\"rope_theta\": 10000.0", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": -2}", ST_CORRUPT,
                  "yarn", "-2");
    check_refused("\"rope_theta\": 10000.0",
                  "\"rope_scaling\": {\"rope_type\": \"longrope\", \"long_factor\": [1], \"short_factor\": [1]}",
                  ST_CORRUPT, "1 factors", "expected 2");
    write_folder(moe);
    check_refused("\"shared_expert_intermediate_size\"", "\"shared\"", ST_CORRUPT, "shared_expert_intermediate_size",
                  "missing");
    check_refused("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9", ST_CORRUPT, "num_experts_per_tok", "9");
    struct error err;
    struct checkpoint *ck;
    struct model *m;
    OK(checkpoint_open(&ck, folder, &err));
    FAILS(ST_INVALID, model_load(&m, ck, &(struct model_options){.n_ctx = -5}, &err));
    checkpoint_close(ck);
}

/* Every allocation of opening, planning, loading and making a run fails once. */
static enum status open_all(struct error *err)
{
    struct checkpoint *ck = NULL;
    struct model *m = NULL;
    struct model_run *r = NULL;
    struct model_plan plan;
    char kv[64];
    enum status st = checkpoint_open(&ck, folder, err);
    if (st == ST_OK)
        st = model_plan(&plan, ck, &(struct model_options){0}, 8, err);
    if (st == ST_OK)
        st = model_load(&m, ck, &(struct model_options){.train = true}, err);
    if (st == ST_OK)
        st = model_run_create(&r, m, 8, 8, kv, 0, NULL, err);
    model_run_free(r);
    model_free(m);
    if (ck)
        checkpoint_close(ck);
    return st;
}

static void sweep(const char *config, enum fault_point point, bool all)
{
    struct error err;
    int n = 0;
    write_folder(config);
    for (;;) {
        fault_arm(point, (uint64_t)++n);
        enum status st = open_all(&err);
        bool fired = fault_fired();
        fault_disarm();
        if (!fired) {
            OK(st);
            break;
        }
        if (all && st == ST_OK)
            fail_msg("failure %d of point %d went unnoticed", n, (int)point);
    }
    assert_true(n > (point == FAULT_ALLOC ? 50 : 1));
}

static void test_failed_allocations_leak_nothing(void **state)
{
    (void)state;
    sweep(llama, FAULT_ALLOC, false); /* model_plan says 0 bytes when it cannot place */
    sweep(moe, FAULT_ALLOC, false);
    sweep(llama, FAULT_OPEN, true);
    sweep(llama, FAULT_MMAP, true);
}

static void test_failed_writes_are_reported(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    struct model *m;
    char gguf[160];
    write_folder(llama);
    OK(checkpoint_open(&ck, folder, &err));
    OK(model_load(&m, ck, &(struct model_options){0}, &err));
    checkpoint_close(ck);
    path_join(gguf, sizeof gguf, folder, "out.gguf");
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_OPEN, FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
    for (size_t i = 0; i < 2 * sizeof points / sizeof *points; i++)
        for (uint64_t n = 1;; n++) {
            fault_arm(points[i / 2], n);
            enum status st =
                i % 2 ? model_write_gguf(m, gguf, DT_F16, NULL, &err) : model_write_hf(m, folder, DT_BF16, &err);
            bool fired = fault_fired();
            fault_disarm();
            if (!fired) {
                OK(st);
                break;
            }
            if (st == ST_OK)
                fail_msg("failure %d of point %d went unnoticed", (int)n, (int)points[i / 2]);
        }
    model_free(m);
}

/* The same numbers from model_plan, before loading, and from the loaded model. */
static void test_plan_is_what_is_taken(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    struct model *m;
    struct model_plan before, after;
    write_folder(moe);
    OK(checkpoint_open(&ck, folder, &err));
    OK(model_plan(&before, ck, &(struct model_options){0}, 8, &err));
    OK(model_load(&m, ck, &(struct model_options){0}, &err));
    checkpoint_close(ck);
    model_plan_of(&after, m, 8);
    assert_int_equal(before.weight_bytes, after.weight_bytes);
    assert_int_equal(before.weight_bytes, m->weight_bytes);
    assert_int_equal(before.run_bytes, after.run_bytes);
    assert_true(before.run_bytes > 0);
    assert_int_equal(before.kv_bytes_per_token * KV_BLOCK, model_kv_block_bytes(m));
    /* per token: 2 layers of attention (q, o 20x20, k, v 4x20), router 3x20, 2 of 3 experts, shared expert and its
     * gate, and the head; the embedding is gathered */
    int64_t layer = 2 * 400 + 2 * 80 + 3 * 20 + 2 * 3 * 120 + 3 * 200 + 20;
    assert_int_equal(before.body_flops, 2 * 2 * layer);
    assert_int_equal(before.head_flops, 2 * 17 * 20);
    assert_true(before.step_bytes > 4 * (uint64_t)(2 * layer + 17 * 20)); /* f32, rows of panels padded to 16 */
    assert_true(before.step_bytes < before.weight_bytes);
    model_free(m);
}

static enum status fill_ones(void *ctx, void *out, struct error *err)
{
    (void)err;
    for (int64_t i = 0; i < *(int64_t *)ctx; i++)
        ((float *)out)[i] = 1;
    return ST_OK;
}

/* Divisors of positions come in three tensors: a short one beside a whole one must not be read beyond its end. */
static void test_rope_factors_of_unequal_length_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"rope_factors_long.weight", "rope_factors_short.weight", "rope_freqs.weight"};
    struct error err;
    char path[160];
    path_join(path, sizeof path, folder, "factors.gguf");
    for (int64_t n = 1; n <= 2; n++) { /* d_head 4: two divisors are right */
        int64_t counts[] = {n, n, 2};
        struct tensor_out tensors[3];
        struct gguf_writer *w;
        struct checkpoint *ck;
        struct arch arch;
        OK(gguf_writer_create(&w, &err));
        gguf_put_string(w, "general.architecture", STR("llama"));
        static const char *const sizes[] = {"llama.block_count",    "llama.embedding_length",
                                            "llama.vocab_size",     "llama.attention.head_count",
                                            "llama.context_length", "llama.feed_forward_length"};
        static const int64_t values[] = {1, 8, 16, 2, 64, 12};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            gguf_put_int(w, sizes[i], GGUF_U32, values[i]);
        gguf_put_string(w, "llama.rope.scaling.type", STR("longrope"));
        gguf_put_real(w, "llama.rope.scaling.factor", GGUF_F32, 2);
        for (int i = 0; i < 3; i++)
            tensors[i] = (struct tensor_out){.name = str_of(names[i]),
                                             .type = DT_F32,
                                             .n_dim = 1,
                                             .shape = {counts[i]},
                                             .fill = fill_ones,
                                             .ctx = &counts[i]};
        OK(gguf_writer_commit(w, path, tensors, 3, &err));
        gguf_writer_destroy(w);
        OK(checkpoint_open(&ck, path, &err));
        if (n == 2) {
            OK(arch_from_checkpoint(&arch, ck, &(struct model_options){0}, &err));
        } else {
            FAILS(ST_CORRUPT, arch_from_checkpoint(&arch, ck, &(struct model_options){0}, &err));
            assert_non_null(strstr(err.text, "rope_freqs has 2 numbers and rope_factors_long 1"));
        }
        arch_free(&arch);
        checkpoint_close(ck);
    }
}

int main(void)
{
    struct error err;
    char command[160];
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    snprintf(folder, sizeof folder, "/tmp/ingot-load-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_shapes_are_named),
        cmocka_unit_test(test_impossible_configurations_are_named),
        cmocka_unit_test(test_failed_allocations_leak_nothing),
        cmocka_unit_test(test_failed_writes_are_reported),
        cmocka_unit_test(test_plan_is_what_is_taken),
        cmocka_unit_test(test_rope_factors_of_unequal_length_are_refused),
    };
    int failed = RUN(tests);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 ? failed : 1;
}
