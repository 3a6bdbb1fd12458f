/* One call after another, from their opening marker on.
 *
 *   START --{--> OBJECT --}--> AFTER --another opens--> START
 *         --name--> HEAD --{--> OBJECT                    (SPEECH_NAMED: the object is the arguments)
 *         --<function=--> KEYS --</function>--> AFTER     (SPEECH_XML)
 *         --[name( or name(--> PYTHON --whole--> AFTER
 *   eager, and the arguments' JSON breaks: OBJECT --> BROKEN --closing marker--> AFTER
 *   anything else: `opened` bytes become text, and the rest is read as text again
 *
 * All offsets are into s->held, which loses its front when a call has been said.
 */
#include "speech/private.h"

enum part { PART_START, PART_HEAD, PART_OBJECT, PART_KEYS, PART_PYTHON, PART_BROKEN, PART_AFTER };
enum { HEAD_MAX = 256 };

const struct speech_tool *call_tool(const struct speech *s, struct str name)
{
    for (size_t i = 0; s->o.tools && i < s->o.tools->count; i++)
        if (str_eq(s->o.tools->items[i].name, name))
            return &s->o.tools->items[i];
    return NULL;
}

void call_enter(struct speech *s, size_t opened)
{
    s->mode = SPEAK_CALL;
    s->part = PART_START;
    s->at = s->opened = opened;
    s->list = s->begun = s->named = false;
    s->from = s->value_at = 0;
    s->tool = NULL;
}

static void begin_object(struct speech *s)
{
    s->part = PART_OBJECT;
    s->from = s->at;
    s->name_len = s->args_len = s->args_at = s->key_len = 0;
    json_scan_init(&s->scan);
}

void call_enter_named(struct speech *s, const struct speech_tool *tool, size_t opened)
{
    call_enter(s, opened);
    s->named = true;
    s->tool = tool;
    begin_object(s);
}

static struct str rest(const struct speech *s)
{
    return str_from(buf_str(&s->held), s->at);
}

static void skip_space(struct speech *s)
{
    while (s->at < s->held.len && speech_space(s->held.ptr[s->at]))
        s->at++;
}

/* It was no call: the marker is text, and so is what follows, unless another marker is in it. */
static enum step bad(struct speech *s)
{
    size_t n = s->opened;
    s->n_bad++;
    s->mode = SPEAK_TEXT;
    s->said = true;
    s->at = 0;
    if (n) {
        speech_say(s, SPEECH_TEXT, str_n(s->held.ptr, n));
        speech_consume(s, n);
        s->trim = s->after_call = false;
    }
    return STEP_ON;
}

/* More text is needed; when none comes any more, this is no call. */
static enum step wait(struct speech *s)
{
    if (!s->ended && s->held.len <= SPEECH_HELD_MAX)
        return STEP_MORE;
    if (s->begun) { /* cut off: what was said of it stays */
        speech_say(s, SPEECH_CALL_END, STR(""));
        speech_consume(s, s->at);
        s->mode = SPEAK_TEXT;
        s->begun = false;
        s->n_call++;
        return STEP_ON;
    }
    return bad(s);
}

static void consume(struct speech *s)
{
    speech_consume(s, s->at);
    s->at = s->opened = s->from = 0;
}

static enum step said(struct speech *s)
{
    speech_say(s, SPEECH_CALL_END, STR(""));
    s->n_call++;
    s->begun = s->trim = false;
    s->after_call = true;
    consume(s);
    s->part = PART_AFTER;
    return STEP_ON;
}

static void begin(struct speech *s)
{
    s->begun = true;
    speech_say(s, SPEECH_CALL, s->tool->name);
}

/* ---- START ---- */

static bool is_name(char c)
{
    return ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
}

static void begin_python(struct speech *s)
{
    s->part = PART_PYTHON;
    s->from = s->at;
    s->tried = 0;
    s->depth = s->quote = 0;
}

static enum step start_list(struct speech *s)
{
    size_t at = s->from > s->at ? s->from : s->at + 1; /* from: looked at already */
    while (at < s->held.len && speech_space(s->held.ptr[at]))
        at++;
    s->from = at;
    if (at == s->held.len)
        return wait(s);
    if (s->held.ptr[at] == '{' && !s->list) {
        s->list = true;
        s->at = at;
        begin_object(s);
        return STEP_ON;
    }
    if (!is_name(s->held.ptr[at]) || !(s->o.format->flags & SPEECH_PYTHON) || s->list)
        return bad(s);
    s->list = true;
    s->at = at;
    begin_python(s);
    return STEP_ON;
}

