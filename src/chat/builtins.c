/* builtins - filters, tests and functions of templates: tables, and what their rows do */
#include "chat/strings.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BUILTIN(name)                                                                                                  \
    static enum status name(struct run *r, struct value *out, const struct value *self, const struct value *a,         \
                            const struct args *raw)
#define UNUSED (void)r, (void)out, (void)self, (void)a, (void)raw

enum status builtin_call(struct run *r, struct value *out, const struct builtin *row, const struct value *self,
                         const struct args *args)
{
    struct value bound[BUILTIN_ARGS_MAX] = {{0}};
    size_t n = 0;
    if (row->params[0] == '*')
        return row->fn(r, out, self, NULL, args);
    struct str rest = str_of(row->params);
    for (; rest.len; n++) {
        size_t end = str_find(rest, STR(" "), 0);
        struct str name = str_n(rest.ptr, end == SIZE_MAX ? rest.len : end);
        if (n < args->n)
            bound[n] = args->items[n];
        for (size_t i = 0; i < args->n_named; i++)
            if (str_eq(value_str(&args->named[i].key), name))
                bound[n] = args->named[i].value;
        rest = str_from(rest, name.len + 1);
    }
    if (args->n > n)
        return run_error(r, ST_INVALID, "'%s' takes at most %zu arguments, found %zu", row->name, n, args->n);
    for (size_t i = 0; i < args->n_named; i++) {
        struct str key = value_str(&args->named[i].key);
        size_t at = str_find(str_of(row->params), key, 0);
        char after = at == SIZE_MAX ? 'x' : row->params[at + key.len];
        if ((after && after != ' ') || (at && row->params[at - 1] != ' '))
            return run_error(r, ST_UNSUPPORTED, "the argument '%.*s' of '%s' is not offered", STR_ARG(key), row->name);
    }
    for (int i = 0; i < row->required; i++)
        if (bound[i].type == V_MISSING)
            return run_error(r, ST_INVALID, "'%s' wants %d arguments, found %zu", row->name, row->required, args->n);
    return row->fn(r, out, self, bound, args);
}

/* ---- helpers ---- */

/* "a.b.0" of an item; an int picks an element. */
static enum status attribute(struct run *r, struct value *out, const struct value *item, const struct value *path)
{
    *out = *item;
    if (path->type == V_MISSING || path->type == V_NONE)
        return ST_OK;
    if (path->type != V_STR)
        return value_item(r, out, item, path);
    struct str rest = value_str(path);
    while (rest.ptr) {
        size_t dot = str_find(rest, STR("."), 0);
        struct value key = value_slice(path, (size_t)(rest.ptr - path->s), dot == SIZE_MAX ? rest.len : dot), of = *out;
        int64_t index;
        if (str_to_i64(&index, value_str(&key)))
            key = value_int(index);
        TRY(value_item(r, out, &of, &key));
        rest = dot == SIZE_MAX ? (struct str){NULL, 0} : str_from(rest, dot + 1);
    }
    return ST_OK;
}

struct sort_item {
    struct value key, value;
};

/* Keys compare as Python compares one-element lists: equal ones are not ordered further. */
static enum status key_order(struct run *r, int *out, const struct value *a, const struct value *b)
{
    bool same;
    *out = 0;
    TRY(value_equal(r, &same, a, b));
    return same ? ST_OK : value_compare(r, out, a, b);
}

static enum status merge_sort(struct run *r, struct sort_item *items, struct sort_item *scratch, size_t n, int sign)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t mid = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n;
            for (size_t i = low, j = mid, k = low; k < high; k++) {
                int order = i == mid ? 1 : -1;
                if (i < mid && j < high) {
                    TRY(key_order(r, &order, &items[i].key, &items[j].key));
                    order = sign * order > 0 ? 1 : -1;
                }
                scratch[k] = order > 0 ? items[j++] : items[i++];
            }
        }
        memcpy(items, scratch, n * sizeof *items);
    }
    return ST_OK;
}

