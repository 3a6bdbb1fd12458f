/* lex - template source to tokens, with Jinja's rules of white space (trim_blocks and lstrip_blocks on)
 *
 * The first newline after a block or comment tag goes; white space between the start of a line and such a tag goes;
 * "-" inside a delimiter takes all white space on its side, "+" keeps it. One newline at the end of the source goes.
 *
 * Invariants
 * 1. `at` only grows; each token takes at least one byte of source, so tokens <= 2 * bytes + 2
 * 2. line_starting: the last tag's own bytes ended with a newline (or we are at the start)
 */
#include "chat/template.h"

#include "base/unicode.h"

enum { BRACKETS_MAX = 256 };

struct lexer {
    const char *s;
    size_t n, at;
    uint32_t line;
    bool line_starting;
    struct token *tokens;
    size_t n_token, capacity;
    struct arena *arena;
    struct error *err;
};

static enum status push(struct lexer *l, struct token t)
{
    if (l->n_token == l->capacity) {
        size_t bigger = l->capacity * 2 + 64;
        struct token *items = arena_alloc(l->arena, bigger * sizeof *items);
        if (!items)
            return fail_nomem(l->err, "a template's tokens");
        if (l->n_token)
            memcpy(items, l->tokens, l->n_token * sizeof *items);
        l->tokens = items;
        l->capacity = bigger;
    }
    l->tokens[l->n_token++] = t;
    return ST_OK;
}

static char peek(const struct lexer *l, size_t ahead)
{
    return l->at + ahead < l->n ? l->s[l->at + ahead] : 0;
}

static void advance(struct lexer *l, size_t n)
{
    for (; n && l->at < l->n; n--)
        l->line += l->s[l->at++] == '\n';
}

static void skip_space(struct lexer *l)
{
    while (l->at < l->n) {
        int len;
        if (!char_is_space(utf8_decode(l->s + l->at, l->n - l->at, &len, NULL)))
            break;
        advance(l, (size_t)len);
    }
}

/* Takes "-%}", "+%}" or "%}" (first: '%', '#' or '}'); false when none is here. */
static bool take_end(struct lexer *l, char first)
{
    size_t start = l->at;
    char sign = peek(l, 0) == '-' || (peek(l, 0) == '+' && first != '}') ? peek(l, 0) : 0;
    if (peek(l, sign != 0) != first || peek(l, 1 + (sign != 0)) != '}')
        return false;
    advance(l, 2 + (sign != 0));
    if (sign == '-')
        skip_space(l);
    else if (sign == 0 && first != '}' && peek(l, 0) == '\n')
        advance(l, 1);
    l->line_starting = l->at > start && l->s[l->at - 1] == '\n';
    return true;
}

static bool all_space(struct str s)
{
    return str_strip(s, true, false).len == 0;
}

/* The text before a tag, as the tag's sign and the line it begins on leave it. */
static struct str text_before(const struct lexer *l, size_t start, size_t end, char sign, bool variable)
{
    struct str text = str_n(l->s + start, end - start);
    if (sign == '-')
        return str_strip(text, false, true);
    if (sign == '+' || variable)
        return text;
    size_t line = text.len;
    while (line && text.ptr[line - 1] != '\n')
        line--;
    if ((line > 0 || l->line_starting) && all_space(str_from(text, line)))
        text.len = line;
    return text;
}

static enum status push_text(struct lexer *l, struct str text)
{
    return text.len ? push(l, (struct token){.type = T_DATA, .line = l->line, .text = text}) : ST_OK;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
}

/* At "{% word %}" for this word (raw, endraw): takes up to the end of the word, leaving *sign; false: nothing taken. */
static bool take_tag_word(struct lexer *l, const char *word, char *sign)
{
    size_t start = l->at, n = strlen(word);
    uint32_t line = l->line;
    *sign = 0;
    if (peek(l, 0) == '{' && peek(l, 1) == '%') {
        advance(l, 2);
        if (peek(l, 0) == '-' || peek(l, 0) == '+') {
            *sign = peek(l, 0);
            advance(l, 1);
        }
        skip_space(l);
        if (l->n - l->at >= n && memcmp(l->s + l->at, word, n) == 0 && !is_word(peek(l, n))) {
            advance(l, n);
            skip_space(l);
            if (peek(l, 0) == '%' || peek(l, 0) == '-' || peek(l, 0) == '+')
                return true;
        }
    }
    l->at = start;
    l->line = line;
    return false;
}

static enum status lex_raw(struct lexer *l, uint32_t line)
{
    bool starting = l->line_starting;
    size_t start = l->at;
    if (peek(l, 0) == '-') {
        advance(l, 3);
        skip_space(l);
        starting = l->s[l->at - 1] == '\n';
        start = l->at;
    } else {
        advance(l, 2);
        start = l->at;
        starting = false;
    }
    l->line_starting = starting;
    for (; l->at < l->n; advance(l, 1)) {
        size_t end = l->at;
        char sign;
        if (peek(l, 0) == '{' && take_tag_word(l, "endraw", &sign)) {
            struct str text = text_before(l, start, end, sign, false);
            if (!take_end(l, '%'))
                return fail(l->err, ST_CORRUPT, "template line %u: endraw is not closed by %%}", l->line);
            return push_text(l, text);
        }
    }
    return fail(l->err, ST_CORRUPT, "template line %u: raw has no endraw", line);
}

