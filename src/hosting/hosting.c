/* Life of the hosting, models loaded and unloaded while it runs, and looking at them. */
#include "hosting/private.h"

#include "base/clock.h"
#include "base/mem.h"

const char *const hosted_state_names[] = {"unloaded", "waiting", "loading", "ready", "unloading", "failed"};

enum status hosting_create(struct hosting **out, const struct hosting_options *options, struct error *err)
{
    struct hosting *h = mem_alloc_zero(1, sizeof *h);
    *out = NULL;
    if (!h)
        return fail_nomem(err, "hosting");
    h->options = *options;
    h->names_end = &h->names;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->work, NULL);
    pthread_cond_init(&h->changed, NULL);
    if (thread_start(&h->thread, hosting_loader, h) != 0) {
        hosting_destroy(h);
        return fail(err, ST_LIMIT, "cannot start the thread that loads models");
    }
    h->has_thread = true;
    *out = h;
    return ST_OK;
}

void hosting_destroy(struct hosting *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_signal(&h->work);
    pthread_mutex_unlock(&h->lock);
    if (h->has_thread)
        pthread_join(h->thread, NULL);
    while (h->names)
        hosted_name_remove(h, h->names);
    while (h->all) {
        if (h->all->state == HOSTED_READY && !h->all->foreign)
            h->options.maker->close(h->options.maker->ctx, &h->all->parts);
        hosted_free(h, h->all);
    }
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->work);
    pthread_cond_destroy(&h->changed);
    mem_free(h);
}

bool hosting_moved(struct hosting *h)
{
    return __atomic_load_n(&h->moved, __ATOMIC_RELAXED);
}

/* Another model under a name that exists: loaded beside, and the name is its own once it is ready. */
static enum status swap(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    struct hosted *e, *old;
    TRY(hosted_create(h, &e, m, err));
    e->n_name = e->n_lease = 1; /* ours, until the name is: it must not go before */
    hosted_want(h, e);
    while (e->state != HOSTED_READY && e->state != HOSTED_FAILED && !h->stopping && !h->quiet)
        pthread_cond_wait(&h->changed, &h->lock);
    enum status st = e->state == HOSTED_READY    ? ST_OK
                     : e->state == HOSTED_FAILED ? fail(err, e->why.status, "%s", e->why.text)
                                                 : fail(err, ST_CANCELED, "%s is not waited for any more", m->name);
    struct hosted_name *n = hosted_name_find(h, str_of(m->name));
    if (st == ST_OK && (!n || !n->hosted))
        st = fail(err, ST_INVALID, "the name %s went away meanwhile", m->name);
    if (st == ST_OK) {
        old = n->hosted;
        n->hosted = e;
        old->n_name--;
        __atomic_store_n(&h->moved, h->moved || old->foreign, __ATOMIC_RELAXED);
        pthread_cond_signal(&h->work);
        while (hosted_next_lora(h, e) && !h->stopping) /* who asks for one meanwhile waits, too */
            pthread_cond_wait(&h->changed, &h->lock);
    } else {
        e->n_name--;
    }
    e->n_lease--;
    e->used_ns = clock_ns();
    pthread_cond_signal(&h->work);
    return st;
}

static enum status load_locked(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    struct hosted_name *n = hosted_name_find(h, str_of(m->name)), *lora;
    struct hosting_lease l;
    struct hosted *e;
    if (!n && !m->path)
        return fail(err, ST_NOT_FOUND, "there is no model %s, and no path to load it from", m->name);
    if (n && m->path && n->hosted)
        return swap(h, m, err);
    if (n && m->path)
        return fail(err, ST_INVALID, "%s is the name of an adapter or an alias", m->name);
    bool is_new = !n;
    if (is_new)
        TRY(hosted_add(h, &e, m, err));
    e = hosted_resolve(h, str_of(m->name), &lora);
    if (e && e->state == HOSTED_FAILED) /* whoever asks for it by name need not wait to try again */
        hosted_want(h, e);
    enum status st = hosted_acquire_wait(h, str_of(m->name), &l, err);
    if (st == ST_OK) {
        if (l.lora)
            h->options.maker->close_lora(h->options.maker->ctx, l.lora);
        hosted_release(h, &l);
    } else if (is_new && (n = hosted_name_find(h, str_of(m->name)))) { /* a name that never worked does not stay */
        n->hosted->n_name--;
        hosted_name_remove(h, n);
        pthread_cond_signal(&h->work);
    }
    return st;
}

