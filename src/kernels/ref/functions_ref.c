/* functions_ref - the elementary functions of the door: f32 through fn_body.h, f64 for load time
 *
 * Source   argument reductions after Cody and Waite 1980; the series are Taylor's, long enough for 53 bits
 * Numbers  every step is one rounding, fused where written: equal bits everywhere. Errors: docs/numerics.md section 4
 */
#include "kernels/ref/lanes_ref.h"

float fn_exp(float x)
{
    return vf_exp(x);
}
float fn_log(float x)
{
    return vf_log(x);
}
float fn_tanh(float x)
{
    return vf_tanh(x);
}
float fn_erf(float x)
{
    return vf_erf(x);
}

/* log(1 + x) = log u + c / u, where u = 1 + x rounded and c is what the rounding lost. */
float fn_log1p(float x)
{
    float u = 1.0f + x;
    if (!(x > -1.0f && x < 0x1p24f))
        return vf_log(u);
    float c = x < 1.0f ? x - (u - 1.0f) : 1.0f - (u - x);
    return vf_log(u) + c / u;
}

/* ---- f64 ---- */
static uint64_t bits64(double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}
static double double_of_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, 8);
    return x;
}
static double polynomial(const double *c, int n, double x)
{
    double y = c[n - 1];
    for (int i = n - 2; i >= 0; i--)
        y = fma(y, x, c[i]);
    return y;
}

/* ln 2 in two parts: n times the first is exact for |n| < 2^20 */
#define LN2_HIGH 0x1.62e42fefap-1
#define LN2_LOW  0x1.cf79abc9e3b3ap-40

/* e^(high + low), |low| tiny. Results below 2^-1022 are 0. */
static double exp_sum(double high, double low)
{
    static const double c[] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,
                               1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                               1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
    if (high != high)
        return high;
    if (high > 0x1.62e42fefa39efp+9)
        return INFINITY;
    if (high < -0x1.6232bdd7abcd2p+9)
        return 0;
    double n = rint(high * 0x1.71547652b82fep+0);
    double r = fma(n, -LN2_HIGH, high), t = fma(n, -LN2_LOW, low);
    double s = r + t, rest = (r - s) + t;
    double y = 1.0 + (s + fma(s * s, polynomial(c, 12, s), rest));
    return double_of_bits(bits64(y) + ((uint64_t)(int64_t)n << 52));
}

/* log x as high + low for normal positive x: 2 atanh(f / (2 + f)) + e ln 2 */
static void log_parts(double x, double *high, double *low)
{
    static const double c[] = {1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9,  1.0 / 11, 1.0 / 13,
                               1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21, 1.0 / 23};
    int64_t shift = (int64_t)(bits64(x) - 0x3fe6a09e667f3bcdu) >> 52;
    double m = double_of_bits(bits64(x) - ((uint64_t)shift << 52)), e = (double)shift;
    double f = m - 1.0, u = 2.0 + f, u_low = f - (u - 2.0);
    double s = f / u, s_low = fma(-s, u_low, fma(-s, u, f)) / u, z = s * s;
    double tail = fma(2.0 * s * z, polynomial(c, 11, z), fma(e, LN2_LOW, 2.0 * s_low));
    double a = e * LN2_HIGH, b = 2.0 * s, sum = a + b, b_part = sum - a;
    tail += (a - (sum - b_part)) + (b - b_part);
    *high = sum + tail;
    *low = (sum - *high) + tail;
}

double fn_exp64(double x)
{
    return exp_sum(x, 0);
}

double fn_log64(double x)
{
    if (x != x || x == INFINITY)
        return x;
    if (x < 0x1p-1022)
        return x > -0x1p-1022 ? -INFINITY : NAN;
    double high, low;
    log_parts(x, &high, &low);
    return high;
}

/* x^y for x >= 0; a negative x gives NaN, as nobody here needs one. */
double fn_pow(double x, double y)
{
    if (y == 0 || x == 1)
        return 1;
    if (!(x >= 0x1p-1022 && x < INFINITY) || y - y != 0)
        return exp_sum(fn_log64(x) * y, 0);
    double high, low;
    log_parts(x, &high, &low);
    double p = high * y;
    return exp_sum(p, fma(high, y, -p) + low * y);
}

/* x = n pi/2 + high + low, |high| <= pi/4; n modulo 4 returned. |x| < 2^30. */
static int reduce_quarter(double x, double *high, double *low)
{
    double n = rint(x * 0x1.45f306dc9c883p-1);
    double r = fma(n, -0x1.921fb54442d18p+0, x), p = n * 0x1.1a62633145c07p-54;
    *high = r - p;
    *low = (r - *high) - p;
    return (int)((int64_t)n & 3);
}

static double sin_part(double x, double low)
{
    static const double c[] = {-1.0 / 6,         1.0 / 120,         -1.0 / 5040,           1.0 / 362880,
                               -1.0 / 39916800., 1.0 / 6227020800., -1.0 / 1307674368000., 1.0 / 355687428096000.};
    double z = x * x;
    return x + fma(x * z, polynomial(c, 8, z), low * fma(-0.5, z, 1.0));
}
static double cos_part(double x, double low)
{
    static const double c[] = {1.0 / 24,         -1.0 / 720,          1.0 / 40320,           -1.0 / 3628800,
                               1.0 / 479001600., -1.0 / 87178291200., 1.0 / 20922789888000., -1.0 / 6402373705728000.};
    double z = x * x, half = 0.5 * z, w = 1.0 - half;
    return w + (((1.0 - w) - half) + fma(z * z, polynomial(c, 8, z), -x * low));
}

double fn_sin(double x)
{
    if (!(x > -0x1p30 && x < 0x1p30))
        return NAN;
    double high, low;
    int quarter = reduce_quarter(x, &high, &low);
    double y = quarter & 1 ? cos_part(high, low) : sin_part(high, low);
    return quarter & 2 ? -y : y;
}

double fn_cos(double x)
{
    if (!(x > -0x1p30 && x < 0x1p30))
        return NAN;
    double high, low;
    int quarter = reduce_quarter(x, &high, &low);
    double y = quarter & 1 ? sin_part(high, low) : cos_part(high, low);
    return (quarter + 1) & 2 ? -y : y;
}
