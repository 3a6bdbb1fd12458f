/* schema_logic - types, unions of products, and the keywords that combine schemas
 *
 * Negation goes down to the plain conditions: not (A and B) = not A or not B. oneOf is only worked out where its
 * alternatives can overlap. What a product says was evaluated is a lower bound: of anyOf's alternatives, every set that
 * may hold together is a product of its own, so that for each value some product says all.
 */
#include "grammar/schema.h"

/* ---- types ---- */

static int ascending(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return a < b ? -1 : a > b;
}

static uint32_t type_put(struct schema *s, uint32_t *items, size_t n)
{
    size_t kept = 0;
    if (n)
        qsort(items, n, sizeof *items, ascending);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || items[kept - 1] != items[i])
            items[kept++] = items[i];
    for (size_t i = 1; i < kept; i++)
        if ((items[i] ^ items[i - 1]) == ITEM_NEGATED) /* A and not A */
            return TYPE_NONE;
    if (!build_step(s->b, s->types.n / 8 + 1))
        return UINT32_MAX;
    for (size_t i = 0; i < s->types.n; i++) {
        const struct type_key *t = &s->types.at[i];
        if (t->n == kept && i != TYPE_NONE &&
            (kept == 0 || memcmp(s->items.at + t->at, items, kept * sizeof *items) == 0))
            return (uint32_t)i;
    }
    if (s->types.n >= TYPES_MAX) {
        build_fail(s->b, ST_LIMIT, "too complex: more than %d different types", TYPES_MAX);
        return UINT32_MAX;
    }
    struct type_key *t = VEC_ROOM(s->b, &s->items, kept) ? VEC_ADD(s->b, &s->types) : NULL;
    if (!t)
        return UINT32_MAX;
    *t = (struct type_key){(uint32_t)s->items.n, (uint32_t)kept};
    if (kept)
        memcpy(s->items.at + s->items.n, items, kept * sizeof *items);
    s->items.n += kept;
    return (uint32_t)s->types.n - 1;
}

uint32_t type_of(struct schema *s, const struct json *v, bool negated)
{
    if (json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE))
        return json_is(v, JSON_TRUE) != negated ? TYPE_ANY : TYPE_NONE;
    if (json_is(v, JSON_OBJECT) && v->count == 0)
        return negated ? TYPE_NONE : TYPE_ANY;
    uint32_t item = node_of(s, v) << ITEM_SHIFT | (negated ? ITEM_NEGATED : 0);
    return type_put(s, &item, 1);
}

uint32_t type_of_literal(struct schema *s, const struct json *v, bool negated)
{
    uint32_t item = node_of(s, v) << ITEM_SHIFT | ITEM_LITERAL | (negated ? ITEM_NEGATED : 0);
    return type_put(s, &item, 1);
}

uint32_t type_and(struct schema *s, uint32_t a, uint32_t b)
{
    if (a == UINT32_MAX || b == UINT32_MAX)
        return UINT32_MAX;
    if (a == TYPE_NONE || b == TYPE_NONE)
        return TYPE_NONE;
    if (a == TYPE_ANY || a == b)
        return b;
    if (b == TYPE_ANY)
        return a;
    struct type_key x = s->types.at[a], y = s->types.at[b];
    uint32_t *items = build_temp(s->b, x.n + y.n, sizeof *items);
    if (!items)
        return UINT32_MAX;
    memcpy(items, s->items.at + x.at, x.n * sizeof *items);
    memcpy(items + x.n, s->items.at + y.at, y.n * sizeof *items);
    return type_put(s, items, x.n + y.n);
}

struct products *type_products(struct schema *s, uint32_t type, enum kind kind)
{
    struct type_key t = s->types.at[type];
    struct products *l = type == TYPE_NONE ? products_none(s) : products_all(s);
    for (uint32_t i = 0; l && i < t.n; i++) {
        uint32_t item = s->items.at[t.at + i];
        const struct json *v = s->root + (item >> ITEM_SHIFT);
        struct products *one = item & ITEM_LITERAL ? literal_products(s, v, item & ITEM_NEGATED, kind)
                                                   : schema_products(s, v, item & ITEM_NEGATED, kind);
        l = one ? products_and(s, l, one, kind) : NULL;
    }
    return l;
}

/* ---- overlap ---- */

static bool type_surely_empty(struct schema *s, uint32_t type, int depth);

