/* speech: whatever a model writes, cut however: the same events, and outside calls and markers nothing is lost. */
#include <stdlib.h>

#include "speech/speech.h"

struct line {
    struct buf b;
    int last;
};

static void on_event(void *ctx, enum speech_what what, struct str text)
{
    struct line *l = ctx;
    if (l->last != (int)what)
        buf_append_char(&l->b, (char)(1 + what));
    buf_append_str(&l->b, text);
    l->last = (int)what;
}

static struct buf run(const struct speech_options *o, struct str text, size_t step)
{
    struct speech s;
    struct line l = {.last = -1};
    speech_init(&s, o, on_event, &l);
    for (size_t i = 0; i < text.len; i += step)
        speech_feed(&s, str_n(text.ptr + i, text.len - i < step ? text.len - i : step));
    speech_end(&s);
    speech_free(&s);
    return l.b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"plain", "harmony", "qwen-xml", "hermes", "mistral", "deepseek", "llama"};
    static struct speech_key keys[] = {{{"s", 1}, true}, {{"n", 1}, false}};
    static struct speech_tool items[] = {{{"f", 1}, keys, 2}};
    static const struct speech_tools tools = {items, 1};
    if (size < 2)
        return 0;
    struct speech_options o = {.format = speech_find(str_of(names[data[0] % 7])),
                               .think = speech_think_detect(data[0] & 8 ? STR("[/THINK]") : STR("</think>")),
                               .tools = data[0] & 16 ? NULL : &tools,
                               .thinking = data[0] & 32,
                               .eager = data[0] & 64};
    struct str text = str_n(data + 2, size - 2);
    struct buf whole = run(&o, text, size), bytes = run(&o, text, 1), some = run(&o, text, 1 + data[1] % 16);
    if (!str_eq(buf_str(&whole), buf_str(&bytes)) || !str_eq(buf_str(&whole), buf_str(&some)))
        abort();
    buf_free(&whole);
    buf_free(&bytes);
    buf_free(&some);
    return 0;
}
