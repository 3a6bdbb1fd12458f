/* OpenAI's answers: whole objects, stream chunks, logprobs, usage, errors. */
#include "gateway/private.h"

#include "base/unicode.h"

#include <stdio.h>

void openai_write_refusal(struct buf *out, const struct refusal *why)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "error");
    json_begin_object(&w);
    json_put_str(&w, "message", str_of(why->message));
    json_put_str(&w, "type", str_of(why->type));
    json_key(&w, "param");
    if (why->param[0])
        json_write_str(&w, str_of(why->param));
    else
        json_write_null(&w);
    json_key(&w, "code");
    if (why->code)
        json_write_str(&w, str_of(why->code));
    else
        json_write_null(&w);
    json_end_object(&w);
    json_end_object(&w);
}

static void begin(struct json_writer *w, struct buf *out, const struct job *j, const char *object)
{
    char fingerprint[40];
    json_writer_init(w, out);
    json_begin_object(w);
    json_put_str(w, "id", str_of(j->id));
    json_put_str(w, "object", str_of(object));
    json_put_int(w, "created", j->created);
    json_put_str(w, "model", str_of(j->g->bundle->id));
    /* The same fingerprint, weights, seed and request give the same bits: only the numbers' definition may change them.
     */
    snprintf(fingerprint, sizeof fingerprint, "ingot-numerics-%d", NUMERICS_VERSION);
    json_put_str(w, "system_fingerprint", str_of(fingerprint));
}

static const char *chunk_object(const struct job *j)
{
    return j->kind == ASK_CHAT ? "chat.completion.chunk" : "text_completion";
}

static void put_null(struct json_writer *w, const char *key)
{
    json_key(w, key);
    json_write_null(w);
}

static const char *finish_word(const struct choice *c)
{
    return c->end.finish == FINISH_LENGTH ? "length" : "stop";
}

/* ---- logprobs ---- */

static double finite_logprob(double x)
{
    return x > -9999 ? x : -9999; /* as OpenAI writes what is next to impossible; NaN too */
}

static void write_token(struct json_writer *w, const struct tokenizer *tok, int32_t id)
{
    struct buf bytes = {0};
    tokenizer_token_bytes(tok, &bytes, id);
    json_put_str(w, "token", buf_str(&bytes));
    json_key(w, "bytes");
    json_begin_array(w);
    for (size_t i = 0; i < bytes.len; i++)
        json_write_int(w, (unsigned char)bytes.ptr[i]);
    json_end_array(w);
    w->out->failed |= bytes.failed;
    buf_free(&bytes);
}

/* What completions call a token: its text, or bytes:\xe4\xb8 (OpenAI's way) when it is a part of a character. As text
 * those would all be U+FFFD, and of several only one could be a key of top_logprobs. */
static struct buf token_name(const struct tokenizer *tok, int32_t id)
{
    struct buf bytes = {0}, name = {0};
    tokenizer_token_bytes(tok, &bytes, id);
    if (utf8_valid(buf_str(&bytes)))
        return bytes;
    buf_append_str(&name, STR("bytes:"));
    for (size_t i = 0; i < bytes.len; i++)
        buf_printf(&name, "\\x%02x", (unsigned char)bytes.ptr[i]);
    name.failed |= bytes.failed;
    buf_free(&bytes);
    return name;
}

static void chat_entry(struct json_writer *w, const struct job *j, const struct mail *m, const struct candidate *top)
{
    const struct tokenizer *tok = j->g->bundle->tokenizer;
    json_begin_object(w);
    write_token(w, tok, m->id);
    json_put_real(w, "logprob", finite_logprob(m->logprob));
    json_key(w, "top_logprobs");
    json_begin_array(w);
    for (uint32_t i = 0; i < m->n_top; i++) {
        json_begin_object(w);
        write_token(w, tok, top[i].id);
        json_put_real(w, "logprob", finite_logprob(top[i].logit));
        json_end_object(w);
    }
    json_end_array(w);
    json_end_object(w);
}

/* {" the": -0.2, ...}, with the chosen token among them. */
static void completion_tops(struct json_writer *w, const struct job *j, const struct mail *m,
                            const struct candidate *top)
{
    const struct tokenizer *tok = j->g->bundle->tokenizer;
    bool has_chosen = false;
    json_begin_object(w);
    for (uint32_t i = 0; i <= m->n_top; i++) {
        bool extra = i == m->n_top;
        struct candidate t = extra ? (struct candidate){m->id, m->logprob} : top[i];
        if (extra && has_chosen)
            break;
        has_chosen |= t.id == m->id;
        struct buf name = token_name(tok, t.id);
        json_key_str(w, buf_str(&name));
        w->out->failed |= name.failed;
        json_write_real(w, finite_logprob(t.logit));
        buf_free(&name);
    }
    json_end_object(w);
}

