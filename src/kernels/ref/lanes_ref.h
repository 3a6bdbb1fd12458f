/* lanes_ref - the scalar lane type of fn_body.h, and the functions of `real` for the reference kernels
 *
 * In the gradient-check build (`real` = double, tests only) they are libm's.
 */
#ifndef KERNELS_REF_LANES_REF_H
#define KERNELS_REF_LANES_REF_H

#include "kernels/kernels_private.h"

typedef float vf;
typedef bool vm;
static inline vf vf_set(float x)
{
    return x;
}
static inline vf vf_add(vf a, vf b)
{
    return a + b;
}
static inline vf vf_sub(vf a, vf b)
{
    return a - b;
}
static inline vf vf_mul(vf a, vf b)
{
    return a * b;
}
static inline vf vf_div(vf a, vf b)
{
    return a / b;
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return fmaf(a, b, c);
}
static inline vf vf_rint(vf a)
{
    return rintf(a);
}
static inline vf vf_abs(vf a)
{
    return fabsf(a);
}
static inline vf vf_copysign(vf a, vf s)
{
    return copysignf(a, s);
}
static inline vm vf_lt(vf a, vf b)
{
    return a < b;
}
static inline vm vf_ge(vf a, vf b)
{
    return a >= b;
}
static inline vm vf_eq(vf a, vf b)
{
    return a == b;
}
static inline vf vf_pick(vm m, vf yes, vf no)
{
    return m ? yes : no;
}
static inline int32_t float_bits(float f)
{
    int32_t i;
    memcpy(&i, &f, 4);
    return i;
}
static inline float float_of_bits(int32_t i)
{
    float f;
    memcpy(&f, &i, 4);
    return f;
}
/* x 2^n by adding to the exponent bits: the caller keeps the result normal. n is whole. */
static inline vf vf_shift_exponent(vf x, vf n)
{
    return float_of_bits((int32_t)((uint32_t)float_bits(x) + ((uint32_t)(int32_t)n << 23)));
}
/* x = m 2^e with m in [sqrt 1/2, sqrt 2), for normal positive x; anything, but no trap, for others. */
static inline vf vf_split_exponent(vf x, vf *m)
{
    int32_t e = (int32_t)((uint32_t)float_bits(x) - 0x3f3504f3u) >> 23;
    *m = float_of_bits((int32_t)((uint32_t)float_bits(x) - ((uint32_t)e << 23)));
    return (float)e;
}

#include "kernels/fn_body.h"

#ifdef INGOT_REAL_DOUBLE
static inline real real_exp(real x)
{
    return exp(x);
}
static inline real real_log(real x)
{
    return log(x);
}
static inline real real_tanh(real x)
{
    return tanh(x);
}
static inline real real_erf(real x)
{
    return erf(x);
}
#else
static inline real real_exp(real x)
{
    return vf_exp(x);
}
static inline real real_log(real x)
{
    return vf_log(x);
}
static inline real real_tanh(real x)
{
    return vf_tanh(x);
}
static inline real real_erf(real x)
{
    return vf_erf(x);
}
#endif

#endif
