/* torch - PyTorch zip checkpoints: data.pkl names tensors, data/KEY holds their numbers
 *
 * Tensor names are the path of dictionary keys and list indices, joined by dots. A key of the outermost dictionary that
 * only wraps the weights (model, state_dict ...) is left out, so that names are those of the model. What is no tensor
 * becomes JSON.
 */
#include "formats/pickle.h"
#include "formats/zip.h"

#include <inttypes.h>
#include <stdio.h>

enum { DEPTH_MAX = 64, PATH_BYTES = 1024 };

struct walk {
    struct loading *l;
    const struct zip *zip;
    struct str prefix;        /* of the archive: "ckpt/" */
    uint64_t steps_left;      /* shared values can make a small pickle a huge tree */
    uint64_t n_tensor;        /* counted */
    bool add;                 /* else only count */
    struct json_writer *json; /* or NULL */
    char path[PATH_BYTES];
    struct error *err;
};

/* Points t->data at the tensor's numbers inside its storage. */
static enum status find_numbers(struct tensor *t, struct walk *w, const struct pickle_tensor *p)
{
    char name[PATH_BYTES];
    struct str content;
    int n = snprintf(name, sizeof name, "%.*sdata/%.*s", (int)w->prefix.len, w->prefix.ptr, STR_ARG(p->key));
    struct zip_entry *e = n > 0 && n < PATH_BYTES ? zip_find(w->zip, str_of(name)) : NULL;
    if (!e)
        return fail(w->err, ST_CORRUPT, "torch: tensor %.*s wants %s, which the archive does not hold",
                    STR_ARG(t->name), name);
    TRY(zip_content(&content, w->zip, e, false, w->err));
    size_t each = (size_t)dtype_row(t->type)->bytes;
    if (p->storage_count > content.len / each)
        return fail(w->err, ST_CORRUPT, "torch: the storage of tensor %.*s claims %llu values, but %s has %zu bytes",
                    STR_ARG(t->name), (unsigned long long)p->storage_count, name, content.len);
    if (p->offset > p->storage_count || t->bytes / each > p->storage_count - p->offset)
        return fail(w->err, ST_CORRUPT, "torch: tensor %.*s reaches beyond its storage of %llu values",
                    STR_ARG(t->name), (unsigned long long)p->storage_count);
    t->data = content.ptr + p->offset * each;
    return ST_OK;
}

static enum status on_tensor(struct walk *w, const struct pickle_tensor *p)
{
    w->n_tensor++;
    if (!w->add)
        return ST_OK;
    struct tensor t = p->shape;
    char *name = arena_copy(&w->l->arena, str_of(w->path));
    if (!name)
        return fail_nomem(w->err, "tensor names");
    t.name = str_of(name);
    if (!p->contiguous)
        return fail(w->err, ST_UNSUPPORTED, "torch: tensor %s is not contiguous; save it again after .contiguous()",
                    name);
    TRY(tensor_measure(&t, "torch", w->err));
    TRY(find_numbers(&t, w, p));
    return loading_add(w->l, &t, "torch", w->err);
}

static bool is_wrapper(struct str key)
{
    static const char *const names[] = {"model", "state_dict", "model_state", "model_state_dict", "module"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_is(key, names[i]))
            return true;
    return false;
}

static enum status walk_value(struct walk *w, const struct pickle *v, size_t path_len, int depth);

static enum status walk_member(struct walk *w, struct str key, const struct pickle *v, size_t path_len, int depth)
{
    bool dropped = depth == 0 && v->type == PICKLE_DICT && is_wrapper(key);
    size_t end = path_len;
    if (!dropped) {
        const char *dot = path_len ? "." : "";
        if (path_len + key.len + 2 > sizeof w->path || memchr(key.ptr, 0, key.len))
            return fail(w->err, ST_LIMIT, "torch: a name longer than %d bytes, or with a NUL, under %s", PATH_BYTES - 1,
                        w->path);
        end += (size_t)snprintf(w->path + path_len, sizeof w->path - path_len, "%s%.*s", dot, (int)key.len, key.ptr);
    }
    TRY(walk_value(w, v, end, depth + 1));
    w->path[path_len] = 0;
    return ST_OK;
}

static enum status walk_dict(struct walk *w, const struct pickle *v, size_t path_len, int depth)
{
    for (const struct pickle_item *i = v->items.first; i && i->next; i = i->next->next) {
        const struct pickle *key = i->value, *value = i->next->value;
        char number[24];
        struct str name = key->text;
        if (key->type == PICKLE_INT)
            name = str_n(number, (size_t)snprintf(number, sizeof number, "%" PRId64, key->integer));
        else if (key->type != PICKLE_STRING)
            return fail(w->err, ST_UNSUPPORTED, "torch: a dictionary key under \"%s\" is no string or number", w->path);
        if (w->json && value->type != PICKLE_TENSOR)
            json_key_str(w->json, name);
        TRY(walk_member(w, name, value, path_len, depth));
    }
    return ST_OK;
}