static bool product_surely_empty(struct schema *s, const struct product *p, enum kind kind, int depth)
{
    if (product_plainly_empty(p, kind))
        return true;
    if (kind == KIND_NUMBER || kind == KIND_STRING) {
        const struct dfa *d = product_dfa(s, p, kind);
        return d && dfa_empty(d);
    }
    if (kind == KIND_ARRAY)
        for (uint32_t i = 0; i < p->min && i <= p->prefix.n; i++)
            if (type_surely_empty(s, item_type_at(p, i), depth + 1))
                return true;
    for (size_t i = 0; kind == KIND_OBJECT && i < p->required.n; i++)
        if (type_surely_empty(s, key_type(s, p, s->names.at[p->required.at[i]]), depth + 1))
            return true;
    return false;
}

static bool type_surely_empty(struct schema *s, uint32_t type, int depth)
{
    if (type == UINT32_MAX || type == TYPE_ANY || type == TYPE_NONE || depth > 3)
        return type == TYPE_NONE;
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        struct products *l = type_products(s, type, (enum kind)kind);
        for (size_t i = 0; !l || i < l->p.n; i++)
            if (!l || !product_surely_empty(s, l->p.at[i], (enum kind)kind, depth))
                return false;
    }
    return true;
}

static bool overlap(struct schema *s, struct products *a, struct products *b, enum kind kind)
{
    for (size_t i = 0; i < a->p.n; i++)
        for (size_t k = 0; k < b->p.n; k++) {
            struct product *p = product_and(s, a->p.at[i], b->p.at[k], kind);
            if (!p || !product_surely_empty(s, p, kind, 0))
                return true;
        }
    return false;
}

/* ---- what combines ---- */

static struct products *forget_evaluated(struct schema *s, struct products *l)
{
    struct products *out = l ? products_none(s) : NULL;
    for (size_t i = 0; out && i < l->p.n; i++) {
        struct product *copy = build_temp(s->b, 1, sizeof *copy), **at = copy ? VEC_ADD(s->b, &out->p) : NULL;
        if (!at)
            return NULL;
        *copy = *l->p.at[i];
        copy->items_evaluated = 0;
        copy->keys_evaluated.n = copy->keys_evaluated.capacity = 0;
        *at = copy;
    }
    return out;
}

static struct products *all_of(struct schema *s, const struct json *list, bool negated, enum kind kind)
{
    struct products *l = products_all(s);
    JSON_EACH (item, list)
        l = l ? products_and(s, l, schema_products(s, item, negated, kind), kind) : NULL;
    return l;
}

static struct products *one_by_one(struct schema *s, const struct json *list, bool negated, enum kind kind)
{
    struct products *l = products_none(s);
    JSON_EACH (item, list)
        l = l ? products_or(s, l, schema_products(s, item, negated, kind)) : NULL;
    return l;
}

/* With what was evaluated: every set of alternatives that hold together. */
static struct products *any_of_tracked(struct schema *s, const struct json *list, enum kind kind)
{
    struct products *l = products_none(s);
    if (json_count(list) > ANY_OF_TRACKED_MAX) {
        schema_refuse(s, ST_UNSUPPORTED, list,
                      "more than %d alternatives of anyOf where unevaluatedItems or "
                      "unevaluatedProperties are used",
                      ANY_OF_TRACKED_MAX);
        return NULL;
    }
    for (unsigned set = 1; l && set < 1u << json_count(list); set++) {
        struct products *both = products_all(s);
        unsigned i = 0;
        JSON_EACH (item, list) {
            if (set >> i++ & 1)
                both = both ? products_and(s, both, schema_products(s, item, false, kind), kind) : NULL;
        }
        l = both ? products_or(s, l, both) : NULL;
    }
    return l;
}

/* Exactly one: it, and none of those it overlaps with. */
static struct products *one_of(struct schema *s, const struct json *list, enum kind kind)
{
    size_t n = json_count(list);
    struct products **each = build_temp(s->b, n + 1, sizeof *each), *l = products_none(s);
    if (!each || !l)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!(each[i] = schema_products(s, json_at(list, i), false, kind)))
            return NULL;
    for (size_t i = 0; i < n && l; i++) {
        struct products *one = each[i];
        for (size_t k = 0; k < n && one; k++)
            if (k != i && one->p.n && each[k]->p.n && overlap(s, one, each[k], kind))
                one = products_and(s, one, forget_evaluated(s, schema_products(s, json_at(list, k), true, kind)), kind);
        l = one ? products_or(s, l, one) : NULL;
    }
    return s->b->status == ST_OK ? l : NULL;
}

