/* OpenAI's answers: whole objects, stream chunks, logprobs, usage, errors. */
#include "gateway/private.h"

#include <limits.h>
#include <stdio.h>

void openai_put_error(struct json_writer *w, const struct refusal *why)
{
    json_begin_object(w);
    json_put_str(w, "message", str_of(why->message));
    json_put_str(w, "type", str_of(why->type));
    json_key(w, "param");
    if (why->param[0])
        json_write_str(w, str_of(why->param));
    else
        json_write_null(w);
    json_key(w, "code");
    if (why->code)
        json_write_str(w, str_of(why->code));
    else
        json_write_null(w);
    json_end_object(w);
}

int openai_write_refusal(struct buf *out, const struct refusal *why, struct str request_id)
{
    (void)request_id;
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "error");
    openai_put_error(&w, why);
    json_end_object(&w);
    return why->http;
}

static void begin(struct json_writer *w, const struct job *j, const char *object)
{
    char brief[FINGERPRINT_BRIEF];
    json_begin_object(w);
    json_put_str(w, "id", str_of(j->id));
    json_put_str(w, "object", str_of(object));
    json_put_int(w, "created", j->created);
    json_put_str(w, "model", str_of(j->name));
    json_key(w, "system_fingerprint");
    if (fingerprint_brief(brief, j->fingerprint))
        json_write_str(w, str_of(brief));
    else
        json_write_null(w); /* a model that came from no file */
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
    return c->end.finish == FINISH_LENGTH ? "length" : c->n_call ? "tool_calls" : "stop";
}

/* ---- usage ---- */

/* Of the choice that was computed first: the others found what it had computed. */
static int cached_before(const struct job *j, int prompt)
{
    int n = INT_MAX;
    for (int i = 0; i < j->n_choice; i++)
        if (j->choices[i].prompt == prompt && j->choices[i].end.n_cached < n)
            n = j->choices[i].end.n_cached;
    return n;
}

static void write_usage(struct json_writer *w, const struct job *j)
{
    int64_t n_prompt = 0, n_output = 0, n_cached = 0, n_reason = 0;
    for (int i = 0; i < j->n_prompt; i++) { /* a prompt counts once, however many choices continue it */
        n_prompt += (int64_t)j->prompts[i].count;
        n_cached += cached_before(j, i);
    }
    for (int i = 0; i < j->n_choice; i++) { /* candidates that are not in the answer were paid for too */
        n_output += j->choices[i].end.n_output;
        n_reason += j->choices[i].n_reason;
    }
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
    json_put_int(w, "reasoning_tokens", n_reason);
    json_end_object(w);
    json_end_object(w);
}

/* ---- chunks ---- */

/* One element of "choices": its "delta" or "text" is what put writes. */
typedef void put_fn(struct json_writer *w, const struct block *b, struct str text);

static void put_role(struct json_writer *w, const struct block *b, struct str text)
{
    (void)b;
    json_put_str(w, "role", STR("assistant"));
    json_put_str(w, "content", text);
}

static void put_nothing(struct json_writer *w, const struct block *b, struct str text)
{
    (void)w, (void)b, (void)text;
}

static void put_call(struct json_writer *w, const struct block *b, bool head, struct str arguments)
{
    json_begin_object(w);
    json_put_int(w, "index", b->call);
    if (head) {
        json_put_str(w, "id", str_of(b->id));
        json_put_str(w, "type", STR("function"));
    }
    json_key(w, "function");
    json_begin_object(w);
    if (head)
        json_put_str(w, "name", b->name);
    json_put_str(w, "arguments", arguments);
    json_end_object(w);
    json_end_object(w);
}

static void put_words(struct json_writer *w, const struct block *b, struct str text)
{
    if (b && b->kind == BLOCK_REASON) {
        json_put_str(w, "reasoning_content", text); /* the name DeepSeek and vLLM chose, and the one vLLM moves to */
        json_put_str(w, "reasoning", text);
    } else if (b && b->kind == BLOCK_CALL) {
        json_key(w, "tool_calls");
        json_begin_array(w);
        put_call(w, b, text.ptr == NULL, text.ptr ? text : STR(""));
        json_end_array(w);
    } else {
        json_put_str(w, "content", text);
    }
}

