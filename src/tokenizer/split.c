#include "tokenizer/split.h"
#include "tokenizer/uchar.h"

/* Kinds: every character is exactly one of letter, number, space, other; K_NEWLINE is set beside K_SPACE. */
enum { K_LETTER = 1, K_NUMBER = 2, K_SPACE = 4, K_OTHER = 8, K_NEWLINE = 16 };

static const uint8_t ascii_kind[128] = {
    8, 8, 8, 8, 8, 8, 8, 8, 8, 4, 20, 4, 4, 20, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,
    4, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8,  8, 8, 8,  8, 8, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 8, 8, 8, 8, 8, 8,
    8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1, 1, 1,  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8, 8, 8, 8, 8,
    8, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1, 1, 1,  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8, 8, 8, 8, 8,
};

static unsigned kind_wide(const char *p, const char *end, int *len)
{
    uint32_t c = uchar_at(p, end, len), bit = GC_BIT(uchar_category(c));
    return bit & GC_LETTER ? K_LETTER : bit & GC_NUMBER ? K_NUMBER : bit & GC_SPACE || c == 0x85 ? K_SPACE : K_OTHER;
}

static inline unsigned kind_at(const char *p, const char *end, int *len)
{
    unsigned char a = (unsigned char)*p;
    if (a < 0x80) {
        *len = 1;
        return ascii_kind[a];
    }
    return kind_wide(p, end, len);
}

/* End of the longest run of kinds in `want` from p on. */
static inline const char *run_of(unsigned want, const char *p, const char *end)
{
    int len;
    while (p < end && kind_at(p, end, &len) & want)
        p += len;
    return p;
}

/* \s+(?!\S)|\s+ at a space p: all but the last character, unless the run ends the text or is one character. */
static const char *split_spaces(const char *p, const char *end)
{
    const char *q = p, *last = p;
    int len;
    while (q < end && kind_at(q, end, &len) & K_SPACE) {
        last = q;
        q += len;
    }
    return q == end || last == p ? q : last;
}

/* Length of 's 't 're 've 'm 'll 'd at the apostrophe p, or 0. FOLD: in any case, and (as Unicode's case folding has
 * it) also with U+017F for s when `long_s`. */
