/* str - borrowed bytes with a length, and a growing buffer with a sticky failure
 *
 * A struct str owns nothing and need not end in NUL; print it with "%.*s" and STR_ARG(s).
 * A struct buf is checked once, at the end: after a failed append, `failed` is set and further appends do nothing.
 */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *ptr;
    size_t len;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})
#define STR_ARG(s)   (int)((s).len > 400 ? 400 : (s).len), (s).ptr /* for "%.*s" in messages: at most 400 bytes */

static inline struct str str_of(const char *text)
{
    return (struct str){text, text ? strlen(text) : 0};
}
static inline struct str str_n(const void *ptr, size_t len)
{
    return (struct str){ptr, len};
}
static inline struct str str_from(struct str s, size_t start) /* the rest from `start` on */
{
    return start >= s.len ? (struct str){s.ptr + s.len, 0} : (struct str){s.ptr + start, s.len - start};
}
static inline bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline bool str_is(struct str a, const char *text)
{
    return str_eq(a, str_of(text));
}
static inline int hex_digit(char c) /* 0 to 15; -1: it is none */
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
int str_cmp(struct str a, struct str b); /* bytewise, shorter first */
/* Offset of the first `needle` at or after `from`, or SIZE_MAX. */
size_t str_find(struct str s, struct str needle, size_t from);
struct str str_trim(struct str s);              /* ASCII white space on both ends */
bool str_to_i64(int64_t *out, struct str s);    /* whole string, decimal, no white space; false when it does not fit */
bool str_to_f64(double *out, struct str s);     /* whole string, as strtod in the C locale; no white space */
struct str str_next_line(struct str *rest);     /* takes a line without its \n (nor \r\n); rest->ptr NULL at the end */
uint64_t str_hash(struct str s, uint64_t seed); /* for maps of untrusted keys: give a random seed */
/* Edit distance capped at `cap`: for "did you mean" suggestions. */
size_t str_distance(struct str a, struct str b, size_t cap);

struct buf {
    char *ptr; /* always NUL-terminated when not NULL */
    size_t len, capacity;
    size_t limit; /* 0 = none; growing beyond sets failed */
    bool failed;
};

void buf_free(struct buf *b); /* also resets */
bool buf_reserve(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *bytes, size_t n);
void buf_append_str(struct buf *b, struct str s);
void buf_append_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static inline void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->ptr)
        b->ptr[0] = 0;
}
static inline struct str buf_str(const struct buf *b)
{
    return (struct str){b->ptr ? b->ptr : "", b->len};
}

#endif
