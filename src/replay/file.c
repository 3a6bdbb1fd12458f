/* file - a saved answer, written and read; every number of a file is checked before use */
#include "replay/replay.h"

#include "base/mem.h"

#include <stddef.h>

/* What of struct sampling decides the ids, by the requests' names. */
enum kind { FLOAT, INT, BOOL };
static const struct sampling_row {
    const char *name;
    enum kind kind;
    size_t offset;
} sampling_rows[] = {
#define ROW(name, kind)                                                                                                \
    {                                                                                                                  \
#name, kind, offsetof(struct sampling, name)                                                                   \
    }
    ROW(temperature, FLOAT),
    ROW(top_k, INT),
    ROW(top_p, FLOAT),
    ROW(min_p, FLOAT),
    ROW(typical_p, FLOAT),
    ROW(repetition_penalty, FLOAT),
    ROW(presence_penalty, FLOAT),
    ROW(frequency_penalty, FLOAT),
    ROW(max_tokens, INT),
    ROW(min_tokens, INT),
    ROW(ignore_eos, BOOL),
#undef ROW
};
enum { N_SAMPLING_ROW = sizeof sampling_rows / sizeof *sampling_rows };

static const char *const finish_names[] = {[FINISH_STOP] = "stop", [FINISH_LENGTH] = "length"};

/* ---- writing ---- */
static void write_sampling(struct json_writer *w, const struct sampling *s)
{
    json_begin_object(w);
    for (int i = 0; i < N_SAMPLING_ROW; i++) {
        const struct sampling_row *row = &sampling_rows[i];
        const char *at = (const char *)s + row->offset;
        json_key(w, row->name);
        if (row->kind == FLOAT)
            json_write_real(w, (double)*(const float *)(const void *)at);
        else if (row->kind == INT)
            json_write_int(w, *(const int *)(const void *)at);
        else
            json_write_bool(w, *(const bool *)(const void *)at);
    }
    json_key(w, "logit_bias");
    json_begin_array(w);
    for (int i = 0; i < s->n_logit_bias; i++) {
        json_begin_array(w);
        json_write_int(w, s->logit_bias[i].id);
        json_write_real(w, (double)s->logit_bias[i].bias);
        json_end_array(w);
    }
    json_end_array(w);
    json_end_object(w);
}

static void write_ids(struct json_writer *w, const int32_t *ids, size_t n)
{
    json_begin_array(w);
    for (size_t i = 0; i < n; i++)
        json_write_int(w, ids[i]);
    json_end_array(w);
}

static void write_model(struct json_writer *w, const struct answer *a)
{
    json_put_int(w, "ingot_answer", ANSWER_VERSION);
    json_put_str(w, "model", a->model);
    json_put_str(w, "fingerprint", str_of(a->fingerprint.text));
    json_key(w, "fingerprint_parts");
    json_begin_object(w);
    for (int i = 0; i < a->fingerprint.n_part; i++)
        json_put_str(w, a->fingerprint.parts[i].name, str_of(a->fingerprint.parts[i].value));
    json_end_object(w);
}

static void write_choices(struct json_writer *w, const struct answer *a)
{
    json_key(w, "output_ids");
    json_begin_array(w);
    for (int i = 0; i < a->n_choice; i++)
        write_ids(w, a->choices[i].ids, (size_t)a->choices[i].n_id);
    json_end_array(w);
    json_key(w, "seeds");
    json_begin_array(w);
    for (int i = 0; i < a->n_choice; i++)
        json_write_int(w, (int64_t)a->choices[i].seed);
    json_end_array(w);
    json_key(w, "outputs");
    json_begin_array(w);
    for (int i = 0; i < a->n_choice; i++) {
        const struct answer_choice *c = &a->choices[i];
        json_begin_object(w);
        json_put_int(w, "prompt", c->prompt);
        json_put_int(w, "index", c->index);
        json_put_str(w, "finish_reason", str_of(finish_names[c->finish]));
        json_put_str(w, "text", c->text);
        json_end_object(w);
    }
    json_end_array(w);
}

void answer_write(struct json_writer *w, const struct answer *a)
{
    json_begin_object(w);
    write_model(w, a);
    json_key(w, "sampling");
    write_sampling(w, &a->sampling);
    json_key(w, "stop");
    json_begin_array(w);
    for (int i = 0; i < a->n_stop; i++)
        json_write_str(w, a->stops[i]);
    json_end_array(w);
    json_key(w, "shown_ids");
    write_ids(w, a->shown.ids, a->shown.count);
    json_key(w, "prompt_ids");
    json_begin_array(w);
    for (int i = 0; i < a->n_prompt; i++)
        write_ids(w, a->prompts[i].ids, a->prompts[i].count);
    json_end_array(w);
    write_choices(w, a);
    if (a->request.ptr) {
        json_key(w, "request");
        json_write_raw(w, a->request);
    }
    if (a->response.ptr) {
        json_key(w, "response");
        json_write_raw(w, a->response);
    }
    json_end_object(w);
}

