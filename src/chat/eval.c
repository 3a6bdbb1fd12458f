/* eval - walks the syntax tree with explicit budgets
 *
 * Invariants
 * 1. Every node costs a step, every copied or visited element a fraction of one; run->steps never passes steps_max.
 * 2. Every C recursion passes run_enter; run->nest never passes nest_max, so the C stack is bounded.
 * 3. All memory of a rendering lies in run->arena, whose limit is part of the output budget.
 * 4. A scope is a frame; the outermost one is the globals array. Loop bodies, macros and captures open frames.
 */
#include "chat/strings.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

static enum status eval(struct run *r, struct value *out, const struct node *n);
static enum status exec(struct run *r, enum flow *flow, const struct node *n);

/* ---- budgets and errors ---- */

enum status run_error(struct run *r, enum status st, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fail(r->err, st, "template line %u: %s", r->line, text);
}

void *run_alloc(struct run *r, size_t size)
{
    void *p = arena_alloc(&r->arena, size);
    if (p)
        return p;
    if (size > r->arena.limit || r->arena.used > r->arena.limit - size)
        (void)run_error(r, ST_LIMIT, "more than %zu bytes of values (memory budget)", r->arena.limit);
    else
        (void)fail_nomem(r->err, "rendering a template");
    return NULL;
}

enum status run_step(struct run *r, uint64_t n)
{
    r->steps += n;
    if (r->steps > r->steps_max)
        return run_error(r, ST_LIMIT, "more than %llu steps (step budget)", (unsigned long long)r->steps_max);
    return ST_OK;
}

enum status run_enter(struct run *r)
{
    if (++r->nest > r->nest_max)
        return run_error(r, ST_LIMIT, "nested deeper than %u (depth budget)", r->depth_max);
    return ST_OK;
}

static enum status deeper(struct run *r)
{
    if (++r->depth > r->depth_max)
        return run_error(r, ST_LIMIT, "nested deeper than %u (depth budget)", r->depth_max);
    return ST_OK;
}

/* ---- variables ---- */

static struct str name_of(const struct run *r, uint32_t sym)
{
    return r->t->names[sym];
}

static void lookup(const struct run *r, struct value *out, uint32_t sym)
{
    for (const struct frame *f = r->frame; f; f = f->parent)
        for (size_t i = 0; i < f->n; i++)
            if (f->vars[i].sym == sym) {
                *out = f->vars[i].value;
                return;
            }
    *out = r->globals[sym];
    if (out->type == V_MISSING) {
        struct str name = name_of(r, sym);
        *out = (struct value){.type = V_UNDEFINED, .s = name.ptr, .len = (uint32_t)name.len};
    }
}

static enum status assign(struct run *r, uint32_t sym, const struct value *v)
{
    struct frame *f = r->frame;
    if (!f) {
        r->globals[sym] = *v;
        return ST_OK;
    }
    for (size_t i = 0; i < f->n; i++)
        if (f->vars[i].sym == sym) {
            f->vars[i].value = *v;
            return ST_OK;
        }
    if (f->n == f->capacity) {
        struct binding *vars = run_alloc(r, (f->capacity * 2 + 4) * sizeof *vars);
        if (!vars)
            return r->err->status;
        if (f->n)
            memcpy(vars, f->vars, f->n * sizeof *vars);
        f->vars = vars;
        f->capacity = f->capacity * 2 + 4;
    }
    f->vars[f->n++] = (struct binding){sym, *v};
    return ST_OK;
}

static enum status assign_target(struct run *r, const struct node *target, const struct value *v)
{
    struct value *items, ns;
    size_t n, i = 0;
    if (target->kind == N_NAME)
        return assign(r, target->sym, v);
    if (target->kind == N_NSREF) {
        lookup(r, &ns, target->sym);
        if (ns.type != V_NAMESPACE)
            return run_error(r, ST_INVALID, "cannot assign to an attribute of %s; expected a namespace",
                             value_type_name(&ns));
        struct str name = name_of(r, target->sym2);
        struct value key = {.type = V_STR, .s = name.ptr, .len = (uint32_t)name.len};
        return dict_put(r, ns.dict, &key, v);
    }
    TRY(value_items(r, &items, &n, v));
    for (const struct node *name = target->a; name; name = name->next, i++)
        if (i < n)
            TRY(assign(r, name->sym, &items[i]));
    if (i != n)
        return run_error(r, ST_INVALID, "cannot unpack %zu values into %zu names", n, i);
    return ST_OK;
}

