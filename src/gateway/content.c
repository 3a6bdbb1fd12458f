/* What a worker does with a request: parse it, render the chat's template, tokenize. No socket, no engine. */
#include "gateway/private.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

enum { PARSED_MAX = 256 << 20 }; /* what one request may become when parsed: 16 MiB of "[[[[" are that much */

bool refuse(struct refusal *r, int http, const char *code, const char *param, const char *fmt, ...)
{
    va_list ap;
    *r = (struct refusal){.http = http, .code = code};
    r->type = http == 401   ? "authentication_error"
              : http == 403 ? "permission_error"
              : http >= 500 ? "server_error"
                            : "invalid_request_error";
    snprintf(r->param, sizeof r->param, "%s", param ? param : "");
    va_start(ap, fmt);
    vsnprintf(r->message, sizeof r->message, fmt, ap);
    va_end(ap);
    return false;
}

bool refuse_status(struct refusal *r, const struct error *err, const char *param)
{
    int http = err->status == ST_UNSUPPORTED || err->status == ST_CORRUPT ? 400 : status_row(err->status)->http;
    return refuse(r, http, NULL, param, "%s", err->text);
}

static bool render(struct job *j, struct ids *out)
{
    struct chat_options o = {.messages = j->ask.messages,
                             .tools = j->ask.tools,
                             .extra = j->ask.template_vars,
                             .no_generation_prompt = j->ask.no_generation_prompt};
    struct error err;
    enum status st = bundle_chat_ids(out, j->bundle, &o, &err);
    if (st == ST_LIMIT) /* of the template's budgets: the same messages will not fit later either */
        return refuse(&j->why, 400, "invalid_value", "messages", "%s", err.text);
    return st == ST_OK || refuse_status(&j->why, &err, "messages");
}

/* The end of a chat's prompt tells whether its template has opened reasoning. */
static bool find_thinking(struct job *j)
{
    const struct ids *ids = &j->prompts[0];
    size_t n = ids->count < 16 ? ids->count : 16;
    struct buf text = {0};
    struct error err;
    if (!j->voice->think)
        return true;
    enum status st = tokenizer_decode(j->bundle->tokenizer, &text, ids->ids + ids->count - n, n, 0, &err);
    j->thinking = st == ST_OK && speech_prompt_thinks(j->voice->think, buf_str(&text));
    buf_free(&text);
    return st == ST_OK || refuse_status(&j->why, &err, "messages");
}

static bool encode(struct job *j, const struct ask_prompt *p, struct ids *out)
{
    struct error err;
    if (p->ids) {
        for (size_t i = 0; i < p->n_id; i++)
            if (!ids_push(out, p->ids[i]))
                return refuse(&j->why, 503, NULL, NULL, "out of memory");
        return true;
    }
    unsigned flags = TOKENIZE_SPECIAL | (j->ask.add_special ? TOKENIZE_ADD : 0);
    enum status st = tokenizer_encode(j->bundle->tokenizer, out, p->text, flags, &err);
    return st == ST_OK || refuse_status(&j->why, &err, "prompt");
}

static bool check_length(struct job *j, const struct ids *ids)
{
    const char *param = j->kind == ASK_CHAT ? "messages" : "prompt";
    struct engine_stats s;
    engine_stats(j->engine, &s);
    if (ids->count == 0)
        return refuse(&j->why, 400, "invalid_value", param, "the prompt is empty");
    if (ids->count + (j->ask.sampling.max_tokens >= 0) > (size_t)s.n_ctx)
        return refuse(&j->why, 400, "context_length_exceeded", param,
                      "the prompt has %zu tokens; this model's context of %d must hold it and an answer", ids->count,
                      s.n_ctx);
    return true;
}

static bool make_prompts(struct job *j)
{
    int n = j->ask.messages ? 1 : j->ask.n_prompt;
    j->prompts = arena_alloc_zero(&j->arena, (size_t)n, sizeof *j->prompts);
    j->echo_end = arena_alloc_zero(&j->arena, (size_t)n, sizeof *j->echo_end);
    if (!j->prompts || !j->echo_end)
        return refuse(&j->why, 503, NULL, NULL, "out of memory");
    j->n_prompt = n;
    for (int i = 0; i < n; i++)
        if (j->ask.messages ? !render(j, &j->prompts[i]) : !encode(j, &j->ask.prompts[i], &j->prompts[i]))
            return false;
    return true;
}

static struct str prompt_echo(const struct job *j, int i)
{
    size_t start = i ? j->echo_end[i - 1] : 0;
    return str_n(j->echo.ptr + start, j->echo_end[i] - start);
}

struct str job_echo(const struct job *j, const struct choice *c)
{
    return prompt_echo(j, c->prompt);
}

