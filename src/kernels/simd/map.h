/* map - rope and the element by element operations: one source for AVX2 and AVX-512 (docs/numerics.md section 4) */
#include "kernels/simd/lanes_fn.h"

INLINE void turn_one(float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = fmaf(x, c, -(y * s));
    *b = fmaf(y, c, x * s);
}

INLINE void turn_halves(float *x, const float *cs, int64_t n_half, bool back)
{
    int64_t i = 0;
    for (; i + 16 <= n_half; i += 16) {
        vf c, s, a = v16_load(x + i), b = v16_load(x + i + n_half);
        v16_load_pairs(cs + 2 * i, &c, &s);
        s = back ? vf_negate(s) : s;
        v16_store(x + i, vf_fma(a, c, vf_negate(vf_mul(b, s))));
        v16_store(x + i + n_half, vf_fma(b, c, vf_mul(a, s)));
    }
    for (; i < n_half; i++)
        turn_one(&x[i], &x[i + n_half], cs[2 * i], back ? -cs[2 * i + 1] : cs[2 * i + 1]);
}

void ISA(rope_turn)(const void *ctx, int64_t row0, int64_t row1)
{
    const struct rope_job *job = ctx;
    bool back = job->sign < 0;
    for (int64_t r = row0; r < row1; r++) {
        const float *cs = job->cs + r * job->n_half * 2;
        for (int64_t h = 0; h < job->n_head; h++) {
            float *x = job->x + (r * job->n_head + h) * job->d_head;
            if (job->style == ROPE_HALF)
                turn_halves(x, cs, job->n_half, back);
            else
                for (int64_t i = 0; i < job->n_half; i++)
                    turn_one(&x[2 * i], &x[2 * i + 1], cs[2 * i], back ? -cs[2 * i + 1] : cs[2 * i + 1]);
        }
    }
}

/* ---- activations: the formulas of ref/map_ref.c ---- */
#define SQRT_HALF    0.70710678118654752440f
#define SQRT_2_BY_PI 0.79788456080286535588f
#define GELU_CUBIC   0.044715f

INLINE vf gelu_tanh_part(vf x)
{
    vf t = vf_fma(vf_mul(vf_set(GELU_CUBIC), x), x, vf_set(1));
    return vf_tanh(vf_mul(vf_mul(vf_set(SQRT_2_BY_PI), x), t));
}

INLINE vf value(enum act_fn fn, vf x)
{
    vf half = vf_mul(vf_set(0.5f), x);
    switch (fn) {
    case FN_SILU:
        return vf_div(x, vf_add(vf_set(1), vf_exp(vf_negate(x))));
    case FN_GELU:
        return vf_fma(half, vf_erf(vf_mul(x, vf_set(SQRT_HALF))), half);
    case FN_GELU_TANH:
        return vf_fma(half, gelu_tanh_part(x), half);
    case FN_RELU:
        return vf_pick(vf_lt(x, v16_zero()), v16_zero(), x);
    }
    return x;
}

INLINE vf slope(enum act_fn fn, vf x)
{
    const vf one = vf_set(1), half = vf_set(0.5f);
    switch (fn) {
    case FN_SILU: {
        vf s = vf_div(one, vf_add(one, vf_exp(vf_negate(x))));
        return vf_mul(s, vf_fma(x, vf_sub(one, s), one));
    }
    case FN_GELU: {
        vf mass = vf_fma(half, vf_erf(vf_mul(x, vf_set(SQRT_HALF))), half);
        vf density = vf_exp(vf_mul(vf_set(-0.5f), vf_mul(x, x)));
        return vf_fma(x, vf_mul(vf_set(0.39894228040143267794f), density), mass);
    }
    case FN_GELU_TANH: {
        vf t = gelu_tanh_part(x);
        vf du = vf_mul(vf_set(SQRT_2_BY_PI), vf_fma(vf_mul(vf_set(3 * GELU_CUBIC), x), x, one));
        vf bend = vf_mul(vf_fma(vf_negate(t), t, one), du);
        return vf_fma(vf_mul(half, x), bend, vf_fma(half, t, half));
    }
    case FN_RELU:
        return vf_pick(vf_lt(v16_zero(), x), one, v16_zero());
    }
    return x;
}

/* The function is chosen outside the loop, so that each loop is one function's. */
#define BY_FN(loop, job, i0, i1)                                                                                       \
    switch ((job)->fn) {                                                                                               \
    case FN_SILU:                                                                                                      \
        loop(job, FN_SILU, i0, i1);                                                                                    \
        break;                                                                                                         \
    case FN_GELU:                                                                                                      \
        loop(job, FN_GELU, i0, i1);                                                                                    \
        break;                                                                                                         \
    case FN_GELU_TANH:                                                                                                 \
        loop(job, FN_GELU_TANH, i0, i1);                                                                               \
        break;                                                                                                         \
    case FN_RELU:                                                                                                      \
        loop(job, FN_RELU, i0, i1);                                                                                    \
        break;                                                                                                         \
    }

INLINE void fn_loop(const struct map_job *job, enum act_fn fn, int64_t i0, int64_t i1)
{
    for (int64_t i = i0; i < i1; i += 16)
        store_until(job->out, i, i1, value(fn, load_until(job->a, i, i1)));
}
void ISA(map_fn)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    BY_FN(fn_loop, job, i0, i1)
}

INLINE void fn_back_loop(const struct map_job *job, enum act_fn fn, int64_t i0, int64_t i1)
{
    for (int64_t i = i0; i < i1; i += 16)
        store_until(job->out, i, i1, vf_mul(load_until(job->a, i, i1), slope(fn, load_until(job->b, i, i1))));
}
void ISA(map_fn_back)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    BY_FN(fn_back_loop, job, i0, i1)
}

INLINE void glu_loop(const struct map_job *job, enum act_fn fn, int64_t i0, int64_t i1)
{
    for (int64_t i = i0; i < i1; i += 16)
        store_until(job->out, i, i1, vf_mul(value(fn, load_until(job->a, i, i1)), load_until(job->b, i, i1)));
}
void ISA(map_glu)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    BY_FN(glu_loop, job, i0, i1)
}

INLINE void glu_back_loop(const struct map_job *job, enum act_fn fn, int64_t i0, int64_t i1)
{
    for (int64_t i = i0; i < i1; i += 16) {
        vf dy = load_until(job->a, i, i1), gate = load_until(job->b, i, i1), up = load_until(job->c, i, i1);
        store_until(job->out, i, i1, vf_mul(vf_mul(dy, up), slope(fn, gate)));
        store_until(job->out2, i, i1, vf_mul(dy, value(fn, gate)));
    }
}
void ISA(map_glu_back)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    BY_FN(glu_back_loop, job, i0, i1)
}

void ISA(map_add)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i += 16)
        store_until(job->out, i, i1, vf_add(load_until(job->a, i, i1), load_until(job->b, i, i1)));
}

INLINE vf function(int fn, vf x)
{
    return fn == FUNCTION_EXP    ? vf_exp(x)
           : fn == FUNCTION_LOG  ? vf_log(x)
           : fn == FUNCTION_TANH ? vf_tanh(x)
           : fn == FUNCTION_ERF  ? vf_erf(x)
                                 : vf_exp_down(x);
}
void ISA(map_function)(const void *ctx, int64_t i0, int64_t i1)
{
    const struct map_job *job = ctx;
    for (int64_t i = i0; i < i1; i += 16)
        store_until(job->out, i, i1, function(job->fn, load_until(job->a, i, i1)));
}
