/* A product's bits do not depend on how many rows share a call, on chunks, threads or items; and the tests that say so
 * can fail: each is run on a mutant that breaks its rule. */
#include "check_linear.h"
#include "kernels/kquant.h"

#include "kernels/block32.h"

/* ---- one product, cut in different ways ---- */
struct cut {
    int64_t chunk; /* rows a call */
    int n_thread;  /* 0: no pool */
};
#ifdef __SANITIZE_THREAD__ /* looks for races: those with threads, beside the first */
static const struct cut cuts[] = {{17, 0}, {17, 2}, {1, 2}, {3, 4}};
#else
static const struct cut cuts[] = {{17, 0}, {1, 0}, {2, 0}, {5, 0}, {16, 0}, {17, 1}, {17, 2}, {1, 2}, {9, 2}, {3, 4}};
#endif
enum { CUTS = sizeof cuts / sizeof cuts[0] };

/* 17 rows through one weight, `chunk` rows a call. */
static struct sink product(enum dtype t, bool exact, const struct cut *cut)
{
    enum { ROWS = 17, N_OUT = 260 };
    const int64_t n_in = dtype_row(t)->block > BLOCK ? 2 * dtype_row(t)->block : 160;
    struct error err;
    struct pool *pool = NULL;
    if (cut->n_thread)
        OK(pool_create(&pool, cut->n_thread, &err));
    uint64_t state = 5;
    void *rows = random_rows(&state, t, N_OUT * n_in);
    struct weight w = packed(rows, t, N_OUT, n_in, pool);
    w.exact = exact;
    real *x = random_reals(&state, ROWS * n_in), *out = grab(ROWS * N_OUT * sizeof *out);
    real *bias = random_reals(&state, N_OUT);
    for (int64_t r = 0; r < ROWS; r += cut->chunk) {
        int64_t n = ROWS - r < cut->chunk ? ROWS - r : cut->chunk;
        run_linear(out + r * N_OUT, x + r * n_in, n, &w, bias, pool);
    }
    struct sink s = {0};
    sink_reals(&s, out, ROWS * N_OUT);
    free(rows), free(w.panels), free(x), free(out), free(bias);
    pool_destroy(pool);
    return s;
}

/* How many cuts give other bits than the first. */
static int cuts_that_differ(enum dtype t, bool exact)
{
    struct sink whole = product(t, exact, &cuts[0]);
    int differ = 0;
    for (int i = 1; i < CUTS; i++) {
        struct sink s = product(t, exact, &cuts[i]);
        differ += !sink_equal(&whole, &s);
        sink_free(&s);
    }
    sink_free(&whole);
    return differ;
}

/* Items of other panels run at the same time: an item writes its own panels and rows, and nothing else. */
static void check_one_item(enum dtype t)
{
    enum { ROWS = 40, N_OUT = 100, ROW0 = 0, PANEL0 = 1, PANEL1 = 4 };
    const int64_t n_in = dtype_row(t)->block > BLOCK ? dtype_row(t)->block : 64;
    uint64_t state = 9;
    void *rows = random_rows(&state, t, N_OUT * n_in);
    struct weight w = packed(rows, t, N_OUT, n_in, NULL);
    real *x = random_reals(&state, ROWS * n_in), *out = grab(ROWS * N_OUT * sizeof *out);
    static const int64_t counts[] = {1, 3, 12, ROWS};
    for (int c = 0; c < 4; c++) {
        int64_t n = counts[c];
        struct act a;
        void *storage = grab(act_bytes(weight_act(&w), n, n_in) + 64);
        act_prepare(&a, weight_act(&w), storage, x, n, n_in, NULL);
        for (int i = 0; i < ROWS * N_OUT; i++)
            out[i] = 12345;
        struct linear_job job = {out, &a, &w, NULL, N_OUT};
        (*panel_type(w.type)->forward)(&job, ROW0, n, PANEL0, PANEL1);
        for (int i = 0; i < ROWS * N_OUT; i++) {
            bool mine = i / N_OUT < n && i % N_OUT >= PANEL0 * LANES && i % N_OUT < PANEL1 * LANES;
            if ((out[i] == 12345) == mine)
                fail_msg("%s, %s, %d rows: row %d, output %d is %s", kernels_isa(), dtype_row(t)->name, (int)n,
                         i / N_OUT, i % N_OUT, mine ? "missing" : "another item's");
        }
        free(storage);
    }
    free(rows), free(w.panels), free(x), free(out);
}

