/* load_spm - SentencePiece .model and llama2.c tokenizer.bin, and what a GGUF's "llama" and "t5" share with them */
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

/* ---- what SentencePiece, llama2.c and GGUF's "llama" have in common ---- */
enum status sentencepiece_common(struct tokenizer *tok, bool dummy_prefix, struct norm_step **step, struct error *err)
{
    TRY(tok_norm(tok, step, NORM_SENTENCEPIECE, err));
    (*step)->escape_spaces = true;
    (*step)->dummy_prefix = dummy_prefix;
    tok->decode_strip_first = dummy_prefix;
    tok->unknown_surface = STR(" \xE2\x81\x87 ");
    return ST_OK;
}

enum status sentencepiece_model(struct tokenizer *tok, struct error *err)
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
        st = tok_add_control(tok, i, i == 0 ? STR("<unk>") : i == 1 ? STR("<s>") : STR("</s>"), true, err);
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

unsigned piece_flags(int64_t type)
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
    TRY(vocab_put(&tok->vocab, id, text, piece_flags(type), err));
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
