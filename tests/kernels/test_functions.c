/* Our functions against long double: the largest error in units of the last place, and special values. */
#include "ops.h"

static double ulp_error(float got, long double exact)
{
    if (isnan(got) || isnan(exact))
        return isnan(got) && isnan(exact) ? 0 : INFINITY;
    if (fabsl(exact) < 0x1p-126L) /* no subnormal results: zero, or the smallest normal by rounding */
        return got == 0 || (fabsf(got) == 0x1p-126f && fabsl(exact) > 0x1.fffffp-127L) ? 0 : INFINITY;
    if (!isfinite(got))
        return got == (float)exact ? 0 : INFINITY;
    return (double)(fabsl(got - exact) / ldexpl(1, ilogbl(exact) - 23));
}

/* Every `stride`-th float from all bit patterns that are not subnormal. */
static double worst_over_floats(float (*fn)(float), long double (*exact)(long double), uint32_t stride, float *where)
{
    double worst = 0;
    for (uint64_t u = 0; u < 1ull << 32; u += stride) {
        uint32_t bits = (uint32_t)u;
        float x;
        memcpy(&x, &bits, 4);
        if (x != 0 && fabsf(x) < 0x1p-126f)
            continue;
        double e = ulp_error(fn(x), exact(x));
        if (e > worst) {
            worst = e;
            *where = x;
        }
    }
    return worst;
}

