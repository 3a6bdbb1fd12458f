/* cache - packed panels kept on disk, so that the next start maps them instead of packing the model again
 *
 * A file is  key, checksums of the block's chunks, checksum of both | the parameters' block, from a multiple of 2 MB
 * on. The key holds every fact the panels depend on; a reader knows it beforehand and compares it whole, so that
 * nothing in the file is parsed. docs/model.md says why a changed model is never served from old panels.
 *
 * 1. A file in the cache never changes: it is written under another name, renamed, and from then on only removed.
 * 2. Whoever writes or removes holds the folder's lock. Readers need none: a mapping outlives its name.
 * 3. The panels are used only after every chunk was compared with its checksum.
 */
#include "base/checksum.h"
#include "base/clock.h"
#include "base/guard.h"
#include "base/log.h"
#include "model/private.h"

#include <stdio.h>
#include <stdlib.h>

/* Raise CACHE_VERSION when load.c or the program's order of parameters changes what a block holds. The panels' own
 * layout needs no number: the key holds a checksum of a small matrix packed by this very build (add_layout). */
enum { CACHE_VERSION = 1, CHUNK = 2 << 20, WRITE_BYTES = 8 * CHUNK };
static const char magic[8] = "ingotPNL";

/* ---- the key ---- */
static void add(struct cache *c, uint64_t fact)
{
    buf_append(&c->key, &fact, sizeof fact);
}

static void add_file(struct cache *c, const struct mapping *map)
{
    add(c, map->id.inode);
    add(c, map->id.size);
    add(c, (uint64_t)map->id.modified_ns);
    add(c, (uint64_t)map->id.changed_ns);
    add(c, file_sample(map));
}

/* Which file a tensor's bytes lie in, and where; none: the reader made them. */
static void add_place(struct cache *c, const struct checkpoint *ck, const void *data)
{
    for (size_t i = 0; i < ck->n_file; i++) {
        const struct mapping *map = &ck->files[i].map;
        size_t offset = (uintptr_t)data - (uintptr_t)map->data;
        if (offset < map->size) {
            add(c, i + 1);
            add(c, offset);
            return;
        }
    }
    add(c, 0);
}

static bool add_param(struct cache *c, const struct model *m, const struct checkpoint *ck, const struct param *p)
{
    const struct name_row *row;
    const struct tensor *t = param_tensor(&row, &m->arch, ck, p);
    int32_t *row_of;
    if (param_row_map(&row_of, &m->arch, row, p, NULL) != ST_OK)
        return false;
    uint64_t facts[] = {p->role,
                        p->bias,
                        (uint64_t)p->layer,
                        (uint64_t)p->expert,
                        p->src,
                        p->weight.type,
                        (uint64_t)p->n_out,
                        (uint64_t)p->n_in,
                        (uint64_t)p->count,
                        p->weight.bytes,
                        row->flags,
                        row->part,
                        row->n_part,
                        row_of ? checksum64(row_of, (size_t)p->n_out * sizeof *row_of, 0) : 0,
                        t->type,
                        t->bytes,
                        t->name.len};
    buf_append(&c->key, facts, sizeof facts);
    buf_append_str(&c->key, t->name);
    for (int i = 0; i < t->n_dim; i++)
        add(c, (uint64_t)t->shape[i]);
    add_place(c, ck, t->data);
    mem_free(row_of);
    return true;
}

/* What this build makes of a type: a small matrix, its last panel partly filled, packed and summed. */
static bool add_layout(struct cache *c, enum dtype src, enum dtype type)
{
    enum { N_OUT = 40, N_IN = 512 };
    size_t row_bytes = (size_t)N_IN / (size_t)dtype_row(src)->block * (size_t)dtype_row(src)->bytes;
    struct weight w = {.type = type, .n_out = N_OUT, .n_in = N_IN, .bytes = weight_bytes(type, N_OUT, N_IN)};
    uint8_t *rows = mem_alloc(N_OUT * row_bytes);
    w.panels = mem_alloc_aligned(w.bytes);
    bool made = rows && w.panels;
    for (size_t i = 0; made && i < N_OUT * row_bytes; i++)
        rows[i] = (uint8_t)(i * 167 >> 3) & 0x3f; /* any bytes but NaN, in every type */
    if (made) {
        weight_pack(&w, rows, src, NULL, NULL);
        add(c, src);
        add(c, type);
        add(c, checksum64(w.panels, w.bytes, 0));
    }
    mem_free(rows);
    mem_free(w.panels);
    return made;
}

