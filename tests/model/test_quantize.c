/* The recipes against what llama.cpp's llama-quantize chooses (tools/golden/recipes.py), and quantizing under memory
 * that runs out */
#include "model/quantize.h"
#include "model/recipe.h"

#include "base/arena.h"
#include "base/fault.h"
#include "base/json.h"
#include "model/program.h"
#include "model/support.h"

static const struct {
    const char *name;
    enum role role;
} matrices[] = {{"attn_q", W_Q},      {"attn_k", W_K},         {"attn_v", W_V},
                {"attn_output", W_O}, {"ffn_gate", W_GATE},    {"ffn_down", W_DOWN},
                {"ffn_up", W_UP},     {"token_embd", W_EMBED}, {"output", W_HEAD}};

/* "blk.3.attn_v.weight" of the golden model to a role and a layer. */
static enum role role_of(struct str name, int *layer)
{
    char text[96];
    snprintf(text, sizeof text, "%.*s", STR_ARG(name));
    *layer = -1;
    char *at = text;
    if (strncmp(text, "blk.", 4) == 0) {
        *layer = atoi(text + 4);
        at = strchr(text + 4, '.') + 1;
    }
    *strstr(at, ".weight") = 0;
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
        if (strcmp(at, matrices[i].name) == 0)
            return matrices[i].role;
    return W_NONE;
}

static void check_model(const struct json *model)
{
    struct model_config c = {.n_layer = (int)json_int(json_get(model, "n_layer"), 0),
                             .n_head = (int)json_int(json_get(model, "n_head"), 0),
                             .n_kv_head = (int)json_int(json_get(model, "n_kv_head"), 0),
                             .tied = json_bool(json_get(model, "tied"), false)};
    int64_t n_embd = json_int(json_get(model, "n_embd"), 0), n_ff = json_int(json_get(model, "n_ff"), 0);
    int checked = 0;
    JSON_EACH_MEMBER (recipe, types, json_get(model, "recipes"))
        JSON_EACH_MEMBER (name, type, types) {
            struct recipe_ask ask = {.config = &c};
            ask.role = role_of(name, &ask.layer);
            assert_int_not_equal(ask.role, W_NONE);
            ask.n_in = ask.role == W_DOWN ? n_ff : n_embd;
            struct recipe_answer got = recipe_type(recipe_find(recipe), &ask);
            if (!str_is(json_str(type), dtype_row(got.type)->name))
                fail_msg("%.*s, %.*s: %s, expected %.*s", STR_ARG(recipe), STR_ARG(name), dtype_row(got.type)->name,
                         STR_ARG(json_str(type)));
            checked++;
        }
    assert_true(checked > 1000);
}

static void test_mixes_are_llama_cpps(void **state)
{
    (void)state;
    struct error err;
    struct buf text = {0};
    struct arena arena;
    const struct json *golden;
    arena_init(&arena, 0);
    OK(file_read_all(&text, GOLDEN("model/recipes.json"), 1 << 22, &err));
    OK(json_parse(&golden, &arena, buf_str(&text), 0, &err));
    int models = 0;
    JSON_EACH (model, golden) {
        check_model(model);
        models++;
    }
    assert_int_equal(models, 3);
    arena_free(&arena);
    buf_free(&text);
}

static void test_small_tensors_and_odd_rows(void **state)
{
    (void)state;
    struct model_config c = {.n_layer = 4, .n_head = 4, .n_kv_head = 4};
    const struct recipe *r = recipe_find(STR("q4_k_m"));
    struct recipe_ask ask = {.role = W_ATTN_NORM, .vector = true, .n_in = 1, .config = &c};
    assert_int_equal(recipe_type(r, &ask).type, DT_F32);
    ask = (struct recipe_ask){.role = W_ROUTER, .n_in = 512, .config = &c};
    assert_int_equal(recipe_type(r, &ask).type, DT_F32);
    ask = (struct recipe_ask){.role = W_UP, .n_in = 40, .config = &c};
    assert_int_equal(recipe_type(r, &ask).type, DT_F16);
    assert_int_equal(recipe_type(r, &ask).wanted, DT_Q4_K);
    ask = (struct recipe_ask){.role = W_EXPERT_DOWN, .n_in = 512, .config = &c, .layer = 3};
    assert_int_equal(recipe_type(r, &ask).type, DT_Q6_K);
    assert_ptr_equal(recipe_find(STR("q4_k")), r);
    assert_null(recipe_find(STR("q4_x")));
    for (int i = 0; recipe_name(i); i++)
        assert_non_null(recipe_find(str_of(recipe_name(i))));
}

