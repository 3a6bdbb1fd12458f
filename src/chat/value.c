/* value - what templates compute with: Python's semantics of equality, order, containment, subscripts and attributes */
#include "chat/template.h"

#include "base/unicode.h"

const char mask_plain_all[1] = {1};

struct value value_own(const char *literal)
{
    return (struct value){.type = V_STR, .s = literal, .len = (uint32_t)strlen(literal)};
}

struct value value_slice(const struct value *s, size_t start, size_t n)
{
    struct value v = *s;
    v.s += start;
    v.len = (uint32_t)n;
    if (v.mask && v.mask != MASK_PLAIN)
        v.mask += start;
    return v;
}

const char *value_type_name(const struct value *v)
{
    static const char *const names[] = {"undefined",  "undefined", "none",     "a boolean", "an integer",  "a float",
                                        "a string",   "a list",    "a tuple",  "a mapping", "a namespace", "a macro",
                                        "a function", "a method",  "the loop", "a cycler"};
    return names[v->type];
}

bool value_truth(const struct value *v)
{
    switch (v->type) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
        return v->b;
    case V_INT:
        return v->i != 0;
    case V_REAL:
        return v->r != 0;
    case V_STR:
        return v->len != 0;
    case V_LIST:
    case V_TUPLE:
        return v->lazy || v->list->n != 0;
    case V_DICT:
        return v->dict->n != 0;
    default:
        return true;
    }
}

/* ---- lists and dicts ---- */

enum status list_new(struct run *r, struct value *out, enum value_type type, size_t n)
{
    struct list *l = run_alloc(r, sizeof *l);
    if (!l)
        return r->err->status;
    *l = (struct list){.capacity = n};
    if (n && !(l->items = run_alloc(r, n * sizeof *l->items)))
        return r->err->status;
    *out = (struct value){.type = (uint8_t)type, .list = l};
    return ST_OK;
}

enum status list_push(struct run *r, struct list *l, const struct value *v)
{
    if (l->n == l->capacity) {
        size_t bigger = l->capacity * 2 + 4;
        struct value *items = run_alloc(r, bigger * sizeof *items);
        if (!items)
            return r->err->status;
        if (l->n)
            memcpy(items, l->items, l->n * sizeof *items);
        l->items = items;
        l->capacity = bigger;
    }
    l->items[l->n++] = *v;
    return run_step(r, 1);
}

enum status dict_new(struct run *r, struct value *out, enum value_type type)
{
    struct dict *d = run_alloc(r, sizeof *d);
    if (!d)
        return r->err->status;
    *d = (struct dict){0};
    *out = (struct value){.type = (uint8_t)type, .dict = d};
    return ST_OK;
}

enum { DICT_INDEXED = 16 };

static bool key_hash(uint64_t *out, const struct value *key)
{
    if (key->type == V_STR)
        *out = str_hash(value_str(key), 0x5eed);
    else if (key->type == V_INT || key->type == V_BOOL)
        *out = str_hash(str_n(&(int64_t){key->type == V_INT ? key->i : key->b}, sizeof(int64_t)), 1);
    else
        return false;
    return true;
}

static void index_put(struct dict *d, size_t i, uint64_t hash)
{
    size_t at = hash & d->index_mask;
    while (d->index[at])
        at = (at + 1) & d->index_mask;
    d->index[at] = (uint32_t)i + 1;
}

/* An index over all entries when it pays and every key hashes; without one, finding is a scan. */
static enum status dict_reindex(struct run *r, struct dict *d)
{
    uint64_t hash;
    size_t slots = 64;
    d->index = NULL;
    while (slots < d->capacity * 2)
        slots *= 2;
    uint32_t *index = run_alloc(r, slots * sizeof *index);
    if (!index)
        return r->err->status;
    memset(index, 0, slots * sizeof *index);
    for (size_t i = 0; i < d->n; i++)
        if (!key_hash(&hash, &d->entries[i].key))
            return ST_OK;
    d->index = index;
    d->index_mask = slots - 1;
    for (size_t i = 0; i < d->n; i++)
        if (key_hash(&hash, &d->entries[i].key))
            index_put(d, i, hash);
    return ST_OK;
}