size_t text_chars(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
    return n;
}

static void put_chat_logprobs(struct json_writer *w, struct str entries)
{
    json_key(w, "logprobs");
    json_begin_object(w);
    json_key(w, "content");
    json_begin_array(w);
    if (entries.len)
        json_write_raw(w, entries);
    json_end_array(w);
    put_null(w, "refusal");
    json_end_object(w);
}

static void put_list(struct json_writer *w, const char *key, const struct buf *items)
{
    json_key(w, key);
    json_begin_array(w);
    if (items->len)
        json_write_raw(w, buf_str(items));
    json_end_array(w);
}

static void put_completion_logprobs(struct json_writer *w, const struct job *j, const struct choice *c)
{
    json_key(w, "logprobs");
    json_begin_object(w);
    put_list(w, "tokens", &c->logprobs);
    put_list(w, "token_logprobs", &c->values);
    if (j->ask.sampling.n_logprobs > 0)
        put_list(w, "top_logprobs", &c->tops);
    else
        put_null(w, "top_logprobs");
    put_list(w, "text_offset", &c->offsets);
    json_end_object(w);
}

/* Appends one JSON value to a comma-separated list, written by a writer of its own. */
static struct json_writer list_item(struct buf *list)
{
    struct json_writer w;
    if (list->len)
        buf_append_char(list, ',');
    json_writer_init(&w, list);
    return w;
}

/* One element for each of the four arrays; w stands in the first. Nothing precedes the prompt's first token: null. */
static void completion_entry(struct json_writer *w, const struct job *j, struct choice *c, const struct mail *m,
                             const struct candidate *top)
{
    bool first = m->is_prompt && c->n_echoed == 0;
    int64_t offset = m->is_prompt ? j->echo_offsets[c->index / j->ask.n][c->n_echoed++] : (int64_t)c->n_char;
    struct buf name = token_name(j->g->bundle->tokenizer, m->id);
    json_write_str(w, buf_str(&name));
    w->out->failed |= name.failed;
    buf_free(&name);
    struct json_writer value = list_item(&c->values), tops = list_item(&c->tops), at = list_item(&c->offsets);
    if (first) {
        json_write_null(&value);
        json_write_null(&tops);
    } else {
        json_write_real(&value, finite_logprob(m->logprob));
        completion_tops(&tops, j, m, top);
    }
    json_write_int(&at, offset);
}

static void keep_logprobs(struct job *j, struct choice *c, const struct mail *m, struct str text,
                          const struct candidate *top)
{
    if (j->ask.sampling.n_logprobs < 0)
        return;
    if (m->id >= 0) {
        struct json_writer w = list_item(&c->logprobs);
        if (j->kind == ASK_CHAT) {
            chat_entry(&w, j, m, top);
        } else {
            completion_entry(&w, j, c, m, top);
        }
    }
    c->n_char += text_chars(text);
    c->text.failed |= c->logprobs.failed | c->values.failed | c->tops.failed | c->offsets.failed;
}

static void put_logprobs(struct json_writer *w, const struct job *j, const struct choice *c)
{
    if (j->ask.sampling.n_logprobs < 0)
        put_null(w, "logprobs");
    else if (j->kind == ASK_CHAT)
        put_chat_logprobs(w, buf_str(&c->logprobs));
    else
        put_completion_logprobs(w, j, c);
}

static void clear_logprobs(struct choice *c)
{
    buf_clear(&c->logprobs);
    buf_clear(&c->values);
    buf_clear(&c->tops);
    buf_clear(&c->offsets);
}

/* ---- usage ---- */

static void write_usage(struct json_writer *w, const struct job *j)
{
    int64_t n_prompt = 0, n_output = 0, n_cached = 0;
    for (int i = 0; i < j->n_prompt; i++) { /* a prompt counts once, however many choices continue it */
        n_prompt += (int64_t)j->prompts[i].count;
        n_cached += j->choices[i * j->ask.n].end.n_cached;
    }
    for (int i = 0; i < j->n_choice; i++)
        n_output += j->choices[i].end.n_output;
    json_begin_object(w);
    json_put_int(w, "prompt_tokens", n_prompt);
    json_put_int(w, "completion_tokens", n_output);
    json_put_int(w, "total_tokens", n_prompt + n_output);
    json_key(w, "prompt_tokens_details");
    json_begin_object(w);
    json_put_int(w, "cached_tokens", n_cached);
    json_end_object(w);
    json_key(w, "completion_tokens_details");
    json_begin_object(w);
    json_put_int(w, "reasoning_tokens", 0);
    json_end_object(w);
    json_end_object(w);
}

