/* parse - tokens to a syntax tree, following Jinja's own grammar and precedences
 *
 * or < and < not < comparison < + - < ~ < * / // % < ** < unary < postfix < filters and tests. Keywords are names, so
 * that "if" may be a variable. Recursion is bounded by PARSE_DEPTH_MAX.
 */
#include "chat/template.h"

enum { PARSE_DEPTH_MAX = 200 };

struct parser {
    struct template *t;
    const struct token *at;
    struct error *err;
    int depth;
    bool wants_rest; /* the macro at hand mentions varargs or kwargs */
};

static enum status parse_expression(struct parser *p, struct node **out);
static enum status parse_unary(struct parser *p, struct node **out, bool with_filter);
static enum status parse_or(struct parser *p, struct node **out);
static enum status parse_body(struct parser *p, struct node **out, const char *const *ends);

static enum status syntax(struct parser *p, const char *expected)
{
    const struct token *t = p->at;
    static const char *const names[] = {
        "text", "{{", "}}", "{%", "%}", NULL, "a string", "a number", "a number", NULL, "the end of the template"};
    if (names[t->type])
        return fail(p->err, ST_CORRUPT, "template line %u: expected %s, found %s", t->line, expected, names[t->type]);
    return fail(p->err, ST_CORRUPT, "template line %u: expected %s, found '%.*s'", t->line, expected, STR_ARG(t->text));
}

static struct node *node_new(struct parser *p, enum node_kind kind)
{
    struct node *n = arena_alloc_zero(&p->t->arena, 1, sizeof *n);
    if (!n) {
        (void)fail_nomem(p->err, "a template's syntax tree");
        return NULL;
    }
    n->kind = (uint8_t)kind;
    n->line = p->at->line;
    return n;
}

static enum status enter(struct parser *p)
{
    if (++p->depth > PARSE_DEPTH_MAX)
        return fail(p->err, ST_LIMIT, "template line %u: nested deeper than %d (depth)", p->at->line, PARSE_DEPTH_MAX);
    return ST_OK;
}

static bool is_op(const struct parser *p, int op)
{
    return p->at->type == T_OP && p->at->op == op;
}

static bool is_name(const struct parser *p, const char *name)
{
    return p->at->type == T_NAME && str_is(p->at->text, name);
}

static bool skip_op(struct parser *p, int op)
{
    bool is = is_op(p, op);
    p->at += is;
    return is;
}

static bool skip_name(struct parser *p, const char *name)
{
    bool is = is_name(p, name);
    p->at += is;
    return is;
}

static enum status expect_op(struct parser *p, int op, const char *what)
{
    return skip_op(p, op) ? ST_OK : syntax(p, what);
}

static enum status expect_symbol(struct parser *p, uint32_t *out)
{
    if (p->at->type != T_NAME)
        return syntax(p, "a name");
    TRY(template_intern(out, p->t, p->at->text, p->err));
    p->at++;
    return ST_OK;
}

static enum status block_end(struct parser *p)
{
    if (p->at->type != T_BLOCK_END)
        return syntax(p, "%}");
    p->at++;
    return ST_OK;
}

static enum status binary(struct parser *p, struct node **out, enum node_kind kind, int op, struct node *a,
                          struct node *b)
{
    struct node *n = node_new(p, kind);
    if (!n)
        return ST_NOMEM;
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    n->line = a ? a->line : n->line;
    *out = n;
    return ST_OK;
}

/* ---- primaries ---- */

static enum status parse_const(struct parser *p, struct node **out, struct value v)
{
    if (!(*out = node_new(p, N_CONST)))
        return ST_NOMEM;
    (*out)->value = v;
    p->at++;
    return ST_OK;
}

static enum status parse_string(struct parser *p, struct node **out)
{
    size_t n = 0, count = 0;
    while (p->at[count].type == T_STRING)
        n += p->at[count++].text.len;
    char *s = arena_alloc(&p->t->arena, n + 1);
    if (!s || !(*out = node_new(p, N_CONST)))
        return fail_nomem(p->err, "a template's string");
    (*out)->value = (struct value){.type = V_STR, .s = s, .len = (uint32_t)n};
    for (; p->at->type == T_STRING; p->at++) {
        memcpy(s, p->at->text.ptr, p->at->text.len);
        s += p->at->text.len;
    }
    return ST_OK;
}

