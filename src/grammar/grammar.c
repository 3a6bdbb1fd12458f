/* grammar - parts become rules, rules and types become a grammar; and its life */
#include "grammar/private.h"

enum { PARTS_DEPTH_MAX = 32, PARTS_MAX = 10000 };

struct made { /* a part that was compiled: the same once more is the same rule, or type */
    const struct grammar_part *part;
    uint32_t callee;
};
struct joiner {
    struct build *b;
    struct grammar *g;
    struct rules rules;
    size_t n_part;
    VEC(struct made) made;
};

static struct ast *make_part(struct joiner *j, const struct grammar_part *p, int depth);

static struct ast *add_parts(struct joiner *j, enum ast_kind kind, const struct grammar_part *p, int depth)
{
    struct ast *a = ast_new(j->b, kind);
    for (size_t i = 0; a && i < p->n_part; i++)
        a = ast_add(a, make_part(j, &p->parts[i], depth + 1));
    return a;
}

static struct ast *embed(struct build *b, const struct dfa *d)
{
    struct ast *a = d ? ast_new(b, AST_DFA) : NULL;
    if (a)
        a->dfa = d;
    return a;
}

static struct ast *any_text(struct build *b, uint32_t min)
{
    struct ast *c = ast_new(b, AST_CLASS);
    return c && charset_finish(b, &c->set, true) ? ast_repeat(b, c, min, REPEAT_NO_MAX) : NULL;
}

/* All triggers, as an expression: with any text before them, and at least `after` characters behind them. */
static struct dfa *triggers(struct build *b, const struct grammar_part *p, size_t only, uint32_t after, bool ends)
{
    struct ast *alt = ast_new(b, AST_ALT);
    for (size_t i = 0; alt && i < p->n_part; i++)
        if (only == SIZE_MAX || only == i)
            alt = ast_add(alt, ast_text(b, p->parts[i].trigger));
    struct ast *cat = ast_add(ast_add(ast_new(b, AST_CAT), any_text(b, 0)), alt);
    if (!ends)
        cat = ast_add(cat, any_text(b, after));
    return cat ? dfa_of_ast(b, cat) : NULL;
}

/* (text up to the first trigger, its part){min,max}, text without any. A trigger that ends first is the one. */
static struct ast *make_triggered(struct joiner *j, const struct grammar_part *p, int depth)
{
    struct build *b = j->b;
    struct ast *alt = ast_new(b, AST_ALT);
    struct dfa *any = dfa_any(b), *inside = p->n_part ? triggers(b, p, SIZE_MAX, 0, false) : NULL,
               *before = p->n_part ? triggers(b, p, SIZE_MAX, 1, false) : NULL;
    if (!any || !alt || (p->n_part && (!inside || !before)))
        return NULL;
    for (size_t i = 0; i < p->n_part; i++) {
        struct dfa *ends, *first;
        if (p->parts[i].trigger.len == 0) {
            build_fail(b, ST_INVALID, "a part of free text has no trigger");
            return NULL;
        }
        if (!(ends = triggers(b, p, i, 0, true)) || !(first = dfa_combine(b, ends, before, DFA_AND_NOT)))
            return NULL;
        struct ast *cat = ast_add(ast_new(b, AST_CAT), embed(b, first));
        if (!ast_add(alt, ast_add(cat, make_part(j, &p->parts[i], depth + 1))))
            return NULL;
    }
    struct dfa *rest = p->n_part ? dfa_combine(b, any, inside, DFA_AND_NOT) : any;
    if (!rest || !p->n_part)
        return embed(b, rest);
    uint32_t max = p->max < 0 ? REPEAT_NO_MAX : (uint32_t)p->max;
    return ast_add(ast_add(ast_new(b, AST_CAT), ast_repeat(b, alt, (uint32_t)p->min, max)), embed(b, rest));
}

