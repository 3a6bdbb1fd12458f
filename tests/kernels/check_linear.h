/* check_linear - the linear operations' inputs: every type, odd shapes, extremes of the formats */
#ifndef TESTS_KERNELS_CHECK_LINEAR_H
#define TESTS_KERNELS_CHECK_LINEAR_H

#include "check.h"

static inline int half_offset(enum dtype t) /* of a block's scale; the minimum's follows */
{
    return t == DT_Q2_K ? 80 : t == DT_Q3_K ? 108 : t == DT_Q6_K ? 208 : 0;
}

/* Row-major rows of any type: plain types from random numbers, block types from random bits with sane scales. */
static inline void *random_rows(uint64_t *state, enum dtype t, int64_t n)
{
    const struct dtype_row *d = dtype_row(t);
    size_t n_block = (size_t)(n / d->block);
    uint8_t *rows = grab(n_block * (size_t)d->bytes);
    for (size_t b = 0; b < n_block; b++) {
        uint8_t *block = rows + b * (size_t)d->bytes;
        float value = draw_float(state);
        uint16_t half = (uint16_t)(draw(state) & 0x83ff) | 0x2400; /* +-2^-6 .. 2^-5 */
        uint16_t brain = (uint16_t)((draw(state) & 0x81ff) | 0x3e00);
        switch (t) {
        case DT_F32:
            memcpy(block, &value, 4);
            break;
        case DT_F16:
            memcpy(block, &half, 2);
            break;
        case DT_BF16:
            memcpy(block, &brain, 2);
            break;
        default:
            for (int i = 0; i < d->bytes; i++)
                block[i] = (uint8_t)draw(state);
            if (t == DT_MXFP4) { /* 2^-10 .. 2^-3, but also both subnormals and a huge one */
                block[0] = b % 37 == 5 ? 250 : b % 37 == 6 ? (uint8_t)(b % 2) : 118 + block[0] % 8;
                break;
            }
            if (d->block > BLOCK && b % 3 == 0) { /* levels and scales at their ends */
                memset(block, b % 2 ? 0xff : 0, (size_t)d->bytes);
                if (t == DT_Q6_K)
                    memset(block + 192, b % 2 ? 0x7f : 0x80, 16);
            }
            memcpy(block + half_offset(t), &half, 2);
            if (t == DT_Q4_Z)
                block[2] &= 15, block[3] = 0;
            if (t == DT_Q4_1 || t == DT_Q5_1 || t == DT_Q2_K || t == DT_Q4_K || t == DT_Q5_K) {
                half = (uint16_t)(half ^ 0x8155);
                memcpy(block + half_offset(t) + 2, &half, 2);
            }
            if (t == DT_Q8_0 && b % 3 == 0)
                memset(block + 2, b % 2 ? 0x80 : 0x7f, 32); /* -128 and 127: the edges of every integer trick */
        }
    }
    return rows;
}

static inline struct weight packed(const void *rows, enum dtype t, int64_t n_out, int64_t n_in, struct pool *pool)
{
    struct weight w = {.type = weight_type(t), .n_out = n_out, .n_in = n_in};
    w.bytes = weight_bytes(w.type, n_out, n_in);
    w.panels = grab(w.bytes);
    weight_pack(&w, rows, t, NULL, pool);
    return w;
}

/* out = x W^T + bias, activations prepared as the weight wants them. */
static inline void run_linear(real *out, const real *x, int64_t n_row, const struct weight *w, const real *bias,
                              struct pool *pool)
{
    struct act a;
    void *storage = grab(act_bytes(weight_act(w), n_row, w->n_in));
    act_prepare(&a, weight_act(w), storage, x, n_row, w->n_in, pool);
    linear_forward(out, &a, w, bias, pool);
    free(storage);
}

struct linear_shape {
    int64_t n_row, n_out, n_in;
};
/* All multiples of 32 in k (of the block, where that is longer); the odd ones are for the plain types. Rows cross every
 * tile of every set. */