/* A chunk up to its "choices". All chunks of a stream begin alike: the first one's is kept. */
static struct json_writer *begin_chunk(struct job *j)
{
    struct json_writer *w = event_begin(j, NULL);
    size_t at = j->out.len;
    if (j->chunk_head.ptr) {
        buf_append_str(&j->out, j->chunk_head);
        *w = j->chunk_writer;
        return w;
    }
    begin(w, j, chunk_object(j));
    json_key(w, "choices");
    json_begin_array(w);
    struct str head = str_from(buf_str(&j->out), at);
    char *kept = j->out.failed ? NULL : arena_copy(&j->arena, head);
    if (kept) {
        j->chunk_head = str_n(kept, head.len);
        j->chunk_writer = *w;
    }
    return w;
}

static void write_chunk(struct job *j, struct choice *c, put_fn *put, const struct block *b, struct str text,
                        const char *finish)
{
    struct json_writer *w = begin_chunk(j);
    json_begin_object(w);
    json_put_int(w, "index", c->index);
    if (j->kind == ASK_CHAT) {
        json_key(w, "delta");
        json_begin_object(w);
        put(w, b, text);
        json_end_object(w);
    } else {
        json_put_str(w, "text", text);
    }
    if (put == put_words)
        logprobs_put(w, j, c);
    else
        put_null(w, "logprobs");
    if (finish)
        json_put_str(w, "finish_reason", str_of(finish));
    else
        put_null(w, "finish_reason");
    json_end_object(w);
    json_end_array(w);
    if (j->ask.include_usage)
        put_null(w, "usage");
    json_end_object(w);
    event_end(j);
}

void openai_chunk_role(struct job *j, struct choice *c)
{
    write_chunk(j, c, put_role, NULL, STR(""), NULL);
}

void openai_chunk_open(struct job *j, struct choice *c, const struct block *b)
{
    if (b->kind == BLOCK_CALL)
        openai_chunk_text(j, c, b, (struct str){NULL, 0});
}

void openai_chunk_text(struct job *j, struct choice *c, const struct block *b, struct str text)
{
    write_chunk(j, c, put_words, b, text, NULL);
    j->out.failed |= c->failed;
    logprobs_clear(c);
}

void openai_chunk_end(struct job *j, struct choice *c)
{
    write_chunk(j, c, put_nothing, NULL, STR(""), finish_word(c));
}

static void write_done(struct job *j)
{
    if (j->wire != &wire_sse)
        return; /* a socket closes instead */
    struct json_writer *w = event_begin(j, NULL);
    json_write_raw(w, STR("[DONE]"));
    event_end(j);
}

void openai_chunk_usage(struct job *j)
{
    if (j->ask.include_usage || j->ask.return_replay) {
        struct json_writer *w = begin_chunk(j);
        json_end_array(w);
        if (j->ask.include_usage) {
            json_key(w, "usage");
            write_usage(w, j);
        }
        replay_put(w, j);
        json_end_object(w);
        event_end(j);
    }
    write_done(j);
}

void openai_chunk_fail(struct job *j, const struct refusal *why)
{
    event_begin(j, NULL);
    openai_write_refusal(&j->out, why, STR(""));
    event_end(j);
}

/* ---- whole answers ---- */

static void put_joined(struct json_writer *w, const char *key, const struct choice *c, enum block_kind kind)
{
    struct buf text = {0};
    say_join(&text, c, kind);
    json_put_str(w, key, buf_str(&text));
    w->out->failed |= text.failed;
    buf_free(&text);
}

static bool has_block(const struct choice *c, enum block_kind kind)
{
    for (size_t i = 0; i < c->n_block; i++)
        if (c->blocks[i].kind == kind)
            return true;
    return false;
}

static void write_message(struct json_writer *w, const struct choice *c)
{
    json_begin_object(w);
    json_put_str(w, "role", STR("assistant"));
    if (c->n_call && !has_block(c, BLOCK_TEXT))
        put_null(w, "content");
    else
        put_joined(w, "content", c, BLOCK_TEXT);
    put_null(w, "refusal");
    if (has_block(c, BLOCK_REASON)) {
        put_joined(w, "reasoning_content", c, BLOCK_REASON);
        put_joined(w, "reasoning", c, BLOCK_REASON);
    }
    if (c->n_call) {
        json_key(w, "tool_calls");
        json_begin_array(w);
        for (size_t i = 0; i < c->n_block; i++)
            if (c->blocks[i].kind == BLOCK_CALL)
                put_call(w, &c->blocks[i], true, buf_str(&c->blocks[i].text));
        json_end_array(w);
    }
    json_end_object(w);
}