static bool key_same(const struct value *a, const struct value *b)
{
    if (a->type == V_STR || b->type == V_STR)
        return a->type == b->type && str_eq(value_str(a), value_str(b));
    if (value_is_number(a) && value_is_number(b))
        return value_number(a) == value_number(b);
    return a->type == b->type && a->type == V_NONE;
}

enum status dict_find(struct run *r, struct value **out, const struct dict *d, const struct value *key)
{
    uint64_t hash;
    *out = NULL;
    if (d->index && key_hash(&hash, key)) {
        for (size_t at = hash & d->index_mask; d->index[at]; at = (at + 1) & d->index_mask)
            if (key_same(&d->entries[d->index[at] - 1].key, key)) {
                *out = &d->entries[d->index[at] - 1].value;
                break;
            }
        return ST_OK;
    }
    for (size_t i = 0; i < d->n && !*out; i++)
        if (key_same(&d->entries[i].key, key))
            *out = &d->entries[i].value;
    return run_step(r, d->n / 8);
}

struct value *dict_find_str(const struct dict *d, struct str key)
{
    struct value v = {.type = V_STR, .s = key.ptr, .len = (uint32_t)key.len};
    uint64_t hash;
    if (d->index && key_hash(&hash, &v)) {
        for (size_t at = hash & d->index_mask; d->index[at]; at = (at + 1) & d->index_mask)
            if (key_same(&d->entries[d->index[at] - 1].key, &v))
                return &d->entries[d->index[at] - 1].value;
        return NULL;
    }
    for (size_t i = 0; i < d->n; i++)
        if (key_same(&d->entries[i].key, &v))
            return &d->entries[i].value;
    return NULL;
}

enum status dict_put(struct run *r, struct dict *d, const struct value *key, const struct value *value)
{
    struct value *slot;
    uint64_t hash;
    if (key->type != V_STR && !value_is_number(key) && key->type != V_NONE)
        return run_error(r, ST_INVALID, "%s cannot be a key", value_type_name(key));
    TRY(dict_find(r, &slot, d, key));
    if (slot) {
        *slot = *value;
        return ST_OK;
    }
    if (d->n == d->capacity) {
        size_t bigger = d->capacity * 2 + 4;
        struct entry *entries = run_alloc(r, bigger * sizeof *entries);
        if (!entries)
            return r->err->status;
        if (d->entries)
            memcpy(entries, d->entries, d->n * sizeof *entries);
        d->entries = entries;
        d->capacity = bigger;
        if (bigger > DICT_INDEXED)
            TRY(dict_reindex(r, d));
    }
    d->entries[d->n++] = (struct entry){*key, *value};
    if (d->index && key_hash(&hash, key))
        index_put(d, d->n - 1, hash);
    else
        d->index = NULL;
    return run_step(r, 1);
}

void dict_remove(struct dict *d, struct value *slot)
{
    struct entry *e = (struct entry *)((char *)slot - offsetof(struct entry, value));
    size_t i = (size_t)(e - d->entries);
    memmove(e, e + 1, (d->n - i - 1) * sizeof *e);
    d->n--;
    d->index = NULL;
}

/* ---- equality, order, containment ---- */

static enum status lists_equal(struct run *r, bool *out, const struct list *a, const struct list *b)
{
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++)
        TRY(value_equal(r, out, &a->items[i], &b->items[i]));
    return ST_OK;
}

static enum status dicts_equal(struct run *r, bool *out, const struct dict *a, const struct dict *b)
{
    *out = a->n == b->n;
    for (size_t i = 0; i < a->n && *out; i++) {
        struct value *other;
        TRY(dict_find(r, &other, b, &a->entries[i].key));
        *out = other != NULL;
        if (other)
            TRY(value_equal(r, out, &a->entries[i].value, other));
    }
    return ST_OK;
}

enum status value_equal(struct run *r, bool *out, const struct value *a, const struct value *b)
{
    TRY(run_enter(r));
    *out = false;
    if (a->type == V_INT && b->type == V_INT)
        *out = a->i == b->i;
    else if (value_is_number(a) && value_is_number(b))
        *out = value_number(a) == value_number(b);
    else if (a->type != b->type)
        *out = false;
    else if (a->type == V_STR) {
        *out = str_eq(value_str(a), value_str(b));
        TRY(run_step(r, a->len / 64));
    } else if (a->type == V_LIST || a->type == V_TUPLE)
        TRY(lists_equal(r, out, a->list, b->list));
    else if (a->type == V_DICT)
        TRY(dicts_equal(r, out, a->dict, b->dict));
    else
        *out = a->type <= V_NONE || a->dict == b->dict; /* the same object */
    run_leave(r);
    return run_step(r, 1);
}

