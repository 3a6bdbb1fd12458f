#include "test.h"

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_private.h"

#include <string.h>

static struct error err;

enum { BLOCKS = 37, OWNERS = 9, LIST = 20, TOKENS = LIST * KV_BLOCK, SYMBOLS = 2 };

/* What the blocks really hold, written as a model would: a cell is a hash of all ids up to it. */
struct memory {
    uint64_t cells[BLOCKS][KV_BLOCK];
};

static uint64_t mix(uint64_t h, int32_t id)
{
    h = (h ^ (uint64_t)(id + 1)) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static void copy(void *ctx, int32_t to, int32_t from)
{
    struct memory *m = ctx;
    memcpy(m->cells[to], m->cells[from], sizeof m->cells[to]);
}

struct owner {
    struct kv_blocks b;
    int32_t list[LIST], ids[TOKENS];
    int n_ids, n_done;
    struct hash128 root;
};

struct world {
    struct kv_pool p;
    struct memory m;
    struct owner owners[OWNERS];
    uint64_t hits, refused, truncated;
    struct kv_stats stats;
};

/* The twin: counts owners by hand, walks the lists, and reads back every cell that anyone may believe. */
static bool world_holds(const struct world *w, const struct hash128 *roots, int n_root)
{
    const struct kv_pool *p = &w->p;
    int refs[BLOCKS] = {0}, n_free = 0;
    for (int o = 0; o < OWNERS; o++) {
        const struct owner *x = &w->owners[o];
        uint64_t h = 7;
        for (int i = 0; i < x->b.count; i++)
            refs[x->b.ids[i]]++;
        assert_true(x->b.count >= kv_blocks_for(x->n_done));
        assert_true(!p->cache || x->b.n_committed == x->n_done);
        for (int i = 0; i < x->n_done; i++) {
            h = mix(h, x->ids[i]);
            if (w->m.cells[x->b.ids[i / KV_BLOCK]][i % KV_BLOCK] != h)
                return false;
        }
    }
    bool cached = false; /* the free list: those the index does not know, then those it does */
    for (int32_t b = p->first_free, before = -1; b >= 0; before = b, b = p->blocks[b].next, n_free++) {
        assert_int_equal(p->blocks[b].prev, before);
        assert_int_equal(refs[b], 0);
        assert_true(!cached || p->blocks[b].n_token > 0);
        cached = p->blocks[b].n_token > 0;
    }
    assert_int_equal(n_free, p->n_free);
    for (int b = 0; b < BLOCKS; b++) {
        assert_int_equal(p->blocks[b].n_ref, refs[b]);
        n_free -= refs[b] == 0;
    }
    assert_int_equal(n_free, 0);
    for (int b = 0; b < BLOCKS;
         b++) { /* every known block stands where the index says, behind a root or a full block */
        const struct kv_block *x = &p->blocks[b];
        if (!x->n_token)
            continue;
        int twins = 0, found = 0;
        for (int32_t i = p->by_parent[x->parent.word[1] & p->mask]; i >= 0; i = p->blocks[i].next_parent)
            found += i == b;
        assert_int_equal(found, 1);
        for (int i = 0; x->n_token == KV_BLOCK && i < BLOCKS; i++)
            twins += p->blocks[i].n_token == KV_BLOCK && hash128_equal(&p->blocks[i].key, &x->key);
        assert_int_equal(twins, x->n_token == KV_BLOCK);
        for (int i = 0; i < n_root; i++) { /* the first of a chain: its cells from its own ids */
            uint64_t h = 7;
            for (int k = 0; hash128_equal(&x->parent, &roots[i]) && k < x->n_token; k++)
                if (w->m.cells[b][k] != (h = mix(h, x->ids[k])))
                    return false;
        }
    }
    return true;
}

/* Computes what is missing, as the engine would: room first, then cells, then commit. */
static bool compute(struct world *w, struct owner *x, int n_ids)
{
    if (!kv_reserve(&w->p, &x->b, x->n_done, n_ids)) {
        w->refused++;
        return false;
    }
    for (int i = x->n_done; i < n_ids; i++) {
        uint64_t before = i ? w->m.cells[x->b.ids[(i - 1) / KV_BLOCK]][(i - 1) % KV_BLOCK] : 7;
        w->m.cells[x->b.ids[i / KV_BLOCK]][i % KV_BLOCK] = mix(before, x->ids[i]);
    }
    x->n_done = n_ids;
    prefix_commit(&w->p, &x->b, &x->root, x->ids, n_ids);
    return true;
}

static void release(struct world *w, struct owner *x)
{
    kv_release(&w->p, &x->b);
    x->n_done = 0;
}

/* The longest beginning in whole blocks that any known chain offers: found by looking at all of them. */
static int naive_match(const struct kv_pool *p, const struct owner *x, int most)
{
    struct hash128 at = x->root;
    int n = 0;
    for (bool more = p->cache; more && n + KV_BLOCK <= most;) {
        more = false;
        for (int b = 0; b < BLOCKS && !more; b++) {
            const struct kv_block *k = &p->blocks[b];
            more =
                k->n_token == KV_BLOCK && hash128_equal(&k->parent, &at) && !memcmp(k->ids, x->ids + n, sizeof k->ids);
            if (more)
                at = k->key;
        }
        n += more ? KV_BLOCK : 0;
    }
    return n;
}

static void begin(struct world *w, struct owner *x, struct rng *r, const struct hash128 *roots, int n_root)
{
    release(w, x);
    x->root = roots[rng_below(r, (uint64_t)n_root)];
    x->n_ids = 1 + (int)rng_below(r, 8 * KV_BLOCK);
    for (int i = 0; i < x->n_ids; i++) /* few different prompts, so that they meet */
        x->ids[i] = i % 50 ? i % 3 : (int32_t)rng_below(r, SYMBOLS);
    int want = naive_match(&w->p, x, x->n_ids - 1);
    int n = prefix_match(&w->p, &x->b, &x->root, x->ids, x->n_ids - 1);
    assert_int_equal(n, want);
    int with_tail = prefix_tail(&w->p, &x->b, &x->root, x->ids, x->n_ids - 1);
    assert_true(with_tail >= n && with_tail < n + KV_BLOCK && with_tail < x->n_ids);
    if (!kv_reserve(&w->p, &x->b, with_tail, with_tail + 1)) {
        kv_truncate(&w->p, &x->b, n);
        with_tail = n;
    }
    x->n_done = with_tail;
    w->hits += (uint64_t)with_tail;
}

static void step(struct world *w, struct rng *r, const struct hash128 *roots, int n_root)
{
    struct owner *x = &w->owners[rng_below(r, OWNERS)], *y = &w->owners[rng_below(r, OWNERS)];
    uint64_t what = rng_below(r, 10);
    if (what == 0 && rng_below(r, 4) == 0) {
        release(w, x);
    } else if (what <= 1) {
        begin(w, x, r, roots, n_root);
    } else if (what == 4 && x->n_done > 1) {
        int most = rng_below(r, 4) && x->n_done > 70 ? 70 : x->n_done;
        x->n_done -= 1 + (int)rng_below(r, (uint64_t)most);
        kv_truncate(&w->p, &x->b, x->n_done);
        x->n_ids = x->n_done + 1;
        w->truncated++;
    } else {
        int more = 1 + (int)rng_below(r, rng_below(r, 2) ? 3 : 4 * KV_BLOCK);
        int n = x->n_done + more < TOKENS ? x->n_done + more : TOKENS;
        for (; x->n_ids < n; x->n_ids++)
            x->ids[x->n_ids] = (int32_t)rng_below(r, SYMBOLS);
        if (!compute(w, x, n) && rng_below(r, 4) == 0)
            release(w, y);
    }
}

static bool run_world(struct world *w, uint64_t seed, bool cache, bool poison, int steps)
{
    struct rng r;
    struct hash128 roots[2];
    rng_init(&r, seed);
    memset(w, 0, sizeof *w);
    OK(kv_pool_init(&w->p, BLOCKS, cache, &err));
    static struct memory nowhere;
    w->p.copy_block = copy;
    w->p.copy_ctx = poison ? &nowhere : &w->m;
    roots[0] = prefix_root(&w->p, STR("a"), 0);
    roots[1] = prefix_root(&w->p, STR("b"), 0);
    bool holds = true;
    for (int i = 0; i < OWNERS; i++)
        w->owners[i].b = (struct kv_blocks){w->owners[i].list, 0, LIST, 0};
    for (int i = 0; i < steps && holds; i++) {
        step(w, &r, roots, 2);
        holds = world_holds(w, roots, 2);
    }
    for (int i = 0; i < OWNERS; i++)
        release(w, &w->owners[i]);
    assert_int_equal(w->p.n_free, BLOCKS);
    w->stats = w->p.stats;
    kv_pool_free(&w->p);
    return holds;
}

static void test_kv_equals_naive_twin(void **state)
{
    (void)state;
    struct world *w = malloc(sizeof *w);
    for (int cache = 0; cache < 2; cache++) {
        assert_true(run_world(w, 11, cache, false, 10000));
        print_message("cache %d: %llu hits, %llu refused, %llu truncated, %llu copies, %llu evictions\n", cache,
                      (unsigned long long)w->hits, (unsigned long long)w->refused, (unsigned long long)w->truncated,
                      (unsigned long long)w->stats.copies, (unsigned long long)w->stats.evictions);
        assert_true(w->refused > 100 && w->truncated > 100);
        assert_true(cache ? w->hits > 10000 && w->stats.copies > 100 : w->hits == 0 && w->stats.copies == 0);
    }
    assert_false(run_world(w, 11, true, true, 10000)); /* copies that go nowhere are noticed */
    free(w);
}

/* ---- single behaviours ---- */

static void fill(struct world *w, struct owner *x, int seed, int n)
{
    for (int i = 0; i < n; i++)
        x->ids[i] = seed + i;
    x->n_ids = n;
    assert_true(compute(w, x, n));
}

static void world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    OK(kv_pool_init(&w->p, BLOCKS, true, &err));
    w->p.copy_block = copy;
    w->p.copy_ctx = &w->m;
    for (int i = 0; i < OWNERS; i++) {
        w->owners[i].b = (struct kv_blocks){w->owners[i].list, 0, LIST, 0};
        w->owners[i].root = prefix_root(&w->p, STR(""), 0);
    }
}

