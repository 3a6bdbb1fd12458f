/* The first-run model against transformers (tools/golden/smollm2.py): the same prompt ids, the same logits under
 * --exact, the same greedy answers to twenty prompts. */
#include "model/first_run.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#include <math.h>

enum { CONTEXT = 512, CHUNK = 64 };

struct fixture {
    struct buf text;
    struct arena arena;
    const struct json *golden;
    struct pool *pool;
    struct bundle *bundle;
    struct model_run *run;
    void *kv;
    int32_t blocks[CONTEXT / KV_BLOCK];
    float *logits; /* [CHUNK, n_vocab] */
    int n_vocab;
};
static struct fixture *f;

static int setup(void **state)
{
    (void)state;
    struct error err = {0};
    static struct fixture fixture;
    const char *path = first_run_model();
    if (!path)
        return 0;
    f = &fixture;
    arena_init(&f->arena, 0);
    OK(file_read_all(&f->text, GOLDEN("model/smollm2.json"), 1 << 24, &err));
    OK(json_parse(&f->golden, &f->arena, buf_str(&f->text), 0, &err));
    OK(pool_create(&f->pool, cpu_count(), &err));
    OK(kernels_init(NULL, &err));
    struct model_options options = {.n_ctx = CONTEXT, .exact = true, .kv = KV_F32, .pool = f->pool};
    OK(bundle_open(&f->bundle, path, &options, &err));
    f->n_vocab = model_config(f->bundle->model)->n_vocab;
    int n_block = CONTEXT / KV_BLOCK;
    f->kv = mem_alloc_aligned((size_t)n_block * model_kv_block_bytes(f->bundle->model));
    f->logits = mem_alloc((size_t)CHUNK * (size_t)f->n_vocab * sizeof(float));
    assert_non_null(f->kv);
    assert_non_null(f->logits);
    for (int i = 0; i < n_block; i++)
        f->blocks[i] = i;
    OK(model_run_create(&f->run, f->bundle->model, CHUNK, CHUNK, f->kv, n_block, f->pool, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (!f)
        return 0;
    model_run_free(f->run);
    bundle_close(f->bundle);
    mem_free(f->kv);
    mem_free(f->logits);
    pool_destroy(f->pool);
    arena_free(&f->arena);
    buf_free(&f->text);
    return 0;
}

/* Rows [at, at + n) of one sequence; logits of all of them. */
static void forward(const int32_t *ids, int at, int n)
{
    struct attend_span span = {0, n, at, f->blocks};
    struct model_batch batch = {.n_row = n, .ids = ids, .spans = &span, .n_span = 1, .n_logit = n};
    model_forward(f->run, &batch, f->logits);
}

static int ids_of(int32_t *out, const struct json *array)
{
    int n = 0;
    JSON_EACH (item, array) {
        out[n++] = (int32_t)json_int(item, -1);
    }
    return n;
}

static void test_chat_prompt_has_the_original_ids(void **state)
{
    (void)state;
    NEED_FIRST_RUN_MODEL();
    struct error err = {0};
    JSON_EACH (c, json_get(f->golden, "cases")) {
        struct buf message = {0};
        struct json_writer w;
        json_writer_init(&w, &message);
        json_begin_array(&w);
        json_begin_object(&w);
        json_put_str(&w, "role", STR("user"));
        json_put_str(&w, "content", json_str(json_get(c, "prompt")));
        json_end_object(&w);
        json_end_array(&w);
        struct arena a;
        arena_init(&a, 0);
        const struct json *messages;
        OK(json_parse(&messages, &a, buf_str(&message), 0, &err));
        struct chat_options options = {
            .messages = messages, .bos_token = STR("<|im_start|>"), .eos_token = STR("<|im_end|>")};
        struct chat_prompt prompt = {0};
        OK(chat_render(f->bundle->template, &prompt, &options, &err));
        assert_true(str_eq(buf_str(&prompt.text), json_str(json_get(c, "rendered"))));
        struct ids ids = {0};
        OK(tokenizer_encode_pieces(f->bundle->tokenizer, &ids, prompt.pieces, prompt.n_piece, TOKENIZE_SPECIAL, &err));
        int32_t expected[CONTEXT];
        int n = ids_of(expected, json_get(c, "ids"));
        assert_int_equal(ids.count, n);
        assert_memory_equal(ids.ids, expected, (size_t)n * sizeof *expected);
        ids_free(&ids);
        chat_prompt_free(&prompt);
        arena_free(&a);
        buf_free(&message);
    }
}

/* Every prompt position, 64 vocabulary ids: the largest difference over the row's standard deviation. */
static void test_exact_logits_are_within_1e_4_of_a_deviation(void **state)
{
    (void)state;
    NEED_FIRST_RUN_MODEL();
    const struct json *probe = json_get(f->golden, "probe");
    double worst = 0;
    int n_compared = 0;
    JSON_EACH (c, json_get(f->golden, "cases")) {
        const struct json *rows = json_get(c, "logits");
        if (!rows)
            continue;
        int32_t ids[CONTEXT];
        int n = ids_of(ids, json_get(c, "ids"));
        assert_true(n <= CHUNK);
        forward(ids, 0, n);
        for (int r = 0; r < n; r++) {
            double deviation = json_real(json_at(json_get(c, "deviation"), (size_t)r), 0);
            for (size_t i = 0; i < json_count(probe); i++, n_compared++) {
                double wanted = json_real(json_at(json_at(rows, (size_t)r), i), 0);
                double got = (double)f->logits[(size_t)r * (size_t)f->n_vocab + (size_t)json_int(json_at(probe, i), 0)];
                double error = fabs(got - wanted) / deviation;
                worst = error > worst ? error : worst;
            }
        }
    }
    print_message("%d logits, largest error %.2e of the deviation\n", n_compared, worst);
    assert_true(n_compared > 4000);
    assert_true(worst < 1e-4);
}

/* A sanitizer sees the same code in few answers and windows, and needs ten times as long for each. */
#ifdef __SANITIZE_THREAD__
enum { ANSWERS = 1, WINDOWS_EACH = 1 };
#elif defined INGOT_SANITIZED
enum { ANSWERS = 2, WINDOWS_EACH = 1 };
#else
enum { ANSWERS = 20, WINDOWS_EACH = 4 };
#endif

static void test_greedy_answers_are_those_of_transformers(void **state)
{
    (void)state;
    NEED_FIRST_RUN_MODEL();
    int n_case = 0;
    assert_int_equal(json_count(json_get(f->golden, "cases")), 20);
    JSON_EACH (c, json_get(f->golden, "cases")) {
        if (n_case == ANSWERS)
            break;
        int32_t ids[CONTEXT], expected[64];
        int n = ids_of(ids, json_get(c, "ids")), n_expected = ids_of(expected, json_get(c, "greedy"));
        forward(ids, 0, n);
        const float *row = f->logits + (size_t)(n - 1) * (size_t)f->n_vocab;
        for (int i = 0; i < n_expected; i++) {
            int32_t id = argmax(row, f->n_vocab);
            if (id != expected[i])
                fail_msg("prompt %d, token %d: got %d, transformers %d", n_case, i, id, expected[i]);
            forward(&id, n + i, 1);
            row = f->logits;
        }
        n_case++;
    }
    assert_int_equal(n_case, ANSWERS);
}

/* ---- perplexity: the default mode (int8 activations, f16 KV) against --exact ---- */

enum { WINDOW = 256 };

static double window_nll(struct model_run *run, const int32_t *ids, float *logits)
{
    const int n_vocab = f->n_vocab;
    double sum = 0;
    for (int at = 0; at < WINDOW; at += CHUNK) {
        struct attend_span span = {0, CHUNK, at, f->blocks};
        struct model_batch batch = {.n_row = CHUNK, .ids = ids + at, .spans = &span, .n_span = 1, .n_logit = CHUNK};
        model_forward(run, &batch, logits);
        float loss[CHUNK];
        cross_entropy(loss, NULL, logits, ids + at + 1, 0, CHUNK, n_vocab, f->pool);
        for (int i = 0; i < CHUNK; i++)
            sum += (double)loss[i];
    }
    return sum;
}

/* Windows spread evenly over a text. */
static void text_nll(double nll[2], struct model_run *runs[2], const char *path)
{
    struct error err = {0};
    struct buf text = {0};
    struct ids ids = {0};
    OK(file_read_all(&text, path, 1 << 26, &err));
    struct str part = buf_str(&text);
    part.len = part.len < 300000 ? part.len : 300000;
    while (part.len && (part.ptr[part.len] & 0xC0) == 0x80)
        part.len--;
    OK(tokenizer_encode(f->bundle->tokenizer, &ids, part, 0, &err));
    size_t step = (ids.count - WINDOW - 1) / WINDOWS_EACH;
    for (size_t w = 0; w < WINDOWS_EACH; w++)
        for (int mode = 0; mode < 2; mode++)
            nll[mode] += window_nll(runs[mode], ids.ids + w * step, f->logits);
    ids_free(&ids);
    buf_free(&text);
}

static void test_default_mode_keeps_perplexity_within_half_a_percent(void **state)
{
    (void)state;
    static const char *const texts[] = {SHARED("data/text/botchan.txt"), SHARED("data/text/tinyshakespeare.txt"),
                                        SHARED("data/text/wikitext2-valid.txt"),
                                        SHARED("data/text/tinystories-sample.txt")};
#ifdef __SANITIZE_THREAD__ /* looks for races, not for numbers */
    skip();
#endif
    NEED_FIRST_RUN_MODEL();
    NEED(texts[0]);
    struct error err = {0};
    struct bundle *bundle;
    struct model_run *run;
    struct model_options options = {.n_ctx = CONTEXT, .kv = KV_F16, .pool = f->pool};
    OK(bundle_open(&bundle, first_run_model(), &options, &err));
    void *kv = mem_alloc_aligned(CONTEXT / KV_BLOCK * model_kv_block_bytes(bundle->model));
    assert_non_null(kv);
    OK(model_run_create(&run, bundle->model, CHUNK, CHUNK, kv, CONTEXT / KV_BLOCK, f->pool, &err));
    double nll[2] = {0};
    struct model_run *runs[2] = {f->run, run};
    size_t n_text = sizeof texts / sizeof *texts;
    for (size_t i = 0; i < n_text; i++)
        text_nll(nll, runs, texts[i]);
    double n = (double)(n_text * WINDOWS_EACH * WINDOW), ratio = exp((nll[1] - nll[0]) / n);
    print_message("perplexity over %.0f tokens: exact %.4f, default %.4f, ratio %.5f\n", n, exp(nll[0] / n),
                  exp(nll[1] / n), ratio);
    assert_true(ratio < 1.005 && ratio > 0.995);
    model_run_free(run);
    mem_free(kv);
    bundle_close(bundle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_prompt_has_the_original_ids),
        cmocka_unit_test(test_exact_logits_are_within_1e_4_of_a_deviation),
        cmocka_unit_test(test_greedy_answers_are_those_of_transformers),
        cmocka_unit_test(test_default_mode_keeps_perplexity_within_half_a_percent),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
