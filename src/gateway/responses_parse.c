/* OpenAI's responses, as rows. Source: OpenAI's API description (responses), and its guide to WebSocket mode. */
#include "gateway/private.h"

#include <limits.h>
#include <stdio.h>

/* One assistant's message, gathered from the items that Responses splits it into. */
struct turn {
    struct buf text, reason, calls;
    bool any;
};

static void put_turn(struct json_writer *w, struct turn *t)
{
    if (!t->any)
        return;
    json_begin_object(w);
    json_put_str(w, "role", STR("assistant"));
    json_put_str(w, "content", buf_str(&t->text));
    if (t->reason.len)
        json_put_str(w, "reasoning_content", buf_str(&t->reason));
    if (t->calls.len) {
        json_key(w, "tool_calls");
        json_begin_array(w);
        json_write_raw(w, buf_str(&t->calls));
        json_end_array(w);
    }
    json_end_object(w);
    w->out->failed |= t->text.failed | t->reason.failed | t->calls.failed;
    buf_clear(&t->text);
    buf_clear(&t->reason);
    buf_clear(&t->calls);
    t->any = false;
}

static void turn_free(struct turn *t)
{
    buf_free(&t->text);
    buf_free(&t->reason);
    buf_free(&t->calls);
}

void responses_put_call(struct buf *calls, struct str id, struct str name, struct str arguments)
{
    struct json_writer w;
    if (calls->len)
        buf_append_char(calls, ',');
    json_writer_init(&w, calls);
    json_begin_object(&w);
    json_put_str(&w, "id", id);
    json_put_str(&w, "type", STR("function"));
    json_key(&w, "function");
    json_begin_object(&w);
    json_put_str(&w, "name", name);
    json_put_str(&w, "arguments", arguments);
    json_end_object(&w);
    json_end_object(&w);
}

static bool bad_item(struct parse *p, const char *name, const char *expected)
{
    return refuse(p->why, 400, "invalid_value", name, "%s: expected %s", name, expected);
}

/* A string, or parts whose texts are joined. */
static bool join_parts(struct parse *p, const char *name, const struct json *v, struct buf *out)
{
    static const char *const types[] = {"input_text",   "output_text",    "text",
                                        "summary_text", "reasoning_text", "refusal"};
    if (json_is(v, JSON_STRING)) {
        buf_append_str(out, json_str(v));
        return true;
    }
    if (json_type(v) != JSON_NULL && !json_is(v, JSON_ARRAY))
        return bad_item(p, name, "content as a string or an array of parts");
    JSON_EACH (part, v) {
        struct str type = json_str(json_get(part, "type")), text = json_str(json_get(part, "text"));
        bool known = false;
        for (size_t i = 0; i < sizeof types / sizeof *types; i++)
            known |= str_is(type, types[i]);
        text = text.ptr ? text : json_str(json_get(part, "refusal"));
        if (!known || !text.ptr)
            return bad_item(p, name, "parts of text: this model takes no others");
        buf_append_str(out, text);
    }
    return true;
}

static bool put_words(struct parse *p, const char *name, struct json_writer *w, struct turn *t, const struct json *item)
{
    static const char *const roles[] = {"user", "system", "developer"};
    struct str role = json_str(json_get(item, "role"));
    struct buf text = {0};
    if (str_is(role, "assistant")) {
        t->any = true;
        return join_parts(p, name, json_get(item, "content"), &t->text);
    }
    bool known = false, good = join_parts(p, name, json_get(item, "content"), &text);
    for (size_t i = 0; i < 3; i++)
        known |= str_is(role, roles[i]);
    put_turn(w, t);
    json_begin_object(w);
    json_put_str(w, "role", str_is(role, "developer") ? STR("system") : role);
    json_put_str(w, "content", buf_str(&text));
    json_end_object(w);
    w->out->failed |= text.failed;
    buf_free(&text);
    return good && (known || bad_item(p, name, "the role user, assistant, system or developer"));
}

