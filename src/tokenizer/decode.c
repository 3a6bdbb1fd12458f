/* decode - ids to text, whole and streamed
 *
 * Both are one machine: decoder_next takes an id to the bytes it contributes, and `held` keeps back what may still
 * change: an incomplete character. tokenizer_decode runs the same steps over all ids, so that the two cannot differ.
 *
 * Malformed bytes become U+FFFD: one a maximal subpart for byte-level vocabularies (as Hugging Face and tiktoken do),
 * one a byte for byte-fallback tokens (as sentencepiece does; Hugging Face also gives up the good characters beside
 * them, which no stream could).
 */
#include "tokenizer/tok.h"
#include "tokenizer/uchar.h"

enum state {
    BEGUN = 1,   /* some token was shown or dropped: the next is not the first */
    WROTE = 2,   /* some text was written */
    RAW_RUN = 4, /* held bytes come from byte-fallback tokens */
};

static void flush_held(struct decoder *d, struct buf *out, bool raw)
{
    if (raw)
        for (unsigned i = 0; i < d->n_held; i++)
            buf_append_str(out, STR("\xEF\xBF\xBD"));
    else
        utf8_append_lossy(out, str_n(d->held, d->n_held));
    d->n_held = 0;
}

/* Appends bytes that may end or begin inside a character. */
static void write_bytes(struct decoder *d, struct buf *out, struct str s)
{
    if (s.len)
        d->state |= WROTE;
    while (d->n_held && s.len) { /* complete the held character byte by byte */
        d->held[d->n_held++] = (unsigned char)s.ptr[0];
        s = str_from(s, 1);
        size_t tail = utf8_incomplete_tail(str_n(d->held, d->n_held));
        if (tail == d->n_held)
            continue;
        utf8_append_lossy(out, str_n(d->held, d->n_held - tail));
        memmove(d->held, d->held + d->n_held - tail, tail);
        d->n_held = (unsigned)tail;
    }
    if (s.len == 0)
        return;
    size_t tail = utf8_incomplete_tail(s);
    utf8_append_lossy(out, str_n(s.ptr, s.len - tail));
    memcpy(d->held, s.ptr + s.len - tail, tail);
    d->n_held = (unsigned)tail;
}

/* One byte-fallback token: whole characters go out, a byte that cannot belong to one becomes U+FFFD. */
static void write_raw_byte(struct decoder *d, struct buf *out, unsigned char byte)
{
    d->held[d->n_held++] = byte;
    d->state |= RAW_RUN | WROTE;
    while (d->n_held) {
        if (utf8_incomplete_tail(str_n(d->held, d->n_held)) == d->n_held)
            return;
        int len;
        bool bad;
        (void)utf8_decode((const char *)d->held, d->n_held, &len, &bad);
        buf_append_str(out, bad ? STR("\xEF\xBF\xBD") : str_n(d->held, (size_t)len));
        d->n_held -= (unsigned)len;
        memmove(d->held, d->held + len, d->n_held);
    }
}

static void write_text(struct decoder *d, struct buf *out, struct str s) /* whole characters */
{
    flush_held(d, out, d->state & RAW_RUN);
    d->state &= ~(unsigned)RAW_RUN;
    if (s.len)
        d->state |= WROTE;
    utf8_append_lossy(out, s);
}

/* Writes s with U+2581 as a blank; `drop` leading ones are left out (and with drop_all, each of them in s). */
static void write_spaced(struct decoder *d, struct buf *out, struct str s, size_t drop, bool drop_all)
{
    write_text(d, out, STR(""));
    while (s.len) {
        size_t at = str_find(s, STR(METASPACE), 0);
        size_t plain = at == SIZE_MAX ? s.len : at;
        write_text(d, out, str_n(s.ptr, plain));
        s = str_from(s, plain);
        if (at == SIZE_MAX)
            break;
        s = str_from(s, 3);
        if (drop_all || (drop && plain == 0)) {
            drop -= drop != 0;
            continue;
        }
        drop = 0;
        write_text(d, out, STR(" "));
    }
}

