/* normalize - the normalizer steps of tokenizer.json and of SentencePiece models */
#include "tokenizer/tok.h"
#include "tokenizer/uchar.h"

static void append_char(struct buf *out, uint32_t c)
{
    char utf8[4];
    buf_append(out, utf8, (size_t)utf8_encode(utf8, c));
}

/* ---- the four Unicode normalization forms ---- */
struct code_points {
    uint32_t *items;
    size_t count, capacity;
};

static bool push(struct code_points *l, uint32_t c)
{
    if (!MEM_GROW(l->items, l->capacity, l->count))
        return false;
    l->items[l->count++] = c;
    return true;
}

/* Decompositions nest at most a few levels deep; the tables hold no cycle. */
static bool decompose(struct code_points *l, uint32_t c, bool compatibility)
{
    uint32_t parts[20];
    unsigned n = uchar_decompose(parts, c, compatibility);
    if (n == 0)
        return push(l, c);
    for (unsigned i = 0; i < n; i++)
        if (!(parts[i] == c ? push(l, c) : decompose(l, parts[i], compatibility)))
            return false;
    return true;
}

/* Stable sort by combining class of a run without starters; counting sort, since a run may be as long as the text. */
static bool sort_marks(uint32_t *run, size_t n)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++) {
            uint32_t c = run[i];
            unsigned class = uchar_combining_class(c);
            size_t j = i;
            for (; j > 0 && uchar_combining_class(run[j - 1]) > class; j--)
                run[j] = run[j - 1];
            run[j] = c;
        }
        return true;
    }
    size_t start[257] = {0};
    uint32_t *copy = mem_alloc(n * sizeof *copy);
    if (!copy)
        return false;
    for (size_t i = 0; i < n; i++)
        start[uchar_combining_class(run[i]) + 1]++;
    for (int k = 0; k < 256; k++)
        start[k + 1] += start[k];
    for (size_t i = 0; i < n; i++)
        copy[start[uchar_combining_class(run[i])]++] = run[i];
    memcpy(run, copy, n * sizeof *run);
    mem_free(copy);
    return true;
}

static void compose(struct code_points *l)
{
    size_t n = 0, starter = SIZE_MAX;
    int last_class = -1; /* of what stands between the starter and here; -1 = nothing */
    for (size_t i = 0; i < l->count; i++) {
        uint32_t c = l->items[i], whole = 0;
        int class = (int)uchar_combining_class(c);
        if (starter != SIZE_MAX && last_class < class)
            whole = uchar_compose(l->items[starter], c);
        if (whole) {
            l->items[starter] = whole;
            continue;
        }
        if (class == 0)
            starter = n;
        last_class = class == 0 ? -1 : class;
        l->items[n++] = c;
    }
    l->count = n;
}

static bool unicode_form(struct buf *out, struct str text, bool compatibility, bool composed)
{
    struct code_points l = {0};
    bool ok = true;
    for (const char *p = text.ptr, *end = p + text.len; ok && p < end;) {
        int len;
        ok = decompose(&l, uchar_at(p, end, &len), compatibility);
        p += len;
    }
    for (size_t i = 0, j; ok && i < l.count; i = j) {
        for (j = i; j < l.count && uchar_combining_class(l.items[j]); j++)
            ;
        ok = j - i < 2 || sort_marks(l.items + i, j - i);
        j += j == i;
    }
    if (ok && composed)
        compose(&l);
    for (size_t i = 0; ok && i < l.count; i++)
        append_char(out, l.items[i]);
    mem_free(l.items);
    return ok;
}

/* End of the longest run of characters that the form leaves as they are, whatever their neighbours; *last is where its
 * last character begins. */
static const char *safe_run(const char *p, const char *end, bool ascii_only, const char **last)
{
    while (p < end) {
        uint64_t eight;
        if (end - p >= 8 && (memcpy(&eight, p, 8), !(eight & 0x8080808080808080u))) {
            *last = p + 7;
            p += 8;
            continue;
        }
        int len;
        uint32_t c = uchar_at(p, end, &len);
        if (c >= 0x80 && (ascii_only || !uchar_nfc_safe(c)))
            break;
        *last = p;
        p += len;
    }
    return p;
}

