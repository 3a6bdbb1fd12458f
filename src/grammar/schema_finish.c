/* schema_finish - which types have values at all, and what is cut away
 *
 * First none has, then again and again those that can be built of types that do. What is left without values is cut
 * away, so that the machine never begins what cannot be finished.
 */
#include "grammar/schema.h"

/* ---- what has values ---- */

static bool possible(const struct schema *s, uint32_t type)
{
    return type != UINT32_MAX && !s->out_types.at[type - s->type_base].empty;
}

static bool array_possible(const struct schema *s, const struct array *a)
{
    uint32_t sets = 1u << a->n_claim, most = a->min > a->n_prefix ? a->n_prefix + 1 : a->min;
    for (uint32_t i = 0; i < most; i++) {
        bool any = false;
        for (uint32_t made = 0; made < sets && !any; made++)
            any = possible(s, a->types[i * sets + made]);
        if (!any)
            return false;
    }
    for (uint32_t k = 0; k < a->n_claim; k++) {
        uint32_t found = 0;
        for (uint32_t i = 0; i <= a->n_prefix && i < a->max && found < a->claims[k].min; i++)
            for (uint32_t made = 0; made < sets; made++)
                if (claim_made(made, k) && possible(s, a->types[i * sets + made])) {
                    found = i == a->n_prefix ? a->claims[k].min : found + 1;
                    break;
                }
        if (found < a->claims[k].min)
            return false;
    }
    return a->min <= a->max;
}

static bool label_possible(const struct schema *s, const struct object *o, struct label *l)
{
    l->possible = false;
    for (uint32_t made = 0; made < 1u << o->n_claim; made++)
        l->possible |= possible(s, l->types[made]);
    return l->possible;
}

static bool object_possible(const struct schema *s, const struct object *o)
{
    uint64_t named[NAMES_MAX / 64] = {0};
    uint32_t n = 0;
    bool open = false;
    for (uint32_t i = 0; i < o->keys->n_tagset; i++)
        if (label_possible(s, o, &o->labels[i])) {
            if (o->labels[i].name == UINT32_MAX)
                open = true;
            else if (!bit_has(named, o->labels[i].name))
                bit_set(named, o->labels[i].name), n++;
        }
    for (uint32_t w = 0; w < o->n_word; w++)
        if (o->required[w] & ~named[w])
            return false;
    for (uint32_t k = 0; k < o->n_claim; k++) {
        bool found = false;
        for (uint32_t i = 0; i < o->keys->n_tagset && !found; i++)
            for (uint32_t made = 0; made < 1u << o->n_claim && !found; made++)
                found = claim_made(made, k) && possible(s, o->labels[i].types[made]);
        if (!found && o->claims[k].min)
            return false;
    }
    return o->min <= o->max && o->n_required <= o->max && (open || n >= o->min);
}

static bool find_possible(struct schema *s, bool *arrays, bool *objects)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < s->out_types.n; i++) {
            struct type *t = &s->out_types.at[i];
            if (!t->empty || !build_step(s->b, 1))
                continue;
            bool any = t->scalar != UINT32_MAX || t->n_lang;
            for (uint32_t k = 0; k < t->n_array && !any; k++)
                any = array_possible(s, &s->arrays.at[t->arrays[k] - s->array_base]);
            for (uint32_t k = 0; k < t->n_object && !any; k++)
                any = object_possible(s, &s->objects.at[t->objects[k] - s->object_base]);
            t->empty = !any;
            changed |= any;
        }
    }
    for (size_t i = 0; i < s->arrays.n; i++)
        arrays[i] = array_possible(s, &s->arrays.at[i]);
    for (size_t i = 0; i < s->objects.n; i++)
        objects[i] = object_possible(s, &s->objects.at[i]);
    return s->b->status == ST_OK;
}

/* ---- the last touches ---- */

