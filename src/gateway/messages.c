/* OpenAI's messages, checked and written in the form that templates read. */
#include "gateway/fields.h"

#include <stdio.h>

static bool bad_message(struct parse *p, size_t index, const char *field, const char *expected)
{
    char param[ASK_PARAM_MAX];
    snprintf(param, sizeof param, "messages[%zu]%s%s", index, *field ? "." : "", field);
    return refuse(p->why, 400, "invalid_value", param, "%s: expected %s", param, expected);
}

/* [{"type": "text", "text": ...}, ...] becomes one string. */
static bool write_parts(struct parse *p, struct json_writer *w, size_t index, const struct json *parts)
{
    struct buf text = {0};
    bool good = true;
    JSON_EACH (part, parts) {
        const struct json *words = json_get(part, "text");
        good = good && str_is(json_str(json_get(part, "type")), "text") && json_is(words, JSON_STRING);
        if (good)
            buf_append_str(&text, json_str(words));
    }
    if (good)
        json_write_str(w, buf_str(&text));
    good = text.failed ? field_no_memory(p)
                       : good || bad_message(p, index, "content", "text: this model takes no other parts");
    buf_free(&text);
    return good;
}

static bool write_content(struct parse *p, struct json_writer *w, size_t index, const struct json *message)
{
    const struct json *content = json_get(message, "content");
    bool has_calls = json_count(json_get(message, "tool_calls")) > 0;
    json_key(w, "content");
    if (json_is(content, JSON_ARRAY))
        return write_parts(p, w, index, content);
    if (json_is(content, JSON_STRING))
        json_write_str(w, json_str(content));
    else if (json_type(content) == JSON_NULL && has_calls)
        json_write_null(w);
    else
        return bad_message(p, index, "content", "a string or an array of text parts");
    return true;
}

static bool write_message(struct parse *p, struct json_writer *w, size_t index, const struct json *m)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    static const char *const passed[] = {"name", "tool_calls", "tool_call_id", "reasoning_content"};
    struct str role = json_str(json_get(m, "role"));
    bool known = false;
    for (size_t i = 0; role.ptr && i < sizeof roles / sizeof *roles; i++)
        known |= str_is(role, roles[i]);
    if (!known)
        return bad_message(p, index, json_is(m, JSON_OBJECT) ? "role" : "",
                           json_is(m, JSON_OBJECT) ? "system, developer, user, assistant or tool" : "an object");
    json_begin_object(w);
    json_put_str(w, "role",
                 str_is(role, "developer") ? STR("system") : role); /* the same rank; templates know one name */
    if (!write_content(p, w, index, m))
        return false;
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        if (json_type(json_get(m, passed[i])) != JSON_NULL) {
            json_key(w, passed[i]);
            json_write_value(w, json_get(m, passed[i]));
        }
    json_end_object(w);
    return true;
}

/* Written anew in the one form templates read, then parsed again: a template never sees what it does not expect. */
bool messages_take(struct parse *p, struct buf *text)
{
    return field_parse(p, text, &p->out->messages);
}

bool read_messages(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_ARRAY) || json_count(v) == 0)
        return field_wrong_type(p, name, "an array with at least one message");
    struct buf text = {0};
    struct json_writer w;
    size_t index = 0;
    bool good = true;
    json_writer_init(&w, &text);
    json_begin_array(&w);
    JSON_EACH (message, v)
        good = good && write_message(p, &w, index++, message);
    json_end_array(&w);
    if (good)
        return messages_take(p, &text);
    buf_free(&text);
    return false;
}
