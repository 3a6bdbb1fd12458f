#include "base/rng.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

void rng_init(struct rng *r, uint64_t seed)
{
    *r = (struct rng){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)}};
}

uint32_t rng_u32(struct rng *r)
{
    if (r->left == 0) {
        philox4x32(r->words, r->counter, r->key);
        for (int i = 0; i < 4 && ++r->counter[i] == 0; i++) {
        }
        r->left = 4;
    }
    return r->words[4 - r->left--];
}

uint64_t rng_u64(struct rng *r)
{
    uint64_t low = rng_u32(r);
    return low | (uint64_t)rng_u32(r) << 32;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    /* Lemire 2019: multiply, and reject the few low parts that would make some results likelier. */
    __uint128_t m = (__uint128_t)rng_u64(r) * n;
    if ((uint64_t)m < n) {
        uint64_t threshold = (0 - n) % n;
        while ((uint64_t)m < threshold)
            m = (__uint128_t)rng_u64(r) * n;
    }
    return (uint64_t)(m >> 64);
}

/* Natural logarithm of x in (0, 1): 2 atanh((m-1)/(m+1)) with m in [0.7, 1.4), series to s^21 (error below 1e-16). */
static double ln(double x)
{
    int e;
    double m = frexp(x, &e), sum = 0;
    if (m < 0.70710678118654752)
        m *= 2, e--;
    double s = (m - 1) / (m + 1), s2 = s * s;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * s2 + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994531;
}

static double ratio(const double p[8], const double q[8], double x)
{
    double a = p[7], b = q[7];
    for (int i = 6; i >= 0; i--) {
        a = a * x + p[i];
        b = b * x + q[i];
    }
    return a / b;
}

/* Wichura 1988, algorithm AS 241 (PPND16): the normal quantile, relative error about 1e-16. */
static double normal_quantile(double p)
{
    static const double central[2][8] = {
        {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
         4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3},
        {1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
         3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3}};
    static const double tail[2][8] = {
        {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
         1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
        {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
         1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};
    static const double far_tail[2][8] = {
        {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
         2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
        {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
         7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15}};
    double q = p - 0.5;
    if (fabs(q) <= 0.425)
        return q * ratio(central[0], central[1], 0.180625 - q * q);
    double r = sqrt(-ln(q < 0 ? p : 1 - p));
    double x = r <= 5 ? ratio(tail[0], tail[1], r - 1.6) : ratio(far_tail[0], far_tail[1], r - 5);
    return q < 0 ? -x : x;
}

float rng_normal(struct rng *r)
{
    return (float)normal_quantile(((double)rng_u32(r) + 0.5) * 0x1p-32);
}

uint64_t rng_entropy(void)
{
    uint64_t v;
    if (getrandom(&v, sizeof v, 0) == (ssize_t)sizeof v)
        return v;
    /* A kernel without getrandom: the clock and an address are poor, but better than a constant. */
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return ((uint64_t)t.tv_nsec << 32) ^ (uint64_t)t.tv_sec ^ (uint64_t)(uintptr_t)&v;
}
