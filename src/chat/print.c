/* print - values as text: str(), repr() and JSON as Python writes them, byte for byte; and text with provenance */
#include "chat/template.h"

#include "base/unicode.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- text under construction ---- */

void text_init(struct text *t, struct run *r)
{
    *t = (struct text){.run = r};
}

static bool text_reserve(struct text *t, size_t more, bool with_mask)
{
    size_t need = t->n + more, capacity = t->capacity;
    if (need > t->run->output_max || need > UINT32_MAX) {
        t->failed = run_error(t->run, ST_LIMIT, "the output exceeds %zu bytes (output budget)", t->run->output_max);
        return false;
    }
    if (need > capacity) {
        capacity = capacity * 2 + 64 > need ? capacity * 2 + 64 : need;
        char *bigger = run_alloc(t->run, capacity);
        if (!bigger)
            goto failed;
        if (t->n)
            memcpy(bigger, t->ptr, t->n);
        t->ptr = bigger;
    }
    if (with_mask && (!t->mask || capacity != t->capacity)) {
        char *mask = run_alloc(t->run, capacity);
        if (!mask)
            goto failed;
        if (t->mask)
            memcpy(mask, t->mask, t->n);
        else
            memset(mask, t->has_plain, t->n);
        t->mask = mask;
    }
    t->capacity = capacity;
    return true;
failed:
    t->failed = t->run->err->status;
    return false;
}

void text_add(struct text *t, const char *bytes, size_t n, const char *mask)
{
    if (t->failed || n == 0)
        return;
    bool mixed = mask && mask != MASK_PLAIN;
    bool own = t->has_own || !mask || mixed, plain = t->has_plain || mask;
    if ((t->failed = run_step(t->run, n / 64)) != ST_OK || !text_reserve(t, n, own && plain))
        return;
    assert(t->ptr && (!(own && plain) || t->mask));
    memcpy(t->ptr + t->n, bytes, n);
    if (mixed)
        memcpy(t->mask + t->n, mask, n);
    else if (t->mask)
        memset(t->mask + t->n, mask != NULL, n);
    t->n += n;
    t->has_own = own;
    t->has_plain = plain;
}

void text_add_own(struct text *t, const char *literal)
{
    text_add(t, literal, strlen(literal), NULL);
}

void text_add_value(struct text *t, const struct value *s)
{
    text_add(t, s->s, s->len, s->mask);
}

enum status text_take(struct text *t, struct value *out)
{
    TRY(t->failed);
    *out = (struct value){.type = V_STR, .s = t->ptr ? t->ptr : "", .len = (uint32_t)t->n};
    out->mask = t->mask ? t->mask : t->has_plain ? MASK_PLAIN : NULL;
    return ST_OK;
}

/* ---- numbers ---- */

/* Python's repr of a float: the shortest digits that read back, fixed between 1e-4 and 1e16. */
static void add_real(struct text *t, double v, bool json)
{
    char digits[40], out[64], *mantissa = digits;
    if (isnan(v) || isinf(v)) {
        text_add_own(t, isnan(v) ? (json ? "NaN" : "nan")
                        : v < 0  ? (json ? "-Infinity" : "-inf")
                                 : (json ? "Infinity" : "inf"));
        return;
    }
    for (int precision = 0; precision < 17; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, v);
        if (strtod(digits, NULL) == v)
            break;
    }
    char *e = strchr(digits, 'e');
    int exponent = atoi(e + 1), n = 0, i = 0;
    *e = 0;
    if (*mantissa == '-')
        out[n++] = *mantissa++;
    char plain[20] = {0};
    int count = 0;
    for (; *mantissa; mantissa++)
        if (*mantissa != '.')
            plain[count++] = *mantissa;
    if (exponent < -4 || exponent >= 16) {
        out[n++] = plain[0];
        if (count > 1)
            out[n++] = '.';
        for (i = 1; i < count; i++)
            out[n++] = plain[i];
        snprintf(out + n, sizeof out - (size_t)n, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        text_add_own(t, out);
        return;
    }
    if (exponent < 0) {
        out[n++] = '0';
        out[n++] = '.';
        for (i = -1; i > exponent; i--)
            out[n++] = '0';
    }
    for (i = 0; i < count || i <= exponent; i++) {
        if (exponent >= 0 && i == exponent + 1)
            out[n++] = '.';
        out[n++] = i < count ? plain[i] : '0';
    }
    if (exponent >= 0 && i == exponent + 1) {
        out[n++] = '.';
        out[n++] = '0';
    }
    text_add(t, out, (size_t)n, NULL);
}