static enum status parse_name(struct parser *p, struct node **out)
{
    struct str s = p->at->text;
    if (str_is(s, "true") || str_is(s, "True") || str_is(s, "false") || str_is(s, "False"))
        return parse_const(p, out, value_bool(s.ptr[0] == 't' || s.ptr[0] == 'T'));
    if (str_is(s, "none") || str_is(s, "None"))
        return parse_const(p, out, value_of(V_NONE));
    if (!(*out = node_new(p, N_NAME)))
        return ST_NOMEM;
    TRY(expect_symbol(p, &(*out)->sym));
    p->wants_rest |= (*out)->sym == SYM_VARARGS || (*out)->sym == SYM_KWARGS;
    return ST_OK;
}

/* Elements up to `close`, which is taken; a dict's are key, value, key, value ... */
static enum status parse_items(struct parser *p, struct node **out, enum node_kind kind, char close)
{
    if (!(*out = node_new(p, kind)))
        return ST_NOMEM;
    struct node **tail = &(*out)->a;
    p->at++;
    while (!is_op(p, close)) {
        TRY(parse_expression(p, tail));
        tail = &(*tail)->next;
        if (kind == N_DICT) {
            TRY(expect_op(p, ':', "':'"));
            TRY(parse_expression(p, tail));
            tail = &(*tail)->next;
        }
        if (!skip_op(p, ',') && !is_op(p, close))
            return syntax(p, close == ']' ? "',' or ']'" : "',' or '}'");
    }
    p->at++;
    return ST_OK;
}

enum { TUPLE_PARENTHESES = 1, TUPLE_NO_CONDITION = 2, TUPLE_TARGET = 4, TUPLE_ITERABLE = 8 };

static enum status parse_primary(struct parser *p, struct node **out);

static bool tuple_ends(const struct parser *p, int flags)
{
    return p->at->type == T_VAR_END || p->at->type == T_BLOCK_END || is_op(p, ')') || is_op(p, '=') ||
           ((flags & TUPLE_ITERABLE) && is_name(p, "recursive"));
}

/* One expression, or several with commas, which make a tuple. */
static enum status parse_tuple(struct parser *p, struct node **out, int flags)
{
    struct node *first = NULL, **tail = &first;
    bool is_tuple = false;
    for (;;) {
        if (tuple_ends(p, flags) || ((flags & TUPLE_TARGET) && is_name(p, "in") && first))
            break;
        if (flags & TUPLE_TARGET)
            TRY(parse_primary(p, tail));
        else
            TRY(flags & TUPLE_NO_CONDITION ? parse_or(p, tail) : parse_expression(p, tail));
        tail = &(*tail)->next;
        if (!skip_op(p, ','))
            break;
        is_tuple = true;
    }
    if (!is_tuple && first) {
        *out = first;
        return ST_OK;
    }
    if (!is_tuple && !(flags & TUPLE_PARENTHESES))
        return syntax(p, "an expression");
    return binary(p, out, N_TUPLE, 0, first, NULL);
}

static enum status parse_primary(struct parser *p, struct node **out)
{
    const struct token *t = p->at;
    switch (t->type) {
    case T_NAME:
        return parse_name(p, out);
    case T_STRING:
        return parse_string(p, out);
    case T_INT:
        return parse_const(p, out, value_int(t->integer));
    case T_REAL:
        return parse_const(p, out, value_real(t->real));
    default:
        break;
    }
    if (is_op(p, '[') || is_op(p, '{'))
        return parse_items(p, out, t->op == '[' ? N_LIST : N_DICT, t->op == '[' ? ']' : '}');
    if (!skip_op(p, '('))
        return syntax(p, "an expression");
    TRY(enter(p));
    TRY(parse_tuple(p, out, TUPLE_PARENTHESES));
    p->depth--;
    return expect_op(p, ')', "')'");
}

/* ---- postfix: subscripts, calls, filters, tests ---- */

static enum status parse_args(struct parser *p, struct node **out)
{
    struct node **tail = out;
    TRY(expect_op(p, '(', "'('"));
    while (!is_op(p, ')')) {
        struct node *arg = node_new(p, N_ARG);
        if (!arg)
            return ST_NOMEM;
        if (skip_op(p, '*')) {
            arg->op = '*';
        } else if (skip_op(p, OP_POW)) {
            arg->op = OP_POW;
        } else if (p->at->type == T_NAME && p->at[1].type == T_OP && p->at[1].op == '=') {
            arg->op = 1;
            TRY(expect_symbol(p, &arg->sym));
            p->at++;
        }
        TRY(parse_expression(p, &arg->a));
        *tail = arg;
        tail = &arg->next;
        if (!skip_op(p, ',') && !is_op(p, ')'))
            return syntax(p, "',' or ')'");
    }
    p->at++;
    return ST_OK;
}

