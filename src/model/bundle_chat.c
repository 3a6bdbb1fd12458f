#include "model/model.h"

enum status bundle_chat_ids(struct ids *out, const struct bundle *b, struct chat_options *options, struct error *err)
{
    const struct tokenizer *tok = b->tokenizer;
    struct chat_prompt prompt;
    if (b->template_error.status != ST_OK)
        return fail(err, b->template_error.status,
                    "the chat template of %s cannot be used (%s); its text can be continued without one: "
                    "/v1/completions, or --raw",
                    b->id, b->template_error.text);
    int32_t bos = tokenizer_bos(tok), eos = tokenizer_eos(tok);
    options->bos_token = bos >= 0 ? tokenizer_token(tok, bos) : STR("");
    options->eos_token = eos >= 0 ? tokenizer_token(tok, eos) : STR("");
    TRY(chat_render(b->template, &prompt, options, err));
    /* Only the template's own text can become special tokens (struct text_piece). A template writes its own BOS; the
     * built-in form leaves it to the tokenizer. */
    unsigned flags = TOKENIZE_SPECIAL | (b->template ? 0 : TOKENIZE_ADD);
    enum status st = tokenizer_encode_pieces(tok, out, prompt.pieces, prompt.n_piece, flags, err);
    chat_prompt_free(&prompt);
    return st;
}

static enum status need_tokenizer(const struct bundle *b, struct error *err)
{
    if (b->tokenizer)
        return ST_OK;
    return fail(err, ST_INVALID, "%s has no tokenizer: text cannot become tokens; `ingot logits` takes ids", b->id);
}

enum status bundle_messages_ids(struct ids *out, const struct bundle *b, struct str messages, struct error *err)
{
    struct arena arena;
    struct chat_options options = {0};
    TRY(need_tokenizer(b, err));
    arena_init(&arena, 0);
    enum status st = json_parse(&options.messages, &arena, messages, 0, err);
    if (st == ST_OK)
        st = bundle_chat_ids(out, b, &options, err);
    arena_free(&arena);
    return st;
}

enum status bundle_prompt_ids(struct ids *out, const struct bundle *b, struct str prompt, bool raw, struct error *err)
{
    TRY(need_tokenizer(b, err));
    if (raw || (!b->template && b->template_error.status == ST_OK))
        return tokenizer_encode(b->tokenizer, out, prompt, TOKENIZE_ADD | (raw ? TOKENIZE_SPECIAL : 0), err);
    struct buf json = {0};
    struct json_writer w;
    json_writer_init(&w, &json);
    json_begin_array(&w);
    json_begin_object(&w);
    json_put_str(&w, "role", STR("user"));
    json_put_str(&w, "content", prompt);
    json_end_object(&w);
    json_end_array(&w);
    enum status st = json.failed ? fail_nomem(err, "prompt") : bundle_messages_ids(out, b, buf_str(&json), err);
    buf_free(&json);
    return st;
}
