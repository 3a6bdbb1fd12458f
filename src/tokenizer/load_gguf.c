/* load_gguf - the vocabulary inside a GGUF, in llama.cpp's words; write_gguf.c is its mirror */
#include "tokenizer/tok.h"

static enum status gguf_tokens(struct tokenizer *tok, const struct gguf *g, struct error *err)
{
    const struct gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    const struct gguf_value *types = gguf_find(g, "tokenizer.ggml.token_type");
    const struct gguf_value *scores = gguf_find(g, "tokenizer.ggml.scores");
    if (!tokens || !tokens->strings)
        return fail(err, ST_NOT_FOUND, "gguf: no vocabulary (tokenizer.ggml.tokens)");
    if ((types && types->count != tokens->count) || (scores && scores->count != tokens->count))
        return fail(err, ST_CORRUPT, "gguf: %llu tokens, but %llu types and %llu scores",
                    (unsigned long long)tokens->count, (unsigned long long)(types ? types->count : 0),
                    (unsigned long long)(scores ? scores->count : 0));
    TRY(vocab_reserve(&tok->vocab, tokens->count, err));
    bool any = false;
    for (uint64_t i = 0; i < tokens->count; i++) {
        struct str s = tokens->strings[i];
        int64_t type = types ? gguf_int_at(types, i, PIECE_NORMAL) : byte_of_token(s) >= 0 ? PIECE_BYTE : PIECE_NORMAL;
        unsigned flags = piece_flags(type) & ~(unsigned)TOKEN_USER;
        if (flags & TOKEN_BYTE && byte_of_token(s) < 0)
            flags = 0;
        TRY(vocab_put(&tok->vocab, (int64_t)i, s, flags, err));
        double score = scores ? gguf_real_at(scores, i, 0) : 0;
        tok->vocab.score[i] = score;
        if (type == PIECE_NORMAL) {
            tok->min_score = !any || score < tok->min_score ? score : tok->min_score;
            any = true;
        }
    }
    return ST_OK;
}

/* Control, unknown and user-defined tokens are cut out of the text before the model sees it. */
static enum status gguf_added(struct tokenizer *tok, const struct gguf *g, struct error *err)
{
    const struct gguf_value *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    const struct gguf_value *types = gguf_find(g, "tokenizer.ggml.token_type");
    for (uint64_t i = 0; types && i < tokens->count; i++) {
        int64_t type = gguf_int_at(types, i, PIECE_NORMAL);
        if (type == PIECE_CONTROL || type == PIECE_UNKNOWN || type == PIECE_USER)
            TRY(tok_add_control(tok, (int64_t)i, tokens->strings[i], type != PIECE_USER, err));
    }
    return ST_OK;
}

static enum status gguf_bpe(struct tokenizer *tok, const struct gguf *g, bool *adds_bos, struct error *err)
{
    const struct gguf_value *merges = gguf_find(g, "tokenizer.ggml.merges");
    struct str name = gguf_string(g, "tokenizer.ggml.pre");
    const struct split_pre *pre = split_find_pre(name.ptr ? name : STR("default"));
    struct buf joined = {0};
    if (!pre)
        return fail(err, ST_UNSUPPORTED, "gguf: the pre-tokenizer \"%.*s\" (tokenizer.ggml.pre) is not supported",
                    STR_ARG(name));
    if (!merges || !merges->strings)
        return fail(err, ST_CORRUPT, "gguf: a byte-level vocabulary without tokenizer.ggml.merges");
    tok->model = MODEL_BPE;
    tok->by_bytes = tok->accepts_any_bytes = true;
    tok->ignore_merges = pre->ignore_merges;
    tok->decode = DECODE_BYTES;
    *adds_bos = pre->adds_bos;
    if (gguf_bool(g, "tokenizer.ingot.nfc", false)) {
        struct norm_step *step;
        TRY(tok_norm(tok, &step, NORM_NFC, err));
    }
    if (gguf_bool(g, "tokenizer.ggml.add_space_prefix", false))
        TRY(tok_pre(tok, (struct pre_step){.type = PRE_PREFIX_SPACE}, err));
    for (int i = 0; i < SPLIT_CHAIN_MAX && pre->chain[i]; i++)
        TRY(tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = pre->chain[i]}, err));
    TRY(vocab_unprintable(&tok->vocab, err));
    TRY(vocab_index(&tok->vocab, err));
    enum status st = merges->count > UINT32_MAX / 4 ? fail(err, ST_CORRUPT, "gguf: too many merges")
                                                    : bpe_pairs_init(tok, merges->count, err);
    for (uint64_t i = 0; st == ST_OK && i < merges->count; i++) {
        struct str m = merges->strings[i];
        size_t space = str_find(m, STR(" "), 1);
        if (space == SIZE_MAX || space + 1 >= m.len)
            st = fail(err, ST_CORRUPT, "gguf: merge %llu is not two tokens", (unsigned long long)i);
        else
            st = bpe_pair_parse(tok, str_n(m.ptr, space), str_from(m, space + 1), (uint32_t)i, &joined, err);
    }
    buf_free(&joined);
    return st == ST_OK ? bpe_finish(tok, err) : st;
}

