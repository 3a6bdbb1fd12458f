/* test_blocks - models stored in block types against transformers (tools/golden/model_blocks.py): every type that is
 * no plain number, whole rows, odd numbers of rows, and stacked experts; and their bits however the work is cut
 *
 * The goldens hold configurations, tensor lists and logits; the bytes come from the same formula as there.
 */
#include "model/golden.h"

#include "base/pool.h"

static char folder[128], path[160];

/* ---- one model ---- */
static enum status fill_blocks(const struct json *t, int64_t count, enum dtype type, uint8_t *out)
{
    const struct dtype_row *d = dtype_row(type);
    uint64_t h = name_hash(json_str(json_at(t, 0)));
    int64_t n_block = count / d->block, n = n_block * d->bytes;
    for (int64_t i = 0; i < n; i++)
        out[i] = (uint8_t)splitmix(h + (uint64_t)i * 0x9E3779B97F4A7C15u);
    JSON_EACH (field, json_at(t, 3)) {
        int64_t at = json_int(json_at(field, 0), 0), width = json_int(json_at(field, 1), 0);
        uint64_t base = (uint64_t)json_int(json_at(field, 2), 0), mask = (uint64_t)json_int(json_at(field, 3), 0);
        for (int64_t b = 0; b < n_block; b++) {
            uint64_t v = base + (splitmix(h + (uint64_t)b * 0x9E3779B97F4A7C15u) & mask);
            memcpy(out + b * d->bytes + at, &v, (size_t)width); /* little-endian */
        }
    }
    return ST_OK;
}

static enum dtype type_of(const struct json *t)
{
    int type = dtype_find(json_str(json_at(t, 2)));
    assert_true(type >= 0);
    return (enum dtype)type;
}

static enum status fill_tensor(void *ctx, void *out, struct error *err)
{
    const struct json *t = ctx;
    int64_t count = 1, width = 0;
    JSON_EACH (d, json_at(t, 1)) {
        width = json_int(d, 0);
        count *= width;
    }
    enum dtype type = type_of(t);
    if (dtype_is_block(type))
        return fill_blocks(t, count, type, out);
    float *wide = malloc((size_t)count * sizeof *wide);
    fill_formula(wide, json_str(json_at(t, 0)), count, width, json_count(json_at(t, 1)) > 1, false,
                 (int)json_int(json_at(t, 3), 0));
    enum status st = dtype_from_f32(out, type, wide, (size_t)count, err);
    free(wide);
    return st;
}

static void write_model(const struct json *c)
{
    struct error err;
    struct gguf_writer *w;
    const struct json *list = json_get(c, "tensors");
    struct tensor_out *out = calloc(json_count(list), sizeof *out);
    size_t n = 0;
    JSON_EACH (t, list) {
        out[n] = (struct tensor_out){
            .name = json_str(json_at(t, 0)), .type = type_of(t), .fill = fill_tensor, .ctx = (void *)(uintptr_t)t};
        JSON_EACH (d, json_at(t, 1))
            out[n].shape[out[n].n_dim++] = json_int(d, 0);
        n++;
    }
    OK(gguf_writer_create(&w, &err));
    put_metadata(w, json_get(c, "config"));
    OK(gguf_writer_commit(w, path, out, n, &err));
    gguf_writer_destroy(w);
    free(out);
}

/* ---- the same bits ---- */
enum { ROWS = 100, N_VOCAB = 257 };
#ifdef __SANITIZE_THREAD__ /* looks for races, not for bits: what has one thread rests */
static const int chunks[] = {1, 33};
enum { FEWEST_THREADS = 2 };
#else
static const int chunks[] = {1, 7, 16, 33, 64};
enum { FEWEST_THREADS = 1 };
#endif

