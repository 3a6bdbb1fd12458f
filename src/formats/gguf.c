/* gguf - reader of GGUF versions 2 and 3, little-endian
 *
 * Invariants after gguf_read
 *  1. every value's bytes, and those of each string of a string array, lie inside the file
 *  2. every tensor's bytes lie inside the data section, and together they are no more than it holds
 *  3. keys and tensor names are unique
 */
#include "base/cursor.h"
#include "base/mem.h"
#include "formats/loading.h"

enum { VALUE_BYTES_MIN = 8 + 4 + 1, TENSOR_BYTES_MIN = 8 + 4 + 4 + 8, GGUF_DIMS_MAX = 4 };

/* Bytes of one value; 0 for strings and arrays, whose length is in the file. */
static size_t value_size(enum gguf_type t)
{
    static const uint8_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return size[t];
}

static struct str read_string(struct cursor *c)
{
    return cursor_bytes(c, cursor_u64(c));
}

static enum status fail_end(const struct cursor *c, const char *what, struct error *err)
{
    return fail(err, ST_CORRUPT, "gguf: the file ends inside %s at byte %zu of %zu; it is truncated or damaged", what,
                cursor_offset(c), (size_t)(c->end - c->start));
}

static enum status read_array(struct gguf_value *v, struct loading *l, struct cursor *c, struct error *err)
{
    uint32_t element = cursor_u32(c);
    uint64_t count = cursor_u64(c);
    if (c->failed)
        return fail_end(c, "an array", err);
    if (element > GGUF_F64)
        return fail(err, ST_CORRUPT, "gguf: array %.*s has element type %u, expected 0 to 12", STR_ARG(v->key),
                    element);
    if (element == GGUF_ARRAY)
        return fail(err, ST_UNSUPPORTED, "gguf: %.*s is an array of arrays, which Ingot does not read",
                    STR_ARG(v->key));
    v->element = (enum gguf_type)element;
    v->count = count;
    v->data = c->at;
    size_t each = element == GGUF_STRING ? 8 : value_size(v->element);
    if (count > cursor_left(c) / each)
        return fail(err, ST_CORRUPT, "gguf: array %.*s claims %llu elements, but %zu bytes follow", STR_ARG(v->key),
                    (unsigned long long)count, cursor_left(c));
    if (element != GGUF_STRING) {
        cursor_skip(c, count * each);
        return ST_OK;
    }
    void *memory;
    TRY(loading_alloc(&memory, l, count, sizeof(struct str), "string arrays", err));
    struct str *strings = memory;
    for (uint64_t i = 0; i < count; i++)
        strings[i] = read_string(c);
    v->strings = strings;
    return c->failed ? fail_end(c, "an array of strings", err) : ST_OK;
}

static enum status read_value(struct gguf_value *v, struct loading *l, struct cursor *c, struct error *err)
{
    v->key = read_string(c);
    uint32_t type = cursor_u32(c);
    if (c->failed)
        return fail_end(c, "the metadata", err);
    if (v->key.len > NAME_BYTES_MAX)
        return fail(err, ST_CORRUPT, "gguf: a key of %zu bytes, expected at most %d", v->key.len, NAME_BYTES_MAX);
    if (type > GGUF_F64)
        return fail(err, ST_CORRUPT, "gguf: value %.*s has type %u, expected 0 to 12", STR_ARG(v->key), type);
    v->type = (enum gguf_type)type;
    v->count = 1;
    if (type == GGUF_ARRAY)
        return read_array(v, l, c, err);
    v->element = v->type;
    v->data = c->at;
    if (type == GGUF_STRING)
        (void)read_string(c);
    else
        cursor_skip(c, value_size(v->type));
    return c->failed ? fail_end(c, "the metadata", err) : ST_OK;
}

static enum status check_unique(const struct gguf_value *values, uint64_t n, struct error *err)
{
    struct map seen;
    if (!map_init(&seen, n)) {
        map_free(&seen);
        return fail_nomem(err, "gguf keys");
    }
    enum status st = ST_OK;
    for (uint64_t i = 0; i < n && st == ST_OK; i++) {
        if (map_find(&seen, values[i].key))
            st = fail(err, ST_CORRUPT, "gguf: the key %.*s occurs twice", STR_ARG(values[i].key));
        else if (!map_put(&seen, values[i].key, i))
            st = fail_nomem(err, "gguf keys");
    }
    map_free(&seen);
    return st;
}

