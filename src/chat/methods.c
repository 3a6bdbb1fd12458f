/* methods - what mappings, lists, loops and cyclers can do; strings.c has the methods of strings */
#include "chat/builtins.h"

static enum status m_get(struct run *r, struct value *out, const struct value *self, const struct value *a,
                         const struct args *raw)
{
    struct value *slot;
    (void)raw;
    TRY(dict_find(r, &slot, self->dict, &a[0]));
    *out = slot ? *slot : a[1].type == V_MISSING ? value_of(V_NONE) : a[1];
    return ST_OK;
}

enum status dict_pairs(struct run *r, struct value *out, const struct dict *d, enum dict_part part)
{
    TRY(list_new(r, out, V_LIST, d->n));
    for (size_t i = 0; i < d->n; i++) {
        struct value v = part == DICT_KEYS ? d->entries[i].key : d->entries[i].value;
        if (part == DICT_ITEMS) {
            TRY(list_new(r, &v, V_TUPLE, 2));
            TRY(list_push(r, v.list, &d->entries[i].key));
            TRY(list_push(r, v.list, &d->entries[i].value));
        }
        TRY(list_push(r, out->list, &v));
    }
    return ST_OK;
}

#define PAIRS_METHOD(name, part)                                                                                       \
    static enum status name(struct run *r, struct value *out, const struct value *self, const struct value *a,         \
                            const struct args *raw)                                                                    \
    {                                                                                                                  \
        (void)a, (void)raw;                                                                                            \
        return dict_pairs(r, out, self->dict, part);                                                                   \
    }
PAIRS_METHOD(m_items, DICT_ITEMS)
PAIRS_METHOD(m_keys, DICT_KEYS)
PAIRS_METHOD(m_values, DICT_VALUES)

static enum status m_dict_pop(struct run *r, struct value *out, const struct value *self, const struct value *a,
                              const struct args *raw)
{
    struct value *slot;
    (void)raw;
    TRY(dict_find(r, &slot, self->dict, &a[0]));
    if (!slot && a[1].type == V_MISSING)
        return run_error(r, ST_INVALID, "pop: no such key");
    *out = slot ? *slot : a[1];
    if (slot)
        dict_remove(self->dict, slot);
    return run_step(r, self->dict->n / 8);
}

static enum status m_update(struct run *r, struct value *out, const struct value *self, const struct value *a,
                            const struct args *raw)
{
    (void)raw;
    if (a[0].type != V_DICT)
        return run_error(r, ST_INVALID, "update wants a mapping, found %s", value_type_name(&a[0]));
    for (size_t i = 0; i < a[0].dict->n && a[0].dict != self->dict; i++)
        TRY(dict_put(r, self->dict, &a[0].dict->entries[i].key, &a[0].dict->entries[i].value));
    *out = value_of(V_NONE);
    return ST_OK;
}

static enum status m_append(struct run *r, struct value *out, const struct value *self, const struct value *a,
                            const struct args *raw)
{
    (void)raw;
    *out = value_of(V_NONE);
    return list_push(r, self->list, &a[0]);
}

static enum status m_extend(struct run *r, struct value *out, const struct value *self, const struct value *a,
                            const struct args *raw)
{
    struct value *items;
    size_t n;
    (void)raw;
    TRY(value_items(r, &items, &n, &a[0]));
    for (size_t i = 0; i < n; i++)
        TRY(list_push(r, self->list, &items[i]));
    *out = value_of(V_NONE);
    return ST_OK;
}

static enum status m_list_pop(struct run *r, struct value *out, const struct value *self, const struct value *a,
                              const struct args *raw)
{
    struct list *l = self->list;
    int64_t i = a[0].type == V_INT ? a[0].i : -1;
    (void)raw;
    i = i < 0 ? i + (int64_t)l->n : i;
    if (i < 0 || i >= (int64_t)l->n)
        return run_error(r, ST_INVALID, "pop: index out of range");
    *out = l->items[i];
    memmove(l->items + i, l->items + i + 1, (l->n - (size_t)i - 1) * sizeof *l->items);
    l->n--;
    return run_step(r, l->n / 16);
}

