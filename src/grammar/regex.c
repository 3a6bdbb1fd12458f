/* regex - ECMA 262 expressions without what no automaton can do
 *
 * Understood: alternation, groups of every kind (their names mean nothing here), greedy and lazy quantifiers, classes,
 * \d \w \s and their opposites, \xHH \uHHHH \u{...} \cX, ^ and $ at any place, look-ahead at the front of a ^
 * expression. Refused: back references, look-behind, \b, look-ahead elsewhere, unicode properties.
 * `.` is any character but a line terminator, as in ECMA 262 and Python.
 */
#include "grammar/private.h"

#include "base/unicode.h"

struct reader {
    struct build *b;
    struct str s;
    size_t at;
    int depth;
};

static bool more(const struct reader *r)
{
    return r->at < r->s.len;
}
static bool next_is(const struct reader *r, const char *text)
{
    return str_starts(str_from(r->s, r->at), str_of(text));
}
static bool take(struct reader *r, const char *text)
{
    bool is = next_is(r, text);
    r->at += is ? strlen(text) : 0;
    return is;
}
static struct ast *refuse(struct reader *r, enum status st, const char *what)
{
    build_fail(r->b, st, "%s at offset %zu of \"%.*s\"", what, r->at, STR_ARG(r->s));
    return NULL;
}

static uint32_t take_char(struct reader *r) /* UTF-8 was checked */
{
    int len;
    uint32_t c = utf8_decode(r->s.ptr + r->at, r->s.len - r->at, &len, NULL);
    r->at += (size_t)len;
    return c;
}

/* ---- classes ---- */

