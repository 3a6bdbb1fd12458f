/* draft_model - a small model of the same vocabulary as an executor that proposes (engine/draft.h) */
#ifndef ENGINE_DRAFT_MODEL_H
#define ENGINE_DRAFT_MODEL_H

#include "engine/engine_private.h"

struct draft_model {
    struct executor x; /* has the target's vocabulary size */
    struct bundle *bundle;
    struct model_run *run;
    void *kv_base;
    int n_vocab, n_row;
    int32_t *ids;    /* [max rows]: of its own vocabulary */
    real *wide;      /* [max sequences, n_vocab], when that is more than the target's; else NULL */
    void *wide_base; /* to free */
};
/* ST_INVALID when the vocabularies differ: it says where. The bundle is the caller's; max_sequences: of a step. */
MUST_USE enum status draft_model_create(struct draft_model **out, struct bundle *bundle, const struct executor *target,
                                        const struct tokenizer *target_tokenizer, int max_sequences, struct error *err);
void draft_model_destroy(struct draft_model *m);

#endif
