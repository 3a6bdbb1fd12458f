/* LoRA adapters: opened by the loader once their base is loaded, without the lock; held by leases. Who asks for one
 * before waits for it, as for a model.
 */
#include "hosting/private.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>

void hosted_close_lora(struct hosting *h, struct hosted_name *n)
{
    if (n->lora)
        h->options.maker->close_lora(h->options.maker->ctx, n->lora);
    n->lora = NULL;
    n->tried = NULL;
}

struct hosted_name *hosted_next_lora(const struct hosting *h, const struct hosted *e)
{
    struct hosted_name *itself;
    for (struct hosted_name *n = h->names; n; n = n->next)
        if (n->is_lora && n->tried != e && hosted_resolve(h, str_of(n->text), &itself) == e && itself == n)
            return n;
    return NULL;
}

void hosted_open_lora(struct hosting *h, struct hosted *e, struct hosted_name *n)
{
    const struct hosting_maker *maker = h->options.maker;
    char text[HOSTED_NAME_MAX], *path = mem_strdup(n->path);
    struct lora *lora = NULL;
    struct error why = {0};
    uint64_t id = n->id;
    strcpy(text, n->text);
    hosted_close_lora(h, n); /* another base's */
    pthread_mutex_unlock(&h->lock);
    enum status st = path ? maker->open_lora(maker->ctx, &lora, &e->parts, path, &why) : fail_nomem(&why, "hosting");
    mem_free(path);
    if (st != ST_OK)
        log_warnf("hosting", "%s: %s", text, why.text);
    pthread_mutex_lock(&h->lock);
    n = hosted_name_find(h, str_of(text));
    if (n && n->id == id) {
        n->why = why;
        n->lora = lora;
        n->tried = e;
    } else if (lora) { /* its name went away meanwhile, or is another's */
        maker->close_lora(maker->ctx, lora);
    }
    pthread_cond_broadcast(&h->changed);
}

static enum status add_name(struct hosting *h, struct hosted_name **out, const char *name, const char *base,
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
    pthread_cond_signal(&h->work);
    return ST_OK;
}

/* A name, and where its base is loaded the adapter, which the loader opens; one that cannot be opened leaves no name.
 */
static enum status add(struct hosting *h, const char *name, const char *base, const char *path, struct error *err)
{
    struct hosted_name *n = NULL, *lora;
    TRY(add_name(h, &n, name, base, path, err));
    uint64_t id = n->id;
    for (;; pthread_cond_wait(&h->changed, &h->lock)) {
        n = hosted_name_find(h, str_of(name));
        if (!n || n->id != id)
            return fail(err, ST_NOT_FOUND, "the adapter %s went away meanwhile", name);
        struct hosted *e = hosted_resolve(h, str_of(name), &lora); /* its base may be another by now */
        bool hidden = lora != n; /* its base's name is an adapter's by now, which comes instead */
        if (!e || hidden || e->state != HOSTED_READY || h->stopping)
            return ST_OK;
        if (n->tried == e)
            break;
    }
    if (n->lora)
        return ST_OK;
    enum status st = fail(err, n->why.status, "%s", n->why.text);
    hosted_name_remove(h, n);
    return st;
}

enum status hosting_lora_add(struct hosting *h, const char *name, const char *base, const char *path, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    enum status st = add(h, name, base, path, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_lora_load(struct hosting *h, const char *name, const char *base, const char *path,
                              struct error *err)
{
    struct hosting_lease l;
    TRY(hosting_acquire_wait(h, base ? str_of(base) : (struct str){NULL, 0}, &l, err));
    enum status st = l.lora ? fail(err, ST_INVALID, "%s is an adapter itself", base) : ST_OK;
    if (st == ST_OK)
        st = hosting_lora_add(h, name, base, path, err);
    hosting_release(h, &l);
    return st;
}

enum status hosting_lora_unload(struct hosting *h, const char *name, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    struct hosted_name *n = hosted_name_find(h, str_of(name));
    bool found = n && n->is_lora;
    if (found) {
        hosted_name_remove(h, n); /* leases hold what they need of it */
        pthread_cond_broadcast(&h->changed);
        pthread_cond_signal(&h->work); /* who waits for it is told */
    }
    pthread_mutex_unlock(&h->lock);
    return found ? ST_OK : fail(err, ST_NOT_FOUND, "there is no adapter %s", name);
}
