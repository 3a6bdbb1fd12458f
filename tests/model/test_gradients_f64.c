/* test_gradients_f64 - model_backward against central differences, in the build where `real` is double
 *
 * Along random directions the relative difference is at most 1e-7; single parameters are within 1e-7 of the largest
 * gradient (docs/numerics.md section 8). Two sequences of unequal length, logits wanted for some rows only.
 */
#include "model/support.h"

#include "base/rng.h"
#include "model/private.h"

enum { N_ROW = 11, N_LOGIT = 8, BLOCKS = 2 };
static const int32_t ids[N_ROW] = {1, 5, 3, 3, 12, 0, 7, 5, 9, 2, 16};
static const int32_t logit_rows[N_LOGIT] = {0, 2, 3, 5, 6, 7, 9, 10};
static const int32_t targets[N_LOGIT] = {5, 3, 12, 7, -1, 9, 16, 4};
static const int32_t blocks[2] = {1, 0};
static const struct attend_span spans[2] = {{0, 6, 0, &blocks[0]}, {6, 5, 0, &blocks[1]}};

struct gradient_check {
    struct bench_model b;
    const struct model_param *params;
    int n_param;
    real *logits, *dlogits;
};

static const struct model_batch batch = {
    .n_row = N_ROW, .ids = ids, .spans = spans, .n_span = 2, .logit_rows = logit_rows, .n_logit = N_LOGIT};

static double loss_of(struct gradient_check *g)
{
    int n_vocab = model_config(g->b.model)->n_vocab;
    real loss[N_LOGIT];
    double sum = 0;
    model_forward(g->b.run, &batch, g->logits);
    cross_entropy(loss, g->dlogits, g->logits, targets, (real)1 / (N_LOGIT - 1), N_LOGIT, n_vocab, NULL);
    for (int i = 0; i < N_LOGIT; i++)
        sum += loss[i];
    return sum / (N_LOGIT - 1);
}

/* Where parameter i's k-th logical number lies: panels keep 16 output rows in lanes, and padding stays zero. */
static int64_t place(const struct model_param *p, int64_t k)
{
    int64_t row = k / p->n_in, column = k % p->n_in;
    return p->weight ? (row / 16 * p->n_in + column) * 16 + row % 16 : k;
}

static void open_check(struct gradient_check *g, const char *config)
{
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct model *model;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(config), 0, &err));
    OK(model_random(&model, doc, DT_F32, 7, &(struct model_options){.train = true}, &err));
    arena_free(&arena);
    bench_open(&g->b, model, N_ROW);
    assert_int_equal(g->b.n_block, BLOCKS);
    g->n_param = model_params(model, &g->params);
    int n_vocab = model_config(model)->n_vocab;
    g->logits = malloc(sizeof(real) * (size_t)(N_LOGIT * n_vocab));
    g->dlogits = malloc(sizeof(real) * (size_t)(N_LOGIT * n_vocab));
    struct rng rng; /* norms and biases too must not sit at 1 and 0 */
    rng_init(&rng, 99);
    for (int i = 0; i < g->n_param; i++)
        for (int64_t k = 0; k < g->params[i].n_out * g->params[i].n_in; k++)
            g->params[i].data[place(&g->params[i], k)] += 0.3 * (double)rng_normal(&rng);
    model_grads_zero(model, NULL);
    loss_of(g);
    model_backward(g->b.run, &batch, g->dlogits);
}

static void close_check(struct gradient_check *g)
{
    bench_close(&g->b);
    free(g->logits);
    free(g->dlogits);
}

static double largest_gradient(const struct gradient_check *g)
{
    double largest = 0;
    for (int i = 0; i < g->n_param; i++)
        for (int64_t k = 0; k < g->params[i].count; k++)
            largest = fmax(largest, fabs(g->params[i].grad[k]));
    return largest;
}

/* Every `stride`-th number of every parameter. */
static void check_each(struct gradient_check *g, const char *what, int stride)
{
    double largest = largest_gradient(g), worst = 0;
    const double h = 1e-5;
    assert_true(largest > 1e-3);
    for (int i = 0; i < g->n_param; i++) {
        const struct model_param *p = &g->params[i];
        double seen = 0;
        for (int64_t k = i % stride % (p->n_out * p->n_in); k < p->n_out * p->n_in; k += stride) {
            int64_t at = place(p, k);
            double kept = p->data[at];
            p->data[at] = kept + h;
            double above = loss_of(g);
            p->data[at] = kept - h;
            double below = loss_of(g);
            p->data[at] = kept;
            double error = fabs((above - below) / (2 * h) - p->grad[at]);
            seen = fmax(seen, fabs(p->grad[at]));
            worst = fmax(worst, error / largest);
            if (error > 1e-7 * largest)
                fail_msg("%s: %s[%lld]: gradient %.12g, difference %.12g (largest gradient %.3g)", what, p->name,
                         (long long)k, p->grad[at], (above - below) / (2 * h), largest);
        }
        if (seen == 0 && stride == 1 && !strstr(p->name, "experts"))
            fail_msg("%s: %s has no gradient at all", what, p->name);
    }
    print_message("%s: each parameter within %.1e of the largest gradient\n", what, worst);
}

