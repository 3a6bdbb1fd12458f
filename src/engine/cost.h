/* cost - what a step takes, learned from the steps that ran
 *
 *   seconds = fixed + (rows + logits * head_rows) * row + logits * logit + keys * key
 *
 * head_rows, the vocabulary's product beside all others, is known of the model; logit is what comes on top: sampling.
 *
 * The last few steps of each size are kept, so that an hour of plain decoding does not make it forget what a prompt
 * costs; the four prices, none below 0, fit all of them by relative error. Steps are not quite linear: kernels change
 * their way at some number of rows. So it is kept, too, by how much steps of a size take longer than the prices say.
 */
#ifndef ENGINE_COST_H
#define ENGINE_COST_H

#include <stdbool.h>

enum { COST_SIZES = 24, COST_DEPTH = 4, COST_TERMS = 4 };

struct cost_work { /* what a step has to do */
    double rows, logits;
    double keys; /* positions that rows look back at, all together */
};
struct cost_model {
    struct cost_step {
        double terms[COST_TERMS], seconds;
    } steps[2 * COST_SIZES][COST_DEPTH]; /* [decoding alone, with prompts; by rows] */
    int n_step[2 * COST_SIZES];          /* steps of that size so far */
    bool warm;                           /* a step ran, of which nothing is kept */
    double head_rows;                    /* set before the first step; 0: unknown */
    double price[COST_TERMS];            /* of a row, a key, a row of logits, a step */
    double excess[2 * COST_SIZES];       /* share of the price that a step of that size takes more */
};

static inline void cost_span(struct cost_work *w, int pos0, int n_row)
{
    w->rows += n_row;
    w->keys += (double)n_row * pos0 + (double)n_row * (n_row + 1) / 2;
}
void cost_learn(struct cost_model *m, const struct cost_work *w, double seconds);
double cost_seconds(const struct cost_model *m, const struct cost_work *w); /* 0 as long as nothing was learned */
double cost_seconds_at_most(const struct cost_model *m, const struct cost_work *w); /* with the excess of its size */
double cost_span_seconds(const struct cost_model *m, int pos0, int n_row);          /* what a span adds to a step */
/* How many rows of a prompt from position pos0 on fit into so many seconds more. */
double cost_rows(const struct cost_model *m, int pos0, double seconds);

#endif
