/* OpenAI's requests into struct ask. Every known field is a row: read, ignored because it is cosmetic, or refused by
 * name because ignoring it would change what the answer means. Unknown fields are refused too: they are spelling
 * mistakes, or wishes we would silently break. null counts as absent.
 *
 * Source: OpenAI's API description (chat/completions, completions), and vLLM's additions: top_k, min_p, ...
 */
#include "gateway/ask.h"

#include "base/json.h"
#include "base/unicode.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

struct parse {
    struct ask *out;
    const struct bundle *bundle;
    struct arena *arena;
    struct refusal *why;
    const struct json *body;
};

enum how { READ_REAL, READ_INT, READ_BOOL, READ_CALL, COSMETIC, NEUTRAL };
enum {
    CHAT = ASK_CHAT,
    TEXT = ASK_COMPLETION,
    TOK = ASK_TOKENIZE,
    DETOK = ASK_DETOKENIZE,
    GEN = CHAT | TEXT,
    ALL = 15
};

typedef bool read_fn(struct parse *p, const char *name, const struct json *v);
struct field {
    const char *name;
    unsigned kinds; /* of asks that have it */
    enum how how;
    size_t offset; /* in struct ask: float, int or bool */
    double min, max;
    read_fn *call;
    const char *neutral; /* values that wish for nothing, as compact JSON, separated by blanks */
};

static bool wrong_type(struct parse *p, const char *name, const char *expected)
{
    return refuse(p->why, 400, "invalid_type", name, "%s: expected %s", name, expected);
}

static bool no_memory(struct parse *p)
{
    return refuse(p->why, 503, "server_is_overloaded", NULL,
                  "the parsed request needs more memory than one may take, or than is left for requests: send less, or "
                  "try again");
}

/* ---- fields with a shape of their own ---- */

static bool read_model(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_STRING))
        return wrong_type(p, name, "a string");
    p->out->model = json_str(v);
    return true;
}

static bool add_stop(struct parse *p, const char *name, const struct json *v)
{
    struct ask *a = p->out;
    if (!json_is(v, JSON_STRING))
        return wrong_type(p, name, "a string or an array of strings");
    if (v->size == 0)
        return refuse(p->why, 400, "invalid_value", name, "%s: an empty stop string would end every answer", name);
    if (a->n_stop == REQUEST_STOPS_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: at most %d stop strings", name, REQUEST_STOPS_MAX);
    a->stops[a->n_stop++] = json_str(v);
    return true;
}

static bool read_stop(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_ARRAY))
        return add_stop(p, name, v);
    JSON_EACH (item, v)
        if (!add_stop(p, name, item))
            return false;
    return true;
}

static bool read_seed(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_INT))
        return wrong_type(p, name, "an integer of 64 bits");
    p->out->sampling.seed = (uint64_t)v->integer;
    p->out->sampling.has_seed = true;
    return true;
}

static bool read_stream_options(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_OBJECT))
        return wrong_type(p, name, "an object");
    if (!json_bool(json_get(p->body, "stream"), false))
        return refuse(p->why, 400, "invalid_value", name, "%s: only with \"stream\": true", name);
    JSON_EACH_MEMBER (key, value, v) {
        bool usage = str_is(key, "include_usage"),
             bool_or_null = json_is(value, JSON_TRUE) || json_is(value, JSON_FALSE) || json_is(value, JSON_NULL);
        if (!usage && !str_is(key, "include_obfuscation")) /* padding against listeners: not offered, not missed */
            return refuse(p->why, 400, "unknown_parameter", name, "%s: unknown field %.*s", name, STR_ARG(key));
        if (!bool_or_null)
            return wrong_type(p, usage ? "stream_options.include_usage" : "stream_options.include_obfuscation",
                              "true or false");
        if (usage)
            p->out->include_usage = json_is(value, JSON_TRUE);
    }
    return true;
}

