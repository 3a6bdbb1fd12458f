/* test_lora - adapters against PEFT (tools/golden/lora.py); bits alone, in company, fused or not; what is refused */
#include "model/support.h"

#include "base/fault.h"
#include "model/lora_private.h"

#include <sys/stat.h>

enum { N_VOCAB = 64, N_MAX = 16 };
static struct error err;
static struct arena arena;
static const struct json *golden;
static int32_t ids[N_MAX];
static int n_ids;

static const char *at(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[0], GOLDEN("lora/%s"), name);
    return path[turn];
}

static int set_up(void **state)
{
    (void)state;
    static struct buf text;
    arena_init(&arena, 0);
    OK(file_read_all(&text, at("logits.json"), 1 << 20, &err));
    OK(json_parse(&golden, &arena, buf_str(&text), 0, &err));
    JSON_EACH (v, json_get(golden, "ids"))
        ids[n_ids++] = (int32_t)json_int(v, -1);
    return 0;
}

/* Each span is one sequence of all ids. */
static void forward(struct bench_model *b, float *out, const struct lora *const *loras, int n_span)
{
    struct attend_span spans[4];
    int32_t all[4 * N_MAX], blocks[4];
    for (int s = 0; s < n_span; s++) {
        blocks[s] = s;
        spans[s] = (struct attend_span){s * n_ids, n_ids, 0, &blocks[s]};
        memcpy(all + s * n_ids, ids, (size_t)n_ids * sizeof *ids);
    }
    struct model_batch batch = {.n_row = n_span * n_ids, .ids = all, .spans = spans, .n_span = n_span, .loras = loras};
    model_forward(b->run, &batch, out);
}

static void open_model(struct bench_model *b, const char *name, struct model_options o)
{
    struct checkpoint *ck;
    o.kv = KV_F32;
    OK(checkpoint_open(&ck, at(name), &err));
    memset(b, 0, sizeof *b);
    OK(model_load(&b->model, ck, &o, &err));
    checkpoint_close(ck);
    b->kv = mem_alloc_aligned(4 * model_kv_block_bytes(b->model));
    OK(model_run_create(&b->run, b->model, 4 * N_MAX, 4 * N_MAX, b->kv, 4, NULL, &err));
}

static void test_logits_are_those_of_peft(void **state)
{
    (void)state;
    int n_case = 0;
    JSON_EACH (c, json_get(golden, "cases")) {
        struct bench_model b;
        struct lora *l = NULL;
        float got[N_MAX * N_VOCAB];
        double worst = 0;
        char model[32], adapter[32];
        struct str m = json_str(json_get(c, "model")), a = json_str(json_get(c, "adapter"));
        snprintf(model, sizeof model, "%.*s", STR_ARG(m));
        snprintf(adapter, sizeof adapter, "%.*s", (int)a.len, a.ptr ? a.ptr : "");
        open_model(&b, model, (struct model_options){.exact = true});
        if (a.ptr)
            OK(lora_open(&l, b.model, at(adapter), NULL, &err));
        const struct lora *loras[1] = {l};
        forward(&b, got, loras, 1);
        int r = 0;
        JSON_EACH (row, json_get(c, "logits")) {
            int k = 0;
            JSON_EACH (v, row) {
                double d = fabs((double)got[r * N_VOCAB + k++] - json_real(v, NAN));
                worst = d > worst || d != d ? d : worst;
            }
            assert_int_equal(k, N_VOCAB);
            r++;
        }
        assert_int_equal(r, n_ids);
        print_message("%s %s: %.1e\n", model, a.ptr ? adapter : "alone", worst);
        if (!(worst < 2e-5))
            fail_msg("%s %s: off by %g", model, adapter, worst);
        lora_drop(l);
        bench_close(&b);
        n_case++;
    }
    assert_int_equal(n_case, 8);
}

