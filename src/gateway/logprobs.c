/* OpenAI's log-probabilities: objects of chats, and the four arrays of completions. */
#include "gateway/private.h"

#include "base/unicode.h"

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
    const struct tokenizer *tok = j->bundle->tokenizer;
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
    const struct tokenizer *tok = j->bundle->tokenizer;
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
    json_key(w, "refusal");
    json_write_null(w);
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
        json_key(w, "top_logprobs"), json_write_null(w);
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
    int64_t offset = m->is_prompt ? j->echo_offsets[c->prompt][c->n_echoed++] : (int64_t)c->n_char;
    struct buf name = token_name(j->bundle->tokenizer, m->id);
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

void logprobs_keep(struct job *j, struct choice *c, const struct mail *m, struct str text, const struct candidate *top)
{
    if (j->ask.sampling.n_logprobs < 0)
        return;
    if (m->id >= 0) {
        c->logprobs_last = c->logprobs.len + (c->logprobs.len > 0);
        struct json_writer w = list_item(&c->logprobs);
        if (j->kind == ASK_CHAT) {
            chat_entry(&w, j, m, top);
        } else {
            completion_entry(&w, j, c, m, top);
        }
    }
    c->n_char += text_chars(text);
    c->failed |= c->logprobs.failed | c->values.failed | c->tops.failed | c->offsets.failed;
}

void logprobs_put(struct json_writer *w, const struct job *j, const struct choice *c)
{
    if (j->ask.sampling.n_logprobs < 0)
        json_key(w, "logprobs"), json_write_null(w);
    else if (j->kind == ASK_CHAT)
        put_chat_logprobs(w, buf_str(&c->logprobs));
    else
        put_completion_logprobs(w, j, c);
}

void logprobs_clear(struct choice *c)
{
    buf_clear(&c->logprobs);
    buf_clear(&c->values);
    buf_clear(&c->tops);
    buf_clear(&c->offsets);
}
