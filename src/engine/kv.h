/* kv - the blocks of the KV cache: counted, shared, and found again by the ids they were computed from
 *
 *   kv_reserve -> rows are computed -> prefix_commit ... kv_release      the life of a sequence's blocks
 *   prefix_match, prefix_tail      what is there already is not computed again: n answers of one prompt, beams
 *   kv_truncate                    drafts taken back
 *
 * A block holds KV_BLOCK positions of every layer. What it holds follows from the ids up to its end, the adapter and
 * the weights alone (docs/numerics.md), so that sharing never changes a bit.
 * Owner    the engine thread
 */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "base/siphash.h"
#include "base/status.h"
#include "base/str.h"
#include "kernels/kernels.h"

struct kv_block {
    int32_t n_ref;                              /* sequences that have it; 0: it is in the list of free ones */
    int32_t prev, next;                         /* in that list; -1 = none */
    int32_t next_key, next_parent, prev_parent; /* in the index's chains */
    bool kept;                                  /* full, and on disk or on its way */
    int32_t n_token;            /* of `ids`: computed and committed. 0: the index does not know the block */
    struct hash128 parent, key; /* of all ids before the block; with its own, once it is full */
    int32_t ids[KV_BLOCK];
};

struct kv_stats {
    uint64_t queries, hits; /* tokens of admitted sequences; of these, found in the cache */
    uint64_t copies;        /* blocks copied: partial tails, and shared ones before they were written */
    uint64_t evictions;     /* cached blocks that were needed for something else */
};

struct kv_pool {
    struct kv_block *blocks;
    int n_block, n_free;
    int32_t first_free, last_free; /* taken from the front; a cached one goes to the back when it is released */
    int32_t *by_key, *by_parent;   /* heads of the chains: of full blocks, of all that the index knows */
    uint32_t mask;
    bool cache; /* false: nothing is found again */
    struct siphash_key secret;
    int n_ctx;      /* some positions' rotations depend on it, and so does what is on disk */
    uint64_t epoch; /* of the weights: another one finds nothing of before */
    void (*copy_block)(void *ctx, int32_t to, int32_t from); /* NULL: no partial tail is shared */
    void *copy_ctx;
    struct kv_stats stats;
    /* What was computed is kept on disk; NULL = it is not. */
    struct spill *spill;
    void (*save_block)(void *ctx, void *to, int32_t from);
    void (*load_block)(void *ctx, int32_t to, const void *from);
    void *loading;   /* one block */
    int n_unkept;    /* full blocks that are not on disk */
    int32_t keep_at; /* where the search for one goes on */
    int reads_left;  /* blocks that may be read now */
    bool reads_open; /* prefix_match would have read more */
};

struct kv_blocks { /* one sequence's, in order of position */
    int32_t *ids;
    int count, capacity;
    int n_committed; /* positions the index knows */
};

MUST_USE enum status kv_pool_init(struct kv_pool *p, int n_block, bool cache, struct error *err);
void kv_pool_free(struct kv_pool *p);
static inline int kv_blocks_for(int n_token)
{
    return (n_token + KV_BLOCK - 1) / KV_BLOCK;
}
/* Blocks that kv_reserve would take from the free ones. */
int kv_needs(const struct kv_pool *p, const struct kv_blocks *b, int from, int n_token);
/* Makes positions from .. n_token-1 writable: grows `b` until it covers them, and copies what others share. False, and
 * nothing changed, when the pool has too few blocks. */
bool kv_reserve(struct kv_pool *p, struct kv_blocks *b, int from, int n_token);
void kv_release(struct kv_pool *p, struct kv_blocks *b);
/* Gives back the blocks beyond n_token positions; the rest of the last one may be written again. */
void kv_truncate(struct kv_pool *p, struct kv_blocks *b, int n_token);
/* One more block at the end, which others may own too or nobody. */
void kv_share(struct kv_pool *p, struct kv_blocks *b, int32_t block);
int32_t kv_take(struct kv_pool *p); /* a free block, with one owner; there must be one */
void kv_put(struct kv_pool *p, int32_t block);
/* The sequence's own i-th block is given back for another that holds the same. */
void kv_swap(struct kv_pool *p, struct kv_blocks *b, int i, int32_t block);

/* ---- prefix: the index ---- */
/* What a sequence's first block stands behind: who shares it shares blocks. The salt is the tenant's. */
struct hash128 prefix_root(const struct kv_pool *p, struct str salt, uint64_t adapter);
/* Adds to the empty `b` the cached full blocks that ids[0 .. most-1] begin with. Returns their positions. */
int prefix_match(struct kv_pool *p, struct kv_blocks *b, const struct hash128 *root, const int32_t *ids, int most);
/* Then, one more block: the longest cached beginning of what follows, shared or copied. Returns all positions. */
int prefix_tail(struct kv_pool *p, struct kv_blocks *b, const struct hash128 *root, const int32_t *ids, int most);
/* Positions 0 .. n_done-1 are computed: others may find them. A full block that is known already is given back for the
 * known one. */
void prefix_commit(struct kv_pool *p, struct kv_blocks *b, const struct hash128 *root, const int32_t *ids, int n_done);
/* Hands a full block that is not on disk yet to the spill. False: there is none, or no room now. */
bool prefix_keep(struct kv_pool *p);
void prefix_forget(struct kv_pool *p, int32_t block);               /* out of the index */
void prefix_shorten(struct kv_pool *p, int32_t block, int n_token); /* fewer positions of it are valid */
void prefix_copied(struct kv_pool *p, int32_t to, int32_t from, int n_token);

#endif
