/* evaluate - a text through a model, for the commands perplexity, quantize and imatrix (cmd_perplexity.c) */
#ifndef CLI_EVALUATE_H
#define CLI_EVALUATE_H

#include "base/file.h"
#include "cli/cli.h"
#include "eval/eval.h"

struct cli_text {
    const char *file;
    int64_t ctx, chunks; /* tokens a chunk; at most so many chunks, 0: all */
};
MUST_USE enum status cli_text_check(struct cli_text *t, struct error *err); /* fills in what was not given */

/* A text through a model, with a bar; ends when interrupted. */
struct cli_evaluate {
    const char *phase; /* of the bar */
    const struct model *model;
    const struct tokenizer *tokenizer; /* NULL is refused */
    const struct cli_text *text;
    struct pool *pool;
    void (*each)(void *ctx, const struct model_run *run); /* after each forward; or NULL */
    void *ctx;
};
MUST_USE enum status cli_evaluate(struct evaluation *out, const struct cli_evaluate *e, struct error *err);
void cli_put_evaluation(struct json_writer *w, const struct evaluation *e);

#endif
