/* safetensors_write - one model.safetensors, or shards and their index
 *
 * Tensors are laid by type (widest first) and then name, as the safetensors package does: everything stays aligned, and
 * equal tensors give equal files. A reader never sees half a model: each file appears complete, the index last, and
 * what would outrank the new files is removed only after them.
 */
#include "base/file.h"
#include "base/mem.h"
#include "formats/formats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATH_BYTES = 4096 };

static size_t out_bytes(const struct tensor_out *t)
{
    size_t bytes = 0;
    uint64_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= (uint64_t)t->shape[i];
    return dtype_bytes(&bytes, t->type, n) ? bytes : 0;
}

static int order(const void *a, const void *b)
{
    static const uint8_t rank[DT_COUNT] = {
        [DT_BOOL] = 0, [DT_U8] = 1,  [DT_I8] = 2,  [DT_I16] = 3,  [DT_U16] = 4,  [DT_F16] = 5,  [DT_BF16] = 6,
        [DT_I32] = 7,  [DT_U32] = 8, [DT_F32] = 9, [DT_F64] = 10, [DT_I64] = 11, [DT_U64] = 12,
    };
    const struct tensor_out *x = *(const struct tensor_out *const *)a, *y = *(const struct tensor_out *const *)b;
    return x->type != y->type ? rank[y->type] - rank[x->type] : str_cmp(x->name, y->name);
}

static void put_header(struct buf *out, const struct tensor_out *const *tensors, size_t n)
{
    struct json_writer w;
    uint64_t at = 0;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "__metadata__");
    json_begin_object(&w);
    json_put_str(&w, "format", STR("pt"));
    json_end_object(&w);
    for (size_t i = 0; i < n; i++) {
        const struct tensor_out *t = tensors[i];
        json_key_str(&w, t->name);
        json_begin_object(&w);
        json_put_str(&w, "dtype", str_of(dtype_row(t->type)->st_name));
        json_key(&w, "shape");
        json_begin_array(&w);
        for (int d = 0; d < t->n_dim; d++)
            json_write_int(&w, t->shape[d]);
        json_end_array(&w);
        json_key(&w, "data_offsets");
        json_begin_array(&w);
        json_write_int(&w, (int64_t)at);
        json_write_int(&w, (int64_t)(at += out_bytes(t)));
        json_end_array(&w);
        json_end_object(&w);
    }
    json_end_object(&w);
    while (out->len % 8 && !out->failed)
        buf_append_char(out, ' ');
}

/* One tensor's bytes through one buffer at a time. */
static enum status put_tensor(struct file_writer *w, const struct tensor_out *t, struct error *err)
{
    size_t bytes = out_bytes(t);
    void *data = mem_alloc(bytes);
    if (!data)
        return fail_nomem(err, "a tensor to write");
    enum status st = t->fill(t->ctx, data, err);
    if (st == ST_OK)
        file_writer_write(w, data, bytes);
    mem_free(data);
    return st;
}

static enum status write_file(const char *path, const struct tensor_out *const *tensors, size_t n, struct error *err)
{
    struct buf header = {0};
    put_header(&header, tensors, n);
    if (header.failed) {
        buf_free(&header);
        return fail_nomem(err, "the safetensors header");
    }
    struct file_writer w;
    enum status st = file_writer_open(&w, path, err);
    if (st != ST_OK) {
        buf_free(&header);
        return st;
    }
    uint64_t len = header.len;
    file_writer_write(&w, &len, 8);
    file_writer_write(&w, header.ptr, header.len);
    buf_free(&header);
    for (size_t i = 0; i < n && st == ST_OK && !w.failed; i++)
        st = put_tensor(&w, tensors[i], err);
    if (st == ST_OK)
        st = file_writer_commit(&w, err);
    file_writer_abort(&w);
    return st;
}

static enum status remove_present(const char *folder, const char *name, struct error *err)
{
    char path[PATH_BYTES];
    path_join(path, sizeof path, folder, name);
    return file_kind(path) == FILE_REGULAR ? file_remove(path, err) : ST_OK;
}