enum status hosting_load(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    enum status st = load_locked(h, m, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_load_like(struct hosting *h, const char *name, const char *path, struct error *err)
{
    struct hosting_model m = h->options.like;
    m.name = name;
    m.path = path;
    return hosting_load(h, &m, err);
}

enum status hosting_unload(struct hosting *h, const char *name, struct error *err)
{
    struct hosted_name *lora;
    pthread_mutex_lock(&h->lock);
    struct hosted *e = hosted_resolve(h, str_of(name), &lora);
    enum status st = !e || lora   ? fail(err, ST_NOT_FOUND, "there is no model %s", name)
                     : e->foreign ? fail(err, ST_INVALID, "%s cannot be unloaded", name)
                                  : ST_OK;
    if (st == ST_OK && e->state == HOSTED_READY) {
        e->unload = true;
        pthread_cond_signal(&h->work);
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

/* What is true of a name: of its model, and of the adapter over it. */
static enum hosted_state name_state(const struct hosted *e, const struct hosted_name *lora)
{
    if (!e)
        return HOSTED_ABSENT;
    if (e->state != HOSTED_READY || !lora)
        return e->state;
    return lora->tried != e ? HOSTED_LOADING : lora->lora ? HOSTED_READY : HOSTED_FAILED;
}

static const char *name_failure(const struct hosted *e, const struct hosted_name *lora)
{
    if (!e || name_state(e, lora) != HOSTED_FAILED)
        return NULL;
    return lora && e->state != HOSTED_FAILED ? lora->why.text : e->why.text;
}

void hosting_each(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx)
{
    const struct hosting_maker *maker = h->options.maker;
    pthread_mutex_lock(&h->lock);
    for (struct hosted_name *n = h->names; n; n = n->next) {
        struct hosted_name *lora;
        const struct hosted *e = hosted_resolve(h, str_of(n->text), &lora);
        enum hosted_state state = name_state(e, lora);
        bool ready = e && state == HOSTED_READY;
        struct hosting_row row = {.name = n->text,
                                  .path = n->is_lora ? n->path
                                          : e        ? e->how.path
                                                     : "",
                                  .parent = *n->parent ? n->parent : NULL,
                                  .is_lora = n->is_lora,
                                  .pinned = e && e->how.pinned,
                                  .state = state,
                                  .bundle = ready ? e->parts.bundle : NULL,
                                  .engine = ready ? e->parts.engine : NULL,
                                  .lora = ready && lora ? lora->lora : NULL,
                                  .adapter = ready && lora ? maker->lora_digest(maker->ctx, lora->lora) : NULL,
                                  .bytes = ready ? e->bytes : 0,
                                  .n_lease = e ? e->n_lease : 0,
                                  .expires_ns = e ? hosted_expires_ns(h, e) : 0,
                                  .failure = name_failure(e, lora)};
        fn(ctx, &row);
    }
    pthread_mutex_unlock(&h->lock);
}

struct hosting_row hosted_row(const struct hosting *h, const struct hosted *e)
{
    return (struct hosting_row){.name = e->how.name,
                                .path = e->how.path,
                                .pinned = e->how.pinned,
                                .state = e->state,
                                .bundle = e->parts.bundle,
                                .engine = e->parts.engine,
                                .bytes = e->bytes,
                                .n_lease = e->n_lease,
                                .expires_ns = hosted_expires_ns(h, e)};
}

void hosting_each_loaded(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx)
{
    pthread_mutex_lock(&h->lock);
    for (const struct hosted *e = h->all; e; e = e->next) {
        if (e->state != HOSTED_READY) /* its parts are the loader's */
            continue;
        struct hosting_row row = hosted_row(h, e);
        fn(ctx, &row);
    }
    pthread_mutex_unlock(&h->lock);
}

void hosting_on_close(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx)
{
    pthread_mutex_lock(&h->lock);
    h->on_close = fn;
    h->on_close_ctx = ctx;
    while (h->calling)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

bool hosting_knows(struct hosting *h, struct str name)
{
    struct hosted_name *lora;
    pthread_mutex_lock(&h->lock);
    bool known = hosted_resolve(h, name, &lora) != NULL;
    pthread_mutex_unlock(&h->lock);
    return known;
}

const char *hosting_default(struct hosting *h)
{
    return h->names ? h->names->text : "";
}

uint64_t hosting_bytes(struct hosting *h, uint64_t *bytes_max)
{
    pthread_mutex_lock(&h->lock);
    uint64_t used = h->bytes_used;
    *bytes_max = h->options.bytes_max;
    pthread_mutex_unlock(&h->lock);
    return used;
}
