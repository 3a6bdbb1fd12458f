/* load_other - tiktoken ranks, llama2.c tokenizer.bin, SentencePiece .model, GGUF vocabularies */
#include "tokenizer/tok.h"
#include "base/cursor.h"

#include <math.h>
#include <stdlib.h>

/* ---- ranks from scores: the higher score is merged first; equal scores have equal rank ---- */
struct scored {
    double score;
    uint32_t id;
};

static int by_score(const void *a, const void *b)
{
    double x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x < y) - (x > y);
}

/* Tokens that merges may make: neither control, unknown, byte nor added ones. */
static bool is_mergeable(const struct vocab *v, size_t id)
{
    return v->flags[id] & TOKEN_PRESENT &&
           !(v->flags[id] & (TOKEN_CONTROL | TOKEN_UNKNOWN | TOKEN_BYTE | TOKEN_ADDED | TOKEN_GUARDED));
}

static enum status pairs_by_score(struct tokenizer *tok, struct error *err)
{
    const struct vocab *v = &tok->vocab;
    struct scored *list = mem_alloc_zero(v->size + 1, sizeof *list);
    uint32_t *rank_of = mem_alloc_zero(v->size + 1, sizeof *rank_of);
    enum status st = list && rank_of ? ST_OK : fail_nomem(err, "the merges");
    size_t n = 0;
    for (size_t id = 0; st == ST_OK && id < v->size; id++) {
        rank_of[id] = UINT32_MAX;
        if (isnan(v->score[id]))
            st = fail(err, ST_CORRUPT, "tokenizer: the score of token %zu is not a number", id);
        else if (is_mergeable(v, id))
            list[n++] = (struct scored){v->score[id], (uint32_t)id};
    }
    if (st == ST_OK) {
        qsort(list, n, sizeof *list, by_score);
        for (size_t i = 0; i < n; i++)
            rank_of[list[i].id] = i && list[i].score == list[i - 1].score ? rank_of[list[i - 1].id] : (uint32_t)i;
        st = bpe_pairs_from_tokens(tok, rank_of, err);
    }
    mem_free(list);
    mem_free(rank_of);
    return st;
}

/* ---- control tokens become added ones ---- */
static enum status add_token(struct tokenizer *tok, int64_t id, struct str content, bool special, struct error *err)
{
    struct added a = {.id = (int32_t)id, .content = content};
    if (id < 0 || id > INT32_MAX || content.len == 0)
        return ST_OK;
    return tok_add(tok, &a, special ? TOKEN_SPECIAL : 0, err);
}

/* ---- tiktoken: lines of base64(bytes), blank, rank ---- */
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
        st = add_token(tok, e->special[i].id, str_of(e->special[i].text), true, err);
    if (st == ST_OK && str_is(str_of(e->special[0].text), "<|begin_of_text|>")) {
        tok->bos = tok->before[0] = e->special[0].id;
        tok->n_before = 1;
    }
    return st;
}

/* ---- what SentencePiece, llama2.c and GGUF's "llama" have in common ---- */
static enum status sentencepiece_common(struct tokenizer *tok, bool dummy_prefix, struct norm_step **step,
                                        struct error *err)
{
    TRY(tok_norm(tok, step, NORM_SENTENCEPIECE, err));
    (*step)->escape_spaces = true;
    (*step)->dummy_prefix = dummy_prefix;
    tok->decode_strip_first = dummy_prefix;
    tok->unknown_surface = STR(" \xE2\x81\x87 ");
    return ST_OK;
}

static enum status sentencepiece_model(struct tokenizer *tok, struct error *err)
{
    TRY(vocab_index(&tok->vocab, err));
    if (tok->model == MODEL_UNIGRAM)
        return pieces_finish(tok, err);
    TRY(pairs_by_score(tok, err));
    return bpe_finish(tok, err);
}

