/* eval - walks the syntax tree with explicit budgets
 *
 * Invariants
 * 1. Every node costs a step, every copied or visited element a fraction of one; run->steps never passes steps_max.
 * 2. Every C recursion passes run_enter; run->nest never passes nest_max, so the C stack is bounded.
 * 3. All memory of a rendering lies in run->arena, whose limit is part of the output budget.
 * 4. A scope is a frame; the outermost one is the globals array. Loop bodies, macros and captures open frames.
 */
#include "chat/eval.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

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

enum status run_deeper(struct run *r)
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

enum status run_assign(struct run *r, uint32_t sym, const struct value *v)
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

enum status run_assign_target(struct run *r, const struct node *target, const struct value *v)
{
    struct value *items, ns;
    size_t n, i = 0;
    if (target->kind == N_NAME)
        return run_assign(r, target->sym, v);
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
            TRY(run_assign(r, name->sym, &items[i]));
    if (i != n)
        return run_error(r, ST_INVALID, "cannot unpack %zu values into %zu names", n, i);
    return ST_OK;
}

struct frame *run_frame_new(struct run *r, struct frame *parent)
{
    struct frame *f = run_alloc(r, sizeof *f);
    if (f)
        *f = (struct frame){.parent = parent};
    return f;
}

/* ---- expressions ---- */

static enum status eval_binary(struct run *r, struct value *out, const struct node *n)
{
    struct value a, b;
    TRY(eval_node(r, &a, n->a));
    if (n->op == OP_AND || n->op == OP_OR) {
        if (value_truth(&a) == (n->op == OP_OR)) {
            *out = a;
            return ST_OK;
        }
        return eval_node(r, out, n->b);
    }
    TRY(eval_node(r, &b, n->b));
    r->line = n->line;
    return operate_binary(r, out, n->op, &a, &b);
}

static enum status eval_unary(struct run *r, struct value *out, const struct node *n)
{
    struct value v;
    TRY(eval_node(r, &v, n->a));
    if (n->op == OP_NOT) {
        *out = value_bool(!value_truth(&v));
        return ST_OK;
    }
    r->line = n->line;
    return operate_sign(r, out, n->op, &v);
}

static enum status eval_compare(struct run *r, struct value *out, const struct node *n)
{
    struct value a, b;
    bool holds = true;
    TRY(eval_node(r, &a, n->a));
    for (const struct node *o = n->b; o && holds; o = o->next) {
        TRY(eval_node(r, &b, o->a));
        r->line = n->line;
        TRY(operate_compare(r, &holds, o->op, &a, &b));
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
        TRY(eval_node(r, &v, item));
        TRY(list_push(r, out->list, &v));
    }
    return ST_OK;
}

static enum status eval_dict(struct run *r, struct value *out, const struct node *n)
{
    TRY(dict_new(r, out, V_DICT));
    for (const struct node *item = n->a; item; item = item->next->next) {
        struct value key, v;
        TRY(eval_node(r, &key, item));
        TRY(eval_node(r, &v, item->next));
        TRY(dict_put(r, out->dict, &key, &v));
    }
    return ST_OK;
}

static enum status eval_item(struct run *r, struct value *out, const struct node *n)
{
    struct value of, parts[3] = {{0}};
    TRY(eval_node(r, &of, n->a));
    if (n->b->kind == N_SLICE) {
        const struct node *part[3] = {n->b->a, n->b->b, n->b->c};
        for (int i = 0; i < 3; i++)
            if (part[i])
                TRY(eval_node(r, &parts[i], part[i]));
        r->line = n->line;
        return value_slice_of(r, out, &of, &parts[0], &parts[1], &parts[2]);
    }
    TRY(eval_node(r, &parts[0], n->b));
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
        TRY(eval_node(r, &v, arg->a));
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
enum status run_capture(struct run *r, struct value *out, const struct node *body, struct frame *frame)
{
    struct text t, *outer_text = r->out;
    struct frame *outer = r->frame;
    enum flow flow = FLOW_NEXT;
    text_init(&t, r);
    TRY(run_deeper(r));
    r->out = &t;
    r->frame = frame;
    enum status st = exec_body(r, &flow, body);
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
    TRY(run_assign(r, SYM_VARARGS, &rest));
    return run_assign(r, SYM_KWARGS, &named);
}

static enum status call_macro(struct run *r, struct value *out, const struct macro *m, const struct args *args)
{
    struct frame *outer = r->frame, *frame = run_frame_new(r, m->closure);
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
            TRY(eval_node(r, &v, p->a));
        for (size_t k = 0; k < args->n_named; k++)
            if (str_eq(value_str(&args->named[k].key), name)) {
                v = args->named[k].value;
                taken[k] = true;
            }
        TRY(run_assign(r, p->sym, &v));
    }
    for (size_t k = 0; k < args->n_named; k++)
        if (!taken[k] && str_is(value_str(&args->named[k].key), "caller")) {
            TRY(run_assign(r, SYM_CALLER, &args->named[k].value));
            taken[k] = true;
        }
    TRY(bind_rest(r, args, i < args->n ? i : args->n, taken, m->node->op));
    r->frame = outer;
    return run_capture(r, out, m->node->c, frame);
}

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

static enum status call_value(struct run *r, struct value *out, const struct value *callee, const struct args *args)
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
        return eval_node(r, out, n);
    TRY(eval_node(r, &of, n->a));
    r->line = n->line;
    TRY(value_attr(r, out, &of, name_of(r, n->sym)));
    if (out->type == V_UNDEFINED && of.type != V_DICT && of.type != V_NAMESPACE)
        return run_error(r, ST_UNSUPPORTED, "the method '%.*s' of %s is not offered", STR_ARG(name_of(r, n->sym)),
                         value_type_name(&of));
    return ST_OK;
}

enum status eval_call(struct run *r, struct value *out, const struct node *n, const struct value *caller)
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
enum status eval_filter(struct run *r, struct value *out, const struct node *n, const struct value *input)
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
        TRY(eval_node(r, &v, n->a));
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
    TRY(eval_node(r, &v, n->a));
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
    TRY(eval_node(r, &condition, n->b));
    if (value_truth(&condition))
        return eval_node(r, out, n->a);
    if (n->c)
        return eval_node(r, out, n->c);
    *out = value_own("the expression without an else");
    out->type = V_UNDEFINED;
    return ST_OK;
}

static enum status eval_attr(struct run *r, struct value *out, const struct node *n)
{
    struct value of;
    TRY(eval_node(r, &of, n->a));
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

enum status eval_node(struct run *r, struct value *out, const struct node *n)
{
    TRY(run_step(r, 1));
    TRY(run_enter(r));
    r->line = n->line;
    TRY(eval_inner(r, out, n));
    run_leave(r);
    return ST_OK;
}
