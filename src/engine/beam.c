#include "engine/beam.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct beam {        /* a continuation */
    int32_t *ids;    /* [n_limit] with the prompt */
    float *logprobs; /* [n_limit] of ids */
    int n_ids;
    double sum, score;
};

struct choice {
    int beam;
    int32_t id;
    float logprob;
    double sum;
};

struct ask { /* one live beam's next token */
    struct beams *b;
    struct request request;
    struct candidate top[REQUEST_LOGPROBS_MAX];
    int n_top;
};

struct beams {
    struct beam_engine engine;
    struct beam_options options;
    struct seq *answers[BEAMS_MAX];
    int n_answer, n_prompt, n_limit;
    struct beam live[BEAMS_MAX], next[BEAMS_MAX], done[BEAMS_MAX + 1]; /* done: best first, and room for one more */
    int n_live, n_next, n_done;
    struct ask asks[BEAMS_MAX];
    int n_open; /* asks that have not ended */
    struct finish_event failure;
    bool failed;
    char message[512]; /* as struct error has */
    uint64_t submit_ns, first_ns;
    void *storage;
};

/* ---- life ---- */

static void lay_out(struct beams *b)
{
    struct beam *const groups[] = {b->live, b->next, b->done};
    const int counts[] = {b->options.width, b->options.width, b->options.width + 1};
    int32_t *ids = b->storage;
    for (int g = 0; g < 3; g++)
        for (int i = 0; i < counts[g]; i++) {
            groups[g][i].ids = ids;
            groups[g][i].logprobs = (float *)(ids + b->n_limit);
            ids += (size_t)2 * (size_t)b->n_limit;
        }
}

enum status beams_create(struct beams **out, const struct beam_engine *engine, struct seq *const *answers, int n,
                         const struct beam_options *o, struct error *err)
{
    *out = NULL;
    const struct seq *s = answers[0];
    if (o->width < n || o->width > BEAMS_MAX || n < 1)
        return fail(err, ST_INVALID, "beam width %d: expected at least the %d answers wanted, at most %d", o->width, n,
                    BEAMS_MAX);
    if (!(fabs(o->length_penalty) <= 100))
        return fail(err, ST_INVALID, "length penalty %g: expected -100 to 100", o->length_penalty);
    if (s->r->n_stop || s->r->echo_logprobs || s->r->grammar || s->n_limit == s->n_prompt)
        return fail(
            err, ST_INVALID,
            "beam search takes no stop strings, no grammar and not the prompt's log-probabilities, and needs room "
            "for a token");
    struct beams *b = mem_alloc_zero(1, sizeof *b);
    void *storage = b ? mem_alloc_zero(beams_bytes(o->width, s->n_limit), 1) : NULL;
    if (!storage) {
        mem_free(b);
        return fail_nomem(err, "beam search");
    }
    *b = (struct beams){.engine = *engine,
                        .options = *o,
                        .n_answer = n,
                        .n_prompt = s->n_prompt,
                        .n_limit = s->n_limit,
                        .submit_ns = s->submit_ns,
                        .storage = storage};
    memcpy(b->answers, answers, (size_t)n * sizeof *answers);
    lay_out(b);
    b->n_live = 1;
    b->live[0].n_ids = s->n_prompt;
    memcpy(storage, s->ids, (size_t)s->n_prompt * sizeof *s->ids); /* the ids of live[0] lie first */
    *out = b;
    return ST_OK;
}

void beams_destroy(struct beams *b)
{
    if (b)
        mem_free(b->storage);
    mem_free(b);
}

/* ---- the end ---- */

/* The answer's own sequence takes the ids one by one, as if it had drawn them: text and events are its. */
static void tell(struct beams *b, struct seq *s, const struct beam *beam, struct finish_event *end)
{
    s->n_done = b->n_prompt;
    seq_read_prompt(s, b->engine.x);
    for (int i = b->n_prompt; beam && i < beam->n_ids; i++) {
        struct sample sample = {.id = beam->ids[i], .logprob = beam->logprobs[i]};
        end->finish = seq_take(s, b->engine.x, &sample, &end->stop_text);
    }
    if (end->finish == FINISH_NONE) /* the search ended before this beam did: nothing better could come */
        end->finish = FINISH_LENGTH;
    if (end->finish == FINISH_ERROR) {
        end->status = s->failure.status;
        end->message = s->failure.text;
    }
    end->n_prompt = s->n_prompt;
    end->n_output = s->n_ids - s->n_prompt;
    end->logprob = s->logprob;
}