static const struct linear_shape linear_shapes[] = {
    {1, 16, 32},   {1, 50, 96},   {1, 144, 320},  {2, 33, 64},    {3, 64, 256},  {4, 17, 64},
    {5, 80, 96},   {6, 31, 32},   {7, 48, 288},   {8, 49, 64},    {9, 16, 544},  {10, 40, 64},
    {11, 96, 64},  {12, 33, 320}, {13, 20, 96},   {14, 16, 32},   {15, 18, 64},  {16, 70, 96},
    {17, 47, 288}, {37, 35, 96},  {101, 150, 64}, {20, 150, 544}, {270, 40, 32}, {258, 20, 544},
};
static const struct linear_shape odd_shapes[] = {
    {1, 1, 1}, {1, 5, 7}, {2, 17, 3}, {9, 15, 257}, {13, 33, 259}, {17, 16, 171}, {19, 31, 513},
};
enum {
    LINEAR_SHAPES = sizeof linear_shapes / sizeof linear_shapes[0],
    ODD_SHAPES = sizeof odd_shapes / sizeof odd_shapes[0],
#ifdef __SANITIZE_THREAD__ /* which looks for races, not at sums, and makes every step ten times as slow: each ninth   \
                            */
    SHAPE_STEP = 9
#else
    SHAPE_STEP = 1
#endif
};

static inline void check_shape(struct sink *s, struct pool *pool, enum dtype t, bool exact,
                               const struct linear_shape *shape, uint64_t seed)
{
    uint64_t state = seed;
    void *rows = random_rows(&state, t, shape->n_out * shape->n_in);
    struct weight w = packed(rows, t, shape->n_out, shape->n_in, pool);
    w.exact = exact;
    real *x = random_reals(&state, shape->n_row * shape->n_in);
    real *bias = random_reals(&state, shape->n_out), *out = grab((size_t)(shape->n_row * shape->n_out) * sizeof *out);
    if (shape->n_row > 2) { /* a row of zeros, one with an infinity, one with a NaN: only they may be touched by them */
        memset(x, 0, (size_t)shape->n_in * sizeof *x);
        x[shape->n_in + shape->n_in / 2] = (real)INFINITY;
        x[2 * shape->n_in] = (real)NAN;
    }
    for (int64_t k = 0; k < shape->n_in && shape->n_row > 4; k++) { /* 127 and -127 throughout: the largest sums */
        x[3 * shape->n_in + k] = 1;
        x[4 * shape->n_in + k] = -1;
    }
    run_linear(out, x, shape->n_row, &w, NULL, pool);
    sink_reals(s, out, shape->n_row * shape->n_out);
    run_linear(out, x, shape->n_row, &w, bias, pool);
    sink_reals(s, out, shape->n_row * shape->n_out);
    free(rows), free(w.panels), free(x), free(bias), free(out);
}

static inline void check_type(struct sink *s, struct pool *pool, enum dtype t, bool exact)
{
    for (int i = SHAPE_STEP / 9; i < LINEAR_SHAPES; i += SHAPE_STEP) {
        struct linear_shape shape = linear_shapes[i];
        shape.n_in *= dtype_is_block(t) ? dtype_row(t)->block / BLOCK : 1;
        check_shape(s, pool, t, exact, &shape, (uint64_t)i);
    }
    for (int i = 0; !dtype_is_block(t) && i < ODD_SHAPES; i += SHAPE_STEP)
        check_shape(s, pool, t, exact, &odd_shapes[i], 100 + (uint64_t)i);
}

