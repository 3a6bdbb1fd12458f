/* check_ops - inputs of every operation that is no linear product: odd sizes, NaN and Inf, every KV type and shape */
#ifndef TESTS_KERNELS_CHECK_OPS_H
#define TESTS_KERNELS_CHECK_OPS_H

#include <math.h>

#include "check.h"
#include "ops.h"

/* About normal; every now and then a value from the edges when `edges`. */
static inline real *ops_input(int64_t n, real scale, uint64_t seed, bool edges)
{
    static const real edge[] = {0,      (real)-0.0, INFINITY, -INFINITY, NAN, 1e30f,
                                -1e30f, 1e-30f,     88.8f,    -88.8f,    100, -100};
    real *x = noise_new((size_t)n, scale, seed);
    for (int64_t i = 0; edges && i < n; i++)
        if (noise_next(&seed) % 7 == 0)
            x[i] = edge[noise_next(&seed) % (sizeof edge / sizeof edge[0])];
    return x;
}

static const int64_t check_widths[] = {1, 5, 15, 16, 17, 31, 64, 100, 576, 1021};
enum { CHECK_WIDTHS = sizeof check_widths / sizeof check_widths[0] };

/* ---- norms ---- */
static inline void check_norm(struct sink *s, struct pool *pool, bool layer)
{
    for (int i = 0; i < CHECK_WIDTHS; i++)
        for (int parts = 0; parts < 4; parts++) {
            int64_t n = check_widths[i], rows = 7;
            real *x = ops_input(n * rows, 2, 1, parts == 3), *w = ops_input(n, 1, 2, false);
            real *b = ops_input(n, 1, 3, false), *out = zeros_new((size_t)(n * rows));
            if (layer)
                norm_layer_forward(out, x, parts ? w : NULL, parts > 1 ? b : NULL, 1e-5f, rows, n, pool);
            else
                norm_rms_forward(out, x, w, 1e-5f, rows, n, pool);
            sink_reals(s, out, n * rows);
            free(x), free(w), free(b), free(out);
        }
}
static inline void check_norm_rms(struct sink *s, struct pool *pool)
{
    check_norm(s, pool, false);
}
static inline void check_norm_layer(struct sink *s, struct pool *pool)
{
    check_norm(s, pool, true);
}
static inline void check_norm_backward(struct sink *s, struct pool *pool, bool layer)
{
    for (int i = 0; i < CHECK_WIDTHS; i++)
        for (int parts = 0; parts < 2; parts++) {
            int64_t n = check_widths[i], rows = n < 100 ? 300 : 5;
            real *x = ops_input(n * rows, 2, 1, false), *dy = ops_input(n * rows, 1, 4, false);
            real *w = ops_input(n, 1, 2, false), *dx = zeros_new((size_t)(n * rows));
            real *dw = ops_input(n, 1, 5, false), *db = ops_input(n, 1, 6, false);
            if (layer)
                norm_layer_backward(dx, parts ? dw : NULL, parts ? db : NULL, dy, x, parts ? w : NULL, 1e-5f, rows, n,
                                    pool);
            else
                norm_rms_backward(dx, parts ? dw : NULL, dy, x, w, 1e-5f, rows, n, pool);
            sink_reals(s, dx, n * rows), sink_reals(s, dw, n), sink_reals(s, db, n);
            free(x), free(dy), free(w), free(dx), free(dw), free(db);
        }
}
static inline void check_norm_rms_dx(struct sink *s, struct pool *pool)
{
    check_norm_backward(s, pool, false);
}
static inline void check_norm_layer_dx(struct sink *s, struct pool *pool)
{
    check_norm_backward(s, pool, true);
}
static inline void check_norm_dw(struct sink *s, struct pool *pool)
{
    check_norm_backward(s, pool, true);
}