static void test_f32_functions_are_accurate(void **state)
{
    (void)state;
    const struct {
        const char *name;
        float (*fn)(float);
        long double (*exact)(long double);
        double limit;
    } rows[] = {
        {"exp", fn_exp, expl, 1.0},    {"log", fn_log, logl, 1.0}, {"log1p", fn_log1p, log1pl, 2.0},
        {"tanh", fn_tanh, tanhl, 2.0}, {"erf", fn_erf, erfl, 2.0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        float where = 0;
        double worst = worst_over_floats(rows[i].fn, rows[i].exact, 2003, &where);
        print_message("%-6s max error %.3f ulp at %a\n", rows[i].name, worst, (double)where);
        assert_true(worst <= rows[i].limit);
    }
}

static void test_f32_special_values(void **state)
{
    (void)state;
    assert_true(fn_exp(0) == 1 && fn_exp(-INFINITY) == 0 && fn_exp(INFINITY) == INFINITY && isnan(fn_exp(NAN)));
    assert_true(fn_exp(-200) == 0 && fn_exp(200) == INFINITY && fn_exp(-3e38f) == 0 && fn_exp(3e38f) == INFINITY);
    assert_true(isfinite(fn_exp(88.72283f)) && fn_exp(-87.33654f) >= 0x1p-126f);
    assert_true(fn_log(1) == 0 && fn_log(0) == -INFINITY && fn_log(INFINITY) == INFINITY);
    assert_true(isnan(fn_log(-1)) && isnan(fn_log(NAN)) && isnan(fn_log(-INFINITY)) && fn_log(0x1p-140f) == -INFINITY);
    assert_true(fn_tanh(0) == 0 && signbit(fn_tanh(-0.0f)) && fn_tanh(40) == 1 && fn_tanh(-INFINITY) == -1);
    assert_true(isnan(fn_tanh(NAN)) && isnan(fn_erf(NAN)));
    assert_true(fn_erf(0) == 0 && signbit(fn_erf(-0.0f)) && fn_erf(4) == 1 && fn_erf(-INFINITY) == -1);
    assert_true(fn_log1p(0) == 0 && fn_log1p(-1) == -INFINITY && isnan(fn_log1p(-2)) && isnan(fn_log1p(NAN)));
    assert_true(fn_log1p(INFINITY) == INFINITY);
}

static double ulp_error64(double got, long double exact)
{
    if (exact == 0)
        return got == 0 ? 0 : INFINITY;
    return (double)(fabsl(got - exact) / ldexpl(1, ilogbl(exact) - 52));
}

static void test_f64_functions_are_accurate(void **state)
{
    (void)state;
    uint64_t seed = 7;
    double worst[5] = {0};
    for (int i = 0; i < 300000; i++) {
        double u = (double)(noise_next(&seed) >> 11) * 0x1p-53, w = (double)(noise_next(&seed) >> 11) * 0x1p-53;
        double angle = (double)(float)(u * (i % 2 ? 8 : 140000)), x = (u - 0.5) * 1400, y = exp2(40 * (w - 0.5));
        double got[5] = {fn_sin(angle), fn_cos(-angle), fn_exp64(x), fn_log64(y * u), fn_pow(1 + 1e6 * u, -w)};
        long double exact[5] = {sinl(angle), cosl(angle), expl(x), logl(y * u), powl(1 + 1e6 * u, -w)};
        for (int j = 0; j < 5; j++)
            worst[j] = fmax(worst[j], ulp_error64(got[j], exact[j]));
    }
    print_message("f64: sin %.3f cos %.3f exp %.3f log %.3f pow %.3f ulp\n", worst[0], worst[1], worst[2], worst[3],
                  worst[4]);
    for (int j = 0; j < 5; j++)
        assert_true(worst[j] <= 1.0);
}

static void test_f64_special_values(void **state)
{
    (void)state;
    assert_true(fn_exp64(0) == 1 && fn_exp64(-800) == 0 && fn_exp64(800) == INFINITY && isnan(fn_exp64(NAN)));
    assert_true(fn_log64(1) == 0 && fn_log64(0) == -INFINITY && isnan(fn_log64(-1)) && fn_log64(INFINITY) == INFINITY);
    assert_true(fn_pow(0, 2) == 0 && fn_pow(7, 0) == 1 && fn_pow(1, 1e300) == 1 && fn_pow(2, 10) == 1024);
    assert_true(fn_pow(0.9, 1) == 0.9 && isnan(fn_pow(-2, 2)) && fn_pow(2, 2000) == INFINITY);
    assert_true(fn_sin(0) == 0 && fn_cos(0) == 1 && isnan(fn_sin(INFINITY)) && isnan(fn_cos(NAN)) &&
                isnan(fn_sin(1e300)));
}

static int compare_chunk(const char *isa, int fn, const float *x, const float *expected, float *out, int n)
{
    struct error err;
    OK(kernels_init(isa, &err));
    struct map_job job = {.out = out, .a = x, .fn = fn};
    kernels.map_function(&job, 0, n);
    return same_bits(out, expected, (size_t)n) ? 0 : 1;
}

/* The vector functions are the scalar ones: 2^24 arguments each, every 256th of all bit patterns, and all of those
 * around where e^x ends. */
static void test_f32_functions_equal_in_every_lane_type(void **state)
{
    (void)state;
    enum { CHUNK = 1 << 16, SETS = 3 };
    static const char *const sets[SETS] = {"avx2", "avx512", "neon"};
    static float x[CHUNK], expected[CHUNK], out[CHUNK];
    const float last = -87.33654f;
    uint32_t last_bits;
    int wrong = 0, ran = 0;
    memcpy(&last_bits, &last, 4);
    for (uint64_t base = 0; base <= 1ull << 24; base += CHUNK) {
        for (uint32_t i = 0; i < CHUNK; i++) {
            uint32_t bits = base == 1ull << 24 ? last_bits - CHUNK / 2 + i
                                               : (uint32_t)(base + i) * 256u + (uint32_t)(base / CHUNK) % 256u;
            memcpy(&x[i], &bits, 4);
        }
        for (int fn = 0; fn < FUNCTION_COUNT; fn++) {
            for (int i = 0; fn == FUNCTION_EXP_DOWN && i < CHUNK; i++)
                x[i] = x[i] > 88 ? 88 : x[i];
            struct map_job job = {.out = expected, .a = x, .fn = fn};
            map_function__ref(&job, 0, CHUNK);
            for (int s = 0; s < SETS; s++)
                if (kernels_isa_available(sets[s])) {
                    wrong += compare_chunk(sets[s], fn, x, expected, out, CHUNK);
                    ran++;
                }
        }
    }
    print_message("%lld values compared, %d chunks differ\n", (long long)ran * CHUNK, wrong);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_functions_are_accurate),
        cmocka_unit_test(test_f32_special_values),
        cmocka_unit_test(test_f32_functions_equal_in_every_lane_type),
        cmocka_unit_test(test_f64_functions_are_accurate),
        cmocka_unit_test(test_f64_special_values),
    };
    return RUN(tests);
}
