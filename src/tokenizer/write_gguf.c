/* write_gguf - a tokenizer as the keys of a GGUF file, in llama.cpp's words
 *
 * Written from the loaded tokenizer, whatever file it came from: byte-level BPE as "gpt2", SentencePiece's BPE as
 * "llama", unigram as "t5", word pieces as "bert". What the keys cannot say is refused by name, for the file would give
 * other ids. Two keys are Ingot's own, and other programs come as close without them as with llama.cpp's own files:
 * tokenizer.ingot.nfc, and tokenizer.ingot.metaspace for blanks as in tokenizer.json. Left unsaid are the blanks that
 * an added token swallows.
 */
#include "tokenizer/tok.h"

#include <stdio.h>
#include <stdlib.h>

#define PAD_SCORE (-10000.0f) /* no text is worth an unused id */

struct gguf_vocab {
    struct gguf_writer *w;
    const struct tokenizer *tok;
    struct arena arena;
    size_t n;           /* ids of the model; the vocabulary may have fewer */
    struct str *tokens; /* [n] as GGUF spells them */
    int64_t *types;     /* [n] enum piece_type */
    float *scores;      /* [n] */
    bool dummy_prefix, remove_spaces;
    const char *metaspace; /* the prefix of Hugging Face's Metaspace; NULL: SentencePiece's own ways */
    const struct charsmap *map;
};

static enum status refuse(struct error *err, const char *what)
{
    return fail(err, ST_UNSUPPORTED,
                "write: a GGUF's tokenizer has no words for %s; write a Hugging Face folder instead", what);
}

/* ---- tokens and their types ---- */

/* Byte-level vocabularies are spelled with GPT-2's printable bytes; ranks hold the bytes themselves. */
static struct str spelled(struct gguf_vocab *g, int32_t id)
{
    const struct vocab *v = &g->tok->vocab;
    if (!g->tok->by_bytes || v->bytes != v->text || v->flags[id] & TOKEN_ADDED)
        return vocab_text(v, id);
    struct buf text = {0};
    printable_from_bytes(&text, vocab_bytes(v, id));
    struct str s = {text.failed ? NULL : arena_copy(&g->arena, buf_str(&text)), text.len};
    buf_free(&text);
    return s;
}

static int64_t type_of_id(const struct tokenizer *tok, int32_t id)
{
    unsigned flags = tok->vocab.flags[id];
    return id == tok->unknown && !tok->by_bytes ? PIECE_UNKNOWN
           : flags & TOKEN_SPECIAL              ? PIECE_CONTROL
           : flags & TOKEN_BYTE                 ? PIECE_BYTE
           : flags & TOKEN_USER                 ? PIECE_USER
                                                : PIECE_NORMAL;
}

static enum status tokens_collect(struct gguf_vocab *g, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    const struct vocab *v = &tok->vocab;
    g->tokens = arena_alloc_zero(&g->arena, g->n, sizeof *g->tokens);
    g->types = arena_alloc_zero(&g->arena, g->n, sizeof *g->types);
    g->scores = arena_alloc_zero(&g->arena, g->n, sizeof *g->scores);
    if (!g->tokens || !g->types || !g->scores)
        return fail_nomem(err, "write");
    for (size_t i = 0; i < g->n; i++) {
        char pad[24];
        if (i < v->size && v->flags[i] & TOKEN_PRESENT) {
            g->tokens[i] = spelled(g, (int32_t)i);
            g->types[i] = type_of_id(tok, (int32_t)i);
            g->scores[i] = (float)v->score[i];
        } else {
            int n = snprintf(pad, sizeof pad, "[PAD%zu]", i);
            g->tokens[i] = (struct str){arena_copy(&g->arena, str_n(pad, (size_t)n)), (size_t)n};
            g->types[i] = PIECE_UNUSED;
            g->scores[i] = PAD_SCORE;
        }
        if (!g->tokens[i].ptr)
            return fail_nomem(err, "write");
    }
    for (size_t i = 0; i < tok->n_added; i++) { /* the vocabulary may hold them as a normalized text spells them */
        const struct added *a = &tok->added[i];
        g->tokens[a->id] = a->content;
        if (g->types[a->id] == PIECE_NORMAL)
            g->types[a->id] = PIECE_USER;
    }
    return ST_OK;
}

