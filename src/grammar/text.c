/* text - the characters of a JSON string, byte by byte: raw UTF-8, \n and its kin, \uHHHH, pairs of surrogates
 *
 * A language is over the decoded characters, so that all spellings of a string are one string. While an escape is open,
 * it goes on only if some character that it can still become goes on: no byte leads to a dead end.
 */
#include "grammar/private.h"

#include "base/unicode.h"

enum { HIGH_FIRST = 0xD800, HIGH_LAST = 0xDBFF, LOW_FIRST = 0xDC00, LOW_LAST = 0xDFFF };

static enum text_result feed(const struct dfa *d, struct text_at *at, uint32_t c, text_ok *ok, const void *ctx)
{
    char bytes[4];
    int n = utf8_encode(bytes, c);
    at->q = dfa_run(d, at->q, str_n(bytes, (size_t)n));
    at->lex = LEX_PLAIN;
    at->part = 0;
    return at->q && (!ok || ok(ctx, at->q)) ? TEXT_CHAR : TEXT_DEAD;
}

/* \u with digits that leave [lo, hi]; the first half of a pair stands for all its characters. */
static bool any_unit(const struct dfa *d, uint32_t q, uint32_t lo, uint32_t hi, text_ok *ok, const void *ctx)
{
    uint32_t high = lo > HIGH_FIRST ? lo : HIGH_FIRST, last = hi < HIGH_LAST ? hi : HIGH_LAST;
    return dfa_any_between(d, q, lo, hi, ok, ctx) ||
           (high <= last && dfa_any_between(d, q, 0x10000 + ((high - HIGH_FIRST) << 10),
                                            0x10000 + ((last - HIGH_FIRST) << 10 | 0x3FF), ok, ctx));
}

static enum text_result step_hex(const struct dfa *d, struct text_at *at, int digit, text_ok *ok, const void *ctx)
{
    int left = 3 - (at->lex - LEX_HEX);
    at->part = at->part << 4 | (uint32_t)digit;
    uint32_t lo = at->part << 4 * left, hi = lo | ((1u << 4 * left) - 1);
    if (left > 0) {
        at->lex++;
        return any_unit(d, at->q, lo, hi, ok, ctx) ? TEXT_INSIDE : TEXT_DEAD;
    }
    if (lo < HIGH_FIRST || lo > LOW_LAST)
        return feed(d, at, lo, ok, ctx);
    at->lex = LEX_LOW_ESCAPE;
    at->part = lo << 16;
    return lo <= HIGH_LAST && any_unit(d, at->q, lo, lo, ok, ctx) ? TEXT_INSIDE : TEXT_DEAD;
}

static enum text_result step_low_hex(const struct dfa *d, struct text_at *at, int digit, text_ok *ok, const void *ctx)
{
    int left = 3 - (at->lex - LEX_LOW_HEX);
    uint32_t high = at->part >> 16, low = (at->part & 0xFFFF) << 4 | (uint32_t)digit;
    uint32_t lo = low << 4 * left, hi = lo | ((1u << 4 * left) - 1), base = 0x10000 + ((high - HIGH_FIRST) << 10);
    lo = lo > LOW_FIRST ? lo : LOW_FIRST;
    hi = hi < LOW_LAST ? hi : LOW_LAST;
    if (lo > hi)
        return TEXT_DEAD;
    if (left == 0)
        return feed(d, at, base + (lo - LOW_FIRST), ok, ctx);
    at->lex++;
    at->part = high << 16 | low;
    return dfa_any_between(d, at->q, base + (lo - LOW_FIRST), base + (hi - LOW_FIRST), ok, ctx) ? TEXT_INSIDE
                                                                                                : TEXT_DEAD;
}

static enum text_result step_escape(const struct dfa *d, struct text_at *at, uint8_t byte, text_ok *ok, const void *ctx)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = byte ? strchr(from, byte) : NULL;
    if (known)
        return feed(d, at, (uint8_t)to[known - from], ok, ctx);
    at->lex = LEX_HEX;
    at->part = 0;
    return byte == 'u' ? TEXT_INSIDE : TEXT_DEAD; /* that some character can follow was asked at the backslash */
}

enum text_result text_step(const struct dfa *d, struct text_at *at, uint8_t byte, text_ok *ok, const void *ctx)
{
    int digit = hex_digit((char)byte);
    if (at->lex == LEX_PLAIN) {
        if (byte == '"')
            return TEXT_CLOSE;
        if (byte == '\\') {
            at->lex = LEX_ESCAPE;
            return dfa_any_between(d, at->q, 0, 0x10FFFF, ok, ctx) ? TEXT_ESCAPE : TEXT_DEAD;
        }
        at->q = byte < 0x20 ? 0 : dfa_next(d, at->q, byte);
        if (at->q == 0 || (ok && !ok(ctx, at->q)))
            return TEXT_DEAD;
        return byte < 0x80 || byte >= 0xC0 ? TEXT_CHAR : TEXT_INSIDE;
    }
    if (at->lex == LEX_ESCAPE)
        return step_escape(d, at, byte, ok, ctx);
    if (at->lex == LEX_LOW_ESCAPE || at->lex == LEX_LOW_U)
        return byte == (at->lex++ == LEX_LOW_ESCAPE ? '\\' : 'u') ? TEXT_INSIDE : TEXT_DEAD;
    if (digit < 0)
        return TEXT_DEAD;
    return at->lex < LEX_LOW_ESCAPE ? step_hex(d, at, digit, ok, ctx) : step_low_hex(d, at, digit, ok, ctx);
}