static enum status lex_comment(struct lexer *l, uint32_t line)
{
    while (l->at < l->n) {
        if (take_end(l, '#'))
            return ST_OK;
        advance(l, 1);
    }
    return fail(l->err, ST_CORRUPT, "template line %u: the comment has no #}", line);
}

/* ---- inside a tag ---- */

/* One escape at s[0..n) behind the backslash into out (4 bytes); returns bytes taken, 0 = keep it as written. */
static size_t unescape(const char *s, size_t n, char out[4], int *written)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    const char *hit = n && s[0] ? strchr(from, s[0]) : NULL;
    *written = 1;
    if (hit) {
        out[0] = to[hit - from];
        return 1;
    }
    if (n && s[0] == '\n') {
        *written = 0;
        return 1;
    }
    uint32_t c = 0;
    size_t used = 0, want = n == 0 ? 0 : s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
    if (want) {
        for (used = 1; used <= want && used < n && hex_digit(s[used]) >= 0; used++)
            c = c << 4 | (uint32_t)hex_digit(s[used]);
        if (used != want + 1)
            return 0;
    } else {
        while (used < 3 && used < n && s[used] >= '0' && s[used] <= '7')
            c = c << 3 | (uint32_t)(s[used++] - '0');
        if (used == 0)
            return 0;
    }
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        c = UTF8_BAD;
    *written = utf8_encode(out, c);
    return used;
}

static enum status lex_string(struct lexer *l)
{
    char quote = peek(l, 0), *out;
    uint32_t line = l->line;
    size_t end = l->at + 1, n = 0;
    while (end < l->n && l->s[end] != quote)
        end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        return fail(l->err, ST_CORRUPT, "template line %u: a string has no closing %c", line, quote);
    out = arena_alloc(l->arena, end - l->at);
    if (!out)
        return fail_nomem(l->err, "a template's string");
    for (size_t i = l->at + 1; i < end;) {
        int written = 0;
        size_t used = l->s[i] == '\\' ? unescape(l->s + i + 1, end - i - 1, out + n, &written) : 0;
        if (used) {
            i += used + 1;
            n += (size_t)written;
        } else {
            out[n++] = l->s[i++];
        }
    }
    advance(l, end + 1 - l->at);
    return push(l, (struct token){.type = T_STRING, .line = line, .text = str_n(out, n)});
}

static size_t digits(const struct lexer *l, size_t i)
{
    while ((peek(l, i) >= '0' && peek(l, i) <= '9') ||
           (peek(l, i) == '_' && peek(l, i + 1) >= '0' && peek(l, i + 1) <= '9'))
        i++;
    return i;
}

static enum status lex_number(struct lexer *l)
{
    struct token t = {.type = T_INT, .line = l->line};
    char text[64];
    size_t n, used = 0;
    int base = peek(l, 0) != '0'                        ? 10
               : peek(l, 1) == 'x' || peek(l, 1) == 'X' ? 16
               : peek(l, 1) == 'o' || peek(l, 1) == 'O' ? 8
               : peek(l, 1) == 'b' || peek(l, 1) == 'B' ? 2
                                                        : 10;
    if (base != 10) {
        for (n = 2; hex_digit(peek(l, n)) >= 0 && hex_digit(peek(l, n)) < base; n++)
            if (__builtin_mul_overflow(t.integer, base, &t.integer) ||
                __builtin_add_overflow(t.integer, hex_digit(peek(l, n)), &t.integer))
                return fail(l->err, ST_LIMIT, "template line %u: a number over 64 bits", l->line);
        advance(l, n);
        return push(l, t);
    }
    n = digits(l, 0);
    if (l->at == 0 || l->s[l->at - 1] != '.') { /* x.0.1 is two subscripts, not a fraction */
        size_t m = n;
        if (peek(l, m) == '.' && peek(l, m + 1) >= '0' && peek(l, m + 1) <= '9')
            m = digits(l, m + 1);
        if (peek(l, m) == 'e' || peek(l, m) == 'E') {
            size_t k = m + 1 + (peek(l, m + 1) == '+' || peek(l, m + 1) == '-');
            if (peek(l, k) >= '0' && peek(l, k) <= '9')
                m = digits(l, k);
        }
        t.type = m > n ? T_REAL : T_INT;
        n = m;
    }
    for (size_t i = 0; i < n && used < sizeof text - 1; i++)
        if (peek(l, i) != '_')
            text[used++] = peek(l, i);
    text[used] = 0;
    if (used == sizeof text - 1 ||
        (t.type == T_INT ? !str_to_i64(&t.integer, str_n(text, used)) : !str_to_f64(&t.real, str_n(text, used))))
        return fail(l->err, ST_LIMIT, "template line %u: the number %s does not fit 64 bits", l->line, text);
    advance(l, n);
    return push(l, t);
}

