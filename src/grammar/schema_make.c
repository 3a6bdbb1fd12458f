/* schema_make - the types as the machine runs them
 *
 * 1. Types are made one after the other; arrays and objects name further types, until no type is new.
 * 2. Those without values are cut away (schema_finish.c).
 * 3. Keys: one automaton an object, over all names and patterns and "any other key"; a set of tags is a label.
 */
#include "grammar/schema.h"

enum { LENGTH_STATES_MAX = 20000, ANY_PAIRS_MAX = 48 };

/* ---- strings ---- */

/* From the state on, every string is accepted, always as `accept`: a walk beside the automaton of all strings. */
static bool accepts_any(const struct dfa *d, uint32_t state, uint32_t accept, const struct dfa *any)
{
    struct {
        uint32_t d, any;
    } pairs[ANY_PAIRS_MAX];
    uint32_t n = 1;
    pairs[0].d = state;
    pairs[0].any = DFA_START;
    for (uint32_t i = 0; i < n; i++) {
        if (any->accept[pairs[i].any] && d->accept[pairs[i].d] != accept)
            return false;
        for (unsigned b = 0; b < 256; b++) {
            uint32_t x = dfa_next(d, pairs[i].d, (uint8_t)b), y = dfa_next(any, pairs[i].any, (uint8_t)b), k = 0;
            if (!y)
                continue;
            if (!x)
                return false;
            while (k < n && (pairs[k].d != x || pairs[k].any != y))
                k++;
            if (k == ANY_PAIRS_MAX)
                return false;
            pairs[k].d = x;
            pairs[k].any = y;
            n = k == n ? n + 1 : n;
        }
    }
    return true;
}

bool *dfa_find_any(struct schema *s, const struct dfa *d, uint32_t accept, uint32_t *one)
{
    bool *any = build_keep(s->b, d->n_state, 1);
    if (!s->any)
        s->any = dfa_any(s->b);
    *one = 0;
    for (uint32_t q = 1; any && s->any && q < d->n_state; q++) {
        if (!build_step(s->b, 8))
            return NULL;
        any[q] = d->accept[q] == accept && accepts_any(d, q, accept, s->any);
        *one = any[q] ? q : *one;
    }
    return s->any ? any : NULL;
}

/* Characters from each state to an accepting one: a byte that begins a character counts. */
static uint32_t *find_shortest(struct schema *s, const struct dfa *d)
{
    uint32_t *best = build_keep(s->b, d->n_state, sizeof *best);
    for (uint32_t q = 0; best && q < d->n_state; q++)
        best[q] = d->accept[q] ? 0 : REPEAT_NO_MAX;
    for (bool changed = best != NULL; changed;) {
        changed = false;
        if (!build_step(s->b, d->n_state))
            return NULL;
        for (uint32_t q = d->n_state; q-- > 1;)
            for (unsigned b = 0; b < 256; b++) {
                uint32_t to = dfa_next(d, q, (uint8_t)b), cost = b < 0x80 || b >= 0xC0;
                if (to && best[to] != REPEAT_NO_MAX && best[to] + cost < best[q]) {
                    best[q] = best[to] + cost;
                    changed = true;
                }
            }
    }
    return best;
}

static uint32_t *find_longest(struct schema *s, const struct dfa *d)
{
    uint32_t *best = build_keep(s->b, d->n_state, sizeof *best);
    bool *known = build_temp(s->b, d->n_state, 1);
    for (uint32_t q = 0; best && q < d->n_state; q++)
        best[q] = REPEAT_NO_MAX; /* in a loop, or before one */
    for (bool changed = best && known; changed;) {
        changed = false;
        if (!build_step(s->b, d->n_state))
            return NULL;
        for (uint32_t q = d->n_state; q-- > 1;) {
            uint32_t most = 0;
            bool all = !known[q];
            for (unsigned b = 0; b < 256 && all; b++) {
                uint32_t to = dfa_next(d, q, (uint8_t)b), cost = b < 0x80 || b >= 0xC0;
                all = !to || known[to];
                most = to && all && best[to] + cost > most ? best[to] + cost : most;
            }
            if (all) {
                known[q] = changed = true;
                best[q] = most;
            }
        }
    }
    return known ? best : NULL;
}

