/* Any bytes as a template; what parses is rendered twice, as a context and as a chat, within small budgets. */
#include "chat/chat.h"

#include <stdlib.h>

static const char context[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi <b>\", \"n\": [1, 2.5, null, true]},"
    "{\"role\": \"assistant\", \"content\": \"\\u00e9\\n x\"}], \"bos_token\": \"<s>\", \"a\": "
    "{\"b\": {\"c\": [3, 1, 2]}}, \"s\": \" text \", \"i\": 7}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct template_budget small = {.steps_max = 20000, .depth_max = 30, .output_max = 1 << 16};
    struct arena arena;
    struct error err;
    const struct json *doc;
    struct template *t;
    struct buf out = {0};
    struct chat_prompt prompt;
    arena_init(&arena, 0);
    if (json_parse(&doc, &arena, str_of(context), 0, &err) != ST_OK)
        abort();
    if (template_parse(&t, str_n(data, size), &err) == ST_OK) {
        if (template_render(t, &out, doc, &small, &err) == ST_OK && out.len > small.output_max)
            abort();
        const struct chat_options options = {.messages = json_get(doc, "messages")};
        if (size < 512 && chat_render(t, &prompt, &options, &err) == ST_OK) {
            size_t n = 0;
            for (size_t i = 0; i < prompt.n_piece; i++)
                n += prompt.pieces[i].text.len;
            if (n != prompt.text.len)
                abort();
            chat_prompt_free(&prompt);
        }
        template_free(t);
    }
    buf_free(&out);
    arena_free(&arena);
    return 0;
}
