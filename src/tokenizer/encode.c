/* encode - the pipeline of tok.h: added tokens, normalizer, pre-tokenizer, model, template */
#include "tokenizer/tok.h"
#include "tokenizer/uchar.h"

#include <assert.h>

/* ---- ids ---- */
void ids_free(struct ids *ids)
{
    mem_free(ids->ids);
    *ids = (struct ids){0};
}

bool ids_reserve(struct ids *ids, size_t more)
{
    if (ids->capacity - ids->count >= more)
        return true;
    size_t wanted;
    if (!size_add(&wanted, ids->count, more) || !size_add(&wanted, wanted, wanted / 2 + 16))
        return false;
    int32_t *bigger = mem_realloc(ids->ids, wanted, sizeof *bigger);
    if (!bigger)
        return false;
    ids->ids = bigger;
    ids->capacity = wanted;
    return true;
}

bool ids_push(struct ids *ids, int32_t id)
{
    if (!ids_reserve(ids, 1))
        return false;
    ids->ids[ids->count++] = id;
    return true;
}

/* ---- scratch ---- */
static struct scratch *scratch_acquire(const struct tokenizer *tok)
{
    struct scratch **spare = ((struct tokenizer *)tok)->spare; /* the one part that is not constant: see tok.h */
    for (int i = 0; i < SCRATCH_SLOTS; i++) {
        struct scratch *s = __atomic_exchange_n(&spare[i], NULL, __ATOMIC_ACQUIRE);
        if (s)
            return s;
    }
    struct scratch *s = mem_alloc_zero(1, sizeof *s);
    if (s && tok->model == MODEL_BPE)
        s->cache = mem_alloc_aligned(CACHE_ENTRIES * sizeof *s->cache);
    return s;
}

void scratch_destroy(struct scratch *s)
{
    if (!s)
        return;
    mem_free(s->cache);
    for (int i = 0; i < 2; i++)
        buf_free(&s->text[i]);
    for (int i = 0; i < PRE_STEPS_MAX; i++)
        buf_free(&s->stage[i]);
    mem_free(s->work);
    mem_free(s);
}

static void scratch_release(const struct tokenizer *tok, struct scratch *s)
{
    enum { KEEP_BYTES = 1 << 20 }; /* one huge text must not pin its buffers for ever */
    struct scratch **spare = ((struct tokenizer *)tok)->spare;
    bool huge = s->work_size > KEEP_BYTES || s->text[0].capacity > KEEP_BYTES || s->text[1].capacity > KEEP_BYTES;
    for (int i = 0; i < PRE_STEPS_MAX; i++)
        huge = huge || s->stage[i].capacity > KEEP_BYTES;
    for (int i = 0; i < SCRATCH_SLOTS && !huge; i++) {
        struct scratch *none = NULL;
        if (__atomic_compare_exchange_n(&spare[i], &none, s, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
    }
    scratch_destroy(s);
}

void *scratch_work(struct scratch *s, size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size))
        return NULL;
    if (bytes > s->work_size) {
        mem_free(s->work);
        s->work = mem_alloc(bytes);
        s->work_size = s->work ? bytes : 0;
    }
    return s->work;
}

/* ---- one call ---- */
struct call {
    const struct tokenizer *tok;
    struct scratch *scratch;
    struct ids *out;
    struct error *err;
    bool special;            /* control tokens are recognised */
    bool normalized_control; /* those of the normalized text, too (false when a user's text is in it) */
    const char *text_start;  /* of the whole text */
};

static enum status run_model(struct call *c, const char *p, size_t n, const char *readable_end)
{
    const struct tokenizer *tok = c->tok;
    bool ok = tok->model == MODEL_BPE       ? bpe_encode(tok, c->scratch, c->out, p, n, readable_end)
              : tok->model == MODEL_UNIGRAM ? unigram_encode(tok, c->scratch, c->out, p, n)
                                            : wordpiece_encode(tok, c->out, p, n);
    return ok ? ST_OK : fail_nomem(c->err, "the ids of a text");
}

