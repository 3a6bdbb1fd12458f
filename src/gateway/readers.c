/* Fields with a shape of their own that several protocols have. */
#include "gateway/fields.h"

#include <math.h>

static bool add_stop(struct parse *p, const char *name, const struct json *v)
{
    struct ask *a = p->out;
    if (!json_is(v, JSON_STRING))
        return field_wrong_type(p, name, "a string or an array of strings");
    if (v->size == 0)
        return refuse(p->why, 400, "invalid_value", name, "%s: an empty stop string would end every answer", name);
    if (a->n_stop == REQUEST_STOPS_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: at most %d stop strings", name, REQUEST_STOPS_MAX);
    a->stops[a->n_stop++] = json_str(v);
    return true;
}

bool read_stop(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_ARRAY))
        return add_stop(p, name, v);
    JSON_EACH (item, v)
        if (!add_stop(p, name, item))
            return false;
    return true;
}

bool read_seed(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_INT))
        return field_wrong_type(p, name, "an integer of 64 bits");
    p->out->sampling.seed = (uint64_t)v->integer;
    p->out->sampling.has_seed = true;
    return true;
}

/* {"50256": -100, ...} */
bool read_logit_bias(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_OBJECT))
        return field_wrong_type(p, name, "an object from token id to bias");
    struct logit_bias *rows = arena_alloc_zero(p->arena, json_count(v) + 1, sizeof *rows);
    int n = 0, n_vocab = model_config(p->bundle->model)->n_vocab;
    if (!rows)
        return field_no_memory(p);
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

bool read_top_count(struct parse *p, const char *name, const struct json *v, int *n)
{
    if (!json_is(v, JSON_INT) || v->integer < 0 || v->integer > REQUEST_LOGPROBS_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: expected an integer 0 to %d", name,
                      REQUEST_LOGPROBS_MAX);
    *n = (int)v->integer;
    return true;
}

/* Chat: a switch, with top_logprobs beside it. Completions: the number itself. */
bool read_logprobs(struct parse *p, const char *name, const struct json *v)
{
    int *n = &p->out->sampling.n_logprobs;
    if (p->out->kind == ASK_CHAT) {
        if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
            return field_wrong_type(p, name, "true or false");
        if (json_is(v, JSON_TRUE) && *n < 0)
            *n = 0;
        return true;
    }
    return read_top_count(p, name, v, n);
}

bool read_top_logprobs(struct parse *p, const char *name, const struct json *v)
{
    int n = 0;
    if (!read_top_count(p, name, v, &n))
        return false;
    if (!json_bool(json_get(p->body, "logprobs"), false))
        return refuse(p->why, 400, "invalid_value", name, "%s: only with \"logprobs\": true", name);
    p->out->sampling.n_logprobs = n;
    return true;
}

bool read_template_kwargs(struct parse *p, const char *name, const struct json *v)
{
    static const char *const allowed[] = {"enable_thinking", "thinking",     "reasoning_effort",      "date_string",
                                          "documents",       "custom_tools", "tools_in_user_message", "add_vision_id"};
    if (!json_is(v, JSON_OBJECT))
        return field_wrong_type(p, name, "an object");
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

bool read_generation_prompt(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
        return field_wrong_type(p, name, "true or false");
    p->out->no_generation_prompt = json_is(v, JSON_FALSE);
    return true;
}

/* "1h30m", "300ms", as Go writes durations, or seconds; below nothing: for ever. */
static bool parse_duration(struct str s, double *seconds)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ns", 1e-9}, {"us", 1e-6}, {"\xC2\xB5s", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"m", 60}, {"h", 3600}};
    enum { N_UNIT = sizeof units / sizeof *units };
    bool negative = str_starts(s, STR("-"));
    double x;
    if (negative || str_starts(s, STR("+")))
        s = str_from(s, 1);
    if (!s.len)
        return false;
    if (str_to_f64(&x, s)) {
        *seconds = negative ? -x : x;
        return x >= 0;
    }
    for (*seconds = 0; s.len;) {
        size_t n = 0, i = 0;
        while (n < s.len && ((s.ptr[n] >= '0' && s.ptr[n] <= '9') || s.ptr[n] == '.'))
            n++;
        while (i < N_UNIT && !str_starts(str_from(s, n), str_of(units[i].unit)))
            i++;
        if (i == N_UNIT || !str_to_f64(&x, str_n(s.ptr, n)))
            return false;
        *seconds += x * units[i].seconds;
        s = str_from(s, n + strlen(units[i].unit));
    }
    *seconds = negative ? -*seconds : *seconds;
    return true;
}

