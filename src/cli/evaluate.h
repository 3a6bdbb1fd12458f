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
MUST_USE enum status cli_text_ids(struct ids *out, const struct tokenizer *tok, const char *file, struct error *err);
/* For struct evaluate: a bar named by ctx, and the end when interrupted. */
enum status cli_evaluate_seen(void *ctx, const struct model_run *run, double done, struct error *err);
MUST_USE enum status cli_perplexity(struct evaluation *out, const struct model *m, const struct tokenizer *tok,
                                    const struct cli_text *text, struct pool *pool, struct error *err);
void cli_put_evaluation(struct json_writer *w, const struct evaluation *e);

#endif
