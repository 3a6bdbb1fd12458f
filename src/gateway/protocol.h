/* protocol - one row an API: how its requests are read and how its answers are written
 *
 * An answer is a list of blocks a choice: text, reasoning, tool calls. A stream tells them as they come (open, delta,
 * close), framed by the job's wire; a whole answer walks the list. Adapters hold no policy: what may be asked, and what
 * is done, is the same for all of them.
 */
#ifndef GATEWAY_PROTOCOL_H
#define GATEWAY_PROTOCOL_H

#include "gateway/fields.h"

struct job;
struct choice;
struct block;

enum protocol_flag {
    PROTOCOL_KEEPS = 1,       /* blocks are kept when streamed, too: the last event repeats them */
    PROTOCOL_LATE = 2,        /* a call is told when it is whole, in close */
    PROTOCOL_OWN_LOGPROBS = 4 /* a text has the log-probabilities of its own tokens */
};

struct protocol {
    const char *path;                    /* metrics' handler */
    const char *id_prefix, *call_prefix; /* of ids; of calls' ids [call_] */
    enum ask_kind kind;
    unsigned flags;
    const struct wire *wire; /* of its streams */
    /* reading, on a worker */
    const struct protocol *(*choose)(const struct json *body); /* another row reads and answers it; may be NULL */
    struct fields fields;
    void (*defaults)(struct ask *a); /* may be NULL */
    bool (*check)(struct parse *p);  /* after the fields; may be NULL */
    /* writing, on the loop; those of a stream may be NULL where they say nothing */
    void (*begin)(struct job *j);
    void (*begin_choice)(struct job *j, struct choice *c);
    void (*open)(struct job *j, struct choice *c, const struct block *b);
    void (*delta)(struct job *j, struct choice *c, const struct block *b, struct str text);
    void (*close)(struct job *j, struct choice *c, const struct block *b);
    void (*end_choice)(struct job *j, struct choice *c);
    void (*end)(struct job *j);
    void (*refuse)(struct job *j, const struct refusal *why); /* after the stream began */
    void (*ping)(struct job *j);
    void (*answer)(struct job *j, struct buf *out); /* the whole; on the worker, when nothing is generated */
};
extern const struct protocol openai_chat, openai_completion, openai_tokenize, openai_detokenize;
extern const struct protocol openai_stream; /* chat or completion, by what the body holds */
extern const struct protocol anthropic_messages, anthropic_count, openai_responses, ollama_chat, ollama_generate,
    ollama_embed, ollama_embeddings;

struct parse_context { /* what a request is read against */
    const struct bundle *bundle;
    const struct voice *voice;
    struct store *store;
    uint64_t tenant;
    bool streams; /* the answer is a stream, whatever the body says */
};
/* Fills *out from a request's body; arena keeps what out points to, and body must live as long. */
bool protocol_parse(struct ask *out, const struct protocol *protocol, struct str body, const struct parse_context *with,
                    struct arena *arena, struct refusal *why);

/* How each family of routes writes an error; by the request's path. */
typedef int refusal_fn(struct buf *out, const struct refusal *why, struct str request_id); /* the HTTP status */
refusal_fn openai_write_refusal, anthropic_write_refusal, ollama_write_refusal;

#endif