/* Returns the language's number within the grammar; UINT32_MAX: failed. */
static uint32_t add_lang(struct schema *s, const struct dfa *d, uint32_t min, uint32_t max)
{
    struct lang l = {.dfa = d, .min = min, .max = max, .counted = min || max != REPEAT_NO_MAX};
    uint64_t most = max != REPEAT_NO_MAX ? max : min;
    if (l.counted && d != s->any && (most + 1) * d->n_state <= LENGTH_STATES_MAX) {
        l.dfa = dfa_limit_length(s->b, d, min, max);
        l.counted = false;
        l.min = 0;
        l.max = REPEAT_NO_MAX;
    } else if (l.counted && d != s->any) {
        l.shortest = find_shortest(s, d);
        l.longest = find_longest(s, d);
        if (!l.shortest || !l.longest)
            return UINT32_MAX;
    }
    l.any = l.dfa ? dfa_find_any(s, l.dfa, 1, &l.any_state) : NULL;
    struct lang *at = l.any ? VEC_ADD(s->b, &s->langs) : NULL;
    if (!at)
        return UINT32_MAX;
    *at = l;
    return s->lang_base + (uint32_t)s->langs.n - 1;
}

static bool lang_empty(const struct lang *l)
{
    return dfa_empty(l->dfa) || l->min > l->max ||
           (l->shortest && (l->shortest[DFA_START] > l->max || l->longest[DFA_START] < l->min));
}

/* Products without lengths are one language; those with lengths have one each. */
static bool make_strings(struct schema *s, struct type *t, struct products *l)
{
    const struct dfa *plain = NULL;
    t->langs = build_keep(s->b, l->p.n + 1, sizeof *t->langs);
    if (!t->langs)
        return false;
    for (size_t i = 0; i <= l->p.n; i++) {
        const struct product *p = i < l->p.n ? l->p.at[i] : NULL;
        const struct dfa *d = p ? product_dfa(s, p, KIND_STRING) : plain;
        if (!d && (p || s->b->status != ST_OK))
            return false;
        if (!d)
            continue;
        if (p && !p->min && p->max == REPEAT_NO_MAX) {
            plain = plain && plain != d ? dfa_combine(s->b, plain, d, DFA_OR) : d;
            if (!plain)
                return false;
            continue;
        }
        uint32_t n = add_lang(s, d, p ? p->min : 0, p ? p->max : REPEAT_NO_MAX);
        if (n == UINT32_MAX)
            return false;
        if (!lang_empty(&s->langs.at[n - s->lang_base]))
            t->langs[t->n_lang++] = n;
    }
    return true;
}

/* ---- null, booleans, numbers: one automaton of texts ---- */

static bool make_scalars(struct schema *s, struct type *t, uint32_t type)
{
    struct products *nulls = type_products(s, type, KIND_NULL), *bools = type_products(s, type, KIND_BOOL),
                    *numbers = type_products(s, type, KIND_NUMBER);
    struct ast *alt = ast_new(s->b, AST_ALT);
    unsigned allowed = 0;
    if (!nulls || !bools || !numbers || !alt)
        return false;
    for (size_t i = 0; i < bools->p.n; i++)
        allowed |= bools->p.at[i]->bools;
    if (nulls->p.n)
        alt = ast_add(alt, ast_text(s->b, STR("null")));
    if (allowed & 1)
        alt = ast_add(alt, ast_text(s->b, STR("false")));
    if (allowed & 2)
        alt = ast_add(alt, ast_text(s->b, STR("true")));
    for (size_t i = 0; alt && i < numbers->p.n; i++) {
        const struct dfa *d = product_dfa(s, numbers->p.at[i], KIND_NUMBER);
        struct ast *a = d ? ast_new(s->b, AST_DFA) : NULL;
        if (a)
            a->dfa = d;
        alt = ast_add(alt, a);
    }
    t->scalar = UINT32_MAX;
    if (!alt || !alt->child)
        return alt != NULL;
    struct dfa *d = dfa_of_ast(s->b, alt), **at = d && !dfa_empty(d) ? VEC_ADD(s->b, &s->scalars) : NULL;
    if (!at)
        return d && s->b->status == ST_OK;
    *at = d;
    t->scalar = s->scalar_base + (uint32_t)s->scalars.n - 1;
    return true;
}

