/* cursor - the one way to read untrusted bytes: bounded, little-endian, with a sticky failure
 *
 *   struct cursor c = cursor_of(data, size);  uint32_t n = cursor_u32(&c);  struct str s = cursor_bytes(&c, n);
 *   if (c.failed) return fail(...);           // a read beyond the end gives 0 or an empty str and sets failed
 */
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include "base/str.h"

struct cursor {
    const uint8_t *start, *at, *end;
    bool failed;
};

static inline struct cursor cursor_of(const void *data, size_t size)
{
    return (struct cursor){data, data, (const uint8_t *)data + size, false};
}
static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}
static inline size_t cursor_offset(const struct cursor *c)
{
    return (size_t)(c->at - c->start);
}
static inline struct str cursor_bytes(struct cursor *c, uint64_t n)
{
    if (c->failed || n > cursor_left(c)) {
        c->failed = true;
        return (struct str){"", 0};
    }
    struct str s = {(const char *)c->at, (size_t)n};
    c->at += n;
    return s;
}
static inline void cursor_skip(struct cursor *c, uint64_t n)
{
    (void)cursor_bytes(c, n);
}
static inline void cursor_seek(struct cursor *c, uint64_t offset) /* from the start */
{
    if (c->failed || offset > (size_t)(c->end - c->start))
        c->failed = true;
    else
        c->at = c->start + offset;
}
#define CURSOR_READ(name, type)                                                                                        \
    static inline type cursor_##name(struct cursor *c)                                                                 \
    {                                                                                                                  \
        type v = 0;                                                                                                    \
        struct str s = cursor_bytes(c, sizeof v);                                                                      \
        if (s.len)                                                                                                     \
            memcpy(&v, s.ptr, sizeof v);                                                                               \
        return v;                                                                                                      \
    }
CURSOR_READ(u8, uint8_t)
CURSOR_READ(u16, uint16_t)
CURSOR_READ(u32, uint32_t)
CURSOR_READ(u64, uint64_t)
CURSOR_READ(i8, int8_t)
CURSOR_READ(i16, int16_t)
CURSOR_READ(i32, int32_t)
CURSOR_READ(i64, int64_t)
CURSOR_READ(f32, float)
CURSOR_READ(f64, double)
#undef CURSOR_READ
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "Ingot reads little-endian formats in place");

#endif
