/* spill - KV blocks on disk
 *
 * Invariants
 * 1. A buffer is free, being filled by the engine thread, or queued; only the writer takes queued ones, in order.
 * 2. An entry stands for a file that was seen or written. Files of other models are entries too, so that one bound
 *    holds for all, but no key finds them.
 * 3. Nothing read from a file is believed before its checksum, model, key and size were compared. The checksum tells
 *    damage, not intent: the folder and its files belong to this user alone.
 */
#include "engine/spill.h"

#include "base/checksum.h"
#include "base/cursor.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>

enum { BUFFERS = 4, HEADS = 4096, PATH_SIZE = 4096, NAME_SIZE = 64 };
static const char magic[8] = "ingotkv1";
enum { HEAD_BYTES = 8 + 64 + 16 + 16 + 4 * KV_BLOCK + 8, TAIL_BYTES = 8 };

struct entry {
    struct hash128 key;
    uint64_t model; /* the file name's digits */
    uint64_t bytes;
    int64_t used_ns; /* while the folder is read */
    int32_t next;    /* in the chain of its key, or among the unused */
    int32_t older, newer;
};
struct spill {
    struct spill_options o;
    char *folder;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    bool ready, stopping, complained; /* stopping: atomic for who reads it without the lock */
    char model[SHA256_TEXT];
    struct entry *entries;
    size_t count, capacity; /* entries in use or unused since */
    int32_t heads[HEADS], unused, oldest, newest;
    uint64_t bytes;
    struct spill_stats stats;
    struct buffer {
        struct spill_head head;
        unsigned char *block;
    } buffers[BUFFERS];
    int first, n_queued;
};

/* ---- entries, under the lock ---- */

static uint64_t model_digits(const char *text)
{
    char digits[17];
    snprintf(digits, sizeof digits, "%.16s", text);
    return strtoull(digits, NULL, 16);
}

static void path_of(char *path, const struct spill *s, uint64_t model, const struct hash128 *key)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "kv-%016llx-%016llx%016llx", (unsigned long long)model,
             (unsigned long long)key->word[0], (unsigned long long)key->word[1]);
    path_join(path, PATH_SIZE, s->folder, name);
}

static void lru_remove(struct spill *s, int32_t i)
{
    struct entry *e = &s->entries[i];
    *(e->older < 0 ? &s->oldest : &s->entries[e->older].newer) = e->newer;
    *(e->newer < 0 ? &s->newest : &s->entries[e->newer].older) = e->older;
}

static void lru_add(struct spill *s, int32_t i)
{
    struct entry *e = &s->entries[i];
    e->older = s->newest;
    e->newer = -1;
    *(e->older < 0 ? &s->oldest : &s->entries[e->older].newer) = i;
    s->newest = i;
}

static int32_t find(const struct spill *s, const struct hash128 *key)
{
    uint64_t model = model_digits(s->model);
    int32_t i = s->heads[key->word[0] % HEADS];
    while (i >= 0 && !(s->entries[i].model == model && hash128_equal(&s->entries[i].key, key)))
        i = s->entries[i].next;
    return i;
}

static bool add(struct spill *s, const struct entry *what)
{
    if (s->unused < 0) {
        if (s->count >= INT32_MAX || !MEM_GROW(s->entries, s->capacity, s->count))
            return false;
        s->entries[s->count].next = -1;
        s->unused = (int32_t)s->count++;
    }
    int32_t i = s->unused, *head = &s->heads[what->key.word[0] % HEADS];
    s->unused = s->entries[i].next;
    s->entries[i] = *what;
    s->entries[i].next = *head;
    *head = i;
    lru_add(s, i);
    s->bytes += what->bytes;
    return true;
}

static void drop(struct spill *s, int32_t i)
{
    char path[PATH_SIZE];
    struct entry *e = &s->entries[i];
    int32_t *at = &s->heads[e->key.word[0] % HEADS];
    while (*at != i)
        at = &s->entries[*at].next;
    *at = e->next;
    lru_remove(s, i);
    s->bytes -= e->bytes;
    e->next = s->unused;
    s->unused = i;
    path_of(path, s, e->model, &e->key);
    (void)!file_remove(path, NULL); /* somebody else may have done so */
}

