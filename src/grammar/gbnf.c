/* gbnf - llama.cpp's grammar notation, and plain EBNF
 *
 *   root ::= "yes" | "no" ws number{1,3}      # a comment
 *   number ::= [0-9] | "(" root ")"
 *
 * Also understood: `=` and `:` for `::=`, text in single quotes, /expressions/, `;` after a rule, `,` between items,
 * rules that call themselves first. Refused: tokens by number (<[7]>), Lark's %directives.
 * A rule ends where the next one's name and sign begin, so that alternatives may stand on lines of their own.
 */
#include "grammar/private.h"

#include "base/unicode.h"

struct parser {
    struct build *b;
    struct rules *rules;
    struct str s;
    size_t at;
    int depth;
};

static struct ast *refuse(struct parser *p, enum status st, const char *what)
{
    size_t line = 1;
    for (size_t i = 0; i < p->at && i < p->s.len; i++)
        line += p->s.ptr[i] == '\n';
    build_fail(p->b, st, "line %zu: %s", line, what);
    return NULL;
}

static char peek(const struct parser *p)
{
    return p->at < p->s.len ? p->s.ptr[p->at] : 0;
}
static bool next_is(const struct parser *p, const char *text)
{
    return str_starts(str_from(p->s, p->at), str_of(text));
}
static bool take(struct parser *p, const char *text)
{
    bool is = next_is(p, text);
    p->at += is ? strlen(text) : 0;
    return is;
}

static void skip_space(struct parser *p)
{
    for (; p->at < p->s.len; p->at++) {
        if (peek(p) == '#' || next_is(p, "//")) {
            while (p->at < p->s.len && peek(p) != '\n')
                p->at++;
            if (p->at == p->s.len)
                return;
        }
        if (!strchr(" \t\r\n", peek(p)))
            return;
    }
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static struct str take_name(struct parser *p)
{
    size_t start = p->at;
    while (p->at < p->s.len && is_name(p->s.ptr[p->at]))
        p->at++;
    return str_n(p->s.ptr + start, p->at - start);
}

static bool take_sign(struct parser *p)
{
    return take(p, "::=") || take(p, "=") || take(p, ":");
}

/* Does a rule begin here? Nothing is taken. */
static bool rule_begins(struct parser *p)
{
    size_t back = p->at;
    (void)(take(p, "?") || take(p, "!"));
    bool is = take_name(p).len > 0;
    while (is && (peek(p) == ' ' || peek(p) == '\t'))
        p->at++;
    is = is && take_sign(p);
    p->at = back;
    return is;
}

uint32_t rules_add(struct rules *r, struct str name)
{
    for (size_t i = 0; name.len && i < r->rules.n; i++)
        if (str_eq(r->rules.at[i].name, name))
            return (uint32_t)i;
    if (!build_step(r->b, r->rules.n + 1))
        return UINT32_MAX;
    struct rule *rule = VEC_ADD(r->b, &r->rules);
    if (!rule)
        return UINT32_MAX;
    *rule = (struct rule){.name = name};
    return (uint32_t)(r->rules.n - 1);
}

/* ---- items ---- */

static struct ast *take_choice(struct parser *p);

static bool hex_value(struct parser *p, int digits, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        int digit = hex_digit(peek(p));
        if (digit < 0)
            return false;
        v = v << 4 | (uint32_t)digit;
    }
    *out = v;
    return true;
}

static struct ast *take_text(struct parser *p, char quote)
{
    struct charset bytes = {0}; /* borrowed as a growing list: lo is a byte */
    while (p->at < p->s.len && peek(p) != quote) {
        char c = p->s.ptr[p->at++], out[4];
        uint32_t code = 0;
        int n = 1;
        out[0] = c;
        if (c == '\\') {
            static const char from[] = "nrt\\\"'[]/-", to[] = "\n\r\t\\\"'[]/-";
            char e = peek(p);
            const char *known = e ? strchr(from, e) : NULL;
            int digits = e == 'x' ? 2 : e == 'u' ? 4 : e == 'U' ? 8 : 0;
            p->at++;
            if (known)
                out[0] = to[known - from];
            else if (!digits || !hex_value(p, digits, &code) || code > 0x10FFFF || code >> 11 == 0xD800 >> 11)
                return refuse(p, ST_INVALID, "an escape that is not known");
            else
                n = utf8_encode(out, code);
        }
        for (int i = 0; i < n; i++)
            if (!charset_add(p->b, &bytes, (uint8_t)out[i], 0))
                return NULL;
    }
    if (p->at >= p->s.len)
        return refuse(p, ST_INVALID, "a text without its closing quote");
    p->at++;
    char *copy = build_temp(p->b, bytes.r.n + 1, 1);
    for (size_t i = 0; copy && i < bytes.r.n; i++)
        copy[i] = (char)bytes.r.at[i].lo;
    return copy ? ast_text(p->b, str_n(copy, bytes.r.n)) : NULL;
}

static struct ast *take_regex(struct parser *p)
{
    size_t start = p->at;
    while (p->at < p->s.len && peek(p) != '/')
        p->at += peek(p) == '\\' ? 2 : 1;
    if (p->at >= p->s.len)
        return refuse(p, ST_INVALID, "an expression without its closing /");
    struct ast *a = ast_new(p->b, AST_DFA);
    if (a)
        a->dfa = regex_compile(p->b, str_n(p->s.ptr + start, p->at - start), 0);
    p->at++;
    return a && a->dfa ? a : NULL;
}

static struct ast *take_call(struct parser *p)
{
    struct ast *a = ast_new(p->b, AST_CALL);
    if (a)
        a->callee = rules_add(p->rules, take_name(p));
    return a && a->callee != UINT32_MAX ? a : NULL;
}

