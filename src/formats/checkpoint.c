/* checkpoint - opening a model: finds what a path is, maps its files, lets the right reader check them */
#include "base/mem.h"
#include "formats/loading.h"

#include <stdio.h>

/* The promise is 8x the file plus 16 MiB; the rest is for what does not come from the arena: stacks, maps, zlib. */
enum { PATH_BYTES = 4096, BUDGET_FIXED = 12 << 20, BUDGET_PER_BYTE = 7 };
/* What one tensor costs beside its own bytes: its row, and slots of the name map, which is at least 3/8 full. */
enum { TENSOR_COST = sizeof(struct tensor) + 64 };

/* ---- memory and tensors ---- */

static void set_budget(struct loading *l)
{
    uint64_t budget = l->mapped_bytes * BUDGET_PER_BYTE + BUDGET_FIXED, tensors = l->reserved * (uint64_t)TENSOR_COST;
    /* The arena reads a limit of 0 as none. */
    l->arena.limit = budget > tensors ? budget - tensors : 1;
}

enum status loading_parse_json(const struct json **out, struct loading *l, struct str text, unsigned flags,
                               const char *what, struct error *err)
{
    enum status st = json_parse(out, &l->arena, text, flags, err);
    /* The parser takes at most 8 bytes for each of text, strings apart: out of memory below that is the budget's doing.
     */
    if (st == ST_NOMEM && (l->arena.used > l->arena.limit || text.len * 9 > l->arena.limit - l->arena.used))
        return fail(err, ST_LIMIT,
                    "%s: it needs more memory than %d times the file; the file is damaged or made to harm", what,
                    BUDGET_PER_BYTE);
    return st == ST_OK ? st : fail_context(err, "%s", what);
}

enum status loading_alloc(void **out, struct loading *l, uint64_t count, size_t size, const char *what,
                          struct error *err)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size) || bytes > l->arena.limit || l->arena.used > l->arena.limit - bytes)
        return fail(err, ST_LIMIT,
                    "%s: %llu items need more memory than %d times the file; the file is damaged or made to "
                    "harm",
                    what, (unsigned long long)count, BUDGET_PER_BYTE);
    *out = arena_alloc(&l->arena, bytes);
    return *out ? ST_OK : fail_nomem(err, what);
}

enum status loading_reserve(struct loading *l, uint64_t n, struct error *err)
{
    uint64_t cost = n * TENSOR_COST;
    if (n > UINT32_MAX || cost > l->arena.limit || l->arena.used > l->arena.limit - cost)
        return fail(err, ST_LIMIT,
                    "%llu tensors need more memory than %d times the file; the file is damaged or made to "
                    "harm",
                    (unsigned long long)n, BUDGET_PER_BYTE);
    struct tensor *bigger = mem_realloc(l->tensors, l->reserved + n, sizeof *bigger);
    if (!bigger)
        return fail_nomem(err, "the tensor list");
    l->tensors = bigger;
    l->pub.tensors = bigger;
    if (!l->names.slots && !map_init(&l->names, n))
        return fail_nomem(err, "the tensor list");
    l->reserved += n;
    l->arena.limit -= cost;
    return ST_OK;
}

static enum status add_prefix(struct str *name, struct loading *l, struct error *err)
{
    void *text;
    size_t n = strlen(l->prefix);
    TRY(loading_alloc(&text, l, n + name->len, 1, "tensor names", err));
    memcpy(text, l->prefix, n);
    memcpy((char *)text + n, name->ptr, name->len);
    *name = str_n(text, n + name->len);
    return ST_OK;
}

enum status loading_add(struct loading *l, const struct tensor *t, const char *format, struct error *err)
{
    if (t->name.len > NAME_BYTES_MAX)
        return fail(err, ST_CORRUPT, "%s: a tensor name of %zu bytes, expected at most %d", format, t->name.len,
                    NAME_BYTES_MAX);
    struct tensor own = *t;
    if (l->prefix)
        TRY(add_prefix(&own.name, l, err));
    if (map_find(&l->names, own.name))
        return fail(err, ST_CORRUPT, "%s: the tensor %.*s occurs twice", format, STR_ARG(own.name));
    if (!map_put(&l->names, own.name, l->pub.n_tensor))
        return fail_nomem(err, "the tensor list");
    l->tensors[l->pub.n_tensor++] = own;
    return ST_OK;
}

