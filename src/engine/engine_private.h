/* engine_private - the pieces of the engine: block pool, sequences, scheduler, sampler, stop strings
 *
 * A sequence is ids known (prompt, then output) and how many of them are in the KV cache. A step computes the next rows
 * of some sequences; one whose last known id was computed gets a new one. Prefill, decode and recomputation after a
 * preemption are all this one thing, and the numbers contract makes them give the same bits.
 */
#ifndef ENGINE_ENGINE_PRIVATE_H
#define ENGINE_ENGINE_PRIVATE_H

#include "engine/engine.h"

/* ---- kv: which blocks are free, and who owns the others ---- */
struct kv_pool {
    int32_t *ring; /* free blocks, oldest first: a freed block keeps its content as long as possible */
    bool *is_free;
    int first, n_free, n_block;
};
struct kv_blocks { /* one sequence's, in order of position */
    int32_t *ids;
    int count, capacity;
};
MUST_USE enum status kv_pool_init(struct kv_pool *p, int n_block, struct error *err);
void kv_pool_free(struct kv_pool *p);
static inline int kv_blocks_for(int n_token)
{
    return (n_token + KV_BLOCK - 1) / KV_BLOCK;
}
/* Grows `b` until it covers n_token positions; false, and nothing changed, when the pool has too few. */
bool kv_reserve(struct kv_pool *p, struct kv_blocks *b, int n_token);
void kv_release(struct kv_pool *p, struct kv_blocks *b);

/* ---- stop: text up to the first stop string, held back where one may have begun ---- */
struct stopper {
    const struct str *stops;
    int n_stop;
    struct buf held; /* [0, certain) was handed out by the last call; the rest may begin a stop string */
    size_t certain;
};
/* Adds text. Returns which stop string is now complete, or -1. *out: text certain by now, valid until the next call.
 * The stop string that ends first wins, of those the one that began first: so token borders do not matter. */
int stop_feed(struct stopper *s, struct str text, struct str *out);
struct str stop_flush(struct stopper *s); /* the end: nothing can complete any more */

/* ---- sampler: one row of logits becomes one id ---- */
struct sampler_scratch {              /* one a thread */
    real *work;                       /* [n_vocab] */
    float *narrow;                    /* [n_vocab] in the double build; else NULL */
    uint32_t *counts;                 /* [n_vocab], zero between calls */
    struct candidate *sorted, *spare; /* [n_vocab] */
    real *p;                          /* [n_vocab]: probabilities of `sorted` */
    float *maxima;                    /* [row_blocks(n_vocab)] */
};
struct sampler_in {
    const struct sampling *how;
    const real *logits;
    int n_vocab;
    const int32_t *ids; /* prompt and output so far: the new id's position is n_ids */
    int n_prompt, n_ids, choice;
    const int32_t *eos;
    int n_eos;
    int32_t given; /* >= 0: do not sample, report this id's log-probability */
};
struct sample {
    int32_t id; /* -1: the logits hold NaN or infinity */
    float logprob;
    int n_top;
    struct candidate top[REQUEST_LOGPROBS_MAX];
};
MUST_USE enum status sampler_scratch_init(struct sampler_scratch *s, int n_vocab, struct error *err);
void sampler_scratch_free(struct sampler_scratch *s);
void sampler_pick(struct sample *out, const struct sampler_in *in, struct sampler_scratch *scratch);

/* ---- what runs the batch: a model, or a test's stand-in ---- */
struct executor {
    void *ctx;
    void (*forward)(void *ctx, const struct model_batch *b, real *logits);
    int n_vocab, n_ctx, n_block;
    int32_t eos[16];
    int n_eos;
    const struct tokenizer *tokenizer; /* NULL: no text */
    struct pool *pool;
};