/* ---- reading ---- */
static enum status damaged(struct error *err, const char *key, const char *expected)
{
    return fail(err, ST_CORRUPT, "saved answer: \"%s\": expected %s", key, expected);
}

static bool read_int(int *out, const struct json *v)
{
    if (!json_is(v, JSON_INT) || v->integer < INT32_MIN || v->integer > INT32_MAX)
        return false;
    *out = (int)v->integer;
    return true;
}

static enum status read_bias(struct sampling *s, const struct json *list, struct arena *arena, struct error *err)
{
    size_t n = json_count(list);
    if (!n)
        return ST_OK;
    struct logit_bias *bias = arena_alloc_zero(arena, n, sizeof *bias);
    if (!bias)
        return fail_nomem(err, "saved answer");
    if (n > 4096)
        return damaged(err, "logit_bias", "at most 4096 pairs");
    JSON_EACH (pair, list) {
        const struct json *value = json_at(pair, 1);
        if (json_count(pair) != 2 || !read_int(&bias[s->n_logit_bias].id, json_at(pair, 0)) ||
            (!json_is(value, JSON_REAL) && !json_is(value, JSON_INT)))
            return damaged(err, "logit_bias", "pairs of an id and a number");
        bias[s->n_logit_bias++].bias = (float)json_real(value, 0);
    }
    s->logit_bias = bias;
    return ST_OK;
}

static enum status read_sampling(struct sampling *s, const struct json *o, struct arena *arena, struct error *err)
{
    sampling_defaults(s);
    s->n_logprobs = -1;
    for (int i = 0; i < N_SAMPLING_ROW; i++) {
        const struct sampling_row *row = &sampling_rows[i];
        const struct json *v = json_get(o, row->name);
        char *at = (char *)s + row->offset;
        if (row->kind == FLOAT && (json_is(v, JSON_REAL) || json_is(v, JSON_INT)))
            *(float *)(void *)at = (float)json_real(v, 0);
        else if (row->kind == BOOL && (json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE)))
            *(bool *)(void *)at = json_is(v, JSON_TRUE);
        else if (row->kind != INT || !read_int((int *)(void *)at, v))
            return damaged(err, row->name, "its value in \"sampling\"");
    }
    return read_bias(s, json_get(o, "logit_bias"), arena, err);
}

static enum status read_ids(struct ids *out, const struct json *list, struct arena *arena, const char *key,
                            struct error *err)
{
    *out = (struct ids){0};
    if (!json_is(list, JSON_ARRAY))
        return damaged(err, key, "a list of lists of ids");
    if (!(out->ids = arena_alloc_zero(arena, json_count(list) + 1, sizeof *out->ids)))
        return fail_nomem(err, "saved answer");
    JSON_EACH (v, list)
        if (!read_int(&out->ids[out->count++], v))
            return damaged(err, key, "ids");
    return ST_OK;
}

static enum status read_prompts(struct answer *out, const struct json *list, struct arena *arena, struct error *err)
{
    size_t n = json_count(list);
    if (!json_is(list, JSON_ARRAY) || n == 0 || n > ANSWER_CHOICES_MAX)
        return damaged(err, "prompt_ids", "a list of 1 to 4096 prompts");
    struct ids *prompts = arena_alloc_zero(arena, n, sizeof *prompts);
    if (!prompts)
        return fail_nomem(err, "saved answer");
    JSON_EACH (v, list)
        TRY(read_ids(&prompts[out->n_prompt++], v, arena, "prompt_ids", err));
    out->prompts = prompts;
    return ST_OK;
}

static enum status read_choice(struct answer_choice *c, const struct answer *a, const struct json *o, struct error *err)
{
    struct str finish = json_str(json_get(o, "finish_reason"));
    if (!read_int(&c->prompt, json_get(o, "prompt")) || c->prompt < 0 || c->prompt >= a->n_prompt)
        return damaged(err, "outputs", "in \"prompt\" the number of a prompt");
    if (!read_int(&c->index, json_get(o, "index")) || c->index < 0)
        return damaged(err, "outputs", "in \"index\" a number from 0 on");
    if (!str_is(finish, "stop") && !str_is(finish, "length"))
        return damaged(err, "outputs", "in \"finish_reason\" stop or length");
    c->finish = str_is(finish, "stop") ? FINISH_STOP : FINISH_LENGTH;
    c->text = json_str(json_get(o, "text"));
    return c->text.ptr ? ST_OK : damaged(err, "outputs", "a \"text\"");
}

