/* Calls that must be made, or must keep to a schema: tool_choice and strict, as shapes of the answer. */
#include "gateway/fields.h"

/* How a format writes calls, in pieces: begin, then calls of open name middle arguments close, apart by between, end.
 */
static const struct style {
    const char *format, *sign; /* sign: in the template, where a format has several styles */
    const char *begin, *open, *middle, *close, *between, *end;
    const char *trigger; /* after which nothing but a call may come; NULL: a call has no marker */
    bool one;            /* at most one call an answer */
} styles[] = {
    {"hermes", NULL, "", "<tool_call>\n{\"name\": \"", "\", \"arguments\": ", "}\n</tool_call>", "\n", "",
     "<tool_call>", false},
    {"mistral", "[ARGS]", "", "[TOOL_CALLS]", "[ARGS]", "", "", "", "[TOOL_CALLS]", false},
    {"mistral", NULL, "[TOOL_CALLS][", "{\"name\": \"", "\", \"arguments\": ", "}", ", ", "]", NULL, false},
    {"deepseek", "```json",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "calls\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "call\xE2\x96\x81"
     "begin\xEF\xBD\x9C>function<\xEF\xBD\x9Ctool\xE2\x96\x81sep\xEF\xBD\x9C>",
     "\n```json\n",
     "\n```<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "call\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     "\n",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "calls\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     NULL, false},
    {"deepseek", NULL,
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "calls\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "call\xE2\x96\x81"
     "begin\xEF\xBD\x9C>",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81sep\xEF\xBD\x9C>",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "call\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     "",
     "<\xEF\xBD\x9Ctool\xE2\x96\x81"
     "calls\xE2\x96\x81"
     "end\xEF\xBD\x9C>",
     NULL, false},
    {"llama", NULL, "", "{\"name\": \"", "\", \"parameters\": ", "}", "", "", NULL, true},
};

static const struct style *style_of(const struct parse *p)
{
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++)
        if (str_is(str_of(p->voice->format->name), styles[i].format) &&
            (!styles[i].sign || str_find(p->bundle->template_source, str_of(styles[i].sign), 0) != SIZE_MAX))
            return &styles[i];
    return NULL;
}

/* ---- parts; everything lives in the request's arena, and a failure of it shows once, at the end ---- */

struct maker {
    struct parse *p;
    bool failed;
    struct grammar_part lost[4]; /* written instead of what could not be had */
};

static struct grammar_part *parts_new(struct maker *m, size_t n)
{
    struct grammar_part *parts = arena_alloc_zero(m->p->arena, n, sizeof *parts);
    m->failed |= !parts;
    return parts ? parts : m->lost; /* n is at most 4 */
}

static struct grammar_part text_part(struct str text)
{
    return (struct grammar_part){.kind = GRAMMAR_TEXT, .text = text};
}

static struct grammar_part list_part(enum grammar_kind kind, const struct grammar_part *parts, size_t n)
{
    return (struct grammar_part){.kind = kind, .parts = parts, .n_part = n, .min = 0, .max = -1};
}

/* A strict tool's arguments keep to its schema; so do a forced call's. Others are any object. */
static struct grammar_part arguments_part(struct maker *m, const struct json *function, bool forced)
{
    const struct json *schema = json_get(function, "parameters");
    bool strict = json_bool(json_get(function, "strict"), false);
    struct json_writer w;
    struct buf text = {0};
    if (json_count(schema) == 0)
        return text_part(STR("{}"));
    if (!strict && !forced)
        return (struct grammar_part){.kind = GRAMMAR_JSON};
    json_writer_init(&w, &text);
    json_write_value(&w, schema);
    size_t n = text.len;
    char *kept = text.failed ? NULL : arena_copy(m->p->arena, buf_str(&text));
    buf_free(&text);
    m->failed |= !kept;
    return (struct grammar_part){.kind = GRAMMAR_SCHEMA, .flags = strict ? GRAMMAR_ORDERED : 0, .text = str_n(kept, n)};
}