/* Hugging Face's Metaspace: blanks become U+2581, one is put in front, and the text may be cut before each. */
static enum status metaspace(struct call *c, struct buf *out, const struct pre_step *step, struct str piece, bool first)
{
    buf_clear(out);
    bool wants = step->prefix == PREFIX_ALWAYS || (step->prefix == PREFIX_FIRST && first);
    if (wants && !str_starts(piece, STR(METASPACE)) && !(piece.len && piece.ptr[0] == ' '))
        buf_append_str(out, STR(METASPACE));
    for (size_t i = 0; i < piece.len;) {
        const char *space = memchr(piece.ptr + i, ' ', piece.len - i);
        size_t n = space ? (size_t)(space - (piece.ptr + i)) : piece.len - i;
        buf_append(out, piece.ptr + i, n);
        if (space)
            buf_append_str(out, STR(METASPACE));
        i += n + (space != NULL);
    }
    return out->failed ? fail_nomem(c->err, "a text to encode") : ST_OK;
}

static enum status run_pre(struct call *c, int step_index, struct str piece, const char *readable_end, bool first)
{
    const struct tokenizer *tok = c->tok;
    if (piece.len == 0)
        return ST_OK;
    if (step_index == tok->n_pre)
        return run_model(c, piece.ptr, piece.len, readable_end);
    const struct pre_step *step = &tok->pre[step_index];
    const char *p = piece.ptr, *end = p + piece.len;
    bool last = step_index + 1 == tok->n_pre;
    if (step->type == PRE_SPLIT) {
        while (p < end) {
            bool match;
            const char *q = step->split(p, end, &match);
            if (match ? !step->drop_matches : !step->drop_gaps) {
                if (last)
                    TRY(run_model(c, p, (size_t)(q - p), readable_end));
                else
                    TRY(run_pre(c, step_index + 1, str_n(p, (size_t)(q - p)), readable_end, first));
            }
            first = false;
            p = q;
        }
        return ST_OK;
    }
    struct buf *out = &c->scratch->stage[step_index];
    assert(p); /* an empty piece returned above */
    if (step->type == PRE_PREFIX_SPACE) {
        if (*p == ' ')
            return run_pre(c, step_index + 1, piece, readable_end, first);
        buf_clear(out);
        buf_append_char(out, ' ');
        buf_append_str(out, piece);
        if (out->failed)
            return fail_nomem(c->err, "a text to encode");
        return run_pre(c, step_index + 1, buf_str(out), out->ptr + out->len, first);
    }
    TRY(metaspace(c, out, step, piece, first));
    if (!step->cut)
        return run_pre(c, step_index + 1, buf_str(out), out->ptr + out->len, first);
    for (size_t at = 0, next; at < out->len; at = next) {
        next = str_find(buf_str(out), STR(METASPACE), at + 1);
        next = next == SIZE_MAX ? out->len : next;
        TRY(run_pre(c, step_index + 1, str_n(out->ptr + at, next - at), out->ptr + out->len, first && at == 0));
    }
    return ST_OK;
}

/* ---- added tokens ---- */
static bool word_before(const char *start, const char *p) /* the character before p is of a word */
{
    if (p == start)
        return false;
    const char *q = p - 1;
    while (q > start && p - q < 4 && ((unsigned char)*q & 0xC0) == 0x80)
        q--;
    int len;
    return uchar_in(uchar_at(q, p, &len), GC_LETTER | GC_MARK | GC_BIT(GC_ND) | GC_BIT(GC_NL) | GC_BIT(GC_PC));
}

static bool word_after(const char *p, const char *end)
{
    int len;
    return p < end &&
           uchar_in(uchar_at(p, end, &len), GC_LETTER | GC_MARK | GC_BIT(GC_ND) | GC_BIT(GC_NL) | GC_BIT(GC_PC));
}

/* The longest added token at p, or NULL; control tokens must end by control_end. */
static const struct added *added_at(const struct tokenizer *tok, const struct trie *t, const char *p, const char *end,
                                    const char *control_end, size_t *len)
{
    const struct added *found = NULL;
    uint32_t node = TRIE_ROOT;
    for (const char *q = p; q < end && (node = trie_step(t, node, (unsigned char)*q)) != 0; q++) {
        int32_t v = t->value[node];
        if (v >= 0 && (q < control_end || !tok->added[v].control)) {
            found = &tok->added[v];
            *len = (size_t)(q + 1 - p);
        }
    }
    return found;
}