static enum status read_choices(struct answer *out, const struct json *doc, struct arena *arena, struct error *err)
{
    const struct json *outputs = json_get(doc, "outputs"), *seeds = json_get(doc, "seeds");
    const struct json *ids = json_get(doc, "output_ids");
    size_t n = json_count(outputs);
    if (n == 0 || n > ANSWER_CHOICES_MAX || json_count(seeds) != n || json_count(ids) != n)
        return damaged(err, "outputs", "as many as \"output_ids\" and \"seeds\", 1 to 4096");
    struct answer_choice *choices = arena_alloc_zero(arena, n, sizeof *choices);
    if (!choices)
        return fail_nomem(err, "saved answer");
    out->choices = choices;
    JSON_EACH (o, outputs) {
        struct answer_choice *c = &choices[out->n_choice];
        const struct json *seed = json_at(seeds, (size_t)out->n_choice);
        struct ids list;
        TRY(read_choice(c, out, o, err));
        TRY(read_ids(&list, json_at(ids, (size_t)out->n_choice), arena, "output_ids", err));
        if (!json_is(seed, JSON_INT))
            return damaged(err, "seeds", "whole numbers");
        c->seed = (uint64_t)seed->integer;
        c->ids = list.ids;
        c->n_id = (int)list.count;
        out->n_choice++;
    }
    return ST_OK;
}

static enum status read_fingerprint(struct fingerprint *f, const struct json *doc, struct arena *arena,
                                    struct error *err)
{
    struct str text = json_str(json_get(doc, "fingerprint"));
    const struct json *parts = json_get(doc, "fingerprint_parts");
    if (text.len != sizeof f->text - 1)
        return damaged(err, "fingerprint", "64 hexadecimal digits");
    memcpy(f->text, text.ptr, text.len);
    if (json_count(parts) > FINGERPRINT_PARTS)
        return damaged(err, "fingerprint_parts", "the parts that Ingot writes");
    JSON_EACH_MEMBER (name, value, parts) {
        struct str v = json_str(value);
        struct fingerprint_part *p = &f->parts[f->n_part];
        if (!v.ptr || v.len >= sizeof p->value)
            return damaged(err, "fingerprint_parts", "short strings");
        memcpy(p->value, v.ptr, v.len);
        if (!(p->name = arena_copy(arena, name)))
            return fail_nomem(err, "saved answer");
        f->n_part++;
    }
    return ST_OK;
}

static enum status read_stops(struct answer *out, const struct json *list, struct error *err)
{
    if (json_count(list) > REQUEST_STOPS_MAX)
        return damaged(err, "stop", "at most 16 strings");
    JSON_EACH (v, list) {
        out->stops[out->n_stop] = json_str(v);
        if (!out->stops[out->n_stop++].len)
            return damaged(err, "stop", "strings that are not empty");
    }
    return ST_OK;
}

enum status answer_read(struct answer *out, struct arena *arena, struct str text, struct error *err)
{
    const struct json *doc;
    *out = (struct answer){0};
    if (json_parse(&doc, arena, text, 0, err) != ST_OK)
        return fail_context(err, "saved answer");
    if (json_is(json_get(doc, "replay"), JSON_OBJECT)) /* a server's answer */
        doc = json_get(doc, "replay");
    int version;
    if (!read_int(&version, json_get(doc, "ingot_answer")))
        return fail(err, ST_CORRUPT,
                    "this is no saved answer: `ingot generate --save FILE` writes one, and a server adds one to its "
                    "answer when the request says \"return_replay\": true");
    if (version != ANSWER_VERSION)
        return fail(err, ST_UNSUPPORTED, "saved answer: version %d, this program reads version %d", version,
                    ANSWER_VERSION);
    out->model = json_str(json_get(doc, "model"));
    TRY(read_fingerprint(&out->fingerprint, doc, arena, err));
    TRY(read_sampling(&out->sampling, json_get(doc, "sampling"), arena, err));
    TRY(read_stops(out, json_get(doc, "stop"), err));
    TRY(read_ids(&out->shown, json_get(doc, "shown_ids"), arena, "shown_ids", err));
    TRY(read_prompts(out, json_get(doc, "prompt_ids"), arena, err));
    return read_choices(out, doc, arena, err);
}
