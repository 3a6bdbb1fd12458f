/* Every backward against central differences of its forward, in double (docs/numerics.md section 8): along random
 * directions within 1e-7 relative. */
#include "ops.h"

enum { MAX_INPUTS = 4 };

/* A function of up to four arrays; eval computes its outputs, all concatenated. */
struct subject {
    int n_input;
    size_t size[MAX_INPUTS], n_out;
    real *x[MAX_INPUTS];
    void (*eval)(const struct subject *s, real *out);
    const void *attr;
};

static double weighted(const struct subject *s, const real *weight)
{
    real *out = zeros_new(s->n_out);
    s->eval(s, out);
    double sum = 0;
    for (size_t i = 0; i < s->n_out; i++)
        sum += out[i] * weight[i];
    free(out);
    return sum;
}

/* grad[i]: the gradient of sum(out * weight) by input i. Richardson's extrapolation: error h^4. */
static void check_gradients(const char *name, struct subject *s, const real *weight, real *const grad[])
{
    for (int i = 0; i < s->n_input; i++)
        for (int trial = 0; trial < 4; trial++) {
            real *direction = noise_new(s->size[i], 1, (uint64_t)(100 + 10 * i + trial));
            double along = 0, f[4], size = 0;
            const double h = 1e-3, steps[4] = {h, -h, 2 * h, -2 * h};
            for (size_t j = 0; j < s->size[i]; j++) {
                along += grad[i][j] * direction[j];
                size += grad[i][j] * grad[i][j];
            }
            for (int k = 0; k < 4; k++) {
                real *kept = copy_of(s->x[i], s->size[i]);
                for (size_t j = 0; j < s->size[i]; j++)
                    s->x[i][j] += steps[k] * direction[j];
                f[k] = weighted(s, weight);
                memcpy(s->x[i], kept, s->size[i] * sizeof *kept);
                free(kept);
            }
            double difference = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h);
            double scale = fmax(fabs(along), sqrt(size));
            if (!(fabs(difference - along) <= 1e-7 * scale))
                fail_msg("%s: input %d trial %d: gradient %.12g, differences %.12g", name, i, trial, along, difference);
            free(direction);
        }
}

static struct subject subject_new(int n_input, const size_t *size, const real *scale, size_t n_out,
                                  void (*eval)(const struct subject *, real *), const void *attr)
{
    struct subject s = {.n_input = n_input, .n_out = n_out, .eval = eval, .attr = attr};
    for (int i = 0; i < n_input; i++) {
        s.size[i] = size[i];
        s.x[i] = noise_new(size[i], scale[i], (uint64_t)(i + 1));
    }
    return s;
}
static void grads_new(const struct subject *s, real *grad[])
{
    for (int i = 0; i < s->n_input; i++)
        grad[i] = zeros_new(s->size[i]);
}
static void done(struct subject *s, real *grad[], real *weight)
{
    for (int i = 0; i < s->n_input; i++) {
        free(s->x[i]);
        free(grad[i]);
    }
    free(weight);
}

/* ---- norms ---- */
enum { NORM_ROWS = 150, NORM_N = 37 }; /* more rows than one block of the backward */
static void eval_rms(const struct subject *s, real *out)
{
    norm_rms_forward(out, s->x[0], s->x[1], 1e-3, NORM_ROWS, NORM_N, NULL);
}
static void eval_layer(const struct subject *s, real *out)
{
    norm_layer_forward(out, s->x[0], s->x[1], s->x[2], 1e-3, NORM_ROWS, NORM_N, NULL);
}
static void eval_layer_plain(const struct subject *s, real *out)
{
    norm_layer_forward(out, s->x[0], NULL, NULL, 1e-3, NORM_ROWS, NORM_N, NULL);
}

static void test_norms(void **state)
{
    (void)state;
    const size_t size[] = {NORM_ROWS * NORM_N, NORM_N, NORM_N};
    const real scale[] = {1, 1, 1};
    real *grad[MAX_INPUTS], *weight = noise_new(size[0], 1, 50);
    struct subject s = subject_new(2, size, scale, size[0], eval_rms, NULL);
    grads_new(&s, grad);
    norm_rms_backward(grad[0], grad[1], weight, s.x[0], s.x[1], 1e-3, NORM_ROWS, NORM_N, NULL);
    check_gradients("norm_rms", &s, weight, grad);
    done(&s, grad, NULL);

    s = subject_new(3, size, scale, size[0], eval_layer, NULL);
    grads_new(&s, grad);
    norm_layer_backward(grad[0], grad[1], grad[2], weight, s.x[0], s.x[1], 1e-3, NORM_ROWS, NORM_N, NULL);
    check_gradients("norm_layer", &s, weight, grad);
    done(&s, grad, NULL);

    s = subject_new(1, size, scale, size[0], eval_layer_plain, NULL);
    grads_new(&s, grad);
    norm_layer_backward(grad[0], NULL, NULL, weight, s.x[0], NULL, 1e-3, NORM_ROWS, NORM_N, NULL);
    check_gradients("norm_layer without weights", &s, weight, grad);
    done(&s, grad, weight);
}

