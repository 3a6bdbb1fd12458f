/* engine - the thread, and how others reach it
 *
 *   any thread: engine_submit -> inbox; engine_cancel -> a flag     (under the lock)
 *   engine thread: take_inbox -> core_step -> callbacks             (callbacks without the lock)
 *
 * Invariants
 * 1. `live` lists every sequence from submit until its on_finish is about to be called; engine_cancel looks there.
 * 2. The scheduler, the KV blocks and all sequences' content belong to the engine thread alone.
 */
#include "engine/beam.h"
#include "engine/draft_model.h"
#include "engine/intake.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/thread.h"

#include <pthread.h>
#include <unistd.h>

struct engine {
    struct embedder *embedder; /* of a model that embeds or scores: then there is nothing else but the bundle */
    struct core core;
    struct bundle *bundle;
    struct model_run *run;
    void *kv_base;
    struct pool *own_pool;
    struct drafter *drafter; /* NULL: no speculation */
    struct draft_model *draft_model;
    struct bundle *draft_bundle;
    struct intake in;
    /* under its lock */
    struct seq *inbox_first, *inbox_last, *live;
    int n_inbox;
    uint64_t epoch;              /* of the weights */
    bool cancel_asked, has_room; /* has_room: on disk, or for what is on its way there */
    struct engine_stats stats;
};

/* ---- the engine thread ---- */

static void live_remove(struct engine *e, struct seq *s)
{
    *(s->live_prev ? &s->live_prev->live_next : &e->live) = s->live_next;
    if (s->live_next)
        s->live_next->live_prev = s->live_prev;
}

static void on_end(void *ctx, struct seq *s, const struct finish_event *end)
{
    struct engine *e = ctx;
    struct request *r = s->r;
    struct finish_event told = *end;
    struct error failure = s->failure; /* the sequence goes first: it needs the request's grammar */
    if (end->message == s->failure.text)
        told.message = failure.text;
    pthread_mutex_lock(&e->in.lock);
    live_remove(e, s);
    e->stats.finished[end->finish] += !s->search;
    intake_leave(&e->in);
    pthread_mutex_unlock(&e->in.lock);
    if (e->drafter)
        drafter_forget(e->drafter, s);
    seq_free(s);
    if (r->on_finish)
        r->on_finish(r->ctx, &told);
    pthread_mutex_lock(&e->in.lock);
    intake_left(&e->in);
    pthread_mutex_unlock(&e->in.lock);
}

static void take_inbox(struct engine *e) /* under the lock */
{
    e->core.sched.kv.epoch = e->epoch;
    for (struct seq *s; (s = e->inbox_first);) {
        e->inbox_first = s->next;
        s->next = NULL;
        s->order = s->id;
        sched_add(&e->core.sched, s);
    }
    e->inbox_last = NULL;
    e->n_inbox = 0;
    e->stats.waiting = e->core.sched.waiting.count; /* never seen as nowhere until they are scheduled */
    e->cancel_asked = false;
    for (struct seq *s = e->in.stopping ? e->live : NULL; s; s = s->live_next)
        __atomic_store_n(&s->canceled, true, __ATOMIC_RELAXED);
}

static void publish_stats(struct engine *e) /* under the lock */
{
    const struct core *c = &e->core;
    e->stats.running = c->sched.running.count;
    e->stats.waiting = c->sched.waiting.count;
    e->stats.blocks_free = c->sched.kv.n_free;
    e->stats.steps = c->steps;
    e->stats.prompt_tokens = c->prompt_tokens;
    e->stats.output_tokens = c->output_tokens;
    e->stats.prefix_queries = c->sched.kv.stats.queries;
    e->stats.prefix_hits = c->sched.kv.stats.hits;
    if (c->sched.kv.spill) {
        struct spill_stats on_disk;
        spill_stats(c->sched.kv.spill, &on_disk);
        e->stats.spill_written = on_disk.written;
        e->stats.spill_read = on_disk.read;
        e->stats.spill_damaged = on_disk.damaged;
    }
    memcpy(e->stats.step_sizes, c->step_sizes, sizeof c->step_sizes);
    e->stats.step_tokens = c->step_tokens;
    e->stats.preemptions = c->sched.preemptions;
    e->stats.drafted = c->drafted;
    e->stats.accepted = c->accepted;
    e->stats.last_step_ns = clock_ns();
}