/* ---- byte-level BPE ---- */
static int by_rank(const void *a, const void *b)
{
    const struct pair_slot *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->left != y->left ? (x->left < y->left ? -1 : 1) : (x->right > y->right) - (x->right < y->right);
}

/* All merges in the order they are made; in the arena. */
static struct pair_slot *pairs_sorted(struct gguf_vocab *g, size_t *n)
{
    const struct tokenizer *tok = g->tok;
    *n = 0;
    for (size_t i = 0; i <= tok->pair_mask; i++)
        *n += tok->pairs[i].left != UINT32_MAX;
    struct pair_slot *list = arena_alloc_zero(&g->arena, *n + 1, sizeof *list);
    for (size_t i = 0, k = 0; list && i <= tok->pair_mask; i++)
        if (tok->pairs[i].left != UINT32_MAX)
            list[k++] = tok->pairs[i];
    if (list)
        qsort(list, *n, sizeof *list, by_rank);
    return list;
}

static enum status put_merges(struct gguf_vocab *g, struct error *err)
{
    size_t n;
    const struct pair_slot *pairs = pairs_sorted(g, &n);
    struct str *merges = arena_alloc_zero(&g->arena, n + 1, sizeof *merges);
    if (!pairs || !merges)
        return fail_nomem(err, "write");
    for (size_t i = 0; i < n; i++) {
        struct str left = g->tokens[pairs[i].left], right = g->tokens[pairs[i].right];
        char *text = arena_alloc(&g->arena, left.len + 1 + right.len);
        if (!text)
            return fail_nomem(err, "write");
        memcpy(text, left.ptr, left.len);
        text[left.len] = ' ';
        memcpy(text + left.len + 1, right.ptr, right.len);
        merges[i] = str_n(text, left.len + 1 + right.len);
    }
    gguf_put_strings(g->w, "tokenizer.ggml.merges", merges, n);
    return ST_OK;
}

static enum status put_gpt2(struct gguf_vocab *g, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    split_fn *chain[PRE_STEPS_MAX + 1] = {NULL};
    int n_chain = 0;
    bool prefix = false, ranks = tok->vocab.bytes == tok->vocab.text;
    if (tok->n_norm > 1 || (tok->n_norm && tok->norm[0].type != NORM_NFC))
        return refuse(err, "a normalizer of a byte-level BPE");
    for (int i = 0; i < tok->n_pre; i++) {
        const struct pre_step *s = &tok->pre[i];
        if (s->type == PRE_PREFIX_SPACE && i == 0)
            prefix = true;
        else if (s->type != PRE_SPLIT || s->drop_gaps || s->drop_matches)
            return refuse(err, "this pre-tokenizer");
        else
            chain[n_chain++] = s->split;
    }
    /* of ranks every token can be merged: whether a whole piece is looked up first makes no difference */
    const char *pre = split_name_pre(chain, tok->ignore_merges);
    if (!pre && ranks)
        pre = split_name_pre(chain, !tok->ignore_merges);
    if (!pre)
        return refuse(err, "how this one splits a text before merging");
    if (tok->word_suffix.len || tok->word_prefix.len)
        return refuse(err, "marks at the ends of words");
    gguf_put_string(g->w, "tokenizer.ggml.model", STR("gpt2"));
    gguf_put_string(g->w, "tokenizer.ggml.pre", str_of(pre));
    if (prefix)
        gguf_put_bool(g->w, "tokenizer.ggml.add_space_prefix", true);
    if (tok->n_norm)
        gguf_put_bool(g->w, "tokenizer.ingot.nfc", true);
    return put_merges(g, err);
}

/* ---- SentencePiece: BPE and unigram ---- */