/* ---- activations ---- */
enum { COUNT = 300 };
static void eval_fn(const struct subject *s, real *out)
{
    fn_forward(out, s->x[0], *(const enum act_fn *)s->attr, COUNT, NULL);
}
static void eval_glu(const struct subject *s, real *out)
{
    glu_forward(out, s->x[0], s->x[1], *(const enum act_fn *)s->attr, COUNT, NULL);
}

static void test_activations(void **state)
{
    (void)state;
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "relu"};
    const size_t size[] = {COUNT, COUNT};
    const real scale[] = {2, 1};
    for (enum act_fn fn = FN_SILU; fn <= FN_RELU; fn++) {
        real *grad[MAX_INPUTS], *weight = noise_new(COUNT, 1, 50);
        struct subject s = subject_new(1, size, scale, COUNT, eval_fn, &fn);
        for (int i = 0; i < COUNT; i++) /* relu's corner has no derivative: stay away from it */
            s.x[0][i] += s.x[0][i] < 0 ? -0.05 : 0.05;
        grads_new(&s, grad);
        fn_backward(grad[0], weight, s.x[0], fn, COUNT, NULL);
        check_gradients(names[fn], &s, weight, grad);
        done(&s, grad, NULL);

        s = subject_new(2, size, scale, COUNT, eval_glu, &fn);
        for (int i = 0; i < COUNT; i++)
            s.x[0][i] += s.x[0][i] < 0 ? -0.05 : 0.05;
        grads_new(&s, grad);
        glu_backward(grad[0], grad[1], weight, s.x[0], s.x[1], fn, COUNT, NULL);
        check_gradients(names[fn], &s, weight, grad);
        done(&s, grad, weight);
    }
}

/* ---- rope ---- */
enum { ROPE_ROWS = 5, ROPE_HEADS = 3, ROPE_D = 20, ROPE_N_HALF = 8 };
static void rope_cs(real *cs)
{
    real inv_freq[ROPE_N_HALF];
    int32_t pos[ROPE_ROWS] = {0, 3, 1, 900, 17};
    for (int i = 0; i < ROPE_N_HALF; i++)
        inv_freq[i] = fn_pow(10000, -(double)i / ROPE_N_HALF);
    rope_angles(cs, inv_freq, 1.25, pos, ROPE_ROWS, ROPE_N_HALF, NULL);
}
static void eval_rope(const struct subject *s, real *out)
{
    real cs[ROPE_ROWS * ROPE_N_HALF * 2];
    rope_cs(cs);
    memcpy(out, s->x[0], s->size[0] * sizeof *out);
    rope_apply(out, cs, *(const enum rope_style *)s->attr, ROPE_ROWS, ROPE_HEADS, ROPE_D, ROPE_N_HALF, 1, NULL);
}

static void test_rope(void **state)
{
    (void)state;
    const size_t size[] = {ROPE_ROWS * ROPE_HEADS * ROPE_D};
    const real scale[] = {1};
    for (enum rope_style style = ROPE_HALF; style <= ROPE_PAIR; style++) {
        real *grad[MAX_INPUTS], *weight = noise_new(size[0], 1, 50), cs[ROPE_ROWS * ROPE_N_HALF * 2];
        struct subject s = subject_new(1, size, scale, size[0], eval_rope, &style);
        grads_new(&s, grad);
        memcpy(grad[0], weight, size[0] * sizeof *weight);
        rope_cs(cs);
        rope_apply(grad[0], cs, style, ROPE_ROWS, ROPE_HEADS, ROPE_D, ROPE_N_HALF, -1, NULL);
        check_gradients("rope", &s, weight, grad);
        done(&s, grad, weight);
    }
}

/* ---- attention ---- */
struct attend_case {
    struct kv_layout l;
    struct attend_attr attr;
    struct attend_span spans[2];
    int n_span, n_row;
};
static void eval_attend(const struct subject *s, real *out)
{
    const struct attend_case *c = s->attr;
    int n_block = 0;
    struct attend_span spans[2];
    for (int i = 0; i < c->n_span; i++)
        n_block += (c->spans[i].n_row + KV_BLOCK - 1) / KV_BLOCK;
    struct pages p = pages_new(&c->l, n_block * KV_BLOCK, 1);
    for (int i = 0, at = 0; i < c->n_span; i++) {
        spans[i] = c->spans[i];
        spans[i].blocks = p.blocks + at;
        at += (c->spans[i].n_row + KV_BLOCK - 1) / KV_BLOCK;
    }
    kv_write(p.layer, &c->l, s->x[1], s->x[2], spans, c->n_span, NULL);
    attend_forward(out, s->x[0], p.layer, &c->l, &c->attr, spans, c->n_span, NULL);
    pages_free(&p);
}