static void propose(void *ctx, const struct seq_list *running)
{
    struct engine *e = ctx;
    drafter_propose(e->drafter, running, &e->core.sched.cost);
}

static void on_scheduled(void *ctx)
{
    struct engine *e = ctx;
    pthread_mutex_lock(&e->in.lock);
    publish_stats(e);
    pthread_mutex_unlock(&e->in.lock);
}

static void on_room(void *ctx) /* on the spill's thread */
{
    struct engine *e = ctx;
    pthread_mutex_lock(&e->in.lock);
    e->has_room = true;
    pthread_cond_signal(&e->in.wake);
    pthread_mutex_unlock(&e->in.lock);
}

static void *engine_main(void *arg)
{
    struct engine *e = arg;
    bool work = true;
    pthread_mutex_lock(&e->in.lock);
    for (;;) {
        publish_stats(e);
        if (!work)
            thread_mark("engine", "waits for requests");
        while (!work && !e->inbox_first && !e->cancel_asked && !e->in.stopping && !e->has_room)
            pthread_cond_wait(&e->in.wake, &e->in.lock);
        e->has_room = false;
        if (e->in.stopping && e->in.n_live == 0)
            break;
        take_inbox(e);
        pthread_mutex_unlock(&e->in.lock);
        work = core_step(&e->core);
        work |= prefix_keep(&e->core.sched.kv);
        pthread_mutex_lock(&e->in.lock);
    }
    pthread_mutex_unlock(&e->in.lock);
    return NULL;
}

/* ---- life ---- */

static void forward_model(void *ctx, const struct model_batch *b, real *logits)
{
    model_forward(ctx, b, logits);
}

static void save_model_block(void *ctx, void *to, int32_t from)
{
    model_run_save_block(ctx, to, from);
}

static void load_model_block(void *ctx, int32_t to, const void *from)
{
    model_run_load_block(ctx, to, from);
}

static enum status identify_model(void *bundle, char text[SHA256_TEXT], const bool *stop, struct error *err)
{
    struct fingerprint f;
    TRY(bundle_fingerprint_unless(&f, bundle, NULL, stop, err));
    memcpy(text, f.text, sizeof f.text);
    return ST_OK;
}

static void copy_model_block(void *ctx, int32_t to, int32_t from)
{
    model_run_copy_block(ctx, to, from);
}

static enum status begin_drafts(struct engine *e, const struct engine_options *o, struct error *err)
{
    const struct executor *x = &e->core.x;
    int sequences = e->core.sched.max_sequences;
    if (o->draft)
        TRY(draft_model_create(&e->draft_model, o->draft, x, x->tokenizer, sequences, err));
    TRY(drafter_create(&e->drafter, e->draft_model ? &e->draft_model->x : NULL, o->draft_tokens, sequences, err));
    e->core.draft = propose;
    return ST_OK;
}

enum status engine_create_on(struct engine **out, const struct executor *x, const struct engine_options *o,
                             struct error *err)
{
    *out = NULL;
    struct engine *e = mem_alloc_zero(1, sizeof *e);
    if (!e)
        return fail_nomem(err, "engine");
    enum status st = core_init(&e->core, x, o, err);
    if (st != ST_OK) {
        mem_free(e);
        return st;
    }
    e->core.ctx = e;
    e->core.on_end = on_end;
    e->core.on_scheduled = on_scheduled;
    e->bundle = x->bundle;
    e->stats.n_ctx = seq_context(x);
    e->stats.blocks_total = x->n_block;
    e->stats.max_sequences = e->core.sched.max_sequences;
    e->stats.kv_type = x->bundle ? model_kv_names[model_kv_type(x->bundle->model)] : NULL;
    intake_init(&e->in, engine_live_max(o));
    st = o->draft_tokens > 0 ? begin_drafts(e, o, err) : ST_OK;
    if (st == ST_OK && o->kv_spill)
        st = core_keep_on_disk(&e->core, o, on_room, e, err);
    if (st == ST_OK)
        st = intake_start(&e->in, engine_main, e, err);
    if (st == ST_OK)
        *out = e;
    else
        engine_destroy(e);
    return st;
}

