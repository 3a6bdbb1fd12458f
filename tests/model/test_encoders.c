/* test_encoders - encoders, embedding models and classifiers against transformers (tools/golden/encoders.py, minilm.py)
 *
 * The goldens hold configurations, tensor lists and vectors; the weights come from the formula of made.h. The same
 * sequences together in one batch, on any number of threads, must have the bits of each alone.
 */
#include "model/made.h"

#include "base/fault.h"
#include "model/first_run.h"
#include "model/private.h"

#include <sys/stat.h>

enum { SEQUENCES_MAX = 16, TOKENS_MAX = 2048, WIDTH_MAX = 1024 };
enum { ALL_WAYS = 0x654321 }; /* of pooling, side by side */

/* ---- running ---- */
struct texts {
    int n, at;
    int32_t ids[TOKENS_MAX], types[TOKENS_MAX];
    struct attend_span spans[SEQUENCES_MAX];
};

static void texts_add(struct texts *t, const int32_t *ids, int n, int first)
{
    assert_true(t->n < SEQUENCES_MAX && t->at + n <= TOKENS_MAX);
    for (int i = 0; i < n; i++) {
        t->ids[t->at + i] = ids[i];
        t->types[t->at + i] = first && i >= first;
    }
    t->spans[t->n++] = (struct attend_span){.row0 = t->at, .n_row = n};
    t->at += n;
}

/* out [t->n, n_out] */
static void run_texts(float *out, const struct model *m, struct texts *t, struct pool *pool)
{
    struct error err;
    struct model_run *run;
    int32_t blocks[TOKENS_MAX / KV_BLOCK + SEQUENCES_MAX];
    int n_block = 0;
    for (int i = 0; i < t->n; i++) {
        t->spans[i].blocks = blocks + n_block;
        for (int b = 0; b * KV_BLOCK < t->spans[i].n_row; b++, n_block++)
            blocks[n_block] = n_block;
    }
    void *kv = mem_alloc_aligned((size_t)n_block * model_kv_block_bytes(m));
    memset(kv, 0xff, (size_t)n_block * model_kv_block_bytes(m)); /* NaN: what was not written is never read */
    OK(model_run_create(&run, m, t->at, t->n, kv, n_block, pool, &err));
    struct model_batch b = {.n_row = t->at, .ids = t->ids, .spans = t->spans, .n_span = t->n, .types = t->types};
    model_forward(run, &b, out);
    model_run_free(run);
    mem_free(kv);
}

static struct model *open_model(const char *path, struct model_options options)
{
    struct error err;
    struct checkpoint *ck;
    struct model *m;
    options.exact = options.any_task = true;
    OK(checkpoint_open(&ck, path, &err));
    OK(model_load(&m, ck, &options, &err));
    checkpoint_close(ck);
    return m;
}

/* ---- goldens ---- */
static char gguf_path[160];

static void check_sequence(const struct model *m, const struct json *c, const struct json *q, const char *kind)
{
    struct texts t = {0};
    float out[128];
    size_t n;
    int32_t ids[TOKENS_MAX];
    double scale = 0, error = 0;
    float *want = decode_floats(json_str(json_get(q, kind)), &n);
    ids_of(ids, json_int(json_get(q, "seed"), 0), (int)json_int(json_get(q, "n"), 0));
    texts_add(&t, ids, (int)json_int(json_get(q, "n"), 0), (int)json_int(json_get(q, "first"), 0));
    assert_int_equal(n, model_config(m)->n_out);
    run_texts(out, m, &t, NULL);
    for (size_t i = 0; i < n; i++) {
        scale = fmax(scale, fabs((double)want[i]));
        error = fmax(error, fabs((double)out[i] - (double)want[i]));
    }
    worst = fmax(worst, error / scale);
    if (!(error <= 1e-5 * scale))
        fail_msg("%.*s, %s of %d tokens: off by %.2e of the largest", STR_ARG(json_str(json_get(c, "name"))), kind,
                 t.at, error / scale);
    free(want);
}

static void check_kind(const struct json *c, const char *path, const char *kind, unsigned pooling)
{
    if (!json_get(json_at(json_get(c, "sequences"), 0), kind))
        return;
    struct model *m = open_model(path, (struct model_options){.pooling = pooling});
    bool score = strcmp(kind, "score") == 0 || strcmp(kind, "words") == 0;
    assert_int_equal(model_config(m)->task, score ? TASK_SCORE : TASK_EMBED);
    JSON_EACH (q, json_get(c, "sequences")) {
        check_sequence(m, c, q, kind);
    }
    model_free(m);
}

static void check_model(const struct json *c, const char *path)
{
    check_kind(c, path, "score", 0);
    check_kind(c, path, "dense", 0);
    check_kind(c, path, "words", 0);
    static const char *const ways[] = {"mean", "cls", "last", "max", "sqrt", "weighted"};
    _Static_assert(sizeof ways / sizeof *ways == POOL_COUNT - POOL_MEAN, "every way of pooling");
    for (unsigned p = POOL_MEAN; p < POOL_COUNT; p++) {
        assert_int_equal(pooling_parse(str_of(ways[p - POOL_MEAN])), p);
        check_kind(c, path, ways[p - POOL_MEAN], p);
    }
}

