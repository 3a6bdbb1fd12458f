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
