/* exec - the statements of a template; eval.c says what bounds them */
#include "chat/eval.h"

static enum status exec_print(struct run *r, const struct node *n)
{
    struct value v;
    TRY(eval_node(r, &v, n->a));
    r->line = n->line;
    return value_to_text(r->out, &v);
}

static enum status exec_if(struct run *r, enum flow *flow, const struct node *n)
{
    for (; n && n->kind == N_IF; n = n->c) {
        struct value v;
        TRY(eval_node(r, &v, n->a));
        if (value_truth(&v))
            return exec_body(r, flow, n->b);
        if (!n->c || n->c->kind != N_IF || n->c->next)
            return exec_body(r, flow, n->c);
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
    struct frame *f = n->e ? run_frame_new(r, r->frame) : NULL;
    if (n->e && !f)
        return r->err->status;
    for (size_t i = 0; i < count; i++) {
        struct value pass = value_bool(true);
        if (n->e) {
            r->frame = f;
            TRY(run_assign_target(r, n->a, &items[i]));
            TRY(eval_node(r, &pass, n->e));
            r->frame = f->parent;
        }
        if (value_truth(&pass))
            TRY(list_push(r, kept.list, &items[i]));
    }
    l->items = kept.list->items;
    l->n = kept.list->n;
    return ST_OK;
}

enum status run_loop(struct run *r, enum flow *flow, const struct node *n, const struct value *over, uint32_t depth)
{
    struct frame *outer = r->frame, *frame = run_frame_new(r, outer);
    struct value self = {.type = V_LOOP, .loop = run_alloc(r, sizeof(struct loop))};
    *flow = FLOW_NEXT;
    if (!frame || !self.loop)
        return r->err->status;
    TRY(run_deeper(r));
    *self.loop = (struct loop){.node = n, .frame = outer, .depth = depth};
    TRY(loop_items(r, self.loop, n, over));
    r->frame = frame;
    for (; self.loop->i < self.loop->n; self.loop->i++) {
        frame->n = 0;
        TRY(run_step(r, 1));
        TRY(run_assign(r, SYM_LOOP, &self));
        TRY(run_assign_target(r, n->a, &self.loop->items[self.loop->i]));
        TRY(exec_body(r, flow, n->c));
        if (*flow == FLOW_BREAK)
            break;
    }
    r->frame = outer;
    r->depth--;
    *flow = FLOW_NEXT;
    return self.loop->n == 0 && n->d ? exec_body(r, flow, n->d) : ST_OK;
}

static enum status exec_for(struct run *r, enum flow *flow, const struct node *n)
{
    struct value over;
    TRY(eval_node(r, &over, n->b));
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
    struct frame *f = run_frame_new(r, r->frame);
    return f ? run_capture(r, v, n->c, f) : r->err->status;
}

static enum status exec_with(struct run *r, enum flow *flow, const struct node *n)
{
    struct frame *outer = r->frame, *f = run_frame_new(r, outer);
    if (!f)
        return r->err->status;
    for (const struct node *set = n->a; set; set = set->next) {
        struct value v;
        TRY(eval_node(r, &v, set->b));
        r->frame = f;
        TRY(run_assign(r, set->a->sym, &v));
        r->frame = outer;
    }
    r->frame = f;
    TRY(exec_body(r, flow, n->c));
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
        TRY(eval_node(r, &v, n->b));
        return run_assign_target(r, n->a, &v);
    case N_MACRO:
        TRY(macro_new(r, &v, n));
        return run_assign(r, n->sym, &v);
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
        return n->kind == N_SET_BLOCK ? run_assign_target(r, n->a, &filtered) : value_to_text(r->out, &filtered);
    case N_WITH:
        return exec_with(r, flow, n);
    default:
        *flow = n->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        return ST_OK;
    }
}

enum status exec_body(struct run *r, enum flow *flow, const struct node *n)
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
    return exec_body(r, &flow, r->t->body);
}
