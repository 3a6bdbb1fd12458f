/* ask - what a client wants, free of any protocol; adapters (protocol.h) fill it and write its answer */
#ifndef GATEWAY_ASK_H
#define GATEWAY_ASK_H

#include "engine/engine.h"
#include "speech/speech.h"

enum { EMBED_INPUTS_MAX = 2048 };
enum { ASK_CHOICES_MAX = 16, ASK_SEQUENCES_MAX = 128, ASK_PARAM_MAX = 96 };

enum ask_kind {
    ASK_CHAT = 1,
    ASK_COMPLETION = 2,
    ASK_TOKENIZE = 4,
    ASK_DETOKENIZE = 8,
    ASK_EMBED = 16, /* vectors of `prompts`: see embed */
    ASK_RERANK = 32 /* how well each of `prompts` answers embed.query */
};

enum tool_choice { TOOLS_AUTO, TOOLS_NONE, TOOLS_REQUIRED, TOOLS_NAMED };
enum thinking { THINKING_FREE, THINKING_ON, THINKING_OFF };

/* How a model speaks, told by its template: what a request may ask of it. */
struct voice {
    const struct speech_format *format;                           /* never NULL */
    const struct speech_think *think;                             /* NULL: it does not reason, or in channels */
    bool takes_tools, takes_effort, takes_enable, takes_thinking; /* variables its template looks at */
    int32_t shown[32];                                            /* special tokens that are markers */
    int n_shown;
    const char *name; /* by which the request called the model; NULL: its own */
};

/* voice.c; false: no such format. format: NULL or "auto" = told by the template */
bool voice_make(struct voice *v, const struct bundle *b, const char *format);

struct ask_prompt { /* text, or ids when ids != NULL */
    struct str text;
    const int32_t *ids;
    size_t n_id;
};

struct protocol;

struct ask {
    enum ask_kind kind;
    const struct protocol *protocol; /* who read it, and will write the answer */
    struct str model;                /* ptr NULL: not named */
    /* what to continue */
    const struct json *messages; /* chat (and tokenize): normalised, contents are strings or null */
    const struct json *template_vars;
    bool no_generation_prompt;
    const struct json *tools; /* [{"type": "function", "function": {...}}]; NULL: none */
    enum tool_choice tool_choice;
    struct str tool_name;             /* TOOLS_NAMED */
    bool one_call;                    /* no parallel calls */
    const struct grammar_part *shape; /* what the answer's text must be; NULL: any text */
    const char *shape_param;          /* the field that said so */
    const struct grammar_part *whole; /* what all of the answer must be, calls and channels included; NULL: anything */
    const char *calls_param;          /* the field that says what calls it may, or must, hold; NULL: none does */
    struct str effort;                /* of reasoning; ptr NULL: not said */
    enum thinking thinking;
    bool hides_reasoning; /* Anthropic: its blocks come empty */
    const struct ask_prompt *prompts;
    int n_prompt;
    bool add_special, want_strings; /* tokenize */
    /* how */
    struct sampling sampling;
    struct str stops[REQUEST_STOPS_MAX];
    int n_stop;
    int n; /* choices a prompt */
    bool beam_search, early_stopping;
    int best_of; /* at least n: beams, or candidates of which the n likeliest are the answer; 0: n */
    float length_penalty;
    int priority;          /* smaller goes first */
    struct str cache_salt; /* shares KV blocks only with requests that have the same */
    struct ask_embed {
        int dimensions; /* 0 = all */
        int truncate;   /* 0 = too long is an error; -1 = to what the model takes; else to so many tokens */
        int top_n;      /* 0 = all */
        bool base64, normalize, return_documents, raw_scores;
        struct str prompt_name, query;
    } embed;
    /* how to answer */
    bool stream, include_usage, echo;
    bool raw; /* Ollama: no template */
    bool has_keep_alive;
    int keep_alive_s;                  /* how long the model stays after the answer; 0: it goes, -1: no end */
    bool background;                   /* Responses: it goes on without its client */
    bool store;                        /* Responses: keep it for the next request, with */
    struct str conversation, repeated; /* the messages so far, and the members its object repeats: JSON, no brackets */
    bool immediate;                    /* nothing is to be generated */
    bool return_replay;                /* with all that proves the answer: docs/replay.md */
};

static inline int ask_candidates(const struct ask *a) /* of a prompt: sequences that are written */
{
    return a->best_of && !a->beam_search ? a->best_of : a->n;
}

/* Why not, as the client will read it. */
struct refusal {
    int http;                  /* 0: no refusal */
    const char *type, *code;   /* code may be NULL */
    char param[ASK_PARAM_MAX]; /* the field's name, or empty */
    char message[512];
};
/* Always returns false. */
bool refuse(struct refusal *r, int http, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6), cold));
bool refuse_status(struct refusal *r, const struct error *err, const char *param); /* by the status's row */

#endif