enum status value_compare(struct run *r, int *out, const struct value *a, const struct value *b)
{
    TRY(run_step(r, 1));
    if (value_is_number(a) && value_is_number(b)) {
        if (a->type == V_INT && b->type == V_INT)
            *out = (a->i > b->i) - (a->i < b->i);
        else
            *out = (value_number(a) > value_number(b)) - (value_number(a) < value_number(b));
        return ST_OK;
    }
    if (a->type == V_STR && b->type == V_STR) { /* bytes of UTF-8 are in the order of code points */
        int order = memcmp(a->s, b->s, a->len < b->len ? a->len : b->len);
        *out = order ? order : (a->len > b->len) - (a->len < b->len);
        return run_step(r, a->len / 64);
    }
    if (a->type == b->type && (a->type == V_LIST || a->type == V_TUPLE)) {
        TRY(run_enter(r));
        for (size_t i = 0; i < a->list->n && i < b->list->n; i++) {
            bool same;
            TRY(value_equal(r, &same, &a->list->items[i], &b->list->items[i]));
            if (!same) {
                run_leave(r);
                return value_compare(r, out, &a->list->items[i], &b->list->items[i]);
            }
        }
        run_leave(r);
        *out = (a->list->n > b->list->n) - (a->list->n < b->list->n);
        return ST_OK;
    }
    return run_error(r, ST_INVALID, "cannot order %s and %s", value_type_name(a), value_type_name(b));
}

enum status value_contains(struct run *r, bool *out, const struct value *in, const struct value *what)
{
    struct value *items, *slot;
    size_t n;
    *out = false;
    if (in->type == V_STR) {
        if (what->type != V_STR)
            return run_error(r, ST_INVALID, "'in' a string wants a string on its left, found %s",
                             value_type_name(what));
        *out = str_find(value_str(in), value_str(what), 0) != SIZE_MAX;
        return run_step(r, in->len / 32);
    }
    if (in->type == V_DICT) {
        TRY(dict_find(r, &slot, in->dict, what));
        *out = slot != NULL;
        return ST_OK;
    }
    TRY(value_items(r, &items, &n, in));
    for (size_t i = 0; i < n && !*out; i++) {
        if (r->json_style && items[i].type != what->type)
            continue;
        TRY(value_equal(r, out, &items[i], what));
    }
    return ST_OK;
}

enum status value_length(struct run *r, size_t *out, const struct value *v)
{
    *out = 0;
    switch (v->type) {
    case V_STR:
        *out = chars_count(value_str(v));
        return run_step(r, v->len / 64);
    case V_LIST:
    case V_TUPLE:
        *out = v->list->n;
        return ST_OK;
    case V_DICT:
        *out = v->dict->n;
        return ST_OK;
    case V_UNDEFINED:
        return ST_OK;
    default:
        return run_error(r, ST_INVALID, "%s has no length", value_type_name(v));
    }
}

enum status value_items(struct run *r, struct value **out, size_t *n, const struct value *v)
{
    *out = NULL;
    *n = 0;
    if (v->type == V_LIST || v->type == V_TUPLE) {
        *out = v->list->items;
        *n = v->list->n;
        return ST_OK;
    }
    if (v->type == V_UNDEFINED)
        return ST_OK;
    if (v->type != V_DICT && v->type != V_STR)
        return run_error(r, ST_INVALID, "%s is not iterable", value_type_name(v));
    size_t count;
    TRY(value_length(r, &count, v));
    TRY(run_step(r, count));
    if (count && !(*out = run_alloc(r, count * sizeof **out)))
        return r->err->status;
    if (v->type == V_DICT)
        for (; *n < count; ++*n)
            (*out)[*n] = v->dict->entries[*n].key;
    for (size_t at = 0; v->type == V_STR && at < v->len && *n < count; ++*n) {
        size_t len = 1;
        while (at + len < v->len && ((unsigned char)v->s[at + len] & 0xC0) == 0x80)
            len++;
        (*out)[*n] = value_slice(v, at, len);
        at += len;
    }
    return ST_OK;
}

/* ---- attributes and subscripts ---- */