static enum status sort_items(struct run *r, struct value *out, struct value *items, size_t n, const struct value *path,
                              bool case_sensitive, bool reverse)
{
    struct sort_item *s = run_alloc(r, (n + 1) * 2 * sizeof *s);
    if (!s)
        return r->err->status;
    for (size_t i = 0; i < n; i++) {
        s[i].value = items[i];
        TRY(attribute(r, &s[i].key, &items[i], path));
        if (!case_sensitive)
            TRY(string_fold(r, &s[i].key, &s[i].key));
    }
    TRY(merge_sort(r, s, s + n, n, reverse ? -1 : 1));
    TRY(list_new(r, out, V_LIST, n));
    for (size_t i = 0; i < n; i++)
        TRY(list_push(r, out->list, &s[i].value));
    return ST_OK;
}

/* ---- filters on text ---- */

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

/* ---- filters on sequences ---- */

/* What Jinja returns as a generator is a list here, so that it has a length; only its truth is a generator's. */
static enum status lazily(const struct run *r, struct value *out, enum status st)
{
    out->lazy = st == ST_OK && out->type == V_LIST && !r->json_style;
    return st;
}

BUILTIN(f_length)
{
    size_t n;
    UNUSED;
    TRY(value_length(r, &n, self));
    *out = value_int((int64_t)n);
    return ST_OK;
}

static enum status edge(struct run *r, struct value *out, const struct value *self, bool last)
{
    struct value *items;
    size_t n;
    TRY(value_items(r, &items, &n, self));
    if (n)
        *out = items[last ? n - 1 : 0];
    else
        *out = (struct value){.type = V_UNDEFINED, .s = "the first or last item of nothing", .len = 33};
    return ST_OK;
}

BUILTIN(f_first)
{
    UNUSED;
    return edge(r, out, self, false);
}

BUILTIN(f_last)
{
    UNUSED;
    return edge(r, out, self, true);
}

BUILTIN(f_list)
{
    struct value *items;
    size_t n;
    UNUSED;
    TRY(value_items(r, &items, &n, self));
    TRY(list_new(r, out, V_LIST, n));
    for (size_t i = 0; i < n; i++)
        TRY(list_push(r, out->list, &items[i]));
    return ST_OK;
}

BUILTIN(f_reverse)
{
    struct value minus = value_int(-1), none = value_of(V_NONE), list;
    UNUSED;
    if (self->type == V_STR || self->type == V_UNDEFINED) {
        TRY(value_to_str(r, &list, self));
    } else {
        TRY(f_list(r, &list, self, a, raw));
    }
    return lazily(r, out, value_slice_of(r, out, &list, &none, &none, &minus));
}

BUILTIN(f_join)
{
    struct value *items, item, text, by = value_own("");
    struct text t;
    size_t n;
    UNUSED;
    if (a[0].type != V_MISSING)
        TRY(value_to_str(r, &by, &a[0]));
    TRY(value_items(r, &items, &n, self));
    text_init(&t, r);
    for (size_t i = 0; i < n; i++) {
        if (i)
            text_add_value(&t, &by);
        TRY(attribute(r, &item, &items[i], &a[1]));
        TRY(value_to_str(r, &text, &item));
        text_add_value(&t, &text);
    }
    TRY(run_step(r, n));
    return text_take(&t, out);
}

BUILTIN(f_sort)
{
    struct value *items;
    size_t n;
    UNUSED;
    TRY(value_items(r, &items, &n, self));
    return sort_items(r, out, items, n, &a[2], value_truth(&a[1]), value_truth(&a[0]));
}

BUILTIN(f_dictsort)
{
    struct value pairs, by = value_int(0);
    UNUSED;
    if (self->type != V_DICT)
        return run_error(r, ST_INVALID, "dictsort wants a mapping, found %s", value_type_name(self));
    TRY(dict_pairs(r, &pairs, self->dict, DICT_ITEMS));
    if (a[1].type == V_STR && str_is(value_str(&a[1]), "value"))
        by = value_int(1);
    return sort_items(r, out, pairs.list->items, pairs.list->n, &by, value_truth(&a[0]), value_truth(&a[2]));
}