/* ---- llama2.c: int32 longest; then float32 score, int32 length, bytes for each token; blanks are blanks ---- */
static enum status llama2c_token(struct tokenizer *tok, struct cursor *c, int64_t id, struct buf *text,
                                 struct error *err)
{
    static const char *const fixed[] = {"<unk>", "<s>", "</s>"}; /* written with line feeds round them in some files */
    double score = (double)cursor_f32(c);
    int32_t length = cursor_i32(c);
    struct str s = cursor_bytes(c, length < 0 ? UINT64_MAX : (uint64_t)length);
    if (c->failed)
        return fail(err, ST_CORRUPT, "tokenizer.bin: token %lld has %d bytes, which ends beyond the file",
                    (long long)id, length);
    buf_clear(text);
    if (id < 3)
        s = str_of(fixed[id]);
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == ' ')
            buf_append_str(text, STR(METASPACE));
        else
            buf_append_char(text, s.ptr[i]);
    if (text->failed)
        return fail_nomem(err, "the vocabulary");
    unsigned flags = id == 0                 ? TOKEN_UNKNOWN | TOKEN_SPECIAL
                     : id < 3                ? TOKEN_CONTROL | TOKEN_SPECIAL
                     : byte_of_token(s) >= 0 ? TOKEN_BYTE
                                             : 0;
    TRY(vocab_put(&tok->vocab, id, buf_str(text), flags, err));
    tok->vocab.score[id] = score;
    return ST_OK;
}

enum status load_llama2c(struct tokenizer *tok, struct str file, struct error *err)
{
    struct cursor c = cursor_of(file.ptr, file.len);
    struct buf text = {0};
    struct norm_step *step;
    int64_t id = 0;
    cursor_skip(&c, 4);
    tok->model = MODEL_BPE;
    tok->byte_fallback = true;
    tok->decode = DECODE_FALLBACK;
    tok->unknown = 0;
    enum status st = sentencepiece_common(tok, true, &step, err);
    while (st == ST_OK && cursor_left(&c))
        st = llama2c_token(tok, &c, id++, &text, err);
    buf_free(&text);
    if (st == ST_OK && id < 3)
        st = fail(err, ST_CORRUPT, "tokenizer.bin: %lld tokens; at least <unk>, <s> and </s> are expected",
                  (long long)id);
    if (st == ST_OK)
        st = sentencepiece_model(tok, err);
    for (int i = 0; st == ST_OK && i < 3; i++)
        st = add_token(tok, i, i == 0 ? STR("<unk>") : i == 1 ? STR("<s>") : STR("</s>"), true, err);
    tok->bos = tok->before[0] = 1;
    tok->eos = 2;
    tok->n_before = 1;
    return st;
}

/* ---- SentencePiece: a protobuf of pieces (1), trainer (2) and normalizer (3) ---- */
struct field {
    uint32_t number, wire;
    uint64_t value;   /* varint, or the raw bits of fixed32 */
    struct str bytes; /* length-delimited */
};

static uint64_t varint(struct cursor *c)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b = cursor_u8(c);
        v |= (uint64_t)(b & 0x7F) << shift;
        if (b < 0x80)
            return v;
    }
    c->failed = true;
    return 0;
}

static bool next_field(struct cursor *c, struct field *f)
{
    if (c->failed || cursor_left(c) == 0)
        return false;
    uint64_t key = varint(c);
    *f = (struct field){.number = (uint32_t)(key >> 3), .wire = key & 7};
    if (f->wire == 0)
        f->value = varint(c);
    else if (f->wire == 1)
        f->value = cursor_u64(c);
    else if (f->wire == 2)
        f->bytes = cursor_bytes(c, varint(c));
    else if (f->wire == 5)
        f->value = cursor_u32(c);
    else
        c->failed = true;
    return !c->failed;
}

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

static unsigned flags_of_type(int64_t type)
{
    return type == PIECE_UNKNOWN   ? TOKEN_UNKNOWN | TOKEN_SPECIAL
           : type == PIECE_CONTROL ? TOKEN_CONTROL | TOKEN_SPECIAL
           : type == PIECE_USER    ? TOKEN_USER
           : type == PIECE_BYTE    ? TOKEN_BYTE
                                   : 0;
}