static struct frame *frame_new(struct run *r, struct frame *parent)
{
    struct frame *f = run_alloc(r, sizeof *f);
    if (f)
        *f = (struct frame){.parent = parent};
    return f;
}

/* ---- operators ---- */

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

static enum status binary(struct run *r, struct value *out, int op, const struct value *a, const struct value *b)
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

static enum status eval_binary(struct run *r, struct value *out, const struct node *n)
{
    struct value a, b;
    TRY(eval(r, &a, n->a));
    if (n->op == OP_AND || n->op == OP_OR) {
        if (value_truth(&a) == (n->op == OP_OR)) {
            *out = a;
            return ST_OK;
        }
        return eval(r, out, n->b);
    }
    TRY(eval(r, &b, n->b));
    r->line = n->line;
    return binary(r, out, n->op, &a, &b);
}

static enum status eval_unary(struct run *r, struct value *out, const struct node *n)
{
    struct value v;
    TRY(eval(r, &v, n->a));
    if (n->op == OP_NOT) {
        *out = value_bool(!value_truth(&v));
        return ST_OK;
    }
    r->line = n->line;
    if (v.type == V_REAL)
        *out = value_real(n->op == OP_NEG ? -v.r : v.r);
    else if (!is_integer(&v))
        return run_error(r, ST_INVALID, "a sign cannot stand before %s", value_type_name(&v));
    else
        return integer_math(r, out, n->op == OP_NEG ? '-' : '+', 0, integer_of(&v));
    return ST_OK;
}

static enum status compare(struct run *r, bool *out, int op, const struct value *a, const struct value *b)
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

static enum status eval_compare(struct run *r, struct value *out, const struct node *n)
{
    struct value a, b;
    bool holds = true;
    TRY(eval(r, &a, n->a));
    for (const struct node *o = n->b; o && holds; o = o->next) {
        TRY(eval(r, &b, o->a));
        r->line = n->line;
        TRY(compare(r, &holds, o->op, &a, &b));
        a = b;
    }
    *out = value_bool(holds);
    return ST_OK;
}

/* ---- literals, subscripts ---- */

static enum status eval_items(struct run *r, struct value *out, const struct node *n)
{
    TRY(list_new(r, out, n->kind == N_TUPLE ? V_TUPLE : V_LIST, 0));
    for (const struct node *item = n->a; item; item = item->next) {
        struct value v;
        TRY(eval(r, &v, item));
        TRY(list_push(r, out->list, &v));
    }
    return ST_OK;
}

static enum status eval_dict(struct run *r, struct value *out, const struct node *n)
{
    TRY(dict_new(r, out, V_DICT));
    for (const struct node *item = n->a; item; item = item->next->next) {
        struct value key, v;
        TRY(eval(r, &key, item));
        TRY(eval(r, &v, item->next));
        TRY(dict_put(r, out->dict, &key, &v));
    }
    return ST_OK;
}

static enum status eval_item(struct run *r, struct value *out, const struct node *n)
{
    struct value of, parts[3] = {{0}};
    TRY(eval(r, &of, n->a));
    if (n->b->kind == N_SLICE) {
        const struct node *part[3] = {n->b->a, n->b->b, n->b->c};
        for (int i = 0; i < 3; i++)
            if (part[i])
                TRY(eval(r, &parts[i], part[i]));
        r->line = n->line;
        return value_slice_of(r, out, &of, &parts[0], &parts[1], &parts[2]);
    }
    TRY(eval(r, &parts[0], n->b));
    r->line = n->line;
    return value_item(r, out, &of, &parts[0]);
}

/* ---- calls ---- */