BUILTIN(f_items)
{
    UNUSED;
    if (self->type == V_UNDEFINED)
        return lazily(r, out, list_new(r, out, V_LIST, 0));
    if (self->type != V_DICT)
        return run_error(r, ST_INVALID, "items wants a mapping, found %s", value_type_name(self));
    return lazily(r, out, dict_pairs(r, out, self->dict, DICT_ITEMS));
}

BUILTIN(f_unique)
{
    struct value *items, seen, key;
    size_t n;
    UNUSED;
    TRY(value_items(r, &items, &n, self));
    TRY(list_new(r, out, V_LIST, 0));
    TRY(list_new(r, &seen, V_LIST, 0));
    for (size_t i = 0; i < n; i++) {
        bool known = false;
        TRY(attribute(r, &key, &items[i], &a[1]));
        if (!value_truth(&a[0]))
            TRY(string_fold(r, &key, &key));
        for (size_t j = 0; j < seen.list->n && !known; j++)
            TRY(value_equal(r, &known, &seen.list->items[j], &key));
        if (known)
            continue;
        TRY(list_push(r, seen.list, &key));
        TRY(list_push(r, out->list, &items[i]));
    }
    return lazily(r, out, ST_OK);
}

static enum status extreme(struct run *r, struct value *out, const struct value *self, const struct value *a, int sign)
{
    struct value *items, sorted;
    size_t n;
    TRY(value_items(r, &items, &n, self));
    TRY(sort_items(r, &sorted, items, n, &a[1], value_truth(&a[0]), sign < 0));
    return edge(r, out, &sorted, false);
}

BUILTIN(f_min)
{
    UNUSED;
    return extreme(r, out, self, a, 1);
}

BUILTIN(f_max)
{
    UNUSED;
    return extreme(r, out, self, a, -1);
}

BUILTIN(f_sum)
{
    struct value *items, item;
    size_t n;
    double real = a[1].type == V_REAL ? a[1].r : 0;
    int64_t whole = a[1].type == V_INT ? a[1].i : 0;
    bool is_real = a[1].type == V_REAL;
    UNUSED;
    TRY(value_items(r, &items, &n, self));
    for (size_t i = 0; i < n; i++) {
        TRY(attribute(r, &item, &items[i], &a[0]));
        if (!value_is_number(&item))
            return run_error(r, ST_INVALID, "sum cannot take %s", value_type_name(&item));
        if (item.type == V_REAL && !is_real) {
            real = (double)whole;
            is_real = true;
        }
        if (is_real)
            real += value_number(&item);
        else if (__builtin_add_overflow(whole, item.type == V_INT ? item.i : item.b, &whole))
            return run_error(r, ST_LIMIT, "an integer over 64 bits");
    }
    *out = is_real ? value_real(real) : value_int(whole);
    return ST_OK;
}

BUILTIN(f_default)
{
    UNUSED;
    bool use = self->type == V_UNDEFINED || (value_truth(&a[1]) && !value_truth(self));
    *out = use ? (a[0].type == V_MISSING ? value_own("") : a[0]) : *self;
    return ST_OK;
}

static struct args args_from(const struct args *raw, size_t skip)
{
    struct args rest = *raw;
    rest.items += skip < rest.n ? skip : rest.n;
    rest.n -= skip < rest.n ? skip : rest.n;
    return rest;
}

/* map and select take anything false (none too) for an empty list. */
static enum status some_items(struct run *r, struct value **out, size_t *n, const struct value *v)
{
    *out = NULL;
    *n = 0;
    return value_truth(v) ? value_items(r, out, n, v) : ST_OK;
}

