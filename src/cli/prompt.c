/* prompt - what people type, as token ids: text as it stands, or messages through the model's chat template */
#include "base/file.h"
#include "cli/cli.h"

enum status cli_chat_ids(struct ids *out, const struct bundle *b, struct str messages, struct error *err)
{
    struct arena arena;
    struct chat_options options = {0};
    arena_init(&arena, 0);
    enum status st = json_parse(&options.messages, &arena, messages, 0, err);
    if (st == ST_OK)
        st = bundle_chat_ids(out, b, &options, err);
    arena_free(&arena);
    return st;
}

enum status cli_prompt_ids(struct ids *out, const struct bundle *b, struct str prompt, bool raw, struct error *err)
{
    if (!b->tokenizer)
        return fail(err, ST_INVALID, "%s has no tokenizer: text cannot become tokens; `ingot logits` takes ids", b->id);
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
    enum status st = json.failed ? fail_nomem(err, "prompt") : cli_chat_ids(out, b, buf_str(&json), err);
    buf_free(&json);
    return st;
}

enum status cli_tokenizer_open(struct tokenizer **out, const char *path, struct error *err)
{
    struct error ignored;
    struct checkpoint *ck;
    enum status st = tokenizer_open(out, path, err);
    if (st == ST_OK || st == ST_NOMEM || file_kind(path) != FILE_REGULAR || checkpoint_open(&ck, path, &ignored))
        return st;
    st = tokenizer_from_checkpoint(out, ck, err); /* a model file with a tokenizer beside it */
    checkpoint_close(ck);
    return st;
}
