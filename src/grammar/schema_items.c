/* schema_items - the keywords of arrays */
#include "grammar/schema.h"

enum { CONTAINS_MAX = 1000 };

static bool fill_any(struct schema *s, struct product *p, size_t n)
{
    while (p->prefix.n < n) {
        uint32_t *at = VEC_ADD(s->b, &p->prefix);
        if (!at)
            return false;
        *at = TYPE_ANY;
    }
    return true;
}

/* The first items, one type each; or: one of them is there and of another type. */
static struct products *prefix(struct schema *s, const struct json *list, bool negated)
{
    struct products *l = products_none(s);
    struct product *p = product_new(s);
    size_t i = 0;
    JSON_EACH (item, list) {
        if (negated)
            p = product_new(s);
        if (!l || !p || !fill_any(s, p, i))
            return NULL;
        uint32_t *at = VEC_ADD(s->b, &p->prefix), type = type_of(s, item, negated);
        if (!at || type == UINT32_MAX)
            return NULL;
        *at = type;
        i++;
        if (!negated)
            continue;
        p->min = (uint32_t)i;
        if (type != TYPE_NONE)
            l = products_or(s, l, products_one(s, p));
    }
    if (!negated && p)
        p->items_evaluated = (uint32_t)i;
    return negated ? l : products_one(s, p);
}

/* All items from `from` on; or: one of them is of another type. */
static struct products *rest(struct schema *s, const struct json *v, size_t from, bool negated)
{
    struct product *p = product_new(s);
    uint32_t type = type_of(s, v, negated);
    if (!p || type == UINT32_MAX)
        return NULL;
    if (negated) {
        struct wanted *w = type == TYPE_NONE ? NULL : VEC_ADD(s->b, &p->wanted);
        if (type == TYPE_NONE)
            return products_none(s);
        if (!w)
            return NULL;
        *w = (struct wanted){.type = type, .from = (uint32_t)from, .min = 1, .max = REPEAT_NO_MAX};
        p->min = (uint32_t)from + 1;
        return products_one(s, p);
    }
    if (!fill_any(s, p, from))
        return NULL;
    p->rest = type;
    p->items_evaluated = REPEAT_NO_MAX;
    return products_one(s, p);
}

static struct products *contains(struct schema *s, const struct json *v, uint32_t min, uint32_t max)
{
    struct product *p = product_new(s);
    uint32_t type = type_of(s, v, false), against = type_of(s, v, true);
    if (min > max)
        return products_none(s);
    if (min == 0 && max == REPEAT_NO_MAX)
        return products_one(s, p);
    struct wanted *w = p && type != UINT32_MAX && against != UINT32_MAX ? VEC_ADD(s->b, &p->wanted) : NULL;
    if (!w)
        return NULL;
    *w = (struct wanted){.type = type, .min = min, .max = max, .against = against};
    p->min = min;
    return products_one(s, p);
}

static struct products *contains_keyword(struct schema *s, const struct json *schema, const struct json *v,
                                         bool negated)
{
    const struct json *low = json_get(schema, "minContains"), *high = json_get(schema, "maxContains");
    uint32_t min = 1, max = REPEAT_NO_MAX;
    if ((low && !schema_count(s, low, &min)) || (high && !schema_count(s, high, &max)))
        return NULL;
    if (min > CONTAINS_MAX || (max != REPEAT_NO_MAX && max > CONTAINS_MAX)) {
        schema_refuse(s, ST_UNSUPPORTED, v, "\"contains\" with counts over %d", CONTAINS_MAX);
        return NULL;
    }
    if (s->tracked_items && s->draft >= 2020) {
        schema_refuse(s, ST_UNSUPPORTED, v, "\"contains\" together with \"unevaluatedItems\"");
        return NULL;
    }
    if (!negated)
        return contains(s, v, min, max);
    struct products *l = min ? contains(s, v, 0, min - 1) : products_none(s);
    return max == REPEAT_NO_MAX ? l : products_or(s, l, contains(s, v, max + 1, REPEAT_NO_MAX));
}

static struct products *unique_keyword(struct schema *s, const struct json *v, bool negated)
{
    struct product *p = product_new(s);
    if (json_is(v, JSON_FALSE))
        return negated ? products_none(s) : products_one(s, p);
    if (negated || !json_is(v, JSON_TRUE)) {
        schema_refuse(s, negated ? ST_UNSUPPORTED : ST_INVALID, v,
                      negated ? "\"uniqueItems\" cannot be negated" : "\"uniqueItems\" is true or false");
        return NULL;
    }
    if (p) {
        p->unique = true;
        p->unique_at = node_of(s, v);
    }
    return products_one(s, p);
}

struct products *array_keyword(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                               bool negated)
{
    const struct json *items = json_get(schema, "items"), *first = json_get(schema, "prefixItems");
    bool tuple = json_is(items, JSON_ARRAY);
    if (!strcmp(name, "prefixItems") || (!strcmp(name, "items") && tuple)) {
        if (!json_is(v, JSON_ARRAY)) {
            schema_refuse(s, ST_INVALID, v, "\"%s\" is a list of schemas", name);
            return NULL;
        }
        return prefix(s, v, negated);
    }
    if (!strcmp(name, "items"))
        return rest(s, v, json_count(first), negated);
    if (!strcmp(name, "additionalItems"))
        return tuple ? rest(s, v, json_count(items), negated) : negated ? products_none(s) : products_all(s);
    if (!strcmp(name, "contains"))
        return contains_keyword(s, schema, v, negated);
    if (!strcmp(name, "uniqueItems"))
        return unique_keyword(s, v, negated);
    return count_bound(s, v, !strcmp(name, "minItems"), negated);
}
