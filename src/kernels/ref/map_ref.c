/* map_ref - the definition of rope's and the element by element operations' bits (docs/numerics.md section 4) */
#include "kernels/ref/lanes_ref.h"

/* (a, b) turned: a c - b s, b c + a s */
static void turn(real *a, real *b, real c, real s)
{
    real x = *a, y = *b;
    *a = FMA(x, c, -(y * s));
    *b = FMA(y, c, x * s);
}

void rope_turn__ref(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rope_job *job = ctx;
    for (int64_t r = row0; r < row1; r++) {
        const real *cs = job->cs + r * job->n_half * 2;
        for (int64_t h = 0; h < job->n_head; h++) {
            real *x = job->x + (r * job->n_head + h) * job->d_head;
            for (int64_t i = 0; i < job->n_half; i++) {
                real s = job->sign < 0 ? -cs[2 * i + 1] : cs[2 * i + 1];
                if (job->style == ROPE_HALF)
                    turn(&x[i], &x[i + job->n_half], cs[2 * i], s);
                else
                    turn(&x[2 * i], &x[2 * i + 1], cs[2 * i], s);
            }
        }
    }
}

#define SQRT_HALF    ((real)0.70710678118654752440)
#define SQRT_2_BY_PI ((real)0.79788456080286535588)
#define GELU_CUBIC   ((real)0.044715)

static real value(enum act_fn fn, real x)
{
    real half = (real)0.5 * x;
    switch (fn) {
    case FN_SILU:
        return x / (1 + real_exp(-x));
    case FN_GELU:
        return FMA(half, real_erf(x * SQRT_HALF), half);
    case FN_GELU_TANH:
        return FMA(half, real_tanh((SQRT_2_BY_PI * x) * FMA(GELU_CUBIC * x, x, 1)), half);
    case FN_RELU:
        return x < 0 ? 0 : x;
    }
    return 0;
}

static real slope(enum act_fn fn, real x)
{
    switch (fn) {
    case FN_SILU: {
        real s = 1 / (1 + real_exp(-x));
        return s * FMA(x, 1 - s, 1);
    }
    case FN_GELU: { /* the normal distribution's mass below x, plus x times its density there */
        real mass = FMA((real)0.5, real_erf(x * SQRT_HALF), (real)0.5);
        return FMA(x, (real)0.39894228040143267794 * real_exp((real)-0.5 * (x * x)), mass);
    }
    case FN_GELU_TANH: {
        real t = real_tanh((SQRT_2_BY_PI * x) * FMA(GELU_CUBIC * x, x, 1));
        real du = SQRT_2_BY_PI * FMA((3 * GELU_CUBIC) * x, x, 1);
        return FMA((real)0.5 * x, FMA(-t, t, 1) * du, FMA((real)0.5, t, (real)0.5));
    }
    case FN_RELU:
        return x > 0 ? 1 : 0;
    }
    return 0;
}

void map_fn__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++)
        job->out[i] = value(job->fn, job->a[i]);
}

void map_fn_back__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++)
        job->out[i] = job->a[i] * slope(job->fn, job->b[i]);
}

void map_glu__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++)
        job->out[i] = value(job->fn, job->a[i]) * job->b[i];
}

void map_glu_back__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++) {
        real dy = job->a[i], gate = job->b[i], up = job->c[i];
        job->out[i] = (dy * up) * slope(job->fn, gate);
        job->out2[i] = dy * value(job->fn, gate);
    }
}

void map_add__ref(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++)
        job->out[i] = job->a[i] + job->b[i];
}

void map_function__ref(const void *ctx, int64_t i0, int64_t i1)
{
    real (*const functions[FUNCTION_COUNT])(real) = {real_exp, real_log, real_tanh, real_erf, real_exp};
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i++)
        job->out[i] = functions[job->fn](job->a[i]);
}
