/* train - pretraining: text files in, a Hugging Face folder out, resumable bit for bit
 *
 *   struct train_config c; train_config_init(&c);
 *   TRY(train_config_read(&c, yaml_text, err));  TRY(train_config_set(&c, "max_steps", STR("100"), err));
 *   TRY(train_run(&c, &watch, err));
 *
 * Loss     sum of NLL over all targets of the accumulation window / their number: never a mean of means
 * Update   clip to max_grad_norm (global norm in f64), AdamW, schedule as transformers'
 * Files    output_dir/: config.json, model.safetensors, tokenizer files, metrics.jsonl, checkpoint-N/ (a complete
 *          folder or absent: written beside, synced, renamed)
 * Numbers  same bits over threads, instruction sets, micro-batch splits and resume (docs/numerics.md section 8)
 * Threads  one run, one caller; work is shared over a pool
 */
#ifndef TRAIN_TRAIN_H
#define TRAIN_TRAIN_H

#include "base/json.h"
#include "data/data.h"
#include "model/model.h"

/* ---- configuration: one list of keys (train_keys.def) ---- */
struct train_list {
    struct str *items;
    size_t count;
};
typedef struct str train_text;
typedef struct train_list train_list;
typedef int64_t train_integer;
typedef double train_number;
typedef bool train_flag;

struct train_config {
    struct arena arena; /* owns every text */
#define KEY(type, field, otherwise, what) train_##type field;
#include "train/train_keys.def"
#undef KEY
};
struct train_key {
    const char *name, *type, *what, *otherwise;
};

MUST_USE enum status train_config_init(struct train_config *c, struct error *err);
void train_config_free(struct train_config *c);
/* YAML (or JSON); unknown keys are ST_INVALID with the nearest known key. */
MUST_USE enum status train_config_read(struct train_config *c, struct str yaml, struct error *err);
/* One key from a flag; lists are comma-separated. */
MUST_USE enum status train_config_set(struct train_config *c, struct str key, struct str value, struct error *err);
MUST_USE enum status train_config_check(const struct train_config *c, struct error *err); /* ranges; names the key */
const struct train_key *train_keys(size_t *count);                                        /* for --help */

/* ---- the optimizer loop's core: what tests hold against PyTorch ---- */
struct trainer;
struct trainer_options {
    int block_size, batch_max; /* windows in one forward */
    real beta1, beta2, eps, weight_decay, max_grad_norm;
    struct pool *pool;
};
/* model: loaded with options.train; borrowed, its parameters are updated in place. */
MUST_USE enum status trainer_create(struct trainer **out, struct model *model, const struct trainer_options *options,
                                    struct error *err);
void trainer_free(struct trainer *t);
/* Forward and backward of n_window windows [n_window, block_size + 1]; gradients are those of the mean over n_target.
 * Returns the sum of NLL. */
double trainer_accumulate(struct trainer *t, const int32_t *windows, int n_window, int64_t n_target);
double trainer_evaluate(struct trainer *t, const int32_t *windows, int n_window); /* sum of NLL, nothing kept */
/* Clips, steps, zeroes the gradients; returns the norm before clipping. step: 1-based. */
double trainer_update(struct trainer *t, double lr, int64_t step);
/* lr at a step (0-based count of updates done), as transformers' schedulers. */
double train_lr(const struct train_config *c, int64_t done, int64_t max_steps);

/* ---- a whole run ---- */
struct train_progress {
    int64_t step, max_steps;
    double epoch, loss, eval_loss, eval_bits_per_byte, grad_norm, lr, tokens_per_s, time_s, eta_s; /* NAN = not known */
    uint64_t tokens;
};
struct train_watch { /* all may be NULL */
    void *ctx;
    void (*on_phase)(void *ctx, const char *phase, double done);
    void (*on_plan)(void *ctx, const char *text); /* memory and sizes, before the first step */
    void (*on_step)(void *ctx, const struct train_progress *p);
    const volatile int *stop; /* nonzero: save a checkpoint and return ST_CANCELED */
};
MUST_USE enum status train_run(const struct train_config *c, const struct train_watch *watch, struct error *err);

#endif
