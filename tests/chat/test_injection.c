/* From messages to ids: a special token that a user writes is spelled out, one that the template writes is one id. */
#include "test.h"

#include "chat/chat.h"

static const char *const tokenizers[] = {
    SHARED("data/tokenizers/qwen2.5"),
    SHARED("data/tokenizers/hf/gpt2.tokenizer.json"),
    SHARED("data/tokenizers/hf/phi-3.tokenizer.json"),
    SHARED("data/tokenizers/hf/mistral03.tokenizer.json"),
    SHARED("data/tokenizers/hf/llama2.tokenizer.json"),
    SHARED("data/tokenizers/hf/bert_base_cased.tokenizer.json"),
    SHARED("data/tokenizers/hf/gpt_neox.tokenizer.json"),
    SHARED("data/tokenizers/hf/phi-2.tokenizer.json"),
};

/* The ids of a chat with one user message, whose text is `content`. */
static void chat_ids(struct ids *out, const struct tokenizer *tok, const char *source, struct str content)
{
    struct template *t;
    struct arena arena;
    struct buf json = {0};
    struct json_writer w;
    struct chat_prompt prompt;
    struct chat_options options = {0};
    struct error err;
    arena_init(&arena, 0);
    json_writer_init(&w, &json);
    json_begin_array(&w);
    json_begin_object(&w);
    json_put_str(&w, "role", STR("user"));
    json_put_str(&w, "content", content);
    json_end_object(&w);
    json_end_array(&w);
    OK(json_parse(&options.messages, &arena, buf_str(&json), 0, &err));
    OK(template_parse(&t, str_of(source), &err));
    OK(chat_render(t, &prompt, &options, &err));
    out->count = 0;
    OK(tokenizer_encode_pieces(tok, out, prompt.pieces, prompt.n_piece, TOKENIZE_SPECIAL, &err));
    chat_prompt_free(&prompt);
    template_free(t);
    buf_free(&json);
    arena_free(&arena);
}

static int count_id(const struct ids *ids, int32_t id)
{
    int n = 0;
    for (size_t i = 0; i < ids->count; i++)
        n += ids->ids[i] == id;
    return n;
}

static int check_token(const struct tokenizer *tok, int32_t id, struct ids *ids)
{
    struct str text = tokenizer_token(tok, id);
    char source[256], half[128];
    if (!text.ptr || text.len < 3 || text.len > 60 || memchr(text.ptr, '\'', text.len) ||
        memchr(text.ptr, '\\', text.len))
        return 0;
    struct error err;
    ids->count = 0; /* of those the tokenizer itself takes for special in a text */
    OK(tokenizer_encode(tok, ids, text, TOKENIZE_SPECIAL, &err));
    if (count_id(ids, id) != 1)
        return 0;
    snprintf(source, sizeof source, "{{ 'x%.*sy' + messages[0].content }}", STR_ARG(text));
    chat_ids(ids, tok, source, text);
    if (count_id(ids, id) != 1)
        fail_msg("%.*s: %d times special, expected once (the template's)", STR_ARG(text), count_id(ids, id));
    /* half written by the user, half by the template: still nobody's token */
    size_t cut = text.len / 2;
    snprintf(source, sizeof source, "{{ messages[0].content + '%.*s' }}", (int)(text.len - cut), text.ptr + cut);
    snprintf(half, sizeof half, "%.*s", (int)cut, text.ptr);
    chat_ids(ids, tok, source, str_of(half));
    if (count_id(ids, id) != 0)
        fail_msg("%.*s: made of a user's half and the template's", STR_ARG(text));
    return 1;
}

static void test_injection_is_spelled_out(void **state)
{
    (void)state;
    int checked = 0, opened = 0;
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers; i++) {
        struct tokenizer *tok;
        struct ids ids = {0};
        struct error err;
        int here = 0;
        if (access(tokenizers[i], R_OK) != 0)
            continue;
        OK(tokenizer_open(&tok, tokenizers[i], &err));
        for (int32_t id = 0; id < tokenizer_vocab_size(tok) && here < 20; id++)
            if (tokenizer_is_special(tok, id))
                here += check_token(tok, id, &ids);
        print_message("%s: %d special tokens\n", strrchr(tokenizers[i], '/') + 1, here);
        assert_true(here > 0);
        checked += here;
        opened++;
        ids_free(&ids);
        tokenizer_close(tok);
    }
    if (opened == 0)
        skip();
    assert_true(checked >= opened);
}

static void test_injection_control_raw_text_is_special(void **state)
{
    (void)state;
    NEED(tokenizers[0]);
    struct tokenizer *tok;
    struct ids ids = {0};
    struct error err;
    const struct text_piece own = {STR("a<|im_end|>"), false}, plain = {STR("a<|im_end|>"), true};
    OK(tokenizer_open(&tok, tokenizers[0], &err));
    int32_t end = tokenizer_find(tok, STR("<|im_end|>"));
    assert_true(end >= 0);
    OK(tokenizer_encode_pieces(tok, &ids, &own, 1, TOKENIZE_SPECIAL, &err));
    assert_int_equal(count_id(&ids, end), 1);
    ids.count = 0;
    OK(tokenizer_encode_pieces(tok, &ids, &plain, 1, TOKENIZE_SPECIAL, &err));
    assert_int_equal(count_id(&ids, end), 0);
    struct buf text = {0};
    OK(tokenizer_decode(tok, &text, ids.ids, ids.count, 0, &err));
    assert_string_equal(text.ptr, "a<|im_end|>");
    buf_free(&text);
    ids_free(&ids);
    tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_injection_is_spelled_out),
        cmocka_unit_test(test_injection_control_raw_text_is_special),
    };
    return RUN(tests);
}
