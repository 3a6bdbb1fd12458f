/* embed - the thread that turns texts into vectors
 *
 *   any thread: embedder_submit -> jobs; embedder_cancel -> a flag            (under the lock)
 *   embed thread: end_jobs -> batch_take -> model_forward -> batch_give       (the forward without the lock)
 *
 * Invariants
 * 1. The list of jobs holds every one from submit until its on_finish is about to be called.
 * 2. A batch's texts are computed before the next is taken: a job whose texts are all taken has them all.
 * 3. A batch takes one text after the other, each from the first job among the tenants that were served least, which
 *    then goes to the end. The text that does not fit ends the batch and begins the next: nobody overtakes.
 */
#include "engine/engine_private.h"
#include "engine/intake.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

#include <math.h>
#include <pthread.h>

enum {
    BATCH_ROWS = 512, /* of weights' reading, more rows share too little to notice */
    BATCH_TEXTS = 128
};

struct job {
    struct job *next, *prev;
    struct embed_request *r;
    struct tenant *tenant; /* NULL: no fair share, or not seen by the embed thread yet */
    int n_taken, n_token;
    bool canceled;
    enum status status; /* of a text that failed */
    uint64_t submit_ns, start_ns;
};

struct batch_text {
    struct job *job;
    int index;
};

struct embedder {
    struct bundle *bundle;
    const struct model_config *config;
    struct pool *pool, *own_pool;
    /* the embed thread's: grown when a text is longer than they are */
    struct model_run *run;
    int n_row;
    void *kv, *kv_base;
    int32_t *ids, *types, *blocks; /* [n_row], likewise, [n_row / KV_BLOCK + BATCH_TEXTS] */
    real *out;                     /* [BATCH_TEXTS, n_out] */
    struct attend_span spans[BATCH_TEXTS];
    struct batch_text texts[BATCH_TEXTS];
    int n_text, n_batch_row;
    struct shares shares;
    struct intake in;
    /* under its lock */
    struct job *first, *last;
    int n_running;
    struct engine_stats stats;
};

/* ---- memory of a batch ---- */
static void room_free(struct embedder *e)
{
    if (e->run)
        model_run_free(e->run);
    mem_free(e->kv_base);
    mem_free(e->ids);
    mem_free(e->types);
    mem_free(e->blocks);
    e->run = NULL;
    e->kv_base = e->ids = e->types = e->blocks = NULL;
    e->n_row = 0;
}

/* Room for a text of n_row tokens. A failure leaves none, and the next call tries anew. */
static enum status room_make(struct embedder *e, int n_row, struct error *err)
{
    size_t kv_bytes;
    if (n_row <= e->n_row)
        return ST_OK;
    room_free(e);
    n_row = n_row < BATCH_ROWS ? BATCH_ROWS : (n_row + BATCH_ROWS - 1) / BATCH_ROWS * BATCH_ROWS;
    int n_block = n_row / KV_BLOCK + BATCH_TEXTS;
    e->ids = mem_alloc_zero((size_t)n_row, sizeof *e->ids);
    e->types = mem_alloc_zero((size_t)n_row, sizeof *e->types);
    e->blocks = mem_alloc_zero((size_t)n_block, sizeof *e->blocks);
    e->kv = size_mul(&kv_bytes, (size_t)n_block, model_kv_block_bytes(e->bundle->model))
                ? alloc_untouched(kv_bytes, &e->kv_base)
                : NULL;
    enum status st = e->ids && e->types && e->blocks && e->kv
                         ? model_run_create(&e->run, e->bundle->model, n_row, BATCH_TEXTS, e->kv, n_block, e->pool, err)
                         : fail_nomem(err, "embeddings");
    if (st != ST_OK) {
        room_free(e);
        return st;
    }
    for (int i = 0; i < n_block; i++)
        e->blocks[i] = i;
    e->n_row = n_row;
    return ST_OK;
}

/* ---- jobs; under the lock ---- */
static void unlink_job(struct embedder *e, struct job *j)
{
    *(j->prev ? &j->prev->next : &e->first) = j->next;
    *(j->next ? &j->next->prev : &e->last) = j->prev;
    j->next = j->prev = NULL;
}

static void append_job(struct embedder *e, struct job *j)
{
    j->prev = e->last;
    *(e->last ? &e->last->next : &e->first) = j;
    e->last = j;
}

static bool is_canceled(const struct embedder *e, const struct job *j)
{
    return e->in.stopping || j->canceled || (j->r->interrupt && *j->r->interrupt);
}