static void write_choice(struct json_writer *w, const struct job *j, const struct choice *c)
{
    json_begin_object(w);
    json_put_int(w, "index", c->index);
    if (j->kind == ASK_CHAT) {
        json_key(w, "message");
        write_message(w, c);
    } else {
        put_joined(w, "text", c, BLOCK_TEXT);
    }
    logprobs_put(w, j, c);
    json_put_str(w, "finish_reason", str_of(finish_word(c)));
    json_end_object(w);
}

void openai_write_answer(struct job *j, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    begin(&w, j, j->kind == ASK_CHAT ? "chat.completion" : "text_completion");
    json_key(&w, "choices");
    json_begin_array(&w);
    for (int i = 0; i < j->n_answer; i++)
        write_choice(&w, j, &j->choices[i]);
    json_end_array(&w);
    json_key(&w, "usage");
    write_usage(&w, j);
    replay_put(&w, j);
    json_end_object(&w);
}

/* ---- models ---- */

/* What it can be asked for. */
static void put_task(struct json_writer *w, const struct model_config *c)
{
    static const char *const tasks[] = {[TASK_GENERATE] = "generate", [TASK_EMBED] = "embed", [TASK_SCORE] = "score"};
    json_put_str(w, "task", str_of(tasks[c->task]));
    if (c->task == TASK_EMBED)
        json_put_int(w, "dimensions", c->n_out);
}

static void put_text(struct json_writer *w, const char *key, const char *text)
{
    json_key(w, key);
    if (text)
        json_write_str(w, str_of(text));
    else
        json_write_null(w);
}

static void write_row(const struct gateway *g, struct json_writer *w, const struct hosting_row *row)
{
    struct engine_stats s = {0};
    struct fingerprint f;
    if (row->engine)
        engine_stats(row->engine, &s);
    bool known = row->bundle && bundle_fingerprint_known(&f, row->bundle, row->adapter);
    json_begin_object(w);
    json_put_str(w, "id", str_of(row->name));
    json_put_str(w, "object", STR("model"));
    json_put_int(w, "created", g->created);
    json_put_str(w, "owned_by", STR("ingot"));
    json_put_str(w, "root", str_of(row->is_lora ? row->path : row->parent ? row->parent : row->name));
    put_text(w, "parent", row->parent);
    json_key(w, "max_model_len");
    if (row->engine)
        json_write_int(w, s.n_ctx);
    else
        json_write_null(w);
    if (row->bundle)
        put_task(w, model_config(row->bundle->model));
    json_put_str(w, "type", STR("model")); /* from here on: as Anthropic's clients read it */
    json_put_str(w, "display_name", str_of(row->name));
    ollama_put_time(w, "created_at", (uint64_t)g->created * 1000000000);
    put_text(w, "fingerprint", known ? f.text : NULL);
    json_put_str(w, "state", str_of(hosted_state_names[row->state]));
    if (row->failure)
        put_text(w, "error", row->failure);
    json_end_object(w);
}

struct listing {
    const struct gateway *g;
    struct json_writer *w;
    struct str only; /* ptr NULL: all */
    bool found;
    char last[HOSTED_NAME_MAX];
};

static void list_row(void *ctx, const struct hosting_row *row)
{
    struct listing *l = ctx;
    if (l->only.ptr && !str_is(l->only, row->name))
        return;
    l->found = true;
    snprintf(l->last, sizeof l->last, "%s", row->name);
    write_row(l->g, l->w, row);
}

bool openai_write_named(const struct gateway *g, struct str name, struct buf *out)
{
    struct json_writer w;
    struct listing l = {.g = g, .w = &w, .only = name};
    json_writer_init(&w, out);
    served_names(g, list_row, &l);
    return l.found;
}

void openai_write_models(const struct gateway *g, struct buf *out)
{
    struct json_writer w;
    struct listing l = {.g = g, .w = &w};
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "object", STR("list"));
    json_key(&w, "data");
    json_begin_array(&w);
    served_names(g, list_row, &l);
    json_end_array(&w);
    json_put_bool(&w, "has_more", false);
    json_put_str(&w, "first_id", str_of(g->bundle->id));
    json_put_str(&w, "last_id", str_of(l.last));
    json_end_object(&w);
}