static inline int contraction(const char *p, const char *end, bool fold, bool long_s)
{
    if (end - p < 2)
        return 0;
    unsigned char a = (unsigned char)p[1], b = end - p > 2 ? (unsigned char)p[2] : 0;
    if (long_s && a == 0xC5 && b == 0xBF)
        return 3;
    if (fold) {
        a |= 0x20;
        b |= 0x20;
        if ((unsigned char)p[1] >= 0x80 || (end - p > 2 && (unsigned char)p[2] >= 0x80))
            b = 0;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    return (b == 'e' && (a == 'r' || a == 'v')) || (a == 'l' && b == 'l') ? 3 : 0;
}

const char *split_gpt2(const char *p, const char *end, bool *match)
{
    int len;
    *match = true;
    if (*p == '\'' && (len = contraction(p, end, false, false)) != 0)
        return p + len;
    unsigned kind = kind_at(p, end, &len);
    const char *q = p;
    if (*p == ' ' && p + 1 < end) {
        int next_len;
        unsigned next = kind_at(p + 1, end, &next_len);
        if (!(next & K_SPACE)) {
            kind = next;
            len = next_len;
            q++;
        }
    }
    return kind & K_SPACE ? split_spaces(p, end) : run_of(kind, q + len, end);
}

/* The family of cl100k, Llama 3 and Qwen2: they differ in the contractions, in how many digits make a piece, and in
 * whether blanks that end the text are one piece even when they hold a newline. */
struct family {
    bool long_s, trailing_blank;
    int digits;
};

static inline const char *split_family(const char *p, const char *end, struct family f)
{
    int len;
    if (*p == '\'' && (len = contraction(p, end, true, f.long_s)) != 0)
        return p + len;
    unsigned kind = kind_at(p, end, &len);
    const char *q = p + len;
    if (kind == K_LETTER)
        return run_of(K_LETTER, q, end);
    if (kind == K_NUMBER) {
        for (int n = 1; n < f.digits && q < end && kind_at(q, end, &len) == K_NUMBER; n++)
            q += len;
        return q;
    }
    unsigned next = q < end ? kind_at(q, end, &len) : 0;
    if (next == K_LETTER && !(kind & K_NEWLINE))
        return run_of(K_LETTER, q + len, end);
    if (kind == K_OTHER || (*p == ' ' && next == K_OTHER)) {
        q = run_of(K_OTHER, q, end);
        return run_of(K_NEWLINE, q, end);
    }
    const char *newline = NULL, *last = p; /* the run of spaces: after its last newline, its last character */
    for (q = p; q < end && (kind = kind_at(q, end, &len)) & K_SPACE; q += len) {
        last = q;
        if (kind & K_NEWLINE)
            newline = q + len;
    }
    if (f.trailing_blank && q == end)
        return q;
    return newline ? newline : q == end || last == p ? q : last;
}

static const char *split_cl100k(const char *p, const char *end, bool *match)
{
    *match = true;
    return split_family(p, end, (struct family){.long_s = true, .trailing_blank = true, .digits = 3});
}

static const char *split_llama3(const char *p, const char *end, bool *match)
{
    *match = true;
    return split_family(p, end, (struct family){.long_s = true, .digits = 3});
}

static const char *split_qwen2(const char *p, const char *end, bool *match)
{
    *match = true;
    return split_family(p, end, (struct family){.long_s = true, .digits = 1});
}

static const char *split_llama3_ascii(const char *p, const char *end, bool *match)
{
    *match = true;
    return split_family(p, end, (struct family){.digits = 3});
}

static const char *split_qwen2_ascii(const char *p, const char *end, bool *match)
{
    *match = true;
    return split_family(p, end, (struct family){.digits = 1});
}

/* ---- o200k: words are upper-case letters followed by lower-case ones; letters without case and marks are both ---- */
enum { UPPER = 1, LOWER = 2 };

static inline unsigned case_at(const char *p, const char *end, int *len)
{
    uint32_t bit = GC_BIT(uchar_category(uchar_at(p, end, len)));
    if (bit & (GC_BIT(GC_LM) | GC_BIT(GC_LO) | GC_MARK))
        return UPPER | LOWER;
    return bit & (GC_BIT(GC_LU) | GC_BIT(GC_LT)) ? UPPER : bit & GC_BIT(GC_LL) ? LOWER : 0;
}

static const char *run_of_case(unsigned want, const char *p, const char *end)
{
    int len;
    while (p < end && case_at(p, end, &len) & want)
        p += len;
    return p;
}

/* U*L+ from p, where U and L share the caseless: when no L follows the greedy U*, U* gives back to its last caseless
 * character. NULL: no match. */
static const char *word_lower(const char *p, const char *end)
{
    const char *q = p, *shared_end = NULL;
    int len;
    unsigned k = 0;
    while (q < end && (k = case_at(q, end, &len)) & UPPER) {
        q += len;
        if (k & LOWER)
            shared_end = q;
    }
    if (q < end && k == LOWER)
        return run_of_case(LOWER, q, end);
    return shared_end;
}

static const char *word_upper(const char *p, const char *end) /* U+L* */
{
    const char *q = run_of_case(UPPER, p, end);
    return q == p ? NULL : run_of_case(LOWER, q, end);
}

static const char *split_o200k(const char *p, const char *end, bool *match)
{
    int len, next_len;
    unsigned kind = kind_at(p, end, &len), next = 0;
    const char *after = p + len, *q = NULL;
    *match = true;
    bool prefix = !(kind & (K_LETTER | K_NUMBER | K_NEWLINE));
    if (prefix)
        q = word_lower(after, end);
    if (!q)
        q = word_lower(p, end);
    if (!q && prefix)
        q = word_upper(after, end);
    if (!q)
        q = word_upper(p, end);
    if (q) {
        if (q < end && *q == '\'')
            q += contraction(q, end, true, true);
        return q;
    }
    if (kind == K_NUMBER) {
        for (int n = 1; n < 3 && after < end && kind_at(after, end, &len) == K_NUMBER; n++)
            after += len;
        return after;
    }
    if (after < end)
        next = kind_at(after, end, &next_len);
    if (kind == K_OTHER || (*p == ' ' && next == K_OTHER)) {
        q = run_of(K_OTHER, after, end);
        while (q < end && (*q == '\r' || *q == '\n' || *q == '/'))
            q++;
        return q;
    }
    return split_family(p, end, (struct family){.digits = 3});
}

/* ---- a piece is a match or the text up to the next match ---- */

static const char *split_up_to_three_numbers(const char *p, const char *end, bool *match) /* \p{N}{1,3} */
{
    int len;
    *match = kind_at(p, end, &len) == K_NUMBER;
    p += len;
    for (int n = 1; p < end && (!*match || n < 3) && (kind_at(p, end, &len) == K_NUMBER) == *match; n++)
        p += len;
    return p;
}

/* CLIP: <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ */
static const char *split_clip(const char *p, const char *end, bool *match)
{
    static const struct str special[] = {{"<|startoftext|>", 15}, {"<|endoftext|>", 13}};
    int len;
    unsigned kind = kind_at(p, end, &len);
    *match = !(kind & K_SPACE);
    for (int i = 0; i < 2; i++)
        if (*p == '<' && str_starts(str_n(p, (size_t)(end - p)), special[i]))
            return p + special[i].len;
    if (*p == '\'') {
        int n = contraction(p, end, false, false);
        if (n)
            return p + n;
    }
    return kind == K_NUMBER ? p + len : run_of(kind & (K_LETTER | K_OTHER | K_SPACE), p + len, end);
}

static const char *split_trailing_space(const char *p, const char *end, bool *match) /* \s+$ */
{
    const char *q = run_of(K_SPACE, p, end);
    *match = q == end;
    while (!*match && q < end) { /* a gap reaches to the run of blanks that ends the text, if there is one */
        const char *word_end = run_of(K_LETTER | K_NUMBER | K_OTHER, q, end);
        q = run_of(K_SPACE, word_end, end);
        if (q == end)
            return word_end;
    }
    return q;
}

/* ---- tables ---- */
#define CONTRACT    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL        "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORD        "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define GPT2_REGEX  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define UP          "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOW         "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K_TAIL  "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define O200K_START "[^\\r\\n\\p{L}\\p{N}]?"

static const struct {
    const char *name, *regex;
    split_fn *split;
} regexes[] = {
    {"gpt2", GPT2_REGEX, split_gpt2},
    {"gpt2", "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s", split_gpt2},
    {"llama3", CONTRACT WORD "\\p{N}{1,3}" TAIL, split_llama3},
    {"cl100k", CONTRACT WORD "\\p{N}{1,3}" TAIL, split_cl100k}, /* tiktoken's: blanks that end a text are one piece */
    {"qwen2", CONTRACT WORD "\\p{N}" TAIL, split_qwen2},
    {"o200k", O200K_START UP "*" LOW "+" CONTRACT "?|" O200K_START UP "+" LOW "*" CONTRACT "?" O200K_TAIL, split_o200k},
    {"clip", "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+",
     split_clip},
    {"digit", "\\p{N}", split_digit},
    {"digits", "\\p{N}{1,3}", split_up_to_three_numbers},
    {"3digits", "[0-9][0-9][0-9]", split_three_digits},
    {"words", "\\w+|[^\\w\\s]+", split_words},
    {"newline", "[\r\n]", split_newline},
    {"cjk", "[一-龥ࠀ-一가-퟿]+", split_cjk},
};

split_fn *split_find_regex(struct str regex)
{
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++)
        if (str_is(regex, regexes[i].regex))
            return regexes[i].split;
    return NULL;
}