static bool put_result(struct parse *p, const char *name, struct json_writer *w, struct turn *t,
                       const struct json *item)
{
    struct buf text = {0};
    bool good = join_parts(p, name, json_get(item, "output"), &text);
    put_turn(w, t);
    json_begin_object(w);
    json_put_str(w, "role", STR("tool"));
    json_put_str(w, "tool_call_id", json_str(json_get(item, "call_id")));
    json_put_str(w, "content", buf_str(&text));
    json_end_object(w);
    w->out->failed |= text.failed;
    buf_free(&text);
    return good && (json_str(json_get(item, "call_id")).ptr || bad_item(p, name, "call_id"));
}

static bool put_item(struct parse *p, const char *name, struct json_writer *w, struct turn *t, const struct json *item)
{
    struct str type = json_str(json_get(item, "type"));
    if (str_is(type, "message") || (!type.ptr && json_get(item, "role")))
        return put_words(p, name, w, t, item);
    if (str_is(type, "function_call_output"))
        return put_result(p, name, w, t, item);
    t->any = true;
    if (str_is(type, "reasoning"))
        return join_parts(p, name, json_get(item, json_count(json_get(item, "content")) ? "content" : "summary"),
                          &t->reason);
    struct str id = json_str(json_get(item, "call_id")), fn = json_str(json_get(item, "name")),
               arguments = json_str(json_get(item, "arguments"));
    if (!str_is(type, "function_call") || !id.ptr || !fn.ptr || !arguments.ptr)
        return bad_item(p, name,
                        "a message, reasoning, function_call (call_id, name, arguments) or function_call_output");
    responses_put_call(&t->calls, id, fn, arguments);
    return true;
}

static bool put_input(struct parse *p, struct json_writer *w, const struct json *v)
{
    struct turn turn = {0};
    size_t index = 0;
    bool good = true;
    if (json_is(v, JSON_STRING)) {
        json_begin_object(w);
        json_put_str(w, "role", STR("user"));
        json_put_str(w, "content", json_str(v));
        json_end_object(w);
        return true;
    }
    JSON_EACH (item, v) {
        char name[ASK_PARAM_MAX];
        snprintf(name, sizeof name, "input[%zu]", index++);
        good = good && put_item(p, name, w, &turn, item);
    }
    put_turn(w, &turn);
    turn_free(&turn);
    return good;
}

/* What came before (of a stored response) and what comes now, as the messages' text without its brackets. */
static bool make_conversation(struct parse *p, struct buf *out)
{
    struct str previous = json_str(json_get(p->body, "previous_response_id"));
    struct json_writer w;
    struct buf now = {0};
    if (previous.len && !store_conversation(p->store, p->tenant, previous, out))
        return out->failed ? field_no_memory(p)
                           : refuse(p->why, 404, "previous_response_not_found", "previous_response_id",
                                    "previous_response_id: no response %.*s is kept here", STR_ARG(previous));
    json_writer_init(&w, &now);
    json_begin_array(&w);
    bool good = put_input(p, &w, json_get(p->body, "input"));
    json_end_array(&w);
    if (good && now.len > 2) {
        if (out->len)
            buf_append_char(out, ',');
        buf_append(out, now.ptr + 1, now.len - 2);
    }
    out->failed |= now.failed;
    buf_free(&now);
    return good;
}

static bool make_messages(struct parse *p)
{
    struct str instructions = json_str(json_get(p->body, "instructions"));
    struct buf talk = {0}, text = {0};
    struct json_writer w;
    bool good = make_conversation(p, &talk);
    if (good && talk.len == 0 && !talk.failed)
        good = refuse(p->why, 400, "invalid_value", "input", "input: expected a string or at least one item");
    json_writer_init(&w, &text);
    json_begin_array(&w);
    if (instructions.len) {
        json_begin_object(&w);
        json_put_str(&w, "role", STR("system"));
        json_put_str(&w, "content", instructions);
        json_end_object(&w);
    }
    if (good)
        json_write_raw(&w, buf_str(&talk));
    json_end_array(&w);
    p->out->conversation = str_n(arena_copy(p->arena, buf_str(&talk)), talk.len);
    text.failed |= talk.failed | !p->out->conversation.ptr;
    buf_free(&talk);
    if (good)
        return messages_take(p, &text);
    buf_free(&text);
    return false;
}

