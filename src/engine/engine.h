/* engine - one thread owns every sequence and KV block of a model: schedule, run, commit
 *
 *   TRY(engine_create(&e, bundle, &options, err));
 *   TRY(engine_submit(e, &request, err));     // from any thread; callbacks come on the engine thread
 *   engine_cancel(e, id);                     // takes effect within one step; blocks return; on_finish still comes
 *
 * One `struct request` serves every user of the engine: the server, the command line, jobs and evaluation.
 * Threads  submit, cancel, stats: any thread. Callbacks must not block: hand over to your own loop.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "grammar/grammar.h"
#include "model/model.h"

enum { REQUEST_STOPS_MAX = 16, REQUEST_LOGPROBS_MAX = 20 };

struct logit_bias {
    int32_t id;
    float bias;
};

struct sampling {                              /* order and ties: docs/numerics.md section 6 */
    float temperature;                         /* 0 = greedy */
    int top_k;                                 /* 0 = all */
    float top_p, min_p, typical_p;             /* 1, 0, 1 = off */
    float repetition_penalty;                  /* 1 = off; over prompt and output, as transformers */
    float presence_penalty, frequency_penalty; /* 0 = off; over the output, as OpenAI */
    uint64_t seed;                             /* drawn and reported when !has_seed */
    bool has_seed;
    int max_tokens; /* output tokens; 0 = until the context is full; -1 = none (with echo_logprobs) */
    int min_tokens;
    bool ignore_eos;
    int n_logprobs; /* -1 = none; 0 = the chosen token's alone; else that many alternatives too */
    const struct logit_bias *logit_bias;
    int n_logit_bias;
};
void sampling_defaults(struct sampling *s); /* greedy-free defaults: temperature 1, all filters off */
MUST_USE enum status sampling_check(const struct sampling *s, const char **param,
                                    struct error *err); /* names the field */

enum finish { FINISH_NONE, FINISH_STOP, FINISH_LENGTH, FINISH_CANCELED, FINISH_ERROR };

struct token_event {
    int32_t id;      /* -1 in an event that only flushes held text */
    bool is_prompt;  /* echo_logprobs: one of the prompt's ids, without text; the first one's logprob is NaN */
    struct str text; /* newly certain text: whole characters, nothing of a stop string; may be empty */
    float logprob;   /* from the raw logits; valid when n_logprobs >= 0 */
    const struct candidate *top; /* alternatives, descending; .logit holds the log-probability */
    int n_top;
};
struct finish_event {
    enum finish finish;
    struct str stop_text; /* which stop string ended it; ptr NULL for EOS */
    enum status status;   /* FINISH_ERROR */
    const char *message;
    int n_prompt, n_output; /* n_output counts the EOS token, which has no event of its own */
    int n_cached;           /* tokens of the prompt whose KV blocks were there already */
    double logprob;         /* of all n_output ids together; valid when n_logprobs >= 0 */
    uint64_t seed;
    double queue_s, prefill_s, decode_s;
};

struct request { /* filled by the caller; ids, stops and callbacks must live until on_finish returned */
    const int32_t *prompt;
    int n_prompt;
    struct sampling sampling;
    struct str stops[REQUEST_STOPS_MAX];
    int n_stop;
    int choice;           /* index of this sequence in an n > 1 request: part of the random counter */
    const int32_t *shown; /* special tokens whose text is delivered like any other's (markers of calls, reasoning) */
    int n_shown;
    struct grammar *grammar; /* NULL: any text. What the answer must be; made for a vocabulary of engine_vocab_create */
    bool echo_logprobs;      /* prompt log-probabilities too (evaluation) */
    int priority;            /* larger goes first; 0 is usual. One step outweighs 10 s of waiting. */
    uint64_t deadline_ns;    /* clock_ns() by which it must end, else FINISH_ERROR, ST_TIMEOUT; 0 = none */
    uint64_t tenant;         /* whose share it takes, when engine_options.weight is set */
    struct str cache_salt;   /* only requests with the same salt share KV blocks */
    uint64_t adapter;        /* likewise: a hash of what it holds; 0 = none; engine_submit sets it from lora */
    const struct lora *lora; /* an adapter of the model, the caller's until on_finish; NULL = none */
    const volatile int *interrupt; /* NULL, or: not 0 = cancel, within one step. A signal handler may set it. */
    void *ctx;
    void (*on_token)(void *ctx, const struct token_event *event);
    void (*on_finish)(void *ctx, const struct finish_event *event); /* exactly once */
    uint64_t id;                                                    /* set by engine_submit */
    bool running; /* atomic, the engine's: it does not wait (any more, or again); not of beam searches */
};

