/* structured - answers that must have a shape: OpenAI's response_format, vLLM's guided_* and structured_outputs,
 * llama.cpp's grammar and json_schema, Ollama's format
 *
 * All of them become one part of a grammar, which is compiled on the worker (or found in the cache) and given to the
 * engine with the request. What a schema asks for and cannot be enforced is a 400 that names its place.
 */
#include "gateway/private.h"

enum { CACHED_MAX = 64, CHOICES_MAX = 10000 };

/* ---- reading ---- */

static bool set_shape(struct parse *p, const char *name, struct grammar_part part)
{
    struct grammar_part *kept = arena_alloc(p->arena, sizeof *kept);
    if (p->out->shape)
        return refuse(p->why, 400, "invalid_value", name, "%s and %s exclude each other: an answer has one shape", name,
                      p->out->shape_param);
    if (!kept)
        return field_no_memory(p);
    *kept = part;
    p->out->shape = kept;
    p->out->shape_param = name;
    return true;
}

/* A schema, as JSON or as the text of JSON. */
static bool set_schema(struct parse *p, const char *name, const struct json *v, unsigned flags)
{
    bool written = json_is(v, JSON_STRING);
    if (!written && !json_is(v, JSON_OBJECT) && !json_is(v, JSON_TRUE))
        return field_wrong_type(p, name, "a JSON Schema");
    struct str text = written ? json_str(v) : field_source(p, v);
    return text.ptr ? set_shape(p, name, (struct grammar_part){.kind = GRAMMAR_SCHEMA, .flags = flags, .text = text})
                    : field_no_memory(p);
}

static bool set_text(struct parse *p, const char *name, const struct json *v, enum grammar_kind kind)
{
    if (!json_is(v, JSON_STRING))
        return field_wrong_type(p, name, "a string");
    return json_str(v).len == 0 || set_shape(p, name, (struct grammar_part){.kind = kind, .text = json_str(v)});
}

static bool set_choice(struct parse *p, const char *name, const struct json *v)
{
    size_t n = json_count(v), i = 0;
    if (!json_is(v, JSON_ARRAY) || n == 0 || n > CHOICES_MAX)
        return field_wrong_type(p, name, "an array of 1 to 10000 strings");
    struct grammar_part *parts = arena_alloc_zero(p->arena, n, sizeof *parts);
    JSON_EACH (item, v) {
        if (!json_is(item, JSON_STRING))
            return field_wrong_type(p, name, "an array of strings");
        if (parts)
            parts[i++] = (struct grammar_part){.kind = GRAMMAR_TEXT, .text = json_str(item)};
    }
    return parts ? set_shape(p, name, (struct grammar_part){.kind = GRAMMAR_ANY_OF, .parts = parts, .n_part = n})
                 : field_no_memory(p);
}

/* strict is OpenAI's promise: the properties come in the order of the schema. */
bool read_response_format(struct parse *p, const char *name, const struct json *v)
{
    struct str type = json_str(json_get(v, "type"));
    const struct json *schema = json_get(v, "schema"), *named = json_get(v, "json_schema");
    if (str_is(type, "text"))
        return true;
    if (str_is(type, "json_object"))
        return json_type(schema) != JSON_NULL ? set_schema(p, name, schema, 0)
                                              : set_shape(p, name, (struct grammar_part){.kind = GRAMMAR_JSON});
    if (!str_is(type, "json_schema"))
        return refuse(p->why, 400, "invalid_value", name, "%s.type: expected text, json_object or json_schema", name);
    if (json_type(named) == JSON_NULL && json_type(schema) == JSON_NULL)
        return refuse(p->why, 400, "missing_required_parameter", "response_format.json_schema",
                      "response_format.json_schema is missing");
    bool strict = json_bool(json_get(named, "strict"), false);
    if (json_type(named) != JSON_NULL)
        schema = json_get(named, "schema");
    if (json_type(schema) == JSON_NULL) /* OpenAI: a schema is not required; then any object */
        return set_shape(p, name, (struct grammar_part){.kind = GRAMMAR_JSON});
    return set_schema(p, name, schema, strict ? GRAMMAR_ORDERED : 0);
}

bool read_guided_json(struct parse *p, const char *name, const struct json *v)
{
    return set_schema(p, name, v, 0);
}
bool read_guided_regex(struct parse *p, const char *name, const struct json *v)
{
    return set_text(p, name, v, GRAMMAR_REGEX);
}
bool read_guided_grammar(struct parse *p, const char *name, const struct json *v)
{
    return set_text(p, name, v, GRAMMAR_GBNF);
}
bool read_guided_choice(struct parse *p, const char *name, const struct json *v)
{
    return set_choice(p, name, v);
}

