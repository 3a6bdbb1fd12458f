/* Arguments as Qwen3-Coder writes them, a parameter each: a string as it is, anything else as JSON.
 *
 * What the reader (speech) makes of it is what the schema accepts: a string is read back without the line ends around
 * it, and no value holds the mark that ends it. What a schema says of several parameters at once (anyOf, minProperties,
 * ...) has no place in a list of parameters: that is refused by name.
 */
#include "gateway/parts.h"

#include <stdio.h>

#define VALUE_END "</parameter>"

struct grammar_part parts_list(struct maker *m, enum grammar_kind kind, const struct grammar_part *parts, size_t n)
{
    struct grammar_part *kept = arena_alloc(m->p->arena, n * sizeof *kept);
    m->failed |= !kept;
    if (kept)
        memcpy(kept, parts, n * sizeof *kept);
    return (struct grammar_part){.kind = kind, .parts = kept, .n_part = kept ? n : 0, .max = -1};
}

struct grammar_part part_repeat(struct maker *m, struct grammar_part one, int max)
{
    struct grammar_part list = parts_list(m, GRAMMAR_REPEAT, &one, 1);
    list.max = max;
    return list;
}

static struct str check_kept(struct maker *m, struct str text)
{
    m->failed |= !text.ptr;
    return text.ptr ? text : STR("");
}

struct str part_source(struct maker *m, const struct json *v)
{
    return check_kept(m, field_source(m->p, v));
}

static void refuse_tool(struct maker *m, const struct json *function, const char *what, struct str word)
{
    if (!m->refused)
        refuse(m->p->why, 400, "unsupported_value", m->p->out->calls_param,
               "%s: %.*s: %s \"%.*s\" cannot be enforced in the format %s; use auto, without strict",
               m->p->out->calls_param, STR_ARG(json_str(json_get(function, "name"))), what, STR_ARG(word),
               m->p->voice->format->name);
    m->refused = true;
}

static bool requires(const struct json *schema, struct str key)
{
    JSON_EACH (name, json_get(schema, "required"))
        if (str_eq(json_str(name), key))
            return true;
    return false;
}

/* Only what can be said of each parameter alone. */
static void check_schema(struct maker *m, const struct json *function, const struct json *schema)
{
    static const char *const joint[] = {"allOf",
                                        "anyOf",
                                        "oneOf",
                                        "not",
                                        "if",
                                        "$ref",
                                        "$dynamicRef",
                                        "dependentRequired",
                                        "dependentSchemas",
                                        "dependencies",
                                        "patternProperties",
                                        "propertyNames",
                                        "minProperties",
                                        "maxProperties",
                                        "enum",
                                        "const"};
    const struct json *properties = json_get(schema, "properties");
    for (size_t i = 0; i < sizeof joint / sizeof *joint; i++)
        if (json_get(schema, joint[i]))
            refuse_tool(m, function, "the keyword", str_of(joint[i]));
    JSON_EACH (name, json_get(schema, "required"))
        if (!json_get_str(properties, json_str(name)))
            refuse_tool(m, function, "the undeclared parameter", json_str(name));
    JSON_EACH_MEMBER (key, value, properties) {
        (void)value;
        if (key.len == 0 || memchr(key.ptr, '>', key.len) || memchr(key.ptr, '\n', key.len))
            refuse_tool(m, function, "the parameter's name", key);
    }
}

/* A property's schema on its own, without the words that would make each one another than the next: what is the same is
 * compiled once. */
static struct str property_source(struct maker *m, const struct json *root, const struct json *schema)
{
    static const char *const words[] = {"title", "description", "default", "examples", "$comment"};
    struct json_writer w;
    struct buf text = {0};
    if (!json_is(schema, JSON_OBJECT))
        return part_source(m, schema);
    json_writer_init(&w, &text);
    json_begin_object(&w);
    if (json_get(root, "$schema") && !json_get(schema, "$schema")) {
        json_key(&w, "$schema");
        json_write_value(&w, json_get(root, "$schema"));
    }
    JSON_EACH_MEMBER (key, value, schema) {
        bool said = false;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
            said |= str_is(key, words[i]);
        if (said)
            continue;
        json_key_str(&w, key);
        json_write_value(&w, value);
    }
    json_end_object(&w);
    return check_kept(m, field_keep(m->p, &text));
}

static bool refers(const struct json *schema)
{
    const struct json *end = schema ? json_next(schema) : NULL;
    for (const struct json *v = schema; v < end; v++)
        if (str_is(json_str(v), "$ref") || str_is(json_str(v), "$dynamicRef"))
            return true;
    return false;
}

/* whole: the source of all parameters' schema, if any refers to something. */
static struct grammar_part parameter(struct maker *m, const struct json *function, struct str whole, struct str key,
                                     const struct json *schema)
{
    const struct json *root = json_get(function, "parameters");
    bool is_string = speech_key_is_string(schema), strict = json_bool(json_get(function, "strict"), false);
    struct grammar_part value = {.kind = is_string ? GRAMMAR_STRING : GRAMMAR_SCHEMA,
                                 .flags = strict ? GRAMMAR_ORDERED : 0};
    if (refers(schema)) {
        value.text = whole;
        value.property = key;
    } else {
        value.text = property_source(m, root, schema);
    }
    if (is_string)
        value.trigger = STR(VALUE_END);
    struct grammar_part all = PARTS(m, GRAMMAR_SEQUENCE, part_text(STR("<parameter=")), part_text(key),
                                    part_text(STR(">\n")), value, part_text(STR("\n" VALUE_END "\n")));
    return requires(root, key) ? all : part_repeat(m, all, 1);
}

struct grammar_part xml_arguments(struct maker *m, const struct json *function)
{
    const struct json *schema = json_get(function, "parameters"), *properties = json_get(schema, "properties"),
                      *others = json_get(schema, "additionalProperties");
    size_t count = json_count(properties), n = 0;
    check_schema(m, function, schema);
    if (count == 0 && json_count(schema) && (!others || json_bool(others, false)))
        return xml_any_arguments(m);
    struct str whole = refers(properties) ? part_source(m, schema) : STR("");
    struct grammar_part *parts = arena_alloc_zero(m->p->arena, count + 1, sizeof *parts);
    m->failed |= !parts;
    JSON_EACH_MEMBER (key, value, properties)
        if (!m->failed && !m->refused)
            parts[n++] = parameter(m, function, whole, key, value);
    return (struct grammar_part){.kind = GRAMMAR_SEQUENCE, .parts = parts, .n_part = n};
}

struct grammar_part xml_any_arguments(struct maker *m)
{
    struct grammar_part name = {.kind = GRAMMAR_REGEX, .text = STR("[^>\\n]+")},
                        value = {.kind = GRAMMAR_UNTIL, .text = STR(VALUE_END)},
                        one = PARTS(m, GRAMMAR_SEQUENCE, part_text(STR("<parameter=")), name, part_text(STR(">")),
                                    value, part_text(STR("\n")));
    return part_repeat(m, one, -1);
}