static void test_kv_oldest_goes_first_tail_first(void **state)
{
    (void)state;
    struct world *w = malloc(sizeof *w);
    world_init(w);
    struct owner *a = &w->owners[0], *b = &w->owners[1], *c = &w->owners[2];
    fill(w, a, 100, 10 * KV_BLOCK);
    fill(w, b, 500, 10 * KV_BLOCK);
    int32_t last = a->list[9], before_last = a->list[8], of_b = b->list[9];
    release(w, a);
    release(w, b);
    fill(w, c, 3000, 17 * KV_BLOCK); /* 17 were never used */
    assert_int_equal(w->p.stats.evictions, 0);
    fill(w, c, 3000, 18 * KV_BLOCK);
    assert_int_equal(c->list[17], last);
    fill(w, c, 3000, 19 * KV_BLOCK);
    assert_int_equal(c->list[18], before_last);
    assert_int_equal(w->p.stats.evictions, 2);
    assert_int_equal(prefix_match(&w->p, &a->b, &a->root, a->ids, 10 * KV_BLOCK), 8 * KV_BLOCK);
    release(w, a); /* used again: now b's are the oldest */
    fill(w, c, 3000, 20 * KV_BLOCK);
    assert_int_equal(c->list[19], of_b);
    for (int i = 0; i < 3; i++)
        release(w, &w->owners[i]);
    kv_pool_free(&w->p);
    free(w);
}