static enum status read_values(struct gguf *g, struct loading *l, struct cursor *c, uint64_t n, struct error *err)
{
    if (n > cursor_left(c) / VALUE_BYTES_MIN)
        return fail(
            err, ST_CORRUPT,
            "gguf: the header claims %llu metadata values, but %zu bytes follow; the file is truncated or damaged",
            (unsigned long long)n, cursor_left(c));
    void *memory;
    TRY(loading_alloc(&memory, l, n, sizeof(struct gguf_value), "metadata", err));
    struct gguf_value *values = memory;
    memset(values, 0, n * sizeof *values);
    for (uint64_t i = 0; i < n; i++)
        TRY(read_value(&values[i], l, c, err));
    g->values = values;
    g->n_value = n;
    return check_unique(values, n, err);
}

/* One row of the tensor list; *offset counts from the data section's start, which is known only after the last row. */
static enum status read_tensor(struct tensor *t, uint64_t *offset, struct cursor *c, struct error *err)
{
    *t = (struct tensor){.name = read_string(c)};
    uint32_t n_dim = cursor_u32(c);
    if (!c->failed && n_dim > GGUF_DIMS_MAX)
        return fail(err, ST_CORRUPT, "gguf: tensor %.*s has %u dimensions, expected at most %d", STR_ARG(t->name),
                    n_dim, GGUF_DIMS_MAX);
    if (c->failed)
        return fail_end(c, "the tensor list", err);
    t->n_dim = (int)n_dim;
    for (uint32_t i = 0; i < n_dim; i++)
        t->shape[n_dim - 1 - i] = cursor_i64(c); /* stored innermost first */
    uint32_t type = cursor_u32(c);
    *offset = cursor_u64(c);
    if (c->failed)
        return fail_end(c, "the tensor list", err);
    int known = dtype_from_gguf(type);
    if (known < 0)
        return fail(err, ST_UNSUPPORTED, "gguf: tensor %.*s has type %s (%u), which Ingot does not read",
                    STR_ARG(t->name), gguf_type_name(type), type);
    t->type = (enum dtype)known;
    return tensor_measure(t, "gguf", err);
}

static enum status read_tensors(struct loading *l, struct cursor *c, uint64_t n, uint64_t alignment, struct error *err)
{
    TRY(loading_reserve(l, n, err));
    struct cursor again = *c;
    struct tensor t;
    uint64_t offset;
    for (uint64_t i = 0; i < n; i++) /* once to find where the list ends, once to place the data */
        TRY(read_tensor(&t, &offset, c, err));
    uint64_t start = (cursor_offset(c) + alignment - 1) / alignment * alignment, size = (uint64_t)(c->end - c->start);
    uint64_t room = start < size ? size - start : 0, total = 0;
    for (uint64_t i = 0; i < n; i++) {
        TRY(read_tensor(&t, &offset, &again, err));
        if (offset % alignment)
            return fail(err, ST_CORRUPT, "gguf: tensor %.*s begins at offset %llu, which is no multiple of %llu",
                        STR_ARG(t.name), (unsigned long long)offset, (unsigned long long)alignment);
        if (offset > room || t.bytes > room - offset)
            return fail(err, ST_CORRUPT,
                        "gguf: tensor %.*s needs %zu bytes at offset %llu, but the data section has %llu; "
                        "the file is truncated or damaged",
                        STR_ARG(t.name), t.bytes, (unsigned long long)offset, (unsigned long long)room);
        total += t.bytes; /* checked after each step: never beyond twice the file */
        if (total > room)
            return fail(err, ST_CORRUPT,
                        "gguf: the tensors up to %.*s need %llu bytes together, but the data section has "
                        "%llu: they overlap",
                        STR_ARG(t.name), (unsigned long long)total, (unsigned long long)room);
        t.data = c->start + (t.bytes ? start + offset : 0);
        TRY(loading_add(l, &t, "gguf", err));
    }
    return ST_OK;
}

static enum status read_version(uint32_t *version, struct cursor *c, struct error *err)
{
    cursor_skip(c, 4); /* magic */
    *version = cursor_u32(c);
    if (c->failed)
        return fail_end(c, "the header", err);
    if (*version == 2 || *version == 3)
        return ST_OK;
    if (*version == 0x02000000 || *version == 0x03000000)
        return fail(err, ST_UNSUPPORTED, "gguf: the file is big-endian; convert it to little-endian");
    if (*version == 1)
        return fail(err, ST_UNSUPPORTED, "gguf: version 1, expected 2 or 3; convert it again with a current tool");
    return fail(err, ST_UNSUPPORTED, "gguf: version %u, expected 2 or 3", *version);
}

