/* The built-in model, end to end: it is what its recipe says, below the 5-gram bar on text it never saw, and the bits
 * of its logits are the recorded ones: on every processor, instruction set, chunk size and thread count. */
#include "test.h"

#include <math.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"

enum { CONTEXT = 512, WINDOW = 256 };
static const char model_path[] = TEST_DIR "/../models/storyteller.gguf";

struct loaded {
    struct pool *pool;
    struct bundle *bundle;
    struct model_run *run;
    void *kv;
    int32_t blocks[CONTEXT / KV_BLOCK];
    float *logits; /* [WINDOW, n_vocab] */
    int n_vocab;
};

static void load(struct loaded *l, bool exact, int n_thread)
{
    struct error err = {0};
    OK(pool_create(&l->pool, n_thread, &err));
    struct model_options options = {.n_ctx = CONTEXT, .exact = exact, .kv = exact ? KV_F32 : KV_F16, .pool = l->pool};
    OK(bundle_open(&l->bundle, model_path, &options, &err));
    l->n_vocab = model_config(l->bundle->model)->n_vocab;
    l->kv = mem_alloc_aligned(CONTEXT / KV_BLOCK * model_kv_block_bytes(l->bundle->model));
    l->logits = mem_alloc((size_t)WINDOW * (size_t)l->n_vocab * sizeof *l->logits);
    assert_non_null(l->kv);
    assert_non_null(l->logits);
    for (int i = 0; i < CONTEXT / KV_BLOCK; i++)
        l->blocks[i] = i;
    OK(model_run_create(&l->run, l->bundle->model, WINDOW, WINDOW, l->kv, CONTEXT / KV_BLOCK, l->pool, &err));
}

static void unload(struct loaded *l)
{
    model_run_free(l->run);
    bundle_close(l->bundle);
    mem_free(l->kv);
    mem_free(l->logits);
    pool_destroy(l->pool);
}

static void forward(struct loaded *l, const int32_t *ids, int at, int n, float *logits)
{
    struct attend_span span = {0, n, at, l->blocks};
    struct model_batch batch = {.n_row = n, .ids = ids + at, .spans = &span, .n_span = 1, .n_logit = n};
    model_forward(l->run, &batch, logits);
}

static void held_ids(struct ids *ids, struct buf *text, const struct tokenizer *tokenizer)
{
    struct error err = {0};
    OK(file_read_all(text, GOLDEN("model/held.txt"), 1 << 20, &err));
    OK(tokenizer_encode(tokenizer, ids, buf_str(text), 0, &err));
}

/* tools/kneser-ney on the same text: 1.7025 over this model's tokens, 1.9513 over bytes. */
static void test_bits_per_byte_are_below_the_5_gram(void **state)
{
    (void)state;
    struct loaded l = {0};
    struct ids ids = {0};
    struct buf text = {0};
    load(&l, false, 2);
    held_ids(&ids, &text, l.bundle->tokenizer);
    double nll = 0;
    for (size_t at = 0; at + 1 < ids.count; at += WINDOW) {
        int n = (int)(ids.count - 1 - at < WINDOW ? ids.count - 1 - at : WINDOW);
        float loss[WINDOW];
        forward(&l, ids.ids + at, 0, n, l.logits);
        cross_entropy(loss, NULL, l.logits, ids.ids + at + 1, 0, n, l.n_vocab, l.pool);
        for (int i = 0; i < n; i++)
            nll += (double)loss[i];
    }
    double bits = nll / 0.69314718055994530942 / (double)text.len;
    print_message("%.4f bits per byte over %zu bytes\n", bits, text.len);
    assert_true(bits < 1.7025);
    ids_free(&ids);
    buf_free(&text);
    unload(&l);
}

static uint64_t bits_of(const float *logits, size_t n)
{
    return str_hash(str_n(logits, n * sizeof *logits), 1);
}

