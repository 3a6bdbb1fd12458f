#include "base/str.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool str_starts(struct str s, struct str prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.len >= suffix.len && (suffix.len == 0 || memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

size_t str_find(struct str s, struct str needle, size_t from)
{
    if (from > s.len || needle.len > s.len - from)
        return SIZE_MAX;
    if (needle.len == 0 || s.len == from)
        return needle.len ? SIZE_MAX : from;
    const char *hit = memmem(s.ptr + from, s.len - from, needle.ptr, needle.len);
    return hit ? (size_t)(hit - s.ptr) : SIZE_MAX;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.len && is_space(s.ptr[0]))
        s.ptr++, s.len--;
    while (s.len && is_space(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

bool str_to_i64(int64_t *out, struct str s)
{
    bool negative = s.len && s.ptr[0] == '-';
    size_t i = negative;
    int64_t v = 0;
    if (i == s.len)
        return false;
    for (; i < s.len; i++) {
        int d = s.ptr[i] - '0';
        if (d < 0 || d > 9 || __builtin_mul_overflow(v, (int64_t)10, &v) ||
            __builtin_add_overflow(v, (int64_t)(negative ? -d : d), &v))
            return false;
    }
    *out = v;
    return true;
}

bool str_to_f64(double *out, struct str s)
{
    char text[64];
    if (s.len == 0 || s.len >= sizeof text || is_space(s.ptr[0]))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = 0;
    char *end;
    double v = strtod(text, &end); /* the program never leaves the C locale */
    if (end != text + s.len)
        return false;
    *out = v;
    return true;
}

struct str str_next_line(struct str *rest)
{
    if (!rest->ptr || rest->len == 0) {
        *rest = (struct str){NULL, 0};
        return *rest;
    }
    const char *nl = memchr(rest->ptr, '\n', rest->len);
    struct str line = {rest->ptr, nl ? (size_t)(nl - rest->ptr) : rest->len};
    *rest = str_from(*rest, line.len + (nl != NULL));
    if (line.len && line.ptr[line.len - 1] == '\r')
        line.len--;
    return line;
}

uint64_t str_hash(struct str s, uint64_t seed)
{
    /* 8 bytes at a time, multiply and fold (as in wyhash's mixing step): fast on short keys, seeded. */
    uint64_t h = seed ^ (s.len * 0x9e3779b97f4a7c15u);
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t w;
        memcpy(&w, s.ptr + i, 8);
        __uint128_t m = (__uint128_t)(h ^ w) * 0xa0761d6478bd642fu;
        h = (uint64_t)m ^ (uint64_t)(m >> 64);
    }
    uint64_t w = 0;
    if (i < s.len)
        memcpy(&w, s.ptr + i, s.len - i);
    __uint128_t m = (__uint128_t)(h ^ w ^ 0xe7037ed1a0b428dbu) * 0x8ebc6af09c88c6e3u;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

size_t str_distance(struct str a, struct str b, size_t cap)
{
    enum { MAX = 64 };
    if (a.len >= MAX || b.len >= MAX)
        return cap;
    size_t row[MAX];
    for (size_t j = 0; j <= b.len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.len; j++) {
            size_t best = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[b.len] < cap ? row[b.len] : cap;
}

void buf_free(struct buf *b)
{
    mem_free(b->ptr);
    *b = (struct buf){.limit = b->limit};
}

bool buf_reserve(struct buf *b, size_t more)
{
    size_t need;
    if (b->failed)
        return false;
    if (!size_add(&need, b->len, more) || (b->limit && need > b->limit) || !size_add(&need, need, 1)) {
        b->failed = true;
        return false;
    }
    if (need <= b->capacity)
        return true;
    size_t capacity = b->capacity + b->capacity / 2 + 32;
    if (capacity < need)
        capacity = need;
    char *bigger = mem_realloc(b->ptr, capacity, 1);
    if (!bigger) {
        b->failed = true;
        return false;
    }
    b->ptr = bigger;
    b->capacity = capacity;
    return true;
}

void buf_append(struct buf *b, const void *bytes, size_t n)
{
    if (!buf_reserve(b, n))
        return;
    if (n)
        memcpy(b->ptr + b->len, bytes, n);
    b->len += n;
    b->ptr[b->len] = 0;
}

void buf_append_str(struct buf *b, struct str s)
{
    buf_append(b, s.ptr, s.len);
}

void buf_append_char(struct buf *b, char c)
{
    buf_append(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0)
        b->failed = true;
    else if (buf_reserve(b, (size_t)n)) {
        vsnprintf(b->ptr + b->len, (size_t)n + 1, fmt, ap);
        b->len += (size_t)n;
    }
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}