/* A model of some type as it is served: fused, int8 activations and all. */
static void check_company(const char *type)
{
    static const char *const names[3] = {"all", "some", "first"};
    struct bench_model b, plain, kept;
    struct lora *l[3];
    float alone[4][N_MAX * N_VOCAB], got[4 * N_MAX * N_VOCAB];
    char path[] = "/tmp/ingot-lora-XXXXXX", file[64];
    assert_non_null(mkdtemp(path));
    snprintf(file, sizeof file, "%s/m.gguf", path);
    open_model(&plain, "qwen2", (struct model_options){0});
    OK(model_write_gguf(plain.model, file, !strcmp(type, "bf16") ? DT_BF16 : DT_Q8_0, NULL, &err));
    struct checkpoint *ck;
    for (int i = 0; i < 2; i++) {
        struct bench_model *x = i ? &kept : &b;
        memset(x, 0, sizeof *x);
        OK(checkpoint_open(&ck, file, &err));
        OK(model_load(&x->model, ck, &(struct model_options){.keep = i == 1}, &err));
        checkpoint_close(ck);
        x->kv = mem_alloc_aligned(4 * model_kv_block_bytes(x->model));
        OK(model_run_create(&x->run, x->model, 4 * N_MAX, 4 * N_MAX, x->kv, 4, NULL, &err));
    }
    for (int i = 0; i < 3; i++)
        OK(lora_open(&l[i], b.model, at(names[i]), NULL, &err)); /* of a GGUF, too */
    size_t bytes = (size_t)n_ids * N_VOCAB * sizeof(float);
    for (int i = 0; i < 4; i++) {
        const struct lora *one[1] = {i < 3 ? l[i] : NULL};
        forward(&b, alone[i], one, 1);
        forward(&kept, got, one, 1); /* step by step, nothing fused */
        assert_memory_equal(got, alone[i], bytes);
        for (int k = 0; k < i; k++)
            assert_memory_not_equal(alone[k], alone[i], bytes);
    }
    forward(&b, got, NULL, 1);
    assert_memory_equal(got, alone[3], bytes);
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 3, 0, 3}, {2, 0, 2, 1}, {1, 1, 1, 1}, {3, 2, 1, 0}};
    for (size_t o = 0; o < sizeof orders / sizeof *orders; o++) {
        const struct lora *some[4];
        for (int i = 0; i < 4; i++)
            some[i] = orders[o][i] < 3 ? l[orders[o][i]] : NULL;
        forward(&b, got, some, 4);
        for (int i = 0; i < 4; i++)
            assert_memory_equal(got + (size_t)i * (size_t)n_ids * N_VOCAB, alone[orders[o][i]], bytes);
    }
    b.run->lora_reals = (size_t)(48 + 64 + 32 + 8); /* rows go in parts of one or two */
    const struct lora *some[4] = {l[0], l[1], l[0], NULL};
    forward(&b, got, some, 4);
    assert_memory_equal(got, alone[0], bytes);
    assert_memory_equal(got + (size_t)2 * (size_t)n_ids * N_VOCAB, alone[0], bytes);
    assert_memory_equal(got + (size_t)n_ids * N_VOCAB, alone[1], bytes);
    for (int i = 0; i < 3; i++)
        lora_drop(l[i]);
    bench_close(&b);
    bench_close(&plain);
    bench_close(&kept);
    remove(file);
    rmdir(path);
}

static void test_bits_alone_and_in_company(void **state)
{
    (void)state;
    check_company("q8_0");
    check_company("bf16");
}

/* A row that a sequence became meets the sequence's adapter. */
static void test_a_classifier_takes_the_adapter_of_each_sequence(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"],\"vocab_size\":64,"
        "\"hidden_size\":32,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"intermediate_size\":48,"
        "\"max_position_embeddings\":64,\"type_vocab_size\":2,\"num_labels\":2}";
    enum { N_EMBD = 32, N_LABEL = 2 };
    struct bench_model b = {0};
    const struct json *doc;
    float rows[N_EMBD], got[3 * N_LABEL], with[N_LABEL], without[N_LABEL];
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&b.model, doc, DT_F32, 5, &(struct model_options){.any_task = true}, &err));
    b.kv = mem_alloc_aligned(4 * model_kv_block_bytes(b.model));
    OK(model_run_create(&b.run, b.model, 4 * N_MAX, 4, b.kv, 4, NULL, &err));
    const struct plan *plan = &b.model->plan;
    struct lora l = {.n_pair = plan->n_param, .pairs = calloc((size_t)plan->n_param, sizeof *l.pairs)};
    int score = 0;
    while (plan->params[score].role != W_SCORE)
        score++;
    struct weight *w[] = {&l.pairs[score].a, &l.pairs[score].b};
    for (int i = 0; i < N_EMBD; i++)
        rows[i] = (float)(i + 1);
    for (int i = 0; i < 2; i++) {
        int64_t n_out = i ? N_LABEL : 1, n_in = i ? 1 : N_EMBD;
        *w[i] = (struct weight){.type = DT_F32, .n_out = n_out, .n_in = n_in};
        w[i]->bytes = w[i]->panel_bytes = weight_bytes(DT_F32, n_out, n_in);
        w[i]->panels = mem_alloc_aligned(w[i]->bytes);
        weight_pack(w[i], rows, DT_F32, NULL, NULL);
    }
    forward(&b, without, NULL, 1);
    forward(&b, with, (const struct lora *[]){&l}, 1);
    assert_memory_not_equal(with, without, sizeof with);
    forward(&b, got, (const struct lora *[]){NULL, &l, NULL}, 3);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(got + (size_t)i * N_LABEL, i == 1 ? with : without, sizeof with);
    mem_free(w[0]->panels);
    mem_free(w[1]->panels);
    free(l.pairs);
    bench_close(&b);
}