enum status gguf_read(struct loading *l, const uint8_t *data, size_t size, struct error *err)
{
    struct cursor c = cursor_of(data, size);
    uint32_t version;
    TRY(read_version(&version, &c, err));
    uint64_t n_tensor = cursor_u64(&c), n_value = cursor_u64(&c);
    if (c.failed)
        return fail_end(&c, "the header", err);
    void *memory;
    TRY(loading_alloc(&memory, l, 1, sizeof(struct gguf), "metadata", err));
    struct gguf *g = memory;
    *g = (struct gguf){.version = version, .alignment = 32};
    TRY(read_values(g, l, &c, n_value, err));
    l->pub.gguf = g;
    int64_t alignment = gguf_int(g, "general.alignment", 32);
    if (alignment < 1 || alignment > 1 << 20 || (alignment & (alignment - 1)))
        return fail(err, ST_CORRUPT, "gguf: general.alignment is %lld, expected a power of two up to 1048576",
                    (long long)alignment);
    g->alignment = (uint64_t)alignment;
    if (n_tensor > cursor_left(&c) / TENSOR_BYTES_MIN)
        return fail(err, ST_CORRUPT,
                    "gguf: the header claims %llu tensors, but %zu bytes follow; the file is truncated or damaged",
                    (unsigned long long)n_tensor, cursor_left(&c));
    return read_tensors(l, &c, n_tensor, g->alignment, err);
}

/* ---- typed reads ---- */

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    for (size_t i = 0; g && i < g->n_value; i++)
        if (str_is(g->values[i].key, key))
            return &g->values[i];
    return NULL;
}

static bool is_integer(enum gguf_type t)
{
    return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64;
}

/* Integer number i of a value or array; u64 beyond i64 gives `otherwise`. */
static int64_t integer_at(const struct gguf_value *v, uint64_t i, int64_t otherwise)
{
    struct cursor c = cursor_of(v->data + i * value_size(v->element), value_size(v->element));
    uint64_t u;
    switch (v->element) {
    case GGUF_U8:
        return cursor_u8(&c);
    case GGUF_I8:
        return cursor_i8(&c);
    case GGUF_U16:
        return cursor_u16(&c);
    case GGUF_I16:
        return cursor_i16(&c);
    case GGUF_U32:
        return cursor_u32(&c);
    case GGUF_I32:
        return cursor_i32(&c);
    case GGUF_U64:
        u = cursor_u64(&c);
        return u <= INT64_MAX ? (int64_t)u : otherwise;
    case GGUF_I64:
        return cursor_i64(&c);
    default:
        return otherwise;
    }
}

static double real_at(const struct gguf_value *v, uint64_t i, double otherwise)
{
    struct cursor c = cursor_of(v->data + i * value_size(v->element), value_size(v->element));
    if (v->element == GGUF_F32)
        return (double)cursor_f32(&c);
    if (v->element == GGUF_F64)
        return cursor_f64(&c);
    if (v->element == GGUF_U64)
        return (double)cursor_u64(&c);
    return is_integer(v->element) ? (double)integer_at(v, i, 0) : otherwise;
}

int64_t gguf_int(const struct gguf *g, const char *key, int64_t otherwise)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v && is_integer(v->type) ? integer_at(v, 0, otherwise) : otherwise;
}

double gguf_real(const struct gguf *g, const char *key, double otherwise)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v && v->type != GGUF_ARRAY ? real_at(v, 0, otherwise) : otherwise;
}

bool gguf_bool(const struct gguf *g, const char *key, bool otherwise)
{
    const struct gguf_value *v = gguf_find(g, key);
    return v && v->type == GGUF_BOOL ? v->data[0] != 0 : otherwise;
}

struct str gguf_string(const struct gguf *g, const char *key)
{
    const struct gguf_value *v = gguf_find(g, key);
    if (!v || v->type != GGUF_STRING)
        return (struct str){NULL, 0};
    uint64_t n;
    memcpy(&n, v->data, 8); /* checked when read */
    return str_n(v->data + 8, n);
}

int64_t gguf_int_at(const struct gguf_value *array, uint64_t i, int64_t otherwise)
{
    if (!array || array->type != GGUF_ARRAY || i >= array->count)
        return otherwise;
    if (array->element == GGUF_BOOL)
        return array->data[i] != 0;
    return integer_at(array, i, otherwise);
}

double gguf_real_at(const struct gguf_value *array, uint64_t i, double otherwise)
{
    if (!array || array->type != GGUF_ARRAY || i >= array->count)
        return otherwise;
    return real_at(array, i, otherwise);
}