/* ---- rope ---- */
static inline void check_rope_turn(struct sink *s, struct pool *pool)
{
    static const int halves[] = {1, 8, 10, 16, 20, 24, 32, 64};
    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++)
        for (int turn = 0; turn < 4; turn++) {
            enum { ROWS = 5, HEADS = 3 };
            int64_t half = halves[i], d = turn % 2 ? 2 * half : 2 * half + 12;
            const int32_t pos[ROWS] = {0, 1, 7, 2047, 31000};
            real inv_freq[64], *x = ops_input(ROWS * HEADS * d, 1, 1, false),
                               *cs = zeros_new((size_t)(ROWS * half * 2));
            for (int64_t f = 0; f < half; f++)
                inv_freq[f] = (real)fn_pow(10000, -(double)f / (double)half);
            rope_angles(cs, inv_freq, 1.5f, pos, ROWS, half, pool);
            rope_apply(x, cs, turn < 2 ? ROPE_HALF : ROPE_PAIR, ROWS, HEADS, d, half, turn % 2 ? 1 : -1, pool);
            sink_reals(s, cs, ROWS * half * 2), sink_reals(s, x, ROWS * HEADS * d);
            free(x), free(cs);
        }
}

/* ---- element by element ---- */
enum check_map { CHECK_FN, CHECK_FN_BACK, CHECK_GLU, CHECK_GLU_BACK, CHECK_ADD };
static inline void check_map(struct sink *s, struct pool *pool, enum check_map what)
{
    for (enum act_fn fn = FN_SILU; fn <= FN_RELU; fn++)
        for (int edges = 0; edges < 2; edges++) {
            int64_t n = edges ? 4099 : 40013; /* several items, a tail */
            real *a = ops_input(n, 3, 1, edges), *b = ops_input(n, 3, 2, edges), *c = ops_input(n, 3, 3, edges);
            real *out = zeros_new((size_t)n), *out2 = zeros_new((size_t)n);
            switch (what) {
            case CHECK_FN:
                fn_forward(out, a, fn, n, pool);
                break;
            case CHECK_FN_BACK:
                fn_backward(out, a, b, fn, n, pool);
                break;
            case CHECK_GLU:
                glu_forward(out, a, b, fn, n, pool);
                break;
            case CHECK_GLU_BACK:
                glu_backward(out, out2, a, b, c, fn, n, pool);
                break;
            case CHECK_ADD:
                add_forward(out, a, b, n, pool);
                break;
            }
            sink_reals(s, out, n), sink_reals(s, out2, n);
            free(a), free(b), free(c), free(out), free(out2);
        }
}
static inline void check_map_fn(struct sink *s, struct pool *pool)
{
    check_map(s, pool, CHECK_FN);
}
static inline void check_map_fn_back(struct sink *s, struct pool *pool)
{
    check_map(s, pool, CHECK_FN_BACK);
}
static inline void check_map_glu(struct sink *s, struct pool *pool)
{
    check_map(s, pool, CHECK_GLU);
}
static inline void check_map_glu_back(struct sink *s, struct pool *pool)
{
    check_map(s, pool, CHECK_GLU_BACK);
}
static inline void check_map_add(struct sink *s, struct pool *pool)
{
    check_map(s, pool, CHECK_ADD);
}

static inline void check_map_function(struct sink *s, struct pool *pool)
{
    (void)pool; /* no door */
    for (int fn = 0; fn < FUNCTION_COUNT; fn++) {
        enum { N = 5003 };
        real *x = ops_input(N, 3, 1, true), *out = zeros_new(N);
        for (int i = 0; fn == FUNCTION_EXP_DOWN && i < N; i++)
            x[i] = x[i] > 88 ? 88 : x[i];
        struct map_job job = {.out = out, .a = x, .fn = fn};
        kernels.map_function(&job, 0, N);
        sink_reals(s, out, N);
        free(x), free(out);
    }
}

/* ---- attention ---- */
struct attend_shape {
    int n_head, n_kv_head, d_head, window;
    real soft_cap;
    bool both_ways;
};
static const struct attend_shape attend_shapes[] = {
    {1, 1, 64, 0, 0}, {5, 1, 20, 0, 0},  {9, 3, 64, 0, 0},       {14, 2, 64, 0, 0},      {2, 2, 80, 70, 0},
    {3, 1, 96, 0, 5}, {4, 4, 128, 0, 0}, {8, 1, 128, 300, 0},    {2, 1, 256, 0, 0},      {6, 2, 13, 0, 0},
    {4, 2, 1, 1, 0},  {34, 1, 16, 0, 0}, {3, 3, 32, 0, 0, true}, {4, 2, 20, 0, 5, true}, {7, 1, 64, 0, 0, true},
};
enum { ATTEND_SHAPES = sizeof attend_shapes / sizeof attend_shapes[0] };
enum { ATTEND_CAUSAL = ATTEND_SHAPES - 3 }; /* the others need every key of the sequence at once: no chunks */