/* ---- seq ---- */
struct seq {
    struct seq *next, *prev;           /* in waiting or running */
    struct seq *live_next, *live_prev; /* all that were submitted and have not finished; under the engine's lock */
    struct request *r;
    uint64_t id, order;     /* order: by arrival */
    bool running, canceled; /* canceled: atomic, set by any thread */
    int32_t *ids;
    int n_prompt, n_ids, n_limit; /* n_limit: ids in all when it ends by length */
    int n_done;                   /* ids whose keys and values are in the cache */
    int n_echoed;                 /* prompt ids whose log-probability was reported */
    int n_read;                   /* prompt ids the decoder has read */
    struct kv_blocks blocks;
    struct decoder decoder;
    struct stopper stop;
    struct buf piece;
    uint64_t submit_ns, start_ns, first_ns;
};
MUST_USE enum status seq_create(struct seq **out, struct request *r, const struct executor *x, struct error *err);
int seq_context(const struct executor *x); /* positions one sequence may have: the model's, or the pool's if fewer */
void seq_free(struct seq *s);
static inline bool seq_wants_echo(const struct seq *s, int position) /* are this row's logits a prompt id's? */
{
    return s->r->echo_logprobs && position + 1 < s->n_prompt && position + 1 >= s->n_echoed;
}
void seq_read_prompt(struct seq *s, const struct executor *x); /* the decoder catches up with n_done */
/* Reports prompt ids: the first has no log-probability, the next is `sample`'s. */
void seq_echo(struct seq *s, const struct sample *sample);
/* Takes a sampled id: appends, emits text, decides the end. FINISH_NONE = go on. *stop_text as in finish_event. */
enum finish seq_take(struct seq *s, const struct executor *x, const struct sample *sample, struct str *stop_text);

/* ---- sched ---- */
struct seq_list {
    struct seq *first, *last;
    int count;
};
struct batch {
    struct model_batch model;
    struct batch_item {
        struct seq *seq;
        int n_row, logit0, n_logit; /* its part of the logits */
    } * items;                      /* one a span */
    int32_t *ids, *logit_rows;
    struct attend_span *spans;
};
struct sched {
    struct kv_pool kv;
    struct seq_list waiting, running;            /* both by priority, then age */
    int max_sequences, prefill_chunk, echo_rows; /* echo_rows: prompt log-probabilities a step */
    struct batch batch;
};
MUST_USE enum status sched_init(struct sched *s, const struct engine_options *o, int n_block, struct error *err);
void sched_free(struct sched *s);
int sched_rows_max(const struct sched *s);
int sched_logits_max(const struct sched *s);
void sched_add(struct sched *s, struct seq *q);    /* to waiting */
void sched_remove(struct sched *s, struct seq *q); /* from where it is; its blocks return */
const struct batch *sched_next(struct sched *s);   /* the next step's batch; n_row == 0 when there is nothing to do */

/* ---- core: schedule, run, commit, on one thread ---- */
struct core {
    struct executor x;
    struct sched sched;
    real *logits;
    void *logits_base;
    struct sampler_scratch *scratch; /* [pool threads] */
    int n_scratch;
    struct sample *samples;    /* [logits_max] */
    struct sampler_in *inputs; /* [logits_max] */
    void *ctx;
    void (*on_scheduled)(void *ctx); /* a step is about to run; may be NULL */
    void (*on_end)(void *ctx, struct seq *s,
                   const struct finish_event *end); /* s left the scheduler; the callee frees it */
    uint64_t steps, prompt_tokens, output_tokens;
};
MUST_USE enum status core_init(struct core *c, const struct executor *x, const struct engine_options *o,
                               struct error *err);
void core_free(struct core *c);
bool core_step(struct core *c); /* false: nothing to do */
void core_end(struct core *c, struct seq *s, enum finish finish, struct str stop_text, enum status status,
              const char *message);

/* Memory that is zero, 64-byte aligned and not touched yet: the KV pool must not cost start-up time. Free *base. */
void *alloc_untouched(size_t size, void **base);

/* An engine on any executor (tests); engine_create makes one of a model. */
MUST_USE enum status engine_create_on(struct engine **out, const struct executor *x, const struct engine_options *o,
                                      struct error *err);

#endif