static int choose_blocks(const struct model *m, const struct engine_options *o, int n_ctx)
{
    uint64_t block = model_kv_block_bytes(m), bytes = o->kv_bytes, per_context = (uint64_t)kv_blocks_for(n_ctx);
    uint64_t sequences = o->max_sequences > 0 ? (uint64_t)o->max_sequences : 64, most = per_context * sequences;
    if (bytes == 0) {
        bytes = 4 * per_context * block;
        uint64_t quarter = memory_available() / 4;
        if (quarter && quarter < bytes)
            bytes = quarter;
    }
    uint64_t n = bytes / block;
    n = n < 1 ? 1 : n > most ? most : n;
    return n > INT32_MAX / KV_BLOCK ? INT32_MAX / KV_BLOCK : (int)n;
}

static void find_eos(struct executor *x, const struct bundle *b)
{
    for (int32_t id = 0; id < x->n_vocab; id++)
        if (bundle_is_eos(b, id) && x->n_eos < (int)(sizeof x->eos / sizeof *x->eos))
            x->eos[x->n_eos++] = id;
}

static enum status create_embedding(struct engine **out, struct bundle *bundle, const struct engine_options *options,
                                    struct error *err)
{
    struct engine *e = mem_alloc_zero(1, sizeof *e);
    if (!e)
        return fail_nomem(err, "engine");
    e->bundle = bundle;
    enum status st = embedder_create(&e->embedder, bundle, options, err);
    if (st == ST_OK)
        *out = e;
    else
        mem_free(e);
    return st;
}

static enum status create_engine(struct engine **out, struct bundle *bundle, const struct engine_options *options,
                                 struct error *err)
{
    const struct model_config *config = model_config(bundle->model);
    if (config->task != TASK_GENERATE)
        return create_embedding(out, bundle, options, err);
    struct executor x = {.forward = forward_model,
                         .copy_block = copy_model_block,
                         .save_block = save_model_block,
                         .load_block = load_model_block,
                         .block_bytes = model_kv_block_bytes(bundle->model),
                         .identify = identify_model,
                         .identify_ctx = bundle,
                         .n_vocab = config->n_vocab,
                         .n_ctx = config->n_ctx,
                         .head_rows = executor_head_rows(bundle->model),
                         .tokenizer = bundle->tokenizer,
                         .pool = options->pool,
                         .bundle = bundle};
    struct pool *own = NULL;
    struct model_run *run = NULL;
    void *kv_base = NULL;
    struct sched shape;
    x.n_block = choose_blocks(bundle->model, options, x.n_ctx);
    find_eos(&x, bundle);
    if (!x.pool)
        TRY(pool_create(&own, options->n_thread > 0 ? options->n_thread : cpu_count(), err));
    if (own)
        x.pool = own;
    void *kv = alloc_untouched((size_t)x.n_block * model_kv_block_bytes(bundle->model), &kv_base);
    enum status st = kv ? sched_init(&shape, options, 1, err) : fail_nomem(err, "KV cache");
    if (st == ST_OK) {
        st = model_run_create(&run, bundle->model, sched_rows_max(&shape), sched_logits_max(&shape), kv, x.n_block,
                              x.pool, err);
        sched_free(&shape);
    }
    x.ctx = run;
    if (st == ST_OK)
        st = engine_create_on(out, &x, options, err);
    if (st != ST_OK) {
        if (run)
            model_run_free(run);
        mem_free(kv_base);
        pool_destroy(own);
        return st;
    }
    (*out)->run = run;
    (*out)->kv_base = kv_base;
    (*out)->own_pool = own;
    return ST_OK;
}

enum status engine_create(struct engine **out, struct bundle *bundle, const struct engine_options *options,
                          struct error *err)
{
    *out = NULL;
    enum status st = create_engine(out, bundle, options, err);
    if (st == ST_OK)
        (*out)->draft_bundle = options->draft;
    else
        bundle_close(options->draft);
    return st;
}