/* Text that ends in the mark, less what holds it earlier. */
static struct ast *make_until(struct joiner *j, const struct grammar_part *p)
{
    struct build *b = j->b;
    struct grammar_part mark = {.trigger = p->text}, one = {.parts = &mark, .n_part = 1};
    if (p->text.len == 0) {
        build_fail(b, ST_INVALID, "free text until nothing");
        return NULL;
    }
    struct dfa *ends = triggers(b, &one, 0, 0, true), *before = ends ? triggers(b, &one, 0, 1, false) : NULL;
    return before ? embed(b, dfa_combine(b, ends, before, DFA_AND_NOT)) : NULL;
}

static struct ast *call(struct joiner *j, uint32_t callee)
{
    struct ast *a = callee != UINT32_MAX ? ast_new(j->b, AST_CALL) : NULL;
    if (a)
        a->callee = callee;
    return a;
}

static uint32_t find_made(const struct joiner *j, const struct grammar_part *p)
{
    for (size_t i = 0; i < j->made.n; i++) {
        const struct grammar_part *o = j->made.at[i].part;
        if (o->kind == p->kind && o->flags == p->flags && str_eq(o->text, p->text) &&
            str_eq(o->property, p->property) && str_eq(o->trigger, p->trigger))
            return j->made.at[i].callee;
    }
    return UINT32_MAX;
}

/* The type of a schema. */
static uint32_t make_json(struct joiner *j, const struct grammar_part *p, struct str schema)
{
    uint32_t type;
    j->b->what = "json schema";
    j->g->compact |= (p->flags & GRAMMAR_COMPACT) != 0;
    return schema_compile(j->b, j->g, schema, p, &type) ? type | CALL_TYPE : UINT32_MAX;
}

/* The rule of a schema's strings, those that hold the trigger left out. */
static uint32_t make_string(struct joiner *j, const struct grammar_part *p)
{
    struct build *b = j->b;
    struct grammar_part mark = {.trigger = p->trigger}, one = {.parts = &mark, .n_part = 1};
    uint32_t type = make_json(j, p, p->text), rule;
    const struct dfa *all = NULL, *inside = p->trigger.len ? triggers(b, &one, 0, 0, false) : NULL;
    if (type == UINT32_MAX || (p->trigger.len && !inside))
        return UINT32_MAX;
    const struct type *t = &j->g->types[type & ~CALL_TYPE];
    for (uint32_t i = 0; i < t->n_lang; i++) {
        const struct lang *l = &j->g->langs[t->langs[i]];
        const struct dfa *d = inside ? dfa_combine(b, l->dfa, inside, DFA_AND_NOT) : l->dfa;
        if (d && l->counted)
            d = dfa_limit_length(b, d, l->min, l->max);
        all = d && all ? dfa_combine(b, all, d, DFA_OR) : d;
        if (!all)
            return UINT32_MAX;
    }
    if (!all) {
        build_fail(b, ST_INVALID, "it accepts no string");
        return UINT32_MAX;
    }
    if ((rule = rules_add(&j->rules, (struct str){"", 0})) != UINT32_MAX)
        j->rules.rules.at[rule].body = embed(b, all);
    return b->status == ST_OK ? rule : UINT32_MAX;
}

static struct ast *make_once(struct joiner *j, const struct grammar_part *p)
{
    uint32_t callee = find_made(j, p);
    if (callee == UINT32_MAX) {
        callee = p->kind == GRAMMAR_STRING
                     ? make_string(j, p)
                     : make_json(j, p, p->kind == GRAMMAR_JSON ? STR("{\"type\":\"object\"}") : p->text);
        struct made *m = callee != UINT32_MAX ? VEC_ADD(j->b, &j->made) : NULL;
        if (!m)
            return NULL;
        *m = (struct made){p, callee};
    }
    return call(j, callee);
}

