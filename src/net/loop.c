#include "net/loop.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <event2/event.h>

enum { LOOP_WATCHES_MAX = 8 };

struct watch { /* a timer or a signal, for the loop's whole life */
    struct event *event;
    loop_fn *fn;
    void *ctx;
};

struct loop {
    struct event_base *base;
    struct event *wake_event;
    int wake_fd;
    bool stopping; /* under lock */
    struct watch watches[LOOP_WATCHES_MAX];
    int n_watch;
    pthread_mutex_t lock; /* guards first, last, every task's next and queued */
    struct loop_task *first, *last;
};

static struct loop_task *take_first(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    struct loop_task *t = l->first;
    if (t) {
        l->first = t->next;
        if (!l->first)
            l->last = NULL;
        t->queued = false; /* from here on it may be queued again */
    }
    pthread_mutex_unlock(&l->lock);
    return t;
}

static void on_wake(evutil_socket_t fd, short what, void *ctx)
{
    struct loop *l = ctx;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return;
    pthread_mutex_lock(&l->lock);
    bool stop = l->stopping;
    const struct loop_task *end =
        l->last; /* tasks that wake themselves run in the next round: sockets get their turn */
    pthread_mutex_unlock(&l->lock);
    for (struct loop_task *t = end ? take_first(l) : NULL; t; t = take_first(l)) {
        bool was_end = t == end;
        t->fn(t->ctx);
        if (was_end)
            break;
    }
    pthread_mutex_lock(&l->lock);
    bool more = l->first != NULL;
    pthread_mutex_unlock(&l->lock);
    if (more)
        event_active(l->wake_event, EV_READ, 0);
    if (stop)
        event_base_loopbreak(l->base);
}

enum status loop_create(struct loop **out, struct error *err)
{
    struct loop *l = mem_alloc_zero(1, sizeof *l);
    if (!l)
        return fail_nomem(err, "loop");
    pthread_mutex_init(&l->lock, NULL);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->base = event_base_new();
    if (l->base && l->wake_fd >= 0)
        l->wake_event = event_new(l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake, l);
    if (!l->wake_event || event_add(l->wake_event, NULL) != 0) {
        loop_destroy(l);
        return fail(err, ST_IO, "loop: the event loop cannot be made: %s", strerror(errno));
    }
    *out = l;
    return ST_OK;
}

void loop_destroy(struct loop *l)
{
    if (!l)
        return;
    for (int i = 0; i < l->n_watch; i++)
        event_free(l->watches[i].event);
    if (l->wake_event)
        event_free(l->wake_event);
    if (l->base) {
        event_base_loop(l->base, EVLOOP_NONBLOCK); /* lets go of connections closed with callbacks still deferred */
        event_base_free(l->base);
    }
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    pthread_mutex_destroy(&l->lock);
    mem_free(l);
}

enum status loop_run(struct loop *l, struct error *err)
{
    if (event_base_loop(l->base, EVLOOP_NO_EXIT_ON_EMPTY) < 0)
        return fail(err, ST_IO, "loop: waiting for events failed: %s", strerror(errno));
    return ST_OK;
}

static void ring(struct loop *l)
{
    uint64_t one = 1;
    /* A full counter (EAGAIN) means that the loop has been woken already. */
    while (write(l->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

void loop_stop(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_mutex_unlock(&l->lock);
    ring(l);
}

void loop_wake(struct loop *l, struct loop_task *task)
{
    pthread_mutex_lock(&l->lock);
    bool first = false;
    if (!task->queued) {
        task->queued = true;
        task->next = NULL;
        first = l->first == NULL;
        if (l->last)
            l->last->next = task;
        else
            l->first = task;
        l->last = task;
    }
    if (first) /* under the lock, so that the loop cannot be destroyed between the two */
        ring(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_forget(struct loop *l, struct loop_task *task)
{
    pthread_mutex_lock(&l->lock);
    struct loop_task *prev = NULL;
    for (struct loop_task *t = task->queued ? l->first : NULL; t; prev = t, t = t->next) {
        if (t != task)
            continue;
        *(prev ? &prev->next : &l->first) = t->next;
        if (l->last == t)
            l->last = prev;
        break;
    }
    task->queued = false;
    pthread_mutex_unlock(&l->lock);
}

static void on_watch(evutil_socket_t fd, short what, void *ctx)
{
    struct watch *w = ctx;
    (void)fd, (void)what;
    w->fn(w->ctx);
}

static enum status add_watch(struct loop *l, int fd, short what, const struct timeval *interval, loop_fn *fn, void *ctx,
                             struct error *err)
{
    if (l->n_watch == LOOP_WATCHES_MAX)
        return fail(err, ST_LIMIT, "loop: more than %d timers and signals", LOOP_WATCHES_MAX);
    struct watch *w = &l->watches[l->n_watch];
    *w = (struct watch){event_new(l->base, fd, what | EV_PERSIST, on_watch, w), fn, ctx};
    if (!w->event)
        return fail_nomem(err, "loop");
    if (event_add(w->event, interval) != 0) {
        event_free(w->event);
        return fail(err, ST_IO, "loop: a timer or signal cannot be added: %s", strerror(errno));
    }
    l->n_watch++;
    return ST_OK;
}

enum status loop_every(struct loop *l, int interval_ms, loop_fn *fn, void *ctx, struct error *err)
{
    struct timeval interval = {interval_ms / 1000, interval_ms % 1000 * 1000};
    return add_watch(l, -1, EV_TIMEOUT, &interval, fn, ctx, err);
}

enum status loop_on_signal(struct loop *l, int number, loop_fn *fn, void *ctx, struct error *err)
{
    return add_watch(l, number, EV_SIGNAL, NULL, fn, ctx, err);
}

struct loop_timer {
    struct event *event;
    int fd;
    loop_fn *fn;
    void *ctx;
};

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct loop_timer *t = ctx;
    uint64_t count;
    (void)what;
    if (read(fd, &count, sizeof count) == (ssize_t)sizeof count) /* else it was set anew meanwhile */
        t->fn(t->ctx);
}

enum status loop_timer_open(struct loop_timer **out, struct loop *l, loop_fn *fn, void *ctx, struct error *err)
{
    struct loop_timer *t = mem_alloc_zero(1, sizeof *t);
    if (!t)
        return fail_nomem(err, "timer");
    *t = (struct loop_timer){.fn = fn, .ctx = ctx, .fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    if (t->fd >= 0)
        t->event = event_new(l->base, t->fd, EV_READ | EV_PERSIST, on_timer, t);
    if (!t->event || event_add(t->event, NULL) != 0) {
        loop_timer_close(t);
        return fail(err, ST_IO, "loop: a timer cannot be made: %s", strerror(errno));
    }
    *out = t;
    return ST_OK;
}

void loop_timer_at(struct loop_timer *t, uint64_t at_ns)
{
    uint64_t now = clock_ns(), wait = at_ns > now ? at_ns - now : 1; /* 0 would stop it */
    struct itimerspec when = {.it_value = {(time_t)(wait / 1000000000), (long)(wait % 1000000000)}};
    timerfd_settime(t->fd, 0, &when, NULL);
}

void loop_timer_close(struct loop_timer *t)
{
    if (!t)
        return;
    if (t->event)
        event_free(t->event);
    if (t->fd >= 0)
        close(t->fd);
    mem_free(t);
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}
