/* parse - tokens to a syntax tree, following Jinja's own grammar and precedences
 *
 * or < and < not < comparison < + - < ~ < * / // % < ** < unary < postfix < filters and tests. Keywords are names, so
 * that "if" may be a variable. Recursion is bounded by PARSE_DEPTH_MAX.
 */
#include "chat/parse.h"

enum { PARSE_DEPTH_MAX = 200 };

static enum status parse_unary(struct parser *p, struct node **out, bool with_filter);
static enum status parse_or(struct parser *p, struct node **out);

enum status parse_syntax(struct parser *p, const char *expected)
{
    const struct token *t = p->at;
    static const char *const names[] = {
        "text", "{{", "}}", "{%", "%}", NULL, "a string", "a number", "a number", NULL, "the end of the template"};
    if (names[t->type])
        return fail(p->err, ST_CORRUPT, "template line %u: expected %s, found %s", t->line, expected, names[t->type]);
    return fail(p->err, ST_CORRUPT, "template line %u: expected %s, found '%.*s'", t->line, expected, STR_ARG(t->text));
}

struct node *parse_node(struct parser *p, enum node_kind kind)
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

enum status parse_enter(struct parser *p)
{
    if (++p->depth > PARSE_DEPTH_MAX)
        return fail(p->err, ST_LIMIT, "template line %u: nested deeper than %d (depth)", p->at->line, PARSE_DEPTH_MAX);
    return ST_OK;
}

bool parse_is_op(const struct parser *p, int op)
{
    return p->at->type == T_OP && p->at->op == op;
}

bool parse_is_name(const struct parser *p, const char *name)
{
    return p->at->type == T_NAME && str_is(p->at->text, name);
}

bool parse_skip_op(struct parser *p, int op)
{
    bool is = parse_is_op(p, op);
    p->at += is;
    return is;
}

bool parse_skip_name(struct parser *p, const char *name)
{
    bool is = parse_is_name(p, name);
    p->at += is;
    return is;
}

enum status parse_expect_op(struct parser *p, int op, const char *what)
{
    return parse_skip_op(p, op) ? ST_OK : parse_syntax(p, what);
}

enum status parse_expect_symbol(struct parser *p, uint32_t *out)
{
    if (p->at->type != T_NAME)
        return parse_syntax(p, "a name");
    TRY(template_intern(out, p->t, p->at->text, p->err));
    p->at++;
    return ST_OK;
}

enum status parse_block_end(struct parser *p)
{
    if (p->at->type != T_BLOCK_END)
        return parse_syntax(p, "%}");
    p->at++;
    return ST_OK;
}

static enum status binary(struct parser *p, struct node **out, enum node_kind kind, int op, struct node *a,
                          struct node *b)
{
    struct node *n = parse_node(p, kind);
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
    if (!(*out = parse_node(p, N_CONST)))
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
    if (!s || !(*out = parse_node(p, N_CONST)))
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
    if (!(*out = parse_node(p, N_NAME)))
        return ST_NOMEM;
    TRY(parse_expect_symbol(p, &(*out)->sym));
    p->wants_rest |= (*out)->sym == SYM_VARARGS || (*out)->sym == SYM_KWARGS;
    return ST_OK;
}

/* Elements up to `close`, which is taken; a dict's are key, value, key, value ... */
static enum status parse_items(struct parser *p, struct node **out, enum node_kind kind, char close)
{
    if (!(*out = parse_node(p, kind)))
        return ST_NOMEM;
    struct node **tail = &(*out)->a;
    p->at++;
    while (!parse_is_op(p, close)) {
        TRY(parse_expression(p, tail));
        tail = &(*tail)->next;
        if (kind == N_DICT) {
            TRY(parse_expect_op(p, ':', "':'"));
            TRY(parse_expression(p, tail));
            tail = &(*tail)->next;
        }
        if (!parse_skip_op(p, ',') && !parse_is_op(p, close))
            return parse_syntax(p, close == ']' ? "',' or ']'" : "',' or '}'");
    }
    p->at++;
    return ST_OK;
}

static enum status parse_primary(struct parser *p, struct node **out);

static bool tuple_ends(const struct parser *p, int flags)
{
    return p->at->type == T_VAR_END || p->at->type == T_BLOCK_END || parse_is_op(p, ')') || parse_is_op(p, '=') ||
           ((flags & TUPLE_ITERABLE) && parse_is_name(p, "recursive"));
}