static enum status parse_slice_part(struct parser *p, struct node **out)
{
    return is_op(p, ':') || is_op(p, ']') || is_op(p, ',') ? ST_OK : parse_expression(p, out);
}

static enum status parse_subscript(struct parser *p, struct node **out, struct node *of)
{
    struct node *n;
    if (skip_op(p, '.')) {
        if (p->at->type == T_INT) {
            TRY(binary(p, out, N_ITEM, 0, of, NULL));
            return parse_const(p, &(*out)->b, value_int(p->at->integer));
        }
        TRY(binary(p, out, N_ATTR, 0, of, NULL));
        return expect_symbol(p, &(*out)->sym);
    }
    p->at++;
    TRY(binary(p, out, N_ITEM, 0, of, NULL));
    if (!(n = node_new(p, N_SLICE)))
        return ST_NOMEM;
    TRY(parse_slice_part(p, &n->a));
    if (!skip_op(p, ':')) {
        if (!n->a)
            return syntax(p, "an expression");
        (*out)->b = n->a;
        return expect_op(p, ']', "']'");
    }
    TRY(parse_slice_part(p, &n->b));
    if (skip_op(p, ':'))
        TRY(parse_slice_part(p, &n->c));
    (*out)->b = n;
    return expect_op(p, ']', "']'");
}

static enum status parse_postfix(struct parser *p, struct node **out)
{
    for (;;) {
        struct node *of = *out;
        if (is_op(p, '.') || is_op(p, '[')) {
            TRY(parse_subscript(p, out, of));
        } else if (is_op(p, '(')) {
            TRY(binary(p, out, N_CALL, 0, of, NULL));
            TRY(parse_args(p, &(*out)->b));
        } else {
            return ST_OK;
        }
    }
}

/* name(.name)*; dotted names exist in no table, and are refused by their whole name when reached. */
static enum status parse_builtin_name(struct parser *p, uint32_t *out)
{
    struct str name = p->at->text;
    TRY(expect_symbol(p, out));
    while (skip_op(p, '.')) {
        if (p->at->type != T_NAME)
            return syntax(p, "a name");
        name.len = (size_t)(p->at->text.ptr + p->at->text.len - name.ptr);
        TRY(template_intern(out, p->t, name, p->err));
        p->at++;
    }
    return ST_OK;
}

/* Filters from the one at hand on: `first`, or behind a '|'. A filter block's first filter has no operand. */
static enum status parse_filters(struct parser *p, struct node **out, bool first)
{
    while (first || skip_op(p, '|')) {
        first = false;
        TRY(binary(p, out, N_FILTER, 0, *out, NULL));
        (*out)->line = p->at->line;
        TRY(parse_builtin_name(p, &(*out)->sym));
        if (is_op(p, '('))
            TRY(parse_args(p, &(*out)->b));
    }
    return ST_OK;
}

static bool test_takes_argument(const struct parser *p)
{
    switch (p->at->type) {
    case T_NAME:
        return !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and") && !is_name(p, "is");
    case T_STRING:
    case T_INT:
    case T_REAL:
        return true;
    default:
        return is_op(p, '[') || is_op(p, '{');
    }
}

static enum status parse_test(struct parser *p, struct node **out)
{
    p->at++;
    bool negated = skip_name(p, "not");
    TRY(binary(p, out, N_TEST, 0, *out, NULL));
    struct node *test = *out;
    TRY(parse_builtin_name(p, &test->sym));
    if (is_op(p, '(')) {
        TRY(parse_args(p, &test->b));
    } else if (test_takes_argument(p) && !is_name(p, "if")) {
        if (!(test->b = node_new(p, N_ARG)))
            return ST_NOMEM;
        TRY(parse_primary(p, &test->b->a));
        TRY(parse_postfix(p, &test->b->a));
    }
    return negated ? binary(p, out, N_UNARY, OP_NOT, test, NULL) : ST_OK;
}

static enum status parse_filter_expr(struct parser *p, struct node **out)
{
    for (;;) {
        if (is_op(p, '|')) {
            TRY(parse_filters(p, out, false));
        } else if (is_name(p, "is")) {
            TRY(parse_test(p, out));
        } else if (is_op(p, '(')) {
            TRY(parse_postfix(p, out));
        } else {
            return ST_OK;
        }
    }
}

