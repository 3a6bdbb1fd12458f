/* core - schedule, run, commit
 *
 * One thread owns all of it. Sampling is spread over the pool, one row of logits an item; each row depends on nothing
 * but itself and its sequence, so that neither threads nor companions can change what is drawn.
 */
#include "engine/beam.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

#include <sys/mman.h>

void *alloc_untouched(size_t size, void **base)
{
    enum { HUGE_PAGE = 2 << 20 };
    size_t total, align = size >= HUGE_PAGE ? HUGE_PAGE : 64;
    *base = size_add(&total, size, align) ? mem_alloc_zero(1, total) : NULL;
    if (!*base)
        return NULL;
    uintptr_t at = ((uintptr_t)*base + align - 1) & ~(uintptr_t)(align - 1);
    if (align == HUGE_PAGE)
        madvise((void *)at, size & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE);
    return (void *)at;
}

uint64_t executor_now(const struct executor *x)
{
    return x->clock ? x->clock(x->ctx) : clock_ns();
}

double executor_head_rows(const struct model *m)
{
    struct model_plan plan;
    model_plan_of(&plan, m, 1);
    return (double)plan.head_flops / (double)plan.body_flops;
}

enum status core_init(struct core *c, const struct executor *x, const struct engine_options *o, struct error *err)
{
    *c = (struct core){.x = *x};
    TRY(sched_init(&c->sched, o, x->n_block, err));
    c->sched.cost.head_rows = x->head_rows;
    c->sched.kv.copy_block = x->copy_block;
    c->sched.kv.copy_ctx = x->ctx;
    c->sched.kv.n_ctx = x->n_ctx;
    size_t n = (size_t)sched_logits_max(&c->sched), size;
    c->n_scratch = pool_threads(x->pool);
    c->samples = mem_alloc_zero(n, sizeof *c->samples);
    c->inputs = mem_alloc_zero(n, sizeof *c->inputs);
    c->scratch = mem_alloc_zero((size_t)c->n_scratch, sizeof *c->scratch);
    c->logits =
        size_mul(&size, n * sizeof *c->logits, (size_t)x->n_vocab) ? alloc_untouched(size, &c->logits_base) : NULL;
    enum status st = c->samples && c->inputs && c->scratch && c->logits ? ST_OK : fail_nomem(err, "engine");
    if (st == ST_OK)
        st = masker_create(&c->masker, c->sched.max_sequences, err);
    for (int i = 0; i < c->n_scratch && st == ST_OK; i++)
        st = sampler_scratch_init(&c->scratch[i], x->n_vocab, err);
    if (st != ST_OK)
        core_free(c);
    return st;
}

enum status core_keep_on_disk(struct core *c, const struct engine_options *o, void (*on_room)(void *ctx), void *ctx,
                              struct error *err)
{
    struct kv_pool *kv = &c->sched.kv;
    const struct spill_options how = {.folder = o->kv_spill,
                                      .bytes_max = o->kv_spill_bytes,
                                      .block_bytes = c->x.block_bytes,
                                      .identify = c->x.identify,
                                      .identify_ctx = c->x.identify_ctx,
                                      .on_room = on_room,
                                      .ctx = ctx};
    kv->save_block = c->x.save_block;
    kv->load_block = c->x.load_block;
    kv->loading = mem_alloc(c->x.block_bytes);
    return kv->loading ? spill_open(&kv->spill, &kv->secret, &how, err) : fail_nomem(err, "KV blocks on disk");
}

void core_free(struct core *c)
{
    spill_close(c->sched.kv.spill);
    mem_free(c->sched.kv.loading);
    for (int i = 0; c->scratch && i < c->n_scratch; i++)
        sampler_scratch_free(&c->scratch[i]);
    mem_free(c->scratch);
    mem_free(c->samples);
    mem_free(c->inputs);
    mem_free(c->logits_base);
    masker_destroy(c->masker);
    sched_free(&c->sched);
    *c = (struct core){0};
}

/* ---- the end of a sequence ---- */