static void test_out_of_memory_leaves_nothing(void **state)
{
    (void)state;
    struct error err;
    struct bench_model b;
    char folder[] = "/tmp/ingot-quantize-XXXXXX", out[64], command[96];
    assert_non_null(mkdtemp(folder));
    snprintf(out, sizeof out, "%s/x.gguf", folder);
    bench_load(&b, TEST_DIR "/../models/storyteller.gguf", 8);
    struct model_quantize how = {.recipe = recipe_find(STR("q8_0"))};
    bool done = false;
    for (uint64_t n = 1; !done; n += n < 40 ? 1 : 13) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = model_quantize_gguf(b.model, out, &how, NULL, &err);
        done = !fault_fired();
        fault_disarm();
        assert_int_equal(st, done ? ST_OK : ST_NOMEM);
        assert_int_equal(access(out, F_OK), done ? 0 : -1);
    }
    bench_close(&b);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

/* Parameters packed one by one while they are written: the same file, and nothing is left when memory runs out. */
static void test_streaming_writes_the_same_file(void **state)
{
    (void)state;
    static const char *const models[] = {TEST_DIR "/../models/storyteller.gguf", GOLDEN("formats/packed/awq")};
    struct error err;
    char folder[] = "/tmp/ingot-stream-XXXXXX", held[64], streamed[64], command[64];
    assert_non_null(mkdtemp(folder));
    snprintf(held, sizeof held, "%s/held.gguf", folder);
    snprintf(streamed, sizeof streamed, "%s/streamed.gguf", folder);
    snprintf(command, sizeof command, "rm -r %s", folder);
    struct model_quantize how = {.recipe = recipe_find(STR("q5_1"))};
    const struct model_options ways[] = {{.exact = true}, {.exact = true, .stream = true}};
    for (int i = 0; i < 2; i++) {
        struct buf files[2] = {{0}};
        for (int w = 0; w < 2; w++) {
            struct checkpoint *ck;
            struct model *m;
            OK(checkpoint_open(&ck, models[i], &err));
            OK(model_load(&m, ck, &ways[w], &err));
            OK(model_quantize_gguf(m, w ? streamed : held, &how, NULL, &err));
            for (uint64_t n = 1; w && n < 60; n += 3) {
                assert_int_equal(remove(streamed), 0);
                fault_arm(FAULT_ALLOC, n);
                enum status st = model_quantize_gguf(m, streamed, &how, NULL, &err);
                bool done = !fault_fired();
                fault_disarm();
                assert_int_equal(st, done ? ST_OK : ST_NOMEM);
                OK(model_quantize_gguf(m, streamed, &how, NULL, &err)); /* whoever failed can go on */
            }
            OK(file_read_all(&files[w], w ? streamed : held, 1 << 24, &err));
            model_free(m);
            checkpoint_close(ck);
        }
        /* the name of the file is one of its keys: from the first tensor's numbers on they are the same */
        size_t differ = str_find(buf_str(&files[0]), STR("held"), 0);
        assert_true(differ != SIZE_MAX && files[0].len > 4096);
        size_t tail = (files[0].len < files[1].len ? files[0].len : files[1].len) / 2;
        assert_memory_equal(files[0].ptr + files[0].len - tail, files[1].ptr + files[1].len - tail, tail);
        buf_free(&files[0]);
        buf_free(&files[1]);
    }
    assert_int_equal(system(command), 0);
}

