/* How a model speaks: told once by its template, or by the operator. */
#include "gateway/private.h"

static bool knows(const struct bundle *b, const char *word)
{
    return b->template && str_find(b->template_source, str_of(word), 0) != SIZE_MAX;
}

bool voice_make(struct voice *v, const struct bundle *b, const char *format)
{
    const char *marks[32];
    *v = (struct voice){.format = speech_detect(b->template_source), .think = speech_think_detect(b->template_source)};
    if (format && strcmp(format, "auto") != 0)
        v->format = speech_find(str_of(format));
    if (!v->format)
        return false;
    if (v->format->flags & SPEECH_CHANNELS)
        v->think = NULL;
    v->takes_tools = knows(b, "tools");
    v->takes_effort = knows(b, "reasoning_effort");
    v->takes_enable = knows(b, "enable_thinking");
    v->takes_thinking = knows(b, "thinking is defined") || knows(b, "if thinking");
    int n = speech_marks(marks, v->format, v->think);
    for (int i = 0; i < n && b->tokenizer; i++) {
        int32_t id = tokenizer_find(b->tokenizer, str_of(marks[i]));
        if (id >= 0 && tokenizer_is_special(b->tokenizer, id))
            v->shown[v->n_shown++] = id;
    }
    return true;
}
