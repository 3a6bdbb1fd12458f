/* nfa - an expression as nodes and edges over bytes; code points become their UTF-8 */
#include "grammar/private.h"

enum { NFA_NODES_MAX = 1 << 20 };

bool nfa_init(struct nfa *n, struct build *b)
{
    *n = (struct nfa){.b = b};
    struct nfa_node *none = VEC_ADD(b, &n->nodes); /* number 0 means none */
    struct nfa_edge *no_edge = none ? VEC_ADD(b, &n->edges) : NULL;
    return no_edge != NULL;
}

uint32_t nfa_node(struct nfa *n)
{
    if (n->nodes.n >= NFA_NODES_MAX) {
        build_fail(n->b, ST_LIMIT, "too large: more than %d positions once its repetitions are written out",
                   NFA_NODES_MAX);
        return 0;
    }
    struct nfa_node *node = build_step(n->b, 1) ? VEC_ADD(n->b, &n->nodes) : NULL;
    if (!node)
        return 0;
    *node = (struct nfa_node){0};
    return (uint32_t)(n->nodes.n - 1);
}

static bool edge_to(struct nfa *n, uint32_t from, struct nfa_edge e)
{
    struct nfa_edge *at = from && e.to && build_step(n->b, 1) ? VEC_ADD(n->b, &n->edges) : NULL;
    if (!at)
        return false;
    e.next = n->nodes.at[from].first;
    *at = e;
    n->nodes.at[from].first = (uint32_t)(n->edges.n - 1);
    return true;
}

bool nfa_edge(struct nfa *n, uint32_t from, uint32_t to, enum edge_kind kind, unsigned lo, unsigned hi)
{
    return edge_to(n, from, (struct nfa_edge){.to = to, .kind = (uint8_t)kind, .lo = (uint8_t)lo, .hi = (uint8_t)hi});
}

bool nfa_call(struct nfa *n, uint32_t from, uint32_t to, uint32_t callee)
{
    return edge_to(n, from, (struct nfa_edge){.to = to, .kind = EDGE_CALL, .callee = callee});
}

/* ---- UTF-8 ---- */

/* What follows a lead byte is nearly always any continuation: those nodes are shared, or each character of a string
 * would need three times the states. */
struct tails {
    uint32_t to, any[4]; /* any[k]: k more bytes of 80..BF lead to `to`; 0 = not made */
};

static uint32_t tail(struct nfa *n, struct tails *t, int more)
{
    if (more == 0 || t->any[more])
        return more ? t->any[more] : t->to;
    uint32_t next = tail(n, t, more - 1), node = next ? nfa_node(n) : 0;
    return t->any[more] = nfa_edge(n, node, next, EDGE_BYTES, 0x80, 0xBF) ? node : 0;
}

/* One run of code points whose encodings have `size` bytes, each byte within a range of its own. */
static bool add_sequence(struct nfa *n, uint32_t from, struct tails *t, const uint8_t *lo, const uint8_t *hi, int size)
{
    int fixed = size; /* bytes up to the last that is not any continuation */
    while (fixed > 1 && lo[fixed - 1] == 0x80 && hi[fixed - 1] == 0xBF)
        fixed--;
    for (int i = 0; i < fixed; i++) {
        uint32_t next = i == fixed - 1 ? tail(n, t, size - fixed) : nfa_node(n);
        if (!nfa_edge(n, from, next, EDGE_BYTES, lo[i], hi[i]))
            return false;
        from = next;
    }
    return true;
}

static int encode(uint8_t out[4], uint32_t c)
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    int size = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = size - 1; i > 0; i--, c >>= 6)
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)((size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0) | c);
    return size;
}

/* Splits [lo, hi] where the encoded length changes, then where continuation bytes are not the full 80..BF. */
static bool add_range(struct nfa *n, uint32_t from, struct tails *t, uint32_t lo, uint32_t hi)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF};
    while (lo <= hi) {
        uint32_t end = hi;
        for (int i = 0; i < 3; i++)
            if (lo <= ends[i] && end > ends[i])
                end = ends[i];
        for (unsigned bits = lo < 0x80 ? 0 : 6; bits && bits <= 18; bits += 6) {
            uint32_t mask = ((uint32_t)1 << bits) - 1;
            if ((lo & ~mask) == (end & ~mask))
                break;
            if (lo & mask) {
                end = lo | mask;
                break;
            }
            if ((end & mask) != mask) {
                end = (end & ~mask) - 1;
                break;
            }
        }
        uint8_t first[4], last[4] = {0};
        int size = encode(first, lo);
        encode(last, end);
        if (!add_sequence(n, from, t, first, last, size))
            return false;
        if (end == 0x10FFFF)
            break;
        lo = end + 1;
    }
    return true;
}

static bool nfa_class(struct nfa *n, uint32_t from, uint32_t to, const struct range *r, size_t n_range)
{
    struct tails tails = {.to = to};
    for (size_t i = 0; i < n_range; i++)
        if (!add_range(n, from, &tails, r[i].lo, r[i].hi))
            return false;
    return from && to;
}

