#include "train/train.h"

#include "base/yaml.h"

#include <stdio.h>

static const struct train_key keys[] = {
#define KEY(type, field, otherwise, what) {#field, #type, what, #otherwise},
#include "train/train_keys.def"
#undef KEY
};
enum { N_KEY = sizeof keys / sizeof *keys };
enum { ROWS_MAX = 1 << 24 }; /* of one forward: counts of rows are ints */

const struct train_key *train_keys(size_t *count)
{
    *count = N_KEY;
    return keys;
}

/* Defaults are written in train_keys.def as C literals; text and list defaults are strings. */
#define DEFAULT_text(x)    STR(x)
#define DEFAULT_list(x)    ((struct train_list){NULL, sizeof(x) - 1})
#define DEFAULT_integer(x) (x)
#define DEFAULT_number(x)  (x)
#define DEFAULT_flag(x)    (x)

enum status train_config_init(struct train_config *c, struct error *err)
{
    (void)err;
    arena_init(&c->arena, 0);
#define KEY(type, field, otherwise, what) c->field = DEFAULT_##type(otherwise);
#include "train/train_keys.def"
#undef KEY
    return ST_OK;
}

void train_config_free(struct train_config *c)
{
    arena_free(&c->arena);
}

/* ---- one setter a type, from a JSON value ---- */

static enum status wrong(const char *key, const char *wanted, struct error *err)
{
    return fail(err, ST_INVALID, "%s: expected %s", key, wanted);
}

static enum status keep(struct train_config *c, struct str *out, struct str s, struct error *err)
{
    char *copy = arena_copy(&c->arena, s);
    if (!copy)
        return fail_nomem(err, "train");
    *out = str_n(copy, s.len);
    return ST_OK;
}

static enum status set_text(struct train_config *c, train_text *out, const char *key, const struct json *v,
                            struct error *err)
{
    if (json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE)) /* resume_from_checkpoint: true */
        return keep(c, out, json_bool(v, false) ? STR("true") : STR(""), err);
    if (json_is(v, JSON_NULL))
        return keep(c, out, STR(""), err);
    if (!json_is(v, JSON_STRING))
        return wrong(key, "a text", err);
    return keep(c, out, json_str(v), err);
}

static enum status set_list(struct train_config *c, train_list *out, const char *key, const struct json *v,
                            struct error *err)
{
    bool one = json_is(v, JSON_STRING);
    if (!one && !json_is(v, JSON_ARRAY))
        return wrong(key, "a file name or a list of them", err);
    size_t n = one ? 1 : json_count(v);
    struct str *items = arena_alloc_zero(&c->arena, n ? n : 1, sizeof *items);
    if (!items)
        return fail_nomem(err, "train");
    for (size_t i = 0; i < n; i++) {
        const struct json *item = one ? v : json_at(v, i);
        if (!json_is(item, JSON_STRING))
            return wrong(key, "a list of file names", err);
        TRY(keep(c, &items[i], json_str(item), err));
    }
    *out = (struct train_list){items, n};
    return ST_OK;
}

static enum status set_integer(struct train_config *c, train_integer *out, const char *key, const struct json *v,
                               struct error *err)
{
    (void)c;
    if (!json_is(v, JSON_INT))
        return wrong(key, "a whole number", err);
    *out = json_int(v, 0);
    return ST_OK;
}

static enum status set_number(struct train_config *c, train_number *out, const char *key, const struct json *v,
                              struct error *err)
{
    (void)c;
    double d;
    if (json_is(v, JSON_STRING) && str_to_f64(&d, json_str(v))) /* YAML 1.2 core reads 5e-5 as text */
        *out = d;
    else if (json_is(v, JSON_INT) || json_is(v, JSON_REAL))
        *out = json_real(v, 0);
    else
        return wrong(key, "a number", err);
    return ST_OK;
}