/* None, or two of them. */
static struct products *not_one_of(struct schema *s, const struct json *list, enum kind kind)
{
    struct products *l = all_of(s, list, true, kind);
    for (size_t i = 0; l && i < json_count(list); i++)
        for (size_t k = i + 1; l && k < json_count(list); k++) {
            struct products *a = schema_products(s, json_at(list, i), false, kind),
                            *b = schema_products(s, json_at(list, k), false, kind);
            l = a && b ? products_or(s, l, products_and(s, a, b, kind)) : NULL;
        }
    return l;
}

static struct products *if_then_else(struct schema *s, const struct json *schema, const struct json *condition,
                                     bool negated, enum kind kind)
{
    const struct json *then = json_get(schema, "then"), *otherwise = json_get(schema, "else");
    if (!then && !otherwise && (!s->tracked || negated))
        return negated ? products_none(s) : products_all(s);
    struct products *yes = schema_products(s, condition, false, kind),
                    *no = yes ? forget_evaluated(s, schema_products(s, condition, true, kind)) : NULL;
    struct products *a = then ? schema_products(s, then, negated, kind) : negated ? products_none(s) : products_all(s);
    struct products *b = otherwise ? schema_products(s, otherwise, negated, kind)
                         : negated ? products_none(s)
                                   : products_all(s);
    if (!yes || !no || !a || !b)
        return NULL;
    return products_or(s, products_and(s, yes, a, kind), products_and(s, no, b, kind));
}

static struct products *type_keyword(struct schema *s, const struct json *v, bool negated, enum kind kind)
{
    static const char *const names[] = {"null", "boolean", "number", "string", "array", "object"};
    bool whole = false, integers = false;
    const struct json *end = json_is(v, JSON_ARRAY) ? v + v->size : json_next(v);
    for (const struct json *item = json_is(v, JSON_ARRAY) ? v + 1 : v; item < end; item = json_next(item)) {
        struct str name = json_str(item);
        int known = str_is(name, "integer") || str_is(name, "any") ? KIND_COUNT : -1;
        for (int i = 0; i < KIND_COUNT && known < 0; i++)
            known = str_is(name, names[i]) ? i : -1;
        if (known < 0) {
            schema_refuse(s, ST_INVALID, item,
                          "\"type\" names null, boolean, number, integer, string, array or object");
            return NULL;
        }
        whole |= known == (int)kind || str_is(name, "any");
        integers |= str_is(name, "integer");
    }
    if (whole || kind != KIND_NUMBER || !integers)
        return whole != negated ? products_all(s) : products_none(s);
    return number_keyword(s, v, "integer", v, negated);
}

static struct products *enum_keyword(struct schema *s, const struct json *v, bool negated, enum kind kind)
{
    struct products *l = negated ? products_all(s) : products_none(s);
    if (!json_is(v, JSON_ARRAY)) {
        schema_refuse(s, ST_INVALID, v, "\"enum\" is a list");
        return NULL;
    }
    if (kind == KIND_STRING || kind == KIND_NUMBER) /* all at once: one automaton */
        return literal_list(s, v, negated, kind);
    JSON_EACH (item, v) {
        struct products *one = l ? literal_products(s, item, negated, kind) : NULL;
        l = !one ? NULL : negated ? products_and(s, l, one, kind) : products_or(s, l, one);
    }
    return l;
}

static struct products *combine(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                                bool negated, enum kind kind)
{
    bool list = !strcmp(name, "allOf") || !strcmp(name, "anyOf") || !strcmp(name, "oneOf");
    if (list && !json_is(v, JSON_ARRAY)) {
        schema_refuse(s, ST_INVALID, v, "\"%s\" is a list of schemas", name);
        return NULL;
    }
    if (!strcmp(name, "allOf"))
        return negated ? one_by_one(s, v, true, kind) : all_of(s, v, false, kind);
    if (!strcmp(name, "anyOf"))
        return negated      ? all_of(s, v, true, kind)
               : s->tracked ? any_of_tracked(s, v, kind)
                            : one_by_one(s, v, false, kind);
    if (!strcmp(name, "oneOf"))
        return negated ? not_one_of(s, v, kind) : one_of(s, v, kind);
    if (!strcmp(name, "not"))
        return forget_evaluated(s, schema_products(s, v, !negated, kind));
    if (!strcmp(name, "if"))
        return if_then_else(s, schema, v, negated, kind);
    if (!strcmp(name, "type"))
        return type_keyword(s, v, negated, kind);
    if (!strcmp(name, "enum"))
        return enum_keyword(s, v, negated, kind);
    if (!strcmp(name, "const"))
        return literal_products(s, v, negated, kind);
    const struct json *to = !strcmp(name, "$dynamicRef")     ? ref_find_dynamic(s, v, schema)
                            : !strcmp(name, "$recursiveRef") ? s->resources.at[s->resource_of[node_of(s, schema)]].root
                                                             : ref_find(s, v, schema);
    return to ? schema_products(s, to, negated, kind) : NULL;
}

