/* parse - what the two halves of the parser share: expressions (parse.c) and statements (parse_body.c) */
#ifndef CHAT_PARSE_H
#define CHAT_PARSE_H

#include "chat/template.h"

struct parser {
    struct template *t;
    const struct token *at;
    struct error *err;
    int depth;
    bool wants_rest; /* the macro at hand mentions varargs or kwargs */
};

enum { TUPLE_PARENTHESES = 1, TUPLE_NO_CONDITION = 2, TUPLE_TARGET = 4, TUPLE_ITERABLE = 8 };

MUST_USE enum status parse_syntax(struct parser *p, const char *expected); /* fails: what was found instead */
struct node *parse_node(struct parser *p, enum node_kind kind);            /* NULL after filling p->err */
MUST_USE enum status parse_enter(struct parser *p);                        /* one level deeper; p->depth-- undoes it */
bool parse_is_op(const struct parser *p, int op);
bool parse_is_name(const struct parser *p, const char *name);
bool parse_skip_op(struct parser *p, int op);
bool parse_skip_name(struct parser *p, const char *name);
MUST_USE enum status parse_expect_op(struct parser *p, int op, const char *what);
MUST_USE enum status parse_expect_symbol(struct parser *p, uint32_t *out);
MUST_USE enum status parse_block_end(struct parser *p);
MUST_USE enum status parse_tuple(struct parser *p, struct node **out, int flags);
MUST_USE enum status parse_expression(struct parser *p, struct node **out);
MUST_USE enum status parse_filters(struct parser *p, struct node **out, bool first);

#endif
