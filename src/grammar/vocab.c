/* vocab - the tokens as a trie, and what is known beforehand about the most frequent place: inside a JSON string
 *
 * In a string of any characters most of the vocabulary may come next. Which tokens stay inside, and which leave through
 * the closing quote and with what behind it, depends on nothing but the vocabulary: it is computed here, once. Of those
 * that leave, only what follows the quote must be tried in each place, once a different ending.
 */
#include "grammar/private.h"

struct token {
    struct str bytes;
    uint32_t id;
};

static int by_bytes(const void *x, const void *y)
{
    const struct token *a = x, *b = y;
    size_t n = a->bytes.len < b->bytes.len ? a->bytes.len : b->bytes.len;
    int c = n ? memcmp(a->bytes.ptr, b->bytes.ptr, n) : 0;
    if (c == 0)
        c = a->bytes.len < b->bytes.len ? -1 : a->bytes.len > b->bytes.len;
    return c ? c : a->id < b->id ? -1 : a->id > b->id;
}

static size_t common(struct str a, struct str b)
{
    size_t n = 0;
    while (n < a.len && n < b.len && a.ptr[n] == b.ptr[n])
        n++;
    return n;
}

static void trie_free(struct trie *t)
{
    mem_free(t->byte);
    mem_free(t->depth);
    mem_free(t->skip);
    mem_free(t->first);
    mem_free(t->order);
}

/* tokens: sorted by bytes. A node's subtree ends where a later node is no deeper. */
static bool trie_make(struct trie *t, const struct token *tokens, size_t n)
{
    size_t n_node = 0;
    for (size_t i = 0; i < n; i++)
        n_node += tokens[i].bytes.len - (i ? common(tokens[i - 1].bytes, tokens[i].bytes) : 0);
    *t = (struct trie){.n_node = (uint32_t)n_node, .n_token = (uint32_t)n};
    t->byte = mem_alloc_zero(n_node + 1, 1);
    t->depth = mem_alloc_zero(n_node + 1, 1);
    t->skip = mem_alloc_zero(n_node + 1, sizeof *t->skip);
    t->first = mem_alloc_zero(n_node + 1, sizeof *t->first);
    t->order = mem_alloc_zero(n + 1, sizeof *t->order);
    if (!t->byte || !t->depth || !t->skip || !t->first || !t->order)
        return false;
    uint32_t open[TOKEN_BYTES_MAX + 1], at = 0;
    size_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        size_t same = i ? common(tokens[i - 1].bytes, tokens[i].bytes) : 0;
        while (depth > same)
            t->skip[open[--depth]] = at;
        for (; depth < tokens[i].bytes.len; depth++, at++) {
            open[depth] = at;
            t->byte[at] = (uint8_t)tokens[i].bytes.ptr[depth];
            t->depth[at] = (uint8_t)(depth + 1);
            t->first[at] = (uint32_t)i;
        }
        t->order[i] = tokens[i].id;
        t->root_first += tokens[i].bytes.len == 0;
    }
    while (depth)
        t->skip[open[--depth]] = at;
    t->first[at] = (uint32_t)n;
    return true;
}

/* ---- inside any string ---- */

struct leaving {
    struct token suffix; /* its id: the token's */
    uint8_t chars;
};

static int by_suffix(const void *x, const void *y)
{
    return by_bytes(&((const struct leaving *)x)->suffix, &((const struct leaving *)y)->suffix);
}

/* How a token goes on inside a string: its characters, and the offset behind the quote that ends it (0: it stays). */
static bool try_token(const struct dfa *any, struct str bytes, uint8_t *chars, size_t *end)
{
    struct text_at at = {.q = DFA_START};
    unsigned n = 0;
    *end = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        enum text_result r = text_step(any, &at, (uint8_t)bytes.ptr[i], NULL, NULL);
        if (r == TEXT_DEAD)
            return false;
        n += r == TEXT_CHAR;
        if (r == TEXT_CLOSE) {
            if (!any->accept[at.q])
                return false;
            *end = i + 1;
            break;
        }
    }
    if (!*end && at.lex != LEX_PLAIN) /* an escape that is open needs its character, too */
        n++;
    *chars = (uint8_t)n;
    return true;
}