/* Moves every parameter `step` along the direction of `seed`; returns the gradient's component along it. */
static double move(struct gradient_check *g, uint64_t seed, double step)
{
    struct rng rng;
    double along = 0;
    rng_init(&rng, seed);
    for (int i = 0; i < g->n_param; i++)
        for (int64_t k = 0; k < g->params[i].n_out * g->params[i].n_in; k++) {
            double v = rng_normal(&rng);
            int64_t at = place(&g->params[i], k);
            g->params[i].data[at] += step * v;
            along += v * g->params[i].grad[at];
        }
    return along;
}

/* A direction has thousands of components, so the third derivative counts: differences of fourth order. */
static void check_directions(struct gradient_check *g, const char *what)
{
    const double h = 1e-5;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        static const struct {
            int to, factor;
        } points[] = {{-2, 1}, {-1, -8}, {1, 8}, {2, -1}};
        double difference = 0, along = 0;
        int at = 0;
        for (int i = 0; i < 4; i++) {
            along = move(g, seed, (points[i].to - at) * h);
            at = points[i].to;
            difference += points[i].factor * loss_of(g) / (12 * h);
        }
        move(g, seed, -at * h);
        double error = fabs(difference - along) / fabs(along);
        print_message("%s: direction %d: relative difference %.1e\n", what, (int)seed, error);
        if (error > 1e-7)
            fail_msg("%s: along direction %d: gradient %.12g, difference %.12g", what, (int)seed, along, difference);
    }
}

static void check_config(const char *what, const char *config, int stride)
{
    struct gradient_check g = {0};
    open_check(&g, config);
    check_each(&g, what, stride);
    check_directions(&g, what);
    close_check(&g);
}

#define SIZES                                                                                                          \
    "\"vocab_size\":17,\"hidden_size\":20,\"num_hidden_layers\":2,\"num_attention_heads\":5,\"intermediate_size\":12," \
    "\"max_position_embeddings\":128,\"initializer_range\":0.3,"

static void test_llama(void **state)
{
    (void)state;
    check_config("llama, biases, 5 heads on 1",
                 "{\"model_type\":\"llama\"," SIZES "\"num_key_value_heads\":1,\"attention_bias\":true,"
                 "\"mlp_bias\":true}",
                 2);
}

static void test_qwen3_tied_window(void **state)
{
    (void)state;
    check_config("qwen3, tied, d_head 6, window 3",
                 "{\"model_type\":\"qwen3\"," SIZES "\"num_key_value_heads\":5,\"head_dim\":6,"
                 "\"tie_word_embeddings\":true,\"use_sliding_window\":true,\"sliding_window\":3,"
                 "\"max_window_layers\":1}",
                 7);
}

static void test_gpt2(void **state)
{
    (void)state;
    check_config("gpt2",
                 "{\"model_type\":\"gpt2\",\"vocab_size\":17,\"n_embd\":20,\"n_layer\":2,\"n_head\":5,"
                 "\"n_positions\":128,\"initializer_range\":0.3}",
                 7);
}

static void test_gpt2_norm_after(void **state)
{
    (void)state;
    check_config("gpt2, norm after the sum, gelu by erf, untied",
                 "{\"model_type\":\"gpt2\",\"vocab_size\":17,\"n_embd\":20,\"n_layer\":2,\"n_head\":5,\"n_inner\":12,"
                 "\"n_positions\":128,\"initializer_range\":0.3,\"norm\":\"post\",\"activation_function\":\"gelu\","
                 "\"tie_word_embeddings\":false}",
                 7);
}

static void test_gpt_neox_parallel(void **state)
{
    (void)state;
    check_config("gpt_neox, parallel, half of each head rotates",
                 "{\"model_type\":\"gpt_neox\"," SIZES "\"rotary_pct\":0.5}", 7);
}

static void test_qwen2_moe(void **state)
{
    (void)state;
    check_config("qwen2_moe, shared expert, one dense layer",
                 "{\"model_type\":\"qwen2_moe\"," SIZES "\"num_key_value_heads\":1,\"num_experts\":5,"
                 "\"num_experts_per_tok\":2,\"moe_intermediate_size\":6,\"shared_expert_intermediate_size\":10,"
                 "\"mlp_only_layers\":[1]}",
                 2);
}

static void test_mixtral(void **state)
{
    (void)state;
    check_config("mixtral, weights that sum to 1",
                 "{\"model_type\":\"mixtral\"," SIZES "\"num_key_value_heads\":5,\"num_local_experts\":4,"
                 "\"num_experts_per_tok\":3}",
                 7);
}

int main(void)
{
    struct error err;
    if (kernels_init(NULL, &err) != ST_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_qwen3_tied_window),
        cmocka_unit_test(test_gpt2),
        cmocka_unit_test(test_gpt2_norm_after),
        cmocka_unit_test(test_gpt_neox_parallel),
        cmocka_unit_test(test_qwen2_moe),
        cmocka_unit_test(test_mixtral),
    };
    return RUN(tests);
}
