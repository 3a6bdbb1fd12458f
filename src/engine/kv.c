/* kv - the pool of KV blocks
 *
 * Invariants
 * 1. Every block is in the ring of free ones or in exactly one sequence's list; is_free[b] says which.
 * 2. A reservation takes all it needs or nothing.
 */
#include "engine/engine_private.h"

#include "base/mem.h"

#include <assert.h>
#include <sys/mman.h>

void *alloc_untouched(size_t size, void **base)
{
    enum { HUGE_PAGE = 2 << 20 };
    size_t total, align = size >= HUGE_PAGE ? HUGE_PAGE : 64;
    *base = size_add(&total, size, align) ? mem_alloc_zero(1, total) : NULL;
    if (!*base)
        return NULL;
    uintptr_t at = ((uintptr_t)*base + align - 1) & ~(uintptr_t)(align - 1);
    if (align == HUGE_PAGE)
        madvise((void *)at, size & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
    return (void *)at;
}

enum status kv_pool_init(struct kv_pool *p, int n_block, struct error *err)
{
    *p = (struct kv_pool){.n_free = n_block, .n_block = n_block};
    p->ring = mem_alloc_zero((size_t)n_block, sizeof *p->ring);
    p->is_free = mem_alloc_zero((size_t)n_block, sizeof *p->is_free);
    if (!p->ring || !p->is_free) {
        kv_pool_free(p);
        return fail_nomem(err, "KV block pool");
    }
    for (int i = 0; i < n_block; i++) {
        p->ring[i] = i;
        p->is_free[i] = true;
    }
    return ST_OK;
}

void kv_pool_free(struct kv_pool *p)
{
    mem_free(p->ring);
    mem_free(p->is_free);
    *p = (struct kv_pool){0};
}

bool kv_reserve(struct kv_pool *p, struct kv_blocks *b, int n_token)
{
    int wanted = kv_blocks_for(n_token);
    assert(wanted <= b->capacity);
    if (wanted - b->count > p->n_free)
        return false;
    while (b->count < wanted) {
        int32_t block = p->ring[p->first];
        p->first = (p->first + 1) % p->n_block;
        p->n_free--;
        assert(p->is_free[block]);
        p->is_free[block] = false;
        b->ids[b->count++] = block;
    }
    return true;
}

void kv_release(struct kv_pool *p, struct kv_blocks *b)
{
    for (int i = 0; i < b->count; i++) {
        int32_t block = b->ids[i];
        assert(!p->is_free[block]);
        p->is_free[block] = true;
        p->ring[(p->first + p->n_free++) % p->n_block] = block;
    }
    b->count = 0;
}
