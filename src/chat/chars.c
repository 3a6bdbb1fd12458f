/* chars - characters of UTF-8 strings as Python's str sees them: counting, white space, case */
#include "chat/template.h"

#include "base/unicode.h"

struct case_range {
    uint32_t first, last;
    int step, delta;
};
struct case_special {
    uint32_t from;
    const char *to;
};
#include "chat/case_table.h"

size_t chars_count(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++)
        n += ((unsigned char)s.ptr[i] & 0xC0) != 0x80;
    return n;
}

size_t chars_offset(struct str s, size_t chars)
{
    size_t i = 0;
    for (; i < s.len; i++)
        if (((unsigned char)s.ptr[i] & 0xC0) != 0x80 && chars-- == 0)
            break;
    return i;
}

bool char_is_space(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* The last character's start. */
static size_t last_char(struct str s)
{
    size_t i = s.len - 1;
    while (i && s.len - i < 4 && ((unsigned char)s.ptr[i] & 0xC0) == 0x80)
        i--;
    return i;
}

struct str str_strip(struct str s, bool left, bool right)
{
    int len;
    while (left && s.len && char_is_space(utf8_decode(s.ptr, s.len, &len, NULL)))
        s = str_from(s, (size_t)len);
    while (right && s.len) {
        size_t i = last_char(s);
        if (!char_is_space(utf8_decode(s.ptr + i, s.len - i, &len, NULL)))
            break;
        s.len = i;
    }
    return s;
}

static const struct case_maps {
    const struct case_range *ranges;
    size_t n_range;
    const struct case_special *specials;
    size_t n_special;
    char first, last;
    int delta;
} maps[] = {
#define MAP(which, first, last, delta)                                                                                 \
    {                                                                                                                  \
        case_##which, sizeof case_##which / sizeof *case_##which, special_##which,                                     \
            sizeof special_##which / sizeof *special_##which, first, last, delta                                       \
    }
    [CASE_UPPER] = MAP(upper, 'a', 'z', 'A' - 'a'),
    [CASE_LOWER] = MAP(lower, 'A', 'Z', 'a' - 'A'),
    [CASE_TITLE] = MAP(title, 'a', 'z', 'A' - 'a'),
#undef MAP
};

size_t char_case(char out[CASE_BYTES_MAX], uint32_t c, enum letter_case to)
{
    const struct case_maps *m = &maps[to];
    if (c < 128) {
        out[0] = (char)((char)c >= m->first && (char)c <= m->last ? (int)c + m->delta : (int)c);
        return 1;
    }
    for (size_t i = 0; i < m->n_special; i++)
        if (m->specials[i].from == c) {
            size_t n = strlen(m->specials[i].to);
            memcpy(out, m->specials[i].to, n);
            return n;
        }
    size_t low = 0, high = m->n_range;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (m->ranges[mid].last < c)
            low = mid + 1;
        else
            high = mid;
    }
    const struct case_range *hit = &m->ranges[low];
    if (low < m->n_range && hit->first <= c && (c - hit->first) % (uint32_t)hit->step == 0)
        c = (uint32_t)((int32_t)c + hit->delta);
    return (size_t)utf8_encode(out, c);
}

bool char_is_cased(uint32_t c)
{
    char a[CASE_BYTES_MAX], b[CASE_BYTES_MAX];
    size_t n = char_case(a, c, CASE_UPPER), m = char_case(b, c, CASE_LOWER);
    return n != m || memcmp(a, b, n) != 0;
}