/* What Hugging Face does to blanks instead of what SentencePiece does: it adds no second blank in front, and looks
 * graphemes up in the character map. Written by write_gguf.c for what came from a tokenizer.json. */
static enum status gguf_metaspace(struct tokenizer *tok, struct str prefix, struct error *err)
{
    const struct norm_step own = tok->norm[0];
    struct pre_step step = {.type = PRE_METASPACE, .cut = tok->model == MODEL_UNIGRAM};
    if (!prefix.ptr)
        return ST_OK;
    while (step.prefix < PREFIX_NEVER && !str_is(prefix, metaspace_prefixes[step.prefix]))
        step.prefix++;
    tok->n_norm = 0;
    if (own.map.n_unit) {
        struct norm_step *map;
        TRY(tok_norm(tok, &map, NORM_PRECOMPILED, err));
        map->map = own.map;
    }
    if (own.remove_spaces)
        TRY(tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = split_nonspace, .drop_gaps = true}, err));
    return tok_pre(tok, step, err);
}

static enum status gguf_sentencepiece(struct tokenizer *tok, const struct gguf *g, bool unigram, struct error *err)
{
    struct norm_step *step;
    const struct gguf_value *map = gguf_find(g, "tokenizer.ggml.precompiled_charsmap");
    TRY(sentencepiece_common(tok, gguf_bool(g, "tokenizer.ggml.add_space_prefix", true), &step, err));
    step->remove_spaces = gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", false);
    if (map && map->type == GGUF_ARRAY && (map->element == GGUF_U8 || map->element == GGUF_I8)) {
        struct str blob = tok_copy(tok, str_n(map->data, map->count));
        if (!blob.ptr)
            return fail_nomem(err, "the character map");
        TRY(charsmap_open(&step->map, blob, err));
    }
    tok->model = unigram ? MODEL_UNIGRAM : MODEL_BPE;
    tok->byte_fallback = !unigram;
    tok->fuse_unknown = tok->float_scores = true;
    tok->decode = DECODE_FALLBACK;
    TRY(gguf_metaspace(tok, gguf_string(g, "tokenizer.ingot.metaspace"), err));
    int64_t unknown = gguf_int(g, "tokenizer.ggml.unknown_token_id", unigram ? 2 : 0);
    tok->unknown = unknown >= 0 && (uint64_t)unknown < tok->vocab.size ? (int32_t)unknown : NO_ID;
    return sentencepiece_model(tok, err);
}

