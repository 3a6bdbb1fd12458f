/* quantize against the errors llama.cpp's quantizers leave on the same numbers (tools/golden/quantize.py) */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "formats/formats.h"
#include "model/first_run.h"
#include "tensor/quantize.h"

#include <math.h>

enum { ROWS = 32, N = 512 };

struct fixture {
    struct buf text, sample;
    struct arena arena;
    const struct json *golden;
    const float *x, *importance;
};
static struct fixture f;

static int setup(void **state)
{
    (void)state;
    struct error err;
    arena_init(&f.arena, 0);
    OK(file_read_all(&f.text, GOLDEN("tensor/quantize.json"), 1 << 20, &err));
    OK(json_parse(&f.golden, &f.arena, buf_str(&f.text), 0, &err));
    OK(file_read_all(&f.sample, GOLDEN("tensor/quantize.f32"), 1 << 20, &err));
    assert_int_equal(f.sample.len, (ROWS + 1) * N * sizeof(float));
    f.x = (const float *)f.sample.ptr;
    f.importance = f.x + ROWS * N;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_free(&f.text);
    buf_free(&f.sample);
    arena_free(&f.arena);
    return 0;
}

static uint8_t *quantized(enum dtype t, const float *x, int64_t n_row, int64_t n, const float *importance,
                          struct quantize_sums *sums, struct pool *pool)
{
    struct error err;
    size_t bytes;
    assert_true(dtype_bytes(&bytes, t, (uint64_t)(n_row * n)));
    uint8_t *out = malloc(bytes);
    struct quantize_job job = {.type = t, .n_row = n_row, .n = n, .in = x, .importance = importance, .out = out};
    *sums = (struct quantize_sums){0};
    OK(quantize_rows(&job, sums, pool, &err));
    return out;
}

/* sqrt(mean of w e^2 / mean of w), from the bytes themselves. */
static double weighted_rms(const uint8_t *blocks, enum dtype t, const float *x, int64_t n_row, int64_t n,
                           const float *w)
{
    float *back = malloc((size_t)(n_row * n) * sizeof *back);
    double sum = 0, weight = 0;
    dtype_to_f32(back, t, blocks, (size_t)(n_row * n));
    for (int64_t i = 0; i < n_row * n; i++) {
        double e = (double)back[i] - (double)x[i], one = w ? (double)w[i % n] : 1;
        sum += one * e * e;
        weight += one;
    }
    free(back);
    return sqrt(sum / weight);
}

/* Every type the golden has a figure for: at most as large an error. */
static void check_bars(const struct json *bars, const float *x, int64_t n_row, int64_t n, const float *importance,
                       const char *what)
{
    int types = 0;
    JSON_EACH_MEMBER (name, bar, bars) {
        int t = dtype_find(name);
        assert_true(t >= 0);
        struct quantize_sums sums;
        uint8_t *out = quantized((enum dtype)t, x, n_row, n, importance, &sums, NULL);
        double got = weighted_rms(out, (enum dtype)t, x, n_row, n, importance), most = json_real(bar, -1);
        print_message("%s %.*s: %.6g, llama.cpp %.6g (%.3f)\n", what, STR_ARG(name), got, most, got / most);
        if (!(got <= most * 1.000001))
            fail_msg("%s %.*s: error %.9g, expected at most %.9g", what, STR_ARG(name), got, most);
        if (!importance)
            assert_true(fabs(sqrt(sums.error / (double)(n_row * n)) - got) <= 1e-6 * got);
        free(out);
        types++;
    }
    assert_true(types >= 7);
}

static void test_errors_are_no_larger_than_llama_cpps(void **state)
{
    (void)state;
    check_bars(json_get(f.golden, "sample"), f.x, ROWS, N, NULL, "sample");
}

static void test_weighted_errors_are_no_larger(void **state)
{
    (void)state;
    check_bars(json_get(f.golden, "sample_weighted"), f.x, ROWS, N, f.importance, "weighted");
}