BUILTIN(f_map)
{
    struct value *items, v, path = {0}, otherwise = {0};
    size_t n;
    (void)a;
    for (size_t i = 0; i < raw->n_named; i++) {
        if (str_is(value_str(&raw->named[i].key), "attribute"))
            path = raw->named[i].value;
        else if (str_is(value_str(&raw->named[i].key), "default"))
            otherwise = raw->named[i].value;
    }
    const struct builtin *row = NULL;
    if (path.type == V_MISSING) {
        if (raw->n == 0 || raw->items[0].type != V_STR)
            return run_error(r, ST_INVALID, "map wants a filter's name or attribute=");
        row = filter_find(value_str(&raw->items[0]));
        if (!row)
            return run_error(r, ST_UNSUPPORTED, "the filter '%.*s' is not offered", STR_ARG(value_str(&raw->items[0])));
    }
    struct args rest = args_from(raw, 1);
    TRY(some_items(r, &items, &n, self));
    TRY(list_new(r, out, V_LIST, n));
    for (size_t i = 0; i < n; i++) {
        TRY(run_enter(r));
        if (row)
            TRY(builtin_call(r, &v, row, &items[i], &rest));
        else
            TRY(attribute(r, &v, &items[i], &path));
        if (!row && v.type == V_UNDEFINED && otherwise.type != V_MISSING)
            v = otherwise;
        TRY(list_push(r, out->list, &v));
        run_leave(r);
    }
    return lazily(r, out, ST_OK);
}

/* select, reject, selectattr, rejectattr: keep items whose test (default: truth) gives `wanted`. */
static enum status choose(struct run *r, struct value *out, const struct value *self, const struct args *raw,
                          bool by_attribute, bool wanted)
{
    struct value *items, of, verdict, path = {0};
    size_t n, at = by_attribute;
    if (by_attribute) {
        if (raw->n == 0)
            return run_error(r, ST_INVALID, "selectattr and rejectattr want an attribute's name");
        path = raw->items[0];
    }
    const struct builtin *row = NULL;
    if (raw->n > at) {
        row = raw->items[at].type == V_STR ? test_find(value_str(&raw->items[at])) : NULL;
        if (!row)
            return run_error(r, ST_UNSUPPORTED, "the test '%.*s' is not offered",
                             STR_ARG(raw->items[at].type == V_STR ? value_str(&raw->items[at]) : STR("?")));
    }
    struct args rest = args_from(raw, at + 1);
    TRY(some_items(r, &items, &n, self));
    TRY(list_new(r, out, V_LIST, 0));
    for (size_t i = 0; i < n; i++) {
        TRY(attribute(r, &of, &items[i], &path));
        verdict = of;
        if (row)
            TRY(builtin_call(r, &verdict, row, &of, &rest));
        if (value_truth(&verdict) == wanted)
            TRY(list_push(r, out->list, &items[i]));
        TRY(run_step(r, 1));
    }
    return ST_OK;
}

#define CHOOSE_FILTER(name, by_attribute, wanted)                                                                      \
    BUILTIN(name)                                                                                                      \
    {                                                                                                                  \
        (void)a;                                                                                                       \
        return lazily(r, out, choose(r, out, self, raw, by_attribute, wanted));                                        \
    }
CHOOSE_FILTER(f_select, false, true)
CHOOSE_FILTER(f_reject, false, false)
CHOOSE_FILTER(f_selectattr, true, true)
CHOOSE_FILTER(f_rejectattr, true, false)