/* Only stretches with a character that may change are worked on, from the safe one before to the safe one after. */
static enum status normal_form(struct buf *out, struct str text, bool compatibility, bool composed, struct error *err)
{
    bool ascii_only = compatibility || !composed;
    for (const char *p = text.ptr, *end = p + text.len; p < end;) {
        const char *last = p, *q = safe_run(p, end, ascii_only, &last);
        if (q == end) {
            buf_append(out, p, (size_t)(q - p));
            break;
        }
        buf_append(out, p, (size_t)(last - p)); /* the last safe one may combine with what follows */
        p = last;
        for (int len; q < end; q += len) {
            uint32_t c = uchar_at(q, end, &len);
            if (c < 0x80 || (!ascii_only && uchar_nfc_safe(c)))
                break;
        }
        if (!unicode_form(out, str_n(p, (size_t)(q - p)), compatibility, composed))
            return fail_nomem(err, "a text to normalize");
        p = q;
    }
    return ST_OK;
}

/* ---- character by character ---- */
static void lowercase(struct buf *out, uint32_t c)
{
    append_char(out, c == 0x130 ? 'i' : uchar_lower(c));
    if (c == 0x130) /* the one character whose lower case is two */
        append_char(out, 0x307);
}

static bool bert_drops(uint32_t c)
{
    return c == 0 || c == UTF8_BAD ||
           (c != '\t' && c != '\n' && c != '\r' && uchar_in(c, GC_BIT(GC_CC) | GC_BIT(GC_CF) | GC_BIT(GC_CO)));
}

static bool is_chinese(uint32_t c) /* the ranges the original lists, its gap at U+2B820 included */
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static enum status bert(const struct norm_step *step, struct buf *out, struct str text, struct error *err)
{
    struct buf clean = {0}, apart = {0};
    enum status st = ST_OK;
    for (const char *p = text.ptr, *end = p + text.len; p < end;) {
        int len;
        uint32_t c = uchar_at(p, end, &len);
        p += len;
        if (step->clean && bert_drops(c))
            continue;
        if (step->clean && uchar_is_space(c))
            c = ' ';
        bool alone = step->cjk && is_chinese(c);
        if (alone)
            buf_append_char(&clean, ' ');
        append_char(&clean, c);
        if (alone)
            buf_append_char(&clean, ' ');
    }
    if (step->strip_accents)
        st = normal_form(&apart, buf_str(&clean), false, false, err);
    struct str s = step->strip_accents ? buf_str(&apart) : buf_str(&clean);
    for (const char *p = s.ptr, *end = p + s.len; st == ST_OK && p < end;) {
        int len;
        uint32_t c = uchar_at(p, end, &len);
        p += len;
        if (step->strip_accents && uchar_category_8(c) == GC_MN)
            continue;
        if (step->lowercase)
            lowercase(out, c);
        else
            append_char(out, c);
    }
    if (clean.failed || apart.failed)
        st = fail_nomem(err, "a text to normalize");
    buf_free(&clean);
    buf_free(&apart);
    return st;
}

static bool nmt_drops(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
}

static bool nmt_blanks(uint32_t c)
{
    return c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
           c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == UTF8_BAD;
}

static bool is_accent(uint32_t c) /* a mark in Unicode 9, which moved two characters after Unicode 8 */
{
    return c == 0x1885 || c == 0x1886 || GC_MARK >> uchar_category_8(c) & 1;
}

static void each_character(enum norm_type type, struct buf *out, struct str text)
{
    for (const char *p = text.ptr, *end = p + text.len; p < end;) {
        int len;
        uint32_t c = uchar_at(p, end, &len);
        p += len;
        if (type == NORM_LOWERCASE)
            lowercase(out, c);
        else if (type == NORM_STRIP_ACCENTS ? !is_accent(c) : !nmt_drops(c))
            append_char(out, type == NORM_NMT && nmt_blanks(c) ? ' ' : c);
    }
}

/* ---- replacing ---- */
static void replace(struct buf *out, struct str text, struct str from, struct str to)
{
    size_t at = 0, found;
    while (from.len && (found = str_find(text, from, at)) != SIZE_MAX) {
        buf_append(out, text.ptr + at, found - at);
        buf_append_str(out, to);
        at = found + from.len;
    }
    buf_append(out, text.ptr + at, text.len - at);
}

