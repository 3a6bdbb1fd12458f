/* Leases: whoever holds one keeps its model; whoever must wait for it is called back. */
#include "hosting/private.h"

#include "base/clock.h"

#include <stdio.h>

enum { RETRY_S = 5 }; /* a model that failed is not tried again sooner */

static enum status lease(struct hosting *h, struct hosted *e, struct hosted_name *lora, struct str name,
                         struct hosting_lease *out, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    if (lora && lora->lora_of != e)
        return fail(err, lora->why.status ? lora->why.status : ST_NOT_FOUND, "%s",
                    lora->why.status ? lora->why.text : "the adapter is being changed: try again");
    *out = (struct hosting_lease){.hosted = e, .bundle = e->parts.bundle, .engine = e->parts.engine};
    if (lora) {
        out->lora = lora->lora;
        maker->hold_lora(maker->ctx, lora->lora);
        snprintf(out->adapter, sizeof out->adapter, "%s", maker->lora_digest(maker->ctx, lora->lora));
    }
    name = name.ptr ? name : str_of(e->how.name);
    snprintf(out->name, sizeof out->name, "%.*s", (int)name.len, name.ptr);
    e->n_lease++;
    e->unload = false;
    return ST_OK;
}

static enum status acquire_locked(struct hosting *h, struct str name, struct hosting_lease *out,
                                  struct hosting_wait *wait, struct error *err)
{
    struct hosted_name *lora;
    struct hosted *e = hosted_resolve(h, name, &lora);
    if (!e)
        return fail(err, ST_NOT_FOUND, "there is no model %.*s", STR_ARG(name.ptr ? name : STR("at all")));
    if (e->state == HOSTED_READY)
        return lease(h, e, lora, name, out, err);
    if (e->state == HOSTED_FAILED && clock_ns() < e->failed_ns + (uint64_t)RETRY_S * 1000000000)
        return fail(err, e->why.status, "%s", e->why.text);
    if (e->state == HOSTED_ABSENT || e->state == HOSTED_FAILED)
        hosted_want(h, e);
    if (wait) {
        wait->next = e->waits;
        e->waits = wait;
    }
    return fail(err, ST_CANCELED, "%s is being loaded", e->how.name);
}

enum status hosting_acquire(struct hosting *h, struct str name, struct hosting_lease *out, struct hosting_wait *wait,
                            struct error *err)
{
    *out = (struct hosting_lease){0};
    pthread_mutex_lock(&h->lock);
    enum status st = acquire_locked(h, name, out, wait, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

bool hosting_forget(struct hosting *h, struct hosting_wait *wait)
{
    bool found = false;
    pthread_mutex_lock(&h->lock);
    for (struct hosted *e = h->all; e; e = e->next)
        for (struct hosting_wait **at = &e->waits; *at; at = &(*at)->next)
            if (*at == wait) {
                *at = wait->next;
                found = true;
                break;
            }
    pthread_mutex_unlock(&h->lock);
    return found;
}

enum status hosted_acquire_wait(struct hosting *h, struct str name, struct hosting_lease *out, struct error *err)
{
    enum status st;
    while ((st = acquire_locked(h, name, out, NULL, err)) == ST_CANCELED && !h->stopping)
        pthread_cond_wait(&h->changed, &h->lock);
    return st;
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