static enum status args_push(struct run *r, struct value *list, const struct value *v)
{
    return list_push(r, list->list, v);
}

static enum status eval_args(struct run *r, struct args *out, const struct node *arg)
{
    struct value list, named, v, *items;
    size_t n;
    TRY(list_new(r, &list, V_LIST, 0));
    TRY(dict_new(r, &named, V_DICT));
    for (; arg; arg = arg->next) {
        TRY(eval(r, &v, arg->a));
        if (arg->op == 0) {
            TRY(args_push(r, &list, &v));
        } else if (arg->op == '*') {
            TRY(value_items(r, &items, &n, &v));
            for (size_t i = 0; i < n; i++)
                TRY(args_push(r, &list, &items[i]));
        } else if (arg->op == 1) {
            struct str name = name_of(r, arg->sym);
            struct value key = {.type = V_STR, .s = name.ptr, .len = (uint32_t)name.len};
            TRY(dict_put(r, named.dict, &key, &v));
        } else {
            if (v.type != V_DICT)
                return run_error(r, ST_INVALID, "'**' wants a mapping, found %s", value_type_name(&v));
            for (size_t i = 0; i < v.dict->n; i++)
                TRY(dict_put(r, named.dict, &v.dict->entries[i].key, &v.dict->entries[i].value));
        }
    }
    *out = (struct args){list.list->items, list.list->n, named.dict->entries, named.dict->n};
    return ST_OK;
}

/* Runs a body into a string, in a new frame under `parent`. */
static enum status capture(struct run *r, struct value *out, const struct node *body, struct frame *frame)
{
    struct text t, *outer_text = r->out;
    struct frame *outer = r->frame;
    enum flow flow = FLOW_NEXT;
    text_init(&t, r);
    TRY(deeper(r));
    r->out = &t;
    r->frame = frame;
    enum status st = exec(r, &flow, body);
    r->out = outer_text;
    r->frame = outer;
    r->depth--;
    TRY(st);
    return text_take(&t, out);
}

static enum status bind_rest(struct run *r, const struct args *args, size_t used, const bool *taken, bool wants_rest)
{
    struct value rest, named;
    TRY(list_new(r, &rest, V_TUPLE, 0));
    TRY(dict_new(r, &named, V_DICT));
    for (size_t i = used; i < args->n; i++)
        TRY(list_push(r, rest.list, &args->items[i]));
    for (size_t i = 0; i < args->n_named; i++)
        if (!taken[i])
            TRY(dict_put(r, named.dict, &args->named[i].key, &args->named[i].value));
    if (!wants_rest && (rest.list->n || named.dict->n))
        return run_error(r, ST_INVALID, "a macro was given arguments it does not take");
    TRY(assign(r, SYM_VARARGS, &rest));
    return assign(r, SYM_KWARGS, &named);
}

static enum status call_macro(struct run *r, struct value *out, const struct macro *m, const struct args *args)
{
    struct frame *outer = r->frame, *frame = frame_new(r, m->closure);
    bool *taken = run_alloc(r, args->n_named + 1);
    size_t i = 0;
    if (!frame || !taken)
        return r->err->status;
    memset(taken, 0, args->n_named + 1);
    r->frame = frame;
    for (const struct node *p = m->node->a; p; p = p->next, i++) {
        struct str name = name_of(r, p->sym);
        struct value v = {.type = V_UNDEFINED, .s = name.ptr, .len = (uint32_t)name.len};
        if (i < args->n)
            v = args->items[i];
        else if (p->a)
            TRY(eval(r, &v, p->a));
        for (size_t k = 0; k < args->n_named; k++)
            if (str_eq(value_str(&args->named[k].key), name)) {
                v = args->named[k].value;
                taken[k] = true;
            }
        TRY(assign(r, p->sym, &v));
    }
    for (size_t k = 0; k < args->n_named; k++)
        if (!taken[k] && str_is(value_str(&args->named[k].key), "caller")) {
            TRY(assign(r, SYM_CALLER, &args->named[k].value));
            taken[k] = true;
        }
    TRY(bind_rest(r, args, i < args->n ? i : args->n, taken, m->node->op));
    r->frame = outer;
    return capture(r, out, m->node->c, frame);
}