static real *logits_of(int chunk, struct pool *pool, struct model_options options)
{
    struct error err;
    struct bench_model b;
    int32_t ids[ROWS];
    real *out = malloc(sizeof *out * ROWS * N_VOCAB);
    ids_of(ids, 11, ROWS);
    bench_load_with(&b, path, &options, ROWS);
    model_run_free(b.run);
    OK(model_run_create(&b.run, b.model, ROWS, ROWS, b.kv, b.n_block, pool, &err));
    bench_logits(&b, out, ids, ROWS, chunk);
    bench_close(&b);
    return out;
}

static bool is_same(const real *a, const real *b)
{
    return memcmp(a, b, sizeof *a * ROWS * N_VOCAB) == 0;
}

/* A row alone, tiles that are full and tiles that are not, one thread and two. */
static void check_cuts(struct str name, struct pool *pool)
{
    real *whole = logits_of(ROWS, NULL, (struct model_options){.kv = KV_F16});
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
        for (int threads = FEWEST_THREADS; threads <= 2; threads++) {
            real *cut = logits_of(chunks[i], threads == 2 ? pool : NULL, (struct model_options){.kv = KV_F16});
            if (!is_same(whole, cut))
                fail_msg("%.*s, chunks of %d, %d threads: other bits", STR_ARG(name), chunks[i], threads);
            free(cut);
        }
    real *exact = logits_of(ROWS, NULL, (struct model_options){.kv = KV_F16, .exact = true});
    assert_false(is_same(whole, exact)); /* the comparison can fail, and activations were rounded */
    free(exact);
    free(whole);
}

static const struct json *cases;

static void test_chunks_and_threads(void **state)
{
    (void)state;
    struct error err;
    struct pool *pool;
    OK(pool_create(&pool, 2, &err));
    JSON_EACH (c, cases) {
        write_model(c);
        check_cuts(json_str(json_get(c, "name")), pool);
    }
    pool_destroy(pool);
}

#ifndef __SANITIZE_THREAD__
static void test_every_type(void **state)
{
    (void)state;
    assert_true(json_count(cases) >= 22);
    JSON_EACH (c, cases) {
        worst = 0;
        write_model(c);
        check_logits(c, path, "gguf");
        check_rounding(c, path, "gguf", "int8");
        print_message("%.*s: largest error %.2e of the deviation\n", STR_ARG(json_str(json_get(c, "name"))), worst);
    }
}

/* Weights at odd addresses, as a file of another alignment has them. */
static void test_unaligned_files(void **state)
{
    (void)state;
    struct error err;
    int32_t ids[ROWS];
    ids_of(ids, 11, ROWS);
    JSON_EACH (c, cases) {
        struct buf file = {0};
        struct checkpoint *ck;
        struct model *m;
        struct bench_model b;
        write_model(c);
        real *aligned = logits_of(ROWS, NULL, (struct model_options){.kv = KV_F16});
        real *odd = malloc(sizeof *odd * ROWS * N_VOCAB);
        buf_append_char(&file, 0);
        OK(file_read_all(&file, path, 64 << 20, &err));
        OK(checkpoint_open_memory(&ck, file.ptr + 1, file.len - 1, &err));
        OK(model_load(&m, ck, &(struct model_options){.kv = KV_F16}, &err));
        checkpoint_close(ck);
        buf_free(&file);
        bench_open(&b, m, ROWS);
        bench_logits(&b, odd, ids, ROWS, ROWS);
        bench_close(&b);
        if (!is_same(aligned, odd))
            fail_msg("%.*s at an odd address: other bits", STR_ARG(json_str(json_get(c, "name"))));
        free(aligned);
        free(odd);
    }
}
#endif

int main(void)
{
    struct error err;
    struct arena arena;
    struct buf text = {0};
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    snprintf(folder, sizeof folder, "/tmp/ingot-blocks-XXXXXX");
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/model.gguf", folder);
    arena_init(&arena, 0);
    cases = json_get(read_json(&arena, &text, GOLDEN("model/blocks.json")), "cases");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks_and_threads),
#ifndef __SANITIZE_THREAD__
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_unaligned_files),
#endif
    };
    int failed = RUN(tests);
    remove(path);
    remove(folder);
    buf_free(&text);
    arena_free(&arena);
    return failed;
}
