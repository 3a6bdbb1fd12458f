/* schema_products - unions of products: or, and */
#include "grammar/schema.h"

struct product *product_new(struct schema *s)
{
    struct product *p = build_temp(s->b, 1, sizeof *p);
    if (p) {
        p->bools = 3;
        p->max = REPEAT_NO_MAX;
        p->rest = TYPE_ANY;
    }
    return p;
}

struct products *products_none(struct schema *s)
{
    return build_temp(s->b, 1, sizeof(struct products));
}

struct products *products_one(struct schema *s, struct product *p)
{
    struct products *l = p ? products_none(s) : NULL;
    struct product **at = l ? VEC_ADD(s->b, &l->p) : NULL;
    if (!at)
        return NULL;
    *at = p;
    return l;
}

struct products *products_all(struct schema *s)
{
    return products_one(s, product_new(s));
}

static bool too_many(struct schema *s, size_t n)
{
    if (n <= PRODUCTS_MAX)
        return false;
    build_fail(s->b, ST_LIMIT,
               "too complex: its combinations make more than %d alternatives; simplify oneOf, not and "
               "anyOf",
               PRODUCTS_MAX);
    return true;
}

struct products *products_or(struct schema *s, struct products *a, struct products *b)
{
    struct products *l = a && b ? products_none(s) : NULL;
    if (!l || too_many(s, a->p.n + b->p.n) || !VEC_ROOM(s->b, &l->p, a->p.n + b->p.n))
        return NULL;
    for (size_t i = 0; i < a->p.n; i++)
        l->p.at[l->p.n++] = a->p.at[i];
    for (size_t i = 0; i < b->p.n; i++)
        l->p.at[l->p.n++] = b->p.at[i];
    return l;
}

#define APPEND(s, to, from)                                                                                            \
    (VEC_ROOM((s)->b, to, (from)->n) &&                                                                                \
     ((from)->n == 0 || memcpy((to)->at + (to)->n, (from)->at, (from)->n * sizeof *(from)->at) != NULL) &&             \
     ((to)->n += (from)->n, true))

uint32_t item_type_at(const struct product *p, size_t i)
{
    return i < p->prefix.n ? p->prefix.at[i] : p->rest;
}

static bool and_items(struct schema *s, struct product *p, const struct product *a, const struct product *b)
{
    size_t n = a->prefix.n > b->prefix.n ? a->prefix.n : b->prefix.n;
    if (!VEC_ROOM(s->b, &p->prefix, n))
        return false;
    for (size_t i = 0; i < n; i++) {
        uint32_t t = type_and(s, item_type_at(a, i), item_type_at(b, i));
        if (t == UINT32_MAX)
            return false;
        p->prefix.at[p->prefix.n++] = t;
    }
    p->rest = type_and(s, a->rest, b->rest);
    p->unique = a->unique || b->unique;
    p->unique_at = a->unique ? a->unique_at : b->unique_at;
    p->items_evaluated = a->items_evaluated > b->items_evaluated ? a->items_evaluated : b->items_evaluated;
    return p->rest != UINT32_MAX;
}

static bool and_keys(struct schema *s, struct product *p, const struct product *a, const struct product *b)
{
    if (!APPEND(s, &p->rules, &a->rules) || !APPEND(s, &p->rules, &b->rules) ||
        !APPEND(s, &p->required, &a->required) || !APPEND(s, &p->keys_evaluated, &a->keys_evaluated) ||
        !APPEND(s, &p->keys_evaluated, &b->keys_evaluated))
        return false;
    for (size_t i = 0; i < b->required.n; i++) {
        bool has = false;
        for (size_t k = 0; k < a->required.n && !has; k++)
            has = a->required.at[k] == b->required.at[i];
        uint32_t *at = has ? NULL : VEC_ADD(s->b, &p->required);
        if (!has && !at)
            return false;
        if (at)
            *at = b->required.at[i];
    }
    return true;
}

struct product *product_and(struct schema *s, const struct product *a, const struct product *b, enum kind kind)
{
    struct product *p = build_step(s->b, 8) ? product_new(s) : NULL;
    if (!p)
        return NULL;
    p->bools = a->bools & b->bools;
    p->min = a->min > b->min ? a->min : b->min;
    p->max = a->max < b->max ? a->max : b->max;
    bool ok = APPEND(s, &p->atoms, &a->atoms) && APPEND(s, &p->atoms, &b->atoms) && APPEND(s, &p->wanted, &a->wanted) &&
              APPEND(s, &p->wanted, &b->wanted);
    if (ok && kind == KIND_ARRAY)
        ok = and_items(s, p, a, b);
    if (ok && kind == KIND_OBJECT)
        ok = and_keys(s, p, a, b);
    return ok ? p : NULL;
}

/* Cheap: what is known to be impossible without looking into other types. */
bool product_plainly_empty(const struct product *p, enum kind kind)
{
    return p->min > p->max || (kind == KIND_BOOL && !p->bools);
}

struct products *products_and(struct schema *s, struct products *a, struct products *b, enum kind kind)
{
    struct products *l = a && b ? products_none(s) : NULL;
    if (!l || too_many(s, a->p.n && b->p.n > PRODUCTS_MAX * 10u / a->p.n ? SIZE_MAX : 0))
        return NULL;
    for (size_t i = 0; i < a->p.n; i++)
        for (size_t k = 0; k < b->p.n; k++) {
            struct product *p = product_and(s, a->p.at[i], b->p.at[k], kind);
            if (!p)
                return NULL;
            if (product_plainly_empty(p, kind))
                continue;
            struct product **at = too_many(s, l->p.n + 1) ? NULL : VEC_ADD(s->b, &l->p);
            if (!at)
                return NULL;
            *at = p;
        }
    return l;
}