/* What is done to a text, in SentencePiece's words; its own files say so, tokenizer.json in several ways. */
static bool spaces_known(struct gguf_vocab *g)
{
    const struct tokenizer *tok = g->tok;
    const struct norm_step *norm = tok->norm, *norm_end = norm + tok->n_norm;
    const struct pre_step *pre = tok->pre, *pre_end = pre + tok->n_pre;
    if (norm < norm_end && norm->type == NORM_SENTENCEPIECE) {
        g->dummy_prefix = norm->dummy_prefix;
        g->remove_spaces = norm->remove_spaces;
        g->map = &norm->map;
        return tok->n_norm == 1 && tok->n_pre == 0 && norm->escape_spaces && !(norm->dummy_prefix && norm->as_suffix);
    }
    bool escaped = false;
    if (norm < norm_end && norm->type == NORM_PRECOMPILED)
        g->map = &norm++->map;
    if (norm < norm_end && norm->type == NORM_PREPEND && str_is(norm->to, METASPACE)) {
        g->dummy_prefix = true;
        norm++;
    }
    if (norm < norm_end && norm->type == NORM_REPLACE && str_is(norm->from, " ") && str_is(norm->to, METASPACE)) {
        escaped = true;
        norm++;
    }
    if (pre < pre_end && pre->type == PRE_SPLIT && pre->split == split_nonspace && pre->drop_gaps) {
        g->remove_spaces = true;
        pre++;
    }
    if (pre < pre_end && pre->type == PRE_METASPACE &&
        (!pre->cut || tok->model == MODEL_UNIGRAM || tok->cut_metaspace)) {
        if (escaped || g->dummy_prefix)
            return false;
        g->metaspace = metaspace_prefixes[pre->prefix];
        g->dummy_prefix = pre->prefix != PREFIX_NEVER;
        escaped = true;
        pre++;
    }
    return escaped && norm == norm_end && pre == pre_end && (g->metaspace || !(g->map || g->remove_spaces));
}

/* A user-defined piece is cut out of a text before the model sees it, and what follows begins with a blank again, if
 * texts do; inside longer pieces SentencePiece's unigram does not cut. For one that looks like markup that is right. */
static bool is_open_symbol(const struct vocab *v, int32_t id)
{
    return id >= 0 && v->flags[id] & TOKEN_USER && !(v->flags[id] & TOKEN_GUARDED);
}

/* One of the symbols stands inside of the piece: substrings of the lengths they have, looked up. */
static bool holds_symbol(const struct vocab *v, struct str piece, const uint8_t *lengths, size_t longest)
{
    for (size_t n = 1; n <= longest && n <= piece.len; n++)
        for (size_t at = 0; lengths[n] && at + n <= piece.len; at++)
            if (is_open_symbol(v, vocab_find(v, str_n(piece.ptr + at, n))))
                return true;
    return false;
}

static enum status any_symbol_matters(bool *out, struct gguf_vocab *g, struct error *err)
{
    const struct vocab *v = &g->tok->vocab;
    size_t longest = 0;
    bool any = false, unigram = g->tok->model == MODEL_UNIGRAM;
    *out = false;
    for (size_t i = 0; i < v->size; i++)
        if (is_open_symbol(v, (int32_t)i)) {
            any = true;
            longest = g->tokens[i].len > longest ? g->tokens[i].len : longest;
        }
    *out = any && g->dummy_prefix;
    if (*out || !any || !unigram)
        return ST_OK;
    uint8_t *lengths = arena_alloc_zero(&g->arena, longest + 1, 1);
    if (!lengths)
        return fail_nomem(err, "write");
    for (size_t i = 0; i < v->size; i++)
        if (is_open_symbol(v, (int32_t)i))
            lengths[g->tokens[i].len] = 1;
    for (size_t k = 0; k < g->n && !*out; k++)
        *out = g->types[k] == PIECE_NORMAL && holds_symbol(v, g->tokens[k], lengths, longest);
    return ST_OK;
}

/* Scores for a vocabulary of merges: the sooner a token is made, the higher. They say the same only when each token's
 * merges stand together, and when every two tokens that join to one are a merge. */