static enum status set_flag(struct train_config *c, train_flag *out, const char *key, const struct json *v,
                            struct error *err)
{
    (void)c;
    if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
        return wrong(key, "true or false", err);
    *out = json_bool(v, false);
    return ST_OK;
}

static enum status unknown(struct str key, struct error *err)
{
    const char *near = NULL;
    size_t best = 6;
    for (size_t i = 0; i < N_KEY; i++) {
        size_t d = str_distance(key, str_of(keys[i].name), best);
        if (d < best)
            best = d, near = keys[i].name;
    }
    if (near)
        return fail(err, ST_INVALID, "unknown key %.*s: did you mean %s?", STR_ARG(key), near);
    return fail(err, ST_INVALID, "unknown key %.*s: `ingot train pretrain --help` lists all keys", STR_ARG(key));
}

static enum status set_key(struct train_config *c, struct str key, const struct json *v, struct error *err)
{
#define KEY(type, field, otherwise, what)                                                                              \
    if (str_is(key, #field))                                                                                           \
        return set_##type(c, &c->field, #field, v, err);
#include "train/train_keys.def"
#undef KEY
    return unknown(key, err);
}

enum status train_config_read(struct train_config *c, struct str yaml, struct error *err)
{
    const struct json *doc;
    TRY(yaml_parse(&doc, &c->arena, yaml, err));
    if (!json_is(doc, JSON_OBJECT))
        return fail(err, ST_INVALID, "the configuration must be `key: value` lines");
    JSON_EACH_MEMBER (key, value, doc) {
        TRY(set_key(c, key, value, err));
    }
    return ST_OK;
}

static const char *key_type(struct str key)
{
    for (size_t i = 0; i < N_KEY; i++)
        if (str_is(key, keys[i].name))
            return keys[i].type;
    return "";
}

/* A flag's text becomes the JSON value the setters take: texts and lists of texts stay texts. */
enum status train_config_set(struct train_config *c, struct str key, struct str value, struct error *err)
{
    const char *type = key_type(key);
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    if (!strcmp(type, "list")) {
        json_begin_array(&w);
        while (value.len) {
            size_t comma = str_find(value, STR(","), 0);
            size_t n = comma == SIZE_MAX ? value.len : comma;
            json_write_str(&w, str_n(value.ptr, n));
            value = str_from(value, comma == SIZE_MAX ? n : n + 1);
        }
        json_end_array(&w);
    } else if (!strcmp(type, "text"))
        json_write_str(&w, value);
    else
        buf_append_str(&text, value);
    const struct json *v;
    enum status st = text.failed ? fail_nomem(err, "train") : ST_OK;
    if (st == ST_OK && json_parse(&v, &c->arena, buf_str(&text), 0, NULL) != ST_OK)
        st = fail(err, ST_INVALID, "%.*s: %.*s is no %s", STR_ARG(key), STR_ARG(value), *type ? type : "value");
    if (st == ST_OK)
        st = set_key(c, key, v, err);
    buf_free(&text);
    return st;
}

static enum status at_least(const char *key, double value, double least, struct error *err)
{
    if (!(value >= least))
        return fail(err, ST_INVALID, "%s: %g is too small: at least %g", key, value, least);
    return ST_OK;
}

enum status train_config_check(const struct train_config *c, struct error *err)
{
    if (!c->model.len)
        return fail(err, ST_INVALID, "model: missing: name a config.json (random start) or a model folder");
    if (!c->data.count)
        return fail(err, ST_INVALID, "data: missing: name one or more text files");
    if (!c->output_dir.len)
        return fail(err, ST_INVALID, "output_dir: missing: name a folder for the result");
    const struct {
        const char *key;
        double value, least, most;
    } ranges[] = {
        {"block_size", (double)c->block_size, 2, 1 << 20},
        {"per_device_train_batch_size", (double)c->per_device_train_batch_size, 1, 1 << 16},
        {"per_device_eval_batch_size", (double)c->per_device_eval_batch_size, 1, 1 << 16},
        {"gradient_accumulation_steps", (double)c->gradient_accumulation_steps, 1, 1 << 16},
        {"max_steps", (double)c->max_steps, -1, 1e12},
        {"num_train_epochs", c->num_train_epochs, 0, 1e6},
        {"learning_rate", c->learning_rate, 0, 10},
        {"weight_decay", c->weight_decay, 0, 10},
        {"adam_beta1", c->adam_beta1, 0, 1},
        {"adam_beta2", c->adam_beta2, 0, 1},
        {"adam_epsilon", c->adam_epsilon, 0, 1},
        {"max_grad_norm", c->max_grad_norm, 0, 1e9},
        {"min_lr_rate", c->min_lr_rate, 0, 1},
        {"warmup_ratio", c->warmup_ratio, 0, 1},
        {"warmup_steps", (double)c->warmup_steps, 0, 1e12},
        {"logging_steps", (double)c->logging_steps, 1, 1e12},
        {"eval_steps", (double)c->eval_steps, 0, 1e12},
        {"eval_windows", (double)c->eval_windows, 0, 1e12},
        {"save_steps", (double)c->save_steps, 0, 1e12},
        {"save_total_limit", (double)c->save_total_limit, 1, 1e6},
        {"threads", (double)c->threads, 0, 4096},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        TRY(at_least(ranges[i].key, ranges[i].value, ranges[i].least, err));
        if (ranges[i].value > ranges[i].most)
            return fail(err, ST_INVALID, "%s: %g is too large: at most %g", ranges[i].key, ranges[i].value,
                        ranges[i].most);
    }
    int64_t batch = c->per_device_train_batch_size > c->per_device_eval_batch_size ? c->per_device_train_batch_size
                                                                                   : c->per_device_eval_batch_size;
    if (c->block_size * batch > ROWS_MAX)
        return fail(err, ST_INVALID, "block_size %lld times a batch of %lld is more than %d tokens in one forward",
                    (long long)c->block_size, (long long)batch, ROWS_MAX);
    int dtype = dtype_find(c->save_dtype);
    if (dtype != DT_F32 && dtype != DT_BF16 && dtype != DT_F16)
        return fail(err, ST_INVALID, "save_dtype: %.*s: expected f32, bf16 or f16", STR_ARG(c->save_dtype));
    if (train_lr(c, 0, 1) < 0)
        return fail(
            err, ST_INVALID,
            "lr_scheduler_type: %.*s: expected constant, constant_with_warmup, linear, cosine or cosine_with_min_lr",
            STR_ARG(c->lr_scheduler_type));
    return ST_OK;
}

/* ---- schedule: transformers' optimization.py, get_*_schedule_with_warmup ---- */

double train_lr(const struct train_config *c, int64_t done, int64_t max_steps)
{
    const double pi = 3.14159265358979323846;
    double warmup =
        c->warmup_steps ? (double)c->warmup_steps : (double)(int64_t)(c->warmup_ratio * (double)max_steps + 0.999999);
    struct str type = c->lr_scheduler_type;
    double rest = (double)max_steps - warmup, at = ((double)done - warmup) / (rest > 1 ? rest : 1);
    double share;
    if (str_is(type, "constant"))
        return c->learning_rate;
    if (str_is(type, "constant_with_warmup"))
        share = 1;
    else if (str_is(type, "linear"))
        share = at < 1 ? 1 - at : 0;
    else if (str_is(type, "cosine"))
        share = at < 1 ? 0.5 * (1 + fn_cos(pi * at)) : 0;
    else if (str_is(type, "cosine_with_min_lr"))
        share = at < 1 ? 0.5 * (1 + fn_cos(pi * at)) * (1 - c->min_lr_rate) + c->min_lr_rate : c->min_lr_rate;
    else
        return -1;
    if ((double)done < warmup)
        return c->learning_rate * (double)done / (warmup > 1 ? warmup : 1);
    return c->learning_rate * share;
}