static const struct builtin filters[] = {
    {"abs", "", 0, f_abs, 0},
    {"capitalize", "", 0, f_capitalize, 0},
    {"count", "", 0, f_length, 0},
    {"d", "default_value boolean", 0, f_default, 0},
    {"default", "default_value boolean", 0, f_default, 0},
    {"dictsort", "case_sensitive by reverse", 0, f_dictsort, 0},
    {"e", "", 0, f_escape, 0},
    {"escape", "", 0, f_escape, 0},
    {"first", "", 0, f_first, 0},
    {"float", "default", 0, f_float, 0},
    {"from_json", "", 0, f_from_json, 0},
    {"fromjson", "", 0, f_from_json, 0},
    {"indent", "width first blank", 0, f_indent, 0},
    {"int", "default", 0, f_int, 0},
    {"items", "", 0, f_items, 0},
    {"join", "d attribute", 0, f_join, 0},
    {"last", "", 0, f_last, 0},
    {"length", "", 0, f_length, 0},
    {"list", "", 0, f_list, 0},
    {"lower", "", 0, f_lower, 0},
    {"map", "*", 0, f_map, 0},
    {"max", "case_sensitive attribute", 0, f_max, 0},
    {"min", "case_sensitive attribute", 0, f_min, 0},
    {"reject", "*", 0, f_reject, 0},
    {"rejectattr", "*", 0, f_rejectattr, 0},
    {"replace", "old new count", 2, f_replace, 0},
    {"reverse", "", 0, f_reverse, 0},
    {"round", "precision method", 0, f_round, 0},
    {"safe", "", 0, f_safe, 0},
    {"select", "*", 0, f_select, 0},
    {"selectattr", "*", 0, f_selectattr, 0},
    {"sort", "reverse case_sensitive attribute", 0, f_sort, 0},
    {"string", "", 0, f_string, 0},
    {"sum", "attribute start", 0, f_sum, 0},
    {"title", "", 0, f_title, 0},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, f_tojson, 0},
    {"trim", "chars", 0, f_trim, 0},
    {"unique", "case_sensitive attribute", 0, f_unique, 0},
    {"upper", "", 0, f_upper, 0},
};

/* ---- tests ---- */

#define TEST(name, condition)                                                                                          \
    BUILTIN(name)                                                                                                      \
    {                                                                                                                  \
        UNUSED;                                                                                                        \
        *out = value_bool(condition);                                                                                  \
        return ST_OK;                                                                                                  \
    }
TEST(t_defined, self->type != V_UNDEFINED)
TEST(t_undefined, self->type == V_UNDEFINED)
TEST(t_none, self->type == V_NONE)
TEST(t_boolean, self->type == V_BOOL)
TEST(t_true, self->type == V_BOOL && self->b)
TEST(t_false, self->type == V_BOOL && !self->b)
TEST(t_integer, self->type == V_INT)
TEST(t_float, self->type == V_REAL)
TEST(t_number, value_is_number(self))
TEST(t_string, self->type == V_STR)
TEST(t_mapping, self->type == V_DICT)
TEST(t_sequence, self->type >= V_STR && self->type <= V_DICT && !self->lazy)
TEST(t_iterable, (self->type >= V_STR && self->type <= V_DICT) || self->type == V_UNDEFINED)
TEST(t_callable, self->type >= V_MACRO && self->type <= V_LOOP)
TEST(t_sameas, self->type == a[0].type && (self->type <= V_NONE || self->i == a[0].i))

static enum status parity(struct run *r, struct value *out, const struct value *self, bool odd)
{
    if (!value_is_number(self))
        return run_error(r, ST_INVALID, "odd and even want a number, found %s", value_type_name(self));
    if (self->type == V_REAL) {
        *out = value_bool(self->r - 2 * floor(self->r / 2) == odd);
        return ST_OK;
    }
    *out = value_bool(((self->type == V_INT ? self->i : self->b) & 1) == odd);
    return ST_OK;
}

BUILTIN(t_odd)
{
    UNUSED;
    return parity(r, out, self, true);
}

BUILTIN(t_even)
{
    UNUSED;
    return parity(r, out, self, false);
}

BUILTIN(t_divisibleby)
{
    UNUSED;
    if (self->type != V_INT || a[0].type != V_INT || a[0].i == 0 || a[0].i == -1)
        return run_error(r, ST_INVALID, "divisibleby wants an integer and a divisor");
    *out = value_bool(self->i % a[0].i == 0);
    return ST_OK;
}