static void make_room(struct spill *s, uint64_t bytes)
{
    while (s->oldest >= 0 && s->bytes + bytes > s->o.bytes_max)
        drop(s, s->oldest);
}

/* ---- files ---- */

static uint64_t seed_of(const struct hash128 *key)
{
    return key->word[0] ^ key->word[1];
}

enum status spill_parse(struct spill_head *head, const uint8_t **block, struct str file, const char *model,
                        size_t block_bytes, struct error *err)
{
    struct cursor c = cursor_of(file.ptr, file.len);
    struct str begins = cursor_bytes(&c, sizeof magic), of_model = cursor_bytes(&c, 64);
    struct str key = cursor_bytes(&c, sizeof head->key), parent = cursor_bytes(&c, sizeof head->parent);
    struct str ids = cursor_bytes(&c, sizeof head->ids);
    uint64_t size = cursor_u64(&c);
    struct str bytes = cursor_bytes(&c, size);
    size_t covered = cursor_offset(&c);
    uint64_t sum = cursor_u64(&c);
    if (c.failed || cursor_left(&c) || size != block_bytes)
        return fail(err, ST_CORRUPT, "KV block file: %zu bytes, expected %zu", file.len,
                    block_bytes + HEAD_BYTES + TAIL_BYTES);
    if (memcmp(begins.ptr, magic, sizeof magic) != 0 || memcmp(of_model.ptr, model, 64) != 0)
        return fail(err, ST_CORRUPT, "KV block file: of another model or version");
    memcpy(&head->key, key.ptr, sizeof head->key);
    memcpy(&head->parent, parent.ptr, sizeof head->parent);
    memcpy(head->ids, ids.ptr, sizeof head->ids);
    if (sum != checksum64(file.ptr, covered, seed_of(&head->key)))
        return fail(err, ST_CORRUPT, "KV block file: its checksum differs");
    *block = (const uint8_t *)bytes.ptr;
    return ST_OK;
}

/* The block lies behind room for the head and before room for the sum. */
static enum status write_block(const struct spill *s, const struct buffer *b, struct error *err)
{
    char path[PATH_SIZE];
    struct file_writer w;
    unsigned char *at = b->block - HEAD_BYTES;
    uint64_t size = s->o.block_bytes, sum;
    memcpy(at, magic, sizeof magic);
    memcpy(at + sizeof magic, s->model, SHA256_TEXT - 1);
    memcpy(at + 72, &b->head.key, 16);
    memcpy(at + 88, &b->head.parent, 16);
    memcpy(at + 104, b->head.ids, sizeof b->head.ids);
    memcpy(at + HEAD_BYTES - 8, &size, 8);
    sum = checksum64(at, HEAD_BYTES + s->o.block_bytes, seed_of(&b->head.key));
    memcpy(b->block + s->o.block_bytes, &sum, 8);
    path_of(path, s, model_digits(s->model), &b->head.key);
    TRY(file_writer_open_own(&w, path, err));
    file_writer_write(&w, at, HEAD_BYTES + s->o.block_bytes + TAIL_BYTES);
    return file_writer_commit(&w, err);
}

/* ---- the folder at the start ---- */

struct listing {
    struct spill *s;
    struct entry *entries;
    size_t count, capacity;
};