/* {"50256": -100, ...} */
static bool read_logit_bias(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_OBJECT))
        return wrong_type(p, name, "an object from token id to bias");
    struct logit_bias *rows = arena_alloc_zero(p->arena, json_count(v) + 1, sizeof *rows);
    int n = 0, n_vocab = model_config(p->bundle->model)->n_vocab;
    if (!rows)
        return no_memory(p);
    if (json_count(v) > (size_t)n_vocab) /* the same id spelt twice, "5" and "05": each step would pay for all */
        return refuse(p->why, 400, "invalid_value", name, "%s: more entries than the vocabulary has tokens", name);
    JSON_EACH_MEMBER (key, value, v) {
        int64_t id;
        double bias = json_real(value, NAN);
        if (!str_to_i64(&id, key) || id < 0 || id >= n_vocab)
            return refuse(p->why, 400, "invalid_value", name, "%s: %.*s is no token id below %d", name, STR_ARG(key),
                          n_vocab);
        if (!(bias >= -100 && bias <= 100))
            return refuse(p->why, 400, "invalid_value", name, "%s: the bias of %.*s is not in -100..100", name,
                          STR_ARG(key));
        rows[n++] = (struct logit_bias){(int32_t)id, (float)bias};
    }
    p->out->sampling.logit_bias = rows;
    p->out->sampling.n_logit_bias = n;
    return true;
}

/* Chat: a switch, with top_logprobs beside it. Completions: the number itself. */
static bool read_logprobs(struct parse *p, const char *name, const struct json *v)
{
    int *n = &p->out->sampling.n_logprobs;
    if (p->out->kind == ASK_CHAT) {
        if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
            return wrong_type(p, name, "true or false");
        if (json_is(v, JSON_TRUE) && *n < 0)
            *n = 0;
        return true;
    }
    if (!json_is(v, JSON_INT) || v->integer < 0 || v->integer > REQUEST_LOGPROBS_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: expected an integer 0 to %d", name,
                      REQUEST_LOGPROBS_MAX);
    *n = (int)v->integer;
    return true;
}

static bool read_top_logprobs(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_INT) || v->integer < 0 || v->integer > REQUEST_LOGPROBS_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: expected an integer 0 to %d", name,
                      REQUEST_LOGPROBS_MAX);
    if (!json_bool(json_get(p->body, "logprobs"), false))
        return refuse(p->why, 400, "invalid_value", name, "%s: only with \"logprobs\": true", name);
    p->out->sampling.n_logprobs = (int)v->integer;
    return true;
}

static bool read_best_of(struct parse *p, const char *name, const struct json *v)
{
    if (json_int(v, 0) == json_int(json_get(p->body, "n"), 1))
        return true;
    return refuse(p->why, 400, "unsupported_parameter", name, "%s: choosing the best of several is not offered; use n",
                  name);
}

static bool read_template_kwargs(struct parse *p, const char *name, const struct json *v)
{
    static const char *const allowed[] = {"enable_thinking", "thinking",     "reasoning_effort",      "date_string",
                                          "documents",       "custom_tools", "tools_in_user_message", "add_vision_id"};
    if (!json_is(v, JSON_OBJECT))
        return wrong_type(p, name, "an object");
    JSON_EACH_MEMBER (key, value, v) {
        bool known = false;
        (void)value;
        for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
            known |= str_is(key, allowed[i]);
        if (!known)
            return refuse(p->why, 400, "unsupported_parameter", name, "%s: %.*s is not a variable a request may set",
                          name, STR_ARG(key));
    }
    p->out->template_vars = v;
    return true;
}

static bool read_generation_prompt(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
        return wrong_type(p, name, "true or false");
    p->out->no_generation_prompt = json_is(v, JSON_FALSE);
    return true;
}

/* ---- prompts ---- */

static bool read_ids(struct parse *p, const char *name, const struct json *v, struct ask_prompt *out)
{
    int32_t *ids = arena_alloc_zero(p->arena, json_count(v) + 1, sizeof *ids);
    int n_vocab = model_config(p->bundle->model)->n_vocab;
    size_t n = 0;
    if (!ids)
        return no_memory(p);
    JSON_EACH (item, v) {
        if (!json_is(item, JSON_INT))
            return wrong_type(p, name, "token ids");
        if (item->integer < 0 || item->integer >= n_vocab)
            return refuse(
                p->why, 400, "invalid_value", name,
                "%s: id %lld is not of this model's vocabulary (0 to %d): were the ids made by another tokenizer?",
                name, (long long)item->integer, n_vocab - 1);
        ids[n++] = (int32_t)item->integer;
    }
    *out = (struct ask_prompt){.ids = ids, .n_id = n};
    return true;
}

