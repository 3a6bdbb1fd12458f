/* schema - the inside of a schema's compile
 *
 * A type is a conjunction of signed schemas, known by the sorted list of them: {A, not B}. For each kind of JSON value
 * it is a union of products, a product being a conjunction of plain conditions of that kind alone. Everything that
 * combines schemas (allOf, anyOf, oneOf, not, if, $ref, dependentSchemas) is worked out there, one kind at a time, so
 * that most keywords do not matter for most kinds. Products of arrays and objects name the types of what they hold;
 * those are worked out in turn, until no type is new.
 */
#ifndef GRAMMAR_SCHEMA_H
#define GRAMMAR_SCHEMA_H

#include "grammar/private.h"

enum kind { KIND_NULL, KIND_BOOL, KIND_NUMBER, KIND_STRING, KIND_ARRAY, KIND_OBJECT, KIND_COUNT };
enum { TYPE_ANY, TYPE_NONE, TYPES_FIRST }; /* the first two types: no condition, and no value at all */
enum { PRODUCTS_MAX = 3000, TYPES_MAX = 20000, ANY_OF_TRACKED_MAX = 6 };

/* ---- conditions ---- */
struct matcher { /* which keys: */
    enum { MATCH_NAME, MATCH_DFA, MATCH_NONE_OF, MATCH_ANY_OF, MATCH_ALL } how;
    uint32_t name;         /* NAME: index in names */
    const struct dfa *dfa; /* DFA */
    uint32_t *of;          /* NONE_OF, ANY_OF: matchers */
    uint32_t n_of;
};
struct key_rule { /* the value of a key that matches is of this type */
    uint32_t matcher, type;
};
struct wanted {                             /* at least min, at most max items or members that match have this type */
    uint32_t matcher, type, from, min, max; /* arrays: items from index `from` on */
    uint32_t against;                       /* with a max: the type of what is not counted */
};
struct product {
    unsigned bools;                /* 1: false, 2: true */
    VEC(const struct dfa *) atoms; /* numbers and strings: all of them accept */
    uint32_t min, max;             /* characters, items, members */
    VEC(uint32_t) prefix;          /* types of the first items */
    uint32_t rest;                 /* of the others */
    bool unique;
    uint32_t unique_at; /* the node that says so */
    VEC(struct key_rule) rules;
    VEC(uint32_t) required; /* names */
    VEC(struct wanted) wanted;
    /* for unevaluatedItems and unevaluatedProperties */
    uint32_t items_evaluated;     /* REPEAT_NO_MAX: all */
    VEC(uint32_t) keys_evaluated; /* matchers */
};
struct products {
    VEC(struct product *) p;
};

enum { ITEM_NEGATED = 1, ITEM_LITERAL = 2, ITEM_SHIFT = 2 }; /* LITERAL: the node is a value to be equal to */
struct type_key { /* items[at .. at + n): node << ITEM_SHIFT | flags, ascending */
    uint32_t at, n;
};
struct schema {
    struct build *b;
    struct grammar *g;
    const struct json *root;
    uint32_t n_node;
    bool ordered, tracked, tracked_items; /* tracked: some schema asks what was evaluated */
    int draft;                            /* 4, 6, 7, 2019, 2020 */
    /* refs */
    VEC(struct resource) resources;
    VEC(struct anchor) anchors;
    uint16_t *resource_of; /* [n_node] */
    /* tables */
    VEC(struct str) names;
    VEC(struct matcher) matchers;
    VEC(struct memo) memo;
    uint32_t *memo_slots;
    size_t memo_mask;
    VEC(uint32_t) items;
    VEC(struct type_key) types;
    struct dfa *any, *number, *plain, *integer, *fraction; /* made when first needed */
    int depth;
    /* what is made, appended to the grammar's */
    VEC(struct type) out_types;
    VEC(struct array) arrays;
    VEC(struct object) objects;
    VEC(struct lang) langs;
    VEC(struct dfa *) scalars;
    uint32_t type_base, array_base, object_base, lang_base, scalar_base;
};
struct resource {
    struct str uri;
    const struct json *root;
};
struct anchor {
    uint16_t resource;
    struct str name;
    const struct json *node;
    bool dynamic;
};
struct memo {
    uint64_t key;
    struct products *list; /* NULL: being worked out */
};