/* Hugging Face's clean-up of one WordPiece token, in its order. */
static void cleanup(struct buf *text)
{
    static const char *const pairs[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                           {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                           {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t at = 0;
        struct str from = str_of(pairs[i][0]), to = str_of(pairs[i][1]);
        while ((at = str_find(buf_str(text), from, at)) !=
               SIZE_MAX) { /* no replacement is longer than what it replaces */
            memcpy(text->ptr + at, to.ptr, to.len);
            memmove(text->ptr + at + to.len, text->ptr + at + from.len, text->len - at - from.len);
            text->len -= from.len - to.len;
            at += to.len;
        }
    }
}

static void write_wordpiece(struct decoder *d, struct buf *out, struct str s)
{
    const struct tokenizer *tok = d->tok;
    struct buf piece = {0};
    bool inner = str_starts(s, tok->inner_prefix);
    if (d->state & BEGUN && !inner)
        buf_append_char(&piece, ' ');
    buf_append_str(&piece, d->state & BEGUN && inner ? str_from(s, tok->inner_prefix.len) : s);
    if (tok->decode_cleanup && !piece.failed && piece.len)
        cleanup(&piece);
    if (piece.failed)
        out->failed = true;
    write_text(d, out, buf_str(&piece));
    buf_free(&piece);
}

static void write_sentencepiece(struct decoder *d, struct buf *out, int32_t id, struct str s)
{
    const struct tokenizer *tok = d->tok;
    unsigned flags = tok->vocab.flags[id];
    if (flags & TOKEN_CONTROL)
        return;
    if (flags & TOKEN_UNKNOWN) {
        write_text(d, out, tok->unknown_surface);
        return;
    }
    bool begin = !(d->state & (WROTE | BEGUN)) && tok->decode_strip_first;
    if (begin && str_starts(s, STR(METASPACE)) && !tok->decode_strip_all)
        d->state |= BEGUN; /* one blank goes; with remove_extra_whitespaces all leading ones do, token after token */
    write_spaced(d, out, s, begin ? 1 : 0, false);
}

void decoder_init(struct decoder *d, const struct tokenizer *tok, unsigned flags)
{
    *d = (struct decoder){.tok = tok, .flags = flags};
}

void decoder_next(struct decoder *d, int32_t id, struct buf *out)
{
    const struct tokenizer *tok = d->tok;
    d->n_seen++;
    if (id < 0 || (size_t)id >= tok->vocab.size || !(tok->vocab.flags[id] & TOKEN_PRESENT))
        return;
    unsigned flags = tok->vocab.flags[id];
    if (flags & TOKEN_SPECIAL && d->flags & DETOKENIZE_SKIP_SPECIAL)
        return;
    struct str s = vocab_text(&tok->vocab, id);
    bool fallback = tok->decode == DECODE_FALLBACK || tok->decode == DECODE_SENTENCEPIECE;
    if (fallback && flags & TOKEN_BYTE) {
        write_raw_byte(d, out, (unsigned char)byte_of_token(s));
        return;
    }
    switch (tok->decode) {
    case DECODE_BYTES:
        write_bytes(d, out, vocab_bytes(&tok->vocab, id));
        break;
    case DECODE_SPACED:
        if (d->state & BEGUN)
            write_text(d, out, STR(" "));
        write_text(d, out, s);
        break;
    case DECODE_METASPACE:
        write_spaced(d, out, s, 0, tok->decode_strip_first && !(d->state & BEGUN));
        break;
    case DECODE_FALLBACK: {
        bool begin = tok->decode_strip_first && !(d->state & WROTE) && s.len;
        if (begin && s.ptr[0] == ' ')
            s = str_from(s, 1);
        write_spaced(d, out, s, begin && !(s.ptr[0] == ' ') ? 1 : 0, false);
        d->state |= s.len ? WROTE : 0;
        break;
    }
    case DECODE_SENTENCEPIECE:
        write_sentencepiece(d, out, id, s);
        return;
    case DECODE_WORDPIECE:
        write_wordpiece(d, out, s);
        break;
    }
    d->state |= BEGUN;
}

void decoder_end(struct decoder *d, struct buf *out)
{
    flush_held(d, out, d->state & RAW_RUN);
}

enum status tokenizer_decode(const struct tokenizer *tok, struct buf *out, const int32_t *ids, size_t n, unsigned flags,
                             struct error *err)
{
    struct decoder d;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= tok->vocab.size)
            return fail(err, ST_INVALID, "tokenizer: id %d at position %zu is out of range; ids are 0 to %zu", ids[i],
                        i, tok->vocab.size ? tok->vocab.size - 1 : 0);
    decoder_init(&d, tok, flags);
    for (size_t i = 0; i < n && !out->failed; i++)
        decoder_next(&d, ids[i], out);
    decoder_end(&d, out);
    return out->failed ? fail_nomem(err, "a decoded text") : ST_OK;
}

void tokenizer_token_bytes(const struct tokenizer *tok, struct buf *out, int32_t id)
{
    if (id < 0 || (size_t)id >= tok->vocab.size || !(tok->vocab.flags[id] & TOKEN_PRESENT))
        return;
    struct str s = tok->decode == DECODE_BYTES ? vocab_bytes(&tok->vocab, id) : vocab_text(&tok->vocab, id);
    bool fallback = tok->decode == DECODE_FALLBACK || tok->decode == DECODE_SENTENCEPIECE;
    if (fallback && tok->vocab.flags[id] & TOKEN_BYTE) {
        buf_append_char(out, (char)byte_of_token(s));
    } else if (tok->decode == DECODE_WORDPIECE && str_starts(s, tok->inner_prefix)) {
        buf_append_str(out, str_from(s, tok->inner_prefix.len));
    } else if (fallback || tok->decode == DECODE_METASPACE) {
        for (size_t at; (at = str_find(s, STR(METASPACE), 0)) != SIZE_MAX; s = str_from(s, at + 3)) {
            buf_append(out, s.ptr, at);
            buf_append_char(out, ' ');
        }
        buf_append_str(out, s);
    } else {
        buf_append_str(out, s);
    }
}