/* Three sequences: one of 330 tokens (two segments), one of 17, one of 1; written and attended in chunks of `chunk`
 * rows, all sequences in one batch as long as they last. out [330 + 17 + 1 rows]. */
enum { SEQUENCES = 3, ATTEND_ROWS = 330 + 17 + 1 };
static const int attend_lengths[SEQUENCES] = {330, 17, 1};
static inline void attend_chunked(real *out, const struct attend_shape *shape, enum kv_type type, int chunk, bool edges,
                                  struct pool *pool)
{
    struct kv_layout l = {type, shape->n_kv_head, shape->d_head};
    struct attend_attr attr = {shape->n_head, (real)(1 / sqrt(shape->d_head)), shape->window, shape->soft_cap,
                               shape->both_ways};
    int64_t q_row = (int64_t)shape->n_head * shape->d_head, kv_row = (int64_t)shape->n_kv_head * shape->d_head;
    real *q = ops_input(ATTEND_ROWS * q_row, 1.5f, 1, false), *k = ops_input(ATTEND_ROWS * kv_row, 1.5f, 2, false);
    real *v = ops_input(ATTEND_ROWS * kv_row, 1, 3, edges);
    real *qb = zeros_new((size_t)(ATTEND_ROWS * q_row)), *ob = zeros_new((size_t)(ATTEND_ROWS * q_row));
    real *kb = zeros_new((size_t)(ATTEND_ROWS * kv_row)), *vb = zeros_new((size_t)(ATTEND_ROWS * kv_row));
    struct pages p = pages_new(&l, 384, SEQUENCES);
    for (int pos = 0; pos < attend_lengths[0]; pos += chunk) {
        struct attend_span spans[SEQUENCES];
        int n_span = 0, row = 0;
        for (int i = 0, at = 0; i < SEQUENCES; at += attend_lengths[i++]) {
            int n = attend_lengths[i] - pos < chunk ? attend_lengths[i] - pos : chunk;
            if (n <= 0)
                continue;
            memcpy(qb + row * q_row, q + (at + pos) * q_row, (size_t)(n * q_row) * sizeof *q);
            memcpy(kb + row * kv_row, k + (at + pos) * kv_row, (size_t)(n * kv_row) * sizeof *k);
            memcpy(vb + row * kv_row, v + (at + pos) * kv_row, (size_t)(n * kv_row) * sizeof *v);
            spans[n_span++] = (struct attend_span){row, n, pos, p.blocks + i * (384 / KV_BLOCK)};
            row += n;
        }
        kv_write(p.layer, &l, kb, vb, spans, n_span, pool);
        attend_forward(ob, qb, p.layer, &l, &attr, spans, n_span, pool);
        row = 0;
        for (int i = 0, at = 0; i < SEQUENCES; at += attend_lengths[i++]) {
            int n = attend_lengths[i] - pos < chunk ? attend_lengths[i] - pos : chunk;
            if (n > 0) {
                memcpy(out + (at + pos) * q_row, ob + row * q_row, (size_t)(n * q_row) * sizeof *q);
                row += n;
            }
        }
    }
    pages_free(&p);
    free(q), free(k), free(v), free(qb), free(kb), free(vb), free(ob);
}

static inline void check_attend(struct sink *s, struct pool *pool)
{
    for (int i = 0; i < ATTEND_SHAPES; i++)
        for (enum kv_type type = KV_F32; type <= KV_INT8; type++) {
            if (i >= 3 && i % 3 != (int)type)
                continue;
            int64_t n = (int64_t)ATTEND_ROWS * attend_shapes[i].n_head * attend_shapes[i].d_head;
            real *out = zeros_new((size_t)n);
            attend_chunked(out, &attend_shapes[i], type, 330, i % 3 == 1, pool);
            sink_reals(s, out, n);
            free(out);
        }
}

