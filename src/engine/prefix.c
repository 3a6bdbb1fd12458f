/* prefix - the index of blocks by what they hold
 *
 *   key(block) = SipHash-128(secret; key of the block before it, its 64 ids); before the first block stands the root:
 *   SipHash-128(secret; weight epoch, context, adapter, salt)
 *
 * The hash is keyed, so that nobody can make two prompts collide, and the salt keeps tenants from finding, by the time
 * an answer takes, what others asked.
 *
 * Invariants
 * 1. The index knows a block exactly when n_token > 0; by its key exactly when it is full. No two full blocks have one
 *    key.
 * 2. A known block's first n_token positions are computed, for the ids that it lists, behind its parent.
 * 3. With the cache on, every full block of a sequence's committed positions is known, and so are all before it.
 */
#include "engine/spill.h"

#include <assert.h>
#include <string.h>

/* ---- chains ---- */

static int32_t *key_head(const struct kv_pool *p, const struct hash128 *key)
{
    return &p->by_key[key->word[0] & p->mask];
}

static int32_t *parent_head(const struct kv_pool *p, const struct hash128 *parent)
{
    return &p->by_parent[parent->word[1] & p->mask];
}

static void key_add(struct kv_pool *p, int32_t block)
{
    int32_t *head = key_head(p, &p->blocks[block].key);
    p->blocks[block].next_key = *head;
    *head = block;
    p->blocks[block].kept = false;
    p->n_unkept++;
}

static void key_remove(struct kv_pool *p, int32_t block)
{
    int32_t *at = key_head(p, &p->blocks[block].key);
    while (*at != block)
        at = &p->blocks[*at].next_key;
    *at = p->blocks[block].next_key;
    p->n_unkept -= !p->blocks[block].kept;
}

static void parent_add(struct kv_pool *p, int32_t block)
{
    struct kv_block *x = &p->blocks[block];
    int32_t *head = parent_head(p, &x->parent);
    x->prev_parent = -1;
    x->next_parent = *head;
    if (*head >= 0)
        p->blocks[*head].prev_parent = block;
    *head = block;
}

static void parent_remove(struct kv_pool *p, int32_t block)
{
    const struct kv_block *x = &p->blocks[block];
    *(x->prev_parent < 0 ? parent_head(p, &x->parent) : &p->blocks[x->prev_parent].next_parent) = x->next_parent;
    if (x->next_parent >= 0)
        p->blocks[x->next_parent].prev_parent = x->prev_parent;
}

static int32_t find_full(const struct kv_pool *p, const struct hash128 *key)
{
    int32_t block = *key_head(p, key);
    while (block >= 0 && !hash128_equal(&p->blocks[block].key, key))
        block = p->blocks[block].next_key;
    return block;
}

void prefix_shorten(struct kv_pool *p, int32_t block, int n_token)
{
    struct kv_block *x = &p->blocks[block];
    if (n_token >= x->n_token)
        return;
    if (x->n_token == KV_BLOCK)
        key_remove(p, block);
    if (n_token == 0)
        parent_remove(p, block);
    x->n_token = n_token;
}

void prefix_forget(struct kv_pool *p, int32_t block)
{
    prefix_shorten(p, block, 0);
}

void prefix_copied(struct kv_pool *p, int32_t to, int32_t from, int n_token)
{
    struct kv_block *x = &p->blocks[to];
    const struct kv_block *source = &p->blocks[from];
    int n = n_token < source->n_token ? n_token : source->n_token;
    assert(x->n_token == 0 && n < KV_BLOCK);
    if (n == 0)
        return;
    memcpy(x->ids, source->ids, (size_t)n * sizeof *x->ids);
    x->parent = source->parent;
    x->n_token = n;
    parent_add(p, to);
}

/* ---- keys ---- */

struct hash128 prefix_root(const struct kv_pool *p, struct str salt, uint64_t adapter)
{
    struct hash128 of_salt = siphash128(&p->secret, salt.ptr, salt.len);
    uint64_t words[] = {p->epoch, (uint64_t)p->n_ctx, adapter, of_salt.word[0], of_salt.word[1]};
    return siphash128(&p->secret, words, sizeof words);
}

static struct hash128 key_of(const struct kv_pool *p, const struct hash128 *parent, const int32_t *ids)
{
    struct {
        struct hash128 parent;
        int32_t ids[KV_BLOCK];
    } all;
    all.parent = *parent;
    memcpy(all.ids, ids, sizeof all.ids);
    return siphash128(&p->secret, &all, sizeof all);
}

/* Of everything before block i. */
static const struct hash128 *parent_of(const struct kv_pool *p, const struct kv_blocks *b, const struct hash128 *root,
                                       int i)
{
    return i ? &p->blocks[b->ids[i - 1]].key : root;
}

/* ---- on disk ---- */

static void mark_kept(struct kv_pool *p, int32_t block)
{
    p->blocks[block].kept = true;
    p->n_unkept--;
}