static void check_model(const char *path, const char *key)
{
    struct error err;
    struct checkpoint *ck;
    OK(checkpoint_open(&ck, path, &err));
    JSON_EACH_MEMBER (name, bars, json_get(f.golden, key)) {
        const struct tensor *t = checkpoint_find(ck, name);
        assert_non_null(t);
        int64_t count = tensor_count(t);
        float *x = malloc((size_t)count * sizeof *x);
        dtype_to_f32(x, t->type, t->data, (size_t)count);
        check_bars(bars, x, t->shape[0], t->shape[1], NULL, key);
        free(x);
    }
    checkpoint_close(ck);
}

static void test_smollm2(void **state)
{
    (void)state;
    NEED_FIRST_RUN_MODEL();
    check_model(first_run_model(), "smollm2");
}

static void test_stories260k(void **state)
{
    (void)state;
    NEED(SHARED("data/models/stories260K/stories260K.gguf"));
    check_model(SHARED("data/models/stories260K/stories260K.gguf"), "stories260k");
}

static void test_threads_change_nothing(void **state)
{
    (void)state;
    struct error err;
    for (int t = 0; t < DT_COUNT; t++) {
        struct quantize_sums one, many;
        if (!quantize_offers((enum dtype)t))
            continue;
        uint8_t *a = quantized((enum dtype)t, f.x, ROWS, N, f.importance, &one, NULL);
        for (int threads = 2; threads <= 5; threads += 3) {
            struct pool *pool;
            OK(pool_create(&pool, threads, &err));
            uint8_t *b = quantized((enum dtype)t, f.x, ROWS, N, f.importance, &many, pool);
            size_t bytes;
            assert_true(dtype_bytes(&bytes, (enum dtype)t, ROWS * N));
            assert_memory_equal(a, b, bytes);
            assert_true(one.error == many.error && one.energy == many.energy);
            free(b);
            pool_destroy(pool);
        }
        free(a);
    }
}

/* A column nobody looks at may be anything; one that counts for everything is kept better. */
static void test_importance_moves_the_error(void **state)
{
    (void)state;
    float w[N];
    for (int k = 0; k < N; k++)
        w[k] = k % 4 == 0 ? 1 : 0;
    for (int t = DT_Q4_0; t <= DT_MXFP4; t++) {
        struct quantize_sums sums;
        uint8_t *plain = quantized((enum dtype)t, f.x, ROWS, N, NULL, &sums, NULL);
        uint8_t *aimed = quantized((enum dtype)t, f.x, ROWS, N, w, &sums, NULL);
        double a = weighted_rms(plain, (enum dtype)t, f.x, ROWS, N, w),
               b = weighted_rms(aimed, (enum dtype)t, f.x, ROWS, N, w);
        if (!(b < a))
            fail_msg("%s: %g with importance, %g without", dtype_row((enum dtype)t)->name, b, a);
        free(plain);
        free(aimed);
    }
    memset(w, 0, sizeof w); /* no column counts: as if all did */
    struct quantize_sums a, b;
    free(quantized(DT_Q4_K, f.x, ROWS, N, w, &a, NULL));
    free(quantized(DT_Q4_K, f.x, ROWS, N, NULL, &b, NULL));
    assert_true(a.error == b.error);
}