/* Calls part for what lies between added tokens, and appends the ids of those. With pieces, control tokens are looked
 * for only inside runs of pieces that are not plain. */
typedef enum status part_fn(struct call *c, struct str part);
static enum status cut_added(struct call *c, enum added_trie which, struct str text, const struct text_piece *pieces,
                             size_t n_piece, part_fn *part)
{
    const struct trie *trie = &c->tok->added_tries[which];
    const bool *first = c->tok->added_first[which];
    const char *done = text.ptr, *end = text.ptr + text.len;
    const char *zone_end =
        pieces ? text.ptr : end; /* p < zone_end: `special` tells whether p is in a template's text */
    size_t at = 0;
    bool special = !pieces && c->special;
    for (const char *p = text.ptr; trie->slots && p < end;) {
        while (p >= zone_end && at < n_piece) { /* a zone: neighbouring pieces of one kind */
            special = c->special && !pieces[at].plain;
            do
                zone_end += pieces[at++].text.len;
            while (at < n_piece && pieces[at].plain == pieces[at - 1].plain);
        }
        if (!first[(unsigned char)*p]) {
            p++;
            continue;
        }
        size_t len = 0;
        const struct added *a = added_at(c->tok, trie, p, end, special ? zone_end : p, &len);
        if (!a) {
            p++;
            continue;
        }
        const char *start = p, *stop = p + len;
        p = stop;
        if (a->single_word && (word_before(text.ptr, start) || word_after(stop, end)))
            continue;
        int n;
        while (a->right_strip && stop < end && uchar_is_space(uchar_at(stop, end, &n)))
            stop += n;
        const char *from = start;
        while (a->left_strip && start > done) {
            const char *q = start - 1;
            while (q > done && ((unsigned char)*q & 0xC0) == 0x80)
                q--;
            if (!uchar_is_space(uchar_at(q, from, &n)))
                break;
            start = q;
        }
        if (start > done)
            TRY(part(c, str_n(done, (size_t)(start - done))));
        if (!ids_push(c->out, a->id))
            return fail_nomem(c->err, "the ids of a text");
        p = done = stop;
    }
    return done < end ? part(c, str_n(done, (size_t)(end - done))) : ST_OK;
}

static enum status encode_part(struct call *c, struct str part) /* normalized, without added tokens */
{
    return run_pre(c, 0, part, part.ptr + part.len, part.ptr == c->text_start);
}

static enum status encode_section(struct call *c, struct str section) /* between added tokens of the raw text */
{
    const struct tokenizer *tok = c->tok;
    bool at_start = section.ptr == c->text_start;
    for (int i = 0; i < tok->n_norm; i++) {
        struct buf *out = &c->scratch->text[i & 1];
        buf_clear(out);
        struct norm_step step = tok->norm[i];
        if (step.symbols && c->scratch->guarded)
            step.symbols = tok->symbols_plain.slots ? &tok->symbols_plain : NULL;
        TRY(norm_apply(&step, out, section, c->err));
        if (out->failed)
            return fail_nomem(c->err, "a text to encode");
        section = buf_str(out);
    }
    if (section.len == 0)
        return ST_OK;
    const char *text_start = c->text_start;
    bool special = c->special;
    c->text_start = at_start ? section.ptr : NULL;
    c->special = special && c->normalized_control;
    enum status st = cut_added(c, ADDED_NORMALIZED, section, NULL, 0, encode_part);
    c->text_start = text_start;
    c->special = special;
    return st;
}

