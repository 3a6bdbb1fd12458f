/* imatrix - importance matrices read: llama.cpp's GGUF, and the .dat files of before
 *
 * A .dat file is  i32 entries | i32 length, name, i32 calls, i32 numbers, f32 numbers ... | i32 chunk, i32 length, the
 * text's name; the last three may be absent. A number over `calls` is the mean of a column; those of a mixture's
 * experts follow each other under one name.
 */
#include "model/imatrix.h"

#include <math.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/cursor.h"
#include "base/file.h"
#include "base/map.h"
#include "base/mem.h"
#include "formats/formats.h"
#include "model/private.h"

struct entry {
    struct str name;
    const float *means; /* [n_expert, n_in], or [total] of a file that does not say how many experts there are */
    const bool *seen;   /* [n_expert]; an expert nothing was sent to has no means */
    int64_t n_in, total;
    int n_expert; /* 0: not said */
};
struct imatrix {
    struct arena arena;
    struct entry *entries;
    size_t n, capacity;
    struct map names;
};

static enum status entry_add(struct imatrix *m, const struct entry *e, struct str name, struct error *err)
{
    if (map_find(&m->names, name))
        return fail(err, ST_CORRUPT, "imatrix: %.*s is there twice", STR_ARG(name));
    char *kept = arena_copy(&m->arena, name);
    if (!kept || !MEM_GROW(m->entries, m->capacity, m->n) || !map_put(&m->names, str_n(kept, name.len), m->n))
        return fail_nomem(err, "imatrix");
    m->entries[m->n] = *e;
    m->entries[m->n++].name = str_n(kept, name.len);
    return ST_OK;
}

/* Sums over a count to means; ST_CORRUPT when they are no sums of squares. */
static enum status to_means(float *x, int64_t n, float count, struct str name, struct error *err)
{
    for (int64_t k = 0; k < n; k++) {
        float mean = count > 0 ? x[k] / count : 0;
        if (!(x[k] >= 0) || !isfinite(x[k]) || !isfinite(mean))
            return fail(err, ST_CORRUPT, "imatrix: %.*s holds %g of a count of %g, which is no sum of squares",
                        STR_ARG(name), (double)x[k], (double)count);
        x[k] = mean;
    }
    return ST_OK;
}

/* ---- GGUF ---- */
static enum status read_entry(struct imatrix *m, const struct checkpoint *ck, const struct tensor *t, struct error *err)
{
    struct str base = str_n(t->name.ptr, t->name.len - strlen(".in_sum2"));
    int64_t n_in = t->n_dim ? t->shape[t->n_dim - 1] : 0, n = t->n_dim == 2 ? t->shape[0] : 1;
    struct buf name = {0};
    buf_printf(&name, "%.*s.counts", (int)base.len, base.ptr);
    if (name.failed) {
        buf_free(&name);
        return fail_nomem(err, "imatrix");
    }
    const struct tensor *counts = checkpoint_find(ck, buf_str(&name));
    buf_free(&name);
    if (t->type != DT_F32 || t->n_dim < 1 || t->n_dim > 2 || n_in < 1 || n < 1 || n > EXPERT_MAX || !counts ||
        tensor_count(counts) != n || counts->type != DT_F32)
        return fail(err, ST_CORRUPT, "imatrix: %.*s must be f32 [experts, columns] with a count for each expert",
                    STR_ARG(t->name));
    float *means = arena_alloc(&m->arena, t->bytes);
    bool *seen = arena_alloc_zero(&m->arena, (size_t)n, sizeof *seen);
    if (!means || !seen)
        return fail_nomem(err, "imatrix");
    memcpy(means, t->data, t->bytes);
    for (int64_t i = 0; i < n; i++) {
        float count;
        memcpy(&count, (const char *)counts->data + 4 * i, 4);
        if (!isfinite(count) || count < 0)
            return fail(err, ST_CORRUPT, "imatrix: %.*s has a count of %g", STR_ARG(base), (double)count);
        seen[i] = count > 0;
        TRY(to_means(means + i * n_in, n_in, count, base, err));
    }
    struct entry e = {.means = means, .seen = seen, .n_in = n_in, .total = n * n_in, .n_expert = (int)n};
    return entry_add(m, &e, base, err);
}

static enum status read_gguf(struct imatrix *m, const void *data, size_t size, struct error *err)
{
    struct checkpoint *ck;
    TRY(checkpoint_open_memory(&ck, data, size, err));
    struct str type = gguf_string(ck->gguf, "general.type");
    enum status st = ST_OK;
    if (!str_is(type.ptr ? type : STR(""), "imatrix"))
        st = fail(err, ST_UNSUPPORTED, "imatrix: this GGUF is no importance matrix (general.type imatrix)");
    for (size_t i = 0; i < ck->n_tensor && st == ST_OK; i++)
        if (str_ends(ck->tensors[i].name, STR(".in_sum2")))
            st = read_entry(m, ck, &ck->tensors[i], err);
    checkpoint_close(ck);
    return st;
}