#define PANEL(TYPE, name, ...)                                                                                         \
    static inline void check_linear_##name(struct sink *s, struct pool *pool)                                          \
    {                                                                                                                  \
        check_type(s, pool, DT_##TYPE, false);                                                                         \
    }
#include "kernels/panels.def"
static const enum dtype panel_types[] = {
#define PANEL(TYPE, ...) DT_##TYPE,
#include "kernels/panels.def"
};
enum { PANEL_TYPES = sizeof panel_types / sizeof panel_types[0] };
static inline void check_linear_exact(struct sink *s, struct pool *pool)
{
    for (int i = 0; i < PANEL_TYPES; i++)
        if (panel_type(panel_types[i])->act != ACT_REAL)
            check_type(s, pool, panel_types[i], true);
}

static inline void check_act(struct sink *s, struct pool *pool, enum act_type type)
{
    enum { ROWS = 21, N = 160 };
    uint64_t state = 7;
    real *x = random_reals(&state, ROWS * N);
    for (int i = 0; i < N; i++) { /* the scales' whole range, a block of each */
        x[i] *= (real)ldexp(1, i / 32 * 30 - 60);
        x[N + i] = (real)(i < 32 ? 0x1p-120 : i < 64 ? 3e38 : i < 96 ? i - 80 : 0) * (i % 2 ? -1 : 1);
        x[2 * N + i] = (real)(i == 40 ? NAN : i == 70 ? -INFINITY : 0.5 * i);
    }
    struct act a;
    size_t bytes = act_bytes(type, ROWS, N);
    void *storage = grab(bytes);
    act_prepare(&a, type, storage, x, ROWS, N, pool);
    for (int64_t r = 0; r < ROWS; r++) {
        if (type == ACT_BF16) {
            const uint16_t *row = (const uint16_t *)((char *)storage + (size_t)r * act_row_bytes(N));
            for (int k = 0; k < N; k++) {
                real v = bf16_to_f32(row[k]);
                sink_reals(s, &v, 1);
            }
            continue;
        }
        struct act_int8 v = act_int8_row(&a, r);
        for (int64_t b = 0; b < N / BLOCK; b++) {
            real scale = v.scale[b * v.rows];
            sink_bytes(s, v.q + b * v.rows * BLOCK, BLOCK);
            sink_reals(s, &scale, 1);
            sink_bytes(s, &v.minus[b * v.rows], sizeof *v.minus);
            sink_bytes(s, &v.halves[b * v.rows * 2], 2 * sizeof *v.halves);
        }
    }
    free(x), free(storage);
}
static inline void check_act_bf16(struct sink *s, struct pool *pool)
{
    check_act(s, pool, ACT_BF16);
}
static inline void check_act_int8(struct sink *s, struct pool *pool)
{
    check_act(s, pool, ACT_INT8);
}

/* ---- backward ---- */
static const struct linear_shape backward_shapes[] = {
    {1, 1, 1},    {1, 16, 16},   {2, 17, 5},    {3, 40, 33},   {7, 33, 100},
    {17, 50, 97}, {100, 65, 64}, {131, 20, 45}, {300, 129, 7},
};
enum { BACKWARD_SHAPES = sizeof backward_shapes / sizeof backward_shapes[0] };

static inline void check_linear_input(struct sink *s, struct pool *pool)
{
    for (int i = 0; i < BACKWARD_SHAPES; i++) {
        const struct linear_shape *shape = &backward_shapes[i];
        uint64_t state = 50 + (uint64_t)i;
        void *rows = random_rows(&state, DT_F32, shape->n_out * shape->n_in);
        struct weight w = packed(rows, DT_F32, shape->n_out, shape->n_in, pool);
        real *dy = random_reals(&state, shape->n_row * shape->n_out);
        real *dx = grab((size_t)(shape->n_row * shape->n_in) * sizeof *dx);
        linear_backward_input(dx, dy, &w, shape->n_row, false, pool);
        sink_reals(s, dx, shape->n_row * shape->n_in);
        linear_backward_input(dx, dy, &w, shape->n_row, true, pool);
        sink_reals(s, dx, shape->n_row * shape->n_in);
        free(rows), free(w.panels), free(dy), free(dx);
    }
}

static inline void check_linear_weight(struct sink *s, struct pool *pool)
{
    for (int i = 0; i < BACKWARD_SHAPES; i++) {
        const struct linear_shape *shape = &backward_shapes[i];
        uint64_t state = 80 + (uint64_t)i;
        int64_t count = panel_count(shape->n_out) * LANES * shape->n_in;
        real *dw = grab((size_t)count * sizeof *dw);
        memset(dw, 0, (size_t)count * sizeof *dw);
        for (int step = 0; step < 2; step++) { /* the second adds to the first */
            real *dy = random_reals(&state, shape->n_row * shape->n_out);
            real *x = random_reals(&state, shape->n_row * shape->n_in);
            linear_backward_weight(dw, dy, x, shape->n_row, shape->n_out, shape->n_in, pool);
            free(dy), free(x);
        }
        sink_reals(s, dw, count); /* rows beyond n_out stay zero */
        free(dw);
    }
}

#endif