/* One expression, or several with commas, which make a tuple. */
enum status parse_tuple(struct parser *p, struct node **out, int flags)
{
    struct node *first = NULL, **tail = &first;
    bool is_tuple = false;
    for (;;) {
        if (tuple_ends(p, flags) || ((flags & TUPLE_TARGET) && parse_is_name(p, "in") && first))
            break;
        if (flags & TUPLE_TARGET)
            TRY(parse_primary(p, tail));
        else
            TRY(flags & TUPLE_NO_CONDITION ? parse_or(p, tail) : parse_expression(p, tail));
        tail = &(*tail)->next;
        if (!parse_skip_op(p, ','))
            break;
        is_tuple = true;
    }
    if (!is_tuple && first) {
        *out = first;
        return ST_OK;
    }
    if (!is_tuple && !(flags & TUPLE_PARENTHESES))
        return parse_syntax(p, "an expression");
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
    if (parse_is_op(p, '[') || parse_is_op(p, '{'))
        return parse_items(p, out, t->op == '[' ? N_LIST : N_DICT, t->op == '[' ? ']' : '}');
    if (!parse_skip_op(p, '('))
        return parse_syntax(p, "an expression");
    TRY(parse_enter(p));
    TRY(parse_tuple(p, out, TUPLE_PARENTHESES));
    p->depth--;
    return parse_expect_op(p, ')', "')'");
}

/* ---- postfix: subscripts, calls, filters, tests ---- */

static enum status parse_args(struct parser *p, struct node **out)
{
    struct node **tail = out;
    TRY(parse_expect_op(p, '(', "'('"));
    while (!parse_is_op(p, ')')) {
        struct node *arg = parse_node(p, N_ARG);
        if (!arg)
            return ST_NOMEM;
        if (parse_skip_op(p, '*')) {
            arg->op = '*';
        } else if (parse_skip_op(p, OP_POW)) {
            arg->op = OP_POW;
        } else if (p->at->type == T_NAME && p->at[1].type == T_OP && p->at[1].op == '=') {
            arg->op = 1;
            TRY(parse_expect_symbol(p, &arg->sym));
            p->at++;
        }
        TRY(parse_expression(p, &arg->a));
        *tail = arg;
        tail = &arg->next;
        if (!parse_skip_op(p, ',') && !parse_is_op(p, ')'))
            return parse_syntax(p, "',' or ')'");
    }
    p->at++;
    return ST_OK;
}

static enum status parse_slice_part(struct parser *p, struct node **out)
{
    return parse_is_op(p, ':') || parse_is_op(p, ']') || parse_is_op(p, ',') ? ST_OK : parse_expression(p, out);
}

static enum status parse_subscript(struct parser *p, struct node **out, struct node *of)
{
    struct node *n;
    if (parse_skip_op(p, '.')) {
        if (p->at->type == T_INT) {
            TRY(binary(p, out, N_ITEM, 0, of, NULL));
            return parse_const(p, &(*out)->b, value_int(p->at->integer));
        }
        TRY(binary(p, out, N_ATTR, 0, of, NULL));
        return parse_expect_symbol(p, &(*out)->sym);
    }
    p->at++;
    TRY(binary(p, out, N_ITEM, 0, of, NULL));
    if (!(n = parse_node(p, N_SLICE)))
        return ST_NOMEM;
    TRY(parse_slice_part(p, &n->a));
    if (!parse_skip_op(p, ':')) {
        if (!n->a)
            return parse_syntax(p, "an expression");
        (*out)->b = n->a;
        return parse_expect_op(p, ']', "']'");
    }
    TRY(parse_slice_part(p, &n->b));
    if (parse_skip_op(p, ':'))
        TRY(parse_slice_part(p, &n->c));
    (*out)->b = n;
    return parse_expect_op(p, ']', "']'");
}

