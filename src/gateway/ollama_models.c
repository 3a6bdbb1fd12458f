/* Ollama's routes about models: what is here, what runs, what one is. */
#include "gateway/private.h"

#include "base/clock.h"

#include <stdio.h>

/* Clients compare it with the release that brought a feature: the API level spoken here, not our own version. */
#define OLLAMA_API_LEVEL "0.13.0"
/* Its clients cut a digest to twelve digits without looking: there are always some. */
#define UNKNOWN_DIGEST "0000000000000000000000000000000000000000000000000000000000000000"

static void put_name(struct json_writer *w, const char *of)
{
    char name[HOSTED_NAME_MAX + 32];
    snprintf(name, sizeof name, "%s:latest", of);
    json_put_str(w, "name", str_of(name));
    json_put_str(w, "model", str_of(name));
}

static void put_details(struct json_writer *w, const struct model_config *c, const char *parent)
{
    char size[32];
    if (c->n_param >= 1000000000)
        snprintf(size, sizeof size, "%.1fB", (double)c->n_param * 1e-9);
    else
        snprintf(size, sizeof size, "%.1fM", (double)c->n_param * 1e-6);
    json_key(w, "details");
    json_begin_object(w);
    json_put_str(w, "parent_model", str_of(parent ? parent : ""));
    json_put_str(w, "format", STR("gguf"));
    json_put_str(w, "family", str_of(c->family));
    json_key(w, "families");
    json_begin_array(w);
    json_write_str(w, str_of(c->family));
    json_end_array(w);
    json_put_str(w, "parameter_size", str_of(size));
    json_put_str(w, "quantization_level", str_of(dtype_row(c->type)->name));
    json_end_object(w);
}

static void put_digest(struct json_writer *w, const struct hosting_row *row)
{
    struct fingerprint f;
    bool known = row->bundle && bundle_fingerprint_known(&f, row->bundle, row->adapter);
    json_put_str(w, "digest", known ? str_of(f.text) : STR(UNKNOWN_DIGEST));
}

static int64_t stored_bytes(const struct model_config *c)
{
    size_t bytes = 0;
    bool good = dtype_bytes(&bytes, c->type, (uint64_t)c->n_param / 256 * 256); /* whole blocks of any type */
    return good ? (int64_t)bytes : 0;
}

struct listing {
    const struct gateway *g;
    struct json_writer *w;
    bool running;
};

/* Of a model that is not loaded, nothing but its name is known. */
static void put_model(void *ctx, const struct hosting_row *row)
{
    const uint64_t year_ns = 86400ull * 365 * 1000000000;
    const struct listing *l = ctx;
    struct json_writer *w = l->w;
    struct engine_stats s;
    if (l->running && !row->bundle)
        return;
    json_begin_object(w);
    put_name(w, row->name);
    json_put_int(w, "size",
                 l->running && row->bytes ? (int64_t)row->bytes
                 : row->bundle            ? stored_bytes(model_config(row->bundle->model))
                                          : 0);
    put_digest(w, row);
    if (row->bundle)
        put_details(w, model_config(row->bundle->model), row->parent);
    if (l->running) {
        uint64_t now = clock_ns(), left = row->expires_ns > now ? row->expires_ns - now : 0;
        engine_stats(row->engine, &s);
        ollama_put_time(w, "expires_at", clock_wall_ns() + (row->expires_ns ? left : year_ns));
        json_put_int(w, "size_vram", 0);
        json_put_int(w, "context_length", s.n_ctx);
    } else {
        ollama_put_time(w, "modified_at", (uint64_t)l->g->created * 1000000000);
    }
    json_end_object(w);
}

static void answer_models(struct gateway *g, struct http_exchange *x, bool running)
{
    struct buf body = {0};
    struct json_writer w;
    struct listing l = {g, &w, running};
    json_writer_init(&w, &body);
    json_begin_object(&w);
    json_key(&w, "models");
    json_begin_array(&w);
    served_names(g, put_model, &l);
    json_end_array(&w);
    json_end_object(&w);
    answer_json(g, x, 200, &body);
}

void ollama_answer_tags(struct gateway *g, struct http_exchange *x)
{
    answer_models(g, x, false);
}

void ollama_answer_ps(struct gateway *g, struct http_exchange *x)
{
    answer_models(g, x, true);
}

void ollama_answer_version(struct gateway *g, struct http_exchange *x)
{
    (void)g;
    http_respond(x, 200, "application/json", STR("{\"version\":\"" OLLAMA_API_LEVEL "\"}"));
}

/* ---- show ---- */