/* Every page's bytes: the layout is the same whatever wrote it. Freed content of a page is left alone. */
static inline void check_kv_store(struct sink *s, struct pool *pool)
{
    static const int dims[] = {1, 13, 16, 20, 64, 80, 256};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        for (enum kv_type type = KV_F32; type <= KV_INT8; type++) {
            struct kv_layout l = {type, 2, dims[i]};
            int64_t n = 70 * 2 * dims[i];
            real *k = ops_input(n, 1, 1, i % 2), *v = ops_input(n, 1, 2, i % 2);
            struct pages p = pages_new(&l, 128, 1);
            struct attend_span span = {0, 70, 3, p.blocks};
            for (int64_t j = 0; j < 96 && j < n; j++)
                k[j] = v[j] = (real)(j % 3 ? 0x1p-125 : 0); /* too small for int8 scales, subnormal in f16 */
            kv_write(p.layer, &l, k, v, &span, 1, pool);
            if (type == KV_F32)
                sink_reals(s, p.layer, (int64_t)(kv_page_bytes(&l) * 2 / sizeof(real)));
            else if (i % 2 == 0) /* NaN in f16 and scales may differ in payload */
                sink_bytes(s, p.layer, kv_page_bytes(&l) * 2);
            pages_free(&p);
            free(k), free(v);
        }
}

/* A row's segments by themselves, on threads; `same`: they must give the bits of the row as a whole. */
static inline void check_attend_segments(struct sink *s, const struct attend_shape *shape, enum kv_type type, bool same,
                                         struct pool *pool)
{
    enum { LENGTH = 900, ROWS = 2 };
    struct kv_layout l = {type, shape->n_kv_head, shape->d_head};
    struct attend_attr attr = {shape->n_head, (real)(1 / sqrt(shape->d_head)), shape->window, shape->soft_cap,
                               shape->both_ways};
    int64_t q_row = (int64_t)shape->n_head * shape->d_head, kv_row = (int64_t)shape->n_kv_head * shape->d_head;
    real *k = ops_input(LENGTH * kv_row, 1.5f, 2, false), *v = ops_input(LENGTH * kv_row, 1, 3, false);
    real *q = ops_input(ROWS * q_row, 1.5f, 1, false), *whole = zeros_new((size_t)(ROWS * q_row));
    real *split = zeros_new((size_t)(ROWS * q_row));
    size_t bytes = attend_scratch_bytes(&l, shape->n_head, LENGTH);
    void *scratch = malloc(bytes);
    struct pages p = pages_new(&l, 960, 2);
    for (int i = 0; i < 2; i++) {
        struct attend_span all = {0, LENGTH, 0, p.blocks + i * (960 / KV_BLOCK)};
        kv_write(p.layer, &l, k, v, &all, 1, pool);
    }
    static const int positions[] = {511, 512, 700, 899};
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
        struct attend_span spans[] = {{0, 1, positions[i], p.blocks}, {1, 1, 600, p.blocks + 960 / KV_BLOCK}};
        attend_forward(whole, q, p.layer, &l, &attr, spans, 2, pool);
        for (size_t room = 0; room <= bytes; room += bytes / 2) { /* also where the parts do not fit */
            memset(split, 0, (size_t)(ROWS * q_row) * sizeof *split);
            attend_forward_split(split, q, p.layer, &l, &attr, spans, 2, scratch, room, pool);
            if (same)
                assert_memory_equal(split, whole, (size_t)(ROWS * q_row) * sizeof *split);
        }
        sink_reals(s, split, ROWS * q_row);
    }
    pages_free(&p);
    free(k), free(v), free(q), free(whole), free(split), free(scratch);
}
static inline void check_attend_shapes_in_segments(struct sink *s, bool same)
{
    struct error err;
    struct pool *wide;
    OK(pool_create(&wide, 9, &err)); /* so many threads that every shape is split */
    for (int i = 0; i < ATTEND_CAUSAL; i++)
        check_attend_segments(s, &attend_shapes[i], (enum kv_type)(i % 3), same, wide);
    pool_destroy(wide);
}
static inline void check_attend_part(struct sink *s, struct pool *pool)
{
    (void)pool;
    check_attend_shapes_in_segments(s, false);
}
static inline void check_attend_merge(struct sink *s, struct pool *pool)
{
    check_attend_part(s, pool);
}