/* The modules behind the model, in folders of their own: see write_modules. */
static void put_file(const char *name, const char *content)
{
    struct error err;
    char path[256];
    OK(file_write_all(path_join(path, sizeof path, folder, name), str_of(content), &err));
}

static void write_modules(const struct json *c, enum dtype type)
{
    struct error err;
    struct buf list = {0};
    buf_printf(&list, "[{\"path\":\"\",\"type\":\"a.Transformer\"}");
    JSON_EACH (module, json_get(c, "modules")) {
        struct made_list l;
        struct buf config = {0};
        struct json_writer w;
        char path[256], name[64];
        struct str where = json_str(json_get(module, "path"));
        snprintf(name, sizeof name, "%.*s/config.json", STR_ARG(where));
        json_writer_init(&w, &config);
        json_write_value(&w, json_get(module, "config"));
        snprintf(path, sizeof path, "%s/%.*s", folder, STR_ARG(where));
        mkdir(path, 0700);
        buf_append_char(&config, 0);
        put_file(name, config.ptr);
        buf_free(&config);
        make_tensors(&l, module);
        for (size_t i = 0; i < l.n; i++)
            l.items[i].name = str_from(l.items[i].name, sizeof "dense_2." - 1);
        list_out(&l, false, type);
        if (l.n)
            OK(safetensors_write(path, l.out, l.n, 0, &err));
        free_tensors(&l);
        buf_printf(&list, ",{\"path\":\"%.*s\",\"type\":\"a.%.*s\"}", STR_ARG(where), STR_ARG(str_from(where, 2)));
    }
    buf_printf(&list, ",{\"path\":\"4_Normalize\",\"type\":\"a.Normalize\"}]");
    buf_append_char(&list, 0);
    put_file("modules.json", list.ptr);
    buf_free(&list);
}

static void remove_sentence_files(void)
{
    static const char *const names[] = {"modules.json", "sentence_bert_config.json",
                                        "config_sentence_transformers.json"};
    char path[256];
    for (size_t i = 0; i < 3; i++)
        unlink(path_join(path, sizeof path, folder, names[i]));
}

/* GGUF has no row before the first position. */
static void drop_positions(struct made_list *l, int rows)
{
    for (size_t i = 0; i < l->n; i++) {
        struct made *x = &l->items[i];
        if (!str_is(x->gguf, "position_embd.weight"))
            continue;
        x->shape[0] -= rows;
        x->count = x->shape[0] * x->shape[1];
        memmove(x->data, x->data + rows * x->shape[1], (size_t)x->count * sizeof *x->data);
    }
}

static void write_gguf(struct made_list *l, const struct json *config, const char *arch, int pooling)
{
    struct error err;
    struct gguf_writer *w;
    char key[64];
    int64_t n_pad = str_is(STR("bert"), arch) && json_get(config, "pad_token_id") ? 2 : 0;
    const struct {
        const char *key, *from, *or_from;
    } ints[] = {{"block_count", "num_hidden_layers", "n_layer"},
                {"embedding_length", "hidden_size", "n_embd"},
                {"attention.head_count", "num_attention_heads", "n_head"},
                {"attention.head_count_kv", "num_key_value_heads", ""},
                {"attention.key_length", "head_dim", ""},
                {"feed_forward_length", "intermediate_size", "n_inner"},
                {"context_length", "max_position_embeddings", "n_positions"}};
    OK(gguf_writer_create(&w, &err));
    gguf_put_string(w, "general.architecture", str_of(arch));
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t value = get(config, ints[i].from, ints[i].or_from, 0) - (i == 6 ? n_pad : 0);
        snprintf(key, sizeof key, "%s.%s", arch, ints[i].key);
        if (value > 0)
            gguf_put_int(w, key, GGUF_U32, value);
    }
    snprintf(key, sizeof key, "%s.pooling_type", arch);
    gguf_put_int(w, key, GGUF_U32, pooling);
    gguf_put_bool(w, "bert.attention.causal", false);
    gguf_put_real(w, "bert.attention.layer_norm_epsilon", GGUF_F32, 1e-12);
    gguf_put_real(w, "qwen3.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6);
    gguf_put_real(w, "qwen3.rope.freq_base", GGUF_F32, 10000);
    gguf_put_real(w, "nomic-bert.rope.freq_base", GGUF_F32, 1000);
    gguf_put_real(w, "nomic-bert.attention.layer_norm_epsilon", GGUF_F32, 1e-12);
    static const struct str labels[] = {{"no", 2}, {"yes", 3}};
    if (str_is(l->items[l->n - 1].gguf, "cls.output.weight") && l->items[l->n - 1].shape[0] == 2)
        gguf_put_strings(w, "qwen3.classifier.output_labels", labels, 2);
    drop_positions(l, (int)n_pad);
    list_out(l, true, DT_F32);
    OK(gguf_writer_commit(w, gguf_path, l->out, l->n, &err));
    gguf_writer_destroy(w);
}

static const struct json *cases;
static struct arena arena;
static struct buf text;