/* Where each token of prompt i begins in the echoed text, in characters: the legacy logprobs' text_offset. */
static bool make_offsets(struct job *j, int i, struct str echo)
{
    const struct tokenizer *tok = j->bundle->tokenizer;
    const struct ids *ids = &j->prompts[i];
    struct decoder decoder;
    struct buf piece = {0};
    size_t n = 0, most = text_chars(echo);
    int32_t *at = j->echo_offsets[i] = arena_alloc_zero(&j->arena, ids->count, sizeof *at);
    if (!at)
        return refuse(&j->why, 503, NULL, NULL, "out of memory");
    decoder_init(&decoder, tok, 0);
    for (size_t k = 0; k < ids->count; k++) {
        at[k] = (int32_t)(n < most ? n : most); /* a normalizer may have made the tokens' text longer than the user's */
        bool added = k == 0 && !j->ask.prompts[i].ids && ids->ids[0] == tokenizer_bos(tok) &&
                     !str_starts(echo, tokenizer_token(tok, ids->ids[0]));
        buf_clear(&piece);
        if (!added)
            decoder_next(&decoder, ids->ids[k], &piece);
        n += text_chars(buf_str(&piece));
    }
    bool failed = piece.failed;
    buf_free(&piece);
    return !failed || refuse(&j->why, 503, NULL, NULL, "out of memory");
}

/* Completions with "echo": each answer begins with its prompt's text. */
static bool make_echo(struct job *j)
{
    struct error err;
    bool offsets = j->ask.echo && j->ask.sampling.n_logprobs >= 0;
    j->echo_offsets = arena_alloc_zero(&j->arena, (size_t)j->n_prompt, sizeof *j->echo_offsets);
    if (!j->echo_offsets)
        return refuse(&j->why, 503, NULL, NULL, "out of memory");
    for (int i = 0; i < j->n_prompt && j->ask.echo; i++) {
        const struct ask_prompt *p = &j->ask.prompts[i];
        if (!p->ids)
            buf_append_str(&j->echo, p->text);
        else if (tokenizer_decode(j->bundle->tokenizer, &j->echo, p->ids, p->n_id, 0, &err) != ST_OK)
            return refuse_status(&j->why, &err, "prompt");
        j->echo_end[i] = j->echo.len;
    }
    if (j->echo.failed)
        return refuse(&j->why, 503, NULL, NULL, "out of memory");
    for (int i = 0; i < j->n_prompt && offsets; i++)
        if (!make_offsets(j, i, prompt_echo(j, i)))
            return false;
    return true;
}

void openai_answer_tokenize(struct job *j, struct buf *out)
{
    const struct tokenizer *tok = j->bundle->tokenizer;
    const struct ids *ids = &j->prompts[0];
    struct engine_stats s;
    struct json_writer w;
    engine_stats(j->engine, &s);
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_int(&w, "count", (int64_t)ids->count);
    json_put_int(&w, "max_model_len", s.n_ctx);
    json_key(&w, "tokens");
    json_begin_array(&w);
    for (size_t i = 0; i < ids->count; i++)
        json_write_int(&w, ids->ids[i]);
    json_end_array(&w);
    json_key(&w, "token_strs");
    if (j->ask.want_strings) {
        json_begin_array(&w);
        for (size_t i = 0; i < ids->count; i++)
            json_write_str(&w, tokenizer_token(tok, ids->ids[i]));
        json_end_array(&w);
    } else {
        json_write_null(&w);
    }
    json_end_object(&w);
}

void openai_answer_detokenize(struct job *j, struct buf *out)
{
    struct buf text = {0};
    struct json_writer w;
    struct error err;
    const struct ask_prompt *p = &j->ask.prompts[0];
    enum status st = tokenizer_decode(j->bundle->tokenizer, &text, p->ids, p->n_id, 0, &err);
    if (st == ST_OK) {
        json_writer_init(&w, out);
        json_begin_object(&w);
        json_put_str(&w, "prompt", buf_str(&text));
        json_end_object(&w);
    }
    out->failed |= text.failed;
    buf_free(&text);
    if (st != ST_OK)
        refuse_status(&j->why, &err, "tokens");
}

/* Tenants share nothing in the prefix cache, whatever salts they name: a name holds no 0. The one key's
 * clients are a tenant without a name. */
static bool add_tenant(struct job *j)
{
    struct str given = j->ask.cache_salt, name = str_of(j->client ? j->client->name : "");
    if (!j->g->options.keys)
        return true;
    char *salt = arena_alloc(&j->arena, name.len + 1 + given.len);
    if (!salt)
        return refuse(&j->why, 503, NULL, NULL, "out of memory");
    memcpy(salt, name.ptr, name.len + 1);
    if (given.len)
        memcpy(salt + name.len + 1, given.ptr, given.len);
    j->ask.cache_salt = str_n(salt, name.len + 1 + given.len);
    return true;
}