/* Recorded on a Zen 4 with AVX-512, VNNI and BF16. */
static void check_bits(bool exact, uint64_t recorded)
{
    static const char *const sets[] = {"ref", "avx2", "avx512", "avx512-vnni", "avx512-vnni-bf16"};
    struct error err = {0};
    int n_run = 0;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (!kernels_isa_available(sets[s])) {
            print_message("%s: not on this processor (%s)\n", sets[s], kernels_cpu_name());
            continue;
        }
        OK(kernels_init(sets[s], &err));
        for (int chunk = 7; chunk <= 64; chunk += 57) {
            struct loaded l = {0};
            struct ids ids = {0};
            struct buf text = {0};
            load(&l, exact, chunk == 7 ? 1 : 2);
            held_ids(&ids, &text, l.bundle->tokenizer);
            for (int at = 0; at < 64; at += chunk) {
                int n = 64 - at < chunk ? 64 - at : chunk;
                forward(&l, ids.ids, at, n, l.logits + (size_t)at * (size_t)l.n_vocab);
            }
            uint64_t got = bits_of(l.logits, 64 * (size_t)l.n_vocab);
            if (got != recorded)
                fail_msg("%s, chunks of %d: 0x%016llx, recorded 0x%016llx", sets[s], chunk, (unsigned long long)got,
                         (unsigned long long)recorded);
            l.logits[100] = nextafterf(l.logits[100], 1e30f);
            assert_true(bits_of(l.logits, 64 * (size_t)l.n_vocab) != recorded); /* one bit more would be seen */
            n_run++;
            ids_free(&ids);
            buf_free(&text);
            unload(&l);
        }
    }
    OK(kernels_init(NULL, &err));
    print_message("%d runs with the recorded bits\n", n_run);
    assert_true(n_run >= 2);
}

static void test_logits_have_the_recorded_bits(void **state)
{
    (void)state;
    check_bits(false, 0x4e01c9b6da2c0fad);
}

static void test_exact_logits_have_the_recorded_bits(void **state)
{
    (void)state;
    check_bits(true, 0xf3e62b7e5bfd1b33);
}

/* ---- through the engine ---- */

static void text_append(void *ctx, const struct token_event *event)
{
    buf_append_str(ctx, event->text);
}

static void test_a_story_is_the_same_for_the_same_seed(void **state)
{
    (void)state;
    struct error err = {0};
    struct buf stories[2] = {{0}, {0}};
    struct model_options options = {.n_ctx = CONTEXT, .kv = KV_F16};
    struct bundle *bundle;
    OK(bundle_open(&bundle, model_path, &options, &err));
    struct ids ids = {0};
    OK(tokenizer_encode(bundle->tokenizer, &ids, STR("It was a dark night, and the old man"), 0, &err));
    for (int i = 0; i < 2; i++) {
        struct engine *engine;
        struct engine_options how = {.n_thread = i + 1, .prefill_chunk = i ? 3 : 0};
        OK(engine_create(&engine, bundle, &how, &err));
        struct request r = {.prompt = ids.ids, .n_prompt = (int)ids.count, .ctx = &stories[i], .on_token = text_append};
        sampling_defaults(&r.sampling);
        r.sampling.temperature = 0.8f;
        r.sampling.top_p = 0.95f;
        r.sampling.seed = 7;
        r.sampling.has_seed = true;
        r.sampling.max_tokens = 60;
        struct finish_event end;
        OK(engine_generate(engine, &r, &end, &err));
        assert_int_equal(end.n_output, 60);
        engine_destroy(engine);
    }
    assert_true(stories[0].len > 100);
    assert_true(str_eq(buf_str(&stories[0]), buf_str(&stories[1])));
    ids_free(&ids);
    buf_free(&stories[0]);
    buf_free(&stories[1]);
    bundle_close(bundle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_per_byte_are_below_the_5_gram),
        cmocka_unit_test(test_logits_have_the_recorded_bits),
        cmocka_unit_test(test_exact_logits_have_the_recorded_bits),
        cmocka_unit_test(test_a_story_is_the_same_for_the_same_seed),
    };
    struct error err = {0};
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    return RUN(tests);
}