static enum step start_step(struct speech *s)
{
    const struct speech_format *f = s->o.format;
    size_t len = 0;
    skip_space(s);
    if (s->at == s->held.len)
        return wait(s);
    char c = s->held.ptr[s->at];
    enum match m = c == '{' ? MATCH_NONE : speech_match_any(s, rest(s), f->open, &len);
    if (m == MATCH_PART)
        return wait(s);
    if (m == MATCH_FULL) {
        s->at = s->opened = s->at + len;
        return STEP_ON;
    }
    if (f->flags & SPEECH_XML) {
        m = speech_match(s, rest(s), "<function=");
        s->part = PART_HEAD;
        return m == MATCH_FULL ? STEP_ON : m == MATCH_PART ? (s->part = PART_START, wait(s)) : bad(s);
    }
    if (c == '{') {
        s->named = false;
        begin_object(s);
        return STEP_ON;
    }
    if (c == '[')
        return start_list(s);
    if (f->flags & SPEECH_NAMED)
        s->part = PART_HEAD;
    else
        begin_python(s);
    return f->flags & (SPEECH_NAMED | SPEECH_PYTHON) && is_name(c) ? STEP_ON : bad(s);
}

/* ---- HEAD: the name before the arguments ---- */

/* "name", "name[ARGS]", "name[CALL_ID]id[ARGS]", "name<sep>", "function<sep>name\n```json\n" */
static struct str name_of_head(struct str head)
{
    static const char sep[] = "<\xEF\xBD\x9Ctool\xE2\x96\x81sep\xEF\xBD\x9C>";
    size_t at = str_find(head, str_of(sep), 0), n = 0;
    if (at != SIZE_MAX && str_trim(str_from(head, at + sizeof sep - 1)).len)
        head = str_from(head, at + sizeof sep - 1);
    head = str_trim(head);
    while (n < head.len && head.ptr[n] != '[' && head.ptr[n] != '<' && !speech_space(head.ptr[n]))
        n++;
    return str_n(head.ptr, n);
}

static enum step function_step(struct speech *s)
{
    struct str head = str_from(rest(s), strlen("<function="));
    const char *end = memchr(head.ptr, '>', head.len);
    size_t n = end ? (size_t)(end - head.ptr) : head.len;
    if (!end && n <= HEAD_MAX)
        return wait(s);
    s->tool = end && n <= HEAD_MAX ? call_tool(s, str_trim(str_n(head.ptr, n))) : NULL;
    if (!s->tool)
        return bad(s);
    s->at = (size_t)(end + 1 - s->held.ptr);
    s->part = PART_KEYS;
    s->n_key = 0;
    buf_clear(&s->args);
    if (s->o.eager)
        begin(s);
    return STEP_ON;
}

static enum step head_step(struct speech *s)
{
    if (s->o.format->flags & SPEECH_XML)
        return function_step(s);
    struct str head = rest(s);
    const char *end = memchr(head.ptr, '{', head.len);
    size_t n = end ? (size_t)(end - head.ptr) : head.len;
    if (n > HEAD_MAX)
        return bad(s);
    if (!end)
        return wait(s);
    s->tool = call_tool(s, name_of_head(str_n(head.ptr, n)));
    if (!s->tool)
        return bad(s);
    s->at += n;
    s->named = true;
    begin_object(s);
    return STEP_ON;
}

/* ---- OBJECT ---- */

static struct str span(const struct speech *s, size_t at, size_t len)
{
    return str_n(s->held.ptr + at, len);
}

static bool key_is(const struct speech *s, const char *name)
{
    return str_is(span(s, s->key_at, s->key_len), name);
}

static bool key_is_args(const struct speech *s)
{
    return key_is(s, "arguments") || key_is(s, "parameters");
}