static struct value undefined(struct str name)
{
    return (struct value){.type = V_UNDEFINED, .s = name.ptr, .len = (uint32_t)name.len};
}

static enum status loop_attr(struct run *r, struct value *out, const struct value *v, struct str name)
{
    const struct loop *l = v->loop;
    const struct {
        const char *name;
        struct value value;
    } rows[] = {
        {"index", value_int((int64_t)l->i + 1)},
        {"index0", value_int((int64_t)l->i)},
        {"revindex", value_int((int64_t)(l->n - l->i))},
        {"revindex0", value_int((int64_t)(l->n - l->i) - 1)},
        {"first", value_bool(l->i == 0)},
        {"last", value_bool(l->i + 1 == l->n)},
        {"length", value_int((int64_t)l->n)},
        {"depth", value_int(l->depth)},
        {"depth0", value_int((int64_t)l->depth - 1)},
        {"previtem", l->i ? l->items[l->i - 1] : undefined(STR("previtem"))},
        {"nextitem", l->i + 1 < l->n ? l->items[l->i + 1] : undefined(STR("nextitem"))},
    };
    (void)r;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_is(name, rows[i].name)) {
            *out = rows[i].value;
            return ST_OK;
        }
    return ST_OK;
}

enum status value_attr(struct run *r, struct value *out, const struct value *v, struct str name)
{
    struct value *slot = NULL;
    *out = undefined(name);
    if (v->type == V_UNDEFINED)
        return run_error(r, ST_INVALID, "'%.*s' is undefined", STR_ARG(value_str(v)));
    if (v->type == V_LOOP)
        TRY(loop_attr(r, out, v, name));
    const struct builtin *row = out->type == V_UNDEFINED ? method_find((enum value_type)v->type, name) : NULL;
    if (row) {
        struct method *m = run_alloc(r, sizeof *m);
        if (!m)
            return r->err->status;
        *m = (struct method){row, *v};
        *out = (struct value){.type = V_METHOD, .method = m};
    } else if (v->type == V_DICT || v->type == V_NAMESPACE) {
        slot = dict_find_str(v->dict, name);
        TRY(run_step(r, v->dict->n / 16));
    }
    if (slot)
        *out = *slot;
    return ST_OK;
}

/* A Python index into n items: negative ones count from the end; false when outside. */
static bool index_of(size_t *out, const struct value *key, size_t n)
{
    int64_t i = key->type == V_BOOL ? key->b : key->i;
    if (i < 0)
        i += (int64_t)n;
    *out = (size_t)i;
    return i >= 0 && i < (int64_t)n;
}

enum status value_item(struct run *r, struct value *out, const struct value *v, const struct value *key)
{
    bool is_index = key->type == V_INT || key->type == V_BOOL;
    struct value *slot;
    size_t i, n;
    *out = undefined(key->type == V_STR ? value_str(key) : STR("item"));
    switch (v->type) {
    case V_DICT:
        TRY(dict_find(r, &slot, v->dict, key));
        if (slot) {
            *out = *slot;
            return ST_OK;
        }
        break;
    case V_LIST:
    case V_TUPLE:
        if (is_index) {
            if (index_of(&i, key, v->list->n))
                *out = v->list->items[i];
            return ST_OK;
        }
        break;
    case V_STR:
        if (is_index) {
            TRY(value_length(r, &n, v));
            if (index_of(&i, key, n)) {
                size_t at = chars_offset(value_str(v), i);
                *out = value_slice(v, at, chars_offset(str_from(value_str(v), at), 1));
            }
            return ST_OK;
        }
        break;
    default:
        break;
    }
    return key->type == V_STR || v->type == V_UNDEFINED ? value_attr(r, out, v, *out->s ? value_str(out) : STR("item"))
                                                        : ST_OK;
}