static enum status lex_operator(struct lexer *l, char *stack, size_t *depth)
{
    static const struct {
        char text[3];
        uint8_t op;
    } pairs[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE}, {">=", OP_GE}, {"//", OP_FLOORDIV}, {"**", OP_POW}};
    struct token t = {.type = T_OP, .line = l->line};
    char c = peek(l, 0);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs && !t.op; i++)
        if (c == pairs[i].text[0] && peek(l, 1) == pairs[i].text[1])
            t.op = pairs[i].op;
    t.text = str_n(l->s + l->at, t.op ? 2 : 1);
    if (!t.op) {
        if (!c || !strchr("+-/*%~[](){}><=.:|,;", c))
            return fail(l->err, ST_CORRUPT, "template line %u: unexpected character '%c'", l->line, c < ' ' ? '?' : c);
        t.op = (uint8_t)c;
    }
    if (strchr("([{", c)) {
        if (*depth == BRACKETS_MAX)
            return fail(l->err, ST_LIMIT, "template line %u: brackets nested deeper than %d (depth)", l->line,
                        BRACKETS_MAX);
        stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (*depth == 0 || stack[--*depth] != c)
            return fail(l->err, ST_CORRUPT, "template line %u: unexpected '%c'", l->line, c);
    }
    advance(l, t.text.len);
    return push(l, t);
}

static enum status lex_inside(struct lexer *l, bool variable, uint32_t line)
{
    char stack[BRACKETS_MAX];
    size_t depth = 0;
    for (;;) {
        if (depth == 0 && take_end(l, variable ? '}' : '%'))
            return push(l, (struct token){.type = variable ? T_VAR_END : T_BLOCK_END, .line = l->line});
        if (l->at >= l->n)
            return fail(l->err, ST_CORRUPT, "template line %u: the tag has no %s", line, variable ? "}}" : "%}");
        size_t before = l->at;
        skip_space(l);
        if (l->at > before)
            continue;
        char c = peek(l, 0);
        if (c == '"' || c == '\'') {
            TRY(lex_string(l));
        } else if (c >= '0' && c <= '9') {
            TRY(lex_number(l));
        } else if (is_word(c)) {
            size_t n = 1;
            while (is_word(peek(l, n)))
                n++;
            TRY(push(l, (struct token){.type = T_NAME, .line = l->line, .text = str_n(l->s + l->at, n)}));
            advance(l, n);
        } else {
            TRY(lex_operator(l, stack, &depth));
        }
    }
}

static enum status lex_tag(struct lexer *l, size_t start)
{
    size_t tag = l->at;
    uint32_t line = l->line;
    char kind = peek(l, 1), sign;
    if (take_tag_word(l, "raw", &sign)) {
        bool closes =
            (peek(l, 0) == '%' && peek(l, 1) == '}') || (peek(l, 0) == '-' && peek(l, 1) == '%' && peek(l, 2) == '}');
        if (closes) {
            TRY(push_text(l, text_before(l, start, tag, sign, false)));
            return lex_raw(l, line);
        }
        l->at = tag;
        l->line = line;
    }
    sign = peek(l, 2) == '-' || peek(l, 2) == '+' ? peek(l, 2) : 0;
    TRY(push_text(l, text_before(l, start, tag, sign, kind == '{')));
    advance(l, 2 + (sign != 0));
    if (kind == '#')
        return lex_comment(l, line);
    TRY(push(l, (struct token){.type = kind == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN, .line = line}));
    return lex_inside(l, kind == '{', line);
}

/* "\r\n" and "\r" become "\n"; one final newline goes. */
static enum status normalize(struct lexer *l, struct str source)
{
    char *s = arena_alloc(l->arena, source.len + 1);
    if (!s)
        return fail_nomem(l->err, "a template's source");
    for (size_t i = 0; i < source.len; i++) {
        char c = source.ptr[i];
        if (c == '\r' && i + 1 < source.len && source.ptr[i + 1] == '\n')
            continue;
        s[l->n++] = c == '\r' ? '\n' : c;
    }
    if (l->n && s[l->n - 1] == '\n')
        l->n--;
    s[l->n] = 0;
    l->s = s;
    return ST_OK;
}

enum status template_lex(struct token **out, size_t *n, struct arena *arena, struct str source, struct error *err)
{
    struct lexer l = {.line = 1, .line_starting = true, .arena = arena, .err = err};
    TRY(normalize(&l, source));
    while (l.at < l.n) {
        size_t start = l.at;
        while (l.at < l.n && !(peek(&l, 0) == '{' && (peek(&l, 1) == '{' || peek(&l, 1) == '%' || peek(&l, 1) == '#')))
            advance(&l, 1);
        if (l.at == l.n)
            TRY(push_text(&l, str_n(l.s + start, l.n - start)));
        else
            TRY(lex_tag(&l, start));
    }
    TRY(push(&l, (struct token){.type = T_EOF, .line = l.line}));
    *out = l.tokens;
    *n = l.n_token;
    return ST_OK;
}
