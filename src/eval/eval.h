/* eval - a text through a model in chunks of one context each: perplexity as llama.cpp defines it
 *
 * The text's tokens are cut into chunks of n_ctx; a chunk's first token is replaced by BOS where the tokenizer adds
 * one; the second half of each chunk is predicted, so that every prediction has at least n_ctx/2 tokens before it; a
 * last incomplete chunk is left out. Perplexity = e^(mean of -log p).
 */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include "model/model.h"

struct evaluation {
    double perplexity, error; /* error: one standard error of the perplexity */
    int64_t n_token;          /* predicted */
    int n_chunk;
};
struct evaluate {
    const struct model *model;
    const int32_t *ids;
    size_t n;
    int n_ctx;      /* tokens a chunk; at least 8, at most the model's context */
    int max_chunks; /* 0: all */
    int32_t bos;    /* -1: none is added */
    struct pool *pool;
    /* After each batch of rows (may be NULL): the run holds its values. */
    enum status (*seen)(void *ctx, const struct model_run *run, double done, struct error *err);
    void *ctx;
};
MUST_USE enum status evaluate_text(struct evaluation *out, const struct evaluate *how, struct error *err);

#endif
