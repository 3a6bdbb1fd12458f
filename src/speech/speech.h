/* speech - what a model's text says: words, reasoning and tool calls, as events while the text comes
 *
 *   const struct speech_format *f = speech_detect(template_source);       // or speech_find("hermes")
 *   speech_init(&s, &(struct speech_options){.format = f, .tools = &tools, .eager = true}, on_event, ctx);
 *   speech_feed(&s, text);  ...  speech_end(&s);  speech_free(&s);
 *
 * However the text is cut into pieces, the events are the same (texts of one kind joined). A marker is never split:
 * what may become one is held back until it is certain. A call is said once its name is one of `tools` and its
 * arguments are a JSON object; anything else stays text, byte for byte. White space between a call or reasoning and its
 * neighbours is dropped. Eager: a call is said as soon as its name is known and its arguments begin, and they follow as
 * they come. Should they turn out not to be JSON after all, the rest follows too, up to the call's end: nothing is
 * lost, nothing taken back.
 *
 * Memory   what is held back: at most SPEECH_HELD_MAX, more is text
 * Errors   s->failed: out of memory, nothing more is said
 * Threads  a struct speech has one owner; formats are constants
 * Source   the chat templates of each family (see formats.c), openai/harmony
 */
#ifndef SPEECH_SPEECH_H
#define SPEECH_SPEECH_H

#include "base/arena.h"
#include "base/json.h"

enum { SPEECH_HELD_MAX = 4 << 20, SPEECH_MARKS_MAX = 8, SPEECH_CALLS_MAX = 256 };

struct speech_think { /* reasoning lies between these */
    const char *open, *close;
};

enum speech_flag {
    SPEECH_BARE = 1,     /* a call may begin the answer without a marker */
    SPEECH_NAMED = 2,    /* name, then the arguments alone; else {"name": ..., "arguments": ...} */
    SPEECH_XML = 4,      /* <function=name><parameter=key>value</parameter></function> */
    SPEECH_PYTHON = 8,   /* [name(key=value, ...), ...] */
    SPEECH_CHANNELS = 16 /* harmony: <|channel|>name<|message|>text<|end|> */
};
struct speech_format {
    const char *name;
    unsigned flags;
    int id_chars;                        /* of the ids its template accepts; 0 = any */
    const char *open[SPEECH_MARKS_MAX];  /* begin calls */
    const char *after[SPEECH_MARKS_MAX]; /* may follow a call and say nothing */
    const char *signs[SPEECH_MARKS_MAX]; /* one of these in a template: it is this format */
};
extern const struct speech_format speech_plain; /* no calls */
const struct speech_format *speech_detect(struct str template_source);
const struct speech_format *speech_find(struct str name);                   /* NULL: none of that name */
const char *speech_names(void);                                             /* "plain, hermes, ..." */
const struct speech_think *speech_think_detect(struct str template_source); /* NULL: no reasoning */
/* Every marker of both, for ids that must not be skipped when special: returns how many; out holds at least 32. */
int speech_marks(const char *out[32], const struct speech_format *format, const struct speech_think *think);
/* The prompt ends inside reasoning that its template opened. */
bool speech_prompt_thinks(const struct speech_think *think, struct str prompt_end);

struct speech_tools { /* what a call may name; key types matter to formats that write values without quotes */
    struct speech_tool {
        struct str name;
        struct speech_key {
            struct str name;
            bool is_string;
        } * keys;
        size_t n_key;
    } * items;
    size_t count;
};
/* tools: [{"type": "function", "function": {"name", "parameters"}}, ...]; false when out of memory. Copies. */
bool speech_tools_make(struct speech_tools *out, const struct json *tools, struct arena *arena);
/* Formats that write values without quotes read one of this schema as text, whatever it looks like; else as JSON, and
 * as text what is none. */
bool speech_key_is_string(const struct json *schema);

enum speech_what { SPEECH_TEXT, SPEECH_REASON, SPEECH_CALL, SPEECH_ARGUMENTS, SPEECH_CALL_END };
/* CALL brings the name; ARGUMENTS a part of the arguments' JSON text; CALL_END nothing. */
typedef void speech_fn(void *ctx, enum speech_what what, struct str text);

struct speech_options {
    const struct speech_format *format;
    const struct speech_think *think; /* NULL: none */
    const struct speech_tools *tools; /* NULL: calls are text */
    bool thinking;                    /* the prompt has opened reasoning */
    bool calls_first;                 /* once there are words, no calls are looked for */
    bool eager;
};

struct json_scan { /* private: scan.c */
    uint8_t state, event, depth, hex;
    const char *word;
    uint64_t objects; /* a bit a level */
    bool key, done;
};
struct speech {
    struct speech_options o;
    speech_fn *fn;
    void *ctx;
    bool failed;
    /* private */
    enum speech_mode { SPEAK_TEXT, SPEAK_REASON, SPEAK_CALL, SPEAK_HEAD } mode;
    int part;        /* of a call: call.c */
    struct buf held; /* not decided yet */
    size_t at;       /* of held: looked at */
    size_t blank;    /* held begins with at least so much white space */
    size_t opened;   /* of held: the marker that began the call; becomes text when it is none */
    bool said, trim, after_call, ended, list, named, begun;
    int n_bad, n_call, n_key;
    const struct speech_tool *tool;
    struct json_scan scan;
    int depth, quote; /* of Python's brackets; a quote's own character, negative after a backslash in it */
    size_t tried;     /* bytes that were no whole call yet */
    size_t scanned;   /* bytes of a parameter's value that `scan` has seen */
    size_t from, key_at, key_len, name_at, name_len, args_at, args_len, value_at; /* of held */
    struct buf args; /* made of what is no JSON in the text */
};
void speech_init(struct speech *s, const struct speech_options *options, speech_fn *fn, void *ctx);
void speech_feed(struct speech *s, struct str text);
void speech_end(struct speech *s);
void speech_free(struct speech *s);
bool speech_is_reasoning(const struct speech *s); /* what comes next belongs to reasoning, so far as is known */

#endif
