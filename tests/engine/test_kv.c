#include "test.h"

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_private.h"

static struct error err;

/* 10,000 random steps against a naive twin: an owner for each block, and the order in which blocks were freed. */
static void test_kv_equals_naive_twin(void **state)
{
    (void)state;
    enum { BLOCKS = 37, OWNERS = 9, TOKENS = 20 * KV_BLOCK };
    struct kv_pool p;
    struct kv_blocks b[OWNERS];
    int32_t ids[OWNERS][20], owner[BLOCKS];
    uint64_t freed_at[BLOCKS], now = 0;
    struct rng r;
    rng_init(&r, 11);
    OK(kv_pool_init(&p, BLOCKS, &err));
    for (int i = 0; i < OWNERS; i++)
        b[i] = (struct kv_blocks){ids[i], 0, 20};
    for (int i = 0; i < BLOCKS; i++) {
        owner[i] = -1;
        freed_at[i] = now++;
    }
    int refused = 0;
    for (int step = 0; step < 10000; step++) {
        int o = (int)rng_below(&r, OWNERS), n_free = 0;
        for (int i = 0; i < BLOCKS; i++)
            n_free += owner[i] < 0;
        assert_int_equal(p.n_free, n_free);
        if (rng_below(&r, 4) == 0) {
            for (int i = 0; i < b[o].count; i++) {
                owner[b[o].ids[i]] = -1;
                freed_at[b[o].ids[i]] = now++;
            }
            kv_release(&p, &b[o]);
            assert_int_equal(b[o].count, 0);
            continue;
        }
        int tokens = (int)rng_below(&r, TOKENS + 1), wanted = (tokens + 63) / 64, old = b[o].count;
        bool fits = wanted - old <= n_free;
        assert_int_equal(kv_reserve(&p, &b[o], tokens), fits);
        refused += !fits;
        assert_int_equal(b[o].count, fits && wanted > old ? wanted : old);
        for (int i = old; i < b[o].count; i++) { /* the one freed longest ago comes first */
            int oldest = -1;
            for (int k = 0; k < BLOCKS; k++)
                if (owner[k] < 0 && (oldest < 0 || freed_at[k] < freed_at[oldest]))
                    oldest = k;
            assert_int_equal(b[o].ids[i], oldest);
            owner[oldest] = o;
        }
    }
    assert_true(refused > 500);
    kv_pool_free(&p);
}

static void test_kv_block_counts(void **state)
{
    (void)state;
    assert_int_equal(kv_blocks_for(0), 0);
    assert_int_equal(kv_blocks_for(1), 1);
    assert_int_equal(kv_blocks_for(64), 1);
    assert_int_equal(kv_blocks_for(65), 2);
    struct kv_pool p;
    for (uint64_t n = 1; n <= 2; n++) {
        fault_arm(FAULT_ALLOC, n);
        FAILS(ST_NOMEM, kv_pool_init(&p, 4, &err));
    }
    fault_disarm();
}

static void test_kv_memory_is_aligned_and_zero(void **state)
{
    (void)state;
    for (size_t size = 1; size < ((size_t)5 << 20); size = size * 3 + 1) {
        void *base;
        unsigned char *p = alloc_untouched(size, &base);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_int_equal(p[0] | p[size / 2] | p[size - 1], 0);
        p[0] = p[size - 1] = 1;
        mem_free(base);
    }
    void *base;
    assert_null(alloc_untouched(SIZE_MAX - 3, &base));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_equals_naive_twin),
        cmocka_unit_test(test_kv_block_counts),
        cmocka_unit_test(test_kv_memory_is_aligned_and_zero),
    };
    return RUN(tests);
}
