/* strings - Python's string methods on UTF-8 with provenance; filters of the same name share them */
#include "chat/builtins.h"

#include "base/unicode.h"

static struct str text_of(const struct value *v)
{
    return v->type == V_STR ? value_str(v) : STR("");
}

static enum status want_str(struct run *r, const struct value *v, const char *what)
{
    if (v->type != V_STR)
        return run_error(r, ST_INVALID, "%s wants a string, found %s", what, value_type_name(v));
    return ST_OK;
}

static size_t char_at(struct str s, size_t i, uint32_t *c)
{
    int len;
    *c = utf8_decode(s.ptr + i, s.len - i, &len, NULL);
    return (size_t)len;
}

enum status string_escape(struct run *r, struct value *out, const struct value *v)
{
    static const char from[] = "&<>'\"";
    static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct value s;
    struct text t;
    text_init(&t, r);
    TRY(value_to_str(r, &s, v));
    if (s.safe) {
        *out = s;
        return ST_OK;
    }
    for (size_t i = 0; i < s.len && !t.failed; i++) {
        const char *hit = s.s[i] ? strchr(from, s.s[i]) : NULL;
        struct value c = value_slice(&s, i, 1);
        if (hit)
            text_add(&t, to[hit - from], strlen(to[hit - from]), c.mask && *c.mask ? MASK_PLAIN : NULL);
        else
            text_add_value(&t, &c);
    }
    TRY(run_step(r, s.len / 8));
    TRY(text_take(&t, out));
    out->safe = true;
    return ST_OK;
}

/* ---- case ---- */

/* A capital sigma at the end of a word, which is another letter in lower case. */
static bool is_final_sigma(const struct value *s, size_t i, bool after_cased)
{
    uint32_t c, next = ' ';
    size_t end = i + char_at(value_str(s), i, &c);
    if (end < s->len)
        char_at(value_str(s), end, &next);
    return c == 0x3A3 && after_cased && !char_is_cased(next);
}

enum status string_case(struct run *r, struct value *out, const struct value *s, enum string_case how)
{
    struct text t;
    bool start = true, after_cased = false;
    text_init(&t, r);
    for (size_t i = 0; i < s->len && !t.failed;) {
        uint32_t c;
        char bytes[CASE_BYTES_MAX];
        size_t len = char_at(value_str(s), i, &c);
        enum letter_case to = how == STRING_UPPER             ? CASE_UPPER
                              : how == STRING_LOWER || !start ? CASE_LOWER
                                                              : CASE_TITLE;
        if (how == STRING_WORDS && start)
            to = CASE_UPPER;
        size_t n = char_case(bytes, to == CASE_LOWER && is_final_sigma(s, i, after_cased) ? 0x3C2 : c, to);
        after_cased = char_is_cased(c);
        struct value at = value_slice(s, i, len);
        text_add(&t, bytes, n, at.mask && *at.mask ? MASK_PLAIN : NULL);
        if (how == STRING_CAPITALIZE)
            start = false;
        else if (how == STRING_TITLE)
            start = !char_is_cased(c);
        else if (how == STRING_WORDS)
            start = c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || char_is_space(c);
        i += len;
    }
    TRY(run_step(r, s->len / 8));
    return text_take(&t, out);
}

#define CASE_METHOD(name, how)                                                                                         \
    static enum status name(struct run *r, struct value *out, const struct value *self, const struct value *a,         \
                            const struct args *raw)                                                                    \
    {                                                                                                                  \
        (void)a, (void)raw;                                                                                            \
        return string_case(r, out, self, how);                                                                         \
    }
CASE_METHOD(m_upper, STRING_UPPER)
CASE_METHOD(m_lower, STRING_LOWER)
CASE_METHOD(m_title, STRING_TITLE)
CASE_METHOD(m_capitalize, STRING_CAPITALIZE)

/* ---- strip ---- */

static bool in_set(struct str set, uint32_t c)
{
    for (size_t i = 0; i < set.len;) {
        uint32_t d;
        i += char_at(set, i, &d);
        if (c == d)
            return true;
    }
    return false;
}