/* ---- one schema ---- */

static const struct keyword {
    const char *name;
    int kind; /* KIND_COUNT: of all */
} keywords[] = {
    {"$ref", KIND_COUNT},
    {"$dynamicRef", KIND_COUNT},
    {"$recursiveRef", KIND_COUNT},
    {"type", KIND_COUNT},
    {"enum", KIND_COUNT},
    {"const", KIND_COUNT},
    {"allOf", KIND_COUNT},
    {"anyOf", KIND_COUNT},
    {"oneOf", KIND_COUNT},
    {"not", KIND_COUNT},
    {"if", KIND_COUNT},
    {"minimum", KIND_NUMBER},
    {"maximum", KIND_NUMBER},
    {"exclusiveMinimum", KIND_NUMBER},
    {"exclusiveMaximum", KIND_NUMBER},
    {"multipleOf", KIND_NUMBER},
    {"divisibleBy", KIND_NUMBER},
    {"minLength", KIND_STRING},
    {"maxLength", KIND_STRING},
    {"pattern", KIND_STRING},
    {"format", KIND_STRING},
    {"minItems", KIND_ARRAY},
    {"maxItems", KIND_ARRAY},
    {"uniqueItems", KIND_ARRAY},
    {"prefixItems", KIND_ARRAY},
    {"items", KIND_ARRAY},
    {"additionalItems", KIND_ARRAY},
    {"contains", KIND_ARRAY},
    {"minProperties", KIND_OBJECT},
    {"maxProperties", KIND_OBJECT},
    {"properties", KIND_OBJECT},
    {"required", KIND_OBJECT},
    {"patternProperties", KIND_OBJECT},
    {"additionalProperties", KIND_OBJECT},
    {"propertyNames", KIND_OBJECT},
    {"dependentRequired", KIND_OBJECT},
    {"dependentSchemas", KIND_OBJECT},
    {"dependencies", KIND_OBJECT},
    {"unevaluatedItems", KIND_ARRAY}, /* these two last: they look at what the others have evaluated */
    {"unevaluatedProperties", KIND_OBJECT},
};

static struct products *keyword_products(struct schema *s, const struct json *schema, const struct keyword *k,
                                         const struct json *v, bool negated, enum kind kind)
{
    if (k->kind == KIND_COUNT)
        return combine(s, schema, k->name, v, negated, kind);
    switch (kind) {
    case KIND_NUMBER:
        return number_keyword(s, schema, k->name, v, negated);
    case KIND_STRING:
        return string_keyword(s, k->name, v, negated);
    case KIND_ARRAY:
        return array_keyword(s, schema, k->name, v, negated);
    case KIND_OBJECT:
        return object_keyword(s, schema, k->name, v, negated);
    case KIND_NULL:
    case KIND_BOOL:
    case KIND_COUNT:
        break;
    }
    return NULL;
}

