/* kv - the pool of KV blocks
 *
 *   free --kv_take--> owned (n_ref 1) --kv_share--> shared (n_ref 2 ..) --kv_put--> ... --> free, at the back
 *
 * Invariants
 * 1. n_ref is the number of sequences' lists that have the block; the free list holds exactly those with 0.
 * 2. A reservation takes all it needs or nothing.
 * 3. Only a block with one owner is written, and only at positions its owner has not committed.
 * 4. Blocks the index knows stand behind all others in the free list, the one released last at the end, and of one
 *    sequence the last block first: what is taken is what was useful longest ago, and of a chain its end.
 */
#include "engine/kv.h"

#include "base/mem.h"
#include "base/rng.h"

#include <assert.h>
#include <string.h>

/* ---- the free list ---- */

static void list_add(struct kv_pool *p, int32_t block, bool front)
{
    struct kv_block *x = &p->blocks[block];
    x->prev = front ? -1 : p->last_free;
    x->next = front ? p->first_free : -1;
    *(x->prev < 0 ? &p->first_free : &p->blocks[x->prev].next) = block;
    *(x->next < 0 ? &p->last_free : &p->blocks[x->next].prev) = block;
    p->n_free++;
}

static void list_remove(struct kv_pool *p, int32_t block)
{
    struct kv_block *x = &p->blocks[block];
    *(x->prev < 0 ? &p->first_free : &p->blocks[x->prev].next) = x->next;
    *(x->next < 0 ? &p->last_free : &p->blocks[x->next].prev) = x->prev;
    p->n_free--;
}

int32_t kv_take(struct kv_pool *p)
{
    int32_t block = p->first_free;
    assert(block >= 0 && p->blocks[block].n_ref == 0);
    list_remove(p, block);
    if (p->blocks[block].n_token) {
        p->stats.evictions++;
        prefix_forget(p, block);
    }
    p->blocks[block].n_ref = 1;
    return block;
}

void kv_put(struct kv_pool *p, int32_t block)
{
    assert(p->blocks[block].n_ref > 0);
    if (--p->blocks[block].n_ref == 0)
        list_add(p, block, p->blocks[block].n_token == 0);
}

static void kv_hold(struct kv_pool *p, int32_t block)
{
    if (p->blocks[block].n_ref++ == 0)
        list_remove(p, block);
}

void kv_share(struct kv_pool *p, struct kv_blocks *b, int32_t block)
{
    assert(b->count < b->capacity);
    kv_hold(p, block);
    b->ids[b->count++] = block;
}

void kv_swap(struct kv_pool *p, struct kv_blocks *b, int i, int32_t block)
{
    int32_t old = b->ids[i];
    assert(p->blocks[old].n_ref == 1);
    prefix_forget(p, old);
    kv_hold(p, block);
    kv_put(p, old);
    b->ids[i] = block;
}

/* ---- life ---- */

enum status kv_pool_init(struct kv_pool *p, int n_block, bool cache, struct error *err)
{
    uint32_t heads = 16;
    while (heads < (uint32_t)n_block)
        heads *= 2;
    *p = (struct kv_pool){.n_block = n_block, .cache = cache, .first_free = -1, .last_free = -1, .mask = heads - 1};
    p->secret = (struct siphash_key){{rng_entropy(), rng_entropy()}};
    p->blocks = mem_alloc_zero((size_t)n_block, sizeof *p->blocks);
    p->by_key = mem_alloc_zero(heads, sizeof *p->by_key);
    p->by_parent = mem_alloc_zero(heads, sizeof *p->by_parent);
    if (!p->blocks || !p->by_key || !p->by_parent) {
        kv_pool_free(p);
        return fail_nomem(err, "KV block pool");
    }
    memset(p->by_key, -1, heads * sizeof *p->by_key);
    memset(p->by_parent, -1, heads * sizeof *p->by_parent);
    for (int32_t i = 0; i < n_block; i++)
        list_add(p, i, false);
    return ST_OK;
}

void kv_pool_free(struct kv_pool *p)
{
    mem_free(p->blocks);
    mem_free(p->by_key);
    mem_free(p->by_parent);
    *p = (struct kv_pool){0};
}

/* ---- a sequence's blocks ---- */

/* Would writing from position `from` on spoil what others have, or what the index says of block i? */
static bool is_shared(const struct kv_pool *p, const struct kv_blocks *b, int i, int from)
{
    const struct kv_block *x = &p->blocks[b->ids[i]];
    int kept = from > i * KV_BLOCK ? from - i * KV_BLOCK : 0;
    return x->n_ref > 1 || x->n_token > kept;
}

int kv_needs(const struct kv_pool *p, const struct kv_blocks *b, int from, int n_token)
{
    int wanted = kv_blocks_for(n_token), needs = wanted > b->count ? wanted - b->count : 0;
    for (int i = from / KV_BLOCK; i < b->count && i < wanted; i++)
        needs += is_shared(p, b, i, from);
    return needs;
}

/* The block becomes this sequence's own, with the positions before `from`. */
static void unshare(struct kv_pool *p, struct kv_blocks *b, int i, int from)
{
    int32_t old = b->ids[i], own = kv_take(p);
    int kept = from - i * KV_BLOCK;
    if (kept > 0) {
        p->copy_block(p->copy_ctx, own, old);
        prefix_copied(p, own, old, kept);
        p->stats.copies++;
    }
    kv_put(p, old);
    b->ids[i] = own;
}

bool kv_reserve(struct kv_pool *p, struct kv_blocks *b, int from, int n_token)
{
    int wanted = kv_blocks_for(n_token);
    assert(wanted <= b->capacity && from >= b->n_committed);
    if (kv_needs(p, b, from, n_token) > p->n_free)
        return false;
    for (int i = from / KV_BLOCK; i < b->count && i < wanted; i++)
        if (is_shared(p, b, i, from))
            unshare(p, b, i, from);
    while (b->count < wanted)
        b->ids[b->count++] = kv_take(p);
    return true;
}

void kv_truncate(struct kv_pool *p, struct kv_blocks *b, int n_token)
{
    while (b->count > kv_blocks_for(n_token))
        kv_put(p, b->ids[--b->count]);
    if (n_token >= b->n_committed)
        return;
    b->n_committed = n_token;
    int32_t last = n_token % KV_BLOCK ? b->ids[b->count - 1] : -1;
    if (last >= 0 && p->blocks[last].n_ref == 1)
        prefix_shorten(p, last, n_token % KV_BLOCK);
}

void kv_release(struct kv_pool *p, struct kv_blocks *b)
{
    while (b->count)
        kv_put(p, b->ids[--b->count]);
    b->n_committed = 0;
}