#define CASE_TEST(name, upper)                                                                                         \
    BUILTIN(name)                                                                                                      \
    {                                                                                                                  \
        struct value s;                                                                                                \
        UNUSED;                                                                                                        \
        TRY(value_to_str(r, &s, self));                                                                                \
        return string_is_case(r, out, &s, upper);                                                                      \
    }
CASE_TEST(t_upper, true)
CASE_TEST(t_lower, false)

static enum status equal_test(struct run *r, struct value *out, const struct value *self, const struct value *a,
                              bool wanted)
{
    bool same;
    TRY(value_equal(r, &same, self, &a[0]));
    *out = value_bool(same == wanted);
    return ST_OK;
}

BUILTIN(t_eq)
{
    UNUSED;
    return equal_test(r, out, self, a, true);
}

BUILTIN(t_ne)
{
    UNUSED;
    return equal_test(r, out, self, a, false);
}

BUILTIN(t_in)
{
    bool is;
    UNUSED;
    TRY(value_contains(r, &is, &a[0], self));
    *out = value_bool(is);
    return ST_OK;
}

#define ORDER_TEST(name, condition)                                                                                    \
    BUILTIN(name)                                                                                                      \
    {                                                                                                                  \
        int order = 0;                                                                                                 \
        UNUSED;                                                                                                        \
        TRY(value_compare(r, &order, self, &a[0]));                                                                    \
        *out = value_bool(condition);                                                                                  \
        return ST_OK;                                                                                                  \
    }
ORDER_TEST(t_lt, order < 0)
ORDER_TEST(t_le, order <= 0)
ORDER_TEST(t_gt, order > 0)
ORDER_TEST(t_ge, order >= 0)

static const struct builtin tests[] = {
    {"boolean", "", 0, t_boolean, 0},     {"callable", "", 0, t_callable, 0},
    {"defined", "", 0, t_defined, 0},     {"divisibleby", "num", 1, t_divisibleby, 0},
    {"eq", "other", 1, t_eq, 0},          {"equalto", "other", 1, t_eq, 0},
    {"==", "other", 1, t_eq, 0},          {"even", "", 0, t_even, 0},
    {"false", "", 0, t_false, 0},         {"float", "", 0, t_float, 0},
    {"ge", "other", 1, t_ge, 0},          {">=", "other", 1, t_ge, 0},
    {"greaterthan", "other", 1, t_gt, 0}, {"gt", "other", 1, t_gt, 0},
    {">", "other", 1, t_gt, 0},           {"in", "seq", 1, t_in, 0},
    {"integer", "", 0, t_integer, 0},     {"iterable", "", 0, t_iterable, 0},
    {"le", "other", 1, t_le, 0},          {"<=", "other", 1, t_le, 0},
    {"lessthan", "other", 1, t_lt, 0},    {"lower", "", 0, t_lower, 0},
    {"lt", "other", 1, t_lt, 0},          {"<", "other", 1, t_lt, 0},
    {"mapping", "", 0, t_mapping, 0},     {"ne", "other", 1, t_ne, 0},
    {"!=", "other", 1, t_ne, 0},          {"none", "", 0, t_none, 0},
    {"number", "", 0, t_number, 0},       {"odd", "", 0, t_odd, 0},
    {"sameas", "other", 1, t_sameas, 0},  {"sequence", "", 0, t_sequence, 0},
    {"string", "", 0, t_string, 0},       {"true", "", 0, t_true, 0},
    {"undefined", "", 0, t_undefined, 0}, {"upper", "", 0, t_upper, 0},
};

/* ---- functions ---- */

enum { RANGE_MAX = 100000 };