static void test_an_item_writes_its_own_panels(void **unused)
{
    (void)unused;
    struct error err;
    for (int set = 0; kernels_isa_list(set); set++) {
        if (!kernels_isa_available(kernels_isa_list(set)))
            continue;
        OK(kernels_init(kernels_isa_list(set), &err));
        for (int i = 0; i < PANEL_TYPES; i++)
            check_one_item(panel_types[i]);
    }
    OK(kernels_init(NULL, &err));
}

static void test_cutting_changes_no_bit(void **unused)
{
    (void)unused;
    struct error err;
    int count = 0;
    for (int set = 0; kernels_isa_list(set); set++) {
        if (!kernels_isa_available(kernels_isa_list(set)))
            continue;
        OK(kernels_init(kernels_isa_list(set), &err));
        for (int i = 0; i < PANEL_TYPES; i++)
            for (int exact = 0; exact < 2; exact++) {
                if (cuts_that_differ(panel_types[i], exact))
                    fail_msg("%s%s on %s: bits depend on the cut", dtype_row(panel_types[i])->name,
                             exact ? " exact" : "", kernels_isa());
                count += CUTS - 1;
            }
    }
    print_message("%s: %d cuts equal\n", kernels_cpu_name(), count);
}

/* ---- mutants: a scalar product with one rule broken ---- */
enum mutation { FAITHFUL, UNFUSED, REORDERED, SCALES_APART, MINIMA_APART };

/* The f32 steps of a block. */
static real mutant_scaled(real acc, int32_t sum, float d, float s, enum mutation mutation)
{
    if (mutation == UNFUSED)
        return acc + (real)sum * (d * s);
    return mutation == SCALES_APART ? FMA((real)sum * d, s, acc) : FMA((real)sum, d * s, acc);
}
static real mutant_min(real acc, int32_t sum, float m, float s, enum mutation mutation)
{
    return mutation == MINIMA_APART ? FMA(m * s, (real)sum, acc) : FMA(m, s * (float)sum, acc);
}

static void mutant_block(real *acc, const struct linear_job *job, int64_t row, int64_t n, int64_t b,
                         enum mutation mutation)
{
    const struct weight *w = job->w;
    struct act_int8 a = act_int8_row(job->x, row);
    const char *base = panel_at(w, n / LANES);
    int lane = (int)(n % LANES);
    int32_t sum = 0;
    for (int k = 0; k < BLOCK; k++)
        sum += block32_level(w->type, base, b, lane, k) * a.q[b * a.rows * BLOCK + k];
    float s = a.scale[b * a.rows];
    *acc = mutant_scaled(*acc, sum, block32_scale(w->type, base, b, lane), s, mutation);
    if (block32_has_min(w->type))
        *acc = mutant_min(*acc, -a.minus[b * a.rows], block32_min(w->type, base, b, lane), s, mutation);
}

/* Superblocks; what the mutations change is the same. */
static void mutant_kquant(real *acc, const struct linear_job *job, int64_t row, int64_t n, int64_t b,
                          enum mutation mutation)
{
    const enum dtype t = job->w->type;
    const struct act_int8 a = act_int8_row(job->x, row);
    const int lane = (int)(n % LANES), in_super = (int)(b % SUPER_BLOCKS);
    const uint8_t *panel = panel_at(job->w, n / LANES), *super = panel + b / SUPER_BLOCKS * kq_super_bytes(t);
    const int8_t *q = a.q + b * a.rows * BLOCK;
    int32_t sum = 0, min = 0;
    struct kq_scale scale = {0, 0};
    for (int k = 0; k < BLOCK; k++) {
        int level = kq_value(t, super + kq_blocks_at(t) + in_super * kq_block_bytes(t), lane, k);
        scale = kq_scale(t, super + kq_scales_at(t), lane, in_super, kq_has_halves(t) ? k / 16 : 0);
        sum += (kq_has_halves(t) ? scale.scale : 1) * level * q[k];
        min -= (kq_has_halves(t) ? scale.min : 1) * q[k];
    }
    float s = a.scale[b * a.rows], d = half_at((const char *)super, lane);
    float m = half_at((const char *)super, LANES + lane);
    *acc = mutant_scaled(*acc, sum, kq_has_halves(t) ? d : d * (float)scale.scale, s, mutation);
    if (t == DT_Q2_K)
        *acc = mutant_min(*acc, min, m, s, mutation == MINIMA_APART ? FAITHFUL : MINIMA_APART);
    else if (kq_has_min(t))
        *acc = mutant_min(*acc, min, m * (float)scale.min, s, mutation);
}

