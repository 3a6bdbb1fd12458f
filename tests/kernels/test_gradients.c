/* The f32 backward against plain double formulas written here: within 1e-4 of the largest gradient (docs/numerics.md
 * section 8), on the best instruction set. The double build itself is checked in test_gradients_f64.c. */
#include "ops.h"

static void check_close(const char *name, const float *got, const double *expected, size_t n)
{
    double top = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        top = fmax(top, fabs(expected[i]));
        worst = fmax(worst, fabs((double)got[i] - expected[i]));
    }
    assert_true(top > 0);
    print_message("%-16s %.2g of the largest gradient\n", name, worst / top);
    if (!(worst <= 1e-4 * top))
        fail_msg("%s: off by %g, largest gradient %g", name, worst, top);
}

static double *doubles(size_t n)
{
    double *x = calloc(n, sizeof *x);
    assert_non_null(x);
    return x;
}

enum { ROWS = 200, N = 97 };
static void test_norms(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    for (int layer = 0; layer < 2; layer++) {
        float *x = noise_new(ROWS * N, 2, 1), *dy = noise_new(ROWS * N, 1, 2), *w = noise_new(N, 1, 3);
        float *dx = zeros_new(ROWS * N), *dw = zeros_new(N), *db = zeros_new(N);
        double *dxd = doubles(ROWS * N), *dwd = doubles(N), *dbd = doubles(N);
        for (int r = 0; r < ROWS; r++) {
            const float *xr = x + r * N, *dyr = dy + r * N;
            double mean = 0, square = 0, g_sum = 0, gy_sum = 0;
            for (int i = 0; i < N && layer; i++)
                mean += (double)xr[i] / N;
            for (int i = 0; i < N; i++)
                square += ((double)xr[i] - mean) * ((double)xr[i] - mean) / N;
            double inverse = 1 / sqrt(square + 1e-5);
            for (int i = 0; i < N; i++) {
                double y = ((double)xr[i] - mean) * inverse, g = (double)dyr[i] * (double)w[i];
                g_sum += g, gy_sum += g * y;
                dwd[i] += (double)dyr[i] * y;
                dbd[i] += (double)dyr[i];
            }
            for (int i = 0; i < N; i++)
                dxd[r * N + i] = inverse * ((double)dyr[i] * (double)w[i] - (layer ? g_sum / N : 0) -
                                            ((double)xr[i] - mean) * inverse * gy_sum / N);
        }
        if (layer)
            norm_layer_backward(dx, dw, db, dy, x, w, 1e-5f, ROWS, N, NULL);
        else
            norm_rms_backward(dx, dw, dy, x, w, 1e-5f, ROWS, N, NULL);
        check_close(layer ? "layer norm dx" : "rms norm dx", dx, dxd, ROWS * N);
        check_close(layer ? "layer norm dw" : "rms norm dw", dw, dwd, N);
        if (layer)
            check_close("layer norm db", db, dbd, N);
        free(x), free(dy), free(w), free(dx), free(dw), free(db), free(dxd), free(dwd), free(dbd);
    }
}

/* f(x) and f'(x) in double, the derivative by formula. */
static void activation(enum act_fn fn, double x, double *y, double *slope)
{
    double s = 1 / (1 + exp(-x)), cdf = 0.5 * (1 + erf(x / sqrt(2)));
    double c = sqrt(2 / 3.14159265358979323846), u = c * (x + 0.044715 * x * x * x), t = tanh(u);
    switch (fn) {
    case FN_SILU:
        *y = x * s, *slope = s + x * s * (1 - s);
        return;
    case FN_GELU:
        *y = x * cdf, *slope = cdf + x * exp(-x * x / 2) * c / 2;
        return;
    case FN_GELU_TANH:
        *y = 0.5 * x * (1 + t), *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x);
        return;
    case FN_RELU:
        *y = x > 0 ? x : 0, *slope = x > 0;
        return;
    }
}

static void test_activations(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    enum { COUNT = 5000 };
    for (enum act_fn fn = FN_SILU; fn <= FN_RELU; fn++) {
        float *gate = noise_new(COUNT, 3, 1), *up = noise_new(COUNT, 1, 2), *dy = noise_new(COUNT, 1, 3);
        float *dgate = zeros_new(COUNT), *dup = zeros_new(COUNT), *dx = zeros_new(COUNT);
        double *dgated = doubles(COUNT), *dupd = doubles(COUNT), *dxd = doubles(COUNT);
        for (int i = 0; i < COUNT; i++) {
            double y = 0, slope = 0;
            activation(fn, (double)gate[i], &y, &slope);
            dxd[i] = (double)dy[i] * slope;
            dgated[i] = (double)dy[i] * (double)up[i] * slope;
            dupd[i] = (double)dy[i] * y;
        }
        fn_backward(dx, dy, gate, fn, COUNT, NULL);
        glu_backward(dgate, dup, dy, gate, up, fn, COUNT, NULL);
        check_close("activation dx", dx, dxd, COUNT);
        check_close("glu dgate", dgate, dgated, COUNT);
        check_close("glu dup", dup, dupd, COUNT);
        free(gate), free(up), free(dy), free(dgate), free(dup), free(dx), free(dgated), free(dupd), free(dxd);
    }
}

