/* fake - a stand-in for the model, whose answers depend on every id before, read back through the block table
 *
 * Each position's cell in the KV memory holds a hash of all ids up to there, chained through the cell before. A row's
 * logits come from its own cell and from the last cell of every block before it. So a block that was given away, mixed
 * up, or not computed again shows in the ids that are drawn. `mutation` breaks it on purpose: such runs must be
 * noticed.
 */
#ifndef TESTS_ENGINE_FAKE_H
#define TESTS_ENGINE_FAKE_H

#include "base/rng.h"
#include "engine/engine_private.h"

#include <math.h>

enum { FAKE_VOCAB = 24, FAKE_EOS = 3, FAKE_CTX = 320, FAKE_BLOCKS_MAX = 64 };
enum fake_mutation { FAKE_HONEST, FAKE_READS_NEIGHBOUR, FAKE_SEES_BATCH, FAKE_FORGETS_COPIES, FAKE_LOADS_WRONG };

struct fake {
    uint64_t cells[FAKE_BLOCKS_MAX * KV_BLOCK];
    int n_block, rows_max, logits_max, prefill_chunk;
    enum fake_mutation mutation;
    int nan_every;             /* 0 = never; else a row whose hash is a multiple gives NaN */
    void (*during)(void *ctx); /* called in the middle of a step; may be NULL */
    void *during_ctx;
    uint64_t steps, now; /* now: the virtual clock; a step takes a millisecond, and for each row ... */
    uint64_t row_ns;     /* ... this, or 10 us when it is 0, */
    uint64_t jump_ns;    /* and once this when there are more than 8 */
    int spans_max;
};

static inline uint64_t fake_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static inline void fake_logits(real *out, uint64_t hash, int nan_every)
{
    struct rng r;
    rng_init(&r, hash);
    for (int i = 0; i < FAKE_VOCAB; i++)
        out[i] = (real)(rng_unit(rng_u32(&r)) * 8 - 4);
    if (nan_every && hash % (uint64_t)nan_every == 0)
        out[hash % FAKE_VOCAB] = (real)NAN;
}

/* What the row after `ids` must be, from the ids alone. */
static inline uint64_t fake_hash_of(const int32_t *ids, int n)
{
    uint64_t cell = 1, seen = 0;
    for (int i = 0; i < n; i++) {
        cell = fake_mix(cell, (uint64_t)ids[i] + 1);
        if (i % KV_BLOCK == KV_BLOCK - 1 && i < n - 1)
            seen = fake_mix(seen, cell);
    }
    return fake_mix(seen, cell);
}

static inline uint64_t *fake_cell(struct fake *f, const struct attend_span *s, int position)
{
    int32_t block = s->blocks[position / KV_BLOCK];
    assert_true(block >= 0 && block < f->n_block);
    return &f->cells[block * KV_BLOCK + position % KV_BLOCK];
}

static inline void fake_check_batch(const struct fake *f, const struct model_batch *b)
{
    int readers[FAKE_BLOCKS_MAX] = {0}, rows = 0, chunk_rows = 0;
    assert_true(b->n_row <= f->rows_max && b->n_logit <= f->logits_max);
    for (int i = 0; i < b->n_span; i++) {
        const struct attend_span *s = &b->spans[i];
        assert_int_equal(s->row0, rows);
        assert_true(s->n_row > 0);
        rows += s->n_row;
        chunk_rows += s->n_row > 1 ? s->n_row - 1 : 0;
        for (int k = 0; k < kv_blocks_for(s->pos0 + s->n_row); k++)
            readers[s->blocks[k]]++;
    }
    for (int i = 0; i < b->n_span; i++) { /* what is written belongs to one sequence */
        const struct attend_span *s = &b->spans[i];
        for (int k = s->pos0 / KV_BLOCK; k < kv_blocks_for(s->pos0 + s->n_row); k++)
            assert_int_equal(readers[s->blocks[k]], 1);
    }
    assert_int_equal(rows, b->n_row);
    assert_true(chunk_rows <= f->prefill_chunk);
    for (int i = 0; i < b->n_logit; i++)
        assert_true(b->logit_rows[i] < b->n_row && (i == 0 || b->logit_rows[i] > b->logit_rows[i - 1]));
}

