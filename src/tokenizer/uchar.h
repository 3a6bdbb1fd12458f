/* uchar - properties of code points: general category, white space, lower case, decomposition, grapheme breaks
 *
 * The tables (unicode_table.h) are those of one Unicode version; code points it does not assign are GC_CN.
 * Threads  safe: constants only
 */
#ifndef TOKENIZER_UCHAR_H
#define TOKENIZER_UCHAR_H

#include "base/unicode.h"

/* clang-format off */
enum uchar_category { GC_CN, GC_CC, GC_CF, GC_CS, GC_CO, GC_LU, GC_LL, GC_LT, GC_LM, GC_LO, GC_MN, GC_MC, GC_ME, GC_ND,
                      GC_NL, GC_NO, GC_PC, GC_PD, GC_PS, GC_PE, GC_PI, GC_PF, GC_PO, GC_SM, GC_SC, GC_SK, GC_SO, GC_ZS,
                      GC_ZL, GC_ZP };
enum uchar_break { GCB_OTHER, GCB_CR, GCB_LF, GCB_CONTROL, GCB_EXTEND, GCB_ZWJ, GCB_REGIONAL_INDICATOR, GCB_PREPEND,
                   GCB_SPACINGMARK, GCB_L, GCB_V, GCB_T, GCB_LV, GCB_LVT };
/* Sets of categories, one bit each. */
#define GC_BIT(c) (1u << (c))
#define GC_LETTER (GC_BIT(GC_LU) | GC_BIT(GC_LL) | GC_BIT(GC_LT) | GC_BIT(GC_LM) | GC_BIT(GC_LO))
#define GC_MARK   (GC_BIT(GC_MN) | GC_BIT(GC_MC) | GC_BIT(GC_ME))
#define GC_NUMBER (GC_BIT(GC_ND) | GC_BIT(GC_NL) | GC_BIT(GC_NO))
#define GC_PUNCT  (GC_BIT(GC_PC) | GC_BIT(GC_PD) | GC_BIT(GC_PS) | GC_BIT(GC_PE) | GC_BIT(GC_PI) | GC_BIT(GC_PF) | GC_BIT(GC_PO))
#define GC_SPACE  (GC_BIT(GC_ZS) | GC_BIT(GC_ZL) | GC_BIT(GC_ZP))
/* clang-format on */

unsigned uchar_category(uint32_t c);
/* Text of characters that are all safe is in NFC, and what stands before a safe one never combines with it. */
bool uchar_nfc_safe(uint32_t c);
/* As in Unicode 8, which Hugging Face's BERT and StripAccents steps still follow: nine characters have moved since. */
unsigned uchar_category_8(uint32_t c);
unsigned uchar_break(uint32_t c);
uint32_t uchar_lower(uint32_t c); /* simple mapping */
unsigned uchar_combining_class(uint32_t c);
/* One step of c's decomposition (Hangul included) into out[0..18); 0 = none. */
unsigned uchar_decompose(uint32_t *out, uint32_t c, bool compatibility);
uint32_t uchar_compose(uint32_t a, uint32_t b); /* 0 = none */

static inline bool uchar_in(uint32_t c, uint32_t categories)
{
    return categories >> uchar_category(c) & 1;
}
static inline bool uchar_is_space(uint32_t c) /* the White_Space property */
{
    return c < 0x85 ? c == ' ' || (c >= 9 && c <= 13) : c == 0x85 || uchar_in(c, GC_SPACE);
}

/* Decodes the character at p < end; malformed bytes are U+FFFD of length 1. */
static inline uint32_t uchar_at(const char *p, const char *end, int *len)
{
    unsigned char a = (unsigned char)p[0];
    if (a < 0x80) {
        *len = 1;
        return a;
    }
    return utf8_decode(p, (size_t)(end - p), len, NULL);
}

#endif
