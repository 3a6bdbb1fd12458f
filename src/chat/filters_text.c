/* filters_text - filters on text and numbers */
#include "chat/builtins.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_FILTER(name, how)                                                                                         \
    BUILTIN(name)                                                                                                      \
    {                                                                                                                  \
        struct value s;                                                                                                \
        UNUSED;                                                                                                        \
        TRY(value_to_str(r, &s, self));                                                                                \
        return string_case(r, out, &s, how);                                                                           \
    }
TEXT_FILTER(f_upper, STRING_UPPER)
TEXT_FILTER(f_lower, STRING_LOWER)
TEXT_FILTER(f_capitalize, STRING_CAPITALIZE)
TEXT_FILTER(f_title, STRING_WORDS)

BUILTIN(f_string)
{
    UNUSED;
    return value_to_str(r, out, self);
}

BUILTIN(f_trim)
{
    struct value s;
    UNUSED;
    TRY(value_to_str(r, &s, self));
    return string_strip(r, out, &s, &a[0], true, true);
}

BUILTIN(f_replace)
{
    struct value s, from, to;
    UNUSED;
    TRY(value_to_str(r, &s, self));
    TRY(value_to_str(r, &from, &a[0]));
    TRY(value_to_str(r, &to, &a[1]));
    return string_replace(r, out, &s, &from, &to, &a[2]);
}

BUILTIN(f_escape)
{
    UNUSED;
    return string_escape(r, out, self);
}

BUILTIN(f_safe)
{
    UNUSED;
    TRY(value_to_str(r, out, self));
    out->safe = true;
    return ST_OK;
}
BUILTIN(f_indent)
{
    struct value s, lines, pad = a[0];
    struct text t, spaces;
    UNUSED;
    TRY(value_to_str(r, &s, self));
    if (pad.type != V_STR) {
        int64_t width = pad.type == V_INT ? pad.i : 4;
        text_init(&spaces, r);
        for (; width > 0 && !spaces.failed; width--) {
            TRY(run_step(r, 1));
            text_add_own(&spaces, " ");
        }
        TRY(text_take(&spaces, &pad));
    }
    text_init(&t, r);
    text_add_value(&t, &s);
    text_add_own(&t, "\n"); /* so that a final newline makes a last, empty line */
    TRY(text_take(&t, &s));
    TRY(string_lines(r, &lines, &s, false));
    text_init(&t, r);
    for (size_t i = 0; i < lines.list->n; i++) {
        const struct value *line = &lines.list->items[i];
        if (i)
            text_add_own(&t, "\n");
        if (i ? line->len || value_truth(&a[2]) : value_truth(&a[1]))
            text_add_value(&t, &pad);
        text_add_value(&t, line);
    }
    return text_take(&t, out);
}

BUILTIN(f_tojson)
{
    struct json_style style = {value_own(", "), value_own(": "), {0}, value_truth(&a[3]), value_truth(&a[0])};
    struct text t;
    UNUSED;
    if (a[1].type == V_INT || a[1].type == V_BOOL) {
        struct text pad;
        text_init(&pad, r);
        for (int64_t i = a[1].type == V_INT ? a[1].i : a[1].b; i > 0 && !pad.failed; i--) {
            TRY(run_step(r, 1));
            text_add_own(&pad, " ");
        }
        TRY(text_take(&pad, &style.indent));
    } else if (a[1].type == V_STR) {
        style.indent = a[1];
    }
    if (style.indent.type != V_MISSING)
        style.item = value_own(",");
    if (a[2].type == V_TUPLE || a[2].type == V_LIST) {
        if (a[2].list->n != 2 || a[2].list->items[0].type != V_STR || a[2].list->items[1].type != V_STR)
            return run_error(r, ST_INVALID, "tojson's separators want two strings");
        style.item = a[2].list->items[0];
        style.key = a[2].list->items[1];
    }
    text_init(&t, r);
    TRY(value_to_json(&t, self, &style, 0));
    return text_take(&t, out);
}

