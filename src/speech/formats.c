/* The formats, as rows. Sources: the chat templates of Qwen 2.5, Qwen3 and Hermes; Qwen3-Coder; Llama 3.1-3.3 (JSON,
 * and the pythonic form of Meta's prompt guide); Mistral Nemo to Ministral 3; DeepSeek V3, R1, V3.1; gpt-oss.
 */
#include "speech/private.h"

#define DS_CALLS_BEGIN                                                                                                 \
    "<\xEF\xBD\x9Ctool\xE2\x96\x81"                                                                                    \
    "calls\xE2\x96\x81"                                                                                                \
    "begin\xEF\xBD\x9C>"
#define DS_CALLS_END                                                                                                   \
    "<\xEF\xBD\x9Ctool\xE2\x96\x81"                                                                                    \
    "calls\xE2\x96\x81"                                                                                                \
    "end\xEF\xBD\x9C>"
#define DS_CALL_BEGIN                                                                                                  \
    "<\xEF\xBD\x9Ctool\xE2\x96\x81"                                                                                    \
    "call\xE2\x96\x81"                                                                                                 \
    "begin\xEF\xBD\x9C>"
#define DS_CALL_END                                                                                                    \
    "<\xEF\xBD\x9Ctool\xE2\x96\x81"                                                                                    \
    "call\xE2\x96\x81"                                                                                                 \
    "end\xEF\xBD\x9C>"

const struct speech_format speech_plain = {.name = "plain"};
static const struct speech_format formats[] = {
    /* in the order of detection */
    {.name = "plain", .signs = {"<arg_key>", "DSML"}}, /* GLM, DeepSeek V3.2: known by sight only */
    {.name = "harmony",
     .flags = SPEECH_CHANNELS | SPEECH_NAMED,
     .after = {"<|call|>", "<|end|>", "<|return|>"},
     .signs = {"<|channel|>"}},
    {.name = "qwen-xml",
     .flags = SPEECH_XML,
     .open = {"<tool_call>"},
     .after = {"</tool_call>"},
     .signs = {"<function="}},
    {.name = "hermes", .open = {"<tool_call>"}, .after = {"</tool_call>"}, .signs = {"<tool_call>"}},
    {.name = "mistral", .flags = SPEECH_NAMED, .id_chars = 9, .open = {"[TOOL_CALLS]"}, .signs = {"[TOOL_CALLS]"}},
    {.name = "deepseek",
     .flags = SPEECH_NAMED,
     .open = {DS_CALLS_BEGIN, DS_CALL_BEGIN},
     .after = {"```", DS_CALL_END, DS_CALLS_END},
     .signs = {DS_CALL_BEGIN}},
    {.name = "llama",
     .flags = SPEECH_BARE | SPEECH_PYTHON,
     .open = {"<|python_tag|>"},
     .signs = {"<|python_tag|>", "{\"name\": function name, \"parameters\"", "[func_name1(params_name1="}},
};
enum { N_FORMAT = sizeof formats / sizeof *formats };

static const struct speech_think thinks[] = {{"[THINK]", "[/THINK]"}, {"<think>", "</think>"}};

const struct speech_format *speech_detect(struct str source)
{
    for (int i = 0; i < N_FORMAT; i++)
        for (int k = 0; k < SPEECH_MARKS_MAX && formats[i].signs[k]; k++)
            if (str_find(source, str_of(formats[i].signs[k]), 0) != SIZE_MAX)
                return &formats[i];
    return &speech_plain;
}

const struct speech_format *speech_find(struct str name)
{
    for (int i = 0; i < N_FORMAT; i++)
        if (str_is(name, formats[i].name))
            return &formats[i];
    return str_is(name, speech_plain.name) ? &speech_plain : NULL;
}

const char *speech_names(void)
{
    return "plain, harmony, qwen-xml, hermes, mistral, deepseek, llama";
}

const struct speech_think *speech_think_detect(struct str source)
{
    for (size_t i = 0; i < sizeof thinks / sizeof *thinks; i++)
        if (str_find(source, str_of(thinks[i].close), 0) != SIZE_MAX)
            return &thinks[i];
    return NULL;
}

int speech_marks(const char *out[32], const struct speech_format *format, const struct speech_think *think)
{
    static const char *const channels[] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>",
                                           "<|call|>",  "<|end|>",     "<|return|>"};
    static const char *const inner[] = {"[ARGS]", "[CALL_ID]", "<\xEF\xBD\x9Ctool\xE2\x96\x81sep\xEF\xBD\x9C>"};
    int n = 0;
    for (int i = 0; i < SPEECH_MARKS_MAX; i++) {
        if (format->open[i])
            out[n++] = format->open[i];
        if (format->after[i] && !(format->flags & SPEECH_CHANNELS))
            out[n++] = format->after[i];
    }
    for (size_t i = 0; i < sizeof channels / sizeof *channels && format->flags & SPEECH_CHANNELS; i++)
        out[n++] = channels[i];
    for (size_t i = 0; i < sizeof inner / sizeof *inner && format->flags & SPEECH_NAMED; i++)
        out[n++] = inner[i];
    if (think)
        out[n++] = think->open, out[n++] = think->close;
    return n;
}

bool speech_prompt_thinks(const struct speech_think *think, struct str end)
{
    while (end.len && speech_space(end.ptr[end.len - 1]))
        end.len--;
    return think && str_ends(end, str_of(think->open));
}

/* ---- tools ---- */

static struct str copy(struct arena *arena, struct str s)
{
    return (struct str){arena_copy(arena, s), s.len};
}

static bool all_strings(const struct json *list)
{
    JSON_EACH (v, list)
        if (!json_is(v, JSON_STRING))
            return false;
    return json_count(list) > 0;
}

/* "string", a list of types that names nothing but it and null, or texts to choose from. */
bool speech_key_is_string(const struct json *schema)
{
    const struct json *type = json_get(schema, "type");
    bool any = false;
    if (json_is(type, JSON_STRING))
        return str_is(json_str(type), "string");
    JSON_EACH (t, type) {
        any |= str_is(json_str(t), "string");
        if (!str_is(json_str(t), "string") && !str_is(json_str(t), "null"))
            return false;
    }
    return any || (!type && all_strings(json_get(schema, "enum")));
}

static bool make_tool(struct speech_tool *out, const struct json *function, struct arena *arena)
{
    const struct json *keys = json_get(json_get(function, "parameters"), "properties");
    out->name = copy(arena, json_str(json_get(function, "name")));
    out->keys = arena_alloc_zero(arena, json_count(keys) + 1, sizeof *out->keys);
    bool good = out->name.ptr && out->keys;
    JSON_EACH_MEMBER (key, schema, keys) {
        if (!good)
            return false;
        struct speech_key *k = &out->keys[out->n_key++];
        *k = (struct speech_key){copy(arena, key), speech_key_is_string(schema)};
        good = k->name.ptr != NULL;
    }
    return good;
}

bool speech_tools_make(struct speech_tools *out, const struct json *tools, struct arena *arena)
{
    *out = (struct speech_tools){.items = arena_alloc_zero(arena, json_count(tools) + 1, sizeof *out->items)};
    if (!out->items)
        return false;
    JSON_EACH (tool, tools)
        if (!make_tool(&out->items[out->count++], json_get(tool, "function"), arena))
            return false;
    return true;
}
