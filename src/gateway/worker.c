/* Worker threads and their bounded queue: first come, first served. */
#include "gateway/private.h"

#include "base/mem.h"
#include "base/thread.h"

enum { WORKERS_MAX = 16, QUEUE_MAX = 1024 };

struct worker_queue {
    pthread_mutex_t lock;
    pthread_cond_t news;
    struct job *first, *last;
    int n_queued, n_thread;
    bool stop;
    pthread_t threads[WORKERS_MAX];
};

static struct job *take(struct worker_queue *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->first && !w->stop)
        pthread_cond_wait(&w->news, &w->lock);
    struct job *j = w->first;
    if (j) {
        w->first = j->queue_next;
        if (!w->first)
            w->last = NULL;
        w->n_queued--;
    }
    pthread_mutex_unlock(&w->lock);
    return j;
}

static void *work(void *arg)
{
    for (struct job *j; (j = take(arg));) {
        struct loop *loop = j->g->loop;
        bool writes = j->phase == JOB_WRITE; /* the loop said so before it handed the job over */
        bool made = true;
        thread_mark("worker", writes ? "writes an answer" : "reads a request");
        if (writes)
            embed_write(j);
        else
            made = content_make(j); /* if not, it is another thread's already */
        thread_mark("worker", "waits for requests");
        if (made)
            loop_wake(loop, &j->task); /* from here on the job is the loop's */
    }
    return NULL;
}

enum status workers_create(struct worker_queue **out, int n_thread, struct error *err)
{
    struct worker_queue *w = mem_alloc_zero(1, sizeof *w);
    if (!w)
        return fail_nomem(err, "gateway");
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->news, NULL);
    for (int i = 0; i < n_thread && i < WORKERS_MAX; i++) {
        int rc = thread_start(&w->threads[i], work, w);
        if (rc != 0) {
            workers_destroy(w);
            return fail(err, ST_NOMEM, "gateway: a worker thread cannot be started: %s", strerror(rc));
        }
        w->n_thread++;
    }
    *out = w;
    return ST_OK;
}

static void append(struct worker_queue *w, struct job *j)
{
    j->queue_next = NULL;
    if (w->last)
        w->last->queue_next = j;
    else
        w->first = j;
    w->last = j;
    w->n_queued++;
    pthread_cond_signal(&w->news);
}

bool workers_put(struct worker_queue *w, struct job *j)
{
    pthread_mutex_lock(&w->lock);
    bool room = w->n_queued < QUEUE_MAX;
    if (room)
        append(w, j);
    pthread_mutex_unlock(&w->lock);
    return room;
}

void workers_put_back(struct worker_queue *w, struct job *j)
{
    pthread_mutex_lock(&w->lock);
    append(w, j);
    pthread_mutex_unlock(&w->lock);
}

void workers_destroy(struct worker_queue *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->news);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_thread; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->news);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}