/* What the values of a row may look like: relative error bounded by the type's resolution, zero for zeros. */
static void test_shapes_of_rows(void **state)
{
    (void)state;
    enum { KINDS = 7 };
    static float x[KINDS][256];
    struct rng rng;
    rng_init(&rng, 7);
    for (int i = 0; i < 256; i++) {
        x[0][i] = 0;
        x[1][i] = 0.5f;                                     /* constant */
        x[2][i] = -3;                                       /* negative constant */
        x[3][i] = i == 77 ? 4 : 0;                          /* one value */
        x[4][i] = 1000 + (float)i;                          /* far from zero */
        x[5][i] = rng_normal(&rng) * 1e-3f;                 /* small */
        x[6][i] = i < 128 ? 0 : (i % 2 ? -1.0f : 1.0f) * 2; /* half empty */
    }
    for (int t = DT_Q4_0; t <= DT_MXFP4; t++)
        for (int k = 0; k < KINDS; k++) {
            struct quantize_sums sums;
            free(quantized((enum dtype)t, x[k], 1, 256, NULL, &sums, NULL));
            double relative = sums.energy > 0 ? sqrt(sums.error / sums.energy) : sqrt(sums.error);
            double most = k == 0 ? 0 : t == DT_MXFP4 && k == 4 ? 0.3 : k == 5 || k == 4 ? 0.3 : 0.15;
            if (!(relative <= most))
                fail_msg("%s, row %d: relative error %g", dtype_row((enum dtype)t)->name, k, relative);
        }
}

/* From the smallest to the largest floats: never a crash, never a silent infinity. */
static void test_every_magnitude(void **state)
{
    (void)state;
    struct error err;
    for (int t = 0; t < DT_COUNT; t++) {
        if (!quantize_offers((enum dtype)t))
            continue;
        int refused = 0, kept = 0;
        for (int e = -149; e <= 127; e++) {
            float x[256];
            for (int i = 0; i < 256; i++)
                x[i] = ldexpf(i % 3 ? 1.0f : -0.7f, e) * (i % 5 ? 1 : 0.25f);
            uint8_t out[1024];
            struct quantize_sums sums = {0};
            struct quantize_job job = {.type = (enum dtype)t, .n_row = 1, .n = 256, .in = x, .out = out};
            enum status st = quantize_rows(&job, &sums, NULL, &err);
            assert_true(st == ST_OK || (st == ST_INVALID && e > 14 && t != DT_F32));
            refused += st != ST_OK;
            kept += st == ST_OK;
            if (e > -10 && e < 10)
                assert_true(sums.error < 0.1 * sums.energy);
        }
        assert_true(kept > 100);
        assert_true((refused > 50) == (t != DT_F32 && t != DT_BF16 && t != DT_MXFP4));
    }
}

static void test_what_is_refused(void **state)
{
    (void)state;
    struct error err;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float *x = malloc(ROWS * N * sizeof *x);
    uint8_t *out = malloc(ROWS * N * 4);
    for (int t = 0; t < DT_COUNT; t++) {
        struct quantize_job job = {.type = (enum dtype)t, .n_row = ROWS, .n = N, .in = x, .out = out};
        struct quantize_sums sums = {0};
        if (!quantize_offers((enum dtype)t)) {
            FAILS(ST_UNSUPPORTED, quantize_rows(&job, &sums, NULL, &err));
            continue;
        }
        for (int i = 0; i < 3; i++) {
            memcpy(x, f.x, ROWS * N * sizeof *x);
            x[5 * N + 300] = bad[i];
            FAILS(ST_INVALID, quantize_rows(&job, &sums, NULL, &err));
            assert_non_null(strstr(err.text, "row 5, column 300"));
        }
        if (dtype_is_block((enum dtype)t)) {
            job.n = 48;
            FAILS(ST_INVALID, quantize_rows(&job, &sums, NULL, &err));
        }
    }
    struct quantize_job job = {.type = DT_Q4_0, .n_row = ROWS, .n = N, .in = f.x, .out = out};
    struct quantize_sums sums = {0};
    fault_arm(FAULT_ALLOC, 1);
    FAILS(ST_NOMEM, quantize_rows(&job, &sums, NULL, &err));
    assert_true(fault_fired());
    fault_disarm();
    free(x);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_are_no_larger_than_llama_cpps),
        cmocka_unit_test(test_weighted_errors_are_no_larger),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_stories260k),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_importance_moves_the_error),
        cmocka_unit_test(test_shapes_of_rows),
        cmocka_unit_test(test_every_magnitude),
        cmocka_unit_test(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