static void test_every_encoder(void **state)
{
    (void)state;
    static const enum dtype types[] = {DT_F32, DT_F16, DT_BF16};
    int n_gguf = 0;
    assert_true(json_count(cases) >= 12);
    JSON_EACH (c, cases) {
        const struct json *config = json_get(c, "config");
        struct str name = json_str(json_get(c, "name"));
        struct made_list l;
        worst = 0;
        make_tensors(&l, c);
        for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
            write_hf(&l, config, types[i]);
            if (json_get(c, "modules"))
                write_modules(c, types[i]);
            check_model(c, folder);
            remove_sentence_files();
        }
        bool score = str_find(name, STR("score"), 0) != SIZE_MAX;
        bool all = !str_is(json_str(json_get(config, "hidden_act")), "relu"); /* GGUF does not say */
        for (size_t i = 0; i < l.n; i++)
            all &= l.items[i].gguf.ptr != NULL && !json_get(c, "modules");
        if (all) {
            const char *arch = str_starts(name, STR("qwen3"))   ? "qwen3"
                               : str_starts(name, STR("nomic")) ? "nomic-bert"
                                                                : "bert";
            write_gguf(&l, config, arch, score ? 4 : 1);
            check_model(c, gguf_path);
            n_gguf++;
        }
        print_message("%.*s%s: largest error %.1e of the largest number\n", STR_ARG(name), all ? " (and GGUF)" : "",
                      worst);
        free_tensors(&l);
    }
    assert_true(n_gguf >= 6);
}

/* ---- bits ---- */
static void check_company(const struct model *m, const struct json *c)
{
    struct error err;
    struct texts all = {0};
    static float together[SEQUENCES_MAX * WIDTH_MAX], alone[WIDTH_MAX];
    int32_t ids[TOKENS_MAX];
    int n_out = model_config(m)->n_out;
    assert_true(n_out <= WIDTH_MAX);
    static const int lengths[] = {17, 64, 1, 300, 33, 2, 65};
    enum { N = sizeof lengths / sizeof *lengths };
    for (int i = 0; i < N; i++) {
        ids_of(ids, 50 + i, lengths[i]);
        texts_add(&all, ids, lengths[i], model_config(m)->n_type > 1 ? lengths[i] / 2 : 0);
    }
    for (int threads = 1; threads <= 3; threads++) {
        struct pool *pool;
        OK(pool_create(&pool, threads, &err));
        run_texts(together, m, &all, pool);
        for (int i = 0; i < N; i++) {
            struct texts one = {0};
            ids_of(ids, 50 + i, lengths[i]);
            texts_add(&one, ids, lengths[i], model_config(m)->n_type > 1 ? lengths[i] / 2 : 0);
            run_texts(alone, m, &one, NULL);
            if (memcmp(alone, together + i * n_out, (size_t)n_out * sizeof *alone) != 0)
                fail_msg("%.*s: sequence %d, %d threads: not the bits it has alone",
                         STR_ARG(json_str(json_get(c, "name"))), i, threads);
        }
        pool_destroy(pool);
    }
}

static void test_company_does_not_change_bits(void **state)
{
    (void)state;
    JSON_EACH (c, cases) {
        struct made_list l;
        make_tensors(&l, c);
        write_hf(&l, json_get(c, "config"), DT_F32);
        free_tensors(&l);
        bool score = str_find(json_str(json_get(c, "name")), STR("score"), 0) != SIZE_MAX;
        struct model *m = open_model(folder, (struct model_options){.pooling = score ? POOL_NONE : ALL_WAYS});
        check_company(m, c);
        model_free(m);
    }
}

/* What the comparison above could hide: a later token must matter to the first row, a neighbour must not. */
static void test_later_tokens_are_seen(void **state)
{
    (void)state;
    struct made_list l;
    float a[128], b[128];
    int32_t ids[70];
    make_tensors(&l, json_at(cases, 0));
    write_hf(&l, json_get(json_at(cases, 0), "config"), DT_F32);
    free_tensors(&l);
    struct model *m = open_model(folder, (struct model_options){.pooling = POOL_FIRST});
    ids_of(ids, 3, 70);
    struct texts t = {0}, changed = {0};
    texts_add(&t, ids, 70, 0);
    ids[69] = (ids[69] + 1) % 257;
    texts_add(&changed, ids, 70, 0);
    run_texts(a, m, &t, NULL);
    run_texts(b, m, &changed, NULL);
    assert_int_equal(model_config(m)->n_out, 60);
    assert_true(memcmp(a, b, 60 * sizeof *a) != 0);
    model_free(m);
}

