/* schema_ref - which schema a $ref means: $id, $anchor, JSON pointers; nothing is fetched */
#include "grammar/schema.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- places ---- */

/* "#/properties/a/minLength": down from the root, into the child that spans the node. */
static void write_pointer(const struct schema *s, const struct json *node, struct buf *out)
{
    const struct json *at = s->root;
    buf_append_char(out, '#');
    for (int depth = 0; at != node && depth < JSON_DEPTH_MAX; depth++) {
        const struct json *child = at + 1, *end = at + at->size;
        if (at->type < JSON_ARRAY)
            return;
        for (size_t i = 0; child < end; i++) {
            const struct json *value = at->type == JSON_OBJECT ? child + 1 : child;
            const struct json *next = json_next(value);
            if (node >= child && node < next) {
                if (at->type == JSON_ARRAY)
                    buf_printf(out, "/%zu", i);
                else
                    buf_append_char(out, '/');
                for (uint32_t k = 0; at->type == JSON_OBJECT && k < child->size && k < 80; k++) {
                    char c = child->text[k];
                    buf_append(out, c == '~' ? "~0" : c == '/' ? "~1" : &c, c == '~' || c == '/' ? 2 : 1);
                }
                at = node > value ? value : node;
                break;
            }
            child = next;
        }
    }
}

bool(schema_refuse)(struct schema *s, enum status st, const struct json *at, const char *fmt, ...)
{
    struct buf pointer = {0};
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    write_pointer(s, at, &pointer);
    build_fail(s->b, st, "%s: %s", pointer.failed ? "#" : buf_str(&pointer).ptr, text);
    buf_free(&pointer);
    return false;
}

/* ---- URIs ---- */

static size_t scheme_length(struct str u)
{
    size_t i = 0;
    while (i < u.len && ((u.ptr[i] | 32) >= 'a' && (u.ptr[i] | 32) <= 'z'))
        i++;
    while (i && i < u.len && (((u.ptr[i] | 32) >= 'a' && (u.ptr[i] | 32) <= 'z') || strchr("+-.0123456789", u.ptr[i])))
        i++;
    return i && i < u.len && u.ptr[i] == ':' ? i + 1 : 0;
}

/* RFC 3986 5.3, for what schemas hold: absolute, from the root, or relative to the base's folder. Fragment cut off. */
static struct str resolve(struct schema *s, struct str base, struct str ref)
{
    struct buf out = {0};
    size_t hash = str_find(ref, STR("#"), 0);
    ref.len = hash < ref.len ? hash : ref.len;
    if (ref.len == 0)
        return base;
    size_t scheme = scheme_length(base), root = scheme;
    if (scheme_length(ref)) {
        buf_append_str(&out, ref);
    } else if (str_starts(ref, STR("//"))) {
        buf_append(&out, base.ptr, scheme);
        buf_append_str(&out, ref);
    } else {
        if (str_starts(str_from(base, scheme), STR("//"))) {
            size_t slash = str_find(base, STR("/"), scheme + 2);
            root = slash == SIZE_MAX ? base.len : slash;
        }
        size_t folder = base.len;
        while (folder > root && base.ptr[folder - 1] != '/')
            folder--;
        buf_append(&out, base.ptr, ref.ptr[0] == '/' ? root : folder);
        for (struct str rest = ref; rest.len;) { /* dot segments */
            if (str_starts(rest, STR("./"))) {
                rest = str_from(rest, 2);
            } else if (str_starts(rest, STR("../"))) {
                rest = str_from(rest, 3);
                if (out.len > root + 1)
                    out.len--;
                while (out.len > root + 1 && out.ptr[out.len - 1] != '/')
                    out.len--;
            } else {
                size_t slash = str_find(rest, STR("/"), 0), n = slash == SIZE_MAX ? rest.len : slash + 1;
                buf_append(&out, rest.ptr, n);
                rest = str_from(rest, n);
            }
        }
    }
    char *copy = build_temp(s->b, out.len + 1, 1);
    struct str result = str_n(copy, copy ? out.len : 0);
    if (copy && out.len)
        memcpy(copy, out.ptr, out.len);
    if (out.failed && s->b->status == ST_OK)
        s->b->status = fail_nomem(s->b->err, s->b->what);
    buf_free(&out);
    return result;
}

/* ---- the scan: ids and anchors of all subschemas ---- */

