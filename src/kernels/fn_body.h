/* fn_body - exp, log, tanh, erf of f32: one definition, compiled once a lane type (docs/numerics.md section 4)
 *
 * Included after a lanes header (ref/lanes_ref.h, x86/lanes_avx2.h, x86/lanes_avx512.h), which gives `vf`, a vector of
 * f32, and the exact operations on it. Every step below is one rounding, so every lane type gives the same bits.
 * The polynomials are minimax fits (Lawson's iteration, weighted for relative error of the whole function).
 * Measured against long double over all f32 arguments: docs/numerics.md section 4.
 */

#define EXP_LOW (-87.33654f) /* ln(2^-126) */

/* e^x = 2^n (1 + r + r^2 q(r)), n = rint(x / ln 2), for ln(2^-126) <= x < ln(2^128). */
static inline vf vf_exp_inner(vf x)
{
    vf n = vf_rint(vf_mul(x, vf_set(0x1.715476p+0f)));
    vf r = vf_fma(n, vf_set(-0x1.62e4p-1f), x); /* ln 2 in two parts; n times the first is exact */
    r = vf_fma(n, vf_set(-0x1.7f7d1cp-20f), r);
    vf q = vf_fma(vf_set(0x1.6a23eep-10f), r, vf_set(0x1.123a0cp-7f));
    q = vf_fma(q, r, vf_set(0x1.5558f2p-5f));
    q = vf_fma(q, r, vf_set(0x1.555492p-3f));
    q = vf_fma(q, r, vf_set(0x1.fffffcp-2f));
    return vf_shift_exponent(vf_add(vf_fma(vf_mul(r, r), q, r), vf_set(1.0f)), n);
}

/* Below ln(2^-126) 0: results are never subnormal. */
static inline vf vf_exp(vf x)
{
    const vf low = vf_set(EXP_LOW), high = vf_set(88.72283f);
    vm above = vf_ge(x, low); /* false for NaN too */
    vf c = vf_pick(above, x, low);
    vm below = vf_ge(high, c);
    vf y = vf_exp_inner(vf_pick(below, c, high));
    y = vf_pick(below, y, vf_set(INFINITY));
    y = vf_pick(above, y, vf_set(0.0f));
    return vf_pick(vf_eq(x, x), y, x);
}

/* log x = e ln 2 + log(1 + f), 1 + f in [sqrt 1/2, sqrt 2). Subnormals count as zero: -inf. Negative: NaN. */
static inline vf vf_log(vf x)
{
    vf m, e = vf_split_exponent(x, &m);
    vf f = vf_sub(m, vf_set(1.0f)), z = vf_mul(f, f);
    vf p = vf_fma(vf_set(0x1.145724p-4f), f, vf_set(-0x1.de3bf2p-4f));
    p = vf_fma(p, f, vf_set(0x1.e6f094p-4f));
    p = vf_fma(p, f, vf_set(-0x1.fc2210p-4f));
    p = vf_fma(p, f, vf_set(0x1.233766p-3f));
    p = vf_fma(p, f, vf_set(-0x1.555c4ep-3f));
    p = vf_fma(p, f, vf_set(0x1.99a4b6p-3f));
    p = vf_fma(p, f, vf_set(-0x1.000006p-2f));
    p = vf_fma(p, f, vf_set(0x1.555548p-2f));
    vf y = vf_mul(vf_mul(f, z), p);
    y = vf_fma(e, vf_set(-0x1.bd0106p-13f), y); /* the low part of ln 2 */
    y = vf_fma(vf_set(-0.5f), z, y);
    y = vf_fma(e, vf_set(0x1.63p-1f), vf_add(f, y));
    y = vf_pick(vf_ge(x, vf_set(0x1p-126f)), y, vf_set(-INFINITY));
    y = vf_pick(vf_ge(vf_set(-0x1p-126f), x), vf_set(NAN), y);
    return vf_pick(vf_lt(x, vf_set(INFINITY)), y, vf_abs(x)); /* +inf and NaN */
}

/* Near zero x + x^3 p(x^2), else 1 - 2 / (e^2|x| + 1). */
static inline vf vf_tanh(vf x)
{
    vf a = vf_abs(x), z = vf_mul(x, x);
    vf p = vf_fma(vf_set(-0x1.75e1a8p-8f), z, vf_set(0x1.522692p-6f));
    p = vf_fma(p, z, vf_set(-0x1.b83c58p-5f));
    p = vf_fma(p, z, vf_set(0x1.110726p-3f));
    p = vf_fma(p, z, vf_set(-0x1.555532p-2f));
    vf small = vf_fma(vf_mul(p, z), x, x);
    vf e = vf_exp(vf_add(a, a));
    vf big = vf_sub(vf_set(1.0f), vf_div(vf_set(2.0f), vf_add(e, vf_set(1.0f))));
    return vf_copysign(vf_pick(vf_lt(a, vf_set(0.625f)), small, big), x);
}

/* Below 1 x + x p(x^2), else 1 - e^q(|x|), q = log erfc; 1 from 4 on. */
static inline vf vf_erf(vf x)
{
    vf a = vf_abs(x), z = vf_mul(x, x);
    vf p = vf_fma(vf_set(0x1.496a1ep-14f), z, vf_set(-0x1.a3f6f8p-11f));
    p = vf_fma(p, z, vf_set(0x1.5405b0p-8f));
    p = vf_fma(p, z, vf_set(-0x1.b7f90cp-6f));
    p = vf_fma(p, z, vf_set(0x1.ce2cf8p-4f));
    p = vf_fma(p, z, vf_set(-0x1.81273ep-2f));
    p = vf_fma(p, z, vf_set(0x1.06eba8p-3f));
    vf small = vf_fma(x, p, x);
    vf b = vf_pick(vf_lt(vf_set(4.0f), a), vf_set(4.0f), a);
    vf q = vf_fma(vf_set(0x1.86de0cp-13f), b, vf_set(-0x1.825b48p-9f));
    q = vf_fma(q, b, vf_set(0x1.65cb9ep-6f));
    q = vf_fma(q, b, vf_set(-0x1.a65356p-4f));
    q = vf_fma(q, b, vf_set(-0x1.46bae8p-1f));
    q = vf_fma(q, b, vf_set(-0x1.2088ecp+0f));
    q = vf_fma(q, b, vf_set(-0x1.661a16p-12f));
    vf big = vf_sub(vf_set(1.0f), vf_exp(q));
    return vf_copysign(vf_pick(vf_lt(a, vf_set(1.0f)), small, big), x);
}
