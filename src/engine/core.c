/* core - schedule, run, commit
 *
 * One thread owns all of it. Sampling is spread over the pool, one row of logits an item; each row depends on nothing
 * but itself and its sequence, so that neither threads nor companions can change what is drawn.
 */
#include "engine/engine_private.h"

#include "base/clock.h"
#include "base/mem.h"

enum status core_init(struct core *c, const struct executor *x, const struct engine_options *o, struct error *err)
{
    *c = (struct core){.x = *x};
    TRY(sched_init(&c->sched, o, x->n_block, err));
    size_t n = (size_t)sched_logits_max(&c->sched), size;
    c->n_scratch = pool_threads(x->pool);
    c->samples = mem_alloc_zero(n, sizeof *c->samples);
    c->inputs = mem_alloc_zero(n, sizeof *c->inputs);
    c->scratch = mem_alloc_zero((size_t)c->n_scratch, sizeof *c->scratch);
    c->logits =
        size_mul(&size, n * sizeof *c->logits, (size_t)x->n_vocab) ? alloc_untouched(size, &c->logits_base) : NULL;
    enum status st = c->samples && c->inputs && c->scratch && c->logits ? ST_OK : fail_nomem(err, "engine");
    for (int i = 0; i < c->n_scratch && st == ST_OK; i++)
        st = sampler_scratch_init(&c->scratch[i], x->n_vocab, err);
    if (st != ST_OK)
        core_free(c);
    return st;
}

void core_free(struct core *c)
{
    for (int i = 0; c->scratch && i < c->n_scratch; i++)
        sampler_scratch_free(&c->scratch[i]);
    mem_free(c->scratch);
    mem_free(c->samples);
    mem_free(c->inputs);
    mem_free(c->logits_base);
    sched_free(&c->sched);
    *c = (struct core){0};
}

/* ---- the end of a sequence ---- */

static double seconds(uint64_t from, uint64_t to)
{
    return from && to > from ? (double)(to - from) * 1e-9 : 0;
}

void core_end(struct core *c, struct seq *s, enum finish finish, struct str stop_text, enum status status,
              const char *message)
{
    uint64_t now = clock_ns();
    sched_remove(&c->sched, s);
    struct finish_event end = {
        .finish = finish,
        .stop_text = stop_text,
        .status = status,
        .message = message,
        .n_prompt = s->n_prompt,
        .n_output = s->n_ids - s->n_prompt,
        .seed = s->r->sampling.seed,
        .queue_s = seconds(s->submit_ns, s->start_ns ? s->start_ns : now),
        .prefill_s = seconds(s->start_ns, s->first_ns ? s->first_ns : now),
        .decode_s = seconds(s->first_ns, now),
    };
    c->on_end(c->ctx, s, &end);
}

/* ---- sample ---- */

static void fill_inputs(struct core *c, const struct batch *b)
{
    for (int i = 0; i < b->model.n_span; i++) {
        const struct batch_item *item = &b->items[i];
        struct seq *s = item->seq;
        int at = item->logit0;
        for (int position = s->n_done; position < s->n_done + item->n_row; position++) {
            bool newest = position == s->n_ids - 1;
            if (!newest && !seq_wants_echo(s, position))
                continue;
            c->inputs[at] = (struct sampler_in){
                .how = &s->r->sampling,
                .logits = c->logits + (size_t)at * (size_t)c->x.n_vocab,
                .n_vocab = c->x.n_vocab,
                .ids = s->ids,
                .n_prompt = s->n_prompt,
                .n_ids = s->n_ids,
                .choice = s->r->choice,
                .eos = c->x.eos,
                .n_eos = c->x.n_eos,
                .given = newest ? -1 : s->ids[position + 1],
            };
            at++;
        }
    }
}

static void sample_item(void *ctx, int item, int thread)
{
    struct core *c = ctx;
    sampler_pick(&c->samples[item], &c->inputs[item], &c->scratch[thread]);
}

/* ---- commit ---- */

static const struct str no_stop = {NULL, 0};

static bool is_canceled(struct seq *s)
{
    const volatile int *interrupt = s->r->interrupt;
    return __atomic_load_n(&s->canceled, __ATOMIC_RELAXED) ||
           (interrupt && __atomic_load_n(interrupt, __ATOMIC_RELAXED));
}

/* The last sample of an item is the new id's when the item reached the newest id; those before are prompt ids'. */
static void commit_item(struct core *c, const struct batch_item *item)
{
    struct seq *s = item->seq;
    struct str stop_text;
    const struct sample *samples = c->samples + item->logit0;
    s->n_done += item->n_row;
    seq_read_prompt(s, &c->x);
    bool reached = s->n_done == s->n_ids;
    int n_echo = item->n_logit - reached;
    if (is_canceled(s)) /* its blocks return at the end of this very step */
        return;
    for (int i = 0; i < item->n_logit; i++)
        if (samples[i].id < 0) {
            core_end(c, s, FINISH_ERROR, no_stop, ST_CORRUPT,
                     "the model gave NaN or infinity: its weights may be damaged, or need --exact");
            return;
        }
    if (s->r->echo_logprobs && s->n_echoed == 0)
        seq_echo(s, NULL);
    for (int i = 0; i < n_echo; i++)
        seq_echo(s, &samples[i]);
    if (!reached)
        return;
    if (s->first_ns == 0) {
        s->first_ns = clock_ns();
        c->prompt_tokens += (uint64_t)s->n_prompt;
    }
    if (s->n_ids == s->n_limit) { /* echo_logprobs alone */
        core_end(c, s, FINISH_LENGTH, no_stop, ST_OK, NULL);
        return;
    }
    c->output_tokens++;
    enum finish finish = seq_take(s, &c->x, &samples[n_echo], &stop_text);
    if (finish == FINISH_ERROR)
        core_end(c, s, finish, no_stop, ST_NOMEM, "out of memory");
    else if (finish != FINISH_NONE)
        core_end(c, s, finish, stop_text, ST_OK, NULL);
}

static void end_canceled(struct core *c, struct seq_list *l)
{
    for (struct seq *s = l->first, *next; s; s = next) {
        next = s->next;
        if (is_canceled(s))
            core_end(c, s, FINISH_CANCELED, no_stop, ST_CANCELED, "canceled");
    }
}

bool core_step(struct core *c)
{
    end_canceled(c, &c->sched.waiting); /* no row is spent on them */
    end_canceled(c, &c->sched.running);
    const struct batch *b = sched_next(&c->sched);
    if (b->model.n_row) {
        if (c->on_scheduled)
            c->on_scheduled(c->ctx);
        c->x.forward(c->x.ctx, &b->model, c->logits);
        fill_inputs(c, b);
        pool_run(c->x.pool, sample_item, c, b->model.n_logit);
        for (int i = 0; i < b->model.n_span; i++)
            commit_item(c, &b->items[i]);
        c->steps++;
    }
    end_canceled(c, &c->sched.running); /* who left meanwhile: the blocks return within this step */
    end_canceled(c, &c->sched.waiting);
    return b->model.n_row > 0;
}