enum { LENGTH = 300, HEADS = 4, KV_HEADS = 2, D = 40, GROUP = HEADS / KV_HEADS };
static void attend_gradient(double *dq, double *dk, double *dv, const float *dout, const float *q, const float *k,
                            const float *v, double scale)
{
    for (int row = 0; row < LENGTH; row++)
        for (int h = 0; h < HEADS; h++) {
            double p[LENGTH], dp[LENGTH], sum = 0, mean = 0;
            int at = (row * HEADS + h) * D;
            for (int t = 0; t <= row; t++) {
                int kv = (t * KV_HEADS + h / GROUP) * D;
                double s = 0;
                dp[t] = 0;
                for (int i = 0; i < D; i++) {
                    s += (double)q[at + i] * (double)k[kv + i];
                    dp[t] += (double)dout[at + i] * (double)v[kv + i];
                }
                sum += p[t] = exp(s * scale);
            }
            for (int t = 0; t <= row; t++)
                mean += p[t] / sum * dp[t];
            for (int t = 0; t <= row; t++) {
                int kv = (t * KV_HEADS + h / GROUP) * D;
                double ds = p[t] / sum * (dp[t] - mean) * scale;
                for (int i = 0; i < D; i++) {
                    dq[at + i] += ds * (double)k[kv + i];
                    dk[kv + i] += ds * (double)q[at + i];
                    dv[kv + i] += p[t] / sum * (double)dout[at + i];
                }
            }
        }
}

static void test_attend(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    enum { Q = LENGTH * HEADS * D, KV = LENGTH * KV_HEADS * D };
    struct kv_layout l = {KV_F32, KV_HEADS, D};
    struct attend_attr attr = {HEADS, 0.158f, 0, 0};
    struct attend_span span = {0, LENGTH, 0, NULL};
    float *q = noise_new(Q, 1.5f, 1), *k = noise_new(KV, 1.5f, 2), *v = noise_new(KV, 1, 3), *dout = noise_new(Q, 1, 4);
    float *dq = zeros_new(Q), *dk = zeros_new(KV), *dv = zeros_new(KV);
    double *dqd = doubles(Q), *dkd = doubles(KV), *dvd = doubles(KV);
    attend_gradient(dqd, dkd, dvd, dout, q, k, v, (double)attr.scale);
    attend_backward(dq, dk, dv, dout, q, k, v, &l, &attr, &span, 1, NULL);
    check_close("attend dq", dq, dqd, Q);
    check_close("attend dk", dk, dkd, KV);
    check_close("attend dv", dv, dvd, KV);
    free(q), free(k), free(v), free(dout), free(dq), free(dk), free(dv), free(dqd), free(dkd), free(dvd);
}

static void test_loss(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    enum { VOCABULARY = 9000 };
    float *x = noise_new(VOCABULARY, 4, 1), loss, *dx = zeros_new(VOCABULARY);
    double *dxd = doubles(VOCABULARY), sum = 0;
    const int32_t target = 77;
    for (int i = 0; i < VOCABULARY; i++)
        sum += dxd[i] = exp((double)x[i]);
    for (int i = 0; i < VOCABULARY; i++)
        dxd[i] = (dxd[i] / sum - (i == target)) * 0.5;
    cross_entropy(&loss, dx, x, &target, 0.5f, 1, VOCABULARY, NULL);
    check_close("cross entropy", dx, dxd, VOCABULARY);
    assert_true(fabs((double)loss - (log(sum) - (double)x[target])) < 1e-5);
    cross_entropy(&loss, x, x, &target, 0.5f, 1, VOCABULARY, NULL); /* in place */
    assert_true(same_bits(x, dx, VOCABULARY));
    free(x), free(dx), free(dxd);
}

/* Ten steps of torch.optim.AdamW's formulas in double. */
static void test_adamw(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    enum { COUNT = 1000 };
    float *p = noise_new(COUNT, 1, 1), *m = zeros_new(COUNT), *v = zeros_new(COUNT);
    double *pd = doubles(COUNT), *md = doubles(COUNT), *vd = doubles(COUNT);
    for (int i = 0; i < COUNT; i++)
        pd[i] = (double)p[i];
    for (int step = 1; step <= 10; step++) {
        float *g = noise_new(COUNT, 1, (uint64_t)step + 10);
        struct adamw how = {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, step, 0.5f};
        adamw_step(p, m, v, g, &how, COUNT, NULL);
        for (int i = 0; i < COUNT; i++) {
            double gi = 0.5 * (double)g[i], lr = (double)how.lr;
            md[i] = 0.9 * md[i] + 0.1 * gi;
            vd[i] = 0.95 * vd[i] + 0.05 * gi * gi;
            pd[i] -= lr * (double)how.weight_decay * pd[i];
            pd[i] -= lr / (1 - pow(0.9, step)) * md[i] / (sqrt(vd[i] / (1 - pow(0.95, step))) + 1e-8);
        }
        free(g);
    }
    for (int i = 0; i < COUNT; i++)
        assert_true(fabs((double)p[i] - pd[i]) < 1e-5);
    free(p), free(m), free(v), free(pd), free(md), free(vd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms), cmocka_unit_test(test_activations), cmocka_unit_test(test_attend),
        cmocka_unit_test(test_loss),  cmocka_unit_test(test_adamw),
    };
    return RUN(tests);
}
