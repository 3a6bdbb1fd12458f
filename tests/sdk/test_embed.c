/* test_embed - texts as vectors and scores by the library: numbers, company, room, errors, threads, lack of memory */
#include "sdk/sdk_test.h"

#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static ingot_model *model; /* the storyteller, by the mean */
static int width;

static int set_up(void **state)
{
    (void)state;
    ingot_model_options o;
    ingot_model_info i;
    INGOT_INIT(o);
    o.threads = 2;
    o.pooling = "mean";
    GOOD(ingot_model_open(&model, storyteller, &o, &error));
    INGOT_INIT(i);
    GOOD(ingot_model_describe(model, &i, &error));
    assert_int_equal(i.task, INGOT_TASK_EMBED);
    assert_int_equal(i.n_out, i.n_embd);
    width = i.n_out;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ingot_model_close(model);
    return 0;
}

enum { TEXTS = 4, WIDTH_MAX = 1024 };
static const char *const texts[TEXTS] = {"Once upon a time", "", "The count went to the house in the evening.", "a"};

static ingot_embedding embedding_of(const char *const *given, size_t n, float *out)
{
    ingot_embedding e;
    INGOT_INIT(e);
    e.texts = given;
    e.n_text = n;
    e.out = out;
    e.room = n * (size_t)width;
    return e;
}

static void test_vectors(void **state)
{
    (void)state;
    float together[TEXTS * WIDTH_MAX], one[WIDTH_MAX], raw[WIDTH_MAX], part[WIDTH_MAX];
    int32_t n_token[TEXTS], ids[64];
    const int32_t *list = ids;
    size_t n;
    ingot_result r;
    INGOT_INIT(r);
    ingot_embedding e = embedding_of(texts + 2, 2, together);
    e.n_token = n_token;
    GOOD(ingot_embed(model, &e, &r, &error));
    assert_int_equal(r.finish, INGOT_FINISH_STOP);
    assert_int_equal(r.prompt_tokens, n_token[0] + n_token[1]);
    assert_int_equal(r.output_tokens, 0);
    for (int i = 0; i < 2; i++) {
        double squares = 0;
        e = embedding_of(texts + 2 + i, 1, one);
        GOOD(ingot_embed(model, &e, NULL, &error));
        assert_memory_equal(one, together + i * width, (size_t)width * sizeof *one);
        for (int k = 0; k < width; k++)
            squares += (double)one[k] * (double)one[k];
        assert_true(fabs(squares - 1) < 1e-5);
        GOOD(ingot_tokenize(model, texts[2 + i], strlen(texts[2 + i]), INGOT_ADD, ids, 64, &n, &error));
        assert_int_equal(n, n_token[i]);
        e = embedding_of(NULL, 1, raw); /* the same, from tokens */
        e.ids = &list;
        e.n_ids = &n;
        GOOD(ingot_embed(model, &e, NULL, &error));
        assert_memory_equal(raw, one, (size_t)width * sizeof *one);
    }
    e.flags = INGOT_EMBED_RAW;
    GOOD(ingot_embed(model, &e, NULL, &error));
    double length = 0, of_part = 0;
    for (int k = 0; k < width; k++) {
        length += (double)raw[k] * (double)raw[k];
        of_part += k < 5 ? (double)raw[k] * (double)raw[k] : 0;
    }
    e = embedding_of(texts + 3, 1, part);
    e.dimensions = 5;
    e.room = 5;
    GOOD(ingot_embed(model, &e, NULL, &error));
    for (int k = 0; k < width; k++) {
        assert_true(fabs((double)raw[k] / sqrt(length) - (double)one[k]) < 1e-6);
        assert_true(k >= 5 || fabs((double)raw[k] / sqrt(of_part) - (double)part[k]) < 1e-6);
    }
}