static struct ast *make_gbnf(struct joiner *j, const struct grammar_part *p)
{
    uint32_t root;
    j->b->what = "grammar";
    return gbnf_parse(&j->rules, p->text, &root) ? call(j, root) : NULL;
}

static struct ast *make_part(struct joiner *j, const struct grammar_part *p, int depth)
{
    struct build *b = j->b;
    b->what = "grammar";
    if (depth > PARTS_DEPTH_MAX || ++j->n_part > PARTS_MAX) {
        build_fail(b, ST_LIMIT, "more than %d parts, or nested more than %d deep", PARTS_MAX, PARTS_DEPTH_MAX);
        return NULL;
    }
    if (p->text.len > GRAMMAR_SOURCE_MAX) {
        build_fail(b, ST_LIMIT, "the source has %zu bytes: at most %d are accepted", p->text.len, GRAMMAR_SOURCE_MAX);
        return NULL;
    }
    if (p->min < 0 || (p->max >= 0 && p->max < p->min)) {
        build_fail(b, ST_INVALID, "a part repeats %d to %d times", p->min, p->max);
        return NULL;
    }
    switch (p->kind) {
    case GRAMMAR_TEXT:
        return ast_text(b, p->text);
    case GRAMMAR_REGEX:
        b->what = "regex";
        return embed(b, regex_compile(b, p->text, 0));
    case GRAMMAR_GBNF:
        return make_gbnf(j, p);
    case GRAMMAR_JSON:
    case GRAMMAR_SCHEMA:
    case GRAMMAR_STRING:
        return make_once(j, p);
    case GRAMMAR_SEQUENCE:
        return add_parts(j, AST_CAT, p, depth);
    case GRAMMAR_ANY_OF:
        return add_parts(j, AST_ALT, p, depth);
    case GRAMMAR_REPEAT:
        return p->n_part == 1 ? ast_repeat(b, make_part(j, &p->parts[0], depth + 1), (uint32_t)p->min,
                                           p->max < 0 ? REPEAT_NO_MAX : (uint32_t)p->max)
                              : (build_fail(b, ST_INVALID, "a repetition is of one part"), NULL);
    case GRAMMAR_UNTIL:
        return make_until(j, p);
    case GRAMMAR_TRIGGERED:
        return make_triggered(j, p, depth);
    }
    build_fail(b, ST_INVALID, "a part of unknown kind %d", (int)p->kind);
    return NULL;
}

/* ---- rules next to the scalars ---- */

static bool find_final(struct build *b, struct dfa *d)
{
    d->final = build_keep(b, d->n_state, 1);
    for (uint32_t s = 1; d->final && s < d->n_state; s++) {
        bool ends = d->accept[s] && !(d->call_at && d->call_at[s] < d->call_at[s + 1]);
        for (uint32_t c = 0; c < d->n_class && ends; c++)
            ends = d->next[(size_t)s * d->n_class + c] == 0;
        d->final[s] = ends;
    }
    return d->final != NULL;
}

/* Bytes that may begin each rule; rules call each other first, but not in circles. */
static bool find_first(struct build *b, struct grammar *g, uint32_t base)
{
    g->rule_first = build_keep(b, g->n_dfa, sizeof *g->rule_first);
    if (!g->rule_first)
        return false;
    for (uint32_t i = 0; i < g->n_dfa; i++) {
        if (!(g->rule_first[i] = build_keep(b, 4, sizeof(uint64_t))))
            return false;
        for (unsigned byte = 0; !dfa_empty(g->dfas[i]) && byte < 256; byte++)
            if (dfa_next(g->dfas[i], DFA_START, (uint8_t)byte))
                bit_set(g->rule_first[i], byte);
    }
    for (bool changed = true; changed && b->status == ST_OK;) {
        changed = false;
        for (uint32_t i = base; i < g->n_dfa && build_step(b, 1); i++) {
            const struct dfa *d = g->dfas[i];
            for (uint32_t k = d->call_at ? d->call_at[DFA_START] : 0; d->call_at && k < d->call_at[DFA_START + 1]; k++)
                for (int w = 0; w < 4; w++) {
                    uint32_t callee = d->calls[k].callee;
                    uint64_t more =
                        (callee & CALL_TYPE ? g->types[callee & ~CALL_TYPE].first : g->rule_first[callee])[w] &
                        ~g->rule_first[i][w];
                    g->rule_first[i][w] |= more;
                    changed |= more != 0;
                }
        }
    }
    return b->status == ST_OK;
}

