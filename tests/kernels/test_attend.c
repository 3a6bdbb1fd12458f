/* Attention: against a naive softmax in double, and the same bits for every chunking, batch and thread count. */
#include "check_ops.h"

/* ---- a naive twin in double, from keys and values rounded as the KV type says ---- */
static void round_rows(double *out, const real *x, int64_t n_vector, int d, enum kv_type type)
{
    for (int64_t r = 0; r < n_vector; r++)
        for (int b = 0; b < d; b += 32) {
            int end = b + 32 < d ? b + 32 : d;
            float amax = 0;
            for (int i = b; i < end; i++)
                amax = fmaxf(amax, fabsf(x[r * d + i]));
            for (int i = b; i < end; i++) {
                float v = x[r * d + i];
                if (type == KV_F16)
                    v = f16_to_f32(f32_to_f16(v));
                else if (type == KV_INT8)
                    v = rintf(v * (127.0f / amax)) * (amax / 127.0f);
                out[r * d + i] = (double)v;
            }
        }
}

static void naive(double *out, const real *q, const double *k, const double *v, const struct attend_shape *shape, int n)
{
    int d = shape->d_head, group = shape->n_head / shape->n_kv_head;
    for (int row = 0; row < n; row++)
        for (int h = 0; h < shape->n_head; h++) {
            double p[512], sum = 0;
            const real *qh = q + (int64_t)(row * shape->n_head + h) * d;
            double *oh = out + (int64_t)(row * shape->n_head + h) * d;
            int first = shape->window && row >= shape->window ? row - shape->window + 1 : 0;
            int last = shape->both_ways ? n - 1 : row;
            for (int i = 0; i < d; i++)
                oh[i] = 0;
            for (int t = first; t <= last; t++) {
                const double *kt = k + (int64_t)(t * shape->n_kv_head + h / group) * d;
                double s = 0;
                for (int i = 0; i < d; i++)
                    s += (double)qh[i] * kt[i];
                s /= sqrt(d);
                sum += p[t] =
                    exp(shape->soft_cap > 0 ? (double)shape->soft_cap * tanh(s / (double)shape->soft_cap) : s);
            }
            for (int t = first; t <= last; t++)
                for (int i = 0; i < d; i++)
                    oh[i] += p[t] / sum * v[(int64_t)(t * shape->n_kv_head + h / group) * d + i];
        }
}

static void on_every_set(void (*test)(void *ctx), void *ctx)
{
    struct error err;
    for (int i = 0; kernels_isa_list(i); i++)
        if (kernels_isa_available(kernels_isa_list(i))) {
            OK(kernels_init(kernels_isa_list(i), &err));
            test(ctx);
        }
}

struct naive_case {
    const struct attend_shape *shape;
    enum kv_type type;
    const double *expected;
};
static void equals_naive(void *ctx)
{
    const struct naive_case *c = ctx;
    if (strcmp(kernels_isa(), "ref") == 0 && (c->shape - attend_shapes) % 4 != 1) /* slow, and the others equal it */
        return;
    int64_t n = (int64_t)ATTEND_ROWS * c->shape->n_head * c->shape->d_head;
    real *got = zeros_new((size_t)n);
    double worst = 0;
    attend_chunked(got, c->shape, c->type, 330, false, NULL);
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        worst = fmax(worst, fabs((double)got[i] - c->expected[i]));
    }
    if (!(worst < 1e-5))
        fail_msg("%s: %d/%d heads of %d, KV type %d: off by %g", kernels_isa(), c->shape->n_head, c->shape->n_kv_head,
                 c->shape->d_head, c->type, worst);
    free(got);
}

