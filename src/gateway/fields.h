/* fields - request bodies by tables: every known field is a row
 *
 * A row is read, ignored because it is cosmetic, or refused by name because ignoring it would change what the answer
 * means. Unknown fields are refused too: they are spelling mistakes, or wishes we would silently break. null counts as
 * absent.
 */
#ifndef GATEWAY_FIELDS_H
#define GATEWAY_FIELDS_H

#include "gateway/ask.h"

#include "base/json.h"
#include "gateway/store.h"

struct parse {
    struct ask *out;
    const struct bundle *bundle;
    const struct voice *voice;
    bool streams;        /* the answer is a stream, whatever the body says */
    struct store *store; /* responses to continue, of */
    uint64_t tenant;
    struct arena *arena;
    struct refusal *why;
    const struct json *body;
};

enum how { READ_REAL, READ_INT, READ_BOOL, READ_STR, READ_CALL, COSMETIC, NEUTRAL };
enum { ASK_ANY = -1 };

typedef bool read_fn(struct parse *p, const char *name, const struct json *v);
struct field {
    const char *name;
    unsigned kinds; /* of asks that have it */
    enum how how;
    size_t offset; /* in struct ask: float, int, bool or str */
    double min, max;
    read_fn *call;
    const char *neutral; /* values that wish for nothing, as compact JSON, separated by blanks */
};
struct fields {
    const struct field *rows;
    int n;
};
#define FIELDS(array) ((struct fields){array, sizeof(array) / sizeof *(array)})

#define NUMBER(field, asks, kind, member, lo, hi)                                                                      \
    {                                                                                                                  \
        .name = field, .kinds = (unsigned)(asks), .how = kind, .offset = offsetof(struct ask, member), .min = lo,      \
        .max = hi                                                                                                      \
    }
#define SWITCH(field, asks, member)                                                                                    \
    {                                                                                                                  \
        .name = field, .kinds = (unsigned)(asks), .how = READ_BOOL, .offset = offsetof(struct ask, member)             \
    }
#define WORDS(field, asks, member)                                                                                     \
    {                                                                                                                  \
        .name = field, .kinds = (unsigned)(asks), .how = READ_STR, .offset = offsetof(struct ask, member)              \
    }
#define SHAPED(field, asks, fn)                                                                                        \
    {                                                                                                                  \
        .name = field, .kinds = (unsigned)(asks), .how = READ_CALL, .call = fn                                         \
    }
#define IGNORED(field, asks)                                                                                           \
    {                                                                                                                  \
        .name = field, .kinds = (unsigned)(asks), .how = COSMETIC                                                      \
    }
#define REFUSED(field, asks, harmless)                                                                                 \
    {                                                                                                                  \
        .name = field, .kinds = (unsigned)(asks), .how = NEUTRAL, .neutral = harmless                                  \
    }

/* Each member of an object by its row; false after a refusal. */
bool fields_read(struct parse *p, struct fields fields, const struct json *object);
bool field_wrong_type(struct parse *p, const char *name, const char *expected); /* always false */
bool field_no_memory(struct parse *p);                                          /* always false */
/* Written texts kept for the request; ptr NULL: no memory. Frees text. */
struct str field_keep(struct parse *p, struct buf *text);
struct str field_source(struct parse *p, const struct json *v);               /* v as JSON text, likewise */
bool field_parse(struct parse *p, struct buf *text, const struct json **out); /* text is JSON; false after a refusal */

/* readers.c: rows that several protocols have */
read_fn read_stop, read_seed, read_template_kwargs, read_generation_prompt, read_keep_alive;
struct ask_prompt *fields_prompts(struct parse *p, size_t n); /* room for n; NULL after a refusal */
bool read_text_or_ids(struct parse *p, const char *name, const struct json *v, struct ask_prompt *out);
bool read_top_count(struct parse *p, const char *name, const struct json *v, int *n); /* how many log-probabilities */
read_fn read_logit_bias, read_logprobs, read_top_logprobs, read_prompt, read_tokens;
bool read_check_model(struct parse *p);
struct str without_tag(struct str name); /* Ollama's ":latest" */
bool is_model_name(const struct bundle *b, struct str name);
/* structured.c */
read_fn read_response_format, read_guided_json, read_guided_regex, read_guided_grammar, read_guided_choice;
read_fn read_structured_outputs, read_ollama_format;
bool structured_check(struct parse *p);
/* tools.c */
read_fn read_tools, read_tool_choice, read_parallel;
/* Others' tools, {"name", "description", SCHEMA_KEY}, in OpenAI's form. */
struct tools_writer {
    struct buf text;
    struct json_writer w;
    struct str bad_type; /* a type that is not offered was met */
};
void tools_begin(struct tools_writer *t);
void tools_put(struct tools_writer *t, const struct json *tool, const char *schema_key);
bool tools_take(struct tools_writer *t, struct parse *p, const char *name); /* as read_tools */
bool tools_check(struct parse *p);
bool calls_shape(struct parse *p); /* calls.c: what all of the answer must be */
/* thinking.c: reasoning_effort, and the variables that templates know for it */
read_fn read_effort;
bool thinking_apply(struct parse *p);

/* embed_parse.c */
read_fn read_embed_input;
void embed_defaults(struct ask *a);
bool embed_check(struct parse *p);

/* messages.c: OpenAI's messages, and the one form templates read that all protocols' become */
read_fn read_messages;
/* Parses what was written (an array of messages) into out->messages; frees text. */
bool messages_take(struct parse *p, struct buf *text);

#endif