static inline void fake_forward(void *ctx, const struct model_batch *b, real *logits)
{
    struct fake *f = ctx;
    uint64_t hashes[1024];
    fake_check_batch(f, b);
    if (f->during)
        f->during(f->during_ctx);
    for (int i = 0; i < b->n_span; i++) {
        const struct attend_span *s = &b->spans[i];
        for (int k = 0; k < s->n_row; k++) {
            int position = s->pos0 + k;
            uint64_t before = position ? *fake_cell(f, s, position - 1) : 1, seen = 0;
            uint64_t cell = *fake_cell(f, s, position) = fake_mix(before, (uint64_t)b->ids[s->row0 + k] + 1);
            for (int block = 0; block < position / KV_BLOCK; block++)
                seen = fake_mix(seen, *fake_cell(f, s, block * KV_BLOCK + KV_BLOCK - 1));
            if (f->mutation == FAKE_READS_NEIGHBOUR && i > 0 && position % 7 == 0)
                cell ^= *fake_cell(f, s - 1, 0);
            if (f->mutation == FAKE_SEES_BATCH && b->n_row == 5)
                cell++;
            hashes[s->row0 + k] = fake_mix(seen, cell);
        }
    }
    for (int i = 0; i < b->n_logit; i++)
        fake_logits(logits + i * FAKE_VOCAB, hashes[b->logit_rows[i]], f->nan_every);
    f->steps++;
    f->now += 1000000 + (f->row_ns ? f->row_ns : 10000) * (uint64_t)b->n_row + (b->n_row > 8 ? f->jump_ns : 0);
    f->spans_max = b->n_span > f->spans_max ? b->n_span : f->spans_max;
}

static inline void fake_copy(void *ctx, int32_t to, int32_t from)
{
    struct fake *f = ctx;
    if (f->mutation != FAKE_FORGETS_COPIES)
        memcpy(f->cells + to * KV_BLOCK, f->cells + from * KV_BLOCK, KV_BLOCK * sizeof *f->cells);
}

static inline void fake_save(void *ctx, void *to, int32_t from)
{
    memcpy(to, ((struct fake *)ctx)->cells + from * KV_BLOCK, KV_BLOCK * sizeof(uint64_t));
}

static inline void fake_load(void *ctx, int32_t to, const void *from)
{
    struct fake *f = ctx;
    memcpy(f->cells + to * KV_BLOCK, from, KV_BLOCK * sizeof(uint64_t));
    if (f->mutation == FAKE_LOADS_WRONG)
        f->cells[to * KV_BLOCK + KV_BLOCK - 1]++;
}

static inline enum status fake_identify(void *ctx, char text[SHA256_TEXT], const bool *stop, struct error *err)
{
    (void)ctx;
    (void)stop;
    (void)err;
    memset(text, 'a', SHA256_TEXT);
    text[SHA256_TEXT - 1] = 0;
    return ST_OK;
}

static inline uint64_t fake_clock(void *ctx)
{
    return ((struct fake *)ctx)->now;
}

static inline struct executor fake_executor(struct fake *f, const struct engine_options *o, int n_block,
                                            struct pool *pool)
{
    f->n_block = n_block;
    f->prefill_chunk = o->prefill_chunk;
    f->rows_max = o->max_sequences + o->prefill_chunk;
    f->logits_max = o->max_sequences + ECHO_ROWS + DRAFT_ROWS;
    return (struct executor){.ctx = f,
                             .forward = fake_forward,
                             .n_vocab = FAKE_VOCAB,
                             .n_ctx = FAKE_CTX,
                             .n_block = n_block,
                             .eos = {FAKE_EOS},
                             .n_eos = 1,
                             .pool = pool,
                             .copy_block = fake_copy,
                             .save_block = fake_save,
                             .load_block = fake_load,
                             .block_bytes = KV_BLOCK * sizeof(uint64_t),
                             .identify = fake_identify};
}

/* ---- what a request reported, and what it must report ---- */
struct record {
    int n;
    int32_t ids[2 * FAKE_CTX];
    float logprobs[2 * FAKE_CTX];
    bool prompt[2 * FAKE_CTX];
    enum finish finish;
    enum status status;
    int n_output, n_cached, finished; /* finished: how often on_finish came */
};

static inline void record_token(void *ctx, const struct token_event *e)
{
    struct record *r = ctx;
    assert_int_equal(r->finished, 0);
    assert_true(r->n < 2 * FAKE_CTX);
    r->ids[r->n] = e->id;
    r->prompt[r->n] = e->is_prompt;
    r->logprobs[r->n++] = e->logprob;
}

static inline void record_finish(void *ctx, const struct finish_event *e)
{
    struct record *r = ctx;
    r->finish = e->finish;
    r->status = e->status;
    r->n_output = e->n_output;
    r->n_cached = e->n_cached;
    r->finished++;
}

static inline void expect_one(struct record *r, int32_t id, bool prompt, float logprob)
{
    r->ids[r->n] = id;
    r->prompt[r->n] = prompt;
    r->logprobs[r->n++] = logprob;
}

