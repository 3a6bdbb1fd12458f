/* ask - what a client wants, free of any protocol; adapters (protocol.h) fill it and write its answer */
#ifndef GATEWAY_ASK_H
#define GATEWAY_ASK_H

#include "engine/engine.h"

enum { ASK_CHOICES_MAX = 16, ASK_SEQUENCES_MAX = 128, ASK_PARAM_MAX = 96 };

enum ask_kind { ASK_CHAT = 1, ASK_COMPLETION = 2, ASK_TOKENIZE = 4, ASK_DETOKENIZE = 8 };

struct ask_prompt { /* text, or ids when ids != NULL */
    struct str text;
    const int32_t *ids;
    size_t n_id;
};

struct ask {
    enum ask_kind kind;
    struct str model; /* ptr NULL: not named */
    /* what to continue */
    const struct json *messages; /* chat (and tokenize): normalised, contents are strings or null */
    const struct json *template_vars;
    bool no_generation_prompt;
    const struct ask_prompt *prompts;
    int n_prompt;
    bool add_special, want_strings; /* tokenize */
    /* how */
    struct sampling sampling;
    struct str stops[REQUEST_STOPS_MAX];
    int n_stop;
    int n;                 /* choices a prompt */
    int priority;          /* smaller goes first */
    struct str cache_salt; /* shares KV blocks only with requests that have the same */
    /* how to answer */
    bool stream, include_usage, echo;
    bool return_replay; /* with all that proves the answer: docs/replay.md */
};

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
