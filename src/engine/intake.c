#include "engine/intake.h"

#include "base/clock.h"
#include "base/thread.h"

void intake_init(struct intake *in, int max)
{
    *in = (struct intake){.max = max, .next_id = 1};
    pthread_mutex_init(&in->lock, NULL);
    pthread_cond_init(&in->wake, NULL);
    pthread_cond_init(&in->idle, NULL);
}

enum status intake_start(struct intake *in, void *(*fn)(void *), void *ctx, struct error *err)
{
    if (thread_start(&in->thread, fn, ctx) != 0)
        return fail(err, ST_LIMIT, "cannot start the engine's thread");
    in->has_thread = true;
    return ST_OK;
}

void intake_drain(struct intake *in)
{
    pthread_mutex_lock(&in->lock);
    in->draining = true;
    while (in->n_live)
        pthread_cond_wait(&in->idle, &in->lock);
    pthread_mutex_unlock(&in->lock);
}

void intake_stop(struct intake *in)
{
    if (!in->has_thread)
        return;
    pthread_mutex_lock(&in->lock);
    in->stopping = true;
    pthread_cond_signal(&in->wake);
    pthread_mutex_unlock(&in->lock);
    pthread_join(in->thread, NULL);
    in->has_thread = false;
}

void intake_free(struct intake *in)
{
    pthread_mutex_destroy(&in->lock);
    pthread_cond_destroy(&in->wake);
    pthread_cond_destroy(&in->idle);
}

enum status intake_check(const struct intake *in, int n, struct error *err)
{
    int n_here = in->n_live - in->n_leaving;
    if (in->draining || in->stopping)
        return fail(err, ST_LIMIT, "the engine is shutting down and takes no new requests");
    if (n_here + n > in->max)
        return fail(err, ST_LIMIT, "the queue is full: %d requests are running or waiting", n_here);
    return ST_OK;
}

uint64_t intake_enter(struct intake *in, struct engine_stats *stats)
{
    if (in->n_live++ == 0)
        stats->last_step_ns = clock_ns(); /* its time before does not count as standing still */
    return in->next_id++;
}

void intake_leave(struct intake *in)
{
    in->n_leaving++;
}

void intake_left(struct intake *in)
{
    in->n_leaving--;
    if (--in->n_live == 0)
        pthread_cond_broadcast(&in->idle);
}

void waiting_tell(struct waiting *w, const struct finish_event *end)
{
    pthread_mutex_lock(&w->lock);
    *w->end = *end;
    w->finished = true;
    pthread_cond_signal(&w->done);
    pthread_mutex_unlock(&w->lock);
}

enum status waiting_take(struct waiting *w, enum status submitted, struct error *err)
{
    pthread_mutex_lock(&w->lock);
    while (submitted == ST_OK && !w->finished)
        pthread_cond_wait(&w->done, &w->lock);
    pthread_mutex_unlock(&w->lock);
    if (submitted == ST_OK && w->end->finish == FINISH_ERROR)
        return fail(err, w->end->status, "%s", w->end->message);
    return submitted;
}
