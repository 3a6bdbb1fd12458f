/* Responses' answers: a response object of output items, whole or as numbered events. */
#include "gateway/private.h"

#include <stdio.h>

/* ---- items ---- */

static const struct item_row {
    const char *prefix, *type, *part, *delta, *done, *text_key;
} items[] = {
    [BLOCK_TEXT] = {"msg_", "message", "output_text", "response.output_text.delta", "response.output_text.done",
                    "text"},
    [BLOCK_REASON] = {"rs_", "reasoning", "reasoning_text", "response.reasoning_text.delta",
                      "response.reasoning_text.done", "text"},
    [BLOCK_CALL] = {"fc_", "function_call", NULL, "response.function_call_arguments.delta",
                    "response.function_call_arguments.done", "arguments"},
};

static void put_item_id(struct json_writer *w, const char *key, const struct job *j, const struct block *b)
{
    char id[64];
    snprintf(id, sizeof id, "%s%s%02x", items[b->kind].prefix, j->id + strlen(j->protocol->id_prefix),
             (unsigned)b->index);
    json_put_str(w, key, str_of(id));
}

static void put_logprobs(struct json_writer *w, struct str entries)
{
    json_key(w, "logprobs");
    json_begin_array(w);
    if (entries.len)
        json_write_raw(w, entries);
    json_end_array(w);
}

static void put_part(struct json_writer *w, const struct block *b, struct str text)
{
    json_begin_object(w);
    json_put_str(w, "type", str_of(items[b->kind].part));
    json_put_str(w, "text", text);
    if (b->kind == BLOCK_TEXT) {
        json_key(w, "annotations");
        json_write_raw(w, STR("[]"));
        put_logprobs(w, buf_str(&b->logprobs));
    }
    json_end_object(w);
}

static void put_item(struct json_writer *w, const struct job *j, const struct block *b, bool done)
{
    json_begin_object(w);
    put_item_id(w, "id", j, b);
    json_put_str(w, "type", str_of(items[b->kind].type));
    json_put_str(w, "status", done ? STR("completed") : STR("in_progress"));
    if (b->kind == BLOCK_CALL) {
        json_put_str(w, "call_id", str_of(b->id));
        json_put_str(w, "name", b->name);
        json_put_str(w, "arguments", done ? buf_str(&b->text) : STR(""));
        json_end_object(w);
        return;
    }
    if (b->kind == BLOCK_TEXT)
        json_put_str(w, "role", STR("assistant"));
    if (b->kind == BLOCK_REASON) {
        json_key(w, "summary");
        json_write_raw(w, STR("[]"));
    }
    json_key(w, "content");
    json_begin_array(w);
    if (done)
        put_part(w, b, buf_str(&b->text));
    json_end_array(w);
    json_end_object(w);
}

/* ---- the response ---- */

static void put_usage(struct json_writer *w, const struct job *j)
{
    const struct choice *c = &j->choices[0];
    json_begin_object(w);
    json_put_int(w, "input_tokens", c->end.n_prompt);
    json_key(w, "input_tokens_details");
    json_begin_object(w);
    json_put_int(w, "cached_tokens", c->end.n_cached);
    json_end_object(w);
    json_put_int(w, "output_tokens", c->end.n_output);
    json_key(w, "output_tokens_details");
    json_begin_object(w);
    json_put_int(w, "reasoning_tokens", c->n_reason);
    json_end_object(w);
    json_put_int(w, "total_tokens", c->end.n_prompt + c->end.n_output);
    json_end_object(w);
}

static void put_error(struct json_writer *w, const struct refusal *why, bool cancelled)
{
    json_key(w, "error");
    if (!why || cancelled) {
        json_write_null(w);
        return;
    }
    json_begin_object(w);
    json_put_str(w, "code", str_of(why->code ? why->code : "server_error"));
    json_put_str(w, "message", str_of(why->message));
    json_end_object(w);
}

static const char *status_of(const struct job *j, const struct refusal *why)
{
    const struct choice *c = &j->choices[0];
    if (why)
        return j->cancelled ? "cancelled" : "failed";
    return !c->said_end ? "in_progress" : c->end.finish == FINISH_LENGTH ? "incomplete" : "completed";
}

void responses_put(struct json_writer *w, const struct job *j, const struct refusal *why)
{
    const struct choice *c = &j->choices[0];
    bool over = c->said_end && !why;
    json_begin_object(w);
    json_put_str(w, "id", str_of(j->id));
    json_put_str(w, "object", STR("response"));
    json_put_int(w, "created_at", j->created);
    json_put_str(w, "status", str_of(status_of(j, why)));
    put_error(w, why, j->cancelled);
    json_key(w, "incomplete_details");
    json_write_raw(w, over && c->end.finish == FINISH_LENGTH ? STR("{\"reason\":\"max_output_tokens\"}") : STR("null"));
    json_put_str(w, "model", str_of(j->name));
    json_key(w, "output");
    json_begin_array(w);
    for (size_t i = 0; i < c->n_block && (over || why); i++)
        put_item(w, j, &c->blocks[i], true);
    json_end_array(w);
    buf_append_char(w->out, ',');
    buf_append_str(w->out, j->ask.repeated); /* members, as the request had them */
    json_key(w, "usage");
    if (over)
        put_usage(w, j);
    else
        json_write_null(w);
    json_end_object(w);
}