/* Inside {"name": ..., "arguments": ...}: notes where the parts lie. */
static void note(struct speech *s)
{
    size_t at = s->at;
    switch (s->scan.event) {
    case SCAN_KEY_BEGIN:
        s->key_at = at + 1;
        break;
    case SCAN_KEY_END:
        s->key_len = at - s->key_at;
        break;
    case SCAN_VALUE_BEGIN:
        s->value_at = at;
        if (key_is_args(s)) /* a number has no end of its own: one byte of it is enough to see that it is none */
            s->args_at = at, s->args_len = 1;
        break;
    case SCAN_VALUE_END:
        if (key_is(s, "name") && s->held.ptr[at] == '"')
            s->name_at = s->value_at + 1, s->name_len = at - s->name_at;
        if (key_is_args(s))
            s->args_at = s->value_at, s->args_len = at + 1 - s->value_at;
        break;
    default:
        break;
    }
}

/* Eager, and the arguments have just begun: from here on every byte is said. */
static void begin_early(struct speech *s)
{
    bool starts = s->named ? s->at == s->from
                           : s->scan.depth == 2 && s->scan.event == SCAN_VALUE_BEGIN && key_is_args(s) && s->name_len;
    if (!starts || s->held.ptr[s->at] != '{')
        return;
    if (!s->named)
        s->tool = call_tool(s, span(s, s->name_at, s->name_len));
    if (!s->tool)
        return;
    begin(s);
    s->args_at = s->at;
    s->args_len = 0;
}

/* The arguments sent as JSON text inside a string: what the string holds, if that is an object. */
static bool unquote(struct speech *s)
{
    struct arena arena;
    const struct json *outer, *inner;
    struct error ignored;
    arena_init(&arena, SPEECH_HELD_MAX * (size_t)20);
    bool good = json_parse(&outer, &arena, span(s, s->args_at, s->args_len), 0, &ignored) == ST_OK &&
                json_is(outer, JSON_STRING) && json_parse(&inner, &arena, json_str(outer), 0, &ignored) == ST_OK &&
                json_is(inner, JSON_OBJECT);
    buf_clear(&s->args);
    if (good)
        buf_append_str(&s->args, json_str(outer));
    arena_free(&arena);
    return good;
}

static enum step object_whole(struct speech *s)
{
    struct str args = STR("{}");
    if (s->begun)
        return said(s);
    if (!s->named)
        s->tool = call_tool(s, span(s, s->name_at, s->name_len));
    else
        s->args_at = s->from, s->args_len = s->at - s->from;
    if (!s->tool)
        return bad(s);
    struct str given = span(s, s->args_at, s->args_len);
    if (given.len && given.ptr[0] == '{')
        args = given;
    else if (given.len && given.ptr[0] == '"' && unquote(s))
        args = buf_str(&s->args);
    else if (given.len && !str_is(given, "null"))
        return bad(s);
    begin(s);
    speech_say(s, SPEECH_ARGUMENTS, args);
    return said(s);
}

/* What eager arguments have grown by is said, and held no longer. */
static void say_arguments(struct speech *s, size_t end)
{
    speech_say(s, SPEECH_ARGUMENTS, str_n(s->held.ptr + s->args_at, end - s->args_at));
    speech_consume(s, end);
    s->at -= end;
    s->args_at = s->opened = s->from = 0;
}

/* Eager, and this byte is no JSON. */
static enum step object_broken(struct speech *s, bool inside)
{
    if (!inside) /* the arguments were whole */
        return said(s);
    say_arguments(s, s->at);
    s->part = PART_BROKEN;
    return STEP_ON;
}

static enum step object_step(struct speech *s)
{
    bool inside = s->begun && s->args_len == 0; /* of arguments that are said as they come */
    if (!s->begun && s->at == s->from) {
        skip_space(s);
        s->from = s->at;
    }
    while (s->at < s->held.len) {
        if (!json_scan_next(&s->scan, s->held.ptr[s->at]))
            return s->begun ? object_broken(s, inside) : bad(s);
        if (!s->named && !s->begun)
            note(s);
        if (s->o.eager && !s->begun) {
            begin_early(s);
            inside = s->begun;
        }
        s->at++;
        if (inside && (s->named ? s->scan.done : s->scan.event == SCAN_VALUE_END)) {
            say_arguments(s, s->at);
            s->args_len = 1;
            inside = false;
        }
        if (s->scan.done)
            return object_whole(s);
    }
    if (inside)
        say_arguments(s, s->at);
    return wait(s);
}