/* open, one of the tools with its arguments, close; open without what a trigger has said already. */
static struct grammar_part call_part(struct maker *m, const struct style *s, struct str open, bool forced)
{
    const struct ask *a = m->p->out;
    size_t n = 0;
    struct grammar_part *tools = arena_alloc_zero(m->p->arena, json_count(a->tools), sizeof *tools);
    struct grammar_part *call = parts_new(m, 3);
    JSON_EACH (tool, a->tools) {
        const struct json *f = json_get(tool, "function");
        struct str name = json_str(json_get(f, "name"));
        if (!tools || m->failed)
            break;
        if (a->tool_choice == TOOLS_NAMED && !str_eq(name, a->tool_name))
            continue;
        struct grammar_part *one = parts_new(m, 3);
        one[0] = text_part(name);
        one[1] = text_part(str_of(s->middle));
        one[2] = arguments_part(m, f, forced);
        tools[n++] = list_part(GRAMMAR_SEQUENCE, one, 3);
    }
    m->failed |= !tools;
    call[0] = text_part(open);
    call[1] = list_part(GRAMMAR_ANY_OF, tools, n);
    call[2] = text_part(str_of(s->close));
    return list_part(GRAMMAR_SEQUENCE, call, 3);
}

/* At least one call, and nothing else. */
static struct grammar_part forced_part(struct maker *m, const struct style *s)
{
    bool one = s->one || m->p->out->one_call || m->p->out->tool_choice == TOOLS_NAMED;
    struct grammar_part *whole = parts_new(m, 4), *more = parts_new(m, 2), *again = parts_new(m, 1);
    struct grammar_part call = call_part(m, s, str_of(s->open), true);
    more[0] = text_part(str_of(s->between));
    more[1] = call;
    again[0] = list_part(GRAMMAR_SEQUENCE, more, 2);
    whole[0] = text_part(str_of(s->begin));
    whole[1] = call;
    whole[2] = list_part(GRAMMAR_REPEAT, again, 1);
    whole[3] = text_part(str_of(s->end));
    if (one)
        whole[2] = text_part(STR(""));
    return list_part(GRAMMAR_SEQUENCE, whole, 4);
}

/* Free text, but what follows a call's marker is a call. */
static struct grammar_part strict_part(struct maker *m, const struct style *s)
{
    struct grammar_part *child = parts_new(m, 1);
    child[0] = call_part(m, s, str_from(str_of(s->open), strlen(s->trigger)), false);
    child[0].trigger = str_of(s->trigger);
    struct grammar_part all = list_part(GRAMMAR_TRIGGERED, child, 1);
    all.max = m->p->out->one_call ? 1 : -1;
    return all;
}

static bool any_strict(const struct ask *a)
{
    JSON_EACH (tool, a->tools)
        if (json_bool(json_get(json_get(tool, "function"), "strict"), false))
            return true;
    return false;
}

bool calls_shape(struct parse *p)
{
    struct ask *a = p->out;
    struct maker m = {.p = p};
    bool forced = a->tool_choice >= TOOLS_REQUIRED;
    const char *param = forced ? "tool_choice" : "tools";
    if (!a->tools || a->kind != ASK_CHAT || (!forced && !any_strict(a)))
        return true;
    const struct style *s = style_of(p);
    if (!s || (!forced && !s->trigger))
        return refuse(p->why, 400, "unsupported_parameter", param,
                      "%s: %s writes calls in the format %s, which cannot be enforced; use auto, without strict", param,
                      p->bundle->id, p->voice->format->name);
    struct grammar_part *shape = parts_new(&m, 1);
    *shape = forced ? forced_part(&m, s) : strict_part(&m, s);
    if (m.failed)
        return field_no_memory(p);
    a->shape = shape;
    a->shape_param = param;
    return true;
}
