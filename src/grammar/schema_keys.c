/* schema_keys - the keywords of objects: rules about which keys have which values */
#include "grammar/schema.h"

uint32_t name_index(struct schema *s, struct str name)
{
    if (!build_step(s->b, s->names.n / 16 + 1))
        return UINT32_MAX;
    for (size_t i = 0; i < s->names.n; i++)
        if (str_eq(s->names.at[i], name))
            return (uint32_t)i;
    struct str *at = VEC_ADD(s->b, &s->names);
    if (!at)
        return UINT32_MAX;
    *at = name;
    return (uint32_t)s->names.n - 1;
}

uint32_t matcher_add(struct schema *s, struct matcher m)
{
    struct matcher *at = VEC_ADD(s->b, &s->matchers);
    if (!at)
        return UINT32_MAX;
    *at = m;
    return (uint32_t)s->matchers.n - 1;
}

static bool matcher_matches(const struct schema *s, uint32_t matcher, struct str name)
{
    const struct matcher *m = &s->matchers.at[matcher];
    switch (m->how) {
    case MATCH_NAME:
        return str_eq(s->names.at[m->name], name);
    case MATCH_DFA:
        return dfa_matches(m->dfa, name);
    case MATCH_ALL:
        return true;
    case MATCH_NONE_OF:
    case MATCH_ANY_OF:
        for (uint32_t i = 0; i < m->n_of; i++)
            if (matcher_matches(s, m->of[i], name)) /* those in a list are plain, or lists that came before */
                return m->how == MATCH_ANY_OF;
        return m->how == MATCH_NONE_OF;
    }
    return false;
}

uint32_t key_type(struct schema *s, const struct product *p, struct str name)
{
    uint32_t type = TYPE_ANY;
    for (size_t i = 0; i < p->rules.n && type != UINT32_MAX; i++)
        if (matcher_matches(s, p->rules.at[i].matcher, name))
            type = type_and(s, type, p->rules.at[i].type);
    return type;
}

static uint32_t match_name(struct schema *s, struct str name)
{
    uint32_t i = name_index(s, name);
    return i == UINT32_MAX ? i : matcher_add(s, (struct matcher){.how = MATCH_NAME, .name = i});
}

static uint32_t match_pattern(struct schema *s, struct str pattern, const struct json *at)
{
    const struct dfa *d = pattern_dfa(s, pattern, at);
    return d ? matcher_add(s, (struct matcher){.how = MATCH_DFA, .dfa = d}) : UINT32_MAX;
}

static bool evaluated(struct schema *s, struct product *p, uint32_t matcher)
{
    uint32_t *at = s->tracked ? VEC_ADD(s->b, &p->keys_evaluated) : NULL;
    if (at)
        *at = matcher;
    return !s->tracked || at;
}

static struct products *expect_map(struct schema *s, const struct json *v, const char *name)
{
    schema_refuse(s, ST_INVALID, v, "\"%s\" is an object", name);
    return NULL;
}

/* Each key's value; or: some key is there with another value. */
static struct products *properties(struct schema *s, const struct json *v, bool negated, bool patterns)
{
    struct products *l = products_none(s);
    struct product *p = product_new(s);
    if (!json_is(v, JSON_OBJECT))
        return expect_map(s, v, patterns ? "patternProperties" : "properties");
    JSON_EACH_MEMBER (key, schema, v) {
        uint32_t matcher = patterns ? match_pattern(s, key, schema) : match_name(s, key),
                 type = matcher == UINT32_MAX ? matcher : type_of(s, schema, negated);
        if (!l || !p || type == UINT32_MAX)
            return NULL;
        if (!negated) {
            if (!product_rule(s, p, matcher, type) || !evaluated(s, p, matcher))
                return NULL;
            continue;
        }
        if (type == TYPE_NONE)
            continue;
        p = product_new(s);
        if (!p || !(patterns ? product_want(s, p, matcher, type)
                             : product_rule(s, p, matcher, type) && product_require(s, p, name_index(s, key))))
            return NULL;
        l = products_or(s, l, products_one(s, p));
    }
    return negated ? l : products_one(s, p);
}

/* Keys that neither `properties` nor `patternProperties` of the same schema name. */
static struct products *additional(struct schema *s, const struct json *schema, const struct json *v, bool negated)
{
    const struct json *names = json_get(schema, "properties"), *patterns = json_get(schema, "patternProperties");
    uint32_t n = 0, *of = build_temp(s->b, json_count(names) + json_count(patterns) + 1, sizeof *of);
    struct product *p = product_new(s);
    if (!of || !p)
        return NULL;
    JSON_EACH_MEMBER (key, item, names) {
        (void)item;
        if ((of[n++] = match_name(s, key)) == UINT32_MAX)
            return NULL;
    }
    JSON_EACH_MEMBER (pattern, value, patterns) {
        if ((of[n++] = match_pattern(s, pattern, value)) == UINT32_MAX)
            return NULL;
    }
    uint32_t matcher = matcher_add(s, (struct matcher){.how = MATCH_NONE_OF, .of = of, .n_of = n}),
             type = matcher == UINT32_MAX ? matcher : type_of(s, v, negated);
    if (type == UINT32_MAX)
        return NULL;
    if (negated)
        return type == TYPE_NONE ? products_none(s) : product_want(s, p, matcher, type) ? products_one(s, p) : NULL;
    return product_rule(s, p, matcher, type) && evaluated(s, p, matcher) ? products_one(s, p) : NULL;
}

