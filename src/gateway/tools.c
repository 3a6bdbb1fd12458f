/* Which functions a model may call, and whether it must. */
#include "gateway/fields.h"

#include <stdio.h>

enum { TOOLS_MAX = 1024, NAME_MAX_CHARS = 128 };

static bool good_name(struct str name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i], low = (char)(c | 32);
        if (!(low >= 'a' && low <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '-' && c != '.' && c != ':')
            return false;
    }
    return name.len > 0 && name.len <= NAME_MAX_CHARS;
}

static bool check_tool(struct parse *p, const char *name, size_t index, const struct json *tool)
{
    char param[ASK_PARAM_MAX];
    const struct json *f = json_get(tool, "function"), *schema = json_get(f, "parameters");
    snprintf(param, sizeof param, "%s[%zu]", name, index);
    if (!str_is(json_str(json_get(tool, "type")), "function"))
        return refuse(p->why, 400, "unsupported_value", param, "%s.type: only \"function\" is offered", param);
    if (!good_name(json_str(json_get(f, "name"))))
        return refuse(p->why, 400, "invalid_value", param,
                      "%s.function.name: expected 1 to %d of letters, digits, _, -, . and :", param, NAME_MAX_CHARS);
    if (json_type(schema) != JSON_NULL && !json_is(schema, JSON_OBJECT))
        return refuse(p->why, 400, "invalid_type", param, "%s.function.parameters: expected a JSON Schema object",
                      param);
    return true;
}

bool read_tools(struct parse *p, const char *name, const struct json *v)
{
    size_t index = 0;
    if (!json_is(v, JSON_ARRAY) || json_count(v) > TOOLS_MAX)
        return field_wrong_type(p, name, "an array of at most 1024 tools");
    JSON_EACH (tool, v)
        if (!check_tool(p, name, index++, tool))
            return false;
    p->out->tools = json_count(v) ? v : NULL;
    return true;
}

bool read_tool_choice(struct parse *p, const char *name, const struct json *v)
{
    static const struct {
        const char *word;
        enum tool_choice choice;
    } words[] = {{"auto", TOOLS_AUTO}, {"none", TOOLS_NONE}, {"required", TOOLS_REQUIRED}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_is(json_str(v), words[i].word)) {
            p->out->tool_choice = words[i].choice;
            return true;
        }
    p->out->tool_choice = TOOLS_NAMED; /* chat nests the name, responses do not */
    p->out->tool_name = json_str(json_get(json_get(v, "function"), "name"));
    if (!p->out->tool_name.ptr)
        p->out->tool_name = json_str(json_get(v, "name"));
    if (p->out->tool_name.ptr && str_is(json_str(json_get(v, "type")), "function"))
        return true;
    return refuse(p->why, 400, "invalid_value", name, "%s: expected none, auto, required or a function's name", name);
}

bool read_parallel(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_TRUE) && !json_is(v, JSON_FALSE))
        return field_wrong_type(p, name, "true or false");
    p->out->one_call = json_is(v, JSON_FALSE);
    return true;
}

static bool has_tool(const struct ask *a)
{
    JSON_EACH (tool, a->tools)
        if (str_eq(json_str(json_get(json_get(tool, "function"), "name")), a->tool_name))
            return true;
    return false;
}

bool tools_check(struct parse *p)
{
    struct ask *a = p->out;
    if (a->tool_choice == TOOLS_NONE)
        a->tools = NULL;
    if (a->tool_choice >= TOOLS_REQUIRED && !a->tools)
        return refuse(p->why, 400, "invalid_value", "tool_choice", "tool_choice: only with tools");
    if (a->tool_choice == TOOLS_NAMED && !has_tool(a))
        return refuse(p->why, 400, "invalid_value", "tool_choice", "tool_choice: no tool is called %.*s",
                      STR_ARG(a->tool_name));
    if (!a->tools)
        return true;
    if (!p->voice->takes_tools)
        return refuse(p->why, 400, "unsupported_value", "tools", "tools: the chat template of %s takes none",
                      p->bundle->id);
    if (p->voice->format == &speech_plain && a->kind == ASK_CHAT)
        return refuse(p->why, 400, "unsupported_value", "tools",
                      "tools: how %s writes calls is not known from its template; --tool-format names it",
                      p->bundle->id);
    return true;
}

/* ---- tools of other protocols ---- */

void tools_begin(struct tools_writer *t)
{
    t->text = (struct buf){0};
    t->bad_type = (struct str){NULL, 0};
    json_writer_init(&t->w, &t->text);
    json_begin_array(&t->w);
}

static void put_member(struct json_writer *w, const char *key, const struct json *v)
{
    if (json_type(v) == JSON_NULL)
        return;
    json_key(w, key);
    json_write_value(w, v);
}

void tools_put(struct tools_writer *t, const struct json *tool, const char *schema_key)
{
    json_begin_object(&t->w);
    json_put_str(&t->w, "type", STR("function"));
    json_key(&t->w, "function");
    json_begin_object(&t->w);
    put_member(&t->w, "name", json_get(tool, "name"));
    put_member(&t->w, "description", json_get(tool, "description"));
    put_member(&t->w, "parameters", json_get(tool, schema_key));
    put_member(&t->w, "strict", json_get(tool, "strict"));
    json_end_object(&t->w);
    json_end_object(&t->w);
}

bool tools_take(struct tools_writer *t, struct parse *p, const char *name)
{
    const struct json *doc;
    json_end_array(&t->w);
    bool good = field_parse(p, &t->text, &doc);
    if (t->bad_type.ptr)
        return refuse(p->why, 400, "unsupported_value", name, "%s: tools of type \"%.*s\" are not offered", name,
                      STR_ARG(t->bad_type));
    return good && read_tools(p, name, doc);
}