static void mutant_step(real *acc, const struct linear_job *job, int64_t row, int64_t n, int64_t k,
                        enum mutation mutation)
{
    real w, x;
    panel_widen_lane(&w, 1, job->w, n / LANES, (int)(n % LANES), k, k + 1);
    if (job->x->type == ACT_BF16)
        x = bf16_to_f32(((const uint16_t *)((char *)job->x->storage + (size_t)row * act_row_bytes(job->w->n_in)))[k]);
    else
        x = job->x->x[row * job->w->n_in + k];
    *acc = mutation == UNFUSED ? *acc + w * x : FMA(w, x, *acc);
}

static void mutant(const struct linear_job *job, int64_t row, int64_t n, enum mutation mutation)
{
    real acc = 0;
    bool blocks = dtype_is_block(job->w->type) && !job->w->exact, pairs = job->x->type == ACT_BF16;
    int64_t count = blocks ? job->w->n_in / BLOCK : job->w->n_in;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = mutation != REORDERED ? i : pairs ? i ^ 1 : count - 1 - i; /* pairs: the even element first */
        if (blocks)
            (dtype_row(job->w->type)->block > BLOCK ? mutant_kquant : mutant_block)(&acc, job, row, n, at, mutation);
        else if (pairs && mutation == UNFUSED) { /* products of bf16 are exact in f32, so add a pair before the sum */
            real pair = 0;
            mutant_step(&pair, job, row, n, i + 1, FAITHFUL);
            mutant_step(&pair, job, row, n, i++, FAITHFUL);
            acc += pair;
        } else
            mutant_step(&acc, job, row, n, pairs ? at ^ 1 : at, mutation);
    }
    job->out[row * job->stride + n] = job->bias ? acc + job->bias[n] : acc;
}

static void mutate_all(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1,
                       enum mutation mutation)
{
    for (int64_t r = row0; r < row1; r++)
        for (int64_t n = panel0 * LANES; n < panel1 * LANES && n < job->w->n_out; n++)
            mutant(job, r, n, mutation);
}

static void faithful(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1, FAITHFUL);
}
static void unfused(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1, UNFUSED);
}
static void reordered(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1, REORDERED);
}
static void scales_apart(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1, SCALES_APART);
}
static void minima_apart(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1, MINIMA_APART);
}
/* The steps depend on what shares the call: on rows, or on the panels of an item (and so on threads). */
static void by_rows(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1, job->x->n_row > 1 ? UNFUSED : FAITHFUL);
}
static void by_panels(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    mutate_all(job, row0, row1, panel0, panel1,
               panel1 - panel0 == ITEM_PANELS_INT8 || panel1 - panel0 == ITEM_PANELS ? UNFUSED : FAITHFUL);
}

static void put_everywhere(linear_fn *fn)
{
    kernels.linear_exact = fn;
    for (int i = 0; i < PANEL_TYPES; i++)
        *panel_type(panel_types[i])->forward = fn;
}