/* What the schema itself has not evaluated must be of the type. */
static struct products *apply_unevaluated(struct schema *s, struct products *l, const struct json *v, enum kind kind)
{
    uint32_t type = type_of(s, v, false);
    struct products *out = l && type != UINT32_MAX ? products_none(s) : NULL;
    for (size_t i = 0; out && i < l->p.n; i++) {
        struct product *p = product_and(s, l->p.at[i], product_new(s), kind), **at = p ? VEC_ADD(s->b, &out->p) : NULL;
        if (!at)
            return NULL;
        *at = p;
        if (kind == KIND_ARRAY && p->items_evaluated != REPEAT_NO_MAX) {
            while (p->prefix.n < p->items_evaluated) {
                uint32_t *more = VEC_ADD(s->b, &p->prefix);
                if (!more)
                    return NULL;
                *more = p->rest;
            }
            for (size_t k = p->items_evaluated; k < p->prefix.n; k++)
                if ((p->prefix.at[k] = type_and(s, p->prefix.at[k], type)) == UINT32_MAX)
                    return NULL;
            p->rest = type_and(s, p->rest, type);
        }
        p->items_evaluated = REPEAT_NO_MAX;
        if (kind == KIND_OBJECT) {
            uint32_t none = matcher_add(s, (struct matcher){.how = MATCH_NONE_OF,
                                                            .of = p->keys_evaluated.at,
                                                            .n_of = (uint32_t)p->keys_evaluated.n}),
                     all = matcher_add(s, (struct matcher){.how = MATCH_ALL}),
                     *evaluated = VEC_ADD(s->b, &p->keys_evaluated);
            struct key_rule *r = VEC_ADD(s->b, &p->rules);
            if (!evaluated || !r || none == UINT32_MAX || all == UINT32_MAX)
                return NULL;
            *evaluated = all;
            *r = (struct key_rule){none, type};
        }
    }
    return out;
}

static struct products *work_out(struct schema *s, const struct json *v, bool negated, enum kind kind)
{
    if (json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE))
        return json_is(v, JSON_TRUE) != negated ? products_all(s) : products_none(s);
    if (!json_is(v, JSON_OBJECT)) {
        schema_refuse(s, ST_INVALID, v, "a schema is an object, true or false");
        return NULL;
    }
    bool lone_ref = s->draft <= 7 && json_get(v, "$ref");
    struct products *l = negated ? products_none(s) : products_all(s);
    for (size_t i = 0; l && i < sizeof keywords / sizeof *keywords; i++) {
        const struct keyword *k = &keywords[i];
        const struct json *value = json_get(v, k->name);
        if (!value || (k->kind != KIND_COUNT && k->kind != (int)kind) || (lone_ref && i > 0))
            continue;
        if (!strncmp(k->name, "unevaluated", 11)) {
            if (negated) {
                schema_refuse(s, ST_UNSUPPORTED, value, "\"%s\" cannot be negated", k->name);
                return NULL;
            }
            l = apply_unevaluated(s, l, value, kind);
            continue;
        }
        struct products *one = keyword_products(s, v, k, value, negated, kind);
        l = !one ? NULL : negated ? products_or(s, l, one) : products_and(s, l, one, kind);
    }
    return l;
}

static bool grow_memo(struct schema *s)
{
    size_t mask = s->memo_mask ? s->memo_mask * 2 + 1 : 255;
    uint32_t *slots = build_temp(s->b, mask + 1, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < s->memo.n; i++) {
        size_t h = (s->memo.at[i].key * 0x9E3779B97F4A7C15u >> 20) & mask;
        while (slots[h])
            h = (h + 1) & mask;
        slots[h] = (uint32_t)i + 1;
    }
    s->memo_slots = slots;
    s->memo_mask = mask;
    return true;
}

struct products *schema_products(struct schema *s, const struct json *v, bool negated, enum kind kind)
{
    uint64_t key = (uint64_t)node_of(s, v) << 4 | (uint64_t)negated << 3 | (uint64_t)kind;
    if (s->memo.n * 2 >= s->memo_mask && !grow_memo(s))
        return NULL;
    size_t h = (key * 0x9E3779B97F4A7C15u >> 20) & s->memo_mask;
    for (; s->memo_slots[h]; h = (h + 1) & s->memo_mask) {
        const struct memo *m = &s->memo.at[s->memo_slots[h] - 1];
        if (m->key != key)
            continue;
        if (!m->list && s->b->status == ST_OK)
            schema_refuse(s, ST_INVALID, v, "the schema refers to itself without ever looking at a part of the value");
        return m->list;
    }
    struct memo *m = VEC_ADD(s->b, &s->memo);
    if (!m)
        return NULL;
    *m = (struct memo){key, NULL};
    size_t index = s->memo.n - 1;
    s->memo_slots[h] = (uint32_t)index + 1;
    if (++s->depth > AST_DEPTH_MAX) {
        schema_refuse(s, ST_LIMIT, v, "schemas combined more than %d deep", AST_DEPTH_MAX);
        return NULL;
    }
    struct products *l = work_out(s, v, negated, kind);
    s->depth--;
    s->memo.at[index].list = l;
    return l;
}
