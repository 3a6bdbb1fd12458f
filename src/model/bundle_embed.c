/* bundle_embed - texts as a model takes them that embeds or scores */
#include "model/model.h"

static enum status need_tokenizer(const struct bundle *b, struct error *err)
{
    return b->tokenizer ? ST_OK : fail(err, ST_UNSUPPORTED, "%s has no tokenizer: it takes token ids only", b->id);
}

enum status bundle_text_ids(struct ids *out, const struct bundle *b, struct str before, struct str text, size_t max,
                            struct error *err)
{
    struct buf joined = {0};
    TRY(need_tokenizer(b, err));
    if (before.len) {
        buf_append_str(&joined, before);
        buf_append_str(&joined, text);
        text = buf_str(&joined);
    }
    enum status st =
        joined.failed ? fail_nomem(err, "a text") : tokenizer_encode(b->tokenizer, out, text, TOKENIZE_ADD, err);
    if (st == ST_OK && max < SIZE_MAX)
        tokenizer_shorten(b->tokenizer, out, max);
    buf_free(&joined);
    return st;
}

enum status bundle_pair_ids(struct ids *out, size_t *first, const struct bundle *b, struct str query, struct str text,
                            size_t max, struct error *err)
{
    TRY(need_tokenizer(b, err));
    return tokenizer_encode_pair(b->tokenizer, out, first, query, text, max, err);
}