static void test_digest_and_key(void **state)
{
    (void)state;
    struct bench_model b;
    struct lora *x, *y, *z;
    open_model(&b, "qwen2", (struct model_options){0});
    OK(lora_open(&x, b.model, at("all"), NULL, &err));
    OK(lora_open(&y, b.model, at("all"), NULL, &err));
    OK(lora_open(&z, b.model, at("some"), NULL, &err));
    assert_string_equal(lora_digest(x), lora_digest(y));
    assert_string_not_equal(lora_digest(x), lora_digest(z));
    assert_true(lora_key(x) == lora_key(y) && lora_key(x) != lora_key(z) && lora_key(x) && !lora_key(NULL));
    assert_null(lora_digest(NULL));
    lora_drop(lora_hold(x));
    lora_drop(x);
    lora_drop(y);
    lora_drop(z);
    lora_drop(NULL);
    bench_close(&b);
}

/* ---- refusals and damage: a copy of an adapter, changed ---- */
static char copy[64];

static void copy_adapter(const char *name, const char *what, const char *instead)
{
    char from[300], to[128];
    struct buf config = {0}, weights = {0}, changed = {0};
    snprintf(from, sizeof from, "%s/adapter_config.json", at(name));
    OK(file_read_all(&config, from, 1 << 20, &err));
    size_t found = what ? str_find(buf_str(&config), str_of(what), 0) : config.len;
    assert_true(found != SIZE_MAX);
    buf_append(&changed, config.ptr, found);
    if (what) {
        buf_append_str(&changed, str_of(instead));
        buf_append_str(&changed, str_from(buf_str(&config), found + strlen(what)));
    }
    OK(file_write_all(path_join(to, sizeof to, copy, "adapter_config.json"), buf_str(&changed), &err));
    snprintf(from, sizeof from, "%s/adapter_model.safetensors", at(name));
    OK(file_read_all(&weights, from, 1 << 20, &err));
    OK(file_write_all(path_join(to, sizeof to, copy, "adapter_model.safetensors"), buf_str(&weights), &err));
    buf_free(&config);
    buf_free(&weights);
    buf_free(&changed);
}

static void make_folder(void)
{
    strcpy(copy, "/tmp/ingot-adapter-XXXXXX");
    assert_non_null(mkdtemp(copy));
}

static void drop_folder(void)
{
    char to[128];
    remove(path_join(to, sizeof to, copy, "adapter_config.json"));
    remove(path_join(to, sizeof to, copy, "adapter_model.safetensors"));
    rmdir(copy);
}

static void test_what_is_not_offered_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *what, *instead, *says;
        enum status status;
    } rows[] = {
        {"\"LORA\"", "\"LOHA\"", "peft_type is \"LOHA\"", ST_UNSUPPORTED},
        {"\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", "modules_to_save", ST_UNSUPPORTED},
        {"\"use_dora\": false", "\"use_dora\": true", "use_dora", ST_UNSUPPORTED},
        {"\"bias\": \"none\"", "\"bias\": \"all\"", "bias", ST_UNSUPPORTED},
        {"\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\"", "pissa_niter_4", ST_UNSUPPORTED},
        {"\"r\": 3", "\"r\": 4", "expected floats [4, 32]", ST_INVALID},
        {"\"r\": 3", "\"r\": 0", "r is 0", ST_CORRUPT},
        {"\"r\": 3", "\"r\": 100000", "r is 100000", ST_UNSUPPORTED},
        {"\"down_proj\": 2,", "\"down_.*\": 2,", "regular expression", ST_UNSUPPORTED},
        {"\"down_proj\": 2,", "\"own_proj\": 2,", "down_proj", ST_INVALID},
        {"\"lora_alpha\": 4", "\"lora_alpha\": 1e400", "", ST_CORRUPT},
        {"{", "[", "line", ST_CORRUPT},
    };
    struct bench_model b, other;
    struct lora *l;
    make_folder();
    open_model(&b, "qwen2", (struct model_options){0});
    open_model(&other, "gpt2", (struct model_options){0});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_adapter("some", rows[i].what, rows[i].instead);
        FAILS(rows[i].status, lora_open(&l, b.model, copy, NULL, &err));
        if (!strstr(err.text, rows[i].says))
            fail_msg("row %zu: %s", i, err.text);
    }
    copy_adapter("some", NULL, NULL);
    OK(lora_open(&l, b.model, copy, NULL, &err));
    lora_drop(l);
    FAILS(ST_UNSUPPORTED, lora_open(&l, other.model, copy, NULL, &err)); /* made for another model */
    assert_non_null(strstr(err.text, "is no lora_A or lora_B of a linear layer of this model (gpt2)"));
    FAILS(ST_UNSUPPORTED, lora_open(&l, b.model, at("conv"), NULL, &err));
    FAILS(ST_NOT_FOUND, lora_open(&l, b.model, "/tmp/nothing-here", NULL, &err));
    FAILS(ST_NOT_FOUND, lora_open(&l, b.model, at("qwen2"), NULL, &err));
    bench_close(&b);
    bench_close(&other);
    drop_folder();
}