/* Tells its owner; the lock is given up meanwhile. */
static void end_job(struct embedder *e, struct job *j)
{
    uint64_t now = clock_ns(), start = j->start_ns ? j->start_ns : now;
    bool whole = j->n_taken == j->r->n_text && j->status == ST_OK;
    struct finish_event end = {.finish = whole       ? FINISH_STOP
                                         : j->status ? FINISH_ERROR
                                                     : FINISH_CANCELED,
                               .status = j->status,
                               .message = j->status == ST_NOMEM ? "out of memory for a text of this length"
                                                                : "the model gave numbers that are not finite",
                               .n_prompt = j->n_token,
                               .queue_s = (double)(start - j->submit_ns) * 1e-9,
                               .prefill_s = (double)(now - start) * 1e-9};
    unlink_job(e, j);
    tenant_leave(j->tenant);
    e->stats.finished[end.finish]++;
    intake_leave(&e->in);
    pthread_mutex_unlock(&e->in.lock);
    if (j->r->on_finish)
        j->r->on_finish(j->r->ctx, &end);
    mem_free(j);
    pthread_mutex_lock(&e->in.lock);
    intake_left(&e->in);
}

static bool gives_more(const struct job *j)
{
    return j->n_taken < j->r->n_text && j->status == ST_OK;
}

static void end_jobs(struct embedder *e)
{
    for (struct job *j = e->first; j;) {
        if (!gives_more(j) || is_canceled(e, j)) {
            end_job(e, j);
            j = e->first; /* others may have come and gone */
        } else {
            j = j->next;
        }
    }
}

/* ---- a batch ---- */
static bool take_text(struct embedder *e, struct job *j)
{
    const struct embed_text *t = &j->r->texts[j->n_taken];
    if (e->n_text == BATCH_TEXTS || (e->n_text && e->n_batch_row + t->n_id > BATCH_ROWS))
        return false;
    if (!e->n_text) {
        struct error err;
        j->status = room_make(e, t->n_id, &err);
        if (j->status != ST_OK)
            return false;
    }
    int block = e->n_text
                    ? (int)(e->spans[e->n_text - 1].blocks - e->blocks) + kv_blocks_for(e->spans[e->n_text - 1].n_row)
                    : 0;
    e->spans[e->n_text] = (struct attend_span){e->n_batch_row, t->n_id, 0, e->blocks + block};
    for (int i = 0; i < t->n_id; i++) {
        e->ids[e->n_batch_row + i] = t->ids[i];
        e->types[e->n_batch_row + i] = t->first && i >= t->first && e->config->n_type > 1;
    }
    e->texts[e->n_text++] = (struct batch_text){j, j->n_taken++};
    e->n_batch_row += t->n_id;
    j->n_token += t->n_id;
    tenant_charge(j->tenant, t->n_id);
    j->start_ns = j->start_ns ? j->start_ns : clock_ns();
    return true;
}

static struct job *next_job(const struct embedder *e)
{
    struct job *best = NULL;
    for (struct job *j = e->first; j; j = j->next) {
        if (!gives_more(j))
            continue;
        if (!best || tenant_goes_first(j->tenant, best->tenant))
            best = j;
        if (!best->tenant)
            break;
    }
    return best;
}

static void batch_take(struct embedder *e)
{
    e->n_text = e->n_batch_row = e->n_running = 0;
    for (struct job *j = e->first; j; j = j->next)
        if (!j->tenant)
            j->tenant = tenant_join(&e->shares, j->r->tenant);
    for (struct job *j; (j = next_job(e)) && take_text(e, j);) {
        unlink_job(e, j);
        append_job(e, j);
    }
    for (struct job *j = e->first; j; j = j->next)
        e->n_running += j->start_ns != 0;
}

static void batch_give(struct embedder *e)
{
    size_t n = (size_t)e->config->n_out;
    for (int i = 0; i < e->n_text; i++) {
        struct job *j = e->texts[i].job;
        const real *row = e->out + (size_t)i * n;
        for (size_t k = 0; k < n; k++)
            if (!isfinite(row[k]))
                j->status = ST_CORRUPT;
        memcpy(j->r->out + (size_t)e->texts[i].index * n, row, n * sizeof *row);
    }
}

static void *embed_main(void *arg)
{
    struct embedder *e = arg;
    pthread_mutex_lock(&e->in.lock);
    for (;;) {
        end_jobs(e); /* also what was canceled before it began */
        e->n_running = 0;
        if (!e->first && e->in.stopping)
            break;
        if (!e->first) {
            thread_mark("engine", "waits for requests");
            pthread_cond_wait(&e->in.wake, &e->in.lock);
            continue;
        }
        thread_mark("engine", "embeds texts");
        batch_take(e);
        e->stats.last_step_ns = clock_ns();
        pthread_mutex_unlock(&e->in.lock);
        struct model_batch b = {
            .n_row = e->n_batch_row, .ids = e->ids, .spans = e->spans, .n_span = e->n_text, .types = e->types};
        if (e->n_text)
            model_forward(e->run, &b, e->out);
        batch_give(e);
        pthread_mutex_lock(&e->in.lock);
        e->stats.steps += e->n_text > 0;
        e->stats.prompt_tokens += (uint64_t)e->n_batch_row;
        e->stats.last_step_ns = clock_ns();
    }
    pthread_mutex_unlock(&e->in.lock);
    return NULL;
}

