/* The trainer in f32: near PyTorch, and the same bits however the work is split. */
#include "train_test.h"

static void test_loss_follows_pytorch(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g);
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, NULL);
    struct trainer *t = tiny_trainer(m, WINDOWS, NULL);
    for (int s = 0; s < STEPS; s++) {
        double norm, loss = tiny_update(t, g.windows[s], WINDOWS, WINDOWS, g.lr[s], s + 1, &norm);
        if (!(fabs(loss - g.loss[s]) <= 1e-5))
            fail_msg("update %d: loss %.9f, expected %.9f", s + 1, loss, g.loss[s]);
    }
    trainer_free(t);
    model_free(m);
    checkpoint_close(g.ck);
}

static void test_gradients_are_near_the_double_ones(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g);
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, NULL);
    struct trainer *t = tiny_trainer(m, WINDOWS, NULL);
    trainer_accumulate(t, g.windows[0], WINDOWS, WINDOWS * BLOCK);
    for (int i = 0; i < t->n_param; i++) {
        double most, worst = param_error(&most, &g, "grad", &t->params[i], t->params[i].grad);
        if (!(worst <= 1e-4 * most))
            fail_msg("%s: gradient off by %.3g, largest %.3g", t->params[i].name, worst, most);
    }
    trainer_free(t);
    model_free(m);
    checkpoint_close(g.ck);
}

/* ---- equal bits ---- */

struct result { /* every parameter after some updates, and what was reported */
    int n;
    real *data[64];
    size_t bytes[64];
    double loss, norm;
};

struct split {
    int threads, micro;
    bool reversed; /* mutation: windows in the other order, as a race between threads would add them */
    bool halves;   /* mutation: two half gradients added, as a reduction over threads or ranks would */
};

/* gradient += other's, for the mutation. */
static void add_gradients(struct trainer *t, real *const *other)
{
    for (int i = 0; i < t->n_param; i++)
        for (int64_t j = 0; j < t->params[i].count; j++)
            t->params[i].grad[j] += other[i][j];
}

static void accumulate_halves(struct trainer *t, const int32_t *windows, int n)
{
    real *kept[64];
    trainer_accumulate(t, windows, n / 2, (int64_t)n * BLOCK);
    for (int i = 0; i < t->n_param; i++) {
        size_t bytes = (size_t)t->params[i].count * sizeof(real);
        kept[i] = memcpy(malloc(bytes), t->params[i].grad, bytes);
    }
    model_grads_zero(t->model, t->options.pool);
    trainer_accumulate(t, windows + n / 2 * (BLOCK + 1), n / 2, (int64_t)n * BLOCK);
    add_gradients(t, kept);
    for (int i = 0; i < t->n_param; i++)
        free(kept[i]);
}

enum { EIGHT = 8 };

static struct result run_split(struct split how)
{
    struct error err;
    struct golden g;
    struct pool *pool;
    struct result r = {0};
    golden_open(&g);
    OK(pool_create(&pool, how.threads, &err));
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, pool);
    struct trainer *t = tiny_trainer(m, EIGHT, pool);
    for (int s = 0; s < 3; s++) {
        int32_t windows[EIGHT * (BLOCK + 1)];
        for (int i = 0; i < EIGHT; i++) { /* two golden steps make eight windows */
            int from = how.reversed ? EIGHT - 1 - i : i;
            memcpy(windows + i * (BLOCK + 1), &g.windows[2 * s + from / 4][from % 4 * (BLOCK + 1)],
                   (BLOCK + 1) * sizeof *windows);
        }
        if (how.halves) {
            accumulate_halves(t, windows, EIGHT);
            r.norm = trainer_update(t, 1e-2, s + 1);
        } else
            r.loss = tiny_update(t, windows, EIGHT, how.micro, 1e-2, s + 1, &r.norm);
    }
    r.n = t->n_param;
    for (int i = 0; i < r.n; i++) {
        r.bytes[i] = (size_t)t->params[i].count * sizeof(real);
        r.data[i] = memcpy(malloc(r.bytes[i]), t->params[i].data, r.bytes[i]);
    }
    trainer_free(t);
    model_free(m);
    pool_destroy(pool);
    checkpoint_close(g.ck);
    return r;
}

static bool same_bits(struct result a, struct result b)
{
    bool same = a.n == b.n && memcmp(&a.norm, &b.norm, sizeof a.norm) == 0;
    for (int i = 0; i < a.n; i++) {
        same = same && a.bytes[i] == b.bytes[i] && memcmp(a.data[i], b.data[i], a.bytes[i]) == 0;
        free(b.data[i]);
    }
    return same;
}

static void test_splits_of_the_work_change_no_bit(void **state)
{
    (void)state;
    struct result whole = run_split((struct split){.threads = 1, .micro = 8});
    assert_true(same_bits(whole, run_split((struct split){.threads = 1, .micro = 1})));
    assert_true(same_bits(whole, run_split((struct split){.threads = 1, .micro = 2})));
    assert_true(same_bits(whole, run_split((struct split){.threads = 2, .micro = 8})));
    assert_true(same_bits(whole, run_split((struct split){.threads = 2, .micro = 1})));
    assert_true(same_bits(whole, run_split((struct split){.threads = 3, .micro = 4})));
    /* mutations: the comparison must notice another order of additions */
    assert_false(same_bits(whole, run_split((struct split){.threads = 1, .micro = 8, .reversed = true})));
    assert_false(same_bits(whole, run_split((struct split){.threads = 2, .halves = true})));
    for (int i = 0; i < whole.n; i++)
        free(whole.data[i]);
}

static void test_evaluation_keeps_nothing(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g);
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, NULL);
    struct trainer *t = tiny_trainer(m, WINDOWS, NULL);
    double one = trainer_evaluate(t, g.windows[0], WINDOWS);
    double split = trainer_evaluate(t, g.windows[0], 1);
    for (int i = 1; i < WINDOWS; i++)
        split += trainer_evaluate(t, g.windows[0] + i * (BLOCK + 1), 1);
    assert_true(fabs(one / (WINDOWS * BLOCK) - g.loss[0]) <= 1e-5);
    assert_true(fabs(one - split) < 1e-9);
    for (int i = 0; i < t->n_param; i++)
        for (int64_t j = 0; j < t->params[i].count; j++)
            assert_true(t->params[i].grad[j] == 0);
    assert_true(trainer_accumulate(t, g.windows[0], WINDOWS, WINDOWS * BLOCK) == one);
    trainer_free(t);
    model_free(m);
    checkpoint_close(g.ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_follows_pytorch),
        cmocka_unit_test(test_gradients_are_near_the_double_ones),
        cmocka_unit_test(test_splits_of_the_work_change_no_bit),
        cmocka_unit_test(test_evaluation_keeps_nothing),
    };
    return RUN(tests);
}