/* Of what the request said, only what the engine reads later stays; the rest may be a hundred times as much. */
static bool keep(struct job *j)
{
    struct ask *a = &j->ask;
    size_t n = (size_t)a->sampling.n_logit_bias, size = n * sizeof *a->sampling.logit_bias;
    struct logit_bias *bias = arena_alloc(&j->arena, size);
    bool good = bias != NULL;
    if (n && good)
        memcpy(bias, a->sampling.logit_bias, size);
    a->sampling.logit_bias = bias;
    for (int i = 0; i < a->n_stop; i++) {
        char *copy = arena_copy(&j->arena, a->stops[i]);
        good = good && copy;
        a->stops[i] = str_n(copy, a->stops[i].len);
    }
    if (!add_tenant(j))
        return false;
    struct str *texts[] = {&a->cache_salt, &a->conversation, &a->repeated};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!texts[i]->ptr)
            continue;
        char *copy = arena_copy(&j->arena, *texts[i]);
        good = good && copy;
        *texts[i] = str_n(copy, texts[i]->len);
    }
    if (a->tools)
        good = good && speech_tools_make(&j->tools, a->tools, &j->arena);
    return good || refuse(&j->why, 503, NULL, NULL, "out of memory");
}

/* Waits, once in a model file's life, until it was hashed. */
static bool make_fingerprint(struct job *j)
{
    struct error err;
    struct fingerprint f;
    enum status st = bundle_fingerprint(&f, j->bundle, j->lease.adapter[0] ? j->lease.adapter : NULL, &err);
    if (st == ST_OK)
        memcpy(j->fingerprint, f.text, sizeof f.text);
    if (j->ask.return_replay && st != ST_OK)
        return refuse(&j->why, 400, "unsupported_value", "return_replay", "return_replay: %s", err.text);
    return true;
}

static bool make(struct job *j, struct arena *parsed)
{
    struct gateway *g = j->g;
    const struct parse_context with = {j->bundle, j->voice, g->store, client_id(j->client), j->over_socket};
    if (!protocol_parse(&j->ask, j->protocol, buf_str(&j->body), &with, parsed, &j->why))
        return false;
    j->kind = j->ask.kind;
    j->protocol = j->ask.protocol;
    j->ask.stream |= with.streams;
    j->model = str_n(arena_copy(&j->arena, j->ask.model), j->ask.model.len);
    if (j->ask.priority && !g->options.by_priority)
        return refuse(&j->why, 400, "invalid_value", "priority",
                      "priority: only 0, because this server takes requests as they come; --scheduling-policy priority "
                      "lets every client choose");
    if (!j->bundle->tokenizer)
        return refuse(&j->why, 400, "unsupported_value", NULL,
                      "this model has no tokenizer: it cannot be asked in text");
    if (!model_keep(j))
        return false;
    if (j->kind & (ASK_EMBED | ASK_RERANK))
        return embed_content(j);
    if (!embed_leaves(j))
        return false;
    if (j->kind != ASK_DETOKENIZE && !j->ask.immediate && !make_prompts(j))
        return false;
    if (j->kind == ASK_DETOKENIZE || j->kind == ASK_TOKENIZE || j->ask.immediate) {
        j->protocol->answer(j, &j->answer);
        j->answered = true;
        return j->why.http == 0;
    }
    for (int i = 0; i < j->n_prompt; i++)
        if (!check_length(j, &j->prompts[i]))
            return false;
    if (j->kind == ASK_CHAT && !find_thinking(j))
        return false;
    return make_echo(j) && keep(j) && structured_make(j) && make_fingerprint(j);
}

bool content_make(struct job *j)
{
    struct gateway *g = j->g;
    struct arena parsed;
    arena_init(&parsed, PARSED_MAX);
    parsed.budget = &g->memory;
    parsed.budget_limit = g->intake_max;
    enum found found = model_find(j, &parsed);
    if (found == PARKED) {
        arena_free(&parsed);
        return false;
    }
    bool good = found == FOUND && make(j, &parsed);
    if (good && j->answer.failed)
        good = refuse(&j->why, 503, NULL, NULL, "out of memory");
    j->ask.model = (struct str){NULL, 0};
    j->ask.messages = j->ask.template_vars = j->ask.tools = NULL;
    j->ask.tool_name = j->ask.effort = (struct str){NULL, 0};
    j->ask.prompts = NULL;
    j->ask.shape = j->ask.whole = NULL;
    arena_free(&parsed); /* here: giving back hundreds of megabytes takes milliseconds that the loop does not have */
    if (good && j->ask.return_replay) {
        j->request = j->body;
        j->body = (struct buf){0};
    }
    buf_free(&j->body);
    if (!job_hold(j, g->intake_max) && good)
        refuse(&j->why, 503, "server_is_overloaded", NULL, "the memory for requests is full: try again, or send less");
    j->parse_ns = clock_ns();
    return true;
}