/* Which names, and whether another key, can still come from each state. */
static bool find_reach(struct schema *s, struct object *o)
{
    const struct dfa *d = o->keys;
    o->reach = build_keep(s->b, (size_t)d->n_state * o->n_word + 1, sizeof *o->reach);
    o->reach_other = build_keep(s->b, d->n_state, 1);
    if (!o->reach || !o->reach_other)
        return false;
    for (bool changed = true; changed;) {
        changed = false;
        if (!build_step(s->b, d->n_state))
            return false;
        for (uint32_t q = d->n_state; q-- > 1;) {
            uint64_t *own = o->reach + (size_t)q * o->n_word;
            const struct label *l = d->accept[q] ? &o->labels[d->accept[q] - 1] : NULL;
            if (l && l->name == UINT32_MAX && !o->reach_other[q])
                o->reach_other[q] = changed = true;
            if (l && l->name != UINT32_MAX && !bit_has(own, l->name)) {
                bit_set(own, l->name);
                changed = true;
            }
            for (uint32_t c = 0; c < d->n_class; c++) {
                uint32_t to = d->next[(size_t)q * d->n_class + c];
                if (!to)
                    continue;
                if (o->reach_other[to] && !o->reach_other[q])
                    o->reach_other[q] = changed = true;
                for (uint32_t w = 0; w < o->n_word; w++) {
                    uint64_t more = o->reach[(size_t)to * o->n_word + w] & ~own[w];
                    own[w] |= more;
                    changed |= more != 0;
                }
            }
        }
    }
    return true;
}

static bool finish_object(struct schema *s, struct object *o)
{
    bool *accepts = build_temp(s->b, o->keys->n_tagset + 1, 1);
    uint32_t other = 0, n_other = 0;
    if (!accepts)
        return false;
    for (uint32_t i = 0; i < o->keys->n_tagset; i++) {
        accepts[i] = label_possible(s, o, &o->labels[i]);
        const uint32_t *tags = o->keys->tags + o->keys->tag_at[i];
        if (accepts[i] && o->keys->tag_at[i + 1] - o->keys->tag_at[i] == 1 && tags[0] == TAG_ANY) {
            other = i + 1;
            n_other++;
        }
    }
    if (!dfa_trim(s->b, (struct dfa *)(uintptr_t)o->keys, accepts) || !find_reach(s, o))
        return false;
    o->any = n_other ? dfa_find_any(s, o->keys, other, &o->any_state) : build_keep(s->b, o->keys->n_state, 1);
    return o->any != NULL;
}

static void finish_type(struct schema *s, struct type *t, const bool *arrays, const bool *objects)
{
    uint32_t n_array = 0, n_object = 0;
    for (uint32_t i = 0; i < t->n_array; i++)
        if (arrays[t->arrays[i] - s->array_base])
            t->arrays[n_array++] = t->arrays[i];
    for (uint32_t i = 0; i < t->n_object; i++)
        if (objects[t->objects[i] - s->object_base])
            t->objects[n_object++] = t->objects[i];
    t->n_array = n_array;
    t->n_object = n_object;
    if (n_array)
        bit_set(t->first, '[');
    if (n_object)
        bit_set(t->first, '{');
    if (t->n_lang)
        bit_set(t->first, '"');
    for (unsigned b = 0; t->scalar != UINT32_MAX && b < 256; b++)
        if (dfa_next(s->scalars.at[t->scalar - s->scalar_base], DFA_START, (uint8_t)b))
            bit_set(t->first, b);
}

bool schema_finish(struct schema *s)
{
    bool *arrays = build_temp(s->b, s->arrays.n + 1, 1), *objects = build_temp(s->b, s->objects.n + 1, 1);
    if (!arrays || !objects || !find_possible(s, arrays, objects))
        return false;
    for (size_t i = 0; i < s->objects.n; i++)
        if (!finish_object(s, &s->objects.at[i]))
            return false;
    for (size_t i = 0; i < s->out_types.n; i++)
        finish_type(s, &s->out_types.at[i], arrays, objects);
    return true;
}