/* Written as GGUF and read back: the same bits; what GGUF cannot say, and folders, are refused. */
static void test_written_as_gguf(void **state)
{
    (void)state;
    struct error err;
    int n_written = 0;
    JSON_EACH (c, cases) {
        struct made_list l;
        float before[128], after[128];
        int32_t ids[33];
        struct texts t = {0};
        make_tensors(&l, c);
        write_hf(&l, json_get(c, "config"), DT_F32);
        free_tensors(&l);
        bool score = str_find(json_str(json_get(c, "name")), STR("score"), 0) != SIZE_MAX;
        struct model *m = open_model(folder, (struct model_options){.pooling = score ? POOL_NONE : POOL_FIRST});
        ids_of(ids, 5, 33);
        texts_add(&t, ids, 33, model_config(m)->n_type > 1 ? 9 : 0);
        run_texts(before, m, &t, NULL);
        FAILS(ST_UNSUPPORTED, model_write_hf(m, folder, DT_F32, &err));
        enum status st = model_write_gguf(m, gguf_path, DT_F32, NULL, &err);
        int n_out = model_config(m)->n_out;
        model_free(m);
        assert_true(st == ST_OK || st == ST_UNSUPPORTED);
        if (st != ST_OK)
            continue;
        m = open_model(gguf_path, (struct model_options){0});
        assert_int_equal(model_config(m)->n_out, n_out);
        run_texts(after, m, &t, NULL);
        assert_memory_equal(before, after, (size_t)n_out * sizeof *before);
        model_free(m);
        n_written++;
    }
    assert_int_equal(n_written,
                     7); /* bert, bert-score, qwen3-embed, -score, nomic; and -dense, -words without their modules */
}

/* ---- the files of sentence-transformers ---- */
static enum status load_folder(const struct model_options *options, struct error *err)
{
    struct checkpoint *ck;
    struct model *m;
    TRY(checkpoint_open(&ck, folder, err));
    enum status st = model_load(&m, ck, options, err);
    checkpoint_close(ck);
    if (st == ST_OK)
        model_free(m);
    return st;
}

static const char modules[] =
    "[{\"idx\":0,\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
    "{\"idx\":1,\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models.Pooling\"},"
    "{\"idx\":2,\"path\":\"2_Normalize\",\"type\":\"sentence_transformers.models.Normalize\"}]";
static const char pooling_last[] = "{\"word_embedding_dimension\":64,\"pooling_mode_cls_token\":false,"
                                   "\"pooling_mode_mean_tokens\":false,\"pooling_mode_lasttoken\":true}";
static const char prompts[] = "{\"prompts\":{\"query\":\"Query: \",\"document\":\"\"},\"default_prompt_name\":null}";

static void make_sentence_model(int index)
{
    struct made_list l;
    char path[256];
    make_tensors(&l, json_at(cases, (size_t)index));
    write_hf(&l, json_get(json_at(cases, (size_t)index), "config"), DT_F32);
    free_tensors(&l);
    put_file("modules.json", modules);
    mkdir(path_join(path, sizeof path, folder, "1_Pooling"), 0700);
    put_file("1_Pooling/config.json", pooling_last);
    put_file("sentence_bert_config.json", "{\"max_seq_length\": 77}");
    put_file("config_sentence_transformers.json", prompts);
}

static void test_sentence_files_make_an_embedding_model(void **state)
{
    (void)state;
    make_sentence_model(7); /* a decoder */
    struct model *m = open_model(folder, (struct model_options){0});
    assert_int_equal(model_config(m)->task, TASK_EMBED);
    assert_int_equal(model_config(m)->pooling, POOL_LAST);
    assert_int_equal(model_config(m)->n_ctx, 77);
    assert_true(str_is(model_prompt(m, STR("query")), "Query: "));
    assert_true(str_is(model_prompt(m, (struct str){0}), ""));
    assert_null(model_prompt(m, STR("other")).ptr);
    model_free(m);
    put_file("1_Pooling/config.json", "{\"embedding_dimension\":64,\"pooling_mode\":\"cls\"}"); /* the newer spelling */
    put_file("config_sentence_transformers.json",
             "{\"prompts\":{\"query\":\"Query: \"},\"default_prompt_name\":\"query\"}");
    m = open_model(folder, (struct model_options){0});
    assert_int_equal(model_config(m)->pooling, POOL_FIRST);
    assert_true(str_is(model_prompt(m, (struct str){0}), "Query: "));
    model_free(m);
    remove_sentence_files();
    m = open_model(folder, (struct model_options){0});
    assert_int_equal(model_config(m)->task, TASK_GENERATE);
    model_free(m);
}

static void check_refused(const char *name, const char *content, enum status status, const char *word)
{
    struct error err;
    make_sentence_model(7);
    put_file(name, content);
    FAILS(status, load_folder(&(struct model_options){.any_task = true}, &err));
    if (!strstr(err.text, word))
        fail_msg("%s: \"%s\" does not say \"%s\"", name, err.text, word);
    remove_sentence_files();
}

static void test_other_modules_are_refused_by_name(void **state)
{
    (void)state;
    check_refused("modules.json",
                  "[{\"path\":\"2_WordWeights\",\"type\":\"sentence_transformers.models.WordWeights\"}]",
                  ST_UNSUPPORTED, "WordWeights");
    check_refused("modules.json",
                  "[{\"path\":\"1_Pooling\",\"type\":\"a.Pooling\"},{\"path\":\"1_Pooling\",\"type\":\"a.Pooling\"}]",
                  ST_UNSUPPORTED, "once more");
    check_refused("modules.json", "[{\"path\":\"9\",\"type\":\"a.Pooling\"}]", ST_NOT_FOUND, "9/config.json");
    check_refused("1_Pooling/config.json",
                  "{\"pooling_mode\":[\"cls\",\"cls\",\"cls\",\"cls\",\"cls\",\"cls\",\"cls\"]}", ST_UNSUPPORTED,
                  "at most 6");
    check_refused("1_Pooling/config.json", "{\"pooling_mode\":\"attention\"}", ST_UNSUPPORTED, "attention");
    check_refused("1_Pooling/config.json", "{\"pooling_mode\":\"mean\",\"include_prompt\":false}", ST_UNSUPPORTED,
                  "include_prompt");
    check_refused("modules.json", "{", ST_CORRUPT, "modules.json");
}

