/* Leases: whoever holds one keeps its model. Who must wait for a model gets the lease from the loader, before anything
 * else could be done with the model: nothing that was loaded for somebody goes before it was used.
 */
#include "hosting/private.h"

#include "base/clock.h"

#include <stdio.h>

enum { RETRY_S = 5 }; /* a model that failed is not tried again sooner */

static enum status lease(struct hosting *h, struct hosted *e, struct hosted_name *lora, struct str name,
                         struct hosting_lease *out, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    if (lora && !lora->lora)
        return fail(err, lora->why.status, "%s", lora->why.text);
    *out = (struct hosting_lease){.hosted = e, .bundle = e->parts.bundle, .engine = e->parts.engine};
    if (lora) {
        out->lora = lora->lora;
        maker->hold_lora(maker->ctx, lora->lora);
        snprintf(out->adapter, sizeof out->adapter, "%s", maker->lora_digest(maker->ctx, lora->lora));
    }
    name = name.ptr ? name : str_of(e->how.name);
    snprintf(out->name, sizeof out->name, "%.*s", (int)name.len, name.ptr);
    e->n_lease++;
    e->used_ns = clock_ns();
    e->unload = false;
    e->asked_s = 0;
    return ST_OK;
}

/* At the end of e's: first come, first served. The name is copied: it is asked for again. */
static void park(struct hosting *h, struct hosted *e, struct str name, struct hosting_lease *out,
                 struct hosting_wait *wait)
{
    struct hosting_wait **at = &e->waits;
    if (!wait || (h->quiet && wait->fn))
        return;
    while (*at)
        at = &(*at)->next;
    *at = wait;
    wait->next = NULL;
    wait->out = out;
    wait->done = false;
    if (name.ptr != wait->name)
        snprintf(wait->name, sizeof wait->name, "%.*s", (int)name.len, name.ptr ? name.ptr : "");
    pthread_cond_signal(&h->work);
}

static enum status acquire(struct hosting *h, struct str name, struct hosting_lease *out, struct hosting_wait *wait,
                           struct error *err)
{
    struct hosted_name *lora;
    struct hosted *e = hosted_resolve(h, name, &lora);
    if (!e)
        return fail(err, ST_NOT_FOUND, "there is no model %.*s", STR_ARG(name.ptr ? name : STR("at all")));
    if (e->state == HOSTED_READY && !e->yields && (!lora || lora->tried == e))
        return lease(h, e, lora, name, out, err);
    if (e->state == HOSTED_FAILED && clock_ns() < e->since_ns + (uint64_t)RETRY_S * 1000000000)
        return fail(err, e->why.status, "%s", e->why.text);
    if (e->state == HOSTED_ABSENT || e->state == HOSTED_FAILED)
        hosted_want(h, e);
    park(h, e, name, out, wait);
    return fail(err, ST_CANCELED, "%s is being loaded", e->how.name);
}

struct hosting_wait *hosted_settle(struct hosting *h, struct hosted *e)
{
    struct hosting_wait *list = e->waits, *told = NULL, **end = &told;
    e->waits = NULL;
    for (struct hosting_wait *w = list, *next; w; w = next) {
        next = w->next;
        w->next = NULL;
        struct str name = *w->name ? str_of(w->name) : (struct str){NULL, 0};
        enum status st = acquire(h, name, w->out, w, &w->why); /* of what the name means by now */
        if (st == ST_CANCELED)
            continue; /* it waits again, for another */
        w->status = st;
        if (w->fn) {
            *end = w;
            end = &w->next;
        }
        w->done = true;
    }
    return told;
}

enum status hosting_acquire(struct hosting *h, struct str name, struct hosting_lease *out, struct hosting_wait *wait,
                            struct error *err)
{
    *out = (struct hosting_lease){0};
    pthread_mutex_lock(&h->lock);
    enum status st = acquire(h, name, out, wait, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

static bool forget(struct hosting *h, const struct hosting_wait *wait)
{
    for (struct hosted *e = h->all; e; e = e->next)
        for (struct hosting_wait **at = &e->waits; *at; at = &(*at)->next)
            if (*at == wait) {
                *at = wait->next;
                return true;
            }
    return false;
}

bool hosting_forget(struct hosting *h, struct hosting_wait *wait)
{
    pthread_mutex_lock(&h->lock);
    bool found = forget(h, wait);
    pthread_mutex_unlock(&h->lock);
    return found;
}

enum status hosted_acquire_wait(struct hosting *h, struct str name, struct hosting_lease *out, struct error *err)
{
    struct hosting_wait wait = {0};
    enum status st = acquire(h, name, out, &wait, err);
    if (st != ST_CANCELED)
        return st;
    while (!wait.done && !h->stopping && !h->quiet)
        pthread_cond_wait(&h->changed, &h->lock);
    if (!wait.done) {
        forget(h, &wait);
        return st;
    }
    return wait.status == ST_OK ? ST_OK : fail(err, wait.status, "%s", wait.why.text);
}

enum status hosting_acquire_wait(struct hosting *h, struct str name, struct hosting_lease *out, struct error *err)
{
    *out = (struct hosting_lease){0};
    pthread_mutex_lock(&h->lock);
    enum status st = hosted_acquire_wait(h, name, out, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

void hosted_release(struct hosting *h, struct hosting_lease *l)
{
    l->hosted->n_lease--;
    l->hosted->used_ns = clock_ns();
    if (!l->hosted->n_lease)
        pthread_cond_signal(&h->work);
}

void hosting_release(struct hosting *h, struct hosting_lease *l)
{
    if (!l->hosted)
        return;
    if (l->lora)
        h->options.maker->close_lora(h->options.maker->ctx, l->lora);
    pthread_mutex_lock(&h->lock);
    hosted_release(h, l);
    pthread_mutex_unlock(&h->lock);
    *l = (struct hosting_lease){0};
}

bool hosting_keep(struct hosting *h, const struct hosting_lease *l, int seconds)
{
    struct hosted *e = l->hosted;
    if (!e)
        return false;
    pthread_mutex_lock(&h->lock);
    bool good = !e->foreign && (seconds || !e->how.pinned);
    if (good) {
        e->asked_s = seconds;
        e->unload = seconds == 0;
    }
    pthread_mutex_unlock(&h->lock); /* the lease's end wakes the loader */
    return good;
}

void hosting_quiet(struct hosting *h)
{
    pthread_mutex_lock(&h->lock);
    h->quiet = true;
    for (struct hosted *e = h->all; e; e = e->next)
        for (struct hosting_wait **at = &e->waits; *at;)
            if ((*at)->fn)
                *at = (*at)->next;
            else
                at = &(*at)->next;
    pthread_cond_broadcast(&h->changed);
    while (h->calling)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}