static void test_ref_comparison_catches_mutants(void **unused)
{
    (void)unused;
    struct error err;
    int caught = 0;
    for (int i = 0; i < 2 * PANEL_TYPES; i++) {
        enum dtype t = panel_types[i / 2];
        bool exact = i % 2;
        OK(kernels_init("ref", &err));
        struct sink ref = product(t, exact, &cuts[0]);
        linear_fn *const fns[] = {faithful, unfused, reordered, scales_apart, minima_apart};
        bool two_scales = dtype_is_block(t) && !exact && t != DT_MXFP4; /* a power of two may stand anywhere */
        bool minima = !exact && (block32_has_min(t) || kq_has_min(t));
        for (int m = 0; m < (minima ? 5 : two_scales ? 4 : 3); m++) {
            put_everywhere(fns[m]);
            struct sink s = product(t, exact, &cuts[0]);
            if (sink_equal(&ref, &s) != (m == 0))
                fail_msg("%s%s: mutant %d was %s", dtype_row(t)->name, exact ? " exact" : "", m,
                         m ? "not caught" : "not faithful");
            caught += m > 0;
            sink_free(&s);
        }
        sink_free(&ref);
    }
    print_message("%d mutants caught\n", caught);
}

static void test_cut_comparison_catches_mutants(void **unused)
{
    (void)unused;
    for (int i = 0; i < PANEL_TYPES; i++) {
        put_everywhere(by_rows);
        assert_int_not_equal(cuts_that_differ(panel_types[i], false), 0);
        put_everywhere(by_panels);
        assert_int_not_equal(cuts_that_differ(panel_types[i], false), 0);
        put_everywhere(faithful);
        assert_int_equal(cuts_that_differ(panel_types[i], false), 0);
    }
}

/* ---- values: a rounded product against the stored numbers in double ---- */
/* How many outputs of row i of the weight are farther from the product with row i + shift than the activations'
 * rounding (half a step of amax / 127 a block) and f32 sums allow. */
static int far_products(enum dtype t, int shift)
{
    enum { ROWS = 3, N_OUT = 37, N_IN = 512 };
    uint64_t state = 31;
    void *rows = random_rows(&state, t, N_OUT * N_IN);
    struct weight w = packed(rows, t, N_OUT, N_IN, NULL);
    real *x = random_reals(&state, ROWS * N_IN), out[ROWS * N_OUT], row[N_IN];
    int far = 0;
    run_linear(out, x, ROWS, &w, NULL, NULL);
    for (int i = 0; i < ROWS * N_OUT; i++) {
        const real *a = x + i / N_OUT * N_IN;
        double sum = 0, size = 0, bound = 0;
        weight_get_row(row, &w, (i % N_OUT + shift) % N_OUT);
        for (int b = 0; b < N_IN; b += BLOCK) {
            double top = 0, of_block = 0;
            for (int k = b; k < b + BLOCK; k++) {
                sum += (double)row[k] * a[k], size += fabs((double)row[k] * a[k]), of_block += fabs((double)row[k]);
                top = fabs(a[k]) > top ? fabs(a[k]) : top;
            }
            bound += top / 254 * of_block;
        }
        far += !(fabs(out[i] - sum) <= 1.001 * bound + 1e-5 * size);
    }
    free(rows), free(w.panels), free(x);
    return far;
}

static void test_products_are_near_those_of_the_stored_numbers(void **unused)
{
    (void)unused;
    struct error err;
    OK(kernels_init("ref", &err));
    for (int i = 0; i < PANEL_TYPES; i++)
        if (panel_type(panel_types[i])->act == ACT_INT8 && panel_types[i] != DT_MXFP4) { /* its blocks: 2^123 apart */
            assert_int_equal(far_products(panel_types[i], 0), 0);
            assert_int_not_equal(far_products(panel_types[i], 1), 0); /* other rows are farther */
        }
}

