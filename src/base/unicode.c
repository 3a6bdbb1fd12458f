#include "base/unicode.h"

/* Length of the longest prefix of s[0..n) that is a whole character or could become one, and whether it is whole.
 * The allowed second bytes are those of Unicode table 3-7: no overlong forms, no surrogates, nothing over U+10FFFF. */
static int scan(const unsigned char *s, size_t n, bool *whole)
{
    unsigned char c = s[0], low = 0x80, high = 0xBF;
    int need;
    *whole = c < 0x80;
    if (c < 0x80)
        return 1;
    if (c >= 0xC2 && c <= 0xDF)
        need = 2;
    else if (c >= 0xE0 && c <= 0xEF)
        need = 3, low = c == 0xE0 ? 0xA0 : 0x80, high = c == 0xED ? 0x9F : 0xBF;
    else if (c >= 0xF0 && c <= 0xF4)
        need = 4, low = c == 0xF0 ? 0x90 : 0x80, high = c == 0xF4 ? 0x8F : 0xBF;
    else
        return 0; /* no character begins so */
    int got = 1;
    while (got < need && (size_t)got < n && s[got] >= low && s[got] <= high) {
        got++;
        low = 0x80, high = 0xBF;
    }
    *whole = got == need;
    return got;
}

uint32_t utf8_decode(const char *s, size_t n, int *len, bool *bad)
{
    const unsigned char *u = (const unsigned char *)s;
    bool whole;
    int got = scan(u, n, &whole);
    if (bad)
        *bad = !whole;
    *len = whole ? got : 1;
    if (!whole)
        return UTF8_BAD;
    switch (got) {
    case 1:
        return u[0];
    case 2:
        return (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu);
    case 3:
        return (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu);
    default:
        return (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
    }
}

int utf8_encode(char out[4], uint32_t c)
{
    if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        c = UTF8_BAD;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

/* How many bytes at s[i..n) are ASCII, eight at a time. */
static size_t ascii_run(const char *s, size_t i, size_t n)
{
    size_t start = i;
    for (uint64_t w; i + 8 <= n; i += 8) {
        memcpy(&w, s + i, 8);
        if (w & 0x8080808080808080u)
            break;
    }
    while (i < n && (unsigned char)s[i] < 0x80)
        i++;
    return i - start;
}

bool utf8_valid(struct str s)
{
    for (size_t i = ascii_run(s.ptr, 0, s.len); i < s.len; i += ascii_run(s.ptr, i, s.len)) {
        bool whole;
        int got = scan((const unsigned char *)s.ptr + i, s.len - i, &whole);
        if (!whole)
            return false;
        i += (size_t)got;
    }
    return true;
}

size_t utf8_incomplete_tail(struct str s)
{
    for (size_t back = 1; back <= 3 && back <= s.len; back++) {
        const unsigned char *u = (const unsigned char *)s.ptr + s.len - back;
        if ((*u & 0xC0) == 0x80)
            continue; /* a continuation byte: its head lies further back */
        bool whole;
        return (size_t)scan(u, back, &whole) == back && !whole ? back : 0;
    }
    return 0;
}

void utf8_append_lossy(struct buf *out, struct str s)
{
    size_t i = 0, from = 0;
    while (i < s.len) {
        bool whole;
        int got = scan((const unsigned char *)s.ptr + i, s.len - i, &whole);
        if (!whole) {
            buf_append(out, s.ptr + from, i - from);
            buf_append(out, "\xEF\xBF\xBD", 3);
            from = i + (size_t)(got ? got : 1);
        }
        i += (size_t)(got ? got : 1);
    }
    buf_append(out, s.ptr + from, s.len - from);
}