static bool read_one_prompt(struct parse *p, const char *name, const struct json *v, struct ask_prompt *out)
{
    if (json_is(v, JSON_ARRAY))
        return read_ids(p, name, v, out);
    if (!json_is(v, JSON_STRING))
        return wrong_type(p, name, "a string, token ids, or an array of these");
    out->text = json_str(v);
    return true;
}

static bool read_prompt(struct parse *p, const char *name, const struct json *v)
{
    bool many = json_is(v, JSON_ARRAY) && json_count(v) > 0 && !json_is(json_at(v, 0), JSON_INT) &&
                p->out->kind == ASK_COMPLETION;
    size_t n = many ? json_count(v) : 1, i = 0;
    if (n > ASK_SEQUENCES_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: at most %d prompts", name, ASK_SEQUENCES_MAX);
    struct ask_prompt *prompts = arena_alloc_zero(p->arena, n, sizeof *prompts);
    if (!prompts)
        return no_memory(p);
    p->out->prompts = prompts;
    p->out->n_prompt = (int)n;
    if (!many)
        return read_one_prompt(p, name, v, prompts);
    JSON_EACH (item, v)
        if (!read_one_prompt(p, name, item, &prompts[i++]))
            return false;
    return true;
}

static bool read_tokens(struct parse *p, const char *name, const struct json *v)
{
    return json_is(v, JSON_ARRAY) ? read_prompt(p, name, v) : wrong_type(p, name, "an array of token ids");
}

/* ---- messages ---- */

static bool bad_message(struct parse *p, size_t index, const char *field, const char *expected)
{
    char param[ASK_PARAM_MAX];
    snprintf(param, sizeof param, "messages[%zu]%s%s", index, *field ? "." : "", field);
    return refuse(p->why, 400, "invalid_value", param, "%s: expected %s", param, expected);
}

/* [{"type": "text", "text": ...}, ...] becomes one string. */
static bool write_parts(struct parse *p, struct json_writer *w, size_t index, const struct json *parts)
{
    struct buf text = {0};
    bool good = true;
    JSON_EACH (part, parts) {
        const struct json *words = json_get(part, "text");
        good = good && str_is(json_str(json_get(part, "type")), "text") && json_is(words, JSON_STRING);
        if (good)
            buf_append_str(&text, json_str(words));
    }
    if (good)
        json_write_str(w, buf_str(&text));
    good =
        text.failed ? no_memory(p) : good || bad_message(p, index, "content", "text: this model takes no other parts");
    buf_free(&text);
    return good;
}

static bool write_content(struct parse *p, struct json_writer *w, size_t index, const struct json *message)
{
    const struct json *content = json_get(message, "content");
    bool has_calls = json_count(json_get(message, "tool_calls")) > 0;
    json_key(w, "content");
    if (json_is(content, JSON_ARRAY))
        return write_parts(p, w, index, content);
    if (json_is(content, JSON_STRING))
        json_write_str(w, json_str(content));
    else if (json_type(content) == JSON_NULL && has_calls)
        json_write_null(w);
    else
        return bad_message(p, index, "content", "a string or an array of text parts");
    return true;
}

static bool write_message(struct parse *p, struct json_writer *w, size_t index, const struct json *m)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    static const char *const passed[] = {"name", "tool_calls", "tool_call_id", "reasoning_content"};
    struct str role = json_str(json_get(m, "role"));
    bool known = false;
    for (size_t i = 0; role.ptr && i < sizeof roles / sizeof *roles; i++)
        known |= str_is(role, roles[i]);
    if (!known)
        return bad_message(p, index, json_is(m, JSON_OBJECT) ? "role" : "",
                           json_is(m, JSON_OBJECT) ? "system, developer, user, assistant or tool" : "an object");
    json_begin_object(w);
    json_put_str(w, "role",
                 str_is(role, "developer") ? STR("system") : role); /* the same rank; templates know one name */
    if (!write_content(p, w, index, m))
        return false;
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        if (json_type(json_get(m, passed[i])) != JSON_NULL) {
            json_key(w, passed[i]);
            json_write_value(w, json_get(m, passed[i]));
        }
    json_end_object(w);
    return true;
}