static void check_attend(const char *name, const struct attend_case *c)
{
    size_t q = (size_t)(c->n_row * c->attr.n_head * c->l.d_head),
           kv = (size_t)(c->n_row * c->l.n_kv_head * c->l.d_head);
    const size_t size[] = {q, kv, kv};
    const real scale[] = {1.5, 1.5, 1};
    real *grad[MAX_INPUTS], *weight = noise_new(q, 1, 50);
    struct subject s = subject_new(3, size, scale, q, eval_attend, c);
    grads_new(&s, grad);
    attend_backward(grad[0], grad[1], grad[2], weight, s.x[0], s.x[1], s.x[2], &c->l, &c->attr, c->spans, c->n_span,
                    NULL);
    check_gradients(name, &s, weight, grad);
    done(&s, grad, weight);
}

static void test_attend(void **state)
{
    (void)state;
    struct attend_case two = {{KV_F32, 2, 20}, {4, 0.2236, 0, 0}, {{0, 9, 0, NULL}, {9, 70, 0, NULL}}, 2, 79};
    check_attend("attend", &two);
    struct attend_case mqa = {{KV_F32, 1, 8}, {5, 0.35, 0, 0}, {{0, 70, 0, NULL}}, 1, 70};
    check_attend("attend 5 heads 1 kv head", &mqa);
    struct attend_case capped = {{KV_F32, 1, 8}, {2, 0.35, 0, 1.5}, {{0, 40, 0, NULL}}, 1, 40};
    check_attend("attend soft cap", &capped);
    struct attend_case window = {{KV_F32, 1, 4}, {1, 0.5, 20, 0}, {{0, 300, 0, NULL}}, 1, 300};
    check_attend("attend window", &window);
}

/* ---- routing and loss ---- */
enum { MOE_ROWS = 6, MOE_N = 9, MOE_USED = 3 };
static int32_t moe_fixed[MOE_ROWS * MOE_USED];
static void eval_moe(const struct subject *s, real *out)
{
    real probs[MOE_ROWS * MOE_N];
    int32_t experts[MOE_ROWS * MOE_USED];
    moe_route(experts, out, probs, s->x[0], s->attr, MOE_ROWS, NULL);
    assert_memory_equal(experts, moe_fixed, sizeof experts); /* the test's routing must not change */
}

static void test_moe(void **state)
{
    (void)state;
    const size_t size[] = {MOE_ROWS * MOE_N};
    const real scale[] = {2};
    for (int normalize = 0; normalize < 2; normalize++) {
        struct moe_attr attr = {MOE_N, MOE_USED, normalize, 1.5};
        real *grad[MAX_INPUTS], *weight = noise_new(MOE_ROWS * MOE_USED, 1, 50);
        real w[MOE_ROWS * MOE_USED], probs[MOE_ROWS * MOE_N];
        struct subject s = subject_new(1, size, scale, MOE_ROWS * MOE_USED, eval_moe, &attr);
        grads_new(&s, grad);
        moe_route(moe_fixed, w, probs, s.x[0], &attr, MOE_ROWS, NULL);
        moe_route_backward(grad[0], weight, moe_fixed, probs, &attr, MOE_ROWS, NULL);
        check_gradients("moe_route", &s, weight, grad);
        done(&s, grad, weight);
    }
}

enum { LOSS_ROWS = 3, LOSS_N = 5000 };
static const int32_t targets[LOSS_ROWS] = {4999, -1, 17};
static void eval_loss(const struct subject *s, real *out)
{
    cross_entropy(out, NULL, s->x[0], targets, 1, LOSS_ROWS, LOSS_N, NULL);
}

static void test_loss(void **state)
{
    (void)state;
    const size_t size[] = {LOSS_ROWS * LOSS_N};
    const real scale[] = {2};
    real *grad[MAX_INPUTS], *weight = zeros_new(LOSS_ROWS), loss[LOSS_ROWS];
    struct subject s = subject_new(1, size, scale, LOSS_ROWS, eval_loss, NULL);
    for (int i = 0; i < LOSS_ROWS; i++)
        weight[i] = 0.25;
    grads_new(&s, grad);
    cross_entropy(loss, grad[0], s.x[0], targets, 0.25, LOSS_ROWS, LOSS_N, NULL);
    check_gradients("cross_entropy", &s, weight, grad);
    done(&s, grad, weight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms),  cmocka_unit_test(test_activations), cmocka_unit_test(test_rope),
        cmocka_unit_test(test_attend), cmocka_unit_test(test_moe),         cmocka_unit_test(test_loss),
    };
    return RUN(tests);
}