BUILTIN(g_range)
{
    int64_t v[3] = {0, 0, 1};
    UNUSED;
    for (int i = 0; i < 3 && a[i].type != V_MISSING; i++) {
        if (a[i].type != V_INT)
            return run_error(r, ST_INVALID, "range wants integers, found %s", value_type_name(&a[i]));
        v[i] = a[i].i;
    }
    if (a[1].type == V_MISSING) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0)
        return run_error(r, ST_INVALID, "range's step cannot be 0");
    __int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1], step = v[2] > 0 ? v[2] : -(__int128)v[2];
    __int128 count = span > 0 ? (span + step - 1) / step : 0;
    if (count > RANGE_MAX)
        return run_error(r, ST_LIMIT, "a range of more than %d (range budget)", RANGE_MAX);
    TRY(list_new(r, out, V_LIST, (size_t)count));
    for (int64_t i = 0; i < (int64_t)count; i++) {
        struct value item = value_int(v[0] + i * v[2]);
        TRY(list_push(r, out->list, &item));
    }
    return ST_OK;
}

static enum status dict_from(struct run *r, struct value *out, const struct args *raw, enum value_type type)
{
    TRY(dict_new(r, out, type));
    for (size_t i = 0; i < raw->n; i++) {
        const struct value *from = &raw->items[i];
        if (from->type != V_DICT)
            return run_error(r, ST_INVALID, "dict and namespace want mappings, found %s", value_type_name(from));
        for (size_t k = 0; k < from->dict->n; k++)
            TRY(dict_put(r, out->dict, &from->dict->entries[k].key, &from->dict->entries[k].value));
    }
    for (size_t i = 0; i < raw->n_named; i++)
        TRY(dict_put(r, out->dict, &raw->named[i].key, &raw->named[i].value));
    return ST_OK;
}

BUILTIN(g_dict)
{
    UNUSED;
    return dict_from(r, out, raw, V_DICT);
}

BUILTIN(g_namespace)
{
    UNUSED;
    return dict_from(r, out, raw, V_NAMESPACE);
}

BUILTIN(g_cycler)
{
    UNUSED;
    TRY(list_new(r, out, V_CYCLER, raw->n));
    for (size_t i = 0; i < raw->n; i++)
        TRY(list_push(r, out->list, &raw->items[i]));
    return ST_OK;
}

BUILTIN(g_raise_exception)
{
    struct value s;
    UNUSED;
    TRY(value_to_str(r, &s, &a[0]));
    return fail(r->err, ST_INVALID, "%.*s", STR_ARG(value_str(&s)));
}

BUILTIN(g_strftime_now)
{
    char format[256], text[512];
    struct tm tm;
    UNUSED;
    time_t now = (time_t)(r->now_s ? r->now_s : (int64_t)(clock_wall_ns() / 1000000000u));
    if (a[0].type != V_STR || a[0].len >= sizeof format - 1)
        return run_error(r, ST_INVALID, "strftime_now wants a short string");
    memcpy(format, a[0].s, a[0].len);
    format[a[0].len] = ' '; /* so that an empty result is told from a failure */
    format[a[0].len + 1] = 0;
    localtime_r(&now, &tm);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(text, sizeof text, format, &tm);
#pragma GCC diagnostic pop
    if (n == 0)
        return run_error(r, ST_LIMIT, "strftime_now's text is longer than %zu bytes", sizeof text);
    struct text t;
    text_init(&t, r);
    text_add(&t, text, n - 1, a[0].mask ? MASK_PLAIN : NULL);
    return text_take(&t, out);
}

const struct builtin template_functions[] = {
    {"range", "start stop step", 1, g_range, 0},
    {"dict", "*", 0, g_dict, 0},
    {"namespace", "*", 0, g_namespace, 0},
    {"cycler", "*", 0, g_cycler, 0},
    {"raise_exception", "message", 1, g_raise_exception, 0},
    {"strftime_now", "format", 1, g_strftime_now, 0},
};
const size_t template_n_function = sizeof template_functions / sizeof *template_functions;

static const struct builtin *find_row(const struct builtin *rows, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

const struct builtin *filter_find(struct str name)
{
    return find_row(filters, sizeof filters / sizeof *filters, name);
}

const struct builtin *test_find(struct str name)
{
    return find_row(tests, sizeof tests / sizeof *tests, name);
}