/* Dense modules that would be computed wrongly, or whose weights are not theirs. */
static void test_other_dense_modules_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *content;
        enum status status;
        const char *word;
    } rows[] = {
#define LIST(a, b, c) "[{\"path\":\"" a "\",\"type\":\"a." b "\"}," c "]"
#define DENSE(n)      "{\"path\":\"" n "_Dense\",\"type\":\"a.Dense\"}"
        {"modules.json", LIST("4_Normalize", "Normalize", DENSE("2")), ST_UNSUPPORTED, "behind the Pooling"},
        {"modules.json", LIST("1_Pooling", "Pooling", "{\"type\":\"a.Normalize\"}," DENSE("2")), ST_UNSUPPORTED,
         "before Normalize"},
        {"modules.json", LIST("1_Pooling", "Pooling", DENSE("2") "," DENSE("3") "," DENSE("3")), ST_UNSUPPORTED,
         "at most 2"},
        {"modules.json", LIST("1_Pooling", "Pooling", DENSE("3")), ST_CORRUPT, "takes 43 numbers, but 180"},
        {"modules.json", LIST("1_Pooling", "Pooling", DENSE("7")), ST_NOT_FOUND, "7_Dense/config.json"},
        {"2_Dense/config.json", "{\"in_features\":180,\"out_features\":43,\"activation_function\":\"torch.nn.GELU\"}",
         ST_UNSUPPORTED, "torch.nn.GELU"},
        {"2_Dense/config.json", "{\"in_features\":180,\"out_features\":43,\"use_residual\":true}", ST_UNSUPPORTED,
         "use_residual"},
        {"2_Dense/config.json", "{\"in_features\":180,\"out_features\":0}", ST_CORRUPT, "out_features 0"},
        {"2_Dense/config.json", "{\"in_features\":180,\"out_features\":44}", ST_CORRUPT, "takes 43 numbers, but 44"},
        {"3_Dense/config.json", "{\"in_features\":43,\"out_features\":52}", ST_CORRUPT, "dense_3.linear.weight"},
        {"3_Dense/config.json",
         "{\"in_features\":43,\"out_features\":51,\"activation_function\":\"torch.nn.Identity\"}", ST_CORRUPT,
         "dense_3.linear.bias is missing"},
    };
    struct made_list l;
    struct error err;
    const struct json *c = json_at(cases, json_count(cases) - 1);
    make_tensors(&l, c);
    write_hf(&l, json_get(c, "config"), DT_F32);
    free_tensors(&l);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_modules(c, DT_F32);
        OK(load_folder(&(struct model_options){.any_task = true}, &err));
        put_file(rows[i].file, rows[i].content);
        FAILS(rows[i].status, load_folder(&(struct model_options){.any_task = true}, &err));
        if (!strstr(err.text, rows[i].word))
            fail_msg("%zu: \"%s\" does not say \"%s\"", i, err.text, rows[i].word);
    }
    write_modules(c, DT_F32);
    struct model *m = open_model(folder, (struct model_options){0});
    assert_int_equal(model_config(m)->n_out, 51);
    FAILS(ST_UNSUPPORTED, model_write_gguf(m, gguf_path, DT_F32, NULL, &err));
    model_free(m);
    m = open_model(folder, (struct model_options){.pooling = POOL_MEAN}); /* another pooling: without what follows it */
    assert_int_equal(model_config(m)->n_out, 60);
    model_free(m);
    remove_sentence_files();
}

static void test_names_of_pooling(void **state)
{
    (void)state;
    assert_int_equal(pooling_parse(STR("mean")), POOL_MEAN);
    assert_int_equal(pooling_parse(STR("mean+cls+last+max+sqrt+weighted")), ALL_WAYS);
    assert_int_equal(pooling_parse(STR("mean+cls+last+max+sqrt+weighted+cls")), 0);
    assert_int_equal(pooling_parse(STR("mean+")), 0);
    assert_int_equal(pooling_parse(STR("none")), 0);
    assert_int_equal(pooling_parse(STR("")), 0);
}

/* Cut at every byte, and a bit flipped in every byte: an answer or a sentence, never a crash or a leak. */
static void sweep_file(const char *name, const char *content)
{
    char damaged[1024];
    struct error err;
    size_t n = strlen(content);
    assert_true(n < sizeof damaged);
    for (size_t cut = 0; cut < n; cut++) {
        snprintf(damaged, sizeof damaged, "%.*s", (int)cut, content);
        put_file(name, damaged);
        enum status st = load_folder(&(struct model_options){.any_task = true}, &err);
        assert_true(st == ST_OK || err.text[0]);
    }
    for (size_t i = 0; i < n; i++) {
        memcpy(damaged, content, n + 1);
        damaged[i] ^= (char)(1 << i % 7);
        put_file(name, damaged[i] ? damaged : "");
        enum status st = load_folder(&(struct model_options){.any_task = true}, &err);
        assert_true(st == ST_OK || err.text[0]);
    }
    put_file(name, content);
}

