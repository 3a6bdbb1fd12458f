/* json writer: the state is one bit a level ("a comma is due") and whether a key waits for its value */
#include "base/json.h"
#include "base/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void json_writer_init(struct json_writer *w, struct buf *out)
{
    *w = (struct json_writer){.out = out};
}

static void new_line(struct json_writer *w)
{
    if (!w->indent)
        return;
    buf_append_char(w->out, '\n');
    for (uint32_t i = 0; i < w->depth * (uint32_t)w->indent; i++)
        buf_append_char(w->out, ' ');
}

/* Before every key and every value that has none. */
static void begin_item(struct json_writer *w)
{
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->depth == 0)
        return;
    uint64_t *word = &w->has_item[(w->depth - 1) / 64], bit = (uint64_t)1 << (w->depth - 1) % 64;
    if (*word & bit)
        buf_append_char(w->out, ',');
    *word |= bit;
    new_line(w);
}

static void begin_container(struct json_writer *w, char bracket)
{
    begin_item(w);
    if (w->depth == JSON_DEPTH_MAX) { /* what json_parse would refuse is not written */
        w->out->failed = true;
        return;
    }
    buf_append_char(w->out, bracket);
    w->has_item[w->depth / 64] &= ~((uint64_t)1 << w->depth % 64);
    w->depth++;
}

static void end_container(struct json_writer *w, char bracket)
{
    if (w->out->failed) /* begin_container may have refused the level */
        return;
    if (w->depth == 0)
        abort(); /* an end without its begin */
    w->depth--;
    if (w->has_item[w->depth / 64] >> w->depth % 64 & 1)
        new_line(w);
    buf_append_char(w->out, bracket);
}

void json_begin_object(struct json_writer *w)
{
    begin_container(w, '{');
}

void json_end_object(struct json_writer *w)
{
    end_container(w, '}');
}

void json_begin_array(struct json_writer *w)
{
    begin_container(w, '[');
}

void json_end_array(struct json_writer *w)
{
    end_container(w, ']');
}

static void write_escape(struct buf *out, unsigned char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        buf_append_char(out, '\\');
        buf_append_char(out, to[known - from]);
    } else
        buf_printf(out, "\\u%04x", c);
}

/* Characters that stand for themselves. high: all bytes or-ed. */
static void write_plain(struct buf *out, struct str s, unsigned char high)
{
    if (high < 0x80)
        buf_append_str(out, s);
    else
        utf8_append_lossy(out, s);
}

static void write_text(struct buf *out, struct str s)
{
    buf_append_char(out, '"');
    size_t from = 0, i = 0;
    unsigned char high = 0;
    for (; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        high |= c;
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        write_plain(out, str_n(s.ptr + from, i - from), high); /* cuts at ASCII only: no character is split */
        write_escape(out, c);
        from = i + 1;
        high = 0;
    }
    write_plain(out, str_n(s.ptr + from, i - from), high);
    buf_append_char(out, '"');
}

void json_key_str(struct json_writer *w, struct str key)
{
    begin_item(w);
    write_text(w->out, key);
    buf_append_char(w->out, ':');
    if (w->indent)
        buf_append_char(w->out, ' ');
    w->after_key = true;
}

void json_key(struct json_writer *w, const char *key)
{
    json_key_str(w, str_of(key));
}

void json_write_str(struct json_writer *w, struct str value)
{
    begin_item(w);
    write_text(w->out, value);
}

void json_write_int(struct json_writer *w, int64_t value)
{
    char digits[20], *at = digits + sizeof digits; /* without printf: a number stands in every event of a stream */
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    begin_item(w);
    do
        *--at = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0)
        *--at = '-';
    buf_append(w->out, at, (size_t)(digits + sizeof digits - at));
}

/* The same digits with the last one raised by one; false when that would carry. "d.ddde-xx". */
static bool raise_last_digit(char *text)
{
    char *last = strchr(text, 'e') - 1;
    if (*last == '9')
        return false;
    ++*last;
    return true;
}

/* Fewest digits that read back. 15 digits are enough for most doubles, and %.15g drops their zeros. Three kinds need
 * care: subnormals may need fewer than 15, all others 16 or 17, and just below a power of two doubles lie closer
 * together, so that the nearest 16 digits may fail where those one unit above succeed. */
