/* The shape of a whole answer: what the request asked of it, the calls that tool_choice and strict ask for, or either.
 *
 *   no tools, or none to be called    the shape
 *   auto, with a shape                the shape, or calls and nothing else
 *   auto, with strict tools           free text, in which what follows a call's marker is a call
 *   required, or a name               calls and nothing else
 *
 * In harmony all of that stands in channels: reasoning and preambles first, as many as it likes, then one final message
 * or one call.
 */
#include "gateway/parts.h"

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
    {"qwen-xml", NULL, "", "<tool_call>\n<function=", ">\n", "</function>\n</tool_call>", "\n", "", "<tool_call>",
     false},
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

static bool is_strict(const struct json *function)
{
    return json_bool(json_get(function, "strict"), false);
}

/* A strict tool's arguments keep to its schema; so do a forced call's. Others are any object. */
static struct grammar_part arguments_part(struct maker *m, const struct json *function)
{
    const struct json *schema = json_get(function, "parameters");
    bool enforced = m->forced || is_strict(function);
    if (m->p->voice->format->flags & SPEECH_XML)
        return enforced ? xml_arguments(m, function) : xml_any_arguments(m);
    if (json_count(schema) == 0)
        return part_text(STR("{}"));
    if (!enforced)
        return (struct grammar_part){.kind = GRAMMAR_JSON};
    return (struct grammar_part){
        .kind = GRAMMAR_SCHEMA, .flags = is_strict(function) ? GRAMMAR_ORDERED : 0, .text = part_source(m, schema)};
}

typedef struct grammar_part one_fn(struct maker *m, const struct style *s, struct str name,
                                   const struct json *function);

static struct grammar_part named_call(struct maker *m, const struct style *s, struct str name,
                                      const struct json *function)
{
    return PARTS(m, GRAMMAR_SEQUENCE, part_text(name), part_text(str_of(s->middle)), arguments_part(m, function));
}

/* Its name stands behind the channel, or before it, as the template repeats it. */
static struct grammar_part harmony_call(struct maker *m, const struct style *s, struct str name,
                                        const struct json *function)
{
    struct grammar_part behind = PARTS(m, GRAMMAR_SEQUENCE, part_text(STR("<|channel|>commentary to=functions.")),
                                       part_text(name)),
                        before = PARTS(m, GRAMMAR_SEQUENCE, part_text(STR(" to=functions.")), part_text(name),
                                       part_text(STR("<|channel|>commentary"))),
                        type = PARTS(m, GRAMMAR_ANY_OF, part_text(STR(" <|constrain|>json")), part_text(STR(" json")),
                                     part_text(STR("")));
    (void)s;
    return PARTS(m, GRAMMAR_SEQUENCE, PARTS(m, GRAMMAR_ANY_OF, behind, before), type, part_text(STR("<|message|>")),
                 arguments_part(m, function));
}

/* One of the tools that may be called. */
static struct grammar_part any_tool(struct maker *m, const struct style *s, one_fn *one)
{
    const struct ask *a = m->p->out;
    struct grammar_part *tools = arena_alloc_zero(m->p->arena, json_count(a->tools), sizeof *tools);
    size_t n = 0;
    m->failed |= !tools;
    JSON_EACH (tool, a->tools) {
        const struct json *f = json_get(tool, "function");
        struct str name = json_str(json_get(f, "name"));
        if (!m->failed && (a->tool_choice != TOOLS_NAMED || str_eq(name, a->tool_name)))
            tools[n++] = one(m, s, name, f);
    }
    return (struct grammar_part){.kind = GRAMMAR_ANY_OF, .parts = tools, .n_part = m->failed ? 0 : n};
}

/* open, one of the tools with its arguments, close; open without what a trigger has said already. */
static struct grammar_part call_part(struct maker *m, const struct style *s, struct str open)
{
    return PARTS(m, GRAMMAR_SEQUENCE, part_text(open), any_tool(m, s, named_call), part_text(str_of(s->close)));
}

/* At least one call, and nothing else. */
static struct grammar_part calls_only(struct maker *m, const struct style *s)
{
    bool one = s->one || m->p->out->one_call || m->p->out->tool_choice == TOOLS_NAMED;
    struct grammar_part call = call_part(m, s, str_of(s->open)),
                        more = PARTS(m, GRAMMAR_SEQUENCE, part_text(str_of(s->between)), call),
                        again = one ? part_text(STR("")) : part_repeat(m, more, -1);
    return PARTS(m, GRAMMAR_SEQUENCE, part_text(str_of(s->begin)), call, again, part_text(str_of(s->end)));
}