static void test_prefix_is_shared_while_its_owner_runs(void **state)
{
    (void)state;
    struct world *w = malloc(sizeof *w);
    world_init(w);
    struct owner *a = &w->owners[0], *b = &w->owners[1];
    fill(w, a, 100, 2 * KV_BLOCK + 20);
    memcpy(b->ids, a->ids, sizeof b->ids);
    assert_int_equal(prefix_match(&w->p, &b->b, &b->root, b->ids, 3 * KV_BLOCK), 2 * KV_BLOCK);
    assert_int_equal(w->p.blocks[a->list[0]].n_ref, 2);
    assert_int_equal(prefix_tail(&w->p, &b->b, &b->root, b->ids, 3 * KV_BLOCK), 2 * KV_BLOCK + 20);
    assert_true(kv_reserve(&w->p, &b->b, 2 * KV_BLOCK + 20, 2 * KV_BLOCK + 21));
    assert_int_equal(w->p.stats.copies, 1);
    assert_true(b->list[2] != a->list[2] && b->list[1] == a->list[1]);
    assert_memory_equal(w->m.cells[b->list[2]], w->m.cells[a->list[2]], 20 * sizeof(uint64_t));
    b->n_done = 2 * KV_BLOCK + 20;
    b->ids[b->n_done] = 5;
    a->ids[a->n_done] = 5;
    assert_true(compute(w, a, 3 * KV_BLOCK) &&
                compute(w, b, 3 * KV_BLOCK)); /* both the same again: one block is kept */
    assert_int_equal(a->list[2], b->list[2]);
    assert_int_equal(w->p.n_free, BLOCKS - 3);
    release(w, a);
    release(w, b);
    kv_pool_free(&w->p);
    free(w);
}

static void test_prefix_roots_differ(void **state)
{
    (void)state;
    struct kv_pool p, q;
    OK(kv_pool_init(&p, 4, true, &err));
    OK(kv_pool_init(&q, 4, true, &err));
    struct hash128 none = prefix_root(&p, STR(""), 0), salt = prefix_root(&p, STR("tenant"), 0),
                   adapter = prefix_root(&p, STR(""), 1), other = prefix_root(&q, STR(""), 0);
    p.epoch++;
    struct hash128 epoch = prefix_root(&p, STR(""), 0);
    const struct hash128 *all[] = {&none, &salt, &adapter, &other, &epoch};
    for (size_t i = 0; i < 5; i++)
        for (size_t k = 0; k < i; k++)
            assert_false(hash128_equal(all[i], all[k]));
    kv_pool_free(&p);
    kv_pool_free(&q);
}

static void test_kv_block_counts(void **state)
{
    (void)state;
    assert_int_equal(kv_blocks_for(0), 0);
    assert_int_equal(kv_blocks_for(1), 1);
    assert_int_equal(kv_blocks_for(64), 1);
    assert_int_equal(kv_blocks_for(65), 2);
    struct kv_pool p;
    for (uint64_t n = 1; n <= 3; n++) {
        fault_arm(FAULT_ALLOC, n);
        FAILS(ST_NOMEM, kv_pool_init(&p, 4, true, &err));
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
        cmocka_unit_test(test_kv_oldest_goes_first_tail_first),
        cmocka_unit_test(test_prefix_is_shared_while_its_owner_runs),
        cmocka_unit_test(test_prefix_roots_differ),
        cmocka_unit_test(test_kv_block_counts),
        cmocka_unit_test(test_kv_memory_is_aligned_and_zero),
    };
    return RUN(tests);
}
