#include "eval/eval.h"

#include <math.h>

#include "base/mem.h"

enum { BATCH = 128 };

struct sums {
    double loss, square;
    int64_t n;
};
struct pass {
    const struct evaluate *how;
    struct model_run *run;
    void *kv;
    int32_t *blocks, *chunk; /* [n_block], [n_ctx] */
    real *logits;            /* [BATCH, n_vocab] */
    int n_block, n_chunk;
    struct sums sums;
};

static enum status pass_open(struct pass *p, struct error *err)
{
    const struct evaluate *how = p->how;
    size_t n_vocab = (size_t)model_config(how->model)->n_vocab, bytes;
    p->n_block = (how->n_ctx + KV_BLOCK - 1) / KV_BLOCK;
    p->kv = mem_alloc_aligned((size_t)p->n_block * model_kv_block_bytes(how->model));
    p->blocks = mem_alloc_zero((size_t)p->n_block, sizeof *p->blocks);
    p->chunk = mem_alloc_zero((size_t)how->n_ctx, sizeof *p->chunk);
    p->logits = size_mul(&bytes, n_vocab, BATCH * sizeof *p->logits) ? mem_alloc(bytes) : NULL;
    if (!p->kv || !p->blocks || !p->chunk || !p->logits)
        return fail_nomem(err, "perplexity");
    for (int i = 0; i < p->n_block; i++)
        p->blocks[i] = i;
    return model_run_create(&p->run, how->model, BATCH, BATCH, p->kv, p->n_block, how->pool, err);
}

static void pass_close(struct pass *p)
{
    model_run_free(p->run);
    mem_free(p->kv);
    mem_free(p->blocks);
    mem_free(p->chunk);
    mem_free(p->logits);
}

/* Rows [at, at + n) of the chunk; of those in its second half, the next token's loss. `next` is the text itself: where
 * BOS took a token's place, it is still predicted as it was. */
static void batch_run(struct pass *p, const int32_t *next, int at, int n)
{
    const struct evaluate *how = p->how;
    int first = how->n_ctx / 2, n_vocab = model_config(how->model)->n_vocab;
    int from = at < first ? first : at, last = at + n < how->n_ctx - 1 ? at + n : how->n_ctx - 1;
    int32_t rows[BATCH], targets[BATCH];
    real loss[BATCH];
    static const int32_t none = 0; /* a batch wants at least one row of logits */
    int n_logit = 0;
    for (int i = from; i < last; i++, n_logit++) {
        rows[n_logit] = i - at;
        targets[n_logit] = next[i + 1];
    }
    struct attend_span span = {0, n, at, p->blocks};
    struct model_batch batch = {.n_row = n, .ids = p->chunk + at, .spans = &span, .n_span = 1};
    batch.logit_rows = n_logit ? rows : &none;
    batch.n_logit = n_logit ? n_logit : 1;
    model_forward(p->run, &batch, p->logits);
    if (n_logit)
        cross_entropy(loss, NULL, p->logits, targets, 1, n_logit, n_vocab, how->pool);
    for (int i = 0; i < n_logit; i++) {
        p->sums.loss += (double)loss[i];
        p->sums.square += (double)loss[i] * (double)loss[i];
    }
    p->sums.n += n_logit;
}

static enum status chunk_run(struct pass *p, int index, struct error *err)
{
    const struct evaluate *how = p->how;
    const int32_t *ids = how->ids + (size_t)index * (size_t)how->n_ctx;
    memcpy(p->chunk, ids, (size_t)how->n_ctx * sizeof *ids);
    if (how->bos >= 0)
        p->chunk[0] = how->bos;
    for (int at = 0; at < how->n_ctx; at += BATCH) {
        int n = how->n_ctx - at < BATCH ? how->n_ctx - at : BATCH;
        batch_run(p, ids, at, n);
        double done = (index + (double)(at + n) / how->n_ctx) / p->n_chunk;
        if (how->seen)
            TRY(how->seen(how->ctx, p->run, done, err));
    }
    return ST_OK;
}

enum status evaluate_text(struct evaluation *out, const struct evaluate *how, struct error *err)
{
    int n_vocab = model_config(how->model)->n_vocab;
    size_t n_chunk = how->n_ctx > 0 ? how->n / (size_t)how->n_ctx : 0;
    if (how->n_ctx < 8 || how->n_ctx > model_config(how->model)->n_ctx)
        return fail(err, ST_INVALID, "perplexity: chunks of %d tokens, expected 8 to the context, %d", how->n_ctx,
                    model_config(how->model)->n_ctx);
    if (n_chunk == 0)
        return fail(err, ST_INVALID, "perplexity: the text has %zu tokens, but one chunk needs %d: give more text",
                    how->n, how->n_ctx);
    for (size_t i = 0; i < how->n; i++)
        if (how->ids[i] < 0 || how->ids[i] >= n_vocab)
            return fail(err, ST_INVALID, "perplexity: token %d, but the model has %d", how->ids[i], n_vocab);
    struct pass p = {.how = how};
    p.n_chunk = n_chunk > INT32_MAX ? INT32_MAX : (int)n_chunk;
    if (how->max_chunks > 0 && p.n_chunk > how->max_chunks)
        p.n_chunk = how->max_chunks;
    enum status st = pass_open(&p, err);
    for (int i = 0; i < p.n_chunk && st == ST_OK; i++)
        st = chunk_run(&p, i, err);
    pass_close(&p);
    if (st != ST_OK)
        return st;
    double n = (double)p.sums.n, mean = p.sums.loss / n, variance = p.sums.square / n - mean * mean;
    *out = (struct evaluation){.perplexity = fn_exp64(mean), .n_token = p.sums.n, .n_chunk = p.n_chunk};
    out->error = n > 1 && variance > 0 ? out->perplexity * sqrt(variance / (n - 1)) : 0;
    return ST_OK;
}
