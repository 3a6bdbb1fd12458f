/* Norms, rope, routing, log-sum-exp and selection against naive twins written here. */
#include "ops.h"

static void pick_best(void)
{
    struct error err;
    OK(kernels_init(NULL, &err));
}
static void close_to(float got, double expected, double tolerance)
{
    if (!(fabs((double)got - expected) <= tolerance))
        fail_msg("got %.9g, expected %.9g", (double)got, expected);
}

static void test_norms_equal_naive(void **state)
{
    (void)state;
    pick_best();
    enum { ROWS = 3, N = 77 };
    float *x = noise_new(ROWS * N, 2, 1), *w = noise_new(N, 1, 2), *b = noise_new(N, 1, 3), rms[ROWS * N],
          layer[ROWS * N];
    norm_rms_forward(rms, x, w, 1e-5f, ROWS, N, NULL);
    norm_layer_forward(layer, x, w, b, 1e-5f, ROWS, N, NULL);
    for (int r = 0; r < ROWS; r++) {
        double mean = 0, square = 0, variance = 0;
        for (int i = 0; i < N; i++) {
            mean += (double)x[r * N + i] / N;
            square += (double)x[r * N + i] * (double)x[r * N + i] / N;
        }
        for (int i = 0; i < N; i++)
            variance += ((double)x[r * N + i] - mean) * ((double)x[r * N + i] - mean) / N;
        for (int i = 0; i < N; i++) {
            double xi = (double)x[r * N + i], wi = (double)w[i];
            close_to(rms[r * N + i], xi / sqrt(square + 1e-5) * wi, 3e-6);
            close_to(layer[r * N + i], (xi - mean) / sqrt(variance + 1e-5) * wi + (double)b[i], 3e-6);
        }
    }
    norm_rms_forward(x, x, w, 1e-5f, ROWS, N, NULL); /* in place */
    assert_true(same_bits(x, rms, ROWS * N));
    free(x), free(w), free(b);
}

static void test_rope_turns_pairs_by_their_angle(void **state)
{
    (void)state;
    pick_best();
    enum { HALF = 20, D = 48 };
    const int32_t pos[2] = {3, 1999};
    float inv_freq[HALF], cs[2 * HALF * 2], *x = noise_new(2 * D, 1, 1);
    for (int i = 0; i < HALF; i++)
        inv_freq[i] = (float)fn_pow(10000, -(double)i / HALF);
    rope_angles(cs, inv_freq, 0.75f, pos, 2, HALF, NULL);
    for (enum rope_style style = ROPE_HALF; style <= ROPE_PAIR; style++) {
        float *y = copy_of(x, 2 * D);
        rope_apply(y, cs, style, 2, 1, D, HALF, 1, NULL);
        for (int r = 0; r < 2; r++) {
            for (int i = 0; i < HALF; i++) {
                double angle = (double)((float)pos[r] * inv_freq[i]), c = 0.75 * cos(angle), s = 0.75 * sin(angle);
                int a = r * D + (style == ROPE_HALF ? i : 2 * i), b = style == ROPE_HALF ? a + HALF : a + 1;
                close_to(y[a], (double)x[a] * c - (double)x[b] * s, 1e-6);
                close_to(y[b], (double)x[b] * c + (double)x[a] * s, 1e-6);
            }
            assert_memory_equal(y + r * D + 2 * HALF, x + r * D + 2 * HALF, (D - 2 * HALF) * sizeof *x);
        }
        free(y);
    }
    free(x);
}

static void test_routing_takes_the_largest_ties_to_the_lower_id(void **state)
{
    (void)state;
    pick_best();
    struct moe_attr attr = {5, 2, true, 2};
    const float logits[2 * 5] = {1, 3, 3, 0, 3, 0, 0, 0, 0, 1};
    float weights[4], probs[10];
    int32_t experts[4];
    moe_route(experts, weights, probs, logits, &attr, 2, NULL);
    assert_true(experts[0] == 1 && experts[1] == 2 && experts[2] == 0 && experts[3] == 4);
    close_to(weights[0], 1, 1e-6), close_to(weights[1], 1, 1e-6);
    close_to(weights[2], 2 / (1 + exp(1)), 1e-6), close_to(weights[3], 2 * exp(1) / (1 + exp(1)), 1e-6);
    close_to(probs[9], exp(1) / (4 + exp(1)), 1e-6);
    attr.normalize = false;
    moe_route(experts, weights, probs, logits, &attr, 2, NULL);
    close_to(weights[3], 2 * exp(1) / (4 + exp(1)), 1e-6);
}