enum status string_strip(struct run *r, struct value *out, const struct value *s, const struct value *chars, bool left,
                         bool right)
{
    struct str all = value_str(s), rest;
    if (chars->type == V_MISSING || chars->type == V_NONE) {
        rest = str_strip(all, left, right);
    } else {
        TRY(want_str(r, chars, "strip"));
        struct str set = value_str(chars);
        uint32_t c;
        size_t len;
        for (rest = all; left && rest.len && (len = char_at(rest, 0, &c), in_set(set, c));)
            rest = str_from(rest, len);
        while (right && rest.len) {
            size_t i = rest.len - 1;
            while (i && ((unsigned char)rest.ptr[i] & 0xC0) == 0x80)
                i--;
            char_at(rest, i, &c);
            if (!in_set(set, c))
                break;
            rest.len = i;
        }
        TRY(run_step(r, (all.len - rest.len) * (set.len / 8 + 1)));
    }
    *out = value_slice(s, (size_t)(rest.ptr - all.ptr), rest.len);
    return run_step(r, all.len / 64);
}

#define STRIP_METHOD(name, left, right)                                                                                \
    static enum status name(struct run *r, struct value *out, const struct value *self, const struct value *a,         \
                            const struct args *raw)                                                                    \
    {                                                                                                                  \
        (void)raw;                                                                                                     \
        return string_strip(r, out, self, &a[0], left, right);                                                         \
    }
STRIP_METHOD(m_strip, true, true)
STRIP_METHOD(m_lstrip, true, false)
STRIP_METHOD(m_rstrip, false, true)

/* ---- split and join ---- */

static enum status push_slice(struct run *r, struct value *list, const struct value *s, size_t start, size_t end)
{
    struct value v = value_slice(s, start, end - start);
    return list_push(r, list->list, &v);
}

static enum status split_space(struct run *r, struct value *out, const struct value *s, int64_t max)
{
    struct str all = value_str(s), rest = str_strip(all, true, false);
    uint32_t c;
    while (rest.len) {
        size_t start = (size_t)(rest.ptr - all.ptr), n = 0, len;
        if (max-- == 0)
            return push_slice(r, out, s, start, all.len);
        while (n < rest.len && (len = char_at(rest, n, &c), !char_is_space(c)))
            n += len;
        TRY(push_slice(r, out, s, start, start + n));
        rest = str_strip(str_from(rest, n), true, false);
    }
    return ST_OK;
}

static size_t find_last(struct str s, struct str what)
{
    for (size_t i = s.len - what.len + 1; what.len <= s.len && i-- > 0;)
        if (memcmp(s.ptr + i, what.ptr, what.len) == 0)
            return i;
    return SIZE_MAX;
}

static enum status split(struct run *r, struct value *out, const struct value *self, const struct value *a, bool last)
{
    int64_t max = a[1].type == V_INT ? a[1].i : -1;
    TRY(list_new(r, out, V_LIST, 0));
    TRY(run_step(r, self->len / 16));
    if (a[0].type == V_MISSING || a[0].type == V_NONE) {
        if (last && max >= 0)
            return run_error(r, ST_UNSUPPORTED, "rsplit by white space with a maximum is not offered");
        return split_space(r, out, self, max);
    }
    TRY(want_str(r, &a[0], "split"));
    struct str s = value_str(self), by = value_str(&a[0]);
    if (by.len == 0)
        return run_error(r, ST_INVALID, "split by an empty string");
    if (last && max >= 0) {
        size_t end = s.len, at;
        while (max-- > 0 && (at = find_last(str_n(s.ptr, end), by)) != SIZE_MAX) {
            TRY(push_slice(r, out, self, at + by.len, end));
            end = at;
        }
        TRY(push_slice(r, out, self, 0, end));
        struct value *items = out->list->items;
        for (size_t i = 0, j = out->list->n - 1; i < j; i++, j--) {
            struct value v = items[i];
            items[i] = items[j];
            items[j] = v;
        }
        return ST_OK;
    }
    size_t start = 0, at;
    while (max-- != 0 && (at = str_find(s, by, start)) != SIZE_MAX) {
        TRY(push_slice(r, out, self, start, at));
        start = at + by.len;
    }
    return push_slice(r, out, self, start, s.len);
}

static enum status m_split(struct run *r, struct value *out, const struct value *self, const struct value *a,
                           const struct args *raw)
{
    (void)raw;
    return split(r, out, self, a, false);
}