/* Written anew in the one form templates read, then parsed again: a template never sees what it does not expect. */
static bool read_messages(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_ARRAY) || json_count(v) == 0)
        return wrong_type(p, name, "an array with at least one message");
    struct buf text = {0};
    struct json_writer w;
    struct error err;
    size_t index = 0;
    bool good = true;
    json_writer_init(&w, &text);
    json_begin_array(&w);
    JSON_EACH (message, v)
        good = good && write_message(p, &w, index++, message);
    json_end_array(&w);
    char *kept = good && !text.failed ? arena_copy(p->arena, buf_str(&text)) : NULL;
    size_t n = text.len;
    buf_free(&text);
    if (!good)
        return false;
    if (!kept || json_parse(&p->out->messages, p->arena, str_n(kept, n), 0, &err) != ST_OK)
        return no_memory(p);
    return true;
}

/* ---- the table ---- */

#define NUMBER(field, asks, kind, member, lo, hi)                                                                      \
    {                                                                                                                  \
        .name = field, .kinds = asks, .how = kind, .offset = offsetof(struct ask, member), .min = lo, .max = hi        \
    }
#define SWITCH(field, asks, member)                                                                                    \
    {                                                                                                                  \
        .name = field, .kinds = asks, .how = READ_BOOL, .offset = offsetof(struct ask, member)                         \
    }
#define SHAPED(field, asks, fn)                                                                                        \
    {                                                                                                                  \
        .name = field, .kinds = asks, .how = READ_CALL, .call = fn                                                     \
    }
#define IGNORED(field, asks)                                                                                           \
    {                                                                                                                  \
        .name = field, .kinds = asks, .how = COSMETIC                                                                  \
    }
#define REFUSED(field, asks, harmless)                                                                                 \
    {                                                                                                                  \
        .name = field, .kinds = asks, .how = NEUTRAL, .neutral = harmless                                              \
    }
static const struct field fields[] = {
    SHAPED("model", ALL, read_model),
    SHAPED("messages", CHAT | TOK, read_messages),
    SHAPED("prompt", TEXT | TOK, read_prompt),
    SHAPED("text", TOK, read_prompt),
    SHAPED("tokens", DETOK, read_tokens),
    SWITCH("add_special_tokens", TOK, add_special),
    SWITCH("return_token_strs", TOK, want_strings),
    SHAPED("add_generation_prompt", CHAT | TOK, read_generation_prompt),
    SHAPED("chat_template_kwargs", CHAT | TOK, read_template_kwargs),

    NUMBER("temperature", GEN, READ_REAL, sampling.temperature, 0, 2),
    NUMBER("top_p", GEN, READ_REAL, sampling.top_p, 0, 1),
    NUMBER("top_k", GEN, READ_INT, sampling.top_k, -1, INT_MAX),
    NUMBER("min_p", GEN, READ_REAL, sampling.min_p, 0, 1),
    NUMBER("repetition_penalty", GEN, READ_REAL, sampling.repetition_penalty, 0.01, 100),
    NUMBER("presence_penalty", GEN, READ_REAL, sampling.presence_penalty, -2, 2),
    NUMBER("frequency_penalty", GEN, READ_REAL, sampling.frequency_penalty, -2, 2),
    NUMBER("max_tokens", CHAT, READ_INT, sampling.max_tokens, 1, INT_MAX),
    NUMBER("max_tokens", TEXT, READ_INT, sampling.max_tokens, 0, INT_MAX), /* 0: the prompt alone, with echo */
    NUMBER("max_completion_tokens", CHAT, READ_INT, sampling.max_tokens, 1, INT_MAX),
    NUMBER("min_tokens", GEN, READ_INT, sampling.min_tokens, 0, INT_MAX),
    SWITCH("ignore_eos", GEN, sampling.ignore_eos),
    SHAPED("seed", GEN, read_seed),
    SHAPED("stop", GEN, read_stop),
    SHAPED("logit_bias", GEN, read_logit_bias),
    SHAPED("logprobs", GEN, read_logprobs),
    SHAPED("top_logprobs", CHAT, read_top_logprobs),
    NUMBER("n", GEN, READ_INT, n, 1, ASK_CHOICES_MAX),
    SHAPED("best_of", TEXT, read_best_of),
    SWITCH("echo", TEXT, echo),
    NUMBER("priority", GEN, READ_INT, priority, -1000000, 1000000), /* vLLM's: smaller goes first */
    SWITCH("stream", GEN, stream),
    SHAPED("stream_options", GEN, read_stream_options),

    IGNORED("user", ALL),
    IGNORED("metadata", GEN),
    IGNORED("store", GEN),
    IGNORED("service_tier", GEN),
    IGNORED("safety_identifier", GEN),
    IGNORED("prompt_cache_key", GEN),
    IGNORED("prompt_cache_retention", GEN),
    IGNORED("prompt_cache_options", GEN),
    IGNORED("cache_salt", GEN),
    IGNORED("keep_alive", GEN),
    IGNORED("ttl", GEN),
    IGNORED("prediction", GEN), /* a hint for speed */
    IGNORED("parallel_tool_calls", CHAT),
    IGNORED("verbosity", CHAT),

    REFUSED("tools", CHAT, "[]"),
    REFUSED("tool_choice", CHAT, "\"none\" \"auto\""),
    REFUSED("functions", CHAT, "[]"),
    REFUSED("function_call", CHAT, "\"none\" \"auto\""),
    REFUSED("response_format", GEN, "{\"type\":\"text\"}"),
    REFUSED("modalities", CHAT, "[\"text\"]"),
    REFUSED("audio", CHAT, ""),
    REFUSED("moderation", CHAT, ""),
    REFUSED("reasoning_effort", CHAT, "\"none\""),
    REFUSED("web_search_options", CHAT, ""),
    REFUSED("suffix", TEXT, "\"\""),
    REFUSED("continue_final_message", CHAT | TOK, "false"),
    REFUSED("stop_token_ids", GEN, "[]"),
    REFUSED("skip_special_tokens", GEN, "true"),
    REFUSED("use_beam_search", GEN, "false"),
    REFUSED("length_penalty", GEN, "1 1.0"),
};
enum { N_FIELD = sizeof fields / sizeof *fields };