/* ---- expressions ---- */

static bool emit(struct nfa *n, const struct ast *a, uint32_t from, uint32_t to, int depth);

static bool emit_sequence(struct nfa *n, const struct ast *child, uint32_t from, uint32_t to, int depth)
{
    for (; child; child = child->next) {
        uint32_t next = child->next ? nfa_node(n) : to;
        if (!next || !emit(n, child, from, next, depth))
            return false;
        from = next;
    }
    return true;
}

/* A loop stands between two empty edges: nobody else comes in or goes out at its node. */
static bool emit_repeat(struct nfa *n, const struct ast *a, uint32_t from, uint32_t to, int depth)
{
    for (uint32_t i = 0; i < a->min; i++) {
        uint32_t next = nfa_node(n);
        if (!next || !emit(n, a->child, from, next, depth))
            return false;
        from = next;
    }
    if (a->max == REPEAT_NO_MAX) {
        uint32_t loop = nfa_node(n);
        return nfa_edge(n, from, loop, EDGE_EMPTY, 0, 0) && emit(n, a->child, loop, loop, depth) &&
               nfa_edge(n, loop, to, EDGE_EMPTY, 0, 0);
    }
    for (uint32_t i = a->min; i < a->max; i++) {
        uint32_t next = nfa_node(n);
        if (!next || !emit(n, a->child, from, next, depth) || !nfa_edge(n, from, to, EDGE_EMPTY, 0, 0))
            return false;
        from = next;
    }
    return nfa_edge(n, from, to, EDGE_EMPTY, 0, 0);
}

static bool emit(struct nfa *n, const struct ast *a, uint32_t from, uint32_t to, int depth)
{
    if (depth > AST_DEPTH_MAX)
        return build_fail(n->b, ST_LIMIT, "nested more than %d deep", AST_DEPTH_MAX);
    switch (a->kind) {
    case AST_EMPTY:
        return nfa_edge(n, from, to, EDGE_EMPTY, 0, 0);
    case AST_CLASS:
        return nfa_class(n, from, to, a->set.r.at, a->set.r.n);
    case AST_TEXT:
        for (size_t i = 0; i < a->text.len; i++) {
            uint32_t next = i == a->text.len - 1 ? to : nfa_node(n);
            if (!nfa_edge(n, from, next, EDGE_BYTES, (uint8_t)a->text.ptr[i], (uint8_t)a->text.ptr[i]))
                return false;
            from = next;
        }
        return a->text.len || nfa_edge(n, from, to, EDGE_EMPTY, 0, 0);
    case AST_CAT:
        return a->child ? emit_sequence(n, a->child, from, to, depth + 1) : nfa_edge(n, from, to, EDGE_EMPTY, 0, 0);
    case AST_ALT:
        for (const struct ast *c = a->child; c; c = c->next)
            if (!emit(n, c, from, to, depth + 1))
                return false;
        return true;
    case AST_REPEAT:
        return emit_repeat(n, a, from, to, depth + 1);
    case AST_BEGIN:
        return nfa_edge(n, from, to, EDGE_BEGIN, 0, 0);
    case AST_END:
        return nfa_edge(n, from, to, EDGE_END, 0, 0);
    case AST_CALL:
        return nfa_call(n, from, to, a->callee);
    case AST_DFA:
        return nfa_embed(n, a->dfa, from, to);
    case AST_LOOK:
        break;
    }
    return build_fail(n->b, ST_UNSUPPORTED,
                      "look-ahead is only understood at the front of an expression that begins "
                      "with ^");
}

bool nfa_emit(struct nfa *n, const struct ast *a, uint32_t from, uint32_t to)
{
    return a && emit(n, a, from, to, 0);
}

/* State s of d is node base + s. */
bool nfa_embed(struct nfa *n, const struct dfa *d, uint32_t from, uint32_t to)
{
    uint32_t base = (uint32_t)n->nodes.n - 1;
    if (dfa_empty(d))
        return n->b->status == ST_OK;
    for (uint32_t s = 1; s < d->n_state; s++)
        if (!nfa_node(n))
            return false;
    for (uint32_t s = 1; s < d->n_state; s++) {
        for (int lo = 0, hi; lo < 256; lo = hi) {
            uint32_t target = dfa_next(d, s, (uint8_t)lo);
            for (hi = lo + 1; hi < 256 && dfa_next(d, s, (uint8_t)hi) == target; hi++)
                ;
            if (target && !nfa_edge(n, base + s, base + target, EDGE_BYTES, (unsigned)lo, (unsigned)hi - 1))
                return false;
        }
        for (uint32_t i = d->call_at ? d->call_at[s] : 0; d->call_at && i < d->call_at[s + 1]; i++)
            if (!nfa_call(n, base + s, base + d->calls[i].to, d->calls[i].callee))
                return false;
        if (d->accept[s] && !nfa_edge(n, base + s, to, EDGE_EMPTY, 0, 0))
            return false;
    }
    return nfa_edge(n, from, base + DFA_START, EDGE_EMPTY, 0, 0);
}
