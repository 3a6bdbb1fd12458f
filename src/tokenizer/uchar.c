#include "tokenizer/uchar.h"
#include "tokenizer/unicode_table.h"

enum { LAST = 0x10FFFF, HANGUL = 0xAC00, HANGUL_COUNT = 11172, JAMO_L = 0x1100, JAMO_V = 0x1161, JAMO_T = 0x11A7 };

enum { GC_MASK = 0x1F, NFC_UNSAFE = 0x80 };

static inline unsigned category_byte(uint32_t c)
{
    return c > LAST ? GC_CN : unicode_gc_block[unicode_gc_index[c / UNICODE_BLOCK] * UNICODE_BLOCK + c % UNICODE_BLOCK];
}

unsigned uchar_category(uint32_t c)
{
    return category_byte(c) & GC_MASK;
}

bool uchar_nfc_safe(uint32_t c)
{
    return !(category_byte(c) & NFC_UNSAFE);
}

unsigned uchar_category_8(uint32_t c)
{
    switch (c) {
    case 0x166D:
    case 0x111C9:
        return GC_PO;
    case 0x1734:
    case 0x1171E:
        return GC_MN;
    case 0x1885:
    case 0x1886:
        return GC_LO;
    case 0x1CF2:
    case 0x1CF3:
    case 0xA9BD:
        return GC_MC;
    default:
        return uchar_category(c);
    }
}

unsigned uchar_break(uint32_t c)
{
    return c > LAST ? GCB_OTHER
                    : unicode_gcb_block[unicode_gcb_index[c / UNICODE_BLOCK] * UNICODE_BLOCK + c % UNICODE_BLOCK];
}

uint32_t uchar_lower(uint32_t c)
{
    size_t low = 0, high = sizeof unicode_lower / sizeof *unicode_lower;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (unicode_lower[mid].last < c)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == sizeof unicode_lower / sizeof *unicode_lower || c < unicode_lower[low].first ||
        (c - unicode_lower[low].first) % unicode_lower[low].step)
        return c;
    return (uint32_t)((int32_t)c + unicode_lower[low].delta);
}

unsigned uchar_combining_class(uint32_t c)
{
    size_t low = 0, high = sizeof unicode_ccc / sizeof *unicode_ccc;
    if (c < 0x300)
        return 0;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if ((unicode_ccc[mid] >> 8 & 0xFFFFFF) < c)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == sizeof unicode_ccc / sizeof *unicode_ccc || c < unicode_ccc[low] >> 32)
        return 0;
    return (unsigned)(unicode_ccc[low] & 0xFF);
}

unsigned uchar_decompose(uint32_t *out, uint32_t c, bool compatibility)
{
    if (c < 0xA0)
        return 0;
    if (c >= HANGUL && c < HANGUL + HANGUL_COUNT) {
        uint32_t s = c - HANGUL, t = s % 28;
        out[0] = JAMO_L + s / 588;
        out[1] = JAMO_V + s % 588 / 28;
        out[2] = JAMO_T + t;
        return t ? 3 : 2;
    }
    size_t low = 0, high = sizeof unicode_decomposition / sizeof *unicode_decomposition;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (unicode_decomposition[mid] >> 40 < c)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == sizeof unicode_decomposition / sizeof *unicode_decomposition)
        return 0;
    uint64_t e = unicode_decomposition[low];
    if (e >> 40 != c || ((e & 1) && !compatibility))
        return 0;
    unsigned n = (unsigned)(e >> 1 & 0x7F);
    memcpy(out, unicode_decomposed + (e >> 8 & 0xFFFFFFFF), n * sizeof *out);
    return n;
}

uint32_t uchar_compose(uint32_t a, uint32_t b)
{
    if (a >= JAMO_L && a < JAMO_L + 19 && b >= JAMO_V && b < JAMO_V + 21)
        return HANGUL + ((a - JAMO_L) * 21 + (b - JAMO_V)) * 28;
    if (a >= HANGUL && a < HANGUL + HANGUL_COUNT && (a - HANGUL) % 28 == 0 && b > JAMO_T && b < JAMO_T + 28)
        return a + (b - JAMO_T);
    size_t low = 0, high = sizeof unicode_compose / sizeof *unicode_compose / 3;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const uint32_t *e = unicode_compose + 3 * mid;
        if (e[0] == a && e[1] == b)
            return e[2];
        if (e[0] < a || (e[0] == a && e[1] < b))
            low = mid + 1;
        else
            high = mid;
    }
    return 0;
}