/* attend_chunked's inputs and layout of rows; its pages hold stale NaN wherever nothing was written. */
static void check_naive(const struct attend_shape *shape, enum kv_type type)
{
    int64_t q_row = (int64_t)shape->n_head * shape->d_head, kv_row = (int64_t)shape->n_kv_head * shape->d_head;
    real *q = ops_input(ATTEND_ROWS * q_row, 1.5f, 1, false), *k = ops_input(ATTEND_ROWS * kv_row, 1.5f, 2, false);
    real *v = ops_input(ATTEND_ROWS * kv_row, 1, 3, false);
    double *kd = calloc((size_t)(ATTEND_ROWS * kv_row), sizeof *kd),
           *vd = calloc((size_t)(ATTEND_ROWS * kv_row), sizeof *vd);
    double *expected = calloc((size_t)(ATTEND_ROWS * q_row), sizeof *expected);
    assert_true(kd && vd && expected);
    round_rows(kd, k, (int64_t)ATTEND_ROWS * shape->n_kv_head, shape->d_head, type);
    round_rows(vd, v, (int64_t)ATTEND_ROWS * shape->n_kv_head, shape->d_head, type);
    for (int i = 0, at = 0; i < SEQUENCES; at += attend_lengths[i++])
        naive(expected + at * q_row, q + at * q_row, kd + at * kv_row, vd + at * kv_row, shape, attend_lengths[i]);
    on_every_set(equals_naive, &(struct naive_case){shape, type, expected});
    free(q), free(k), free(v), free(kd), free(vd), free(expected);
}

static void test_attend_equals_naive_softmax(void **state)
{
    (void)state;
    for (int i = 0; i < ATTEND_SHAPES; i++)
        for (enum kv_type type = KV_F32; type <= KV_INT8; type++)
            if (i < 3 || i % 3 == (int)type)
                check_naive(&attend_shapes[i], type);
}

/* ---- bits ---- */
static int chunkings_compared;
static void chunks_are_equal(void *ctx)
{
    (void)ctx;
    static const int chunks[] = {1, 2, 17, 64, 100, 256};
    struct error err;
    struct pool *pool;
    bool slow = strcmp(kernels_isa(), "ref") == 0;
    OK(pool_create(&pool, 2, &err));
    for (int i = 0; i < ATTEND_CAUSAL; i += slow ? 5 : 1)
        for (enum kv_type type = KV_F32; type <= KV_INT8; type++) {
            if (i >= 3 && i % 3 != (int)type)
                continue;
            size_t n = (size_t)(ATTEND_ROWS * attend_shapes[i].n_head * attend_shapes[i].d_head);
            real *whole = zeros_new(n), *part = zeros_new(n);
            attend_chunked(whole, &attend_shapes[i], type, 330, false, NULL);
            for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++) {
                attend_chunked(part, &attend_shapes[i], type, chunks[c], false, c % 2 ? pool : NULL);
                if (!same_bits(whole, part, n))
                    fail_msg("%s: shape %d, KV type %d: chunks of %d differ from the whole", kernels_isa(), i, type,
                             chunks[c]);
                chunkings_compared++;
            }
            free(whole), free(part);
        }
    pool_destroy(pool);
}
static void test_attend_chunks_and_threads_have_equal_bits(void **state)
{
    (void)state;
    chunkings_compared = 0;
    on_every_set(chunks_are_equal, NULL);
    print_message("%d chunked runs equal the whole\n", chunkings_compared);
}

/* The mistake the comparison of chunkings is for: decoding that differs from prefilling by one rounding. */
static void attend_mutant(const struct attend_job *job, const struct attend_span *span, int row0, int row1, int kv_head)
{
    struct attend_attr attr = *job->attr;
    attr.scale *= span->n_row == 1 ? 1.0000001f : 1;
    struct attend_job mutated = *job;
    mutated.attr = &attr;
    attend__ref(&mutated, span, row0, row1, kv_head);
}
static void test_chunk_comparison_can_fail(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init("ref", &err));
    size_t n = (size_t)(ATTEND_ROWS * attend_shapes[1].n_head * attend_shapes[1].d_head);
    real *whole = zeros_new(n), *part = zeros_new(n);
    kernels.attend = attend_mutant;
    attend_chunked(whole, &attend_shapes[1], KV_F32, 330, false, NULL);
    attend_chunked(part, &attend_shapes[1], KV_F32, 1, false, NULL);
    assert_false(same_bits(whole, part, n));
    OK(kernels_init("ref", &err));
    free(whole), free(part);
}