/* ---- arrays ---- */

static bool add_array(struct schema *s, struct type *t, const struct product *p)
{
    struct array a = {
        .min = p->min, .max = p->max, .n_prefix = (uint32_t)p->prefix.n, .n_claim = (uint32_t)p->wanted.n};
    if (p->unique && p->max > 1)
        return schema_refuse(s, ST_UNSUPPORTED, s->root + p->unique_at,
                             "\"uniqueItems\" cannot be enforced where there may be more than one item");
    if (p->wanted.n > CLAIMS_MAX)
        return build_fail(s->b, ST_UNSUPPORTED, "more than %d conditions on what an array contains at once",
                          CLAIMS_MAX);
    for (size_t k = 0; k < p->wanted.n; k++) {
        const struct wanted *w = &p->wanted.at[k];
        a.claims[k] = (struct claim){w->min, w->max};
        a.n_prefix = w->from > a.n_prefix ? w->from : a.n_prefix;
    }
    size_t sets = (size_t)1 << a.n_claim;
    a.types = build_keep(s->b, (a.n_prefix + 1) * sets, sizeof *a.types);
    for (uint32_t i = 0; a.types && i <= a.n_prefix; i++)
        for (unsigned made = 0; made < sets; made++) {
            uint32_t type = item_type_at(p, i), *at = &a.types[i * sets + made];
            bool possible = true;
            for (size_t k = 0; k < p->wanted.n && possible; k++) {
                const struct wanted *w = &p->wanted.at[k];
                possible = !claim_made(made, k) || i >= w->from;
                if (claim_made(made, k))
                    type = type_and(s, type, w->type);
                else if (w->max != REPEAT_NO_MAX)
                    type = type_and(s, type, w->against);
            }
            if (type == UINT32_MAX)
                return false;
            *at = possible ? s->type_base + type : UINT32_MAX;
        }
    struct array *at = a.types ? VEC_ADD(s->b, &s->arrays) : NULL;
    if (!at)
        return false;
    *at = a;
    t->arrays[t->n_array++] = s->array_base + (uint32_t)s->arrays.n - 1;
    return true;
}

/* ---- objects ---- */
struct keys {               /* of one object, while it is made */
    VEC(uint32_t) names;    /* its own numbering, in order of appearance */
    VEC(uint32_t) patterns; /* matchers that are automata */
};

static bool add_once(struct schema *s, struct keys *k, bool name, uint32_t value)
{
    size_t n = name ? k->names.n : k->patterns.n;
    const uint32_t *at = name ? k->names.at : k->patterns.at;
    for (size_t i = 0; i < n; i++)
        if (name ? at[i] == value : s->matchers.at[at[i]].dfa == s->matchers.at[value].dfa)
            return true;
    uint32_t *new = name ? VEC_ADD(s->b, &k->names) : VEC_ADD(s->b, &k->patterns);
    if (new)
        *new = value;
    return new != NULL;
}

static bool collect(struct schema *s, struct keys *k, uint32_t matcher)
{
    const struct matcher *m = &s->matchers.at[matcher];
    if (!build_step(s->b, k->names.n / 4 + 1))
        return false;
    if (m->how == MATCH_NAME)
        return add_once(s, k, true, m->name);
    if (m->how == MATCH_DFA)
        return add_once(s, k, false, matcher);
    for (uint32_t i = 0; i < m->n_of; i++)
        if (!collect(s, k, s->matchers.at[matcher].of[i]))
            return false;
    return true;
}

static bool collect_keys(struct schema *s, struct keys *k, const struct product *p)
{
    for (size_t i = 0; i < p->rules.n; i++)
        if (!collect(s, k, p->rules.at[i].matcher))
            return false;
    for (size_t i = 0; i < p->required.n; i++)
        if (!add_once(s, k, true, p->required.at[i]))
            return false;
    for (size_t i = 0; i < p->wanted.n; i++)
        if (!collect(s, k, p->wanted.at[i].matcher))
            return false;
    return k->names.n <= NAMES_MAX ||
           build_fail(s->b, ST_LIMIT, "an object with more than %d named properties", NAMES_MAX);
}

