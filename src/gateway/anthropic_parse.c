/* Anthropic's messages and count_tokens, as rows. Source: Anthropic's API reference, Messages, version 2023-06-01. */
#include "gateway/private.h"

#include <limits.h>
#include <stdio.h>

static bool is_type(const struct json *block, const char *type)
{
    return str_is(json_str(json_get(block, "type")), type);
}

static bool bad_block(struct parse *p, const char *name, const struct json *block, const char *expected)
{
    struct str type = json_str(json_get(block, "type"));
    return refuse(p->why, 400, "unsupported_value", name, "%s: a block of type \"%.*s\"; expected %s", name,
                  STR_ARG(type.ptr ? type : STR("?")), expected);
}

/* What of a block is text, on a line of its own: a text, or a plain text document, whose title and context are for the
 * model to read, too. False: it is neither. */
static bool put_text(struct buf *out, const struct json *block)
{
    const struct json *source = json_get(block, "source");
    bool document = is_type(block, "document") && is_type(source, "text");
    struct str text = {NULL, 0};
    if (document)
        text = json_str(json_get(source, "data"));
    else if (is_type(block, "text"))
        text = json_str(json_get(block, "text"));
    const struct str lines[] = {json_str(json_get(block, "title")), json_str(json_get(block, "context")), text};
    if (!text.ptr)
        return false;
    for (size_t i = document ? 0 : 2; i < 3; i++) {
        if (!lines[i].len && i < 2)
            continue;
        if (out->len)
            buf_append_char(out, '\n');
        buf_append_str(out, lines[i]);
    }
    return true;
}

/* A string, or blocks of text joined by newlines. */
static bool join_text(struct parse *p, const char *name, const struct json *v, struct buf *out)
{
    if (json_is(v, JSON_STRING)) {
        buf_append_str(out, json_str(v));
        return true;
    }
    if (json_type(v) != JSON_NULL && !json_is(v, JSON_ARRAY))
        return field_wrong_type(p, name, "a string or an array of blocks");
    JSON_EACH (block, v)
        if (!put_text(out, block))
            return bad_block(p, name, block, "text, or a document of plain text");
    return true;
}

static void put_message(struct json_writer *w, const char *role, struct str content)
{
    json_begin_object(w);
    json_put_str(w, "role", str_of(role));
    json_put_str(w, "content", content);
    json_end_object(w);
}

static bool put_result(struct parse *p, const char *name, struct json_writer *w, const struct json *block)
{
    struct buf text = {0};
    struct str id = json_str(json_get(block, "tool_use_id"));
    bool good = join_text(p, name, json_get(block, "content"), &text);
    if (good && !id.ptr)
        good = refuse(p->why, 400, "invalid_value", name, "%s: a tool_result without tool_use_id", name);
    json_begin_object(w);
    json_put_str(w, "role", STR("tool"));
    json_put_str(w, "tool_call_id", id);
    json_put_str(w, "content", buf_str(&text));
    json_end_object(w);
    w->out->failed |= text.failed;
    buf_free(&text);
    return good;
}

/* Results of tools become messages of their own, in their order; texts between them one message each. */
static bool put_user(struct parse *p, const char *name, struct json_writer *w, const struct json *content)
{
    struct buf text = {0};
    bool good = true, any = false;
    JSON_EACH (block, content) {
        bool result = is_type(block, "tool_result");
        if (result && any) {
            put_message(w, "user", buf_str(&text));
            buf_clear(&text);
            any = false;
        }
        if (!good)
            break;
        if (result)
            good = put_result(p, name, w, block);
        else if (put_text(&text, block))
            any = true;
        else
            good = bad_block(p, name, block,
                             "text, a document of plain text, or tool_result: this model takes no other parts");
    }
    if (any || json_count(content) == 0)
        put_message(w, "user", buf_str(&text));
    w->out->failed |= text.failed;
    buf_free(&text);
    return good;
}

static void put_calls(struct json_writer *w, const struct json *content)
{
    json_key(w, "tool_calls");
    json_begin_array(w);
    JSON_EACH (block, content)
        if (is_type(block, "tool_use")) {
            json_begin_object(w);
            json_put_str(w, "id", json_str(json_get(block, "id")));
            json_put_str(w, "type", STR("function"));
            json_key(w, "function");
            json_begin_object(w);
            json_put_str(w, "name", json_str(json_get(block, "name")));
            json_key(w, "arguments");
            json_write_value(w, json_get(block, "input"));
            json_end_object(w);
            json_end_object(w);
        }
    json_end_array(w);
}

