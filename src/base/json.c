/* json parser: one pass over the text, an explicit stack of open containers, one array of nodes sized beforehand */
#include "base/json.h"

#include "base/map.h"
#include "base/unicode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(sizeof(struct json) == 16, "a node is 16 bytes");
enum { COUNT_MAX = (1 << 28) - 1 };

struct parser {
    const char *start, *at, *end;
    struct arena *arena;
    struct error *err;
    struct json *nodes;
    size_t n_node, n_node_max;
    unsigned flags, depth;
    uint32_t open[JSON_DEPTH_MAX]; /* node indices of the containers around `at` */
};

/* ---- errors ---- */

static enum status fail_at(struct parser *p, enum status st, const char *what)
{
    size_t line = 1;
    const char *line_start = p->start;
    for (const char *c = p->start; c < p->at; c++)
        if (*c == '\n') {
            line++;
            line_start = c + 1;
        }
    return fail(p->err, st, "line %zu column %zu: %s", line, (size_t)(p->at - line_start) + 1, what);
}

static enum status fail_expected(struct parser *p, const char *expected)
{
    char what[96];
    if (p->at == p->end)
        snprintf(what, sizeof what, "expected %s, found the end of the text", expected);
    else if (*p->at > 0x20 && *p->at < 0x7F)
        snprintf(what, sizeof what, "expected %s, found '%c'", expected, *p->at);
    else
        snprintf(what, sizeof what, "expected %s, found byte 0x%02X", expected, (unsigned char)*p->at);
    return fail_at(p, ST_CORRUPT, what);
}

/* ---- nodes ---- */

/* How many nodes the text can have: every opening bracket, comma and colon outside strings begins at most one, and the
 * root. Text of n bytes has at most n/2 + 1, plus half the containers still open where it breaks: so nonsense such as a
 * megabyte of commas gets no more memory than good JSON of that size could. */
static size_t count_nodes(struct str text)
{
    size_t n = 1, most = text.len / 2 + JSON_DEPTH_MAX + 2;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"')
            in_string = true;
        else
            n += c == ',' || c == ':' || c == '[' || c == '{';
    }
    return n < most ? n : most;
}

static struct json *add_node(struct parser *p, enum json_type type)
{
    if (p->n_node == p->n_node_max)
        abort(); /* count_nodes is wrong: our mistake, never the text's */
    struct json *v = &p->nodes[p->n_node++];
    *v = (struct json){.type = (uint32_t)type & 15};
    return v;
}

static void skip_space(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r'))
        p->at++;
}

/* ---- strings ---- */

/* The end of the string that begins at `at` (after its quote); *plain = no escapes inside. Checks UTF-8 and controls.
 */
static enum status find_string_end(struct parser *p, const char **end, bool *plain)
{
    const char *c = p->at;
    *plain = true;
    for (;;) {
        if (c == p->end) {
            p->at = c;
            return fail_expected(p, "the string's closing quote");
        }
        unsigned char u = (unsigned char)*c;
        if (u == '"')
            break;
        if (u == '\\') {
            *plain = false;
            c += c + 1 < p->end ? 2 : 1;
        } else if (u < 0x20) {
            p->at = c;
            return fail_at(p, ST_CORRUPT, "control character in a string: write it as an escape");
        } else if (u < 0x80)
            c++;
        else {
            int len;
            bool bad;
            (void)utf8_decode(c, (size_t)(p->end - c), &len, &bad);
            if (bad) {
                p->at = c;
                return fail_at(p, ST_CORRUPT, "string is not valid UTF-8");
            }
            c += len;
        }
    }
    *end = c;
    return ST_OK;
}