static inline void check_attend_back(struct sink *s, struct pool *pool)
{
    for (int i = 0; i < ATTEND_CAUSAL; i++) {
        const struct attend_shape *shape = &attend_shapes[i];
        struct kv_layout l = {KV_F32, shape->n_kv_head, shape->d_head};
        struct attend_attr attr = {shape->n_head, (real)(1 / sqrt(shape->d_head)), shape->window, shape->soft_cap,
                                   shape->both_ways};
        struct attend_span spans[2] = {{0, i == 7 ? 300 : 90, 0, NULL}, {0, 17, 0, NULL}};
        int64_t rows = spans[1].row0 = spans[0].n_row;
        rows += 17;
        int64_t q_n = rows * shape->n_head * shape->d_head, kv_n = rows * shape->n_kv_head * shape->d_head;
        real *q = ops_input(q_n, 1, 1, false), *k = ops_input(kv_n, 1, 2, false), *v = ops_input(kv_n, 1, 3, false);
        real *dout = ops_input(q_n, 1, 4, false), *dq = zeros_new((size_t)q_n), *dk = zeros_new((size_t)kv_n);
        real *dv = zeros_new((size_t)kv_n);
        attend_backward(dq, dk, dv, dout, q, k, v, &l, &attr, spans, 2, pool);
        sink_reals(s, dq, q_n), sink_reals(s, dk, kv_n), sink_reals(s, dv, kv_n);
        free(q), free(k), free(v), free(dout), free(dq), free(dk), free(dv);
    }
}

/* ---- loss, optimizer, selection ---- */
static inline void check_loss(struct sink *s, struct pool *pool, bool gradient)
{
    static const int64_t widths[] = {1, 5, 257, 4095, 4096, 4097, 50257};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (int edges = 0; edges < 3; edges++) {
            enum { ROWS = 12 };
            int64_t n = widths[i];
            real *x = ops_input(n * ROWS, 1, i + 1, edges == 1), *dx = zeros_new((size_t)(n * ROWS)), y[ROWS];
            for (int64_t j = 0; edges == 0 && j < n * ROWS; j++)
                x[j] -= (real)log((double)n) + (real)0.5; /* so that the result is near zero and shows its last bits */
            for (int64_t j = 0; edges == 2 && j < n * ROWS; j++) /* masked logits: a row with few left, one with none */
                if (j >= 2 * n || j % 5000)
                    x[j] = -INFINITY;
            const int32_t targets[ROWS] = {(int32_t)n - 1, -1, (int32_t)n / 2}; /* and 0 */
            if (gradient)
                cross_entropy(y, dx, x, targets, 0.125f, ROWS, n, pool);
            else
                lse_forward(y, x, ROWS, n, pool);
            sink_reals(s, y, ROWS), sink_reals(s, dx, n * ROWS);
            free(x), free(dx);
        }
}
static inline void check_lse_rows(struct sink *s, struct pool *pool)
{
    check_loss(s, pool, false);
}
static inline void check_loss_rows(struct sink *s, struct pool *pool)
{
    check_loss(s, pool, true);
}
static inline void check_adamw_range(struct sink *s, struct pool *pool)
{
    enum { N = 20011 };
    real *p = ops_input(N, 1, 1, false), *m = zeros_new(N), *v = zeros_new(N);
    for (int step = 1; step <= 5; step++) {
        struct adamw how = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, step, 0.7f};
        real *g = ops_input(N, 0.1f, (uint64_t)step, false);
        adamw_step(p, m, v, g, &how, N, pool);
        free(g);
    }
    sink_reals(s, p, N), sink_reals(s, m, N), sink_reals(s, v, N);
    free(p), free(m), free(v);
}
static inline void check_squares_chunks(struct sink *s, struct pool *pool)
{
    static const int64_t counts[] = {1, 15, 16, 17, 16384, 16385, 100003};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        real *x = ops_input(counts[i], 1, 1, false);
        double sum = sum_squares(x, counts[i], pool);
        sink_bytes(s, &sum, sizeof sum);
        free(x);
    }
}
static inline void check_find_above(struct sink *s, struct pool *pool)
{
    (void)pool;
#ifndef INGOT_REAL_DOUBLE
    static const int64_t widths[] = {1, 5, 257, 4099, 151936};
    static const int ks[] = {1, 2, 40, 1000};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (int edges = 0; edges < 3; edges++) {
            float *x = ops_input(widths[i], 3, i + 1, edges == 1);
            for (int64_t j = 0; edges == 2 && j < widths[i]; j++)
                x[j] = (float)(int)x[j]; /* many ties */
            int32_t best = argmax(x, widths[i]);
            sink_bytes(s, &best, sizeof best);
            for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++) {
                struct candidate out[1000];
                int n = top_k_select(out, x, widths[i], ks[k]);
                for (int j = 0; j < n; j++)
                    sink_bytes(s, &out[j].id, sizeof out[j].id);
            }
            free(x);
        }