static enum status parse_postfix(struct parser *p, struct node **out)
{
    for (;;) {
        struct node *of = *out;
        if (parse_is_op(p, '.') || parse_is_op(p, '[')) {
            TRY(parse_subscript(p, out, of));
        } else if (parse_is_op(p, '(')) {
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
    TRY(parse_expect_symbol(p, out));
    while (parse_skip_op(p, '.')) {
        if (p->at->type != T_NAME)
            return parse_syntax(p, "a name");
        name.len = (size_t)(p->at->text.ptr + p->at->text.len - name.ptr);
        TRY(template_intern(out, p->t, name, p->err));
        p->at++;
    }
    return ST_OK;
}

/* Filters from the one at hand on: `first`, or behind a '|'. A filter block's first filter has no operand. */
enum status parse_filters(struct parser *p, struct node **out, bool first)
{
    while (first || parse_skip_op(p, '|')) {
        first = false;
        TRY(binary(p, out, N_FILTER, 0, *out, NULL));
        (*out)->line = p->at->line;
        TRY(parse_builtin_name(p, &(*out)->sym));
        if (parse_is_op(p, '('))
            TRY(parse_args(p, &(*out)->b));
    }
    return ST_OK;
}

static bool test_takes_argument(const struct parser *p)
{
    switch (p->at->type) {
    case T_NAME:
        return !parse_is_name(p, "else") && !parse_is_name(p, "or") && !parse_is_name(p, "and") &&
               !parse_is_name(p, "is");
    case T_STRING:
    case T_INT:
    case T_REAL:
        return true;
    default:
        return parse_is_op(p, '[') || parse_is_op(p, '{');
    }
}

static enum status parse_test(struct parser *p, struct node **out)
{
    p->at++;
    bool negated = parse_skip_name(p, "not");
    TRY(binary(p, out, N_TEST, 0, *out, NULL));
    struct node *test = *out;
    TRY(parse_builtin_name(p, &test->sym));
    if (parse_is_op(p, '(')) {
        TRY(parse_args(p, &test->b));
    } else if (test_takes_argument(p) && !parse_is_name(p, "if")) {
        if (!(test->b = parse_node(p, N_ARG)))
            return ST_NOMEM;
        TRY(parse_primary(p, &test->b->a));
        TRY(parse_postfix(p, &test->b->a));
    }
    return negated ? binary(p, out, N_UNARY, OP_NOT, test, NULL) : ST_OK;
}

static enum status parse_filter_expr(struct parser *p, struct node **out)
{
    for (;;) {
        if (parse_is_op(p, '|')) {
            TRY(parse_filters(p, out, false));
        } else if (parse_is_name(p, "is")) {
            TRY(parse_test(p, out));
        } else if (parse_is_op(p, '(')) {
            TRY(parse_postfix(p, out));
        } else {
            return ST_OK;
        }
    }
}

/* ---- operators ---- */

static enum status parse_unary(struct parser *p, struct node **out, bool with_filter)
{
    TRY(parse_enter(p));
    if (parse_is_op(p, '-') || parse_is_op(p, '+')) {
        int op = parse_is_op(p, '-') ? OP_NEG : OP_POS;
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
    while (parse_skip_op(p, OP_POW)) {
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
        if (parse_skip_op(p, ops[i]))
            return ops[i];
    if (parse_skip_name(p, "in"))
        return OP_IN;
    if (parse_is_name(p, "not") && p->at[1].type == T_NAME && str_is(p->at[1].text, "in")) {
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
    if (!parse_skip_name(p, "not"))
        return parse_compare(p, out);
    struct node *operand = NULL;
    TRY(parse_enter(p));
    TRY(parse_not(p, &operand));
    p->depth--;
    return binary(p, out, N_UNARY, OP_NOT, operand, NULL);
}

static enum status parse_and(struct parser *p, struct node **out)
{
    TRY(parse_not(p, out));
    while (parse_skip_name(p, "and")) {
        struct node *right = NULL;
        TRY(parse_not(p, &right));
        TRY(binary(p, out, N_BINARY, OP_AND, *out, right));
    }
    return ST_OK;
}

static enum status parse_or(struct parser *p, struct node **out)
{
    TRY(parse_and(p, out));
    while (parse_skip_name(p, "or")) {
        struct node *right = NULL;
        TRY(parse_and(p, &right));
        TRY(binary(p, out, N_BINARY, OP_OR, *out, right));
    }
    return ST_OK;
}

enum status parse_expression(struct parser *p, struct node **out)
{
    TRY(parse_enter(p));
    TRY(parse_or(p, out));
    while (parse_skip_name(p, "if")) {
        struct node *condition = NULL;
        TRY(parse_or(p, &condition));
        TRY(binary(p, out, N_TERNARY, 0, *out, condition));
        if (parse_skip_name(p, "else"))
            TRY(parse_expression(p, &(*out)->c));
    }
    p->depth--;
    return ST_OK;
}
