/* Text and reasoning, the markers between them, and harmony's channels. Calls: call.c.
 *
 * Invariants
 * 1. `held` is what was fed and not said; every byte of it is said in the end, but for markers, white space beside
 * them, and the syntax of calls that were said.
 * 2. Each decision depends on the bytes before it alone, never on how they were cut: while a mark may still be
 * completed (MATCH_PART) nothing is decided, unless the text has ended.
 * 3. Time is linear in the text. Held white space is looked at once (`blank`), heads and names that do not end are none
 * after so many bytes, and after BAD_MAX things that looked like calls and were none, no more are looked for.
 *
 *   TEXT --think.open, before any word--> REASON --think.close--> TEXT
 *   TEXT --format.open--> CALL --all said, or it is none--> TEXT
 *   HEAD --<|message|>--> TEXT, REASON or CALL --<|end|>, <|start|>, <|channel|>--> HEAD       (harmony)
 */
#include "speech/private.h"

enum { BAD_MAX = 64, HEAD_MAX = 512, PIECE_MAX = 4096 };

static const char *const channel_marks[] = {"<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>", NULL};

bool speech_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

enum match speech_match(const struct speech *s, struct str text, const char *mark)
{
    size_t n = strlen(mark), most = text.len < n ? text.len : n;
    if (memcmp(text.ptr, mark, most) != 0)
        return MATCH_NONE;
    return most == n ? MATCH_FULL : s->ended ? MATCH_NONE : MATCH_PART;
}

enum match speech_match_any(const struct speech *s, struct str text, const char *const *marks, size_t *len)
{
    enum match best = MATCH_NONE;
    for (; *marks; marks++) {
        enum match m = speech_match(s, text, *marks);
        if (m == MATCH_FULL) {
            *len = strlen(*marks);
            return m;
        }
        best = m > best ? m : best;
    }
    return best;
}

void speech_say(struct speech *s, enum speech_what what, struct str text)
{
    if (!text.len && what != SPEECH_CALL_END)
        return;
    s->fn(s->ctx, what, text);
    s->said |= what != SPEECH_REASON;
}

void speech_consume(struct speech *s, size_t n)
{
    memmove(s->held.ptr, s->held.ptr + n, s->held.len - n + 1);
    s->held.len -= n;
    s->blank -= s->blank < n ? s->blank : n;
}

static bool calls_looked_for(const struct speech *s)
{
    bool late = s->o.calls_first && s->said && s->n_call == 0;
    return s->o.tools && !late && s->n_bad < BAD_MAX && s->n_call < SPEECH_CALLS_MAX;
}

static bool is_channels(const struct speech *s)
{
    return s->o.format->flags & SPEECH_CHANNELS;
}