static bool put_assistant(struct parse *p, const char *name, struct json_writer *w, const struct json *content)
{
    struct buf text = {0}, reason = {0};
    bool good = true, calls = false;
    JSON_EACH (block, content) {
        struct str words = json_str(json_get(block, "text")), thought = json_str(json_get(block, "thinking"));
        if (is_type(block, "text") && words.ptr)
            buf_append_str(&text, words);
        else if (is_type(block, "thinking") && thought.ptr)
            buf_append_str(&reason, thought);
        else if (is_type(block, "tool_use") && json_is(json_get(block, "input"), JSON_OBJECT) &&
                 json_is(json_get(block, "name"), JSON_STRING) && json_is(json_get(block, "id"), JSON_STRING))
            calls = true;
        else if (!is_type(block, "redacted_thinking"))
            good = good && bad_block(p, name, block, "text, thinking, or tool_use with id, name and input");
    }
    json_begin_object(w);
    json_put_str(w, "role", STR("assistant"));
    json_put_str(w, "content", buf_str(&text));
    if (reason.len)
        json_put_str(w, "reasoning_content", buf_str(&reason));
    if (calls)
        put_calls(w, content);
    json_end_object(w);
    w->out->failed |= text.failed | reason.failed;
    buf_free(&text);
    buf_free(&reason);
    return good;
}

static bool put_system(struct parse *p, struct json_writer *w, const char *name, const struct json *content)
{
    struct buf text = {0};
    bool good = join_text(p, name, content, &text);
    if (good && text.len)
        put_message(w, "system", buf_str(&text));
    w->out->failed |= text.failed;
    buf_free(&text);
    return good;
}

static bool put_one(struct parse *p, struct json_writer *w, const struct json *m, size_t index, bool last)
{
    char name[ASK_PARAM_MAX];
    struct str role = json_str(json_get(m, "role"));
    const struct json *content = json_get(m, "content");
    bool user = str_is(role, "user"), assistant = str_is(role, "assistant"), system = str_is(role, "system");
    snprintf(name, sizeof name, "messages[%zu]", index);
    if (!user && !assistant && !system)
        return refuse(p->why, 400, "invalid_value", name, "%s.role: expected user, assistant or system", name);
    if (system)
        return put_system(p, w, name, content);
    if (assistant && last)
        return refuse(p->why, 400, "unsupported_value", name,
                      "%s: the last message must be the user's: continuing the assistant's is not offered", name);
    if (json_is(content, JSON_STRING)) {
        put_message(w, user ? "user" : "assistant", json_str(content));
        return true;
    }
    if (!json_is(content, JSON_ARRAY))
        return refuse(p->why, 400, "invalid_value", name, "%s.content: expected a string or an array of blocks", name);
    return user ? put_user(p, name, w, content) : put_assistant(p, name, w, content);
}

static bool read_conversation(struct parse *p, const char *name, const struct json *v)
{
    struct buf text = {0};
    struct json_writer w;
    size_t index = 0, count = json_count(v);
    if (!json_is(v, JSON_ARRAY) || count == 0)
        return field_wrong_type(p, name, "an array with at least one message");
    json_writer_init(&w, &text);
    json_begin_array(&w);
    bool good = put_system(p, &w, "system", json_get(p->body, "system"));
    JSON_EACH (m, v) {
        good = good && put_one(p, &w, m, index, index + 1 == count);
        index++;
    }
    json_end_array(&w);
    if (good)
        return messages_take(p, &text);
    buf_free(&text);
    return false;
}

/* {"name", "description", "input_schema"} as OpenAI writes it, then read like that. */
static bool read_own_tools(struct parse *p, const char *name, const struct json *v)
{
    struct tools_writer t;
    if (!json_is(v, JSON_ARRAY))
        return field_wrong_type(p, name, "an array of tools");
    tools_begin(&t);
    JSON_EACH (tool, v) {
        const struct json *type = json_get(tool, "type");
        if (json_type(type) != JSON_NULL && !str_is(json_str(type), "custom"))
            t.bad_type = t.bad_type.ptr ? t.bad_type : json_str(type).ptr ? json_str(type) : STR("?");
        tools_put(&t, tool, "input_schema");
    }
    return tools_take(&t, p, name);
}