/* ---- life ---- */
enum status embedder_create(struct embedder **out, struct bundle *bundle, const struct engine_options *o,
                            struct error *err)
{
    *out = NULL;
    struct embedder *e = mem_alloc_zero(1, sizeof *e);
    if (!e)
        return fail_nomem(err, "engine");
    e->bundle = bundle;
    e->config = model_config(bundle->model);
    e->stats.n_ctx = e->config->n_ctx;
    intake_init(&e->in, engine_live_max(o));
    enum status st = o->pool ? ST_OK : pool_create(&e->own_pool, o->n_thread > 0 ? o->n_thread : cpu_count(), err);
    e->pool = o->pool ? o->pool : e->own_pool;
    if (st == ST_OK)
        st = shares_init(&e->shares, o, err);
    if (st == ST_OK && !(e->out = mem_alloc_zero((size_t)e->config->n_out, BATCH_TEXTS * sizeof *e->out)))
        st = fail_nomem(err, "engine");
    if (st == ST_OK)
        st = room_make(e, BATCH_ROWS, err);
    if (st == ST_OK)
        st = intake_start(&e->in, embed_main, e, err);
    if (st == ST_OK)
        *out = e;
    else
        embedder_destroy(e);
    return st;
}

void embedder_drain(struct embedder *e)
{
    intake_drain(&e->in);
}

void embedder_destroy(struct embedder *e)
{
    if (!e)
        return;
    intake_stop(&e->in);
    intake_free(&e->in);
    room_free(e);
    shares_free(&e->shares);
    mem_free(e->out);
    pool_destroy(e->own_pool);
    mem_free(e);
}

/* ---- the door ---- */
static enum status check_request(const struct embedder *e, const struct embed_request *r, struct error *err)
{
    if (r->n_text < 1 || r->n_text > EMBED_TEXTS_MAX)
        return fail(err, ST_INVALID, "%d texts, expected 1 to %d", r->n_text, EMBED_TEXTS_MAX);
    for (int i = 0; i < r->n_text; i++) {
        const struct embed_text *t = &r->texts[i];
        if (t->n_id < 1 || t->n_id > e->config->n_ctx)
            return fail(err, ST_INVALID, "text %d has %d tokens, expected 1 to %d", i, t->n_id, e->config->n_ctx);
        for (int k = 0; k < t->n_id; k++)
            if (t->ids[k] < 0 || t->ids[k] >= e->config->n_vocab)
                return fail(err, ST_INVALID, "text %d: id %d is not of this model's vocabulary (0 to %d)", i, t->ids[k],
                            e->config->n_vocab - 1);
    }
    return ST_OK;
}

enum status embedder_submit(struct embedder *e, struct embed_request *r, struct error *err)
{
    TRY(check_request(e, r, err));
    struct job *j = mem_alloc_zero(1, sizeof *j);
    if (!j)
        return fail_nomem(err, "a request");
    *j = (struct job){.r = r, .submit_ns = clock_ns()};
    pthread_mutex_lock(&e->in.lock);
    enum status st = intake_check(&e->in, 1, err);
    if (st == ST_OK) {
        r->id = intake_enter(&e->in, &e->stats);
        append_job(e, j);
        pthread_cond_signal(&e->in.wake);
    }
    pthread_mutex_unlock(&e->in.lock);
    if (st != ST_OK)
        mem_free(j);
    return st;
}

void embedder_cancel(struct embedder *e, uint64_t id)
{
    pthread_mutex_lock(&e->in.lock);
    for (struct job *j = e->first; j; j = j->next)
        j->canceled |= j->r->id == id;
    pthread_mutex_unlock(&e->in.lock);
}

void embedder_stats(struct embedder *e, struct engine_stats *out)
{
    pthread_mutex_lock(&e->in.lock);
    *out = e->stats;
    out->running = e->n_running < e->in.n_live ? e->n_running : e->in.n_live;
    out->waiting = e->in.n_live - out->running;
    pthread_mutex_unlock(&e->in.lock);
}

/* ---- one request, waited for ---- */
struct waiter {
    struct embed_request asked;
    struct waiting waiting;
};

static void on_finish(void *ctx, const struct finish_event *end)
{
    struct waiter *w = ctx;
    if (w->asked.on_finish)
        w->asked.on_finish(w->asked.ctx, end);
    waiting_tell(&w->waiting, end);
}

enum status engine_embed_wait(struct engine *e, struct embed_request *r, struct finish_event *end, struct error *err)
{
    struct waiter w = {*r, WAITING(end)};
    r->ctx = &w;
    r->on_finish = on_finish;
    enum status st = engine_embed(e, r, err);
    st = waiting_take(&w.waiting, st, err);
    r->ctx = w.asked.ctx;
    r->on_finish = w.asked.on_finish;
    return st;
}

/* ---- what is done with a row ---- */
void embed_unit(real *v, int n)
{
    double squares = 0;
    for (int i = 0; i < n; i++)
        squares += (double)v[i] * (double)v[i];
    double length = sqrt(squares);
    for (int i = 0; i < n && length > 0; i++)
        v[i] = (real)((double)v[i] / length);
}

real embed_sigmoid(real logit)
{
    return (real)(1 / (1 + fn_exp64(-(double)logit)));
}