static enum status encode(const struct tokenizer *tok, struct ids *out, struct str text,
                          const struct text_piece *pieces, size_t n_piece, unsigned flags, struct error *err)
{
    if (!tok->accepts_any_bytes && !utf8_valid(text))
        return fail(err, ST_INVALID, "tokenizer: the text to encode is not UTF-8; convert it first");
    size_t before = out->count;
    struct call c = {.tok = tok,
                     .out = out,
                     .err = err,
                     .special = flags & TOKENIZE_SPECIAL,
                     .normalized_control = true,
                     .text_start = text.ptr};
    for (size_t i = 0; i < n_piece; i++)
        c.normalized_control = c.normalized_control && !pieces[i].plain;
    c.scratch = scratch_acquire(tok);
    if (!c.scratch)
        return fail_nomem(err, "encoding");
    c.scratch->guarded = !c.normalized_control;
    enum status st = ST_OK;
    for (int i = 0; i < tok->n_before && flags & TOKENIZE_ADD && st == ST_OK; i++)
        st = ids_push(out, tok->before[i]) ? ST_OK : fail_nomem(err, "the ids of a text");
    if (st == ST_OK)
        st = cut_added(&c, c.normalized_control ? ADDED_RAW : ADDED_PIECES, text, n_piece ? pieces : NULL, n_piece,
                       encode_section);
    for (int i = 0; i < tok->n_after && flags & TOKENIZE_ADD && st == ST_OK; i++)
        st = ids_push(out, tok->after[i]) ? ST_OK : fail_nomem(err, "the ids of a text");
    scratch_release(tok, c.scratch);
    if (st != ST_OK)
        out->count = before;
    return st;
}

enum status tokenizer_encode(const struct tokenizer *tok, struct ids *out, struct str text, unsigned flags,
                             struct error *err)
{
    return encode(tok, out, text.ptr ? text : STR(""), NULL, 0, flags, err);
}

enum status tokenizer_encode_pieces(const struct tokenizer *tok, struct ids *out, const struct text_piece *pieces,
                                    size_t n, unsigned flags, struct error *err)
{
    struct buf text = {0};
    for (size_t i = 0; i < n; i++)
        buf_append_str(&text, pieces[i].text);
    enum status st = text.failed ? fail_nomem(err, "a prompt")
                                 : encode(tok, out, buf_str(&text), pieces, n, flags | TOKENIZE_SPECIAL, err);
    buf_free(&text);
    return st;
}

/* ---- two texts ---- */
static bool push_all(struct ids *out, const int32_t *ids, int n)
{
    bool good = true;
    for (int i = 0; i < n; i++)
        good = good && ids_push(out, ids[i]);
    return good;
}

enum status tokenizer_encode_pair(const struct tokenizer *tok, struct ids *out, size_t *first, struct str a,
                                  struct str b, size_t max, struct error *err)
{
    size_t start = out->count;
    const int32_t *end = tok->has_pair ? tok->pair_after : tok->after;
    int n_end = tok->has_pair ? tok->n_pair_after : tok->n_after;
    *first = 0;
    enum status st = push_all(out, tok->before, tok->n_before) ? ST_OK : fail_nomem(err, "the ids of a text");
    if (st == ST_OK)
        st = encode(tok, out, a.ptr ? a : STR(""), NULL, 0, 0, err);
    if (st == ST_OK && !push_all(out, tok->between, tok->n_between))
        st = fail_nomem(err, "the ids of a text");
    size_t second = out->count - start;
    if (st == ST_OK && second + (size_t)n_end + (b.len > 0) > max)
        st =
            fail(err, ST_INVALID, "the first text has %zu tokens, which leaves the second no room in %zu", second, max);
    if (st == ST_OK)
        st = encode(tok, out, b.ptr ? b : STR(""), NULL, 0, 0, err);
    if (st == ST_OK && out->count - start + (size_t)n_end > max)
        out->count = start + max - (size_t)n_end;
    if (st == ST_OK && !push_all(out, end, n_end))
        st = fail_nomem(err, "the ids of a text");
    if (st != ST_OK)
        out->count = start;
    else if (tok->second_type)
        *first = second;
    return st;
}

void tokenizer_shorten(const struct tokenizer *tok, struct ids *ids, size_t max)
{
    size_t n_after = (size_t)tok->n_after < max ? (size_t)tok->n_after : max;
    if (ids->count <= max)
        return;
    memmove(ids->ids + max - n_after, ids->ids + ids->count - n_after, n_after * sizeof *ids->ids);
    ids->count = max;
}

bool tokenizer_frames(const struct tokenizer *tok, const int32_t *ids, size_t n)
{
    size_t n_before = (size_t)tok->n_before, n_after = (size_t)tok->n_after;
    return n >= n_before + n_after && memcmp(ids, tok->before, n_before * sizeof *ids) == 0 &&
           memcmp(ids + n - n_after, tok->after, n_after * sizeof *ids) == 0;
}