void engine_drain(struct engine *e)
{
    if (e->embedder) {
        embedder_drain(e->embedder);
        return;
    }
    intake_drain(&e->in);
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    if (e->embedder) {
        embedder_destroy(e->embedder);
        bundle_close(e->draft_bundle);
        mem_free(e);
        return;
    }
    intake_stop(&e->in);
    core_free(&e->core); /* the spill's thread may call on_room until here */
    intake_free(&e->in);
    drafter_destroy(e->drafter);
    draft_model_destroy(e->draft_model);
    bundle_close(e->draft_bundle);
    if (e->run)
        model_run_free(e->run);
    mem_free(e->kv_base);
    pool_destroy(e->own_pool);
    mem_free(e);
}

/* ---- the door ---- */

/* Under the lock, as the next. */
static void live_add(struct engine *e, struct seq *s)
{
    s->id = s->r->id = intake_enter(&e->in, &e->stats);
    s->live_next = e->live;
    if (e->live)
        e->live->live_prev = s;
    e->live = s;
}

static void enqueue(struct engine *e, struct seq *s)
{
    live_add(e, s);
    *(e->inbox_last ? &e->inbox_last->next : &e->inbox_first) = s;
    e->inbox_last = s;
    e->n_inbox++;
    pthread_cond_signal(&e->in.wake);
}

static enum status check_generates(const struct engine *e, struct error *err)
{
    if (e->embedder)
        return fail(err, ST_UNSUPPORTED, "this model gives %s and generates no text",
                    model_config(e->bundle->model)->task == TASK_EMBED ? "embeddings" : "scores");
    return ST_OK;
}

enum status engine_submit(struct engine *e, struct request *r, struct error *err)
{
    struct seq *s;
    TRY(check_generates(e, err));
    TRY(seq_create(&s, r, &e->core.x, err));
    pthread_mutex_lock(&e->in.lock);
    enum status st = intake_check(&e->in, 1, err);
    if (st == ST_OK)
        enqueue(e, s);
    pthread_mutex_unlock(&e->in.lock);
    if (st != ST_OK)
        seq_free(s);
    return st;
}

/* ---- beam search: its answers are live, but only its asks are ever queued ---- */

static bool link_ask(struct engine *e, struct seq *s)
{
    pthread_mutex_lock(&e->in.lock);
    bool open = !e->in.stopping;
    if (open)
        enqueue(e, s);
    pthread_mutex_unlock(&e->in.lock);
    return open;
}

static enum status begin_beams(struct engine *e, struct beams *b, struct seq *const *answers, int n, struct error *err)
{
    pthread_mutex_lock(&e->in.lock);
    enum status st = intake_check(&e->in, n + 1, err);
    for (int i = 0; i < n && st == ST_OK; i++)
        live_add(e, answers[i]);
    pthread_mutex_unlock(&e->in.lock);
    TRY(st);
    st = beams_begin(b, err);
    if (st == ST_OK)
        return ST_OK;
    pthread_mutex_lock(&e->in.lock);
    for (int i = 0; i < n; i++) {
        live_remove(e, answers[i]);
        intake_leave(&e->in);
        intake_left(&e->in);
    }
    pthread_mutex_unlock(&e->in.lock);
    return st;
}

enum status engine_submit_beams(struct engine *e, struct request *const *requests, int n, const struct beam_options *o,
                                struct error *err)
{
    const struct beam_engine engine = {e, &e->core.x, link_ask, on_end};
    struct seq *answers[BEAMS_MAX] = {0};
    struct beams *b = NULL;
    enum status st = check_generates(e, err);
    if (st == ST_OK && (n < 1 || n > BEAMS_MAX))
        st = fail(err, ST_INVALID, "%d answers: beam search gives 1 to %d", n, BEAMS_MAX);
    for (int i = 0; st == ST_OK && i < n; i++)
        st = seq_create(&answers[i], requests[i], &e->core.x, err);
    if (st == ST_OK)
        st = beams_create(&b, &engine, answers, n, o, err);
    if (st == ST_OK)
        st = begin_beams(e, b, answers, n, err);
    if (st == ST_OK)
        return ST_OK;
    beams_destroy(b);
    for (int i = 0; i < n && i < BEAMS_MAX && answers[i]; i++)
        seq_free(answers[i]);
    return st;
}