#endif
}

/* A row as logits are, with ties, and with minus infinity where an id is forbidden; never NaN. */
static inline float *row_input(int64_t n, int kind)
{
    float *x = malloc((size_t)n * sizeof *x);
    uint32_t bits = (uint32_t)(n * 31 + kind);
    for (int64_t i = 0; i < n; i++) {
        bits = bits * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)bits / 2e8f;
        if (kind == 1)
            x[i] = (float)(int)x[i];
        if (kind == 2 && i % 5 == 0)
            x[i] = -INFINITY;
    }
    return x;
}
static inline void check_row_maxima(struct sink *s, struct pool *pool)
{
    (void)pool;
    static const int64_t widths[] = {1, 5, 255, 257, 4099, 151936};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (int kind = 0; kind < 3; kind++) {
            float maxima[600], *x = row_input(widths[i], kind);
            bool finite = row_maxima(maxima, x, widths[i]);
            assert_int_equal(finite, kind != 2);
            sink_bytes(s, maxima, (size_t)row_blocks(widths[i]) * sizeof *maxima);
            for (int bad = 0; kind == 0 && bad < 3; bad++) { /* wherever one stands, it is seen */
                float was = x[widths[i] * bad / 3];
                x[widths[i] * bad / 3] = bad == 0 ? NAN : bad == 1 ? INFINITY : -3.1e38f;
                assert_false(row_maxima(maxima, x, widths[i]));
                x[widths[i] * bad / 3] = was;
            }
            free(x);
        }
}
static inline void check_collect_from(struct sink *s, struct pool *pool)
{
    (void)pool;
    static const int64_t widths[] = {1, 5, 255, 257, 4099, 151936};
    static const int ks[] = {1, 2, 17, 40, 500};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (int kind = 0; kind < 3; kind++) {
            int64_t n = widths[i];
            float maxima[600], *x = row_input(n, kind);
            struct candidate *out = malloc((size_t)n * sizeof *out), want[500], got[500];
            row_maxima(maxima, x, n);
            for (int limit = -12; limit < 12; limit += 3) {
                int64_t count = row_collect(out, x, maxima, n, (float)limit, INFINITY), within = 0;
                sink_bytes(s, out, (size_t)count * sizeof *out);
                for (int64_t j = 0; j < count; j++)
                    within += out[j].logit < (float)limit + 2.5f;
                assert_int_equal(row_collect(out, x, maxima, n, (float)limit, (float)limit + 2.5f), within);
            }
            int32_t best = row_argmax(x, maxima, n);
            assert_int_equal(best, argmax(x, n));
            for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++) {
                int count = top_k_select(want, x, n, ks[k]);
                assert_int_equal(row_top_k(got, x, maxima, n, ks[k]), count);
                assert_memory_equal(got, want, (size_t)count * sizeof *got);
            }
            free(out), free(x);
        }
}

/* Whatever lies between two borders adds up to what lies between the outer ones: exactly. */
static inline void check_mass_between(struct sink *s, struct pool *pool)
{
    (void)pool;
    static const int64_t widths[] = {1, 5, 255, 257, 4099, 151936};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
        for (int kind = 0; kind < 3; kind++) {
            int64_t n = widths[i];
            float maxima[600], *x = row_input(n, kind);
            row_maxima(maxima, x, n);
            double parts = 0;
            struct row_mass m = {-INFINITY, INFINITY, (real)0.9, 25};
            double all = row_mass(x, maxima, n, &m);
            for (int border = -13; border < 13; border += 3) {
                m.low = border == -13 ? -INFINITY : (float)border;
                m.high = border == 11 ? INFINITY : (float)border + 3;
                double part = row_mass(x, maxima, n, &m);
                sink_bytes(s, &part, sizeof part);
                parts += part;
            }
            assert_true(parts == all);
            free(x);
        }
}

#endif
