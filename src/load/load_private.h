/* What the files of this room share. */
#ifndef LOAD_LOAD_PRIVATE_H
#define LOAD_LOAD_PRIVATE_H

#include "load/load.h"
#include "net/http_client.h"

/* ---- words.c: prompts of a wanted length in tokens ---- */
struct words { /* how many tokens each word is, with the blank before it */
    double cost[256];
    double overhead; /* of a request, whatever its text: begin-of-text, the chat template */
    bool exact;      /* measured word by word */
};
int words_count(void);
const char *words_at(int i);
/* Text of about `tokens` tokens; the same for the same seed. */
void words_prompt(const struct words *w, struct buf *out, const struct load_item *item, uint64_t seed);

/* ---- target.c ---- */
struct load {
    struct load_target target;
    char *model, *extra;                                      /* extra: ",\"a\":1" to stand behind other fields */
    char host[256], base[256], authority[300], headers[1200]; /* base: "" or "/v1" or longer */
    int port;
    bool tls;
    struct peer peer;
    struct words words;
    uint64_t n_run; /* no two runs have the same prompts: a prefix cache must not know them */
};
/* A request's body for a prompt. */
void load_body_write(const struct load *l, struct buf *out, struct str prompt, int n_out, bool stream);

/* ---- usage.c ---- */
double cpu_seconds(void);       /* of this process */
uint64_t rss_peak(int pid);     /* bytes; pid 0: this process; 0 when unknown */
double cpu_seconds_of(int pid); /* negative when unknown */

#endif