static enum status scores_of_merges(struct gguf_vocab *g, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    const struct vocab *v = &tok->vocab;
    size_t n, splits = 0, made = 0;
    const struct pair_slot *pairs = pairs_sorted(g, &n);
    bool *seen = arena_alloc_zero(&g->arena, g->n, sizeof *seen);
    if (!pairs || !seen)
        return fail_nomem(err, "write");
    for (size_t i = 0; i < n; i++) {
        uint32_t id = pairs[i].merged;
        if (i && id == pairs[i - 1].merged)
            continue;
        if (seen[id])
            return refuse(err, "merges whose order is not that of the tokens they make");
        seen[id] = true;
        g->scores[id] = -(float)made++;
    }
    for (size_t id = 0; id < v->size; id++) {
        struct str s = vocab_bytes(v, (int32_t)id);
        if (g->types[id] != PIECE_NORMAL)
            continue;
        if (!seen[id])
            g->scores[id] = -(float)made;
        for (size_t cut = 1; cut < s.len; cut++) {
            int32_t left = vocab_find(v, str_n(s.ptr, cut)), right = left < 0 ? -1 : vocab_find(v, str_from(s, cut));
            splits += right >= 0 && g->types[left] == PIECE_NORMAL && g->types[right] == PIECE_NORMAL;
        }
    }
    return splits == n ? ST_OK : refuse(err, "tokens that no merge makes");
}

static enum status put_sentencepiece(struct gguf_vocab *g, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    bool unigram = tok->model == MODEL_UNIGRAM, any_byte = false;
    if (!spaces_known(g))
        return refuse(err, "what this one does to the blanks of a text");
    bool cuts;
    TRY(any_symbol_matters(&cuts, g, err));
    if (cuts)
        return refuse(err, "user-defined pieces that are part of ordinary text");
    for (size_t i = 0; i < g->n; i++)
        any_byte = any_byte || g->types[i] == PIECE_BYTE;
    if (any_byte && (unigram || !tok->byte_fallback))
        return refuse(err, unigram ? "byte tokens of a unigram vocabulary" : "byte tokens that stand for no bytes");
    if (!unigram && tok->norm[0].type != NORM_SENTENCEPIECE)
        TRY(scores_of_merges(g, err));
    gguf_put_string(g->w, "tokenizer.ggml.model", unigram ? STR("t5") : STR("llama"));
    gguf_put_string(g->w, "tokenizer.ggml.pre", STR("default"));
    gguf_put_reals(g->w, "tokenizer.ggml.scores", g->scores, g->n);
    gguf_put_bool(g->w, "tokenizer.ggml.add_space_prefix", g->dummy_prefix);
    gguf_put_bool(g->w, "tokenizer.ggml.remove_extra_whitespaces", g->remove_spaces);
    if (g->metaspace)
        gguf_put_string(g->w, "tokenizer.ingot.metaspace", str_of(g->metaspace));
    if (g->map && g->map->n_unit) {
        size_t size = 4 + 4 * g->map->n_unit + g->map->strings.len; /* the file's bytes, where they were read */
        const uint8_t *bytes = (const uint8_t *)g->map->units - 4;
        int64_t *wide = arena_alloc_zero(&g->arena, size, sizeof *wide);
        if (!wide)
            return fail_nomem(err, "write");
        for (size_t i = 0; i < size; i++)
            wide[i] = bytes[i];
        gguf_put_ints(g->w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, wide, size);
    }
    return ST_OK;
}

/* ---- word pieces ---- */

/* U+2581 before a piece that begins a word, nothing before the others; what stands in brackets stays as it is. */
static struct str phantom_space(struct gguf_vocab *g, size_t id)
{
    struct str s = g->tokens[id], prefix = g->tok->inner_prefix;
    if (g->types[id] != PIECE_NORMAL || (s.len > 2 && s.ptr[0] == '[' && s.ptr[s.len - 1] == ']'))
        return s;
    if (str_starts(s, prefix) && s.len > prefix.len)
        return str_from(s, prefix.len);
    char *text = arena_alloc(&g->arena, s.len + 3);
    if (text) {
        struct str space = STR(METASPACE);
        memcpy(text, space.ptr, space.len);
        memcpy(text + 3, s.ptr, s.len);
    }
    return (struct str){text, s.len + 3};
}