enum status tensor_measure(struct tensor *t, const char *format, struct error *err)
{
    char shape[96];
    uint64_t count = 1;
    bool fits = true;
    for (int i = 0; i < t->n_dim && fits; i++)
        fits = t->shape[i] >= 0 && t->shape[i] <= (int64_t)1 << 48 &&
               !__builtin_mul_overflow(count, (uint64_t)t->shape[i], &count);
    if (!fits || count > (uint64_t)1 << 56)
        return fail(err, ST_CORRUPT, "%s: tensor %.*s has the impossible shape %s", format, STR_ARG(t->name),
                    tensor_shape_text(shape, sizeof shape, t));
    int64_t row = t->n_dim ? t->shape[t->n_dim - 1] : 1;
    if (row % dtype_row(t->type)->block || !dtype_bytes(&t->bytes, t->type, count))
        return fail(err, ST_CORRUPT, "%s: tensor %.*s of shape %s has type %s, whose rows must be multiples of %d",
                    format, STR_ARG(t->name), tensor_shape_text(shape, sizeof shape, t), dtype_row(t->type)->name,
                    dtype_row(t->type)->block);
    return ST_OK;
}

const struct tensor *checkpoint_find(const struct checkpoint *ck, struct str name)
{
    const struct loading *l = (const struct loading *)ck;
    const uint64_t *index = l->names.slots ? map_find(&l->names, name) : NULL;
    return index ? &ck->tensors[*index] : NULL;
}

/* ---- one file ---- */

enum container container_of_bytes(const uint8_t *data, size_t size)
{
    uint64_t header = 0;
    if (size >= 8)
        memcpy(&header, data, 8);
    if (size >= 4 && memcmp(data, "GGUF", 4) == 0)
        return CONTAINER_GGUF;
    if (size >= 4 && memcmp(data, "PK\3\4", 4) == 0)
        return CONTAINER_ZIP;
    if (llama2c_matches(data, size))
        return CONTAINER_LLAMA2C;
    /* A header length below 2^40 leaves zero bytes where text or another magic would be. */
    if (size >= 9 && header < (uint64_t)1 << 40 && data[8] == '{')
        return CONTAINER_SAFETENSORS;
    return CONTAINER_UNKNOWN;
}

/* Files people try that are no models Ingot reads: named, so that the next step is clear. */
static enum status fail_unknown(const uint8_t *data, size_t size, struct error *err)
{
    static const struct {
        const char *magic;
        size_t n;
        const char *what;
    } known[] = {
        {"version https://git-lfs", 23, "a Git LFS pointer, not the file itself; fetch it with \"git lfs pull\""},
        {"<!DOCTYPE", 9, "a web page; the download went wrong"},
        {"<html", 5, "a web page; the download went wrong"},
        {"ggjt", 4, "a GGML file older than GGUF; convert it again with a current tool"},
        {"tjgg", 4, "a GGML file older than GGUF; convert it again with a current tool"},
        {"lmgg", 4, "a GGML file older than GGUF; convert it again with a current tool"},
        {"fmgg", 4, "an RWKV file of rwkv.cpp, which Ingot does not read"},
        {"\x80\x02", 2,
         "a pickle without a zip container (PyTorch before 1.6), which Ingot does not read; save it again with a "
         "current PyTorch"},
        {"\x89HDF", 4, "an HDF5 file, which Ingot does not read"},
        {"\x1f\x8b", 2, "compressed with gzip; unpack it first"},
        {"\xfd"
         "7zXZ",
         5, "compressed with xz; unpack it first"},
    };
    if (size == 0)
        return fail(err, ST_CORRUPT, "the file is empty");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (size >= known[i].n && memcmp(data, known[i].magic, known[i].n) == 0)
            return fail(err, ST_UNSUPPORTED, "this is %s", known[i].what);
    char hex[3 * 8 + 1] = "";
    for (size_t i = 0; i < size && i < 8; i++)
        snprintf(hex + 3 * i, 4, " %02x", data[i]);
    return fail(err, ST_CORRUPT,
                "no model file that Ingot knows (its %zu bytes begin with%s); expected safetensors, GGUF, "
                "llama2.c or a PyTorch zip file, perhaps this one is damaged",
                size, hex);
}

