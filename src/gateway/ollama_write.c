/* Ollama's answers: one JSON object a line, the last with the counts and durations. */
#include "gateway/private.h"

#include "base/clock.h"

#include <stdio.h>
#include <time.h>

int ollama_write_refusal(struct buf *out, const struct refusal *why, struct str request_id)
{
    struct json_writer w;
    (void)request_id;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "error", str_of(why->message));
    json_end_object(&w);
    return why->http;
}

void ollama_put_time(struct json_writer *w, const char *key, uint64_t wall_ns)
{
    time_t s = (time_t)(wall_ns / 1000000000);
    struct tm tm;
    char text[64];
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", gmtime_r(&s, &tm));
    snprintf(text + n, sizeof text - n, ".%09luZ", (unsigned long)(wall_ns % 1000000000));
    json_put_str(w, key, str_of(text));
}

static bool is_chat(const struct job *j)
{
    return j->protocol == &ollama_chat;
}

static void begin_line(struct json_writer *w, const struct job *j)
{
    json_begin_object(w);
    json_put_str(w, "model", j->model.ptr ? j->model : str_of(j->name)); /* as the client wrote it */
    ollama_put_time(w, "created_at", clock_wall_ns());
}

/* The words of one line: {"message": {...}} of chats, {"response": ...} of generate. */
static void put_words(struct json_writer *w, const struct job *j, struct str text, struct str thought, struct str calls)
{
    if (is_chat(j)) {
        json_key(w, "message");
        json_begin_object(w);
        json_put_str(w, "role", STR("assistant"));
    }
    json_put_str(w, is_chat(j) ? "content" : "response", text);
    if (thought.len)
        json_put_str(w, "thinking", thought);
    if (calls.len) {
        json_key(w, "tool_calls");
        json_begin_array(w);
        json_write_raw(w, calls);
        json_end_array(w);
    }
    if (is_chat(j))
        json_end_object(w);
}

static void write_call(struct buf *out, const struct block *b)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "function");
    json_begin_object(&w);
    json_put_int(&w, "index", b->call);
    json_put_str(&w, "name", b->name);
    json_key(&w, "arguments");
    json_write_raw(&w, b->text.len ? buf_str(&b->text) : STR("{}"));
    json_end_object(&w);
    json_end_object(&w);
}

static void put_logprobs(struct json_writer *w, const struct choice *c)
{
    if (!c->logprobs.len)
        return;
    json_key(w, "logprobs");
    json_begin_array(w);
    json_write_raw(w, buf_str(&c->logprobs));
    json_end_array(w);
}

static void write_line(struct job *j, struct str text, struct str thought, struct str calls)
{
    struct json_writer *w = event_begin(j, NULL);
    struct choice *c = &j->choices[0];
    begin_line(w, j);
    put_words(w, j, text, thought, calls);
    put_logprobs(w, c);
    logprobs_clear(c);
    json_put_bool(w, "done", false);
    json_end_object(w);
    event_end(j);
}

void ollama_delta(struct job *j, struct choice *c, const struct block *b, struct str text)
{
    struct str none = {"", 0};
    bool reason = b && b->kind == BLOCK_REASON;
    (void)c;
    if (!b || b->kind != BLOCK_CALL)
        write_line(j, reason ? none : text, reason ? text : none, none);
}

/* A call goes out whole: its arguments are an object here. What is none is left to the reader as text. */
void ollama_close(struct job *j, struct choice *c, const struct block *b)
{
    struct buf call = {0};
    struct str none = {"", 0};
    (void)c;
    if (b->kind != BLOCK_CALL)
        return;
    write_call(&call, b);
    write_line(j, none, none, buf_str(&call));
    j->out.failed |= call.failed;
    buf_free(&call);
}

static void put_ns(struct json_writer *w, const char *key, double s)
{
    json_put_int(w, key, (int64_t)(s * 1e9));
}