static void fail_allocations(void)
{
    struct error err;
    OK(load_folder(&(struct model_options){.any_task = true}, &err));
    int n = 1;
    for (bool fired = true; fired; n++) {
        fault_arm(FAULT_ALLOC, (uint64_t)n);
        enum status st = load_folder(&(struct model_options){.any_task = true}, &err);
        fired = fault_fired();
        fault_disarm();
        if (fired && st != ST_NOMEM)
            fail_msg("allocation %d: status %d, %s", n, st, err.text);
    }
    print_message("%d allocations failed in turn\n", n - 2);
}

static void test_damaged_sentence_files(void **state)
{
    (void)state;
    struct made_list l;
    const struct json *c = json_at(cases, json_count(cases) - 1);
    make_sentence_model(7);
    sweep_file("modules.json", modules);
    sweep_file("1_Pooling/config.json", pooling_last);
    sweep_file("config_sentence_transformers.json", prompts);
    fail_allocations();
    remove_sentence_files();
    make_tensors(&l, c);
    write_hf(&l, json_get(c, "config"), DT_F32);
    free_tensors(&l);
    write_modules(c, DT_F32);
    sweep_file("2_Dense/config.json", "{\"in_features\":180,\"out_features\":43,\"bias\":true,"
                                      "\"activation_function\":\"torch.nn.Tanh\"}");
    fail_allocations();
    remove_sentence_files();
}

/* ---- a score by two words: the question as a chat, the second text cut, what cannot be ---- */
static const struct model_options any = {.any_task = true};

static void check_pair(const struct bundle *b, const char *document, size_t max, const char *expected)
{
    struct error err;
    struct ids ids = {0};
    struct buf said = {0};
    size_t first = 7;
    OK(bundle_pair_ids(&ids, &first, b, STR("who?"), str_of(document), max, &err));
    assert_int_equal(first, 0);
    assert_true(ids.count <= max);
    OK(tokenizer_decode(b->tokenizer, &said, ids.ids, ids.count, 0, &err));
    if (!str_is(buf_str(&said), expected))
        fail_msg("\"%.*s\" is not \"%s\"", STR_ARG(buf_str(&said)), expected);
    ids_free(&ids);
    buf_free(&said);
}

