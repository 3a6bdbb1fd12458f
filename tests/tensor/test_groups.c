/* groups of 4 bits: held to plain rounding over the range, to grids that they hold exactly, and to their refusals */
#include "tensor/groups.h"

#include "test.h"

#include <math.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"

enum { ROWS = 12, N = 256 };
static float x[ROWS * N], importance[N];
static uint8_t levels[ROWS * N], zeros[ROWS * N / 32];
static uint16_t scales[ROWS * N / 32];

static struct groups_job job_of(int64_t group, bool symmetric)
{
    return (struct groups_job){.n_row = ROWS,
                               .n = N,
                               .group = group,
                               .symmetric = symmetric,
                               .in = x,
                               .levels = levels,
                               .zeros = zeros,
                               .scales = scales};
}

static float value(const struct groups_job *j, int64_t i)
{
    int64_t g = i / j->group; /* rows hold whole groups */
    return f16_to_f32(j->scales[g]) * (float)((int)j->levels[i] - (int)j->zeros[g]);
}

static double error_of(const struct groups_job *j)
{
    double sum = 0;
    for (int64_t i = 0; i < ROWS * N; i++) {
        assert_true(j->levels[i] < 16 && j->zeros[i / j->group] < 16);
        assert_true(!j->symmetric || j->zeros[i / j->group] == 8);
        double w = j->importance ? (double)j->importance[i % N] : 1, e = (double)x[i] - (double)value(j, i);
        sum += w * e * e;
    }
    return sum;
}

/* Least to greatest on sixteen levels, nothing searched. */
static double plain_error(int64_t group, bool symmetric)
{
    double sum = 0;
    for (int64_t g = 0; g < ROWS * N; g += group) {
        float low = 0, high = 0;
        for (int64_t i = g; i < g + group; i++) {
            low = fminf(low, x[i]);
            high = fmaxf(high, x[i]);
        }
        float scale = symmetric ? fmaxf(-low / 8, high / 7) : (high - low) / 15;
        float zero = symmetric ? 8 : rintf(-low / scale);
        for (int64_t i = g; i < g + group; i++) {
            float q = fminf(15, fmaxf(0, rintf(x[i] / scale) + zero));
            double e = (double)x[i] - (double)(scale * (q - zero));
            sum += e * e;
        }
    }
    return sum;
}

static void fill(uint64_t seed)
{
    struct rng rng;
    rng_init(&rng, seed);
    for (int i = 0; i < ROWS * N; i++)
        x[i] = rng_normal(&rng) * (i % N < 64 ? 3.0f : 0.02f) + (i / N == 3 ? 1.0f : 0.0f);
    for (int i = 0; i < N; i++)
        importance[i] = i % 5 == 0 ? 100.0f : 1.0f;
}

static void test_searching_beats_rounding(void **state)
{
    (void)state;
    struct error err;
    fill(5);
    for (int i = 0; i < 6; i++) {
        struct groups_job j = job_of(32 << i / 2, i % 2);
        struct quantize_sums sums = {0};
        OK(quantize_groups(&j, &sums, NULL, &err));
        double error = error_of(&j), plain = plain_error(j.group, j.symmetric);
        assert_true(fabs(error - sums.error) <= 1e-9 * error);
        print_message("group %lld%s: %.4f of plain rounding's error\n", (long long)j.group, i % 2 ? ", symmetric" : "",
                      error / plain);
        assert_true(error < (i % 2 ? 0.97 : 0.95) * plain);
    }
}

static void test_importance_weighs(void **state)
{
    (void)state;
    struct error err;
    struct quantize_sums sums = {0};
    fill(6);
    struct groups_job j = job_of(64, false);
    OK(quantize_groups(&j, &sums, NULL, &err));
    j.importance = importance;
    double before = error_of(&j);
    OK(quantize_groups(&j, &sums, NULL, &err));
    assert_true(error_of(&j) < 0.95 * before);
}

static void test_what_is_held_exactly(void **state)
{
    (void)state;
    struct error err;
    static const float units[] = {0.0123f, 100.0f, 1e-4f, 2000.0f};
    for (int symmetric = 0; symmetric < 2; symmetric++)
        for (int u = 0; u < 4; u++) {
            float scale = f16_to_f32(f32_to_f16(units[u]));
            for (int i = 0; i < ROWS * N; i++)
                x[i] = scale * (float)(i * 7 % 16 - (symmetric ? 8 : i / 64 % 16));
            struct groups_job j = job_of(64, symmetric);
            struct quantize_sums sums = {0};
            OK(quantize_groups(&j, &sums, NULL, &err));
            assert_true(sums.error == 0);
        }
    memset(x, 0, sizeof x);
    struct groups_job j = job_of(128, false);
    struct quantize_sums sums = {0};
    OK(quantize_groups(&j, &sums, NULL, &err));
    assert_true(sums.error == 0 && sums.energy == 0);
}

static void test_threads_change_nothing(void **state)
{
    (void)state;
    struct error err;
    struct pool *pool;
    static uint8_t levels2[ROWS * N], zeros2[ROWS * N / 32];
    static uint16_t scales2[ROWS * N / 32];
    struct quantize_sums a = {0}, b = {0};
    OK(pool_create(&pool, 3, &err));
    fill(7);
    struct groups_job j = job_of(32, false);
    OK(quantize_groups(&j, &a, NULL, &err));
    j.levels = levels2;
    j.zeros = zeros2;
    j.scales = scales2;
    OK(quantize_groups(&j, &b, pool, &err));
    assert_memory_equal(levels, levels2, sizeof levels);
    assert_memory_equal(zeros, zeros2, sizeof zeros);
    assert_memory_equal(scales, scales2, sizeof scales);
    assert_true(a.error == b.error && a.energy == b.energy);
    pool_destroy(pool);
}

static void test_refusals(void **state)
{
    (void)state;
    struct error err;
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    for (int i = 0; i < 4; i++) {
        struct quantize_sums sums = {0};
        fill(8);
        x[3 * N + 77] = bad[i];
        struct groups_job j = job_of(32, i % 2);
        FAILS(ST_INVALID, quantize_groups(&j, &sums, NULL, &err));
        assert_non_null(strstr(err.text, "row 3"));
    }
    struct quantize_sums sums = {0};
    struct groups_job j = job_of(96, false);
    FAILS(ST_INVALID, quantize_groups(&j, &sums, NULL, &err));
    fill(9);
    for (uint64_t n = 1; n <= 2; n++) {
        j = job_of(32, false);
        fault_arm(FAULT_ALLOC, n);
        assert_int_equal(quantize_groups(&j, &sums, NULL, &err), ST_NOMEM);
        fault_disarm();
    }
    for (int i = 0; i < ROWS * N; i++) /* too small for an f16 scale: zeros, not rubbish */
        x[i] = 1e-12f;
    OK(quantize_groups(&j, &sums, NULL, &err));
    for (int i = 0; i < ROWS * N; i++)
        assert_true(fabsf(value(&j, i)) <= 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_searching_beats_rounding),
        cmocka_unit_test(test_importance_weighs),
        cmocka_unit_test(test_what_is_held_exactly),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_refusals),
    };
    return RUN(tests);
}
