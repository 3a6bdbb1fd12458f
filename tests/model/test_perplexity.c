/* test_perplexity - the first-run model's perplexity in the default mode (rounded activations, f16 cache) is within
 * half a percent of that under --exact, on public-domain text */
#include "model/first_run.h"
#include "model/support.h"

#include "base/pool.h"

enum { WINDOW = 512, WINDOWS = 4, CHUNK = 128 };

static double perplexity(const char *path, const struct model_options *given, const char *file)
{
    struct error err;
    struct bundle *b;
    struct model_run *r;
    struct ids ids = {0};
    struct buf text = {0};
    struct pool *pool;
    OK(pool_create(&pool, cpu_count(), &err));
    struct model_options options = *given;
    options.n_ctx = WINDOW;
    options.pool = pool;
    OK(bundle_open(&b, path, &options, &err));
    OK(file_read_all(&text, file, 64 << 20, &err));
    OK(tokenizer_encode(b->tokenizer, &ids, str_n(text.ptr, text.len < 40000 ? text.len : 40000), 0, &err));
    assert_true(ids.count > WINDOW * WINDOWS);
    int n_vocab = model_config(b->model)->n_vocab;
    void *kv = mem_alloc_aligned(WINDOW / KV_BLOCK * model_kv_block_bytes(b->model));
    real *logits = mem_alloc((size_t)CHUNK * (size_t)n_vocab * sizeof *logits), loss[CHUNK];
    OK(model_run_create(&r, b->model, CHUNK, CHUNK, kv, WINDOW / KV_BLOCK, pool, &err));
    static const int32_t blocks[WINDOW / KV_BLOCK] = {0, 1, 2, 3, 4, 5, 6, 7};
    double sum = 0;
    int n = 0;
    for (int at = 0; at < WINDOW * WINDOWS; at += CHUNK) {
        int32_t targets[CHUNK];
        struct attend_span span = {0, CHUNK, at % WINDOW, blocks};
        struct model_batch batch = {.n_row = CHUNK, .ids = ids.ids + at, .spans = &span, .n_span = 1};
        for (int i = 0; i < CHUNK; i++)
            targets[i] = (at + i) % WINDOW == WINDOW - 1 ? -1 : ids.ids[at + i + 1];
        model_forward(r, &batch, logits);
        cross_entropy(loss, NULL, logits, targets, 1, CHUNK, n_vocab, pool);
        for (int i = 0; i < CHUNK; i++) {
            sum += (double)loss[i];
            n += targets[i] >= 0;
        }
    }
    model_run_free(r);
    mem_free(kv);
    mem_free(logits);
    ids_free(&ids);
    buf_free(&text);
    bundle_close(b);
    pool_destroy(pool);
    return exp(sum / n);
}

static void test_default_mode_costs_little(void **state)
{
    (void)state;
    const char *file = SHARED("data/text/tinyshakespeare.txt");
    NEED_FIRST_RUN_MODEL();
    NEED(file);
    double exact = perplexity(first_run_model(), &(struct model_options){.exact = true}, file);
    double usual = perplexity(first_run_model(), &(struct model_options){.kv = KV_F16}, file);
    print_message("perplexity %.4f, under --exact %.4f: %+.3f %%\n", usual, exact, 100 * (usual / exact - 1));
    assert_true(exact > 2 && exact < 1000);
    assert_true(fabs(usual / exact - 1) < 0.005);
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_default_mode_costs_little)};
    return RUN(tests);
}