static enum status list_file(void *ctx, const char *name, struct error *err)
{
    struct listing *l = ctx;
    unsigned long long model, a, b;
    char path[PATH_SIZE], again[NAME_SIZE];
    struct file_id id;
    if (sscanf(name, "kv-%16llx-%16llx%16llx", &model, &a, &b) != 3)
        return ST_OK;
    snprintf(again, sizeof again, "kv-%016llx-%016llx%016llx", model, a, b);
    path_join(path, sizeof path, l->s->folder, name);
    if (strcmp(again, name) != 0 || !file_identify(&id, path))
        return ST_OK; /* not one of ours */
    if (!MEM_GROW(l->entries, l->capacity, l->count))
        return fail_nomem(err, "KV blocks on disk");
    l->entries[l->count++] =
        (struct entry){.key = {{a, b}}, .model = model, .bytes = id.size, .used_ns = id.modified_ns};
    return ST_OK;
}

static int by_use(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

static enum status read_folder(struct spill *s, struct error *err)
{
    struct listing l = {.s = s};
    enum status st = file_each(s->folder, list_file, &l, err);
    if (l.count)
        qsort(l.entries, l.count, sizeof *l.entries, by_use);
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < l.count && st == ST_OK; i++)
        st = add(s, &l.entries[i]) ? ST_OK : fail_nomem(err, "KV blocks on disk");
    make_room(s, 0);
    pthread_mutex_unlock(&s->lock);
    mem_free(l.entries);
    return st;
}

/* ---- its thread ---- */

static void complain(struct spill *s, const char *what, const struct error *err)
{
    if (!s->complained)
        log_warnf("kv-spill", "%s: %s", what, err->text);
    s->complained = true; /* once: a full disk would fill the log, too */
}

static void write_one(struct spill *s) /* under the lock, which it leaves meanwhile */
{
    const struct buffer *b = &s->buffers[s->first];
    struct entry e = {.key = b->head.key, .model = model_digits(s->model)};
    struct error err;
    e.bytes = HEAD_BYTES + s->o.block_bytes + TAIL_BYTES;
    make_room(s, e.bytes);
    pthread_mutex_unlock(&s->lock);
    enum status st = write_block(s, b, &err);
    pthread_mutex_lock(&s->lock);
    if (st != ST_OK) {
        complain(s, "a KV block was not kept", &err);
    } else if (find(s, &e.key) < 0 && add(s, &e)) {
        s->stats.written++;
    }
    s->first = (s->first + 1) % BUFFERS;
    s->n_queued--;
}