static enum status walk_list(struct walk *w, const struct pickle *v, size_t path_len, int depth)
{
    char number[24];
    int64_t index = 0;
    for (const struct pickle_item *i = v->items.first; i; i = i->next, index++) {
        struct str name = str_n(number, (size_t)snprintf(number, sizeof number, "%" PRId64, index));
        if (w->json && i->value->type == PICKLE_TENSOR)
            json_write_null(w->json); /* keeps the other elements' places */
        TRY(walk_member(w, name, i->value, path_len, depth));
    }
    return ST_OK;
}

static void write_plain(struct json_writer *json, const struct pickle *v)
{
    if (v->type == PICKLE_BOOL)
        json_write_bool(json, v->integer != 0);
    else if (v->type == PICKLE_INT)
        json_write_int(json, v->integer);
    else if (v->type == PICKLE_REAL)
        json_write_real(json, v->real);
    else if (v->type == PICKLE_STRING)
        json_write_str(json, v->text);
    else
        json_write_null(json);
}

static enum status walk_value(struct walk *w, const struct pickle *v, size_t path_len, int depth)
{
    const struct buf *text = w->json ? w->json->out : NULL;
    if (text && text->failed && text->len < text->limit / 4)
        return fail_nomem(w->err, "the file's values");
    if (depth > DEPTH_MAX || w->steps_left == 0 || (text && text->failed))
        return fail(w->err, ST_LIMIT, "torch: the values under \"%.100s\" are nested or repeated too often", w->path);
    w->steps_left--;
    bool list = v->type == PICKLE_LIST || v->type == PICKLE_TUPLE;
    if (v->type == PICKLE_TENSOR)
        return on_tensor(w, v->tensor);
    if (v->type == PICKLE_DICT) {
        if (w->json)
            json_begin_object(w->json);
        TRY(walk_dict(w, v, path_len, depth));
        if (w->json)
            json_end_object(w->json);
    } else if (list) {
        if (w->json)
            json_begin_array(w->json);
        TRY(walk_list(w, v, path_len, depth));
        if (w->json)
            json_end_array(w->json);
    } else if (w->json)
        write_plain(w->json, v);
    return ST_OK;
}

/* Twice over the tree: to count, and then to add. */
static enum status walk_tree(struct walk *w, const struct pickle *root, struct str bytes)
{
    struct json_writer *json = w->json;
    uint64_t steps = bytes.len + 1000; /* every reference takes a byte of the pickle */
    w->json = NULL;
    w->steps_left = steps;
    TRY(walk_value(w, root, 0, 0));
    TRY(loading_reserve(w->l, w->n_tensor, w->err));
    w->json = json;
    w->steps_left = steps;
    w->add = true;
    return walk_value(w, root, 0, 0);
}

static enum status read_tree(struct walk *w, const struct pickle *root, struct str bytes, bool config)
{
    struct buf text = {0};
    struct json_writer json;
    json_writer_init(&json, &text);
    /* The text, its copy and at most 8 bytes of nodes for each of its bytes must fit what is left. */
    text.limit = (w->l->arena.limit - w->l->arena.used) / 16;
    w->json = config ? &json : NULL;
    enum status st = w->l->arena.used < w->l->arena.limit
                         ? walk_tree(w, root, bytes)
                         : fail(w->err, ST_LIMIT, "torch: the file's values need too much memory");
    if (st == ST_OK && config) {
        char *copy = text.failed ? NULL : arena_copy(&w->l->arena, buf_str(&text));
        st = copy ? loading_parse_json(&w->l->pub.config, w->l, str_n(copy, text.len), 0, "torch: values", w->err)
                  : fail_nomem(w->err, "the file's values");
    }
    w->json = NULL;
    buf_free(&text);
    return st;
}

static enum status read_archive(struct zip *z, struct loading *l, bool config, struct error *err)
{
    struct walk w = {.l = l, .zip = z, .err = err};
    struct zip_entry *pickle = NULL;
    struct str tail = STR("/data.pkl"), bytes, order;
    for (size_t i = 0; i < z->n && !pickle; i++)
        if (str_ends(z->entries[i].name, tail))
            pickle = &z->entries[i];
    if (!pickle)
        return fail(err, ST_CORRUPT, "torch: a zip archive without data.pkl is no PyTorch checkpoint");
    w.prefix = str_n(pickle->name.ptr, pickle->name.len - tail.len + 1);
    char name[PATH_BYTES];
    snprintf(name, sizeof name, "%.*sbyteorder", STR_ARG(w.prefix));
    struct zip_entry *e = zip_find(z, str_of(name));
    if (e) {
        TRY(zip_content(&order, z, e, true, err));
        if (!str_is(order, "little"))
            return fail(err, ST_UNSUPPORTED, "torch: byte order \"%.*s\", expected \"little\"", STR_ARG(order));
    }
    TRY(zip_content(&bytes, z, pickle, true, err));
    const struct pickle *root;
    TRY(pickle_read(&root, l, bytes, err));
    return read_tree(&w, root, bytes, config);
}

enum status torch_read(struct loading *l, const uint8_t *data, size_t size, bool config, struct error *err)
{
    struct zip z;
    enum status st = zip_read(&z, l, data, size, err);
    if (st == ST_OK)
        st = read_archive(&z, l, config, err);
    zip_free(&z);
    return st;
}
