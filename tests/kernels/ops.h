/* ops - small helpers of this room's operation tests: repeatable numbers, pages, comparisons */
#ifndef TESTS_KERNELS_OPS_H
#define TESTS_KERNELS_OPS_H

#include <math.h>

#include "test.h"
#include "kernels/kernels_private.h"

static inline uint64_t noise_next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* About normal, standard deviation `scale`: the sum of four uniforms. */
static inline void noise_fill(real *x, size_t n, real scale, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < 4; j++)
            sum += (double)(noise_next(&seed) >> 11) * 0x1p-53 - 0.5;
        x[i] = (real)(sum * 1.7320508) * scale;
    }
}
static inline real *noise_new(size_t n, real scale, uint64_t seed)
{
    real *x = malloc((n ? n : 1) * sizeof *x);
    assert_non_null(x);
    noise_fill(x, n, scale, seed);
    return x;
}
static inline real *zeros_new(size_t n)
{
    real *x = calloc(n ? n : 1, sizeof *x);
    assert_non_null(x);
    return x;
}
static inline real *copy_of(const real *x, size_t n)
{
    real *y = malloc((n ? n : 1) * sizeof *y);
    assert_non_null(y);
    memcpy(y, x, n * sizeof *y);
    return y;
}
/* Equal bits; NaN equals NaN whatever its payload (docs/numerics.md section 7). */
static inline bool same_bits(const real *a, const real *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(a[i] != a[i] && b[i] != b[i]))
            return false;
    return true;
}

/* Pages for `n_token` tokens a sequence, in an order that is not the identity, filled with stale NaN. */
struct pages {
    void *layer;
    int32_t *blocks;
    int n_block;
};
static inline struct pages pages_new(const struct kv_layout *l, int n_token, int n_sequence)
{
    struct pages p = {.n_block = (n_token + KV_BLOCK - 1) / KV_BLOCK * n_sequence};
    size_t bytes = kv_page_bytes(l) * (size_t)p.n_block;
    p.layer = aligned_alloc(64, bytes);
    p.blocks = malloc((size_t)p.n_block * sizeof *p.blocks);
    assert_true(p.layer && p.blocks);
    memset(p.layer, 0xff, bytes); /* f32, f16 and scales: NaN */
    for (int i = 0; i < p.n_block; i++)
        p.blocks[i] = p.n_block - 1 - i;
    return p;
}
static inline void pages_free(struct pages *p)
{
    free(p->layer);
    free(p->blocks);
}

#endif
