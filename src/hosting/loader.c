/* The loader: makes room, opens, closes; the lock is held but while the maker works. */
#include "hosting/private.h"

#include "base/clock.h"
#include "base/log.h"

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
    e->unload = false;
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
    e->state = e->waits ? HOSTED_WANTED : HOSTED_ABSENT; /* somebody asked while it was closed */
    pthread_cond_broadcast(&h->changed);
}

static struct hosted *least_recent(struct hosting *h)
{
    struct hosted *best = NULL;
    for (struct hosted *e = h->all; e; e = e->next)
        if (may_go(e) && !e->how.pinned && (!best || e->used_ns < best->used_ns))
            best = e;
    return best;
}

static double gb(uint64_t bytes)
{
    return (double)bytes * 1e-9;
}

static enum status make_room(struct hosting *h, const struct hosted *e, uint64_t need, struct error *err)
{
    uint64_t max = h->options.bytes_max, kept = 0;
    for (struct hosted *o = h->all; max && o; o = o->next)
        kept += o->foreign || o->how.pinned ? o->bytes : 0;
    if (max && need > max - (kept < max ? kept : max))
        return fail(err, ST_NOMEM,
                    "%s needs %.2f GB of memory; of the budget of %.2f GB, models that stay have %.2f GB", e->how.name,
                    gb(need), gb(max), gb(kept));
    while (max && h->bytes_used + need > max) {
        struct hosted *victim = least_recent(h);
        if (!victim)
            return fail(
                err, ST_LIMIT,
                "%s needs %.2f GB of memory; of the budget of %.2f GB, models that are in use have %.2f GB: try "
                "again",
                e->how.name, gb(need), gb(max), gb(h->bytes_used));
        close_model(h, victim);
    }
    return ST_OK;
}

static enum status open_model(struct hosting *h, struct hosted *e, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    uint64_t need = 0;
    e->state = HOSTED_LOADING;
    pthread_mutex_unlock(&h->lock);
    enum status st = maker->measure(maker->ctx, &need, &e->how, err);
    pthread_mutex_lock(&h->lock);
    if (st == ST_OK)
        st = make_room(h, e, need, err);
    if (st != ST_OK)
        return st;
    e->bytes = need;
    h->bytes_used += need;
    pthread_mutex_unlock(&h->lock);
    log_infof("hosting", "loading %s from %s", e->how.name, e->how.path);
    st = maker->open(maker->ctx, &e->parts, &e->how, err);
    pthread_mutex_lock(&h->lock);
    h->bytes_used -= e->bytes;
    e->bytes = st == ST_OK ? e->parts.bytes : 0;
    h->bytes_used += e->bytes;
    return st;
}

static void load(struct hosting *h, struct hosted *e)
{
    struct error err;
    if (open_model(h, e, &err) == ST_OK) {
        e->state = HOSTED_READY;
    } else {
        e->state = HOSTED_FAILED;
        e->why = err;
        e->failed_ns = clock_ns();
        log_errorf("hosting", "%s cannot be loaded: %s", e->how.name, err.text);
    }
    e->used_ns = clock_ns();
    tell(h, e); /* but those who want an adapter, which is read after this */
}

static bool is_orphan(const struct hosted *e)
{
    return !e->n_name && !e->n_lease;
}

/* What is ready is given out, before anything could be closed for another's sake. */
static bool serve(struct hosting *h)
{
    for (struct hosted *e = h->all; e; e = e->next) {
        struct hosted_name *lora = e->state == HOSTED_READY ? hosted_next_lora(h, e) : NULL;
        bool settled = e->state == HOSTED_READY || e->state == HOSTED_FAILED || is_orphan(e);
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
        if (is_orphan(e) && (e->state == HOSTED_ABSENT || e->state == HOSTED_FAILED)) {
            hosted_free(h, e);
            return true;
        }
        if (expires && (!*until_ns || expires < *until_ns))
            *until_ns = expires;
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
        if (e->state == HOSTED_WANTED && (!first || e->used_ns < first->used_ns))
            first = e;
    if (first)
        load(h, first);
    return first != NULL;
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
    e->used_ns = clock_ns();
    pthread_cond_signal(&h->work);
}
