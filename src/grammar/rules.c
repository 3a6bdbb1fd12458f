/* rules - bodies with calls become automata in which nothing calls itself before it has read a byte
 *
 * 1. A call of what may be empty gets an empty edge beside it, so that no automaton ever ends where it began.
 * 2. Rules that no cycle goes through are written out where they are called, as far as that stays small.
 * 3. Rules that call themselves first (directly or in a circle) are joined: A is any beginning of the circle that calls
 *    nobody of it first, and then, as long as B has been read and C goes on after a first B, the rest of C.
 */
#include "grammar/private.h"

enum { INLINE_STATES_MAX = 3000 };

static struct ast *shift_calls(struct ast *a, uint32_t by)
{
    for (struct ast *c = a; c; c = c->next) {
        if (c->kind == AST_CALL)
            c->callee += by;
        if (c->child)
            shift_calls(c->child, by);
    }
    return a;
}

bool rules_join(struct rules *r, const struct rules *own)
{
    uint32_t by = (uint32_t)r->rules.n;
    for (size_t i = 0; i < own->rules.n; i++) {
        struct rule *rule = VEC_ADD(r->b, &r->rules);
        if (!rule)
            return false;
        *rule = own->rules.at[i];
        rule->name = (struct str){"", 0};
        shift_calls(rule->body, by);
    }
    return true;
}

/* ---- what may be empty ---- */

static bool ast_nullable(const struct ast *a, const bool *nullable)
{
    switch (a->kind) {
    case AST_EMPTY:
    case AST_BEGIN:
    case AST_END:
        return true;
    case AST_TEXT:
        return a->text.len == 0;
    case AST_CAT:
        for (const struct ast *c = a->child; c; c = c->next)
            if (!ast_nullable(c, nullable))
                return false;
        return true;
    case AST_ALT:
        for (const struct ast *c = a->child; c; c = c->next)
            if (ast_nullable(c, nullable))
                return true;
        return false;
    case AST_REPEAT:
        return a->min == 0 || ast_nullable(a->child, nullable);
    case AST_CALL:
        return !(a->callee & CALL_TYPE) && nullable[a->callee];
    case AST_DFA:
        return !dfa_empty(a->dfa) && a->dfa->accept[DFA_START];
    case AST_CLASS:
    case AST_LOOK:
        break;
    }
    return false;
}

static bool find_nullable(struct rules *r, bool *nullable)
{
    for (bool changed = true; changed;) {
        changed = false;
        if (!build_step(r->b, 10 * r->rules.n))
            return false;
        for (size_t i = 0; i < r->rules.n; i++)
            if (!nullable[i] && ast_nullable(r->rules.at[i].body, nullable))
                nullable[i] = changed = true;
    }
    return true;
}

/* ---- automata ---- */
struct compiler {
    struct build *b;
    struct rules *r;
    bool *nullable, *cyclic; /* [rules] */
    struct dfa **dfas;
    uint8_t *color; /* 0 new, 1 open, 2 done */
    uint32_t *order, n_order;
};

static void add_calls(const struct ast *a, bool *calls)
{
    for (; a; a = a->next) {
        if (a->kind == AST_CALL && !(a->callee & CALL_TYPE))
            calls[a->callee] = true;
        if (a->child)
            add_calls(a->child, calls);
    }
}

/* Depth first, on a stack of our own: callees come before callers in `order`; who is met while open is in a cycle. */
static bool sort_rules(struct compiler *c)
{
    size_t n = c->r->rules.n;
    bool *calls = build_temp(c->b, n * n, 1); /* rules are few: the source is at most a megabyte */
    uint32_t *stack = build_temp(c->b, n + 1, sizeof *stack), *next = build_temp(c->b, n, sizeof *next);
    if (!calls || !stack || !next || !build_step(c->b, n * n))
        return false;
    for (size_t i = 0; i < n; i++)
        add_calls(c->r->rules.at[i].body, calls + i * n);
    for (uint32_t root = 0; root < n; root++) {
        uint32_t top = 0;
        if (c->color[root])
            continue;
        stack[top++] = root;
        c->color[root] = 1;
        while (top) {
            uint32_t at = stack[top - 1], k = next[at];
            while (k < n && !calls[at * n + k])
                k++;
            next[at] = k + 1;
            if (k >= n) {
                c->color[at] = 2;
                c->order[c->n_order++] = at;
                top--;
            } else if (c->color[k] == 0) {
                c->color[k] = 1;
                stack[top++] = k;
            }
        }
    }
    /* A rule is in a cycle when it reaches itself: closure over few rules. */
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < n; i++)
            if (calls[i * n + k]) {
                if (!build_step(c->b, n / 8 + 1))
                    return false;
                for (size_t j = 0; j < n; j++)
                    calls[i * n + j] |= calls[k * n + j];
            }
    for (size_t i = 0; i < n; i++)
        c->cyclic[i] = calls[i * n + i];
    return true;
}

