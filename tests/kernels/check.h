/* check - random inputs, collected outputs: what the tests of kernel rows share
 *
 * check_op(sink, pool) runs an operation through its door on inputs that are the same each time, and puts every
 * output's bits into the sink. Two sinks of two instruction sets must be equal. NaN is one value, whatever its payload.
 */
#ifndef TESTS_KERNELS_CHECK_H
#define TESTS_KERNELS_CHECK_H

#include "test.h"

#include "kernels/kernels_private.h"

struct sink {
    uint8_t *bytes;
    size_t n, capacity;
};

static inline void sink_bytes(struct sink *s, const void *p, size_t n)
{
    if (s->n + n > s->capacity) {
        s->capacity = 2 * s->capacity + n;
        s->bytes = realloc(s->bytes, s->capacity);
        assert_non_null(s->bytes);
    }
    memcpy(s->bytes + s->n, p, n);
    s->n += n;
}

static inline void sink_reals(struct sink *s, const real *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        real v = x[i] == x[i] ? x[i] : (real)NAN;
        sink_bytes(s, &v, sizeof v);
    }
}

static inline bool sink_equal(const struct sink *a, const struct sink *b)
{
    return a->n == b->n && a->n > 0 && memcmp(a->bytes, b->bytes, a->n) == 0;
}

static inline void sink_free(struct sink *s)
{
    free(s->bytes);
    *s = (struct sink){0};
}

/* splitmix64: the test's own, so that inputs do not depend on what is tested. */
static inline uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
/* -1 .. 1, 24 bits */
static inline float draw_float(uint64_t *state)
{
    return (float)((int32_t)(draw(state) >> 32) >> 7) * 0x1p-24f;
}

static inline void *grab(size_t n)
{
    void *p = aligned_alloc(64, (n + 127) / 64 * 64);
    assert_non_null(p);
    memset(p, 0xa5, (n + 127) / 64 * 64); /* outputs must be written, not found */
    return p;
}

static inline real *random_reals(uint64_t *state, int64_t n)
{
    real *x = grab((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = draw_float(state);
    return x;
}

#endif
