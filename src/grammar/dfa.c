/* dfa - subset construction, trimming, products
 *
 * Every step of the constructions counts against the budget: 2^n states for n letters end in ST_LIMIT, not in memory.
 */
#include "grammar/private.h"

uint32_t dfa_run(const struct dfa *d, uint32_t state, struct str bytes)
{
    for (size_t i = 0; i < bytes.len && state; i++)
        state = dfa_next(d, state, (uint8_t)bytes.ptr[i]);
    return state;
}

/* ---- sets of numbers, each known by its place ---- */
struct interned {
    struct build *b;
    VEC(uint32_t) items;
    VEC(uint32_t) at; /* set i is items[at[i] .. at[i + 1]) */
    uint32_t *slots;  /* set + 1, 0 = empty */
    size_t mask;
};

static bool interned_init(struct interned *s, struct build *b)
{
    *s = (struct interned){.b = b, .mask = 63};
    s->slots = build_temp(b, s->mask + 1, sizeof *s->slots);
    uint32_t *first = s->slots ? VEC_ADD(b, &s->at) : NULL;
    if (first)
        *first = 0;
    return first != NULL;
}

static uint64_t hash_items(const uint32_t *items, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = (h ^ items[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 32;
    return h;
}

static size_t interned_count(const struct interned *s)
{
    return s->at.n - 1;
}

static bool interned_grow(struct interned *s)
{
    size_t mask = s->mask * 2 + 1;
    uint32_t *slots = build_temp(s->b, mask + 1, sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = 0; i < interned_count(s); i++) {
        size_t h = hash_items(s->items.at + s->at.at[i], s->at.at[i + 1] - s->at.at[i]) & mask;
        while (slots[h])
            h = (h + 1) & mask;
        slots[h] = i + 1;
    }
    s->slots = slots;
    s->mask = mask;
    return true;
}

/* The set's number; UINT32_MAX when something failed. */
static uint32_t interned_put(struct interned *s, const uint32_t *items, size_t n)
{
    if (interned_count(s) * 2 > s->mask && !interned_grow(s))
        return UINT32_MAX;
    size_t h = hash_items(items, n) & s->mask;
    for (; s->slots[h]; h = (h + 1) & s->mask) {
        uint32_t i = s->slots[h] - 1;
        if (s->at.at[i + 1] - s->at.at[i] == n &&
            (n == 0 || memcmp(s->items.at + s->at.at[i], items, n * sizeof *items) == 0))
            return i;
    }
    uint32_t *end = VEC_ROOM(s->b, &s->items, n) ? VEC_ADD(s->b, &s->at) : NULL;
    if (!end)
        return UINT32_MAX;
    if (n)
        memcpy(s->items.at + s->items.n, items, n * sizeof *items);
    s->items.n += n;
    *end = (uint32_t)s->items.n;
    s->slots[h] = (uint32_t)interned_count(s);
    return (uint32_t)interned_count(s) - 1;
}

/* ---- subset construction ---- */
struct subset {
    struct build *b;
    const struct nfa *n;
    struct dfa *d;
    struct interned sets, tagsets;
    VEC(uint32_t) next;
    VEC(uint32_t) accept;
    VEC(uint32_t) call_at;
    VEC(struct dfa_call) calls;
    uint32_t *stamp, stamp_now; /* [nodes] */
    VEC(uint32_t) list, stack;  /* the set being made */
    uint8_t sample[256];        /* a byte of each class */
};

static bool list_add(struct subset *s, uint32_t node)
{
    if (s->stamp[node] == s->stamp_now)
        return true;
    s->stamp[node] = s->stamp_now;
    uint32_t *a = VEC_ADD(s->b, &s->list), *c = a ? VEC_ADD(s->b, &s->stack) : NULL;
    if (!c)
        return false;
    *a = *c = node;
    return build_step(s->b, 1);
}

static void list_begin(struct subset *s)
{
    s->stamp_now++;
    s->list.n = s->stack.n = 0;
}

/* All that the nodes of the list reach without reading; begin and end say which assertions hold here. */
static bool list_close(struct subset *s, bool begin, bool end)
{
    while (s->stack.n) {
        uint32_t node = s->stack.at[--s->stack.n];
        for (uint32_t e = s->n->nodes.at[node].first; e; e = s->n->edges.at[e].next) {
            const struct nfa_edge *edge = &s->n->edges.at[e];
            bool follow =
                edge->kind == EDGE_EMPTY || (edge->kind == EDGE_BEGIN && begin) || (edge->kind == EDGE_END && end);
            if (!build_step(s->b, 1) || (follow && !list_add(s, edge->to)))
                return false;
        }
    }
    return true;
}

static int ascending(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

/* Only nodes that read, accept or look at the end tell two sets apart. */
static uint32_t list_put(struct subset *s)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->list.n; i++) {
        const struct nfa_node *node = &s->n->nodes.at[s->list.at[i]];
        bool matters = node->tag != 0;
        for (uint32_t e = node->first; e && !matters; e = s->n->edges.at[e].next)
            matters = s->n->edges.at[e].kind != EDGE_EMPTY && s->n->edges.at[e].kind != EDGE_BEGIN;
        if (matters)
            s->list.at[kept++] = s->list.at[i];
    }
    if (kept == 0)
        return 0;
    qsort(s->list.at, kept, sizeof *s->list.at, ascending);
    return interned_put(&s->sets, s->list.at, kept);
}

/* The bytes between which no edge tells are one class. */
static void find_classes(struct subset *s)
{
    bool begins[257] = {true};
    for (size_t e = 1; e < s->n->edges.n; e++)
        if (s->n->edges.at[e].kind == EDGE_BYTES) {
            begins[s->n->edges.at[e].lo] = true;
            begins[s->n->edges.at[e].hi + 1] = true;
        }
    for (int i = 0; i < 256; i++) {
        if (begins[i])
            s->sample[s->d->n_class++] = (uint8_t)i;
        s->d->class_of[i] = (uint8_t)(s->d->n_class - 1);
    }
}

static bool find_accept(struct subset *s, uint32_t set)
{
    VEC(uint32_t) tags = {0};
    list_begin(s);
    for (uint32_t i = s->sets.at.at[set]; i < s->sets.at.at[set + 1]; i++)
        if (!list_add(s, s->sets.items.at[i]))
            return false;
    if (!list_close(s, false, true))
        return false;
    for (size_t i = 0; i < s->list.n; i++) {
        uint32_t tag = s->n->nodes.at[s->list.at[i]].tag, *at = tag ? VEC_ADD(s->b, &tags) : NULL;
        if (tag && !at)
            return false;
        if (at)
            *at = tag;
    }
    if (tags.n)
        qsort(tags.at, tags.n, sizeof *tags.at, ascending);
    size_t n = 0;
    for (size_t i = 0; i < tags.n; i++)
        if (n == 0 || tags.at[n - 1] != tags.at[i])
            tags.at[n++] = tags.at[i];
    uint32_t *accept = VEC_ADD(s->b, &s->accept), which = n ? interned_put(&s->tagsets, tags.at, n) : 0;
    if (!accept || which == UINT32_MAX)
        return false;
    *accept = n ? which + 1 : 0;
    return true;
}

/* A set met for the first time becomes the next state: sets and states have the same numbers. */
static bool find_next(struct subset *s, uint32_t set, uint8_t byte)
{
    list_begin(s);
    for (uint32_t i = s->sets.at.at[set]; i < s->sets.at.at[set + 1]; i++)
        for (uint32_t e = s->n->nodes.at[s->sets.items.at[i]].first; e; e = s->n->edges.at[e].next) {
            const struct nfa_edge *edge = &s->n->edges.at[e];
            if (!build_step(s->b, 1))
                return false;
            if (edge->kind == EDGE_BYTES && edge->lo <= byte && byte <= edge->hi && !list_add(s, edge->to))
                return false;
        }
    uint32_t target = list_close(s, false, false) ? list_put(s) : UINT32_MAX;
    uint32_t *next = target != UINT32_MAX ? VEC_ADD(s->b, &s->next) : NULL;
    if (!next)
        return false;
    *next = target;
    return true;
}

static int by_callee(const void *x, const void *y)
{
    const struct dfa_call *a = x, *b = y;
    return a->callee < b->callee ? -1 : a->callee > b->callee;
}

/* Calls of the same thing from one set go on together. */
static bool find_calls(struct subset *s, uint32_t set)
{
    VEC(struct dfa_call) from = {0}; /* `to` is a node of the nfa here */
    for (uint32_t i = s->sets.at.at[set]; i < s->sets.at.at[set + 1]; i++)
        for (uint32_t e = s->n->nodes.at[s->sets.items.at[i]].first; e; e = s->n->edges.at[e].next) {
            const struct nfa_edge *edge = &s->n->edges.at[e];
            struct dfa_call *c = edge->kind == EDGE_CALL ? VEC_ADD(s->b, &from) : NULL;
            if (edge->kind == EDGE_CALL && !c)
                return false;
            if (c)
                *c = (struct dfa_call){edge->callee, edge->to};
        }
    if (from.n)
        qsort(from.at, from.n, sizeof *from.at, by_callee);
    for (size_t i = 0; i < from.n;) {
        uint32_t callee = from.at[i].callee;
        list_begin(s);
        for (; i < from.n && from.at[i].callee == callee; i++)
            if (!list_add(s, from.at[i].to))
                return false;
        uint32_t target = list_close(s, false, false) ? list_put(s) : UINT32_MAX;
        struct dfa_call *c = target != UINT32_MAX ? VEC_ADD(s->b, &s->calls) : NULL;
        if (!c)
            return false;
        *c = (struct dfa_call){callee, target};
    }
    return true;
}

static bool make_state(struct subset *s, uint32_t set)
{
    uint32_t *at = VEC_ADD(s->b, &s->call_at);
    if (!at)
        return false;
    *at = (uint32_t)s->calls.n;
    if (set > DFA_STATES_MAX)
        return build_fail(s->b, ST_LIMIT, "too complex: an expression needs more than %d states; simplify it",
                          DFA_STATES_MAX);
    if (!find_accept(s, set) || !find_calls(s, set))
        return false;
    for (uint32_t c = 0; c < s->d->n_class; c++)
        if (!find_next(s, set, s->sample[c]))
            return false;
    return true;
}

#define KEEP(b, to, v)                                                                                                 \
    (((to) = build_keep(b, (v)->n ? (v)->n : 1, sizeof *(v)->at)) != NULL &&                                           \
     ((v)->n == 0 || memcpy((to), (v)->at, (v)->n * sizeof *(v)->at)))

static bool make_all(struct subset *s, uint32_t start)
{
    struct dfa *d = s->d;
    if (interned_put(&s->sets, NULL, 0) != 0) /* the dead state */
        return false;
    list_begin(s);
    uint32_t first = list_add(s, start) && list_close(s, true, false) ? list_put(s) : UINT32_MAX;
    if (first == UINT32_MAX)
        return false;
    for (uint32_t set = 0; set < interned_count(&s->sets); set++)
        if (!make_state(s, set))
            return false;
    uint32_t *end = VEC_ADD(s->b, &s->call_at);
    if (!end)
        return false;
    *end = (uint32_t)s->calls.n;
    d->n_state = (uint32_t)interned_count(&s->sets);
    d->n_tagset = (uint32_t)interned_count(&s->tagsets);
    return KEEP(s->b, d->next, &s->next) && KEEP(s->b, d->accept, &s->accept) &&
           KEEP(s->b, d->tag_at, &s->tagsets.at) && KEEP(s->b, d->tags, &s->tagsets.items) &&
           (s->calls.n == 0 || (KEEP(s->b, d->call_at, &s->call_at) && KEEP(s->b, d->calls, &s->calls)));
}

struct dfa *dfa_of_nfa(struct nfa *n, uint32_t start)
{
    struct subset s = {.b = n->b, .n = n, .d = build_keep(n->b, 1, sizeof *s.d)};
    s.stamp = s.d ? build_temp(n->b, n->nodes.n, sizeof *s.stamp) : NULL;
    if (!s.stamp || !interned_init(&s.sets, n->b) || !interned_init(&s.tagsets, n->b))
        return NULL;
    find_classes(&s);
    return make_all(&s, start) && dfa_trim(n->b, s.d, NULL) ? s.d : NULL;
}

/* ---- trimming ---- */

static uint32_t successor(const struct dfa *d, uint32_t s, uint32_t i) /* i-th of a state's classes, then its calls */
{
    return i < d->n_class ? d->next[(size_t)s * d->n_class + i] : d->calls[d->call_at[s] + i - d->n_class].to;
}
static uint32_t successors(const struct dfa *d, uint32_t s)
{
    return d->n_class + (d->call_at ? d->call_at[s + 1] - d->call_at[s] : 0);
}

/* Lives: has a path to an accepting state. Backwards through lists of predecessors. */
static bool find_live(struct build *b, const struct dfa *d, bool *live)
{
    size_t n_edge = 0;
    for (uint32_t s = 1; s < d->n_state; s++)
        n_edge += successors(d, s);
    uint32_t *first = build_temp(b, d->n_state, sizeof *first), *from = build_temp(b, n_edge + 1, sizeof *from),
             *next = build_temp(b, n_edge + 1, sizeof *next), *stack = build_temp(b, d->n_state, sizeof *stack);
    if (!first || !from || !next || !stack || !build_step(b, n_edge))
        return false;
    uint32_t at = 1, n = 0;
    for (uint32_t s = 1; s < d->n_state; s++)
        for (uint32_t i = 0; i < successors(d, s); i++) {
            uint32_t to = successor(d, s, i);
            if (to) {
                from[at] = s;
                next[at] = first[to];
                first[to] = at++;
            }
        }
    for (uint32_t s = 1; s < d->n_state; s++)
        if (d->accept[s]) {
            live[s] = true;
            stack[n++] = s;
        }
    while (n)
        for (uint32_t e = first[stack[--n]]; e; e = next[e])
            if (!live[from[e]]) {
                live[from[e]] = true;
                stack[n++] = from[e];
            }
    return true;
}

bool dfa_trim(struct build *b, struct dfa *d, const bool *accepts)
{
    for (uint32_t s = 0; accepts && s < d->n_state; s++)
        if (d->accept[s] && !accepts[d->accept[s] - 1])
            d->accept[s] = 0;
    bool *live = build_temp(b, d->n_state, sizeof *live);
    uint32_t *to = build_temp(b, d->n_state, sizeof *to), n = 1, n_call = 0;
    if (!live || !to || !find_live(b, d, live))
        return false;
    if (d->n_state > 1 && !live[DFA_START]) {
        d->n_state = 1;
        d->call_at = NULL;
        return true;
    }
    for (uint32_t s = 1; s < d->n_state; s++)
        if (live[s])
            to[s] = n++;
    for (uint32_t s = 1; s < d->n_state; s++) { /* moves downwards, in place */
        if (!live[s])
            continue;
        for (uint32_t c = 0; c < d->n_class; c++)
            d->next[(size_t)to[s] * d->n_class + c] = to[d->next[(size_t)s * d->n_class + c]];
        d->accept[to[s]] = d->accept[s];
        uint32_t begin = d->call_at ? d->call_at[s] : 0, end = d->call_at ? d->call_at[s + 1] : 0;
        if (d->call_at)
            d->call_at[to[s]] = n_call;
        for (uint32_t i = begin; i < end; i++)
            if (to[d->calls[i].to])
                d->calls[n_call++] = (struct dfa_call){d->calls[i].callee, to[d->calls[i].to]};
    }
    d->n_state = n;
    if (d->call_at)
        d->call_at[n] = n_call;
    if (n_call == 0)
        d->call_at = NULL;
    return true;
}

/* ---- products ---- */

static bool decide(enum dfa_op op, bool x, bool y)
{
    return op == DFA_AND ? x && y : op == DFA_OR ? x || y : x && !y;
}

/* States are pairs; a pair that can decide nothing any more is the dead state. */
struct dfa *dfa_combine(struct build *b, const struct dfa *x, const struct dfa *y, enum dfa_op op)
{
    struct interned pairs;
    VEC(uint32_t) next = {0}, accept = {0};
    struct dfa *d = build_keep(b, 1, sizeof *d);
    if (!d || !interned_init(&pairs, b) || interned_put(&pairs, (uint32_t[]){0, 0}, 2) != 0)
        return NULL;
    uint8_t sample[256];
    uint32_t last = UINT32_MAX;
    for (int i = 0; i < 256; i++) {
        uint32_t both = (uint32_t)x->class_of[i] << 8 | y->class_of[i];
        if (both != last)
            sample[d->n_class++] = (uint8_t)i;
        last = both;
        d->class_of[i] = (uint8_t)(d->n_class - 1);
    }
    if (!dfa_empty(x) || !dfa_empty(y))
        interned_put(&pairs, (uint32_t[]){!dfa_empty(x), !dfa_empty(y)}, 2);
    for (uint32_t s = 0; s < interned_count(&pairs); s++) {
        uint32_t px = pairs.items.at[2 * s], py = pairs.items.at[2 * s + 1];
        uint32_t *a = build_step(b, d->n_class) ? VEC_ADD(b, &accept) : NULL;
        if (!a || !VEC_ROOM(b, &next, d->n_class))
            return NULL;
        *a = px | py ? decide(op, x->accept[px] && px, y->accept[py] && py) : 0;
        for (uint32_t c = 0; c < d->n_class; c++) {
            uint32_t pair[2] = {px ? dfa_next(x, px, sample[c]) : 0, py ? dfa_next(y, py, sample[c]) : 0};
            if ((op != DFA_OR && pair[0] == 0) || (op == DFA_AND && pair[1] == 0))
                pair[0] = pair[1] = 0;
            uint32_t to = interned_put(&pairs, pair, 2);
            if (to == UINT32_MAX)
                return NULL;
            next.at[next.n++] = to;
        }
        if (s > DFA_STATES_MAX) {
            build_fail(b, ST_LIMIT, "too complex: an expression needs more than %d states; simplify it",
                       DFA_STATES_MAX);
            return NULL;
        }
    }
    d->n_state = (uint32_t)interned_count(&pairs);
    d->n_tagset = 1;
    d->tag_at = build_keep(b, 2, sizeof *d->tag_at);
    d->tags = build_keep(b, 1, sizeof *d->tags);
    if (!d->tag_at || !d->tags || !KEEP(b, d->next, &next) || !KEEP(b, d->accept, &accept))
        return NULL;
    d->tag_at[1] = d->tags[0] = 1;
    return dfa_trim(b, d, NULL) ? d : NULL;
}

struct dfa *dfa_of_ast(struct build *b, const struct ast *a)
{
    struct nfa n;
    uint32_t from, to;
    if (!a || !nfa_init(&n, b) || !(from = nfa_node(&n)) || !(to = nfa_node(&n)) || !nfa_emit(&n, a, from, to))
        return NULL;
    n.nodes.at[to].tag = 1;
    return dfa_of_nfa(&n, from);
}

struct dfa *dfa_any(struct build *b)
{
    struct ast *c = ast_new(b, AST_CLASS);
    return c && charset_finish(b, &c->set, true) ? dfa_of_ast(b, ast_repeat(b, c, 0, REPEAT_NO_MAX)) : NULL;
}

/* The lengths as an expression, and the product with it. */
struct dfa *dfa_limit_length(struct build *b, const struct dfa *d, uint32_t min, uint32_t max)
{
    struct ast *c = ast_new(b, AST_CLASS);
    struct dfa *lengths = c && charset_finish(b, &c->set, true) ? dfa_of_ast(b, ast_repeat(b, c, min, max)) : NULL;
    return lengths ? dfa_combine(b, d, lengths, DFA_AND) : NULL;
}

/* ---- questions ---- */

/* Bytes [lo, hi] of an encoding at place i of size; only where the classes differ is a new byte tried. */
static bool any_path(const struct dfa *d, uint32_t state, const uint8_t *lo, const uint8_t *hi, int i, int size,
                     bool (*ok)(const void *, uint32_t), const void *ctx)
{
    if (state == 0 || i == size)
        return state && (!ok || ok(ctx, state));
    int last = -1;
    for (int byte = lo[i]; byte <= hi[i]; byte++) {
        int same = d->class_of[byte];
        bool edge = byte == lo[i] || byte == hi[i]; /* the following bytes may be narrower here */
        if (same == last && !edge)
            continue;
        last = edge ? -1 : same;
        static const uint8_t least[4] = {0x80, 0x80, 0x80, 0x80}, most[4] = {0xBF, 0xBF, 0xBF, 0xBF};
        uint8_t from[4], to[4];
        memcpy(from, byte == lo[i] ? lo : least, 4);
        memcpy(to, byte == hi[i] ? hi : most, 4);
        if (any_path(d, dfa_next(d, state, (uint8_t)byte), from, to, i + 1, size, ok, ctx))
            return true;
    }
    return false;
}

bool dfa_any_between(const struct dfa *d, uint32_t state, uint32_t lo, uint32_t hi,
                     bool (*ok)(const void *ctx, uint32_t state), const void *ctx)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
    for (int size = 1; size <= 4; size++) {
        uint32_t from = size == 1 ? 0 : ends[size - 2] + 1, to = ends[size - 1];
        from = from > lo ? from : lo;
        to = to < hi ? to : hi;
        if (from > to)
            continue;
        uint8_t first[4] = {0}, last[4] = {0};
        for (int k = 0; k < 2; k++) {
            uint32_t c = k ? to : from;
            uint8_t *out = k ? last : first;
            for (int i = size - 1; i > 0; i--, c >>= 6)
                out[i] = (uint8_t)(0x80 | (c & 0x3F));
            out[0] = (uint8_t)(c | (uint32_t)(size == 1 ? 0 : size == 2 ? 0xC0 : size == 3 ? 0xE0 : 0xF0));
        }
        if (any_path(d, state, first, last, 0, size, ok, ctx))
            return true;
    }
    return false;
}