/* `alone`: the file is the whole checkpoint, so it decides the kind. */
static enum status read_bytes(struct loading *l, const uint8_t *data, size_t size, bool alone, struct error *err)
{
    l->pub.file_bytes += size;
    l->mapped_bytes += size;
    set_budget(l);
    enum container c = container_of_bytes(data, size);
    static const enum checkpoint_kind kind[] = {CHECKPOINT_HF, CHECKPOINT_HF, CHECKPOINT_GGUF, CHECKPOINT_LLAMA2C,
                                                CHECKPOINT_TORCH};
    if (alone)
        l->pub.kind = kind[c];
    switch (c) {
    case CONTAINER_SAFETENSORS:
        return safetensors_read(l, data, size, err);
    case CONTAINER_GGUF:
        return gguf_read(l, data, size, err);
    case CONTAINER_LLAMA2C:
        return llama2c_read(l, data, size, err);
    case CONTAINER_ZIP:
        return torch_read(l, data, size, alone, err);
    default:
        return fail_unknown(data, size, err);
    }
}

/* The mapping lives until the checkpoint is closed. */
static enum status map_file(struct mapping **out, struct loading *l, const char *path, struct error *err)
{
    if (!MEM_GROW(l->files, l->file_capacity, l->pub.n_file))
        return fail_nomem(err, "mappings");
    l->pub.files = l->files;
    struct checkpoint_file *file = &l->files[l->pub.n_file];
    if (!(file->path = arena_copy(&l->arena, str_of(path))))
        return fail_nomem(err, "mappings");
    TRY(file_map(&file->map, path, err));
    l->pub.n_file++;
    *out = &file->map;
    return ST_OK;
}

static enum status read_file(struct loading *l, const char *path, bool alone, struct error *err)
{
    struct mapping *m;
    TRY(map_file(&m, l, path, err));
    if (read_bytes(l, m->data, m->size, alone, err) != ST_OK)
        return fail_context(err, "%s", path);
    return ST_OK;
}

/* ---- a folder ---- */

static enum status read_json(const struct json **out, struct loading *l, const char *folder, const char *name,
                             struct error *err)
{
    char path[PATH_BYTES];
    struct mapping *m;
    *out = NULL;
    if (file_kind(path_join(path, sizeof path, folder, name)) != FILE_REGULAR)
        return ST_OK;
    TRY(map_file(&m, l, path, err));
    l->mapped_bytes += m->size;
    set_budget(l);
    return loading_parse_json(out, l, str_n(m->data, m->size), 0, path, err);
}

static bool is_plain_name(struct str name)
{
    return name.len && name.len < 256 && name.ptr[0] != '.' && !memchr(name.ptr, '/', name.len) &&
           !memchr(name.ptr, 0, name.len);
}

/* Reads each distinct file of the index once, and then looks whether every listed tensor came. */
static enum status read_shards(struct loading *l, const char *folder, const struct json *index, struct error *err)
{
    const struct json *weight_map = json_get(index, "weight_map");
    struct map seen;
    if (!json_is(weight_map, JSON_OBJECT))
        return fail(err, ST_CORRUPT, "the weight index in %s has no object \"weight_map\"", folder);
    if (!map_init(&seen, 64)) {
        map_free(&seen);
        return fail_nomem(err, "the weight index");
    }
    enum status st = ST_OK;
    JSON_EACH_MEMBER (tensor, file, weight_map) {
        struct str name = json_str(file);
        char path[PATH_BYTES], text[256];
        if (st != ST_OK || (name.ptr && map_find(&seen, name)))
            continue;
        if (!name.ptr || !is_plain_name(name)) {
            st = fail(err, ST_CORRUPT, "the weight index in %s names no plain file for %.*s", folder, STR_ARG(tensor));
            continue;
        }
        memcpy(text, name.ptr, name.len);
        text[name.len] = 0;
        if (!map_put(&seen, name, 0))
            st = fail_nomem(err, "the weight index");
        else
            st = read_file(l, path_join(path, sizeof path, folder, text), false, err);
    }
    map_free(&seen);
    TRY(st);
    JSON_EACH_MEMBER (name, where, weight_map) {
        if (!checkpoint_find(&l->pub, name))
            return fail(err, ST_CORRUPT, "the weight index in %s lists tensor %.*s, but %.*s does not hold it", folder,
                        STR_ARG(name), STR_ARG(json_str(where)));
    }
    return ST_OK;
}

