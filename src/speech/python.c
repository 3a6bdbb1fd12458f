/* A call as Python writes it, name(key='text', n=3, on=True, list=[1], d={'k': None}), read into JSON. */
#include "speech/private.h"

enum { DEPTH_MAX = 32, TEXT_END = -1 };

struct reader {
    const char *at, *end;
    struct json_writer w;
    enum python state; /* PYTHON_CALL: good so far */
};

static bool stop(struct reader *r) /* what is missing may still come, if nothing is left */
{
    r->state = r->at >= r->end ? PYTHON_MORE : PYTHON_NONE;
    return false;
}

static int look(struct reader *r)
{
    while (r->at < r->end && speech_space(*r->at))
        r->at++;
    return r->at < r->end ? (unsigned char)*r->at : TEXT_END;
}

static bool take(struct reader *r, char c)
{
    if (look(r) != (unsigned char)c)
        return stop(r);
    r->at++;
    return true;
}

static bool is_word(char c)
{
    return ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (c >= '0' && c <= '9');
}

static bool read_name(struct reader *r, struct str *out, bool dots)
{
    look(r);
    const char *begin = r->at;
    while (r->at < r->end && (is_word(*r->at) || (dots && (*r->at == '.' || *r->at == '-'))))
        r->at++;
    *out = str_n(begin, (size_t)(r->at - begin));
    return (out->len && r->at < r->end) || stop(r);
}

static void put_code(struct buf *out, unsigned code)
{
    if (code < 0x80) {
        buf_append_char(out, (char)code);
    } else if (code < 0x800) {
        buf_append_char(out, (char)(0xC0 | code >> 6));
        buf_append_char(out, (char)(0x80 | (code & 63)));
    } else {
        buf_append_char(out, (char)(0xE0 | code >> 12));
        buf_append_char(out, (char)(0x80 | (code >> 6 & 63)));
        buf_append_char(out, (char)(0x80 | (code & 63)));
    }
}

static bool read_hex(struct reader *r, struct buf *out, int n)
{
    unsigned code = 0;
    for (; n > 0; n--, r->at++) {
        if (r->at == r->end)
            return stop(r);
        int digit = hex_digit(*r->at);
        if (digit < 0)
            return stop(r);
        code = code * 16 + (unsigned)digit;
    }
    put_code(out, code);
    return true;
}

static bool read_escape(struct reader *r, struct buf *out)
{
    static const char from[] = "nrtbf0", to[] = "\n\r\t\b\f";
    if (r->at == r->end)
        return stop(r);
    char c = *r->at++;
    const char *known = memchr(from, c, sizeof from - 1);
    if (c == 'x' || c == 'u')
        return read_hex(r, out, c == 'x' ? 2 : 4);
    if (!known && c != '\\' && c != '\'' && c != '"')
        buf_append_char(out, '\\'); /* as Python: an unknown escape is two characters */
    buf_append_char(out, known ? to[known - from] : c);
    return true;
}

static bool read_text(struct reader *r, struct buf *out)
{
    char quote = *r->at++;
    while (r->at < r->end && *r->at != quote) {
        char c = *r->at++;
        if (c != '\\')
            buf_append_char(out, c);
        else if (!read_escape(r, out))
            return false;
    }
    if (r->at == r->end)
        return stop(r);
    r->at++;
    return true;
}

static bool read_number(struct reader *r)
{
    const char *begin = r->at;
    double real;
    int64_t integer;
    while (r->at < r->end && (is_word(*r->at) || strchr("+-.", *r->at)))
        r->at++;
    struct str s = str_n(begin, (size_t)(r->at - begin));
    if (r->at == r->end)
        return stop(r);
    if (str_to_i64(&integer, s))
        json_write_int(&r->w, integer);
    else if (str_to_f64(&real, s) && real - real == 0)
        json_write_real(&r->w, real);
    else
        r->state = PYTHON_NONE;
    return r->state == PYTHON_CALL;
}

static bool read_word(struct reader *r)
{
    static const struct {
        const char *word, *json;
    } words[] = {{"True", "true"}, {"False", "false"}, {"None", "null"},
                 {"true", "true"}, {"false", "false"}, {"null", "null"}};
    struct str name;
    if (!read_name(r, &name, false))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (str_is(name, words[i].word)) {
            json_write_raw(&r->w, str_of(words[i].json));
            return true;
        }
    r->state = PYTHON_NONE;
    return false;
}

static bool read_string(struct reader *r, bool key)
{
    struct buf text = {0};
    bool good = read_text(r, &text);
    if (good && key)
        json_key_str(&r->w, buf_str(&text));
    else if (good)
        json_write_str(&r->w, buf_str(&text));
    r->w.out->failed |= text.failed;
    buf_free(&text);
    return good;
}

static bool read_value(struct reader *r, int depth);

static bool read_items(struct reader *r, int depth, char close)
{
    bool object = close == '}';
    r->at++;
    if (object)
        json_begin_object(&r->w);
    else
        json_begin_array(&r->w);
    for (bool first = true; look(r) != (unsigned char)close; first = false) {
        if (!first && (!take(r, ',') || look(r) == (unsigned char)close))
            break;
        if (object && look(r) != '"' && look(r) != '\'')
            return stop(r);
        if (object && (!read_string(r, true) || !take(r, ':')))
            return false;
        if (!read_value(r, depth + 1))
            return false;
    }
    if (r->state != PYTHON_CALL || !take(r, close))
        return false;
    if (object)
        json_end_object(&r->w);
    else
        json_end_array(&r->w);
    return true;
}

static bool read_value(struct reader *r, int depth)
{
    int c = look(r);
    if (c == TEXT_END)
        return stop(r);
    if (depth > DEPTH_MAX) {
        r->state = PYTHON_NONE;
        return false;
    }
    if (c == '"' || c == '\'')
        return read_string(r, false);
    if (c == '[' || c == '{')
        return read_items(r, depth, c == '[' ? ']' : '}');
    return c == '-' || c == '+' || c == '.' || (c >= '0' && c <= '9') ? read_number(r) : read_word(r);
}

static bool read_call(struct reader *r, struct str *name)
{
    if (!read_name(r, name, true) || !take(r, '('))
        return false;
    if (str_ends(*name, STR(".call"))) /* Llama 3's built-in tools */
        name->len -= strlen(".call");
    json_begin_object(&r->w);
    for (bool first = true; look(r) != ')'; first = false) {
        struct str key;
        if (!first && (!take(r, ',') || look(r) == ')'))
            break;
        if (!read_name(r, &key, false) || !take(r, '='))
            return false;
        json_key_str(&r->w, key);
        if (!read_value(r, 0))
            return false;
    }
    json_end_object(&r->w);
    return r->state == PYTHON_CALL && take(r, ')');
}

enum python python_call(struct str *name, struct buf *args, size_t *n, struct str text)
{
    struct reader r = {.at = text.ptr, .end = text.ptr + text.len, .state = PYTHON_CALL};
    json_writer_init(&r.w, args);
    if (!read_call(&r, name))
        return r.state == PYTHON_CALL ? PYTHON_NONE : r.state;
    *n = (size_t)(r.at - text.ptr);
    return PYTHON_CALL;
}