/* Ollama's: a duration, or seconds. */
bool read_keep_alive(struct parse *p, const char *name, const struct json *v)
{
    double s = json_real(v, NAN);
    struct str text = json_str(v);
    if (text.ptr ? text.len == 0 || !parse_duration(text, &s) : !isfinite(s))
        return field_wrong_type(p, name, "seconds, or a duration such as \"5m\"; 0 unloads, -1 is for ever");
    p->out->has_keep_alive = true;
    p->out->keep_alive_s = s < 0 ? -1 : s > 1e9 ? 1000000000 : (int)ceil(s);
    return true;
}

/* ---- prompts ---- */

static bool read_ids(struct parse *p, const char *name, const struct json *v, struct ask_prompt *out)
{
    int32_t *ids = arena_alloc_zero(p->arena, json_count(v) + 1, sizeof *ids);
    int n_vocab = model_config(p->bundle->model)->n_vocab;
    size_t n = 0;
    if (!ids)
        return field_no_memory(p);
    JSON_EACH (item, v) {
        if (!json_is(item, JSON_INT))
            return field_wrong_type(p, name, "token ids");
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

bool read_text_or_ids(struct parse *p, const char *name, const struct json *v, struct ask_prompt *out)
{
    if (json_is(v, JSON_ARRAY))
        return read_ids(p, name, v, out);
    if (!json_is(v, JSON_STRING))
        return field_wrong_type(p, name, "a string, token ids, or an array of these");
    out->text = json_str(v);
    return true;
}

struct ask_prompt *fields_prompts(struct parse *p, size_t n)
{
    struct ask_prompt *prompts = arena_alloc_zero(p->arena, n, sizeof *prompts);
    if (!prompts) {
        field_no_memory(p);
        return NULL;
    }
    p->out->prompts = prompts;
    p->out->n_prompt = (int)n;
    return prompts;
}

bool read_prompt(struct parse *p, const char *name, const struct json *v)
{
    bool many = json_is(v, JSON_ARRAY) && json_count(v) > 0 && !json_is(json_at(v, 0), JSON_INT) &&
                p->out->kind == ASK_COMPLETION;
    size_t n = many ? json_count(v) : 1, i = 0;
    if (n > ASK_SEQUENCES_MAX)
        return refuse(p->why, 400, "invalid_value", name, "%s: at most %d prompts", name, ASK_SEQUENCES_MAX);
    struct ask_prompt *prompts = fields_prompts(p, n);
    if (!prompts)
        return false;
    if (!many)
        return read_text_or_ids(p, name, v, prompts);
    JSON_EACH (item, v)
        if (!read_text_or_ids(p, name, item, &prompts[i++]))
            return false;
    return true;
}

bool read_tokens(struct parse *p, const char *name, const struct json *v)
{
    return json_is(v, JSON_ARRAY) ? read_prompt(p, name, v) : field_wrong_type(p, name, "an array of token ids");
}

struct str without_tag(struct str name)
{
    struct str tag = STR(":latest");
    return str_ends(name, tag) ? str_n(name.ptr, name.len - tag.len) : name;
}

/* Its id, also with the tag that Ollama's clients add. */
bool is_model_name(const struct bundle *b, struct str name)
{
    return str_is(without_tag(name), b->id);
}

bool read_check_model(struct parse *p)
{
    const struct ask *a = p->out;
    struct str name = without_tag(a->model);
    return !a->model.len || is_model_name(p->bundle, a->model) ||
           (p->voice && p->voice->name && (str_is(name, p->voice->name) || str_is(a->model, p->voice->name))) ||
           refuse(p->why, 404, "model_not_found", "model", "the model %.*s does not exist; this server has %s",
                  STR_ARG(a->model), p->bundle->id);
}