/* Runs of white space; with `left`, only runs of two or more U+0020. */
static void replace_spaces(const struct norm_step *step, struct buf *out, struct str text)
{
    for (const char *p = text.ptr, *end = p + text.len; p < end;) {
        const char *q = p;
        int len = 1;
        while (q < end && (step->left ? *q == ' ' : uchar_is_space(uchar_at(q, end, &len))))
            q += len;
        if (q - p >= (step->left ? 2 : 1)) {
            buf_append_str(out, step->to);
            p = q;
            continue;
        }
        (void)uchar_at(p, end, &len);
        buf_append(out, p, (size_t)len);
        p += len;
    }
}

static void strip(const struct norm_step *step, struct buf *out, struct str text)
{
    const char *p = text.ptr, *end = p + text.len;
    int len;
    while (step->left && p < end && uchar_is_space(uchar_at(p, end, &len)))
        p += len;
    while (step->right && p < end) {
        const char *q = end - 1;
        while (q > p && ((unsigned char)*q & 0xC0) == 0x80)
            q--;
        if (!uchar_is_space(uchar_at(q, end, &len)))
            break;
        end = q;
    }
    buf_append(out, p, (size_t)(end - p));
}

/* ---- SentencePiece's precompiled map ---- */
enum status charsmap_open(struct charsmap *out, struct str blob, struct error *err)
{
    uint32_t bytes;
    *out = (struct charsmap){0};
    if (blob.len == 0)
        return ST_OK;
    if (blob.len < 4 || (memcpy(&bytes, blob.ptr, 4), bytes) > blob.len - 4 || bytes % 4 || bytes == 0)
        return fail(err, ST_CORRUPT, "tokenizer: the precompiled character map of %zu bytes has no whole trie",
                    blob.len);
    out->units = (const uint32_t *)(const void *)(blob.ptr + 4);
    out->n_unit = bytes / 4;
    out->strings = str_from(blob, 4 + (size_t)bytes);
    return ST_OK;
}

/* The replacement of the longest (or the first, hence shortest) key that s begins with; *len = 0 when there is none. */
static struct str charsmap_find(const struct charsmap *m, struct str s, bool longest, size_t *len)
{
    struct str found = {"", 0};
    *len = 0;
    if (m->n_unit == 0)
        return found;
    uint32_t unit = m->units[0];
    size_t at = (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.ptr[i];
        at ^= c;
        if (c == 0 || at >= m->n_unit)
            break;
        unit = m->units[at];
        if ((unit & (1u << 31 | 0xFF)) != c)
            break;
        at ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        if (!(unit >> 8 & 1))
            continue;
        if (at >= m->n_unit)
            break;
        size_t offset = m->units[at] & 0x7FFFFFFF;
        if (offset >= m->strings.len)
            break;
        found = str_from(m->strings, offset);
        const char *nul = memchr(found.ptr, 0, found.len);
        found.len = nul ? (size_t)(nul - found.ptr) : found.len;
        *len = i + 1;
        if (!longest)
            break;
    }
    return found;
}

/* Whether text may be cut between characters of break classes a and b (Unicode annex 29). Emoji sequences joined by
 * U+200D are not kept together: they are longer than any key the callers look up. */
static bool grapheme_break(unsigned a, unsigned b, unsigned n_regional)
{
    if (a == GCB_CR && b == GCB_LF)
        return false;
    if (a == GCB_CR || a == GCB_LF || a == GCB_CONTROL || b == GCB_CR || b == GCB_LF || b == GCB_CONTROL)
        return true;
    if (b == GCB_EXTEND || b == GCB_ZWJ || b == GCB_SPACINGMARK || a == GCB_PREPEND)
        return false;
    if (a == GCB_L && (b == GCB_L || b == GCB_V || b == GCB_LV || b == GCB_LVT))
        return false;
    if ((a == GCB_LV || a == GCB_V) && (b == GCB_V || b == GCB_T))
        return false;
    if ((a == GCB_LVT || a == GCB_T) && b == GCB_T)
        return false;
    return !(a == GCB_REGIONAL_INDICATOR && b == GCB_REGIONAL_INDICATOR && n_regional % 2 == 1);
}