enum holds { HOLDS_NOTHING, HOLDS_SCHEMA, HOLDS_LIST, HOLDS_MAP, HOLDS_EITHER };
static enum holds what_holds(struct str key)
{
    static const struct {
        const char *key;
        enum holds holds;
    } rows[] = {
        {"properties", HOLDS_MAP},
        {"patternProperties", HOLDS_MAP},
        {"additionalProperties", HOLDS_SCHEMA},
        {"propertyNames", HOLDS_SCHEMA},
        {"unevaluatedProperties", HOLDS_SCHEMA},
        {"unevaluatedItems", HOLDS_SCHEMA},
        {"items", HOLDS_EITHER},
        {"prefixItems", HOLDS_LIST},
        {"additionalItems", HOLDS_SCHEMA},
        {"contains", HOLDS_SCHEMA},
        {"allOf", HOLDS_LIST},
        {"anyOf", HOLDS_LIST},
        {"oneOf", HOLDS_LIST},
        {"not", HOLDS_SCHEMA},
        {"if", HOLDS_SCHEMA},
        {"then", HOLDS_SCHEMA},
        {"else", HOLDS_SCHEMA},
        {"dependentSchemas", HOLDS_MAP},
        {"dependencies", HOLDS_MAP},
        {"$defs", HOLDS_MAP},
        {"definitions", HOLDS_MAP},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_is(key, rows[i].key))
            return rows[i].holds;
    return HOLDS_NOTHING;
}

static bool add_anchor(struct schema *s, const struct json *node, uint16_t resource, struct str name, bool dynamic)
{
    struct anchor *a = VEC_ADD(s->b, &s->anchors);
    if (a)
        *a = (struct anchor){resource, name, node, dynamic};
    return a != NULL;
}

static bool scan(struct schema *s, const struct json *v, uint16_t resource);

static bool scan_children(struct schema *s, const struct json *v, enum holds holds, uint16_t resource)
{
    if (holds == HOLDS_EITHER)
        holds = json_is(v, JSON_ARRAY) ? HOLDS_LIST : HOLDS_SCHEMA;
    if (holds == HOLDS_SCHEMA)
        return scan(s, v, resource);
    if (holds == HOLDS_LIST)
        JSON_EACH (item, v)
            if (!scan(s, item, resource))
                return false;
    if (holds == HOLDS_MAP)
        JSON_EACH_MEMBER (key, item, v) {
            (void)key;
            if (!scan(s, item, resource))
                return false;
        }
    return true;
}

static bool scan(struct schema *s, const struct json *v, uint16_t resource)
{
    if (!json_is(v, JSON_OBJECT) || !build_step(s->b, v->count + 1u))
        return s->b->status == ST_OK;
    const struct json *id = json_get(v, s->draft == 4 ? "id" : "$id");
    bool lone_ref = s->draft <= 7 && json_get(v, "$ref"); /* its siblings mean nothing */
    struct str name = lone_ref ? (struct str){NULL, 0} : json_str(id);
    if (name.len && name.ptr[0] == '#') {
        if (!add_anchor(s, v, resource, str_from(name, 1), false))
            return false;
    } else if (name.len) {
        struct resource *r = s->resources.n < UINT16_MAX ? VEC_ADD(s->b, &s->resources) : NULL;
        if (!r)
            return schema_refuse(s, ST_LIMIT, id, "more than %d schemas with an $id", UINT16_MAX);
        *r = (struct resource){resolve(s, s->resources.at[resource].uri, name), v};
        resource = (uint16_t)(s->resources.n - 1);
    }
    s->resource_of[node_of(s, v)] = resource;
    const struct json *anchor = json_get(v, "$anchor"), *dynamic = json_get(v, "$dynamicAnchor");
    if ((json_is(anchor, JSON_STRING) && !add_anchor(s, v, resource, json_str(anchor), false)) ||
        (json_is(dynamic, JSON_STRING) && !add_anchor(s, v, resource, json_str(dynamic), true)))
        return false;
    JSON_EACH_MEMBER (key, value, v) {
        s->tracked |= str_starts(key, STR("unevaluated"));
        s->tracked_items |= str_is(key, "unevaluatedItems");
        if (!scan_children(s, value, what_holds(key), resource))
            return false;
    }
    return s->b->status == ST_OK;
}

static int draft_of(const struct json *root)
{
    struct str schema = json_str(json_get(root, "$schema"));
    static const struct {
        const char *part;
        int draft;
    } rows[] = {{"draft-03", 4}, {"draft-04", 4}, {"draft-06", 6}, {"draft-07", 7}, {"2019-09", 2019}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_find(schema, str_of(rows[i].part), 0) != SIZE_MAX)
            return rows[i].draft;
    return 2020;
}

bool refs_scan(struct schema *s)
{
    const struct json *dialect = json_get(s->root, "$schema");
    if (json_is(dialect, JSON_STRING) && str_find(json_str(dialect), STR("json-schema.org/"), 0) == SIZE_MAX)
        return schema_refuse(s, ST_UNSUPPORTED, dialect, "the dialect \"%.*s\" is not known",
                             STR_ARG(json_str(dialect)));
    s->draft = draft_of(s->root);
    s->resource_of = build_temp(s->b, s->n_node, sizeof *s->resource_of);
    struct resource *first = s->resource_of ? VEC_ADD(s->b, &s->resources) : NULL;
    if (!first)
        return false;
    *first = (struct resource){STR("json-schema:///"), s->root};
    return scan(s, s->root, 0);
}