struct spm { /* what the loader gathers before it can build */
    struct norm_step *norm;
    int64_t model_type, bos, eos, unknown;
    bool any_normal;
    struct trie symbols;
};

static bool put_symbol(struct trie *t, struct str text, int32_t id)
{
    return (t->slots || trie_init(t)) && trie_put(t, text, id);
}

static enum status spm_piece(struct tokenizer *tok, struct spm *m, struct str bytes, struct error *err)
{
    struct cursor c = cursor_of(bytes.ptr, bytes.len);
    struct field f;
    struct str text = {"", 0};
    float score = 0;
    int64_t type = PIECE_NORMAL, id = (int64_t)tok->vocab.size;
    while (next_field(&c, &f)) {
        if (f.number == 1 && f.wire == 2)
            text = f.bytes;
        else if (f.number == 2 && f.wire == 5)
            memcpy(&score, &f.value, sizeof score);
        else if (f.number == 3 && f.wire == 0)
            type = (int64_t)f.value;
    }
    if (c.failed || isnan(score))
        return fail(err, ST_CORRUPT, "sentencepiece: piece %lld is damaged", (long long)id);
    if (type == PIECE_UNUSED)
        return fail(err, ST_UNSUPPORTED, "sentencepiece: piece %lld \"%.*s\" has the type \"unused\"", (long long)id,
                    STR_ARG(text));
    TRY(vocab_put(&tok->vocab, id, text, flags_of_type(type), err));
    tok->vocab.score[id] = (double)score;
    if (type == PIECE_NORMAL) {
        tok->min_score = !m->any_normal || (double)score < tok->min_score ? (double)score : tok->min_score;
        m->any_normal = true;
    }
    if (type == PIECE_UNKNOWN)
        m->unknown = id;
    if (type == PIECE_USER && text.len) {
        bool guarded = looks_like_markup(text);
        tok->vocab.flags[id] |= guarded ? TOKEN_GUARDED : 0;
        if (!put_symbol(&tok->symbols, text, (int32_t)id) ||
            (!guarded && !put_symbol(&tok->symbols_plain, text, (int32_t)id)))
            return fail_nomem(err, "the vocabulary");
        m->norm->symbols = &tok->symbols;
    }
    return ST_OK;
}

static enum status spm_trainer(struct tokenizer *tok, struct spm *m, struct str bytes, struct error *err)
{
    struct cursor c = cursor_of(bytes.ptr, bytes.len);
    struct field f;
    while (next_field(&c, &f)) {
        if (f.number == 3 && f.wire == 0)
            m->model_type = (int64_t)f.value;
        else if (f.number == 24 && f.wire == 0)
            m->norm->as_suffix = f.value != 0;
        else if (f.number == 35 && f.wire == 0)
            tok->byte_fallback = f.value != 0;
        else if (f.number == 41 && f.wire == 0)
            m->bos = (int64_t)f.value;
        else if (f.number == 42 && f.wire == 0)
            m->eos = (int64_t)f.value;
        else if (f.number == 44 && f.wire == 2) {
            tok->unknown_surface = tok_copy(tok, f.bytes);
            if (!tok->unknown_surface.ptr)
                return fail_nomem(err, "the tokenizer");
        }
    }
    return c.failed ? fail(err, ST_CORRUPT, "sentencepiece: the trainer's settings are damaged") : ST_OK;
}

static enum status spm_normalizer(struct tokenizer *tok, struct spm *m, struct str bytes, struct error *err)
{
    struct cursor c = cursor_of(bytes.ptr, bytes.len);
    struct field f;
    while (next_field(&c, &f)) {
        if (f.number == 2 && f.wire == 2) {
            struct str blob = tok_copy(tok, f.bytes);
            if (!blob.ptr)
                return fail_nomem(err, "the character map");
            TRY(charsmap_open(&m->norm->map, blob, err));
        } else if (f.number == 3 && f.wire == 0) {
            m->norm->dummy_prefix = f.value != 0;
        } else if (f.number == 4 && f.wire == 0) {
            m->norm->remove_spaces = f.value != 0;
        } else if (f.number == 5 && f.wire == 0) {
            m->norm->escape_spaces = f.value != 0;
        }
    }
    return c.failed ? fail(err, ST_CORRUPT, "sentencepiece: the normalizer's settings are damaged") : ST_OK;
}