/* ---- packing and gathering ---- */
static void check_gather(enum dtype t, enum dtype kept)
{
    enum { N_OUT = 37, N_IN = 256 };
    uint64_t state = 11;
    const struct dtype_row *d = dtype_row(t);
    size_t row_bytes = (size_t)(N_IN / d->block * d->bytes);
    uint8_t *rows = random_rows(&state, t, N_OUT * N_IN);
    int32_t order[N_OUT];
    for (int i = 0; i < N_OUT; i++)
        order[i] = (i * 5 + 3) % N_OUT;
    struct weight w = {.type = kept, .n_out = N_OUT, .n_in = N_IN, .bytes = weight_bytes(kept, N_OUT, N_IN)};
    w.panels = grab(w.bytes);
    weight_pack(&w, rows, t, order, NULL);
    for (int i = 0; i < N_OUT; i++) {
        float expected[N_IN];
        real got[N_IN];
        dtype_to_f32(expected, t, rows + (size_t)order[i] * row_bytes, N_IN);
        weight_get_row(got, &w, i);
        for (int k = 0; k < N_IN; k++)
            if (!(got[k] == (real)expected[k] || (got[k] != got[k] && expected[k] != expected[k])))
                fail_msg("%s as %s: row %d, k %d: %g, expected %g", d->name, dtype_row(kept)->name, i, k,
                         (double)got[k], (double)expected[k]);
    }
    free(rows), free(w.panels);
}

static void test_rows_come_back_as_they_were(void **unused)
{
    (void)unused;
    for (int t = 0; t < DT_COUNT; t++)
        if (dtype_is_block(t) || t <= DT_BF16) {
            check_gather(t, weight_type(t));
            check_gather(t, DT_F32);
        }
}

static void test_embedding(void **unused)
{
    (void)unused;
    enum { N = 40, VOCAB = 19, ROWS = 6 };
    uint64_t state = 3;
    void *rows = random_rows(&state, DT_F32, VOCAB * N);
    struct weight w = packed(rows, DT_F32, VOCAB, N, NULL);
    real *out = grab(ROWS * N * sizeof *out), got[N];
    weight_get_row(got, &w, 17);
    assert_memory_equal(got, (const real *)rows + 17 * N, sizeof got);
    const int32_t ids[ROWS] = {17, 0, 3, 17, 18, 3};
    embed_forward(out, &w, ids, ROWS, NULL);
    for (int r = 0; r < ROWS; r++) {
        weight_get_row(got, &w, ids[r]);
        assert_memory_equal(got, out + r * N, sizeof got);
    }
    real *dw = grab(w.bytes), sum[N];
    memset(dw, 0, w.bytes);
    embed_backward(dw, out, ids, ROWS, VOCAB, N, NULL);
    for (int k = 0; k < N; k++)
        sum[k] = out[2 * N + k] + out[5 * N + k];
    struct weight grad = {.type = DT_F32, .n_out = VOCAB, .n_in = N, .panels = dw, .panel_bytes = w.panel_bytes};
    weight_get_row(got, &grad, 3);
    assert_memory_equal(got, sum, sizeof got);
    weight_get_row(got, &grad, 5);
    for (int k = 0; k < N; k++)
        assert_true(got[k] == 0);
    free(rows), free(w.panels), free(out), free(dw);
}

/* ---- backward ---- */
static void test_backward_does_not_depend_on_threads(void **unused)
{
    (void)unused;
    struct error err;
    OK(kernels_init(NULL, &err));
    for (int weights = 0; weights < 2; weights++) {
        struct sink alone = {0};
        weights ? check_linear_weight(&alone, NULL) : check_linear_input(&alone, NULL);
        for (int n_thread = 1; n_thread <= 2; n_thread++) {
            struct pool *pool = NULL;
            struct sink s = {0};
            OK(pool_create(&pool, n_thread, &err));
            weights ? check_linear_weight(&s, pool) : check_linear_input(&s, pool);
            assert_true(sink_equal(&alone, &s));
            sink_free(&s);
            pool_destroy(pool);
        }
        sink_free(&alone);
    }
}

static void test_splitting_a_batch_changes_no_weight_gradient(void **unused)
{
    (void)unused;
    enum { ROWS = 150, N_OUT = 40, N_IN = 30, COUNT = 48 * N_IN };
    uint64_t state = 21;
    real *dy = random_reals(&state, ROWS * N_OUT), *x = random_reals(&state, ROWS * N_IN);
    real whole[COUNT] = {0}, parts[COUNT] = {0}, backwards[COUNT] = {0};
    linear_backward_weight(whole, dy, x, ROWS, N_OUT, N_IN, NULL);
    for (int r = 0; r < ROWS; r += 50)
        linear_backward_weight(parts, dy + r * N_OUT, x + r * N_IN, 50, N_OUT, N_IN, NULL);
    assert_memory_equal(whole, parts, sizeof whole);
    for (int r = 100; r >= 0; r -= 50) /* the mutant: another order of tokens */
        linear_backward_weight(backwards, dy + r * N_OUT, x + r * N_IN, 50, N_OUT, N_IN, NULL);
    assert_memory_not_equal(whole, backwards, sizeof whole);
    free(dy), free(x);
}

