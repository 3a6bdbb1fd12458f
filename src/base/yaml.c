/* yaml: libyaml's events become the preorder nodes of json.h. Events come in preorder too, so that a node is appended
 * when its event comes and a container's size is set when it closes. */
#include "base/yaml.h"

#include "base/map.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <yaml.h>

enum { DEPTH_MAX = 64, TEXT_MAX = 16 << 20 };

struct loader {
    yaml_parser_t parser;
    struct arena *arena;
    struct error *err;
    struct json *nodes;
    size_t n_node, capacity;
    unsigned depth, documents;
    struct level {
        uint32_t node;
        bool object, key_next;
        struct map keys; /* of an object: to refuse the second of two equal keys */
    } open[DEPTH_MAX];
};

static enum status refuse(struct loader *l, const yaml_event_t *e, enum status st, const char *what)
{
    return fail(l->err, st, "line %zu: %s", e->start_mark.line + 1, what);
}

static enum status add_node(struct loader *l, struct json node)
{
    if (!MEM_GROW(l->nodes, l->capacity, l->n_node))
        return fail_nomem(l->err, "YAML document");
    l->nodes[l->n_node++] = node;
    return ST_OK;
}

/* ---- plain scalars: YAML 1.2 core schema ---- */

static bool is_one_of(struct str s, const char *const *words)
{
    for (; *words; words++)
        if (str_is(s, *words))
            return true;
    return false;
}

static size_t count_digits(struct str s, size_t at)
{
    size_t n = 0;
    while (at + n < s.len && s.ptr[at + n] >= '0' && s.ptr[at + n] <= '9')
        n++;
    return n;
}

/* [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)? */
static bool looks_real(struct str s)
{
    size_t at = s.len && (s.ptr[0] == '-' || s.ptr[0] == '+');
    size_t before = count_digits(s, at), after = 0;
    at += before;
    if (at < s.len && s.ptr[at] == '.') {
        after = count_digits(s, at + 1);
        at += 1 + after;
    }
    if (before + after == 0)
        return false;
    if (at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
        at++;
        at += at < s.len && (s.ptr[at] == '-' || s.ptr[at] == '+');
        size_t n = count_digits(s, at);
        if (n == 0)
            return false;
        at += n;
    }
    return at == s.len;
}

static bool prefixed_integer(struct str s, const char *prefix, int base, int64_t *out)
{
    if (!str_starts(s, str_of(prefix)) || s.len == 2)
        return false;
    int64_t v = 0;
    for (size_t i = 2; i < s.len; i++) {
        int d = hex_digit(s.ptr[i]);
        if (d < 0 || d >= base || __builtin_mul_overflow(v, (int64_t)base, &v) ||
            __builtin_add_overflow(v, (int64_t)d, &v))
            return false;
    }
    *out = v;
    return true;
}

static struct json type_plain(struct str s)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    static const char *const infs[] = {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", NULL};
    static const char *const minus_infs[] = {"-.inf", "-.Inf", "-.INF", NULL};
    static const char *const nans[] = {".nan", ".NaN", ".NAN", NULL};
    struct json v = {.type = JSON_STRING, .size = (uint32_t)s.len, .text = s.ptr};
    int64_t i;
    double d;
    struct str integer =
        s.len > 1 && s.ptr[0] == '+' && s.ptr[1] != '-' ? str_from(s, 1) : s; /* str_to_i64 knows no + */
    if (is_one_of(s, nulls))
        return (struct json){.type = JSON_NULL};
    if (is_one_of(s, trues))
        return (struct json){.type = JSON_TRUE};
    if (is_one_of(s, falses))
        return (struct json){.type = JSON_FALSE};
    if (str_to_i64(&i, integer) || prefixed_integer(s, "0x", 16, &i) || prefixed_integer(s, "0o", 8, &i))
        return (struct json){.type = JSON_INT, .integer = i};
    if (is_one_of(s, infs))
        return (struct json){.type = JSON_REAL, .real = INFINITY};
    if (is_one_of(s, minus_infs))
        return (struct json){.type = JSON_REAL, .real = -INFINITY};
    if (is_one_of(s, nans))
        return (struct json){.type = JSON_REAL, .real = NAN};
    if (looks_real(s) && str_to_f64(&d, s))
        return (struct json){.type = JSON_REAL, .real = d};
    return v;
}

/* ---- events ---- */

/* Before a node: counts it in its container, or checks that it may be a key. */
static enum status enter_item(struct loader *l, const yaml_event_t *e, bool *is_key)
{
    *is_key = false;
    if (l->depth == 0)
        return ST_OK;
    struct level *top = &l->open[l->depth - 1];
    if (top->key_next) {
        if (e->type != YAML_SCALAR_EVENT)
            return refuse(l, e, ST_UNSUPPORTED, "a key must be a scalar");
        *is_key = true;
        top->key_next = false;
        return ST_OK;
    }
    l->nodes[top->node].count++;
    top->key_next = top->object;
    return ST_OK;
}

