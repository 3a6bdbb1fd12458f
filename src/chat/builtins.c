/* builtins - tests and functions of templates, and how all builtins are called and found */
#include "chat/builtins.h"

#include "base/clock.h"

#include <math.h>
#include <time.h>

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
    const struct builtin *row = find_row(text_filters, n_text_filter, name);
    return row ? row : find_row(list_filters, n_list_filter, name);
}

const struct builtin *test_find(struct str name)
{
    return find_row(tests, sizeof tests / sizeof *tests, name);
}
