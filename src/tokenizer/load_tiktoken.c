/* load_tiktoken - ranks: lines of base64(bytes), blank, rank; how a text is split is told by the name or the count */
#include "tokenizer/tok.h"

struct encoding {
    const char *name, *splitter;
    size_t n_rank;
    struct {
        const char *text;
        int32_t id;
    } special[12];
};
static const struct encoding encodings[] = {
    {"gpt2", "gpt2", 50256, {{"<|endoftext|>", 50256}}},
    {"r50k_base", "gpt2", 50256, {{"<|endoftext|>", 50256}}},
    {"cl100k_base",
     "cl100k",
     100256,
     {{"<|endoftext|>", 100257},
      {"<|fim_prefix|>", 100258},
      {"<|fim_middle|>", 100259},
      {"<|fim_suffix|>", 100260},
      {"<|endofprompt|>", 100276}}},
    {"o200k_base", "o200k", 199998, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
    {"qwen", "qwen2", 151643, {{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}}},
    {"llama3",
     "llama3",
     128000,
     {{"<|begin_of_text|>", 128000},
      {"<|end_of_text|>", 128001},
      {"<|finetune_right_pad_id|>", 128004},
      {"<|start_header_id|>", 128006},
      {"<|end_header_id|>", 128007},
      {"<|eom_id|>", 128008},
      {"<|eot_id|>", 128009},
      {"<|python_tag|>", 128010}}},
    {"llama4",
     "o200k",
     200000,
     {{"<|begin_of_text|>", 200000},
      {"<|end_of_text|>", 200001},
      {"<|fim_prefix|>", 200002},
      {"<|fim_middle|>", 200003},
      {"<|fim_suffix|>", 200004},
      {"<|header_start|>", 200005},
      {"<|header_end|>", 200006},
      {"<|eom|>", 200007},
      {"<|eot|>", 200008},
      {"<|step|>", 200009}}},
};

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

bool base64_append(struct buf *out, struct str s)
{
    uint32_t bits = 0;
    int n = 0;
    for (size_t i = 0; i < s.len && s.ptr[i] != '='; i++) {
        int v = base64_value(s.ptr[i]);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        n += 6;
        if (n >= 8) {
            n -= 8;
            buf_append_char(out, (char)(bits >> n & 0xFF));
        }
    }
    return true;
}

static enum status tiktoken_lines(struct tokenizer *tok, struct str file, struct error *err)
{
    struct buf bytes = {0};
    enum status st = ST_OK;
    for (int line = 1; st == ST_OK && file.len; line++) {
        struct str s = str_next_line(&file);
        size_t space = str_find(s, STR(" "), 0);
        int64_t rank;
        if (s.len == 0)
            continue;
        buf_clear(&bytes);
        if (space == SIZE_MAX || !base64_append(&bytes, str_n(s.ptr, space)) ||
            !str_to_i64(&rank, str_from(s, space + 1)) || (bytes.len == 0 && !bytes.failed))
            st = fail(err, ST_CORRUPT, "tiktoken: line %d is not base64, a blank and a rank", line);
        else if (bytes.failed)
            st = fail_nomem(err, "the vocabulary");
        else
            st = vocab_put(&tok->vocab, rank, buf_str(&bytes), 0, err);
    }
    buf_free(&bytes);
    return st;
}

enum status load_tiktoken(struct tokenizer *tok, struct str file, struct str name, struct error *err)
{
    const struct encoding *e = NULL;
    TRY(tiktoken_lines(tok, file, err));
    for (size_t i = 0; i < sizeof encodings / sizeof *encodings; i++)
        if (str_is(name, encodings[i].name) || (!e && tok->vocab.size == encodings[i].n_rank))
            e = &encodings[i];
    if (!e)
        return fail(
            err, ST_UNSUPPORTED,
            "tiktoken: %zu ranks are none of the known encodings, and the file does not say how to split a text; "
            "give it the encoding's name, as cl100k_base.tiktoken",
            tok->vocab.size);
    tok->model = MODEL_BPE;
    tok->by_bytes = tok->ignore_merges = tok->accepts_any_bytes = true;
    tok->decode = DECODE_BYTES;
    TRY(tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = split_find_name(e->splitter)}, err));
    TRY(vocab_index(&tok->vocab, err));
    uint32_t *rank_of = mem_alloc_zero(tok->vocab.size + 1, sizeof *rank_of);
    if (!rank_of)
        return fail_nomem(err, "the merges");
    for (size_t id = 0; id < tok->vocab.size; id++)
        rank_of[id] = tok->vocab.flags[id] & TOKEN_PRESENT ? (uint32_t)id : UINT32_MAX;
    enum status st = bpe_pairs_from_tokens(tok, rank_of, err);
    mem_free(rank_of);
    if (st == ST_OK)
        st = bpe_finish(tok, err);
    for (size_t i = 0; st == ST_OK && i < sizeof e->special / sizeof *e->special && e->special[i].text; i++)
        st = tok_add_control(tok, e->special[i].id, str_of(e->special[i].text), true, err);
    if (st == ST_OK && str_is(str_of(e->special[0].text), "<|begin_of_text|>")) {
        tok->bos = tok->before[0] = e->special[0].id;
        tok->n_before = 1;
    }
    return st;
}
