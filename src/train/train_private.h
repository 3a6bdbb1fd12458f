/* train_private - what the train room's files share */
#ifndef TRAIN_TRAIN_PRIVATE_H
#define TRAIN_TRAIN_PRIVATE_H

#include "train/train.h"

struct trainer {
    struct model *model;
    struct model_run *run;
    struct trainer_options options;
    const struct model_param *params;
    int n_param;
    real **m, **v; /* AdamW's moments, [n_param][count] */
    void *kv;
    int32_t *blocks; /* identity: window i owns its own pages */
    struct attend_span *spans;
    int32_t *ids, *targets; /* [batch_max * block_size] */
    real *loss, *logits;    /* [rows], [rows, n_vocab]; logits become their gradient in place */
};

/* Where a run stands between two updates: everything a resume needs besides parameters and moments. */
struct train_state {
    int64_t step, max_steps;
    uint64_t epoch, window; /* next window of the epoch's order */
    uint64_t tokens, data_hash;
    double time_s;
};

/* checkpoint-N/: model.safetensors, config.json (a Hugging Face folder), optimizer.safetensors, state.json */
MUST_USE enum status checkpoint_save(const struct trainer *t, const struct train_config *c, const struct train_state *s,
                                     struct error *err);
/* Removes what a kill left half-written; `all`: complete checkpoints too, for a run that starts anew. */
MUST_USE enum status checkpoints_clear(const char *output_dir, bool all, struct error *err);
/* Newest complete checkpoint in output_dir: its path, or ST_NOT_FOUND. */
MUST_USE enum status checkpoint_newest(char *path, size_t size, const char *output_dir, struct error *err);
MUST_USE enum status checkpoint_state(struct train_state *out, const char *path, struct error *err);
MUST_USE enum status checkpoint_moments(struct trainer *t, const char *path, struct error *err);

/* text must outlive the call */
const char *train_cstr(char *buf, size_t size, struct str s);

#endif