/* Does a key with these tags match? */
static bool tags_match(const struct schema *s, const struct keys *k, uint32_t matcher, const uint32_t *tags, uint32_t n)
{
    const struct matcher *m = &s->matchers.at[matcher];
    if (m->how == MATCH_ALL)
        return true;
    for (uint32_t i = 0; i < m->n_of; i++)
        if (tags_match(s, k, m->of[i], tags, n))
            return m->how == MATCH_ANY_OF;
    for (uint32_t i = 0; i < n; i++) {
        if (tags[i] < TAG_FIRST)
            continue;
        uint32_t tag = tags[i] - TAG_FIRST, n_name = (uint32_t)k->names.n;
        if (m->how == MATCH_NAME && tag < n_name && k->names.at[tag] == m->name)
            return true;
        if (m->how == MATCH_DFA && tag >= n_name && s->matchers.at[k->patterns.at[tag - n_name]].dfa == m->dfa)
            return true;
    }
    return m->how == MATCH_NONE_OF;
}

static bool make_label(struct schema *s, const struct keys *k, const struct product *p, const uint32_t *tags,
                       uint32_t n, struct label *l)
{
    unsigned sets = 1u << p->wanted.n;
    uint32_t type = TYPE_ANY;
    l->name = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++)
        if (tags[i] >= TAG_FIRST && tags[i] - TAG_FIRST < k->names.n)
            l->name = tags[i] - TAG_FIRST;
    for (size_t i = 0; i < p->rules.n && type != TYPE_NONE && type != UINT32_MAX; i++)
        if (build_step(s->b, n + 1) && tags_match(s, k, p->rules.at[i].matcher, tags, n))
            type = type_and(s, type, p->rules.at[i].type);
    l->types = build_keep(s->b, sets, sizeof *l->types);
    for (unsigned made = 0; l->types && made < sets; made++) {
        uint32_t claimed = type;
        bool possible = type != TYPE_NONE;
        for (size_t w = 0; w < p->wanted.n && possible; w++)
            if (claim_made(made, w)) {
                possible = tags_match(s, k, p->wanted.at[w].matcher, tags, n);
                claimed = type_and(s, claimed, p->wanted.at[w].type);
            }
        if (claimed == UINT32_MAX)
            return false;
        l->types[made] = possible && claimed != TYPE_NONE ? s->type_base + claimed : UINT32_MAX;
    }
    return l->types && s->b->status == ST_OK;
}

static struct dfa *make_keys(struct schema *s, const struct keys *k, bool open)
{
    struct nfa n;
    uint32_t start, end;
    if (!s->any)
        s->any = dfa_any(s->b);
    if (!s->any || !nfa_init(&n, s->b) || !(start = nfa_node(&n)))
        return NULL;
    if (open) {
        if (!(end = nfa_node(&n)) || !nfa_embed(&n, s->any, start, end))
            return NULL;
        n.nodes.at[end].tag = TAG_ANY;
    }
    for (uint32_t i = 0; i < k->names.n; i++) {
        struct ast *text = ast_text(s->b, s->names.at[k->names.at[i]]);
        if (!(end = nfa_node(&n)) || !nfa_emit(&n, text, start, end))
            return NULL;
        n.nodes.at[end].tag = TAG_FIRST + i;
    }
    for (uint32_t i = 0; i < k->patterns.n; i++) {
        if (!(end = nfa_node(&n)) || !nfa_embed(&n, s->matchers.at[k->patterns.at[i]].dfa, start, end))
            return NULL;
        n.nodes.at[end].tag = TAG_FIRST + (uint32_t)k->names.n + i;
    }
    return dfa_of_nfa(&n, start);
}