/* End of the shard that begins at `first`: at least one tensor, then as many as fit. */
static size_t shard_end(const struct tensor_out *const *tensors, size_t first, size_t n, uint64_t shard_bytes)
{
    uint64_t used = out_bytes(tensors[first]);
    size_t end = first + 1;
    while (end < n && used + out_bytes(tensors[end]) <= shard_bytes)
        used += out_bytes(tensors[end++]);
    return end;
}

static char *shard_name(char name[64], size_t number, size_t count)
{
    snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", number, count);
    return name;
}

static void put_index(struct buf *out, const struct tensor_out *const *tensors, size_t n, uint64_t shard_bytes,
                      size_t count)
{
    struct json_writer w;
    uint64_t total = 0;
    char name[64];
    for (size_t i = 0; i < n; i++)
        total += out_bytes(tensors[i]);
    json_writer_init(&w, out);
    w.indent = 2;
    json_begin_object(&w);
    json_key(&w, "metadata");
    json_begin_object(&w);
    json_put_int(&w, "total_size", (int64_t)total);
    json_end_object(&w);
    json_key(&w, "weight_map");
    json_begin_object(&w);
    for (size_t i = 0, shard = 0, end = 0; i < n; i++) {
        if (i == end) {
            end = shard_end(tensors, i, n, shard_bytes);
            shard_name(name, ++shard, count);
        }
        json_key_str(&w, tensors[i]->name);
        json_write_str(&w, str_of(name));
    }
    json_end_object(&w);
    json_end_object(&w);
    buf_append_char(out, '\n');
}

static enum status write_shards(const char *folder, const struct tensor_out *const *tensors, size_t n,
                                uint64_t shard_bytes, struct error *err)
{
    char path[PATH_BYTES], name[64];
    size_t count = 0, number = 0;
    for (size_t i = 0; i < n; i = shard_end(tensors, i, n, shard_bytes))
        count++;
    for (size_t i = 0, end; i < n; i = end) {
        end = shard_end(tensors, i, n, shard_bytes);
        path_join(path, sizeof path, folder, shard_name(name, ++number, count));
        TRY(write_file(path, tensors + i, end - i, err));
    }
    struct buf index = {0};
    put_index(&index, tensors, n, shard_bytes, count);
    enum status st = index.failed ? fail_nomem(err, "the weight index")
                                  : file_write_all(path_join(path, sizeof path, folder, "model.safetensors.index.json"),
                                                   buf_str(&index), err);
    buf_free(&index);
    TRY(st);
    return remove_present(folder, "model.safetensors", err);
}

static enum status write_sorted(const char *folder, const struct tensor_out *const *tensors, size_t n,
                                uint64_t shard_bytes, struct error *err)
{
    char path[PATH_BYTES];
    if (shard_bytes && n && shard_end(tensors, 0, n, shard_bytes) < n)
        return write_shards(folder, tensors, n, shard_bytes, err);
    TRY(write_file(path_join(path, sizeof path, folder, "model.safetensors"), tensors, n, err));
    return remove_present(folder, "model.safetensors.index.json", err);
}

enum status safetensors_write(const char *folder, const struct tensor_out *tensors, size_t n, uint64_t shard_bytes,
                              struct error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!dtype_row(tensors[i].type)->st_name)
            return fail(err, ST_UNSUPPORTED, "safetensors has no type %s (tensor %.*s); write GGUF instead",
                        dtype_row(tensors[i].type)->name, STR_ARG(tensors[i].name));
    if (strlen(folder) > PATH_BYTES - 64)
        return fail(err, ST_INVALID, "a path of %zu bytes", strlen(folder));
    TRY(file_make_folders(folder, err));
    const struct tensor_out **sorted = mem_alloc_zero(n, sizeof *sorted);
    if (!sorted)
        return fail_nomem(err, "the tensor list");
    for (size_t i = 0; i < n; i++)
        sorted[i] = &tensors[i];
    qsort(sorted, n, sizeof *sorted, order);
    enum status st = write_sorted(folder, sorted, n, shard_bytes, err);
    mem_free(sorted);
    return st;
}