static void add_int(struct text *t, int64_t i)
{
    char out[24];
    text_add(t, out, (size_t)snprintf(out, sizeof out, "%lld", (long long)i), NULL);
}

/* ---- repr ---- */

static bool printable(uint32_t c)
{
    return !(c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD || (c != ' ' && char_is_space(c)) ||
             (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
             c == 0xFEFF || (c >= 0xE000 && c <= 0xF8FF) || (c & 0xFFFE) == 0xFFFE || c >= 0xE0000);
}

/* What a character is written as inside quotes; 0: as it stands. `how` is the quote, or whether only ASCII is wanted.
 */
typedef int escape_fn(char *out, size_t size, uint32_t c, int how);

static void add_escaped(struct text *t, const struct value *v, char quote, escape_fn *escape, int how)
{
    char out[16];
    size_t done = 0;
    text_add(t, &quote, 1, v->mask ? MASK_PLAIN : NULL);
    for (size_t i = 0; i < v->len;) {
        int len, n = escape(out, sizeof out, utf8_decode(v->s + i, v->len - i, &len, NULL), how);
        if (n) {
            struct value before = value_slice(v, done, i - done), at = value_slice(v, i, 1);
            text_add_value(t, &before);
            text_add(t, out, (size_t)n, at.mask && *at.mask ? MASK_PLAIN : NULL);
            done = i + (size_t)len;
        }
        i += (size_t)len;
    }
    struct value rest = value_slice(v, done, v->len - done);
    text_add_value(t, &rest);
    text_add(t, &quote, 1, v->mask ? MASK_PLAIN : NULL);
}

static int repr_escape(char *out, size_t size, uint32_t c, int quote)
{
    if (c == '\\' || c == (uint32_t)quote)
        return snprintf(out, size, "\\%c", (char)c);
    if (c == '\n' || c == '\r' || c == '\t')
        return snprintf(out, size, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    if (!printable(c))
        return snprintf(out, size, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    return 0;
}

static void add_quoted(struct text *t, const struct value *v)
{
    bool has_single = memchr(v->s, '\'', v->len) != NULL;
    char quote = has_single && !memchr(v->s, '"', v->len) ? '"' : '\'';
    add_escaped(t, v, quote, repr_escape, quote);
}

static enum status add_repr(struct text *t, const struct value *v);

static enum status add_repr_items(struct text *t, const struct value *v)
{
    const struct list *l = v->list;
    text_add_own(t, v->type == V_TUPLE ? "(" : "[");
    for (size_t i = 0; i < l->n; i++) {
        if (i)
            text_add_own(t, ", ");
        TRY(add_repr(t, &l->items[i]));
    }
    text_add_own(t, v->type == V_LIST ? "]" : l->n == 1 ? ",)" : ")");
    return ST_OK;
}

static enum status add_repr(struct text *t, const struct value *v)
{
    TRY(run_enter(t->run));
    TRY(run_step(t->run, 1));
    if (v->type == V_STR) {
        add_quoted(t, v);
    } else if (v->type == V_UNDEFINED) {
        text_add_own(t, "Undefined");
    } else if (v->type == V_LIST || v->type == V_TUPLE) {
        TRY(add_repr_items(t, v));
    } else if (v->type == V_DICT) {
        text_add_own(t, "{");
        for (size_t i = 0; i < v->dict->n; i++) {
            if (i)
                text_add_own(t, ", ");
            TRY(add_repr(t, &v->dict->entries[i].key));
            text_add_own(t, ": ");
            TRY(add_repr(t, &v->dict->entries[i].value));
        }
        text_add_own(t, "}");
    } else {
        TRY(value_to_text(t, v));
    }
    run_leave(t->run);
    return t->failed;
}

enum status value_to_text(struct text *t, const struct value *v)
{
    static const struct json_style spaced = {
        {.type = V_STR, .s = ", ", .len = 2}, {.type = V_STR, .s = ": ", .len = 2}, {0}, false, false};
    bool json = t->run->json_style;
    switch (v->type) {
    case V_MISSING:
    case V_UNDEFINED:
        break;
    case V_NONE:
        text_add_own(t, json ? "" : "None");
        break;
    case V_BOOL:
        text_add_own(t, v->b ? (json ? "true" : "True") : (json ? "false" : "False"));
        break;
    case V_INT:
        add_int(t, v->i);
        break;
    case V_REAL:
        add_real(t, v->r, false);
        break;
    case V_STR:
        text_add_value(t, v);
        break;
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
        if (json)
            return value_to_json(t, v, &spaced, 0);
        return add_repr(t, v);
    default:
        return run_error(t->run, ST_INVALID, "%s cannot be printed", value_type_name(v));
    }
    return t->failed;
}

enum status value_to_str(struct run *r, struct value *out, const struct value *v)
{
    if (v->type == V_STR) {
        *out = *v;
        return ST_OK;
    }
    struct text t;
    text_init(&t, r);
    TRY(value_to_text(&t, v));
    return text_take(&t, out);
}

/* ---- JSON ---- */

static int json_escape(char *out, size_t size, uint32_t c, int ascii)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *hit = c && c < 128 ? strchr(from, (int)c) : NULL;
    if (hit)
        return snprintf(out, size, "\\%c", to[hit - from]);
    if (c < 0x20 || (ascii && c > 0x7E && c < 0x10000))
        return c == 0x7F ? 0 : snprintf(out, size, "\\u%04x", c);
    if (ascii && c >= 0x10000)
        return snprintf(out, size, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
    return 0;
}

static void add_json_string(struct text *t, const struct value *v, bool ascii)
{
    add_escaped(t, v, '"', json_escape, ascii);
}

static enum status add_json_key(struct text *t, const struct value *key, const struct json_style *style)
{
    if (key->type == V_STR) {
        add_json_string(t, key, style->ascii);
        return t->failed;
    }
    text_add_own(t, "\"");
    TRY(value_to_json(t, key, style, 0));
    text_add_own(t, "\"");
    return t->failed;
}

static void add_newline(struct text *t, const struct json_style *style, int level)
{
    if (style->indent.type == V_MISSING)
        return;
    text_add_own(t, "\n");
    for (int i = 0; i < level && !t->failed; i++)
        text_add_value(t, &style->indent);
}

static enum status sorted_entries(struct run *r, const struct entry **out, const struct dict *d)
{
    struct entry *e = run_alloc(r, (d->n + 1) * sizeof *e);
    if (!e)
        return r->err->status;
    for (size_t i = 0; i < d->n; i++) { /* insertion sort: stable, and few keys; steps are charged */
        size_t j = i;
        for (; j > 0; j--) {
            int order;
            TRY(value_compare(r, &order, &e[j - 1].key, &d->entries[i].key));
            if (order <= 0)
                break;
            e[j] = e[j - 1];
        }
        e[j] = d->entries[i];
    }
    *out = e;
    return ST_OK;
}

static enum status add_json_object(struct text *t, const struct value *v, const struct json_style *style, int level)
{
    const struct entry *e = v->dict->entries;
    if (v->dict->n == 0) {
        text_add_own(t, "{}");
        return t->failed;
    }
    if (style->sort_keys)
        TRY(sorted_entries(t->run, &e, v->dict));
    text_add_own(t, "{");
    for (size_t i = 0; i < v->dict->n; i++) {
        if (i)
            text_add_value(t, &style->item);
        add_newline(t, style, level + 1);
        TRY(add_json_key(t, &e[i].key, style));
        text_add_value(t, &style->key);
        TRY(value_to_json(t, &e[i].value, style, level + 1));
    }
    add_newline(t, style, level);
    text_add_own(t, "}");
    return t->failed;
}

static enum status add_json_array(struct text *t, const struct value *v, const struct json_style *style, int level)
{
    text_add_own(t, "[");
    for (size_t i = 0; i < v->list->n; i++) {
        if (i)
            text_add_value(t, &style->item);
        add_newline(t, style, level + 1);
        TRY(value_to_json(t, &v->list->items[i], style, level + 1));
    }
    if (v->list->n)
        add_newline(t, style, level);
    text_add_own(t, "]");
    return t->failed;
}

enum status value_to_json(struct text *t, const struct value *v, const struct json_style *style, int level)
{
    struct run *r = t->run;
    enum status st = ST_OK;
    TRY(run_enter(r));
    TRY(run_step(r, 1));
    switch (v->type) {
    case V_NONE:
        text_add_own(t, "null");
        break;
    case V_BOOL:
        text_add_own(t, v->b ? "true" : "false");
        break;
    case V_INT:
        add_int(t, v->i);
        break;
    case V_REAL:
        add_real(t, v->r, true);
        break;
    case V_STR:
        add_json_string(t, v, style->ascii);
        break;
    case V_LIST:
    case V_TUPLE:
        st = add_json_array(t, v, style, level);
        break;
    case V_DICT:
        st = add_json_object(t, v, style, level);
        break;
    default:
        if (!r->json_style || v->type != V_UNDEFINED)
            return run_error(r, ST_INVALID, "%s cannot be written as JSON", value_type_name(v));
        text_add_own(t, level ? "undefined" : "null");
    }
    run_leave(r);
    return st != ST_OK ? st : t->failed;
}
