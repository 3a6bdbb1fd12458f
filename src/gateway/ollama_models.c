/* Ollama's routes about models: what is here, what runs, what one is. */
#include "gateway/private.h"

#include "base/clock.h"

#include <stdio.h>

/* Clients compare it with the release that brought a feature: the API level spoken here, not our own version. */
#define OLLAMA_API_LEVEL "0.13.0"
enum { SHOW_BODY_MAX = 4096 };

static void put_name(struct json_writer *w, const char *of)
{
    char name[HOSTED_NAME_MAX + 32];
    snprintf(name, sizeof name, "%s:latest", of);
    json_put_str(w, "name", str_of(name));
    json_put_str(w, "model", str_of(name));
}

static void put_details(struct json_writer *w, const struct bundle *b)
{
    const struct model_config *c = model_config(b->model);
    char size[32];
    if (c->n_param >= 1000000000)
        snprintf(size, sizeof size, "%.1fB", (double)c->n_param * 1e-9);
    else
        snprintf(size, sizeof size, "%.1fM", (double)c->n_param * 1e-6);
    json_key(w, "details");
    json_begin_object(w);
    json_put_str(w, "parent_model", STR(""));
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
    json_put_str(w, "digest", known ? str_of(f.text) : STR(""));
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
    json_put_int(w, "size", row->bundle ? stored_bytes(model_config(row->bundle->model)) : 0);
    put_digest(w, row);
    if (row->bundle)
        put_details(w, row->bundle);
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

static void put_info(struct json_writer *w, const struct bundle *b)
{
    const struct model_config *c = model_config(b->model);
    const struct {
        const char *key;
        int64_t value;
    } rows[] = {{"context_length", c->n_ctx},
                {"embedding_length", c->n_embd},
                {"block_count", c->n_layer},
                {"attention.head_count", c->n_head},
                {"attention.head_count_kv", c->n_kv_head}};
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

static void put_capabilities(struct json_writer *w, const struct bundle *b, const struct voice *v)
{
    bool embeds = model_config(b->model)->task == TASK_EMBED;
    json_key(w, "capabilities");
    json_begin_array(w);
    json_write_str(w, embeds ? STR("embedding") : STR("completion"));
    if (v->takes_tools && v->format != &speech_plain)
        json_write_str(w, STR("tools"));
    if (v->think || v->format->flags & SPEECH_CHANNELS)
        json_write_str(w, STR("thinking"));
    json_end_array(w);
}

struct showing {
    struct gateway *g;
    struct json_writer *w;
    struct str name;
    bool found;
};

/* Of a model that is not loaded, nothing but its name is known. */
static void show_row(void *ctx, const struct hosting_row *row)
{
    struct showing *s = ctx;
    struct json_writer *w = s->w;
    const struct bundle *b = row->bundle;
    struct voice voice;
    if (s->found || !str_is(s->name, row->name))
        return;
    s->found = true;
    json_begin_object(w);
    json_put_str(w, "modelfile", STR(""));
    json_put_str(w, "parameters", STR(""));
    json_put_str(w, "template", b && b->template_source.ptr ? b->template_source : STR(""));
    if (b) {
        put_details(w, b);
        put_info(w, b);
    }
    if (b && voice_make(&voice, b, s->g->options.tool_format))
        put_capabilities(w, b, &voice);
    ollama_put_time(w, "modified_at", (uint64_t)s->g->created * 1000000000);
    json_end_object(w);
}

void ollama_answer_show(struct gateway *g, struct http_exchange *x)
{
    struct str text = buf_str(&http_request(x)->body), tag = STR(":latest");
    const struct json *doc = NULL;
    struct arena arena;
    struct refusal why = {0};
    struct error err;
    struct buf body = {0};
    struct json_writer w;
    arena_init(&arena, 1 << 20);
    if (text.len > SHOW_BODY_MAX || json_parse(&doc, &arena, text, JSON_UNIQUE, &err) != ST_OK)
        refuse(&why, 400, "invalid_json", NULL, "expected a small JSON object with the name of a model");
    struct str name = json_str(json_get(doc, "model"));
    name = name.len ? name : json_str(json_get(doc, "name"));
    struct showing show = {.g = g, .w = &w, .name = name};
    json_writer_init(&w, &body);
    if (!why.http)
        served_names(g, show_row, &show);
    if (!show.found && str_ends(name, tag)) {
        show.name.len -= tag.len;
        served_names(g, show_row, &show);
    }
    if (!why.http && !show.found)
        refuse(&why, 404, "model_not_found", "model", "model '%.*s' not found", STR_ARG(name.ptr ? name : STR("")));
    arena_free(&arena);
    if (!why.http) {
        answer_json(g, x, 200, &body);
        return;
    }
    buf_free(&body);
    answer_refusal(g, x, &why);
}
