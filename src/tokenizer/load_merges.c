/* load_merges - vocab.json and merges.txt: GPT-2's layout; which splitter is told by tokenizer_config.json */
#include "tokenizer/tok.h"

static enum status load_merges_text(struct tokenizer *tok, struct str text, struct error *err)
{
    struct buf joined = {0};
    uint32_t rank = 0;
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++)
        n += text.ptr[i] == '\n';
    enum status st = bpe_pairs_init(tok, n + 1, err);
    while (st == ST_OK && text.len) {
        struct str line = str_next_line(&text);
        size_t space = str_find(line, STR(" "), 0);
        if (line.len == 0 || str_starts(line, STR("#version")))
            continue;
        if (space == SIZE_MAX || space == 0 || space + 1 == line.len)
            st = fail(err, ST_CORRUPT, "merges.txt: line \"%.*s\" is not two tokens", STR_ARG(line));
        else
            st = bpe_pair_parse(tok, str_n(line.ptr, space), str_from(line, space + 1), rank++, &joined, err);
    }
    buf_free(&joined);
    return st;
}

static enum status load_config_tokens(struct tokenizer *tok, const struct json *config, struct error *err)
{
    JSON_EACH_MEMBER (key, v, json_get(config, "added_tokens_decoder")) {
        int64_t id;
        TRY(load_added_token(tok, v, str_to_i64(&id, key) ? id : -1, "tokenizer_config.json", err));
    }
    return ST_OK;
}

enum status load_vocab_merges(struct tokenizer *tok, struct str vocab, struct str merges, struct str config,
                              struct error *err)
{
    struct arena arena;
    const struct json *doc = NULL, *settings = NULL;
    arena_init(&arena, 0);
    tok->model = MODEL_BPE;
    tok->by_bytes = true;
    tok->decode = DECODE_BYTES;
    enum status st = json_parse(&doc, &arena, vocab, 0, err);
    if (st == ST_OK)
        st = load_vocab_object(tok, doc, err);
    if (st == ST_OK && config.ptr)
        st = json_parse(&settings, &arena, config, 0, err);
    struct str class = json_str(json_get(settings, "tokenizer_class"));
    bool qwen = class.ptr && str_starts(class, STR("Qwen2"));
    if (st == ST_OK && qwen) {
        struct norm_step *step;
        st = tok_norm(tok, &step, NORM_NFC, err);
    }
    if (st == ST_OK && !qwen && json_bool(json_get(settings, "add_prefix_space"), false))
        st = tok_pre(tok, (struct pre_step){.type = PRE_PREFIX_SPACE}, err);
    if (st == ST_OK)
        st = tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = qwen ? split_find_name("qwen2") : split_gpt2},
                     err);
    if (st == ST_OK)
        st = load_config_tokens(tok, settings, err);
    if (st == ST_OK)
        st = vocab_unprintable(&tok->vocab, err);
    if (st == ST_OK)
        st = vocab_index(&tok->vocab, err);
    if (st == ST_OK)
        st = load_merges_text(tok, merges, err);
    if (st == ST_OK)
        st = bpe_finish(tok, err);
    arena_free(&arena);
    return st;
}
