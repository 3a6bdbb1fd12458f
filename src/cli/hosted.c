/* hosted - the models of `ingot serve`: words of the command line, and a file that lists them */
#include "cli/hosted.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/yaml.h"

#include <stdio.h>

enum { FILE_MAX_BYTES = 1 << 20, PATH_BYTES = 4096 };

/* Every model runs with the command line's options; each makes its own threads. */
static struct hosting_model like(const struct cli_hosted *c)
{
    struct hosting_model m = {.model = *c->model, .engine = *c->engine, .n_thread = pool_threads(c->model->pool)};
    m.model.pool = NULL;
    m.model.progress = NULL;
    m.engine.pool = NULL;
    m.engine.draft = NULL; /* the first model's, and of its vocabulary */
    m.engine.kv_spill = NULL;
    return m;
}

static enum status bad(const struct cli_hosted *c, struct error *err, const char *what)
{
    return fail(err, ST_INVALID, "%s: %s", c->file, what);
}

static bool text_of(char out[PATH_BYTES], const struct json *v)
{
    struct str s = json_str(v);
    bool good = s.len && s.len < PATH_BYTES && !memchr(s.ptr, 0, s.len);
    snprintf(out, PATH_BYTES, "%.*s", good ? (int)s.len : 0, good ? s.ptr : "");
    return good;
}

static enum status add_aliases(struct hosting *h, const struct cli_hosted *c, const struct json *model,
                               const char *name, struct error *err)
{
    char text[PATH_BYTES], path[PATH_BYTES];
    JSON_EACH (alias, json_get(model, "aliases")) {
        if (!text_of(text, alias))
            return bad(c, err, "aliases: expected names");
        TRY(hosting_alias(h, text, name, err));
    }
    JSON_EACH_MEMBER (lora, value, json_get(model, "loras")) {
        if (lora.len >= PATH_BYTES || !text_of(path, value))
            return bad(c, err, "loras: expected a folder for each name");
        snprintf(text, sizeof text, "%.*s", (int)lora.len, lora.ptr);
        TRY(hosting_lora_add(h, text, name, path, err));
    }
    return ST_OK;
}

static enum status check_keys(const struct cli_hosted *c, const struct json *model, struct error *err)
{
    static const char *const known[] = {"name", "path", "pinned", "keep_alive", "aliases", "loras", "ctx", "kv_bytes"};
    JSON_EACH_MEMBER (key, value, model) {
        bool good = false;
        (void)value;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            good |= str_is(key, known[i]);
        if (!good)
            return fail(err, ST_INVALID,
                        "%s: unknown key %.*s of a model; known are name, path, pinned, keep_alive, "
                        "aliases, loras, ctx and kv_bytes",
                        c->file, STR_ARG(key));
    }
    return ST_OK;
}

static enum status add_listed(struct hosting *h, const struct cli_hosted *c, const struct json *model,
                              struct error *err)
{
    char name[PATH_BYTES], path[PATH_BYTES];
    struct hosting_model m = like(c);
    TRY(check_keys(c, model, err));
    if (!text_of(path, json_get(model, "path")))
        return bad(c, err, "a model without a path");
    if (!text_of(name, json_get(model, "name"))) {
        struct str stem = path_stem(str_of(path));
        snprintf(name, sizeof name, "%.*s", (int)stem.len, stem.ptr);
    }
    int64_t ctx = json_int(json_get(model, "ctx"), m.model.n_ctx), kv = json_int(json_get(model, "kv_bytes"), 0);
    int64_t keep = json_int(json_get(model, "keep_alive"), 0);
    if (ctx < 0 || ctx > 1 << 24 || kv < 0 || keep < -1 || keep > INT32_MAX)
        return bad(c, err, "ctx, kv_bytes and keep_alive are whole numbers (keep_alive -1: for ever)");
    m.name = name;
    m.path = path;
    m.pinned = json_bool(json_get(model, "pinned"), false);
    m.keep_alive_s = (int)keep;
    m.model.n_ctx = (int)ctx;
    m.engine.kv_bytes = kv ? (uint64_t)kv : m.engine.kv_bytes;
    TRY(hosting_add(h, &m, err));
    return add_aliases(h, c, model, name, err);
}