static bool add_named(struct build *b, struct charset *out, char name)
{
    static const struct range digits[] = {{'0', '9'}}, words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                              spaces[] = {{9, 13},          {32, 32},         {0xA0, 0xA0},     {0x1680, 0x1680},
                                          {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                          {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    char kind = (char)(name | 32);
    const struct range *r = kind == 'd' ? digits : kind == 'w' ? words : spaces;
    size_t n = kind == 'd' ? 1 : kind == 'w' ? 4 : sizeof spaces / sizeof *spaces;
    struct charset set = {0};
    for (size_t i = 0; i < n; i++)
        if (!charset_add(b, &set, r[i].lo, r[i].hi))
            return false;
    if (!charset_finish(b, &set, name < 'a'))
        return false;
    for (size_t i = 0; i < set.r.n; i++)
        if (!charset_add(b, out, set.r.at[i].lo, set.r.at[i].hi))
            return false;
    return true;
}

static bool take_hex(struct reader *r, int n, uint32_t *out)
{
    uint32_t v = 0;
    if (r->s.len - r->at < (size_t)n)
        return false;
    for (int i = 0; i < n; i++) {
        int digit = hex_digit(r->s.ptr[r->at + (size_t)i]);
        if (digit < 0)
            return false;
        v = v << 4 | (uint32_t)digit;
    }
    r->at += (size_t)n;
    *out = v;
    return true;
}

/* \u{...}; two \uHHHH that are a surrogate pair are one character. `wide`: \UHHHHHHHH, as GBNF writes it. */
static bool take_unicode(struct reader *r, uint32_t *out)
{
    if (take(r, "{")) {
        uint32_t v = 0, digit;
        for (int i = 0; i < 8 && take_hex(r, 1, &digit) && v <= 0x10FFFF; i++)
            v = v << 4 | digit;
        *out = v;
        return take(r, "}") && v <= 0x10FFFF;
    }
    if (!take_hex(r, 4, out))
        return false;
    size_t back = r->at;
    uint32_t low;
    if (*out >> 10 == 0xD800 >> 10 && take(r, "\\u") && take_hex(r, 4, &low) && low >> 10 == 0xDC00 >> 10)
        *out = 0x10000 + ((*out & 0x3FF) << 10 | (low & 0x3FF));
    else
        r->at = back;
    return true;
}

/* After the backslash: a class name (returned in *name) or a character. */
static bool take_escape(struct reader *r, char *name, uint32_t *c)
{
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v";
    *name = 0;
    if (!more(r))
        return refuse(r, ST_INVALID, "a backslash that escapes nothing"), false;
    uint32_t e = take_char(r);
    const char *known = e && e < 128 ? strchr(from, (int)e) : NULL;
    if (known) {
        *c = (uint8_t)to[known - from];
        return e != '0' || !more(r) || r->s.ptr[r->at] < '0' || r->s.ptr[r->at] > '9' ||
               refuse(r, ST_UNSUPPORTED, "an octal escape");
    }
    if (e < 128 && e && strchr("dDwWsS", (int)e)) {
        *name = (char)e;
        return true;
    }
    *c = e;
    bool ok = true;
    if (e == 'x')
        ok = take_hex(r, 2, c);
    else if (e == 'u')
        ok = take_unicode(r, c);
    else if (e == 'U')
        ok = take_hex(r, 8, c) && *c <= 0x10FFFF;
    else if (e == 'c' && more(r))
        *c = take_char(r) & 31;
    else if (e == 'p' || e == 'P')
        return refuse(r, ST_UNSUPPORTED, "a unicode property"), false;
    else if (e >= '1' && e <= '9')
        return refuse(r, ST_UNSUPPORTED, "a back reference"), false;
    else if (e == 'k')
        return refuse(r, ST_UNSUPPORTED, "a back reference"), false;
    else if (e == 'a' || e == 'Z' || e == 'A' || e == 'z')
        return refuse(r, ST_UNSUPPORTED, "an escape that ECMA 262 does not know"), false;
    return ok || (refuse(r, ST_INVALID, "an escape that is not complete"), false);
}

static bool take_member(struct reader *r, char *name, uint32_t *c)
{
    if (take(r, "\\")) {
        if (take(r, "b")) {
            *c = '\b';
            *name = 0;
            return true;
        }
        return take_escape(r, name, c);
    }
    *name = 0;
    *c = take_char(r);
    return true;
}

static struct ast *take_class(struct reader *r)
{
    struct ast *a = ast_new(r->b, AST_CLASS);
    bool negate = take(r, "^");
    while (a && more(r) && !next_is(r, "]")) {
        char name, end_name = 0;
        uint32_t c, end;
        if (!take_member(r, &name, &c))
            return NULL;
        end = c;
        size_t dash = r->at;
        bool range = take(r, "-") && more(r) && !next_is(r, "]");
        if (!range)
            r->at = dash;
        else if (!take_member(r, &end_name, &end))
            return NULL;
        if (range && (name || end_name)) { /* [\w-.]: the dash is a dash */
            if (!charset_add(r->b, &a->set, '-', '-'))
                return NULL;
            if (name ? !add_named(r->b, &a->set, name) : !charset_add(r->b, &a->set, c, c))
                return NULL;
            if (end_name ? !add_named(r->b, &a->set, end_name) : !charset_add(r->b, &a->set, end, end))
                return NULL;
            continue;
        }
        if (end < c)
            return refuse(r, ST_INVALID, "a range that runs backwards");
        if (name ? !add_named(r->b, &a->set, name) : !charset_add(r->b, &a->set, c, end))
            return NULL;
    }
    if (!a || !take(r, "]"))
        return a ? refuse(r, ST_INVALID, "a class without its ]") : NULL;
    return charset_finish(r->b, &a->set, negate) ? a : NULL;
}

struct ast *regex_class(struct build *b, struct str s, size_t *at)
{
    struct reader r = {.b = b, .s = s, .at = *at};
    struct ast *a = take_class(&r);
    *at = r.at;
    return a;
}

/* ---- expressions ---- */

static struct ast *take_alternatives(struct reader *r);

static struct ast *one_char(struct reader *r, uint32_t c)
{
    struct ast *a = ast_new(r->b, AST_CLASS);
    return a && charset_add(r->b, &a->set, c, c) && charset_finish(r->b, &a->set, false) ? a : NULL;
}

static struct ast *take_group(struct reader *r)
{
    struct ast *look = NULL;
    if (take(r, "?=") || next_is(r, "?!")) {
        look = ast_new(r->b, AST_LOOK);
        if (!look)
            return NULL;
        look->negative = take(r, "?!");
    } else if (next_is(r, "?<=") || next_is(r, "?<!")) {
        return refuse(r, ST_UNSUPPORTED, "look-behind");
    } else if (take(r, "?<") || take(r, "?P<")) {
        while (more(r) && !next_is(r, ">"))
            take_char(r);
        if (!take(r, ">"))
            return refuse(r, ST_INVALID, "a group name without its >");
    } else if (!take(r, "?:") && next_is(r, "?")) {
        return refuse(r, ST_UNSUPPORTED, "a group of an unknown kind");
    }
    struct ast *inner = take_alternatives(r);
    if (!inner)
        return NULL;
    if (!take(r, ")"))
        return refuse(r, ST_INVALID, "a group without its )");
    return look ? ast_add(look, inner) : inner;
}

static struct ast *take_atom(struct reader *r)
{
    if (take(r, "("))
        return take_group(r);
    if (take(r, "["))
        return take_class(r);
    if (take(r, "^"))
        return ast_new(r->b, AST_BEGIN);
    if (take(r, "$"))
        return ast_new(r->b, AST_END);
    if (take(r, ".")) {
        struct ast *a = ast_new(r->b, AST_CLASS);
        return a && charset_add(r->b, &a->set, '\n', '\n') && charset_add(r->b, &a->set, '\r', '\r') &&
                       charset_add(r->b, &a->set, 0x2028, 0x2029) && charset_finish(r->b, &a->set, true)
                   ? a
                   : NULL;
    }
    if (next_is(r, "*") || next_is(r, "+") || next_is(r, "?"))
        return refuse(r, ST_INVALID, "a quantifier that has nothing to repeat");
    if (take(r, "\\")) {
        if (next_is(r, "b") || next_is(r, "B"))
            return refuse(r, ST_UNSUPPORTED, "a word boundary");
        char name;
        uint32_t c;
        if (!take_escape(r, &name, &c))
            return NULL;
        if (!name)
            return one_char(r, c);
        struct ast *a = ast_new(r->b, AST_CLASS);
        return a && add_named(r->b, &a->set, name) && charset_finish(r->b, &a->set, false) ? a : NULL;
    }
    return one_char(r, take_char(r));
}

static bool take_number(struct reader *r, uint32_t *out)
{
    uint64_t v = 0;
    size_t start = r->at;
    for (; more(r) && r->s.ptr[r->at] >= '0' && r->s.ptr[r->at] <= '9'; r->at++)
        v = v < UINT32_MAX ? v * 10 + (uint64_t)(r->s.ptr[r->at] - '0') : v;
    *out = v < REPEAT_NO_MAX ? (uint32_t)v : REPEAT_NO_MAX - 1;
    return r->at > start;
}

/* {n}, {n,}, {n,m}; a brace that is none of them is a character, as browsers have it. */
static bool take_counts(struct reader *r, uint32_t *min, uint32_t *max)
{
    size_t back = r->at;
    bool low = take(r, "{") && take_number(r, min), high = false;
    if (!low)
        *min = 0;
    *max = *min;
    if (r->at > back && take(r, ",")) {
        high = take_number(r, max);
        if (!high)
            *max = REPEAT_NO_MAX;
    }
    if ((low || high) && take(r, "}"))
        return true;
    r->at = back;
    return false;
}

static struct ast *take_repeated(struct reader *r)
{
    struct ast *a = take_atom(r);
    while (a) {
        uint32_t min = 0, max = REPEAT_NO_MAX;
        if (take(r, "*"))
            min = 0;
        else if (take(r, "+"))
            min = 1;
        else if (take(r, "?"))
            max = 1;
        else if (!take_counts(r, &min, &max))
            break;
        if (max < min)
            return refuse(r, ST_INVALID, "a repetition whose limits are swapped");
        if (a->kind == AST_LOOK)
            return refuse(r, ST_UNSUPPORTED, "a repeated look-ahead");
        (void)take(r, "?"); /* lazy: matches the same texts */
        a = ast_repeat(r->b, a, min, max);
    }
    return a;
}

static struct ast *take_alternatives(struct reader *r)
{
    struct ast *alt = ast_new(r->b, AST_ALT);
    if (++r->depth > AST_DEPTH_MAX)
        return refuse(r, ST_LIMIT, "groups nested too deep");
    do {
        struct ast *cat = ast_new(r->b, AST_CAT);
        while (cat && more(r) && !next_is(r, "|") && !next_is(r, ")"))
            cat = ast_add(cat, take_repeated(r));
        alt = ast_add(alt, cat);
    } while (alt && take(r, "|"));
    r->depth--;
    return alt;
}

/* ---- compiling ---- */

static struct ast *any_char_loop(struct build *b)
{
    struct ast *any = ast_new(b, AST_CLASS);
    return any && charset_finish(b, &any->set, true) ? ast_repeat(b, any, 0, REPEAT_NO_MAX) : NULL;
}

static struct dfa *compile_plain(struct build *b, struct ast *a, unsigned flags)
{
    struct ast *cat = ast_new(b, AST_CAT);
    if (flags & REGEX_SEARCH)
        cat = ast_add(cat, any_char_loop(b));
    cat = ast_add(cat, a);
    if (flags & REGEX_SEARCH)
        cat = ast_add(cat, any_char_loop(b));
    return dfa_of_ast(b, cat);
}

/* ^(?=A)(?!B)C: the texts of C that begin with one of A's and with none of B's. */
static struct dfa *compile_looking(struct build *b, struct ast *cat, unsigned flags)
{
    struct ast *rest = ast_new(b, AST_CAT), *first = cat->child;
    bool anchored = first && first->kind == AST_BEGIN;
    struct ast *at = anchored ? first->next : first;
    if (!anchored && flags & REGEX_SEARCH)
        return compile_plain(b, cat, flags); /* refused there */
    struct ast *looks = at;
    while (at && at->kind == AST_LOOK)
        at = at->next;
    struct ast *begin = ast_new(b, AST_BEGIN);
    rest = ast_add(rest, begin);
    if (!rest)
        return NULL;
    if (at) {
        rest->last->next = at;
        rest->last = cat->last;
    }
    struct dfa *d = compile_plain(b, rest, flags);
    for (struct ast *l = looks, *next; d && l != at; l = next) {
        next = l->next;
        struct ast *whole = ast_add(ast_add(ast_new(b, AST_CAT), ast_new(b, AST_BEGIN)), l->child);
        struct dfa *condition = compile_plain(b, ast_add(whole, any_char_loop(b)), 0);
        d = condition ? dfa_combine(b, d, condition, l->negative ? DFA_AND_NOT : DFA_AND) : NULL;
    }
    return d;
}

static bool has_look(const struct ast *cat)
{
    for (const struct ast *c = cat->child; c; c = c->next)
        if (c->kind == AST_LOOK)
            return true;
    return false;
}

struct dfa *regex_compile(struct build *b, struct str pattern, unsigned flags)
{
    struct reader r = {.b = b, .s = pattern};
    if (!utf8_valid(pattern)) {
        build_fail(b, ST_INVALID, "the expression is not valid UTF-8");
        return NULL;
    }
    struct ast *alt = take_alternatives(&r);
    if (alt && more(&r))
        return refuse(&r, ST_INVALID, "a ) without its group"), NULL;
    bool looks = false;
    for (struct ast *c = alt ? alt->child : NULL; c; c = c->next)
        looks |= has_look(c);
    if (!alt || !looks)
        return alt ? compile_plain(b, alt, flags) : NULL;
    struct dfa *d = NULL;
    for (struct ast *c = alt->child, *next; c; c = next) {
        next = c->next;
        c->next = NULL;
        struct dfa *one = has_look(c) ? compile_looking(b, c, flags) : compile_plain(b, c, flags);
        d = !one ? NULL : d ? dfa_combine(b, d, one, DFA_OR) : one;
        if (!d)
            return NULL;
    }
    return d;
}