static void *spill_main(void *arg)
{
    struct spill *s = arg;
    struct error err;
    char model[SHA256_TEXT];
    enum status st = s->o.identify(s->o.identify_ctx, model, &s->stopping, &err);
    if (st == ST_OK) {
        memcpy(s->model, model, sizeof model);
        st = read_folder(s, &err);
    }
    pthread_mutex_lock(&s->lock);
    if (st != ST_OK && st != ST_CANCELED)
        complain(s, "KV blocks are not kept on disk", &err);
    s->ready = st == ST_OK;
    for (bool told = false; !s->stopping || s->n_queued;) {
        if (!told && s->ready) {
            pthread_mutex_unlock(&s->lock);
            s->o.on_room(s->o.ctx);
            pthread_mutex_lock(&s->lock);
            told = true;
        } else if (s->n_queued) {
            write_one(s);
            told = false;
        } else {
            pthread_cond_wait(&s->wake, &s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- life ---- */

static enum status read_secret(struct siphash_key *secret, const char *folder, struct error *err)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    path_join(path, sizeof path, folder, "secret");
    enum status st = file_kind(path) == FILE_ABSENT ? ST_NOT_FOUND : file_read_all(&text, path, 4096, err);
    if (st == ST_OK && text.len == sizeof *secret) {
        memcpy(secret, text.ptr, sizeof *secret);
    } else if (st == ST_OK || st == ST_NOT_FOUND) {
        struct file_writer w;
        *secret = (struct siphash_key){{rng_entropy(), rng_entropy()}};
        st = file_writer_open_own(&w, path, err);
        if (st == ST_OK) {
            file_writer_write(&w, secret, sizeof *secret);
            st = file_writer_commit(&w, err);
        }
    }
    buf_free(&text);
    return st;
}

static void spill_free(struct spill *s)
{
    for (int i = 0; i < BUFFERS; i++)
        mem_free(s->buffers[i].block ? s->buffers[i].block - HEAD_BYTES : NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    mem_free(s->entries);
    mem_free(s->folder);
    mem_free(s);
}

static bool allocate(struct spill *s)
{
    size_t size;
    s->folder = mem_strdup(s->o.folder);
    if (!s->folder || !size_add(&size, s->o.block_bytes, HEAD_BYTES + TAIL_BYTES))
        return false;
    for (int i = 0; i < BUFFERS; i++) {
        unsigned char *at = mem_alloc(size);
        if (!at)
            return false;
        s->buffers[i].block = at + HEAD_BYTES;
    }
    return true;
}

enum status spill_open(struct spill **out, struct siphash_key *secret, const struct spill_options *options,
                       struct error *err)
{
    *out = NULL;
    struct spill *s = mem_alloc_zero(1, sizeof *s);
    if (!s)
        return fail_nomem(err, "KV blocks on disk");
    s->o = *options;
    if (!s->o.bytes_max)
        s->o.bytes_max = (uint64_t)8 << 30;
    s->unused = s->oldest = s->newest = -1;
    memset(s->heads, -1, sizeof s->heads);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    enum status st = allocate(s) ? file_make_own_folder(s->folder, err) : fail_nomem(err, "KV blocks on disk");
    if (st == ST_OK)
        st = read_secret(secret, s->folder, err);
    if (st == ST_OK && thread_start(&s->thread, spill_main, s) != 0)
        st = fail(err, ST_LIMIT, "cannot start the thread that keeps KV blocks");
    if (st != ST_OK) {
        spill_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

void spill_close(struct spill *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    __atomic_store_n(&s->stopping, true, __ATOMIC_RELAXED);
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    spill_free(s);
}

/* ---- the engine's side ---- */

bool spill_has(struct spill *s, const struct hash128 *key)
{
    pthread_mutex_lock(&s->lock);
    bool has = s->ready && find(s, key) >= 0;
    pthread_mutex_unlock(&s->lock);
    return has;
}

void *spill_stage(struct spill *s)
{
    pthread_mutex_lock(&s->lock);
    bool room = s->ready && !s->stopping && s->n_queued < BUFFERS;
    void *block = room ? s->buffers[(s->first + s->n_queued) % BUFFERS].block : NULL;
    pthread_mutex_unlock(&s->lock);
    return block;
}

void spill_put(struct spill *s, const struct spill_head *head)
{
    pthread_mutex_lock(&s->lock);
    s->buffers[(s->first + s->n_queued++) % BUFFERS].head = *head;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

bool spill_get(struct spill *s, struct spill_head *head, void *block, const struct hash128 *key)
{
    char path[PATH_SIZE];
    struct mapping file;
    struct error err;
    const uint8_t *bytes;
    path_of(path, s, model_digits(s->model), key);
    enum status st = file_map(&file, path, &err);
    if (st == ST_OK) {
        st = spill_parse(head, &bytes, str_n((const char *)file.data, file.size), s->model, s->o.block_bytes, &err);
        if (st == ST_OK && !hash128_equal(&head->key, key))
            st = fail(&err, ST_CORRUPT, "KV block file: of another key");
        if (st == ST_OK) {
            memcpy(block, bytes, s->o.block_bytes);
            st = file_check(&file, path, &err);
        }
        file_unmap(&file);
    }
    if (st == ST_OK)
        file_touch(path);
    pthread_mutex_lock(&s->lock);
    int32_t i = find(s, key);
    if (st == ST_OK && i >= 0) {
        lru_remove(s, i);
        lru_add(s, i);
        s->stats.read++;
    } else if (i >= 0) {
        drop(s, i);
        s->stats.damaged += st == ST_CORRUPT;
    }
    pthread_mutex_unlock(&s->lock);
    return st == ST_OK;
}

void spill_stats(struct spill *s, struct spill_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->bytes = s->bytes;
    pthread_mutex_unlock(&s->lock);
}