static void test_what_makes_no_sense(void **state)
{
    (void)state;
    float out[TEXTS * WIDTH_MAX];
    const volatile int now = 1;
    int32_t unknown = 1 << 30;
    size_t one = 1;
    ingot_result r;
    ingot_embedding e = embedding_of(texts, 2, out), good = embedding_of(texts, 1, out);
    BAD(INGOT_INVALID, "size is not set", ingot_embed(model, NULL, NULL, &error));
    BAD(INGOT_INVALID, "text 1", ingot_embed(model, &e, NULL, &error)); /* "" has no tokens in this model */
    e.room--;
    BAD(INGOT_LIMIT, "are needed", ingot_embed(model, &e, NULL, &error));
    e = good, e.out = NULL;
    BAD(INGOT_LIMIT, "are needed", ingot_embed(model, &e, NULL, &error));
    e = good, e.n_text = 0;
    BAD(INGOT_INVALID, "0 texts", ingot_embed(model, &e, NULL, &error));
    e = good, e.n_text = 65537;
    BAD(INGOT_INVALID, "65537 texts", ingot_embed(model, &e, NULL, &error));
    e = good, e.dimensions = width + 1;
    BAD(INGOT_INVALID, "dimensions", ingot_embed(model, &e, NULL, &error));
    e = good, e.dimensions = -1;
    BAD(INGOT_INVALID, "dimensions", ingot_embed(model, &e, NULL, &error));
    e = good, e.flags = 4;
    BAD(INGOT_INVALID, "flags", ingot_embed(model, &e, NULL, &error));
    e = good, e.query = "q";
    BAD(INGOT_INVALID, "vectors", ingot_embed(model, &e, NULL, &error));
    e = good, e.prompt = "query";
    BAD(INGOT_INVALID, "no prompt \"query\"", ingot_embed(model, &e, NULL, &error));
    e = good, e.ids = &(const int32_t *){&unknown};
    BAD(INGOT_INVALID, "one of texts and ids", ingot_embed(model, &e, NULL, &error));
    e.texts = NULL;
    BAD(INGOT_INVALID, "n_ids", ingot_embed(model, &e, NULL, &error));
    e.n_ids = &one;
    BAD(INGOT_INVALID, "vocabulary", ingot_embed(model, &e, NULL, &error));
    e = good, e.interrupt = &now;
    INGOT_INIT(r);
    BAD(INGOT_CANCELED, "interrupted", ingot_embed(model, &e, &r, &error));
    assert_int_equal(r.finish, INGOT_FINISH_CANCELED);
}

static void test_long_texts(void **state)
{
    (void)state;
    ingot_model_info i;
    float out[2 * WIDTH_MAX];
    int32_t n_token[2];
    INGOT_INIT(i);
    GOOD(ingot_model_describe(model, &i, &error));
    char *text = malloc((size_t)i.context * 8 + 1);
    for (int k = 0; k < i.context * 8; k++)
        text[k] = "the man "[k % 8];
    text[i.context * 8] = 0;
    ingot_embedding e = embedding_of((const char *[]){"a", text}, 2, out);
    BAD(INGOT_INVALID, "text 1 has", ingot_embed(model, &e, NULL, &error));
    e.flags = INGOT_EMBED_CUT;
    e.n_token = n_token;
    GOOD(ingot_embed(model, &e, NULL, &error));
    assert_int_equal(n_token[1], i.context);
    free(text);
}

static void test_tasks_are_told_apart(void **state)
{
    (void)state;
    ingot_model *m;
    ingot_model_options o;
    ingot_session *session;
    float out[WIDTH_MAX];
    char *text;
    ingot_embedding e = embedding_of(texts, 1, out);
    GOOD(ingot_session_open(&session, model, NULL, &error));
    assert_int_equal(ingot_session_say(session, "Hi", NULL, NULL, NULL, NULL, &error), INGOT_UNSUPPORTED);
    ingot_session_close(session);
    GOOD(ingot_model_open(&m, storyteller, NULL, &error));
    BAD(INGOT_UNSUPPORTED, "pooling", ingot_embed(m, &e, NULL, &error));
    ingot_model_close(m);
    INGOT_INIT(o);
    o.pooling = "middle";
    BAD(INGOT_INVALID, "\"middle\"", ingot_model_open(&m, storyteller, &o, &error));
    assert_int_equal(ingot_generate(&text, "nothing.gguf", "Hi", NULL, &error), INGOT_NOT_FOUND);
}