/* As Hugging Face does it: a grapheme of under 6 bytes is looked up whole, else its characters are, one by one. */
static void precompiled(const struct charsmap *m, struct buf *out, struct str text)
{
    for (const char *p = text.ptr, *end = p + text.len, *q; p < end; p = q) {
        int len;
        unsigned a = uchar_break(uchar_at(p, end, &len)), n_regional = a == GCB_REGIONAL_INDICATOR;
        for (q = p + len; q < end; q += len) {
            unsigned b = uchar_break(uchar_at(q, end, &len));
            if (grapheme_break(a, b, n_regional))
                break;
            a = b;
            n_regional = b == GCB_REGIONAL_INDICATOR ? n_regional + 1 : 0;
        }
        size_t found = 0;
        struct str to = {"", 0};
        if (q - p < 6)
            to = charsmap_find(m, str_n(p, (size_t)(q - p)), false, &found);
        if (found) {
            buf_append_str(out, to);
            continue;
        }
        for (const char *r = p; r < q; r += len) {
            (void)uchar_at(r, q, &len);
            to = charsmap_find(m, str_n(r, (size_t)len), false, &found);
            buf_append_str(out, found ? to : str_n(r, (size_t)len));
        }
    }
}

/* What SentencePiece's normalizer makes of the beginning of s, and how many bytes of s that takes. */
static struct str sentencepiece_prefix(const struct norm_step *step, struct str s, size_t *taken)
{
    uint32_t node = TRIE_ROOT;
    *taken = 0;
    for (size_t i = 0; step->symbols && i < s.len && (node = trie_step(step->symbols, node, (unsigned char)s.ptr[i]));
         i++)
        if (step->symbols->value[node] >= 0)
            *taken = i + 1;
    if (*taken)
        return str_n(s.ptr, *taken);
    struct str to = charsmap_find(&step->map, s, true, taken);
    if (*taken)
        return to;
    int len;
    bool bad;
    (void)utf8_decode(s.ptr, s.len, &len, &bad);
    *taken = (size_t)len;
    return bad ? STR("\xEF\xBF\xBD") : str_n(s.ptr, (size_t)len);
}

static void sentencepiece(const struct norm_step *step, struct buf *out, struct str text)
{
    struct str space = step->escape_spaces ? STR(METASPACE) : STR(" ");
    size_t taken, start = out->len;
    while (step->remove_spaces && text.len && str_is(sentencepiece_prefix(step, text, &taken), " "))
        text = str_from(text, taken);
    if (text.len == 0)
        return;
    if (step->dummy_prefix && !step->as_suffix)
        buf_append_str(out, space);
    for (bool after_space = step->remove_spaces; text.len; text = str_from(text, taken)) {
        struct str s = sentencepiece_prefix(step, text, &taken);
        while (after_space && s.len && s.ptr[0] == ' ')
            s = str_from(s, 1);
        for (size_t i = 0; i < s.len; i++)
            if (s.ptr[i] == ' ')
                buf_append_str(out, space);
            else
                buf_append_char(out, s.ptr[i]);
        if (s.len)
            after_space = step->remove_spaces && s.ptr[s.len - 1] == ' ';
    }
    while (step->remove_spaces && out->len - start >= space.len && !out->failed &&
           memcmp(out->ptr + out->len - space.len, space.ptr, space.len) == 0)
        out->len -= space.len;
    if (step->dummy_prefix && step->as_suffix)
        buf_append_str(out, space);
}

enum status norm_apply(const struct norm_step *step, struct buf *out, struct str text, struct error *err)
{
    switch (step->type) {
    case NORM_NFC:
    case NORM_NFD:
    case NORM_NFKC:
    case NORM_NFKD:
        return normal_form(out, text, step->type == NORM_NFKC || step->type == NORM_NFKD,
                           step->type == NORM_NFC || step->type == NORM_NFKC, err);
    case NORM_LOWERCASE:
    case NORM_STRIP_ACCENTS:
    case NORM_NMT:
        each_character(step->type, out, text);
        break;
    case NORM_REPLACE:
        replace(out, text, step->from, step->to);
        break;
    case NORM_REPLACE_SPACES:
        replace_spaces(step, out, text);
        break;
    case NORM_PREPEND:
        if (text.len)
            buf_append_str(out, step->to);
        buf_append_str(out, text);
        break;
    case NORM_STRIP:
        strip(step, out, text);
        break;
    case NORM_BERT:
        return bert(step, out, text, err);
    case NORM_PRECOMPILED:
        precompiled(&step->map, out, text);
        break;
    case NORM_SENTENCEPIECE:
        sentencepiece(step, out, text);
        break;
    }
    return ST_OK;
}
