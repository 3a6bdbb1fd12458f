/* mask - what grammars let come next, worked out while the model computes
 *
 *   masker_begin(m, batch)  before the step's forward: lists the rows that will be drawn under a grammar
 *   masker_end(m)           after it: helps with what is left, and waits
 *
 * A mask depends on the ids before it, which are known before the step begins; so a thread of its own has it ready when
 * the logits are. Which thread made it changes nothing.
 */
#include "engine/engine_private.h"

#include "base/mem.h"
#include "base/thread.h"

struct mask_job {
    struct seq *seq;
    int n_draft;
};
struct masker {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pthread_t thread;
    bool started, stopping;
    struct mask_job *jobs; /* of this step */
    int n, next, n_done;
};

/* Row k of the masks is for what follows the newest id and k proposed ones. */
static void make_masks(struct seq *s, int n_draft)
{
    size_t words = (size_t)s->n_mask_word;
    struct error err;
    int n_accepted = 0;
    enum status st = ST_OK;
    s->n_mask = 0;
    if (s->mask_rows < n_draft + 1) {
        uint64_t *more = mem_realloc(s->masks, (size_t)n_draft + 1, words * sizeof *more);
        st = more ? ST_OK : fail_nomem(&err, "grammar");
        s->masks = more ? more : s->masks;
        s->mask_rows = more ? n_draft + 1 : s->mask_rows;
    }
    for (int k = 0; st == ST_OK && k <= n_draft; k++) {
        uint64_t *row = s->masks + (size_t)k * words, any = 0;
        st = grammar_mask(s->grammar, row, &err);
        for (size_t i = 0; st == ST_OK && i < words; i++)
            any |= row[i];
        if (st == ST_OK && !any)
            st = fail(&err, ST_INVALID, "the grammar cannot go on: no token of this vocabulary fits");
        s->n_mask = st == ST_OK ? k + 1 : s->n_mask;
        if (st != ST_OK || k == n_draft)
            break;
        enum status taken = grammar_accept(s->grammar, s->ids[s->n_ids + k], &err);
        if (taken != ST_OK) { /* what was proposed behind it cannot be confirmed */
            st = taken == ST_INVALID ? ST_OK : taken;
            break;
        }
        n_accepted++;
    }
    grammar_rollback(s->grammar, n_accepted);
    if (st != ST_OK)
        s->failure = err;
}

/* Under the lock, which is given up while a job is done. */
static void do_one(struct masker *m)
{
    struct mask_job job = m->jobs[m->next++];
    pthread_mutex_unlock(&m->lock);
    make_masks(job.seq, job.n_draft);
    pthread_mutex_lock(&m->lock);
    if (++m->n_done == m->n)
        pthread_cond_signal(&m->done);
}

static void *mask_thread(void *ctx)
{
    struct masker *m = ctx;
    pthread_mutex_lock(&m->lock);
    while (!m->stopping)
        if (m->next < m->n)
            do_one(m);
        else
            pthread_cond_wait(&m->wake, &m->lock);
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

enum status masker_create(struct masker **out, int max_sequences, struct error *err)
{
    struct masker *m = mem_alloc_zero(1, sizeof *m);
    *out = NULL;
    if (m)
        m->jobs = mem_alloc_zero((size_t)max_sequences, sizeof *m->jobs);
    if (!m || !m->jobs) {
        mem_free(m);
        return fail_nomem(err, "engine");
    }
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, NULL);
    pthread_cond_init(&m->done, NULL);
    *out = m;
    return ST_OK;
}

void masker_destroy(struct masker *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    if (m->started)
        pthread_join(m->thread, NULL);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->wake);
    pthread_cond_destroy(&m->done);
    mem_free(m->jobs);
    mem_free(m);
}

void masker_begin(struct masker *m, const struct batch *b)
{
    int n = 0;
    for (int i = 0; i < b->model.n_span; i++) {
        const struct batch_item *item = &b->items[i];
        struct seq *s = item->seq;
        if (s->grammar && s->n_done + item->n_row - item->n_draft == s->n_ids)
            m->jobs[n++] = (struct mask_job){s, item->n_draft}; /* the thread is idle: nobody else looks */
    }
    if (n == 0)
        return;
    if (!m->started)
        m->started = thread_start(&m->thread, mask_thread, m) == 0; /* else masker_end does it all */
    pthread_mutex_lock(&m->lock);
    m->n = n;
    m->next = m->n_done = 0;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
}

void masker_end(struct masker *m)
{
    pthread_mutex_lock(&m->lock);
    while (m->next < m->n)
        do_one(m);
    while (m->n_done < m->n)
        pthread_cond_wait(&m->done, &m->lock);
    m->n = m->next = m->n_done = 0;
    pthread_mutex_unlock(&m->lock);
}
