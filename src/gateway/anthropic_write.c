/* Anthropic's answers: a message of content blocks, whole or as events. */
#include "gateway/private.h"

int anthropic_write_refusal(struct buf *out, const struct refusal *why, struct str request_id)
{
    static const struct {
        int http, status;
        const char *type;
    } rows[] = {{400, 400, "invalid_request_error"},
                {401, 401, "authentication_error"},
                {403, 403, "permission_error"},
                {404, 404, "not_found_error"},
                {405, 405, "invalid_request_error"},
                {408, 408, "timeout_error"},
                {413, 413, "request_too_large"},
                {422, 400, "invalid_request_error"},
                {429, 429, "rate_limit_error"},
                {503, 529, "overloaded_error"},
                {504, 504, "timeout_error"},
                {507, 529, "overloaded_error"},
                {0, 500, "api_error"}};
    size_t i = 0;
    while (rows[i].http && rows[i].http != why->http)
        i++;
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "type", STR("error"));
    json_key(&w, "error");
    json_begin_object(&w);
    json_put_str(&w, "type", str_of(rows[i].type));
    json_put_str(&w, "message", str_of(why->message));
    json_end_object(&w);
    if (request_id.len)
        json_put_str(&w, "request_id", request_id);
    json_end_object(&w);
    return rows[i].status;
}

static void put_null(struct json_writer *w, const char *key)
{
    json_key(w, key);
    json_write_null(w);
}

static void put_stop(struct json_writer *w, const struct choice *c)
{
    bool stop_string = c->end.stop_text.ptr != NULL && !c->n_call, length = c->end.finish == FINISH_LENGTH;
    json_put_str(w, "stop_reason",
                 length && c->end.n_output < c->job->ask.sampling.max_tokens ? STR("model_context_window_exceeded")
                 : length                                                    ? STR("max_tokens")
                 : c->n_call                                                 ? STR("tool_use")
                 : stop_string                                               ? STR("stop_sequence")
                                                                             : STR("end_turn"));
    json_key(w, "stop_sequence");
    if (stop_string)
        json_write_str(w, c->end.stop_text);
    else
        json_write_null(w);
}

static void put_usage(struct json_writer *w, const struct job *j)
{
    const struct finish_event *e = &j->choices[0].end;
    json_key(w, "usage");
    json_begin_object(w);
    json_put_int(w, "input_tokens", (int64_t)j->prompts[0].count - e->n_cached);
    json_put_int(w, "cache_creation_input_tokens", 0);
    json_put_int(w, "cache_read_input_tokens", e->n_cached);
    json_put_int(w, "output_tokens", e->n_output);
    json_key(w, "output_tokens_details");
    json_begin_object(w);
    json_put_int(w, "thinking_tokens", j->choices[0].n_reason);
    json_end_object(w);
    json_put_str(w, "service_tier", STR("standard"));
    json_end_object(w);
}

static void put_head(struct json_writer *w, const struct job *j)
{
    json_put_str(w, "id", str_of(j->id));
    json_put_str(w, "type", STR("message"));
    json_put_str(w, "role", STR("assistant"));
    json_put_str(w, "model", str_of(j->name));
}

/* A block with what it holds; empty when it only begins. */
static void put_block(struct json_writer *w, const struct block *b, struct str text, bool hidden)
{
    json_begin_object(w);
    switch (b->kind) {
    case BLOCK_TEXT:
        json_put_str(w, "type", STR("text"));
        json_put_str(w, "text", text);
        break;
    case BLOCK_REASON:
        json_put_str(w, "type", STR("thinking"));
        json_put_str(w, "thinking", hidden ? STR("") : text);
        json_put_str(w, "signature", STR(""));
        break;
    case BLOCK_CALL:
        json_put_str(w, "type", STR("tool_use"));
        json_put_str(w, "id", str_of(b->id));
        json_put_str(w, "name", b->name);
        json_key(w, "input");
        json_write_raw(w, text.len ? text : STR("{}")); /* speech has checked it: a JSON object */
        break;
    }
    json_end_object(w);
}

static struct json_writer *begin_event(struct job *j, const char *type)
{
    struct json_writer *w = event_begin(j, type);
    json_begin_object(w);
    json_put_str(w, "type", str_of(type));
    return w;
}

static void end_event(struct job *j)
{
    json_end_object(&j->writer);
    event_end(j);
}

void anthropic_begin(struct job *j)
{
    struct json_writer *w = begin_event(j, "message_start");
    json_key(w, "message");
    json_begin_object(w);
    put_head(w, j);
    json_key(w, "content");
    json_begin_array(w);
    json_end_array(w);
    put_null(w, "stop_reason");
    put_null(w, "stop_sequence");
    put_usage(w, j);
    json_end_object(w);
    end_event(j);
}

void anthropic_open(struct job *j, struct choice *c, const struct block *b)
{
    struct json_writer *w = begin_event(j, "content_block_start");
    (void)c;
    json_put_int(w, "index", b->index);
    json_key(w, "content_block");
    put_block(w, b, STR(""), false);
    end_event(j);
}

static void put_delta(struct job *j, int index, const char *type, const char *key, struct str text)
{
    struct json_writer *w = begin_event(j, "content_block_delta");
    json_put_int(w, "index", index);
    json_key(w, "delta");
    json_begin_object(w);
    json_put_str(w, "type", str_of(type));
    json_put_str(w, key, text);
    json_end_object(w);
    end_event(j);
}

void anthropic_delta(struct job *j, struct choice *c, const struct block *b, struct str text)
{
    static const char *const types[][2] = {
        {"text_delta", "text"}, {"thinking_delta", "thinking"}, {"input_json_delta", "partial_json"}};
    (void)c;
    if (b && !(b->kind == BLOCK_REASON && j->ask.hides_reasoning))
        put_delta(j, b->index, types[b->kind][0], types[b->kind][1], text);
}

void anthropic_close(struct job *j, struct choice *c, const struct block *b)
{
    (void)c;
    if (b->kind == BLOCK_REASON)
        put_delta(j, b->index, "signature_delta", "signature", STR(""));
    struct json_writer *w = begin_event(j, "content_block_stop");
    json_put_int(w, "index", b->index);
    end_event(j);
}

void anthropic_end(struct job *j)
{
    struct json_writer *w = begin_event(j, "message_delta");
    json_key(w, "delta");
    json_begin_object(w);
    put_stop(w, &j->choices[0]);
    json_end_object(w);
    put_usage(w, j);
    end_event(j);
    begin_event(j, "message_stop");
    end_event(j);
}

void anthropic_fail(struct job *j, const struct refusal *why)
{
    event_begin(j, "error");
    anthropic_write_refusal(&j->out, why, str_of(j->request_id));
    event_end(j);
}

void anthropic_ping(struct job *j)
{
    begin_event(j, "ping");
    end_event(j);
}

void anthropic_answer(struct job *j, struct buf *out)
{
    const struct choice *c = &j->choices[0];
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    put_head(&w, j);
    json_key(&w, "content");
    json_begin_array(&w);
    for (size_t i = 0; i < c->n_block; i++)
        put_block(&w, &c->blocks[i], buf_str(&c->blocks[i].text), j->ask.hides_reasoning);
    json_end_array(&w);
    put_stop(&w, c);
    put_usage(&w, j);
    json_end_object(&w);
}

void anthropic_answer_count(struct job *j, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_int(&w, "input_tokens", (int64_t)j->prompts[0].count);
    json_end_object(&w);
}