static bool key_make(struct cache *c, const struct model *m, const struct checkpoint *ck)
{
    bool seen[DT_COUNT][DT_COUNT] = {{false}};
    buf_append(&c->key, magic, sizeof magic);
    add(c, CACHE_VERSION);
    add(c, NUMERICS_VERSION);
    add(c, sizeof(real));
    add(c, c->block_bytes);
    add(c, ck->n_file);
    for (size_t i = 0; i < ck->n_file; i++)
        add_file(c, &ck->files[i].map);
    add(c, (uint64_t)m->plan.n_param);
    const struct words *words = &m->arch.sentence.words;
    if (words->found) {
        add(c, (uint64_t)words->yes);
        add(c, (uint64_t)words->no);
    }
    for (int i = 0; i < m->plan.n_param; i++) {
        const struct param *p = &m->plan.params[i];
        bool *known = &seen[p->src][p->weight.type];
        if (!add_param(c, m, ck, p) || (p->weight.bytes && !*known && !add_layout(c, p->src, p->weight.type)))
            return false;
        *known |= p->weight.bytes != 0;
    }
    while (c->key.len % 8 && !c->key.failed)
        buf_append_char(&c->key, 0);
    return !c->key.failed;
}

/* ---- the file ---- */
static size_t chunk_count(const struct cache *c)
{
    return (c->block_bytes + CHUNK - 1) / CHUNK;
}
static size_t block_offset(const struct cache *c)
{
    size_t head = c->key.len + (chunk_count(c) + 1) * sizeof(uint64_t);
    return (head + CHUNK - 1) / CHUNK * CHUNK;
}

struct sums {
    const uint8_t *block;
    size_t bytes;
    uint64_t *made;       /* written; or */
    const uint8_t *known; /* compared */
    int differ;
};

static void sum_chunk(void *ctx, int item, int thread)
{
    (void)thread;
    struct sums *s = ctx;
    size_t at = (size_t)item * CHUNK, n = s->bytes - at < CHUNK ? s->bytes - at : CHUNK;
    uint64_t sum = checksum64(s->block + at, n, (uint64_t)item);
    if (s->made)
        s->made[item] = sum;
    else if (memcmp(s->known + (size_t)item * sizeof sum, &sum, sizeof sum) != 0)
        __atomic_store_n(&s->differ, 1, __ATOMIC_RELAXED);
}

static bool is_intact(const struct cache *c, const struct mapping *map, struct pool *pool)
{
    size_t head = c->key.len + chunk_count(c) * sizeof(uint64_t);
    if (map->size != block_offset(c) + c->block_bytes || memcmp(map->data, c->key.ptr, c->key.len) != 0)
        return false;
    uint64_t sum = checksum64(map->data, head, 0);
    struct sums s = {map->data + block_offset(c), c->block_bytes, NULL, map->data + c->key.len, 0};
    if (memcmp(map->data + head, &sum, sizeof sum) != 0)
        return false;
    pool_run(pool, sum_chunk, &s, (int)chunk_count(c));
    return !s.differ && !guard_lost(map->data);
}

static bool use(struct cache *c, struct model *m)
{
    struct error err;
    struct mapping map;
    if (file_kind(c->path) == FILE_ABSENT)
        return false;
    if (file_map_own(&map, c->path, &err) != ST_OK) {
        log_warnf("cache", "%s", err.text);
        return false;
    }
    if (!is_intact(c, &map, m->options.pool)) {
        file_unmap(&map);
        log_warnf("cache", "%s is damaged; the model is packed again", c->path); /* and its file replaced */
        return false;
    }
    guard_essential(map.data);
    m->cached = map;
    model_block_use(m, map.data + block_offset(c));
    file_touch(c->path);
    return true;
}

/* ---- room: the least recently used files go first ---- */
struct entry {
    char name[64];
    uint64_t bytes;
    int64_t used_ns;
};
struct listing {
    const char *folder;
    struct entry *entries;
    size_t n, capacity;
    uint64_t bytes;
};