/* The answer as the next request of this conversation will read it. */
static void put_turn(struct json_writer *w, const struct choice *c)
{
    struct buf text = {0}, reason = {0}, calls = {0};
    say_join(&text, c, BLOCK_TEXT);
    say_join(&reason, c, BLOCK_REASON);
    for (size_t i = 0; i < c->n_block; i++)
        if (c->blocks[i].kind == BLOCK_CALL)
            responses_put_call(&calls, str_of(c->blocks[i].id), c->blocks[i].name, buf_str(&c->blocks[i].text));
    json_begin_object(w);
    json_put_str(w, "role", STR("assistant"));
    json_put_str(w, "content", buf_str(&text));
    if (reason.len)
        json_put_str(w, "reasoning_content", buf_str(&reason));
    if (calls.len) {
        json_key(w, "tool_calls");
        json_begin_array(w);
        json_write_raw(w, buf_str(&calls));
        json_end_array(w);
    }
    json_end_object(w);
    w->out->failed |= text.failed | reason.failed | calls.failed;
    buf_free(&text);
    buf_free(&reason);
    buf_free(&calls);
}

/* Kept for previous_response_id and GET; what does not fit is not kept, and the next request is told. */
void responses_keep(struct job *j, const struct refusal *why)
{
    struct buf body = {0}, talk = {0};
    struct json_writer w;
    if (!j->ask.store)
        return;
    json_writer_init(&w, &body);
    responses_put(&w, j, why);
    buf_append_str(&talk, j->ask.conversation);
    buf_append_char(&talk, ',');
    json_writer_init(&w, &talk);
    put_turn(&w, &j->choices[0]);
    store_put(j->g->store, client_id(j->client), str_of(j->id), &body, &talk);
    if (j->log.len)
        store_add_events(j->g->store, client_id(j->client), str_of(j->id), &j->log);
}

void responses_answer(struct job *j, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    responses_put(&w, j, NULL);
    responses_keep(j, NULL);
}

/* ---- events ---- */

static struct json_writer *begin_event(struct job *j, const char *type)
{
    struct json_writer *w = event_begin(j, type);
    json_begin_object(w);
    json_put_str(w, "type", str_of(type));
    json_put_int(w, "sequence_number", j->sequence++);
    return w;
}

static void end_event(struct job *j)
{
    json_end_object(&j->writer);
    event_end(j);
}

static void response_event(struct job *j, const char *type, const struct refusal *why)
{
    struct json_writer *w = begin_event(j, type);
    json_key(w, "response");
    responses_put(w, j, why);
    end_event(j);
}

/* Events about one item, or (content) about its only part. */
static struct json_writer *begin_item_event(struct job *j, const char *type, const struct block *b, bool content)
{
    struct json_writer *w = begin_event(j, type);
    put_item_id(w, "item_id", j, b);
    json_put_int(w, "output_index", b->index);
    if (content)
        json_put_int(w, "content_index", 0);
    return w;
}

static void item_event(struct job *j, const char *type, const struct block *b, bool done)
{
    struct json_writer *w = begin_event(j, type);
    json_put_int(w, "output_index", b->index);
    json_key(w, "item");
    put_item(w, j, b, done);
    end_event(j);
}

static void part_event(struct job *j, const char *type, const struct block *b, struct str text)
{
    struct json_writer *w = begin_item_event(j, type, b, true);
    json_key(w, "part");
    put_part(w, b, text);
    end_event(j);
}

void responses_begin(struct job *j)
{
    response_event(j, "response.created", NULL);
    response_event(j, "response.in_progress", NULL);
}

void responses_open(struct job *j, struct choice *c, const struct block *b)
{
    (void)c;
    item_event(j, "response.output_item.added", b, false);
    if (b->kind != BLOCK_CALL)
        part_event(j, "response.content_part.added", b, STR(""));
}

void responses_delta(struct job *j, struct choice *c, const struct block *b, struct str text)
{
    (void)c;
    if (!b)
        return;
    struct json_writer *w = begin_item_event(j, items[b->kind].delta, b, b->kind != BLOCK_CALL);
    json_put_str(w, "delta", text);
    if (b->kind == BLOCK_TEXT)
        put_logprobs(w, str_from(buf_str(&b->logprobs), b->logprobs_new));
    end_event(j);
}

void responses_close(struct job *j, struct choice *c, const struct block *b)
{
    (void)c;
    struct json_writer *w = begin_item_event(j, items[b->kind].done, b, b->kind != BLOCK_CALL);
    if (b->kind == BLOCK_CALL)
        json_put_str(w, "name", b->name);
    json_put_str(w, items[b->kind].text_key, buf_str(&b->text));
    if (b->kind == BLOCK_TEXT)
        put_logprobs(w, buf_str(&b->logprobs));
    end_event(j);
    if (b->kind != BLOCK_CALL)
        part_event(j, "response.content_part.done", b, buf_str(&b->text));
    item_event(j, "response.output_item.done", b, true);
}

void responses_end(struct job *j)
{
    bool cut = j->choices[0].end.finish == FINISH_LENGTH;
    response_event(j, cut ? "response.incomplete" : "response.completed", NULL);
    responses_keep(j, NULL);
}

void responses_fail(struct job *j, const struct refusal *why)
{
    response_event(j, "response.failed", why);
}

/* Comments do not reset the idle timers of its clients: an event does. */
void responses_ping(struct job *j)
{
    response_event(j, "response.in_progress", NULL);
}