/* ---- operators ---- */

static enum status parse_unary(struct parser *p, struct node **out, bool with_filter)
{
    TRY(enter(p));
    if (is_op(p, '-') || is_op(p, '+')) {
        int op = is_op(p, '-') ? OP_NEG : OP_POS;
        struct node *operand = NULL;
        p->at++;
        TRY(parse_unary(p, &operand, false));
        TRY(binary(p, out, N_UNARY, op, operand, NULL));
    } else {
        TRY(parse_primary(p, out));
    }
    TRY(parse_postfix(p, out));
    if (with_filter)
        TRY(parse_filter_expr(p, out));
    p->depth--;
    return ST_OK;
}

static enum status parse_pow(struct parser *p, struct node **out)
{
    TRY(parse_unary(p, out, true));
    while (skip_op(p, OP_POW)) {
        struct node *right = NULL;
        TRY(parse_unary(p, &right, true));
        TRY(binary(p, out, N_BINARY, OP_POW, *out, right));
    }
    return ST_OK;
}

/* Left-associative levels, weakest first; below the last comes parse_pow. */
static const uint8_t levels[][5] = {{'+', '-'}, {'~'}, {'*', '/', OP_FLOORDIV, '%'}};
enum { LEVELS = sizeof levels / sizeof *levels };

static enum status parse_level(struct parser *p, struct node **out, size_t level)
{
    if (level == LEVELS)
        return parse_pow(p, out);
    TRY(parse_level(p, out, level + 1));
    while (p->at->type == T_OP && strchr((const char *)levels[level], p->at->op)) {
        int op = p->at->op;
        struct node *right = NULL;
        p->at++;
        TRY(parse_level(p, &right, level + 1));
        TRY(binary(p, out, N_BINARY, op, *out, right));
    }
    return ST_OK;
}

static int take_comparison(struct parser *p)
{
    static const uint8_t ops[] = {OP_EQ, OP_NE, OP_LE, OP_GE, '<', '>'};
    for (size_t i = 0; i < sizeof ops; i++)
        if (skip_op(p, ops[i]))
            return ops[i];
    if (skip_name(p, "in"))
        return OP_IN;
    if (is_name(p, "not") && p->at[1].type == T_NAME && str_is(p->at[1].text, "in")) {
        p->at += 2;
        return OP_NOT_IN;
    }
    return 0;
}

static enum status parse_compare(struct parser *p, struct node **out)
{
    struct node *chain = NULL, **tail = &chain;
    TRY(parse_level(p, out, 0));
    for (int op; (op = take_comparison(p)) != 0; tail = &(*tail)->next) {
        struct node *right = NULL;
        TRY(parse_level(p, &right, 0));
        TRY(binary(p, tail, N_OPERAND, op, right, NULL));
    }
    return chain ? binary(p, out, N_COMPARE, 0, *out, chain) : ST_OK;
}

static enum status parse_not(struct parser *p, struct node **out)
{
    if (!skip_name(p, "not"))
        return parse_compare(p, out);
    struct node *operand = NULL;
    TRY(enter(p));
    TRY(parse_not(p, &operand));
    p->depth--;
    return binary(p, out, N_UNARY, OP_NOT, operand, NULL);
}

static enum status parse_and(struct parser *p, struct node **out)
{
    TRY(parse_not(p, out));
    while (skip_name(p, "and")) {
        struct node *right = NULL;
        TRY(parse_not(p, &right));
        TRY(binary(p, out, N_BINARY, OP_AND, *out, right));
    }
    return ST_OK;
}

static enum status parse_or(struct parser *p, struct node **out)
{
    TRY(parse_and(p, out));
    while (skip_name(p, "or")) {
        struct node *right = NULL;
        TRY(parse_and(p, &right));
        TRY(binary(p, out, N_BINARY, OP_OR, *out, right));
    }
    return ST_OK;
}

static enum status parse_expression(struct parser *p, struct node **out)
{
    TRY(enter(p));
    TRY(parse_or(p, out));
    while (skip_name(p, "if")) {
        struct node *condition = NULL;
        TRY(parse_or(p, &condition));
        TRY(binary(p, out, N_TERNARY, 0, *out, condition));
        if (skip_name(p, "else"))
            TRY(parse_expression(p, &(*out)->c));
    }
    p->depth--;
    return ST_OK;
}