static bool read_choice(struct parse *p, const char *name, const struct json *v)
{
    static const struct {
        const char *word;
        enum tool_choice choice;
    } words[] = {{"auto", TOOLS_AUTO}, {"none", TOOLS_NONE}, {"any", TOOLS_REQUIRED}, {"tool", TOOLS_NAMED}};
    p->out->tool_name = json_str(json_get(v, "name"));
    p->out->one_call = json_bool(json_get(v, "disable_parallel_tool_use"), false);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (is_type(v, words[i].word)) {
            p->out->tool_choice = words[i].choice;
            return true;
        }
    return refuse(p->why, 400, "invalid_value", name, "%s.type: expected auto, any, tool or none", name);
}

static bool read_thinking(struct parse *p, const char *name, const struct json *v)
{
    p->out->hides_reasoning = str_is(json_str(json_get(v, "display")), "omitted");
    if (is_type(v, "enabled") || is_type(v, "adaptive") || is_type(v, "between_tools"))
        p->out->thinking = THINKING_ON;
    else if (is_type(v, "disabled"))
        p->out->thinking = THINKING_OFF;
    else
        return refuse(p->why, 400, "invalid_value", name,
                      "%s.type: expected enabled, adaptive, between_tools or disabled", name);
    return true;
}

static bool read_output(struct parse *p, const char *name, const struct json *v)
{
    (void)name;
    JSON_EACH_MEMBER (key, value, v) {
        if (str_is(key, "effort") && json_is(value, JSON_STRING))
            p->out->effort = json_str(value);
        else if (str_is(key, "format") && json_type(value) != JSON_NULL) {
            if (!read_response_format(p, "output_config.format", value))
                return false;
        } else if (json_type(value) != JSON_NULL)
            return refuse(p->why, 400, "unsupported_parameter", "output_config",
                          "output_config.%.*s: this is not offered here", STR_ARG(key));
    }
    return true;
}

static const struct field rows[] = {
    WORDS("model", ASK_ANY, model),
    SHAPED("messages", ASK_ANY, read_conversation),
    SHAPED("tools", ASK_ANY, read_own_tools),
    SHAPED("tool_choice", ASK_ANY, read_choice),
    SHAPED("thinking", ASK_ANY, read_thinking),
    SHAPED("output_config", ASK_ANY, read_output),
    NUMBER("max_tokens", ASK_CHAT, READ_INT, sampling.max_tokens, 1, INT_MAX),
    NUMBER("temperature", ASK_CHAT, READ_REAL, sampling.temperature, 0, 2),
    NUMBER("top_p", ASK_CHAT, READ_REAL, sampling.top_p, 0, 1),
    NUMBER("top_k", ASK_CHAT, READ_INT, sampling.top_k, -1, INT_MAX),
    SHAPED("stop_sequences", ASK_CHAT, read_stop),
    SWITCH("stream", ASK_CHAT, stream),
    IGNORED("system", ASK_ANY), /* read with the messages */
    IGNORED("metadata", ASK_ANY),
    IGNORED("service_tier", ASK_ANY),
    IGNORED("cache_control", ASK_ANY),
    IGNORED("context_management", ASK_ANY),
    IGNORED("inference_geo", ASK_ANY),
    IGNORED("speed", ASK_ANY),
    IGNORED("diagnostics", ASK_ANY),
    IGNORED("user_profile_id", ASK_ANY),
    IGNORED("workspace_id", ASK_ANY),
    REFUSED("mcp_servers", ASK_ANY, "[]"),
    REFUSED("container", ASK_ANY, ""),
};

static bool check(struct parse *p)
{
    struct ask *a = p->out;
    if (!a->messages)
        return refuse(p->why, 400, "missing_required_parameter", "messages", "messages: field required");
    if (a->kind == ASK_CHAT && a->sampling.max_tokens == 0)
        return refuse(p->why, 400, "missing_required_parameter", "max_tokens", "max_tokens: field required");
    return true;
}

const struct protocol anthropic_messages = {
    .path = "/v1/messages",
    .id_prefix = "msg_",
    .call_prefix = "toolu_",
    .kind = ASK_CHAT,
    .wire = &wire_sse,
    .fields = {rows, sizeof rows / sizeof *rows},
    .check = check,
    .begin = anthropic_begin,
    .open = anthropic_open,
    .delta = anthropic_delta,
    .close = anthropic_close,
    .end = anthropic_end,
    .refuse = anthropic_fail,
    .ping = anthropic_ping,
    .answer = anthropic_answer,
};
const struct protocol anthropic_count = {
    .path = "/v1/messages/count_tokens",
    .kind = ASK_TOKENIZE,
    .fields = {rows, sizeof rows / sizeof *rows},
    .check = check,
    .answer = anthropic_answer_count,
};