static enum status spm_finish(struct tokenizer *tok, struct spm *m, struct error *err)
{
    size_t size = tok->vocab.size;
    if (size == 0 || m->unknown < 0)
        return fail(err, ST_CORRUPT, "sentencepiece: %zu pieces, %s unknown piece among them", size,
                    m->unknown < 0 ? "no" : "an");
    if (m->model_type != 1 && m->model_type != 2)
        return fail(err, ST_UNSUPPORTED, "sentencepiece: model type %lld; 1 (unigram) and 2 (BPE) are supported",
                    (long long)m->model_type);
    tok->model = m->model_type == 1 ? MODEL_UNIGRAM : MODEL_BPE;
    tok->unknown = (int32_t)m->unknown;
    tok->fuse_unknown = tok->float_scores = true;
    tok->decode = DECODE_SENTENCEPIECE;
    tok->decode_strip_all = m->norm->remove_spaces;
    tok->decode_strip_first = m->norm->dummy_prefix || m->norm->remove_spaces;
    TRY(sentencepiece_model(tok, err));
    for (size_t id = 0; id < size; id++) {
        unsigned flags = tok->vocab.flags[id];
        if (!(flags & (TOKEN_CONTROL | TOKEN_UNKNOWN | TOKEN_GUARDED)))
            continue;
        struct added a = {.id = (int32_t)id, .pieces_only = flags & TOKEN_GUARDED};
        a.content = tok_copy(tok, vocab_text(&tok->vocab, (int32_t)id)); /* adding may move the original */
        if (!a.content.ptr)
            return fail_nomem(err, "the tokenizer");
        if (a.content.len)
            TRY(tok_add(tok, &a, flags & TOKEN_SPECIAL, err));
    }
    /* As the families that ship such files do: Llama and Mistral begin with BOS; T5, which has none, ends with EOS. */
    if (m->bos >= 0 && (size_t)m->bos < size)
        tok->bos = (int32_t)m->bos;
    if (m->eos >= 0 && (size_t)m->eos < size)
        tok->eos = (int32_t)m->eos;
    if (tok->bos >= 0 && tok->model == MODEL_BPE)
        tok->before[tok->n_before++] = tok->bos;
    else if (tok->bos < 0 && tok->eos >= 0)
        tok->after[tok->n_after++] = tok->eos;
    return ST_OK;
}

enum status load_sentencepiece(struct tokenizer *tok, struct str file, struct error *err)
{
    struct cursor c = cursor_of(file.ptr, file.len);
    struct spm m = {.model_type = 1, .bos = 1, .eos = 2, .unknown = -1};
    struct field f;
    TRY(sentencepiece_common(tok, true, &m.norm, err));
    m.norm->remove_spaces = true;
    while (next_field(&c, &f)) {
        if (f.wire != 2)
            continue;
        if (f.number == 1)
            TRY(spm_piece(tok, &m, f.bytes, err));
        else if (f.number == 2)
            TRY(spm_trainer(tok, &m, f.bytes, err));
        else if (f.number == 3)
            TRY(spm_normalizer(tok, &m, f.bytes, err));
    }
    if (c.failed)
        return fail(err, ST_CORRUPT, "sentencepiece: the file is damaged or cut off after byte %zu", cursor_offset(&c));
    return spm_finish(tok, &m, err);
}

/* ---- GGUF ---- */
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
        unsigned flags = flags_of_type(type) & ~(unsigned)TOKEN_USER;
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
            TRY(add_token(tok, (int64_t)i, tokens->strings[i], type != PIECE_USER, err));
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
    if (template.ptr) {
        tok->chat_template = tok_copy(tok, template);
        if (!tok->chat_template.ptr)
            return fail_nomem(err, "the chat template");
    }
    return ST_OK;
}