bool prefix_keep(struct kv_pool *p)
{
    if (!p->spill || p->epoch) /* other weights than the files are named after */
        return false;
    for (int i = 0; i < p->n_block && p->n_unkept; i++, p->keep_at = (p->keep_at + 1) % p->n_block) {
        struct kv_block *x = &p->blocks[p->keep_at];
        if (x->n_token < KV_BLOCK || x->kept)
            continue;
        if (!spill_has(p->spill, &x->key)) {
            void *to = spill_stage(p->spill);
            if (!to)
                return false;
            struct spill_head head = {.key = x->key, .parent = x->parent};
            memcpy(head.ids, x->ids, sizeof head.ids);
            p->save_block(p->copy_ctx, to, p->keep_at);
            spill_put(p->spill, &head);
        }
        mark_kept(p, p->keep_at);
        return true;
    }
    return false;
}

/* A block with this key, read from disk: with one owner, and known. -1: there is none, or it must wait. */
static int32_t read_back(struct kv_pool *p, const struct hash128 *parent, const struct hash128 *key)
{
    struct spill_head head;
    if (!p->spill || p->n_free == 0 || !spill_has(p->spill, key))
        return -1;
    if (p->reads_left == 0) {
        p->reads_open = true;
        return -1;
    }
    p->reads_left--;
    if (!spill_get(p->spill, &head, p->loading, key))
        return -1;
    int32_t block = kv_take(p);
    struct kv_block *x = &p->blocks[block];
    p->load_block(p->copy_ctx, block, p->loading);
    memcpy(x->ids, head.ids, sizeof x->ids);
    x->parent = *parent;
    x->key = *key;
    x->n_token = KV_BLOCK;
    key_add(p, block);
    parent_add(p, block);
    mark_kept(p, block);
    return block;
}

/* ---- finding ---- */

int prefix_match(struct kv_pool *p, struct kv_blocks *b, const struct hash128 *root, const int32_t *ids, int most)
{
    struct hash128 parent = *root;
    assert(b->count == 0);
    p->reads_open = false;
    while (p->cache && (b->count + 1) * KV_BLOCK <= most) {
        struct hash128 key = key_of(p, &parent, ids + b->count * KV_BLOCK);
        int32_t block = find_full(p, &key), read = block < 0 ? read_back(p, &parent, &key) : -1;
        if (block < 0 && read < 0)
            break;
        kv_share(p, b, block < 0 ? read : block);
        if (read >= 0)
            kv_put(p, read); /* the sequence is its owner now */
        parent = key;
    }
    b->n_committed = b->count * KV_BLOCK;
    return b->n_committed;
}

static int common(const int32_t *a, const int32_t *b, int most)
{
    int n = 0;
    while (n < most && a[n] == b[n])
        n++;
    return n;
}

int prefix_tail(struct kv_pool *p, struct kv_blocks *b, const struct hash128 *root, const int32_t *ids, int most)
{
    enum { LOOK_AT = 32 }; /* of the blocks with this parent, the newest */
    int n = b->n_committed, best_n = 0, looked = 0;
    int32_t best = -1;
    if (!p->cache || !p->copy_block || most <= n)
        return n;
    const struct hash128 *parent = parent_of(p, b, root, b->count);
    for (int32_t i = *parent_head(p, parent); i >= 0 && looked < LOOK_AT; i = p->blocks[i].next_parent) {
        const struct kv_block *x = &p->blocks[i];
        if (!hash128_equal(&x->parent, parent))
            continue;
        int same = common(x->ids, ids + n, x->n_token < most - n ? x->n_token : most - n);
        if (same > best_n) {
            best_n = same;
            best = i;
        }
        looked++;
    }
    if (best < 0)
        return n;
    kv_share(p, b, best); /* kv_reserve copies the positions found when the block has more, or another owner */
    b->n_committed = n + best_n;
    return b->n_committed;
}

/* ---- committing ---- */

/* Positions of block i up to n, of the ids given, are computed now. */
static void commit_block(struct kv_pool *p, struct kv_blocks *b, int i, const struct hash128 *parent,
                         const int32_t *ids, int n)
{
    int32_t block = b->ids[i];
    struct kv_block *x = &p->blocks[block];
    assert(x->n_ref == 1 && x->n_token <= n);
    if (n == KV_BLOCK) {
        struct hash128 key = key_of(p, parent, ids);
        int32_t known = find_full(p, &key);
        if (known >= 0) { /* somebody else computed the same meanwhile: one of the two is enough */
            kv_swap(p, b, i, known);
            return;
        }
        x->key = key;
        key_add(p, block);
    }
    if (x->n_token == 0) {
        x->parent = *parent;
        parent_add(p, block);
    }
    memcpy(x->ids + x->n_token, ids + x->n_token, (size_t)(n - x->n_token) * sizeof *ids);
    x->n_token = n;
}

void prefix_commit(struct kv_pool *p, struct kv_blocks *b, const struct hash128 *root, const int32_t *ids, int n_done)
{
    if (!p->cache)
        return;
    for (int i = b->n_committed / KV_BLOCK; i * KV_BLOCK < n_done; i++) {
        struct hash128 parent = *parent_of(p, b, root, i);
        int n = n_done - i * KV_BLOCK;
        commit_block(p, b, i, &parent, ids + i * KV_BLOCK, n < KV_BLOCK ? n : KV_BLOCK);
    }
    b->n_committed = n_done;
}