static bool keep_staying(struct grammar_vocab *v, const uint8_t *chars, const bool *stays)
{
    v->by_chars = mem_alloc_zero((size_t)v->n_stay + 1, sizeof *v->by_chars);
    v->stay = mem_alloc_zero((size_t)v->n_word, sizeof *v->stay);
    for (int k = 0; k < CHARS_SMALL; k++)
        v->stay_small[k] = mem_alloc_zero((size_t)v->n_word, sizeof *v->stay);
    if (!v->by_chars || !v->stay || !v->stay_small[CHARS_SMALL - 1])
        return false;
    uint32_t n = 0;
    for (int c = 0; c <= TOKEN_BYTES_MAX + 1; c++) {
        v->chars_at[c] = n;
        for (int id = 0; n < v->n_stay && id < v->n_vocab; id++)
            if (stays[id] && chars[id] == c)
                v->by_chars[n++] = (uint32_t)id;
        v->chars_max = n > v->chars_at[c] ? c : v->chars_max;
    }
    v->chars_at[TOKEN_BYTES_MAX + 2] = n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = v->by_chars[i];
        bit_set(v->stay, id);
        for (int k = chars[id]; k < CHARS_SMALL; k++)
            if (v->stay_small[k])
                bit_set(v->stay_small[k], id);
    }
    for (int k = 0; k < CHARS_SMALL; k++)
        if (!v->stay_small[k])
            return false;
    return true;
}

/* Exits with the same bytes behind the quote are one group, and the groups one trie. */
static bool keep_exits(struct grammar_vocab *v, struct leaving *leaving, size_t n)
{
    if (n)
        qsort(leaving, n, sizeof *leaving, by_suffix);
    struct token *groups = mem_alloc_zero(n + 1, sizeof *groups);
    v->exits = mem_alloc_zero(n + 1, sizeof *v->exits);
    v->exit_at = mem_alloc_zero(n + 2, sizeof *v->exit_at);
    uint32_t n_group = 0;
    bool ok = groups && v->exits && v->exit_at;
    for (size_t i = 0; ok && i < n; i++) {
        if (i == 0 || !str_eq(leaving[i - 1].suffix.bytes, leaving[i].suffix.bytes)) {
            groups[n_group] = (struct token){leaving[i].suffix.bytes, n_group};
            v->exit_at[n_group++] = (uint32_t)i;
        }
        v->exits[i] = (struct exit){leaving[i].suffix.id, leaving[i].chars};
    }
    if (ok)
        v->exit_at[n_group] = (uint32_t)n;
    ok = ok && trie_make(&v->suffixes, groups, n_group);
    mem_free(groups);
    return ok;
}

static bool learn_strings(struct grammar_vocab *v, const struct token *tokens, size_t n)
{
    uint8_t *chars = mem_alloc_zero((size_t)v->n_vocab, 1);
    bool *stays = mem_alloc_zero((size_t)v->n_vocab, 1);
    struct leaving *leaving = mem_alloc_zero(n + 1, sizeof *leaving);
    size_t n_leaving = 0, end;
    bool ok = chars && stays && leaving;
    for (size_t i = 0; ok && i < n; i++) {
        uint32_t id = tokens[i].id;
        if (!try_token(v->any, tokens[i].bytes, &chars[id], &end))
            continue;
        if (end) {
            leaving[n_leaving++] = (struct leaving){{str_from(tokens[i].bytes, end), id}, chars[id]};
        } else {
            stays[id] = true;
            v->n_stay++;
        }
    }
    ok = ok && keep_staying(v, chars, stays) && keep_exits(v, leaving, n_leaving);
    mem_free(chars);
    mem_free(stays);
    mem_free(leaving);
    return ok;
}

static enum status make_any(struct grammar_vocab *v, struct error *err)
{
    struct build b = {.keep = &v->arena, .steps_left = GRAMMAR_STEPS_MAX, .err = err, .what = "grammar vocabulary"};
    arena_init(&v->arena, 0);
    arena_init(&b.temp, 0);
    v->any = dfa_any(&b);
    arena_free(&b.temp);
    return b.status;
}

/* ---- life ---- */

static bool keep_bytes(struct grammar_vocab *v, const struct str *bytes)
{
    size_t n = 0;
    for (int i = 0; i < v->n_vocab; i++)
        n += bytes[i].len <= TOKEN_BYTES_MAX ? bytes[i].len : 0;
    v->bytes = mem_alloc_zero(n + 1, 1);
    v->bytes_at = mem_alloc_zero((size_t)v->n_vocab + 1, sizeof *v->bytes_at);
    if (!v->bytes || !v->bytes_at || n > UINT32_MAX)
        return false;
    for (int i = 0; i < v->n_vocab; i++) {
        size_t len = bytes[i].len <= TOKEN_BYTES_MAX ? bytes[i].len : 0;
        if (len)
            memcpy(v->bytes + v->bytes_at[i], bytes[i].ptr, len);
        v->bytes_at[i + 1] = v->bytes_at[i] + (uint32_t)len;
    }
    return true;
}