enum { DRAFT_MAX = 16 };
struct engine_options {
    int n_thread;      /* 0 = all CPUs */
    uint64_t kv_bytes; /* 0 = enough for 4 full contexts or a quarter of free memory, whichever is less */
    int prefill_chunk; /* tokens of prompt a step may carry; 0 = 256 */
    int max_sequences; /* running at once; 0 = 64 */
    int queue_max;     /* waiting; ST_LIMIT beyond it and max_sequences; 0 = 1024, below 0 = none */
    struct pool *pool; /* NULL = the engine makes its own */
    /* While answers are written, a step carries as many rows of other prompts (at least 4) as let the next token come
     * after so many milliseconds; 0 = 1.6 times a step in which all are written who run or wait and find room, or 20,
     * whichever is more. */
    double itl_ms;
    bool no_prefix_cache;
    const char *kv_spill;    /* folder where full KV blocks are kept, also for the next start; NULL = none */
    uint64_t kv_spill_bytes; /* of all files there; 0 = 8 GiB */
    /* Speculation: ids proposed behind a sequence, which its next step verifies; the answer is the same, sooner where
     * proposals are right, and as many are made as measurements say are worth it (engine/draft.h). */
    int draft_tokens;     /* at most, a step and sequence, up to DRAFT_MAX; 0 = none */
    struct bundle *draft; /* a small model of the same vocabulary, that proposes where the text's own past does not;
                           * taken: closed with the engine, or when it cannot be created. NULL = the past alone */
    /* Fair share: waiting requests go first whose tenant got the fewest tokens for its weight (> 0). NULL = no tenants.
     * Called on the engine thread. */
    double (*weight)(void *ctx, uint64_t tenant);
    void *weight_ctx;
};
struct engine;
MUST_USE enum status engine_create(struct engine **out, struct bundle *bundle, const struct engine_options *options,
                                   struct error *err);
void engine_drain(struct engine *e);   /* refuse new requests, finish running ones; returns when idle */
void engine_destroy(struct engine *e); /* cancels what runs */
MUST_USE enum status engine_submit(struct engine *e, struct request *r, struct error *err);
/* The n best of o->width continuations of one prompt, best first, each as an answer to its own request: all tokens come
 * at the end. The requests are alike; of their sampling, only max_tokens and ignore_eos count. Without a prefix cache
 * every step computes the whole text again. */
enum { BEAMS_MAX = 10 };
struct beam_options {
    int width;             /* beams that live at once, n .. BEAMS_MAX */
    double length_penalty; /* score = sum of log-probabilities / length ^ penalty; 1 is usual */
    bool early_stopping;   /* when `width` are complete; else when no other can become better */
};
static inline size_t beams_bytes(int width, int n_token) /* what a search holds; n_token: prompt and answer, at most */
{
    return (size_t)(3 * width + 1) * (size_t)n_token * 2 * sizeof(int32_t);
}
MUST_USE enum status engine_submit_beams(struct engine *e, struct request *const *requests, int n,
                                         const struct beam_options *o, struct error *err);
void engine_cancel(struct engine *e, uint64_t id); /* unknown ids are ignored */
/* The weights are others now: requests submitted from here on find no KV block of before. */
void engine_weights_changed(struct engine *e);
const struct bundle *engine_bundle(const struct engine *e);
/* The vocabulary that grammars for this engine's requests are compiled for; the caller destroys it, after those.
 * markers: special tokens whose text answers may hold (request.shown). ST_UNSUPPORTED without a tokenizer. */
MUST_USE enum status engine_vocab_create(struct grammar_vocab **out, const struct engine *e, const int32_t *markers,
                                         int n_marker, struct error *err);

enum { ENGINE_STEP_SIZES = 14 };
struct engine_stats {
    int running, waiting, blocks_total, blocks_free;
    int max_sequences;   /* of those that may run at once */
    const char *kv_type; /* of the KV cache, as --kv names it; NULL: none */
    int n_ctx;           /* tokens one request may have in all: --ctx, or what the KV blocks hold if fewer */
    uint64_t steps, prompt_tokens, output_tokens, finished[5]; /* by enum finish */
    uint64_t prefix_queries, prefix_hits;                      /* tokens of admitted requests; of these, cached */
    uint64_t spill_written, spill_read, spill_damaged;         /* KV blocks on disk */
    uint64_t preemptions, drafted, accepted;                   /* drafted, accepted: tokens proposed and verified */
    /* steps by how many tokens they computed: at most 1, 8, 16, 32 ... 16384 (vLLM's bounds), more; and all of them */
    uint64_t step_sizes[ENGINE_STEP_SIZES], step_tokens;
    /* clock_ns() when the engine last moved: a step began or ended, or work came to an idle engine. Its age while
     * something runs or waits is the engine's health: a step that hangs is seen, the first one of a request too. */
    uint64_t last_step_ns;
};
void engine_stats(const struct engine *e, struct engine_stats *out);

/* What was submitted and has not finished, newest first: how many, of them at most max in out. -1 when the engine keeps
 * its lock for more than a second. For a watchdog: it reads nothing that a step is writing. */
struct engine_live {
    uint64_t id, submit_ns;
    int n_prompt, n_limit; /* tokens; n_limit: in all, when it ends by length */
    bool canceled;
};
int engine_live(const struct engine *e, struct engine_live *out, int max);

/* One request, waited for on the caller's thread (not the engine's): the command line's way. r->on_token still comes,
 * on the engine thread; r->on_finish may be NULL. FINISH_ERROR becomes the returned status. */
MUST_USE enum status engine_generate(struct engine *e, struct request *r, struct finish_event *end, struct error *err);

#include "engine/embed.h" /* the rest of this door: models that embed or score */

#endif