split_fn *split_find_name(const char *name)
{
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++)
        if (strcmp(name, regexes[i].name) == 0)
            return regexes[i].split;
    return NULL;
}

const char *split_regex(const char *name)
{
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++)
        if (strcmp(name, regexes[i].name) == 0)
            return regexes[i].regex;
    return NULL;
}

#define GPT2                                                                                                           \
    {                                                                                                                  \
        split_gpt2                                                                                                     \
    }
#define CODE                                                                                                           \
    {                                                                                                                  \
        split_digit, split_gpt2                                                                                        \
    }
#define LLAMA3                                                                                                         \
    {                                                                                                                  \
        split_llama3_ascii                                                                                             \
    }
#define QWEN2                                                                                                          \
    {                                                                                                                  \
        split_qwen2_ascii                                                                                              \
    }
#define PLAIN                                                                                                          \
    {                                                                                                                  \
        split_default_punctuation, split_gpt2, split_digits, split_three_digits                                        \
    }
#define FALCON                                                                                                         \
    {                                                                                                                  \
        split_falcon_punctuation, split_gpt2, split_three_digits                                                       \
    }
#define DEEPSEEK                                                                                                       \
    {                                                                                                                  \
        split_newline, split_deepseek_letters, split_deepseek_marks, split_trailing_space, split_cjk, split_digits     \
    }

