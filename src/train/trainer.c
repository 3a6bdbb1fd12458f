/* trainer - parameters, moments and one accumulation window at a time
 *
 * Invariants
 *  1. Between trainer_update calls every gradient is the sum over the windows seen since, tokens ascending.
 *  2. A window of a micro-batch is one sequence with KV blocks of its own: what shares a forward never mixes.
 *  3. Splitting the same windows into other micro-batches changes no bit (rows only add rows).
 */
#include "train/train_private.h"

#include "base/mem.h"

enum status trainer_create(struct trainer **out, struct model *model, const struct trainer_options *options,
                           struct error *err)
{
    struct trainer *t = mem_alloc_zero(1, sizeof *t);
    if (!t)
        return fail_nomem(err, "trainer");
    t->model = model;
    t->options = *options;
    t->n_param = model_params(model, &t->params);
    const int rows = options->batch_max * options->block_size;
    const int blocks_each = (options->block_size + KV_BLOCK - 1) / KV_BLOCK, n_block = blocks_each * options->batch_max;
    size_t n_vocab = (size_t)model_config(model)->n_vocab, n_logit;
    t->kv = mem_alloc_aligned((size_t)n_block * model_kv_block_bytes(model));
    t->blocks = mem_alloc_zero((size_t)n_block, sizeof *t->blocks);
    t->spans = mem_alloc_zero((size_t)options->batch_max, sizeof *t->spans);
    t->ids = mem_alloc_zero((size_t)rows, sizeof *t->ids);
    t->targets = mem_alloc_zero((size_t)rows, sizeof *t->targets);
    t->loss = mem_alloc_zero((size_t)rows, sizeof *t->loss);
    t->logits = size_mul(&n_logit, (size_t)rows, n_vocab) && n_logit <= SIZE_MAX / sizeof *t->logits
                    ? mem_alloc_aligned(n_logit * sizeof *t->logits)
                    : NULL;
    t->m = mem_alloc_zero((size_t)t->n_param, sizeof *t->m);
    t->v = mem_alloc_zero((size_t)t->n_param, sizeof *t->v);
    bool full = t->kv && t->blocks && t->spans && t->ids && t->targets && t->loss && t->logits && t->m && t->v;
    for (int i = 0; full && i < t->n_param; i++) {
        t->m[i] = mem_alloc_aligned((size_t)t->params[i].count * sizeof(real));
        t->v[i] = mem_alloc_aligned((size_t)t->params[i].count * sizeof(real));
        full = t->m[i] && t->v[i];
    }
    enum status st = full ? model_run_create(&t->run, model, rows, rows, t->kv, n_block, options->pool, err)
                          : fail_nomem(err, "trainer: optimizer state, activations and logits");
    if (st != ST_OK) {
        trainer_free(t);
        return st;
    }
    for (int i = 0; i < n_block; i++)
        t->blocks[i] = i;
    for (int i = 0; i < options->batch_max; i++)
        t->spans[i] =
            (struct attend_span){i * options->block_size, options->block_size, 0, t->blocks + i * blocks_each};
    model_grads_zero(model, options->pool);
    *out = t;
    return ST_OK;
}

void trainer_free(struct trainer *t)
{
    if (!t)
        return;
    model_run_free(t->run);
    for (int i = 0; i < t->n_param; i++) {
        mem_free(t->m ? t->m[i] : NULL);
        mem_free(t->v ? t->v[i] : NULL);
    }
    mem_free(t->m);
    mem_free(t->v);
    mem_free(t->logits);
    mem_free(t->loss);
    mem_free(t->targets);
    mem_free(t->ids);
    mem_free(t->spans);
    mem_free(t->blocks);
    mem_free(t->kv);
    mem_free(t);
}

/* Fills ids and targets from the windows and runs them; returns the batch for a backward. */
static struct model_batch forward(struct trainer *t, const int32_t *windows, int n_window)
{
    const int n = t->options.block_size;
    for (int w = 0; w < n_window; w++) {
        const int32_t *window = windows + (size_t)w * (size_t)(n + 1);
        memcpy(t->ids + w * n, window, (size_t)n * sizeof *t->ids);
        memcpy(t->targets + w * n, window + 1, (size_t)n * sizeof *t->targets);
    }
    struct model_batch batch = {
        .n_row = n_window * n, .ids = t->ids, .spans = t->spans, .n_span = n_window, .n_logit = n_window * n};
    model_forward(t->run, &batch, t->logits);
    return batch;
}

/* Rows in order, in f64: the sum does not depend on how windows were grouped. */
static double loss_sum(const struct trainer *t, int n_row)
{
    double sum = 0;
    for (int i = 0; i < n_row; i++)
        sum += (double)t->loss[i];
    return sum;
}

double trainer_accumulate(struct trainer *t, const int32_t *windows, int n_window, int64_t n_target)
{
    struct model_batch batch = forward(t, windows, n_window);
    const int64_t n_vocab = model_config(t->model)->n_vocab;
    cross_entropy(t->loss, t->logits, t->logits, t->targets, (real)1 / (real)n_target, batch.n_row, n_vocab,
                  t->options.pool);
    model_backward(t->run, &batch, t->logits);
    return loss_sum(t, batch.n_row);
}

double trainer_evaluate(struct trainer *t, const int32_t *windows, int n_window)
{
    struct model_batch batch = forward(t, windows, n_window);
    cross_entropy(t->loss, NULL, t->logits, t->targets, 0, batch.n_row, model_config(t->model)->n_vocab,
                  t->options.pool);
    return loss_sum(t, batch.n_row);
}

double trainer_update(struct trainer *t, double lr, int64_t step)
{
    const struct trainer_options *o = &t->options;
    double sum = 0;
    for (int i = 0; i < t->n_param; i++)
        sum += sum_squares(t->params[i].grad, t->params[i].count, o->pool);
    double norm = __builtin_sqrt(sum), share = (double)o->max_grad_norm / (norm + 1e-6); /* torch's clip_grad_norm_ */
    struct adamw how = {.lr = (real)lr,
                        .beta1 = o->beta1,
                        .beta2 = o->beta2,
                        .eps = o->eps,
                        .step = step,
                        .grad_scale = o->max_grad_norm > 0 && share < 1 ? (real)share : 1};
    for (int i = 0; i < t->n_param; i++) {
        how.weight_decay = t->params[i].decay ? o->weight_decay : 0;
        adamw_step(t->params[i].data, t->m[i], t->v[i], t->params[i].grad, &how, t->params[i].count, o->pool);
    }
    model_grads_zero(t->model, o->pool);
    return norm;
}
