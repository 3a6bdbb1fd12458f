/* Reads a request's members by a table of rows. */
#include "gateway/fields.h"

#include <math.h>
#include <stdio.h>

bool field_wrong_type(struct parse *p, const char *name, const char *expected)
{
    return refuse(p->why, 400, "invalid_type", name, "%s: expected %s", name, expected);
}

bool field_no_memory(struct parse *p)
{
    return refuse(p->why, 503, "server_is_overloaded", NULL,
                  "the parsed request needs more memory than one may take, or than is left for requests: send less, or "
                  "try again");
}

struct str field_keep(struct parse *p, struct buf *text)
{
    size_t n = text->len;
    char *kept = text->failed ? NULL : arena_copy(p->arena, buf_str(text));
    buf_free(text);
    return (struct str){kept, kept ? n : 0};
}

struct str field_source(struct parse *p, const struct json *v)
{
    struct json_writer w;
    struct buf text = {0};
    json_writer_init(&w, &text);
    json_write_value(&w, v);
    return field_keep(p, &text);
}

bool field_parse(struct parse *p, struct buf *text, const struct json **out)
{
    struct error err;
    struct str kept = field_keep(p, text);
    return (kept.ptr && json_parse(out, p->arena, kept, 0, &err) == ST_OK) || field_no_memory(p);
}

static bool is_neutral(const struct json *v, const char *allowed)
{
    if (json_count(v) > 1)
        return false;
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    json_write_value(&w, v);
    bool found = false;
    struct str rest = str_of(allowed);
    while (rest.len && !found) {
        const char *blank = memchr(rest.ptr, ' ', rest.len);
        size_t n = blank ? (size_t)(blank - rest.ptr) : rest.len;
        found = !text.failed && str_eq(buf_str(&text), str_n(rest.ptr, n));
        rest = str_from(rest, n + 1);
    }
    buf_free(&text);
    return found;
}

static bool read_number(struct parse *p, const struct field *f, const struct json *v)
{
    void *at = (char *)p->out + f->offset;
    bool integer = f->how == READ_INT;
    double x = integer && !json_is(v, JSON_INT) ? NAN : json_real(v, NAN);
    if (isnan(x))
        return field_wrong_type(p, f->name, integer ? "an integer" : "a number");
    if (x < f->min || x > f->max)
        return refuse(p->why, 400, "invalid_value", f->name, "%s: %.10g is not between %.10g and %.10g", f->name, x,
                      f->min, f->max);
    if (integer)
        *(int *)at = (int)x;
    else
        *(float *)at = (float)x;
    return true;
}

static bool read_field(struct parse *p, const struct field *f, const struct json *v)
{
    switch (f->how) {
    case READ_REAL:
    case READ_INT:
        return read_number(p, f, v);
    case READ_BOOL:
        if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
            return field_wrong_type(p, f->name, "true or false");
        *(bool *)((char *)p->out + f->offset) = json_is(v, JSON_TRUE);
        return true;
    case READ_STR:
        if (!json_is(v, JSON_STRING))
            return field_wrong_type(p, f->name, "a string");
        *(struct str *)(void *)((char *)p->out + f->offset) = json_str(v);
        return true;
    case READ_CALL:
        return f->call(p, f->name, v);
    case COSMETIC:
        return true;
    case NEUTRAL:
        if (!is_neutral(v, f->neutral))
            return refuse(p->why, 400, "unsupported_parameter", f->name, "%s: this is not offered here", f->name);
        return true;
    }
    return true;
}

static bool unknown_field(struct parse *p, struct fields fields, struct str key)
{
    const char *near = NULL;
    size_t best = 4;
    char param[ASK_PARAM_MAX];
    for (int i = 0; i < fields.n; i++) {
        const struct field *f = &fields.rows[i];
        size_t d = f->kinds & p->out->kind ? str_distance(key, str_of(f->name), best) : best;
        if (d < best)
            best = d, near = f->name;
    }
    snprintf(param, sizeof param, "%.*s", key.len > 80 ? 80 : (int)key.len, key.ptr);
    return refuse(p->why, 400, "unknown_parameter", param, "unknown field %s%s%s%s", param,
                  near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

static bool read_member(struct parse *p, struct fields fields, struct str key, const struct json *v)
{
    for (const struct field *f = fields.rows; f < fields.rows + fields.n; f++)
        if ((f->kinds & p->out->kind) && str_is(key, f->name))
            return json_type(v) == JSON_NULL || read_field(p, f, v);
    return unknown_field(p, fields, key);
}

bool fields_read(struct parse *p, struct fields fields, const struct json *object)
{
    JSON_EACH_MEMBER (key, value, object)
        if (!read_member(p, fields, key, value))
            return false;
    return true;
}