/* ---- chunks ---- */

enum chunk { CHUNK_ROLE, CHUNK_TEXT, CHUNK_END };

static void write_chunk(const struct job *j, const struct choice *c, enum chunk what, struct str text, struct buf *out)
{
    struct json_writer w;
    begin(&w, out, j, chunk_object(j));
    json_key(&w, "choices");
    json_begin_array(&w);
    json_begin_object(&w);
    json_put_int(&w, "index", c->index);
    if (j->kind == ASK_CHAT) {
        json_key(&w, "delta");
        json_begin_object(&w);
        if (what == CHUNK_ROLE)
            json_put_str(&w, "role", STR("assistant"));
        if (what != CHUNK_END)
            json_put_str(&w, "content", text);
        json_end_object(&w);
    } else {
        json_put_str(&w, "text", text);
    }
    if (what == CHUNK_TEXT)
        put_logprobs(&w, j, c);
    else
        put_null(&w, "logprobs");
    if (what == CHUNK_END)
        json_put_str(&w, "finish_reason", str_of(finish_word(c)));
    else
        put_null(&w, "finish_reason");
    json_end_object(&w);
    json_end_array(&w);
    if (j->ask.include_usage)
        put_null(&w, "usage");
    json_end_object(&w);
}

void openai_chunk_role(struct job *j, const struct choice *c, struct buf *out)
{
    write_chunk(j, c, CHUNK_ROLE, STR(""), out);
}

void openai_chunk_echo(struct job *j, struct choice *c, struct buf *out)
{
    write_chunk(j, c, CHUNK_TEXT, job_echo(j, c), out);
    out->failed |= c->text.failed;
    clear_logprobs(c);
}

void openai_chunk_token(struct job *j, struct choice *c, const struct mail *m, struct str text,
                        const struct candidate *top, struct buf *out)
{
    clear_logprobs(c);
    keep_logprobs(j, c, m, text, top);
    write_chunk(j, c, CHUNK_TEXT, text, out);
    out->failed |= c->text.failed;
}

void openai_chunk_end(struct job *j, const struct choice *c, struct buf *out)
{
    write_chunk(j, c, CHUNK_END, STR(""), out);
}

void openai_chunk_usage(struct job *j, struct buf *out)
{
    struct json_writer w;
    begin(&w, out, j, chunk_object(j));
    json_key(&w, "choices");
    json_begin_array(&w);
    json_end_array(&w);
    json_key(&w, "usage");
    write_usage(&w, j);
    json_end_object(&w);
}

/* ---- whole answers ---- */

void openai_keep_token(struct job *j, struct choice *c, const struct mail *m, struct str text,
                       const struct candidate *top)
{
    buf_append_str(&c->text, text);
    keep_logprobs(j, c, m, text, top);
}

static void write_choice(struct json_writer *w, const struct job *j, const struct choice *c)
{
    json_begin_object(w);
    json_put_int(w, "index", c->index);
    if (j->kind == ASK_CHAT) {
        json_key(w, "message");
        json_begin_object(w);
        json_put_str(w, "role", STR("assistant"));
        json_put_str(w, "content", buf_str(&c->text));
        put_null(w, "refusal");
        json_end_object(w);
    } else {
        json_put_str(w, "text", buf_str(&c->text));
    }
    put_logprobs(w, j, c);
    json_put_str(w, "finish_reason", str_of(finish_word(c)));
    json_end_object(w);
}

void openai_write_answer(struct job *j, struct buf *out)
{
    struct json_writer w;
    begin(&w, out, j, j->kind == ASK_CHAT ? "chat.completion" : "text_completion");
    json_key(&w, "choices");
    json_begin_array(&w);
    for (int i = 0; i < j->n_choice; i++)
        write_choice(&w, j, &j->choices[i]);
    json_end_array(&w);
    json_key(&w, "usage");
    write_usage(&w, j);
    json_end_object(&w);
}

/* ---- models ---- */

void openai_write_model(const struct gateway *g, struct json_writer *w)
{
    struct engine_stats s;
    engine_stats(g->engine, &s);
    json_begin_object(w);
    json_put_str(w, "id", str_of(g->bundle->id));
    json_put_str(w, "object", STR("model"));
    json_put_int(w, "created", g->created);
    json_put_str(w, "owned_by", STR("ingot"));
    json_put_str(w, "root", str_of(g->bundle->id));
    put_null(w, "parent");
    json_put_int(w, "max_model_len", s.n_ctx);
    json_end_object(w);
}

void openai_write_models(const struct gateway *g, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "object", STR("list"));
    json_key(&w, "data");
    json_begin_array(&w);
    openai_write_model(g, &w);
    json_end_array(&w);
    json_end_object(&w);
}