static enum status add_file(struct hosting *h, const struct cli_hosted *c, struct error *err)
{
    struct buf text = {0};
    struct arena arena;
    const struct json *doc;
    arena_init(&arena, 16 << 20);
    enum status st = file_read_all(&text, c->file, FILE_MAX_BYTES, err);
    if (st == ST_OK && (st = yaml_parse(&doc, &arena, buf_str(&text), err)) != ST_OK)
        fail_context(err, "%s", c->file);
    if (st == ST_OK && !json_is(json_get(doc, "models"), JSON_ARRAY))
        st = bad(c, err, "expected a list \"models\"");
    if (st == ST_OK)
        JSON_EACH (model, json_get(doc, "models"))
            if (st == ST_OK)
                st = add_listed(h, c, model, err);
    arena_free(&arena);
    buf_free(&text);
    return st;
}

/* NAME=PATH,NAME=PATH: adapters of the first model. */
static enum status add_loras(struct hosting *h, const struct cli_hosted *c, struct error *err)
{
    struct str rest = str_of(c->loras);
    while (rest.len) {
        char name[PATH_BYTES], path[PATH_BYTES];
        size_t comma = str_find(rest, STR(","), 0);
        struct str one = str_n(rest.ptr, comma == SIZE_MAX ? rest.len : comma);
        size_t equals = str_find(one, STR("="), 0);
        rest = comma == SIZE_MAX ? (struct str){NULL, 0} : str_from(rest, comma + 1);
        if (equals == SIZE_MAX || equals == 0 || equals + 1 == one.len || one.len >= PATH_BYTES)
            return fail(err, ST_INVALID, "--lora %.*s: expected NAME=PATH", STR_ARG(one));
        snprintf(name, sizeof name, "%.*s", (int)equals, one.ptr);
        snprintf(path, sizeof path, "%.*s", (int)(one.len - equals - 1), one.ptr + equals + 1);
        TRY(hosting_lora_add(h, name, NULL, path, err));
    }
    return ST_OK;
}

static enum status add_all(struct hosting *h, const struct cli_hosted *c, struct error *err)
{
    struct model_plan plan;
    model_plan_of(&plan, c->bundle->model, 512);
    struct engine_stats s;
    engine_stats(c->first, &s);
    uint64_t kv = (uint64_t)s.blocks_total * model_kv_block_bytes(c->bundle->model);
    struct hosted_parts own = {(struct bundle *)(uintptr_t)c->bundle, c->first, NULL,
                               plan.weight_bytes + plan.run_bytes + kv};
    TRY(hosting_add_ready(h, c->bundle->id, &own, err));
    for (int i = 0; i < c->n_more; i++) {
        char name[PATH_BYTES];
        struct hosting_model m = like(c);
        struct str stem = path_stem(str_of(c->more[i]));
        snprintf(name, sizeof name, "%.*s", (int)stem.len, stem.ptr);
        m.name = name;
        m.path = c->more[i];
        if (file_kind(m.path) == FILE_ABSENT)
            return fail(err, ST_NOT_FOUND, "%s: there is no such model", m.path);
        TRY(hosting_add(h, &m, err));
    }
    if (c->file)
        TRY(add_file(h, c, err));
    return c->loras ? add_loras(h, c, err) : ST_OK;
}

enum status cli_hosting(struct hosting **out, const struct cli_hosted *c, struct error *err)
{
    struct hosting_options o = {
        .bytes_max = c->bytes_max, .keep_alive_s = c->keep_alive_s, .maker = &hosting_real, .like = like(c)};
    TRY(hosting_create(out, &o, err));
    enum status st = add_all(*out, c, err);
    if (st != ST_OK) {
        hosting_destroy(*out);
        *out = NULL;
    }
    return st;
}