/* Python's slice.indices: *start and *count items, *step apart. */
static enum status slice_range(struct run *r, const struct value *const parts[3], size_t n, int64_t *start,
                               int64_t *count, int64_t *step)
{
    int64_t v[3], len = (int64_t)n;
    for (int i = 0; i < 3; i++) {
        const struct value *p = parts[i];
        if (p->type != V_INT && p->type != V_NONE && p->type != V_MISSING && p->type != V_BOOL)
            return run_error(r, ST_INVALID, "a slice wants integers, found %s", value_type_name(p));
        v[i] = p->type == V_INT ? p->i : p->b;
    }
    bool given[3] = {parts[0]->type > V_NONE, parts[1]->type > V_NONE, parts[2]->type > V_NONE};
    *step = given[2] ? v[2] : 1;
    if (*step == 0)
        return run_error(r, ST_INVALID, "a slice's step cannot be 0");
    if (*step < -len - 1 || *step > len + 1)
        *step = *step < 0 ? -len - 1 : len + 1;
    int64_t low = *step < 0 ? -1 : 0, high = *step < 0 ? len - 1 : len;
    for (int i = 0; i < 2; i++) {
        if (!given[i])
            v[i] = (i == 0) == (*step < 0) ? high : low;
        else {
            v[i] = v[i] < 0 ? (v[i] < -len ? -1 - len : v[i]) + len : v[i];
            v[i] = v[i] < low ? low : v[i] > high ? high : v[i];
        }
    }
    *start = v[0];
    int64_t span = *step < 0 ? v[0] - v[1] : v[1] - v[0], each = *step < 0 ? -*step : *step;
    *count = span > 0 ? (span - 1) / each + 1 : 0;
    return ST_OK;
}

enum status value_slice_of(struct run *r, struct value *out, const struct value *v, const struct value *start,
                           const struct value *stop, const struct value *step)
{
    const struct value *parts[3] = {start, stop, step};
    int64_t at = 0, count = 0, by = 1;
    size_t n;
    if (v->type == V_UNDEFINED)
        return run_error(r, ST_INVALID, "'%.*s' is undefined", STR_ARG(value_str(v)));
    if (v->type != V_STR && v->type != V_LIST && v->type != V_TUPLE)
        return run_error(r, ST_INVALID, "%s cannot be sliced", value_type_name(v));
    TRY(value_length(r, &n, v));
    TRY(slice_range(r, parts, n, &at, &count, &by));
    if (v->type == V_STR && (by == 1 || count == 0)) {
        size_t first = chars_offset(value_str(v), (size_t)at);
        *out = value_slice(v, first, count ? chars_offset(str_from(value_str(v), first), (size_t)count) : 0);
        return ST_OK;
    }
    struct value *items;
    TRY(value_items(r, &items, &n, v));
    if (v->type == V_STR) {
        struct text t;
        text_init(&t, r);
        for (; count-- > 0; at += by)
            text_add_value(&t, &items[at]);
        return text_take(&t, out);
    }
    TRY(list_new(r, out, (enum value_type)v->type, (size_t)count));
    for (; count-- > 0; at += by)
        TRY(list_push(r, out->list, &items[at]));
    return ST_OK;
}

/* ---- the context ---- */

enum status value_from_json(struct run *r, struct value *out, const struct json *j, bool plain)
{
    switch (json_type(j)) {
    case JSON_NULL:
        *out = value_of(V_NONE);
        return ST_OK;
    case JSON_FALSE:
    case JSON_TRUE:
        *out = value_bool(j->type == JSON_TRUE);
        return ST_OK;
    case JSON_INT:
        *out = value_int(j->integer);
        return ST_OK;
    case JSON_REAL:
        *out = value_real(j->real);
        return ST_OK;
    case JSON_STRING:
        *out = (struct value){.type = V_STR, .s = j->text, .len = j->size, .mask = plain ? MASK_PLAIN : NULL};
        return ST_OK;
    case JSON_ARRAY: {
        TRY(run_enter(r));
        TRY(list_new(r, out, V_LIST, j->count));
        JSON_EACH (item, j) {
            struct value v = {0};
            TRY(value_from_json(r, &v, item, plain));
            TRY(list_push(r, out->list, &v));
        }
        run_leave(r);
        return ST_OK;
    }
    case JSON_OBJECT: {
        TRY(run_enter(r));
        TRY(dict_new(r, out, V_DICT));
        JSON_EACH_MEMBER (key, value, j) {
            struct value v = {0},
                         k = {.type = V_STR, .s = key.ptr, .len = (uint32_t)key.len, .mask = plain ? MASK_PLAIN : NULL};
            TRY(value_from_json(r, &v, value, plain));
            TRY(dict_put(r, out->dict, &k, &v));
        }
        run_leave(r);
        return ST_OK;
    }
    }
    return ST_OK;
}