/* Eager arguments that are no JSON: all of it, up to whatever ends a call. */
static enum step broken_step(struct speech *s)
{
    const struct speech_format *f = s->o.format;
    size_t len = 0, i = 0;
    enum match m = MATCH_NONE;
    for (; i < s->held.len; i++) {
        m = speech_match_any(s, str_from(buf_str(&s->held), i), f->after, &len);
        if (m == MATCH_NONE)
            m = speech_match_any(s, str_from(buf_str(&s->held), i), f->open, &len);
        if (m != MATCH_NONE)
            break;
    }
    speech_say(s, SPEECH_ARGUMENTS, str_n(s->held.ptr, i));
    speech_consume(s, i);
    s->at = 0;
    return m == MATCH_FULL ? said(s) : wait(s);
}

/* ---- KEYS: <parameter=key>value</parameter> ---- */

static bool key_is_text(const struct speech *s, struct str key)
{
    for (size_t i = 0; i < s->tool->n_key; i++)
        if (str_eq(s->tool->keys[i].name, key))
            return s->tool->keys[i].is_string;
    return true;
}

static void put_key(struct speech *s, struct str key, struct str value)
{
    struct json_writer w;
    struct arena arena;
    const struct json *doc;
    struct error ignored;
    if (value.len && value.ptr[0] == '\n')
        value = str_from(value, 1);
    if (value.len && value.ptr[value.len - 1] == '\n')
        value.len--;
    buf_append_str(&s->args, s->n_key++ ? STR(", ") : STR("{"));
    json_writer_init(&w, &s->args);
    json_write_str(&w, key);
    buf_append_str(&s->args, STR(": "));
    arena_init(&arena, SPEECH_HELD_MAX * (size_t)20);
    if (!key_is_text(s, key) && json_parse(&doc, &arena, value, 0, &ignored) == ST_OK) {
        buf_append_str(&s->args, str_trim(value));
    } else {
        json_writer_init(&w, &s->args);
        json_write_str(&w, value);
    }
    arena_free(&arena);
}

static void flush_args(struct speech *s)
{
    if (!s->begun)
        return;
    speech_say(s, SPEECH_ARGUMENTS, buf_str(&s->args));
    buf_clear(&s->args);
    consume(s);
}

static enum step keys_end(struct speech *s)
{
    buf_append_str(&s->args, s->n_key ? STR("}") : STR("{}"));
    if (!s->begun)
        begin(s);
    speech_say(s, SPEECH_ARGUMENTS, buf_str(&s->args));
    return said(s);
}

/* Where the value ends: a mark inside the strings of JSON is not its end, unless nothing else comes. `scan` goes on
 * where it was when more of the value comes. */
static size_t value_end(struct speech *s, struct str key, struct str value, size_t from)
{
    struct str mark = STR("</parameter>");
    size_t begins = (size_t)(value.ptr - s->held.ptr), close = str_find(value, mark, from);
    if (key_is_text(s, key))
        return close;
    if (s->value_at != begins) {
        json_scan_init(&s->scan);
        s->value_at = begins;
        s->scanned = 0;
    }
    for (; close != SIZE_MAX; close = str_find(value, mark, close + 1)) {
        bool json = true;
        while (s->scanned < close && (json = json_scan_next(&s->scan, value.ptr[s->scanned])))
            s->scanned++;
        if (!json || !json_scan_in_string(&s->scan))
            return close;
    }
    return s->ended ? str_find(value, mark, 0) : SIZE_MAX;
}

static enum step keys_step(struct speech *s)
{
    skip_space(s);
    struct str text = rest(s);
    enum match end = speech_match(s, text, "</function>"), key = speech_match(s, text, "<parameter=");
    if (end == MATCH_FULL) {
        s->at += strlen("</function>");
        return keys_end(s);
    }
    if (key != MATCH_FULL) {
        if (text.len == 0 || end == MATCH_PART || key == MATCH_PART)
            return wait(s);
        return s->begun ? keys_end(s) : bad(s);
    }
    text = str_from(text, strlen("<parameter="));
    const char *name_end = memchr(text.ptr, '>', text.len < HEAD_MAX ? text.len : HEAD_MAX);
    if (!name_end && text.len < HEAD_MAX)
        return wait(s);
    if (!name_end)
        return s->begun ? keys_end(s) : bad(s);
    size_t n_name = (size_t)(name_end - text.ptr);
    struct str value = str_from(text, n_name + 1);
    size_t from = s->from > s->at ? s->from - (size_t)(value.ptr - s->held.ptr) : 0; /* searched already */
    size_t close = value_end(s, str_n(text.ptr, n_name), value, from > value.len ? 0 : from);
    if (close == SIZE_MAX) {
        size_t seen = s->held.len, back = strlen("</parameter>");
        s->from = seen > back && seen - back > (size_t)(value.ptr - s->held.ptr) ? seen - back : 0;
        return wait(s);
    }
    put_key(s, str_n(text.ptr, n_name), str_n(value.ptr, close));
    s->at = (size_t)(value.ptr - s->held.ptr) + close + strlen("</parameter>");
    s->from = s->value_at = 0;
    flush_args(s);
    return STEP_ON;
}