static enum status put_bert(struct gguf_vocab *g, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    const struct norm_step *norm = &tok->norm[0];
    const struct pre_step *pre = &tok->pre[0];
    if (tok->n_norm != 1 || norm->type != NORM_BERT || !norm->clean || !norm->cjk || tok->n_pre != 1 ||
        pre->type != PRE_SPLIT || pre->split != split_bert || !pre->drop_gaps)
        return refuse(err, "word pieces that are not split as BERT does");
    if (tok->n_before != 1 || tok->n_after != 1 || tok->unknown < 0 || tok->word_chars_max != 100)
        return refuse(err, "word pieces without [CLS], [SEP] and [UNK], or words not of at most 100 characters");
    for (size_t i = 0; i < g->n; i++) {
        g->tokens[i] = phantom_space(g, i);
        if (!g->tokens[i].ptr)
            return fail_nomem(err, "write");
    }
    gguf_put_string(g->w, "tokenizer.ggml.model", STR("bert"));
    gguf_put_string(g->w, "tokenizer.ggml.pre", STR("default"));
    gguf_put_int(g->w, "tokenizer.ggml.cls_token_id", GGUF_U32, tok->before[0]);
    gguf_put_int(g->w, "tokenizer.ggml.seperator_token_id", GGUF_U32, tok->after[0]);
    gguf_put_bool(g->w, "tokenizer.ggml.normalizer.lowercase", norm->lowercase);
    gguf_put_bool(g->w, "tokenizer.ggml.normalizer.strip_accents", norm->strip_accents);
    return ST_OK;
}

/* ---- what all have ---- */
static enum status put_ids(struct gguf_vocab *g, int32_t bos, int32_t eos, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    bos = tok->n_before == 1 ? tok->before[0] : tok->bos >= 0 ? tok->bos : bos;
    eos = tok->eos >= 0 ? tok->eos : tok->n_after == 1 ? tok->after[0] : eos;
    if (tok->model == MODEL_WORDPIECE)
        eos = tok->after[0];
    if (tok->n_before > 1 || tok->n_after > 1 || (tok->n_after && tok->after[0] != eos))
        return refuse(err, "what this one puts before and after a text");
    gguf_put_bool(g->w, "tokenizer.ggml.add_bos_token", tok->n_before > 0);
    gguf_put_bool(g->w, "tokenizer.ggml.add_eos_token", tok->n_after > 0);
    if (bos >= 0)
        gguf_put_int(g->w, "tokenizer.ggml.bos_token_id", GGUF_U32, bos);
    if (eos >= 0)
        gguf_put_int(g->w, "tokenizer.ggml.eos_token_id", GGUF_U32, eos);
    if (tok->unknown >= 0 && !tok->by_bytes)
        gguf_put_int(g->w, "tokenizer.ggml.unknown_token_id", GGUF_U32, tok->unknown);
    if (tok->chat_template.ptr)
        gguf_put_string(g->w, "tokenizer.chat_template", tok->chat_template);
    return ST_OK;
}

static enum status put_all(struct gguf_vocab *g, int32_t bos, int32_t eos, struct error *err)
{
    const struct tokenizer *tok = g->tok;
    TRY(tokens_collect(g, err));
    TRY(tok->model == MODEL_WORDPIECE ? put_bert(g, err)
        : tok->by_bytes               ? put_gpt2(g, err)
                                      : put_sentencepiece(g, err));
    gguf_put_strings(g->w, "tokenizer.ggml.tokens", g->tokens, g->n);
    gguf_put_ints(g->w, "tokenizer.ggml.token_type", GGUF_I32, g->types, g->n);
    return put_ids(g, bos, eos, err);
}

enum status tokenizer_write_gguf(const struct tokenizer *tok, struct gguf_writer *w, int32_t n_id, int32_t bos,
                                 int32_t eos, struct error *err)
{
    struct gguf_vocab g = {.w = w, .tok = tok, .n = (size_t)n_id};
    if (n_id < 0 || (size_t)n_id < tok->vocab.size)
        return fail(err, ST_CORRUPT, "write: the tokenizer has %zu ids, but the model %d", tok->vocab.size, n_id);
    arena_init(&g.arena, 0);
    enum status st = put_all(&g, bos, eos, err);
    arena_free(&g.arena);
    return st;
}