/* ---- statements ---- */

static enum status parse_target(struct parser *p, struct node **out, bool with_namespace)
{
    if (with_namespace && p->at->type == T_NAME && p->at[1].type == T_OP && p->at[1].op == '.') {
        if (!(*out = node_new(p, N_NSREF)))
            return ST_NOMEM;
        TRY(expect_symbol(p, &(*out)->sym));
        p->at++;
        return expect_symbol(p, &(*out)->sym2);
    }
    TRY(parse_tuple(p, out, TUPLE_TARGET));
    if ((*out)->kind != N_NAME && (*out)->kind != N_TUPLE)
        return fail(p->err, ST_CORRUPT, "template line %u: cannot assign to this; expected a name", (*out)->line);
    for (const struct node *n = (*out)->kind == N_TUPLE ? (*out)->a : NULL; n; n = n->next)
        if (n->kind != N_NAME)
            return fail(p->err, ST_CORRUPT, "template line %u: cannot assign to this; expected a name", n->line);
    return ST_OK;
}

/* A body up to one of `ends`, whose tag is taken; *which = its index. */
static enum status parse_body_to(struct parser *p, struct node **out, const char *const *ends, int *which)
{
    TRY(parse_body(p, out, ends));
    for (*which = 0; ends[*which] && !is_name(p, ends[*which]); ++*which)
        ;
    p->at++;
    return ST_OK;
}

static enum status parse_if(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    int which = 0;
    do {
        if (!(*out = node_new(p, N_IF)))
            return ST_NOMEM;
        TRY(parse_tuple(p, &(*out)->a, TUPLE_NO_CONDITION));
        TRY(block_end(p));
        TRY(parse_body_to(p, &(*out)->b, ends, &which));
        out = &(*out)->c;
    } while (which == 0);
    if (which == 1) {
        TRY(block_end(p));
        TRY(parse_body_to(p, out, last, &which));
    }
    return block_end(p);
}

static enum status parse_for(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    int which;
    struct node *n = *out = node_new(p, N_FOR);
    if (!n)
        return ST_NOMEM;
    TRY(parse_target(p, &n->a, false));
    if (!skip_name(p, "in"))
        return syntax(p, "'in'");
    TRY(parse_tuple(p, &n->b, TUPLE_NO_CONDITION | TUPLE_ITERABLE));
    if (skip_name(p, "if"))
        TRY(parse_expression(p, &n->e));
    n->op = skip_name(p, "recursive");
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    if (which == 0) {
        TRY(block_end(p));
        TRY(parse_body_to(p, &n->d, last, &which));
    }
    return block_end(p);
}

static enum status parse_set(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endset", NULL};
    int which;
    struct node *n = *out = node_new(p, N_SET);
    if (!n)
        return ST_NOMEM;
    TRY(parse_target(p, &n->a, true));
    if (skip_op(p, '=')) {
        TRY(parse_tuple(p, &n->b, 0));
        return block_end(p);
    }
    n->kind = N_SET_BLOCK;
    TRY(parse_filters(p, &n->b, false));
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return block_end(p);
}

static enum status parse_params(struct parser *p, struct node **tail)
{
    TRY(expect_op(p, '(', "'('"));
    while (!is_op(p, ')')) {
        if (!(*tail = node_new(p, N_PARAM)))
            return ST_NOMEM;
        TRY(expect_symbol(p, &(*tail)->sym));
        if (skip_op(p, '='))
            TRY(parse_expression(p, &(*tail)->a));
        tail = &(*tail)->next;
        if (!skip_op(p, ',') && !is_op(p, ')'))
            return syntax(p, "',' or ')'");
    }
    p->at++;
    return ST_OK;
}

static enum status parse_macro(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endmacro", NULL};
    int which;
    struct node *n = *out = node_new(p, N_MACRO);
    if (!n)
        return ST_NOMEM;
    p->wants_rest = false;
    TRY(expect_symbol(p, &n->sym));
    TRY(parse_params(p, &n->a));
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    n->op = p->wants_rest;
    if (is_name(p, p->t->names[n->sym].ptr)) /* {% endmacro name %} */
        p->at++;
    return block_end(p);
}

static enum status parse_call_block(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endcall", NULL};
    int which;
    struct node *n = *out = node_new(p, N_CALL_BLOCK);
    if (!n || !(n->a = node_new(p, N_MACRO)))
        return ST_NOMEM;
    n->a->sym = SYM_CALLER;
    if (is_op(p, '('))
        TRY(parse_params(p, &n->a->a));
    TRY(parse_expression(p, &n->b));
    if (n->b->kind != N_CALL)
        return fail(p->err, ST_CORRUPT, "template line %u: expected a call after 'call'", n->line);
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->a->c, ends, &which));
    return block_end(p);
}

