/* Gradients of linear in the double build against central differences, and every type's exact product in double. */
#include "check_linear.h"

enum { ROWS = 5, N_OUT = 37, N_IN = 23, PADDED = 48 };

struct problem {
    struct weight w;
    real *x, *bias, *c; /* loss = sum of c * out + out^2 / 2, quadratic in each argument */
};

static double loss_of(const struct problem *p)
{
    real out[ROWS * N_OUT];
    run_linear(out, p->x, ROWS, &p->w, p->bias, NULL);
    double loss = 0;
    for (int i = 0; i < ROWS * N_OUT; i++)
        loss += p->c[i] * out[i] + 0.5 * out[i] * out[i];
    return loss;
}

/* (loss(v + h u) - loss(v - h u)) / 2h: exact for a quadratic, but for rounding. */
static double directional(const struct problem *p, real *v, const real *u, int64_t n)
{
    const double h = 1e-3;
    double loss[2];
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++)
            v[i] += side ? -2 * h * u[i] : h * u[i];
        loss[side] = loss_of(p);
    }
    for (int64_t i = 0; i < n; i++)
        v[i] += h * u[i];
    return (loss[0] - loss[1]) / (2 * h);
}

/* Directions within 1e-7 relative, every parameter within 1e-7 of the largest: how many are not. */
static int wrong_gradients(const struct problem *p, real *v, const real *grad, int64_t n)
{
    uint64_t state = 9;
    double top = 0;
    int wrong = 0;
    for (int64_t i = 0; i < n; i++)
        top = fabs(grad[i]) > top ? fabs(grad[i]) : top;
    assert_true(top > 0);
    for (int round = 0; round < 4; round++) {
        real *u = random_reals(&state, n);
        double numeric = directional(p, v, u, n), analytic = 0;
        for (int64_t i = 0; i < n; i++)
            analytic += grad[i] * u[i];
        wrong += !(fabs(numeric - analytic) <= 1e-7 * fabs(numeric));
        free(u);
    }
    for (int64_t i = 0; i < n; i++) {
        real one = 1;
        wrong += !(fabs(directional(p, v + i, &one, 1) - grad[i]) <= 1e-7 * top);
    }
    return wrong;
}

static void test_gradients(void **unused)
{
    (void)unused;
    uint64_t state = 1;
    void *rows = random_rows(&state, DT_F32, N_OUT * N_IN);
    struct problem p = {.w = packed(rows, DT_F32, N_OUT, N_IN, NULL)};
    p.x = random_reals(&state, ROWS * N_IN);
    p.bias = random_reals(&state, N_OUT);
    p.c = random_reals(&state, ROWS * N_OUT);
    real dy[ROWS * N_OUT], dx[ROWS * N_IN], db[N_OUT] = {0}, dw[PADDED * N_IN] = {0};
    run_linear(dy, p.x, ROWS, &p.w, p.bias, NULL);
    for (int i = 0; i < ROWS * N_OUT; i++)
        dy[i] += p.c[i];
    linear_backward_input(dx, dy, &p.w, ROWS, false, NULL);
    linear_backward_weight(dw, dy, p.x, ROWS, N_OUT, N_IN, NULL);
    linear_backward_bias(db, dy, ROWS, N_OUT, NULL);
    assert_int_equal(wrong_gradients(&p, p.x, dx, ROWS * N_IN), 0);
    assert_int_equal(wrong_gradients(&p, p.bias, db, N_OUT), 0);
    assert_int_equal(wrong_gradients(&p, p.w.panels, dw, PADDED * N_IN), 0);
    dx[7] += 1e-4; /* the check can fail */
    assert_int_not_equal(wrong_gradients(&p, p.x, dx, ROWS * N_IN), 0);
    free(rows), free(p.w.panels), free(p.x), free(p.bias), free(p.c);
}

static void test_every_type_in_double(void **unused)
{
    (void)unused;
    enum { N_LONG = 512 };
    for (int i = 0; i < PANEL_TYPES; i++) {
        enum dtype t = panel_types[i];
        uint64_t state = 4;
        void *rows = random_rows(&state, t, 20 * N_LONG);
        struct weight w = packed(rows, t, 20, N_LONG, NULL);
        w.exact = true;
        real *x = random_reals(&state, N_LONG), out[20], row[N_LONG];
        run_linear(out, x, 1, &w, NULL, NULL);
        for (int n = 0; n < 20; n++) {
            double sum = 0, size = 0;
            weight_get_row(row, &w, n);
            for (int k = 0; k < N_LONG; k++)
                sum += row[k] * x[k], size += fabs(row[k] * x[k]);
            assert_true(fabs(sum - out[n]) <= 1e-13 * size);
        }
        free(rows), free(w.panels), free(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients), cmocka_unit_test(test_every_type_in_double)};
    return RUN(tests);
}