static enum status list_one(void *ctx, const char *name, struct error *err)
{
    struct listing *l = ctx;
    char path[4096];
    struct file_id id;
    path_join(path, sizeof path, l->folder, name);
    if (str_find(str_of(name), STR(".tmp-"), 0) != SIZE_MAX) /* a writer that was killed: this one holds the lock */
        return file_remove(path, err);
    if (!str_ends(str_of(name), STR(".panels")) || strlen(name) >= sizeof l->entries->name || !file_identify(&id, path))
        return ST_OK;
    if (!MEM_GROW(l->entries, l->capacity, l->n))
        return fail_nomem(err, "cache");
    struct entry *e = &l->entries[l->n++];
    strcpy(e->name, name);
    e->bytes = id.size;
    e->used_ns = id.modified_ns;
    l->bytes += id.size;
    return ST_OK;
}

static int by_use(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

static enum status evict(struct listing *l, uint64_t need, uint64_t bytes_max, struct error *err)
{
    const uint64_t spare_min = (uint64_t)1 << 30;
    uint64_t available, total;
    char path[4096];
    if (!file_space(&available, &total, l->folder))
        return fail(err, ST_IO, "%s: cannot find out how much room its disk has", l->folder);
    uint64_t spare = total / 20 > spare_min ? total / 20 : spare_min; /* the disk is never filled */
    if (available + l->bytes < need + spare)
        return fail(err, ST_LIMIT, "%s: its disk has %.1f GB left, the panels need %.1f GB and %.1f GB stay free",
                    l->folder, (double)available / 1e9, (double)need / 1e9, (double)spare / 1e9);
    if (l->n)
        qsort(l->entries, l->n, sizeof *l->entries, by_use);
    for (size_t i = 0; i < l->n && (l->bytes + need > bytes_max || available < need + spare); i++) {
        TRY(file_remove(path_join(path, sizeof path, l->folder, l->entries[i].name), err));
        l->bytes -= l->entries[i].bytes;
        available += l->entries[i].bytes;
    }
    return ST_OK;
}

static enum status make_room(const char *folder, uint64_t need, uint64_t bytes_max, struct error *err)
{
    struct listing l = {.folder = folder};
    enum status st = file_each(folder, list_one, &l, err);
    if (st == ST_OK)
        st = evict(&l, need, bytes_max, err);
    mem_free(l.entries);
    return st;
}

/* ---- saving ---- */
static uint64_t bytes_max(const struct model *m)
{
    return m->options.cache_bytes_max ? m->options.cache_bytes_max : (uint64_t)32 << 30;
}

static enum status write_file(const struct cache *c, const struct model *m, const uint64_t *sums, struct error *err)
{
    struct file_writer w;
    const char *block = m->plan.block;
    size_t sums_bytes = chunk_count(c) * sizeof *sums;
    uint64_t sum = 0;
    TRY(file_writer_open_own(&w, c->path, err));
    file_writer_seek(&w, block_offset(c));
    for (size_t at = 0; at < c->block_bytes && !w.failed; at += WRITE_BYTES) { /* in huge pages, as it will be mapped */
        file_writer_write(&w, block + at, c->block_bytes - at < WRITE_BYTES ? c->block_bytes - at : WRITE_BYTES);
        if (m->options.progress)
            m->options.progress(m->options.ctx, "cache", (double)at / (double)c->block_bytes);
    }
    struct buf head = {0};
    buf_append(&head, c->key.ptr, c->key.len);
    buf_append(&head, sums, sums_bytes);
    if (!head.failed)
        sum = checksum64(head.ptr, head.len, 0);
    buf_append(&head, &sum, sizeof sum);
    file_writer_seek(&w, 0);
    file_writer_write(&w, head.ptr, head.len);
    bool whole = !head.failed;
    buf_free(&head);
    if (whole)
        return file_writer_commit(&w, err);
    file_writer_abort(&w);
    return fail_nomem(err, "cache");
}

static enum status save_locked(const struct cache *c, const struct model *m, const struct checkpoint *ck,
                               const char *folder, struct error *err)
{
    struct file_id id;
    for (size_t i = 0; i < ck->n_file; i++)
        if (ck->files[i].map.size &&
            (!file_identify(&id, ck->files[i].path) || !file_id_equal(&id, &ck->files[i].map.id)))
            return fail(err, ST_INVALID, "%.300s changed while it was read: its panels are not kept",
                        ck->files[i].path);
    TRY(make_room(folder, block_offset(c) + c->block_bytes, bytes_max(m), err));
    uint64_t *sums = mem_alloc(chunk_count(c) * sizeof *sums);
    if (!sums)
        return fail_nomem(err, "cache");
    struct sums s = {m->plan.block, c->block_bytes, sums, NULL, 0};
    pool_run(m->options.pool, sum_chunk, &s, (int)chunk_count(c));
    enum status st = write_file(c, m, sums, err);
    mem_free(sums);
    return st;
}

static enum status save(bool *saved, const struct cache *c, const struct model *m, const struct checkpoint *ck,
                        struct error *err)
{
    char folder[4096], lock_path[4096];
    path_join(folder, sizeof folder, m->options.cache, "panels");
    TRY(file_make_own_folder(folder, err));
    int lock = file_lock(path_join(lock_path, sizeof lock_path, folder, "lock"));
    if (lock < 0) { /* another process writes; perhaps these very panels */
        log_infof("cache", "%s is in use by another process: panels are not kept this time", folder);
        return ST_OK;
    }
    enum status st = save_locked(c, m, ck, folder, err);
    file_unlock(lock);
    *saved = st == ST_OK;
    return st;
}

/* The file takes the place of what was packed: one copy, which the kernel may drop and read again. */
static void take_over(struct cache *c, struct model *m)
{
    void *own = m->plan.block;
    if (!use(c, m))
        return;
    m->plan.block = NULL;
    mem_free(own);
}

/* ---- the three calls ---- */

/* From here on no write into the model's files can go unnoticed: they are on disk. */
static bool settle(const struct checkpoint *ck)
{
    struct error err;
    struct file_id id;
    uint64_t start = clock_ns();
    for (size_t i = 0; i < ck->n_file; i++) {
        enum status st = ck->files[i].map.size ? file_settle(&id, ck->files[i].path, &err) : ST_OK;
        if (st == ST_OK && ck->files[i].map.size && !file_id_equal(&id, &ck->files[i].map.id))
            st = fail(&err, ST_INVALID, "%.300s changed while it was opened", ck->files[i].path);
        if (st != ST_OK) {
            log_infof("cache", "panels are not kept: %s", err.text);
            return false;
        }
    }
    double waited_s = (double)(clock_ns() - start) / 1e9;
    if (waited_s > 0.5) /* it was copied a moment ago */
        log_infof("cache", "waited %.1f s until %s was written to disk: only then can panels be kept", waited_s,
                  ck->path);
    return true;
}

void cache_begin(struct cache *c, struct model *m, const struct checkpoint *ck)
{
    const struct model_options *o = &m->options;
    *c = (struct cache){0};
    if (!o->cache || m->plan.train || !ck->n_file || strlen(o->cache) + 64 > sizeof c->path ||
        !model_block_bytes(&c->block_bytes, m) ||
        c->block_bytes < (o->cache_bytes_min ? o->cache_bytes_min : (uint64_t)64 << 20) ||
        c->block_bytes > bytes_max(m))
        return;
    if (!key_make(c, m, ck)) {
        log_warnf("cache", "out of memory: panels are neither looked for nor kept");
        return;
    }
    snprintf(c->path, sizeof c->path, "%s/panels/%016llx%016llx.panels", o->cache,
             (unsigned long long)checksum64(c->key.ptr, c->key.len, 1),
             (unsigned long long)checksum64(c->key.ptr, c->key.len, 2));
    c->hit = use(c, m);
    c->wanted = !c->hit && settle(ck);
}

void cache_save(struct cache *c, struct model *m, const struct checkpoint *ck)
{
    struct error err;
    bool saved = false;
    uint64_t start = clock_ns();
    if (!c->wanted)
        return;
    if (save(&saved, c, m, ck, &err) != ST_OK)
        log_warnf("cache", "%s", err.text);
    if (!saved)
        return;
    take_over(c, m);
    log_infof("cache", "panels for the next start: %.0f MB in %.1f s, %s", (double)c->block_bytes / 1e6,
              (double)(clock_ns() - start) / 1e9, c->path);
}

void cache_end(struct cache *c)
{
    buf_free(&c->key);
}