struct listing {
    struct loading *l;
    const char *folder;
    const char *suffix;
    size_t n;
    char first[256]; /* the name, when it fits */
    bool read;       /* read each match; else only count */
};

static enum status list_entry(void *ctx, const char *name, struct error *err)
{
    struct listing *x = ctx;
    char path[PATH_BYTES];
    if (!str_ends(str_of(name), str_of(x->suffix)) || strlen(name) >= sizeof x->first)
        return ST_OK;
    if (x->n++ == 0)
        strcpy(x->first, name);
    return x->read ? read_file(x->l, path_join(path, sizeof path, x->folder, name), false, err) : ST_OK;
}

static const struct {
    const char *index, *single;
} weight_files[] = {{"model.safetensors.index.json", "model.safetensors"},
                    {"pytorch_model.bin.index.json", "pytorch_model.bin"}};
enum { WEIGHT_FILES = sizeof weight_files / sizeof *weight_files };

/* In this order: an index, the usual single name, any safetensors files, a lone GGUF file. */
static enum status read_weights(struct loading *l, const char *folder, struct error *err)
{
    char path[PATH_BYTES];
    for (int i = 0; i < WEIGHT_FILES; i++) {
        const struct json *index;
        TRY(read_json(&index, l, folder, weight_files[i].index, err));
        if (index)
            return read_shards(l, folder, index, err);
        if (file_kind(path_join(path, sizeof path, folder, weight_files[i].single)) == FILE_REGULAR)
            return read_file(l, path, false, err);
        struct listing any = {.l = l, .folder = folder, .suffix = ".safetensors", .read = true};
        if (i == 0) {
            TRY(file_each(folder, list_entry, &any, err));
            if (any.n)
                return ST_OK;
        }
    }
    struct listing gguf = {.l = l, .folder = folder, .suffix = ".gguf"};
    TRY(file_each(folder, list_entry, &gguf, err));
    if (gguf.n == 1)
        return read_file(l, path_join(path, sizeof path, folder, gguf.first), true, err);
    if (gguf.n > 1)
        return fail(err, ST_INVALID, "%s holds %zu GGUF files; name one of them, for instance %s/%s", folder, gguf.n,
                    folder, gguf.first);
    return fail(err, ST_NOT_FOUND,
                "%s holds no model: expected model.safetensors, an index of it, pytorch_model.bin or a "
                ".gguf file",
                folder);
}

/* What sentence-transformers keeps in folders of their own: weights of Dense modules, named dense_2.*, dense_3.* as in
 * GGUF. Whether and how they are used, the model says. */
static enum status read_modules(struct loading *l, const char *folder, struct error *err)
{
    enum { DENSE_FIRST = 2, DENSE_LAST = 3 };
    const struct json *modules;
    char path[PATH_BYTES], name[256], prefix[24];
    int n = DENSE_FIRST;
    TRY(read_json(&modules, l, folder, "modules.json", err));
    JSON_EACH (module, modules) {
        struct str where = json_str(json_get(module, "path"));
        if (!str_ends(json_str(json_get(module, "type")), STR(".Dense")) || !is_plain_name(where) || n > DENSE_LAST)
            continue;
        snprintf(prefix, sizeof prefix, "dense_%d.", n++);
        for (int i = 0; i < WEIGHT_FILES; i++) {
            snprintf(name, sizeof name, "%.*s/%s", (int)(where.len < 200 ? where.len : 200), where.ptr,
                     weight_files[i].single);
            if (file_kind(path_join(path, sizeof path, folder, name)) != FILE_REGULAR)
                continue;
            l->prefix = prefix;
            enum status st = read_file(l, path, false, err);
            l->prefix = NULL;
            TRY(st);
            break;
        }
    }
    return ST_OK;
}