/* A reranker without a tokenizer: scores of tokens, as logits and as relevance. */
static void test_scores(void **state)
{
    (void)state;
    static const char config[] =
        "{\"model_type\":\"bert\",\"architectures\":[\"BertForSequenceClassification\"],\"num_labels\":1,"
        "\"vocab_size\":53,\"hidden_size\":20,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
        "\"intermediate_size\":12,\"max_position_embeddings\":60,\"type_vocab_size\":2,\"initializer_range\":0.3}";
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct model *made;
    char path[64] = "/tmp/ingot-sdk-XXXXXX";
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&made, doc, DT_F32, 3, &(struct model_options){.any_task = true}, &err));
    assert_true(close(mkstemp(path)) == 0);
    OK(model_write_gguf(made, path, DT_F32, NULL, &err));
    model_free(made);
    arena_free(&arena);
    ingot_model *m;
    ingot_model_info i;
    INGOT_INIT(i);
    GOOD(ingot_model_open(&m, path, NULL, &error));
    unlink(path);
    GOOD(ingot_model_describe(m, &i, &error));
    assert_int_equal(i.task, INGOT_TASK_SCORE);
    assert_int_equal(i.n_out, 1);
    const int32_t a[] = {1, 2, 3}, b[] = {4, 5, 6, 7};
    const size_t n_ids[] = {3, 4};
    float logits[2], scores[2];
    ingot_embedding e;
    INGOT_INIT(e);
    e.ids = (const int32_t *[]){a, b};
    e.n_ids = n_ids;
    e.n_text = e.room = 2;
    e.out = scores;
    GOOD(ingot_embed(m, &e, NULL, &error));
    e.out = logits;
    e.flags = INGOT_EMBED_RAW;
    GOOD(ingot_embed(m, &e, NULL, &error));
    assert_true(logits[0] != logits[1]);
    for (int k = 0; k < 2; k++)
        assert_true(fabs(1 / (1 + exp(-(double)logits[k])) - (double)scores[k]) < 1e-6);
    e.dimensions = 1;
    BAD(INGOT_INVALID, "dimensions", ingot_embed(m, &e, NULL, &error));
    e.dimensions = 0;
    e.ids = NULL;
    e.texts = texts;
    BAD(INGOT_INVALID, "a query is missing", ingot_embed(m, &e, NULL, &error));
    e.query = "q";
    BAD(INGOT_UNSUPPORTED, "no tokenizer", ingot_embed(m, &e, NULL, &error));
    ingot_model_close(m);
}

static float want[3][WIDTH_MAX];
static void *many(void *arg)
{
    float out[3 * WIDTH_MAX];
    for (int i = 0; i < 20; i++) {
        int from = ((int)(intptr_t)arg + i) % 2;
        ingot_embedding e =
            embedding_of((const char *[]){texts[0], texts[2], texts[3]} + from, (size_t)(3 - from), out);
        if (ingot_embed(model, &e, NULL, NULL) != INGOT_OK)
            return (void *)"refused";
        for (int k = from; k < 3; k++)
            if (memcmp(out + (k - from) * width, want[k], (size_t)width * sizeof *out) != 0)
                return (void *)"other bits";
    }
    return NULL;
}

static void test_many_threads_get_the_bits_of_one(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        ingot_embedding e = embedding_of(&texts[k ? k + 1 : 0], 1, want[k]);
        GOOD(ingot_embed(model, &e, NULL, &error));
    }
    run_threads(4, many);
}

static void test_lack_of_memory_is_told(void **state)
{
    (void)state;
    float out[WIDTH_MAX];
    int n = 0;
    for (bool fired = true; fired;) {
        ingot_embedding e = embedding_of(texts, 1, out);
        fault_arm(FAULT_ALLOC, (uint64_t)++n);
        int status = ingot_embed(model, &e, NULL, &error);
        fired = fault_fired();
        fault_disarm();
        assert_int_equal(status, fired ? INGOT_NOMEM : INGOT_OK);
        assert_in_range(n, 1, 200);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_what_makes_no_sense),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_tasks_are_told_apart),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_many_threads_get_the_bits_of_one),
        cmocka_unit_test(test_lack_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