/* A product's adapter under the name of a table that is only looked up would have no effect. */
static void test_tables_take_no_adapter(void **state)
{
    (void)state;
    static const char from[] = "layers.0.mlp.gate_proj.lora_", *const to = "embed_tokens.lora_";
    struct bench_model b;
    struct lora *l;
    struct buf weights = {0};
    char path[128];
    make_folder();
    open_model(&b, "qwen2", (struct model_options){0});
    copy_adapter("first", NULL, NULL);
    OK(file_read_all(&weights, path_join(path, sizeof path, copy, "adapter_model.safetensors"), 1 << 20, &err));
    int n = 0;
    for (size_t found; (found = str_find(buf_str(&weights), str_of(from), 0)) != SIZE_MAX; n++) {
        size_t less = strlen(from) - strlen(to), rest = strlen("A.weight\"");
        char *name = weights.ptr + found;
        memcpy(name, to, strlen(to));
        memmove(name + strlen(to), name + strlen(from), rest);
        memset(name + strlen(to) + rest, ' ', less); /* the header keeps its length */
    }
    assert_int_equal(n, 2);
    OK(file_write_all(path, buf_str(&weights), &err));
    FAILS(ST_UNSUPPORTED, lora_open(&l, b.model, copy, NULL, &err));
    assert_non_null(strstr(err.text, "embed_tokens.lora_A.weight is no lora_A or lora_B of a linear layer"));
    buf_free(&weights);
    bench_close(&b);
    drop_folder();
}

static void test_damage_is_refused_or_harmless(void **state)
{
    (void)state;
    struct bench_model b;
    struct lora *l;
    struct buf good = {0};
    char path[128];
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    make_folder();
    open_model(&b, "qwen2", (struct model_options){0});
    copy_adapter("first", NULL, NULL);
    for (int f = 0; f < 2; f++) {
        path_join(path, sizeof path, copy, files[f]);
        OK(file_read_all(&good, path, 1 << 20, &err));
        for (size_t n = 0; n < good.len - 2; n++) {
            FILE *out = fopen(path, "wb"); /* not through the seam: thousands of syncs */
            fwrite(good.ptr, 1, n, out);
            fclose(out);
            assert_int_not_equal(lora_open(&l, b.model, copy, NULL, &err), ST_OK);
        }
        for (size_t i = 0; i < good.len; i++) {
            good.ptr[i] ^= (char)(1 << i % 8);
            FILE *out = fopen(path, "wb");
            fwrite(good.ptr, 1, good.len, out);
            fclose(out);
            good.ptr[i] ^= (char)(1 << i % 8);
            if (lora_open(&l, b.model, copy, NULL, &err) == ST_OK) {
                float got[N_MAX * N_VOCAB];
                const struct lora *loras[1] = {l};
                forward(&b, got, loras, 1);
                lora_drop(l);
            }
        }
        FILE *out = fopen(path, "wb");
        fwrite(good.ptr, 1, good.len, out);
        fclose(out);
        buf_free(&good);
    }
    OK(lora_open(&l, b.model, copy, NULL, &err));
    lora_drop(l);
    bench_close(&b);
    drop_folder();
}

static void test_lack_of_memory_is_told(void **state)
{
    (void)state;
    struct bench_model b;
    struct lora *l;
    open_model(&b, "qwen2", (struct model_options){0});
    for (uint64_t n = 1;; n++) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = lora_open(&l, b.model, at("some"), NULL, &err);
        bool fired = fault_fired();
        fault_disarm();
        if (st == ST_OK)
            lora_drop(l);
        assert_int_equal(st, fired ? ST_NOMEM : ST_OK);
        if (!fired)
            break;
    }
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_are_those_of_peft),
        cmocka_unit_test(test_bits_alone_and_in_company),
        cmocka_unit_test(test_a_classifier_takes_the_adapter_of_each_sequence),
        cmocka_unit_test(test_digest_and_key),
        cmocka_unit_test(test_what_is_not_offered_is_refused_by_name),
        cmocka_unit_test(test_tables_take_no_adapter),
        cmocka_unit_test(test_damage_is_refused_or_harmless),
        cmocka_unit_test(test_lack_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