/* Beside each call of what may be empty, an empty edge; a call that is written out needs none. */
static bool expand_calls(struct compiler *c, struct nfa *n, bool inline_calls)
{
    size_t spent = 0;
    for (uint32_t from = 1; from < n->nodes.n; from++)
        for (uint32_t e = n->nodes.at[from].first; e; e = n->edges.at[e].next) {
            struct nfa_edge edge = n->edges.at[e];
            if (edge.kind != EDGE_CALL || edge.callee & CALL_TYPE)
                continue;
            const struct dfa *d = c->dfas[edge.callee];
            if (inline_calls && !c->cyclic[edge.callee] && d && spent + d->n_state <= INLINE_STATES_MAX) {
                spent += d->n_state;
                uint32_t dead = nfa_node(n); /* the call itself goes nowhere */
                if (!dead || !nfa_embed(n, d, from, edge.to))
                    return false;
                n->edges.at[e].to = dead;
                n->edges.at[e].kind = EDGE_EMPTY;
            } else if (c->nullable[edge.callee] && !nfa_edge(n, from, edge.to, EDGE_EMPTY, 0, 0)) {
                return false;
            }
        }
    return true;
}

static struct dfa *compile_rule(struct compiler *c, const struct ast *body, bool inline_calls)
{
    struct nfa n;
    uint32_t from, to;
    if (!nfa_init(&n, c->b) || !(from = nfa_node(&n)) || !(to = nfa_node(&n)) || !nfa_emit(&n, body, from, to) ||
        !expand_calls(c, &n, inline_calls))
        return NULL;
    n.nodes.at[to].tag = 1;
    return dfa_of_nfa(&n, from);
}

/* Written out, it may need too many states: then its calls stay calls. */
static struct dfa *compile_small(struct compiler *c, const struct ast *body)
{
    struct error *err = c->b->err, ignored;
    uint64_t steps = c->b->steps_left, some = steps / 4;
    c->b->err = &ignored;
    c->b->steps_left = some;
    struct dfa *d = compile_rule(c, body, true);
    uint64_t spent = some - c->b->steps_left;
    c->b->err = err;
    c->b->steps_left = steps - spent;
    if (d || c->b->status != ST_LIMIT) {
        if (!d && err)
            *err = ignored;
        return d;
    }
    c->b->status = ST_OK;
    return compile_rule(c, body, false);
}

/* ---- left recursion ---- */

static bool calls_first(const struct dfa *d, uint32_t callee)
{
    for (uint32_t i = d->call_at ? d->call_at[DFA_START] : 0; d->call_at && i < d->call_at[DFA_START + 1]; i++)
        if (d->calls[i].callee == callee)
            return true;
    return false;
}

/* reach[i * n + j]: i calls j before reading anything, through others or not. */
static bool find_left_calls(struct compiler *c, bool *reach)
{
    size_t n = c->r->rules.n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            if (!dfa_empty(c->dfas[i]) && c->dfas[i]->call_at)
                reach[i * n + j] = calls_first(c->dfas[i], (uint32_t)j);
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < n; i++)
            if (reach[i * n + k]) {
                if (!build_step(c->b, n / 8 + 1))
                    return false;
                for (size_t j = 0; j < n; j++)
                    reach[i * n + j] |= reach[k * n + j];
            }
    return true;
}

/* The edges of the start state, from `node`, but for calls of the circle's members. */
static bool copy_start(struct nfa *n, uint32_t node, const struct dfa *d, uint32_t base, const bool *member)
{
    for (int lo = 0, hi; lo < 256; lo = hi) {
        uint32_t target = dfa_next(d, DFA_START, (uint8_t)lo);
        for (hi = lo + 1; hi < 256 && dfa_next(d, DFA_START, (uint8_t)hi) == target; hi++)
            ;
        if (target && !nfa_edge(n, node, base + target, EDGE_BYTES, (unsigned)lo, (unsigned)hi - 1))
            return false;
    }
    for (uint32_t i = d->call_at ? d->call_at[DFA_START] : 0; d->call_at && i < d->call_at[DFA_START + 1]; i++)
        if (d->calls[i].callee & CALL_TYPE || !member[d->calls[i].callee])
            if (!nfa_call(n, node, base + d->calls[i].to, d->calls[i].callee))
                return false;
    return true;
}

static struct dfa *join_circle(struct compiler *c, uint32_t rule, const bool *member)
{
    size_t n_rule = c->r->rules.n;
    struct nfa n;
    uint32_t *hub = build_temp(c->b, n_rule, sizeof *hub), *base = build_temp(c->b, n_rule, sizeof *base), start;
    if (!hub || !base || !nfa_init(&n, c->b) || !(start = nfa_node(&n)))
        return NULL;
    for (size_t i = 0; i < n_rule; i++)
        if (member[i] && !(hub[i] = nfa_node(&n)))
            return NULL;
    for (size_t i = 0; i < n_rule; i++) {
        const struct dfa *d = c->dfas[i];
        uint32_t nowhere = member[i] ? nfa_node(&n) : 0;
        if (!member[i] || dfa_empty(d))
            continue;
        base[i] = (uint32_t)n.nodes.n - 1;
        if (!nfa_embed(&n, d, nowhere, hub[i]) || !copy_start(&n, start, d, base[i], member) ||
            (d->accept[DFA_START] && !nfa_edge(&n, start, hub[i], EDGE_EMPTY, 0, 0)))
            return NULL;
    }
    for (size_t i = 0; i < n_rule; i++) {
        const struct dfa *d = c->dfas[i];
        for (uint32_t k = member[i] && d->call_at ? d->call_at[DFA_START] : 0;
             member[i] && d->call_at && k < d->call_at[DFA_START + 1]; k++) {
            uint32_t callee = d->calls[k].callee;
            if (!(callee & CALL_TYPE) && member[callee] &&
                !nfa_edge(&n, hub[callee], base[i] + d->calls[k].to, EDGE_EMPTY, 0, 0))
                return NULL;
        }
    }
    n.nodes.at[hub[rule]].tag = 1;
    return dfa_of_nfa(&n, start);
}