static inline uint32_t node_of(const struct schema *s, const struct json *v)
{
    return (uint32_t)(v - s->root);
}
/* Refuses with the keyword and the JSON pointer of `at`. */
bool schema_refuse(struct schema *s, enum status st, const struct json *at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), cold));
#ifdef __clang_analyzer__
#define schema_refuse(s, st, at, ...) ((schema_refuse)(s, st, at, __VA_ARGS__), false)
#endif

/* schema_ref.c */
bool refs_scan(struct schema *s);
const struct json *ref_find(struct schema *s, const struct json *ref, const struct json *schema);
const struct json *ref_find_dynamic(struct schema *s, const struct json *ref, const struct json *schema);

/* schema_logic.c */
struct products *schema_products(struct schema *s, const struct json *v, bool negated, enum kind kind);
struct products *type_products(struct schema *s, uint32_t type, enum kind kind);
uint32_t type_of(struct schema *s, const struct json *v, bool negated); /* UINT32_MAX: failed */
uint32_t type_of_literal(struct schema *s, const struct json *v, bool negated);
uint32_t type_and(struct schema *s, uint32_t a, uint32_t b);
/* schema_products.c. All return NULL once something failed. */
struct products *products_none(struct schema *s);
struct products *products_all(struct schema *s);
struct products *products_one(struct schema *s, struct product *p);
struct products *products_or(struct schema *s, struct products *a, struct products *b);
struct products *products_and(struct schema *s, struct products *a, struct products *b, enum kind kind);
struct product *product_new(struct schema *s);
struct product *product_and(struct schema *s, const struct product *a, const struct product *b, enum kind kind);
bool product_plainly_empty(const struct product *p, enum kind kind);
uint32_t item_type_at(const struct product *p, size_t index);
/* The regular language of a number's or string's product, lengths aside. */
const struct dfa *product_dfa(struct schema *s, const struct product *p, enum kind kind);

/* keywords of one kind: the condition, or its negation, as products */
struct products *number_keyword(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                                bool negated); /* schema_number.c */
struct products *string_keyword(struct schema *s, const char *name, const struct json *v, bool negated); /* ..text.c */
struct products *array_keyword(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                               bool negated); /* schema_items.c */
struct products *object_keyword(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                                bool negated); /* schema_keys.c */
struct products *literal_products(struct schema *s, const struct json *v, bool negated, enum kind kind);
struct products *literal_list(struct schema *s, const struct json *list, bool negated, enum kind kind); /* one of */
struct products *number_literals(struct schema *s, const struct json *v, bool list, bool negated);
bool product_rule(struct schema *s, struct product *p, uint32_t matcher, uint32_t type);
bool product_require(struct schema *s, struct product *p, uint32_t name);
bool product_want(struct schema *s, struct product *p, uint32_t matcher, uint32_t type);
struct dfa *schema_number_dfa(struct schema *s);                          /* all numbers */
bool schema_count(struct schema *s, const struct json *v, uint32_t *out); /* a whole number, not negative */
/* At least (low) or at most v of what a kind counts: characters, items, members. */
struct products *count_bound(struct schema *s, const struct json *v, bool low, bool negated);
const struct dfa *pattern_dfa(struct schema *s, struct str pattern, const struct json *at);

/* keys */
uint32_t name_index(struct schema *s, struct str name);
uint32_t matcher_add(struct schema *s, struct matcher m);
uint32_t key_type(struct schema *s, const struct product *p, struct str name); /* of the value of this very key */

/* schema_make.c: products to what the machine runs */
bool schema_make(struct schema *s);
enum { TAG_ANY = 1, TAG_FIRST = 2 }; /* of keys: any other; the matchers from here on */
/* From the state on, every string is accepted, always as `accept`. `one`: the last such state, or 0. */
bool *dfa_find_any(struct schema *s, const struct dfa *d, uint32_t accept, uint32_t *one);
static inline bool claim_made(unsigned made, size_t k)
{
    return made >> k & 1;
}

/* schema_finish.c */
bool schema_finish(struct schema *s);

#endif