static struct ast *take_item(struct parser *p)
{
    if (take(p, "\""))
        return take_text(p, '"');
    if (take(p, "'"))
        return take_text(p, '\'');
    if (take(p, "["))
        return regex_class(p->b, p->s, &p->at);
    if (take(p, ".")) {
        struct ast *a = ast_new(p->b, AST_CLASS);
        return a && charset_finish(p->b, &a->set, true) ? a : NULL;
    }
    if (take(p, "(")) {
        struct ast *a = take_choice(p);
        return !a ? NULL : take(p, ")") ? a : refuse(p, ST_INVALID, "a group without its )");
    }
    if (take(p, "/"))
        return take_regex(p);
    if (is_name(peek(p)))
        return take_call(p);
    return refuse(p, peek(p) == '<' || peek(p) == '!' || peek(p) == '%' ? ST_UNSUPPORTED : ST_INVALID,
                  peek(p) == '<' || peek(p) == '!' ? "tokens by number or name are not understood: write their text"
                  : peek(p) == '%'                 ? "%directives are not understood"
                                                   : "a text, a class, a group or a rule's name was expected");
}

static bool take_number(struct parser *p, uint32_t *out)
{
    uint64_t v = 0;
    size_t start = p->at;
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++)
        v = v < UINT32_MAX ? v * 10 + (uint64_t)(peek(p) - '0') : v;
    *out = v < REPEAT_NO_MAX ? (uint32_t)v : REPEAT_NO_MAX - 1;
    return p->at > start;
}

static struct ast *take_counts(struct parser *p, struct ast *item)
{
    uint32_t min = 0, max;
    skip_space(p);
    bool low = take_number(p, &min);
    skip_space(p);
    max = min;
    if (take(p, ",")) {
        skip_space(p);
        if (!take_number(p, &max))
            max = REPEAT_NO_MAX;
        skip_space(p);
    } else if (!low) {
        return refuse(p, ST_INVALID, "a repetition is written {2}, {2,} or {2,5}");
    }
    if (!take(p, "}") || max < min)
        return refuse(p, ST_INVALID, "a repetition is written {2}, {2,} or {2,5}");
    return ast_repeat(p->b, item, min, max);
}

static struct ast *take_repeated(struct parser *p)
{
    struct ast *a = take_item(p);
    for (int n = 0; a; skip_space(p))
        if (++n > AST_DEPTH_MAX / 4)
            return refuse(p, ST_LIMIT, "too many repetitions of repetitions");
        else if (take(p, "*"))
            a = ast_repeat(p->b, a, 0, REPEAT_NO_MAX);
        else if (take(p, "+"))
            a = ast_repeat(p->b, a, 1, REPEAT_NO_MAX);
        else if (peek(p) == '?' && !rule_begins(p) && take(p, "?"))
            a = ast_repeat(p->b, a, 0, 1);
        else if (take(p, "{"))
            a = take_counts(p, a);
        else
            break;
    return a;
}

static struct ast *take_choice(struct parser *p)
{
    struct ast *alt = ast_new(p->b, AST_ALT);
    if (++p->depth > AST_DEPTH_MAX)
        return refuse(p, ST_LIMIT, "groups nested too deep");
    do {
        struct ast *cat = ast_new(p->b, AST_CAT);
        skip_space(p);
        while (cat && p->at < p->s.len && !strchr("|);", peek(p)) && !rule_begins(p)) {
            cat = ast_add(cat, take_repeated(p));
            skip_space(p);
            if (take(p, ","))
                skip_space(p);
        }
        alt = ast_add(alt, cat);
    } while (alt && take(p, "|"));
    p->depth--;
    return alt;
}

static bool take_rule(struct parser *p, uint32_t *first)
{
    if (!rule_begins(p))
        return refuse(p, peek(p) == '%' ? ST_UNSUPPORTED : ST_INVALID,
                      peek(p) == '%' ? "%directives are not understood" : "a rule was expected: name ::= ...");
    (void)(take(p, "?") || take(p, "!"));
    uint32_t i = rules_add(p->rules, take_name(p));
    if (i == UINT32_MAX)
        return false;
    skip_space(p);
    (void)take_sign(p);
    if (p->rules->rules.at[i].defined)
        return build_fail(p->b, ST_INVALID, "rule \"%.*s\" is defined twice", STR_ARG(p->rules->rules.at[i].name));
    struct ast *body = take_choice(p);
    if (!body)
        return false;
    p->rules->rules.at[i].body = body;
    p->rules->rules.at[i].defined = true;
    *first = *first == UINT32_MAX ? i : *first;
    (void)take(p, ";");
    skip_space(p);
    return true;
}

bool gbnf_parse(struct rules *r, struct str text, uint32_t *root)
{
    struct parser p = {.b = r->b, .rules = r, .s = text};
    size_t n_before = r->rules.n;
    struct rules own = {.b = r->b}; /* names of two grammars do not meet */
    uint32_t first = UINT32_MAX;
    if (!utf8_valid(text))
        return build_fail(r->b, ST_INVALID, "the grammar is not valid UTF-8");
    p.rules = &own;
    skip_space(&p);
    while (p.at < text.len)
        if (!take_rule(&p, &first))
            return false;
    if (first == UINT32_MAX)
        return build_fail(r->b, ST_INVALID, "the grammar has no rules");
    *root = first;
    for (size_t i = 0; i < own.rules.n; i++) {
        struct rule *rule = &own.rules.at[i];
        if (!rule->defined)
            return build_fail(r->b, ST_INVALID, "rule \"%.*s\" is used, but not defined", STR_ARG(rule->name));
        if (str_is(rule->name, "root"))
            *root = (uint32_t)i;
    }
    *root += (uint32_t)n_before;
    return rules_join(r, &own);
}