static bool remove_left_recursion(struct compiler *c)
{
    size_t n = c->r->rules.n;
    bool *reach = build_temp(c->b, n * n, 1), *member = build_temp(c->b, n, 1);
    struct dfa **joined = build_temp(c->b, n, sizeof *joined);
    if (!reach || !member || !joined || !find_left_calls(c, reach))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!reach[i * n + i])
            continue;
        for (size_t j = 0; j < n; j++)
            member[j] = reach[i * n + j] && reach[j * n + i];
        joined[i] = join_circle(c, (uint32_t)i, member);
        if (!joined[i])
            return false;
    }
    for (size_t i = 0; i < n; i++)
        c->dfas[i] = joined[i] ? joined[i] : c->dfas[i];
    return true;
}

/* Can the rule end, with calls only of those that are known to? Forwards from its start. */
static bool can_end(struct compiler *c, const struct dfa *d, const bool *productive, const bool *type_empty,
                    uint32_t *stack, bool *seen)
{
    uint32_t n = 0;
    memset(seen, 0, d->n_state);
    if (!dfa_empty(d))
        seen[stack[n++] = DFA_START] = true;
    while (n && build_step(c->b, d->n_class)) {
        uint32_t s = stack[--n];
        if (d->accept[s])
            return true;
        for (uint32_t i = 0; i < d->n_class; i++) {
            uint32_t to = d->next[(size_t)s * d->n_class + i];
            if (to && !seen[to])
                seen[stack[n++] = to] = true;
        }
        for (uint32_t i = d->call_at ? d->call_at[s] : 0; d->call_at && i < d->call_at[s + 1]; i++) {
            uint32_t callee = d->calls[i].callee, to = d->calls[i].to;
            bool ends = callee & CALL_TYPE ? !type_empty[callee & ~CALL_TYPE] : productive[callee];
            if (ends && !seen[to])
                seen[stack[n++] = to] = true;
        }
    }
    return false;
}

/* A call that can never be completed is no way on. */
static bool remove_unproductive(struct compiler *c, const bool *type_empty)
{
    size_t n = c->r->rules.n;
    uint32_t most = 1;
    for (size_t i = 0; i < n; i++)
        most = c->dfas[i]->n_state > most ? c->dfas[i]->n_state : most;
    bool *productive = build_temp(c->b, n, 1), *seen = build_temp(c->b, most, 1);
    uint32_t *stack = build_temp(c->b, most, sizeof *stack);
    if (!productive || !seen || !stack)
        return false;
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < n; i++)
            if (!productive[i] && can_end(c, c->dfas[i], productive, type_empty, stack, seen))
                productive[i] = changed = true;
    }
    for (size_t i = 0; i < n && c->b->status == ST_OK; i++) {
        struct dfa *d = c->dfas[i];
        for (uint32_t k = 0; d->call_at && k < d->call_at[d->n_state]; k++) {
            uint32_t callee = d->calls[k].callee;
            if (callee & CALL_TYPE ? type_empty[callee & ~CALL_TYPE] : !productive[callee])
                d->calls[k].to = 0;
        }
        if (!dfa_trim(c->b, d, NULL))
            return false;
    }
    return c->b->status == ST_OK;
}

bool rules_compile(struct rules *r, struct dfa **dfas, const bool *type_empty)
{
    size_t n = r->rules.n;
    struct compiler c = {.b = r->b,
                         .r = r,
                         .nullable = build_temp(r->b, n, 1),
                         .cyclic = build_temp(r->b, n, 1),
                         .color = build_temp(r->b, n, 1),
                         .order = build_temp(r->b, n, sizeof *c.order),
                         .dfas = dfas};
    if (r->b->status != ST_OK || !find_nullable(r, c.nullable) || !sort_rules(&c))
        return false;
    for (uint32_t i = 0; i < c.n_order; i++) {
        uint32_t rule = c.order[i];
        const struct ast *body = r->rules.at[rule].body;
        if (body->kind == AST_DFA) {
            dfas[rule] = build_keep(r->b, 1, sizeof *dfas[rule]);
            if (dfas[rule])
                *dfas[rule] = *body->dfa;
        } else {
            dfas[rule] = compile_small(&c, body);
        }
        if (!dfas[rule])
            return false;
    }
    return remove_unproductive(&c, type_empty) && remove_left_recursion(&c);
}