static bool add_rules(struct joiner *j)
{
    struct build *b = j->b;
    struct grammar *g = j->g;
    uint32_t base = g->n_dfa, n = (uint32_t)j->rules.rules.n;
    struct dfa **all = build_keep(b, base + n, sizeof(struct dfa *));
    bool *type_empty = build_temp(b, g->n_type + 1, 1);
    if (!all || !type_empty)
        return false;
    for (uint32_t i = 0; i < base; i++)
        all[i] = g->dfas[i];
    for (uint32_t i = 0; i < g->n_type; i++)
        type_empty[i] = g->types[i].empty;
    if (!rules_compile(&j->rules, all + base, type_empty))
        return false;
    g->dfas = all;
    g->n_dfa = base + n;
    for (uint32_t i = base; i < g->n_dfa; i++)
        for (uint32_t k = 0; all[i]->call_at && k < all[i]->call_at[all[i]->n_state]; k++)
            if (!(all[i]->calls[k].callee & CALL_TYPE))
                all[i]->calls[k].callee += base;
    for (uint32_t i = 0; i < g->n_dfa; i++)
        if (!find_final(b, all[i]))
            return false;
    return find_first(b, g, base);
}

static bool compile(struct build *b, struct grammar *g, const struct grammar_part *part)
{
    struct joiner j = {.b = b, .g = g, .rules = {.b = b}};
    struct ast *body = make_part(&j, part, 0);
    uint32_t root = body ? rules_add(&j.rules, (struct str){"", 0}) : UINT32_MAX;
    if (root == UINT32_MAX)
        return false;
    j.rules.rules.at[root].body = body;
    if (!add_rules(&j))
        return false;
    g->root = g->n_dfa - 1;
    return !dfa_empty(g->dfas[g->root]) ||
           build_fail(b, ST_INVALID, "nothing at all would be accepted: the conditions contradict each other");
}

enum status grammar_compile(struct grammar **out, struct grammar_vocab *vocab, const struct grammar_part *part,
                            struct error *err)
{
    struct grammar *g = mem_alloc_zero(1, sizeof *g);
    *out = NULL;
    if (!g)
        return fail_nomem(err, "grammar");
    g->count = 1;
    g->vocab = vocab;
    arena_init(&g->arena, GRAMMAR_BYTES_MAX);
    pthread_mutex_init(&g->lock, NULL);
    struct build b = {.keep = &g->arena, .steps_left = GRAMMAR_STEPS_MAX, .err = err, .what = "grammar"};
    arena_init(&b.temp, GRAMMAR_BYTES_MAX);
    if (!compile(&b, g, part) && b.status == ST_OK)
        b.status = fail_nomem(err, "grammar");
    arena_free(&b.temp);
    if (b.status != ST_OK)
        grammar_release(g);
    else
        *out = g;
    return b.status;
}

struct grammar *grammar_acquire(struct grammar *g)
{
    __atomic_add_fetch(&g->count, 1, __ATOMIC_RELAXED);
    return g;
}

void grammar_release(struct grammar *g)
{
    if (!g || __atomic_sub_fetch(&g->count, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    masks_free(g);
    arena_free(&g->arena);
    pthread_mutex_destroy(&g->lock);
    mem_free(g);
}

const struct grammar_vocab *grammar_vocab_of(const struct grammar *g)
{
    return g->vocab;
}