static void put_counts(struct json_writer *w, const struct job *j)
{
    const struct finish_event *e = &j->choices[0].end;
    json_put_bool(w, "done", true);
    json_put_str(w, "done_reason", e->finish == FINISH_LENGTH ? STR("length") : STR("stop"));
    json_put_int(w, "total_duration", (int64_t)(clock_ns() - j->begin_ns));
    json_put_int(w, "load_duration", (int64_t)(j->parse_ns - j->begin_ns)); /* until the engine could begin */
    json_put_int(w, "prompt_eval_count", e->n_prompt);
    put_ns(w, "prompt_eval_duration", e->prefill_s);
    json_put_int(w, "eval_count", e->n_output);
    put_ns(w, "eval_duration", e->decode_s);
}

void ollama_end(struct job *j)
{
    struct json_writer *w = event_begin(j, NULL);
    struct str none = {"", 0};
    begin_line(w, j);
    put_words(w, j, none, none, none);
    put_logprobs(w, &j->choices[0]);
    put_counts(w, j);
    json_end_object(w);
    event_end(j);
}

void ollama_fail(struct job *j, const struct refusal *why)
{
    event_begin(j, NULL);
    ollama_write_refusal(&j->out, why, STR(""));
    event_end(j);
}

void ollama_ping(struct job *j)
{
    struct str none = {"", 0};
    write_line(j, none, none, none);
}

/* An empty prompt: nothing is asked but that the model be loaded, or not. */
static void write_loaded(struct job *j, struct buf *out)
{
    struct json_writer w;
    struct str none = {"", 0};
    json_writer_init(&w, out);
    begin_line(&w, j);
    put_words(&w, j, none, none, none);
    json_put_bool(&w, "done", true);
    json_put_str(&w, "done_reason", j->ask.has_keep_alive && j->ask.keep_alive_s == 0 ? STR("unload") : STR("load"));
    json_end_object(&w);
}

void ollama_answer(struct job *j, struct buf *out)
{
    const struct choice *c = j->choices;
    struct buf text = {0}, thought = {0}, calls = {0};
    struct json_writer w;
    if (j->ask.immediate) {
        write_loaded(j, out);
        return;
    }
    say_join(&text, c, BLOCK_TEXT);
    say_join(&thought, c, BLOCK_REASON);
    for (size_t i = 0; i < c->n_block; i++)
        if (c->blocks[i].kind == BLOCK_CALL) {
            if (calls.len)
                buf_append_char(&calls, ',');
            write_call(&calls, &c->blocks[i]);
        }
    json_writer_init(&w, out);
    begin_line(&w, j);
    put_words(&w, j, buf_str(&text), buf_str(&thought), buf_str(&calls));
    put_logprobs(&w, c);
    put_counts(&w, j);
    json_end_object(&w);
    out->failed |= text.failed | thought.failed | calls.failed;
    buf_free(&text);
    buf_free(&thought);
    buf_free(&calls);
}

/* ---- embeddings ---- */

static void put_vector(struct json_writer *w, const struct job *j, int i)
{
    const real *row;
    int n = embed_row(&row, j, i);
    json_begin_array(w);
    for (int k = 0; k < n; k++)
        json_write_float(w, (float)row[k]);
    json_end_array(w);
}

void ollama_answer_embed(struct job *j, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "model", j->model.ptr ? j->model : str_of(j->name));
    json_key(&w, "embeddings");
    json_begin_array(&w);
    for (int i = 0; i < j->n_prompt; i++)
        put_vector(&w, j, i);
    json_end_array(&w);
    json_put_int(&w, "total_duration", (int64_t)(clock_ns() - j->begin_ns));
    json_put_int(&w, "load_duration", (int64_t)(j->parse_ns - j->begin_ns));
    json_put_int(&w, "prompt_eval_count", embed_tokens(j));
    json_end_object(&w);
}

void ollama_answer_embeddings(struct job *j, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_key(&w, "embedding");
    put_vector(&w, j, 0);
    json_end_object(&w);
}