/* ---- .dat ---- */
static enum status read_dat_entry(struct imatrix *m, struct cursor *c, struct error *err)
{
    enum { NAME_MAX_BYTES = 255, COLUMNS_MAX = 1 << 28 };
    size_t at = cursor_offset(c);
    int32_t name_bytes = cursor_i32(c);
    if (c->failed || name_bytes < 1 || name_bytes > NAME_MAX_BYTES)
        return fail(err, ST_CORRUPT, "imatrix: a name of %d bytes at byte %zu, expected 1 to 255", name_bytes, at);
    struct str name = cursor_bytes(c, (uint64_t)name_bytes);
    int32_t calls = cursor_i32(c), n = cursor_i32(c);
    if (c->failed || calls < 0 || n < 1 || n > COLUMNS_MAX || (uint64_t)n * 4 > cursor_left(c))
        return fail(err, ST_CORRUPT, "imatrix: the entry at byte %zu says %d numbers of %d calls, %zu bytes are left",
                    at, n, calls, cursor_left(c));
    float *means = arena_alloc(&m->arena, (size_t)n * sizeof *means);
    if (!means)
        return fail_nomem(err, "imatrix");
    memcpy(means, cursor_bytes(c, (uint64_t)n * 4).ptr, (size_t)n * 4);
    TRY(to_means(means, n, (float)calls, name, err));
    struct entry e = {.means = means, .n_in = n, .total = n};
    return calls ? entry_add(m, &e, name, err) : ST_OK;
}

static enum status read_dat(struct imatrix *m, const void *data, size_t size, struct error *err)
{
    enum { ENTRIES_MAX = 1 << 20 };
    struct cursor c = cursor_of(data, size);
    int32_t n = cursor_i32(&c);
    /* the smallest entry has 17 bytes: what is no such file is found at its first number */
    if (c.failed || n < 1 || n > ENTRIES_MAX || (uint64_t)n * 17 > cursor_left(&c))
        return fail(err, ST_UNSUPPORTED,
                    "imatrix: this is no importance matrix, neither a GGUF nor a .dat file; make one "
                    "with `ingot imatrix`");
    for (int32_t i = 0; i < n; i++)
        TRY(read_dat_entry(m, &c, err));
    if (cursor_left(&c)) { /* when and from what it was made */
        (void)cursor_i32(&c);
        int32_t text_bytes = cursor_i32(&c);
        cursor_skip(&c, text_bytes < 0 ? UINT64_MAX : (uint64_t)text_bytes);
    }
    if (c.failed || cursor_left(&c))
        return fail(err, ST_CORRUPT, "imatrix: bytes are missing or left over after the last entry");
    return ST_OK;
}

enum status imatrix_open_memory(struct imatrix **out, const void *data, size_t size, struct error *err)
{
    struct imatrix *m = mem_alloc_zero(1, sizeof *m);
    *out = NULL;
    if (!m)
        return fail_nomem(err, "imatrix");
    arena_init(&m->arena, 0);
    enum status st = map_init(&m->names, 64) ? ST_OK : fail_nomem(err, "imatrix");
    if (st == ST_OK)
        st = size >= 4 && memcmp(data, "GGUF", 4) == 0 ? read_gguf(m, data, size, err) : read_dat(m, data, size, err);
    if (st != ST_OK) {
        imatrix_close(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

enum status imatrix_open(struct imatrix **out, const char *path, struct error *err)
{
    struct mapping map;
    *out = NULL;
    TRY(file_map(&map, path, err));
    enum status st = imatrix_open_memory(out, map.data, map.size, err);
    if (st != ST_OK)
        st = fail_context(err, "%s", path);
    struct error lost;
    if (file_check(&map, path, &lost) != ST_OK) { /* whatever else was found is its doing */
        imatrix_close(*out);
        *out = NULL;
        *err = lost;
        st = ST_IO;
    }
    file_unmap(&map);
    return st;
}

void imatrix_close(struct imatrix *m)
{
    if (!m)
        return;
    map_free(&m->names);
    mem_free(m->entries);
    arena_free(&m->arena);
    mem_free(m);
}

int imatrix_count(const struct imatrix *m)
{
    return (int)m->n;
}

enum status imatrix_find(const float **out, const struct imatrix *m, struct str name, int64_t n_in, int n_expert,
                         int expert, struct error *err)
{
    *out = NULL;
    const uint64_t *found = map_find(&m->names, name);
    if (!found)
        return ST_OK;
    const struct entry *e = &m->entries[*found];
    bool suits = e->n_expert ? e->n_expert == n_expert && e->n_in == n_in : e->total == n_expert * n_in;
    if (!suits)
        return fail(err, ST_INVALID,
                    "the importance matrix has %lld columns for %d experts, expected %lld for %d: it "
                    "belongs to another model",
                    (long long)e->n_in, e->n_expert ? e->n_expert : 1, (long long)n_in, n_expert);
    if (!e->seen || e->seen[expert])
        *out = e->means + expert * n_in;
    return ST_OK;
}
