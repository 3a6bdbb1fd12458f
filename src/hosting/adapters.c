/* LoRA adapters: opened with their base, or by request; held by leases. */
#include "hosting/private.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>

void hosted_close_lora(struct hosting *h, struct hosted_name *n)
{
    if (n->lora)
        h->options.maker->close_lora(h->options.maker->ctx, n->lora);
    n->lora = NULL;
    n->lora_of = NULL;
}

/* An adapter of e that is not open for it, nor was tried. */
static struct hosted_name *next_lora(const struct hosting *h, const struct hosted *e)
{
    struct hosted_name *itself;
    for (struct hosted_name *n = h->names; n; n = n->next)
        if (n->is_lora && n->lora_of != e && n->tried != e && hosted_resolve(h, str_of(n->text), &itself) == e &&
            itself == n)
            return n;
    return NULL;
}

/* gives_way: the lock is given up while an adapter is read, so that nobody waits for that; e is the loader's then. */
void hosted_open_loras(struct hosting *h, struct hosted *e, bool gives_way)
{
    const struct hosting_maker *maker = h->options.maker;
    for (struct hosted_name *n = h->names; n; n = n->next)
        n->tried = n->tried == e ? NULL : n->tried;
    for (struct hosted_name *n; (n = next_lora(h, e));) {
        char text[HOSTED_NAME_MAX], *path = mem_strdup(n->path);
        struct lora *lora = NULL;
        struct error why = {0};
        strcpy(text, n->text);
        n->tried = e;
        hosted_close_lora(h, n);
        if (gives_way)
            pthread_mutex_unlock(&h->lock);
        enum status st =
            path ? maker->open_lora(maker->ctx, &lora, &e->parts, path, &why) : fail_nomem(&why, "hosting");
        if (gives_way)
            pthread_mutex_lock(&h->lock);
        n = hosted_name_find(h, str_of(text));
        bool same = n && n->is_lora && n->tried == e && !n->lora && path && !strcmp(n->path, path);
        if (st != ST_OK)
            log_warnf("hosting", "%s", why.text);
        if (same) {
            n->why = why;
            n->lora = lora;
            n->lora_of = st == ST_OK ? e : NULL;
        } else if (lora) { /* its name went away meanwhile, or is another's */
            maker->close_lora(maker->ctx, lora);
        }
        mem_free(path);
    }
}

static enum status lora_add_locked(struct hosting *h, struct hosted_name **out, const char *name, const char *base,
                                   const char *path, struct error *err)
{
    struct hosted_name *lora, *n;
    struct hosted *e = hosted_resolve(h, base ? str_of(base) : (struct str){NULL, 0}, &lora);
    if (!e || lora)
        return fail(err, ST_NOT_FOUND, "there is no model %s for the adapter %s", base ? base : "at all", name);
    TRY(hosted_name_add(h, &n, name, err));
    n->is_lora = true;
    snprintf(n->parent, sizeof n->parent, "%s", base ? base : h->names->text);
    if (!(n->path = mem_strdup(path))) {
        hosted_name_remove(h, n);
        return fail_nomem(err, "hosting");
    }
    *out = n;
    return ST_OK;
}

enum status hosting_lora_add(struct hosting *h, const char *name, const char *base, const char *path, struct error *err)
{
    struct hosted_name *n, *lora;
    pthread_mutex_lock(&h->lock);
    enum status st = lora_add_locked(h, &n, name, base, path, err);
    struct hosted *e = st == ST_OK ? hosted_resolve(h, str_of(n->parent), &lora) : NULL;
    if (e && e->state == HOSTED_READY) {
        hosted_open_loras(h, e, false);
        if (n->lora_of != e) {
            st = fail(err, n->why.status, "%s", n->why.text);
            hosted_name_remove(h, n);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_lora_load(struct hosting *h, const char *name, const char *base, const char *path,
                              struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    struct hosting_lease l;
    struct lora *lora = NULL;
    struct hosted_name *n = NULL;
    TRY(hosting_acquire_wait(h, base ? str_of(base) : (struct str){NULL, 0}, &l, err));
    enum status st = l.lora ? fail(err, ST_INVALID, "%s is an adapter itself", base) : ST_OK;
    if (st == ST_OK && hosting_knows(h, str_of(name))) /* before the work; what counts is asked under the lock */
        st = fail(err, ST_INVALID, "the name %s is taken", name);
    if (st == ST_OK) /* nobody waits for this: the lease keeps the base */
        st = maker->open_lora(maker->ctx, &lora, &l.hosted->parts, path, err);
    pthread_mutex_lock(&h->lock);
    if (st == ST_OK)
        st = lora_add_locked(h, &n, name, base, path, err);
    if (st == ST_OK) {
        n->lora = lora;
        n->lora_of = l.hosted;
    }
    pthread_mutex_unlock(&h->lock);
    if (st != ST_OK && lora)
        maker->close_lora(maker->ctx, lora);
    hosting_release(h, &l);
    return st;
}

enum status hosting_lora_unload(struct hosting *h, const char *name, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    struct hosted_name *n = hosted_name_find(h, str_of(name));
    bool found = n && n->is_lora;
    if (found)
        hosted_name_remove(h, n); /* leases hold what they need of it */
    pthread_mutex_unlock(&h->lock);
    return found ? ST_OK : fail(err, ST_NOT_FOUND, "there is no adapter %s", name);
}