static void test_log_sum_exp_and_loss(void **state)
{
    (void)state;
    pick_best();
    enum { N = 9001 };
    float *x = noise_new(2 * N, 5, 1), lse[2], loss[2];
    const int32_t targets[2] = {-1, N - 1};
    lse_forward(lse, x, 2, N, NULL);
    cross_entropy(loss, NULL, x, targets, 1, 2, N, NULL);
    for (int r = 0; r < 2; r++) {
        double sum = 0;
        for (int i = 0; i < N; i++)
            sum += exp((double)x[r * N + i]);
        close_to(lse[r], log(sum), 2e-6);
        close_to(loss[r], r ? log(sum) - (double)x[2 * N - 1] : 0, 4e-6);
    }
    for (int i = 0; i < N; i++)
        x[i] = -INFINITY;
    lse_forward(lse, x, 1, N, NULL);
    assert_true(lse[0] == -INFINITY);
    x[5000] = 2;
    lse_forward(lse, x, 1, N, NULL);
    assert_true(lse[0] == 2);
    x[17] = NAN;
    lse_forward(lse, x, 1, N, NULL);
    assert_true(isnan(lse[0]));
    double square = sum_squares(x + N, N, NULL), naive = 0;
    for (int i = N; i < 2 * N; i++)
        naive += (double)x[i] * (double)x[i];
    assert_true(fabs(square - naive) < 1e-12 * naive);
    free(x);
}

static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    bool nan_x = isnan(x->logit), nan_y = isnan(y->logit);
    if (nan_x != nan_y)
        return nan_x ? 1 : -1;
    if (!nan_x && x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void test_top_k_equals_a_sort(void **state)
{
    (void)state;
    pick_best();
    enum { N = 3001 };
    static struct candidate sorted[N], got[N];
    for (int kind = 0; kind < 5; kind++) {
        float *x = noise_new(N, 4, (uint64_t)kind + 1);
        for (int i = 0; i < N; i++) {
            if (kind == 1)
                x[i] = truncf(x[i]); /* ties */
            if (kind == 2 && i % 3)
                x[i] = i % 2 ? NAN : -INFINITY;
            if (kind == 3)
                x[i] = (float)i; /* every one enters */
            if (kind == 4)
                x[i] = i % 10 ? NAN : x[i];
            sorted[i] = (struct candidate){i, x[i]};
        }
        qsort(sorted, N, sizeof *sorted, by_logit);
        static const int ks[] = {1, 2, 17, 1000, N, N + 5};
        for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++) {
            int n = top_k_select(got, x, N, ks[k] > N ? N + 5 : ks[k]);
            assert_int_equal(n, ks[k] < N ? ks[k] : N);
            for (int i = 0; i < n; i++)
                assert_int_equal(got[i].id, sorted[i].id);
        }
        assert_int_equal(argmax(x, N), sorted[0].id);
        free(x);
    }
    const float none[3] = {NAN, NAN, NAN}, low[3] = {NAN, -INFINITY, -INFINITY};
    assert_int_equal(argmax(none, 3), -1);
    assert_int_equal(argmax(low, 3), 1);
    assert_int_equal(top_k_select(got, low, 3, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms_equal_naive),
        cmocka_unit_test(test_rope_turns_pairs_by_their_angle),
        cmocka_unit_test(test_routing_takes_the_largest_ties_to_the_lower_id),
        cmocka_unit_test(test_log_sum_exp_and_loss),
        cmocka_unit_test(test_top_k_equals_a_sort),
    };
    return RUN(tests);
}