static void put_info(struct json_writer *w, const struct model_config *c)
{
    const struct {
        const char *key;
        int64_t value;
    } rows[] = {{"context_length", c->n_ctx},        {"embedding_length", c->n_embd},
                {"block_count", c->n_layer},         {"feed_forward_length", c->n_ff},
                {"attention.head_count", c->n_head}, {"attention.head_count_kv", c->n_kv_head},
                {"vocab_size", c->n_vocab}};
    char key[80];
    json_key(w, "model_info");
    json_begin_object(w);
    json_put_str(w, "general.architecture", str_of(c->family));
    json_put_int(w, "general.parameter_count", c->n_param);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(key, sizeof key, "%s.%s", c->family, rows[i].key);
        json_put_int(w, key, rows[i].value);
    }
    json_end_object(w);
}

static void put_capabilities(struct json_writer *w, const struct voice *v, enum model_task task)
{
    json_key(w, "capabilities");
    json_begin_array(w);
    if (task == TASK_EMBED)
        json_write_str(w, STR("embedding"));
    if (task == TASK_GENERATE)
        json_write_str(w, STR("completion"));
    if (task == TASK_GENERATE && v->takes_tools && v->format != &speech_plain)
        json_write_str(w, STR("tools"));
    if (task == TASK_GENERATE && (v->think || v->format->flags & SPEECH_CHANNELS))
        json_write_str(w, STR("thinking"));
    json_end_array(w);
}

/* The model's own defaults, as lines of a Modelfile: prefix, name and value. */
static void put_defaults(struct json_writer *w, const char *key, const char *from, const char *prefix,
                         const struct bundle *b)
{
    const struct {
        const char *name;
        double value;
    } rows[] = {{"temperature", b->temperature},
                {"top_p", b->top_p},
                {"top_k", b->top_k},
                {"repeat_penalty", b->repetition_penalty}};
    struct buf text = {0};
    buf_append_str(&text, str_of(from));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].value >= 0)
            buf_printf(&text, "%s%s %.6g\n", prefix, rows[i].name, rows[i].value);
    json_put_str(w, key, buf_str(&text));
    w->out->failed |= text.failed;
    buf_free(&text);
}

/* b: what is known of its tokenizer, template and defaults. */
static void write_show(const struct gateway *g, struct buf *out, const char *name, const char *parent,
                       const struct bundle *b, const struct model_config *c)
{
    struct json_writer w;
    struct voice v;
    char from[HOSTED_NAME_MAX + 8];
    if (!voice_make(&v, b, g->options.tool_format))
        v.format = &speech_plain;
    snprintf(from, sizeof from, "FROM %s\n", parent ? parent : name);
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "license", STR(""));
    put_defaults(&w, "modelfile", from, "PARAMETER ", b);
    put_defaults(&w, "parameters", "", "", b);
    json_put_str(&w, "template", b->template_source.ptr ? b->template_source : STR(""));
    put_details(&w, c, parent);
    put_info(&w, c);
    put_capabilities(&w, &v, c->task);
    ollama_put_time(&w, "modified_at", (uint64_t)g->created * 1000000000);
    json_end_object(&w);
}

struct shown {
    const struct gateway *g;
    struct str name;
    struct buf *out;
    bool found, written;
    char label[HOSTED_NAME_MAX], parent[HOSTED_NAME_MAX], path[4096]; /* found, and not loaded: where its files are */
};

static void show_row(void *ctx, const struct hosting_row *row)
{
    struct shown *s = ctx;
    if (s->found || !str_is(s->name, row->name))
        return;
    s->found = true;
    s->written = row->bundle != NULL;
    if (s->written) {
        write_show(s->g, s->out, row->name, row->parent, row->bundle, model_config(row->bundle->model));
        return;
    }
    snprintf(s->label, sizeof s->label, "%s", row->name);
    snprintf(s->parent, sizeof s->parent, "%s", row->is_lora && row->parent ? row->parent : "");
    snprintf(s->path, sizeof s->path, "%s", row->path);
}

/* One that is not loaded: as its files say, and they are not loaded for it. */
static enum status show_files(const struct shown *s, struct error *err)
{
    struct bundle *b;
    struct model_config config;
    TRY(bundle_peek(&b, &config, s->path, err));
    write_show(s->g, s->out, s->label, NULL, b, &config);
    bundle_close(b);
    return ST_OK;
}

static enum status show(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[HOSTED_NAME_MAX + 8];
    struct shown s = {.g = g, .out = said};
    TRY(ollama_model(name, sizeof name, body, err));
    s.name = str_of(name);
    served_names(g, show_row, &s);
    if (!s.found)
        return fail(err, ST_NOT_FOUND, "model '%.100s' not found", name);
    if (!s.written && *s.parent) { /* an adapter whose base is not loaded */
        s.name = str_of(s.parent);
        s.found = false;
        served_names(g, show_row, &s);
    }
    return s.written ? ST_OK : show_files(&s, err);
}

const struct admin_call ollama_show = {show, .type = "application/json", .free = true};