/* ---- generic readers ---- */

static bool is_neutral(const struct json *v, const char *allowed)
{
    if (json_count(v) > 1)
        return false;
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    json_write_value(&w, v);
    bool found = false;
    struct str rest = str_of(allowed);
    while (rest.len && !found) {
        const char *blank = memchr(rest.ptr, ' ', rest.len);
        size_t n = blank ? (size_t)(blank - rest.ptr) : rest.len;
        found = !text.failed && str_eq(buf_str(&text), str_n(rest.ptr, n));
        rest = str_from(rest, n + 1);
    }
    buf_free(&text);
    return found;
}

static bool read_number(struct parse *p, const struct field *f, const struct json *v)
{
    void *at = (char *)p->out + f->offset;
    bool integer = f->how == READ_INT;
    double x = integer && !json_is(v, JSON_INT) ? NAN : json_real(v, NAN);
    if (isnan(x))
        return wrong_type(p, f->name, integer ? "an integer" : "a number");
    if (x < f->min || x > f->max)
        return refuse(p->why, 400, "invalid_value", f->name, "%s: %.10g is not between %.10g and %.10g", f->name, x,
                      f->min, f->max);
    if (integer)
        *(int *)at = (int)x;
    else
        *(float *)at = (float)x;
    return true;
}

static bool read_field(struct parse *p, const struct field *f, const struct json *v)
{
    switch (f->how) {
    case READ_REAL:
    case READ_INT:
        return read_number(p, f, v);
    case READ_BOOL:
        if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
            return wrong_type(p, f->name, "true or false");
        *(bool *)((char *)p->out + f->offset) = json_is(v, JSON_TRUE);
        return true;
    case READ_CALL:
        return f->call(p, f->name, v);
    case COSMETIC:
        return true;
    case NEUTRAL:
        if (!is_neutral(v, f->neutral))
            return refuse(p->why, 400, "unsupported_parameter", f->name, "%s: this is not offered here", f->name);
        return true;
    }
    return true;
}