static void finish_all(struct beams *b)
{
    struct beam_engine engine = b->engine;
    uint64_t now = executor_now(engine.x);
    for (int i = 0; i < b->n_answer; i++) {
        struct seq *s = b->answers[i];
        struct finish_event end = {0};
        bool canceled = __atomic_load_n(&s->canceled, __ATOMIC_RELAXED);
        if (b->failed || canceled) {
            end = b->failed ? b->failure : (struct finish_event){.finish = FINISH_CANCELED, .status = ST_CANCELED};
            end.message = b->failed ? b->message : "canceled";
            end.n_prompt = s->n_prompt;
        } else
            tell(b, s, i < b->n_done ? &b->done[i] : NULL, &end);
        end.seed = s->r->sampling.seed;
        end.prefill_s = seconds_between(b->submit_ns, b->first_ns ? b->first_ns : now);
        end.decode_s = seconds_between(b->first_ns, now);
        engine.end(engine.e, s, &end);
    }
    beams_destroy(b);
}

/* ---- a step ---- */

static double score_of(const struct beams *b, double sum, int n_ids)
{
    return sum / fn_pow(n_ids - b->n_prompt, b->options.length_penalty);
}

static void grow(struct beam *to, const struct beam *from, const struct choice *c)
{
    memcpy(to->ids, from->ids, (size_t)from->n_ids * sizeof *to->ids);
    memcpy(to->logprobs, from->logprobs, (size_t)from->n_ids * sizeof *to->logprobs);
    to->ids[from->n_ids] = c->id;
    to->logprobs[from->n_ids] = c->logprob;
    to->n_ids = from->n_ids + 1;
    to->sum = c->sum;
}

/* Into its place among the best `width` that are complete. */
static void complete(struct beams *b, const struct beam *from, const struct choice *c)
{
    struct beam *slot = &b->done[b->n_done], spare = *slot;
    double score = score_of(b, c->sum, from->n_ids + 1);
    if (b->n_done == b->options.width && score <= b->done[b->n_done - 1].score)
        return;
    grow(&spare, from, c);
    spare.score = score;
    int at = b->n_done;
    for (; at > 0 && b->done[at - 1].score < score; at--)
        b->done[at] = b->done[at - 1];
    b->done[at] = spare;
    b->n_done += b->n_done < b->options.width;
}

static int compare_choice(const void *x, const void *y)
{
    const struct choice *a = x, *b = y;
    if (a->sum != b->sum)
        return a->sum < b->sum ? 1 : -1;
    return a->beam != b->beam ? a->beam - b->beam : a->id - b->id;
}

/* From the asks' answers: what is complete, what lives on. */
static void select_beams(struct beams *b)
{
    struct choice choices[BEAMS_MAX * REQUEST_LOGPROBS_MAX];
    int n = 0, width = b->options.width;
    for (int i = 0; i < b->n_live; i++)
        for (int k = 0; k < b->asks[i].n_top; k++) {
            const struct candidate *c = &b->asks[i].top[k];
            choices[n++] = (struct choice){i, c->id, c->logit, b->live[i].sum + (double)c->logit};
        }
    qsort(choices, (size_t)n, sizeof *choices, compare_choice);
    b->n_next = 0;
    for (int rank = 0; rank < n && rank < 2 * width && b->n_next < width; rank++) {
        const struct choice *c = &choices[rank];
        const struct beam *from = &b->live[c->beam];
        bool eos = executor_is_eos(b->engine.x, c->id) && !b->answers[0]->r->sampling.ignore_eos;
        if (eos && rank < width)
            complete(b, from, c);
        else if (!eos)
            grow(&b->next[b->n_next++], from, c);
    }
    for (int i = 0; i < width; i++) {
        struct beam swap = b->live[i];
        b->live[i] = b->next[i];
        b->next[i] = swap;
    }
    b->n_live = b->n_next;
}

