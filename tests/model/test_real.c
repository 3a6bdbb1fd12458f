/* test_real - small trained models give the ids and logits of their reference.json (f64, another implementation) */
#include "model/support.h"

static double largest; /* error over deviation, of all top logits compared */

static void check_top(const real *logits, int n_vocab, const struct json *top)
{
    double dev = deviation(logits, (size_t)n_vocab);
    JSON_EACH (pair, top) {
        int64_t id = json_int(json_at(pair, 0), -1);
        double want = json_real(json_at(pair, 1), 0), error = fabs((double)logits[id] - want) / dev;
        assert_in_range(id, 0, n_vocab - 1);
        largest = error > largest ? error : largest;
        /* the reference prints five decimals: half of the last place is not our error */
        if (fabs((double)logits[id] - want) > 1e-4 * dev + 0.5e-5)
            fail_msg("logit of %lld is %.6f, expected %.5f (deviation %.3f)", (long long)id, (double)logits[id], want,
                     dev);
    }
}

/* The ids of one case: every one after the prompt is the greedy choice; first and last logits as printed. */
static void check_case(struct bench_model *b, const struct json *prompt, const struct json *ids_json,
                       const struct json *first, const struct json *last)
{
    int n = (int)json_count(ids_json), n_prompt = (int)json_count(prompt), n_vocab = model_config(b->model)->n_vocab;
    int32_t ids[512];
    int i = 0;
    JSON_EACH (v, ids_json)
        ids[i++] = (int32_t)json_int(v, -1);
    assert_in_range(n, n_prompt + 1, 512);
    real *logits = malloc((size_t)n * (size_t)n_vocab * sizeof *logits);
    bench_logits(b, logits, ids, n, b->max_rows);
    for (i = n_prompt - 1; i + 1 < n; i++)
        assert_int_equal(argmax((float *)logits + (size_t)i * (size_t)n_vocab, n_vocab), ids[i + 1]);
    check_top(logits + (size_t)(n_prompt - 1) * (size_t)n_vocab, n_vocab, first);
    check_top(logits + (size_t)(n - 2) * (size_t)n_vocab, n_vocab, last); /* those that chose the last id */
    free(logits);
}

static void check_cases(const char *model, const struct json *cases)
{
    struct bench_model b;
    bench_load(&b, model, 32);
    assert_true(json_count(cases) > 0);
    JSON_EACH (c, cases)
        check_case(&b, json_get(c, "prompt_ids"), json_get(c, "ids"), json_get(c, "top5_logits_first"),
                   json_get(c, "top5_logits_last"));
    print_message("%s: largest error %.2e of the deviation\n", strrchr(model, '/') + 1, largest);
    bench_close(&b);
}

static void test_stories260k_in_four_formats(void **state)
{
    (void)state;
    static const struct {
        const char *file, *reference;
    } formats[] = {{"stories260K.bin", "stories260K.bin"},
                   {"stories260K-v1.bin", "stories260K-v1.bin"},
                   {"stories260K-q8.bin", "stories260K-q8.bin"},
                   {"stories260K.gguf", "stories260K.bin"}};
    const char *folder = SHARED("data/models/stories260K");
    NEED(SHARED("data/models/stories260K/stories260K.bin"));
    struct arena arena;
    struct buf text = {0};
    arena_init(&arena, 0);
    char path[512];
    const struct json *doc = read_json(&arena, &text, path_join(path, sizeof path, folder, "reference.json"));
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        check_cases(path_join(path, sizeof path, folder, formats[i].file),
                    json_get(json_get(doc, "cases"), formats[i].reference));
    buf_free(&text);
    arena_free(&arena);
}

static void check_folder(const char *model, const char *reference)
{
    struct arena arena;
    struct buf text = {0};
    arena_init(&arena, 0);
    check_cases(model, json_get(read_json(&arena, &text, reference), "cases"));
    buf_free(&text);
    arena_free(&arena);
}

static void test_tinystories_656k(void **state)
{
    (void)state;
    NEED(SHARED("data/models/tinystories-656k/model.safetensors"));
    check_folder(SHARED("data/models/tinystories-656k"), SHARED("data/models/tinystories-656k/reference.json"));
}

static void test_slm4096_from_pytorch(void **state)
{
    (void)state;
    NEED(SHARED("data/models/slm4096-pt/ckpt.pt"));
    check_folder(SHARED("data/models/slm4096-pt/ckpt.pt"), SHARED("data/models/slm4096-pt/reference.json"));
}

static void test_char_gpt_shakespeare(void **state)
{
    (void)state;
    NEED(SHARED("data/models/char-gpt-shakespeare/model.safetensors"));
    struct arena arena;
    struct buf text = {0};
    arena_init(&arena, 0);
    struct bench_model b;
    const struct json *doc = read_json(&arena, &text, SHARED("data/models/char-gpt-shakespeare/reference.json"));
    const struct json *ids = json_get(doc, "greedy_ids");
    struct json prompt = {.type = JSON_ARRAY, .count = 7}; /* "ROMEO:\n": the first seven ids */
    bench_load(&b, SHARED("data/models/char-gpt-shakespeare"), 128);
    check_case(&b, &prompt, ids, json_get(doc, "top5_logits_first"), json_get(doc, "top5_logits_last"));
    bench_close(&b);
    buf_free(&text);
    arena_free(&arena);
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories260k_in_four_formats),
        cmocka_unit_test(test_tinystories_656k),
        cmocka_unit_test(test_slm4096_from_pytorch),
        cmocka_unit_test(test_char_gpt_shakespeare),
    };
    return RUN(tests);
}