/* ---- every operation: threads ---- */
typedef void check_fn(struct sink *s, struct pool *pool);
static const struct {
    const char *op;
    check_fn *check;
} checks[] = {
#define OPERATION(op)                                                                                                  \
    {                                                                                                                  \
#op, check_##op                                                                                                \
    }
    OPERATION(norm_rms),       OPERATION(norm_layer), OPERATION(norm_rms_dx), OPERATION(norm_layer_dx),
    OPERATION(rope_turn),      OPERATION(map_fn),     OPERATION(map_fn_back), OPERATION(map_glu),
    OPERATION(map_glu_back),   OPERATION(map_add),    OPERATION(kv_store),    OPERATION(attend),
    OPERATION(attend_back),    OPERATION(lse_rows),   OPERATION(loss_rows),   OPERATION(adamw_range),
    OPERATION(squares_chunks),
};

static void test_threads_have_equal_bits(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    for (int threads = 2; threads <= 3; threads++) {
        struct pool *pool;
        OK(pool_create(&pool, threads, &err));
        for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
            struct sink one = {0}, many = {0};
            checks[i].check(&one, NULL);
            checks[i].check(&many, pool);
            if (!sink_equal(&one, &many))
                fail_msg("%s: %d threads differ from one", checks[i].op, threads);
            sink_free(&one), sink_free(&many);
        }
        pool_destroy(pool);
    }
}

/* Many spans in one batch, some rows in none: each row's result is that of its sequence alone. */
static void test_rows_without_a_span_are_left_alone(void **state)
{
    (void)state;
    struct error err;
    OK(kernels_init(NULL, &err));
    struct kv_layout l = {KV_F32, 1, 16};
    struct attend_attr attr = {1, 0.25f, 0, 0};
    struct pages p = pages_new(&l, 64, 2);
    real *q = ops_input(5 * 16, 1, 1, false), out[5 * 16];
    struct attend_span spans[2] = {{1, 1, 0, p.blocks}, {3, 2, 0, p.blocks + 1}};
    for (int i = 0; i < 5 * 16; i++)
        out[i] = 7;
    kv_write(p.layer, &l, q, q, spans, 2, NULL);
    attend_forward(out, q, p.layer, &l, &attr, spans, 2, NULL);
    for (int i = 0; i < 16; i++) {
        assert_true(out[i] == 7 && out[2 * 16 + i] == 7);
        assert_true(out[16 + i] == q[16 + i] && out[3 * 16 + i] == q[3 * 16 + i]); /* one key: its value */
    }
    attend_forward(out, q, p.layer, &l, &attr, spans, 0, NULL);
    pages_free(&p);
    free(q);
}

static void test_segments_shared_out_give_the_same_bits(void **state)
{
    (void)state;
    struct error err;
    const char *const sets[] = {"ref", NULL};
    for (int i = 0; i < 2; i++) {
        struct sink s = {0};
        OK(kernels_init(sets[i], &err));
        check_attend_shapes_in_segments(&s, true);
        assert_true(s.n > 0);
        sink_free(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attend_equals_naive_softmax),
        cmocka_unit_test(test_attend_chunks_and_threads_have_equal_bits),
        cmocka_unit_test(test_segments_shared_out_give_the_same_bits),
        cmocka_unit_test(test_chunk_comparison_can_fail),
        cmocka_unit_test(test_threads_have_equal_bits),
        cmocka_unit_test(test_rows_without_a_span_are_left_alone),
    };
    return RUN(tests);
}
