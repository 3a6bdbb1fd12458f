/* fuzz_chat - a JSON document as the messages of a chat, or as {messages, tools, extra}: what renders is wholly covered
 * by its pieces, and no piece that may hold special tokens holds a character of a user's text. */
#include "base/json.h"
#include "chat/chat.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes every role it does not know, contents, tools and the extra variable x. */
static const char source[] =
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ m['name'] | upper }}"
    "{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}{% endfor %}{{ tools | tojson }}{{ x }}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

static void check(const struct chat_prompt *p)
{
    const char *at = p->text.ptr;
    for (size_t i = 0; i < p->n_piece; at += p->pieces[i].text.len, i++) {
        struct str s = p->pieces[i].text;
        if (s.ptr != at || (!p->pieces[i].plain && memchr(s.ptr, '#', s.len))) /* no literal of the templates has one */
            abort();
    }
    if (p->n_piece && at != p->text.ptr + p->text.len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct template *t;
    struct arena arena;
    struct error err;
    const struct json *doc;
    struct chat_prompt prompt;
    if (!t && template_parse(&t, str_n(source, sizeof source - 1), &err) != ST_OK)
        abort();
    arena_init(&arena, 16 << 20);
    if (size && json_parse(&doc, &arena, str_n(data + 1, size - 1), 0, &err) == ST_OK) {
        bool whole = json_is(doc, JSON_ARRAY);
        struct chat_options options = {.messages = whole ? doc : json_get(doc, "messages"),
                                       .tools = whole ? NULL : json_get(doc, "tools"),
                                       .extra = whole ? NULL : json_get(doc, "extra"),
                                       .bos_token = STR("<s>"),
                                       .now_wall_s = 1};
        if (chat_render(data[0] & 1 ? t : NULL, &prompt, &options, &err) == ST_OK) {
            check(&prompt);
            chat_prompt_free(&prompt);
        }
    }
    arena_free(&arena);
    return 0;
}