static enum status on_scalar(struct loader *l, const yaml_event_t *e)
{
    bool is_key;
    if (e->data.scalar.anchor)
        return refuse(l, e, ST_UNSUPPORTED, "anchors (&) are not accepted");
    if (e->data.scalar.tag)
        return refuse(l, e, ST_UNSUPPORTED, "tags (!) are not accepted");
    TRY(enter_item(l, e, &is_key));
    struct str s = {(const char *)e->data.scalar.value, e->data.scalar.length};
    char *copy = arena_copy(l->arena, s);
    if (!copy)
        return fail_nomem(l->err, "YAML document");
    s.ptr = copy;
    struct json node = {.type = JSON_STRING, .size = (uint32_t)s.len, .text = s.ptr};
    if (is_key) {
        struct map *keys = &l->open[l->depth - 1].keys;
        if (map_find(keys, s))
            return fail(l->err, ST_CORRUPT, "line %zu: the key \"%.*s\" is given twice", e->start_mark.line + 1,
                        (int)(s.len > 80 ? 80 : s.len), s.ptr);
        if (!map_put(keys, s, 1))
            return fail_nomem(l->err, "YAML document");
    } else if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        node = type_plain(s);
    return add_node(l, node);
}

static enum status on_start(struct loader *l, const yaml_event_t *e, bool object)
{
    bool is_key;
    const yaml_char_t *anchor = object ? e->data.mapping_start.anchor : e->data.sequence_start.anchor;
    const yaml_char_t *tag = object ? e->data.mapping_start.tag : e->data.sequence_start.tag;
    if (anchor)
        return refuse(l, e, ST_UNSUPPORTED, "anchors (&) are not accepted");
    if (tag)
        return refuse(l, e, ST_UNSUPPORTED, "tags (!) are not accepted");
    if (l->depth == DEPTH_MAX)
        return refuse(l, e, ST_LIMIT, "nested deeper than 64 levels");
    TRY(enter_item(l, e, &is_key));
    struct level *level = &l->open[l->depth];
    *level = (struct level){.node = (uint32_t)l->n_node, .object = object, .key_next = object};
    TRY(add_node(l, (struct json){.type = object ? JSON_OBJECT : JSON_ARRAY}));
    if (object && !map_init(&level->keys, 0))
        return fail_nomem(l->err, "YAML document");
    l->depth++;
    return ST_OK;
}

static void on_end(struct loader *l)
{
    struct level *level = &l->open[--l->depth];
    l->nodes[level->node].size = (uint32_t)(l->n_node - level->node);
    map_free(&level->keys);
}

static enum status on_event(struct loader *l, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (e->data.document_start.tag_directives.start != e->data.document_start.tag_directives.end)
            return refuse(l, e, ST_UNSUPPORTED, "tags (%TAG) are not accepted");
        return ++l->documents > 1 ? refuse(l, e, ST_UNSUPPORTED, "a second document: one a file") : ST_OK;
    case YAML_ALIAS_EVENT:
        return refuse(l, e, ST_UNSUPPORTED, "aliases (*) are not accepted");
    case YAML_SCALAR_EVENT:
        return on_scalar(l, e);
    case YAML_SEQUENCE_START_EVENT:
        return on_start(l, e, false);
    case YAML_MAPPING_START_EVENT:
        return on_start(l, e, true);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        on_end(l);
        return ST_OK;
    default:
        return ST_OK;
    }
}

static enum status fail_parser(struct loader *l)
{
    const yaml_parser_t *p = &l->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return fail_nomem(l->err, "YAML document");
    const char *problem = p->problem ? p->problem : "not YAML";
    if (p->error == YAML_READER_ERROR) /* the reader knows the byte, not the line */
        return fail(l->err, ST_CORRUPT, "line %zu: %s (byte %zu)", p->mark.line + 1, problem, p->problem_offset);
    return fail(l->err, ST_CORRUPT, "line %zu: %s%s%s", p->problem_mark.line + 1, problem, p->context ? ", " : "",
                p->context ? p->context : "");
}

static enum status load(struct loader *l)
{
    for (;;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&l->parser, &e))
            return fail_parser(l);
        bool end = e.type == YAML_STREAM_END_EVENT;
        enum status st = on_event(l, &e);
        yaml_event_delete(&e);
        if (st != ST_OK || end)
            return st;
    }
}

static enum status finish(struct loader *l, const struct json **out)
{
    if (l->n_node == 0)
        TRY(add_node(l, (struct json){.type = JSON_NULL})); /* an empty file */
    struct json *copy = arena_alloc(l->arena, l->n_node * sizeof *copy);
    if (!copy)
        return fail_nomem(l->err, "YAML document");
    memcpy(copy, l->nodes, l->n_node * sizeof *copy);
    *out = copy;
    return ST_OK;
}

enum status yaml_parse(const struct json **out, struct arena *arena, struct str text, struct error *err)
{
    *out = NULL;
    if (text.len > TEXT_MAX)
        return fail(err, ST_LIMIT, "YAML text of %zu bytes: at most %d are accepted", text.len, TEXT_MAX);
    struct loader *l = mem_alloc_zero(1, sizeof *l);
    if (!l)
        return fail_nomem(err, "YAML document");
    l->arena = arena;
    l->err = err;
    enum status st;
    if (!yaml_parser_initialize(&l->parser))
        st = fail_nomem(err, "YAML document");
    else {
        yaml_parser_set_encoding(&l->parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&l->parser, (const unsigned char *)text.ptr, text.len);
        st = load(l);
        if (st == ST_OK)
            st = finish(l, out);
        while (l->depth)
            on_end(l);
        yaml_parser_delete(&l->parser);
    }
    mem_free(l->nodes);
    mem_free(l);
    return st;
}
