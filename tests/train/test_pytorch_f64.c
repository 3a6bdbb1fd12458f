/* The double build against PyTorch in float64: gradients, ten updates, loss, norm. */
#include "train_test.h"

static void test_gradients_of_the_first_update(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g);
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, NULL);
    struct trainer *t = tiny_trainer(m, WINDOWS, NULL);
    assert_int_equal(sizeof(real), 8);
    trainer_accumulate(t, g.windows[0], WINDOWS, WINDOWS * BLOCK);
    for (int i = 0; i < t->n_param; i++) {
        double most, worst = param_error(&most, &g, "grad", &t->params[i], t->params[i].grad);
        if (!(worst <= 1e-7 * most))
            fail_msg("%s: gradient off by %.3g, largest %.3g", t->params[i].name, worst, most);
    }
    assert_int_equal(t->n_param, 2 * 9 + 3);
    trainer_free(t);
    model_free(m);
    checkpoint_close(g.ck);
}

static void test_ten_updates(void **state)
{
    (void)state;
    struct golden g;
    golden_open(&g);
    struct model *m = tiny_model(GOLDEN("train/tiny"), true, NULL);
    struct trainer *t = tiny_trainer(m, 2, NULL);
    for (int s = 0; s < STEPS; s++) {
        double norm, loss = tiny_update(t, g.windows[s], WINDOWS, 2, g.lr[s], s + 1, &norm);
        if (!(fabs(loss - g.loss[s]) <= 1e-5) || !(fabs(norm - g.norm[s]) <= 1e-6 * g.norm[s]))
            fail_msg("update %d: loss %.9f (expected %.9f), norm %.9f (expected %.9f)", s + 1, loss, g.loss[s], norm,
                     g.norm[s]);
    }
    double all = 0;
    for (int i = 0; i < t->n_param; i++) {
        double most, worst = param_error(&most, &g, "final", &t->params[i], t->params[i].data);
        all = worst > all ? worst : all;
        if (!(worst <= 1e-6))
            fail_msg("%s: off by %.3g after ten updates", t->params[i].name, worst);
    }
    print_message("parameters after ten updates: largest difference %.3g\n", all);
    trainer_free(t);
    model_free(m);
    checkpoint_close(g.ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients_of_the_first_update),
        cmocka_unit_test(test_ten_updates),
    };
    return RUN(tests);
}