static enum status run_loop(struct run *r, enum flow *flow, const struct node *n, const struct value *over,
                            uint32_t depth);

static enum status call_loop(struct run *r, struct value *out, const struct loop *l, const struct args *args)
{
    struct text t, *outer_text = r->out;
    struct frame *outer = r->frame;
    enum flow flow;
    if (!l->node->op || args->n != 1)
        return run_error(r, ST_INVALID, "loop(...) wants a recursive loop and one argument");
    text_init(&t, r);
    r->out = &t;
    r->frame = l->frame;
    enum status st = run_loop(r, &flow, l->node, &args->items[0], l->depth + 1);
    r->out = outer_text;
    r->frame = outer;
    TRY(st);
    return text_take(&t, out);
}

enum status call_value(struct run *r, struct value *out, const struct value *callee, const struct args *args)
{
    switch (callee->type) {
    case V_MACRO:
        return call_macro(r, out, callee->macro, args);
    case V_BUILTIN:
        return builtin_call(r, out, callee->builtin, callee, args);
    case V_METHOD:
        return builtin_call(r, out, callee->method->row, &callee->method->self, args);
    case V_LOOP:
        return call_loop(r, out, callee->loop, args);
    case V_UNDEFINED:
        return run_error(r, ST_UNSUPPORTED, "the function '%.*s' is not offered", STR_ARG(value_str(callee)));
    default:
        return run_error(r, ST_INVALID, "%s cannot be called", value_type_name(callee));
    }
}

static enum status eval_callee(struct run *r, struct value *out, const struct node *n)
{
    struct value of;
    if (n->kind != N_ATTR)
        return eval(r, out, n);
    TRY(eval(r, &of, n->a));
    r->line = n->line;
    TRY(value_attr(r, out, &of, name_of(r, n->sym)));
    if (out->type == V_UNDEFINED && of.type != V_DICT && of.type != V_NAMESPACE)
        return run_error(r, ST_UNSUPPORTED, "the method '%.*s' of %s is not offered", STR_ARG(name_of(r, n->sym)),
                         value_type_name(&of));
    return ST_OK;
}

static enum status eval_call(struct run *r, struct value *out, const struct node *n, const struct value *caller)
{
    struct value callee;
    struct args args = {0};
    TRY(eval_callee(r, &callee, n->a));
    TRY(eval_args(r, &args, n->b));
    r->line = n->line;
    if (caller) {
        struct entry *named = run_alloc(r, (args.n_named + 1) * sizeof *named);
        if (!named)
            return r->err->status;
        if (args.n_named)
            memcpy(named, args.named, args.n_named * sizeof *named);
        named[args.n_named++] = (struct entry){value_own("caller"), *caller};
        args.named = named;
    }
    return call_value(r, out, &callee, &args);
}

/* n: a chain of filters whose innermost operand is `input` where the source names none (filter blocks). */
static enum status eval_filter(struct run *r, struct value *out, const struct node *n, const struct value *input)
{
    struct value v;
    struct args args;
    TRY(run_enter(r));
    assert(n->a || input); /* the parser leaves the operand out in filter blocks only */
    if (!n->a)
        v = *input;
    else if (n->a->kind == N_FILTER)
        TRY(eval_filter(r, &v, n->a, input));
    else
        TRY(eval(r, &v, n->a));
    r->line = n->line;
    const struct builtin *row = filter_find(name_of(r, n->sym));
    if (!row)
        return run_error(r, ST_UNSUPPORTED, "the filter '%.*s' is not offered", STR_ARG(name_of(r, n->sym)));
    TRY(eval_args(r, &args, n->b));
    r->line = n->line;
    TRY(builtin_call(r, out, row, &v, &args));
    run_leave(r);
    return run_step(r, 1);
}

