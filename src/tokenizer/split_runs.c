/* split_runs - splitters that are runs of a set of characters, without contractions or kinds: digits, punctuation,
 * words
 *
 * A piece is a match or the text up to the next match.
 */
#include "tokenizer/split.h"
#include "tokenizer/uchar.h"

/* Runs (or single characters) for which `in` holds are matches. */
static inline const char *split_runs(const char *p, const char *end, bool *match, bool (*in)(uint32_t), bool runs)
{
    int len;
    *match = in(uchar_at(p, end, &len));
    p += len;
    if (*match && !runs)
        return p;
    while (p < end && in(uchar_at(p, end, &len)) == *match)
        p += len;
    return p;
}

static bool is_number(uint32_t c)
{
    return uchar_in(c, GC_NUMBER);
}

static bool is_punctuation(uint32_t c) /* as BERT has it: all of ASCII's symbols, too */
{
    return c < 0x80 ? (c > 32 && c < 48) || (c > 57 && c < 65) || (c > 90 && c < 97) || (c > 122 && c < 127)
                    : GC_PUNCT >> uchar_category_8(c) & 1;
}

static bool is_nonspace(uint32_t c)
{
    return !uchar_is_space(c);
}

static bool is_newline(uint32_t c)
{
    return c == '\r' || c == '\n';
}

static bool is_falcon_punctuation(uint32_t c) /* [\p{P}\$\+<=>\^~\|`] */
{
    return (c < 0x80 && strchr("$+<=>^~|`", (int)c) && c) || uchar_in(c, GC_PUNCT);
}

static bool is_default_punctuation(uint32_t c) /* [\p{P}\$\+<=>\^~\|] */
{
    return c != '`' && is_falcon_punctuation(c);
}

static bool is_cjk(uint32_t c) /* [\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff] */
{
    return (c >= 0x800 && c <= 0x9FA5) || (c >= 0xAC00 && c <= 0xD7FF);
}

const char *split_digit(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_number, false);
}

const char *split_digits(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_number, true);
}

const char *split_punctuation(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_punctuation, false);
}

const char *split_nonspace(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_nonspace, true);
}

const char *split_newline(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_newline, false);
}

const char *split_falcon_punctuation(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_falcon_punctuation, true);
}

const char *split_default_punctuation(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_default_punctuation, true);
}

const char *split_cjk(const char *p, const char *end, bool *match)
{
    return split_runs(p, end, match, is_cjk, true);
}

/* BERT: white space is a gap, a punctuation character is a piece, and so is what lies between. */
const char *split_bert(const char *p, const char *end, bool *match)
{
    int len;
    uint32_t c = uchar_at(p, end, &len);
    *match = !uchar_is_space(c);
    p += len;
    if (!*match || is_punctuation(c))
        return p;
    while (p < end && !uchar_is_space(c = uchar_at(p, end, &len)) && !is_punctuation(c))
        p += len;
    return p;
}

static bool is_word(uint32_t c) /* \w */
{
    return c == 0x200C || c == 0x200D ||
           uchar_in(c, GC_LETTER | GC_MARK | GC_BIT(GC_ND) | GC_BIT(GC_NL) | GC_BIT(GC_PC));
}

const char *split_words(const char *p, const char *end, bool *match) /* \w+|[^\w\s]+ */
{
    int len;
    uint32_t c = uchar_at(p, end, &len);
    *match = !uchar_is_space(c);
    bool word = is_word(c);
    p += len;
    while (*match && p < end && !uchar_is_space(c = uchar_at(p, end, &len)) && is_word(c) == word)
        p += len;
    return p;
}

const char *split_three_digits(const char *p, const char *end, bool *match) /* [0-9][0-9][0-9] */
{
    const char *q = p;
    int run = 0;
    *match = false;
    for (; q < end; q++) {
        run = *q >= '0' && *q <= '9' ? run + 1 : 0;
        if (run == 3) {
            *match = q - 2 == p;
            return *match ? q + 1 : q - 2;
        }
    }
    return q;
}

/* ---- deepseek-llm: an optional blank before a run of a fixed set ---- */
static bool in_ranges(const uint32_t (*r)[2], size_t n, uint32_t c)
{
    size_t low = 0;
    while (low < n) {
        size_t mid = (low + n) / 2;
        if (r[mid][1] < c)
            low = mid + 1;
        else
            n = mid;
    }
    return r[low][0] <= c && c <= r[low][1]; /* the table ends with a range nothing is beyond */
}

#include "tokenizer/split_table.h"
static bool is_deepseek_letter(uint32_t c)
{
    return in_ranges(deepseek_letters, sizeof deepseek_letters / sizeof *deepseek_letters - 1, c);
}

static bool is_deepseek_mark(uint32_t c) /* [!-/:-~！-／：-～‘-‟　-。] */
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '~') || (c >= 0xFF01 && c <= 0xFF0F) ||
           (c >= 0xFF1A && c <= 0xFF5E) || (c >= 0x2018 && c <= 0x201F) || (c >= 0x3000 && c <= 0x3002);
}

/* \s?[set]+ as a match, all else up to the next match as a gap. */
static const char *split_blank_run(const char *p, const char *end, bool *match, bool (*in)(uint32_t))
{
    const char *q = p;
    int len, next;
    while (q < end) {
        uint32_t c = uchar_at(q, end, &len);
        const char *start = q;
        if (!in(c) && uchar_is_space(c) && q + len < end)
            c = uchar_at(q += len, end, &next);
        if (in(c)) {
            *match = start == p;
            if (!*match)
                return start;
            while (q < end && in(uchar_at(q, end, &len)))
                q += len;
            return q;
        }
        q = start + len;
    }
    *match = false;
    return q;
}

const char *split_deepseek_letters(const char *p, const char *end, bool *match)
{
    return split_blank_run(p, end, match, is_deepseek_letter);
}

const char *split_deepseek_marks(const char *p, const char *end, bool *match)
{
    return split_blank_run(p, end, match, is_deepseek_mark);
}