static bool add_object(struct schema *s, struct type *t, const struct product *p)
{
    struct keys k = {0};
    struct label other;
    if (p->wanted.n > CLAIMS_MAX)
        return build_fail(s->b, ST_UNSUPPORTED, "more than %d conditions on which members exist at once", CLAIMS_MAX);
    if (!collect_keys(s, &k, p) || !make_label(s, &k, p, NULL, 0, &other))
        return false;
    bool open = other.types[0] != UINT32_MAX;
    for (unsigned made = 1; made < 1u << p->wanted.n; made++)
        open |= other.types[made] != UINT32_MAX;
    struct dfa *keys = make_keys(s, &k, open);
    if (!keys)
        return false;
    struct object o = {.min = p->min,
                       .max = p->max,
                       .n_name = (uint32_t)k.names.n,
                       .n_required = (uint32_t)p->required.n,
                       .n_word = (uint32_t)(k.names.n + 63) / 64,
                       .n_claim = (uint32_t)p->wanted.n,
                       .ordered = s->ordered,
                       .counts = p->min > 0 || p->max != REPEAT_NO_MAX,
                       .keys = keys};
    for (size_t i = 0; i < p->wanted.n; i++)
        o.claims[i] = (struct claim){p->wanted.at[i].min, p->wanted.at[i].max};
    o.labels = build_keep(s->b, keys->n_tagset + 1, sizeof *o.labels);
    o.required = build_keep(s->b, o.n_word + 1, sizeof *o.required);
    if (!o.labels || !o.required)
        return false;
    for (size_t i = 0; i < p->required.n; i++)
        for (uint32_t at = 0; at < k.names.n; at++)
            if (k.names.at[at] == p->required.at[i])
                bit_set(o.required, at);
    for (uint32_t i = 0; i < keys->n_tagset; i++)
        if (!make_label(s, &k, p, keys->tags + keys->tag_at[i], keys->tag_at[i + 1] - keys->tag_at[i], &o.labels[i]))
            return false;
    struct object *at = VEC_ADD(s->b, &s->objects);
    if (!at)
        return false;
    *at = o;
    t->objects[t->n_object++] = s->object_base + (uint32_t)s->objects.n - 1;
    return true;
}

/* ---- types ---- */

static bool make_type(struct schema *s, uint32_t type)
{
    struct type t = {.empty = true, .scalar = UINT32_MAX};
    if (type != TYPE_NONE) {
        struct products *strings = type_products(s, type, KIND_STRING), *arrays = type_products(s, type, KIND_ARRAY),
                        *objects = type_products(s, type, KIND_OBJECT);
        if (!strings || !arrays || !objects || !make_scalars(s, &t, type) || !make_strings(s, &t, strings))
            return false;
        t.arrays = build_keep(s->b, arrays->p.n + 1, sizeof *t.arrays);
        t.objects = build_keep(s->b, objects->p.n + 1, sizeof *t.objects);
        if (!t.arrays || !t.objects)
            return false;
        for (size_t i = 0; i < arrays->p.n; i++)
            if (!add_array(s, &t, arrays->p.at[i]))
                return false;
        for (size_t i = 0; i < objects->p.n; i++)
            if (!add_object(s, &t, objects->p.at[i]))
                return false;
    }
    struct type *at = VEC_ADD(s->b, &s->out_types);
    if (at)
        *at = t;
    return at != NULL;
}

/* Behind what the grammar has of other schemas. */
#define APPEND(s, list, count, v)                                                                                      \
    do {                                                                                                               \
        void *all_ = build_keep((s)->b, (count) + (v)->n + 1, sizeof *(v)->at);                                        \
        if (!all_)                                                                                                     \
            return false;                                                                                              \
        if (count)                                                                                                     \
            memcpy(all_, list, (count) * sizeof *(v)->at);                                                             \
        if ((v)->n)                                                                                                    \
            memcpy((char *)all_ + (count) * sizeof *(v)->at, (v)->at, (v)->n * sizeof *(v)->at);                       \
        (list) = all_;                                                                                                 \
        (count) += (uint32_t)(v)->n;                                                                                   \
    } while (0)

bool schema_make(struct schema *s)
{
    struct grammar *g = s->g;
    for (uint32_t i = 0; i < s->types.n; i++) /* grows meanwhile */
        if (!make_type(s, i))
            return false;
    if (!schema_finish(s))
        return false;
    APPEND(s, g->types, g->n_type, &s->out_types);
    APPEND(s, g->arrays, g->n_array, &s->arrays);
    APPEND(s, g->objects, g->n_object, &s->objects);
    APPEND(s, g->langs, g->n_lang, &s->langs);
    APPEND(s, g->dfas, g->n_dfa, &s->scalars);
    return true;
}