static bool read_member(struct parse *p, const char *name, struct str key, const struct json *v, unsigned *flags)
{
    if (str_is(key, "json"))
        return set_schema(p, name, v, 0);
    if (str_is(key, "regex"))
        return set_text(p, name, v, GRAMMAR_REGEX);
    if (str_is(key, "grammar"))
        return set_text(p, name, v, GRAMMAR_GBNF);
    if (str_is(key, "choice"))
        return set_choice(p, name, v);
    if (str_is(key, "json_object"))
        return !json_bool(v, false) || set_shape(p, name, (struct grammar_part){.kind = GRAMMAR_JSON});
    if (str_is(key, "disable_any_whitespace")) {
        *flags |= json_bool(v, false) ? GRAMMAR_COMPACT : 0;
        return true;
    }
    if (str_is(key, "disable_fallback") || str_is(key, "disable_additional_properties"))
        return !json_bool(v, false) || str_is(key, "disable_fallback") ||
               refuse(p->why, 400, "unsupported_parameter", name, "%s.%.*s: this is not offered here", name,
                      STR_ARG(key));
    return refuse(p->why, 400, "unsupported_parameter", name, "%s.%.*s: this is not offered here", name, STR_ARG(key));
}

bool read_structured_outputs(struct parse *p, const char *name, const struct json *v)
{
    unsigned flags = 0;
    if (!json_is(v, JSON_OBJECT))
        return field_wrong_type(p, name, "an object");
    JSON_EACH_MEMBER (key, value, v)
        if (json_type(value) != JSON_NULL && !read_member(p, name, key, value, &flags))
            return false;
    if (flags && p->out->shape) {
        struct grammar_part part = *p->out->shape;
        part.flags |= flags;
        p->out->shape = NULL;
        return set_shape(p, name, part);
    }
    return true;
}

/* Ollama: "json", or a schema. */
bool read_ollama_format(struct parse *p, const char *name, const struct json *v)
{
    if (json_is(v, JSON_STRING) && json_str(v).len == 0)
        return true;
    if (str_is(json_str(v), "json"))
        return set_shape(p, name, (struct grammar_part){.kind = GRAMMAR_JSON});
    return json_is(v, JSON_OBJECT) ? set_schema(p, name, v, 0) : field_wrong_type(p, name, "\"json\" or a JSON Schema");
}

bool structured_check(struct parse *p)
{
    const struct ask *a = p->out;
    const char *param = a->shape ? a->shape_param : a->calls_param;
    if (a->whole && json_bool(json_get(p->body, "use_beam_search"), false))
        return refuse(p->why, 400, "unsupported_parameter", param, "%s: not together with use_beam_search", param);
    return true;
}

/* ---- compiling, on the worker ---- */

/* The vocabulary's trie takes a moment and some memory: made for the first who asks, of each model. */
static enum status open_cache(struct grammar_cache **out, struct job *j, struct error *err)
{
    struct served *s = served_of(j->g, j->engine);
    enum status st = ST_OK;
    if (!s)
        return fail_nomem(err, "gateway");
    pthread_mutex_lock(&s->lock);
    if (!s->vocab)
        st = engine_vocab_create(&s->vocab, j->engine, j->voice->shown, j->voice->n_shown, err);
    if (st == ST_OK && !s->grammars)
        st = grammar_cache_create(&s->grammars, s->vocab, CACHED_MAX, err);
    *out = s->grammars;
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* Of a shape and calls in one answer, it is not the shape that cannot be. */
static bool shape_is_good(struct grammar_cache *cache, const struct grammar_part *shape)
{
    struct grammar *alone = NULL;
    struct error ignored;
    enum status st = grammar_cache_get(cache, &alone, shape, &ignored);
    grammar_release(alone);
    return st == ST_OK;
}

bool structured_make(struct job *j)
{
    struct error err;
    const struct ask *a = &j->ask;
    const char *param = a->shape ? a->shape_param : a->calls_param;
    if (a->return_replay && a->one_call && a->tools) /* it is the gateway that ends such an answer */
        return refuse(&j->why, 400, "unsupported_value", "return_replay",
                      "return_replay: not offered together with tools of which only one may be called");
    if (!a->whole)
        return true;
    if (a->return_replay)
        return refuse(&j->why, 400, "unsupported_value", "return_replay", "return_replay: not offered together with %s",
                      param);
    j->calls_first = a->shape != NULL;
    /* Where the template has opened reasoning, that comes first, and is free. */
    struct grammar_part after[] = {
        {.kind = GRAMMAR_UNTIL, .text = str_of(j->thinking ? j->voice->think->close : "")},
        {.kind = GRAMMAR_REGEX, .text = STR("\n{0,2}")},
        *a->whole,
    };
    struct grammar_part whole = {.kind = GRAMMAR_SEQUENCE, .parts = after, .n_part = 3};
    bool reasons = j->thinking && a->whole->kind != GRAMMAR_TRIGGERED; /* that begins with free text anyway */
    struct grammar_cache *cache = NULL;
    enum status st = open_cache(&cache, j, &err);
    if (st == ST_OK)
        st = grammar_cache_get(cache, &j->grammar, reasons ? &whole : a->whole, &err);
    if (st == ST_OK)
        return true;
    if (st == ST_NOMEM)
        return refuse_status(&j->why, &err, NULL);
    if (a->shape && a->calls_param && cache && shape_is_good(cache, a->shape))
        param = a->calls_param;
    return refuse(&j->why, 400, st == ST_UNSUPPORTED ? "unsupported_value" : "invalid_value", param, "%s: %s", param,
                  err.text);
}
