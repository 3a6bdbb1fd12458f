/* filters_list - filters on lists and mappings: sorting, choosing, mapping, and what takes them apart */
#include "chat/builtins.h"

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

const struct builtin list_filters[] = {
    {"count", "", 0, f_length, 0},
    {"d", "default_value boolean", 0, f_default, 0},
    {"default", "default_value boolean", 0, f_default, 0},
    {"dictsort", "case_sensitive by reverse", 0, f_dictsort, 0},
    {"first", "", 0, f_first, 0},
    {"items", "", 0, f_items, 0},
    {"join", "d attribute", 0, f_join, 0},
    {"last", "", 0, f_last, 0},
    {"length", "", 0, f_length, 0},
    {"list", "", 0, f_list, 0},
    {"map", "*", 0, f_map, 0},
    {"max", "case_sensitive attribute", 0, f_max, 0},
    {"min", "case_sensitive attribute", 0, f_min, 0},
    {"reject", "*", 0, f_reject, 0},
    {"rejectattr", "*", 0, f_rejectattr, 0},
    {"reverse", "", 0, f_reverse, 0},
    {"select", "*", 0, f_select, 0},
    {"selectattr", "*", 0, f_selectattr, 0},
    {"sort", "reverse case_sensitive attribute", 0, f_sort, 0},
    {"sum", "attribute start", 0, f_sum, 0},
    {"unique", "case_sensitive attribute", 0, f_unique, 0},
};
const size_t n_list_filter = sizeof list_filters / sizeof *list_filters;