static enum status eval_test(struct run *r, struct value *out, const struct node *n)
{
    struct value v;
    struct args args;
    TRY(eval(r, &v, n->a));
    r->line = n->line;
    const struct builtin *row = test_find(name_of(r, n->sym));
    if (!row)
        return run_error(r, ST_UNSUPPORTED, "the test '%.*s' is not offered", STR_ARG(name_of(r, n->sym)));
    TRY(eval_args(r, &args, n->b));
    return builtin_call(r, out, row, &v, &args);
}

static enum status eval_ternary(struct run *r, struct value *out, const struct node *n)
{
    struct value condition;
    TRY(eval(r, &condition, n->b));
    if (value_truth(&condition))
        return eval(r, out, n->a);
    if (n->c)
        return eval(r, out, n->c);
    *out = value_own("the expression without an else");
    out->type = V_UNDEFINED;
    return ST_OK;
}

static enum status eval_attr(struct run *r, struct value *out, const struct node *n)
{
    struct value of;
    TRY(eval(r, &of, n->a));
    r->line = n->line;
    return value_attr(r, out, &of, name_of(r, n->sym));
}

static enum status eval_inner(struct run *r, struct value *out, const struct node *n)
{
    switch (n->kind) {
    case N_CONST:
        *out = n->value;
        return ST_OK;
    case N_NAME:
        lookup(r, out, n->sym);
        return ST_OK;
    case N_TUPLE:
    case N_LIST:
        return eval_items(r, out, n);
    case N_DICT:
        return eval_dict(r, out, n);
    case N_UNARY:
        return eval_unary(r, out, n);
    case N_BINARY:
        return eval_binary(r, out, n);
    case N_COMPARE:
        return eval_compare(r, out, n);
    case N_TERNARY:
        return eval_ternary(r, out, n);
    case N_ATTR:
        return eval_attr(r, out, n);
    case N_ITEM:
        return eval_item(r, out, n);
    case N_CALL:
        return eval_call(r, out, n, NULL);
    case N_FILTER:
        return eval_filter(r, out, n, NULL);
    default:
        return eval_test(r, out, n);
    }
}

static enum status eval(struct run *r, struct value *out, const struct node *n)
{
    TRY(run_step(r, 1));
    TRY(run_enter(r));
    r->line = n->line;
    TRY(eval_inner(r, out, n));
    run_leave(r);
    return ST_OK;
}

/* ---- statements ---- */

static enum status exec_print(struct run *r, const struct node *n)
{
    struct value v;
    TRY(eval(r, &v, n->a));
    r->line = n->line;
    return value_to_text(r->out, &v);
}

static enum status exec_if(struct run *r, enum flow *flow, const struct node *n)
{
    for (; n && n->kind == N_IF; n = n->c) {
        struct value v;
        TRY(eval(r, &v, n->a));
        if (value_truth(&v))
            return exec(r, flow, n->b);
        if (!n->c || n->c->kind != N_IF || n->c->next)
            return exec(r, flow, n->c);
    }
    return ST_OK;
}

/* The items a loop runs over: all, or those its condition lets pass. */
static enum status loop_items(struct run *r, struct loop *l, const struct node *n, const struct value *over)
{
    struct value *items, kept;
    size_t count;
    TRY(value_items(r, &items, &count, over));
    TRY(list_new(r, &kept, V_LIST, count));
    struct frame *f = n->e ? frame_new(r, r->frame) : NULL;
    if (n->e && !f)
        return r->err->status;
    for (size_t i = 0; i < count; i++) {
        struct value pass = value_bool(true);
        if (n->e) {
            r->frame = f;
            TRY(assign_target(r, n->a, &items[i]));
            TRY(eval(r, &pass, n->e));
            r->frame = f->parent;
        }
        if (value_truth(&pass))
            TRY(list_push(r, kept.list, &items[i]));
    }
    l->items = kept.list->items;
    l->n = kept.list->n;
    return ST_OK;
}