/* Characters are tokens, and the two words. */
enum { YES = 97, NO = 98 };
static void put_tokenizer(void)
{
    struct buf t = {0};
    buf_printf(&t, "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":null,"
                   "\"post_processor\":null,\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_"
                   "scheme\":\"never\",\"split\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int c = ' '; c <= '~'; c++)
        buf_printf(&t, "\"%s%c\":%d,", c == '"' || c == '\\' ? "\\" : "", c, c - ' ');
    buf_printf(&t, "\"\\n\":95,\"ye\":96,\"yes\":%d,\"no\":%d},\"merges\":[\"y e\",\"ye s\",\"n o\"]}}", YES, NO);
    buf_append_char(&t, 0);
    put_file("tokenizer.json", t.ptr);
    buf_free(&t);
}

static void words_folder(const char *logit_score)
{
    char path[256];
    put_file("modules.json", "[{\"path\":\"\",\"type\":\"a.Transformer\"},{\"path\":\"1_LogitScore\",\"type\":"
                             "\"a.LogitScore\"}]");
    mkdir(path_join(path, sizeof path, folder, "1_LogitScore"), 0700);
    put_file("1_LogitScore/config.json", logit_score);
}

static const struct json *words_case(void)
{
    const struct json *c = cases + 1;
    while (!str_is(json_str(json_get(c, "name")), "qwen3-words"))
        c = json_next(c);
    return c;
}

/* As llama.cpp converts it: a classifier of the two words' rows. */
static void test_words_of_gguf(void **state)
{
    (void)state;
    struct made_list l;
    const struct json *c = words_case(), *config = json_get(json_at(json_get(c, "modules"), 0), "config");
    const int64_t ids[] = {json_int(json_get(config, "false_token_id"), 0),
                           json_int(json_get(config, "true_token_id"), 0)};
    make_tensors(&l, c);
    struct made *items = calloc(l.n + 1, sizeof *items), *score = &items[l.n];
    memcpy(items, l.items, l.n * sizeof *items);
    free(l.items);
    free(l.out);
    l.items = items;
    l.out = calloc(++l.n, sizeof *l.out);
    *score =
        (struct made){.name = STR("x"), .gguf = STR("cls.output.weight"), .n_dim = 2, .shape = {2, 64}, .count = 128};
    score->data = calloc(128, sizeof *score->data);
    for (size_t i = 0; i + 1 < l.n; i++)
        for (int k = 0; str_is(items[i].gguf, "token_embd.weight") && k < 128; k++)
            score->data[k] = items[i].data[ids[k / 64] * 64 + k % 64];
    write_gguf(&l, json_get(c, "config"), "qwen3", 4);
    check_kind(c, gguf_path, "words", 0);
    free_tensors(&l);
}

static void make_words_model(void)
{
    struct made_list l;
    const struct json *c = words_case();
    make_tensors(&l, c);
    write_hf(&l, json_get(c, "config"), DT_F32);
    free_tensors(&l);
    put_tokenizer();
}

static float score_of_words(const struct model_options *options)
{
    struct error err;
    struct bundle *b;
    struct texts t = {0};
    int32_t ids[50];
    float score;
    struct model_options exact = *options;
    exact.exact = true;
    OK(bundle_open(&b, folder, &exact, &err));
    assert_int_equal(model_config(b->model)->task, TASK_SCORE);
    assert_int_equal(model_config(b->model)->n_out, 1);
    ids_of(ids, 3, 50);
    texts_add(&t, ids, 50, 0);
    run_texts(&score, b->model, &t, NULL);
    bundle_close(b);
    return score;
}

static void test_words_are_asked_in_a_chat(void **state)
{
    (void)state;
    char own[sizeof folder], command[300], logits[96];
    struct error err;
    struct bundle *b;
    memcpy(own, folder, sizeof own);
    assert_true((size_t)snprintf(folder, sizeof folder, "%.100s/words", own) < sizeof folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    make_words_model();
    const struct model_options rank = {.any_task = true, .pooling = pooling_parse(STR("rank"))};
    float score = score_of_words(&rank);
    put_file("tokenizer_config.json",
             "{\"chat_template\":\"{% for m in messages %}{{ m.role + ':' + m.content + ';' }}{% endfor %}\"}");
    snprintf(logits, sizeof logits, "{\"true_token_id\":%d,\"false_token_id\":%d}", YES, NO);
    words_folder(logits);
    assert_true(score_of_words(&any) == score);
    snprintf(logits, sizeof logits, "{\"true_token_id\":%d,\"false_token_id\":%d}", NO, YES);
    words_folder(logits);
    assert_true(score_of_words(&any) == -score);
    OK(bundle_open(&b, folder, &any, &err));
    assert_int_equal(model_config(b->model)->n_label, 1);
    check_pair(
        b, "the man", SIZE_MAX,
        "system:Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        "Note that the answer can only be \"yes\" or \"no\".;user:<Instruct>: Given a web search query, retrieve "
        "relevant passages that answer the query\n<Query>: who?\n<Document>: the man;");
    bundle_close(b);
    put_file("config_sentence_transformers.json", "{\"prompts\":{\"q\":\"Find.\"},\"default_prompt_name\":\"q\"}");
    put_file("tokenizer_config.json",
             "{\"chat_template\":\"{% for m in messages %}{{ m.role + ':' + m.content + ';' }}{% endfor %}"
             "{{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\"}");
    OK(bundle_open(&b, folder, &any, &err));
    check_pair(b, "the man", SIZE_MAX, "system:Find.;query:who?;document:the man;who?");
    struct ids ids = {0};
    size_t first;
    OK(bundle_pair_ids(&ids, &first, b, STR("who?"), STR("a"), SIZE_MAX, &err));
    check_pair(b, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ids.count, "system:Find.;query:who?;document:a;who?");
    FAILS(ST_INVALID, bundle_pair_ids(&ids, &first, b, STR("who?"), STR("the man"), ids.count - 3, &err));
    ids_free(&ids);
    bundle_close(b);
    put_file("1_LogitScore/config.json", "{\"true_token_id\":40000000}");
    FAILS(ST_CORRUPT, bundle_open(&b, folder, &any, &err));
    put_file("1_LogitScore/config.json", "{\"false_token_id\":4}");
    FAILS(ST_CORRUPT, bundle_open(&b, folder, &any, &err));
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
    memcpy(folder, own, sizeof own);
}

/* ---- configurations that would be computed wrongly ---- */
static void check_config(const char *config, const struct model_options *options, const char *word)
{
    struct error err;
    struct arena own;
    const struct json *doc;
    struct model *m;
    arena_init(&own, 0);
    OK(json_parse(&doc, &own, str_of(config), 0, &err));
    FAILS(ST_UNSUPPORTED, model_random(&m, doc, DT_F32, 1, options, &err));
    if (!strstr(err.text, word))
        fail_msg("\"%s\" does not say \"%s\"", err.text, word);
    arena_free(&own);
}

#define SMALL                                                                                                          \
    "\"vocab_size\":17,\"hidden_size\":20,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"intermediate_size\":12," \
    "\"max_position_embeddings\":64,\"type_vocab_size\":2,"
static void test_what_is_not_an_encoder_is_refused(void **state)
{
    (void)state;
    const struct model_options plain = {.any_task = true}, train = {.any_task = true, .train = true}, generate = {0};
    check_config("{" SMALL "\"model_type\":\"bert\",\"is_decoder\":true}", &plain, "is_decoder");
    check_config("{" SMALL "\"model_type\":\"bert\",\"position_embedding_type\":\"relative_key\"}", &plain,
                 "relative_key");
    check_config("{" SMALL "\"model_type\":\"bert\",\"architectures\":[\"BertForTokenClassification\"]}", &plain,
                 "BertForTokenClassification");
    check_config("{" SMALL "\"model_type\":\"distilbert\",\"architectures\":[\"DistilBertForSequenceClassification\"]}",
                 &plain, "distilbert");
    check_config("{" SMALL "\"model_type\":\"bert\"}", &train, "training");
    check_config("{" SMALL "\"model_type\":\"bert\"}", &generate, "generates no text");
    check_config("{" SMALL "\"model_type\":\"mpnet\"}", &plain, "mpnet");
}

/* ---- all-MiniLM-L6-v2 ---- */
static size_t ids_count(const struct json *row)
{
    return json_count(json_get(row, "ids"));
}

static void test_minilm(void **state)
{
    (void)state;
    char path[4096];
    struct error err;
    struct bundle *b;
    struct buf file = {0};
    struct arena own;
    double largest = 0;
    int n = 0, n_pair = 0;
    if (!fetched_model(path, sizeof path, "all-MiniLM-L6-v2")) {
        print_message("skipped: all-MiniLM-L6-v2 is not here (tools/get-model minilm fetches it)\n");
        skip();
    }
    arena_init(&own, 0);
    OK(bundle_open(&b, path, &(struct model_options){.n_ctx = 512, .any_task = true}, &err));
    assert_int_equal(model_config(b->model)->n_out, 384);
    const struct json *doc = read_json(&own, &file, GOLDEN("model/minilm.json"));
    JSON_EACH (row, json_get(doc, "texts")) {
        struct ids ids = {0};
        struct texts t = {0};
        float out[384];
        double squares = 0;
        size_t at = 0, n_want;
        OK(tokenizer_encode(b->tokenizer, &ids, json_str(json_get(row, "text")), TOKENIZE_ADD, &err));
        JSON_EACH (id, json_get(row, "ids")) {
            assert_true(at < ids.count);
            assert_int_equal(ids.ids[at++], json_int(id, -1));
        }
        assert_int_equal(at, ids.count);
        texts_add(&t, ids.ids, (int)ids.count, 0);
        run_texts(out, b->model, &t, NULL);
        float *want = decode_floats(json_str(json_get(row, "vector")), &n_want);
        assert_int_equal(n_want, 384);
        for (int i = 0; i < 384; i++)
            squares += (double)out[i] * (double)out[i];
        for (int i = 0; i < 384; i++)
            largest = fmax(largest, fabs((double)out[i] / sqrt(squares) - (double)want[i]));
        free(want);
        ids_free(&ids);
        n++;
    }
    JSON_EACH (row, json_get(doc, "pairs")) {
        struct ids ids = {0};
        size_t first, at = 0, max = ids_count(row) + 3;
        struct str a = json_str(json_get(row, "a")), second = json_str(json_get(row, "b"));
        for (int cut = 0; cut < 2; cut++, at = 0, ids.count = 0) { /* at twice its length, and at its own */
            OK(tokenizer_encode_pair(b->tokenizer, &ids, &first, a, second, cut ? ids_count(row) : max, &err));
            assert_int_equal(first, json_int(json_get(row, "first"), -1));
            JSON_EACH (id, json_get(row, "ids")) {
                assert_true(at < ids.count);
                assert_int_equal(ids.ids[at++], json_int(id, -1));
            }
            assert_int_equal(at, ids.count);
        }
        if (second.len > 10) { /* the second text loses its end, not its mark */
            OK(tokenizer_encode_pair(b->tokenizer, &ids, &first, a, second, ids_count(row) - 2, &err));
            assert_int_equal(ids.count, ids_count(row) - 2);
            assert_int_equal(ids.ids[ids.count - 1], 102);
            tokenizer_shorten(b->tokenizer, &ids, 5);
            assert_int_equal(ids.count, 5);
            assert_int_equal(ids.ids[4], 102);
        }
        FAILS(ST_INVALID, tokenizer_encode_pair(b->tokenizer, &ids, &first, a, second, 3, &err));
        ids_free(&ids);
        n_pair++;
    }
    assert_int_equal(n_pair, 4);
    print_message("%d texts: largest difference %.1e\n", n, largest);
    assert_true(n >= 12);
    assert_true(largest < 1e-5);
    bundle_close(b);
    buf_free(&file);
    arena_free(&own);
}

int main(void)
{
    struct error err;
    char command[160];
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    snprintf(folder, sizeof folder, "/tmp/ingot-encoders-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    snprintf(gguf_path, sizeof gguf_path, "%s/model.gguf", folder);
    arena_init(&arena, 0);
    cases = json_get(read_json(&arena, &text, GOLDEN("model/encoders.json")), "cases");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_encoder),
        cmocka_unit_test(test_company_does_not_change_bits),
        cmocka_unit_test(test_later_tokens_are_seen),
        cmocka_unit_test(test_written_as_gguf),
        cmocka_unit_test(test_sentence_files_make_an_embedding_model),
        cmocka_unit_test(test_other_modules_are_refused_by_name),
        cmocka_unit_test(test_other_dense_modules_are_refused),
        cmocka_unit_test(test_names_of_pooling),
        cmocka_unit_test(test_words_are_asked_in_a_chat),
        cmocka_unit_test(test_words_of_gguf),
        cmocka_unit_test(test_damaged_sentence_files),
        cmocka_unit_test(test_what_is_not_an_encoder_is_refused),
        cmocka_unit_test(test_minilm),
    };
    int failed = RUN(tests);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    buf_free(&text);
    arena_free(&arena);
    return system(command) == 0 ? failed : 1;
}
