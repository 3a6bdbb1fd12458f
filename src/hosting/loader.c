/* The loader: makes room, opens, closes; the lock is held but while the maker works. */
#include "hosting/private.h"

#include "base/clock.h"
#include "base/log.h"

enum { PATIENCE_MS = 5000 }; /* unless the options say otherwise */

static int keep_alive(const struct hosting *h, const struct hosted *e)
{
    const int seconds[] = {e->asked_s, e->how.keep_alive_s, h->options.keep_alive_s};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++)
        if (seconds[i])
            return seconds[i];
    return -1;
}

uint64_t hosted_expires_ns(const struct hosting *h, const struct hosted *e)
{
    int seconds = keep_alive(h, e);
    bool stays = e->foreign || e->how.pinned || e->n_lease || seconds < 0 || e->state != HOSTED_READY;
    return stays ? 0 : e->used_ns + (uint64_t)seconds * 1000000000;
}

static bool may_go(const struct hosted *e)
{
    return e->state == HOSTED_READY && !e->n_lease && !e->foreign;
}

static bool is_orphan(const struct hosted *e)
{
    return !e->n_name && !e->n_lease;
}

/* Whoever needs its room; a pinned one goes only when another has its name. */
static bool stays(const struct hosted *e)
{
    return e->foreign || (e->how.pinned && e->n_name);
}

/* In use, but with its last lease it goes. */
static bool goes(const struct hosted *e)
{
    return e->n_lease && (e->yields || !e->n_name);
}

static void sooner(uint64_t *until_ns, uint64_t at)
{
    if (!*until_ns || at < *until_ns)
        *until_ns = at;
}

/* Between these the lock is given up and others' functions are called: hosting_quiet and hosting_on_close wait for the
 * end. */
static void calls_begin(struct hosting *h)
{
    h->calling = true;
    pthread_mutex_unlock(&h->lock);
}

static void calls_end(struct hosting *h)
{
    pthread_mutex_lock(&h->lock);
    h->calling = false;
    pthread_cond_broadcast(&h->changed);
}

/* Who waits for e gets a lease, or hears why not. */
static void tell(struct hosting *h, struct hosted *e)
{
    struct hosting_wait *w = hosted_settle(h, e);
    pthread_cond_broadcast(&h->changed);
    calls_begin(h);
    while (w) {
        struct hosting_wait *next = w->next; /* fn may end w's life */
        w->fn(w->ctx);
        w = next;
    }
    calls_end(h);
}

static void tell_close(struct hosting *h, const struct hosted *e)
{
    struct hosting_row row = hosted_row(h, e);
    void (*fn)(void *, const struct hosting_row *) = h->on_close;
    void *ctx = h->on_close_ctx;
    if (!fn)
        return;
    calls_begin(h);
    fn(ctx, &row);
    calls_end(h);
}

static void close_model(struct hosting *h, struct hosted *e)
{
    e->state = HOSTED_CLOSING; /* from here on nobody else looks at it */
    e->unload = e->yields = false;
    for (struct hosted_name *n = h->names; n; n = n->next)
        if (n->tried == e)
            hosted_close_lora(h, n);
    tell_close(h, e);
    pthread_mutex_unlock(&h->lock);
    log_infof("hosting", "unloading %s", e->how.name);
    h->options.maker->close(h->options.maker->ctx, &e->parts);
    pthread_mutex_lock(&h->lock);
    h->bytes_used -= e->bytes;
    e->bytes = 0;
    e->parts = (struct hosted_parts){0};
    e->state = HOSTED_ABSENT;
    if (e->waits) /* somebody asked meanwhile: behind those who wait already */
        hosted_want(h, e);
    pthread_cond_broadcast(&h->changed);
}

static uint64_t patience_ns(const struct hosting *h)
{
    int ms = h->options.patience_ms;
    return ms < 0 ? 0 : (uint64_t)(ms ? ms : PATIENCE_MS) * 1000000;
}

/* When one that nobody uses may go for another: it has had its time, or nobody comes for it. Between two requests of
 * one client it is not free. */
static uint64_t free_ns(const struct hosting *h, const struct hosted *e)
{
    uint64_t served = e->since_ns + patience_ns(h), rested = e->used_ns + patience_ns(h) / 10;
    return served < rested ? served : rested;
}

static struct hosted *least_recent(const struct hosting *h, uint64_t now)
{
    struct hosted *best = NULL;
    for (struct hosted *e = h->all; e; e = e->next)
        if (may_go(e) && !stays(e) && free_ns(h, e) <= now && (!best || e->used_ns < best->used_ns))
            best = e;
    return best;
}

static double gb(uint64_t bytes)
{
    return (double)bytes * 1e-9;
}

/* Of those in use, who makes room for e next: both have had their time, e to wait and it to serve. NULL: nobody before
 * *until_ns. */
static struct hosted *next_to_yield(const struct hosting *h, const struct hosted *e, uint64_t now, uint64_t *until_ns)
{
    struct hosted *best = NULL;
    for (struct hosted *o = h->all; o; o = o->next) {
        if (o->state != HOSTED_READY || !o->n_lease || stays(o) || goes(o))
            continue;
        uint64_t turn = (e->since_ns > o->since_ns ? e->since_ns : o->since_ns) + patience_ns(h);
        if (turn > now)
            sooner(until_ns, turn);
        else if (!best || o->used_ns < best->used_ns)
            best = o;
    }
    return best;
}