/* ---- fields ---- */

static bool read_input(struct parse *p, const char *name, const struct json *v)
{
    return json_is(v, JSON_STRING) || json_is(v, JSON_ARRAY) ||
           field_wrong_type(p, name, "a string or an array of items");
}

static bool read_words(struct parse *p, const char *name, const struct json *v)
{
    return json_is(v, JSON_STRING) || field_wrong_type(p, name, "a string");
}

static bool read_flat_tools(struct parse *p, const char *name, const struct json *v)
{
    struct tools_writer t;
    if (!json_is(v, JSON_ARRAY))
        return field_wrong_type(p, name, "an array of tools");
    tools_begin(&t);
    JSON_EACH (tool, v) {
        struct str type = json_str(json_get(tool, "type"));
        if (!str_is(type, "function"))
            t.bad_type = type.ptr ? type : STR("?");
        tools_put(&t, tool, "parameters");
    }
    return tools_take(&t, p, name);
}

static bool read_reasoning(struct parse *p, const char *name, const struct json *v)
{
    const struct json *effort = json_get(v, "effort");
    (void)name; /* a summary is not made: the reasoning itself is told */
    return json_type(effort) == JSON_NULL || read_effort(p, "reasoning.effort", effort);
}

static bool read_text(struct parse *p, const char *name, const struct json *v)
{
    const struct json *format = json_get(v, "format");
    (void)name;
    return json_type(format) == JSON_NULL || read_response_format(p, "text.format", format);
}

static bool read_include(struct parse *p, const char *name, const struct json *v)
{
    static const char *const absent[] = {"file_search_call.results",
                                         "web_search_call.results",
                                         "web_search_call.action.sources",
                                         "message.input_image.image_url",
                                         "computer_call_output.output.image_url",
                                         "code_interpreter_call.outputs",
                                         "reasoning.encrypted_content"}; /* nothing of them is ever in an answer */
    int *n = &p->out->sampling.n_logprobs;
    if (!json_is(v, JSON_ARRAY))
        return field_wrong_type(p, name, "an array of strings");
    JSON_EACH (item, v) {
        bool known = str_is(json_str(item), "message.output_text.logprobs");
        if (known && *n < 0)
            *n = 0;
        for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
            known |= str_is(json_str(item), absent[i]);
        if (!known)
            return refuse(p->why, 400, "invalid_value", name, "%s: %.*s is not known", name, STR_ARG(json_str(item)));
    }
    return true;
}

static bool read_top(struct parse *p, const char *name, const struct json *v)
{
    int n = 0;
    if (!read_top_count(p, name, v, &n))
        return false;
    if (n > 0 && n > p->out->sampling.n_logprobs)
        p->out->sampling.n_logprobs = n;
    return true;
}

