/* operate - the operators of expressions on values */
#include "chat/eval.h"

#include <math.h>

static enum status overflow(struct run *r)
{
    return run_error(r, ST_LIMIT, "an integer over 64 bits");
}

static enum status concat(struct run *r, struct value *out, const struct value *a, const struct value *b)
{
    struct text t;
    struct value escaped[2];
    bool safe = (a->type == V_STR && a->safe) || (b->type == V_STR && b->safe);
    if (safe) {
        TRY(string_escape(r, &escaped[0], a));
        TRY(string_escape(r, &escaped[1], b));
        a = &escaped[0];
        b = &escaped[1];
    }
    text_init(&t, r);
    TRY(value_to_text(&t, a));
    TRY(value_to_text(&t, b));
    TRY(text_take(&t, out));
    out->safe = safe;
    return ST_OK;
}

static enum status add_lists(struct run *r, struct value *out, const struct value *a, const struct value *b)
{
    TRY(list_new(r, out, (enum value_type)a->type, a->list->n + b->list->n));
    for (size_t i = 0; i < a->list->n; i++)
        TRY(list_push(r, out->list, &a->list->items[i]));
    for (size_t i = 0; i < b->list->n; i++)
        TRY(list_push(r, out->list, &b->list->items[i]));
    return ST_OK;
}

static enum status repeat(struct run *r, struct value *out, const struct value *what, int64_t times)
{
    struct text t;
    times = times < 0 ? 0 : times;
    if (what->type != V_STR) {
        size_t n = what->list->n;
        if (n && (uint64_t)times > r->steps_max / n)
            return run_error(r, ST_LIMIT, "a list of %zu times %lld (step budget)", n, (long long)times);
        TRY(list_new(r, out, (enum value_type)what->type, n * (size_t)times));
        for (; n && times > 0; times--)
            for (size_t i = 0; i < n; i++)
                TRY(list_push(r, out->list, &what->list->items[i]));
        return ST_OK;
    }
    text_init(&t, r);
    if (what->len && (uint64_t)times > r->output_max / what->len)
        return run_error(r, ST_LIMIT, "the output exceeds %zu bytes (output budget)", r->output_max);
    for (; what->len && times > 0 && !t.failed; times--) {
        TRY(run_step(r, 1));
        text_add_value(&t, what);
    }
    return text_take(&t, out);
}

static enum status integer_math(struct run *r, struct value *out, int op, int64_t a, int64_t b)
{
    int64_t v = 0, q;
    if ((op == OP_FLOORDIV || op == '%') && b == 0)
        return run_error(r, ST_INVALID, "division by zero");
    switch (op) {
    case '+':
        if (__builtin_add_overflow(a, b, &v))
            return overflow(r);
        break;
    case '-':
        if (__builtin_sub_overflow(a, b, &v))
            return overflow(r);
        break;
    case '*':
        if (__builtin_mul_overflow(a, b, &v))
            return overflow(r);
        break;
    case OP_POW:
        for (v = 1; b > 0; b--) {
            TRY(run_step(r, 1));
            if (__builtin_mul_overflow(v, a, &v))
                return overflow(r);
        }
        break;
    default: /* floor division and its remainder, as Python rounds them */
        if (b == -1) {
            if (__builtin_sub_overflow((int64_t)0, a, &q))
                return overflow(r);
            v = op == '%' ? 0 : q;
            break;
        }
        q = a / b - (a % b != 0 && (a % b < 0) != (b < 0));
        v = op == '%' ? a - q * b : q;
    }
    *out = value_int(v);
    return ST_OK;
}

/* Whole exponents only: libm's pow differs between systems, and templates have no use for roots. */
static enum status real_power(struct run *r, double *out, double a, double b)
{
    double power = 1;
    if (b != floor(b) || fabs(b) > 1024)
        return run_error(r, ST_UNSUPPORTED, "** with this exponent is not offered; expected a whole one up to 1024");
    for (int n = (int)fabs(b); n > 0; n--)
        power *= a;
    if (b < 0 && power == 0)
        return run_error(r, ST_INVALID, "division by zero");
    *out = b < 0 ? 1 / power : power;
    return ST_OK;
}