enum status grammar_vocab_create_of(struct grammar_vocab **out, const struct str *bytes, int n_vocab,
                                    const int32_t *eos, int n_eos, struct error *err)
{
    struct grammar_vocab *v = mem_alloc_zero(1, sizeof *v);
    struct token *tokens = mem_alloc_zero((size_t)n_vocab + 1, sizeof *tokens);
    size_t n = 0;
    *out = NULL;
    if (v) {
        v->n_vocab = n_vocab;
        v->n_word = (n_vocab + 63) / 64;
        v->n_eos = n_eos;
        v->eos = mem_alloc_zero((size_t)n_eos + 1, sizeof *v->eos);
    }
    for (int i = 0; tokens && i < n_vocab; i++)
        if (bytes[i].len && bytes[i].len <= TOKEN_BYTES_MAX)
            tokens[n++] = (struct token){bytes[i], (uint32_t)i};
    if (n)
        qsort(tokens, n, sizeof *tokens, by_bytes);
    enum status st = !v || !tokens || !v->eos ? fail_nomem(err, "grammar vocabulary") : make_any(v, err);
    for (int i = 0; st == ST_OK && i < n_eos; i++) {
        v->eos[i] = eos[i];
        if (eos[i] < 0 || eos[i] >= n_vocab)
            st = fail(err, ST_INVALID, "the end token %d is not of the vocabulary: ids are 0 to %d", eos[i],
                      n_vocab - 1);
    }
    if (st == ST_OK && !keep_bytes(v, bytes))
        st = fail_nomem(err, "grammar vocabulary");
    if (st == ST_OK && (!trie_make(&v->tokens, tokens, n) || !learn_strings(v, tokens, n)))
        st = fail_nomem(err, "grammar vocabulary");
    mem_free(tokens);
    if (st != ST_OK)
        grammar_vocab_destroy(v);
    else
        *out = v;
    return st;
}

static bool is_one_of(const int32_t *ids, int n, int id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

enum status grammar_vocab_create(struct grammar_vocab **out, const struct tokenizer *tok,
                                 const struct grammar_vocab_of *of, struct error *err)
{
    int n_vocab = of->n_vocab, n = tokenizer_vocab_size(tok) < n_vocab ? tokenizer_vocab_size(tok) : n_vocab;
    struct str *bytes = mem_alloc_zero((size_t)n_vocab + 1, sizeof *bytes);
    size_t *at = mem_alloc_zero((size_t)n_vocab + 2, sizeof *at);
    struct buf all = {0};
    *out = NULL;
    for (int i = 0; at && i < n; i++) {
        if (!is_one_of(of->eos, of->n_eos, i) &&
            (!tokenizer_is_special(tok, i) || is_one_of(of->markers, of->n_marker, i)))
            tokenizer_token_bytes(tok, &all, i);
        at[i + 1] = all.len;
    }
    enum status st = ST_OK;
    if (!bytes || !at || all.failed)
        st = fail_nomem(err, "grammar vocabulary");
    for (int i = 0; st == ST_OK && i < n; i++)
        bytes[i] = str_n(all.ptr + at[i], at[i + 1] - at[i]);
    if (st == ST_OK)
        st = grammar_vocab_create_of(out, bytes, n_vocab, of->eos, of->n_eos, err);
    buf_free(&all);
    mem_free(bytes);
    mem_free(at);
    return st;
}

void grammar_vocab_destroy(struct grammar_vocab *v)
{
    if (!v)
        return;
    trie_free(&v->tokens);
    trie_free(&v->suffixes);
    for (int k = 0; k < CHARS_SMALL; k++)
        mem_free(v->stay_small[k]);
    mem_free(v->stay);
    mem_free(v->by_chars);
    mem_free(v->bytes);
    mem_free(v->bytes_at);
    mem_free(v->exits);
    mem_free(v->exit_at);
    mem_free(v->eos);
    arena_free(&v->arena);
    mem_free(v);
}

int grammar_vocab_words(const struct grammar_vocab *v)
{
    return v->n_word;
}