static const struct field rows[] = {
    WORDS("model", ASK_ANY, model),
    SHAPED("input", ASK_ANY, read_input),
    SHAPED("instructions", ASK_ANY, read_words),
    SHAPED("previous_response_id", ASK_ANY, read_words),
    SHAPED("tools", ASK_ANY, read_flat_tools),
    SHAPED("tool_choice", ASK_ANY, read_tool_choice),
    SHAPED("parallel_tool_calls", ASK_ANY, read_parallel),
    SHAPED("reasoning", ASK_ANY, read_reasoning),
    SHAPED("text", ASK_ANY, read_text),
    SHAPED("chat_template_kwargs", ASK_ANY, read_template_kwargs),
    SWITCH("store", ASK_ANY, store),
    SWITCH("stream", ASK_ANY, stream),
    NUMBER("max_output_tokens", ASK_ANY, READ_INT, sampling.max_tokens, 1, INT_MAX),
    NUMBER("temperature", ASK_ANY, READ_REAL, sampling.temperature, 0, 2),
    NUMBER("top_p", ASK_ANY, READ_REAL, sampling.top_p, 0, 1),
    NUMBER("top_k", ASK_ANY, READ_INT, sampling.top_k, -1, INT_MAX),
    NUMBER("min_p", ASK_ANY, READ_REAL, sampling.min_p, 0, 1),
    NUMBER("repetition_penalty", ASK_ANY, READ_REAL, sampling.repetition_penalty, 0.01, 100),
    SHAPED("seed", ASK_ANY, read_seed),
    SHAPED("stop", ASK_ANY, read_stop),
    WORDS("cache_salt", ASK_ANY, cache_salt),
    IGNORED("type", ASK_ANY), /* response.create, over a WebSocket */
    SHAPED("include", ASK_ANY, read_include),
    SHAPED("top_logprobs", ASK_ANY, read_top),
    SWITCH("background", ASK_ANY, background),
    IGNORED("metadata", ASK_ANY),
    IGNORED("client_metadata", ASK_ANY),
    IGNORED("user", ASK_ANY),
    IGNORED("service_tier", ASK_ANY),
    IGNORED("safety_identifier", ASK_ANY),
    IGNORED("prompt_cache_key", ASK_ANY),
    IGNORED("prompt_cache_retention", ASK_ANY),
    IGNORED("prompt_cache_options", ASK_ANY),
    IGNORED("stream_options", ASK_ANY),
    IGNORED("max_tool_calls", ASK_ANY), /* of tools that run on the server: there are none */
    REFUSED("truncation", ASK_ANY, "\"disabled\""),
    REFUSED("generate", ASK_ANY, "true"),
    REFUSED("conversation", ASK_ANY, ""),
    REFUSED("moderation", ASK_ANY, ""),
    REFUSED("prompt", ASK_ANY, ""),
    REFUSED("context_management", ASK_ANY, "[]"),
};

static void keeps(struct ask *a)
{
    a->store = true;
}

/* Of the request, what the answer repeats. */
static bool make_echo(struct parse *p)
{
    static const struct {
        const char *key, *otherwise;
    } members[] = {{"instructions", "null"},
                   {"max_output_tokens", "null"},
                   {"metadata", "{}"},
                   {"parallel_tool_calls", "true"},
                   {"previous_response_id", "null"},
                   {"reasoning", "{\"effort\":null,\"summary\":null}"},
                   {"service_tier", "\"default\""},
                   {"text", "{\"format\":{\"type\":\"text\"}}"},
                   {"tool_choice", "\"auto\""},
                   {"tools", "[]"},
                   {"truncation", "\"disabled\""},
                   {"user", "null"}};
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    json_begin_object(&w);
    json_put_bool(&w, "background", p->out->background);
    json_put_bool(&w, "store", p->out->store);
    json_put_real(&w, "temperature", (double)p->out->sampling.temperature);
    json_put_real(&w, "top_p", (double)p->out->sampling.top_p);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const struct json *v = json_get(p->body, members[i].key);
        json_key(&w, members[i].key);
        if (json_type(v) == JSON_NULL)
            json_write_raw(&w, str_of(members[i].otherwise));
        else
            json_write_value(&w, v);
    }
    json_end_object(&w);
    if (!text.failed) /* without its braces */
        p->out->repeated = str_n(arena_copy(p->arena, str_n(text.ptr + 1, text.len - 2)), text.len - 2);
    buf_free(&text);
    return p->out->repeated.ptr || field_no_memory(p);
}

static bool check(struct parse *p)
{
    const struct ask *a = p->out;
    if (a->background && (!a->store || p->streams))
        return refuse(p->why, 400, "invalid_value", "background", "background: %s",
                      a->store ? "not over a WebSocket" : "only with \"store\": true, or nobody could read it");
    return make_messages(p) && make_echo(p);
}

const struct protocol openai_responses = {
    .path = "/v1/responses",
    .id_prefix = "resp_",
    .kind = ASK_CHAT,
    .flags = PROTOCOL_KEEPS | PROTOCOL_OWN_LOGPROBS,
    .wire = &wire_sse,
    .fields = {rows, sizeof rows / sizeof *rows},
    .defaults = keeps,
    .check = check,
    .begin = responses_begin,
    .open = responses_open,
    .delta = responses_delta,
    .close = responses_close,
    .end = responses_end,
    .refuse = responses_fail,
    .ping = responses_ping,
    .answer = responses_answer,
};