static bool is_over(const struct beams *b)
{
    if (b->n_live == 0 || b->live[0].n_ids == b->n_limit)
        return true;
    if (b->n_done < b->options.width)
        return false;
    return b->options.early_stopping || score_of(b, b->live[0].sum, b->live[0].n_ids) <= b->done[b->n_done - 1].score;
}

/* Who lives at the limit is complete as it stands. */
static void complete_live(struct beams *b)
{
    for (int i = 0; i < b->n_live && b->live[i].n_ids == b->n_limit; i++) {
        struct beam before = b->live[i];
        before.n_ids--;
        complete(b, &before,
                 &(struct choice){.id = b->live[i].ids[before.n_ids],
                                  .logprob = b->live[i].logprobs[before.n_ids],
                                  .sum = b->live[i].sum});
    }
}

static void fail_search(struct beams *b, const struct finish_event *why)
{
    if (b->failed)
        return;
    b->failed = true;
    b->failure = *why;
    snprintf(b->message, sizeof b->message, "%s", why->message ? why->message : "the search was stopped");
}

bool beams_abandoned(const struct beams *b)
{
    for (int i = 0; i < b->n_answer; i++)
        if (!__atomic_load_n(&b->answers[i]->canceled, __ATOMIC_RELAXED))
            return false;
    return true;
}

static void submit_asks(struct beams *b);

static void on_token(void *ctx, const struct token_event *e)
{
    struct ask *a = ctx;
    a->n_top = e->n_top;
    if (e->n_top)
        memcpy(a->top, e->top, (size_t)e->n_top * sizeof *e->top);
}

static void on_finish(void *ctx, const struct finish_event *e)
{
    struct ask *a = ctx;
    struct beams *b = a->b;
    if (e->finish != FINISH_LENGTH)
        fail_search(b, e);
    if (--b->n_open)
        return;
    b->first_ns = b->first_ns ? b->first_ns : executor_now(b->engine.x);
    if (!b->failed)
        select_beams(b);
    if (b->failed || is_over(b)) {
        complete_live(b);
        finish_all(b);
    } else
        submit_asks(b);
}

static enum status submit_one(struct beams *b, int i, struct error *err)
{
    struct ask *a = &b->asks[i];
    struct seq *s;
    *a = (struct ask){.b = b, .request = *b->answers[0]->r};
    struct request *r = &a->request;
    r->prompt = b->live[i].ids;
    r->n_prompt = b->live[i].n_ids;
    r->ctx = a;
    r->on_token = on_token;
    r->on_finish = on_finish;
    sampling_defaults(&r->sampling);
    r->sampling.temperature = 0;
    r->sampling.max_tokens = 1;
    r->sampling.ignore_eos = true;
    r->sampling.has_seed = true;
    r->sampling.n_logprobs = 2 * b->options.width;
    TRY(seq_create(&s, r, b->engine.x, err));
    s->submit_ns = b->submit_ns; /* a search keeps its place */
    s->search = b;
    if (b->engine.link(b->engine.e, s))
        return ST_OK;
    seq_free(s);
    return fail(err, ST_CANCELED, "the engine is shutting down");
}

/* On the engine's thread: no ask ends before all are submitted. */
static void submit_asks(struct beams *b)
{
    struct error err;
    b->n_open = b->n_live;
    for (int i = 0, n = b->n_live; i < n; i++) {
        enum status st = submit_one(b, i, &err);
        if (st != ST_OK) {
            bool stops = st == ST_CANCELED;
            fail_search(b, &(struct finish_event){
                               .finish = stops ? FINISH_CANCELED : FINISH_ERROR, .status = st, .message = err.text});
            b->n_open--;
        }
    }
    if (b->n_open == 0)
        finish_all(b);
}

enum status beams_begin(struct beams *b, struct error *err)
{
    b->n_open = 1;
    return submit_one(b, 0, err);
}
