/* parse_body - the statements of a template: text, {{ }} and tags, up to the tag that ends a body */
#include "chat/parse.h"

static enum status parse_body(struct parser *p, struct node **out, const char *const *ends);

static enum status parse_target(struct parser *p, struct node **out, bool with_namespace)
{
    if (with_namespace && p->at->type == T_NAME && p->at[1].type == T_OP && p->at[1].op == '.') {
        if (!(*out = parse_node(p, N_NSREF)))
            return ST_NOMEM;
        TRY(parse_expect_symbol(p, &(*out)->sym));
        p->at++;
        return parse_expect_symbol(p, &(*out)->sym2);
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
    for (*which = 0; ends[*which] && !parse_is_name(p, ends[*which]); ++*which)
        ;
    p->at++;
    return ST_OK;
}

static enum status parse_if(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    int which = 0;
    do {
        if (!(*out = parse_node(p, N_IF)))
            return ST_NOMEM;
        TRY(parse_tuple(p, &(*out)->a, TUPLE_NO_CONDITION));
        TRY(parse_block_end(p));
        TRY(parse_body_to(p, &(*out)->b, ends, &which));
        out = &(*out)->c;
    } while (which == 0);
    if (which == 1) {
        TRY(parse_block_end(p));
        TRY(parse_body_to(p, out, last, &which));
    }
    return parse_block_end(p);
}

static enum status parse_for(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_FOR);
    if (!n)
        return ST_NOMEM;
    TRY(parse_target(p, &n->a, false));
    if (!parse_skip_name(p, "in"))
        return parse_syntax(p, "'in'");
    TRY(parse_tuple(p, &n->b, TUPLE_NO_CONDITION | TUPLE_ITERABLE));
    if (parse_skip_name(p, "if"))
        TRY(parse_expression(p, &n->e));
    n->op = parse_skip_name(p, "recursive");
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    if (which == 0) {
        TRY(parse_block_end(p));
        TRY(parse_body_to(p, &n->d, last, &which));
    }
    return parse_block_end(p);
}

static enum status parse_set(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endset", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_SET);
    if (!n)
        return ST_NOMEM;
    TRY(parse_target(p, &n->a, true));
    if (parse_skip_op(p, '=')) {
        TRY(parse_tuple(p, &n->b, 0));
        return parse_block_end(p);
    }
    n->kind = N_SET_BLOCK;
    TRY(parse_filters(p, &n->b, false));
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return parse_block_end(p);
}

static enum status parse_params(struct parser *p, struct node **tail)
{
    TRY(parse_expect_op(p, '(', "'('"));
    while (!parse_is_op(p, ')')) {
        if (!(*tail = parse_node(p, N_PARAM)))
            return ST_NOMEM;
        TRY(parse_expect_symbol(p, &(*tail)->sym));
        if (parse_skip_op(p, '='))
            TRY(parse_expression(p, &(*tail)->a));
        tail = &(*tail)->next;
        if (!parse_skip_op(p, ',') && !parse_is_op(p, ')'))
            return parse_syntax(p, "',' or ')'");
    }
    p->at++;
    return ST_OK;
}

static enum status parse_macro(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endmacro", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_MACRO);
    if (!n)
        return ST_NOMEM;
    p->wants_rest = false;
    TRY(parse_expect_symbol(p, &n->sym));
    TRY(parse_params(p, &n->a));
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    n->op = p->wants_rest;
    if (parse_is_name(p, p->t->names[n->sym].ptr)) /* {% endmacro name %} */
        p->at++;
    return parse_block_end(p);
}

static enum status parse_call_block(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endcall", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_CALL_BLOCK);
    if (!n || !(n->a = parse_node(p, N_MACRO)))
        return ST_NOMEM;
    n->a->sym = SYM_CALLER;
    if (parse_is_op(p, '('))
        TRY(parse_params(p, &n->a->a));
    TRY(parse_expression(p, &n->b));
    if (n->b->kind != N_CALL)
        return fail(p->err, ST_CORRUPT, "template line %u: expected a call after 'call'", n->line);
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->a->c, ends, &which));
    return parse_block_end(p);
}

static enum status parse_filter_block(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endfilter", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_FILTER_BLOCK);
    if (!n)
        return ST_NOMEM;
    TRY(parse_filters(p, &n->b, true));
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return parse_block_end(p);
}

static enum status parse_with(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endwith", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_WITH), **tail;
    if (!n)
        return ST_NOMEM;
    for (tail = &n->a; p->at->type != T_BLOCK_END; tail = &(*tail)->next) {
        if (!(*tail = parse_node(p, N_SET)) || !((*tail)->a = parse_node(p, N_NAME)))
            return ST_NOMEM;
        TRY(parse_expect_symbol(p, &(*tail)->a->sym));
        TRY(parse_expect_op(p, '=', "'='"));
        TRY(parse_expression(p, &(*tail)->b));
        if (!parse_skip_op(p, ',') && p->at->type != T_BLOCK_END)
            return parse_syntax(p, "',' or %}");
    }
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return parse_block_end(p);
}

static enum status parse_generation(struct parser *p, struct node **out)
{
    static const char *const ends[] = {"endgeneration", NULL};
    int which;
    struct node *n = *out = parse_node(p, N_SCOPE);
    if (!n)
        return ST_NOMEM;
    TRY(parse_block_end(p));
    TRY(parse_body_to(p, &n->c, ends, &which));
    return parse_block_end(p);
}

static enum status parse_break(struct parser *p, struct node **out)
{
    *out = parse_node(p, p->at[-1].text.ptr[0] == 'b' ? N_BREAK : N_CONTINUE);
    return *out ? parse_block_end(p) : ST_NOMEM;
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
        return parse_syntax(p, "a tag's name");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (str_is(name, tags[i].name)) {
            p->at++;
            TRY(parse_enter(p));
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
            if (!(*out = parse_node(p, N_TEXT)))
                return ST_NOMEM;
            (*out)->value = (struct value){.type = V_STR, .s = p->at->text.ptr, .len = (uint32_t)p->at->text.len};
            p->at++;
        } else if (p->at->type == T_VAR_BEGIN) {
            p->at++;
            if (!(*out = parse_node(p, N_PRINT)))
                return ST_NOMEM;
            TRY(parse_tuple(p, &(*out)->a, 0));
            if (p->at->type != T_VAR_END)
                return parse_syntax(p, "}}");
            p->at++;
        } else {
            p->at++;
            for (size_t i = 0; ends && ends[i]; i++)
                if (parse_is_name(p, ends[i]))
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