static enum status open_path(struct loading *l, const char *path, struct error *err)
{
    char folder[PATH_BYTES];
    enum file_kind kind = file_kind(path);
    if (kind == FILE_ABSENT) { /* or behind a folder that may not be entered: the attempt tells */
        struct mapping none;
        enum status st = file_map(&none, path, err);
        file_unmap(&none);
        return st == ST_DENIED ? st
                               : fail(err, ST_NOT_FOUND,
                                      "%s does not exist; expected a model folder (config.json, weights, tokenizer) or "
                                      "one model file",
                                      path);
    }
    if (strlen(path) >= PATH_BYTES - 300)
        return fail(err, ST_INVALID, "a path of %zu bytes, expected at most %d", strlen(path), PATH_BYTES - 300);
    if (kind == FILE_FOLDER) {
        snprintf(folder, sizeof folder, "%s", path);
    } else {
        const char *slash = strrchr(path, '/');
        snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
        if (slash == path)
            strcpy(folder, "/");
    }
    if (!(l->pub.path = arena_copy(&l->arena, str_of(path))) ||
        !(l->pub.folder = arena_copy(&l->arena, str_of(folder))))
        return fail_nomem(err, "the path");
    l->pub.kind = CHECKPOINT_HF;
    if (kind == FILE_FOLDER)
        TRY(read_weights(l, path, err));
    else
        TRY(read_file(l, path, true, err));
    if (l->pub.kind != CHECKPOINT_HF)
        return ST_OK;
    TRY(read_json(&l->pub.config, l, folder, "config.json", err));
    TRY(read_modules(l, folder, err));
    return l->pub.config ? packed_read(l, l->pub.config, err) : ST_OK;
}

/* ---- the door ---- */

static enum status create(struct loading **out, struct error *err)
{
    *out = mem_alloc_zero(1, sizeof **out);
    if (!*out)
        return fail_nomem(err, "the checkpoint");
    arena_init(&(*out)->arena, BUDGET_FIXED);
    return ST_OK;
}

enum status checkpoint_check(const struct checkpoint *ck, struct error *err)
{
    for (size_t i = 0; i < ck->n_file; i++)
        TRY(file_check(&ck->files[i].map, ck->files[i].path, err));
    return ST_OK;
}

void checkpoint_forget(const struct checkpoint *ck, const void *data, size_t bytes)
{
    for (size_t i = 0; i < ck->n_file; i++) {
        const struct mapping *map = &ck->files[i].map;
        if ((uintptr_t)data - (uintptr_t)map->data < map->size) /* others were made by their reader */
            file_forget(map, data, bytes);
    }
}

enum status checkpoint_open(struct checkpoint **out, const char *path, struct error *err)
{
    struct loading *l;
    *out = NULL;
    TRY(create(&l, err));
    enum status st = open_path(l, path, err);
    if (checkpoint_check(&l->pub, err) != ST_OK)
        st = ST_IO;
    if (st == ST_OK)
        *out = &l->pub;
    else
        checkpoint_close(&l->pub);
    return st;
}

enum status checkpoint_open_memory(struct checkpoint **out, const void *data, size_t size, struct error *err)
{
    return checkpoint_open_memory_with(out, data, size, (struct str){0}, err);
}

enum status checkpoint_open_memory_with(struct checkpoint **out, const void *data, size_t size, struct str config,
                                        struct error *err)
{
    struct loading *l;
    *out = NULL;
    TRY(create(&l, err));
    l->pub.path = l->pub.folder = "";
    enum status st = read_bytes(l, data, size, true, err);
    if (st == ST_OK && config.ptr) {
        l->mapped_bytes += config.len;
        set_budget(l);
        st = loading_parse_json(&l->pub.config, l, config, 0, "config.json", err);
    }
    if (st == ST_OK && config.ptr)
        st = packed_read(l, l->pub.config, err);
    if (st == ST_OK)
        *out = &l->pub;
    else
        checkpoint_close(&l->pub);
    return st;
}

void checkpoint_close(struct checkpoint *ck)
{
    if (!ck)
        return;
    struct loading *l = (struct loading *)ck;
    for (size_t i = 0; i < l->pub.n_file; i++)
        file_unmap(&l->files[i].map);
    mem_free(l->files);
    mem_free(l->tensors);
    map_free(&l->names);
    arena_free(&l->arena);
    mem_free(l);
}
