/* eval - what walks the syntax tree: expressions (eval.c), operators (operate.c) and statements (exec.c) */
#ifndef CHAT_EVAL_H
#define CHAT_EVAL_H

#include "chat/strings.h"

enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

MUST_USE enum status operate_binary(struct run *r, struct value *out, int op, const struct value *a,
                                    const struct value *b);
MUST_USE enum status operate_compare(struct run *r, bool *out, int op, const struct value *a, const struct value *b);
MUST_USE enum status operate_sign(struct run *r, struct value *out, int op, const struct value *v); /* OP_NEG, OP_POS */

MUST_USE enum status eval_node(struct run *r, struct value *out, const struct node *n);
struct frame *run_frame_new(struct run *r, struct frame *parent); /* NULL after filling r->err */
MUST_USE enum status run_assign(struct run *r, uint32_t sym, const struct value *v);
MUST_USE enum status run_assign_target(struct run *r, const struct node *target, const struct value *v);
/* Runs a body into a string. */
MUST_USE enum status run_capture(struct run *r, struct value *out, const struct node *body, struct frame *frame);
MUST_USE enum status run_deeper(struct run *r); /* one more of loops, macros, captures; r->depth-- undoes it */
MUST_USE enum status eval_call(struct run *r, struct value *out, const struct node *n, const struct value *caller);
MUST_USE enum status eval_filter(struct run *r, struct value *out, const struct node *n, const struct value *input);
MUST_USE enum status exec_body(struct run *r, enum flow *flow, const struct node *n);
MUST_USE enum status run_loop(struct run *r, enum flow *flow, const struct node *n, const struct value *over,
                              uint32_t depth);

#endif