/* What is free goes once that is enough. Else ST_CANCELED: e waits for those in use, until *until_ns at most. */
static enum status make_room(struct hosting *h, const struct hosted *e, uint64_t *until_ns, struct error *err)
{
    const uint64_t max = h->options.bytes_max;
    while (max) {
        uint64_t kept = 0, idle = 0, going = 0, all = h->bytes_used + e->need, now = clock_ns();
        for (const struct hosted *o = h->all; o; o = o->next) {
            if (stays(o))
                kept += o->bytes;
            else if (goes(o))
                going += o->bytes;
            else if (may_go(o) && free_ns(h, o) <= now)
                idle += o->bytes;
            else if (may_go(o))
                sooner(until_ns, free_ns(h, o));
        }
        if (e->need > max - (kept < max ? kept : max))
            return fail(err, ST_NOMEM,
                        "%s needs %.2f GB of memory; of the budget of %.2f GB, models that stay have %.2f GB",
                        e->how.name, gb(e->need), gb(max), gb(kept));
        if (all <= max)
            return ST_OK;
        if (all - idle <= max) {
            close_model(h, least_recent(h, now));
            continue;
        }
        for (struct hosted *o; all - idle - max > going && (o = next_to_yield(h, e, now, until_ns));
             going += o->bytes) {
            log_infof("hosting", "%s makes room for %s", o->how.name, e->how.name);
            o->yields = true;
        }
        return ST_CANCELED;
    }
    return ST_OK;
}

static enum status measure(struct hosting *h, struct hosted *e, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    uint64_t need = 0;
    e->state = HOSTED_LOADING;
    pthread_mutex_unlock(&h->lock);
    enum status st = maker->measure(maker->ctx, &need, &e->how, err);
    pthread_mutex_lock(&h->lock);
    e->state = HOSTED_WANTED;
    e->need = need;
    return st;
}

static enum status open_model(struct hosting *h, struct hosted *e, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    e->state = HOSTED_LOADING;
    e->bytes = e->need;
    h->bytes_used += e->bytes;
    pthread_mutex_unlock(&h->lock);
    log_infof("hosting", "loading %s from %s", e->how.name, e->how.path);
    enum status st = maker->open(maker->ctx, &e->parts, &e->how, err);
    pthread_mutex_lock(&h->lock);
    h->bytes_used -= e->bytes;
    e->bytes = st == ST_OK ? e->parts.bytes : 0;
    h->bytes_used += e->bytes;
    return st;
}

/* false: it waits for its room, until *until_ns at most. */
static bool load(struct hosting *h, struct hosted *e, uint64_t *until_ns)
{
    struct error err;
    enum status st = e->need ? ST_OK : measure(h, e, &err);
    if (st == ST_OK && (st = make_room(h, e, until_ns, &err)) == ST_CANCELED)
        return false;
    for (struct hosted *o = h->all; o; o = o->next)
        o->yields = false;
    if (st == ST_OK)
        st = open_model(h, e, &err);
    if (st == ST_OK) {
        e->state = HOSTED_READY;
    } else {
        e->state = HOSTED_FAILED;
        e->why = err;
        log_errorf("hosting", "%s cannot be loaded: %s", e->how.name, err.text);
    }
    e->used_ns = e->since_ns = clock_ns();
    tell(h, e); /* but those who want an adapter, which is read after this */
    return true;
}

/* What is ready is given out, before anything could be closed for another's sake. */
static bool serve(struct hosting *h)
{
    for (struct hosted *e = h->all; e; e = e->next) {
        struct hosted_name *lora = e->state == HOSTED_READY ? hosted_next_lora(h, e) : NULL;
        bool settled = (e->state == HOSTED_READY && !e->yields) || e->state == HOSTED_FAILED || is_orphan(e);
        if (lora)
            hosted_open_lora(h, e, lora);
        if (lora || (e->waits && settled)) {
            tell(h, e);
            return true;
        }
    }
    return false;
}

/* What nobody needs goes. *until_ns: when something will, if nobody asks; 0 = never. */
static bool tidy(struct hosting *h, uint64_t *until_ns)
{
    uint64_t now = clock_ns();
    *until_ns = 0;
    for (struct hosted *e = h->all; e; e = e->next) {
        uint64_t expires = hosted_expires_ns(h, e);
        bool idle = expires && expires <= now;
        if (may_go(e) && (idle || e->unload || is_orphan(e))) {
            close_model(h, e);
            return true;
        }
        if (is_orphan(e) && e->state != HOSTED_READY) {
            hosted_free(h, e);
            return true;
        }
        if (expires)
            sooner(until_ns, expires);
    }
    return false;
}

/* One thing to do; false: nothing. */
static bool work(struct hosting *h, uint64_t *until_ns)
{
    if (serve(h) || tidy(h, until_ns))
        return true;
    struct hosted *first = NULL; /* who waits longest */
    for (struct hosted *e = h->all; e; e = e->next)
        if (e->state == HOSTED_WANTED && (!first || e->since_ns < first->since_ns))
            first = e;
    return first && load(h, first, until_ns);
}

void *hosting_loader(void *arg)
{
    struct hosting *h = arg;
    uint64_t until_ns;
    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        if (work(h, &until_ns))
            continue;
        if (until_ns) {
            uint64_t now = clock_ns(), wait = until_ns > now ? until_ns - now : 0, wall = clock_wall_ns() + wait;
            struct timespec at = {(time_t)(wall / 1000000000), (long)(wall % 1000000000)};
            pthread_cond_timedwait(&h->work, &h->lock, &at);
        } else {
            pthread_cond_wait(&h->work, &h->lock);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

void hosted_want(struct hosting *h, struct hosted *e)
{
    e->state = HOSTED_WANTED;
    e->since_ns = clock_ns();
    e->need = 0;
    pthread_cond_signal(&h->work);
}