/* One fused step taken apart, or lanes added left to right, must be seen by the comparison with ref. */
static void input_mutant(const struct linear_input_job *job, int64_t row0, int64_t row1, int64_t k0, int64_t k1,
                         bool in_line)
{
    int64_t n_out = job->w->n_out, n_in = job->w->n_in;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t k = k0; k < k1; k++) {
            real lane[LANES] = {0}, line = 0;
            for (int64_t n = 0; n < n_out; n++) {
                real w = ((const real *)panel_at(job->w, n / LANES))[k * LANES + n % LANES], y = job->dy[r * n_out + n];
                line = FMA(y, w, line);
                lane[n % LANES] += y * w;
            }
            real sum = in_line ? line : lanes_sum(lane);
            job->dx[r * n_in + k] = job->accumulate ? job->dx[r * n_in + k] + sum : sum;
        }
}
static void input_unfused(const struct linear_input_job *job, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    input_mutant(job, row0, row1, k0, k1, false);
}
static void input_in_line(const struct linear_input_job *job, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    input_mutant(job, row0, row1, k0, k1, true);
}
static void weight_unfused(const struct linear_weight_job *job, int64_t panel0, int64_t panel1, int64_t k0, int64_t k1)
{
    for (int64_t n = panel0 * LANES; n < panel1 * LANES && n < job->n_out; n++)
        for (int64_t k = k0; k < k1; k++)
            for (int64_t t = 0; t < job->n_row; t++)
                job->dw[(n / LANES * job->n_in + k) * LANES + n % LANES] +=
                    job->dy[t * job->n_out + n] * job->x[t * job->n_in + k];
}

static void test_backward_comparison_catches_mutants(void **unused)
{
    (void)unused;
    struct error err;
    OK(kernels_init("ref", &err));
    struct sink input = {0}, weight = {0}, a = {0}, b = {0}, c = {0};
    check_linear_input(&input, NULL);
    check_linear_weight(&weight, NULL);
    kernels.linear_input = input_unfused;
    check_linear_input(&a, NULL);
    assert_false(sink_equal(&input, &a));
    kernels.linear_input = input_in_line;
    check_linear_input(&b, NULL);
    assert_false(sink_equal(&input, &b));
    kernels.linear_weight = weight_unfused;
    check_linear_weight(&c, NULL);
    assert_false(sink_equal(&weight, &c));
    sink_free(&input), sink_free(&weight), sink_free(&a), sink_free(&b), sink_free(&c);
}

static void test_bias_gradient(void **unused)
{
    (void)unused;
    enum { ROWS = 9, N = 21 };
    uint64_t state = 2;
    real *dy = random_reals(&state, ROWS * N), db[N], expected[N];
    for (int n = 0; n < N; n++) {
        db[n] = expected[n] = 1;
        for (int r = 0; r < ROWS; r++)
            expected[n] += dy[r * N + n];
    }
    linear_backward_bias(db, dy, ROWS, N, NULL);
    assert_memory_equal(db, expected, sizeof db);
    free(dy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cutting_changes_no_bit),
        cmocka_unit_test(test_an_item_writes_its_own_panels),
        cmocka_unit_test(test_ref_comparison_catches_mutants),
        cmocka_unit_test(test_cut_comparison_catches_mutants),
        cmocka_unit_test(test_products_are_near_those_of_the_stored_numbers),
        cmocka_unit_test(test_rows_come_back_as_they_were),
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_backward_does_not_depend_on_threads),
        cmocka_unit_test(test_splitting_a_batch_changes_no_weight_gradient),
        cmocka_unit_test(test_backward_comparison_catches_mutants),
        cmocka_unit_test(test_bias_gradient),
    };
    return RUN(tests);
}
