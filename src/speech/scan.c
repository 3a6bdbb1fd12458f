/* A strict JSON reader that takes one byte at a time and remembers nothing but where it is. */
#include "speech/private.h"

enum {
    S_VALUE,
    S_VALUE_OR_END,
    S_KEY_OR_END,
    S_KEY,
    S_COLON,
    S_AFTER,
    S_STRING,
    S_ESCAPE,
    S_HEX,
    S_WORD,
    S_MINUS,
    S_ZERO,
    S_INT,
    S_DOT,
    S_FRACTION,
    S_EXP,
    S_EXP_SIGN,
    S_EXP_INT
};
enum { DEPTH_MAX = 63 };

void json_scan_init(struct json_scan *s)
{
    *s = (struct json_scan){.state = S_VALUE};
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool in_object(const struct json_scan *s)
{
    return s->depth && (s->objects >> s->depth & 1);
}

static void value_ended(struct json_scan *s)
{
    s->state = S_AFTER;
    s->event = s->depth == 1 ? SCAN_VALUE_END : SCAN_NOTHING;
    s->done = s->depth == 0;
}

static bool push(struct json_scan *s, bool object)
{
    if (s->depth == DEPTH_MAX)
        return false;
    s->depth++;
    s->objects = (s->objects & ~(1ull << s->depth)) | (uint64_t)object << s->depth;
    s->state = object ? S_KEY_OR_END : S_VALUE_OR_END;
    return true;
}

static bool pop(struct json_scan *s, bool object)
{
    if (!s->depth || in_object(s) != object)
        return false;
    s->depth--;
    value_ended(s);
    return true;
}

static bool begin_value(struct json_scan *s, char c)
{
    s->event = s->depth == 1 ? SCAN_VALUE_BEGIN : SCAN_NOTHING;
    s->key = false;
    switch (c) {
    case '{':
    case '[':
        return push(s, c == '{');
    case '"':
        s->state = S_STRING;
        return true;
    case 't':
    case 'f':
    case 'n':
        s->word = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
        s->state = S_WORD;
        return true;
    default:
        s->state = c == '-' ? S_MINUS : c == '0' ? S_ZERO : S_INT;
        return c == '-' || is_digit(c);
    }
}

static bool string_byte(struct json_scan *s, char c)
{
    if (c == '\\')
        s->state = S_ESCAPE;
    else if (c == '"' && s->key)
        s->state = S_COLON, s->event = s->depth == 1 ? SCAN_KEY_END : SCAN_NOTHING;
    else if (c == '"')
        value_ended(s);
    return (unsigned char)c >= 0x20;
}

static bool escape_byte(struct json_scan *s, char c)
{
    if (s->state == S_HEX) {
        s->state = --s->hex ? S_HEX : S_STRING;
        return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f');
    }
    s->state = c == 'u' ? S_HEX : S_STRING;
    s->hex = 4;
    return c && strchr("\"\\/bfnrtu", c) != NULL;
}

/* Inside a number: the next state, or -1 when c is not of it. */
static int number_state(int state, char c)
{
    bool digit = is_digit(c), exp = (c | 32) == 'e';
    switch (state) {
    case S_MINUS:
        return c == '0' ? S_ZERO : digit ? S_INT : -1;
    case S_ZERO:
        return c == '.' ? S_DOT : exp ? S_EXP : -1;
    case S_INT:
        return digit ? S_INT : c == '.' ? S_DOT : exp ? S_EXP : -1;
    case S_DOT:
        return digit ? S_FRACTION : -1;
    case S_FRACTION:
        return digit ? S_FRACTION : exp ? S_EXP : -1;
    case S_EXP:
        return digit ? S_EXP_INT : c == '+' || c == '-' ? S_EXP_SIGN : -1;
    default:
        return digit ? S_EXP_INT : -1;
    }
}

static bool number_byte(struct json_scan *s, char c)
{
    int next = number_state(s->state, c);
    bool whole = s->state == S_ZERO || s->state == S_INT || s->state == S_FRACTION || s->state == S_EXP_INT;
    if (next >= 0) {
        s->state = (uint8_t)next;
        return true;
    }
    if (!whole || s->depth == 0)
        return false;
    s->state = S_AFTER;
    return json_scan_next(s, c);
}

static bool after_value(struct json_scan *s, char c)
{
    if (c == ',' && s->depth) {
        s->state = in_object(s) ? S_KEY : S_VALUE;
        return true;
    }
    return (c == '}' || c == ']') && pop(s, c == '}');
}

static bool structure_byte(struct json_scan *s, char c)
{
    if (speech_space(c))
        return true;
    switch (s->state) {
    case S_VALUE_OR_END:
        return c == ']' ? pop(s, false) : begin_value(s, c);
    case S_VALUE:
        return begin_value(s, c);
    case S_KEY_OR_END:
    case S_KEY:
        if (c == '}' && s->state == S_KEY_OR_END)
            return pop(s, true);
        s->state = S_STRING;
        s->key = true;
        s->event = s->depth == 1 ? SCAN_KEY_BEGIN : SCAN_NOTHING;
        return c == '"';
    case S_COLON:
        s->state = S_VALUE;
        return c == ':';
    default:
        return after_value(s, c);
    }
}

bool json_scan_next(struct json_scan *s, char c)
{
    s->event = SCAN_NOTHING;
    switch (s->state) {
    case S_STRING:
        return string_byte(s, c);
    case S_ESCAPE:
    case S_HEX:
        return escape_byte(s, c);
    case S_WORD:
        if (*s->word != c)
            return false;
        if (!*++s->word)
            value_ended(s);
        return true;
    default:
        return s->state >= S_MINUS ? number_byte(s, c) : structure_byte(s, c);
    }
}

bool json_scan_in_string(const struct json_scan *s)
{
    return s->state == S_STRING || s->state == S_ESCAPE || s->state == S_HEX;
}
