/* schema - from the text of a JSON Schema to types */
#include "grammar/schema.h"

bool schema_compile(struct build *b, struct grammar *g, struct str text, const struct grammar_part *part,
                    uint32_t *root)
{
    struct schema s = {.b = b,
                       .g = g,
                       .ordered = (part->flags & GRAMMAR_ORDERED) != 0,
                       .type_base = g->n_type,
                       .array_base = g->n_array,
                       .object_base = g->n_object,
                       .lang_base = g->n_lang,
                       .scalar_base = g->n_dfa};
    struct error err;
    enum status st = json_parse(&s.root, &b->temp, text, 0, &err);
    if (st == ST_NOMEM) {
        b->status = fail_nomem(b->err, b->what);
        return false;
    }
    if (st != ST_OK)
        return build_fail(b, st == ST_LIMIT ? ST_LIMIT : ST_INVALID, "it is no JSON: %s", err.text);
    s.n_node = s.root->type >= JSON_ARRAY ? s.root->size : 1;
    struct type_key *any = VEC_ADD(b, &s.types), *none = any ? VEC_ADD(b, &s.types) : NULL;
    if (!none || !refs_scan(&s))
        return false;
    const struct json *start =
        part->property.len ? json_get_str(json_get(s.root, "properties"), part->property) : s.root;
    if (!start)
        return build_fail(b, ST_INVALID, "it has no property \"%.*s\"", STR_ARG(part->property));
    uint32_t type = type_of(&s, start, false);
    if (type == UINT32_MAX || !schema_make(&s))
        return false;
    *root = s.type_base + type;
    return true;
}
