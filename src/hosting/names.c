/* The names of models, aliases and adapters, and the models themselves as rows. Under the lock. */
#include "hosting/private.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

struct hosted_name *hosted_name_find(const struct hosting *h, struct str text)
{
    for (struct hosted_name *n = h->names; n; n = n->next)
        if (str_is(text, n->text))
            return n;
    return NULL;
}

struct hosted *hosted_resolve(const struct hosting *h, struct str text, struct hosted_name **lora)
{
    struct hosted_name *n = text.ptr ? hosted_name_find(h, text) : h->names;
    *lora = NULL;
    for (int depth = 0; n && depth < 8; depth++) { /* an alias of an alias of an adapter ... */
        if (n->is_lora)
            *lora = n;
        if (n->hosted)
            return n->hosted;
        n = hosted_name_find(h, str_of(n->parent));
    }
    return NULL;
}

enum status hosted_name_add(struct hosting *h, struct hosted_name **out, const char *text, struct error *err)
{
    if (!*text || strlen(text) >= HOSTED_NAME_MAX)
        return fail(err, ST_INVALID, "a model's name has 1 to %d bytes", HOSTED_NAME_MAX - 1);
    if (hosted_name_find(h, str_of(text)))
        return fail(err, ST_INVALID, "the name %s is taken", text);
    struct hosted_name *n = mem_alloc_zero(1, sizeof *n);
    if (!n)
        return fail_nomem(err, "hosting");
    strcpy(n->text, text);
    n->id = ++h->n_id;
    *h->names_end = n;
    h->names_end = &n->next;
    *out = n;
    return ST_OK;
}

void hosted_name_remove(struct hosting *h, struct hosted_name *gone)
{
    struct hosted_name **at = &h->names;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    if (!gone->next)
        h->names_end = at;
    hosted_close_lora(h, gone);
    mem_free(gone->path);
    mem_free(gone);
}

enum status hosted_create(struct hosting *h, struct hosted **out, const struct hosting_model *m, struct error *err)
{
    struct hosted *e = mem_alloc_zero(1, sizeof *e);
    *out = NULL;
    if (!e)
        return fail_nomem(err, "hosting");
    e->how = *m;
    e->how.name = mem_strdup(m->name);
    e->how.path = mem_strdup(m->path ? m->path : "");
    if (!e->how.name || !e->how.path) {
        mem_free((char *)(uintptr_t)e->how.name);
        mem_free((char *)(uintptr_t)e->how.path);
        mem_free(e);
        return fail_nomem(err, "hosting");
    }
    e->next = h->all;
    h->all = e;
    *out = e;
    return ST_OK;
}

void hosted_free(struct hosting *h, struct hosted *gone)
{
    struct hosted **at = &h->all;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    mem_free((char *)(uintptr_t)gone->how.name);
    mem_free((char *)(uintptr_t)gone->how.path);
    mem_free(gone);
}

enum status hosted_add(struct hosting *h, struct hosted **out, const struct hosting_model *m, struct error *err)
{
    struct hosted_name *n;
    TRY(hosted_name_add(h, &n, m->name, err));
    enum status st = hosted_create(h, &n->hosted, m, err);
    if (st != ST_OK) {
        hosted_name_remove(h, n);
        return st;
    }
    n->hosted->n_name = 1;
    *out = n->hosted;
    return ST_OK;
}

enum status hosting_add(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    struct hosted *e;
    pthread_mutex_lock(&h->lock);
    enum status st = hosted_add(h, &e, m, err);
    if (st == ST_OK && m->pinned)
        hosted_want(h, e);
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_add_ready(struct hosting *h, const char *name, const struct hosted_parts *parts, struct error *err)
{
    struct hosted *e;
    pthread_mutex_lock(&h->lock);
    enum status st = hosted_add(h, &e, &(struct hosting_model){.name = name, .pinned = true}, err);
    if (st == ST_OK) {
        e->parts = *parts;
        e->bytes = parts->bytes;
        h->bytes_used += parts->bytes;
        e->foreign = true;
        e->state = HOSTED_READY;
        e->used_ns = clock_ns();
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

/* An alias that leads back to itself, or over too many names, stays as it was. */
static enum status lead_to(struct hosting *h, struct hosted_name *alias, const char *name, struct error *err)
{
    struct hosted_name *lora;
    char before[HOSTED_NAME_MAX];
    memcpy(before, alias->parent, sizeof before);
    snprintf(alias->parent, sizeof alias->parent, "%s", name);
    if (hosted_resolve(h, str_of(alias->text), &lora))
        return ST_OK;
    enum status st =
        fail(err, ST_INVALID, "%s cannot mean %s: that leads back to it, or over too many names", alias->text, name);
    memcpy(alias->parent, before, sizeof before);
    if (!*before)
        hosted_name_remove(h, alias);
    return st;
}

enum status hosting_alias(struct hosting *h, const char *alias, const char *name, struct error *err)
{
    struct hosted_name *n, *lora;
    pthread_mutex_lock(&h->lock);
    enum status st =
        hosted_resolve(h, str_of(name), &lora) ? ST_OK : fail(err, ST_NOT_FOUND, "there is no model %s", name);
    n = hosted_name_find(h, str_of(alias));
    if (st == ST_OK && n && (n->hosted || n->is_lora || !strcmp(alias, name)))
        st = fail(err, ST_INVALID, "%s is a model's own name, not an alias", alias);
    else if (st == ST_OK && !n)
        st = hosted_name_add(h, &n, alias, err);
    if (st == ST_OK)
        st = lead_to(h, n, name, err);
    pthread_cond_signal(&h->work); /* adapters may have another base now */
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_unalias(struct hosting *h, const char *alias, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    struct hosted_name *n = hosted_name_find(h, str_of(alias));
    enum status st = !n                        ? fail(err, ST_NOT_FOUND, "there is no model %s", alias)
                     : n->hosted || n->is_lora ? fail(err, ST_INVALID, "%s is a model's own name, not an alias", alias)
                                               : ST_OK;
    if (st == ST_OK) {
        hosted_name_remove(h, n);
        pthread_cond_signal(&h->work); /* adapters may have lost their base */
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}