/* ---- finding ---- */

/* One step of a pointer, percent and tilde escapes undone, into out. */
static struct str unescape(struct str part, struct buf *out)
{
    buf_clear(out);
    for (size_t i = 0; i < part.len; i++) {
        char c = part.ptr[i];
        int high = c == '%' && i + 2 < part.len ? hex_digit(part.ptr[i + 1]) : -1,
            low = high >= 0 ? hex_digit(part.ptr[i + 2]) : -1;
        if (low >= 0) {
            c = (char)(high << 4 | low);
            i += 2;
        }
        buf_append_char(out, c);
    }
    size_t n = 0;
    for (size_t i = 0; i < out->len; i++, n++) {
        char c = out->ptr[i];
        if (c == '~' && i + 1 < out->len && (out->ptr[i + 1] == '0' || out->ptr[i + 1] == '1'))
            c = out->ptr[++i] == '0' ? '~' : '/';
        out->ptr[n] = c;
    }
    out->len = n;
    return buf_str(out);
}

static const struct json *follow(struct schema *s, const struct json *at, struct str pointer)
{
    struct buf part = {0};
    while (at && pointer.len && pointer.ptr[0] == '/') {
        size_t slash = str_find(pointer, STR("/"), 1), end = slash == SIZE_MAX ? pointer.len : slash;
        struct str key = unescape(str_n(pointer.ptr + 1, end - 1), &part);
        int64_t index;
        if (json_is(at, JSON_ARRAY))
            at = str_to_i64(&index, key) && index >= 0 ? json_at(at, (size_t)index) : NULL;
        else
            at = json_get_str(at, key);
        pointer = str_from(pointer, end);
    }
    if (part.failed && s->b->status == ST_OK)
        s->b->status = fail_nomem(s->b->err, s->b->what);
    buf_free(&part);
    return pointer.len || s->b->status != ST_OK ? NULL : at;
}

static const struct json *find_in(struct schema *s, uint16_t resource, struct str fragment, bool *dynamic)
{
    *dynamic = false;
    if (fragment.len == 0 || fragment.ptr[0] == '/')
        return follow(s, s->resources.at[resource].root, fragment);
    for (size_t i = 0; i < s->anchors.n; i++)
        if (s->anchors.at[i].resource == resource && str_eq(s->anchors.at[i].name, fragment)) {
            *dynamic = s->anchors.at[i].dynamic;
            return s->anchors.at[i].node;
        }
    return NULL;
}

static const struct json *find(struct schema *s, const struct json *ref, const struct json *schema, bool *dynamic)
{
    struct str text = json_str(ref);
    uint16_t own = s->resource_of[node_of(s, schema)];
    size_t hash = str_find(text, STR("#"), 0);
    struct str fragment = hash == SIZE_MAX ? (struct str){"", 0} : str_from(text, hash + 1);
    struct str uri = resolve(s, s->resources.at[own].uri, text);
    const struct json *found = NULL;
    *dynamic = false;
    if (!text.ptr) {
        schema_refuse(s, ST_INVALID, ref, "a reference is a string");
        return NULL;
    }
    if (!build_step(s->b, s->resources.n + s->anchors.n + 1))
        return NULL;
    if (hash == 0 || (hash == SIZE_MAX && text.len == 0))
        found = find_in(s, own, fragment, dynamic);
    for (size_t i = 0; !found && hash != 0 && i < s->resources.n; i++)
        if (str_eq(s->resources.at[i].uri, uri))
            found = find_in(s, (uint16_t)i, fragment, dynamic);
    if (!found && s->b->status == ST_OK)
        schema_refuse(s, ST_UNSUPPORTED, ref, "\"%.*s\" is not within this schema, and nothing is fetched",
                      STR_ARG(text));
    return found;
}

const struct json *ref_find(struct schema *s, const struct json *ref, const struct json *schema)
{
    bool dynamic;
    return find(s, ref, schema, &dynamic);
}

/* Without the path by which it was reached, a dynamic reference is only clear when its anchor stands once. */
const struct json *ref_find_dynamic(struct schema *s, const struct json *ref, const struct json *schema)
{
    bool dynamic;
    const struct json *found = find(s, ref, schema, &dynamic);
    struct str text = json_str(ref);
    size_t hash = str_find(text, STR("#"), 0);
    if (!found || !dynamic)
        return found;
    for (size_t i = 0; i < s->anchors.n; i++)
        if (s->anchors.at[i].dynamic && s->anchors.at[i].node != found &&
            str_eq(s->anchors.at[i].name, str_from(text, hash + 1))) {
            schema_refuse(s, ST_UNSUPPORTED, ref, "several schemas have the dynamic anchor \"%.*s\"",
                          STR_ARG(s->anchors.at[i].name));
            return NULL;
        }
    return found;
}
