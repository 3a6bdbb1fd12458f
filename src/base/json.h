/* json - strict RFC 8259 parser into an arena, and a writer
 *
 * A document is one array of 16-byte nodes in preorder: a container's children follow it. Rejected: duplicate keys are
 * kept (json_get finds the first) unless JSON_UNIQUE is set; bad UTF-8, lone surrogates, control characters, trailing
 * bytes, leading zeros, NaN, and depth over the limit are errors with line and column.
 *
 *   TRY(json_parse(&doc, &arena, text, 0, err));
 *   const struct json *name = json_get(doc, "name");        // NULL when absent, or when doc is no object
 *   JSON_EACH(item, json_get(doc, "list")) ...              // const struct json *item
 *   JSON_EACH_MEMBER(key, value, doc) ...                   // struct str key; const struct json *value
 *
 * Memory   16 bytes a value plus decoded strings, from the arena; strings without escapes are borrowed from `text`
 * Errors   ST_CORRUPT with "line L column C: what"; ST_LIMIT for depth; ST_NOMEM
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/arena.h"
#include "base/status.h"

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_INT, JSON_REAL, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

enum { JSON_UNIQUE = 1 }; /* refuse duplicate keys (requests, configuration) */
enum { JSON_DEPTH_MAX = 512 };

struct json {
    uint32_t type : 4, count : 28; /* count: elements, or members of an object */
    uint32_t size;                 /* string: bytes; container: nodes it spans, itself included */
    union {
        int64_t integer; /* JSON_INT: written without fraction or exponent and fits */
        double real;
        const char *text; /* JSON_STRING: not NUL-terminated; may hold U+0000 */
    };
};

MUST_USE enum status json_parse(const struct json **out, struct arena *arena, struct str text, unsigned flags,
                                struct error *err);

static inline enum json_type json_type(const struct json *v)
{
    return v ? (enum json_type)v->type : JSON_NULL;
}
static inline bool json_is(const struct json *v, enum json_type t)
{
    return v && v->type == t;
}
const struct json *json_get(const struct json *object, const char *key);
const struct json *json_get_str(const struct json *object, struct str key);
const struct json *json_at(const struct json *array, size_t index);
static inline size_t json_count(const struct json *v)
{
    return v && v->type >= JSON_ARRAY ? v->count : 0;
}
static inline const struct json *json_next(const struct json *v)
{
    return v + (v->type >= JSON_ARRAY ? v->size : 1);
}
/* Values with a fallback: for a missing member or one of another type. Integers written as 3.0 count as numbers only.
 */
static inline struct str json_str(const struct json *v)
{
    return json_is(v, JSON_STRING) ? str_n(v->text, v->size) : (struct str){NULL, 0};
}
static inline bool json_bool(const struct json *v, bool otherwise)
{
    return json_is(v, JSON_TRUE) ? true : json_is(v, JSON_FALSE) ? false : otherwise;
}
static inline int64_t json_int(const struct json *v, int64_t otherwise)
{
    return json_is(v, JSON_INT) ? v->integer : otherwise;
}
static inline double json_real(const struct json *v, double otherwise)
{
    return json_is(v, JSON_REAL) ? v->real : json_is(v, JSON_INT) ? (double)v->integer : otherwise;
}

/* NULL and values of another type have no items. */
#define JSON_EACH(item, container)                                                                                     \
    for (const struct json *item##_c = (container), *item = json_is(item##_c, JSON_ARRAY) ? item##_c + 1 : NULL,       \
                           *item##_e = item ? item##_c + item##_c->size : NULL;                                        \
         item < item##_e; item = json_next(item))
/* key is a `struct str`, value a `const struct json *`. */
#define JSON_EACH_MEMBER(key, value, object)                                                                           \
    for (const struct json *value##_c = (object), *value##_k = json_is(value##_c, JSON_OBJECT) ? value##_c + 1 : NULL, \
                           *value##_e = value##_k ? value##_c + value##_c->size : NULL,                                \
                           *value = value##_k ? value##_k + 1 : NULL;                                                  \
         value##_k < value##_e; value##_k = json_next(value), value = value##_k + 1)                                   \
        for (struct str key = json_str(value##_k), key##_once = {"", 1}; key##_once.len; key##_once.len = 0)

/* ---- writer: commas, escapes and nesting are its business; the sink's sticky failure is checked once ---- */
struct json_writer {
    struct buf *out;
    uint32_t depth;
    uint64_t has_item[JSON_DEPTH_MAX / 64]; /* a bit a level: a comma is due */
    bool after_key;
    int indent; /* 0 = compact */
};

void json_writer_init(struct json_writer *w, struct buf *out);
void json_begin_object(struct json_writer *w);
void json_end_object(struct json_writer *w);
void json_begin_array(struct json_writer *w);
void json_end_array(struct json_writer *w);
void json_key(struct json_writer *w, const char *key);
void json_key_str(struct json_writer *w, struct str key);
void json_write_str(struct json_writer *w, struct str value); /* invalid UTF-8 becomes U+FFFD */
void json_write_int(struct json_writer *w, int64_t value);
void json_write_real(struct json_writer *w, double value); /* shortest that reads back; NaN and Inf become null */
void json_write_float(struct json_writer *w, float value); /* likewise, as a float */
void json_write_bool(struct json_writer *w, bool value);
void json_write_null(struct json_writer *w);
void json_write_raw(struct json_writer *w, struct str json);        /* one value, already JSON */
void json_write_value(struct json_writer *w, const struct json *v); /* copy a parsed value */
/* key and value in one call */
void json_put_str(struct json_writer *w, const char *key, struct str value);
void json_put_int(struct json_writer *w, const char *key, int64_t value);
void json_put_real(struct json_writer *w, const char *key, double value);
void json_put_bool(struct json_writer *w, const char *key, bool value);

#endif