/* ---- PYTHON ---- */

/* Follows the brackets as far as there is text: true where the outermost one closes. */
static bool brackets_close(struct speech *s)
{
    while (s->from < s->held.len) {
        char c = s->held.ptr[s->from++];
        if (s->quote < 0)
            s->quote = -s->quote;
        else if (s->quote)
            s->quote = c == '\\' ? -s->quote : c == s->quote ? 0 : s->quote;
        else if (c == '"' || c == '\'')
            s->quote = c;
        else if (c == '(' || c == '[' || c == '{')
            s->depth++;
        else if ((c == ')' || c == ']' || c == '}') && --s->depth == 0)
            return true;
    }
    return false;
}

/* Read from its beginning where it may be whole, and otherwise each time it has grown by half, to see early that it is
 * none. */
static enum step python_step(struct speech *s)
{
    struct str name, text = rest(s);
    size_t n = 0;
    if (!brackets_close(s) && !s->ended && text.len < s->tried + s->tried / 2)
        return wait(s);
    s->tried = text.len;
    buf_clear(&s->args);
    enum python got = python_call(&name, &s->args, &n, text);
    s->tool = got == PYTHON_CALL ? call_tool(s, name) : NULL;
    if (got == PYTHON_MORE)
        return wait(s);
    if (!s->tool)
        return bad(s);
    s->at += n;
    begin(s);
    speech_say(s, SPEECH_ARGUMENTS, buf_str(&s->args));
    return said(s);
}

/* ---- AFTER ---- */

static enum step leave(struct speech *s)
{
    s->mode = SPEAK_TEXT;
    s->at = s->opened = 0;
    return STEP_ON;
}

static enum step after_step(struct speech *s)
{
    size_t len = 0;
    s->at = s->blank;
    skip_space(s);
    s->blank = s->at;
    if (s->at == s->held.len)
        return s->ended ? leave(s) : STEP_MORE;
    if (s->n_call >= SPEECH_CALLS_MAX)
        return leave(s);
    char c = s->held.ptr[s->at];
    if (s->list && (c == ',' || c == ']')) {
        s->at++;
        s->list = c == ',';
        s->opened = s->at;
        if (c == ']') {
            consume(s);
            return STEP_ON;
        }
        s->part = PART_START;
        return STEP_ON;
    }
    if (c == ';' && s->o.format->flags & SPEECH_BARE) { /* Llama parts several calls so */
        s->opened = ++s->at;
        s->part = PART_START;
        return STEP_ON;
    }
    enum match m = speech_match_any(s, rest(s), s->o.format->after, &len), open;
    if (m == MATCH_FULL && !(s->o.format->flags & SPEECH_CHANNELS)) {
        s->at += len;
        consume(s);
        return STEP_ON;
    }
    open = speech_match_any(s, rest(s), s->o.format->open, &len);
    if (open == MATCH_FULL) {
        s->at += len;
        s->opened = s->at;
        s->part = PART_START;
        return STEP_ON;
    }
    return m == MATCH_PART || open == MATCH_PART ? STEP_MORE : leave(s);
}

enum step call_step(struct speech *s)
{
    switch ((enum part)s->part) {
    case PART_START:
        return start_step(s);
    case PART_HEAD:
        return head_step(s);
    case PART_OBJECT:
        return object_step(s);
    case PART_KEYS:
        return keys_step(s);
    case PART_PYTHON:
        return python_step(s);
    case PART_BROKEN:
        return broken_step(s);
    case PART_AFTER:
        return after_step(s);
    }
    return STEP_MORE;
}
