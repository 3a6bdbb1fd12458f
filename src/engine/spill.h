/* spill - KV blocks on disk: what was computed once is there again after it was evicted, and after a restart
 *
 *   engine thread: spill_stage -> (fills the buffer) -> spill_put        its own thread: writes, forgets the oldest
 *   engine thread: spill_has, spill_get                                  reads; a damaged file is dropped
 *
 * One file a block, DIR/kv-<model>-<key>: written beside and renamed, with a checksum over all of it, readable by its
 * owner alone. Keys are those of prefix.c; the secret they depend on lies in DIR/secret. A file belongs to one model:
 * to the fingerprint of weights, numbers and KV type. Of all files together the least recently used go first.
 * Threads  spill_open, spill_close: the owner; all else: the engine thread
 */
#ifndef ENGINE_SPILL_H
#define ENGINE_SPILL_H

#include "engine/kv.h"

#include "base/sha256.h"

struct spill;

struct spill_options {
    const char *folder;
    uint64_t bytes_max; /* of all files in it; 0 = 8 GiB */
    size_t block_bytes;
    /* On spill's thread: which model it is; nothing is found or written before it is known. Soon after *stop (atomic)
     * is set it gives up: ST_CANCELED. */
    enum status (*identify)(void *identify_ctx, char text[SHA256_TEXT], const bool *stop, struct error *err);
    void *identify_ctx;
    void (*on_room)(void *ctx); /* on spill's thread: spill_stage may have a buffer again */
    void *ctx;
};
/* What a file says before the block itself. */
struct spill_head {
    struct hash128 key, parent;
    int32_t ids[KV_BLOCK];
};

/* ST_DENIED, ST_IO when the folder cannot be used. *secret: what keys are to be made with. */
MUST_USE enum status spill_open(struct spill **out, struct siphash_key *secret, const struct spill_options *options,
                                struct error *err);
void spill_close(struct spill *s); /* what was put is written first; waits for no hash */
bool spill_has(struct spill *s, const struct hash128 *key);
/* block_bytes to fill, for spill_put right after; NULL while all are on their way to the disk. */
void *spill_stage(struct spill *s);
void spill_put(struct spill *s, const struct spill_head *head);
/* False when it is not there any more, or damaged. */
bool spill_get(struct spill *s, struct spill_head *head, void *block, const struct hash128 *key);

struct spill_stats {
    uint64_t written, read, damaged; /* blocks */
    uint64_t bytes;                  /* on disk now */
};
void spill_stats(struct spill *s, struct spill_stats *out);

/* A file's bytes, as spill_get reads them: head and *block point into them. For tests and fuzzing. */
MUST_USE enum status spill_parse(struct spill_head *head, const uint8_t **block, struct str file, const char *model,
                                 size_t block_bytes, struct error *err);

#endif