/* Free text, but what follows a call's marker is a call. */
static struct grammar_part text_and_calls(struct maker *m, const struct style *s)
{
    struct grammar_part child = call_part(m, s, str_from(str_of(s->open), strlen(s->trigger)));
    child.trigger = str_of(s->trigger);
    struct grammar_part all = PARTS(m, GRAMMAR_TRIGGERED, child);
    all.max = m->p->out->one_call ? 1 : -1;
    return all;
}

/* Text without any of harmony's marks, in which nothing but a message's end can follow. */
static struct grammar_part harmony_text(struct maker *m)
{
    static const char *const marks[] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>",
                                        "<|call|>",  "<|end|>",     "<|return|>"};
    struct grammar_part children[sizeof marks / sizeof *marks];
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        children[i] = (struct grammar_part){.kind = GRAMMAR_TEXT, .trigger = str_of(marks[i])};
    struct grammar_part text = parts_list(m, GRAMMAR_TRIGGERED, children, sizeof marks / sizeof *marks);
    text.max = 0;
    return text;
}

/* shape NULL: the final message is free, or (calls only) there is none. */
static struct grammar_part harmony_answer(struct maker *m, const struct grammar_part *shape, bool calls, bool words)
{
    struct grammar_part channel = PARTS(m, GRAMMAR_ANY_OF, part_text(STR("analysis")), part_text(STR("commentary"))),
                        message = PARTS(m, GRAMMAR_SEQUENCE, part_text(STR("<|channel|>")), channel,
                                        part_text(STR("<|message|>")), harmony_text(m),
                                        part_text(STR("<|end|><|start|>assistant"))),
                        type = part_repeat(m, part_text(STR(" <|constrain|>json")), 1),
                        final = PARTS(m, GRAMMAR_SEQUENCE, part_text(STR("<|channel|>final")), type,
                                      part_text(STR("<|message|>")), shape ? *shape : harmony_text(m)),
                        call = calls ? any_tool(m, NULL, harmony_call) : final,
                        last = calls && words ? PARTS(m, GRAMMAR_ANY_OF, final, call) : call;
    return PARTS(m, GRAMMAR_SEQUENCE, part_repeat(m, message, -1), last);
}

static bool any_strict(const struct ask *a)
{
    JSON_EACH (tool, a->tools)
        if (is_strict(json_get(tool, "function")))
            return true;
    return false;
}

/* What the whole answer must be. False after a refusal. */
static bool make_whole(struct maker *m, struct grammar_part *out)
{
    struct ask *a = m->p->out;
    const struct style *s = style_of(m->p);
    bool calls = a->calls_param != NULL;
    if (m->p->voice->format->flags & SPEECH_CHANNELS) {
        *out = harmony_answer(m, a->shape, calls, !m->forced);
        return true;
    }
    if (!calls) {
        *out = *a->shape;
        return true;
    }
    if (!s || (!m->forced && !a->shape && !s->trigger))
        return refuse(m->p->why, 400, "unsupported_parameter", a->calls_param,
                      "%s: %s writes calls in the format %s, which cannot be enforced; use auto, without strict",
                      a->calls_param, m->p->bundle->id, m->p->voice->format->name);
    if (m->forced)
        *out = calls_only(m, s);
    else if (a->shape)
        *out = PARTS(m, GRAMMAR_ANY_OF, *a->shape, calls_only(m, s));
    else
        *out = text_and_calls(m, s);
    return true;
}

bool calls_shape(struct parse *p)
{
    struct ask *a = p->out;
    struct maker m = {.p = p, .forced = a->tool_choice >= TOOLS_REQUIRED};
    if (a->kind != ASK_CHAT) {
        a->whole = a->shape;
        return true;
    }
    if (a->tools && (m.forced || a->shape || any_strict(a)))
        a->calls_param = m.forced ? "tool_choice" : "tools";
    if (!a->shape && !a->calls_param)
        return true;
    struct grammar_part *whole = arena_alloc_zero(p->arena, 1, sizeof *whole);
    a->whole = whole;
    if (!whole)
        return field_no_memory(p);
    return make_whole(&m, whole) && !m.refused && (!m.failed || field_no_memory(p));
}