static enum status m_rsplit(struct run *r, struct value *out, const struct value *self, const struct value *a,
                            const struct args *raw)
{
    (void)raw;
    return split(r, out, self, a, true);
}

static bool is_line_end(uint32_t c)
{
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

enum status string_lines(struct run *r, struct value *out, const struct value *s, bool keep)
{
    struct str all = value_str(s);
    size_t start = 0, i = 0;
    TRY(list_new(r, out, V_LIST, 0));
    while (i < all.len) {
        uint32_t c;
        size_t end = i, len = char_at(all, i, &c);
        i += len;
        if (!is_line_end(c))
            continue;
        if (c == '\r' && i < all.len && all.ptr[i] == '\n')
            i++;
        TRY(push_slice(r, out, s, start, keep ? i : end));
        start = i;
    }
    TRY(run_step(r, all.len / 16));
    return start < all.len ? push_slice(r, out, s, start, all.len) : ST_OK;
}

static enum status m_splitlines(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                const struct args *raw)
{
    (void)raw;
    return string_lines(r, out, self, value_truth(&a[0]));
}

static enum status partition(struct run *r, struct value *out, const struct value *self, const struct value *by,
                             bool last)
{
    TRY(want_str(r, by, "partition"));
    struct str s = value_str(self), what = value_str(by);
    if (what.len == 0)
        return run_error(r, ST_INVALID, "partition by an empty string");
    size_t at = last ? find_last(s, what) : str_find(s, what, 0);
    size_t head = at != SIZE_MAX ? at : last ? 0 : s.len, tail = at != SIZE_MAX ? at + what.len : head;
    TRY(run_step(r, s.len / 16));
    TRY(list_new(r, out, V_TUPLE, 3));
    TRY(push_slice(r, out, self, 0, head));
    TRY(push_slice(r, out, self, head, tail));
    return push_slice(r, out, self, tail, s.len);
}

static enum status m_partition(struct run *r, struct value *out, const struct value *self, const struct value *a,
                               const struct args *raw)
{
    (void)raw;
    return partition(r, out, self, &a[0], false);
}

static enum status m_rpartition(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                const struct args *raw)
{
    (void)raw;
    return partition(r, out, self, &a[0], true);
}

static enum status m_join(struct run *r, struct value *out, const struct value *self, const struct value *a,
                          const struct args *raw)
{
    struct value *items;
    struct text t;
    size_t n;
    (void)raw;
    text_init(&t, r);
    TRY(value_items(r, &items, &n, &a[0]));
    for (size_t i = 0; i < n; i++) {
        TRY(want_str(r, &items[i], "join"));
        if (i)
            text_add_value(&t, self);
        text_add_value(&t, &items[i]);
    }
    TRY(run_step(r, n));
    return text_take(&t, out);
}

/* ---- search and replace ---- */

enum status string_replace(struct run *r, struct value *out, const struct value *s, const struct value *from,
                           const struct value *to, const struct value *count)
{
    int64_t left = count->type == V_INT ? count->i : -1;
    struct str all = value_str(s);
    struct text t;
    size_t start = 0, at;
    TRY(want_str(r, from, "replace"));
    TRY(want_str(r, to, "replace"));
    text_init(&t, r);
    while (left != 0 && !t.failed && (at = str_find(all, value_str(from), start)) != SIZE_MAX) {
        size_t step = from->len;
        if (from->len == 0) { /* before each character, and at the end */
            text_add_value(&t, to);
            if (at >= all.len)
                break;
            uint32_t c;
            step = char_at(all, at, &c);
        }
        struct value before = value_slice(s, start, from->len ? at - start : step);
        text_add_value(&t, &before);
        if (from->len)
            text_add_value(&t, to);
        start = at + step;
        left -= left > 0;
        TRY(run_step(r, 1));
        if (from->len == 0 && start == all.len && left != 0) {
            text_add_value(&t, to);
            break;
        }
    }
    struct value rest = value_slice(s, start, all.len - start);
    text_add_value(&t, &rest);
    TRY(run_step(r, all.len / 16));
    return text_take(&t, out);
}

static enum status m_replace(struct run *r, struct value *out, const struct value *self, const struct value *a,
                             const struct args *raw)
{
    (void)raw;
    return string_replace(r, out, self, &a[0], &a[1], &a[2]);
}

static bool affix_is(const struct value *s, const struct value *affix, bool end)
{
    return end ? str_ends(value_str(s), value_str(affix)) : str_starts(value_str(s), value_str(affix));
}

static enum status has_affix(struct run *r, struct value *out, const struct value *self, const struct value *affix,
                             bool end)
{
    bool hit = false;
    if (affix->type == V_TUPLE) {
        for (size_t i = 0; i < affix->list->n && !hit; i++) {
            TRY(want_str(r, &affix->list->items[i], end ? "endswith" : "startswith"));
            hit = affix_is(self, &affix->list->items[i], end);
        }
    } else {
        TRY(want_str(r, affix, end ? "endswith" : "startswith"));
        hit = affix_is(self, affix, end);
    }
    *out = value_bool(hit);
    return ST_OK;
}

static enum status m_startswith(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                const struct args *raw)
{
    (void)raw;
    return has_affix(r, out, self, &a[0], false);
}

static enum status m_endswith(struct run *r, struct value *out, const struct value *self, const struct value *a,
                              const struct args *raw)
{
    (void)raw;
    return has_affix(r, out, self, &a[0], true);
}

static enum status remove_affix(struct run *r, struct value *out, const struct value *self, const struct value *affix,
                                bool end)
{
    TRY(want_str(r, affix, end ? "removesuffix" : "removeprefix"));
    size_t n = affix_is(self, affix, end) ? affix->len : 0;
    *out = value_slice(self, end ? 0 : n, self->len - n);
    return ST_OK;
}

static enum status m_removeprefix(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                  const struct args *raw)
{
    (void)raw;
    return remove_affix(r, out, self, &a[0], false);
}

static enum status m_removesuffix(struct run *r, struct value *out, const struct value *self, const struct value *a,
                                  const struct args *raw)
{
    (void)raw;
    return remove_affix(r, out, self, &a[0], true);
}

static enum status find(struct run *r, struct value *out, const struct value *self, const struct value *what, bool last)
{
    TRY(want_str(r, what, "find"));
    size_t at = last ? find_last(value_str(self), value_str(what)) : str_find(value_str(self), value_str(what), 0);
    TRY(run_step(r, self->len / 16));
    *out = value_int(at == SIZE_MAX ? -1 : (int64_t)chars_count(str_n(self->s, at)));
    return ST_OK;
}

static enum status m_find(struct run *r, struct value *out, const struct value *self, const struct value *a,
                          const struct args *raw)
{
    (void)raw;
    return find(r, out, self, &a[0], false);
}

static enum status m_rfind(struct run *r, struct value *out, const struct value *self, const struct value *a,
                           const struct args *raw)
{
    (void)raw;
    return find(r, out, self, &a[0], true);
}

static enum status m_index(struct run *r, struct value *out, const struct value *self, const struct value *a,
                           const struct args *raw)
{
    (void)raw;
    TRY(find(r, out, self, &a[0], false));
    return out->i < 0 ? run_error(r, ST_INVALID, "index: substring not found") : ST_OK;
}

static enum status m_count(struct run *r, struct value *out, const struct value *self, const struct value *a,
                           const struct args *raw)
{
    int64_t n = 0;
    (void)raw;
    TRY(want_str(r, &a[0], "count"));
    for (size_t at = 0; a[0].len && (at = str_find(value_str(self), value_str(&a[0]), at)) != SIZE_MAX; at += a[0].len)
        n++;
    TRY(run_step(r, self->len / 16));
    *out = value_int(a[0].len ? n : (int64_t)chars_count(value_str(self)) + 1);
    return ST_OK;
}

/* ---- questions about all characters ---- */

static enum status all_are(struct run *r, struct value *out, const struct value *self, bool (*is)(uint32_t c))
{
    bool all = self->len > 0;
    for (size_t i = 0; i < self->len && all;) {
        uint32_t c;
        i += char_at(value_str(self), i, &c);
        all = is(c);
    }
    *out = value_bool(all);
    return run_step(r, self->len / 16);
}

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(uint32_t c) /* letters without case (CJK and others) count as letters too */
{
    return c < 128 ? (c | 32) >= 'a' && (c | 32) <= 'z'
                   : char_is_cased(c) || (c >= 0x2E80 && c < 0xD7B0) || (c >= 0x590 && c < 0x2000);
}

static bool is_letter_or_digit(uint32_t c)
{
    return is_digit(c) || is_letter(c);
}

#define ALL_METHOD(name, is)                                                                                           \
    static enum status name(struct run *r, struct value *out, const struct value *self, const struct value *a,         \
                            const struct args *raw)                                                                    \
    {                                                                                                                  \
        (void)a, (void)raw;                                                                                            \
        return all_are(r, out, self, is);                                                                              \
    }
ALL_METHOD(m_isdigit, is_digit)
ALL_METHOD(m_isspace, char_is_space)
ALL_METHOD(m_isalpha, is_letter)
ALL_METHOD(m_isalnum, is_letter_or_digit)

enum status string_is_case(struct run *r, struct value *out, const struct value *s, bool upper)
{
    struct value changed;
    bool cased = false;
    TRY(string_case(r, &changed, s, upper ? STRING_UPPER : STRING_LOWER));
    for (size_t i = 0; i < s->len && !cased;) {
        uint32_t c;
        i += char_at(value_str(s), i, &c);
        cased = char_is_cased(c);
    }
    *out = value_bool(cased && str_eq(value_str(&changed), value_str(s)));
    return ST_OK;
}

static enum status m_isupper(struct run *r, struct value *out, const struct value *self, const struct value *a,
                             const struct args *raw)
{
    (void)a, (void)raw;
    return string_is_case(r, out, self, true);
}

static enum status m_islower(struct run *r, struct value *out, const struct value *self, const struct value *a,
                             const struct args *raw)
{
    (void)a, (void)raw;
    return string_is_case(r, out, self, false);
}

enum status string_fold(struct run *r, struct value *out, const struct value *v)
{
    *out = *v;
    return v->type == V_STR && text_of(v).len ? string_case(r, out, v, STRING_LOWER) : ST_OK;
}

const struct builtin string_methods[] = {
    {"upper", "", 0, m_upper, 1 << V_STR},
    {"lower", "", 0, m_lower, 1 << V_STR},
    {"title", "", 0, m_title, 1 << V_STR},
    {"capitalize", "", 0, m_capitalize, 1 << V_STR},
    {"strip", "chars", 0, m_strip, 1 << V_STR},
    {"lstrip", "chars", 0, m_lstrip, 1 << V_STR},
    {"rstrip", "chars", 0, m_rstrip, 1 << V_STR},
    {"split", "sep maxsplit", 0, m_split, 1 << V_STR},
    {"rsplit", "sep maxsplit", 0, m_rsplit, 1 << V_STR},
    {"splitlines", "keepends", 0, m_splitlines, 1 << V_STR},
    {"partition", "sep", 1, m_partition, 1 << V_STR},
    {"rpartition", "sep", 1, m_rpartition, 1 << V_STR},
    {"join", "iterable", 1, m_join, 1 << V_STR},
    {"replace", "old new count", 2, m_replace, 1 << V_STR},
    {"startswith", "prefix", 1, m_startswith, 1 << V_STR},
    {"endswith", "suffix", 1, m_endswith, 1 << V_STR},
    {"removeprefix", "prefix", 1, m_removeprefix, 1 << V_STR},
    {"removesuffix", "suffix", 1, m_removesuffix, 1 << V_STR},
    {"find", "sub", 1, m_find, 1 << V_STR},
    {"rfind", "sub", 1, m_rfind, 1 << V_STR},
    {"index", "sub", 1, m_index, 1 << V_STR},
    {"count", "sub", 1, m_count, 1 << V_STR},
    {"isdigit", "", 0, m_isdigit, 1 << V_STR},
    {"isdecimal", "", 0, m_isdigit, 1 << V_STR},
    {"isnumeric", "", 0, m_isdigit, 1 << V_STR},
    {"isspace", "", 0, m_isspace, 1 << V_STR},
    {"isalpha", "", 0, m_isalpha, 1 << V_STR},
    {"isalnum", "", 0, m_isalnum, 1 << V_STR},
    {"isupper", "", 0, m_isupper, 1 << V_STR},
    {"islower", "", 0, m_islower, 1 << V_STR},
};
const size_t n_string_method = sizeof string_methods / sizeof *string_methods;
