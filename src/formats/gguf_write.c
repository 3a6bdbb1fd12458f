/* gguf_write - GGUF version 3: metadata gathered in memory, tensors streamed in the given order */
#include "base/file.h"
#include "base/mem.h"
#include "formats/formats.h"

enum { ALIGNMENT = 32 };

struct gguf_writer {
    struct buf values; /* sticky failure */
    uint64_t n_value;
};

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void put_text(struct buf *b, struct str s)
{
    put_u64(b, s.len);
    buf_append_str(b, s);
}

static void put_key(struct gguf_writer *w, const char *key, enum gguf_type type)
{
    put_text(&w->values, str_of(key));
    put_u32(&w->values, type);
    w->n_value++;
}

static void put_array(struct gguf_writer *w, const char *key, enum gguf_type element, size_t n)
{
    put_key(w, key, GGUF_ARRAY);
    put_u32(&w->values, element);
    put_u64(&w->values, n);
}

/* Little-endian: the low bytes of a 64-bit integer are the narrower one. */
static void put_integer(struct buf *b, enum gguf_type type, int64_t value)
{
    static const uint8_t width[] = {[GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4,
                                    [GGUF_I32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8};
    buf_append(b, &value, width[type]);
}

enum status gguf_writer_create(struct gguf_writer **out, struct error *err)
{
    *out = mem_alloc_zero(1, sizeof **out);
    return *out ? ST_OK : fail_nomem(err, "the GGUF writer");
}

void gguf_put_int(struct gguf_writer *w, const char *key, enum gguf_type type, int64_t value)
{
    put_key(w, key, type);
    put_integer(&w->values, type, value);
}

void gguf_put_real(struct gguf_writer *w, const char *key, enum gguf_type type, double value)
{
    float narrow = (float)value;
    put_key(w, key, type);
    if (type == GGUF_F32)
        buf_append(&w->values, &narrow, sizeof narrow);
    else
        buf_append(&w->values, &value, sizeof value);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool value)
{
    gguf_put_int(w, key, GGUF_BOOL, value);
}

void gguf_put_string(struct gguf_writer *w, const char *key, struct str value)
{
    put_key(w, key, GGUF_STRING);
    put_text(&w->values, value);
}

void gguf_put_strings(struct gguf_writer *w, const char *key, const struct str *values, size_t n)
{
    put_array(w, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++)
        put_text(&w->values, values[i]);
}

void gguf_put_ints(struct gguf_writer *w, const char *key, enum gguf_type element, const int64_t *values, size_t n)
{
    put_array(w, key, element, n);
    for (size_t i = 0; i < n; i++)
        put_integer(&w->values, element, values[i]);
}

void gguf_put_reals(struct gguf_writer *w, const char *key, const float *values, size_t n)
{
    put_array(w, key, GGUF_F32, n);
    buf_append(&w->values, values, n * sizeof *values);
}

static uint64_t padded(uint64_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static enum status measure(size_t *bytes, const struct tensor_out *t, struct error *err)
{
    uint64_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= (uint64_t)t->shape[i];
    int64_t row = t->n_dim ? t->shape[t->n_dim - 1] : 1;
    if (dtype_row(t->type)->gguf_id < 0)
        return fail(err, ST_UNSUPPORTED, "GGUF has no type %s (tensor %.*s)", dtype_row(t->type)->name,
                    STR_ARG(t->name));
    if (t->n_dim > 4 || row % dtype_row(t->type)->block || !dtype_bytes(bytes, t->type, n))
        return fail(err, ST_INVALID,
                    "GGUF: tensor %.*s has %d dimensions (at most 4) and rows of %lld (a multiple of %d "
                    "for %s)",
                    STR_ARG(t->name), t->n_dim, (long long)row, dtype_row(t->type)->block, dtype_row(t->type)->name);
    return ST_OK;
}

/* Everything before the data section, without its padding. */
static enum status put_head(struct buf *b, const struct gguf_writer *w, const struct tensor_out *tensors, size_t n,
                            struct error *err)
{
    uint64_t offset = 0;
    buf_append(b, "GGUF", 4);
    put_u32(b, 3);
    put_u64(b, n);
    put_u64(b, w->n_value);
    buf_append_str(b, buf_str(&w->values));
    for (size_t i = 0; i < n; i++) {
        const struct tensor_out *t = &tensors[i];
        size_t bytes;
        TRY(measure(&bytes, t, err));
        put_text(b, t->name);
        put_u32(b, (uint32_t)t->n_dim);
        for (int d = t->n_dim - 1; d >= 0; d--) /* innermost first */
            put_u64(b, (uint64_t)t->shape[d]);
        put_u32(b, (uint32_t)dtype_row(t->type)->gguf_id);
        put_u64(b, offset);
        offset += padded(bytes);
    }
    return b->failed || w->values.failed ? fail_nomem(err, "the GGUF header") : ST_OK;
}

static void put_padding(struct file_writer *f)
{
    static const uint8_t zeros[ALIGNMENT];
    file_writer_write(f, zeros, (size_t)(padded(f->offset) - f->offset));
}

static enum status put_tensors(struct file_writer *f, const struct tensor_out *tensors, size_t n, struct error *err)
{
    enum status st = ST_OK;
    for (size_t i = 0; i < n && st == ST_OK && !f->failed; i++) {
        size_t bytes = 0;
        TRY(measure(&bytes, &tensors[i], err));
        void *data = mem_alloc(bytes);
        if (!data)
            return fail_nomem(err, "a tensor to write");
        st = tensors[i].fill(tensors[i].ctx, data, err);
        if (st == ST_OK)
            file_writer_write(f, data, bytes);
        put_padding(f);
        mem_free(data);
    }
    return st;
}

enum status gguf_writer_commit(struct gguf_writer *w, const char *path, const struct tensor_out *tensors, size_t n,
                               struct error *err)
{
    struct buf head = {0};
    struct file_writer f;
    enum status st = put_head(&head, w, tensors, n, err);
    if (st == ST_OK)
        st = file_writer_open(&f, path, err);
    if (st == ST_OK) {
        file_writer_write(&f, head.ptr, head.len);
        put_padding(&f);
        st = put_tensors(&f, tensors, n, err);
        if (st == ST_OK)
            st = file_writer_commit(&f, err);
        file_writer_abort(&f);
    }
    buf_free(&head);
    return st;
}

void gguf_writer_destroy(struct gguf_writer *w)
{
    if (w)
        buf_free(&w->values);
    mem_free(w);
}