static enum status on_packed(void *ctx, const struct quantized *row, struct error *err)
{
    (void)err;
    int *exact = ctx;
    if (row->type == DT_Q4_Z) {
        assert_true(row->relative < 1e-3); /* the model's matrices lie on such grids already */
        *exact += row->rms == 0;
    }
    return ST_OK;
}

/* A model that is AWQ already, packed again: what it says stays; memory that runs out leaves no whole folder. */
static void test_packed_folders_are_written(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    struct model *m;
    char folder[] = "/tmp/ingot-packed-XXXXXX", config[64], command[64];
    int exact = 0;
    assert_non_null(mkdtemp(folder));
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(command, sizeof command, "rm -r %s", folder);
    OK(checkpoint_open(&ck, GOLDEN("formats/packed/awq"), &err));
    OK(model_load(&m, ck, &(struct model_options){.exact = true, .stream = true}, &err));
    struct model_quantize how = {.packing = PACKED_AWQ, .group = 32, .done = on_packed, .ctx = &exact};
    bool done = false;
    for (uint64_t n = 1; !done; n += n < 60 ? 1 : 7) {
        exact = 0;
        fault_arm(FAULT_ALLOC, n);
        enum status st = model_quantize_hf(m, folder, &how, &err);
        done = !fault_fired();
        fault_disarm();
        assert_int_equal(st, done ? ST_OK : ST_NOMEM);
        assert_int_equal(access(config, F_OK), done ? 0 : -1);
    }
    assert_int_equal(exact, 7);
    struct bench_model before, after;
    enum { N = 24, VOCAB = 48 };
    static real x[N * VOCAB], y[N * VOCAB];
    int32_t ids[N];
    for (int i = 0; i < N; i++)
        ids[i] = (i * 31 + 5) % VOCAB;
    bench_load(&before, GOLDEN("formats/packed/awq"), N);
    bench_load(&after, folder, N);
    bench_logits(&before, x, ids, N, N);
    bench_logits(&after, y, ids, N, N);
    assert_memory_equal(x, y, sizeof x);
    bench_close(&before);
    bench_close(&after);
    how.group = 128; /* rows of 64 */
    FAILS(ST_UNSUPPORTED, model_quantize_hf(m, folder, &how, &err));
    how = (struct model_quantize){.packing = PACKED_GPTQ, .group = 32};
    OK(model_quantize_hf(m, folder, &how, &err));
    bench_load(&after, folder, N);
    bench_close(&after);
    model_free(m);
    checkpoint_close(ck);
    assert_int_equal(system(command), 0);
}

/* The same levels, zeros and scales in three packings: the same logits, to the bit. */
static void test_packed_folders_load(void **state)
{
    (void)state;
    enum { N = 24, VOCAB = 48 };
    static const char *const kinds[] = {"gptq_order", "awq", "gptq", "gptq_v2"};
    static real first[N * VOCAB], other[N * VOCAB];
    int32_t ids[N];
    for (int i = 0; i < N; i++)
        ids[i] = (i * 31 + 5) % VOCAB;
    for (int i = 0; i < 4; i++) {
        struct bench_model b;
        char path[512];
        snprintf(path, sizeof path, GOLDEN("formats/packed/%s"), kinds[i]);
        bench_load(&b, path, N);
        real *out = i < 2 ? first : other;
        bench_logits(&b, out, ids, N, N);
        for (int k = 0; k < N * VOCAB; k++)
            assert_true(isfinite(out[k]));
        if (i >= 2)
            assert_memory_equal(first, other, sizeof first);
        bench_close(&b);
    }
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixes_are_llama_cpps),         cmocka_unit_test(test_small_tensors_and_odd_rows),
        cmocka_unit_test(test_out_of_memory_leaves_nothing), cmocka_unit_test(test_streaming_writes_the_same_file),
        cmocka_unit_test(test_packed_folders_are_written),   cmocka_unit_test(test_packed_folders_load),
    };
    return RUN(tests);
}
