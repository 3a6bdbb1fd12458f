/* pieces - unigram (the path of highest score) and word pieces (greedy longest match) */
#include "tokenizer/tok.h"
#include "tokenizer/uchar.h"

#include <stdio.h>

#define UNKNOWN_PENALTY 10.0 /* an unknown character costs this much more than the rarest piece */

enum status pieces_finish(struct tokenizer *tok, struct error *err)
{
    const struct vocab *v = &tok->vocab;
    if (!trie_init(&tok->pieces) || !trie_init(&tok->pieces_inner))
        return fail_nomem(err, "the vocabulary's trie");
    for (size_t id = 0; id < v->size; id++) {
        struct str s = vocab_bytes(v, (int32_t)id);
        unsigned flags = v->flags[id];
        if (!(flags & TOKEN_PRESENT) || flags & TOKEN_ADDED || s.len == 0)
            continue;
        if (tok->model == MODEL_UNIGRAM && flags & (TOKEN_CONTROL | TOKEN_UNKNOWN | TOKEN_BYTE))
            continue;
        bool inner = tok->model == MODEL_WORDPIECE && str_starts(s, tok->inner_prefix) && s.len > tok->inner_prefix.len;
        if (!trie_put(&tok->pieces, s, (int32_t)id) ||
            (inner && !trie_put(&tok->pieces_inner, str_from(s, tok->inner_prefix.len), (int32_t)id)))
            return fail_nomem(err, "the vocabulary's trie");
    }
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        tok->byte_id[b] = tok->byte_fallback ? vocab_find(v, str_of(name)) : NO_ID;
    }
    return ST_OK;
}

/* Writes the unknown stretch [p, end): as its bytes' tokens when all are there, else as one unknown token. */
static bool unknown_push(const struct tokenizer *tok, struct ids *out, const char *p, const char *end)
{
    bool all = tok->byte_fallback;
    for (const char *q = p; all && q < end; q++)
        all = tok->byte_id[(unsigned char)*q] >= 0;
    if (!all)
        return tok->unknown < 0 || ids_push(out, tok->unknown);
    for (; p < end; p++)
        if (!ids_push(out, tok->byte_id[(unsigned char)*p]))
            return false;
    return true;
}

/* A user-defined piece scores 0: no sum of logarithms is greater, so that it always wins. */
static double piece_score(const struct tokenizer *tok, int32_t id)
{
    return tok->vocab.flags[id] & TOKEN_USER ? 0 : tok->vocab.score[id];
}

/* sentencepiece sums in float, Hugging Face in double: which of two equal paths wins hangs on it. */
static inline double add(const struct tokenizer *tok, double a, double b)
{
    return tok->float_scores ? (double)((float)a + (float)b) : a + b;
}

bool unigram_encode(const struct tokenizer *tok, struct scratch *s, struct ids *out, const char *piece, size_t n)
{
    struct path_node *best = scratch_work(s, n + 1, sizeof *best);
    if (!best || n >= UINT32_MAX)
        return false;
    for (size_t i = 0; i <= n; i++)
        best[i] = (struct path_node){0, UINT32_MAX, NO_ID};
    const double unknown_score = add(tok, tok->min_score, -UNKNOWN_PENALTY);
    for (size_t at = 0, width; at < n; at += width) {
        int len;
        (void)uchar_at(piece + at, piece + n, &len);
        width = (size_t)len;
        double here = best[at].score;
        bool has_single = false;
        uint32_t node = TRIE_ROOT;
        for (size_t end = at; end < n && (node = trie_step(&tok->pieces, node, (unsigned char)piece[end])) != 0;
             end++) {
            int32_t id = tok->pieces.value[node];
            if (id < 0 || (s->guarded && tok->vocab.flags[id] & (TOKEN_GUARDED | TOKEN_SPECIAL)))
                continue;
            double score = add(tok, here, piece_score(tok, id));
            struct path_node *to = &best[end + 1];
            if (to->start == UINT32_MAX || score > to->score)
                *to = (struct path_node){score, (uint32_t)at, id};
            has_single |= end + 1 - at == width;
        }
        struct path_node *to = &best[at + width];
        double score = add(tok, here, unknown_score);
        if (!has_single && (to->start == UINT32_MAX || score > to->score))
            *to = (struct path_node){score, (uint32_t)at, NO_ID};
    }
    /* Turn the path round in place: each start is told where its token ends. */
    size_t end = n;
    for (size_t at = n; at > 0;) {
        size_t start = best[at].start;
        int32_t id = best[at].id;
        best[at].start = (uint32_t)end;
        best[at].score = (double)id;
        end = at;
        at = start;
    }
    for (size_t at = 0; at < n;) {
        size_t to = end;
        int32_t id = (int32_t)best[to].score;
        size_t next = best[to].start;
        if (id >= 0) {
            if (!ids_push(out, id))
                return false;
        } else {
            while (to < n && best[next].score < 0) { /* neighbouring unknown characters are one token */
                to = next;
                next = best[to].start;
            }
            if (!unknown_push(tok, out, piece + at, piece + to))
                return false;
        }
        at = to;
        end = next;
    }
    return true;
}

bool wordpiece_encode(const struct tokenizer *tok, struct ids *out, const char *piece, size_t n)
{
    size_t before = out->count, n_char = 0;
    for (size_t i = 0; i < n; i++)
        n_char += ((unsigned char)piece[i] & 0xC0) != 0x80;
    if (n_char > tok->word_chars_max)
        return tok->unknown < 0 || ids_push(out, tok->unknown);
    for (size_t at = 0, end; at < n; at = end) {
        const struct trie *t = at == 0 ? &tok->pieces : &tok->pieces_inner;
        uint32_t node = TRIE_ROOT;
        int32_t id = NO_ID;
        end = at;
        for (size_t i = at; i < n && (node = trie_step(t, node, (unsigned char)piece[i])) != 0; i++)
            if (t->value[node] >= 0) {
                id = t->value[node];
                end = i + 1;
            }
        if (id < 0) { /* one part unknown: the whole word is */
            out->count = before;
            return tok->unknown < 0 || ids_push(out, tok->unknown);
        }
        if (!ids_push(out, id))
            return false;
    }
    return true;
}