static enum status run_loop(struct run *r, enum flow *flow, const struct node *n, const struct value *over,
                            uint32_t depth)
{
    struct frame *outer = r->frame, *frame = frame_new(r, outer);
    struct value self = {.type = V_LOOP, .loop = run_alloc(r, sizeof(struct loop))};
    *flow = FLOW_NEXT;
    if (!frame || !self.loop)
        return r->err->status;
    TRY(deeper(r));
    *self.loop = (struct loop){.node = n, .frame = outer, .depth = depth};
    TRY(loop_items(r, self.loop, n, over));
    r->frame = frame;
    for (; self.loop->i < self.loop->n; self.loop->i++) {
        frame->n = 0;
        TRY(run_step(r, 1));
        TRY(assign(r, SYM_LOOP, &self));
        TRY(assign_target(r, n->a, &self.loop->items[self.loop->i]));
        TRY(exec(r, flow, n->c));
        if (*flow == FLOW_BREAK)
            break;
    }
    r->frame = outer;
    r->depth--;
    *flow = FLOW_NEXT;
    return self.loop->n == 0 && n->d ? exec(r, flow, n->d) : ST_OK;
}

static enum status exec_for(struct run *r, enum flow *flow, const struct node *n)
{
    struct value over;
    TRY(eval(r, &over, n->b));
    r->line = n->line;
    return run_loop(r, flow, n, &over, 1);
}

static enum status macro_new(struct run *r, struct value *out, const struct node *n)
{
    struct macro *m = run_alloc(r, sizeof *m);
    if (!m)
        return r->err->status;
    *m = (struct macro){n, r->frame};
    *out = (struct value){.type = V_MACRO, .macro = m};
    return ST_OK;
}

/* A body run in its own scope, its text given to `v`. */
static enum status exec_captured(struct run *r, struct value *v, const struct node *n)
{
    struct frame *f = frame_new(r, r->frame);
    return f ? capture(r, v, n->c, f) : r->err->status;
}

static enum status exec_with(struct run *r, enum flow *flow, const struct node *n)
{
    struct frame *outer = r->frame, *f = frame_new(r, outer);
    if (!f)
        return r->err->status;
    for (const struct node *set = n->a; set; set = set->next) {
        struct value v;
        TRY(eval(r, &v, set->b));
        r->frame = f;
        TRY(assign(r, set->a->sym, &v));
        r->frame = outer;
    }
    r->frame = f;
    TRY(exec(r, flow, n->c));
    r->frame = outer;
    return ST_OK;
}

static enum status exec_one(struct run *r, enum flow *flow, const struct node *n)
{
    struct value v, filtered;
    switch (n->kind) {
    case N_TEXT:
        text_add_value(r->out, &n->value);
        return r->out->failed;
    case N_PRINT:
        return exec_print(r, n);
    case N_IF:
        return exec_if(r, flow, n);
    case N_FOR:
        return exec_for(r, flow, n);
    case N_SET:
        TRY(eval(r, &v, n->b));
        return assign_target(r, n->a, &v);
    case N_MACRO:
        TRY(macro_new(r, &v, n));
        return assign(r, n->sym, &v);
    case N_CALL_BLOCK:
        TRY(macro_new(r, &v, n->a));
        TRY(eval_call(r, &filtered, n->b, &v));
        return value_to_text(r->out, &filtered);
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
    case N_SCOPE:
        TRY(exec_captured(r, &v, n));
        filtered = v;
        if (n->b)
            TRY(eval_filter(r, &filtered, n->b, &v));
        return n->kind == N_SET_BLOCK ? assign_target(r, n->a, &filtered) : value_to_text(r->out, &filtered);
    case N_WITH:
        return exec_with(r, flow, n);
    default:
        *flow = n->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        return ST_OK;
    }
}

static enum status exec(struct run *r, enum flow *flow, const struct node *n)
{
    *flow = FLOW_NEXT;
    TRY(run_enter(r));
    for (; n && *flow == FLOW_NEXT; n = n->next) {
        TRY(run_step(r, 1));
        r->line = n->line;
        TRY(exec_one(r, flow, n));
    }
    run_leave(r);
    return ST_OK;
}

enum status template_run(struct run *r)
{
    enum flow flow;
    return exec(r, &flow, r->t->body);
}
