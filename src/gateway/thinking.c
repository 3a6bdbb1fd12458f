/* Whether and how much a model reasons: one wish, and the variables by which templates know it. */
#include "gateway/fields.h"

bool read_effort(struct parse *p, const char *name, const struct json *v)
{
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_is(json_str(v), words[i])) {
            p->out->effort = json_str(v);
            p->out->thinking = i == 0 ? THINKING_OFF : THINKING_ON;
            return i == 0 || p->voice->takes_effort || p->voice->takes_enable || p->voice->takes_thinking ||
                   refuse(p->why, 400, "unsupported_parameter", name, "%s: the chat template of %s knows none", name,
                          p->bundle->id);
        }
    return refuse(p->why, 400, "invalid_value", name, "%s: expected none, minimal, low, medium, high or xhigh", name);
}

static void put(struct json_writer *w, const struct json *given, const char *key, bool known, bool value)
{
    if (known && !json_get(given, key)) /* chat_template_kwargs are nearer to the template: they win */
        json_put_bool(w, key, value);
}

bool thinking_apply(struct parse *p)
{
    struct ask *a = p->out;
    const struct json *given = a->template_vars;
    struct json_writer w;
    struct buf text = {0};
    bool on = a->thinking == THINKING_ON;
    if (a->thinking == THINKING_FREE || !a->messages)
        return true;
    json_writer_init(&w, &text);
    json_begin_object(&w);
    JSON_EACH_MEMBER (key, value, given) {
        json_key_str(&w, key);
        json_write_value(&w, value);
    }
    put(&w, given, "enable_thinking", p->voice->takes_enable, on);
    put(&w, given, "thinking", p->voice->takes_thinking, on);
    if (p->voice->takes_effort && on && a->effort.ptr && !json_get(given, "reasoning_effort"))
        json_put_str(&w, "reasoning_effort", a->effort);
    json_end_object(&w);
    return field_parse(p, &text, &a->template_vars);
}