/* The naive twin: this request alone, one id after the other, no blocks, no batch. */
static inline void expect(struct record *r, const struct request *q, int context, int nan_every,
                          struct sampler_scratch *scratch)
{
    static const int32_t eos[] = {FAKE_EOS};
    int32_t ids[2 * FAKE_CTX];
    real row[FAKE_VOCAB];
    struct sample s;
    int n = q->n_prompt, most = q->sampling.max_tokens;
    int limit = most < 0 ? n : most == 0 || most > context - n ? context : n + most;
    struct sampler_in in = {.how = &q->sampling,
                            .logits = row,
                            .n_vocab = FAKE_VOCAB,
                            .ids = ids,
                            .n_prompt = n,
                            .choice = q->choice,
                            .eos = eos,
                            .n_eos = 1};
    *r = (struct record){.finished = 1};
    memcpy(ids, q->prompt, (size_t)n * sizeof *ids);
    for (int i = 1; q->echo_logprobs && i < n; i++) {
        fake_logits(row, fake_hash_of(ids, i), nan_every);
        in.given = ids[i];
        in.n_ids = n;
        sampler_pick(&s, &in, scratch);
        if (s.id < 0) {
            r->finish = FINISH_ERROR;
            return;
        }
        if (i == 1)
            expect_one(r, ids[0], true, NAN);
        expect_one(r, ids[i], true, s.logprob);
    }
    in.given = -1;
    for (;;) {
        fake_logits(row, fake_hash_of(ids, n), nan_every);
        in.n_ids = n;
        sampler_pick(&s, &in, scratch);
        r->finish = FINISH_ERROR;
        if (s.id < 0)
            return;
        if (q->echo_logprobs && r->n == 0)
            expect_one(r, ids[0], true, NAN);
        r->finish = FINISH_LENGTH;
        if (n == limit)
            return;
        ids[n++] = s.id;
        r->n_output++;
        r->finish = FINISH_STOP;
        if (s.id == FAKE_EOS && !q->sampling.ignore_eos)
            return;
        expect_one(r, s.id, false, s.logprob);
        r->finish = FINISH_LENGTH;
        if (n == limit)
            return;
    }
}

/* A canceled request must have reported a beginning of what it would have; an error likewise of its chunk's prompt. */
static inline bool records_agree(const struct record *got, const struct record *want)
{
    if (got->finished != 1)
        return false;
    bool late = got->finish == FINISH_ERROR && got->status == ST_TIMEOUT;
    bool part = late || got->finish == FINISH_CANCELED || (got->finish == FINISH_ERROR && want->finish == FINISH_ERROR);
    if (part ? got->n > want->n : got->n != want->n || got->finish != want->finish || got->n_output != want->n_output)
        return false;
    size_t n = (size_t)got->n;
    if (memcmp(got->ids, want->ids, n * sizeof *got->ids) || memcmp(got->prompt, want->prompt, n * sizeof *got->prompt))
        return false;
    for (size_t i = 0; i < n; i++) /* bits, but any NaN equals any other */
        if (memcmp(&got->logprobs[i], &want->logprobs[i], sizeof(float)) &&
            !(isnan(got->logprobs[i]) && isnan(want->logprobs[i])))
            return false;
    return true;
}

static inline void random_request(struct request *q, struct record *record, int32_t *prompt, struct rng *r, int context)
{
    struct sampling *s = &q->sampling;
    *record = (struct record){0};
    *q = (struct request){.prompt = prompt, .ctx = record, .on_token = record_token, .on_finish = record_finish};
    q->n_prompt = 1 + (int)rng_below(r, rng_below(r, 4) ? 40 : (uint64_t)(context - 1 < 200 ? context - 1 : 200));
    int common = rng_below(r, 3) ? (int)rng_below(r, 2 * (uint64_t)q->n_prompt) : 0; /* as others begin, too */
    for (int i = 0; i < q->n_prompt; i++)
        prompt[i] = i < common ? i * i % 7 : (int32_t)rng_below(r, FAKE_VOCAB);
    q->cache_salt = rng_below(r, 4) ? (struct str){NULL, 0} : STR("salt");
    q->adapter = rng_below(r, 8) == 0;
    q->tenant = rng_below(r, 3);
    sampling_defaults(s);
    s->temperature = rng_below(r, 3) ? (float)rng_below(r, 30) / 10 : 0;
    s->top_k = rng_below(r, 2) ? (int)rng_below(r, FAKE_VOCAB) : 0;
    s->top_p = rng_below(r, 2) ? 0.5f : 1;
    s->repetition_penalty = rng_below(r, 2) ? 1.25f : 1;
    s->frequency_penalty = rng_below(r, 2) ? 0.5f : 0;
    s->seed = rng_u64(r);
    s->has_seed = true;
    bool grows = context < FAKE_CTX && rng_below(r, 3); /* in a small pool: long answers, so that blocks run out */
    s->max_tokens = grows ? 60 + (int)rng_below(r, 140) : rng_below(r, 20) ? 1 + (int)rng_below(r, 50) : 0;
    s->min_tokens = rng_below(r, 3) ? 0 : (int)rng_below(r, 20);
    s->ignore_eos = grows || rng_below(r, 4) == 0;
    s->n_logprobs = (int)rng_below(r, 4) - 1;
    q->choice = (int)rng_below(r, 3);
    q->priority = rng_below(r, 4) ? 0 : (int)rng_below(r, 3) - 1;
    q->echo_logprobs = rng_below(r, 5) == 0;
    if (q->echo_logprobs && rng_below(r, 2))
        s->max_tokens = -1;
}

#endif
