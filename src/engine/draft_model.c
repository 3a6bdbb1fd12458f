#include "engine/draft_model.h"

#include "base/mem.h"

/* A proposal is verified, so another vocabulary could do no harm; but it would be right by chance only. */
static enum status check_vocabulary(const struct bundle *b, const struct tokenizer *target, struct error *err)
{
    const struct tokenizer *own = b->tokenizer;
    if (!own || !target)
        return own == target ? ST_OK : fail(err, ST_INVALID, "draft model %s: one of the two has no tokenizer", b->id);
    int32_t n = tokenizer_vocab_size(own), n_target = tokenizer_vocab_size(target);
    for (int32_t id = 0; id < n && id < n_target; id++)
        if (!str_eq(tokenizer_token(own, id), tokenizer_token(target, id)))
            return fail(err, ST_INVALID,
                        "draft model %s: its token %d is not the model's: a draft model needs the same vocabulary",
                        b->id, id);
    if (n != n_target)
        return fail(err, ST_INVALID, "draft model %s: %d tokens, the model has %d: it needs the same vocabulary", b->id,
                    n, n_target);
    return ST_OK;
}

/* The models' tables may be padded to different sizes: rows of logits get the target's. `from` may be `to` when they
 * grow, so the last comes first. */
static void spread(real *to, int n_target, const real *from, int n, int n_row)
{
    int kept = n < n_target ? n : n_target;
    for (int i = n_row - 1; i >= 0; i--) {
        real *row = to + (size_t)i * (size_t)n_target;
        memmove(row, from + (size_t)i * (size_t)n, (size_t)kept * sizeof *row);
        for (int j = kept; j < n_target; j++)
            row[j] = -(real)1e30;
    }
}

static void forward(void *ctx, const struct model_batch *b, real *logits)
{
    struct draft_model *m = ctx;
    struct model_batch own = *b;
    for (int i = 0; i < b->n_row; i++)
        m->ids[i] = b->ids[i] < m->n_vocab ? b->ids[i] : 0; /* a padding id: no text has it */
    own.ids = m->ids;
    real *rows = m->wide ? m->wide : logits; /* the caller has room for the target's */
    model_forward(m->run, &own, rows);
    if (m->n_vocab != m->x.n_vocab)
        spread(logits, m->x.n_vocab, rows, m->n_vocab, b->n_logit);
}

enum status draft_model_create(struct draft_model **out, struct bundle *bundle, const struct executor *target,
                               const struct tokenizer *target_tokenizer, int max_sequences, struct error *err)
{
    *out = NULL;
    const struct model_config *config = model_config(bundle->model);
    TRY(check_vocabulary(bundle, target_tokenizer, err));
    struct draft_model *m = mem_alloc_zero(1, sizeof *m);
    if (!m)
        return fail_nomem(err, "draft model");
    m->x = *target;
    m->x.forward = forward;
    m->x.copy_block = NULL;
    m->x.ctx = m;
    m->x.n_ctx = config->n_ctx;
    m->bundle = bundle;
    m->n_vocab = config->n_vocab;
    m->n_row = max_sequences + DRAFT_MODEL_ROWS;
    m->ids = mem_alloc_zero((size_t)m->n_row, sizeof *m->ids);
    void *kv = alloc_untouched((size_t)m->x.n_block * model_kv_block_bytes(bundle->model), &m->kv_base);
    bool wider = m->n_vocab > m->x.n_vocab;
    if (wider)
        m->wide = alloc_untouched((size_t)max_sequences * (size_t)m->n_vocab * sizeof *m->wide, &m->wide_base);
    enum status st = m->ids && kv && (m->wide || !wider) ? ST_OK : fail_nomem(err, "draft model");
    if (st == ST_OK)
        st = model_run_create(&m->run, bundle->model, m->n_row, max_sequences, kv, m->x.n_block, m->x.pool, err);
    if (st != ST_OK) {
        draft_model_destroy(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

void draft_model_destroy(struct draft_model *m)
{
    if (!m)
        return;
    if (m->run)
        model_run_free(m->run);
    mem_free(m->kv_base);
    mem_free(m->wide_base);
    mem_free(m->ids);
    mem_free(m);
}
