/* safetensors - reader: u64 header length, JSON header, data; offsets are relative to the data */
#include "base/cursor.h"
#include "formats/loading.h"

enum { HEADER_MAX = 100 << 20 }; /* the format's own limit */

static enum status fail_member(struct str name, const char *what, struct error *err)
{
    return fail(err, ST_CORRUPT, "safetensors: tensor %.*s: %s", STR_ARG(name), what);
}

static enum status read_shape(struct tensor *t, const struct json *shape, struct error *err)
{
    if (!json_is(shape, JSON_ARRAY))
        return fail_member(t->name, "\"shape\" is missing or no array", err);
    if (json_count(shape) > TENSOR_DIMS)
        return fail(err, ST_UNSUPPORTED, "safetensors: tensor %.*s has %zu dimensions; Ingot reads up to %d",
                    STR_ARG(t->name), json_count(shape), TENSOR_DIMS);
    JSON_EACH (item, shape)
        t->shape[t->n_dim++] = json_int(item, -1);
    return ST_OK;
}

static enum status read_entry(struct tensor *t, struct str name, const struct json *entry, struct str data,
                              struct error *err)
{
    *t = (struct tensor){.name = name};
    struct str type_name = json_str(json_get(entry, "dtype"));
    int type = dtype_from_safetensors(type_name);
    if (!type_name.ptr)
        return fail_member(name, "\"dtype\" is missing or no string", err);
    if (type < 0)
        return fail(err, ST_UNSUPPORTED, "safetensors: tensor %.*s has type %.*s, which Ingot does not read",
                    STR_ARG(name), STR_ARG(type_name));
    t->type = (enum dtype)type;
    TRY(read_shape(t, json_get(entry, "shape"), err));
    TRY(tensor_measure(t, "safetensors", err));
    const struct json *offsets = json_get(entry, "data_offsets");
    int64_t begin = json_int(json_at(offsets, 0), -1), end = json_int(json_at(offsets, 1), -1);
    if (json_count(offsets) != 2 || begin < 0 || end < begin)
        return fail_member(name, "\"data_offsets\" are no two ascending numbers", err);
    if ((uint64_t)end > data.len)
        return fail(err, ST_CORRUPT,
                    "safetensors: tensor %.*s ends at byte %lld of %zu bytes of data; the file is "
                    "truncated or damaged",
                    STR_ARG(name), (long long)end, data.len);
    if ((uint64_t)(end - begin) != t->bytes)
        return fail(err, ST_CORRUPT, "safetensors: tensor %.*s has %lld bytes, but its shape and type need %zu",
                    STR_ARG(name), (long long)(end - begin), t->bytes);
    t->data = data.ptr + begin;
    return ST_OK;
}

enum status safetensors_read(struct loading *l, const uint8_t *bytes, size_t size, struct error *err)
{
    struct cursor c = cursor_of(bytes, size);
    uint64_t n = cursor_u64(&c);
    if (!c.failed && n > HEADER_MAX)
        return fail(err, ST_CORRUPT, "safetensors: the header claims %llu bytes; the format allows %d",
                    (unsigned long long)n, HEADER_MAX);
    struct str header = cursor_bytes(&c, n);
    if (c.failed)
        return fail(err, ST_CORRUPT,
                    "safetensors: the header claims %llu bytes, but the file has %zu; it is truncated or "
                    "damaged",
                    (unsigned long long)n, size);
    struct str data = str_n(c.at, cursor_left(&c));
    const struct json *root;
    TRY(loading_parse_json(&root, l, header, 0, "safetensors: header", err)); /* names are checked below */
    if (!json_is(root, JSON_OBJECT))
        return fail(err, ST_CORRUPT, "safetensors: the header is no JSON object");
    TRY(loading_reserve(l, json_count(root), err));
    uint64_t total = 0;
    JSON_EACH_MEMBER (name, entry, root) {
        if (str_eq(name, STR("__metadata__")))
            continue;
        struct tensor t;
        TRY(read_entry(&t, name, entry, data, err));
        TRY(loading_add(l, &t, "safetensors", err));
        total += t.bytes; /* each at most the file size, their number at most 2^27 */
    }
    if (total != data.len)
        return fail(err, ST_CORRUPT,
                    "safetensors: the tensors need %llu bytes together, but the file holds %zu; it is "
                    "truncated or damaged",
                    (unsigned long long)total, data.len);
    return ST_OK;
}
