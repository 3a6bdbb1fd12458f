/* engine_private - the pieces of the engine: block pool, sequences, scheduler, sampler, stop strings
 *
 * A sequence is ids known (prompt, then output) and how many of them are in the KV cache. A step computes the next rows
 * of some sequences; one whose last known id was computed gets a new one. Prefill, decode and recomputation after a
 * preemption are all this one thing, and the numbers contract makes them give the same bits.
 */
#ifndef ENGINE_ENGINE_PRIVATE_H
#define ENGINE_ENGINE_PRIVATE_H

#include "engine/cost.h"
#include "engine/draft.h"
#include "engine/engine.h"
#include "engine/spill.h"

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
enum { SAMPLER_FIRST = 64, SAMPLER_SAMPLE = 1024 };
struct sampler_scratch {              /* one a thread */
    real *work;                       /* [n_vocab] */
    float *narrow;                    /* [n_vocab] in the double build; else NULL */
    uint32_t *counts;                 /* [n_vocab], zero between calls */
    struct candidate *sorted, *spare; /* [n_vocab] */
    real *p;                          /* [n_vocab]: probabilities of `sorted` */
    float *maxima;                    /* [row_blocks(n_vocab)] */
    /* draw.c: the row's first, and a sample of it, in descending order; the mass of the first i of that */
    struct candidate first[SAMPLER_FIRST];
    struct candidate sample[SAMPLER_SAMPLE];
    double up_to[SAMPLER_SAMPLE + 1];
};
struct sampler_in {
    const struct sampling *how;
    const real *logits;
    int n_vocab;
    const int32_t *ids; /* prompt and output so far: the new id's position is n_ids */
    int n_prompt, n_ids, choice;
    const int32_t *eos;
    int n_eos;
    const uint64_t *mask; /* ids that may be drawn; NULL: all */
    int32_t given;        /* >= 0: do not sample, report this id's log-probability */
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
/* An id of a row that may have been adjusted; row: the same narrowed, scratch->maxima: its maxima (draw.c). */
int32_t sampler_draw(const struct sampler_in *in, const real *logits, const float *row, struct sampler_scratch *s);

/* ---- what runs the batch: a model, or a test's stand-in ---- */
struct executor {
    void *ctx;
    void (*forward)(void *ctx, const struct model_batch *b, real *logits);
    int n_vocab, n_ctx, n_block;
    double head_rows; /* see cost_model */
    int32_t eos[16];
    int n_eos;
    const struct tokenizer *tokenizer; /* NULL: no text */
    struct pool *pool;
    void (*copy_block)(void *ctx, int32_t to, int32_t from); /* all layers' pages of a KV block; see kv_pool */
    uint64_t (*clock)(void *ctx);                            /* NULL: clock_ns */
    /* For blocks on disk: see kv_pool and spill_options. */
    size_t block_bytes;
    void (*save_block)(void *ctx, void *to, int32_t from);
    void (*load_block)(void *ctx, int32_t to, const void *from);
    enum status (*identify)(void *identify_ctx, char text[SHA256_TEXT], const bool *stop, struct error *err);
    void *identify_ctx;
    struct bundle *bundle; /* what engine_bundle says; may be NULL */
};
uint64_t executor_now(const struct executor *x);
double executor_head_rows(const struct model *m);
static inline bool executor_is_eos(const struct executor *x, int32_t id)
{
    for (int i = 0; i < x->n_eos; i++)
        if (x->eos[i] == id)
            return true;
    return false;
}
static inline double seconds_between(uint64_t from_ns, uint64_t to_ns) /* from 0: it has not begun */
{
    return from_ns && to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0;
}

/* ---- seq ---- */
struct seq {
    struct seq *next, *prev;           /* in waiting or running */
    struct seq *live_next, *live_prev; /* all that were submitted and have not finished; under the engine's lock */
    struct request *r;
    uint64_t id, order;         /* order: by arrival */
    int64_t rank;               /* smaller goes first; see sched_add */
    uint64_t held;              /* the step in which it waited for another's prompt */
    struct tenant *tenant;      /* NULL: no fair share */
    int n_paid;                 /* ids that its tenant was charged for */
    bool running, canceled;     /* canceled: atomic, set by any thread */
    const struct beams *search; /* it is a step of this beam search, and no request of a user's; else NULL */
    int32_t *ids;
    int n_prompt, n_ids, n_limit; /* n_limit: ids in all when it ends by length */
    int n_done;                   /* ids whose keys and values are in the cache */
    int n_draft;                  /* ids proposed behind n_ids, to be verified by the next step */
    int n_cached;                 /* of the prompt, found in the cache when it first ran */
    struct hash128 root;          /* see prefix_root */
    int n_echoed;                 /* prompt ids whose log-probability was reported */
    int n_read;                   /* prompt ids the decoder has read */
    double logprob;               /* of the output's ids together, so far as they have one */
    struct draft_state draft;
    struct kv_blocks blocks;
    struct decoder decoder;
    struct stopper stop;
    struct buf piece;
    struct grammar_state *grammar; /* NULL: any text; behind the ids that were taken */
    uint64_t *masks;               /* [mask_rows][n_mask_word], the first n_mask of this step */
    int n_mask_word, mask_rows, n_mask;
    struct error failure; /* why there are no more, or what FINISH_ERROR of seq_take means */
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
/* Takes a sampled id: appends, emits text, decides the end. FINISH_NONE = go on; FINISH_ERROR: see failure.
 * *stop_text as in finish_event. */
enum finish seq_take(struct seq *s, const struct executor *x, const struct sample *sample, struct str *stop_text);

/* ---- share: which tenant was served least ---- */
static inline int engine_live_max(const struct engine_options *o) /* running and waiting */
{
    int waiting = o->queue_max > 0 ? o->queue_max : o->queue_max < 0 ? 0 : 1024;
    return (o->max_sequences > 0 ? o->max_sequences : 64) + waiting;
}
struct tenant {
    uint64_t id;
    double served; /* tokens for its weight; never behind the least served one that is live */
    double weight;
    int n_live; /* its sequences, or jobs */
};
struct shares {
    struct tenant *tenants;
    int n_tenant, tenants_max;
    double (*weight)(void *ctx, uint64_t tenant); /* NULL: there are no tenants, and all below are NULL */
    void *weight_ctx;
};
MUST_USE enum status shares_init(struct shares *s, const struct engine_options *o, struct error *err);
void shares_free(struct shares *s);
struct tenant *tenant_join(struct shares *s, uint64_t id); /* one more of its; the engine thread's, as weight is */
void tenant_leave(struct tenant *t);
void tenant_charge(struct tenant *t, int n_token);
static inline bool tenant_goes_first(const struct tenant *t, const struct tenant *other)
{
    return t && t->served < other->served;
}

/* ---- sched ---- */
enum { ECHO_ROWS = 32, DRAFT_ROWS = 64 }; /* rows of logits a step may spend on prompt log-probabilities, on drafts */
struct seq_list {
    struct seq *first, *last;
    int count;
};
struct batch {
    struct model_batch model;
    struct batch_item {
        struct seq *seq;
        int n_row, n_draft;  /* its rows; the last n_draft of them are proposed ids */
        int logit0, n_logit; /* its part of the logits */
    } * items;               /* one a span */
    int32_t *ids, *logit_rows;
    struct attend_span *spans;
    const struct lora **loras; /* a span's */
};
struct sched {
    struct kv_pool kv;
    struct seq_list waiting, running; /* both by rank */
    int max_sequences, prefill_chunk;
    struct shares shares;
    uint64_t step, preemptions;
    double itl_s; /* 0 = by ratio */
    struct cost_model cost;
    struct batch batch;
};
MUST_USE enum status sched_init(struct sched *s, const struct engine_options *o, int n_block, struct error *err);
void sched_free(struct sched *s);
static inline int sched_rows_max(const struct sched *s)
{
    return s->max_sequences + s->prefill_chunk;
}
static inline int sched_logits_max(const struct sched *s)
{
    return s->max_sequences + ECHO_ROWS + DRAFT_ROWS;
}
void sched_add(struct sched *s, struct seq *q);    /* to waiting */
void sched_remove(struct sched *s, struct seq *q); /* from where it is; its blocks return */
/* The next step's batch; n_row == 0 when there is nothing to do. Spans of decoding sequences may hold drafts. */
const struct batch *sched_next(struct sched *s, uint64_t now_ns);
void sched_learn(struct sched *s, double seconds); /* how long the step took */
/* n more of its ids are computed: n_done grows, and others may find their blocks. */
void sched_commit(struct sched *s, struct seq *q, int n);

/* ---- mask: what grammars let come next, worked out while the model computes ---- */
struct masker;
MUST_USE enum status masker_create(struct masker **out, int max_sequences, struct error *err);
void masker_destroy(struct masker *m);
void masker_begin(struct masker *m, const struct batch *b);
void masker_end(struct masker *m);

/* ---- core: schedule, run, commit, on one thread ---- */
struct core {
    struct executor x;
    struct sched sched;
    struct masker *masker;
    real *logits;
    void *logits_base;
    struct sampler_scratch *scratch; /* [pool threads] */
    int n_scratch;
    struct sample *samples;    /* [logits_max] */
    struct sampler_in *inputs; /* [logits_max] */
    void *ctx;
    void (*on_scheduled)(void *ctx); /* a step is about to run; may be NULL */
    /* Before a step: may put proposals behind the ids of decoding sequences (n_done == n_ids - 1) and set n_draft, at
     * most n_limit - n_ids - 1. What the step confirms is taken, to the same ids as without. May be NULL. */
    void (*draft)(void *ctx, const struct seq_list *running);
    void (*on_end)(void *ctx, struct seq *s,
                   const struct finish_event *end); /* s left the scheduler; the callee frees it */
    uint64_t steps, prompt_tokens, output_tokens, drafted, accepted;
    uint64_t step_sizes[ENGINE_STEP_SIZES], step_tokens;
};
MUST_USE enum status core_init(struct core *c, const struct executor *x, const struct engine_options *o,
                               struct error *err);
void core_free(struct core *c);
/* Opens the folder that options.kv_spill names; on_room as in spill_options. */
MUST_USE enum status core_keep_on_disk(struct core *c, const struct engine_options *o, void (*on_room)(void *ctx),
                                       void *ctx, struct error *err);
bool core_step(struct core *c); /* false: nothing to do */

/* Memory that is zero, 64-byte aligned and not touched yet: the KV pool must not cost start-up time. Free *base. */
void *alloc_untouched(size_t size, void **base);

/* ---- embed: what an engine is when its model does not generate ---- */
struct embedder;
MUST_USE enum status embedder_create(struct embedder **out, struct bundle *bundle, const struct engine_options *o,
                                     struct error *err);
void embedder_drain(struct embedder *e);
void embedder_destroy(struct embedder *e);
MUST_USE enum status embedder_submit(struct embedder *e, struct embed_request *r, struct error *err);
void embedder_cancel(struct embedder *e, uint64_t id);
void embedder_stats(struct embedder *e, struct engine_stats *out);

/* An engine on any executor (tests); engine_create makes one of a model. */
MUST_USE enum status engine_create_on(struct engine **out, const struct executor *x, const struct engine_options *o,
                                      struct error *err);

#endif