static void core_end(struct core *c, struct seq *s, enum finish finish, struct str stop_text, enum status status,
                     const char *message)
{
    uint64_t now = executor_now(&c->x);
    sched_remove(&c->sched, s);
    struct finish_event end = {
        .finish = finish,
        .stop_text = stop_text,
        .status = status,
        .message = message,
        .n_prompt = s->n_prompt,
        .n_output = s->n_ids - s->n_prompt,
        .n_cached = s->n_cached,
        .logprob = s->logprob,
        .seed = s->r->sampling.seed,
        .queue_s = seconds_between(s->submit_ns, s->start_ns ? s->start_ns : now),
        .prefill_s = seconds_between(s->start_ns, s->first_ns ? s->first_ns : now),
        .decode_s = seconds_between(s->first_ns, now),
    };
    c->on_end(c->ctx, s, &end);
}

/* ---- sample ---- */

/* A row's sample follows ids 0 .. position, whether they are the sequence's or proposed for it. */
static void fill_inputs(struct core *c, const struct batch *b)
{
    for (int i = 0; i < b->model.n_span; i++) {
        const struct batch_item *item = &b->items[i];
        struct seq *s = item->seq;
        int at = item->logit0;
        for (int position = s->n_done; position < s->n_done + item->n_row; position++) {
            bool draws = position >= s->n_ids - 1;
            if (!draws && !seq_wants_echo(s, position))
                continue;
            int row = position - (s->n_ids - 1); /* of the masks */
            c->inputs[at] = (struct sampler_in){
                .how = &s->r->sampling,
                .logits = c->logits + (size_t)at * (size_t)c->x.n_vocab,
                .n_vocab = c->x.n_vocab,
                .ids = s->ids,
                .n_prompt = s->n_prompt,
                .n_ids = draws ? position + 1 : s->n_ids,
                .choice = s->r->choice,
                .eos = c->x.eos,
                .n_eos = c->x.n_eos,
                .mask = draws && s->grammar && row < s->n_mask ? s->masks + (size_t)row * (size_t)s->n_mask_word : NULL,
                .given = draws ? -1 : s->ids[position + 1],
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
    return __atomic_load_n(&s->canceled, __ATOMIC_RELAXED) || (s->search && beams_abandoned(s->search)) ||
           (interrupt && __atomic_load_n(interrupt, __ATOMIC_RELAXED));
}

static void end_damaged(struct core *c, struct seq *s)
{
    core_end(c, s, FINISH_ERROR, no_stop, ST_CORRUPT,
             "the model gave NaN or infinity: its weights may be damaged, or need --exact");
}

/* Takes samples as long as they are what was proposed, and the one after. False: the sequence has ended. */
static bool take_samples(struct core *c, struct seq *s, const struct sample *samples, int n_draft)
{
    int n = 0;
    for (bool confirmed = true; confirmed; n++) {
        struct str stop_text;
        int32_t proposed = n < n_draft ? s->ids[s->n_ids] : -1;
        if (samples[n].id < 0) {
            end_damaged(c, s);
            return false;
        }
        if (s->grammar && n >= s->n_mask) { /* after a proposed end there is none, but then nothing comes here */
            core_end(c, s, FINISH_ERROR, no_stop, s->failure.status, s->failure.text);
            return false;
        }
        confirmed = samples[n].id == proposed;
        c->accepted += confirmed;
        c->output_tokens++;
        enum finish finish = seq_take(s, &c->x, &samples[n], &stop_text);
        if (finish == FINISH_NONE)
            continue;
        sched_commit(&c->sched, s, n); /* before the end: others may want them */
        if (finish == FINISH_ERROR)
            core_end(c, s, finish, no_stop, s->failure.status, s->failure.text);
        else
            core_end(c, s, finish, stop_text, ST_OK, NULL);
        return false;
    }
    sched_commit(&c->sched, s, n - 1);
    return true;
}

/* The prompt's log-probabilities that this step gave. False: the sequence has ended. */
static bool echo_samples(struct core *c, struct seq *s, const struct sample *samples, int n)
{
    for (int i = 0; i < n; i++)
        if (samples[i].id < 0) {
            end_damaged(c, s);
            return false;
        }
    if (s->r->echo_logprobs && s->n_echoed == 0)
        seq_echo(s, NULL);
    for (int i = 0; i < n; i++)
        seq_echo(s, &samples[i]);
    return true;
}

/* An item that reached the newest id has its sample, and those of the proposed ids, last; before stand the prompt's. */
static void commit_item(struct core *c, const struct batch_item *item)
{
    struct seq *s = item->seq;
    const struct sample *samples = c->samples + item->logit0;
    int n_known = item->n_row - item->n_draft;
    bool reached = s->n_done + n_known == s->n_ids;
    int n_echo = item->n_logit - item->n_draft - reached;
    sched_commit(&c->sched, s, n_known);
    seq_read_prompt(s, &c->x);
    if (is_canceled(s)) /* its blocks return at the end of this very step */
        return;
    if (reached && samples[n_echo].id < 0) {
        end_damaged(c, s);
        return;
    }
    if (!echo_samples(c, s, samples, n_echo) || !reached)
        return;
    if (s->first_ns == 0) {
        s->first_ns = executor_now(&c->x);
        c->prompt_tokens += (uint64_t)s->n_prompt;
    }
    c->drafted += (uint64_t)item->n_draft;
    s->draft.n_proposed = item->n_draft; /* some may have found no room */
    s->n_draft = 0;
    if (s->n_ids == s->n_limit) /* echo_logprobs alone */
        core_end(c, s, FINISH_LENGTH, no_stop, ST_OK, NULL);
    else if (take_samples(c, s, samples + n_echo, item->n_draft))
        kv_truncate(&c->sched.kv, &s->blocks, s->n_ids);
}

/* No row is spent on who has left, or is too late. */
static void end_doomed(struct core *c, struct seq_list *l)
{
    uint64_t now = executor_now(&c->x);
    for (struct seq *s = l->first, *next; s; s = next) {
        next = s->next;
        if (is_canceled(s))
            core_end(c, s, FINISH_CANCELED, no_stop, ST_CANCELED, "canceled");
        else if (s->r->deadline_ns && now >= s->r->deadline_ns)
            core_end(c, s, FINISH_ERROR, no_stop, ST_TIMEOUT,
                     s->running ? "the deadline passed before the answer was complete"
                                : "the deadline passed while the request was waiting");
    }
}

static void count_step(struct core *c, int n_row)
{
    int size = 0;
    for (int most = 1; size < ENGINE_STEP_SIZES - 1 && n_row > most; size++)
        most = most == 1 ? 8 : 2 * most;
    c->step_sizes[size]++;
    c->step_tokens += (uint64_t)n_row;
    c->steps++;
}

bool core_step(struct core *c)
{
    thread_mark("engine", "schedules a step");
    end_doomed(c, &c->sched.waiting);
    end_doomed(c, &c->sched.running);
    if (c->draft)
        c->draft(c->ctx, &c->sched.running);
    uint64_t begin = executor_now(&c->x);
    const struct batch *b = sched_next(&c->sched, begin);
    if (b->model.n_row) {
        if (c->on_scheduled)
            c->on_scheduled(c->ctx);
        thread_mark("engine", "runs the model");
        masker_begin(c->masker, b);
        c->x.forward(c->x.ctx, &b->model, c->logits);
        masker_end(c->masker);
        thread_mark("engine", "samples and tells the tokens");
        fill_inputs(c, b);
        pool_run(c->x.pool, sample_item, c, b->model.n_logit);
        for (int i = 0; i < b->model.n_span; i++)
            commit_item(c, &b->items[i]);
        count_step(c, b->model.n_row);
        sched_learn(&c->sched, seconds_between(begin, executor_now(&c->x)));
    }
    end_doomed(c, &c->sched.running); /* who left meanwhile: the blocks return within this step */
    end_doomed(c, &c->sched.waiting);
    return b->model.n_row > 0;
}