static enum status real_math(struct run *r, struct value *out, int op, double a, double b)
{
    if ((op == '/' || op == OP_FLOORDIV || op == '%') && b == 0)
        return run_error(r, ST_INVALID, "division by zero");
    double v = op == '+'           ? a + b
               : op == '-'         ? a - b
               : op == '*'         ? a * b
               : op == '/'         ? a / b
               : op == OP_FLOORDIV ? floor(a / b)
                                   : a - floor(a / b) * b;
    if (op == OP_POW)
        TRY(real_power(r, &v, a, b));
    *out = value_real(v);
    return ST_OK;
}

static bool is_sequence(const struct value *v)
{
    return v->type == V_STR || v->type == V_LIST || v->type == V_TUPLE;
}

static bool is_integer(const struct value *v)
{
    return v->type == V_INT || v->type == V_BOOL;
}

static int64_t integer_of(const struct value *v)
{
    return v->type == V_BOOL ? v->b : v->i;
}

enum status operate_binary(struct run *r, struct value *out, int op, const struct value *a, const struct value *b)
{
    if (op == '~')
        return concat(r, out, a, b);
    if (value_is_number(a) && value_is_number(b)) {
        bool whole = is_integer(a) && is_integer(b) && op != '/' && !(op == OP_POW && integer_of(b) < 0);
        return whole ? integer_math(r, out, op, integer_of(a), integer_of(b))
                     : real_math(r, out, op, value_number(a), value_number(b));
    }
    if (op == '+') {
        if (a->type == V_STR && b->type == V_STR)
            return concat(r, out, a, b);
        if (a->type == b->type && (a->type == V_LIST || a->type == V_TUPLE))
            return add_lists(r, out, a, b);
        if (r->json_style && (a->type == V_STR || b->type == V_STR))
            return concat(r, out, a, b);
    }
    if (op == '*' && is_sequence(a) && is_integer(b))
        return repeat(r, out, a, integer_of(b));
    if (op == '*' && is_sequence(b) && is_integer(a))
        return repeat(r, out, b, integer_of(a));
    const struct value *bad = a->type == V_UNDEFINED ? a : b;
    if (bad->type == V_UNDEFINED)
        return run_error(r, ST_INVALID, "'%.*s' is undefined", STR_ARG(value_str(bad)));
    if (op == '%' && a->type == V_STR)
        return run_error(r, ST_UNSUPPORTED, "formatting with %% is not offered");
    return run_error(r, ST_INVALID, "operator %s cannot take %s and %s",
                     op == OP_FLOORDIV ? "//"
                     : op == OP_POW    ? "**"
                                       : (char[2]){(char)op, 0},
                     value_type_name(a), value_type_name(b));
}

enum status operate_sign(struct run *r, struct value *out, int op, const struct value *v)
{
    if (v->type == V_REAL)
        *out = value_real(op == OP_NEG ? -v->r : v->r);
    else if (!is_integer(v))
        return run_error(r, ST_INVALID, "a sign cannot stand before %s", value_type_name(v));
    else
        return integer_math(r, out, op == OP_NEG ? '-' : '+', 0, integer_of(v));
    return ST_OK;
}

enum status operate_compare(struct run *r, bool *out, int op, const struct value *a, const struct value *b)
{
    int order = 0;
    switch (op) {
    case OP_EQ:
    case OP_NE:
        TRY(value_equal(r, out, a, b));
        *out ^= op == OP_NE;
        return ST_OK;
    case OP_IN:
    case OP_NOT_IN:
        TRY(value_contains(r, out, b, a));
        *out ^= op == OP_NOT_IN;
        return ST_OK;
    default:
        TRY(value_compare(r, &order, a, b));
        *out = op == '<' ? order < 0 : op == '>' ? order > 0 : op == OP_LE ? order <= 0 : order >= 0;
        return ST_OK;
    }
}