/* The language of the names that the schema allows. */
static const struct dfa *names_dfa(struct schema *s, const struct json *v)
{
    struct products *l = schema_products(s, v, false, KIND_STRING);
    const struct dfa *all = NULL;
    for (size_t i = 0; l && i < l->p.n; i++) {
        const struct product *p = l->p.at[i];
        const struct dfa *d = product_dfa(s, p, KIND_STRING);
        if (d && (p->min || p->max != REPEAT_NO_MAX))
            d = dfa_limit_length(s->b, d, p->min, p->max);
        all = !d ? NULL : all ? dfa_combine(s->b, all, d, DFA_OR) : d;
        if (!all)
            return NULL;
    }
    return l && l->p.n == 0 ? dfa_of_ast(s->b, ast_new(s->b, AST_ALT)) : all;
}

static struct products *names(struct schema *s, const struct json *v, bool negated)
{
    const struct dfa *d = names_dfa(s, v);
    uint32_t *of = d ? build_temp(s->b, 1, sizeof *of) : NULL;
    struct product *p = product_new(s);
    if (!of || !p || (of[0] = matcher_add(s, (struct matcher){.how = MATCH_DFA, .dfa = d})) == UINT32_MAX)
        return NULL;
    uint32_t others = matcher_add(s, (struct matcher){.how = MATCH_NONE_OF, .of = of, .n_of = 1});
    bool ok = negated ? product_want(s, p, others, TYPE_ANY) : product_rule(s, p, others, TYPE_NONE);
    return ok ? products_one(s, p) : NULL;
}

static struct products *present(struct schema *s, struct str name)
{
    struct product *p = product_new(s);
    return p && product_require(s, p, name_index(s, name)) ? products_one(s, p) : NULL;
}
static struct products *absent(struct schema *s, struct str name)
{
    struct product *p = product_new(s);
    return p && product_rule(s, p, match_name(s, name), TYPE_NONE) ? products_one(s, p) : NULL;
}

static struct products *required(struct schema *s, const struct json *v, bool negated)
{
    struct products *l = negated ? products_none(s) : products_all(s);
    if (!json_is(v, JSON_ARRAY)) {
        schema_refuse(s, ST_INVALID, v, "a list of names was expected");
        return NULL;
    }
    JSON_EACH (item, v) {
        if (!json_is(item, JSON_STRING)) {
            schema_refuse(s, ST_INVALID, item, "a name was expected");
            return NULL;
        }
        l = !l        ? NULL
            : negated ? products_or(s, l, absent(s, json_str(item)))
                      : products_and(s, l, present(s, json_str(item)), KIND_OBJECT);
    }
    return l;
}

/* For each key: it is absent, or there and more holds. Negated: one is there, and that does not hold. */
static struct products *dependent(struct schema *s, const struct json *v, bool negated)
{
    struct products *l = negated ? products_none(s) : products_all(s);
    if (!json_is(v, JSON_OBJECT))
        return expect_map(s, v, "dependencies");
    JSON_EACH_MEMBER (key, more, v) {
        struct products *holds =
            json_is(more, JSON_ARRAY) ? required(s, more, negated) : schema_products(s, more, negated, KIND_OBJECT);
        struct products *both = holds ? products_and(s, present(s, key), holds, KIND_OBJECT) : NULL;
        l = !l || !both ? NULL
            : negated   ? products_or(s, l, both)
                        : products_and(s, l, products_or(s, absent(s, key), both), KIND_OBJECT);
        if (!l)
            return NULL;
    }
    return l;
}

struct products *object_keyword(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                                bool negated)
{
    if (!strcmp(name, "properties") || !strcmp(name, "patternProperties"))
        return properties(s, v, negated, name[1] == 'a');
    if (!strcmp(name, "additionalProperties"))
        return additional(s, schema, v, negated);
    if (!strcmp(name, "propertyNames"))
        return names(s, v, negated);
    if (!strcmp(name, "required"))
        return required(s, v, negated);
    if (!strncmp(name, "depend", 6))
        return dependent(s, v, negated);
    return count_bound(s, v, !strcmp(name, "minProperties"), negated);
}