static enum status m_list_count(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                const struct args *raw)
{
    int64_t n = 0;
    (void)raw;
    for (size_t i = 0; i < self->list->n; i++) {
        bool same;
        TRY(value_equal(r, &same, &self->list->items[i], &a[0]));
        n += same;
    }
    *out = value_int(n);
    return ST_OK;
}

static enum status m_list_index(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                const struct args *raw)
{
    (void)raw;
    for (size_t i = 0; i < self->list->n; i++) {
        bool same;
        TRY(value_equal(r, &same, &self->list->items[i], &a[0]));
        if (same) {
            *out = value_int((int64_t)i);
            return ST_OK;
        }
    }
    return run_error(r, ST_INVALID, "index: not in the list");
}

static enum status m_copy(struct run *r, struct value *out, const struct value *self, const struct value *a,
                          const struct args *raw)
{
    (void)a, (void)raw;
    if (self->type == V_DICT) {
        TRY(dict_new(r, out, V_DICT));
        for (size_t i = 0; i < self->dict->n; i++)
            TRY(dict_put(r, out->dict, &self->dict->entries[i].key, &self->dict->entries[i].value));
        return ST_OK;
    }
    TRY(list_new(r, out, V_LIST, self->list->n));
    for (size_t i = 0; i < self->list->n; i++)
        TRY(list_push(r, out->list, &self->list->items[i]));
    return ST_OK;
}

static enum status m_next(struct run *r, struct value *out, const struct value *self, const struct value *a,
                          const struct args *raw)
{
    struct list *l = self->list;
    (void)a, (void)raw;
    if (l->n == 0)
        return run_error(r, ST_INVALID, "the cycler is empty");
    *out = l->items[l->next++ % l->n];
    return ST_OK;
}

static enum status m_cycle(struct run *r, struct value *out, const struct value *self, const struct value *a,
                           const struct args *raw)
{
    (void)a;
    if (raw->n == 0)
        return run_error(r, ST_INVALID, "loop.cycle wants arguments");
    *out = raw->items[self->loop->i % raw->n];
    return ST_OK;
}

static enum status m_changed(struct run *r, struct value *out, const struct value *self, const struct value *a,
                             const struct args *raw)
{
    struct value now;
    bool same = false;
    (void)a;
    TRY(list_new(r, &now, V_TUPLE, raw->n));
    for (size_t i = 0; i < raw->n; i++)
        TRY(list_push(r, now.list, &raw->items[i]));
    if (self->loop->changed.type == V_TUPLE)
        TRY(value_equal(r, &same, &self->loop->changed, &now));
    self->loop->changed = now;
    *out = value_bool(!same);
    return ST_OK;
}

enum { L = 1 << V_LIST, T = 1 << V_TUPLE, D = 1 << V_DICT };

static const struct builtin methods[] = {
    {"get", "key default", 1, m_get, D},
    {"items", "", 0, m_items, D},
    {"keys", "", 0, m_keys, D},
    {"values", "", 0, m_values, D},
    {"pop", "key default", 1, m_dict_pop, D},
    {"update", "other", 1, m_update, D},
    {"copy", "", 0, m_copy, D | L},
    {"append", "item", 1, m_append, L},
    {"extend", "items", 1, m_extend, L},
    {"pop", "index", 0, m_list_pop, L},
    {"count", "item", 1, m_list_count, L | T},
    {"index", "item", 1, m_list_index, L | T},
    {"next", "", 0, m_next, 1 << V_CYCLER},
    {"cycle", "*", 0, m_cycle, 1 << V_LOOP},
    {"changed", "*", 0, m_changed, 1 << V_LOOP},
};

static const struct builtin *find_row(const struct builtin *rows, size_t n, enum value_type type, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if ((rows[i].types >> type & 1) && str_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

const struct builtin *method_find(enum value_type type, struct str name)
{
    const struct builtin *row = find_row(string_methods, n_string_method, type, name);
    return row ? row : find_row(methods, sizeof methods / sizeof *methods, type, name);
}