static const struct split_pre pres[] = {
    {"default", PLAIN, false, false},
    {"gpt-2", GPT2, false, false},
    {"mpt", GPT2, false, false},
    {"olmo", GPT2, false, false},
    {"jais", GPT2, false, false},
    {"phi-2", GPT2, false, false},
    {"roberta-bpe", GPT2, false, false},
    {"jina-es", GPT2, false, false},
    {"jina-de", GPT2, false, false},
    {"refact", CODE, false, false},
    {"starcoder", CODE, false, false},
    {"command-r", CODE, false, false},
    {"smollm", CODE, false, false},
    {"codeshell", CODE, false, false},
    {"exaone", CODE, false, false},
    {"falcon", FALCON, false, false},
    {"llama-bpe", LLAMA3, true, true},
    {"llama3", LLAMA3, true, true},
    {"llama-v3", LLAMA3, true, true},
    {"dbrx", LLAMA3, false, false},
    {"smaug-bpe", LLAMA3, false, false},
    {"qwen2", QWEN2, false, false},
    {"deepseek-r1-qwen", QWEN2, false, false},
    {"stablelm2", QWEN2, false, false},
    {"gpt-4o", {split_o200k}, false, false},
    {"llama4", {split_o200k}, false, true},
    {"deepseek-llm", DEEPSEEK, false, false},
};

const struct split_pre *split_find_pre(struct str name)
{
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        if (str_is(name, pres[i].name))
            return &pres[i];
    return NULL;
}

/* llama.cpp's regular expressions take no U+017F for an s in contractions: no more than that lies between the two. */
static split_fn *ascii_twin(split_fn *split)
{
    return split == split_llama3 ? split_llama3_ascii : split == split_qwen2 ? split_qwen2_ascii : split;
}

const char *split_name_pre(split_fn *const *chain, bool ignore_merges)
{
    for (size_t i = 1; i < sizeof pres / sizeof *pres; i++) { /* the first row, "default", is no name to give */
        int k = 0;
        while (k < SPLIT_CHAIN_MAX && chain[k] && ascii_twin(chain[k]) == pres[i].chain[k])
            k++;
        bool whole = k == SPLIT_CHAIN_MAX || (!chain[k] && !pres[i].chain[k]);
        if (whole && pres[i].ignore_merges == ignore_merges)
            return pres[i].name;
    }
    return NULL;
}