enum status engine_embed(struct engine *e, struct embed_request *r, struct error *err)
{
    if (!e->embedder)
        return fail(err, ST_UNSUPPORTED,
                    "this model generates text: it embeds when it is loaded with --pooling mean, cls, last, max, sqrt "
                    "or weighted");
    return embedder_submit(e->embedder, r, err);
}

void engine_cancel(struct engine *e, uint64_t id)
{
    if (e->embedder) {
        embedder_cancel(e->embedder, id);
        return;
    }
    pthread_mutex_lock(&e->in.lock);
    struct seq *s = e->live;
    while (s && s->id != id)
        s = s->live_next;
    if (s) {
        __atomic_store_n(&s->canceled, true, __ATOMIC_RELAXED);
        e->cancel_asked = true;
        pthread_cond_signal(&e->in.wake);
    }
    pthread_mutex_unlock(&e->in.lock);
}

void engine_weights_changed(struct engine *e)
{
    if (e->embedder) /* it keeps nothing */
        return;
    pthread_mutex_lock(&e->in.lock);
    e->epoch++;
    pthread_mutex_unlock(&e->in.lock);
}

const struct bundle *engine_bundle(const struct engine *e)
{
    return e->bundle;
}

enum status engine_vocab_create(struct grammar_vocab **out, const struct engine *e, const int32_t *markers,
                                int n_marker, struct error *err)
{
    const struct executor *x = &e->core.x;
    *out = NULL;
    if (!x->tokenizer)
        return fail(err, ST_UNSUPPORTED, "answers cannot be shaped: this model has no tokenizer");
    return grammar_vocab_create(
        out, x->tokenizer,
        &(struct grammar_vocab_of){
            .n_vocab = x->n_vocab, .eos = x->eos, .n_eos = x->n_eos, .markers = markers, .n_marker = n_marker},
        err);
}

void engine_stats(const struct engine *e, struct engine_stats *out)
{
    if (e->embedder) {
        embedder_stats(e->embedder, out);
        return;
    }
    pthread_mutex_t *lock = (pthread_mutex_t *)&e->in.lock; /* the engine itself is never a constant */
    pthread_mutex_lock(lock);
    *out = e->stats;
    out->waiting += e->n_inbox;
    pthread_mutex_unlock(lock);
}

int engine_live(const struct engine *e, struct engine_live *out, int max)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&e->in.lock;
    struct timespec until;
    int n = 0;
    if (e->embedder)
        return 0;
    clock_gettime(CLOCK_REALTIME, &until); /* what pthread_mutex_timedlock wants; a jump makes it wait longer or not */
    until.tv_sec++;
    if (pthread_mutex_timedlock(lock, &until) != 0)
        return -1;
    for (const struct seq *s = e->live; s; s = s->live_next, n++)
        if (n < max)
            out[n] = (struct engine_live){s->id, s->submit_ns, s->n_prompt, s->n_limit,
                                          __atomic_load_n(&s->canceled, __ATOMIC_RELAXED)};
    pthread_mutex_unlock(lock);
    return n;
}

/* ---- one request, waited for ---- */

struct waiter {
    void *ctx;
    void (*on_token)(void *ctx, const struct token_event *event);
    void (*on_finish)(void *ctx, const struct finish_event *event);
    struct waiting waiting;
};

static void wait_token(void *ctx, const struct token_event *event)
{
    struct waiter *w = ctx;
    if (w->on_token)
        w->on_token(w->ctx, event);
}

static void wait_finish(void *ctx, const struct finish_event *event)
{
    struct waiter *w = ctx;
    if (w->on_finish)
        w->on_finish(w->ctx, event);
    waiting_tell(&w->waiting, event);
}

enum status engine_generate(struct engine *e, struct request *r, struct finish_event *end, struct error *err)
{
    struct waiter w = {r->ctx, r->on_token, r->on_finish, WAITING(end)};
    r->ctx = &w;
    r->on_token = wait_token;
    r->on_finish = wait_finish;
    enum status st = engine_submit(e, r, err);
    st = waiting_take(&w.waiting, st, err);
    r->ctx = w.ctx;
    r->on_token = w.on_token;
    r->on_finish = w.on_finish;
    return st;
}
