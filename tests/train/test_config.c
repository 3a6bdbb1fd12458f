/* Keys of a training run: read from YAML and flags, refused with a suggestion, and transformers' schedules. */
#include "train_test.h"

#include "base/fault.h"

static struct train_config config;

static int setup(void **state)
{
    (void)state;
    return train_config_init(&config, NULL);
}

static int teardown(void **state)
{
    (void)state;
    train_config_free(&config);
    return 0;
}

static void test_yaml(void **state)
{
    (void)state;
    struct error err;
    OK(train_config_read(&config,
                         STR("model: m/config.json\n"
                             "data: [a.txt, b.txt]\n"
                             "eval_data: c.txt\n"
                             "output_dir: out\n"
                             "learning_rate: 5e-4\n"
                             "max_steps: 20\n"
                             "overwrite_output_dir: true\n"
                             "resume_from_checkpoint: true\n"),
                         &err));
    assert_true(str_is(config.model, "m/config.json"));
    assert_int_equal(config.data.count, 2);
    assert_true(str_is(config.data.items[1], "b.txt"));
    assert_int_equal(config.eval_data.count, 1);
    assert_true(config.learning_rate == 5e-4);
    assert_int_equal(config.max_steps, 20);
    assert_true(config.overwrite_output_dir);
    assert_true(str_is(config.resume_from_checkpoint, "true"));
    assert_int_equal(config.block_size, 256);
    assert_true(str_is(config.lr_scheduler_type, "cosine"));
    OK(train_config_check(&config, &err));
}

static void test_flags(void **state)
{
    (void)state;
    struct error err;
    OK(train_config_set(&config, STR("data"), STR("a,b,c"), &err));
    assert_int_equal(config.data.count, 3);
    assert_true(str_is(config.data.items[2], "c"));
    OK(train_config_set(&config, STR("learning_rate"), STR("1e-3"), &err));
    assert_true(config.learning_rate == 1e-3);
    OK(train_config_set(&config, STR("seed"), STR("7"), &err));
    assert_int_equal(config.seed, 7);
    OK(train_config_set(&config, STR("overwrite_output_dir"), STR("true"), &err));
    assert_true(config.overwrite_output_dir);
    OK(train_config_set(&config, STR("output_dir"), STR("3"), &err)); /* a text that looks like a number */
    assert_true(str_is(config.output_dir, "3"));
    FAILS(ST_INVALID, train_config_set(&config, STR("seed"), STR("many"), &err));
    assert_non_null(strstr(err.text, "seed"));
    FAILS(ST_INVALID, train_config_set(&config, STR("seed"), STR("1.5"), &err));
}

static void test_unknown_keys_get_a_suggestion(void **state)
{
    (void)state;
    struct error err;
    FAILS(ST_INVALID, train_config_read(&config, STR("learning_rte: 1\n"), &err));
    assert_non_null(strstr(err.text, "learning_rate"));
    FAILS(ST_INVALID, train_config_set(&config, STR("max_step"), STR("1"), &err));
    assert_non_null(strstr(err.text, "max_steps"));
    FAILS(ST_INVALID, train_config_set(&config, STR("zzzzzzzzzzzzzzzz"), STR("1"), &err));
    assert_non_null(strstr(err.text, "--help"));
    FAILS(ST_INVALID, train_config_read(&config, STR("- a\n"), &err));
    FAILS(ST_INVALID, train_config_read(&config, STR("max_steps: soon\n"), &err));
}

static void test_ranges_name_the_key(void **state)
{
    (void)state;
    struct error err;
    static const struct {
        const char *key, *value;
    } bad[] = {{"block_size", "1"},       {"gradient_accumulation_steps", "0"},
               {"learning_rate", "-1"},   {"adam_beta1", "2"},
               {"save_dtype", "q4_0"},    {"lr_scheduler_type", "round"},
               {"save_total_limit", "0"}, {"max_steps", "-2"},
               {"threads", "-1"},         {"num_train_epochs", "-1"}};
    FAILS(ST_INVALID, train_config_check(&config, &err));
    assert_non_null(strstr(err.text, "model"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct train_config c;
        OK(train_config_init(&c, &err));
        OK(train_config_read(&c, STR("{model: m, data: d, output_dir: o}"), &err));
        OK(train_config_check(&c, &err));
        OK(train_config_set(&c, str_of(bad[i].key), str_of(bad[i].value), &err));
        FAILS(ST_INVALID, train_config_check(&c, &err));
        if (!strstr(err.text, bad[i].key))
            fail_msg("\"%s\" does not name %s", err.text, bad[i].key);
        train_config_free(&c);
    }
    struct train_config c; /* each within its range, their product not */
    OK(train_config_init(&c, &err));
    OK(train_config_read(
        &c, STR("{model: m, data: d, output_dir: o, block_size: 1048576, per_device_train_batch_size: 65536}"), &err));
    FAILS(ST_INVALID, train_config_check(&c, &err));
    assert_non_null(strstr(err.text, "block_size"));
    train_config_free(&c);
}

static void test_schedules_are_those_of_transformers(void **state)
{
    (void)state;
    struct error err;
    struct golden g;
    golden_open(&g);
    static const char *const kinds[] = {"constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr"};
    config.learning_rate = 1e-2;
    for (int by_ratio = 0; by_ratio < 2; by_ratio++) {
        config.warmup_steps = by_ratio ? 0 : 3;
        config.warmup_ratio = by_ratio ? 0.25 : 0; /* rounded up */
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            char name[64];
            double expected[STEPS];
            snprintf(name, sizeof name, "lr.%s", kinds[k]);
            golden_doubles(expected, g.ck, name);
            OK(train_config_set(&config, STR("lr_scheduler_type"), str_of(kinds[k]), &err));
            for (int s = 0; s < STEPS; s++) {
                double lr = train_lr(&config, s, STEPS);
                if (!(fabs(lr - expected[s]) <= 1e-15))
                    fail_msg("%s, update %d: %.17g, expected %.17g", kinds[k], s, lr, expected[s]);
            }
        }
    }
    checkpoint_close(g.ck);
}

static void test_every_failing_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct error err;
        struct train_config c;
        OK(train_config_init(&c, &err));
        fault_arm(FAULT_ALLOC, n);
        enum status st = train_config_read(&c, STR("{model: m, data: [a, b], seed: 3}"), &err);
        if (st == ST_OK)
            st = train_config_set(&c, STR("eval_data"), STR("x,y"), &err);
        bool fired = fault_fired();
        fault_disarm();
        train_config_free(&c);
        if (!fired) {
            assert_true(n > 2);
            return;
        }
        assert_true(st != ST_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_yaml, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flags, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_keys_get_a_suggestion, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ranges_name_the_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_schedules_are_those_of_transformers, setup, teardown),
        cmocka_unit_test(test_every_failing_allocation),
    };
    return RUN(tests);
}