static void format_shortest(char *out, size_t size, double v)
{
    int exponent;
    bool power_of_two = fabs(frexp(v, &exponent)) == 0.5;
    for (int digits = fabs(v) < 0x1p-1022 ? 1 : 15; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            return;
        if (!power_of_two)
            continue;
        char up[40];
        snprintf(up, sizeof up, "%.*e", digits - 1, v);
        if (raise_last_digit(up) && strtod(up, NULL) == v) {
            snprintf(out, size, "%s", up);
            return;
        }
    }
}

void json_write_real(struct json_writer *w, double value)
{
    char text[40];
    begin_item(w);
    if (!isfinite(value)) {
        buf_append_str(w->out, STR("null"));
        return;
    }
    format_shortest(text, sizeof text, value);
    buf_append_str(w->out, str_of(text));
    if (!strpbrk(text, ".e")) /* stays a real when read back */
        buf_append_str(w->out, STR(".0"));
}

void json_write_float(struct json_writer *w, float value)
{
    char text[40] = "null";
    begin_item(w);
    for (int digits = 7; isfinite(value) && digits <= 9; digits++) { /* 9 always do */
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if (digits == 9 || strtof(text, NULL) == value)
            break;
    }
    buf_append_str(w->out, str_of(text));
    if (!strpbrk(text, ".eu")) /* stays a real when read back */
        buf_append_str(w->out, STR(".0"));
}

void json_write_bool(struct json_writer *w, bool value)
{
    begin_item(w);
    buf_append_str(w->out, value ? STR("true") : STR("false"));
}

void json_write_null(struct json_writer *w)
{
    begin_item(w);
    buf_append_str(w->out, STR("null"));
}

void json_write_raw(struct json_writer *w, struct str json)
{
    begin_item(w);
    buf_append_str(w->out, json);
}

/* One node without its children. */
static void write_node(struct json_writer *w, const struct json *v)
{
    switch (json_type(v)) {
    case JSON_NULL:
        json_write_null(w);
        break;
    case JSON_FALSE:
    case JSON_TRUE:
        json_write_bool(w, v->type == JSON_TRUE);
        break;
    case JSON_INT:
        json_write_int(w, v->integer);
        break;
    case JSON_REAL:
        json_write_real(w, v->real);
        break;
    case JSON_STRING:
        json_write_str(w, json_str(v));
        break;
    case JSON_ARRAY:
        json_begin_array(w);
        break;
    case JSON_OBJECT:
        json_begin_object(w);
        break;
    }
}

void json_write_value(struct json_writer *w, const struct json *v)
{
    struct {
        const struct json *end; /* of the container's nodes */
        bool object, key_next;
    } open[JSON_DEPTH_MAX];
    unsigned depth = 0;
    const struct json *at = v;
    do {
        bool container = json_is(at, JSON_ARRAY) || json_is(at, JSON_OBJECT);
        if (depth && open[depth - 1].key_next) {
            json_key_str(w, json_str(at));
            open[depth - 1].key_next = false;
        } else {
            write_node(w, at);
            if (depth)
                open[depth - 1].key_next = open[depth - 1].object;
            if (container) {
                bool object = at->type == JSON_OBJECT;
                open[depth].end = at + at->size;
                open[depth].object = open[depth].key_next = object;
                depth++;
            }
        }
        at += at != NULL;
        for (; depth && at == open[depth - 1].end; depth--)
            end_container(w, open[depth - 1].object ? '}' : ']');
    } while (depth && !w->out->failed);
}

void json_put_str(struct json_writer *w, const char *key, struct str value)
{
    json_key(w, key);
    json_write_str(w, value);
}

void json_put_int(struct json_writer *w, const char *key, int64_t value)
{
    json_key(w, key);
    json_write_int(w, value);
}

void json_put_real(struct json_writer *w, const char *key, double value)
{
    json_key(w, key);
    json_write_real(w, value);
}

void json_put_bool(struct json_writer *w, const char *key, bool value)
{
    json_key(w, key);
    json_write_bool(w, value);
}