static struct str without_end_space(struct str text)
{
    while (text.len && speech_space(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

/* Where the words among the first n bytes held end: behind them is white space alone. */
static size_t words_end(const struct speech *s, size_t n)
{
    while (n > s->blank && speech_space(s->held.ptr[n - 1]))
        n--;
    return n > s->blank ? n : 0;
}

/* Says the first n bytes held, as text or reasoning, without the white space that a neighbour swallows. */
static void say_words(struct speech *s, size_t n, bool trim_end)
{
    struct str text = str_n(s->held.ptr, n);
    while (s->trim && text.len && speech_space(text.ptr[0]))
        text = str_from(text, 1);
    if (text.len)
        s->trim = s->after_call = false;
    if (trim_end)
        text = without_end_space(text);
    speech_say(s, s->mode == SPEAK_REASON ? SPEECH_REASON : SPEECH_TEXT, text);
    speech_consume(s, n);
}

/* What ends text or reasoning at the text's start; *next is where it leads. */
static enum match match_here(const struct speech *s, struct str text, size_t *len, enum speech_mode *next)
{
    enum match m = MATCH_NONE, other;
    if (is_channels(s)) {
        *next = SPEAK_HEAD;
        return speech_match_any(s, text, channel_marks, len);
    }
    if (s->mode == SPEAK_REASON) {
        *next = SPEAK_TEXT;
        *len = strlen(s->o.think->close);
        return speech_match(s, text, s->o.think->close);
    }
    if (s->o.think && !s->said) {
        *next = SPEAK_REASON;
        *len = strlen(s->o.think->open);
        m = speech_match(s, text, s->o.think->open);
    }
    if (m == MATCH_FULL || !calls_looked_for(s))
        return m;
    other = speech_match_any(s, text, s->o.format->open, len);
    if (other == MATCH_FULL)
        *next = SPEAK_CALL;
    return other > m ? other : m;
}

static void enter(struct speech *s, enum speech_mode next, size_t len)
{
    if (next == SPEAK_CALL) {
        call_enter(s, len);
        return;
    }
    if (next == SPEAK_HEAD) {
        s->mode = SPEAK_HEAD; /* the mark itself is a part of the head */
        return;
    }
    speech_consume(s, len);
    s->mode = next;
    s->trim = true;
}

/* A call without a marker: the answer's first character tells. */
static bool begins_bare(struct speech *s)
{
    if (s->mode != SPEAK_TEXT || s->said || !(s->o.format->flags & SPEECH_BARE) || !calls_looked_for(s))
        return false;
    while (s->blank < s->held.len && speech_space(s->held.ptr[s->blank]))
        s->blank++;
    return s->blank < s->held.len && (s->held.ptr[s->blank] == '{' || s->held.ptr[s->blank] == '[');
}

static enum step words_step(struct speech *s)
{
    size_t len = 0, i;
    enum speech_mode next = SPEAK_TEXT;
    enum match m = MATCH_NONE;
    if (begins_bare(s)) {
        call_enter(s, s->blank);
        return STEP_ON;
    }
    for (i = s->blank; i < s->held.len; i++) {
        char c = s->held.ptr[i];
        if (c != '<' && c != '[') /* all markers begin so */
            continue;
        m = match_here(s, str_from(buf_str(&s->held), i), &len, &next);
        if (m != MATCH_NONE)
            break;
    }
    if (m == MATCH_FULL) {
        size_t words = words_end(s, i);
        bool late = next == SPEAK_REASON || (next == SPEAK_CALL && s->o.calls_first && s->n_call == 0);
        if (late && words) { /* not at the beginning: these are words */
            say_words(s, i + 1, false);
            return STEP_ON;
        }
        size_t n = next == SPEAK_CALL ? words : i;
        say_words(s, n, true);
        enter(s, next, i - n + len);
        return STEP_ON;
    }
    size_t sure = words_end(s, i);
    bool reason_ends = s->ended && s->mode == SPEAK_REASON;
    bool words_follow = s->said && s->mode == SPEAK_TEXT && !calls_looked_for(s) && !s->trim && !is_channels(s);
    if (s->ended && sure == 0 && s->after_call) {
        speech_consume(s, i);
        return STEP_MORE;
    }
    if (s->ended || words_follow)
        sure = i;
    if (sure)
        say_words(s, sure, reason_ends);
    s->blank = i - sure;
    return STEP_MORE;
}

/* ---- harmony's heads: [<|end|>][<|start|>role][ to=functions.name]<|channel|>name[ to=...][
 * <|constrain|>json]<|message|> */

static struct str word_after(struct str head, const char *mark)
{
    size_t at = str_find(head, str_of(mark), 0);
    struct str rest = at == SIZE_MAX ? (struct str){NULL, 0} : str_from(head, at + strlen(mark));
    size_t n = 0;
    while (n < rest.len && !speech_space(rest.ptr[n]) && rest.ptr[n] != '<')
        n++;
    return str_n(rest.ptr, n);
}

/* An answer begins inside a head, because the prompt ends with <|start|>assistant. */
static bool may_be_head(const struct speech *s)
{
    static const char *const begins[] = {"<|channel|>", "<|start|>", "<|end|>",     "<|call|>",
                                         "<|return|>",  " to=",      "<|message|>", NULL};
    size_t len;
    return s->held.len == 0 || speech_match_any(s, buf_str(&s->held), begins, &len) != MATCH_NONE;
}

/* The text ended in a head: the marks that end an answer, a head without a message, or words in the wrong place. */
static enum step head_end(struct speech *s)
{
    static const char *const ends[] = {"<|end|>", "<|return|>", "<|call|>", NULL};
    static const char *const heads[] = {"<|start|>", "<|channel|>", " to=", NULL};
    size_t len = 0;
    while (speech_match_any(s, buf_str(&s->held), ends, &len) == MATCH_FULL)
        speech_consume(s, len);
    if (speech_match_any(s, buf_str(&s->held), heads, &len) == MATCH_FULL)
        speech_consume(s, s->held.len);
    s->mode = SPEAK_TEXT;
    return s->held.len ? STEP_ON : STEP_MORE;
}

static enum step head_step(struct speech *s)
{
    struct str held = buf_str(&s->held);
    size_t end = str_find(held, STR("<|message|>"), 0), n = end + strlen("<|message|>");
    bool long_head = (end == SIZE_MAX ? held.len : end) > HEAD_MAX;
    if (!may_be_head(s) || long_head) {
        s->mode = SPEAK_TEXT;
        if (held.len && held.ptr[0] == '<')
            say_words(s, 1, false); /* or it would lead here again */
        return STEP_ON;
    }
    if (end == SIZE_MAX)
        return s->ended ? head_end(s) : STEP_MORE;
    struct str head = str_n(held.ptr, end), channel = word_after(head, "<|channel|>"), to = word_after(head, "to=");
    const struct speech_tool *tool =
        s->o.tools && str_starts(to, STR("functions.")) ? call_tool(s, str_from(to, strlen("functions."))) : NULL;
    s->trim = false;
    if (tool) {
        call_enter_named(s, tool, n);
        return STEP_ON;
    }
    s->mode = str_is(channel, "analysis") ? SPEAK_REASON : SPEAK_TEXT;
    speech_consume(s, n);
    return STEP_ON;
}

/* ---- the door ---- */

void speech_init(struct speech *s, const struct speech_options *options, speech_fn *fn, void *ctx)
{
    *s = (struct speech){.o = *options, .fn = fn, .ctx = ctx};
    if (is_channels(s))
        s->mode = SPEAK_HEAD;
    else if (s->o.thinking && s->o.think)
        s->mode = SPEAK_REASON, s->trim = true;
}

/* Nothing but words can come: no marker is looked for. */
static bool only_words(const struct speech *s)
{
    bool reasons = s->mode == SPEAK_REASON || (s->o.think && !s->said);
    return s->mode == SPEAK_TEXT && !s->trim && !reasons && !calls_looked_for(s) && s->held.len == 0 && !is_channels(s);
}

static void work(struct speech *s)
{
    enum step step = STEP_ON;
    while (step == STEP_ON && !s->failed) {
        switch (s->mode) {
        case SPEAK_TEXT:
        case SPEAK_REASON:
            step = words_step(s);
            break;
        case SPEAK_CALL:
            step = call_step(s);
            break;
        case SPEAK_HEAD:
            step = head_step(s);
            break;
        }
        s->failed |= s->held.failed | s->args.failed;
    }
}

/* At most PIECE_MAX bytes, and no character cut in two: what is taken from the front of `held` moves the rest. */
static struct str piece_of(struct str text)
{
    size_t n = text.len < PIECE_MAX ? text.len : PIECE_MAX;
    for (int i = 0; i < 3 && n < text.len && ((unsigned char)text.ptr[n] & 0xC0) == 0x80; i++)
        n--;
    return str_n(text.ptr, n);
}

void speech_feed(struct speech *s, struct str text)
{
    while (text.len && !s->failed) {
        struct str piece = piece_of(text);
        text = str_from(text, piece.len);
        if (only_words(s)) {
            speech_say(s, SPEECH_TEXT, piece);
            continue;
        }
        buf_append_str(&s->held, piece);
        s->failed |= s->held.failed;
        work(s);
    }
}

void speech_end(struct speech *s)
{
    s->ended = true;
    if (!buf_reserve(&s->held, 1))
        s->failed = true;
    work(s);
}

void speech_free(struct speech *s)
{
    buf_free(&s->held);
    buf_free(&s->args);
}

bool speech_is_reasoning(const struct speech *s)
{
    return s->mode == SPEAK_REASON;
}