static bool unknown_field(struct parse *p, struct str key)
{
    const char *near = NULL;
    size_t best = 4;
    char param[ASK_PARAM_MAX];
    for (int i = 0; i < N_FIELD; i++) {
        size_t d = fields[i].kinds & p->out->kind ? str_distance(key, str_of(fields[i].name), best) : best;
        if (d < best)
            best = d, near = fields[i].name;
    }
    snprintf(param, sizeof param, "%.*s", key.len > 80 ? 80 : (int)key.len, key.ptr);
    return refuse(p->why, 400, "unknown_parameter", param, "unknown field %s%s%s%s", param,
                  near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

static bool read_member(struct parse *p, struct str key, const struct json *v)
{
    for (int i = 0; i < N_FIELD; i++)
        if ((fields[i].kinds & p->out->kind) && str_is(key, fields[i].name))
            return json_type(v) == JSON_NULL || read_field(p, &fields[i], v);
    return unknown_field(p, key);
}

/* ---- the whole ---- */

static void set_defaults(struct ask *a, enum ask_kind kind, const struct bundle *b)
{
    *a = (struct ask){.kind = kind, .n = 1, .add_special = true};
    sampling_defaults(&a->sampling);
    a->sampling.n_logprobs = -1;
    a->sampling.max_tokens = kind == ASK_COMPLETION ? 16 : 0; /* OpenAI's default for completions */
    if (b->temperature >= 0)
        a->sampling.temperature = (float)b->temperature;
    if (b->top_p > 0)
        a->sampling.top_p = (float)b->top_p;
    if (b->repetition_penalty > 0)
        a->sampling.repetition_penalty = (float)b->repetition_penalty;
    if (b->top_k > 0)
        a->sampling.top_k = b->top_k;
}

static bool check_whole(struct parse *p)
{
    struct ask *a = p->out;
    const struct json *newer =
        json_get(p->body, "max_completion_tokens"); /* wins over max_tokens, whichever is first */
    if (json_is(newer, JSON_INT))
        a->sampling.max_tokens = (int)newer->integer;
    const char *needed = a->kind == ASK_CHAT ? "messages" : a->kind == ASK_DETOKENIZE ? "tokens" : "prompt";
    if (!a->messages && a->n_prompt == 0)
        return refuse(p->why, 400, "missing_required_parameter", needed, "%s is missing", needed);
    if (a->messages && a->n_prompt > 0)
        return refuse(p->why, 400, "invalid_value", "messages", "messages and prompt exclude each other");
    if (a->model.len && !str_is(a->model, p->bundle->id))
        return refuse(p->why, 404, "model_not_found", "model", "the model %.*s does not exist; this server has %s",
                      STR_ARG(a->model), p->bundle->id);
    if (a->n * a->n_prompt > ASK_SEQUENCES_MAX)
        return refuse(p->why, 400, "invalid_value", "n", "n times the number of prompts is more than %d",
                      ASK_SEQUENCES_MAX);
    if (a->kind == ASK_COMPLETION && a->sampling.max_tokens == 0) {
        if (!a->echo)
            return refuse(p->why, 400, "invalid_value", "max_tokens",
                          "max_tokens: 0 asks for nothing, unless echo is true");
        a->sampling.max_tokens = -1; /* the engine's word for it */
    }
    if (a->sampling.top_k < 0)
        a->sampling.top_k = 0;
    return true;
}

bool openai_parse(struct ask *out, enum ask_kind kind, struct str body, const struct bundle *bundle,
                  struct arena *arena, struct refusal *why)
{
    struct parse p = {.out = out, .bundle = bundle, .arena = arena, .why = why};
    struct error err;
    const char *param = NULL;
    set_defaults(out, kind, bundle);
    enum status st = json_parse(&p.body, arena, body, JSON_UNIQUE, &err);
    if (st == ST_NOMEM)
        return no_memory(&p);
    if (st != ST_OK)
        return refuse(why, 400, "invalid_json", NULL, "the body is not JSON: %s", err.text);
    if (!json_is(p.body, JSON_OBJECT))
        return refuse(why, 400, "invalid_json", NULL, "the body is not a JSON object");
    JSON_EACH_MEMBER (key, value, p.body)
        if (!read_member(&p, key, value))
            return false;
    if (!check_whole(&p))
        return false;
    if ((kind & GEN) && sampling_check(&out->sampling, &param, &err) != ST_OK)
        return refuse(why, 400, "invalid_value", param, "%s", err.text);
    return true;
}