BUILTIN(f_from_json)
{
    const struct json *doc;
    struct value s;
    UNUSED;
    TRY(value_to_str(r, &s, self));
    TRY(run_step(r, s.len / 4));
    enum status st = json_parse(&doc, &r->arena, value_str(&s), 0, r->err);
    if (st != ST_OK)
        return st == ST_NOMEM ? st : fail_context(r->err, "template line %u: from_json", r->line);
    return value_from_json(r, out, doc, s.mask != NULL);
}

/* ---- filters on numbers ---- */

static bool parse_number(double *out, bool *whole, int64_t *integer, const struct value *v)
{
    *whole = v->type == V_INT || v->type == V_BOOL;
    if (value_is_number(v)) {
        *out = value_number(v);
        *integer = v->type == V_INT ? v->i : v->type == V_BOOL ? v->b : 0;
        return true;
    }
    if (v->type != V_STR)
        return false;
    struct str s = str_strip(value_str(v), true, true);
    if (s.len && s.ptr[0] == '+')
        s = str_from(s, 1);
    *whole = str_to_i64(integer, s);
    return *whole ? (*out = (double)*integer, true) : str_to_f64(out, s);
}

BUILTIN(f_int)
{
    double v;
    int64_t i;
    bool whole;
    UNUSED;
    if (!parse_number(&v, &whole, &i, self) || (!whole && !(fabs(v) < 0x1p63)))
        *out = a[0].type == V_MISSING ? value_int(0) : a[0];
    else
        *out = value_int(whole ? i : (int64_t)v);
    return ST_OK;
}

BUILTIN(f_float)
{
    double v;
    int64_t i;
    bool whole;
    UNUSED;
    if (!parse_number(&v, &whole, &i, self))
        *out = a[0].type == V_MISSING ? value_real(0) : a[0];
    else
        *out = value_real(v);
    return ST_OK;
}

BUILTIN(f_abs)
{
    UNUSED;
    if (!value_is_number(self) || (self->type == V_INT && self->i == INT64_MIN))
        return run_error(r, ST_INVALID, "abs cannot take %s", value_type_name(self));
    *out = self->type == V_REAL ? value_real(fabs(self->r))
                                : value_int(self->type == V_INT ? (self->i < 0 ? -self->i : self->i) : self->b);
    return ST_OK;
}

BUILTIN(f_round)
{
    char text[400];
    int64_t places = a[0].type == V_INT ? a[0].i : 0;
    UNUSED;
    if (!value_is_number(self) || places < 0 || places > 17)
        return run_error(r, ST_INVALID, "round cannot take %s to %lld places", value_type_name(self),
                         (long long)places);
    bool up = a[1].type == V_STR && str_is(value_str(&a[1]), "ceil");
    bool down = a[1].type == V_STR && str_is(value_str(&a[1]), "floor");
    if (up || down) {
        double scale = 1;
        for (int64_t i = 0; i < places; i++)
            scale *= 10;
        double v = value_number(self) * scale;
        *out = value_real((up ? ceil(v) : floor(v)) / scale);
        return ST_OK;
    }
    if (self->type != V_REAL) {
        *out = value_int(self->type == V_INT ? self->i : self->b);
        return ST_OK;
    }
    snprintf(text, sizeof text, "%.*f", (int)places, self->r); /* exact decimal, half to even, as Python rounds */
    *out = value_real(strtod(text, NULL));
    return ST_OK;
}

const struct builtin text_filters[] = {
    {"abs", "", 0, f_abs, 0},
    {"capitalize", "", 0, f_capitalize, 0},
    {"e", "", 0, f_escape, 0},
    {"escape", "", 0, f_escape, 0},
    {"float", "default", 0, f_float, 0},
    {"from_json", "", 0, f_from_json, 0},
    {"fromjson", "", 0, f_from_json, 0},
    {"indent", "width first blank", 0, f_indent, 0},
    {"int", "default", 0, f_int, 0},
    {"lower", "", 0, f_lower, 0},
    {"replace", "old new count", 2, f_replace, 0},
    {"round", "precision method", 0, f_round, 0},
    {"safe", "", 0, f_safe, 0},
    {"string", "", 0, f_string, 0},
    {"title", "", 0, f_title, 0},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson, 0},
    {"trim", "chars", 0, f_trim, 0},
    {"upper", "", 0, f_upper, 0},
};
const size_t n_text_filter = sizeof text_filters / sizeof *text_filters;