static int hex4(const char *c, const char *end)
{
    int v = 0;
    if (end - c < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int d = hex_digit(c[i]);
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* Decodes one escape at p->at (after the backslash) to *out; a \uD8xx\uDCxx pair is one escape. */
static enum status decode_escape(struct parser *p, const char *end, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *known = *p->at ? strchr(from, *p->at) : NULL;
    if (known) {
        *(*out)++ = to[known - from];
        p->at++;
        return ST_OK;
    }
    if (*p->at != 'u')
        return fail_at(p, ST_CORRUPT, "unknown escape in a string");
    int unit = hex4(p->at + 1, end);
    if (unit < 0)
        return fail_at(p, ST_CORRUPT, "\\u needs four hexadecimal digits");
    uint32_t code = (uint32_t)unit;
    int taken = 5;
    if (unit >= 0xD800 && unit <= 0xDFFF) {
        int low = end - p->at > 6 && p->at[5] == '\\' && p->at[6] == 'u' ? hex4(p->at + 7, end) : -1;
        if (unit >= 0xDC00 || low < 0xDC00 || low > 0xDFFF)
            return fail_at(p, ST_CORRUPT, "lone surrogate in a string: \\uD800 to \\uDFFF come in pairs");
        code = 0x10000u + (((uint32_t)unit - 0xD800u) << 10) + ((uint32_t)low - 0xDC00u);
        taken = 11;
    }
    *out += utf8_encode(*out, code);
    p->at += taken;
    return ST_OK;
}

static enum status parse_string(struct parser *p)
{
    bool plain = true;
    p->at++;
    const char *begin = p->at, *end = begin;
    TRY(find_string_end(p, &end, &plain));
    struct json *v = add_node(p, JSON_STRING);
    v->text = begin;
    v->size = (uint32_t)(end - begin);
    if (!plain) {
        char *decoded = arena_alloc(p->arena, (size_t)(end - begin)), *out = decoded; /* escapes only shrink */
        if (!decoded)
            return fail_nomem(p->err, "JSON string");
        while (p->at < end) {
            if (*p->at != '\\') {
                *out++ = *p->at++;
                continue;
            }
            p->at++;
            TRY(decode_escape(p, end, &out));
        }
        v->text = decoded;
        v->size = (uint32_t)(out - decoded);
    }
    p->at = end + 1;
    return ST_OK;
}

/* ---- numbers ---- */

static size_t skip_digits(struct parser *p)
{
    const char *begin = p->at;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9')
        p->at++;
    return (size_t)(p->at - begin);
}

/* strtod wants a NUL; the grammar has been checked, so it takes all of it. */
static enum status real_of(struct parser *p, struct str text, double *out)
{
    char local[64], *copy = text.len < sizeof local ? local : arena_alloc(p->arena, text.len + 1);
    if (!copy)
        return fail_nomem(p->err, "JSON number");
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = 0;
    *out = strtod(copy, NULL);
    return isinf(*out) ? fail_at(p, ST_CORRUPT, "number is larger than any double") : ST_OK;
}

/* The usual short decimal: digits below 2^53 and a power of ten below 23 are both exact, so one rounding gives strtod's
 * answer (Clinger 1990). Returns false when the number is not of that kind. */
static bool real_fast(struct str text, double *out)
{
    static const double power[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t digits = 0;
    size_t n_fraction = 0, i = text.ptr[0] == '-';
    bool fraction = false;
    if (text.len > 17)
        return false;
    for (; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '.')
            fraction = true;
        else if (c >= '0' && c <= '9') {
            digits = digits * 10 + (uint64_t)(c - '0');
            n_fraction += fraction;
        } else
            return false;
    }
    if (digits >> 53)
        return false;
    double v = (double)digits / power[n_fraction];
    *out = text.ptr[0] == '-' ? -v : v;
    return true;
}

static enum status parse_number(struct parser *p)
{
    const char *begin = p->at;
    bool whole = true;
    if (*p->at == '-')
        p->at++;
    if (p->at < p->end && *p->at == '0')
        p->at++;
    else if (skip_digits(p) == 0)
        return fail_expected(p, "a digit");
    if (p->at < p->end && *p->at == '.') {
        whole = false;
        p->at++;
        if (skip_digits(p) == 0)
            return fail_expected(p, "a digit after the point");
    }
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        whole = false;
        p->at++;
        if (p->at < p->end && (*p->at == '+' || *p->at == '-'))
            p->at++;
        if (skip_digits(p) == 0)
            return fail_expected(p, "a digit in the exponent");
    }
    struct str text = {begin, (size_t)(p->at - begin)};
    int64_t integer;
    double real = 0;
    if (whole && str_to_i64(&integer, text)) {
        add_node(p, JSON_INT)->integer = integer;
        return ST_OK;
    }
    if (!real_fast(text, &real))
        TRY(real_of(p, text, &real));
    add_node(p, JSON_REAL)->real = real;
    return ST_OK;
}

/* ---- containers ---- */

static enum status check_unique(struct parser *p, const struct json *object)
{
    struct map seen;
    if (!map_init(&seen, object->count))
        return fail_nomem(p->err, "JSON keys");
    enum status st = ST_OK;
    JSON_EACH_MEMBER (key, value, object) {
        if (st != ST_OK)
            break;
        if (map_find(&seen, key))
            st = fail(p->err, ST_CORRUPT, "the key \"%.*s\" is given twice in one object",
                      (int)(key.len > 80 ? 80 : key.len), key.ptr);
        else if (!map_put(&seen, key, 1))
            st = fail_nomem(p->err, "JSON keys");
    }
    map_free(&seen);
    return st;
}

static enum status close_container(struct parser *p)
{
    uint32_t index = p->open[--p->depth];
    struct json *v = &p->nodes[index];
    v->size = (uint32_t)(p->n_node - index);
    p->at++;
    return (p->flags & JSON_UNIQUE) && v->type == JSON_OBJECT && v->count > 1 ? check_unique(p, v) : ST_OK;
}

/* Opens a container; *empty when its closing bracket follows (it is closed then). */
static enum status open_container(struct parser *p, enum json_type type, bool *empty)
{
    if (p->depth == JSON_DEPTH_MAX)
        return fail_at(p, ST_LIMIT, "nested deeper than 512 levels");
    p->open[p->depth++] = (uint32_t)p->n_node;
    add_node(p, type);
    p->at++;
    skip_space(p);
    *empty = p->at < p->end && *p->at == (type == JSON_OBJECT ? '}' : ']');
    return *empty ? close_container(p) : ST_OK;
}

static enum status parse_word(struct parser *p, const char *word, enum json_type type)
{
    size_t n = strlen(word);
    if ((size_t)(p->end - p->at) < n || memcmp(p->at, word, n) != 0)
        return fail_expected(p, "a value");
    p->at += n;
    add_node(p, type);
    return ST_OK;
}

/* One scalar or empty container, or the opening of another container (*opened). */
static enum status parse_one(struct parser *p, bool *opened)
{
    bool empty = true;
    enum status st;
    skip_space(p);
    switch (p->at < p->end ? *p->at : 0) {
    case '{':
        st = open_container(p, JSON_OBJECT, &empty);
        break;
    case '[':
        st = open_container(p, JSON_ARRAY, &empty);
        break;
    case '"':
        st = parse_string(p);
        break;
    case 't':
        st = parse_word(p, "true", JSON_TRUE);
        break;
    case 'f':
        st = parse_word(p, "false", JSON_FALSE);
        break;
    case 'n':
        st = parse_word(p, "null", JSON_NULL);
        break;
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        st = parse_number(p);
        break;
    default:
        st = fail_expected(p, "a value");
    }
    *opened = !empty;
    return st;
}

static enum status parse_key(struct parser *p)
{
    skip_space(p);
    if (p->at == p->end || *p->at != '"')
        return fail_expected(p, "a key in quotes");
    TRY(parse_string(p));
    skip_space(p);
    if (p->at == p->end || *p->at != ':')
        return fail_expected(p, "':' after the key");
    p->at++;
    return ST_OK;
}

/* After an item: a comma (*more), or the closing bracket of the container, which is then itself a finished item. */
static enum status after_item(struct parser *p, bool *more)
{
    struct json *parent = &p->nodes[p->open[p->depth - 1]];
    if (parent->count == COUNT_MAX)
        return fail_at(p, ST_LIMIT, "more than 268 million items in one container");
    parent->count++;
    skip_space(p);
    *more = p->at < p->end && *p->at == ',';
    if (*more) {
        p->at++;
        return ST_OK;
    }
    bool object = parent->type == JSON_OBJECT;
    if (p->at == p->end || *p->at != (object ? '}' : ']'))
        return fail_expected(p, object ? "',' or '}'" : "',' or ']'");
    return close_container(p);
}

static enum status parse_document(struct parser *p)
{
    for (;;) {
        bool opened, more = false;
        TRY(parse_one(p, &opened));
        while (!opened && !more) {
            if (p->depth == 0)
                return ST_OK;
            TRY(after_item(p, &more));
        }
        if (p->nodes[p->open[p->depth - 1]].type == JSON_OBJECT)
            TRY(parse_key(p));
    }
}

enum status json_parse(const struct json **out, struct arena *arena, struct str text, unsigned flags, struct error *err)
{
    *out = NULL;
    if (text.len >= UINT32_MAX)
        return fail(err, ST_LIMIT, "JSON text of %zu bytes: at most 4 GiB are accepted", text.len);
    if (!text.ptr)
        text = STR("");
    struct parser p = {
        .start = text.ptr, .at = text.ptr, .end = text.ptr + text.len, .arena = arena, .err = err, .flags = flags};
    p.n_node_max = count_nodes(text);
    p.nodes = arena_alloc(arena, p.n_node_max * sizeof *p.nodes);
    if (!p.nodes)
        return fail_nomem(err, "JSON document");
    TRY(parse_document(&p));
    skip_space(&p);
    if (p.at != p.end)
        return fail_expected(&p, "the end of the text");
    *out = p.nodes;
    return ST_OK;
}

/* ---- reading ---- */

const struct json *json_get_str(const struct json *object, struct str key)
{
    JSON_EACH_MEMBER (k, value, object)
        if (str_eq(k, key))
            return value;
    return NULL;
}

const struct json *json_get(const struct json *object, const char *key)
{
    return json_get_str(object, str_of(key));
}

const struct json *json_at(const struct json *array, size_t index)
{
    JSON_EACH (item, array)
        if (index-- == 0)
            return item;
    return NULL;
}