/* Word pieces are stored with U+2581 before those that begin a word and nothing before the others: respelled here. */
static enum status gguf_wordpiece(struct tokenizer *tok, const struct gguf *g, struct error *err)
{
    struct norm_step *step;
    struct buf text = {0};
    enum status st = ST_OK;
    tok->model = MODEL_WORDPIECE;
    tok->decode = DECODE_WORDPIECE;
    tok->decode_cleanup = true;
    tok->inner_prefix = STR("##");
    tok->word_chars_max = 100;
    for (size_t i = 0; st == ST_OK && i < tok->vocab.size; i++) {
        struct str s = vocab_text(&tok->vocab, (int32_t)i);
        bool begins = str_starts(s, STR(METASPACE));
        if (tok->vocab.flags[i] & TOKEN_SPECIAL || (s.len > 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']'))
            continue;
        buf_clear(&text);
        buf_append_str(&text, begins ? STR("") : STR("##"));
        buf_append_str(&text, begins ? str_from(s, 3) : s);
        st = text.failed ? fail_nomem(err, "the vocabulary")
                         : vocab_put(&tok->vocab, (int64_t)i, buf_str(&text), 0, err);
    }
    buf_free(&text);
    TRY(st);
    TRY(tok_norm(tok, &step, NORM_BERT, err));
    step->clean = step->cjk = true;
    step->lowercase = gguf_bool(g, "tokenizer.ggml.normalizer.lowercase", true);
    step->strip_accents = gguf_bool(g, "tokenizer.ggml.normalizer.strip_accents", step->lowercase);
    TRY(tok_pre(tok, (struct pre_step){.type = PRE_SPLIT, .split = split_bert, .drop_gaps = true}, err));
    TRY(vocab_index(&tok->vocab, err));
    tok->unknown = (int32_t)gguf_int(g, "tokenizer.ggml.unknown_token_id", vocab_find(&tok->vocab, STR("[UNK]")));
    tok->before[tok->n_before++] =
        (int32_t)gguf_int(g, "tokenizer.ggml.cls_token_id", vocab_find(&tok->vocab, STR("[CLS]")));
    tok->after[tok->n_after++] =
        (int32_t)gguf_int(g, "tokenizer.ggml.seperator_token_id", vocab_find(&tok->vocab, STR("[SEP]")));
    if (tok->before[0] < 0 || tok->after[0] < 0 || (size_t)tok->before[0] >= tok->vocab.size ||
        (size_t)tok->after[0] >= tok->vocab.size || (tok->unknown >= 0 && (size_t)tok->unknown >= tok->vocab.size))
        return fail(err, ST_CORRUPT, "gguf: the ids of [UNK], [CLS] or [SEP] are not in the vocabulary");
    return pieces_finish(tok, err);
}

/* Encoders join two texts as BERT or, with other vocabularies, as RoBERTa does: no key says so. */
static void gguf_pair(struct tokenizer *tok, const struct gguf *g)
{
    bool bert = tok->model == MODEL_WORDPIECE;
    if (tok->n_after != 1 || (!bert && !str_is(gguf_string(g, "general.architecture"), "bert")))
        return;
    tok->has_pair = true;
    tok->second_type = bert;
    tok->pair_after[tok->n_pair_after++] = tok->after[0];
    for (int i = 0; i < 2 - bert; i++)
        tok->between[tok->n_between++] = tok->after[0];
}

enum status load_gguf(struct tokenizer *tok, const struct gguf *g, struct error *err)
{
    struct str model = gguf_string(g, "tokenizer.ggml.model"), template = gguf_string(g, "tokenizer.chat_template");
    bool adds_bos = false;
    TRY(gguf_tokens(tok, g, err));
    int64_t size = (int64_t)tok->vocab.size, bos = gguf_int(g, "tokenizer.ggml.bos_token_id", -1),
            eos = gguf_int(g, "tokenizer.ggml.eos_token_id", -1);
    tok->bos = bos >= 0 && bos < size ? (int32_t)bos : NO_ID;
    tok->eos = eos >= 0 && eos < size ? (int32_t)eos : NO_ID;
    if (str_is(model, "gpt2")) {
        TRY(gguf_bpe(tok, g, &adds_bos, err));
    } else if (str_is(model, "llama") || str_is(model, "t5")) {
        adds_bos = str_is(model, "llama");
        TRY(gguf_sentencepiece(tok, g, !adds_bos, err));
    } else if (str_is(model, "bert")) {
        TRY(gguf_wordpiece(tok, g, err));
    } else {
        return fail(err, ST_UNSUPPORTED,
                    "gguf: the tokenizer model \"%.*s\" is not supported; gpt2, llama, t5 and bert are",
                    STR_ARG(model));
    }
    TRY(gguf_added(tok, g, err));
    if (tok->model != MODEL_WORDPIECE) {
        if (tok->bos >= 0 && gguf_bool(g, "tokenizer.ggml.add_bos_token", adds_bos))
            tok->before[tok->n_before++] = tok->bos;
        if (tok->eos >= 0 && gguf_bool(g, "tokenizer.ggml.add_eos_token", tok->model == MODEL_UNIGRAM))
            tok->after[tok->n_after++] = tok->eos;
    }
    gguf_pair(tok, g);
    if (template.ptr) {
        tok->chat_template = tok_copy(tok, template);
        if (!tok->chat_template.ptr)
            return fail_nomem(err, "the chat template");
    }
    return ST_OK;
}