static enum status parse_filter_block(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endfilter", NULL};
    int which;
    struct node *n = *out = node_new(p, N_FILTER_BLOCK);
    if (!n)
        return ST_NOMEM;
    TRY(parse_filters(p, &n->b, true));
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return block_end(p);
}

static enum status parse_with(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endwith", NULL};
    int which;
    struct node *n = *out = node_new(p, N_WITH), **tail;
    if (!n)
        return ST_NOMEM;
    for (tail = &n->a; p->at->type != T_BLOCK_END; tail = &(*tail)->next) {
        if (!(*tail = node_new(p, N_SET)) || !((*tail)->a = node_new(p, N_NAME)))
            return ST_NOMEM;
        TRY(expect_symbol(p, &(*tail)->a->sym));
        TRY(expect_op(p, '=', "'='"));
        TRY(parse_expression(p, &(*tail)->b));
        if (!skip_op(p, ',') && p->at->type != T_BLOCK_END)
            return syntax(p, "',' or %}");
    }
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return block_end(p);
}

static enum status parse_generation(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endgeneration", NULL};
    int which;
    struct node *n = *out = node_new(p, N_SCOPE);
    if (!n)
        return ST_NOMEM;
    TRY(block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return block_end(p);
}

static enum status parse_break(struct parser *p, struct node **out)
{
    *out = node_new(p, p->at[-1].text.ptr[0] == 'b' ? N_BREAK : N_CONTINUE);
    return *out ? block_end(p) : ST_NOMEM;
}

static const struct {
    const char *name;
    enum status (*parse)(struct parser *p, struct node **out);
} tags[] = {
    {"if", parse_if},           {"for", parse_for},
    {"set", parse_set},         {"macro", parse_macro},
    {"call", parse_call_block}, {"filter", parse_filter_block},
    {"with", parse_with},       {"generation", parse_generation},
    {"break", parse_break},     {"continue", parse_break},
};

static enum status parse_statement(struct parser *p, struct node **out)
{
    struct str name = p->at->text;
    if (p->at->type != T_NAME)
        return syntax(p, "a tag's name");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (str_is(name, tags[i].name)) {
            p->at++;
            TRY(enter(p));
            TRY(tags[i].parse(p, out));
            p->depth--;
            return ST_OK;
        }
    if (str_starts(name, STR("end")) || str_is(name, "else") || str_is(name, "elif"))
        return fail(p->err, ST_CORRUPT, "template line %u: '%.*s' without its beginning", p->at->line, STR_ARG(name));
    return fail(p->err, ST_UNSUPPORTED, "template line %u: the tag '%.*s' is not offered", p->at->line, STR_ARG(name));
}

static enum status parse_body(struct parser *p, struct node **out, const char *const *ends)
{
    uint32_t line = p->at->line;
    for (;; out = &(*out)->next) {
        if (p->at->type == T_EOF) {
            if (!ends)
                return ST_OK;
            return fail(p->err, ST_CORRUPT, "template line %u: '%s' is missing", line, ends[0]);
        }
        if (p->at->type == T_DATA) {
            if (!(*out = node_new(p, N_TEXT)))
                return ST_NOMEM;
            (*out)->value = (struct value){.type = V_STR, .s = p->at->text.ptr, .len = (uint32_t)p->at->text.len};
            p->at++;
        } else if (p->at->type == T_VAR_BEGIN) {
            p->at++;
            if (!(*out = node_new(p, N_PRINT)))
                return ST_NOMEM;
            TRY(parse_tuple(p, &(*out)->a, 0));
            if (p->at->type != T_VAR_END)
                return syntax(p, "}}");
            p->at++;
        } else {
            p->at++;
            for (size_t i = 0; ends && ends[i]; i++)
                if (is_name(p, ends[i]))
                    return ST_OK;
            TRY(parse_statement(p, out));
        }
    }
}

enum status template_parse_tokens(struct template *t, const struct token *tokens, size_t n, struct error *err)
{
    struct parser p = {.t = t, .at = tokens, .err = err};
    (void)n; /* the last token is T_EOF, which nothing steps over */
    return parse_body(&p, &t->body, NULL);
}
