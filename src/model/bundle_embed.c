/* bundle_embed - texts as a model takes them that embeds or scores
 *
 * A model that scores by its words "yes" and "no" is asked in a chat: through a template that knows queries and
 * documents, else in the form that Qwen3's rerankers were trained with.
 */
#include "model/private.h"

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

/* ---- pairs as a chat ---- */
static void put_message(struct json_writer *w, const char *role, struct str content)
{
    json_begin_object(w);
    json_put_str(w, "role", str_of(role));
    json_put_str(w, "content", content);
    json_end_object(w);
}

static bool template_says(const struct bundle *b, struct str word)
{
    return str_find(b->template_source, word, 0) != SIZE_MAX;
}

static void put_pair(struct buf *out, const struct bundle *b, struct str query, struct str text)
{
    struct json_writer w;
    struct buf user = {0};
    struct str task = model_prompt(b->model, (struct str){0});
    json_writer_init(&w, out);
    json_begin_array(&w);
    if (template_says(b, STR("\"query\"")) || template_says(b, STR("'query'"))) {
        if (task.len)
            put_message(&w, "system", task);
        put_message(&w, "query", query);
        put_message(&w, "document", text);
    } else {
        if (!task.len)
            task = STR("Given a web search query, retrieve relevant passages that answer the query");
        buf_printf(&user, "<Instruct>: %.*s\n<Query>: ", STR_ARG(task));
        buf_append_str(&user, query);
        buf_append_str(&user, STR("\n<Document>: "));
        buf_append_str(&user, text);
        put_message(&w, "system",
                    STR("Judge whether the Document meets the requirements based on the Query and the Instruct "
                        "provided. Note that the answer can only be \"yes\" or \"no\"."));
        put_message(&w, "user", buf_str(&user));
        out->failed |= user.failed;
        buf_free(&user);
    }
    json_end_array(&w);
}

static enum status render_pair(struct ids *out, const struct bundle *b, struct str query, struct str text,
                               struct error *err)
{
    struct arena arena;
    struct buf json = {0};
    struct chat_options options = {0};
    arena_init(&arena, 0);
    put_pair(&json, b, query, text);
    enum status st = json.failed ? fail_nomem(err, "a pair") : ST_OK;
    if (st == ST_OK)
        st = json_parse(&options.messages, &arena, buf_str(&json), 0, err);
    if (st == ST_OK)
        st = json_parse(&options.extra, &arena, STR("{\"enable_thinking\":false}"), 0, err);
    if (st == ST_OK)
        st = bundle_chat_ids(out, b, &options, err);
    arena_free(&arena);
    buf_free(&json);
    return st;
}

/* The text without its last n tokens, cut between characters, and shorter in any case. */
static enum status shorten(struct str *text, const struct bundle *b, size_t n, struct error *err)
{
    struct ids ids = {0};
    struct buf kept = {0};
    enum status st = tokenizer_encode(b->tokenizer, &ids, *text, 0, err);
    if (st == ST_OK && ids.count <= n)
        st = fail(err, ST_INVALID, "the query leaves no room for a text");
    if (st == ST_OK)
        st = tokenizer_decode(b->tokenizer, &kept, ids.ids, ids.count - n, 0, err);
    if (st == ST_OK && kept.failed)
        st = fail_nomem(err, "a pair");
    if (st == ST_OK) {
        /* a normal form may be longer than the text it is of: then by its tokens' share */
        size_t share = (size_t)((double)text->len * (double)(ids.count - n) / (double)ids.count);
        text->len = kept.len < text->len ? kept.len : share < text->len ? share : text->len - 1;
        while (text->len && ((unsigned char)text->ptr[text->len] & 0xc0) == 0x80)
            text->len--;
    }
    ids_free(&ids);
    buf_free(&kept);
    return st;
}

static enum status chat_pair(struct ids *out, const struct bundle *b, struct str query, struct str text, size_t max,
                             struct error *err)
{
    size_t start = out->count;
    if (!b->template && b->template_error.status == ST_OK)
        return fail(err, ST_UNSUPPORTED, "%s scores by words of a chat, but has no chat template", b->id);
    for (;;) {
        TRY(render_pair(out, b, query, text, err));
        size_t n = out->count - start;
        if (n <= max)
            return ST_OK;
        out->count = start;
        TRY(shorten(&text, b, n - max, err));
    }
}

enum status bundle_pair_ids(struct ids *out, size_t *first, const struct bundle *b, struct str query, struct str text,
                            size_t max, struct error *err)
{
    TRY(need_tokenizer(b, err));
    *first = 0;
    if (model_by_words(b->model))
        return chat_pair(out, b, query, text, max, err);
    return tokenizer_encode_pair(b->tokenizer, out, first, query, text, max, err);
}
